"""A model and its processor from arguments."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from tokenizers import ByteLevelBPETokenizer
from transformers import RobertaConfig, RobertaTokenizerFast, TrainingArguments
from transformers.integrations import unset_hf_deepspeed_config
from transformers.utils import logging

from ..configuration_gemoclap import GEmoClapAudioConfig, GEmoClapConfig
from ..corpora.checkpoint_files import check_checkpoint_files
from ..feature_extraction_gemoclap import GEmoClapFeatureExtractor
from ..modeling_gemoclap import GEmoClapForAudioClassification, GEmoClapForXVector, GEmoClapModel
from ..processing_gemoclap import GEmoClapProcessor
from ..prompts_gemoclap import words_in
from ..towers_gemoclap import load_text_tower
from .arguments import ModelArguments, json_fields
from .history import settle_history
from .lora import add_lora
from .start import load_start, take_over
from .tower_fields import check_config_fields, check_feature_fields, check_pretrained_fields, compact_features

logger = logging.get_logger(__name__)
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


def _fields(arguments: ModelArguments, emotions: list[str]) -> dict:
    names = (
        "objective",
        "alpha",
        "similarity",
        "targets",
        "sl_texts",
        "pooling",
        "use_weighted_layer_sum",
        "text_pooling",
        "projection_dim",
        "projection_dropout",
        "logit_scale_init_value",
        "logit_scale_trainable",
        "emotion_templates",
        "gender_templates",
        "joint_templates",
    )
    synonyms = json_fields(arguments.emotion_synonyms, "emotion_synonyms")
    return {name: getattr(arguments, name) for name in names} | {"emotions": emotions, "emotion_synonyms": synonyms}


def _prompts_drawn(config: GEmoClapConfig) -> list[str]:
    """The training prompts that this objective ever shows to its text tower."""
    emotions = [p for emotion in config.emotions for p in config.emotion_prompts(emotion, synonyms=True)]
    if config.objective == "ml":
        return emotions + [prompt for gender in config.genders for prompt in config.gender_prompts(gender)]
    return config.training_prompts() if config.uses_joint_texts else emotions


def _prefixed(tower: str, options: dict) -> dict:
    return {f"{tower}_{key}": value for key, value in options.items()}


def _compact_extractor(config: GEmoClapConfig, features: dict) -> GEmoClapFeatureExtractor:
    return GEmoClapFeatureExtractor(**compact_features(config, features))


def _compact_config(fields: dict) -> GEmoClapAudioConfig:
    check_config_fields("audio_config", fields, GEmoClapAudioConfig())
    return GEmoClapAudioConfig(**fields)


def _check_pretrained(arguments: ModelArguments, audio: dict, text: dict, features: dict) -> None:
    for name in filter(None, (arguments.audio_model, arguments.text_model)):
        check_checkpoint_files(name)
    check_pretrained_fields("audio_config", audio, arguments.audio_model)
    check_pretrained_fields("text_config", text, arguments.text_model)
    check_feature_fields(features, pretrained=True)


def build_model_and_processor(
    arguments: ModelArguments, emotions: list[str]
) -> tuple[GEmoClapModel, GEmoClapProcessor]:
    """Load or make both towers.

    Args:
        arguments: Names of pretrained towers; a tower without a name is made from scratch: the compact audio encoder,
            a small RoBERTa with a tokenizer of its own.
        emotions: Emotion classes.

    Returns:
        The model in training mode, and its processor.
    """
    values = _fields(arguments, emotions)
    audio, text, features = (
        json_fields(getattr(arguments, name), name) for name in ("audio_config", "text_config", "feature_config")
    )
    if arguments.text_model and arguments.prompt_steps:
        raise ValueError("--prompt_steps teaches a text encoder from scratch its words: with --text_model give 0")
    if arguments.init_from:
        start, extractor = load_start(arguments)
        name, tower = arguments.text_model, None
        if name:
            check_checkpoint_files(name)
            check_pretrained_fields("text_config", text, name)
            tower = load_text_tower(name, arguments.text_pooling, **text)
        config = GEmoClapConfig(start.config.audio_config, tower and tower.config, **values)
        tokenizer = GEmoClapProcessor.load_tokenizer(name) if tower else _small_text_tower(config, text)
        model = take_over(GEmoClapModel(config, start.audio_model, tower), start, arguments.init_from)
        return model.train(), GEmoClapProcessor(extractor, tokenizer)
    if arguments.audio_model and arguments.text_model:
        _check_pretrained(arguments, audio, text, features)
        options = {**_prefixed("audio", audio), **_prefixed("text", text)}
        model = GEmoClapModel.from_audio_text_pretrained(
            arguments.audio_model, arguments.text_model, **options, **values
        )
        processor = GEmoClapProcessor.from_audio_text_pretrained(
            arguments.audio_model, arguments.text_model, **features
        )
        return settle_history(model).train(), processor
    if arguments.audio_model or arguments.text_model:
        raise ValueError(
            "give both --audio_model and --text_model, or neither: half a pretrained pair is not trained here"
        )
    config = GEmoClapConfig(audio_config=_compact_config(audio), **values)
    tokenizer = _small_text_tower(config, text)
    return settle_history(GEmoClapModel(config)).train(), GEmoClapProcessor(
        _compact_extractor(config, features), tokenizer
    )


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


def build_audio_model(
    arguments: ModelArguments, emotions: list[str]
) -> tuple[GEmoClapForAudioClassification | GEmoClapForXVector, GEmoClapFeatureExtractor]:
    """The baseline, or an encoder without a head, on the same audio towers.

    Args:
        arguments: As for `build_model_and_processor`; what is for texts is left aside.
        emotions: Emotion classes.

    Returns:
        The model in training mode, and its feature extractor.
    """
    model_class = GEmoClapForAudioClassification if arguments.head == "classifier" else GEmoClapForXVector
    names = ("pooling", "use_weighted_layer_sum", "classifier_hidden_size", "classifier_dropout")
    values = {name: getattr(arguments, name) for name in names} | {"emotions": emotions}
    audio, features = (json_fields(getattr(arguments, name), name) for name in ("audio_config", "feature_config"))
    if arguments.init_from:
        start, extractor = load_start(arguments)
        config = GEmoClapConfig(audio_config=start.config.audio_config, **values)
        return take_over(model_class(config, start.audio_model), start, arguments.init_from).train(), extractor
    if arguments.audio_model:
        _check_pretrained(arguments, audio, {}, features)
        model = model_class.from_audio_pretrained(arguments.audio_model, **_prefixed("audio", audio), **values)
        extractor = GEmoClapFeatureExtractor.from_audio_pretrained(arguments.audio_model, **features)
        return settle_history(model).train(), extractor
    config = GEmoClapConfig(audio_config=_compact_config(audio), **values)
    return settle_history(model_class(config)).train(), _compact_extractor(config, features)


@contextmanager
def whole_weights(arguments: TrainingArguments) -> Iterator[None]:
    """Within this, models are built whole where DeepSpeed shards them (ZeRO-3): they are read and centred in here.

    Args:
        arguments: Of the run; without DeepSpeed nothing is changed.
    """
    plugin = getattr(arguments, "deepspeed_plugin", None)
    if plugin is not None:
        unset_hf_deepspeed_config()
    try:
        yield
    finally:
        if plugin is not None:
            plugin.set_deepspeed_weakref()


def choose_what_to_train(model: GEmoClapModel, arguments: ModelArguments):
    """Freeze what is not to be trained, or put LoRA on the towers.

    Args:
        model: The model, its projections centred already.
        arguments: `freeze_*`, `unfreeze_last_n_layers` and `lora_*`.

    Returns:
        The model, or a `peft.PeftModel` around it.

    Raises:
        ValueError: If two of the options contradict each other.
    """
    frozen = arguments.freeze_audio_encoder, arguments.freeze_feature_encoder, arguments.freeze_text_encoder
    if arguments.lora_towers:
        if arguments.head != "contrastive":
            raise ValueError("--lora_towers is for the contrastive model: leave it out, or give --head contrastive")
        if any(frozen) or arguments.unfreeze_last_n_layers is not None:
            raise ValueError(
                "--lora_towers freezes both towers itself: leave out --freeze_* and --unfreeze_last_n_layers"
            )
        if not arguments.audio_model:
            raise ValueError(
                "--lora_towers updates pretrained towers: give --audio_model and --text_model, not --init_from"
            )
        return add_lora(
            model, arguments.lora_towers, arguments.lora_rank, arguments.lora_alpha, arguments.lora_dropout
        )
    if arguments.unfreeze_last_n_layers is not None:
        if arguments.freeze_audio_encoder:
            raise ValueError("--freeze_audio_encoder and --unfreeze_last_n_layers contradict each other: give one")
        model.unfreeze_last_n_layers(arguments.unfreeze_last_n_layers)
    if arguments.freeze_audio_encoder:
        model.freeze_audio_encoder()
    scratch = not (arguments.audio_model or arguments.init_from)
    if scratch and arguments.freeze_audio_encoder:
        raise ValueError(
            "--freeze_audio_encoder with an audio encoder from scratch would train on what knows nothing: give "
            "--init_from, a checkpoint to start from, or --audio_model"
        )
    if scratch and (arguments.freeze_feature_encoder or arguments.freeze_feature_projection):
        logger.warning("the audio encoder is trained from scratch: nothing is frozen, all of it learns")
    elif not scratch:
        if arguments.freeze_feature_encoder:
            model.freeze_feature_encoder()
        if arguments.freeze_feature_projection:
            model.freeze_feature_projection()
    if arguments.freeze_text_encoder and hasattr(model, "text_model"):
        model.freeze_text_encoder()
    return model
