"""Read a corpus folder of any form into a checked table: a download, a `metadata.csv`, or Parquet shards."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from ..command_line.files import listed
from .catalogue import identify_corpus, read_layout
from .delimited import read_csv, rename_hint
from .layout import KnownCorpus, recordings_below
from .partition import check_partition, check_speaker_ids, notes_on_ids
from .shard_reader import PLACE_COLUMNS, read_labels, shards_in
from .tables import COLUMNS, ManifestError, check_rows

# Manifests and archives in formats that are not read. An error or a note names such a file.
OTHER_MANIFESTS = (".csv", ".tsv", ".txt", ".json", ".jsonl", ".xls", ".xlsx", ".ods")
ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".arrow")


class FolderContents(NamedTuple):
    """The contents of a corpus folder.

    Args:
        known: The published corpus, if it is one.
        table: `COLUMNS` and all other text columns, checked.
        places: Columns with the place of each recording: its path, or its place in shards.
        notes: Notes for reports.
        in_shards: Whether the recordings are in Parquet shards.
    """

    known: KnownCorpus | None
    table: pa.Table
    places: dict[str, pa.Array]
    notes: list[str]
    in_shards: bool = False


def read_folder(folder: Path, name: str | None, emotions: dict[str, str] | None) -> FolderContents:
    """Read a corpus folder.

    Args:
        folder: The folder.
        name: The corpus that the user named, or None.
        emotions: Emotion words beyond the canonical ones, see `check_rows`. None: read no emotion.

    Raises:
        ManifestError: If the folder cannot be used, see `load_corpus`.
    """
    if (folder / "metadata.csv").is_file():
        contents = _read_manifest(folder, name, emotions)
    elif shards_in(folder):
        contents = _read_shards(folder, name, emotions)
    else:
        contents = _read_download(folder, name, emotions)
    if contents.known and emotions is not None:
        speakers = pc.unique(contents.table["speaker_id"]).to_pylist()
        contents.notes.extend(contents.known.differences(contents.table["emotion"].to_pylist(), speakers))
    return contents


def _read_manifest(folder: Path, name: str | None, emotions: dict[str, str] | None) -> FolderContents:
    path = folder / "metadata.csv"
    table, lines = read_csv(path)
    if emotions is None and "emotion" not in table.column_names:
        table = table.append_column("emotion", pa.array([""] * len(table), pa.string()))
    if missing := [column for column in COLUMNS if column not in table.column_names]:
        present = table.column_names
        hint = rename_hint(missing, present)
        raise ManifestError(f"{path}: no column {', '.join(missing)}; its columns are {listed(present)}{hint}")
    known, checked, notes = _check(table, folder, name, emotions, lambda row: f"{path}, line {lines[row]}")
    return FolderContents(known, checked, _paths(folder, checked), notes)


def _read_shards(folder: Path, name: str | None, emotions: dict[str, str] | None) -> FolderContents:
    table = read_labels(folder, unlabelled=emotions is None)
    if not len(table):
        raise ManifestError(f"{folder}: the shards hold no clips; give another folder, or write the shards again")
    files, places = shards_in(folder), table.select(PLACE_COLUMNS)
    labels = table.drop_columns(list(PLACE_COLUMNS))
    known, checked, notes = _check(labels, folder, name, emotions, lambda row: _row_name(files, places, row))
    if recordings := recordings_below(folder):
        in_shards = set(checked["file_name"].to_pylist())
        others = [file for file in recordings if file not in in_shards]
        notes += [f"{len(others)} recordings beside the shards are not read, first {others[0]}"] if others else []
    return FolderContents(known, checked, {column: places[column] for column in PLACE_COLUMNS}, notes, True)


def _read_download(folder: Path, name: str | None, emotions: dict[str, str] | None) -> FolderContents:
    files = sorted(path for path in folder.glob("*") if path.is_file())
    manifests = (path for path in files if path.stem.lower() == "metadata" and path.suffix.lower() in OTHER_MANIFESTS)
    other = next(manifests, None)
    archive = next((path for path in files if path.suffix.lower() in ARCHIVES), None)
    try:
        known, table, notes = read_layout(folder, name, unlabelled=emotions is None)
    except ManifestError as error:
        hint = f"; {other.name} is there, but not read: save it as metadata.csv" if other else ""
        hint = f"; {archive.name} is there, but not read: unpack it, or write it as Parquet" if archive else hint
        raise ManifestError(f"{error}{hint}") from None
    notes += [f"{other.name} is there, but not read: labels are those of {known.title}'s own layout"] if other else []
    checked = check_rows(table, lambda row: str(folder / table["file_name"][row].as_py()), emotions)
    return FolderContents(known, checked, _paths(folder, checked), notes)


def _check(
    table: pa.Table, folder: Path, name: str | None, emotions: dict[str, str] | None, where: Callable[[int], str]
) -> tuple[KnownCorpus | None, pa.Table, list[str]]:
    """Check the rows of a manifest and identify its published corpus. Returns the corpus, the rows and notes."""
    checked = check_rows(table, where, emotions)
    rows, files = check_partition(checked, where), checked["file_name"].to_pylist()
    counts = {corpus: len(corpus_rows) for corpus, corpus_rows in rows.items()}
    known = identify_corpus(name, counts, files, folder)
    if known and 2 * len(rows[known]) <= len(files):  # the user named it, and the paths have no folders
        rows[known] = [row for row, file in enumerate(files) if known.speaker_of(file)]
        check_speaker_ids(checked, rows, where)
    notes = notes_on_ids(checked, rows)
    for corpus, corpus_rows in rows.items():
        labels = checked.select(["file_name", "emotion", "gender"]).take(pa.array(corpus_rows, pa.int64()))
        notes += corpus.contradictions(zip(*(column.to_pylist() for column in labels.columns), strict=True))
    return known, checked, notes


def _paths(folder: Path, table: pa.Table) -> dict[str, pa.Array]:
    """The paths of the recordings. File systems may store accents in another Unicode form than the manifest."""
    names = table["file_name"].combine_chunks()
    accented = pc.invert(pc.string_is_ascii(names))
    on_disk = [_name_on_disk(folder, name) for name in names.filter(accented).to_pylist()]
    names = pc.replace_with_mask(names, accented, pa.array(on_disk, pa.string()))
    return {"path": pc.binary_join_element_wise(str(folder.resolve()), names, os.sep)}


def _name_on_disk(folder: Path, name: str) -> str:
    forms = [name, *(unicodedata.normalize(form, name) for form in ("NFC", "NFD"))]
    return next((form for form in forms if os.path.exists(folder / form)), name)  # Path.exists fails for long names


def _row_name(files: list[Path], places: pa.Table, row: int) -> str:
    shard, group, number = (places[column][row].as_py() for column in PLACE_COLUMNS)
    return f"{files[shard]}, row {number} of group {group}"
