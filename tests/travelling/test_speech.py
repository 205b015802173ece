"""Silence at the ends of a clip has no influence, and neither has its level, if the extractor is told so."""

import math

import numpy as np
import pytest
import soundfile
import torch
from conftest import RATE, ROOT, write_corpus
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling_gemoclap import AudioError, GEmoClapFeatureExtractor, GEmoClapForXVector, GEmoClapModel
from modeling_gemoclap.corpora.manifest import load_corpora, load_corpus
from modeling_gemoclap.speech_gemoclap import set_level, speech_span, trim_silence
from modeling_gemoclap.training.arguments import DataArguments, GEmoClapTrainingArguments
from modeling_gemoclap.training.clips import _cache_file, read_parts

FRAME = 320  # samples
COMPACT = ROOT / "checkpoints/gemoclap-compact"


def frames(*levels_db):
    """A tone whose frames of 20 ms have these levels (root mean square) in dBFS."""
    tone = 2**0.5 * np.sin(2 * np.pi * 1000 * np.arange(FRAME) / RATE)
    return np.outer(10 ** (np.asarray(levels_db) / 20), tone).astype(np.float32).ravel()


def span(*levels_db):
    start, end = speech_span(frames(*levels_db), RATE)
    return start / FRAME, end / FRAME


# ---- the rule, by hand ---------------------------------------------------------------------------------------------
def test_the_rule_by_hand():
    # 20 frames at 0 dB after 30 frames of silence. The mean over 5 frames spreads them by 2 frames on each side; there
    # it is 10 log10(1/5) = -7 dB, far above the threshold of -30 dB. 5 frames of margin follow.
    assert span(*[-100] * 30, *[0] * 20, *[-100] * 40) == (30 - 2 - 5, 50 + 2 + 5)
    # Speech at -28.5 dB is above the threshold, at -31 dB it is not. Three of five frames at -28.5 dB are -30.7 dB,
    # four are -29.5 dB.
    assert span(*[-100] * 30, *[-28.5] * 20, *[0] * 20, *[-100] * 30)[0] == 30 + 1 - 5
    assert span(*[-100] * 30, *[-31] * 20, *[0] * 20, *[-100] * 30)[0] == 50 - 2 - 5
    # A noise floor of -35 dB raises the threshold to -26 dB: -27 dB is noise, -25 dB is speech.
    assert span(*[-35] * 30, *[-27] * 20, *[0] * 20, *[-35] * 30)[0] == 50 - 2 - 5
    assert span(*[-35] * 30, *[-25] * 20, *[0] * 20, *[-35] * 30)[0] == 30 + 1 - 5
    # A floor of -25 dB would raise it to -16 dB: it is at most 20 dB below the peak.
    assert span(*[-25] * 30, *[-19] * 20, *[0] * 20, *[-25] * 30)[0] == 30 + 1 - 5


def test_the_ends_of_a_recording():
    assert span(*[0] * 20) == (0, 20) and span(*[-100] * 3, *[0] * 20) == (0, 23)
    wave = np.concatenate([frames(*[0] * 20), frames(-3)[:100]])
    assert speech_span(wave, RATE) == (0, len(wave))  # with the incomplete last frame
    assert speech_span(np.zeros(5 * FRAME, np.float32), RATE) == (0, 5 * FRAME)  # digital silence
    assert speech_span(wave[:100], RATE) == (0, 100) and speech_span(wave[:0], RATE) == (0, 0)
    assert speech_span(np.ones(10, np.float32), 20) == (0, 10)  # a frame has no sample
    assert speech_span(frames(*[-100] * 30, 0, *[-100] * 30), 8000) == (53 * 160, 69 * 160)


@settings(max_examples=50, deadline=None)
@given(
    before=st.integers(0, 100),
    after=st.integers(0, 100),
    noise=st.floats(-90, -45),
    levels=st.lists(st.floats(-25, 0), min_size=6, max_size=40),
)
def test_frames_of_room_tone_change_nothing(before, after, noise, levels):
    """The clip has room tone of its own, and more of it is added."""
    speech = [*[noise] * 8, *levels, 0, *[noise] * 8]
    expected = trim_silence(frames(*speech), RATE)
    trimmed = trim_silence(frames(*[noise] * before, *speech, *[noise] * after), RATE)
    assert np.array_equal(trimmed, expected)
    assert np.array_equal(trim_silence(trimmed, RATE), trimmed)  # nothing is left to trim


# ---- real recordings -----------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def recordings(corpora):
    """Some clips of each corpus."""
    waves = {}
    for name in ("emodb", "ravdess", "nemo"):
        if not (corpora / name).is_dir():
            pytest.skip(f"{corpora / name} is missing")
        paths = load_corpus(corpora / name).column("path").to_pylist()
        chosen = np.random.default_rng(0).permutation(len(paths))[:40]
        waves[name] = [GEmoClapFeatureExtractor(do_normalize=False).load(paths[index]) for index in chosen]
    return waves


def power(wave, size):
    """Mean power of each `size` consecutive samples."""
    total = np.cumsum(np.r_[0, np.square(wave, dtype=np.float64)])
    return (total[size:] - total[:-size]) / size


def room_tone(wave, below_peak, shaped, rng):
    """A second of noise, as far below the loudest 0.1 s; shaped as the quietest 0.2 s of the clip."""
    noise = rng.standard_normal(RATE)
    if shaped:
        quiet = wave[power(wave, RATE // 5).argmin() :][: RATE // 5]
        spectrum = np.abs(np.fft.rfft(quiet - quiet.mean()))
        phases = np.exp(2j * np.pi * rng.random((5, len(spectrum))))
        noise = np.fft.irfft(spectrum * phases, RATE // 5).ravel()
    return (noise / noise.std() * power(wave, RATE // 10).max() ** 0.5 * 10 ** (-below_peak / 20)).astype(np.float32)


def with_tone(recordings, name, index, below_peak, place, seed):
    """A clip, and the clip with a second of room tone before it, after it or both."""
    wave, rng = recordings[name][index], np.random.default_rng(seed)
    before, after = (room_tone(wave, db, name == "nemo", rng) for db in below_peak)
    parts = {"before": [before, wave], "after": [wave, after], "both": [before, wave, after]}[place]
    return wave, np.concatenate(parts), 0 if place == "after" else RATE


CASES = {
    "name": st.sampled_from(["emodb", "ravdess", "nemo"]),
    "index": st.integers(0, 39),
    "below_peak": st.tuples(st.floats(35, 60), st.floats(35, 60)),
    "place": st.sampled_from(["before", "after", "both"]),
    "seed": st.integers(0, 99),
}


@settings(max_examples=60, deadline=None, derandomize=True)
@given(**CASES)
def test_room_tone_is_cut_from_recordings(recordings, **case):
    """Of 600 clips, 95 % moved by at most 7 frames, 5 of which are the margin, and none by more than 14."""
    wave, longer, offset = with_tone(recordings, **case)
    expected, found = speech_span(wave, RATE), speech_span(longer, RATE)
    moved = [abs(there - offset - here) / FRAME for here, there in zip(expected, found, strict=True)]
    assert max(moved) <= 14


@pytest.fixture(scope="module")
def embedders(tmp_path_factory):
    """The compact checkpoint and a small Whisper, which embed a waveform with and without trimming."""
    import transformers
    from families import AUDIO

    folder = tmp_path_factory.mktemp("whisper")
    torch.manual_seed(0)
    transformers.WhisperModel(AUDIO["whisper"].config(small=True)).save_pretrained(folder)
    AUDIO["whisper"].save_extractor(folder)
    models = {
        "compact": GEmoClapModel.from_pretrained(COMPACT),
        "whisper": GEmoClapForXVector.from_audio_pretrained(str(folder)),
    }
    for parameter in models["whisper"].audio_model.parameters():  # larger than initial values
        torch.nn.init.normal_(parameter, std=0.3) if parameter.dim() > 1 else None
    extractors = {
        (name, trim): GEmoClapFeatureExtractor.from_audio_pretrained(str(source), trim_silence=trim)
        for name, source in (("compact", COMPACT), ("whisper", folder))
        for trim in (True, False)
    }

    @torch.no_grad()
    def distance(name, trim, *waves):
        inputs = extractors[name, trim]([{"array": wave, "sampling_rate": RATE} for wave in waves])
        embeddings = (models[name].get_audio_features if name == "compact" else models[name].pool_audio)(**inputs)
        return 1 - torch.cosine_similarity(*embeddings, dim=0).item()

    return distance


@pytest.mark.parametrize(("model", "median", "largest"), [("compact", 0.01, 0.2), ("whisper", 0.005, 0.05)])
def test_room_tone_hardly_moves_the_embedding(recordings, embedders, model, median, largest):
    moved = {True: [], False: []}
    for number in range(24):
        name = ("emodb", "ravdess", "nemo")[number % 3]
        wave, longer, _ = with_tone(recordings, name, number, (35 + number, 59 - number), "both", number)
        for trim, distances in moved.items():
            distances.append(embedders(model, trim, wave, longer))
    assert np.median(moved[True]) < median and max(moved[True]) < largest
    assert np.median(moved[False]) > 10 * np.median(moved[True])


# ---- the settings of the extractor ---------------------------------------------------------------------------------
def test_settings_are_saved_and_part_of_the_cache(tmp_path):
    extractor = GEmoClapFeatureExtractor(do_normalize=False, trim_silence=True, level_db=-26)
    extractor.save_pretrained(tmp_path)
    again = GEmoClapFeatureExtractor.from_pretrained(tmp_path)
    assert (again.trim_silence, again.level_db) == (True, -26)
    for load in (GEmoClapFeatureExtractor.from_pretrained, GEmoClapFeatureExtractor.from_audio_pretrained):
        assert load(str(COMPACT), trim_silence=True).trim_silence  # the file has no such setting
    with pytest.raises(ValueError, match="both set the level"):
        GEmoClapFeatureExtractor.from_pretrained(COMPACT, level_db=-20)
    plain = GEmoClapFeatureExtractor(do_normalize=False)
    assert (plain.trim_silence, plain.level_db) == (False, None)

    class Files:
        def file_states(self):
            return b"same"

    settings = ({}, {"trim_silence": True}, {"level_db": -26.0}, {"level_db": -20.0})
    extractors = [GEmoClapFeatureExtractor(do_normalize=False, **more) for more in settings]
    assert len({_cache_file(Files(), each, str(tmp_path)) for each in extractors}) == 4


def test_a_trimmed_clip_is_loaded(tmp_path):
    wave = frames(*[-80] * 50, *[-6] * 40, *[-80] * 50)
    soundfile.write(tmp_path / "clip.wav", np.repeat(wave, 2), 2 * RATE, subtype="FLOAT")
    plain, trimming = (GEmoClapFeatureExtractor(do_normalize=False, trim_silence=trim) for trim in (False, True))
    path = tmp_path / "clip.wav"
    assert len(plain.load(path)) == 140 * FRAME
    assert np.array_equal(trimming.load(path), plain.load(path)[43 * FRAME : 97 * FRAME])  # after resampling
    assert trimming(path)["input_values"].shape == (1, 54 * FRAME)
    cut = GEmoClapFeatureExtractor(do_normalize=False, trim_silence=True, max_seconds=1.0)
    assert np.array_equal(cut.load(path), trimming.load(path)[:RATE])  # silence takes none of the length
    with pytest.raises(AudioError, match=r"too short, 1.080 s of speech; the minimum is 2 s"):
        GEmoClapFeatureExtractor(trim_silence=True, min_seconds=2.0).load(path)
    with pytest.raises(AudioError, match="silent, no sample above -80 dBFS"):
        GEmoClapFeatureExtractor(do_normalize=False, trim_silence=True, level_db=-20).load_speech(
            np.full(RATE, 1e-6, np.float32), RATE
        )


@settings(max_examples=30, deadline=None)
@given(level=st.floats(-60, 0), gain=st.floats(-60, 20), offset=st.floats(-0.2, 0.2))
def test_every_clip_has_the_level(level, gain, offset):
    wave = np.random.default_rng(0).standard_normal(4000).astype(np.float32)
    extractor = GEmoClapFeatureExtractor(do_normalize=False, level_db=level)
    values = extractor.features((wave * 10 ** (gain / 20) + offset).astype(np.float32))
    assert values.dtype == np.float32 and abs(values.mean()) < 1e-3
    assert 20 * math.log10(values.std()) == pytest.approx(level, abs=0.01)


def test_digital_silence_stays_silent():
    assert not set_level(np.zeros(100, np.float32), -20).any()


@pytest.mark.parametrize("level", [1, 0.1, math.nan, -math.inf, "x", True])
def test_invalid_levels_are_refused(level):
    with pytest.raises(ValueError, match="level_db=.* must be a finite number of at most 0 or None"):
        GEmoClapFeatureExtractor(do_normalize=False, level_db=level)


def test_level_and_normalisation_exclude_each_other():
    with pytest.raises(ValueError, match="level_db=-26 and do_normalize=True both set the level.*do_normalize=False"):
        GEmoClapFeatureExtractor(level_db=-26)


@pytest.mark.parametrize(("level", "normalised"), [(None, True), (-26.0, False)])
def test_several_corpora_are_normalised_once(tones, tmp_path, level, normalised):
    corpus = load_corpora([tones, write_corpus(tmp_path / "others", salt="x")], ["first", "second"])
    extractor = GEmoClapFeatureExtractor("log_mel", num_mel_bins=16, do_normalize=False, level_db=level)
    training = GEmoClapTrainingArguments(tmp_path, use_cpu=True)
    read_parts((corpus, None), extractor, DataArguments(feature_cache_dir=str(tmp_path)), training)
    assert extractor.do_normalize is normalised
