"""Loading of checkpoints, by folder, name on the Hub or short name, with the code of this package."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import snapshot_download
from transformers.utils import cached_file, logging

from ..command_line.memory import limit_kernel_cache
from ..command_line.places import refuse_missing_device
from ..command_line.shipped import shipped_checkpoint
from ..configuration_gemoclap import GEmoClapConfig
from ..corpora.checkpoint_files import check_checkpoint_files
from ..corpora.files import damage_is_named
from ..feature_extraction_gemoclap import GEmoClapFeatureExtractor
from ..fingerprint import TRAINING_CLIPS
from ..modeling_gemoclap import GEmoClapForAudioClassification, GEmoClapModel
from ..pipeline_gemoclap import ZeroShotEmotionPipeline
from ..processing_gemoclap import GEmoClapProcessor
from ..registration import register
from ..towers_gemoclap import load_complete_model
from ..training_clips import load_training_clips
from .classifier import AudioClassifier
from .compiling import compile_audio_tower

logger = logging.get_logger(__name__)
PROCESSOR_FILES = "the files of its processor (processor_config.json or preprocessor_config.json, tokenizer.json)"


def load_pipeline(
    model: str, device: str | None = None, revision: str | None = None, compile: bool = False
) -> ZeroShotEmotionPipeline | AudioClassifier:
    """Load the zero-shot pipeline of a checkpoint, or its classifier.

    Args:
        model: A folder, a name on the Hub, or `base` or `compact`, the checkpoints of this package.
        device: Device of the model; None selects a GPU if there is one.
        revision: Commit, tag or branch of a model on the Hub.
        compile: Whether to compile the audio tower; see `compile_audio_tower`.

    Raises:
        ValueError: If there is no such folder, model or device, if it is not a checkpoint that predicts emotions, or
            if `compile` finds no compiler.
    """
    limit_kernel_cache()
    pipe = _load_pipeline(model, device, revision)
    if compile:
        compile_audio_tower(pipe.model)
    return pipe


def _load_pipeline(model: str, device: str | None, revision: str | None) -> ZeroShotEmotionPipeline | AudioClassifier:
    register()
    refuse_missing_device(device)
    model, hub = shipped_checkpoint(str(model)), {"revision": revision} if revision else {}
    config = load_config(model, revision)
    architectures = config.architectures or []
    if "GEmoClapForXVector" in architectures:
        raise ValueError(
            f"{model} embeds clips and predicts no emotions: train a classifier or GEmo-CLAP from it "
            f"(train.py --init_from {model}), or compare its layers (evaluate.py --layer_similarity)"
        )
    if "GEmoClapForAudioClassification" in architectures:
        with damage_is_named(model, PROCESSOR_FILES):
            extractor = GEmoClapFeatureExtractor.from_pretrained(model, **hub)
        with damage_is_named(model, "config.json, or the weights,"):
            classifier = load_complete_model(GEmoClapForAudioClassification, model, **hub)
        classifier.check_history()
        pipe = AudioClassifier(classifier, extractor, device)
        pipe.clip_seconds = _clip_seconds(model, revision)
        return pipe
    with damage_is_named(model, "config.json, or the weights,"):
        zero_shot = load_complete_model(GEmoClapModel, model, **hub)
    zero_shot.check_history()
    processor = load_processor(model, **hub)
    pipe = ZeroShotEmotionPipeline(model=zero_shot, processor=processor, device=device)
    pipe.clip_seconds = _clip_seconds(model, revision)
    return pipe


def load_processor(model: str, **hub) -> GEmoClapProcessor:
    """Load the feature extractor and the tokenizer of a checkpoint.

    Args:
        model: A folder, or a name on the Hub.
        **hub: Options of the Hub.

    Raises:
        ValueError: If their files are damaged, or name other parts.
    """
    with damage_is_named(model, PROCESSOR_FILES):
        processor = GEmoClapProcessor.from_pretrained(model, **hub)
        processor.tokenizer(["a"])  # settings of another type than transformers expects fail only here
    return processor


def _clip_seconds(model: str, revision: str | None) -> float | None:
    """The median length of the training clips of a checkpoint; None if it is unknown."""
    options = {"_raise_exceptions_for_missing_entries": False, "_raise_exceptions_for_connection_errors": False}
    path = cached_file(model, TRAINING_CLIPS, revision=revision, **options)
    try:
        clips = load_training_clips(Path(path).parent) if path else None
    except ValueError as error:
        logger.warning(f"the length of the training clips is unknown: {error}")
        clips = None
    lengths = clips and clips.range_of("seconds")
    return lengths[1] if lengths else None


def checkpoint_folder(model: str, revision: str | None, patterns: Sequence[str]) -> Path:
    """The folder of a checkpoint; of one on the Hub, that of the cache, after a download of some of its files.

    Args:
        model: See `load_pipeline`.
        revision: See `load_pipeline`.
        patterns: Patterns of the names of the files that are downloaded.
    """
    model = shipped_checkpoint(str(model))
    if Path(model).is_dir():
        return Path(model)
    return Path(snapshot_download(model, revision=revision, allow_patterns=list(patterns)))


def load_config(model: str, revision: str | None = None) -> GEmoClapConfig:
    """Load the configuration of a checkpoint.

    Args:
        model: See `load_pipeline`.
        revision: See `load_pipeline`.

    Raises:
        ValueError: If there is no such folder or model, or it is not a checkpoint of this package.
    """
    model = shipped_checkpoint(str(model))
    folder = Path(model)
    if (folder / "adapter_config.json").is_file():
        raise ValueError(f"{model} is a LoRA adapter: give the folder of its run, which has the merged weights")
    if (folder / "run.json").is_file():
        raise ValueError(
            f"{model} is the run of a protocol, with a checkpoint for each fold: for evaluate.py, give --protocol"
        )
    if folder.exists() and not (folder / "config.json").is_file():
        raise ValueError(f"{model}: no config.json there; give the folder of a checkpoint")
    check_checkpoint_files(model)
    hub = {"revision": revision} if revision else {}
    try:
        kind = GEmoClapConfig.get_config_dict(model, **hub)[0].get("model_type")
    except OSError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{model}: no such folder, and no such model on the Hub or in its cache ({reason})") from None
    if kind != GEmoClapConfig.model_type:
        raise ValueError(f"{model}: a checkpoint of {str(kind or 'an unknown kind'):.80}, not of GEmo-CLAP")
    with damage_is_named(model, "config.json"):
        return GEmoClapConfig.from_pretrained(model, **hub)
