"""Relative attributes from binary labels: data sets, and the endless stream of pairs (x, y, r) for TRIP.

    train, test = load("faces", ["smile"], size=64)  # two `Data`: pictures, labels, of drawn faces the truth
    stream = pairs(train, batch=16, rng=torch.Generator().manual_seed(0))
    x, y, r = next(stream)  # r = +1: y smiles and x doesn't; -1: the other way round

`faces` needs no file: it is drawn. `folder` takes two folders of your own pictures. The others, CelebA and
the paper's, are read as they are published. Each is a function in the table DATASETS.
"""

import sys
if sys.version_info < (3, 10):
    sys.exit("TRIP needs Python 3.10 or newer, not " + sys.version.split()[0])
import hashlib
import json
import math
import os
import re
import shutil
import sqlite3
import tempfile
import time
import unicodedata
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from shlex import quote

import numpy as np
import torch
from PIL import Image, ImageOps

with suppress(ImportError):  # HEIC, as an iPhone writes it
    import pillow_heif
    pillow_heif.register_heif_opener()
warnings.filterwarnings("ignore", module="PIL")  # (of large pictures, say: they are read all the same)


class InputError(ValueError):
    """What was asked for cannot be done. One line: what was given, and what to type instead."""


@dataclass
class Data:
    """A data set, N pictures with K attributes.

    images: uint8 (N, 3, H, W), in memory or mapped from a file; labels: bool (N, K); attrs: the K names.
    The truth, where it is known, is for evaluation only: strength, float (N, K) in [0, 1], and person,
    float (N, P), what it takes to draw the face again (see `redraw`). ids: see `identities`.
    """
    images: torch.Tensor
    labels: torch.Tensor
    attrs: tuple
    strength: torch.Tensor | None = None
    person: np.ndarray | None = None
    ids: torch.Tensor | None = None

    def __len__(self):
        return len(self.images)

    def __getitem__(self, rows):
        """The same data set with these rows only (a slice, or a tensor of indices)."""
        return Data(self.images[rows], self.labels[rows], self.attrs,
                    *(None if u is None else u[rows] for u in (self.strength, self.person, self.ids)))


def as_float(images):
    """uint8 pixels in 0 .. 255 to float pixels in [-1, 1], any shape."""
    return images.float() / 127.5 - 1


def mirrored(x, rng):
    """Pictures (B, 3, H, W), each mirrored with probability 1/2."""
    chosen = torch.rand(len(x), 1, 1, 1, generator=rng).to(x.device) < 0.5
    return torch.where(chosen, x.flip(3), x)


def load(name, attrs, size, root="", seed=0):
    """A data set of DATASETS at `size` x `size` pixels, with these attributes; root: the folder of its files.

    Returns two Data, train and test: its own partition, else 90 % and 10 % by the seed (a folder: by names).
    """
    if name not in DATASETS:
        own = f"for pictures of your own type --data folder --root {quote(name)}"
        raise InputError(f"unknown data set {name!r}: "
                         f"{own if Path(name).is_dir() else nearest(name, DATASETS)}")
    read, layout = DATASETS[name]
    if layout and not root:
        raise InputError(f"--data {name} needs --root: the folder that holds {layout}")
    if root and not Path(root).is_dir():
        raise InputError(f"--root {root}: there is no such folder; {name} needs {layout or 'none'}")
    if root and not layout:
        print(f"note: --data {name} needs no files: --root {root} is not looked at")
    try:
        train, test = read(tuple(attrs), size, root, seed)
    except FileNotFoundError as error:  # of `find`
        raise InputError(f"{error}; {name} has {layout}") from None
    for part, kind in ((train, "training"), (test, "test")):
        for attr, n in zip(attrs, part.labels.sum(0).tolist()):
            if not 2 <= n <= len(part) - 2:
                raise InputError(f"{n} of {len(part)} {kind} pictures have {attr!r}: pairs need two with it "
                                 f"and two without; choose another attribute or add pictures")
            if part is train and min(n, len(part) - n) < 50:
                print(f"note: {n} of {len(part)} training pictures have {attr!r}: a trial needs some "
                      f"hundreds with it and without")
    return train, test


def nearest(name, names):
    """The end of an error message: those of the allowed names that are most like the given one."""
    return f"of {len(names)} the nearest are {', '.join(map(repr, get_close_matches(name, names, 6, 0)))}"


def split(whole, seed):
    """The two parts of a Data: train, 90 % of the pictures, and test, 10 %, chosen by the seed."""
    is_test = torch.from_numpy(test_mask(range(len(whole)), seed))
    return whole[~is_test], whole[is_test]


def test_mask(groups, seed):
    """10 % of the groups, for the test part: bool (N,). groups: of N pictures, whose each is (a person's)."""
    names, group = np.unique(np.asarray(groups), return_inverse=True)
    order = np.random.RandomState(seed).permutation(len(names))  # (alike in every numpy)
    return (order < len(names) / 10)[group]


def identities(things):
    """A number for each name, or the bytes of a picture, int64 (N,): a hash, by which it is known again."""
    hashes = (hashlib.sha256(os.fsencode(thing)).digest()[:8] for thing in things)
    return np.array([int.from_bytes(some, "little", signed=True) for some in hashes])


def held_out(names, has):
    """10 % of the pictures for the test part, at least two of each class: bool (N,). has: bool (N,).

    Its name decides of each by itself, so no training picture is held out when others come.
    """
    places = identities(names) / 2 ** 64 + 0.5  # uniform in [0, 1)
    second = [np.sort(places[has == label])[:2][-1] for label in (False, True)]
    return places <= np.maximum(0.1, np.where(has, second[1], second[0]))


def pair_labels(x_has, y_has):
    """Sec. 3.1: r_k = +1 where y has attribute k and x doesn't, -1 the other way round, 0 where they agree.

    x_has, y_has: bool (B, K), the pictures' labels. Returns float (B, K).
    """
    return y_has.float() - x_has.float()


def pairs(data, batch, rng, device="cpu"):
    """An endless stream of (x, y, r), relative attributes (Sec. 3.1): r_k = sign(label_k(y) - label_k(x)).

    x, y: float (batch, 3, H, W) in [-1, 1], mirrored at random; r: float (batch, K) in {-1, 0, +1}.
    Each pair is made to differ in one attribute, chosen at random: in half of a batch y has it, in half x,
    however rare it is. The others fall as they may (Remark 1); so with K = 1 no r is 0.
    rng: the CPU torch.Generator that decides all of it (its state is all that a resumed run needs).
    """
    K = data.labels.shape[1]
    order = data.labels.int().argsort(dim=0, stable=True)  # (N, K) for each attribute: first those without it
    without = (~data.labels).sum(0)  # (K,)
    free = torch.cuda.mem_get_info(device)[0] if torch.device(device).type == "cuda" else 0
    images = data.images.to(device if data.images.numel() < free / 2 else "cpu")  # (as bytes they fit)

    def pick(k, has):  # a random row for each pair, with or without attribute k
        count = torch.where(has, len(data) - without[k], without[k])
        place = torch.rand(batch, generator=rng, dtype=torch.float64) * count  # (float32 may round up)
        return order[place.long() + torch.where(has, without[k], 0), k]

    def pictures(rows):
        return mirrored(as_float(images[rows.to(images.device)].to(device)), rng)

    while True:
        k = torch.randint(K, (batch,), generator=rng)
        first = torch.randint(2, (1,), generator=rng) == 1  # the y of one half have it (of odd batches, too)
        y_has = (torch.arange(batch) < batch / 2) == first
        i, j = pick(k, ~y_has), pick(k, y_has)
        r = pair_labels(data.labels[i], data.labels[j])
        yield pictures(i), pictures(j), r.to(device)


# ------------------------------------------------------------------------------------------------------------
# Drawn faces: the embedded data set

FACE_ATTRS = ("smile", "mouth_open", "frown", "beard")  # frown: of the brows
SKIN = np.float32([[0.99, 0.86, 0.76], [0.93, 0.74, 0.58], [0.76, 0.55, 0.39],
                   [0.58, 0.40, 0.28], [0.42, 0.28, 0.20]])
HAIR = np.float32([[0.09, 0.07, 0.07], [0.30, 0.18, 0.10], [0.58, 0.27, 0.12],
                   [0.85, 0.66, 0.34], [0.66, 0.64, 0.62], [0.20, 0.32, 0.50]])
TRAITS = 43  # numbers that make a person, beside the attributes


def faces(attrs, size, seed=0, n=10000):
    """n drawn faces. A strength is uniform in [0, 1] and independent of all else; label = strength > 0.5."""
    for name in set(attrs) - set(FACE_ATTRS):
        raise InputError(f"unknown attribute {name!r}: {nearest(name, FACE_ATTRS)}")
    columns(attrs, FACE_ATTRS, "faces")  # (none is given twice)
    person = np.random.RandomState(seed).random_sample((n, len(FACE_ATTRS) + TRAITS)).astype(np.float32)
    strength = torch.from_numpy(person[:, [FACE_ATTRS.index(a) for a in attrs]])
    return Data(draw_faces(person, size), strength > 0.5, attrs, strength, person)


def drawn(attrs, size, root, seed):
    """10,000 drawn faces, 90/10."""
    return split(faces(attrs, size, seed), seed)


def redraw(some, strength):
    """The same persons with other strengths, float (N, K) in [0, 1], of some.attrs: uint8 (N, 3, H, W)."""
    person = some.person.copy()
    person[:, [FACE_ATTRS.index(a) for a in some.attrs]] = strength
    return draw_faces(person, some.images.shape[-1])


def region(some, k):
    """The pixels that attribute k can change: bool (N, 1, H, W), found by drawing all its strengths."""
    low = high = redraw(some, some.strength)
    strength = some.strength.clone()
    for s in torch.linspace(0, 1, 11):
        strength[:, k] = s
        picture = redraw(some, strength)
        low, high = torch.minimum(low, picture), torch.maximum(high, picture)
    return (low < high).any(1, keepdim=True)


def draw_faces(person, size, chunk=50):
    """Persons, float32 (n, 4 + TRAITS), strengths of FACE_ATTRS first, as uint8 (n, 3, size, size)."""
    with ThreadPoolExecutor() as pool:  # numpy works outside the interpreter's lock
        parts = pool.map(lambda i: _draw(person[i:i + chunk], size), range(0, len(person), chunk))
        return torch.from_numpy(np.concatenate(list(parts)))


def _draw(person, size):
    """Signed-distance shapes painted one over the other, anti-aliased, from the background to the mouth.

    Uses only + - * / sqrt, min and max of float32: they round alike on every machine (sin and exp do not).
    """
    n, px = len(person), np.float32(2 / size)  # the picture spans [-1, 1], y down
    grid = (np.arange(size, dtype=np.float32) + 0.5) * px - 1
    draws = iter(person.T)
    smile, mouth_open, frown, beard = (next(draws)[:, None, None] for _ in FACE_ATTRS)

    def trait(low, high):
        return (low + (high - low) * next(draws))[:, None, None]

    def colour(palette):
        t = next(draws) * (len(palette) - 1)
        i = np.minimum(t.astype(int), len(palette) - 2)
        mix = palette[i] + (t - i).astype(np.float32)[:, None] * (palette[i + 1] - palette[i])
        return mix[:, :, None, None] * (1 + trait(-0.08, 0.08)[:, None])

    def any_colour(low, high):
        return np.stack([trait(low, high) for _ in range(3)], 1)

    def ellipse(x, y, rx, ry):
        return (np.sqrt((x / rx) ** 2 + (y / ry) ** 2) - 1) * np.minimum(rx, ry)

    def cover(distance):  # 1 inside, 0 outside, a ramp of one pixel between
        return np.minimum(np.maximum(0.5 - distance / px, 0), 1)

    def paint(mask, rgb, rows=slice(None)):
        part = image[:, :, rows]
        part += mask[:, None] * (rgb - part)

    def window(top, bottom):  # small parts are drawn in their rows only
        rows = slice(int((top + 1) / 2 * size), int((bottom + 1) / 2 * size))
        return rows, grid[None, rows, None] - cy

    image = np.empty((n, 3, size, size), np.float32)  # background, and the person's place in it
    image[:] = trait(0.4, 0.85)[:, None] + any_colour(-0.2, 0.2)
    image += any_colour(-0.15, 0.15) * grid[:, None]
    cx, cy, w, h = trait(-0.1, 0.1), trait(-0.04, 0.1), trait(0.46, 0.58), trait(0.62, 0.74)
    x, y = grid[None, None, :] - cx, grid[None, :, None] - cy
    skin, hair, shirt = colour(SKIN), colour(HAIR), any_colour(0.1, 0.9)
    length, volume = trait(-0.3, 1.0), trait(0.02, 0.16)  # hair behind: cropped to long, round to straight
    back = ellipse(x, y + 0.1, w + volume, h + volume)
    long = np.maximum(np.abs(x) - w - volume * 0.8, np.maximum(-y - 0.1, y - length))
    paint(cover(np.minimum(back, long) + np.maximum(y - np.maximum(length, 0), 0)), hair)
    rows, yw = window(0.3, 1)  # shoulders, neck, ears, head
    paint(cover(ellipse(x, yw - 1.15, 0.85, 0.45)), shirt, rows)
    paint(cover(np.maximum(np.abs(x) - 0.45 * w, yw - 0.85)), skin * 0.82, rows)
    rows, yw = window(-0.3, 0.5)
    paint(cover(ellipse(np.abs(x) - w, yw - 0.02, 0.09, 0.14)), skin * 0.9, rows)
    jaw = 1 - trait(0.0, 0.22) * np.maximum(y, 0)  # narrower towards the chin
    head = ellipse(x / jaw, y, w, h)
    inside = cover(head)
    side = trait(-0.35, 0.35)  # light from the left or the right
    paint(inside, skin * (1 + side * x)[:, None])
    rows, yw = window(-0.1, 1)  # beard: grows down from the jaw's edge over cheeks and chin, and thicker
    edge = 0.62 - 0.5 * beard + 0.22 * (1 - np.minimum(x / w, 1) ** 2)
    grown = np.minimum(np.maximum((yw - edge * h) / 0.12, 0), 1) * np.minimum(beard * 4, 1)
    paint(inside[:, rows] * grown * (0.45 + 0.5 * beard), hair * 0.65, rows)
    rows, yw = window(-1, 0.5)  # fringe
    line = -trait(0.42, 0.72) * h + trait(-0.5, 0.5) * x + trait(-0.6, 0.9) * x ** 2
    paint(cover(np.maximum(ellipse(x, yw, w + 0.02, h + 0.02), yw - line)), hair * 0.92, rows)
    apart, eye_y, eye = trait(0.19, 0.25), trait(-0.14, -0.04), trait(0.085, 0.115)
    rows, yw = window(-0.65, 0.3)
    ax = np.abs(x) - apart  # eyes and brows, both sides at once
    white = cover(ellipse(ax, yw - eye_y, eye, eye * trait(0.6, 0.9)))
    paint(white, 0.97, rows)
    iris = any_colour(0.1, 0.6)
    gaze = trait(-0.03, 0.03)
    ex = np.abs(x - gaze) - apart
    paint(white * cover(ellipse(ex, yw - eye_y, eye * 0.6, eye * 0.6)), iris, rows)
    paint(white * cover(ellipse(ex, yw - eye_y, eye * 0.3, eye * 0.3)), 0.05, rows)
    slope = 1.1 * frown - 0.5  # frown: the inner ends go down
    drop = 0.07 * frown - trait(0.14, 0.2) - 0.03
    curve = eye_y - eye + drop + 0.08 - slope * ax + trait(0.5, 2.0) * ax ** 2
    paint(cover(np.maximum(np.abs(yw - curve) - trait(0.03, 0.05), np.abs(ax) - 0.14)), hair * 0.4, rows)
    nose = trait(0.05, 0.09)  # nose
    rows, yw = window(-0.1, 0.45)
    paint(cover(ellipse(x, yw - trait(0.1, 0.16), nose, nose * 0.8)) * 0.5, skin * 0.7, rows)
    rows, yw = window(0.05, 0.95)  # mouth: lips along a parabola; smile bends, mouth_open parts them
    mx, my, lip = trait(0.24, 0.32), trait(0.33, 0.4), trait(0.035, 0.05)
    t = np.minimum((x / mx) ** 2, 1)
    bend = 0.32 * (smile - 0.5)
    off = yw - my * h / 0.66 - bend * (0.5 - t)
    steep = np.sqrt(1 + (2 * bend * x / mx ** 2) ** 2)  # distance along the normal, not along y
    gap = 0.14 * mouth_open * (1 - t)
    ends = np.abs(x) - mx
    red = np.minimum(skin * np.float32([0.72, 0.42, 0.42])[:, None, None]
                     + np.float32([0.16, 0, 0.02])[:, None, None], 1)
    paint(cover(np.maximum((np.abs(off) - gap - lip * (1 - 0.4 * t)) / steep, ends)), red, rows)
    hole = cover(np.maximum((np.abs(off) - gap) / steep, ends)) * np.minimum(mouth_open * 8, 1)
    paint(hole, 0.12, rows)
    paint(hole * cover(off + gap * 0.2), 0.95, rows)
    image *= (1 + trait(-0.12, 0.12) * grid[None, None, :]  # light over everything
              + trait(-0.12, 0.12) * grid[None, :, None])[:, None]
    return (np.minimum(np.maximum(image, 0), 1) * 255 + 0.5).astype(np.uint8)


# ------------------------------------------------------------------------------------------------------------
# Lines of progress, files, and pictures in them

def teller():
    """A function that shows a line of progress: rewritten in place in a terminal, else every ten seconds."""
    shown = -10.0

    def tell(text):
        nonlocal shown
        if sys.stdout.isatty():
            print("\r" + text[:79].ljust(79), end="" if text else "\r", flush=True)
        elif text and time.monotonic() - shown >= 10:
            shown = time.monotonic()
            print(text, flush=True)
    return tell


def make_folder(out):
    """Make the folder `out` and see that it can be written to."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out).close()
    except OSError as error:
        raise InputError(f"{out}: cannot write there ({error.strerror}); name another folder") from None


@contextmanager
def alone(out):
    """Within it the folder `out`, which is made, is this program's alone; InputError if it is another's."""
    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    make_folder(out)
    with ExitStack() as stack:
        try:  # SQLite's locks are alike on all systems, and end with the process, whatever ends that
            lock = sqlite3.connect(out / "trip.lock", timeout=0, check_same_thread=False)
            stack.enter_context(closing(lock)).executescript("PRAGMA journal_mode=OFF; BEGIN EXCLUSIVE")
        except sqlite3.Error as error:
            if "locked" in str(error):  # (else there can be no lock here)
                raise InputError(f"another program works on the run in {out}: wait for its end or stop it, "
                                 f"or name another folder with --out") from None
        else:
            stack.callback((out / "trip.lock").unlink, missing_ok=True)
        try:
            yield
        finally:
            stack.close()
            with suppress(OSError):
                for folder in made:
                    folder.rmdir()  # (empty if nothing came of it)


def write(path, put):
    """A file, whole at any moment: put(file) writes under a name of its own first, then it is renamed."""
    new = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        with open(new, "wb") as file:
            put(file)
            file.flush()
            os.fsync(file.fileno())  # or the name might reach the disk before what it names
        os.replace(new, path)
    except (OSError, RuntimeError) as error:  # (the second: torch's word for a full disk)
        reason = getattr(error, "strerror", None) or "is the disk full?"
        raise OSError(f"{path}: cannot be written ({reason})") from None
    finally:
        new.unlink(missing_ok=True)


RECIPE = "1: white behind, centre square, Lanczos"  # to be changed with `read_picture`: see `from_files`
ENDINGS = ".jpg .jpeg .jfif .png .webp .bmp .gif .tif .tiff .ppm .pgm .avif .heic .heif".split()
left_behind = re.compile(r"\..*|thumbs\.db|desktop\.ini|__MACOSX|@eaDir|\$RECYCLE\.BIN", re.I).fullmatch


def read_picture(path, size, half=None):
    """The centre of a picture, or of a half of it (0, 1): uint8 (3, size, size)."""
    picture = open_picture(path)
    if half is not None:
        w, h = picture.size
        if abs(w - 2 * h) > 2:
            raise InputError(f"{path}: it has {w} x {h} pixels, but a pair is twice as wide as high")
        picture = picture.crop((w // 2 * half, 0, w // 2 * (half + 1), h))
    picture = ImageOps.fit(picture, (size, size), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


def upright(file):
    """An opened PIL picture, turned as its EXIF data say; as it lies where they are damaged."""
    file.load()
    try:
        return ImageOps.exif_transpose(file)
    except Exception:  # whatever strange data may lead to, in Pillow
        return file.copy()


def open_picture(path):
    """A picture file as an upright PIL image in RGB, white where transparent."""
    reason = "it cannot be read as a picture" if Path(path).exists() else "there is no such file"
    try:
        with Image.open(path) as file:
            picture = upright(file)
            if picture.mode[0] in "IF":  # of unknown white; convert() would clip them
                reason = f"it has deep grey (mode {picture.mode}), not 8 bits"
                raise ValueError
            if picture.mode != "RGB" or "transparency" in picture.info:
                white, picture = Image.new("RGBA", picture.size, "white"), picture.convert("RGBA")
                picture = Image.alpha_composite(white, picture).convert("RGB")
            return picture
    except Image.DecompressionBombError:
        reason = "it is too large, more than 178 million pixels (shrink it)"
    except (OSError, SyntaxError, ValueError):  # Pillow's, by format
        if str(path).lower().endswith((".heic", ".heif")):
            reason = "it is a HEIC picture, which can be read after pip install pillow-heif"
    raise InputError(f"{path}: {reason}; give a JPEG, PNG or other picture file")


def visible(root, paths):
    """Those of the paths under root, in order, that no system has left behind there."""
    return [path for path in sorted(paths, key=str)
            if not any(map(left_behind, path.relative_to(root).parts))]


def picture_files(folder):
    """The paths of the pictures under a folder, in order; tells of files that by their endings are none."""
    paths = [path for path in visible(folder, folder.rglob("*")) if path.is_symlink() or not path.is_dir()]
    pictures = [path for path in paths if path.suffix.lower() in ENDINGS and path.is_file()]
    others = [path.name for path in sorted({*paths} - {*pictures})]
    if not pictures:
        raise InputError(f"{folder}: the folder holds no pictures; found {others[:4]}")
    if others:
        print(f"note: {len(others)} files under {folder} are no pictures; found {others[:4]}")
    return pictures


def find(root, *names):
    """The file or folder of one of these names, in root or up to two folders deeper, as zips nest them."""
    for pattern in (depth + name for name in names for depth in ("", "*/", "*/*/")):
        paths = visible(root, Path(root).glob(pattern))
        paths = [path for path in paths if path.is_file() == bool(path.suffix)]  # (Kaggle has a.csv/a.csv)
        if len(paths) > 1:
            raise InputError(f"{paths[0]} and {paths[1]}: name the folder of one of them as --root")
        if paths:
            return paths[0]
    raise FileNotFoundError(f"no {names[0]} in {root} or 2 below; found {sorted(os.listdir(root))[:4]}")


def from_files(name, root, files, labels, attrs, size, is_test, halves=None):
    """Data of picture files, train and test, each in an order fixed by chance.

    files: N paths; labels: bool (N, K); is_test: bool (N,); halves: N numbers for `read_picture`. They are
    decoded once, into root/trip-NAME-SIZEpx-KEY.raw, and mapped from there; KEY: of names, sizes and dates.
    """
    rng = np.random.RandomState(0)
    order = np.concatenate([rng.permutation(np.flatnonzero(is_test == part)) for part in (False, True)])
    sources = [(files[i], halves and halves[i]) for i in order]
    about = [(os.path.relpath(file, root), half, os.stat(file)) for file, half in sources]
    about = [(name, half, stat.st_size, stat.st_mtime_ns) for name, half, stat in about]
    key = hashlib.sha256(f"{RECIPE} {about}".encode()).hexdigest()[:12]
    path = Path(root) / f"trip-{name}-{size}px-{key}.raw"
    images, broken = decode(path, sources, size)
    for error in broken.values():
        print(f"left out: {error.split(';')[0]}")
    good = np.delete(order, list(map(int, broken)))  # the pictures in the file, row by row
    ids = identities(f"{file.parent.name}/{file.name}" for file in files)
    whole = Data(torch.from_numpy(images[:len(good)]), torch.from_numpy(labels[good]), attrs,
                 ids=torch.from_numpy(ids[good]))
    n = int((~is_test[good]).sum())
    return whole[:n], whole[n:]


def decode(path, sources, size, chunk=256):
    """Pictures, sources: n times (file, half), as an array mapped from a file, uint8 (n, 3, size, size).

    Returns it, and {place: error} of the broken, which have no row: as many at the end are empty. The .json
    says how far it is: what was interrupted goes on there. Two processes at once write the same bytes.
    """
    n, tell, note = len(sources), teller(), path.with_suffix(".json")
    shape, done, broken = (n, 3, size, size), 0, {}
    with suppress(OSError, ValueError, TypeError):
        if path.stat().st_size == math.prod(shape):
            done, broken = json.loads(note.read_text())
    if done < n:
        for old in {*path.parent.glob(path.stem[:-12] + "*.raw")} - {path}:  # of other pictures, or a part
            with suppress(OSError):  # (Windows removes none in use)
                old.unlink()
                old.with_suffix(".json").unlink()
        free, needed = shutil.disk_usage(path.parent).free // 1e6, math.prod(shape) * (1 - done / n) // 1e6 + 1
        if free < needed:
            raise InputError(f"{path.parent}: {needed:.0f} MB are needed, {free:.0f} are free; make room")
        try:
            with open(path, "ab") as file:
                file.truncate(math.prod(shape))
        except OSError as error:
            raise InputError(f"{path.parent}: cannot write there ({error.strerror}), where resized pictures "
                             f"are kept; give a copy as --root") from None
    with ThreadPoolExecutor() as pool:  # Pillow works outside the interpreter's lock
        while done < n:
            some = [pool.submit(read_picture, file, size, half) for file, half in sources[done:done + chunk]]
            at, good = (done - len(broken)) * math.prod(shape[1:]), []
            for place, picture in enumerate(some, done):
                try:
                    good.append(picture.result().numpy().tobytes())
                except InputError as error:
                    broken[str(place)] = str(error)
            done += len(some)
            if len(broken) > max(2, n / 100):  # (two: the halves of a broken pair)
                large = sum("too large" in error for error in broken.values())
                raise InputError(f"{len(broken) - large} of the first {done} pictures are broken and {large} "
                                 f"too large, more than 1 % of all {n}; remove or mend them: "
                                 f"{list(broken.values())[-1]}")
            with open(path, "r+b") as file:  # (not mapped: there a full disk is a signal)
                file.seek(at)
                file.write(b"".join(good))
            write(note, lambda file: file.write(json.dumps([done, broken]).encode()))
            tell(f"reading pictures, once: {done} of {n}")
    tell("")
    return np.memmap(path, np.uint8, "c", shape=shape), broken


# ------------------------------------------------------------------------------------------------------------
# The data sets

SHORT = {"smile": "smiling", "mouthopen": "mouthslightlyopen", "gender": "male", "frown": "frowning",
         "cheekbones": "highcheekbones"}  # the paper's names for attributes of CelebA and LFWA


def columns(attrs, names, source):
    """The column of each attribute among a data set's names, by letters and digits, or by SHORT."""
    typed, known = ([re.sub(r"[\W_]", "", name.lower()) for name in some] for some in (attrs, names))
    typed = [word if word in known else SHORT.get(word) for word in typed]
    for attr, word in zip(attrs, typed):
        if word not in known:
            raise InputError(f"unknown attribute {attr!r} in {source}: {nearest(attr, names)}")
        if typed.count(word) > 1:
            raise InputError(f"attribute given twice: {' '.join(attrs)}; name each once")
    return [known.index(word) for word in typed]


def lines_of(path):
    """The lines of a text file that aren't empty; of a .csv, with spaces for commas."""
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    if re.match(r"(?is)\s*(<!doctype|<html|version https://git-lfs|$)|.*\ufffd", text):  # (Google's)
        raise InputError(f"{path}: no table, but {text.strip()[:40]!r}; get it by a browser or git lfs pull")
    text = text.replace(",", " ") if path.suffix == ".csv" else text
    return [line.rstrip() for line in text.splitlines() if line.strip()]


def table(path, folder, attrs, skip=0, between=None, file=lambda name, values: name):
    """A table's pictures that are in a folder, which may be of a cut copy: their N paths, and bool (N, K).

    Its second line names the columns, after `skip` other words; the others have a picture's name, as `file`
    reads it, and numbers whose signs are the labels. Where skip = 0, the first line is their count.
    """
    lines = [""] * (path.suffix == ".csv") + lines_of(path)
    first, header, lines = lines[:1], lines[1:2], lines[2:]
    if not lines or not skip and first != [str(len(lines))]:
        raise InputError(f"{path}: {len(lines)} lines follow the second, the first is {first}; is it whole?")
    header = header[0].split(between)[skip:]
    if skip == 2 and header[:1] != ["imagenum"]:
        raise InputError(f"{path}: its second line should be '#, person, imagenum', attributes, tabs between")
    try:
        values = np.loadtxt(lines, np.float32, None, between, {0: len}, ndmin=2)[:, 1:]  # (len: of the name)
    except ValueError as error:
        raise InputError(f"{path}: {error}; is the file whole?") from None
    if values.shape[1] != len(header) or not np.isfinite(values).all():
        raise InputError(f"{path}: expected a name and {len(header)} numbers a line; is the file whole?")
    folder = folder / folder.name if (folder / folder.name).is_dir() else folder  # as Kaggle's zips nest it
    files = [folder / file(line.split(between)[0], row) for line, row in zip(lines, values)]
    there = [i for i, name in enumerate(files) if name.is_file()]
    if not there:
        raise InputError(f"{folder}: holds none of the {len(files)} pictures that {path.name} names, "
                         f"{files[0].name} ...; found {sorted(os.listdir(folder))[:4]}")
    if len(there) < len(files):
        print(f"note: {len(there)} of the {len(files)} pictures that {path.name} names are in {folder}")
    return [files[i] for i in there], values[there][:, columns(attrs, header, path.name)] > 0


def celeba(attrs, size, root, seed):
    """CelebA, its own partition; 90/10 where that leaves a part empty."""
    path = find(root, "list_attr_celeba.txt", "list_attr_celeba.csv")
    files, labels = table(path, find(root, "img_align_celeba"), attrs, skip=path.suffix == ".csv")
    path = find(root, "list_eval_partition.txt", "list_eval_partition.csv")
    part = dict(line.split() for line in lines_of(path) if len(line.split()) == 2)
    for file in files:
        if part.get(file.name) not in ("0", "1", "2"):
            raise InputError(f"{path}: says nothing of {file.name}; is the file whole?")
    is_test = np.array([part[file.name] == "2" for file in files])
    if is_test.all() or not is_test.any():  # (the first ten thousand are all of the training part)
        print(f"note: {path.name} has all of these {len(files)} pictures in one part: 10 % are held out")
        is_test = test_mask(range(len(files)), seed)
    return from_files("celeba", root, files, labels, attrs, size, is_test)


def celeba_hq(attrs, size, root, seed):
    """CelebA-HQ as CelebAMask-HQ has it, 90/10."""
    path = find(root, "CelebAMask-HQ-attribute-anno.txt")
    files, labels = table(path, find(root, "CelebA-HQ-img"), attrs)
    return from_files("celeba-hq", root, files, labels, attrs, size, test_mask(range(len(files)), seed))


def lfwa(attrs, size, root, seed):
    """LFW with its attributes, 90/10 by person; a label is the sign of the table's score."""
    def file(name, values):
        person = name.strip().replace(" ", "_")
        return f"{person}/{person}_{int(values[0]):04d}.jpg"

    path, folder = find(root, "lfw_attributes.txt"), find(root, "lfw", "lfw_funneled", "lfw-deepfunneled")
    files, labels = table(path, folder, attrs, 2, "\t", file)  # (skipped: #, person; then imagenum)
    is_test = test_mask([file.parent.name for file in files], seed)
    return from_files("lfwa", root, files, labels, attrs, size, is_test)


def edges2shoes(attrs, size, root, seed):
    """pix2pix's pairs, edges left and shoe right; the attribute is `edges`, val is the test part."""
    columns(attrs, ["edges"], "edges2shoes")
    train, val = picture_files(find(root, "train")), picture_files(find(root, "val"))
    files, halves = np.repeat(train + val, 2), [0, 1] * len(train + val)
    labels, is_test = np.array(halves)[:, None] == 0, np.arange(len(files)) >= 2 * len(train)
    return from_files("edges2shoes", root, files, labels, attrs, size, is_test, halves)


def folder(attrs, size, root, seed):
    """Two folders of pictures, one for each class: --attr NAME is the one whose pictures have it.

    They lie in root, see `held_out`, or in train/ and val/ there, as torchvision and Kaggle have them.
    """
    def inside(place):  # (runs are no classes)
        return [path for path in visible(place, place.iterdir())
                if path.is_dir() and not [*path.glob("trip.[pl]*"), *path.glob("*/trip.[pl]*")]]

    def plain(name):  # (a Mac writes letters and their accents apart)
        return unicodedata.normalize("NFC", name).lower()

    classes = inside(Path(root))
    if len(classes) == 1:  # one folder too many, as zips nest them
        classes = inside(classes[0]) or classes
    named = {path.name.lower(): inside(path) for path in classes}
    val = next((name for name in ("val", "valid", "validation", "test") if named.get(name)), None)
    parts = [named["train"], named[val]] if val and named.get("train") else [classes]
    names, others = ([path.name for path in part] for part in (parts[0], parts[-1]))
    if names != others:
        raise InputError(f"{root}: train/ has the classes {names[:4]}, {val}/ has {others[:4]}")
    typed = [name for name in names if plain(name) == plain(attrs[0].rstrip("/\\"))]
    mine = attrs[0] if attrs[0] in typed else typed and typed[0]
    if len(names) != 2 or len(attrs) != 1 or not mine:
        raise InputError(f"--data folder takes one --attr, the name of one of two folders under {root}, not "
                         f"{' '.join(attrs)!r}; found {names[:4]}")
    found = [(path, os.path.relpath(path, place.parent), place.name == mine, bool(part))
             for part, places in enumerate(parts) for place in places for path in picture_files(place)]
    files, names, *flags = zip(*found)
    has, is_test = map(np.array, flags)
    is_test = is_test if len(parts) > 1 else held_out(names, has)
    train, test = from_files("folder", root, files, has[:, None], attrs, size, is_test)
    for part in (train, test):  # (whatever becomes of names and folders)
        part.ids = torch.from_numpy(identities(picture.numpy().tobytes() for picture in part.images))
    if len(parts) > 1:
        print(f"note: {val}/ is the test part")
    elif {path.parent for path in files} - {*classes}:
        print("note: 10 % of the pictures are held out, whatever their folders; if a person or a film has "
              "several, put the classes into train/ and val/")
    return train, test


# name: function(attrs, size, root, seed) -> (train, test), and what lies under root
DATASETS = {
    "faces": (drawn, ""),
    "folder": (folder, "two folders of pictures, one for each class"),
    "celeba": (celeba, "list_attr_celeba.txt, list_eval_partition.txt and img_align_celeba/, all from "
                       "mmlab.ie.cuhk.edu.hk/projects/CelebA.html"),
    "celeba-hq": (celeba_hq, "CelebA-HQ-img/ and CelebAMask-HQ-attribute-anno.txt"),
    "lfwa": (lfwa, "lfw_attributes.txt and lfw/ (or lfw_funneled/, lfw-deepfunneled/)"),
    "edges2shoes": (edges2shoes, "train/ and val/, with pictures")}
