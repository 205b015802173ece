"""Checks of speakers and sessions in a manifest against the names of published recordings."""

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
    """Check the recordings of all published corpora in a manifest, even if it has only a few.

    Args:
        table: A manifest, see `refuse_other_partition`.
        where: How errors name a row.

    Returns:
        The rows with recordings of each corpus.

    Raises:
        ManifestError: As `refuse_other_partition`.
    """
    rows = rows_by_corpus(pc.cast(table["file_name"], pa.string()).combine_chunks())
    refuse_other_partition(table, rows, where)
    return rows


def rows_by_corpus(names: pa.Array) -> dict[KnownCorpus, list[int]]:
    """The rows whose recordings are named like those of each published corpus; for most corpora none.

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

    Ids may be spelled in any way (`Actor_01` for `01`): only the grouping of recordings counts. Both kinds of
    contradiction are refused:

    - Split: one speaker has two ids. The speaker may be trained on and judged at the same time.
    - Merged: two speakers share an id. Nothing leaks, since they are always on the same side of a split. But the
      number of speakers and all intervals are wrong, the gender of the id is ambiguous, and the record of heard
      speakers cannot be compared with other copies of the corpus.

    Recordings whose names do not contain the speaker are not checked, nor are rows without a session.

    Args:
        table: A manifest with `file_name` and `speaker_id`, perhaps `session`.
        rows: See `rows_by_corpus`.
        where: How errors name a row.

    Raises:
        ManifestError: If there is such a speaker or id.
    """
    for column in (name for name in WORDS if name in table.column_names):
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


def published_speakers(table: pa.Table, known: KnownCorpus | None = None) -> dict[str, dict[str, str]]:
    """The speakers of published corpora in a manifest, even if it has only a few of their recordings.

    Args:
        table: A manifest that passed `check_partition`: `file_name` and `speaker_id`.
        known: The corpus of the manifest, if it is known; its pattern `flat` is then used too.

    Returns:
        A dict for each published corpus with recordings here, by the name of the corpus: from the corpus's own id of
        a speaker to the id in the manifest.
    """
    names, ids = (pc.cast(table[name], pa.string()).combine_chunks() for name in ("file_name", "speaker_id"))
    rows = rows_by_corpus(names)
    if known:
        rows[known] = [row for row, file in enumerate(names.to_pylist()) if known.speaker_of(file)]
    found = {}
    for corpus, own in rows.items():
        if own:
            found[corpus.name] = {corpus.speaker_of(names[row].as_py()): ids[row].as_py() for row in own}
    return found


def remarks_on_ids(table: pa.Table, rows: dict[KnownCorpus, list[int]]) -> list[str]:
    """Remarks on ids that may be right but look wrong; reports show them beside the figures.

    - Ids that differ only in case, leading zeros or separators may stand for one speaker.
    - Ids of a published corpus that stand for other speakers than in that corpus mislead the reader.

    Args:
        table: A manifest with `file_name` and `speaker_id`.
        rows: See `rows_by_corpus`.
    """
    notes = []
    for column in (name for name in WORDS if name in table.column_names):
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
    """Groups of ids that look like the same id: `1` and `01`, `A` and `a`, `Actor_1` and `actor 01`."""
    groups = defaultdict(list)
    for one in ids:
        plain = unicodedata.normalize("NFKC", one).casefold()
        words = re.sub(r"[\W_]+", " ", plain).strip()
        groups[re.sub(r"(?<!\d)0+(?=\d)", "", words)].append(one)
    return sorted(sorted(group) for key, group in groups.items() if key and len(group) > 1)
