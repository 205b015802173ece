"""Predictions of a checkpoint for the clips of a corpus."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from tqdm.auto import tqdm

from ..corpora.manifest import Corpus
from ..corpora.provenance import Heard
from ..feature_extraction_gemoclap import AudioError
from ..inference.classifier import AudioClassifier
from ..pipeline_gemoclap import ZeroShotEmotionPipeline
from .seen_speakers import refuse_seen_speakers
from .statistics import Predictions


@dataclass(frozen=True)
class EvaluationOptions:
    """How clips are evaluated.

    Args:
        batch_size: Clips in a batch.
        on_bad_audio: `"raise"` stops at clips that cannot be used, `"skip"` evaluates the other clips.
        device: Device of the model, such as `"cpu"`; None selects a GPU if there is one.
        allow_seen_speakers: Whether test speakers may be speakers that the checkpoint was trained on.
        gender_probe: Whether the folds of a protocol predict gender from embeddings, which encodes the training clips.
    """

    batch_size: int = 16
    on_bad_audio: str = "raise"
    device: str | None = None
    allow_seen_speakers: bool = False
    gender_probe: bool = True


@dataclass(frozen=True)
class Candidates:
    """Emotions to choose between.

    Args:
        labels: Labels in the results; None selects the emotions of the checkpoint.
        words: Words that represent the labels in prompts, in the order of `labels`; None uses the labels.
        template: Template for these words, with `{}`; None uses the templates of the checkpoint.
    """

    labels: list[str] | None = None
    words: list[str] | None = None
    template: str | None = None


@dataclass
class Evaluation:
    """Predictions of one checkpoint.

    Args:
        labels: Candidate emotions.
        method: How the checkpoint predicts, in words.
        rows: One dict for each clip: `file_name`, `emotion`, `predicted`, `score_<label>` for every label,
            `speaker_id`, `gender`.
        embeddings: Audio embedding of each clip, `(projection_dim,)`.
        skipped: Error message of each clip that could not be used.
        heard: Test speakers that the checkpoint was trained or developed on, and what is unknown.
    """

    labels: list[str]
    method: str
    rows: list[dict] = field(default_factory=list)
    embeddings: list[np.ndarray] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    heard: Heard = field(default_factory=Heard)

    @property
    def emotions(self) -> list[str]:
        """True emotion of each clip, `(clips,)`."""
        return [row["emotion"] for row in self.rows]

    def as_predictions(self) -> Predictions:
        """Predictions as arrays, with all clips in fold 0."""
        files, speakers, genders = (
            np.array([row[name] for row in self.rows]) for name in ("file_name", "speaker_id", "gender")
        )
        truth = np.array([self.labels.index(emotion) for emotion in self.emotions])
        scores = np.array([[row[f"score_{label}"] for label in self.labels] for row in self.rows])
        return Predictions(self.labels, files, speakers, genders, np.zeros(len(truth), int), truth, scores)

    def add(self, clip: dict, answer: dict, names: list[str]) -> None:
        """Add the answer of the pipeline for a clip, or its error.

        Args:
            clip: Row of the corpus.
            answer: Answer of the pipeline, with embedding.
            names: What the pipeline calls the labels, in the order of `labels`.
        """
        if "error" in answer:
            self.skipped.append(answer["error"])
            return
        scores = {self.labels[names.index(item["label"])]: item["score"] for item in answer["emotion"]}
        row = {"file_name": clip["file_name"], "emotion": clip["emotion"], "predicted": max(scores, key=scores.get)}
        row |= {f"score_{label}": scores[label] for label in self.labels}
        self.rows.append(row | {"speaker_id": clip["speaker_id"], "gender": clip["gender"]})
        self.embeddings.append(answer["embedding"])


def evaluate_clips(
    pipe: ZeroShotEmotionPipeline | AudioClassifier,
    corpus: Corpus,
    options: EvaluationOptions | None = None,
    candidates: Candidates | None = None,
) -> Evaluation:
    """Predict the emotion of every clip, zero-shot with prompts or with the head of a classifier.

    Args:
        pipe: Pipeline of the checkpoint, or an `AudioClassifier`.
        corpus: Clips, each with one of the candidate emotions.
        options: How clips are evaluated; the device is that of `pipe`.
        candidates: Emotions to choose between; None selects those of the checkpoint.

    Returns:
        The predictions.

    Raises:
        AudioError: If clips cannot be used and `on_bad_audio` is `"raise"`, or no clip can be used.
        SeenSpeakersError: If the checkpoint was trained on a test speaker and that is not allowed.
        ValueError: If clips have no emotion, or scores are not finite.
    """
    options, candidates = options or EvaluationOptions(), candidates or Candidates()
    labels = list(candidates.labels or pipe.model.config.emotions)
    names = candidates.words or labels
    heard = refuse_seen_speakers(corpus, pipe.model.config.training_data, options.allow_seen_speakers)
    _refuse_unlabelled(corpus)
    answers = pipe(
        corpus.recordings(),
        batch_size=options.batch_size,
        on_error="return",
        candidate_labels=names,
        hypothesis_template=candidates.template,
        return_embeddings=True,
    )
    evaluation = Evaluation(labels, pipe.method, heard=heard)
    for clip, answer in zip(corpus.clips, tqdm(answers, total=len(corpus), desc="evaluating"), strict=True):
        evaluation.add(clip, answer, names)
    if evaluation.skipped and (options.on_bad_audio == "raise" or not evaluation.rows):
        raise AudioError(
            f"{corpus.cannot_be_used(evaluation.skipped)}or give --on_bad_audio skip to evaluate the other clips"
        )
    return evaluation


def _refuse_unlabelled(corpus: Corpus) -> None:
    unlabelled = [clip["file_name"] for clip in corpus.clips if not clip["emotion"]]
    if unlabelled:
        raise ValueError(
            f"{corpus.name}: {len(unlabelled)} clips have no emotion, the first is {unlabelled[0]}; label them, or "
            f"remove their rows from metadata.csv"
        )
