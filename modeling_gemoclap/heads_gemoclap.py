"""The layers on top of the towers, the embedding of prompts, the scale of logits, and the output of the model."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F
from transformers.utils import ModelOutput

from .configuration_gemoclap import GEmoClapConfig
from .encoding_gemoclap import encode_text

MAX_LOGIT_SCALE = math.log(100)


class GEmoClapAudioPooling(nn.Module):
    """Pools the frames of an audio tower into one vector for each clip.

    With `use_weighted_layer_sum`, the frames are a learnt weighted mean over all layers, else those of the last layer.
    `"mean"` is the mean over valid frames, `"mean_std"` concatenates their mean and standard deviation, and
    `"self_attention"` is `softmax(W_c H^T) H` with a learnt vector `W_c` (Safari et al., 2020; eq. 1 of Xiang).
    """

    def __init__(self, config: GEmoClapConfig):
        super().__init__()
        audio = config.audio_config
        self.pooling = config.pooling
        self.output_size = audio.hidden_size * (2 if config.pooling == "mean_std" else 1)
        self.dropout = nn.Dropout(config.pooled_dropout)
        self.layer_weights = self.attention = None
        if config.use_weighted_layer_sum:
            self.layer_weights = nn.Parameter(torch.zeros(audio.num_hidden_layers + 1))
        if config.pooling == "self_attention":
            self.attention = nn.Linear(audio.hidden_size, 1, bias=False)

    def forward(self, states: list[torch.Tensor], mask: torch.Tensor | None) -> torch.Tensor:
        """Pool frames.

        Args:
            states: Hidden states, each `(batch, frames, hidden_size)`.
            mask: `(batch, frames)`, 1 for valid frames; None if all frames are valid.

        Returns:
            `(batch, output_size)`. The mean of a clip without valid frames is zero.
        """
        hidden = states[-1]
        if self.layer_weights is not None:
            hidden = torch.einsum("l,lbth->bth", self.layer_weights.softmax(0).to(hidden.dtype), torch.stack(states))
        if mask is None:
            mask = hidden.new_ones(hidden.shape[:2])
        mask = mask[..., None].bool()
        hidden = torch.where(mask, hidden, hidden.new_zeros(()))  # twice as fast as masked_fill
        if self.attention is not None:  # not -inf, with which the weights of a clip without valid frames would be NaN
            lowest = torch.finfo(hidden.dtype).min
            return self.dropout((self.attention(hidden).masked_fill(~mask, lowest).softmax(1) * hidden).sum(1))
        count = mask.sum(1).clamp_min(1)
        sum_dtype = torch.promote_types(hidden.dtype, torch.float32)  # the sum over a long clip overflows float16
        mean = hidden.sum(1, dtype=sum_dtype) / count
        if self.pooling == "mean":
            return self.dropout(mean.to(hidden.dtype))
        variance = (hidden - mean[:, None]).mul_(mask).square().sum(1) / count
        return self.dropout(torch.cat([mean, (variance + 1e-7).sqrt()], -1).to(hidden.dtype))


class GEmoClapProjection(nn.Module):
    """The two-layer perceptron of eq. 2, followed by normalisation to unit length."""

    def __init__(self, hidden_size: int, config: GEmoClapConfig, dropout: float = 0.0):
        super().__init__()
        inner = config.projection_hidden_size or config.projection_dim
        self.linear1 = nn.Linear(hidden_size, inner)
        self.linear2 = nn.Linear(inner, config.projection_dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        """Map `(batch, hidden_size)` to `(batch, projection_dim)` of unit length."""
        embeds = self.linear2(self.dropout(F.gelu(self.linear1(pooled))))
        wide = embeds.to(torch.promote_types(embeds.dtype, torch.float32))  # the norm overflows float16
        return F.normalize(wide, dim=-1).to(embeds.dtype)


def bounded_scale(logit_scale: torch.Tensor) -> torch.Tensor:
    """Return the scale of logits, a scalar of at most 100, from its logarithm `(1,)`."""
    return logit_scale.squeeze().clamp(max=MAX_LOGIT_SCALE).exp()


@dataclass
class GEmoClapOutput(ModelOutput):
    """Output of `GEmoClapModel`.

    Args:
        loss: Scalar, the loss over this batch; None without emotion labels.
        logits_per_audio: `(audio_batch, text_batch)`, `audio_scale` times the cosine of audio and text; outside of
            training divided by `calibration_temperature`, so that their softmax is calibrated.
        logits_per_text: `(text_batch, audio_batch)`, `text_scale` times the cosine of text and audio.
        audio_embeds: `(audio_batch, projection_dim)`, unit length.
        text_embeds: `(text_batch, projection_dim)`, unit length.
        gender_text_embeds: `(text_batch, projection_dim)`, unit length; None without gender prompts.
        audio_scale: Scalar, epsilon_a in the paper.
        text_scale: Scalar, epsilon_t in the paper.
    """

    loss: torch.Tensor | None = None
    logits_per_audio: torch.Tensor | None = None
    logits_per_text: torch.Tensor | None = None
    audio_embeds: torch.Tensor | None = None
    text_embeds: torch.Tensor | None = None
    gender_text_embeds: torch.Tensor | None = None
    audio_scale: torch.Tensor | None = None
    text_scale: torch.Tensor | None = None


class TextEmbedding:
    """The methods of a model that embed prompts by its `text_model` and `text_projection`."""

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
        """Encode prompts and pool their tokens, `(batch, hidden_size)`; arguments as for `get_text_features`."""
        with self._explain_unsupported_dtype():
            return encode_text(self.text_model, input_ids, attention_mask, self.config.text_pooling)

    def freeze_text_encoder(self) -> None:
        """Freeze the text tower, but not its projection."""
        self._freeze("text_model")

    @torch.no_grad()
    def get_class_embeddings(self, class_prompts: list[list[str]], tokenizer) -> torch.Tensor:
        """Embed classes by the normalised mean of the embeddings of their prompts.

        Args:
            class_prompts: One list of prompts for each class, as from `config.class_prompts()`.
            tokenizer: The tokenizer of the text tower.

        Returns:
            `(classes, projection_dim)`, unit length.
        """
        prompts = [prompt for group in class_prompts for prompt in group]
        tokens = tokenizer(prompts, padding=True, truncation=True, return_tensors="pt").to(self.device)
        embeds = self(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]).text_embeds
        means = [group.mean(0) for group in embeds.split([len(group) for group in class_prompts])]
        return F.normalize(torch.stack(means), dim=-1)

    def _embed_texts(self, input_ids, mask, vectors, index: torch.Tensor | None) -> torch.Tensor | None:
        """Embed the prompts of clips, `(batch, projection_dim)`: tokens, or outputs of `pool_text`; None without both.

        With an index `(batch,)`, they are distinct prompts, and each clip gets the row of its prompt.
        """
        if input_ids is None and vectors is None:
            return None
        embeds = self.text_projection(vectors) if input_ids is None else self.get_text_features(input_ids, mask)
        return embeds if index is None else F.embedding(index, embeds)
