"""The known published corpora, and the search for the one that a folder holds."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from . import casia, cremad, emodb, esd, iemocap, nemo, ravdess
from .layout import KnownCorpus, recordings_below
from .suffixes import OTHER_AUDIO
from .tables import COLUMNS, ManifestError

CORPORA: dict[str, KnownCorpus] = {
    module.CORPUS.name: module.CORPUS for module in (casia, cremad, emodb, esd, iemocap, nemo, ravdess)
}
OTHER_FORMS = f"any other corpus needs a metadata.csv ({', '.join(COLUMNS)}, ...) or Parquet shards"


def identify_corpus(
    name: str | None, counts: dict[KnownCorpus, int], files: list[str], folder: Path
) -> KnownCorpus | None:
    """Find the published corpus that recordings belong to by their names.

    Args:
        name: The corpus that the user named, or None.
        counts: The number of recordings that are named like those of each corpus.
        files: The paths of all recordings.
        folder: The folder of the recordings, for errors.

    Returns:
        The corpus, or None if the names match no known corpus and the user named none.

    Raises:
        ManifestError: If the recordings belong to several corpora, or to another corpus than the user named.
    """
    likeliest, named = max(counts, key=counts.get), CORPORA.get((name or "").lower())
    detected = likeliest if 2 * counts[likeliest] > len(files) else None
    several = [f"{count} recordings of {corpus.title}" for corpus, count in counts.items() if 10 * count > len(files)]
    if len(several) > 1:
        raise ManifestError(
            f"{folder} holds {' and '.join(several)}; give the folder of one corpus, or a folder for each"
        )
    if detected and named and detected is not named:
        raise ManifestError(
            f"{folder}: this looks like {detected.title}, not like {named.title}: its recordings are named like "
            f"{files[0]}; give --corpus_name {detected.name}, or another folder"
        )
    if named and not detected and 2 * sum(named.speaker_of(file) is not None for file in files) > len(files):
        return named
    return detected


def where_to_get(name: str) -> str:
    """The end of an error about a missing corpus: where to download it, or "" if its name is unknown."""
    corpus = CORPORA.get(name.lower().replace("-", ""))
    return f"; download {corpus.title} from {corpus.url} ({corpus.licence})" if corpus else ""


def read_layout(
    folder: Path, name: str | None = None, unlabelled: bool = False
) -> tuple[KnownCorpus, pa.Table, list[str]]:
    """Read a published corpus from the folder that users download.

    Args:
        folder: The folder, or a folder above it.
        name: The corpus that the user named, or None to detect it from the recordings.
        unlabelled: See `KnownCorpus.read`.

    Returns:
        The corpus, a table of its recordings, and notes on the excluded recordings.

    Raises:
        ManifestError: If the folder has no recordings, if they belong to no known corpus or to another corpus than the
            user named, or if a label is unknown.
    """
    files = _find_recordings(folder, name)
    counts = {corpus: sum(corpus.match(file) is not None for file in files) for corpus in CORPORA.values()}
    known = identify_corpus(name, counts, files, folder)
    if known is None:
        titles = ", ".join(corpus.title for corpus in CORPORA.values())
        raise ManifestError(
            f"{folder}: it has no metadata.csv, and its recordings, like {files[0]}, are not named as those of "
            f"{titles} are; {OTHER_FORMS}"
        )
    rows, notes = known.read(folder, files, unlabelled)
    if not rows:
        raise ManifestError(f"{folder}: no recording of {known.title} can be used: {'; '.join(notes)}")
    columns = [*COLUMNS, "session", "transcript"]
    return known, pa.table({column: pa.array([row[column] for row in rows], pa.string()) for column in columns}), notes


def _find_recordings(folder: Path, name: str | None) -> list[str]:
    if folder.is_file():
        raise ManifestError(f"{folder}: this is a file; give the folder that holds it")
    if not folder.is_dir():
        raise ManifestError(f"{folder}: no such folder{where_to_get(name or folder.name)}")
    files = recordings_below(folder)
    if not files:
        others, source = recordings_below(folder, OTHER_AUDIO), where_to_get(name or folder.name)
        hint = f"; {len(others)} recordings are in other formats, first {others[0]}" if others else ""
        raise ManifestError(
            f"{folder}: it has no metadata.csv and no recordings (.wav, .flac){hint}; {OTHER_FORMS}{source}"
        )
    return files
