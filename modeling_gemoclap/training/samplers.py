"""The order in which clips are drawn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler


class ClassBalancedSampler(Sampler[int]):
    """Draws every class equally often; an epoch has as many draws as there are labelled clips.

    Each class is a shuffled deck that is reshuffled when it is used up, so all its clips come equally often. The
    order is a function of seed and epoch alone: all processes agree, and a resumed run goes on as it would have.

    Args:
        labels: Class of every clip; clips of label -1 are never drawn. The n-th draw of a clip within an epoch is its
            index plus `n * len(labels)`, so that `ClipDataset` cuts it elsewhere each time.
        seed: Seed of the order.

    Raises:
        ValueError: If there are fewer than two classes.
    """

    def __init__(self, labels: list[int], seed: int = 0):
        self.decks = [np.flatnonzero(np.asarray(labels) == label) for label in sorted(set(labels) - {-1})]
        if len(self.decks) < 2:
            raise ValueError("class-balanced sampling needs clips of two classes or more")
        self.clips = len(labels)
        self.seed = seed
        self.epoch = 0
        self.length = sum(map(len, self.decks))

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch whose order comes next."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng([self.seed, self.epoch])
        rounds = -(-self.length // len(self.decks))
        columns = []
        for deck in self.decks:
            shuffles = -(-rounds // len(deck))
            columns.append(np.concatenate([rng.permutation(deck) for _ in range(shuffles)])[:rounds])
        order = np.stack([rng.permutation(drawn) for drawn in np.stack(columns, axis=1)]).ravel()
        draws: Counter[int] = Counter()
        for index in order[: self.length].tolist():
            yield index + self.clips * draws[index]
            draws[index] += 1
