"""Part 6: the handout and its grading. The proof that it grades: faults planted one at a time, each found by the tests of its function."""

import ast
import json
import os
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
    ("data.pair_labels", "y_has.float() - x_has.float()", "(y_has.float() - x_has.float()).abs()", "r without a sign"),
    ("data.pair_labels", "y_has.float() - x_has.float()", "2 * y_has.float() - 1", "label of y alone"),
    ("data.pair_labels", "y_has.float() - x_has.float()", "(y_has & ~x_has).float()", "0 in place of -1"),
    ("trip.SwitchNorm.forward", "mean_bn.detach()", "mean_bn", "missing detach"),
    ("trip.SwitchNorm.forward", "var_bn.detach(), self.momentum", "var_bn.detach(), 1 - self.momentum", "share of the old"),
    ("trip.SwitchNorm.forward", " + mean_in.var(0, correction=0, keepdim=True)", "", "lacks what the means differ by"),
    ("trip.SwitchNorm.forward", " + mean_in.var(1, correction=0, keepdim=True)", "", "lacks what the means differ by"),
    ("trip.SwitchNorm.forward", "mean_in.var(0, correction=0", "mean_in.var(0, correction=1", "batch"),
    ("trip.SwitchNorm.forward", "mean_ln = mean_in.mean(1, keepdim=True)", "mean_ln = mean_in.mean(0, keepdim=True)", "layer"),
    ("trip.SwitchNorm.forward", "self.var_weights.softmax(0)", "self.mean_weights.softmax(0)", "means' weights used for the variances"),
    ("trip.SwitchNorm.forward", "self.mean_weights.softmax(0), self.var_weights.softmax(0)", "self.mean_weights, self.var_weights", "softmax"),
    ("trip.SwitchNorm.forward", "if self.training:", "if True:", "as in training"),
    ("trip.SwitchNorm.forward", "self.bias - mean * scale", "self.bias", "not taken off"),
    ("trip.SwitchNorm.forward", ".rsqrt()", ".reciprocal()", "not by its root"),
    ("trip.SwitchNorm.forward", "self.weight * ", "", "scale left out"),
    ("trip.Ranker.rank", "fy - fx", "fx - fy", "sign turned round"),
    ("trip.Ranker.rank", "fy - fx", "fy + fx", "sum of the features"),
    ("trip.Ranker.rank", "self.rank_head(fy - fx)", "(self.rank_head(fy) - self.rank_head(fx))", "after the head"),
    ("trip.Ranker.critic", "gan_head", "rank_head", "the rank head"),
    ("trip.Ranker.critic", "self.gan_head(fx)", "self.gan_head(self.features(fx))", "F once more"),
    ("trip.ranker_rank_loss", "real - r", "real + r", "sign of r"),
    ("trip.ranker_rank_loss", "(real - r)", "real", "0 as the target of real pairs"),
    ("trip.ranker_rank_loss", "((real - r) ** 2).sum(1).mean() + lam *", "lam * ((real - r) ** 2).sum(1).mean() +", "lambda on the wrong term"),
    ("trip.ranker_rank_loss", "((real - r) ** 2).sum(1)", "((real - r) ** 2)", "mean over the K attributes of the real pairs"),
    ("trip.ranker_rank_loss", "(fake ** 2).sum(1)", "(fake ** 2)", "mean over the K attributes of the generated pairs"),
    ("trip.ranker_rank_loss", "fake ** 2", "(fake - 1) ** 2", "1 as the target of generated pairs"),
    ("trip.ranker_rank_loss", "+ lam", "- lam", "wrong sign of the rival term"),
    ("trip.ranker_rank_loss", "(fake ** 2)", "(fake.detach() ** 2)", ""),
    ("trip.generator_rank_loss", "fake - v", "fake + v", "sign of v"),
    ("trip.generator_rank_loss", "fake - v", "fake - v.sign()", "as in Eq. 3"),
    ("trip.generator_rank_loss", "(fake - v)", "fake", "the ranker's"),
    ("trip.generator_rank_loss", ".sum(1)", "", "mean over the K attributes"),
    ("trip.generator_rank_loss", "fake - v", "fake.detach() - v", "detach"),
    ("trip.ranker_gan_loss", "((real - 1) ** 2).mean() + (fake ** 2)", "(real ** 2).mean() + ((fake - 1) ** 2)", "targets exchanged"),
    ("trip.ranker_gan_loss", "+ (fake", "- (fake", "wrong sign"),
    ("trip.ranker_gan_loss", "fake ** 2", "(fake + 1) ** 2", "-1 as the target"),
    ("trip.generator_gan_loss", "(fake - 1)", "fake", "0 as the target"),
    ("trip.generator_gan_loss", ".mean()", ".sum()", "a sum over the batch"),
    ("trip.cycle_loss", "l1(back, x)", "((back - x) ** 2).mean()", "the square"),
    ("trip.cycle_loss", "l1(back, x)", "(back - x).mean()", "cancel"),
    ("trip.gradient_penalty", "R.critic(R.features.forward(z))", "R.rank(R.features(x), R.features(z))", "wrong head"),
    ("trip.gradient_penalty", "create_graph=True", "create_graph=False", "create_graph"),
    ("trip.gradient_penalty", "- center", "- 1", "center 1, whatever is asked for"),
    ("trip.gradient_penalty", "a * x + (1 - a) * fake", "(1 - a) * x + a * fake", "exchanged"),
    ("trip.gradient_penalty", "a * x + (1 - a) * fake", "0 * x + fake", "at the generated pictures"),
    ("trip.gradient_penalty", ".norm(dim=1)", ".pow(2).sum(1)", "squared norm"),
    ("trip.gradient_penalty", "grad.flatten(1).norm(dim=1)", "grad.norm()", "one norm of the whole batch"),
    ("trip.gradient_penalty", "d.sum()", "d.mean()", "D's mean"),
    ("trip.ranker_step", "torch.cat([r, -r])", "torch.cat([r, r])", "which should be -r"),
    ("trip.ranker_step", "torch.cat([r, -r])", "torch.cat([-r, r])", "sign of r"),
    ("trip.ranker_step", "R.rank(fx, ff)", "R.rank(ff, fx)", "pair turned round"),
    ("trip.ranker_step", ", c.lam)", ", c.lam_rank)", "lam_rank in place of lam"),
    ("trip.ranker_step", "R.critic(fx), R.critic(ff)", "R.critic(ff), R.critic(fx)", "D(fake)"),
    ("trip.ranker_step", "c.lam_rank * ", "c.lam * ", "lam on the wrong term"),
    ("trip.ranker_step", "c.lam_gp * ", "c.lam_g * ", "lam_g on the wrong term"),
    ("trip.ranker_step", "c.gp_center", "1", "center"),
    ("trip.ranker_step", "R, x, fake, a", "R, x, y, a", "pictures"),
    ("trip.ranker_step", "if ranking:", "if True:", "ranking = False"),
    ("trip.ranker_step", "update(run.opt_r,", "update(run.opt_g,", ""),
    ("trip.ranker_step", "update(run.opt_r, losses, c.clip)", "sum(losses.values()).backward(); run.opt_r.step()", "not set to zero"),
    ("trip.generator_step", "G(fake, -v)", "G(fake, v)", "which should be -v"),
    ("trip.generator_step", "G(fake, -v)", "G(fake.detach(), -v)", "detached on the way back"),
    ("trip.generator_step", "torch.cat([x, fake])", "torch.cat([x, fake.detach()])", "detached for both heads"),
    ("trip.generator_step", "update(run.opt_g, losses, c.clip)",
     "run.opt_g.zero_grad(); sum(losses.values()).backward(); run.opt_g.step()", "gradients left in the other player"),
    ("trip.generator_step", "R.rank(fx, ff)", "R.rank(ff, fx)", "pair turned round"),
    ("trip.generator_step", "cls_target(v) if c.cls else v", "v", "without heed of cls"),
    ("trip.generator_step", "cls_target(v) if c.cls else v", "-v", "-v as the target"),
    ("trip.generator_step", "R.critic(ff)", "R.critic(fx)", "D(x)"),
    ("trip.generator_step", "c.lam_c * ", "c.lam * ", "lam on the wrong term"),
    ("trip.generator_step", "c.lam_rank * ", "", "lam_rank left out"),
    ("trip.generator_step", "orthogonal_penalty(G)", "orthogonal_penalty(R)", "run.G"),
    ("trip.generator_step", "if ranking:", "if True:", "ranking = False"),
]


def body_of(text, name):
    """The lines of a function, without its docstring."""
    node = handout.functions(text)[name]
    first = node.body[ast.get_docstring(node) is not None]
    return "".join(text.splitlines(keepends=True)[first.lineno - 1:node.end_lineno])


def submit(folder, *replacements):
    """A folder with trip.py and data.py, in which (function, old, new) are replaced. Returns the path of trip.py."""
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

    def grade(path, limit=grader.CHECK):
        found = {name: judge.check(path, name, limit) for name in test_grade.CHECKS}
        return {name: wrong for name, wrong in found.items() if wrong}

    yield grade
    judge.stop()


def failed(wrong):
    """The functions of the checks that found something wrong."""
    return {test_grade.CHECKS[name].function for name in wrong}


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
    assert len(FAULTS) >= 40 and len(missed) <= 0.05 * len(FAULTS), missed
    assert {fault[0] for fault in FAULTS} == set(test_grade.GRADED)
    assert not untold, untold
