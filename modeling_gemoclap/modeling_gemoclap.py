"""GEmo-CLAP: an audio tower, a text tower, and a joint space in which a clip is near the words for its emotion."""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass
from types import SimpleNamespace

import torch
from torch import nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModel
from transformers.configuration_utils import PretrainedConfig
from transformers.modeling_utils import PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_MAPPING
from transformers.utils import ModelOutput

from .audio_encoder_gemoclap import GEmoClapAudioModel
from .configuration_gemoclap import GEmoClapConfig
from .losses_gemoclap import contrastive_loss, objective_terms

MAX_LOGIT_SCALE = math.log(100)


@dataclass
class GEmoClapOutput(ModelOutput):
    """What `GEmoClapModel` returns.

    Args:
        loss: Scalar, where emotion labels were given: the objective over this batch.
        logits_per_audio: `(audio_batch, text_batch)`, `audio_scale` times the cosine of audio and text.
        logits_per_text: `(text_batch, audio_batch)`, `text_scale` times the cosine of text and audio.
        audio_embeds: `(audio_batch, projection_dim)`, unit length.
        text_embeds: `(text_batch, projection_dim)`, unit length.
        gender_text_embeds: `(text_batch, projection_dim)`, unit length, where gender prompts were given.
        audio_scale: Scalar, the paper's epsilon_a.
        text_scale: Scalar, the paper's epsilon_t.
    """

    loss: torch.Tensor | None = None
    logits_per_audio: torch.Tensor | None = None
    logits_per_text: torch.Tensor | None = None
    audio_embeds: torch.Tensor | None = None
    text_embeds: torch.Tensor | None = None
    gender_text_embeds: torch.Tensor | None = None
    audio_scale: torch.Tensor | None = None
    text_scale: torch.Tensor | None = None


class GEmoClapProjection(nn.Module):
    """The two-layer perceptron of eq. 2, followed by scaling to unit length."""

    def __init__(self, hidden_size: int, config: GEmoClapConfig):
        super().__init__()
        inner = config.projection_hidden_size or config.projection_dim
        self.linear1 = nn.Linear(hidden_size, inner)
        self.linear2 = nn.Linear(inner, config.projection_dim)
        self.dropout = nn.Dropout(config.projection_dropout)

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        """Map `(batch, hidden_size)` to `(batch, projection_dim)` of unit length."""
        return F.normalize(self.linear2(self.dropout(F.gelu(self.linear1(pooled)))), dim=-1)


def _tower(config: PretrainedConfig, **options) -> PreTrainedModel:
    """A tower with fresh weights; ours directly, since AutoModel does not know code that came from a local folder."""
    if config.model_type == "gemoclap_audio":
        return GEmoClapAudioModel(config)
    return AutoModel.from_config(config, **options)


def _without_pooler(config: PretrainedConfig) -> dict:
    """Options that leave a text encoder's unused pooler out, where it has one."""
    signature = inspect.signature(MODEL_MAPPING[type(config)].__init__)
    return {"add_pooling_layer": False} if "add_pooling_layer" in signature.parameters else {}


def _ignores_padding(config: PretrainedConfig) -> bool:
    """Whether a masked clip has the same frames beside longer ones.

    Group norm over time sees the padding, and so do the layer-normed positional convolutions of data2vec.
    """
    if config.model_type == "gemoclap_audio":
        return True
    return config.model_type in ("wav2vec2", "hubert", "wavlm") and config.feat_extract_norm == "layer"


class GEmoClapModel(PreTrainedModel):
    """GEmo-CLAP: contrastive language-audio pretraining for speech emotion, aware of gender.

    The audio is the masked mean over the frames of its tower, the text the first token of its tower; two projections
    bring both into one space (eq. 1 and 2).

    Args:
        config: The configuration.
        audio_model: A ready audio tower in place of a fresh one.
        text_model: A ready text tower in place of a fresh one.

    Example:
        >>> model = GEmoClapModel.from_audio_text_pretrained("microsoft/wavlm-large", "FacebookAI/roberta-base")
        >>> model.save_pretrained("gemo-clap")
    """

    config_class = GEmoClapConfig
    base_model_prefix = "gemoclap"
    main_input_name = "input_values"
    _supports_sdpa = True
    # The loss is a mean over the batch: Trainer must not divide it by a count of labels once more.
    accepts_loss_kwargs = False

    def __init__(
        self,
        config: GEmoClapConfig,
        audio_model: PreTrainedModel | None = None,
        text_model: PreTrainedModel | None = None,
    ):
        super().__init__(config)
        self.audio_model = audio_model or _tower(config.audio_config)
        self.text_model = text_model or _tower(config.text_config, **_without_pooler(config.text_config))
        self.main_input_name = self.audio_model.main_input_name
        self.audio_projection = GEmoClapProjection(config.audio_config.hidden_size, config)
        self.text_projection = GEmoClapProjection(config.text_config.hidden_size, config)
        self.audio_logit_scale = nn.Parameter(torch.tensor(float(config.logit_scale_init_value)))
        self.text_logit_scale = nn.Parameter(torch.tensor(float(config.logit_scale_init_value)))
        for scale in (self.audio_logit_scale, self.text_logit_scale):
            scale.requires_grad_(config.logit_scale_trainable)
        if hasattr(self.audio_model, "masked_spec_embed") and not _applies_spec_augment(config.audio_config):
            # It takes part in SpecAugment alone; a parameter without gradient would stall distributed training.
            self.audio_model.masked_spec_embed.requires_grad_(False)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=self.config.initializer_range)
            nn.init.zeros_(module.bias)
        elif isinstance(module, GEmoClapModel):
            nn.init.constant_(module.audio_logit_scale, self.config.logit_scale_init_value)
            nn.init.constant_(module.text_logit_scale, self.config.logit_scale_init_value)

    @property
    def audio_scale(self) -> torch.Tensor:
        """The paper's epsilon_a, at most 100."""
        return self.audio_logit_scale.clamp(max=MAX_LOGIT_SCALE).exp()

    @property
    def text_scale(self) -> torch.Tensor:
        """The paper's epsilon_t, at most 100."""
        return self.text_logit_scale.clamp(max=MAX_LOGIT_SCALE).exp()

    @staticmethod
    def _repository_files():
        """Never called: transformers copies relatively imported modules, and these must travel too."""
        from .feature_extraction_gemoclap import GEmoClapFeatureExtractor
        from .pipeline_gemoclap import ZeroShotEmotionPipeline
        from .processing_gemoclap import GEmoClapProcessor

        return GEmoClapFeatureExtractor, GEmoClapProcessor, ZeroShotEmotionPipeline

    @classmethod
    def from_audio_text_pretrained(cls, audio_name_or_path: str, text_name_or_path: str, **kwargs) -> GEmoClapModel:
        """Join a pretrained audio encoder and a pretrained text encoder; projections and scales are new.

        Args:
            audio_name_or_path: A WavLM, HuBERT, wav2vec 2.0 or Data2VecAudio checkpoint, or a `GEmoClapAudioModel`.
            text_name_or_path: A RoBERTa-like checkpoint.
            **kwargs: Fields of `GEmoClapConfig`; those that begin with `audio_` or `text_` go, without the prefix, to
                the tower's own `from_pretrained`.

        Returns:
            The model, in eval mode as `from_pretrained` leaves it.

        Example:
            >>> GEmoClapModel.from_audio_text_pretrained(
            ...     "microsoft/wavlm-large", "FacebookAI/roberta-base", objective="sl", audio_layerdrop=0.0
            ... )
        """
        audio = {key.removeprefix("audio_"): kwargs.pop(key) for key in list(kwargs) if key.startswith("audio_")}
        text = {key.removeprefix("text_"): kwargs.pop(key) for key in list(kwargs) if key.startswith("text_")}
        model_type = PretrainedConfig.get_config_dict(audio_name_or_path)[0].get("model_type")
        audio_class = GEmoClapAudioModel if model_type == "gemoclap_audio" else AutoModel
        audio_model = audio_class.from_pretrained(audio_name_or_path, **audio)
        if not (hasattr(audio_model.config, "conv_stride") or model_type == "gemoclap_audio"):
            raise ValueError(
                f"{audio_name_or_path} is a {model_type!r} model, not an encoder of raw waves: give a WavLM, HuBERT, "
                f"wav2vec 2.0 or Data2VecAudio checkpoint"
            )
        text_config, text = AutoConfig.from_pretrained(text_name_or_path, return_unused_kwargs=True, **text)
        text_model = AutoModel.from_pretrained(
            text_name_or_path, config=text_config, **_without_pooler(text_config), **text
        )
        towers = {"audio": audio_model, "text": text_model}
        # A composite configuration sets the attention of its parts, so it is told what the towers came with.
        attention = {f"{name}_config": tower.config._attn_implementation for name, tower in towers.items()}
        kwargs.setdefault("attn_implementation", attention)
        config = GEmoClapConfig(audio_config=audio_model.config, text_config=text_model.config, **kwargs)
        return cls(config, audio_model=audio_model, text_model=text_model).eval()

    def get_audio_features(
        self,
        input_values: torch.Tensor | None = None,
        input_features: torch.Tensor | None = None,
        audio_attention_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Embed audio.

        Args:
            input_values: `(batch, samples)`, for towers that hear raw waves.
            input_features: `(batch, frames, num_mel_bins)`, for the compact encoder.
            audio_attention_mask: `(batch, samples)` or `(batch, frames)`, 1 for true input and 0 for padding.

        Returns:
            `(batch, projection_dim)`, unit length.

        Raises:
            ValueError: If not exactly one of the two inputs is given.
        """
        return self.audio_projection(self.pool_audio(input_values, input_features, audio_attention_mask))

    def pool_audio(self, input_values=None, input_features=None, audio_attention_mask=None) -> torch.Tensor:
        """Mean over the true frames of the audio tower, `(batch, hidden_size)`; arguments as `get_audio_features`."""
        if (input_values is None) == (input_features is None):
            raise ValueError("give input_values (raw waves) or input_features (log-mel), one of the two")
        inputs = (input_features if input_values is None else input_values).to(self.dtype)
        if audio_attention_mask is None or _ignores_padding(self.config.audio_config):
            return self._mean_frames(inputs, audio_attention_mask)
        return self._mean_frames_by_length(inputs, audio_attention_mask)

    def _mean_frames(self, inputs: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        hidden = self.audio_model(inputs, attention_mask=mask).last_hidden_state
        if mask is None:
            return hidden.mean(1)
        frames = self.audio_model._get_feature_vector_attention_mask(hidden.shape[1], mask)
        frames = frames[..., None].to(hidden.dtype)
        return (hidden * frames).sum(1) / frames.sum(1)

    def _mean_frames_by_length(self, inputs: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """As `_mean_frames` for towers that padding leaks into: clips of one length at a time, none of them padded."""
        lengths = mask.sum(1)
        order, pooled = [], []
        for length in lengths.unique().tolist():
            rows = (lengths == length).nonzero()[:, 0]
            order.append(rows)
            pooled.append(self._mean_frames(inputs[rows, :length], None))
        return torch.cat(pooled)[torch.cat(order).argsort()]

    def get_text_features(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
        """Embed prompts.

        Args:
            input_ids: `(batch, tokens)`.
            attention_mask: `(batch, tokens)`.

        Returns:
            `(batch, projection_dim)`, unit length.
        """
        return self.text_projection(self.pool_text(input_ids, attention_mask))

    def pool_text(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
        """First token of the text tower, `(batch, hidden_size)`; arguments as `get_text_features`."""
        return self.text_model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state[:, 0]

    @torch.no_grad()
    def get_class_embeddings(self, class_prompts: list[list[str]], tokenizer) -> torch.Tensor:
        """Embed classes: the mean of each class's unit-length prompt embeddings, brought to unit length again.

        Args:
            class_prompts: One list of prompts a class, as `config.class_prompts()` gives.
            tokenizer: The text tower's tokenizer.

        Returns:
            `(classes, projection_dim)`, unit length.
        """
        prompts = [prompt for group in class_prompts for prompt in group]
        tokens = tokenizer(prompts, padding=True, truncation=True, return_tensors="pt").to(self.device)
        embeds = self.get_text_features(tokens["input_ids"], tokens["attention_mask"])
        means = [part.mean(0) for part in embeds.split([len(group) for group in class_prompts])]
        return F.normalize(torch.stack(means), dim=-1)

    def forward(
        self,
        input_values: torch.Tensor | None = None,
        input_features: torch.Tensor | None = None,
        audio_attention_mask: torch.Tensor | None = None,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        gender_input_ids: torch.Tensor | None = None,
        gender_attention_mask: torch.Tensor | None = None,
        emotion_labels: torch.Tensor | None = None,
        gender_labels: torch.Tensor | None = None,
        return_dict: bool | None = None,
    ) -> GEmoClapOutput:
        """Embed audio and texts, compare them, and, given labels, take the loss over this batch.

        Args:
            input_values: `(audio_batch, samples)`, for towers that hear raw waves.
            input_features: `(audio_batch, frames, num_mel_bins)`, for the compact encoder.
            audio_attention_mask: Mask of the audio input, `(audio_batch, samples or frames)`.
            input_ids: `(text_batch, tokens)`, the prompts.
            attention_mask: Mask of the prompts, `(text_batch, tokens)`.
            gender_input_ids: `(text_batch, tokens)`, gender prompts, for the objective `"ml"`.
            gender_attention_mask: Their mask.
            emotion_labels: `(batch,)`, indices into `config.emotions`, -1 where unknown.
            gender_labels: `(batch,)`, indices into `config.genders`, -1 where unknown.
            return_dict: False gives a tuple.

        Returns:
            A `GEmoClapOutput`.

        Raises:
            ValueError: If audio or text is missing, or labels are given with unequal numbers of clips and texts.
        """
        if input_ids is None:
            raise ValueError("give input_ids, the prompts; audio alone is embedded by get_audio_features")
        audio_embeds = self.get_audio_features(input_values, input_features, audio_attention_mask)
        text_embeds = self.get_text_features(input_ids, attention_mask)
        gender_text_embeds = None
        if gender_input_ids is not None:
            gender_text_embeds = self.get_text_features(gender_input_ids, gender_attention_mask)
        embeds = {"audio_embeds": audio_embeds, "text_embeds": text_embeds, "gender_text_embeds": gender_text_embeds}
        scales = {"audio_scale": self.audio_scale, "text_scale": self.text_scale}
        loss = None
        if emotion_labels is not None:
            terms = self.objective_terms(SimpleNamespace(**embeds, **scales), emotion_labels, gender_labels)
            loss = contrastive_loss(terms)
        cosine = audio_embeds @ text_embeds.T
        output = GEmoClapOutput(
            loss=loss,
            logits_per_audio=self.audio_scale * cosine,
            logits_per_text=self.text_scale * cosine.T,
            **embeds,
            **scales,
        )
        return output.to_tuple() if return_dict is False else output

    def objective_terms(self, output, emotion_labels: torch.Tensor, gender_labels: torch.Tensor | None = None) -> list:
        """The weighted divergences of `config.objective` over the embeddings of `output`.

        Args:
            output: A `GEmoClapOutput`, or anything with its embeddings and scales, of one whole batch.
            emotion_labels: `(batch,)`, -1 where unknown.
            gender_labels: `(batch,)`, -1 where unknown; None takes all as unknown.

        Returns:
            A list of `ContrastiveTerm`.

        Raises:
            ValueError: If there are not as many clips as texts and labels.
        """
        clips, texts = len(output.audio_embeds), len(output.text_embeds)
        if not clips == texts == len(emotion_labels):
            raise ValueError(
                f"the loss wants one text and one label a clip: {clips=}, {texts=}, {len(emotion_labels)=}"
            )
        return objective_terms(
            self.config.objective,
            output.audio_embeds,
            output.text_embeds,
            output.audio_scale,
            output.text_scale,
            emotion_labels,
            gender_labels,
            output.gender_text_embeds,
            self.config.alpha,
            self.config.similarity,
            self.config.targets,
        )


def _applies_spec_augment(config: PretrainedConfig) -> bool:
    masks = getattr(config, "mask_time_prob", 0) > 0 or getattr(config, "mask_feature_prob", 0) > 0
    return getattr(config, "apply_spec_augment", True) and masks


GEmoClapModel.register_for_auto_class("AutoModel")
