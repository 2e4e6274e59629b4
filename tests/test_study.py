"""The study: its table, its figures and the pages' tables say the same, and it goes on where it stopped."""

import contextlib
import re
import sys
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

HERE = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(HERE), str(HERE / "study")]

import data  # noqa: E402
import study  # noqa: E402
import trip  # noqa: E402
from miniatures import CELEBA, SMALL, celeba_hq, has as labelled, numbers, picture  # noqa: E402

TINY = dict(size=32, steps=8, warmup=0.25, width=4, batch=4)


@pytest.fixture(scope="module")
def rows():
    return study.read_table(study.RESULTS)


def test_the_pages_have_the_tables_of_the_results(rows):
    made = study.tables(rows)
    texts = [page.read_text(encoding="utf-8") for page in study.PAGES]
    marks = [re.findall("<!-- study: (\\w+) -->", text) for text in texts]
    assert marks[0] == ["top"] and sorted(marks[0] + marks[1]) == sorted(made)
    assert [study.filled(text, made) for text in texts] == texts, "run python study/study.py --draw"


def anchor(title):
    """What a link to a heading says, on GitHub."""
    return re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")


def test_links_and_pictures_of_the_pages_lead_somewhere():
    pages = [*study.PAGES, *(HERE / "tests" / "course" / name for name in ("README.md", "SOLUTIONS.md"))]
    texts = {page: page.read_text(encoding="utf-8") for page in pages}
    titles = {page: re.findall("(?m)^#+ (.*)$", text) for page, text in texts.items()}
    for page, text in texts.items():
        for link in re.findall(r"\]\(([^)\s]+)\)", text):
            path, _, heading = link.partition("#")
            there = (page.parent / path).resolve() if path else page
            assert link.startswith("https://") or there.exists(), f"{page}: {link}"
            assert there.suffix != ".gif" or there.stat().st_size < 600_000
            assert not heading or heading in map(anchor, titles[there]), f"{page}: {link}"


def test_results_are_of_the_settings_that_the_study_has_now(rows):
    wanted = {(group, variant, seed): options
              for group in study.GROUPS for variant, seed, options, _ in study.configs(group)}
    seen = [(row["group"], row["variant"], row["seed"]) for row in rows]
    assert set(seen) == set(wanted)  # all runs that the pages speak of are there
    assert [wanted.get(key) for key in seen] == [row["options"] for row in rows]
    assert len(seen) == len(set(seen))


def test_a_known_rho_is_found():
    lams = np.array([0, 0.1, 0.5, 1, 4])
    assert study.fit_rho(lams, 0.8 / (1 + 2.5 * lams)) == pytest.approx(2.5, rel=0.01)


def test_a_fresh_ranker_heeds_generated_pairs_as_lambda_says():
    few = data.faces(("smile",), 32, n=200)

    def weights(G, lam):
        rng = torch.Generator().manual_seed(0)
        return study.fresh(data.pairs(few, 8, rng), G, rng, lam, "pair", size=32, steps=3).features[0].weight

    for lam in (0.0, 1.0):
        same = torch.equal(weights(lambda x, v: x, lam), weights(lambda x, v: -x, lam))
        assert same == (lam == 0)


def test_a_table_shows_mean_and_range_of_the_seeds_without_the_runs_that_diverged():
    rows = [dict(variant="a", aas=u, leakage="", true_range=9.0) for u in (90.0, 100.0, "")]
    made = study.compared([*rows, rows[2] | {"variant": "b"}], "aas leakage true_range", "paper",
                          {"a": "97.7"})
    assert made.split("\n")[0] == "|  | AAS, % | true range | paper |"  # no leakage: no run has any
    assert made.split("\n")[2:] == ["| a | 95.0 (90.0 .. 100.0) | 9.00 | 97.7 |", "| b |  | 9.00 |  |"]


def test_the_first_table_needs_no_photographs(rows):
    made = study.tables([row for row in rows if row["group"] == "claim"])
    assert made["top"].count("not measured") == 8


def test_figures_show_every_variant(rows):
    curves, theory = study.read_table(study.CURVES), study.read_table(study.THEORY)
    fresh, by_lam, over_time = study.fig_balance(rows, curves, theory).axes
    assert len(fresh.lines) == 2 * len(study.HEADS) + 1
    assert all(len(line.get_xdata()) == len(study.LAMS) for line in fresh.lines[:4:2])
    assert [len(line.get_xdata()) for line in by_lam.lines[:2]] == 2 * [len(study.GROUPS["lambda"])]
    assert len(over_time.lines) == 2 * len(study.GROUPS["time"]) + 1
    assert all(len(line.get_xdata()) > 20 for line in over_time.lines[:-1])
    assert len(study.fig_claim(curves).axes[0].lines) == 6 + 4  # six means, four targets
    photographs, lfwa = study.fig_bars(rows).axes
    for axes, aas in ((photographs, [98.4, 91.2, 100.0, 6.5, 95.2]), (lfwa, [99.3, 92.9, 98.4, 97.0])):
        assert [bar.get_height() for bar in axes.patches] == pytest.approx(aas, abs=0.06)


class Here(contextlib.AbstractContextManager):
    """In place of a pool of processes: does the work at once."""

    def __init__(self, *_):
        pass

    def __exit__(self, *_):
        pass

    def submit(self, work, job):
        future = Future()
        future.set_result(work(job))
        return future


def test_draw_fills_the_pages_and_touches_nothing_that_has_not_changed(tmp_path, monkeypatch):
    pages, originals = [tmp_path / "first.md", tmp_path / "second.md"], study.PAGES
    for page, there in zip(pages, originals):
        text = there.read_text(encoding="utf-8")
        emptied = re.sub("(<!-- study: \\w+ -->)[^!]*(<!-- end -->)", r"\1\nold\n\2", text)
        page.write_text(emptied, encoding="utf-8")
    for name, value in (("PAGES", pages), ("FIGURES", tmp_path), ("RUNS", tmp_path)):
        monkeypatch.setattr(study, name, value)
    assert study.main(["--draw"]) == 0
    for page, there in zip(pages, originals):
        assert page.read_text(encoding="utf-8") == there.read_text(encoding="utf-8")
    assert {path.name for path in tmp_path.glob("*.*g*")} == {
        "study_claim.png", "study_balance.png", "study_bars.png"}
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert study.main(["--draw"]) == 0
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


def test_draw_takes_over_figures_where_the_runs_are(tmp_path, monkeypatch):
    for name, value in (("PAGES", []), ("FIGURES", tmp_path), ("RUNS", tmp_path)):
        monkeypatch.setattr(study, name, value)
    lfwa, own = (study.run_folder(study.options_of(group)[variant], 0)
                 for group, variant in (("photo_lfwa", "smile"), ("paper", "photographs")))
    for run in (study.run_folder("", 0), lfwa, own):
        run.mkdir()
        (run / "summary.json").touch()
        for name in ("samples.png", "ranker.png", "dial.gif"):
            (run / name).write_bytes(b"a picture")
    picture(lfwa / "samples.png", 7)
    for name, size in (("samples", (40, 30)), ("fig7_ranker", (40, 20)), ("fig10_losses", (40, 20)),
                       ("ranker", (20, 20))):
        picture(own / f"{name}.png", 7, size)
    study.main(["--draw"])
    for name, size in (("lfwa", (40, 40)), ("own", (40, 30 + 10 + 40))):
        with Image.open(tmp_path / f"photos_{name}.jpg") as photographs:
            assert photographs.format == "JPEG" and photographs.size == size
    for name in ("samples.png", "ranker.png", "dial.gif"):
        assert (tmp_path / name).read_bytes() == b"a picture"


def test_photographs_are_drawn_of_people_whom_no_run_has_seen_and_at_their_own_size(tmp_path, monkeypatch):
    celeba_hq(tmp_path / "small")
    for i in range(90):  # a part of them, larger
        picture(tmp_path / "large" / "CelebA-HQ-img" / f"{i}.jpg", i, (80, 80))
    small, large = str(tmp_path / "small"), str(tmp_path / "large")
    _, test = data.load("celeba-hq", ("smile",), 32, small)
    x, has = study.held_out(small, large, 5)
    seen = numbers(data.Data(study.ev.as_bytes(x), None, ()))
    assert has[:, 0].tolist() == [labelled(i, CELEBA.index("Smiling")) for i in seen]
    assert x.shape == (5, 3, 80, 80) and seen == sorted(i for i in numbers(test) if i < 90)[:5]
    for name in ("FIGURES", "RUNS", "HERE"):
        monkeypatch.setattr(study, name, tmp_path)
    (tmp_path / "pretrained" / "smile").mkdir(parents=True)
    run = trip.Run(trip.Config(**SMALL, data="celeba-hq", attr="smile", root=small))
    for options in {*study.options_of("photo_ablation").values(), *study.options_of("photos").values()}:
        folder = study.run_folder(options, 0)
        folder.mkdir()
        trip.save(run, folder)
        for name in ("ranker.png", "summary.json"):
            (folder / name).write_bytes(b"{}")
    study.draw_photographs(small, large)
    made = {"photos_smile.jpg", "photos_first.jpg", "photos_zeros.jpg", "photos_others.jpg", "photos.gif",
            "photos_ranker.png"}
    assert {path.name for path in tmp_path.iterdir() if path.is_file()} == made
    assert '"size": 32' in (tmp_path / "pretrained" / "smile" / "dial.html").read_text()


def test_identity_is_what_a_network_sees_that_learned_no_dial(tmp_path, monkeypatch):
    celeba_hq(tmp_path)
    learned = []

    def of_coarse_pixels(train_data, *rest):
        learned.extend(train_data.attrs)
        return torch.nn.Sequential(torch.nn.AvgPool2d(8), torch.nn.Linear(1, 1))

    monkeypatch.setattr(study.ev, "classifier", of_coarse_pixels)
    run = trip.Run(trip.Config(**SMALL, data="celeba-hq", attr="smile", root=str(tmp_path)))
    _, test = study.parts_of(run.config)
    run.G.forward = lambda x, v: x
    assert study.identity(run, test) == pytest.approx(1, abs=1e-3)
    assert {*CELEBA} - {*learned} == {"Smiling", "Male", "Mouth_Slightly_Open", "High_Cheekbones", "Eyeglasses"}
    run.G.forward = lambda x, v: torch.where(v[:, :, None, None] > 0, x, x.roll(1, 0))  # one end: somebody else
    assert study.identity(run, test) < 0.9


@pytest.mark.parametrize("argv, says", [(["clam"], "'clam'"), (["photos"], "need --root DIR"),
                                        (["--root", "nowhere"], "not 'nowhere'")])
def test_wrong_input_gets_one_line_and_draws_nothing(argv, says, monkeypatch, capsys):
    monkeypatch.setattr(study, "draw", lambda *_: pytest.fail("drawn"))
    assert study.main(argv) == 2
    said = capsys.readouterr().err
    assert says in said and said.count("\n") == 1


def test_a_run_is_done_once_and_written_for_each_group_that_has_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(study, "GROUPS", {
        "claim": study.each(1, {"default": TINY}),
        "ablation": study.each(1, {"default": TINY, "CLS": TINY | dict(cls=True),
                                   "blown up": TINY | dict(lr_r=1e6)})})
    monkeypatch.setattr(study, "METRICS", ("ranker",))
    few = data.split(data.faces(("smile",), 32, n=200), 0)
    monkeypatch.setattr(data, "load", lambda *rest, **more: few)
    monkeypatch.setattr(study, "ProcessPoolExecutor", Here)
    for name in ("RESULTS", "CURVES", "RUNS"):
        monkeypatch.setattr(study, name, tmp_path / name)
    study.run_all(["claim"])
    assert len(study.read_table(study.RESULTS)) == 2  # for both groups, after one training
    study.run_all(study.GROUPS)
    rows = {row["variant"]: row for row in study.read_table(study.RESULTS)}
    assert len(rows) == 3 and "3/3" not in capsys.readouterr().out
    assert rows["default"]["gen_plus"] != rows["CLS"]["gen_plus"]
    assert "iteration" in rows["blown up"]["remark"] and rows["blown up"]["gen_plus"] == ""
    assert [row["group"] for row in study.read_table(study.CURVES)].count("claim") == 8
    before = study.RESULTS.read_text()
    study.run_all(study.GROUPS)
    assert study.RESULTS.read_text() == before
