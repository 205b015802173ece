"""A corpus folder of any form as a checked table: as one downloads it, with `metadata.csv`, or with Parquet shards."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from .catalogue import known_corpus, read_layout
from .delimited import read_csv, rename_hint
from .layout import KnownCorpus, recordings_below
from .partition import check_partition, refuse_other_partition, remarks_on_ids
from .shards import PLACE, read_labels, shards_in
from .tables import COLUMNS, ManifestError, check_rows

# Manifests and archives in other formats: if one is there, an error or a remark says that it is not read.
OTHER_MANIFESTS = (".csv", ".tsv", ".txt", ".json", ".jsonl", ".xls", ".xlsx", ".ods")
PACKED = (".zip", ".tar", ".gz", ".tgz", ".arrow")


class Folder(NamedTuple):
    """What a folder holds.

    Args:
        known: The published corpus, if it is one.
        table: `COLUMNS` and all other text columns, checked.
        added: Columns with the place of each recording: its path, or its place in shards.
        notes: Remarks for reports.
        in_shards: Whether the recordings are in Parquet shards.
    """

    known: KnownCorpus | None
    table: pa.Table
    added: dict[str, pa.Array]
    notes: list[str]
    in_shards: bool


def read_folder(folder: Path, name: str | None, emotions: dict[str, str] | None) -> Folder:
    """Read a corpus folder.

    Args:
        folder: The folder.
        name: What the corpus is said to be, or None.
        emotions: Words for emotions beyond the canonical ones, see `check_rows`; None: no emotion is read.

    Raises:
        ManifestError: If it cannot be used, see `load_corpus`.
    """
    if (folder / "metadata.csv").is_file():
        read, in_shards = _from_csv(folder, name, emotions), False
    elif shards_in(folder):
        read, in_shards = _from_shards(folder, name, emotions), True
    else:
        read, in_shards = _from_layout(folder, name, emotions), False
    known, checked, added, notes = read
    if known and emotions is not None:
        notes += known.differences(checked["emotion"].to_pylist(), pc.unique(checked["speaker_id"]).to_pylist())
    return Folder(known, checked, added, notes, in_shards)


def _from_csv(folder: Path, name: str | None, emotions: dict[str, str] | None):
    path = folder / "metadata.csv"
    table, lines = read_csv(path)
    if emotions is None and "emotion" not in table.column_names:
        table = table.append_column("emotion", pa.array([""] * len(table), pa.string()))
    if missing := [column for column in COLUMNS if column not in table.column_names]:
        found = table.column_names
        hint = rename_hint(missing, found)
        raise ManifestError(f"{path}: no column {', '.join(missing)}; its columns are {', '.join(found)}{hint}")
    known, checked, notes = _checked(table, folder, name, emotions, lambda row: f"{path}, line {lines[row]}")
    return known, checked, _paths(folder, checked), notes


def _from_shards(folder: Path, name: str | None, emotions: dict[str, str] | None):
    table = read_labels(folder, unlabelled=emotions is None)
    if not len(table):
        raise ManifestError(f"{folder}: its shards hold no clips")
    files, place = shards_in(folder), table.select(PLACE)
    labels = table.drop_columns(list(PLACE))
    known, checked, notes = _checked(labels, folder, name, emotions, lambda row: _place(files, place, row))
    if recordings := recordings_below(folder):
        named = set(checked["file_name"].to_pylist())
        others = [one for one in recordings if one not in named]
        notes += [f"{len(others)} recordings beside the shards are not read, first {others[0]}"] if others else []
    return known, checked, {column: place[column] for column in PLACE}, notes


def _from_layout(folder: Path, name: str | None, emotions: dict[str, str] | None):
    files = sorted(path for path in folder.glob("*") if path.is_file())
    other = next(
        (path for path in files if path.stem.lower() == "metadata" and path.suffix.lower() in OTHER_MANIFESTS), None
    )
    packed = next((path for path in files if path.suffix.lower() in PACKED), None)
    try:
        known, table, notes = read_layout(folder, name, unlabelled=emotions is None)
    except ManifestError as error:
        hint = f"; {other.name} is there, but not read: save it as metadata.csv" if other else ""
        hint = f"; {packed.name} is there, but not read: unpack it, or write it as Parquet" if packed else hint
        raise ManifestError(f"{error}{hint}") from None
    notes += [f"{other.name} is there, but not read: labels are those of {known.title}'s own layout"] if other else []
    checked = check_rows(table, lambda row: str(folder / table["file_name"][row].as_py()), emotions)
    return known, checked, _paths(folder, checked), notes


def _checked(
    table: pa.Table, folder: Path, name: str | None, emotions: dict[str, str] | None, where: Callable[[int], str]
) -> tuple[KnownCorpus | None, pa.Table, list[str]]:
    """The published corpus that a manifest is of, its checked rows, and remarks."""
    checked = check_rows(table, where, emotions)
    rows, files = check_partition(checked, where), checked["file_name"].to_pylist()
    known = known_corpus(name, {corpus: len(own) for corpus, own in rows.items()}, files, folder)
    if known and 2 * len(rows[known]) <= len(files):  # named so, and its recordings lie in no folders
        rows[known] = [row for row, file in enumerate(files) if known.speaker_of(file)]
        refuse_other_partition(checked, rows, where)
    notes = remarks_on_ids(checked, rows)
    for corpus, own in rows.items():
        some = checked.select(["file_name", "emotion", "gender"]).take(pa.array(own, pa.int64()))
        notes += corpus.contradictions(zip(*(column.to_pylist() for column in some.columns), strict=True))
    return known, checked, notes


def _paths(folder: Path, table: pa.Table) -> dict[str, pa.Array]:
    """The paths of recordings. File systems may store accents in another Unicode form than the manifest."""
    names = table["file_name"].combine_chunks()
    accented = pc.invert(pc.string_is_ascii(names))
    there = [_as_on_disk(folder, name) for name in names.filter(accented).to_pylist()]
    names = pc.replace_with_mask(names, accented, pa.array(there, pa.string()))
    return {"path": pc.binary_join_element_wise(str(folder.resolve()), names, os.sep)}


def _as_on_disk(folder: Path, name: str) -> str:
    forms = [name, *(unicodedata.normalize(form, name) for form in ("NFC", "NFD"))]
    return next((form for form in forms if (folder / form).exists()), name)


def _place(files: list[Path], place: pa.Table, row: int) -> str:
    shard, group, number = (place[column][row].as_py() for column in PLACE)
    return f"{files[shard]}, row {number} of group {group}"
