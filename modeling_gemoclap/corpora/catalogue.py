"""The published corpora that are known, and which of them a folder holds."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from . import casia, cremad, emodb, esd, iemocap, ravdess
from .layout import OTHER_AUDIO, KnownCorpus, recordings_below
from .tables import COLUMNS, ManifestError

CORPORA: dict[str, KnownCorpus] = {
    module.CORPUS.name: module.CORPUS for module in (casia, cremad, emodb, esd, iemocap, ravdess)
}


def known_corpus(
    name: str | None, counts: dict[KnownCorpus, int], files: list[str], folder: Path
) -> KnownCorpus | None:
    """The published corpus that recordings belong to, by their names.

    Args:
        name: What the corpus is said to be, or None.
        counts: How many of the recordings are named like those of each corpus.
        files: Paths of all recordings.
        folder: Where they lie, for errors.

    Returns:
        The corpus; None if they look like none and no known corpus was named.

    Raises:
        ManifestError: If a known corpus was named and these are recordings of another one.
    """
    likeliest, named = max(counts, key=counts.get), CORPORA.get((name or "").lower())
    found = likeliest if 2 * counts[likeliest] > len(files) else None
    several = [f"{count} recordings of {corpus.title}" for corpus, count in counts.items() if 10 * count > len(files)]
    if len(several) > 1:
        raise ManifestError(f"{folder} holds {' and '.join(several)}: point to one of them, or to each")
    if found and named and found is not named:
        raise ManifestError(
            f"{folder}: this looks like {found.title}, not like {named.title}: its recordings are named like "
            f"{files[0]}; give --corpus_name {found.name}, or another folder"
        )
    if named and not found and 2 * sum(named.speaker_of(file) is not None for file in files) > len(files):
        return named
    return found


def where_to_get(name: str) -> str:
    """The end of an error about a corpus that is not there: where it can be had, if its name is known."""
    corpus = CORPORA.get(name.lower().replace("-", ""))
    return f"; {corpus.title} can be had from {corpus.url} ({corpus.licence})" if corpus else ""


def read_layout(
    folder: Path, name: str | None = None, unlabelled: bool = False
) -> tuple[KnownCorpus, pa.Table, list[str]]:
    """Read a corpus from the folder that one downloads.

    Args:
        folder: The folder, or one above it.
        name: What the corpus is said to be, or None to see from its recordings.
        unlabelled: As for `KnownCorpus.read`.

    Returns:
        The corpus; a table of its recordings; remarks about what was left out.

    Raises:
        ManifestError: If the folder has no recordings, or none of a known corpus, or of another than was named, or
            a label is not known.
    """
    if folder.is_file():
        raise ManifestError(f"{folder}: this is a file; give the folder that it lies in")
    if not folder.is_dir():
        raise ManifestError(f"{folder}: no such folder{where_to_get(name or folder.name)}")
    files = recordings_below(folder)
    titles = ", ".join(corpus.title for corpus in CORPORA.values())
    own = f"one's own corpus is a folder with a metadata.csv ({', '.join(COLUMNS)}, ...) or with Parquet shards"
    if not files:
        place, others = where_to_get(name or folder.name), recordings_below(folder, OTHER_AUDIO)
        there = f"; {len(others)} recordings are in other formats, first {others[0]}" if others else ""
        raise ManifestError(f"{folder}: no metadata.csv there, and no recordings (.wav, .flac){there}; {own}{place}")
    counts = {corpus: sum(map(corpus.owns, files)) for corpus in CORPORA.values()}
    known = known_corpus(name, counts, files, folder)
    if known is None:
        raise ManifestError(
            f"{folder}: no metadata.csv there, and its recordings, like {files[0]}, are not named as those of "
            f"{titles} are; {own}"
        )
    rows, notes = known.read(folder, files, unlabelled)
    if not rows:
        raise ManifestError(f"{folder}: no recording of {known.title} is left: {'; '.join(notes)}")
    columns = [*COLUMNS, "session", "transcript"]
    return known, pa.table({column: pa.array([row[column] for row in rows], pa.string()) for column in columns}), notes
