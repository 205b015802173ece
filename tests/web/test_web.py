"""The static page in a real browser: its answers, microphone, messages, and what it is built from."""

import base64
import csv
import functools
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from contextlib import contextmanager
from io import BytesIO

import numpy as np
import pytest
import soundfile
import soxr
from browser import CHROMIUM, FLAGS, MICROPHONE, SECONDS, require_chromium
from conftest import ROOT
from tiny_onnx import LABELS, write_tiny_model

from modeling_gemoclap.page.examples import EXAMPLES, RATE, speak
from modeling_gemoclap.recordings_gemoclap import read_audio

playwright = pytest.importorskip("playwright.sync_api")
onnxruntime = pytest.importorskip("onnxruntime")

WEB = ROOT / "web"
VOICE = speak(next(iter(EXAMPLES.values())))
NAMES = ["<img src=x onerror=alert(1)>.wav", '=1+1, "a".wav', "plain.wav"]


def build(*arguments):
    """Run `web/build.py`; the finished process."""
    return subprocess.run([sys.executable, WEB / "build.py", *arguments], cwd=ROOT, capture_output=True, text=True)


def require_npm():
    """Skip without npm, but never in continuous integration."""
    if not shutil.which("npm"):
        assert not os.environ.get("CI"), "Node.js with npm must be installed in continuous integration"
        pytest.skip("npm is not installed: install Node.js")


def built(output, model):
    require_npm()
    require_chromium()
    done = build(model, "--output", output)
    assert done.returncode == 0, done.stdout + done.stderr
    return output


@contextmanager
def serve(folder):
    """The port of a server of static files."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("model") / "tiny.onnx")


@pytest.fixture(scope="module")
def site(tiny, tmp_path_factory):
    """The root of a host; the page is in a subfolder."""
    root = tmp_path_factory.mktemp("host")
    built(root / "deep" / "er", tiny)
    return root


@pytest.fixture(scope="module")
def port(site):
    with serve(site) as port:
        yield port


@pytest.fixture(scope="module")
def address(port):
    return f"http://127.0.0.1:{port}/deep/er/"


@pytest.fixture(scope="module")
def chromium():
    require_chromium()
    with playwright.sync_playwright() as started:
        yield started.chromium


@pytest.fixture(scope="module")
def browser(chromium, tmp_path_factory):
    spoken = tmp_path_factory.mktemp("microphone") / "voice.wav"
    soundfile.write(spoken, VOICE, RATE)
    flags = [*FLAGS, *MICROPHONE, f"--use-file-for-fake-audio-capture={spoken}"]
    flags.append("--host-resolver-rules=MAP plain.test 127.0.0.1")
    browser = chromium.launch(executable_path=CHROMIUM, args=flags)
    yield browser
    browser.close()


class Visit:
    """A page that is open, what it requested of other hosts, and its errors."""

    def __init__(self, page, address, state="ready"):
        self.page, self.foreign, self.errors = page, [], []
        own = address.rpartition("/")[0]
        page.set_default_timeout(SECONDS)
        page.on("request", lambda request: request.url.startswith((own, "blob:")) or self.foreign.append(request.url))
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("dialog", lambda dialog: (self.errors.append(dialog.message), dialog.dismiss()))
        page.on("console", lambda line: line.type in ("error", "warning") and self.errors.append(line.text))
        page.goto(address)
        page.locator(f"body[data-state={state}]").wait_for()

    def analyse(self, *paths):
        """Choose files, and wait for their answers or messages; the texts of their cards."""
        before = self.page.locator("article").count()
        self.page.get_by_label("Choose files").set_input_files(paths)
        self.finish(before + len(paths))
        return [card.inner_text() for card in self.page.locator("article").all()[: len(paths)]]

    def finish(self, count):
        self.page.locator("article :is(.bars, .message)").nth(count - 1).wait_for()

    def rows(self, folder):
        """The rows of the CSV file by file name."""
        with self.page.expect_download() as download:
            self.page.get_by_role("button", name="Download CSV").click()
        assert download.value.suggested_filename == "emotions.csv"
        download.value.save_as(folder / "emotions.csv")
        with open(folder / "emotions.csv", newline="", encoding="utf-8-sig") as file:
            return {row["file"]: row for row in csv.DictReader(file)}

    def record(self, seconds=1.2):
        """Record by the keyboard."""
        button = self.page.locator("#record")
        button.press("Enter")
        self.page.locator("#meter").wait_for()
        self.page.wait_for_timeout(1000 * seconds)
        button.press("Enter")
        self.page.get_by_role("button", name="Record", exact=True).wait_for()


@pytest.fixture
def visit(browser, address):
    visits = []

    def start(place=address, state="ready", **settings):
        page = browser.new_context(**settings).new_page()
        visits.append(Visit(page, place, state))
        return visits[-1]

    yield start
    for each in visits:
        each.page.context.close()
    assert [(each.foreign, each.errors) for each in visits] == [([], [])] * len(visits)


@pytest.fixture(scope="module")
def open_page(browser, address):
    here = Visit(browser.new_page(), address)
    yield here
    here.page.close()


@pytest.fixture
def here(open_page):
    """One page for several tests, since it takes a second to load; without results of an earlier test."""
    if open_page.page.locator("#clear").is_visible():
        open_page.page.locator("#clear").click()
    yield open_page
    assert (open_page.foreign, open_page.errors) == ([], [])


@pytest.fixture
def clip(tmp_path):
    soundfile.write(tmp_path / "voice.wav", VOICE, RATE)
    return tmp_path / "voice.wav"


def expected(model, path):
    """The scores of onnxruntime in Python for a clip that the package reads."""
    wave, rate = read_audio(str(path))
    wave = soxr.resample(wave, rate, RATE).astype(np.float32) if rate != RATE else wave
    inputs = {"waveform": wave[None], "lengths": np.array([len(wave)])}
    return onnxruntime.InferenceSession(model).run(["scores"], inputs)[0][0]


def test_answers_are_those_of_onnxruntime_in_python(here, tiny, tmp_path):
    noise = 0.1 * np.random.default_rng(0).standard_normal(RATE)
    left = soxr.resample(VOICE, RATE, 44100)
    clips = {
        "voice.wav": (VOICE, RATE, 1e-3),
        "noise.wav": (noise, RATE, 1e-3),
        "stereo.wav": (np.column_stack([VOICE, np.roll(VOICE, 40)]), RATE, 1e-3),
        "opposite.wav": (np.column_stack([VOICE, -0.9 * VOICE]), RATE, 1e-3),
        "cd.flac": (np.column_stack([left, 0.5 * left]), 44100, 0.02),
        "telephone.wav": (soxr.resample(VOICE, RATE, 8000), 8000, 0.02),
    }
    for name, (wave, rate, _) in clips.items():
        soundfile.write(tmp_path / name, wave, rate)
    cards = here.analyse(*(tmp_path / name for name in clips))
    rows = here.rows(tmp_path)
    for card, (name, (_, _, tolerance)) in zip(cards, clips.items(), strict=True):
        scores = expected(tiny, tmp_path / name)
        row = rows[name]
        assert [float(row[f"score_{label}"]) for label in LABELS] == pytest.approx(scores.tolist(), abs=tolerance), (
            name
        )
        best = LABELS[scores.argmax()]
        assert row["label"] == best and float(row["score"]) == max(float(row[f"score_{label}"]) for label in LABELS)
        assert f"{best} {100 * float(row['score']):.1f} %" in card and float(row["computation"]) > 0
    assert here.page.locator("#overview tbody tr").count() == len(clips)


def test_the_page_opens_from_the_disk_with_microphone_and_files(visit, site, clip):
    here = visit((site / "deep/er/index.html").as_uri())
    [card] = here.analyse(clip)
    here.record()
    here.finish(2)
    assert "recording-1.wav" in here.page.locator("article").first.inner_text() and "%" in card
    assert "checked (SHA-256)" in here.page.locator(".about").inner_text()


def test_a_recording_from_the_microphone_is_analysed_and_played(here):
    here.record(1.6)
    here.finish(1)
    text = here.page.locator("article").inner_text()
    seconds = float(re.search(r"([\d.]+) s of audio", text)[1])
    assert 1 < seconds < 3 and "recording-" in here.page.locator("#announcement").inner_text()
    played = here.page.locator("audio").evaluate("async each => (await each.play(), each.pause(), each.duration)")
    assert played == pytest.approx(seconds, abs=0.06)
    assert here.page.locator("#meter").is_hidden()


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--use-fake-device-for-media-stream"], "The microphone is not allowed"),
        (["--use-fake-ui-for-media-stream"], "No microphone was found"),
    ],
)
def test_why_there_is_no_microphone(flags, message, chromium, address):
    browser = chromium.launch(executable_path=CHROMIUM, args=[*FLAGS, *flags])
    try:
        here = Visit(browser.new_page(), address)
        here.page.locator("#record").click()
        here.page.get_by_text(message).wait_for(timeout=10_000)
        assert here.page.locator("#record").is_enabled() and here.page.locator("#meter").is_hidden()
        assert here.errors == []
    finally:
        browser.close()


def test_a_page_over_plain_http_has_no_microphone_but_analyses_files(visit, port, clip):
    here = visit(f"http://plain.test:{port}/deep/er/")
    here.page.locator("#record").click()
    assert "only on pages over HTTPS" in here.page.locator("#message").inner_text()
    assert "not checked" in here.page.locator("#checksum").inner_text()
    assert "%" in here.analyse(clip)[0]


def test_clips_that_cannot_be_used_give_the_messages_of_the_package(here, clip, tmp_path):
    soundfile.write(tmp_path / "silent.wav", np.full(RATE, 0.3), RATE)
    soundfile.write(tmp_path / "short.wav", VOICE[:40], RATE)
    soundfile.write(tmp_path / "infinite.wav", np.where(np.arange(RATE) == 9, np.inf, 0.1), RATE, subtype="FLOAT")
    (tmp_path / "text.wav").write_text("no audio")
    messages = {"silent.wav": "silent, no sample above -80 dBFS; remove it or check the recording"}
    messages |= {"short.wav": "too short, 0.003 s; the minimum is 0.1 s", "infinite.wav": "NaN or infinite samples"}
    messages |= {"text.wav": "not audio that this browser can decode"}
    cards = here.analyse(*(tmp_path / name for name in messages), clip)
    for card, (name, message) in zip(cards, messages.items(), strict=False):
        assert name in card and message in card
    assert f"{LABELS[0]} " in cards[-1]
    rows = here.rows(tmp_path)
    assert "silent" in rows["silent.wav"]["error"] and rows["silent.wav"]["label"] == ""


def test_a_long_clip_is_cut_and_a_very_long_one_refused(here, tmp_path):
    soundfile.write(tmp_path / "minute.flac", np.tile(VOICE, 1 + 65 * RATE // len(VOICE))[: 65 * RATE], RATE)
    soundfile.write(tmp_path / "hour.flac", np.zeros(RATE * 601, np.int16), RATE)
    long, refused = here.analyse(tmp_path / "minute.flac", tmp_path / "hour.flac")
    assert "Only the first 60 s were used" in long and "65.0 s of audio" in long
    assert "longer than 10 minutes" in refused


def test_markup_in_names_and_labels_is_text(here, tmp_path):
    for name in NAMES:
        soundfile.write(tmp_path / name, VOICE, RATE)
    cards = here.analyse(*(tmp_path / name for name in NAMES))
    assert all(name in card and "<b>bright</b>" in card for name, card in zip(NAMES, cards, strict=True))
    assert here.page.locator("main :is(img, b, script)").count() == 0
    assert {*here.rows(tmp_path)} == {NAMES[0], f"'{NAMES[1]}", NAMES[2]}, "no formula for a spreadsheet"


def test_files_are_dropped_and_removed(here):
    drop = """text => {
        const transfer = new DataTransfer();
        transfer.items.add(new File([Uint8Array.from(atob(text), each => each.charCodeAt(0))], "dropped.wav"));
        document.body.dispatchEvent(new DragEvent("drop", {dataTransfer: transfer, bubbles: true, cancelable: true}));
    }"""
    soundfile.write(data := BytesIO(), VOICE, RATE, format="WAV")
    for count in (1, 2):
        here.page.evaluate(drop, base64.b64encode(data.getvalue()).decode())
        here.finish(count)
    assert here.page.locator("#overview").is_visible()
    here.page.get_by_role("button", name="Remove dropped.wav").first.click()
    assert here.page.locator("article").count() == 1 and here.page.locator("#overview").is_hidden()
    here.page.get_by_role("button", name="Remove all").click()
    assert here.page.locator("#results").is_hidden()


def test_the_keyboard_is_enough_and_everything_has_a_name(visit, clip):
    here = visit()
    here.page.keyboard.press("Tab")
    focused = "document.activeElement.id"
    assert here.page.evaluate(focused) == "record"
    here.page.keyboard.press("Tab")
    choosers = []
    here.page.on("filechooser", lambda chooser: choosers.append(chooser))
    for _ in range(50):
        here.page.keyboard.press("Space")
        here.page.wait_for_timeout(200)  # until the browser reports choosers
        if choosers:
            break
    choosers[0].set_files([clip, clip])
    here.finish(2)
    reached = []
    for _ in range(40):
        here.page.keyboard.press("Tab")
        reached.append(here.page.evaluate("document.activeElement.ariaLabel || document.activeElement.textContent"))
    for name in ("Download CSV", "Remove all", "All results", "voice.wav", "Player of voice.wav", "Remove voice.wav"):
        assert name in reached, name
    unnamed = here.page.evaluate(
        """() => [...document.querySelectorAll("button, input, audio, progress, section, article, [role=region]")]
        .filter(each => each.checkVisibility() && !(each.ariaLabel || each.textContent.trim() || each.labels?.length ||
            each.hasAttribute("aria-labelledby"))).map(each => each.outerHTML.slice(0, 200))"""
    )
    levels = [int(heading.evaluate("each => each.tagName[1]")) for heading in here.page.locator("h1, h2, h3").all()]
    assert unnamed == [] and levels[0] == 1 and all(b <= a + 1 for a, b in zip(levels, levels[1:], strict=False))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_has_no_horizontal_scrolling_and_text_has_contrast(visit, clip, tmp_path, scheme):
    long = tmp_path / f"{'pneumonoultramicroscopicsilicovolcanoconiosis' * 3}.wav"
    shutil.copy(clip, long)
    here = visit(viewport={"width": 360, "height": 740}, has_touch=True, color_scheme=scheme)
    here.analyse(clip, long)
    assert here.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    for part in here.page.locator("main :is(button, audio, article, .bars, table)").locator("visible=true").all():
        box = part.bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= 360
    colours = here.page.evaluate(
        """() => [...document.querySelectorAll("main :is(p, li, dt, dd, td, a, button, strong, h1, h2, h3)")]
        .filter(each => each.checkVisibility()).map(each => {
            let ground = each;
            while (/, 0\\)$/.test(getComputedStyle(ground).backgroundColor)) ground = ground.parentElement;
            return [getComputedStyle(each).color, getComputedStyle(ground).backgroundColor, each.outerHTML];
        })"""
    )
    assert len(colours) > 30
    for colour, ground, text in colours:
        assert contrast(colour, ground) >= 4.5, text


def contrast(first, second):
    """The contrast of two colours after WCAG 2."""

    def luminance(colour):
        values = [int(value) / 255 for value in re.findall(r"\d+", colour)[:3]]
        linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in values]
        return np.dot([0.2126, 0.7152, 0.0722], linear)

    darker, lighter = sorted((luminance(first), luminance(second)))
    return (lighter + 0.05) / (darker + 0.05)


def test_the_security_policy_forbids_connections(browser, address):
    here = Visit(browser.new_page(), address)
    tried = "place => fetch(place).then(() => 'sent', () => 'refused')"
    assert [here.page.evaluate(tried, place) for place in (address, "data:,x")] == ["refused", "refused"]
    assert here.page.evaluate("indexedDB.databases().then(all => all.length + localStorage.length)") == 0
    here.page.close()


@pytest.mark.parametrize("damage", ["missing", "cut off", "not gzip", "another model"])
def test_a_damaged_page_is_reported_in_words(damage, browser, site, tmp_path):
    folder = shutil.copytree(site / "deep/er", tmp_path / "page")
    [part] = folder.glob("data/model.*.js")
    text, index = part.read_text(), folder / "index.html"
    if damage == "another model":
        index.write_text(re.sub(r'"sha256": "\w+"', f'"sha256": "{"0" * 64}"', index.read_text()))
    else:
        part.write_text({"missing": "", "cut off": text[:40], "not gzip": text.replace("H4sI", "AAAA")}[damage])
    if damage == "missing":
        part.unlink()
    page = browser.new_page()
    page.add_init_script(
        "addEventListener('DOMContentLoaded', () => setTimeout(() => { const transfer = new DataTransfer(); "
        "transfer.items.add(new File(['x'], 'early.wav')); transfer.items.add(new File(['x'], 'later.wav')); "
        "document.dispatchEvent(new DragEvent('drop', {dataTransfer: transfer, cancelable: true})); }))"
    )
    here = Visit(page, index.as_uri(), "failed")
    here.finish(2)
    assert here.page.get_by_text("Not analysed: the model is not loaded.").count() == 2
    message = {"missing": "is missing", "cut off": "is damaged", "not gzip": "damaged", "another model": "SHA-256"}
    assert message[damage] in here.page.locator("#state").inner_text()
    assert here.page.locator("#record").is_disabled() and here.page.get_by_label("Choose files").is_disabled()
    here.page.close()


def test_what_the_build_refuses(tmp_path):
    done = build(tmp_path / "none.onnx")
    assert done.returncode == 1 and "does not exist" in done.stderr
    model = write_tiny_model(tmp_path / "tiny.onnx", labels="angry")
    assert "not a description that this page reads (labels)" in build(model).stderr
    write_tiny_model(model, sha256="0" * 64)
    assert "differs from the SHA-256" in build(model).stderr


@pytest.mark.parametrize("name", ["page.css", "index.html", "data"])
def test_the_build_keeps_folders_of_others(name, tiny, tmp_path):
    require_npm()
    (tmp_path / "own" / name).mkdir(parents=True)
    assert "holds other files" in build(tiny, "--output", tmp_path / "own").stderr
    assert (tmp_path / "own" / name).is_dir()


def test_the_built_page_names_no_other_host_and_scripts_are_small(site):
    for name in ("index.html", "page.css"):
        assert not re.search(r"(?:https?:)?//\w", (site / "deep/er" / name).read_text().partition("<body")[0]), name
    for path in WEB.glob("*.js"):
        lines = path.read_text().splitlines()
        assert len(lines) <= 200 and max(map(len, lines)) <= 119, path


def test_packages_are_pinned_without_hosts():
    package = json.loads((WEB / "package.json").read_text())
    lock = json.loads((WEB / "package-lock.json").read_text())["packages"]
    pins = package["dependencies"] | package["devDependencies"]
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in pins.values())
    assert all(lock[f"node_modules/{name}"]["version"] == version for name, version in pins.items())
    assert all(each["integrity"].startswith("sha512-") for name, each in lock.items() if name)
    assert not [name for name, each in lock.items() if "resolved" in each]


@pytest.mark.slow
def test_the_compact_checkpoint_answers_as_in_python(browser, corpora, tmp_path):
    from modeling_gemoclap.inference.loading import load_pipeline

    page = built(tmp_path / "page", "compact")
    files = [sorted((corpora / name).rglob("*.*a[cv]")) for name in ("emodb", "ravdess")]  # FLAC or WAV
    clips = [clip for each in files for clip in each[:40:10]]
    assert len(clips) == 8
    here = Visit(browser.new_page(), (page / "index.html").as_uri())
    here.analyse(*clips)
    rows = here.rows(tmp_path)
    assert "calibrated on recordings" in here.page.locator("#calibrated").inner_text()
    for clip, answers in zip(clips, load_pipeline("compact")([str(clip) for clip in clips]), strict=True):
        tolerance = 1e-3 if soundfile.info(clip).samplerate == RATE else 0.05
        row = rows[clip.name]
        for answer in answers:
            assert float(row[f"score_{answer['label']}"]) == pytest.approx(answer["score"], abs=tolerance), clip
        assert row["label"] == answers[0]["label"]
    assert (here.foreign, here.errors) == ([], [])
    here.page.close()
