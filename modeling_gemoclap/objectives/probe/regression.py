"""Logistic regression on standardised features, and the choice of layer and C by inner folds of training speakers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from transformers.utils import logging

logger = logging.get_logger(__name__)
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
NEVER = -1e4  # logit of a class without training clips; it stays far below the others after calibration


@dataclass
class ProbeData:
    """Training clips of known emotion.

    Args:
        features: `(clips, layers + 1, size)`.
        labels: `(clips,)`, indices of emotions.
        speakers: The speaker of each clip.
        emotions: The emotions.
    """

    features: np.ndarray
    labels: np.ndarray
    speakers: np.ndarray
    emotions: list[str]

    def single_speaker_emotions(self) -> list[str]:
        """Emotions that only one speaker has: no inner fold by speaker can judge them."""
        speakers = defaultdict(set)
        for label, speaker in zip(self.labels.tolist(), self.speakers.tolist(), strict=True):
            speakers[self.emotions[label]].add(speaker)
        return sorted(emotion for emotion, those in speakers.items() if len(those) == 1)


@dataclass
class Choice:
    """The layer and C of a probe, and what they were chosen by.

    Args:
        layer: Number of layers that are kept; 0: the input of the first layer.
        c: Inverse strength of the L2 penalty.
        layers: The candidate layers.
        strengths: The candidate values of C.
        uar: UAR of out-of-fold predictions, `(layers, strengths)`; empty if there was nothing to choose.
        folds: The speakers of each inner fold.
        not_judged: Emotions that the UAR leaves out, because only one training speaker has them.
    """

    layer: int
    c: float
    layers: list[int]
    strengths: list[float]
    uar: list[list[float]] = field(default_factory=list)
    folds: list[list[str]] = field(default_factory=list)
    not_judged: list[str] = field(default_factory=list)

    @property
    def best_uar(self) -> float | None:
        """UAR of the choice in the inner folds; None if nothing was chosen."""
        return self.uar[self.layers.index(self.layer)][self.strengths.index(self.c)] if self.uar else None


def regression(c: float) -> Pipeline:
    """A pipeline of scikit-learn: standardisation, and logistic regression with equal weights of the classes."""
    return make_pipeline(StandardScaler(), LogisticRegression(C=c, class_weight="balanced", max_iter=5000))


def choose(
    data: ProbeData, layers: Sequence[int], strengths: Sequence[float], folds: Sequence[Sequence[str]]
) -> Choice:
    """Choose the layer and C with the highest UAR of out-of-fold predictions.

    Of equal candidates, the lowest layer is chosen, and then the smallest C.

    Args:
        data: The training clips.
        layers: The candidate layers.
        strengths: The candidate values of C.
        folds: The speakers of each inner fold.

    Raises:
        ValueError: If an inner fold leaves clips of only one emotion, or no emotion is spoken by two speakers.
    """
    layers, strengths = sorted(layers), sorted(strengths)
    if len(layers) == len(strengths) == 1:
        return Choice(layers[0], strengths[0], layers, strengths)
    if alone := data.single_speaker_emotions():
        logger.warning(
            f"{', '.join(alone)}: only one training speaker has this emotion, so that inner folds by speaker cannot "
            f"judge it; layer and C are chosen by the other emotions"
        )
    judged = [label for label in np.unique(data.labels) if data.emotions[label] not in alone]
    if len(judged) < 2:
        raise ValueError(
            "--head probe chooses layer and C in folds of training speakers, for which at least two emotions need two "
            "speakers each: give more speakers, or give --probe_layer and --probe_c"
        )
    uar = np.zeros((len(layers), len(strengths)))
    for row, layer in enumerate(layers):
        predicted = _out_of_fold(data, data.features[:, layer].astype(np.float64), strengths, folds)
        recalls = [(predicted[:, data.labels == label] == label).mean(1) for label in judged]
        uar[row] = np.mean(recalls, 0)
    best, column = np.unravel_index(uar.argmax(), uar.shape)
    return Choice(
        layers[best], strengths[column], layers, strengths, uar.tolist(), [sorted(fold) for fold in folds], alone
    )


def _out_of_fold(
    data: ProbeData, features: np.ndarray, strengths: list[float], folds: Sequence[Sequence[str]]
) -> np.ndarray:
    """Predictions for each clip by regressions that were fitted without its speaker, `(strengths, clips)`."""
    predicted = np.full((len(strengths), len(features)), -1)
    for fold in folds:
        held_out = np.isin(data.speakers, list(fold))
        if not held_out.any():
            continue
        if len(np.unique(data.labels[~held_out])) < 2:
            raise ValueError(
                f"--head probe: without the speakers {', '.join(sorted(fold))} of an inner fold, the training clips "
                f"have fewer than two emotions: give more speakers, or give --probe_layer and --probe_c"
            )
        for row, c in enumerate(strengths):
            fitted = regression(c).fit(features[~held_out], data.labels[~held_out])
            predicted[row, held_out] = fitted.predict(features[held_out])
    return predicted


def linear_layer(fitted: Pipeline, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """The weights and the bias of a linear layer with the logits of a fitted `regression`, its scaler folded in.

    Logits of two classes are half the decision function of scikit-learn with both signs, so that their softmax is its
    probability. A class without training clips has weights of zero and a logit of `NEVER`.

    Args:
        fitted: The fitted pipeline; its classes are indices.
        classes: Number of classes.

    Returns:
        Weights `(classes, size)` and bias `(classes,)`.
    """
    scaler, model = (step for _, step in fitted.steps)
    weights, bias = model.coef_ / scaler.scale_, model.intercept_ - (model.coef_ / scaler.scale_) @ scaler.mean_
    if len(model.classes_) == 2:
        weights, bias = (np.concatenate([-values, values]) / 2 for values in (weights, bias))
    all_weights, all_bias = np.zeros((classes, weights.shape[1])), np.full(classes, NEVER)
    all_weights[model.classes_], all_bias[model.classes_] = weights, bias
    return all_weights, all_bias
