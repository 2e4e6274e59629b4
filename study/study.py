"""The evidence: does TRIP do what the paper says, when not, and which choices matter?

    python study/study.py                     all on drawn faces, a run a core; it goes on where it stopped
    python study/study.py photos --root DIR   on photographs: DIR holds CelebA-HQ (trip.py --data celeba-hq)
    python study/study.py ablation lambda     some of the groups (GROUPS, below; and theory, after claim)
    python study/study.py photo_lfwa --root DIR   on LFWA, which DIR holds; photo_shoes: on edges2shoes
    python study/study.py rivals              the paper's rivals, see rivals.py; photo_rivals --root DIR
    python study/study.py --draw              no training: figures and tables of the results that are there

A run is a line of study.csv for each group that has it: what was changed against the default, the
measurements of the training (last fifth of the iterations) and of eval.py (1,000 held-out faces, 500 at 32
px; final weights); of two attributes their mean. study_curves.csv: means of R over the iterations, of the
groups in CURVED. study_theory.csv: fresh rankers on the generator of `claim`, seed 0. What is in these files
counts as done: to make a run anew, delete its lines.
Runs are kept in runs/study, their judges in runs/judges; figures go to study/figures, tables to README.md and
study/README.md.
"""

import csv
import io
import os
import re
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from textwrap import fill

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT))

import data  # noqa: E402
import eval as ev  # noqa: E402
import rivals  # noqa: E402
import trip  # noqa: E402

RESULTS, CURVES, THEORY = (HERE / f"{name}.csv" for name in ("study", "study_curves", "study_theory"))
FIGURES = HERE / "figures"
RUNS, JUDGES = ROOT / "runs" / "study", ROOT / "runs" / "judges"
PAGES = ROOT / "README.md", HERE / "README.md"
PHOTOS = ("smile", "male", "mouth_open", "cheekbones", "eyeglasses")  # the paper's four, and one
JUDGED_BY = {"celeba-hq": PHOTOS, "lfwa": ("smile", "frown")}  # what the judge of photographs learns
METRICS = ev.METRICS

# ------------------------------------------------------------------------------------------------------------
# What is run

PHOTO = trip.PRESETS["photo"] | dict(data="celeba-hq")
PAINTED = PHOTO | dict(lam_paint=15.0)  # (what is far must be painted)
PAPER = trip.PRESETS["paper"] | dict(size=64, width=32)  # its networks at half their width
NEAREST = PAPER | dict(width=16, steps=3000, lam_gp=4.0, gp_center=0.0, lr_g=1e-3, lr_r=1e-3)
SHOES = dict(lam_g=2.0, lam_gp=4.0, lam_flow=0.0, lam_paint=0.0, data="edges2shoes", attr=("edges",),
             steps=3000, head="score", lam_id=0.5)


def each(seeds, variants):
    """variant -> (the number of its seeds, what it changes)."""
    return {variant: (seeds, change) for variant, change in variants.items()}


GROUPS = {
    "claim": each(5, {"default": {}}),
    "time": each(1, {"1 x": {}, "4 x": dict(steps=6000)}),
    "lambda": each(1, {"0.0": dict(lam=0.0), "0.5": {}, "1.0": dict(lam=1.0)}),
    "ablation": each(5, {"default": {}}) | each(3, {"lambda = 0": dict(lam=0.0)}) | each(1, {
        "with L_gan": dict(lam_g=2.0, lam_gp=4.0), "no L_rank": dict(warmup=1.0), "CLS": dict(cls=True),
        "score head alone": dict(head="score"), "pair head alone": dict(head="pair"),
        "no price on change": dict(lam_id=0.0), "no price on flow": dict(lam_flow=0.0),
        "no price on paint": dict(lam_paint=0.0), "no shift": dict(shift=False),
        "constant rates": dict(lr_decay_start=1.0)}),
    "two_dials": each(1, {"smile, mouth_open": dict(
        attr=("smile", "mouth_open"), lam_paint=50.0, steps=3000)}),  # (a mouth that opens must be painted)
    "paper": each(1, {"photographs": PAPER | dict(data="celeba-hq"), "drawn faces": PAPER}),
    "paper_nearest": each(1, {
        "photographs": NEAREST | dict(data="celeba-hq"),
        "falling rates": NEAREST | dict(lr_decay_start=0.2, data="celeba-hq"),
        "drawn faces": NEAREST | dict(lr_decay_start=0.2)}),
    "photo_lfwa": each(1, {name: PHOTO | dict(data="lfwa", attr=(name,)) for name in JUDGED_BY["lfwa"]} | {
        name: dict(rival=name, data="lfwa") for name in ("fn", "rcgan")}),
    "photo_shoes": each(1, {"warps, adds paint": SHOES,
                            "draws anew": NEAREST | dict(data="edges2shoes", attr=("edges",))}),
    "photos": each(1, {"smile": PHOTO} | {name: PHOTO | dict(attr=(name,)) for name in PHOTOS[1:4]} | {
        "eyeglasses": PAINTED | dict(attr=("eyeglasses",)),
        "smile, male": PAINTED | dict(attr=("smile", "male"))}),
    "photo_seeds": each(3, {"smile": PHOTO}),
    "photo_ablation": each(3, {"default": PHOTO}) | each(1, {
        "no L_gan": PHOTO | dict(lam_g=0.0, lam_gp=0.0), "lambda = 0": PHOTO | dict(lam=0.0),
        "CLS": PHOTO | dict(cls=True)}),
    "rivals": each(3, {"TRIP": {}, "lambda = 0": dict(lam=0.0)} | {
        name: dict(rival=name) for name in rivals.RIVALS}),
    "rivals_long": each(1, {
        "fn": dict(rival="fn", size=32, steps=8000), "rcgan": dict(rival="rcgan", size=32, steps=12000),
        "relgan --mask": dict(rival="relgan", size=32, steps=6000, mask=True),
        "photographs, TRIP": dict(  # (of commit f57acff)
            steps=2500, lam_g=5.0, lam_gp=4.0, lam_paint=15.0, grey=True, data="celeba-hq", size=32),
        "photographs, relgan --mask": dict(
            rival="relgan", data="celeba-hq", size=32, steps=21645, mask=True)}),
    "photo_rivals": each(3, {"TRIP": PHOTO}) | each(1, {"lambda = 0": PHOTO | dict(lam=0.0)}) | each(3, {
        name: dict(rival=name, data="celeba-hq") for name in rivals.RIVALS})}
OF_OTHER_DATA = "photo_lfwa", "photo_shoes"  # each with a --root of its own
CURVED = "claim", "time"  # groups whose curves are kept


def configs(group, root=""):
    """The runs of a group: (variant, seed, options as they are typed, Config). root: of photographs."""
    most = max(seeds for seeds, _ in GROUPS[group].values())
    for seed in range(most):  # a whole round of variants before the next seed
        for variant, (seeds, change) in GROUPS[group].items():
            if seed < seeds:
                options = " ".join(trip.option(name, value) for name, value in change.items())
                make = rivals.configured if "rival" in change else trip.Config
                yield variant, seed, options, make(**change, seed=seed, root=root if "data" in change else "")


def options_of(group, seed=0):
    """variant -> its options, as they are typed, of a seed's runs."""
    return {variant: options for variant, its_seed, options, _ in configs(group) if its_seed == seed}


def run_folder(options, seed):
    """Where the run is kept, the same one for all groups that have it."""
    name = re.sub(r"[^\w.=]+", "_", options).strip("_") or "default"
    return RUNS / f"{name}-{seed}"


def is_there(options, seed):
    """Whether the run is there and finished."""
    return (run_folder(options, seed) / "summary.json").is_file()


def parts_of(config):
    """The training and the test part of a run's data."""
    return data.load(config.data, config.attr, config.size, config.root)


# ------------------------------------------------------------------------------------------------------------
# The tables, as files

COLUMNS = ["group", "variant", "seed", "size", "steps", "options", "pair_accuracy", *ev.OUTPUTS,
           "gen_plus_std", "gen_zero_std", "gen_minus_std", "recon_l1", "aas", "aas_judge", "ssim_score",
           "frechet_resnet18", "fid", "ranker_pearson", "true_spearman", "true_spearman_asked",
           "true_linearity", "true_range", "crossed", "leakage", "leakage_judge", "outside_l1", "identity",
           "seconds", "remark"]


def read_table(path):
    """The lines of a CSV file as dicts, numbers as floats."""
    def value(name, text):
        try:
            return text if name in ("variant", "options") else float(text)
        except ValueError:
            return text

    if not path.is_file():
        return []
    with open(path, newline="") as file:
        return [{name: value(name, text) for name, text in row.items()} for row in csv.DictReader(file)]


def append(path, columns, rows):
    with open(path, "a", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="", extrasaction="ignore", lineterminator="\n")
        if not file.tell():  # a new file
            writer.writeheader()
        writer.writerows({name: f"{u:.4g}" if isinstance(u, float) else u for name, u in row.items()}
                         for row in rows)


def done():
    """(group, variant, seed) of the runs that have a line in RESULTS."""
    return {(row["group"], row["variant"], int(row["seed"])) for row in read_table(RESULTS)}


def of_group(rows, group):
    """The rows of a group, in the order of its variants."""
    order = list(GROUPS[group])
    return sorted((row for row in rows if row["group"] == group),
                  key=lambda row: (order.index(row["variant"]), row["seed"]))


def variants(rows):
    return list(dict.fromkeys(row["variant"] for row in rows))


# ------------------------------------------------------------------------------------------------------------
# Runs

def metrics_of(config):
    """All metrics; of shoes, that any classifier tells from drawings, those that need none."""
    return ("ssim", "ranker", "preservation") if config.data == "edges2shoes" else METRICS


def judges_of(config):
    """The judges of a run's data; of photographs, where one ResNet-18 learns all of JUDGED_BY, its part."""
    attrs = JUDGED_BY.get(config.data, config.attr)
    train_data, _ = data.load(config.data, attrs, config.size, config.root)
    judges = ev.call_judges(metrics_of(config), train_data, "cpu", data.teller(), JUDGES)
    if config.data in JUDGED_BY and judges.classifier:
        last, mine = judges.classifier.fc, [attrs.index(attr) for attr in config.attr]
        last.weight.data, last.bias.data = last.weight.data[mine], last.bias.data[mine]
    return judges


def upper_l1(run, test_data):
    """L1 of the sweep to x in the upper half of a photograph, where there is no mouth; one dial."""
    x = data.as_float(test_data.images[:500])
    half = x.shape[2] // 2
    return np.mean([(ev.translate(run.G, part, ev.SWEEP) - part[:, None])[..., :half, :].abs().mean().item()
                    for part in x.split(50)])


def neutral_judge(config):
    """What a ResNet-18 sees that has learned all 40 attributes of CelebA-HQ but PHOTOS: -> (N, 512)."""
    names = data.lines_of(data.find(config.root, "CelebAMask-HQ-attribute-anno.txt"))[1].split()
    dials = data.columns(PHOTOS, names, config.root)
    others = [name for i, name in enumerate(names) if i not in dials]
    train_data, _ = data.load("celeba-hq", others, config.size, config.root)
    return ev.features_of(ev.classifier(train_data, "cpu", data.teller(), JUDGES))


def identity(run, test_data):
    """Cosine of what `neutral_judge` sees in x and in swapped x, less what it sees in all x; one dial."""
    see, x, has = neutral_judge(run.config), data.as_float(test_data.images), test_data.labels[:, 0]
    ends = ev.translate(run.G, x, (-1.0, 1.0))  # (N, 2, 3, H, W)
    own, swapped = ev.in_parts(see, x), ev.in_parts(see, ends[torch.arange(len(x)), (~has).long()])
    return torch.cosine_similarity(own - own.mean(0), swapped - own.mean(0)).mean().item()


def work(job):
    """Train and judge one run, in a process of its own. Returns its line of the table and its curves."""
    variant, seed, options, config = job
    torch.set_num_threads(1)
    train_data, test_data = parts_of(config)
    out, found = run_folder(options, seed), {"options": options, "seed": seed, "remark": ""}
    out.mkdir(parents=True, exist_ok=True)
    if isinstance(config, rivals.Config):
        run = rivals.RIVALS[config.rival](config)
        records = ev.fit(run, run.train(train_data), test_data, look=run.measure)
    else:
        run = trip.restore(out) if (out / "trip.pt").is_file() else trip.Run(config)  # (one that was stopped)
        stream = data.pairs(train_data, config.batch, run.rng)
        records = ev.fit(run, trip.train(run, stream), test_data, lambda: trip.save(run, out))
    try:
        for _ in records:
            pass
    except ev.Diverged as error:
        (out / "trip.pt").unlink(missing_ok=True)  # (no figure is to be drawn of it)
        return found | {"remark": str(error)}, run.log["history"]
    trip.save(run, out, **({} if run.R else dict(nets=run.nets)))
    row = {name: np.mean(u) if isinstance(u, list) else u for name, u in ev.summarise(run).items()}
    test_data = test_data[:1000 if config.size > 32 else 500]
    results = ev.assess(run, test_data, judges_of(config), metrics_of(config), variant)
    ev.write(out, results)
    ev.report(run, out, test_data)  # (with summary.json, by which `is_there` knows that all is there)
    if config.data != "faces" and len(config.attr) == 1:
        row["outside_l1"] = upper_l1(run, test_data)
        if config.data == "celeba-hq":
            row["identity"] = identity(run, test_data)
    row |= {name: np.mean([result.scores[name] for result in results])
            for name in results[0].scores if name in COLUMNS}
    return row | found, run.log["history"]


def keep(found, history):
    """Write a finished run to the tables: a line for each group that has it, and its curves."""
    known, columns = done(), ["group", "variant", "seed", "step", *ev.OUTPUTS]
    for group in GROUPS:
        for variant, seed, options, config in configs(group):
            if (options, seed) == (found["options"], found["seed"]) and (group, variant, seed) not in known:
                line = {"group": group, "variant": variant, "size": config.size, "steps": config.steps}
                append(RESULTS, COLUMNS, [found | line])
                if group in CURVED:
                    append(CURVES, columns, [line | {"seed": seed, "step": h["step"]} | {
                        name: h[name][0] for name in ev.OUTPUTS} for h in history])


def run_all(groups, root=""):
    """Train and judge what is not in the table yet, a run on each core. root: of the photographs."""
    known = done()
    jobs = {job[1:3]: job for group in groups for job in configs(group, root)  # (each once)
            if (group, *job[:2]) not in known and (root or job[3].data == "faces")}
    kinds = {(job[3].data, job[3].attr, job[3].size): job[3] for job in jobs.values()}
    for config in kinds.values():  # the judges, before all ask for them
        judges_of(config)
        if config.data == "celeba-hq":
            neutral_judge(config)
    os.environ["OMP_NUM_THREADS"] = "1"  # two threads each would fight for the cores
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
        for n, future in enumerate(as_completed([pool.submit(work, job) for job in jobs.values()]), 1):
            found, history = future.result()
            keep(found, history)
            print(f"{n}/{len(jobs)}  {found['seed']}  {found['options'] or 'the default'}  {found['remark']}",
                  flush=True)


# ------------------------------------------------------------------------------------------------------------
# Why one half: fresh rankers on a frozen generator

LAMS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)
HEADS = {"pair": "pair head", "score": "score head"}


def fit_rho(lams, levels):
    """The rho with which levels[0] / (1 + lambda rho) fits best in the least squares. lams[0]: 0."""
    candidates = np.geomspace(0.01, 1000, 5001)
    return min(candidates, key=lambda rho: ((levels[0] / (1 + lams * rho) - levels) ** 2).sum())


def fresh(stream, G, rng, lam, head, size=64, steps=600):
    """Train a new R against a G that stands still, by Eq. 5a alone, and return it."""
    torch.manual_seed(0)
    R = trip.Ranker(1, 32, size, head).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(R.parameters(), betas=(0.5, 0.999))
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 1.2e-3 * min(1, (steps - step) / (0.8 * steps))
        x, y, r = next(stream)
        v = 2 * torch.rand(len(x), 1, generator=rng) - 1
        with torch.no_grad():
            fake = G(x, v)
        fx, fy, ff = R.features(torch.cat([x, y, fake])).chunk(3)
        loss = trip.ranker_rank_loss(R.rank(fx, fy), r, R.rank(fx, ff), lam)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return R.eval()


def theory():
    """By lambda, what fresh rankers with each head say of the default's generated pairs and of real ones."""
    _, seed, options, _ = next(configs("claim"))
    G, _, config = trip.load(run_folder(options, seed))
    train, test = parts_of(config)
    x, labels = ev.evaluation_batch(test, "cpu", 500)
    v = ev.swap_strength(labels)
    fake = ev.in_parts(G, x, v)
    no, yes = x[~labels[:, 0]], x[labels[:, 0]]
    rows = []
    for head in HEADS:
        for lam in LAMS:
            rng = torch.Generator().manual_seed(0)
            R = fresh(data.pairs(train, config.batch, rng), G, rng, lam, head)
            more, less = ev.in_parts(R, no, yes), ev.in_parts(R, yes, no)
            rows.append({"head": head, "lam": lam, "level": (ev.in_parts(R, x, fake) * v).mean().item(),
                         "real": (more - less).mean().item() / 2})
            print(rows[-1], flush=True)
    append(THEORY, list(rows[0]), rows)


# ------------------------------------------------------------------------------------------------------------
# Figures

def fig_claim(curves):
    """Means of R on held-out real and generated pairs over training: mean and range of the seeds."""
    figure, axes = ev.canvas()
    rows = [row for row in curves if row["group"] == "claim"]
    steps, seeds = sorted({row["step"] for row in rows}), sorted({row["seed"] for row in rows})
    for kind, label, style, target in (("real", "real, r", "--", 1), ("gen", "generated, v", "-", 0.5)):
        for name, value in (("plus", "+1"), ("zero", "0"), ("minus", "-1")):
            of = {(row["step"], row["seed"]): row[f"{kind}_{name}"] for row in rows}
            means, colour = np.array([[of[step, seed] for seed in seeds] for step in steps]), ev.COLOURS[name]
            axes.plot(steps, means.mean(1), style, color=colour, label=f"{label} = {value}")
            axes.fill_between(steps, means.min(1), means.max(1), color=colour, alpha=0.2, lw=0)
        ev.dotted(axes, -target, target)
    axes.set(xlabel="iteration", ylabel="mean of R, held-out pairs", ylim=(-1.7, 1.3),
             title=f"smile, 64 px: mean and range of {len(seeds)} seeds")
    axes.legend(fontsize=8, ncols=2, loc="lower right")
    return figure


def half_apart(row, kind):
    """How far from 0 R stands on pairs of a kind: half of +1 minus -1."""
    return (row[f"{kind}_plus"] - row[f"{kind}_minus"]) / 2


def fig_balance(rows, curves, theory):
    """The level of generated pairs: fresh rankers and predictions; against lambda in training; over time."""
    figure, (fresh_ones, by_lam, over_time) = ev.canvas(3, 3.8, 12, width_ratios=(1, 1, 1.4))
    for (head, label), style in zip(HEADS.items(), "os"):
        of = [row for row in theory if row["head"] == head]
        lams, levels = (np.array([row[name] for row in of]) for name in ("lam", "level"))
        dots, = fresh_ones.plot(lams, levels, style, label=label)
        grid = np.linspace(0, lams.max(), 200)
        fitted = levels[0] / (1 + grid * fit_rho(lams, levels))
        fresh_ones.plot(grid, fitted, "-", lw=1, color=dots.get_color())
    fresh_ones.set(xlabel="lambda", ylabel="|R(x, G(x, v))|, v = +-1", title="a frozen G")
    of = [row for row in of_group(rows, "lambda") if row["gen_plus"] != ""]  # (no run that diverged)
    for kind, fill, label in (("gen", None, "generated"), ("real", "none", "real")):
        by_lam.plot([float(row["variant"]) for row in of], [half_apart(row, kind) for row in of], "o",
                    mfc=fill, color=ev.COLOURS["plus"], label=label)
    by_lam.set(xlabel="lambda", title="trained together")
    for variant, colour in zip(GROUPS["time"], ev.PALETTE):
        line = [row for row in curves if (row["group"], row["variant"]) == ("time", variant)]
        for kind, style, label in (("real", ":", "real"), ("gen", "-", "generated")):
            over_time.plot([row["step"] for row in line], [half_apart(row, kind) for row in line], style,
                           color=colour, lw=1.2, label=f"{variant}: {label}")
    over_time.set(xlabel="iteration", title="the default, 64 px", xscale="log")
    for axes in (fresh_ones, by_lam, over_time):
        axes.axhline(0.5, color="black", lw=0.5)
        axes.set(ylim=(0, 1.05))
        axes.legend(fontsize=7)
    return figure


STRIP = (-1.0, -0.5, 0.5, 1.0)  # v, in figures of many


def swept(folder, x):
    """Each picture of x (N, 3, H, W) and, after it, what a run makes of it: (N, 5, 3, H, W)."""
    return torch.cat([x[:, None], ev.translate(rivals.restore(folder).G, x, STRIP)], 1)


def fig_swept(rows):
    """Fig. 5, 9. rows: (n, m, 3, H, W), each row pictures as `swept` gives them, one after the other."""
    names = ["input", *(f"{u:+.1f}" for u in STRIP)] * (rows.shape[1] // (1 + len(STRIP)))
    return ev.strips(rows[:, 0], rows[:, 1:], names[1:], "v =")


def fig_variants(group, root=""):
    """Two held-out pictures, without the attribute and with it, swept by every variant's first run.

    None where a run is missing, or the photographs are.
    """
    jobs = [job for job in configs(group, root) if job[1] == 0]
    config = jobs[0][3]
    if not all(is_there(options, 0) for _, _, options, _ in jobs) or not (root or config.data == "faces"):
        return None
    _, test = data.load(config.data, ("smile",), config.size, config.root)
    two = [int(torch.where(test.labels[:, 0] == has)[0][0]) for has in (False, True)]
    x = data.as_float(test.images[two])
    rows = torch.stack([swept(run_folder(options, 0), x).flatten(0, 1) for _, _, options, _ in jobs])
    figure = fig_swept(rows)
    figure.axes[0].set_yticks([x.shape[2] * (i + 0.5) for i in range(len(jobs))], [job[0] for job in jobs])
    figure.set_figwidth(figure.get_figwidth() + 2)  # (for the names)
    return figure


BARS = {  # title -> what is below a bar -> group and variant
    "CelebA-HQ, smile": {
        "TRIP": ("photo_rivals", "TRIP"), "FN": ("photo_rivals", "fn"), "RankCGAN": ("photo_rivals", "rcgan"),
        "RelGAN": ("photo_rivals", "relgan"),
        "RelGAN, long, 32 px": ("rivals_long", "photographs, relgan --mask")},
    "LFWA": {"TRIP, smile": ("photo_lfwa", "smile"), "FN, smile": ("photo_lfwa", "fn"),
             "RankCGAN, smile": ("photo_lfwa", "rcgan"), "TRIP, frown": ("photo_lfwa", "frown")}}


def fig_bars(rows):
    """Fig. 12: AAS by method, mean of the seeds; dotted: 95, which in the paper most pass, but not FN."""
    figure, both = ev.canvas(2, 2.6, 9, sharey=True)
    for axes, (title, of) in zip(both, BARS.items()):
        means = [np.mean([row["aas"] for row in rows if (row["group"], row["variant"]) == its])
                 for its in of.values()]
        bars = axes.bar([fill(name, 12) for name in of], means, color=ev.PALETTE[5])
        axes.bar_label(bars, fmt="%.1f", label_type="center")
        ev.dotted(axes, 95)
        axes.set(title=title, ylim=(0, 105))
        axes.tick_params(axis="x", labelsize=8)
    both[0].set_ylabel("AAS, %")
    return figure


def fig_rows(rows, names, v=()):
    """Pictures in rows that have names, a column above its v, if given. rows: (m, n, 3, H, W); v: (n, 1)."""
    m, n, _, h, w = rows.shape
    figure, axes = ev.canvas(1, m * h / 100, n * w / 100 + 0.7)
    axes.imshow((ev.tiled(rows).clip(-1, 1) + 1) / 2)
    axes.set_yticks([h * (i + 0.5) for i in range(m)], names)
    axes.set_xticks([w * (i + 0.5) for i in range(len(v))], [f"v = {float(u):+.0f}" for u in v])
    axes.tick_params(length=0)
    return figure


def fig_zeros(n=8):
    """Mouths of the first n held-out faces at four times their size: x; truly redrawn with the other end's
    strength; swapped, with a rival and without, each above how far it is off the true redraw (grey: nowhere).
    """
    made = [options_of("ablation")[name] for name in ("default", "lambda = 0")]
    if not all(is_there(options, 0) for options in made):
        return None
    runs = [trip.restore(run_folder(options, 0)) for options in made]
    _, test = parts_of(runs[0].config)
    x, v = data.as_float(test.images[:n]), ev.swap_strength(test.labels[:n])
    true = data.as_float(data.redraw(test[:n], 0.5 + 0.35 * v))  # (the default's range is about 0.7)
    rows, names = [x, true], ["x", "truly redrawn"]
    for run in runs:
        made = ev.in_parts(run.G.eval(), x, v)
        rows += [made, made - true]
        names += [f"swapped, lambda = {run.config.lam:g}", "minus the true redraw"]
    mouths = torch.stack(rows)[..., 30:62, 12:52].repeat_interleave(4, -1).repeat_interleave(4, -2)
    return fig_rows(mouths, names, v)


def held_out(root, large, n):
    """The first n photographs, by number, that no run on `root` has trained on, and that are in `large`, too.

    root, large: folders of CelebA-HQ, the second one's pictures larger. Returns float (n, 3, H, W), and who
    has which of PHOTOS, bool (n, 5).
    """
    table, small = (data.find(root, name) for name in ("CelebAMask-HQ-attribute-anno.txt", "CelebA-HQ-img"))
    files, labels = data.table(table, small, PHOTOS)
    folder, is_test = data.find(large, "CelebA-HQ-img"), data.test_mask(range(len(files)), 0)
    known = [(folder / file.name, its) for file, its, held in zip(files, labels, is_test) if held]
    paths, has = zip(*[(path, its) for path, its in known if path.is_file()][:n])
    side = data.open_picture(paths[0]).width
    x = data.as_float(torch.stack([data.read_picture(path, side) for path in paths]))
    return x, torch.from_numpy(np.array(has))


def draw_photographs(root, large):
    """The figures and the page of the stored model: the first pictures held out, all, at their own size."""
    options = options_of("photos")["smile"]
    if root and large and is_there(options, 0):
        folder = run_folder(options, 0)
        run, (x, has) = trip.restore(folder), held_out(root, large, 16)
        for name, n in (("photos_smile.jpg", 6), ("photos_first.jpg", 16)):
            ev.put(FIGURES / name, fig_swept(swept(folder, x[:n])))
        ev.put_movie(FIGURES / "photos.gif", ev.moving_picture(run.G, x[:3], run.config.attr, side=152))
        ev.put(HERE / "pretrained" / "smile" / "dial.html", ev.dial_page(run, x[:6]))
        ev.put(FIGURES / "photos_ranker.png", (folder / "ranker.png").read_bytes())
        zero = options_of("photo_ablation")["lambda = 0"]
        if is_there(zero, 0):  # the same faces, with and without the rival
            runs, v = [run, trip.restore(run_folder(zero, 0))], ev.swap_strength(has[:8, :1])
            names = ["x", *(f"lambda = {its.config.lam:g}" for its in runs)]
            rows = [x[:8], *(ev.in_parts(its.G.eval(), x[:8], v) for its in runs)]
            h, w = x.shape[2] // 8, x.shape[3] // 8
            faces = torch.stack(rows)[..., 3 * h:7 * h, 2 * w:6 * w]
            ev.put(FIGURES / "photos_zeros.jpg", fig_rows(faces, names, v))
        others = [options_of("photos")[name] for name in PHOTOS[1:]]
        if all(is_there(its, 0) for its in others):
            v, rows = ev.swap_strength(has[:8]), [x[:8]]
            rows += [ev.in_parts(trip.load(run_folder(its, 0))[0], x[:8], v[:, [k]])
                     for k, its in enumerate(others, 1)]
            faces = F.interpolate(torch.cat(rows), size=128, mode="area").unflatten(0, (len(rows), -1))
            ev.put(FIGURES / "photos_others.jpg", fig_rows(faces, ["x", *PHOTOS[1:]]))


def jpeg(folder, *rows):
    """Rows of picture files as one JPEG, bytes: rows as wide as the first; in a row all alike in height."""
    rows = [Image.fromarray(np.hstack([np.array(Image.open(folder / name).convert("RGB")) for name in row]))
            for row in rows]
    rows = [np.array(ImageOps.scale(row, rows[0].width / row.width)) for row in rows]
    Image.fromarray(np.vstack(rows)).save(file := io.BytesIO(), "JPEG", quality=90)
    return file.getvalue()


# ------------------------------------------------------------------------------------------------------------
# Tables

LABELS = {"pair_accuracy": ("pair accuracy", ".3f"), "real_plus": ("real +1", ".2f"),
          "gen_plus": ("generated +1", ".2f"), "gen_minus": ("generated -1", ".2f"),
          "gen_plus_std": ("std at +1", ".2f"), "gen_minus_std": ("std at -1", ".2f"),
          "aas": ("AAS, %", ".1f"), "aas_judge": ("its judge, %", ".1f"), "ssim_score": ("SSIM score", ".4f"),
          "frechet_resnet18": ("Frechet distance", ".1f"), "ranker_pearson": ("Pearson", ".2f"),
          "recon_l1": ("L1 at v = 0", ".3f"), "outside_l1": ("L1 outside", ".3f"),
          "identity": ("identity", ".2f"),
          "true_spearman": ("true rank correlation", ".2f"), "true_linearity": ("linearity", ".2f"),
          "true_range": ("true range", ".2f"), "leakage": ("leakage", ".3f")}
TRUTH = "true_spearman true_range leakage"
OF_TABLE2 = "aas ssim_score frechet_resnet18"
# what the paper has, Tables 1 and 2
SSIM = "paper: SSIM score", {"smile": ".0030", "male": ".0077", "mouth_open": ".0017", "cheekbones": ".0028"}
FID = "paper: SSIM, FID", {"TRIP": ".0030, 10.19", "fn": ".0122, 41.48", "rcgan": ".0084, 398.05",
                           "relgan": ".0512, 10.92"}
LFWA = FID[0], {"smile": ".0001, 22.25", "frown": ".0005, 23.65", "fn": ".0065, 12.58",
                "rcgan": ".0079, 425.59"}
AAS = "paper: AAS, SSIM, FID", {  # (our default has no L_gan)
    "default": "98.47, .0058, 78.08", "with L_gan": "97.69, .0030, 10.19", "no L_rank": "9.73, .0000151, 29",
    "lambda = 0": "55.7, .0011, 8.55", "CLS": "92.37, .0163, 11.33"}
AAS_PHOTO = AAS[0], AAS[1] | {"default": AAS[1]["with L_gan"], "no L_gan": AAS[1]["default"]}
OF_PHOTOS = ("pair_accuracy real_plus gen_plus gen_minus gen_plus_std gen_minus_std "
             "aas aas_judge ssim_score ranker_pearson recon_l1 outside_l1 identity")
# group -> columns, and what the paper has; its table stands on a page under its name
TABLES = {"ablation": (f"real_plus gen_plus {OF_TABLE2} true_linearity {TRUTH} outside_l1", *AAS),
          "photo_ablation": (f"{OF_TABLE2} real_plus gen_plus gen_minus outside_l1 identity", *AAS_PHOTO),
          "photos": (OF_PHOTOS, *SSIM),
          "photo_lfwa": (f"pair_accuracy real_plus gen_plus gen_minus aas_judge {OF_TABLE2} recon_l1", *LFWA),
          **dict.fromkeys(("rivals", "photo_rivals"),
                          (f"{OF_TABLE2} recon_l1 outside_l1 identity {TRUTH}", *FID))}
# column -> form, what the default run is to reach, what the paper has
AIMS = {"pair_accuracy": (".3f", ">= 0.995", ""), "real_plus": (".2f", ">= 0.85", "1"),
        "real_minus": (".2f", "<= -0.85", "-1"), "gen_plus": (".2f", "0.45 .. 0.55", ".5"),
        "gen_minus": (".2f", "-0.55 .. -0.45", "-.5"),
        "gen_plus_std": (".3f", "<= 0.159", ".159"), "gen_minus_std": (".3f", "<= 0.157", ".157"),
        "outside_l1": (".4f", "<= 0.0045", ""),
        "ssim_score": (".4f", "<= 0.006", ".0030"), "aas": (".1f", ">= 98.5", "97.69"),
        "crossed": (".3f", ">= 0.99", ""), "true_spearman_asked": (".3f", ">= 0.99", ""),
        "true_spearman": (".2f", ">= 0.90", ""), "true_linearity": (".3f", ">= 0.99", ""),
        "true_range": (".2f", ">= 0.68", ""), "leakage": (".3f", "<= 1.9 x 0.028, its judge's", "")}


def markdown(header, rows):
    return "\n".join(["| " + " | ".join(line) + " |" for line in (header, ["---"] * len(header), *rows)])


def cell(values, form):
    """Mean and, of several seeds, the range: `0.51 (0.48 .. 0.55)`."""
    low, mean, high = (format(u, form) for u in (min(values), np.mean(values), max(values)))
    return mean if low == high else f"{mean} ({low} .. {high})"


def compared(rows, columns, title="", paper={}):
    """A row for each variant; columns that no run has are left out, and the paper's numbers come last."""
    columns = [name for name in columns.split() if any(row[name] != "" for row in rows)]
    lines = []
    for variant in variants(rows):
        of = {name: [row[name] for row in rows if row["variant"] == variant and row[name] != ""]
              for name in columns}
        cells = [cell(values, LABELS[name][1]) if values else "" for name, values in of.items()]
        lines.append([variant, *cells, *[paper.get(variant, "")] * bool(paper)])
    return markdown(["", *(LABELS[name][0] for name in columns), *[title] * bool(paper)], lines)


def top_table(rows, photographs):
    """The first page's: means of all seeds, of drawn faces and of photographs, beside the paper's numbers."""
    def line(title, paper, form, *names):
        cells = []
        for some in (rows, photographs):
            values = [[row[name] for row in some if row[name] != ""] for name in names]
            cells.append(" / ".join(format(np.mean(u), form) if u else "not measured" for u in values))
        return [title, *cells, paper]

    return markdown(["", f"drawn faces, 64 px, {len(rows)} seeds",
                     f"photographs, 64 px, {len(photographs)} seed{'s' * (len(photographs) > 1)}",
                     "the paper: photographs, 256 px"], [
        line("R of real pairs, r = +1 / -1", "+1 / -1", "+.2f", "real_plus", "real_minus"),
        line("R of generated pairs, v = +1 / -1", "+0.5 / -0.5", "+.2f", "gen_plus", "gen_minus"),
        line("AAS, %", "97.69", ".1f", "aas"),
        line("SSIM score, Eq. 8 (evenness; 0 is best)", ".0030", ".4f", "ssim_score"),
        line("correlation of R with v", "not given", ".2f", "ranker_pearson"),
        line("rank correlation of v with the true strength", "cannot be known", ".2f", "true_spearman")])


HELD, PART, FAILS, NO = "holds", "in part", "fails", "cannot be measured here"
OWN = ("R {real_plus:+.2f}, {gen_plus:+.2f}; AAS {aas:.1f}", "+1, +.5; 97.69",
       lambda m: HELD if m["real_plus"] > 0.8 else FAILS)
NEARLY = ("R {real_plus:+.2f}, {gen_plus:+.2f}, {gen_minus:+.2f}; AAS {aas:.1f}", "+1, +.5, -.5; 97.69",
          lambda m: HELD if m["aas"] > 97 and m["real_plus"] > 0.9 else PART if m["aas"] > 90 else FAILS)
# what the paper says; group and variant; what they say here, {column}: the mean over seeds; the paper's
# number; and whether it holds, a function of the means
PAPER_SAYS = [
    ("Sec. 4.1, Fig. 1, 5: series that are even in v; SSIM score", "claim", "default", "{ssim_score:.4f}",
     ".0030", lambda m: HELD if m["ssim_score"] < 0.0045 else PART),
    ("the same, photographs", "photo_seeds", "smile", "{ssim_score:.4f}", ".0030",
     lambda m: HELD if m["ssim_score"] < 0.0045 else PART),
    ("Fig. 13-15: the same, male", "photos", "male", "{ssim_score:.4f}", ".0077",
     lambda m: HELD if m["ssim_score"] < 0.0116 else PART),
    ("Sec. 4.2, 4.3, Fig. 6, 7: R of generated pairs rises with v, and varies little", "claim", "default",
     "correlation {ranker_pearson:.2f}; std at v = -1, 1: {gen_minus_std:.2f}, {gen_plus_std:.2f}",
     "std .157, .159", lambda m: HELD if m["ranker_pearson"] > 0.9 and m["gen_minus_std"] < 0.18 else PART),
    ("Fig. 7, 12: Fader Networks swap fewer than TRIP", "photo_rivals", "fn", "AAS {aas:.1f}",
     "< 85", lambda m: HELD if m["aas"] < 95 else FAILS),
    ("RankCGAN draws somebody else", "photo_rivals", "rcgan", "L1 of G(x, 0) to x: {recon_l1:.2f}", "seen",
     lambda m: HELD if m["recon_l1"] > 0.2 else FAILS),
    ("RelGAN swaps, but unevenly (32 px)", "rivals_long", "photographs, relgan --mask",
     "AAS {aas:.1f}, SSIM score {ssim_score:.4f}", "> 95, .0512",
     lambda m: HELD if m["aas"] > 95 and m["ssim_score"] > 0.02 else PART),
    ("Sec. 4.4, Fig. 8: two dials at once", "two_dials", "smile, mouth_open", "AAS {aas:.1f}, mean of both",
     "seen", lambda m: HELD if m["aas"] > 95 else FAILS),
    ("the same, photographs", "photos", "smile, male", "AAS {aas:.1f}, mean of both",
     "seen", lambda m: HELD if m["aas"] > 95 else FAILS),
    ("Fig. 11: real pairs end at +-1", "claim", "default", "{real_plus:+.2f}, {real_minus:+.2f}", "+1, -1",
     lambda m: HELD if m["real_plus"] > 0.9 else PART),
    ("Fig. 11: generated pairs end at +-1/2", "claim", "default", "{gen_plus:+.2f}, {gen_minus:+.2f}",
     "+.5, -.5", lambda m: HELD if max(abs(m["gen_plus"] - 0.5), abs(m["gen_minus"] + 0.5)) < 0.05 else PART),
    ("the same, photographs", "photo_seeds", "smile", "real {real_plus:+.2f}, {real_minus:+.2f}; generated "
     "{gen_plus:+.2f}, {gen_minus:+.2f}", "+1, -1; +.5, -.5",
     lambda m: HELD if m["real_plus"] > 0.9 else PART),
    ("Table 2, Fig. 9: TRIP swaps; AAS", "ablation", "with L_gan", "{aas:.1f}", "97.69",
     lambda m: HELD if m["aas"] > 97 else FAILS),
    ("Table 2: lambda = 0 loses the edit", "ablation", "lambda = 0", "{aas:.1f}", "55.7",
     lambda m: HELD if m["aas"] < 80 else PART if m["aas"] < 95 else FAILS),
    ("the same, photographs", "photo_rivals", "lambda = 0", "{aas:.1f}", "55.7",
     lambda m: HELD if m["aas"] < 80 else FAILS),
    ("Table 2: without L_rank no edit", "ablation", "no L_rank", "{aas:.1f}", "9.73",
     lambda m: HELD if m["aas"] < 20 else FAILS),
    ("Table 2: without L_gan worse pictures", "ablation", "default",
     "Frechet distance {frechet_resnet18:.1f}", "FID 78.08, TRIP's 10.19",
     lambda m: HELD if m["frechet_resnet18"] > 20 else FAILS),
    ("the same, photographs", "photo_ablation", "no L_gan", "Frechet distance {frechet_resnet18:.1f}",
     "FID 78.08, TRIP's 10.19", lambda m: HELD if m["frechet_resnet18"] > 20 else FAILS),
    ("Table 2: CLS is uneven; AAS, SSIM score", "ablation", "CLS", "{aas:.1f}, {ssim_score:.4f}",
     "92.37, .0163", lambda m: HELD if m["ssim_score"] > 0.012 else FAILS),
    ("the same, photographs", "photo_ablation", "CLS", "{aas:.1f}, {ssim_score:.4f}",
     "92.37, .0163", lambda m: HELD if m["ssim_score"] > 0.012 else FAILS),
    ("Fig. 12, Table 1: LFWA, smile; AAS, SSIM score", "photo_lfwa", "smile", "{aas:.1f}, {ssim_score:.4f}",
     "> 95, .0001", lambda m: HELD if m["ssim_score"] < 0.0005 else PART),
    ("the same, frown", "photo_lfwa", "frown", "{aas:.1f}, {ssim_score:.4f}",
     "> 95, .0005", lambda m: HELD if m["ssim_score"] < 0.0008 else PART),
    ("the same, smile, by Fader Networks: fewer", "photo_lfwa", "fn", "AAS {aas:.1f}", "< 85",
     lambda m: HELD if m["aas"] < 95 else FAILS),
    ("the same, smile, by RankCGAN", "photo_lfwa", "rcgan", "{aas:.1f}, {ssim_score:.4f}",
     "> 95, .0079", lambda m: HELD if m["aas"] > 95 and m["ssim_score"] > 0.004 else PART),
    ("Fig. 16: shoes to edges", "photo_shoes", "warps, adds paint",
     "R {gen_plus:+.2f}, {gen_minus:+.2f}; SSIM score {ssim_score:.3f}", "seen",
     lambda m: FAILS if m["gen_plus"] < 0.3 else HELD if m["ssim_score"] < 0.02 else PART),
    ("Sec. 4's settings, to their end", "paper", "photographs", *OWN),
    ("the same, drawn faces", "paper", "drawn faces", *OWN),
    ("the same, with higher rates that fall, and a weak penalty", "paper_nearest", "falling rates", *NEARLY),
    ("the same, drawn faces", "paper_nearest", "drawn faces", *NEARLY),
    ("Tables 3, 4: the networks, layer by layer", "", "", "`tests/test_trip.py`", "", lambda m: "tested"),
    ("Fig. 10: the losses of both players", "", "", "`fig10_losses.png` of each run", "", lambda m: "drawn"),
    ("Table 1: FID of 30,000 pictures at 256 px", "", "", "needs a GPU", "10.19 (smile)", lambda m: NO)]


def paper_table(rows):
    """The paper, experiment by experiment: what it says, the command, our means, what becomes of it."""
    lines = []
    for says, group, variant, form, paper, judged in PAPER_SAYS:
        of = [row for row in rows if (row["group"], row["variant"]) == (group, variant)]
        means = {name: np.mean([row[name] for row in of if row[name] != ""] or np.nan)
                 for name in re.findall(r"{(\w+)", form)}
        there = of and not np.isnan(list(means.values())).any() or not group
        lines.append([says, f"`study.py {group}`" * bool(group), form.format(**means) if there else "not run",
                      paper, judged(means) if there else "open"])
    return markdown(["the paper", "command", "here", "the paper's number", ""], lines)


def claim_table(rows):
    lines = []
    for name, (form, aim, paper) in AIMS.items():
        values = [row[name] for row in rows]
        numbers = *values, np.mean(values), np.ptp(values)
        lines.append([name, *(format(u, form) for u in numbers), aim, paper])
    seeds = [f"seed {row['seed']:.0f}" for row in rows]
    return markdown(["", *seeds, "mean", "max - min", "aim", "the paper"], lines)


def theory_table(rows):
    lines = []
    for head, label in HEADS.items():
        of = [row for row in rows if row["head"] == head]
        lams, levels = (np.array([row[name] for row in of]) for name in ("lam", "level"))
        about = f"{label}: generated pairs (rho {fit_rho(lams, levels):.1f})"
        lines += [[about, *(f"{u:.2f}" for u in levels)],
                  ["its real pairs", *(f"{row['real']:.2f}" for row in of)]]
    return markdown(["lambda", *(f"{lam:g}" for lam in LAMS)], lines)


def tables(rows):
    """mark -> a table in Markdown, of the groups that have results of every variant."""
    whole = {group: of_group(rows, group) for group in GROUPS}
    whole = {group: of for group, of in whole.items() if len(variants(of)) == len(GROUPS[group])}
    made = {group: compared(whole[group], *TABLES[group]) for group in TABLES if group in whole}
    if "claim" in whole:
        made |= {"top": top_table(whole["claim"], whole.get("photo_seeds", [])),
                 "claim": claim_table(whole["claim"])}
    made["paper"] = paper_table(rows)
    if THEORY.is_file():
        made["theory"] = theory_table(read_table(THEORY))
    return made


def filled(text, made):
    """The text with each table of `made` between its marks, <!-- study: NAME --> and <!-- end -->."""
    for name, table in made.items():
        text = re.sub(f"(<!-- study: {name} -->\n).*?(<!-- end -->)",
                      lambda found: f"{found[1]}\n{table}\n\n{found[2]}", text, flags=re.S)
    return text


# ------------------------------------------------------------------------------------------------------------
# The command line

def draw(root="", large=""):
    """The figures that can be drawn here, and the tables of PAGES. root, large: see `held_out`."""
    rows, curves = read_table(RESULTS), read_table(CURVES)
    made = tables(rows)
    figures = {"study_claim.png": "claim" in made and fig_claim(curves),
               "study_balance.png": "theory" in made and fig_balance(rows, curves, read_table(THEORY)),
               "study_ablation.png": fig_variants("ablation"), "study_zeros.png": fig_zeros(),
               "study_rivals.png": fig_variants("rivals"),
               "study_bars.png": {"photo_rivals", "photo_lfwa"} <= made.keys() and fig_bars(rows),
               "photos_rivals.jpg": fig_variants("photo_rivals", root)}
    draw_photographs(root, large)
    two = options_of("two_dials")["smile, mouth_open"]
    if is_there(two, 0):
        run = trip.restore(run_folder(two, 0))
        _, test = parts_of(run.config)
        strengths = ev.strength_judge(run.config.size, "cpu", data.teller(), JUDGES)
        page = ev.dial_page(run, data.as_float(test.images[:6]), strengths)
        ev.put(FIGURES / "two_dials.html", page)
        figures["grid.png"] = ev.fig_grid(run, test)
    for name, figure in figures.items():
        if figure:
            ev.put(FIGURES / name, figure)
    for name in ("samples.png", "ranker.png", "dial.gif"):
        if is_there("", 0):
            ev.put(FIGURES / name, (run_folder("", 0) / name).read_bytes())
    for name, group, variant, *more in (
            ("photos_lfwa.jpg", "photo_lfwa", "smile"),
            ("photos_paper.jpg", "paper_nearest", "falling rates"),
            ("photos_relgan.jpg", "rivals_long", "photographs, relgan --mask"),
            ("photos_shoes.jpg", "photo_shoes", "warps, adds paint"),
            ("photos_own.jpg", "paper", "photographs",
             ["fig7_ranker.png", "fig10_losses.png"], ["ranker.png"])):  # Fig. 5, 7, 10, 11
        options = options_of(group)[variant]
        if is_there(options, 0):
            ev.put(FIGURES / name, jpeg(run_folder(options, 0), ["samples.png"], *more))
    for page in PAGES:
        ev.put(page, filled(page.read_text(encoding="utf-8"), made))


@trip.program("study/study.py")
def main(argv):
    known = [*GROUPS, "theory"]
    parser = trip.parser("study/study.py", "Make the runs of the study, its figures and its tables.")
    add = parser.add_argument
    add("groups", nargs="*", metavar="GROUP", help=f"some of {', '.join(known)} (default: all)")
    add("--root", default="", help="the folder of CelebA-HQ, for photographs; of LFWA, of edges2shoes")
    add("--large", default="", help="a folder of CelebA-HQ with larger pictures, to draw the edited ones")
    add("--draw", action="store_true", help="train nothing: draw what is there")
    args = parser.parse_args(argv)
    for group in args.groups:
        if group not in known:
            raise data.InputError(f"unknown group {group!r}: one of {', '.join(known)}")
    asked = args.groups or [group for group in known if group not in OF_OTHER_DATA]
    groups = [group for group in asked if group in GROUPS]
    photographs = any(group.startswith("photo") for group in args.groups) and not args.draw
    if (args.root or photographs) and not (args.root and Path(args.root).is_dir()):
        raise data.InputError(f"photographs need --root DIR, the folder of CelebA-HQ, not '{args.root}'")
    if not args.draw:
        if not args.root:
            print("photographs are left out: --root DIR says where CelebA-HQ is", flush=True)
        run_all(groups, args.root)
        if "theory" in asked and not THEORY.is_file():
            theory()
    draw(args.root, args.large)
    return 0


if __name__ == "__main__":
    sys.exit(main())
