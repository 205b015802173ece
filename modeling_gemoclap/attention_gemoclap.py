"""WavLM's attention by the kernels of torch, without its matrix of attention weights.

WavLM adds to the scores of each query a bias by relative position, times a gate that depends on the query.
transformers has only an implementation that computes all weights and returns them. `GEmoClapWavLMModel` has the same
parameters and three implementations, of which `attn_implementation` selects one as for any model of transformers:

- `"sdpa"`, the default: `torch.nn.functional.scaled_dot_product_attention` with the gated bias as its mask;
- `"flex_attention"`: a kernel that is compiled with the bias, so that no tensor of `(batch, heads, frames, frames)`
  exists. It needs a GPU and a compiler, and has no dropout of attention weights;
- `"eager"`: that of transformers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F
from transformers.models.wavlm.modeling_wavlm import WavLMAttention, WavLMModel

IMPLEMENTATIONS = ("eager", "sdpa", "flex_attention")
ALIGNMENT = 8  # entries; the rows of a mask are aligned to it, else the kernels of a GPU copy the mask


def flex_attention_of(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    gate: torch.Tensor,
    table: torch.Tensor,
    lengths: torch.Tensor | None = None,
) -> torch.Tensor:
    """Attention with WavLM's bias by flex attention; without a compiler, all scores are in memory.

    Args:
        query: `(batch, heads, frames, head_size)`.
        key: The same shape.
        value: The same shape.
        gate: `(batch, heads, frames)`, the factor of each query's bias.
        table: `(heads, 2 * frames - 1)`, the bias by `key - query`, which ranges from `1 - frames` to `frames - 1`.
        lengths: `(batch,)`, the numbers of valid frames, at least 1, which come first; None if all are valid.

    Returns:
        `(batch, heads, frames, head_size)`.
    """
    from torch.nn.attention.flex_attention import flex_attention

    frames = query.shape[2]

    def score_mod(score, batch, head, row, column):
        score = score + gate[batch, head, row] * table[head, column - row + frames - 1]
        return score if lengths is None else torch.where(column < lengths[batch], score, -torch.inf)

    return flex_attention(query, key, value, score_mod=score_mod)


@functools.cache
def compiled_flex_attention() -> Callable[..., torch.Tensor]:
    """`flex_attention_of`, compiled once for all numbers of clips and frames; each layer calls it."""
    return torch.compile(flex_attention_of, dynamic=True)


def aligned_keys(frames: int, on_gpu: bool) -> int:
    """The number of keys for which a mask has memory."""
    return -(-frames // ALIGNMENT) * ALIGNMENT if on_gpu else frames


class GEmoClapWavLMAttention(WavLMAttention):
    """WavLM's attention with the implementation of `config._attn_implementation`; the parameters are the same.

    Its first layer returns the bias, which the encoder passes on to the other layers.
    """

    config = None  # that of the tower, set by `use_kernels`

    def forward(self, hidden_states, attention_mask=None, position_bias=None, *args, **kwargs):
        """Attend.

        Args:
            hidden_states: `(batch, frames, hidden_size)`.
            attention_mask: `(batch, frames)`, 1 for valid frames, which come first; None if all are valid.
            position_bias: The bias from the first layer; None in this layer.
            *args: Further arguments of transformers' method.
            **kwargs: Further arguments of transformers' method.

        Returns:
            The output `(batch, frames, hidden_size)`, the weights (None but for `"eager"`), and the bias.

        Raises:
            ValueError: If the implementation is unknown, or cannot run on this device.
        """
        implementation = self.config._attn_implementation
        if implementation in ("eager", None):
            return super().forward(hidden_states, attention_mask, position_bias, *args, **kwargs)
        check_implementation(implementation)
        shape = (*hidden_states.shape[:2], self.num_heads, self.head_dim)
        projections = (self.q_proj, self.k_proj, self.v_proj)
        heads = [projection(hidden_states).view(shape).transpose(1, 2) for projection in projections]
        gate = self._gate(hidden_states.view(shape)).to(heads[0].dtype)
        attend = self._sdpa if implementation == "sdpa" else self._flex
        output, position_bias = attend(heads, gate, attention_mask, position_bias)
        return self.out_proj(output.transpose(1, 2).reshape(hidden_states.shape)), None, position_bias

    def _gate(self, hidden: torch.Tensor) -> torch.Tensor:
        """The factor of each query's bias, `(batch, heads, frames)`."""
        projected = self.gru_rel_pos_linear(hidden).unflatten(-1, (2, 4)).sum(-1).transpose(1, 2)
        first, second = torch.sigmoid(projected).unbind(-1)
        return first * (second * self.gru_rel_pos_const[..., 0] - 1.0) + 2.0

    def bias_table(self, frames: int) -> torch.Tensor:
        """The bias by relative position, `(heads, 2 * frames - 1)`, from `1 - frames` to `frames - 1`."""
        relative = torch.arange(1 - frames, frames, device=self.rel_attn_embed.weight.device)
        return self.rel_attn_embed(self._relative_positions_bucket(relative)).T

    def _sdpa(self, heads: list[torch.Tensor], gate: torch.Tensor, mask: torch.Tensor | None, bias):
        """SDPA; `bias` is `(heads, frames, keys)`, where keys are filled up to a multiple of `ALIGNMENT` on a GPU."""
        frames = gate.shape[-1]
        if bias is None:
            bias = self.compute_bias(frames, aligned_keys(frames, gate.is_cuda)).to(gate.dtype).contiguous()
        if mask is None:
            scores = gate[..., None] * bias
        else:  # the lowest number and not -inf, so that a clip without frames is not NaN
            padding = F.pad(mask.ne(1), (0, bias.shape[-1] - frames), value=True)[:, None, None]
            lowest = torch.zeros_like(padding, dtype=gate.dtype).masked_fill(padding, torch.finfo(gate.dtype).min)
            scores = torch.addcmul(lowest, gate[..., None], bias)
        dropout = self.dropout if self.training else 0.0
        return F.scaled_dot_product_attention(*heads, scores[..., :frames], dropout), bias

    def _flex(self, heads: list[torch.Tensor], gate: torch.Tensor, mask: torch.Tensor | None, bias):
        """Flex attention; `bias` is the table."""
        refuse_flex(gate, self.dropout if self.training else 0.0)
        bias = self.bias_table(gate.shape[-1]).to(gate.dtype) if bias is None else bias
        lengths = None if mask is None else mask.eq(1).sum(1).clamp_min(1)
        attend = flex_attention_of if torch.compiler.is_compiling() else compiled_flex_attention()
        return attend(*heads, gate, bias, lengths), bias


def refuse_flex(inputs: torch.Tensor, dropout: float) -> None:
    """Check that flex attention runs.

    Args:
        inputs: A tensor on the device of the model.
        dropout: Probability of the dropout of attention weights.

    Raises:
        ValueError: On a CPU, or with dropout.
    """
    if inputs.device.type == "cpu":
        raise ValueError(
            "attn_implementation='flex_attention' needs a GPU, because torch cannot train with it on a CPU: use "
            "attn_implementation='sdpa'"
        )
    if dropout > 0:
        raise ValueError(
            "attn_implementation='flex_attention' has no dropout of attention weights: set attention_dropout of the "
            "audio tower to 0 (audio_attention_dropout=0.0), or use attn_implementation='sdpa'"
        )


def check_implementation(name: str | None) -> None:
    """Check the name of an implementation for WavLM.

    Args:
        name: The name; None selects the default.

    Raises:
        ValueError: If it is unknown.
    """
    if name not in (None, *IMPLEMENTATIONS):
        raise ValueError(
            f"attn_implementation={name!r} does not support WavLM, whose bias depends on the query: choose one of "
            f"{', '.join(map(repr, IMPLEMENTATIONS))}"
        )


class GEmoClapWavLMModel(WavLMModel):
    """WavLM with the implementations of attention of this module; see transformers' `WavLMModel`."""

    _supports_sdpa = True
    _supports_flex_attn = True

    def __init__(self, config):
        super().__init__(config)
        use_kernels(self)

    def get_correct_attn_implementation(self, requested_attention: str | None, is_init_check: bool = False) -> str:
        """As in transformers, after a check of the name."""
        check_implementation(requested_attention)
        return super().get_correct_attn_implementation(requested_attention, is_init_check)


def use_kernels(tower: nn.Module) -> nn.Module:
    """Let a WavLM tower select its implementation of attention; other towers are returned as they are.

    A ready tower of transformers keeps `"eager"`, the only one that it can be loaded with, until
    `set_attn_implementation` is called.

    Args:
        tower: The tower, which is changed in place: the classes of its modules, not its parameters.

    Returns:
        The tower.
    """
    if getattr(getattr(tower, "config", None), "model_type", None) != "wavlm":
        return tower
    if type(tower) is WavLMModel:
        tower.__class__ = GEmoClapWavLMModel
    for module in tower.modules():
        if type(module) is WavLMAttention:
            module.__class__ = GEmoClapWavLMAttention
            module.config = tower.config
    return tower
