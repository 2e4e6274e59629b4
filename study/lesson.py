"""What walkthrough.ipynb needs beside the method: is everything here? Figures, pages, checks of exercises.

    sys.path.insert(0, "study")
    from lesson import *
"""

import copy  # noqa: F401  (for the cells, as others below)
import csv
import hashlib  # noqa: F401
import html
import importlib.util
import inspect
import io
import json  # noqa: F401
import os
import sys
import time
from base64 import b64encode
from pathlib import Path

missing = [name for name in ("torch", "torchvision", "numpy", "matplotlib", "PIL")
           if importlib.util.find_spec(name) is None]
if sys.version_info < (3, 10) or missing:
    raise SystemExit(f"TRIP needs Python 3.10 or newer (here: {sys.version.split()[0]}), and packages: type\n"
                     "    %pip install torch torchvision numpy matplotlib pillow\nand restart the kernel")

import numpy as np  # noqa: E402
import torch  # noqa: E402
from IPython import get_ipython  # noqa: E402, F401
from IPython.core.pylabtools import print_figure  # noqa: E402
from IPython.display import HTML, IFrame, Markdown, display  # noqa: E402, F401
from matplotlib.figure import Figure  # noqa: E402
from PIL import Image, ImageDraw, ImageFont  # noqa: E402
from pygments import highlight  # noqa: E402  (comes with the notebook)
from pygments.formatters import HtmlFormatter  # noqa: E402
from pygments.lexers import PythonLexer  # noqa: E402

STUDY = Path(__file__).resolve().parent
sys.path.insert(0, str(STUDY.parent))

import data  # noqa: E402
import eval  # noqa: E402
import trip  # noqa: E402

started = time.perf_counter()
device = trip.choose_device("auto")
BLUE, ORANGE, GREEN = eval.PALETTE[:3]


def steps(n):
    """How many iterations, or faces: n, or the environment variable TRIP_STEPS (for the tests)."""
    return int(os.environ.get("TRIP_STEPS", n))


# ------------------------------------------------------------------------------------------------------------
# Showing

def code(thing, first=None, last=None):
    """Show the source of a thing, or its lines from one with `first` in it to one with `last`."""
    lines = inspect.getsource(thing).splitlines()
    start = next((i for i, line in enumerate(lines) if first and first in line), 0)
    ends = [i for i, line in enumerate(lines) if i >= start and last and last in line]
    source = inspect.cleandoc("\n" + "\n".join(lines[start:ends[0] + 1 if ends else None]))
    page = HtmlFormatter(noclasses=True, nobackground=True, prestyles="font-family: monospace")
    display(HTML(highlight(source, PythonLexer(), page)))


def table(head, rows):
    """Show a table. head: the names of the columns; rows: a list of texts or numbers for each."""
    lines = [head, ["---"] * len(head), *rows]
    display(Markdown("\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)))


def image(figure, alt, faces=False):
    """A figure as HTML, of lines at twice the screen's resolution; alt: what is to be seen in it."""
    png = print_figure(figure, "png", dpi=72 if faces else 144)
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    if not faces:  # (a few colours are enough, and a quarter of the bytes)
        picture.quantize(96, dither=Image.Dither.NONE).save(file := io.BytesIO(), "PNG", optimize=True)
        png = file.getvalue()
    width = picture.width * 72 // (72 if faces else 144) * 100 // 72
    return HTML(f'<img alt="{html.escape(alt)}" style="width: {width}px; max-width: 100%" '
                f'src="data:image/png;base64,{b64encode(png).decode()}">')


def show(figure, alt, faces=False):
    display(image(figure, alt, faces))


def widget(page, height=500):
    """Show a page with sliders within this one."""
    style = f"width: 100%; height: {height}px; border: 0"
    display(HTML(f'<div><iframe srcdoc="{html.escape(page)}" style="{style}"></iframe></div>'))


def stored(name, group):
    """The lines of study/NAME.csv of one group of runs: variant -> a list of dicts."""
    found = {}
    with open(STUDY / f"{name}.csv", newline="") as file:
        for line in csv.DictReader(file):
            if line["group"] == group:
                found.setdefault(line["variant"], []).append(line)
    return found


def numbers_of(rows, key):
    return np.array([float(row[key] or "nan") for row in rows])  # (empty: not measured)


def mean_std(numbers, form):
    """The mean as text; of several numbers, with their std."""
    return f"{numbers.mean():{form}}" + f" ± {numbers.std():{form}}" * (len(numbers) > 1)


def at_ends(axes, lines):
    """Write each line's name at its end, in its colour, none over another. lines: name -> (line, its y)."""
    (_, high), (bottom, top), last = axes.get_xlim(), axes.get_ylim(), -np.inf
    for name, (line, y) in sorted(lines.items(), key=lambda item: item[1][1]):
        y = last = max(y, last + (top - bottom) / 18)
        axes.annotate(name, (high, y), color=line.get_color(), va="center", fontsize=8,
                      xytext=(4, 0), textcoords="offset points", annotation_clip=False)


# ------------------------------------------------------------------------------------------------------------
# Figures

def faces_in(axes, picture):
    """Draw a picture, float (3, H, W) in [-1, 1] or uint8."""
    picture = picture.cpu() if picture.dtype == torch.uint8 else ((picture.cpu() + 1) / 2).clamp(0, 1)
    axes.imshow(picture.permute(1, 2, 0))
    axes.set(xticks=[], yticks=[])


def strips(G, x, title):
    """Every picture of x and its sweep from v = -1 to v = 1: the paper's Fig. 5."""
    names = [f"{v:+.1f}" for v in eval.SWEEP]
    return eval.strips(x, eval.translate(G, x, eval.SWEEP), names, f"{title}: v =")


def fig_label(one):
    """One drawn face at eleven strengths, above what the label says of each."""
    strength = torch.linspace(0, 1, 11)
    same_person = torch.cat([data.redraw(one, s.view(1, 1)) for s in strength])
    figure = Figure(figsize=(9, 2.4), layout="constrained")
    faces, label = figure.subplots(2, sharex=True, height_ratios=(0.8, 1))
    faces.imshow(torch.cat(list(same_person), 2).permute(1, 2, 0), extent=(-0.05, 1.05, 0, 0.1))
    faces.axis("off")
    label.plot([0, 0.5, 0.5, 1], [0, 0, 1, 1], color=ORANGE)
    label.plot(strength, (strength > 0.5).float(), "o", color=ORANGE)
    label.plot(strength, strength, "k:")
    label.text(0.52, 0.2, "the label, smiling or not", color=ORANGE, fontsize=9)
    label.text(0.1, 0.33, "what a dial needs", fontsize=9)
    label.set(xlabel="true strength of the smile", yticks=[0, 1], xlim=(-0.05, 1.05))
    return figure


def fig_pairs(x, y, r, train):
    """Eight of 16 pairs, of both kinds, x above y, with r, and the true strengths below."""
    def true_strength(picture):  # of a training picture, maybe mirrored: that of the one it is nearest to
        both = torch.stack([picture, picture.flip(2)]).cpu().flatten(1)
        distances = torch.cdist(both, data.as_float(train.images).flatten(1))
        return train.strength[distances.min(0).values.argmin(), 0]

    figure = Figure(figsize=(9, 3), layout="constrained")
    for i, column in zip((0, 1, 2, 3, 8, 9, 10, 11), figure.subplots(2, 8).T):
        for axes, picture in zip(column, (x, y)):
            faces_in(axes, picture[i])
            axes.set_xlabel(f"{true_strength(picture[i]):.2f}")
        column[0].set_title(f"r = {r[i, 0]:+.0f}", fontsize=9)
        if i == 0:
            column[0].set_ylabel("x"), column[1].set_ylabel("y")
    return figure


def drawn(some, s):
    """The faces, all redrawn with strength s, as float (N, 3, H, W)."""
    return data.as_float(data.redraw(some, torch.full((len(some), 1), float(s)))).to(device)


def fig_ranker(densities, rankers, some):
    """What R says of held-out pairs, before and after; and against the true strength, at three ages."""
    figure, (before, after, slope) = eval.canvas(3, 3.2, 10, width_ratios=(1, 1, 1.5))
    for axes, (moment, outputs) in zip((before, after), densities.items()):
        for level, name in (("plus", "r = +1"), ("zero", "r = 0"), ("minus", "r = -1")):
            said = outputs[f"real_{level}"][0].clip(-2, 2).numpy()
            axes.hist(said, 40, range=(-2, 2), density=True, alpha=0.6, color=eval.COLOURS[level], label=name)
        axes.set(xlabel="R(x, y)", yticks=[], title=f"held-out pairs, {moment}")
        axes.vlines((-1, 1), *axes.get_ylim(), color="black", lw=0.8, ls=":")
    after.legend(fontsize=8)
    strength = np.linspace(0, 1, 11)
    slope.plot([0, 0.5, 0.5, 1], [-0.5, -0.5, 0.5, 0.5], "k:", lw=1)
    ends = {}
    for (name, ranker), colour in zip(rankers.items(), (eval.PALETTE[5], BLUE, ORANGE)):
        with torch.no_grad():
            said = torch.cat([ranker(drawn(some, 0.5), drawn(some, s)) for s in strength], 1).cpu().mean(0)
        ends[name] = slope.plot(strength, said, ".-", color=colour)[0], said[-1]
    slope.set(xlabel="true strength of y (x: 0.5)", title="mean of R(x, y)", xlim=(0, 1))
    at_ends(slope, ends)
    return figure


@torch.no_grad()
def like_the_truth(G, some):
    """The cosine between what G changes from v = -1 to v = 1 and the true change, mean of drawn faces."""
    none, full = drawn(some, 0).cpu(), drawn(some, 1).cpu()
    ours = eval.translate(G, data.as_float(some.images).to(device), [-1.0, 1.0]).cpu()
    return torch.cosine_similarity((ours[:, 1] - ours[:, 0]).flatten(1), (full - none).flatten(1)).mean()


def fig_claims(results, names):
    """What the ranker says of generated pairs, and what the judge reads, against v, of every face."""
    figure, (ranker, truth) = eval.canvas(2, 3.2)
    for axes, (low, high), what in ((ranker, (-1, 1), "asked for"), (truth, (0, 1), "a whole dial")):
        axes.plot([-1, 1], [low, high], "k:", lw=1)
        axes.text(0.45, low + 0.8 * (high - low), what, fontsize=8, ha="right")
    for result, name, colour in zip(results, names, (ORANGE, BLUE)):
        for axes, read in ((ranker, result.readings["R"]), (truth, result.readings["seen"][..., 0])):
            axes.plot(eval.SWEEP, read[:, eval.AT_SWEEP].mean(0), ".-", color=colour, label=name)
    ranker.set(xlabel="v, of every face", title="the ranker says: R(x, G(x, v))", ylim=(-1.3, 1.3))
    truth.set(xlabel="v, of every face", title="the judge reads: strength", ylim=(-0.4, 1.4))
    ranker.legend(fontsize=8)
    return figure


def fig_players():
    """Who learns what from whom: solid arrows are pictures and answers, dashed ones gradients."""
    figure, axes = eval.canvas(height=3.3)
    axes.set(xlim=(0, 10), ylim=(0, 5))
    axes.axis("off")
    boxes = {name: axes.text(x, y, name, ha="center", va="center", fontsize=10, bbox={
                 "boxstyle": "round,pad=0.5", "facecolor": "white", "edgecolor": colour})
             for name, x, y, colour in (
                 ("x, y", 0.6, 4.2, "grey"), ("x, v", 0.6, 1.5, "grey"), ("G", 2.3, 1.5, ORANGE),
                 ("x, G(x, v)", 4.3, 1.5, "grey"), ("R", 5.6, 4.2, BLUE),
                 ("of real pairs: r", 8.7, 4.6, BLUE), ("of generated pairs: 0", 8.7, 3.4, BLUE),
                 ("of generated pairs: v", 8.7, 1.5, ORANGE))}

    def arrow(start, end, colour="black", style="-", bend=0.0):
        axes.annotate("", boxes[end].get_position(), boxes[start].get_position(), arrowprops={
            "arrowstyle": "->", "ls": style, "color": colour, "connectionstyle": f"arc3,rad={bend}",
            "patchA": boxes[start].get_bbox_patch(), "patchB": boxes[end].get_bbox_patch()})

    for pair in (("x, y", "R"), ("x, v", "G"), ("G", "x, G(x, v)"), ("x, G(x, v)", "R"),
                 ("R", "of real pairs: r"), ("R", "of generated pairs: 0"), ("R", "of generated pairs: v")):
        arrow(*pair)
    arrow("of generated pairs: 0", "R", BLUE, "--", -0.35)
    arrow("of real pairs: r", "R", BLUE, "--", 0.3)
    arrow("of generated pairs: v", "G", ORANGE, "--", -0.25)
    axes.text(7.6, 2.6, "Eq. 5a", color=BLUE, fontsize=9)
    axes.text(5.1, 0.05, "Eq. 5b, through R", color=ORANGE, fontsize=9, ha="center")
    axes.text(8.7, 5, "what R should say:", ha="center", fontsize=9)
    return figure


def fig_traces():
    """What R* = 1 / (1 + lambda rho) says in the mean, against the trace: the rest is N(0, 1) of real pairs,
    N(trace, 1) of generated ones.
    """
    traces, rest = np.linspace(0, 4, 81), np.random.default_rng(0).standard_normal((4000, 1))
    figure, panels = eval.canvas(2, 3, 9, sharey=True)
    for axes, lam in zip(panels, (0.5, 1.0)):
        ends = {}
        title = f"mean of R*, lambda = {lam:g}"
        axes.set(xlabel="trace, in std", xlim=(0, 4), ylim=(-0.05, 1.05), title=title)
        eval.dotted(axes, 0, 0.5, 1)
        for name, z, colour in (("real", rest, BLUE), ("generated", rest + traces, ORANGE)):
            mean = (1 / (1 + lam * np.exp(traces * z - traces ** 2 / 2))).mean(0)
            ends[name] = axes.plot(traces, mean, color=colour)[0], mean[-1]
        at_ends(axes, ends)
    return figure


def fig_heads(paths):
    """How far from 0 each head stands, real pairs and generated pairs in panels of their own.

    paths: name -> (n, 2), the levels of real and of generated pairs at every fourth iteration.
    """
    figure, panels = eval.canvas(2, 3.4, 10, sharey=True)
    for axes, k, title, paper in ((panels[0], 0, "real pairs", 1), (panels[1], 1, "generated pairs", 0.5)):
        ends = {}
        for (name, path), colour, lw in zip(paths.items(), (BLUE, GREEN, "black"), (1.2, 1.2, 2)):
            width = min(10, len(path))
            smooth = np.convolve(path[:, k], np.ones(width) / width, "valid")
            line, = axes.plot(4 * np.arange(width, len(path) + 1), smooth, color=colour, lw=lw)
            ends[name] = line, smooth[-1]
        axes.axhline(paper, color="black", lw=0.8, ls=":")
        axes.set(xlabel="iteration", title=f"{title} (dotted: the paper's, {paper:g})",
                 xlim=(0, 4 * len(path)), ylim=(0, 1.3))
        at_ends(axes, ends)
    return figure


def tug(path, n=20):
    """A moving picture of u = R(x, G(x, v)), pulled from v to 0 and back. path: (m, 3), u before R's step,
    between, after G's. The arrows are means over half of the path around a moment: a step is noisy.
    """
    font, frames, path = ImageFont.truetype(eval.FONT, 20), [], np.asarray(path)
    n = min(n, len(path))
    place = lambda u: 120 + 560 * u  # noqa: E731  (pixels, at twice the resolution)
    for i in range(n):
        at, reach = round(i * (len(path) - 1) / max(1, n - 1)), len(path) // 4
        u = path[max(0, at - 4):at + 5, 0].mean()
        pulls = np.diff(path[max(0, at - reach):at + reach + 1]).mean(0)
        frame = Image.new("RGB", (900, 200), "white")
        draw = ImageDraw.Draw(frame)
        draw.line((place(0), 120, place(1.2), 120), "#999999", 4)
        for value, text in ((0, "0: R's wish"), (0.5, "half way"), (1, "v: G's wish")):
            draw.line((place(value), 108, place(value), 132), "#999999", 4)
            draw.text((place(value), 160), text, "black", font, anchor="mm")
        for pull, colour, name, high in zip(pulls, (BLUE, ORANGE), "RG", (74, 96)):
            end = place(u) + 12000 * np.clip(pull, -0.02, 0.02)
            draw.line((place(u), high, end, high), colour, 8)
            draw.text((end + 16 * np.sign(pull), high), name, colour, font, anchor="mm")
        draw.ellipse((place(u) - 13, 107, place(u) + 13, 133), "black")
        draw.text((place(0), 30), f"iteration {4 * at}:  u = {u:.2f}", "black", font)
        frames.append(frame.quantize(32, dither=Image.Dither.NONE))
    frames[0].save(file := io.BytesIO(), "GIF", save_all=True, append_images=frames[1:], duration=300, loop=0)
    alt = "A dot, u, on a line from 0 to v; a bar of R to the left, of G to the right"
    display(HTML(f'<img alt="{alt}" style="width: 450px" '
                 f'src="data:image/gif;base64,{b64encode(file.getvalue()).decode()}">'))
    print("the mean pull of a step: R's {:+.4f}, G's {:+.4f}".format(*np.diff(path[len(path) // 2:]).mean(0)))


def fig_changes(G, x):
    """x (N, 3, H, W): where G's flow fetches pixels from; x warped only; warped and painted; v = +1."""
    figure = Figure(figsize=(11, 2.9 * len(x)), layout="constrained")
    v, (h, w) = torch.ones(len(x), 1, device=x.device), x.shape[2:]
    with torch.no_grad():
        G.eval()
        picture, warped, flow = G(x, v, parts=True)
    n, flow = flow.shape[-1], 0.1 * flow.cpu()[..., ::2, ::2]  # every second arrow; 2 is the whole width
    ys, xs = np.mgrid[0:n:2, 0:n:2] * (h - 1) / (n - 1)
    for row, start, u, *others in zip(figure.subplots(len(x), 4, squeeze=False), x, flow, warped, picture):
        for axes, shown, name in zip(row, (start, start, *others), (
                "x", "fetched from, v = +1", "warped", "and painted: G(x, +1)")):
            faces_in(axes, shown)
            axes.set_title(name, fontsize=9)
        row[1].quiver(xs, ys, u[0] * (w - 1) / 2, u[1] * (h - 1) / 2, color="yellow", angles="xy",
                      scale_units="xy", scale=0.5, width=0.008)
    return figure


def table_of(net, run, paper=()):
    """Show the parts of a network with the shapes that come out of them, beside the paper's."""
    kinds = (torch.nn.Conv2d, torch.nn.ConvTranspose2d, torch.nn.Linear, trip.Residual)
    inside = {part for block in net.modules() if isinstance(block, trip.Residual) for part in block}
    found = {part: None for part in net.modules() if isinstance(part, kinds) and part not in inside}

    def note(part, _, out):
        found[part] = "x".join(map(str, (*out.shape[2:], out.shape[1])))  # H x W x channels

    for part in found:
        part.register_forward_hook(note)
    run(net)
    rows = [(type(part).__name__, shape) for part, shape in found.items()]
    if paper:
        table(["the paper's part", "the paper", "our layer", "our output"],
              [[part, theirs, layer, ours] for (part, theirs), (layer, ours) in zip(paper, rows)])
    else:
        table(["layer", "output"], rows)


def fig_means(run, faces):
    """The means of R's output on real and generated pairs so far, below the faces as they are now."""
    figure = Figure(figsize=(9, 5), layout="constrained")
    grid = figure.add_gridspec(2, 2, height_ratios=(1, 2.4))
    above = figure.add_subplot(grid[0, :])
    above.imshow((torch.cat(list(faces), 2).permute(1, 2, 0) + 1) / 2)
    above.axis("off")
    rows = run.log.get("history", [])  # (none at first)
    at = [row["step"] for row in rows]
    for place, kind, title, value, paper in ((0, "real", "real pairs", "r", 1),
                                             (1, "gen", "generated pairs", "v", 0.5)):
        axes, ends = figure.add_subplot(grid[1, place]), {}
        for level, sign in (("plus", "+1"), ("zero", "0"), ("minus", "-1")):
            line = [row[f"{kind}_{level}"][0] for row in rows]
            ends[f"{value} = {sign}"] = axes.plot(at, line, color=eval.COLOURS[level])[0], (line or [0])[-1]
        eval.dotted(axes, -paper, paper)
        axes.set(xlabel="iteration", xlim=(0, run.config.steps), ylim=(-1.4, 1.4),
                 title=f"mean of R: {title} (dotted: the paper's)")
        at_ends(axes, ends if rows else {})
    return figure


def fig_lambda(sweep):
    """Levels of stored runs against lambda, beside exercise 8.1's formula for u: (1 + u) / 2 and u / 2."""
    lams = np.concatenate([np.full(len(rows), float(lam)) for lam, rows in sweep.items()])
    line = np.linspace(0.05, lams.max(), 500)  # (at 0 the pair head is not asked for its 0)
    u = 1 / (1 + line / 3)
    figure, axes = eval.canvas(height=3.6)
    for kind, name, colour, expected in (("real", "real pairs", ORANGE, (1 + u) / 2),
                                         ("gen", "generated pairs", BLUE, u / 2)):
        ends = [np.concatenate([numbers_of(rows, f"{kind}_{end}") for rows in sweep.values()])
                for end in ("plus", "minus")]
        axes.plot(lams, (ends[0] - ends[1]) / 2, "o", color=colour)
        axes.plot(line, expected, color=colour)
        axes.annotate(name, (line[-1], expected[-1]), (14, 0), textcoords="offset points",
                      color=colour, va="center", annotation_clip=False)
    eval.dotted(axes, 0.5, 1)
    axes.set(xlabel="lambda", ylabel="how far R stands from 0", ylim=(0, 1.1), xlim=(-0.03, 1.02 * line[-1]))
    return figure


# ------------------------------------------------------------------------------------------------------------
# Exercises

DOTS = "write your answer in place of the three dots"


def verdict(name, answer):
    """What leads on, if an answer is not right; None if it is."""
    try:
        dots = answer is ... or callable(answer) and inspect.getsource(answer).rstrip().endswith("return ...")
        return DOTS if dots else CHECKS[name](answer)
    except Exception as error:  # an answer may do anything
        return f"{type(error).__name__}: {error}"


def check(name, answer):
    """Say whether an answer is right and, if not, what leads on. hint(name) gives two steps more."""
    found = verdict(name, answer)
    print("right" if found is None else f"not yet: {found}")


OURS = {"2.1": trip.generator_rank_loss, "3.1": trip.generator_rank_loss, "4.1": trip.ranker_rank_loss}


def yours(name, answer):
    """The reader's loss, if it is right, else ours: what trains from here on."""
    right = verdict(name, answer) is None
    print(f"training with {'your' if right else 'our'} loss, exercise {name}")
    return answer if right else OURS[name]


def hint(name):
    """Show the next hint of an exercise; after the last one, where its solution is."""
    left = given.setdefault(name, [*HINTS[name]])
    print(left.pop(0) if left else f"the solution is in tests/course/SOLUTIONS.md, Exercise {name}")


given = {}  # exercise -> hints that are left


def near(a, b, by=1e-4):
    a, b = (torch.as_tensor(u, dtype=torch.float64) for u in (a, b))
    return torch.allclose(a, b, atol=by)


def columns(*rows):
    return [torch.tensor(row)[:, None] for row in rows]


def first(*cases):
    """The hint of the first case that is true; None if none is. cases: (whether, hint)."""
    return next((says for wrong, says in cases if wrong), None)


def not_one(u):
    shape = tuple(torch.as_tensor(u).shape)
    return first((shape, f"one number is asked for; this has the shape {shape}"))


MEAN = "a sum over the pairs grows with the batch: take their mean"
SUM = "with two attributes, sum over the second dimension, then take the mean over pairs"


def check_square(loss):
    """Of Eq. 1 and 5b: mean over pairs of the squared distance, summed over attributes."""
    said, aim = columns((0.5, -1.0, 0.25, 0.75), (1.0, -1.0, 1.0, -1.0))
    both = [torch.cat([z, z], 1) for z in (said, aim)]
    u, wanted = loss(said, aim), 0.96875
    return not_one(u) or first(
        (not near(loss(aim, aim), 0), "it is not 0 where every answer is right"),
        (not near(loss(2 * said - aim, aim), 4 * u), "being twice as far off must count four times"),
        (near(u, 4 * wanted), MEAN),
        (not near(u, wanted), f"said 0.5 and asked 1: yours is {loss(said[:1], aim[:1]):.2f}, not 0.25"),
        (not near(loss(*both), 2 * wanted), SUM))


def check_rival(loss):
    """Of Eq. 5a."""
    real, r, fake = columns((0.8, -0.9), (1.0, -1.0), (0.5, 0.3))
    both = [torch.cat([z, z], 1) for z in (real, r, fake)]
    u, wanted = loss(real, r, fake, 0.5), 0.025 + 0.5 * 0.17
    return not_one(u) or first(
        (near(u, 2 * wanted), MEAN),
        (not near(loss(real, r, fake, 0.0), 0.025), "with lambda = 0 only real pairs count"),
        (near(u, 0.025 + 0.25 * 0.17), "lambda stands before the generated pairs once"),
        (not near(loss(real, r, 0 * fake, 0.5), 0.025), "of generated pairs R should say 0, whatever r is"),
        (not near(u, wanted), "it is another number: what is squared?"),
        (not near(loss(*both, 0.5), 2 * wanted), SUM))


def check_odd(antisymmetric):
    torch.manual_seed(0)
    R, odd = (trip.Ranker(K=1, width=8, size=32, head=head) for head in ("paper", "score"))
    x, y = torch.rand(2, 2, 3, 32, 32) * 2 - 1
    u, turned = antisymmetric(R, x, y), antisymmetric(R, y, x)
    return first(
        (u.shape != (2, 1), f"R(x, y) has the shape (2, 1), this {tuple(u.shape)}"),
        (not near(u, -turned), "it does not change its sign when x and y change places"),
        (not near(antisymmetric(odd, x, y), odd(x, y)),
         "a ranker that is antisymmetric already should stay as it is: what is the factor?"))


def check_fool(answer):
    R, x, d = answer
    if d is ... or d.shape != x.shape:
        return first((d is ..., DOTS), (True, f"the shape of x is {tuple(x.shape)}"))
    rises = (R(x, x + d) - R(x, x)).item()
    return first((d.abs().max() > 0.1001, f"it changes a pixel by {d.abs().max():.2f}"),
                 (rises < 0.3, f"the answer rises by {rises:.2f} only"))


def check_best(best):
    for p, q, E, lam in ((0.2, 0.2, 1, 1), (0.3, 0, 0.8, 2), (0.1, 0.4, 1, 0.5), (0.2, 0.3, -1, 0.7)):
        def loss(R):
            return p * (R - E) ** 2 + lam * q * R ** 2

        u = best(p, q, E, lam)
        for other in (u - 0.01, u + 0.01):
            if loss(other) < loss(u):
                return (f"p = {p}, q = {q}, E = {E}, lambda = {lam}: at your {u:.3f} the loss is "
                        f"{loss(u):.5f}, at {other:.3f} it is {loss(other):.5f}")


def check_rho(rho):
    for level, lam in ((0.8, 0.25), (0.4, 1.5), (1.0, 0.7)):
        said = 1 / (1 + lam * rho(level, lam))
        if not near(said, level, 1e-3):
            return f"with lambda = {lam} and your rho, {rho(level, lam):.2f}, R* is {said:.2f}, not {level}"
    print(f"at lambda = 0.5 generated pairs at 1/2 need rho = {rho(0.5, 0.5):g}, real pairs at 1 need "
          f"{rho(1.0, 0.5):g}")


def check_mix(answer):
    (score, pair), w = answer
    said = (1 - w) * score + w * pair
    return first((abs(said - 0.25) > 0.01, f"then they would stand at {said:.2f}"))


def check_iteration(answer):
    """Whether iteration(run, x, y, r) does to a run what one of trip.train does, rank losses only."""
    train, iteration = answer
    only_ranks = dict(size=32, head="score", lam_id=0.0, lam_flow=0.0, lam_paint=0.0, shift=False)
    start, mine, theirs = (trip.Run(trip.Config(**only_ranks)) for _ in range(3))
    for run in (start, mine, theirs):
        run.G.paint.weight.data *= 100  # (so that generated pairs differ, and lambda counts)
    x, y, r = next(data.pairs(train, 8, torch.Generator().manual_seed(0)))
    if iteration(mine, x, y, r) is ...:
        return DOTS
    next(trip.train(theirs, iter([(x, y, r)])))
    for player, name in (("R", "the ranker's"), ("G", "the generator's")):
        before, ours, wanted = (torch.cat([p.flatten() for p in getattr(run, player).parameters()]).detach()
                                for run in (start, mine, theirs))
        if torch.equal(before, ours):
            return f"{name} weights are as they were: is trip.update called for it?"
        if torch.cosine_similarity(ours - before, wanted - before, dim=0) < 0.98:  # (Adam begins with signs)
            return f"{name} weights change in another way than by trip.train: what it is asked, and by whom?"


def check_guess(answer):
    guess, before, measured = answer
    if guess is ...:
        return DOTS
    wanted = before * (1 + 0.5 / 3) / (1 + 2 / 3)
    if abs(guess - wanted) > 0.03:
        return first((abs(guess - before * 1.5 / 3) < 0.03, "the mean of v^2 is not 1: look at the squares"),
                     (True, "which E does the level at lambda = 0.5 speak for?"))
    print(f"trained, 300 iterations at lambda = 2: {measured():.2f}")


CHECKS = {"2.1": check_square, "2.2": check_odd, "3.1": check_square, "3.2": check_fool, "4.1": check_rival,
          "4.2": check_best, "4.3": check_rho, "6.1": check_mix, "6.2": check_iteration, "8.1": check_guess}
HINTS = {
    "2.1": ["(B, K) numbers become one: what is done with the K of a pair, what with the B pairs?",
            "Square first; .sum(1) adds up the attributes of each pair, .mean() averages over the pairs."],
    "2.2": ["Which two numbers can R give for x and y?",
            "One of them belongs into the difference with a minus; then R's own size must come out again."],
    "3.1": ["It is Eq. 1 again: which answer is asked for now?",
            "The label's place is taken by v; the sum over K and the mean over B are as before."],
    "3.2": ["d starts at 0 and must know its gradient: torch.zeros_like(x, requires_grad=True).",
            "torch.autograd.grad(R(x, x + d).sum(), d) says which way each pixel goes; each may go 0.1."],
    "4.1": ["Two terms, each like Eq. 1's. What is asked of real pairs, what of generated ones?",
            "The second term's answer is 0, and lambda stands before it."],
    "4.2": ["What it pays is a parabola in R: where is its slope 0?",
            "The slope is 2 p (R - E) + 2 lambda q R. Collect what has R in it."],
    "4.3": ["Divide R* = E / (1 + lambda rho) out, with E = 1.",
            "1 + lambda rho = 1 / level."],
    "6.1": ["R = (1 - w) score + w pair is linear in w.", "(score - 0.25) of the way from score to pair."],
    "6.2": ["v is of trip.uniform(run, len(x), 1), lambda run.config.lam. Whose graph is the ranker to spare?",
            "fake.detach() for the ranker; then the generator asks the ranker that has just learned."],
    "8.1": ["It pays (E - u)^2 + lambda u^2 mean(v^2). Which u makes that smallest? What is mean(v^2)?",
            "u = E / (1 + lambda / 3). Find E from the level at lambda = 0.5."]}
