"""The feature extractor as a part of an exported graph: from padded waveforms to the input of an audio tower."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from transformers.audio_utils import mel_filter_bank, window_function

from ..feature_extraction_gemoclap import GEmoClapFeatureExtractor
from ..spectrograms_gemoclap import encoder_extractor, window_seconds
from ..speech_gemoclap import (
    ABOVE_FLOOR,
    BELOW_PEAK,
    FRAME_SECONDS,
    LEAST_BELOW_PEAK,
    LOWEST_RMS,
    MARGIN_FRAMES,
    SMOOTHED_FRAMES,
)

MEL_FLOOR = 1e-6  # of the log-mel of the compact encoder
CONSTANTS = ("fourier_basis", "mel_filters", "class_embeddings")  # matrices that are never quantised
WHISPER_FLOOR, WHISPER_RANGE = 1e-10, 8.0  # Whisper's lowest power, and its range in decades


class ExportedFeatures(nn.Module):
    """Computes what a `GEmoClapFeatureExtractor` computes after decoding and resampling, for a padded batch.

    Args:
        extractor: The feature extractor, of raw waveforms, of the compact encoder or of Whisper.
    """

    def __init__(self, extractor: GEmoClapFeatureExtractor):
        super().__init__()
        self.rate = extractor.sampling_rate
        self.trims = extractor.trim_silence
        self.normalises, self.level_db = extractor.do_normalize, extractor.level_db
        self.longest = extractor.max_seconds and int(extractor.max_seconds * self.rate)
        self.padding_value = extractor.padding_value
        kinds = {"wave": lambda _: None, "log_mel": LogMel, "own": WhisperLogMel}
        self.spectrogram = kinds[extractor.feature_type](extractor)

    def forward(self, waveform: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute the input of the audio tower and its mask.

        Args:
            waveform: `(batch, samples)`, padded at the end.
            lengths: `(batch,)`, valid samples.

        Returns:
            The input, `(batch, samples)` or a spectrogram in the shape of the family, and the mask of valid samples
            or frames.
        """
        if self.trims:
            waveform, lengths = trim_silence(waveform, lengths, round(FRAME_SECONDS * self.rate))
        if self.longest:
            lengths = lengths.clamp(max=self.longest)
        valid = _index(waveform) < lengths[:, None]
        waveform = self._at_level(torch.where(valid, waveform, 0.0), lengths[:, None].to(waveform.dtype), valid)
        if self.spectrogram is not None:
            return self.spectrogram(waveform, lengths)
        return torch.where(valid, waveform, self.padding_value), valid.long()

    def _at_level(self, wave: torch.Tensor, count: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """Normalise waveforms, or bring them to a level; padding remains zero."""
        if not self.normalises and self.level_db is None:
            return wave
        centred = torch.where(valid, wave - wave.sum(1, keepdim=True) / count, 0.0)
        power = centred.square().sum(1, keepdim=True) / count
        if self.normalises:
            return centred / (power + 1e-7).sqrt()
        return centred * (10 ** (self.level_db / 20) / power.sqrt().clamp_min(LOWEST_RMS))


def trim_silence(waveform: torch.Tensor, lengths: torch.Tensor, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Move the speech of each clip to its start, as `speech_gemoclap.trim_silence` does for one clip.

    Args:
        waveform: `(batch, samples)`, padded at the end.
        lengths: `(batch,)`, valid samples.
        size: Samples of a frame.

    Returns:
        The waveforms, `(batch, samples)`, and their lengths. Samples after the end of a clip are undefined.
    """
    counts = torch.div(lengths, size, rounding_mode="floor")[:, None]
    padded = F.pad(waveform, (0, size))  # at least one frame
    total = padded.shape[1] // size
    power = padded[:, : total * size].unflatten(1, (total, size)).double().square().mean(2) + 1e-12
    frames = _index(power)
    last = (counts - 1).clamp_min(0)
    around = SMOOTHED_FRAMES // 2
    neighbours = [(frames + shift).clamp_min(0).minimum(last) for shift in range(-around, around + 1)]
    smooth = torch.stack([power.gather(1, index) for index in neighbours]).mean(0)
    level, valid = 10 * smooth.log10(), frames < counts
    highest = level.masked_fill(~valid, -torch.inf).amax(1, keepdim=True)
    lowest = level.masked_fill(~valid, torch.inf).amin(1, keepdim=True)
    threshold = torch.maximum(highest - BELOW_PEAK, lowest + ABOVE_FLOOR).minimum(highest - LEAST_BELOW_PEAK)
    speech = (level > threshold) & valid
    first = torch.where(speech, frames, total).amin(1, keepdim=True)
    end = torch.where(speech, frames, -1).amax(1, keepdim=True) + 1 + MARGIN_FRAMES
    start = (first - MARGIN_FRAMES).clamp_min(0) * size
    end = torch.where(end < counts, end * size, lengths[:, None])
    start = torch.where(counts > 0, start, 0)
    index = (_index(waveform) + start).clamp(max=waveform.shape[1] - 1)
    return waveform.gather(1, index), (end - start)[:, 0]


class LogMel(nn.Module):
    """The log-mel features of the compact encoder; see `GEmoClapFeatureExtractor`."""

    def __init__(self, extractor: GEmoClapFeatureExtractor):
        super().__init__()
        rate = extractor.sampling_rate
        frame, self.hop = (round(seconds * rate) for seconds in (extractor.frame_seconds, extractor.hop_seconds))
        fft = 2 ** math.ceil(math.log2(frame))
        highest = extractor.max_frequency or rate / 2
        mel = mel_filter_bank(
            fft // 2 + 1, extractor.num_mel_bins, extractor.min_frequency, highest, rate, mel_scale="htk"
        )
        self.power = MelPower(window_function(frame, "hann"), fft, self.hop, mel)
        self.mean, self.std, self.padding_value = (
            extractor.log_mel_mean,
            extractor.log_mel_std,
            extractor.padding_value,
        )
        self.frame = frame

    def forward(self, wave: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Map `(batch, samples)` and lengths to features `(batch, frames, mel)` and the mask of their frames."""
        mel = self.power(wave).clamp_min(MEL_FLOOR).log()
        frames = torch.div(lengths - self.frame, self.hop, rounding_mode="floor") + 1
        valid = _index(mel) < frames[:, None]
        return torch.where(valid[..., None], (mel - self.mean) / self.std, self.padding_value), valid.long()


class WhisperLogMel(nn.Module):
    """The log-mel features of Whisper in consecutive windows; see `spectrograms_gemoclap.encoder_features`."""

    def __init__(self, extractor: GEmoClapFeatureExtractor):
        super().__init__()
        own = encoder_extractor(extractor.own)
        self.window = round(window_seconds(extractor.own) * own.sampling_rate)
        self.hop, self.reflected = own.hop_length, own.n_fft // 2
        self.power = MelPower(window_function(own.n_fft, "hann"), own.n_fft, own.hop_length, own.mel_filters)

    def forward(self, wave: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Map `(batch, samples)` and lengths to `(batch, mel, windows * frames)` and the mask of valid frames."""
        batch, samples = wave.shape
        count = (samples + self.window - 1) // self.window
        wave = F.pad(wave, (0, count * self.window - samples)).unflatten(1, (count, self.window))
        # Silence that was cut off leaves windows that no clip of the batch reaches.
        starts = torch.arange(count, device=wave.device) * self.window
        reached = (starts < lengths.amax(0)).nonzero()[:, 0]
        count = reached.shape[0]
        torch._check(count >= 1)
        wave = wave.index_select(1, reached).flatten(0, 1)
        windows = F.pad(wave, (self.reflected, self.reflected), mode="reflect")
        frames = self.window // self.hop
        mel = self.power(windows)[:, :frames].clamp_min(WHISPER_FLOOR).log10()
        mel = torch.maximum(mel, mel.amax((1, 2), keepdim=True) - WHISPER_RANGE)
        mel = ((mel + 4) / 4).reshape(batch, count * frames, -1)
        valid = _index(mel) < torch.div(lengths + self.hop - 1, self.hop, rounding_mode="floor")[:, None]
        return mel.transpose(1, 2), valid.long()


class MelPower(nn.Module):
    """The mel power of the frames of waveforms. The Fourier transform is a product with constant matrices.

    The power does not depend on the origin of time. With the origin in the middle of a frame, whose window is
    symmetric, the real part is a transform of the sums of the two samples at the same distance from the middle, and
    the imaginary part one of their differences: half of the products.

    Args:
        window: `(frame,)`, a periodic window, so that sample 0 is zero and sample n equal to sample frame - n.
        fft: Samples of the transform, at least those of a frame.
        hop: Samples from one frame to the next.
        mel: `(fft / 2 + 1, bands)`, the mel filters.
    """

    def __init__(self, window: np.ndarray, fft: int, hop: int, mel: np.ndarray):
        super().__init__()
        self.hop, self.frame = hop, len(window)
        self.parts = math.ceil(self.frame / hop)
        self.after = math.ceil(self.frame / 2)  # the first sample that is not before the middle
        samples = np.arange(self.after, self.frame)
        weights = window[self.after :] * np.where(2 * samples == self.frame, 0.5, 1.0)  # the middle is its own pair
        angles = 2 * np.pi * np.outer(samples - self.frame / 2, np.arange(fft // 2 + 1)) / fft
        bases = np.stack([np.cos(angles), np.sin(angles)]) * weights[:, None]
        self.register_buffer("fourier_basis", torch.tensor(bases, dtype=torch.float32))
        self.register_buffer("mel_filters", torch.tensor(mel, dtype=torch.float32))

    def forward(self, wave: torch.Tensor) -> torch.Tensor:
        """Map `(batch, samples)` to `(batch, frames, bands)`, for all frames that are complete."""
        frames = (wave.shape[1] - self.frame) // self.hop + 1
        total = frames + self.parts - 1
        padded = F.pad(wave, (0, self.hop * self.parts))[:, : total * self.hop]
        hops = padded.unflatten(1, (total, self.hop))
        framed = torch.cat([hops[:, part : part + frames] for part in range(self.parts)], 2)
        late = framed[..., self.after : self.frame]
        early = framed[..., 1 : self.frame - self.after + 1].flip(-1)
        spectrum = torch.stack([late + early, late - early]) @ self.fourier_basis[:, None]
        real, imaginary = spectrum.square().unbind()
        return (real + imaginary) @ self.mel_filters


def _index(values: torch.Tensor) -> torch.Tensor:
    """`(1, length)`: the indices of the second dimension."""
    return torch.arange(values.shape[1], device=values.device)[None]
