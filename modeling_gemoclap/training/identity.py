"""What a run is: all that its weights depend on. A run keeps this in its folder and goes on only as the same."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from transformers.utils.hub import cached_file, extract_commit_hash

from ..corpora.files import read_object
from ..corpora.manifest import Corpus
from ..fingerprint import IDENTITY, TRAINING_LIBRARIES, differences, file_sha256, fingerprint, folder_sha256
from .arguments import DataArguments, GEmoClapTrainingArguments, ModelArguments

CODE = ("training.run", "evaluation.metrics", "evaluation.war_uar.war_uar")

# What the weights do not depend on, or what is recorded otherwise: corpora, starts, protocols and seeds.
NOT_SETTINGS = {
    *(
        "audio_model",
        "data_dir",
        "protocol",
        "folds",
        "seeds",
        "folds_file",
        "init_from",
        "feature_cache_dir",
        "speaker_embeddings",
        "preprocessing_num_workers",
        "control",
        "text_model",
    ),
    *("output_dir", "overwrite_output", "resume_from_checkpoint", "seed", "data_seed", "push_to_hub"),
    *("logging_dir", "logging_steps", "logging_strategy", "logging_first_step", "log_level", "report_to", "run_name"),
    *("save_strategy", "save_steps", "save_total_limit", "save_only_model", "save_on_each_node", "ddp_timeout"),
    *("hub_model_id", "hub_token", "hub_strategy", "hub_always_push", "hub_revision", "project", "disable_tqdm"),
    *("dataloader_pin_memory", "dataloader_persistent_workers", "dataloader_prefetch_factor", "skip_memory_metrics"),
    *("hub_private_repo", "log_level_replica", "trackio_space_id", "dataloader_num_workers", "local_rank"),
}
STARTS = ("init_from", "audio_model", "text_model")
SPEAKER_MODEL = "speaker_embeddings"  # a name, a folder or a file: known by its content too


def settings_of(model: ModelArguments, data: DataArguments, arguments: GEmoClapTrainingArguments) -> dict:
    """What the runs of one table have in common: all arguments that change what is learnt."""
    values = {**dataclasses.asdict(model), **dataclasses.asdict(data), **arguments.to_dict()}
    values["processes"] = arguments.world_size
    values["mixed_precision"] = mixed_precision(arguments)
    values = {name: value for name, value in values.items() if name not in NOT_SETTINGS}
    return json.loads(json.dumps(values, sort_keys=True, default=str))


def mixed_precision(arguments: GEmoClapTrainingArguments) -> str:
    """The precision that a run computes in, whether an option or `accelerate launch` asks for it."""
    own = "fp16" if arguments.fp16 else "bf16" if arguments.bf16 else None
    return own or os.environ.get("ACCELERATE_MIXED_PRECISION", "no")


def start_of(model: ModelArguments) -> dict:
    """The weights that a run starts from: name and content of each checkpoint or pretrained encoder.

    A folder is known by the content of its files, wherever it lies; a model of the Hub by its name and commit.
    """
    found = {name: _checkpoint_state(getattr(model, name)) for name in STARTS if getattr(model, name)}
    if model.head == "speaker":
        found[SPEAKER_MODEL] = _checkpoint_state(getattr(model, SPEAKER_MODEL))
    return found


def _checkpoint_state(name: str) -> str:
    if os.path.isdir(name):
        return f"files {folder_sha256(name)}"
    if os.path.isfile(name):
        return f"file {file_sha256(name)}"
    if "/" not in name and not os.path.exists(name):  # no name of a model on the Hub that has an owner: a keyword
        return name
    try:
        path = cached_file(name, "config.json")
    except OSError:  # whoever loads it says what is wrong
        return name
    return f"{name} {extract_commit_hash(path, None) or folder_sha256(Path(path).parent)}"


@dataclass(frozen=True)
class Run:
    """One training: what is trained, on which clips, how, and into which folder.

    Args:
        parts: Training clips and, if any, development clips.
        emotions: Emotion classes; empty where none is asked for.
        model: What is trained.
        data: On what.
        arguments: How, and into which folder.
        compute_metrics: As for `transformers.Trainer`.
    """

    parts: tuple[Corpus, Corpus | None]
    emotions: list[str]
    model: ModelArguments
    data: DataArguments
    arguments: GEmoClapTrainingArguments
    compute_metrics: Callable

    @property
    def folder(self) -> Path:
        """Where it is written."""
        return Path(self.arguments.output_dir)

    @cached_property
    def identity(self) -> dict:
        """All that the weights depend on: code, versions, settings, seeds, clips with their recordings, the start."""
        train, dev = self.parts
        return fingerprint(
            CODE,
            (*TRAINING_LIBRARIES, *(("peft",) if self.model.lora_towers else ())),
            settings=settings_of(self.model, self.data, self.arguments),
            emotions=self.emotions,
            seed=self.arguments.seed,
            data_seed=self.arguments.data_seed,
            training_clips=clips_of(train),
            development_clips=clips_of(dev) if dev else None,
            start=start_of(self.model),
        )


def clips_of(corpus: Corpus) -> dict:
    """The identity of clips: their corpus and speakers, a hash of their rows in order, and one of the recordings."""
    return {
        "corpus": corpus.name,
        "speakers": corpus.speakers,
        "rows": corpus.sha256_in_order(),
        "labels_shuffled": corpus.labels_shuffled,
        "recordings": corpus.recordings_sha256(),
    }


def read_identity(folder: str | Path) -> dict | None:
    """The identity that a run or a checkpoint of it has in its folder; None where it has none."""
    path = Path(folder, IDENTITY)
    return read_object(path) if path.is_file() else None


def refuse_another_run(folder: str | Path, identity: dict) -> None:
    """Make sure that what lies in a folder is the run that is to go on.

    Args:
        folder: The folder of a run, or a checkpoint of it.
        identity: Of the run that is to go on.

    Raises:
        ValueError: If the folder holds another run, or does not tell.
    """
    recorded = read_identity(folder)
    if recorded is None:
        raise ValueError(
            f"{folder} has no {IDENTITY}, so it is unknown which run left it: begin anew in another --output_dir, or "
            f"with --overwrite_output true"
        )
    refuse_differing(folder, recorded, identity)


def refuse_differing(folder: str | Path, recorded: dict, present: dict) -> None:
    """Make sure that what a folder records of itself is what is asked for now.

    Args:
        folder: The folder.
        recorded: What it records.
        present: The same, as it is now.

    Raises:
        ValueError: If they differ; it names what does.
    """
    if found := differences(recorded, present):
        shown = "; ".join(found[:8]) + (f"; and {len(found) - 8} more" if len(found) > 8 else "")
        raise ValueError(
            f"{folder} is of another run, which differs in: {shown}. Restore these to go on with it, or begin anew in "
            f"another --output_dir, or with --overwrite_output true"
        )
