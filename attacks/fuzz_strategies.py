"""Strategies for structured values, and what must hold for each value."""

from __future__ import annotations

import math

import numpy as np
from fuzz_audio import RATE, wave
from fuzz_judge import BrokenPromise
from fuzz_listening import pipe_of
from fuzz_values import in_file
from hypothesis import strategies as st

HOSTILE = [
    "",
    " ",
    "{}",
    "{0}",
    "{emotion.__class__}",
    "%s",
    "\u202eangry",
    "a" * 10_000,
    "an\u0301gry",
    "angry",
    "\0",
    "𝕒",
]
TEMPLATES = [
    "{}",
    "{} {}",
    "a {} person",
    "{}" * 400,
    "{emotion} {gender}",
    "{0}",
    "{!r}",
    "x" * 5_000 + "{}",
    "\u202e{}",
]
WORDS = st.sampled_from(HOSTILE) | st.text(max_size=20)
TEXTS = st.sampled_from(TEMPLATES) | st.text(max_size=30) | st.text(max_size=10).map(lambda text: text + "{}")
NUMBERS = st.floats() | st.integers(-5, 10**12) | st.sampled_from([None, True, "0.5", 1e-320, -0.0, math.nan])


def classify(value: tuple) -> None:
    """Classify a recording with labels and templates.

    Raises:
        BrokenPromise: If a score is not finite, or labels are missing.
    """
    labels, templates = value
    pipe = pipe_of("compact")
    prompts = pipe.model.config.class_prompts(labels, templates)
    if not all(prompt.strip() for group in prompts for prompt in group):
        raise BrokenPromise(f"empty prompts {prompts}")
    answers = pipe({"array": wave(0.3, 1)[:, 0], "sampling_rate": RATE}, labels, templates)
    scores = [answer["score"] for answer in answers]
    if len(answers) != len(prompts) or not abs(sum(scores) - 1) < 1e-3:
        raise BrokenPromise(f"{len(answers)} answers of {len(prompts)}, scores {scores[:5]}")


def label_maps(value: dict) -> None:
    """Make a configuration with labels, and save and read its content."""
    from modeling_gemoclap import GEmoClapConfig

    config = GEmoClapConfig(**value)
    again = GEmoClapConfig.from_dict(config.to_dict())
    if again.emotions != config.emotions or again.id2label != config.id2label:
        raise BrokenPromise(f"{config.emotions} became {again.emotions}")


def timeline_options(value: dict) -> None:
    """Check the options of a timeline."""
    from modeling_gemoclap.inference.segments import TimelineOptions

    options = TimelineOptions(**value)
    if not 0 < options.threshold < 1 or not 0 <= options.end_threshold <= 1:
        raise BrokenPromise(f"{options}")


def written_timelines(value: list) -> None:
    """Write a timeline in every format, and read the diarisation back."""
    from modeling_gemoclap.inference.segments import Segment
    from modeling_gemoclap.inference.timeline_files import WRITERS, TimelineFacts, render_timeline
    from modeling_gemoclap.inference.turns import read_rttm

    segments = [
        Segment(start, start + length, label, 0.5, {label: 1.0}, speaker) for start, length, label, speaker in value
    ]
    facts = TimelineFacts("a b.wav", 60.0, [segment.label for segment in segments])
    texts = {kind: render_timeline(segments, facts, kind) for kind in WRITERS}
    blocks = texts["vtt"].split("\n\n")
    if len(blocks) != len(segments) + 1:
        raise BrokenPromise(f"{len(segments)} segments, {len(blocks) - 1} cues: {texts['vtt']!r}")
    if segments:
        turns = in_file("clip.rttm", texts["rttm"], read_rttm)
        if len(turns) != len(segments):
            raise BrokenPromise(f"{len(segments)} segments, {len(turns)} turns: {texts['rttm']!r}")


def extract(value: dict) -> None:
    """Make a feature extractor with settings, and use it.

    Raises:
        BrokenPromise: If features are not finite, or empty.
    """
    from modeling_gemoclap import GEmoClapFeatureExtractor

    extractor = GEmoClapFeatureExtractor(**value)
    features = extractor.features(extractor.load({"array": wave(0.3, 1)[:, 0], "sampling_rate": RATE}))
    if not features.size or not np.isfinite(features).all():
        raise BrokenPromise(f"features {features.shape}")


LABELS = st.lists(WORDS, max_size=5) | st.text(max_size=30) | st.sets(WORDS, max_size=3) | st.none() | st.integers()
MAPS = st.dictionaries(st.integers(-1, 4) | st.text(max_size=2), WORDS, max_size=4)
SEGMENTS = st.tuples(st.floats(0, 50), st.floats(0.002, 9), WORDS.filter(str.strip), st.none() | WORDS)
KINDS = {
    "labels and templates": (st.tuples(LABELS, st.none() | TEXTS | st.lists(TEXTS, max_size=3)), classify),
    "label maps of configurations": (
        st.fixed_dictionaries({}, optional={"emotions": LABELS, "id2label": MAPS, "num_labels": st.integers(-1, 5)}),
        label_maps,
    ),
    "options of timelines": (
        st.fixed_dictionaries(
            {}, optional=dict.fromkeys("threshold neg_threshold window step hysteresis speech_pad_ms".split(), NUMBERS)
        ),
        timeline_options,
    ),
    "written timelines": (st.lists(SEGMENTS, max_size=4), written_timelines),
    "settings of feature extractors": (
        st.fixed_dictionaries(
            {"feature_type": st.sampled_from(["wave", "log_mel"])},
            optional=dict.fromkeys(
                "num_mel_bins frame_seconds hop_seconds min_frequency max_frequency log_mel_mean log_mel_std "
                "min_seconds max_seconds padding_value level_db".split(),
                NUMBERS,
            ),
        ),
        extract,
    ),
}
