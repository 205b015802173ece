"""Batches of clips that share a speaker, from two of his or her clusters (Ulgen et al.)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ...training.samplers import Deck, StepSampler


class SpeakerClusterSampler(StepSampler):
    """Draws, for every step, groups of clips: a group is of one speaker, half of it of one cluster, half of another.

    So every clip has positives (its own half) and negatives (the other). Speakers are a deck that is shuffled again
    only when it is used up, so that all come equally often, however many clips they have; so are the clips of a
    cluster. A speaker comes twice in a step only if there are fewer speakers than groups, a clip never. An epoch has
    as many steps as the batch size goes into the clips that can be drawn, rounded up. Clusters with fewer clips than
    half a group, and speakers with fewer than two clusters, are left out. Emotions are not asked for.

    Args:
        speakers: Speaker of every clip, a number.
        clusters: Cluster of every clip within its speaker; -1 is none.
        batch_size: Clips of a step, on all processes together, a multiple of `group_size` for each process.
        processes: How many processes there are.
        seed: Seed of all that is drawn.
        group_size: Clips of a group, an even number of 4 or more.

    Raises:
        ValueError: If the batch size cannot be shared, or the clips do not suffice for a step.
    """

    def __init__(
        self,
        speakers: list[int],
        clusters: list[int],
        batch_size: int,
        processes: int = 1,
        seed: int = 0,
        group_size: int = 4,
    ):
        if group_size < 4 or group_size % 2:
            raise ValueError(f"group_size {group_size} must be even, and 4 or more: two clips of each of two clusters")
        if batch_size % (group_size * processes):
            near = max(1, round(batch_size / (group_size * processes))) * group_size * processes
            raise ValueError(f"a batch of {batch_size} is not made of groups of {group_size} clips; give {near}")
        self.half, self.groups = group_size // 2, batch_size // group_size
        pools = self._pools(np.asarray(speakers), np.asarray(clusters))
        self.pools = {speaker: own for speaker, own in pools.items() if len(own) > 1}
        room = sum(self._room([len(pool) // self.half for pool in own]) for own in self.pools.values())
        if room < self.groups:
            raise ValueError(
                f"a step of {batch_size} clips has {self.groups} groups, and the speakers have clips for {room}: a "
                f"group is {self.half} clips of each of two clusters of one speaker; give a smaller batch"
            )
        usable = sum(len(pool) for own in self.pools.values() for pool in own)
        self.left_out = len(speakers) - usable  # clips that are never drawn
        super().__init__(len(speakers), batch_size, -(-usable // batch_size), seed)

    def _pools(self, speakers: np.ndarray, clusters: np.ndarray) -> dict[int, list[np.ndarray]]:
        pools: dict[int, list[np.ndarray]] = {}
        for speaker, cluster in sorted(set(zip(speakers.tolist(), clusters.tolist(), strict=True))):
            clips = np.flatnonzero((speakers == speaker) & (clusters == cluster))
            if cluster != -1 and len(clips) >= self.half:
                pools.setdefault(speaker, []).append(clips)
        return pools

    @staticmethod
    def _room(halves: list[int]) -> int:
        """How many pairs of halves of different clusters there are at once."""
        return min(sum(halves) // 2, sum(halves) - max(halves))

    def all_steps(self) -> Iterator[list[int]]:
        """Groups in a random order, dealt to the processes."""
        generator = np.random.default_rng([self.seed, 4])
        decks = {speaker: [Deck(pool, generator) for pool in own] for speaker, own in self.pools.items()}
        order = Deck(np.array(list(self.pools)), generator)
        while True:
            taken: set[int] = set()
            came: set[int] = set()
            step = []
            left = {speaker: [len(pool) // self.half for pool in own] for speaker, own in self.pools.items()}
            while len(step) < self.groups:
                full = {speaker for speaker, halves in left.items() if not self._room(halves)}
                came = set() if came | full >= set(left) else came  # all have come: another round
                [speaker] = order.draw(1, came | full)
                came.add(speaker)
                group = []
                for cluster in self._two(left[speaker], generator):
                    left[speaker][cluster] -= 1
                    group += decks[speaker][cluster].draw(self.half, taken)
                step.append(group)
            yield [clip for group in step for clip in group]

    def _two(self, left: list[int], generator: np.random.Generator) -> list[int]:
        """Two clusters: any, or, where speakers come again in a step, those with the most clips left."""
        order = generator.permutation(len(left)).tolist()
        if self.groups > len(self.pools):
            order.sort(key=lambda cluster: -left[cluster])
        return order[:2]
