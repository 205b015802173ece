"""Whether a manifest tells speakers and sessions apart as the names of published recordings do."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable

import pyarrow as pa
import pyarrow.compute as pc

from .catalogue import CORPORA
from .layout import KnownCorpus
from .tables import ManifestError

WORDS = {"speaker_id": "speaker", "session": "session"}


def check_partition(table: pa.Table, where: Callable[[int], str]) -> dict[KnownCorpus, list[int]]:
    """Check the recordings of all published corpora in a manifest, however few they are.

    Args:
        table: A manifest, see `refuse_other_partition`.
        where: How errors name a row.

    Returns:
        Which rows hold recordings of each corpus.

    Raises:
        ManifestError: As `refuse_other_partition`.
    """
    rows = rows_by_corpus(pc.cast(table["file_name"], pa.string()).combine_chunks())
    refuse_other_partition(table, rows, where)
    return rows


def rows_by_corpus(names: pa.Array) -> dict[KnownCorpus, list[int]]:
    """Which rows hold recordings that are named like those of each published corpus; most have none.

    Args:
        names: Paths of recordings, text.
    """
    found = {}
    for corpus in CORPORA.values():
        likely = pc.indices_nonzero(pc.match_substring_regex(names, corpus.rough_pattern)).to_pylist()
        found[corpus] = [row for row in likely if corpus.says(names[row].as_py())]
    return found


def refuse_other_partition(table: pa.Table, rows: dict[KnownCorpus, list[int]], where: Callable[[int], str]) -> None:
    """Make sure that every speaker (and session) of published recordings has one id, and every id one speaker.

    Ids may be spelled in any way (`Actor_01` for `01`): what counts is which recordings they hold together. A speaker
    with two ids is trained on and judged at once. Two speakers with one id are never parted, so that nothing leaks;
    but they are counted, drawn and reported as one, so that the number of speakers and every interval are wrong, and
    their genders and what a checkpoint has heard are mixed up. Both are refused. Recordings whose names tell no
    speaker are not looked at, nor are rows without a session.

    Args:
        table: A manifest with `file_name` and `speaker_id`, perhaps `session`.
        rows: See `rows_by_corpus`. They may be few among many others.
        where: How errors name a row.

    Raises:
        ManifestError: If there is such a speaker or id.
    """
    for column in WORDS.keys() & set(table.column_names):
        ids, files = table[column], table["file_name"]
        true: dict[tuple[KnownCorpus, str], tuple[str, int]] = {}
        given: dict[str, tuple[tuple[KnownCorpus, str], int]] = {}
        for corpus, own in rows.items():
            for row in own:
                said, value = corpus.says(files[row].as_py(), flat=True).get(column), ids[row].as_py()
                if not said or not value:
                    continue
                first_id, first_row = true.setdefault((corpus, said), (value, row))
                if first_id != value:
                    raise ManifestError(_split(column, corpus, said, table, (first_row, row), where))
                other, first_row = given.setdefault(value, ((corpus, said), row))
                if other != (corpus, said):
                    raise ManifestError(_merged(column, (other, (corpus, said)), table, (first_row, row), where))


def _split(column: str, corpus: KnownCorpus, said: str, table: pa.Table, rows: tuple[int, int], where) -> str:
    first, second = (f"{table[column][row].as_py()!r} for {table['file_name'][row].as_py()}" for row in rows)
    return (
        f"{where(rows[1])}: {column} is {second}, but {first}; by their names both are of {WORDS[column]} {said} of "
        f"{corpus.title}, which would be trained on and judged: give each {WORDS[column]} one id, as {said}, or "
        f"{_otherwise(column, corpus)}"
    )


def _merged(column: str, of: tuple, table: pa.Table, rows: tuple[int, int], where) -> str:
    (first, second), word = (f"{said} of {corpus.title}" for corpus, said in of), WORDS[column]
    files = [table["file_name"][row].as_py() for row in rows]
    return (
        f"{where(rows[1])}: {column} {table[column][rows[1]].as_py()!r} stands for two {word}s by the names of the "
        f"recordings, {first} ({files[0]}) and {second} ({files[1]}): give each {word} an id of its own, as "
        f"{of[1][1]}, or {_otherwise(column, of[1][0])}"
    )


def _otherwise(column: str, corpus: KnownCorpus) -> str:
    rename = f"rename recordings that are not {corpus.title}'s"
    return f"call the column otherwise, or {rename}" if column == "session" else rename


def remarks_on_ids(table: pa.Table, rows: dict[KnownCorpus, list[int]]) -> list[str]:
    """What is odd about the ids of a manifest though it may be right; to be told beside any figure.

    Ids that differ only in case, leading zeros, blanks or marks between words may be one speaker. Ids that are a
    published corpus's own, but of other speakers than there, mislead who reads them.

    Args:
        table: A manifest with `file_name` and `speaker_id`.
        rows: See `rows_by_corpus`.
    """
    notes = []
    for column in WORDS.keys() & set(table.column_names):
        alike = alike_ids(pc.unique(table[column]).to_pylist())
        if alike:
            pairs = "; ".join(" and ".join(map(repr, ids)) for ids in alike[:5])
            notes.append(
                f"{column}: {pairs} are taken for different {WORDS[column]}s; correct the manifest if they are not"
            )
    for corpus, own in rows.items():
        said = {corpus.speaker_of(table["file_name"][row].as_py()): table["speaker_id"][row].as_py() for row in own}
        swapped = [(true, given) for true, given in sorted(said.items()) if given != true and given in said]
        if swapped:
            true, given = swapped[0]
            notes.append(
                f"speaker_id has {corpus.title}'s own ids for other speakers than the names of its recordings do, "
                f"first {given!r} for speaker {true}"
            )
    return notes


def alike_ids(ids: Iterable[str]) -> list[list[str]]:
    """Groups of ids that a reader would take for one: `1` and `01`, `A` and `a`, `Actor_1` and `actor 01`."""
    groups = defaultdict(list)
    for one in ids:
        plain = unicodedata.normalize("NFKC", one).casefold()
        words = re.sub(r"[\W_]+", " ", plain).strip()
        groups[re.sub(r"(?<!\d)0+(?=\d)", "", words)].append(one)
    return sorted(sorted(group) for key, group in groups.items() if key and len(group) > 1)
