"""Writing a smaller copy of a checkpoint."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import torch
from transformers import PretrainedConfig

from ..base_gemoclap import GEmoClapPreTrainedModel
from ..configuration_gemoclap import GEmoClapConfig
from ..corpora.checkpoint_files import check_checkpoint_files
from ..corpora.files import unfinished_folder
from ..feature_extraction_gemoclap import GEmoClapFeatureExtractor
from ..fingerprint import weight_files
from ..modeling_gemoclap import GEmoClapForAudioClassification, GEmoClapForXVector, GEmoClapModel
from ..processing_gemoclap import GEmoClapProcessor
from ..publishing.card import read_checkpoint, save_card
from ..publishing.facts import LICENCE_FILES, load_facts, save_facts
from ..safety_gemoclap import tensors_sha256
from ..towers_gemoclap import load_complete_model
from ..training.history import stamp_weights
from .card import Changes
from .word_pieces import OPTION, choose_pieces, cut_embedding, cut_tokenizer, needed_texts

MODELS = {kind.__name__: kind for kind in (GEmoClapModel, GEmoClapForAudioClassification, GEmoClapForXVector)}


def compress(source: Path, output: Path, half_precision: bool = False, word_pieces: int | None = None) -> str:
    """Write a smaller copy of a checkpoint.

    Args:
        source: Folder of the checkpoint.
        output: Folder of the copy, which must not exist or be empty.
        half_precision: Whether to store the weights in float16.
        word_pieces: Number of word pieces of the text encoder that are kept; None keeps all.

    Returns:
        What was changed, in sentences.

    Raises:
        ValueError: If the folder is not a complete checkpoint, if its weights exceed the range of float16, if the
            word pieces cannot be chosen, or if the copy would not equal the model it was made of. Nothing is written.
    """
    kind = _model_class(source)
    if word_pieces is not None and kind is not GEmoClapModel:
        raise ValueError(f"{OPTION}: {source} has no text encoder; leave the option out")
    model = load_complete_model(kind, str(source))
    model.check_history()
    recorded = getattr(model.config, "weights_sha256", None) is not None
    processor = (GEmoClapProcessor if kind is GEmoClapModel else GEmoClapFeatureExtractor).from_pretrained(source)
    parameters = _number_of_parameters(model)
    if half_precision:
        _round_to_half(model, source)
    embeddings = _class_embeddings(model, processor)
    pieces = None if word_pieces is None else _remove_pieces(model, processor, word_pieces)
    if recorded:  # an unknown state of the weights remains unknown
        stamp_weights(model, complete=True)
    calibrated = model.config.calibration_temperature is not None
    changes = Changes(half_precision, calibrated, (parameters, _number_of_parameters(model)), pieces)
    target = output.resolve()
    with unfinished_folder(target) as folder:
        _save(model, processor, folder, half_precision)
        _describe(source, folder, target.name, changes)
        _check_copy(folder, model, embeddings)
        if target.is_dir():
            target.rmdir()
        os.replace(folder, target)
    return "\n".join([_sizes(source, output), *changes.sentences()])


def _model_class(source: Path) -> type[GEmoClapPreTrainedModel]:
    """The class of the model in a folder.

    Raises:
        ValueError: If it is not the folder of a checkpoint of this package.
    """
    if (source / "adapter_config.json").is_file():
        raise ValueError(f"{source} is a LoRA adapter: give the folder of its run, which has the merged weights")
    if (source / "run.json").is_file():
        raise ValueError(f"{source} is the run of a protocol: give the folder of one of its checkpoints")
    if not (source / "config.json").is_file():
        raise ValueError(f"{source}: no config.json there; give the folder of a trained checkpoint")
    check_checkpoint_files(source)
    config = PretrainedConfig.get_config_dict(source)[0]
    names = [name for name in config.get("architectures") or [] if name in MODELS]
    if config.get("model_type") != GEmoClapConfig.model_type or not names:
        raise ValueError(f"{source}: not a checkpoint of train.py, but a {config.get('model_type')!r} model")
    return MODELS[names[0]]


def _number_of_parameters(model: GEmoClapPreTrainedModel) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@torch.no_grad()
def _round_to_half(model: GEmoClapPreTrainedModel, source: Path) -> None:
    """Round all weights to values of float16, and keep them in float32.

    Raises:
        ValueError: If a weight exceeds the range of float16.
    """
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            rounded = tensor.half()
            if not rounded.isfinite().all():
                raise ValueError(
                    f"{source}: {name} has values up to {tensor.abs().max().item():.3g}, and float16 ends at 65504: "
                    f"leave out --half_precision"
                )
            tensor.copy_(rounded)


def _class_embeddings(model: GEmoClapPreTrainedModel, processor) -> torch.Tensor | None:
    if not isinstance(model, GEmoClapModel):
        return None
    return model.eval().get_class_embeddings(model.config.class_prompts(), processor.tokenizer)


def _remove_pieces(model: GEmoClapModel, processor: GEmoClapProcessor, count: int) -> tuple[int, int]:
    """Keep `count` word pieces of a model and its processor; their numbers before and after."""
    pieces = choose_pieces(processor.tokenizer, needed_texts(model.config), count)
    processor.tokenizer = cut_tokenizer(processor.tokenizer, pieces)
    cut_embedding(model, pieces)
    return pieces.before, len(pieces.ids)


def _save(model: GEmoClapPreTrainedModel, processor, folder: Path, half_precision: bool) -> None:
    """Save a checkpoint. Its configurations name float32, in which transformers then loads it from any precision."""
    for config in (model.config, model.config.audio_config, model.config.text_config):
        config.dtype = torch.float32
    state = model.state_dict()
    if half_precision:
        state = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
    model.save_pretrained(folder, state_dict=state)
    processor.save_pretrained(folder)


def _check_copy(folder: Path, model: GEmoClapPreTrainedModel, embeddings: torch.Tensor | None) -> None:
    """Check that a copy loads with the weights of the model, and with the class embeddings before pieces were removed.

    Raises:
        ValueError: If it does not.
    """
    copy = load_complete_model(type(model), str(folder))
    if tensors_sha256(copy.state_dict().values()) != tensors_sha256(model.state_dict().values()):
        raise ValueError("the copy has other weights than were written, so it was deleted: check the disk")
    if embeddings is None:
        return
    if not torch.equal(_class_embeddings(copy, GEmoClapProcessor.from_pretrained(folder)), embeddings):
        raise ValueError(
            f"{OPTION}: the {model.config.text_config.model_type!r} text encoder has other embeddings of the prompts "
            f"with new ids of word pieces, so no copy was written: leave the option out"
        )


def _describe(source: Path, folder: Path, name: str, changes: Changes) -> None:
    """Write the card of a copy, and copy the licences of the original."""
    save_facts(folder, changes.added_to(load_facts(source), source.resolve().name))
    save_card(read_checkpoint(folder, name), [])
    for path in (path for pattern in LICENCE_FILES for path in source.glob(pattern) if path.is_file()):
        shutil.copyfile(path, folder / path.name)


def _weights(folder: Path) -> list[Path]:
    return [*weight_files(folder), *folder.glob("pytorch_model*.bin")]


def _sizes(source: Path, output: Path) -> str:
    before, after = (sum(path.stat().st_size for path in _weights(folder)) for folder in (source, output))
    total = sum(path.stat().st_size for path in output.iterdir() if path.is_file())
    return f"{output}: {total / 1e6:.1f} MB, weights {after / 1e6:.1f} MB instead of {before / 1e6:.1f} MB"
