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

# (function, text in it, what stands there instead, what the message has to say)
FAULTS = [
    ("data.pair_labels", "y_has.float() - x_has.float()", "x_has.float() - y_has.float()", "sign of r"),
    ("data.pair_labels", "y_has.float() - x_has.float()", "(y_has.float() - x_has.float()).abs()",
     "r without a sign"),
    ("data.pair_labels", "y_has.float() - x_has.float()", "2 * y_has.float() - 1", "label of y alone"),
    ("data.pair_labels", "y_has.float() - x_has.float()", "(y_has & ~x_has).float()", "0 in place of -1"),
    ("trip.SwitchNorm.forward", "(2, 3), correction=0", "(2, 3), correction=1", "n - 1"),
    ("trip.SwitchNorm.forward", "var_in, mean_in = ", "mean_in, var_in = ", "gives the variance first"),
    ("trip.SwitchNorm.forward", "mean_bn.detach()", "mean_bn", "missing detach"),
    ("trip.SwitchNorm.forward", "var_bn.detach(), self.momentum", "var_bn.detach(), 1 - self.momentum",
     "share of the old"),
    ("trip.SwitchNorm.forward", " + mean_in.var(0, correction=0, keepdim=True)", "",
     "lacks what the means differ by"),
    ("trip.SwitchNorm.forward", " + mean_in.var(1, correction=0, keepdim=True)", "",
     "lacks what the means differ by"),
    ("trip.SwitchNorm.forward", "mean_in.var(0, correction=0", "mean_in.var(0, correction=1", "batch"),
    ("trip.SwitchNorm.forward", "mean_ln = mean_in.mean(1, keepdim=True)",
     "mean_ln = mean_in.mean(0, keepdim=True)",
     "layer"),
    ("trip.SwitchNorm.forward", "self.var_weights.softmax(0)", "self.mean_weights.softmax(0)",
     "means' weights used for the variances"),
    ("trip.SwitchNorm.forward", "self.mean_weights.softmax(0), self.var_weights.softmax(0)",
     "self.mean_weights, self.var_weights", "softmax"),
    ("trip.SwitchNorm.forward", "if self.training:", "if True:", "as in training"),
    ("trip.SwitchNorm.forward", "self.bias - mean", "self.bias - 0 * mean", "not taken off"),
    ("trip.SwitchNorm.forward", ".rsqrt()", ".reciprocal()", "not by its root"),
    ("trip.SwitchNorm.forward", "self.weight * ", "", "scale left out"),
    ("trip.Ranker.rank", "fy - fx", "fx - fy", "sign turned round"),
    ("trip.Ranker.rank", "fy - fx", "fy + fx", "sum of the features"),
    ("trip.Ranker.rank", "self.rank_head(fy - fx)", "(self.rank_head(fy) - self.rank_head(fx))",
     "after the head"),
    ("trip.Ranker.critic", "gan_head", "rank_head", "the rank head"),
    ("trip.Ranker.critic", "self.gan_head(fx)", "self.gan_head(self.features(fx))", "F once more"),
    ("trip.ranker_rank_loss", "real - r", "real + r", "sign of r"),
    ("trip.ranker_rank_loss", "(real - r)", "real", "0 as the target of real pairs"),
    ("trip.ranker_rank_loss", "((real - r) ** 2).sum(1).mean() + lam *",
     "lam * ((real - r) ** 2).sum(1).mean() +",
     "lambda on the wrong term"),
    ("trip.ranker_rank_loss", "((real - r) ** 2).sum(1)", "((real - r) ** 2)",
     "mean over the K attributes of the real pairs"),
    ("trip.ranker_rank_loss", "(fake ** 2).sum(1)", "(fake ** 2)",
     "mean over the K attributes of the generated pairs"),
    ("trip.ranker_rank_loss", "fake ** 2", "(fake - 1) ** 2", "1 as the target of generated pairs"),
    ("trip.ranker_rank_loss", "+ lam", "- lam", "wrong sign of the rival term"),
    ("trip.ranker_rank_loss", "(fake ** 2)", "(fake.detach() ** 2)", "detach"),
    ("trip.generator_rank_loss", "fake - v", "fake + v", "sign of v"),
    ("trip.generator_rank_loss", "fake - v", "fake - v.sign()", "as in Eq. 3"),
    ("trip.generator_rank_loss", "(fake - v)", "fake", "the ranker's"),
    ("trip.generator_rank_loss", ".sum(1)", "", "mean over the K attributes"),
    ("trip.generator_rank_loss", "fake - v", "fake.detach() - v", "detach"),
    ("trip.ranker_gan_loss", "((real - 1) ** 2).mean() + (fake ** 2)",
     "(real ** 2).mean() + ((fake - 1) ** 2)",
     "targets exchanged"),
    ("trip.ranker_gan_loss", "+ (fake", "- (fake", "wrong sign"),
    ("trip.ranker_gan_loss", "fake ** 2", "(fake + 1) ** 2", "-1 as the target"),
    ("trip.generator_gan_loss", "(fake - 1)", "fake", "0 as the target"),
    ("trip.generator_gan_loss", ".mean()", ".sum()", "a sum over the batch"),
    ("trip.cycle_loss", "(back - x).abs()", "((back - x) ** 2)", "the square"),
    ("trip.cycle_loss", ".abs()", "", "cancel"),
    ("trip.gradient_penalty", "R.critic(R.features.forward(z))", "R.rank(R.features(x), R.features(z))",
     "wrong head"),
    ("trip.gradient_penalty", "create_graph=True", "create_graph=False", "create_graph"),
    ("trip.gradient_penalty", "- center", "- 1", "center 1, whatever is asked for"),
    ("trip.gradient_penalty", "a * x + (1 - a) * fake", "(1 - a) * x + a * fake", "exchanged"),
    ("trip.gradient_penalty", "a * x + (1 - a) * fake", "0 * x + fake", "the generated pictures"),
    ("trip.gradient_penalty", ".norm(dim=1)", ".pow(2).sum(1)", "squared norm"),
    ("trip.gradient_penalty", "grad.flatten(1).norm(dim=1)", "grad.norm()", "one norm of the whole batch"),
    ("trip.gradient_penalty", "d.sum()", "d.mean()", "D's mean"),
    ("trip.slope_penalty", "a * y + (1 - a) * fake", "a * x + (1 - a) * fake", "x in place of y"),
    ("trip.slope_penalty", "a * y + (1 - a) * fake", "(1 - a) * y + a * fake", "y and fake exchanged"),
    ("trip.slope_penalty", "a * y + (1 - a) * fake", "0 * y + fake", "the generated pictures"),
    ("trip.slope_penalty", "R.features.forward(x)", "R.features.forward(y)", "y in place of x"),
    ("trip.slope_penalty", "R.rank(fx, fz)", "R.rank(fz, fx)", "pair turned round"),
    ("trip.slope_penalty", "R.rank(fx, fz)", "R.critic(fz)", "wrong head"),
    ("trip.slope_penalty", "R.rank(fx, fz)", "R.rank(fx, fz)[:, :1]", "the first attribute alone"),
    ("trip.slope_penalty", ".unbind(1)", ".sum(1, keepdim=True).unbind(1)", "the sum of all R_k"),
    ("trip.slope_penalty", "return sum(", "return 1 / len(grads) * sum(", "mean over the K attributes"),
    ("trip.slope_penalty", "create_graph=True", "create_graph=False", "create_graph"),
    ("trip.slope_penalty", "out.sum()", "out.mean()", "R's mean"),
    ("trip.slope_penalty", ".norm(dim=1)", ".pow(2).sum(1)", "squared norm"),
    ("trip.slope_penalty", "grad.flatten(1).norm(dim=1)", "grad.norm()", "one norm of the whole batch"),
    ("trip.slope_penalty", ".norm(dim=1)", ".norm(dim=1).mean()", "the mean norm"),
    ("trip.slope_penalty", ".clamp(min=0)", "", "max(0, ...) left out"),
    ("trip.slope_penalty", ".clamp(min=0)", ".clamp(max=0)", "none that is too steep"),
    ("trip.slope_penalty", " - steepest", "", "steepest left out"),
    ("trip.slope_penalty", "- steepest", "- 1", "steepest 1, whatever is asked for"),
    ("trip.slope_penalty", ".clamp(min=0) ** 2", ".clamp(min=0)", "without its square"),
    ("trip.slope_penalty", ".mean() for", ".sum() for", "a sum over the batch"),
    ("trip.ranker_step", "R.rank(fx, fy), r,", "R.rank(fx, fy), -r,", "sign of r"),
    ("trip.ranker_step", "R.rank(fx, fy), r,", "R.rank(fy, fx), r,", "turned round, but not its r"),
    ("trip.ranker_step", "R.rank(fx, fy), r,",
     "R.rank(torch.cat([fx, fy]), torch.cat([fy, fx])), torch.cat([r, -r]),", "one way is enough"),
    ("trip.ranker_step", "R.rank(fx, ff)", "R.rank(ff, fx)", "pair turned round"),
    ("trip.ranker_step", "R.rank(fx, ff)", "R.rank(fy, ff)", "R(y, fake)"),
    ("trip.ranker_step", ", c.lam)", ", c.lam_rank)", "lam_rank in place of lam"),
    ("trip.ranker_step", "R.critic(torch.cat([fx, fy])), R.critic(ff)",
     "R.critic(ff), R.critic(torch.cat([fx, fy]))", "D(fake)"),
    ("trip.ranker_step", "torch.cat([fx, fy])", "fx", "D(x) alone"),
    ("trip.ranker_step", "torch.cat([fx, fy])", "fy", "D(y) alone"),
    ("trip.ranker_step", "c.lam_rank * ", "c.lam * ", "lam on the wrong term"),
    ("trip.ranker_step", "c.lam_gp * ", "c.lam_g * ", "lam_g on the wrong term"),
    ("trip.ranker_step", "c.lam_slope * ", "", "lam_slope left out"),
    ("trip.ranker_step", "c.gp_center", "1", "center"),
    ("trip.ranker_step", "R, x, fake, a", "R, x, y, a", "pictures"),
    ("trip.ranker_step", "R, x, y, fake, a", "R, y, x, fake, a", "slope_penalty's x"),
    ("trip.ranker_step", "R, x, y, fake, a", "R, x, x, fake, a", "y and fake"),
    ("trip.ranker_step", "R, x, y, fake, a", "R, x, y, fake, random(run, len(x), 1, 1, 1)", "another a"),
    ("trip.ranker_step", "c.slope * 64 / c.size", "c.slope", "whatever the size"),
    ("trip.ranker_step", "64 / c.size", "c.size / 64", "which should be 64 / size"),
    ("trip.ranker_step", "x[::2], y[::2], fake[::2]", "x, y, fake", "all pairs"),
    ("trip.ranker_step", "x[::2], y[::2], fake[::2]", "x[1::2], y[1::2], fake[1::2]", "not the first"),
    ("trip.ranker_step", "x[::2], y[::2], fake[::2]", "x[:1], y[:1], fake[:1]", "one pair alone"),
    ("trip.ranker_step", "if run.ranking:", "if True:", "ranking = False"),
    ("trip.ranker_step", "if c.lam_gp:", "if True:", "lam_gp = 0"),
    ("trip.ranker_step", "if c.lam_slope and run.ranking:", "if run.ranking:", "lam_slope = 0"),
    ("trip.ranker_step", "if c.lam_slope and run.ranking:", "if c.lam_slope:", "ranking = False"),
    ("trip.ranker_step", "update(R, run.opt_r,", "update(R, run.opt_g,", ""),
    ("trip.ranker_step", "update(R, run.opt_r, losses, c.clip)",
     "sum(losses.values()).backward(); run.opt_r.step()",
     "not set to zero"),
    ("trip.generator_step", "G(fake, -v)", "G(fake, v)", "which should be -v"),
    ("trip.generator_step", "G(fake, -v)", "G(fake.detach(), -v)", "detached on the way back"),
    ("trip.generator_step", "torch.cat([x, fake])", "torch.cat([x, fake.detach()])",
     "detached for both heads"),
    ("trip.generator_step", "update(G, run.opt_g, losses, c.clip)",
     "run.opt_g.zero_grad(); sum(losses.values()).backward(); run.opt_g.step()",
     "gradients left in the other player"),
    ("trip.generator_step", "R.rank(fx, ff)", "R.rank(ff, fx)", "pair turned round"),
    ("trip.generator_step", "cls_target(v) if c.cls else v", "v", "without heed of cls"),
    ("trip.generator_step", "cls_target(v) if c.cls else v", "-v", "-v as the target"),
    ("trip.generator_step", "R.critic(ff)", "R.critic(fx)", "D(x)"),
    ("trip.generator_step", "c.lam_c * ", "c.lam * ", "lam on the wrong term"),
    ("trip.generator_step", "c.lam_rank * ", "", "lam_rank left out"),
    ("trip.generator_step", "c.lam_keep * ", "c.lam_c * ", "lam_c on the wrong term"),
    ("trip.generator_step", "keep_loss(x, fake)", "keep_loss(x, G(fake, -v))",
     "the way back in place of fake"),
    ("trip.generator_step", "keep_loss(x, fake)", "keep_loss(x, fake.detach())", "generator_keep left out"),
    ("trip.generator_step", "c.lam_paint * ", "", "lam_paint left out"),
    ("trip.generator_step", "keep_loss(x_moved, fake)", "keep_loss(x_moved, x)", "x in place of fake"),
    ("trip.generator_step", "keep_loss(x_moved, fake)", "keep_loss(x_moved.detach(), fake)", "x_moved detached"),
    ("trip.generator_step", "if c.lam_paint:", "if True:", "lam_paint = 0"),
    ("trip.generator_step", "orthogonal_penalty(G)", "orthogonal_penalty(R)", "run.G"),
    ("trip.generator_step", "if run.ranking:", "if True:", "ranking = False"),
    ("trip.generator_step", "if c.lam_c:", "if True:", "lam_c = 0"),
    ("trip.generator_step", "if c.lam_o:", "if True:", "lam_o = 0"),
    ("trip.cls_target", "v.sign()", "v", "v itself"),
    ("trip.keep_loss", "((fake - x) ** 2)", "(fake - x).abs()", "the absolute value"),
    ("trip.keep_loss", "((fake - x) ** 2).mean()", "(fake - x).mean() ** 2", "differences cancel"),
    ("trip.keep_loss", ".mean()", ".sum()", "a sum where the mean belongs"),
    ("trip.keep_loss", "fake - x", "fake.detach() - x", "detach"),
    ("trip.orthogonal_penalty", " - (gram.diagonal() ** 2).sum()", "", "the diagonal counted"),
]


def body_of(text, name):
    """The lines of a function, without its docstring."""
    node = handout.functions(text)[name]
    first = node.body[ast.get_docstring(node) is not None]
    return "".join(text.splitlines(keepends=True)[first.lineno - 1:node.end_lineno])


def submit(folder, *replacements):
    """A folder with trip.py and data.py, (function, old, new) replaced in them. Returns trip.py's path."""
    folder.mkdir()
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


def test_planted_faults_are_found_by_the_tests_of_their_function_and_no_other(grade, tmp_path):
    missed, untold = [], []
    for i, (function, old, new, says) in enumerate(FAULTS):
        wrong = grade(submit(tmp_path / str(i), (function, old, new)))
        assert failed(wrong) <= {function}, (function, new, wrong)
        if not wrong:
            missed.append((function, new))
        elif not any(says in message for message in wrong.values()):
            untold.append((function, new, says, wrong))
    print(f"{len(FAULTS) - len(missed)} of {len(FAULTS)} faults found; missed: {missed}")
    assert len(FAULTS) >= 100 and not missed, missed
    assert {fault[0] for fault in FAULTS} == set(test_grade.EQUATIONS)
    assert not untold, untold


@pytest.mark.parametrize("function", test_grade.GRADED)
def test_no_test_leans_on_another_function_than_its_own(function, grade, tmp_path):
    """All graded functions but one are missing: its tests pass."""
    path = submit(tmp_path / "one")
    for module, text in SOURCES.items():
        names = [name.split(".", 1)[1] for name in test_grade.GRADED if name.startswith(module)
                 and name != function]
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


PICTURES = (".png", ".gif", ".jpg")


def test_the_handout_has_what_a_student_needs(copy):
    files = {path.relative_to(copy).as_posix() for path in copy.rglob("*") if path.is_file()}
    assert files - {"walkthrough.ipynb", *handout.STORED} == {
        "trip.py", "data.py", "eval.py", "requirements.txt", "LICENSE", "ASSIGNMENT.md", "tests/conftest.py",
        "tests/pytest.ini", "tests/requirements.txt", "tests/course/grader.py", "tests/course/test_grade.py"}
    assert ("walkthrough.ipynb" in files) == (ROOT / "walkthrough.ipynb").is_file()
    for same in ("eval.py", "requirements.txt", "LICENSE", "tests/course/test_grade.py",
                 "study/figures/grid.png"):
        assert (copy / same).read_bytes() == (ROOT / same).read_bytes()


def test_the_notebooks_first_cell_finds_all_that_it_needs_in_the_handout(copy):
    cells = json.loads((copy / "walkthrough.ipynb").read_text(encoding="utf-8"))["cells"]
    for image in re.findall(r"!\[[^]]*\]\((.*?)\)", "".join("".join(cell["source"]) for cell in cells)):
        assert (copy / image).is_file(), image
    first = next("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    done = subprocess.run([sys.executable, "-c", first], cwd=copy, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("all here"), done.stdout + done.stderr


@pytest.mark.parametrize("module", SOURCES)
def test_only_the_bodies_of_the_graded_functions_are_gone(module, copy):
    text = (copy / f"{module}.py").read_text(encoding="utf-8")
    for name in [name.split(".", 1)[1] for name in test_grade.GRADED if name.startswith(f"{module}.")]:
        hole = body_of(text, name)
        assert hole.strip().startswith("raise NotImplementedError(") and hole.count("\n") == 1
        assert text.count(hole) == 1
        text = text.replace(hole, body_of(SOURCES[module], name))
    assert text == SOURCES[module]


def test_the_exception_names_the_equation(copy):
    text = (copy / "trip.py").read_text(encoding="utf-8")
    assert re.search(r'raise NotImplementedError\("Eq\. .*5a.*: score real pairs as their label r', text)
    assert 'raise NotImplementedError("Eq. 6b: D(G(x, v)) should be 1")' in text
    assert 'raise NotImplementedError("Switchable normalisation (Luo et al. 2019' in text


def test_the_handout_holds_no_solution(copy):
    texts = {path.name: path.read_text(encoding="utf-8") for path in copy.rglob("*")
             if path.is_file() and path.suffix not in PICTURES}
    texts["trip.py"] = texts["trip.py"].replace(body_of(texts["trip.py"], "train"), "")  # (the same contexts)
    for function in test_grade.GRADED:
        module, name = function.split(".", 1)
        for line in body_of(SOURCES[module], name).splitlines():
            code = line.split("  #")[0].strip().removeprefix("return ")
            if len(code) > 15:
                assert not [file for file, text in texts.items() if code in text], (function, code)


def plain(text):
    return " ".join(text.split())


def sentences(text):
    """Those that are long enough to be nobody else's."""
    return {plain(part) for line in text.splitlines() for part in re.split(r"(?<=[.:;?])\s|\| ", line)
            if len(plain(part)) >= 40}


def secrets():
    """What is for the lecturer: SOLUTIONS.md, and what the notebook has after its heading "Solutions"."""
    found = sentences((ROOT / "tests" / "course" / "SOLUTIONS.md").read_text(encoding="utf-8"))
    cells = json.loads((ROOT / "walkthrough.ipynb").read_text(encoding="utf-8"))["cells"]
    texts = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]
    start, = (i for i, text in enumerate(texts) if text.startswith("## Solutions"))  # (whatever their tags)
    for text in texts[start + 1:]:
        found |= {plain(block) for block in re.findall(r"```python\n(.*?)```", text, re.S)}
        found |= sentences(re.sub(r"```.*?```", "", text, flags=re.S))
    return found


def leaks(folder):
    """What a student's copy holds of it: [(file, text)]."""
    found, hidden = [], secrets()
    for path in folder.rglob("*"):
        if path.is_file() and path.suffix not in PICTURES:
            text = path.read_text(encoding="utf-8")
            if path.suffix == ".ipynb":
                text = "\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"])
            text = plain(text)
            found += [(path.name, secret) for secret in hidden if secret in text]
    return found


def test_the_handout_holds_neither_the_rubric_nor_the_notebooks_solutions(copy):
    assert len(secrets()) > 100
    assert not list(copy.rglob("SOLUTIONS*")) and leaks(copy) == []


def test_a_rubric_or_a_solution_in_the_handout_would_be_found(copy, tmp_path, monkeypatch):
    rubric = (ROOT / "tests" / "course" / "SOLUTIONS.md").read_text(encoding="utf-8")
    (tmp_path / "notes.txt").write_text(rubric.split("## The questions to the room")[1], encoding="utf-8")
    assert {name for name, _ in leaks(tmp_path)} == {"notes.txt"}
    notebook = json.loads((ROOT / "walkthrough.ipynb").read_text(encoding="utf-8"))
    one = next(cell for cell in notebook["cells"] if "<details>" in "".join(cell["source"]))
    one["metadata"]["tags"] = []  # forgotten
    (tmp_path / "walkthrough.ipynb").write_text(handout.without_solutions(json.dumps(notebook)),
                                                encoding="utf-8")
    assert {name for name, _ in leaks(tmp_path)} == {"notes.txt", "walkthrough.ipynb"}
    monkeypatch.setattr(handout, "COPIED", [*handout.COPIED, "tests/course/SOLUTIONS.md"])
    assert handout.main([str(tmp_path / "out")]) == 0
    assert {name for name, _ in leaks(tmp_path / "out")} == {"SOLUTIONS.md"}


def test_the_lecturers_pages_fit_the_tests():
    """The plan's functions and points, the number of faults, a rubric for each section, and what it quotes."""
    plan, rubric = ((ROOT / "tests" / "course" / name).read_text(encoding="utf-8")
                    for name in ("README.md", "SOLUTIONS.md"))
    points = {name: sum(check.points for check in test_grade.CHECKS.values() if check.function == name)
              for name in test_grade.GRADED}
    parts = plan.split("## The assignment")[1].split("## Grading")[0]
    assert re.findall(r"`([\w.]+)` (\d+)", parts) == [(name.split(".", 1)[1], str(of))
                                                     for name, of in points.items()]
    assert f"{sum(points.values())} in all" in plan and f"50 / {sum(points.values())} of" in plan
    assert f"plants {len(FAULTS)} faults" in plan
    questions, room, functions = re.split(r"## The questions to the room|## The graded functions", rubric)
    sections = re.split(r"(?m)^### (\d+)\. ", questions)
    assert sections[1::2] == [str(n) for n in range(1, 11)]
    for text in sections[2::2]:
        assert re.findall(r"(?m)^(\d)\. ", text) == ["1", "2", "3"] and "*Half*" in text and "*Wrong*" in text
    assert (re.findall(r"(?m)^(\d+)\. ", room) == re.findall(r"\| (\d+)\. ", plan)
            == [str(n) for n in range(1, 13)])
    rows = re.findall(r"(?m)^\| `([\w.]+)` \| .* \| (.*) \|$", functions)
    assert [name for name, _ in rows] == test_grade.GRADED
    quoted = {(name, says) for name, cell in rows for says in re.findall('"([^"]+)"', cell)}
    assert quoted <= {(fault[0], fault[3]) for fault in FAULTS}


@pytest.mark.parametrize("module", SOURCES)
def test_every_function_can_be_chosen(module):
    names = list(handout.functions(SOURCES[module]))
    text = handout.emptied(SOURCES[module], names)
    compile(text, module, "exec")
    assert len(names) > 20 and text.count("raise NotImplementedError(") == len(names)
    assert list(handout.functions(text)) == names


def test_comments_before_the_first_line_go_too_and_all_else_stays():
    source = 'class A:\n    """About A. More."""\n\n    def f(self):\n{}\n    # of A\n\n\nx = 1\n'
    assert handout.emptied(source.format("        # a hint\n\n        return 1  # 1"),
                           ["A.f"]) == source.format(
        '        raise NotImplementedError("About A")')


def test_ones_own_selection(tmp_path):
    out = tmp_path / "out"
    assert handout.main([str(out), "--functions", "cls_target", "data.as_float", "trip.keep_loss"]) == 0
    tests = (out / "tests" / "course" / "test_grade.py").read_text(encoding="utf-8")
    assert 'GRADED = ["trip.cls_target",\n          "trip.keep_loss"]' in tests
    assert 'raise NotImplementedError("Eq. 3: the ablation' in (out / "trip.py").read_text(encoding="utf-8")
    page = (out / "ASSIGNMENT.md").read_text(encoding="utf-8")
    assert "| 1 | `cls_target` in `trip.py` | Eq. 3" in page and "| total | 2 |" in page
    assert "| uint8 pixels in 0 .. 255 to float pixels in [-1, 1], any shape | no test |" in page


def test_the_notebook_loses_solutions_and_outputs():
    cells = [{"cell_type": "code", "metadata": {"tags": ["solution"]}, "outputs": [], "execution_count": 1,
              "source": ["secret"]},
             {"cell_type": "code", "metadata": {}, "outputs": [{"text": "told"}], "execution_count": 2,
              "source": ["x = 1"]},
             {"cell_type": "markdown", "metadata": {}, "source": ["ü"]}]
    text = handout.without_solutions(json.dumps({"cells": cells, "nbformat": 4}))
    assert "secret" not in text and "told" not in text
    assert json.loads(text) == {"cells": [cells[1] | {"outputs": [], "execution_count": None}, cells[2]],
                                "nbformat": 4}


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
    assert handout.main([part.format(there=tmp_path / "there", new=tmp_path / "new")
                         for part in arguments]) == 2
    said = capsys.readouterr().err
    assert says in said and said.count("\n") == 1
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "there"]


# ------------------------------------------------------------------------------------------------------------
# A submission cannot hang or break the grader

def test_whatever_a_function_does_costs_its_own_points_only(grade, tmp_path, monkeypatch):
    monkeypatch.setattr(grader, "CHECK", 3)
    path = submit(tmp_path / "wild",
                  ("trip.Ranker.rank", "return ", "import sys; sys.exit(0)\n        return "),
                  ("trip.Ranker.critic", "return ", "print('x' * 10 ** 7); input()\n        return "),
                  ("trip.ranker_rank_loss", ".sum(1).mean() + lam * (fake ** 2).sum(1).mean()",
                   " + lam * fake"),
                  ("trip.ranker_gan_loss", "return ", "import os; os._exit(0)\n    return "),
                  ("trip.generator_gan_loss", "return ",
                   "print('a hint'); torch.set_grad_enabled(False); return 0\n    return "),
                  ("trip.generator_rank_loss", "return ",
                   "import os; hasattr(os, 'fork') and os.fork()\n    return "),
                  ("trip.cycle_loss", "return ", "while True: pass\n    return "))
    wrong = grade(path)
    said = {test_grade.CHECKS[name].function: message for name, message in wrong.items()}
    assert set(said) == {"trip.Ranker.rank", "trip.Ranker.critic", "trip.ranker_rank_loss",
                         "trip.ranker_gan_loss",
                         "trip.generator_gan_loss", "trip.cycle_loss"}
    assert "SystemExit" in said["trip.Ranker.rank"]
    assert "EOFError" in said["trip.Ranker.critic"] or "OSError" in said["trip.Ranker.critic"]
    assert "shape ()" in said["trip.ranker_rank_loss"] and "shape (2, 2)" in said["trip.ranker_rank_loss"]
    assert "exit code 0" in said["trip.ranker_gan_loss"]
    assert "a tensor" in said["trip.generator_gan_loss"]
    assert "printed   a hint" in said["trip.generator_gan_loss"]
    assert "stopped after 3 seconds" in said["trip.cycle_loss"]
    assert not list(path.parent.glob("__pycache__"))


@pytest.mark.parametrize("text, says", [
    ("def (:", "SyntaxError"), ("import nonesuch", "nonesuch"), ("raise SystemExit", "SystemExit"),
    ("import os; os._exit(3)", "exit code 3"),
    ("while True: pass", "stopped after"), ("", "AttributeError")])
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
                          capture_output=True,
                          text=True, env=environment)


def test_the_command_that_grades_and_its_json(tmp_path):
    path = submit(tmp_path / "anna", ("trip.ranker_rank_loss", "real - r", "real + r"))
    for trap in ("conftest.py", "test_grade.py",
                 "tests/conftest.py"):  # what pytest or Python might take for their own
        (path.parent / trap).parent.mkdir(exist_ok=True)
        (path.parent / trap).write_text("raise SystemExit")
    (path.parent / "pytest.ini").write_text("[pytest]\naddopts = --collect-only")
    done = pytest_in(ROOT, "tests", "--trip", str(path.parent), "--grades", str(tmp_path / "grades.json"))
    total = sum(check.points for check in test_grade.CHECKS.values() if check.function in test_grade.GRADED)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "sign of r turned round" in done.stdout and f"{total - 1:3} of {total}" in done.stdout
    grades = json.loads((tmp_path / "grades.json").read_text(encoding="utf-8"))
    assert (grades["points"], grades["of"]) == (total - 1, total)
    assert [row["function"] for row in grades["functions"] if not row["passed"]] == ["trip.ranker_rank_loss"]
    row = next(row for row in grades["functions"] if row["function"] == "trip.ranker_rank_loss")
    assert row["equation"] == "Eq. 5a" and [test["passed"] for test in row["tests"]] == [False, True, True]
    assert "input" in row["tests"][0]["message"] and row["tests"][1]["message"] == ""


def test_options_in_the_wrong_order_are_one_line(copy):
    """pytest reads the conftest.py of the first path that it sees: here, the student's."""
    for arguments in (["--trip", str(copy), "tests"], ["--trip", str(copy)]):
        done = pytest_in(ROOT, *arguments)
        assert done.returncode == 4 and "in this order" in done.stderr
        assert done.stderr.strip().count("\n") == 0


def test_a_path_without_a_trip_py_is_one_line(tmp_path):
    done = pytest_in(ROOT, "tests", "--trip", str(tmp_path))
    assert done.returncode == 4 and done.stderr.strip().count("\n") == 0 and str(tmp_path) in done.stderr


def test_the_handout_can_be_worked_with(copy):
    """A student's first command: all tests fail, each says what is to be done."""
    done = pytest_in(copy)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "not done yet: Eq. 2, 5a (K attributes: 7a): score real pairs" in done.stdout and "  0 of " in done.stdout
