"""The page in a real browser, against the real server: what a person does with it."""

import numpy as np
import pytest
import soundfile
from browser import CHROMIUM, FLAGS, MICROPHONE, SECONDS, require_chromium, served
from conftest import ROOT

from modeling_gemoclap.page.examples import EXAMPLES, RATE, speak

pytest.importorskip("gradio")
playwright = pytest.importorskip("playwright.sync_api")

VOICE = speak(next(iter(EXAMPLES.values())))
HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    require_chromium()
    with served(temporary=tmp_path_factory.mktemp("server")) as address:
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
        panel.get_by_role("button", name="Play").nth(place).wait_for()

    def analyse(self):
        """Press the button; the text of the result."""
        before = self.result.inner_text()
        self.page.get_by_role("button", name="Analyse").click()
        self.page.wait_for_function(
            "before => document.querySelector('#ge-result').innerText !== before && "
            "document.querySelector('#ge-result .ge-answer, #ge-result .ge-message')",
            arg=before,
        )
        return self.result.inner_text()

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
    here.page.get_by_label("Labels", exact=True).fill("cheerful, gloomy\ntense")
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
    here.page.wait_for_timeout(1800)
    here.page.get_by_role("button", name="Stop", exact=True).first.click()
    here.page.get_by_role("button", name="Play").first.wait_for()
    assert "Most likely label:" in here.analyse()


def unusable(folder):
    """Files that cannot be analysed, by a part of the message."""
    (folder / "broken.wav").write_bytes(b"RIFF\x24\x00\x00\x00WAVEfmt nothing")
    soundfile.write(folder / "silent.wav", np.zeros(RATE), RATE)
    soundfile.write(folder / "hours.flac", np.zeros(RATE * 601, np.int16), RATE)
    return {"broken.wav": "No result.", "silent.wav": "silen", "hours.flac": "longer than 10 minutes"}


def test_a_bad_file_gives_a_message_and_the_page_lives_on(visit, clip, tmp_path):
    here = visit()
    for name, message in unusable(tmp_path).items():
        panel = here.page.locator("[role=tabpanel]:visible")
        panel.locator("input[type=file]").first.set_input_files(tmp_path / name)
        here.page.wait_for_function("document.querySelector('[aria-label=Clear]') !== null")
        text = here.analyse()
        assert message in text and str(tmp_path) not in text and "gemoclap-page" not in text, text
        here.page.get_by_role("button", name="Clear").first.click()
    here.upload(clip)
    assert "Most likely label:" in here.analyse()
