"""The order in which clips are drawn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler


class EpochSampler(Sampler[int]):
    """Every clip once an epoch, in an order that is a function of seed and epoch alone.

    Args:
        clips: How many clips there are.
        seed: Seed of the order.
    """

    def __init__(self, clips: int, seed: int = 0):
        self.clips = clips
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch whose order comes next."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.clips

    def __iter__(self) -> Iterator[int]:
        yield from np.random.default_rng([self.seed, self.epoch]).permutation(self.clips).tolist()


class FilledSampler(Sampler[int]):
    """A sampler filled up with index -1, a clip that takes no part, so that all processes have equal batches.

    Args:
        sampler: The sampler.
        multiple: Clips that all processes take together at a step.
    """

    def __init__(self, sampler: Sampler[int], multiple: int):
        self.sampler = sampler
        self.multiple = multiple

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch whose order comes next."""
        self.sampler.set_epoch(epoch)

    def __len__(self) -> int:
        return -(-len(self.sampler) // self.multiple) * self.multiple

    def __iter__(self) -> Iterator[int]:
        yield from self.sampler
        yield from [-1] * (len(self) - len(self.sampler))


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
