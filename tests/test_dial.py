"""The page of the dial: what is in it, and how it behaves in a browser (where there is a Chromium)."""

import base64
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import data  # noqa: E402
import eval  # noqa: E402
import trip  # noqa: E402

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def start(*attrs, **change):
    """A run that changes pictures a lot, though it is not trained."""
    run = trip.Run(trip.Config(attr=attrs, size=32, g_width=4, r_width=4, **change))
    with torch.no_grad():
        run.G.paint.weight *= 100
        for head in run.R.rank_heads:
            head[-1].weight *= 10
    return run


def faces(n):
    return data.as_float(data.faces(("smile",), 32, seed=5, n=n).images)


def opened(page):
    """The page's sprite as an array (H, W, 3) and its data."""
    sprite = base64.b64decode(re.search(r"data:image/webp;base64,([^)]*)\)", page)[1])
    return np.asarray(Image.open(io.BytesIO(sprite))), json.loads(re.search(r"const D = (.*);  //", page)[1])


def cell(sprite, row, column):
    """A face of 32 x 32 pixels, float (3, 32, 32)."""
    there = sprite[32 * row:32 * row + 32, 32 * column:32 * column + 32]
    return data.as_float(torch.tensor(there).permute(2, 0, 1))


def test_the_page_holds_each_face_at_each_place_of_the_dial_and_what_is_said_of_it():
    run, x = start("smile"), faces(3)
    judge = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 4))
    page = eval.dial_page(run, x, judge)
    sprite, found = opened(page)
    assert sprite.shape == (3 * 32, 21 * 32, 3) and len(found["dials"][0]["places"]) == 21
    y = eval.translate(run.G, x, torch.linspace(-1, 1, 21))
    for face in range(3):
        for place in (0, 10, 17):
            assert (cell(sprite, face, place) - y[face, place]).abs().mean() < 0.15  # (a compressed picture)
    with torch.no_grad():
        said, strengths = eval.rank_all(run.R, x, y)[..., 0], judge(y.flatten(0, 1))[:, 0].view(3, 21)
    half, R, truth = found["dials"][0]["curves"]
    assert half["values"][1] == pytest.approx(np.linspace(-0.5, 0.5, 21), abs=0.006)
    assert np.allclose(R["values"], said, atol=0.006) and np.allclose(truth["values"], strengths, atol=0.006)


def test_two_dials_make_a_grid_with_the_first_one_fastest():
    run, x = start("smile", "frown", "beard"), faces(2)
    sprite, found = opened(eval.dial_page(run, x))
    assert sprite.shape == (2 * 9 * 32, 9 * 32, 3)
    assert [dial["name"] for dial in found["dials"]] == ["smile", "frown"]
    y = eval.translate(run.G, x, torch.tensor([[-1.0, 0.5, 0.0]]))  # column 0, row 6
    assert (cell(sprite, 9 + 6, 0) - y[1, 0]).abs().mean() < 0.15
    with torch.no_grad():
        said = eval.rank_all(run.R, x, y)[1, 0]
    shown = [dial["curves"][1]["values"][1][6 * 9] for dial in found["dials"]]
    assert shown == pytest.approx(said[:2].tolist(), abs=0.006)


@pytest.mark.parametrize("size, places, count, limit, side, shown", [
    (32, [9, 9], 80, 16383, 32, 56), (512, [3], 2, 16383, 512, 2),  # at their own size
    (64, [3, 3], 5, 500, 64, 2), (64, [3, 3], 5, 150, 50, 1)])  # as many as fit; smaller where none would
def test_pictures_are_shown_at_their_own_size_where_they_fit_a_file(size, places, count, limit, side, shown,
                                                                    monkeypatch):
    assert eval.WEBP == 16383
    monkeypatch.setattr(eval, "WEBP", limit)
    dials = [{"name": "a", "places": ["0"] * n, "start": 0, "curves": []} for n in places]
    rows, M = int(np.prod(places[1:])), int(np.prod(places))
    made = eval.page("title", "words.", torch.zeros(count, M, 3, size, size), dials)
    assert opened(made)[0].shape == (shown * rows * side, places[0] * side, 3)
    assert (f"words. Shown are the first {shown} of {count} pictures." in made) == (shown < count)
    assert f'aria-label="picture {shown} of {shown}"' in made and made.count("<figure>") == shown
    assert f"max(8rem * 1, {side}px)" in made


def test_a_strange_name_stays_a_name():
    page = eval.dial_page(start("</script><b>$x$&"), faces(1))
    assert "<b>" not in page and page.count("</script>") == 1 and "&lt;b&gt;" in page
    page = eval.dial_page(start("@data@"), faces(1))
    assert "<h1>@data@, from less to more</h1>" in page
    assert page.count("const D = ") == page.count('"curves"') == 1


def test_the_page_is_small_and_names_no_address():
    page = eval.dial_page(trip.Run(trip.Config()), data.as_float(data.faces(("smile",), 64, n=6).images))
    assert len(page) < 400_000 and page.count("url(") == page.count("url(data:") == 1
    assert not re.search(r"https?:|src=|href=|@import", page)


def test_a_run_without_a_ranker_has_a_page_of_pictures_alone():
    run = start("smile")
    run.R = None
    page = eval.dial_page(run, faces(2))
    assert opened(page)[1]["dials"][0]["curves"] == [] and "<p></p>\n<script>" in page


def test_without_its_template_the_page_is_left_out_with_a_word(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(eval, "PAGE", tmp_path / "page.html")
    eval.write_page(tmp_path / "dial.html", start("smile"), faces(1))
    assert not list(tmp_path.iterdir()) and "dial.html is left out" in capsys.readouterr().err


PROBE = """<script>
  const errors = [], found = [];
  addEventListener("error", event => errors.push(event.message));
  addEventListener("securitypolicyviolation", event => errors.push(event.blockedURI));
  addEventListener("pageshow", () => setTimeout(() => {
    const one = document.querySelectorAll("input").length == 1;
    const all = [...document.querySelectorAll("input")], face = document.querySelectorAll("figure div")[1];
    for (const places of one ? [[10], [15]] : [[4, 4], [6, 8]]) {
      all.forEach((slider, k) => { slider.value = places[k]; });
      all[0].dispatchEvent(new Event("input", {bubbles: true}));
      const [, plot, text] = face.parentElement.children;
      found.push({ at: face.style.backgroundPosition, said: text.textContent,
                   label: face.ariaLabel, shown: all.map(slider => slider.nextElementSibling.value),
                   dot: plot.querySelector(".one circle").getAttribute("cx"),
                   drawn: getComputedStyle(face).backgroundImage.slice(4, 27), width: face.offsetWidth });
    }
    const names = performance.getEntriesByType("resource").map(entry => entry.name);
    const fetched = names.filter(name => name.startsWith("http"));
    document.title = JSON.stringify({ found, errors, fetched });
  }, 100));
</script>"""


def look(page, folder, *options):
    """Open the page in the browser, and let it run. Returns its own HTML and what was said on the console."""
    path = folder / "page.html"
    path.write_text(page, encoding="utf-8")
    done = subprocess.run([BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
                           "--virtual-time-budget=3000", f"--user-data-dir={folder / 'browser'}", *options,
                           path.as_uri()], capture_output=True, text=True, timeout=120)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.skipif(not BROWSER, reason="no Chromium here")
@pytest.mark.parametrize("attrs", [("smile",), ("smile", "frown")])
def test_in_a_browser_the_slider_turns_the_faces(attrs, tmp_path):
    page = eval.dial_page(start(*attrs), faces(3))
    out, console = look(page.replace("<title>", PROBE + "<title>", 1), tmp_path, "--dump-dom")
    told = json.loads(re.search("<title>({.*})</title>", out)[1].replace("&lt;", "<").replace("&amp;", "&"))
    assert not told["errors"] and not told["fetched"] and not console
    zero, turned = told["found"]
    _, found = opened(page)
    one = len(attrs) == 1
    rows = 3 if one else 27
    for there, place, row, at in ((zero, 10 if one else 40, 1 if one else 13, "50%"),
                                  (turned, 15 if one else 78, 1 if one else 17, "75%")):
        x, y = there["at"].split()
        assert x == at and float(y[:-1]) == pytest.approx(100 * row / (rows - 1))
        said = float(re.search("R (.{5})", there["said"])[1])
        assert said == found["dials"][0]["curves"][1]["values"][1][place]
        assert there["width"] > 50 and there["drawn"].startswith('"data:image/webp')
    assert zero["dot"] == "0" and turned["dot"] == "0.5"
    assert turned["shown"] == (["+0.5"] if one else ["+0.50", "+1.00"])
    assert f"picture 2 at {','.join(turned['shown'])}:" in turned["label"]
    assert turned["said"].split()[-1] in turned["label"]


class Grey(torch.nn.Module):
    """In place of a generator: a grey picture, the brighter the larger v."""

    def forward(self, x, v):
        return v[:, :, None, None].expand_as(x)


def test_the_moving_picture_goes_from_minus_1_to_1_and_back():
    frames = eval.moving_picture(Grey(), torch.zeros(2, 3, 32, 32), ("smile",), side=80, n=8)
    rgb = np.stack([np.asarray(frame.convert("RGB"), int) for frame in frames])  # (8, H, W, 3)
    assert rgb.shape[2] == 160 and rgb.shape[1] > 80  # two faces side by side, and the slider under them
    brightness = rgb[:, :80].mean((1, 2, 3))
    wanted = 127.5 * (1 - np.cos(np.arange(8) * np.pi / 4))
    assert np.abs(brightness - wanted).max() < 6
    knob = rgb[:, 92:96].sum((1, 3)).argmin(1)  # where the rows above the slider's line are dark
    assert knob[0] < knob[1] < knob[2] < knob[3] < knob[4] > knob[5] > knob[6] > knob[7] > knob[0]


def test_a_file_that_would_hold_the_same_is_not_touched(tmp_path):
    def figure():
        figure, axes = eval.canvas()
        axes.plot([1, 2])
        return figure

    for name, made, other in (("a.png", figure, "b"), ("a.jpg", figure, "b"), ("a.txt", lambda: "a", "b")):
        path = tmp_path / name
        eval.put(path, made())
        os.utime(path, (0, 0))
        first = path.read_bytes()
        eval.put(path, made())
        assert path.read_bytes() == first and path.stat().st_mtime == 0 and b"Matplotlib" not in first
        eval.put(path, other)
        assert path.read_text() == other
