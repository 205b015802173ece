"""A training stops at its first loss, gradient or weight that is not finite."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch.nn.utils import get_total_norm
from transformers import TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from .gather import all_gather_object, is_distributed

CLIP_INDEX = "clip_index"
BROKEN_START = "before the first step: what the training starts from is broken."
SHOWN = 40  # names in a message


class NotFiniteError(ValueError):
    """A loss, a gradient, a weight or a logit is NaN or infinite."""


class IndexedCollator:
    """A collator whose batches also hold `clip_index`, `(batch,)`: the places of the clips in the data set.

    Args:
        collator: Makes the batch. Items without an `index` make a batch without `clip_index`.
    """

    def __init__(self, collator: Callable[[list], dict]):
        self.collator = collator

    def __call__(self, examples: list) -> dict:
        """Make a batch."""
        batch = self.collator(examples)
        if not all(isinstance(example, dict) and "index" in example for example in examples):
            return batch
        return {**batch, CLIP_INDEX: torch.tensor([example["index"] for example in examples])}


def clip_names(dataset, indices: Iterable[int]) -> list[str]:
    """File names of clips.

    Args:
        dataset: A data set; one without `name_of` has no names, and its clips are called by their index.
        indices: The clips; -1, which only fills a batch up, is left out.
    """
    name_of = getattr(dataset, "name_of", lambda index: f"clip {index}")
    return [name_of(index) for index in indices if index != -1]


def shortened(names: list[str]) -> str:
    """Names as a list in a sentence, the first 40 of them."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def tensors_not_finite(model: torch.nn.Module) -> list[str]:
    """Names of the parameters that are not finite, and of the buffers that have a NaN, on any process.

    A buffer may hold infinities on purpose, as attention masks do.
    """
    checks = {name: torch.isfinite for name, _ in model.named_parameters()}
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    tensors = {name: value for name, value in tensors.items() if value.is_floating_point() and value.numel()}
    good = []
    for name, value in tensors.items():
        local = value.detach().to_local() if hasattr(value, "to_local") else value.detach()
        good.append(checks.get(name, lambda tensor: ~torch.isnan(tensor))(local).all())
    flags = torch.stack([flag.to(good[0].device) for flag in good]).tolist() if good else []
    broken = [name for name, flag in zip(tensors, flags, strict=True) if not flag]
    return sorted({name for names in all_gather_object(broken) for name in names})


def refuse_weights_not_finite(model: torch.nn.Module, when: str) -> None:
    """Make sure that all weights are finite.

    Args:
        model: The model, wrapped or not.
        when: At which point of the training this is, and what to do, for the error.

    Raises:
        NotFiniteError: If a weight is not finite; it is named.
    """
    if names := tensors_not_finite(model):
        raise NotFiniteError(f"weights are not finite {when} The weights ({len(names)}): {shortened(names)}")


def refuse_logits_not_finite(predictions, dataset) -> None:
    """Make sure that the logits of an evaluation are finite.

    Args:
        predictions: `(clips, emotions)`, in the order of the data set; None is accepted.
        dataset: The data set.

    Raises:
        NotFiniteError: If a logit is not finite; its clip is named.
    """
    if predictions is None:
        return
    bad = np.flatnonzero(~np.isfinite(np.asarray(predictions, dtype=np.float32)).all(axis=-1))
    if len(bad):
        raise NotFiniteError(
            f"the model's logits are not finite for {len(bad)} of {len(predictions)} clips, so that they name no "
            f"emotion: {shortened(clip_names(dataset, bad.tolist()))}"
        )


def refuse_figure_not_finite(metrics: dict[str, float], name: str | None) -> None:
    """Make sure that the figure by which an epoch is chosen is finite.

    Args:
        metrics: Figures of an evaluation.
        name: Of the figure, with `eval_` or without; None: nothing is chosen.

    Raises:
        NotFiniteError: If it is not.
    """
    value = metrics.get(f"eval_{name.removeprefix('eval_')}", 0.0) if name else 0.0
    if not np.isfinite(value):
        raise NotFiniteError(f"{name} of the development clips is {value}, so that no epoch can be chosen by it")


class FiniteGuard(TrainerCallback):
    """Stops a training before the optimizer takes a step on a loss or gradient that is not finite.

    All processes stop at the same step: what one of them finds is reduced over all. Under fp16 the gradient scaler
    skips steps whose gradient has overflowed and lowers its scale; this is left to it until the scale is at 1. A loss
    is not scaled, and must be finite under fp16 too.

    The norm is that which clipping computes, so that a step costs one transfer of two numbers from the device.

    Args:
        accelerator: The trainer's; the norms that its `clip_grad_norm_` returns are read.
        dataset: The training clips.
    """

    def __init__(self, accelerator, dataset):
        self.accelerator, self.dataset = accelerator, dataset
        self.last_good: str | None = None  # the newest checkpoint of this run
        self._indices: list[torch.Tensor | None] = []
        self._losses: list[torch.Tensor] = []
        self._rows: list[tuple[torch.Tensor, ...]] = []
        self._norm = None
        clip = accelerator.clip_grad_norm_

        def clip_grad_norm_(*args, **kwargs):
            self._norm = clip(*args, **kwargs)
            return self._norm

        accelerator.clip_grad_norm_ = clip_grad_norm_

    def begin_step(self, batches: list) -> None:
        """Take the places of the clips out of the batches of a step, which is about to begin."""
        taken = [batch.pop(CLIP_INDEX, None) if isinstance(batch, dict) else None for batch in batches]
        self._indices, self._losses, self._rows, self._norm = taken, [], [], None

    def add_loss(self, loss: torch.Tensor, rows: tuple[torch.Tensor, ...] = ()) -> None:
        """Note the loss of a batch of the step.

        Args:
            loss: A scalar.
            rows: What the model gives for each clip, `(batch, ...)`: it tells the clips that are at fault.
        """
        self._losses.append(loss.detach().float())
        self._rows.append(rows)

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        """Refuse weights that are not finite from the start."""
        broken = f"before the first step: {self.last_good} is broken." if self.last_good else BROKEN_START
        refuse_weights_not_finite(model, broken)

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        """Stop if the loss or the gradient of this step is not finite."""
        norm = self._norm if self._norm is not None else _gradient_norm(model)
        norm = norm.full_tensor() if hasattr(norm, "full_tensor") else torch.as_tensor(norm)
        norm = norm.detach().float().to(args.device)
        losses = torch.stack(self._losses) if self._losses else norm[None].new_zeros(1)
        flags = torch.stack([~losses.isfinite().all(), ~norm.isfinite().all()]).float()
        if is_distributed():
            dist.all_reduce(flags, op=dist.ReduceOp.MAX)
        bad_loss, bad_norm = flags.tolist()
        if bad_loss or bad_norm and not self._scaler_skips():
            raise NotFiniteError(self._message(state, losses, norm, bool(bad_loss)))

    def on_save(self, args, state, control, **kwargs):
        """Remember the checkpoint that was written."""
        self.last_good = str(Path(args.output_dir, f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"))

    def _scaler_skips(self) -> bool:
        """Whether the gradient scaler skips the step, and may yet find a scale at which nothing overflows."""
        if self.accelerator.mixed_precision != "fp16":
            return False
        scaler = getattr(self.accelerator, "scaler", None)  # DeepSpeed has its own, which stops by itself
        return scaler is None or scaler.get_scale() > 1

    def _message(self, state, losses: torch.Tensor, norm: torch.Tensor, bad_loss: bool) -> str:
        """Step, epoch, value, last good checkpoint and clips."""
        bad = [number for number, loss in enumerate(losses.tolist()) if not np.isfinite(loss)] if bad_loss else []
        everyone = all_gather_object((losses[bad[0]].item() if bad else None, self._names(bad, bad_loss)))
        value = next((loss for loss, _ in everyone if loss is not None), norm.item())
        start = [f"process {rank}: " if len(everyone) > 1 else "" for rank in range(len(everyone))]
        clips = [begin + shortened(names) for begin, (_, names) in zip(start, everyone, strict=True) if names]
        epoch = int(round(state.epoch or 0, 6)) + 1
        return (
            f"step {state.global_step + 1} of {state.max_steps}, in epoch {epoch}: the "
            f"{'loss' if bad_loss else 'norm of the gradient'} is {value}, and training stops before the weights "
            f"change. Last good checkpoint: {self.last_good or 'none'}. Check the clips of this step, or give a lower "
            f"--learning_rate. The clips: {'; '.join(clips) or 'not known, since the items have no index'}"
        )

    def _names(self, bad: list[int], bad_loss: bool) -> list[str]:
        """The clips of this process that are at fault: of the batches `bad`, or of all that make up the gradient."""
        names = []
        for number, indices in enumerate(self._indices):
            if indices is None or bad_loss and number not in bad:
                continue
            wrong = torch.zeros(len(indices), dtype=torch.bool)
            for part in self._rows[number] if number < len(self._rows) else ():
                wrong |= ~part.detach().flatten(1).isfinite().all(dim=1).cpu()
            indices = indices.cpu()
            names += clip_names(self.dataset, (indices[wrong] if wrong.any() else indices).tolist())
        return names


def _gradient_norm(model: torch.nn.Module) -> torch.Tensor:
    """The norm of the whole gradient, where nothing is clipped."""
    return get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
