"""Batches of positives and negatives from several corpora (Xiang's Figures 2 and 3)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ...training.samplers import Deck, StepSampler

_MAP_HINT = 'if corpora use different words for an emotion, map them by --emotion_map \'{"word": "emotion"}\''


@dataclass(frozen=True)
class CorpusSampling:
    """The corpora that clips are drawn from, and the kind of negatives.

    Args:
        corpora: Corpus of every clip, numbered from 0.
        negatives: `"emotion"` (the paper's section on sampling): negatives have another emotion than the positives.
            `"emotion_or_corpus"` (the paper's introduction): positives come from one corpus, drawn at random, and
            negatives from the other corpora may have the same emotion.
        corpus_names: Names of the corpora in error messages; None: their numbers.
        emotion_names: Names of the emotions in error messages; None: their numbers.
    """

    corpora: list[int]
    negatives: str = "emotion"
    corpus_names: list[str] | None = None
    emotion_names: list[str] | None = None


class SupConSampler(StepSampler):
    """Draws, for every step, clips of one emotion from all corpora that have it, and as many clips of other emotions.

    A step has `N` clips, on all processes together. `N / 2` are positives. Their emotion is drawn for every step and
    is the same on all processes. They are divided equally among the corpora that have this emotion; if `N / 2` is not
    divisible, some corpora, drawn at random, contribute one more. The other `N / 2` are negatives, `N / (2 K)` from
    each of `K` corpora; the number of each emotion is drawn as if clips were drawn one by one. Each process gets
    `N / (2 W)` positives, then as many negatives. No clip occurs twice in a step.

    The clips of a corpus and emotion are a deck, which is shuffled again only after all its clips were drawn, also
    across epochs. The number of steps of an epoch is the number of clips divided by `N`, rounded up. All draws are a
    function of the seed, so processes agree and a resumed run draws the same clips.

    Args:
        emotions: Emotion of every clip, a number. Clips with -1 are never drawn. The n-th draw of a clip within an
            epoch is its index plus `n * len(emotions)`, so that `ClipDataset` cuts it differently each time.
        sampling: The corpora and the kind of negatives.
        batch_size: `N`, a multiple of `4 W` and of `2 K`.
        processes: Number of processes, `W`.
        seed: Seed of all random draws.

    Raises:
        ValueError: If `batch_size` is not divisible, several corpora share no emotion, or one of them has too few
            clips for a step.
    """

    def __init__(
        self, emotions: list[int], sampling: CorpusSampling, batch_size: int, processes: int = 1, seed: int = 0
    ):
        labelled = sum(emotion >= 0 for emotion in emotions)
        super().__init__(len(emotions), batch_size, -(-labelled // max(1, batch_size)), seed)
        self.processes = processes
        self.cross_corpus_negatives = sampling.negatives == "emotion_or_corpus"
        labels, corpora = np.asarray(emotions), np.asarray(sampling.corpora)
        pairs = sorted(set(zip(corpora[labels >= 0].tolist(), labels[labels >= 0].tolist(), strict=True)))
        self.pools = {
            (corpus, emotion): np.flatnonzero((corpora == corpus) & (labels == emotion)) for corpus, emotion in pairs
        }
        self.corpora = sorted({corpus for corpus, _ in pairs})
        self.corpora_of_emotion = {
            emotion: [corpus for corpus, label in pairs if label == emotion]
            for emotion in sorted({emotion for _, emotion in pairs})
        }
        self.corpus_names = sampling.corpus_names or [f"corpus {number}" for number in range(max(corpora) + 1)]
        self.emotion_names = sampling.emotion_names or [f"emotion {number}" for number in range(max(labels) + 1)]
        self._check_batch_size()
        self._check_shared_emotions()
        self._check_positives()
        self._check_negatives()

    def _check_batch_size(self) -> None:
        corpora = len(self.corpora)
        unit = int(np.lcm(4 * self.processes, 2 * corpora))
        if self.batch_size % unit or self.batch_size < unit:
            nearest = max(unit, round(self.batch_size / unit) * unit)
            per_process = (
                f" ({nearest // self.processes} for each of {self.processes} processes)" if self.processes > 1 else ""
            )
            raise ValueError(
                f"a batch of {self.batch_size} cannot be divided: positives and negatives of {corpora} corpora need a "
                f"multiple of {unit}; give {nearest}{per_process} as the batch size"
            )

    def _check_shared_emotions(self) -> None:
        """Check that there are two emotions, and that several corpora share one."""
        emotions_of_corpora = "; ".join(
            f"{self.corpus_names[corpus]} has "
            + ", ".join(self.emotion_names[emotion] for label_corpus, emotion in self.pools if label_corpus == corpus)
            for corpus in self.corpora
        )
        if len(self.corpora_of_emotion) < 2:
            raise ValueError(f"positives and negatives need two or more emotions: {emotions_of_corpora}")
        if len(self.corpora) > 1 and all(len(corpora) == 1 for corpora in self.corpora_of_emotion.values()):
            raise ValueError(f"the corpora share no emotion: {emotions_of_corpora}; {_MAP_HINT}")

    def _check_positives(self) -> None:
        """Check that each corpus has enough clips of each of its emotions."""
        for (corpus, emotion), pool in self.pools.items():
            contributors = 1 if self.cross_corpus_negatives else len(self.corpora_of_emotion[emotion])
            needed = max(2, -(-self.batch_size // (2 * contributors)))
            if len(pool) < needed:
                raise ValueError(
                    f"{self.corpus_names[corpus]} has {len(pool)} clips of {self.emotion_names[emotion]}, and a step "
                    f"of {self.batch_size} needs {needed} different ones as positives: give a smaller batch, leave "
                    f"the emotion out (--emotions with --drop_other_emotions true), or, {_MAP_HINT}"
                )

    def _check_negatives(self) -> None:
        """Check that each corpus has enough clips of other emotions for every emotion of the positives."""
        needed = self.batch_size // (2 * len(self.corpora))
        for corpus in self.corpora:
            counts = {emotion: len(pool) for (owner, emotion), pool in self.pools.items() if owner == corpus}
            for emotion in self.corpora_of_emotion:
                if sum(counts.values()) - counts.get(emotion, 0) < needed:
                    raise ValueError(
                        f"{self.corpus_names[corpus]} has too few clips that are not {self.emotion_names[emotion]}: a "
                        f"step of {self.batch_size} needs {needed} as negatives; give a smaller batch"
                    )

    def all_steps(self) -> Iterator[list[int]]:
        """Yield the clips of each step: for each process its positives, then its negatives."""
        generator = np.random.default_rng([self.seed, 3])
        decks = {pair: Deck(pool, generator) for pair, pool in self.pools.items()}
        emotions = list(self.corpora_of_emotion)
        while True:
            emotion, drawn = emotions[generator.integers(len(emotions))], set()
            positives, negatives = [], []
            contributors = generator.permutation(self.corpora_of_emotion[emotion]).tolist()
            contributors = contributors[:1] if self.cross_corpus_negatives else contributors
            counts = _split_evenly(self.batch_size // 2, len(contributors))
            for corpus, count in zip(contributors, counts, strict=True):
                positives += decks[corpus, emotion].draw(count, drawn)
            for corpus in self.corpora:
                may_share_emotion = self.cross_corpus_negatives and corpus != contributors[0]
                others = [
                    pair for pair in self.pools if pair[0] == corpus and (pair[1] != emotion or may_share_emotion)
                ]
                sizes = [len(self.pools[pair]) for pair in others]
                counts = generator.multivariate_hypergeometric(sizes, self.batch_size // (2 * len(self.corpora)))
                for pair, count in zip(others, counts, strict=True):
                    negatives += decks[pair].draw(count, drawn)
            halves = generator.permutation(positives), generator.permutation(negatives)
            parts = zip(*(np.split(half, self.processes) for half in halves), strict=True)
            yield [clip for part in parts for half in part for clip in half.tolist()]


def _split_evenly(total: int, parts: int) -> list[int]:
    """Divide a number into parts that differ by at most 1."""
    return [total // parts + (part < total % parts) for part in range(parts)]
