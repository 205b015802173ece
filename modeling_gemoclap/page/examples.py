"""Synthetic voices as examples: vowels computed by a source-filter model, so that no person's recording is needed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

RATE = 16_000
VOWELS = {
    "a": (730, 1090, 2440),
    "e": (530, 1840, 2480),
    "i": (270, 2290, 3010),
    "o": (570, 840, 2410),
}  # formants, Hz
BANDWIDTHS = (150, 150, 200)  # Hz


@dataclass(frozen=True)
class Voice:
    """How a synthetic voice speaks.

    Args:
        pitch: Mean fundamental frequency in Hz.
        range: Rise and fall of the pitch within a syllable, as a fraction of it.
        syllable: Duration of a syllable in seconds; half of a syllable's length follows as a gap every fourth one.
        level: Peak amplitude.
    """

    pitch: float
    range: float
    syllable: float
    level: float


EXAMPLES = {
    "Lively synthetic voice": Voice(pitch=230, range=0.35, syllable=0.16, level=0.6),
    "Flat synthetic voice": Voice(pitch=105, range=0.04, syllable=0.34, level=0.15),
}


def speak(voice: Voice, vowels: str = "aeioaieoiaoe") -> np.ndarray:
    """Compute a sequence of vowels.

    Args:
        voice: How they are spoken.
        vowels: Letters of `VOWELS`.

    Returns:
        `(time,)` float32 at `RATE` Hz.
    """
    size = round(voice.syllable * RATE)
    place = np.linspace(0, 1, size)
    gap = np.zeros(size // 2)
    parts, phase = [gap], 0.0
    for number, vowel in enumerate(vowels):
        pitch = voice.pitch * (1 + voice.range * np.sin(np.pi * place) * (-1) ** number) * (1.1 - 0.02 * number)
        phases = phase + 2 * np.pi * np.cumsum(pitch) / RATE
        phase = phases[-1] % (2 * np.pi)
        sound = sum(_gain(harmonic * pitch, vowel) * np.sin(harmonic * phases) for harmonic in range(1, 30))
        parts.append(sound * np.minimum(1, 4 * np.minimum(place, 1 - place)))
        if number % 4 == 3:
            parts.append(gap)
    wave = np.concatenate(parts)
    return (voice.level * wave / np.abs(wave).max()).astype(np.float32)


def _gain(frequency: np.ndarray, vowel: str) -> np.ndarray:
    """The amplitude of a harmonic: a source that falls by 12 dB an octave, and a resonance at each formant."""
    gain = np.where(frequency < 0.45 * RATE, (frequency / 100) ** -1.0, 0.0)
    for formant, bandwidth in zip(VOWELS[vowel], BANDWIDTHS, strict=True):
        gain = gain * formant**2 / np.hypot(formant**2 - frequency**2, bandwidth * frequency)
    return gain


def write_examples(folder: Path) -> dict[str, str]:
    """Write the examples as WAV files.

    Args:
        folder: An existing folder.

    Returns:
        The path of each example by its title.
    """
    paths = {title: folder / f"{title.replace(' ', '_').lower()}.wav" for title in EXAMPLES}
    for title, voice in EXAMPLES.items():
        soundfile.write(paths[title], speak(voice), RATE)
    return {title: str(path) for title, path in paths.items()}
