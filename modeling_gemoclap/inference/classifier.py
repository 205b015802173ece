"""A classifier with the interface of the zero-shot pipeline."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch

from ..batching_gemoclap import padding_limit, process_in_batches
from ..feature_extraction_gemoclap import GEmoClapFeatureExtractor
from ..modeling_gemoclap import GEmoClapForAudioClassification
from ..pipeline_gemoclap import check_count, load_clip, rank_scores
from ..prompts_gemoclap import check_words


class AudioClassifier:
    """Predicts the emotion of recordings with a trained head.

    Args:
        model: The classifier.
        feature_extractor: Feature extractor of its checkpoint.
        device: Device of the model; None selects a GPU if there is one.

    Raises:
        ValueError: If the windows of a Whisper encoder and of the extractor differ.
    """

    method = "by the checkpoint's classifier"

    def __init__(
        self,
        model: GEmoClapForAudioClassification,
        feature_extractor: GEmoClapFeatureExtractor,
        device: str | None = None,
    ):
        feature_extractor.check_window(model.config.audio_config)
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
        """Classify a stream of recordings. The parameters are those of the zero-shot pipeline.

        Args:
            recordings: Paths, bytes or arrays, as `read_audio` accepts them.
            batch_size: Clips in a batch.
            on_error: `"raise"`, or `"return"` to give the error of an unusable clip in its place.
            candidate_labels: The emotions of the checkpoint, in any order, or None. The head has no others.
            hypothesis_template: None. A classifier has no prompts.
            return_embeddings: Whether to return embeddings too.

        Returns:
            An iterator with `[{"label", "score"}, ...]` for each recording, highest score first. With
            `return_embeddings`, a dict with this list as `emotion` and with `embedding`, `(hidden_size,)`. For an
            unusable clip, `{"error": message}`.

        Raises:
            ValueError: If `candidate_labels` are not the emotions of the checkpoint, `hypothesis_template` is given,
                or `batch_size` is not a positive integer.
        """
        check_count("batch_size", batch_size)
        emotions = self.model.config.emotions
        labels = emotions if candidate_labels is None else check_words("candidate_labels", candidate_labels)
        if hypothesis_template or set(labels) != set(emotions):
            raise ValueError(
                f"a classifier has no prompts and predicts only the emotions of its head ({', '.join(emotions)}): "
                f"leave out other labels and templates"
            )
        extractor = self.feature_extractor
        return process_in_batches(
            recordings,
            batch_size,
            lambda clip: load_clip(extractor, clip, None, on_error),
            lambda clips: self._answer(clips, return_embeddings),
            padding_limit(self.model, extractor),
        )

    @torch.inference_mode()
    def _answer(self, clips: list, return_embeddings: bool) -> list:
        inputs = self.feature_extractor.collate(clips).to(self.model.device)
        embeddings = self.model.pool_audio(**inputs)
        logits = self.model.classifier(embeddings).float() / (self.model.config.calibration_temperature or 1.0)
        answers = rank_scores(logits.softmax(-1).cpu(), self.model.config.emotions)
        if not return_embeddings:
            return answers
        pairs = zip(answers, embeddings.float().cpu().numpy(), strict=True)
        return [{"emotion": answer, "embedding": embedding} for answer, embedding in pairs]
