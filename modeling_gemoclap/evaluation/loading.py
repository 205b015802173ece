"""Loading of checkpoints with the code of this package."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..configuration_gemoclap import GEmoClapConfig
from ..corpora.checkpoint_files import check_checkpoint_files
from ..feature_extraction_gemoclap import GEmoClapFeatureExtractor
from ..modeling_gemoclap import GEmoClapForAudioClassification, GEmoClapModel
from ..pipeline_gemoclap import ZeroShotEmotionPipeline
from ..processing_gemoclap import GEmoClapProcessor
from ..towers_gemoclap import load_complete_model
from .classifier import AudioClassifier
from .statistics import Predictions


def load_pipeline(model: str, device: str | None = None) -> ZeroShotEmotionPipeline | AudioClassifier:
    """Load the zero-shot pipeline of a checkpoint, or its classifier.

    Args:
        model: A folder, or a name on the Hub.
        device: Device of the model; None selects a GPU if there is one.

    Raises:
        ValueError: If there is no such folder or model, or it is not a checkpoint that predicts emotions.
    """
    config = _load_config(model)
    architectures = config.architectures or []
    if "GEmoClapForXVector" in architectures:
        raise ValueError(
            f"{model} embeds clips and predicts no emotions: train a classifier or GEmo-CLAP from it "
            f"(train.py --init_from {model}), or compare its layers (evaluate.py --layer_similarity)"
        )
    if "GEmoClapForAudioClassification" in architectures:
        extractor = GEmoClapFeatureExtractor.from_pretrained(model)
        classifier = load_complete_model(GEmoClapForAudioClassification, model)
        classifier.check_history()
        return AudioClassifier(classifier, extractor, device)
    zero_shot = load_complete_model(GEmoClapModel, model)
    zero_shot.check_history()
    processor = GEmoClapProcessor.from_pretrained(model)
    return ZeroShotEmotionPipeline(model=zero_shot, processor=processor, device=device)


def _load_config(model: str) -> GEmoClapConfig:
    folder = Path(model)
    if (folder / "adapter_config.json").is_file():
        raise ValueError(f"{model} is a LoRA adapter: give the folder of its run, which has the merged weights")
    if (folder / "run.json").is_file():
        raise ValueError(f"{model} is the run of a protocol, with a checkpoint for each fold: give --protocol")
    if folder.exists() and not (folder / "config.json").is_file():
        raise ValueError(f"{model}: no config.json there; give the folder of a checkpoint")
    check_checkpoint_files(model)
    try:
        return GEmoClapConfig.from_pretrained(model)
    except OSError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{model}: no such folder, and no such model on the Hub or in its cache ({reason})") from None


def class_similarities(
    pipe: ZeroShotEmotionPipeline | AudioClassifier, predictions: Predictions, embeddings: np.ndarray
) -> np.ndarray | None:
    """Mean cosine similarity between the clips of each emotion and each class text.

    Args:
        pipe: Pipeline of the checkpoint.
        predictions: Predictions for the clips.
        embeddings: Audio embeddings of the clips, `(clips, projection_dim)`.

    Returns:
        `(labels, labels)`, with NaN in the rows of emotions that do not occur; None for a classifier, which has no
        texts.
    """
    if isinstance(pipe, AudioClassifier):
        return None
    prompts = pipe.model.config.class_prompts(predictions.labels)
    texts = pipe.model.get_class_embeddings(prompts, pipe.processor.tokenizer).float().cpu().numpy()
    cosines = embeddings @ texts.T
    rows = [cosines[predictions.truth == index] for index in range(len(predictions.labels))]
    return np.stack([row.mean(0) if len(row) else np.full(len(rows), np.nan) for row in rows])
