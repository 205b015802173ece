"""Manifests as tables, read and checked by column: a million rows take seconds."""

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
# A path with an empty part, "." or "..": it may leave the folder, or be the same as another.
UNUSUAL_PATH = r"(^|/)\.{0,2}(/|$)"
OUTSIDE = r"^(/|[A-Za-z]:/|\w+://|~/)"  # absolute paths, drives of Windows, addresses, somebody's home
CONTROL = r"[\x00-\x1f\x7f]"  # line breaks and tabs: a quotation mark has swallowed more than its field


class ManifestError(ValueError):
    """A corpus folder cannot be used; the message names file and line, what is wrong, and what to do."""


def check_rows(table: pa.Table, where: Callable[[int], str], more_emotions: Mapping[str, str] | None) -> pa.Table:
    """Check a manifest by column and bring its words into their canonical form.

    Args:
        table: Text columns, `COLUMNS` among them.
        where: How errors name a row.
        more_emotions: Emotion words beyond the canonical ones, and what each stands for; None: no emotion is read.

    Returns:
        The table; emotions and genders are canonical words, or "" where unknown.

    Raises:
        ManifestError: For the first row whose word is not known, that lacks a speaker, leaves the folder, or repeats
            a file.
    """
    columns = {name: pc.utf8_trim_whitespace(pc.fill_null(table[name], "")) for name in table.column_names}
    if "session" in columns:
        columns["session"], found = _check_control("session", columns["session"].combine_chunks())
        if found:
            raise ManifestError(f"{where(found[0])}: {found[1]}")
    checks = {
        "file_name": _check_names,
        "speaker_id": _check_speakers,
        "emotion": lambda column: _check_emotions(column, more_emotions),
        "gender": _check_genders,
    }
    wrong = []
    for name, check in checks.items():
        columns[name], found = check(columns[name].combine_chunks())
        wrong += [found] if found else []
    if wrong:
        row, message = min(wrong)
        raise ManifestError(f"{where(row)}: {message}")
    _refuse_duplicates(columns["file_name"], where)
    return pa.table(columns)


def digest(table: pa.Table, columns: Sequence[str] = COLUMNS, in_order: bool = False) -> str:
    """SHA-256 of some columns of all rows: file, emotion, gender and speaker.

    Args:
        table: Text columns.
        columns: Which of them.
        in_order: Take the rows as they stand, not in the order of the files' names.
    """
    lines = pc.binary_join_element_wise(*(table[column] for column in columns), "\t")
    lines = lines if in_order else lines.take(pc.sort_indices(table["file_name"]))
    found = hashlib.sha256()
    for start in range(0, len(lines), ROWS_AT_A_TIME):
        found.update("".join(f"{line}\n" for line in lines[start : start + ROWS_AT_A_TIME].to_pylist()).encode())
    return found.hexdigest()


def _first(mask: pa.Array) -> int | None:
    """The first row of a mask that is true."""
    row = pc.index(mask, True).as_py()
    return None if row == -1 else row


def _check_control(name: str, column: pa.Array):
    row = _first(pc.match_substring_regex(column, CONTROL))
    return column, None if row is None else (row, f"{name} {column[row].as_py()!r} holds a line break or the like")


def _check_names(names: pa.Array):
    names, found = _check_control("file_name", pc.replace_substring(names, "\\", "/"))
    if found:
        return names, found
    outside = _first(pc.match_substring_regex(names, OUTSIDE))
    unusual = pc.match_substring_regex(names, UNUSUAL_PATH)
    mended = []
    for row, name in zip(pc.indices_nonzero(unusual).to_pylist(), names.filter(unusual).to_pylist(), strict=True):
        normal = posixpath.normpath(name)
        if not name or row == outside or normal.split("/")[0] == "..":
            return names, (row, f"file_name {name!r} must be a path inside the corpus folder")
        mended.append(normal)
    if outside is not None:
        return names, (outside, f"file_name {names[outside].as_py()!r} must be a path inside the corpus folder")
    return pc.replace_with_mask(names, unusual, pa.array(mended, pa.string())), None


def _check_speakers(speakers: pa.Array):
    row = _first(pc.equal(speakers, ""))
    if row is not None:
        return speakers, (row, "speaker_id is empty; without speakers no split can be trusted")
    speakers, found = _check_control("speaker_id", speakers)
    return speakers, found or _two_forms(speakers)


def _two_forms(speakers: pa.Array):
    """Whether one id stands in two Unicode forms (a letter and its accent as one character or as two)."""
    first: dict[str, str] = {}
    for one in pc.unique(speakers).to_pylist():
        if (other := first.setdefault(unicodedata.normalize("NFC", one), one)) != one:
            row = pc.index(speakers, one).as_py()
            return row, (
                f"speaker_id {one!r} looks as {other!r} above, but its accents are other characters (forms NFC "
                f"and NFD): write it one way"
            )
    return None


def _check_words(words: pa.Array, canonical: Callable[[str], str | None], message: str):
    encoded = words.dictionary_encode()
    known = [canonical(word) if word else "" for word in encoded.dictionary.to_pylist()]
    row = _first(pc.is_in(words, value_set=encoded.dictionary.filter(pc.is_null(pa.array(known, pa.string())))))
    if row is not None:
        return words, (row, message.format(words[row].as_py()))
    return pa.array(known, pa.string()).take(encoded.indices), None


def _check_emotions(words: pa.Array, more: Mapping[str, str] | None):
    if more is None:
        return pa.array([""] * len(words), pa.string()), None
    message = (
        f"emotion {{!r}} is not known; known are {', '.join(EMOTION_WORDS)}; correct it, leave it empty if it is "
        f"unknown, name it in train.py --emotions, or say which of these it stands for (--emotion_map)"
    )
    return _check_words(words, lambda word: more.get(word) or canonical_emotion(word), message)


def _check_genders(words: pa.Array):
    return _check_words(words, canonical_gender, "gender {!r} is not known; write female or male, or leave it empty")


def _refuse_duplicates(names: pa.Array, where: Callable[[int], str]) -> None:
    plain = pc.utf8_normalize(names, "NFC")  # macOS writes accents as characters of their own
    if pc.count_distinct(plain).as_py() == len(names):
        return
    counts = plain.value_counts()
    repeated = counts.field("values").filter(pc.greater(counts.field("counts"), 1))
    first: dict[str, int] = {}
    for row in pc.indices_nonzero(pc.is_in(plain, value_set=repeated)).to_pylist():
        name = plain[row].as_py()
        if name in first:
            earlier = where(first[name]).rpartition(", ")[2]
            raise ManifestError(f"{where(row)}: {name} stands already in {earlier}; keep one")
        first[name] = row
