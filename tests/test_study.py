"""Part 4: the study. Its table, its figures and README's tables say the same, and it goes on where it stopped."""

import re
import sys
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(HERE / "tests"))

import study  # noqa: E402


@pytest.fixture(scope="module")
def rows():
    return study.results()


@pytest.fixture(scope="module")
def readme():
    return (HERE / "README.md").read_text(encoding="utf-8")


def test_readme_has_the_tables_of_the_results(rows, readme):
    made = study.tables(rows)
    marks = set(re.findall("<!-- study: (\\w+) -->", readme))
    assert marks == set(made) and study.filled(readme, made) == readme, "run python tests/study.py --draw"


def test_results_are_of_the_settings_that_the_study_has_now(rows):
    wanted = {(group, variant, seed): options for group in study.GROUPS for variant, seed, options, _ in study.configs(group)}
    for row in rows:
        assert wanted.get((row["group"], row["variant"], row["seed"])) == row["options"]
    seen = [(row["group"], row["variant"], row["seed"]) for row in rows]
    assert len(seen) == len(set(seen))
    assert {group for group, _, _ in seen} >= {"claim", "ablation", "lambda"}


def test_a_known_ratio_of_pulls_is_found():
    lams = np.array([0, 0.1, 0.5, 1, 4])
    assert study.fit_ratio(lams, 1 / (1 + 2.5 * lams)) == pytest.approx(2.5, rel=0.01)
    assert study.fit_ratio(lams, 0.8 / (1 + 2.5 * lams), ceiling=0.8) == pytest.approx(2.5, rel=0.01)


def test_figures_show_every_variant(rows):
    curves = study.read_table(study.CURVES)
    by_lam, by_rate, over_time = study.fig_tug(rows, curves).axes
    assert len(by_lam.lines) == 3 + len(study.GROUPS["lambda"][1]) and len(by_rate.lines) == 2 + len(study.GROUPS["rates"][1])
    assert len(over_time.lines) == 1 + len({(row["variant"], row["seed"]) for row in curves if row["group"] == "time"})
    assert len(study.fig_claim(curves).axes[0].lines) == 6 + 4                  # six means, four targets


class Here:
    """In place of a pool of processes: does the work at once."""
    def __init__(self, *_):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def submit(self, work, job):
        future = Future()
        future.set_result(work(job))
        return future


def test_a_run_is_done_once_and_written_for_each_group_that_has_it(tmp_path, monkeypatch, capsys):
    tiny = dict(size=32, steps=8, warmup=2, measure_every=2, g_width=4, g_blocks=1, r_width=4, batch=4)
    monkeypatch.setattr(study, "GROUPS", {"claim": ([0], {"default": tiny}),
                                          "matters": ([0], {"default": tiny, "PyTorch's first weights in R": tiny, "blown up": tiny | dict(lr_r=1e6)})})
    monkeypatch.setattr(study, "METRICS", ("ranker",))
    monkeypatch.setattr(study, "ProcessPoolExecutor", Here)
    for name in ("RESULTS", "CURVES", "RUNS"):
        monkeypatch.setattr(study, name, tmp_path / name)
    study.run_all(["claim"])
    assert len(study.read_table(study.RESULTS)) == 2                            # for both groups, after one training
    study.run_all(study.GROUPS)
    rows = {row["variant"]: row for row in study.read_table(study.RESULTS)}
    assert len(rows) == 3 and "3/3" not in capsys.readouterr().out
    assert rows["default"]["gen_plus"] != rows["PyTorch's first weights in R"]["gen_plus"]
    assert "iteration" in rows["blown up"]["remark"] and rows["blown up"]["gen_plus"] == ""
    assert study.level(rows.values())["blown up"].size == 0
    assert len(study.read_table(study.CURVES)) == 4
    before = study.RESULTS.read_text()
    study.run_all(study.GROUPS)
    assert study.RESULTS.read_text() == before
