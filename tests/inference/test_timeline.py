"""Timelines of long recordings: equal for every batch size and chunking, bounded memory, smoothing, bad input."""

import io
import os
import struct
import subprocess
import threading

import numpy as np
import pytest
import soundfile
from conftest import TONES, tone
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling_gemoclap import NONE_OF_THESE, AudioError, EmotionStream, GEmoClap, Segment, TimelineOptions
from modeling_gemoclap.audio_files_gemoclap import find_ffmpeg
from modeling_gemoclap.feature_extraction_gemoclap import GEmoClapFeatureExtractor
from modeling_gemoclap.inference.loading import load_pipeline
from modeling_gemoclap.inference.segments import MAX_WINDOW
from modeling_gemoclap.inference.streaming import files
from modeling_gemoclap.inference.streaming.files import is_longer, open_recording
from modeling_gemoclap.inference.streaming.scoring import TimelineEngine, default_window
from modeling_gemoclap.inference.streaming.signal import ChannelMixer
from modeling_gemoclap.inference.streaming.smoothing import Smoother
from modeling_gemoclap.inference.streaming.waves import waves
from modeling_gemoclap.inference.streaming.windows import RegionEnd, SpeechWindows, Window
from modeling_gemoclap.inference.timeline import timeline
from modeling_gemoclap.training_clips import load_training_clips

RATE = 16_000
QUICK = {"vad": "level", "window": 1.0, "step": 0.25}


@pytest.fixture(scope="module")
def pipe():
    return load_pipeline("compact")


def bursts(*durations: float, rate: int = RATE, seed: int = 0) -> np.ndarray:
    """Tones of these durations with a second of room tone before, between and after."""
    rng = np.random.default_rng(seed)
    parts = [np.zeros(RATE)]
    for number, duration in enumerate(durations):
        parts += [tone(list(TONES)[number % len(TONES)], number, duration), np.zeros(RATE)]
    wave = np.concatenate(parts) + 1e-4 * rng.standard_normal(sum(map(len, parts)))
    if rate != RATE:
        import soxr

        wave = soxr.resample(wave, RATE, rate)
    return wave.astype(np.float32)


RECORDING = bursts(2.3, 0.6, 3.1, 1.0)


def streamed(pipe, wave, rate, size, **options):
    stream, found = EmotionStream(pipe, **options), []
    for start in range(0, wave.shape[-1], size):
        found += stream.push(wave[..., start : start + size], rate)
    return found + stream.finish()


def assert_same(found, expected):
    borders = [[(segment.start, segment.end, segment.label) for segment in each] for each in (found, expected)]
    assert borders[0] == borders[1] and expected
    for one, other in zip(found, expected, strict=True):
        assert one.scores == pytest.approx(other.scores, abs=1e-5)


def test_segments_lie_where_the_sound_is(pipe):
    segments = list(timeline(pipe, (RECORDING, RATE), TimelineOptions(**QUICK)))
    speech = [(1.0, 3.3), (4.3, 4.9), (5.9, 9.0), (10.0, 11.0)]
    for start, end in speech:
        inside = [segment for segment in segments if start - 0.2 < segment.start and segment.end < end + 0.2]
        assert inside[0].start == pytest.approx(start, abs=0.2) and inside[-1].end == pytest.approx(end, abs=0.2)
        assert all(one.end == other.start for one, other in zip(inside, inside[1:], strict=False))
    for segment in segments:
        assert isinstance(segment, Segment) and segment.speaker is None
        assert sum(segment.scores.values()) == pytest.approx(1, abs=1e-5)
        assert segment.score == segment.scores[segment.label] and set(segment.scores) == set(
            pipe.model.config.emotions
        )


@pytest.mark.parametrize("size", [33, 512, 4000, RATE, 10**9])
def test_a_stream_gives_the_timeline(pipe, size):
    expected = list(timeline(pipe, (RECORDING, RATE), TimelineOptions(**QUICK)))
    assert_same(streamed(pipe, RECORDING, RATE, size, **QUICK), expected)


@pytest.mark.parametrize("rate, channels", [(44_100, 2), (8_000, 1), (48_000, 3)])
def test_a_stream_at_another_rate_gives_the_timeline(pipe, tmp_path, rate, channels):
    wave = np.stack([gain * bursts(2.3, 0.6, rate=rate) for gain in (1.0, 0.5, 0.2)[:channels]])
    soundfile.write(tmp_path / "a.wav", wave.T, rate, subtype="FLOAT")
    expected = list(timeline(pipe, tmp_path / "a.wav", TimelineOptions(**QUICK)))
    for size in (977, 60_000):
        assert_same(streamed(pipe, wave, rate, size, **QUICK), expected)


@settings(deadline=None, max_examples=10)
@given(st.lists(st.integers(0, 30_000), min_size=1, max_size=12))
def test_any_chunking_gives_the_timeline(sizes):
    pipe = _compact()
    stream, found, start = EmotionStream(pipe, **QUICK), [], 0
    for size in [*sizes, len(RECORDING)]:
        found += stream.push(RECORDING[start : start + size], RATE)
        start += size
    assert_same(found + stream.finish(), _expected())


_CACHE: dict = {}


def _compact():
    if "pipe" not in _CACHE:
        _CACHE["pipe"] = load_pipeline("compact")
    return _CACHE["pipe"]


def _expected():
    if "expected" not in _CACHE:
        _CACHE["expected"] = list(timeline(_compact(), (RECORDING, RATE), TimelineOptions(**QUICK)))
    return _CACHE["expected"]


@pytest.mark.parametrize("size", [1, 3, 64])
def test_batches_do_not_change_the_timeline(pipe, size):
    expected = list(timeline(pipe, (RECORDING, RATE), TimelineOptions(**QUICK)))
    assert_same(list(timeline(pipe, (RECORDING, RATE), TimelineOptions(**QUICK, batch_size=size))), expected)


def test_silero_and_a_stream_agree(corpora, pipe):
    clips = [soundfile.read(path, dtype="float32")[0] for path in sorted((corpora / "emodb/audio").iterdir())[:4]]
    wave = np.concatenate([part for clip in clips for part in (clip, np.zeros(RATE, np.float32))])
    options = {"vad": "silero", "window": 2.0}
    expected = list(timeline(pipe, (wave, RATE), TimelineOptions(**options)))
    assert len(expected) >= 4
    assert_same(streamed(pipe, wave, RATE, 999, **options), expected)


def test_the_engine_keeps_only_what_it_needs(pipe):
    """Ten minutes of speech without a pause, in blocks of a second."""
    windows = SpeechWindows(TimelineOptions(**QUICK), RATE, RATE, RATE // 4)
    rng, longest, count = np.random.default_rng(0), 0, 0
    syllables = np.where(np.arange(RATE) % (RATE // 2) < RATE // 10, 1e-4, 0.1).astype(np.float32)
    for _ in range(600):
        wave = syllables * rng.standard_normal(RATE, np.float32)
        count += sum(isinstance(item, Window) for item in windows.feed(wave))
        longest = max(longest, len(windows._wave))
    assert longest < 4 * RATE and 2300 < count < 2400


class FirstSample:
    """A detector for which the first sample of a frame is the probability."""

    first_frames = 1

    def __init__(self, frame):
        self.frame = frame

    def __call__(self, frames):
        return frames[:, 0].tolist()


def test_a_hum_between_the_thresholds_fills_no_memory(monkeypatch):
    windows = SpeechWindows(TimelineOptions(**QUICK), RATE, RATE, RATE // 4)
    frame = windows.detector.frame
    monkeypatch.setattr(
        windows, "detector", lambda block: [0.0 if block[0, 0] == 2 else float(row[0]) for row in block]
    )
    windows.detector.frame, windows.detector.first_frames = frame, 1
    click = np.repeat(np.float32([1.0, 1.0, 0.0]), frame)
    longest = 0
    for wave in (click, *[np.full(RATE, 0.4, np.float32)] * 300):
        list(windows.feed(wave))
        longest = max(longest, len(windows._wave))
    assert longest < 4 * RATE


def test_a_long_file_is_read_in_blocks(tmp_path):
    """The samples of all formats equal those of `read_audio`, and no block is long."""
    wave = np.stack([bursts(2.0, 1.0, rate=44_100), 0.5 * bursts(2.0, 1.0, rate=44_100)], 1)
    wave = np.concatenate([wave] * 3)
    extractor = GEmoClapFeatureExtractor(feature_type="log_mel")
    for suffix in ("wav", "flac", "ogg", "mp3", "aiff"):
        path = tmp_path / f"a.{suffix}"
        soundfile.write(path, wave, 44_100)
        blocks = list(waves(path, RATE, None))
        expected = extractor.load(path)
        assert max(map(len, blocks)) < 3 * RATE and len(blocks) > 4
        found = np.concatenate(blocks)
        assert abs(len(found) - len(expected)) <= 1
        size = min(len(found), len(expected))
        np.testing.assert_allclose(found[:size], expected[:size], atol=2e-4)


@pytest.mark.parametrize("size", [0, 2**31 - 4096, 100_000])
def test_a_wrong_size_in_a_header_is_corrected_while_reading(tmp_path, size, monkeypatch):
    """As programs write it that do not know the size yet, or in a file that was cut by its header only."""
    path = tmp_path / "a.wav"
    soundfile.write(path, np.concatenate([RECORDING] * 3), RATE)
    content = bytearray(path.read_bytes())
    struct.pack_into("<I", content, content.index(b"data") + 4, size)
    path.write_bytes(content)
    expected = GEmoClapFeatureExtractor(feature_type="log_mel").load(path)
    monkeypatch.setattr(files, "MAX_IN_MEMORY", 0)
    np.testing.assert_array_equal(np.concatenate(list(waves(path, RATE, None))), expected)
    assert len(expected) == 3 * len(RECORDING)


def test_the_smoothing_rule():
    """Worked by hand: cells of 1 s, windows of 2 s."""
    smoother, found = Smoother(["a", "b"], rate=1, step=1, hysteresis=0.1), []
    for start, score in ((0, 0.9), (1, 0.5), (2, 0.45), (3, 0.0)):
        found += smoother.add(Window(0, start, start + 2, np.zeros(2)), {"a": score, "b": 1 - score})
    assert found == [] and smoother.current.label == "a"
    found += smoother.end(RegionEnd(0, 5))
    # cells: 0.9, 0.7, 0.475, 0.225, 0.0: the third leads by only 0.05, the fourth by 0.55
    assert [(segment.start, segment.end, segment.label) for segment in found] == [(0, 3, "a"), (3, 5, "b")]
    assert found[0].scores == pytest.approx({"a": (0.9 + 0.7 + 0.475) / 3, "b": (0.1 + 0.3 + 0.525) / 3})
    assert found[1].score == pytest.approx((0.775 + 1.0) / 2) and smoother.current is None


def test_a_window_that_cannot_be_used_leaves_a_gap():
    smoother = Smoother(["a"], rate=1, step=1, hysteresis=0.1)
    windows = [Window(0, start, start + 1, np.zeros(1)) for start in range(3)]
    found = [
        segment
        for window, scores in zip(windows, ({"a": 1.0}, None, {"a": 1.0}), strict=True)
        for segment in smoother.add(window, scores)
    ]
    found += smoother.end(RegionEnd(0, 3))
    assert [(segment.start, segment.end) for segment in found] == [(0, 1), (2, 3)]


def test_default_windows(pipe, tmp_path, monkeypatch, caplog):
    """The median length of the training clips, where the checkpoint holds it, also from another folder."""
    folder = os.path.relpath(pipe.model.name_or_path)
    seconds = load_training_clips(folder).range_of("seconds")[1]
    loaded = load_pipeline(folder)
    monkeypatch.chdir(tmp_path)
    assert default_window(loaded) == default_window(pipe) == pytest.approx(seconds, abs=0.05) != 3.0
    assert TimelineEngine(pipe, TimelineOptions()).window == default_window(pipe)
    pipe.model.save_pretrained(tmp_path)
    pipe.processor.save_pretrained(tmp_path)
    assert default_window(load_pipeline(tmp_path)) == 3.0
    (tmp_path / "training_clips.safetensors").write_bytes(b"damaged")
    assert default_window(load_pipeline(tmp_path)) == 3.0
    assert "the length of the training clips is unknown" in caplog.text


def test_a_file_that_is_too_large_to_check_counts_as_longer(tmp_path, monkeypatch):
    soundfile.write(tmp_path / "a.ogg", RECORDING, RATE)
    assert not is_longer(tmp_path / "a.ogg", 60) and is_longer(tmp_path / "a.ogg", 5)
    monkeypatch.setattr(files, "MAX_IN_MEMORY", 100)
    assert is_longer(tmp_path / "a.ogg", 60)


def test_segments_below_a_threshold_are_none_of_these(pipe):
    expected = list(timeline(pipe, (RECORDING, RATE), TimelineOptions(**QUICK)))
    threshold = sorted(segment.score for segment in expected)[len(expected) // 2]
    found = list(timeline(pipe, (RECORDING, RATE), TimelineOptions(**QUICK, reject_below=threshold)))
    assert [segment.best_label for segment in found] == [segment.label for segment in expected]
    assert [segment.rejected for segment in found] == [segment.score < threshold for segment in expected]
    assert {segment.label for segment in found if segment.rejected} == {NONE_OF_THESE}
    assert_same(streamed(pipe, RECORDING, RATE, 999, **QUICK, reject_below=threshold), found)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"threshold": 1.5}, "threshold=1.5 must be a number above 0 and below 1"),
        ({"threshold": True}, "threshold=True"),
        ({"neg_threshold": 0.9}, "neg_threshold=0.9 must be a number from 0 to 0.5"),
        ({"min_speech_duration_ms": -1}, "min_speech_duration_ms=-1"),
        ({"speech_pad_ms": 900}, "speech_pad_ms=900 must be at most min_silence_duration_ms=500"),
        ({"window": float("nan")}, "window=nan"),
        ({"window": MAX_WINDOW + 1}, "window=61"),
        ({"window": 1.0, "step": 2.0}, "step=2.0 must be a number from 0.01 to 1"),
        ({"hysteresis": 2}, "hysteresis=2"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"reject_below": 1.5}, "reject_below 1.5: give a number above 0 and below 1"),
        ({"vad": "webrtc"}, "vad='webrtc' is unknown; choose from auto, silero, level"),
        ({"labels": ["calm"]}, "candidate_labels"),
        ({"step": 50.0}, "step=50 must be at most window=2"),
    ],
)
def test_invalid_options(pipe, options, message):
    with pytest.raises(ValueError, match=message):
        EmotionStream(pipe, **options)


# ---- bad input ------------------------------------------------------------------------------------------------------
def test_no_speech_is_an_empty_timeline(pipe, tmp_path):
    soundfile.write(tmp_path / "room.wav", 1e-4 * np.random.default_rng(0).standard_normal(5 * RATE), RATE)
    soundfile.write(tmp_path / "silent.wav", np.zeros(5 * RATE), RATE)
    for vad in ("level", "silero"):
        for name in ("room.wav", "silent.wav"):
            assert list(timeline(pipe, tmp_path / name, TimelineOptions(vad=vad))) == []


def test_room_tone_is_no_speech(pipe):
    rng = np.random.default_rng(0)
    for vad in ("level", "silero"):
        noise = 10 ** (-45 / 20) * rng.standard_normal(40 * RATE)
        assert list(timeline(pipe, (noise.astype(np.float32), RATE), TimelineOptions(vad=vad))) == []


def test_clipped_and_telephone_sound(pipe, tmp_path):
    soundfile.write(tmp_path / "clipped.wav", np.clip(30 * RECORDING, -1, 1), RATE)
    soundfile.write(tmp_path / "telephone.wav", bursts(2.3, 0.6, rate=8000), 8000, subtype="ULAW")
    for name in ("clipped.wav", "telephone.wav"):
        assert list(timeline(pipe, tmp_path / name, TimelineOptions(**QUICK)))


def test_opposite_phases_are_reported_and_the_louder_channel_is_taken(pipe, tmp_path, caplog):
    soundfile.write(tmp_path / "a.wav", np.stack([0.5 * RECORDING, -RECORDING], 1), RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "b.wav", RECORDING, RATE, subtype="FLOAT")
    found = list(timeline(pipe, tmp_path / "a.wav", TimelineOptions(**QUICK)))
    assert "a.wav: its channels cancel out" in caplog.text and "channel 2 of 2" in caplog.text
    expected = list(timeline(pipe, tmp_path / "b.wav", TimelineOptions(**QUICK)))
    for one, other in zip(found, expected, strict=True):
        assert (one.start, one.end) == pytest.approx((other.start, other.end), abs=0.1)


def mixed(mixer, wave):
    return np.concatenate([mixer(wave[start : start + 1600]) for start in range(0, len(wave), 1600)])


def test_channels_are_averaged_unless_they_cancel_out_just_now():
    rng = np.random.default_rng(0)
    left, right = rng.standard_normal((2, 10 * RATE))
    independent = np.stack([left, right], 1)
    np.testing.assert_allclose(mixed(ChannelMixer("x"), independent), independent.mean(1))
    quiet = independent.copy()
    quiet[:1600, 1] = -quiet[:1600, 0]
    quiet[:1600] *= 1e-4  # what a quiet beginning is like says nothing about the rest
    np.testing.assert_allclose(mixed(ChannelMixer("x"), quiet), quiet.mean(1))
    turning = np.stack([left, 0.5 * left], 1)
    turning[3 * RATE : 6 * RATE, 1] *= -1
    wave = mixed(ChannelMixer("x"), turning)
    np.testing.assert_allclose(wave[: 3 * RATE], turning[: 3 * RATE].mean(1))
    np.testing.assert_allclose(wave[5 * RATE : 6 * RATE], left[5 * RATE : 6 * RATE])
    np.testing.assert_allclose(wave[9 * RATE :], turning[9 * RATE :].mean(1))


def test_every_type_of_one_recording_gives_the_same_timeline(pipe, tmp_path):
    """Two speakers on two channels, whose first 0.1 s have opposite phases."""
    wave = np.stack([RECORDING, np.roll(RECORDING, 3 * RATE)], 1)
    wave[:1600, 1] = -wave[:1600, 0]
    path = tmp_path / "a.flac"
    soundfile.write(path, wave, RATE, subtype="PCM_24")
    wave = soundfile.read(path, dtype="float32")[0]
    expected = list(timeline(pipe, path, TimelineOptions(**QUICK)))
    content = path.read_bytes()
    with open(path, "rb") as file:
        for source in (
            (RATE, wave),
            {"array": wave.T, "sampling_rate": RATE},
            content,
            {"bytes": content, "path": None},
            {"path": str(path)},
            io.BytesIO(content),
            file,
        ):
            assert_same(list(timeline(pipe, source, TimelineOptions(**QUICK))), expected)
    assert_same(streamed(pipe, wave.T, RATE, 777, **QUICK), expected)
    with pytest.raises(AudioError, match=r"open it with open\(path, 'rb'\)"):
        list(timeline(pipe, io.StringIO("text"), TimelineOptions(**QUICK)))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_named_pipe(pipe, tmp_path):
    soundfile.write(tmp_path / "a.wav", RECORDING, RATE)
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=lambda: (tmp_path / "pipe").write_bytes((tmp_path / "a.wav").read_bytes()))
    writer.start()
    found = list(timeline(pipe, tmp_path / "pipe", TimelineOptions(**QUICK)))
    writer.join()
    assert_same(found, list(timeline(pipe, tmp_path / "a.wav", TimelineOptions(**QUICK))))


@pytest.mark.parametrize("size", [1, 16, 33])
@pytest.mark.parametrize("axis", [0, 1])
def test_short_chunks_of_two_channels(pipe, size, axis):
    """The first chunk, or the option, says which axis has the channels; later chunks may be of any shape."""
    wave = (
        np.stack([RECORDING, 0.5 * RECORDING], axis)[..., : 2 * RATE]
        if axis == 0
        else np.stack([RECORDING, 0.5 * RECORDING], 1)[: 2 * RATE]
    )
    long, short = np.split(wave, [int(1.9 * RATE)], axis=1 - axis)
    stream = EmotionStream(pipe, **QUICK)
    stream.push(long, RATE)
    for start in range(0, short.shape[1 - axis], size):
        stream.push(np.take(short, range(start, min(start + size, short.shape[1 - axis])), axis=1 - axis), RATE)
    stream.finish()
    assert stream.position == pytest.approx(2.0)
    first = np.take(wave, range(16), axis=1 - axis)
    with pytest.raises(AudioError, match="give channel_axis=0 or 1"):
        EmotionStream(pipe, **QUICK).push(first, RATE)
    told = EmotionStream(pipe, channel_axis=axis, **QUICK)
    told.push(first, RATE)
    told.finish()
    assert told.position == pytest.approx(16 / RATE)


@pytest.mark.skipif(find_ffmpeg() is None, reason="needs ffmpeg")
def test_video(pipe, tmp_path):
    soundfile.write(tmp_path / "a.wav", RECORDING, RATE)
    ffmpeg = [find_ffmpeg(), "-v", "error", "-y"]
    picture = ["-f", "lavfi", "-i", "color=c=red:s=32x32:d=20"]
    make = {"film.mp4": [*picture, "-i", "a.wav", "-shortest"], "mute.mp4": picture, "sound.m4a": ["-i", "a.wav"]}
    for name, words in make.items():
        subprocess.run([*ffmpeg, *words, name], cwd=tmp_path, check=True)
    expected = list(timeline(pipe, tmp_path / "a.wav", TimelineOptions(**QUICK)))
    for name in ("film.mp4", "sound.m4a"):
        found = list(timeline(pipe, tmp_path / name, TimelineOptions(**QUICK)))
        assert found[0].start == pytest.approx(expected[0].start, abs=0.2)
        assert found[-1].end == pytest.approx(expected[-1].end, abs=0.2)
    with pytest.raises(AudioError, match="mute.mp4: it has no audio track"):
        list(timeline(pipe, tmp_path / "mute.mp4", TimelineOptions(**QUICK)))
    content = (tmp_path / "sound.m4a").read_bytes()
    (tmp_path / "cut.m4a").write_bytes(content[: len(content) // 2])
    with pytest.raises(AudioError, match="cut.m4a: truncated"):
        list(timeline(pipe, tmp_path / "cut.m4a", TimelineOptions(**QUICK)))


def test_a_file_that_grows_or_changes(tmp_path, caplog):
    path = tmp_path / "a.wav"

    def read(change):
        soundfile.write(path, np.concatenate([RECORDING] * 3), RATE)
        blocks = open_recording(path).blocks
        count = len(next(blocks))
        change()
        return count + sum(map(len, blocks))

    def grow():
        with open(path, "ab") as file:
            file.write(bytes(64_000))

    def change():
        os.utime(path, ns=(1, 1))

    assert read(grow) == 3 * len(RECORDING)
    assert "the file grew while it was read" in caplog.text
    with pytest.raises(AudioError, match="a.wav: the file changed while it was read"):
        read(change)


def test_a_damaged_file_gives_what_came_before(pipe, tmp_path):
    wave = np.concatenate([RECORDING] * 4)
    soundfile.write(tmp_path / "a.flac", wave, RATE)
    content = bytearray((tmp_path / "a.flac").read_bytes())
    del content[len(content) // 2 :]
    (tmp_path / "a.flac").write_bytes(content)
    found = []
    with pytest.raises(AudioError, match="a.flac: truncated"):
        for segment in timeline(pipe, tmp_path / "a.flac", TimelineOptions(**QUICK, batch_size=1)):
            found.append(segment)
    assert found


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("empty.wav", b"", "the file is empty"),
        ("notes.txt", b"hello" * 100, "not audio that can be read"),
        ("pointer.wav", b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        ("missing.wav", None, "no such file"),
    ],
)
def test_files_that_are_no_recordings(pipe, tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(AudioError, match=f"{name}: .*{message}"):
        list(timeline(pipe, tmp_path / name, TimelineOptions(**QUICK)))


def test_a_bad_chunk_changes_nothing(pipe):
    expected = list(timeline(pipe, (RECORDING, RATE), TimelineOptions(**QUICK)))
    stream = EmotionStream(pipe, **QUICK)
    first, second = np.array_split(RECORDING, 2)
    found = stream.push(first, RATE)
    for bad, rate in ((first * np.nan, RATE), (first, 8_000), (np.stack([first, first]), RATE), (["x"], RATE)):
        with pytest.raises(AudioError):
            stream.push(bad, rate)
    assert stream.push(np.zeros(0), RATE) == []
    assert_same(found + stream.push(second, RATE) + stream.finish(), expected)
    assert stream.finish() == []
    with pytest.raises(ValueError, match="the stream is finished"):
        stream.push(RECORDING, RATE)


def test_a_hundred_labels(pipe):
    base = load_pipeline("base")
    labels = [f"word {number}" for number in range(100)]
    wave = bursts(1.0)
    [segment, *_] = timeline(base, (wave, RATE), TimelineOptions(labels=labels, vad="level"))
    assert list(segment.scores) != labels and set(segment.scores) == set(labels)


def test_the_estimator_gives_the_same(pipe):
    model = GEmoClap.from_pretrained("compact")
    expected = list(timeline(pipe, (RECORDING, RATE), TimelineOptions(**QUICK)))
    assert_same(list(model.timeline((RECORDING, RATE), **QUICK)), expected)
    assert_same(streamed(model, RECORDING, RATE, 5000, **QUICK), expected)
    with pytest.raises(ValueError, match="give options, or vad"):
        model.timeline((RECORDING, RATE), options=TimelineOptions(), vad="level")
    with pytest.raises(ValueError, match="not fitted"):
        EmotionStream(GEmoClap())
