"""Batches of groups of clips: one speaker, two of the speaker's clusters (Ulgen et al.)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ...training.samplers import Deck, StepSampler


class SpeakerClusterSampler(StepSampler):
    """Draws, for every step, groups of clips of one speaker: half of a group from one cluster, half from another.

    So every clip has positives (in its half) and negatives (in the other half). The speakers are a deck, which is
    shuffled again only after all were drawn, so that all speakers are drawn equally often; so are the clips of a
    cluster. A speaker occurs twice in a step only if there are fewer speakers than groups. A clip never occurs twice.
    The number of steps of an epoch is the number of usable clips divided by the batch size, rounded up. Clusters with
    fewer clips than half a group, and speakers with fewer than two such clusters, are left out. Emotions are not used.

    Args:
        speakers: Speaker of every clip, a number.
        clusters: Cluster of every clip within its speaker; -1: no cluster.
        batch_size: Number of clips of a step, on all processes together, a multiple of `group_size * processes`.
        processes: Number of processes.
        seed: Seed of all random draws.
        group_size: Number of clips of a group, an even number of at least 4.

    Raises:
        ValueError: If the batch size is not divisible, or the clips do not suffice for a step.
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
            raise ValueError(
                f"group_size {group_size} must be even and at least 4: two or more clips of each of two clusters"
            )
        if batch_size < 1 or batch_size % (group_size * processes):
            nearest = max(1, round(batch_size / (group_size * processes))) * group_size * processes
            raise ValueError(
                f"a batch of {batch_size} cannot be divided into groups of {group_size} clips; give {nearest}"
            )
        self.half, self.groups = group_size // 2, batch_size // group_size
        pools = self._pools(np.asarray(speakers), np.asarray(clusters))
        self.pools = {speaker: speaker_pools for speaker, speaker_pools in pools.items() if len(speaker_pools) > 1}
        available = sum(self._max_groups(halves) for halves in self._count_halves().values())
        if available < self.groups:
            raise ValueError(
                f"a step of {batch_size} clips has {self.groups} groups, and the speakers have clips for {available}: "
                f"a group is {self.half} clips of each of two clusters of one speaker; give a smaller batch"
            )
        usable = sum(len(pool) for speaker_pools in self.pools.values() for pool in speaker_pools)
        self.num_unused = len(speakers) - usable  # clips that are never drawn
        super().__init__(len(speakers), batch_size, -(-usable // batch_size), seed)

    def _pools(self, speakers: np.ndarray, clusters: np.ndarray) -> dict[int, list[np.ndarray]]:
        """Return the clips of each usable cluster of each speaker."""
        pools: dict[int, list[np.ndarray]] = {}
        for speaker, cluster in sorted(set(zip(speakers.tolist(), clusters.tolist(), strict=True))):
            clips = np.flatnonzero((speakers == speaker) & (clusters == cluster))
            if cluster != -1 and len(clips) >= self.half:
                pools.setdefault(speaker, []).append(clips)
        return pools

    def _count_halves(self) -> dict[int, list[int]]:
        """Return, for each speaker, how many halves of a group each cluster fills."""
        return {speaker: [len(pool) // self.half for pool in pools] for speaker, pools in self.pools.items()}

    @staticmethod
    def _max_groups(halves: list[int]) -> int:
        """Return how many groups of two different clusters can be made of these halves."""
        return min(sum(halves) // 2, sum(halves) - max(halves))

    def all_steps(self) -> Iterator[list[int]]:
        """Yield the groups of each step."""
        generator = np.random.default_rng([self.seed, 4])
        decks = {speaker: [Deck(pool, generator) for pool in pools] for speaker, pools in self.pools.items()}
        order = Deck(np.array(list(self.pools)), generator)
        while True:
            drawn_clips: set[int] = set()
            drawn_speakers: set[int] = set()
            step = []
            remaining = self._count_halves()
            while len(step) < self.groups:
                exhausted = {speaker for speaker, halves in remaining.items() if not self._max_groups(halves)}
                if drawn_speakers | exhausted >= set(remaining):  # all were drawn: start another round
                    drawn_speakers = set()
                [speaker] = order.draw(1, drawn_speakers | exhausted)
                drawn_speakers.add(speaker)
                group = []
                for cluster in self._choose_clusters(remaining[speaker], generator):
                    remaining[speaker][cluster] -= 1
                    group += decks[speaker][cluster].draw(self.half, drawn_clips)
                step.append(group)
            yield [clip for group in step for clip in group]

    def _choose_clusters(self, remaining: list[int], generator: np.random.Generator) -> list[int]:
        """Choose two clusters at random. If speakers occur again in a step, choose those with the most clips left."""
        order = generator.permutation(len(remaining)).tolist()
        if self.groups > len(self.pools):
            order.sort(key=lambda cluster: -remaining[cluster])
        return order[:2]
