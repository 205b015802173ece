"""The compact audio encoder: a small CNN and a few Transformer layers on log-mel features."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutput
from transformers.modeling_utils import PreTrainedModel

from .configuration_gemoclap import GEmoClapAudioConfig


def _repository_files():
    """Never called: transformers 4 copies only the modules that this file imports, not their imports."""
    from .prompts_gemoclap import parse_words
    from .safety_gemoclap import check_config
    from .versions_gemoclap import check_format

    return parse_words, check_config, check_format


def _zero_padding(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Set padded frames of `(batch, channels, time, ...)` to zero, like the zero padding of a single clip."""
    return hidden * mask.view(mask.shape[0], 1, mask.shape[1], *[1] * (hidden.dim() - 3)).to(hidden.dtype)


def _strided_mask(mask: torch.Tensor, stride: int, frames: int) -> torch.Tensor:
    """The mask `(batch, frames)` after a strided layer, for clips with padding at their end."""
    lengths = torch.div(mask.sum(1) + stride - 1, stride, rounding_mode="floor")
    return torch.arange(frames, device=mask.device) < lengths[:, None]


class GEmoClapMaskedNorm(nn.Module):
    """Instance norm: zero mean and unit variance of each channel over the valid frames and mel bands of a clip.

    Training and evaluation use the statistics of the clip, without padding.
    """

    def __init__(self, channels: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Normalise `(batch, channels, time, mel)`, whose padding must be zero and remains zero."""
        count = (mask.sum(1).clamp_min(1) * hidden.shape[-1]).view(-1, 1, 1, 1)
        centred = _zero_padding(hidden - hidden.sum((2, 3), keepdim=True) / count, mask)
        variance = centred.square().sum((2, 3), keepdim=True) / count
        scale = self.weight.view(1, -1, 1, 1) * torch.rsqrt(variance + self.eps)
        return _zero_padding(centred * scale + self.bias.view(1, -1, 1, 1), mask)


class GEmoClapConvBlock(nn.Module):
    """A strided 3x3 convolution with masked instance norm."""

    def __init__(self, in_channels: int, out_channels: int, time_stride: int, config: GEmoClapAudioConfig):
        super().__init__()
        self.time_stride = time_stride
        self.conv = nn.Conv2d(in_channels, out_channels, 3, stride=(time_stride, 2), padding=1)
        self.norm = GEmoClapMaskedNorm(out_channels, config.layer_norm_eps)
        self.dropout = nn.Dropout2d(config.conv_dropout)

    def forward(self, hidden: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Map `(batch, channels, time, mel)` and the frame mask `(batch, time)` to the next resolution."""
        hidden = self.conv(hidden)
        mask = _strided_mask(mask, self.time_stride, hidden.shape[2])
        hidden = self.norm(_zero_padding(hidden, mask), mask)
        return self.dropout(F.gelu(hidden)), mask  # GELU and dropout map zero to zero, so padding remains zero


class GEmoClapEncoderLayer(GradientCheckpointingLayer):
    """A pre-norm Transformer layer."""

    def __init__(self, config: GEmoClapAudioConfig):
        super().__init__()
        self.num_heads = config.num_attention_heads
        self.attention_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.out = nn.Linear(config.hidden_size, config.hidden_size)
        self.feed_forward_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.intermediate = nn.Linear(config.hidden_size, config.intermediate_size)
        self.output = nn.Linear(config.intermediate_size, config.hidden_size)
        self.dropout = nn.Dropout(config.hidden_dropout)

    def forward(self, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Map `(batch, time, hidden_size)` to the same shape, without attention to frames outside of `mask`."""
        batch, time, size = hidden.shape
        qkv = self.qkv(self.attention_norm(hidden)).view(batch, time, 3, self.num_heads, size // self.num_heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask[:, None, None, :])
        hidden = hidden + self.dropout(self.out(attended.transpose(1, 2).reshape(batch, time, size)))
        inner = self.output(self.dropout(F.gelu(self.intermediate(self.feed_forward_norm(hidden)))))
        return hidden + self.dropout(inner)


class GEmoClapAudioModel(PreTrainedModel):
    """A compact audio encoder for training from scratch, which is fast on a CPU.

    Padding is set to zero before every convolution and masked in the attention, so the frames of a clip are
    independent of batch composition and padding.

    Example:
        >>> encoder = GEmoClapAudioModel(GEmoClapAudioConfig()).eval()
        >>> encoder(torch.randn(2, 100, 64)).last_hidden_state.shape
        torch.Size([2, 25, 128])
    """

    config_class = GEmoClapAudioConfig
    base_model_prefix = "audio_model"
    main_input_name = "input_features"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _no_split_modules = ["GEmoClapEncoderLayer"]

    def __init__(self, config: GEmoClapAudioConfig):
        super().__init__(config)
        channels = [1, *config.conv_channels]
        last = len(config.conv_channels) - 1
        self.conv_blocks = nn.ModuleList(
            GEmoClapConvBlock(channels[i], channels[i + 1], 2 if i in (0, last) else 1, config)
            for i in range(last + 1)
        )
        mel_out = config.num_mel_bins // 2 ** (last + 1)
        self.feature_projection = nn.Linear(channels[-1] * mel_out, config.hidden_size)
        self.position_conv = nn.Conv1d(
            config.hidden_size, config.hidden_size, 15, padding=7, groups=config.hidden_size
        )
        self.layers = nn.ModuleList(GEmoClapEncoderLayer(config) for _ in range(config.num_hidden_layers))
        self.final_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout)
        self.gradient_checkpointing = False
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, (nn.Conv1d, nn.Conv2d)):
            nn.init.kaiming_normal_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=self.config.initializer_range)
            nn.init.zeros_(module.bias)
        elif isinstance(module, (nn.LayerNorm, GEmoClapMaskedNorm)):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)

    def _get_feature_vector_attention_mask(self, feature_vector_length: int, attention_mask: torch.Tensor):
        """Mask of the output frames `(batch, feature_vector_length)` from the mask of the input frames."""
        return _strided_mask(attention_mask, 4, feature_vector_length)

    def _spec_augment(self, features: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Set random bands of time and mel to zero, the mean of the features, independently for every clip."""
        config = self.config
        batch, time, mel = features.shape
        device = features.device

        def bands(axis_length: int, longest: torch.Tensor, span: torch.Tensor) -> torch.Tensor:
            width = torch.rand(batch, config.num_masks, device=device) * longest[:, None]
            start = torch.rand(batch, config.num_masks, device=device) * (span[:, None] - width).clamp_min(0)
            axis = torch.arange(axis_length, device=device)
            return ((axis >= start[..., None]) & (axis < (start + width)[..., None])).any(1)

        lengths = mask.sum(1).float()
        longest = (lengths * config.mask_time_prob / max(config.num_masks, 1)).clamp_max(config.mask_time_length)
        mel_span = torch.full_like(lengths, mel)
        time_mask = bands(time, longest, lengths)
        mel_mask = bands(mel, torch.full_like(lengths, config.mask_feature_length), mel_span)
        return features.masked_fill(time_mask[:, :, None] | mel_mask[:, None, :], 0.0)

    def forward(
        self,
        input_features: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        audio_attention_mask: torch.Tensor | None = None,
    ) -> BaseModelOutput:
        """Encode log-mel features.

        Args:
            input_features: `(batch, time, num_mel_bins)`.
            attention_mask: `(batch, time)`, 1 for valid frames and 0 for padding; None if all frames are valid.
            output_hidden_states: Whether to return the input of the first layer and the output of every layer.
            return_dict: Whether to return a `BaseModelOutput` instead of a tuple; default True.
            audio_attention_mask: The same as `attention_mask`, under the name in the output of the feature extractor.

        Returns:
            `last_hidden_state` of `(batch, ceil(time / 4), hidden_size)` and, if requested, `hidden_states`.
        """
        attention_mask = audio_attention_mask if attention_mask is None else attention_mask
        if attention_mask is None:
            attention_mask = input_features.new_ones(input_features.shape[:2])
        mask = attention_mask.bool()
        if self.training and self.config.apply_spec_augment:
            input_features = self._spec_augment(input_features, mask)
        hidden = _zero_padding(input_features.to(self.dtype)[:, None], mask)
        for block in self.conv_blocks:
            hidden, mask = block(hidden, mask)
        hidden = self.feature_projection(hidden.permute(0, 2, 1, 3).flatten(2))
        positions = self.position_conv(_zero_padding(hidden.transpose(1, 2)[..., None], mask)[..., 0])
        hidden = self.dropout(hidden + F.gelu(positions).transpose(1, 2))
        mask = mask | ~mask.any(1, keepdim=True)  # a clip without frames attends to its padding, else it would be NaN

        hidden_states = [hidden]
        for layer in self.layers:
            is_dropped = self.training and self.config.layerdrop > 0 and torch.rand(()) < self.config.layerdrop
            hidden = hidden if is_dropped else layer(hidden, mask)
            hidden_states.append(hidden)
        hidden = hidden_states[-1] = self.final_norm(hidden)
        output = BaseModelOutput(
            last_hidden_state=hidden, hidden_states=tuple(hidden_states) if output_hidden_states else None
        )
        return output.to_tuple() if return_dict is False else output


GEmoClapAudioModel.register_for_auto_class("AutoModel")
