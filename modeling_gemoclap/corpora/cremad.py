"""CREMA-D, the Crowd-sourced Emotional Multimodal Actors Dataset: `AudioWAV/1001_DFA_ANG_XX.wav`."""

from __future__ import annotations

import re
from pathlib import Path

from .delimited import read_csv
from .layout import KnownCorpus, decode_label, name_pattern, path_pattern
from .tables import ManifestError

EMOTIONS = {"ANG": "angry", "DIS": "disgust", "FEA": "fear", "HAP": "happy", "NEU": "neutral", "SAD": "sad"}
SENTENCES = {
    "IEO": "It's eleven o'clock",
    "TIE": "That is exactly what happened",
    "IOM": "I'm on my way to the meeting",
    "IWW": "I wonder what this is about",
    "TAI": "The airplane is almost full",
    "MTI": "Maybe tomorrow it will be cold",
    "IWL": "I would like a new alarm clock",
    "ITH": "I think I have a doctor's appointment",
    "DFA": "Don't forget a jacket",
    "ITS": "I think I've seen this before",
    "TSI": "The surface is slick",
    "WSI": "We'll stop in a couple of minutes",
}
DEMOGRAPHICS = "VideoDemographics.csv"
NAME = r"(?P<actor>\d{4})_(?P<sentence>[A-Z]{3})_(?P<emotion>[A-Z]{3})_(?P<level>XX|X|LO|MD|HI)"


def _read_tables(root: Path, files: list[str]) -> dict:
    # If `root` is the folder of the recordings, the file is in the folder above.
    folders = [path for path in (root / files[0]).parents if path == root.parent or path.is_relative_to(root)]
    path = next((folder / DEMOGRAPHICS for folder in folders if (folder / DEMOGRAPHICS).is_file()), None)
    if path is None:
        raise ManifestError(
            f"{root}: no {DEMOGRAPHICS} in this folder or above, which holds the genders of the actors; copy it "
            f"from the repository of CREMA-D to this folder"
        )
    table, _ = read_csv(path)
    if missing := {"ActorID", "Sex"} - set(table.column_names):
        raise ManifestError(
            f"{path}: no column {', '.join(sorted(missing))}; use the file from the repository of CREMA-D"
        )
    return {"genders": dict(zip(table["ActorID"].to_pylist(), table["Sex"].to_pylist(), strict=True))}


def _parse_name(match: re.Match) -> dict:
    return {
        "speaker_id": decode_label(match["actor"], {str(actor): str(actor) for actor in range(1001, 1092)}, "actor"),
        "emotion": decode_label(match["emotion"], EMOTIONS, "emotion code"),
        "transcript": decode_label(match["sentence"], SENTENCES, "sentence"),
    }


def _describe(match: re.Match, tables: dict) -> dict:
    gender = decode_label(match["actor"], tables["genders"], f"actor in {DEMOGRAPHICS}")
    return _parse_name(match) | {"gender": gender}


CORPUS = KnownCorpus(
    name="cremad",
    title="CREMA-D",
    licence="ODbL-1.0",
    citation=(
        "H. Cao, D. G. Cooper, M. K. Keutmann, R. C. Gur, A. Nenkova, R. Verma: CREMA-D: Crowd-sourced Emotional "
        "Multimodal Actors Dataset. IEEE Transactions on Affective Computing 5(4), 377-390, 2014"
    ),
    url="https://github.com/CheyneyComputerScience/CREMA-D",
    language="en",
    path_pattern=path_pattern(NAME),
    name_pattern=name_pattern(NAME),
    parse_name=_parse_name,
    describe=_describe,
    counts={"neutral": 1087, **dict.fromkeys(("angry", "disgust", "fear", "happy", "sad"), 1271)},
    num_speakers=91,
    speakers=tuple(str(number) for number in range(1001, 1092)),
    tables=_read_tables,
)
