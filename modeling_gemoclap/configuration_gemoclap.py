"""Configurations of GEmo-CLAP."""

from __future__ import annotations

import json
import math
import numbers
from pathlib import Path

from .versions_gemoclap import check_format

# isort: split
from transformers import AutoConfig
from transformers.configuration_utils import PretrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from .prompts_gemoclap import (
    PromptsMixin,
    check_synonyms,
    check_templates,
    check_words,
    refuse_shared_prompts,
    resolve_emotions,
)
from .safety_gemoclap import check_config, check_numbers

OBJECTIVES = ("emo", "ml", "sl")
SIMILARITIES = ("cross", "intra", "both")
TARGETS = ("softmax", "row")
SL_TEXTS = ("joint", "emotion")
POOLINGS = ("mean", "self_attention", "mean_std")
TEXT_POOLINGS = ("first", "mean")
EMOTIONS = ("angry", "happy", "neutral", "sad")
LABELS = ("emotions", "id2label", "label2id", "num_labels")  # four fields with the same content
# The files from which sentence-transformers loads GEmoClapModel. Its `Transformer` calls the method of each modality.
SENTENCE_TRANSFORMERS_FILES = {
    "modules.json": [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.base.modules.transformer.Transformer"}
    ],
    "sentence_bert_config.json": {
        "transformer_task": "feature-extraction",
        "modality_config": {
            modality: {"method": f"get_{modality}_features", "method_output_name": None}
            for modality in ("text", "audio")
        },
        "module_output_name": "sentence_embedding",
    },
    "config_sentence_transformers.json": {"model_type": "SentenceTransformer", "similarity_fn_name": "cosine"},
}


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise ValueError(f"{name}={value!r} is unknown; choose one of {', '.join(map(repr, choices))}")
    return value


def _sub_config(config, default_model_type: str) -> PretrainedConfig:
    """The configuration of a tower from a configuration, a dict with `model_type`, or None."""
    if config is None:
        return CONFIG_MAPPING[default_model_type]()
    if not isinstance(config, dict):
        return config
    config = dict(config)
    model_type = config.pop("model_type", default_model_type)
    config.pop("auto_map", None)  # only code of transformers and of this package builds towers
    if model_type == GEmoClapAudioConfig.model_type:
        return GEmoClapAudioConfig(**config)
    if model_type not in CONFIG_MAPPING:
        raise ValueError(f"model_type {model_type!r} of a tower is unknown to this version of transformers")
    return CONFIG_MAPPING[model_type](**config)


def _check_every_layer_runs(config: PretrainedConfig) -> None:
    if getattr(config, "encoder_layerdrop", getattr(config, "layerdrop", 0.0)) > 0:
        raise ValueError(
            "use_weighted_layer_sum needs the output of every layer: set the layerdrop of the audio tower to 0 "
            "(audio_layerdrop=0.0, for Whisper audio_encoder_layerdrop=0.0)"
        )


def _attention_by_tower(**towers: PretrainedConfig) -> dict | None:
    """The attention implementations of ready towers; without them, a composite configuration would reset them."""
    attention = {name: tower._attn_implementation for name, tower in towers.items()}
    return {name: value for name, value in attention.items() if value} or None


class GEmoClapAudioConfig(PretrainedConfig):
    """Configuration of `GEmoClapAudioModel`, the compact audio encoder for log-mel features.

    Args:
        num_mel_bins: Number of mel bands of the input features.
        conv_channels: Channels of the convolutional blocks. Every block halves the mel axis; the first and the last
            block also halve the time axis, so that the Transformer receives one frame for every four input frames.
        hidden_size: Width of the Transformer layers.
        num_hidden_layers: Number of Transformer layers.
        num_attention_heads: Number of heads of each layer.
        intermediate_size: Width of the feed-forward part of each layer.
        hidden_dropout: Dropout in the Transformer layers.
        conv_dropout: Dropout of entire channels after each convolutional block.
        layerdrop: Probability with which training skips a Transformer layer.
        layer_norm_eps: Epsilon of the layer norms.
        apply_spec_augment: Whether training masks bands of time and frequency (SpecAugment).
        mask_time_prob: Maximum fraction of the frames that time masks cover.
        mask_time_length: Maximum length of a time mask, in input frames.
        mask_feature_length: Maximum width of a frequency mask, in mel bands.
        num_masks: Number of masks of each kind for each clip.
        initializer_range: Standard deviation of the initial weights.

    Raises:
        ValueError: If a number is out of range, or if sizes do not match.

    Example:
        >>> GEmoClapAudioConfig(hidden_size=96).hidden_size
        96
    """

    model_type = "gemoclap_audio"

    def __init__(
        self,
        num_mel_bins: int = 64,
        conv_channels: tuple[int, ...] = (16, 32, 64),
        hidden_size: int = 128,
        num_hidden_layers: int = 2,
        num_attention_heads: int = 4,
        intermediate_size: int = 256,
        hidden_dropout: float = 0.1,
        conv_dropout: float = 0.1,
        layerdrop: float = 0.0,
        layer_norm_eps: float = 1e-5,
        apply_spec_augment: bool = True,
        mask_time_prob: float = 0.2,
        mask_time_length: int = 40,
        mask_feature_length: int = 12,
        num_masks: int = 2,
        initializer_range: float = 0.02,
        **kwargs,
    ):
        check_numbers(locals())
        if hidden_size % num_attention_heads:
            raise ValueError(f"{hidden_size=} is not a multiple of {num_attention_heads=}")
        is_list = isinstance(conv_channels, (list, tuple))
        if not is_list or not all(isinstance(n, numbers.Integral) and n >= 1 for n in conv_channels):
            raise ValueError(f"conv_channels={conv_channels!r} must be a list of whole numbers of at least 1")
        if len(conv_channels) < 2 or num_mel_bins % 2 ** len(conv_channels):
            raise ValueError(
                f"conv_channels={conv_channels} must have at least two blocks, and {num_mel_bins=} must be a multiple "
                f"of 2 to the power of the number of blocks, since every block halves the mel axis"
            )
        self.num_mel_bins = num_mel_bins
        self.conv_channels = list(conv_channels)
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.intermediate_size = intermediate_size
        self.hidden_dropout = hidden_dropout
        self.conv_dropout = conv_dropout
        self.layerdrop = layerdrop
        self.layer_norm_eps = layer_norm_eps
        self.apply_spec_augment = apply_spec_augment
        self.mask_time_prob = mask_time_prob
        self.mask_time_length = mask_time_length
        self.mask_feature_length = mask_feature_length
        self.num_masks = num_masks
        self.initializer_range = initializer_range
        self.checkpoint_format = check_format(kwargs.pop("checkpoint_format", None))
        super().__init__(**kwargs)


class GEmoClapConfig(PromptsMixin, PretrainedConfig):
    """Configuration of `GEmoClapModel`: two towers, the objective, and the words of the zero-shot classes.

    Args:
        audio_config: Audio tower: a configuration, or a dict with `model_type`. Default: WavLM.
        text_config: Text tower: a configuration, or a dict with `model_type`. Default: RoBERTa.
        projection_dim: Size of the joint space, `D`.
        projection_hidden_size: Hidden width of the two MLP projections; None uses `projection_dim`.
        projection_dropout: Dropout inside the projection of audio.
        objective: `"emo"` (eq. 4 of the paper), `"ml"` (eq. 6) or `"sl"` (eq. 7).
        alpha: Weight of emotion against gender (alpha_e in the paper: "0.8 or 0.9").
        similarity: `"cross"` (audio against text), `"intra"` (eq. 3 as printed) or `"both"` (the mean of the two).
        targets: `"softmax"` (`S(M)` in the paper) or `"row"` (`M` divided by its row sums).
        sl_texts: Text of a clip for `"sl"`: `"joint"` (emotion and gender) or `"emotion"`.
        emotions: Emotion classes, which labels index. Empty for an encoder that is trained without labels. `id2label`,
            `label2id` and `num_labels` have the same content under the names of transformers: setting one of the four
            updates the others, and drops a calibration temperature that was fitted for other classes. Default: angry,
            happy, neutral and sad.
        genders: Gender classes, which labels index.
        emotion_synonyms: Additional words for emotions, as in `{"angry": ["furious"]}`. Training samples them;
            inference does not use them.
        emotion_templates: Prompts with one `{}` for the word of the emotion.
        gender_templates: Prompts with one `{}` for the gender.
        joint_templates: Prompts with `{emotion}` and `{gender}`.
        pooling: Pooling of the valid audio frames: `"mean"` (as in the paper), `"self_attention"` (a learnt weight for
            each frame) or `"mean_std"` (mean and standard deviation).
        pooled_dropout: Dropout of the pooled audio in training.
        use_weighted_layer_sum: Whether the frames are a learnt weighted mean over all layers of the audio tower.
        text_pooling: `"first"` for the first token (as in the paper) or `"mean"`, which sentence encoders need.
        classifier_hidden_size: Hidden width of the head of `GEmoClapForAudioClassification`; None for a linear head.
        classifier_dropout: Dropout before that head.
        logit_scale_init_value: Initial logarithm of both scales (epsilon in the paper); default `ln(1 / 0.07)`.
        logit_scale_trainable: Whether the scales are learnt.
        calibration_temperature: Divisor of the logits of clips outside of training; None if it is not fitted.
        calibrated_on: Description of the data on which the temperature was fitted.
        known_words: Words on which a text tower was trained from scratch; None for a pretrained text tower.
        training_data: Record of the training data: a list of dicts with `corpus`, `speakers`, `manifest_sha256` and
            `num_clips`.
        initializer_range: Standard deviation of the initial weights of the projections.
        **kwargs: Fields of every configuration. As in transformers, `attn_implementation` is one implementation for
            both towers, or a dict with `"audio_config"` and `"text_config"`, and is not saved. WavLM too has `"sdpa"`,
            the default, `"flex_attention"` and `"eager"`.

    Raises:
        ValueError: If the value of an option is unknown, if a list of words or templates is invalid, or if `emotions`
            and `id2label` disagree.

    Example:
        >>> config = GEmoClapConfig(emotions=["angry", "fear"], objective="emo")
        >>> config.class_prompts()
        [['this person is feeling angry'], ['this person is feeling fearful']]
    """

    model_type = "gemoclap"
    sub_configs = {"audio_config": AutoConfig, "text_config": AutoConfig}

    def __init__(
        self,
        audio_config=None,
        text_config=None,
        projection_dim: int = 512,
        projection_hidden_size: int | None = None,
        projection_dropout: float = 0.0,
        objective: str = "sl",
        alpha: float = 0.9,
        similarity: str = "cross",
        targets: str = "softmax",
        sl_texts: str = "joint",
        emotions=None,
        genders=("female", "male"),
        emotion_synonyms: dict[str, list[str]] | None = None,
        emotion_templates=("this person is feeling {}",),
        gender_templates=("this person is {}",),
        joint_templates=("this {gender} person is feeling {emotion}",),
        pooling: str = "mean",
        pooled_dropout: float = 0.0,
        use_weighted_layer_sum: bool = False,
        text_pooling: str = "first",
        classifier_hidden_size: int | None = None,
        classifier_dropout: float = 0.0,
        logit_scale_init_value: float = math.log(1 / 0.07),
        logit_scale_trainable: bool = True,
        calibration_temperature: float | None = None,
        calibrated_on: str | None = None,
        known_words: list[str] | None = None,
        training_data: list[dict] | None = None,
        initializer_range: float = 0.02,
        **kwargs,
    ):
        check_numbers(locals())
        self.audio_config = _sub_config(audio_config, "wavlm")
        self.text_config = _sub_config(text_config, "roberta")
        if use_weighted_layer_sum:
            _check_every_layer_runs(self.audio_config)
        self.projection_dim = projection_dim
        self.projection_hidden_size = projection_hidden_size
        self.projection_dropout = projection_dropout
        self.objective = _check_choice("objective", objective, OBJECTIVES)
        self.alpha = alpha
        self.similarity = _check_choice("similarity", similarity, SIMILARITIES)
        self.targets = _check_choice("targets", targets, TARGETS)
        self.sl_texts = _check_choice("sl_texts", sl_texts, SL_TEXTS)
        labels = resolve_emotions(emotions, *(kwargs.pop(name, None) for name in LABELS[1:3]))
        default = resolve_emotions(EMOTIONS, num_labels=kwargs.get("num_labels")) if labels is None else None
        self._set_emotions(labels if default is None else default)
        self.num_labels = kwargs.pop("num_labels", None)
        self.genders = check_words("genders", genders)
        self.emotion_synonyms = check_synonyms(emotion_synonyms or {}, self.emotions)
        self.emotion_templates = check_templates("emotion_templates", emotion_templates, ("{}",))
        self.gender_templates = check_templates("gender_templates", gender_templates, ("{}",))
        self.joint_templates = check_templates("joint_templates", joint_templates, ("{gender}", "{emotion}"))
        self.pooling = _check_choice("pooling", pooling, POOLINGS)
        self.pooled_dropout = pooled_dropout
        self.use_weighted_layer_sum = use_weighted_layer_sum
        self.text_pooling = _check_choice("text_pooling", text_pooling, TEXT_POOLINGS)
        self.classifier_hidden_size = classifier_hidden_size
        self.classifier_dropout = classifier_dropout
        self.logit_scale_init_value = logit_scale_init_value
        self.logit_scale_trainable = logit_scale_trainable
        self.calibration_temperature = calibration_temperature
        self.calibrated_on = calibrated_on
        self.known_words = known_words
        self.training_data = training_data
        self.initializer_range = initializer_range
        attention = _attention_by_tower(audio_config=self.audio_config, text_config=self.text_config)
        kwargs.setdefault("attn_implementation", attention)
        kwargs.setdefault("custom_pipelines", _custom_pipelines())
        self.checkpoint_format = check_format(kwargs.pop("checkpoint_format", None))
        super().__init__(**kwargs, id2label=self.id2label, label2id=self.label2id)

    @classmethod
    def from_dict(cls, config_dict: dict, **kwargs):
        """Build a configuration from a dict, as in transformers, after checking its labels and its safety.

        Args:
            config_dict: The content of a configuration file.
            **kwargs: Fields that override it.

        Raises:
            ValueError: If labels disagree, or if the dict names code.
        """
        config_dict = dict(check_config(config_dict))
        stored = resolve_emotions(*(config_dict.pop(name, None) for name in LABELS[:3]))
        number, current = kwargs.pop("num_labels", None), EMOTIONS if stored is None else stored
        requested = resolve_emotions(*(kwargs.pop(name, None) for name in LABELS[:3]), number)
        config_dict["emotions"] = stored
        if requested is None and number not in (None, len(current)):
            raise ValueError(
                f"num_labels={number}, but the emotions of the checkpoint are {', '.join(current)}: name yours "
                f"by id2label or emotions"
            )
        if requested is not None and requested != stored:
            config_dict |= {"emotions": requested, "calibration_temperature": None, "calibrated_on": None}
        return super().from_dict(config_dict, **kwargs)

    def save_pretrained(self, save_directory, *args, **kwargs) -> None:
        """Save the configuration, as in transformers, if its labels agree.

        If it is that of a saved `GEmoClapModel`, the files of sentence-transformers are written too, except those that
        are already there.

        Args:
            save_directory: Target folder.
            *args: Positional arguments of transformers' method.
            **kwargs: Keyword arguments of transformers' method.

        Raises:
            ValueError: If labels were changed in place, so that `emotions`, `id2label` and `label2id` disagree.
        """
        try:
            resolve_emotions(self.emotions, self.id2label, self.label2id)
        except ValueError as error:
            raise ValueError(
                f"labels were changed in place, so the saved configuration could not be loaded: assign them, as in "
                f"config.id2label = {{0: 'angry', 1: 'sad'}} ({error})"
            ) from None
        super().save_pretrained(save_directory, *args, **kwargs)
        folder = Path(save_directory)
        if self.architectures == ["GEmoClapModel"] and not (folder / "adapter_config.json").exists():
            for name, content in SENTENCE_TRANSFORMERS_FILES.items():
                if not (folder / name).exists():  # sentence-transformers saves its own configuration before the model
                    (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

    def __setattr__(self, name: str, value) -> None:
        """Keep `emotions`, `id2label`, `label2id` and `num_labels` consistent."""
        if name == "problem_type" and value not in (None, "single_label_classification"):
            raise ValueError(f"problem_type={value!r} is not supported: a clip has one emotion; remove the option")
        if name not in LABELS:
            super().__setattr__(name, value)
        elif name != "num_labels":
            if value is None:
                raise ValueError(f"{name}=None: a model needs emotions; give two or more")
            self._set_emotions(resolve_emotions(**{name: value}))
        elif value not in (None, len(self.emotions)):
            raise ValueError(f"num_labels={value}: assign emotions or id2label, which name the labels")

    def _set_emotions(self, emotions: list[str]) -> None:
        before = self.__dict__.get("emotions")
        super().__setattr__("emotions", refuse_shared_prompts("emotions", emotions))
        super().__setattr__("id2label", dict(enumerate(emotions)))
        super().__setattr__("label2id", {word: index for index, word in enumerate(emotions)})
        if before not in (None, emotions):
            self.emotion_synonyms = check_synonyms(self.emotion_synonyms, emotions)
            self.forget_calibration()

    def forget_calibration(self) -> None:
        """Remove the calibration temperature, which was fitted for other classes or other weights."""
        self.calibration_temperature = self.calibrated_on = None


def _custom_pipelines() -> dict:
    """The entry of config.json from which `transformers.pipeline` finds our pipeline."""
    return {
        "zero-shot-emotion-recognition": {
            "impl": "pipeline_gemoclap.ZeroShotEmotionPipeline",
            "pt": ["AutoModel"],
            "type": "multimodal",
        }
    }


GEmoClapAudioConfig.register_for_auto_class()
GEmoClapConfig.register_for_auto_class()
