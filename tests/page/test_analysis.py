"""The parts of the page without a browser: pitch, loudness, labels, files, drawing, deletion."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from html import escape
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from modeling_gemoclap.inference.loading import load_pipeline
from modeling_gemoclap.inference.predictions import Prediction
from modeling_gemoclap.page import app
from modeling_gemoclap.page.acoustics import FLOOR, contours, estimate_pitch
from modeling_gemoclap.page.analysis import Analysis, PageModel, parse_labels, read_recording
from modeling_gemoclap.page.app import EXAMPLES, PageOptions, delete_old_files, serve_page
from modeling_gemoclap.page.drawing import (
    COLOURS,
    _pitch_curve,
    colours_of,
    describe,
    draw_analysis,
    draw_comparison,
    draw_message,
)
from modeling_gemoclap.page.examples import EXAMPLES as VOICES
from modeling_gemoclap.page.examples import RATE, speak, write_examples
from modeling_gemoclap.page.tabs import PageContext, _with_messages
from modeling_gemoclap.recordings_gemoclap import AudioError

HOSTILE = "<img src=x onerror=\"alert('1')\">"
TIMES = np.linspace(0.2, 1.8, 40)


def harmonics(frequency, rate=RATE, numbers=range(1, 8)):
    time = np.arange(2 * rate) / rate
    return sum(np.sin(2 * np.pi * frequency * number * time) / number for number in numbers).astype(np.float32) / 3


@pytest.mark.parametrize("frequency", [70, 110, 220, 450])
@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
def test_the_pitch_of_harmonic_tones(frequency, rate):
    assert np.allclose(estimate_pitch(harmonics(frequency, rate), rate, TIMES), frequency, rtol=0.01)


def test_the_pitch_without_its_fundamental_as_on_the_telephone():
    assert np.allclose(estimate_pitch(harmonics(150, 8_000, range(3, 20)), 8_000, TIMES), 150, rtol=0.01)


def test_noise_and_silence_have_no_pitch():
    noise = np.random.default_rng(0).standard_normal(2 * RATE).astype(np.float32)
    assert np.isnan(estimate_pitch(noise, RATE, TIMES)).all()
    assert np.isnan(estimate_pitch(np.zeros(100, np.float32), RATE, np.array([0.001]))).all()


def test_loudness_is_that_of_full_scale():
    """A sine of full scale has -3 dBFS, digital silence the floor."""
    wave = np.concatenate([np.sin(2 * np.pi * 200 * np.arange(RATE) / RATE), np.zeros(RATE)]).astype(np.float32)
    found = contours(wave, RATE)
    assert np.allclose(found.loudness[:90], -3.01, atol=0.3) and (found.loudness[110:] == FLOOR).all()
    assert found.seconds == 2 and np.isnan(found.pitch[110:]).all() and np.allclose(found.highest[:90], 1, atol=0.05)


@pytest.mark.parametrize("samples", [1, 7, 400, 100_000])
def test_any_length_has_contours(samples):
    found = contours(np.ones(samples, np.float32), RATE)
    assert 1 <= len(found.pitch) == len(found.loudness) == len(found.lowest) <= 600


def test_labels():
    assert parse_labels("happy, sad\n\n  angry ") == ["happy", "sad", "angry"]
    for text, message in {
        "": "no labels",
        None: "no labels",
        "a": "two or more",
        "a,A": "twice",
        "a{},b": "braces",
        "fear,fearful": "score alike",
        ",".join(map(str, range(51))): "There are 51 labels: give at most 50",
        f"{'x' * 61},b": "longer than 60",
    }.items():
        with pytest.raises(ValueError, match=message):
            parse_labels(text)


def test_messages_about_files_do_not_contain_paths(tmp_path):
    (tmp_path / "text.wav").write_text("no audio")
    soundfile.write(tmp_path / "hours.flac", np.zeros(601 * 8_000, np.int16), 8_000)
    for name, message in {"text.wav": "not audio", "hours.flac": "10 minutes", "deleted.wav": "deleted"}.items():
        with pytest.raises(AudioError, match=message) as error:
            read_recording(str(tmp_path / name))
        assert str(tmp_path) not in str(error.value) and str(error.value).startswith("This recording")


def test_notes_say_what_makes_a_result_less_reliable():
    config = SimpleNamespace(
        emotions=["happy", "sad"], unknown_words=lambda words: [w for w in words if w == "weltschmerz"]
    )
    config.gender_class_prompts = lambda: [["a woman"], ["a man"]]
    model = PageModel(SimpleNamespace(model=SimpleNamespace(config=config)))
    assert model.predicts_gender and model._notes(["happy", "sad"], segments_of("sad", "sad"), 16_000) == []
    notes = " ".join(model._notes(["happy", "weltschmerz"], [], 8_000))
    for part in ("No speech was found", "8,000 Hz", "not calibrated", "not trained on these words"):
        assert part in notes
    differ = "The segments differ (sad 2, happy 1): look at the timeline."
    assert model._notes(["happy", "sad"], segments_of("sad", "happy", "sad"), 16_000)[0].startswith(differ)
    assert "d 1, and 2 more)" in model._notes(["happy", "sad"], segments_of(*"abcdef"), 16_000)[0]


def segments_of(*labels):
    return [
        SimpleNamespace(start=place, end=place + 0.5, label=label, score=0.5) for place, label in enumerate(labels)
    ]


def make_analysis(labels):
    scores = {label: 1 / (2 + place) for place, label in enumerate(labels)}
    prediction = Prediction(labels[0], 0.5, scores, gender=HOSTILE)
    return Analysis(prediction, segments_of(*labels), contours(harmonics(110), RATE), [HOSTILE])


def test_texts_are_escaped_wherever_they_stand():
    labels = [HOSTILE, "'\"><script>", "calm"]
    analysis = make_analysis(labels)
    for html in (draw_analysis(analysis, labels), draw_comparison(analysis, analysis, labels), draw_message(HOSTILE)):
        assert "<img" not in html and "<script" not in html and "&lt;img" in html
        assert 'onerror="' not in html and "onerror='" not in html


def test_the_notes_precede_the_answer_if_there_is_no_speech():
    analysis = make_analysis(["calm", "tense"])
    silent = Analysis(analysis.prediction, [], analysis.contours, ["No speech was found."])
    spoken, html = draw_analysis(analysis, ["calm", "tense"]), draw_analysis(silent, ["calm", "tense"])
    assert html.index("No speech was found") < html.index("Most likely") and "ge-weak" in html
    assert spoken.index("Most likely") < spoken.index("Note.") and "ge-weak" not in spoken
    assert "no speech was found" in draw_comparison(analysis, silent, ["calm", "tense"])


def test_narrow_segments_are_named_in_a_title_and_a_legend():
    analysis = make_analysis([HOSTILE, "calm"])
    html = draw_analysis(analysis, [HOSTILE, "calm", "unused"])
    assert 'title="1.0 to 1.5 s calm (50 %)"' in html and f'title="0.0 to 0.5 s {escape(HOSTILE)} (50 %)"' in html
    legend = html.split('class="ge-legend"')[1].split("</ul>")[0]
    assert "calm</li>" in legend and f"{escape(HOSTILE)}</li>" in legend and "unused" not in legend


def test_the_pitch_stays_within_its_lane():
    lines = replace(contours(harmonics(110), RATE), pitch=np.array([30.0, 60, 500, 900]))
    curve = _pitch_curve(lines).split('points="')[1].split('"')[0]
    heights = [float(point.split(",")[1]) for point in curve.split()]
    assert len(heights) == 4 and min(heights) > 0 and max(heights) < 100


def test_the_description_says_what_the_picture_shows():
    labels = [f"label {number}" for number in range(12)]
    text = describe(make_analysis(labels).segments, 12.0)
    assert text.startswith("Timeline of 12.0 s: 0.0 to 0.5 s label 0 (50 %);") and text.endswith(
        "4 more in the table."
    )
    assert describe([], 2.0) == "Timeline of 2.0 s without speech."


def luminance(colour):
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    parts = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


def test_black_text_is_readable_on_every_colour():
    assert all((luminance(colour) + 0.05) / 0.05 >= 4.5 for colour in COLOURS)
    assert colours_of(list("abcdefghij"))["j"] == COLOURS[0]


def test_old_files_are_deleted_and_examples_kept(tmp_path):
    (tmp_path / EXAMPLES).mkdir()
    paths = [*write_examples(tmp_path / EXAMPLES).values(), tmp_path / "a/old.wav", tmp_path / "b/new.wav"]
    for path in (tmp_path / "a", tmp_path / "b"):
        path.mkdir()
    for path in paths[-2:]:
        path.write_bytes(b"recording")
    for path in paths[:-1]:
        os.utime(path, (0, 0))
    delete_old_files(tmp_path, 60)
    assert {path.name for path in tmp_path.iterdir()} == {EXAMPLES, "a", "b"}
    assert not paths[-2].exists()
    os.utime(tmp_path / "a", (0, 0))
    delete_old_files(tmp_path, 60)
    assert not (tmp_path / "a").exists()
    assert paths[-1].exists() and len(list((tmp_path / EXAMPLES).iterdir())) == 2


def test_options_are_checked():
    with pytest.raises(ValueError, match="kept_minutes"):
        PageOptions(kept_minutes=0)


def test_warnings_about_a_file_are_notes_and_are_not_logged(tmp_path, capfd):
    """Also when the same file is analysed again."""
    path = tmp_path / "a.wav"
    voice = speak(next(iter(VOICES.values())))
    soundfile.write(path, np.stack([voice, -0.5 * voice], 1), RATE)
    model = PageModel(load_pipeline("compact"))
    for _ in range(2):
        notes = " ".join(model.analyse(str(path), model.labels).notes)
        assert "This recording: its channels cancel out" in notes and str(tmp_path) not in notes
    assert "cancel out" not in capfd.readouterr().err


def test_the_server_limits_its_memory(monkeypatch):
    """Two arenas before its threads start, and free memory is returned after each pass over the files."""
    calls = []
    for name in (
        "GRADIO_ANALYTICS_ENABLED",
        "GRADIO_ANALYTICS_MAX_EVENTS",
        "HF_HUB_DISABLE_TELEMETRY",
        "GRADIO_TEMP_DIR",
    ):
        monkeypatch.setenv(name, "")  # it is restored at the end
    page = SimpleNamespace(local_url="http://x", launch=lambda **_: calls.append("launch"), close=lambda **_: None)
    monkeypatch.setattr(app.signal, "signal", lambda *_: None)
    monkeypatch.setattr(app, "build_page", lambda *_: page)
    monkeypatch.setattr(app, "_launch_options", lambda _: {})
    monkeypatch.setattr(app, "limit_arenas", lambda: calls.append("limit_arenas"))
    monkeypatch.setattr(app, "return_free_memory", lambda: calls.append("return_free_memory"))

    def sleep(seconds):
        if "return_free_memory" in calls:
            raise KeyboardInterrupt

    monkeypatch.setattr(app.time, "sleep", sleep)
    serve_page(PageOptions())
    assert calls == ["limit_arenas", "launch", "return_free_memory"]
    assert os.environ["GRADIO_ANALYTICS_MAX_EVENTS"] == "100"


def test_the_model_runs_in_one_thread():
    """Whatever thread of the server asks."""
    context = PageContext(model=None, examples={})
    run = _with_messages(context, lambda: threading.current_thread().name)
    with ThreadPoolExecutor(4) as server:
        assert {each.result() for each in [server.submit(run) for _ in range(20)]} == {"model_0"}
