"""The groups of arguments that all objectives share: model, data, and training."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass

import torch
import torch.distributed as dist
from accelerate.utils import DynamoBackend
from transformers import TrainingArguments

from ..command_line.parser import option
from ..command_line.ranges import COUNT, DROPOUT, FACTOR, FINITE, NOT_NEGATIVE, POSITIVE, SEED, SHARE, Range
from ..configuration_gemoclap import POOLINGS
from .augmentation import EQUALIZER, WARP
from .trainer_options import chooses_by_metric

# Of transformers' own options, those that end in a traceback, in no training or in one of nothing but NaN.
TRAINER_RANGES = {
    **dict.fromkeys(("learning_rate", "weight_decay", "max_grad_norm", "warmup_steps"), NOT_NEGATIVE),
    **dict.fromkeys(("eval_delay", "dataloader_num_workers", "neftune_noise_alpha"), NOT_NEGATIVE),
    **dict.fromkeys(("adam_beta1", "adam_beta2", "label_smoothing_factor"), DROPOUT),
    **dict.fromkeys(("adam_epsilon", "num_train_epochs", "logging_steps", "save_steps", "eval_steps"), POSITIVE),
    **dict.fromkeys(("per_device_train_batch_size", "per_device_eval_batch_size", "save_total_limit"), COUNT),
    **dict.fromkeys(("gradient_accumulation_steps", "eval_accumulation_steps", "ddp_timeout"), COUNT),
    **dict.fromkeys(("dataloader_prefetch_factor", "torch_empty_cache_steps", "ddp_bucket_cap_mb"), COUNT),
    "max_steps": Range(at_least=1, besides=(-1,)),  # -1: as many as the epochs have
    "warmup_ratio": SHARE,
    "seed": SEED,
    "data_seed": SEED,
}
TRAINER_PATHS = ("output_dir", "logging_dir", "resume_from_checkpoint", "deepspeed", "fsdp_config")
DEFAULT_OPTIM = next(item.default for item in dataclasses.fields(TrainingArguments) if item.name == "optim")


@dataclass
class ModelArguments:
    """Model: the objective, and the audio encoder that all objectives share."""

    head: str = option("contrastive", "Objective, see below")
    audio_model: str | None = option(
        None, "Pretrained audio encoder, name or path; none or compact: the compact encoder from scratch", path=True
    )
    audio_config: str | None = option(None, "Fields of the audio encoder's configuration, a JSON object", as_json=True)
    feature_config: str | None = option(None, "Fields of the feature extractor, a JSON object", as_json=True)
    init_from: str | None = option(
        None, "Checkpoint, or protocol run, from which the audio encoder and its pooling are taken", path=True
    )
    emotions: list[str] | None = option(None, "Emotion classes; none: those of the corpus", nargs="+")
    pooling: str = option("mean", "Pooling of audio frames into one vector", choices=list(POOLINGS))
    use_weighted_layer_sum: bool = option(False, "Pool a learnt mean of all layers instead of the last layer")
    freeze_feature_encoder: bool = option(False, "Do not train the convolutional feature encoder")
    freeze_feature_projection: bool = option(False, "Do not train the feature projection below the Transformer")
    freeze_audio_encoder: bool = option(False, "Do not train the audio encoder")
    unfreeze_last_n_layers: int | None = option(
        None, "Train only this many of the audio encoder's last layers", within=NOT_NEGATIVE
    )


@dataclass
class DataArguments:
    """Data: the clips, and how they are drawn."""

    data_dir: list[str] | None = option(
        None,
        "Corpus folders: as downloaded, with metadata.csv, or with Parquet shards; several are mixed",
        nargs="+",
        path=True,
    )
    corpus_name: list[str] | None = option(None, "What to call each; none: its own or its folder's name", nargs="+")
    emotion_map: str | None = option(
        None, "What the corpora's own words for emotions stand for, as a JSON object of words", as_json=True
    )
    protocol: str | None = option(
        None, "Train all folds of leave-one-session-out, leave-one-speaker-out, 5-folds-by-speaker, ..."
    )
    folds_file: str | None = option(None, "JSON file with a publication's folds, lists of test speakers", path=True)
    folds: list[int] | None = option(None, "Train these folds of the protocol alone", nargs="+", within=NOT_NEGATIVE)
    seeds: list[int] | None = option(
        None, "Train with each of these seeds, folds dealt with it too", nargs="+", within=SEED
    )
    control: bool = option(True, "Train each fold of the first seed on shuffled labels too: what chance gives")
    num_dev_speakers: int = option(
        0, "Training speakers to develop on; a calibration is fitted on them", within=NOT_NEGATIVE
    )
    calibration_folds: int = option(
        0,
        "Calibrate by answers to training speakers out of so many folds, each left out of a training of its own",
        within=Range(at_least=2, besides=(0,)),
    )
    select: str = option(
        "last", "Which epoch is kept: the last, or the best on the development speakers", choices=["last", "dev"]
    )
    label_fraction: float = option(
        1.0,
        "Share of the training clips that is used, of every speaker and emotion alike; not of development speakers",
        within=FACTOR,
    )
    speakers: list[str] | None = option(None, "Train on these speakers alone", nargs="+")
    exclude_speakers: list[str] | None = option(None, "Never touch these speakers: the test", nargs="+")
    dev_speakers: list[str] | None = option(None, "Evaluate on these during training, never train on them", nargs="+")
    drop_other_emotions: bool = option(False, "Drop clips of emotions that --emotions does not name")
    on_bad_audio: str = option(
        "raise", "A clip that cannot be used: stop, or go on without", choices=["raise", "skip"]
    )
    max_seconds: float | None = option(
        None, "Longer training clips are cut to this length at a random place", within=POSITIVE
    )
    time_warp: float = option(
        0.0, "Training clips are spoken up to exp(this) times faster or slower (log-mel only)", within=WARP
    )
    mel_warp: float = option(
        0.0, "Their formants and pitch move by up to this factor's logarithm (log-mel only)", within=WARP
    )
    equalizer_db: float = option(
        0.0,
        "Another microphone: standard deviation in dB of random curves over the mel axis (log-mel only)",
        within=EQUALIZER,
    )
    noise_prob: float = option(
        0.0, "Share of the training clips that get noise of a random colour (log-mel only)", within=SHARE
    )
    noise_snr_db: list[float] = option(
        [10.0, 40.0], "Its least and greatest distance below the clip, dB", nargs=2, within=FINITE
    )
    reverb_prob: float = option(
        0.0, "Share of the training clips that are put into a room (log-mel only)", within=SHARE
    )
    mix_prob: float = option(
        0.0,
        "Share of the training clips that another of the same emotion and gender is laid under (log-mel only)",
        within=SHARE,
    )
    feature_cache_dir: str | None = option(
        None, "Where features are cached; none: in the cache of datasets", path=True
    )
    preprocessing_num_workers: int | None = option(None, "Processes that read the audio before training", within=COUNT)


@dataclass
class GEmoClapTrainingArguments(TrainingArguments):
    """Training, beside the fields of transformers.TrainingArguments."""

    optimizer: str = option("adam", "Plain Adam, as in the paper, or what --optim names", choices=["adam", "optim"])
    encoder_lr_factor: float = option(1.0, "Learning rate of the encoders over that of what is new", within=FACTOR)
    lr_milestones: list[float] | None = option(
        None,
        "After these epochs the learning rate is multiplied by --lr_gamma, in place of --lr_scheduler_type",
        nargs="+",
        within=POSITIVE,
    )
    lr_gamma: float = option(0.1, "See --lr_milestones", within=FACTOR)
    layerwise_lr_decay: float = option(1.0, "Learning rate of a layer over that of the layer above it", within=FACTOR)
    class_balanced_sampling: bool = option(False, "Draw every emotion equally often")
    overwrite_output: bool = option(False, "Train into a folder that is not empty")

    def __post_init__(self):
        if self.optimizer == "adam" and (self.optim != DEFAULT_OPTIM or self.optim_args):
            name = getattr(self.optim, "value", self.optim)
            raise ValueError(
                f"--optim {name} and --optim_args have no part in --optimizer adam: give --optimizer optim, or leave "
                f"them out (--no-optim, --no-optim_args)"
            )
        # transformers gives ddp_timeout to GPUs alone: on CPUs a process that hangs would hold the others for longer.
        if self.use_cpu and {"RANK", "WORLD_SIZE"} <= os.environ.keys() and not dist.is_initialized():
            dist.init_process_group(self.ddp_backend or "gloo", timeout=self.ddp_timeout_delta)
        _refuse_missing_files(self)
        _refuse_compiler(self.torch_compile_backend)
        if self.metric_for_best_model is None and chooses_by_metric(self):
            self.metric_for_best_model = "uar"  # evaluation reports no loss, which is transformers' default
        super().__post_init__()
        if self.fp16 and self.device.type == "cpu":
            raise ValueError(
                "--fp16 true: on a CPU it has no effect, the training would be in float32; give --bf16 true, or leave "
                "it out"
            )

    @property
    def device(self) -> torch.device:
        """Where this process runs; a CPU has no number: transformers 4 would load no optimizer state to cpu:0."""
        device = super().device
        return torch.device("cpu") if device.type == "cpu" else device


def _refuse_missing_files(arguments: TrainingArguments) -> None:
    for name in ("deepspeed", "fsdp_config"):
        value = getattr(arguments, name)
        if isinstance(value, str) and value.strip() and value.lstrip()[:1] != "{" and not os.path.isfile(value):
            raise ValueError(f"--{name} {value}: no such file")


def _refuse_compiler(backend: str | None) -> None:
    known = [each.value.lower() for each in DynamoBackend]
    if backend is not None and backend.lower() not in known:
        raise ValueError(f"--torch_compile_backend {backend}: not known; known are {', '.join(known)}")


@dataclass
class Recipe:
    """The options of a run, by group.

    Args:
        model: The objective and the audio encoder.
        options: Options that only this objective has; an instance of its `Options`.
        data: The clips.
        training: The training.
    """

    model: ModelArguments
    options: object
    data: DataArguments
    training: GEmoClapTrainingArguments

    def to_dict(self) -> dict:
        """All options by name; the names of the groups are distinct."""
        groups = (self.model, self.options, self.data)
        values = {name: value for group in groups for name, value in dataclasses.asdict(group).items()}
        return {**values, **self.training.to_dict()}
