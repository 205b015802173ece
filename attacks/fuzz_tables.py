"""Tables and lists: manifests, shards, diarisations, indexes and predictions, and what must hold for damaged ones."""

from __future__ import annotations

import csv
import io
import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from fuzz_audio import RATE, encoded, wave
from fuzz_judge import BrokenPromise
from fuzz_mutate import damage

ROWS = [["audio/a.wav", "angry", "female", "01"], ["audio/b.wav", "happiness", "m", "02"], ["c.wav", "sad", "", "03"]]
HEADER = ["file_name", "emotion", "gender", "speaker_id"]
CELLS = '../../etc/passwd|/etc/passwd|C:\\x.wav|a\0b|1|-1|nan|| |a\nb|a"b|\u202eabc|\uff41\uff4e'
CELLS = (
    *CELLS.split("|"),
    "x" * 200_000,
    "file://x",
    "audio/a.wav",
    "./audio/a.wav",
    "~root/x",
    "=1+1",
    "ang",
    "\u00e9",
    "e\u0301",
)


# ---- manifests ------------------------------------------------------------------------------------------------------
def manifest_seeds() -> list[bytes]:
    """Manifests with every separator, in UTF-8 and UTF-16."""
    seeds = []
    for delimiter in ",;\t|":
        text = io.StringIO(newline="")
        csv.writer(text, delimiter=delimiter).writerows([HEADER, *ROWS])
        seeds += [text.getvalue().encode(), text.getvalue().encode("utf-8-sig"), text.getvalue().encode("utf-16")]
    long = [[f"{row}.wav", "angry", "female", f"é{row}"] for row in range(300)]
    text = "\n".join(",".join(row + ["1.2", "text"]) for row in [HEADER, *ROWS, *long])
    return [*seeds, text.encode(), text.encode("cp1252")]


def damage_manifest(data: bytes, dice: random.Random) -> bytes:
    """Damage the bytes, or put hostile values into cells, rows and the header."""
    if dice.random() < 0.5:
        return damage(data, dice)
    rows = [list(row) for row in (HEADER, *ROWS)]
    for _ in range(dice.choice((1, 1, 2, 3))):
        row = dice.choice(rows)
        if row:
            row[dice.randrange(len(row))] = dice.choice(CELLS)
        if dice.random() < 0.2:
            row.append(dice.choice(CELLS))
        if dice.random() < 0.1:
            rows.append(list(row))
    text = io.StringIO(newline="")
    quoting = dice.choice((csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_MINIMAL))
    csv.writer(text, delimiter=dice.choice(",,;\t|"), quoting=quoting).writerows(rows)
    return text.getvalue().encode(dice.choice(("utf-8", "utf-8", "utf-16", "utf-8-sig", "utf-16-be", "utf-32")))


def read_manifest(path: Path) -> None:
    """Load a corpus with a manifest.

    Raises:
        BrokenPromise: If it has no clips, a path outside of its folder, or an unknown word.
    """
    from modeling_gemoclap.corpora.manifest import load_corpus
    from modeling_gemoclap.prompts_gemoclap import EMOTION_WORDS

    corpus = load_corpus(path.parent)
    folder = str(path.parent.resolve())
    for clip in corpus.clips:
        if not clip["path"].startswith(folder) or "/../" in clip["path"] or "\0" in clip["path"]:
            raise BrokenPromise(f"path {clip['path']!r}")
        if clip["emotion"] not in ("", *EMOTION_WORDS) or clip["gender"] not in ("", "female", "male"):
            raise BrokenPromise(f"words {clip['emotion']!r}, {clip['gender']!r}")
        if not clip["speaker_id"]:
            raise BrokenPromise("no speaker")
    if not len(corpus):
        raise BrokenPromise("no clips")


# ---- shards ---------------------------------------------------------------------------------------------------------
def shard_seeds() -> list[bytes]:
    """Shards with bytes, with arrays and with class numbers."""
    recording = encoded(wave(0.2, 1), RATE, "WAV", "PCM_16")
    labels = {"file_name": ["a.wav", "b.wav"], "emotion": ["angry", "sad"], "gender": ["f", "m"]}
    labels["speaker_id"] = ["01", "02"]
    tables = [pa.table({**labels, "audio": [{"bytes": recording, "path": name} for name in "ab"]})]
    arrays = [{"array": [0.1, -0.1] * 2000, "sampling_rate": RATE}] * 2
    tables.append(pa.table({**labels, "audio": arrays}))
    numbers = pa.table({**labels, "emotion": [0, 1], "audio": [recording, recording]})
    names = {"emotion": {"names": ["angry", "sad"], "_type": "ClassLabel"}}
    tables.append(numbers.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": names}})}))
    return [_parquet(table, compression) for table in tables for compression in ("none", "snappy")]


def _parquet(table: pa.Table, compression: str) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression=compression)
    return buffer.getvalue()


def damage_parquet(data: bytes, dice: random.Random) -> bytes:
    """Damage a Parquet file: half of the files in the footer, which describes the others."""
    footer = int.from_bytes(data[-8:-4], "little")
    if dice.random() < 0.5:
        return data[: -8 - footer] + damage(data[-8 - footer : -8], dice) + data[-8:]
    return damage(data, dice, header=64)


def read_shards(path: Path) -> None:
    """Load a corpus in a shard, and read each of its recordings.

    Raises:
        BrokenPromise: If it has no clips.
    """
    from modeling_gemoclap import AudioError
    from modeling_gemoclap.corpora.manifest import load_corpus
    from modeling_gemoclap.corpora.shard_reader import ShardReader
    from modeling_gemoclap.recordings_gemoclap import read_audio

    corpus = load_corpus(path.parent)
    reader, refusal = ShardReader(path.parent), None
    for clip in corpus.clips:
        try:
            recording = reader.read(clip)
            name = recording.get("path") or ""
            read_audio(recording, name=name if path.name in name else f"{path}, {name}")
        except AudioError as error:
            refusal = refusal or error
    if not len(corpus):
        raise BrokenPromise("no clips")
    if refusal:
        raise refusal
