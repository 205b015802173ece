"""Manifests as Arrow tables that are checked by column, so that a million rows take seconds."""

from __future__ import annotations

import hashlib
import posixpath
import unicodedata
from collections.abc import Callable, Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from ..prompts_gemoclap import EMOTION_WORDS, canonical_emotion, canonical_gender

COLUMNS = ("file_name", "emotion", "gender", "speaker_id")
ROWS_AT_A_TIME = 20_000
# A path with an empty part, "." or "..". It may leave the folder, or be another form of an earlier path.
UNUSUAL_PATH = r"(^|/)\.{0,2}(/|$)"
OUTSIDE = r"^(/|[A-Za-z]:/|\w+://|~/)"  # absolute paths, Windows drives, URLs and home folders
CONTROL = r"[\x00-\x1f\x7f]"  # line breaks and tabs, which show that a quotation mark encloses several fields

RowError = tuple[int, str]  # the number of a row, and a message


class ManifestError(ValueError):
    """A corpus folder cannot be used. The message names the file and line, the problem, and what to do."""


def check_rows(table: pa.Table, where: Callable[[int], str], more_emotions: Mapping[str, str] | None) -> pa.Table:
    """Check a manifest by column, and replace its words by their canonical forms.

    Args:
        table: Text columns, `COLUMNS` among them.
        where: Returns the name of a row for errors.
        more_emotions: Emotion words beyond the canonical ones, and the emotion that each word stands for. None: read
            no emotion.

    Returns:
        The table. Emotions and genders are canonical words, or "" if unknown.

    Raises:
        ManifestError: For the first row that has an unknown word, no speaker, a path outside the folder, or the path
            of an earlier row.
    """
    columns = {name: pc.utf8_trim_whitespace(pc.fill_null(table[name], "")) for name in table.column_names}
    if "session" in columns:
        columns["session"], error = _check_control("session", columns["session"].combine_chunks())
        if error:
            raise ManifestError(f"{where(error[0])}: {error[1]}")
    checks = {
        "file_name": _check_names,
        "speaker_id": _check_speakers,
        "emotion": lambda column: _check_emotions(column, more_emotions),
        "gender": _check_genders,
    }
    errors = []
    for name, check in checks.items():
        columns[name], error = check(columns[name].combine_chunks())
        errors += [error] if error else []
    if errors:
        row, message = min(errors)
        raise ManifestError(f"{where(row)}: {message}")
    _refuse_duplicates(columns["file_name"], where)
    return pa.table(columns)


def table_sha256(table: pa.Table, columns: Sequence[str] = COLUMNS, in_order: bool = False) -> str:
    """SHA-256 of some columns of all rows.

    Args:
        table: Text columns.
        columns: The columns to hash.
        in_order: Whether to hash the rows in their present order instead of the order of the file names.
    """
    lines = pc.binary_join_element_wise(*(table[column] for column in columns), "\t")
    lines = lines if in_order else lines.take(pc.sort_indices(table["file_name"]))
    sha256 = hashlib.sha256()
    for start in range(0, len(lines), ROWS_AT_A_TIME):
        sha256.update("".join(f"{line}\n" for line in lines[start : start + ROWS_AT_A_TIME].to_pylist()).encode())
    return sha256.hexdigest()


def _first(mask: pa.Array) -> int | None:
    """The first row at which a mask is true."""
    row = pc.index(mask, True).as_py()
    return None if row == -1 else row


def _check_control(name: str, column: pa.Array) -> tuple[pa.Array, RowError | None]:
    row = _first(pc.match_substring_regex(column, CONTROL))
    if row is None:
        return column, None
    return column, (row, f"{name} {column[row].as_py()!r:.100} holds a line break or another control character")


def _check_names(names: pa.Array) -> tuple[pa.Array, RowError | None]:
    names, error = _check_control("file_name", pc.replace_substring(names, "\\", "/"))
    if error:
        return names, error
    outside = _first(pc.match_substring_regex(names, OUTSIDE))
    unusual = pc.match_substring_regex(names, UNUSUAL_PATH)
    normalised = []
    for row, name in zip(pc.indices_nonzero(unusual).to_pylist(), names.filter(unusual).to_pylist(), strict=True):
        path = posixpath.normpath(name)
        if not name or row == outside or path.split("/")[0] == "..":
            return names, (row, f"file_name {name!r:.100} must be a path inside the corpus folder")
        normalised.append(path)
    if outside is not None:
        return names, (outside, f"file_name {names[outside].as_py()!r:.100} must be a path inside the corpus folder")
    return pc.replace_with_mask(names, unusual, pa.array(normalised, pa.string())), None


def _check_speakers(speakers: pa.Array) -> tuple[pa.Array, RowError | None]:
    row = _first(pc.equal(speakers, ""))
    if row is not None:
        return speakers, (row, "speaker_id is empty; fill it in: a split by speaker needs the speaker of every clip")
    speakers, error = _check_control("speaker_id", speakers)
    return speakers, error or _find_two_forms(speakers)


def _find_two_forms(speakers: pa.Array) -> RowError | None:
    """Find an id in two Unicode forms: an accented letter as one character, and as a letter with a separate accent."""
    first: dict[str, str] = {}
    for speaker in pc.unique(speakers).to_pylist():
        if (other := first.setdefault(unicodedata.normalize("NFC", speaker), speaker)) != speaker:
            row = pc.index(speakers, speaker).as_py()
            return row, (
                f"speaker_id {speaker!r:.100} looks like {other!r:.100} above but has another Unicode form (NFC and "
                f"NFD); use one form for both"
            )
    return None


def _check_words(
    words: pa.Array, canonical: Callable[[str], str | None], message: str
) -> tuple[pa.Array, RowError | None]:
    encoded = words.dictionary_encode()
    known = [canonical(word) if word else "" for word in encoded.dictionary.to_pylist()]
    row = _first(pc.is_in(words, value_set=encoded.dictionary.filter(pc.is_null(pa.array(known, pa.string())))))
    if row is not None:
        return words, (row, message.format(words[row].as_py()))
    return pa.array(known, pa.string()).take(encoded.indices), None


def _check_emotions(words: pa.Array, more: Mapping[str, str] | None) -> tuple[pa.Array, RowError | None]:
    if more is None:
        return pa.array([""] * len(words), pa.string()), None
    message = (
        f"emotion {{!r:.100}} is not known; known are {', '.join(EMOTION_WORDS)}; correct it, leave it empty if the "
        f"emotion is unknown, add it to train.py --emotions, or map it to one of these words (--emotion_map)"
    )
    return _check_words(words, lambda word: more.get(word) or canonical_emotion(word), message)


def _check_genders(words: pa.Array) -> tuple[pa.Array, RowError | None]:
    return _check_words(
        words, canonical_gender, "gender {!r:.100} is not known; write female or male, or leave it empty"
    )


def _refuse_duplicates(names: pa.Array, where: Callable[[int], str]) -> None:
    plain = pc.utf8_normalize(names, "NFC")  # macOS stores accents as separate characters
    if pc.count_distinct(plain).as_py() == len(names):
        return
    counts = plain.value_counts()
    repeated = counts.field("values").filter(pc.greater(counts.field("counts"), 1))
    first: dict[str, int] = {}
    for row in pc.indices_nonzero(pc.is_in(plain, value_set=repeated)).to_pylist():
        name = plain[row].as_py()
        if name in first:
            earlier = where(first[name]).rpartition(", ")[2]
            raise ManifestError(f"{where(row)}: {name} already occurs in {earlier}; keep one of the rows")
        first[name] = row
