"""GEmo-CLAP: an audio tower, a text tower, and a joint space in which a clip is near the words for its emotion."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from types import SimpleNamespace

import torch
from torch import nn
from torch.nn import functional as F
from transformers.modeling_outputs import SequenceClassifierOutput, XVectorOutput
from transformers.modeling_utils import PreTrainedModel
from transformers.utils import ModelOutput

from .base_gemoclap import GEmoClapPreTrainedModel, precision_of, split_by_tower
from .configuration_gemoclap import GEmoClapConfig
from .losses_gemoclap import classification_loss, contrastive_loss, known_labels, objective_terms
from .prompts_gemoclap import require_emotions
from .towers_gemoclap import build_text_tower, encode_text, load_audio_tower, load_text_tower

MAX_LOGIT_SCALE = math.log(100)


@dataclass
class GEmoClapOutput(ModelOutput):
    """What `GEmoClapModel` returns.

    Args:
        loss: Scalar, where emotion labels were given: the objective over this batch.
        logits_per_audio: `(audio_batch, text_batch)`, `audio_scale` times the cosine of audio and text; outside of
            training over `calibration_temperature`, so that their softmax is calibrated whoever takes it.
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


class GEmoClapModel(GEmoClapPreTrainedModel):
    """GEmo-CLAP: contrastive language-audio pretraining for speech emotion, aware of gender.

    The audio is pooled over the true frames of its tower (the paper: their mean), the text is the first token of its
    tower; two projections bring both into one space (eq. 1 and 2).

    Args:
        config: The configuration.
        audio_model: A ready audio tower in place of a fresh one.
        text_model: A ready text tower in place of a fresh one.

    Example:
        >>> model = GEmoClapModel.from_audio_text_pretrained("microsoft/wavlm-large", "FacebookAI/roberta-base")
        >>> model.save_pretrained("gemo-clap")
    """

    # The loss is a mean over the batch: Trainer must not divide it by a count of labels once more.
    accepts_loss_kwargs = False

    def __init__(
        self,
        config: GEmoClapConfig,
        audio_model: PreTrainedModel | None = None,
        text_model: PreTrainedModel | None = None,
    ):
        require_emotions(config.emotions)
        super().__init__(config)
        self._add_audio_tower(audio_model)
        self.text_model = text_model or build_text_tower(config.text_config)
        self.audio_projection = GEmoClapProjection(self.audio_pooling.output_size, config)
        self.text_projection = GEmoClapProjection(config.text_config.hidden_size, config)
        # Of shape (1,): sharded training (FSDP) knows no parameters without a dimension.
        self.audio_logit_scale = nn.Parameter(torch.tensor([float(config.logit_scale_init_value)]))
        self.text_logit_scale = nn.Parameter(torch.tensor([float(config.logit_scale_init_value)]))
        for scale in (self.audio_logit_scale, self.text_logit_scale):
            scale.requires_grad_(config.logit_scale_trainable)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, GEmoClapModel):
            nn.init.constant_(module.audio_logit_scale, self.config.logit_scale_init_value)
            nn.init.constant_(module.text_logit_scale, self.config.logit_scale_init_value)

    @property
    def audio_scale(self) -> torch.Tensor:
        """The paper's epsilon_a, at most 100: a scalar."""
        return self.audio_logit_scale.squeeze().clamp(max=MAX_LOGIT_SCALE).exp()

    @property
    def text_scale(self) -> torch.Tensor:
        """The paper's epsilon_t, at most 100: a scalar."""
        return self.text_logit_scale.squeeze().clamp(max=MAX_LOGIT_SCALE).exp()

    @staticmethod
    def _repository_files():
        """Never called: transformers copies the modules that this file imports, version 4 not those of those."""
        from .audio_encoder_gemoclap import GEmoClapAudioModel
        from .audio_files_gemoclap import decode
        from .audio_headers_gemoclap import AudioError
        from .feature_extraction_gemoclap import GEmoClapFeatureExtractor
        from .pipeline_gemoclap import ZeroShotEmotionPipeline
        from .processing_gemoclap import GEmoClapProcessor
        from .prompts_gemoclap import as_words
        from .recordings_gemoclap import read_audio
        from .safety_gemoclap import check_config

        names = GEmoClapAudioModel, GEmoClapFeatureExtractor, GEmoClapProcessor, ZeroShotEmotionPipeline
        return *names, as_words, check_config, decode, AudioError, read_audio

    @classmethod
    def from_audio_text_pretrained(cls, audio_name_or_path: str, text_name_or_path: str, **kwargs) -> GEmoClapModel:
        """Join a pretrained audio encoder and a pretrained text encoder; projections and scales are new.

        Args:
            audio_name_or_path: An audio encoder's checkpoint; docs/encoders.md names the families that were measured.
            text_name_or_path: A text encoder's checkpoint.
            **kwargs: Fields of `GEmoClapConfig`; those that begin with `audio_` or `text_` go, without the prefix, to
                the tower's own `from_pretrained`. `dtype` is the precision of the whole, float32 by default.

        Returns:
            The model, in eval mode as `from_pretrained` leaves it.

        Raises:
            ValueError: If a checkpoint is of another kind, lacks weights, or does not fit its configuration.

        Example:
            >>> GEmoClapModel.from_audio_text_pretrained(
            ...     "microsoft/wavlm-large", "FacebookAI/roberta-base", objective="sl", audio_layerdrop=0.0
            ... )
        """
        dtype = precision_of(kwargs)
        kwargs, audio, text = split_by_tower(kwargs)
        towers = {
            "audio": load_audio_tower(audio_name_or_path, **audio),
            "text": load_text_tower(text_name_or_path, kwargs.get("text_pooling", "first"), **text),
        }
        config = GEmoClapConfig(audio_config=towers["audio"].config, text_config=towers["text"].config, **kwargs)
        return cls(config, towers["audio"], towers["text"]).to(dtype).eval().started_from(audio_name_or_path)

    def get_audio_features(
        self,
        input_values: torch.Tensor | None = None,
        input_features: torch.Tensor | None = None,
        audio_attention_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Embed audio.

        Args:
            input_values: `(batch, samples)`, for towers that hear raw waves; for AST `(batch, frames, mel)`.
            input_features: `(batch, frames, mel)`, for spectrogram towers; for Whisper `(batch, mel, frames)`.
            audio_attention_mask: `(batch, samples)` or `(batch, frames)`, 1 for true input and 0 for padding.

        Returns:
            `(batch, projection_dim)`, unit length.

        Raises:
            ValueError: If not exactly one of the two inputs is given, or the device lacks the model's precision.
        """
        return self.audio_projection(self.pool_audio(input_values, input_features, audio_attention_mask))

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
        """First token of the text tower, or the mean of all, `(batch, hidden_size)`; see `get_text_features`."""
        with self._naming_lacking_precision():
            return encode_text(self.text_model, input_ids, attention_mask, self.config.text_pooling)

    def freeze_text_encoder(self) -> None:
        """Train nothing of the text tower; its projection goes on learning."""
        self.text_model.requires_grad_(False)

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
        embeds = self(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]).text_embeds
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
        """Embed audio, texts or both, compare them, and, given labels, take the loss over this batch.

        Args:
            input_values: `(audio_batch, samples)`, for towers that hear raw waves.
            input_features: `(audio_batch, frames, mel)`, for towers that hear spectrograms.
            audio_attention_mask: Mask of the audio input, `(audio_batch, samples or frames)`.
            input_ids: `(text_batch, tokens)`, the prompts.
            attention_mask: Mask of the prompts, `(text_batch, tokens)`.
            gender_input_ids: `(text_batch, tokens)`, gender prompts, for the objective `"ml"`.
            gender_attention_mask: Their mask.
            emotion_labels: `(batch,)`, indices into `config.emotions`, negative where unknown.
            gender_labels: `(batch,)`, indices into `config.genders`, negative where unknown.
            return_dict: False gives a tuple.

        Returns:
            A `GEmoClapOutput`; without audio or without texts what hangs on them is None.

        Raises:
            ValueError: If audio and text are missing, clips, texts and labels differ in number, or one has no class.
        """
        has_audio = input_values is not None or input_features is not None
        if input_ids is None and (emotion_labels is not None or not has_audio):
            raise ValueError("give input_ids, the prompts; for audio alone give it without labels")
        audio_embeds = text_embeds = gender_text_embeds = loss = logits_per_audio = logits_per_text = None
        if has_audio or emotion_labels is not None:
            audio_embeds = self.get_audio_features(input_values, input_features, audio_attention_mask)
        if input_ids is not None:
            text_embeds = self.get_text_features(input_ids, attention_mask)
        if gender_input_ids is not None:
            gender_text_embeds = self.get_text_features(gender_input_ids, gender_attention_mask)
        embeds = {"audio_embeds": audio_embeds, "text_embeds": text_embeds, "gender_text_embeds": gender_text_embeds}
        scales = {"audio_scale": self.audio_scale, "text_scale": self.text_scale}
        if emotion_labels is not None:
            emotions = known_labels("emotion_labels", emotion_labels, self.config.emotions)
            genders = known_labels("gender_labels", gender_labels, self.config.genders)
            loss = contrastive_loss(self.objective_terms(SimpleNamespace(**embeds, **scales), emotions, genders))
        if audio_embeds is not None and text_embeds is not None:
            cosine = audio_embeds @ text_embeds.T
            logits_per_audio, logits_per_text = self.audio_scale * cosine, self.text_scale * cosine.T
            if not self.training:
                logits_per_audio = logits_per_audio / (self.config.calibration_temperature or 1.0)
        output = GEmoClapOutput(loss, logits_per_audio, logits_per_text, **embeds, **scales)
        return output.to_tuple() if return_dict is False else output

    def objective_terms(
        self,
        output,
        emotion_labels: torch.Tensor,
        gender_labels: torch.Tensor | None = None,
        rows: slice = slice(None),
    ) -> list:
        """The weighted divergences of `config.objective` over the embeddings of `output`.

        Args:
            output: A `GEmoClapOutput`, or anything with its embeddings and scales, of one whole batch.
            emotion_labels: `(batch,)`, negative where unknown.
            gender_labels: `(batch,)`, negative where unknown; None takes all as unknown.
            rows: Which rows of the similarities are taken, against all columns: those of one process.

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
            rows,
        )


class _AudioAlone(GEmoClapPreTrainedModel):
    """What the models without a text tower share."""

    accepts_loss_kwargs = False

    def __init__(self, config: GEmoClapConfig, audio_model: PreTrainedModel | None = None):
        if config.custom_pipelines:  # the zero-shot pipeline wants texts
            config = copy.deepcopy(config)
            config.custom_pipelines = {}
        super().__init__(config)
        self._add_audio_tower(audio_model)

    @classmethod
    def from_audio_pretrained(cls, audio_name_or_path: str, **kwargs) -> _AudioAlone:
        """Start from a pretrained audio encoder; arguments and errors as `from_audio_text_pretrained`."""
        dtype = precision_of(kwargs)
        kwargs, audio, _ = split_by_tower(kwargs)
        tower = load_audio_tower(audio_name_or_path, **audio)
        model = cls(GEmoClapConfig(audio_config=tower.config, **kwargs), audio_model=tower).to(dtype).eval()
        return model.started_from(audio_name_or_path)


class GEmoClapForXVector(_AudioAlone):
    """An audio tower and its pooling alone: embeddings that know no words and no classes.

    Losses on embeddings train it; GEmo-CLAP and the classifier start from it (`train.py --init_from`).

    Args:
        config: The configuration.
        audio_model: A ready audio tower in place of a fresh one.

    Example:
        >>> model = AutoModelForAudioXVector.from_pretrained("ser-stage1", trust_remote_code=True)
        >>> model(**extractor(wave, sampling_rate=16000)).embeddings.shape
        torch.Size([1, 768])
    """

    def __init__(self, config: GEmoClapConfig, audio_model: PreTrainedModel | None = None):
        super().__init__(config, audio_model)
        self.post_init()

    def forward(
        self,
        input_values: torch.Tensor | None = None,
        input_features: torch.Tensor | None = None,
        audio_attention_mask: torch.Tensor | None = None,
        return_dict: bool | None = None,
    ) -> XVectorOutput:
        """Embed audio.

        Args:
            input_values: As for `pool_audio`.
            input_features: Likewise.
            audio_attention_mask: Likewise.
            return_dict: False gives a tuple.

        Returns:
            `embeddings` of `(batch, output_size)`, not of unit length.
        """
        output = XVectorOutput(embeddings=self.pool_audio(input_values, input_features, audio_attention_mask))
        return output.to_tuple() if return_dict is False else output


class GEmoClapForAudioClassification(_AudioAlone):
    """The baseline: the same audio tower and pooling, a linear or two-layer head, and cross-entropy.

    It has no text tower, and transformers' own pipeline serves it; `from_pretrained` on another checkpoint takes over
    the audio tower and its pooling.

    Args:
        config: The configuration; its `emotions` are the classes, `classifier_hidden_size` makes the head two layers.
        audio_model: A ready audio tower in place of a fresh one.

    Example:
        >>> model = AutoModelForAudioClassification.from_pretrained("ser-baseline", trust_remote_code=True)
        >>> model(**processor(audio="clip.wav")).logits.argmax(-1)
        tensor([2])
    """

    def __init__(self, config: GEmoClapConfig, audio_model: PreTrainedModel | None = None):
        require_emotions(config.emotions)
        super().__init__(config, audio_model)
        size, inner, classes = self.audio_pooling.output_size, config.classifier_hidden_size, len(config.emotions)
        hidden = [nn.Linear(size, inner), nn.ReLU()] if inner else []
        self.classifier = nn.Sequential(
            nn.Dropout(config.classifier_dropout), *hidden, nn.Linear(inner or size, classes)
        )
        self.post_init()

    def forward(
        self,
        input_values: torch.Tensor | None = None,
        input_features: torch.Tensor | None = None,
        audio_attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        return_dict: bool | None = None,
        audio_frames: torch.Tensor | None = None,
    ) -> SequenceClassifierOutput:
        """Classify audio and, given labels, take the loss over this batch.

        Args:
            input_values: As for `GEmoClapModel.get_audio_features`.
            input_features: Likewise.
            audio_attention_mask: Likewise.
            labels: `(batch,)`, indices into `config.emotions`; a negative one, unknown, is left out.
            return_dict: False gives a tuple.
            audio_frames: As for `pool_audio`.

        Returns:
            `logits` of `(batch, emotions)`, outside of training over `calibration_temperature`; `loss` is the mean
            cross-entropy over known labels, 0 where there is none.

        Raises:
            ValueError: If a label is beyond the classes.
        """
        logits = self.classifier(self.pool_audio(input_values, input_features, audio_attention_mask, audio_frames))
        if not self.training:
            logits = logits / (self.config.calibration_temperature or 1.0)
        loss = None if labels is None else classification_loss(logits, labels, self.config.emotions)
        output = SequenceClassifierOutput(loss=loss, logits=logits)
        return output.to_tuple() if return_dict is False else output


GEmoClapModel.register_for_auto_class("AutoModel")
GEmoClapForXVector.register_for_auto_class("AutoModelForAudioXVector")
GEmoClapForAudioClassification.register_for_auto_class("AutoModelForAudioClassification")
