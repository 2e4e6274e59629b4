"""Relative attributes from binary labels: data sets, and the endless stream of pairs (x, y, r) for TRIP.

    train, test = load("faces", ["smile"], size=64)     # two `Data`: pictures, labels and, of drawn faces, the truth
    stream = pairs(train, batch=16, rng=torch.Generator().manual_seed(0))
    x, y, r = next(stream)  # r = +1: y smiles and x doesn't; -1: the other way round

`faces` needs no file: it is drawn by formula. `folder` takes two folders of your own pictures. `celeba`,
`celeba-hq`, `lfwa` and `edges2shoes` are the paper's, and read the files as they are published. Each is a function
in the table DATASETS. What the programs of this repository share (mistakes, files, processes) stands at the end.
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import time
import unicodedata
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from difflib import get_close_matches
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from PIL import Image, ImageOps

with suppress(ImportError):  # HEIC, as an iPhone writes it
    import pillow_heif
    pillow_heif.register_heif_opener()


class InputError(ValueError):
    """What was asked for cannot be done. The message is one line: what was given, and what to type instead."""


class Diverged(ArithmeticError):
    """Something in a run is no longer finite; the message says what, and when."""


@dataclass
class Data:
    """A data set, N pictures with K attributes.

    images: uint8 (N, 3, H, W), in memory or mapped from a file; labels: bool (N, K); attrs: the K names.
    The truth, where the data set knows it, is for evaluation only and never for training:
    strength: float (N, K) in [0, 1]; person: float (N, P), whatever it takes to draw the face again (see `redraw`).
    """
    images: torch.Tensor
    labels: torch.Tensor
    attrs: tuple
    strength: torch.Tensor | None = None
    person: np.ndarray | None = None

    def __len__(self):
        return len(self.images)

    def __getitem__(self, rows):
        """The same data set with these rows only (a slice, or a tensor of indices)."""
        return Data(self.images[rows], self.labels[rows], self.attrs,
                    None if self.strength is None else self.strength[rows],
                    None if self.person is None else self.person[rows])


def as_float(images):
    """uint8 pixels in 0 .. 255 to float pixels in [-1, 1], any shape."""
    return images.float() / 127.5 - 1


def mirrored(x, rng):
    """Pictures (B, 3, H, W), each mirrored with probability 1/2."""
    return torch.where(torch.rand(len(x), 1, 1, 1, generator=rng).to(x.device) < 0.5, x.flip(3), x)


def read_picture(path, size, half=None, crop=None):
    """The centre of a picture file, uint8 (3, size, size). half: 0, 1: left, right half; crop: left, top, side."""
    picture = open_picture(path)
    w, h = picture.size
    if half is not None:
        if abs(w - 2 * h) > 2:
            raise InputError(f"{path}: it has {w} x {h} pixels, but a pair is twice as wide as high; give two squares "
                             f"side by side")
        picture = picture.crop((w // 2 * half, 0, w // 2 * (half + 1), h))
    if crop:
        picture = picture.crop((*crop[:2], crop[0] + crop[2], crop[1] + crop[2]))
    picture = ImageOps.fit(picture, (size, size), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


def open_picture(path):
    """A picture file of any mode as an upright PIL image in RGB, white where transparent; InputError if it is none."""
    try:
        with warnings.catch_warnings(), Image.open(path) as file:
            warnings.simplefilter("ignore")
            picture = ImageOps.exif_transpose(file)
            if picture.mode[0] in "IF":  # 16 bits and more of grey, which convert() would clip
                picture = Image.fromarray(grey_bytes(np.asarray(picture, float)))
            if picture.mode != "RGB" or "transparency" in picture.info:
                picture = picture.convert("RGBA")
                picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
            return picture
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # what Pillow raises, by format
        reason = "there is no such file" if isinstance(error, FileNotFoundError) else "it cannot be read as a picture"
        if os.path.isfile(path) and re.match(rb"....ftyp(hei|hev|mif|msf)", Path(path).read_bytes()[:12], re.S):
            reason = "it is a HEIC picture, which can be read after pip install pillow-heif"
        raise InputError(f"{path}: {reason}; give a JPEG, PNG or other picture file") from None


def grey_bytes(deep):
    """Deep grey as uint8: 0 .. 1, .. 255, .. 1023 or so on to white, or from lowest to highest where that fails."""
    deep = np.where(np.isfinite(deep), deep, 0)
    low, high = min(0, deep.min()), deep.max()
    white = next(top for top in (1, *(2 ** bits - 1 for bits in range(8, 34, 2)), high) if high <= top)
    if low == 0 and high > white / 16:  # (else all would be dark)
        high = white
    return ((deep - low) / ((high - low) or 1) * 255).astype(np.uint8)


def nearest(name, names):
    """The end of an error message: the nearest of the allowed names, and all of them where they are few."""
    plain = {n.lower(): n for n in names}
    close = [plain[n] for n in get_close_matches(str(name).lower(), list(plain), 3, 0)]
    if len(names) > 10:
        return f"the nearest of the {len(names)} names are {', '.join(map(repr, close))}"
    return f"did you mean {close[0]!r}? (one of: {', '.join(names)})"


def load(name, attrs, size, root="", seed=0, download=False):
    """Load a data set, one of DATASETS, at `size` x `size` pixels with these attributes; root: its folder.

    Returns two Data, train and test: by the data set's own partition if it has one, else 90 % and 10 %, fixed by
    the seed, and never a person in both where persons are known. download: fetch it first (celeba only).
    Raises InputError for an unknown data set, an unknown attribute or one given twice, for files that are not as
    expected, and where there are too few pictures with or without an attribute.
    """
    if name not in DATASETS:
        raise InputError(f"unknown data set {name!r}: {nearest(name, DATASETS)}")
    if len(set(attrs)) < len(attrs):
        raise InputError(f"attribute given twice: {' '.join(attrs)}; name each once")
    if download and name != "celeba":
        raise InputError(f"--download: only celeba can be fetched, not {name}; put its files under --root")
    if not team.first:
        team.gather("the first process has prepared the files")
    if download and team.first:
        download_celeba(root)
    if root and not Path(root).is_dir():
        raise InputError(f"--root {root}: there is no such folder; give the one that holds the files of {name}")
    read, layout = DATASETS[name]
    if root and not layout:
        team.say(f"note: --data {name} needs no files: --root {root} is not looked at")
    if layout and not root:
        raise InputError(f"--data {name} needs --root: the folder that holds {layout}")
    train, test = read(tuple(attrs), size, root, seed)
    if team.first:
        team.gather("prepared")
    for part, kind in ((train, "training"), (test, "test")):
        for attr, n in zip(attrs, part.labels.sum(0).tolist()):
            if not 2 <= n <= len(part) - 2:
                raise InputError(f"{n} of {len(part)} {kind} pictures have {attr!r}: pairs need two or more with it "
                                 f"and two or more without; choose another attribute or add pictures")
    if layout and len(train) < 1000:
        team.say(f"note: {len(train)} training pictures are few, and {len(test)} to measure on; thousands are better")
    return train, test


def split(whole, seed):
    """The two parts of a Data: train, 90 % of the pictures, and test, 10 %, chosen by the seed."""
    is_test = torch.from_numpy(hold_out(range(len(whole)), seed))
    return whole[~is_test], whole[is_test]


def hold_out(groups, seed):
    """Choose 10 % of the groups (persons, say) for the test part: bool (N,). groups: a name for each of N pictures."""
    names, group = np.unique(np.asarray(groups), return_inverse=True)
    chosen = np.random.RandomState(seed).permutation(len(names)) < len(names) / 10  # (alike in every numpy)
    return chosen[group]


def pair_labels(x_has, y_has):
    """Sec. 3.1: r_k = +1 where y has attribute k and x doesn't, -1 the other way round, 0 where they agree.

    x_has, y_has: bool (B, K), the pictures' labels. Returns float (B, K).
    """
    return y_has.float() - x_has.float()


def pairs(data, batch, rng, ties=0.0, device="cpu"):
    """An endless stream of relative attributes (Sec. 3.1): (x, y, r) with r_k = sign(label_k(y) - label_k(x)).

    x, y: float (batch, 3, H, W) in [-1, 1]; r: float (batch, K) in {-1, 0, +1}.
    Each pair, but for ties, is made to differ in one attribute, chosen at random out of the K: as many +1 as -1,
    however rare the attribute is. The other attributes fall as they may, r_k = 0 where x and y agree. `ties`: the
    share of pairs from the same class, r = 0 (Remark 1), for K = 1 only.
    Each picture is mirrored with probability 1/2: twice the data for the same faces.
    rng: the CPU torch.Generator that decides all of it (its state is all that a resumed run needs).
    """
    K = data.labels.shape[1]
    order = data.labels.int().argsort(dim=0, stable=True)  # (N, K) for each attribute: first those without it
    without = (~data.labels).sum(0)  # (K,)
    free = torch.cuda.mem_get_info(device)[0] if torch.device(device).type == "cuda" else 0
    images = data.images.to(device if data.images.numel() < free / 2 else "cpu")  # bytes: they fit where floats don't

    def pick(k, has):  # a random row for each pair, with or without attribute k
        count = torch.where(has, len(data) - without[k], without[k])
        place = torch.rand(batch, generator=rng, dtype=torch.float64) * count  # (as float32 it may round up to count)
        return order[place.long() + torch.where(has, without[k], 0), k]

    def pictures(rows):
        return mirrored(as_float(images[rows.to(images.device)].to(device)), rng)

    while True:
        k = torch.randint(K, (batch,), generator=rng)
        y_has = (torch.arange(batch) + torch.randint(2, (1,), generator=rng)) % 2 == 0  # every other y has it
        tie = torch.rand(batch, generator=rng) < (ties if K == 1 else 0)
        i, j = pick(k, torch.where(tie, y_has, ~y_has)), pick(k, y_has)
        yield pictures(i), pictures(j), pair_labels(data.labels[i], data.labels[j]).to(device)


# ------------------------------------------------------------------------------------------------------------
# Drawn faces: the embedded data set

FACE_ATTRS = ("smile", "mouth_open", "frown", "beard")  # frown: of the brows
SKIN = np.float32([[0.99, 0.86, 0.76], [0.93, 0.74, 0.58], [0.76, 0.55, 0.39], [0.58, 0.40, 0.28], [0.42, 0.28, 0.20]])
HAIR = np.float32([[0.09, 0.07, 0.07], [0.30, 0.18, 0.10], [0.58, 0.27, 0.12], [0.85, 0.66, 0.34], [0.66, 0.64, 0.62],
                   [0.20, 0.32, 0.50]])
TRAITS = 43  # numbers that make a person, beside the attributes


def faces(attrs, size, seed=0, n=10000):
    """n drawn faces. A strength is uniform in [0, 1] and independent of all else; label = strength > 0.5."""
    for name in attrs:
        if name not in FACE_ATTRS:
            raise InputError(f"unknown attribute {name!r}: {nearest(name, FACE_ATTRS)}")
    person = np.random.RandomState(seed).random_sample((n, len(FACE_ATTRS) + TRAITS)).astype(np.float32)
    strength = torch.from_numpy(person[:, [FACE_ATTRS.index(a) for a in attrs]])
    return Data(draw_faces(person, size), strength > 0.5, attrs, strength, person)


def drawn(attrs, size, root, seed):
    """10,000 drawn faces, 90/10."""
    return split(faces(attrs, size, seed), seed)


def redraw(some, strength):
    """The same persons with other strengths of some.attrs; all else stays as it is.

    some: Data of drawn faces; strength: float (N, K) in [0, 1]. Returns uint8 (N, 3, H, W).
    """
    person = some.person.copy()
    person[:, [FACE_ATTRS.index(a) for a in some.attrs]] = strength
    return draw_faces(person, some.images.shape[-1])


def region(some, k):
    """The pixels that attribute k of some.attrs can change: bool (N, 1, H, W), found by drawing all its strengths."""
    low = high = redraw(some, some.strength)
    strength = some.strength.clone()
    for s in torch.linspace(0, 1, 11):
        strength[:, k] = s
        picture = redraw(some, strength)
        low, high = torch.minimum(low, picture), torch.maximum(high, picture)
    return (low < high).any(1, keepdim=True)


def draw_faces(person, size, chunk=50):
    """Draw persons, float32 (n, 4 + TRAITS), strengths of FACE_ATTRS first. Returns uint8 (n, 3, size, size)."""
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

    # background, and the person's place in it
    image = np.empty((n, 3, size, size), np.float32)
    image[:] = trait(0.4, 0.85)[:, None] + any_colour(-0.2, 0.2)
    image += any_colour(-0.15, 0.15) * grid[:, None]
    cx, cy, w, h = trait(-0.1, 0.1), trait(-0.04, 0.1), trait(0.46, 0.58), trait(0.62, 0.74)
    x, y = grid[None, None, :] - cx, grid[None, :, None] - cy
    skin, hair, shirt = colour(SKIN), colour(HAIR), any_colour(0.1, 0.9)
    # hair behind the head: from cropped to long, round to straight
    length, volume = trait(-0.3, 1.0), trait(0.02, 0.16)
    back = ellipse(x, y + 0.1, w + volume, h + volume)
    long = np.maximum(np.abs(x) - w - volume * 0.8, np.maximum(-y - 0.1, y - length))
    paint(cover(np.minimum(back, long) + np.maximum(y - np.maximum(length, 0), 0)), hair)
    # shoulders, neck, ears, head
    rows, yw = window(0.3, 1)
    paint(cover(ellipse(x, yw - 1.15, 0.85, 0.45)), shirt, rows)
    paint(cover(np.maximum(np.abs(x) - 0.45 * w, yw - 0.85)), skin * 0.82, rows)
    rows, yw = window(-0.3, 0.5)
    paint(cover(ellipse(np.abs(x) - w, yw - 0.02, 0.09, 0.14)), skin * 0.9, rows)
    jaw = 1 - trait(0.0, 0.22) * np.maximum(y, 0)  # narrower towards the chin
    head = ellipse(x / jaw, y, w, h)
    inside = cover(head)
    side = trait(-0.35, 0.35)  # light from the left or the right
    paint(inside, skin * (1 + side * x)[:, None])
    # beard: grows down from the jaw's edge over cheeks and chin, and thicker
    rows, yw = window(-0.1, 1)
    edge = 0.62 - 0.5 * beard + 0.22 * (1 - np.minimum(x / w, 1) ** 2)
    grown = np.minimum(np.maximum((yw - edge * h) / 0.12, 0), 1) * np.minimum(beard * 4, 1)
    paint(inside[:, rows] * grown * (0.45 + 0.5 * beard), hair * 0.65, rows)
    # fringe
    rows, yw = window(-1, 0.5)
    line = -trait(0.42, 0.72) * h + trait(-0.5, 0.5) * x + trait(-0.6, 0.9) * x ** 2
    paint(cover(np.maximum(ellipse(x, yw, w + 0.02, h + 0.02), yw - line)), hair * 0.92, rows)
    # eyes and brows; both sides at once, by |x|
    apart, eye_y, eye = trait(0.19, 0.25), trait(-0.14, -0.04), trait(0.085, 0.115)
    rows, yw = window(-0.65, 0.3)
    ax = np.abs(x) - apart
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
    # nose
    nose = trait(0.05, 0.09)
    rows, yw = window(-0.1, 0.45)
    paint(cover(ellipse(x, yw - trait(0.1, 0.16), nose, nose * 0.8)) * 0.5, skin * 0.7, rows)
    # mouth: two lips along a parabola; smile bends it, mouth_open parts the lips
    rows, yw = window(0.05, 0.95)
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
    # light over everything
    image *= (1 + trait(-0.12, 0.12) * grid[None, None, :] + trait(-0.12, 0.12) * grid[None, :, None])[:, None]
    return (np.minimum(np.maximum(image, 0), 1) * 255 + 0.5).astype(np.uint8)


# ------------------------------------------------------------------------------------------------------------
# Data sets of picture files

SHORT = {"smile": "smiling", "mouthopen": "mouthslightlyopen", "gender": "male", "cheekbones": "highcheekbones",
         "frown": "frowning"}  # the paper's names for attributes of CelebA and LFWA


def columns(attrs, names, source):
    """The column of each attribute among a data set's names, by letters and digits; it may also be one of SHORT."""
    def letters(name):
        return re.sub(r"[\W_]", "", name.lower())

    plain, found = {letters(name): i for i, name in enumerate(names)}, []
    for attr in attrs:
        key = letters(attr)
        key = key if key in plain else SHORT.get(key, key)
        if key not in plain:
            raise InputError(f"unknown attribute {attr!r} in {source}: {nearest(attr, names)}")
        if plain[key] in found:
            raise InputError(f"attribute given twice: {' '.join(attrs)}; name each once")
        found.append(plain[key])
    return found


# the names of files and folders that a system leaves behind; the endings of pictures
LEFT_BEHIND = re.compile(r"\..*|thumbs\.db|desktop\.ini|__MACOSX|@eaDir|\$RECYCLE\.BIN|System Volume Information", re.I)
ENDINGS = {".heic", ".heif", *(end for end, kind in Image.registered_extensions().items() if kind in Image.OPEN)}


def is_picture(path):
    """By its name or, where that has another ending than pictures have, by its first bytes."""
    if os.path.splitext(path)[1].lower() in ENDINGS:
        return os.path.exists(path)  # (a link may lead nowhere)
    with suppress(OSError, SyntaxError, ValueError, Image.DecompressionBombError), Image.open(path):
        return True


def picture_files(folder):
    """The paths of the pictures under a folder, in order; tells of others. InputError where all are others."""
    files = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not LEFT_BEHIND.fullmatch(name)]
        files += [os.path.join(place, name) for name in names if not LEFT_BEHIND.fullmatch(name)]
    good = sorted(filter(is_picture, files))
    others = [os.path.basename(path) for path in set(files) - set(good)]
    if not good:
        raise InputError(f"{folder}: the folder holds no pictures; {few(others)}")
    if others:
        team.say(f"note: {len(others)} files under {folder} are no pictures and left out; {few(others)}")
    return good


def few(names):
    """What was found, in words."""
    return "found " + (", ".join(sorted(names)[:4]) + ", ..." * (len(names) > 4) or "nothing")


def find(root, *names):
    """The path of the file or folder of one of these names, in root or up to two folders deeper, as zips nest them.

    InputError where there is none, or two.
    """
    def below(pattern):
        return [path for depth in ("", "*/", "*/*/") for path in sorted(Path(root).glob(depth + pattern))
                if not any(map(LEFT_BEHIND.fullmatch, path.relative_to(root).parts))]

    for name in names:
        found = [path for path in below(name) if path.is_file() == bool(path.suffix)]  # (a.csv/a.csv)
        if len(found) > 1 and len(found[0].parts) == len(found[1].parts):
            raise InputError(f"{found[0]} and {found[1]}: name the folder of one of them as --root")
        if found:
            return found[0]
    packed = [path.name for path in below("*") if re.search(r"\.(zip|7z|rar|tar|tgz)(\.\w+)?$", path.name)]
    raise InputError(f"{Path(root) / names[0]}: there is no such file or folder, nor further down; "
                     f"{few(os.listdir(root))}{'; unpack first: ' * bool(packed)}{', '.join(packed[:3])}")


def lines_of(path):
    """The lines of a text file, with any line ends; InputError where it is none."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{path}: it cannot be read as text; fetch it anew") from None
    if re.match(r"\s*(<!doctype|<html|version https://git-lfs)", text, re.I):  # (Google Drive's quota page)
        raise InputError(f"{path}: is {text.strip()[:40]!r}..., not the file; fetch it by a browser or git lfs pull")
    return (text.replace(",", " ") if path.suffix == ".csv" else text).splitlines()  # (Kaggle's tables have commas)


def numbers(path, rows, width):
    """Float (N, width). rows: line number -> a name and `width` numbers; InputError for a line that isn't so."""
    found = np.full((len(rows), width), np.nan, np.float32)
    for values, (_, *texts) in zip(found, rows.values()):
        with suppress(ValueError):
            values[:] = list(map(float, texts)) if len(texts) == width else np.nan
    for i in np.flatnonzero(~np.isfinite(found).all(1)):
        raise InputError(f"{path}, line {list(rows)[i]}: expected a name and {width} numbers; is the file whole?")
    return found


def from_files(name, root, files, labels, attrs, size, is_test, halves=None):
    """Data of picture files: train and test, in an order fixed by chance.

    files: N paths; labels: bool (N, K); is_test: bool (N,); halves: N numbers for `read_picture`, if any.
    The pictures are decoded and resized once, in parallel, into the file root/trip-NAME-SIZEpx.npy, training part
    first; after that they are mapped from there and need not fit in memory. A file list, file size or date that
    changed makes it anew; a build that was interrupted goes on where it stopped. Files that are no picture are
    named and left out.
    """
    rng = np.random.RandomState(0)
    order = np.concatenate([rng.permutation(np.flatnonzero(~is_test)), rng.permutation(np.flatnonzero(is_test))])
    digest = hashlib.sha256(repr((size, halves)).encode())
    for i in order:
        about = os.stat(files[i])
        name_of = os.fsencode(os.path.relpath(files[i], root))  # bytes: it may be no UTF-8
        digest.update(name_of + f" {about.st_size} {about.st_mtime_ns}\n".encode())
    images, broken = decode(Path(root) / f"trip-{name}-{size}px", digest.hexdigest(), len(order),
                            lambda i: read_picture(files[order[i]], size, halves and halves[order[i]]), size)
    good = np.delete(order, broken)  # the pictures in the file, row by row
    cut = int((~is_test[good]).sum())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's: the array cannot be written to; nobody does
        images = torch.from_numpy(images)
    whole = Data(images[:len(good)], torch.from_numpy(labels[good]), attrs)
    return whole[:cut], whole[cut:]


def decode(path, key, n, read, size, chunk=256):
    """read(0 .. n - 1), each uint8 (3, size, size), as an array mapped from path.npy; made there if it isn't yet.

    Returns the array, uint8 (n, 3, size, size), and the list of places that could not be read: these are left
    out, so that as many rows at the end are empty. path.json holds the key, how many pictures are done, and that
    list: a file of another key is made anew.
    """
    pictures, state = kept(path, "", key, n, size)
    if pictures is None:
        if not os.access(path.parent, os.W_OK):
            raise InputError(f"{path.parent}: cannot write there, where the resized pictures are to be kept: link its "
                             f"files into a folder of your own, mkdir mine && ln -s {path.parent.resolve()}/* mine, "
                             f"and type --root mine")
        with alone(path.parent):
            if kept(path, "", key, n, size)[0] is None:  # (another process may have made it meanwhile)
                build(path, key, n, read, size, chunk)
        pictures, state = kept(path, "", key, n, size)
    return pictures, state["broken"]


@contextmanager
def alone(folder):
    """Within it, no other process of this machine is, for this folder: a second one waits (not on Windows)."""
    lock = None
    with suppress(ImportError, OSError):  # Windows; a network's disk that knows no locks
        import fcntl
        lock = os.open(folder, os.O_RDONLY)
        fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        yield
    finally:
        if lock is not None:
            os.close(lock)


def kept(path, end, key, n, size):
    """The pictures in path.npy, mapped, and what path.json says of them; two None if they are not these, or damaged."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        state = json.loads(path.with_suffix(f".json{end}").read_text())
        file = path.with_suffix(f".npy{end}")
        if state["key"] == key and file.stat().st_size > n * 3 * size ** 2:  # (numpy lengthens what it writes to)
            pictures = np.lib.format.open_memmap(file, "r+" if end else "r")
            if pictures.shape == (n, 3, size, size):
                return pictures, state
    return None, None


def build(path, key, n, read, size, chunk):
    """Make path.npy and path.json, under other names at first; what was interrupted goes on."""
    def attempt(place):
        try:
            return read(place)
        except InputError as error:
            return error

    part, part_note = path.with_suffix(".npy.part"), path.with_suffix(".json.part")
    pictures, state = kept(path, ".part", key, n, size)
    if pictures is None:
        part_note.unlink(missing_ok=True)  # of an older build
        gigabytes = n * 3 * size ** 2 / 1e9
        if shutil.disk_usage(path.parent).free < gigabytes * 1e9:
            raise InputError(f"{path.parent}: {gigabytes:.1f} GB are needed there for the resized pictures: make room, "
                             f"or link the data set's files into a folder on another disk and name that")
        pictures = np.lib.format.open_memmap(part, "w+", np.uint8, (n, 3, size, size))
        state = {"key": key, "done": 0, "broken": []}
    tell = teller()
    with ThreadPoolExecutor() as pool:  # Pillow works outside the interpreter's lock
        while state["done"] < n:
            places = range(state["done"], min(n, state["done"] + chunk))
            for place, picture in zip(places, pool.map(attempt, places)):
                if isinstance(picture, InputError):
                    tell("")
                    print(f"left out: {str(picture).split(';')[0]}", file=sys.stderr, flush=True)
                    state["broken"].append(place)
                else:
                    pictures[place - len(state["broken"])] = picture
            if len(state["broken"]) > 0.01 * n:
                raise InputError(f"{len(state['broken'])} of the first {places[-1] + 1} pictures under {path.parent} "
                                 f"cannot be read, more than 1 % of all {n}: mend or remove them")
            state["done"] = places[-1] + 1
            pictures.flush()
            part_note.write_text(json.dumps(state))
            tell(f"reading pictures, once: {state['done']} of {n}")
    del pictures  # (Windows renames no file that is open)
    path.with_suffix(".json").unlink(missing_ok=True)
    os.replace(part, path.with_suffix(".npy"))
    os.replace(part_note, path.with_suffix(".json"))
    tell("")
    if state["broken"]:
        print(f"{len(state['broken'])} of {n} files were no pictures and are left out", file=sys.stderr, flush=True)


def celeba(attrs, size, root, seed):
    """CelebA, its own partition; 90/10 where that leaves a part empty."""
    table = find(root, "list_attr_celeba.txt", "list_attr_celeba.csv")
    names, files, labels = celeba_labels(table, find(root, "img_align_celeba", "img_align_celeba_png"), attrs)
    path = find(root, "list_eval_partition.txt", "list_eval_partition.csv")
    part = dict(line.split() for line in lines_of(path) if len(line.split()) == 2)
    missing = [name for name in names if part.get(name) not in ("0", "1", "2")]
    if missing:
        raise InputError(f"{path}: says nothing of {missing[0]}; is the file whole?")
    is_test = np.array([part[name] == "2" for name in names])
    if is_test.all() or not is_test.any():  # (the first ten thousand are all of the training part)
        team.say(f"note: {path.name} has all of these {len(names)} pictures in one part: 10 % are held out by chance")
        is_test = hold_out(range(len(names)), seed)
    return from_files("celeba", root, files, labels, attrs, size, is_test)


def celeba_hq(attrs, size, root, seed):
    """CelebA-HQ as CelebAMask-HQ has it, 90/10."""
    table = find(root, "CelebAMask-HQ-attribute-anno.txt")
    _, files, labels = celeba_labels(table, find(root, "CelebA-HQ-img"), attrs)
    return from_files("celeba-hq", root, files, labels, attrs, size, hold_out(range(len(files)), seed))


def celeba_labels(path, folder, attrs):
    """An attribute file of CelebA: the number of pictures, the names, then a line a picture with 1 or -1 for each name.

    Kaggle's has no number, and image_id before the names. Returns the names of those pictures that are there,
    their paths and labels bool (N, K).
    """
    kaggle = path.suffix == ".csv"
    lines = [""] * kaggle + lines_of(path) + ["", ""]
    names = lines[1].split()[kaggle:]
    rows = {i - kaggle: line.split() for i, line in enumerate(lines[2:], 3) if line.strip()}
    if not kaggle and lines[0].strip() != str(len(rows)):
        raise InputError(f"{path}: its first line says {lines[0].strip()[:20]!r}, but {len(rows)} pictures follow; is "
                         f"the file whole?")
    if not names:
        raise InputError(f"{path}: its {'first' if kaggle else 'second'} line names no attributes, with "
                         f"{'commas' if kaggle else 'spaces'} between")
    values = numbers(path, rows, len(names))
    names, labels = [row[0] for row in rows.values()], values[:, columns(attrs, names, path.name)] > 0
    rows, files = named(names, path, folder)
    return [names[i] for i in rows], files, labels[rows]


def named(names, table, folder):
    """The pictures under a folder that a table names: the row numbers of those that are there, and their paths.

    They may be of another format, and have other zeros before a number: 00007.png for 7.jpg. Says so where not
    all are there; InputError where none is, or where all numbers may be off by one.
    """
    def number(name):
        return os.path.splitext(name)[0].lstrip("0") or "0"

    paths = {os.path.basename(path): path for path in picture_files(folder)}
    there, first = {number(name): name for name in paths}, number(names[0]) if names else ""
    from_1 = "0" not in there and {"1", "2", "3"} <= there.keys()
    if first == "0" and from_1 or first == "1" and "0" in there:
        raise InputError(f"{folder}: begins with {there['1' if from_1 else '0']}, {table.name} with {names[0]}: are "
                         f"all numbers off by one? Nobody can know; if they are, rename the pictures")
    found = [(i, paths.get(name) or paths.get(there.get(number(name)))) for i, name in enumerate(names)]
    found = {i: path for i, path in found if path}
    if not found:
        raise InputError(f"{folder}: holds none of the {len(names)} pictures that {table.name} names; "
                         f"{few(paths)}")
    if len(found) < len(names):
        team.say(f"note: {len(found)} of the {len(names)} pictures that {table.name} names are in {folder}: these are "
                 f"taken")
    return list(found), list(found.values())


def lfwa(attrs, size, root, seed):
    """LFW with its attributes, 90/10 by person."""
    path = find(root, "lfw_attributes.txt")
    _, header, *lines = [*lines_of(path), "", ""]
    names = [name.strip() for name in header.rstrip("\t").split("\t")]
    rows = {i: line.rstrip("\t").split("\t") for i, line in enumerate(lines, 3) if line.strip()}
    if not rows or names[1:3] != ["person", "imagenum"]:
        raise InputError(f"{path}: its second line should be '#, person, imagenum', the attributes, tabs between")
    names = names[3:]
    values = numbers(path, rows, 1 + len(names))
    persons = [row[0].strip().replace(" ", "_") for row in rows.values()]
    labels = values[:, 1:][:, columns(attrs, names, path.name)] > 0
    folder = find(root, "lfw", "lfw_funneled", "lfw-deepfunneled", persons[0])
    folder = folder.parent if folder.name == persons[0] else folder  # (the persons may lie in no such folder)
    names = [f"{person}_{int(number):04d}.jpg" for person, number in zip(persons, values[:, 0])]
    rows, files = named(names, path, folder)
    return from_files("lfwa", root, files, labels[rows], attrs, size, hold_out([persons[i] for i in rows], seed))


def edges2shoes(attrs, size, root, seed):
    """pix2pix's pairs, edges left and shoe right; the attribute is `edges`, val is the test part."""
    columns(attrs, ["edges"], "edges2shoes")
    train, val = picture_files(find(root, "train")), picture_files(find(root, "val", "test"))
    edges = edges_side(train)
    files = [file for file in train + val for _ in range(2)]
    halves = [edges, 1 - edges] * (len(files) // 2)
    return from_files("edges2shoes", root, files, np.array(halves)[:, None] == edges, attrs, size,
                      np.arange(len(files)) >= 2 * len(train), halves)


def edges_side(files):
    """The half of pix2pix's pairs that shows the edges, 0 or 1 (with a word): a drawing is nearly black and white."""
    shares = [[0, 0]]
    for file in files[::len(files) // 20 + 1]:
        with suppress(InputError):  # (a broken one is told of later)
            left, right = np.array_split(np.asarray(open_picture(file).convert("L")), 2, axis=1)
            shares.append([((half < 32) | (half > 223)).mean() for half in (left, right)])
    left, right = np.mean(shares, 0)
    if right > left + 0.05:
        team.say("note: in these pairs the edges are the right half, not the left one as published: they are taken so")
    return int(right > left + 0.05)


def folder(attrs, size, root, seed):
    """Two folders of pictures, one for each class: --attr NAME is the one whose pictures have it, 90/10."""
    def inside(place):
        return sorted(path.name for path in place.iterdir() if path.is_dir() and not LEFT_BEHIND.fullmatch(path.name))

    root = Path(root)
    classes = inside(root)
    if len(classes) == 1 and len(inside(root / classes[0])) == 2:  # as zips nest them
        root /= classes[0]
        classes = inside(root)
        team.say(f"note: the two folders are in {root}")
    same = {unicodedata.normalize("NFC", name): name for name in classes}  # macOS may write an umlaut as two characters
    attrs = tuple(same.get(unicodedata.normalize("NFC", attr), attr) for attr in attrs)
    if len(classes) != 2 or len(attrs) != 1 or attrs[0] not in classes:
        raise InputError(f"--data folder takes one --attr, the name of one of two folders under {root}, not "
                         f"{' '.join(attrs)!r}: there {'is' if len(classes) == 1 else 'are'} "
                         f"{', '.join(classes[:10]) or 'none'}")
    files = {name: picture_files(root / name) for name in classes}
    labels = np.concatenate([np.full((len(files[name]), 1), name == attrs[0]) for name in classes])
    return from_files("folder", root, sum(files.values(), []), labels, attrs, size, hold_out(range(len(labels)), seed))


def download_celeba(root):
    """Fetch what is needed of CelebA into root/celeba with torchvision's downloader, which needs the package gdown."""
    from torchvision.datasets import CelebA, utils
    if not root:
        raise InputError("--download needs --root, the folder to put CelebA into")
    place = Path(root) / CelebA.base_folder
    try:
        for number, checksum, name in CelebA.file_list:
            pictures = name == "img_align_celeba.zip" and not (place / name[:-4]).is_dir()
            if pictures or re.match("list_attr|list_eval", name):
                utils.download_file_from_google_drive(number, place, name, checksum)
                if name.endswith(".zip"):
                    utils.extract_archive(str(place / name))
    except Exception as error:  # no gdown, no network, Google Drive's quota, a broken archive
        reason = (str(error).splitlines() or [type(error).__name__])[0][:120].rstrip(".")
        raise InputError(f"{name} could not be fetched ({reason}): it needs pip install gdown, and Google Drive often "
                         f"refuses (a quota); by hand, get img_align_celeba.zip (unpacked), list_attr_celeba.txt and "
                         f"list_eval_partition.txt from the CelebA page into {place}") from None


# name: function(attrs, size, root, seed) -> (train, test), and what lies under root
DATASETS = {
    "faces": (drawn, ""),
    "folder": (folder, "two folders of pictures, one for each class"),
    "celeba": (celeba, "list_attr_celeba.txt, list_eval_partition.txt and img_align_celeba/ (or celeba/ with these)"),
    "celeba-hq": (celeba_hq, "CelebA-HQ-img/ and CelebAMask-HQ-attribute-anno.txt"),
    "lfwa": (lfwa, "lfw_attributes.txt and lfw/Person_Name/Person_Name_0001.jpg (or lfw_funneled/, lfw-deepfunneled/)"),
    "edges2shoes": (edges2shoes, "train/ and val/ (or test/), with pictures")}


# ------------------------------------------------------------------------------------------------------------
# What the programs of this repository share: mistakes, files, devices, processes

class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose complaints are InputErrors: one line, as for every other mistake."""

    def __init__(self, *args, **options):
        super().__init__(*args, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **options)

    def error(self, message):
        if re.search("expected|required", message):
            message += "; a name that begins with - is typed as in --attr=-name or ./-name"
        raise InputError(f"{message}; see python {self.prog} --help")


def exit_code(program, command, argv):
    """The exit code of command(argv): its own; 2 for a mistake, told in one line; 130 for Ctrl-C."""
    if hasattr(sys.stdout, "reconfigure"):  # (a notebook's has none)
        sys.stdout.reconfigure(errors="backslashreplace")  # a path may be no UTF-8
    try:
        return command(sys.argv[1:] if argv is None else argv)
    except InputError as error:
        message = error
    except OSError as error:  # a full disk, a folder in a file's place ...
        message = f"{error}; look there, or name another folder"
    except (MemoryError, RuntimeError) as error:  # torch tells it in several ways
        short = re.search("out of memory|allocate memory|not enough memory", str(error))
        if not short and not isinstance(error, MemoryError):
            raise
        message = "not enough memory; train with a smaller --size, --batch, --g_width or --r_width"
    except KeyboardInterrupt:
        return 130
    if os.environ.get("LOCAL_RANK", "0") == "0" or not isinstance(message, InputError):  # (others were asked alike)
        print(f"{program}: error: {message}", file=sys.stderr)
    return 2


def show(value):
    """A setting's value as it is typed."""
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def in_a_line(error):
    """What an exception says, in one line."""
    return " ".join(str(error).split())[:120] or type(error).__name__


def teller():
    """A function that shows a line of progress: rewritten in place in a terminal, else one every ten seconds."""
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


def store(state, path):
    """torch.save, but to another name first and then renamed: a whole file is there at any moment."""
    new = path.with_name(path.name + ".new")
    try:
        with open(new, "wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())  # or the name might reach the disk before what it names
    except RuntimeError as error:  # torch's word for a full disk
        raise OSError(f"{new}: {error}") from None
    os.replace(new, path)


def choose_device(name):
    """"auto", or a name that torch.device takes and this machine has. Returns a torch.device."""
    if name == "auto":
        mps = torch.backends.mps.is_available() and torch.__version__ >= (2, 13)  # (before, moved has no gradient)
        name = "cuda" if torch.cuda.is_available() else "mps" if mps else "cpu"
    with suppress(RuntimeError, AssertionError):  # AssertionError: torch without cuda
        if torch.device(name).type in ("cpu", "cuda", "mps"):
            return torch.zeros(1, device=name).device  # cuda:0 for cuda
    raise InputError(f"--device {name}: there is none on this machine; type --device cpu, or leave it out")


@contextmanager
def stop_flag():
    """Within it, Ctrl-C and SIGTERM set a flag and do no more (the program may be in the middle of a print).

    Yields a list that is empty until then. A second Ctrl-C ends the program at once.
    """
    stopped, before = [], {}

    def stop(number, frame):
        stopped.append(number)
        signal.signal(number, before[number])

    for number in (signal.SIGINT, signal.SIGTERM):
        before[number] = signal.signal(number, stop)
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def in_bf16(precision, device):
    """Whether networks compute in bf16; "auto": on a GPU that has it (older ones only emulate it)."""
    if precision == "auto":
        return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
    return precision == "bf16"


def speed_up(run):
    """What a GPU can do faster: products in TF32, kernels found by trial and, with `compile`, fused."""
    if run.device.type == "cuda":
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.benchmark = True
    if run.config.compile:
        torch._dynamo.config.suppress_errors = True  # no compiler, no Triton: it goes on without
        run.G.compile()
        run.R.features.compile()


class Team:
    """The processes of torchrun, or this one alone: no other place knows how they come to be and talk."""
    number, size = 0, 1

    @property
    def first(self):
        """Whether this is the process that writes and speaks."""
        return self.number == 0

    @property
    def start(self):
        """What stands before the program's name on the command line."""
        return "python" if self.size == 1 else f"torchrun --nproc-per-node {self.size}"

    def join(self, device):
        """Under torchrun, which sets LOCAL_RANK and more, become one of its processes, with a GPU of its own."""
        if "LOCAL_RANK" in os.environ and not dist.is_initialized():
            if torch.cuda.is_available() and device != "cpu":
                torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
            dist.init_process_group(timeout=timedelta(hours=12))  # the first one may have to prepare pictures
            self.number, self.size = dist.get_rank(), dist.get_world_size()

    def leave(self, code):
        """The end of this process, with its exit code."""
        if code == 0 and dist.is_initialized():  # (after an error the others may not come to this)
            dist.destroy_process_group()
        sys.exit(code)

    def talk(self, how, *what):
        """Do this of torch.distributed's; where another process is gone, this one ends, too."""
        try:
            how(*what)
        except RuntimeError as error:
            raise InputError(f"another process has ended, so all do ({in_a_line(error)}); see above, and go on with "
                             f"--resume") from None

    def average(self, tensors):
        """Each of the tensors becomes its mean over the processes, in one message."""
        if self.size > 1:
            flat = torch.cat([t.flatten() for t in tensors])
            self.talk(dist.all_reduce, flat)
            for t, mean in zip(tensors, (flat / self.size).split([t.numel() for t in tensors])):
                t.copy_(mean.view_as(t))

    def gather(self, value):
        """The values of all processes, a list in their order; nobody goes on before all have come to this."""
        values = [value] * self.size
        if self.size > 1:
            self.talk(dist.all_gather_object, values, value)
        return values

    def agree(self, flag, step):
        """Whether the flag of any process is set; several of them talk about it every ten steps."""
        return bool(flag) if self.size == 1 else step % 10 == 0 and any(self.gather(bool(flag)))

    def say(self, text):
        if self.first:
            print(text, flush=True)


team = Team()
