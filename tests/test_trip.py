"""Drawn faces, pairs, and trip.py. Each test's name is a claim; together they are the specification."""

import ast
import copy
import csv
import errno
import functools
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import traceback
import types
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

with suppress(ImportError):  # (Windows has none)
    import fcntl
    import termios

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

HERE = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(HERE))

import data  # noqa: E402
import eval  # noqa: E402
import trip  # noqa: E402

FILES = {"trip.pt", "history.csv", "ranker.png", "samples.png", "summary.json", "dial.html",
         "dial.gif"}
TINY = "--size 32 --width 4 --batch 4 --warmup 0.25".split()


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def numbers(*shape):
    return torch.randn(*shape, generator=rng())


def column(*values):
    """A number for each picture of a batch, (B, 1)."""
    return torch.tensor(values)[:, None]


def tensors(state):
    """Every tensor in a nested state, in order."""
    if isinstance(state, torch.Tensor):
        return [state]
    if isinstance(state, dict):
        state = list(state.values())
    return sum(map(tensors, state), []) if isinstance(state, (list, tuple)) else []


def same(a, b):
    a, b = tensors(a), tensors(b)
    return len(a) == len(b) and all(map(torch.equal, a, b))


@pytest.fixture(scope="module", autouse=True)
def few_drawn_once():
    """All runs here share 2,000 faces."""
    def few(attrs, size, root, seed):
        return data.split(data.faces(attrs, size, seed, n=2000), seed)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(data.DATASETS, "faces", (functools.cache(few), ""))
        yield


@pytest.fixture(scope="module")
def smiles(few_drawn_once):
    return data.load("faces", ["smile"], 32)


def train(out, *options):
    """Type the training of a tiny run: the exit code."""
    return trip.main([*TINY, "--steps", "8", "--out", str(out), *options])


@pytest.fixture(scope="module")
def trained(tmp_path_factory, few_drawn_once):
    """A folder with a tiny finished run, not to be changed."""
    out = tmp_path_factory.mktemp("trained") / "smile"
    assert train(out) == 0
    return out


@pytest.fixture
def no_report(monkeypatch):
    """Nothing is drawn, which takes longer than to train a tiny run."""
    monkeypatch.setattr(eval, "report", lambda *_: None)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def one_line(capsys):
    """What was said of a mistake, which is one line."""
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "Traceback" not in said, said
    return said


def tiny_run(**settings):
    small = dict(size=32, width=4, batch=4, lam_g=2.0, lam_gp=4.0)  # (with D)
    return trip.Run(trip.Config(**small | settings))


def trained_run(run, parts):
    """The run after all its iterations, and the records of these."""
    c = run.config
    stream = data.pairs(parts[0], c.batch, run.rng)
    return run, list(eval.fit(run, trip.train(run, stream), parts[1]))


def steps(run, players="RG"):
    """The losses of an iteration, or of one player's step: {name: number}."""
    x, y = (numbers(2, 4, 3, 32, 32) / 3).tanh()
    v = column(-1.0, -0.4, 0.3, 1.0)
    (fake, *parts), losses = run.G(x, v, parts=True), {}
    if "R" in players:
        losses |= trip.ranker_step(run, x, y, v.sign(), fake.detach())
    if "G" in players:
        losses |= trip.generator_step(run, x, v, fake, *parts)
    return {name: loss.item() for name, loss in losses.items()}


# ------------------------------------------------------------------------------------------------------------
# The losses, by hand

def half_square(z):
    """|z|^2 / 2 of each picture, (B, 1), whose gradient is z."""
    return (z ** 2).sum((1, 2, 3))[:, None] / 2


def kernels():
    """A convolution whose two filters' product is 11, and a transposed one, where it is 30."""
    net = nn.Sequential(nn.Conv2d(2, 2, 1), nn.ConvTranspose2d(1, 2, 1))
    net[0].weight.data = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).view(2, 2, 1, 1)
    net[1].weight.data = torch.tensor([[5.0, 6.0]]).view(1, 2, 1, 1)
    return net


REAL, R, FAKE = column(0.5, -2.0), column(1.0, -1.0), column(2.0, -1.0)
BLACK, D = torch.zeros(2, 3, 4, 4), SimpleNamespace(features=nn.Identity(), discriminate=half_square)
ZERO = torch.zeros(2, 1, 2, 2)
A = column(0.25, 1.0)[:, :, None, None]  # between 2 and 0 this is 1.5 everywhere, a norm of 3, and 0


@pytest.mark.parametrize("loss, inputs, by_hand", [
    # Eq. 5a: real pairs are scored as r, generated ones as 0, or, with lambda 0, not at all
    ("ranker_rank_loss", (REAL, R, FAKE, 0.5), (0.25 + 1) / 2 + 0.5 * (4 + 1) / 2),
    ("ranker_rank_loss", (REAL, R, FAKE, 0), (0.25 + 1) / 2),
    # Eq. 5b: the ranker should say v of generated pairs, or, by Eq. 3, the sign of v
    ("generator_rank_loss", (column(0.5, 0.0), column(1.0, -0.5)), (0.25 + 0.25) / 2),
    ("cls_target", (column(-0.2, 0.7),), [[-1.0], [1.0]]),
    # Eq. 7: summed over the attributes
    ("ranker_rank_loss", (column(0.0, 2.0).T, column(1.0, 1.0).T, column(1.0, 3.0).T, 0.1),
     1 + 1 + 0.1 * (1 + 9)),
    ("generator_rank_loss", (column(1.0, 3.0).T, column(0.0, 1.0).T), 1.0 + 4),
    # Eq. 6a: D says 1 of real and 0 of generated; 6b: G wants 1
    ("ranker_gan_loss", (column(0.0, 3.0), column(1.0, 2.0)), (1 + 4) / 2 + (1 + 4) / 2),
    ("generator_gan_loss", (column(0.0, 3.0),), (1 + 4) / 2),
    # the mean absolute difference, and the mean squared one
    ("cycle_loss", (BLACK, BLACK - column(0.5, 0.0)[:, :, None, None]), 0.25),
    ("identity_loss", (BLACK, BLACK + column(0.5, -1.0)[:, :, None, None]), (0.25 + 1) / 2),
    # 0, 4, 8, 12 down a picture of 4 rows: a fourth of these 4 in a sixteenth of the picture
    ("flow_loss", (4 * torch.arange(4.0).view(4, 1).expand(1, 2, 4, 4),), (0 + 16 + 64 + 144) / 4 + 1),
    # the gradient's norm should be center
    ("gradient_penalty", (D, ZERO, ZERO + 2, A, 1), ((3 - 1) ** 2 + 1) / 2),
    ("gradient_penalty", (D, ZERO, ZERO + 2, A, 0), 3 ** 2 / 2),
    # each product of two filters stands twice off the diagonal
    ("orthogonal_penalty", (kernels(),), 2.0 * 11 ** 2 + 2 * 30 ** 2),
])
def test_a_loss_is_what_its_equation_says(loss, inputs, by_hand):
    torch.testing.assert_close(getattr(trip, loss)(*inputs), torch.tensor(by_hand))


# ------------------------------------------------------------------------------------------------------------
# The networks, against Tables 3 and 4

def shapes(net, forward):
    """The output shapes of all convolutions, in order, without computing anything."""
    found, kinds = [], (nn.Conv2d, nn.ConvTranspose2d)
    for layer in (layer for layer in net.modules() if isinstance(layer, kinds)):
        layer.register_forward_hook(lambda _, __, out: found.append(tuple(out.shape[1:])))
    forward(net)
    return found


def conv(c_in, c_out, kernel):
    return c_in * c_out * kernel ** 2 + c_out


def norm(c):  # a scale and a shift per channel, 3 + 3 weights
    return 2 * c + 6


@pytest.mark.parametrize("K", [1, 2])
def test_the_papers_generator_is_table_3(K):
    with torch.device("meta"):
        G = trip.PaperGenerator(K).eval()
        found = shapes(G, lambda G: G(torch.empty(1, 3, 256, 256), torch.empty(1, K)))
    assert found == ([(64, 256, 256), (128, 128, 128), (256, 64, 64)] + 12 * [(256, 64, 64)]
                     + [(128, 128, 128), (64, 256, 256), (3, 256, 256)])
    assert sum(p.numel() for p in G.parameters()) == (
        conv(3 + K, 64, 7) + norm(64) + conv(64, 128, 4) + norm(128) + conv(128, 256, 4) + norm(256)
        + 12 * (conv(256, 256, 3) + norm(256))
        + conv(256, 128, 4) + norm(128) + conv(128, 64, 4) + norm(64) + conv(64, 3, 7))


@pytest.mark.parametrize("K", [1, 2])
def test_the_papers_ranker_is_table_4(K):
    with torch.device("meta"):
        R = trip.Ranker(K, head="paper")
        found = shapes(R, lambda R: R.discriminate(R.features(torch.empty(1, 3, 256, 256))))
    filters = [64, 128, 256, 512, 1024, 2048]
    assert found == [(c, 256 >> i, 256 >> i) for i, c in enumerate(filters, 1)]
    stack = sum(conv(a, b, 4) for a, b in zip([3, *filters], filters))
    count = sum(p.numel() for p in R.parameters())
    assert count == stack + conv(2048, 2048, 1) + (16 * 2048 * K + K) + (16 * 2048 + 1)


def test_the_score_head_is_a_difference_of_scores_and_the_pair_head_is_none():
    x, y, z = numbers(3, 3, 3, 32, 32)
    for head in ("score", "pair", "both"):
        R = trip.Ranker(2, 4, 32, head)
        for layer in R.rank_heads[-1]:  # (its first biases are 0: so it is linear, made odd)
            if isinstance(layer, torch.nn.Conv2d):
                torch.nn.init.normal_(layer.bias)
        assert not R(x, x).any() and R(x, y).abs().min() > 0
        assert torch.allclose(R(x, y), -R(y, x), atol=1e-5)
        assert torch.allclose(R(x, y) + R(y, z), R(x, z), atol=1e-4) == (head == "score")
    assert torch.allclose(R(x, y), torch.stack(R.each_head(R.features(x), R.features(y))).mean(0), atol=1e-6)


@pytest.mark.parametrize("kind", [trip.Generator, trip.PaperGenerator])
def test_generator_gives_pixels_in_minus_1_to_1_and_heeds_v(kind):
    G = kind(2, 4, 32)
    x = numbers(2, 3, 32, 32)
    y, z = (G(x, torch.tensor([[1.0, second], [0.0, 1.0]])) for second in (0.0, 0.5))
    assert y.shape == x.shape and y.abs().max() <= 1
    assert not torch.allclose(y[0], z[0])


def test_a_picture_is_moved_by_its_flow():
    x, pixel = numbers(2, 3, 32, 32), 2 / 31  # from one pixel's middle to the next one's

    def warped(right, down):
        flow = pixel * torch.tensor([right, down]).view(1, 2, 1, 1).expand(2, -1, 32, 32)
        return trip.warp(x, flow)

    close = functools.partial(torch.allclose, atol=1e-4)
    assert close(warped(0.0, 0.0), x)
    right = warped(3.0, 0.0)
    assert close(right[..., :29], x[..., 3:])  # what was to the right
    assert close(right[..., 29:], x[..., 31:].expand(-1, -1, -1, 3))  # beyond the edge, the edge
    assert close(warped(0.0, -2.0)[:, :, 2:], x[:, :, :30])  # what was above
    assert close(warped(0.0, 0.25)[:, :, :31], 0.75 * x[:, :, :31] + 0.25 * x[:, :, 1:])


@pytest.mark.parametrize("grey", [False, True])
def test_the_generator_moves_and_paints_by_v_and_both_may_themselves_depend_on_v(grey):
    G = trip.Generator(2, 4, 32, grey)
    x = numbers(3, 3, 32, 32).tanh() / 2

    def rows(*v):
        return torch.tensor([v]).expand(3, 2)

    def changes_alike():
        one, half = G.changes(x, rows(1.0, 0.0)), G.changes(x, rows(0.5, 0.0))
        return [torch.allclose(a, b, atol=1e-6) for a, b in zip(one, half)]

    assert torch.allclose(G(x, rows(0.0, 0.0)), x, atol=1e-4) and changes_alike() == [False, False]
    G.first.weight.data[:, 3:] = 0  # cut off from v, the layers draw one change, which v scales
    assert changes_alike() == [True, True]
    v = rows(0.5, -0.25)
    picture, x_warped, its_flow = G(x, v, parts=True)
    flow, paint = (0.5 * change[:, 0] - 0.25 * change[:, 1] for change in G.changes(x, v))
    assert its_flow.shape == (3, 2, 16, 16) and torch.equal(picture, G(x, v))
    assert torch.allclose(its_flow, flow, atol=1e-6)
    assert paint.shape == (3, 1 if grey else 3, 32, 32)
    flow = nn.functional.interpolate(0.1 * flow, (32, 32), mode="bicubic")
    assert torch.allclose(x_warped, trip.warp(x, flow), atol=1e-5)
    assert torch.allclose(picture, (x_warped + paint).clamp(-1, 1), atol=1e-5)


@pytest.fixture(scope="module")
def strong_G():
    """A generator of 32 px and two attributes whose changes can be seen."""
    G = trip.Generator(2, 4, 32)
    G.flow.weight.data *= 100
    G.paint.weight.data *= 30
    return G


@pytest.mark.parametrize("h, w", [(32, 64), (64, 64), (37, 91), (20, 20)])
def test_G_takes_pictures_of_any_size(strong_G, h, w):
    x, v = numbers(2, 3, h, w).tanh().requires_grad_(), torch.tensor([[1.0, 0.0], [-0.4, 0.8]])
    y = strong_G(x, v)
    assert y.shape == x.shape and y.abs().max() <= 1
    assert torch.allclose(strong_G(x, 0 * v), x, atol=1e-4)  # also at the edges, where bicubic overshoots
    gradient, = torch.autograd.grad(((y - x) ** 2).sum(), x)
    assert gradient.isfinite().all() and gradient.any()


def test_a_picture_enlarged_edited_and_shrunk_again_is_the_small_one_edited(strong_G, smiles):
    small, v = data.as_float(smiles[1].images[:4]), torch.tensor([[1.0, -0.5]]).expand(4, -1)
    large = nn.functional.interpolate(small, (128, 128), mode="bicubic").clamp(-1, 1)
    edited = strong_G(small, v)
    back = nn.functional.interpolate(strong_G(large, v), (32, 32), mode="area")
    assert (back - edited).abs().mean() < (edited - small).abs().mean() / 2


def test_the_papers_generator_says_that_it_draws_one_size():
    with pytest.raises(data.InputError, match="draws 32 x 32 pixels, not 40 x 32"):
        trip.PaperGenerator(1, 4, 32)(numbers(1, 3, 32, 40), torch.ones(1, 1))


def test_G_starts_near_the_identity_and_soon_moves(smiles):
    run, v = trip.Run(trip.Config(size=32, steps=300)), [-1.0, 1.0]
    x = data.as_float(smiles[1].images[:64])
    first = eval.translate(run.G, x, v)
    for _, _ in zip(range(30), trip.train(run, data.pairs(smiles[0], 8, run.rng))):
        pass
    way = (eval.translate(run.G, x, v) - first).abs().mean()
    assert 0 < (first - x[:, None]).abs().mean() < 2e-2 and way > 5e-3, way


def switch_norm(x, layer, running=None):
    """Luo et al. 2019, Eq. 2 to 5, each statistic of all its numbers. running: (mean, var), in evaluation."""
    over = (2, 3), (1, 2, 3), (0, 2, 3)  # instance, layer, batch
    means = [x.mean(axes, keepdim=True) for axes in over]
    variances = [x.var(axes, correction=0, keepdim=True) for axes in over]
    if running:
        means[2], variances[2] = (u[:, None, None] for u in running)
    m, w = layer.mean_weights.softmax(0), layer.var_weights.softmax(0)
    mean, var = (sum(map(torch.mul, *both)) for both in ((m, means), (w, variances)))
    weight, bias = layer.weight[:, None, None], layer.bias[:, None, None]
    return weight * (x - mean) / (var + layer.eps).sqrt() + bias


def test_switch_norm_is_the_weighted_mix_of_instance_layer_and_batch_norm_in_evaluation_by_averages():
    layer, x = trip.SwitchNorm(3, momentum=0.5), 3 * numbers(4, 3, 5, 6) + 1
    for p in layer.parameters():
        p.data = numbers(*p.shape)
    assert torch.allclose(layer(x), switch_norm(x, layer), atol=1e-4)
    running = 0.5 * x.mean((0, 2, 3)), 0.5 + 0.5 * x.var((0, 2, 3), correction=0)
    layer.eval()
    assert torch.allclose(layer(x), switch_norm(x, layer, running), atol=1e-4)
    assert torch.allclose(layer(x[:1]), layer(x)[:1], atol=1e-5)  # a picture alone comes out as in a batch


def test_switch_norm_takes_its_statistics_in_float32_where_the_networks_compute_in_bf16():
    layer = trip.SwitchNorm(3, momentum=1.0)
    x = (numbers(4, 3, 16, 16) + 20).bfloat16()  # far from 0: squared in bf16, the variance would be lost
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    exact = x.double()
    assert y.dtype == torch.bfloat16
    assert torch.allclose(layer.running_mean[0].double(), exact.mean((0, 2, 3)), rtol=1e-5)
    assert torch.allclose(layer.running_var[0].double(), exact.var((0, 2, 3), correction=0), rtol=1e-4)
    assert (y.float() - trip.SwitchNorm(3)(x.float())).abs().mean() < 0.06  # bf16 knows 20 to 0.06


# ------------------------------------------------------------------------------------------------------------
# The two players

@pytest.mark.parametrize("player, other", ["RG", "GR"])
def test_a_step_moves_its_player_and_nothing_else(player, other):
    run = tiny_run()
    before = {name: copy.deepcopy(list(getattr(run, name).parameters())) for name in "RG"}
    steps(run, player)
    moved = {name: [not torch.equal(a, b) for a, b in zip(before[name], getattr(run, name).parameters())]
             for name in "RG"}
    assert all(moved[player]) and not any(moved[other])
    assert all(p.grad is None for p in getattr(run, other).parameters())


def test_R_sees_the_pictures_of_a_batch_moved_together_by_up_to_a_20th_of_their_size(monkeypatch):
    run, x = tiny_run(size=64), numbers(4, 3, 64, 64)
    seen = [trip.augmented(run, x) for _ in range(300)]
    moves = {(dx, dy) for y in seen for dx in range(-3, 4) for dy in range(-3, 4)
             if torch.equal(y[:, :, 3:-3, 3:-3], x[:, :, 3 + dy:61 + dy, 3 + dx:61 + dx])}
    assert len(moves) == 49 and all(y.shape == x.shape for y in seen)
    assert torch.equal(trip.augmented(tiny_run(shift=False), x), x)
    run, shown, augmented = tiny_run(lam_gp=0.0), [], trip.augmented
    monkeypatch.setattr(trip, "augmented", lambda run, x: shown.append(augmented(run, x)) or shown[-1])
    looks = []
    run.R.features.register_forward_pre_hook(lambda _, inputs: looks.append(inputs[0]))
    steps(run)  # the ranker's x, y and fake are one batch; the generator's x and fake are another
    assert [len(z) for z in shown] == [12, 8]
    assert torch.equal(looks[0], shown[0]) and torch.equal(torch.cat(looks[1:]), shown[1])


@pytest.mark.parametrize("settings, passes", [({}, 1), (dict(lam_c=1.0), 2)])
def test_an_iteration_goes_thrice_through_F_and_once_through_G_but_for_the_cycle(smiles, settings, passes):
    run, calls = tiny_run(lam_gp=0.0, **settings), []
    run.G.register_forward_hook(lambda *_: calls.append("G"))
    run.R.features.register_forward_hook(lambda *_: calls.append("F"))
    next(trip.train(run, data.pairs(smiles[0], 4, run.rng)))
    assert sorted(calls) == ["F", "F", "F"] + passes * ["G"]


def test_the_rates_are_constant_and_then_fall_to_0(smiles):
    run, rates = tiny_run(steps=10, lr_decay_start=0.2), []
    for _ in trip.train(run, data.pairs(smiles[0], 4, run.rng)):
        rates.append([run.opt_g.param_groups[0]["lr"] / 7e-4, run.opt_r.param_groups[0]["lr"] / 1.2e-3])
    for player in zip(*rates):
        assert player == pytest.approx([1, 1, 1, *(i / 8 for i in range(7, 0, -1))])


def test_lambda_0_and_cls_change_what_they_say():
    trips, zero, cls = (steps(tiny_run(**settings)) for settings in ({}, {"lam": 0.0}, {"cls": True}))
    assert zero["ranker_rank"] < trips["ranker_rank"] == cls["ranker_rank"]
    assert cls["generator_rank"] != trips["generator_rank"]


# ------------------------------------------------------------------------------------------------------------
# Drawn faces

def test_faces_are_the_same_on_every_machine_and_differ_with_the_seed():
    images = data.faces(("smile",), 64, seed=0, n=200).images
    assert images.dtype == torch.uint8 and images.shape == (200, 3, 64, 64)
    digest = hashlib.sha256(images.numpy().tobytes()).hexdigest()
    assert digest == "7eccc2b681a2151d80378bc1775bc21c731e436b346db26899276bc61f4b980d"
    assert not torch.equal(data.faces(("smile",), 64, seed=1, n=200).images, images)


def sweep(attr, size):
    """20 faces with five strengths, no beard and closed mouths: float (5, 20, 3, size, size)."""
    some = data.faces((attr,), size, seed=3, n=20)
    for name in {"beard", "mouth_open"} - {attr}:
        some.person[:, data.FACE_ATTRS.index(name)] = 0
    return torch.stack([data.redraw(some, torch.full((20, 1), s)).float() for s in np.linspace(0, 1, 5)])


@pytest.mark.parametrize("attr", data.FACE_ATTRS)
def test_a_picture_moves_further_the_more_a_strength_moves(attr):
    pictures = sweep(attr, 64)
    distances = (pictures - pictures[0]).abs().flatten(2).mean(2)  # (5, 20)
    assert (distances.diff(dim=0) > 0).all()


def test_more_smile_strength_bends_the_mouth_further_up():
    """Where lips go, redness comes, and where they were it goes: its rows tell which way. y is down."""
    red = sweep("smile", 128).diff(dim=0)
    rows = ((red[:, :, 0] - red[:, :, 1]) * torch.arange(128.0)[:, None]).sum(2).mean(1)  # (4, 128)
    middle, corners = rows[:, 60:68].mean(1), rows[:, [*range(48, 52), *range(76, 80)]].mean(1)
    assert (middle > 0).all() and (corners < 0).all(), (middle, corners)


def test_region_holds_all_that_an_attribute_can_change_and_little_else():
    some = data.faces(data.FACE_ATTRS, 32, n=20)
    assert torch.equal(data.redraw(some, some.strength), some.images)
    for k in range(4):
        strength = some.strength.clone()
        changed = torch.zeros(20, 1, 32, 32, dtype=torch.bool)
        for s in (0.0, 0.3, 0.7, 1.0):
            strength[:, k] = s
            changed |= (data.redraw(some, strength) != some.images).any(1, keepdim=True)
        region = data.region(some, k)
        assert region.shape == (20, 1, 32, 32) and region.dtype == torch.bool
        assert not (changed & ~region).any() and 0 < region.float().mean() < 0.4
    assert not (data.region(some, 0) & data.region(some, 2)).any()  # a mouth doesn't touch the brows


def test_10000_faces_are_split_90_to_10_without_overlap_and_their_strengths_are_independent(monkeypatch):
    monkeypatch.setattr(data, "draw_faces", lambda person, size: torch.zeros(len(person), 3, 1, 1))
    parts = data.drawn(data.FACE_ATTRS, 32, "", 0)
    assert list(map(len, parts)) == [9000, 1000]
    person = np.concatenate([part.person for part in parts])
    assert len({row.tobytes() for row in person}) == 10000
    assert np.array_equal(data.drawn(data.FACE_ATTRS, 32, "", 0)[1].person, parts[1].person)
    assert all(torch.equal(part.labels, part.strength > 0.5) for part in parts)
    correlation = np.corrcoef(person.T)  # of attributes and traits, all against all
    assert np.abs(correlation - np.eye(len(correlation))).max() < 0.07  # 7 standard errors


# ------------------------------------------------------------------------------------------------------------
# Pairs

def coded(labels):
    """A data set whose pictures say their own row number."""
    labels = torch.as_tensor(labels)
    rows = torch.arange(len(labels), dtype=torch.uint8)
    return data.Data(rows.view(-1, 1, 1, 1).expand(-1, 3, 4, 4), labels, tuple("ab"[:labels.shape[1]]))


def first(share, n=40):
    """Labels that the first ones of n pictures have."""
    return torch.arange(n)[:, None] < n * share


def draw(labels, n=200, batch=16, **options):
    """n batches of pairs as rows i, j and r, (n, batch, ...)."""
    def rows(x):
        return ((x[:, 0, 0, 0] + 1) * 127.5).round().long()

    stream = data.pairs(coded(labels), batch, rng(), **options)
    batches = [(rows(x), rows(y), r) for _, (x, y, r) in zip(range(n), stream)]
    return map(torch.stack, zip(*batches))


def test_r_is_the_sign_of_the_difference_of_the_labels():
    labels = torch.tensor([[1, 0], [0, 0], [1, 1], [0, 1], [0, 0]]).bool()
    i, j, r = draw(labels)
    assert torch.equal(r, labels[j].float() - labels[i].float())
    x, y, r = next(data.pairs(coded(labels), 16, rng()))
    assert x.shape == y.shape == (16, 3, 4, 4) and x.dtype == r.dtype == torch.float32
    assert x.min() >= -1 and x.max() <= 1


@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
def test_half_of_the_pairs_are_plus_1_however_rare_the_attribute_and_every_picture_takes_part(share):
    i, j, r = draw(first(share, 200), n=400)
    assert set(r.flatten().tolist()) == {-1.0, 1.0}
    assert not r.sum(1).any()  # in every batch of even size
    assert set(i.flatten().tolist()) == set(j.flatten().tolist()) == set(range(200))


def test_every_second_pair_is_of_both_classes():
    """The penalties take these: they shall see pictures with the attribute and without in each iteration."""
    _, _, r = draw(first(0.25), n=50, batch=8)
    assert all(set(batch.flatten().tolist()) == {-1.0, 1.0} for batch in r[:, ::2])
    assert set(r[:, 0].flatten().tolist()) == {-1.0, 1.0}  # now the one half first, now the other


def test_pairs_of_several_attributes_differ_in_one_at_least_and_are_balanced():
    labels = torch.from_numpy(np.random.RandomState(0).random_sample((200, 2)) < [0.1, 0.6])
    _, _, r = draw(labels, n=1000)
    assert (r != 0).any(2).all()
    plus, minus = ((r == sign).float().mean((0, 1)) for sign in (1, -1))
    assert (plus - minus).abs().max() < 0.02 and plus.min() > 0.2


def test_pictures_come_mirrored_half_of_the_time():
    left = torch.zeros(20, 3, 4, 4, dtype=torch.uint8)
    left[..., 0] = 255
    x, y, _ = next(data.pairs(data.Data(left, first(0.5, 20), ("a",)), 1000, rng()))
    white = torch.cat([x, y])[:, 0, 0] == 1  # the columns of the first row
    assert white[:, 3].float().mean().item() == pytest.approx(0.5, abs=0.05)
    assert torch.equal(white[:, 0], ~white[:, 3])


def test_pictures_of_any_mode_and_orientation_are_read_upright(tmp_path):
    half = np.zeros((40, 60, 3), np.uint8)
    half[:, :30] = 255, 0, 0  # red on the left
    half = Image.fromarray(half)
    exif = half.getexif()
    exif[0x0112] = 6  # turn it back: the camera was held on its side
    half.rotate(90, expand=True).save(tmp_path / "turned.png", exif=exif)
    clear, names = half.copy(), ("rgb.png", "grey.png", "palette.gif", "clear.png")
    clear.putalpha(0)
    for name, picture in zip(names, (half, half.convert("L"), half.convert("P"), clear)):
        picture.save(tmp_path / name)
    upright, grey, palette, clear, turned = (
        data.read_picture(tmp_path / name, 32).int() for name in (*names, "turned.png"))
    assert upright.shape == (3, 32, 32)
    assert upright[:, 16, 4].tolist() == [255, 0, 0] and upright[:, 16, 28].tolist() == [0, 0, 0]
    assert (turned - upright).abs().max() < 3 and (palette - upright).abs().max() < 3
    assert (grey == 76 * (upright[:1] == 255)).float().mean() > 0.9 and (clear == 255).all()  # white behind


# ------------------------------------------------------------------------------------------------------------
# A run, its files, and what can go wrong with them

def test_a_run_writes_its_files(trained):
    assert set(contents(trained)) == FILES
    rows = list(csv.DictReader(open(trained / "history.csv")))
    assert [row["step"] for row in rows] == list("12345678")
    measured = {*eval.OUTPUTS, *(f"{name}_std" for name in eval.OUTPUTS[3:]), "pair_accuracy", "recon_l1"}
    assert measured | {"ranker_rank", "generator_identity"} <= set(rows[0])
    summary = json.loads((trained / "summary.json").read_text())
    assert {name for name, value in summary.items() if type(value) is float} == measured | {"seconds"}
    assert (summary["steps"], summary["seed"], summary["device"]) == (8, 0, "cpu")
    assert summary["config"]["attr"] == ["smile"] and summary["config"]["size"] == 32
    assert list(trip.checkpoint(trained)["log"]["snapshots"]) == ["start", "early", "end"]
    for name in ("ranker.png", "samples.png"):
        assert np.asarray(Image.open(trained / name).convert("L")).std() > 10
    with Image.open(trained / "dial.gif") as movie:
        assert movie.n_frames == 24 and movie.info["loop"] == 0


def test_several_attributes_train_together_and_report_a_list_each(tmp_path):
    assert train(tmp_path, "--attr", "smile", "beard", "--steps", "2") == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert len(summary["gen_plus"]) == len(summary["pair_accuracy"]) == 2
    header = (tmp_path / "history.csv").read_text().splitlines()[0].split(",")
    assert {"gen_plus.smile", "gen_plus.beard"} <= set(header)
    edit = ["--edit", str(tmp_path / "samples.png"), "--v", "1,-1", "-1,0"]
    assert trip.main(["--attr", "smile", "beard", "--out", str(tmp_path), *edit]) == 0


def test_the_summary_averages_the_last_fifth_but_at_least_ten_measurements():
    run = tiny_run(steps=100)

    def summary(every):
        run.log = {"seconds": 0.0, "history": [{"step": s, "gen_plus": [float(s)]}
                                               for s in range(every, 101, every)]}
        return eval.summarise(run)

    assert summary(1)["gen_plus"] == pytest.approx(np.mean(range(81, 101)))
    assert summary(5)["gen_plus"] == pytest.approx(np.mean(range(55, 101, 5)))


def test_measurement_follows_the_papers_convention(smiles):
    """v = -1 goes to pictures with the attribute, v = +1 to those without, v = 0 to some of all (footnote 3)."""
    run = tiny_run()
    x, labels = eval.evaluation_batch(smiles[1], "cpu")
    has = labels[:, 0]
    assert has.float().mean() == 0.5 and len(x) == 128
    run.G.forward = lambda x, v: (x + v[:, :, None, None]).clamp(-1, 1)  # a generator that is easy to follow
    outputs, row = eval.measure(run.G, run.R, x, labels)
    with torch.no_grad():
        expected = {"gen_plus": run.R(x[~has], (x[~has] + 1).clamp(-1, 1)),
                    "gen_minus": run.R(x[has], (x[has] - 1).clamp(-1, 1)), "gen_zero": run.R(x[::4], x[::4])}
    for name, wanted in expected.items():
        assert torch.allclose(outputs[name][0], wanted[:, 0], atol=1e-4), name
    assert row["recon_l1"] == pytest.approx(0, abs=1e-6)
    assert row["gen_plus_std"] == [outputs["gen_plus"][0].std().item()]
    assert row["real_plus"] == [outputs["real_plus"][0].mean().item()]


def test_the_same_seed_gives_the_same_run_measured_or_not_and_another_seed_another(smiles):
    def end(seed):
        run, records = trained_run(tiny_run(steps=3, warmup=0.3, seed=seed), smiles)
        assert [record["step"] for record in records] == [1, 2, 3]
        return run.G.state_dict()

    alone = tiny_run(steps=3, warmup=0.3, seed=0)
    c = alone.config
    assert len(list(trip.train(alone, data.pairs(smiles[0], c.batch, alone.rng)))) == 3
    assert same(alone.G.state_dict(), end(0)) and not same(alone.G.state_dict(), end(1))


def test_a_run_draws_from_a_stream_of_its_own_process_and_seed_and_not_from_the_callers(monkeypatch):
    """Also where a seed is large: PyTorch's own generator looks at 32 bits of it only."""
    callers, states = torch.get_rng_state(), set()
    for seed, number in ((0, 0), (0, 1), (1, 0), (10 ** 6, 0), (2 ** 32 - 1, 0)):
        monkeypatch.setattr(trip.team, "number", number)
        states.add(tiny_run(seed=seed).rng.get_state().numpy().tobytes())
    assert len(states) == 5 and torch.equal(torch.get_rng_state(), callers)


def assert_same_run(*outs):
    a, b = map(trip.checkpoint, outs)
    assert len(tensors(a)) > 50 and same(a, b) and a["log"]["history"] == b["log"]["history"]


SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


@pytest.fixture(autouse=True, scope="module")
def heeded_signals():
    """As in a shell in the foreground; nohup and others leave some ignored."""
    usual = [signal.default_int_handler, *[signal.SIG_DFL] * (len(SIGNALS) - 1)]
    before = [signal.signal(number, handler) for number, handler in zip(SIGNALS, usual)]
    yield
    for number, handler in zip(SIGNALS, before):
        signal.signal(number, handler)


@pytest.mark.parametrize("step, number", [(1, signal.SIGTERM), (5, signal.SIGINT), (8, signal.SIGINT),
                                          (2, SIGNALS[-1])])  # (the last one: a terminal that is closed)
def test_a_stopped_and_resumed_run_ends_bit_for_bit_as_one_that_was_not(
        step, number, trained, tmp_path, monkeypatch, capsys):
    """By Ctrl-C or a cluster. The handler itself says nothing: the loop may be printing."""
    fit, before, said = eval.fit, [*map(signal.getsignal, SIGNALS)], []

    def pressed(*what):
        for record in fit(*what):
            if record["step"] == step:
                capsys.readouterr()
                signal.raise_signal(number)
                said.append(capsys.readouterr())
            yield record

    if step != 5:  # (drawing takes longer than training)
        monkeypatch.setattr(eval, "report", lambda *_: None)
    with monkeypatch.context() as patch:
        patch.setattr(eval, "fit", pressed)
        assert train(tmp_path) == (0 if step == 8 else 130) and said == [("", "")]
    assert [*map(signal.getsignal, SIGNALS)] == before
    if step < 8:
        last = capsys.readouterr().out.strip().splitlines()[-1]
        assert f"at iteration {step}" in last and f"trip.py --out={tmp_path.as_posix()} --resume" in last
        # pictures so far; no summary, no page of the dial yet
        assert step != 5 or set(contents(tmp_path)) == FILES - {"summary.json", "dial.html", "dial.gif"}
        assert trip.restore(tmp_path).step == step
        assert train(tmp_path, "--resume") == 0  # the command as it was, or no option at all
    assert_same_run(trained, tmp_path)
    assert step != 5 or set(contents(tmp_path)) == FILES


def test_signals_that_are_ignored_stay_so_and_a_thread_trains_without_any(tmp_path, no_report):
    before, codes = signal.signal(SIGNALS[-1], signal.SIG_IGN), []
    try:
        with trip.stop_flag() as stopped:
            assert signal.getsignal(SIGNALS[-1]) is signal.SIG_IGN and not stopped
    finally:
        signal.signal(SIGNALS[-1], before)
    thread = threading.Thread(target=lambda: codes.append(train(tmp_path)))
    thread.start()
    thread.join()
    assert codes == [0]


OTHER = "import sys, pathlib, data\nwith data.alone(pathlib.Path(sys.argv[1])): print(flush=True), input()"


def test_a_run_belongs_to_one_program_at_a_time_whatever_ends_it(trained, tmp_path, capsys, no_report):
    out = tmp_path / "run"
    for end in "kill", "communicate":
        other = subprocess.Popen([sys.executable, "-c", OTHER, out], cwd=HERE, text=True,
                                 stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        other.stdout.readline()
        for options in ([], ["--resume"]):
            assert train(out, *options) == 2 and "another program works on the run in" in one_line(capsys)
        getattr(other, end)()
        other.wait()
        (out / "trip.pt").unlink(missing_ok=True)
        assert train(out) == 0
    assert os.listdir(out) == ["trip.pt"]
    assert_same_run(trained, out)
    (out / "trip.lock").write_text("mine")  # where there can be no lock the run goes on without
    assert train(out, "--resume") == 0 and (out / "trip.lock").read_text() == "mine"


def test_a_run_that_cannot_be_written_is_still_there(trained, tmp_path, monkeypatch, capsys, no_report):
    shutil.copy(trained / "trip.pt", tmp_path)
    (tmp_path / "samples.png").write_text("its own")
    before = contents(tmp_path)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    assert train(tmp_path, "--resume", "--steps", "9") == 2 and contents(tmp_path) == before
    said = one_line(capsys)
    assert "No space left on device" in said and "trip.pt" in said  # where


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such terminals")
def test_a_terminal_that_is_closed_loses_nothing(tmp_path):
    ours, theirs = os.openpty()
    code = ("import sys, data, eval, trip; some = data.faces(('smile',), 32, n=60); "
            "data.DATASETS['faces'] = lambda *_: data.split(some, 0), ''; eval.report = lambda *_: None; "
            "sys.exit(trip.main(sys.argv[1:]))")
    process = subprocess.Popen([sys.executable, "-c", code, *TINY, "--steps", "100000", "--out", str(tmp_path)],
                               cwd=HERE, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
                               preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
    os.close(theirs)
    try:
        said = b""
        while b"iteration 20/" not in said:
            said += os.read(ours, 1000)
        os.close(ours)  # the system sends SIGHUP
        process.wait(60)
    finally:
        process.kill()
    assert trip.restore(tmp_path).step >= 20


def test_a_figure_that_fails_costs_no_run(tmp_path, monkeypatch, capsys):
    def fail(*_):
        raise RuntimeError("latex could not be found")

    monkeypatch.setattr(eval, "fig_densities", fail)
    assert train(tmp_path) == 0 and "latex could not be found" in one_line(capsys)
    assert trip.restore(tmp_path).step == 8


def test_a_new_run_may_start_from_the_weights_of_another(trained, tmp_path, capsys, no_report):
    options = "--attr", "beard", "--lr_g", "0", "--lr_r", "0", "--from", str(trained)
    assert train(tmp_path / "new", *options) == 0
    old, new = map(trip.load, (trained, tmp_path / "new"))
    assert new[2].attr == ("beard",) and same(old[0].state_dict(), new[0].state_dict())
    assert same(old[1].state_dict(), new[1].state_dict())
    capsys.readouterr()
    for more, says in (("--width 8", "add --width 4"), ("--attr smile beard", "for 1 attribute(s)"),
                       ("--resume", "starts a new run")):
        assert train(tmp_path / "no", "--from", str(trained), *more.split()) == 2
        assert says in one_line(capsys) and not (tmp_path / "no").exists()


def test_more_steps_do_not_bring_the_warm_up_back(trained, tmp_path, no_report):
    shutil.copy(trained / "trip.pt", tmp_path)
    assert trip.main(["--steps", "40", "--resume", "--out", str(tmp_path)]) == 0
    rows = trip.checkpoint(tmp_path)["log"]["history"]
    assert [row["step"] for row in rows] == list(range(1, 41))
    assert [row["step"] for row in rows if "ranker_rank" not in row] == [1, 2]  # a quarter of 8


def test_a_warm_up_of_all_steps_ends_never(tmp_path, no_report):
    for more in (["--steps", "2"], ["--resume", "--steps", "4"]):
        assert train(tmp_path, "--warmup", "1", *more) == 0
    assert not any("ranker_rank" in row for row in trip.checkpoint(tmp_path)["log"]["history"])


@pytest.mark.parametrize("error", [SystemExit, RuntimeError])
def test_a_run_killed_or_out_of_disk_while_saving_goes_on_from_the_checkpoint_before(
        error, trained, tmp_path, monkeypatch, capsys, no_report):
    whole, saves = torch.save, []

    def broken_off(state, file):
        whole(state, file)
        saves.append(file)
        if len(saves) == 3:  # iteration 8: half the file is written, then ...
            file.truncate(file.tell() // 2)
            raise error("PytorchStreamWriter failed writing file: file write failed")

    monkeypatch.setattr(eval, "SAVE_EVERY", 4)
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(torch, "save", broken_off)
        sys.exit(train(tmp_path))
    assert error is SystemExit or "is the disk full?" in one_line(capsys)
    assert {path.name for path in tmp_path.iterdir()} == {"trip.pt"}
    assert trip.restore(tmp_path).step == 4
    assert trip.main(["--out", str(tmp_path), "--resume"]) == 0
    assert_same_run(trained, tmp_path)


def test_a_checkpoint_is_on_the_disk_before_it_takes_the_place_of_the_old_one(tmp_path, monkeypatch):
    done, fsync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: (done.append(os.fstat(file).st_size), fsync(file)))
    monkeypatch.setattr(os, "replace", lambda *a: (done.append("replace"), replace(*a)))
    data.write(tmp_path / "trip.pt", lambda file: file.write(b"state"))
    assert done == [5, "replace"] and [path.name for path in tmp_path.iterdir()] == ["trip.pt"]


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_checkpoint(
        tmp_path, monkeypatch, capsys, no_report):
    whole, calls = trip.cls_target, []
    monkeypatch.setattr(trip, "cls_target", lambda v: calls.append(0) or whole(v) / (len(calls) != 3))
    monkeypatch.setattr(eval, "SAVE_EVERY", 2)
    assert train(tmp_path, "--cls", "--warmup", "0") == 1
    said = one_line(capsys)
    assert "iteration 3" in said and "generator_rank" in said and str(tmp_path) in said
    run = trip.restore(tmp_path)
    assert run.step == 2 and all(t.isfinite().all() for t in tensors(run.G.state_dict()))


def test_weights_that_are_not_finite_are_told_in_one_line(trained, tmp_path, capsys):
    state = trip.checkpoint(trained)
    state["R"]["rank_heads.0.1.weight"] *= float("nan")
    torch.save(state, tmp_path / "trip.pt")
    assert trip.main(["--resume", "--out", str(tmp_path)]) == 1
    assert "the weights are no longer finite" in one_line(capsys)


@pytest.mark.parametrize("version, taken", [("2.12.1", False), ("2.13.0", True)])
def test_mps_is_taken_from_the_version_on_in_which_warping_has_a_gradient(version, taken, monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch, "zeros", lambda *_, device: SimpleNamespace(device=torch.device(device)))
    monkeypatch.setattr(torch, "__version__", torch.torch_version.TorchVersion(version))
    assert trip.choose_device("auto").type == ("mps" if taken else "cpu")
    if not taken:
        with pytest.raises(data.InputError, match="2.13"):
            trip.choose_device("mps")


def test_under_torchrun_each_process_has_a_gpu_of_its_own_whatever_is_typed(monkeypatch):
    def none_here(*_, device):
        asked.append(device)
        raise RuntimeError

    asked = []
    monkeypatch.setattr(torch, "zeros", none_here)
    for size in 1, 2:
        monkeypatch.setattr(trip.team, "size", size)
        with pytest.raises(data.InputError):
            trip.choose_device("cuda:1")
    assert asked == ["cuda:1", "cuda"]


def test_the_ranker_learns_and_the_generator_heeds_it(few_drawn_once):
    """Beards are seen early. The bounds leave room for other seeds and machines."""
    run = tiny_run(attr="beard", steps=200, width=16, batch=8, lam=0.6)
    row = eval.summarise(trained_run(run, data.load("faces", ["beard"], 32))[0])
    assert row["pair_accuracy"] > 0.7 and abs(row["real_zero"]) < 0.1
    assert row["real_plus"] > 0.15 and row["real_minus"] < -0.15
    assert 0.1 < row["gen_plus"] < 0.8 and -0.8 < row["gen_minus"] < -0.1  # the rivals meet below +-1
    assert abs(row["gen_zero"]) < 1e-4 and row["recon_l1"] < 1e-4


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_run_works_on_an_accelerator(device, tmp_path):
    if not (torch.cuda if device == "cuda" else torch.backends.mps).is_available():
        pytest.skip(f"no {device} here")
    assert train(tmp_path, "--device", device, "--steps", "4") == 0
    assert train(tmp_path, "--device", device, "--steps", "6", "--resume") == 0
    assert json.loads((tmp_path / "summary.json").read_text())["device"] == device


# ------------------------------------------------------------------------------------------------------------
# For other code, for one's own pictures, and for mistakes

def test_load_and_translate_give_what_the_run_learned(trained, smiles):
    G, R, config = trip.load(trained)
    assert not G.training and not R.training and config.attr == ("smile",) == trip.Config(attr="smile").attr
    state, fresh = trip.checkpoint(trained), trip.Run(config)
    assert same(G.state_dict(), state["G"]) and same(R.state_dict(), state["R"])
    assert not same(fresh.G.state_dict(), state["G"]) and not same(fresh.R.state_dict(), state["R"])
    x = data.as_float(smiles[1].images[:70])
    y = eval.translate(G, x, torch.tensor([-1.0, 0.5]))
    assert y.shape == (70, 2, 3, 32, 32) and not y.requires_grad
    assert torch.allclose(y[66:, 1], G(x[66:], torch.full((4, 1), 0.5)), atol=1e-5)
    assert torch.equal(eval.translate(G, x[:2], [[-1.0], [0.5]]), eval.translate(G, x[:2], [-1.0, 0.5]))


def test_edit_writes_a_strip_and_a_page_of_any_pictures(trained, tmp_path, capsys):
    shutil.copy(trained / "trip.pt", tmp_path)
    Image.new("L", (50, 20), 99).save(tmp_path / "grey.png")
    edit = ["--out", str(tmp_path), "--edit", str(trained / "samples.png")]
    assert trip.main([*edit, str(tmp_path / "grey.png"), "--v", "-1", "-0.5", "0", "0.5", "1"]) == 0
    (width, height), said = Image.open(tmp_path / "edit.png").size, capsys.readouterr()
    assert width > height and "edit.png" in said.out
    assert "drawn faces" in said.err and "never saw" not in said.err
    assert trip.main([*edit, "--v", "1.5"]) == 0 and "never saw" in capsys.readouterr().err
    assert set(os.listdir(tmp_path)) == {"trip.pt", "grey.png", "edit.png", "edit.html", "edit"}
    assert (tmp_path / "edit.html").read_text().count("data:image/webp") == 1


def test_a_user_s_own_settings_of_matplotlib_cost_no_run(trained, tmp_path, monkeypatch):
    monkeypatch.setitem(matplotlib.rcParams, "text.usetex", True)  # (there is no LaTeX here)
    monkeypatch.setitem(matplotlib.rcParams, "savefig.bbox", "tight")
    shutil.copytree(trained, tmp_path / "run")
    for name in ("samples.png", "ranker.png"):
        (tmp_path / "run" / name).unlink()
    assert trip.main(["--out", str(tmp_path / "run"), "--resume", "--steps", "9"]) == 0
    assert Image.open(tmp_path / "run" / "samples.png").size == Image.open(trained / "samples.png").size


def test_a_run_stored_to_be_applied_only_says_so(trained, tmp_path, capsys):
    run = trip.restore(trained)
    run.G.half(), run.R.half()
    trip.save(run, tmp_path, ("G", "R"))
    assert (tmp_path / "trip.pt").stat().st_size < (trained / "trip.pt").stat().st_size / 3
    x = numbers(2, 3, 32, 32).tanh()
    (G, R, _), (G_whole, R_whole, _) = trip.load(tmp_path), trip.load(trained)
    assert torch.allclose(G(x, torch.ones(2, 1)), G_whole(x, torch.ones(2, 1)), atol=0.01)
    assert torch.allclose(R(x[:1], x[1:]), R_whole(x[:1], x[1:]), atol=0.01)
    assert trip.main(["--out", str(tmp_path), "--edit", str(trained / "samples.png"), "--v", "1"]) == 0
    assert trip.main(["--out", str(tmp_path), "--resume"]) == 2
    assert "stored without its optimisers" in capsys.readouterr().err


@pytest.mark.parametrize("options, says", [
    ("--attr smiel", "nearest are 'smile'"),
    ("--attr smile smile", "twice"),
    ("--data facs", "nearest are 'faces'"),
    ("--size 48", "32 64 128"),
    ("--size large", "--size"),
    ("--steps 0", "--steps 0"),
    ("--lr_g nan", "--lr_g"),
    ("--seed 4294967296", "--seed 4294967296: must be a number from 0 to 4294967295"),
    ("--v 1", "--edit"),
    ("--device tpu9", "--device tpu9"),
    ("--device mps", "--device mps"),
    ("--device cuda:99", "--device cpu"),
    ("--wdth 3", "--wdth"),
    ("--resume", "no run"),
    ("--out=", "--out '': name a folder"),
    ("--out runs/checkpoint.pt", "name a folder"),
    ("--data .", "--data folder --root ."),
    ("--crop 10 10 --edit a.png", "--crop: expected 3 arguments"),
    ("--from a --edit b", "starts a new run"),
])
def test_wrong_input_gets_one_line_and_exit_code_2_and_changes_nothing(options, says, tmp_path, capsys):
    assert trip.main(["--size", "32", "--out", str(tmp_path / "out"), *options.split()]) == 2
    assert says in one_line(capsys) and not list(tmp_path.iterdir())


@pytest.mark.parametrize("options, says", [
    ("--attr smile", "add --resume to go on, remove it, or name another --out"),
    ("--resume --attr beard", "--attr smile, not beard"),
    ("--resume --size 64", "--size 32, not 64"),
    ("--resume --preset paper", "--size 32, not 256: leave the option (or --preset) out"),
    ("--resume --steps 3", "has done 8 iterations: --steps must be as many or more"),
    ("--edit none.png", "none.png"),
    ("--edit history.csv", "picture"),
    ("--edit samples.png --v a", "--v a"),
    ("--edit samples.png --v 1,1", "--v 1,1"),
    ("--edit samples.png --v nan", "--v nan"),
])
def test_a_run_is_never_changed_by_wrong_input(options, says, trained, capsys, monkeypatch):
    before = contents(trained)
    monkeypatch.chdir(trained)
    assert trip.main(["--out", str(trained), *options.split()]) == 2
    assert says in one_line(capsys)
    assert contents(trained) == before


class Code:
    """Makes a folder in the current one when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("made by a stranger's code",)


@pytest.mark.parametrize("damage, says", [
    (lambda state, whole: b"", "damaged"),
    (lambda state, whole: whole[:len(whole) // 2], "damaged"),
    (lambda state, whole: {}, "no run"),
    (lambda state, whole: {"model": torch.zeros(3)}, "was not written by this program"),
    (lambda state, whole: [1, 2], "was not written by this program"),
    (lambda state, whole: state | {"config": state["config"] | {"batch": 4.5}}, "--batch 4.5"),
    (lambda state, whole: state | {"config": state["config"] | {"data": 5}}, "--data 5"),
    (lambda state, whole: state | {"rng": 3}, "another version"),
    (lambda state, whole: state | {"config": Code()}, "no checkpoint"),
    (lambda state, whole: state | {"config": state["config"] | {"zoom": 2}},
     "study/rivals.py (it differs in the settings zoom)"),
    (lambda state, whole: state | {"config": {"attr": ["smile"]}}, "it differs in the settings batch"),
    (lambda state, whole: state | {"R": {}}, "Missing key(s) in state_dict"),
])
def test_a_checkpoint_that_is_damaged_or_strange_is_one_line_and_runs_no_code(
        damage, says, trained, tmp_path, monkeypatch, capsys):
    path = tmp_path / "trip.pt"
    content = damage(trip.checkpoint(trained), (trained / "trip.pt").read_bytes())
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content:
        torch.save(content, path)
    before = contents(tmp_path)
    monkeypatch.chdir(tmp_path)
    for options in (["--resume"], ["--edit", str(trained / "samples.png")]):
        assert trip.main([*options, "--out", str(tmp_path)]) == 2
        said = one_line(capsys)
        assert says in said and str(tmp_path) in said
    assert contents(tmp_path) == before


def test_a_folder_that_cannot_be_written_to_is_one_line(tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        assert train(out) == 2 and str(out) in one_line(capsys)
    assert (tmp_path / "file").read_text() == "mine"


def test_help_names_every_setting_with_its_default_even_without_docstrings(monkeypatch, capsys):
    """As under python -OO, which strips them."""
    for name in ("data", "trip"):
        module = types.ModuleType(name)
        monkeypatch.setitem(sys.modules, name, module)
        source = (HERE / f"{name}.py").read_text(encoding="utf-8")
        exec(compile(source, name, "exec", optimize=2), module.__dict__)
    assert module.__doc__ is module.parse.__doc__ is None
    with pytest.raises(SystemExit, match="0"):
        module.main(["--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "--edit" in said and "--resume" in said
    for setting in fields(trip.Config):
        text = setting.metadata["help"].split(" [")[0]
        default = re.escape(trip.as_typed(setting.default) or "none")
        line = rf"--{setting.name}\b.{{0,99}}{re.escape(text)}.{{0,40}}\(default: {default}\)"
        assert re.search(line, said), setting.name


# ------------------------------------------------------------------------------------------------------------
# The house


def lines_of(name):
    return (HERE / name).read_text(encoding="utf-8").splitlines()


def test_the_house_stays_small():
    lines = lines_of("trip.py")
    method = next(i for i, line in enumerate(lines) if line.startswith("# ===="))
    assert method <= 455 and len(lines) <= 890 and max(map(len, lines)) <= 110
    assert len(lines_of("README.md")) <= 170


def test_imports_go_one_way_and_the_method_never_asks_eval():
    sources = {name: "\n".join(lines_of(f"{name}.py")) for name in ("data", "eval", "trip")}
    assert not re.search(r"(?m)^\s*(import|from) (trip|eval)\b", sources["data"])
    assert not re.search(r"(?m)^(import|from) trip\b", sources["eval"])  # (its command asks trip for runs)
    ruled = 1 + next(i for i, line in enumerate(lines_of("trip.py")) if line.startswith("# ===="))
    asks = [node.lineno for node in ast.walk(ast.parse(sources["trip"])) if getattr(node, "id", "") == "eval"]
    assert asks and min(asks) > ruled and "sys.modules" not in "".join(sources.values())


def test_from_the_command_line_to_a_loss_in_four_calls(tmp_path, monkeypatch, no_report):
    calls, loss = [], trip.ranker_rank_loss

    def spied(*what):
        frames = [frame for frame in reversed(traceback.extract_stack()) if frame.name != "<listcomp>"]
        calls[:] = [frame.name for frame in frames if Path(frame.filename).parent == HERE]
        return loss(*what)

    monkeypatch.setattr(trip, "ranker_rank_loss", spied)
    assert train(tmp_path, "--steps", "1", "--warmup", "0") == 0
    assert calls[:4] == ["ranker_step", "train", "fit", "main"] and set(calls[4:]) <= {"main"}  # (program's)
