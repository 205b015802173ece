"""A classifier that answers as the zero-shot pipeline does."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch

from ..feature_extraction_gemoclap import GEmoClapFeatureExtractor
from ..modeling_gemoclap import GEmoClapForAudioClassification
from ..pipeline_gemoclap import check_count, load_clip, process_in_batches, rank_scores
from ..prompts_gemoclap import check_words


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

    def __call__(
        self,
        recordings: Iterable,
        batch_size: int = 16,
        on_error: str = "raise",
        candidate_labels: list[str] | None = None,
        hypothesis_template: str | None = None,
        return_embeddings: bool = False,
    ) -> Iterator:
        """Answer a stream of recordings.

        Args:
            recordings: Paths, bytes or arrays, as `read_audio` has them.
            batch_size: Clips that go through the model together.
            on_error: `"raise"`, or `"return"` to let a bad clip carry its error.
            candidate_labels: The checkpoint's own: its head has no others.
            hypothesis_template: None: it has no prompts.
            return_embeddings: Whether each answer is a dict with `embedding` too.

        Returns:
            An iterator: for each recording `[{"label", "score"}, ...]`, best first, with `return_embeddings` a dict
            with `emotion` (that list) and `embedding`, `(hidden_size,)`; or `{"error": message}`.

        Raises:
            ValueError: If other labels than its own, or prompts, are asked for, or `batch_size` is no whole number.
        """
        check_count("batch_size", batch_size)
        emotions = self.model.config.emotions
        asked = emotions if candidate_labels is None else check_words("candidate_labels", candidate_labels)
        if hypothesis_template or set(asked) != set(emotions):
            raise ValueError(f"a classifier knows its own emotions alone ({', '.join(emotions)}), and no prompts")
        extractor = self.feature_extractor
        return process_in_batches(
            recordings,
            batch_size,
            lambda clip: load_clip(extractor, clip, None, on_error),
            lambda clips: self._answer(clips, return_embeddings),
        )

    @torch.no_grad()
    def _answer(self, clips: list, return_embeddings: bool) -> list:
        inputs = self.feature_extractor.collate(clips).to(self.model.device)
        embeddings = self.model.pool_audio(**inputs)
        logits = self.model.classifier(embeddings).float() / (self.model.config.calibration_temperature or 1.0)
        answers = [rank_scores(row, self.model.config.emotions) for row in logits.softmax(-1).cpu()]
        if not return_embeddings:
            return answers
        pairs = zip(answers, embeddings.float().cpu().numpy(), strict=True)
        return [{"emotion": answer, "embedding": embedding} for answer, embedding in pairs]
