"""The evidence: does TRIP do what the paper says, when not, and which choices matter? On drawn faces, and photographs.

    python study/study.py                     everything on drawn faces, on all cores; it goes on where it stopped
    python study/study.py photos --root DIR   on photographs: DIR holds CelebA-HQ (trip.py --data celeba-hq)
    python study/study.py ablation lambda     some of the groups (below: GROUPS, and theory, after starts)
    python study/study.py claim --seeds 0     one run of a group
    python study/study.py rivals              the paper's rivals, see rivals.py; photo_rivals --root DIR
    python study/study.py --draw              no training: figures and tables of the results that are there

A run is a line of study.csv: what was changed against the default, the measurements of the training (last fifth
of the iterations) and of eval.py (1,000 held-out faces, 500 at 32 px; final weights); of two attributes their
mean; of photographs the first 1,000 held out. study_curves.csv has the means of R over the iterations of some
groups (CURVED). To do a run anew, delete its lines in all tables. The runs themselves are kept in runs/study,
their judges in runs/judges. What two rankers say of the rivals stands in study_rivals.csv. `theory` trains fresh
rankers on the generator of a run of `starts` and writes study_theory.csv; `neutral --root DIR` asks networks that
no run knows about the photographs that are there, and writes study_neutral.csv. Figures go to study/figures,
tables to README.md and study/README.md.
"""

import csv
import os
import re
import shutil
import sys
import threading
import time
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT))

import data  # noqa: E402
import eval as ev  # noqa: E402
import rivals  # noqa: E402
import trip  # noqa: E402

RESULTS, CURVES, THEORY, JUDGED, NEUTRAL = (
    HERE / f"{name}.csv" for name in ("study", "study_curves", "study_theory", "study_rivals", "study_neutral"))
FIGURES = HERE / "figures"
PHOTOS = ("smile", "male", "mouth_open", "cheekbones", "eyeglasses")  # the paper's four; one more for the judge
RUNS, JUDGES = ROOT / "runs" / "study", ROOT / "runs" / "judges"
PAGES = ROOT / "README.md", HERE / "README.md"
METRICS = ev.METRICS
# 32 px and fewer iterations where many runs are compared
SMALL = dict(size=32, steps=900, measure_every=18, shift=1)
LONGER = (1, 4, 8)  # times the iterations
EXTRAS = ("theory", "neutral")  # beside GROUPS
TABLE4 = dict(table4=True)
PHOTO = trip.PRESETS["photo"] | dict(data="celeba-hq")

ABLATION = {"TRIP": {}, "no L_rank": dict(lam_rank=0.0), "no L_gan": dict(lam_g=0.0),
            "nor its penalty": dict(lam_g=0.0, lam_gp=0.0), "lambda = 0": dict(lam=0.0), "CLS": dict(cls=True)}


# the rivals, and the two runs whose rankers judge them: TRIP's own, and one that never heard of 0 for generated pairs
JUDGES_OF_RIVALS = {"TRIP": {}, "lambda = 0": dict(lam=0.0)}
RIVALS = {"fn": {}, "rcgan": {}, "two-critics": {}, "relgan": {}, "relgan --mask": dict(mask=True),
          "relgan --lam_int 0": dict(lam_int=0.0)}

# what may keep a ranker without a rival from being fooled, taken away one after the other
NO_SLOPE = dict(lam_slope=0.0)
NO_KEEP = NO_SLOPE | dict(lam_keep=0.0, lam_paint=0.0)
SHIELDS = {"all": {}, "no slope penalty": NO_SLOPE, "nor keep losses": NO_KEEP, "nor a shift": NO_KEEP | dict(shift=0),
           "Table 3, cycle loss": NO_KEEP | dict(shift=0, table3=True, lam_c=2.5)}


def longer(n, **change):
    """SMALL with n times the iterations, measured as often in all."""
    return SMALL | change | dict(steps=n * SMALL["steps"], measure_every=n * SMALL["measure_every"])


def unshielded(base, *names):
    """Variants of base without these shields, with a rival and without."""
    return {f"{name}{end}": base | SHIELDS[name] | more for name in names
            for end, more in (("", {}), (", lambda = 0", dict(lam=0.0)))}


# group -> seeds, and variant -> what it changes
GROUPS = {
    "claim": (range(5), {"default": {}}),
    "starts": (range(10), {"default": SMALL}),
    "trap": (range(3), {
        "default": SMALL,
        "no factor v": SMALL,  # (where nothing is changed: see PATCHES)
        "L1 cycle loss": SMALL | dict(lam_c=2.5)}),
    "time": (range(1), {f"{n} x": dict(steps=n * 1500, measure_every=n * 30) if n > 1 else {} for n in (1, 2, 4, 8)}),
    "person": (range(1), {f"{name}, {n} x": longer(n, **change) for n in LONGER
                          for name, change in (("score", {}), ("Table 4", TABLE4))}),
    "lambda": (range(1), {str(lam): SMALL | (dict(lam=lam) if lam != 1.2 else {})
                          for lam in (0.0, 0.15, 0.3, 0.6, 1.2, 2.4, 4.8)}),
    "ablation": (range(3), ABLATION),
    "ablation4": (range(1), {variant: SMALL | TABLE4 | change for variant, change in ABLATION.items()}),
    "rivalry": (range(3), unshielded(SMALL, *SHIELDS)),
    "rivalry64": (range(1), unshielded({}, "all", "no slope penalty", "nor a shift")),
    "photos": (range(1), {name: PHOTO | (dict(attr=(name,)) if name != "smile" else {}) for name in PHOTOS[:4]}),
    "photo_more": (range(1), {"eyeglasses": PHOTO | dict(attr=("eyeglasses",)),
                              "smile, male": PHOTO | dict(attr=("smile", "male"))}),
    "photo_seeds": (range(3), {"smile": PHOTO}),
    "photo_time": (range(1), {"1 x": PHOTO, "2 x": PHOTO | dict(steps=12000, measure_every=200)}),
    "photo_ablation": (range(2), {variant: PHOTO | change for variant, change in ABLATION.items()
                                  if variant != "nor its penalty"}),
    "rivals": (range(3), JUDGES_OF_RIVALS | {
        name: dict(rival=name.split()[0]) | change for name, change in RIVALS.items()}),
    "rivals_long": (range(1), {"TRIP": SMALL, **{
        name: dict(rival=name.split()[0], size=32, steps=steps, measure_every=steps // 10) | change
        for name, steps, change in (("fn", 8000, {}), ("rcgan", 12000, {}),
                                    ("relgan --mask", 6000, dict(mask=True, shift=1)))}}),
    "photo_rivals": (range(3), {name: PHOTO | change for name, change in JUDGES_OF_RIVALS.items()} | {
        name: dict(rival=name, data="celeba-hq") for name in ("fn", "rcgan", "relgan")}),
    "matters": (range(1), {
        "default": SMALL,
        "Table 3's generator": SMALL | dict(table3=True),
        "Table 4's head": SMALL | TABLE4,
        "paint as cheap as moves": SMALL | dict(lam_paint=0.0),
        "keep loss 0": SMALL | dict(lam_keep=0.0),
        "no slope penalty": SMALL | dict(lam_slope=0.0),
        "D's penalty 0": SMALL | dict(lam_gp=0.0),
        "no ties": SMALL | dict(ties=0.0),
        "no shift": SMALL | dict(shift=0)}),
}
# groups whose curves are kept
CURVED = ("claim", "starts", "trap", "time", "person", "ablation", "photos", "photo_time")


def configs(group, root=""):
    """The runs of a group: (variant, seed, options, Config), `options` as trip.py has them. root: of photographs."""
    seeds, variants = GROUPS[group]
    for seed in seeds:  # a whole round of variants before the next seed
        for variant, change in variants.items():
            options = " ".join(f"--{name}" if value is True else f"--{name} {data.show(value)}"
                               for name, value in change.items())
            options += f" and {variant}" * (variant in PATCHES)
            make = rivals.configured if "rival" in change else trip.Config
            yield variant, seed, options, make(**change, seed=seed, root=root if "data" in change else "")


def run_folder(options, seed):
    """Where the run is kept, the same one for all groups that have it."""
    name = re.sub(r"[^\w.=]+", "_", options).strip("_") or "default"
    return RUNS / f"{name}-{seed}"


class NoFactor(trip.Generator):
    """Moves x by flow(x, v) and adds paint(x, v), without the factor v."""

    def forward(self, x, v, parts=False):
        self.v = v
        return super().forward(x, torch.ones_like(v), parts)

    def changes(self, x, ones):
        return super().changes(x, self.v)


PATCHES = {"no factor v": NoFactor}  # what no option of trip.py does: variant -> the class of its G


def judges_of(config, metrics=None):
    """The judges of a run's data. Of photographs one ResNet-18 learns all of PHOTOS at once; its part for this run."""
    attrs = config.attr if config.data == "faces" else PHOTOS
    train_data, _ = data.load(config.data, attrs, config.size, config.root)
    judges = ev.call_judges(metrics or METRICS, train_data, "cpu", data.teller(), JUDGES)
    if config.data != "faces" and judges.classifier:
        last, mine = judges.classifier.fc, [PHOTOS.index(attr) for attr in config.attr]
        last.weight.data, last.bias.data = last.weight.data[mine], last.bias.data[mine]
    return judges


def upper_l1(run, test_data):
    """L1 of the sweep to x in the upper half of a photograph, where there is no mouth; one dial. Pixels in [-1, 1]."""
    return np.mean([(ev.translate(run.G, x, ev.SWEEP) - x[:, None])[..., :x.shape[2] // 2, :].abs().mean().item()
                    for x in data.as_float(test_data.images[:500]).split(50)])


def work(job):
    """Train and judge one run, in a process of its own. Returns its line of the table and its curves."""
    variant, seed, options, config = job
    torch.set_num_threads(1)
    train_data, test_data = data.load(config.data, config.attr, config.size, config.root)
    run = rivals.RIVALS[config.rival](config) if isinstance(config, rivals.Config) else trip.Run(config)
    if variant in PATCHES:
        run.G.__class__ = PATCHES[variant]
    try:
        for _ in ev.watch(run, train_data, test_data):
            pass
    except trip.Diverged as error:
        return {"options": options, "seed": seed, "remark": str(error)}, run.history
    out = run_folder(options, seed)
    out.mkdir(parents=True, exist_ok=True)
    trip.save(run, out)
    ev.report(run, out, test_data)
    row = {name: np.mean(u) if isinstance(u, list) else u for name, u in ev.summarise(run).items()}
    test_data = test_data[:1000 if config.size > 32 else 500]
    results = ev.assess(run, test_data, judges_of(config), METRICS, variant)
    if config.data != "faces" and len(config.attr) == 1:
        row["outside_l1"] = upper_l1(run, test_data)
    row |= {name: np.mean([result.scores[name] for result in results])
            for name in results[0].scores if name in COLUMNS}
    return {"options": options, "seed": seed, "remark": ""} | row, run.history


COLUMNS = ["group", "variant", "seed", "size", "steps", "options", "pair_accuracy", *ev.OUTPUTS,
           "gen_plus_std", "gen_zero_std", "gen_minus_std", "recon_l1", "aas", "aas_judge", "ssim_score",
           "frechet_resnet18", "fid", "ranker_pearson", "true_spearman", "true_linearity", "true_range",
           "crossed", "leakage", "leakage_judge", "outside_l1", "seconds", "remark"]


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


def results():
    """The lines of RESULTS in the order of GROUPS, variant by variant."""
    order = [(group, variant) for group, (_, variants) in GROUPS.items() for variant in variants]
    place = {key: i for i, key in enumerate(order)}
    return sorted(read_table(RESULTS),
                  key=lambda row: (place.get((row["group"], row["variant"]), len(place)), row["seed"]))


def append(path, columns, rows):
    with open(path, "a", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="", extrasaction="ignore", lineterminator="\n")
        if not file.tell():  # a new file
            writer.writeheader()
        writer.writerows({name: f"{u:.4g}" if isinstance(u, float) else u for name, u in row.items()}
                         for row in rows)


def keep(done, found, history):
    """Write a finished run to the tables: a line for each group that has it, and its curves."""
    for group in GROUPS:
        for variant, seed, options, config in configs(group):
            if (options, seed) == (found["options"], found["seed"]) and (group, variant, seed) not in done:
                line = {"group": group, "variant": variant, "size": config.size, "steps": config.steps}
                append(RESULTS, COLUMNS, [found | line])
                if group in CURVED:
                    columns = ["group", "variant", "seed", "step", *ev.OUTPUTS]
                    append(CURVES, columns, [line | {"seed": seed, "step": h["step"]}
                                             | {name: h[name][0] for name in ev.OUTPUTS} for h in history])
                done.add((group, variant, seed))


def leave_with(parent):
    """In a worker: end when the study has ended, however it did (else a killed study's workers go on)."""
    def watch():
        while os.getppid() == parent:
            time.sleep(2)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def run_all(groups, seeds=None, root=""):
    """Do what is not in the table yet, a run on each core; only those seeds, if they are named. root: of CelebA-HQ."""
    done = {(row["group"], row["variant"], int(row["seed"])) for row in read_table(RESULTS)}
    jobs, known = {}, {(row["options"], int(row["seed"])): row for row in read_table(RESULTS)}
    for group in groups:
        for variant, seed, options, config in configs(group, root):
            there = (run_folder(options, seed) / "trip.pt").is_file() or group not in ("rivals", "photo_rivals")
            if (options, seed) in known and there and group not in CURVED:
                keep(done, known[options, seed], [])  # another group's run; the rivals' judges ask for it itself
            wanted = (group, variant, seed) not in done and (seeds is None or seed in seeds)
            if wanted and (root or config.data == "faces"):
                jobs.setdefault((options, seed), (variant, seed, options, config))
    kinds = {(job[3].data, job[3].attr, job[3].size): job[3] for job in jobs.values()}
    for config in kinds.values():  # the judges, before all ask for them
        judges_of(config)
    os.environ["OMP_NUM_THREADS"] = "1"  # two threads each would fight for the cores
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn"), leave_with, (os.getpid(),)) as pool:
        for n, future in enumerate(as_completed([pool.submit(work, job) for job in jobs.values()]), 1):
            found, history = future.result()
            keep(done, found, history)
            print(f"{n}/{len(jobs)}  {found['seed']}  {found['options'] or 'the default'}  {found['remark']}",
                  flush=True)


def judged(job):
    """In a process of its own: what two rankers say of a run. Lines of JUDGED, one for each judge, coding and v.

    mean, std, within: of R(x, G(x, v)), see ev.curve; l1: mean |G(x, v) - x|. The coding of a change is "relative"; a
    dial that asks for a strength is read in both, see ev.own_scale.
    """
    group, variant, seed, options, config = job
    torch.set_num_threads(1)
    run = trip.restore(run_folder(options, seed))
    _, test = data.load(config.data, config.attr, config.size, config.root)
    test, lines = test[:1000], []
    has, absolute = test.labels[:, 0], getattr(run, "absolute", False)
    of = {name: options for name, its_seed, options, _ in configs(group) if its_seed == seed}
    for judge in JUDGES_OF_RIVALS:
        _, ranker, _ = trip.load(run_folder(of[judge], seed))
        readings = ev.read(run, 0, test, ev.Judges(first_ranker=ranker), ("ranker", "preservation"), lambda text: None)
        codings = {"absolute" if absolute else "relative": lambda u: u}
        if absolute:
            codings["relative"] = lambda u: ev.own_scale(u, has)
        for coding, coded in codings.items():
            curves = *ev.curve(coded(readings["R_first"]), has), ev.curve(coded(readings["change"]), has)[0]
            lines += [{"group": group, "variant": variant, "seed": seed, "judge": judge, "coding": coding}
                      | dict(zip(("v", "mean", "std", "within", "l1"), map(float, numbers)))
                      for numbers in zip(ev.V, *curves)]
    return lines


def judge_rivals(groups, seeds=None, root=""):
    """Write to JUDGED what is not there yet, of the runs that are there with both their judges."""
    done = {(row["group"], row["variant"], int(row["seed"])) for row in read_table(JUDGED)}
    jobs = []
    for group in {"rivals", "photo_rivals"} & set(groups):
        there = {(variant, seed) for variant, seed, options, _ in configs(group)
                 if (run_folder(options, seed) / "trip.pt").is_file()}
        jobs += [(group, variant, seed, options, config) for variant, seed, options, config in configs(group, root)
                 if (variant, seed) in there and all((judge, seed) in there for judge in JUDGES_OF_RIVALS)
                 and (group, variant, seed) not in done and (seeds is None or seed in seeds)
                 and (root or config.data == "faces")]
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn"), leave_with, (os.getpid(),)) as pool:
        for n, future in enumerate(as_completed([pool.submit(judged, job) for job in jobs]), 1):
            lines = future.result()
            append(JUDGED, list(lines[0]), lines)
            print(f"judged {n}/{len(jobs)}  {lines[0]['seed']}  {lines[0]['variant']}", flush=True)


def neutral(root):
    """Write to NEUTRAL what two networks say of photographs redrawn by the runs of one dial that are there.

    The judge of AAS ranks pairs by its logits: pair_accuracy is the share of pairs (x, swapped x) that it ranks as
    they were meant, aas the share that it finds swapped; of real pairs and pictures where variant is "real".
    identity: cosine of the features that a ResNet-18 trained on the other 35 attributes has of x and of swapped x;
    of x mirrored and of another x, where variant is "mirrored" and "another". Their mean picture's is taken off.
    """
    names = data.lines_of(data.find(root, "CelebAMask-HQ-attribute-anno.txt"))[1].split()
    judged = [names[i] for i in data.columns(PHOTOS, names, root)]
    train, test = data.load("celeba-hq", [name for name in names if name not in judged], 64, root)
    see = ev.resnet_features(ev.classifier(train, "cpu", data.teller(), JUDGES))
    x = data.as_float(test.images[:1000])
    mean = ev.in_parts(see, data.as_float(train.images[:2000])).mean(0)
    own = ev.in_parts(see, x) - mean

    def alike(pictures):
        return torch.cosine_similarity(own, ev.in_parts(see, pictures) - mean).mean().item()

    lines = [{"variant": "mirrored", "identity": alike(x.flip(3))},
             {"variant": "another", "identity": alike(x.roll(1, 0))}]
    for folder, (variant, seed, config) in {
            run_folder(options, seed): (variant, seed, config) for group in GROUPS
            for variant, seed, options, config in configs(group, root) if config.data != "faces"}.items():
        if not (folder / "trip.pt").is_file() or len(config.attr) > 1:
            continue
        has = data.load("celeba-hq", config.attr, 64, root)[1].labels[:1000]
        judge, v = judges_of(config, ("aas",)).classifier, ev.asked(has)
        swapped = ev.in_parts(trip.load(folder)[0], x, v)
        said, then = ev.in_parts(judge, x), ev.in_parts(judge, swapped)
        pairs, r = torch.cat([said.roll(i, 0) - said for i in range(1, 6)]), torch.cat(
            [data.pair_labels(has, has.roll(i, 0)) for i in range(1, 6)])
        attr = {"attr": config.attr[0]}
        lines += [attr | {"variant": "real", "aas": 100 * ((said > 0) == has).float().mean().item(),
                          "pair_accuracy": (pairs * r > 0)[r != 0].float().mean().item()}]
        lines += [attr | {"variant": variant, "seed": seed, "identity": alike(swapped),
                          "aas": 100 * ((then > 0) != has).float().mean().item(),
                          "pair_accuracy": ((then - said) * v > 0).float().mean().item()}]
    NEUTRAL.unlink(missing_ok=True)
    append(NEUTRAL, ["attr", "variant", "seed", "pair_accuracy", "aas", "identity"],
           [line for i, line in enumerate(lines) if line not in lines[:i]])


# ------------------------------------------------------------------------------------------------------------
# Numbers

def over_seeds(rows, name):
    """variant -> the values of a column, a seed each; without the runs that diverged."""
    values = defaultdict(list)
    for row in rows:
        values[row["variant"]] += [row[name]] if row[name] != "" else []
    return values


def level(rows):
    """variant -> how far from 0 R settled on generated pairs, the mean of v = +1 and -1, a seed each."""
    plus, minus = over_seeds(rows, "gen_plus"), over_seeds(rows, "gen_minus")
    return {variant: (np.array(plus[variant]) - minus[variant]) / 2 for variant in plus}


def curves_of(lines, variant, judge, coding):
    """Of lines of JUDGED: mean, std, within and l1 along ev.V, a list of four arrays for each seed."""
    seeds = defaultdict(list)
    for row in sorted(lines, key=lambda row: row["v"]):
        if (row["variant"], row["judge"], row["coding"]) == (variant, judge, coding):
            seeds[row["seed"]].append([row[name] for name in ("mean", "std", "within", "l1")])
    return [list(np.array(rows).T) for rows in seeds.values()]


def native(lines, variant):
    """The coding of the variant's own dial."""
    return "absolute" if any(row["coding"] == "absolute" for row in lines if row["variant"] == variant) else "relative"


def shape_of(lines, variant, judge="TRIP", coding=None):
    """Means over the seeds: what ev.shape says; reach, the range of the means; std at v = +-1; stds at the five levels;
    within and pooled, the stds at v = 0; l1 at v = 0. coding: None for that of its own dial."""
    found = []
    for mean, std, within, l1 in curves_of(lines, variant, judge, coding or native(lines, variant)):
        found.append(ev.shape(mean, std) | dict(
            reach=mean[-1] - mean[0], std=std[[0, -1]].mean(), stds=std[ev.AT_LEVELS], means=mean[ev.AT_LEVELS],
            within=within[ev.AT_ZERO], pooled=std[ev.AT_ZERO], l1=l1[ev.AT_ZERO]))
    return {name: np.mean([one[name] for one in found], 0) for name in found[0]}


def stands(shape):
    """Whether a dial reaches next to nowhere; then its std in halves of the range says nothing."""
    return abs(shape["reach"]) < 0.05


def signatures(rows, lines):
    """What the paper says of its rivals, and whether it is so here, by thresholds set before the first run.

    rows: of RESULTS, lines: of JUDGED, of one group. Returns (name, the paper's words, numbers here, verdict, what
    decided) for each; verdicts: holds, fails or undecided. x T: times TRIP's.
    """
    def of(variant, name):
        return np.mean(over_seeds(rows, name)[variant] or [np.nan])  # (of photographs nobody knows the leakage)

    def ratio(a, b):
        return np.inf if b <= 0 else a / b

    def times(variant, name):
        return ratio(of(variant, name), of("TRIP", name))

    T, fn, rc, rel = (shape_of(lines, variant) for variant in ("TRIP", "fn", "rcgan", "relgan"))
    fn_own, rc_own = (shape_of(lines, variant, coding="relative") for variant in ("fn", "rcgan"))
    found = []

    def add(name, claim, here, holds, fails, by):
        verdict = "holds" if holds else "fails" if fails else "undecided"
        found.append((name, claim, here.replace("nan", "unknown"), verdict, by))

    below = of("TRIP", "aas") - of("fn", "aas")
    add("FN1", "lowest AAS", f"{of('fn', 'aas'):.1f} %, TRIP {of('TRIP', 'aas'):.1f} %",
        below >= 5, below <= 2, "5 or more below TRIP; within 2")

    def low_line(shape):
        return shape["straight"] >= 0.95 and shape["reach"] < 0.8 * T["reach"]

    add("FN2", "linear, low mean", f"R^2 {fn_own['straight']:.3f}, range {ratio(fn_own['reach'], T['reach']):.2f} x T"
        + ("" if low_line(fn_own) == low_line(fn) else "; with v as a strength the other way round"),
        low_line(fn_own), not low_line(fn_own), "R^2 >= .95 and range < .8 x T, v counted from the label")
    wide = [ratio(fn[name], T[name]) for name in ("std", "spread")]
    add("FN3", "large std", f"std at +-1 {wide[0]:.2f} x T, spread {wide[1]:.2f} x T",
        min(wide) >= 1.2, max(wide) <= 1, "both >= 1.2 x T; both <= T")
    off = ratio(fn_own["l1"], T["l1"])
    add("FN4", "distorted", f"L1 {fn_own['l1']:.3f}, TRIP {T['l1']:.3f}; outside {times('fn', 'outside_l1'):.1f} x T; "
        f"Frechet {times('fn', 'frechet_resnet18'):.1f} x T", off >= 2, off <= 1,
        "L1 with the own label >= 2 x T; <= T")
    uneven = times("fn", "ssim_score")
    add("FN5", "SSIM score 4 x TRIP's", f"{uneven:.2f} x T", uneven >= 2, uneven <= 1, ">= 2 x T; <= T")
    off = ratio(rc_own["l1"], T["l1"])
    add("RC1", "worst pictures", f"L1 {rc_own['l1']:.3f}, TRIP {T['l1']:.3f}; outside "
        f"{times('rcgan', 'outside_l1'):.1f} x T; Frechet {times('rcgan', 'frechet_resnet18'):.1f} x T",
        off >= 5, off < 2, "L1 with the own label >= 5 x T; < 2 x T")
    add("RC2", "a sudden change at 0", f"jump {rc['jump']:.2f}; v counted from the label {rc_own['jump']:.2f}",
        rc["jump"] >= 0.5, rc["jump"] < 0.3, "jump >= .5; < .3 (a line: .2)")
    most = rc["stds"].argmax() == 2
    inside = rc["within"] > np.delete(rc["stds"], 2).max()
    add("RC3", "largest std at 0", f"pooled {rc['pooled']:.3f}, within the classes {rc['within']:.3f}, at +-1 "
        f"{rc['std']:.3f}" + (": " + ("the pictures" if inside else "the coding") if most else ""),
        most, not most, "largest of the five levels at 0; within the classes, too: the pictures, else the coding")
    add("RC4", "AAS above 95 all the same", f"{of('rcgan', 'aas'):.1f} %",
        of("rcgan", "aas") >= 95, of("rcgan", "aas") < 95, ">= 95; below")
    h, alone = rel["half_step"], "relgan --lam_int 0"
    h0 = shape_of(lines, alone)["half_step"] if alone in variants(lines) else np.nan
    add("Re1", "three steps", f"half step {h:.2f}, without the interpolation loss {h0:.2f}",
        h >= 0.8 and abs(h0 - 0.5) < abs(h - 0.5), h < 0.65, ">= .8, and nearer .5 without; < .65")
    uneven = times("relgan", "ssim_score")
    add("Re2", "SSIM score 17 x TRIP's", f"{uneven:.2f} x T", uneven >= 5, uneven < 2, ">= 5 x T; < 2 x T")
    s = rel["stds"]
    flat = s.argmin() == 2 and all(abs(s[i] - s[j]) <= 0.15 * s[j] for i, j in ((1, 0), (3, 4)))
    add("Re3", "std flat, low at 0", " ".join(f"{u:.3f}" for u in s), flat, not flat,
        "lowest at 0, and +-.5 within 15 % of +-1")
    other = [times("relgan", name) for name in ("leakage", "outside_l1")]
    add("Re4", "changes other things", f"leakage {other[0]:.2f} x T, L1 outside {other[1]:.2f} x T",
        min(other) > 1.2, max(other) <= 1, "both > 1.2 x T; both <= T")
    add("Re5", "AAS above 95, FID near TRIP's", f"{of('relgan', 'aas'):.1f} %, Frechet "
        f"{times('relgan', 'frechet_resnet18'):.1f} x T", of("relgan", "aas") >= 95, of("relgan", "aas") < 90,
        "AAS >= 95; < 90")
    lowest = {}
    for judge in JUDGES_OF_RIVALS:
        shapes = [shape_of(lines, variant, judge) for variant in ("TRIP", "fn", "rcgan", "relgan")]
        lowest[judge] = [all(shapes[0]["std"] < other["std"] for other in shapes[1:]),
                         all(shapes[0]["spread"] < other["spread"] for other in shapes[1:] if not stands(other))]
    add("All", "TRIP has the lowest variance", "; ".join(
        f"by {judge}: std {'lowest' if std else 'not'}, spread {'lowest' if spread else 'not'}"
        for judge, (std, spread) in lowest.items()), all(sum(lowest.values(), [])), not any(lowest["lambda = 0"]),
        "both under both rankers; neither under lambda = 0's")
    return found


# ------------------------------------------------------------------------------------------------------------
# Why one half: fresh rankers on a frozen generator

def fit_rho(lams, levels):
    """The rho with which levels[0] / (1 + lambda rho) fits best, in the least squares; lams[0] is 0. Arrays."""
    candidates = np.geomspace(0.01, 1000, 5001)
    return min(candidates, key=lambda rho: ((levels[0] / (1 + lams * rho) - levels) ** 2).sum())


LAMS = (0.0, 0.3, 0.6, 1.2, 2.4, 4.8)


def fresh(stream, G, rng, lam, table4, rate, target=None, steps=600):
    """Train a new R against a G that stands still (Eq. 5a alone) and return it; or, to 0 or 1, a judge of pairs.

    target: None, or the function that makes the loss of (answers to real pairs, answers to generated ones).
    """
    torch.manual_seed(0)
    R = trip.Ranker(1, 32, 32, table4).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(R.parameters(), 2.4e-3 * rate, betas=(0.5, 0.99))
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 2.4e-3 * rate * min(1, (steps - step) / (0.7 * steps))
        x, y, r = next(stream)
        v = 2 * torch.rand(len(x), 1, generator=rng) - 1
        with torch.no_grad():
            fake = G(x, v)
        fx, fy, ff = R.features(torch.cat([x, y, fake])).chunk(3)
        real, generated = R.rank(fx, fy), R.rank(fx, ff)
        loss = target(real, generated) if target else trip.ranker_rank_loss(real, r, generated, lam)
        trip.update(R, optimizer, {"loss": loss}, 10.0)
    return R.eval()


def told_apart(real, generated):
    """The loss of a discriminator of pairs. Its best answer is p / (p + q), of real and generated pairs' density."""
    return ((real - 1) ** 2).mean() + (generated ** 2).mean()


def theory():
    """Levels of fresh rankers at several lambda, beside 1 / (1 + lambda rho) with rho = q / p from a discriminator."""
    _, seed, options, _ = next(configs("starts"))
    G, _, config = trip.load(run_folder(options, seed))
    train, test = data.load("faces", config.attr, config.size)
    x, labels = ev.probe(test, "cpu", 500)
    v = ev.asked(labels)
    fake = ev.in_parts(G, x, v)
    no, yes = x[~labels[:, 0]], x[labels[:, 0]]
    n = min(len(no), len(yes))

    def run(*what, target=None):
        rng = torch.Generator().manual_seed(0)
        return fresh(data.pairs(train, 16, rng, config.ties), G, rng, *what, target)

    judge = run(0.0, True, 1.0, target=told_apart)
    share = ev.in_parts(judge, x, fake).mean().item()
    rho = (1 - share) / share  # q / p at generated pairs, as far as this network sees it after these iterations
    rows = []
    for head, rates in (("table4", (1, 0.5)), ("score", (1,))):
        for rate in rates:
            for lam in LAMS:
                R = run(lam, head == "table4", rate)
                more, less = ev.in_parts(R, no[:n], yes[:n]), ev.in_parts(R, yes[:n], no[:n])
                real, reached = (more - less).mean().item() / 2, (ev.in_parts(R, x, fake) * v).mean().item()
                if lam == 0:
                    alone = reached  # E[r | z], as far as a ranker sees it
                rows.append({"head": head, "lam": lam, "rate": rate, "level": reached, "real": real,
                             "predicted": alone / (1 + lam * rho), "rho": rho})
                print(rows[-1], flush=True)
    THEORY.unlink(missing_ok=True)
    append(THEORY, list(rows[0]), rows)


# ------------------------------------------------------------------------------------------------------------
# Figures

def fig_claim(curves):
    """Means of R on held-out real and generated pairs over training: mean and range of the seeds."""
    figure, axes = ev.canvas()
    rows = [row for row in curves if row["group"] == "claim"]
    steps, seeds = sorted({row["step"] for row in rows}), {row["seed"] for row in rows}
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


def histories(curves, group):
    """variant -> seed -> (iterations, levels of generated pairs, levels of real pairs)."""
    found = defaultdict(lambda: defaultdict(list))
    for row in curves:
        if row["group"] == group:
            found[row["variant"]][row["seed"]].append(
                (row["step"], (row["gen_plus"] - row["gen_minus"]) / 2, (row["real_plus"] - row["real_minus"]) / 2))
    return {variant: {seed: list(zip(*line)) for seed, line in seeds.items()} for variant, seeds in found.items()}


def fig_balance(rows, curves, theory):
    """The level of generated pairs: fresh rankers and the predictions; against lambda in training; over time."""
    figure, (fresh_ones, by_lam, over_time) = ev.canvas(3, 3.8, 12, width_ratios=(1, 1, 1.4))
    for head, rate, style, label in (("table4", 1, "o", "Table 4's head"), ("table4", 0.5, "x", "half the rate"),
                                     ("score", 1, "s", "a score of each picture")):
        lams, levels = (np.array([row[name] for row in theory if (row["head"], row["rate"]) == (head, rate)])
                        for name in ("lam", "level"))
        dots, = fresh_ones.plot(lams, levels, style, label=label)
        grid = np.linspace(0, lams.max(), 200)
        fresh_ones.plot(grid, levels[0] / (1 + grid * fit_rho(lams, levels)), "-", lw=1, color=dots.get_color())
    fresh_ones.set(xlabel="lambda", ylabel="|R(x, G(x, v))|, v = +-1", title="a frozen G")
    of = [row for row in rows if row["group"] == "lambda"]
    for values, fill, label in ((level(of), None, "generated"), (over_seeds(of, "real_plus"), "none", "real")):
        by_lam.plot([float(lam) for lam in values], [np.mean(u) for u in values.values()], "o", mfc=fill,
                    color=ev.COLOURS["plus"], label=label)
    by_lam.set(xlabel="lambda", title="trained together")
    lines = histories(curves, "person") | {f"64 px, {n}": line for n, line in histories(curves, "time").items()}
    for head, name, colour in zip(("64 px", "score", "Table 4"), ("64 px", "32 px", "Table 4's head"), ev.PALETTE):
        for n in LONGER:
            for line in lines.get(f"{head}, {n} x", {}).values():
                over_time.plot(line[0], line[1], color=colour, lw=1.2, label=f"{name}: generated" if n == 1 else None)
                over_time.plot(line[0], line[2], color=colour, lw=1, ls=":", label="real" if n == 1 else None)
    over_time.set(xlabel="iteration", title="1, 4 and 8 times the iterations", xscale="log")
    for axes in (fresh_ones, by_lam, over_time):
        axes.axhline(0.5, color="black", lw=0.5)
        axes.set(ylim=(0, 1.05))
        axes.legend(fontsize=7)
    return figure


def fig_trap(curves):
    """The level of generated pairs from start to end: ten seeds of the default, three of each other way."""
    figure, axes = ev.canvas(height=3.4)
    ways = [("starts", "default"), *(("trap", variant) for variant in list(GROUPS["trap"][1])[1:])]
    for (group, variant), colour in zip(ways, ev.PALETTE):
        for n, line in enumerate(histories(curves, group).get(variant, {}).values()):
            axes.plot(line[0], line[1], color=colour, lw=1, label=variant if n == 0 else None)
    axes.set(xlabel="iteration", ylabel="|R(x, G(x, v))|, v = +-1", title="who leaves \"change nothing\"?")
    axes.legend(fontsize=8)
    return figure


def fig_photos(root, attrs=PHOTOS[:4], n=4):
    """Fig. 5: the first n photographs held out, swept by each attribute's run. None where a run is missing."""
    folders = [run_folder(options, seed) for name, seed, options, _ in configs("photos") if name in attrs]
    if not root or not all((folder / "trip.pt").is_file() for folder in folders):
        return None
    _, test = data.load("celeba-hq", PHOTOS, 64, root)
    x = data.as_float(test.images[:n])
    ys = torch.cat([ev.translate(trip.load(folder)[0], x, ev.SWEEP) for folder in folders])
    figure = ev.strips(x.repeat(len(folders), 1, 1, 1), ys, [f"{u:+.1f}" for u in ev.SWEEP], "v =")
    figure.axes[0].set_yticks([64 * n * (i + 0.5) for i in range(len(folders))], attrs, rotation=90, va="center")
    return figure


def fig_photo_levels(root, attrs=PHOTOS[:4], n=300):
    """Fig. 6 of smile, and Fig. 7, each attribute by its own ranker, on n photographs. None where a run is missing."""
    folders = {attr: run_folder(options, 0) for attr, _, options, _ in configs("photos")}
    if not root or not all((folders[attr] / "trip.pt").is_file() for attr in attrs):
        return None
    figure, (boxes, lines) = ev.canvas(2, 4, 10, sharey=True)
    for attr, colour in zip(attrs, ev.PALETTE):
        test = data.load("celeba-hq", (attr,), 64, root)[1][:n]
        result, = ev.assess(trip.restore(folders[attr]), test, ev.Judges(), ("ranker",), attr)
        mean, std = (np.array(result.scores[f"ranker_sweep_{name}"]) for name in ("mean", "std"))
        lines.plot(ev.SWEEP, mean, color=colour, label=attr)
        lines.fill_between(ev.SWEEP, mean - std, mean + std, color=colour, alpha=0.15, lw=0)
        if attr == attrs[0]:
            said, mask = result.readings["R"], ev.where_asked(test.labels[:, 0])
            boxes.boxplot([said[mask[:, i], i] for i in ev.AT_LEVELS], positions=ev.LEVELS, widths=0.25,
                          manage_ticks=False, medianprops={"color": colour}, flierprops={"markersize": 3})
    lines.plot([-1, 1], [-0.5, 0.5], "k:", lw=1, label="v / 2: half way")
    lines.legend(fontsize=8)
    boxes.set(xlabel="v", ylabel="R(x, G(x, v))", xticks=ev.LEVELS, title=f"{attrs[0]} (Fig. 6)")
    lines.set(xlabel="v", title="mean and std (Fig. 7)")
    ev.dotted(boxes, -0.5, 0, 0.5)
    return figure


def fig_photo_grid(root):
    """Fig. 8: two dials on the first three photographs held out. None where the run is missing."""
    variant, seed, options, config = next(job for job in configs("photo_more") if "," in job[0])
    if not root or not (run_folder(options, seed) / "trip.pt").is_file():
        return None
    return ev.fig_grid(trip.restore(run_folder(options, seed)), data.load("celeba-hq", config.attr, 64, root)[1])


def fig_worst(run, test, judges):
    """The five held-out faces whose true strength the dial moves least, v from -1 to 1; seen: every fifth face."""
    test = test[torch.arange(0, len(test), 5)]
    result, = ev.assess(run, test, judges, ("truth",), "default")
    moved = result.readings["seen"][:, -1, 0] - result.readings["seen"][:, 0, 0]
    x = data.as_float(test.images[moved.argsort()[:5]])
    return ev.strips(x, ev.translate(run.G, x, ev.SWEEP), [f"{u:+.1f}" for u in ev.SWEEP], "smile: v =")


def fig_variants(group, root="", only=""):
    """Fig. 5, 9: two held-out pictures, with the attribute and without, redrawn by every variant's first run.

    only: a pattern of the variants' names. None where a run is missing, or the photographs are.
    """
    jobs = [(variant, run_folder(options, seed), config) for variant, seed, options, config in configs(group)
            if seed == 0 and re.search(only, variant)]
    name, size = jobs[0][2].data, jobs[0][2].size
    if not all((folder / "trip.pt").is_file() for _, folder, _ in jobs) or not (root or name == "faces"):
        return None
    _, test = data.load(name, ("smile",), size, root if name != "faces" else "")
    x = data.as_float(test.images[[int(torch.where(test.labels[:, 0] == has)[0][0]) for has in (False, True)]])
    ys = torch.stack([ev.translate(trip.load(folder)[0], x, ev.SWEEP) for _, folder, _ in jobs], 1).flatten(0, 1)
    figure = ev.strips(x.repeat_interleave(len(jobs), 0), ys, [f"{u:+.1f}" for u in ev.SWEEP], "smile: v =")
    names = [variant for variant, *_ in jobs]
    figure.set_figwidth(figure.get_figwidth() + max(map(len, names)) / 10)
    figure.axes[0].set_yticks([size * (i + 0.5) for i in range(len(ys))], names * 2)
    return figure


OF_METHOD = dict(zip((*JUDGES_OF_RIVALS, *rivals.SETTINGS), ev.PALETTE))  # the same in all figures


def fig_rivals(lines):
    """Fig. 7: mean (and std) of R(x, G(x, v)) against v for each method, by both rankers; lines: of JUDGED, of a group.

    Dashed: of a dial that asks for a strength, with v counted from the label.
    """
    figure, panels = ev.canvas(2, 4.5, 12, sharey=True)
    for axes, judge in zip(panels, JUDGES_OF_RIVALS):
        for variant in (variant for variant in variants(lines) if " " not in variant):
            colour = OF_METHOD[variant]
            for coding, style in zip(dict.fromkeys((native(lines, variant), "relative")), ("-", "--")):
                mean, std, *_ = np.mean(curves_of(lines, variant, judge, coding), 0)
                axes.plot(ev.V, mean, style, color=colour, lw=1.5, label=variant if style == "-" else None)
                if style == "-":
                    axes.fill_between(ev.V, mean - std, mean + std, color=colour, alpha=0.1, lw=0)
        axes.plot([-1, 1], [-0.5, 0.5], "k:", lw=1, label="v / 2")
        axes.set(xlabel="v", ylabel="R(x, G(x, v))", title=f"by the ranker of {judge}")
    axes.legend(fontsize=8)
    return figure


def fig_swaps(rows):
    """Fig. 12: AAS of each method, mean and range of the seeds; dotted, how often its judge is right on real ones."""
    figure, axes = ev.canvas(height=3.6)
    values = {variant: found for variant, found in over_seeds(rows, "aas").items() if found}
    for i, (variant, found) in enumerate(values.items()):
        axes.bar(i, np.mean(found), color=OF_METHOD[variant.split(" --")[0]])
        axes.plot([i, i], [min(found), max(found)], color="black", lw=1)
    axes.set_xticks(range(len(values)), list(values), rotation=20, ha="right")
    ev.dotted(axes, np.mean(sum(over_seeds(rows, "aas_judge").values(), [])))
    axes.set(ylabel="AAS, %", ylim=(0, 105))
    return figure


# ------------------------------------------------------------------------------------------------------------
# Tables

PAPER = {"TRIP": (97.69, 0.0030, 10.19), "no L_rank": (9.73, 1.51e-5, 29), "no L_gan": (98.47, 0.0058, 78.08),
         "lambda = 0": (55.7, 0.0011, 8.55), "CLS": (92.37, 0.0163, 11.33)}  # Table 2: AAS, SSIM score, FID


def cell(values, form):
    """Mean and, of several seeds, the range: `0.51 (0.48 .. 0.55)`."""
    if not values:  # (diverged, or not to be measured)
        return ""
    low, mean, high = (format(u, form) for u in (min(values), np.mean(values), max(values)))
    return mean if low == high else f"{mean} ({low} .. {high})"


def markdown(header, rows):
    return "\n".join(["| " + " | ".join(line) + " |" for line in (header, ["---"] * len(header), *rows)])


TRUTH = (("true_spearman", "true rank correlation", ".2f"), ("true_range", "true range", ".2f"),
         ("leakage", "leakage", ".3f"))
COMPARED = (("real_plus", "real +1", ".2f"), ("gen_plus", "generated +1", ".2f"),
            ("gen_minus", "generated -1", ".2f"), ("gen_plus_std", "std at +1", ".2f"),
            ("outside_l1", "L1 outside", ".3f"), ("aas", "AAS, %", ".0f"), *TRUTH)
TABLE2 = (("aas", "AAS, %", ".1f"), ("ssim_score", "SSIM score", ".4f"),
          ("frechet_resnet18", "Frechet distance", ".1f"), TRUTH[0], ("true_linearity", "linearity", ".2f"),
          *TRUTH[1:])
PHOTOGRAPHS = (("pair_accuracy", "pair accuracy", ".3f"), ("real_plus", "real +1", ".2f"),
               ("gen_plus", "generated +1", ".2f"), ("gen_minus", "generated -1", ".2f"),
               ("gen_plus_std", "std at +1", ".2f"), ("gen_minus_std", "std at -1", ".2f"), ("aas", "AAS, %", ".1f"),
               ("aas_judge", "its judge, %", ".1f"), ("ssim_score", "SSIM score", ".4f"),
               ("ranker_pearson", "Pearson", ".2f"), ("recon_l1", "L1 at 0", ".3f"),
               ("outside_l1", "L1, upper half", ".3f"))
SHIELDED = (*TABLE2[:3], ("crossed", "crossed", ".2f"), *TRUTH[1:], ("outside_l1", "L1 outside", ".3f"))
TABLE2_PHOTOS = (*TABLE2[:3], *PHOTOGRAPHS[2:4], PHOTOGRAPHS[-3], PHOTOGRAPHS[-1])
TABLE1 = (*TABLE2[1:3], TABLE2[0], ("recon_l1", "L1 at v = 0", ".3f"), ("outside_l1", "L1 outside", ".3f"), *TRUTH,
          ("seconds", "seconds", ".0f"))
# column, form, what the default run is to reach, what the paper has
AIMS = (("pair_accuracy", ".3f", "1.00", ""), ("real_plus", ".2f", ">= 0.75", "1"),
        ("real_minus", ".2f", "<= -0.75", "-1"), ("gen_plus", ".2f", "0.40 .. 0.60", ".5"),
        ("gen_minus", ".2f", "-0.60 .. -0.40", "-.5"), ("gen_zero_std", ".3f", "<= 0.04", ".042"),
        ("gen_plus_std", ".3f", "<= 0.15", ".159"), ("gen_minus_std", ".3f", "<= 0.15", ".157"),
        ("recon_l1", ".3f", "<= 0.005", ""), ("outside_l1", ".4f", "<= 0.01", ""),
        ("ssim_score", ".4f", "<= 0.002", ".0030"), ("aas", ".1f", ">= 97.7", "97.69"),
        ("aas_judge", ".1f", "", ""), ("frechet_resnet18", ".1f", "", ""), ("ranker_pearson", ".2f", "", ""),
        ("true_spearman", ".2f", ">= 0.98", ""), ("true_linearity", ".3f", ">= 0.97", ""),
        ("true_range", ".2f", ">= 0.75", ""), ("crossed", ".3f", "", ""),
        ("leakage", ".3f", "<= 1.5 times the next", ""), ("leakage_judge", ".3f", "", ""))


def top_table(rows):
    """The first page's: means of all seeds beside the paper's numbers."""
    def means(form, *names):
        return " / ".join(format(np.mean([row[name] for row in rows]), form) for name in names)

    return markdown([f"mean of {len(rows)} seeds", "here", "the paper (CelebA-HQ, 256 px)"], [
        ["ranker on real pairs, r = +1 / 0 / -1", means("+.2f", *ev.OUTPUTS[:3]), "+1 / 0 / -1"],
        ["ranker on generated pairs, v = +1 / 0 / -1", means("+.2f", *ev.OUTPUTS[3:]), "+0.5 / 0 / -0.5"],
        ["AAS: swapped faces that a classifier calls swapped", means(".1f", "aas") + " %", "97.69 %"],
        ["mean of \\|G(x, 0) - x\\|, pixels in [-1, 1]", means(".3f", "recon_l1"), "not given"],
        ["rank correlation of v with the true strength", means(".2f", "true_spearman"), "cannot be known"]])


def claim_table(rows):
    values = {name: [row[name] for row in rows] for name, *_ in AIMS}
    header = ["", *(f"seed {row['seed']:.0f}" for row in rows), "mean", "max - min", "aim", "the paper"]
    return markdown(header, [
        [name, *(format(u, form) for u in (*values[name], np.mean(values[name]), np.ptp(values[name]))),
         aim, paper] for name, form, aim, paper in AIMS])


def variants(rows):
    return list(dict.fromkeys(row["variant"] for row in rows))


def compared(rows, columns=COMPARED, title=""):
    """A row for each variant."""
    values = [(over_seeds(rows, name), form) for name, _, form in columns]
    return markdown([title, *(label for _, label, _ in columns)], [
        [variant, *(cell(column[variant], form) for column, form in values)] for variant in variants(rows)])


def widened(table, title, cells):
    """The table with one more column."""
    return "\n".join(f"{line} {cell} |" for line, cell in zip(table.split("\n"), (title, "---", *cells)))


def ablation_table(rows, columns=TABLE2):
    paper = [", ".join(f"{u:g}" for u in PAPER.get(variant, ())) for variant in variants(rows)]
    return widened(compared(rows, columns), "paper: AAS, SSIM, FID", paper)


def photo_table(rows):
    paper = {"smile": ".0030", "male": ".0077", "mouth_open": ".0017", "cheekbones": ".0028"}  # Table 1
    return widened(compared(rows, PHOTOGRAPHS), "paper: SSIM score", [paper.get(v, "") for v in variants(rows)])


def rivals_table(rows):
    """Table 1, smile. Of photographs nobody knows the truth."""
    known = [column for column in TABLE1 if any(row[column[0]] != "" for row in rows)]
    paper = {"TRIP": ".0030, 10.19", "fn": ".0122, 41.48", "rcgan": ".0084, 398.05", "relgan": ".0512, 10.92"}
    return widened(compared(rows, known), "paper: SSIM, FID", [paper.get(v, "") for v in variants(rows)])


def judged_table(lines):
    """Fig. 7's table, by both rankers, in both codings of v where there are two; no shape of a dial that stands."""
    header = ["by the ranker of", "", "v is", "mean at -1, -.5, 0, .5, 1", "std", "std at 0 within the classes",
              "std at +-1 / half the range", "half step", "jump"]
    made = []
    for judge in JUDGES_OF_RIVALS:
        for variant in (variant for variant in variants(lines) if "--" not in variant):
            for coding in dict.fromkeys((native(lines, variant), "relative")):
                u = shape_of(lines, variant, judge, coding)
                shape = () if stands(u) else ("spread", "half_step", "jump")
                made.append([judge, variant, "a strength" if coding == "absolute" else "a change",
                             " ".join(f"{round(m, 2) + 0:+.2f}" for m in u["means"]),
                             " ".join(f"{m:.3f}" for m in u["stds"]), f"{u['within']:.3f}",
                             *([f"{u[name]:.2f}" for name in shape] or 3 * [""])])
    return markdown(header, made)


def signature_table(rows, lines):
    return markdown(["", "the paper says", "here", "", "decided by: holds; fails"],
                    [[name, claim, here, f"*{verdict}*", by]
                     for name, claim, here, verdict, by in signatures(rows, lines)])


def neutral_table(lines):
    return markdown(["attribute", "pictures", "pair accuracy", "AAS, %", "identity"], [
        [line["attr"], f"{line['variant']}, seed {line['seed']:.0f}" if line["seed"] != "" else line["variant"], *(
            "" if line[name] == "" else format(line[name], form)
            for name, form in (("pair_accuracy", ".3f"), ("aas", ".1f"), ("identity", ".2f")))] for line in lines])


def lambda_table(rows):
    levels = level(rows)
    columns = [("real_plus", "real pairs, r = +1", ".2f"), ("gen_plus_std", "std at v = +1", ".2f"),
               ("aas", "AAS, %", ".0f"), *TRUTH[1:]]
    return markdown(["lambda", *levels], [
        ["generated pairs", *(f"{u.mean():.2f}" for u in levels.values())],
        *([label, *(cell(u, form) for u in over_seeds(rows, name).values())]
          for name, label, form in columns)])


def theory_table(rows):
    lines = []
    for head, rate, label in (("table4", 1, "Table 4's head"), ("table4", 0.5, "the same, half the rate"),
                              ("score", 1, "a score of each picture")):
        of = [row for row in rows if (row["head"], row["rate"]) == (head, rate)]
        lams, levels = (np.array([row[name] for row in of]) for name in ("lam", "level"))
        rho = fit_rho(lams, levels)
        lines += [[f"{label}: generated pairs", *(f"{u:.2f}" for u in levels)],
                  [f"one rho for all: {rho:.1f}", *(f"{levels[0] / (1 + lam * rho):.2f}" for lam in lams)]]
        if (head, rate) == ("table4", 1):
            lines.append([f"rho of the discriminator: {of[0]['rho']:.1f}", *(f"{row['predicted']:.2f}" for row in of)])
        lines.append(["its real pairs", *(f"{row['real']:.2f}" for row in of)])
    return markdown(["lambda", *(f"{lam:g}" for lam in LAMS)], lines)


# a mark of the pages -> the group, and what makes a table of its results
TABLES = {"top": ("claim", top_table), "claim": ("claim", claim_table),
          "ablation": ("ablation", ablation_table), "photos": ("photos", photo_table),
          "photo_seeds": ("photo_seeds", photo_table), "photo_more": ("photo_more", photo_table),
          "photo_time": ("photo_time", photo_table),
          "photo_ablation": ("photo_ablation", lambda rows: ablation_table(rows, TABLE2_PHOTOS)),
          "ablation4": ("ablation4", ablation_table), "lambda": ("lambda", lambda_table),
          **{group: (group, rivals_table) for group in ("rivals", "rivals_long", "photo_rivals")},
          **{group: (group, compared) for group in ("starts", "trap", "time", "person", "matters")},
          **{group: (group, lambda rows: compared(rows, SHIELDED)) for group in ("rivalry", "rivalry64")}}


def of_group(rows, group):
    """The rows of a group, in the order of its variants."""
    order = list(GROUPS[group][1])
    return sorted((row for row in rows if row["group"] == group), key=lambda row: order.index(row["variant"]))


def tables(rows):
    """mark -> a table in Markdown, of the groups that have results of every variant."""
    groups = {mark: [row for row in rows if row["group"] == group] for mark, (group, _) in TABLES.items()}
    made = {mark: TABLES[mark][1](found) for mark, found in groups.items()
            if set(variants(found)) == set(GROUPS[TABLES[mark][0]][1])}
    for group in {"rivals", "photo_rivals"} & set(made):
        lines = of_group(read_table(JUDGED), group)
        if set(variants(lines)) == set(GROUPS[group][1]):
            made[f"{group}_judged"] = judged_table(lines)
            made["signatures" if group == "rivals" else "photo_signatures"] = signature_table(groups[group], lines)
    for mark, path, table in ("theory", THEORY, theory_table), ("neutral", NEUTRAL, neutral_table):
        if path.is_file():
            made[mark] = table(read_table(path))
    return made


def filled(text, made):
    """The text with each table of `made` between its marks, <!-- study: NAME --> and <!-- end -->."""
    for name, table in made.items():
        text = re.sub(f"(<!-- study: {name} -->\n).*?(<!-- end -->)",
                      lambda found: f"{found[1]}\n{table}\n\n{found[2]}", text, flags=re.S)
    return text


def draw(root=""):
    """The figures that can be drawn here, and the tables of PAGES. root: of CelebA-HQ."""
    rows, curves = results(), read_table(CURVES)
    made = tables(rows)
    there = {row["group"] for row in rows}
    figures = {"study_claim": "claim" in there and fig_claim(curves),
               "study_balance": THEORY.is_file() and fig_balance(rows, curves, read_table(THEORY)),
               "study_trap": "starts" in there and fig_trap(curves),
               "study_time": "time" in there and fig_variants("time"),
               "study_ablation": "ablation" in there and fig_variants("ablation"),
               "study_rivalry": "rivalry64" in there and fig_variants("rivalry64", only="all|shift"),
               "photos_smile": fig_photos(root, ("smile",), 6), "photos_first": fig_photos(root, ("smile",), 16),
               "photos": fig_photos(root), "study_photo_levels": fig_photo_levels(root),
               "photos_grid": fig_photo_grid(root),
               "study_rivals_long": "rivals_long" in there and fig_variants("rivals_long")}
    for group, strips in ("rivals", "study_rivals"), ("photo_rivals", "photos_rivals"):
        if group in made:
            figures |= {f"study_{group}_aas": fig_swaps(of_group(rows, group)),
                        strips: fig_variants(group, root, only=r"^((?!--).)*$")}
        if f"{group}_judged" in made:
            figures[f"study_{group}_curves"] = fig_rivals(of_group(read_table(JUDGED), group))
    for name, figure in figures.items():
        if figure:  # (photographs as JPEG: a fifth of the size)
            figure.savefig(FIGURES / f"{name}{'.jpg' if name.startswith('photos') else '.png'}", dpi=100)
    claim = run_folder("", 0)
    if (claim / "trip.pt").is_file():
        run = trip.restore(claim)
        train, test = data.load(run.config.data, run.config.attr, run.config.size)
        for name in ("samples.png", "ranker.png"):
            shutil.copy(claim / name, FIGURES / name)
        judges = ev.call_judges(("truth",), train, "cpu", data.teller(), JUDGES)
        ev.write_dial(run, FIGURES, test, judges.strengths)
        fig_worst(run, test, judges).savefig(FIGURES / "study_worst.png", dpi=80)
    photo = run_folder(next(configs("photos"))[2], 0)
    if (photo / "ranker.png").is_file():
        shutil.copy(photo / "ranker.png", FIGURES / "photos_ranker.png")
    for page in PAGES:
        page.write_text(filled(page.read_text(encoding="utf-8"), made), encoding="utf-8")


def command(argv):
    parser = data.Parser(prog="study/study.py", description=__doc__)
    known = [*GROUPS, *EXTRAS]
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"some of {', '.join(known)} (default: all)")
    parser.add_argument("--seeds", nargs="+", type=int, metavar="SEED",
                        help="only these seeds (default: all that a group has)")
    parser.add_argument("--root", default="", help="the folder of CelebA-HQ, for photographs")
    parser.add_argument("--draw", action="store_true", help="train nothing: draw what is there")
    args = parser.parse_args(argv)
    asked = args.groups or known
    for group in asked:
        if group not in known:
            raise data.InputError(f"unknown group {group!r}: {data.nearest(group, known)}")
    groups = [group for group in asked if group in GROUPS]
    for seed in args.seeds or ():
        if not any(seed in GROUPS[group][0] for group in groups):
            raise data.InputError(f"--seeds {seed}: no run of {', '.join(groups)} has that seed")
    photographs = [group for group in asked if re.match("photo|neutral", group)]
    if not args.draw:
        if photographs and not (args.root and Path(args.root).is_dir()):
            if args.root or args.groups:
                raise data.InputError(f"{photographs[0]} needs --root DIR, the folder of CelebA-HQ, not "
                                      f"{args.root or 'none'}")
            print("photographs are left out: --root DIR says where CelebA-HQ is", flush=True)
        run_all(groups, args.seeds, args.root)
        judge_rivals(groups, args.seeds, args.root)
        if "theory" in asked:
            theory()
        if args.root and "neutral" in asked:
            neutral(args.root)
    draw(args.root)
    return 0


def main(argv=None):
    return data.exit_code("study.py", command, argv)


if __name__ == "__main__":
    sys.exit(main())
