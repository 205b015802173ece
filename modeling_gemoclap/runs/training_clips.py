"""Writing of `training_clips.safetensors`, the sample of training clips beside the weights of a checkpoint."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from transformers.utils import logging

from ..corpora.files import write_atomically
from ..corpora.manifest import Corpus, load_corpora, mix
from ..corpora.provenance import TEACHER, UNKNOWN_SPEAKER
from ..fingerprint import TRAINING_CLIPS
from ..inference.loading import load_config, load_pipeline
from ..inference.observations import observe
from ..inference.predictions import PredictionOptions
from ..publishing.card import ENCODER
from ..safety_gemoclap import tensors_sha256
from ..training_clips import MAX_CLIPS, MEASURES, TrainingClips, to_bytes, training_clips_of
from .run import Run

logger = logging.get_logger(__name__)


def store_training_clips(run: Run) -> None:
    """Write the sample of a finished run, if it was asked for and the model predicts emotions.

    The random numbers of the process are left as they are. A sample that cannot be made is a warning: the training is
    finished.

    Args:
        run: The run, whose checkpoint is in its folder.
    """
    if not run.recipe.data.store_training_clips or ENCODER in (load_config(str(run.folder)).architectures or []):
        return
    try:
        with _unchanged_random_numbers():
            write_training_clips(run.folder, run.train, run.training.seed, str(run.training.device))
    except ValueError as error:
        logger.warning(f"{run.folder / TRAINING_CLIPS} was not written: {error}")


def write_training_clips(
    folder: Path | str, clips: Corpus, seed: int = 0, device: str | None = None, batch_size: int = 16
) -> TrainingClips:
    """Embed and measure a sample of the training clips of a checkpoint, and write it beside the weights.

    Args:
        folder: Folder of the checkpoint.
        clips: Its training clips. Of more than `MAX_CLIPS`, as many are drawn.
        seed: Seed of the draw.
        device: Device of the model; None selects a GPU if there is one.
        batch_size: Clips in a batch.

    Returns:
        What was written.

    Raises:
        ValueError: If the folder is not a checkpoint that predicts emotions, or fewer than two clips can be used.
    """
    pipe = load_pipeline(str(folder), device)
    drawn = np.sort(np.random.default_rng(seed).permutation(len(clips))[:MAX_CLIPS])
    sample = replace(clips, clips=clips.clips.select(drawn))
    seen = list(observe(pipe, sample.recordings(), PredictionOptions(batch_size=batch_size)))
    used = [number for number, each in enumerate(seen) if each.embedding is not None]
    if len(used) < 2:
        raise ValueError(f"{len(used)} of {len(seen)} training clips can be used, of 2 at least")
    speakers = [sample.clips["speaker_id"][number] for number in used]
    found = training_clips_of(
        np.stack([seen[number].embedding for number in used]),
        ["" if speaker == UNKNOWN_SPEAKER else speaker for speaker in speakers],
        {name: [getattr(seen[number].signal, name) for number in used] for name in MEASURES},
        tensors_sha256(pipe.model.state_dict().values()),
    )
    with write_atomically(Path(folder, TRAINING_CLIPS)) as part:
        part.write_bytes(to_bytes(found))
    return found


def recorded_training_clips(folder: str, data_dirs: list[str], names: list[str] | None = None) -> Corpus:
    """Select the clips that a checkpoint was trained on, by its record of training data.

    Args:
        folder: Folder of the checkpoint.
        data_dirs: Folders of the corpora that it was trained on.
        names: Names of the corpora; None: their recorded names or those of their folders.

    Raises:
        ValueError: If a corpus is missing or is not that of the record, or the clips cannot be told from the record.
    """
    config = load_config(folder)
    records = [each for each in config.training_data or [] if "speakers" in each and each.get("stage") != TEACHER]
    if not records:
        raise ValueError(f"{folder}: the checkpoint has no record of the clips that it was trained on")
    parts = []
    for path, name in zip(data_dirs, names or [None] * len(data_dirs), strict=True):
        corpus = load_corpora([path], name and [name], config.emotions)
        matching = [record for record in records if record["manifest_sha256"] == corpus.manifest_sha256]
        if not matching:
            raise ValueError(f"{path}: the checkpoint was not trained on this corpus or this version of its manifest")
        record = matching[-1]
        part = corpus.of_speakers(record["speakers"]).of_emotions(config.emotions, True)
        if len(part) != record["num_clips"]:
            raise ValueError(
                f"{path}: {len(part)} clips of the recorded speakers and emotions, and the checkpoint was trained on "
                f"{record['num_clips']}: which ones is not recorded"
            )
        parts.append(part)
    hashes = {record["manifest_sha256"] for record in records} - {part.manifest_sha256 for part in parts}
    if hashes:
        missing = sorted({record["corpus"] for record in records if record["manifest_sha256"] in hashes})
        raise ValueError(f"{folder}: it was also trained on {', '.join(missing)}; give the folders of all its corpora")
    return parts[0] if len(parts) == 1 else mix(parts)


@contextmanager
def _unchanged_random_numbers() -> Iterator[None]:
    """Restore the states of Python's, NumPy's and torch's global generators afterwards."""
    states = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
