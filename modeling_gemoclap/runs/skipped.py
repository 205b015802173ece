"""Clips that could not be used while a model was trained: reported, and not counted as training clips."""

from __future__ import annotations

from collections import Counter

from ..base_gemoclap import GEmoClapPreTrainedModel
from ..corpora.manifest import Corpus
from ..training.clips import ClipDataset
from ..training.gather import all_gather_object
from ..training.trainer import SpeechTrainer


def skipped_while_training(trainer: SpeechTrainer) -> tuple[list[str], int]:
    """Collect the clips that any process or worker of it has skipped, and take them out of the record of the training.

    All processes must call it.

    Args:
        trainer: The trainer, after its training.

    Returns:
        What is wrong with each clip, and how many of them are training clips.
    """
    errors, number = [], 0
    for dataset in (trainer.train_dataset, trainer.eval_dataset):
        if not isinstance(dataset, ClipDataset):
            continue
        places = sorted({place for own in all_gather_object(dataset.skipped_places()) for place in own})
        if trainer.is_world_process_zero():
            errors += [dataset.what_is_wrong(place) for place in places]
        if dataset is trainer.train_dataset:
            number = len(places)
            count_out(trainer.trained_model, dataset.corpus, places)
    return errors, number


def count_out(model: GEmoClapPreTrainedModel, corpus: Corpus, places: list[int]) -> None:
    """Correct the number of clips in a model's record of a training.

    Args:
        model: The model; the records of this training are in its configuration.
        corpus: The training clips.
        places: Which of them took no part.
    """
    if not places:
        return
    numbers = corpus.part_numbers()
    every, skipped = Counter(numbers), Counter(numbers[place] for place in places)
    records = [dict(record) for record in model.config.training_data or []]
    for number, (whole, _) in enumerate(corpus.by_part()):
        for record in records:
            own = record.get("manifest_sha256") == whole.manifest_sha256 and "stage" not in record
            if own and record.get("num_clips") == every[number]:
                record["num_clips"] -= skipped[number]
    model.config.training_data = records
