"""Augmentation of log-mel features: speed, voice, microphone, room, noise and mixing of clips; Whisper's features."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy.signal
import torch
from torch.nn import functional as F

from ..command_line.ranges import FINITE, SHARE, Range, refuse_out_of_range
from ..feature_extraction_gemoclap import GEmoClapFeatureExtractor

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


# ---- the log-mel features of an audio tower -------------------------------------------------------------------------
WHISPER = "WhisperFeatureExtractor"
WHISPER_SCALE = 4 * math.log(10)  # Whisper's features are (log10(mel power) + 4) / 4
WHISPER_RANGE = 2.0  # values of a window are at most 8 decades below its maximum
WHISPER_SILENCE = -1.5  # the value of zeros, a power of 1e-10, before it is raised to this range


def log_mel_scale(extractor: GEmoClapFeatureExtractor) -> dict[str, float] | None:
    """How an extractor scales log-mel features, as arguments of `Augmentation`.

    Returns:
        `log_mel_mean`, `log_mel_std` and `hop_seconds`; None if the features are not known to be log-mel.
    """
    if extractor.feature_type == "log_mel":
        return {name: getattr(extractor, name) for name in ("log_mel_mean", "log_mel_std", "hop_seconds")}
    if extractor.feature_type != "own" or extractor.own.get("feature_extractor_type") != WHISPER:
        return None
    hop_seconds = extractor.own.get("hop_length", 160) / extractor.sampling_rate
    return {"log_mel_mean": -WHISPER_SCALE, "log_mel_std": WHISPER_SCALE, "hop_seconds": hop_seconds}


def whisper_log_mel(extractor: GEmoClapFeatureExtractor, clip: np.ndarray) -> np.ndarray:
    """Whisper's features of one clip without padding, for `Augmentation`.

    Args:
        extractor: Extractor of a Whisper encoder.
        clip: Output of its `features`, `(time,)`.

    Returns:
        `(frames, num_mel_bins)`: the valid frames, and those at the end in which the last samples are still audible.
    """
    batch = extractor.collate([clip], return_tensors="np")
    values, mask = batch[extractor.input_name][0].T, batch["audio_attention_mask"][0]
    frames = int(mask.sum()) + _whisper_tail(extractor)
    return np.pad(values[:frames], ((0, max(0, frames - len(values))), (0, 0)), mode="edge")


def _whisper_tail(extractor: GEmoClapFeatureExtractor) -> int:
    """The number of frames that begin after a clip and overlap with its last samples."""
    return math.ceil(extractor.own.get("n_fft", 400) / 2 / extractor.own.get("hop_length", 160))


def collate_whisper(extractor: GEmoClapFeatureExtractor, clips: list[np.ndarray]) -> dict[str, torch.Tensor]:
    """Pad augmented features to the input of a Whisper encoder, as its own extractor pads a recording with zeros.

    A clip that is longer than the encoder's input continues in further windows; if the extractor has `max_seconds`,
    it is cut at this length.

    Args:
        extractor: Extractor of a Whisper encoder.
        clips: Features from `whisper_log_mel`, augmented; or waves from `features`.

    Returns:
        `input_features` `(batch, num_mel_bins, windows * frames)` and `audio_attention_mask`
        `(batch, windows * frames)`.
    """
    clips = [clip if clip.ndim == 2 else whisper_log_mel(extractor, clip) for clip in clips]
    hop_seconds = log_mel_scale(extractor)["hop_seconds"]
    window = round(extractor.own.get("chunk_length", 30) / hop_seconds)
    lengths = [max(1, len(clip) - _whisper_tail(extractor)) for clip in clips]
    if extractor.max_seconds:
        lengths = [min(length, round(extractor.max_seconds / hop_seconds)) for length in lengths]
    frames = window * math.ceil(max(lengths) / window)
    values = np.full((len(clips), frames, clips[0].shape[1]), WHISPER_SILENCE, np.float32)
    for row, (clip, length) in enumerate(zip(clips, lengths, strict=True)):
        end = window * math.ceil(length / window)
        values[row, : min(len(clip), end)] = clip[:end]
    windows = values.reshape(len(clips), -1, window, values.shape[-1])
    floor = windows.max((2, 3), keepdims=True) - WHISPER_RANGE
    values = np.maximum(windows, floor).reshape(values.shape).swapaxes(1, 2)
    mask = (np.arange(frames) < np.array(lengths)[:, None]).astype(np.int64)
    return {
        extractor.input_name: torch.from_numpy(np.ascontiguousarray(values)),
        "audio_attention_mask": torch.from_numpy(mask),
    }
