"""nEMO, emotional speech in Polish: `samples/WR0_surprised_64.wav`, with the sentences in `data.tsv`."""

from __future__ import annotations

import re
from pathlib import Path

from .layout import KnownCorpus, decode_label, name_pattern, path_pattern

EMOTIONS = {
    "anger": "angry",
    "fear": "fear",
    "happiness": "happy",
    "neutral": "neutral",
    "sadness": "sad",
    "surprised": "surprise",
}
GENDERS = {
    **dict.fromkeys(("EB0", "IC0", "KD0", "MK0"), "female"),
    **dict.fromkeys(("KS0", "MP0", "SM0", "TP0", "WR0"), "male"),
}
TABLE = "data.tsv"
# The emotions are listed, because "two letters, a digit, a word, a number" would match recordings of other corpora.
NAME = rf"(?P<stem>(?P<speaker>[A-Z]{{2}}\d)_(?P<emotion>{'|'.join(EMOTIONS)})_\d{{1,2}})"


def _read_tables(root: Path, files: list[str]) -> dict:
    # The table is beside the folder of the recordings. A copy may have it in the same folder, or not at all.
    folders = {folder for file in files for folder in list((root / file).parents)[:2]}
    transcripts = {}
    for path in sorted(folder / TABLE for folder in folders if (folder / TABLE).is_file()):
        # Not read as CSV: the sentences may contain quotation marks, which the file does not escape.
        header, *lines = (line.split("\t") for line in path.read_text(encoding="utf-8-sig").splitlines())
        if {"file_id", "raw_text"} <= {*header}:
            rows = (dict(zip(header, line, strict=False)) for line in lines)
            transcripts |= {Path(row["file_id"].strip()).stem: row.get("raw_text", "").strip() for row in rows}
    return {"transcripts": transcripts}


def _parse_name(match: re.Match) -> dict:
    return {
        "speaker_id": match["speaker"],
        "gender": decode_label(match["speaker"], GENDERS, "speaker"),
        "emotion": decode_label(match["emotion"], EMOTIONS, "emotion"),
    }


def _describe(match: re.Match, tables: dict) -> dict:
    return _parse_name(match) | {"transcript": tables["transcripts"].get(match["stem"], "")}


CORPUS = KnownCorpus(
    name="nemo",
    title="nEMO",
    licence="CC-BY-NC-SA-4.0",
    citation="I. Christop: nEMO: Dataset of Emotional Speech in Polish. LREC-COLING 2024, 12111-12116",
    url="https://github.com/amu-cai/nEMO",
    language="pl",
    path_pattern=path_pattern(NAME),
    name_pattern=name_pattern(NAME),
    parse_name=_parse_name,
    describe=_describe,
    counts={"angry": 749, "fear": 736, "happy": 749, "neutral": 809, "sad": 769, "surprise": 669},
    num_speakers=9,
    speakers=tuple(sorted(GENDERS)),
    tables=_read_tables,
)
