"""`training_clips.safetensors`: what a checkpoint keeps of the clips that it was trained on.

The file lies beside the weights and has embeddings of a sample of the training clips, quantiles of their level, noise,
length and bandwidth, and the distances between clips of different speakers. It has no names of files or speakers.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from .fingerprint import TRAINING_CLIPS

MAX_CLIPS, MAX_DIMENSIONS = 512, 16384
MAX_BYTES = 2 * MAX_CLIPS * MAX_DIMENSIONS + 2**16
PERCENTILES = np.array([0, 5, 25, 50, 75, 95, 100])
MEASURES = ("level_db", "snr_db", "seconds", "bandwidth_hz")
OTHER_SPEAKERS, OTHER_CLIPS = "clips of other speakers", "other clips"
DISTANCES = 101  # percentiles 0 to 100


@dataclass(frozen=True)
class TrainingClips:
    """A sample of the training clips of a checkpoint.

    The distance of a clip is 1 minus the cosine to the nearest clip of the sample.

    Args:
        embeddings: Embeddings of unit length, `(clips, dimensions)`, float16.
        distances: Percentiles 0 to 100 of the distance of each clip of the sample to the nearest of `compared_with`,
            `(101,)`, float32.
        quantiles: For each of `MEASURES` the `PERCENTILES` over the sample, `(7,)`, float32; NaN if unknown.
        weights_sha256: Hash of the weights that the clips were embedded with; see `tensors_sha256`.
        compared_with: `OTHER_SPEAKERS`, or `OTHER_CLIPS` if the speakers are unknown or there is one speaker only.
    """

    embeddings: np.ndarray
    distances: np.ndarray
    quantiles: dict[str, np.ndarray]
    weights_sha256: str
    compared_with: str

    def __len__(self) -> int:
        return len(self.embeddings)

    def distance(self, embedding: np.ndarray) -> float:
        """Distance of a recording to the nearest clip of the sample.

        Args:
            embedding: `(dimensions,)`.
        """
        return float(1 - (self.embeddings.astype(np.float32) @ _unit(embedding)).max())

    def percentile(self, distance: float) -> int:
        """The per cent of the sample that are nearer to a clip of `compared_with` than a distance, 0 to 100."""
        return max(0, int(np.searchsorted(self.distances, distance)) - 1) if distance < self.distances[-1] else 100

    def range_of(self, measure: str) -> tuple[float, float, float] | None:
        """The 5th, 50th and 95th percentile of a measure over the sample; None if they are unknown."""
        low, middle, high = self.quantiles[measure][[1, 3, 5]].tolist()
        return None if np.isnan(middle) else (low, middle, high)


def training_clips_of(
    embeddings: np.ndarray, speakers: list[str], measures: dict[str, list[float | None]], weights_sha256: str
) -> TrainingClips:
    """Describe a sample of training clips.

    Args:
        embeddings: `(clips, dimensions)`.
        speakers: Speaker of each clip, which is not kept.
        measures: For each of `MEASURES` its value for each clip; None where it is unknown.
        weights_sha256: Hash of the weights.

    Raises:
        ValueError: If there are fewer than two clips or more than `MAX_CLIPS`.
    """
    if not 2 <= len(embeddings) <= MAX_CLIPS:
        raise ValueError(f"{len(embeddings)} training clips to describe: give 2 to {MAX_CLIPS}")
    stored = _unit(embeddings).astype(np.float16)
    same = np.array(speakers)[:, None] == np.array(speakers)
    known = not same.all() and "" not in speakers
    similarity = stored.astype(np.float32) @ stored.astype(np.float32).T
    nearest = 1 - np.where(same if known else np.eye(len(stored), dtype=bool), -np.inf, similarity).max(1)
    quantiles = {name: _quantiles([value for value in measures[name] if value is not None]) for name in MEASURES}
    distances = np.percentile(nearest, np.arange(DISTANCES)).astype(np.float32)
    return TrainingClips(stored, distances, quantiles, weights_sha256, OTHER_SPEAKERS if known else OTHER_CLIPS)


def _unit(embeddings: np.ndarray) -> np.ndarray:
    embeddings = np.asarray(embeddings, np.float32)
    return embeddings / np.linalg.norm(embeddings, axis=-1, keepdims=True).clip(1e-12)


def _quantiles(values: list[float]) -> np.ndarray:
    if not values:
        return np.full(len(PERCENTILES), np.nan, np.float32)
    return np.percentile(values, PERCENTILES).astype(np.float32)


def to_bytes(clips: TrainingClips) -> bytes:
    """The content of the file, the same bytes for the same clips."""
    tensors = {"embeddings": clips.embeddings, "distances": clips.distances, **clips.quantiles}
    metadata = {"weights_sha256": clips.weights_sha256, "compared_with": clips.compared_with}
    return _sorted_metadata(save(tensors, metadata=metadata))


def _sorted_metadata(content: bytes) -> bytes:
    """The safetensors file with its metadata in the order of their names; safetensors writes them in any order."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[end:]


def load_training_clips(folder: Path | str) -> TrainingClips | None:
    """Read the file of a checkpoint. Names, types, shapes and values of its tensors are checked.

    Args:
        folder: Folder of the checkpoint.

    Returns:
        The sample; None if the checkpoint has no such file.

    Raises:
        ValueError: If the file is damaged or has another form.
    """
    path = Path(folder, TRAINING_CLIPS)
    if not path.is_file():
        return None
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path}: {path.stat().st_size:,} bytes, of {MAX_BYTES:,} at most; remove it")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: it cannot be read ({error}); remove it") from error
    if reason := _why_invalid(tensors, metadata):
        raise ValueError(f"{path}: {reason}; remove it")
    quantiles = {name: tensors[name] for name in MEASURES}
    return TrainingClips(tensors["embeddings"], tensors["distances"], quantiles, **metadata)


def _why_invalid(tensors: dict[str, np.ndarray], metadata: dict[str, str]) -> str | None:
    if tensors.keys() != {"embeddings", "distances", *MEASURES} or metadata.keys() != {
        "weights_sha256",
        "compared_with",
    }:
        return "its tensors or metadata have other names"
    embeddings, distances = tensors["embeddings"], tensors["distances"]
    if embeddings.dtype != np.float16 or any(tensors[name].dtype != np.float32 for name in ("distances", *MEASURES)):
        return "its tensors have other types"
    shapes = {"distances": (DISTANCES,)} | dict.fromkeys(MEASURES, PERCENTILES.shape)
    sizes = embeddings.ndim == 2 and 2 <= len(embeddings) <= MAX_CLIPS and 1 <= embeddings.shape[1] <= MAX_DIMENSIONS
    if not sizes or any(tensors[name].shape != shape for name, shape in shapes.items()):
        return "its tensors have other shapes"
    lengths = np.linalg.norm(embeddings.astype(np.float32), axis=1)
    if not (np.abs(lengths - 1) < 0.01).all() or not (np.diff(distances) >= 0).all():
        return "its embeddings have no unit length, or its distances are not sorted"
    if not all(_is_sorted_or_unknown(tensors[name]) for name in MEASURES):
        return "its percentiles are not sorted numbers"
    return None if metadata["compared_with"] in (OTHER_SPEAKERS, OTHER_CLIPS) else "its metadata is unknown"


def _is_sorted_or_unknown(percentiles: np.ndarray) -> bool:
    is_sorted = np.isfinite(percentiles).all() and (np.diff(percentiles) >= 0).all()
    return bool(is_sorted or np.isnan(percentiles).all())
