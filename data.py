"""Relative attributes from binary labels: the data sets, and the endless stream of pairs (x, y, r) that TRIP learns from.

    train, test = load("faces", ["smile"], size=64)          # two `Data`: pictures, labels and, for drawn faces, the truth
    stream = pairs(train, batch=16, rng=torch.Generator().manual_seed(0))
    x, y, r = next(stream)                                   # r = +1: y smiles and x doesn't; -1: the other way round

`faces` needs no file: it is drawn by formula. Every data set is one function in the table DATASETS at the end.
"""

import math
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Optional

import numpy as np
import torch
from PIL import Image, ImageOps


class InputError(ValueError):
    """What was asked for cannot be done. The message is one line: what was given, what is allowed, what to type instead."""


@dataclass
class Data:
    """A data set in memory, N pictures with K attributes.

    images: uint8 (N, 3, H, W); labels: bool (N, K); attrs: the K names.
    The truth, where the data set knows it, is for evaluation only and never for training:
    strength: float (N, K) in [0, 1]; person: float (N, P), whatever it takes to draw the face again (see `redraw`).
    """
    images: torch.Tensor
    labels: torch.Tensor
    attrs: tuple
    strength: Optional[torch.Tensor] = None
    person: Optional[np.ndarray] = None

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


def read_picture(path, size):
    """Read a picture file of any size and mode, upright (EXIF), on white where transparent; crop its centre to a square.

    Returns uint8 (3, size, size). Raises InputError for a file that is missing or no picture.
    """
    try:
        with warnings.catch_warnings(), Image.open(path) as file:
            warnings.simplefilter("ignore")
            picture = ImageOps.exif_transpose(file)
            if picture.mode[0] in "IF":                          # 16 bits and more of grey, which convert() would clip
                deep = np.asarray(picture, np.float32)
                deep = deep / (1 if deep.max() <= 1 else 255 if deep.max() <= 255 else 65535)
                picture = Image.fromarray((deep.clip(0, 1) * 255).astype(np.uint8))
            picture = picture.convert("RGBA")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:   # what Pillow raises, by format
        reason = "there is no such file" if isinstance(error, FileNotFoundError) else "it cannot be read as a picture"
        raise InputError(f"{path}: {reason}; give a JPEG, PNG or other picture file") from None
    white = Image.new("RGBA", picture.size, "white")
    picture = ImageOps.fit(Image.alpha_composite(white, picture).convert("RGB"), (size, size), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


def nearest(name, names):
    """The end of an error message: the nearest of the allowed names, and all of them."""
    return f"did you mean {get_close_matches(str(name), names, 1, 0)[0]!r}? (one of: {', '.join(names)})"


def load(name, attrs, size, root="", seed=0):
    """Load a data set, one of DATASETS, at `size` x `size` pixels with these attributes; root: its folder.

    Returns two Data, train and test: 90 % and 10 % of the pictures, shuffled, fixed by the seed.
    Raises InputError for an unknown data set, an unknown attribute or one given twice, and where there are too few
    pictures with or without an attribute.
    """
    if name not in DATASETS:
        raise InputError(f"unknown data set {name!r}: {nearest(name, list(DATASETS))}")
    if root and not Path(root).is_dir():
        raise InputError(f"--root {root}: there is no such folder; give the one that holds the files of {name}")
    if len(set(attrs)) < len(attrs):
        raise InputError(f"attribute given twice: {' '.join(attrs)}; name each once")
    whole = DATASETS[name](tuple(attrs), size, root, seed)
    rows = torch.from_numpy(np.random.RandomState(seed).permutation(len(whole)))    # the same in every version of numpy
    cut = len(whole) * 9 // 10
    train, test = whole[rows[:cut]], whole[rows[cut:]]
    for part, split in ((train, "training"), (test, "test")):
        for attr, n in zip(attrs, part.labels.sum(0).tolist()):
            if not 2 <= n <= len(part) - 2:
                raise InputError(f"{n} of {len(part)} {split} pictures have {attr!r}: pairs need two or more with it and two "
                                 f"or more without; choose another attribute or add pictures")
    return train, test


def pairs(data, batch, rng, ties=0.0, device="cpu"):
    """An endless stream of relative attributes (Sec. 3.1): (x, y, r) with r_k = sign(label_k(y) - label_k(x)).

    x, y: float (batch, 3, H, W) in [-1, 1]; r: float (batch, K) in {-1, 0, +1}.
    Each pair is made to differ in one attribute, chosen at random out of the K: half the batch +1 and half -1, however
    rare the attribute is. The other attributes fall as they may, r_k = 0 where x and y agree. `ties`: the share of
    pairs from the same class, r = 0 (Remark 1), for K = 1 only.
    Each picture is mirrored with probability 1/2: twice the data for the same faces.
    rng: the CPU torch.Generator that decides all of it (its state is all that a resumed run needs).
    """
    K = data.labels.shape[1]
    order = data.labels.int().argsort(dim=0, stable=True)        # (N, K) for each attribute: first those without it
    without = (~data.labels).sum(0)                              # (K,)
    free = torch.cuda.mem_get_info(device)[0] if torch.device(device).type == "cuda" else math.inf
    images = data.images.to(device if data.images.numel() < free / 2 else "cpu")    # bytes: they fit where floats don't

    def pick(k, has):                                            # a random row for each pair, with or without attribute k
        count = torch.where(has, len(data) - without[k], without[k])
        place = torch.rand(batch, generator=rng, dtype=torch.float64) * count       # (as float32 it may round up to count)
        return order[place.long() + torch.where(has, without[k], 0), k]

    def pictures(rows):
        x = as_float(images[rows.to(images.device)].to(device))
        mirrored = torch.rand(batch, 1, 1, 1, generator=rng).to(device) < 0.5
        return torch.where(mirrored, x.flip(3), x)

    while True:
        k = torch.randint(K, (batch,), generator=rng)
        y_has = (torch.arange(batch) + torch.randint(2, (1,), generator=rng)) % 2 == 0    # every other y has it
        tie = torch.rand(batch, generator=rng) < (ties if K == 1 else 0)
        i, j = pick(k, torch.where(tie, y_has, ~y_has)), pick(k, y_has)
        r = data.labels[j].float() - data.labels[i].float()
        yield pictures(i), pictures(j), r.to(device)


# ---------------------------------------------------------------------------------------------------------------------
# Drawn faces: the embedded data set

FACE_ATTRS = ("smile", "mouth_open", "frown", "beard")           # frown: of the brows
SKIN = np.float32([[0.99, 0.86, 0.76], [0.93, 0.74, 0.58], [0.76, 0.55, 0.39], [0.58, 0.40, 0.28], [0.42, 0.28, 0.20]])
HAIR = np.float32([[0.09, 0.07, 0.07], [0.30, 0.18, 0.10], [0.58, 0.27, 0.12], [0.85, 0.66, 0.34], [0.66, 0.64, 0.62],
                   [0.20, 0.32, 0.50]])
TRAITS = 43                                                      # numbers that make a person, beside the attributes


def faces(attrs, size, root="", seed=0, n=10000):
    """n drawn faces. Every attribute's strength is uniform in [0, 1] and independent of all else; label = strength > 0.5."""
    for name in attrs:
        if name not in FACE_ATTRS:
            raise InputError(f"unknown attribute {name!r}: {nearest(name, FACE_ATTRS)}")
    person = np.random.RandomState(seed).random_sample((n, len(FACE_ATTRS) + TRAITS)).astype(np.float32)
    strength = torch.from_numpy(person[:, [FACE_ATTRS.index(a) for a in attrs]])
    return Data(draw_faces(person, size), strength > 0.5, attrs, strength, person)


def redraw(faces, strength):
    """The same persons with other strengths of faces.attrs; all else stays as it is.

    faces: Data of drawn faces; strength: float (N, K) in [0, 1]. Returns uint8 (N, 3, H, W).
    """
    person = faces.person.copy()
    person[:, [FACE_ATTRS.index(a) for a in faces.attrs]] = strength
    return draw_faces(person, faces.images.shape[-1])


def region(faces, k, steps=11):
    """The pixels that attribute k of faces.attrs can change: bool (N, 1, H, W), found by drawing all its strengths."""
    low = high = redraw(faces, faces.strength)
    for s in torch.linspace(0, 1, steps):
        strength = faces.strength.clone()
        strength[:, k] = s
        picture = redraw(faces, strength)
        low, high = torch.minimum(low, picture), torch.maximum(high, picture)
    return (low < high).any(1, keepdim=True)


def draw_faces(person, size, chunk=50):
    """Draw persons, float32 (n, 4 + TRAITS) with the strengths of FACE_ATTRS first. Returns uint8 (n, 3, size, size)."""
    with ThreadPoolExecutor() as pool:                           # numpy works outside the interpreter's lock
        parts = pool.map(lambda i: _draw(person[i:i + chunk], size), range(0, len(person), chunk))
        return torch.from_numpy(np.concatenate(list(parts)))


def _draw(person, size):
    """Signed-distance shapes painted one over the other, anti-aliased, from the background to the mouth.

    Uses only + - * / sqrt, min and max of float32: they round alike on every machine (sin and exp do not).
    """
    n, px = len(person), np.float32(2 / size)                   # the picture spans [-1, 1], y down
    grid = (np.arange(size, dtype=np.float32) + 0.5) * px - 1
    columns = iter(person.T)
    smile, mouth_open, frown, beard = (next(columns)[:, None, None] for _ in FACE_ATTRS)

    def trait(low, high):
        return (low + (high - low) * next(columns))[:, None, None]

    def colour(palette):
        t = next(columns) * (len(palette) - 1)
        i = np.minimum(t.astype(int), len(palette) - 2)
        mix = palette[i] + (t - i).astype(np.float32)[:, None] * (palette[i + 1] - palette[i])
        return mix[:, :, None, None] * (1 + trait(-0.08, 0.08)[:, None])

    def any_colour(low, high):
        return np.stack([trait(low, high) for _ in range(3)], 1)

    def ellipse(x, y, rx, ry):
        return (np.sqrt((x / rx) ** 2 + (y / ry) ** 2) - 1) * np.minimum(rx, ry)

    def cover(distance):                                          # 1 inside, 0 outside, a ramp of one pixel between
        return np.minimum(np.maximum(0.5 - distance / px, 0), 1)

    def paint(mask, rgb, rows=slice(None)):
        part = image[:, :, rows]
        part += mask[:, None] * (rgb - part)

    def window(top, bottom):                                      # small parts are drawn in their rows only
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
    jaw = 1 - trait(0.0, 0.22) * np.maximum(y, 0)                 # narrower towards the chin
    head = ellipse(x / jaw, y, w, h)
    inside = cover(head)
    side = trait(-0.35, 0.35)                                     # light from the left or the right
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
    slope = 1.1 * frown - 0.5             # frown: the inner ends go down
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
    steep = np.sqrt(1 + (2 * bend * x / mx ** 2) ** 2)            # distance along the normal, not along y
    gap = 0.14 * mouth_open * (1 - t)
    ends = np.abs(x) - mx
    red = np.minimum(skin * np.float32([0.72, 0.42, 0.42])[:, None, None] + np.float32([0.16, 0, 0.02])[:, None, None], 1)
    paint(cover(np.maximum((np.abs(off) - gap - lip * (1 - 0.4 * t)) / steep, ends)), red, rows)
    hole = cover(np.maximum((np.abs(off) - gap) / steep, ends)) * np.minimum(mouth_open * 8, 1)
    paint(hole, 0.12, rows)
    paint(hole * cover(off + gap * 0.2), 0.95, rows)
    # light over everything
    image *= (1 + trait(-0.12, 0.12) * grid[None, None, :] + trait(-0.12, 0.12) * grid[None, :, None])[:, None]
    return (np.minimum(np.maximum(image, 0), 1) * 255 + 0.5).astype(np.uint8)


DATASETS = {"faces": faces}                                      # name: function(attrs, size, root, seed) -> Data
