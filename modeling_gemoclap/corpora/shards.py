"""Write a corpus as Parquet shards, as on the Hub, with the labels beside the bytes of the recordings.

python -m modeling_gemoclap.corpora.shards CORPUS FOLDER
"""

from __future__ import annotations

import io
import json
import os
import re
from pathlib import Path

from ..command_line.failures import report_uncaught_errors, run_main
from ..command_line.parser import RaisingParser, expanded

if __name__ == "__main__":
    report_uncaught_errors("shards")  # also the failures of the imports below

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile
from datasets import Dataset

from .manifest import Corpus, load_corpus
from .shard_reader import CORPUS_NOTE, RESERVED_COLUMNS, shards_in
from .tables import COLUMNS, ManifestError

# Beginnings of the formats that only ffmpeg reads, or that libsndfile reads in part; MPEG and AAC, also after a tag.
CONTAINER = re.compile(
    rb"....(ftyp|moov|mdat|wide)|\x1aE\xdf\xa3|0&\xb2u\x8ef\xcf\x11|#!AMR|RIFF|OggS|FORM|caff|wvpk|MAC |ID3"
    rb"|\xff[\xe0-\xff]",
    re.DOTALL,
)


def write_shards(
    corpus: Corpus, folder: str | Path, clips_per_shard: int = 4096, clips_per_group: int = 64, seed: int = 0
) -> list[Path]:
    """Write a corpus as shards. The clips are shuffled once, so that every shard is like the complete corpus.

    The shards are written under hidden names, and are renamed when all of them are complete. Each shard stores the
    number of clips in the corpus, so that a missing shard is detected. All text columns are written (session,
    transcript, ...), except `RESERVED_COLUMNS`.

    Args:
        corpus: A corpus of audio files.
        folder: The folder to write to. It must not hold shards.
        clips_per_shard: The number of clips in a file.
        clips_per_group: The number of clips in a group of rows, which is the unit of reading.
        seed: Seed of the order.

    Returns:
        The files.

    Raises:
        ManifestError: If the folder holds shards or cannot be written, or if recordings are missing or unreadable.
    """
    folder = Path(os.path.expanduser(folder))
    _check_writable(corpus, folder)
    order = np.random.default_rng(seed).permutation(len(corpus))
    total = -(-len(order) // clips_per_shard)
    paths = [folder / f"clips-{number:05d}-of-{total:05d}.parquet" for number in range(total)]
    temporary = [path.with_name(f".{path.name}.part") for path in paths]
    schema = _schema(corpus)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob(".clips-*.parquet.part"):  # from a conversion that was killed
            leftover.unlink()
        for number, path in enumerate(temporary):
            rows = order[number * clips_per_shard :][:clips_per_shard]
            _write_shard(corpus.clips.select(rows.tolist()), path, clips_per_group, schema)
        for source, target in zip(temporary, paths, strict=True):
            os.replace(source, target)
    except BaseException as error:
        for path in (*temporary, *paths) if folder.is_dir() else ():
            path.unlink(missing_ok=True)
        if isinstance(error, (OSError, pa.ArrowException)):
            message = f"{folder}: the shards cannot be written ({error}); incomplete shards were removed"
            raise ManifestError(message) from None
        raise
    return paths


def _check_writable(corpus: Corpus, folder: Path) -> None:
    if corpus.shards:
        raise ManifestError(f"{corpus.name}: its recordings are already in shards, in {corpus.shards}")
    if shards_in(folder):
        raise ManifestError(f"{folder}: the folder already holds shards; give an empty folder")
    if missing := [f"{path}: no such file" for path in corpus.clips["path"] if not os.path.isfile(path)]:
        raise ManifestError(f"{corpus.cannot_be_used(missing)}or remove their rows from metadata.csv")


def _schema(corpus: Corpus) -> pa.Schema:
    columns = corpus.clips.with_format("arrow")[:0].schema
    text = [field.name for field in columns if pa.types.is_string(field.type) and field.name not in RESERVED_COLUMNS]
    fields = [(name, pa.string()) for name in (*COLUMNS, *(name for name in text if name not in COLUMNS))]
    fields += [("audio", pa.struct([("bytes", pa.binary()), ("path", pa.string())]))]
    note = {"clips": len(corpus), "written": corpus.sha256_in_order()}
    return pa.schema(fields, metadata={CORPUS_NOTE: json.dumps(note).encode()})


def _write_shard(clips: Dataset, path: Path, clips_per_group: int, schema: pa.Schema) -> None:
    with pq.ParquetWriter(path, schema) as writer:
        for rows in clips.iter(batch_size=clips_per_group):
            audio = [{"bytes": _read_recording(path), "path": Path(path).name} for path in rows["path"]]
            writer.write_batch(pa.record_batch([*(rows[name] for name in schema.names[:-1]), audio], schema))


def _read_recording(path: str) -> bytes:
    """The bytes of a recording. A file of another kind, to which a link may lead, is an error.

    Raises:
        ManifestError: If it is not an audio file. Whether it can be decoded to its end is not checked.
    """
    content = Path(path).read_bytes()
    try:
        if not CONTAINER.match(content):
            soundfile.info(io.BytesIO(content))
    except Exception:  # of libsndfile, or of a damaged header
        message = "not an audio file, so it is not copied into a shard; repair it, or remove its row from metadata.csv"
        raise ManifestError(f"{path}: {message}") from None
    return content


def main(argv: list[str]) -> None:
    """Write a corpus as shards from the command line.

    Raises:
        ManifestError: See `load_corpus` and `write_shards`.
    """
    parser = RaisingParser("shards", description="Write a corpus as Parquet shards.")
    parser.add_argument("corpus", type=expanded, help="a corpus as downloaded, or a folder with metadata.csv")
    parser.add_argument("folder", type=expanded, help="the folder for the shards; it must not hold shards")
    parser.add_argument("--corpus_name", help="the name of the corpus, as for train.py; default: detected")
    parser.add_argument("--emotions", nargs="+", help="emotion words beyond the canonical ones that rows may have")
    parser.add_argument("--emotion_map", help="JSON object from words to emotions, as for train.py")
    arguments = parser.parse_args(argv)
    corpus = load_corpus(arguments.corpus, arguments.corpus_name, arguments.emotions, arguments.emotion_map)
    paths = write_shards(corpus, arguments.folder)
    print(f"{len(corpus)} clips in {len(paths)} shards are in {arguments.folder}")


if __name__ == "__main__":
    run_main("shards", main)
