"""The paper's data sets in miniature, in the exact format of the published files; settings of short runs."""

import numpy as np
from PIL import Image

SMALL = dict(size=32, width=4)
TINY = "--size 32 --width 4 --batch 4 --steps 2".split()
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
        both[:, :, 0], both[:, :256, 2] = 6 * i, 255  # blue: the drawing
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


def assert_labels(parts, names, *attrs):
    """Every picture has the labels that the miniature gave it."""
    for part in parts:
        assert part.labels.tolist() == [[has(i, names.index(attr)) for attr in attrs] for i in numbers(part)]
