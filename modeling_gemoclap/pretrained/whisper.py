"""Convert a Whisper model of CTranslate2 to the form of transformers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from transformers import (
    GenerationConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperTokenizerFast,
)
from transformers.models.whisper.modeling_whisper import sinusoids

from ..command_line.files import listed
from ..corpora.files import read_object
from .ctranslate2 import ModelFile, read_model_file

SPECIFICATION, REVISION = "WhisperSpec", 3
# Modules of transformers by those of CTranslate2. Several modules are stacked in this order in one array.
WHOLE = {
    "encoder/conv1": ("model.encoder.conv1",),
    "encoder/conv2": ("model.encoder.conv2",),
    "encoder/layer_norm": ("model.encoder.layer_norm",),
    "decoder/layer_norm": ("model.decoder.layer_norm",),
}
LAYER = {
    "self_attention/linear_0": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "self_attention/linear_1": ("self_attn.out_proj",),
    "self_attention/layer_norm": ("self_attn_layer_norm",),
    "ffn/linear_0": ("fc1",),
    "ffn/linear_1": ("fc2",),
    "ffn/layer_norm": ("final_layer_norm",),
}
DECODER_LAYER = LAYER | {
    "attention/linear_0": ("encoder_attn.q_proj",),
    "attention/linear_1": ("encoder_attn.k_proj", "encoder_attn.v_proj"),
    "attention/linear_2": ("encoder_attn.out_proj",),
    "attention/layer_norm": ("encoder_attn_layer_norm",),
}
EMBEDDINGS = {
    "encoder/position_encodings/encodings": "model.encoder.embed_positions.weight",
    "decoder/position_encodings/encodings": "model.decoder.embed_positions.weight",
    "decoder/embeddings/weight": "model.decoder.embed_tokens.weight",
}
# Settings of Whisper as CTranslate2 stores them; 3 is the exact GELU.
SETTINGS = {
    "decoder/activation": 3,
    "decoder/alibi": 0,
    "decoder/pre_norm": 1,
    "decoder/scale_embeddings": 0,
    "decoder/start_from_zero_embedding": 0,
}
HEADS = ("encoder/num_heads", "decoder/num_heads")
UNUSED = ("decoder/alignment_heads", "decoder/alignment_layer")  # config.json has the heads for alignment
ALIASES = {"decoder/projection/weight": "decoder/embeddings/weight"}
HALF_PRECISION = 1e-3  # of position embeddings between -1 and 1, which are stored in half precision


def convert(data: bytes, config_file: Path, tokenizer_file: Path, folder: Path) -> None:
    """Write a Whisper model with its tokenizer and feature extractor, as `save_pretrained` does.

    Args:
        data: The bytes of `model.bin`, the model file of CTranslate2.
        config_file: Its `config.json`: suppressed tokens, ids of languages, heads for alignment.
        tokenizer_file: Its `tokenizer.json`.
        folder: Folder to write to.

    Raises:
        ValueError: If the files are not those of a Whisper model in half or single precision.
    """
    settings = read_object(
        config_file, suppress_ids=list, suppress_ids_begin=list, lang_ids=list, alignment_heads=list
    )
    added = read_object(tokenizer_file, added_tokens=list)["added_tokens"]
    model = convert_model(read_model_file(data), settings, {token["content"]: token["id"] for token in added})
    model.half().save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=model.config.num_mel_bins).save_pretrained(folder)
    WhisperTokenizerFast(tokenizer_file=str(tokenizer_file), model_max_length=1024).save_pretrained(folder)


def convert_model(file: ModelFile, settings: Mapping, tokens: Mapping[str, int]) -> WhisperForConditionalGeneration:
    """Build the model of transformers, in single precision.

    Args:
        file: The model file of CTranslate2.
        settings: The content of its `config.json`.
        tokens: Ids of the special tokens.

    Raises:
        ValueError: If variables are missing, surplus, quantized, of other shapes, or not those of Whisper.
    """
    _check(file)
    config, state = _configuration(file.variables, tokens), _state(file.variables)
    state["proj_out.weight"] = state["model.decoder.embed_tokens.weight"]
    model = WhisperForConditionalGeneration(config)
    try:
        model.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise ValueError(f"model.bin: the shapes of its variables are not those of one model ({error})") from None
    check_positions(model.model.encoder.embed_positions.weight)
    model.generation_config = _generation(config, settings, tokens)
    return model.eval()


def check_positions(positions: torch.Tensor) -> None:
    """Check the position embeddings of an encoder, which Whisper does not learn.

    Args:
        positions: `(max_source_positions, hidden_size)`.

    Raises:
        ValueError: If they are not Whisper's sinusoids within half precision.
    """
    difference = (positions.detach().float() - sinusoids(*positions.shape)).abs().max().item()
    if not difference < HALF_PRECISION:
        raise ValueError(
            f"model.bin: the position embeddings of the encoder differ from sinusoids by {difference:.2g}"
        )


def _modules(layers: Mapping[str, int]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Names of all modules of CTranslate2, and of the modules of transformers that are stacked in each."""
    yield from WHOLE.items()
    for side, parts in (("encoder", LAYER), ("decoder", DECODER_LAYER)):
        for layer in range(layers[side]):
            for source, targets in parts.items():
                prefix = f"model.{side}.layers.{layer}"
                yield f"{side}/layer_{layer}/{source}", tuple(f"{prefix}.{target}" for target in targets)


def _layers(variables: Mapping) -> dict[str, int]:
    """The number of layers of the encoder and of the decoder."""
    layers = {"encoder": 0, "decoder": 0}
    for side, layer in re.findall(r"^(encoder|decoder)/layer_(\d+)/", "\n".join(variables), re.M):
        layers[side] = max(layers[side], int(layer) + 1)
    return layers


def _parameters(variables: Mapping) -> dict[str, tuple[str, ...]]:
    """Names of all parameters of CTranslate2, and of the parameters of transformers that are stacked in each."""
    names = {source: (target,) for source, target in EMBEDDINGS.items()}
    for source, targets in _modules(_layers(variables)):
        kinds = ("gamma", "beta") if source.endswith("layer_norm") else ("weight", "bias")
        for kind, ending in zip(kinds, ("weight", "bias"), strict=True):
            names[f"{source}/{kind}"] = tuple(f"{target}.{ending}" for target in targets)
    return names


def _check(file: ModelFile) -> None:
    """Check that a file is a Whisper model with exactly the known variables.

    Raises:
        ValueError: If it is not. The message names the variables.
    """
    if (file.specification, file.revision) != (SPECIFICATION, REVISION):
        raise ValueError(
            f"model.bin: {file.specification} of revision {file.revision}; only {SPECIFICATION} of revision "
            f"{REVISION} can be converted"
        )
    parameters = _parameters(file.variables)
    expected = {*parameters, *SETTINGS, *HEADS}
    for problem, names in {
        "lacks": expected - file.variables.keys(),
        "has unknown": file.variables.keys() - expected - {*UNUSED},
    }.items():
        if names:
            raise ValueError(f"model.bin: {problem} variables: {listed(sorted(names), 3)}")
    if file.aliases != ALIASES:
        raise ValueError(f"model.bin: its aliases are {file.aliases}, where {ALIASES} is expected")
    for name in parameters:
        if file.variables[name].dtype not in (np.float16, np.float32):
            raise ValueError(
                f"model.bin: {name} is {file.variables[name].dtype}; only models in float16 or float32 are converted"
            )
    for name, value in SETTINGS.items():
        if file.variables[name].tolist() != value:
            raise ValueError(f"model.bin: {name} is {file.variables[name].tolist()}, where Whisper has {value}")


def _state(variables: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """Parameters by their names in transformers.

    Raises:
        ValueError: If stacked parameters have no equal sizes, or if a key has a bias.
    """
    state = {}
    for source, targets in _parameters(variables).items():
        values = torch.from_numpy(variables[source].astype(np.float32))
        if values.shape[0] % len(targets):
            raise ValueError(f"model.bin: {source} has {values.shape[0]} rows, which {len(targets)} parameters share")
        for target, part in zip(targets, values.chunk(len(targets)), strict=True):
            if not target.endswith("k_proj.bias"):
                state[target] = part.clone()
            elif part.any():
                raise ValueError(f"model.bin: {source} has a bias of keys, which Whisper does not have")
    return state


def _configuration(variables: Mapping[str, np.ndarray], tokens: Mapping[str, int]) -> WhisperConfig:
    """The configuration that the shapes of the variables imply."""
    encoder_heads, decoder_heads = (int(variables[name]) for name in HEADS)
    hidden_size, mel_bins, _ = variables["encoder/conv1/weight"].shape
    layers = _layers(variables)
    end = _token(tokens, "<|endoftext|>")
    return WhisperConfig(
        vocab_size=len(variables["decoder/embeddings/weight"]),
        num_mel_bins=mel_bins,
        d_model=hidden_size,
        encoder_layers=layers["encoder"],
        decoder_layers=layers["decoder"],
        encoder_attention_heads=encoder_heads,
        decoder_attention_heads=decoder_heads,
        encoder_ffn_dim=len(variables["encoder/layer_0/ffn/linear_0/bias"]),
        decoder_ffn_dim=len(variables["decoder/layer_0/ffn/linear_0/bias"]),
        max_source_positions=len(variables["encoder/position_encodings/encodings"]),
        max_target_positions=len(variables["decoder/position_encodings/encodings"]),
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
        decoder_start_token_id=_token(tokens, "<|startoftranscript|>"),
        begin_suppress_tokens=None,  # of generation, like all that `_generation` sets
    )


def _generation(config: WhisperConfig, settings: Mapping, tokens: Mapping[str, int]) -> GenerationConfig:
    """The settings of generation: special tokens, languages and suppressed tokens."""
    languages = set(settings["lang_ids"])
    return GenerationConfig(
        max_length=config.max_target_positions,
        bos_token_id=config.bos_token_id,
        eos_token_id=config.eos_token_id,
        pad_token_id=config.pad_token_id,
        decoder_start_token_id=config.decoder_start_token_id,
        suppress_tokens=settings["suppress_ids"],
        begin_suppress_tokens=settings["suppress_ids_begin"],
        alignment_heads=settings["alignment_heads"],
        is_multilingual=len(languages) > 1,
        lang_to_id={token: number for token, number in tokens.items() if number in languages},
        task_to_id={task: _token(tokens, f"<|{task}|>") for task in ("transcribe", "translate")},
        no_timestamps_token_id=_token(tokens, "<|notimestamps|>"),
        prev_sot_token_id=_token(tokens, "<|startofprev|>"),
        return_timestamps=False,
        max_initial_timestamp_index=50,
    )


def _token(tokens: Mapping[str, int], name: str) -> int:
    """The id of a special token.

    Raises:
        ValueError: If there is none.
    """
    if name not in tokens:
        raise ValueError(f"tokenizer.json: has no token {name}, so it is not the tokenizer of Whisper")
    return tokens[name]
