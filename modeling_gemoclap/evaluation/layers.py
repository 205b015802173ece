"""Mean frames of clips in each layer of an audio encoder, and the encoder as it was before training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm
from transformers import PretrainedConfig, set_seed

from ..base_gemoclap import GEmoClapPreTrainedModel
from ..batching_gemoclap import padding_limit, process_in_batches
from ..configuration_gemoclap import GEmoClapConfig
from ..corpora.manifest import Corpus
from ..feature_extraction_gemoclap import AudioError, GEmoClapFeatureExtractor
from ..modeling_gemoclap import GEmoClapForXVector
from ..pipeline_gemoclap import load_clip
from ..spectrograms_gemoclap import POSITIONS_PER_SECOND
from ..towers_gemoclap import keep_layers, load_complete_model, shorten_window
from .clips import EvaluationOptions


@dataclass
class LayerMeans:
    """Mean frames of clips.

    Args:
        means: Mean frame of each clip in each layer, `(clips, layers + 1, hidden_size)`. Layer 0 is the input of the
            first Transformer layer.
        rows: Rows of the clips in the corpus.
        skipped: Error message of each clip that could not be used.
    """

    means: np.ndarray
    rows: list[int]
    skipped: list[str]


def layer_means(
    model: GEmoClapPreTrainedModel, extractor: GEmoClapFeatureExtractor, corpus: Corpus, options: EvaluationOptions
) -> LayerMeans:
    """Compute the mean frame of each clip in each layer.

    Args:
        model: Any GEmo-CLAP model.
        extractor: Its feature extractor.
        corpus: The clips.
        options: How clips are evaluated.

    Raises:
        AudioError: If clips cannot be used and `on_bad_audio` is `"raise"`, or no clip can be used.
    """
    model = model.to(options.device or ("cuda" if torch.cuda.is_available() else "cpu")).eval()

    @torch.no_grad()
    def means_of_batch(clips: list) -> list:
        inputs = extractor.collate(clips).to(model.device)
        return list(model.layer_means(**inputs).float().cpu().numpy())

    stream = process_in_batches(
        corpus.recordings(),
        options.batch_size,
        lambda clip: load_clip(extractor, clip, None, "return"),
        means_of_batch,
        padding_limit(model, extractor),
    )
    results = list(tqdm(stream, total=len(corpus), desc="encoding"))
    skipped = [result["error"] for result in results if isinstance(result, dict)]
    rows = [row for row, result in enumerate(results) if not isinstance(result, dict)]
    if skipped and (options.on_bad_audio == "raise" or not rows):
        raise AudioError(
            f"{corpus.cannot_be_used(skipped)}or give --on_bad_audio skip to continue with the other clips"
        )
    return LayerMeans(np.stack([results[row] for row in rows]), rows, skipped)


@dataclass
class StartingPoint:
    """An encoder as it was before training.

    Args:
        model: The encoder.
        name: Its name in the report.
        training_data: Its training records; None if it has none.
    """

    model: GEmoClapPreTrainedModel
    name: str
    training_data: list[dict] | None


def starting_point(config: GEmoClapConfig, name: str | None) -> StartingPoint:
    """Load the encoder that a training started from.

    The configuration of a checkpoint says what it started from, but it is not trusted to choose what is downloaded.

    Args:
        config: Configuration of the trained checkpoint.
        name: A GEmo-CLAP checkpoint or a pretrained encoder; None if the training started from fresh weights.

    Raises:
        ValueError: If `name` is None but the training started from another checkpoint or a pretrained encoder.
    """
    if not name:
        _refuse_unnamed_start(config)
        set_seed(0)
        model = GEmoClapForXVector(GEmoClapConfig(audio_config=config.audio_config)).eval()
        return StartingPoint(model, "fresh weights", [])
    if PretrainedConfig.get_config_dict(name)[0].get("model_type") == GEmoClapConfig.model_type:
        model = _shortened_like(config, load_complete_model(GEmoClapForXVector, name))
        return StartingPoint(model, name, model.config.training_data)
    model = _shortened_like(config, GEmoClapForXVector.from_audio_pretrained(name))
    return StartingPoint(model, name, _records_of_encoder(model.config.audio_config, name))


def _shortened_like(trained: GEmoClapConfig, model: GEmoClapForXVector) -> GEmoClapForXVector:
    """Keep the layers and the window of an encoder that the training kept (`audio_layers`, `audio_window_seconds`)."""
    tower, kept = model.audio_model, trained.audio_config
    if (tower.config.model_type, tower.config.hidden_size) != (kept.model_type, kept.hidden_size):
        return model
    if kept.num_hidden_layers < tower.config.num_hidden_layers:
        keep_layers(tower, kept.num_hidden_layers)
    if kept.model_type == "whisper" and kept.max_source_positions < tower.config.max_source_positions:
        shorten_window(tower, kept.max_source_positions / POSITIONS_PER_SECOND)
    return model


def _refuse_unnamed_start(config: GEmoClapConfig) -> None:
    if any("stage" in record for record in config.training_data or []):
        raise ValueError("the checkpoint was trained from another checkpoint: give that with --before")
    if start := getattr(config.audio_config, "_name_or_path", ""):
        raise ValueError(
            f"the checkpoint was trained from a pretrained encoder, {start!r} according to its configuration: give "
            f"that with --before"
        )


def _records_of_encoder(config: PretrainedConfig, name: str) -> list[dict]:
    """Training records of an audio encoder of this package, or the name of another pretrained encoder."""
    records = getattr(config, "training_data", None)
    return [{"encoder": Path(name).name if Path(name).exists() else name}] if records is None else records
