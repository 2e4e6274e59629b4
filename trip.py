"""TRIP: translation via rival preferences (ICLR 2021 submission), in one file: networks, losses, training loop, command line.

    python trip.py --attr smile                                   train on drawn faces, results in runs/smile
    python trip.py --attr smile --resume                          go on with a run that was stopped
    python trip.py --attr smile --edit me.png --v -1 -0.5 0 0.5 1    apply it to a picture
    python trip.py --help                                         every setting, with its default

A generator G(x, v) redraws face x with more (v > 0) or less (v < 0) of an attribute. A ranker R(x, y) says how much more of it
y shows than x. The ranker learns +1 and -1 from real pairs and answers 0, "no difference", to generated pairs, while the
generator wants the answer v: rival preferences. Where their pulls are equally strong they meet half way, at v/2.

    paper        what it is                                       here
    Eq. 1, 4     R(x, y) and R(x, G(x, v))                        Ranker.rank
    Eq. 3        sign(v) as the target ("CLS")                    cls_target
    Eq. 5a, 7a   ranking loss of the ranker                       ranker_rank_loss
    Eq. 5b, 7b   ranking loss of the generator                    generator_rank_loss
    Eq. 6a       GAN loss of the ranker                           ranker_gan_loss
    Eq. 6b       GAN loss of the generator                        generator_gan_loss
    L_cycle      x -> G(x, v) -> x                                cycle_loss
    L_gp         gradient penalty                                 gradient_penalty
    L_o          orthogonal kernels                               orthogonal_penalty
    (none)       G(x, v) near x where v is near 0                 identity_loss
    Table 3, 4   networks                                         Generator, Ranker
    Fig. 10      the players' total losses, and the algorithm     ranker_step, generator_step, train

Shapes: B pictures in a batch, K attributes; pictures are float (B, 3, H, W) with pixels in [-1, 1]; v and r are (B, K).
"""

import argparse
import csv
import json
import math
import os
import re
import shlex
import shutil
import signal
import sys
import tempfile
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from matplotlib.figure import Figure
from torch import nn

import data
from data import InputError


def setting(default, help):
    """A field of Config: its default and the line that --help prints."""
    return field(default=default, metadata={"help": help})


@dataclass
class Config:
    """Everything a run depends on; each field is an option of the command line. In brackets: the paper's value."""
    attr: tuple = setting(("smile",), "attribute(s) to learn")
    data: str = setting("faces", f"data set: {', '.join(data.DATASETS)}")
    root: str = setting("", "folder of the data set's files (faces has none); pictures, resized, are kept there, too")
    size: int = setting(64, "pictures are SIZE x SIZE pixels, a power of two from 32 up [256]")
    steps: int = setting(1800, "iterations, the warm-up among them")
    warmup: int = setting(300, "iterations of pretraining, without the ranking losses; at most a quarter of STEPS [not stated]")
    batch: int = setting(8, "pairs in a batch [4]")
    seed: int = setting(0, "decides the first weights, the pairs and the v (not the data set and its split)")
    # networks (Tables 3 and 4)
    g_width: int = setting(16, "filters of G's first layer [64]")
    g_down: int = setting(1, "stride-2 layers of G [2]")
    g_blocks: int = setting(3, "residual blocks of G [6]")
    r_width: int = setting(32, "filters of R's first layer [64]")
    # losses
    lam: float = setting(0.3, "lambda: weight of the rival term, 0 for generated pairs, Eq. 5a [0.5]")
    lam_rank: float = setting(1.0, "weight of the ranking losses, Eq. 5; 0: the ablation without them [1]")
    lam_g: float = setting(2.0, "weight of the GAN losses, Eq. 6; 0: the ablation without them [0.5; LFWA 5]")
    lam_c: float = setting(2.5, "weight of the cycle loss [2.5]")
    lam_gp: float = setting(12.0, "weight of the gradient penalty [150]")
    gp_center: float = setting(0.0, "norm that the penalty asks of D's gradient: 0 makes D smooth, 1 is too steep here [1]")
    lam_o: float = setting(1e-6, "weight of the orthogonal penalty [1e-6]")
    lam_id: float = setting(12.0, "weight of the identity loss, in the pretraining and after it [not in the paper]")
    cls: bool = setting(False, "the ablation with Eq. 3: G's target is sign(v), not v")
    ties: float = setting(0.2, "share of real pairs with r = 0 (Remark 1); for one attribute, several tie anyway [not stated]")
    shift: int = setting(3, "R sees a batch shifted by up to so many pixels, or G cheats with patterns that fit its strides [none]")
    # optimisation
    lr_g: float = setting(4e-3, "Adam's learning rate for G [5e-5]")
    lr_r: float = setting(1.2e-3, "Adam's learning rate for R [1e-5]")
    beta1: float = setting(0.5, "Adam's beta 1 [0.5]")
    beta2: float = setting(0.99, "Adam's beta 2 [0.999]")
    decay_from: float = setting(0.3, "share of the iterations after which rates fall to 0, R's faster; 1: never [none]")
    freeze_from: float = setting(0.5, "share of the iterations after which G's batch statistics stand still; 1: never [not stated]")
    clip: float = setting(10.0, "longest gradient of a player, so that one bad batch cannot ruin R; 0: any length [none]")
    # machine
    precision: str = setting("auto", "of the networks: bf16, float32 or auto, bf16 on a GPU that has it (losses: float32)")
    compile: bool = setting(False, "torch.compile the networks: slow to start, meant for a GPU, left out where it fails")
    # bookkeeping
    measure_every: int = setting(36, "iterations between measurements on held-out pictures")
    save_every: int = setting(500, "iterations between checkpoints")

    def __post_init__(self):
        self.attr = tuple(self.attr)


# --preset: "paper" is Sec. 4 with Tables 3 and 4; the paper says neither how long it trains nor how it pretrains
PRESETS = {"small": {}, "paper": dict(
    size=256, steps=12000, warmup=2000, batch=4, g_width=64, g_down=2, g_blocks=6, r_width=64,
    lam=0.5, lam_g=0.5, lam_c=2.5, lam_gp=150.0, gp_center=1.0, lam_o=1e-6, lam_id=10.0, ties=0.0, shift=0,
    lr_g=5e-5, lr_r=1e-5, beta1=0.5, beta2=0.999, decay_from=1.0, freeze_from=1.0, clip=0.0, measure_every=100)}


# ---------------------------------------------------------------------------------------------------------------------
# Networks

class SwitchNorm(nn.Module):
    """Switchable normalisation (Luo et al. 2019, arXiv:1806.10779): instance, layer and batch statistics, mixed.

    The layer learns, by a softmax over three weights for the mean and three for the variance, which of them to trust.
    In evaluation the batch statistics are running averages, as in BatchNorm. x: (B, C, H, W), the same shape returned.
    """

    def __init__(self, channels, momentum=0.1, eps=1e-5):
        super().__init__()
        self.momentum, self.eps = momentum, eps
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.mean_weights, self.var_weights = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(3))
        self.register_buffer("running_mean", torch.zeros(1, channels))
        self.register_buffer("running_var", torch.ones(1, channels))

    def forward(self, x):
        pixels = x.shape[2] * x.shape[3]                                        # (sums: mean and var_mean are far slower)
        mean_in = x.sum((2, 3), dtype=torch.float32) / pixels                   # (B, C): of each picture and channel
        var_in = ((x * x).sum((2, 3), dtype=torch.float32) / pixels - mean_in ** 2).clamp(min=0)
        mean_ln = mean_in.mean(1, keepdim=True)                                 # (B, 1): of each picture
        var_ln = var_in.mean(1, keepdim=True) + mean_in.var(1, correction=0, keepdim=True)     # within + between channels
        if self.training:
            mean_bn = mean_in.mean(0, keepdim=True)                             # (1, C): of each channel
            var_bn = var_in.mean(0, keepdim=True) + mean_in.var(0, correction=0, keepdim=True)
            self.running_mean.lerp_(mean_bn.detach(), self.momentum)
            self.running_var.lerp_(var_bn.detach(), self.momentum)
        else:
            mean_bn, var_bn = self.running_mean, self.running_var
        m, w = self.mean_weights.softmax(0), self.var_weights.softmax(0)
        mean = m[0] * mean_in + m[1] * mean_ln + m[2] * mean_bn                 # (B, C)
        var = w[0] * var_in + w[1] * var_ln + w[2] * var_bn
        scale = self.weight * (var + self.eps).rsqrt()
        shift, scale = (self.bias - mean * scale).to(x.dtype), scale.to(x.dtype)
        return torch.addcmul(shift[:, :, None, None], x, scale[:, :, None, None])   # one pass over the picture


class Residual(nn.Module):
    """A residual block of Table 3: x + SN(conv(ReLU(SN(conv(x))))), as in RelGAN's released network."""

    def __init__(self, channels):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(channels, channels, 3, 1, 1), SwitchNorm(channels), nn.ReLU(inplace=True),
                                  nn.Conv2d(channels, channels, 3, 1, 1), SwitchNorm(channels))

    def forward(self, x):
        return x + self.body(x)


class Generator(nn.Module):
    """Table 3. G(x, v): picture x (B, 3, H, W) redrawn with strengths v (B, K), the same shape as x, in [-1, 1]."""

    def __init__(self, K=1, width=64, down=2, blocks=6):
        super().__init__()

        def block(conv, channels):
            return [conv, SwitchNorm(channels), nn.ReLU(inplace=True)]

        c = width
        layers = block(nn.Conv2d(3 + K, c, 7, 1, 3), c)                         # (B, width, H, W)
        for _ in range(down):
            layers += block(nn.Conv2d(c, 2 * c, 4, 2, 1), 2 * c)                # halves H and W, doubles the channels
            c *= 2
        layers += [Residual(c) for _ in range(blocks)]
        for _ in range(down):
            layers += block(nn.ConvTranspose2d(c, c // 2, 4, 2, 1), c // 2)     # and back
            c //= 2
        self.layers = nn.Sequential(*layers, nn.Conv2d(c, 3, 7, 1, 3), nn.Tanh())

    def forward(self, x, v):
        planes = v[:, :, None, None].expand(-1, -1, *x.shape[2:])               # (B, K, H, W): v as K constant pictures
        return self.layers(torch.cat([x, planes], 1)).float()                   # (float: if the layers worked in bf16)


class Ranker(nn.Module):
    """Table 4: a feature stack F shared by two heads, R(x, y) on F(y) - F(x) and D(x) on F(x).

    size: pixels of the pictures. F has as many stride-2 layers as it takes to end at 4 x 4 (six at 256 pixels).
    """

    def __init__(self, K=1, width=64, size=256):
        super().__init__()
        depth = int(math.log2(size // 4))
        channels = [3] + [width << i for i in range(depth)]
        layers = [[nn.Conv2d(a, b, 4, 2, 1), nn.LeakyReLU(0.01)] for a, b in zip(channels, channels[1:])]
        c = channels[-1]
        self.features = nn.Sequential(*sum(layers, []))                         # F: (B, 3, H, W) -> (B, c, 4, 4)
        self.rank_head = nn.Sequential(nn.Conv2d(c, c, 1), nn.LeakyReLU(0.01), nn.Flatten(), nn.Linear(16 * c, K))
        self.gan_head = nn.Sequential(nn.Flatten(), nn.Linear(16 * c, 1))
        # PyTorch's own first weights are too small for a network without normalisation: the signal would fade
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, a=0.01)
                nn.init.zeros_(layer.bias)

    def forward(self, x, y):
        """R(x, y): (B, K), how much more of each attribute picture y shows than x (Eq. 1)."""
        return self.rank(self.features(x), self.features(y))

    def rank(self, fx, fy):
        """Eq. 1: R(x, y) from the features F(x), F(y), so that a picture of several pairs goes through F once. Returns (B, K)."""
        return self.rank_head(fy - fx).float()

    def critic(self, fx):
        """Eq. 6: D(x) from the features F(x): (B, 1), 1 for real and 0 for generated."""
        return self.gan_head(fx).float()


# ---------------------------------------------------------------------------------------------------------------------
# Losses: tensors in, scalar out

def ranker_rank_loss(real, r, fake, lam):
    """Eq. 5a (7a): score real pairs as their label r, generated pairs as 0, "no difference".

    real: R(x, y); r: its label in {-1, 0, 1}; fake: R(x, G(x, v)); lam: weight of the rival term. All (B, K), and B may be
    another for real than for fake pairs. Summed over the K attributes, averaged over the pairs.
    """
    return ((real - r) ** 2).sum(1).mean() + lam * (fake ** 2).sum(1).mean()


def generator_rank_loss(fake, v):
    """Eq. 5b (7b): make the ranker see v in the generated pair. fake: (B, K) R(x, G(x, v)); v: (B, K), its target (Eq. 4)."""
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


def l1(a, b):
    """Mean absolute difference of two batches of pictures, in pixels of [-1, 1]."""
    return (a - b).abs().mean()


def cycle_loss(x, back):
    """L_cycle = E|G(G(x, v), -v) - x| (CycleGAN): the way back gives x again. Keeps the person. x, back: (B, 3, H, W)."""
    return l1(back, x)


def identity_loss(x, fake, v):
    """E[(1 - |v|) |G(x, v) - x|]: the less is asked for, the less may change. Not in the paper.

    The pretraining needs a reconstruction term; after it, this is RelGAN's |G(x, 0) - x| without another pass of G.
    x, fake: (B, 3, H, W); v: (B, K), of which the largest |v_k| counts.
    """
    return ((1 - v.abs().amax(1)) * (fake - x).abs().mean((1, 2, 3))).mean()


def gradient_penalty(R, x, fake, a, center):
    """L_gp = E(||grad D(z)||_2 - center)^2 at z = a x + (1 - a) G(x, v), of the GAN head (WGAN-GP, RelGAN: center 1).

    x, fake: (B, 3, H, W); a: (B, 1, 1, 1), uniform in [0, 1].
    """
    z = (a * x + (1 - a) * fake).requires_grad_()
    d = R.critic(R.features.forward(z))                                         # (forward: a compiled F has no second gradient)
    grad, = torch.autograd.grad(d.sum(), z, create_graph=True)
    return ((grad.flatten(1).norm(dim=1) - center) ** 2).mean()


def orthogonal_penalty(net):
    """L_o: sum over net's convolutions of the squared off-diagonal entries of W W^T, a row of W for each filter."""
    total = 0
    for layer in net.modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
            w = layer.weight.transpose(0, 1) if isinstance(layer, nn.ConvTranspose2d) else layer.weight   # it has (in, out)
            gram = w.flatten(1) @ w.flatten(1).T
            total = total + (gram ** 2).sum() - (gram.diagonal() ** 2).sum()
    return total


# ---------------------------------------------------------------------------------------------------------------------
# The algorithm

EARLY = 100                                                                     # iterations of ranking, as in Fig. 11b


class Diverged(ArithmeticError):
    """A loss is no longer finite; the message says which, and when."""


class Run:
    """A training run between two iterations: the players, their optimisers, the random state, what was measured."""

    def __init__(self, config, device="cpu"):
        torch.manual_seed(config.seed)                                          # decides the first weights, alike in all processes,
        self.rng = torch.Generator().manual_seed(config.seed + 10 ** 6 * process())     # and this the pairs and the v of each
        self.config, self.device = config, torch.device(device)
        K = len(config.attr)
        layout = dict(device=device, memory_format=torch.channels_last)         # faster convolutions
        self.G = Generator(K, config.g_width, config.g_down, config.g_blocks).to(**layout)
        self.R = Ranker(K, config.r_width, config.size).to(**layout)
        adam = dict(betas=(config.beta1, config.beta2), fused=self.device.type == "cuda")
        self.opt_g = torch.optim.Adam(self.G.parameters(), config.lr_g, **adam)
        self.opt_r = torch.optim.Adam(self.R.parameters(), config.lr_r, **adam)
        self.pretraining = min(config.warmup, config.steps // 4)                # iterations
        self.step, self.seconds = 0, 0.0
        self.history = []                                                       # one record for each measurement
        self.recent = {}                                                        # the losses since the last of them
        self.moments = {}                                                       # raw outputs of R: start, early, end

    @property
    def bf16(self):
        """Whether the networks compute in bf16."""
        if self.config.precision == "auto":
            return self.device.type == "cuda" and torch.cuda.get_device_capability(self.device) >= (8, 0)     # older ones emulate it
        return self.config.precision == "bf16"

    def autocast(self):
        """Within this context the networks compute in bf16, if the run does."""
        return torch.autocast(self.device.type, torch.bfloat16) if self.bf16 else nullcontext()


def speed_up(run):
    """What a GPU can do faster: 32-bit products in TF32, the fastest kernels by trial and, with `compile`, fused kernels."""
    if run.device.type == "cuda":
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.benchmark = True
    if run.config.compile:
        torch._dynamo.config.suppress_errors = True                             # no compiler, no Triton: it goes on without
        run.G.compile()
        run.R.features.compile()


def process():
    """The number of this process among those of torchrun; 0 where there is one only."""
    return dist.get_rank() if dist.is_initialized() else 0


def average(tensors):
    """Under torchrun, in one message: each of the tensors becomes its mean over the processes."""
    if dist.is_initialized():
        flat = torch.cat([t.flatten() for t in tensors])
        dist.all_reduce(flat)
        for t, mean in zip(tensors, (flat / dist.get_world_size()).split([t.numel() for t in tensors])):
            t.copy_(mean.view_as(t))


def update(optimizer, losses, clip):
    """Move this optimizer's parameters down the sum of the losses; the other player's get no gradient (`inputs`)."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    optimizer.zero_grad()
    sum(losses.values()).backward(inputs=parameters)
    average([p.grad for p in parameters if p.grad is not None])
    if clip:
        nn.utils.clip_grad_norm_(parameters, clip)
    optimizer.step()


def shifted(run, pictures):
    """The pictures (B, 3, H, W), all moved by the same few pixels, drawn by chance; their borders are repeated."""
    s, (h, w) = run.config.shift, pictures.shape[2:]
    dx, dy = torch.randint(2 * s + 1, (2,), generator=run.rng).tolist()
    return nn.functional.pad(pictures, (s, s, s, s), mode="replicate")[:, :, dy:dy + h, dx:dx + w]


def ranker_step(run, x, y, r, fake, ranking):
    """One step of the ranker: pairs (x, y) to r, pairs (x, fake) to 0, x to real, fake to generated.

    fake: G(x, v), detached. ranking: False in the pretraining. Returns the weighted losses by name: ranker_gan, ranker_rank,
    ranker_gp.
    """
    c, R = run.config, run.R
    with run.autocast():
        fx, fy, ff = R.features(shifted(run, torch.cat([x, y, fake]))).chunk(3)
        losses = {"ranker_gan": c.lam_g * ranker_gan_loss(R.critic(fx), R.critic(ff))}
        if ranking:
            real = R.rank(torch.cat([fx, fy]), torch.cat([fy, fx]))             # each pair both ways: R(y, x) is to be -r
            losses["ranker_rank"] = c.lam_rank * ranker_rank_loss(real, torch.cat([r, -r]), R.rank(fx, ff), c.lam)
    if c.lam_g and c.lam_gp:                                                    # outside autocast: never in bf16
        a = torch.rand(len(x), 1, 1, 1, generator=run.rng).to(x.device, non_blocking=run.device.type == "cuda")
        losses["ranker_gp"] = c.lam_gp * gradient_penalty(R, x, fake, a, c.gp_center)
    update(run.opt_r, losses, c.clip)
    return losses


def generator_step(run, x, v, fake, ranking):
    """One step of the generator: pairs (x, fake) to v, fake to real, fake back to x, and near x where v is near 0.

    With `cls`, Eq. 3's target instead of v. fake: G(x, v), with its graph. ranking: False in the pretraining. Returns the
    weighted losses by name: generator_gan, generator_id, generator_rank, generator_cycle, generator_orthogonal.
    """
    c, G, R = run.config, run.G, run.R
    with run.autocast():
        fx, ff = R.features(shifted(run, torch.cat([x, fake]))).chunk(2)
        losses = {"generator_gan": c.lam_g * generator_gan_loss(R.critic(ff)),
                  "generator_id": c.lam_id * identity_loss(x, fake, v)}
        if ranking:
            target = cls_target(v) if c.cls else v
            losses["generator_rank"] = c.lam_rank * generator_rank_loss(R.rank(fx, ff), target)
            losses["generator_cycle"] = c.lam_c * cycle_loss(x, G(fake, -v))
    if c.lam_o:
        losses["generator_orthogonal"] = c.lam_o * orthogonal_penalty(G)
    update(run.opt_g, losses, c.clip)
    return losses


def mean_losses(run):
    """The means of the losses since the last measurement; raises Diverged where one was not finite."""
    numbers = {name: torch.stack(losses).tolist() for name, losses in run.recent.items()}
    bad = [(run.step - len(losses) + 1 + i, name, loss) for name, losses in numbers.items()
           for i, loss in enumerate(losses) if not math.isfinite(loss)]
    if bad:
        raise Diverged("iteration {}: the loss {} is {}".format(*min(bad, key=lambda found: found[0])))
    return {name: sum(losses) / len(losses) for name, losses in numbers.items()}


def train(run, train_data, test_data):
    """The algorithm. Trains `run` up to run.config.steps iterations, from wherever it stands.

    To be iterated over, `for record in train(...)`: an iteration each. A record is a dict of `step` and the losses (tensors); where
    the run was measured, also of what `measure` found on held-out pictures. run.history keeps these, with the losses' means since
    the last one. Raises Diverged where a loss is no longer finite.
    """
    c, K = run.config, len(run.config.attr)
    stream = data.pairs(train_data, c.batch, run.rng, c.ties, run.device)
    held_out = probe(test_data, run.device)
    early = run.pretraining + min(EARLY, (c.steps - run.pretraining) // 10)
    if run.step == 0:
        run.moments["start"], _ = measure(run, *held_out)
    while run.step < c.steps:
        started = time.perf_counter()
        ranking = run.step >= run.pretraining
        fade = min(1, (c.steps - run.step) / max(1, c.steps * (1 - c.decay_from)))
        run.opt_g.param_groups[0]["lr"] = c.lr_g * fade
        run.opt_r.param_groups[0]["lr"] = c.lr_r * fade ** 2                    # or else the ranker wins in the end
        run.G.train(run.step < c.freeze_from * c.steps)

        x, y, r = next(stream)                                                  # a real pair, y more than x if r = 1
        v = (2 * torch.rand(c.batch, K, generator=run.rng) - 1).to(run.device, non_blocking=run.device.type == "cuda")
        with run.autocast():
            fake = run.G(x, v)                                                  # drawn once, used by both players
        losses = ranker_step(run, x, y, r, fake.detach(), ranking)
        losses |= generator_step(run, x, v, fake, ranking)
        average(list(run.G.buffers()))                                          # SwitchNorm's running statistics

        run.step += 1
        losses = {name: loss.detach() for name, loss in losses.items()}
        for name, loss in losses.items():
            run.recent.setdefault(name, []).append(loss)
        record, means = {"step": run.step, **losses}, {}
        measuring = run.step % c.measure_every == 0 or run.step in (early, c.steps)
        if measuring or run.step % 10 == 0 or run.step % c.save_every == 0:     # (not always: a GPU would have to wait for it)
            means = mean_losses(run)
        if measuring and process() == 0:
            outputs, row = measure(run, *held_out)
            if run.step == c.steps:
                run.moments["end"] = outputs
            elif run.step == early:
                run.moments.setdefault("early", outputs)
            record |= row
            run.history.append({"step": run.step, **means, **row})
        if measuring:
            run.recent = {}
        run.seconds += time.perf_counter() - started                            # without what the caller does now
        yield record


# ---------------------------------------------------------------------------------------------------------------------
# Measuring, on held-out pictures

OUTPUTS = ("real_plus", "real_zero", "real_minus", "gen_plus", "gen_zero", "gen_minus")    # r or v = +1, 0, -1


@torch.no_grad()
def in_parts(G, x, v):
    """G(x, v) in evaluation mode and in small parts, which any memory holds. x: (N, 3, H, W), v: (N, K)."""
    training = G.training
    G.eval()
    y = torch.cat([G(*part) for part in zip(x.split(32), v.split(32))])
    G.train(training)
    return y


def translate(G, x, v):
    """Redraw every picture with every strength.

    x: float (N, 3, H, W) in [-1, 1]; v: (M, K), or (M,) for one attribute. Returns (N, M, 3, H, W) in [-1, 1].
    """
    v = torch.as_tensor(v, dtype=x.dtype, device=x.device)
    v = v[:, None] if v.dim() == 1 else v
    return torch.stack([in_parts(G, x, strength.expand(len(x), -1)) for strength in v], 1)


def probe(test_data, device, n=128):
    """The held-out pictures that a run is measured on: for each attribute as many with it as without, about n in all.

    Returns pictures float (n, 3, H, W) and labels bool (n, K); a picture may be there for several attributes.
    """
    K = len(test_data.attrs)
    rows = torch.cat([torch.where(test_data.labels[:, k] == has)[0][:max(2, n // (2 * K))]
                      for k in range(K) for has in (True, False)])
    return data.as_float(test_data.images[rows]).to(device), test_data.labels[rows].to(device)


@torch.no_grad()
def measure(run, x, labels):
    """What the ranker says of held-out pairs (Fig. 6, 7, 11).

    As in the paper's footnote 3, v = -1 is applied to pictures that have the attribute, v = +1 to those that don't,
    v = 0 to all. x: float (n, 3, H, W), labels: bool (n, K).
    Returns two dicts. The outputs: real_plus, real_zero, real_minus (pairs with r = +1, 0, -1), gen_plus, gen_zero, gen_minus
    (v), each a list of K tensors. The row: their means and, for generated pairs, stds, pair_accuracy, the share of real
    pairs with r = +-1 whose sign is right (each a list of K numbers), and recon_l1, mean |G(x, 0) - x|.
    """
    G, R = run.G, run.R
    n, K = labels.shape
    fx = R.features(x)
    shifts = (1, n // 2 - 1, n // 2, n // 2 + 1)                                # each picture with four others, near and far:
    real = torch.cat([R.rank(fx, fx.roll(s, 0)) for s in shifts])               # `probe` sorts them by their labels
    r = torch.cat([labels.roll(s, 0).int() - labels.int() for s in shifts])
    back = in_parts(G, x, x.new_zeros(n, K))
    zero = R.rank(fx, R.features(back))
    outputs = {name: [] for name in OUTPUTS}
    for k in range(K):
        has = labels[:, k]
        v = x.new_zeros(n, K)
        v[:, k] = torch.where(has, -1.0, 1.0)
        moved = R.rank(fx, R.features(in_parts(G, x, v)))[:, k]
        found = (real[r[:, k] == 1, k], real[r[:, k] == 0, k], real[r[:, k] == -1, k], moved[~has], zero[:, k], moved[has])
        for name, value in zip(OUTPUTS, found):
            outputs[name].append(value.cpu())
    row = {name: [u.mean().item() for u in outputs[name]] for name in OUTPUTS}
    row |= {f"{name}_std": [u.std().item() for u in outputs[name]] for name in OUTPUTS if name.startswith("gen")}
    row["pair_accuracy"] = [torch.cat([p > 0, m < 0]).float().mean().item()
                            for p, m in zip(outputs["real_plus"], outputs["real_minus"])]
    row["recon_l1"] = l1(back, x).item()
    return outputs, row


def summarise(run):
    """The last fifth of the iterations, but at least the last 10 measurements, averaged: the numbers of summary.json."""
    rows = [h for h in run.history if h["step"] > 0.8 * run.config.steps]
    rows = run.history[-max(10, len(rows)):]
    single = len(run.config.attr) == 1
    summary = {}
    for name in rows[-1]:
        if name in ("recon_l1", "pair_accuracy") or name.startswith(("real_", "gen_")):
            mean = np.mean([h[name] for h in rows], 0)
            summary[name] = mean.item() if np.ndim(mean) == 0 or single else mean.tolist()
    return summary | {"seconds": run.seconds, "steps": run.step, "seed": run.config.seed, "device": run.device.type,
                      "config": asdict(run.config)}


# ---------------------------------------------------------------------------------------------------------------------
# Files of a run

NETS = ("G", "R", "opt_g", "opt_r")                                             # what a checkpoint holds of a Run
NOTES = ("pretraining", "step", "seconds", "history", "recent", "moments")


def store(state, path):
    """torch.save, but beside the path first and then renamed, so that there is a whole file at any moment."""
    new = path.with_name(path.name + ".new")
    try:
        torch.save(state, new)
    except RuntimeError as error:                                               # torch's word for a full disk
        raise OSError(f"{new}: {error}") from None
    os.replace(new, path)


def save(run, out):
    """Write the checkpoint out/trip.pt; under torchrun all processes call this, and the first one writes."""
    if not all(p.isfinite().all() for net in (run.G, run.R) for p in net.parameters()):
        raise Diverged(f"iteration {run.step}: the weights are no longer finite")
    rngs = [run.rng.get_state()]
    if dist.is_initialized():
        rngs = [None] * dist.get_world_size()
        dist.all_gather_object(rngs, run.rng.get_state())
    if process() == 0:
        state = {name: getattr(run, name).state_dict() for name in NETS} | {name: getattr(run, name) for name in NOTES}
        store(state | {"config": asdict(run.config), "rng": rngs}, out / "trip.pt")
    if dist.is_initialized():
        dist.barrier()                                                          # nobody goes on before it is written


def restore(out, device="cpu"):
    """Read the checkpoint of the run in folder `out`; raises InputError where there is none, or a broken one."""
    path = Path(out) / "trip.pt"
    if not path.is_file():
        raise InputError(f"no run in {out} (it has no trip.pt): train one there first")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)         # a file from a stranger runs no code
        config = Config(**state["config"])
        check(config)
        run = Run(config, device)
        for opt in ("opt_g", "opt_r"):
            state[opt]["param_groups"][0]["fused"] = run.device.type == "cuda"  # of this device, not of that one
        for name in NETS:
            getattr(run, name).load_state_dict(state[name])
        for name in NOTES:
            setattr(run, name, state[name])
        run.recent = {name: [loss.to(run.device) for loss in losses] for name, losses in run.recent.items()}
        run.rngs = state["rng"]                                                 # of each process
        run.rng.set_state(run.rngs[min(process(), len(run.rngs) - 1)])
    except torch.cuda.OutOfMemoryError:
        raise
    except Exception as error:                                                  # whatever a strange file may lead to
        reason = str(error).splitlines()[0][:80] if str(error) else type(error).__name__
        raise InputError(f"{path} is damaged or no checkpoint of this program ({reason}); move it away, or name another "
                         f"folder") from None
    return run


def load(out, device="cpu"):
    """The generator, the ranker (both in evaluation mode) and the config of the run in folder `out`."""
    with torch.random.fork_rng(devices=[]):                                     # the caller's random state stays as it is
        run = restore(out, device)
    return run.G.eval(), run.R.eval(), run.config


def columns(row, attr):
    """A record as columns: for several attributes, real_plus -> real_plus.smile, real_plus.frown, ..."""
    cells = {}
    for name, value in row.items():
        if isinstance(value, list):
            cells |= {name if len(attr) == 1 else f"{name}.{a}": u for a, u in zip(attr, value)}
        else:
            cells[name] = value
    return cells


FILES = ("trip.pt", "trip.pt.new", "history.csv", "ranker.npz", "ranker.png", "samples.png", "samples.*.png", "summary.json",
         "edit.png", "eval.json", "fig5_strips*.png", "fig6_box*.png", "fig7_ranker*.png", "fig7_compared*.png", "fig8_grid.png",
         "fig10_losses.png", "fig11_densities.png", "truth.png", "truth.*.png")    # eval.py's among them: --overwrite removes all


def report(run, out, test_data):
    """Write what a person looks at: history.csv, ranker.npz, ranker.png, samples.png and, of a finished run, summary.json."""
    attr = run.config.attr
    rows = [columns(row, attr) for row in run.history]
    with open(out / "history.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(name for row in rows for name in row)), restval="")
        writer.writeheader()
        writer.writerows(rows)
    np.savez(out / "ranker.npz", **{f"{moment}.{name}.{a}": u.numpy() for moment, outputs in run.moments.items()
                                    for name in OUTPUTS for a, u in zip(attr, outputs[name])})
    draw_ranker(run).savefig(out / "ranker.png", dpi=100)
    x = data.as_float(test_data.images[:8]).to(run.device)
    sweep = [i / 5 for i in range(-5, 6)]
    for k, name in enumerate(attr):
        v = torch.zeros(11, len(attr))
        v[:, k] = torch.tensor(sweep)
        figure = draw_strips(x, translate(run.G, x, v), [f"{u:+.1f}" for u in sweep], f"{name}: v =")
        figure.savefig(out / ("samples.png" if k == 0 else f"samples.{name}.png"), dpi=100)
    if run.step >= run.config.steps:
        (out / "summary.json").write_text(json.dumps(summarise(run), indent=2) + "\n")


COLOURS = {"plus": "#D55E00", "zero": "#999999", "minus": "#0072B2"}            # Okabe and Ito's, safe for the colour-blind


def draw_strips(x, ys, names, title):
    """Fig. 5: a row for each picture, the input and then its translations. x: (N, 3, H, W); ys: (N, M, 3, H, W)."""
    rows = torch.cat([x[:, None], ys], 1).cpu()
    n, m, _, h, w = rows.shape
    picture = rows.permute(0, 3, 1, 4, 2).reshape(n * h, m * w, 3)              # the pictures side by side
    figure = Figure(figsize=(m * max(w, 90) / 100, n * max(h, 90) / 100 + 0.4), layout="constrained")
    axes = figure.subplots()
    axes.imshow((picture.numpy() + 1) / 2, interpolation="nearest")
    axes.set_xticks([w * (i + 0.5) for i in range(m)], ["input", *names])
    axes.set_yticks([])
    axes.tick_params(length=0)
    axes.set_xlabel(title)
    return figure


def draw_ranker(run):
    """Fig. 11, for each attribute: densities of the ranker's output at three moments, and its means over the iterations."""
    attr, steps = run.config.attr, [h["step"] for h in run.history]
    figure = Figure(figsize=(9, 6.5 * len(attr)), layout="constrained")
    grid = figure.add_gridspec(3 * len(attr), 3)
    for k, name in enumerate(attr):
        means = figure.add_subplot(grid[3 * k + 2, :])
        means.set(xlabel="iteration", ylabel=f"mean of R, {name}", ylim=(-1.7, 1.4))
        for row, (kind, label, style, target) in enumerate((("real", "real, r", "--", 1), ("gen", "generated, v", "-", 0.5))):
            for level, value in (("plus", "+1"), ("zero", "0"), ("minus", "-1")):
                means.plot(steps, [h[f"{kind}_{level}"][k] for h in run.history], style, color=COLOURS[level],
                           label=f"{label} = {value}")
            for column, (moment, outputs) in enumerate(run.moments.items()):
                axes = figure.add_subplot(grid[3 * k + row, column])
                for level, colour in COLOURS.items():
                    u = outputs[f"{kind}_{level}"][k].numpy().clip(-1.7, 1.7)
                    axes.hist(u, 34, range=(-1.7, 1.7), density=True, alpha=0.6, color=colour)
                axes.set(yticks=[], title=f"{label.split(',')[0]} pairs, {moment}", xlabel=f"R, {name}")
                for u in (-target, target):
                    axes.axvline(u, color="black", lw=0.8, ls=":")
            for u in (-target, target):
                means.axhline(u, color="black", lw=0.8, ls=":")
        means.legend(fontsize=8, ncols=6, loc="lower center")
    return figure


# ---------------------------------------------------------------------------------------------------------------------
# Command line

class Parser(argparse.ArgumentParser):
    def error(self, message):                                                   # one line, as for every other mistake
        raise InputError(f"{message}; see python {self.prog} --help")


def parse(argv):
    """The command line's arguments; `given` among them: the fields of Config that were typed, `config`: these over the preset's."""
    parser = Parser(prog="trip.py", description=__doc__.split("\n\n    paper")[0], allow_abbrev=False,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    job = parser.add_argument_group("the job")
    job.add_argument("--out", type=Path, help="folder of the run (default: runs/ and the attributes, as in runs/smile)")
    job.add_argument("--preset", choices=list(PRESETS), default="small", help="all settings at once: small, the defaults below, or paper, "
                     "the values in brackets (our guesses where there are none), for a GPU; an option given beside it counts more")
    job.add_argument("--download", action="store_true", help="fetch the data set into --root first (celeba only)")
    job.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, mps ... (default: auto, the first there is of cuda, mps, cpu)")
    mode = job.add_mutually_exclusive_group()
    mode.add_argument("--resume", action="store_true", help="go on with the run in --out")
    mode.add_argument("--overwrite", action="store_true", help="start anew, in place of the run in --out")
    mode.add_argument("--edit", nargs="+", type=Path, metavar="IMAGE",
                     help="don't train: apply the run in --out to these pictures, and write edit.png there")
    job.add_argument("--v", nargs="+", metavar="V", help="strengths for --edit; for two attributes 1,-1 is one strength "
                     "(default: -1 -0.5 0 0.5 1, of one attribute at a time)")
    settings = parser.add_argument_group("settings (in square brackets: the paper's value)")
    for f in fields(Config):
        text = f"{f.metadata['help']} (default: {show(f.default) or 'none'})"
        kind = (dict(nargs="+", metavar="NAME") if f.type is tuple else
                dict(action=argparse.BooleanOptionalAction) if f.type is bool else dict(type=f.type))
        settings.add_argument(f"--{f.name}", default=argparse.SUPPRESS, help=text, **kind)
    argv = [" " + a if re.match(r"-[\d.]", a) else a for a in argv]            # "-1,0" is a strength, not an option
    args = parser.parse_args(argv)
    if args.v and not args.edit:
        raise InputError("--v says how to --edit a picture: name one, as in --edit me.jpg")
    args.given = {f.name: f.type(getattr(args, f.name)) for f in fields(Config) if hasattr(args, f.name)}
    args.config = PRESETS[args.preset] | args.given
    return args


def check(config):
    """Raise InputError for a setting that cannot be."""
    c = config
    if not 32 <= c.size <= 1024 or c.size & (c.size - 1):
        raise InputError(f"--size {c.size}: the networks take 32, 64, 128, 256, 512 or 1024 pixels")
    deepest = int(math.log2(c.size)) - 2                                        # leaves G 4 x 4 pixels
    for name, low, high in (("steps", 1, 10 ** 9), ("batch", 1, 10 ** 6), ("warmup", 0, 10 ** 9), ("seed", 0, 2 ** 62),
                            ("shift", 0, c.size // 4), ("g_width", 1, 1024), ("g_down", 0, deepest), ("g_blocks", 0, 100),
                            ("r_width", 1, 1024), ("measure_every", 1, 10 ** 9), ("save_every", 1, 10 ** 9)):
        if not low <= getattr(c, name) <= high:
            raise InputError(f"--{name} {getattr(c, name)}: must be {low} or more, and {high} at most")
    for f in fields(Config):
        if f.type is float and not 0 <= getattr(c, f.name) <= 1e6:
            raise InputError(f"--{f.name} {getattr(c, f.name)}: must be a number from 0 to 1e6")
    for name in ("ties", "decay_from", "freeze_from"):
        if getattr(c, name) > 1:
            raise InputError(f"--{name} {getattr(c, name)}: is a share, from 0 to 1")
    if c.precision not in ("auto", "bf16", "float32"):
        raise InputError(f"--precision {c.precision}: must be auto, bf16 or float32")
    if max(c.beta1, c.beta2) >= 1:
        raise InputError("--beta1 and --beta2 must be below 1")


def choose_device(name):
    """"auto", or a name that torch.device takes and this machine has."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        if torch.device(name).type in ("cpu", "cuda", "mps"):
            return torch.zeros(1, device=name).device                           # cuda:0 for cuda
    except (RuntimeError, AssertionError):                                      # AssertionError: torch without cuda
        pass
    raise InputError(f"--device {name}: there is none on this machine; type --device cpu, or leave it out")


def open_run(args, out, device):
    """The run that the command line asks for: new, or gone on with. Nothing in `out` is changed here."""
    if not args.resume and not args.edit:
        if (out / "trip.pt").exists() and not args.overwrite:
            raise InputError(f"{out} holds a run already: add --resume to go on with it, or --overwrite to start anew")
        config = Config(**args.config)
        check(config)
        return Run(config, device)
    run = restore(out, device)
    for name, value in args.given.items():
        if name in ("steps", "root", "precision", "compile", "measure_every", "save_every"):    # these may change on the way
            run.config = replace(run.config, **{name: value})
        elif value != getattr(run.config, name):
            raise InputError(f"the run in {out} has --{name} {show(getattr(run.config, name))}, not {show(value)}: "
                             f"leave the option out, or name another folder with --out")
    check(run.config)
    if args.resume and len(run.rngs) != (dist.get_world_size() if dist.is_initialized() else 1):
        raise InputError(f"the run in {out} was trained by {len(run.rngs)} processes: to go on, start as many with torchrun")
    if run.config.steps < run.step:
        raise InputError(f"the run in {out} has done {run.step} iterations: --steps must be {run.step} or more")
    return run


def show(value):
    return " ".join(value) if isinstance(value, tuple) else str(value)


def edit(run, out, images, strengths):
    """Apply the run to picture files of any size and write the strip out/edit.png."""
    K = len(run.config.attr)
    if strengths is None:
        rows = [[u if i == k else 0.0 for i in range(K)] for k in range(K) for u in (-1.0, -0.5, 0.0, 0.5, 1.0)]
    else:
        rows = [strength(text, K) for text in strengths]
    x = torch.stack([data.read_picture(path, run.config.size) for path in images])
    x = data.as_float(x).to(run.device)
    if any(abs(u) > 1 for row in rows for u in row):
        print("warning: a strength outside -1 .. 1 is one that the model never saw", file=sys.stderr)
    if run.config.data == "faces":
        print("note: this run was trained on drawn faces; it cannot be expected to edit a photograph", file=sys.stderr)
    names = [",".join(f"{u:+g}" for u in row) for row in rows]
    figure = draw_strips(x, translate(run.G, x, torch.tensor(rows)), names, f"{', '.join(run.config.attr)}: v =")
    figure.savefig(out / "edit.png", dpi=100)
    print(f"wrote {out / 'edit.png'}")


def strength(text, K):
    """One strength of --v: K numbers with commas between."""
    try:
        v = [float(u) for u in text.split(",")]
    except ValueError:
        v = []
    if len(v) != K or not all(-100 <= u <= 100 for u in v):
        raise InputError(f"--v {text.strip()}: a strength is {K} number{'s' * (K > 1)} here, from -1 to 1, like {','.join(['0.5'] * K)}")
    return v


def make_folder(out):
    """Make the folder `out` and see that it can be written to."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out).close()
    except OSError as error:
        raise InputError(f"{out}: cannot write there ({error.strerror}); name another folder") from None


def live(record, run, clock):
    """The line that is seen during training: rewritten in place in a terminal, else a line for each measurement."""
    done = run.step - clock["first"]
    rate = done / (time.perf_counter() - clock["started"])
    columns = shutil.get_terminal_size().columns - 1
    if "gen_plus" in record:
        clock["means"] = "  ".join(f"{label} {np.mean(record[plus]):+.2f} {np.mean(record[minus]):+.2f}" for label, plus, minus in
                                   (("real", "real_plus", "real_minus"), ("generated", "gen_plus", "gen_minus")))
    left = int((run.config.steps - run.step) / rate)
    line = (f"iteration {run.step}/{run.config.steps}  {rate:.1f} it/s  {left // 60}:{left % 60:02d} left  "
            f"{clock.get('means', '')}{'' if run.step > run.pretraining else '  (pretraining)'}")
    if sys.stdout.isatty():
        print("\r" + line[:columns].ljust(columns), end="" if run.step < run.config.steps else "\n", flush=True)
    elif "gen_plus" in record:
        print(line, flush=True)


def train_command(run, args, out):
    """Train to the end, or until Ctrl-C; then say where things are. Returns the exit code."""
    c, first = run.config, process() == 0
    for turn in (True, False):                                                  # the first process prepares the files for all
        if first == turn:
            train_data, test_data = data.load(c.data, c.attr, c.size, c.root, download=args.download and first)
        if dist.is_initialized():
            dist.barrier()
    if c.batch > len(train_data):
        raise InputError(f"--batch {c.batch}: there are {len(train_data)} training pictures; type --batch {len(train_data)} or less")
    make_folder(out)
    if args.overwrite and first:
        for path in [path for pattern in FILES for path in out.glob(pattern)]:
            path.unlink()
    start = f"torchrun --nproc-per-node {dist.get_world_size()}" if dist.is_initialized() else "python"
    to_go_on = f"{start} trip.py --attr {shlex.join(c.attr)} --out={shlex.quote(out.as_posix())} --resume"
    if args.device != "auto":
        to_go_on += f" --device {args.device}"
    speed_up(run)
    if first:
        print(f"{c.data}: {len(train_data)} training and {len(test_data)} test pictures, {' '.join(c.attr)}; {run.device.type}; "
              f"results in {out}", flush=True)
    stopped = []

    def stop(number, frame):                                                    # after this iteration;
        stopped.append(number)                                                  # a second Ctrl-C ends the program at once
        signal.signal(number, before[number])
        if first:
            print("\nstopping ...", flush=True)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        if run.step == 0:
            save(run, out)
        if run.step == c.steps and first:
            report(run, out, test_data)
        clock = {"first": run.step, "started": time.perf_counter()}
        for record in train(run, train_data, test_data):
            if first:
                live(record, run, clock)
            stopping = asked_to_stop(stopped, run)
            if stopping or run.step % c.save_every == 0 or run.step == c.steps:
                save(run, out)
                if first:
                    report(run, out, test_data)
            if stopping and run.step < c.steps:
                if first:
                    print(f"stopped and saved at iteration {run.step}; to go on: {to_go_on}")
                return 130
    except Diverged as error:
        print(f"trip.py: stopped: {error}. The last good checkpoint is in {out}; start anew with a smaller --lr_g or --lr_r "
              f"and --overwrite", file=sys.stderr)
        return 1
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if first:
        print(f"finished: see {', '.join(str(out / name) for name in ('summary.json', 'samples.png', 'ranker.png'))}")
    return 0


def asked_to_stop(stopped, run):
    """Whether to stop after this iteration: under torchrun all processes agree on that, every ten iterations."""
    if not dist.is_initialized():
        return bool(stopped)
    if run.step % 10:
        return False
    flag = torch.tensor(float(bool(stopped)), device=run.device)
    dist.all_reduce(flag)
    return flag.item() > 0


def exit_code(program, command, argv):
    """The exit code of command(argv): its own; 2 for a mistake, of the user or of the machine, told in one line; 130 for Ctrl-C."""
    try:
        return command(sys.argv[1:] if argv is None else argv)
    except InputError as error:
        message = error
    except OSError as error:                                                    # a full disk, a folder in a file's place ...
        message = f"{error}; look there, or name another folder"
    except (MemoryError, RuntimeError) as error:                                # torch tells it in several ways
        if not isinstance(error, MemoryError) and not re.search("out of memory|allocate memory|not enough memory", str(error)):
            raise
        message = "not enough memory; train with a smaller --size, --batch, --g_width or --r_width"
    except KeyboardInterrupt:
        return 130
    if process() == 0:
        print(f"{program}: error: {message}", file=sys.stderr)
    return 2


def join(device):
    """Under torchrun, which sets LOCAL_RANK and more, become one of its processes, with a GPU of its own if there are GPUs."""
    if "LOCAL_RANK" in os.environ and not dist.is_initialized():
        if torch.cuda.is_available() and device != "cpu":
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        dist.init_process_group(timeout=timedelta(hours=12))                    # the first one may have to prepare pictures


def command(argv):
    args = parse(argv)
    join(args.device)
    out = args.out or Path("runs") / "_".join(Config(**args.config).attr)
    run = open_run(args, out, choose_device(args.device))
    if args.edit:
        make_folder(out)
        edit(run, out, args.edit, args.v)
        return 0
    return train_command(run, args, out)


def main(argv=None):
    return exit_code("trip.py", command, argv)


if __name__ == "__main__":
    code = main()
    if code == 0 and dist.is_initialized():                                     # (after an error the others may not come to this)
        dist.destroy_process_group()
    sys.exit(code)
