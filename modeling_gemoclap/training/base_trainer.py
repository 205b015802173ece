"""What the trainers share: order and draws of the clips, optimiser, whole evaluations, the card."""

from __future__ import annotations

import os

import torch
from torch.optim.lr_scheduler import LambdaLR
from transformers import Trainer, TrainerCallback, set_seed

from .clips import ClipDataset
from .frozen import FrameDataset
from .gather import gather
from .gradient_cache import refuse_batch_norm
from .lora import is_lora
from .model_card import write_model_card
from .optimizer import layerwise_groups
from .samplers import ClassBalancedSampler, EpochSampler, FilledSampler, ShardSampler


class _TellEpoch(TrainerCallback):
    """Tells clips and sampler the epoch, of which their draws and their order are a function.

    accelerate tells the sampler of a fresh epoch only: in a run that goes on it lies deeper than accelerate looks.
    """

    def on_train_begin(self, args, state, control, **kwargs):
        if args.process_index:  # else the n-th clips of all processes would share their dropout
            set_seed(args.seed + args.process_index)

    def on_epoch_begin(self, args, state, control, train_dataloader=None, **kwargs):
        epoch, loader = int(round(state.epoch or 0, 6)), train_dataloader
        tell = [getattr(loader, "dataset", None)]
        while loader is not None:
            tell.append(getattr(loader, "sampler", None))
            loader = getattr(loader, "batch_sampler", None)
        for one in tell:
            if hasattr(one, "set_epoch"):
                one.set_epoch(epoch)


def _check_rates(args) -> None:
    milestones, gamma = getattr(args, "lr_milestones", None), getattr(args, "lr_gamma", 0.1)
    if milestones and (args.max_steps > 0 or min(milestones) <= 0 or not 0 < gamma <= 1):
        raise ValueError(
            f"lr_milestones {milestones} are numbers of epochs above 0, after each of which the rate is multiplied by "
            f"lr_gamma {gamma}, above 0 and at most 1; they do not go with max_steps"
        )
    if milestones and (args.warmup_steps or args.lr_scheduler_type not in ("linear", "constant")):
        raise ValueError("lr_milestones are the schedule: leave out lr_scheduler_type and warmup_steps")


class _ForgetCalibration(TrainerCallback):
    """Drops the calibration temperature of a checkpoint that is trained on: its weights are about to be others."""

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        forget = getattr(getattr(model, "config", None), "forget_calibration", None)
        if forget:
            forget()


class SpeechTrainer(Trainer):
    """Trainer for clips: plain Adam as in the paper, layer-wise rates, balanced classes, evaluation of every clip.

    Args:
        model: The model.
        args: `GEmoClapTrainingArguments`, or transformers' own.
        *others: As for `transformers.Trainer`.
        **kwargs: As for `transformers.Trainer`; `processing_class` is the processor or feature extractor.

    Raises:
        ValueError: If `check` does not pass.
    """

    loss_is_scaled_for_ga = False

    def __init__(self, model=None, args=None, *others, **kwargs):
        if args is not None:
            self.check(args)
            if args.ddp_find_unused_parameters is None:
                # transformers would not look for them under gradient checkpointing; layer drop leaves some out.
                args.ddp_find_unused_parameters = True
        super().__init__(model, args, *others, **kwargs)
        if getattr(self.args, "optimizer", "adam") == "adam" and not self.optimizer_cls_and_kwargs:
            betas = (self.args.adam_beta1, self.args.adam_beta2)
            options = {"lr": self.args.learning_rate, "betas": betas, "eps": self.args.adam_epsilon}
            self.optimizer_cls_and_kwargs = (torch.optim.Adam, options)
        self.args.remove_unused_columns = False
        # transformers 4 would checkpoint reentrantly, which cuts the graph at a frozen input and trains nothing above.
        self.args.gradient_checkpointing_kwargs = self.args.gradient_checkpointing_kwargs or {"use_reentrant": False}
        if self.args.world_size > 1:
            refuse_batch_norm(self.model, "several processes")
        self.label_names = ["emotion_labels"]
        self.add_callback(_TellEpoch())
        self.add_callback(_ForgetCalibration())
        self._noted: dict[str, torch.Tensor] = {}  # sums since the last log
        self._notes = 0
        self.trained_parameters = sum(p.numel() for p in self.model.parameters() if p.requires_grad)

    @classmethod
    def check(cls, args) -> None:
        """Make sure that the arguments can be had, before clips are read or anything is written.

        Args:
            args: As for the constructor.

        Raises:
            ValueError: If several devices would be driven by one process (`torch.nn.DataParallel`), several processes
                were started that do not know of each other, clips are to be drawn in an order of transformers' own,
                or learning rates cannot be as they are given.
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
        if getattr(args, "group_by_length", False) or getattr(args, "train_sampling_strategy", "random") != "random":
            raise ValueError(
                "clips are drawn at random, or with --class_balanced_sampling true: leave out group_by_length and "
                "train_sampling_strategy"
            )

    def note(self, terms: dict[str, torch.Tensor]) -> None:
        """Have the means of these scalars logged beside the next `loss`, over the steps and the processes."""
        for name, value in terms.items():
            self._noted[name] = self._noted.get(name, 0.0) + value.detach()
        self._notes += 1

    def log(self, logs: dict[str, float], *args, **kwargs) -> None:
        """As Trainer's, with what was noted."""
        if "loss" in logs and self._notes:
            for name, total in self._noted.items():
                logs[name] = round(gather((total / self._notes)[None]).mean().item(), 6)
            self._noted, self._notes = {}, 0
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

    def _whole(self, build, *args, **kwargs):
        """Build a loader that keeps the last clips: `dataloader_drop_last` is for training batches."""
        dropped, self.args.dataloader_drop_last = self.args.dataloader_drop_last, False
        try:
            return build(*args, **kwargs)
        finally:
            self.args.dataloader_drop_last = dropped

    def get_eval_dataloader(self, *args, **kwargs):
        """As Trainer's, with every clip."""
        return self._whole(super().get_eval_dataloader, *args, **kwargs)

    def get_test_dataloader(self, *args, **kwargs):
        """As Trainer's, with every clip."""
        return self._whole(super().get_test_dataloader, *args, **kwargs)

    def create_model_card(self, *args, **kwargs) -> None:
        """Write `README.md` beside the checkpoint; see `write_model_card`."""
        if self.is_world_process_zero():
            rate = getattr(self.processing_class, "feature_extractor", self.processing_class).sampling_rate
            model = self.accelerator.unwrap_model(self.model)
            write_model_card(self.args.output_dir, model, self.state, rate, self.trained_parameters)
