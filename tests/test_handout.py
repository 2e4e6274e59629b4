"""The handout and its grading; the proof: faults planted one by one, each found by its function's tests."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import grader
import handout
import pytest
import test_grade

ROOT = Path(__file__).resolve().parent.parent
SOURCES = {module: (ROOT / f"{module}.py").read_text(encoding="utf-8") for module in ("trip", "data")}

# function: a list of (text in it, what stands there instead, what the message has to say)
FAULTS = {
    "data.pair_labels": [
        ("y_has.float() - x_has.float()", "x_has.float() - y_has.float()", "sign of r"),
        ("y_has.float() - x_has.float()", "(y_has.float() - x_has.float()).abs()", "r without a sign"),
        ("y_has.float() - x_has.float()", "2 * y_has.float() - 1", "label of y alone"),
        ("y_has.float() - x_has.float()", "(y_has & ~x_has).float()", "0 in place of -1")],
    "trip.SwitchNorm.forward": [
        ("(2, 3), correction=0", "(2, 3), correction=1", "n - 1"),
        ("var_in, mean_in = ", "mean_in, var_in = ", "gives the variance first"),
        ("mean_bn.detach()", "mean_bn", "missing detach"),
        ("var_bn.detach(), self.momentum", "var_bn.detach(), 1 - self.momentum", "share of the old"),
        (" + mean_in.var(0, correction=0, keepdim=True)", "", "lacks what the means differ by"),
        (" + mean_in.var(1, correction=0, keepdim=True)", "", "lacks what the means differ by"),
        ("mean_in.var(0, correction=0", "mean_in.var(0, correction=1", "batch"),
        ("mean_ln = mean_in.mean(1, keepdim=True)", "mean_ln = mean_in.mean(0, keepdim=True)", "layer"),
        ("self.var_weights.softmax(0)", "self.mean_weights.softmax(0)",
         "means' weights used for the variances"),
        ("self.mean_weights.softmax(0), self.var_weights.softmax(0)", "self.mean_weights, self.var_weights",
         "softmax"),
        ("if self.training:", "if True:", "as in training"),
        ("self.bias - mean", "self.bias - 0 * mean", "not taken off"),
        (".rsqrt()", ".reciprocal()", "not by its root"),
        ("self.weight * ", "", "scale left out")],
    "trip.Ranker.each_head": [
        ("fy - fx", "fx - fy", "sign turned round"),
        ("self.rank_heads]", "self.rank_heads][:1]", "its length"),
        ("fy - fx", "fy + fx", "sum of the features"),
        ("head(fy - fx)", "(head(fy) - head(fx))", "after the head")],
    "trip.Ranker.discriminate": [
        ("gan_head", "rank_heads[0]", "the rank head"),
        ("self.gan_head(fx)", "self.gan_head(self.features(fx))", "F once more")],
    "trip.ranker_rank_loss": [
        ("real - r", "real + r", "sign of r"),
        ("(real - r)", "real", "0 as the target of real pairs"),
        ("((real - r) ** 2).sum(1).mean() + lam *", "lam * ((real - r) ** 2).sum(1).mean() +",
         "lambda on the wrong term"),
        ("((real - r) ** 2).sum(1)", "((real - r) ** 2)", "mean over the K attributes of the real pairs"),
        ("(fake ** 2).sum(1)", "(fake ** 2)", "mean over the K attributes of the generated pairs"),
        ("fake ** 2", "(fake - 1) ** 2", "1 as the target of generated pairs"),
        ("+ lam", "- lam", "wrong sign of the rival term"),
        ("(fake ** 2)", "(fake.detach() ** 2)", "detach")],
    "trip.generator_rank_loss": [
        ("fake - v", "fake + v", "sign of v"),
        ("fake - v", "fake - v.sign()", "as in Eq. 3"),
        ("(fake - v)", "fake", "the ranker's"),
        (".sum(1)", "", "mean over the K attributes"),
        ("fake - v", "fake.detach() - v", "detach")],
    "trip.ranker_gan_loss": [
        ("((real - 1) ** 2).mean() + (fake ** 2)", "(real ** 2).mean() + ((fake - 1) ** 2)",
         "targets exchanged"),
        ("+ (fake", "- (fake", "wrong sign"),
        ("fake ** 2", "(fake + 1) ** 2", "-1 as the target")],
    "trip.generator_gan_loss": [
        ("(fake - 1)", "fake", "0 as the target"),
        (".mean()", ".sum()", "a sum over the batch")],
    "trip.cycle_loss": [
        ("(back - x).abs()", "((back - x) ** 2)", "the square"),
        (".abs()", "", "cancel")],
    "trip.gradient_penalty": [
        ("R.discriminate(R.features(z))", "R.rank(R.features(x), R.features(z))", "wrong head"),
        ("create_graph=True", "create_graph=False", "create_graph"),
        ("- center", "- 1", "center 1, whatever is asked for"),
        ("a * x + (1 - a) * fake", "(1 - a) * x + a * fake", "exchanged"),
        ("a * x + (1 - a) * fake", "0 * x + fake", "the generated pictures"),
        (".norm(dim=1)", ".pow(2).sum(1)", "squared norm"),
        ("grad.flatten(1).norm(dim=1)", "grad.norm()", "one norm of the whole batch"),
        ("d.sum()", "d.mean()", "D's mean")],
    "trip.ranker_step": [
        ("(real, r,", "(real, -r,", "sign of r"),
        ("R.each_head(fx, fy)", "R.each_head(fy, fx)", "turned round, but not its r"),
        ("heads = zip(R.each_head(fx, fy),",
         "r, both = torch.cat([r, -r]), (torch.cat([fx, fy]), torch.cat([fy, fx]));"
         "heads = zip(R.each_head(*both),", "one way is enough"),
        ("R.each_head(fx, ff)", "R.each_head(ff, fx)", "pair turned round"),
        ("R.each_head(fx, ff)", "R.each_head(fy, ff)", "R(y, fake)"),
        ("3 * c.lam", "c.lam", "lam itself"),
        ("R.each_head(fx, fy), R.each_head(fx, ff)", "R.each_head(fx, fy)[:1] * 2, R.each_head(fx, ff)",
         "the first head's"),
        ("R.discriminate(torch.cat([fx, fy])), R.discriminate(ff)",
         "R.discriminate(ff), R.discriminate(torch.cat([fx, fy]))", "D(fake)"),
        ("torch.cat([fx, fy])", "fx", "D(x) alone"),
        ("torch.cat([fx, fy])", "fy", "D(y) alone"),
        ("sum(each) / len(each)", "c.lam * sum(each) / len(each)", "lam on the wrong term"),
        ("c.lam_gp * ", "c.lam_g * ", "lam_g on the wrong term"),
        ("c.gp_center", "1", "center"),
        ("R, x[::2], fake[::2], a", "R, x[::2], y[::2], a", "pictures"),
        ("x[::2], fake[::2]", "x, fake", "all pairs"),
        ("x[::2], fake[::2]", "x[1::2], fake[1::2]", "not the first"),
        ("x[::2], fake[::2]", "x[:1], fake[:1]", "one pair alone"),
        ("if run.ranking:", "if True:", "ranking = False"),
        ("if c.lam_gp:", "if True:", "lam_gp = 0"),
        ("update(R, run.opt_r,", "update(R, run.opt_g,", ""),
        ("update(R, run.opt_r, losses)",
         "sum(losses.values()).backward(); run.opt_r.step()", "not set to zero")],
    "trip.generator_step": [
        ("G(fake, -v)", "G(fake, v)", "which should be -v"),
        ("G(fake, -v)", "G(fake.detach(), -v)", "detached on the way back"),
        ("torch.cat([x, fake])", "torch.cat([x, fake.detach()])", "detached for both heads"),
        ("update(G, run.opt_g, losses)",
         "run.opt_g.zero_grad(); sum(losses.values()).backward(); run.opt_g.step()",
         "gradients left in the other player"),
        ("R.rank(fx, ff)", "R.rank(ff, fx)", "pair turned round"),
        ("R.rank(fx, ff)", "R.each_head(fx, ff)[1]", "one head alone"),
        ("cls_target(v) if c.cls else v", "v", "without heed of cls"),
        ("cls_target(v) if c.cls else v", "-v", "-v as the target"),
        ("R.discriminate(ff)", "R.discriminate(fx)", "D(x)"),
        ("c.lam_c * ", "c.lam * ", "lam on the wrong term"),
        ("generator_rank_loss(R.", "c.lam * generator_rank_loss(R.", "lam on the wrong term"),
        ("c.lam_id * ", "c.lam_c * ", "lam_c on the wrong term"),
        ("identity_loss(x, fake)", "identity_loss(x, G(fake, -v))", "the way back in place of fake"),
        ("identity_loss(x, fake)", "identity_loss(x, fake.detach())", "generator_identity left out"),
        ("c.lam_flow * ", "", "lam_flow left out"),
        ("flow_loss(flow)", "flow.abs().mean()", ""),
        ("flow_loss(flow)", "flow_loss(flow.detach())", "flow detached"),
        ("c.lam_paint * ", "", "lam_paint left out"),
        ("identity_loss(x_warped, fake)", "identity_loss(x_warped, x)", "x in place of fake"),
        ("identity_loss(x_warped, fake)", "identity_loss(x_warped.detach(), fake)", "x_warped detached"),
        ("orthogonal_penalty(G)", "orthogonal_penalty(R)", "run.G"),
        ("if run.ranking:", "if True:", "ranking = False"),
        ("if c.lam_c:", "if True:", "lam_c = 0"),
        ("if c.lam_o:", "if True:", "lam_o = 0")],
    "trip.cls_target": [("v.sign()", "v", "v itself")],
    "trip.identity_loss": [
        ("((fake - x) ** 2)", "(fake - x).abs()", "the absolute value"),
        ("((fake - x) ** 2).mean()", "(fake - x).mean() ** 2", "differences cancel"),
        (".mean()", ".sum()", "a sum where the mean belongs"),
        ("fake - x", "fake.detach() - x", "detach")],
    "trip.orthogonal_penalty": [(" - (gram.diagonal() ** 2).sum()", "", "the diagonal counted")]}


def read(path):
    return path.read_text(encoding="utf-8")


def body_of(text, name):
    """The lines of a function, without its docstring."""
    node = handout.functions(text)[name]
    first = node.body[ast.get_docstring(node) is not None]
    return "".join(text.splitlines(keepends=True)[first.lineno - 1:node.end_lineno])


def submit(folder, *replacements):
    """A folder with trip.py and data.py, (function, old, new) replaced in them. Returns trip.py's path."""
    folder.mkdir(parents=True)
    texts = dict(SOURCES)
    for function, old, new in replacements:
        module, name = function.split(".", 1)
        body = body_of(texts[module], name)
        assert body.count(old) == 1, f"{function} has {body.count(old)} times {old!r}: mend this fault"
        texts[module] = texts[module].replace(body, body.replace(old, new))
    for module, text in texts.items():
        (folder / f"{module}.py").write_text(text, encoding="utf-8")
    return folder / "trip.py"


@pytest.fixture(scope="module")
def grade():
    """A function: {name of a check: what is wrong} for a submission's trip.py, by all checks there are."""
    judge = grader.Grader()

    def grade(path):
        found = {name: judge.check(path, name) for name in test_grade.CHECKS}
        return {name: wrong for name, wrong in found.items() if wrong}

    yield grade
    judge.stop()


def failed(wrong):
    """The functions of the checks that found something wrong."""
    return {test_grade.CHECKS[name].function for name in wrong}


# ------------------------------------------------------------------------------------------------------------
# The proof

def test_an_untouched_copy_gets_full_points(grade, tmp_path):
    assert grade(submit(tmp_path / "copy")) == {}


@pytest.mark.parametrize("function", FAULTS)
def test_planted_faults_are_found_by_the_tests_of_their_function_and_no_other(function, grade, tmp_path):
    for i, (old, new, says) in enumerate(FAULTS[function]):
        wrong = grade(submit(tmp_path / str(i), (function, old, new)))
        assert failed(wrong) == {function}, (new, wrong)
        assert any(says in message for message in wrong.values()), (new, says, wrong)


def test_every_function_that_has_tests_has_faults():
    assert set(FAULTS) == set(test_grade.EQUATIONS) and sum(map(len, FAULTS.values())) >= 100


@pytest.mark.parametrize("function", test_grade.GRADED)
def test_no_test_leans_on_another_function_than_its_own(function, grade, tmp_path):
    """All graded functions but one are missing: its tests pass."""
    path = submit(tmp_path / "one")
    for module, text in SOURCES.items():
        names = [name.split(".", 1)[1] for name in test_grade.GRADED
                 if name.startswith(module) and name != function]
        path.with_name(f"{module}.py").write_text(handout.emptied(text, names), encoding="utf-8")
    wrong = grade(path)
    assert failed(wrong) == set(test_grade.GRADED) - {function}
    assert all("not done yet" in message for message in wrong.values())


# ------------------------------------------------------------------------------------------------------------
# The handout

@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    out = tmp_path_factory.mktemp("handout") / "out"
    assert handout.main([str(out)]) == 0
    return out


def test_the_handout_has_what_a_student_needs(copy):
    files = {path.relative_to(copy).as_posix() for path in copy.rglob("*") if path.is_file()}
    assert files - {*handout.STORED} == {
        "trip.py", "data.py", "eval.py", "requirements.txt", "LICENSE", "ASSIGNMENT.md", "walkthrough.ipynb",
        "tests/conftest.py", "tests/pytest.ini", "tests/requirements.txt", "tests/course/grader.py",
        "tests/course/test_grade.py"}
    for same in (*handout.COPIED, *handout.STORED, handout.TESTS):
        assert (copy / same).read_bytes() == (ROOT / same).read_bytes()


def test_the_notebooks_first_cell_finds_all_that_it_needs_in_the_handout(copy):
    cells = json.loads(read(copy / "walkthrough.ipynb"))["cells"]
    for image in re.findall(r"!\[[^]]*\]\((.*?)\)", "".join("".join(cell["source"]) for cell in cells)):
        assert (copy / image).is_file(), image
    first = next("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    done = subprocess.run([sys.executable, "-c", first], cwd=copy, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("all here"), done.stdout + done.stderr


@pytest.mark.parametrize("module", SOURCES)
def test_only_the_bodies_of_the_graded_functions_are_gone(module, copy):
    text = read(copy / f"{module}.py")
    for name in [name.split(".", 1)[1] for name in test_grade.GRADED if name.startswith(f"{module}.")]:
        hole = body_of(text, name)
        assert hole.strip().startswith("raise NotImplementedError(") and hole.count("\n") == 1
        assert text.count(hole) == 1
        text = text.replace(hole, body_of(SOURCES[module], name))
    assert text == SOURCES[module]


def test_the_exception_names_the_equation(copy):
    text = read(copy / "trip.py")
    assert re.search(r'raise NotImplementedError\("Eq\. .*5a.*: score real pairs as their label r', text)
    assert 'raise NotImplementedError("Eq. 6b: D(G(x, v)) should be 1")' in text
    assert 'raise NotImplementedError("Switchable normalisation (Luo et al. 2019' in text


def plain(text):
    return " ".join(text.split())


def sentences(text):
    """Those that are long enough to be nobody else's."""
    return {plain(part) for line in text.splitlines() for part in re.split(r"(?<=[.:;?])\s|\| ", line)
            if len(plain(part)) >= 40}


def secrets():
    """What is not for students: the functions' lines and SOLUTIONS.md."""
    rubric = read(ROOT / "tests" / "course" / "SOLUTIONS.md")
    found = sentences(re.sub(r"```.*?```", "", rubric, flags=re.S))
    found |= {plain(block) for block in re.findall(r"```python\n(.*?)```", rubric, re.S) if len(block) > 20}
    for module, name in (function.split(".", 1) for function in test_grade.GRADED):
        lines = [line.split("  #")[0].strip().removeprefix("return ")
                 for line in body_of(SOURCES[module], name).splitlines()]
        found |= {line for line in lines if len(line) > 15}
    return found


def leaks(folder):
    """The names of a student's files that hold some of it."""
    found, hidden = set(), secrets()
    for path in folder.rglob("*"):
        if path.is_file() and path.suffix not in (".png", ".gif", ".jpg", ".pt"):
            text = read(path)
            if path.name == "trip.py":  # (`train` has the same contexts as the steps)
                text = text.replace(body_of(text, "train"), "")
            if path.suffix == ".ipynb":
                text = "\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"])
            text = plain(text)
            found |= {path.name} if any(secret in text for secret in hidden) else set()
    return found


def test_the_handout_holds_no_solution(copy):
    assert len(secrets()) > 150 and leaks(copy) == set()


def test_a_solution_in_the_handout_would_be_found(copy, tmp_path, monkeypatch):
    rubric = read(ROOT / "tests" / "course" / "SOLUTIONS.md")
    (tmp_path / "notes.txt").write_text(rubric.split("## The questions to the room")[1], encoding="utf-8")
    (tmp_path / "trip.py").write_text(SOURCES["trip"], encoding="utf-8")
    notebook = json.loads(read(ROOT / "walkthrough.ipynb"))
    solved, = re.findall(r"def antisymmetric.*\n.*\n", rubric)
    notebook["cells"][5]["source"] = [solved]  # forgotten
    left = handout.without_outputs(json.dumps(notebook))
    (tmp_path / "walkthrough.ipynb").write_text(left, encoding="utf-8")
    assert leaks(tmp_path) == {"notes.txt", "trip.py", "walkthrough.ipynb"}
    monkeypatch.setattr(handout, "COPIED", [*handout.COPIED, "tests/course/SOLUTIONS.md"])
    assert handout.main([str(tmp_path / "out")]) == 0
    assert leaks(tmp_path / "out") == {"SOLUTIONS.md"}


def test_the_lecturers_pages_fit_the_tests():
    """The functions and points, the number of faults, a rubric for each section, and what it quotes."""
    plan, rubric = (read(ROOT / "tests" / "course" / name) for name in ("README.md", "SOLUTIONS.md"))
    points = [(name.split(".", 1)[1], str(test_grade.points(name))) for name in test_grade.GRADED]
    parts = plan.split("## The assignment")[1].split("## Grading")[0]
    assert re.findall(r"`([\w.]+)` (\d+)", parts) == points
    total = sum(map(test_grade.points, test_grade.GRADED))
    assert f"{total} in all" in plan and f"50 / {total} of" in plan
    assert f"plants {sum(map(len, FAULTS.values()))} faults" in plan
    questions, room, functions = re.split(r"## The questions to the room|## The graded functions", rubric)
    sections = re.split(r"(?m)^### (\d+)\. ", questions)
    assert sections[1::2] == [str(n) for n in range(1, 11)]
    for text in sections[2::2]:
        assert re.findall(r"(?m)^(\d)\. ", text) == ["1", "2", "3"] and "*Half*" in text and "*Wrong*" in text
    asked = [str(n) for n in range(1, 13)]
    assert re.findall(r"(?m)^(\d+)\. ", room) == re.findall(r"\| (\d+)\. ", plan) == asked
    rows = re.findall(r"(?m)^\| `([\w.]+)` \| .* \| (.*) \|$", functions)
    assert [name for name, _ in rows] == test_grade.GRADED
    for name, cell in rows:
        assert set(re.findall('"([^"]+)"', cell)) <= {says for _, _, says in FAULTS[name]}


@pytest.mark.parametrize("module", SOURCES)
def test_every_function_can_be_chosen(module):
    names = list(handout.functions(SOURCES[module]))
    text = handout.emptied(SOURCES[module], names)
    compile(text, module, "exec")
    assert len(names) > 20 and text.count("raise NotImplementedError(") == len(names)
    assert list(handout.functions(text)) == names


def test_comments_before_the_first_line_go_too_and_all_else_stays():
    source = 'class A:\n    """About A. More."""\n\n    def f(self):\n{}\n    # of A\n\n\nx = 1\n'
    full = source.format("        # a hint\n\n        return 1  # 1")
    assert handout.emptied(full, ["A.f"]) == source.format('        raise NotImplementedError("About A")')


def test_ones_own_selection(tmp_path):
    out, chosen = tmp_path / "out", ["cls_target", "data.as_float", "trip.identity_loss"]
    assert handout.main([str(out), "--functions", *chosen]) == 0
    assert 'GRADED = ["trip.cls_target",\n          "trip.identity_loss"]' in read(out / handout.TESTS)
    assert 'raise NotImplementedError("Eq. 3: the ablation' in read(out / "trip.py")
    page = read(out / "ASSIGNMENT.md")
    assert "| 1 | `cls_target` in `trip.py` | Eq. 3" in page and "| total | 2 |" in page
    assert "| uint8 pixels in 0 .. 255 to float pixels in [-1, 1], any shape | no test |" in page


def test_the_notebook_loses_its_outputs():
    code = {"cell_type": "code", "metadata": {}, "outputs": [{"text": "told"}], "execution_count": 2,
            "source": ["x = 1"]}
    text = handout.without_outputs(json.dumps({"cells": [code, {"cell_type": "markdown", "source": ["ü"]}]}))
    assert json.loads(text)["cells"] == [code | {"outputs": [], "execution_count": None},
                                         {"cell_type": "markdown", "source": ["ü"]}]


@pytest.mark.parametrize("arguments, says", [
    ([], "OUT"),
    (["{there}"], "there already"),
    (["{new}", "--functions", "rankr_step"], "did you mean ranker_step"),
    (["{new}", "--functions", "SwitchNorm"], "SwitchNorm.forward"),
    (["{new}", "--functions", "load"], "trip.load or data.load"),
    (["{new}", "--function"], "--function"),
    (["{there}/file/below"], "file"),
])
def test_wrong_arguments_get_one_line_and_exit_code_2_and_write_nothing(arguments, says, tmp_path, capsys):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").write_text("mine")
    places = dict(there=tmp_path / "there", new=tmp_path / "new")
    assert handout.main([part.format(**places) for part in arguments]) == 2
    said = capsys.readouterr().err
    assert says in said and said.count("\n") == 1
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "there"]


# ------------------------------------------------------------------------------------------------------------
# A submission cannot hang or break the grader

def test_whatever_a_function_does_costs_its_own_points_only(grade, tmp_path, monkeypatch):
    monkeypatch.setattr(grader, "CHECK", 3)
    deeds = {"Ranker.each_head": "import sys; sys.exit(0)",
             "Ranker.discriminate": "print('x' * 10 ** 7); input()",
             "ranker_rank_loss": "return real + lam * fake", "ranker_gan_loss": "import os; os._exit(0)",
             "generator_gan_loss": "print('a hint'); torch.set_grad_enabled(False); return 0",
             "generator_rank_loss": "import os; hasattr(os, 'fork') and os.fork()",
             "cycle_loss": "exec('while True: pass')"}
    path = submit(tmp_path / "wild", *((f"trip.{name}", "return ", f"{deed}; return ")
                                       for name, deed in deeds.items()))
    said = {test_grade.CHECKS[name].function: message for name, message in grade(path).items()}
    assert set(said) == {f"trip.{name}" for name in deeds if name != "generator_rank_loss"}
    assert "SystemExit" in said["trip.Ranker.each_head"]
    assert re.search("EOFError|OSError", said["trip.Ranker.discriminate"])
    assert "shape ()" in said["trip.ranker_rank_loss"] and "shape (2, 2)" in said["trip.ranker_rank_loss"]
    assert "exit code 0" in said["trip.ranker_gan_loss"]
    assert "a tensor" in said["trip.generator_gan_loss"]
    assert "printed   a hint" in said["trip.generator_gan_loss"]
    assert "stopped after 3 seconds" in said["trip.cycle_loss"]
    assert not list(path.parent.glob("__pycache__"))


@pytest.mark.parametrize("text, says", [
    ("x = 1\ndef (:", "SyntaxError: invalid syntax, line 2: def (:"), ("import nonesuch", "nonesuch"),
    ("raise SystemExit", "SystemExit"),
    ("import os; os._exit(3)", "exit code 3"), ("while True: pass", "stopped after"), ("", "AttributeError")])
def test_a_file_that_cannot_be_imported_gets_no_points_and_says_why(text, says, grade, tmp_path, monkeypatch):
    monkeypatch.setattr(grader, "IMPORT", 4)
    path = submit(tmp_path / "broken")
    path.write_text(text)
    wrong = grade(path)
    assert failed(wrong) == set(test_grade.EQUATIONS) - {"data.pair_labels"}  # data.py is another file
    assert all(says in message for message in wrong.values())


def test_data_py_may_be_missing(grade, tmp_path):
    path = submit(tmp_path / "part")
    path.with_name("data.py").unlink()
    wrong = grade(path)
    assert failed(wrong) == {"data.pair_labels"} and "was not handed in" in list(wrong.values())[0]


def pytest_in(folder, *arguments):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return subprocess.run([sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments], cwd=folder,
                          capture_output=True, text=True, env=environment)


def test_the_command_that_grades_and_its_json(tmp_path):
    folder = submit(tmp_path / "zip" / "anna", ("trip.ranker_rank_loss", "real - r", "real + r")).parent
    for trap in ("conftest.py", "test_grade.py", "tests/conftest.py"):  # what might be taken for our own
        (folder / trap).parent.mkdir(exist_ok=True)
        (folder / trap).write_text("raise SystemExit")
    (folder / "pytest.ini").write_text("[pytest]\naddopts = --collect-only")
    done = pytest_in(ROOT, "tests", "--trip", str(folder.parent), "--grades", str(tmp_path / "grades.json"))
    total = sum(map(test_grade.points, test_grade.GRADED))
    assert done.returncode == 1, done.stdout + done.stderr
    assert "sign of r turned round" in done.stdout and f"{total - 1:3} of {total}" in done.stdout
    grades = json.loads(read(tmp_path / "grades.json"))
    assert (grades["points"], grades["of"]) == (total - 1, total)
    row, = (row for row in grades["functions"] if not row["passed"])
    assert (row["equation"], row["function"]) == ("Eq. 5a", "trip.ranker_rank_loss")
    assert [test["passed"] for test in row["tests"]] == [False, True, True]
    assert "input" in row["tests"][0]["message"] and row["tests"][1]["message"] == ""


def test_a_wrong_command_is_told_in_one_line(copy, tmp_path):
    """pytest reads the conftest.py of the first path that it sees: in a wrong order, the student's."""
    for says, *arguments in (("in this order", "--trip", str(copy), "tests"),
                             ("in this order", "--trip", str(copy)),
                             ("unpack it", "tests", "--trip", shutil.make_archive(tmp_path / "a", "zip", copy)),
                             (str(tmp_path), "tests", "--trip", str(tmp_path))):
        done = pytest_in(ROOT, *arguments)
        assert done.returncode == 4 and says in done.stderr and done.stderr.strip().count("\n") == 0


def test_the_handout_can_be_worked_with(copy):
    """A student's first command: all tests fail, each says what is to be done."""
    done = pytest_in(copy)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "not done yet: Eq. 2, 5a (K attributes: 7a): score real pairs" in done.stdout
    assert "  0 of " in done.stdout
