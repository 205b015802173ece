"""The order in which clips are drawn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import islice

import numpy as np
from torch.utils.data import Sampler

from ..corpora.shard_reader import GROUPS_AT_A_TIME


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
        labels: Class of every clip; clips of a negative label are never drawn. The n-th draw of a clip within an
            epoch is its index plus `n * len(labels)`, so that `ClipDataset` cuts it elsewhere each time.
        seed: Seed of the order.

    Raises:
        ValueError: If there are fewer than two classes.
    """

    def __init__(self, labels: list[int], seed: int = 0):
        known = sorted({label for label in labels if label >= 0})
        self.decks = [np.flatnonzero(np.asarray(labels) == label) for label in known]
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


class ShardSampler(Sampler[int]):
    """Every clip of shards once an epoch, so that each process and worker reads groups of rows of its own.

    The groups are shuffled, their clips dealt out in equal parts, one for each worker of each process, and shuffled
    within windows of a part. Batches come in the order in which processes and workers take them in turn. What the
    parts have left when they cannot all fill another batch is put together into whole batches; the last of an epoch is
    filled up with index -1. The order is a function of seed and epoch, and of the numbers of processes and workers: a
    run that goes on from a checkpoint skips what it had, unread.

    Args:
        groups: The group of every clip, `(clips,)`, numbered from 0.
        batch_size: Clips of a process's batch.
        processes: How many processes there are.
        workers: How many workers read for each; with none, 1.
        seed: Seed of the order.
        at_a_time: Groups whose clips are shuffled together: what a worker holds in memory.
        drop_last: Leave out the clips of a step that would be filled up.
    """

    def __init__(
        self,
        groups: np.ndarray,
        batch_size: int,
        processes: int = 1,
        workers: int = 1,
        seed: int = 0,
        at_a_time: int = GROUPS_AT_A_TIME,
        drop_last: bool = False,
    ):
        self.groups = np.asarray(groups)
        self.batch_size = batch_size
        self.processes = processes
        self.parts = processes * workers
        self.seed = seed
        self.window = at_a_time * len(self.groups) // len(np.unique(self.groups))
        self.epoch = 0
        self.rounds = len(self.groups) // self.parts // batch_size  # batches that every part fills
        step = batch_size * processes
        self.length = (len(self.groups) // step if drop_last else -(-len(self.groups) // step)) * step

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch whose order comes next."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng([self.seed, self.epoch])
        turn = rng.permutation(self.groups.max() + 1)
        parts = np.array_split(np.argsort(turn[self.groups], kind="stable"), self.parts)
        for part in parts:
            for start in range(0, len(part), self.window):
                rng.shuffle(part[start : start + self.window])
        dealt = self.rounds * self.batch_size
        for start in range(0, dealt, self.batch_size):
            for part in parts:  # of the first worker of each process, then of the second ...
                yield from part[start : start + self.batch_size].tolist()
        left = np.concatenate([part[dealt:] for part in parts])[: self.length - dealt * self.parts]
        yield from left.tolist()
        yield from [-1] * (self.length - dealt * self.parts - len(left))


class Deck:
    """Clips in a random order, shuffled again only when all were drawn.

    Args:
        clips: The clips.
        generator: Shuffles them.
    """

    def __init__(self, clips: np.ndarray, generator: np.random.Generator):
        self.clips, self.generator, self.left = clips, generator, []

    def draw(self, count: int, taken: set[int]) -> list[int]:
        """Draw clips that are not among `taken`, which they join; those that are stay on top."""
        drawn, passed = [], []
        while len(drawn) < count:
            if not self.left:
                self.left = self.generator.permutation(self.clips).tolist()
            clip = self.left.pop()
            (passed if clip in taken else drawn).append(clip)
            taken.add(clip)
        self.left += passed[::-1]
        return drawn


class StepSampler(Sampler[int]):
    """Draws the clips of whole steps from decks that outlive epochs; all of it is a function of the seed.

    So processes agree, and a run that goes on draws what it would have drawn. The n-th draw of a clip within an epoch
    is its index plus `n * clips`, so that `ClipDataset` cuts it elsewhere each time.

    Args:
        clips: How many clips there are.
        batch_size: Clips of a step, on all processes together.
        steps: Steps of an epoch.
        seed: Seed of all that is drawn.
    """

    def __init__(self, clips: int, batch_size: int, steps: int, seed: int):
        self.clips, self.batch_size, self.steps, self.seed = clips, batch_size, steps, seed
        self.epoch = 0
        self._drawn: tuple[int, Iterator] | None = None  # the epoch that comes next, and the steps from it on

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch whose steps come next."""
        self.epoch = epoch

    def all_steps(self) -> Iterator[list[int]]:
        """The clips of every step, in the order of the processes, without end."""
        raise NotImplementedError

    def __len__(self) -> int:
        return self.steps * self.batch_size

    def __iter__(self) -> Iterator[int]:
        drawn, self._drawn = self._drawn, None
        if drawn is None or drawn[0] != self.epoch:  # what came before is drawn again
            drawn = (self.epoch, islice(self.all_steps(), self.epoch * self.steps, None))
        draws: Counter[int] = Counter()
        for step in islice(drawn[1], self.steps):
            for clip in step:
                yield clip + self.clips * draws[clip]
                draws[clip] += 1
        self._drawn = (self.epoch + 1, drawn[1])
