"""Similarities between clips and the texts of classes."""

from __future__ import annotations

import numpy as np

from ..inference.classifier import AudioClassifier
from ..pipeline_gemoclap import ZeroShotEmotionPipeline
from .statistics import Predictions


def class_similarities(
    pipe: ZeroShotEmotionPipeline | AudioClassifier, predictions: Predictions, embeddings: np.ndarray
) -> np.ndarray | None:
    """Mean cosine similarity between the clips of each emotion and each class text.

    Args:
        pipe: Pipeline of the checkpoint.
        predictions: Predictions for the clips.
        embeddings: Audio embeddings of the clips, `(clips, projection_dim)`.

    Returns:
        `(labels, labels)`, with NaN in the rows of emotions that do not occur; None for a classifier, which has no
        texts.
    """
    if isinstance(pipe, AudioClassifier):
        return None
    prompts = pipe.model.config.class_prompts(predictions.labels)
    texts = pipe.model.get_class_embeddings(prompts, pipe.processor.tokenizer).float().cpu().numpy()
    cosines = embeddings @ texts.T
    rows = [cosines[predictions.truth == index] for index in range(len(predictions.labels))]
    return np.stack([row.mean(0) if len(row) else np.full(len(rows), np.nan) for row in rows])
