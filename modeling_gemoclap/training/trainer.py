"""The trainer that all objectives share: order of the clips, optimizer, checks, evaluation, records, model card."""

from __future__ import annotations

import os
import re
from pathlib import Path

import torch
from torch.optim.lr_scheduler import LambdaLR
from transformers import Trainer, TrainerCallback, set_seed
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, get_last_checkpoint
from transformers.utils import logging

from ..base_gemoclap import GEmoClapPreTrainedModel
from ..command_line.ranges import check_values
from ..corpora.files import write_json
from ..fingerprint import IDENTITY
from .arguments import DEFAULT_OPTIM, GEmoClapTrainingArguments
from .card import CardText, TrainingFacts, development_of, write_model_card
from .checkpoints import refuse_partial_checkpoint
from .clips import ClipDataset
from .finite import (
    FiniteGuard,
    IndexedCollator,
    refuse_figure_not_finite,
    refuse_logits_not_finite,
    refuse_weights_not_finite,
)
from .frozen import FrameDataset
from .gather import all_gather_object, gather
from .history import record_training, records_of, save_history, settle_history, stamp_weights
from .lora import is_lora
from .optimizer import layerwise_groups
from .samplers import ClassBalancedSampler, EpochSampler, FilledSampler, ShardSampler
from .trainer_options import (
    refuse_batch_norm,
    refuse_evaluation,
    refuse_label_smoothing,
    refuse_metric,
    refuse_options,
)

logger = logging.get_logger(__name__)


class _SetEpoch(TrainerCallback):
    """Sets the epoch of the dataset and the sampler, whose draws and order are a function of it.

    accelerate sets the sampler's epoch only in a fresh epoch: when a run is resumed, it does not reach the sampler.
    """

    def on_train_begin(self, args, state, control, **kwargs):
        if args.process_index:  # else the n-th clips of all processes would share their dropout
            set_seed(args.seed + args.process_index)

    def on_epoch_begin(self, args, state, control, train_dataloader=None, **kwargs):
        epoch, loader = int(round(state.epoch or 0, 6)), train_dataloader
        parts = [getattr(loader, "dataset", None)]
        while loader is not None:
            parts.append(getattr(loader, "sampler", None))
            loader = getattr(loader, "batch_sampler", None)
        for part in parts:
            if hasattr(part, "set_epoch"):
                part.set_epoch(epoch)


class _RecordTraining(TrainerCallback):
    """Records the training clips before the first step."""

    def __init__(self, trainer: SpeechTrainer):
        self.trainer = trainer

    def on_train_begin(self, args, state, control, **kwargs):
        trainer = self.trainer
        main = trainer.is_world_process_zero()
        records = all_gather_object(records_of(trainer.train_dataset, trainer.eval_dataset) if main else None)[0]
        record_training(trainer.trained_model, records, trainer.resumed_from)


class _CountComparisons(TrainerCallback):
    """Stops a training after its first epoch, before it is saved, if no batch gave a gradient."""

    def __init__(self, trainer: SpeechTrainer):
        self.trainer = trainer

    def on_train_begin(self, args, state, control, **kwargs):
        self.trainer.batches = self.trainer.idle_batches = 0
        self.from_start = not state.global_step

    def on_epoch_end(self, args, state, control, **kwargs):
        batches, idle = self.trainer.batches, int(self.trainer.idle_batches)
        if self.from_start and batches and idle == batches:
            raise ValueError(
                f"none of the {batches} batches of an epoch compares anything, so that nothing is learnt: "
                f"{self.trainer.comparison}"
            )


def _check_rates(args) -> None:
    milestones, gamma = getattr(args, "lr_milestones", None), getattr(args, "lr_gamma", 0.1)
    check_values(GEmoClapTrainingArguments, lr_milestones=milestones, lr_gamma=gamma)
    if milestones and args.max_steps > 0:
        raise ValueError(
            f"lr_milestones {milestones} are numbers of epochs and do not go with max_steps: give num_train_epochs"
        )
    if milestones and (args.warmup_steps or args.lr_scheduler_type not in ("linear", "constant")):
        raise ValueError("lr_milestones are the schedule: leave out lr_scheduler_type and warmup_steps")


class SpeechTrainer(Trainer):
    """Trainer for clips: plain Adam as in the paper, layer-wise rates, balanced classes, evaluation of every clip.

    A training stops before the optimizer takes its first step on a loss or gradient that is not finite, and weights
    that are not finite are neither trained on nor saved. A batch whose loss compares nothing gives no gradient: such
    batches are counted and reported when training ends, and a training of nothing else is an error.

    Args:
        model: The model.
        args: `GEmoClapTrainingArguments`, or transformers' own.
        *others: As for `transformers.Trainer`.
        **kwargs: As for `transformers.Trainer`; `processing_class` is the processor or feature extractor.

    Raises:
        NotFiniteError: When training or evaluating, if a number is not finite.
        ValueError: If `check` does not pass, or evaluation is asked for and cannot be had.
    """

    loss_is_scaled_for_ga = False
    smooths_labels = False  # whether the loss knows `label_smoothing_factor`
    comparison = ""  # what a batch must have to give a gradient
    card_text = CardText()
    batches: int = 0  # batches of this process so far
    idle_batches: int | torch.Tensor = 0  # those of them that gave no gradient
    _rows: tuple[torch.Tensor, ...] = ()  # model outputs for each clip of the newest batch

    def __init__(self, model=None, args=None, *others, **kwargs):
        if args is not None:
            self.check(args)
            held_out = kwargs.get("eval_dataset", others[2] if len(others) > 2 else None)
            refuse_evaluation(args, held_out is not None)
            if args.ddp_find_unused_parameters is None:
                # transformers would not look for them under gradient checkpointing; layer drop leaves some out.
                args.ddp_find_unused_parameters = True
        super().__init__(model, args, *others, **kwargs)
        # transformers' own arguments know no optimizer: what they name beside the default is what was chosen.
        plain = getattr(self.args, "optimizer", "adam" if self.args.optim == DEFAULT_OPTIM else "optim") == "adam"
        if plain and not self.optimizer_cls_and_kwargs:
            betas = (self.args.adam_beta1, self.args.adam_beta2)
            options = {"lr": self.args.learning_rate, "betas": betas, "eps": self.args.adam_epsilon}
            self.optimizer_cls_and_kwargs = (torch.optim.Adam, options)
        self.args.remove_unused_columns = False
        # transformers 4 would checkpoint reentrantly, which cuts the graph at a frozen input and trains nothing above.
        self.args.gradient_checkpointing_kwargs = self.args.gradient_checkpointing_kwargs or {"use_reentrant": False}
        if self.args.world_size > 1:
            refuse_batch_norm(self.model, "several processes")
        if self.compute_loss_func is not None:
            raise ValueError("compute_loss_func would not be called: the loss is the trainer's own; leave it out")
        refuse_metric(self.args, self.compute_metrics, len(getattr(self.model.config, "emotions", ())))
        self.label_names = ["emotion_labels"]
        self.resumed_from: str | None = None
        self.run_identity: dict | None = None  # train.py's; each checkpoint carries it
        self.args.logging_nan_inf_filter = False  # it would log a NaN as 0, and costs a transfer from the device
        self._guard = FiniteGuard(self.accelerator, self.train_dataset)
        for callback in (_SetEpoch(), _RecordTraining(self), self._guard, _CountComparisons(self)):
            self.add_callback(callback)
        self._terms: dict[str, torch.Tensor] = {}  # sums since the last log
        self._term_count = 0
        self.trained_parameters = sum(p.numel() for p in self.model.parameters() if p.requires_grad)

    @property
    def trained_model(self) -> GEmoClapPreTrainedModel:
        """The model, without what wraps it for training; its configuration records what its weights have heard."""
        model = self.accelerator.unwrap_model(self.model)
        return model.get_base_model() if is_lora(model) else model

    def _stamp(self) -> None:
        sharded = self.is_fsdp_enabled or self.is_deepspeed_enabled
        stamp_weights(self.trained_model, whole=not sharded and not is_lora(self.model))

    def _save(self, output_dir: str | None = None, state_dict=None) -> None:
        self._stamp()
        super()._save(output_dir, state_dict)
        folder = Path(output_dir or self.args.output_dir)
        if self.args.should_save and re.fullmatch(rf"{PREFIX_CHECKPOINT_DIR}-\d+", folder.name):
            save_history(self.trained_model, folder)
            if self.run_identity is not None:
                write_json(folder / IDENTITY, self.run_identity)

    @classmethod
    def check(cls, args) -> None:
        """Make sure that the arguments can be had, before clips are read or anything is written.

        Args:
            args: As for the constructor.

        Raises:
            ValueError: If several devices would be driven by one process (`torch.nn.DataParallel`), several processes
                were started that do not know of each other, an option of transformers would have no effect here, or
                learning rates cannot be as they are given.
        """
        if args.n_gpu > 1:
            raise ValueError(
                f"one process would drive {args.n_gpu} devices and cut the batch apart: start with accelerate launch "
                f"(configs/accelerate has a file for several), or let it see one device"
            )
        started = int(os.environ.get("WORLD_SIZE", 1))
        if started > 1 and args.world_size == 1:
            raise ValueError(
                f"{started} processes were started, but each would train alone: there is no GPU for them; "
                f"give --use_cpu true to train on CPUs"
            )
        _check_rates(args)
        refuse_options(args)
        refuse_label_smoothing(args, cls.smooths_labels, cls.__name__.removesuffix("Trainer"))

    def train(self, resume_from_checkpoint=None, *args, **kwargs):
        """As Trainer's; what the weights hear is appended to `config.training_data`.

        What the checkpoint that it goes on from had heard is kept. A checkpoint without all of a training's state is
        refused, and idle batches are reported.
        """
        point = resume_from_checkpoint or None
        point = get_last_checkpoint(self.args.output_dir) if point is True else point
        if point is not None:
            scaled = getattr(self.accelerator, "scaler", None) is not None
            processes = (self.args.world_size, self.args.process_index)
            refuse_partial_checkpoint(point, *processes, scaled, self.is_deepspeed_enabled)
        self.resumed_from = point and str(point)
        self._guard.dataset, self._guard.last_good = self.train_dataset, self.resumed_from
        if point is None and self.model_init is None:
            settle_history(self.trained_model)
        try:
            result = super().train(resume_from_checkpoint, *args, **kwargs)
        finally:
            self.trained_model.note_weights()
        self._stamp()
        refuse_weights_not_finite(self.model, "after the last step, and are not saved: give a lower --learning_rate.")
        if idle := int(self.idle_batches):
            logger.warning(
                f"{idle} of {self.batches} batches compared nothing and gave no gradient: {self.comparison}"
            )
        return result

    def record_step(
        self,
        rows: tuple[torch.Tensor, ...],
        nothing_compared: bool | torch.Tensor = False,
        terms: dict[str, torch.Tensor] | None = None,
    ) -> None:
        """Record a training batch; every `compute_loss` calls it.

        Args:
            rows: Outputs of the model, each `(batch, ...)`: if the loss is not finite, they tell which clips are.
            nothing_compared: Whether the loss of the batch has no gradient; a tensor stays on its device.
            terms: Scalars whose means over steps and processes are logged beside the next `loss`.
        """
        self._rows = rows
        self.batches += 1
        self.idle_batches = self.idle_batches + nothing_compared
        if terms:
            for name, value in terms.items():
                self._terms[name] = self._terms.get(name, 0.0) + value.detach()
            self._term_count += 1

    def get_batch_samples(self, *args, **kwargs):
        """As Trainer's; the places of the clips are taken out of the batches."""
        batches, items = super().get_batch_samples(*args, **kwargs)
        self._guard.begin_step(batches)
        return batches, items

    def training_step(self, *args, **kwargs):
        """As Trainer's; the loss is noted, to be checked before the optimizer's step."""
        loss = super().training_step(*args, **kwargs)
        self._guard.add_loss(loss, self._rows)
        self._rows = ()
        return loss

    def _save_checkpoint(self, *args, **kwargs):
        refuse_weights_not_finite(self.model, "and are not saved: give a lower --learning_rate.")
        super()._save_checkpoint(*args, **kwargs)

    def _determine_best_metric(self, metrics, trial):
        refuse_figure_not_finite(metrics, self.args.metric_for_best_model)  # it would never be the best
        return super()._determine_best_metric(metrics, trial)

    def evaluation_loop(self, dataloader, *args, **kwargs):
        """As Trainer's; logits that are not finite are an error."""
        output = super().evaluation_loop(dataloader, *args, **kwargs)
        refuse_logits_not_finite(output.predictions, dataloader.dataset)
        return output

    def log(self, logs: dict[str, float], *args, **kwargs) -> None:
        """As Trainer's, with the terms of `record_step`."""
        if "loss" in logs and self._term_count:
            for name, total in self._terms.items():
                logs[name] = round(gather((total / self._term_count)[None]).mean().item(), 6)
            self._terms, self._term_count = {}, 0
        if "train_loss" in logs and (idle := int(self.idle_batches)):
            logs["batches_without_comparison"] = idle
        super().log(logs, *args, **kwargs)

    def create_optimizer(self, *args, **kwargs):
        """As Trainer's, with `layerwise_lr_decay` and `encoder_lr_factor`."""
        decay, factor = (getattr(self.args, name, 1.0) for name in ("layerwise_lr_decay", "encoder_lr_factor"))
        if decay == factor == 1.0 or self.optimizer is not None:
            return super().create_optimizer(*args, **kwargs)
        optimizer_class, options = self.optimizer_cls_and_kwargs or self.get_optimizer_cls_and_kwargs(
            self.args, self.model
        )
        model = self.model.get_base_model() if is_lora(self.model) else self.model
        decayed = set(self.get_decay_parameter_names(model))
        groups = layerwise_groups(model, self.args.learning_rate, decay, self.args.weight_decay, decayed, factor)
        self.optimizer = optimizer_class(groups, **options)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer=None):
        """As Trainer's; with `lr_milestones` the rate is multiplied by `lr_gamma` after each of these epochs."""
        milestones = getattr(self.args, "lr_milestones", None)
        if not milestones or self.lr_scheduler is not None:
            return super().create_scheduler(num_training_steps, optimizer)
        epoch = num_training_steps / self.args.num_train_epochs
        steps = [round(milestone * epoch) for milestone in milestones]
        optimizer = self.optimizer if optimizer is None else optimizer
        factor, self._created_lr_scheduler = self.args.lr_gamma, True
        self.lr_scheduler = LambdaLR(optimizer, lambda step: factor ** sum(step >= at for at in steps))
        return self.lr_scheduler

    def _get_train_sampler(self, *args, **kwargs):
        args_, clips = self.args, self.train_dataset
        seed = args_.seed if args_.data_seed is None else args_.data_seed
        balanced = getattr(args_, "class_balanced_sampling", False)
        ours = isinstance(clips, (ClipDataset, FrameDataset))
        step = args_.world_size * args_.train_batch_size
        if args_.dataloader_drop_last and len(clips) < step:
            raise ValueError(
                f"{len(clips)} clips do not fill one step of {step}: give a smaller --per_device_train_batch_size, or "
                f"--dataloader_drop_last false"
            )
        if ours and clips.groups is not None:
            if balanced:
                raise ValueError("class_balanced_sampling draws clips from anywhere: not of shards, read in order")
            workers = max(1, args_.dataloader_num_workers)
            deal = {"processes": args_.world_size, "workers": workers, "drop_last": args_.dataloader_drop_last}
            return ShardSampler(clips.groups, args_.train_batch_size, seed=seed, **deal)
        if balanced:
            sampler = ClassBalancedSampler(clips.emotion_labels, seed)
        elif not ours or args_.dataloader_drop_last:
            sampler = super()._get_train_sampler(*args, **kwargs)
        else:
            sampler = EpochSampler(len(clips), seed)
        if args_.world_size == 1 or args_.dataloader_drop_last:
            return sampler
        if not ours:
            raise ValueError(
                "clips of another dataset than ClipDataset cannot be filled up: those of the last batch would count "
                "twice; give --dataloader_drop_last true"
            )
        return FilledSampler(sampler, step)

    def _keep_last_batch(self, build, *args, **kwargs):
        """Build a loader that keeps the last clips: `dataloader_drop_last` is for training batches."""
        dropped, self.args.dataloader_drop_last = self.args.dataloader_drop_last, False
        try:
            return build(*args, **kwargs)
        finally:
            self.args.dataloader_drop_last = dropped

    def get_train_dataloader(self):
        """As Trainer's; its batches tell which clips they are made of."""
        collator = self.data_collator
        self.data_collator = IndexedCollator(collator)
        try:
            return super().get_train_dataloader()
        finally:
            self.data_collator = collator

    def get_eval_dataloader(self, *args, **kwargs):
        """As Trainer's, with every clip."""
        return self._keep_last_batch(super().get_eval_dataloader, *args, **kwargs)

    def get_test_dataloader(self, *args, **kwargs):
        """As Trainer's, with every clip."""
        return self._keep_last_batch(super().get_test_dataloader, *args, **kwargs)

    def create_model_card(self, *args, **kwargs) -> None:
        """Write `README.md` beside the checkpoint; see `write_model_card`."""
        if self.is_world_process_zero():
            rate = getattr(self.processing_class, "feature_extractor", self.processing_class).sampling_rate
            developed = development_of(self.args, self.eval_dataset, self.trained_model.config.training_data)
            training = TrainingFacts(self.state, rate, self.trained_parameters, developed)
            write_model_card(self.args.output_dir, self.trained_model, self.card_text, training)
