"""Real data sets, each in miniature, in the exact format of the published files; bf16; several processes."""

import json
import os
import re
import subprocess
import sys
import threading
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

HERE = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(HERE))

import data  # noqa: E402
import eval  # noqa: E402
import trip  # noqa: E402

TINY = ("--size 32 --g_width 4 --g_down 1 --g_blocks 1 --r_width 4 --batch 4 --steps 2 "
        "--measure_every 2").split()
CELEBA = """
    5_o_Clock_Shadow Arched_Eyebrows Attractive Bags_Under_Eyes Bald Bangs Big_Lips Big_Nose Black_Hair
    Blond_Hair Blurry Brown_Hair Bushy_Eyebrows Chubby Double_Chin Eyeglasses Goatee Gray_Hair Heavy_Makeup
    High_Cheekbones Male Mouth_Slightly_Open Mustache Narrow_Eyes No_Beard Oval_Face Pale_Skin Pointy_Nose
    Receding_Hairline Rosy_Cheeks Sideburns Smiling Straight_Hair Wavy_Hair Wearing_Earrings Wearing_Hat
    Wearing_Lipstick Wearing_Necklace Wearing_Necktie Young
""".split()
LFWA = (["Male", "Asian", "White", "Black", "Baby", "Child", "Youth", "Middle Aged", "Senior", "Black Hair",
         "Smiling", "Frowning"]
        + [f"Attribute {i}" for i in range(60)] + ["Mouth Slightly Open"])


def picture(path, i, shape=(40, 40)):
    """A picture whose colour says its number, 0 .. 1599."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", shape, (6 * (i % 40), 6 * (i // 40), 0)).save(path, quality=95)


def numbers(part):
    """The numbers of the pictures of a Data."""
    red, green = (part.images[:, c].float().mean((1, 2)) / 6 for c in (0, 1))
    return (red.round() + 40 * green.round()).int().tolist()


def has(i, k):
    """Whether picture i of a miniature has attribute k."""
    return bool((i >> (k % 3)) & 1)


def celeba(root, n=40, ends="\r\n"):
    """As torchvision's CelebA: a count, names, double spaces; the last quarter is the test part."""
    for i in range(n):
        picture(root / "img_align_celeba" / f"{i + 1:06d}.jpg", i, (178, 218))
    rows = [f"{i + 1:06d}.jpg " + " ".join(f"{1 if has(i, k) else -1:2d}" for k in range(40)) + " "
            for i in range(n)]
    (root / "list_attr_celeba.txt").write_text(ends.join([str(n), " ".join(CELEBA) + " ", *rows, ""]),
                                               newline="")
    parts = [0 if i < n // 2 else 1 if i < 3 * n // 4 else 2 for i in range(n)]
    lines = [f"{i + 1:06d}.jpg {part}" for i, part in enumerate(parts)]
    (root / "list_eval_partition.txt").write_text(ends.join([*lines, ""]), newline="")


def celeba_hq(root, n=120):
    """As CelebAMask-HQ: its rows have two spaces after the name."""
    for i in range(n):
        picture(root / "CelebA-HQ-img" / f"{i}.jpg", i)
    rows = [f"{i}.jpg  " + " ".join("1" if has(i, k) else "-1" for k in range(40)) for i in range(n)]
    text = "\n".join([str(n), " ".join(CELEBA), *rows, ""])
    (root / "CelebAMask-HQ-attribute-anno.txt").write_text(text)


def lfwa(root, folder="lfw", n=160):
    """As lfw_attributes.txt: two header lines with #, tabs, names with spaces; two pictures a person."""
    rows = []
    for i in range(n):
        person = ("Aaron Eckhart", "Jean-Pierre van der Berg")[i % (n // 2) % 2] + f" {i % (n // 2)}"
        number = 1 if i < n // 2 else 12
        name = person.replace(" ", "_")
        picture(root / folder / name / f"{name}_{number:04d}.jpg", i, (250, 250))
        rows.append("\t".join([person, str(number),
                               *(f"{(1 if has(i, k) else -1) * 0.1234567891:.10f}" for k in range(73))]))
    header = "\t".join(["#", "person", "imagenum", *LFWA])
    lines = ["#\tlfw_attributes.txt: scores of attribute classifiers", header, *rows, ""]
    (root / "lfw_attributes.txt").write_text("\n".join(lines))


def edges2shoes(root, train=20, val=6):
    """As pix2pix's: 512 x 256, edges left and the shoe right."""
    for i in range(train + val):
        path = root / ("train" if i < train else "val") / f"{i + 1}_AB.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        both = np.zeros((256, 512, 3), np.uint8)
        both[:, :, 0], both[:, 256:, 2] = 6 * i, 255  # blue: the shoe
        Image.fromarray(both).save(path, quality=95)


def folder(root, n=80):
    """Two folders with pictures of several formats, in deeper folders, and a hidden file."""
    for i in range(n):
        name = "cats and dogs" if i % 2 else "ships"
        picture(root / name / f"year {i % 3}" / f"{i}.{('jpg', 'png', 'webp', 'bmp')[i % 4]}", i)
    (root / "ships" / ".DS_Store").write_bytes(b"no picture")


LAYOUTS = {"celeba": (celeba, ["smile", "Male"]), "celeba-hq": (celeba_hq, ["smile"]),
           "lfwa": (lfwa, ["frown"]),
           "edges2shoes": (edges2shoes, ["edges"]), "folder": (folder, ["ships"])}


@pytest.fixture(params=LAYOUTS)
def layout(request, tmp_path):
    """(name, attributes, root) of each data set in turn."""
    make, attrs = LAYOUTS[request.param]
    make(tmp_path / "root")
    return request.param, attrs, tmp_path / "root"


def test_two_iterations_on_every_data_set(layout, tmp_path):
    name, attrs, root = layout
    out = tmp_path / "run"
    assert trip.main([*TINY, "--data", name, "--root", str(root), "--attr", *attrs, "--out", str(out)]) == 0
    assert json.loads((out / "summary.json").read_text())["config"]["data"] == name


def assert_labels(parts, names, *attrs):
    """Every picture has the labels that the miniature gave it."""
    for part in parts:
        assert part.labels.tolist() == [[has(i, names.index(attr)) for attr in attrs] for i in numbers(part)]


def test_celeba_keeps_its_own_partition(tmp_path):
    celeba(tmp_path)
    train, test = data.load("celeba", ["smile", "male"], 32, tmp_path)
    assert sorted(numbers(test)) == list(range(30, 40)) and sorted(numbers(train)) == list(range(30))
    assert_labels((train, test), CELEBA, "Smiling", "Male")


def test_celeba_is_cropped_to_its_centre_of_178_x_178(tmp_path):
    celeba(tmp_path)
    image = np.zeros((218, 178, 3), np.uint8)
    image[20:198] = 255
    Image.fromarray(image).save(tmp_path / "img_align_celeba" / "000001.jpg", quality=100)
    train, _ = data.load("celeba", ["smile"], 32, tmp_path)
    assert train.images.amin((1, 2, 3)).max() > 200  # one picture is white up to its edges (JPEG blurs them)


def test_celeba_may_lie_in_a_folder_celeba_as_torchvision_leaves_it(tmp_path):
    celeba(tmp_path / "celeba", ends="\n")
    assert len(data.load("celeba", ["smile"], 32, tmp_path)[0]) == 30


def test_celeba_hq_has_the_labels_of_its_file(tmp_path):
    celeba_hq(tmp_path)
    train, test = data.load("celeba-hq", ["cheekbones"], 32, tmp_path)
    assert (len(train), len(test)) == (108, 12) and train.attrs == ("cheekbones",)
    assert_labels((train, test), CELEBA, "High_Cheekbones")


@pytest.mark.parametrize("where", ["lfw", "lfw_funneled", "lfw-deepfunneled"])
def test_lfwa_is_split_by_person_and_labelled_by_the_sign_of_the_score(tmp_path, where):
    lfwa(tmp_path, where)
    train, test = data.load("lfwa", ["mouth slightly open", "Frowning"], 32, tmp_path)
    assert len(train) + len(test) == 160
    # pictures i and i + 80 show the same person
    persons = [{i % 80 for i in numbers(part)} for part in (train, test)]
    assert not persons[0] & persons[1] and len(persons[1]) == 8
    assert_labels((train, test), LFWA, "Mouth Slightly Open", "Frowning")


def test_edges2shoes_keeps_the_halves_of_a_pair_together(tmp_path):
    edges2shoes(tmp_path)
    train, test = data.load("edges2shoes", ["edges"], 32, tmp_path)
    assert (len(train), len(test)) == (40, 12)
    for part in (train, test):
        is_edges = part.images[:, 2].float().mean((1, 2)) < 128
        assert torch.equal(part.labels[:, 0], is_edges)
        assert sorted(numbers(part[is_edges])) == sorted(numbers(part[~is_edges]))
    assert set(numbers(test)) == set(range(20, 26))  # its own val part


def test_folder_takes_any_format_at_any_depth_and_the_attribute_is_a_folder(tmp_path):
    folder(tmp_path)
    for attr in ("ships", "cats and dogs"):
        for part in data.load("folder", [attr], 32, tmp_path):
            assert part.labels[:, 0].tolist() == [(i % 2 == 1) == (attr == "cats and dogs")
                                                  for i in numbers(part)]


def test_folder_takes_two_folders_in_the_one_that_a_zip_has_made(tmp_path, capsys):
    folder(tmp_path / "pictures")
    plain = data.load("folder", ["ships"], 32, tmp_path / "pictures")
    (tmp_path / "__MACOSX").mkdir()
    for part, same in zip(data.load("folder", ["ships"], 32, tmp_path), plain):
        assert torch.equal(part.images, same.images) and torch.equal(part.labels, same.labels)
    assert f"note: the two folders are in {tmp_path / 'pictures'}" in capsys.readouterr().out
    (tmp_path / "pictures" / "third").mkdir()
    with pytest.raises(data.InputError, match="there is pictures"):
        data.load("folder", ["ships"], 32, tmp_path)


def test_folder_takes_names_as_macos_and_as_old_archives_write_them(tmp_path):
    folder(tmp_path)
    (tmp_path / "ships").rename(tmp_path / unicodedata.normalize("NFD", "Boote für zwei"))
    try:
        os.rename(next(tmp_path.glob("Boote*/*/0.jpg")),
                  os.fsencode(tmp_path) + b"/cats and dogs/k\xe4tzchen.jpg")
    except OSError:  # a file system that wants UTF-8
        pass
    train, test = data.load("folder", [unicodedata.normalize("NFC", "Boote für zwei")], 32, tmp_path)
    assert len(train) + len(test) == 80


# ------------------------------------------------------------------------------------------------------------
# The file of decoded pictures

def test_pictures_are_decoded_once_and_again_only_if_the_folder_changes(tmp_path, monkeypatch):
    celeba_hq(tmp_path)
    calls, read = [], data.read_picture
    monkeypatch.setattr(data, "read_picture", lambda *a: (calls.append(0), read(*a))[1])
    first = data.load("celeba-hq", ["smile"], 32, tmp_path)
    assert len(calls) == 120
    again = data.load("celeba-hq", ["male"], 32, tmp_path)  # other labels, the same pictures
    assert len(calls) == 120 and torch.equal(first[0].images, again[0].images)
    assert isinstance(np.load(tmp_path / "trip-celeba-hq-32px.npy", mmap_mode="r"), np.memmap)
    data.load("celeba-hq", ["smile"], 64, tmp_path)  # a size has a file of its own
    assert len(calls) == 240
    picture(tmp_path / "CelebA-HQ-img" / "0.jpg", 777)
    changed = data.load("celeba-hq", ["smile"], 32, tmp_path)
    assert len(calls) == 360 and 777 in numbers(changed[0]) + numbers(changed[1])
    assert {path.name for path in tmp_path.iterdir()} == {  # no *.part, no *.lock
        "CelebA-HQ-img", "CelebAMask-HQ-attribute-anno.txt",
        *(f"trip-celeba-hq-{size}px.{end}" for size in (32, 64) for end in ("npy", "json"))}


def test_an_interrupted_build_goes_on_where_it_stopped(tmp_path, monkeypatch):
    celeba_hq(tmp_path / "a")
    celeba_hq(tmp_path / "b")
    expected = data.load("celeba-hq", ["smile"], 32, tmp_path / "a")
    calls, read, whole = [], data.read_picture, data.decode

    def interrupted(*a):
        calls.append(0)
        if len(calls) == 25:
            raise KeyboardInterrupt
        return read(*a)

    monkeypatch.setattr(data, "decode", lambda *a: whole(*a, chunk=8))
    monkeypatch.setattr(data, "read_picture", interrupted)
    with pytest.raises(KeyboardInterrupt):
        data.load("celeba-hq", ["smile"], 32, tmp_path / "b")
    assert not (tmp_path / "b" / "trip-celeba-hq-32px.npy").exists()
    done = json.loads((tmp_path / "b" / "trip-celeba-hq-32px.json.part").read_text())["done"]
    assert 0 < done < 120
    calls = list(range(100))
    found = data.load("celeba-hq", ["smile"], 32, tmp_path / "b")
    assert len(calls) == 100 + 120 - done
    assert all(torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels)
               for a, b in zip(expected, found))


def test_a_note_of_an_older_build_is_never_taken_for_that_of_a_newer_one(tmp_path):
    def read(place):
        if stop == place:
            raise KeyboardInterrupt
        return torch.full((3, 4, 4), place + 1, dtype=torch.uint8)

    # a: four pictures done; b empties the file, then stops
    for key, stop in (("a", 5), ("b", 1), ("a", None)):
        try:
            images, broken = data.decode(tmp_path / "cache", key, 8, read, 4, chunk=2)
        except KeyboardInterrupt:
            pass
    assert images[:, 0, 0, 0].tolist() == list(range(1, 9)) and broken == []


def test_two_that_begin_at_once_share_one_build(tmp_path, monkeypatch):
    calls, alone, begun, both_begun = [], data.alone, [], threading.Event()

    def entered(folder):
        begun.append(folder)
        if len(begun) == 2:
            both_begun.set()
        return alone(folder)

    def read(place):
        assert both_begun.wait(60)
        calls.append(place)
        return torch.full((3, 4, 4), place, dtype=torch.uint8)

    monkeypatch.setattr(data, "alone", entered)
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(data.decode, tmp_path / "cache", "a", 40, read, 4, 8) for _ in range(2)]
    assert all(future.result()[0][:, 0, 0, 0].tolist() == list(range(40)) for future in both)
    if os.name != "nt":
        assert sorted(calls) == list(range(40))  # the second one waited for the first one's file


@pytest.mark.parametrize("damage", [
    lambda npy, note: npy.write_bytes(npy.read_bytes()[:200]), lambda npy, note: npy.write_bytes(b""),
    lambda npy, note: np.save(npy, np.zeros((3, 3, 4, 4), np.uint8)), lambda npy, note: npy.unlink(),
    lambda npy, note: note.write_text("[1]"), lambda npy, note: note.write_text("{")])
@pytest.mark.parametrize("end", ["", ".part"])
def test_a_damaged_file_of_pictures_is_made_anew(tmp_path, damage, end):
    def read(place):
        if place == stop:
            raise KeyboardInterrupt
        return torch.full((3, 4, 4), place, dtype=torch.uint8)

    stop = None if end == "" else 5
    with nullcontext() if end == "" else pytest.raises(KeyboardInterrupt):
        data.decode(tmp_path / "cache", "a", 8, read, 4, chunk=2)
    damage(tmp_path / f"cache.npy{end}", tmp_path / f"cache.json{end}")
    stop = None
    images, _ = data.decode(tmp_path / "cache", "a", 8, read, 4)
    assert images[:, 0, 0, 0].tolist() == list(range(8))


def test_a_whole_file_of_pictures_is_enough_where_nobody_may_write(tmp_path, monkeypatch):
    def read(place):
        return torch.zeros(3, 4, 4, dtype=torch.uint8)

    monkeypatch.setattr(data.os, "access", lambda *a: False)
    with pytest.raises(data.InputError, match="cannot write there"):
        data.decode(tmp_path / "cache", "a", 8, read, 4)
    monkeypatch.undo()
    data.decode(tmp_path / "cache", "a", 8, read, 4)
    monkeypatch.setattr(data.os, "access", lambda *a: False)
    assert len(data.decode(tmp_path / "cache", "a", 8, read, 4)[0]) == 8


def test_a_broken_picture_is_named_counted_and_left_out(tmp_path, capsys):
    celeba_hq(tmp_path)
    (tmp_path / "CelebA-HQ-img" / "7.jpg").write_bytes(b"no picture")
    for _ in range(2):  # when the file is made, and when it is found again
        parts = data.load("celeba-hq", ["smile"], 32, tmp_path)
        assert sorted(sum(map(numbers, parts), [])) == [i for i in range(120) if i != 7]
        assert_labels(parts, CELEBA, "Smiling")  # no label has slipped
    said = capsys.readouterr().err
    assert "7.jpg" in said and "1 of 120 files" in said


# ------------------------------------------------------------------------------------------------------------
# What can go wrong

def damage(root, file, change):
    path = root / file
    path.write_text(change(path.read_text()))


def drop(file):
    return lambda root: (root / file).unlink()


def edit(file, change):
    return lambda root: damage(root, file, change)


@pytest.mark.parametrize("name, attrs, spoil, says", [
    ("celeba", "smile", drop("list_attr_celeba.txt"), "list_attr_celeba.txt: there is no such file"),
    ("celeba", "smile", drop("list_eval_partition.txt"), "list_eval_partition.txt: there is no such file"),
    ("celeba", "smile", lambda root: [p.unlink() for p in (root / "img_align_celeba").iterdir()],
     "img_align_celeba: the folder holds no pictures"),
    ("celeba", "smile", edit("list_eval_partition.txt", lambda t: t[:40]), "says nothing of"),
    ("celeba", "smile", edit("list_attr_celeba.txt", lambda t: re.sub(r"\n.*\n", "\n\n", t, count=1)),
     "second line names no attributes"),
    ("celeba", "smile", edit("list_attr_celeba.txt", lambda t: t.replace("40\n", "41\n", 1)),
     "'41', but 40 pictures"),
    ("celeba", "smile", edit("list_attr_celeba.txt", lambda t: re.sub(r"(000002.jpg) ..", r"\1 ", t)),
     "line 4: expected a name and 40"),
    ("celeba", "smile", edit("list_attr_celeba.txt", lambda t: re.sub(r"\n(000002.jpg) ..", r"\n\n\n\1 ", t)),
     "line 6: expected a name and 40"),
    ("celeba", "smile", edit("list_attr_celeba.txt", lambda t: ""), "its first line"),
    ("celeba", "smile", edit("list_attr_celeba.txt", lambda t: "0\n" + t.splitlines()[1] + "\n"),
     "none of the 0 pictures"),
    ("celeba", "smlie", None, "'Smiling'"),
    ("celeba", "smile Smiling", None, "given twice"),
    ("celeba", "smile", lambda root: [picture(p, 0) or p.write_bytes(b"x")
                                      for p in sorted((root / "img_align_celeba").iterdir())[:2]],
     "more than 1 %"),
    ("celeba-hq", "smile", drop("CelebAMask-HQ-attribute-anno.txt"),
     "attribute-anno.txt: there is no such file"),
    ("celeba-hq", "smile", edit("CelebAMask-HQ-attribute-anno.txt", lambda t: t.replace("-1", "1")),
     "pictures have 'smile'"),
    ("lfwa", "smile", drop("lfw_attributes.txt"), "lfw_attributes.txt: there is no such file"),
    ("lfwa", "smile", edit("lfw_attributes.txt", lambda t: t.replace("person", "name")), "second line"),
    ("lfwa", "smile", edit("lfw_attributes.txt", lambda t: t.rsplit("\t", 3)[0]), "line 162: expected"),
    ("lfwa", "smile", edit("lfw_attributes.txt", lambda t: t.replace("\t12\t", "\tnan\t", 1)),
     "line 83: expected"),
    ("edges2shoes", "shoes", None, "'edges'"),
    ("edges2shoes", "edges", lambda root: [p.unlink() for p in (root / "val").iterdir()], "val: the folder holds no"),
    ("folder", "boats", None, "cats and dogs, ships"),
    ("folder", "ships", lambda root: (root / "third").mkdir(), "cats and dogs, ships, third"),
    ("folder", "ships", lambda root: [p.unlink() for p in (root / "ships").rglob("*") if p.is_file()],
     "no pictures"),
])
def test_files_that_are_not_as_expected_get_one_line(name, attrs, spoil, says, tmp_path, capsys):
    root = tmp_path / "root"
    LAYOUTS[name][0](root)
    if spoil:
        spoil(root)
    code = trip.main([*TINY, "--data", name, "--root", str(root), "--attr", *attrs.split(), "--out",
                      str(tmp_path / "out")])
    said = capsys.readouterr().err
    last = said.strip().splitlines()[-1]
    assert code == 2 and says in last and last.startswith("trip.py: error"), said
    assert "Traceback" not in said and not (tmp_path / "out").exists()


@pytest.mark.parametrize("options, says", [
    ("--data celeba", "needs --root"),
    ("--data celeba --root not/there", "not/there"),
    ("--data faces --download", "only celeba"),
    ("--data celeba --download", "--root"),
])
def test_a_data_set_that_is_not_there_gets_one_line(options, says, tmp_path, capsys):
    assert trip.main([*TINY, *options.split(), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert says in said and said.count("\n") == 1


def test_a_download_that_fails_says_how_to_do_it_by_hand(tmp_path, capsys, monkeypatch):
    import torchvision

    def refuse(*args, **options):
        raise RuntimeError("Too many users have viewed or downloaded this file recently.\nPlease try again")

    monkeypatch.setattr(torchvision.datasets.utils, "download_file_from_google_drive", refuse)
    assert trip.main([*TINY, "--data", "celeba", "--root", str(tmp_path), "--download", "--out",
                      str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert "Too many users" in said and "gdown" in said and "img_align_celeba.zip" in said
    assert said.count("\n") == 1


@pytest.mark.skipif(os.name == "nt" or (hasattr(os, "geteuid") and os.geteuid() == 0),
                    reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_to_is_one_line(tmp_path, capsys):
    folder(tmp_path)
    tmp_path.chmod(0o500)
    code = trip.main([*TINY, "--data", "folder", "--root", str(tmp_path), "--attr", "ships", "--out",
                      str(tmp_path / "out")])
    tmp_path.chmod(0o700)
    assert code == 2 and capsys.readouterr().err.count("\n") == 1


# ------------------------------------------------------------------------------------------------------------
# Several attributes

def test_the_disentanglement_matrix_tells_what_each_dial_does_to_each_attribute():
    seen = np.full((5, len(eval.V), 4), 0.5)
    seen[:, :, 0] += 0.3 * eval.V  # the first dial moves its own attribute by 0.6
    seen[:, :, 2] -= 0.05 * eval.V  # and a third one a little
    scores = eval.truth_scores(seen, seen[:, 6], seen[:, 6], 0, [0, 2])
    assert scores["disentanglement"] == pytest.approx([0.6, -0.1])
    assert "disentanglement" not in eval.truth_scores(seen, seen[:, 6], seen[:, 6], 0, [0])


# ------------------------------------------------------------------------------------------------------------
# The paper's scale

def test_the_papers_preset_has_the_settings_of_its_section_4():
    c = trip.Config(**trip.PRESETS["paper"])
    assert (c.size, c.batch, c.lr_g, c.lr_r, c.beta1, c.beta2) == (256, 4, 5e-5, 1e-5, 0.5, 0.999)
    assert (c.lam, c.lam_g, c.lam_c, c.lam_gp, c.lam_o) == (0.5, 0.5, 2.5, 150, 1e-6)
    assert c.table3 and c.table4 and (c.g_width, c.g_down, c.g_blocks, c.r_width) == (64, 2, 6, 64)
    assert not c.cls and c.lam_rank == 1 and c.gp_center == 1 and c.lam_slope == 0


def test_a_preset_is_a_set_of_defaults_that_options_overrule():
    config = trip.parse(["--preset", "paper", "--lam_g", "5"]).config
    assert config == {**trip.PRESETS["paper"], "lam_g": 5.0}
    assert trip.parse([]).config == {}


@pytest.mark.parametrize("name, preset, advised", [("faces", "small", False), ("faces", "photo", True),
                                                   ("celeba-hq", "small", True), ("celeba-hq", "photo", False),
                                                   ("celeba-hq", "paper", False)])
def test_a_preset_that_does_not_fit_the_pictures_gets_a_word_of_advice(name, preset, advised, tmp_path, capsys):
    make, attrs = LAYOUTS.get(name, (lambda root: root.mkdir(), ["smile"]))
    make(tmp_path / "root")
    typed = [*TINY, "--data", name, "--root", str(tmp_path / "root"), "--attr", *attrs, "--preset", preset,
             "--out", str(tmp_path / "run")]
    assert trip.main(typed) == 0
    assert capsys.readouterr().out.count("--preset photo is for photographs") == advised
    assert trip.main([*typed, "--resume", "--steps", "3"]) == 0  # it is said once
    assert "--preset photo" not in capsys.readouterr().out


def test_going_on_with_a_preset_changes_only_what_is_typed(tmp_path):
    small = [*TINY, "--preset", "paper", "--out", str(tmp_path)]
    assert trip.main(small) == 0
    assert trip.main([*small, "--steps", "3", "--resume"]) == 0
    config = trip.load(tmp_path)[2]
    assert (config.steps, config.measure_every, config.size, config.lam_gp) == (3, 2, 32, 150)


def a_step(precision):
    """The losses of one iteration, and the gradients of both players as one vector."""
    run = trip.Run(trip.Config(size=32, g_width=8, g_blocks=2, r_width=16, clip=0.0,
                               precision=precision))
    rng = torch.Generator().manual_seed(0)
    x, y = (torch.randn(2, 8, 3, 32, 32, generator=rng) / 2).tanh()
    v = 2 * torch.rand(8, 1, generator=rng) - 1
    with run.autocast():
        fake, x_moved = run.G(x, v, parts=True)
    losses = trip.ranker_step(run, x, y, v.sign(), fake.detach())
    losses |= trip.generator_step(run, x, v, fake, x_moved)
    return losses, [torch.cat([p.grad.flatten() for p in net.parameters()]) for net in (run.R, run.G)], fake


def test_a_step_in_bf16_is_one_in_float32_but_for_rounding():
    (exact, exact_grads, exact_fake), (rough, rough_grads, rough_fake) = a_step("float32"), a_step("bf16")
    assert not torch.equal(exact_fake, rough_fake) and rough_fake.dtype == torch.float32
    for name in exact:
        assert rough[name].dtype == torch.float32
        assert rough[name].item() == pytest.approx(exact[name].item(), rel=0.05, abs=0.01), name
    for a, b in zip(exact_grads, rough_grads):
        assert torch.cosine_similarity(a, b, dim=0) > 0.97
        assert (b.norm() / a.norm()).item() == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("penalty", ["gradient_penalty", "slope_penalty"])
def test_penalties_stay_in_float32(penalty, monkeypatch):
    seen, whole = [], getattr(trip, penalty)

    def spied(R, x, *rest):
        seen.append(R.features(x).dtype)
        return whole(R, x, *rest)

    monkeypatch.setattr(trip, penalty, spied)
    a_step("bf16")
    assert seen == [torch.float32]


def test_a_network_that_cannot_be_compiled_trains_all_the_same(tmp_path, monkeypatch):
    def no_compiler(graph, inputs):
        raise RuntimeError("no compiler")

    plain = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda net: plain(net, backend=no_compiler))
    assert trip.main([*TINY, "--compile", "--out", str(tmp_path)]) == 0


def test_the_bench_counts_the_multiply_adds_of_an_iteration(monkeypatch, capsys):
    monkeypatch.syspath_prepend(HERE / "study")
    import bench
    rate = bench.rate
    monkeypatch.setattr(bench, "rate", lambda device, once, seconds, n=1: rate(device, once, 0.01))
    assert bench.main(TINY[:-4]) == 0
    said = capsys.readouterr().out
    for words in ("iterations/s", "images/s", "peak memory", "multiply-adds", "TFLOP/s", "not convolution"):
        assert words in said


# ------------------------------------------------------------------------------------------------------------
# Several processes

PROCESS = """
import os, signal, sys
sys.path.insert(0, {here!r})
import torch, torch.distributed as dist
import data, eval, trip

# a few iterations, with a look at the gradients
data.team.join("cpu")
rank, own, applied = dist.get_rank(), [], []
all_reduce = dist.all_reduce
def spy(t):
    if t.numel() in sizes:  # gradients, and the running statistics after them
        own.append(t[:sizes[t.numel()]].clone())
    all_reduce(t)
dist.all_reduce = spy
run = trip.Run(trip.Config(size=32, g_width=4, g_blocks=1, r_width=4, batch=4, steps=3, clip=0.0))
gradients = [sum(p.numel() for p in net.parameters()) for net in (run.R, run.G)]
sizes = {{n + sum(b.numel() for b in net.buffers()): n for n, net in zip(gradients, (run.R, run.G))}}
for optimizer in (run.opt_r, run.opt_g):
    def step(optimizer=optimizer, step=optimizer.step):
        applied.append(torch.cat([p.grad.flatten() for p in optimizer.param_groups[0]["params"]]))
        step()
    optimizer.step = step
some = data.faces(("smile",), 32, n=40)
list(eval.watch(run, some, some))
dist.all_reduce = all_reduce
weights = [*run.G.parameters(), *run.R.parameters()]
torch.save(dict(own=own, applied=applied, weights=weights, rows=len(run.history)), f"{out}/rank{{rank}}.pt")

# a whole run, one stopped by Ctrl-C in the second process only, and the same resumed
data.DATASETS["faces"] = lambda *_: data.split(some, 0), ""
options = {options!r} + ["--steps", "14", "--save_every", "100"]
assert trip.main([*options, "--out", "{out}/whole"]) == 0
train = trip.train
def pressed(run, *rest):
    for record in train(run, *rest):
        if run.step == 3 and rank == 1:
            signal.raise_signal(signal.SIGINT)
        yield record
trip.train = pressed
assert trip.main([*options, "--out", "{out}/stopped"]) == 130
trip.train = train
assert trip.main([*options, "--out", "{out}/stopped", "--resume"]) == 0
"""


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    """A folder with what PROCESS leaves there, run by torchrun with two processes, and what it printed."""
    out = tmp_path_factory.mktemp("two")
    (out / "process.py").write_text(PROCESS.format(here=str(HERE), out=out.as_posix(), options=TINY))
    any_port = ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0", "--local-addr", "localhost"]
    done = subprocess.run([sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", *any_port,
                           str(out / "process.py")],
                          capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    return out, done.stdout


def test_all_processes_have_the_same_weights_and_pairs_of_their_own(two_processes):
    a, b = (torch.load(two_processes[0] / f"rank{rank}.pt") for rank in (0, 1))
    assert len(a["weights"]) > 20 and all(torch.equal(u, w) for u, w in zip(a["weights"], b["weights"]))
    assert len(a["own"]) == 6 and not any(torch.equal(u, w) for u, w in zip(a["own"], b["own"]))
    assert a["rows"] and not b["rows"]  # only the first one measures


def test_the_gradient_applied_is_the_mean_of_the_processes_own(two_processes):
    a, b = (torch.load(two_processes[0] / f"rank{rank}.pt") for rank in (0, 1))
    for own_a, own_b, applied_a, applied_b in zip(a["own"], b["own"], a["applied"], b["applied"]):
        assert torch.allclose(applied_a, (own_a + own_b) / 2, atol=1e-7)
        assert torch.equal(applied_a, applied_b)


def test_a_stopped_run_of_two_processes_goes_on_as_if_it_had_not_stopped(two_processes):
    whole, stopped = (torch.load(two_processes[0] / name / "trip.pt", weights_only=True)
                      for name in ("whole", "stopped"))
    assert whole["step"] == stopped["step"] == 14
    assert len(whole["rng"]) == 2 and not torch.equal(*whole["rng"])
    for net in ("G", "R"):
        assert all(torch.equal(u, stopped[net][name]) for name, u in whole[net].items())
    said = two_processes[1]
    assert "iteration 10" in said and "torchrun --nproc-per-node 2 trip.py" in said
    assert said.count("finished") == 2


def test_a_run_of_two_processes_is_not_gone_on_with_by_one(two_processes, capsys):
    assert trip.main(["--out", str(two_processes[0] / "whole"), "--resume", "--steps", "20"]) == 2
    assert "is of 2 processes" in capsys.readouterr().err
    assert trip.load(two_processes[0] / "whole")[2].steps == 14  # but it can be used
