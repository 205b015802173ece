"""A classifier that answers as the zero-shot pipeline does."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch

from ..feature_extraction_gemoclap import GEmoClapFeatureExtractor
from ..modeling_gemoclap import GEmoClapForAudioClassification
from ..pipeline_gemoclap import in_batches, load_clip, ranked


class AudioClassifier:
    """Names the emotion of recordings by a trained head.

    Args:
        model: The classifier.
        feature_extractor: Its extractor.
        device: Where it runs; default: where there is a GPU, there.
    """

    method = "by the checkpoint's classifier"

    def __init__(
        self,
        model: GEmoClapForAudioClassification,
        feature_extractor: GEmoClapFeatureExtractor,
        device: str | None = None,
    ):
        self.model = model.to(device or ("cuda" if torch.cuda.is_available() else "cpu")).eval()
        self.feature_extractor = feature_extractor

    def __call__(self, recordings: Iterable, batch_size: int = 16, on_error: str = "raise") -> Iterator:
        """Answer a stream of recordings.

        Args:
            recordings: Paths, bytes or arrays, as `read_audio` has them.
            batch_size: Clips that go through the model together.
            on_error: `"raise"`, or `"return"` to let a bad clip carry its error.

        Returns:
            An iterator: for each recording `[{"label", "score"}, ...]`, best first, or `{"error": message}`.
        """
        extractor = self.feature_extractor
        return in_batches(
            recordings, batch_size, lambda clip: load_clip(extractor, clip, None, on_error), self._answer
        )

    @torch.no_grad()
    def _answer(self, clips: list) -> list[list[dict]]:
        inputs = self.feature_extractor.collate(clips).to(self.model.device)
        scores = self.model(**inputs).logits.float().softmax(-1).cpu()
        return [ranked(row, self.model.config.emotions) for row in scores]
