"""A corpus on disk: a folder with `metadata.csv`, one row a clip."""

from __future__ import annotations

import csv
import hashlib
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from datasets import Dataset, Features, Value
from datasets.exceptions import DatasetGenerationError

from ..configuration_gemoclap import EMOTION_WORDS, canonical_emotion, canonical_gender

COLUMNS = ("file_name", "emotion", "gender", "speaker_id")


class ManifestError(ValueError):
    """A corpus folder cannot be used; the message names file and line, what is wrong, and what to do."""


@dataclass
class Corpus:
    """Clips of one corpus, all of it or a selection.

    Args:
        name: What the corpus is called, the name of its folder unless told otherwise.
        manifest_sha256: Hash of the whole manifest, selected or not: of file, emotion, gender and speaker.
        clips: A `datasets.Dataset` with `path`, `file_name`, `emotion`, `gender`, `speaker_id`, and whatever other
            columns the manifest has. Emotions and genders are canonical words; an unknown gender or emotion is "".
    """

    name: str
    manifest_sha256: str
    clips: Dataset

    def __len__(self) -> int:
        return len(self.clips)

    @property
    def speakers(self) -> list[str]:
        """Sorted speaker ids."""
        return sorted(set(self.clips["speaker_id"]))

    @property
    def emotions(self) -> list[str]:
        """Sorted emotions that occur."""
        return sorted(set(self.clips["emotion"]) - {""})

    def where(self, column: str, keep) -> Corpus:
        """The clips whose `column` has a value for which `keep` is true."""
        indices = [index for index, value in enumerate(self.clips[column]) if keep(value)]
        return Corpus(self.name, self.manifest_sha256, self.clips.select(indices))

    def cannot_be_used(self, errors: list[str]) -> str:
        """The beginning of an error about clips that are bad: how many, and the first ten."""
        shown = "\n  ".join(errors[:10]) + (f"\n  ... and {len(errors) - 10} more" if len(errors) > 10 else "")
        return f"{len(errors)} of {len(self)} clips of {self.name} cannot be used:\n  {shown}\nmend them, "

    def of_speakers(self, speakers: list[str] | None = None, exclude: list[str] | None = None) -> Corpus:
        """The clips of some speakers, or of all but some.

        Raises:
            ManifestError: If a speaker is not in the corpus, or no clip is left.
        """
        wanted = list(speakers or self.speakers)
        absent = sorted(set(wanted + list(exclude or [])) - set(self.speakers))
        if absent:
            raise ManifestError(
                f"{self.name}: no speaker {', '.join(map(repr, absent))}; it has {', '.join(self.speakers)}"
            )
        kept = set(wanted) - set(exclude or [])
        if not kept:
            raise ManifestError(f"{self.name}: the selection of speakers leaves no clip")
        return self.where("speaker_id", kept.__contains__)

    def of_emotions(self, emotions: list[str], drop_others: bool = False) -> Corpus:
        """The clips of some emotions; clips of others are an error unless they are to be dropped.

        Raises:
            ManifestError: If clips have other emotions and `drop_others` is false, or none is left.
        """
        others = Counter(emotion for emotion in self.clips["emotion"] if emotion and emotion not in emotions)
        if others and not drop_others:
            raise ManifestError(
                f"{self.name}: {dict(others)} clips have emotions that the configuration does not know "
                f"(it knows {', '.join(emotions)}); name them in emotions, or give --drop_other_emotions true"
            )
        corpus = self.where("emotion", lambda emotion: emotion in emotions or not emotion)
        if not len(corpus):
            raise ManifestError(f"{self.name}: no clip has any of the emotions {', '.join(emotions)}")
        return corpus

    def training_record(self) -> dict:
        """What a checkpoint remembers of the clips it was trained on."""
        return {
            "corpus": self.name,
            "speakers": self.speakers,
            "manifest_sha256": self.manifest_sha256,
            "num_clips": len(self),
        }


def seen_speakers(corpus: Corpus, training_data: list[dict] | None) -> list[str]:
    """Speakers of `corpus` that a checkpoint was trained on; the same corpus has the same name or manifest."""
    seen = set()
    for record in training_data or []:
        if record["corpus"] == corpus.name or record["manifest_sha256"] == corpus.manifest_sha256:
            seen.update(record["speakers"])
    return sorted(seen & set(corpus.speakers))


def load_corpus(data_dir: str | os.PathLike, name: str | None = None, emotions: list[str] | None = None) -> Corpus:
    """Read a corpus folder.

    Args:
        data_dir: A folder with `metadata.csv` and its columns `file_name`, `emotion`, `gender`, `speaker_id`.
        name: What to call the corpus; None takes the folder's name.
        emotions: Emotion words beyond the canonical ones that rows may have.

    Returns:
        The corpus. Whether its files can be read is seen when they are read.

    Raises:
        ManifestError: If the folder or a column is missing, a row has a word that is not known, lacks a speaker,
            repeats a file or leaves the folder.
    """
    folder = Path(data_dir)
    path = folder / "metadata.csv"
    if not path.is_file():
        raise ManifestError(
            f"{folder}: no metadata.csv there; a corpus is a folder with one ({', '.join(COLUMNS)}, ...)"
        )
    table, lines = _read_csv(path)
    missing = [column for column in COLUMNS if column not in table.column_names]
    if missing:
        raise ManifestError(f"{path}: no column {', '.join(missing)}; its columns are {', '.join(table.column_names)}")
    rows = [_checked_row(row, f"{path}, line {line}", emotions or []) for line, row in zip(lines, table, strict=True)]
    _refuse_duplicates(rows, lines, path)
    digest = hashlib.sha256()
    for row in sorted(rows, key=lambda row: row["file_name"]):
        digest.update("\t".join(row[column] for column in COLUMNS).encode() + b"\n")
    for row in rows:
        row["path"] = os.path.join(folder.resolve(), row["file_name"])
    return Corpus(name or folder.resolve().name, digest.hexdigest(), Dataset.from_list(rows))


def _read_csv(path: Path) -> tuple[Dataset, list[int]]:
    """The table, and the line of the file that each row ends on."""
    try:
        columns, lines = _check_shape(path)
        # Speakers are text ("03"), and "NA" is a word like any other.
        text = Features({column: Value("string") for column in columns})
        options = {"keep_default_na": False, "keep_in_memory": True, "encoding": "utf-8-sig"}
        return Dataset.from_csv(str(path), features=text, **options), lines
    except UnicodeDecodeError as error:
        raise ManifestError(f"{path}: not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8") from None
    except (csv.Error, DatasetGenerationError) as error:
        raise ManifestError(f"{path}: cannot be read as CSV: {error.__cause__ or error}") from None


def _check_shape(path: Path) -> tuple[list[str], list[int]]:
    """Columns and lines of a CSV file; a row with more or fewer fields would be shifted without a word."""
    with open(path, newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file)
        columns, lines = next(reader, []), []
        if not columns:
            raise ManifestError(f"{path}: the file is empty; its first line names the columns {', '.join(COLUMNS)}")
        if len(set(columns)) != len(columns):
            raise ManifestError(f"{path}, line 1: a column stands twice in {', '.join(columns)}")
        for row in filter(None, reader):
            if len(row) != len(columns):
                raise ManifestError(
                    f"{path}, line {reader.line_num}: {len(row)} fields under {len(columns)} columns; "
                    f"quote fields that hold commas"
                )
            lines.append(reader.line_num)
    if not lines:
        raise ManifestError(f"{path}: it names no clips")
    return columns, lines


def _checked_row(row: dict, where: str, more_emotions: list[str]) -> dict:
    row = {key: (value or "").strip() for key, value in row.items()}
    name = os.path.normpath(row["file_name"])
    if not row["file_name"] or os.path.isabs(name) or name.split(os.sep)[0] == "..":
        raise ManifestError(f"{where}: file_name {row['file_name']!r} must be a path inside the corpus folder")
    if not row["speaker_id"]:
        raise ManifestError(f"{where}: speaker_id is empty; without speakers no split can be trusted")
    emotion = canonical_emotion(row["emotion"])
    if row["emotion"] in more_emotions:
        emotion = row["emotion"]
    if row["emotion"] and emotion is None:
        raise ManifestError(
            f"{where}: emotion {row['emotion']!r} is not known; known are {', '.join(EMOTION_WORDS)}; "
            f"correct it, leave it empty if it is unknown, or name it in emotions"
        )
    gender = canonical_gender(row["gender"])
    if row["gender"] and gender is None:
        raise ManifestError(f"{where}: gender {row['gender']!r} is not known; write female or male, or leave it empty")
    return {**row, "file_name": name, "emotion": emotion or "", "gender": gender or ""}


def _refuse_duplicates(rows: list[dict], lines: list[int], path: Path) -> None:
    first: dict[str, int] = {}
    for line, row in zip(lines, rows, strict=True):
        if row["file_name"] in first:
            raise ManifestError(
                f"{path}, line {line}: {row['file_name']} stands already in line {first[row['file_name']]}; keep one"
            )
        first[row["file_name"]] = line
