"""MTEB's public task RavdessZeroshot as a protocol of this package.

The task uses all 1,440 speech clips of RAVDESS, exactly the eight prompts below, and accuracy. The checkpoint must not
have been trained on RAVDESS.
"""

from __future__ import annotations

from ..corpora.manifest import Corpus
from .clips import Candidates

NAME = "ravdess-zeroshot"
PROMPT = "this person is feeling {}"
WORDS = {
    "neutral": "neutral",
    "calm": "calm",
    "happy": "happy",
    "sad": "sad",
    "angry": "angry",
    "fear": "fearful",
    "disgust": "disgust",
    "surprise": "surprised",
}
CLIPS = 1440


def refuse_skipped(skipped: list[str]) -> None:
    """Check that no clip was skipped.

    Args:
        skipped: Error message of each skipped clip.

    Raises:
        ValueError: If a clip was skipped.
    """
    if skipped:
        raise ValueError(
            f"{NAME} needs all {CLIPS} clips, but {len(skipped)} could not be used, the first with: {skipped[0]}"
        )


def ravdess_zeroshot(corpus: Corpus) -> Candidates:
    """Check the corpus and build the candidates of the task.

    Args:
        corpus: RAVDESS.

    Returns:
        The labels. Their words are the complete prompts, with a template that adds nothing.

    Raises:
        ValueError: If the corpus is not the complete speech part of RAVDESS.
    """
    if corpus.known is None or corpus.known.name != "ravdess" or len(corpus) != CLIPS:
        raise ValueError(
            f"{NAME} needs all {CLIPS} speech clips of RAVDESS; {corpus.name} has {len(corpus)} clips: give the "
            f"complete corpus, without --speakers"
        )
    return Candidates(list(WORDS), [PROMPT.format(word) for word in WORDS.values()], "{}")
