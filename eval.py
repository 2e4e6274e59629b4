"""Everything that is measured, drawn or reported: a run while it trains, a picture edited by it, and its final marks.

    python eval.py runs/smile                           all metrics, printed and in eval.json; figures beside it
    python eval.py runs/smile --metrics ssim ranker     some of them
    python eval.py runs/smile runs/no-rivals            several runs in one table, judged by the first's ranker

    metric         the question                                                  the answer
    ssim           are the steps of the sweep even? (Eq. 8)                      ssim, ssim_score
    aas            can the attribute be swapped, says a classifier?              classifier
    fid            do swapped pictures look like pictures of the data set?       frechet_distance, inception
    ranker         what does R say of generated pairs? (Fig. 6, 7)               ranker_scores
    preservation   what stays as it was?                                         preservation_scores
    truth          how strong is the attribute in truth, and what else moved?    strength_judge, truth_scores

The sweep is G(x, v) for v = -1, -0.8 .. 1. Shapes: N test pictures, V = 13 strengths (sweep and +-0.5), K attributes.
The judges are trained once for a data set and kept in runs/judges. Neither they nor the truth touch TRIP's training.
"""

import base64
import csv
import hashlib
import html
import io
import json
import math
import pickle
import re
import shutil
import sys
import time
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image, ImageDraw
from torch import nn
from torch.nn import functional as F
from torchvision.models import resnet18

import data
import trip
from data import InputError, team

SWEEP = [i / 5 for i in range(-5, 6)]  # Fig. 5, Eq. 8
LEVELS = [-1.0, -0.5, 0.0, 0.5, 1.0]  # Fig. 6, and the table in Fig. 7
V = np.array(sorted({*SWEEP, *LEVELS}))  # every picture is translated with these
AT_SWEEP, AT_LEVELS, AT_ZERO = np.searchsorted(V, SWEEP), np.searchsorted(V, LEVELS), V.tolist().index(0)
METRICS = ("ssim", "aas", "fid", "ranker", "preservation", "truth")
OUTPUTS = ("real_plus", "real_zero", "real_minus", "gen_plus", "gen_zero", "gen_minus")  # r or v = +1, 0, -1
EARLY = 100  # iterations of ranking, as in Fig. 11b


# ------------------------------------------------------------------------------------------------------------
# A run while it trains

@torch.no_grad()
def in_parts(function, *inputs):
    """function(*inputs), (N, ...), in parts that fit any memory, without gradients; inputs: pictures first."""
    n = max(1, 2 ** 17 // inputs[0][0, 0].numel())
    return torch.cat([function(*part) for part in zip(*(whole.split(n) for whole in inputs))])


@torch.no_grad()
def translate(G, x, v):
    """Redraw every picture with every strength; G in evaluation mode.

    x: float (N, 3, H, W) in [-1, 1]; v: (M, K), or (M,) for one attribute. Returns (N, M, 3, H, W) in [-1, 1].
    """
    v = torch.as_tensor(v, dtype=x.dtype, device=x.device)
    v = v[:, None] if v.dim() == 1 else v
    training = G.training
    G.eval()
    ys = [in_parts(G, x, strength.expand(len(x), -1)) for strength in v]
    G.train(training)
    return torch.stack(ys, 1)


def asked(has):
    """The paper's footnote 3: v < 0 is asked of pictures that have the attribute, v > 0 of others (v = 0 of all).

    has: bool tensor. Returns the strength of the swap, -1.0 or 1.0, of the same shape.
    """
    return torch.where(has, -1.0, 1.0)


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
    """What R says of held-out pairs (Fig. 6, 7, 11), by footnote 3. x: float (n, 3, H, W); labels: bool (n, K).

    Returns two dicts. The outputs: real_plus, real_zero, real_minus (pairs with r = +1, 0, -1), gen_plus,
    gen_zero, gen_minus (v), each a list of K tensors. The row: their means and, for generated pairs, stds,
    pair_accuracy, the share of real pairs with r = +-1 whose sign is right (each a list of K numbers), and
    recon_l1, mean |G(x, 0) - x|.
    A run without a ranker of this kind (study/rivals.py) has no outputs, and its row has what it measures itself.
    """
    G, R = run.G, run.R
    n, K = labels.shape
    back = translate(G, x, torch.zeros(1, K))[:, 0]
    recon_l1 = (x - back).abs().mean().item()
    if not R:
        return {}, {"recon_l1": recon_l1, **run.measure(x, labels)}
    fx = in_parts(R.features, x)
    shifts = (1, n // 2 - 1, n // 2, n // 2 + 1)  # each with four others, near and far: `probe` sorts them by labels
    real = torch.cat([R.rank(fx, fx.roll(s, 0)) for s in shifts])
    r = torch.cat([labels.roll(s, 0).int() - labels.int() for s in shifts])
    zero = R.rank(fx, in_parts(R.features, back))
    outputs = {name: [] for name in OUTPUTS}
    training = G.training
    G.eval()
    for k in range(K):
        has = labels[:, k]
        v = x.new_zeros(n, K)
        v[:, k] = asked(has)
        moved = R.rank(fx, in_parts(R.features, in_parts(G, x, v)))[:, k]
        found = (real[r[:, k] == 1, k], real[r[:, k] == 0, k], real[r[:, k] == -1, k],
                 moved[~has], zero[:, k], moved[has])
        for name, value in zip(OUTPUTS, found):
            outputs[name].append(value.cpu())
    G.train(training)
    row = {name: [u.mean().item() for u in outputs[name]] for name in OUTPUTS}
    row |= {f"{name}_std": [u.std().item() for u in outputs[name]] for name in OUTPUTS if name.startswith("gen")}
    row["pair_accuracy"] = [torch.cat([p > 0, m < 0]).float().mean().item()
                            for p, m in zip(outputs["real_plus"], outputs["real_minus"])]
    row["recon_l1"] = recon_l1
    return outputs, row


def mean_losses(run):
    """The means of the losses since the last measurement; raises Diverged where one was not finite."""
    numbers = {name: torch.stack(losses).tolist() for name, losses in run.recent.items()}
    bad = [(run.step - len(losses) + 1 + i, name, loss) for name, losses in numbers.items()
           for i, loss in enumerate(losses) if not math.isfinite(loss)]
    if bad:
        raise trip.Diverged("iteration {}: the loss {} is {}".format(*min(bad, key=lambda found: found[0])))
    return {name: sum(losses) / len(losses) for name, losses in numbers.items()}


def keep(run, out, test_data):
    """Save the run in the folder `out`, and its report beside it."""
    trip.save(run, out)
    if run.step and team.first:
        report(run, out, test_data)


def watch(run, train_data, test_data, out=None):
    """trip.train(run, ...), or a rival's training, measured on held-out pictures now and then. To be iterated over.

    Yields a record for each iteration: a dict of `step` and the losses (tensors); where the run was measured,
    also of what `measure` found. run.history keeps these, with the losses' means since the last one,
    run.snapshots the raw outputs at the start, after EARLY iterations of ranking and at the end. out: a folder to
    keep the run in, every `save_every` iterations. Raises Diverged where a loss is not finite.
    """
    c = run.config
    training = (trip.train(run, data.pairs(train_data, c.batch, run.rng, c.ties, run.device)) if run.R else
                run.train(train_data))
    held_out = probe(test_data, run.device)
    early = run.warmup + min(EARLY, (c.steps - run.warmup) // 10)
    if run.step == 0:
        run.snapshots["start"], _ = measure(run, *held_out)
    if out and run.step in (0, c.steps):
        keep(run, out, test_data)
    started = time.perf_counter()
    for losses in training:
        losses = {name: loss.detach() for name, loss in losses.items()}
        for name, loss in losses.items():
            run.recent.setdefault(name, []).append(loss)
        record, means = {"step": run.step, **losses}, {}
        measuring = run.step % c.measure_every == 0 or run.step in (early, c.steps)
        if measuring or run.step % 10 == 0 or run.step % c.save_every == 0:  # (not always: a GPU would wait for it)
            means = mean_losses(run)
        if measuring and team.first:
            outputs, row = measure(run, *held_out)
            if run.step == c.steps:
                run.snapshots["end"] = outputs
            elif run.step == early:
                run.snapshots.setdefault("early", outputs)
            record |= row
            run.history.append({"step": run.step, **means, **row})
        if measuring:
            run.recent = {}
        run.seconds += time.perf_counter() - started  # without what the caller does now
        if out and (run.step % c.save_every == 0 or run.step == c.steps):
            keep(run, out, test_data)
        yield record
        started = time.perf_counter()


def progress(run):
    """A function of a record that shows a line: rewritten in place in a terminal, else one for each measurement."""
    first, started, means = run.step, time.perf_counter(), ""

    def tell(record):
        nonlocal means
        c, rate = run.config, (run.step - first) / (time.perf_counter() - started)
        if "gen_plus" in record:
            means = "  ".join(f"{label} {np.mean(record[kind + '_plus']):+.2f} {np.mean(record[kind + '_minus']):+.2f}"
                              for label, kind in (("real", "real"), ("generated", "gen")))
        elif "recon_l1" in record:  # (of a rival)
            means = f"L1 of G(x, 0) to x {record['recon_l1']:.3f}"
        left = int((c.steps - run.step) / rate)
        line = (f"iteration {run.step}/{c.steps}  {rate:.1f} it/s  {left // 60}:{left % 60:02d} left  {means}"
                f"{'' if run.step > run.warmup else '  (warm-up)'}")
        width = shutil.get_terminal_size().columns - 1
        if sys.stdout.isatty() and team.first:
            print("\r" + line[:width].ljust(width), end="" if run.step < c.steps else "\n", flush=True)
        elif "recon_l1" in record:
            team.say(line)
    return tell


def summarise(run):
    """The last fifth of the iterations, or the last 10 measurements if these are more, averaged: summary.json."""
    rows = [h for h in run.history if h["step"] > 0.8 * run.config.steps]
    rows = run.history[-max(10, len(rows)):]
    summary = {}
    for name in rows[-1]:
        if name in ("recon_l1", "pair_accuracy") or name.startswith(("real_", "gen_")):
            mean = np.mean([h[name] for h in rows], 0)
            summary[name] = mean.item() if mean.size == 1 else mean.tolist()
    return summary | {"seconds": run.seconds, "steps": run.step, "seed": run.config.seed, "device": run.device.type,
                      "config": asdict(run.config)}


# ------------------------------------------------------------------------------------------------------------
# The report of a run, and pictures edited by it

# what a run's folder may hold, this file's figures among it: --overwrite removes all
FILES = ("trip.pt", "trip.pt.new", "history.csv", "ranker.npz", "ranker.png", "samples.png", "samples.*.png",
         "summary.json", "dial.html", "dial.gif", "edit.png", "edit.html", "eval.json", "fig*.png", "truth.png",
         "truth.*.png")


def remove(out):
    """Remove the files of a run from its folder, and nothing else."""
    for pattern in FILES:
        for path in out.glob(pattern):
            path.unlink()


def cells(row, attrs):
    """A record as cells of a table: for several attributes, real_plus -> real_plus.smile, real_plus.frown, ..."""
    found = {}
    for name, value in row.items():
        if isinstance(value, list):
            found |= {name if len(attrs) == 1 else f"{name}.{attr}": u for attr, u in zip(attrs, value)}
        else:
            found[name] = value
    return found


def report(run, out, test_data):
    """Write history.csv, ranker.npz, ranker.png (Fig. 11), samples.png (Fig. 5); at the end summary.json, the dial."""
    attrs = [utf_8(attr) for attr in run.config.attr]
    rows = [cells(row, attrs) for row in run.history]
    with open(out / "history.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(name for row in rows for name in row)), restval="")
        writer.writeheader()
        writer.writerows(rows)
    if run.R:
        np.savez(out / "ranker.npz", **{
            f"{moment}.{name}.{attr}": u.numpy() for moment, outputs in run.snapshots.items()
            for name in OUTPUTS for attr, u in zip(attrs, outputs[name])})
        fig_densities(run).savefig(out / "ranker.png", dpi=100)
    for k, attr in enumerate(attrs):
        fig_strips(run, test_data, k).savefig(out / ("samples.png" if k == 0 else f"samples.{attr}.png"), dpi=100)
    if run.step >= run.config.steps:
        (out / "summary.json").write_text(json.dumps(summarise(run), indent=2) + "\n")
        write_dial(run, out, test_data)


def edit(run, out, images, strengths=None, crop=None):
    """Apply the run to picture files of any size: the strip out/edit.png and the page out/edit.html. Returns 0.

    strengths: texts as --v takes them; None: -1, -0.5, 0, 0.5, 1, of one attribute at a time. crop: see `framed`.
    """
    K = len(run.config.attr)
    if strengths is None:
        rows = [[u if i == k else 0.0 for i in range(K)] for k in range(K) for u in LEVELS]
    else:
        rows = [strength(text, K) for text in strengths]
    x = torch.stack([framed(path, run.config.size, crop) for path in images])
    x = data.as_float(x).to(run.device)
    data.make_folder(out)
    if any(abs(u) > 1 for row in rows for u in row):
        print("warning: a strength outside -1 .. 1 is one that the model never saw", file=sys.stderr)
    if run.config.data == "faces":
        print("note: this run was trained on drawn faces; it cannot be expected to edit a photograph", file=sys.stderr)
    if run.config.data.startswith("celeba"):
        print("note: this run knows faces as CelebA frames them: upright, the eyes half way down and a quarter of the "
              "width apart; frame yours alike, by --crop", file=sys.stderr)
    names = [",".join(f"{u:+g}" for u in row) for row in rows]
    figure = strips(x, translate(run.G, x, torch.tensor(rows)), names, f"{', '.join(run.config.attr)}: v =")
    figure.savefig(out / "edit.png", dpi=100)
    (out / "edit.html").write_text(dial_page(run, x), encoding="utf-8")
    print(f"wrote {out / 'edit.png'} and, to turn the dial in a browser, {out / 'edit.html'}")
    return 0


def framed(path, size, crop=None):
    """The square of a picture file that a run is applied to, uint8 (3, size, size); says what is cut off.

    crop: its left, its top and its side in pixels of the upright picture; None: the largest one in the centre.
    Raises InputError where it leaves the picture.
    """
    w, h = data.open_picture(path).size
    if crop:
        left, top, side = crop
        if min(left, top) < 0 or side < 1 or left + side > w or top + side > h:
            raise InputError(f"--crop {left} {top} {side}: {path} has {w} x {h} pixels; LEFT and TOP can be 0 or "
                             f"more, SIZE 1 or more, LEFT + SIZE {w} at most, TOP + SIZE {h}")
    elif w != h:
        sides = "left and the right" if w > h else "top and the bottom"
        print(f"note: {path} has {w} x {h} pixels: {abs(w - h) / 2:g} at the {sides} are cut off; --crop LEFT TOP SIZE "
              f"takes another square", file=sys.stderr)
    return data.read_picture(path, size, crop=crop)


def strength(text, K):
    """One strength of --v: K numbers with commas between."""
    try:
        v = [float(u) for u in text.split(",")]
    except ValueError:
        v = []
    if len(v) != K or not all(-100 <= u <= 100 for u in v):
        raise InputError(f"--v {text.strip()}: a strength is {K} number{'s' * (K > 1)} here, from -1 to 1, like "
                         f"{','.join(['0.5'] * K)}")
    return v


# ------------------------------------------------------------------------------------------------------------
# Measures

def ssim(a, b):
    """Structural similarity (Wang et al. 2004): Gaussian window of 11 x 11, sigma 1.5, K1 = 0.01, K2 = 0.03.

    a, b: (N, C, H, W), 11 pixels wide and high or more. Returns (N,), 1 for equal pictures: the mean over the
    channels and over the windows that lie inside the picture.
    """
    window = torch.exp(-torch.arange(-5.0, 6.0, device=a.device) ** 2 / (2 * 1.5 ** 2))
    window = window / window.sum()

    def blur(x):  # its rows, then its columns
        x = F.conv2d(x.flatten(0, 1)[:, None], window[None, None, None, :])
        return F.conv2d(x, window[None, None, :, None]).unflatten(0, a.shape[:2])[:, :, 0]

    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b, cov = blur(a * a) - mean_a ** 2, blur(b * b) - mean_b ** 2, blur(a * b) - mean_a * mean_b
    c1, c2 = 0.02 ** 2, 0.06 ** 2  # K1, K2 times the range of the pixels, 2
    s = (2 * mean_a * mean_b + c1) * (2 * cov + c2) / ((mean_a ** 2 + mean_b ** 2 + c1) * (var_a + var_b + c2))
    return s.mean((1, 2, 3))


def ssim_score(neighbours):
    """Eq. 8: std of the SSIM of neighbours in the sweep, averaged over pictures; 0: even steps, or none.

    neighbours: (N, 10).
    """
    return neighbours.std(1).mean().item()


def frechet_distance(a, b):
    """|m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)): of Gaussians with the means m and covariances S of two sets.

    a, b: features (n, d), two rows or more each. Where S_a = A^T A and S_b = B^T B, the trace of the root is the
    sum of the singular values of A B^T: no root of a matrix, so n may be smaller than d. In double precision.
    """
    a, b = (torch.as_tensor(x).double().cpu() for x in (a, b))

    def root(x):  # A: (min(n, d), d)
        return torch.linalg.qr((x - x.mean(0)) / (len(x) - 1) ** 0.5, mode="r").R

    A, B = root(a), root(b)
    means = ((a.mean(0) - b.mean(0)) ** 2).sum()
    distance = means + (A ** 2).sum() + (B ** 2).sum() - 2 * torch.linalg.matrix_norm(A @ B.T, "nuc")
    return max(0.0, distance.item())  # rounding may leave -1e-12


def correlation(a, b):
    """Pearson's correlation along the last axis; 0 where one of the two is constant."""
    a, b = a - a.mean(-1, keepdims=True), b - b.mean(-1, keepdims=True)
    norm = np.sqrt((a ** 2).sum(-1) * (b ** 2).sum(-1))
    return (a * b).sum(-1) / np.where(norm > 0, norm, np.inf)


def ranks(x):
    """Ranks along the last axis; equal values share their mean rank, as Spearman's correlation asks."""
    above = x[..., :, None] > x[..., None, :]  # (..., i, j): x_i is above x_j
    return (above.sum(-1) + x.shape[-1] - above.sum(-2) + 1) / 2


def where_asked(has):
    """Footnote 3 along V: which strengths are asked of which pictures, bool array (N, V). has: bool tensor (N,)."""
    return (V == 0) | (np.sign(V) == asked(has).numpy()[:, None])


def curve(R, has):
    """Mean and std of R(x, G(x, v)) along V, with footnote 3, and the std within the two classes: arrays (V,).

    R: (N, V); has: bool tensor (N,). Only at v = 0 are both classes asked: there the means of the two may lie
    apart, as those of a dial that asks for a strength do (see own_scale), and this alone makes a large std.
    """
    mask, sides = where_asked(has), (has.numpy(), ~has.numpy())
    mean, std = R.mean(0, where=mask), R.std(0, where=mask)
    within = std.copy()
    within[AT_ZERO] = np.sqrt(sum(side.mean() * R[side, AT_ZERO].var() for side in sides))
    return mean, std, within


def shape(mean, std):
    """The shape of a curve along V, numbers that do not depend on how far it reaches; 0 where it reaches nowhere.

    half_step: the share of its range between v = -0.5 and 0.5: 0.5 of a line, 1 of three steps. jump: the same of
    -0.2 and 0.2: 0.2 of a line, 1 of a jump at 0. spread: the mean std at v = +-1 in halves of the range.
    straight: R^2 of a straight line.
    """
    at = dict(zip(V.tolist(), mean.tolist()))
    reach = at[1.0] - at[-1.0]
    parts = {"half_step": at[0.5] - at[-0.5], "jump": at[0.2] - at[-0.2], "spread": 2 * std[[0, -1]].mean().item()}
    straight = correlation(mean[AT_SWEEP], np.array(SWEEP)) ** 2
    return {name: u / reach if reach else 0.0 for name, u in parts.items()} | {"straight": straight.item()}


def own_scale(readings, has):
    """Readings of an absolute dial, whose v asks for a strength, as if it were a relative one, that asks for a change.

    readings: (N, V); has: bool tensor (N,). Returns (N, V), columns reordered: to ask a picture that has the
    attribute for the change v in [-1, 0] is to ask for the strength 1 + 2 v; one without it, for v in [0, 1],
    -1 + 2 v. So 0 asks for what is there. (What footnote 3 does not ask for is asked as v = 0.)
    """
    def places(own):
        return [np.abs(V - np.clip(own + 2 * v, -1, 1)).argmin() for v in V]

    return np.where(has.numpy()[:, None], readings[:, places(1)], readings[:, places(-1)])


def ranker_scores(R, has):
    """Mean and std of R(x, G(x, v)) at LEVELS and along SWEEP, with footnote 3; their shape.

    And Pearson's correlation with v. R: (N, V); has: bool tensor (N,).
    """
    mask, (mean, std, within) = where_asked(has), curve(R, has)
    return {"ranker_mean": mean[AT_LEVELS].tolist(), "ranker_std": std[AT_LEVELS].tolist(),
            "ranker_std_within": within[AT_ZERO].item(),
            "ranker_sweep_mean": mean[AT_SWEEP].tolist(), "ranker_sweep_std": std[AT_SWEEP].tolist(),
            **{f"ranker_{name}": u for name, u in shape(mean, std).items()},
            "ranker_pearson": correlation(R[mask], np.broadcast_to(V, R.shape)[mask]).item()}


def preservation_scores(change, outside):
    """L1 of G(x, 0) to x, and of the sweep to x outside the attribute's region, if that is known.

    change, outside: (N, V), pixels in [-1, 1].
    """
    scores = {"recon_l1": change[:, AT_ZERO].mean().item()}
    return scores if outside is None else scores | {"outside_l1": outside[:, AT_SWEEP].mean().item()}


def truth_scores(seen, before, truth, k, trained):
    """Against the true strengths, in [0, 1] (drawn faces only).

    seen: (N, V, A), the strengths of all A attributes that the judge reads from G(x, v); before: (N, A), from x
    itself; truth: (N, A), of x; k: the attribute that v stands for; trained: all that the run has a dial for, k
    among them. Every v is asked of every picture. Leakage: how far the others' strengths, read at v = +-1, are
    from the truth of x; `leakage_judge` is the same for x itself: the judge's own error. `disentanglement` is a
    row of a K x K matrix: what turning this dial from -1 to 1 does to each attribute that has a dial. `crossed`:
    the share of faces that the dial takes across strength 0.5, by v = -1 where x is above it, by v = +1 where x
    is below; `true_spearman_asked`: the rank correlation in that half of the dial, where footnote 3 asks.
    """
    sweep, others = seen[:, AT_SWEEP, k], np.arange(truth.shape[1]) != k
    above, middle = truth[:, k] > 0.5, len(SWEEP) // 2
    half = np.where(above[:, None], sweep[:, :middle + 1], sweep[:, middle:])
    mean, error = sweep.mean(0), np.abs(before - truth)
    change = (seen[:, -1] - seen[:, 0]).mean(0)[trained]
    return {"true_spearman": correlation(ranks(sweep), ranks(np.array(SWEEP))).mean().item(),
            "true_spearman_asked": correlation(ranks(half), np.arange(middle + 1.0)).mean().item(),
            "true_linearity": (correlation(mean, np.array(SWEEP)) ** 2).item(),
            "true_range": (mean[-1] - mean[0]).item(),
            "crossed": ((np.where(above, seen[:, 0, k], seen[:, -1, k]) > 0.5) != above).mean().item(),
            **({"disentanglement": change.tolist()} if len(trained) > 1 else {}),
            "leakage": np.abs(seen[:, [0, -1]] - truth[:, None])[:, :, others].mean().item(),
            "leakage_judge": error[:, others].mean().item(),
            "judge_error": error.mean(0).tolist(),
            "judge_r2": (1 - (error ** 2).mean(0) / truth.var(0).clip(1e-12)).tolist()}


# ------------------------------------------------------------------------------------------------------------
# Judges

def fit(net, pictures, targets, loss, steps, batch, lr, tell):
    """Train a judge by Adam; its rate rises and falls once ("one cycle"). Pictures are mirrored at random.

    pictures: uint8 (N, 3, H, W); targets: float (N, K); loss(net(x), target) is a scalar; tell: shows a line.
    """
    device = next(net.parameters()).device
    rng = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(net.parameters(), lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps)
    rows = torch.cat([torch.randperm(len(pictures), generator=rng) for _ in range(steps * batch // len(pictures) + 1)])
    for step, part in enumerate(rows[:steps * batch].split(batch)):
        x, target = data.mirrored(data.as_float(pictures[part]).to(device), rng), targets[part].to(device)
        optimizer.zero_grad()
        loss(net(x), target).backward()
        optimizer.step()
        schedule.step()
        tell(f"{step + 1}/{steps}")


def judge(kind, make, train, device, folder, *about):
    """The judge `make()` after `train(net)`; the one in `folder`, if it is of the same make and learned from the same.

    about: what else decides how it turns out: tensors (pictures, labels) and numbers (of steps ...).
    """
    def fresh():
        with torch.random.fork_rng():
            torch.manual_seed(0)  # decides the first weights
            return make()

    net = fresh()
    digest = hashlib.sha256(repr(net).encode())
    for part in about:
        digest.update(part.contiguous().numpy() if isinstance(part, torch.Tensor) else repr(part).encode())
    path = Path(folder) / f"{kind}-{digest.hexdigest()[:12]}.pt"
    try:  # (on the CPU: no trouble of a GPU is taken for a damaged file)
        net.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, pickle.UnpicklingError):  # not there, or damaged
        data.make_folder(path.parent)
        net = fresh().to(device)
        train(net)
        data.store(net.state_dict(), path)
    return net.to(device).eval()


def classifier(train_data, device, tell, folder, steps=None):
    """AAS's judge: a ResNet-18, trained from nothing on the training pictures' labels. (N, 3, H, W) -> (N, K) logits.

    steps: of 64 pictures; None: 200 for drawn faces, which are soon told apart, 1,500 for photographs.
    """
    pictures, labels = train_data.images, train_data.labels
    steps = steps or (1500 if train_data.person is None else 200)

    def train(net):
        fit(net, pictures, labels.float(), F.binary_cross_entropy_with_logits, steps, 64, 2e-3,
            lambda text: tell(f"training the ResNet-18 of AAS: {text}"))

    return judge("resnet18", lambda: resnet18(num_classes=labels.shape[1]), train, device, folder,
                 pictures[::max(1, len(pictures) // 500)], labels, steps)


def resnet_features(net):
    """The ResNet-18 without its last layer: (N, 3, H, W) -> (N, 512)."""
    return nn.Sequential(*list(net.children())[:-1], nn.Flatten())


def inception(device):
    """The network of every published FID, from the package pytorch-fid: pictures (N, 3, H, W) -> features (N, 2048).

    Returns None where the package or its weights are missing (they are fetched once, 91 MB).
    """
    try:
        from pytorch_fid.inception import InceptionV3
        net = InceptionV3([InceptionV3.BLOCK_INDEX_BY_DIM[2048]])  # on the CPU: no trouble of a GPU ends here
    except (ImportError, OSError, EOFError):  # no package, no network
        return None
    except RuntimeError as error:
        if "hash" in str(error) or "zip archive" in str(error):  # a broken download
            return None
        raise
    net = net.to(device).eval()
    return lambda x: net(((x + 1) * 127.5).round().clamp(0, 255) / 255)[0].flatten(1)  # as if read from files of 8 bits


class Brighten(nn.Module):
    """Pixels in [-1, 1] to their square root on [0, 1], and back: shows what is dark, as a beard on dark skin."""

    def forward(self, x):
        return 2 * ((x + 1) / 2).clamp(min=1e-3).sqrt() - 1


def strength_judge(size, device, tell, folder, steps=2500, faces=20000):
    """The judge of the truth: a drawn face's strengths of data.FACE_ATTRS. (N, 3, size, size) -> (N, 4), about 0 .. 1.

    A plain convolutional network. It learns from drawn faces of its own: no training and no test part has them.
    """
    def own(n):
        return data.faces(data.FACE_ATTRS, size, seed=1, n=n)

    def make():
        layers, channels = [Brighten()], [3, 24, 48, *[96] * 6][:int(math.log2(size)) - 1]
        for c, d in zip(channels, channels[1:]):  # ends at 4 x 4, as the ranker does
            layers += [nn.Conv2d(c, d, 4, 2, 1), nn.BatchNorm2d(d), nn.ReLU()]
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(16 * d, 256), nn.BatchNorm1d(256), nn.ReLU(),
                             nn.Linear(256, len(data.FACE_ATTRS)))

    def train(net):
        tell("drawing faces for the judge of strengths")
        pool = own(faces)
        fit(net, pool.images, pool.strength, F.mse_loss, steps, 64, 6e-3,
            lambda text: tell(f"training the judge of strengths: {text}"))

    return judge("strength", make, train, device, folder, own(20).images, steps, faces)  # 20: the way faces are drawn


# ------------------------------------------------------------------------------------------------------------
# A run under all instruments

@dataclass
class Judges:
    """Whom the metrics ask; None where no metric does. All take float (n, 3, H, W) and are in evaluation mode."""
    classifier: nn.Module = None  # -> (n, K) logits
    features: object = None  # -> (n, d), for the Frechet distance
    features_name: str = "fid"  # or frechet_resnet18
    strengths: nn.Module = None  # -> (n, 4), for drawn faces
    first_ranker: nn.Module = None  # the R of the first of several runs


def call_judges(metrics, train_data, device, tell, folder):
    """The Judges that these metrics need, trained on the training part, or taken from `folder` if they are there."""
    judges = Judges()
    if "fid" in metrics:
        judges.features = inception(device)
    if "aas" in metrics or ("fid" in metrics and not judges.features):
        judges.classifier = classifier(train_data, device, tell, folder)
    if "fid" in metrics and not judges.features:
        judges.features, judges.features_name = resnet_features(judges.classifier), "frechet_resnet18"
    if "truth" in metrics and train_data.person is not None:
        judges.strengths = strength_judge(train_data.images.shape[-1], device, tell, folder)
    return judges


@torch.no_grad()
def read(run, k, test, judges, metrics, tell):
    """All that these metrics need to know of attribute k, read off every test picture x and its translations y.

    Returns name -> array (N, ...). "Swapped" is the translation with v = -1 for pictures that have the attribute,
    +1 for others.
    """
    outside = None
    if "preservation" in metrics and test.person is not None:
        outside = ~data.region(test, k).to(run.device)  # (N, 1, H, W): beyond the attribute's reach
    v = torch.from_numpy(V)[:, None] * torch.eye(len(run.config.attr))[k]
    readings = defaultdict(list)
    for rows in torch.arange(len(test)).split(16):
        x = data.as_float(test.images[rows]).to(run.device)
        y = translate(run.G, x, v)  # (n, V, 3, H, W)
        swapped = y[torch.arange(len(x)), torch.where(test.labels[rows, k], 0, len(V) - 1)]
        now = {}
        if "ssim" in metrics:
            now["ssim"] = torch.stack([ssim(y[:, i], y[:, j]) for i, j in zip(AT_SWEEP, AT_SWEEP[1:])], 1)
        if "aas" in metrics:
            now["said"] = judges.classifier(x)[:, k] > 0
            now["said_swapped"] = judges.classifier(swapped)[:, k] > 0
        if "fid" in metrics:
            now["features"] = judges.features(x)
            now["features_swapped"] = judges.features(swapped)
        if "ranker" in metrics:
            if run.R:
                now["R"] = rank_all(run.R, x, y)[..., k]
            if judges.first_ranker:
                now["R_first"] = rank_all(judges.first_ranker, x, y)[..., k]
        if "preservation" in metrics:
            change = (y - x[:, None]).abs().mean(2)  # (n, V, H, W)
            now["change"] = change.mean((2, 3))
            if outside is not None:
                now["outside"] = (change * outside[rows]).sum((2, 3)) / outside[rows].sum((2, 3))
        if judges.strengths:
            now["before"] = judges.strengths(x)
            now["seen"] = judges.strengths(y.flatten(0, 1)).unflatten(0, y.shape[:2])
        for name, reading in now.items():
            readings[name].append(reading.cpu())
        tell(f"{run.config.attr[k]}: measured {rows[-1] + 1} of {len(test)} test pictures")
    return {name: torch.cat(parts).numpy() for name, parts in readings.items()}


def rank_all(R, x, y):
    """R(x, y_i) for several pictures y_i of each x. x: (n, 3, H, W); y: (n, M, 3, H, W). Returns (n, M, K)."""
    fx = R.features(x).repeat_interleave(y.shape[1], 0)
    return R.rank(fx, R.features(y.flatten(0, 1))).unflatten(0, y.shape[:2])


@dataclass
class Result:
    """What is found out about one attribute of one run. The figures draw it."""
    folder: str
    run: trip.Run
    k: int  # the number of the attribute
    test: data.Data
    readings: dict  # name -> array (N, ...), see `read`
    scores: dict  # name -> number, or list of numbers
    judges: Judges

    @property
    def attr(self):
        return self.run.config.attr[self.k]

    @property
    def name(self):
        """The folder; of a run of several attributes with the attribute."""
        return self.folder if len(self.run.config.attr) == 1 else f"{self.folder} {self.attr}"


def assess(run, test, judges, metrics=METRICS, name="", tell=lambda text: None):
    """Judge one run on the test part. Returns a list of Results, one for each attribute. judges: see `call_judges`."""
    absolute = getattr(run, "absolute", False)  # of a rival: whether v is a strength, not a change
    results = []
    for k, attr in enumerate(test.attrs):
        readings = read(run, k, test, judges, metrics, tell)
        has, scores = test.labels[:, k], {}
        if "ssim" in metrics:
            scores["ssim_score"] = ssim_score(readings["ssim"])
        if "aas" in metrics:
            scores["aas"] = 100 * (readings["said_swapped"] != has.numpy()).mean().item()
            scores["aas_judge"] = 100 * (readings["said"] == has.numpy()).mean().item()
        if "fid" in metrics:
            scores[judges.features_name] = frechet_distance(readings["features"], readings["features_swapped"])
        if "ranker" in metrics:
            said = {"": readings.get("R"), "first_": readings.get("R_first")}
            if absolute and judges.first_ranker:
                said["first_own_"] = own_scale(readings["R_first"], has)
            scores |= {whose + name: score for whose, R in said.items() if R is not None
                       for name, score in ranker_scores(R, has).items()}
        if "preservation" in metrics:
            scores |= preservation_scores(readings["change"], readings.get("outside"))
            if absolute:
                scores["own_recon_l1"] = own_scale(readings["change"], has)[:, AT_ZERO].mean().item()
        if judges.strengths:
            truth = test.person[:, :len(data.FACE_ATTRS)]
            scores |= truth_scores(readings["seen"], readings["before"], truth, data.FACE_ATTRS.index(attr),
                                   [data.FACE_ATTRS.index(a) for a in test.attrs])
        results.append(Result(name, run, k, test, readings, scores, judges))
    return results


def evaluate(*folders, metrics=None, device="auto", root="", tell=lambda text: None):
    """Judge the runs in these folders. Returns a list of Results: of each run, of each of its attributes.

    metrics: some of METRICS; None: all that the data set allows. Of several runs, the first one's ranker judges
    all. root: where the data set is now, if not where it was in training; tell: called with a line of progress.
    Raises InputError.
    """
    device = data.choose_device(device)
    for metric in metrics or ():
        if metric not in METRICS:
            raise InputError(f"unknown metric {metric!r}: {data.nearest(metric, METRICS)}")
    runs = [trip.restore(folder, device) for folder in folders]  # before the work begins: are all there, and alike?
    c = runs[0].config
    for folder, run in zip(folders, runs):
        its = run.config
        if (its.data, its.attr, its.size) != (c.data, c.attr, c.size) or not (root or its.root == c.root):
            raise InputError(f"{folder} differs from {folders[0]} in its data set (or --root), attributes or size: "
                             f"evaluate it alone")
    tell(f"loading the data set {c.data}")
    train_data, test = data.load(c.data, c.attr, c.size, root or c.root)
    if metrics and "truth" in metrics and test.person is None:
        raise InputError(f"--metrics truth: nobody knows the true strengths in {c.data}; only those of drawn faces")
    unranked = [metric for metric in METRICS if metric != "ranker"]
    if not runs[0].R and ("ranker" in metrics if metrics else len(runs) > 1):
        raise InputError(f"{folders[0]} has no ranker, and the first run's judges all: name a run of trip.py first, or "
                         f"--metrics {' '.join(unranked)}")
    metrics = metrics or (METRICS if runs[0].R else unranked)
    judges = call_judges(metrics, train_data, device, tell, Path(folders[0]).resolve().parent / "judges")
    results = []
    for folder, run in zip(folders, runs):
        judges.first_ranker = runs[0].R if run is not runs[0] else None
        results += assess(run, test, judges, metrics, str(folder), tell)
    return results


# ------------------------------------------------------------------------------------------------------------
# Figures. Each returns a matplotlib Figure, 800 pixels wide or more at 100 dpi.

PALETTE = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"]  # Okabe and Ito's, for the colour-blind
COLOURS = {"plus": PALETTE[1], "zero": "#999999", "minus": PALETTE[0]}  # r or v = +1, 0, -1


def canvas(columns=1, height=4.5, width=8, **options):
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(1, columns, **options)


def utf_8(name):
    """A folder's name as text that can be written: what is no UTF-8 is a question mark."""
    return name.encode(errors="replace").decode()


def words(name):
    """A folder's name for matplotlib, to which $ would begin a formula."""
    return utf_8(name).replace("$", r"\$")


def dotted(axes, *targets):
    """Target values as dotted lines."""
    for u in targets:
        axes.axhline(u, color="black", lw=0.8, ls=":", zorder=0)


def tiled(pictures):
    """Rows of pictures as one picture: a tensor (n, m, 3, H, W) -> an array (n H, m W, 3)."""
    return pictures.permute(0, 3, 1, 4, 2).flatten(0, 1).flatten(1, 2).numpy()


def strips(x, ys, names, title):
    """A row for each picture, the input and then its translations. x: (N, 3, H, W); ys: (N, M, 3, H, W)."""
    rows = torch.cat([x[:, None], ys], 1).cpu()
    n, m, _, h, w = rows.shape
    figure, axes = canvas(1, n * max(h, 90) / 100 + 0.4, m * max(w, 90) / 100)
    axes.imshow((tiled(rows) + 1) / 2, interpolation="nearest")
    axes.set_xticks([w * (i + 0.5) for i in range(m)], ["input", *names])
    axes.set_yticks([])
    axes.tick_params(length=0)
    axes.set_xlabel(words(title))
    return figure


def fig_strips(run, test, k=0, n=8):
    """Fig. 5: the first n test pictures and their sweep by the dial of attribute k, a row each."""
    v = torch.tensor(SWEEP)[:, None] * torch.eye(len(run.config.attr))[k]
    x = data.as_float(test.images[:n]).to(run.device)
    return strips(x, translate(run.G, x, v), [f"{u:+.1f}" for u in SWEEP], f"{run.config.attr[k]}: v =")


def fig_box(result):
    """Fig. 6: box plot of R(x, G(x, v)); v < 0 is asked of pictures that have the attribute, v > 0 of those without."""
    figure, axes = canvas()
    mask = where_asked(result.test.labels[:, result.k])
    boxes = axes.boxplot([result.readings["R"][mask[:, i], i] for i in AT_LEVELS], positions=LEVELS, widths=0.25,
                         manage_ticks=False, patch_artist=True, medianprops={"color": "black"},
                         flierprops={"markersize": 3})
    for box, colour in zip(boxes["boxes"], [PALETTE[0], PALETTE[5], "#999999", PALETTE[4], PALETTE[1]]):
        box.set_facecolor(colour)
    dotted(axes, -0.5, 0, 0.5)
    axes.set(xlabel="v", xticks=LEVELS, ylabel="R(x, G(x, v))", ylim=(-1.5, 1.5),
             title=f"{words(result.name)}: generated pairs")
    return figure


def fig_ranker(results):
    """Fig. 7: mean and std of R(x, G(x, v)) against v, of one or several runs, all judged by the first one's R."""
    figure, axes = canvas()
    for result, colour in zip(results, PALETTE * len(results)):
        key = "first_" if result.run is not results[0].run else ""
        mean, std = (np.array(result.scores[f"{key}ranker_sweep_{name}"]) for name in ("mean", "std"))
        axes.plot(SWEEP, mean, ".-", color=colour, label=words(result.name))
        axes.fill_between(SWEEP, mean - std, mean + std, color=colour, alpha=0.2, lw=0)
    axes.plot([-1, 1], [-0.5, 0.5], "k:", lw=1, label="v / 2: half way")
    dotted(axes, -1, 1)
    axes.set(xlabel="v", ylabel="R(x, G(x, v)), mean and std", ylim=(-1.3, 1.3),
             title=f"judged by the ranker of {words(results[0].name)}")
    axes.legend()
    return figure


def fig_grid(run, test, n=3):
    """Fig. 8: the first two attributes at once, v in {-1, 0, 1}^2, for n test pictures; in the middle G(x, 0)."""
    x = data.as_float(test.images[:n]).to(run.device)
    v = torch.zeros(9, len(run.config.attr))
    v[:, 0], v[:, 1] = torch.tensor([-1.0, 0, 1]).repeat(3), torch.tensor([1.0, 0, -1]).repeat_interleave(3)
    y = translate(run.G, x, v)
    h, w = y.shape[3:]
    figure, grids = canvas(n, 8 / n + 0.1)
    for axes, cells in zip(np.atleast_1d(grids), y.cpu()):
        axes.imshow((tiled(cells.unflatten(0, (3, 3))) + 1) / 2)
        axes.set_xticks([w * (i + 0.5) for i in range(3)], ["-1", "0", "+1"])
        axes.set_yticks([h * (i + 0.5) for i in range(3)], ["+1", "0", "-1"])
        axes.set(xlabel=words(run.config.attr[0]), ylabel=words(run.config.attr[1]))
        axes.tick_params(length=0)
    return figure


def fig_losses(run):
    """Fig. 10: the losses of the two players, weighted as in their totals."""
    figure, panels = canvas(2)
    history = run.history
    for axes, player in zip(panels, ("ranker", "generator")):
        names = list(dict.fromkeys(name for row in history for name in row if name.startswith(f"{player}_")))
        steps = [row["step"] for row in history]
        axes.plot(steps, [sum(row.get(name, 0) for name in names) for row in history], color="black", label="total")
        for name, colour in zip(names, PALETTE):
            losses = [row.get(name, np.nan) for row in history]
            if np.nanmax(losses) > 0.01:
                axes.plot(steps, losses, color=colour, lw=1, label=name.split("_")[1])
        axes.set(xlabel="iteration", ylabel="loss, weighted", title=player, yscale="log", ylim=(0.01, None))
        axes.legend(fontsize=8)
    return figure


def fig_densities(run):
    """Fig. 11, for each attribute: densities of R's output at three moments; and its means over the iterations."""
    attrs, steps = run.config.attr, [h["step"] for h in run.history]
    figure = Figure(figsize=(9, 6.5 * len(attrs)), layout="constrained")
    grid = figure.add_gridspec(3 * len(attrs), 3)
    for k, attr in enumerate(attrs):
        means = figure.add_subplot(grid[3 * k + 2, :])
        means.set(xlabel="iteration", ylabel=f"mean of R, {words(attr)}", ylim=(-1.7, 1.4))
        for row, (kind, label, style, target) in enumerate((("real", "real, r", "--", 1),
                                                            ("gen", "generated, v", "-", 0.5))):
            for sign, value in (("plus", "+1"), ("zero", "0"), ("minus", "-1")):
                means.plot(steps, [h[f"{kind}_{sign}"][k] for h in run.history], style, color=COLOURS[sign],
                           label=f"{label} = {value}")
            dotted(means, -target, target)
            for column, (moment, outputs) in enumerate(run.snapshots.items()):
                axes = figure.add_subplot(grid[3 * k + row, column])
                for sign, colour in COLOURS.items():
                    u = outputs[f"{kind}_{sign}"][k].numpy().clip(-1.7, 1.7)
                    axes.hist(u, 34, range=(-1.7, 1.7), density=True, alpha=0.6, color=colour)
                axes.set(yticks=[], title=f"{label.split(',')[0]} pairs, {moment}", xlabel=f"R, {words(attr)}")
                for u in (-target, target):
                    axes.axvline(u, color="black", lw=0.8, ls=":")
        means.legend(fontsize=8, ncols=6, loc="lower center")
    return figure


def fig_truth(result):
    """The true strength of the attribute, as the judge reads it, against v; and that of the others."""
    figure, axes = canvas()
    own = data.FACE_ATTRS.index(result.attr)
    for j, (name, colour) in enumerate(zip(data.FACE_ATTRS, PALETTE)):
        seen = result.readings["seen"][:, AT_SWEEP, j]
        mean, std = seen.mean(0), seen.std(0)
        axes.plot(SWEEP, mean, ".-" if j == own else "-", color=colour, lw=2 if j == own else 1, label=name)
        if j == own:
            axes.fill_between(SWEEP, mean - std, mean + std, color=colour, alpha=0.2, lw=0)
            axes.plot(SWEEP, np.polyval(np.polyfit(SWEEP, mean, 1), SWEEP), "k:", lw=1, label="best straight line")
    axes.set(xlabel=f"v ({result.attr})", ylabel="true strength, mean (and std)", ylim=(0, 1),
             title=f"{words(result.name)}: the truth, which no player ever saw")
    axes.legend()
    return figure


# ------------------------------------------------------------------------------------------------------------
# The dial: a page that moves

def page(title, words, pictures, dials, quality=90):
    """A page for a browser, with all in it: pictures that sliders turn. Returns HTML that fetches nothing.

    words: HTML below them. pictures: (N, M, 3, H, W) in [-1, 1]: of each of N its M appearances, a grid of the
    places of the dials, the first dial fastest. dials: for each a dict of `name`, `places` (texts), `start`
    (number of a place) and `curves`, dicts of `kind` ("one", "two": colours; "guide": grey), `name`, `low` and
    `high` (the plot's) and `values` (N, M). Shown are as many pictures as fit a WebP file (16,383 pixels high),
    at 256 pixels or less.
    """
    pictures = pictures.cpu()
    if pictures.shape[-2] > 256:
        scale, shape = 256 / pictures.shape[-2], pictures.shape[:2]
        pictures = F.interpolate(pictures.flatten(0, 1), scale_factor=scale, mode="bilinear", antialias=True)
        pictures = pictures.unflatten(0, shape)
    n, (_, M, _, H, W) = len(dials[0]["places"]), pictures.shape
    pictures = pictures[:16383 * n // (M * H)]
    cells = ((pictures + 1) * 127.5).round().byte().flatten(0, 1).unflatten(0, (-1, n))  # (N M / n, n, 3, H, W)
    Image.fromarray(tiled(cells)).save(file := io.BytesIO(), "WebP", quality=quality)
    for curve in (curve for dial in dials for curve in dial["curves"]):
        curve["values"] = [[round(u, 2) for u in row] for row in torch.as_tensor(curve["values"]).tolist()]
    dials = [dial | {"name": html.escape(dial["name"])} for dial in dials]
    slider = '<label>{} <input type="range" min="0" max="{}" value="{}"><output></output></label>'
    plots = '<svg viewBox="-1.1 -.75 2.2 1.5" aria-hidden="true"></svg><p></p>' * len(dials)
    marks = {
        "title": html.escape(title), "words": words,
        "width": f"{100 * n}", "height": f"{100 * len(cells)}", "ratio": f"{W / H:g}",
        "sprite": "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode(),
        "sliders": "\n".join(slider.format(dial["name"], len(dial["places"]) - 1, dial["start"]) for dial in dials),
        "figures": f'<figure><div role="img"></div>{plots}</figure>\n' * len(pictures),
        "data": json.dumps({"rows": len(cells), "dials": dials})}
    return re.sub("@([a-z]+)@", lambda mark: marks[mark[1]], PAGE)


def dial_page(run, x, strengths=None):
    """The page of the dial: a slider for the run's attribute, with 21 places, or two for the first two, with 9 each.

    x: float (N, 3, H, W), on the run's device. strengths: the judge of drawn faces, if their truth is shown.
    """
    attrs = run.config.attr[:2]
    n, digits, quality = (21, 1, 90) if len(attrs) == 1 else (9, 2, 70)
    us = torch.linspace(-1, 1, n).double().round(decimals=2) + 0.0  # (no -0.0)
    v = torch.zeros(n ** len(attrs), len(run.config.attr))
    v[:, :len(attrs)] = torch.cartesian_prod(*[us.float()] * len(attrs)).reshape(len(v), -1).flip(1)  # (fastest first)
    y = translate(run.G, x, v)  # (N, n or n^2, 3, H, W)
    curves, said, words = [[] for _ in attrs], [], ""
    if run.R:  # (a rival has none)
        with torch.no_grad():
            ranked = torch.cat([rank_all(run.R, *face) for face in zip(x.split(1), y.split(1))])
        for k, shown in enumerate(curves):
            shown += [{"kind": "guide", "name": "", "low": -1, "high": 1, "values": v[:, k].expand(len(x), -1) / 2},
                      {"kind": "one", "name": "R", "low": -1, "high": 1, "values": ranked[:, :, k]}]
        said.append('<span class="one">what the ranker R says of (x, G(x, v))</span>, from -1 to 1, beside half of v '
                    '(grey)')
        words = f" The generator was trained to make R say v of such pairs{', and R to say 0' * bool(run.config.lam)}."
    if strengths:
        seen = torch.stack([in_parts(strengths, faces) for faces in y])
        for attr, shown in zip(attrs, curves):
            shown.append({"kind": "two", "name": "strength", "low": 0, "high": 1,
                          "values": seen[:, :, data.FACE_ATTRS.index(attr)]})
        said.append('<span class="two">the true strength, from 0 to 1, as a judge reads it</span>')
    words = f"Below each picture x, against v from -1 to 1: {' and '.join(said)}.{words}" if said else ""
    dials = [{"name": utf_8(attr).replace("_", " "), "places": [f"{u:+.{digits}f}" for u in us], "start": n // 2,
              "curves": shown} for attr, shown in zip(attrs, curves)]
    return page(" and ".join(dial["name"] for dial in dials) + ", from less to more", words, y, dials, quality)


def moving_picture(G, x, attrs, side=160, n=24):
    """G(x, v) with the v of each attribute from -1 to 1 and back: the pictures in a row, v on a slider below them.

    x: float (N, 3, H, W); attrs: the names of G's K attributes. Returns n K PIL images with one palette: as a GIF
    they are small and do not flicker.
    """
    v = -torch.cos(2 * math.pi * torch.arange(n) / n)  # slow at the ends
    v_all = torch.cat([v[:, None] * row for row in torch.eye(len(attrs))])
    ys = translate(G, x, v_all).cpu().transpose(0, 1)  # (n K, N, 3, H, W)
    faces = F.interpolate(ys.flatten(0, 1), (side, side), mode="bilinear").unflatten(0, ys.shape[:2])
    faces = F.pad(((faces + 1) * 127.5).round().byte(), (0, 0, 0, 40), value=255)  # room for the slider
    film = Image.fromarray(tiled(faces))  # one below the other
    draw, low, high = ImageDraw.Draw(film), side // 2, film.width - side // 2
    for i in range(len(ys)):
        y, at = i * (side + 40) + side + 18, (low + high + v[i % n].item() * (high - low)) / 2
        draw.line((low, y, high, y), "#999999", 3)
        draw.ellipse((at - 7, y - 7, at + 7, y + 7), "black")
        for place, text in ((low, "-1"), ((low + high) / 2, f"{utf_8(attrs[i // n])}: v"), (high, "+1")):
            draw.text((place, y + 15), text, "black", anchor="mm")
    film = film.quantize(160, dither=Image.Dither.NONE)
    return [film.crop((0, i * (side + 40), film.width, (i + 1) * (side + 40))) for i in range(len(ys))]


def write_dial(run, out, test_data, strengths=None):
    """out/dial.html of the first six held-out pictures, out/dial.gif of three. strengths: as dial_page takes it."""
    x = data.as_float(test_data.images[:6]).to(run.device)
    (out / "dial.html").write_text(dial_page(run, x, strengths), encoding="utf-8")
    first, *others = moving_picture(run.G, x[:3], run.config.attr)
    first.save(out / "dial.gif", save_all=True, append_images=others, duration=90, loop=0)


PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>@title@</title>
<style>
  :root { color-scheme: light dark; --one: #0072b2; --two: #d55e00 }
  @media (prefers-color-scheme: dark) { :root { --one: #56b4e9; --two: #e69f00 } }
  body { max-width: 60rem; margin: auto; padding: 0 1rem 1rem; font: 1rem/1.4 system-ui, sans-serif }
  h1 { font-size: 1.2rem; margin: .6rem 0 0 }
  form { position: sticky; top: 0; padding: .3rem 0; background: Canvas }
  label { display: grid; grid-template-columns: minmax(3rem, auto) 1fr 3rem; gap: .8rem; align-items: center }
  input { width: 100%; height: 2.4rem }
  main { display: grid; grid-template-columns: repeat(auto-fill, minmax(calc(8rem * @ratio@), 1fr)); gap: 1rem }
  figure { margin: 0; font-variant-numeric: tabular-nums }
  figure div { aspect-ratio: @ratio@; background: url(@sprite@) 0 0 / @width@% @height@% }
  figure p { margin: 0 0 .6rem; white-space: pre-line }
  svg { display: block; width: 100%; max-height: 8rem; margin-top: .3rem;
    background: color-mix(in srgb, CanvasText 7%, Canvas) }
  path { fill: none; stroke: GrayText; stroke-width: .03 }
  .one { color: var(--one) } .two { color: var(--two) }
  .one path, .two path { stroke: currentColor; stroke-width: .06 }
  circle { fill: currentColor } .guide circle { display: none }
</style>
<h1>@title@</h1>
<form>@sliders@</form>
<main>
@figures@</main>
<noscript>The sliders need JavaScript.</noscript>
<p>@words@</p>
<script>
  const D = @data@;  // values: of each picture, at each place of the grid of dials, the first dial fastest
  const sliders = [...document.querySelectorAll("input")], figures = [...document.querySelectorAll("figure")];
  const n = D.dials[0].places.length, x = (dial, i) => 2 * i / (dial.places.length - 1) - 1;
  function turn() {
    const at = sliders.map(slider => +slider.value), shown = at.map((i, k) => D.dials[k].places[i]);
    sliders.forEach((slider, k) => { slider.nextElementSibling.value = slider.ariaValueText = shown[k]; });
    figures.forEach((figure, f) => {
      const [face, ...parts] = figure.children, row = f * D.rows / figures.length + (at[1] || 0);
      face.style.backgroundPosition = `${100 * at[0] / (n - 1)}% ${100 * row / Math.max(1, D.rows - 1)}%`;
      D.dials.forEach((dial, k) => {
        let plot = `<path d="M${x(dial, at[k])},-.6V.6"/>`, said = D.dials.length > 1 ? dial.name : "";
        for (const { kind, name, low, high, values } of dial.curves) {
          const value = i => values[f][k ? at[0] + i * n : i + (at[1] || 0) * n], now = value(at[k]);
          const y = i => (.6 - 1.2 * (value(i) - low) / (high - low)).toFixed(3);
          plot += `<g class="${kind}"><path d="M${dial.places.map((_, i) => `${x(dial, i)},${y(i)}`).join("L")}"/>
            <circle cx="${x(dial, at[k])}" cy="${y(at[k])}" r=".09"/></g>`;
          const sign = low < 0 && now >= 0 ? "+" : "";
          if (name) said += `\\n<span class="${kind}">${name} ${sign}${now.toFixed(2)}</span>`;
        }
        parts[2 * k].innerHTML = plot;
        parts[2 * k + 1].innerHTML = said.trim();
      });
      face.ariaLabel = `picture ${f + 1} at ${shown}: ${figure.textContent}`;
    });
  }
  addEventListener("input", turn);
  addEventListener("pageshow", turn);  // (a browser may bring back a slider's place)
</script>
</html>
"""


# ------------------------------------------------------------------------------------------------------------
# Command line

ROWS = (("ssim_score", "SSIM score (Eq. 8)", ".4f"),
        ("aas", "AAS, %", ".1f"),
        ("aas_judge", "  its judge is right on real pictures, %", ".1f"),
        ("fid", "FID", ".2f"),
        ("frechet_resnet18", "Frechet distance of ResNet-18 (not FID)", ".2f"),
        ("ranker_mean", "R(x, G(x, v)) at v = -1, -.5, 0, .5, 1", ".2f"),
        ("ranker_std", "  its std", ".3f"),
        ("ranker_pearson", "  its correlation with v", ".3f"),
        ("first_ranker_mean", "the first run's R, the same", ".2f"),
        ("first_ranker_std", "  its std", ".3f"),
        ("first_ranker_std_within", "  at v = 0, within the classes", ".3f"),
        ("first_ranker_pearson", "  its correlation with v", ".3f"),
        ("first_own_ranker_mean", "the same R, v counted from the picture's own label", ".2f"),
        ("recon_l1", "L1 of G(x, 0) to x", ".4f"),
        ("own_recon_l1", "  with v the picture's own label", ".4f"),
        ("outside_l1", "L1 of G(x, v) to x outside the region", ".4f"),
        ("true_spearman", "true strength: rank correlation with v", ".3f"),
        ("true_spearman_asked", "  in the half of the dial that the paper asks", ".3f"),
        ("true_linearity", "  R^2 of a straight line", ".3f"),
        ("true_range", "  at v = 1 minus at v = -1", ".2f"),
        ("crossed", "  share of faces that cross 0.5", ".3f"),
        ("disentanglement", "  the same, of each attribute with a dial", ".2f"),
        ("leakage", "  the others, read at v = +-1, are off by", ".3f"),
        ("leakage_judge", "  the same, read off real pictures", ".3f"),
        ("judge_r2", "  the judge's R^2, by attribute", ".3f"))


def table(results):
    """The scores as lines of text: a row for each score, a column for each result."""
    def text(score, form):
        return "" if score is None else " ".join(format(u, form) for u in np.atleast_1d(score))
    rows = [["", *(result.name for result in results)]]
    rows += [[label, *(text(result.scores.get(name), form) for result in results)]
             for name, label, form in ROWS if any(name in result.scores for result in results)]
    widths = [max(len(cell) for cell in column) for column in zip(*rows)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)


def write(results):
    """Write the scores and figures of one run, a Result for each attribute, into its folder."""
    folder, run, scores = Path(results[0].folder), results[0].run, {}
    for result in results:
        end = f".{result.attr}" if len(results) > 1 else ""
        scores |= {name + end: score for name, score in result.scores.items()}
        figures = {}
        if "R" in result.readings:
            figures |= {"fig6_box": fig_box(result), "fig7_ranker": fig_ranker([result])}
        if "seen" in result.readings:
            figures["truth"] = fig_truth(result)
        for name, figure in figures.items():
            figure.savefig(folder / f"{name}{end}.png", dpi=100)
    if len(results) > 1:
        fig_grid(run, results[0].test).savefig(folder / "fig8_grid.png", dpi=100)
    fig_losses(run).savefig(folder / "fig10_losses.png", dpi=100)
    write_dial(run, folder, results[0].test, results[0].judges.strengths)
    scores |= {"test_pictures": len(results[0].test), "steps": run.step, "seed": run.config.seed,
               "device": run.device.type}
    (folder / "eval.json").write_text(json.dumps(scores, indent=2) + "\n")


def parse(argv):
    parser = data.Parser(prog="eval.py", description="Judge runs of trip.py by the paper's metrics, and more.")
    add = parser.add_argument
    add("runs", nargs="+", type=Path, metavar="RUN", help="folder of a run of trip.py, as in runs/smile")
    add("--metrics", nargs="+", metavar="METRIC", help=f"after the runs, some of {', '.join(METRICS)} (default: all)")
    add("--root", default="", help="folder of the data set's files (default: where they were in training)")
    add("--device", default="auto", help="cpu, cuda, cuda:1, mps (default: the first of cuda, mps, cpu)")
    return parser.parse_args(argv)


def command(argv):
    args = parse(argv)
    args.runs = list(dict.fromkeys(args.runs))  # (one named twice is judged once)
    tell, started = data.teller(), time.perf_counter()
    for folder in args.runs:
        if folder.is_dir():
            data.make_folder(folder)  # can be written to? Not after minutes of work
    try:
        results = evaluate(*args.runs, metrics=args.metrics, device=args.device, root=args.root, tell=tell)
        tell("drawing the figures")
        n = len(results) // len(args.runs)  # attributes
        for i in range(0, len(results), n):
            write(results[i:i + n])
    finally:
        tell("")  # leaves the line free for what comes next
    if len(args.runs) > 1 and "R" in results[0].readings:
        for k in range(n):
            path = args.runs[0] / f"fig7_compared{'.' + results[k].attr if n > 1 else ''}.png"
            fig_ranker(results[k::n]).savefig(path, dpi=100)
            print(f"wrote {path}")
    print(table(results))
    for result in results[::n]:
        if result.run.step < result.run.config.steps:
            print(f"note: {result.folder} is not finished: iteration {result.run.step} of {result.run.config.steps}")
    print(f"{time.perf_counter() - started:.0f} s; wrote eval.json and figures to {', '.join(map(str, args.runs))}")
    return 0


def main(argv=None):
    return data.exit_code("eval.py", command, argv)


if __name__ == "__main__":
    sys.exit(main())
