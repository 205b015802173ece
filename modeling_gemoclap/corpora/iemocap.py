"""IEMOCAP, four classes: `Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_M000.wav`.

The labels come from the consensus lines in `Session*/dialog/EmoEvaluation/*.txt`. Happy and excited form one class,
`happy`. Recordings other than angry, happy, neutral and sad are excluded. The gender is that of the speaker of the
turn, which is the last letter of the name: a man speaks in `Ses01F_impro01_M000`. The first `F` names the speaker who
wore the markers.
"""

from __future__ import annotations

import re
from pathlib import Path

from .layout import ExcludedRecording, KnownCorpus, name_pattern, path_pattern
from .tables import ManifestError

CLASSES = {"ang": "angry", "exc": "happy", "hap": "happy", "neu": "neutral", "sad": "sad"}
OTHERS = {
    "fru": "frustrated",
    "fea": "fear",
    "sur": "surprise",
    "dis": "disgust",
    "oth": "other",
    "xxx": "no majority",
}
NAME = r"(?P<stem>Ses(?P<session>0[1-5])[FM]_\w+?_(?P<gender>[FM])\d{3})"
CONSENSUS = re.compile(r"^\[\s*[\d.]+ - [\d.]+\]\t(\S+)\t(\S+)\t")
SPOKEN = re.compile(r"^(Ses\S+) \[[\d.]+-[\d.]+\]:\s*(.*)$")


def _read_lines(folder: Path) -> list[tuple[Path, list[str]]]:
    paths = [path for path in sorted(folder.glob("Ses*.txt")) if not path.name.startswith(".")]
    return [(path, path.read_text(encoding="latin-1").splitlines()) for path in paths]


def _sessions(root: Path, files: list[str]) -> list[Path]:
    places = {root / file[: match.start("place")] for file in files if (match := CORPUS.match(file))}
    return sorted(path for place in places for path in place.glob("Session[1-5]"))


def _read_transcripts(root: Path, files: list[str]) -> dict:
    transcripts = {}
    for session in _sessions(root, files):
        for _, lines in _read_lines(session / "dialog/transcriptions"):
            transcripts |= {match[1]: match[2].strip() for line in lines if (match := SPOKEN.match(line))}
    return {"labels": None, "transcripts": transcripts}


def _read_tables(root: Path, files: list[str]) -> dict:
    labels = {}
    for session in _sessions(root, files):
        texts = _read_lines(session / "dialog/EmoEvaluation")
        if not texts:
            raise ManifestError(
                f"{session}: no dialog/EmoEvaluation/*.txt, which holds the labels; unpack the complete release"
            )
        for path, lines in texts:
            for number, line in enumerate(lines, 1):
                if match := CONSENSUS.match(line):
                    if match[2] not in CLASSES and match[2] not in OTHERS:
                        known = ", ".join([*CLASSES, *OTHERS])
                        raise ManifestError(
                            f"{path}, line {number}: unknown label {match[2]!r}; the labels are {known}"
                        )
                    labels[match[1]] = match[2]
    _refuse_missing(root, labels, files)
    return _read_transcripts(root, files) | {"labels": labels}


def _refuse_missing(root: Path, labels: dict[str, str], files: list[str]) -> None:
    present = {Path(file).stem for file in files}
    missing = [name for name, label in labels.items() if label in CLASSES and name not in present]
    if missing:
        raise ManifestError(
            f"{root}: {len(missing)} recordings of EmoEvaluation are missing, first {missing[0]}; the download is "
            f"incomplete: unpack Session*/sentences/wav again"
        )


def _parse_name(match: re.Match) -> dict:
    session, gender = match["session"], match["gender"]
    return {
        "speaker_id": f"Ses{session}{gender}",
        "session": session,
        "gender": {"F": "female", "M": "male"}[gender],
    }


def _describe(match: re.Match, tables: dict) -> dict:
    name, labels = match["stem"], tables["labels"]
    if labels is not None and name not in labels:
        raise ExcludedRecording("without a line in EmoEvaluation")
    if labels is not None and labels[name] not in CLASSES:
        raise ExcludedRecording(f"labelled {OTHERS[labels[name]]}")
    return _parse_name(match) | {
        "emotion": "" if labels is None else CLASSES[labels[name]],
        "transcript": tables["transcripts"].get(name, ""),
    }


CORPUS = KnownCorpus(
    name="iemocap",
    title="IEMOCAP",
    licence="research only, by agreement",
    citation=(
        "C. Busso, M. Bulut, C.-C. Lee, A. Kazemzadeh, E. Mower, S. Kim, J. N. Chang, S. Lee, S. S. Narayanan: "
        "IEMOCAP: Interactive emotional dyadic motion capture database. Language Resources and Evaluation 42(4), "
        "335-359, 2008"
    ),
    url="https://sail.usc.edu/iemocap",
    language="en",
    path_pattern=path_pattern(rf"(?P<place>)Session[1-5]/sentences/wav/[^/]+/{NAME}"),
    name_pattern=name_pattern(NAME),
    parse_name=_parse_name,
    describe=_describe,
    counts={"angry": 1103, "happy": 595 + 1041, "neutral": 1708, "sad": 1084},
    num_speakers=10,
    speakers=tuple(f"Ses{session:02}{gender}" for session in range(1, 6) for gender in "FM"),
    tables=_read_tables,
    without_labels=_read_transcripts,
)
