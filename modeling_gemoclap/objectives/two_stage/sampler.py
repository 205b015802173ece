"""Batches of positives and negatives from several corpora (Xiang's Figures 2 and 3)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ...training.samplers import Deck, StepSampler


class SupConSampler(StepSampler):
    """Draws, for every step, clips of one emotion from all corpora that know it, and as many clips of others.

    Of the `N` clips of a step, on all processes together, `N / 2` are positives: of one emotion, drawn anew each step
    and the same on all processes, shared equally among the corpora that know it (where they cannot be, some at random
    have one more). `N / 2` are negatives, of other emotions, `N / (2 K)` from each of `K` corpora; how many of each
    other emotion is drawn as if clips were drawn one by one. Each process has `N / (2 W)` positives, then as many
    negatives. No clip stands in a step twice. The clips of a corpus and emotion are a deck that is shuffled again only
    when all of it was drawn, whatever the epoch; an epoch has as many steps as `N` goes into the clips, rounded up.
    All of it is a function of the seed, so that processes agree and a resumed run goes on as it would have.

    With `negatives="emotion_or_corpus"` (the paper's introduction) the positives come from one corpus, drawn too, and
    negatives from the others may have their emotion.

    Args:
        emotions: Emotion of every clip, a number; clips of -1 are never drawn. The n-th draw of a clip within an
            epoch is its index plus `n * len(emotions)`, so that `ClipDataset` cuts it elsewhere each time.
        corpora: Corpus of every clip, a number from 0.
        batch_size: `N`, a multiple of 4 for each process and of `2 K`.
        processes: How many processes there are, `W`.
        seed: Seed of all that is drawn.
        negatives: `"emotion"` (the paper's section on sampling) or `"emotion_or_corpus"`.
        names: Names of corpora and of emotions, for errors.

    Raises:
        ValueError: If `batch_size` cannot be shared, several corpora share no emotion, or one of them has too few
            clips for a step.
    """

    def __init__(
        self,
        emotions: list[int],
        corpora: list[int],
        batch_size: int,
        processes: int = 1,
        seed: int = 0,
        negatives: str = "emotion",
        names: tuple[list[str], list[str]] | None = None,
    ):
        labelled = sum(emotion >= 0 for emotion in emotions)
        super().__init__(len(emotions), batch_size, -(-labelled // batch_size), seed)
        self.processes = processes
        self.crossed = negatives == "emotion_or_corpus"
        labels, places = np.asarray(emotions), np.asarray(corpora)
        pairs = sorted(set(zip(places[labels >= 0].tolist(), labels[labels >= 0].tolist(), strict=True)))
        self.pools = {(c, e): np.flatnonzero((places == c) & (labels == e)) for c, e in pairs}
        self.corpora = sorted({corpus for corpus, _ in pairs})
        self.knowing = {e: [c for c, other in pairs if other == e] for e in sorted({e for _, e in pairs})}
        numbered = [
            [f"{word} {i}" for i in range(max(of) + 1)] for word, of in (("corpus", places), ("emotion", labels))
        ]
        self.names = names or numbered
        self._check_batch_size()
        self._check_emotions()

    def _check_batch_size(self) -> None:
        corpora = len(self.corpora)
        unit = int(np.lcm(4 * self.processes, 2 * corpora))
        if self.batch_size % unit or self.batch_size < unit:
            near = max(unit, round(self.batch_size / unit) * unit)
            each = f" ({near // self.processes} for each of {self.processes} processes)" if self.processes > 1 else ""
            raise ValueError(
                f"a batch of {self.batch_size} cannot be shared: positives and negatives of {corpora} corpora need a "
                f"multiple of {unit}; give {near}{each} as the batch size"
            )

    def _check_emotions(self) -> None:
        corpora, emotions = self.names
        known = "; ".join(
            f"{corpora[c]} has {', '.join(emotions[e] for e, knowing in self.knowing.items() if c in knowing)}"
            for c in self.corpora
        )
        mapping = 'if they call one by different words, say so with --emotion_map \'{"word": "emotion"}\''
        if len(self.knowing) < 2:
            raise ValueError(f"positives and negatives need two emotions or more: {known}")
        if len(self.corpora) > 1 and all(len(knowing) == 1 for knowing in self.knowing.values()):
            raise ValueError(f"the corpora share no emotion: {known}; {mapping}")
        for (corpus, emotion), pool in self.pools.items():
            sharing = 1 if self.crossed else len(self.knowing[emotion])
            needed = max(2, -(-self.batch_size // (2 * sharing)))
            if len(pool) < needed:
                raise ValueError(
                    f"{corpora[corpus]} has {len(pool)} clips of {emotions[emotion]}, and a step of "
                    f"{self.batch_size} needs {needed} different ones as positives: give a smaller batch, leave the "
                    f"emotion out (--emotions with --drop_other_emotions true), or, {mapping}"
                )
        for corpus in self.corpora:
            own = {e: len(pool) for (c, e), pool in self.pools.items() if c == corpus}
            needed = self.batch_size // (2 * len(self.corpora))
            for emotion, knowing in self.knowing.items():
                left = sum(own.values()) - own.get(emotion, 0)
                if left < needed and (not self.crossed or corpus in knowing):
                    raise ValueError(
                        f"{corpora[corpus]} has too few clips that are not {emotions[emotion]}: a step of "
                        f"{self.batch_size} needs {needed} as negatives; give a smaller batch"
                    )

    def all_steps(self) -> Iterator[list[int]]:
        """Of each process in turn its positives, then its negatives."""
        generator = np.random.default_rng([self.seed, 3])
        decks = {pair: Deck(pool, generator) for pair, pool in self.pools.items()}
        emotions = list(self.knowing)
        while True:
            emotion, taken = emotions[generator.integers(len(emotions))], set()
            positives, negatives = [], []
            knowing = generator.permutation(self.knowing[emotion]).tolist()
            knowing = knowing[:1] if self.crossed else knowing
            for corpus, count in zip(knowing, _shares(self.batch_size // 2, len(knowing)), strict=True):
                positives += decks[corpus, emotion].draw(count, taken)
            for corpus in self.corpora:
                others = [
                    pair
                    for pair in self.pools
                    if pair[0] == corpus and (pair[1] != emotion or self.crossed and corpus != knowing[0])
                ]
                sizes = [len(self.pools[pair]) for pair in others]
                counts = generator.multivariate_hypergeometric(sizes, self.batch_size // (2 * len(self.corpora)))
                for pair, count in zip(others, counts, strict=True):
                    negatives += decks[pair].draw(count, taken)
            halves = generator.permutation(positives), generator.permutation(negatives)
            parts = zip(*(np.split(half, self.processes) for half in halves), strict=True)
            yield [clip for part in parts for half in part for clip in half.tolist()]


def _shares(total: int, parts: int) -> list[int]:
    """As equal as can be."""
    return [total // parts + (part < total % parts) for part in range(parts)]
