"""A checkpoint, run by this package's code."""

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
from .statistics import Judged


def load_pipeline(model: str, device: str | None = None) -> ZeroShotEmotionPipeline | AudioClassifier:
    """The checkpoint's pipeline, or its classifier.

    Args:
        model: A folder, or a name on the Hub.
        device: Where it runs; None: where there is a GPU, there.

    Raises:
        ValueError: If there is no such folder or model, or it is no checkpoint but a LoRA adapter.
    """
    if Path(model, "adapter_config.json").is_file():
        raise ValueError(f"{model} is a LoRA adapter: give the folder of its run, in which the updates are merged")
    if Path(model, "run.json").is_file():
        raise ValueError(f"{model} is the run of a protocol, with a checkpoint for each fold: give --protocol")
    if Path(model).exists() and not Path(model, "config.json").is_file():
        raise ValueError(f"{model}: no config.json there; give the folder of a checkpoint")
    check_checkpoint_files(model)
    try:
        config = GEmoClapConfig.from_pretrained(model)
    except OSError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{model}: no such folder, and no such model on the Hub or in its cache ({reason})") from None
    if "GEmoClapForAudioClassification" in (config.architectures or []):
        extractor = GEmoClapFeatureExtractor.from_pretrained(model)
        classifier = load_complete_model(GEmoClapForAudioClassification, model)
        classifier.check_history()
        return AudioClassifier(classifier, extractor, device)
    if "GEmoClapForXVector" in (config.architectures or []):
        raise ValueError(
            f"{model} embeds clips and names no emotion: train a classifier or GEmo-CLAP on it "
            f"(train.py --init_from {model}), or compare its layers (evaluate.py --layer_similarity)"
        )
    loaded = load_complete_model(GEmoClapModel, model)
    loaded.check_history()
    processor = GEmoClapProcessor.from_pretrained(model)
    return ZeroShotEmotionPipeline(model=loaded, processor=processor, device=device)


def class_similarities(pipe, judged: Judged, embeddings: np.ndarray) -> np.ndarray | None:
    """Mean cosine of the clips of each true emotion to each class text.

    Args:
        pipe: The checkpoint's pipeline.
        judged: The clips.
        embeddings: Their audio embeddings, `(clips, size)`.

    Returns:
        `(labels, labels)`, NaN where an emotion does not occur; None for a classifier, which has no texts.
    """
    if isinstance(pipe, AudioClassifier):
        return None
    prompts = pipe.model.config.class_prompts(judged.labels)
    texts = pipe.model.get_class_embeddings(prompts, pipe.processor.tokenizer).float().cpu().numpy()
    cosines = embeddings @ texts.T
    rows = [cosines[judged.truth == place] for place in range(len(judged.labels))]
    return np.stack([row.mean(0) if len(row) else np.full(len(rows), np.nan) for row in rows])
