"""What the weights of a run depend on."""

from __future__ import annotations

import dataclasses
import hashlib
import json

from .arguments import DataArguments, GEmoClapTrainingArguments, ModelArguments

# What a fold's weights do not depend on, or what the protocol itself records.
NOT_SETTINGS = {
    *(
        "data_dir",
        "protocol",
        "folds",
        "seeds",
        "folds_file",
        "init_from",
        "feature_cache_dir",
        "preprocessing_num_workers",
        "control",
    ),
    *("output_dir", "overwrite_output", "resume_from_checkpoint", "seed", "data_seed", "disable_tqdm", "push_to_hub"),
    *("logging_dir", "logging_steps", "logging_strategy", "logging_first_step", "log_level", "report_to", "run_name"),
    *("save_strategy", "save_steps", "save_total_limit", "hub_model_id", "hub_token", "hub_strategy", "project"),
    *("hub_private_repo", "log_level_replica", "trackio_space_id", "dataloader_num_workers", "local_rank"),
}


def settings_of(model: ModelArguments, data: DataArguments, arguments: GEmoClapTrainingArguments) -> dict:
    """What the runs of one table have in common: all arguments that change what is learnt."""
    values = {**dataclasses.asdict(model), **dataclasses.asdict(data), **arguments.to_dict()}
    values["processes"] = arguments.world_size
    values = {name: value for name, value in values.items() if name not in NOT_SETTINGS}
    return json.loads(json.dumps(values, sort_keys=True, default=str))


def digest(settings: dict) -> str:
    """Hash of the settings."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
