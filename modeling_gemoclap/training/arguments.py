"""Options that all objectives share, in three groups: model, data and training."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass

import torch
import torch.distributed as dist
from accelerate.utils import DynamoBackend
from transformers import TrainingArguments
from transformers.trainer_utils import HubStrategy

from ..command_line.compilers import refuse_missing_compiler
from ..command_line.parser import option
from ..command_line.ranges import COUNT, DROPOUT, FACTOR, FINITE, NOT_NEGATIVE, POSITIVE, SEED, SHARE, Range
from ..configuration_gemoclap import POOLINGS
from .augmentation import EQUALIZER, WARP
from .trainer_options import chooses_by_metric

# Ranges of transformers' options whose other values end in a traceback, in no training step or in NaN.
TRAINER_RANGES = {
    **dict.fromkeys(("learning_rate", "weight_decay", "max_grad_norm", "warmup_steps"), NOT_NEGATIVE),
    **dict.fromkeys(("eval_delay", "dataloader_num_workers", "neftune_noise_alpha"), NOT_NEGATIVE),
    **dict.fromkeys(("adam_beta1", "adam_beta2", "label_smoothing_factor"), DROPOUT),
    **dict.fromkeys(("adam_epsilon", "num_train_epochs", "logging_steps", "save_steps", "eval_steps"), POSITIVE),
    **dict.fromkeys(("per_device_train_batch_size", "per_device_eval_batch_size", "save_total_limit"), COUNT),
    **dict.fromkeys(("gradient_accumulation_steps", "eval_accumulation_steps", "ddp_timeout"), COUNT),
    **dict.fromkeys(("dataloader_prefetch_factor", "torch_empty_cache_steps", "ddp_bucket_cap_mb"), COUNT),
    "max_steps": Range(at_least=1, also_allowed=(-1,)),  # -1: num_train_epochs decides
    "warmup_ratio": SHARE,
    "seed": SEED,
    "data_seed": SEED,
}
TRAINER_PATHS = ("output_dir", "logging_dir", "resume_from_checkpoint", "deepspeed", "fsdp_config")
DEFAULT_OPTIM = next(field.default for field in dataclasses.fields(TrainingArguments) if field.name == "optim")


@dataclass
class ModelArguments:
    """Model: the objective, and the audio encoder that all objectives share."""

    head: str = option("contrastive", "Training objective, see below")
    audio_model: str | None = option(
        None, "Pretrained audio encoder, name or path; none or compact: compact encoder from scratch", path=True
    )
    audio_config: str | None = option(None, "Fields of the audio encoder's configuration (JSON object)", as_json=True)
    audio_layers: int | None = option(
        None, "Keep only this number of first Transformer layers of the pretrained audio encoder", within=COUNT
    )
    audio_window_seconds: float | None = option(
        None, "Window of Whisper in s, a multiple of 0.02; a longer clip is several windows", within=POSITIVE
    )
    feature_config: str | None = option(None, "Fields of the feature extractor (JSON object)", as_json=True)
    init_from: str | None = option(
        None, "Checkpoint or protocol run that provides the initial audio encoder and pooling", path=True
    )
    emotions: list[str] | None = option(None, "Emotion classes; none: those of the corpus", nargs="+")
    pooling: str = option("mean", "Pooling of audio frames into one vector", choices=list(POOLINGS))
    pooled_dropout: float = option(0.0, "Dropout of the pooled audio", within=DROPOUT)
    use_weighted_layer_sum: bool = option(False, "Pool a learned weighted sum of all layers, not only the last layer")
    freeze_feature_encoder: bool = option(False, "Freeze the convolutional feature encoder")
    freeze_feature_projection: bool = option(False, "Freeze the feature projection below the Transformer")
    freeze_audio_encoder: bool = option(False, "Freeze the audio encoder")
    unfreeze_last_n_layers: int | None = option(
        None, "Train only this number of last layers of the audio encoder", within=NOT_NEGATIVE
    )
    cache_frozen_frames: bool = option(
        False,
        "With --freeze_audio_encoder or --unfreeze_last_n_layers: store the output of the frozen layers for every "
        "clip, and train on it",
    )


@dataclass
class DataArguments:
    """Data: the clips and how they are sampled."""

    data_dir: list[str] | None = option(
        None,
        "Corpus folders: original layout, metadata.csv or Parquet shards; several are mixed",
        nargs="+",
        path=True,
    )
    corpus_name: list[str] | None = option(
        None, "Name of each corpus; none: its published name or its folder's name", nargs="+"
    )
    emotion_map: str | None = option(
        None, "Emotions that words of the corpora stand for (JSON object of words)", as_json=True
    )
    protocol: str | None = option(
        None, "Train all folds: leave-one-session-out, leave-one-speaker-out, 5-folds-by-speaker, ..."
    )
    folds_file: str | None = option(None, "JSON file with published folds (lists of test speakers)", path=True)
    folds: list[int] | None = option(None, "Train only these folds of the protocol", nargs="+", within=NOT_NEGATIVE)
    seeds: list[int] | None = option(
        None, "Repeat the protocol with each of these seeds, which also assign the folds", nargs="+", within=SEED
    )
    control: bool = option(True, "Also train the first seed's folds on shuffled labels (chance level)")
    num_dev_speakers: int = option(
        0, "Number of training speakers held out for development and calibration", within=NOT_NEGATIVE
    )
    calibration_folds: int = option(
        0,
        "Calibrate on out-of-fold predictions with this number of speaker folds; 0: off",
        within=Range(at_least=2, also_allowed=(0,)),
    )
    select: str = option(
        "last", "Epoch to keep: the last, or the best on the development speakers", choices=["last", "dev"]
    )
    label_fraction: float = option(
        1.0, "Share of training clips that is used, for each speaker and emotion", within=FACTOR
    )
    speakers: list[str] | None = option(None, "Train only on these speakers", nargs="+")
    exclude_speakers: list[str] | None = option(None, "Test speakers: neither trained nor developed on", nargs="+")
    dev_speakers: list[str] | None = option(None, "Development speakers: evaluated during training", nargs="+")
    drop_other_emotions: bool = option(False, "Drop clips of emotions that are not listed in --emotions")
    on_bad_audio: str = option("raise", "Unusable clips: stop, or skip them", choices=["raise", "skip"])
    max_seconds: float | None = option(
        None, "Maximum length of a training clip in s; longer clips are cut at random", within=POSITIVE
    )
    time_warp: float = option(
        0.0, "Maximum change of speed, as a natural logarithm of the factor (compact, Whisper)", within=WARP
    )
    mel_warp: float = option(
        0.0, "Maximum stretch of the mel axis, as a natural logarithm of the factor (compact, Whisper)", within=WARP
    )
    equalizer_db: float = option(
        0.0, "Standard deviation in dB of random equalizer curves (compact, Whisper)", within=EQUALIZER
    )
    noise_prob: float = option(0.0, "Share of clips with added noise (compact, Whisper)", within=SHARE)
    noise_snr_db: list[float] = option(
        [10.0, 40.0], "Minimum and maximum signal-to-noise ratio of added noise in dB", nargs=2, within=FINITE
    )
    reverb_prob: float = option(0.0, "Share of clips with added reverberation (compact, Whisper)", within=SHARE)
    mix_prob: float = option(
        0.0,
        "Share of training clips mixed with another clip of the same emotion and gender (compact, Whisper)",
        within=SHARE,
    )
    frozen_copies: int = option(
        1,
        "With --cache_frozen_frames: versions of each training clip, the first unchanged and the others augmented, of "
        "which each epoch draws one",
        within=COUNT,
    )
    feature_cache_dir: str | None = option(
        None, "Folder for cached features and frames; none: the cache of the datasets library", path=True
    )
    store_training_clips: bool = option(
        True,
        "Store embeddings of up to 512 training clips beside the weights, for the reports of gemoclap predict; not in "
        "the folds of a protocol",
    )
    preprocessing_num_workers: int | None = option(None, "Number of processes that read audio", within=COUNT)


@dataclass
class GEmoClapTrainingArguments(TrainingArguments):
    """Training, in addition to the fields of transformers.TrainingArguments."""

    optimizer: str = option("adam", "Adam as in the paper, or the optimizer of --optim", choices=["adam", "optim"])
    encoder_lr_factor: float = option(1.0, "Learning rate of the encoders, relative to new modules", within=FACTOR)
    lr_milestones: list[float] | None = option(
        None,
        "Epochs after which the learning rate is multiplied by --lr_gamma; replace the schedule",
        nargs="+",
        within=POSITIVE,
    )
    lr_gamma: float = option(0.1, "Factor of the learning rate at each of --lr_milestones", within=FACTOR)
    layerwise_lr_decay: float = option(1.0, "Learning rate of a layer, relative to the layer above", within=FACTOR)
    class_balanced_sampling: bool = option(False, "Sample every emotion equally often")
    batch_by_length: bool = option(
        False, "Form batches of clips of similar length, so that less of a batch is padding; their order is random"
    )
    overwrite_output: bool = option(False, "Overwrite an output folder that is not empty")
    dataloader_num_workers: int | None = option(
        None, "Number of processes that read clips while the model trains; none: 1 to decode, if a core is left"
    )
    # transformers' default pushes unfinished checkpoints, which are refused
    hub_strategy: str = option("end", "When --push_to_hub pushes", choices=[each.value for each in HubStrategy])

    def __post_init__(self):
        if self.optimizer == "adam" and (self.optim != DEFAULT_OPTIM or self.optim_args):
            name = getattr(self.optim, "value", self.optim)
            raise ValueError(
                f"--optim {name} and --optim_args have no effect with --optimizer adam: give --optimizer optim, or "
                f"leave them out (--no-optim, --no-optim_args)"
            )
        # transformers applies ddp_timeout to GPUs only; without it, processes on CPUs wait longer for one that hangs.
        if self.use_cpu and {"RANK", "WORLD_SIZE"} <= os.environ.keys() and not dist.is_initialized():
            dist.init_process_group(self.ddp_backend or "gloo", timeout=self.ddp_timeout_delta)
        _refuse_missing_files(self)
        _refuse_compiler(self.torch_compile_backend)
        _refuse_missing_bf16(self)
        if self.metric_for_best_model is None and chooses_by_metric(self):
            self.metric_for_best_model = "uar"  # evaluation reports no loss, which is transformers' default
        workers, self.dataloader_num_workers = self.dataloader_num_workers, self.dataloader_num_workers or 0
        super().__post_init__()
        self.dataloader_num_workers = workers  # None until the trainer has the clips
        if self.torch_compile:
            os.environ.setdefault("ACCELERATE_DYNAMO_USE_DYNAMIC", "true")  # batches have varying lengths
            if self.device.type == "cpu" and self.torch_compile_backend == "inductor":
                refuse_missing_compiler("--torch_compile true")
        if self.fp16 and self.device.type == "cpu":
            raise ValueError(
                "--fp16 true: it has no effect on a CPU, where training would run in float32; give --bf16 true, or "
                "leave it out"
            )

    @property
    def device(self) -> torch.device:
        """Device of this process, without an index for a CPU: transformers 4 loads no optimizer state to cpu:0."""
        device = super().device
        return torch.device("cpu") if device.type == "cpu" else device


def _refuse_missing_files(arguments: TrainingArguments) -> None:
    for name in ("deepspeed", "fsdp_config"):
        value = getattr(arguments, name)
        if isinstance(value, str) and value.strip() and value.lstrip()[:1] != "{" and not os.path.isfile(value):
            raise ValueError(f"--{name} {value}: no such file")


def _refuse_compiler(backend: str | None) -> None:
    known = [member.value.lower() for member in DynamoBackend]
    if backend is not None and backend.lower() not in known:
        raise ValueError(f"--torch_compile_backend {backend}: unknown backend; give one of {', '.join(known)}")


def _refuse_missing_bf16(arguments: TrainingArguments) -> None:
    if (arguments.bf16 or arguments.bf16_full_eval) and not arguments.use_cpu and torch.cuda.is_available():
        if not torch.cuda.is_bf16_supported(including_emulation=False):
            option = "--bf16" if arguments.bf16 else "--bf16_full_eval"
            raise ValueError(
                f"{option} true: the GPU ({torch.cuda.get_device_name()}) has no bf16: give --fp16 true, or "
                f"leave both out for float32"
            )


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
