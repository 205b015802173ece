"""Simulated speakers with a known true UAR, on which intervals are tested.

The recall of a speaker for an emotion is drawn on the logit scale. It is the sum of a mean of the emotion, a deviation
of the speaker and a deviation of the speaker in that emotion. The means give recalls like those in docs/evidence.md.
The deviations give a standard deviation of about 10 points between the UAR of speakers, as in Emo-DB and RAVDESS.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.special


@dataclass(frozen=True)
class Case:
    """A corpus and the recall of a model on it.

    Args:
        mean: Mean recall of each emotion on the logit scale.
        clips: Mean number of clips of each emotion for a speaker.
        uneven: Whether the number of clips varies between speakers (gamma-Poisson), so that some have no clip of an
            emotion.
        speaker: Standard deviation between speakers on the logit scale.
        emotion: Standard deviation between the emotions of a speaker on the logit scale.
    """

    mean: tuple[float, ...]
    clips: tuple[float, ...]
    uneven: bool
    speaker: float
    emotion: float = 0.9

    def recall(self, generator: np.random.Generator, *shape: int) -> np.ndarray:
        """Recall of each speaker and emotion, `(*shape, emotions)`."""
        speakers = self.speaker * generator.standard_normal((*shape, 1))
        emotions = self.emotion * generator.standard_normal((*shape, len(self.mean)))
        return scipy.special.expit(self.mean + speakers + emotions)

    def draw(self, generator: np.random.Generator, *shape: int) -> tuple[np.ndarray, np.ndarray]:
        """Right answers and clips of each speaker and emotion, both `(*shape, emotions)`."""
        mean = np.broadcast_to(np.array(self.clips), (*shape, len(self.clips)))
        clips = generator.poisson(mean * generator.gamma(4, 1 / 4, mean.shape)) if self.uneven else mean.astype(int)
        return generator.binomial(clips, self.recall(generator, *shape)), clips

    @property
    def truth(self) -> float:
        """UAR over the population of speakers."""
        return float(self.recall(np.random.default_rng(99), 200_000).mean())


CASES = {
    "7 emotions, uneven, as Emo-DB": Case(
        (2.6, 1.1, 2.0, 0.6, 0.6, 2.2, 3.0), (12.7, 8.1, 4.6, 6.9, 7.1, 7.9, 6.2), True, 0.45
    ),
    "4 emotions, uneven, high UAR": Case((3.6, 3.0, 4.5, 2.6), (12.7, 7.1, 7.9, 6.2), True, 0.6),
    "8 emotions, as RAVDESS": Case(
        (1.8, 1.3, 0.45, 0.75, -0.4, 0.4, -0.2, 0.7), (8, 8, 8, 8, 8, 4, 8, 8), False, 0.35
    ),
    "4 emotions, UAR near chance": Case((-1.8, 0.6, -4.0, -0.3), (8, 8, 4, 8), False, 0.35),
}


def uar(right: np.ndarray, clips: np.ndarray) -> np.ndarray:
    """UAR over the emotions that occur, from right answers and clips `(..., emotions)`: `(...)`."""
    return np.nanmean(np.where(clips > 0, right / np.maximum(clips, 1), np.nan), -1)
