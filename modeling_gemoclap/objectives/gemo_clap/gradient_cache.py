"""Gradient caching: the exact loss of a large batch in the memory of a small one (Gao et al., 2021).

A contrastive loss compares every clip with all others, so it is not a sum over parts of the batch. It depends on the
clips only through their embeddings, so its gradient is computed in three steps:

1. Embed the batch in chunks, without a graph.
2. Compute the loss of the complete batch, and its gradient `g` with respect to every embedding.
3. Embed each chunk again, from the same random state, and propagate `g` through the towers. The gradient of
   `sum(embeds * g)` equals that of the loss.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.checkpoint import get_device_states, set_device_states
from transformers.utils import logging

from ...encoding_gemoclap import FIXED_LENGTH

logger = logging.get_logger(__name__)

EMBEDDINGS = ("audio_embeds", "text_embeds", "gender_text_embeds")
SCALES = ("audio_scale", "text_scale")
PROMPT_TOKENS = ("input_ids", "attention_mask")


class RandomState:
    """The states of all random generators that a forward pass may use: torch on CPU and devices, NumPy, Python.

    Args:
        *tensors: Tensors on the devices whose generators are stored.
    """

    def __init__(self, *tensors: torch.Tensor):
        self._python = random.getstate()
        self._numpy = np.random.get_state()  # used by SpecAugment in transformers
        self._torch = torch.get_rng_state()
        self._devices = get_device_states(*tensors)

    def restore(self) -> None:
        """Restore the stored states."""
        random.setstate(self._python)
        np.random.set_state(self._numpy)
        torch.set_rng_state(self._torch)
        set_device_states(*self._devices)


def refuse_chunk_size(size: int | None, batch: int) -> None:
    """Check the chunk size against the batch size.

    Args:
        size: Number of clips of a chunk; None: the batch is not divided.
        batch: Number of clips that a process has in a step.

    Raises:
        ValueError: If the size is below 1 or larger than the batch.
    """
    if size is None:
        return
    if size < 1:
        raise ValueError(f"contrastive_chunk_size={size}: give the number of clips of a chunk, 1 or more")
    if size > batch:
        raise ValueError(
            f"contrastive_chunk_size={size} is larger than per_device_train_batch_size={batch}: give a larger batch, "
            f"a smaller chunk, or no contrastive_chunk_size"
        )


class ChunkedBatch:
    """A batch divided into chunks, longest clips first. Each chunk is trimmed to its longest clip.

    Embeddings are independent of padding, so clips of similar lengths form a chunk to reduce padding. The prompts of a
    clip are in the same chunk, so they need no more memory than the prompts of a small batch. A chunk has only the
    prompts of its clips, each of them once.

    Args:
        inputs: A batch without labels. Every value has the shape `(batch, ...)`, except for the tokens of distinct
            prompts, `(prompts, tokens)`, which `prompt_index` and `gender_prompt_index` refer to.
        size: Number of clips of a chunk; the last chunk may be smaller.
        audio_type: `model_type` of the audio tower. Some towers need inputs of a fixed length, which are not trimmed.
    """

    def __init__(self, inputs: dict[str, torch.Tensor], size: int, audio_type: str):
        self.inputs = inputs
        self.prompts = [name for name in ("prompt_index", "gender_prompt_index") if name in inputs]
        self.tokens = {name.replace("prompt_index", kind) for name in self.prompts for kind in PROMPT_TOKENS}
        rows = next(len(value) for name, value in inputs.items() if name not in self.tokens)
        mask = inputs.get("audio_attention_mask")
        self.trims_padding = mask is not None and audio_type not in FIXED_LENGTH
        order = mask.sum(1).argsort(descending=True, stable=True) if self.trims_padding else torch.arange(rows)
        self.rows = order.split(size)
        self.inverse_order = order.argsort()

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        for rows in self.rows:
            clips = {name: value for name, value in self.inputs.items() if name not in self.tokens}
            chunk = {name: value[rows.to(value.device)] for name, value in clips.items()}
            for name in self.prompts:
                used, chunk[name] = chunk[name].unique(return_inverse=True)
                for kind in (name.replace("prompt_index", kind) for kind in PROMPT_TOKENS):
                    if kind in self.inputs:
                        chunk[kind] = self.inputs[kind][used]
            if self.trims_padding:
                longest = int(chunk["audio_attention_mask"].sum(1).max())
                for name in {"input_values", "input_features", "audio_attention_mask"} & chunk.keys():
                    chunk[name] = chunk[name][:, :longest]
                if "audio_frames" in chunk:
                    chunk["audio_frames"] = chunk["audio_frames"][:, :, :longest]
            yield chunk


class GradientCache:
    """The two passes of one step.

    Args:
        model: The model, wrapped or not. Each pass calls `forward` without labels once for each chunk.
        batch: The batch in chunks.
    """

    def __init__(self, model: torch.nn.Module, batch: ChunkedBatch):
        self.model = model
        self.batch = batch
        self._states: list[RandomState] = []
        self._chunks: list[dict[str, torch.Tensor]] = []
        self._gradients: dict[str, torch.Tensor] = {}

    @torch.no_grad()
    def embed(self) -> dict[str, torch.Tensor | None]:
        """Run the first pass, without a graph.

        Returns:
            Leaf tensors: embeddings of the complete batch in its order, `(batch, projection_dim)`, and both scales.
        """
        for chunk in self.batch:
            self._states.append(RandomState(*chunk.values()))
            output = self.model(**chunk)
            embeds = {name: getattr(output, name) for name in EMBEDDINGS}
            self._chunks.append({name: value for name, value in embeds.items() if value is not None})
        self._states.append(RandomState(*chunk.values()))
        torch.clear_autocast_cache()  # weights that were cast here have no graph
        sorted_embeds = {name: torch.cat([part[name] for part in self._chunks]) for name in self._chunks[0]}
        inverse = self.batch.inverse_order
        leaves = {name: value[inverse.to(value.device)] for name, value in sorted_embeds.items()}
        leaves |= {name: getattr(output, name).clone() for name in SCALES}
        return {name: leaf.requires_grad_() for name, leaf in leaves.items()}

    def differentiate(self, loss: torch.Tensor, leaves: dict[str, torch.Tensor]) -> None:
        """Store the gradient of the loss of the complete batch with respect to every embedding and to the scales."""
        gradients = torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True)
        self._gradients = dict(zip(leaves, gradients, strict=True))

    def surrogates(self) -> Iterator[torch.Tensor]:
        """Run the second pass: yield a scalar for each chunk. Their gradients sum to the gradient of the loss.

        The gradient of the scales is that of the complete batch, so it is added once, with the last chunk. The random
        state afterwards is that after the first pass.
        """
        for number, (rows, chunk) in enumerate(zip(self.batch.rows, self.batch, strict=True)):
            self._states[number].restore()
            output = self.model(**chunk)
            self._warn_if_different(self._chunks[number], output)
            names = self._chunks[number]
            parts = [getattr(output, name) * self._gradients[name][rows.to(output[name].device)] for name in names]
            # In other chunks the scales get a gradient of 0 instead of none: DeepSpeed would add a stale gradient.
            last = number + 1 == len(self.batch)
            scales = sum(getattr(output, name) * self._gradients[name] for name in SCALES)
            if last:
                self._states[-1].restore()
            yield sum(part.sum() for part in parts) + scales * last

    @staticmethod
    def _warn_if_different(first: dict[str, torch.Tensor], output) -> None:
        difference = max((first[name] - getattr(output, name).detach()).abs().max().item() for name in first)
        if difference > 1e-3:
            logger.warning_once(
                f"gradient caching: embeddings of a chunk differ by {difference:.1e} between the two passes, so the "
                f"gradient is not exact: the model uses a random generator other than torch's, NumPy's or Python's"
            )
