"""Configurations of GEmo-CLAP."""

from __future__ import annotations

import math
import numbers

from transformers import AutoConfig
from transformers.configuration_utils import PretrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from .prompts_gemoclap import (  # some of these are for the rest of the package
    EMOTION_WORDS,  # noqa: F401
    canonical_emotion,  # noqa: F401
    canonical_gender,  # noqa: F401
    check_synonyms,
    check_templates,
    check_words,
    emotions_of,
    prompt_word,
    refuse_shared_prompts,
    words_in,
)
from .safety_gemoclap import check_config, check_numbers

OBJECTIVES = ("emo", "ml", "sl")
SIMILARITIES = ("cross", "intra", "both")
TARGETS = ("softmax", "row")
SL_TEXTS = ("joint", "emotion")
POOLINGS = ("mean", "self_attention", "mean_std")
TEXT_POOLINGS = ("first", "mean")
EMOTIONS = ("angry", "happy", "neutral", "sad")
LABELS = ("emotions", "id2label", "label2id", "num_labels")  # one thing by four names


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise ValueError(f"{name}={value!r} is not known; choose one of {', '.join(map(repr, choices))}")
    return value


def _sub_config(config, default_model_type: str) -> PretrainedConfig:
    """A tower's configuration from a configuration, a dict with `model_type`, or nothing."""
    if config is None:
        return CONFIG_MAPPING[default_model_type]()
    if not isinstance(config, dict):
        return config
    config = dict(config)
    model_type = config.pop("model_type", default_model_type)
    config.pop("auto_map", None)  # towers are built by transformers' code and ours, whatever code a file names
    if model_type == GEmoClapAudioConfig.model_type:
        return GEmoClapAudioConfig(**config)
    if model_type not in CONFIG_MAPPING:
        raise ValueError(f"model_type {model_type!r} of a tower is not known to this version of transformers")
    return CONFIG_MAPPING[model_type](**config)


def _check_every_layer_runs(config: PretrainedConfig) -> None:
    if getattr(config, "encoder_layerdrop", getattr(config, "layerdrop", 0.0)) > 0:
        raise ValueError(
            "use_weighted_layer_sum wants the output of every layer: set the audio tower's layerdrop to 0 "
            "(audio_layerdrop=0.0, for Whisper audio_encoder_layerdrop=0.0)"
        )


def _attention_of(**parts: PretrainedConfig) -> dict | None:
    """What ready towers came with: a composite configuration that is not told resets the attention of its parts."""
    attention = {name: part._attn_implementation for name, part in parts.items()}
    return {name: value for name, value in attention.items() if value} or None


class GEmoClapAudioConfig(PretrainedConfig):
    """Configuration of `GEmoClapAudioModel`, the compact audio encoder for log-mel features.

    Args:
        num_mel_bins: Mel bands of the input features.
        conv_channels: Channels of the convolutional blocks. Every block halves the mel axis, the first and the
            last the time axis too, so that the Transformer sees one frame for every four of the input.
        hidden_size: Width of the Transformer layers.
        num_hidden_layers: Number of Transformer layers.
        num_attention_heads: Heads of each layer.
        intermediate_size: Width of each layer's feed-forward part.
        hidden_dropout: Dropout in the Transformer layers.
        conv_dropout: Dropout of whole channels after each convolutional block.
        layerdrop: Probability that training skips a Transformer layer.
        layer_norm_eps: Epsilon of the layer norms.
        apply_spec_augment: Whether training masks bands of time and frequency (SpecAugment).
        mask_time_prob: Largest share of the frames that time masks may cover.
        mask_time_length: Longest time mask, in input frames.
        mask_feature_length: Longest frequency mask, in mel bands.
        num_masks: How many masks of each kind are drawn for a clip.
        initializer_range: Standard deviation of the initial weights.

    Raises:
        ValueError: If a number is out of its range, or sizes do not fit each other.

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
                f"conv_channels={conv_channels} must be two blocks or more, and {num_mel_bins=} a multiple "
                f"of 2 to the power of their number, since every block halves the mel axis"
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
        super().__init__(**kwargs)


class GEmoClapConfig(PretrainedConfig):
    """Configuration of `GEmoClapModel`: two towers, the objective, and the words of its zero-shot classes.

    Args:
        audio_config: Audio tower: a configuration, or a dict with `model_type`. Default: WavLM.
        text_config: Text tower, likewise. Default: RoBERTa.
        projection_dim: Size of the joint space, `D`.
        projection_hidden_size: Hidden width of the two MLP projections; None takes `projection_dim`.
        projection_dropout: Dropout inside the projections.
        objective: `"emo"` (eq. 4 of the paper), `"ml"` (eq. 6) or `"sl"` (eq. 7).
        alpha: Weight of emotion against gender (the paper's alpha_e: "0.8 or 0.9").
        similarity: `"cross"` (audio against text), `"intra"` (eq. 3 as printed) or `"both"` (the mean of the two).
        targets: `"softmax"` (the paper's `S(M)`) or `"row"` (`M` divided by its row sums).
        sl_texts: Text of a clip under `"sl"`: `"joint"` (emotion and gender) or `"emotion"`.
        emotions: Emotion classes; labels index this list; none for an encoder trained without labels. `id2label`,
            `label2id` and `num_labels` are the same thing by transformers' names: whichever is given or assigned, the
            others follow, and a calibration temperature that was fitted for other classes is dropped. Default: angry,
            happy, neutral and sad.
        genders: Gender classes; labels index this list.
        emotion_synonyms: Other words that training draws for an emotion beside the one it takes in a prompt, by
            emotion: `{"angry": ["furious"]}`; at inference its own word alone stands for a class.
        emotion_templates: Prompts with one `{}` for the emotion's word.
        gender_templates: Prompts with one `{}` for the gender.
        joint_templates: Prompts with `{emotion}` and `{gender}`.
        pooling: How audio frames become one vector: `"mean"` over the true ones (the paper's), `"self_attention"`
            (a learnt weight a frame) or `"mean_std"` (mean and standard deviation).
        use_weighted_layer_sum: Whether the frames are a learnt mean over all layers of the audio tower.
        text_pooling: `"first"`, the first token (the paper's), or `"mean"`, as sentence encoders want.
        classifier_hidden_size: Hidden width of the head of `GEmoClapForAudioClassification`; None: the head is linear.
        classifier_dropout: Dropout before that head.
        logit_scale_init_value: Initial logarithm of both scales (the paper's epsilon); default `ln(1 / 0.07)`.
        logit_scale_trainable: Whether the scales are learnt.
        calibration_temperature: Divides the logits of clips outside of training, where it is fitted; None is 1.
        calibrated_on: What that temperature was fitted on, in words.
        known_words: Words that a text tower from scratch was trained on: of others it knows nothing. None for a
            pretrained one.
        training_data: What the checkpoint was trained on: a list of dicts with `corpus`, `speakers`,
            `manifest_sha256` and `num_clips`.
        initializer_range: Standard deviation of the projections' initial weights.

    Raises:
        ValueError: If a switch has a value that is not known, a list of words or templates is unusable, or `emotions`
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
        labels = emotions_of(emotions, *(kwargs.pop(name, None) for name in LABELS[1:3]))
        default = emotions_of(EMOTIONS, num_labels=kwargs.get("num_labels")) if labels is None else None
        self._set_emotions(labels if default is None else default)
        self.num_labels = kwargs.pop("num_labels", None)
        self.genders = check_words("genders", genders)
        self.emotion_synonyms = check_synonyms(emotion_synonyms or {}, self.emotions)
        self.emotion_templates = check_templates("emotion_templates", emotion_templates, ("{}",))
        self.gender_templates = check_templates("gender_templates", gender_templates, ("{}",))
        self.joint_templates = check_templates("joint_templates", joint_templates, ("{gender}", "{emotion}"))
        self.pooling = _check_choice("pooling", pooling, POOLINGS)
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
        parts = _attention_of(audio_config=self.audio_config, text_config=self.text_config)
        kwargs.setdefault("attn_implementation", parts)
        kwargs.setdefault("custom_pipelines", _custom_pipelines())
        super().__init__(**kwargs, id2label=self.id2label, label2id=self.label2id)

    @classmethod
    def from_dict(cls, config_dict: dict, **kwargs):
        """As transformers', with the labels made one, and nothing in the dict that would choose code.

        Args:
            config_dict: What a file holds.
            **kwargs: Fields that take precedence.

        Raises:
            ValueError: If labels disagree, or the dict names code.
        """
        config_dict = dict(check_config(config_dict))
        stored = emotions_of(*(config_dict.pop(name, None) for name in LABELS[:3]))
        number, known = kwargs.pop("num_labels", None), EMOTIONS if stored is None else stored
        asked = emotions_of(*(kwargs.pop(name, None) for name in LABELS[:3]), number)
        config_dict["emotions"] = stored
        if asked is None and number not in (None, len(known)):
            raise ValueError(
                f"num_labels={number}, but the checkpoint's emotions are {', '.join(known)}: name yours "
                f"by id2label or emotions"
            )
        if asked is not None and asked != stored:
            config_dict |= {"emotions": asked, "calibration_temperature": None, "calibrated_on": None}
        return super().from_dict(config_dict, **kwargs)

    def save_pretrained(self, save_directory, *args, **kwargs) -> None:
        """As transformers'.

        Args:
            save_directory: Where to.
            *args: For transformers.
            **kwargs: Likewise.

        Raises:
            ValueError: If labels were changed in place, so that `emotions`, `id2label` and `label2id` disagree.
        """
        try:
            emotions_of(self.emotions, self.id2label, self.label2id)
        except ValueError as error:
            raise ValueError(
                f"labels were changed in place, and what is saved could not be loaded: assign them anew, as "
                f"config.id2label = {{0: 'angry', 1: 'sad'}} ({error})"
            ) from None
        super().save_pretrained(save_directory, *args, **kwargs)

    def __setattr__(self, name: str, value) -> None:
        """Keep `emotions`, `id2label`, `label2id` and `num_labels` one thing."""
        if name == "problem_type" and value not in (None, "single_label_classification"):
            raise ValueError(f"problem_type={value!r} is not supported: a clip has one emotion; leave it out")
        if name not in LABELS:
            super().__setattr__(name, value)
        elif name != "num_labels":
            if value is None:
                raise ValueError(f"{name}=None: a model has emotions; give two or more")
            self._set_emotions(emotions_of(**{name: value}))
        elif value not in (None, len(self.emotions)):
            raise ValueError(f"num_labels={value}: assign emotions or id2label, which name them")

    def _set_emotions(self, emotions: list[str]) -> None:
        before = self.__dict__.get("emotions")
        super().__setattr__("emotions", refuse_shared_prompts("emotions", emotions))
        super().__setattr__("id2label", dict(enumerate(emotions)))
        super().__setattr__("label2id", {word: place for place, word in enumerate(emotions)})
        if before not in (None, emotions):
            self.emotion_synonyms = check_synonyms(self.emotion_synonyms, emotions)
            self.forget_calibration()

    def forget_calibration(self) -> None:
        """Drop the calibration temperature: it was fitted for other classes or another head."""
        self.calibration_temperature = self.calibrated_on = None

    @property
    def uses_joint_texts(self) -> bool:
        """Whether a clip's text carries emotion and gender together."""
        return self.objective == "sl" and self.sl_texts == "joint"

    @property
    def prompt_words(self) -> list[str]:
        """The word that each emotion takes in a prompt: for transformers' own pipeline, which does not know them."""
        return [prompt_word(emotion) for emotion in self.emotions]

    def words_of(self, emotion: str, synonyms: bool = True) -> list[str]:
        """The word that an emotion takes in a prompt and, if asked for, its synonyms."""
        return [prompt_word(emotion), *(self.emotion_synonyms.get(emotion, []) if synonyms else [])]

    def emotion_prompts(self, emotion: str, synonyms: bool = False) -> list[str]:
        """The emotion-only prompts of one emotion, one a template and word."""
        words = self.words_of(emotion, synonyms)
        return [template.replace("{}", word) for word in words for template in self.emotion_templates]

    def gender_prompts(self, gender: str) -> list[str]:
        """The gender prompts of one gender, one a template."""
        return [template.replace("{}", gender) for template in self.gender_templates]

    def joint_prompts(self, emotion: str, gender: str, synonyms: bool = False) -> list[str]:
        """The prompts that carry both attributes, one a template and word."""
        return [
            template.replace("{emotion}", word).replace("{gender}", gender)
            for word in self.words_of(emotion, synonyms)
            for template in self.joint_templates
        ]

    def training_prompts(self) -> list[str]:
        """Every prompt that training draws from."""
        prompts = [prompt for emotion in self.emotions for prompt in self.emotion_prompts(emotion, synonyms=True)]
        for gender in self.genders:
            prompts += self.gender_prompts(gender)
            prompts += [prompt for e in self.emotions for prompt in self.joint_prompts(e, gender, synonyms=True)]
        return prompts

    def unknown_words(self, prompts: list[str]) -> list[str]:
        """Words of prompts that the text tower was never trained on, in their order; none for a pretrained one."""
        if self.known_words is None:
            return []
        return [word for word in words_in(prompts) if word not in self.known_words]

    def class_prompts(self, labels=None, hypothesis_template=None) -> list[list[str]]:
        """Prompts whose mean embedding stands for each label at inference.

        A checkpoint that learnt joint texts takes the mean over its genders, all others the emotion prompts.

        Args:
            labels: Emotion words; None takes the checkpoint's own.
            hypothesis_template: One template or several, each with `{}`, in place of the checkpoint's own.

        Returns:
            One list of prompts for every label.

        Raises:
            ValueError: If a label is empty, stands twice or shares its prompts with another, or a template lacks `{}`.
        """
        labels = refuse_shared_prompts(
            "candidate_labels", check_words("candidate_labels", self.emotions if labels is None else labels)
        )
        if hypothesis_template is not None:
            templates = check_templates("hypothesis_template", hypothesis_template, ("{}",))
            return [[template.replace("{}", prompt_word(label)) for template in templates] for label in labels]
        if self.uses_joint_texts:
            return [[p for gender in self.genders for p in self.joint_prompts(label, gender)] for label in labels]
        return [self.emotion_prompts(label) for label in labels]

    def gender_class_prompts(self) -> list[list[str]]:
        """Prompts whose mean embedding stands for each gender.

        Raises:
            ValueError: If the checkpoint's objective never saw gender in a text.
        """
        if self.objective == "ml":
            return [self.gender_prompts(gender) for gender in self.genders]
        if self.uses_joint_texts:
            return [[p for emotion in self.emotions for p in self.joint_prompts(emotion, g)] for g in self.genders]
        raise ValueError(
            f"this checkpoint has no texts for gender: its objective is {self.objective!r} with {self.sl_texts=}; "
            f"'ml', or 'sl' with joint texts, has them"
        )


def _custom_pipelines() -> dict:
    return {
        "zero-shot-emotion-recognition": {
            "impl": "pipeline_gemoclap.ZeroShotEmotionPipeline",
            "pt": ["AutoModel"],
            "type": "multimodal",
        }
    }


GEmoClapAudioConfig.register_for_auto_class()
GEmoClapConfig.register_for_auto_class()
