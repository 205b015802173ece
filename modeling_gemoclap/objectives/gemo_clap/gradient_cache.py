"""Gradient caching: the exact loss of a large batch in the memory of a small one (Gao et al., 2021).

A contrastive loss compares every clip with all others, so the batch's parts cannot be summed up. But it sees the clips
through their embeddings alone. So the batch is embedded in chunks without a graph; the loss of the whole batch gives
the gradient `g` of every embedding; and each chunk is embedded once more, from the same random state, to send its `g`
back through the towers: the gradient of `sum(embeds * g)` is that of the loss.
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


class RandomState:
    """The state of all that a forward may draw from: torch on the CPU and on the inputs' device, NumPy, Python.

    Args:
        *tensors: Tensors on the devices whose generators are kept.
    """

    def __init__(self, *tensors: torch.Tensor):
        self._python = random.getstate()
        self._numpy = np.random.get_state()  # SpecAugment in transformers draws from it
        self._torch = torch.get_rng_state()
        self._devices = get_device_states(*tensors)

    def restore(self) -> None:
        """Go back to it."""
        random.setstate(self._python)
        np.random.set_state(self._numpy)
        torch.set_rng_state(self._torch)
        set_device_states(*self._devices)


def refuse_chunk_size(size: int | None, batch: int) -> None:
    """Make sure that batches can be cut into chunks of a size.

    Args:
        size: The chunk size; None cuts nothing.
        batch: Clips a process has at a step.

    Raises:
        ValueError: If the size is no number of clips, or larger than the batch.
    """
    if size is None:
        return
    if size < 1:
        raise ValueError(f"contrastive_chunk_size={size}: give the number of clips of a chunk, 1 or more")
    if size > batch:
        raise ValueError(
            f"contrastive_chunk_size={size} is larger than per_device_train_batch_size={batch}, which it would cut: "
            f"give a larger batch, a smaller chunk, or no contrastive_chunk_size"
        )


class ChunkedBatch:
    """A batch cut into chunks, longest clips first, each cut to its own longest clip.

    An embedding does not depend on what it is padded with, so clips of like lengths go together and nothing is spent
    on padding. A clip's texts ride in its chunk: they then need no more memory than those of a small batch.

    Args:
        inputs: A batch without labels, every value of shape `(batch, ...)`.
        size: Clips a chunk; the last may be smaller.
        audio_type: `model_type` of the audio tower: some always hear one length.
    """

    def __init__(self, inputs: dict[str, torch.Tensor], size: int, audio_type: str):
        self.inputs = inputs
        rows = len(next(iter(inputs.values())))
        mask = inputs.get("audio_attention_mask")
        self.trims = mask is not None and audio_type not in FIXED_LENGTH
        order = mask.sum(1).argsort(descending=True, stable=True) if self.trims else torch.arange(rows)
        self.rows = order.split(size)
        self.back = order.argsort()

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        for rows in self.rows:
            chunk = {name: value[rows.to(value.device)] for name, value in self.inputs.items()}
            if self.trims:
                longest = int(chunk["audio_attention_mask"].sum(1).max())
                for name in {"input_values", "input_features", "audio_attention_mask"} & chunk.keys():
                    chunk[name] = chunk[name][:, :longest]
            yield chunk


class GradientCache:
    """Both passes of one step.

    Args:
        model: The model, wrapped or not; `forward` is called without labels, once a chunk and pass.
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
        """First pass, without a graph.

        Returns:
            Embeddings of the whole batch in its own order, `(batch, projection_dim)`, and both scales: leaves.
        """
        for chunk in self.batch:
            self._states.append(RandomState(*chunk.values()))
            output = self.model(**chunk)
            embeds = {name: getattr(output, name) for name in EMBEDDINGS}
            self._chunks.append({name: value for name, value in embeds.items() if value is not None})
        self._states.append(RandomState(*chunk.values()))
        torch.clear_autocast_cache()  # weights that were cast in here have no graph
        whole = {name: torch.cat([part[name] for part in self._chunks]) for name in self._chunks[0]}
        leaves = {name: value[self.batch.back.to(value.device)] for name, value in whole.items()}
        leaves |= {name: getattr(output, name).clone() for name in SCALES}
        return {name: leaf.requires_grad_() for name, leaf in leaves.items()}

    def differentiate(self, loss: torch.Tensor, leaves: dict[str, torch.Tensor]) -> None:
        """Keep the gradient of the whole batch's loss in every embedding and in the scales."""
        found = torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True)
        self._gradients = dict(zip(leaves, found, strict=True))

    def surrogates(self) -> Iterator[torch.Tensor]:
        """Second pass: a scalar a chunk, whose gradients add up to the loss's.

        The scales' gradient is the whole batch's, so it comes once: with the last chunk. The random state afterwards
        is that after the first pass.
        """
        for number, (rows, chunk) in enumerate(zip(self.batch.rows, self.batch, strict=True)):
            self._states[number].restore()
            output = self.model(**chunk)
            self._compare(self._chunks[number], output)
            names = self._chunks[number]
            parts = [getattr(output, name) * self._gradients[name][rows.to(output[name].device)] for name in names]
            # The others have a gradient of zero, not none: DeepSpeed would add to what was left of the last step.
            last = number + 1 == len(self.batch)
            scales = sum(getattr(output, name) * self._gradients[name] for name in SCALES)
            if last:
                self._states[-1].restore()
            yield sum(part.sum() for part in parts) + scales * last

    @staticmethod
    def _compare(first: dict[str, torch.Tensor], output) -> None:
        difference = max((first[name] - getattr(output, name).detach()).abs().max().item() for name in first)
        if difference > 1e-3:
            logger.warning_once(
                f"gradient caching: a chunk's embeddings differ by {difference:.1e} between the two passes, so its "
                f"gradient is not exact: the model draws from a generator that is not torch's, NumPy's or Python's"
            )
