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
    monkeypatch.setattr(eval, "LIVE", tmp_path / "live.html")
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


class Browser:
    """A page in headless Chromium, spoken to by the DevTools protocol through a pipe."""

    def __init__(self, page, folder):
        (folder / "page.html").write_text(page, encoding="utf-8")
        (theirs, self.to), (self.back, answers) = os.pipe(), os.pipe()

        def pipes():
            os.dup2(os.dup(theirs), 3)
            os.dup2(os.dup(answers), 4)

        self.process = subprocess.Popen(
            [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe",
             f"--user-data-dir={folder / 'browser'}"], preexec_fn=pipes, pass_fds=(3, 4),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(theirs), os.close(answers)
        self.number, self.read, self.session, self.events = 0, b"", {}, []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self.session = {"sessionId": attached["sessionId"]}
        for domain in ("Runtime", "Log", "Network", "Page"):
            self.call(f"{domain}.enable")
        self.call("Page.navigate", url=(folder / "page.html").as_uri())
        self("new Promise(done => document.readyState == 'complete' ? done() : addEventListener('load', done))")

    def call(self, method, **params):
        self.number += 1
        message = {"id": self.number, "method": method, "params": params} | self.session
        os.write(self.to, json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self.read:
                part = os.read(self.back, 2 ** 20)
                assert part, "the browser has ended"
                self.read += part
            first, self.read = self.read.split(b"\0", 1)
            answer = json.loads(first)
            if answer.get("id") == self.number:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def __call__(self, code):
        """The value of an expression, or of the promise that it is."""
        found = self.call("Runtime.evaluate", expression=code, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def complaints(self):
        """What was said on the console, and what was fetched, beside the page itself."""
        said = {"Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"}
        fetched = [event for event in self.events if event["method"] == "Network.requestWillBeSent"
                   and not re.match("data:|blob:|.*page.html$", event["params"]["request"]["url"])]
        return fetched + [event for event in self.events if event["method"] in said]

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self.to), os.close(self.back)


@pytest.fixture
def browse(tmp_path):
    if not BROWSER:
        pytest.skip("no Chromium here")
    opened = []

    def browse(page):
        opened.append(Browser(page, tmp_path))
        return opened[-1]

    yield browse
    for browser in opened:
        browser.close()


def text_of(pixels):
    """Pixels, uint8 (H, W, 3), as base64 of RGBA."""
    whole = np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)])
    return base64.b64encode(whole.tobytes()).decode()


def pixels_of(text, h, w):
    return np.frombuffer(base64.b64decode(text), np.uint8).reshape(h, w, 4)[..., :3].astype(int)


IN_TEXT = """const inText = bytes => { let text = ""; for (const u of bytes) text += String.fromCharCode(u);
  return btoa(text); };"""


@pytest.mark.parametrize("attrs", [("smile",), ("smile", "frown", "beard")])
def test_the_page_computes_what_the_generator_computes(attrs, browse, smooth):
    run = start(*attrs)
    with torch.no_grad():
        run.G.flow.weight *= 50
    browser = browse(eval.live_page(run, faces(2)))
    v = [0.7, -1.0, 0.3][:len(attrs)]
    for side in (32, 20, 100):
        picture = smooth(side, side)
        code = f"""(() => {{ {IN_TEXT}
            const pixels = Uint8Array.from(atob("{text_of(picture)}"), u => u.charCodeAt(0));
            const W = weightsOf(model.weights, model.shapes);
            return inText(edited(W, model.size, model.blocks, pixels, {side}, {v})); }})()"""
        wanted = edited_by(run, data.as_float(torch.tensor(picture).permute(2, 0, 1)[None]), v)
        found = pixels_of(browser(code), side, side)
        assert np.abs(wanted - picture).mean() > 8 and np.abs(found - wanted).max() <= 2
    assert not browser.complaints()


@pytest.fixture
def smooth():
    def smooth(h, w):
        """A picture without sharp edges, uint8 (h, w, 3)."""
        columns, rows = np.meshgrid(np.linspace(0, 6, w), np.linspace(0, 6, h))
        waves = [np.sin(columns + i) * np.cos(rows - i) for i in range(3)]
        return (127.5 + 90 * np.dstack(waves)).astype(np.uint8)
    return smooth


SETTLED = "new Promise(done => { const look = () => busy ? setTimeout(look, 20) : done(); setTimeout(look, 50); })"
SHOWN = f"(() => {{ {IN_TEXT} return inText(pen.getImageData(0, 0, view.width, view.height).data); }})()"


def decoded(file):
    """A picture file as G takes it, float (1, 3, H, W)."""
    return data.as_float(torch.from_numpy(np.array(Image.open(file).convert("RGB"))).permute(2, 0, 1)[None])


def edited_by(run, x, v):
    """G(x, v) as pixels (H, W, 3)."""
    return eval.as_bytes(eval.translate(run.G, x, [v])[0, 0]).permute(1, 2, 0).numpy().astype(int)


def test_the_pages_slider_turns_a_face_and_tells_what_the_ranker_says(browse):
    run, x = start("smile"), faces(3)
    browser = browse(eval.live_page(run, x))
    browser(SETTLED)
    model = browser("model")
    assert browser("[view.width, sliders.length, sliders[0].value, face]") == [32, 1, "0.6", 0]
    browser("document.querySelectorAll('.face')[1].click()")
    browser(SETTLED)
    for v, place in ((-1.0, 0), (0.5, 15)):
        browser(f"sliders[0].value = {v}; sliders[0].dispatchEvent(new Event('input'))")
        browser(SETTLED)
        file = io.BytesIO(base64.b64decode(model["faces"][1].split(",")[1]))
        assert np.abs(pixels_of(browser(SHOWN), 32, 32) - edited_by(run, decoded(file), v)).max() <= 2
        said = model["dials"][0][1]["values"][1][place]
        assert browser("$('said').textContent") == f"R says {said:.2f}"
        labels = browser("[view.ariaLabel, sliders[0].ariaValueText]")
        assert labels == [f"picture-2, smile {v:+.2f}", f"{v:+.2f}"]
    assert browser("[...document.querySelectorAll('.face')].map(u => +(u.ariaPressed == 'true'))") == [0, 1, 0]
    assert not browser.complaints()


def test_a_dropped_picture_is_edited_in_its_frame_and_saved_whole(browse, smooth, tmp_path):
    run = start("smile", "frown")
    picture = smooth(900, 1000)
    Image.fromarray(picture).save(tmp_path / "me.png")
    browser = browse(eval.live_page(run, faces(2)))
    browser(SETTLED)
    text = base64.b64encode((tmp_path / "me.png").read_bytes()).decode()
    browser(f"""(() => {{ const given = new DataTransfer();
        const bytes = Uint8Array.from(atob("{text}"), u => u.charCodeAt(0));
        given.items.add(new File([bytes], "me.png", {{ type: "image/png" }}));
        document.body.dispatchEvent(new DragEvent("drop", {{ dataTransfer: given, bubbles: true }})); }})()""")
    browser("new Promise(done => setTimeout(done, 500))")
    browser(SETTLED)
    assert browser("frame") == [50, 0, 900] and browser("[view.width, view.height]") == [768, 691]
    for key in "-", "ArrowLeft", "ArrowDown":
        browser(f"view.dispatchEvent(new KeyboardEvent('keydown', {{ key: '{key}' }})) && 0")
    left, top, side = browser("frame")
    assert side == pytest.approx(900 / 1.05) and left < 50 + 900 * 0.02 and top > 900 * 0.02
    browser("put(100, 40, 600)")
    browser("sliders[1].value = -0.5; draw()")
    browser(SETTLED)
    saved = browser("""new Promise(async done => { let blob;
        URL.createObjectURL = given => { blob = given; return "blob:none"; };
        HTMLAnchorElement.prototype.click = function () {
          const reader = new FileReader();
          reader.onload = () => done([this.download, reader.result]);
          reader.readAsDataURL(blob); };
        $("save").click(); })""")
    assert saved[0] == "me_v+0.60,-0.50.jpg"
    found = np.asarray(Image.open(io.BytesIO(base64.b64decode(saved[1].split(",")[1])))).astype(int)
    wanted = picture.copy()
    eval.paste(run, wanted, (100, 40, 600), [0.6, -0.5])
    assert np.abs(wanted.astype(int) - picture)[200:400, 300:500].mean() > 5
    assert found.shape == wanted.shape and np.abs(found - wanted).mean() < 1.5  # (a JPEG)
    assert not browser.complaints()


def test_what_goes_wrong_on_the_page_stops_nothing(browse, smooth):
    browser = browse(eval.live_page(start("smile"), faces(2)))
    browser(SETTLED)
    browser("""(() => { const flat = document.createElement("canvas"); [flat.width, flat.height] = [3000, 1];
        return new Promise(done => flat.toBlob(blob => done(open(blob, "flat.png")))); })()""")
    browser(SETTLED)
    assert browser("[view.width, view.height, frame[2]]") == [768, 1, 1]
    assert browser("compute({ data: null, width: 64 }, [0]).catch(error => error instanceof Error)")
    browser("document.querySelectorAll('.face')[1].click()")
    browser(SETTLED)
    assert browser("[view.width, face, busy]") == [32, 1, 0]
    browser("open(new Blob(['no picture']), 'a.txt')")
    assert "is no picture" in browser("$('said').textContent")


def test_the_frame_stays_in_the_picture_and_zooms_about_its_middle(browse, smooth, tmp_path):
    browser = browse(eval.live_page(start("smile"), faces(2)))
    browser(SETTLED)
    browser("""(() => { const wide = document.createElement("canvas"); [wide.width, wide.height] = [400, 250];
        return new Promise(done => wide.toBlob(blob => done(open(blob, "wide.png")))); })()""")
    for _ in range(3):
        browser("move(0, 0, 2)")
    assert browser("frame") == [75, 0, 250]
    browser("put(150, 100, 40)")
    for _ in range(9):
        browser("move(0, 0, 0.8)")
    assert browser("frame") == [154, 104, 32]
    browser("put(100, 0, 200)")
    assert browser("(() => { const from = frame; move(500, 0, 1, from); move(0, 0, 1, from); return frame; })()"
                   ) == [100, 0, 200]  # dragged beyond the border, and back
    browser("put(9999, -9999, 100)")
    assert browser("frame") == [300, 0, 100]


def test_a_strange_name_stays_a_name_on_the_live_page(browse):
    page = eval.live_page(start("</script><b>$x$&"), faces(1))
    assert page.count("</script>") == 3
    browser = browse(page)
    assert browser("$('title').textContent") == "</script><b>$x$&, from less to more"
    assert not browser.complaints()


def test_the_template_says_what_it_is(browse):
    browser = browse(eval.LIVE.read_text(encoding="utf-8"))
    assert "This is the template" in browser("$('said').textContent") and not browser.complaints()


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
