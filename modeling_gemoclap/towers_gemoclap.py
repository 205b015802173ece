"""Building and loading of towers: the compact audio encoder, and encoders of transformers."""

from __future__ import annotations

import copy
import inspect
import numbers
import os
from pathlib import Path

import torch
from torch import nn
from transformers import AutoConfig, AutoModel
from transformers.configuration_utils import PretrainedConfig
from transformers.integrations import is_deepspeed_zero3_enabled
from transformers.modeling_utils import PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_MAPPING

from .attention_gemoclap import GEmoClapWavLMModel
from .audio_encoder_gemoclap import GEmoClapAudioModel
from .audio_headers_gemoclap import refuse_pointers
from .encoding_gemoclap import FIXED_LENGTH, PADDING_SAFE
from .safety_gemoclap import (
    check_config,
    check_weight_files,
    explain_unsafe_pickle,
    read_json,
    refuse_compiled_families,
    split_hub_options,
)
from .spectrograms_gemoclap import WINDOW_OPTION, window_positions

WEIGHTS = ("*.safetensors", "*.bin")  # files of weights, in one part or several
MAX_WEIGHTS_PER_BYTE = 2  # of 4 bits
MAX_BUFFERS = 256e6  # bytes of constants that files need not have, such as the mask of causal attention
MAX_LAYERS = 1000
# The names of the first modules of an audio tower; the first entry whose names all exist applies.
FEATURE_ENCODERS = (
    ("feature_extractor",),
    ("conv_blocks",),
    ("embeddings",),
    ("conv1", "conv2"),
    ("conv",),
    ("feature_projection",),
)


# ---- building and loading -------------------------------------------------------------------------------------------
def _model_class(config: PretrainedConfig, tower: str, name: str) -> type[PreTrainedModel]:
    """The model class of transformers, without a head, for the configuration of a tower.

    Args:
        config: The configuration.
        tower: `"audio"` or `"text"`.
        name: Name of the checkpoint or of the configuration in error messages.

    Raises:
        ValueError: If the configuration is not that of such an encoder.
    """
    refuse_compiled_families(config, name)  # before its source is imported
    if type(config) not in MODEL_MAPPING:
        raise ValueError(f"{name}: transformers has no model without a head of the type {config.model_type!r}")
    model_class = MODEL_MAPPING[type(config)]
    model_class = model_class[0] if isinstance(model_class, (tuple, list)) else model_class
    is_audio = model_class.main_input_name in ("input_values", "input_features") and hasattr(config, "hidden_size")
    if tower == "audio" and not is_audio:
        raise ValueError(
            f"{name} is a {config.model_type!r} model, not an audio encoder: give a WavLM, HuBERT, wav2vec 2.0, "
            f"Data2VecAudio, Whisper, Wav2Vec2-BERT, AST, UniSpeech-SAT or SEW checkpoint, or a similar one"
        )
    if tower == "text" and (model_class.main_input_name != "input_ids" or config.is_encoder_decoder):
        raise ValueError(
            f"{name} is a {config.model_type!r} model, not a text encoder: give a RoBERTa, BERT, MPNet, MiniLM or "
            f"XLM-RoBERTa checkpoint, or a similar one"
        )
    return GEmoClapWavLMModel if config.model_type == "wavlm" else model_class


def _without_pooler(model_class: type) -> dict:
    """Options that omit the pooler of a text encoder, which is not used."""
    return {"add_pooling_layer": False} if "add_pooling_layer" in inspect.signature(model_class).parameters else {}


def build_audio_tower(config: PretrainedConfig) -> PreTrainedModel:
    """Build an audio tower with new weights; the encoder of an encoder-decoder model.

    The compact encoder is built directly, because `AutoModel` does not support code from a local folder.

    Raises:
        ValueError: If the configuration is not that of an audio encoder.
    """
    if config.model_type == "gemoclap_audio":
        return GEmoClapAudioModel(config)
    model_class = _model_class(config, "audio", "audio_config")
    if config.is_encoder_decoder:
        with torch.device("meta"):  # to find the class of the encoder without allocating the decoder
            model_class = type(model_class(config).get_encoder())
    return model_class._from_config(config)


def build_text_tower(config: PretrainedConfig) -> PreTrainedModel:
    """Build a text tower with new weights.

    Raises:
        ValueError: If the configuration is not that of a text encoder.
    """
    return AutoModel.from_config(config, **_without_pooler(_model_class(config, "text", "text_config")))


def load_audio_tower(
    name: str, layers: int | None = None, window_seconds: float | None = None, **options
) -> PreTrainedModel:
    """Load a pretrained audio encoder in float32.

    Args:
        name: Name or path of the checkpoint.
        layers: Number of its first Transformer layers that are kept; None: all.
        window_seconds: Length of Whisper's window in seconds; None: that of the checkpoint.
        **options: Arguments of its `from_pretrained`.

    Raises:
        ValueError: If it is not an audio encoder, if weights are missing, if weights do not match the configuration,
            or as for `keep_layers` and `shorten_window`.
    """
    tower = _load_complete_audio_tower(name, **options)
    if window_seconds is not None:
        shorten_window(tower, window_seconds)
    return tower if layers is None else keep_layers(tower, layers, "audio_layers")


def _load_complete_audio_tower(name: str, **options) -> PreTrainedModel:
    hub, options = split_hub_options(options)
    if PretrainedConfig.get_config_dict(name, **hub)[0].get("model_type") == "gemoclap_audio":
        return load_complete_model(GEmoClapAudioModel, name, **hub, **options)
    config, options = AutoConfig.from_pretrained(name, return_unused_kwargs=True, **hub, **options)
    model = load_complete_model(_model_class(config, "audio", name), name, config=config, **hub, **options)
    tower = model.get_encoder() if config.is_encoder_decoder else model
    if config.model_type not in (*PADDING_SAFE, *FIXED_LENGTH):
        _check_audio_encoder(tower, name)
    return tower


def load_text_tower(name: str, pooling: str = "first", layers: int | None = None, **options) -> PreTrainedModel:
    """Load a pretrained text encoder without its pooler, in float32.

    Args:
        name: Name or path of the checkpoint.
        pooling: `text_pooling` of the configuration.
        layers: Number of its first Transformer layers that are kept; None: all.
        **options: Arguments of its `from_pretrained`.

    Raises:
        ValueError: If it is not a text encoder, if weights are missing, if weights do not match the configuration, if
            `pooling` is `"first"` and the attention is causal, or as for `keep_layers`.
    """
    hub, options = split_hub_options(options)
    config, options = AutoConfig.from_pretrained(name, return_unused_kwargs=True, **hub, **options)
    model_class = _model_class(config, "text", name)
    tower = load_complete_model(model_class, name, config=config, **_without_pooler(model_class), **hub, **options)
    tower = tower if layers is None else keep_layers(tower, layers, "text_layers")
    if pooling == "first":
        with torch.no_grad():
            first = tower.eval()(input_ids=torch.tensor([[5, 6, 7], [5, 8, 9]])).last_hidden_state[:, 0]
        if torch.equal(first[0], first[1]):
            raise ValueError(f"{name}: its first token does not attend to the others: give text_pooling='mean'")
    return tower


def _check_audio_encoder(tower: PreTrainedModel, name: str) -> None:
    """Check an encoder that was not measured on one second of noise; audio codecs have the same input names.

    Raises:
        ValueError: If it does not map a waveform and a mask to frames.
    """
    try:
        takes_mask = "attention_mask" in inspect.signature(tower.forward).parameters
        if tower.main_input_name == "input_values":
            with torch.no_grad():
                takes_mask = takes_mask and tower.eval()(torch.randn(1, 16000)).last_hidden_state.dim() == 3
    except Exception:
        takes_mask = False
    if not takes_mask:
        raise ValueError(
            f"{name} is a {tower.config.model_type!r} model, not an audio encoder: it does not map audio to frames"
        )


def load_complete_model(model_class: type[PreTrainedModel], name: str, **options) -> PreTrainedModel:
    """Call `from_pretrained` in float32, and raise an error where transformers only warns.

    Args:
        model_class: Class of the model.
        name: Name or path of the checkpoint.
        **options: Arguments of `from_pretrained`.

    Returns:
        The model, with all weights from the checkpoint.

    Raises:
        ValueError: If weights are missing, cannot be read, are pointers of git-lfs, or do not match the configuration;
            if the configuration names code, if the checkpoint is an adapter, or if its index names files elsewhere.
        OSError: If the checkpoint does not exist.
    """
    refuse_pointers(os.path.join(name, options.get("subfolder") or ""))
    check_config(read_json(name, "config.json", split_hub_options(options)[0]), f"{name}: config.json")
    check_weight_files(name, options)
    _refuse_larger_model(model_class, name, options)
    try:  # float32, because some checkpoints are stored in half precision
        with explain_unsafe_pickle(name):
            model, report = model_class.from_pretrained(name, output_loading_info=True, dtype=torch.float32, **options)
    except Exception as error:
        if "size mismatch" in str(error) or "mismatched" in str(error):
            shapes = [line.strip() for line in str(error).splitlines() if "shape" in line or "torch.Size" in line]
            raise ValueError(
                f"{name}: the shapes of the weights do not match config.json, so one of the two belongs to another "
                f"model: {(' '.join(shapes[:2]) or str(error)):.500}"
            ) from None
        # The messages of transformers are clear; those of the file readers do not even name the file.
        if isinstance(error, (ImportError, ValueError)) or (isinstance(error, OSError) and error.errno is None):
            raise
        raise ValueError(
            f"{name}: its weights cannot be read; the file may be truncated: download it again "
            f"({type(error).__name__}: {str(error).strip().partition(chr(10))[0]:.300})"
        ) from None
    # Checkpoints that were fine-tuned without SpecAugment lack its embedding, which training learns quickly.
    missing = sorted(key for key in report["missing_keys"] if not key.endswith("masked_spec_embed"))
    if missing:
        raise ValueError(
            f"{name} lacks {len(missing)} of the weights of its {type(model).__name__}, the first of which is "
            f"{missing[0]}: the file is truncated or holds another model; download it again"
        )
    return model


def _refuse_larger_model(model_class: type[PreTrainedModel], name: str, options: dict) -> None:
    """Check the size of the model in `config.json` before memory is allocated for it.

    transformers compares the shapes afterwards, so a damaged number could take all memory. A checkpoint on the Hub is
    not checked, nor is a model that cannot be built without values, whose error is that of the loading.

    Raises:
        ValueError: If the model has more weights than its files can hold, or more layers than any model.
    """
    files = [path for pattern in WEIGHTS for path in Path(name, options.get("subfolder") or "").glob(pattern)]
    if not files or is_deepspeed_zero3_enabled():  # which divides weights among processes as they are created
        return
    stored = sum(path.stat().st_size for path in files)
    try:
        config = copy.deepcopy(options.get("config"))
        config = config or model_class.config_class.from_pretrained(name, **split_hub_options(options)[0])
        size = _size_of(model_class, config, stored)
    except Exception as error:
        size = "more values than can be counted" if "overflow" in str(error).lower() else None
    if size:
        raise ValueError(
            f"{name}: the shapes of the weights do not match config.json, which describes a model of {size}, while "
            f"the files have {stored / 1e6:.1f} MB: one of the two belongs to another model"
        )


def _size_of(model_class: type[PreTrainedModel], config: PretrainedConfig, stored: int) -> str | None:
    """What is larger in a model than files of `stored` bytes can hold; None if nothing is."""
    values = [config.to_dict()]
    for value in values:  # with those nested in it, which are appended
        values += [each for each in value.values() if isinstance(each, dict)]
    layers = [n for each in values for key, n in each.items() if "layer" in str(key) and isinstance(n, int)]
    if max(layers, default=0) > MAX_LAYERS:
        return f"{max(layers)} layers"
    with torch.device("meta"):
        model = model_class(config)
    weights = sum(parameter.numel() for parameter in model.parameters())
    if weights > MAX_WEIGHTS_PER_BYTE * stored + 1e6:
        return f"{weights / 1e6:.0f} million weights"
    buffers = sum(buffer.numel() * buffer.element_size() for buffer in model.buffers())
    return f"{buffers / 1e6:.0f} MB of constants" if buffers > stored + MAX_BUFFERS else None


# ---- parts of a tower -----------------------------------------------------------------------------------------------


def transformer_layers(tower: PreTrainedModel) -> tuple[str, nn.ModuleList]:
    """The name and the list of the Transformer layers of a tower, from the first to the last.

    Raises:
        ValueError: If they cannot be identified.
    """
    for name, module in tower.named_modules():
        is_stack = isinstance(module, nn.ModuleList) and name.rpartition(".")[2] in ("layer", "layers")
        if is_stack and "conv" not in name and len(module) == tower.config.num_hidden_layers:
            return name, module
    raise ValueError(f"the Transformer layers of a {tower.config.model_type!r} model cannot be identified")


def keep_layers(tower: PreTrainedModel, count: int, option: str = "audio_layers", fewest: int = 1) -> PreTrainedModel:
    """Keep the first Transformer layers of a tower and remove the others; a final norm is kept.

    Args:
        tower: The tower, which is changed in place, with its configuration.
        count: Number of layers that are kept.
        option: Name of the option in error messages.
        fewest: The smallest number of layers.

    Returns:
        The tower.

    Raises:
        ValueError: If the tower has fewer layers, `count` is not a whole number of at least `fewest`, or the layers
            cannot be identified.
    """
    _, layers = transformer_layers(tower)
    is_count = isinstance(count, numbers.Integral) and not isinstance(count, bool)
    if not (is_count and fewest <= count <= len(layers)):
        raise ValueError(
            f"{option}={count!r}: the {tower.config.model_type!r} encoder has {len(layers)} Transformer layers; give "
            f"a whole number from {fewest} to {len(layers)}"
        )
    del layers[count:]
    for name in ("num_hidden_layers", "encoder_layers"):  # two fields in some configurations of transformers 4
        if hasattr(tower.config, name):
            setattr(tower.config, name, count)
    if isinstance(getattr(tower.config, "layer_types", None), (list, tuple)):
        tower.config.layer_types = list(tower.config.layer_types[:count])
    return tower


def shorten_window(tower: PreTrainedModel, seconds: float) -> PreTrainedModel:
    """Shorten the window of Whisper's encoder.

    Its positions are fixed sinusoids that do not depend on the length, so the encoder with a shorter window has the
    first of them.

    Args:
        tower: The tower, which is changed in place, with its configuration.
        seconds: Length of the window, a multiple of 0.02 s.

    Returns:
        The tower.

    Raises:
        ValueError: If the encoder is not Whisper's, or if the window is longer than the present one or not a multiple
            of 0.02 s.
    """
    config = tower.config
    if config.model_type != "whisper":
        reason = "hears clips of any length: only Whisper, which always hears 30 s, has a window"
        if config.model_type in FIXED_LENGTH:
            reason = "has learnt positions for a grid of patches in time and frequency, which cannot be shortened"
        raise ValueError(f"{WINDOW_OPTION}={seconds!r}: a {config.model_type!r} encoder {reason}; leave it out")
    positions = window_positions(seconds, config.max_source_positions)
    tower.embed_positions.weight = nn.Parameter(
        tower.embed_positions.weight[:positions].detach().clone(), tower.embed_positions.weight.requires_grad
    )
    tower.embed_positions.num_embeddings = positions
    tower.max_source_positions = config.max_source_positions = positions
    return tower


def layer_classes(model: nn.Module) -> list[str]:
    """Class names of the Transformer layers of a model's towers, without towers whose layers cannot be identified."""
    names = set()
    for tower in model.children():
        if isinstance(tower, PreTrainedModel):
            try:
                names.update(type(layer).__name__ for layer in transformer_layers(tower)[1])
            except ValueError:
                continue
    return sorted(names)


def feature_encoder(tower: PreTrainedModel) -> list[nn.Module]:
    """The first modules of an audio tower, which process its input: convolutions or patch embeddings.

    Raises:
        ValueError: If they cannot be identified.
    """
    for names in FEATURE_ENCODERS:
        if all(hasattr(tower, name) for name in names):
            return [getattr(tower, name) for name in names]
    raise ValueError(f"the feature encoder of a {tower.config.model_type!r} model cannot be identified")
