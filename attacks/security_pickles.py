"""Pickles in place of every file that is read: none of them may run its command."""

from __future__ import annotations

import os
import pickle  # to write some; none is read  # nosec B403
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from attack import ROOT, Attack
from datasets import Dataset

from modeling_gemoclap.command_line.failures import failure_message
from modeling_gemoclap.command_line.files import read_yaml
from modeling_gemoclap.corpora.manifest import load_corpus
from modeling_gemoclap.evaluation.prediction_files import EMBEDDINGS, PREDICTIONS, RECORD, load_fold, load_predictions
from modeling_gemoclap.inference.loading import load_config, load_pipeline
from modeling_gemoclap.inference.search import Index
from modeling_gemoclap.objectives.probe import features
from modeling_gemoclap.objectives.speaker_clusters import embeddings
from modeling_gemoclap.recordings_gemoclap import read_audio
from modeling_gemoclap.runs.calibration import load_logits
from modeling_gemoclap.training import frozen
from modeling_gemoclap.training.lora import load_adapter
from modeling_gemoclap.training_clips import load_training_clips


class Opens:
    """A pickle that creates a file."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


def copy_checkpoint(folder: Path) -> Path:
    """A copy of an included checkpoint, with its code."""
    return Path(shutil.copytree(ROOT / "checkpoints" / "gemoclap-compact", folder))


def _weights(folder: Path, content: bytes) -> None:
    (copy_checkpoint(folder) / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(content)


def _torch_file(mark: Path, place: Path) -> bytes:
    torch.save({"audio_logit_scale": Opens(mark)}, place / "weights.pt")
    return (place / "weights.pt").read_bytes()


def _array_file(mark: Path, *names: str, **arrays: np.ndarray) -> Callable[[Path], None]:
    """A writer of an `.npz` file whose arrays of these names are pickled objects."""
    hostile = np.array([Opens(mark)], dtype=object)
    return lambda path: np.savez(open(path, "wb"), **dict.fromkeys(names, hostile), **arrays)


def _npy(mark: Path) -> Callable[[Path], None]:
    return lambda path: np.save(open(path, "wb"), np.array([Opens(mark)], dtype=object), allow_pickle=True)


def _part_of_fold(place: Path, mark: Path) -> Path:
    place.mkdir()
    (place / RECORD).write_text('{"made_of": {}, "skipped": [], "method": "", "heard": {}}')
    (place / PREDICTIONS).write_text("file_name\n")
    _npy(mark)(place / EMBEDDINGS)
    return place


def _file(place: Path, name: str, content: bytes | Callable[[Path], None]) -> Path:
    path = place / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content) if isinstance(content, bytes) else content(path)
    return path


def _checkpoint_with(place: Path, name: str, content: bytes) -> Path:
    folder = copy_checkpoint(place)
    (folder / name).write_bytes(content)
    return folder


def cases(place: Path, mark: Path) -> dict[str, Callable[[], object]]:
    """The files, and what reads each of them."""
    raw, saved = pickle.dumps(Opens(mark)), _torch_file(mark, place)
    yaml = f"a: !!python/object/apply:os.system ['touch {mark}']\n".encode()
    named = _array_file(mark, "keys", shapes=np.ones((1, 2)), num_valid=np.ones(1))
    empty, cached = Dataset.from_dict({}), _array_file(mark, "keys", "values")

    def checkpoint(name: str) -> str:
        return str(_checkpoint_with(place / name.partition(".")[0], name, raw))

    found = {
        "weights, plain": lambda: load_pipeline(str(place / "plain"), "cpu"),
        "weights of torch.save": lambda: load_pipeline(str(place / "saved"), "cpu"),
        "config.json": lambda: load_config(checkpoint("config.json")),
        "tokenizer.json": lambda: load_pipeline(checkpoint("tokenizer.json"), "cpu"),
        "training_args.bin": lambda: load_pipeline(checkpoint("training_args.bin"), "cpu"),
        "training_clips.safetensors": lambda: load_training_clips(checkpoint("training_clips.safetensors")),
        "speaker embeddings, npz": lambda: embeddings.read_embeddings(
            _file(place, "speakers.npz", _array_file(mark, "file_name", "embeddings")), empty
        ),
        "speaker embeddings, npy": lambda: embeddings.read_embeddings(_file(place, "s.npy", _npy(mark)), empty),
        "cache of speakers": lambda: embeddings._read_cache(_file(place, "c.npz", cached)),
        "index of frozen frames": lambda: _frozen(_file(place, f"frames/part-0/{frozen.INDEX}", named)),
        "embeddings of a fold": lambda: load_fold(_part_of_fold(place / "fold", mark)),
        "cache of a probe": lambda: features._read(_file(place, "layers.safetensors", raw)),
        "logits of a calibration": lambda: load_logits(_file(place, "logits.safetensors", raw), "key"),
        "index of recordings": lambda: Index(_file(place, "index.parquet", raw)),
        "results.json": lambda: load_predictions(_file(place, "results/results.json", raw).parent),
        "a configuration": lambda: read_yaml(_file(place, "recipe.yaml", yaml)),
        "a recording": lambda: read_audio(_file(place, "clip.wav", raw)),
        "a recording of torch.save": lambda: read_audio(_file(place, "clip.pt", saved)),
        "a recording of NumPy": lambda: read_audio(_file(place, "clip.npy", _npy(mark))),
        "metadata.csv": lambda: load_corpus(_file(place, "corpus/metadata.csv", raw).parent),
        "Parquet": lambda: load_corpus(_file(place, "shards/x.parquet", raw).parent),
        "an adapter": lambda: load_adapter(_adapter(place / "adapter", raw), "audio", "text"),
    }
    _weights(place / "plain", raw)
    _weights(place / "saved", saved)
    return found


def _frozen(index: Path) -> None:
    (index.parent / frozen.FRAMES).write_bytes(b"")
    frozen.FrameStore(index.parent.parent, {}).find([])


def _adapter(folder: Path, content: bytes) -> Path:
    _file(folder, "adapter_config.json", b'{"peft_type": "LORA", "r": 2}')
    _file(folder, "adapter_model.bin", content)
    shutil.copy(ROOT / "checkpoints/gemoclap-compact/config.json", folder)
    return folder


def run(attack: Attack, place: Path) -> None:
    """Read each file. A refusal must be a sentence for users, not an error of a library."""
    mark = place / "mark"
    for name, read in cases(place, mark).items():
        with attack.case("a pickle in place of a file that is read", name):
            try:
                read()
            except Exception as error:
                assert failure_message(error), f"no sentence for {type(error).__name__}: {error}"
            assert not mark.exists(), "its command was run"
