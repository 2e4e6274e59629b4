"""The rivals: each is what its paper says, and a run of it is taken where TRIP's is."""

import functools
import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(HERE), str(HERE / "study")]

import data  # noqa: E402
import eval  # noqa: E402
import rivals  # noqa: E402
import study  # noqa: E402
import trip  # noqa: E402
from test_study import Here  # noqa: E402

NAMES = list(rivals.RIVALS)
SMALL = dict(size=32, steps=4, batch=4)
TINY = {name: SMALL | dict(width=4) for name in NAMES}


def typed(settings):
    return [word for name, value in settings.items() for word in (f"--{name}", str(value))]


def few_faces(attrs, size, root, seed):
    return data.split(data.faces(attrs, size, seed, n=300), seed)


@pytest.fixture(scope="module", autouse=True)
def fewer_faces():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(data.DATASETS, "faces", (functools.cache(few_faces), ""))
        yield


@pytest.fixture(scope="module")
def faces(fewer_faces):
    return data.load("faces", ("smile",), 32)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A tiny finished run of TRIP and of each rival, made by the command lines."""
    root = tmp_path_factory.mktemp("runs")
    assert trip.main([*typed(SMALL | dict(width=4)), "--out", str(root / "TRIP")]) == 0
    for name in NAMES:
        assert rivals.main([name, *typed(TINY[name]), "--out", str(root / name)]) == 0
    return root


def new(name, **more):
    return rivals.RIVALS[name](rivals.configured(name, **TINY[name] | more))


def steps(run, faces, n):
    """n iterations of the run; their losses."""
    training = run.train(faces[0])
    return [next(training) for _ in range(n)]


def weights(net):
    return torch.cat([p.detach().flatten() for p in net.parameters()]).clone()


@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("name", NAMES)
def test_every_generator_makes_pictures_of_pictures_and_strengths(name, size):
    G, x = new(name, size=size).G.eval(), 2 * torch.rand(3, 3, size, size) - 1
    with torch.no_grad():
        low, high = G(x, torch.full((3, 1), -1.0)), G(x, torch.full((3, 1), 1.0))
    assert low.shape == x.shape and low.abs().max() <= 1 and high.abs().max() <= 1
    assert not torch.equal(low, high)
    ys = eval.translate(G, x, [-1.0, 1.0])
    assert torch.allclose(ys[:, 0], low, atol=1e-5) and torch.allclose(ys[:, 1], high, atol=1e-5)


@pytest.mark.parametrize("name", ["fn", "relgan"])
def test_two_attributes_are_learned_by_those_that_can(name, faces):
    run, train = new(name, attr=("smile", "beard")), few_faces(("smile", "beard"), 32, "", 0)[0]
    heard = [next(new(name, attr=("smile", "beard")).train(data.Data(train.images, labels, train.attrs)))
             for labels in (train.labels, train.labels ^ torch.tensor([False, True]))]  # beard turned round
    assert any(heard[0][loss] != heard[1][loss] for loss in heard[0] if loss.startswith("ranker_"))
    G, x = run.G.eval(), torch.rand(1, 3, 32, 32)
    assert not torch.equal(G(x, torch.tensor([[1.0, 1.0]])), G(x, torch.tensor([[1.0, -1.0]])))
    losses = next(run.train(train))
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert run.G(torch.zeros(2, 3, 32, 32), torch.zeros(2, 2)).shape == (2, 3, 32, 32)


@pytest.mark.parametrize("name", NAMES)
def test_every_player_learns_and_the_same_seed_gives_the_same(name, faces):
    run = new(name, steps=8)
    nets = [player for player in run.nets if not player.startswith("opt_")]
    before = {player: weights(getattr(run, player)) for player in nets}
    assert steps(run, faces, 8) == steps(new(name, steps=8), faces, 8)
    for player in nets:
        assert not torch.equal(before[player], weights(getattr(run, player)))
    assert run.step == 8 and next(run.train(faces[0]), None) is None


@pytest.mark.parametrize("name", NAMES)
def test_a_run_is_restored_as_what_it_is(name, folders):
    a, b = rivals.restore(folders / name), rivals.restore(folders / name)
    assert type(a) is rivals.RIVALS[name] and a.R is None and a.step == 4 and a.config.rival == name
    x, v = torch.rand(2, 3, 32, 32), torch.rand(2, 1)
    assert torch.equal(a.G.eval()(x, v), b.G.eval()(x, v))
    assert not torch.equal(a.G(x, v), new(name).G.eval()(x, v))
    assert all(getattr(a, player).state_dict() for player in a.nets)
    there = {path.name for path in (folders / name).iterdir()}
    assert there >= {"history.csv", "samples.png", "summary.json", "dial.gif"} and "ranker.png" not in there
    assert type(rivals.restore(folders / "TRIP")) is trip.Run


def test_trip_and_eval_name_no_rival_and_refuse_their_runs_in_one_line(folders, capsys):
    for name in ("trip.py", "eval.py"):
        text = (HERE / name).read_text(encoding="utf-8")
        assert not any(f'"{rival}"' in text for rival in NAMES) and "import rivals" not in text
    before = (folders / "fn" / "trip.pt").read_bytes()
    for main, argv in ((trip.main, ["--resume", "--out"]), (eval.main, [])):
        assert main([*argv, str(folders / "fn")]) == 2
        said = capsys.readouterr().err
        assert "another version" in said and "rival" in said and said.count("\n") == 1
    assert (folders / "fn" / "trip.pt").read_bytes() == before


def test_a_checkpoint_names_no_other_code(folders, tmp_path):
    state = trip.checkpoint(folders / "fn")
    torch.save(state | {"config": state["config"] | {"rival": "os.system"}}, tmp_path / "trip.pt")
    with pytest.raises(data.InputError, match="another version"):
        rivals.restore(tmp_path)


@pytest.mark.parametrize("argv, says", [
    (["starGAN"], "invalid choice: 'starGAN'"), (["rcgan", "--attr", "smile", "beard"], "one attribute"),
    (["fn", "--attr", "hat"], "unknown attribute 'hat'"), (["relgan", "--batch", "1"], "--batch 1"),
    (["fn", "--lam_int", "0"], "fn has none such; it has width"), (["fn", "--data", "lfwa"], "needs --root"),
    (["relgan", "--batch", "999"], "--batch 999"), (["relgan", "--lam_int", "x"], "invalid float value")])
def test_wrong_input_is_one_line_and_leaves_nothing(argv, says, tmp_path, capsys):
    assert rivals.main([*argv, "--size", "32", "--steps", "2", "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert says in said and said.count("\n") == 1 and said.startswith("study/rivals.py: error: ")
    assert not (tmp_path / "out").exists()


def test_a_run_is_not_replaced(folders, capsys):
    before = (folders / "relgan" / "trip.pt").read_bytes()
    assert rivals.main(["relgan", *typed(TINY["relgan"]), "--out", str(folders / "relgan")]) == 2
    assert "holds a run: remove it" in capsys.readouterr().err
    assert (folders / "relgan" / "trip.pt").read_bytes() == before


def test_ctrl_c_ends_with_130_and_the_same_command_starts_anew(tmp_path):
    argv = ["fn", *typed(TINY["fn"] | dict(steps=100000)), "--out", str(tmp_path / "run")]
    code = ("import signal, sys; sys.path.insert(0, 'study'); import data, rivals; "
            "signal.signal(signal.SIGINT, signal.default_int_handler); "  # (a shell may have it ignored)
            "few = data.split(data.faces(('smile',), 32, n=60), 0); data.load = lambda *_: few; "
            "sys.exit(rivals.main(sys.argv[1:]))")
    process = subprocess.Popen([sys.executable, "-uc", code, *argv], cwd=HERE, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)
    assert "results, at the end: " in process.stdout.readline() and "iteration" in process.stdout.readline()
    os.kill(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in said
    assert not (tmp_path / "run").exists()


def test_a_rival_that_blows_up_stops_with_one_line(tmp_path, capsys):
    wild = dict(lr_g=1e6, lr_r=1e6, grad_clip=1e6, steps=200)
    assert rivals.main(["fn", *typed(TINY["fn"] | wild), "--out", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert "stopped: iteration" in said and said.count("\n") == 1


def test_a_step_of_a_player_is_no_longer_than_grad_clip(faces):
    for most in (1e-3, 1e6):
        run = new("relgan", grad_clip=most)
        steps(run, faces, 1)
        for net in (run.G, run.D):
            length = torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None]).norm().item()
            assert (length == pytest.approx(1e-3, rel=0.01)) if most < 1 else 0.01 < length < 1e6


# ------------------------------------------------------------------------------------------------------------
# Methods

def test_fn_misleads_with_the_other_label_and_not_at_first(faces, monkeypatch):
    run, asked = new("fn", steps=4, ramp=0.5), []
    entropy = rivals.cross_entropy
    monkeypatch.setattr(rivals, "cross_entropy", lambda said, y: (asked.append(y), entropy(said, y))[1])
    labels = []
    draw = rivals.draw
    monkeypatch.setattr(rivals, "draw", lambda *a: (labels.append(b[1]) or b for b in draw(*a)))
    losses = steps(run, faces, 3)
    assert len(labels) == 3 and len(asked) == 6
    for y, (critic, encoder) in zip(labels, zip(asked[::2], asked[1::2])):
        y_critic, y_encoder = y.chunk(2)
        assert torch.equal(critic.float(), y_critic) and torch.equal(encoder.float(), 1 - y_encoder)
    assert [loss["generator_latent"].item() == 0 for loss in losses] == [True, False, False]


def test_fn_decodes_with_the_strength_of_v_and_encodes_without():
    G, x = new("fn").G.eval(), torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        z = G.encode(x)
        assert z.shape[2:] == (2, 2)
        for v, alpha in ((-1, 0), (0, 0.5), (1, 1)):
            one = torch.ones(2, 1)
            assert torch.equal(G(x, v * one), G.decode(z, alpha * one))


def test_rcgan_ranker_never_learns_from_drawn_pictures(faces):
    """Its step is that on real pairs; the generator's step leaves it as it is."""
    a, b = new("rcgan", steps=100), new("rcgan", steps=100)
    with torch.no_grad():
        for p in b.G.up.parameters():
            p.add_(0.1)  # other drawn pictures
    steps(a, faces, 1), steps(b, faces, 1)
    assert torch.equal(weights(a.ranker), weights(b.ranker)) and not torch.equal(weights(a.D), weights(b.D))


def test_rcgan_encoders_never_see_a_picture_and_leave_the_rest_alone(faces):
    a, b = (new("rcgan", steps=8, gan_share=0.25) for _ in range(2))
    steps(a, faces, 2)
    steps(b, faces, 2)
    before = [weights(net) for net in (a.G.up, a.D, a.ranker)]
    buffers = [u.clone() for u in a.G.up.buffers()]
    z = weights(a.G.z)
    black = data.Data(0 * faces[0].images, faces[0].labels, faces[0].attrs)
    list(zip(range(4), a.train(faces[0]))), list(zip(range(4), b.train(black)))
    assert torch.equal(weights(a.G.z), weights(b.G.z)) and not torch.equal(weights(a.G.z), z)
    assert all(torch.equal(u, weights(net)) for u, net in zip(before, (a.G.up, a.D, a.ranker)))
    assert all(torch.equal(u, w) for u, w in zip(buffers, a.G.up.buffers()))


def test_relgan_shows_wrong_triplets_of_which_some_fit():
    """K = 1: of a difference two of the four are right ones; of a tie none or all."""
    for a, b, c in itertools.product((0, 1), repeat=3):
        y = {name: torch.tensor([[float(u)]]) for name, u in zip("abc", (a, b, c))}
        found = list(rivals.wrong_triplets(y))
        assert all((weight.item() == 0) == torch.equal(v, y[j] - y[i]) for i, j, v, weight in found)
        assert sum(weight.item() for *_, weight in found) == (2 if a != b else 0 if c == a else 4)


def test_relgan_mask_and_interpolation_do_what_they_say(faces):
    plain, masked, without = (steps(new("relgan", **more), faces, 1)[0]
                              for more in ({}, dict(mask=True), dict(lam_int=0.0)))
    assert masked["ranker_match"] < plain["ranker_match"]
    assert without["ranker_between"] == without["generator_between"] == 0 < plain["ranker_between"]
    assert plain["generator_self"] < 1e-5  # trip.Generator's own


# ------------------------------------------------------------------------------------------------------------
# Judging

def test_a_rival_is_judged_by_the_first_runs_ranker(folders):
    paths = [str(folders / name) for name in ("TRIP", *NAMES)]
    assert rivals.main(["judge", *paths, "--metrics", "ranker", "preservation", "ssim"]) == 0
    scores = {name: json.loads((folders / name / "eval.json").read_text()) for name in ("TRIP", *NAMES)}
    assert "ranker_mean" in scores["TRIP"] and "first_ranker_mean" not in scores["TRIP"]
    for name in NAMES:
        assert "first_ranker_mean" in scores[name] and "ranker_mean" not in scores[name]
        assert not list((folders / name).glob("fig[67]*"))
    assert (folders / "TRIP" / "fig7_compared.png").exists()


def test_a_rival_alone_is_judged_without_a_ranker(folders):
    assert rivals.main(["judge", str(folders / "rcgan"), "--metrics", "ranker", "preservation"]) == 0
    scores = json.loads((folders / "rcgan" / "eval.json").read_text())
    assert "recon_l1" in scores and not any("ranker" in name for name in scores)


# ------------------------------------------------------------------------------------------------------------
# The study

def test_the_study_trains_and_judges_rivals_once(tmp_path, monkeypatch, faces):
    tiny = SMALL | dict(width=4)
    monkeypatch.setattr(study, "GROUPS", {
        "claim": study.each(1, {"default": tiny}),
        "rivals": study.each(1, {"TRIP": tiny, "lambda = 0": tiny | dict(lam=0.0),
                                 "fn": dict(rival="fn") | TINY["fn"]})})
    monkeypatch.setattr(study, "METRICS", ("preservation",))
    monkeypatch.setattr(data, "load", lambda *rest, **more: faces)
    monkeypatch.setattr(study, "ProcessPoolExecutor", Here)
    for name in ("RESULTS", "CURVES", "RUNS"):
        monkeypatch.setattr(study, name, tmp_path / name)
    trained, work = [], study.work
    monkeypatch.setattr(study, "work", lambda job: (trained.append(job[0]), work(job))[1])
    study.run_all(["claim"])
    study.run_all(["rivals"])
    assert sorted(trained) == ["default", "fn", "lambda = 0"]  # TRIP's run was there
    rows = study.of_group(study.read_table(study.RESULTS), "rivals")
    assert [row["variant"] for row in rows] == ["TRIP", "lambda = 0", "fn"] and rows[2]["outside_l1"] > 0
    before = study.RESULTS.read_text()
    study.run_all(["rivals"])
    assert study.RESULTS.read_text() == before
    assert study.fig_variants("rivals") is not None
