"""The three groups of arguments of `train.py`, and how they are read from YAML and the command line."""

from __future__ import annotations

import difflib
import json
import math
import os
from dataclasses import dataclass, field, fields
from pathlib import Path

import torch
import torch.distributed as dist
import yaml
from transformers import HfArgumentParser, TrainingArguments

from ..configuration_gemoclap import OBJECTIVES, POOLINGS, SIMILARITIES, SL_TEXTS, TARGETS, TEXT_POOLINGS
from .speaker_losses import TASKS
from .supcon_sampler import NEGATIVES
from .trainer_options import chooses_by_metric


def _option(default, help: str, **metadata):
    if isinstance(default, (list, dict)):
        return field(default_factory=lambda: default, metadata={"help": help, **metadata})
    return field(default=default, metadata={"help": help, **metadata})


@dataclass
class ModelArguments:
    """What to train."""

    audio_model: str | None = _option(
        None, "Pretrained audio encoder, by name or path; none, or compact: the compact one from scratch"
    )
    text_model: str | None = _option(None, "Pretrained text encoder, by name or path; none: a small one from scratch")
    audio_config: str | None = _option(None, "Fields of the audio tower's configuration, as a JSON object")
    text_config: str | None = _option(None, "Fields of the text tower's configuration, as a JSON object")
    feature_config: str | None = _option(None, "Fields of the feature extractor, as a JSON object")
    head: str = _option(
        "contrastive",
        "What is trained: a model of audio and words; the baseline, a classifier by cross-entropy; an encoder by "
        "the supervised contrastive losses of Xiang's first stage; or one on unlabelled speech, by speaker embeddings",
        choices=["contrastive", "classifier", "supcon", "speaker"],
    )
    init_from: str | None = _option(
        None, "Checkpoint whose audio tower and pooling to start from; of a protocol's run each fold takes its own"
    )
    supcon_temperature: float = _option(0.07, "Temperature of InfoNCE (head supcon)")
    supcon_alpha: float = _option(0.5, "Weight of positive pairs in the cosine margin loss (head supcon)")
    supcon_margin: float = _option(0.4, "Negative pairs whose cosine is below are left alone (head supcon)")
    supcon_negatives: str = _option(
        "emotion", "What negatives differ in: emotion, or emotion or corpus (head supcon)", choices=list(NEGATIVES)
    )
    classifier_hidden_size: int | None = _option(None, "Hidden width of the classifier's head; none: it is linear")
    classifier_dropout: float = _option(0.0, "Dropout before the classifier's head")
    speaker_embeddings: str = _option(
        "resemblyzer", "Where speaker embeddings come from: resemblyzer, an x-vector model, or a .npz (head speaker)"
    )
    speaker_clusters: int | None = _option(
        None, "Clusters of each speaker; none: as many as have the best silhouette (head speaker)"
    )
    speaker_task: str = _option(
        "contrastive", "Contrast alone, or with a classification of speakers, or against one", choices=list(TASKS)
    )
    speaker_weight: float = _option(0.1, "Weight of that classification (head speaker)")
    speaker_temperature: float = _option(0.1, "Temperature of InfoNCE (head speaker)")
    speaker_group_size: int = _option(4, "Clips of a speaker that are drawn together, of two clusters (head speaker)")
    objective: str = _option("sl", "Emo-CLAP, ML-GEmo-CLAP or SL-GEmo-CLAP", choices=list(OBJECTIVES))
    alpha: float = _option(0.9, "Weight of emotion against gender")
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
        None, "Train these many layers of the audio tower and freeze the rest"
    )
    lora_towers: list[str] | None = _option(None, "Towers with low-rank updates: audio, text, or both", nargs="+")
    lora_rank: int = _option(8, "Rank of the updates")
    lora_alpha: float = _option(16.0, "Their scale is this divided by the rank")
    lora_dropout: float = _option(0.0, "Dropout before them")
    projection_dim: int = _option(512, "Size of the joint space")
    projection_dropout: float = _option(0.0, "Dropout inside the projections")
    logit_scale_init_value: float = _option(math.log(1 / 0.07), "Initial logarithm of both scales")
    logit_scale_trainable: bool = _option(True, "Whether the scales are learnt")
    centre_projections: bool = _option(True, "Start from projections that are centred on 64 training clips")
    prompt_steps: int = _option(
        0, "Steps in which the text tower learns, before any audio, which prompts mean the same"
    )
    emotions: list[str] | None = _option(None, "Emotion classes; none: those of the corpus", nargs="+")
    emotion_synonyms: str | None = _option(
        None, "Other words for emotions, drawn in training, as a JSON object of lists"
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
        None, "Corpus folders: as downloaded, with metadata.csv, or with Parquet shards; several are mixed", nargs="+"
    )
    corpus_name: list[str] | None = _option(None, "What to call each; none: its own or its folder's name", nargs="+")
    emotion_map: str | None = _option(
        None, "What the corpora's own words for emotions stand for, as a JSON object of words"
    )
    protocol: str | None = _option(
        None, "Train all folds of leave-one-session-out, leave-one-speaker-out, 5-folds-by-speaker, ..."
    )
    folds_file: str | None = _option(None, "JSON file with a publication's folds, lists of test speakers")
    folds: list[int] | None = _option(None, "Train these folds of the protocol alone", nargs="+")
    seeds: list[int] | None = _option(None, "Train with each of these seeds, folds dealt with it too", nargs="+")
    control: bool = _option(True, "Train each fold of the first seed on shuffled labels too: what chance gives")
    num_dev_speakers: int = _option(0, "Training speakers to develop on; a calibration is fitted on them")
    calibration_folds: int = _option(
        0, "Calibrate by answers to training speakers out of so many folds, each left out of a training of its own"
    )
    select: str = _option(
        "last", "Which epoch is kept: the last, or the best on the development speakers", choices=["last", "dev"]
    )
    label_fraction: float = _option(
        1.0,
        "Share of the training clips that is used, of every speaker and emotion alike; not of development speakers",
    )
    speakers: list[str] | None = _option(None, "Train on these speakers alone", nargs="+")
    exclude_speakers: list[str] | None = _option(None, "Never touch these speakers: the test", nargs="+")
    dev_speakers: list[str] | None = _option(None, "Evaluate on these during training, never train on them", nargs="+")
    drop_other_emotions: bool = _option(False, "Drop clips of emotions that --emotions does not name")
    on_bad_audio: str = _option(
        "raise", "A clip that cannot be used: stop, or go on without", choices=["raise", "skip"]
    )
    max_seconds: float | None = _option(None, "Longer training clips are cut to this length at a random place")
    time_warp: float = _option(0.0, "Training clips are spoken up to exp(this) times faster or slower (log-mel only)")
    mel_warp: float = _option(0.0, "Their formants and pitch move by up to this factor's logarithm (log-mel only)")
    equalizer_db: float = _option(
        0.0, "Another microphone: standard deviation in dB of random curves over the mel axis (log-mel only)"
    )
    noise_prob: float = _option(0.0, "Share of the training clips that get noise of a random colour (log-mel only)")
    noise_snr_db: list[float] = _option([10.0, 40.0], "Its least and greatest distance below the clip, dB", nargs=2)
    reverb_prob: float = _option(0.0, "Share of the training clips that are put into a room (log-mel only)")
    mix_prob: float = _option(
        0.0, "Share of the training clips that another of the same emotion and gender is laid under (log-mel only)"
    )
    unknown_gender_prob: float = _option(
        0.0, "Share of the clips whose gender is hidden from the loss, so that emotion-only prompts are learnt too"
    )
    feature_cache_dir: str | None = _option(None, "Where features are cached; none: in the cache of datasets")
    preprocessing_num_workers: int | None = _option(None, "Processes that read the audio before training")


@dataclass
class GEmoClapTrainingArguments(TrainingArguments):
    """How to train: all of Trainer's arguments, and these."""

    optimizer: str = _option("adam", "Plain Adam, as in the paper, or what --optim names", choices=["adam", "optim"])
    encoder_lr_factor: float = _option(1.0, "Learning rate of the encoders over that of what is new")
    lr_milestones: list[float] | None = _option(
        None,
        "After these epochs the learning rate is multiplied by --lr_gamma, in place of --lr_scheduler_type",
        nargs="+",
    )
    lr_gamma: float = _option(0.1, "See --lr_milestones")
    cache_frozen_frames: bool = _option(
        False,
        "With --freeze_audio_encoder true: compute what the audio encoder gives for a clip once, not anew each epoch",
    )
    layerwise_lr_decay: float = _option(1.0, "Learning rate of a layer over that of the layer above it")
    class_balanced_sampling: bool = _option(False, "Draw every emotion equally often")
    contrastive_chunk_size: int | None = _option(
        None, "Clips of a process's batch that are in memory at a time, by gradient caching: exact; none: all of them"
    )
    overwrite_output: bool = _option(False, "Train into a folder that is not empty")

    def __post_init__(self):
        # transformers gives ddp_timeout to GPUs alone: on CPUs a process that hangs would hold the others for longer.
        if self.use_cpu and {"RANK", "WORLD_SIZE"} <= os.environ.keys() and not dist.is_initialized():
            dist.init_process_group(self.ddp_backend or "gloo", timeout=self.ddp_timeout_delta)
        if self.metric_for_best_model is None and chooses_by_metric(self):
            self.metric_for_best_model = "uar"  # evaluation reports no loss, which is transformers' default
        super().__post_init__()

    @property
    def device(self) -> torch.device:
        """Where this process runs; a CPU has no number: transformers 4 would load no optimizer state to cpu:0."""
        device = super().device
        return torch.device("cpu") if device.type == "cpu" else device


def parse_arguments(argv: list[str]) -> tuple[ModelArguments, DataArguments, GEmoClapTrainingArguments]:
    """Read `--config FILE [--field value ...]`; the command line takes precedence over the file.

    Args:
        argv: The command line without the program's name.

    Returns:
        The three groups.

    Raises:
        ValueError: If the file is missing, is no mapping, or names a field that does not exist.
    """
    groups = (ModelArguments, DataArguments, GEmoClapTrainingArguments)
    parser = HfArgumentParser(groups, description="Train a GEmo-CLAP model.", allow_abbrev=False)
    parser.add_argument("--config", help="YAML file; its fields are the options below")
    config = parser.parse_known_args(argv)[0].config if any(arg.startswith("--config") for arg in argv) else None
    from_file = _as_command_line(config, groups) if config else []
    *arguments, _ = parser.parse_args_into_dataclasses(from_file + argv, look_for_args_file=False)
    if arguments[0].audio_model == "compact":  # so that the command line can take a file's encoder back
        arguments[0].audio_model = None
    return tuple(arguments)


def _as_command_line(path: str, groups) -> list[str]:
    """A YAML file's fields as options, so that the file and the command line are checked by the same parser."""
    if not Path(path).is_file():
        raise ValueError(f"--config {path}: no such file")
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not YAML: {error}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path}: a configuration is a mapping of fields to values, not a {type(values).__name__}")
    known = [item.name for group in groups for item in fields(group)]
    argv = []
    for name, value in values.items():
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            raise ValueError(f"{path}: no field {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
        if isinstance(value, dict):
            value = json.dumps(value)
        if value is not None:
            argv += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
    return argv


def json_fields(text: str | None, name: str) -> dict:
    """A JSON object given as an option.

    Raises:
        ValueError: If it is not one.
    """
    try:
        values = json.loads(text or "{}")
    except json.JSONDecodeError as error:
        raise ValueError(f"--{name}: not JSON ({error}): {text}") from None
    if not isinstance(values, dict):
        raise ValueError(f"--{name}: must be a JSON object, got {text}")
    return values
