"""ESD, the Emotional Speech Database: `0011/Angry/0011_000351.wav`, possibly with folders such as `train/`."""

from __future__ import annotations

import re
from pathlib import Path

from .layout import KnownCorpus, decode_label, name_pattern, path_pattern

EMOTIONS = {"Angry": "angry", "Happy": "happy", "Neutral": "neutral", "Sad": "sad", "Surprise": "surprise"}
WOMEN = ("0001", "0002", "0003", "0007", "0009", "0015", "0016", "0017", "0018", "0019")
NAME = r"(?P<speaker>\d{4})/(?P<emotion>[A-Z][a-z]+)/(?:(?:train|test|evaluation)/)?(?P<stem>(?P=speaker)_\d{6})"
GENDERS = {f"{number:04}": "female" if f"{number:04}" in WOMEN else "male" for number in range(1, 21)}


def _decode_transcripts(path: Path) -> str:
    # The files of some speakers are in UTF-16 or GBK.
    content = path.read_bytes()
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return content.decode("utf-16")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("gb18030", errors="replace")


def _read_tables(root: Path, files: list[str]) -> dict:
    transcripts = {}
    folders = {root / file[: match.start("speaker")] for file in files if (match := CORPUS.match(file))}
    for folder in folders:
        for path in folder.glob("[0-9][0-9][0-9][0-9]/[0-9][0-9][0-9][0-9].txt"):
            lines = (line.split("\t") for line in _decode_transcripts(path).splitlines())
            transcripts |= {fields[0].strip(): fields[1].strip() for fields in lines if len(fields) > 1}
    return {"transcripts": transcripts}


def _parse_name(match: re.Match) -> dict:
    speaker, folder = match["speaker"], match.groupdict().get("emotion")
    labels = {"speaker_id": speaker, "gender": decode_label(speaker, GENDERS, "speaker")}
    return labels | ({"emotion": decode_label(folder, EMOTIONS, "emotion")} if folder else {})


def _describe(match: re.Match, tables: dict) -> dict:
    return _parse_name(match) | {"transcript": tables["transcripts"].get(match["stem"], "")}


CORPUS = KnownCorpus(
    name="esd",
    title="ESD",
    licence="research only, by agreement",
    citation=(
        "K. Zhou, B. Sisman, R. Liu, H. Li: Emotional Voice Conversion: Theory, Databases and ESD. "
        "Speech Communication 137, 1-18, 2022"
    ),
    url="https://github.com/HLTSingapore/Emotional-Speech-Data",
    language="zh, en",
    path_pattern=path_pattern(NAME),
    name_pattern=name_pattern(NAME),
    parse_name=_parse_name,
    describe=_describe,
    counts=dict.fromkeys(EMOTIONS.values(), 7000),
    num_speakers=20,
    speakers=tuple(sorted(GENDERS)),
    tables=_read_tables,
    bare_name_pattern=name_pattern(r"(?P<stem>(?P<speaker>\d{4})_\d{6})"),
)
