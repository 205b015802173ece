"""Predictions for recordings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass

from ..fingerprint import AUDIO_LIBRARIES, digest, fingerprint
from ..pipeline_gemoclap import ZeroShotEmotionPipeline
from ..prompts_gemoclap import check_words
from ..safety_gemoclap import tensors_sha256
from .classifier import AudioClassifier

BATCH_SIZE = 16


@dataclass(frozen=True)
class Prediction:
    """The answer of a model for one recording.

    Args:
        label: The label with the highest score.
        score: Its score.
        scores: The score of each label, highest first. They sum to 1.
        gender: The gender with the highest score; None if it was not asked for.
    """

    label: str
    score: float
    scores: dict[str, float]
    gender: str | None = None


@dataclass(frozen=True)
class PredictionOptions:
    """What is asked of a model.

    Args:
        labels: Words to choose from; None: the emotions of the checkpoint.
        templates: Prompt templates with `{}`; None: those of the checkpoint.
        gender: Whether to predict the gender too.
        batch_size: Number of recordings that are processed together. It does not change the results.
    """

    labels: Sequence[str] | str | None = None
    templates: Sequence[str] | str | None = None
    gender: bool = False
    batch_size: int = BATCH_SIZE

    def labels_of(self, pipe: ZeroShotEmotionPipeline | AudioClassifier) -> list[str]:
        """The labels that a model chooses from.

        Raises:
            ValueError: If a label is empty or repeated.
        """
        return list(pipe.model.config.emotions) if self.labels is None else check_words("labels", self.labels)


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
        options: Labels, templates, gender and size of batches.
        on_error: `"raise"`, or `"return"` to return the error message for a recording that cannot be used.

    Returns:
        An iterator with the `Prediction` of each recording. Invalid options raise an error at once.

    Raises:
        AudioError: If a recording cannot be used and `on_error` is `"raise"`.
        ValueError: If labels or templates are invalid, or if the checkpoint cannot predict the gender.
    """
    asked = {"candidate_labels": options.labels, "hypothesis_template": options.templates}
    asked = {name: value for name, value in asked.items() if value is not None}
    if options.gender:
        if isinstance(pipe, AudioClassifier):
            raise ValueError("a classifier predicts emotions only: leave out the gender")
        asked["return_gender"] = True
    stream = pipe(iter(recordings), batch_size=options.batch_size, on_error=on_error, **asked)
    return (_prediction(answer) for answer in stream)


def _prediction(answer: list[dict] | dict) -> Prediction | str:
    if isinstance(answer, dict) and "error" in answer:
        return answer["error"]
    emotions, gender = (answer["emotion"], answer["gender"]) if isinstance(answer, dict) else (answer, None)
    scores = {item["label"]: item["score"] for item in emotions}
    return Prediction(emotions[0]["label"], emotions[0]["score"], scores, gender[0]["label"] if gender else None)


def identity_of_predictions(pipe: ZeroShotEmotionPipeline | AudioClassifier, options: PredictionOptions) -> dict:
    """Fingerprint of what predictions depend on, apart from the recordings: code, weights, prompts, options."""
    asked, config = asdict(options), pipe.model.config
    del asked["batch_size"]
    extractor = getattr(pipe, "feature_extractor", None) or pipe.processor.feature_extractor
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
