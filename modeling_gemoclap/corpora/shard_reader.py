"""Read corpora in Parquet shards, as on the Hub, where labels are stored beside the bytes of the recordings.

Labels are read completely and by column, without the audio. Recordings are read when they are needed, one group of
rows at a time.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import OrderedDict, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..command_line.files import listed, shown
from ..fingerprint import file_sha256
from ..prompts_gemoclap import CONTROL
from .delimited import is_git_lfs_pointer, rename_hint
from .layout import recordings_below
from .shard_columns import (
    AudioColumn,
    as_text,
    audio_column,
    common_root,
    features_of,
    names_in,
    repeated_names,
    resolve,
    text_columns,
)
from .tables import COLUMNS, ManifestError

PLACE_COLUMNS = ("shard", "group", "row")
RESERVED_COLUMNS = (*PLACE_COLUMNS, "path", "audio", "features")  # columns that this package adds itself
# Repeated values take no space in Parquet, so a small file could fill the memory with equal rows. Shards of numbered
# paths have up to 10 rows in a byte.
ROWS_IN_ANY_SHARD, ROWS_PER_BYTE = 1_000_000, 25
GROUPS_AT_A_TIME = 8  # groups of rows whose clips are shuffled together
# The names of the shards of a data set on the Hub: train-00003-of-00012.parquet. Older names end in a hash.
SERIES = re.compile(r"(.*)-(\d{5,})-of-(\d{5,})(?:-[0-9a-f]+)?\.parquet")
CORPUS_NOTE = b"gemoclap"  # the metadata key of a shard with the number of clips in its corpus


def shards_in(folder: Path) -> list[Path]:
    """The sorted Parquet files below a folder. Hidden files are ignored, because they are incomplete."""
    return sorted(folder / name for name in recordings_below(folder, (".parquet",))) if folder.is_dir() else []


@contextmanager
def _open_shard(path: Path) -> Iterator[pq.ParquetFile]:
    try:
        with pq.ParquetFile(path) as file:
            yield file
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        message = f"cannot be read as Parquet ({shown(error)}); write or download the file again"
        if is_git_lfs_pointer(path):
            message = "a git-lfs pointer, not the file; download the file with git lfs pull"
        raise ManifestError(f"{path}: {message}") from None


def read_labels(folder: Path, unlabelled: bool = False) -> pa.Table:
    """Read the labels of all clips in the shards of a folder, without the recordings.

    Args:
        folder: A folder with Parquet files that have the columns `emotion`, `gender`, `speaker_id` (text, or the
            class numbers of a `ClassLabel`) and `audio` (see `AudioColumn`). The name of a clip is its `file_name`.
            Without that column, the name is the path in `audio`; without a path, it is the shard and row. Shard and
            row are also put before a path that several embedded recordings share, because `datasets` stores only the
            last part of a path.
        unlabelled: Whether `emotion` may be missing.

    Returns:
        `COLUMNS`, all other text columns, and for each clip the number of its shard, of its row group in the shard
        and of its row in the group.

    Raises:
        ManifestError: If a file cannot be read or lacks a column, or if a shard is missing.
    """
    files, shards = shards_in(folder), []
    for number, path in enumerate(files):
        with _open_shard(path) as file:
            shards.append(_labels_of(file, path, number, unlabelled))
    _refuse_missing(folder, files)
    root = common_root((name for _, paths, _ in shards for name in paths or ()), folder)
    repeated = repeated_names(paths for _, paths, are_files in shards if paths is not None and not are_files)
    if repeated:
        _refuse_copies(files)
    tables = []
    for path, (table, paths, are_files) in zip(files, shards, strict=True):
        if paths is not None:
            names = names_in(paths, path, folder, are_files, root, repeated)
            table = table.append_column("file_name", pa.array(names, pa.string()))
        tables.append(table)
    return pa.concat_tables(tables, promote_options="default")  # a text column that a shard lacks is null there


def _refuse_copies(files: list[Path]) -> None:
    """Refuse two shards with the same content. Repeated names cannot show this, since other shards repeat them too."""
    of_size = defaultdict(list)
    for path in files:
        of_size[path.stat().st_size].append(path)
    first: dict[str, Path] = {}
    for path in (path for same_size in of_size.values() if len(same_size) > 1 for path in same_size):
        if (earlier := first.setdefault(file_sha256(path), path)) != path:
            raise ManifestError(f"{path}: its content is the same as that of {earlier}; keep one of the files")


def _labels_of(
    file: pq.ParquetFile, path: Path, number: int, unlabelled: bool
) -> tuple[pa.Table, list[str | None] | None, bool]:
    """The labels and places of a shard, the paths in `audio` if it has no `file_name`, and whether they are files."""
    schema, needed = file.schema_arrow, [name for name in COLUMNS[1:] if name != "emotion" or not unlabelled]
    if file.metadata.num_rows > max(ROWS_IN_ANY_SHARD, ROWS_PER_BYTE * (size := path.stat().st_size)):
        raise ManifestError(
            f"{path}: {file.metadata.num_rows:,} rows in {size:,} bytes cannot be recordings; get the file again"
        )
    if unprintable := [name for name in schema.names if CONTROL.search(name)]:
        raise ManifestError(
            f"{path}: the column {unprintable[0]!r:.100} holds a control character; write the file again"
        )
    if missing := [name for name in needed if name not in schema.names]:
        hint = rename_hint(missing, schema.names)
        raise ManifestError(f"{path}: no column {', '.join(missing)}; its columns are {listed(schema.names)}{hint}")
    audio, features = audio_column(schema, path), features_of(schema)
    names = [*(name for name in COLUMNS if name in schema.names), *text_columns(schema)]
    table = file.read(columns=[name for name in names if name not in RESERVED_COLUMNS])
    table.validate(full=True)  # raises an error for text that is not UTF-8
    columns = {name: as_text(table[name], features.get(name), f"{path}: column {name}") for name in table.column_names}
    columns.setdefault("emotion", pa.array([""] * len(table), pa.string()))
    counts = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
    columns["shard"] = np.full(sum(counts), number, np.int32)
    columns["group"] = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    columns["row"] = np.concatenate([np.arange(count, dtype=np.int32) for count in counts] or [np.zeros(0, np.int32)])
    paths = None if "file_name" in schema.names else _paths_of(file, audio)
    return pa.table(columns), paths, audio.form == "path"


def _paths_of(file: pq.ParquetFile, audio: AudioColumn) -> list[str | None]:
    """The path of every recording in the column `audio`, or None."""
    if audio.name_column is None:
        return [None] * file.metadata.num_rows
    values = file.read(columns=[audio.name_column])["audio"].to_pylist()
    return [value["path"] if isinstance(value, dict) else value for value in values]


def _refuse_missing(folder: Path, files: list[Path]) -> None:
    """Find missing shards by the numbers in their names and by the notes in shards of this package."""
    series, clips_by_note = defaultdict(set), defaultdict(int)
    for path in files:
        if match := SERIES.fullmatch(path.name):
            series[path.parent, match[1], match[3]].add(int(match[2]))
        with _open_shard(path) as file:
            clips_by_note[(file.schema_arrow.metadata or {}).get(CORPUS_NOTE)] += file.metadata.num_rows
    for (place, name, total), present in series.items():
        if missing := int(total) - sum(number < int(total) for number in present):
            first = next(number for number in range(int(total)) if number not in present)
            raise ManifestError(
                f"{place}: {missing} of {int(total)} shards are missing, first "
                f"{name}-{first:0{len(total)}d}-of-{total}.parquet; download or write them again"
            )
    for note, clips in clips_by_note.items():
        try:
            expected = json.loads(note)["clips"] if note else clips
        except (ValueError, RecursionError, KeyError, TypeError):
            raise ManifestError(f"{folder}: the metadata of a shard are damaged; write the shards again") from None
        if clips != expected:
            raise ManifestError(
                f"{folder}: its shards hold {clips} clips of the {expected} that were written together; a shard is "
                f"missing or occurs twice: write the shards again"
            )


def shard_states(folder: str | Path) -> bytes:
    """The state of all data in a folder of shards, for fingerprints.

    The result has one line with name, size and modification time for every shard, and for every audio file that a
    shard refers to.

    Args:
        folder: The folder of the shards.
    """
    files = shards_in(Path(folder))
    paths = {path.relative_to(folder).as_posix(): str(path) for path in files}
    for shard in files:
        with _open_shard(shard) as file:
            paths |= {path: path for path in _external_files(file, audio_column(file.schema_arrow, shard), shard)}
    stats = ((name, os.stat(path) if os.path.exists(path) else None) for name, path in paths.items())
    return "".join(f"{name}\t{stat and (stat.st_size, stat.st_mtime_ns)}\n" for name, stat in stats).encode()


def shard_contents(folder: str | Path) -> Iterator[tuple[str, str]]:
    """Give the name and a hash of every shard, and of every audio file that a shard refers to.

    A shard is identified by its size and the hash of its footer, which describes the position of all its data. Audio
    files are hashed completely.

    Args:
        folder: The folder of the shards.
    """
    for path in shards_in(Path(folder)):
        with open(path, "rb") as raw:
            size = raw.seek(0, os.SEEK_END)
            raw.seek(max(0, size - 8))
            footer = int.from_bytes(raw.read(4), "little") + 8
            raw.seek(max(0, size - footer))
            yield path.relative_to(folder).as_posix(), f"{size} {hashlib.sha256(raw.read()).hexdigest()}"
        with _open_shard(path) as file:
            for external in _external_files(file, audio_column(file.schema_arrow, path), path):
                yield os.path.basename(external), file_sha256(external) if os.path.isfile(external) else ""


def _external_files(file: pq.ParquetFile, audio: AudioColumn, shard: Path) -> list[str]:
    """The paths of recordings that are in separate audio files instead of the shard."""
    if audio.form == "path" or audio.parts == ("path",):
        return [resolve(shard.parent, path) for path in _paths_of(file, audio) if path]
    if not {"bytes", "path"} <= {*audio.parts}:
        return []
    paths = []
    for group in range(file.num_row_groups):
        columns = map(file.metadata.row_group(group).column, range(file.metadata.num_columns))
        bytes_column = next(column for column in columns if column.path_in_schema == "audio.bytes")
        if bytes_column.statistics is not None and bytes_column.statistics.null_count == 0:
            continue
        values = file.read_row_group(group, columns=["audio.bytes", "audio.path"])["audio"].to_pylist()
        paths += [value["path"] for value in values if value and value["bytes"] is None and value["path"]]
    return [resolve(shard.parent, path) for path in paths]


class ShardReader:
    """Reads recordings from shards, and keeps the last groups of rows in memory.

    Args:
        folder: The folder of the shards.
        groups: The number of groups of rows to keep.
    """

    def __init__(self, folder: str | Path, groups: int = GROUPS_AT_A_TIME + 2):
        self.folder, self.paths = Path(folder), shards_in(Path(folder))
        self.groups = groups
        self._cache: OrderedDict[tuple[int, int], tuple[AudioColumn, pa.Table]] = OrderedDict()

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_cache": OrderedDict()}  # each worker fills its own cache

    def read(self, place: dict) -> dict:
        """Read one recording.

        Args:
            place: A row of the corpus, with `shard`, `group`, `row` and `file_name`.

        Returns:
            A dict for `read_audio`: `bytes` of an encoded recording, or `array` and `sampling_rate`, with the name of
            the clip as `path`; or only the `path` of an audio file.

        Raises:
            ManifestError: If the shard can no longer be read, or if a relative path leads out of the corpus folder.
        """
        path, key = self.paths[place["shard"]], (place["shard"], place["group"])
        if key not in self._cache:
            while len(self._cache) >= self.groups:
                self._cache.popitem(last=False)
            with _open_shard(path) as file:
                audio = audio_column(file.schema_arrow, path)
                table = file.read_row_group(key[1], columns=audio.columns)
                table.validate(full=True)
                self._cache[key] = audio, table
        self._cache.move_to_end(key)
        audio, table = self._cache[key]
        recording = audio.recording(table, place["row"], path.parent, f"{path}, {place['file_name']}")
        if recording.keys() == {"path"}:
            self._refuse_outside(recording["path"], path, place)
        return recording

    def _refuse_outside(self, recording: str, shard: Path, place: dict) -> None:
        """Refuse a path with `..` that leaves the corpus folder; `check_rows` sees the column `file_name` alone."""
        inside = Path(os.path.abspath(recording)).is_relative_to(os.path.abspath(self.folder))
        if ".." in Path(recording).parts and not inside:
            name = f"{shard}, {place['file_name']}"
            raise ManifestError(f"{name}: its path in the column audio leads out of the corpus folder; correct it")
