"""python -m pytest tests --trip PATH: grade the trip.py at PATH, with the data.py beside it if there is"""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "course"))

from grader import ROOT, Grader  # noqa: E402

if "PYTEST_XDIST_WORKER" in os.environ:  # (`-n auto`: a process a core, which threads would fight for)
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_addoption(parser):
    group = parser.getgroup("grading")
    group.addoption("--trip", metavar="PATH",
                    help="grade this trip.py, or the one in this folder; no other tests are run")
    group.addoption("--grades", metavar="FILE", help="write the grades as JSON")
    if "--trip" in sys.argv[:-1]:
        # pytest takes PATH for one of tests, too, and would run a conftest.py there: once more, as one word
        i = sys.argv.index("--trip")
        before = [Path(word.split("::")[0]).resolve() for word in sys.argv[1:i]]
        if not any(path in (HERE, *HERE.parents) or HERE in path.parents for path in before):
            raise pytest.UsageError("type python -m pytest tests --trip PATH, in this order")
        again = [*sys.argv[1:i], "=".join(sys.argv[i:i + 2]), *sys.argv[i + 2:]]
        raise SystemExit(subprocess.run([sys.executable, "-m", "pytest", *again]).returncode)


def submission(config):
    path = Path(config.getoption("--trip") or ROOT).resolve()
    deeper = [] if (path / "trip.py").is_file() else [*path.glob("[!._]*/trip.py")]  # as zips nest them
    path = deeper[0] if len(deeper) == 1 else path
    return path / "trip.py" if path.is_dir() else path


def pytest_configure(config):
    if getattr(config.option, "dist", "") == "load":  # `-n auto`: what the tests of a file share is made once
        config.option.dist, config.option.loadscopereorder = "loadfile", False
    file = config.getoption("--grades")
    if file and not Path(file).resolve().parent.is_dir():
        raise pytest.UsageError(f"--grades {file}: there is no such folder")
    if zipfile.is_zipfile(submission(config)):
        raise pytest.UsageError(f"{submission(config)} is an archive: unpack it, and name its folder")
    if not submission(config).is_file():
        raise pytest.UsageError(
            f"--trip {config.getoption('--trip')}: no trip.py there; name a trip.py, or its folder")


def pytest_collection_modifyitems(items):
    longest = "test_walkthrough", "test_eval", "test_handout"  # (first: then no process waits for the other)
    items.sort(key=lambda item: item.path.stem not in longest)


def pytest_ignore_collect(collection_path, config):
    if config.getoption("--trip") and collection_path.is_file() and collection_path.name != "test_grade.py":
        return True


@pytest.fixture(scope="session")
def wrong_by(request):
    """A function: what is wrong with the submission, by the check of that name; None if nothing is."""
    grader = Grader()
    yield lambda name: grader.check(submission(request.config), name)
    grader.stop()


def grades(config, reports):
    """What --grades writes: each graded function with its tests. reports: {check's name: pytest's report}."""
    import test_grade
    functions = []
    for function in test_grade.GRADED:
        tests = []
        for check in (check for check in test_grade.CHECKS.values() if check.function == function):
            report = reports.get(check.name)
            passed = bool(report and report.passed)
            tests.append({"test": check.name, "passed": passed, "points": check.points * passed,
                          "of": check.points, "message": report.longreprtext if report else "not run"})
        functions.append({"equation": test_grade.EQUATIONS[function], "function": function,
                          "passed": all(test["passed"] for test in tests), **total(tests), "tests": tests})
    return {"submission": str(submission(config)), **total(functions), "functions": functions}


def total(rows):
    return {name: sum(row[name] for row in rows) for name in ("points", "of")}


def pytest_terminal_summary(terminalreporter, config):
    reports = {report.nodeid.split("-")[-1][:-1]: report for outcome in ("passed", "failed", "error")
               for report in terminalreporter.stats.get(outcome, [])
               if "test_grade.py::test_grade[" in report.nodeid}
    file = config.getoption("--grades")
    if not reports and not file:
        return
    found = grades(config, reports)
    terminalreporter.section(f"points of {found['submission']}")
    for row in found["functions"]:
        run = any(test["message"] != "not run" for test in row["tests"])
        passed = "passed" if row["passed"] else "not passed" if run else "not run"
        terminalreporter.write_line(f"{row['equation']:18}{row['function']:28}{passed:12}"
                                    f"{row['points']:3} of {row['of']}")
    terminalreporter.write_line(f"{'total':58}{found['points']:3} of {found['of']}")
    if file:
        Path(file).write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
