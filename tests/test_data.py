"""What people bring: files as they come from the net, pictures of any kind, names of any kind. All in miniature."""

import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

HERE = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(HERE), str(HERE / "tests")]

import data  # noqa: E402
import eval  # noqa: E402
import trip  # noqa: E402
from test_scale import CELEBA, LFWA, LAYOUTS, TINY, assert_labels, celeba, celeba_hq, edges2shoes, lfwa  # noqa: E402
from test_scale import numbers, picture  # noqa: E402


def move(old, new):
    """Rename, into folders that are made; a folder may be moved into itself."""
    aside = old.with_name("aside")
    old.rename(aside)
    new.parent.mkdir(parents=True, exist_ok=True)
    aside.rename(new)


def error_of(name, attrs, root, tmp_path, capsys, *options):
    """The one line that the command ends with."""
    code = trip.main([*TINY, "--data", name, "--root", str(root), "--attr", *attrs, "--out", str(tmp_path / "out"),
                      *options])
    said = capsys.readouterr().err
    assert code == 2 and said.count("\n") == 1 and not (tmp_path / "out").exists(), said
    return said


# ------------------------------------------------------------------------------------------------------------
# Data sets as they come from the net

def kaggle(root):
    """Kaggle's CelebA: a folder in a folder of the same name, and tables with commas."""
    celeba(root)
    move(root / "img_align_celeba", root / "img_align_celeba" / "img_align_celeba")
    for name, header in ("list_attr_celeba", "image_id,"), ("list_eval_partition", "image_id,partition\n"):
        rows = [",".join(line.split()) for line in (root / f"{name}.txt").read_text().splitlines()]
        text = header + "\n".join(rows[1:] if name == "list_attr_celeba" else rows)
        (root / f"{name}.csv").write_text(text)
        (root / f"{name}.txt").unlink()


def drive(root):
    """As the folders of CelebA's Google Drive."""
    celeba(root)
    for old, new in (("list_attr_celeba.txt", "Anno"), ("list_eval_partition.txt", "Eval"), ("img_align_celeba", "Img")):
        move(root / old, root / "CelebA" / new / old)
    (root / "__MACOSX" / "CelebA" / "img_align_celeba").mkdir(parents=True)  # an archive's, made on a Mac


def renamed(make, folder, name_of):
    """A miniature whose pictures, numbered 0, 1 .., have other names or formats."""
    def make_and_rename(root):
        make(root)
        files = [path for path in (root / folder).rglob("*.jpg")]
        for path in files:
            new = path.with_name("new " + name_of(path.stem))
            if new.suffix == ".png":
                Image.open(path).save(new)
                path.unlink()
            else:
                path.rename(new)
        for path in (root / folder).rglob("new *"):
            path.rename(path.with_name(path.name[4:]))
    return make_and_rename


def nested_lfw(root):
    lfwa(root, "lfw-deepfunneled")
    move(root / "lfw-deepfunneled", root / "lfw-deepfunneled" / "lfw-deepfunneled")


def lfw_without_a_folder(root):
    lfwa(root)
    for path in (root / "lfw").iterdir():
        path.rename(root / path.name)
    (root / "lfw").rmdir()


def pairs_of_pix2pix(end, test="val"):
    def make(root):
        renamed(edges2shoes, ".", lambda stem: stem + end)(root)
        move(root / "val", root / test)
    return make


@pytest.mark.parametrize("name, make", [
    ("celeba", kaggle), ("celeba", drive),
    ("celeba", renamed(celeba, "img_align_celeba", lambda stem: f"{stem}.png")),
    ("celeba-hq", renamed(celeba_hq, "CelebA-HQ-img", lambda stem: f"{stem}.png")),
    ("celeba-hq", renamed(celeba_hq, "CelebA-HQ-img", lambda stem: f"{stem:0>5}.jpg")),
    ("lfwa", nested_lfw), ("lfwa", lfw_without_a_folder),
    ("edges2shoes", pairs_of_pix2pix(".png")), ("edges2shoes", pairs_of_pix2pix(".JPG")),
    ("edges2shoes", pairs_of_pix2pix(".jpeg", "test"))])
def test_a_layout_of_the_net_gives_the_same_as_the_published_one(name, make, tmp_path):
    LAYOUTS[name][0](tmp_path / "published")
    make(tmp_path / "net")
    attr = {"lfwa": "frown", "edges2shoes": "edges"}.get(name, "smile")
    published, found = (data.load(name, [attr], 32, tmp_path / root) for root in ("published", "net"))
    assert [sorted(numbers(part)) for part in found] == [sorted(numbers(part)) for part in published]
    if name == "edges2shoes":
        assert all(part.labels[:, 0].equal(part.images[:, 2].float().mean((1, 2)) < 128) for part in found)
    else:
        assert_labels(found, *((LFWA, "Frowning") if name == "lfwa" else (CELEBA, "Smiling")))


PAGE = "\n<!DOCTYPE html><html><head><title>Google Drive - Quota exceeded</title></head></html>"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"


def packed(root, folder):
    shutil.make_archive(str(root / folder), "zip", root, folder)
    shutil.rmtree(root / folder)


@pytest.mark.parametrize("name, spoil, says", [
    ("celeba", lambda root: (root / "list_attr_celeba.txt").write_text(PAGE), "attr_celeba.txt: is '<!DOCTYPE html>"),
    ("celeba", lambda root: (root / "list_eval_partition.txt").write_text(PAGE), "partition.txt: is '<!DOCTYPE html>"),
    ("lfwa", lambda root: (root / "lfw_attributes.txt").write_text(POINTER), "git lfs pull"),
    ("lfwa", lambda root: (root / "lfw_attributes.txt").write_bytes(b"PK\3\4\xff"), "cannot be read as text"),
    ("celeba", lambda root: packed(root, "img_align_celeba"), "unpack first: img_align_celeba.zip"),
    ("lfwa", lambda root: packed(root, "lfw"), "unpack first: lfw.zip"),
    ("edges2shoes", lambda root: packed(root, "train"), "unpack first: train.zip"),
    ("celeba-hq", lambda root: (root / "CelebA-HQ-img").rename(root / "celeba_hq_256"), "found CelebAMask-HQ-"),
    ("celeba", lambda root: shutil.copytree(root / "img_align_celeba", root / "old" / "img_align_celeba"), None),
    ("celeba", lambda root: [shutil.copytree(root / "img_align_celeba", root / new / "img_align_celeba")
                             for new in "ab"] + [shutil.rmtree(root / "img_align_celeba")],
     "name the folder of one of them"),
    ("celeba-hq", lambda root: renamed(lambda root: None, "CelebA-HQ-img",
                                       lambda stem: f"{int(stem) + 1:05d}.jpg")(root),
     "begins with 00001.jpg, CelebAMask-HQ-attribute-anno.txt with 0.jpg"),
    ("celeba", lambda root: renamed(lambda root: None, "img_align_celeba", lambda stem: f"{int(stem) - 1}.jpg")(root),
     "begins with 0.jpg, list_attr_celeba.txt with 000001.jpg"),
])
def test_what_is_not_unambiguous_is_refused_with_what_was_found(name, spoil, says, tmp_path, capsys):
    root = tmp_path / "root"
    LAYOUTS[name][0](root)
    spoil(root)
    attr = "edges" if name == "edges2shoes" else "smile"
    if says is None:
        data.load(name, [attr], 32, root)
    else:
        assert says in error_of(name, [attr], root, tmp_path, capsys)


# ------------------------------------------------------------------------------------------------------------
# A part of a data set

def cut_table(root, n):
    path = root / "list_attr_celeba.txt"
    path.write_text("\n".join([str(n), *path.read_text().splitlines()[1:n + 2], ""]))


def keep_pictures(folder, keep):
    for i, path in enumerate(sorted(folder.iterdir())):
        if i not in keep:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.mark.parametrize("n, keep, test, says", [
    (40, [*range(2), *range(3, 40)], range(30, 40), "39 of the 40 pictures that list_attr_celeba.txt names"),
    (160, range(80), None, "80 of the 160 pictures"),  # the first ones: all of the training part
    (320, range(240, 320), None, "all of these 80 pictures in one part: 10 % are held out"),  # all of the test part
])
def test_of_celeba_those_pictures_are_taken_that_are_there(n, keep, test, says, tmp_path, capsys):
    celeba(tmp_path, n)
    keep_pictures(tmp_path / "img_align_celeba", keep)
    parts = data.load("celeba", ["smile"], 32, tmp_path)
    assert sorted(sum(map(numbers, parts), [])) == list(keep)
    assert sorted(numbers(parts[1])) == list(test) if test else len(parts[1]) == len(keep) // 10
    assert_labels(parts, CELEBA, "Smiling")
    assert says in capsys.readouterr().out


def test_a_table_cut_to_the_first_pictures_is_split_90_to_10(tmp_path, capsys):
    celeba(tmp_path, n=160)
    cut_table(tmp_path, 80)
    train, test = data.load("celeba", ["smile"], 32, tmp_path)
    assert (len(train), len(test)) == (72, 8)
    assert_labels((train, test), CELEBA, "Smiling")
    assert "10 % are held out" in capsys.readouterr().out


def test_a_part_of_lfwa_keeps_its_persons_apart(tmp_path, capsys):
    lfwa(tmp_path)
    keep_pictures(tmp_path / "lfw", range(60))
    train, test = data.load("lfwa", ["frown"], 32, tmp_path)
    assert (len(train), len(test)) == (108, 12) and not {i % 80 for i in numbers(train)} & {i % 80 for i in numbers(test)}
    assert_labels((train, test), LFWA, "Frowning")
    assert "120 of the 160 pictures" in capsys.readouterr().out


# ------------------------------------------------------------------------------------------------------------
# Two folders of one's own

def two_folders(root, n=80, name="smiling", other="other"):
    for i in range(n):
        picture(root / (name if i % 2 else other) / f"{i}.jpg", i)


@pytest.mark.skipif(os.name == "nt", reason="links need a right of their own there")
def test_a_link_to_nowhere_is_no_picture(tmp_path, capsys):
    two_folders(tmp_path)
    (tmp_path / "smiling" / "link.png").symlink_to("nowhere.png")
    parts = data.load("folder", ["smiling"], 32, tmp_path)
    assert sum(map(len, parts)) == 80 and "1 files under" in capsys.readouterr().out


@pytest.mark.parametrize("names, said", [
    (["smiling/Thumbs.db", "smiling/desktop.ini", "other/Desktop.ini", "other/._1.jpg", "other/.DS_Store", "Thumbs.db"], ""),
    (["__MACOSX/smiling/._1.jpg", "smiling/__MACOSX/1.jpg", "smiling/@eaDir/1.jpg/SYNO.jpg", "$RECYCLE.BIN/1.jpg"], ""),
    (["smiling/labels.csv", "smiling/1.xmp", "smiling/1.mov", "smiling/old/no ending"],
     "4 files under {root}/smiling are no pictures and left out; found 1.mov, 1.xmp, labels.csv, no ending\n"),
])
def test_what_is_no_picture_by_its_name_or_place_is_none(names, said, tmp_path, capsys):
    two_folders(tmp_path)
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"no picture")
    parts = data.load("folder", ["smiling"], 32, tmp_path)
    assert sorted(sum(map(numbers, parts), [])) == list(range(80))
    told = capsys.readouterr()
    assert told.err == "" and said.format(root=tmp_path.as_posix()) in told.out.replace("\\", "/")
    assert said or "no pictures" not in told.out


def test_a_picture_is_one_whatever_its_ending(tmp_path):
    two_folders(tmp_path)
    for i, end in (1, ""), (3, ".jpg_large"), (5, ".jpg.1"), (7, ".JPG"):
        (tmp_path / "smiling" / f"{i}.jpg").rename(tmp_path / "smiling" / f"{i}{end}")
    assert sorted(sum(map(numbers, data.load("folder", ["smiling"], 32, tmp_path)), [])) == list(range(80))


@pytest.mark.parametrize("spoil, says", [
    (lambda root: [path.write_bytes(b"cut off") for path in sorted((root / "smiling").iterdir())[:2]],
     "2 of the first 80 pictures"),  # a picture by its name: the 1 % is for these
    (lambda root: [path.rename(path.with_suffix(".cr9")).write_bytes(b"raw")
                   for path in sorted((root / "smiling").iterdir())],
     "holds no pictures; found 1.cr9, 11.cr9, 13.cr9, 15.cr9, ..."),
])
def test_broken_pictures_and_folders_without_any_are_refused(spoil, says, tmp_path, capsys):
    two_folders(tmp_path / "root")
    spoil(tmp_path / "root")
    with pytest.raises(data.InputError, match=says):
        data.load("folder", ["smiling"], 32, tmp_path / "root")


# ------------------------------------------------------------------------------------------------------------
# A picture of one's own

SMALL = dict(size=32, g_width=4, g_down=1, g_blocks=1, r_width=4)


def edited(tmp_path, monkeypatch, capsys, *options, **settings):
    """The pictures that --edit puts into the generator, float (N, 3, 32, 32), and what it says."""
    seen, translate = [], eval.translate
    monkeypatch.setattr(eval, "translate", lambda G, x, v: seen.append(x) or translate(G, x, v))
    trip.save(trip.Run(trip.Config(**SMALL | settings)), tmp_path)
    code = trip.main(["--out", str(tmp_path), "--edit", *options])
    said = capsys.readouterr().err
    assert code == (0 if seen else 2)
    return seen[0] if seen else None, said


def coloured(path, w, h):
    """A picture whose red is its column and whose green its row, divided by 2."""
    red, green = np.meshgrid(np.arange(w) // 2, np.arange(h) // 2)
    Image.fromarray(np.dstack([red, green, 0 * red]).astype(np.uint8)).save(path)
    return str(path)


def corner(x):
    """Column and row of the picture's first pixel in the file."""
    return [2 * (x[c, 0, 0].item() + 1) * 127.5 for c in (0, 1)]


def test_edit_says_what_it_cuts_off_and_takes_the_square_that_crop_names(tmp_path, monkeypatch, capsys):
    wide, tall, square = (coloured(tmp_path / f"{w} {h}.png", w, h) for w, h in ((400, 200), (200, 301), (200, 200)))
    x, said = edited(tmp_path, monkeypatch, capsys, wide, tall, square)
    assert corner(x[0]) == pytest.approx([100, 0], abs=7) and corner(x[1]) == pytest.approx([0, 50], abs=7)
    assert "has 400 x 200 pixels: 100 at the left and the right are cut off; --crop LEFT TOP SIZE" in said
    assert "has 200 x 301 pixels: 50.5 at the top and the bottom" in said and said.count("cut off") == 2
    x, said = edited(tmp_path, monkeypatch, capsys, wide, square, "--crop", "120", "40", "64")  # one for all
    assert "cut off" not in said
    for picture in x:
        assert corner(picture) == pytest.approx([120, 40], abs=4)
        assert (picture[:2, -1, -1] - picture[:2, 0, 0]).tolist() == pytest.approx([62 / 255] * 2, abs=0.02)


@pytest.mark.parametrize("crop", ["201 0 200", "0 1 200", "-1 0 100", "0 -1 100", "0 0 0"])
def test_a_crop_that_leaves_the_picture_is_refused(crop, tmp_path, monkeypatch, capsys):
    wide = coloured(tmp_path / "wide.png", 400, 200)
    x, said = edited(tmp_path, monkeypatch, capsys, wide, "--crop", *crop.split())
    assert x is None and f"--crop {crop}: " in said and "400 x 200 pixels" in said and said.count("\n") == 1
    assert not (tmp_path / "edit.png").exists()


def test_crop_is_for_edit(tmp_path, capsys):
    assert trip.main(["--crop", "0", "0", "9", "--out", str(tmp_path / "out")]) == 2
    assert "--edit" in capsys.readouterr().err


@pytest.mark.parametrize("name, says", [("celeba", True), ("celeba-hq", True), ("lfwa", False), ("faces", False)])
def test_edit_says_how_celeba_frames_its_faces(name, says, tmp_path, monkeypatch, capsys):
    _, said = edited(tmp_path, monkeypatch, capsys, coloured(tmp_path / "me.png", 99, 99), data=name)
    assert ("the eyes half way down" in said) == says


RAMP = np.linspace(0, 1, 64)[None] * np.ones((64, 1))


@pytest.mark.parametrize("deep", [
    *((RAMP * (2 ** bits - 1)).astype(np.uint16) for bits in (8, 10, 12, 14, 16)),  # in files of 16 bits
    (RAMP * 3000 - 1000).astype(np.int32), RAMP, 2 * RAMP - 1, 4 * RAMP - 2, 1.1 * RAMP - 0.05, 1.2 * RAMP, 255 * RAMP,
    1e-3 * RAMP, np.where(RAMP == 1, np.nan, RAMP), np.where(RAMP == 1, np.inf, RAMP)])
def test_deep_pictures_are_neither_black_nor_white(deep, tmp_path):
    Image.fromarray(deep.astype(np.float32) if deep.dtype == float else deep).save(tmp_path / "deep.tif")
    found = data.read_picture(tmp_path / "deep.tif", 64).float()[0, 32]
    assert torch.allclose(found[:-1], torch.from_numpy(RAMP[32, :-1]).float() * 255, atol=1.5)


@pytest.mark.parametrize("deep, white", [(np.full((9, 9), -3.0), 0), (np.zeros((9, 9)), 0), (np.full((9, 9), np.nan), 0),
                                         (np.full((9, 9), 3e38), 255), (np.full((9, 9), 0.5), 127)])
def test_deep_pictures_of_one_grey_are_no_error(deep, white):
    assert (data.grey_bytes(deep) == white).all()


HEIC = b"\0\0\0\x24ftypheic\0\0\0\0mif1heic" + bytes(99)


@pytest.mark.parametrize("name", ["me.heic", "me.HEIC", "me.jpg"])
def test_heic_is_called_by_its_name(name, tmp_path, monkeypatch, capsys):
    (tmp_path / name).write_bytes(HEIC)
    _, said = edited(tmp_path, monkeypatch, capsys, str(tmp_path / name))
    assert f"{name}: it is a HEIC picture" in said and "pip install pillow-heif" in said and said.count("\n") == 1


def test_a_folder_of_heic_is_not_passed_over(tmp_path, capsys):
    two_folders(tmp_path)
    for i in range(9):
        (tmp_path / "smiling" / f"{i}.HEIC").write_bytes(HEIC)
    with pytest.raises(data.InputError, match="9 of the first 89 pictures"):
        data.load("folder", ["smiling"], 32, tmp_path)
    assert capsys.readouterr().err.count("pip install pillow-heif") == 9


def test_pillow_heif_is_used_where_it_is_installed(monkeypatch):
    called = []
    monkeypatch.setitem(sys.modules, "pillow_heif", types.SimpleNamespace(register_heif_opener=lambda: called.append(1)))
    module = types.ModuleType("data_anew")
    monkeypatch.setitem(sys.modules, "data_anew", module)
    exec(compile((HERE / "data.py").read_text(encoding="utf-8"), "data.py", "exec"), module.__dict__)
    assert called == [1]


# ------------------------------------------------------------------------------------------------------------
# edges2shoes the other way round; names of attributes

def shoe_pairs(root, edges, n=14):
    """Pairs with edges left (0) or right (1): black lines on white beside a shoe on white, a third of them black."""
    for i in range(n):
        drawing, photo = np.full((2, 64, 64, 3), 255)
        drawing[20:40, 10], drawing[20:40, 54], drawing[20, 10:54], drawing[40, 10:55] = 0, 0, 0, 0
        photo[20:40, 10:54] = (9, 9, 9) if i % 3 == 0 else (150 - 5 * i, 60, 90)
        path = root / ("train" if i < 10 else "val") / f"{i}_AB.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.hstack([photo, drawing] if edges else [drawing, photo]).astype(np.uint8)).save(path, quality=90)


@pytest.mark.parametrize("side", [0, 1])
def test_edges_are_edges_whichever_half_they_are(side, tmp_path, capsys):
    shoe_pairs(tmp_path, side)
    for part in data.load("edges2shoes", ["edges"], 32, tmp_path):
        is_edges = part.images.float().mean((1, 2, 3)) > 225  # few dark pixels
        assert torch.equal(part.labels[:, 0], is_edges) and is_edges.float().mean() == 0.5
    assert ("the edges are the right half" in capsys.readouterr().out) == bool(side)


def test_what_is_no_pair_is_refused(tmp_path, capsys):
    shoe_pairs(tmp_path / "root", 0)
    for path in (tmp_path / "root").rglob("*.jpg"):
        Image.open(path).crop((0, 0, 64, 64)).save(path)
    with pytest.raises(data.InputError):
        data.load("edges2shoes", ["edges"], 32, tmp_path / "root")
    assert "it has 64 x 64 pixels, but a pair is twice as wide as high" in capsys.readouterr().err


@pytest.mark.parametrize("typed, column", [
    ("5_o_Clock_Shadow", 1), ("5 o'clock shadow", 1), ("5oclockshadow", 1), ("MouthSlightlyOpen", 2),
    ("mouth-slightly-open", 2), ("mouth_open", 2), ("smile", 3), ("SMILING", 3), ("gender", 0), ("5_o_clock", None),
    ("", None), ("-", None)])
def test_names_of_attributes_are_compared_by_letters_and_digits(typed, column):
    for names in (["Male", "5_o_Clock_Shadow", "Mouth_Slightly_Open", "Smiling"],
                  ["Male", "5 o' Clock Shadow", "Mouth Slightly Open", "Smiling "]):
        if column is None:
            with pytest.raises(data.InputError, match="unknown attribute"):
                data.columns([typed], names, "a table")
        else:
            assert data.columns([typed], names, "a table") == [column]
            with pytest.raises(data.InputError, match="given twice"):
                data.columns([typed, names[column]], names, "a table")


# ------------------------------------------------------------------------------------------------------------
# What else a user may do

@pytest.mark.parametrize("n, few", [(90, True), (1120, False)])
def test_few_pictures_get_a_word(n, few, tmp_path, monkeypatch, capsys):
    some = data.Data(torch.zeros(n, 3, 1, 1, dtype=torch.uint8), torch.arange(n)[:, None] % 2 == 0, ("a",))
    monkeypatch.setitem(data.DATASETS, "few", (lambda *_: data.split(some, 0), "pictures"))
    train, test = data.load("few", ["a"], 1, tmp_path)
    assert (f"{len(train)} training pictures are few, and {len(test)} to measure on" in capsys.readouterr().out) == few


def test_a_run_that_is_not_there_is_answered_with_those_that_are(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for folder in ("runs/smile", "runs/old"):
        Path(folder).mkdir(parents=True)
        trip.save(trip.Run(trip.Config(**SMALL)), Path(folder))
    assert trip.main(["--attr", "beard", "--edit", "me.jpg"]) == 2
    said = capsys.readouterr().err.replace("\\", "/")
    assert "no run in runs/beard" in said and "runs/old, runs/smile" in said and said.count("\n") == 1


def test_going_on_with_a_finished_run_says_how(tmp_path, monkeypatch, capsys):
    some = data.faces(("smile",), 32, n=40)
    monkeypatch.setitem(data.DATASETS, "faces", (lambda *_: data.split(some, 0), ""))
    assert trip.main([*TINY, "--out", str(tmp_path)]) == 0
    assert "--steps and a higher number" not in capsys.readouterr().out
    before = torch.load(tmp_path / "trip.pt", weights_only=True)
    assert trip.main(["--out", str(tmp_path), "--resume"]) == 0
    assert "note: all 2 iterations are done: to go on, add --steps and a higher number" in capsys.readouterr().out
    after = torch.load(tmp_path / "trip.pt", weights_only=True)
    assert after["step"] == 2 and all(torch.equal(u, after["G"][name]) for name, u in before["G"].items())


@pytest.mark.skipif(os.name == "nt", reason="links need a right there")
@pytest.mark.parametrize("name", ["folder", "celeba", "lfwa", "edges2shoes"])
def test_links_do_where_the_data_set_s_folder_cannot_be_written_to(name, tmp_path, monkeypatch, capsys):
    theirs, mine = tmp_path / "theirs", tmp_path / "mine"
    LAYOUTS[name][0](theirs)
    access = os.access
    monkeypatch.setattr(data.os, "access", lambda path, mode: Path(path) != theirs and access(path, mode))
    with pytest.raises(data.InputError, match=f"mkdir mine && ln -s {theirs}/\\* mine, and type --root mine"):
        data.load(name, LAYOUTS[name][1], 32, theirs)
    mine.mkdir()
    subprocess.run("ln -s ../theirs/* .", shell=True, cwd=mine, check=True)
    before = set(theirs.iterdir())
    assert data.load(name, LAYOUTS[name][1], 32, mine)
    assert set(theirs.iterdir()) == before


@pytest.mark.parametrize("spoilt", [None, "identity_CelebA.txt", "list_attr_celeba.txt"])
def test_a_download_asks_for_the_files_that_are_needed(spoilt, tmp_path, monkeypatch):
    from torchvision.datasets import CelebA
    celeba(tmp_path / "drive")
    packed(tmp_path / "drive", "img_align_celeba")

    def fetch(id, output, **options):  # Google Drive, and a page of it in a file's place
        file = tmp_path / "drive" / id
        Path(output).write_bytes(b"<html>" if id == spoilt or not file.exists() else file.read_bytes())

    files = [(name, hashlib.md5((tmp_path / "drive" / name).read_bytes()).hexdigest() if (tmp_path / "drive" / name).exists()
              else "0", name) for _, _, name in CelebA.file_list]
    assert len(files) == 6
    monkeypatch.setattr(CelebA, "file_list", files)
    monkeypatch.setitem(sys.modules, "gdown", types.SimpleNamespace(download=fetch))
    if spoilt == "list_attr_celeba.txt":
        with pytest.raises(data.InputError, match="list_attr_celeba.txt could not be fetched"):
            data.load("celeba", ["smile"], 32, tmp_path / "root", download=True)
    else:
        for _ in range(2):  # the second time nothing is fetched
            assert len(data.load("celeba", ["smile"], 32, tmp_path / "root", download=True)[0]) == 30
            spoilt = "img_align_celeba.zip"
            (tmp_path / "root" / "celeba" / "img_align_celeba.zip").unlink(missing_ok=True)


# ------------------------------------------------------------------------------------------------------------
# Two processes, of which one fails

PROCESS = """
import os, signal, sys
sys.path.insert(0, {here!r})
import data, trip
if sys.argv[1] == "mistakes":  # of both, of both, and of the first one while the other waits
    assert [trip.main(options) for options in (["--smal"], ["--out", "damaged", "--resume"])] == [2, 2]
    code = trip.main(["--data", "celeba-hq", "--root", ".", "--out", "out"])
else:
    some = data.faces(("smile",), 32, n=40)
    data.DATASETS["faces"] = lambda *_: data.split(some, 0), ""
    train = trip.train
    def killed(run, *rest):
        for record in train(run, *rest):
            if run.step == 3 and data.team.number == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            yield record
    trip.train = killed
    code = trip.main([*{options!r}, "--steps", "1000", "--out", "out"])
data.team.leave(code)
"""


def both(what, folder):
    """Runs PROCESS twice, as torchrun does. Returns the exit codes and what was said on stderr; all end soon after the first."""
    (folder / "process.py").write_text(PROCESS.format(here=str(HERE), options=TINY))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    ranks = [subprocess.Popen([sys.executable, "process.py", what], cwd=folder, stderr=subprocess.PIPE, text=True,
                              env={**env, "RANK": str(i), "LOCAL_RANK": str(i)}) for i in (0, 1)]
    try:
        while all(rank.poll() is None for rank in ranks):
            time.sleep(0.05)
        said = [rank.communicate(timeout=60)[1] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    return [rank.returncode for rank in ranks], said


def test_a_mistake_under_torchrun_is_one_line_of_the_first_process_and_ends_all(tmp_path):
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "trip.pt").write_bytes(b"PK")
    codes, (first, second) = both("mistakes", tmp_path)
    assert codes == [2, 2] and second == ""
    lines = first.splitlines()
    assert len(lines) == 3 and all(line.startswith("trip.py: error: ") for line in lines), first
    assert "--smal" in lines[0] and "damaged" in lines[1] and "attribute-anno.txt" in lines[2]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_where_one_process_is_killed_the_other_says_so_in_one_line_and_ends(tmp_path):
    codes, (first, second) = both("killed", tmp_path)
    assert codes == [2, -signal.SIGKILL] and second == ""
    assert first.count("\n") == 1 and "another process" in first and "--resume" in first


# ------------------------------------------------------------------------------------------------------------
# Names

def test_a_folder_may_have_any_name(tmp_path, monkeypatch):
    name = os.fsdecode("-$\\frac$ 100 %s it's ü".encode() + (b"" if os.name == "nt" else b"\xe4"))
    try:
        two_folders(tmp_path / name, name=name, other="#{} [x]*")
    except OSError:  # a file system that wants UTF-8
        name = name[:-1]
        two_folders(tmp_path / name, name=name, other="#{} [x]*")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdout", open(tmp_path / "said", "w", encoding="utf-8"))  # strict, as a terminal is
    run = name + " run"
    assert trip.main([*TINY, "--data", "folder", f"--root={name}", f"--attr={name}", f"--out={run}"]) == 0
    assert trip.main([f"--out={run}", "--edit", os.path.join(".", run, "samples.png"), "--v=-1"]) == 0
    assert eval.main([os.path.join(".", run), "--metrics", "ranker"]) == 0
    files = {path.name for path in (tmp_path / run).iterdir()}
    assert {"samples.png", "ranker.png", "ranker.npz", "edit.png", "fig7_ranker.png", "eval.json"} <= files


@pytest.mark.parametrize("name", ["$smile$", "a $ b", "\\$a$", "$$", "plain"])
def test_a_name_with_dollars_is_drawn_as_it_is(name):
    figure, axes = eval.canvas()
    assert axes.set_title(eval.words(name))._preprocess_math(eval.words(name)) == (name, False)


@pytest.mark.parametrize("options", ["--attr -smile", "--out -x", "--edit -me.jpg", "--edit -1/me.jpg"])
def test_a_name_that_begins_with_a_dash_is_answered_with_how_to_type_it(options, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert trip.main(options.split()) == 2
    said = capsys.readouterr().err
    assert "--attr=-name or ./-name" in said and said.count("\n") == 1


def test_a_folder_may_be_called_minus_1(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    some = data.faces(("smile",), 32, n=40)
    monkeypatch.setitem(data.DATASETS, "faces", (lambda *_: data.split(some, 0), ""))
    assert trip.main([*TINY, "--out", "-1"]) == 0 and os.listdir() == ["-1"]
    assert trip.main(["--out", "-1", "--edit", "./-1/samples.png", "--v", "-1", "-.5"]) == 0
