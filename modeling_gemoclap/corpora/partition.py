"""Compare the speakers and sessions of a manifest with those in the names of published recordings."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from .catalogue import CORPORA
from .layout import KnownCorpus
from .tables import ManifestError

WORDS = {"speaker_id": "speaker", "session": "session"}


class _TrueId(NamedTuple):
    """A speaker or session of a published corpus, by the corpus's own id."""

    corpus: KnownCorpus
    value: str

    def __str__(self) -> str:
        return f"{self.value} of {self.corpus.title}"


def check_partition(table: pa.Table, where: Callable[[int], str]) -> dict[KnownCorpus, list[int]]:
    """Check the recordings of all published corpora in a manifest, even if the manifest has only a few of them.

    Args:
        table: A manifest, see `check_speaker_ids`.
        where: Returns the name of a row for errors.

    Returns:
        The rows with recordings of each corpus.

    Raises:
        ManifestError: See `check_speaker_ids`.
    """
    rows = rows_by_corpus(pc.cast(table["file_name"], pa.string()).combine_chunks())
    check_speaker_ids(table, rows, where)
    return rows


def rows_by_corpus(names: pa.Array) -> dict[KnownCorpus, list[int]]:
    """Find the rows whose recordings are named like those of each published corpus. Most corpora have no such rows.

    Args:
        names: The paths of the recordings, as text.
    """
    rows = {}
    for corpus in CORPORA.values():
        likely = pc.indices_nonzero(pc.match_substring_regex(names, corpus.arrow_pattern)).to_pylist()
        rows[corpus] = [row for row in likely if corpus.labels_in_name(names[row].as_py())]
    return rows


def check_speaker_ids(table: pa.Table, rows: dict[KnownCorpus, list[int]], where: Callable[[int], str]) -> None:
    """Check that every speaker and session of published recordings has one id, and every id one speaker or session.

    Ids may have any spelling (`Actor_01` for `01`): only the grouping of the recordings counts. Both kinds of
    contradiction are errors:

    - Split: one speaker has two ids. The speaker may then be in the training part and in the test part of a fold.
    - Merged: two speakers share an id. They are always in the same part, so there is no leak. But the number of
      speakers and all intervals are wrong, the gender of the id is ambiguous, and the training records cannot be
      compared with other copies of the corpus.

    Recordings whose names do not contain the speaker are not checked. Neither are rows without a session.

    Args:
        table: A manifest with `file_name` and `speaker_id`, and optionally `session`.
        rows: See `rows_by_corpus`.
        where: Returns the name of a row for errors.

    Raises:
        ManifestError: If a speaker or session is split or merged.
    """
    for column in (name for name in WORDS if name in table.column_names):
        ids, files = table[column], table["file_name"]
        first_by_true: dict[_TrueId, tuple[str, int]] = {}
        first_by_id: dict[str, tuple[_TrueId, int]] = {}
        for corpus, corpus_rows in rows.items():
            for row in corpus_rows:
                value = ids[row].as_py()
                true = _TrueId(corpus, corpus.labels_in_name(files[row].as_py(), known=True).get(column))
                if not true.value or not value:
                    continue
                first_id, first_row = first_by_true.setdefault(true, (value, row))
                if first_id != value:
                    raise ManifestError(_split_error(column, true, table, (first_row, row), where))
                other, first_row = first_by_id.setdefault(value, (true, row))
                if other != true:
                    raise ManifestError(_merged_error(column, (other, true), table, (first_row, row), where))


def _split_error(column: str, true: _TrueId, table: pa.Table, rows: tuple[int, int], where) -> str:
    first, second = (f"{table[column][row].as_py()!r} for {table['file_name'][row].as_py()}" for row in rows)
    word = WORDS[column]
    return (
        f"{where(rows[1])}: {column} is {second}, but {first}; by their names, both recordings belong to {word} "
        f"{true}, which would be in the training part and in the test part: give each {word} one id, such as "
        f"{true.value}, or {_other_remedy(column, true.corpus)}"
    )


def _merged_error(column: str, true: tuple[_TrueId, _TrueId], table: pa.Table, rows: tuple[int, int], where) -> str:
    word, files = WORDS[column], [table["file_name"][row].as_py() for row in rows]
    return (
        f"{where(rows[1])}: {column} {table[column][rows[1]].as_py()!r} stands for two {word}s by the names of the "
        f"recordings, {true[0]} ({files[0]}) and {true[1]} ({files[1]}): give each {word} a separate id, such as "
        f"{true[1].value}, or {_other_remedy(column, true[1].corpus)}"
    )


def _other_remedy(column: str, corpus: KnownCorpus) -> str:
    rename = f"rename recordings that are not {corpus.title}'s"
    return f"rename the column, or {rename}" if column == "session" else rename


def published_speakers(table: pa.Table, known: KnownCorpus | None = None) -> dict[str, dict[str, str]]:
    """Find the speakers of published corpora in a manifest, even if it has only a few of their recordings.

    Args:
        table: A manifest that passed `check_partition`, with `file_name` and `speaker_id`.
        known: The corpus of the manifest, if it is known. Its `bare_name_pattern` is then used too.

    Returns:
        A dict for each published corpus with recordings in the manifest, by the name of the corpus. It maps the
        corpus's own id of a speaker to the id in the manifest.
    """
    names, ids = (pc.cast(table[name], pa.string()).combine_chunks() for name in ("file_name", "speaker_id"))
    rows = rows_by_corpus(names)
    if known:
        rows[known] = [row for row, file in enumerate(names.to_pylist()) if known.speaker_of(file)]
    return {
        corpus.name: {corpus.speaker_of(names[row].as_py()): ids[row].as_py() for row in corpus_rows}
        for corpus, corpus_rows in rows.items()
        if corpus_rows
    }


def notes_on_ids(table: pa.Table, rows: dict[KnownCorpus, list[int]]) -> list[str]:
    """Notes on ids that are suspicious but may be right. Reports show them beside the figures.

    - Ids that differ only in case, leading zeros or separators may stand for one speaker.
    - Ids of a published corpus that stand for other speakers than in that corpus mislead the reader.

    Args:
        table: A manifest with `file_name` and `speaker_id`.
        rows: See `rows_by_corpus`.
    """
    notes = []
    for column in (name for name in WORDS if name in table.column_names):
        groups = similar_ids(pc.unique(table[column]).to_pylist())
        if groups:
            pairs = "; ".join(" and ".join(map(repr, ids)) for ids in groups[:5])
            notes.append(
                f"{column}: {pairs} are taken for different {WORDS[column]}s; correct the manifest if they are not"
            )
    for corpus, corpus_rows in rows.items():
        ids = {
            corpus.speaker_of(table["file_name"][row].as_py()): table["speaker_id"][row].as_py() for row in corpus_rows
        }
        swapped = [(true, value) for true, value in sorted(ids.items()) if value != true and value in ids]
        if swapped:
            true, value = swapped[0]
            notes.append(
                f"speaker_id has {corpus.title}'s own ids for other speakers than the names of its recordings do, "
                f"first {value!r} for speaker {true}"
            )
    return notes


def similar_ids(ids: Iterable[str]) -> list[list[str]]:
    """Group ids that look like the same id: `1` and `01`, `A` and `a`, `Actor_1` and `actor 01`."""
    groups = defaultdict(list)
    for speaker in ids:
        plain = unicodedata.normalize("NFKC", speaker).casefold()
        words = re.sub(r"[\W_]+", " ", plain).strip()
        groups[re.sub(r"(?<!\d)0+(?=\d)", "", words)].append(speaker)
    return sorted(sorted(group) for key, group in groups.items() if key and len(group) > 1)
