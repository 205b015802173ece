"""Clips that were skipped during training: they are reported and removed from the record of training data."""

from __future__ import annotations

from collections import Counter

from ..base_gemoclap import GEmoClapPreTrainedModel
from ..corpora.manifest import Corpus
from ..training.clips import ClipDataset
from ..training.gather import all_gather_object
from ..training.trainer import SpeechTrainer


def collect_skipped_clips(trainer: SpeechTrainer) -> tuple[list[str], int]:
    """Collect the clips that a process or worker skipped, and subtract them from the record of training data.

    All processes must call this function.

    Args:
        trainer: The trainer, after training.

    Returns:
        The error of each clip, and the number of skipped training clips.
    """
    errors, number = [], 0
    for dataset in (trainer.train_dataset, trainer.eval_dataset):
        if not isinstance(dataset, ClipDataset):
            continue
        places = sorted({place for process in all_gather_object(dataset.skipped_indices()) for place in process})
        if trainer.is_world_process_zero():
            errors += [dataset.clip_error(place) for place in places]
        if dataset is trainer.train_dataset:
            number = len(places)
            subtract_skipped_clips(trainer.trained_model, dataset.corpus, places)
    return errors, number


def subtract_skipped_clips(model: GEmoClapPreTrainedModel, corpus: Corpus, places: list[int]) -> None:
    """Subtract skipped clips from the record of training data in a model's configuration.

    Args:
        model: The model.
        corpus: The training clips.
        places: Indices of the skipped clips.
    """
    if not places:
        return
    numbers = corpus.part_numbers()
    all_clips, skipped = Counter(numbers), Counter(numbers[place] for place in places)
    records = [dict(record) for record in model.config.training_data or []]
    for number, (part, _) in enumerate(corpus.by_part()):
        for record in records:
            is_of_part = record.get("manifest_sha256") == part.manifest_sha256 and "stage" not in record
            if is_of_part and record.get("num_clips") == all_clips[number]:
                record["num_clips"] -= skipped[number]
    model.config.training_data = records
