"""Changes to log-mel features that leave the emotion as it is: another voice, room, microphone, noise."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy.signal
import torch
from torch.nn import functional as F

from ..command_line.ranges import FINITE, SHARE, Range, refuse_out_of_range

DECIBELS = math.log(10) / 10  # of power, in the natural logarithm that log-mel features are in
CURVES = 4  # cosines over the mel axis that a random equaliser is made of
T60 = (0.1, 0.8)  # seconds in which a room's sound falls by 60 dB
REVERBERANT = (-15.0, -3.0)  # dB of the room's first echo against the direct sound
WARP, EQUALIZER = Range(at_least=0, at_most=0.5), Range(at_least=0, at_most=20)
RANGES = {"time_warp": WARP, "mel_warp": WARP, "equalizer_db": EQUALIZER, "noise_snr_db": FINITE}
RANGES |= dict.fromkeys(("noise_prob", "reverb_prob", "mix_prob"), SHARE)
AUGMENTATIONS = ("time_warp", "mel_warp", "equalizer_db", "noise_prob", "reverb_prob", "mix_prob")


@dataclass(frozen=True)
class Augmentation:
    """What is drawn anew for every clip; a width or share of 0 leaves a change out.

    All work on `(frames, num_mel_bins)`: the natural logarithm of mel power, less `log_mel_mean`, over `log_mel_std`.

    Args:
        time_warp: Speech is up to `exp(time_warp)` times faster or slower: 0.15 is 14 % slower to 16 % faster.
        mel_warp: The mel axis is stretched by up to this factor's logarithm, by which formants and pitch move; bands
            beyond the last repeat it.
        equalizer_db: Standard deviation in dB of each of the cosines over the mel axis that are added: another
            microphone, another vocal effort.
        noise_prob: Share of the clips that get stationary noise of a random colour.
        noise_snr_db: Least and greatest distance of that noise from the clip's mean power, in dB.
        reverb_prob: Share of the clips that are put into a room: decaying echoes of T60 0.1 to 0.8 s.
        mix_prob: Share of the clips that another clip of the same emotion and gender is laid under, at up to equal
            power.
        log_mel_mean: Of the feature extractor.
        log_mel_std: Of the feature extractor.
        hop_seconds: Of the feature extractor.

    Raises:
        ValueError: If a width or share is out of its range.
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
            raise ValueError(f"noise_snr_db={list(self.noise_snr_db)} must be the least and the greatest, in dB")

    def __bool__(self) -> bool:
        """Whether anything is changed."""
        widths = (self.time_warp, self.mel_warp, self.equalizer_db)
        return any((*widths, self.noise_prob, self.reverb_prob, self.mix_prob))

    def __call__(self, features: np.ndarray, generator: torch.Generator | None = None, other=None) -> np.ndarray:
        """Change a clip.

        Args:
            features: `(frames, num_mel_bins)`.
            generator: Of all that is drawn.
            other: Called without arguments where a clip is to be laid under this one; gives its features.

        Returns:
            Features of as many bands; of other length under `time_warp`.
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
        level = 10 ** (random.uniform(*REVERBERANT) / 10)
        echoes = scipy.signal.lfilter([0.0, level], [1.0, -decay], np.exp(power), axis=0)
        return np.log(np.exp(power) + echoes)

    def _curve(self, bands: int, random: np.random.Generator) -> np.ndarray:
        cosines = np.cos(np.pi * np.outer(np.arange(1, CURVES + 1), np.linspace(0, 1, bands)))
        return DECIBELS * self.equalizer_db * random.standard_normal(CURVES) @ cosines

    def _add_noise(self, power: np.ndarray, random: np.random.Generator) -> np.ndarray:
        level = np.log(np.exp(power).mean()) - DECIBELS * random.uniform(*self.noise_snr_db)
        colour = (
            DECIBELS
            * 4.0
            * random.standard_normal(2)
            @ np.cos(np.pi * np.outer([1, 2], np.linspace(0, 1, power.shape[1])))
        )
        ripple = np.log(random.standard_gamma(4.0, power.shape) / 4.0)  # a band holds a few bins of noise
        return np.logaddexp(power, level + colour + ripple)
