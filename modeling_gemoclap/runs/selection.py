"""Selection of the training and development clips of a run by speaker and emotion."""

from __future__ import annotations

import dataclasses

from transformers.utils import logging

from ..corpora.manifest import Corpus, load_corpora
from ..corpora.protocols import development_speakers, sample_clips
from ..training.arguments import DataArguments, GEmoClapTrainingArguments, Recipe

logger = logging.get_logger(__name__)


def select_corpus(recipe: Recipe, reads_emotions: bool) -> tuple[Corpus, list[str]]:
    """Load the training and development clips as one corpus.

    Excluded speakers are ignored completely, also in the list of emotions.

    Args:
        recipe: The options, which name the corpora, speakers and emotions.
        reads_emotions: Whether emotion labels are read.

    Returns:
        The clips and the emotions; no emotions if labels are not read.

    Raises:
        ValueError: If no corpus is given, or a speaker is both excluded and a development speaker.
    """
    data = recipe.data
    if not data.data_dir:
        raise ValueError("give --data_dir, a corpus folder")
    emotions = recipe.model.emotions
    corpus = load_corpora(data.data_dir, data.corpus_name, emotions, data.emotion_map, not reads_emotions)
    if both := sorted({*(data.exclude_speakers or [])} & {*(data.dev_speakers or [])}):
        raise ValueError(
            f"--exclude_speakers and --dev_speakers both name {', '.join(both)}: give each speaker to only one of them"
        )
    speakers = [*data.speakers, *(data.dev_speakers or [])] if data.speakers else None
    corpus = corpus.of_speakers(speakers, data.exclude_speakers)
    if not reads_emotions:
        return corpus, []
    emotions = emotions or corpus.emotions
    return corpus.of_emotions(emotions, data.drop_other_emotions), emotions


def split(corpus: Corpus, data: DataArguments, seed: int, labelled: bool = True) -> tuple[Corpus, Corpus | None]:
    """Split clips into training and development clips.

    Args:
        corpus: The clips.
        data: Options for development speakers and the share of the training clips to use.
        seed: Seed of all random draws.
        labelled: Whether emotion labels are read.

    Returns:
        The training clips, and the development clips; None if there are none.

    Raises:
        ValueError: If labels are read and there are fewer than two emotions, or if development speakers are given by
            two options.
    """
    if data.dev_speakers and data.num_dev_speakers:
        raise ValueError("--dev_speakers and --num_dev_speakers both choose development speakers: give one of them")
    dev = data.dev_speakers or (
        development_speakers(corpus, data.num_dev_speakers, seed) if data.num_dev_speakers else []
    )
    train = corpus.of_speakers(exclude=dev)
    if not labelled:
        return train, corpus.of_speakers(dev) if dev else None
    all_emotions, train = train.emotions, sample_clips(train, data.label_fraction, seed)
    if missing := sorted(set(all_emotions) - set(train.emotions)):
        logger.warning(
            f"{corpus.name}: with --label_fraction {data.label_fraction} no training clip is {', '.join(missing)}"
        )
    if len(train.emotions) < 2:
        emotions = ", ".join(train.emotions) or "no emotion"
        raise ValueError(f"{corpus.name}: the training clips have only {emotions}; give clips of two or more emotions")
    if dev and not corpus.of_speakers(dev).emotions:
        raise ValueError(
            f"{corpus.name}: no clip of the development speakers {', '.join(dev)} has an emotion; give other speakers"
        )
    return train, corpus.of_speakers(dev) if dev else None


def with_selection(training: GEmoClapTrainingArguments, data: DataArguments) -> GEmoClapTrainingArguments:
    """Return the training arguments for `--select`: `dev` keeps the epoch with the best UAR on development speakers.

    Raises:
        ValueError: If there are no development speakers.
    """
    if data.select == "last":
        return training
    if not (data.dev_speakers or data.num_dev_speakers):
        raise ValueError("--select dev needs development speakers: give --num_dev_speakers 2, or --dev_speakers")
    return dataclasses.replace(
        training,
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=1,
        load_best_model_at_end=True,
        metric_for_best_model="uar",
        greater_is_better=True,
    )
