"""Checks of the labels of an evaluation, and notes about them for its report."""

from __future__ import annotations

from ..corpora.manifest import Corpus
from ..corpora.protocols import genders_of
from ..inference.classifier import AudioClassifier
from ..pipeline_gemoclap import ZeroShotEmotionPipeline
from .clips import Candidates


def with_emotion(corpus: Corpus) -> tuple[Corpus, list[str]]:
    """Select the clips that have an emotion.

    Returns:
        The clips, and a note if others were left out.

    Raises:
        ValueError: If fewer than two emotions occur, or a speaker has two genders.
    """
    genders_of(corpus)
    labelled = corpus.where("emotion", bool)
    if len(labelled.emotions) < 2:
        state = labelled.emotions[0] if len(labelled) else "without an emotion"
        raise ValueError(f"{corpus.name}: all clips are {state}, but UAR needs at least two emotions")
    missing = len(corpus) - len(labelled)
    return labelled, [f"{missing} clips have no emotion label and were not evaluated"] if missing else []


def absent_labels(corpus: Corpus, labels: list[str]) -> list[str]:
    """A note about candidate labels that no clip has."""
    absent = [label for label in labels if label not in corpus.emotions]
    if not absent:
        return []
    return [f"no clip is {' or '.join(absent)}: these predictions are wrong, and UAR is over the other emotions"]


def unknown_words(pipe: ZeroShotEmotionPipeline | AudioClassifier, candidates: Candidates) -> list[str]:
    """A note about words in the prompts that the checkpoint's text encoder was not trained on."""
    if not hasattr(pipe.model, "text_model"):
        return []
    config = pipe.model.config
    prompts = config.class_prompts(candidates.words or candidates.labels or config.emotions, candidates.template)
    unknown = config.unknown_words([prompt for group in prompts for prompt in group])
    if not unknown:
        return []
    return [f"the text encoder was not trained on {', '.join(unknown)}: predictions of these labels are guesses"]


def refuse_one_emotion(emotions: list[str], corpus: Corpus, skipped: list[str]) -> None:
    """Check that at least two emotions remain after unusable clips were skipped.

    Raises:
        ValueError: If fewer remain.
    """
    if len(set(emotions)) < 2:
        raise ValueError(
            f"{corpus.name}: without the {len(skipped)} unusable clips fewer than two emotions are left; repair the "
            f"clips or evaluate more of them"
        )
