"""The three groups of arguments of `train.py`, and how they are read from YAML and the command line."""

from __future__ import annotations

import dataclasses
import math
import os
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from accelerate.utils import DynamoBackend
from transformers import TrainingArguments

from ..command_line.files import json_object
from ..command_line.parser import OptionParser
from ..command_line.ranges import (
    COUNT,
    DROPOUT,
    FACTOR,
    FINITE,
    NOT_NEGATIVE,
    POSITIVE,
    SEED,
    SHARE,
    Range,
    ranges_of,
    refuse_out_of_range,
)
from ..configuration_gemoclap import OBJECTIVES, POOLINGS, SIMILARITIES, SL_TEXTS, TARGETS, TEXT_POOLINGS
from .augmentation import EQUALIZER, WARP
from .speaker_losses import TASKS
from .supcon_sampler import NEGATIVES
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


def _option(default, help: str, **metadata):
    if isinstance(default, (list, dict)):
        return field(default_factory=lambda: default, metadata={"help": help, **metadata})
    return field(default=default, metadata={"help": help, **metadata})


@dataclass
class ModelArguments:
    """What to train."""

    audio_model: str | None = _option(
        None, "Pretrained audio encoder, by name or path; none, or compact: the compact one from scratch", path=True
    )
    text_model: str | None = _option(
        None, "Pretrained text encoder, by name or path; none: a small one from scratch", path=True
    )
    audio_config: str | None = _option(
        None, "Fields of the audio tower's configuration, as a JSON object", as_json=True
    )
    text_config: str | None = _option(None, "Fields of the text tower's configuration, as a JSON object", as_json=True)
    feature_config: str | None = _option(None, "Fields of the feature extractor, as a JSON object", as_json=True)
    head: str = _option(
        "contrastive",
        "What is trained: a model of audio and words; the baseline, a classifier by cross-entropy; an encoder by "
        "the supervised contrastive losses of Xiang's first stage; or one on unlabelled speech, by speaker embeddings",
        choices=["contrastive", "classifier", "supcon", "speaker"],
    )
    init_from: str | None = _option(
        None,
        "Checkpoint whose audio tower and pooling to start from; of a protocol's run each fold takes its own",
        path=True,
    )
    supcon_temperature: float = _option(0.07, "Temperature of InfoNCE (head supcon)", within=POSITIVE)
    supcon_alpha: float = _option(
        0.5, "Weight of positive pairs in the cosine margin loss (head supcon)", within=NOT_NEGATIVE
    )
    supcon_margin: float = _option(
        0.4, "Negative pairs whose cosine is below are left alone (head supcon)", within=Range(at_least=-1, at_most=1)
    )
    supcon_negatives: str = _option(
        "emotion", "What negatives differ in: emotion, or emotion or corpus (head supcon)", choices=list(NEGATIVES)
    )
    classifier_hidden_size: int | None = _option(
        None, "Hidden width of the classifier's head; none: it is linear", within=COUNT
    )
    classifier_dropout: float = _option(0.0, "Dropout before the classifier's head", within=DROPOUT)
    speaker_embeddings: str = _option(
        "resemblyzer",
        "Where speaker embeddings come from: resemblyzer, an x-vector model, or a .npz (head speaker)",
        path=True,
    )
    speaker_clusters: int | None = _option(
        None,
        "Clusters of each speaker; none: as many as have the best silhouette (head speaker)",
        within=Range(at_least=2),
    )
    speaker_task: str = _option(
        "contrastive", "Contrast alone, or with a classification of speakers, or against one", choices=list(TASKS)
    )
    speaker_weight: float = _option(0.1, "Weight of that classification (head speaker)", within=NOT_NEGATIVE)
    speaker_temperature: float = _option(0.1, "Temperature of InfoNCE (head speaker)", within=POSITIVE)
    speaker_group_size: int = _option(
        4, "Clips of a speaker that are drawn together, of two clusters (head speaker)", within=Range(at_least=2)
    )
    objective: str = _option("sl", "Emo-CLAP, ML-GEmo-CLAP or SL-GEmo-CLAP", choices=list(OBJECTIVES))
    alpha: float = _option(0.9, "Weight of emotion against gender", within=SHARE)
    similarity: str = _option("cross", "Which embeddings are compared in the loss", choices=list(SIMILARITIES))
    targets: str = _option("softmax", "How match matrices become targets", choices=list(TARGETS))
    sl_texts: str = _option("joint", "What the text of a clip tells under sl", choices=list(SL_TEXTS))
    pooling: str = _option("mean", "How audio frames become one vector", choices=list(POOLINGS))
    use_weighted_layer_sum: bool = _option(False, "Pool a learnt mean over the layers, not the last one")
    text_pooling: str = _option("first", "How tokens become one vector", choices=list(TEXT_POOLINGS))
    freeze_feature_encoder: bool = _option(False, "Train no convolution that hears the signal")
    freeze_feature_projection: bool = _option(False, "Nor what brings their output to the Transformer's width")
    freeze_audio_encoder: bool = _option(False, "Train nothing of the audio tower")
    freeze_text_encoder: bool = _option(False, "Train nothing of the text tower")
    unfreeze_last_n_layers: int | None = _option(
        None, "Train these many layers of the audio tower and freeze the rest", within=NOT_NEGATIVE
    )
    lora_towers: list[str] | None = _option(None, "Towers with low-rank updates: audio, text, or both", nargs="+")
    lora_rank: int = _option(8, "Rank of the updates", within=COUNT)
    lora_alpha: float = _option(16.0, "Their scale is this divided by the rank", within=POSITIVE)
    lora_dropout: float = _option(0.0, "Dropout before them", within=DROPOUT)
    projection_dim: int = _option(512, "Size of the joint space", within=COUNT)
    projection_dropout: float = _option(0.0, "Dropout inside the projections", within=DROPOUT)
    logit_scale_init_value: float = _option(
        math.log(1 / 0.07), "Initial logarithm of both scales", within=Range(at_most=math.log(100))
    )
    logit_scale_trainable: bool = _option(True, "Whether the scales are learnt")
    centre_projections: bool = _option(True, "Start from projections that are centred on 64 training clips")
    prompt_steps: int = _option(
        0, "Steps in which the text tower learns, before any audio, which prompts mean the same", within=NOT_NEGATIVE
    )
    emotions: list[str] | None = _option(None, "Emotion classes; none: those of the corpus", nargs="+")
    emotion_synonyms: str | None = _option(
        None, "Other words for emotions, drawn in training, as a JSON object of lists", as_json=True
    )
    emotion_templates: list[str] = _option(["this person is feeling {}"], "Emotion prompts", nargs="+")
    gender_templates: list[str] = _option(["this person is {}"], "Gender prompts", nargs="+")
    joint_templates: list[str] = _option(
        ["this {gender} person is feeling {emotion}"], "Prompts with both attributes", nargs="+"
    )


@dataclass
class DataArguments:
    """What to train on."""

    data_dir: list[str] | None = _option(
        None,
        "Corpus folders: as downloaded, with metadata.csv, or with Parquet shards; several are mixed",
        nargs="+",
        path=True,
    )
    corpus_name: list[str] | None = _option(None, "What to call each; none: its own or its folder's name", nargs="+")
    emotion_map: str | None = _option(
        None, "What the corpora's own words for emotions stand for, as a JSON object of words", as_json=True
    )
    protocol: str | None = _option(
        None, "Train all folds of leave-one-session-out, leave-one-speaker-out, 5-folds-by-speaker, ..."
    )
    folds_file: str | None = _option(None, "JSON file with a publication's folds, lists of test speakers", path=True)
    folds: list[int] | None = _option(None, "Train these folds of the protocol alone", nargs="+", within=NOT_NEGATIVE)
    seeds: list[int] | None = _option(
        None, "Train with each of these seeds, folds dealt with it too", nargs="+", within=SEED
    )
    control: bool = _option(True, "Train each fold of the first seed on shuffled labels too: what chance gives")
    num_dev_speakers: int = _option(
        0, "Training speakers to develop on; a calibration is fitted on them", within=NOT_NEGATIVE
    )
    calibration_folds: int = _option(
        0,
        "Calibrate by answers to training speakers out of so many folds, each left out of a training of its own",
        within=Range(at_least=2, besides=(0,)),
    )
    select: str = _option(
        "last", "Which epoch is kept: the last, or the best on the development speakers", choices=["last", "dev"]
    )
    label_fraction: float = _option(
        1.0,
        "Share of the training clips that is used, of every speaker and emotion alike; not of development speakers",
        within=FACTOR,
    )
    speakers: list[str] | None = _option(None, "Train on these speakers alone", nargs="+")
    exclude_speakers: list[str] | None = _option(None, "Never touch these speakers: the test", nargs="+")
    dev_speakers: list[str] | None = _option(None, "Evaluate on these during training, never train on them", nargs="+")
    drop_other_emotions: bool = _option(False, "Drop clips of emotions that --emotions does not name")
    on_bad_audio: str = _option(
        "raise", "A clip that cannot be used: stop, or go on without", choices=["raise", "skip"]
    )
    max_seconds: float | None = _option(
        None, "Longer training clips are cut to this length at a random place", within=POSITIVE
    )
    time_warp: float = _option(
        0.0, "Training clips are spoken up to exp(this) times faster or slower (log-mel only)", within=WARP
    )
    mel_warp: float = _option(
        0.0, "Their formants and pitch move by up to this factor's logarithm (log-mel only)", within=WARP
    )
    equalizer_db: float = _option(
        0.0,
        "Another microphone: standard deviation in dB of random curves over the mel axis (log-mel only)",
        within=EQUALIZER,
    )
    noise_prob: float = _option(
        0.0, "Share of the training clips that get noise of a random colour (log-mel only)", within=SHARE
    )
    noise_snr_db: list[float] = _option(
        [10.0, 40.0], "Its least and greatest distance below the clip, dB", nargs=2, within=FINITE
    )
    reverb_prob: float = _option(
        0.0, "Share of the training clips that are put into a room (log-mel only)", within=SHARE
    )
    mix_prob: float = _option(
        0.0,
        "Share of the training clips that another of the same emotion and gender is laid under (log-mel only)",
        within=SHARE,
    )
    unknown_gender_prob: float = _option(
        0.0,
        "Share of the clips whose gender is hidden from the loss, so that emotion-only prompts are learnt too",
        within=SHARE,
    )
    feature_cache_dir: str | None = _option(
        None, "Where features are cached; none: in the cache of datasets", path=True
    )
    preprocessing_num_workers: int | None = _option(
        None, "Processes that read the audio before training", within=COUNT
    )


@dataclass
class GEmoClapTrainingArguments(TrainingArguments):
    """How to train: all of Trainer's arguments, and these."""

    optimizer: str = _option("adam", "Plain Adam, as in the paper, or what --optim names", choices=["adam", "optim"])
    encoder_lr_factor: float = _option(1.0, "Learning rate of the encoders over that of what is new", within=FACTOR)
    lr_milestones: list[float] | None = _option(
        None,
        "After these epochs the learning rate is multiplied by --lr_gamma, in place of --lr_scheduler_type",
        nargs="+",
        within=POSITIVE,
    )
    lr_gamma: float = _option(0.1, "See --lr_milestones", within=FACTOR)
    cache_frozen_frames: bool = _option(
        False,
        "With --freeze_audio_encoder true: compute what the audio encoder gives for a clip once, not anew each epoch",
    )
    layerwise_lr_decay: float = _option(1.0, "Learning rate of a layer over that of the layer above it", within=FACTOR)
    class_balanced_sampling: bool = _option(False, "Draw every emotion equally often")
    contrastive_chunk_size: int | None = _option(
        None,
        "Clips of a process's batch that are in memory at a time, by gradient caching: exact; none: all of them",
        within=COUNT,
    )
    overwrite_output: bool = _option(False, "Train into a folder that is not empty")

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


def refuse_values(**options: object) -> None:
    """Make sure, where a part of a training is made in Python, that its numbers lie in the options' ranges.

    Args:
        **options: Values by the option's name.

    Raises:
        ValueError: If one does not.
    """
    groups = (ModelArguments, DataArguments, GEmoClapTrainingArguments)
    refuse_out_of_range(options, {name: each for name, each in ranges_of(*groups).items() if name in options})


def parse_arguments(argv: list[str]) -> tuple[ModelArguments, DataArguments, GEmoClapTrainingArguments]:
    """Read `--config FILE [--field value ...]`; the command line takes precedence over the file.

    Args:
        argv: The command line without the program's name.

    Returns:
        The three groups.

    Raises:
        ValueError: If the file is missing, is no mapping or names a field that does not exist, or values are of the
            wrong type or out of their range.
    """
    model, data, arguments = _parser().read(argv)
    if model.audio_model == "compact":
        model.audio_model = None
    return model, data, arguments


def check_arguments(argv: list[str], what: str) -> None:
    """As `parse_arguments`, without what a training would begin with: devices and processes are left alone.

    Args:
        argv: See `parse_arguments`.
        what: What the command line is of, for the error.

    Raises:
        ValueError: See `parse_arguments`.
    """
    try:
        _parser().values(argv)
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from None


def _parser() -> OptionParser:
    groups = (ModelArguments, DataArguments, GEmoClapTrainingArguments)
    may_be_json = getattr(TrainingArguments, "_VALID_DICT_FIELDS", ())
    theirs = {"within": TRAINER_RANGES, "paths": TRAINER_PATHS, "may_be_json": may_be_json}
    parser = OptionParser(groups, description="Train a GEmo-CLAP model.", **theirs)
    parser.add_argument("--config", help="YAML file; its fields are the options below")
    return parser


def json_fields(text: str | None, name: str) -> dict:
    """A JSON object given as an option.

    Raises:
        ValueError: If it is not one.
    """
    return json_object(text, f"--{name}")
