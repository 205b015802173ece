"""A classifier that answers as the zero-shot pipeline does."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

import torch

from ..feature_extraction_gemoclap import GEmoClapFeatureExtractor
from ..modeling_gemoclap import GEmoClapForAudioClassification


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

        Yields:
            For each recording `[{"label", "score"}, ...]`, best first, or `{"error": message}`.
        """
        stream = iter(recordings)
        while batch := list(islice(stream, batch_size)):
            items = [self._load(recording, on_error) for recording in batch]
            clips = [item for item in items if not isinstance(item, dict)]
            rows = iter(self._scores(clips)) if clips else iter(())
            yield from (item if isinstance(item, dict) else next(rows) for item in items)

    def _load(self, recording, on_error: str):
        try:
            return self.feature_extractor.features(self.feature_extractor.load_speech(recording))
        except ValueError as error:
            if on_error == "raise":
                raise
            return {"error": str(error)}

    @torch.no_grad()
    def _scores(self, clips: list) -> list[list[dict]]:
        inputs = self.feature_extractor.collate(clips).to(self.model.device)
        scores = self.model(**inputs).logits.float().softmax(-1).cpu()
        order = scores.argsort(descending=True, stable=True, dim=-1).tolist()
        names = self.model.config.emotions
        return [
            [{"label": names[i], "score": row[i].item()} for i in ranks]
            for row, ranks in zip(scores, order, strict=True)
        ]
