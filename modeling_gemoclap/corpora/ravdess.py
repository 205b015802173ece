"""RAVDESS, the Ryerson Audio-Visual Database, its spoken audio: `Actor_01/03-01-05-01-02-01-01.wav`."""

from __future__ import annotations

import re

from .layout import ExcludedRecording, KnownCorpus, decode_label, name_pattern, path_pattern

EMOTIONS = {
    "01": "neutral",
    "02": "calm",
    "03": "happy",
    "04": "sad",
    "05": "angry",
    "06": "fear",
    "07": "disgust",
    "08": "surprise",
}
STATEMENTS = {"01": "Kids are talking by the door", "02": "Dogs are sitting by the door"}
NAME = (
    r"(?P<modality>\d\d)-(?P<channel>\d\d)-(?P<emotion>\d\d)-(?P<level>\d\d)-(?P<statement>\d\d)"
    r"-(?P<take>\d\d)-(?P<actor>\d\d)"
)


def _parse_name(match: re.Match) -> dict:
    for part, codes in (("modality", 3), ("channel", 2), ("level", 2), ("take", 2)):
        decode_label(match[part], {f"{number:02}": "" for number in range(1, codes + 1)}, part)
    actor = decode_label(match["actor"], {f"{number:02}": f"{number:02}" for number in range(1, 25)}, "actor")
    return {
        "speaker_id": actor,
        "gender": "male" if int(actor) % 2 else "female",
        "emotion": decode_label(match["emotion"], EMOTIONS, "emotion code"),
        "transcript": decode_label(match["statement"], STATEMENTS, "statement"),
    }


def _describe(match: re.Match, _) -> dict:
    if match["channel"] == "02":
        raise ExcludedRecording("sung, not spoken")
    if match["modality"] != "03":
        raise ExcludedRecording("of the videos")
    return _parse_name(match)


CORPUS = KnownCorpus(
    name="ravdess",
    title="RAVDESS",
    licence="CC-BY-NC-SA-4.0",
    citation=(
        "S. R. Livingstone, F. A. Russo: The Ryerson Audio-Visual Database of Emotional Speech and Song (RAVDESS). "
        "PLoS ONE 13(5): e0196391, 2018"
    ),
    url="https://zenodo.org/record/1188976",
    language="en",
    path_pattern=path_pattern(NAME),
    name_pattern=name_pattern(NAME),
    parse_name=_parse_name,
    describe=_describe,
    counts={"neutral": 96, **dict.fromkeys(("angry", "calm", "disgust", "fear", "happy", "sad", "surprise"), 192)},
    num_speakers=24,
    speakers=tuple(f"{number:02}" for number in range(1, 25)),
)
