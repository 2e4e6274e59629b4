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
    run = trip.Run(trip.Config(attr=attrs, size=32, width=8, **change))
    with torch.no_grad():
        if not run.config.paper_generator:
            run.G.paint.weight *= 100
        for head in run.R.rank_heads:
            head[-1].weight *= 10
    return run


def faces(n):
    return data.as_float(data.faces(("smile",), 32, seed=5, n=n).images)


def model_of(page):
    """What eval.dial_page has put into the template."""
    return json.loads(re.search('(?s)<script id="model".*?>(.*?)</script>', page)[1])


def test_the_page_holds_what_the_ranker_and_the_judge_say_of_each_face_at_each_place_of_the_dial():
    run, x = start("smile"), faces(3)
    judge = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 4))
    model = model_of(eval.dial_page(run, x, judge))
    y = eval.translate(run.G, x, torch.linspace(-1, 1, 21))
    with torch.no_grad():
        said, strengths = eval.rank_all(run.R, x, y)[..., 0], judge(y.flatten(0, 1))[:, 0].view(3, 21)
    half, R, truth = model["dials"][0]
    assert half["values"][1] == pytest.approx(np.linspace(-0.5, 0.5, 21), abs=0.006)
    assert np.allclose(R["values"], said, atol=0.006) and np.allclose(truth["values"], strengths, atol=0.006)
    assert len(model["faces"]) == 3 and "judge reads" in model["words"]
    run.R = None  # (of a rival)
    model = model_of(eval.dial_page(run, x))
    assert model["dials"] == [[]] and not model["words"]


def test_of_two_dials_the_first_one_is_the_fastest():
    run, x = start("smile", "frown"), faces(2)
    y = eval.translate(run.G, x, torch.tensor([[-1.0, 0.5]]))  # column 0, row 6
    with torch.no_grad():
        said = eval.rank_all(run.R, x, y)[1, 0]
    model = model_of(eval.dial_page(run, x))
    assert [dial[1]["values"][1][6 * 9] for dial in model["dials"]] == pytest.approx(said.tolist(), abs=0.006)


def test_the_page_is_small_and_names_no_address():
    page = eval.dial_page(trip.Run(trip.Config()), data.as_float(data.faces(("smile",), 64, n=6).images))
    assert len(page) < 900_000 and not re.search(r"https?:|src=|href=|@import|url\(", page)


def test_only_our_generator_has_a_page_and_without_its_template_it_is_left_out_with_a_word(
        tmp_path, monkeypatch, capsys):
    eval.write_page(tmp_path / "dial.html", start("smile", paper_generator=True), faces(1))
    assert not list(tmp_path.iterdir()) and not capsys.readouterr().err
    monkeypatch.setattr(eval, "PAGE", tmp_path / "page.html")
    eval.write_page(tmp_path / "dial.html", start("smile"), faces(1))
    assert not list(tmp_path.iterdir()) and "dial.html is left out" in capsys.readouterr().err


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


@pytest.mark.parametrize("attrs, grey", [(("smile",), False), (("smile",), True),
                                         (("smile", "frown", "beard"), False), (("smile", "frown"), True)])
def test_the_page_computes_what_the_generator_computes(attrs, grey, browse, smooth):
    run = start(*attrs, grey=grey)
    with torch.no_grad():
        run.G.flow.weight *= 50
    browser = browse(eval.dial_page(run, faces(2)))
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
    browser = browse(eval.dial_page(run, x))
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
    browser = browse(eval.dial_page(run, faces(2)))
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
    browser = browse(eval.dial_page(start("smile"), faces(2)))
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
    browser = browse(eval.dial_page(start("smile"), faces(2)))
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


def test_a_strange_name_stays_a_name(browse):
    page = eval.dial_page(start("</script><b>$x$&"), faces(1))
    assert page.count("</script>") == 3
    browser = browse(page)
    assert browser("$('title').textContent") == "</script><b>$x$&, from less to more"
    assert not browser.complaints()


def test_the_template_says_what_it_is(browse):
    browser = browse(eval.PAGE.read_text(encoding="utf-8"))
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
