"""Building the model and the processor of GEmo-CLAP from options."""

from __future__ import annotations

import tempfile

from tokenizers import ByteLevelBPETokenizer
from transformers import RobertaConfig, RobertaTokenizerFast

from ...command_line.files import json_object
from ...configuration_gemoclap import GEmoClapConfig
from ...corpora.checkpoint_files import check_checkpoint_files
from ...feature_extraction_gemoclap import GEmoClapFeatureExtractor
from ...modeling_gemoclap import GEmoClapModel
from ...processing_gemoclap import GEmoClapProcessor
from ...prompts_gemoclap import words_in
from ...towers_gemoclap import load_audio_tower, load_text_tower
from ...training.arguments import ModelArguments
from ...training.history import settle_history
from ..audio_encoder import (
    SHARED_CONFIG_FIELDS,
    check_pretrained_audio,
    compact_config,
    compact_extractor,
    parse_json_fields,
    shortened_audio,
    with_prefix,
)
from ..initial_checkpoint import copy_pooling_and_history, load_initial_checkpoint
from ..tower_fields import check_config_fields, check_pretrained_fields
from .distillation import taught_prompts
from .options import GEmoClapOptions

# Fields of GEmoClapConfig that are options of this objective.
OBJECTIVE_CONFIG_FIELDS = (
    *("objective", "alpha", "similarity", "targets", "sl_texts", "text_pooling", "projection_dim"),
    *("projection_dropout", "logit_scale_init_value", "logit_scale_trainable"),
    *("emotion_templates", "gender_templates", "joint_templates"),
)
VOCABULARY_SIZE = 600  # 256 bytes, and merges for the words of the prompts
TAUGHT_VOCABULARY_SIZE = 1000  # for the words that a teacher teaches
SMALL_TEXT_ENCODER = {
    "hidden_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 256,
    "max_position_embeddings": 66,
    "hidden_dropout_prob": 0.0,  # there are few prompts: dropout would only add noise to the targets of the audio
    "attention_probs_dropout_prob": 0.0,
    "initializer_range": 0.2,  # with the usual 0.02 similar prompts start almost equal, and their embeddings collapse
}


def build_tokenizer(config: GEmoClapConfig, taught: bool = False) -> RobertaTokenizerFast:
    """Train a byte-level tokenizer on the configuration's prompts. It can encode any text.

    Args:
        config: The configuration.
        taught: Whether the prompts are those of `taught_prompts`.
    """
    tokenizer = ByteLevelBPETokenizer()
    special_tokens = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer.train_from_iterator(
        taught_prompts(config) if taught else config.training_prompts(),
        vocab_size=TAUGHT_VOCABULARY_SIZE if taught else VOCABULARY_SIZE,
        min_frequency=1,
        special_tokens=special_tokens,
        show_progress=False,
    )
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_model(folder)
        return RobertaTokenizerFast.from_pretrained(folder, model_max_length=64)


def build_model_and_processor(
    arguments: ModelArguments, options: GEmoClapOptions, emotions: list[str]
) -> tuple[GEmoClapModel, GEmoClapProcessor]:
    """Load pretrained towers, or build towers from scratch.

    From scratch, the audio tower is the compact encoder and the text tower a small RoBERTa with a new tokenizer. The
    text tower may be from scratch beside a pretrained audio tower.

    Args:
        arguments: Options of the audio encoder.
        options: Options of the text encoder and the objective.
        emotions: Emotion classes.

    Returns:
        The model in training mode, and its processor.

    Raises:
        ValueError: If only the text encoder is pretrained, or if options contradict each other.
    """
    values = _config_values(arguments, options, emotions)
    if options.text_model and options.prompt_steps:
        raise ValueError("--prompt_steps trains a text encoder from scratch: give --prompt_steps 0 with --text_model")
    if arguments.init_from:
        return _from_checkpoint(arguments, options, values)
    if arguments.audio_model and options.text_model:
        return _from_pretrained(arguments, options, values)
    if arguments.audio_model:
        return _with_new_text_encoder(arguments, options, values)
    if options.text_model:
        raise ValueError("--text_model needs a pretrained audio encoder: give --audio_model too, or leave it out")
    audio, features = parse_json_fields(arguments, "audio_config", "feature_config")
    config = GEmoClapConfig(audio_config=compact_config(audio), **values)
    tokenizer = _add_small_text_encoder(config, options)
    extractor = compact_extractor(config, features)
    return settle_history(GEmoClapModel(config)).train(), GEmoClapProcessor(extractor, tokenizer)


def _config_values(arguments: ModelArguments, options: GEmoClapOptions, emotions: list[str]) -> dict:
    values = {name: getattr(arguments, name) for name in SHARED_CONFIG_FIELDS}
    values |= {name: getattr(options, name) for name in OBJECTIVE_CONFIG_FIELDS}
    synonyms = json_object(options.emotion_synonyms, "--emotion_synonyms")
    return values | {"emotions": emotions, "emotion_synonyms": synonyms}


def _from_checkpoint(arguments: ModelArguments, options: GEmoClapOptions, values: dict):
    """Build with the audio encoder of `init_from`, and a text encoder that is pretrained or from scratch."""
    start, extractor = load_initial_checkpoint(arguments)
    [text] = parse_json_fields(options, "text_config")
    name, tower = options.text_model, None
    if name:
        check_checkpoint_files(name)
        check_pretrained_fields("text_config", text, name)
        tower = load_text_tower(name, options.text_pooling, options.text_layers, **text)
    config = GEmoClapConfig(start.config.audio_config, tower and tower.config, **values)
    tokenizer = GEmoClapProcessor.load_tokenizer(name) if tower else _add_small_text_encoder(config, options)
    model = copy_pooling_and_history(GEmoClapModel(config, start.audio_model, tower), start, arguments.init_from)
    return model.train(), GEmoClapProcessor(extractor, tokenizer)


def _from_pretrained(arguments: ModelArguments, options: GEmoClapOptions, values: dict):
    """Build with two pretrained encoders."""
    audio, features = parse_json_fields(arguments, "audio_config", "feature_config")
    [text] = parse_json_fields(options, "text_config")
    check_checkpoint_files(options.text_model)
    check_pretrained_audio(arguments, audio, features)
    check_pretrained_fields("text_config", text, options.text_model)
    names = arguments.audio_model, options.text_model
    fields = {**with_prefix("audio", audio), **with_prefix("text", text), **shortened_audio(arguments)}
    model = GEmoClapModel.from_audio_text_pretrained(*names, text_layers=options.text_layers, **fields, **values)
    window = arguments.audio_window_seconds
    processor = GEmoClapProcessor.from_audio_text_pretrained(*names, audio_window_seconds=window, **features)
    return settle_history(model).train(), processor


def _with_new_text_encoder(arguments: ModelArguments, options: GEmoClapOptions, values: dict):
    """Build with a pretrained audio encoder and a text encoder from scratch."""
    audio, features = parse_json_fields(arguments, "audio_config", "feature_config")
    check_pretrained_audio(arguments, audio, features)
    name, window = arguments.audio_model, arguments.audio_window_seconds
    tower = load_audio_tower(name, arguments.audio_layers, window, **audio)
    config = GEmoClapConfig(audio_config=tower.config, **values)
    tokenizer = _add_small_text_encoder(config, options)
    model = settle_history(GEmoClapModel(config, tower).started_from(name)).train()
    extractor = GEmoClapFeatureExtractor.from_audio_pretrained(name, window, **features)
    return model, GEmoClapProcessor(extractor, tokenizer)


def _sampled_prompts(config: GEmoClapConfig) -> list[str]:
    """Return the training prompts that this objective uses."""
    emotions = [prompt for emotion in config.emotions for prompt in config.emotion_prompts(emotion, synonyms=True)]
    if config.objective == "ml":
        return emotions + [prompt for gender in config.genders for prompt in config.gender_prompts(gender)]
    return config.training_prompts() if config.uses_joint_texts else emotions


def _add_small_text_encoder(config: GEmoClapConfig, options: GEmoClapOptions) -> RobertaTokenizerFast:
    """Set the text configuration of a small encoder in `config`, and return its tokenizer."""
    [fields], taught = parse_json_fields(options, "text_config"), options.distil_from is not None
    tokenizer = build_tokenizer(config, taught)
    defaults = {**SMALL_TEXT_ENCODER, "vocab_size": len(tokenizer)}
    check_config_fields("text_config", fields, RobertaConfig(**defaults))
    prompts = taught_prompts(config) if taught else config.training_prompts()
    config.known_words = words_in(prompts if taught else _sampled_prompts(config))
    config.text_config = RobertaConfig(**{**defaults, **fields})
    _check_text_encoder_size(config, tokenizer, prompts)
    return tokenizer


def _check_text_encoder_size(config: GEmoClapConfig, tokenizer: RobertaTokenizerFast, prompts: list[str]) -> None:
    """Check that the text tower has an embedding for every token and every position of the prompts."""
    text = config.text_config
    if text.vocab_size < len(tokenizer):
        raise ValueError(
            f"--text_config vocab_size {text.vocab_size}: the tokenizer of the prompts has {len(tokenizer)} tokens; "
            f"leave vocab_size out"
        )
    before_first = text.pad_token_id + 1  # RoBERTa counts positions from here
    longest = max(map(len, tokenizer(prompts)["input_ids"]))
    if text.max_position_embeddings < longest + before_first:
        raise ValueError(
            f"--text_config max_position_embeddings {text.max_position_embeddings}: the longest prompt has {longest} "
            f"tokens; give {longest + before_first} or more"
        )
    tokenizer.model_max_length = min(tokenizer.model_max_length, text.max_position_embeddings - before_first)
