"""Samplers: the order of clips in an epoch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple

import numpy as np
from torch.utils.data import Sampler

from ..corpora.shard_reader import GROUPS_AT_A_TIME
from ..encoding_gemoclap import FIXED_LENGTH


class EpochSampler(Sampler[int]):
    """Samples every clip once an epoch, in an order that depends only on seed and epoch.

    Args:
        clips: Number of clips.
        seed: Seed of the order.
    """

    def __init__(self, clips: int, seed: int = 0):
        self.clips = clips
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch that the order depends on."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.clips

    def __iter__(self) -> Iterator[int]:
        yield from np.random.default_rng([self.seed, self.epoch]).permutation(self.clips).tolist()


class FilledSampler(Sampler[int]):
    """Pads another sampler with index -1, a padding clip, so that batches of all processes have the same size.

    Args:
        sampler: The other sampler.
        multiple: Number of clips of a step on all processes.
    """

    def __init__(self, sampler: Sampler[int], multiple: int):
        self.sampler = sampler
        self.multiple = multiple

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch that the order depends on."""
        self.sampler.set_epoch(epoch)

    def __len__(self) -> int:
        return -(-len(self.sampler) // self.multiple) * self.multiple

    def __iter__(self) -> Iterator[int]:
        yield from self.sampler
        yield from [-1] * (len(self) - len(self.sampler))


class ClassBalancedSampler(Sampler[int]):
    """Samples every class equally often. An epoch has as many samples as there are labelled clips.

    The clips of a class are shuffled, and shuffled again when all of them were sampled. The order depends only on seed
    and epoch, so that it is the same on all processes and in a resumed run.

    Args:
        labels: Class of every clip. Clips with a negative label are not sampled. The n-th repetition of clip `i` in an
            epoch has the index `i + n * len(labels)`, so that `ClipDataset` draws other random numbers for it.
        seed: Seed of the order.

    Raises:
        ValueError: If there are fewer than two classes.
    """

    def __init__(self, labels: list[int], seed: int = 0):
        classes = sorted({label for label in labels if label >= 0})
        self.clips_by_class = [np.flatnonzero(np.asarray(labels) == label) for label in classes]
        if len(self.clips_by_class) < 2:
            raise ValueError("class-balanced sampling needs clips of two classes or more")
        self.clips = len(labels)
        self.seed = seed
        self.epoch = 0
        self.length = sum(map(len, self.clips_by_class))

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch that the order depends on."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng([self.seed, self.epoch])
        rounds = -(-self.length // len(self.clips_by_class))  # each round samples one clip of every class
        columns = []
        for clips in self.clips_by_class:
            shuffles = -(-rounds // len(clips))
            columns.append(np.concatenate([rng.permutation(clips) for _ in range(shuffles)])[:rounds])
        order = np.stack([rng.permutation(sampled) for sampled in np.stack(columns, axis=1)]).ravel()
        repetitions: Counter[int] = Counter()
        for index in order[: self.length].tolist():
            yield index + self.clips * repetitions[index]
            repetitions[index] += 1


class LengthSampler(Sampler[int]):
    """Reorders the clips of another sampler, so that the clips of a step have similar lengths.

    The order of the other sampler is cut into groups of 16 steps or more. Each group is sorted by length and cut into
    steps, and the steps of the epoch are shuffled. The clips that do not fill the last step remain at the end, so that
    no length is left out more often than others. The order depends only on seed and epoch. With several processes, the
    batches of all processes at a step come from neighbours in length, so that no process waits for another.

    Args:
        sampler: The other sampler, `EpochSampler` or `ClassBalancedSampler`.
        lengths: Length of every clip, `(clips,)`. Index `i + n * clips` is the n-th repetition of clip `i`.
        clips_per_step: Number of clips of a step on all processes.
        seed: Seed of the order of steps.
    """

    steps_of_a_group = 16

    def __init__(self, sampler: Sampler[int], lengths: np.ndarray, clips_per_step: int, seed: int = 0):
        self.sampler, self.lengths = sampler, np.asarray(lengths)
        self.clips_per_step, self.seed, self.epoch = clips_per_step, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch that the order depends on."""
        self.epoch = epoch
        self.sampler.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[int]:
        order = np.array(list(self.sampler))
        full = len(order) // self.clips_per_step
        steps, rest = np.split(order, [full * self.clips_per_step])
        steps = steps.reshape(full, self.clips_per_step)
        groups = []
        for group in np.array_split(steps, max(1, full // self.steps_of_a_group)):
            clips = group.ravel()
            by_length = np.argsort(self.lengths[clips % len(self.lengths)], kind="stable")
            groups.append(clips[by_length].reshape(group.shape))
        rng = np.random.default_rng([self.seed, self.epoch, 1])  # another stream than that of the other sampler
        yield from rng.permutation(np.concatenate(groups)).ravel().tolist()
        yield from rest.tolist()


class BatchMix(NamedTuple):
    """What the batches of an epoch consist of: the mean over batches.

    Args:
        padding: Share of the batches that is padding.
        classes: Number of distinct classes.
        largest_share: Share of the most frequent class.
    """

    padding: float
    classes: float
    largest_share: float


def batch_mix(order: Iterable[int], batch_size: int, lengths: np.ndarray, labels: Iterable) -> BatchMix:
    """Measure the padding and the classes of batches.

    Args:
        order: Indices of the clips as a sampler returns them. Padding clips and an incomplete batch are left out.
        batch_size: Number of clips of a batch.
        lengths: Length of every clip, `(clips,)`.
        labels: Class of every clip, `(clips,)`.

    Returns:
        The means; of padding, the share of all batches together.
    """
    clips = np.array([index for index in order if index >= 0]) % len(lengths)
    batches = clips[: len(clips) // batch_size * batch_size].reshape(-1, batch_size)
    padded, classes = np.asarray(lengths)[batches], np.unique(np.asarray(labels), return_inverse=True)[1][batches]
    counts = [np.unique(batch, return_counts=True)[1] for batch in classes]
    return BatchMix(
        float(1 - padded.sum() / (padded.max(1).sum() * batch_size)),
        float(np.mean([len(count) for count in counts])),
        float(np.mean([count.max() / batch_size for count in counts])),
    )


def lengths_of(clips, config) -> np.ndarray:
    """Lengths of the clips of a dataset, by which batches with little padding can be formed.

    Args:
        clips: The dataset.
        config: Configuration of the model.

    Returns:
        `(clips,)`, in samples or frames.

    Raises:
        ValueError: If the lengths are unknown, or the batches have no padding.
    """
    lengths = getattr(clips, "lengths", None)
    if lengths is None:
        raise ValueError("--batch_by_length true: the lengths of the clips are unknown before training; leave it out")
    if config.audio_config.model_type in FIXED_LENGTH and not clips.frames:
        raise ValueError(
            f"--batch_by_length true: a {config.audio_config.model_type!r} model pads every clip to its window, so "
            f"batches would be as large as before; leave it out"
        )
    if lengths.min() == lengths.max():
        raise ValueError(
            "--batch_by_length true: all clips have the same length, as pooled frames (--cache_frozen_frames) and "
            "clips that are cut to the same --max_seconds have, so batches have no padding; leave it out"
        )
    return lengths


def describe_mix(clips, lengths: np.ndarray, batch_size: int, by_length: Sampler, random: Sampler) -> str:
    """Describe the batches of an epoch beside random batches: padding, emotions and corpora.

    Args:
        clips: A `ClipDataset`.
        lengths: Length of every clip, `(clips,)`.
        batch_size: Number of clips of a batch.
        by_length: The sampler of the training.
        random: The sampler whose order it reorders.

    Returns:
        A sentence.
    """
    if len(clips) < batch_size:
        return (
            f"batches by length: {len(clips)} clips do not fill a batch of {batch_size}, so there is nothing to sort"
        )
    orders = list(by_length), list(random)
    mixes = [batch_mix(order, batch_size, lengths, clips.emotion_labels) for order in orders]
    text = (
        "batches by length (in brackets: random batches): {0.padding:.0%} padding ({1.padding:.0%}), {0.classes:.1f} "
        "emotions in a batch ({1.classes:.1f}), {0.largest_share:.0%} of a batch has its most frequent emotion "
        "({1.largest_share:.0%})"
    ).format(*mixes)
    if clips.corpus.parts:  # the file names of a mixture begin with the names of the corpora
        corpora = [name.partition("/")[0] for name in clips.corpus.column("file_name").to_pylist()]
        shares = [batch_mix(order, batch_size, lengths, corpora).largest_share for order in orders]
        text += ", {:.0%} is from its most frequent corpus ({:.0%})".format(*shares)
    return text


class ShardSampler(Sampler[int]):
    """Samples every clip of shards once an epoch, so that each worker of each process reads different row groups.

    The row groups are shuffled, and their clips divided into equal parts, one for each worker of each process. Clips
    are shuffled within windows of a part. Batches follow the order in which processes and workers fetch them. When the
    parts cannot all fill another batch, their remaining clips are combined into full batches. The last batches of an
    epoch are padded with index -1. The order depends on the seed, the epoch and the numbers of processes and workers.
    A resumed run skips its previous batches without reading them.

    Attributes:
        groups_at_a_time: Row groups whose clips are shuffled together, which a worker holds in memory.

    Args:
        groups: Row group of every clip, `(clips,)`, counted from 0.
        batch_size: Batch size of a process.
        processes: Number of processes.
        workers: Number of workers of each process; 1 if the process itself reads.
        seed: Seed of the order.
        drop_last: Drop the clips of the last step instead of padding it.
    """

    groups_at_a_time = GROUPS_AT_A_TIME

    def __init__(
        self,
        groups: np.ndarray,
        batch_size: int,
        processes: int = 1,
        workers: int = 1,
        seed: int = 0,
        drop_last: bool = False,
    ):
        self.groups = np.asarray(groups)
        self.batch_size = batch_size
        self.parts = processes * workers
        self.seed = seed
        self.window = self.groups_at_a_time * len(self.groups) // len(np.unique(self.groups))
        self.epoch = 0
        self.rounds = len(self.groups) // self.parts // batch_size  # full batches of each part
        step = batch_size * processes
        self.length = (len(self.groups) // step if drop_last else -(-len(self.groups) // step)) * step

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch that the order depends on."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng([self.seed, self.epoch])
        position = rng.permutation(self.groups.max() + 1)
        parts = np.array_split(np.argsort(position[self.groups], kind="stable"), self.parts)
        for part in parts:
            for start in range(0, len(part), self.window):
                rng.shuffle(part[start : start + self.window])
        full = self.rounds * self.batch_size
        for start in range(0, full, self.batch_size):
            for part in parts:  # the first worker of each process, then the second worker, ...
                yield from part[start : start + self.batch_size].tolist()
        remaining = np.concatenate([part[full:] for part in parts])[: self.length - full * self.parts]
        yield from remaining.tolist()
        yield from [-1] * (self.length - full * self.parts - len(remaining))


class Deck:
    """Clips in random order, which are shuffled again only when all of them were drawn.

    Args:
        clips: Indices of the clips.
        generator: Source of the random order.
    """

    def __init__(self, clips: np.ndarray, generator: np.random.Generator):
        self.clips, self.generator, self.remaining = clips, generator, []

    def draw(self, count: int, taken: set[int]) -> list[int]:
        """Draw clips that are not in `taken`, and add them to it. Clips in `taken` stay on top of the deck.

        Raises:
            ValueError: If the deck has fewer than `count` such clips.
        """
        if count > len(self.clips) - sum(clip in taken for clip in self.clips.tolist()):
            raise ValueError(
                f"{count} clips are to be drawn from {len(self.clips)}, of which a step has some already: give a "
                f"smaller batch"
            )
        drawn, skipped = [], []
        while len(drawn) < count:
            if not self.remaining:
                self.remaining = self.generator.permutation(self.clips).tolist()
            clip = self.remaining.pop()
            (skipped if clip in taken else drawn).append(clip)
            taken.add(clip)
        self.remaining += skipped[::-1]
        return drawn


class StepSampler(Sampler[int]):
    """Samples the clips of complete steps from decks that are kept between epochs. The order depends only on the seed.

    The order is the same on all processes and in a resumed run. The n-th repetition of clip `i` in an epoch has the
    index `i + n * clips`, so that `ClipDataset` draws other random numbers for it.

    Args:
        clips: Number of clips.
        batch_size: Number of clips of a step on all processes.
        steps: Number of steps of an epoch.
        seed: Seed of the order.
    """

    def __init__(self, clips: int, batch_size: int, steps: int, seed: int):
        self.clips, self.batch_size, self.steps, self.seed = clips, batch_size, steps, seed
        self.epoch = 0
        self._continuation: tuple[int, Iterator] | None = None  # the next epoch, and its steps and later ones

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch that is sampled next."""
        self.epoch = epoch

    def all_steps(self) -> Iterator[list[int]]:
        """Infinite iterator over the clips of each step, in the order of processes."""
        raise NotImplementedError

    def __len__(self) -> int:
        return self.steps * self.batch_size

    def __iter__(self) -> Iterator[int]:
        continuation, self._continuation = self._continuation, None
        if continuation is None or continuation[0] != self.epoch:  # draw earlier epochs again to get to this one
            continuation = (self.epoch, islice(self.all_steps(), self.epoch * self.steps, None))
        _, remaining_steps = continuation
        repetitions: Counter[int] = Counter()
        for step in islice(remaining_steps, self.steps):
            for clip in step:
                yield clip + self.clips * repetitions[clip]
                repetitions[clip] += 1
        self._continuation = (self.epoch + 1, remaining_steps)
