"""Data sets as they are published, files as people have them, pictures of any kind: all in miniature."""

import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
import types
import unicodedata
from contextlib import suppress
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
from miniatures import CELEBA, LAYOUTS, LFWA, SMALL, TINY, assert_labels, celeba, celeba_hq  # noqa: E402
from miniatures import edges2shoes, folder, lfwa, numbers, picture  # noqa: E402


def numbers_of(parts):
    return sorted(sum(map(numbers, parts), []))


def move(old, new):
    """Rename, into folders that are made; a folder may be moved into itself."""
    aside = old.with_name("aside")
    old.rename(aside)
    new.parent.mkdir(parents=True, exist_ok=True)
    aside.rename(new)


def keep_pictures(folder, keep):
    for i, path in enumerate(sorted(folder.iterdir())):
        if i not in keep:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def edit(file, change):
    """A function of a root that changes a file's text there."""
    return lambda root: (root / file).write_text(change((root / file).read_text()))


# ------------------------------------------------------------------------------------------------------------
# As they are published

@pytest.mark.parametrize("name", LAYOUTS)
def test_two_iterations_on_every_data_set(name, tmp_path):
    make, attrs = LAYOUTS[name]
    make(tmp_path / "root")
    out = tmp_path / "run"
    assert trip.main([*TINY, "--data", name, "--root", str(tmp_path / "root"), "--attr", *attrs,
                      "--out", str(out)]) == 0
    assert json.loads((out / "summary.json").read_text())["config"]["data"] == name


def test_celeba_is_cropped_to_its_centre_of_178_x_178(tmp_path):
    celeba(tmp_path)
    image = np.zeros((218, 178, 3), np.uint8)
    image[20:198] = 255
    Image.fromarray(image).save(tmp_path / "img_align_celeba" / "000001.jpg", quality=100)
    train, _ = data.load("celeba", ["smile"], 32, tmp_path)
    assert train.images.amin((1, 2, 3)).max() > 200  # one is white up to its edges (JPEG blurs them)


@pytest.mark.parametrize("where, there", [("lfw", 80), ("lfw_funneled", 80), ("lfw-deepfunneled", 60)])
def test_lfwa_is_split_by_person_and_labelled_by_the_sign_of_the_score(where, there, tmp_path, capsys):
    lfwa(tmp_path, where)
    keep_pictures(tmp_path / where, range(there))
    train, test = data.load("lfwa", ["mouth slightly open", "Frowning"], 32, tmp_path)
    assert len(train) + len(test) == 2 * there
    persons = [{i % 80 for i in numbers(part)} for part in (train, test)]  # pictures i and i + 80 show one
    assert not persons[0] & persons[1] and len(persons[1]) == there // 10
    assert_labels((train, test), LFWA, "Mouth Slightly Open", "Frowning")
    assert ("120 of the 160 pictures" in capsys.readouterr().out) == (there == 60)


def test_edges2shoes_keeps_the_halves_of_a_pair_together(tmp_path):
    edges2shoes(tmp_path)
    train, test = data.load("edges2shoes", ["edges"], 32, tmp_path)
    assert (len(train), len(test)) == (40, 12)
    for part in (train, test):
        edges = part.labels[:, 0]
        assert torch.equal(edges, part.images[:, 2].float().mean((1, 2)) > 128)  # (blue)
        assert sorted(numbers(part[edges])) == sorted(numbers(part[~edges]))
    assert set(numbers(test)) == set(range(20, 26))  # its own val part


# ------------------------------------------------------------------------------------------------------------
# As they come from the net, a part of them, two folders

def kaggle(root):
    """Kaggle's CelebA: a folder in a folder of the same name, a table, too, and commas."""
    celeba(root)
    move(root / "img_align_celeba", root / "img_align_celeba" / "img_align_celeba")
    for name, header in ("list_attr_celeba", "image_id,"), ("list_eval_partition", "image_id,partition\n"):
        rows = [",".join(line.split()) for line in (root / f"{name}.txt").read_text().splitlines()]
        (root / f"{name}.csv").write_text(header + "\n".join(rows[name == "list_attr_celeba":]))
        (root / f"{name}.txt").unlink()
    (root / "old" / "img_align_celeba").mkdir(parents=True)  # (the folder nearest to the root is taken)
    move(root / "list_attr_celeba.csv", root / "list_attr_celeba.csv" / "list_attr_celeba.csv")


def drive(root):
    """As the folders of CelebA's Google Drive."""
    celeba(root, ends="\n")
    for file, new in (("list_attr_celeba.txt", "Anno"), ("list_eval_partition.txt", "Eval"),
                      ("img_align_celeba", "Img")):
        move(root / file, root / "CelebA" / new / file)
    (root / "__MACOSX" / "CelebA" / "img_align_celeba").mkdir(parents=True)  # an archive's, made on a Mac


def nested_lfw(root):
    lfwa(root, "lfw-deepfunneled")
    move(root / "lfw-deepfunneled", root / "lfw-deepfunneled" / "lfw-deepfunneled")


@pytest.mark.parametrize("name, attr, make", [
    ("celeba", "smile", kaggle), ("celeba", "smile", drive), ("lfwa", "frown", nested_lfw),
    ("edges2shoes", "edges", lambda root: edges2shoes(root / "edges2shoes"))])
def test_a_layout_of_the_net_gives_the_same_as_the_published_one(name, attr, make, tmp_path):
    LAYOUTS[name][0](tmp_path / "published")
    make(tmp_path / "net")
    published, found = (data.load(name, [attr], 32, tmp_path / root) for root in ("published", "net"))
    for a, b in zip(published, found):
        assert torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels)


PAGE = "\n<!DOCTYPE html><html><head><title>Google Drive - Quota exceeded</title></head></html>"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
TABLE, PARTITION = "list_attr_celeba.txt", "list_eval_partition.txt"
HQ_TABLE = "CelebAMask-HQ-attribute-anno.txt"


def packed(root, folder):
    shutil.make_archive(str(root / folder), "zip", root, folder)
    shutil.rmtree(root / folder)


def broken(folder, n):
    return lambda root: [path.write_bytes(b"cut off") for path in sorted((root / folder).iterdir())[:n]]


def emptied(folder):
    return lambda root: [path.unlink() for path in (root / folder).rglob("*") if path.is_file()]


@pytest.mark.parametrize("name, attrs, spoil, says", [
    ("celeba", "smile", lambda root: (root / TABLE).unlink(), f"no {TABLE} in"),
    ("celeba", "smile", lambda root: (root / PARTITION).unlink(), f"no {PARTITION} in"),
    ("celeba", "smile", edit(TABLE, lambda t: PAGE), f"{TABLE}: no table, but '<!DOCTYPE html>"),
    ("lfwa", "smile", edit("lfw_attributes.txt", lambda t: POINTER), "git lfs pull"),
    ("lfwa", "smile", lambda root: (root / "lfw_attributes.txt").write_bytes(b"PK\xff"), "no table, but 'PK"),
    ("celeba", "smile", lambda root: packed(root, "img_align_celeba"), "found ['img_align_celeba.zip'"),
    ("edges2shoes", "edges", lambda root: packed(root, "train"), "found ['train.zip'"),
    ("celeba-hq", "smile", lambda root: (root / "CelebA-HQ-img").rename(root / "celeba_hq_256"),
     f"found ['{HQ_TABLE}', 'celeba_hq_256']"),
    ("celeba-hq", "smile", lambda root: [shutil.copytree(root, root.parent / "copies" / new) for new in "ab"]
     + [shutil.rmtree(root), (root.parent / "copies").rename(root)], "name the folder of one of them"),
    ("celeba-hq", "smile", edit(HQ_TABLE, lambda t: t.replace(".jpg", ".png")),
     f"none of the 120 pictures that {HQ_TABLE} names, 0.png ...; found ['0.jpg'"),
    ("celeba", "smile", emptied("img_align_celeba"), "none of the 40 pictures"),
    ("celeba", "smile", edit(PARTITION, lambda t: t[:40]), "says nothing of"),
    ("celeba", "smile", edit(TABLE, lambda t: re.sub(r"\n.*\n", "\n\n", t, count=1)), "first is ['40']"),
    ("celeba", "smile", edit(TABLE, lambda t: t.replace("40\n", "41\n", 1)), "the first is ['41']"),
    ("celeba", "smile", edit(TABLE, lambda t: ""), "no table, but ''"),
    ("celeba", "smile", edit(TABLE, lambda t: re.sub(r"(000002.jpg) ..", r"\1 ", t)), "from 41 to 40 at row"),
    ("celeba", "smile", edit(TABLE, lambda t: re.sub(r"(000002.jpg) ..", r"\1 ?", t)), "'?'"),
    ("celeba", "smile", edit(TABLE, lambda t: "0\n" + t.splitlines()[1] + "\n"), "0 lines follow"),
    ("celeba", "smlie", None, "'Smiling'"),
    ("celeba", "smile Smiling", None, "given twice"),
    ("celeba", "smile", broken("img_align_celeba", 3), "more than 1 %"),
    ("celeba-hq", "smile", edit(HQ_TABLE, lambda t: t.replace("-1", "1")), "pictures have 'smile'"),
    ("lfwa", "smile", edit("lfw_attributes.txt", lambda t: t.replace("imagenum", "name")), "second line"),
    ("lfwa", "smile", edit("lfw_attributes.txt", lambda t: re.sub("\t[-.0-9]+(?=\n)", "", t)), "74 numbers"),
    ("lfwa", "smile", edit("lfw_attributes.txt", lambda t: t.replace("\t12\t", "\tnan\t", 1)), "74 numbers"),
    ("edges2shoes", "shoes", None, "the nearest are 'edges'"),
    ("edges2shoes", "edges", emptied("val"), "val: the folder holds no"),
    ("edges2shoes", "edges", lambda root: [picture(path, 0, (64, 64)) for path in list(root.rglob("*.jpg"))],
     "it has 64 x 64 pixels, but a pair is twice as wide as high"),
    ("folder", "boats", None, "found ['cats and dogs', 'ships']"),
    ("folder", "ships", lambda root: (root / "third").mkdir(), "found ['cats and dogs', 'ships', 'third']"),
    ("folder", "ships", emptied("ships"), "no pictures"),
])
def test_files_that_are_not_as_expected_get_one_line(name, attrs, spoil, says, tmp_path, capsys):
    root = tmp_path / "root"
    LAYOUTS[name][0](root)
    if spoil:
        spoil(root)
    out = tmp_path / "out"
    code = trip.main([*TINY, "--data", name, "--root", str(root), f"--out={out}", "--attr", *attrs.split()])
    said = capsys.readouterr().err
    assert code == 2 and says in said and said.startswith("trip.py: error"), said
    assert said.count("\n") == 1 and not out.exists()


@pytest.mark.parametrize("options, says", [
    ("--data celeba", "needs --root"), ("--data celeba --root not/there", "not/there"),
    ("--data celeba --root .", "mmlab.ie.cuhk.edu.hk"), ("--crop 0 0 9", "--edit")])
def test_a_command_that_lacks_something_gets_one_line(options, says, tmp_path, capsys):
    assert trip.main([*TINY, *options.split(), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert says in said and said.count("\n") == 1


@pytest.mark.parametrize("typed, column", [
    ("5_o_Clock_Shadow", 1), ("5oclockshadow", 1), ("mouth-slightly-open", 2), ("mouth_open", 2),
    ("smile", 3), ("SMILING", 3), ("gender", 0), ("5_o_clock", None), ("", None), ("-", None)])
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


@pytest.mark.parametrize("n, keep, cut, test, says", [
    (40, range(40), 40, range(30, 40), ""),  # whole: its own partition
    (40, [*range(2), *range(3, 40)], 40, range(30, 40), f"39 of the 40 pictures that {TABLE} names"),
    (160, range(80), 160, None, "80 of the 160 pictures"),  # the first ones: all of the training part
    (160, range(80), 80, None, "all of these 80 pictures in one part: 10 % are held out"),  # the table, too
    (320, range(240, 320), 320, None, "all of these 80 pictures in one part"),  # of the test part
])
def test_of_celeba_those_pictures_are_taken_that_are_there(n, keep, cut, test, says, tmp_path, capsys):
    celeba(tmp_path, n)
    keep_pictures(tmp_path / "img_align_celeba", keep)
    edit(TABLE, lambda t: "\n".join([str(cut), *t.splitlines()[1:cut + 2], ""]))(tmp_path)
    parts = data.load("celeba", ["smile", "male"], 32, tmp_path)
    assert numbers_of(parts) == list(keep)
    assert sorted(numbers(parts[1])) == list(test) if test else len(parts[1]) == len(keep) // 10
    assert_labels(parts, CELEBA, "Smiling", "Male")
    said = capsys.readouterr().out
    assert says in said if says else TABLE not in said and "in one part" not in said


def test_a_name_may_be_typed_in_other_letters_than_a_mac_has_written_it(tmp_path):
    two_folders(tmp_path, 40, name=unicodedata.normalize("NFD", "Fröhlich"))
    train, test = data.load("folder", [unicodedata.normalize("NFC", "fröhlich")], 32, tmp_path)
    assert train.labels.sum() + test.labels.sum() == 20


def two_folders(root, n=80, name="smiling", other="other"):
    for i in range(n):
        picture(root / (name if i % 2 else other) / f"{i}.jpg", i)


@pytest.mark.parametrize("attr", ["ships", "cats and dogs"])
def test_folder_takes_any_format_at_any_depth_in_two_folders_or_in_a_folder_of_two(attr, tmp_path):
    folder(tmp_path / "pictures")
    (tmp_path / "__MACOSX").mkdir()
    for root in (tmp_path / "pictures", tmp_path):
        for part in data.load("folder", [attr], 32, root):
            assert part.labels[:, 0].tolist() == [(i % 2 == 1) == (attr != "ships") for i in numbers(part)]


@pytest.mark.parametrize("names, said", [
    (["smiling/Thumbs.db", "other/Desktop.ini", "other/._1.jpg", "other/.DS_Store", "Thumbs.db"], ""),
    (["__MACOSX/smiling/1.jpg", "smiling/__MACOSX/1.jpg", "smiling/@eaDir/S.jpg", "$RECYCLE.BIN/1.jpg"], ""),
    (["smiling/labels.csv", "smiling/1.xmp", "smiling/1.mov", "smiling/old/no ending"],
     "4 files under {root}/smiling are no pictures; found ['1.mov', '1.xmp', 'labels.csv', 'no ending']\n"),
])
def test_what_is_no_picture_by_its_name_or_place_is_none(names, said, tmp_path, capsys):
    two_folders(tmp_path)
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"no picture")
    assert numbers_of(data.load("folder", ["smiling"], 32, tmp_path)) == list(range(80))
    told = capsys.readouterr().out.replace("\\", "/")
    assert said.format(root=tmp_path.as_posix()) in told and (said or "no pictures" not in told)


def test_what_is_held_out_was_never_trained_on_when_pictures_come(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(eval, "report", lambda *_: None)
    two_folders(tmp_path / "root", 300)
    options = [*TINY, "--data", "folder", "--root", str(tmp_path / "root"), "--attr", "Smiling/"]
    assert trip.main([*options, "--out", str(tmp_path / "run")]) == 0
    first = [*map(numbers, data.load("folder", ["smiling"], 32, tmp_path / "root"))]
    two_folders(tmp_path / "root", 600)
    then = [*map(numbers, data.load("folder", ["smiling"], 32, tmp_path / "root"))]
    assert not set(first[0]) & set(then[1]) and 10 < len(first[1]) < len(then[1]) < 100
    capsys.readouterr()
    assert trip.main([*options, "--out", str(tmp_path / "run"), "--resume"]) == 0
    assert "trained on" not in capsys.readouterr().err
    for i in sorted(i for i in then[1] if i % 2)[1:]:  # two of a class must be held out: now another one is
        (tmp_path / "root" / "smiling" / f"{i}.jpg").unlink()
    assert trip.main([*options, "--out", str(tmp_path / "run"), "--resume"]) == 0
    assert re.search(r"1 of the \d+ pictures that are held out now have been trained on", capsys.readouterr().err)
    assert eval.main([str(tmp_path / "run"), "--metrics", "ranker"]) == 0


def test_pictures_in_subfolders_get_a_word(tmp_path, capsys):
    two_folders(tmp_path)
    data.load("folder", ["smiling"], 32, tmp_path)
    assert "whatever their" not in capsys.readouterr().out
    picture(tmp_path / "smiling" / "film" / "1.png", 1)
    data.load("folder", ["smiling"], 32, tmp_path)
    assert "whatever their folders" in capsys.readouterr().out


@pytest.mark.parametrize("val", ["val", "test", "Validation"])
def test_folders_of_train_and_val_are_the_two_parts(val, tmp_path, capsys):
    two_folders(tmp_path / "train", 80)
    two_folders(tmp_path / val, 20)
    train, test = data.load("folder", ["smiling"], 32, tmp_path)
    assert [sorted(numbers(part)) for part in (train, test)] == [list(range(80)), list(range(20))]
    run, clean = trip.Run(trip.Config(**SMALL)), train[torch.tensor([i >= 20 for i in numbers(train)])]
    eval.seen_before(run, clean, test)
    assert "trained on" not in capsys.readouterr().err  # (that both have a 1.jpg says nothing)
    eval.seen_before(run, test, clean[:3])
    assert "3 of the 3 pictures that are held out now have been trained on" in capsys.readouterr().err
    with pytest.raises(data.InputError, match="not 'train'; found .'other', 'smiling'."):
        data.load("folder", ["train"], 32, tmp_path)


def test_fifteen_pictures_of_a_class_are_enough_to_begin(tmp_path, capsys):
    two_folders(tmp_path, 306)
    for i, path in enumerate(sorted((tmp_path / "smiling").iterdir())):
        if i >= 15:
            path.rename(tmp_path / "other" / path.name)
    train, test = data.load("folder", ["smiling"], 32, tmp_path)
    assert train.labels.sum() + test.labels.sum() == 15 and test.labels.sum() >= 2
    assert "training pictures have 'smiling': a trial needs" in capsys.readouterr().out
    for path in sorted((tmp_path / "smiling").iterdir())[1:]:
        path.unlink()
    for attr in ("smiling", "other"):
        with pytest.raises(data.InputError, match="pairs need two with it and two without"):
            data.load("folder", [attr], 32, tmp_path)


# ------------------------------------------------------------------------------------------------------------
# The file of decoded pictures

@pytest.fixture
def calls(monkeypatch):
    """The files that are decoded, one after the other."""
    read, files = data.read_picture, []
    monkeypatch.setattr(data, "read_picture", lambda file, *rest: (files.append(file), read(file, *rest))[1])
    return files


def test_pictures_are_decoded_once_and_again_only_if_they_change(tmp_path, calls, monkeypatch):
    celeba_hq(tmp_path)
    first = data.load("celeba-hq", ["smile"], 32, tmp_path)
    assert len(calls) == 120
    again = data.load("celeba-hq", ["male"], 32, tmp_path)  # other labels, the same pictures
    assert len(calls) == 120 and torch.equal(first[0].images, again[0].images)
    data.load("celeba-hq", ["smile"], 64, tmp_path)  # a size has a file of its own
    assert len(calls) == 240
    picture(tmp_path / "CelebA-HQ-img" / "0.jpg", 777)
    assert 777 in numbers_of(data.load("celeba-hq", ["smile"], 32, tmp_path)) and len(calls) == 360
    monkeypatch.setattr(data, "RECIPE", "another crop")
    data.load("celeba-hq", ["smile"], 32, tmp_path)
    assert len(calls) == 480
    names = sorted(re.sub("-[0-9a-f]{12}", "", path.name) for path in tmp_path.iterdir())
    assert names == ["CelebA-HQ-img", HQ_TABLE, *(f"trip-celeba-hq-{size}px.{end}" for size in (32, 64)
                                                  for end in ("json", "raw"))]  # those in use only


def test_broken_pictures_are_named_and_left_out(tmp_path, capsys):
    celeba_hq(tmp_path)
    (tmp_path / "CelebA-HQ-img" / "7.jpg").write_bytes(b"no picture")
    for _ in range(2):  # when the file is made, and when it is found again
        parts = data.load("celeba-hq", ["smile"], 32, tmp_path)
        assert numbers_of(parts) == [i for i in range(120) if i != 7]
        assert_labels(parts, CELEBA, "Smiling")  # no label has slipped
        assert re.search("left out: .*7.jpg: it cannot be read", capsys.readouterr().out)


@pytest.mark.parametrize("name, attr, place, left", [
    ("celeba", "smile", "img_align_celeba", 39), ("edges2shoes", "edges", "train", 50)])  # (a pair is two)
def test_a_small_data_set_may_have_a_broken_picture_too(name, attr, place, left, tmp_path):
    LAYOUTS[name][0](tmp_path)
    broken(place, 1)(tmp_path)
    assert sum(map(len, data.load(name, [attr], 32, tmp_path))) == left


@pytest.fixture
def fake(monkeypatch):
    """Picture i is i everywhere, but for one that is broken, or one that Ctrl-C is pressed at."""
    def read_picture(file, size, half=None):
        i = int(file[:-4])
        fake.read.append(i)
        if i == fake.stop:
            raise KeyboardInterrupt
        if i == fake.broken:
            raise data.InputError(f"{file}: broken; mend it")
        return torch.full((3, size, size), i, dtype=torch.uint8)

    fake = types.SimpleNamespace(stop=None, broken=None, read=[])
    monkeypatch.setattr(data, "read_picture", read_picture)
    return fake


def decoded(tmp_path, n=40):
    """The pictures that are decoded into files there, and the broken ones; None where Ctrl-C is pressed."""
    with suppress(KeyboardInterrupt):
        path = tmp_path / "trip-some-4px-0123456789ab.raw"
        images, broken = data.decode(path, [(f"{i}.jpg", None) for i in range(n)], 4, chunk=8)
        assert images.shape == (n, 3, 4, 4) and isinstance(images, np.memmap)
        return images[:, 0, 0, 0].tolist(), broken


def test_an_interrupted_build_goes_on_where_it_stopped(tmp_path, fake):
    fake.stop, fake.broken = 29, 5
    assert decoded(tmp_path) is None
    fake.stop, fake.read = None, []
    images, broken = decoded(tmp_path)
    assert sorted(fake.read) == list(range(24, 40))  # three chunks were done
    assert images[:39] == [i for i in range(40) if i != 5] and broken == {"5": "5.jpg: broken; mend it"}


@pytest.mark.parametrize("damage", [
    lambda raw, note: raw.write_bytes(raw.read_bytes()[:200]), lambda raw, note: raw.unlink(),
    lambda raw, note: note.write_text("[1]"), lambda raw, note: note.write_text("{"),
    lambda raw, note: note.write_text("1"), lambda raw, note: note.unlink()])
@pytest.mark.parametrize("stop", [None, 20])
def test_a_damaged_file_of_pictures_is_made_anew(tmp_path, damage, stop, fake):
    fake.stop = stop
    decoded(tmp_path)
    damage(*sorted(tmp_path.iterdir(), reverse=True))
    fake.stop = None
    assert decoded(tmp_path) == (list(range(40)), {})


def test_a_whole_file_of_pictures_is_enough_where_nobody_may_write(tmp_path, monkeypatch, fake):
    decoded(tmp_path)
    monkeypatch.setattr(data, "open", lambda *_: (tmp_path / "no" / "way").touch(), raising=False)
    assert decoded(tmp_path) == (list(range(40)), {})
    with pytest.raises(data.InputError, match="resized pictures are kept; give a copy as --root"):
        decoded(tmp_path, n=8)


def test_a_disk_too_small_is_told_before(tmp_path, monkeypatch, fake):
    monkeypatch.setattr(data.shutil, "disk_usage", lambda path: types.SimpleNamespace(free=10))
    with pytest.raises(data.InputError, match="1 MB are needed, 0 are free"):  # never 0 needed
        decoded(tmp_path)
    assert not list(tmp_path.iterdir()) and not fake.read


FULL = """
import resource, sys, types
sys.path.insert(0, {here!r})
import data
resource.setrlimit(resource.RLIMIT_FSIZE, (250_000, 250_000))  # as a disk that is full then
data.math = types.SimpleNamespace(prod=lambda shape: 1000)  # (else the file is not even begun)
data.load("folder", ["smiling"], 64, "root")
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such limits")
def test_a_disk_that_is_full_while_pictures_are_decoded_is_an_error_and_no_signal(tmp_path):
    two_folders(tmp_path / "root", 80)
    (tmp_path / "full.py").write_text(FULL.format(here=str(HERE)))
    done = subprocess.run([sys.executable, "full.py"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1 and "OSError" in done.stderr.splitlines()[-1], done.stderr


TWO = """
import sys, time
sys.path.insert(0, {here!r})
import numpy as np, torch, data
from pathlib import Path
def read_picture(file, size, half=None):
    time.sleep(0.002)
    if file == "5.jpg":
        raise data.InputError("5.jpg: broken")
    return torch.full((3, size, size), int(file[:-4]), dtype=torch.uint8)
data.read_picture = read_picture
Path(sys.argv[1]).touch()
while not (Path("a").exists() and Path("b").exists()):
    time.sleep(0.001)
sources = [(f"{{i}}.jpg", None) for i in range(200)]
images, broken = data.decode(Path("trip-x-4px-0123456789ab.raw"), sources, 4, chunk=8)
assert images[:199, 2, 3, 3].tolist() == [i for i in range(200) if i != 5] and list(broken) == ["5"]
"""


def test_two_processes_may_decode_the_same_pictures_at_once(tmp_path):
    (tmp_path / "two.py").write_text(TWO.format(here=str(HERE)))
    both = [subprocess.Popen([sys.executable, "two.py", name], cwd=tmp_path) for name in "ab"]
    assert [process.wait(120) for process in both] == [0, 0]
    assert not list(tmp_path.glob("*.new"))


# ------------------------------------------------------------------------------------------------------------
# A picture of one's own, and a run

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


def test_edit_says_what_it_leaves_and_takes_the_square_that_crop_names(tmp_path, monkeypatch, capsys):
    sizes = (400, 200), (200, 301), (200, 200)
    wide, tall, square = (coloured(tmp_path / f"{w} {h}.png", w, h) for w, h in sizes)
    x, said = edited(tmp_path, monkeypatch, capsys, wide, tall, square)
    assert x.shape[2:] == (200, 200)  # as it came, not as the layers see it
    assert corner(x[0]) == pytest.approx([100, 0], abs=2) and corner(x[1]) == pytest.approx([0, 50], abs=2)
    assert "has 400 x 200 pixels: only the square in the centre is edited; --crop LEFT TOP SIZE" in said
    assert said.count("only the square") == 2
    x, said = edited(tmp_path, monkeypatch, capsys, wide, square, "--crop", "120", "40", "64")  # one for all
    assert "only the square" not in said
    for cropped in x:
        assert corner(cropped) == pytest.approx([120, 40], abs=2)
        assert (cropped[:2, -1, -1] - cropped[:2, 0, 0]).tolist() == pytest.approx([62 / 255] * 2, abs=0.02)


@pytest.mark.parametrize("crop", ["201 0 200", "0 1 200", "-1 0 100", "0 -1 100", "0 0 0"])
def test_a_crop_that_leaves_the_picture_is_refused(crop, tmp_path, monkeypatch, capsys):
    wide = coloured(tmp_path / "wide.png", 400, 200)
    x, said = edited(tmp_path, monkeypatch, capsys, wide, "--crop", *crop.split())
    assert x is None and f"--crop {crop}: " in said and "400 x 200 pixels" in said and said.count("\n") == 1
    assert not (tmp_path / "edit.png").exists()


def photograph(path, w, h, **options):
    """A picture without sharp edges, so that JPEG keeps its colours."""
    columns, rows = np.meshgrid(np.arange(w) * 255 // w, np.arange(h) * 255 // h)
    Image.fromarray(np.dstack([columns, rows, 128 + 0 * rows]).astype(np.uint8)).save(path, **options)


def pixels(path):
    return np.asarray(Image.open(path)).astype(int)


@pytest.fixture
def vivid(tmp_path):
    """A run whose generator paints strongly, in the folder `run`; and what applies it to pictures."""
    run = trip.Run(trip.Config(**SMALL))
    run.G.paint.bias.data.fill_(0.6)
    (tmp_path / "run").mkdir()
    trip.save(run, tmp_path / "run")
    return lambda *options: trip.main(["--out", str(tmp_path / "run"), "--edit", *map(str, options)])


def test_edit_gives_the_whole_picture_back_changed_in_its_square_only(vivid, tmp_path):
    photograph(tmp_path / "me.png", 300, 200)
    assert vivid(tmp_path / "me.png", "--v", "1", "0", "--crop", "100", "50", "120") == 0
    assert sorted(os.listdir(tmp_path / "run" / "edit")) == ["me_v+0.00.png", "me_v+1.00.png"]
    before = pixels(tmp_path / "me.png")
    after = [pixels(tmp_path / "run" / "edit" / f"me_v+{v}.00.png") for v in (0, 1)]
    assert np.array_equal(after[0], before)
    change = np.abs(after[1] - before)
    assert change[60:160, 110:210].min(-1).mean() > 30
    assert change[50, 100:220].max() == change[50:170, 100].max() == 0  # no seam ...
    assert np.abs(np.diff(change[:, 160].max(-1))).max() < 20
    change[50:170, 100:220] = 0
    assert not change.any()


def test_an_edited_photograph_keeps_what_came_with_it_and_stands_upright(vivid, tmp_path):
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Lens & Co."  # Orientation: turned by a quarter; Make
    photograph(tmp_path / "me.jpeg", 300, 200, quality=95, exif=exif, icc_profile=b"a profile")
    Image.new("L", (40, 40), 99).save(tmp_path / "grey.jpg", icc_profile=b"of grey")
    assert vivid(tmp_path / "me.jpeg", tmp_path / "grey.jpg", "--v", "-0.5") == 0
    with Image.open(tmp_path / "run" / "edit" / "me_v-0.50.jpg") as file:
        assert file.format == "JPEG" and file.size == (200, 300) and file.info["icc_profile"] == b"a profile"
        assert file.getexif()[0x010F] == "Lens & Co." and 0x0112 not in file.getexif()
        upright = np.rot90(pixels(tmp_path / "me.jpeg"), -1)
        assert np.abs(np.asarray(file)[:40].astype(int) - upright[:40]).max() < 8
    with Image.open(tmp_path / "run" / "edit" / "grey_v-0.50.jpg") as file:  # (it is in colour now)
        assert file.mode == "RGB" and "icc_profile" not in file.info


def test_edit_replaces_no_file_but_its_own(vivid, tmp_path):
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        photograph(tmp_path / place / "me.png", 60 if place == "a" else 80, 60)
    (tmp_path / "run" / "edit").mkdir()
    photograph(tmp_path / "run" / "edit" / "me_v+1.00.png", 20, 20)  # somebody else's
    for _ in range(2):  # the second time its own are written over
        assert vivid(tmp_path / "a" / "me.png", tmp_path / "b" / "me.png", "--v", "1") == 0
        sizes = {path.name: Image.open(path).size for path in (tmp_path / "run" / "edit").iterdir()}
        assert sizes == {"me_v+1.00.png": (20, 20), "me-2_v+1.00.png": (60, 60), "me-3_v+1.00.png": (80, 60)}
    with data.alone(tmp_path / "run" / "edit"):  # two at once would take one name
        assert vivid(tmp_path / "a" / "me.png", "--v", "-1") == 2


def test_edit_keeps_apart_what_is_not_the_same(vivid, tmp_path):
    me, edit = tmp_path / "me.png", tmp_path / "run" / "edit"
    photograph(me, 60, 60)
    assert vivid(me, "--v", "1") == 0
    once = pixels(edit / "me_v+1.00.png")
    assert vivid(me, tmp_path / "." / "me.png", "--v", "1", "1.0", "-1E-3", "-0", "0.333", "0.334") == 0
    assert np.array_equal(pixels(edit / "me_v+1.00.png"), once)  # not twice
    names = {f"me_v{v}.png" for v in ("+1.00", "-0.001", "+0.00", "+0.333", "+0.334")}
    assert set(os.listdir(edit)) == names
    assert vivid(edit / "me_v+1.00.png", me, "--v", "1") == 0  # an input that stands where an output would
    assert np.array_equal(pixels(edit / "me_v+1.00.png"), once)
    assert {"me_v+1.00_v+1.00.png", "me-2_v+1.00.png"} == {*os.listdir(edit)} - names


def test_a_transparent_picture_stays_transparent(vivid, tmp_path):
    photograph(tmp_path / "rgb.png", 80, 60)
    picture = np.dstack([pixels(tmp_path / "rgb.png"), np.full((60, 80), 255)]).astype(np.uint8)
    picture[:, :20, 3], picture[:, 20:30, 3] = 0, 100
    Image.fromarray(picture).save(tmp_path / "me.png")
    assert vivid(tmp_path / "me.png", "--v", "1", "--crop", "30", "0", "50") == 0
    found = pixels(tmp_path / "run" / "edit" / "me_v+1.00.png")
    assert np.array_equal(found[:, :30], picture[:, :30]) and np.array_equal(found[..., 3], picture[..., 3])
    assert np.abs(found - picture)[20:40, 45:65, :3].mean() > 20


def test_damaged_exif_data_cost_no_picture(vivid, tmp_path, monkeypatch, capsys):
    exif = Image.Exif()
    exif[0x010E] = "a description"
    photograph(tmp_path / "me.jpg", 80, 60, exif=exif)
    save = Image.Image.save

    def strict(picture, *rest, **more):
        if 0x010E in more.get("exif", ()):
            raise struct.error("required argument is not an integer")  # as Pillow does
        save(picture, *rest, **more)

    def fail(picture):
        raise TypeError("as Pillow does")

    monkeypatch.setattr(Image.Image, "save", strict)
    monkeypatch.setattr(data.ImageOps, "exif_transpose", fail)
    run = tmp_path / "run"
    assert vivid(tmp_path / "me.jpg", "--v", "1") == 0
    assert "without the EXIF data" in capsys.readouterr().err
    with Image.open(run / "edit" / "me_v+1.00.jpg") as file:
        assert file.size == (80, 60) and file.getexif()[0x0131].startswith("trip.py")


class Cascade:
    """In OpenCV's place: it finds what stands in `boxes`."""
    data, boxes = types.SimpleNamespace(haarcascades="folder/"), []

    def CascadeClassifier(self, path):
        assert path == "folder/haarcascade_frontalface_default.xml"
        return self

    def empty(self):
        return self.boxes is None

    def detectMultiScale(self, grey, factor, neighbours, minSize):
        assert grey.dtype == np.uint8 and grey.ndim == 2 and max(grey.shape) <= 1000
        return np.array(self.boxes, np.int32) if self.boxes else ()


def test_edit_finds_faces_and_frames_them_as_celeba_hq_does(tmp_path, monkeypatch, capsys):
    opencv = Cascade()
    monkeypatch.setitem(sys.modules, "cv2", opencv)
    me = coloured(tmp_path / "me.png", 400, 200)
    opencv.boxes = [[30, 60, 32, 32], [200, 20, 97, 97]]
    x, said = edited(tmp_path, monkeypatch, capsys, me, data="celeba-hq")
    assert "me.png: 2 faces found" in said and x.shape == (2, 3, 150, 150)  # 97 / .648, the larger one first
    assert corner(x[1]) == pytest.approx([30 + 16 - 0.502 * 49, 60 + 16 - 0.551 * 49], abs=3)
    assert x[0, 0, 75, 75] == pytest.approx((200 + 97 / 2) / 255 - 1, abs=0.03)
    rows = (x[0, 1, [75, -1], 75] + 1) * 255  # its top is at 20 + 97 / 2 - .551 * 150 = -14
    assert rows.tolist() == pytest.approx([75 - 14, 149 - 14], abs=2)
    assert x[0, 1, 0, 75] > x[0, 1, 10, 75]  # beyond the upper border the picture is mirrored
    x, said = edited(tmp_path, monkeypatch, capsys, me, "--crop", "0", "0", "60", data="celeba-hq")
    assert "found" not in said and x.shape == (1, 3, 60, 60)
    x, said = edited(tmp_path, monkeypatch, capsys, me, data="faces")
    assert "found" not in said and len(x) == 1
    opencv.boxes = []
    x, said = edited(tmp_path, monkeypatch, capsys, me, data="celeba")
    assert "none found" in said and "the eyes half way down" in said and x.shape == (1, 3, 200, 200)
    opencv.boxes = None  # its file is missing
    for module in opencv, None:  # None: not installed
        monkeypatch.setitem(sys.modules, "cv2", module)
        x, said = edited(tmp_path, monkeypatch, capsys, me, data="celeba")
        assert 'pip install "opencv-python-headless<5"' in said and x.shape == (1, 3, 200, 200)


def test_a_face_at_the_border_is_edited_there(vivid, tmp_path, monkeypatch):
    photograph(tmp_path / "me.png", 100, 100)
    monkeypatch.setattr(eval, "squares", lambda *_: [(-40, -30, 120)])
    assert vivid(tmp_path / "me.png", "--v", "1") == 0
    change = np.abs(pixels(tmp_path / "run" / "edit" / "me_v+1.00.png") - pixels(tmp_path / "me.png"))
    assert change[:60, :50].mean() > 30 and not change[90:].any() and not change[:, 80:].any()


def test_a_run_of_the_papers_generator_has_a_strip_only(tmp_path, monkeypatch, capsys):
    me = coloured(tmp_path / "me.png", 100, 100)
    x, said = edited(tmp_path, monkeypatch, capsys, me, paper_generator=True)
    assert x.shape == (1, 3, 32, 32) and "the training's size" in said and not (tmp_path / "edit").exists()


def test_a_picture_that_is_too_large_is_called_so(tmp_path, monkeypatch):
    Image.new("RGB", (40, 30)).save(tmp_path / "me.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    with pytest.raises(data.InputError, match="me.png: it is too large, more than"):
        data.read_picture(tmp_path / "me.png", 32)


@pytest.mark.parametrize("kind, mode", [("uint16", "I;16"), ("int32", "I"), ("float32", "F")])
def test_deep_grey_is_refused_not_clipped(kind, mode, tmp_path):
    Image.fromarray(np.ones((9, 9), kind)).save(tmp_path / "deep.tif")
    with pytest.raises(data.InputError, match=f"deep.tif: it has deep grey .mode {mode}., not 8 bits"):
        data.read_picture(tmp_path / "deep.tif", 64)


def test_heic_is_called_by_its_name_and_not_passed_over(tmp_path):
    two_folders(tmp_path)
    for i in range(9):
        (tmp_path / "smiling" / f"{i}.HEIC").write_bytes(b"\0\0\0\x24ftypheic")
    says = "9 of the first 89 pictures .* a HEIC picture, which can be read after pip install pillow-heif"
    with pytest.raises(data.InputError, match=says):
        data.load("folder", ["smiling"], 32, tmp_path)


def test_pillow_heif_is_used_where_it_is_installed(monkeypatch):
    called = []
    heif = types.SimpleNamespace(register_heif_opener=lambda: called.append(1))
    monkeypatch.setitem(sys.modules, "pillow_heif", heif)
    module = types.ModuleType("data_anew")
    monkeypatch.setitem(sys.modules, "data_anew", module)
    exec(compile((HERE / "data.py").read_text(encoding="utf-8"), "data.py", "exec"), module.__dict__)
    assert called == [1]


def test_an_old_python_gets_a_sentence(monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 9, 1))
    with pytest.raises(SystemExit, match="needs Python 3.10 or newer"):
        exec(compile((HERE / "data.py").read_text(encoding="utf-8"), "data.py", "exec"), {})


@pytest.fixture
def few_faces(monkeypatch):
    some = data.faces(("smile",), 32, n=40)
    monkeypatch.setitem(data.DATASETS, "faces", (lambda *_: data.split(some, 0), ""))


def test_going_on_with_a_finished_run_says_how(tmp_path, few_faces, capsys):
    assert trip.main([*TINY, "--out", str(tmp_path)]) == 0
    before = torch.load(tmp_path / "trip.pt", weights_only=True)
    assert trip.main(["--out", str(tmp_path), "--resume"]) == 0
    assert "note: all 2 iterations are done: to go on, add --steps" in capsys.readouterr().out
    after = torch.load(tmp_path / "trip.pt", weights_only=True)
    assert after["step"] == 2 and all(torch.equal(u, after["G"][name]) for name, u in before["G"].items())


# ------------------------------------------------------------------------------------------------------------
# Two processes, of which one fails; names

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
            if run.step == 3 and trip.team.number == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            yield record
    trip.train = killed
    code = trip.main([*{options!r}, "--steps", "1000", "--out", "out"])
trip.leave(code)
"""


def both(what, folder):
    """PROCESS twice, as torchrun does, ended soon after the first: exit codes, what was said on stderr."""
    (folder / "process.py").write_text(PROCESS.format(here=str(HERE), options=TINY))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
           "WORLD_SIZE": "2"}
    ranks = [subprocess.Popen([sys.executable, "process.py", what], cwd=folder, stderr=subprocess.PIPE,
                              text=True, env={**env, "RANK": str(i), "LOCAL_RANK": str(i)}) for i in (0, 1)]
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


def test_a_folder_may_have_any_name(tmp_path, monkeypatch):
    name = os.fsdecode("-$\\frac$ 100 %s it's ü".encode() + (b"" if os.name == "nt" else b"\xe4"))
    try:
        two_folders(tmp_path / name, name=name, other="#{} [x]*")
    except OSError:  # a file system that wants UTF-8
        name = name[:-1]
        two_folders(tmp_path / name, name=name, other="#{} [x]*")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdout", open(tmp_path / "said", "w", encoding="utf-8"))  # strict
    run = name + " run"
    assert trip.main([*TINY, "--data", "folder", f"--root={name}", f"--attr={name}", f"--out={run}"]) == 0
    assert trip.main([f"--out={run}", "--edit", os.path.join(".", run, "samples.png"), "--v=-1"]) == 0
    assert eval.main([os.path.join(".", run), "--metrics", "ranker"]) == 0
    files = {path.name for path in (tmp_path / run).iterdir()}
    assert {"samples.png", "ranker.png", "edit.png", "fig7_ranker.png", "eval.json"} <= files


@pytest.mark.parametrize("name, drawn", [
    ("улыбка", "улыбка"), ("χαμόγελο", "χαμόγελο"), ("微笑", "attribute 1"),
    ("runs/微笑 a", "runs/attribute 1 a"), (40 * "a" + 40 * "b", 25 * "a" + " ... " + 25 * "b")])
def test_a_name_of_another_alphabet_is_drawn_or_replaced_and_a_long_one_cut(name, drawn, recwarn):
    assert eval.words(name) == drawn
    run = trip.Run(trip.Config(**SMALL, attr=(name,)))
    frames = eval.moving_picture(run.G, torch.zeros(1, 3, 32, 32), run.config.attr)
    eval.strips(torch.zeros(1, 3, 32, 32), torch.zeros(1, 1, 3, 32, 32), ["0"], name).savefig(os.devnull)
    assert frames and not recwarn.list


@pytest.mark.parametrize("name", ["$smile$", "a $ b", "\\$a$", "$$", "plain"])
def test_a_name_with_dollars_is_drawn_as_it_is(name):
    figure, axes = eval.canvas()
    assert axes.set_title(eval.words(name))._preprocess_math(eval.words(name)) == (name, False)


def test_a_folder_may_be_called_minus_1(tmp_path, few_faces, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert trip.main([*TINY, "--out", "-1"]) == 0 and os.listdir() == ["-1"]
    assert trip.main(["--out", "-1", "--edit", "./-1/samples.png", "--v", "-1", "-.5"]) == 0
