"""The trainer that all objectives share: samplers, optimizer, checks, evaluation, records and model card."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from transformers import TrainerCallback, set_seed
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.utils import logging

from ..base_gemoclap import GEmoClapPreTrainedModel
from ..corpora.files import write_json
from ..fingerprint import IDENTITY
from ..publishing.hub_trainer import HubTrainer
from .arguments import DEFAULT_OPTIM
from .card import CardText, TrainingFacts, development_of, write_model_card
from .checkpoints import (
    MissedEvaluation,
    failing_together,
    latest_complete_checkpoint,
    refuse_partial_checkpoint,
    steps_of,
    whole_checkpoint,
    without_padding_state,
)
from .clips import ClipDataset
from .finite import (
    BATCHES,
    ComparisonCheck,
    FiniteGuard,
    IndexedCollator,
    end_workers,
    refuse_logits_not_finite,
    refuse_metric_not_finite,
    with_lasting_workers,
)
from .gather import gather
from .history import RecordTraining, save_history, settle_history, stamp_weights
from .lora import is_lora
from .optimizer import layerwise_groups, milestone_schedule, refuse_milestones
from .samplers import (
    ClassBalancedSampler,
    EpochSampler,
    FilledSampler,
    LengthSampler,
    ShardSampler,
    describe_mix,
    lengths_of,
)
from .trainer_options import (
    loading_for_evaluation,
    refuse_batch_norm,
    refuse_evaluation,
    refuse_label_smoothing,
    refuse_lone_processes,
    refuse_metric,
    refuse_options,
    set_workers,
)

logger = logging.get_logger(__name__)


class _SetEpoch(TrainerCallback):
    """Sets the epoch of the dataset and the sampler.

    accelerate does not set the epoch of the sampler when a run is resumed. The random numbers of an epoch are the same
    with any number of workers: a new iterator of a `DataLoader` draws a number, but persistent workers keep theirs.
    """

    def on_train_begin(self, args, state, control, **kwargs):
        if args.process_index:  # otherwise all processes would draw the same dropout masks
            set_seed(args.seed + args.process_index)

    def on_epoch_begin(self, args, state, control, train_dataloader=None, **kwargs):
        epoch, loader = int(round(state.epoch or 0, 6)), train_dataloader
        if getattr(getattr(loader, "base_dataloader", loader), "_iterator", None) is not None:
            torch.empty((), dtype=torch.int64).random_()
        components = [getattr(loader, "dataset", None)]
        while loader is not None:
            components.append(getattr(loader, "sampler", None))
            loader = getattr(loader, "batch_sampler", None)
        for component in components:
            if hasattr(component, "set_epoch"):
                component.set_epoch(epoch)


class SpeechTrainer(HubTrainer):
    """Trainer for clips: Adam as in the paper, layer-wise learning rates, balanced classes, evaluation of all clips.

    Training stops before an optimizer step on a loss or gradient that is not finite. Weights that are not finite are
    neither trained nor saved. Batches whose loss has no comparison, and thus no gradient, are counted and reported at
    the end of training. It is an error if all batches of the first epoch are such.

    Args:
        model: The model.
        args: `GEmoClapTrainingArguments` or `transformers.TrainingArguments`.
        *others: As for `transformers.Trainer`.
        **kwargs: As for `transformers.Trainer`; `processing_class` is the processor or feature extractor.

    Raises:
        NotFiniteError: If a loss, gradient, weight, logit or metric is not finite.
        ValueError: If `check` fails, or evaluation is requested without development clips or a metric.
    """

    loss_is_scaled_for_ga = False
    smooths_labels = False  # whether the loss applies `label_smoothing_factor`
    comparison = ""  # what a batch needs for a gradient, for messages
    card_text = CardText()
    batches: int = 0  # batches of this process so far
    idle_batches: int | torch.Tensor = 0  # batches without a gradient
    _weights = 0  # number of parameters without embeddings
    _rows: tuple[torch.Tensor, ...] = ()  # outputs of the model for the clips of the latest batch

    def __init__(self, model=None, args=None, *others, **kwargs):
        if args is not None:
            self.check(args)
            eval_dataset = kwargs.get("eval_dataset", others[2] if len(others) > 2 else None)
            refuse_evaluation(args, eval_dataset is not None)
            if args.ddp_find_unused_parameters is None:
                # transformers disables it under gradient checkpointing, but layer drop leaves parameters unused.
                args.ddp_find_unused_parameters = True
        super().__init__(model, args, *others, **kwargs)
        # transformers.TrainingArguments has no `optimizer`; an `optim` other than the default was chosen by the user.
        plain = getattr(self.args, "optimizer", "adam" if self.args.optim == DEFAULT_OPTIM else "optim") == "adam"
        if plain and not self.optimizer_cls_and_kwargs:
            betas = (self.args.adam_beta1, self.args.adam_beta2)
            options = {"lr": self.args.learning_rate, "betas": betas, "eps": self.args.adam_epsilon}
            self.optimizer_cls_and_kwargs = (torch.optim.Adam, options)
        self.args.remove_unused_columns = False
        set_workers(self.args, self.train_dataset)
        # The reentrant default of transformers 4 cuts the graph at a frozen input, so that nothing above is trained.
        self.args.gradient_checkpointing_kwargs = self.args.gradient_checkpointing_kwargs or {"use_reentrant": False}
        if self.args.world_size > 1:
            refuse_batch_norm(self.model, "several processes")
        if self.compute_loss_func is not None:
            raise ValueError("compute_loss_func would not be called, since the trainer defines the loss: leave it out")
        refuse_metric(self.args, self.compute_metrics, len(getattr(self.model.config, "emotions", ())))
        self.label_names = ["emotion_labels"]
        self.resumed_from: str | None = None
        self.run_identity: dict | None = None  # set by train.py; saved with each checkpoint
        self.commands: list[str] = []  # set by train.py; the model card names them
        self.args.logging_nan_inf_filter = False  # it logs NaN as 0 and costs a transfer from the device
        self._guard = FiniteGuard(self.accelerator, self.train_dataset)
        checks = (self._guard, ComparisonCheck(self, self._guard), MissedEvaluation(self))
        for callback in (_SetEpoch(), RecordTraining(self), *checks):
            self.add_callback(callback)
        self._terms: dict[str, torch.Tensor] = {}  # sums since the last log
        self._term_count = 0
        self.trained_parameters = sum(p.numel() for p in self.model.parameters() if p.requires_grad)

    @property
    def trained_model(self) -> GEmoClapPreTrainedModel:
        """The unwrapped model, whose configuration has the records of the training data."""
        model = self.accelerator.unwrap_model(self.model)
        return model.get_base_model() if is_lora(model) else model

    def request_stop(self) -> None:
        """Save a checkpoint at the end of this step, then raise a `TerminatedError`, in all processes."""
        self._guard.stop_requested = True

    def _stamp(self) -> None:
        sharded = self.is_fsdp_enabled or self.is_deepspeed_enabled
        stamp_weights(self.trained_model, complete=not sharded and not is_lora(self.model))

    def _save(self, output_dir: str | None = None, state_dict=None) -> None:
        self._stamp()
        without_padding_state(self.processing_class)
        super()._save(output_dir, state_dict)
        folder = Path(output_dir or self.args.output_dir)
        if self.args.should_save and re.fullmatch(rf"{PREFIX_CHECKPOINT_DIR}-\d+", folder.name):
            save_history(self.trained_model, folder)
            write_json(folder / BATCHES, [self.batches, int(self.idle_batches), float(self._guard.loss_sum)])
            if self.run_identity is not None:
                write_json(folder / IDENTITY, self.run_identity)

    @classmethod
    def check(cls, args) -> None:
        """Check the arguments before clips are read or files are written.

        Args:
            args: As for the constructor.

        Raises:
            ValueError: If one process would use several devices (`torch.nn.DataParallel`), several processes were
                started without a process group, an option of transformers has no effect here, or the options of the
                learning rate contradict each other.
        """
        if args.n_gpu > 1:
            raise ValueError(
                f"one process would use {args.n_gpu} devices and split the batch: start with accelerate launch and a "
                f"file of configs/accelerate, or make only one device visible"
            )
        refuse_lone_processes(args)
        refuse_milestones(args)
        refuse_options(args)
        refuse_label_smoothing(args, cls.smooths_labels, cls.__name__.removesuffix("Trainer"))

    def train(self, resume_from_checkpoint=None, *args, **kwargs):
        """As `Trainer.train`; records of the clips are appended to `config.training_data`.

        The records of the checkpoint that the training is resumed from are kept. An incomplete checkpoint is refused.
        Batches without a gradient are reported.
        """
        point = resume_from_checkpoint or None
        if point is True and (point := latest_complete_checkpoint(self.args.output_dir)) is None:
            raise ValueError(f"{self.args.output_dir} has no complete checkpoint to resume from")
        if point is not None:
            scaled = getattr(self.accelerator, "scaler", None) is not None
            processes, first = (self.args.world_size, self.args.process_index), self.args.local_process_index == 0
            refuse_partial_checkpoint(point, *processes, scaled, self.is_deepspeed_enabled, reads=first)
        self.resumed_from = point and str(point)
        self._guard.dataset, self._guard.last_good = self.train_dataset, self.resumed_from
        if point is None and self.model_init is None:
            settle_history(self.trained_model)
        try:
            result = super().train(point, *args, **kwargs)
        finally:
            end_workers(self.callback_handler.train_dataloader)
            self.trained_model.note_weights()
        self._stamp()
        self._guard.refuse_weights(self.model, self.state)
        if idle := int(self.idle_batches):
            logger.warning(f"{idle} of {self.batches} batches had no comparison and no gradient: {self.comparison}")
        return result

    def set_initial_training_values(self, *args, **kwargs):
        """As `Trainer.set_initial_training_values`; a training that is resumed after its last step has no epochs left.

        transformers would train one more step if `max_steps` is not the end of an epoch.
        """
        epochs, *values, max_steps = super().set_initial_training_values(*args, **kwargs)
        done = self.resumed_from is not None and steps_of(self.resumed_from) >= max_steps
        return (0 if done else epochs, *values, max_steps)

    def record_step(
        self,
        rows: tuple[torch.Tensor, ...],
        nothing_compared: bool | torch.Tensor = False,
        terms: dict[str, torch.Tensor] | None = None,
    ) -> None:
        """Record a training batch; every `compute_loss` calls it.

        Args:
            rows: Outputs of the model, each `(batch, ...)`. They show which clips are not finite.
            nothing_compared: Whether the loss of the batch has no gradient. A tensor is not moved to the CPU.
            terms: Scalars whose means over steps and processes are logged with the next `loss`.
        """
        self._rows = rows
        self.batches += 1
        self.idle_batches = self.idle_batches + nothing_compared
        if terms:
            for name, value in terms.items():
                self._terms[name] = self._terms.get(name, 0.0) + value.detach()
            self._term_count += 1

    def get_batch_samples(self, *args, **kwargs):
        """As `Trainer.get_batch_samples`; clip indices are removed from the batches."""
        batches, items = super().get_batch_samples(*args, **kwargs)
        self._guard.begin_step(batches)
        return batches, items

    def floating_point_ops(self, inputs):
        """As `Trainer.floating_point_ops`; the parameters are counted once."""
        self._weights = self._weights or self.trained_model.num_parameters(exclude_embeddings=True)
        main = inputs.get(self.trained_model.main_input_name)
        return 0 if main is None else 6 * main.numel() * self._weights

    def training_step(self, *args, **kwargs):
        """As `Trainer.training_step`; the loss is checked before the optimizer step."""
        loss = super().training_step(*args, **kwargs)
        self._guard.add_loss(loss, self._rows)
        self._rows = ()
        return loss

    def _save_checkpoint(self, model, trial):
        self._guard.refuse_weights(self.model, self.state)
        folder = Path(self._get_output_dir(trial=trial), f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}")
        with whole_checkpoint(folder, self.args, self.state):
            super()._save_checkpoint(model, trial)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """As `Trainer.save_model`; if a process cannot write a checkpoint, all of them raise an error."""
        if not _internal_call or output_dir is None:  # not a checkpoint: one process alone may save or push a model
            return super().save_model(output_dir, _internal_call)
        with failing_together(Path(output_dir)):  # before transformers' barrier
            super().save_model(output_dir, _internal_call)

    def _determine_best_metric(self, metrics, trial):
        refuse_metric_not_finite(metrics, self.args.metric_for_best_model)  # NaN would never be the best
        return super()._determine_best_metric(metrics, trial)

    def evaluation_loop(self, dataloader, *args, **kwargs):
        """As `Trainer.evaluation_loop`; raises an error if logits are not finite."""
        output = super().evaluation_loop(dataloader, *args, **kwargs)
        refuse_logits_not_finite(output.predictions, dataloader.dataset)
        return output

    def log(self, logs: dict[str, float], *args, **kwargs) -> None:
        """As `Trainer.log`, with the terms of `record_step`."""
        if "loss" in logs and self._term_count:
            for name, total in self._terms.items():
                logs[name] = round(gather((total / self._term_count)[None]).mean().item(), 6)
            self._terms, self._term_count = {}, 0
        if "train_loss" in logs and self.state.global_step:  # that of transformers has no step before a resumption
            logs["train_loss"] = float(self._guard.loss_sum) / self.state.global_step
        if "train_loss" in logs and (idle := int(self.idle_batches)):
            logs["batches_without_comparison"] = idle
        super().log(logs, *args, **kwargs)

    def create_optimizer(self, *args, **kwargs):
        """As `Trainer.create_optimizer`, with `layerwise_lr_decay` and `encoder_lr_factor`."""
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
        """As `Trainer.create_scheduler`; `lr_gamma` multiplies the rate after each epoch of `lr_milestones`."""
        if not getattr(self.args, "lr_milestones", None) or self.lr_scheduler is not None:
            return super().create_scheduler(num_training_steps, optimizer)
        optimizer, self._created_lr_scheduler = self.optimizer if optimizer is None else optimizer, True
        self.lr_scheduler = milestone_schedule(optimizer, self.args, num_training_steps / self.args.num_train_epochs)
        return self.lr_scheduler

    def _get_train_sampler(self, *args, **kwargs):
        options, clips = self.args, self.train_dataset
        seed = options.seed if options.data_seed is None else options.data_seed
        balanced, by_length = getattr(options, "class_balanced_sampling", 0), getattr(options, "batch_by_length", 0)
        is_clip_dataset = isinstance(clips, ClipDataset)
        step = options.world_size * options.train_batch_size
        if options.dataloader_drop_last and len(clips) < step:
            raise ValueError(
                f"{len(clips)} clips do not fill one step of {step}: give a smaller --per_device_train_batch_size, or "
                f"--dataloader_drop_last false"
            )
        if is_clip_dataset and clips.groups is not None:
            for name in ("class_balanced_sampling", "batch_by_length"):
                if getattr(options, name, False):
                    raise ValueError(f"{name} does not support shards, which are read in order: leave it out")
            workers, drop_last = max(1, options.dataloader_num_workers), options.dataloader_drop_last
            readers = {"processes": options.world_size, "workers": workers}
            return ShardSampler(clips.groups, options.train_batch_size, seed=seed, drop_last=drop_last, **readers)
        if balanced:
            sampler = ClassBalancedSampler(clips.emotion_labels, seed)
        elif not is_clip_dataset or options.dataloader_drop_last and not by_length:
            sampler = super()._get_train_sampler(*args, **kwargs)
        else:
            sampler = EpochSampler(len(clips), seed)
        if by_length:
            lengths = lengths_of(clips, self.trained_model.config)
            sampler, random = LengthSampler(sampler, lengths, step, seed), sampler
            if self.is_world_process_zero():
                logger.warning(describe_mix(clips, lengths, options.train_batch_size, sampler, random))
        if options.world_size == 1 or options.dataloader_drop_last:
            return sampler
        if not is_clip_dataset:
            raise ValueError(
                "only a ClipDataset can be padded; with another dataset, clips of the last batch would count twice: "
                "give --dataloader_drop_last true"
            )
        return FilledSampler(sampler, step)

    def get_train_dataloader(self):
        """As `Trainer.get_train_dataloader`; batches also have clip indices."""
        collator = self.data_collator
        self.data_collator = IndexedCollator(collator)
        try:
            return with_lasting_workers(super().get_train_dataloader())
        finally:
            self.data_collator = collator

    def get_eval_dataloader(self, *args, **kwargs):
        """As `Trainer.get_eval_dataloader`, including the last clips."""
        with loading_for_evaluation(self.args):
            return with_lasting_workers(super().get_eval_dataloader(*args, **kwargs))

    def get_test_dataloader(self, *args, **kwargs):
        """As `Trainer.get_test_dataloader`, including the last clips."""
        with loading_for_evaluation(self.args):
            return super().get_test_dataloader(*args, **kwargs)

    def create_model_card(self, *args, **kwargs) -> None:
        """Write the model card; see `write_model_card`."""
        if self.is_world_process_zero():
            rate = getattr(self.processing_class, "feature_extractor", self.processing_class).sampling_rate
            development = development_of(self.args, self.eval_dataset, self.trained_model.config.training_data)
            training = TrainingFacts(self.state, rate, self.trained_parameters, development, self.commands)
            write_model_card(self.args.output_dir, self.trained_model, self.card_text, training)
