"""The paper's settings; bf16; several processes."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

HERE = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(HERE), str(HERE / "tests")]

import data  # noqa: E402
import eval  # noqa: E402
import trip  # noqa: E402
from miniatures import LAYOUTS, SMALL, TINY  # noqa: E402


@pytest.fixture(autouse=True)
def few_faces(monkeypatch):
    monkeypatch.setitem(data.DATASETS, "faces", (
        lambda attrs, size, root, seed: data.split(data.faces(attrs, size, n=60), 0), ""))


# ------------------------------------------------------------------------------------------------------------
# Several attributes

def test_the_disentanglement_matrix_tells_what_each_dial_does_to_each_attribute():
    seen = np.full((5, len(eval.V), 4), 0.5)
    seen[:, :, 0] += 0.3 * eval.V  # the first dial moves its own attribute by 0.6
    seen[:, :, 2] -= 0.05 * eval.V  # and a third one a little
    scores = eval.truth_scores(seen, seen[:, 6], seen[:, 6], 0, [0, 2])
    assert scores["disentanglement"] == pytest.approx([0.6, -0.1])
    assert "disentanglement" not in eval.truth_scores(seen, seen[:, 6], seen[:, 6], 0, [0])


# ------------------------------------------------------------------------------------------------------------
# The paper's scale

def test_the_papers_preset_has_the_settings_of_its_section_4():
    c = trip.Config(**trip.PRESETS["paper"])
    assert (c.size, c.batch, c.lr_g, c.lr_r) == (256, 4, 5e-5, 1e-5)
    assert (c.lam, c.lam_g, c.lam_c, c.lam_gp, c.lam_o) == (0.5, 0.5, 2.5, 150, 1e-6)
    assert (c.paper_generator, c.head, c.width, c.shift) == (True, "paper", 64, False)
    assert (c.cls, c.gp_center) == (False, 1)
    run = trip.Run(trip.Config(**SMALL))
    assert all(opt.defaults["betas"] == (0.5, 0.999) for opt in (run.opt_g, run.opt_r))


@pytest.mark.parametrize("name, preset, advised", [
    ("faces", "small", False), ("faces", "photo", True), ("celeba-hq", "small", True),
    ("celeba-hq", "photo", False), ("celeba-hq", "paper", False)])
def test_a_preset_that_does_not_fit_the_pictures_gets_a_word_of_advice(
        name, preset, advised, tmp_path, monkeypatch, capsys):
    def untrained(run, losses, test_data, save):
        if run.step == 0:
            save()
        return ()

    monkeypatch.setattr(eval, "fit", untrained)
    out, root = tmp_path / "run", tmp_path / "root"
    LAYOUTS.get(name, (Path.mkdir,))[0](root)
    typed = [*TINY, "--data", name, "--root", str(root), "--preset", preset, "--out", str(out)]
    assert trip.main(typed) == 0
    assert capsys.readouterr().out.count("--preset photo is for photographs") == advised
    torch.save(trip.checkpoint(out) | {"step": 1}, out / "trip.pt")
    assert trip.main([*typed, "--resume"]) == 0  # it is said once
    assert "--preset photo" not in capsys.readouterr().out


def test_options_overrule_a_preset_and_going_on_with_it_changes_only_what_is_typed(tmp_path, monkeypatch):
    monkeypatch.setattr(eval, "report", lambda *_: None)
    small = [*TINY, "--preset", "paper", "--out", str(tmp_path)]
    assert trip.main(small) == 0
    assert trip.main([*small, "--steps", "3", "--resume"]) == 0
    config = trip.load(tmp_path)[2]
    typed = dict(SMALL, batch=4, steps=3)
    assert config == trip.Config(**trip.PRESETS["paper"] | typed) and config.lam_gp == 150


def a_step(bf16):
    """An iteration: its losses, the gradients of R and of G as one vector each, and G(x, v)."""
    run = trip.Run(trip.Config(size=32, width=16, lam_g=2.0, lam_gp=4.0))
    run.bf16, rng = bf16, torch.Generator().manual_seed(0)
    x, y = (torch.randn(2, 8, 3, 32, 32, generator=rng) / 2).tanh()
    v = 2 * torch.rand(8, 1, generator=rng) - 1
    with run.autocast():
        fake, *parts = run.G(x, v, parts=True)
    losses = trip.ranker_step(run, x, y, v.sign(), fake.detach())
    losses |= trip.generator_step(run, x, v, fake, *parts)
    return losses, [torch.cat([p.grad.flatten() for p in net.parameters()]) for net in (run.R, run.G)], fake


def test_a_step_in_bf16_is_one_in_float32_but_for_rounding():
    (exact, exact_grads, exact_fake), (rough, rough_grads, rough_fake) = a_step(False), a_step(True)
    assert not torch.equal(exact_fake, rough_fake)
    assert {value.dtype for value in (rough_fake, *rough.values())} == {torch.float32}
    for name in exact:
        assert rough[name].item() == pytest.approx(exact[name].item(), rel=0.05, abs=0.01), name
    for a, b in zip(exact_grads, rough_grads):
        assert torch.cosine_similarity(a, b, dim=0) > 0.97
        assert (b.norm() / a.norm()).item() == pytest.approx(1, abs=0.1)


def test_the_penalty_stays_in_float32(monkeypatch):
    def spied(R, x, *rest):
        seen.append(R.features(x).dtype)
        return penalty(R, x, *rest)

    seen, penalty = [], trip.gradient_penalty
    monkeypatch.setattr(trip, "gradient_penalty", spied)
    a_step(bf16=True)
    assert seen == [torch.float32]


def test_the_bench_counts_the_multiply_adds_of_an_iteration(monkeypatch, capsys):
    monkeypatch.syspath_prepend(HERE / "study")
    import bench
    conv, x = torch.nn.Conv2d(3, 5, 3, padding=1), torch.ones(2, 3, 8, 8)
    with bench.Counter() as counter:
        conv(x).sum().backward()  # forward, and back to its weights (x needs none)
    assert counter.macs == 2 * 2 * 8 * 8 * 3 * 5 * 9
    rate = bench.rate
    monkeypatch.setattr(bench, "rate", lambda device, once, seconds, n=1: rate(device, once, 0.01))
    assert bench.main(TINY[:-4]) == 0
    said = capsys.readouterr().out
    for words in ("iterations/s", "images/s", "peak memory", "multiply-adds", "TFLOP/s", "not convolution"):
        assert words in said


# ------------------------------------------------------------------------------------------------------------
# Several processes

PROCESS = """
import signal, sys
sys.path.insert(0, {here!r})
import torch, torch.distributed as dist
import data, eval, trip

# a few iterations, with a look at the gradients
trip.team.join("cpu")
rank, own, applied = dist.get_rank(), [], []
run = trip.Run(trip.Config(size=32, width=4, batch=4, steps=3))
sizes = [sum(p.numel() for p in net.parameters()) for net in (run.R, run.G)]
all_reduce = dist.all_reduce
def spy(t):
    if t.numel() in sizes:
        own.append(t.clone())
    all_reduce(t)
dist.all_reduce = spy
for net, optimizer in ((run.R, run.opt_r), (run.G, run.opt_g)):
    optimizer.register_step_pre_hook(lambda *_, net=net: applied.append(
        torch.cat([p.grad.flatten() for p in net.parameters()])))
some = data.faces(("smile",), 32, n=40)
list(eval.fit(run, trip.train(run, data.pairs(some, 4, run.rng)), some))
dist.all_reduce = all_reduce
weights = [*run.G.parameters(), *run.R.parameters()]
torch.save(dict(own=own, applied=applied, weights=weights), f"{out}/rank{{rank}}.pt")

# a whole run, one stopped by Ctrl-C in the second process only, and the same resumed
data.DATASETS["faces"] = lambda *_: data.split(some, 0), ""
eval.report = lambda *_: None
options = {options!r} + ["--steps", "14"]
assert trip.main([*options, "--out", "{out}/whole"]) == 0
train = trip.train
def pressed(run, *rest):
    for losses in train(run, *rest):
        if run.step == 3 and rank == 1:
            signal.raise_signal(signal.SIGINT)
        yield losses
trip.train = pressed
assert trip.main([*options, "--out", "{out}/stopped"]) == 130
trip.train = train
assert trip.main([*options, "--out", "{out}/stopped", "--resume"]) == 0
trip.leave(0)  # (else a process may abort in its teardown, now and then)
"""


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    """PROCESS, run by torchrun with two processes: its folder, what each saw, what was printed."""
    out = tmp_path_factory.mktemp("two")
    (out / "process.py").write_text(PROCESS.format(here=str(HERE), out=out.as_posix(), options=TINY))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    any_port = "--rdzv-backend c10d --rdzv-endpoint localhost:0 --local-addr localhost".split()
    done = subprocess.run([*torchrun, *any_port, str(out / "process.py")], capture_output=True, text=True,
                          env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    return out, [torch.load(out / f"rank{rank}.pt") for rank in (0, 1)], done.stdout


def test_processes_have_pairs_of_their_own_apply_the_mean_gradient_and_keep_the_same_weights(two_processes):
    _, (a, b), _ = two_processes
    assert len(a["weights"]) > 20 and all(map(torch.equal, a["weights"], b["weights"]))
    assert len(a["own"]) == 6 and not any(map(torch.equal, a["own"], b["own"]))
    assert len(a["applied"]) == 6 and all(map(torch.equal, a["applied"], b["applied"]))
    for applied, own_a, own_b in zip(a["applied"], a["own"], b["own"]):
        assert torch.allclose(applied, (own_a + own_b) / 2, atol=1e-7)


def test_a_stopped_run_of_two_processes_goes_on_as_if_it_had_not_stopped(two_processes):
    out, _, said = two_processes
    whole, stopped = (trip.checkpoint(out / name) for name in ("whole", "stopped"))
    assert whole["step"] == stopped["step"] == 14
    assert len(whole["rng"]) == 2 and not torch.equal(*whole["rng"])
    for net in ("G", "R"):
        assert all(torch.equal(u, stopped[net][name]) for name, u in whole[net].items())
    assert "iteration 10" in said and "torchrun --nproc-per-node 2 trip.py" in said
    assert said.count("finished") == 2


def test_a_run_of_two_processes_is_not_gone_on_with_by_one(two_processes, capsys):
    assert trip.main(["--out", str(two_processes[0] / "whole"), "--resume", "--steps", "20"]) == 2
    assert "is of 2 processes" in capsys.readouterr().err
    assert trip.load(two_processes[0] / "whole")[2].steps == 14  # but it can be used
