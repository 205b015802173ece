"""Corpora in Parquet shards, as on the Hub: labels beside the bytes of the recordings.

    python -m modeling_gemoclap.corpora.shards CORPUS FOLDER

Labels are read whole and by column, without the audio; recordings one group of rows at a time, when they are needed.
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

from ..command_line.failures import report_uncaught_errors, run_main
from ..command_line.parser import RaisingParser, expanded

if __name__ == "__main__":
    report_uncaught_errors("shards")  # those of the imports below too

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..fingerprint import file_sha256
from .delimited import is_pointer, rename_hint
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

PLACE = ("shard", "group", "row")
RESERVED = (*PLACE, "path", "audio", "features")  # names that this package uses for columns of its own
GROUPS_AT_A_TIME = 8  # whose clips are shuffled together
# The Hub's names for the shards of a data set: train-00003-of-00012.parquet; older ones end in a hash.
SERIES = re.compile(r"(.*)-(\d{5,})-of-(\d{5,})(?:-[0-9a-f]+)?\.parquet")
WHOLE = b"gemoclap"  # metadata key of a shard: how many clips its corpus has


def shards_in(folder: Path) -> list[Path]:
    """The Parquet files below a folder, sorted. Hidden files are ignored: they are being written."""
    return sorted(folder / name for name in recordings_below(folder, (".parquet",))) if folder.is_dir() else []


@contextmanager
def _opened(path: Path) -> Iterator[pq.ParquetFile]:
    try:
        with pq.ParquetFile(path) as file:
            yield file
    except (OSError, pa.ArrowException) as error:
        what = f"cannot be read as Parquet ({error}); write or fetch it anew"
        if is_pointer(path):
            what = "a git-lfs pointer, not the file itself; fetch it by git lfs pull"
        raise ManifestError(f"{path}: {what}") from None


def read_labels(folder: Path, unlabelled: bool = False) -> pa.Table:
    """Read the labels of all clips in the shards of a folder, without the recordings.

    Args:
        folder: A folder with Parquet files that have the columns `emotion`, `gender`, `speaker_id` (text, or the
            class numbers of a `ClassLabel`) and `audio` (see `AudioColumn`). The name of a clip is its `file_name`;
            without that column, the path in `audio`; without a path, its shard and row. A path that several embedded
            recordings have, as `datasets` keeps only the last part of a path, gets shard and row in front.
        unlabelled: Whether `emotion` may be missing.

    Returns:
        `COLUMNS`, all other text columns, and for each clip the number of its shard, of its row group in the shard
        and of its row in the group.

    Raises:
        ManifestError: If a file cannot be read or lacks a column, or if a shard is missing.
    """
    files, tables = shards_in(folder), []
    for number, path in enumerate(files):
        with _opened(path) as file:
            tables.append(_labels_of(file, path, number, unlabelled))
    _refuse_missing(folder, files)
    root = common_root((name for _, raw, _ in tables for name in raw or ()), folder)
    repeated = repeated_names(raw for _, raw, is_file in tables if raw is not None and not is_file)
    if repeated:
        _refuse_copies(files)
    named = []
    for path, (table, raw, is_file) in zip(files, tables, strict=True):
        if raw is not None:
            names = names_in(raw, path, folder, is_file, root, repeated)
            table = table.append_column("file_name", pa.array(names, pa.string()))
        named.append(table)
    return pa.concat_tables(named, promote_options="default")  # a text column that a shard lacks is null there


def _refuse_copies(files: list[Path]) -> None:
    """Refuse a shard that stands there twice, where names do not tell: they repeat in other shards too."""
    of_size = defaultdict(list)
    for path in files:
        of_size[path.stat().st_size].append(path)
    seen: dict[str, Path] = {}
    for path in (path for same in of_size.values() if len(same) > 1 for path in same):
        if (earlier := seen.setdefault(file_sha256(path), path)) != path:
            raise ManifestError(f"{path}: its content stands already in {earlier}; keep one")


def _labels_of(file: pq.ParquetFile, path: Path, number: int, unlabelled: bool):
    """A shard's labels and places; without `file_name` the paths in `audio` too; whether these are paths of files."""
    schema, needed = file.schema_arrow, [name for name in COLUMNS[1:] if name != "emotion" or not unlabelled]
    if lacking := [name for name in needed if name not in schema.names]:
        hint = rename_hint(lacking, schema.names)
        raise ManifestError(f"{path}: no column {', '.join(lacking)}; its columns are {', '.join(schema.names)}{hint}")
    audio, features = audio_column(schema, path), features_of(schema)
    names = [*(name for name in COLUMNS if name in schema.names), *text_columns(schema)]
    table = file.read(columns=[name for name in names if name not in RESERVED])
    columns = {name: as_text(table[name], features.get(name), f"{path}: column {name}") for name in table.column_names}
    columns.setdefault("emotion", pa.array([""] * len(table), pa.string()))
    counts = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
    columns["shard"] = np.full(sum(counts), number, np.int32)
    columns["group"] = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    columns["row"] = np.concatenate([np.arange(count, dtype=np.int32) for count in counts] or [np.zeros(0, np.int32)])
    raw = None if "file_name" in schema.names else _paths_of(file, audio)
    return pa.table(columns), raw, audio.form == "path"


def _paths_of(file: pq.ParquetFile, audio: AudioColumn) -> list[str | None]:
    """The path of every recording as the shard has it, or None."""
    if audio.name_column is None:
        return [None] * file.metadata.num_rows
    found = file.read(columns=[audio.name_column])["audio"].to_pylist()
    return [value["path"] if isinstance(value, dict) else value for value in found]


def _refuse_missing(folder: Path, files: list[Path]) -> None:
    """Compare the shards that are there with those that were written, by their names and by the note in ours."""
    series, noted = defaultdict(set), defaultdict(int)
    for path in files:
        if match := SERIES.fullmatch(path.name):
            series[path.parent, match[1], match[3]].add(int(match[2]))
        with _opened(path) as file:
            noted[(file.schema_arrow.metadata or {}).get(WHOLE)] += file.metadata.num_rows
    for (place, name, total), there in series.items():
        if missing := int(total) - sum(number < int(total) for number in there):
            first = next(number for number in range(int(total)) if number not in there)
            raise ManifestError(
                f"{place}: {missing} of {int(total)} shards are missing, first "
                f"{name}-{first:0{len(total)}d}-of-{total}.parquet; fetch or write them anew"
            )
    for note, clips in noted.items():
        try:
            whole = json.loads(note)["clips"] if note else clips
        except (ValueError, RecursionError, KeyError, TypeError):
            raise ManifestError(f"{folder}: a shard's note of its corpus is damaged: write them anew") from None
        if clips != whole:
            raise ManifestError(
                f"{folder}: its shards hold {clips} clips of the {whole} that were written together; a shard is "
                f"missing or stands there twice: write them anew"
            )


def shard_states(folder: str | Path) -> bytes:
    """The state of all data of a folder of shards, for fingerprints.

    One line with name, size and modification time for every shard, and for every audio file that a shard refers to.

    Args:
        folder: The shards' folder.
    """
    files = shards_in(Path(folder))
    paths = {path.relative_to(folder).as_posix(): str(path) for path in files}
    for shard in files:
        with _opened(shard) as file:
            audio = audio_column(file.schema_arrow, shard)
            paths |= {name: name for name in _outside(file, audio, shard.parent)}
    states = ((name, os.stat(path) if os.path.exists(path) else None) for name, path in paths.items())
    return "".join(f"{name}\t{s and (s.st_size, s.st_mtime_ns)}\n" for name, s in states).encode()


def shard_contents(folder: str | Path) -> Iterator[tuple[str, str]]:
    """Name and content of every shard, wherever it lies, and of every file that shards name.

    A shard is known by its size and the hash of its footer, which tells where everything lies in it; files that it
    names are read whole.

    Args:
        folder: The shards' folder.
    """
    for path in shards_in(Path(folder)):
        with open(path, "rb") as raw:
            size = raw.seek(0, os.SEEK_END)
            raw.seek(max(0, size - 8))
            footer = int.from_bytes(raw.read(4), "little") + 8
            raw.seek(max(0, size - footer))
            yield path.relative_to(folder).as_posix(), f"{size} {hashlib.sha256(raw.read()).hexdigest()}"
        with _opened(path) as file:
            for place in _outside(file, audio_column(file.schema_arrow, path), path.parent):
                yield os.path.basename(place), file_sha256(place) if os.path.isfile(place) else ""


def _outside(file: pq.ParquetFile, audio: AudioColumn, folder: Path) -> list[str]:
    """Paths of recordings that are not in the shard but in audio files."""
    if audio.form == "path" or audio.parts == ("path",):
        return [resolve(folder, path) for path in _paths_of(file, audio) if path]
    if not {"bytes", "path"} <= {*audio.parts}:
        return []
    found = []
    for group in range(file.num_row_groups):
        columns = map(file.metadata.row_group(group).column, range(file.metadata.num_columns))
        bytes_of = next(column for column in columns if column.path_in_schema == "audio.bytes")
        if bytes_of.statistics is not None and bytes_of.statistics.null_count == 0:
            continue
        values = file.read_row_group(group, columns=["audio.bytes", "audio.path"])["audio"].to_pylist()
        found += [resolve(folder, one["path"]) for one in values if one and one["bytes"] is None and one["path"]]
    return found


class ShardReader:
    """Recordings of shards; the last groups of rows stay in memory.

    Args:
        folder: The shards' folder.
        groups: How many groups of rows are kept.
    """

    def __init__(self, folder: str | Path, groups: int = GROUPS_AT_A_TIME + 2):
        self.paths = shards_in(Path(folder))
        self.groups = groups
        self._kept: OrderedDict[tuple[int, int], tuple[AudioColumn, pa.Table]] = OrderedDict()

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_kept": OrderedDict()}  # each worker reads its own

    def read(self, place: dict) -> dict:
        """One recording.

        Args:
            place: A row of the corpus: `shard`, `group`, `row` and `file_name`.

        Returns:
            A dict for `read_audio`: `bytes` of an encoded recording, or `array` and `sampling_rate`, with the name of
            the clip as `path`; or only the `path` of an audio file.

        Raises:
            ManifestError: If the shard can no longer be read.
        """
        path, key = self.paths[place["shard"]], (place["shard"], place["group"])
        if key not in self._kept:
            while len(self._kept) >= self.groups:
                self._kept.popitem(last=False)
            with _opened(path) as file:
                audio = audio_column(file.schema_arrow, path)
                self._kept[key] = audio, file.read_row_group(key[1], columns=audio.columns)
        self._kept.move_to_end(key)
        audio, table = self._kept[key]
        return audio.recording(table, place["row"], path.parent, f"{path}, {place['file_name']}")


def write_shards(
    corpus, folder: str | Path, clips_per_shard: int = 4096, clips_per_group: int = 64, seed: int = 0
) -> list[Path]:
    """Write a corpus as shards, its clips shuffled once, so that every part of it is like the whole.

    Shards are written under hidden names and renamed when all of them are complete. Each shard stores how many clips
    the corpus has, so that a missing shard is noticed. All text columns are kept (session, transcript, ...), except
    `RESERVED`.

    Args:
        corpus: A `Corpus` of files.
        folder: Where to; it must not have shards yet.
        clips_per_shard: Clips of a file.
        clips_per_group: Clips of a group of rows, which is what is read at a time.
        seed: Seed of the order.

    Returns:
        The files.

    Raises:
        ManifestError: If the folder has shards or cannot be written, or recordings cannot be read.
    """
    folder = Path(os.path.expanduser(folder))
    if corpus.shards:
        raise ManifestError(f"{corpus.name}: its recordings are in shards already, in {corpus.shards}")
    if shards_in(folder):
        raise ManifestError(f"{folder}: there are shards already; give an empty folder")
    if absent := [f"{path}: no such file" for path in corpus.clips["path"] if not os.path.isfile(path)]:
        raise ManifestError(f"{corpus.cannot_be_used(absent)}or take their rows out of metadata.csv")
    order = np.random.default_rng(seed).permutation(len(corpus))
    total = -(-len(order) // clips_per_shard)
    paths = [folder / f"clips-{number:05d}-of-{total:05d}.parquet" for number in range(total)]
    parts = [path.with_name(f".{path.name}.part") for path in paths]
    schema = _schema(corpus)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob(".clips-*.parquet.part"):  # of a conversion that was killed
            old.unlink()
        for number, part in enumerate(parts):
            rows = order[number * clips_per_shard :][:clips_per_shard]
            _write_shard(corpus.clips.select(rows.tolist()), part, clips_per_group, schema)
        for part, path in zip(parts, paths, strict=True):
            os.replace(part, path)
    except BaseException as error:
        for path in (*parts, *paths) if folder.is_dir() else ():
            path.unlink(missing_ok=True)
        if isinstance(error, (OSError, pa.ArrowException)):
            message = f"{folder}: the shards cannot be written ({error}); nothing of them is kept"
            raise ManifestError(message) from None
        raise
    return paths


def _schema(corpus) -> pa.Schema:
    kinds = corpus.clips.with_format("arrow")[:0].schema
    text = [field.name for field in kinds if pa.types.is_string(field.type) and field.name not in RESERVED]
    fields = [(name, pa.string()) for name in (*COLUMNS, *(name for name in text if name not in COLUMNS))]
    fields += [("audio", pa.struct([("bytes", pa.binary()), ("path", pa.string())]))]
    note = {"clips": len(corpus), "written": corpus.sha256_in_order()}
    return pa.schema(fields, metadata={WHOLE: json.dumps(note).encode()})


def _write_shard(clips, path: Path, clips_per_group: int, schema: pa.Schema) -> None:
    with pq.ParquetWriter(path, schema) as writer:
        for rows in clips.iter(batch_size=clips_per_group):
            audio = [{"bytes": Path(path).read_bytes(), "path": Path(path).name} for path in rows["path"]]
            writer.write_batch(pa.record_batch([*(rows[name] for name in schema.names[:-1]), audio], schema))


def main(argv: list[str]) -> None:
    """Write a corpus as shards, by the command line.

    Raises:
        ManifestError: As `load_corpus` and `write_shards`.
    """
    from .manifest import load_corpus

    parser = RaisingParser("shards", description="Write a corpus as Parquet shards.")
    parser.add_argument("corpus", type=expanded, help="folder as downloaded, or with metadata.csv")
    parser.add_argument("folder", type=expanded, help="where the shards go; it must have none yet")
    parser.add_argument("--corpus_name", help="what the corpus is, as for train.py; default: as its recordings say")
    parser.add_argument("--emotions", nargs="+", help="emotion words beyond the canonical ones that rows may have")
    parser.add_argument("--emotion_map", help="what words of the corpus stand for, as for train.py")
    arguments = parser.parse_args(argv)
    corpus = load_corpus(arguments.corpus, arguments.corpus_name, arguments.emotions, arguments.emotion_map)
    paths = write_shards(corpus, arguments.folder)
    print(f"{len(corpus)} clips in {len(paths)} shards are in {arguments.folder}")


if __name__ == "__main__":
    run_main("shards", main)
