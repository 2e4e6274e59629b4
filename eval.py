"""What is measured, drawn and reported: a run while it trains, its marks at the end, pictures edited by it.

    python eval.py runs/smile                          all metrics: printed, and in eval.json; figures
    python eval.py runs/smile --metrics ssim ranker    some of them
    python eval.py runs/smile runs/no-rivals           one table; the first run's ranker judges all

    metric         the question                                     the answer
    ssim           are the steps of the sweep even? (Eq. 8)         ssim, ssim_score
    aas            does a classifier see the attribute swapped?     classifier
    fid            do swapped pictures look like the data set's?    frechet_distance, inception
    ranker         what does R say of generated pairs? (Fig. 6, 7)  ranker_scores
    preservation   what stays as it was?                            read, assess
    truth          (of drawn faces) how strong is it, what else?    strength_judge, truth_scores

The sweep is G(x, v) for v = -1, -0.8 .. 1. Shapes: N test pictures, V = 13 strengths (the sweep and +-0.5),
K attributes. Judges are trained once for a data set and kept in runs/judges; TRIP never hears of them.
"""

import base64
import copy
import csv
import functools
import hashlib
import io
import itertools
import json
import math
import os
import pickle
import shutil
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib import font_manager
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont
from torch import nn
from torch.nn import functional as F

import data
from data import InputError

SWEEP = [i / 5 for i in range(-5, 6)]  # Fig. 5, Eq. 8
LEVELS = [-1.0, -0.5, 0.0, 0.5, 1.0]  # Fig. 6, and the table in Fig. 7
V = np.array(sorted({*SWEEP, *LEVELS}))  # every picture is translated with these
AT_SWEEP, AT_LEVELS = np.searchsorted(V, SWEEP), np.searchsorted(V, LEVELS)
AT_ZERO = V.tolist().index(0)
METRICS = ("ssim", "aas", "fid", "ranker", "preservation", "truth")
OUTPUTS = ("real_plus", "real_zero", "real_minus",  # r = +1, 0, -1
           "gen_plus", "gen_zero", "gen_minus")  # v = +1, 0, -1
EARLY = 100  # iterations of ranking, as in Fig. 11b
SAVE_EVERY = 500  # iterations
EMPTY_LOG = {"history": [], "snapshots": {}, "sums": {}, "recent": [], "seconds": 0.0}  # of a run, see `fit`


class Diverged(ArithmeticError):
    """Something in a run is no longer finite; the message says what, and when."""


# ------------------------------------------------------------------------------------------------------------
# A run while it trains

@torch.no_grad()
def in_parts(function, *inputs):
    """function(*inputs), (N, ...), in parts that fit any memory. inputs: (N, ...), pictures first."""
    n = max(1, 2 ** 17 // inputs[0][0, 0].numel())
    return torch.cat([function(*part) for part in zip(*(whole.split(n) for whole in inputs))])


@torch.no_grad()
def translate(G, x, v):
    """Redraw every picture x (N, 3, H, W) in [-1, 1] with every strength v, (M, K) or, for K = 1, (M,).

    G is in evaluation mode meanwhile. Returns (N, M, 3, H, W) in [-1, 1].
    """
    v = torch.as_tensor(v, dtype=x.dtype, device=x.device)
    v = v[:, None] if v.dim() == 1 else v
    training = G.training
    G.eval()
    ys = [in_parts(G, x, strength.expand(len(x), -1)) for strength in v]
    G.train(training)
    return torch.stack(ys, 1)


def swap_strength(has):
    """Footnote 3: v = -1 swaps pictures that have the attribute, v = 1 the others. has: bool tensor."""
    return torch.where(has, -1.0, 1.0)


def evaluation_batch(test_data, device, n=128):
    """About n held-out pictures, none twice, float (n, 3, H, W), and their labels, bool (n, K).

    For each attribute in turn some are added, until as many have it as haven't.
    """
    labels, chosen = test_data.labels, []
    share = max(2, n // (2 * labels.shape[1]))  # of each class
    for k, has_it in enumerate(labels.T):
        for has in (True, False):
            those = torch.where(has_it == has)[0].tolist()
            new = [row for row in those if row not in chosen]
            chosen += new[:max(0, share * (k + 1) + len(new) - len(those))]
    return data.as_float(test_data.images[chosen]).to(device), labels[chosen].to(device)


@torch.no_grad()
def measure(G, R, x, labels):
    """What R says of held-out pairs (Fig. 6, 7, 11). x: float (n, 3, H, W); labels: bool (n, K).

    Returns outputs: OUTPUTS -> K tensors; and the row: their means and, for generated pairs, stds;
    pair_accuracy, the share of real pairs with r = +-1 whose sign is right; recon_l1, mean |G(x, 0) - x|.
    v = 0 is asked of some 32 pictures only, as little happens there.
    """
    n, K = labels.shape
    some = slice(None, None, max(1, n // 32))
    back = translate(G, x[some], torch.zeros(1, K))[:, 0]
    fx = in_parts(R.features, x)
    # each picture with others, near and far, as they lie sorted by labels; never with itself
    shifts = sorted({1, n // 2 - 1, n // 2, n // 2 + 1} - {0, n})
    real = torch.cat([R.rank(fx, fx.roll(s, 0)) for s in shifts])
    r = torch.cat([labels.roll(s, 0).int() - labels.int() for s in shifts])
    zero = R.rank(fx[some], in_parts(R.features, back))
    outputs = {name: [] for name in OUTPUTS}
    training = G.training
    G.eval()
    for k in range(K):
        has = labels[:, k]
        v = torch.zeros(n, K, device=x.device)
        v[:, k] = swap_strength(has)
        swapped = R.rank(fx, in_parts(R.features, in_parts(G, x, v)))[:, k]
        found = [*(real[r[:, k] == u, k] for u in (1, 0, -1)), swapped[~has], zero[:, k], swapped[has]]
        for name, value in zip(OUTPUTS, found):
            outputs[name].append(value.cpu())
    G.train(training)
    row = {name: [u.mean().item() for u in outputs[name]] for name in OUTPUTS}
    row |= {f"{name}_std": [u.std().item() for u in outputs[name]] for name in OUTPUTS[3:]}
    right = [torch.cat([p > 0, m < 0]) for p, m in zip(outputs["real_plus"], outputs["real_minus"])]
    row["pair_accuracy"] = [u.float().mean().item() for u in right]
    return outputs, row | {"recon_l1": (x[some] - back).abs().mean().item()}


def fit(run, losses, test_data, save=lambda: None, look=None):
    """Train to the end, measured on held-out pictures now and then. Yields a record of each iteration.

    losses: trip.train(run, ...), dicts of tensors. save: called at the start, every SAVE_EVERY iterations and
    at the end. look: (x, labels) -> outputs, row; None: `measure` of the run's G and R. A record has
    `step`, the losses and, 50 times in a run, the row. run.log keeps history (rows, with the losses' means
    since the last one), snapshots (R's outputs at the start, after EARLY iterations of ranking, at the end)
    and seconds. Raises Diverged where a loss is not finite.
    """
    c, log, look = run.config, run.log, look or functools.partial(measure, run.G, run.R)
    log |= copy.deepcopy(EMPTY_LOG) | log
    held_out = evaluation_batch(test_data, run.device)
    early = run.warmup + min(EARLY, (c.steps - run.warmup) // 10)
    moments = {early: "early", 0: "start", c.steps: "end"}
    if run.step == 0:
        log["snapshots"]["start"] = look(*held_out)[0]
    if run.step in (0, c.steps):
        save()
    started = time.perf_counter()
    for now in losses:
        log["recent"].append({name: loss.detach() for name, loss in now.items()})
        record, last = {"step": run.step} | now, run.step == c.steps
        saving = last or run.step % SAVE_EVERY == 0
        measuring = last or run.step == early or run.step % max(1, c.steps // 50) == 0
        if measuring or saving or run.step % 10 == 0:  # (not always: a GPU would be waited for)
            add_up(log, run.step)
        if measuring:
            outputs, row = look(*held_out)
            if run.step in moments:
                log["snapshots"][moments[run.step]] = outputs
            means = {name: total / count for name, (total, count) in log["sums"].items()}
            log["history"].append({"step": run.step} | means | row)
            log["sums"] = {}
            record |= row
        log["seconds"] += time.perf_counter() - started  # without what the caller does now
        if saving:
            save()
        yield record
        started = time.perf_counter()


def add_up(log, step):
    """Add the recent losses, up to those of iteration `step`, to log["sums"]: name -> (total, count)."""
    for i, losses in enumerate(log["recent"], step - len(log["recent"]) + 1):
        for name, loss in losses.items():
            if not math.isfinite(loss):
                raise Diverged(f"iteration {i}: the loss {name} is {loss:g}")
            total, count = log["sums"].get(name, (0.0, 0))
            log["sums"][name] = total + loss.item(), count + 1
    log["recent"] = []


def progress(run):
    """A function of a record that shows a line: rewritten in a terminal, else one for each measurement."""
    first, started, steps, means = run.step, time.perf_counter(), run.config.steps, ""

    def tell(record):
        nonlocal means
        if "gen_plus" in record:
            rp, rm, gp, gm = (np.mean(record[name]) for name in OUTPUTS if "zero" not in name)
            means = f"real {rp:+.2f} {rm:+.2f}  generated {gp:+.2f} {gm:+.2f}"
        rate = (run.step - first) / (time.perf_counter() - started)
        left = int((steps - run.step) / rate)
        line = (f"iteration {run.step}/{steps}  {rate:.1f} it/s  {left // 60}:{left % 60:02d} left  {means}"
                f"{'' if run.step > run.warmup else '  (warm-up)'}")
        if sys.stdout.isatty():
            width = shutil.get_terminal_size().columns - 1
            print("\r" + line[:width].ljust(width), end="\n" * (run.step == steps), flush=True)
        elif "recon_l1" in record:
            print(line, flush=True)
    return tell


def summarise(run):
    """The last fifth of the iterations, or the last 10 measurements if these are more, averaged."""
    c, history = run.config, run.log["history"]
    late = sum(row["step"] > 0.8 * c.steps for row in history)
    rows, summary = history[-max(10, late):], {}
    for name in rows[-1]:
        if name.startswith(("real_", "gen_", "recon_l1", "pair_accuracy")):
            mean = np.mean([row[name] for row in rows], 0)
            summary[name] = mean.item() if mean.size == 1 else mean.tolist()
    return summary | {"seconds": run.log["seconds"], "steps": run.step, "seed": c.seed,
                      "device": run.device.type, "config": asdict(c)}


# ------------------------------------------------------------------------------------------------------------
# The report of a run, and pictures edited by it

def utf_8(name):
    """A folder's name as text that can be written: what is no UTF-8 is a question mark."""
    return name.encode(errors="replace").decode()


def ending(attrs, k):
    """What tells the files and scores of attribute k from those of the others: nothing if it is alone."""
    return f".{utf_8(attrs[k])}" if len(attrs) > 1 else ""


def put(path, content, dpi=100):
    """Write a figure, text or bytes to a file, unless it holds just that already."""
    if isinstance(content, Figure):
        kind, file = path.suffix[1:], io.BytesIO()
        plain = {"metadata": {"Software": None}} if kind == "png" else {}  # (its version)
        content.savefig(file, format=kind, dpi=dpi, **plain)
        content = file.getvalue()
    elif isinstance(content, str):
        content = content.encode()
    if not path.is_file() or path.read_bytes() != content:
        data.write(path, lambda file: file.write(content))


def report(run, out, test_data):
    """Write history.csv, ranker.png, samples.png; at the end summary.json and the dial."""
    attrs, rows = run.config.attr, []
    for row in run.log["history"]:  # of several attributes: real_plus.smile, real_plus.frown
        rows.append({name + ending(attrs, k) * isinstance(value, list): u for name, value in row.items()
                     for k, u in enumerate(value if isinstance(value, list) else [value])})
    columns = dict.fromkeys(name for row in rows for name in row)
    writer = csv.DictWriter(text := io.StringIO(), columns, restval="")
    writer.writeheader()
    writer.writerows(rows)
    put(out / "history.csv", text.getvalue())
    if any(run.log["snapshots"].values()):  # (a run without R has none)
        put(out / "ranker.png", fig_densities(run))
    for k in range(len(attrs)):
        put(out / f"samples{ending(attrs, k) if k else ''}.png", fig_strips(run, test_data, k))
    if run.step >= run.config.steps:
        put(out / "summary.json", json.dumps(summarise(run), indent=2) + "\n")
        write_dial(run, out, test_data)


def edit(run, out, images, strengths=None, crop=None):
    """Apply the run to picture files of any size. Returns 0.

    Writes each picture, whole, at each strength into out/edit/; and their squares as the strip out/edit.png
    and the page out/edit.html. strengths: texts as --v takes them; None: LEVELS, of one attribute at a time.
    crop: the square (left, top, side) that is changed; None: see `squares`.
    """
    c, K = run.config, len(run.config.attr)
    images = list(dict.fromkeys(images))
    if strengths is None:
        rows = [tuple(u if i == k else 0.0 for i in range(K)) for k in range(K) for u in LEVELS]
    else:
        rows = [strength(text, K) for text in strengths]
    rows = list(dict.fromkeys(rows))
    found = [(path, square) for path in images for square in squares(path, crop, framed(c))]
    side = max(c.size, min(256, max(square[2] for _, square in found)))  # of the strip's pictures
    if c.paper_generator:
        side = c.size
        note("note: Table 3's generator draws pictures of the training's size: there will be no whole ones")
    x = torch.cat([shrunk(cut_out(path, square), side) for path, square in found]).to(run.device)
    if np.abs(rows).max() > 1:
        note("warning: a strength outside -1 .. 1 is one that the model never saw")
    if c.data == "faces":
        note("note: this run was trained on drawn faces; it cannot be expected to edit a photograph")
    names = [",".join(f"{u:+g}" for u in row) for row in rows]
    y = translate(run.G, x, torch.tensor(rows))
    if not c.paper_generator:
        with data.alone(out / "edit"):
            write_whole(run, out / "edit", found, rows)
    put(out / "edit.png", strips(x, y, names, f"{', '.join(c.attr)}: v ="))  # (after all pictures are read)
    write_page(out / "edit.html", run, x)
    made = [] if c.paper_generator else [out / "edit", *[out / "edit.html"] * PAGE.is_file()]
    print(f"wrote {', '.join(map(str, [out / 'edit.png', *made]))}")
    return 0


def framed(config):
    """Whether the data set's pictures are faces framed as CelebA-HQ frames them (CelebA's nearly so)."""
    return config.data.startswith("celeba")


def seen_before(run, train, test):
    """Tell how many pictures that are held out now the run has trained on; note in its log which it does."""
    if test.ids is not None:
        known = run.log.get("trained_on", train.ids)
        n = int(torch.isin(test.ids, known).sum())
        if n:
            note(f"note: {n} of the {len(test)} pictures that are held out now have been trained on")
        run.log["trained_on"] = torch.unique(torch.cat([known, train.ids]))


def note(text):
    """Tell the person, beside what the program prints."""
    print(text, file=sys.stderr)


def squares(path, crop=None, look=False):
    """The squares (left, top, side) of a picture file that are edited, in pixels of the upright picture.

    crop: the one that the person names. Else, if we are to look for faces: one around each face, the largest
    first. Else the largest in the centre. Says what is found and what is left as it is.
    """
    picture = data.open_picture(path)
    (w, h), side = picture.size, min(picture.size)
    if crop:
        left, top, side = crop
        if min(left, top) < 0 or side < 1 or left + side > w or top + side > h:
            raise InputError(f"--crop {left} {top} {side}: LEFT TOP SIZE is no square within "
                             f"{path}, which has {w} x {h} pixels")
        return [crop]
    faces = find_faces(picture) if look else []
    name = "--crop LEFT TOP SIZE takes another square"
    if faces:
        note(f"{path}: {len(faces)} face{'s' * (len(faces) > 1)} found; {name}")
    elif look:
        why = "none found" if faces == [] else 'to have it found: pip install "opencv-python-headless<5"'
        note(f"note: {path}: the face is taken to be in the centre ({why}): upright, the eyes half way down "
             f"and a quarter of the width apart; {name}")
    elif w != h:
        note(f"note: {path} has {w} x {h} pixels: only the square in the centre is edited; {name}")
    return faces or [((w - side) // 2, (h - side) // 2, side)]


def find_faces(picture):
    """Squares (left, top, side) around the faces of a PIL picture, framed as in CelebA-HQ, the largest first.

    OpenCV's box of a face is .648 of such a frame, its middle at (.502, .551) (medians of 300 pictures). None
    where OpenCV, or its cascade, which version 5 has not, is missing.
    """
    try:
        import cv2
        cascade = cv2.CascadeClassifier(cv2.data.haarcascades + "haarcascade_frontalface_default.xml")
    except (ImportError, AttributeError):
        return None
    if cascade.empty():
        return None
    small = picture.convert("L")
    small.thumbnail((1000, 1000))  # of larger ones nothing more is seen
    scale, least = picture.width / small.width, min(small.size) // 10
    boxes = cascade.detectMultiScale(np.array(small), 1.1, 8, minSize=(least, least))
    frames = []
    for left, top, side, _ in sorted(np.array(boxes).tolist(), key=lambda box: -box[2]):
        frame = side / 0.648
        corner = left + side / 2 - 0.502 * frame, top + side / 2 - 0.551 * frame
        frames.append(tuple(round(scale * u) for u in (*corner, frame)))
    return frames


def shrunk(x, side):
    """Pictures (N, 3, H, W) at side x side pixels."""
    return F.interpolate(x, (side, side), mode="bilinear", antialias=True).clamp(-1, 1)  # (for its rounding)


def within(square, size):
    """The columns and the rows of a square, as places in a picture of (width, height); mirrored beyond it."""
    left, top, side = square
    return [np.pad(np.arange(max(at, 0), min(at + side, n)), (max(0, -at), max(0, at + side - n)), "reflect")
            for at, n in zip((left, top), size)]


def cut_out(picture, square):
    """A square of a picture (a path or an array (h, w, 3)), float (1, 3, side, side) in [-1, 1]."""
    pixels = picture if isinstance(picture, np.ndarray) else np.array(data.open_picture(picture))
    columns, rows = within(square, pixels.shape[1::-1])
    return data.as_float(torch.from_numpy(pixels[rows[:, None], columns]).permute(2, 0, 1)[None])


def write_whole(run, folder, found, rows):
    """Each picture at each strength, folder/NAME_v+1.00.jpg, changed in its squares and nowhere else.

    found: of (path, square); rows: strengths. A picture keeps its size, transparency, EXIF data and colour
    profile; a PNG stays one. Only what this function has made of the same file is replaced.
    """
    sources = {path.resolve() for path, _ in found}
    strengths = [",".join(f"{u:+.2f}" if round(u, 2) == u else f"{u:+g}" for u in row) for row in rows]
    for path in dict.fromkeys(path for path, _ in found):
        flat, squares = np.array(data.open_picture(path)), [square for at, square in found if at == path]
        with Image.open(path) as file:
            exif, profile = file.getexif(), file.info.get("icc_profile")
            profile = profile if file.mode in ("RGB", "RGBA", "P", "PA") else None
            kind = "JPEG" if file.format in ("JPEG", "MPO", "HEIF") else "PNG"
            if getattr(file, "n_frames", 1) > 1 and kind == "PNG":
                note(f"note: {path} moves: its first picture is taken")
            clear = file.mode in ("RGBA", "LA", "PA") or "transparency" in file.info
            pixels = np.array(data.upright(file).convert("RGBA")) if clear else flat
        exif.pop(0x0112, None)  # Orientation: it is upright now
        mark = f"trip.py {hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:8]}"

        def free(target):  # nothing there, or what was made here of this file before
            with suppress(Exception), Image.open(target) as there:
                return there.getexif().get(SOFTWARE) == mark and target.resolve() not in sources
            return not target.exists()

        names = (f"{path.stem}{end}" for end in ("", *(f"-{i}" for i in range(2, 10 ** 6))))
        targets = ([folder / f"{name}_v{v}.{'jpg' if kind == 'JPEG' else 'png'}" for v in strengths]
                   for name in names)
        for target, row in zip(next(some for some in targets if all(map(free, some))), rows):
            edited = flat.copy()
            for square in squares:
                paste(run, edited, square, row)
            if clear:  # what has changed, as a difference: the colours behind may be any
                colours = (pixels[..., :3] + (edited.astype(int) - flat)).clip(0, 255).astype(np.uint8)
                edited = np.dstack([colours, pixels[..., 3]])
            save_picture(target, Image.fromarray(edited), kind, exif, profile, mark)


SOFTWARE = 0x0131  # the field of EXIF data that says who made a picture


def save_picture(target, picture, kind, exif, profile, mark):
    """Write a PIL picture with EXIF data, marked, and a colour profile; without damaged data."""
    for data_too in (exif, Image.Exif()):
        data_too[SOFTWARE] = mark
        try:
            return data.write(target, lambda file: picture.save(file, kind, quality=95, exif=data_too,
                                                                icc_profile=profile))
        except OSError:  # a full disk ...
            raise
        except Exception as error:  # whatever strange data may lead to, in Pillow
            note(f"note: {target} is written without the EXIF data that came with it ({error})")


def paste(run, pixels, square, row):
    """Edit a square of pixels, (h, w, 3), in place, by the strengths of `row`; its edges fade in."""
    x = cut_out(pixels, square).to(run.device)
    y = translate(run.G, x, torch.tensor([row]))[:, 0]
    side = x.shape[-1]
    fade = torch.arange(side, device=x.device)
    fade = (12 * torch.minimum(fade, side - 1 - fade) / side).clamp(max=1)  # over a twelfth of the side
    y = as_bytes(x + torch.minimum(fade, fade[:, None]) * (y - x))[0].permute(1, 2, 0).numpy()
    (left, top, _), (h, w, _) = square, pixels.shape
    a, b, c, d = max(left, 0), max(top, 0), min(left + side, w), min(top + side, h)
    pixels[b:d, a:c] = y[b - top:d - top, a - left:c - left]


def strength(text, K):
    """One strength of --v: K numbers with commas between."""
    try:
        v = [float(u) for u in text.split(",")]
    except ValueError:
        v = []
    if len(v) != K or not all(-100 <= u <= 100 for u in v):
        raise InputError(f"--v {text.strip()}: a strength is like {','.join(['0.5'] * K)} here")
    return tuple(u + 0.0 for u in v)  # (no -0.0)


# ------------------------------------------------------------------------------------------------------------
# Measures

def ssim(a, b):
    """Structural similarity (Wang et al. 2004): Gaussian window of 11 x 11, sigma 1.5, K1 = 0.01, K2 = 0.03.

    a, b: (N, C, H, W), H and W at least 11. Returns (N,): the mean over channels and whole windows.
    """
    window = torch.exp(-torch.arange(-5.0, 6.0, device=a.device) ** 2 / (2 * 1.5 ** 2))
    window = window / window.sum()

    def blur(x):  # its rows, then its columns
        x = F.conv2d(x.flatten(0, 1)[:, None], window[None, None, None, :])
        return F.conv2d(x, window[None, None, :, None]).unflatten(0, a.shape[:2])[:, :, 0]

    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b = blur(a * a) - mean_a ** 2, blur(b * b) - mean_b ** 2
    cov = blur(a * b) - mean_a * mean_b
    c1, c2 = 0.02 ** 2, 0.06 ** 2  # K1, K2 times the range of the pixels, 2
    alike = (2 * mean_a * mean_b + c1) * (2 * cov + c2)
    return (alike / ((mean_a ** 2 + mean_b ** 2 + c1) * (var_a + var_b + c2))).mean((1, 2, 3))


def ssim_score(neighbours):
    """Eq. 8: std of the SSIM of neighbours (N, 10), averaged over pictures; 0: even steps, or none."""
    return neighbours.std(1).mean().item()


def frechet_distance(a, b):
    """|m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)): of Gaussians like features a, b (n, d).

    Where S_a = A^T A and S_b = B^T B, the trace of the root is the sum of the singular values of A B^T: no
    root of a matrix, so n may be smaller than d.
    """
    a, b = (torch.as_tensor(x).double().cpu() for x in (a, b))
    A, B = (torch.linalg.qr((x - x.mean(0)) / (len(x) - 1) ** 0.5, mode="r").R for x in (a, b))
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
    """Footnote 3 along V: which strengths are asked of which pictures, bool array (N, V). has: bool (N,)."""
    return (V == 0) | (np.sign(V) == swap_strength(has).numpy()[:, None])


def ranker_scores(R, has):
    """Mean and std of R(x, G(x, v)), (N, V), and its correlation with v, by footnote 3."""
    mask = where_asked(has)
    mean, std = R.mean(0, where=mask), R.std(0, where=mask)
    v = np.broadcast_to(V, R.shape)
    return {"ranker_mean": mean[AT_LEVELS].tolist(), "ranker_std": std[AT_LEVELS].tolist(),
            "ranker_sweep_mean": mean[AT_SWEEP].tolist(), "ranker_sweep_std": std[AT_SWEEP].tolist(),
            "ranker_pearson": correlation(R[mask], v[mask]).item()}


def truth_scores(seen, before, truth, k, trained):
    """Against the true strengths, in [0, 1], of A attributes (drawn faces only). Every v is asked of every x.

    seen: (N, V, A), strengths that the judge reads from G(x, v); before: (N, A), from x; truth: (N, A),
    of x; k: the attribute that v stands for; trained: all that the run has a dial for, k among them.
    true_spearman_asked: in the half of the dial where footnote 3 asks. crossed: the share of faces taken
    across 0.5. disentanglement: what this dial from -1 to 1 does to each attribute that has one.
    leakage: how far the others, read at v = +-1, are from x's truth; leakage_judge: the same of x itself.
    """
    sweep, v = seen[:, AT_SWEEP, k], np.array(SWEEP)
    mean, error = sweep.mean(0), np.abs(before - truth)
    above, middle = truth[:, k] > 0.5, len(SWEEP) // 2
    half = np.where(above[:, None], sweep[:, :middle + 1], sweep[:, middle:])
    swapped, others = np.where(above, seen[:, 0, k], seen[:, -1, k]), np.arange(truth.shape[1]) != k
    scores = {"true_spearman": correlation(ranks(sweep), ranks(v)).mean().item(),
              "true_spearman_asked": correlation(ranks(half), v[middle:]).mean().item(),
              "true_linearity": (correlation(mean, v) ** 2).item(),
              "true_range": (mean[-1] - mean[0]).item(),
              "crossed": ((swapped > 0.5) != above).mean().item(),
              "leakage": np.abs(seen[:, [0, -1]] - truth[:, None])[:, :, others].mean().item(),
              "leakage_judge": error[:, others].mean().item(),
              "judge_r2": (1 - (error ** 2).mean(0) / truth.var(0).clip(1e-12)).tolist()}
    if len(trained) > 1:
        scores["disentanglement"] = (seen[:, -1] - seen[:, 0]).mean(0)[trained].tolist()
    return scores


# ------------------------------------------------------------------------------------------------------------
# Judges, and a run before them

def fit_judge(net, pictures, targets, loss, steps, lr, tell):
    """Train a judge by Adam: pictures, uint8 (N, 3, H, W), mirrored at random; targets: float (N, K)."""
    device, rng = next(net.parameters()).device, torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(net.parameters(), lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps)
    epochs = 64 * steps // len(pictures) + 1
    rows = torch.cat([torch.randperm(len(pictures), generator=rng) for _ in range(epochs)])
    for step, part in enumerate(rows[:64 * steps].split(64), 1):
        x = data.mirrored(data.as_float(pictures[part]).to(device), rng)
        optimizer.zero_grad()
        loss(net(x), targets[part].to(device)).backward()
        optimizer.step()
        schedule.step()
        tell(f"training a judge: {step}/{steps}")


def judge(kind, make, train, device, folder, *about):
    """The judge `make()` after `train(net)`; or that in `folder`, if it was made and trained alike.

    about: tensors and numbers that decide how it turns out.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)  # decides the first weights
        net = make()
    digest = hashlib.sha256(repr(net).encode())
    for part in about:
        digest.update(part.contiguous().numpy() if isinstance(part, torch.Tensor) else repr(part).encode())
    path = Path(folder) / f"{kind}-{digest.hexdigest()[:12]}.pt"
    try:  # none there, or damaged? (on the CPU: no trouble of a GPU is taken for it)
        net.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, pickle.UnpicklingError):
        data.make_folder(path.parent)
        train(net.to(device))
        data.write(path, lambda file: torch.save(net.state_dict(), file))
    return net.to(device).eval()


def classifier(train_data, device, tell, folder, steps=None):
    """AAS's judge: a ResNet-18, trained from nothing on the training part. (N, 3, H, W) -> (N, K) logits."""
    from torchvision.models import resnet18  # (not above: `trip.py --help` would take twice the time)
    pictures, labels, loss = train_data.images, train_data.labels, F.binary_cross_entropy_with_logits
    steps = steps or (1500 if train_data.person is None else 200)  # drawn faces are soon told apart
    some = pictures[::max(1, len(pictures) // 500)]
    return judge("resnet18", lambda: resnet18(num_classes=labels.shape[1]),
                 lambda net: fit_judge(net, pictures, labels.float(), loss, steps, 2e-3, tell),
                 device, folder, some, labels, steps)


def features_of(resnet):
    """The ResNet-18 without its last layer: (N, 3, H, W) -> (N, 512)."""
    return nn.Sequential(*list(resnet.children())[:-1], nn.Flatten())


def inception(device):
    """The network of every published FID, (N, 3, H, W) -> (N, 2048); where it is missing None, and a word."""
    try:
        from pytorch_fid.inception import InceptionV3
        net = InceptionV3([InceptionV3.BLOCK_INDEX_BY_DIM[2048]])  # (its weights are fetched once, 91 MB)
    except Exception as error:  # whatever a broken download may lead to
        note(f"note: no FID ({type(error).__name__}), but the Frechet distance of a ResNet-18; for FID: pip "
             f"install pytorch-fid, and its weights, fetched whole into {torch.hub.get_dir()}/checkpoints")
        return None
    net = net.to(device).eval()  # it takes pixels in [0, 1], as if read from files of 8 bits
    return lambda x: net(((x + 1) * 127.5).round().clamp(0, 255) / 255)[0].flatten(1)


class Brighten(nn.Module):
    """Pixels in [-1, 1] to their square root on [0, 1], and back: shows a beard on dark skin."""

    def forward(self, x):
        return 2 * ((x + 1) / 2).clamp(min=1e-3).sqrt() - 1


def strength_judge(size, device, tell, folder, steps=2500, faces=20000):
    """The judge of the truth: strengths of data.FACE_ATTRS in faces. (N, 3, size, size) -> (N, 4)."""
    # it learns from drawn faces of its own: no training and no test part has them
    own = functools.partial(data.faces, data.FACE_ATTRS, size, seed=1)

    def make():
        channels = [3, 24, 48, *[96] * 6][:int(math.log2(size)) - 1]  # ends at 4 x 4, as the ranker does
        layers = [Brighten()]
        for c, d in zip(channels, channels[1:]):
            layers += [nn.Conv2d(c, d, 4, 2, 1), nn.BatchNorm2d(d), nn.ReLU()]
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(16 * d, 256), nn.BatchNorm1d(256), nn.ReLU(),
                             nn.Linear(256, len(data.FACE_ATTRS)))

    def train(net):
        tell("drawing faces for the judge of strengths")
        pool = own(n=faces)
        fit_judge(net, pool.images, pool.strength, F.mse_loss, steps, 6e-3, tell)

    return judge("strength", make, train, device, folder, own(n=20).images, steps, faces)


@dataclass
class Judges:
    """Whom the metrics ask; None where no metric does. All take float (n, 3, H, W), in evaluation mode."""
    classifier: nn.Module = None  # -> (n, K) logits
    features: object = None  # -> (n, d), for the Frechet distance
    features_name: str = "fid"  # or frechet_resnet18
    strengths: nn.Module = None  # -> (n, 4), for drawn faces
    first_ranker: nn.Module = None  # the R of the first of several runs


def call_judges(metrics, train_data, device, tell, folder):
    """The Judges that these metrics need, from `folder`, or else trained on the training part."""
    judges = Judges(features=inception(device) if "fid" in metrics else None)
    missing = "fid" in metrics and not judges.features
    if "aas" in metrics or missing:
        judges.classifier = classifier(train_data, device, tell, folder)
    if missing:
        judges.features = features_of(judges.classifier)
        judges.features_name = "frechet_resnet18"
    if "truth" in metrics and train_data.person is not None:
        judges.strengths = strength_judge(train_data.images.shape[-1], device, tell, folder)
    return judges


@torch.no_grad()
def read(run, k, test, judges, metrics, tell):
    """What the metrics need to know of attribute k, off all test pictures: name -> array (N, ...)."""
    outside, parts = None, []
    if "preservation" in metrics and test.person is not None:
        outside = ~data.region(test, k).to(run.device)  # (N, 1, H, W): beyond the attribute's reach
    v = torch.from_numpy(V)[:, None] * torch.eye(len(run.config.attr))[k]
    for rows in torch.arange(len(test)).split(16):
        x = data.as_float(test.images[rows]).to(run.device)
        y, now = translate(run.G, x, v), {}  # (n, V, 3, H, W)
        swapped = y[torch.arange(len(x)), torch.where(test.labels[rows, k], 0, len(V) - 1)]  # v = -1 or 1
        if "ssim" in metrics:
            sweep = y[:, AT_SWEEP].unbind(1)
            now["ssim"] = torch.stack([*map(ssim, sweep, sweep[1:])], 1)
        if "aas" in metrics:
            now["said"] = judges.classifier(x)[:, k] > 0
            now["said_swapped"] = judges.classifier(swapped)[:, k] > 0
        if "fid" in metrics:
            now["features"], now["features_swapped"] = judges.features(x), judges.features(swapped)
        if "ranker" in metrics:
            rankers = {"R": run.R, "R_first": judges.first_ranker}
            now |= {name: rank_all(R, x, y)[..., k] for name, R in rankers.items() if R}
        if "preservation" in metrics:
            change = (y - x[:, None]).abs().mean(2)  # (n, V, H, W)
            now["change"] = change.mean((2, 3))
            if outside is not None:
                now["outside"] = (change * outside[rows]).sum((2, 3)) / outside[rows].sum((2, 3))
        if judges.strengths:
            now["before"] = judges.strengths(x)
            now["seen"] = judges.strengths(y.flatten(0, 1)).unflatten(0, y.shape[:2])
        parts.append({name: reading.cpu() for name, reading in now.items()})
        tell(f"{run.config.attr[k]}: measured {rows[-1] + 1} of {len(test)} test pictures")
    return {name: torch.cat([part[name] for part in parts]).numpy() for name in parts[0]}


def rank_all(R, x, y):
    """R(x, y_i) of M pictures y_i for each x. x: (n, 3, H, W); y: (n, M, 3, H, W). Returns (n, M, K)."""
    fx = R.features(x).repeat_interleave(y.shape[1], 0)
    return R.rank(fx, R.features(y.flatten(0, 1))).unflatten(0, y.shape[:2])


@dataclass
class Result:
    """What is found out about attribute number k of a run. The figures draw it."""
    name: str  # the folder; of a run of several attributes with the attribute
    run: object  # trip.Run
    k: int
    test: data.Data
    readings: dict  # name -> array (N, ...), see `read`
    scores: dict  # name -> number, or list of numbers
    judges: Judges


def assess(run, test, judges, metrics=METRICS, name="", tell=lambda text: None):
    """Judge one run on the test part. Returns a list of Results, one for each attribute."""
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
            distance = frechet_distance(readings["features"], readings["features_swapped"])
            scores[judges.features_name] = distance
        for whose, key in (("", "R"), ("first_", "R_first")):
            if key in readings:
                scores |= {whose + score: u for score, u in ranker_scores(readings[key], has).items()}
        if "preservation" in metrics:
            scores["recon_l1"] = readings["change"][:, AT_ZERO].mean().item()
            if "outside" in readings:
                scores["outside_l1"] = readings["outside"][:, AT_SWEEP].mean().item()
        if judges.strengths:
            at, truth = [*map(data.FACE_ATTRS.index, test.attrs)], test.person[:, :len(data.FACE_ATTRS)]
            scores |= truth_scores(readings["seen"], readings["before"], truth, at[k], at)
        full_name = f"{name} {attr}" if len(test.attrs) > 1 else name
        results.append(Result(full_name, run, k, test, readings, scores, judges))
    return results


def evaluate(runs, parts, metrics=METRICS, judges_in="runs/judges", tell=lambda text: None):
    """Judge runs of the same data set and attributes. Returns Results: of each run, of each attribute.

    runs: name -> run; the first one's ranker judges all. parts: the training and the test part.
    """
    (train_data, test), (first, *_) = parts, runs.values()
    judges = call_judges(metrics, train_data, first.device, tell, judges_in)
    results = []
    for name, run in runs.items():
        judges.first_ranker = first.R if run is not first else None
        results += assess(run, test, judges, metrics, name, tell)
    return results


# ------------------------------------------------------------------------------------------------------------
# Figures. Each returns a matplotlib Figure, most 800 pixels wide or more at 100 dpi.

FONT = font_manager.findfont("DejaVu Sans")  # it comes with matplotlib
PALETTE = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"]  # Okabe and Ito's
COLOURS = {"plus": PALETTE[1], "zero": "#999999", "minus": PALETTE[0]}  # r or v = +1, 0, -1


def canvas(columns=1, height=4.5, width=8, **options):
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(1, columns, **options)


def drawable(name):
    """A folder's name with what the figures' font has no letters for replaced."""
    known = font_manager.get_font(FONT).get_charmap()
    runs = itertools.groupby(utf_8(name), lambda letter: ord(letter) in known)
    return "".join("".join(letters) if there else "attribute 1" for there, letters in runs)


def words(name):
    """A folder's name for matplotlib, to which $ would begin a formula; a long one is cut."""
    name = name if len(name) <= 60 else f"{name[:25]} ... {name[-25:]}"
    return drawable(name).replace("$", r"\$")


def dotted(axes, *targets):
    """Target values as dotted lines."""
    for u in targets:
        axes.axhline(u, color="black", lw=0.8, ls=":", zorder=0)


def curve(axes, mean, std, colour, name):
    """Mean and std along the sweep."""
    mean, std = np.array(mean), np.array(std)
    axes.plot(SWEEP, mean, ".-", color=colour, lw=2, label=words(name))
    axes.fill_between(SWEEP, mean - std, mean + std, color=colour, alpha=0.2, lw=0)


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
    axes.set(yticks=[], xlabel=words(title))
    axes.tick_params(length=0)
    return figure


def fig_strips(run, test, k=0, n=8):
    """Fig. 5: the first n test pictures and their sweep by the dial of attribute k, a row each."""
    v = torch.tensor(SWEEP)[:, None] * torch.eye(len(run.config.attr))[k]
    x = data.as_float(test.images[:n]).to(run.device)
    return strips(x, translate(run.G, x, v), [f"{u:+.1f}" for u in SWEEP], f"{run.config.attr[k]}: v =")


def fig_box(result):
    """Fig. 6: box plot of R(x, G(x, v)), by footnote 3."""
    figure, axes = canvas()
    R, mask = result.readings["R"], where_asked(result.test.labels[:, result.k])
    axes.boxplot([R[mask[:, i], i] for i in AT_LEVELS], positions=LEVELS, widths=0.25, manage_ticks=False,
                 patch_artist=True, boxprops={"facecolor": PALETTE[5]}, medianprops={"color": "black"})
    dotted(axes, -0.5, 0, 0.5)
    axes.set(xlabel="v", xticks=LEVELS, ylabel="R(x, G(x, v))", ylim=(-1.5, 1.5),
             title=f"{words(result.name)}: generated pairs")
    return figure


def fig_ranker(results, axes=None):
    """Fig. 7: mean and std of R(x, G(x, v)) against v, of runs that are all judged by the first one's R."""
    figure, axes = (axes.figure, axes) if axes else canvas()
    for result, colour in zip(results, PALETTE * len(results)):
        key = "ranker_sweep" if result.run is results[0].run else "first_ranker_sweep"
        curve(axes, *(result.scores[f"{key}_{name}"] for name in ("mean", "std")), colour, result.name)
    axes.plot([-1, 1], [-0.5, 0.5], "k:", lw=1, label="v / 2: half way")
    dotted(axes, -1, 1)
    axes.set(xlabel="v", ylabel="R(x, G(x, v)), mean and std", ylim=(-1.3, 1.3),
             title=f"judged by the ranker of {words(results[0].name)}")
    axes.legend()
    return figure


def fig_grid(run, test, n=3):
    """Fig. 8: the first two attributes at once, v in {-1, 0, 1}^2, for n test pictures."""
    x, (first, second, *_) = data.as_float(test.images[:n]).to(run.device), run.config.attr
    v = torch.zeros(9, len(run.config.attr))
    v[:, :2] = torch.cartesian_prod(torch.tensor([1.0, 0, -1]), torch.tensor([-1.0, 0, 1])).flip(1)
    y = translate(run.G, x, v).cpu()
    h, w = y.shape[3:]
    figure, grids = canvas(n, 8 / n + 0.1)
    for axes, faces in zip(np.atleast_1d(grids), y):
        axes.imshow((tiled(faces.unflatten(0, (3, 3))) + 1) / 2)
        axes.set_xticks([w * (i + 0.5) for i in range(3)], ["-1", "0", "+1"])
        axes.set_yticks([h * (i + 0.5) for i in range(3)], ["+1", "0", "-1"])
        axes.set(xlabel=words(first), ylabel=words(second))
        axes.tick_params(length=0)
    return figure


def fig_losses(run):
    """Fig. 10: the losses of the two players, weighted as in their totals; of one kind in one colour."""
    figure, panels = canvas(2)
    history, players = run.log["history"], ("ranker", "generator")
    steps = [row["step"] for row in history]
    kinds = dict.fromkeys(name.split("_")[1] for row in history for name in row if name.startswith(players))
    colours = dict(zip(kinds, PALETTE * 2)) | {"total": "black"}
    for axes, player in zip(panels, players):
        lines = {kind: [row.get(f"{player}_{kind}", 0) for row in history] for kind in kinds}
        shown = {kind: line for kind, line in lines.items() if max(line, default=0) > 0.01}
        if len(shown) > 1:
            shown["total"] = [*map(sum, zip(*lines.values()))]
        for name, line in shown.items():
            axes.plot(steps, line, color=colours[name], lw=1 + (name == "total"))
            axes.annotate(name, (steps[-1], max(line[-1], 0.0115)), (4, 0), textcoords="offset points",
                          color=colours[name], va="center", fontsize=8, annotation_clip=False)
        axes.set(xlabel="iteration", ylabel="loss, weighted", title=player, yscale="log",
                 xlim=(0, max(steps, default=1)), ylim=(0.01, None))
    return figure


def fig_densities(run):
    """Fig. 11, for each attribute: densities of R's output at three moments, and its means over time."""
    attrs, history = run.config.attr, run.log["history"]
    figure = Figure(figsize=(9, 6.5 * len(attrs)), layout="constrained")
    grid = figure.add_gridspec(3 * len(attrs), 3)
    for k, attr in enumerate(attrs):
        means = figure.add_subplot(grid[3 * k + 2, :])
        means.set(xlabel="iteration", ylabel=f"mean of R, {words(attr)}", ylim=(-1.7, 1.4))
        for row, kind, pairs, v, style, target in ((3 * k, "real", "real", "r", "--", 1),
                                                   (3 * k + 1, "gen", "generated", "v", "-", 0.5)):
            dotted(means, -target, target)
            for sign, value in (("plus", "+1"), ("zero", "0"), ("minus", "-1")):
                means.plot([h["step"] for h in history], [h[f"{kind}_{sign}"][k] for h in history], style,
                           color=COLOURS[sign], label=f"{pairs}, {v} = {value}")
            for column, (moment, outputs) in enumerate(run.log["snapshots"].items()):
                axes = figure.add_subplot(grid[row, column])
                for sign, colour in COLOURS.items():
                    u = outputs[f"{kind}_{sign}"][k].numpy().clip(-1.7, 1.7)
                    axes.hist(u, 34, range=(-1.7, 1.7), density=True, alpha=0.6, color=colour)
                axes.set(yticks=[], title=f"{pairs} pairs, {moment}", xlabel=f"R, {words(attr)}")
                axes.vlines((-target, target), *axes.get_ylim(), color="black", lw=0.8, ls=":")
        means.legend(fontsize=8, ncols=6, loc="lower center")
    return figure


def fig_truth(result, axes=None):
    """The true strengths, as the judge reads them, against v: of the attribute and of the others."""
    figure, axes = (axes.figure, axes) if axes else canvas()
    for name, colour, seen in zip(data.FACE_ATTRS, PALETTE, result.readings["seen"][:, AT_SWEEP].T):
        own = name == result.test.attrs[result.k]
        curve(axes, seen.mean(1), own * seen.std(1), colour, name)
        if own:
            line = np.polyval(np.polyfit(SWEEP, seen.mean(1), 1), SWEEP)
            axes.plot(SWEEP, line, "k:", lw=1, label="best straight line")
    axes.set(xlabel=f"v ({result.test.attrs[result.k]})", ylabel="strength, mean (and std)", ylim=(0, 1),
             title=f"{words(result.name)}: strengths, as a judge reads them")
    axes.legend()
    return figure


# ------------------------------------------------------------------------------------------------------------
# The dial: a page that moves

PAGE = Path(__file__).resolve().parent / "study" / "dial.html"  # its template


def as_bytes(pictures):
    """Pixels in [-1, 1] as uint8, on the CPU."""
    return ((pictures.cpu() + 1) * 127.5).round().byte()


def dial_curves(run, x, n, strengths):
    """What is said of pictures x (N, 3, H, W) at n places of each of one dial or two, v_k in [-1, 1].

    Returns for each dial a list of curves, dicts of `kind` ("one", "two": colours; "guide": grey), `name`,
    `low` and `high` (of the plot) and `values` (N, n or n^2), the first dial fastest; and words, as HTML.
    strengths: the judge of drawn faces, if their truth is shown.
    """
    attrs, size = run.config.attr, run.config.size
    v = torch.cartesian_prod(*[torch.linspace(-1, 1, n)] * len(attrs)).reshape(-1, len(attrs)).flip(1)
    y = translate(run.G, x, v)
    curves, said = [[] for _ in attrs], []

    def add(k, kind, name, low, values):
        values = [[round(u, 2) for u in row] for row in values.tolist()]
        curves[k].append({"kind": kind, "name": name, "low": low, "high": 1, "values": values})

    if run.R:
        with torch.no_grad():
            seen = ((shrunk(face, size), shrunk(faces, size)[None]) for face, faces in zip(x.split(1), y))
            ranked = torch.cat([rank_all(run.R, *face) for face in seen])
        for k in range(len(attrs)):
            add(k, "guide", "", -1, v[:, k].expand(len(x), -1) / 2)
            add(k, "one", "R", -1, ranked[:, :, k])
        said.append('<span class="one">R(x, G(x, v))</span>, from -1 to 1, beside half of v (grey)')
    if strengths:
        seen = torch.stack([in_parts(strengths, faces) for faces in y])
        for k, attr in enumerate(attrs):
            add(k, "two", "strength", 0, seen[:, :, data.FACE_ATTRS.index(attr)])
        said.append('<span class="two">the true strength, from 0 to 1</span>, as a judge reads it')
    return curves, f"Below each picture x, against v: {' and '.join(said)}." if said else ""


def dial_page(run, x, strengths=None):
    """The page of the dial, which computes G by itself, for any v and any picture that is dropped onto it.

    x: float (N, 3, H, W), on the run's device, the pictures it begins with. G: a trip.Generator.
    """
    c, n = run.config, 21 if len(run.config.attr) == 1 else 9
    curves, words = dial_curves(run, x, n, strengths) if len(c.attr) < 3 else ([], "")
    weights, attrs = run.G.state_dict(), [utf_8(attr).replace("_", " ") for attr in c.attr]
    halves = torch.cat([w.detach().cpu().flatten().half() for w in weights.values()]).numpy().astype("<f2")
    faces = []
    for picture in as_bytes(x):
        Image.fromarray(picture.permute(1, 2, 0).numpy()).save(file := io.BytesIO(), "WebP", quality=90)
        faces.append("data:image/webp;base64," + base64.b64encode(file.getvalue()).decode())
    model = {"title": f"{' and '.join(attrs[:2])}, from less to more", "attrs": attrs, "size": c.size,
             "blocks": len(run.G.blocks), "shapes": [[name, list(w.shape)] for name, w in weights.items()],
             "faces": faces, "places": n, "dials": curves, "words": words,
             "faces_framed": framed(c), "weights": base64.b64encode(halves.tobytes()).decode()}
    filling = json.dumps(model).replace("<", "\\u003c")  # (no tag can begin in it)
    return PAGE.read_text(encoding="utf-8").replace("@model@", filling)


def moving_picture(G, x, attrs, side=160, n=24):
    """G(x, v) with the v of each attribute from -1 to 1 and back: the pictures in a row, v on a slider below.

    x: float (N, 3, H, W). Returns n K PIL images with one palette: as a GIF they do not flicker.
    """
    v = -torch.cos(2 * math.pi * torch.arange(n) / n)  # slow at the ends
    ys = translate(G, x, torch.cat([v[:, None] * row for row in torch.eye(len(attrs))]))
    ys = as_bytes(ys).transpose(0, 1)  # (n K, N, 3, H, W)
    # (of bytes: what interpolate makes of floats depends on the number of threads)
    faces = F.interpolate(ys.flatten(0, 1), (side, side), mode="bilinear").unflatten(0, ys.shape[:2])
    film = Image.fromarray(tiled(F.pad(faces, (0, 0, 0, 40), value=255)))  # with room for a slider
    draw, low, high = ImageDraw.Draw(film), side // 2, film.width - side // 2
    for i in range(len(ys)):
        y, at = i * (side + 40) + side + 18, (low + high + v[i % n].item() * (high - low)) / 2
        draw.line((low, y, high, y), "#999999", 3)
        draw.ellipse((at - 7, y - 7, at + 7, y + 7), "black")
        for place, text in ((low, "-1"), ((low + high) / 2, f"{drawable(attrs[i // n])}: v"), (high, "+1")):
            font = None if text.isascii() else ImageFont.truetype(FONT, 10)
            draw.text((place, y + 15), text, "black", font, anchor="mm")
    film = film.quantize(160, dither=Image.Dither.NONE)
    return [film.crop((0, i * (side + 40), film.width, (i + 1) * (side + 40))) for i in range(len(ys))]


def write_page(path, run, x, strengths=None):
    """The page of the dial, of a trip.Generator, if its template is there: no run is lost without it."""
    if hasattr(run.G, "changes"):
        if PAGE.is_file():
            put(path, dial_page(run, x, strengths))
        else:
            note(f"note: {path} is left out: its template {PAGE} is missing")


def write_dial(run, out, test_data, strengths=None):
    """Write out/dial.html of the first six held-out pictures, and out/dial.gif of three."""
    x = data.as_float(test_data.images[:6]).to(run.device)
    write_page(out / "dial.html", run, x, strengths)
    put_movie(out / "dial.gif", moving_picture(run.G, x[:3], run.config.attr))


def put_movie(path, frames):
    """Write PIL images as a GIF that never ends."""
    frames[0].save(file := io.BytesIO(), "GIF", save_all=True, append_images=frames[1:], duration=90, loop=0)
    put(path, file.getvalue())


# ------------------------------------------------------------------------------------------------------------
# Command line

# what is printed; eval.json has more
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
        ("recon_l1", "L1 of G(x, 0) to x", ".4f"),
        ("outside_l1", "L1 of G(x, v) to x outside the region", ".4f"),
        ("true_spearman", "true strength: rank correlation with v", ".3f"),
        ("true_spearman_asked", "  in the half of the dial that the paper asks", ".3f"),
        ("true_linearity", "  R^2 of a straight line", ".3f"),
        ("true_range", "  at v = 1 minus at v = -1", ".2f"),
        ("crossed", "  share of faces that cross 0.5", ".3f"),
        ("disentanglement", "  v = 1 minus v = -1, of each attribute with a dial", ".2f"),
        ("leakage", "  the others, read at v = +-1, are off by", ".3f"),
        ("leakage_judge", "  the same, read off real pictures", ".3f"),
        ("judge_r2", "  the judge's R^2, by attribute", ".3f"))


def table(results):
    """The scores as lines of text: a row for each score, a column for each result."""
    rows = [["", *(result.name for result in results)]]
    for name, label, form in ROWS:
        scores = [np.atleast_1d(result.scores.get(name, [])) for result in results]
        if any(map(len, scores)):
            rows.append([label, *(" ".join(format(u, form) for u in score) for score in scores)])
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def write(folder, results):
    """Write the scores and figures of one run, a Result for each attribute, into its folder."""
    run, test = results[0].run, results[0].test
    state = {"test_pictures": len(test), "steps": run.step, "seed": run.config.seed}
    scores = state | {"device": run.device.type}
    with suppress(OSError, ValueError, AttributeError):  # other metrics' marks of the same state stay
        before = json.loads((folder / "eval.json").read_text())
        if state.items() <= before.items():  # (but not what the ranker of a run beside it said)
            scores |= {name: u for name, u in before.items() if not name.startswith("first_")}
    for result in results:
        end = ending(run.config.attr, result.k)
        scores |= {name + end: score for name, score in result.scores.items()}
        if "R" in result.readings:
            put(folder / f"fig6_box{end}.png", fig_box(result))
            put(folder / f"fig7_ranker{end}.png", fig_ranker([result]))
        if "seen" in result.readings:
            put(folder / f"truth{end}.png", fig_truth(result))
    if len(results) > 1:
        put(folder / "fig8_grid.png", fig_grid(run, test))
    put(folder / "fig10_losses.png", fig_losses(run))
    write_dial(run, folder, test, results[0].judges.strengths)
    put(folder / "eval.json", json.dumps(scores, indent=2) + "\n")


def command(argv, restore=None):
    """The command line. restore: (folder, device) -> a run; None: trip.restore."""
    import trip  # (which imports this module)
    parser = trip.parser("eval.py", "Judge runs of trip.py by the paper's metrics, and more.")
    add = parser.add_argument
    add("runs", nargs="+", type=Path, metavar="RUN", help="folder of a run of trip.py, as in runs/smile")
    add("--metrics", nargs="+", metavar="METRIC", choices=METRICS,
        help=f"after the runs, some of {', '.join(METRICS)} (default: all)")
    add("--root", default="", help="folder of the data set's files (default: where they were in training)")
    add("--device", default="auto", help="cpu, cuda, cuda:1, mps (default: the first of cuda, mps, cpu)")
    args = parser.parse_args(argv)
    device, tell, started = trip.choose_device(args.device), data.teller(), time.perf_counter()
    torch.backends.cudnn.benchmark = False  # kernels found by trial would differ from one call to the next
    runs = {str(folder): (restore or trip.restore)(folder, device) for folder in args.runs}  # (each once)
    (first, run), *others = runs.items()
    c, root = run.config, args.root or run.config.root
    for name, other in runs.items():
        its = other.config
        if (its.data, its.attr, its.size, args.root or its.root) != (c.data, c.attr, c.size, root):
            raise InputError(f"{name} differs from {first} in data set (or --root), attributes or size")
        data.make_folder(Path(name))  # can be written to? Not after minutes of work
    if "truth" in (args.metrics or ()) and c.data != "faces":
        raise InputError(f"--metrics truth: only drawn faces have a known truth, not {c.data}")
    try:
        tell(f"loading the data set {c.data}")
        parts, judges_in = data.load(c.data, c.attr, c.size, root), Path(first).resolve().parent / "judges"
        for run in runs.values():
            seen_before(run, *parts)
        results = evaluate(runs, parts, args.metrics or METRICS, judges_in, tell)
    finally:
        tell("")  # leaves the line free for what comes next
    K = len(c.attr)
    for i, name in enumerate(runs):
        write(Path(name), results[K * i:K * (i + 1)])
    for k in range(K if others and "R" in results[0].readings else 0):
        put(Path(first) / f"fig7_compared{ending(c.attr, k)}.png", fig_ranker(results[k::K]))
    print(table(results))
    for name, run in runs.items():
        if run.step < run.config.steps:
            print(f"note: {name} is not finished: iteration {run.step} of {run.config.steps}")
    print(f"{time.perf_counter() - started:.0f} s; wrote eval.json and figures to {', '.join(runs)}")
    return 0


def main(argv=None):
    import trip
    return trip.program("eval.py")(command)(argv)


if __name__ == "__main__":
    sys.exit(main())
