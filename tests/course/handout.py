"""Write a student's copy of this repository: the graded functions are empty, all else is as it is.

    python tests/course/handout.py OUT                        the default set, seven hours' work
    python tests/course/handout.py OUT --functions NAME ...   a choice of trip.py's and data.py's functions

OUT gets trip.py, data.py, eval.py, the notebook without outputs, what it reads of study/, the
tests that grade, and ASSIGNMENT.md. Nothing else is copied: not the lecturer's SOLUTIONS.md, nor any README.
"""

import ast
import json
import re
import shutil
import sys
from difflib import get_close_matches
from pathlib import Path

import grader
import test_grade
from grader import ROOT

sys.path.insert(0, str(ROOT))

import trip  # noqa: E402
from data import InputError  # noqa: E402

COPIED = ["eval.py", "requirements.txt", "LICENSE", "tests/conftest.py", "tests/pytest.ini",
          "tests/course/grader.py"]
TESTS = "tests/course/test_grade.py"
NOTEBOOK = "walkthrough.ipynb"
NEEDED = "tests/requirements.txt"
STORED = [*(f"study/{name}" for name in ("lesson.py", "dial.html", "points.html", "study.csv")),
          *(f"study/figures/{name}" for name in (
              "two_dials.html", "face.png", "grid.png", "dial.gif", "ranker.png", "photos_smile.jpg",
              "photos_ranker.png", "study_zeros.png")),
          *(f"study/pretrained/smile/{name}" for name in ("trip.pt", "dial.html"))]


def functions(source):
    """{name: ast node} of the functions and methods (Class.method) of a text; .about: their docstring."""
    found = {}
    for node in ast.parse(source).body:
        for part in node.body if isinstance(node, ast.ClassDef) else [node]:
            if isinstance(part, ast.FunctionDef):
                inside = isinstance(node, ast.ClassDef)
                part.about = ast.get_docstring(part) or (inside and ast.get_docstring(node)) or part.name
                found[f"{node.name}.{part.name}" if inside else part.name] = part
    return found


def headline(node):
    """The first sentence of a function's docstring, or its class's. (Eq. 5a, Sec. 3, et al. end none.)"""
    return re.split(r"(?<!Eq)(?<!Sec)(?<!Fig)(?<! al)(?<![ .])\.(?:\s|$)",
                    " ".join(node.about.split("\n\n")[0].split()))[0]


def emptied(source, names):
    """The source text with `raise NotImplementedError` as these functions' bodies; all else stays."""
    lines = source.splitlines(keepends=True)
    nodes = functions(source)
    for node in sorted((nodes[name] for name in names), key=lambda node: -node.lineno):
        first = node.body[0]
        if ast.get_docstring(node, clean=False) is not None:
            start = first.end_lineno  # the line after the docstring
        else:
            start = first.lineno - 1
            while not lines[start - 1].strip() or lines[start - 1].lstrip().startswith("#"):
                start -= 1  # comments before the first line belong to the solution, too
        indent = " " * first.col_offset
        message = json.dumps(headline(node), ensure_ascii=False)
        lines[start:node.end_lineno] = [f"{indent}raise NotImplementedError({message})\n"]
    return "".join(lines)


def choose(names, sources):
    """The chosen functions by their whole names, trip.ranker_step. sources: {"trip": text, "data": text}."""
    known = [f"{module}.{name}" for module, source in sources.items() for name in functions(source)]
    chosen = []
    for name in names:
        found = [full for full in known if name in (full, full.split(".", 1)[1])]
        if not found:
            near = get_close_matches(name, [full.split(".", 1)[1] for full in known], 3, 0.4)
            raise InputError(f"no function {name!r} in trip.py or data.py; "
                             f"did you mean {', '.join(near) or 'another'}?")
        if len(found) > 1:
            raise InputError(f"{name!r} is in both files: type {' or '.join(found)}")
        chosen += found
    return list(dict.fromkeys(chosen))  # (each once)


def without_outputs(notebook):
    """A notebook's text without what has come out of its cells."""
    notebook = json.loads(notebook)
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            cell["outputs"], cell["execution_count"] = [], None
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def graded(source, names):
    """The text of test_grade.py with these functions as GRADED."""
    node, = (n for n in ast.parse(source).body if isinstance(n, ast.Assign) and n.targets[0].id == "GRADED")
    return source.replace(ast.get_source_segment(source, node),
                          "GRADED = [" + ",\n          ".join(map(json.dumps, names)) + "]")


PAGE = """# Assignment

The bodies of these functions are missing; each says in its docstring what it has to do.
Write them, best in this order. Each can be written and tested without the others.

| | function | what it does | points |
| --- | --- | --- | --- |
{rows}
| | | total | {total} |

## How

    pip install -r requirements.txt -r tests/requirements.txt       # once; Python 3.10 or newer
    python -m pytest                                                # all tests, then your points
    python -m pytest -k {first} # the tests of one function

1. Read the docstring at the top of `trip.py`: the idea, the symbols, the shapes.
   Then read on to the line of `====`, where the method ends; the paper's generator, with `SwitchNorm`, is
   the first thing below it.
2. Write a function's body in the place of its `raise NotImplementedError(...)`.
   Names and arguments stay as they are.
3. Run its tests. A failing one shows its input, what it expected and what your function gave, and often
   which mistake that looks like. What your function prints is shown, too.
4. When all pass, see it work: `python trip.py --attr smile` trains for some minutes and draws what it
   learned, in `runs/smile`.

## What counts

{steps}- Each test tries one function alone, on numbers that you can follow by hand, and counts on its own.
- A test that takes longer than {limit} seconds counts as failed; so do exceptions, results of another shape,
  and `exit`.
- Some links of the notebook lead to files that stay with your lecturer (README.md, solutions).
- Hand in `trip.py` and `data.py`. They are graded by `python -m pytest tests --trip FOLDER`, with the tests
  that you have.
"""

STEPS = """The steps call other functions for the losses (the tests put stand-ins in their places, so that a
formula written out fails), weigh them by settings of `run.config`, and return them in a dict:

| step | returns | which is |
| --- | --- | --- |
{rows}

In `ranker_step` each of R's rank heads has a ranking loss of its own, the first with `lam`, the second with
4 `lam`, and the mean of these losses counts; `generator_step` asks `R.rank`. The penalty gets every second
pair, the first one among them.

"""


def page(names, sources):
    """The text of ASSIGNMENT.md."""
    rows, steps, total = [], [], sum(map(test_grade.points, names))
    for i, name in enumerate(names, 1):
        module, function = name.split(".", 1)
        about = headline(functions(sources[module])[function]).replace("|", "\\|")
        points = test_grade.points(name) or "no test"
        rows.append(f"| {i} | `{function}` in `{module}.py` | {about} | {points} |")
    for step, losses in (("ranker_step", test_grade.RANKER_LOSSES),
                         ("generator_step", test_grade.GENERATOR_LOSSES)):
        for name, (function, weight) in losses.items() if f"trip.{step}" in names else ():
            only = ["run.ranking"] * (name in test_grade.RANKING)
            only += [f"{weight} > 0"] * (name in test_grade.SPARED)
            where = f", if {' and '.join(only)}" if only else ""
            steps.append(f"| `{step}` | `{name}` | `{weight}` times `{function}`{where} |")
    first = names[0].split(".", 1)[1]
    return PAGE.format(rows="\n".join(rows), total=total, first=f"{first:43}", limit=grader.CHECK,
                       steps=STEPS.format(rows="\n".join(steps)) if steps else "")


def write(out, names):
    """Write the handout to the new folder `out`. names: of the functions to write."""
    sources = {module: (ROOT / f"{module}.py").read_text(encoding="utf-8") for module in ("trip", "data")}
    texts = {name: (ROOT / name).read_text(encoding="utf-8") for name in (TESTS, NOTEBOOK, NEEDED)}
    chosen = choose(names, sources)
    untested = [name for name in chosen if name not in test_grade.EQUATIONS]
    for module, source in sources.items():
        holes = [name.split(".", 1)[1] for name in chosen if name.startswith(f"{module}.")]
        texts[f"{module}.py"] = emptied(source, holes)
    if chosen != test_grade.GRADED:
        texts[TESTS] = graded(texts[TESTS], [name for name in chosen if name not in untested])
    texts[NOTEBOOK] = without_outputs(texts[NOTEBOOK])
    texts[NEEDED] = "".join(re.findall("(?m)^pytest>.*\n", texts[NEEDED]))
    texts["ASSIGNMENT.md"] = page(chosen, sources)
    try:
        out.mkdir(parents=True)
    except FileExistsError:
        raise InputError(f"{out} is there already: name a new folder") from None
    for name in (*texts, *COPIED, *STORED):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        if name in texts:
            (out / name).write_text(texts[name], encoding="utf-8", newline="\n")
        else:
            shutil.copyfile(ROOT / name, out / name)
    note = f"; no test grades {', '.join(untested)}" if untested else ""
    print(f"wrote {out}: {len(chosen)} functions to write{note}")


@trip.program("handout.py")
def main(argv):
    parser = trip.parser("tests/course/handout.py", "Write a student's copy of this repository.")
    parser.add_argument("out", metavar="OUT", type=Path, help="a new folder")
    parser.add_argument("--functions", nargs="+", metavar="NAME", default=test_grade.GRADED,
                        help=f"what students write, in this order (default: {', '.join(test_grade.GRADED)})")
    args = parser.parse_args(argv)
    write(args.out, args.functions)
    return 0


if __name__ == "__main__":
    sys.exit(main())
