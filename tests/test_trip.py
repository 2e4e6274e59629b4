"""data.py and trip.py. Each test's name is a claim; together they are the specification."""

import ast
import csv
import functools
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import types
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

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

FILES = {"trip.pt", "history.csv", "ranker.npz", "ranker.png", "samples.png", "summary.json",
         "dial.html", "dial.gif"}
TINY = ("--size 32 --g_width 4 --g_down 1 --g_blocks 1 --r_width 4 --batch 4 --measure_every 2 "
        "--save_every 4 --warmup 2").split()


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def numbers(*shape):
    return torch.randn(*shape, generator=rng())


def tensors(state):
    """Every tensor in a nested state, in order."""
    if isinstance(state, torch.Tensor):
        return [state]
    if isinstance(state, dict):
        state = list(state.values())
    return sum(map(tensors, state), []) if isinstance(state, (list, tuple)) else []


def same(a, b):
    a, b = tensors(a), tensors(b)
    return len(a) == len(b) and all(torch.equal(u, v) for u, v in zip(a, b))


@pytest.fixture(scope="module", autouse=True)
def drawn_once():
    """All runs here share their faces, as long as nobody asks for others."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(data.DATASETS, "faces", (functools.cache(data.drawn), ""))
        yield


@pytest.fixture(scope="module")
def faces(drawn_once):
    """Drawn faces at 32 pixels with all four attributes: (train, test)."""
    return data.load("faces", data.FACE_ATTRS, 32)


@pytest.fixture(scope="module")
def smiles(drawn_once):
    return data.load("faces", ["smile"], 32)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, drawn_once):
    """A folder with a tiny finished run, not to be changed."""
    out = tmp_path_factory.mktemp("trained") / "smile"
    assert trip.main(["--steps", "8", *TINY, "--out", str(out)]) == 0
    return out


def tiny_run(K=1, **settings):
    small = dict(size=32, g_width=4, g_down=1, g_blocks=1, r_width=4, batch=4, warmup=0)
    return trip.Run(trip.Config(attr=data.FACE_ATTRS[:K], **small | settings))


def a_batch(K=1):
    x, y = (numbers(2, 4, 3, 32, 32) / 3).tanh()
    v = torch.linspace(-1, 1, 4 * K).view(4, K)
    return x, y, v.sign(), v


def both_steps(run):
    """The losses of an iteration on a_batch: {name: number}."""
    x, y, r, v = a_batch()
    fake, x_moved = run.G(x, v, parts=True)
    losses = trip.ranker_step(run, x, y, r, fake.detach()) | trip.generator_step(run, x, v, fake, x_moved)
    return {name: loss.item() for name, loss in losses.items()}


# ------------------------------------------------------------------------------------------------------------
# The losses, by hand

def test_eq_5a_scores_real_pairs_as_r_and_generated_pairs_as_zero():
    real, r, fake = (torch.tensor([[a], [b]]) for a, b in ((0.5, -2.0), (1.0, -1.0), (2.0, -1.0)))
    # real: (0.25 + 1) / 2; generated: 0.5 * (4 + 1) / 2
    assert trip.ranker_rank_loss(real, r, fake, lam=0.5).item() == pytest.approx(0.625 + 1.25)


def test_eq_5a_with_lambda_0_ignores_generated_pairs():
    real, r = torch.tensor([[0.5]]), torch.tensor([[1.0]])
    assert trip.ranker_rank_loss(real, r, torch.tensor([[7.0]]), lam=0).item() == pytest.approx(0.25)


def test_eq_5b_pulls_generated_pairs_to_v():
    fake, v = torch.tensor([[0.5], [0.0]]), torch.tensor([[1.0], [-0.5]])
    assert trip.generator_rank_loss(fake, v).item() == pytest.approx((0.25 + 0.25) / 2)


def test_eq_7_sums_over_the_attributes_and_averages_over_the_batch():
    real, r, fake = torch.tensor([[0.0, 2.0]]), torch.tensor([[1.0, 1.0]]), torch.tensor([[1.0, 3.0]])
    assert trip.ranker_rank_loss(real, r, fake, lam=0.1).item() == pytest.approx(1 + 1 + 0.1 * (1 + 9))
    assert trip.generator_rank_loss(fake, torch.tensor([[0.0, 1.0]])).item() == pytest.approx(1 + 4)


def test_eq_3_gives_the_sign_of_v_as_target():
    assert trip.cls_target(torch.tensor([[-0.2], [0.7]])).tolist() == [[-1.0], [1.0]]


def test_eq_6a_wants_1_for_real_and_0_for_generated():
    loss = trip.ranker_gan_loss(torch.tensor([[0.0], [3.0]]), torch.tensor([[1.0], [2.0]]))
    assert loss.item() == pytest.approx((1 + 4) / 2 + (1 + 4) / 2)


def test_eq_6b_wants_1_for_generated():
    assert trip.generator_gan_loss(torch.tensor([[0.0], [3.0]])).item() == pytest.approx((1 + 4) / 2)


def test_cycle_loss_is_the_mean_absolute_difference():
    x = torch.zeros(2, 3, 4, 4)
    back = x.clone()
    back[0] = -0.5
    assert trip.cycle_loss(x, back).item() == pytest.approx(0.25)


def test_keep_loss_is_the_mean_square_of_the_change():
    x = torch.zeros(2, 3, 4, 4)
    assert trip.keep_loss(x, torch.cat([x[:1] + 0.5, x[:1] - 1])).item() == pytest.approx((0.25 + 1) / 2)


def test_gradient_penalty_is_taken_between_the_pictures_on_the_gan_head_only():
    # D(z) = |z|^2 / 2 has the gradient z, so its norm tells where the penalty was taken
    R = SimpleNamespace(features=nn.Identity(), critic=lambda f: (f ** 2).sum((1, 2, 3))[:, None] / 2,
                        rank=None)
    x, fake = torch.zeros(2, 1, 2, 2), torch.full((2, 1, 2, 2), 2.0)
    a = torch.tensor([0.25, 1.0]).view(2, 1, 1, 1)  # z = 1.5 everywhere (norm 3), and z = 0 (norm 0)
    assert trip.gradient_penalty(R, x, fake, a, center=1).item() == pytest.approx(((3 - 1) ** 2 + 1) / 2)
    assert trip.gradient_penalty(R, x, fake, a, center=0).item() == pytest.approx(9 / 2)


def test_gradient_penalty_moves_no_parameter_of_the_rank_head():
    R = trip.Ranker(1, 4, 32)
    x, y, _, _ = a_batch()
    trip.gradient_penalty(R, x, y, torch.full((4, 1, 1, 1), 0.5), center=0).backward()
    assert all(p.grad is None for p in R.rank_head.parameters())
    assert R.features[0].weight.grad.abs().sum() > 0


def test_slope_penalty_asks_only_of_a_slope_steeper_than_it_may_be():
    # R_k(x, z) = (|z|^2 - |x|^2) / 2 for both k: the gradient is z, its norm tells where the penalty was taken
    R = SimpleNamespace(features=nn.Identity(), critic=None, rank=lambda fx, fy: (
        ((fy ** 2).sum((1, 2, 3)) - (fx ** 2).sum((1, 2, 3)))[:, None] / 2 * torch.ones(1, 2)))
    x, y, fake = torch.full((2, 1, 2, 2), 9.0), torch.zeros(2, 1, 2, 2), torch.full((2, 1, 2, 2), 2.0)
    a = torch.tensor([0.25, 1.0]).view(2, 1, 1, 1)  # z = 1.5 everywhere (norm 3), and z = 0 (norm 0)
    for steepest, wanted in ((1, 4), (2.5, 0.25), (3.5, 0)):
        assert trip.slope_penalty(R, x, y, fake, a, steepest).item() == pytest.approx(2 * wanted / 2)


def test_slope_penalty_moves_no_parameter_of_the_gan_head():
    R = trip.Ranker(2, 4, 32)
    x, y, _, _ = a_batch()
    trip.slope_penalty(R, x, y, -y, torch.full((4, 1, 1, 1), 0.5), 0).backward()
    assert all(p.grad is None for p in R.gan_head.parameters())
    assert R.features[0].weight.grad.abs().sum() > 0


def test_orthogonal_penalty_is_the_squared_off_diagonal_of_the_gram_matrix():
    conv, up = nn.Conv2d(2, 2, 1), nn.ConvTranspose2d(1, 2, 1)
    with torch.no_grad():
        # Gram: 1 * 3 + 2 * 4 = 11, twice
        conv.weight[:] = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).view(2, 2, 1, 1)
        up.weight[:] = torch.tensor([[5.0, 6.0]]).view(1, 2, 1, 1)  # two filters: 5 * 6 = 30, twice
    assert trip.orthogonal_penalty(conv).item() == pytest.approx(2 * 11 ** 2)
    assert trip.orthogonal_penalty(nn.Sequential(conv, up)).item() == pytest.approx(2 * 11 ** 2 + 2 * 30 ** 2)


# ------------------------------------------------------------------------------------------------------------
# The networks, against Tables 3 and 4

def shapes(net, layers, *inputs):
    """The output shapes of all layers of these kinds, in order, without computing anything."""
    found = []
    for layer in net.modules():
        if isinstance(layer, layers):
            layer.register_forward_hook(lambda _, __, out: found.append(tuple(out.shape[1:])))
    net(*inputs) if len(inputs) == 2 else net.critic(net.features(*inputs))
    return found


def conv(c_in, c_out, kernel):
    return c_in * c_out * kernel ** 2 + c_out


def test_the_papers_generator_has_the_shapes_of_table_3():
    with torch.device("meta"):
        found = shapes(trip.Table3().eval(), (nn.Conv2d, nn.ConvTranspose2d), torch.empty(1, 3, 256, 256),
                       torch.empty(1, 1))
    assert found == ([(64, 256, 256), (128, 128, 128), (256, 64, 64)] + 12 * [(256, 64, 64)]
                     + [(128, 128, 128), (64, 256, 256), (3, 256, 256)])


@pytest.mark.parametrize("K", [1, 2])
def test_the_papers_generator_has_the_parameter_count_of_table_3(K):
    def norm(c):  # a scale and a shift per channel, 3 + 3 weights
        return 2 * c + 6
    expected = (conv(3 + K, 64, 7) + norm(64) + conv(64, 128, 4) + norm(128) + conv(128, 256, 4) + norm(256)
                + 12 * (conv(256, 256, 3) + norm(256))
                + conv(256, 128, 4) + norm(128) + conv(128, 64, 4) + norm(64) + conv(64, 3, 7))
    with torch.device("meta"):
        assert sum(p.numel() for p in trip.Table3(K).parameters()) == expected


def test_ranker_has_the_shapes_of_table_4():
    with torch.device("meta"):
        found = shapes(trip.Ranker(), nn.Conv2d, torch.empty(1, 3, 256, 256))
    assert found == [(64, 128, 128), (128, 64, 64), (256, 32, 32), (512, 16, 16), (1024, 8, 8), (2048, 4, 4)]


@pytest.mark.parametrize("K", [1, 2])
def test_ranker_has_the_parameter_count_of_table_4(K):
    stack = sum(conv(a, b, 4) for a, b in zip([3, 64, 128, 256, 512, 1024], [64, 128, 256, 512, 1024, 2048]))
    expected = stack + conv(2048, 2048, 1) + (16 * 2048 * K + K) + (16 * 2048 + 1)
    with torch.device("meta"):
        assert sum(p.numel() for p in trip.Ranker(K, table4=True).parameters()) == expected


@pytest.mark.parametrize("size, filters", [(32, 256), (64, 512), (128, 1024), (256, 2048), (512, 4096)])
def test_features_end_at_4_x_4_whatever_the_size(size, filters):
    with torch.device("meta"):
        assert trip.Ranker(1, 64, size).features(torch.empty(2, 3, size, size)).shape == (2, filters, 4, 4)


@pytest.mark.parametrize("table4", [False, True])
def test_rank_head_reads_the_difference_of_the_features(table4):
    R = trip.Ranker(2, 4, 32, table4)
    x, y = numbers(2, 3, 3, 32, 32)
    fx, fy = R.features(x), R.features(y)
    assert torch.equal(R(x, y), R.rank(fx, fy))
    assert R.rank(fx, fy).shape == (3, 2)
    assert torch.equal(R.rank(fx, fx), R.rank_head(torch.zeros_like(fx)))
    assert torch.allclose(R.rank(fx + 1, fy + 1), R.rank(fx, fy), atol=1e-4)
    assert R.critic(fx).shape == (3, 1)


def test_without_table_4_R_is_a_difference_of_scores():
    R = trip.Ranker(2, 4, 32)
    x, y, z = numbers(3, 3, 3, 32, 32)
    assert not R(x, x).any() and R(x, y).abs().min() > 0
    assert torch.allclose(R(x, y), -R(y, x), atol=1e-6)
    assert torch.allclose(R(x, y) + R(y, z), R(x, z), atol=1e-4)


@pytest.mark.parametrize("kind", [trip.Generator, trip.Table3])
def test_generator_gives_pixels_in_minus_1_to_1_and_heeds_v(kind):
    G = kind(2, 4, 1, 1)
    x = numbers(2, 3, 32, 32)
    y, z = G(x, torch.tensor([[1.0, 0.0], [0.0, 1.0]])), G(x, torch.tensor([[1.0, 0.5], [0.0, 1.0]]))
    assert y.shape == x.shape and y.abs().max() <= 1
    assert not torch.allclose(y[0], z[0])


def test_a_picture_is_moved_by_its_flow():
    x = numbers(2, 3, 32, 32)
    pixel = 2 / 31  # from one pixel's middle to the next one's
    flow = torch.zeros(2, 2, 32, 32)
    assert torch.allclose(trip.moved(x, flow), x, atol=1e-4)
    flow[0, 0], flow[1, 1] = 3 * pixel, -2 * pixel
    y = trip.moved(x, flow)
    assert torch.allclose(y[0, :, :, :29], x[0, :, :, 3:], atol=1e-4)  # what was to the right
    assert torch.allclose(y[0, :, :, 29:], x[0, :, :, 31:].expand(-1, -1, 3), atol=1e-4)  # beyond it, the edge
    assert torch.allclose(y[1, :, 2:], x[1, :, :30], atol=1e-4)  # what was above
    flow = torch.zeros(2, 2, 32, 32)
    flow[:, 1] = pixel / 4
    assert torch.allclose(trip.moved(x, flow)[:, :, :31], 0.75 * x[:, :, :31] + 0.25 * x[:, :, 1:], atol=1e-4)


def test_the_generator_moves_and_paints_by_v_and_both_may_themselves_depend_on_v():
    G = trip.Generator(2, 4, 2, 1)
    x = numbers(3, 3, 32, 32).tanh() / 2
    assert torch.allclose(G(x, torch.zeros(3, 2)), x, atol=1e-4)

    def parts(*v):
        return G.changes(x, torch.tensor([v]).expand(3, 2))

    for one, half in zip(parts(1.0, 0.0), parts(0.5, 0.0)):
        assert one.shape[:2] == (3, 2) and not torch.allclose(one, half, atol=1e-6)
    G.first.weight.data[:, 3:] = 0  # cut off from v, the layers draw one change, which v scales
    for one, half in zip(parts(1.0, 0.0), parts(0.5, 0.0)):
        assert torch.equal(one, half)
    v = torch.tensor([[0.5, -0.25]]).expand(3, 2)
    (flow, paint), (picture, x_moved) = G.changes(x, v), G(x, v, parts=True)
    flow, paint = (0.5 * change[:, 0] - 0.25 * change[:, 1] for change in (flow, paint))
    assert flow.shape == (3, 2, 8, 8) and paint.shape == x.shape
    flow = nn.functional.interpolate(0.1 * flow, (32, 32), mode="bilinear")
    assert torch.allclose(x_moved, trip.moved(x, flow), atol=1e-5) and torch.equal(picture, G(x, v))
    assert torch.allclose(picture, (x_moved + paint).clamp(-1, 1), atol=1e-5)


def test_G_starts_near_the_identity_and_soon_moves(smiles):
    run = trip.Run(trip.Config(size=32, shift=1, steps=300))
    x = data.as_float(smiles[1].images[:64])
    first = eval.translate(run.G, x, [-1.0, 1.0])
    for _, _ in zip(range(50), trip.train(run, data.pairs(smiles[0], 8, run.rng, 0.2))):
        pass
    then = eval.translate(run.G, x, [-1.0, 1.0])
    start, way = ((a - b).abs().mean().item() for a, b in ((first, x[:, None]), (then, first)))
    assert 0 < start < 2e-2 and way > start, (start, way)


def switch_norm_by_loops(x, layer, running=None):
    """Luo et al. 2019, Eq. 2 to 5, one number at a time. running: (mean, var) by channel, in evaluation."""
    x = x.double().numpy()
    B, C, H, W = x.shape
    scale, shift = layer.weight.detach().numpy(), layer.bias.detach().numpy()
    m, w = (u.detach().double().softmax(0).numpy() for u in (layer.mean_weights, layer.var_weights))
    y = np.empty_like(x)
    for b in range(B):
        for c in range(C):
            batch = (x[:, c].mean(), x[:, c].var()) if running is None else (running[0][c], running[1][c])
            statistics = [(x[b, c].mean(), x[b, c].var()), (x[b].mean(), x[b].var()), batch]
            mean = sum(m[i] * statistics[i][0] for i in range(3))
            var = sum(w[i] * statistics[i][1] for i in range(3))
            for i in range(H):
                for j in range(W):
                    y[b, c, i, j] = scale[c] * (x[b, c, i, j] - mean) / (var + layer.eps) ** 0.5 + shift[c]
    return torch.from_numpy(y).float()


def test_switch_norm_is_the_weighted_mix_of_instance_layer_and_batch_norm():
    layer = trip.SwitchNorm(3)
    with torch.no_grad():
        for p in layer.parameters():
            p.copy_(numbers(*p.shape))
    x = 3 * numbers(4, 3, 5, 6) + 1
    assert torch.allclose(layer(x), switch_norm_by_loops(x, layer), atol=1e-4)


@pytest.mark.parametrize("which, reference",
                         [(0, nn.InstanceNorm2d(3)), (1, nn.GroupNorm(1, 3)), (2, nn.BatchNorm2d(3))])
def test_switch_norm_contains_the_three_norms(which, reference):
    layer = trip.SwitchNorm(3)
    with torch.no_grad():
        layer.mean_weights[which] = layer.var_weights[which] = 50.0
    x = 2 * numbers(4, 3, 5, 6) - 1
    assert torch.allclose(layer(x), reference(x), atol=1e-4)


def test_switch_norm_uses_running_batch_statistics_in_evaluation():
    layer = trip.SwitchNorm(3, momentum=0.5)
    x = 2 * numbers(4, 3, 5, 6) - 1
    layer(x)
    mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
    running = (0.5 * mean).numpy(), (0.5 + 0.5 * var).numpy()
    layer.eval()
    assert torch.allclose(layer(x), switch_norm_by_loops(x, layer, running), atol=1e-4)
    assert torch.allclose(layer(x[:1]), layer(x)[:1], atol=1e-5)  # a picture alone comes out as in a batch


def test_switch_norm_takes_its_statistics_in_float32_where_the_networks_compute_in_bf16():
    conv, layer = nn.Conv2d(3, 3, 1), trip.SwitchNorm(3, momentum=1.0)
    with torch.no_grad():
        conv.weight.copy_(torch.eye(3)[:, :, None, None])
        conv.bias.fill_(20.0)  # far from 0: squared in bf16, the variance would be lost
    with torch.autocast("cpu", torch.bfloat16):
        x = conv(numbers(4, 3, 16, 16))
        y = layer(x)
    assert x.dtype == y.dtype == torch.bfloat16
    exact = x.double()
    assert torch.allclose(layer.running_mean[0].double(), exact.mean((0, 2, 3)), rtol=1e-5)
    assert torch.allclose(layer.running_var[0].double(), exact.var((0, 2, 3), correction=0), rtol=1e-4)
    reference = trip.SwitchNorm(3)(x.float())
    assert (y.float() - reference).abs().mean() < 0.06  # bf16 knows 20 to 0.06


# ------------------------------------------------------------------------------------------------------------
# The two players

def weights(net):
    return [p.detach().clone() for p in net.parameters()]


def moved(before, net):
    return [not torch.equal(a, b) for a, b in zip(before, net.parameters())]


def test_the_rankers_step_moves_the_ranker_and_nothing_else():
    run = tiny_run()
    x, y, r, v = a_batch()
    G, R = weights(run.G), weights(run.R)
    trip.ranker_step(run, x, y, r, run.G(x, v).detach())
    assert all(moved(R, run.R)) and not any(moved(G, run.G))
    assert all(p.grad is None for p in run.G.parameters())


def test_the_generators_step_moves_the_generator_and_nothing_else():
    run = tiny_run()
    x, y, r, v = a_batch()
    G, R = weights(run.G), weights(run.R)
    trip.generator_step(run, x, v, *run.G(x, v, parts=True))
    assert any(moved(G, run.G)) and not any(moved(R, run.R))
    assert all(p.grad is None for p in run.R.parameters())


def test_the_warm_up_leaves_the_rank_head_alone():
    run = tiny_run(warmup=1)
    head = weights(run.R.rank_head)
    losses = both_steps(run)
    assert not any(moved(head, run.R.rank_head))
    assert not {"ranker_rank", "generator_rank", "generator_cycle"} & set(losses)


def test_a_gradient_longer_than_clip_is_shortened_to_it():
    x, y, r, v = a_batch()

    def gradient(clip):
        run = tiny_run(clip=clip)
        trip.ranker_step(run, x, y, r, run.G(x, v).detach())
        return torch.cat([p.grad.flatten() for p in run.R.parameters()])

    whole = gradient(0.0)
    assert whole.norm() > 0.1
    assert torch.allclose(gradient(0.1), 0.1 * whole / whole.norm(), atol=1e-5)
    assert torch.equal(gradient(1e6), whole)


def test_R_sees_the_pictures_of_a_batch_moved_together_by_up_to_shift_pixels():
    run, x = tiny_run(shift=3), numbers(4, 3, 32, 32)
    seen = [trip.augmented(run, x) for _ in range(300)]
    moves = {(dx, dy) for y in seen for dx in range(-3, 4) for dy in range(-3, 4)
             if torch.equal(y[:, :, 3:-3, 3:-3], x[:, :, 3 + dy:29 + dy, 3 + dx:29 + dx])}
    assert len(moves) == 49 and all(y.shape == x.shape for y in seen)
    assert torch.equal(trip.augmented(tiny_run(shift=0), x), x)


def test_R_sees_each_picture_in_colours_of_its_own():
    """A grey picture stays grey; others keep their shapes, and the mean over many colours is the picture itself."""
    x = numbers(3, 32, 32)[None].expand(4000, -1, -1, -1)
    seen = trip.augmented(tiny_run(shift=0, colour=1.0), x)
    assert seen[:8].flatten(1).std(0).min() > 0.05 and (seen.mean(0) - x[0]).abs().max() < 0.1
    grey = x[:, :1].expand(-1, 3, -1, -1)
    seen = trip.augmented(tiny_run(shift=0, colour=1.0), grey)
    assert torch.allclose(seen, seen[:, :1].expand(-1, 3, -1, -1), atol=1e-6)
    assert (torch.corrcoef(seen[:50, 0].flatten(1)) > 0.999).all()
    some = trip.augmented(tiny_run(shift=0, colour=0.1), x) - x
    assert some.abs().max() < (trip.augmented(tiny_run(shift=0, colour=1.0), x) - x).abs().max() / 5


@pytest.mark.parametrize("settings, passes", [({}, 1), (dict(lam_c=1.0), 2)])
def test_an_iteration_calls_F_once_per_player_and_G_once_more_for_the_cycle(smiles, settings, passes):
    """(No hook sees the penalties' passes.)"""
    run, calls = tiny_run(**settings), []
    run.G.register_forward_hook(lambda *_: calls.append("G"))
    run.R.features.register_forward_hook(lambda *_: calls.append("F"))
    next(trip.train(run, data.pairs(smiles[0], 4, run.rng)))
    assert sorted(calls) == ["F", "F"] + passes * ["G"]


ALL_LOSSES = dict(lam_c=1.0, lam_o=1.0, slope=0.0)


@pytest.mark.parametrize("setting, gone", [("lam_rank", "rank"), ("lam_g", "gan"), ("lam_gp", "gp"),
                                           ("lam_slope", "slope")])
def test_an_ablation_takes_its_loss_out_and_no_other(setting, gone):
    names = {name for name, loss in both_steps(tiny_run(**ALL_LOSSES)).items() if loss > 0}
    assert len(names) == 10 and {f"ranker_{gone}"} <= names
    left = {name for name, loss in both_steps(tiny_run(**ALL_LOSSES, **{setting: 0.0})).items() if loss != 0}
    assert left == {name for name in names if not name.endswith(f"_{gone}")}


def test_lambda_0_and_cls_change_what_they_say():
    trips, zero, cls = (both_steps(tiny_run(**settings)) for settings in ({}, {"lam": 0.0}, {"cls": True}))
    assert zero["ranker_rank"] < trips["ranker_rank"]
    assert cls["ranker_rank"] == trips["ranker_rank"] and cls["generator_rank"] != trips["generator_rank"]


def test_weights_of_losses_multiply_them():
    names = ("lam_rank", "lam_g", "lam_gp", "lam_slope", "lam_c", "lam_keep", "lam_paint", "lam_o")
    one, two = (both_steps(tiny_run(slope=0.0, **dict.fromkeys(names, weight))) for weight in (1.0, 2.0))
    # the generator's losses are taken after the ranker's step, which the weights change (Adam: hardly)
    for name in one:
        rel = 1e-5 if name.startswith("ranker") else 0.05
        assert two[name] == pytest.approx(2 * one[name], rel=rel), name


# ------------------------------------------------------------------------------------------------------------
# Drawn faces

def test_faces_are_the_same_on_every_machine():
    images = data.faces(("smile",), 64, seed=0, n=200).images
    assert images.dtype == torch.uint8 and images.shape == (200, 3, 64, 64)
    digest = hashlib.sha256(images.numpy().tobytes()).hexdigest()
    assert digest == "7eccc2b681a2151d80378bc1775bc21c731e436b346db26899276bc61f4b980d"


def test_faces_differ_with_the_seed():
    assert not torch.equal(data.faces(("smile",), 32, seed=0, n=5).images,
                           data.faces(("smile",), 32, seed=1, n=5).images)


def test_a_face_takes_at_most_300_operations_a_pixel():
    """So 5,000 of 64 x 64 take 5 seconds on two slow cores; counted, for a clock depends on the machine."""
    class Counted(np.ndarray):
        done = 0

        def __array_ufunc__(self, ufunc, method, *inputs, out=None, **options):
            plain = [u.view(np.ndarray) if isinstance(u, Counted) else u for u in inputs]
            if out:
                options["out"] = tuple(u.view(np.ndarray) if isinstance(u, Counted) else u for u in out)
            result = getattr(ufunc, method)(*plain, **options)
            Counted.done += np.size(result)
            return out[0] if out else result.view(Counted) if isinstance(result, np.ndarray) else result

    person = data.faces(("smile",), 64, n=10).person
    pictures = data._draw(person.view(Counted), 64)
    assert np.array_equal(pictures, data.draw_faces(person, 64).numpy())
    assert 50 < Counted.done / (10 * 64 * 64) <= 300


def test_label_is_strength_above_one_half_and_strengths_are_independent():
    whole = data.faces(data.FACE_ATTRS, 32)
    assert torch.equal(whole.labels, whole.strength > 0.5)
    assert whole.strength.min() >= 0 and whole.strength.max() <= 1
    correlation = np.corrcoef(whole.person.T)  # attributes and traits, all against all
    assert np.abs(correlation - np.eye(len(correlation))).max() < 0.07  # 7 standard errors at 10,000 faces


def mouth_bend(image):
    """How far the corners of a drawn mouth stand above its middle, in pixels, read off the picture.

    Lips are redder than skin: the height of the redness's centre, outer columns against middle ones.
    """
    h, w = image.shape[1:]
    red = image[0].float() - image[1].float()
    area = red[int(0.6 * h):int(0.88 * h)]
    area = (area - area.median(0, keepdim=True).values).clamp(min=0)
    rows = torch.arange(len(area)).float()[:, None]
    centre = (area * rows).sum(0) / area.sum(0).clamp(min=1e-6)
    c = w // 2
    outer = torch.cat([centre[c - w // 8:c - w // 10], centre[c + w // 10:c + w // 8]])
    return (centre[c - w // 32:c + w // 32].mean() - outer.mean()).item()


def test_more_smile_strength_bends_the_mouth_further_up():
    some = data.faces(("smile",), 128, seed=3, n=30)
    some.person[:, list(data.FACE_ATTRS).index("beard")] = 0
    some.person[:, list(data.FACE_ATTRS).index("mouth_open")] = 0
    sweep = [data.redraw(some, torch.full((30, 1), s)) for s in (0.0, 0.25, 0.5, 0.75, 1.0)]
    bends = np.array([np.mean([mouth_bend(image) for image in images]) for images in sweep])
    assert (np.diff(bends) > 0.5).all() and bends[0] < 0 < bends[-1]


@pytest.mark.parametrize("k", [1, 2, 3], ids=data.FACE_ATTRS[1:])
def test_a_picture_moves_further_the_more_a_strength_moves(k):
    some = data.faces(data.FACE_ATTRS, 64, n=20)
    strength = some.strength.clone()
    pictures = []
    for s in (0.0, 0.25, 0.5, 0.75, 1.0):
        strength[:, k] = s
        pictures.append(data.redraw(some, strength).float())
    distances = torch.stack([(p - pictures[0]).abs().flatten(1).mean(1) for p in pictures])  # (5, 20)
    assert (distances.diff(dim=0) > 0).all()


def test_redraw_with_the_same_strengths_is_the_same_picture(faces):
    some = faces[1][:20]
    assert torch.equal(data.redraw(some, some.strength), some.images)


def test_region_holds_all_that_an_attribute_can_change_and_little_else(faces):
    some = faces[1][:20]
    for k in range(4):
        strength = some.strength.clone()
        strength[:, k] = 1 - strength[:, k]
        changed = (data.redraw(some, strength) != some.images).any(1, keepdim=True)
        region = data.region(some, k)
        assert region.shape == (20, 1, 32, 32) and region.dtype == torch.bool
        assert not (changed & ~region).any()
        assert 0 < region.float().mean() < 0.4
    assert not (data.region(some, 0) & data.region(some, 2)).any()  # a mouth doesn't touch the brows


def test_load_splits_90_to_10_without_overlap(faces):
    train, test = faces
    assert (len(train), len(test)) == (9000, 1000)
    everyone = {person.tobytes() for part in faces for person in part.person}
    assert len(everyone) == 10000
    again = data.drawn(data.FACE_ATTRS, 32, "", 0)
    assert torch.equal(again[1].images, test.images)


# ------------------------------------------------------------------------------------------------------------
# Pairs

def coded(labels):
    """A data set whose pictures say their own row number."""
    labels = torch.as_tensor(labels)
    rows = torch.arange(len(labels), dtype=torch.uint8)
    return data.Data(rows.view(-1, 1, 1, 1).expand(-1, 3, 4, 4), labels, tuple("ab"[:labels.shape[1]]))


def row_of(x):
    return ((x[:, 0, 0, 0] + 1) * 127.5).round().long()


def draw(some, n=200, batch=16, **options):
    """n batches of pairs as rows i, j and r."""
    stream = data.pairs(some, batch, rng(), **options)
    batches = [next(stream) for _ in range(n)]
    i, j, r = (torch.cat(parts) for parts in zip(*((row_of(x), row_of(y), r) for x, y, r in batches)))
    return i, j, r, batches


def test_r_is_the_sign_of_the_difference_of_the_labels():
    labels = torch.tensor([[1, 0], [0, 0], [1, 1], [0, 1], [0, 0]]).bool()
    some = coded(labels)
    i, j, r, batches = draw(some)
    assert torch.equal(r, labels[j].float() - labels[i].float())
    x, y, _ = batches[0]
    assert x.shape == y.shape == (16, 3, 4, 4) and x.dtype == r.dtype == torch.float32
    assert x.min() >= -1 and x.max() <= 1


@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
def test_half_of_the_pairs_are_plus_1_and_half_minus_1_however_rare_the_attribute(share):
    labels = torch.arange(200)[:, None] < 200 * share
    _, _, r, batches = draw(coded(labels))
    assert set(r.flatten().tolist()) == {-1.0, 1.0}
    assert all(r.sum() == 0 for _, _, r in batches)  # in every batch of even size


def test_every_picture_takes_part():
    labels = torch.arange(40)[:, None] < 10
    i, j, _, _ = draw(coded(labels))
    assert set(i.tolist()) == set(j.tolist()) == set(range(40))


def test_ties_are_the_asked_share_of_pairs_with_r_0():
    labels = torch.arange(40)[:, None] < 10
    i, j, r, _ = draw(coded(labels), n=500, ties=0.3)
    assert (r == 0).float().mean().item() == pytest.approx(0.3, abs=0.02)
    assert (r == 1).float().mean().item() == pytest.approx(0.35, abs=0.02)
    ties = (r == 0).flatten()
    assert labels[i[ties]].float().mean().item() == pytest.approx(0.5, abs=0.05)  # ties of both kinds


def test_pairs_of_several_attributes_differ_in_one_at_least_and_are_balanced():
    generator = np.random.RandomState(0)
    labels = torch.from_numpy(generator.random_sample((200, 2)) < [0.1, 0.6])
    _, _, r, _ = draw(coded(labels), n=1000)
    assert (r != 0).any(1).all()
    for k in range(2):
        plus, minus = (r[:, k] == 1).float().mean(), (r[:, k] == -1).float().mean()
        assert abs(plus - minus) < 0.02 and plus > 0.2


def test_pairs_are_decided_by_the_generators_state(smiles):
    first = data.pairs(smiles[0], 4, rng(5))
    second = data.pairs(smiles[0], 4, rng(5))
    assert all(same(next(first), next(second)) for _ in range(3))


def test_pictures_come_mirrored_half_of_the_time():
    left = torch.zeros(20, 3, 4, 4, dtype=torch.uint8)
    left[..., 0] = 255
    some = data.Data(left, torch.arange(20)[:, None] < 10, ("a",))
    x, y, _ = next(data.pairs(some, 1000, rng()))
    mirrored = torch.cat([x, y])[:, 0, 0, 3] == 1
    assert mirrored.float().mean().item() == pytest.approx(0.5, abs=0.05)
    assert torch.equal(torch.cat([x, y])[:, 0, 0, 0] == 1, ~mirrored)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_an_attribute_that_no_or_every_picture_has_is_an_error(share, monkeypatch):
    def all_alike(attrs, size, root, seed):
        images = torch.zeros(50, 3, size, size, dtype=torch.uint8)
        return data.split(data.Data(images, torch.arange(50)[:, None] < 50 * share, attrs), 0)

    monkeypatch.setitem(data.DATASETS, "alike", (all_alike, ""))
    with pytest.raises(data.InputError, match=f"{int(45 * share)} of 45 training pictures have 'smile'"):
        data.load("alike", ["smile"], 32)


def test_pictures_of_any_mode_and_orientation_are_read_upright(tmp_path):
    half = np.zeros((40, 60, 3), np.uint8)
    half[:, :30] = 255, 0, 0  # red on the left
    Image.fromarray(half).save(tmp_path / "rgb.png")
    turned = Image.fromarray(half).rotate(90, expand=True)  # the camera held on its side ...
    exif = turned.getexif()
    exif[0x0112] = 6  # ... and a note to turn it back
    turned.save(tmp_path / "turned.png", exif=exif)
    Image.fromarray(half).convert("L").save(tmp_path / "grey.jpg")
    Image.fromarray(half).convert("P").save(tmp_path / "palette.gif")
    Image.fromarray(np.full((40, 60), 40000, np.uint16)).save(tmp_path / "deep.png")
    Image.fromarray(np.dstack([half, np.zeros((40, 60), np.uint8)]), "RGBA").save(tmp_path / "clear.png")
    upright = data.read_picture(tmp_path / "rgb.png", 32)
    assert upright.shape == (3, 32, 32) and upright.dtype == torch.uint8
    assert upright[:, 16, 4].tolist() == [255, 0, 0] and upright[:, 16, 28].tolist() == [0, 0, 0]
    assert (data.read_picture(tmp_path / "turned.png", 32).int() - upright.int()).abs().max() < 3
    assert data.read_picture(tmp_path / "palette.gif", 32).shape == (3, 32, 32)
    grey = data.read_picture(tmp_path / "grey.jpg", 32).int()
    assert (grey[0] - grey[1]).abs().max() == 0
    assert (data.read_picture(tmp_path / "deep.png", 32).int() - 40000 // 257).abs().max() <= 1
    assert (data.read_picture(tmp_path / "clear.png", 32) == 255).all()  # transparent: white


# ------------------------------------------------------------------------------------------------------------
# A run, its files, and what can go wrong with them

def test_a_run_writes_its_files(trained):
    assert {path.name for path in trained.iterdir()} == FILES
    rows = list(csv.DictReader(open(trained / "history.csv")))
    assert [row["step"] for row in rows] == ["2", "4", "6", "8"]
    assert {"gen_plus", "real_minus", "recon_l1", "ranker_rank", "generator_keep"} <= set(rows[0])
    summary = json.loads((trained / "summary.json").read_text())
    for name in ("real_plus real_zero real_minus gen_plus gen_zero gen_minus gen_plus_std gen_zero_std "
                 "gen_minus_std pair_accuracy recon_l1 seconds").split():
        assert isinstance(summary[name], float), name
    assert (summary["steps"], summary["seed"], summary["device"]) == (8, 0, "cpu")
    assert summary["config"]["attr"] == ["smile"] and summary["config"]["size"] == 32
    raw = np.load(trained / "ranker.npz")
    assert {f"{moment}.gen_plus.smile" for moment in ("start", "early", "end")} <= set(raw)
    for picture in ("samples.png", "ranker.png"):
        assert np.asarray(Image.open(trained / picture).convert("L")).std() > 10


def test_several_attributes_train_together_and_report_a_list_each(tmp_path):
    options = ["--attr", "smile", "beard", "--steps", "4", *TINY, "--out", str(tmp_path)]
    assert trip.main(options) == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert len(summary["gen_plus"]) == len(summary["pair_accuracy"]) == 2
    header = next(csv.reader(open(tmp_path / "history.csv")))
    assert "gen_plus.smile" in header and "gen_plus.beard" in header
    assert trip.load(tmp_path)[0](torch.zeros(1, 3, 32, 32), torch.zeros(1, 2)).shape == (1, 3, 32, 32)
    assert trip.main([*options[:3], "--out", str(tmp_path), "--edit", str(tmp_path / "samples.png"), "--v",
                      "1,-1", "-1,0"]) == 0


def test_the_summary_averages_the_last_fifth_but_at_least_ten_measurements():
    run = tiny_run(steps=100)

    def summary(every):
        run.history = [{"step": s, **{name: [float(s)] for name in eval.OUTPUTS}, "pair_accuracy": [1.0],
                        "recon_l1": 0.5}
                       for s in range(every, 101, every)]
        return eval.summarise(run)

    assert summary(1)["gen_plus"] == pytest.approx(np.mean(range(81, 101)))
    assert summary(5)["gen_plus"] == pytest.approx(np.mean(range(55, 101, 5)))


def test_measurement_follows_the_papers_convention(smiles):
    """v = -1 goes to pictures with the attribute, v = +1 to those without, v = 0 to all (footnote 3)."""
    run = tiny_run()
    x, labels = eval.probe(smiles[1], "cpu")
    assert labels.float().mean() == 0.5
    run.G.forward = lambda x, v: (x + v[:, :, None, None]).clamp(-1, 1)  # a generator that is easy to follow
    outputs, row = eval.measure(run, x, labels)

    def R(a, b):
        return run.R.rank(run.R.features(a), run.R.features(b))[:, 0].detach()

    has = labels[:, 0]
    assert torch.allclose(outputs["gen_plus"][0], R(x[~has], (x[~has] + 1).clamp(-1, 1)), atol=1e-4)
    assert torch.allclose(outputs["gen_minus"][0], R(x[has], (x[has] - 1).clamp(-1, 1)), atol=1e-4)
    assert torch.allclose(outputs["gen_zero"][0], R(x, x), atol=1e-4)
    assert row["recon_l1"] == pytest.approx(0, abs=1e-6)
    assert row["gen_plus_std"] == [outputs["gen_plus"][0].std().item()]
    assert row["real_plus"][0] == outputs["real_plus"][0].mean().item()


def test_measuring_leaves_the_training_as_it_was(smiles):
    """Two runs that differ only in how often they are measured end with the same weights."""
    ends = []
    for every in (1, 4):
        run = tiny_run(steps=4, warmup=1, measure_every=every)
        list(eval.watch(run, *smiles))
        ends.append(run.G.state_dict())
    assert same(*ends)


def test_the_same_seed_gives_the_same_run_and_another_seed_another(smiles):
    def end(seed):
        run = tiny_run(steps=3, warmup=1, seed=seed)
        records = list(eval.watch(run, *smiles))
        assert [record["step"] for record in records] == [1, 2, 3]
        return run.G.state_dict()

    first = end(0)
    assert same(first, end(0)) and not same(first, end(1))


def read_run(out):
    """What a run leaves behind, but for the time it took."""
    state = torch.load(out / "trip.pt", weights_only=True)
    summary = json.loads((out / "summary.json").read_text())
    raw = np.load(out / "ranker.npz")
    del state["seconds"], summary["seconds"]
    return state, summary, (out / "history.csv").read_text(), {name: raw[name].tolist() for name in raw}


def assert_same_run(a, b):
    a, b = read_run(a), read_run(b)
    assert len(tensors(a[0])) > 50 and same(a[0], b[0])
    assert a[1:] == b[1:]


def stop_at(monkeypatch, step, number=signal.SIGINT):
    """Press Ctrl-C in iteration `step`."""
    progress = eval.progress

    def pressed(run):
        tell = progress(run)

        def told(record):
            if record["step"] == step:
                signal.raise_signal(number)
            tell(record)
        return told

    monkeypatch.setattr(eval, "progress", pressed)


def test_a_stopped_and_resumed_run_ends_bit_for_bit_as_one_that_was_not(trained, tmp_path, monkeypatch,
                                                                        capsys):
    options = ["--steps", "8", *TINY, "--out", str(tmp_path)]
    with monkeypatch.context() as patch:
        stop_at(patch, 5)  # between two checkpoints and two measurements
        assert trip.main(options) == 130
    said = capsys.readouterr().out.strip().splitlines()[-1]
    assert "iteration 5" in said
    assert f"python trip.py --out={tmp_path.as_posix()} --resume" in said
    # pictures so far; no summary, no page of the dial yet
    assert {path.name for path in tmp_path.iterdir()} == FILES - {"summary.json", "dial.html", "dial.gif"}
    assert trip.main([*options, "--resume"]) == 0  # the command as it was, or no option at all
    assert_same_run(trained, tmp_path)


def test_ctrl_c_prints_nothing_itself_for_the_loop_may_be_printing(tmp_path, monkeypatch, capsys):
    raised, said = signal.raise_signal, []
    monkeypatch.setattr(signal, "raise_signal",
                        lambda n: (capsys.readouterr(), raised(n), said.append(capsys.readouterr())))
    stop_at(monkeypatch, 1)
    assert trip.main(["--steps", "2", *TINY, "--out", str(tmp_path)]) == 130
    assert said == [("", "")] and "stopped and saved" in capsys.readouterr().out


@pytest.mark.parametrize("step", [1, 8])
def test_ctrl_c_in_the_first_or_the_last_iteration(step, tmp_path, monkeypatch):
    before = signal.getsignal(signal.SIGINT)  # (some shells start background programs with it ignored)
    stop_at(monkeypatch, step)
    assert trip.main(["--steps", "8", *TINY, "--out", str(tmp_path)]) == (130 if step == 1 else 0)
    assert trip.restore(tmp_path).step == step
    assert signal.getsignal(signal.SIGINT) is before


def test_the_end_of_a_cluster_job_saves_as_ctrl_c_does(tmp_path, monkeypatch):
    stop_at(monkeypatch, 3, signal.SIGTERM)
    assert trip.main(["--steps", "8", *TINY, "--out", str(tmp_path)]) == 130
    assert trip.restore(tmp_path).step == 3


def test_a_full_disk_is_one_line_and_leaves_the_last_checkpoint(trained, tmp_path, monkeypatch, capsys):
    (tmp_path / "trip.pt").write_bytes((trained / "trip.pt").read_bytes())

    def full(*_):
        raise RuntimeError("PytorchStreamWriter failed writing file: file write failed")

    monkeypatch.setattr(torch, "save", full)
    assert trip.main(["--steps", "10", "--resume", "--out", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "failed writing" in said and said.count("\n") == 1
    assert (tmp_path / "trip.pt").read_bytes() == (trained / "trip.pt").read_bytes()


def test_more_steps_do_not_bring_the_warm_up_back(trained, tmp_path):
    shutil.copy(trained / "trip.pt", tmp_path)
    assert trip.main(["--steps", "40", "--save_every", "40", "--resume", "--out", str(tmp_path)]) == 0
    assert json.loads((tmp_path / "summary.json").read_text())["steps"] == 40
    rows = list(csv.DictReader(open(tmp_path / "history.csv")))
    assert [row["step"] for row in rows] == [str(step) for step in range(2, 41, 2)]
    assert [row["step"] for row in rows if not row["ranker_rank"]] == ["2"]  # a quarter of 8


def test_overwrite_starts_anew_and_leaves_nothing_of_the_old_run(tmp_path):
    for old in ("trip.pt", "trip.pt.new", "samples.beard.png", "summary.json", "dial.html", "edit.png",
                "edit.html", "eval.json", "fig6_box.png", "truth.png"):
        (tmp_path / old).write_text("old")
    for mine in ("ranker.txt", "samples_of_mine.png"):
        (tmp_path / mine).write_text("mine")
    assert trip.main(["--steps", "2", *TINY, "--out", str(tmp_path), "--overwrite"]) == 0
    assert {path.name for path in tmp_path.iterdir()} == FILES | {"ranker.txt", "samples_of_mine.png"}


def test_a_run_killed_while_saving_goes_on_from_the_checkpoint_before(trained, tmp_path, monkeypatch):
    class Killed(BaseException):
        """No except clause hears of it, as of a kill."""

    whole, saves = torch.save, []

    def killed(state, file):
        whole(state, file)
        saves.append(file)
        if len(saves) == 3:  # iteration 8: half the file is written, then ...
            file.truncate(file.tell() // 2)
            raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(torch, "save", killed)
        trip.main(["--steps", "8", *TINY, "--out", str(tmp_path)])
    assert trip.restore(tmp_path).step == 4
    assert trip.main(["--out", str(tmp_path), "--resume"]) == 0
    assert_same_run(trained, tmp_path)


def test_a_checkpoint_is_on_the_disk_before_it_takes_the_place_of_the_old_one(tmp_path, monkeypatch):
    done = []
    for name in ("fsync", "replace"):
        whole = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, name=name, whole=whole: (done.append(name), whole(*a))[1])
    data.store({"a": torch.ones(1)}, tmp_path / "trip.pt")
    assert done == ["fsync", "replace"] and [path.name for path in tmp_path.iterdir()] == ["trip.pt"]


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_checkpoint(tmp_path, monkeypatch,
                                                                                    capsys):
    whole = trip.keep_loss
    with monkeypatch.context() as patch:
        calls = []
        patch.setattr(trip, "keep_loss", lambda *a: calls.append(0)
                      or whole(*a) * (float("nan") if len(calls) == 5 else 1))  # (called twice an iteration)
        assert trip.main(["--steps", "8", *TINY, "--warmup", "0", "--save_every", "2", "--out",
                          str(tmp_path)]) == 1
    said = capsys.readouterr().err.strip()
    assert "iteration 3" in said and "generator_keep" in said and str(tmp_path) in said and "\n" not in said
    run = trip.restore(tmp_path)
    assert run.step == 2 and all(t.isfinite().all() for t in tensors(run.G.state_dict()))


def test_a_program_whose_weights_are_no_longer_finite_says_so_in_one_line(trained, tmp_path):
    """As typed: there the file is the module __main__, and eval must not import another copy of it."""
    state = torch.load(trained / "trip.pt", weights_only=True)
    state["R"]["rank_head.1.weight"] *= float("nan")
    torch.save(state, tmp_path / "trip.pt")
    done = subprocess.run([sys.executable, HERE / "trip.py", "--resume", "--out", tmp_path], text=True,
                          capture_output=True)
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "no longer finite" in done.stderr


def test_a_checkpoint_from_a_stranger_runs_no_code(tmp_path, capsys):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "boom"),)

    torch.save({"config": Bomb()}, tmp_path / "trip.pt")
    assert trip.main(["--out", str(tmp_path), "--resume"]) == 2
    assert not (tmp_path / "boom").exists()


def test_the_ranker_learns_and_the_generator_heeds_it(smiles):
    run = trip.Run(trip.Config(size=32, steps=400, g_width=8, g_blocks=2, measure_every=20, shift=1,
                               lam=0.6))
    list(eval.watch(run, *smiles))
    row = eval.summarise(run)
    assert row["pair_accuracy"] > 0.85
    assert row["real_plus"] > 0.3 and row["real_minus"] < -0.3 and abs(row["real_zero"]) < 0.15
    assert row["gen_plus"] > 0.2 and row["gen_minus"] < -0.2 and abs(row["gen_zero"]) < 1e-4
    assert row["gen_plus"] < 0.8 and row["gen_minus"] > -0.8  # the rivals meet below +-1
    assert row["recon_l1"] < 1e-4


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_run_works_on_an_accelerator(device, tmp_path):
    if not (torch.cuda if device == "cuda" else torch.backends.mps).is_available():
        pytest.skip(f"no {device} here")
    options = ["--out", str(tmp_path), "--device", device]
    assert trip.main(["--steps", "4", *TINY, *options]) == 0
    assert trip.main(["--steps", "6", "--resume", *options]) == 0
    assert json.loads((tmp_path / "summary.json").read_text())["device"] == device


# ------------------------------------------------------------------------------------------------------------
# For other code, and for one's own pictures

def test_load_and_translate_give_what_the_run_learned(trained, smiles):
    torch.manual_seed(5)
    G, R, config = trip.load(trained)
    drawn = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(drawn, torch.rand(1))  # the caller's random numbers go on as they were
    assert not G.training and not R.training and config.attr == ("smile",)
    x = data.as_float(smiles[1].images[:70])
    y = eval.translate(G, x, torch.tensor([-1.0, 0.5]))
    assert y.shape == (70, 2, 3, 32, 32) and not y.requires_grad
    with torch.no_grad():
        assert torch.allclose(y[66:, 1], G(x[66:], torch.full((4, 1), 0.5)), atol=1e-5)
    assert torch.equal(eval.translate(G, x[:2], [[-1.0], [0.5]]), eval.translate(G, x[:2], [-1.0, 0.5]))


def test_edit_writes_a_strip_of_any_picture(trained, tmp_path, capsys):
    (tmp_path / "trip.pt").write_bytes((trained / "trip.pt").read_bytes())
    pictures = [str(trained / "samples.png"), str(tmp_path / "grey.png")]
    Image.new("L", (50, 20), 99).save(pictures[1])
    assert trip.main(["--out", str(tmp_path), "--edit", *pictures, "--v", "-1", "-0.5", "0", "0.5", "1"]) == 0
    assert Image.open(tmp_path / "edit.png").width > Image.open(tmp_path / "edit.png").height
    said = capsys.readouterr()
    assert "edit.png" in said.out and "drawn faces" in said.err and "never saw" not in said.err
    assert trip.main(["--out", str(tmp_path), "--edit", pictures[0], "--v", "1.5"]) == 0
    assert "never saw" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"trip.pt", "grey.png", "edit.png", "edit.html"}
    assert (tmp_path / "edit.html").read_text().count("<figure>") == 1


def test_help_names_every_setting_with_its_default(capsys):
    with pytest.raises(SystemExit) as stopped:
        trip.main(["--help"])
    said = capsys.readouterr().out
    assert stopped.value.code == 0
    for name, default in asdict(trip.Config()).items():
        assert f"--{name}" in said
    assert said.count("(default:") >= len(asdict(trip.Config())) and "--edit" in said and "--resume" in said


@pytest.mark.parametrize("options, says", [
    ("--attr smiel", "'smile'"),
    ("--attr smile smile", "twice"),
    ("--data facs", "'faces'"),
    ("--size 48", "32 64 128"),
    ("--size 16", "32 64 128"),
    ("--size large", "--size"),
    ("--steps 0", "--steps 0"),
    ("--batch 0", "--batch 0"),
    ("--batch 10000", "9000"),
    ("--lr_g nan", "--lr_g"),
    ("--lam -1", "--lam"),
    ("--ties 2", "--ties"),
    ("--beta1 1", "--beta1"),
    ("--seed -1", "--seed"),
    ("--attr smile frown --ties 0.3", "--ties is for one attribute"),
    ("--v 1", "--edit"),
    ("--g_down 9", "--g_down 9: must be a number from 0 to 3"),
    ("--g_width 1000000", "1024"),
    ("--lr_g 1e300", "1000000"),
    ("--device meta", "--device meta"),
    ("--device tpu9", "--device tpu9"),
    ("--wdth 3", "--wdth"),
    ("--resume", "no run"),
    ("--resume --overwrite", "--overwrite"),
    ("--edit me.png", "no run"),
])
def test_wrong_input_gets_one_line_and_exit_code_2_and_changes_nothing(options, says, tmp_path, capsys):
    out = tmp_path / "out"
    small = ["--steps", "2", *TINY]
    given = options.split()
    small = [part for i in range(0, len(small), 2) if small[i] not in given for part in small[i:i + 2]]
    assert trip.main([*(small if "--resume" not in given else []), *given, "--out", str(out)]) == 2
    said = capsys.readouterr()
    assert says in said.err and said.err.count("\n") == 1 and "Traceback" not in said.err, said.err
    assert not (out / "trip.pt").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a cuda device")
def test_cuda_where_there_is_none_is_one_line(tmp_path, capsys):
    assert trip.main(["--device", "cuda", "--out", str(tmp_path / "out")]) == 2
    assert "--device cpu" in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.parametrize("options, says", [
    ("--attr smile", "--overwrite"),  # a run is there
    ("--edit samples.png --overwrite", "--overwrite"),
    ("--resume --attr beard", "--attr smile, not beard"),
    ("--resume --size 64", "--size 32, not 64"),
    ("--resume --preset paper", "--size 32, not 256, as --preset paper has it"),
    ("--resume --steps 3", "has done 8 iterations: --steps must be as many or more"),
    ("--edit none.png", "none.png"),
    ("--edit trip.py", "picture"),
    ("--edit samples.png --v a", "--v a"),
    ("--edit samples.png --v 1,1", "--v 1,1"),
    ("--edit samples.png --v nan", "--v nan"),
])
def test_a_run_is_never_changed_by_wrong_input(options, says, trained, capsys, monkeypatch):
    def contents():
        return {path.name: path.read_bytes() for path in trained.iterdir()}

    before = contents()
    given = [str(trained / "samples.png") if part == "samples.png" else str(HERE / part)
             if part == "trip.py" else part
             for part in options.split()]
    assert trip.main([*given, "--out", str(trained)]) == 2
    said = capsys.readouterr().err
    assert says in said and said.count("\n") == 1
    assert contents() == before


@pytest.mark.parametrize("damage, says", [
    ("empty", "damaged"), ("truncated", "damaged"), ("foreign", "another version"), ("no file", "no run"),
    ("a setting that is unknown here", "another version of this program (it differs in the settings zoom)"),
    ("a setting less", "another version of this program (it differs in the settings lam)"),
    ("a weight less", 'Missing key(s) in state_dict: "rank_head.1.weight"'),
])
def test_a_checkpoint_that_is_damaged_or_does_not_fit_is_one_line(damage, says, trained, tmp_path, capsys):
    path = tmp_path / "trip.pt"
    whole, state = (trained / "trip.pt").read_bytes(), torch.load(trained / "trip.pt", weights_only=True)
    if damage == "foreign":
        state = {"model": torch.zeros(3)}
    elif damage == "a setting that is unknown here":
        state["config"]["zoom"] = 2
    elif damage == "a setting less":
        del state["config"]["lam"]
    elif damage == "a weight less":
        del state["R"]["rank_head.1.weight"]
    if damage in ("empty", "truncated"):
        path.write_bytes(whole[:0 if damage == "empty" else len(whole) // 2])
    elif damage != "no file":
        torch.save(state, path)
    before = path.read_bytes() if path.exists() else None
    for options in (["--resume"], ["--edit", str(trained / "samples.png")]):
        assert trip.main([*options, "--out", str(tmp_path)]) == 2
        said = capsys.readouterr().err
        assert says in said and str(tmp_path) in said and said.count("\n") == 1
    assert (path.read_bytes() if path.exists() else None) == before


def test_a_folder_that_cannot_be_written_to_is_one_line(tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        assert trip.main(["--steps", "2", *TINY, "--out", str(out)]) == 2
        said = capsys.readouterr().err
        assert str(out) in said and said.count("\n") == 1
    assert (tmp_path / "file").read_text() == "mine"


def test_everything_works_without_docstrings(monkeypatch, capsys, tmp_path):
    """As under python -OO, which strips them."""
    for name in ("data", "trip"):
        module = types.ModuleType(name)
        monkeypatch.setitem(sys.modules, name, module)
        exec(compile((HERE / f"{name}.py").read_text(encoding="utf-8"), name, "exec", optimize=2),
             module.__dict__)
    assert module.__doc__ is module.parse.__doc__ is None
    with pytest.raises(SystemExit):
        module.main(["--help"])
    assert trip.fields(trip.Config)[8].metadata["help"].split(" [")[0] in capsys.readouterr().out
    assert module.main(["--data", "celeba", "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert "--data celeba needs --root: the folder that holds list_attr_celeba.txt" in said
    assert said.count("\n") == 1


# ------------------------------------------------------------------------------------------------------------
# The house

def lines_of(name):
    return (HERE / name).read_text(encoding="utf-8").splitlines()


def test_the_house_stays_small():
    lines = lines_of("trip.py")
    method = next(i for i, line in enumerate(lines) if line.startswith("# ===="))
    assert method <= 461 and len(lines) <= 700 and max(map(len, lines)) <= 110
    assert len(lines_of("README.md")) <= 170


def test_imports_go_one_way_and_the_method_never_asks_eval():
    def imported(nodes):
        return {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names} | {
            node.module for node in nodes if isinstance(node, ast.ImportFrom)}

    trees = {name: ast.parse("\n".join(lines_of(f"{name}.py"))) for name in ("data", "trip")}
    assert not {"trip", "eval"} & imported(ast.walk(trees["data"]))
    assert "data" in imported(trees["trip"].body) and "eval" not in imported(trees["trip"].body)
    ruled = 1 + next(i for i, line in enumerate(lines_of("trip.py")) if line.startswith("# ===="))
    assert "eval" not in imported(node for node in ast.walk(trees["trip"])
                                  if getattr(node, "lineno", ruled) < ruled)
