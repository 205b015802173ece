"""Small files of numbers and lists beside a corpus, and what must hold for damaged ones."""

from __future__ import annotations

import io
import json
import random
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
from fuzz_judge import BrokenPromise
from fuzz_mutate import damage


def damage_zip(data: bytes, dice: random.Random) -> bytes:
    """Damage a .npz file, half of them inside of its members."""
    if dice.random() < 0.5:
        return damage(data, dice)
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(buffer, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            target.writestr(name, damage(content, dice, header=128) if dice.random() < 0.7 else content)
    return buffer.getvalue()


def vectors() -> list[bytes]:
    """Speaker embeddings of two clips."""
    buffer = io.BytesIO()
    np.savez(buffer, file_name=np.array(["a.wav", "b.wav"]), embeddings=np.eye(2, 8, dtype=np.float32))
    return [buffer.getvalue()]


def read_vectors(path: Path) -> None:
    """Read speaker embeddings of two clips."""
    from modeling_gemoclap.objectives.speaker_clusters.embeddings import read_embeddings

    corpus = SimpleNamespace(name="corpus", column=lambda name: pa.array(["a.wav", "b.wav"]))
    found = read_embeddings(path, corpus)
    if len(found) != 2 or not np.isfinite(found).all():
        raise BrokenPromise(f"embeddings {found.shape}")


def read_folds(path: Path) -> None:
    """Read the folds of a protocol."""
    from modeling_gemoclap.corpora.protocols import read_folds

    folds, _ = read_folds(str(path), 0)
    if not folds or not all(folds):
        raise BrokenPromise(f"folds {folds}")


def read_map(path: Path) -> None:
    """Read a mapping from words to emotions."""
    from modeling_gemoclap.corpora.manifest import words_for_emotions
    from modeling_gemoclap.prompts_gemoclap import EMOTION_WORDS

    words = words_for_emotions([], path.read_text(encoding="utf-8", errors="replace"))
    if not set(words.values()) <= set(EMOTION_WORDS):
        raise BrokenPromise(f"words {words}")


def maps() -> list[bytes]:
    """Mappings from words to emotions."""
    return [json.dumps({"wut": "angry", "x": "sad"}).encode()]


def folds() -> list[bytes]:
    """Folds, as a list and by seed."""
    return [json.dumps(value).encode() for value in ([["1"], ["2", "3"]], {"folds": {"seed_0": [["1"]]}})]
