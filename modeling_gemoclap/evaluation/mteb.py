"""MTEB's public task RavdessZeroshot as a protocol of this package, and as MTEB's own task on local recordings.

The task uses all 1,440 speech clips of RAVDESS, exactly the eight prompts below, and accuracy. The checkpoint must not
have been trained on RAVDESS.
"""

from __future__ import annotations

from pathlib import Path

from ..corpora.manifest import Corpus
from .clips import Candidates

NAME = "ravdess-zeroshot"
TASK = "RavdessZeroshot"
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


def local_task(corpus: Corpus):
    """MTEB's task with the recordings of a local corpus in place of those that MTEB downloads.

    Args:
        corpus: RAVDESS, or some of its clips. All recordings are read, 0.5 GB for the complete corpus.

    Returns:
        The task, for `mteb.evaluate`. Its clips are in the order of the corpus, undecoded.

    Raises:
        ImportError: If mteb is not installed.
        ValueError: If a clip has an emotion that the task does not have.
    """
    import mteb
    from datasets import Audio, Dataset, DatasetDict

    labels, task = list(WORDS), mteb.get_task(TASK)
    if others := sorted(set(corpus.clips["emotion"]) - set(labels)):
        raise ValueError(f"{corpus.name}: {TASK} has no emotion {', '.join(others)}; give RAVDESS")
    recordings = [
        {"bytes": Path(recording).read_bytes(), "path": Path(recording).name} for recording in corpus.recordings()
    ]
    columns = {"audio": recordings, "labels": [labels.index(emotion) for emotion in corpus.clips["emotion"]]}
    clips = Dataset.from_dict(columns).cast_column("audio", Audio(decode=False))
    task.dataset, task.data_loaded = DatasetDict({task.metadata.eval_splits[0]: clips}), True
    return task
