"""GEmo-CLAP, which embeds audio and text in a joint space, and the models without a text tower."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import nn
from transformers.modeling_outputs import SequenceClassifierOutput, XVectorOutput
from transformers.modeling_utils import PreTrainedModel

from .base_gemoclap import GEmoClapAudioOnlyModel, GEmoClapPreTrainedModel, pop_dtype, split_by_tower
from .configuration_gemoclap import GEmoClapConfig
from .heads_gemoclap import GEmoClapOutput, GEmoClapProjection, TextEmbedding, bounded_scale
from .losses_gemoclap import (
    ContrastiveBatch,
    LossSettings,
    classification_loss,
    contrastive_loss,
    known_labels,
    objective_terms,
)
from .prompts_gemoclap import require_emotions
from .towers_gemoclap import build_text_tower, load_audio_tower, load_text_tower


class GEmoClapModel(TextEmbedding, GEmoClapPreTrainedModel):
    """GEmo-CLAP: gender-aware contrastive language-audio pretraining for speech emotion recognition.

    The model pools the valid frames of the audio tower (their mean in the paper) and takes the first token of the text
    tower. Two projections map both into a joint space (eq. 1 and 2).

    Args:
        config: The configuration.
        audio_model: A ready audio tower; by default a new one.
        text_model: A ready text tower; by default a new one.

    Example:
        >>> model = GEmoClapModel.from_audio_text_pretrained("microsoft/wavlm-large", "FacebookAI/roberta-base")
        >>> model.save_pretrained("gemo-clap")
    """

    accepts_loss_kwargs = False  # the loss is a mean over the batch: Trainer must not divide it by the labels

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
        self.audio_projection = GEmoClapProjection(self.audio_pooling.output_size, config, config.projection_dropout)
        self.text_projection = GEmoClapProjection(config.text_config.hidden_size, config)
        # The shape is (1,), because sharded training (FSDP) does not support parameters without dimensions.
        scale = torch.tensor([float(config.logit_scale_init_value)])
        self.audio_logit_scale = nn.Parameter(scale.clone(), config.logit_scale_trainable)
        self.text_logit_scale = nn.Parameter(scale, config.logit_scale_trainable)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, GEmoClapModel):
            nn.init.constant_(module.audio_logit_scale, self.config.logit_scale_init_value)
            nn.init.constant_(module.text_logit_scale, self.config.logit_scale_init_value)

    @property
    def audio_scale(self) -> torch.Tensor:
        """The scale of audio logits, epsilon_a in the paper: a scalar of at most 100."""
        return bounded_scale(self.audio_logit_scale)

    @property
    def text_scale(self) -> torch.Tensor:
        """The scale of text logits, epsilon_t in the paper: a scalar of at most 100."""
        return bounded_scale(self.text_logit_scale)

    @staticmethod
    def _repository_files():
        """Never called: transformers 4 copies only the modules that this file imports, not their imports."""
        from .attention_gemoclap import use_kernels
        from .audio_encoder_gemoclap import GEmoClapAudioModel
        from .audio_files_gemoclap import decode
        from .audio_headers_gemoclap import AudioError
        from .batching_gemoclap import process_in_batches
        from .encoding_gemoclap import encode_text
        from .feature_extraction_gemoclap import GEmoClapFeatureExtractor
        from .frozen_gemoclap import run_last_layers
        from .pipeline_gemoclap import ZeroShotEmotionPipeline
        from .processing_gemoclap import GEmoClapProcessor
        from .recordings_gemoclap import read_audio
        from .safety_gemoclap import check_config
        from .spectrograms_gemoclap import log_mel
        from .speech_gemoclap import trim_silence
        from .versions_gemoclap import check_format

        names = GEmoClapAudioModel, GEmoClapFeatureExtractor, GEmoClapProcessor, ZeroShotEmotionPipeline, use_kernels
        others = AudioError, check_config, check_format, decode, encode_text, log_mel, process_in_batches, read_audio
        return *names, *others, run_last_layers, trim_silence

    @classmethod
    def from_audio_text_pretrained(cls, audio_name_or_path: str, text_name_or_path: str, **kwargs) -> GEmoClapModel:
        """Combine a pretrained audio encoder and a pretrained text encoder with new projections and scales.

        Args:
            audio_name_or_path: Checkpoint of an audio encoder; docs/encoders.md lists the measured families.
            text_name_or_path: Checkpoint of a text encoder.
            **kwargs: Fields of `GEmoClapConfig`. Arguments with the prefix `audio_` or `text_` go, without the prefix,
                to `from_pretrained` of the tower, but `audio_layers` and `text_layers` are the numbers of first layers
                that are kept, and `audio_window_seconds` is Whisper's window (give it to the processor too). `dtype`
                is the precision of the entire model, float32 by default.

        Returns:
            The model, in eval mode as with `from_pretrained`.

        Raises:
            ValueError: If a checkpoint is not such an encoder, lacks weights, or does not match its configuration.

        Example:
            >>> GEmoClapModel.from_audio_text_pretrained(
            ...     "microsoft/wavlm-large", "FacebookAI/roberta-base", objective="sl", audio_layerdrop=0.0
            ... )
        """
        dtype = pop_dtype(kwargs)
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
        audio_frames: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Embed audio.

        Args:
            input_values: `(batch, samples)`, for towers with raw waveforms; for AST `(batch, frames, mel)`.
            input_features: `(batch, frames, mel)`, for towers with spectrograms; for Whisper
                `(batch, mel, windows * frames)`.
            audio_attention_mask: `(batch, samples)` or `(batch, frames)`, 1 for valid input and 0 for padding.
            audio_frames: See `pool_audio`.

        Returns:
            `(batch, projection_dim)`, unit length.

        Raises:
            ValueError: If both or neither of `input_values` and `input_features` are given, or if the device does not
                support the dtype of the model.
        """
        return self.audio_projection(self.pool_audio(input_values, input_features, audio_attention_mask, audio_frames))

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
        audio_frames: torch.Tensor | None = None,
        text_vectors: torch.Tensor | None = None,
        gender_text_vectors: torch.Tensor | None = None,
        prompt_index: torch.Tensor | None = None,
        gender_prompt_index: torch.Tensor | None = None,
    ) -> GEmoClapOutput:
        """Embed audio, texts or both, and compute their similarities and, with labels, the loss.

        Args:
            input_values: `(audio_batch, samples)`, for towers with raw waveforms.
            input_features: `(audio_batch, frames, mel)`, for towers with spectrograms.
            audio_attention_mask: `(audio_batch, samples or frames)`, mask of the audio.
            input_ids: `(text_batch, tokens)`, the prompts.
            attention_mask: `(text_batch, tokens)`, mask of the prompts.
            gender_input_ids: `(text_batch, tokens)`, gender prompts, for the objective `"ml"`.
            gender_attention_mask: `(text_batch, tokens)`, mask of the gender prompts.
            emotion_labels: `(batch,)`, indices into `config.emotions`, negative where unknown.
            gender_labels: `(batch,)`, indices into `config.genders`, negative where unknown.
            return_dict: Whether to return a `GEmoClapOutput` instead of a tuple; default True.
            audio_frames: See `pool_audio`.
            text_vectors: `(text_batch, hidden_size)`, outputs of `pool_text` instead of `input_ids`.
            gender_text_vectors: `(text_batch, hidden_size)`, the same for the gender prompts.
            prompt_index: `(text_batch,)`, the row in `input_ids` of each text, if `input_ids` has each distinct prompt
                once; None: one row for each text.
            gender_prompt_index: `(text_batch,)`, the same for the gender prompts.

        Returns:
            A `GEmoClapOutput`. Fields that require audio or texts are None without them.

        Raises:
            ValueError: If neither audio nor text is given, if the numbers of clips, texts and labels differ, or if a
                label is not an index of a class.
        """
        has_audio = any(value is not None for value in (input_values, input_features, audio_frames))
        if input_ids is None and text_vectors is None and (emotion_labels is not None or not has_audio):
            raise ValueError("give input_ids, the prompts; to embed only audio, give audio without labels")
        audio_embeds = loss = logits_per_audio = logits_per_text = None
        if has_audio or emotion_labels is not None:
            audio_embeds = self.get_audio_features(input_values, input_features, audio_attention_mask, audio_frames)
        text_embeds = self._embed_texts(input_ids, attention_mask, text_vectors, prompt_index)
        gender_text_embeds = self._embed_texts(
            gender_input_ids, gender_attention_mask, gender_text_vectors, gender_prompt_index
        )
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
        """Compute the weighted divergences of `config.objective` from embeddings and labels.

        Args:
            output: A `GEmoClapOutput`, or an object with its embeddings and scales, of the global batch.
            emotion_labels: `(batch,)`, negative where unknown.
            gender_labels: `(batch,)`, negative where unknown; None if all are unknown.
            rows: The rows of the similarity matrices to compute, against all columns; those of one process.

        Returns:
            A list of `ContrastiveTerm`.

        Raises:
            ValueError: If the numbers of clips, texts and labels differ.
        """
        clips, texts, labels = len(output.audio_embeds), len(output.text_embeds), len(emotion_labels)
        if not clips == texts == labels:
            raise ValueError(f"the loss needs one text and one label for each clip: {clips=}, {texts=}, {labels=}")
        config, embeds = self.config, (output.audio_embeds, output.text_embeds)
        scales, all_labels = (output.audio_scale, output.text_scale), (emotion_labels, gender_labels)
        batch = ContrastiveBatch(*embeds, *scales, *all_labels, output.gender_text_embeds)
        settings = LossSettings(config.alpha, config.similarity, config.targets)
        return objective_terms(config.objective, batch, settings, rows)


class GEmoClapForXVector(GEmoClapAudioOnlyModel):
    """An audio tower with pooling, which embeds audio without text and classes.

    It is trained with losses on embeddings, and initialises GEmo-CLAP and the classifier (`train.py --init_from`).

    Args:
        config: The configuration.
        audio_model: A ready audio tower; by default a new one.

    Example:
        >>> model = AutoModelForAudioXVector.from_pretrained("runs/stage1", trust_remote_code=True)
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
        audio_frames: torch.Tensor | None = None,
    ) -> XVectorOutput:
        """Embed audio.

        Args:
            input_values: See `pool_audio`.
            input_features: See `pool_audio`.
            audio_attention_mask: See `pool_audio`.
            return_dict: Whether to return an `XVectorOutput` instead of a tuple; default True.
            audio_frames: See `pool_audio`.

        Returns:
            `embeddings` of `(batch, output_size)`, not normalised.
        """
        embeddings = self.pool_audio(input_values, input_features, audio_attention_mask, audio_frames)
        return (embeddings,) if return_dict is False else XVectorOutput(embeddings=embeddings)


class GEmoClapForAudioClassification(GEmoClapAudioOnlyModel):
    """The baseline: an audio tower with pooling and a linear or two-layer head, trained with cross-entropy.

    It works with the pipeline `audio-classification` of transformers. Loading another checkpoint of this package
    initialises the audio tower and its pooling.

    Args:
        config: The configuration. Its `emotions` are the classes; `classifier_hidden_size` adds a layer to the head.
        audio_model: A ready audio tower; by default a new one.

    Example:
        >>> model = AutoModelForAudioClassification.from_pretrained("runs/baseline", trust_remote_code=True)
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
        """Classify audio and, with labels, compute the loss.

        Args:
            input_values: See `pool_audio`.
            input_features: See `pool_audio`.
            audio_attention_mask: See `pool_audio`.
            labels: `(batch,)`, indices into `config.emotions`; a negative label is unknown and ignored.
            return_dict: Whether to return a `SequenceClassifierOutput` instead of a tuple; default True.
            audio_frames: See `pool_audio`.

        Returns:
            `logits` of `(batch, emotions)`, outside of training divided by `calibration_temperature`; `loss` is the
            mean cross-entropy over known labels, 0 if all are unknown.

        Raises:
            ValueError: If a label is not an index into `config.emotions`.
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
