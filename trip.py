"""TRIP, translation via rival preferences (ICLR 2021 submission), in one file.

    python trip.py --attr smile                                    train on drawn faces; results in runs/smile
    python trip.py --attr smile --resume                           go on with a run that was stopped
    python trip.py --attr smile --edit me.png --v -1 -0.5 0 0.5 1  apply it to a picture
    python trip.py --help                                          every setting, with its default

There are two players. The generator G(x, v) gives face x more (v > 0) or less (v < 0) of a smile.
The ranker R(x, y) says how much more of it face y shows than face x. A third, the discriminator D(x), says
whether x is a real picture, by R's features F: `ranker_step`, `opt_r` and `lr_r` are of both.
R learns +1 and -1 from real pairs, and 0, "no difference", from generated pairs (x, G(x, v)), while G wants
to hear v of them: rival preferences. By default R is the mean of two rank heads, each with a loss of its own.
One scores each picture by itself, and says about v of generated pairs; the other sees the pair, and learns to
say 0 where one person is shown twice. So R says about r of real pairs, and v / 2 of generated ones. The rest
of x stays: every changed pixel costs, moves cost, and so does paint. D keeps photographs real; by default it
is off (its weight is 0), as it finds little in drawn faces that are moved rather than painted.

    paper           what it is                                      here
    Table 4, 3      networks                                        Ranker; PaperGenerator, SwitchNorm (below)
    (none)          the default's generator: warps, adds paint      warp, Generator
    Eq. 1, 4        R(x, y) and R(x, G(x, v)); ours: two heads      Ranker
    Eq. 3           sign(v) as the target ("CLS")                   cls_target
    Eq. 2, 5a, 7a   ranking loss of the ranker                      ranker_rank_loss
    Eq. 5b, 7b      ranking loss of the generator                   generator_rank_loss
    Eq. 6a, 6b      GAN losses of D, of the generator (off)         ranker_gan_loss, generator_gan_loss
    L_cycle         x -> G(x, v) -> x (off)                         cycle_loss
    L_gp, L_o       gradient penalty; orthogonal kernels (off)      gradient_penalty, orthogonal_penalty
    (none)          change little, paint little; move little        identity_loss; flow_loss
    Fig. 10         the players' total losses, a step of each       ranker_step, generator_step
    the algorithm   an iteration, and all of them                   train
    Sec. 4          settings                                        Config, PRESETS

Shapes: B pictures in a batch, K attributes; pictures float (B, 3, H, W), pixels in [-1, 1]; v and r (B, K).
The method ends at the line of ====. Below: the paper's generator, checkpoints, torchrun (`team`), commands.
"""

import argparse
import math
import os
import re
import signal
import sys
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

import data
import eval  # drives `train`, measures and draws; the method does not call it
from data import InputError


# ------------------------------------------------------------------------------------------------------------
# Networks

def he_weights(net):
    """He et al.'s first weights: with PyTorch's own a signal fades in a network without normalisation."""
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, a=0.01)  # (LeakyReLU's slope)
            nn.init.zeros_(layer.bias)


def condition(x, v):
    """Picture and strengths for a convolution: (B, 3 + K, H, W), v_k as a constant plane."""
    return torch.cat([x, v[:, :, None, None].expand(-1, -1, *x.shape[2:])], 1)


class Residual(nn.Sequential):
    """x plus what its layers make of it."""

    def forward(self, x):
        return x + super().forward(x)


def warp(x, flow):
    """x moved: at each place what x shows at place + flow (bilinear; beyond the edge, the edge).

    x: (B, 3, H, W). flow: (B, 2, H, W), to the right and down; 2 is from the first pixel to the last one.
    """
    ys, xs = (torch.linspace(-1, 1, n, device=x.device) for n in x.shape[2:])  # the pixels' places
    places = torch.stack(torch.meshgrid(xs, ys, indexing="xy"), 2) + flow.movedim(1, 3)  # (B, H, W, 2)
    return nn.functional.grid_sample(x, places.clamp(-1, 1), align_corners=True)


class Generator(nn.Module):
    """G(x, v) = warp(x, sum_k v_k flow_k / 10) + sum_k v_k paint_k, cut to [-1, 1].

    x: (B, 3, H, W), v: (B, K); the same shape as x returned. At v = 0 it is x, but for rounding. The layers
    get v as an input, too: flow and paint need not be linear in v. A small U-Net (skips are added) without
    normalisation, whose statistics would tint what is to stay. size: of the pictures that the layers see, in
    pixels; of the flow there is one arrow for 2 x 2 of these. x of any other H and W is resized for them, and
    what they say is resized for x: so skin and hair stay as sharp as they came. grey: paint has no colour.
    """

    def __init__(self, K=1, width=16, size=64, grey=False):
        super().__init__()
        self.size = size
        channels = [width, 2 * width, 4 * width]
        c = channels[-1]
        self.act = nn.LeakyReLU(0.01)  # (plain ReLUs may die: then G stays as it is)
        self.first = nn.Conv2d(3 + K, width, 3, 1, 1)  # (B, width, H, W)
        self.down = nn.ModuleList([nn.Conv2d(a, 2 * a, 4, 2, 1) for a in channels[:-1]])  # halves H and W
        self.blocks = nn.Sequential(*[
            Residual(nn.Conv2d(c, c, 3, 1, 1), self.act, nn.Conv2d(c, c, 3, 1, 1)) for _ in range(3)])
        self.flow = nn.Conv2d(c // 2, 2 * K, 3, 1, 1)
        self.up = nn.ModuleList([nn.Conv2d(2 * a, a, 3, 1, 1) for a in channels[-2::-1]])  # and back
        self.paint = nn.Conv2d(width, K if grey else 3 * K, 3, 1, 1)
        he_weights(self)
        quiet = [(block[-1], 0.1) for block in self.blocks] + [(self.flow, 0.01), (self.paint, 0.01)]
        for layer, scale in quiet:  # begin with small changes
            layer.weight.data *= scale

    def forward(self, x, v, parts=False):
        """parts: return x warped, before paint is added, and flow (B, 2, H/2, W/2), in tenths, as well."""
        resize = nn.functional.interpolate
        small = x if x.shape[2:] == (self.size, self.size) else resize(
            x, (self.size, self.size), mode="bilinear", antialias=True)
        flow, paint = ((v[:, :, None, None, None] * change).sum(1) for change in self.changes(small, v))
        x_warped = warp(x, resize(0.1 * flow, x.shape[2:], mode="bicubic"))
        picture = (x_warped + resize(paint, x.shape[2:], mode="bicubic")).clamp(-1, 1)
        return (picture, x_warped, flow) if parts else picture

    def changes(self, x, v):
        """What v_k multiplies: flow (B, K, 2, H/2, W/2), in tenths of warp's; paint (B, K, 3 or 1, H, W)."""
        features, seen = self.act(self.first(condition(x, v))), []
        for layer in self.down:
            seen.append(features)
            features = self.act(layer(features))
        features, changes = self.blocks(features), []
        for layer, change in zip(self.up, (self.flow, self.paint)):  # (transposed ones leave a checkerboard)
            larger = nn.functional.interpolate(layer(features), scale_factor=2, mode="bilinear")
            features = self.act(larger + seen.pop())
            changes.append(change(features).float().unflatten(1, (v.shape[1], -1)))
        return changes


class Odd(nn.Sequential):
    """Its layers h made odd, (h(d) - h(-d)) / 2: as d = F(y) - F(x), R(y, x) = -R(x, y) and R(x, x) = 0."""

    def forward(self, d):
        return (super().forward(d) - super().forward(-d)) / 2


class Ranker(nn.Module):
    """One feature stack F (Table 4) for the rank heads, which get F(y) - F(x), and D's head, which gets F(x).

    R in the code is the whole network: R(x, y), and D(x) = R.discriminate(R.features(x)).
    size: of the pictures, in pixels. F has as many stride-2 layers as it takes to end at 4 x 4 (six at 256).
    head: the rank heads, whose mean is R(x, y). "score" is linear, so it is s(y) - s(x), a score of each
    picture by itself, and cannot see that x and G(x, v) are one person. "pair" is Table 4's, made odd; it
    can, and learns to say 0 then. "both", the default: one of each. "paper": Table 4's as it is printed.
    """

    def __init__(self, K=1, width=64, size=256, head="both"):
        super().__init__()
        channels = [3] + [width << i for i in range(int(math.log2(size // 4)))]
        layers = [[nn.Conv2d(a, b, 4, 2, 1), nn.LeakyReLU(0.01)] for a, b in zip(channels, channels[1:])]
        c = channels[-1]
        self.features = nn.Sequential(*sum(layers, []))  # F: (B, 3, H, W) -> (B, c, 4, 4)
        score = nn.Sequential(nn.Flatten(), nn.Linear(16 * c, K, bias=False))
        kind = nn.Sequential if head == "paper" else Odd  # (linear at first, while its biases are 0)
        pair = kind(nn.Conv2d(c, c, 1), nn.LeakyReLU(0.01), nn.Flatten(),
                    nn.Linear(16 * c, K, bias=head == "paper"))
        self.rank_heads = nn.ModuleList({"both": [score, pair], "score": [score]}.get(head, [pair]))
        self.gan_head = nn.Sequential(nn.Flatten(), nn.Linear(16 * c, 1))
        he_weights(self)

    def forward(self, x, y):
        """R(x, y): (B, K), how much more of each attribute picture y shows than x (Eq. 1)."""
        return self.rank(self.features(x), self.features(y))

    def rank(self, fx, fy):
        """R(x, y), (B, K), from F(x) and F(y): the mean of the rank heads (Eq. 1; with y = G(x, v) Eq. 4)."""
        return sum(self.each_head(fx, fy)) / len(self.rank_heads)

    def each_head(self, fx, fy):
        """What each rank head says, a list of (B, K): `ranker_step` trains each head by itself."""
        return [head(fy - fx).float() for head in self.rank_heads]

    def discriminate(self, fx):
        """Eq. 6: D(x) from the features F(x): (B, 1), 1 for real and 0 for generated."""
        return self.gan_head(fx).float()


# ------------------------------------------------------------------------------------------------------------
# Losses: tensors in, scalar out

def ranker_rank_loss(real, r, fake, lam):
    """Eq. 2, 5a (K attributes: 7a): score real pairs as their label r, generated pairs as 0, "no difference".

    real: R(x, y), or one head's answer; r: its label in {-1, 0, 1}; fake: the same of (x, G(x, v)); all
    (B, K). lam: weight of the rival term. Summed over the K attributes, averaged over the pairs.
    """
    return ((real - r) ** 2).sum(1).mean() + lam * (fake ** 2).sum(1).mean()


def generator_rank_loss(fake, v):
    """Eq. 5b (K attributes: 7b): make the ranker say v of the generated pair.

    fake: (B, K) R(x, G(x, v)), Eq. 4; v: (B, K), what it should be (`cls_target(v)` in the ablation).
    """
    return ((fake - v) ** 2).sum(1).mean()


def cls_target(v):
    """Eq. 3: the ablation "CLS" gives the generator the target sign(v) instead of v."""
    return v.sign()


def ranker_gan_loss(real, fake):
    """Eq. 6a, least squares: D(x) should be 1 and D(G(x, v)) 0. real, fake: (B, 1)."""
    return ((real - 1) ** 2).mean() + (fake ** 2).mean()


def generator_gan_loss(fake):
    """Eq. 6b: D(G(x, v)) should be 1. fake: (B, 1)."""
    return ((fake - 1) ** 2).mean()


def cycle_loss(x, back):
    """L_cycle = E |G(G(x, v), -v) - x| (CycleGAN): the way back gives x again. x, back: (B, 3, H, W)."""
    return (back - x).abs().mean()


def identity_loss(x, fake):
    """E [(fake - x)^2]: change little; given x warped as x, paint little. Ours. x, fake: (B, 3, H, W)."""
    return ((fake - x) ** 2).mean()


def flow_loss(flow):
    """E flow^2, and of its change over a 16th of x, lest lips fold to a W. Ours. flow: (B, 2, h, w)."""
    slopes = [flow.shape[d] / 16 * flow.diff(dim=d) for d in (2, 3)]
    return sum((u ** 2).mean() for u in (flow, *slopes))


def gradient_penalty(R, x, fake, a, center):
    """L_gp = E [(||grad D(z)||_2 - center)^2] at z = a x + (1 - a) G(x, v) (WGAN-GP, RelGAN: center 1).

    x, fake: (B, 3, H, W); a: (B, 1, 1, 1), uniform in [0, 1].
    """
    z = (a * x + (1 - a) * fake).requires_grad_()
    d = R.discriminate(R.features(z))
    grad, = torch.autograd.grad(d.sum(), z, create_graph=True)
    return ((grad.flatten(1).norm(dim=1) - center) ** 2).mean()


def orthogonal_penalty(net):
    """L_o: squared off-diagonal entries of W W^T, a row of W a filter, summed over net's convolutions."""
    total = 0
    for layer in net.modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
            w = layer.weight.transpose(0, 1) if isinstance(layer, nn.ConvTranspose2d) else layer.weight
            gram = w.flatten(1) @ w.flatten(1).T  # (out, out)
            total = total + (gram ** 2).sum() - (gram.diagonal() ** 2).sum()
    return total


# ------------------------------------------------------------------------------------------------------------
# The algorithm

class Run:
    """A run between two iterations: players, optimisers, random state."""

    def __init__(self, config, device="cpu"):
        c, self.config, self.device, self.step = config, config, torch.device(device), 0
        place = dict(device=device, memory_format=torch.channels_last)  # (faster convolutions)
        with torch.random.fork_rng(devices=[]):  # the caller's random numbers (on the CPU) stay as they are
            torch.manual_seed(c.seed)  # decides the first weights, alike in all processes
            self.G = (PaperGenerator(len(c.attr), c.width, c.size) if c.paper_generator else
                      Generator(len(c.attr), c.width // 2, c.size, c.grey)).to(**place)
            self.R = Ranker(len(c.attr), c.width, c.size, c.head).to(**place)
        self.opt_g = torch.optim.Adam(self.G.parameters(), c.lr_g, betas=(0.5, 0.999))
        self.opt_r = torch.optim.Adam(self.R.parameters(), c.lr_r, betas=(0.5, 0.999))
        self.warmup = round(c.warmup * c.steps)  # iterations
        own = np.random.SeedSequence((c.seed, team.number)).generate_state(1)[0]  # each process draws others
        self.rng = torch.Generator().manual_seed(int(own))  # all draws of training: pairs, v, shifts ...
        self.bf16 = self.device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
        self.log = {}  # eval.fit's notes, which training never reads

    @property
    def ranking(self):
        """Whether the warm-up is over and the ranking losses are on."""
        return self.config.warmup < 1 and self.step >= self.warmup

    def autocast(self):
        """Within it the networks compute in bf16 on a GPU that has it; what the heads say is float."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)


def uniform(run, *shape):
    """Uniform numbers in [0, 1) from the run's own random stream, on its device."""
    return torch.rand(*shape, generator=run.rng).to(run.device)


def augmented(run, x):
    """What R sees of x (B, 3, H, W): with `shift` all moved alike by some pixels, so that patterns that fit
    the grid of R's strides gain nothing (DiffAugment, Zhao et al. 2020).
    """
    s, (h, w) = run.config.size // 20 * run.config.shift, x.shape[2:]  # s: pixels
    dx, dy = torch.randint(2 * s + 1, (2,), generator=run.rng).tolist()
    return nn.functional.pad(x, (s, s, s, s), mode="replicate")[:, :, dy:dy + h, dx:dx + w]


def update(net, optimizer, losses):
    """Move this player's parameters down the sum of its losses; the other's get no gradient (`inputs`)."""
    parameters = list(net.parameters())
    optimizer.zero_grad()
    sum(losses.values()).backward(inputs=parameters)
    team.average([p.grad for p in parameters if p.grad is not None] + list(net.buffers()))  # (under torchrun)
    optimizer.step()


def ranker_step(run, x, y, r, fake):
    """One step of R and D: each rank head learns r of (x, y), 0 of (x, fake); D 1 of x and y, 0 of fake.

    fake: G(x, v), detached. Of two heads the second, which sees the pair, has 3 lambda: it must learn its 0
    early. Returns the weighted losses by name, whose sum is the total: ranker_gan; after the warm-up
    ranker_rank; and ranker_gp if it has a weight.
    """
    c, R = run.config, run.R
    with run.autocast():
        fx, fy, ff = R.features(augmented(run, torch.cat([x, y, fake]))).chunk(3)
        d_real, d_fake = R.discriminate(torch.cat([fx, fy])), R.discriminate(ff)
        losses = {"ranker_gan": c.lam_g * ranker_gan_loss(d_real, d_fake)}
        if run.ranking:
            heads = zip(R.each_head(fx, fy), R.each_head(fx, ff), (c.lam, 3 * c.lam))
            each = [ranker_rank_loss(real, r, generated, lam) for real, generated, lam in heads]
            losses["ranker_rank"] = sum(each) / len(each)
    a = uniform(run, len(x[::2]), 1, 1, 1)  # (in any case: later draws are the same with and without it)
    if c.lam_gp:  # of every second pair, not shifted; outside autocast: never in bf16
        losses["ranker_gp"] = c.lam_gp * gradient_penalty(R, x[::2], fake[::2], a, c.gp_center)
    update(R, run.opt_r, losses)
    return losses


def generator_step(run, x, v, fake, x_warped, flow):
    """One step of the generator (Fig. 10): R(x, fake) goes to v (`cls`: sign(v)), D(fake) to 1, fake to x.

    fake, x_warped, flow: G(x, v) and its parts, with their graph. Returns the weighted losses, whose sum is
    the total: generator_gan, _identity, _flow, _paint; after the warm-up _rank; _cycle, _orthogonal if on.
    """
    c, G, R = run.config, run.G, run.R
    with run.autocast():
        seen_x, seen_fake = augmented(run, torch.cat([x, fake])).chunk(2)
        fx, ff = R.features(seen_x).detach(), R.features(seen_fake)  # (x needs no gradient)
        losses = {"generator_gan": c.lam_g * generator_gan_loss(R.discriminate(ff)),
                  "generator_identity": c.lam_id * identity_loss(x, fake),
                  "generator_flow": c.lam_flow * flow_loss(flow),
                  "generator_paint": c.lam_paint * identity_loss(x_warped, fake)}
        if run.ranking:
            target = cls_target(v) if c.cls else v
            losses["generator_rank"] = generator_rank_loss(R.rank(fx, ff), target)
            if c.lam_c:
                losses["generator_cycle"] = c.lam_c * cycle_loss(x, G(fake, -v))
    if c.lam_o:
        losses["generator_orthogonal"] = c.lam_o * orthogonal_penalty(G)
    update(G, run.opt_g, losses)
    return losses


def set_lr(run):
    """The learning rates of this iteration: constant, then linearly down to 0."""
    c = run.config
    fade = min(1, (c.steps - run.step) / max(1, c.steps * (1 - c.lr_decay_start)))
    run.opt_g.param_groups[0]["lr"] = c.lr_g * fade
    run.opt_r.param_groups[0]["lr"] = c.lr_r * fade


def train(run, stream):
    """The algorithm: train `run` from wherever it stands up to run.config.steps iterations.

    stream: of (x, y, r), see data.pairs. Yields the weighted losses of each iteration, {name: scalar}.
    """
    c = run.config
    while run.step < c.steps:
        set_lr(run)
        x, y, r = next(stream)  # real pairs: y shows more than x where r = 1
        v = 2 * uniform(run, len(x), len(c.attr)) - 1  # v ~ U[-1, 1]
        with run.autocast():
            fake, *parts = run.G(x, v, parts=True)  # drawn once; both players use fake
        losses = ranker_step(run, x, y, r, fake.detach())
        losses |= generator_step(run, x, v, fake, *parts)  # (asks the R that has just learned)
        run.step += 1
        yield losses


# ------------------------------------------------------------------------------------------------------------
# Settings

def setting(default, help, low=0, high=10 ** 6, choices=None):
    """A field of Config: its default, the line that --help prints, and its bounds or choices."""
    return field(default=default, metadata={"help": help, "bounds": (low, high, choices)})


@dataclass
class Config:
    """All that a run depends on; each field is an option of the command line. [The paper's value.]"""
    attr: tuple = setting(("smile",), "attribute(s) to learn")
    data: str = setting("faces", f"data set: {', '.join(data.DATASETS)}")
    root: str = setting("", "folder of the data set's files; resized pictures are kept there, too")
    size: int = setting(64, "pictures are SIZE x SIZE pixels [256]", choices=(32, 64, 128, 256, 512, 1024))
    steps: int = setting(1500, "iterations, the warm-up among them", 1, 10 ** 9)
    batch: int = setting(8, "pairs in a batch [4]", 1)
    seed: int = setting(0, "decides first weights, pairs and v (not the data set's split)", 0, 2 ** 32 - 1)
    lam: float = setting(0.5, "lambda, Eq. 5a: weight of generated pairs' 0 (pair head of two: 3 x) [0.5]")
    lam_g: float = setting(0.0, "weight of the GAN losses, Eq. 6 [0.5; LFWA 5]")
    lam_id: float = setting(6.0, "weight of the squared change G(x, v) - x [not in the paper]")
    lam_flow: float = setting(1.5, "weight of flow_loss, in tenths of half a picture [not in the paper]")
    lam_paint: float = setting(400.0, "weight of squared paint; 50 lets things appear [not in the paper]")
    lr_g: float = setting(7e-4, "Adam's learning rate for G [5e-5]")
    lr_r: float = setting(1.2e-3, "Adam's learning rate for R [1e-5]")
    # what a first reading can leave out: the networks (Tables 3 and 4), the fine print of losses and rates
    paper_generator: bool = setting(False, "G is Table 3's: it draws anew, and nothing is paint [yes]")
    grey: bool = setting(False, "G's paint makes lighter or darker, and has no colour [not in the paper]")
    head: str = setting("both", "R's rank heads: score, pair, the mean of both, or Table 4's [paper]",
                        choices=("both", "score", "pair", "paper"))
    width: int = setting(32, "filters of R's first layer, and Table 3's; our G's has half [64]", 2, 1024)
    warmup: float = setting(0.0, "share of STEPS before the ranking losses; 1: never [not given]", 0, 1)
    lam_c: float = setting(0.0, "weight of the cycle loss [2.5]")
    lam_gp: float = setting(0.0, "weight of D's gradient penalty [150]")
    gp_center: float = setting(0.0, "norm that it asks of D's gradient: 0 makes D smooth [1]")
    lam_o: float = setting(0.0, "weight of the orthogonal penalty [1e-6]")
    cls: bool = setting(False, "the ablation with Eq. 3: G's target is sign(v), not v")
    shift: bool = setting(True, "R sees pictures shifted by up to SIZE / 20 pixels [no]")
    lr_decay_start: float = setting(0.2, "share of STEPS at which rates begin to fall to 0 [1]", 0, 1)

    def __post_init__(self):
        self.attr = (self.attr,) if isinstance(self.attr, str) else tuple(map(str, self.attr))
        for f in fields(self):
            value, (low, high, choices) = getattr(self, f.name), f.metadata["bounds"]
            if choices and value not in choices:
                raise InputError(f"--{f.name} {value}: must be one of {as_typed(choices)}")
            kind, number = (int, float) if f.type is float else f.type, f.type in (int, float)
            if not isinstance(value, kind) or number and not low <= value <= high:  # (as nan is not)
                what = f"a number from {low} to {high}" if number else f"of type {kind.__name__}"
                raise InputError(f"--{f.name} {value}: must be {what}")


# "paper": Sec. 4, Tables 3, 4. Ours are steps, warmup, lam_id (in the warm-up nothing else ties G(x, v) to x)
# and, in the code, R's first weights, D's real x and y, half the pairs in the penalty, mirroring, balance.
# At 64 px it fails; --lr_r 1e-3 --lr_g 1e-3 --lr_decay_start 0.2 --lam_gp 4 --gp_center 0 make it learn.
PRESETS = {
    "small": {},
    "photo": dict(steps=4000, lam=0.3, lam_g=5.0, lam_gp=4.0, lam_id=10.0, lam_paint=40.0, grey=True),
    "paper": dict(size=256, steps=12000, warmup=0.1667, batch=4, paper_generator=True, head="paper",
                  width=64, shift=False, lam_g=0.5, lam_c=2.5, lam_gp=150.0, gp_center=1.0, lam_o=1e-6,
                  lam_id=10.0, lam_flow=0.0, lam_paint=0.0, lr_g=5e-5, lr_r=1e-5, lr_decay_start=1.0)}


# ============================================================================================================
# Here the method ends. Below is the paper's generator, and the program: checkpoints and the command line

class SwitchNorm(nn.Module):
    """Switchable normalisation (Luo et al. 2019, arXiv:1806.10779). x: (B, C, H, W); the same shape returned.

        y = weight_c (x - mean) / sqrt(var + eps) + bias_c
        mean = m_in mean_in + m_ln mean_ln + m_bn mean_bn        m = softmax(mean_weights), learned
        var  = w_in var_in  + w_ln var_ln  + w_bn var_bn         w = softmax(var_weights), learned

    in: over the pixels of a channel of a picture; ln: of a picture; bn: of a channel of the batch (when
    evaluated, a running average). A whole's variance is the mean of its parts' plus that of their means.
    """

    def __init__(self, channels, momentum=0.1, eps=1e-5):
        super().__init__()
        self.momentum, self.eps = momentum, eps
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.mean_weights, self.var_weights = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(3))
        self.register_buffer("running_mean", torch.zeros(1, channels))
        self.register_buffer("running_var", torch.ones(1, channels))

    def forward(self, x):
        var_in, mean_in = torch.var_mean(x.float(), (2, 3), correction=0)  # (B, C)
        mean_ln = mean_in.mean(1, keepdim=True)  # (B, 1)
        var_ln = var_in.mean(1, keepdim=True) + mean_in.var(1, correction=0, keepdim=True)
        if self.training:
            mean_bn = mean_in.mean(0, keepdim=True)  # (1, C)
            var_bn = var_in.mean(0, keepdim=True) + mean_in.var(0, correction=0, keepdim=True)
            self.running_mean.lerp_(mean_bn.detach(), self.momentum)
            self.running_var.lerp_(var_bn.detach(), self.momentum)
        else:
            mean_bn, var_bn = self.running_mean, self.running_var
        m, w = self.mean_weights.softmax(0), self.var_weights.softmax(0)
        mean = m[0] * mean_in + m[1] * mean_ln + m[2] * mean_bn  # (B, C)
        var = w[0] * var_in + w[1] * var_ln + w[2] * var_bn
        scale = self.weight * (var + self.eps).rsqrt()
        shift, scale = (self.bias - mean * scale).to(x.dtype), scale.to(x.dtype)
        return torch.addcmul(shift[:, :, None, None], x, scale[:, :, None, None])  # one pass over the picture


class PaperGenerator(nn.Module):
    """Table 3, the paper's generator, which draws the whole picture anew, of the training's size only."""

    def __init__(self, K=1, width=64, size=256):
        super().__init__()
        self.size = size

        def block(conv, channels):
            return [conv, SwitchNorm(channels), nn.ReLU(inplace=True)]

        c, layers = width, block(nn.Conv2d(3 + K, width, 7, 1, 3), width)  # (B, width, H, W)
        for _ in range(2):
            layers += block(nn.Conv2d(c, 2 * c, 4, 2, 1), 2 * c)  # halves H and W, doubles the channels
            c *= 2
        for _ in range(6):  # two convolutions, as in RelGAN's released network
            layers += [Residual(*block(nn.Conv2d(c, c, 3, 1, 1), c), nn.Conv2d(c, c, 3, 1, 1), SwitchNorm(c))]
        for _ in range(2):
            layers += block(nn.ConvTranspose2d(c, c // 2, 4, 2, 1), c // 2)  # and back
            c //= 2
        self.layers = nn.Sequential(*layers, nn.Conv2d(c, 3, 7, 1, 3), nn.Tanh())

    def forward(self, x, v, parts=False):
        if x.shape[2:] != (self.size, self.size):
            raise InputError(f"Table 3's generator draws {self.size} x {self.size} pixels, not "
                             f"{x.shape[3]} x {x.shape[2]}")
        picture = self.layers(condition(x, v)).float()  # (float: the layers may work in bf16)
        return (picture, picture, x.new_zeros(1, 2, 2, 2)) if parts else picture  # (no warp, no paint)


# ------------------------------------------------------------------------------------------------------------
# Checkpoints

NOTES = ("warmup", "step", "log")
MAY_CHANGE = ("steps", "root")  # on the way
NETWORKS = ("size", "paper_generator", "grey", "head", "width")  # what decides their weights


def save(run, out, nets=("G", "R", "opt_g", "opt_r")):
    """Write the checkpoint out/trip.pt; under torchrun all processes call this, and the first one writes."""
    state = {name: getattr(run, name).state_dict() for name in nets}
    if not all(u.isfinite().all() for name in nets if name[:4] != "opt_" for u in state[name].values()):
        raise eval.Diverged(f"iteration {run.step}: the weights are no longer finite")
    state |= {"config": asdict(run.config), "rng": team.gather(run.rng.get_state())}
    state |= {name: getattr(run, name) for name in NOTES}
    if team.number == 0:
        data.write(Path(out) / "trip.pt", lambda file: torch.save(state, file))
    team.gather("written")


def checkpoint(out):
    """What the file trip.pt of a folder holds, on the CPU; InputError for none, or a damaged one."""
    path = Path(out) / "trip.pt"
    if not path.is_file():
        hint = "name its folder" if Path(out).is_file() else "train one first, or name another folder"
        raise InputError(f"no run in {out} (no trip.pt is there): {hint}")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)  # a file from a stranger runs no code
        return state if isinstance(state, dict) else {}
    except Exception as error:  # whatever a strange file may lead to, in zip, in pickle, in torch
        raise InputError(f"{path} is damaged or no checkpoint ({in_a_line(error)}): move it") from None


def settings_in(state):
    """The settings in a checkpoint, {} if there are none."""
    return state["config"] if isinstance(state.get("config"), dict) else {}


def restore(out, device="cpu", kind=Run, settings=Config, nets=("G", "R", "opt_g", "opt_r")):
    """The run in folder `out`; InputError where none is, or one that doesn't fit."""
    state = checkpoint(out)
    if not settings_in(state):
        raise InputError(f"{out}/trip.pt was not written by this program: name another folder")
    try:
        strange = state["config"].keys() ^ {f.name for f in fields(settings)}
        if strange:  # (a default in the place of a missing one would make it another run)
            raise ValueError(f"it differs in the settings {', '.join(sorted(map(str, strange)))}")
        run = kind(settings(**state["config"]), device)
        run.can_go_on = any(name[:4] == "opt_" for name in state)  # else it is stored to be applied only
        for name in nets if run.can_go_on else [name for name in nets if name[:4] != "opt_"]:
            getattr(run, name).load_state_dict(state[name])
        vars(run).update({name: state[name] for name in NOTES})
        run.processes = len(state["rng"])
        run.rng.set_state(state["rng"][min(team.number, run.processes - 1)])
    except (RuntimeError, ValueError, LookupError, TypeError, AttributeError) as error:
        if "out of memory" in str(error):  # of the GPU: told as such
            raise
        raise InputError(f"{out}/trip.pt is of another version of this program, or of study/rivals.py "
                         f"({in_a_line(error)}): go on with that, or train anew") from None
    return run


def load(out, device="cpu"):
    """G and R, in evaluation mode, and the config of the run in folder `out`."""
    run = restore(out, device)
    return run.G.eval(), run.R.eval(), run.config


# ------------------------------------------------------------------------------------------------------------
# The machine: devices, Ctrl-C, torchrun, mistakes

def choose_device(name):
    """A torch.device, made ready, for "auto" or a name that torch.device takes and this machine has."""
    mps = torch.backends.mps.is_available() and torch.__version__ >= (2, 13)  # (before, warp has no gradient)
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if mps else "cpu"
    with suppress(RuntimeError, AssertionError):  # AssertionError: torch without cuda
        name = "cuda" if team.size > 1 and name.startswith("cuda") else name  # (torchrun: each its own)
        device = torch.zeros(1, device=name).device  # the current GPU for cuda
        if device.type == "cuda":  # products in TF32, kernels found by trial
            torch.set_float32_matmul_precision("high")
            torch.backends.cudnn.benchmark = True
        if device.type in ("cpu", "cuda") or device.type == "mps" and mps:
            return device
    raise InputError(f"--device {name}: there is none here, or (mps) none before PyTorch 2.13; type "
                     f"--device cpu, or leave it out")


@contextmanager
def stop_flag():
    """Within it Ctrl-C, SIGTERM and a closed terminal are only noted in the list that it yields; a second one
    acts as ever. What is ignored, as by nohup, stays so. In a thread: none, as only main ones may."""
    def stop(number, frame):
        stopped.append(number)
        signal.signal(number, before[number])

    stopped, before = [], {}
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK"):  # (a system has some)
        number = getattr(signal, name, None)
        if number and signal.getsignal(number) is not signal.SIG_IGN:
            with suppress(ValueError):  # (in a thread)
                before[number] = signal.signal(number, stop)
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Team:
    """torchrun's processes, each with a GPU of its own, or this one alone. Number 0 writes and speaks."""
    number, size = 0, 1

    def join(self, device):
        """Become one of torchrun's processes, if it has set LOCAL_RANK."""
        if "LOCAL_RANK" in os.environ and not dist.is_initialized():
            if torch.cuda.is_available() and device != "cpu":
                torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
            dist.init_process_group(timeout=timedelta(hours=12))  # number 0 may have to prepare pictures
            self.number, self.size = dist.get_rank(), dist.get_world_size()
            if self.number:
                sys.stdout = open(os.devnull, "w")

    def average(self, tensors):
        """Each of the tensors becomes its mean over the processes, in one message."""
        if self.size > 1:
            flat = torch.cat([t.flatten() for t in tensors])
            dist.all_reduce(flat)
            for t, mean in zip(tensors, (flat / self.size).split([t.numel() for t in tensors])):
                t.copy_(mean.view_as(t))

    def gather(self, value):
        """The values of all processes, in their order; nobody goes on before all have come to this."""
        values = [value] * self.size
        if self.size > 1:
            dist.all_gather_object(values, value)
        return values


team = Team()


def in_a_line(error):
    """What an exception says, in one line."""
    return " ".join(str(error).split())[:120] or type(error).__name__


def as_typed(value):
    """A setting's value as it is typed."""
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def option(name, value):
    """A setting as an option that is typed."""
    return f"--{'no-' * (not value)}{name}" if isinstance(value, bool) else f"--{name} {as_typed(value)}"


def parser(prog, about):
    """An ArgumentParser whose complaints are InputErrors."""
    def complain(message):
        raise InputError(f"{message}; see python {prog} --help")

    made = argparse.ArgumentParser(prog=prog, description=about, allow_abbrev=False)
    made.error = complain
    return made


def in_words(error):
    """A mistake, or the machine's limits, in one line for the person; raises what is neither."""
    first = os.environ.get("RANK", "0") == "0"  # the others were asked alike, or end because one has ended
    if isinstance(error, InputError):
        return error if first else None
    if isinstance(error, OSError):  # a full disk, a folder in a file's place ...
        return f"{error}; look there, or name another folder"
    if isinstance(error, MemoryError) or re.search("out of memory|allocate memory|enough memory", str(error)):
        return "not enough memory; take a smaller --size, --batch or --width, or --edit picture"
    if team.size == 1:
        raise error
    ended = f"another process has ended, so all do ({in_a_line(error)}); go on with --resume"
    return ended if first else None


def program(name):
    """Make command(argv) a program: its exit code; 2 for a mistake, told in one line; 130 for Ctrl-C."""
    def wrap(command):
        def main(argv=None):
            if hasattr(sys.stdout, "reconfigure"):  # (a notebook's has none)
                sys.stdout.reconfigure(errors="backslashreplace")  # a path may be no UTF-8
            try:
                with eval.matplotlib.rc_context():
                    eval.matplotlib.rcdefaults()  # a user's own settings may want LaTeX
                    return command(sys.argv[1:] if argv is None else argv)
            except (InputError, OSError, MemoryError, RuntimeError) as error:
                words = in_words(error)
                if words:
                    with suppress(OSError):  # (of a terminal that is closed)
                        print(f"{name}: error: {words}", file=sys.stderr)
                return 2
            except KeyboardInterrupt:
                return 130
        return main
    return wrap


# ------------------------------------------------------------------------------------------------------------
# The command line

def parse(argv, prog="trip.py"):
    """The arguments typed. given: those that are fields of Config; config: these over the preset's."""
    made = parser(prog, "Train TRIP, or apply it to a picture.")
    job = made.add_argument_group("the job")
    add, mode = job.add_argument, job.add_mutually_exclusive_group()
    add("--out", help="folder of the run (default: runs/ and the attributes, as in runs/smile)")
    add("--preset", choices=list(PRESETS), help="all settings at once: small, the defaults below; photo, for "
        "photographs; paper, the values in brackets (ours where it has none), for a GPU; options count more")
    add("--device", default="auto", help="cpu, cuda, cuda:1, mps (default: the first of cuda, mps, cpu)")
    mode.add_argument("--resume", action="store_true", help="go on with the run in --out")
    mode.add_argument("--edit", nargs="+", type=Path, metavar="IMAGE", help="don't train: apply the run in "
                      "--out to these pictures, and write them to edit/ there, whole and at their own size")
    add("--from", dest="source", metavar="RUN", help="train a new run from the weights of this one, of "
        "any data set and attribute")
    add("--v", nargs="+", metavar="V", help="strengths for --edit; for two attributes 1,-1 is one strength "
        "(default: -1 -0.5 0 0.5 1, of one attribute at a time)")
    add("--crop", nargs=3, type=int, metavar=("LEFT", "TOP", "SIZE"), help="the square that --edit changes, "
        "in pixels (default: one around each face, by a run of CelebA; else the largest in the centre)")
    settings = made.add_argument_group("settings (in square brackets: the paper's value)")
    for f in fields(Config):
        kind = (dict(nargs="+", metavar="NAME") if f.type is tuple else
                dict(action=argparse.BooleanOptionalAction) if f.type is bool else dict(type=f.type))
        settings.add_argument(f"--{f.name}", default=argparse.SUPPRESS, **kind,
                              help=f"{f.metadata['help']} (default: {as_typed(f.default) or 'none'})")
    number = r"[-+]?[\d.]+(e[-+]?\d+)?"  # -1,0 and -1e-3 are no options: a space hides them from argparse
    argv = [" " + a if re.fullmatch(f"(?i)-(?=.*[,e]){number}(,{number})*", a) else a for a in argv]
    args = made.parse_args(argv)
    if (args.v or args.crop) and not args.edit:
        raise InputError("--v and --crop say how to --edit a picture: name one, as in --edit me.jpg")
    if args.source and (args.resume or args.edit):
        raise InputError("--from starts a new run: leave out --resume and --edit, or --from")
    args.given = {f.name: f.type(getattr(args, f.name)) for f in fields(Config) if hasattr(args, f.name)}
    args.config = Config(**PRESETS[args.preset or "small"] | args.given)
    for name, folder in (("out", args.out), ("from", args.source)):
        if folder == "" or (folder or "").endswith(".pt"):
            raise InputError(f"--{name} {folder!r}: name a folder, as in --{name} runs/mine")
    args.out = Path(args.out) if args.out else Path("runs") / "_".join(args.config.attr)
    return args


def open_run(args, device):
    """The run that the command line asks for: new, or gone on with. Nothing in its folder is changed here."""
    out = args.out
    if not args.resume and not args.edit:
        if (out / "trip.pt").exists():
            raise InputError(f"{out} holds a run: add --resume to go on, remove it, or name another --out")
        run, source = Run(args.config, device), args.source and restore(args.source)
        c, its = run.config, source.config if source else run.config
        other = {name: getattr(its, name) for name in NETWORKS if getattr(its, name) != getattr(c, name)}
        if other or len(c.attr) != len(its.attr):
            typed = " ".join(option(name, value) for name, value in other.items()) or "nothing"
            raise InputError(f"--from {args.source}: its networks are others, for {len(its.attr)} "
                             f"attribute(s): name as many, and add {typed}")
        if source:
            run.G.load_state_dict(source.G.state_dict())
            run.R.load_state_dict(source.R.state_dict())
        return run
    run = restore(out, device)
    if args.resume and not run.can_go_on:
        raise InputError(f"the run in {out} is stored without its optimisers: it can --edit, but not go on")
    of_presets = {name for preset in PRESETS.values() for name in preset} if args.preset else set()
    for name in [f.name for f in fields(Config) if f.name in of_presets | args.given.keys()]:
        there, asked = getattr(run.config, name), getattr(args.config, name)
        if name in MAY_CHANGE:
            run.config = replace(run.config, **{name: args.given.get(name, there)})
        elif asked != there:
            raise InputError(f"the run in {out} has --{name} {as_typed(there)}, not {as_typed(asked)}: leave "
                             f"the option (or --preset) out, or name another folder with --out")
    if args.resume and run.processes != team.size:
        raise InputError(f"the run in {out} is of {run.processes} processes: start as many with torchrun")
    if args.resume and run.config.steps < run.step:
        raise InputError(f"the run in {out} has done {run.step} iterations: --steps must be as many or more")
    return run


@program("trip.py")
def main(argv):
    """Train, to the end or until Ctrl-C, or edit pictures. Returns the exit code."""
    args = parse(argv)
    team.join(args.device)
    out, device = args.out, choose_device(args.device)
    if args.edit:
        return eval.edit(open_run(args, device), out, args.edit, args.v, args.crop)
    with data.alone(out) if team.number == 0 else nullcontext():
        run = open_run(args, device)
        c = run.config
        if team.number:  # number 0 loads first, the others then find its files
            team.gather(None)
        train_data, test_data = data.load(c.data, c.attr, c.size, c.root)
        if team.number == 0:
            team.gather(None)
        unusual = "photo" if c.data == "faces" else "small"
        if run.step == 0 and (args.preset or "small") == unusual:
            print("note: --preset photo is for photographs, the defaults are for drawn faces")
        print(f"{c.data}: {len(train_data)} + {len(test_data)} pictures, {as_typed(c.attr)}; {run.device}; "
              f"results: {out}")
        if team.number == 0:
            eval.seen_before(run, train_data, test_data)
        if run.step == c.steps:
            print(f"note: all {c.steps} iterations are done: to go on, add --steps and a higher number")

        def keep():
            save(run, out)
            try:
                if run.step and team.number == 0:
                    eval.report(run, out, test_data)
            except (RuntimeError, ValueError, TypeError, LookupError) as error:  # of matplotlib, of fonts ...
                eval.note(f"note: a figure was not made ({in_a_line(error)}); the run goes on")

        iterations = train(run, data.pairs(train_data, c.batch, run.rng, run.device))
        tell = eval.progress(run)
        try:
            with stop_flag() as stopped:
                for record in eval.fit(run, iterations, test_data, keep):
                    with suppress(OSError):  # (of a terminal that is closed)
                        tell(record)
                    asking = team.size == 1 or run.step % 10 == 0
                    if run.step < c.steps and asking and any(team.gather(bool(stopped))):
                        keep()
                        start = f"torchrun --nproc-per-node {team.size}" if team.size > 1 else "python"
                        device = f" --device {args.device}" if args.device != "auto" else ""
                        print(f"\nstopped and saved at iteration {run.step}; to go on: {start} trip.py "
                              f"--out={data.quote(out.as_posix())} --resume{device}")
                        return 130
        except eval.Diverged as error:
            if team.number == 0:
                print(f"trip.py: stopped: {error}. The last good checkpoint is in {out}; start anew with a "
                      f"smaller --lr_g or --lr_r and another --out", file=sys.stderr)
            return 1
        print(f"finished: see {out / 'samples.png'}, {out / 'dial.html'} (in a browser) and what is beside")
        return 0


def leave(code):
    """End the process. Under torchrun without any teardown: others may be gone, or its threads abort it."""
    if dist.is_initialized():
        print(end="", flush=True)  # (as _exit does not)
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    leave(main())
