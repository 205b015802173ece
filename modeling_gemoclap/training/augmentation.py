"""Changes to log-mel features that leave the emotion as it is."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch.nn import functional as F


class WarpAugmentation:
    """Speaks a clip faster or slower, by a longer or shorter vocal tract: log-mel features are resampled on both axes.

    Each factor is drawn anew for every clip, log-uniformly between `exp(-width)` and `exp(width)`.

    Args:
        time_warp: Width for the time axis: 0.15 is 14 % slower to 16 % faster.
        mel_warp: Width for the mel axis, by which formants and pitch move; bands beyond the last repeat it.
    """

    def __init__(self, time_warp: float = 0.0, mel_warp: float = 0.0):
        if min(time_warp, mel_warp) < 0 or max(time_warp, mel_warp) > 0.5:
            raise ValueError(f"{time_warp=} and {mel_warp=} must lie between 0 and 0.5")
        self.time_warp = time_warp
        self.mel_warp = mel_warp

    def __call__(self, features: np.ndarray, generator: torch.Generator | None = None) -> np.ndarray:
        """Warp `(frames, num_mel_bins)`; the number of frames changes, that of the bands does not."""
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
