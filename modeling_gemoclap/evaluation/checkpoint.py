"""Evaluation of one loaded checkpoint."""

from __future__ import annotations

import numpy as np

from ..inference.classifier import AudioClassifier
from ..pipeline_gemoclap import ZeroShotEmotionPipeline
from . import label_checks
from .clips import Candidates, EvaluationOptions, evaluate_clips
from .pictures import EmbeddingFigures
from .records import Source, checkpoint_record
from .similarities import class_similarities


def evaluate_pipeline(
    pipe: ZeroShotEmotionPipeline | AudioClassifier,
    candidates: Candidates,
    options: EvaluationOptions,
    source: Source,
    notes: list[str],
) -> tuple[dict, list[dict], EmbeddingFigures]:
    """Evaluate a checkpoint on labelled clips.

    Args:
        pipe: The checkpoint.
        candidates: The emotions to choose between.
        options: How clips are evaluated.
        source: The clips, and what identifies the evaluation.
        notes: Notes for the report.

    Returns:
        The content of `results.json`, the rows of predictions, and the data of the figures.

    Raises:
        SeenSpeakersError: If the checkpoint was trained on test speakers and that is not allowed.
        ValueError: If clips cannot be used, or fewer than two emotions are left.
    """
    corpus = source.corpus
    notes = [*notes, *label_checks.absent_labels(corpus, candidates.labels)]
    notes += label_checks.unknown_words(pipe, candidates)
    evaluation = evaluate_clips(pipe, corpus, options, candidates)
    label_checks.refuse_one_emotion(evaluation.emotions, corpus, evaluation.skipped)
    record = checkpoint_record(evaluation, pipe.model.config, source, notes)
    predictions, embeddings = evaluation.as_predictions(), np.stack(evaluation.embeddings)
    similarities = class_similarities(pipe, predictions, embeddings)
    figures = EmbeddingFigures(predictions, embeddings, similarities, "all clips")
    return record, evaluation.rows, figures
