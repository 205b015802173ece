"""Augmentation of log-mel features: speed, voice, microphone, room, noise and mixing of clips."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy.signal
import torch
from torch.nn import functional as F

from ..command_line.ranges import FINITE, SHARE, Range, refuse_out_of_range

DECIBELS = math.log(10) / 10  # one dB of power, in the natural logarithm of log-mel features
NUM_COSINES = 4  # cosines over the mel axis whose sum is a random equalizer curve
T60 = (0.1, 0.8)  # reverberation time in seconds: decay by 60 dB
ECHO_DB = (-15.0, -3.0)  # level of the first echo, relative to the direct sound
WARP, EQUALIZER = Range(at_least=0, at_most=0.5), Range(at_least=0, at_most=20)
RANGES = {"time_warp": WARP, "mel_warp": WARP, "equalizer_db": EQUALIZER, "noise_snr_db": FINITE}
RANGES |= dict.fromkeys(("noise_prob", "reverb_prob", "mix_prob"), SHARE)
AUGMENTATIONS = ("time_warp", "mel_warp", "equalizer_db", "noise_prob", "reverb_prob", "mix_prob")


@dataclass(frozen=True)
class Augmentation:
    """Random changes of log-mel features, drawn for every clip. A value of 0 disables a change.

    Features have shape `(frames, num_mel_bins)`: `(log(mel power) - log_mel_mean) / log_mel_std`.

    Args:
        time_warp: Maximum change of speed, as a natural logarithm: 0.15 is 14 % slower to 16 % faster.
        mel_warp: Maximum stretch of the mel axis, as a natural logarithm. It moves formants and pitch. Bands above
            the highest one repeat it.
        equalizer_db: Standard deviation in dB of each of the cosines over the mel axis that are added. They simulate
            another microphone or vocal effort.
        noise_prob: Share of clips with added stationary noise of a random spectral slope.
        noise_snr_db: Minimum and maximum signal-to-noise ratio in dB, relative to the mean power of the clip.
        reverb_prob: Share of clips with added reverberation: exponentially decaying echoes with a T60 of 0.1 to 0.8 s.
        mix_prob: Share of clips that are mixed with another clip of the same emotion and gender, whose power is at
            most equal.
        log_mel_mean: `log_mel_mean` of the feature extractor.
        log_mel_std: `log_mel_std` of the feature extractor.
        hop_seconds: `hop_seconds` of the feature extractor.

    Raises:
        ValueError: If a value is out of its range.
    """

    time_warp: float = 0.0
    mel_warp: float = 0.0
    equalizer_db: float = 0.0
    noise_prob: float = 0.0
    noise_snr_db: tuple[float, float] = (10.0, 40.0)
    reverb_prob: float = 0.0
    mix_prob: float = 0.0
    log_mel_mean: float = 1.0
    log_mel_std: float = 4.0
    hop_seconds: float = 0.01

    def __post_init__(self):
        refuse_out_of_range(vars(self), RANGES)
        if len(self.noise_snr_db) != 2 or self.noise_snr_db[0] > self.noise_snr_db[1]:
            raise ValueError(f"noise_snr_db={list(self.noise_snr_db)} must be a minimum and a maximum in dB")

    def __bool__(self) -> bool:
        """Whether any change is enabled."""
        widths = (self.time_warp, self.mel_warp, self.equalizer_db)
        return any((*widths, self.noise_prob, self.reverb_prob, self.mix_prob))

    def __call__(self, features: np.ndarray, generator: torch.Generator | None = None, other=None) -> np.ndarray:
        """Augment a clip.

        Args:
            features: `(frames, num_mel_bins)`.
            generator: Source of all random numbers.
            other: Function without arguments that returns the features of the clip to mix with.

        Returns:
            `(changed frames, num_mel_bins)`; `time_warp` and `mix_prob` change the number of frames.
        """
        if self.time_warp or self.mel_warp:
            features = self._warp(features, generator)
        if not any((self.equalizer_db, self.noise_prob, self.reverb_prob, self.mix_prob)):
            return features
        random = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
        power = features * self.log_mel_std + self.log_mel_mean
        if self.mix_prob and random.random() < self.mix_prob and other is not None:
            power = self._mix(power, self._warp(other(), generator) * self.log_mel_std + self.log_mel_mean, random)
        if self.reverb_prob and random.random() < self.reverb_prob:
            power = self._reverberate(power, random)
        if self.equalizer_db:
            power = power + self._curve(power.shape[1], random)
        if self.noise_prob and random.random() < self.noise_prob:
            power = self._add_noise(power, random)
        return ((power - self.log_mel_mean) / self.log_mel_std).astype(np.float32)

    def _warp(self, features: np.ndarray, generator: torch.Generator | None) -> np.ndarray:
        frames, bands = features.shape
        speed, formants = (
            math.exp((2 * torch.rand((), generator=generator).item() - 1) * width)
            for width in (self.time_warp, self.mel_warp)
        )
        time = torch.linspace(-1, 1, max(round(frames / speed), 2))
        mel = (2 * torch.arange(bands) * formants / (bands - 1) - 1).clamp(max=1)
        grid = torch.stack(torch.meshgrid(time, mel, indexing="ij")[::-1], dim=-1)[None]
        image = torch.from_numpy(np.array(features))[None, None]
        return F.grid_sample(image, grid, padding_mode="border", align_corners=True)[0, 0].numpy()

    @staticmethod
    def _mix(power: np.ndarray, other: np.ndarray, random: np.random.Generator) -> np.ndarray:
        share, frames = random.uniform(0.5, 1.0), min(len(power), len(other))
        return np.logaddexp(power[:frames] + np.log(share), other[:frames] + np.log(max(1 - share, 1e-6)))

    def _reverberate(self, power: np.ndarray, random: np.random.Generator) -> np.ndarray:
        decay = 10 ** (-6 * self.hop_seconds / random.uniform(*T60))
        level = 10 ** (random.uniform(*ECHO_DB) / 10)
        echoes = scipy.signal.lfilter([0.0, level], [1.0, -decay], np.exp(power), axis=0)
        return np.log(np.exp(power) + echoes)

    def _curve(self, bands: int, random: np.random.Generator) -> np.ndarray:
        cosines = np.cos(np.pi * np.outer(np.arange(1, NUM_COSINES + 1), np.linspace(0, 1, bands)))
        return DECIBELS * self.equalizer_db * random.standard_normal(NUM_COSINES) @ cosines

    def _add_noise(self, power: np.ndarray, random: np.random.Generator) -> np.ndarray:
        level = np.log(np.exp(power).mean()) - DECIBELS * random.uniform(*self.noise_snr_db)
        colour = (
            DECIBELS
            * 4.0
            * random.standard_normal(2)
            @ np.cos(np.pi * np.outer([1, 2], np.linspace(0, 1, power.shape[1])))
        )
        ripple = np.log(random.standard_gamma(4.0, power.shape) / 4.0)  # a mel band averages a few FFT bins
        return np.logaddexp(power, level + colour + ripple)
