"""MTEB's public RavdessZeroshot task, as a protocol of this package.

All 1,440 spoken clips of RAVDESS, the eight prompts below word for word, accuracy; nothing of RAVDESS may have been
trained on.
"""

from __future__ import annotations

from ..corpora.manifest import Corpus

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
    """Make sure that no clip was left out.

    Raises:
        ValueError: If one was.
    """
    if skipped:
        raise ValueError(f"{NAME} is all {CLIPS} clips, and {len(skipped)} could not be used: {skipped[0]}")


def ravdess_zeroshot(corpus: Corpus) -> dict:
    """What `evaluate_clips` is to choose between.

    Args:
        corpus: RAVDESS.

    Returns:
        Its keyword arguments `labels` and `words`: the prompts themselves, put into a template that adds nothing.

    Raises:
        ValueError: If the corpus is not the whole of RAVDESS's speech.
    """
    if corpus.known is None or corpus.known.name != "ravdess" or len(corpus) != CLIPS:
        raise ValueError(
            f"{NAME} is all {CLIPS} spoken clips of RAVDESS; {corpus.name} has {len(corpus)}: give that corpus, "
            f"whole, without --speakers"
        )
    return {"labels": list(WORDS), "words": ([PROMPT.format(word) for word in WORDS.values()], "{}")}
