"""What stops a training: numbers that are not finite, batches without a gradient, and SIGTERM."""

from __future__ import annotations

import os
import signal
import threading
import weakref
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch.nn.utils import get_total_norm
from transformers import TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from ..command_line.failures import TerminatedError
from ..corpora.files import read_json
from .gather import all_gather_object, is_distributed

CLIP_INDEX = "clip_index"
BROKEN_START = "before the first step: the initial weights are damaged."
BATCHES = "batches.json"  # in every `checkpoint-N`: the batches so far, those without a comparison, sum of the losses
MAX_NAMES = 40  # names in a message


class NotFiniteError(ValueError):
    """A loss, a gradient, a weight or a logit is NaN or infinite."""


class IndexedCollator:
    """Collator that adds `clip_index`, `(batch,)`, the indices of the clips in the dataset.

    Args:
        collator: Collator of the other fields. If an item has no `index`, `clip_index` is not added.
    """

    def __init__(self, collator: Callable[[list], dict]):
        self.collator = collator

    def __call__(self, examples: list) -> dict:
        """Collate items into a batch."""
        batch = self.collator(examples)
        if not all(isinstance(example, dict) and "index" in example for example in examples):
            return batch
        return {**batch, CLIP_INDEX: torch.tensor([example["index"] for example in examples])}


def with_lasting_workers(loader):
    """Let only the training itself end the workers of a `DataLoader` by SIGTERM.

    A cluster sends it to all processes of a job. Without its workers, the training could not finish the step, nor save
    a checkpoint. Where the system does not tell the sender of a signal (macOS), the workers end.

    Args:
        loader: The loader.

    Returns:
        The loader.
    """
    base = getattr(loader, "base_dataloader", loader)
    base.worker_init_fn = partial(_start_worker, base.worker_init_fn)
    base.iterators, begin = weakref.WeakSet(), base._get_iterator

    def get_iterator():
        iterator = begin()
        base.iterators.add(iterator)
        return iterator

    base._get_iterator = get_iterator
    return loader


def end_workers(loader) -> None:
    """End the workers of a loader of `with_lasting_workers`.

    If workers are persistent or an error holds their iterator, the garbage collector would end them later, and torch
    would wait for five seconds: the queue to a worker can be gone by then.

    Args:
        loader: The loader, or None.
    """
    base = getattr(loader, "base_dataloader", loader)
    for iterator in list(getattr(base, "iterators", ())):
        if hasattr(iterator, "_shutdown_workers"):  # it has workers
            iterator._shutdown_workers()
    if getattr(base, "_iterator", None) is not None:
        base._iterator = None


def _start_worker(start: Callable[[int], None] | None, number: int) -> None:
    if hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_by_parent, daemon=True).start()
    if start is not None:
        start(number)


def _end_by_parent() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)


def clip_names(dataset, indices: Iterable[int]) -> list[str]:
    """File names of clips.

    Args:
        dataset: The dataset. If it has no method `name_of`, clips are named by their index.
        indices: Indices of the clips; -1, a padding clip, is ignored.
    """
    name_of = getattr(dataset, "name_of", lambda index: f"clip {index}")
    return [name_of(index) for index in indices if index != -1]


def join_names(names: list[str]) -> str:
    """Join names by commas; of more than 40, the first 40 and the number of the others."""
    more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    return ", ".join(names[:MAX_NAMES]) + more


def tensors_not_finite(model: torch.nn.Module) -> list[str]:
    """Names of parameters that are not finite and of buffers that contain NaN, on any process.

    Buffers may contain infinities on purpose, for example attention masks.
    """
    checks = {name: torch.isfinite for name, _ in model.named_parameters()}
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    tensors = {name: value for name, value in tensors.items() if value.is_floating_point() and value.numel()}
    finite = []
    for name, value in tensors.items():
        local = value.detach().to_local() if hasattr(value, "to_local") else value.detach()
        finite.append(checks.get(name, lambda tensor: ~torch.isnan(tensor))(local).all())
    flags = torch.stack([flag.to(finite[0].device) for flag in finite]).tolist() if finite else []
    broken = [name for name, flag in zip(tensors, flags, strict=True) if not flag]
    return sorted({name for names in all_gather_object(broken) for name in names})


def refuse_weights_not_finite(model: torch.nn.Module, when: str) -> None:
    """Check that all weights are finite.

    Args:
        model: The model, wrapped or not.
        when: Point of the training and advice, for the message.

    Raises:
        NotFiniteError: If a weight is not finite. The message lists these weights.
    """
    if names := tensors_not_finite(model):
        raise NotFiniteError(f"weights are not finite {when} Affected weights ({len(names)}): {join_names(names)}")


def refuse_logits_not_finite(predictions, dataset) -> None:
    """Check that the logits of an evaluation are finite.

    Args:
        predictions: `(clips, emotions)`, in the order of the dataset; None is accepted.
        dataset: The dataset.

    Raises:
        NotFiniteError: If a logit is not finite. The message lists the clips.
    """
    if predictions is None:
        return
    bad = np.flatnonzero(~np.isfinite(np.asarray(predictions, dtype=np.float32)).all(axis=-1))
    if len(bad):
        raise NotFiniteError(
            f"the model's logits are not finite for {len(bad)} of {len(predictions)} clips, so that no emotion can be "
            f"predicted: {join_names(clip_names(dataset, bad.tolist()))}"
        )


def refuse_metric_not_finite(metrics: dict[str, float], name: str | None) -> None:
    """Check that the metric by which an epoch is chosen is finite.

    Args:
        metrics: Metrics of an evaluation.
        name: Name of the metric, with or without `eval_`; None: no epoch is chosen.

    Raises:
        NotFiniteError: If the metric is not finite.
    """
    value = metrics.get(f"eval_{name.removeprefix('eval_')}", 0.0) if name else 0.0
    if not np.isfinite(value):
        raise NotFiniteError(f"{name} of the development clips is {value}: no epoch can be chosen by it")


class FiniteGuard(TrainerCallback):
    """Callback that stops training before an optimizer step on a loss or gradient that is not finite.

    It also stops training, with a checkpoint, at the end of a step in which a process got a signal to stop. In both
    cases all processes stop at the same step, since the result of the check is reduced over them. With fp16, the
    gradient scaler skips steps whose gradients overflow and lowers its scale; such steps are accepted until the scale
    is 1. The loss must be finite with fp16 too, since it is not scaled.

    The check uses the norm that gradient clipping computes. A step costs one transfer of three numbers from the
    device.

    Args:
        accelerator: Accelerator of the trainer. Its `clip_grad_norm_` is wrapped to read the norm.
        dataset: The training clips.
    """

    def __init__(self, accelerator, dataset):
        self.accelerator, self.dataset = accelerator, dataset
        self.last_good: str | None = None  # the newest checkpoint of this run
        self.loss_sum: float | torch.Tensor = 0.0  # of the batches so far, also of those before the run was resumed
        self.stop_requested = False  # whether this process got a signal to stop
        self._stopping = False  # whether any process did
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
        """Remove the clip indices from the batches of the next step and store them."""
        indices = [batch.pop(CLIP_INDEX, None) if isinstance(batch, dict) else None for batch in batches]
        self._indices, self._losses, self._rows, self._norm = indices, [], [], None

    def add_loss(self, loss: torch.Tensor, rows: tuple[torch.Tensor, ...] = ()) -> None:
        """Add the loss of a batch of the step.

        Args:
            loss: A scalar.
            rows: Outputs of the model, each `(batch, ...)`. They show which clips are not finite.
        """
        self._losses.append(loss.detach().float())
        self.loss_sum = self.loss_sum + self._losses[-1]
        self._rows.append(rows)

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        """Check the initial weights."""
        damaged = f"before the first step: {self.last_good} is damaged." if self.last_good else BROKEN_START
        refuse_weights_not_finite(model, damaged)

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        """Check the losses and the gradient of this step."""
        norm = self._norm if self._norm is not None else _gradient_norm(model)
        norm = norm.full_tensor() if hasattr(norm, "full_tensor") else torch.as_tensor(norm)
        norm = norm.detach().float().to(args.device)
        losses = torch.stack(self._losses) if self._losses else norm[None].new_zeros(1)
        stop = torch.tensor(self.stop_requested, device=args.device)
        flags = torch.stack([~losses.isfinite().all(), ~norm.isfinite().all(), stop]).float()
        if is_distributed():
            dist.all_reduce(flags, op=dist.ReduceOp.MAX)
        bad_loss, bad_norm, self._stopping = flags.tolist()
        if bad_loss or bad_norm and not self._scaler_skips():
            raise NotFiniteError(self._message(state, losses, norm, bool(bad_loss)))

    def on_step_end(self, args, state, control, **kwargs):
        """Request a checkpoint if a process got a signal to stop.

        An evaluation is left out: it could take longer than a cluster waits, and with `--save_strategy best`, its
        result would decide whether the checkpoint is saved. `MissedEvaluation` makes up for it on resumption.
        """
        if self._stopping:
            control.should_save, control.should_evaluate, args.save_only_model = True, False, False

    def on_save(self, args, state, control, **kwargs):
        """Store the path of the checkpoint that was saved, and end the training if it has to stop."""
        self.last_good = str(Path(args.output_dir, f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"))
        if self._stopping:
            raise TerminatedError(
                f"stopped by SIGTERM after step {state.global_step} of {state.max_steps}: {self.last_good} is "
                f"complete, and the run continues from it with --resume_from_checkpoint true (the run of a protocol "
                f"with the same command)"
            )

    def refuse_weights(self, model: torch.nn.Module, state) -> None:
        """Check the weights after a step, before they are saved.

        Args:
            model: The model, wrapped or not.
            state: State of the trainer.

        Raises:
            NotFiniteError: If a weight is not finite. The message has the step, clips and last good checkpoint.
        """
        if names := tensors_not_finite(model):
            raise NotFiniteError(
                f"weights are not finite after step {state.global_step} of {state.max_steps} and are not saved. Last "
                f"good checkpoint: {self.last_good or 'none'}. Give a lower --learning_rate. The clips of the step: "
                f"{self._clips([], False)}. Affected weights ({len(names)}): {join_names(names)}"
            )

    def _scaler_skips(self) -> bool:
        """Whether the gradient scaler skips the step and can still lower its scale."""
        if self.accelerator.mixed_precision != "fp16":
            return False
        scaler = getattr(self.accelerator, "scaler", None)  # None with DeepSpeed, whose scaler stops by itself
        return scaler is None or scaler.get_scale() > 1

    def _message(self, state, losses: torch.Tensor, norm: torch.Tensor, bad_loss: bool) -> str:
        """Error message with step, epoch, value, last good checkpoint and clips."""
        bad = [number for number, loss in enumerate(losses.tolist()) if not np.isfinite(loss)] if bad_loss else []
        gathered = all_gather_object(losses[bad[0]].item() if bad else None)
        value = next((loss for loss in gathered if loss is not None), norm.item())
        epoch = int(round(state.epoch or 0, 6)) + 1
        return (
            f"step {state.global_step + 1} of {state.max_steps}, in epoch {epoch}: the "
            f"{'loss' if bad_loss else 'norm of the gradient'} is {value}. Training stops before this step changes "
            f"the weights. Last good checkpoint: {self.last_good or 'none'}. Check the clips of this step, or give a "
            f"lower --learning_rate. The clips: {self._clips(bad, bad_loss)}"
        )

    def _clips(self, bad: list[int], bad_loss: bool) -> str:
        """The clips of the step of all processes, see `_affected_clips`."""
        gathered = all_gather_object(self._affected_clips(bad, bad_loss))
        prefixes = [f"process {rank}: " if len(gathered) > 1 else "" for rank in range(len(gathered))]
        clips = [prefix + join_names(names) for prefix, names in zip(prefixes, gathered, strict=True) if names]
        return "; ".join(clips) or "unknown, since the items have no index"

    def _affected_clips(self, bad: list[int], bad_loss: bool) -> list[str]:
        """Names of this process's clips that are not finite, or of all clips of the batches if no output shows it.

        Args:
            bad: Batches whose loss is not finite.
            bad_loss: Whether only these batches count; otherwise all batches of the step count.
        """
        names = []
        for number, indices in enumerate(self._indices):
            if indices is None or bad_loss and number not in bad:
                continue
            affected = torch.zeros(len(indices), dtype=torch.bool)
            for output in self._rows[number] if number < len(self._rows) else ():
                affected |= ~output.detach().flatten(1).isfinite().all(dim=1).cpu()
            indices = indices.cpu()
            names += clip_names(self.dataset, (indices[affected] if affected.any() else indices).tolist())
        return names


class ComparisonCheck(TrainerCallback):
    """Stops training after the first epoch, before a checkpoint is saved, if no batch had a gradient.

    Args:
        trainer: The `SpeechTrainer`, whose counts of batches are continued when it is resumed.
        guard: The guard, whose sum of losses is continued.
    """

    def __init__(self, trainer, guard: FiniteGuard):
        self.trainer, self.guard = trainer, guard

    def on_train_begin(self, args, state, control, **kwargs):
        """Start to count, or read the counts of the checkpoint."""
        path = Path(self.trainer.resumed_from or "", BATCHES)
        counts = read_json(path) if self.trainer.resumed_from and path.is_file() else (0, 0, 0.0)
        self.trainer.batches, self.trainer.idle_batches, self.guard.loss_sum = counts
        self.from_start = not state.global_step

    def on_epoch_end(self, args, state, control, **kwargs):
        """Raise a `ValueError` after the first epoch if no batch had a comparison."""
        batches, idle = self.trainer.batches, int(self.trainer.idle_batches)
        if self.from_start and batches and idle == batches:
            raise ValueError(
                f"none of the {batches} batches of an epoch has a comparison, so that there is no gradient: "
                f"{self.trainer.comparison}"
            )


def _gradient_norm(model: torch.nn.Module) -> torch.Tensor:
    """The norm of the gradient, if gradients are not clipped."""
    return get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
