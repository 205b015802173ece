"""Corpora in Parquet shards, as on the Hub: labels beside the bytes of the recordings.

    python -m modeling_gemoclap.corpora.shards CORPUS FOLDER

Labels are read whole and by column, without the audio; recordings one group of rows at a time, when they are needed.
"""

from __future__ import annotations

import argparse
import hashlib
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from .tables import COLUMNS, ManifestError

PLACE = ("shard", "group", "row")
GROUPS_AT_A_TIME = 8  # whose clips are shuffled together
SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in COLUMNS),
        ("audio", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
    ]
)


def shards_in(folder: Path) -> list[Path]:
    """The Parquet files of a folder, sorted."""
    return sorted(folder.rglob("*.parquet"))


def shard_state(path: Path) -> str:
    """A shard's size and a hash of its footer, which tells where everything lies in it: cheap, and copied with it."""
    with open(path, "rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - 8))
        footer = int.from_bytes(file.read(4), "little") + 8
        file.seek(max(0, size - footer))
        return f"{size} {hashlib.sha256(file.read()).hexdigest()}"


def read_labels(folder: Path) -> pa.Table:
    """Read what the shards of a folder say of their clips, without the recordings.

    Args:
        folder: A folder with Parquet files that have `emotion`, `gender`, `speaker_id` and `audio`, of which `bytes`
            holds an encoded recording; a clip's name is `file_name`, or else `audio`'s `path`.

    Returns:
        `COLUMNS` as text and, for each clip, the number of its shard, of its group of rows and of its row in there.

    Raises:
        ManifestError: If a file cannot be read or lacks a column.
    """
    return pa.concat_tables([_labels_of(path, number) for number, path in enumerate(shards_in(folder))])


def _labels_of(path: Path, number: int) -> pa.Table:
    try:
        file = pq.ParquetFile(path)
        schema = file.schema_arrow
        audio = schema.field("audio").type if "audio" in schema.names else None
        held = {field.name for field in audio} if audio and pa.types.is_struct(audio) else set()
        lacking = [name for name in COLUMNS[1:] if name not in schema.names]
        lacking += ["audio (a struct with bytes)"] if "bytes" not in held else []
        lacking += ["file_name"] if "file_name" not in schema.names and "path" not in held else []
        if lacking:
            raise ManifestError(f"{path}: no column {', '.join(lacking)}; its columns are {', '.join(schema.names)}")
        named = "file_name" in schema.names
        table = file.read(columns=[*COLUMNS[1:], "file_name" if named else "audio.path"])
        names = (
            table["file_name"] if named else pa.chunked_array([part.field("path") for part in table["audio"].chunks])
        )
        columns = {"file_name": names.cast(pa.string())}
        columns |= {name: table[name].cast(pa.string()) for name in COLUMNS[1:]}
    except (OSError, pa.ArrowException) as error:
        raise ManifestError(f"{path}: cannot be read as Parquet ({error}); write it anew") from None
    counts = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
    columns["shard"] = np.full(sum(counts), number, np.int32)
    columns["group"] = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    columns["row"] = np.concatenate([np.arange(count, dtype=np.int32) for count in counts] or [[]])
    return pa.table(columns)


class ShardReader:
    """Recordings of shards; the last groups of rows stay in memory.

    Args:
        folder: The shards' folder.
        groups: How many groups of rows are kept.
    """

    def __init__(self, folder: str | Path, groups: int = GROUPS_AT_A_TIME + 2):
        self.paths = shards_in(Path(folder))
        self.groups = groups
        self._kept: OrderedDict[tuple[int, int], pa.ChunkedArray] = OrderedDict()

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_kept": OrderedDict()}  # each worker reads its own

    def read(self, place: dict) -> dict:
        """One recording.

        Args:
            place: A row of the corpus: `shard`, `group`, `row` and `file_name`.

        Returns:
            `bytes`, the encoded recording, and `path`, its name.
        """
        key = place["shard"], place["group"]
        if key not in self._kept:
            while len(self._kept) >= self.groups:
                self._kept.popitem(last=False)
            with pq.ParquetFile(self.paths[key[0]]) as file:
                self._kept[key] = file.read_row_group(key[1], columns=["audio.bytes"])["audio"]
        self._kept.move_to_end(key)
        name = f"{self.paths[key[0]]}, {place['file_name']}"
        return {"bytes": self._kept[key][place["row"]]["bytes"].as_py() or b"", "path": name}


def write_shards(
    corpus, folder: str | Path, clips_per_shard: int = 4096, clips_per_group: int = 64, seed: int = 0
) -> list[Path]:
    """Write a corpus as shards, its clips shuffled once, so that every part of it is like the whole.

    Args:
        corpus: A `Corpus` of files.
        folder: Where to; it must not have shards yet.
        clips_per_shard: Clips of a file.
        clips_per_group: Clips of a group of rows, which is what is read at a time.
        seed: Seed of the order.

    Returns:
        The files.

    Raises:
        ManifestError: If the folder has shards.
    """
    folder = Path(folder)
    if shards_in(folder):
        raise ManifestError(f"{folder}: there are shards already; give an empty folder")
    folder.mkdir(parents=True, exist_ok=True)
    order = np.random.default_rng(seed).permutation(len(corpus))
    written = []
    for start in range(0, len(order), clips_per_shard):
        clips = corpus.clips.select(order[start : start + clips_per_shard].tolist())
        written.append(folder / f"clips-{len(written):05d}.parquet")
        with pq.ParquetWriter(written[-1], SCHEMA) as writer:
            for rows in clips.iter(batch_size=clips_per_group):
                audio = [{"bytes": Path(path).read_bytes(), "path": Path(path).name} for path in rows["path"]]
                writer.write_batch(pa.record_batch([*(rows[name] for name in COLUMNS), audio], SCHEMA))
    return written


if __name__ == "__main__":
    from .manifest import load_corpus

    parser = argparse.ArgumentParser(description="Write a corpus as Parquet shards.")
    parser.add_argument("corpus", help="Folder with metadata.csv")
    parser.add_argument("folder", help="Where the shards go")
    arguments = parser.parse_args()
    paths = write_shards(load_corpus(arguments.corpus), arguments.folder)
    print(f"{len(paths)} shards are in {arguments.folder}")
