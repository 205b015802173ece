"""The output of the frozen part of an audio tower, computed once for each clip and stored.

A store is a folder for one encoder with its settings. It is filled as clips are needed, so that all folds and seeds of
a protocol, and other runs with the same encoder, share the frames of a clip. Each addition is a folder of two files:
the frames of some clips one after the other in half precision, which are memory-mapped, and the index of their places.
Where only a pooling without weights follows, a clip is stored as one or two frames that have its pooled vector, since
pooling all its frames takes half of a training step.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple
from zipfile import BadZipFile

import numpy as np
import torch
from filelock import FileLock
from tqdm.auto import tqdm
from transformers.utils import logging

from ..base_gemoclap import GEmoClapPreTrainedModel
from ..corpora.files import write_json
from ..feature_extraction_gemoclap import GEmoClapFeatureExtractor
from ..fingerprint import AUDIO_LIBRARIES, digest, fingerprint
from .augmentation import collate_whisper

logger = logging.get_logger(__name__)
FRAMES, INDEX, MADE_OF = "frames.f16", "index.npz", "made_of.json"
ESTIMATE_CLIPS, MARGIN = 16, 1.1  # clips whose frames predict the size of all, and the factor of the prediction
PART_SECONDS = 600  # what an interrupted encoding loses at most
GIB = 2**30


class ClipFrames(NamedTuple):
    """The output of the frozen part of an audio tower for one clip.

    Args:
        states: `(states, frames, hidden_size)`, float16.
        num_valid: Number of valid frames, which come first.
    """

    states: np.ndarray
    num_valid: int


def collate_audio(extractor: GEmoClapFeatureExtractor, examples: list[dict]) -> dict[str, torch.Tensor]:
    """Pad the clips of a batch.

    Args:
        extractor: The feature extractor.
        examples: Items of a `ClipDataset`.

    Returns:
        The audio inputs of the model: those of the audio tower, or `audio_frames` `(batch, states, frames,
        hidden_size)` with their mask if the clips are `ClipFrames`.
    """
    clips = [example["clip"] for example in examples]
    if isinstance(clips[0], ClipFrames):
        return _collate_frames(clips)
    if extractor.feature_type == "own" and any(clip.ndim == 2 for clip in clips):
        return collate_whisper(extractor, clips)
    return dict(extractor.collate(clips))


def _collate_frames(clips: list[ClipFrames]) -> dict[str, torch.Tensor]:
    """Pad clips to `audio_frames` `(batch, states, frames, hidden_size)` and `audio_attention_mask`."""
    num_states, _, size = clips[0].states.shape
    longest = max(clip.states.shape[1] for clip in clips)
    frames = np.zeros((len(clips), num_states, longest, size), np.float16)
    for row, clip in enumerate(clips):
        frames[row, :, : clip.states.shape[1]] = clip.states
    mask = np.arange(longest) < np.array([clip.num_valid for clip in clips])[:, None]
    return {"audio_frames": torch.from_numpy(frames), "audio_attention_mask": torch.from_numpy(mask.astype(np.int64))}


def pooled_frames(model: GEmoClapPreTrainedModel) -> str | None:
    """The pooling that can be applied before a clip is stored; None if it has weights or trained layers come before.

    The standard deviation of a weighted sum of layers is not a function of those of the layers.
    """
    config = model.config
    linear = config.pooling == "mean" or (config.pooling == "mean_std" and not config.use_weighted_layer_sum)
    return config.pooling if linear and not model.num_trained_layers else None


def _few_frames(states: torch.Tensor, num_valid: int, pooling: str) -> torch.Tensor:
    """Frames with the same pooled vector: the mean `m`, or `m + s` and `m - s`, whose standard deviation is `s`."""
    valid = states[:, :num_valid].float()
    mean = valid.mean(1, keepdim=True)
    if pooling == "mean":
        return mean
    deviation = valid.std(1, keepdim=True, correction=0)
    return torch.cat([mean + deviation, mean - deviation], 1)


class _Part:
    """A complete addition to a store.

    Args:
        folder: Its folder.

    Raises:
        OSError, EOFError, KeyError, ValueError, BadZipFile: If it cannot be read, or if its files disagree.
    """

    def __init__(self, folder: Path):
        with np.load(folder / INDEX, allow_pickle=False) as index:
            self.keys = index["keys"].tolist()
            self.shapes, self.num_valid = index["shapes"], index["num_valid"].tolist()
        self.path, self._values = folder / FRAMES, None
        self.ends = self.shapes.prod(1).cumsum().tolist()
        size = os.stat(self.path).st_size
        if not len(self.keys) == len(self.ends) == len(self.num_valid) or size != 2 * self.ends[-1]:
            raise ValueError(f"{folder}: its files disagree")

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_values": None}  # a worker that is not forked maps the file itself

    def __getitem__(self, place: int) -> ClipFrames:
        if self._values is None:
            self._values = np.memmap(self.path, np.float16, mode="r")
        start = self.ends[place - 1] if place else 0
        states = self._values[start : self.ends[place]].reshape(self.shapes[place])
        return ClipFrames(states, self.num_valid[place])


class StoredFrames:
    """The stored versions of the clips of a dataset.

    Args:
        versions: For each clip its versions, each a part and a place in it. The first is the unchanged clip.
    """

    def __init__(self, versions: list[list[tuple[_Part, int]]]):
        self._versions = versions

    @property
    def lengths(self) -> np.ndarray:
        """Number of frames of the unchanged version of every clip, `(clips,)`."""
        return np.array([part.shapes[place][1] for (part, place), *_ in self._versions])

    def draw(self, index: int, generator: torch.Generator) -> ClipFrames:
        """Draw a version of a clip."""
        versions = self._versions[index]
        number = int(torch.randint(len(versions), (), generator=generator)) if len(versions) > 1 else 0
        part, place = versions[number]
        return part[place]

    def padding(self) -> ClipFrames:
        """A clip of zeros that only fills a batch."""
        part, place = self._versions[0][0]
        return ClipFrames(np.zeros_like(part[place].states), 1)


class FrameStore:
    """The stored frames of one encoder.

    Args:
        folder: Folder of the store; created when something is added.
        made_of: The fingerprint that the name of the folder is a hash of, for the reader of the folder.
    """

    def __init__(self, folder: Path, made_of: dict):
        self.folder, self._made_of = folder, made_of
        self._places: dict[str, tuple[_Part, int]] = {}
        self._read: set[str] = set()
        self._damaged: list[Path] = []

    def find(self, keys: list[str]) -> list[tuple[_Part, int] | None]:
        """Return the place of each key; None if it is not stored."""
        for path in sorted(self.folder.glob("part-*")):
            if path.name not in self._read:
                self._read.add(path.name)
                try:
                    part = _Part(path)
                except (OSError, EOFError, KeyError, ValueError, BadZipFile) as error:
                    logger.warning(f"{path}: damaged frames are removed and computed again ({error})")
                    self._damaged.append(path)
                    continue
                for place, key in enumerate(part.keys):
                    self._places.setdefault(key, (part, place))
        return [self._places.get(key) for key in keys]

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Within this context no other process adds to the store. Leavings of processes that were killed are removed.

        The operating system releases the lock of a process that ends.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / "lock"):
            for path in [*self.folder.glob(".unfinished-*"), *self._damaged]:
                shutil.rmtree(path, ignore_errors=True)
                self._read.discard(path.name)
            self._damaged = []
            if not (self.folder / MADE_OF).is_file():
                write_json(self.folder / MADE_OF, self._made_of)
            yield

    def add(self, clips: Iterator[tuple[str, ClipFrames]], remaining: int) -> None:
        """Add clips, all or none of them. The store must be `locked`.

        Args:
            clips: Their keys and frames, which are computed while they are written.
            remaining: Number of clips for which the disk needs space: these, and those that will be added next.

        Raises:
            ValueError: If the disk has not enough space.
        """
        folder = self.folder / f".unfinished-{os.getpid()}"
        folder.mkdir()
        try:
            keys, shapes, num_valid = zip(*self._write(folder / FRAMES, clips, remaining), strict=True)
            with open(folder / INDEX, "wb") as file:
                np.savez(file, keys=np.array(keys), shapes=np.array(shapes), num_valid=np.array(num_valid))
                _flush(file)
            taken = [int(path.name[5:]) for path in self.folder.glob("part-*")]
            os.replace(folder, self.folder / f"part-{max(taken, default=-1) + 1:06d}")
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _write(self, path: Path, clips: Iterator[tuple[str, ClipFrames]], remaining: int) -> list[tuple]:
        """Write frames. Return the key, the shape and the number of valid frames of each clip."""
        index, written, needed = [], 0, None
        with open(path, "wb") as file:
            for number, (key, clip) in enumerate(clips):
                if number == min(ESTIMATE_CLIPS, remaining) - 1:  # the clips are in random order
                    needed = MARGIN * remaining * (written + clip.states.nbytes) / (number + 1)
                    self._refuse_small_disk(needed, needed - written)
                try:
                    file.write(np.ascontiguousarray(clip.states).data)
                    file.flush()
                except OSError as error:
                    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                        raise
                    self._refuse_small_disk(needed, float("inf"))
                written += clip.states.nbytes
                index.append((key, clip.states.shape, clip.num_valid))
            _flush(file)
        return index

    def _refuse_small_disk(self, needed: float | None, missing: float) -> None:
        free = shutil.disk_usage(self.folder).free
        if missing > free:
            amount = f"about {needed / GIB:.3g} GiB" if needed else "more space"
            raise ValueError(
                f"--cache_frozen_frames needs {amount} for the frames in {self.folder}, and {free / GIB:.3g} GiB are "
                f"free: make space, give another --feature_cache_dir, or give --cache_frozen_frames false"
            )


def _flush(file) -> None:
    """Write a file to the disk, so that a folder that was renamed never holds half of it."""
    file.flush()
    os.fsync(file.fileno())


def store_of(model: GEmoClapPreTrainedModel, extractor, folder: Path) -> FrameStore:
    """Return the store of the frozen part of a model's audio tower.

    Args:
        model: The model.
        extractor: The feature extractor.
        folder: The folder of all stores.
    """
    weights = hashlib.sha256()
    for name, value in sorted(model.audio_model.state_dict().items()):
        weights.update(name.encode() + value.detach().float().cpu().contiguous().numpy().tobytes())
    tower = {name: value for name, value in model.config.audio_config.to_dict().items() if name != "_name_or_path"}
    frozen_part = {
        "all_layers": model.config.use_weighted_layer_sum,
        "trained_layers": model.num_trained_layers,
        "pooling": pooled_frames(model),
    }
    made_of = fingerprint(
        ["training.clips"],  # and all that it imports: features, augmentation, towers, this module
        (*AUDIO_LIBRARIES, "scipy", "torch"),
        settings=[extractor.to_dict(), tower, frozen_part],
        weights=weights.hexdigest(),
    )
    return FrameStore(folder / f"frozen-{digest(made_of)[:32]}", made_of)


def attach_frames(
    model: GEmoClapPreTrainedModel, clips, folder: Path, copies: int = 1, quiet: bool = False
) -> FrameStore:
    """Let a dataset return the frames of its clips. Those that are not stored are computed and stored.

    Args:
        model: The model with the frozen audio tower, on the device that encodes.
        clips: A `ClipDataset` that is not in shards. Its `frames` are set.
        folder: The folder of all stores.
        copies: Number of versions of each clip. The first is unchanged. The others are augmented by random numbers
            that depend on the seed of the dataset, the file name of the clip and the number of the version.
        quiet: Whether to show no progress.

    Returns:
        The store.

    Raises:
        ValueError: If the disk has not enough space, or frames exceed the range of half precision.
    """
    store = store_of(model, clips.extractor, folder)
    states = clips.corpus.file_states().decode().splitlines()  # path, size and times of each recording
    named = zip(states, clips.corpus.column("file_name").to_pylist(), strict=True)
    keys = [[_key(clips, state, name, copy) for copy in range(copies)] for state, name in named]
    wanted = {key: (index, copy) for index, row in enumerate(keys) for copy, key in enumerate(row)}
    if None in store.find(list(wanted)):
        with store.locked(), _evaluating(model):
            places = zip(wanted.items(), store.find(list(wanted)), strict=True)
            missing = [item for item, place in places if place is None]
            missing = [missing[number] for number in np.random.default_rng(0).permutation(len(missing))]
            with tqdm(total=len(missing), desc="encoding audio", disable=quiet) as progress:
                while missing:
                    store.add(_encode_part(model, clips, missing, progress), len(missing))
    clips.frames = StoredFrames([store.find(row) for row in keys])
    return store


@contextmanager
def _evaluating(model: GEmoClapPreTrainedModel) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def _encode_part(model: GEmoClapPreTrainedModel, clips, missing: list, progress) -> Iterator[tuple[str, ClipFrames]]:
    """Encode and remove the last items of `missing`, keys with the index of a clip and the number of its version."""
    end = time.monotonic() + PART_SECONDS
    while missing:
        key, (index, copy) = missing.pop()
        yield key, _encode(model, clips, index, copy)
        progress.update()
        if time.monotonic() > end:
            return


def _key(clips, state: str, name: str, copy: int) -> str:
    changes = [clips.seed, copy, name, asdict(clips.augmentation)] if copy else None
    return digest([state, changes])


@torch.no_grad()
def _encode(model: GEmoClapPreTrainedModel, clips, index: int, copy: int) -> ClipFrames:
    """Encode a version of a clip alone, so that its frames do not depend on which other clips are missing."""
    name = clips.name_of(index)
    seed = int(digest([clips.seed, name, copy])[:15], 16)
    features = clips.clip_features(index, torch.Generator().manual_seed(seed) if copy else None)
    inputs = collate_audio(clips.extractor, [{"clip": features}])
    [(states, num_valid)] = model.frozen_states(**{key: value.to(model.device) for key, value in inputs.items()})
    if (pooling := pooled_frames(model)) and num_valid:
        states = _few_frames(states, num_valid, pooling)
        num_valid = states.shape[1]
    states = states.half().cpu().numpy()
    if not np.isfinite(states).all():
        raise ValueError(
            f"{name}: the frames of the audio encoder are not finite in half precision: leave out the clip, or give "
            f"--cache_frozen_frames false"
        )
    return ClipFrames(states, num_valid)
