"""The rivals: each is what its paper says, and a run of it is taken where TRIP's is."""

import functools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
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
SMALL = dict(size=32, steps=4, measure_every=2, batch=4)
OF_TRIP = dict(g_width=4, g_down=1, g_blocks=1, r_width=4)
TINY = {name: SMALL | (OF_TRIP if "g_width" in rivals.SETTINGS[name] else dict(width=4)) for name in NAMES}


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
    assert trip.main([*typed(SMALL | OF_TRIP), "--out", str(root / "TRIP")]) == 0
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
    a, b = trip.restore(folders / name), trip.restore(folders / name)
    assert type(a) is rivals.RIVALS[name] and a.R is None and a.step == 4
    x, v = torch.rand(2, 3, 32, 32), torch.rand(2, 1)
    assert torch.equal(a.G.eval()(x, v), b.G.eval()(x, v))
    assert not torch.equal(a.G(x, v), new(name).G.eval()(x, v))
    G, R, config = trip.load(folders / name)
    assert R is None and not G.training and config == a.config and config.rival == name
    assert {path.name for path in (folders / name).iterdir()} >= {"history.csv", "samples.png", "summary.json"}
    assert not (folders / name / "ranker.png").exists()


def test_trip_names_no_rival_and_a_checkpoint_names_no_other_code(folders, tmp_path, capsys):
    text = (HERE / "trip.py").read_text(encoding="utf-8")
    assert not any(f'"{name}"' in text for name in NAMES)
    state = torch.load(folders / "fn" / "trip.pt", weights_only=True)
    state["config"]["rival"] = "os.system"
    torch.save(state, tmp_path / "trip.pt")
    assert trip.main(["--edit", str(folders / "fn" / "samples.png"), "--out", str(tmp_path)]) == 2
    assert "another version" in capsys.readouterr().err


@pytest.mark.parametrize("name", NAMES)
def test_edit_works_and_resume_is_one_line(name, folders, capsys):
    picture = str(folders / "TRIP" / "samples.png")
    assert trip.main(["--edit", picture, "--out", str(folders / name)]) == 0
    assert (folders / name / "edit.png").is_file()
    before = (folders / name / "trip.pt").read_bytes()
    capsys.readouterr()
    assert trip.main(["--resume", "--out", str(folders / name)]) == 2
    said = capsys.readouterr().err
    assert "cannot go on" in said and str(folders / name) in said and said.count("\n") == 1
    assert (folders / name / "trip.pt").read_bytes() == before


@pytest.mark.parametrize("argv, says", [
    (["starGAN"], "invalid choice: 'starGAN'"), (["rcgan", "--attr", "smile", "beard"], "one attribute"),
    (["two-critics", "--attr", "smile", "beard"], "one attribute"), (["fn", "--attr", "hat"], "unknown attribute 'hat'"),
    (["fn", "--lam_int", "0"], "fn has none such; it has width"), (["relgan", "--batch", "1"], "--batch 1"),
    (["relgan", "--batch", "999"], "--batch 999"), (["relgan", "--lam_int", "x"], "invalid float value"),
    (["fn", "--data", "lfwa"], "needs --root")])
def test_wrong_input_is_one_line_and_leaves_nothing(argv, says, tmp_path, capsys):
    assert rivals.main([*argv, "--size", "32", "--steps", "2", "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert says in said and said.count("\n") == 1 and said.startswith("study/rivals.py: error: ")
    assert not (tmp_path / "out").exists()


def test_a_run_is_replaced_only_when_asked(folders, tmp_path, capsys):
    argv = ["relgan", *typed(TINY["relgan"]), "--out", str(folders / "relgan")]
    before = (folders / "relgan" / "trip.pt").read_bytes()
    assert rivals.main(argv) == 2 and "--overwrite" in capsys.readouterr().err
    assert (folders / "relgan" / "trip.pt").read_bytes() == before
    argv[-1] = str(tmp_path)
    assert rivals.main([*argv, "--mask"]) == 0 and rivals.main([*argv, "--overwrite"]) == 0
    assert not trip.restore(tmp_path).config.mask


def test_ctrl_c_saves_and_says_how_to_start_anew(tmp_path):
    argv = ["fn", *typed(TINY["fn"] | dict(steps=100000, measure_every=1000)), "--out", str(tmp_path / "run")]
    code = ("import sys; sys.path.insert(0, 'study'); import data, rivals; "
            "data.DATASETS['faces'] = (lambda attrs, size, root, seed: data.split(data.faces(attrs, size, n=60), 0), ''); sys.exit(rivals.main(sys.argv[1:]))")
    process = subprocess.Popen([sys.executable, "-c", code, *argv], cwd=HERE, stdout=subprocess.PIPE, text=True)
    assert "results: " in process.stdout.readline()
    while not (tmp_path / "run" / "trip.pt").exists():
        assert process.poll() is None
    os.kill(process.pid, signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "to start anew, with your other settings: python study/rivals.py fn --out=" in said and "--attr smile --overwrite" in said
    assert 0 < trip.restore(tmp_path / "run").step < 100000


def test_a_rival_that_blows_up_stops_with_one_line(tmp_path, capsys):
    argv = ["fn", *typed(TINY["fn"] | dict(lr_g=1e6, lr_r=1e6, clip=0, steps=200)), "--out", str(tmp_path / "run")]
    assert rivals.main(argv) == 1
    said = capsys.readouterr().err
    assert said.startswith("study/rivals.py fn: stopped: iteration") and said.count("\n") == 1


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
            assert torch.equal(G(x, torch.full((2, 1), float(v))), G.decode(z, torch.full((2, 1), float(alpha))))


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
    for _, _ in zip(range(4), a.train(faces[0])):
        pass
    for _, _ in zip(range(4), b.train(black)):
        pass
    assert torch.equal(weights(a.G.z), weights(b.G.z)) and not torch.equal(weights(a.G.z), z)
    assert all(torch.equal(u, weights(net)) for u, net in zip(before, (a.G.up, a.D, a.ranker)))
    assert all(torch.equal(u, w) for u, w in zip(buffers, a.G.up.buffers()))


def test_two_critics_rank_real_pairs_only(faces):
    a, b = new("two-critics"), new("two-critics")
    with torch.no_grad():
        b.G.paint.bias.add_(0.5)
    first = [steps(run, faces, 1)[0]["ranker_rank"] for run in (a, b)]
    assert first[0] == first[1] and torch.equal(weights(a.ranker), weights(b.ranker))


def test_relgan_shows_wrong_triplets_of_which_some_fit():
    """K = 1: of a difference two of the four are right ones; of a tie none or all."""
    for a in (0, 1):
        for b in (0, 1):
            for c in (0, 1):
                y = {name: torch.tensor([[float(u)]]) for name, u in zip("abc", (a, b, c))}
                found = list(rivals.wrong_triplets(y))
                assert all((weight.item() == 0) == (v.item() == y[j].item() - y[i].item())
                           for i, j, v, weight in found)
                assert sum(weight.item() for *_, weight in found) == (2 if a != b else 0 if c == a else 4)


def test_relgan_mask_and_interpolation_do_what_they_say(faces):
    plain, masked, without = (steps(new("relgan", **more), faces, 1)[0]
                              for more in ({}, dict(mask=True), dict(lam_int=0.0)))
    assert masked["ranker_match"] < plain["ranker_match"]
    assert without["ranker_between"] == without["generator_between"] == 0 < plain["ranker_between"]
    assert plain["generator_self"] < 1e-5  # trip.Generator's own


# ------------------------------------------------------------------------------------------------------------
# Judging

def test_a_rival_is_judged_by_the_first_runs_ranker(folders, capsys):
    paths = [str(folders / name) for name in ("TRIP", *NAMES)]
    assert eval.main([*paths, "--metrics", "ranker", "preservation", "ssim"]) == 0
    scores = {name: json.loads((folders / name / "eval.json").read_text()) for name in ("TRIP", *NAMES)}
    assert "ranker_mean" in scores["TRIP"] and "first_ranker_mean" not in scores["TRIP"]
    for name in NAMES:
        assert "first_ranker_mean" in scores[name] and "ranker_mean" not in scores[name]
        assert ("first_own_ranker_mean" in scores[name]) == ("own_recon_l1" in scores[name]) == (name in ("fn", "rcgan"))
        assert not list((folders / name).glob("fig[67]*"))
    assert (folders / "TRIP" / "fig7_compared.png").exists()


def test_a_rivals_own_ranker_is_none(folders, capsys):
    for argv in ([folders / "fn", "--metrics", "ranker"], [folders / "fn", folders / "TRIP"]):
        assert eval.main([*map(str, argv)]) == 2
        said = capsys.readouterr().err
        assert f"{argv[0]} has no ranker" in said and said.count("\n") == 1
    assert eval.main([str(folders / "fn"), "--metrics", "preservation"]) == 0
    asked = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(eval, "call_judges", lambda metrics, *rest: (asked.extend(metrics), eval.Judges())[1])
        patch.setattr(eval, "assess", lambda *rest: [])
        eval.evaluate(folders / "fn")
    assert "ranker" not in asked and set(asked) == set(eval.METRICS) - {"ranker"}


def test_an_absolute_dial_is_read_as_a_relative_one():
    """-1, -.8 .. 0 asked of a picture that has it are the strengths -1, -.6 .. 1; of one without, 0 .. 1 are -1 .. 1."""
    readings = np.tile(eval.V, (2, 1))  # that say what was asked for
    has = torch.tensor([True, False])
    own = eval.own_scale(readings, has)
    down, up = eval.V <= 0, eval.V >= 0
    assert np.allclose(own[0, down], 1 + 2 * eval.V[down]) and np.allclose(own[1, up], -1 + 2 * eval.V[up])
    assert own[0, eval.AT_ZERO] == 1 and own[1, eval.AT_ZERO] == -1


@pytest.mark.parametrize("curve, half_step, jump, straight", [
    (lambda v: v, 0.5, 0.2, True), (np.sign, 1, 1, False), (lambda v: np.clip(2 * v, -1, 1), 1, 0.4, False)])
def test_the_shape_of_a_curve(curve, half_step, jump, straight):
    found = eval.shape(0.3 * curve(eval.V), np.full(len(eval.V), 0.06))
    assert found["half_step"] == pytest.approx(half_step) and found["jump"] == pytest.approx(jump)
    assert found["spread"] == pytest.approx(0.06 / 0.3) and (found["straight"] > 0.99) == straight
    assert eval.shape(np.zeros(len(eval.V)), np.ones(len(eval.V)))["jump"] == 0


def test_an_absolute_dial_alone_makes_a_jump_and_a_large_std_at_0_but_not_within_the_classes():
    """A perfect dial of strength: from label +-0.5 to strength v / 2, R says the difference."""
    has = torch.arange(200) % 2 == 0
    label = np.where(has.numpy(), 0.5, -0.5)
    R = eval.V / 2 - label[:, None]
    mean, std, within = eval.curve(R, has)
    assert eval.shape(mean, std)["jump"] > 0.5 and std[eval.AT_ZERO] == pytest.approx(0.5) and within[eval.AT_ZERO] < 1e-9
    mean, std, _ = eval.curve(eval.own_scale(R, has), has)
    assert eval.shape(mean, std)["jump"] == pytest.approx(0.2) and std[eval.AT_ZERO] < 1e-9


# ------------------------------------------------------------------------------------------------------------
# The study

def made_up(change=()):
    """Rows and lines of a study in which every signature of the paper holds; `change` of them: (variant, name) -> value."""
    change, rows, lines = dict(change), [], []
    usual = dict(aas=97, ssim_score=0.003, frechet_resnet18=10, outside_l1=0.01, leakage=0.05)
    paper = {"TRIP": {}, "lambda = 0": {}, "two-critics": {}, "relgan --mask": {}, "relgan --lam_int 0": {},
             "fn": dict(aas=80, ssim_score=0.012), "rcgan": dict(frechet_resnet18=400),
             "relgan": dict(ssim_score=0.05, leakage=0.07, outside_l1=0.02)}
    v = eval.V
    line, three, leap = 0.5 * v, 0.5 * np.sign(v), np.where(v == 0, 0, 0.25 * np.sign(v) + 0.25 * v)
    curves = {"TRIP": (line, 0.1), "lambda = 0": (line, 0.1), "two-critics": (line, 0.2), "relgan --mask": (three, 0.2),
              "relgan --lam_int 0": (line, 0.2), "fn": (0.3 * v, 0.25), "rcgan": (leap, 0.27), "relgan": (three, 0.17)}
    for variant in paper:
        for seed in (0.0,):
            rows.append({"variant": variant, "seed": seed} | usual | paper[variant]
                        | {name: value for (of, name), value in change.items() if of == variant})
            mean, wide = curves[variant]
            mean, wide = change.get((variant, "mean"), mean), change.get((variant, "std"), wide)
            absolute = variant in ("fn", "rcgan")
            for judge in ("TRIP", "lambda = 0"):
                wide_here = change.get((variant, judge), wide)
                for coding in ("absolute", "relative") if absolute else ("relative",):
                    for i, u in enumerate(v):
                        std = wide_here * {"relgan": 0.2, "rcgan": 1.3}.get(variant, 1) if u == 0 else wide_here
                        l1 = change.get((variant, "l1"), 0.2 if absolute else 0.01)
                        lines.append(dict(variant=variant, seed=seed, judge=judge, coding=coding, v=u, mean=mean[i],
                                          std=std, within=change.get((variant, "within"), wide_here), l1=l1))
    return rows, lines


def verdicts(change=()):
    return {name: verdict for name, _, _, verdict, _ in study.signatures(*made_up(change))}


def test_signatures_hold_in_the_papers_own_numbers():
    assert verdicts() == dict.fromkeys(
        "FN1 FN2 FN3 FN4 FN5 RC1 RC2 RC3 RC4 Re1 Re2 Re3 Re4 Re5 All".split(), "holds")


@pytest.mark.parametrize("change, name, verdict", [
    ({("fn", "aas"): 92.1}, "FN1", "undecided"), ({("fn", "aas"): 96}, "FN1", "fails"),
    ({("fn", "mean"): 0.45 * eval.V}, "FN2", "fails"), ({("fn", "mean"): 0.2 * np.sign(eval.V)}, "FN2", "fails"),
    ({("fn", "std"): 0.115}, "FN3", "undecided"), ({("fn", "std"): 0.05}, "FN3", "fails"),
    ({("fn", "l1"): 0.015}, "FN4", "undecided"), ({("fn", "l1"): 0.01}, "FN4", "fails"),
    ({("fn", "ssim_score"): 0.004}, "FN5", "undecided"), ({("fn", "ssim_score"): 0.002}, "FN5", "fails"),
    ({("rcgan", "l1"): 0.04}, "RC1", "undecided"), ({("rcgan", "l1"): 0.019}, "RC1", "fails"),
    ({("rcgan", "mean"): 0.5 * eval.V}, "RC2", "fails"),
    ({("rcgan", "mean"): 0.1 * np.sign(eval.V) + 0.4 * eval.V}, "RC2", "undecided"),
    ({("rcgan", "aas"): 94}, "RC4", "fails"),
    ({("relgan", "mean"): np.clip(1.4 * eval.V / 2, -0.5, 0.5)}, "Re1", "undecided"),
    ({("relgan", "mean"): 0.5 * eval.V}, "Re1", "fails"),
    ({("relgan --lam_int 0", "mean"): 0.5 * np.sign(eval.V)}, "Re1", "undecided"),
    ({("relgan", "ssim_score"): 0.01}, "Re2", "undecided"), ({("relgan", "ssim_score"): 0.005}, "Re2", "fails"),
    ({("relgan", "leakage"): 0.055}, "Re4", "undecided"),
    ({("relgan", "leakage"): 0.04, ("relgan", "outside_l1"): 0.01}, "Re4", "fails"),
    ({("relgan", "aas"): 93}, "Re5", "undecided"), ({("relgan", "aas"): 80}, "Re5", "fails"),
    ({("relgan", "lambda = 0"): 0.05}, "All", "fails"),
    ({("relgan", "mean"): -0.02 * eval.V, ("relgan", "std"): 0.05}, "All", "undecided")])
def test_signatures_fail_by_the_thresholds(change, name, verdict):
    assert verdicts(change)[name] == verdict


def test_a_large_std_within_the_classes_is_laid_to_the_pictures():
    def words(change):
        return next(here for name, _, here, _, _ in study.signatures(*made_up(change)) if name == "RC3")

    assert words({}).endswith("the coding") and words({("rcgan", "within"): 0.5}).endswith("the pictures")


def test_tables_and_figures_show_every_method():
    rows, lines = made_up()
    rows = [dict(true_spearman=1.0, true_range=1.0, recon_l1=0.1, seconds=9, aas_judge=98) | row for row in rows]
    assert study.rivals_table(rows).count("\n") == len(study.GROUPS["rivals"][1]) + 1
    assert study.judged_table(lines).count("\n") == 1 + 2 * (6 + 2)
    assert study.signature_table(rows, lines).count("*holds*") == 15
    shown = [line.get_label() for line in study.fig_rivals(lines).axes[1].lines]
    assert {"TRIP", "fn", "rcgan", "two-critics", "relgan", "v / 2"} <= set(shown) and len(shown) == 5 + 2 + 1
    assert len(study.fig_swaps(rows).axes[0].patches) == 8


def test_signatures_wait_for_all_readings(monkeypatch, tmp_path):
    rows, lines = ([row | dict(group="rivals", true_spearman=1.0, true_range=1.0, recon_l1=0.1, seconds=9) for row in u]
                   for u in made_up())
    there = {study.JUDGED: lines}
    for name in ("THEORY", "NEUTRAL"):
        monkeypatch.setattr(study, name, tmp_path / "none")
    monkeypatch.setattr(study, "read_table", lambda path: there[path])
    assert set(study.tables(rows)) == {"rivals", "rivals_judged", "signatures"}
    there[study.JUDGED] = [row for row in lines if row["variant"] != "relgan"]
    assert set(study.tables(rows)) == {"rivals"}
    assert not study.tables([row for row in rows if row["variant"] != "fn"])


def test_the_study_trains_and_judges_rivals_once(tmp_path, monkeypatch, faces):
    tiny = SMALL | OF_TRIP
    monkeypatch.setattr(study, "GROUPS", {
        "claim": ([0], {"default": tiny}),
        "rivals": ([0], {"TRIP": tiny, "lambda = 0": tiny | dict(lam=0.0), "fn": dict(rival="fn") | TINY["fn"]})})
    monkeypatch.setattr(study, "METRICS", ("preservation",))
    monkeypatch.setattr(data, "load", lambda *rest, **more: faces)
    monkeypatch.setattr(study, "ProcessPoolExecutor", Here)
    for name in ("RESULTS", "CURVES", "RUNS", "JUDGED"):
        monkeypatch.setattr(study, name, tmp_path / name)
    study.run_all(["claim"])
    study.RESULTS.write_text("".join(line for line in study.RESULTS.open() if not line.startswith("rivals")))
    trained = []
    work = study.work
    monkeypatch.setattr(study, "work", lambda job: (trained.append(job[0]), work(job))[1])
    study.run_all(["rivals"])
    assert sorted(trained) == ["fn", "lambda = 0"]  # TRIP's run was there
    study.judge_rivals(["rivals"])
    lines = study.read_table(study.JUDGED)
    assert len(lines) == len(eval.V) * 2 * (1 + 1 + 2)
    rows = study.of_group(study.results(), "rivals")
    assert [row["variant"] for row in rows] == ["TRIP", "lambda = 0", "fn"] and rows[2]["outside_l1"] > 0
    before = study.JUDGED.read_text(), study.RESULTS.read_text()
    study.run_all(["rivals"])
    study.judge_rivals(["rivals"])
    assert (study.JUDGED.read_text(), study.RESULTS.read_text()) == before
    assert study.fig_variants("rivals") is not None
