"""Predictions for recordings."""

from __future__ import annotations

import numbers
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from transformers.utils import logging

from ..feature_extraction_gemoclap import GEmoClapFeatureExtractor
from ..fingerprint import AUDIO_LIBRARIES, digest, fingerprint
from ..pipeline_gemoclap import ZeroShotEmotionPipeline
from ..prompts_gemoclap import check_words
from ..safety_gemoclap import tensors_sha256
from .classifier import AudioClassifier

logger = logging.get_logger(__name__)
BATCH_SIZE = 16
NONE_OF_THESE = "none of these"
"""The label of a prediction whose score is below `reject_below`."""


class Rejectable:
    """What an answer with `label` and `best_label` has: both are equal, unless it is rejected."""

    label: str
    best_label: str | None

    def __post_init__(self):
        if self.best_label is None:
            object.__setattr__(self, "best_label", self.label)

    @property
    def rejected(self) -> bool:
        """Whether the score is below `reject_below`, so that the label is `NONE_OF_THESE`."""
        return self.label != self.best_label


@dataclass(frozen=True)
class Prediction(Rejectable):
    """The answer of a model for one recording.

    Args:
        label: The label with the highest score; `NONE_OF_THESE` if that score is below `reject_below`.
        score: The highest score.
        scores: The score of each label, highest first. They sum to 1.
        gender: The gender with the highest score; None if it was not asked for.
        best_label: The label with the highest score, also of a rejected prediction; None: `label`.
    """

    label: str
    score: float
    scores: dict[str, float]
    gender: str | None = None
    best_label: str | None = None


@dataclass(frozen=True)
class PredictionOptions:
    """What is asked of a model.

    Args:
        labels: Words to choose from; None: the emotions of the checkpoint.
        templates: Prompt templates with `{}`; None: those of the checkpoint.
        gender: Whether to predict the gender too.
        batch_size: Number of recordings that are processed together. It does not change the results.
        reject_below: The label is `NONE_OF_THESE` if the highest score is below this number, between 0 and 1; None
            rejects no prediction. The scores are probabilities only if `why_only_ranks` gives no reason.

    Raises:
        ValueError: If `reject_below` is not a number above 0 and below 1.
    """

    labels: Sequence[str] | str | None = None
    templates: Sequence[str] | str | None = None
    gender: bool = False
    batch_size: int = BATCH_SIZE
    reject_below: float | None = None

    def __post_init__(self):
        if self.reject_below is not None:
            check_threshold("reject_below", self.reject_below)

    def labels_of(self, pipe: ZeroShotEmotionPipeline | AudioClassifier) -> list[str]:
        """The labels that a model chooses from.

        Raises:
            ValueError: If a label is empty or repeated, or is `NONE_OF_THESE` while predictions are rejected.
        """
        labels = list(pipe.model.config.emotions) if self.labels is None else check_words("labels", self.labels)
        if self.reject_below is not None and NONE_OF_THESE in (label.strip().lower() for label in labels):
            raise ValueError(
                f"reject_below answers {NONE_OF_THESE!r}, which is also one of the labels: use another word for that "
                f"label, or reject no predictions"
            )
        return labels


def check_threshold(name: str, value: float) -> None:
    """Check that a threshold on scores is a number above 0 and below 1.

    Args:
        name: Name of the option in messages.
        value: The threshold.

    Raises:
        ValueError: If it is not. NaN and booleans are not.
    """
    is_number = isinstance(value, numbers.Real) and not isinstance(value, (bool, np.bool_))
    if not (is_number and 0 < value < 1):
        raise ValueError(f"{name} {value!r}: give a number above 0 and below 1, such as 0.5")


def why_only_ranks(pipe: ZeroShotEmotionPipeline | AudioClassifier, options: PredictionOptions) -> str | None:
    """Why scores only rank the labels instead of being probabilities of being correct.

    Args:
        pipe: The model, from `load_pipeline`.
        options: Labels and templates.

    Returns:
        A reason; None if the scores are calibrated for these labels and templates.
    """
    config = pipe.model.config
    if config.calibration_temperature is None:
        return "the checkpoint is not calibrated"
    if isinstance(pipe, AudioClassifier):
        return None
    asked = config.class_prompts(options.labels, options.templates)
    own = config.class_prompts()
    same = sorted(map(sorted, asked)) == sorted(map(sorted, own))
    return None if same else "the checkpoint is calibrated for other labels or templates"


def predict(
    pipe: ZeroShotEmotionPipeline | AudioClassifier,
    recordings: Iterable,
    options: PredictionOptions,
    on_error: str = "raise",
) -> Iterator[Prediction | str]:
    """Predict the emotion of recordings, in their order.

    Args:
        pipe: The model, from `load_pipeline`.
        recordings: Recordings of any type that `read_audio` accepts.
        options: Labels, templates, gender, size of batches, and the threshold below which predictions are rejected. A
            warning is given if there is a threshold and the scores are not calibrated.
        on_error: `"raise"`, or `"return"` to return the error message for a recording that cannot be used.

    Returns:
        An iterator with the `Prediction` of each recording. Invalid options raise an error at once.

    Raises:
        AudioError: If a recording cannot be used and `on_error` is `"raise"`.
        ValueError: If labels or templates are invalid, or if the checkpoint cannot predict the gender.
    """
    stream = _answers(pipe, recordings, options, on_error)
    return (_prediction(answer, options.reject_below) for answer in stream)


def predict_with_embeddings(
    pipe: ZeroShotEmotionPipeline | AudioClassifier, recordings: Iterable, options: PredictionOptions
) -> Iterator[tuple[Prediction | str, np.ndarray | None]]:
    """Predict the emotion of recordings as `predict` does, with `on_error="return"`, and embed them too.

    Args:
        pipe: See `predict`.
        recordings: See `predict`.
        options: See `predict`.

    Returns:
        An iterator with the prediction and the embedding `(dimensions,)` of each recording, or its error and None.
    """
    stream = _answers(pipe, recordings, options, "return", return_embeddings=True)
    return ((_prediction(answer, options.reject_below), answer.get("embedding")) for answer in stream)


def _answers(pipe, recordings: Iterable, options: PredictionOptions, on_error: str, **asked) -> Iterator:
    """The answers of the pipeline, after the options were checked."""
    given = {"candidate_labels": options.labels, "hypothesis_template": options.templates}
    asked |= {name: value for name, value in given.items() if value is not None}
    options.labels_of(pipe)
    if options.gender:
        if isinstance(pipe, AudioClassifier):
            raise ValueError("a classifier predicts emotions only: leave out the gender")
        asked["return_gender"] = True
    stream = pipe(iter(recordings), batch_size=options.batch_size, on_error=on_error, **asked)
    if options.reject_below is not None and (reason := why_only_ranks(pipe, options)):
        logger.warning_once(
            f"reject_below {options.reject_below:g}: {reason}, so scores only rank the labels and are no "
            f"probabilities; the share of predictions that is rejected means little"
        )
    return stream


def _prediction(answer: list[dict] | dict, reject_below: float | None) -> Prediction | str:
    if isinstance(answer, dict) and "error" in answer:
        return answer["error"]
    emotions, gender = (answer["emotion"], answer.get("gender")) if isinstance(answer, dict) else (answer, None)
    scores = {item["label"]: item["score"] for item in emotions}
    best, score = emotions[0]["label"], emotions[0]["score"]
    label = NONE_OF_THESE if reject_below is not None and score < reject_below else best
    return Prediction(label, score, scores, gender[0]["label"] if gender else None, best)


def extractor_of(pipe: ZeroShotEmotionPipeline | AudioClassifier) -> GEmoClapFeatureExtractor:
    """The feature extractor of a pipeline or a classifier."""
    return getattr(pipe, "feature_extractor", None) or pipe.processor.feature_extractor


def identity_of_predictions(pipe: ZeroShotEmotionPipeline | AudioClassifier, options: PredictionOptions) -> dict:
    """Fingerprint of what predictions depend on, apart from the recordings: code, weights, prompts, options."""
    asked, config = asdict(options), pipe.model.config
    del asked["batch_size"]
    if asked["reject_below"] is None:  # as before there was the option
        del asked["reject_below"]
    extractor = extractor_of(pipe)
    if not isinstance(pipe, AudioClassifier):
        groups = [*config.class_prompts(options.labels, options.templates), *config.gender_class_prompts()]
        prompts = [prompt for group in groups for prompt in group]
        asked["tokens_sha256"] = digest([len(groups), pipe.processor.tokenizer(prompts)["input_ids"]])
    return fingerprint(
        ["inference.predictions"],
        (*AUDIO_LIBRARIES, "tokenizers", "torch"),
        weights=tensors_sha256(pipe.model.state_dict().values()),
        emotions=config.emotions,
        temperature=config.calibration_temperature,
        extractor=extractor.to_dict(),
        **asked,
    )
