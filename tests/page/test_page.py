"""The page in a real browser, against the real server: what a person does with it."""

import numpy as np
import pytest
import soundfile
import soxr
from browser import CHROMIUM, FLAGS, MICROPHONE, SECONDS, require_chromium, served
from conftest import ROOT

from modeling_gemoclap.inference.indexing import build_index
from modeling_gemoclap.inference.loading import load_pipeline
from modeling_gemoclap.page.examples import EXAMPLES, RATE, speak

pytest.importorskip("gradio")
playwright = pytest.importorskip("playwright.sync_api")

VOICE = speak(next(iter(EXAMPLES.values())))
HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    require_chromium()
    folder = tmp_path_factory.mktemp("recordings")
    for number, vowel in enumerate(EXAMPLES.values()):
        soundfile.write(folder / f"{number}{HOSTILE.replace('/', '')}.wav", speak(vowel), RATE)
    build_index(load_pipeline("compact"), str(folder), str(folder / "index.parquet"))
    with served("--index", folder / "index.parquet", temporary=tmp_path_factory.mktemp("server")) as address:
        yield address


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    require_chromium()
    spoken = tmp_path_factory.mktemp("microphone") / "voice.wav"
    soundfile.write(spoken, VOICE, RATE)
    with playwright.sync_playwright() as started:
        flags = [*FLAGS, *MICROPHONE, f"--use-file-for-fake-audio-capture={spoken}"]
        browser = started.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield browser
        browser.close()


class Visit:
    """A page that is open, and what it asked of other hosts, said in dialogs, and reported as errors."""

    def __init__(self, page, address):
        self.page, self.address = page, address
        self.foreign, self.dialogs, self.errors = [], [], []
        page.set_default_timeout(SECONDS)
        page.on("request", self._note_request)
        page.on("dialog", lambda dialog: (self.dialogs.append(dialog.message), dialog.dismiss()))
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.goto(address)
        page.get_by_role("button", name="Analyse").wait_for()

    def _note_request(self, request):
        if not request.url.startswith((self.address, "blob:", "data:")):
            self.foreign.append(request.url)

    def upload(self, path, place=0):
        """Choose a file in a field for recordings, and wait for its player."""
        panel = self.page.locator("[role=tabpanel]:visible")
        panel.locator("input[type=file]").first.set_input_files(path)
        panel.locator("audio").nth(place).wait_for()

    def analyse(self, button="Analyse", place="#ge-result"):
        """Press the button; the text of the new result."""
        old = f"for (const each of document.querySelectorAll('{place} *')) each.dataset.old = '';"
        self.page.evaluate(f"() => {{ {old} }}")
        self.page.get_by_role("button", name=button, exact=True).click()
        self.page.locator(f"{place} :is(.ge-answer, .ge-found, .ge-message):not([data-old])").first.wait_for()
        return self.page.locator(place).inner_text()

    def dismiss(self, message):
        """Read a warning beside the page, and close it."""
        toast = self.page.get_by_test_id("toast-body").filter(has_text=message)
        toast.get_by_test_id("toast-close").click()

    @property
    def labels(self):
        return self.page.get_by_role("textbox", name="Labels").locator("visible=true")

    @property
    def result(self):
        return self.page.locator("#ge-result")

    def close(self):
        self.page.context.close()
        assert (self.foreign, self.dialogs, self.errors) == ([], [], [])


@pytest.fixture
def visit(browser, address):
    open_visits = []

    def start(**settings):
        context = browser.new_context(permissions=["microphone"], **settings)
        open_visits.append(Visit(context.new_page(), address))
        return open_visits[-1]

    yield start
    for each in open_visits:
        each.close()


@pytest.fixture
def clip(tmp_path):
    path = tmp_path / "voice.wav"
    soundfile.write(path, VOICE, RATE)
    return path


def test_a_recording_is_uploaded_and_analysed_also_with_other_labels(visit, clip):
    here = visit()
    here.upload(clip)
    text = here.analyse()
    assert "Most likely label:" in text and "Pitch" in text and "Loudness" in text and "Gender" not in text
    assert here.result.locator(".ge-bars li").count() == 7
    description = here.result.get_by_role("img").get_attribute("aria-label")
    assert description.startswith("Timeline of 2.2 s: 0.")
    assert here.result.get_attribute("aria-live") == "polite"
    here.labels.fill("cheerful, gloomy\ntense")
    here.page.get_by_label("Also guess the gender").check()
    text = here.analyse()
    assert here.result.locator(".ge-bars li").count() == 3
    assert "not calibrated" in text and "Gender:" in text
    here.page.get_by_role("button", name="Labels of the model").first.click()
    here.page.wait_for_function("document.querySelector('textarea').value.includes('boredom')")


def test_a_recording_from_the_microphone(visit):
    here = visit()
    here.page.get_by_role("button", name="Record audio").first.click()
    here.page.get_by_role("button", name="Record", exact=True).first.click()
    here.page.wait_for_timeout(1500)
    with here.page.expect_response(lambda response: "gradio_api/upload" in response.url):
        here.page.get_by_role("button", name="Stop", exact=True).first.click()
    here.page.locator("audio").first.wait_for()
    here.page.wait_for_timeout(500)  # until the field holds the uploaded file
    assert "Most likely label:" in here.analyse()


def test_two_recordings_are_compared(visit):
    here = visit()
    here.page.get_by_role("tab", name="Compare two").click()
    assert "Recording A is missing" in here.analyse("Compare", "#ge-comparison")
    for number, name in enumerate(("Lively synthetic voice as Recording A", "Flat synthetic voice as Recording B")):
        here.page.get_by_role("button", name=name).click()
        here.page.locator("audio").locator("visible=true").nth(number).wait_for()
    text = here.analyse("Compare", "#ge-comparison")
    assert "Recording A" in text and "Recording B" in text
    assert here.page.locator("#ge-comparison .ge-compared > li").count() == 7
    assert here.page.locator("#ge-comparison .ge-timeline").count() == 2


def test_recordings_are_searched_by_text_and_by_example(visit, clip):
    here = visit()
    here.page.get_by_role("tab", name="Search").click()
    count = len(EXAMPLES)
    search = {"button": f"Search {count} recordings", "place": "#ge-hits"}
    assert "There is nothing to search for" in here.analyse(**search)
    here.dismiss("nothing to search for")
    here.page.get_by_role("textbox", name="Text").fill("an angry <b>voice</b>")
    found = here.analyse(**search)
    assert HOSTILE in found and "A rank is not a probability" in found
    assert here.page.locator("#ge-hits tbody tr").count() == count
    here.page.get_by_role("textbox", name="Text").fill("")
    here.upload(clip)
    here.analyse(**search)
    first = here.page.locator("#ge-hits tbody tr").first.inner_text()
    assert first.split()[0] == "1" and "1.000" in first and "/" not in first


def unusable(folder):
    """Files that cannot be analysed, with a part of the message."""
    (folder / "cut.wav").write_bytes(b"RIFF\x24\x00\x00\x00WAVEfmt nothing")
    (folder / "text.wav").write_text("no audio")
    soundfile.write(folder / "silent.wav", np.zeros(RATE), RATE)
    soundfile.write(folder / "short.wav", VOICE[:40], RATE)
    soundfile.write(folder / "hours.flac", np.zeros(RATE * 601, np.int16), RATE)
    messages = {"cut.wav": "truncated", "text.wav": "not audio", "silent.wav": "silent", "short.wav": "too short"}
    return messages | {"hours.flac": "longer than 10 minutes"}


def test_a_bad_file_gives_a_message_and_the_page_lives_on(visit, clip, tmp_path):
    here = visit()
    for name, message in unusable(tmp_path).items():
        here.page.locator("[role=tabpanel]:visible input[type=file]").first.set_input_files(tmp_path / name)
        clear = here.page.get_by_role("button", name="Clear").first
        clear.wait_for()
        text = here.analyse()
        assert message in text and "/tmp" not in text and "gemoclap-page" not in text, text
        here.dismiss(message)
        clear.click()
    here.upload(clip)
    assert "Most likely label:" in here.analyse()


def test_a_video_and_a_file_that_is_too_large_are_refused_before_they_are_analysed(visit, clip, tmp_path):
    here = visit()
    (tmp_path / "film.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + bytes(1000))
    with open(tmp_path / "large.wav", "wb") as file:
        file.truncate(110 * 10**6)
    field = here.page.locator("[role=tabpanel]:visible input[type=file]").first
    for name, message in {"film.mp4": "Invalid file type", "large.wav": "size"}.items():
        field.set_input_files(tmp_path / name)
        here.dismiss(message)
    here.upload(clip)
    assert "Most likely label:" in here.analyse()


def test_labels_that_cannot_be_used_give_a_message(visit, clip):
    here = visit()
    here.upload(clip)
    for labels, message in (
        ("", "no labels"),
        ("happy, Happy", "twice"),
        ("happy", "two or more"),
        (",".join(f"word {number}" for number in range(100)), "There are 100 labels: give at most 50"),
        ("x" * 200 + ",y", "longer than 60"),
    ):
        here.labels.fill(labels)
        assert message in here.analyse()


def test_markup_in_labels_and_names_is_text(visit, tmp_path):
    names = ("<img src=x onerror=alert(1)>.wav", "\"'><script>alert(2)<script>.wav", "${alert(3)} {{alert}}.wav")
    labels = [HOSTILE, "<script>alert(4)</script>", "\"'><b>bold", "$(alert(5))"]
    here = visit()
    for number, name in enumerate(names):
        soundfile.write(tmp_path / name, VOICE, RATE)
        here.upload(tmp_path / name)
        labels[0] = f"{HOSTILE}{number}"
        here.labels.fill("\n".join(labels))
        text = here.analyse()
        assert all(label in text for label in labels)
        here.page.get_by_role("button", name="Clear").first.click()
    assert here.page.locator("#ge-result :is(script, img, b)").count() == 0
    here.labels.fill(f"{HOSTILE}, {HOSTILE}")
    assert HOSTILE[:15] in here.analyse()
    assert here.page.locator(":is(#ge-result, .toast-body) img").count() == 0


def test_a_long_recording_and_one_by_telephone(visit, tmp_path):
    here = visit()
    soundfile.write(tmp_path / "long.flac", np.tile(VOICE, 27), RATE)  # a minute
    here.upload(tmp_path / "long.flac")
    text = here.analyse()
    assert "Most likely label:" in text
    assert here.result.locator("[role=img]").get_attribute("aria-label").startswith("Timeline of 60.5 s: ")
    here.page.get_by_role("button", name="Clear").first.click()
    left = soxr.resample(VOICE, RATE, 8000)
    soundfile.write(tmp_path / "telephone.wav", np.column_stack([left, -left]), 8000)
    here.upload(tmp_path / "telephone.wav")
    text = here.analyse()
    assert "8,000 Hz" in text and "Most likely label:" in text


def press_until(page, condition, limit=60):
    """Press Tab until the focused element meets a condition, written in JavaScript."""
    for _ in range(limit):
        page.keyboard.press("Tab")
        if page.evaluate(f"(element => {condition})(document.activeElement)"):
            return
    raise AssertionError(f"the keyboard does not reach {condition}")


def test_the_keyboard_is_enough(visit, clip):
    here = visit()
    press_until(here.page, "element.getAttribute('role') === 'tab'")
    with here.page.expect_file_chooser() as chooser:
        press_until(
            here.page, "element.tagName === 'BUTTON' && /upload/i.test(element.textContent + element.ariaLabel)"
        )
        here.page.keyboard.press("Enter")
    chooser.value.set_files(clip)
    here.page.locator("audio").first.wait_for()
    press_until(here.page, "element.tagName === 'TEXTAREA'")
    here.page.keyboard.press("Control+A")
    here.page.keyboard.type("calm, tense")
    press_until(here.page, "element.id === 'ge-analyse'")
    here.page.keyboard.press("Enter")
    here.result.locator(".ge-answer").wait_for()
    assert here.result.locator(".ge-bars li").count() == 2


@pytest.mark.parametrize("width", [390, 768])
def test_a_phone_has_no_horizontal_scrolling(visit, tmp_path, width):
    clip = tmp_path / "voice.wav"
    soundfile.write(clip, np.tile(VOICE, 27), RATE)  # a minute
    here = visit(viewport={"width": width, "height": 844}, has_touch=True)
    here.upload(clip)
    here.page.wait_for_function("document.querySelector('audio').duration > 1")
    here.labels.fill(
        "an unusually long label that somebody has written, pneumonoultramicroscopicsilicovolcanoconiosis"
    )
    here.analyse()
    assert_fits(here.page, "#ge-result")
    for tab, button, place in (
        ("Compare two", "Compare", "#ge-comparison"),
        ("Search", f"Search {len(EXAMPLES)} recordings", "#ge-hits"),
    ):
        here.page.get_by_role("tab", name=tab).click()
        here.upload(clip)
        here.analyse(button, place)
        assert_fits(here.page, place)
    headers = here.page.locator("#ge-hits th").all()
    assert headers and all(header.bounding_box()["height"] < 40 for header in headers)  # one line each


def assert_fits(page, place):
    """The page is not wider than the window, and nothing of a result or a player lies outside."""
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    for part in page.locator(f":is({place}, audio)").locator("visible=true").all():
        box = part.bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= page.viewport_size["width"]


def test_every_field_has_a_name_and_headings_follow_each_other(visit, clip):
    here = visit()
    here.upload(clip)
    here.analyse()
    unnamed = here.page.evaluate(
        """() => [...document.querySelectorAll("button, input, textarea")].filter(each =>
            each.offsetParent && !(each.ariaLabel || each.textContent.trim() || each.labels?.length || each.title)
        ).map(each => each.outerHTML.slice(0, 200))"""
    )
    assert unnamed == []
    levels = [int(heading.evaluate("each => each.tagName[1]")) for heading in here.page.locator("h1, h2, h3").all()]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(levels, levels[1:], strict=False))
    assert here.page.evaluate("document.documentElement.lang") == "en"


def test_what_the_server_tells_and_keeps(visit, address, clip):
    here = visit()
    api = here.page.request.get(f"{address}gradio_api/info").json()
    assert api["named_endpoints"] == {} and api["unnamed_endpoints"] == {}
    assert here.page.request.get(f"{address}gradio_api/file={ROOT}/setup.cfg").status in (403, 404)
    assert "default-src 'self'" in here.page.request.get(address).headers["content-security-policy"]
    here.upload(clip)
    here.analyse()
    stored = "() => Promise.resolve(indexedDB.databases()).then(all => [all.length, Object.keys(localStorage)])"
    assert here.page.evaluate(stored) == [0, []]


def test_recordings_are_deleted(browser, clip, tmp_path):
    """After their time, and when the server ends."""
    with served("--kept-minutes", "0.05", temporary=tmp_path) as address:
        [folder] = tmp_path.glob("gemoclap-page-*")
        assert folder.stat().st_mode & 0o077 == 0
        page = browser.new_page()
        here = Visit(page, address)
        here.upload(clip)
        assert list(folder.rglob("voice.wav"))
        for _ in range(40):
            page.wait_for_timeout(250)
            if not list(folder.rglob("voice.wav")):
                break
        assert not list(folder.rglob("voice.wav"))
        here.page.locator("button[aria-label=Clear]").first.click()
        here.upload(clip)
        here.close()
    assert not list(tmp_path.glob("gemoclap-page-*"))
