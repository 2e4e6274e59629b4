"""The tests that grade: each tries one function of trip.py or data.py on numbers to follow by hand.

    python -m pytest                      the trip.py of this folder
    python -m pytest tests --trip PATH    another one, or that of a folder; --grades FILE writes them as JSON

No check leans on another graded function: the two steps are played by toys, with stand-ins for the losses.
"""

import inspect
import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

EQUATIONS = {"data.pair_labels": "Sec. 3.1", "trip.SwitchNorm.forward": "SwitchNorm",
             "trip.Ranker.each_head": "Eq. 1", "trip.Ranker.discriminate": "D(x)",
             "trip.ranker_rank_loss": "Eq. 5a", "trip.generator_rank_loss": "Eq. 5b",
             "trip.ranker_gan_loss": "Eq. 6a", "trip.generator_gan_loss": "Eq. 6b",
             "trip.cycle_loss": "L_cycle", "trip.gradient_penalty": "L_gp",
             "trip.ranker_step": "ranker's step", "trip.generator_step": "generator's step",
             "trip.cls_target": "Eq. 3", "trip.identity_loss": "identity", "trip.orthogonal_penalty": "L_o"}
# in the order of work, which is that of the notebook; tests/course/handout.py puts the chosen ones here
GRADED = ["data.pair_labels", "trip.Ranker.each_head", "trip.ranker_rank_loss", "trip.generator_rank_loss",
          "trip.SwitchNorm.forward", "trip.Ranker.discriminate", "trip.ranker_gan_loss",
          "trip.generator_gan_loss", "trip.cycle_loss", "trip.gradient_penalty",
          "trip.ranker_step", "trip.generator_step"]
CHECKS = {}  # name: SimpleNamespace(name, function, points, run); names are claims


def grades(function, points=1, name=None, **given):
    """Register a check of that function: check(the submission's module, **given), which raises Wrong."""
    def register(check):
        claim = name or check.__name__

        def run(module):
            try:
                check(module, **given)
            except Wrong as wrong:
                told = f"{EQUATIONS[function]}, {function}: {claim.replace('_', ' ')}"
                raise Wrong(f"{told}\n{wrong}") from None

        CHECKS[claim] = SimpleNamespace(name=claim, function=function, points=points, run=run)
        return check
    return register


def points(function):
    """What that function counts: the points of all its checks."""
    return sum(check.points for check in CHECKS.values() if check.function == function)


class Wrong(Exception):
    """What a check found, in words."""


def text(value):
    """A tensor, a number or a list of them, rounded."""
    if isinstance(value, torch.Tensor):
        value = value.detach().tolist()
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(text, value))}]"
    if isinstance(value, nn.Module):
        return type(value).__name__
    if isinstance(value, dict):
        return ", ".join(f"{name} = {text(number)}" for name, number in value.items())
    return f"{round(value, 4) + 0.0:g}" if isinstance(value, float) else str(value)  # (no -0)


def wrong(case, expected, given, looks=()):
    """Raise Wrong; looks: the mistakes that this looks like."""
    raise Wrong("\n".join([f"  input     {case}", f"  expected  {expected}", f"  given     {given}",
                           *(f"  looks like {look}" for look in looks)]))


def close(a, b):
    a, b = torch.as_tensor(a).detach().double(), torch.as_tensor(b).detach().double()
    return a.shape == b.shape and torch.allclose(a, b, rtol=1e-4, atol=1e-4)


def expect(given, expected, case, looks=None):
    """given must be this tensor (or number, for a scalar); looks: {a mistake: what it would give}."""
    expected = torch.as_tensor(expected)
    if not isinstance(given, torch.Tensor):
        wrong(case, f"a tensor, {text(expected)}", f"{type(given).__name__}: {given!r:.100}",
              ["a missing return"] if given is None else [])
    if not close(given, expected):
        shapes = [f"shape {tuple(u.shape)}: " * (given.shape != expected.shape) for u in (expected, given)]
        wrong(case, shapes[0] + text(expected), f"{shapes[1]}{text(given):.200}",
              [look for look, value in (looks or {}).items() if close(given, value)])


def expect_equal(given, expected, case, looks=None):
    """The same for what is no tensor: a number, or lists of numbers."""
    if given != expected:
        wrong(case, text(expected), text(given),
              [look for look, value in (looks or {}).items() if value == given])


def pictures(*numbers, shape=(3, 4, 4)):
    """A picture of each number, everywhere the same: (B, *shape)."""
    return torch.tensor(numbers).view(-1, 1, 1, 1).expand(-1, *shape).clone()


class Layer(nn.Module):
    """A layer made from a function."""

    def __init__(self, function):
        super().__init__()
        self.forward = function


# ------------------------------------------------------------------------------------------------------------
# Pairs

@grades("data.pair_labels")
def r_is_1_where_y_has_the_attribute_and_x_has_not(data):
    x, y = torch.tensor([[False], [True]]), torch.tensor([[True], [False]])
    expect(data.pair_labels(x, y), [[1.0], [-1.0]], "x_has = [[False], [True]], y_has = [[True], [False]]",
           {"the sign of r turned round": [[-1.0], [1.0]], "r without a sign": [[1.0], [1.0]],
            "0 in place of -1": [[1.0], [0.0]]})


@grades("data.pair_labels")
def r_is_0_where_x_and_y_agree_for_each_attribute_alone(data):
    x, y = torch.tensor([[False, True], [True, True]]), torch.tensor([[False, False], [True, True]])
    expect(data.pair_labels(x, y), [[0.0, -1.0], [0.0, 0.0]],
           "x_has = [[False, True], [True, True]], y_has = [[False, False], [True, True]]",
           {"the sign of r turned round": [[0.0, 1.0], [0.0, 0.0]],
            "-1 in place of 0": [[-1.0, -1.0], [-1.0, -1.0]],
            "1 in place of 0": [[1.0, -1.0], [1.0, 1.0]], "the label of y alone": [[-1.0, -1.0], [1.0, 1.0]]})


# ------------------------------------------------------------------------------------------------------------
# SwitchNorm: two pictures of two channels of two pixels

X = [[[[0.0, 2.0]], [[4.0, 8.0]]], [[[3.0, 3.0]], [[2.0, 10.0]]]]
# by hand, a row for each picture, a column for each channel: of a picture's channel, a picture, a channel
MEANS = {"instance": [[1.0, 6.0], [3.0, 6.0]], "layer": [[3.5, 3.5], [4.5, 4.5]],
         "batch": [[2.0, 6.0], [2.0, 6.0]]}
VARS = {"instance": [[1.0, 4.0], [0.0, 16.0]], "layer": [[8.75, 8.75], [10.25, 10.25]],
        "batch": [[1.5, 10.0], [1.5, 10.0]]}
INNER = {"layer": [[2.5, 2.5], [8.0, 8.0]], "batch": [[0.5, 10.0], [0.5, 10.0]]}  # means of instances' vars


def normalised(mean, var):
    """X, normalised with these (2, 2)."""
    mean, var = (torch.as_tensor(u)[:, :, None, None] for u in (mean, var))
    return (torch.tensor(X) - mean) / (var + 1e-5) ** 0.5


def switch_norm(trip, mean_weights, var_weights, **values):
    layer = trip.SwitchNorm(2, momentum=0.25)
    with torch.no_grad():
        for name, value in dict(mean_weights=mean_weights, var_weights=var_weights, **values).items():
            getattr(layer, name).copy_(torch.as_tensor(value))
    return layer


def only(which):
    """Weights that trust one statistic."""
    return [50.0 * (which == name) for name in MEANS]


def one_statistic(trip, which):
    mean, var = MEANS[which], torch.tensor(VARS[which])
    n = 2 if which == "instance" else 4
    looks = {f"the {other} statistics": normalised(MEANS[other], VARS[other])
             for other in MEANS if other != which}
    looks |= {"the variance with n - 1, which should be with n": normalised(mean, var * n / (n - 1)),
              "a division by the variance, not by its root": normalised(mean, var ** 2),
              "a mean that is not taken off": normalised([[0.0, 0.0], [0.0, 0.0]], var)}
    if which == "instance":
        looks["mean and variance exchanged (torch.var_mean gives the variance first)"] = normalised(var, mean)
    else:
        looks["a variance that lacks what the means differ by"] = normalised(mean, INNER[which])
    expect(switch_norm(trip, only(which), only(which))(torch.tensor(X)), normalised(mean, var),
           f"x = {X}, and weights that trust the {which} statistics only", looks)


for which, of in (("instance", "each_channel_of_each_picture"), ("layer", "each_picture"),
                  ("batch", "each_channel")):
    grades("trip.SwitchNorm.forward", name=f"{which}_statistics_are_of_{of}", which=which)(one_statistic)


@grades("trip.SwitchNorm.forward")
def statistics_are_mixed_by_a_softmax_for_the_means_and_one_for_the_variances(trip):
    # shares 1/2, 1/4, 1/4 of the means, and 1/4, 1/4, 1/2 of the variances
    layer = switch_norm(trip, [math.log(2), 0.0, 0.0], [0.0, 0.0, math.log(2)])
    mean, var = [[1.875, 5.375], [3.125, 5.625]], [[3.1875, 8.1875], [3.3125, 11.5625]]
    other_mean, other_var = [[2.125, 5.375], [2.875, 5.625]], [[3.0625, 6.6875], [2.9375, 13.0625]]
    expect(layer(torch.tensor(X)), normalised(mean, var),
           f"x = {X}, mean_weights = [log 2, 0, 0], var_weights = [0, 0, log 2]",
           {"the means' weights used for the variances, too": normalised(mean, other_var),
            "the variances' weights used for the means, too": normalised(other_mean, var),
            "the two kinds of weights exchanged": normalised(other_mean, other_var),
            "weights without their softmax": normalised([[0.69315, 4.15888], [2.07944, 4.15888]],
                                                        [[1.03972, 6.93147], [1.03972, 6.93147]])})


@grades("trip.SwitchNorm.forward")
def each_channel_has_its_scale_and_shift(trip):
    layer = switch_norm(trip, only("batch"), only("batch"), weight=[2.0, -1.0], bias=[0.5, 3.0])
    plain = normalised(MEANS["batch"], VARS["batch"])
    weight, bias = torch.tensor([2.0, -1.0])[:, None, None], torch.tensor([0.5, 3.0])[:, None, None]
    expect(layer(torch.tensor(X)), weight * plain + bias, f"x = {X}, weight = [2, -1], bias = [0.5, 3]",
           {"the scale left out": plain + bias, "the shift left out": weight * plain,
            "the shift scaled, too": weight * (plain + bias)})


@grades("trip.SwitchNorm.forward")
def in_evaluation_the_running_averages_take_the_place_of_the_batch(trip):
    layer = switch_norm(trip, only("batch"), only("batch"), running_mean=[[1.0, 5.0]],
                        running_var=[[4.0, 9.0]]).eval()
    case = f"x = {X} in evaluation, running_mean = [[1, 5]], running_var = [[4, 9]]"
    expect(layer(torch.tensor(X)), normalised([[1.0, 5.0], [1.0, 5.0]], [[4.0, 9.0], [4.0, 9.0]]), case,
           {"the batch's own statistics, as in training": normalised(MEANS["batch"], VARS["batch"])})
    expect(layer.running_mean, [[1.0, 5.0]], f"{case}; the running mean after it, which should stand still")


@grades("trip.SwitchNorm.forward")
def in_training_the_running_averages_follow_the_batch_by_momentum(trip):
    layer = switch_norm(trip, [0.0] * 3, [0.0] * 3)
    layer(torch.tensor(X, requires_grad=True))
    case = f"x = {X} in training, momentum = 0.25, running_mean = [[0, 0]], running_var = [[1, 1]]"
    for name, before, batch in (("mean", [[0.0, 0.0]], [[2.0, 6.0]]), ("var", [[1.0, 1.0]], [[1.5, 10.0]])):
        given, before, batch = getattr(layer, f"running_{name}"), torch.tensor(before), torch.tensor(batch)
        expect(given, 0.75 * before + 0.25 * batch, f"{case}; running_{name} after it",
               {"momentum as the share of the old": 0.25 * before + 0.75 * batch,
                "an average that is never updated": before, "the batch in place of the average": batch})
        if given.requires_grad:
            wrong(case, "running averages that no gradient runs through",
                  "averages that keep the graph of every batch", ["a missing detach"])


# ------------------------------------------------------------------------------------------------------------
# R's heads: features of two pictures are single numbers

def toy_ranker(trip):
    R = trip.Ranker.__new__(trip.Ranker)  # without its layers
    nn.Module.__init__(R)
    R.features = Layer(lambda x: 100 * x)
    R.rank_heads = nn.ModuleList([Layer(lambda f: 1 + 2 * f.flatten(1) + f.flatten(1) ** 2),
                                  Layer(lambda f: 100 * f.flatten(1))])
    R.gan_head = Layer(lambda f: 5 - f.flatten(1))
    return R


@grades("trip.Ranker.each_head", points=2)
def the_rank_heads_read_the_features_of_y_less_those_of_x(trip):
    fx, fy = pictures(2.0, 1.0, shape=(1, 1, 1)), pictures(4.0, 0.0, shape=(1, 1, 1))
    case = "F(x) = 2 and 1, F(y) = 4 and 0, rank_heads f -> 1 + 2 f + f^2 and f -> 100 f; what "
    said = toy_ranker(trip).each_head(fx, fy)
    expect_equal(len(said), 2, f"{case}each_head gives, its length: one (B, K) for each head")
    expect(said[0], [[9.0], [0.0]], f"{case}the first says",
           {"F(x) - F(y): the sign turned round": [[1.0], [4.0]], "the sum of the features": [[49.0], [4.0]],
            "F(y) alone": [[25.0], [1.0]], "F(x) alone": [[9.0], [4.0]],
            "a difference taken after the head, not before it": [[16.0], [-3.0]],
            "the GAN's head": [[3.0], [6.0]], "no head": [[2.0], [-1.0]]})
    expect(said[1], [[200.0], [-100.0]], f"{case}the second says")


@grades("trip.Ranker.discriminate", points=1)
def the_gan_head_reads_the_features_of_one_picture(trip):
    expect(toy_ranker(trip).discriminate(pictures(1.0, 5.0, shape=(1, 1, 1))), [[4.0], [0.0]],
           "F(x) = 1 and 5, gan_head(f) = 5 - f, rank_heads[0](f) = 1 + 2 f + f^2, F(f) = 100 f",
           {"the rank head": [[4.0], [36.0]], "F once more": [[-95.0], [-495.0]], "no head": [[1.0], [5.0]]})


# ------------------------------------------------------------------------------------------------------------
# Losses: a function, a claim, its points, the inputs, what the loss is by hand, and what mistakes would give

LOSSES = [
    ("ranker_rank_loss", "eq_5a_scores_real_pairs_as_their_label_r", 1,
     dict(real=[[0.5], [-2.0]], r=[[1.0], [-1.0]], fake=[[0.0], [0.0]], lam=0.5),
     (0.25 + 1) / 2,
     {"the sign of r turned round": 5.625, "0 as the target of real pairs": 2.125,
      "1 as the target of all real pairs": 4.625, "a difference that is not squared": 0.75,
      "a sum over the batch where its mean belongs": 1.25,
      "lambda on the wrong term": 0.3125, "r as the target of generated pairs, too": 1.125}),
    ("ranker_rank_loss", "eq_5a_scores_generated_pairs_as_0_with_weight_lambda", 1,
     dict(real=[[0.0], [0.0]], r=[[0.0], [0.0]], fake=[[2.0], [-4.0]], lam=0.3),
     0.3 * (4 + 16) / 2,
     {"lambda left out": 10.0, "lambda on the wrong term": 10.0,
      "1 as the target of generated pairs (it is 0)": 3.9, "a wrong sign of the rival term": -3.0,
      "1 - lambda as its weight": 7.0, "generated pairs left out": 0.0,
      "a sum over the batch where its mean belongs": 6.0, "a number that is not squared": 0.9}),
    ("ranker_rank_loss", "eq_7a_sums_over_the_K_attributes_and_averages_over_the_pairs", 1,
     dict(real=[[1.0, 2.0]], r=[[0.0, 0.0]], fake=[[1.0, 3.0], [0.0, 2.0]], lam=0.1),
     (1 + 4) + 0.1 * (1 + 9 + 0 + 4) / 2,
     {"a mean over the K attributes where their sum belongs": 2.85,
      "a sum over the batch where its mean belongs": 6.4,
      "a mean over the K attributes of the real pairs where their sum belongs": 3.2,
      "a mean over the K attributes of the generated pairs where their sum belongs": 5.35}),
    ("generator_rank_loss", "eq_5b_pulls_generated_pairs_to_v", 1,
     dict(fake=[[0.5], [2.0]], v=[[1.0], [-0.5]]),
     (0.25 + 6.25) / 2,
     {"the sign of v turned round": 2.25, "sign(v) as the target, as in Eq. 3": 4.625,
      "0 as the target, which is the ranker's": 2.125, "a difference that is not squared": 1.5,
      "a sum over the batch where its mean belongs": 6.5}),
    ("generator_rank_loss", "eq_7b_sums_over_the_K_attributes", 1,
     dict(fake=[[1.0, 3.0], [0.5, 0.0]], v=[[0.0, 1.0], [0.5, -1.0]]),
     (1 + 4 + 0 + 1) / 2,
     {"a mean over the K attributes where their sum belongs": 1.5,
      "a sum over the batch where its mean belongs": 6.0}),
    ("ranker_gan_loss", "eq_6a_wants_1_of_real_and_0_of_generated_pictures", 2,
     dict(real=[[0.0], [4.0]], fake=[[1.0], [4.0]]),
     (1 + 9) / 2 + (1 + 16) / 2,
     {"the targets exchanged: 0 for real, 1 for generated": 12.5,
      "-1 as the target of generated pictures": 19.5, "1 as the target of both": 9.5,
      "generated pictures left out": 5.0, "a wrong sign of the generated term": -3.5, "half of it": 6.75,
      "a sum over the batch where its mean belongs": 27.0, "numbers that are not squared": 4.5}),
    ("generator_gan_loss", "eq_6b_wants_1_of_generated_pictures", 1,
     dict(fake=[[0.0], [3.0]]),
     (1 + 4) / 2,
     {"0 as the target, which is the ranker's": 4.5, "-1 as the target": 8.5,
      "a wrong sign: D(x) as large as can be": -1.5, "the difference without its square": 1.5,
      "a sum over the batch where its mean belongs": 5.0}),
    ("cycle_loss", "the_way_back_gives_x_again", 1,
     dict(x=[[[[0.5, -0.25]]], [[[1.0, 0.0]]]], back=[[[[0.0, 0.0]]], [[[1.0, 1.0]]]]),
     (0.5 + 0.25 + 0 + 1) / 4,
     {"the square in place of the absolute value": 1.3125 / 4,
      "a sum where the mean belongs": 1.75, "a sum over the pixels": 0.875,
      "differences that cancel: the absolute value is missing": 0.75 / 4,
      "differences that cancel, the absolute value missing": -0.75 / 4}),
    ("identity_loss", "a_change_counts_by_its_square", 1,
     dict(x=[[[[0.0, 0.25]]], [[[1.0, -0.5]]]], fake=[[[[0.5, 0.25]]], [[[0.0, -0.5]]]]),
     (0.25 + 0 + 1 + 0) / 4,
     {"the absolute value in place of the square": 1.5 / 4, "a sum where the mean belongs": 1.25,
      "a sum over the pixels": 0.625, "the square of the mean: differences cancel": (0.5 / 4) ** 2,
      "the root of it": (1.25 / 4) ** 0.5})]


def loss_by_hand(trip, loss, inputs, expected, looks):
    """The loss, with a gradient to the networks. inputs: {name: a list for a tensor, or a number}."""
    case = ", ".join(f"{name} = {value}" for name, value in inputs.items())
    tensors = {name: torch.tensor(value, requires_grad=True) for name, value in inputs.items()
               if isinstance(value, list)}
    copies = {name: tensor.clone() for name, tensor in tensors.items()}
    given = getattr(trip, loss)(*(inputs | copies).values())
    expect(given, expected, case, looks)
    for name in {"real", "fake", "back"} & set(tensors):
        if not given.requires_grad or torch.autograd.grad(given, tensors[name], retain_graph=True,
                                                          allow_unused=True)[0] is None:
            wrong(case, f"a loss with a gradient by {name}", "one without: no player would learn from it",
                  ["a detach, item() or no_grad that does not belong there"])


for loss, claim, of, inputs, expected, looks in LOSSES:
    grades(f"trip.{loss}", of, claim, loss=loss, inputs=inputs, expected=expected, looks=looks)(loss_by_hand)


# ------------------------------------------------------------------------------------------------------------
# Penalties: a gradient's norm tells where it was taken. Pictures have four pixels, so |z| = 2 |a pixel|.

class Steep(nn.Module):
    """D(z) = p |z|^2 / 2 with the gradient p z; R's rank heads p (|z|^2 + 3 |x|^2) / 2, and twice as much."""

    def __init__(self):
        super().__init__()
        self.p = nn.Parameter(torch.tensor(1.0))
        self.features = Layer(lambda z: z)
        self.seen = {}  # by each head

    def discriminate(self, f):
        self.seen["discriminate"] = f.detach().clone()
        return self.p * (f ** 2).sum((1, 2, 3))[:, None] / 2

    def each_head(self, fx, fz):
        self.seen["each_head"] = fx.detach().clone(), fz.detach().clone()
        first = self.p * (fz ** 2 + 3 * fx ** 2).sum((1, 2, 3))[:, None] / 2
        return [first, 2 * first]

    def rank(self, fx, fz):
        return sum(self.each_head(fx, fz)) / 2

    forward = rank


def pixels(*numbers):
    return pictures(*numbers, shape=(2, 1, 2))


A = torch.tensor([0.25, 0.5]).view(2, 1, 1, 1)


def expect_head(R, head, case):
    if set(R.seen) != {head}:
        wrong(case, f"the gradient of R.{head}", f"calls of {', '.join(R.seen) or 'neither head'}",
              ["the penalty on the wrong head"] if R.seen else [])


def expect_learnable(R, given, by_p, case):
    """The penalty has this gradient by R's factor p."""
    if not (isinstance(given, torch.Tensor) and given.requires_grad):
        wrong(case, "a penalty with a gradient", "one without: it moves no parameter",
              ["create_graph=True left out, or a detach"])
    given.sum().backward()
    expect(torch.zeros(()) if R.p.grad is None else R.p.grad, by_p,
           f"{case}; the gradient of the penalty by a factor p of the network")


def penalty(trip, center):
    """Between 0 and 2 it is taken at 1.5, where the gradient's norm is 3, and at 1, where it is 2."""
    R = Steep()
    given = trip.gradient_penalty(R, pixels(0.0, 0.0), pixels(2.0, 2.0), A, center)
    case = f"D(z) = |z|^2 / 2, x = 0, fake = 2 (four pixels each), a = 0.25 and 0.5, center = {center}"
    expect_head(R, "discriminate", case)
    return R, given, case


@grades("trip.gradient_penalty", points=2)
def the_penalty_is_the_squared_distance_of_the_gradients_norm_from_center(trip):
    for center, expected, looks in (
            (1, 2.5, {"the squared norm, without its root": 36.5, "the distance without its square": 1.5,
                      "center left out": 6.5, "one norm of the whole batch": (13 ** 0.5 - 1) ** 2,
                      "center + the norm": 12.5, "a sum over the batch where its mean belongs": 5.0,
                      "the gradient of D's mean, not of its sum": 0.125}),
            (0, 6.5, {"center 1, whatever is asked for": 2.5, "the norm without its square": 2.5})):
        _, given, case = penalty(trip, center)
        expect(given, expected, case, looks)


@grades("trip.gradient_penalty")
def the_penalty_is_taken_between_the_pictures(trip):
    R, _, case = penalty(trip, 1)
    expect(R.seen["discriminate"], pixels(1.5, 1.0), f"{case}; the pictures z that D was shown",
           {"x and fake exchanged": pixels(0.5, 1.0), "the generated pictures": pixels(2.0, 2.0),
            "the real pictures": pixels(0.0, 0.0)})


@grades("trip.gradient_penalty")
def the_penalty_can_be_learned_from(trip):
    R, given, case = penalty(trip, 1)
    expect_learnable(R, given, 8.0, case)  # the mean of 2 (p n - 1) n for n = 3 and 2


# ------------------------------------------------------------------------------------------------------------
# The steps. A picture is of one number: x = 1, 2, 3, y = 4, 5, 6, fake = 7, 8, 9 (for the ranker). What was
# passed is seen easily: F(x) is the number, R's first head says 10 F(x) + F(y), so that 14 is the pair of 1
# and 4, times w, which is 1; its second head says 100 times as much.

class ToyR(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(1.0))
        self.features = Layer(lambda x: x.mean((1, 2, 3))[:, None])
        self.rank_heads = "two", "heads"

    def each_head(self, fx, fy):
        return [self.w * (10 * fx + fy), self.w * 100 * (10 * fx + fy)]

    def rank(self, fx, fy):  # (not their mean: the numbers stay short)
        return self.each_head(fx, fy)[0] + 1000 * self.w

    def discriminate(self, fx):
        return self.w * fx

    def forward(self, x, y):
        return self.rank(self.features(x), self.features(y))


class ToyG(nn.Module):
    """G(x, v) = g x + v."""

    def __init__(self):
        super().__init__()
        self.g = nn.Parameter(torch.tensor(1.0))

    def forward(self, x, v):
        return self.g * x + v[:, :1, None, None]


RANKER_LOSSES = {"ranker_gan": ("ranker_gan_loss", "lam_g"), "ranker_rank": ("ranker_rank_loss", None),
                 "ranker_gp": ("gradient_penalty", "lam_gp")}
GENERATOR_LOSSES = {"generator_gan": ("generator_gan_loss", "lam_g"),
                    "generator_identity": ("identity_loss", "lam_id"),
                    "generator_flow": (None, "lam_flow"),
                    "generator_paint": ("identity_loss of x_warped", "lam_paint"),
                    "generator_rank": ("generator_rank_loss", None),
                    "generator_cycle": ("cycle_loss", "lam_c"),
                    "generator_orthogonal": ("orthogonal_penalty", "lam_o")}
RANKING = {"ranker_rank", "generator_rank", "generator_cycle"}  # not in the warm-up
SPARED = {"ranker_gp", "generator_cycle", "generator_orthogonal"}  # where their weight is 0
WARPED = [20.0, 30.0]  # the numbers of x_warped: which of two calls of identity_loss is which
FLOW = 3.0  # all of its numbers
WEIGHTS = dict(lam=0.25, lam_g=2.0, lam_gp=5.0, gp_center=0.5, lam_c=7.0, lam_o=11.0,
               lam_id=13.0, lam_flow=17.0, lam_paint=19.0)
SIZE = 32  # of the pictures, says Config


def play(trip, stand_ins, step, ranking, **settings):
    """step(run) with toys for players and stand-ins for losses. Returns run, what step returns, the calls."""
    run = trip.Run(trip.Config(size=SIZE, width=4, shift=False, **WEIGHTS | settings))
    run.warmup = run.step + (not ranking)
    run.G, run.R = ToyG(), ToyR()
    run.opt_g, run.opt_r = (torch.optim.SGD(player.parameters(), lr=0.01) for player in (run.G, run.R))
    calls = {}

    def recorded(name, loss):
        def call(*args, **kwargs):
            given = inspect.signature(loss).bind(*args, **kwargs).arguments
            warped = any(torch.is_tensor(u) and u.flatten(1).mean(1).tolist() == WARPED
                         for u in given.values())
            found = SimpleNamespace(**given, value=loss(**given))
            key = name + " of x_warped" * warped
            calls[f"{key} of the second head" if key in calls else key] = found
            return found.value
        return call

    with pytest.MonkeyPatch.context() as patch:
        for name, loss in stand_ins.items():
            patch.setattr(trip, name, recorded(name, loss))
        return run, step(run), calls


def numbers(*batches):
    """The numbers of batches of pictures, in any order: a loss that is a mean has no first and second."""
    return sorted([round(number, 3) for number in z.mean((1, 2, 3)).tolist()] for z in batches)


def expect_call(calls, name, case):
    if name not in calls:
        wrong(case, f"a call of {name}", f"calls of {', '.join(calls) or 'no loss'}")
    return calls[name]


def expect_names(losses, names, case):
    """losses: what a step returned."""
    if not isinstance(losses, dict) or set(losses) != set(names):
        given = ", ".join(sorted(losses)) if isinstance(losses, dict) else f"{losses!r:.100}"
        wrong(f"{case}; what the step returns", f"a dict of {', '.join(sorted(names))}", given)


def expect_move(parameter, slopes, others, case):
    """parameter was 1, and less 0.01 times the sum of slopes now. others: {a mistake: the slope it loses}."""
    slope = sum(slopes.values())
    lost = {f"{name} left out": part for name, part in slopes.items()} | others
    expect(parameter, 1 - 0.01 * slope, case,
           {look: 1 - 0.01 * (slope - part) for look, part in lost.items()} | {
               "no step": 1.0, "a step up": 1 + 0.01 * slope,
               "gradients of the step before, not set to zero": -0.01 * slope})


def expect_untouched(parameter, name, case):
    """The other player's parameter, which was 1, has neither moved nor got a gradient."""
    if not close(parameter, 1.0):
        wrong(case, f"{name} stays as it is", f"{name}'s parameter went from 1 to {text(parameter)}",
              ["the wrong optimizer"])
    if parameter.grad is not None and parameter.grad.abs().item() > 0:
        wrong(case, f"no gradient in {name}", f"{text(parameter.grad)}",
              ["gradients left in the other player (update() leaves none)"])


def ranker_plays(trip, ranking=True, **settings):
    stand_ins = dict(ranker_gan_loss=lambda real, fake: real.mean() + 2 * fake.mean(),
                     ranker_rank_loss=lambda real, r, fake, lam: real.mean() + fake.mean(),
                     gradient_penalty=lambda R, x, fake, a, center: 4 * R.w)

    def step(run):
        run.R.w.grad = torch.tensor(100.0)  # of a step before
        return trip.ranker_step(run, pictures(1.0, 2.0, 3.0), pictures(4.0, 5.0, 6.0),
                                torch.tensor([[1.0], [0.0], [-1.0]]), pictures(7.0, 8.0, 9.0))

    return (*play(trip, stand_ins, step, ranking, **settings),
            f"x = 1, 2, 3, y = 4, 5, 6, r = 1, 0, -1, fake = 7, 8, 9, run.ranking = {ranking}")


@grades("trip.ranker_step")
def the_ranker_tells_real_from_generated_pictures(trip):
    _, _, calls, case = ranker_plays(trip)
    call = expect_call(calls, "ranker_gan_loss", case)
    x, y, fake = torch.arange(1.0, 10.0).view(3, 3, 1)  # what D says of them
    expect(call.real.sort(0).values, torch.cat([x, y]),
           f"{case}; ranker_gan_loss's real, D(x) and D(y), in any order",
           {"D(x) alone: y is a real picture, too": x, "D(y) alone: x is a real picture, too": y,
            "D(fake)": fake, "generated pictures among the real ones": torch.cat([x, fake])})
    expect(call.fake, fake, f"{case}; ranker_gan_loss's fake, D(fake)", {"D(x)": x, "D(y)": y})


@grades("trip.ranker_step")
def each_head_learns_by_itself_the_second_with_3_lambda(trip):
    _, _, calls, case = ranker_plays(trip)
    first = expect_call(calls, "ranker_rank_loss", case)
    second = expect_call(calls, "ranker_rank_loss of the second head", case)
    case += "; the second head says 100 times what the first says. ranker_rank_loss's second call,"
    for name in ("real", "fake"):
        expect(getattr(second, name), 100 * getattr(first, name), f"{case} {name}",
               {"the first head's once more": getattr(first, name)})
    expect(second.r, first.r, f"{case} r, as in the first")
    expect_equal(second.lam, 3 * WEIGHTS["lam"], f"{case} lam", {"lam itself": WEIGHTS["lam"]})


@grades("trip.ranker_step", points=2)
def the_ranker_learns_r_of_real_pairs_and_0_of_generated_ones(trip):
    _, _, calls, case = ranker_plays(trip)
    call = expect_call(calls, "ranker_rank_loss", case)
    case += ", and R's first head says 10 x + y"
    x, y, fake = torch.arange(1.0, 10.0).view(3, 3, 1)
    expect(call.fake, 10 * x + fake, f"{case}; ranker_rank_loss's fake, R(x, fake)",
           {"R(fake, x): the pair turned round": 10 * fake + x,
            "R(y, fake), which should be R(x, fake)": 10 * y + fake, "the real pairs": 10 * x + y})
    expect_equal(call.lam, WEIGHTS["lam"], f"{case}; lam",
                 {f"{name} in place of lam": weight for name, weight in WEIGHTS.items()})
    expect_equal(call.r.shape, call.real.shape, f"{case}; the shape of ranker_rank_loss's r, and of its real")
    there, back = [(14.0, 1.0), (25.0, 0.0), (36.0, -1.0)], [(41.0, -1.0), (52.0, 0.0), (63.0, 1.0)]
    minus_there, minus_back = ([(real, -r) for real, r in pairs] for pairs in (there, back))
    expect_equal(sorted(set(zip(call.real.flatten().tolist(), call.r.flatten().tolist()))), there,
                 f"{case}; ranker_rank_loss's real, R(x, y), and r, pair by pair",
                 {"the sign of r turned round": minus_there,
                  "the pair turned round, but not its r": minus_back,
                  "R(y, x) to -r in place of R(x, y) to r": back,
                  "real pairs ranked both ways, R(y, x) to -r, too: one way is enough": there + back,
                  "R(y, x) with the label r, too": there + minus_back,
                  "generated pairs in place of real ones": [(17.0, 1.0), (28.0, 0.0), (39.0, -1.0)]})


@grades("trip.ranker_step")
def the_penalty_gets_the_pictures_a_random_a_and_the_center(trip):
    run, _, calls, case = ranker_plays(trip)
    call = expect_call(calls, "gradient_penalty", case)
    case += "; gradient_penalty's"
    expect_equal(call.R, run.R, f"{case} R, run.R")
    expect_equal(numbers(call.x, call.fake), [[1.0, 3.0], [7.0, 9.0]],
                 f"{case} pictures, x and fake, of every second pair, x[::2] and so on",
                 {"all pairs in place of every second one": [[1.0, 2.0, 3.0], [7.0, 8.0, 9.0]],
                  "the second of every two pairs, not the first": [[2.0], [8.0]],
                  "one pair alone": [[1.0], [7.0]]})
    if call.a.shape != (2, 1, 1, 1) or not (0 <= call.a.min() < call.a.max() <= 1):
        wrong(f"{case} a", "(2, 1, 1, 1), uniform in [0, 1], another for each picture",
              f"{tuple(call.a.shape)}: {text(call.a)}")
    expect_equal(call.center, WEIGHTS["gp_center"], f"{case} center, gp_center")


@grades("trip.ranker_step")
def the_rankers_step_moves_the_ranker_down_the_sum_of_its_losses(trip):
    run, losses, _, case = ranker_plays(trip)
    expect_untouched(run.G.g, "G", case)
    expect_names(losses, RANKER_LOSSES, case)
    # each of the stand-ins is w times a number, and w is 1: its slope is what it gives
    slopes = {name: loss.item() for name, loss in losses.items()}
    expect_move(run.R.w, slopes, {},
                f"{case}, losses {text(slopes)}, rate 0.01; the ranker's parameter w, 1 before")


def generator_plays(trip, ranking=True, **settings):
    stand_ins = dict(generator_gan_loss=lambda fake: fake.mean(),
                     generator_rank_loss=lambda fake, v: fake.mean(),
                     identity_loss=lambda x, fake: (x + fake).mean(),
                     cycle_loss=lambda x, back: (x + back).mean(),
                     orthogonal_penalty=lambda net: next(net.parameters()) * 1.0,
                     cls_target=lambda v: 8 * v)

    def step(run):
        run.G.g.grad = torch.tensor(100.0)  # of a step before
        x, v = pictures(1.0, 2.0), torch.tensor([[0.5], [-1.0]])
        fake = run.G(x, v)
        x_warped = pictures(*WARPED) + fake - fake.detach()  # (with its graph, as G makes it)
        flow = FLOW * run.G.g.expand(2, 2, 8, 8)
        return trip.generator_step(run, x, v, fake, x_warped, flow)

    return (*play(trip, stand_ins, step, ranking, **settings),
            f"x = 1 and 2, v = 0.5 and -1, fake = G(x, v) = x + v = 1.5 and 1, flow = {FLOW:g}, "
            f"run.ranking = {ranking}")


@grades("trip.generator_step")
def the_generator_wants_its_pictures_taken_for_real(trip):
    _, _, calls, case = generator_plays(trip)
    expect(expect_call(calls, "generator_gan_loss", case).fake, [[1.5], [1.0]],
           f"{case}; generator_gan_loss's fake, D(fake)", {"D(x)": [[1.0], [2.0]]})


@grades("trip.generator_step")
def the_generator_wants_the_answer_v(trip):
    for cls, target, name in ((False, [[0.5], [-1.0]], "v"),
                              (True, [[4.0], [-8.0]], "cls_target(v), here 8 v")):
        _, _, calls, case = generator_plays(trip, cls=cls)
        call = expect_call(calls, "generator_rank_loss", case)
        expect(call.fake, [[1011.5], [1021.0]],
               f"{case}, and R.rank says 1000 + 10 x + y; generator_rank_loss's fake, R(x, fake)",
               {"R(fake, x): the pair turned round": [[1016.0], [1012.0]],
                "one head alone, where R.rank is meant": [[11.5], [21.0]],
                "one head alone, the second": [[1150.0], [2100.0]]})
        expect(call.v, target, f"{case}, cls = {cls}; generator_rank_loss's v, {name}",
               {"-v as the target": [[-0.5], [1.0]], "v, without heed of cls": [[0.5], [-1.0]],
                "cls_target without cls": [[4.0], [-8.0]], "0, the ranker's target": [[0.0], [0.0]]})


@grades("trip.generator_step")
def the_way_back_is_by_minus_v(trip):
    _, _, calls, case = generator_plays(trip)
    call = expect_call(calls, "cycle_loss", case)
    expect_equal(numbers(call.x, call.back), [[1.0, 2.0], [1.0, 2.0]],
                 f"{case}; cycle_loss's x and back, G(fake, -v)",
                 {"v on the way back, which should be -v": [[1.0, 2.0], [2.0, 0.0]],
                  "no way back": [[1.0, 2.0], [1.5, 1.0]],
                  "the way of -v from x in place of fake": [[0.5, 3.0], [1.0, 2.0]]})


@grades("trip.generator_step")
def little_may_change_and_kernels_are_orthogonal(trip):
    run, _, calls, case = generator_plays(trip)
    call = expect_call(calls, "identity_loss", case)
    expect_equal(numbers(call.x, call.fake), [[1.0, 2.0], [1.5, 1.0]],
                 f"{case}; identity_loss's x and fake",
                 {"the way back in place of fake": [[1.0, 2.0], [1.0, 2.0]]})
    call = expect_call(calls, "identity_loss of x_warped", case)
    expect_equal(numbers(call.x, call.fake), [[1.5, 1.0], WARPED],
                 f"{case}; identity_loss's second call, x_warped = {WARPED} and fake",
                 {"x in place of fake: paint is fake less x_warped": [[1.0, 2.0], WARPED]})
    expect_equal(expect_call(calls, "orthogonal_penalty", case).net, run.G,
                 f"{case}; orthogonal_penalty's net, run.G")


@grades("trip.generator_step", points=2)
def the_generators_step_moves_the_generator_down_the_sum_of_its_losses(trip):
    run, losses, calls, case = generator_plays(trip)
    expect_untouched(run.R.w, "R", case)
    expect_names(losses, GENERATOR_LOSSES, case)
    # the stand-ins' slopes by g: fake goes by x, 1.5 on average, back by fake + g x = 2.5 and 3, so 2.75
    by_g = {"generator_gan": 1.5, "generator_identity": 1.5, "generator_paint": 3.0, "generator_rank": 1.5,
            "generator_cycle": 2.75, "generator_orthogonal": 1.0, "generator_flow": 2 * FLOW ** 2}
    weights = {name: loss.item() / given(calls, GENERATOR_LOSSES[name][0], case)
               for name, loss in losses.items()}
    lost = {"fake detached for both heads of R": 1.5 * (weights["generator_gan"] + weights["generator_rank"]),
            "x_warped detached": 1.5 * weights["generator_paint"],
            "flow detached": 2 * FLOW ** 2 * weights["generator_flow"],
            "fake detached on the way back": 1.5 * weights["generator_cycle"],
            "a way back without a gradient": 1.25 * weights["generator_cycle"]}
    expect_move(run.G.g, {name: weight * by_g[name] for name, weight in weights.items()}, lost,
                f"{case}, losses {text({name: loss.item() for name, loss in losses.items()})}, rate 0.01; "
                f"the generator's parameter g in G(x, v) = g x + v, 1 before")


def given(calls, function, case):
    """What a loss gave without its weight, a mean over the heads; function None: the flow's mean square."""
    if function is None:
        return FLOW ** 2
    expect_call(calls, function, case)
    heads = [calls[call] for call in (function, f"{function} of the second head") if call in calls]
    return sum(head.value.detach() for head in heads).item() / len(heads)


def losses_have_their_weights(trip, plays, parts):
    _, losses, calls, case = plays(trip)
    expect_names(losses, parts, case)
    for name, (function, weight) in parts.items():
        value = given(calls, function, case)
        expect(losses[name], WEIGHTS.get(weight, 1) * value,
               f"{case}; {name}, where {function or 'the mean square'} gave {text(value)} and "
               f"{f'{weight} = {WEIGHTS[weight]:g}' if weight else 'it has no weight'}",
               {f"{other} on the wrong term": WEIGHTS[other] * value for other in WEIGHTS if other != weight}
               | ({f"{weight} left out": value} if weight else {}))


def the_warm_up_has_no_ranking_loss(trip, plays, parts):
    _, losses, _, case = plays(trip, ranking=False)
    expect_names(losses, set(parts) - RANKING, case)


def a_loss_of_weight_0_is_left_out(trip, plays, parts):
    for name, (_, weight) in parts.items():
        if name in SPARED:
            _, losses, _, case = plays(trip, **{weight: 0.0})
            case += f", {weight} = 0, with which {name} only takes time"
            expect_names(losses, set(parts) - {name}, case)


for player, plays, parts in (("ranker", ranker_plays, RANKER_LOSSES),
                             ("generator", generator_plays, GENERATOR_LOSSES)):
    for check in (losses_have_their_weights, the_warm_up_has_no_ranking_loss, a_loss_of_weight_0_is_left_out):
        claim = f"{check.__name__}_in_the_{player}s_step"
        grades(f"trip.{player}_step", 1, claim, plays=plays, parts=parts)(check)


# ------------------------------------------------------------------------------------------------------------
# Not in the default set: python tests/course/handout.py OUT --functions cls_target ...

@grades("trip.cls_target")
def eq_3_gives_the_sign_of_v(trip):
    expect(trip.cls_target(torch.tensor([[-0.2], [0.7]])), [[-1.0], [1.0]], "v = [[-0.2], [0.7]]",
           {"v itself": [[-0.2], [0.7]]})


@grades("trip.orthogonal_penalty")
def the_penalty_is_the_squared_off_diagonal_of_the_kernels_products(trip):
    conv = nn.Conv2d(2, 2, 1)
    with torch.no_grad():
        conv.weight[:] = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).view(2, 2, 1, 1)  # 1 * 3 + 2 * 4 = 11, twice
    expect(trip.orthogonal_penalty(conv), 242.0, "a convolution with the kernels (1, 2) and (3, 4)",
           {"the diagonal counted, too": 892.0, "each product once": 121.0, "the square left out": 22.0})


# ------------------------------------------------------------------------------------------------------------

TESTS = [check for function in GRADED for check in CHECKS.values() if check.function == function]


@pytest.mark.parametrize("check", TESTS, ids=[f"{check.function}-{check.name}" for check in TESTS])
def test_grade(check, wrong_by):
    message = wrong_by(check.name)
    if message:
        pytest.fail(message, pytrace=False)
