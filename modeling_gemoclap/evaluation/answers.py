"""What a checkpoint answers on a corpus."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from tqdm.auto import tqdm

from ..corpora.manifest import Corpus
from ..corpora.protocols import genders_of
from ..corpora.provenance import Heard, heard_speakers
from ..feature_extraction_gemoclap import AudioError
from ..pipeline_gemoclap import ZeroShotEmotionPipeline
from .classifier import AudioClassifier
from .statistics import Judged


class SeenSpeakersError(ValueError):
    """A checkpoint is to be judged on speakers it was trained on."""


@dataclass
class Evaluation:
    """What a checkpoint answered.

    Args:
        labels: The emotions it chose between.
        method: How it chose.
        rows: A dict a clip: `file_name`, `emotion`, `predicted`, `score_<label>` for every label, `speaker_id`,
            `gender`.
        embeddings: Audio embedding of each clip, `(size,)`.
        skipped: What was wrong with each clip that could not be used.
        heard: Whether it was trained or developed on their speakers.
    """

    labels: list[str]
    method: str
    rows: list[dict] = field(default_factory=list)
    embeddings: list[np.ndarray] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    heard: Heard = field(default_factory=Heard)

    @property
    def references(self) -> list[str]:
        """True emotions, `(clips,)`."""
        return [row["emotion"] for row in self.rows]

    @property
    def predictions(self) -> list[str]:
        """Predicted emotions, `(clips,)`."""
        return [row["predicted"] for row in self.rows]

    def judged(self, fold: int = 0) -> Judged:
        """The answers as arrays."""
        columns = {name: np.array([row[name] for row in self.rows]) for name in ("file_name", "speaker_id", "gender")}
        truth = np.array([self.labels.index(emotion) for emotion in self.references])
        scores = np.array([[row[f"score_{label}"] for label in self.labels] for row in self.rows])
        return Judged(self.labels, *columns.values(), np.full(len(truth), fold), truth, scores)


def is_control(training_data: list[dict] | None) -> bool:
    """Whether weights are a control: trained on shuffled labels last, not in a training that this one started from."""
    return any(record.get("labels_shuffled") and "stage" not in record for record in training_data or [])


def refuse_seen_speakers(
    corpus: Corpus, training_data: list[dict] | None, allow: bool = False, model: str = "the checkpoint"
) -> Heard:
    """Whether a checkpoint was trained or developed on the speakers of `corpus`.

    Args:
        corpus: The clips.
        training_data: The checkpoint's records.
        allow: Whether that is allowed.
        model: What the checkpoint is called in the message.

    Raises:
        SeenSpeakersError: If it was, on some of them, and that is not allowed.
    """
    found = heard_speakers(corpus, training_data)
    if found.speakers and not allow:
        seen, unseen = found.speakers, sorted(set(corpus.speakers) - set(found.speakers))
        raise SeenSpeakersError(
            f"{corpus.name}: {model} was trained or developed on its speakers {', '.join(seen)}; a figure on "
            f"them would be false. "
            + (f"Give --speakers {' '.join(unseen)}" if unseen else "Choose another corpus")
            + ", or --allow_seen_speakers, which the result will then say"
        )
    return found


def labelled(corpus: Corpus) -> tuple[Corpus, list[str]]:
    """The clips that have an emotion, and a remark about the others.

    Raises:
        ValueError: If there are fewer than two emotions, or a speaker has two genders.
    """
    genders_of(corpus)
    known = corpus.where("emotion", bool)
    if len(known.emotions) < 2:
        raise ValueError(
            f"{corpus.name}: all clips are {known.emotions[0] if len(known) else 'without an emotion'}; recall needs "
            f"two emotions or more"
        )
    left = len(corpus) - len(known)
    return known, [f"{left} clips have no emotion to compare with, and were not judged"] if left else []


def absent_labels(corpus: Corpus, labels: list[str]) -> list[str]:
    """A remark about labels that no clip has."""
    there = corpus.emotions
    absent = [label for label in labels if label not in there]
    return [f"no clip is {' or '.join(absent)}: answers so are wrong, and UAR is over the others"] if absent else []


def unknown_words(pipe, labels: list[str], words: tuple[list[str], str] | None) -> list[str]:
    """A remark about words that the checkpoint's text encoder was never trained on, if the labels bring such."""
    config = pipe.model.config
    if not hasattr(pipe.model, "text_model"):
        return []
    unknown = config.unknown_words(
        [prompt for group in config.class_prompts(*(words or (labels,))) for prompt in group]
    )
    return [f"the text encoder has never seen {', '.join(unknown)}: answers by them are guesses"] if unknown else []


def refuse_one_emotion(truth: list[str], corpus: Corpus, skipped: list[str]) -> None:
    """Make sure that two emotions are left once bad clips were skipped.

    Raises:
        ValueError: If not.
    """
    if len(set(truth)) < 2:
        raise ValueError(f"{corpus.name}: without the {len(skipped)} bad clips fewer than two emotions are left")


def evaluate_clips(
    pipe: ZeroShotEmotionPipeline | AudioClassifier,
    corpus: Corpus,
    batch_size: int = 16,
    on_bad_audio: str = "raise",
    allow_seen_speakers: bool = False,
    labels: list[str] | None = None,
    words: tuple[list[str], str] | None = None,
) -> Evaluation:
    """Name the emotion of every clip: by the checkpoint's own prompts, or by a classifier's head.

    Args:
        pipe: The checkpoint's pipeline, or an `AudioClassifier`.
        corpus: Clips, each with an emotion that the checkpoint knows.
        batch_size: Clips that go through the model together.
        on_bad_audio: `"raise"`, or `"skip"` to judge on the rest.
        allow_seen_speakers: Judge even on speakers that the checkpoint was trained on.
        labels: Emotions to choose between; None: the checkpoint's.
        words: How the labels are called, in their order, and the template that these words are put into; None: the
            checkpoint's own words and templates.

    Returns:
        The answers.

    Raises:
        AudioError: If clips cannot be used and `on_bad_audio` is `"raise"`; they are named.
        SeenSpeakersError: If the checkpoint was trained on a speaker and that is not allowed.
        ValueError: If clips without an emotion are to be judged, or scores are not finite.
    """
    labels = list(labels or pipe.model.config.emotions)
    called, template = words or (labels, None)
    heard = refuse_seen_speakers(corpus, pipe.model.config.training_data, allow_seen_speakers)
    unlabelled = [clip["file_name"] for clip in corpus.clips if not clip["emotion"]]
    if unlabelled:
        raise ValueError(
            f"{corpus.name}: {len(unlabelled)} clips have no emotion to compare with, first {unlabelled[0]}; "
            f"label them, or take their rows out of metadata.csv"
        )
    options = {"candidate_labels": called, "hypothesis_template": template, "return_embeddings": True}
    answers = pipe(corpus.recordings(), batch_size=batch_size, on_error="return", **options)
    evaluation = Evaluation(labels, pipe.method, heard=heard)
    for clip, answer in zip(corpus.clips, tqdm(answers, total=len(corpus), desc="evaluating"), strict=True):
        if "error" in answer:
            evaluation.skipped.append(answer["error"])
            continue
        scores = {labels[called.index(item["label"])]: item["score"] for item in answer["emotion"]}
        row = {"file_name": clip["file_name"], "emotion": clip["emotion"], "predicted": max(scores, key=scores.get)}
        row |= {f"score_{label}": scores[label] for label in labels}
        evaluation.rows.append(row | {"speaker_id": clip["speaker_id"], "gender": clip["gender"]})
        evaluation.embeddings.append(answer["embedding"])
    if evaluation.skipped and (on_bad_audio == "raise" or not evaluation.rows):
        raise AudioError(
            f"{corpus.cannot_be_used(evaluation.skipped)}or give --on_bad_audio skip to judge on the rest"
        )
    return evaluation
