"""The model and the processor of GEmo-CLAP from options."""

from __future__ import annotations

import tempfile

from tokenizers import ByteLevelBPETokenizer
from transformers import RobertaConfig, RobertaTokenizerFast

from ...command_line.files import json_object
from ...configuration_gemoclap import GEmoClapConfig
from ...corpora.checkpoint_files import check_checkpoint_files
from ...modeling_gemoclap import GEmoClapModel
from ...processing_gemoclap import GEmoClapProcessor
from ...prompts_gemoclap import words_in
from ...towers_gemoclap import load_text_tower
from ...training.arguments import ModelArguments
from ...training.history import settle_history
from ..audio_encoder import check_pretrained_audio, compact_config, compact_extractor, fields_of, prefixed
from ..start import load_start, take_over
from ..tower_fields import check_config_fields, check_pretrained_fields
from .options import GEmoClapOptions

SHARED_FIELDS = ("pooling", "use_weighted_layer_sum")
FIELDS = (
    *("objective", "alpha", "similarity", "targets", "sl_texts", "text_pooling", "projection_dim"),
    *("projection_dropout", "logit_scale_init_value", "logit_scale_trainable"),
    *("emotion_templates", "gender_templates", "joint_templates"),
)
VOCABULARY = 600  # 256 bytes and what merges of the prompts' words give
SMALL_TEXT_ENCODER = {
    "hidden_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 256,
    "max_position_embeddings": 66,
    "hidden_dropout_prob": 0.0,  # there is a handful of prompts: noise on them only moves what the audio aims at
    "attention_probs_dropout_prob": 0.0,
    "initializer_range": 0.2,  # prompts that begin alike must differ from the start, or all collapse into one point
}


def build_tokenizer(config: GEmoClapConfig) -> RobertaTokenizerFast:
    """A byte-level tokenizer learnt from the configuration's prompts; it can write any other text too."""
    tokenizer = ByteLevelBPETokenizer()
    special_tokens = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer.train_from_iterator(
        config.training_prompts(),
        vocab_size=VOCABULARY,
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
    """Load or make both towers.

    A tower that is not named is made from scratch: the compact audio encoder, a small RoBERTa with its own tokenizer.

    Args:
        arguments: The audio encoder.
        options: The text encoder and the objective.
        emotions: Emotion classes.

    Returns:
        The model in training mode, and its processor.

    Raises:
        ValueError: If only one of two pretrained encoders is named, or options contradict each other.
    """
    values = _config_values(arguments, options, emotions)
    if options.text_model and options.prompt_steps:
        raise ValueError("--prompt_steps trains a text encoder from scratch: with --text_model give 0")
    if arguments.init_from:
        return _from_checkpoint(arguments, options, values)
    if arguments.audio_model and options.text_model:
        return _from_pretrained(arguments, options, values)
    if arguments.audio_model or options.text_model:
        raise ValueError("give both --audio_model and --text_model, or neither")
    audio, features = fields_of(arguments, "audio_config", "feature_config")
    config = GEmoClapConfig(audio_config=compact_config(audio), **values)
    tokenizer = _small_text_tower(config, *fields_of(options, "text_config"))
    extractor = compact_extractor(config, features)
    return settle_history(GEmoClapModel(config)).train(), GEmoClapProcessor(extractor, tokenizer)


def _config_values(arguments: ModelArguments, options: GEmoClapOptions, emotions: list[str]) -> dict:
    values = {name: getattr(arguments, name) for name in SHARED_FIELDS}
    values |= {name: getattr(options, name) for name in FIELDS}
    synonyms = json_object(options.emotion_synonyms, "--emotion_synonyms")
    return values | {"emotions": emotions, "emotion_synonyms": synonyms}


def _from_checkpoint(arguments: ModelArguments, options: GEmoClapOptions, values: dict):
    """The audio encoder of `init_from`, with a pretrained text encoder or one from scratch."""
    start, extractor = load_start(arguments)
    [text] = fields_of(options, "text_config")
    name, tower = options.text_model, None
    if name:
        check_checkpoint_files(name)
        check_pretrained_fields("text_config", text, name)
        tower = load_text_tower(name, options.text_pooling, **text)
    config = GEmoClapConfig(start.config.audio_config, tower and tower.config, **values)
    tokenizer = GEmoClapProcessor.load_tokenizer(name) if tower else _small_text_tower(config, text)
    model = take_over(GEmoClapModel(config, start.audio_model, tower), start, arguments.init_from)
    return model.train(), GEmoClapProcessor(extractor, tokenizer)


def _from_pretrained(arguments: ModelArguments, options: GEmoClapOptions, values: dict):
    """Two pretrained encoders."""
    audio, features = fields_of(arguments, "audio_config", "feature_config")
    [text] = fields_of(options, "text_config")
    check_checkpoint_files(options.text_model)
    check_pretrained_audio(arguments, audio, features)
    check_pretrained_fields("text_config", text, options.text_model)
    names = arguments.audio_model, options.text_model
    fields = {**prefixed("audio", audio), **prefixed("text", text)}
    model = GEmoClapModel.from_audio_text_pretrained(*names, **fields, **values)
    processor = GEmoClapProcessor.from_audio_text_pretrained(*names, **features)
    return settle_history(model).train(), processor


def _prompts_drawn(config: GEmoClapConfig) -> list[str]:
    """The training prompts that the text encoder sees under this objective."""
    emotions = [p for emotion in config.emotions for p in config.emotion_prompts(emotion, synonyms=True)]
    if config.objective == "ml":
        return emotions + [prompt for gender in config.genders for prompt in config.gender_prompts(gender)]
    return config.training_prompts() if config.uses_joint_texts else emotions


def _small_text_tower(config: GEmoClapConfig, fields: dict) -> RobertaTokenizerFast:
    """Put a text tower that is to be made from scratch into `config`; its tokenizer."""
    tokenizer = build_tokenizer(config)
    made = {**SMALL_TEXT_ENCODER, "vocab_size": len(tokenizer)}
    check_config_fields("text_config", fields, RobertaConfig(**made))
    config.known_words = words_in(_prompts_drawn(config))
    config.text_config = RobertaConfig(**{**made, **fields})
    _fit_text_tower(config, tokenizer)
    return tokenizer


def _fit_text_tower(config: GEmoClapConfig, tokenizer: RobertaTokenizerFast) -> None:
    """Make sure that the text tower has a vector for every token and every position of the prompts."""
    text = config.text_config
    if text.vocab_size < len(tokenizer):
        raise ValueError(
            f"--text_config vocab_size {text.vocab_size}: the tokenizer of the prompts has {len(tokenizer)} tokens; "
            f"leave it out"
        )
    before_first = text.pad_token_id + 1  # RoBERTa counts positions from there
    longest = max(map(len, tokenizer(config.training_prompts())["input_ids"]))
    if text.max_position_embeddings < longest + before_first:
        raise ValueError(
            f"--text_config max_position_embeddings {text.max_position_embeddings}: the longest prompt has {longest} "
            f"tokens, so that {longest + before_first} is the least"
        )
    tokenizer.model_max_length = min(tokenizer.model_max_length, text.max_position_embeddings - before_first)
