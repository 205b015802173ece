"""The identity of a run: everything that its weights depend on. A run is resumed only if its identity is unchanged."""

from __future__ import annotations

import ast
import inspect
import json
import os
import sys
from pathlib import Path

from transformers.utils.hub import cached_file, extract_commit_hash

from ..corpora.files import read_object
from ..corpora.manifest import Corpus
from ..fingerprint import (
    IDENTITY,
    TRAINING_LIBRARIES,
    differences,
    file_sha256,
    fingerprint,
    folder_sha256,
)
from ..objectives.base import Objective
from ..training.arguments import GEmoClapTrainingArguments, Recipe

# Modules whose source code, with everything they import, the weights depend on.
CODE = ("runs.train_run", "runs.selection", "objectives.registry", "evaluation.metrics", "evaluation.war_uar.war_uar")
LAYOUT = 2  # version of run folders; runs of an earlier version cannot be resumed
# Options that do not affect the weights, or that the identity records separately: corpora, weights, folds, seeds.
EXCLUDED_OPTIONS = {
    *("audio_model", "init_from", "data_dir", "feature_cache_dir"),
    *("protocol", "folds_file", "folds", "seeds", "control", "preprocessing_num_workers", "store_training_clips"),
    *("output_dir", "overwrite_output", "resume_from_checkpoint", "seed", "data_seed", "push_to_hub"),
    *("logging_dir", "logging_steps", "logging_strategy", "logging_first_step", "log_level", "report_to", "run_name"),
    *("save_strategy", "save_steps", "save_total_limit", "save_only_model", "save_on_each_node", "ddp_timeout"),
    *("hub_model_id", "hub_token", "hub_strategy", "hub_always_push", "hub_revision", "project", "disable_tqdm"),
    *("dataloader_pin_memory", "dataloader_persistent_workers", "dataloader_prefetch_factor", "skip_memory_metrics"),
    *("hub_private_repo", "log_level_replica", "trackio_space_id", "dataloader_num_workers", "local_rank"),
}
INSTALLED = {"modeling_gemoclap", "transformers", "torch", *sys.stdlib_module_names} - {"__main__"}
WEIGHT_OPTIONS = ("init_from", "audio_model")  # shared by all objectives


def identity_of(run) -> dict:
    """Return everything that the weights of a run depend on.

    Args:
        run: A `Run`.
    """
    recipe, objective = run.recipe, run.objective
    return fingerprint(
        CODE,
        (*TRAINING_LIBRARIES, *objective.libraries()),
        layout=LAYOUT,
        objective_code=external_code(objective),
        settings=settings_of(recipe, objective) | shard_readers(run),
        emotions=run.emotions,
        seed=recipe.training.seed,
        data_seed=recipe.training.data_seed,
        training_clips=clips_of(run.train),
        development_clips=clips_of(run.dev) if run.dev else None,
        start=initial_weights_of(recipe, objective),
    )


def shard_readers(run) -> dict[str, int]:
    """Return the number of workers of each process if they read shards, whose order depends on it; nothing for files.

    Args:
        run: A `Run`.
    """
    return (
        {"dataloader_num_workers": max(1, run.recipe.training.dataloader_num_workers or 1)} if run.train.shards else {}
    )


def external_code(objective: Objective) -> dict[str, str] | None:
    """Return hashes of the code of an objective outside of this package.

    Args:
        objective: The objective.

    Returns:
        SHA-256, by file name, of the files that define the objective, its trainer and its options, and of the modules
        beside them that they import; None for an objective of this package, whose code is part of `CODE`.

    Raises:
        ValueError: If a class is not defined in a file.
    """
    classes = [*type(objective).__mro__, *objective.trainer_class.__mro__, *type(objective.options).__mro__]
    queue = [_file_of(each) for each in classes if each.__module__.partition(".")[0] not in INSTALLED]
    hashes: dict[Path, str] = {}
    while queue:
        path = queue.pop()
        if path not in hashes:
            hashes[path] = file_sha256(path)
            queue += _modules_beside(path)
    return {path.name: hashes[path] for path in sorted(hashes)} or None


def _file_of(each: type) -> Path:
    try:
        return Path(inspect.getfile(each)).resolve()
    except (OSError, TypeError):
        raise ValueError(f"{each.__name__} must be defined in a file, so that a run can record its code") from None


def _modules_beside(path: Path) -> list[Path]:
    nodes = list(ast.walk(ast.parse(path.read_bytes())))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    files = {path.parent / f"{name.partition('.')[0]}.py" for name in names}
    return sorted(file.resolve() for file in files if file.is_file())


def settings_of(recipe: Recipe, objective: Objective) -> dict:
    """Return the options that affect the weights. All folds and seeds of a protocol run share them."""
    values = recipe.to_dict()
    values["processes"] = recipe.training.world_size
    values["mixed_precision"] = mixed_precision(recipe.training)
    excluded = {*EXCLUDED_OPTIONS, *objective.weight_options}
    values = {name: value for name, value in values.items() if name not in excluded}
    return json.loads(json.dumps(values, sort_keys=True, default=str))


def mixed_precision(arguments: GEmoClapTrainingArguments) -> str:
    """Return the precision of a run, set by an option or by `accelerate launch`."""
    option = "fp16" if arguments.fp16 else "bf16" if arguments.bf16 else None
    return option or os.environ.get("ACCELERATE_MIXED_PRECISION", "no")


def initial_weights_of(recipe: Recipe, objective: Objective) -> dict:
    """Return the identity of each checkpoint or pretrained encoder that a run starts from, by option.

    A folder is identified by the content of its files, not by its path, and a model on the Hub by name and commit.
    """
    names = {name: getattr(recipe.model, name) for name in WEIGHT_OPTIONS}
    names |= {name: getattr(recipe.options, name) for name in objective.weight_options}
    return {name: _checkpoint_state(value) for name, value in names.items() if value}


def _checkpoint_state(name: str) -> str:
    if os.path.isdir(name):
        return f"files {folder_sha256(name)}"
    if os.path.isfile(name):
        return f"file {file_sha256(name)}"
    if "/" not in name and not os.path.exists(name):  # a keyword such as "resemblyzer"
        return name
    try:
        path = cached_file(name, "config.json")
    except OSError:  # loading the model reports the error
        return name
    return f"{name} {extract_commit_hash(path, None) or folder_sha256(Path(path).parent)}"


def clips_of(corpus: Corpus) -> dict:
    """Return the identity of clips: corpus, speakers, a hash of the rows in order, and a hash of the recordings."""
    return {
        "corpus": corpus.name,
        "speakers": corpus.speakers,
        "rows": corpus.sha256_in_order(),
        "labels_shuffled": corpus.labels_shuffled,
        "recordings": corpus.recordings_sha256(),
    }


def read_identity(folder: str | Path) -> dict | None:
    """Read the identity in the folder of a run or of one of its checkpoints; None if there is none."""
    path = Path(folder, IDENTITY)
    return read_object(path) if path.is_file() else None


def refuse_another_run(folder: str | Path, identity: dict) -> None:
    """Check that a folder belongs to the run to resume.

    Args:
        folder: Folder of a run or of one of its checkpoints.
        identity: Identity of the run to resume.

    Raises:
        ValueError: If the folder belongs to another run or has no identity.
    """
    recorded = read_identity(folder)
    if recorded is None:
        raise ValueError(
            f"{folder} has no {IDENTITY}, so its run is unknown (earlier versions of this package wrote none): start "
            f"again in another --output_dir, or with --overwrite_output true"
        )
    refuse_earlier_layout(folder, recorded)
    refuse_differing(folder, recorded, identity)


def refuse_earlier_layout(folder: str | Path, recorded: dict) -> None:
    """Refuse to resume the run of an earlier version of this package.

    Args:
        folder: The folder.
        recorded: Identity that the folder records.

    Raises:
        ValueError: If the run folder has an earlier layout.
    """
    if recorded.get("layout") != LAYOUT:
        raise ValueError(
            f"{folder} was written by an earlier version of this package, whose runs cannot be resumed: start again "
            f"in another --output_dir, or with --overwrite_output true. Finished checkpoints in it can still be loaded"
        )


def refuse_differing(folder: str | Path, recorded: dict, present: dict) -> None:
    """Check that the record in a folder equals the present values.

    Args:
        folder: The folder.
        recorded: Values that the folder records.
        present: Present values.

    Raises:
        ValueError: If they differ. The error names the differences.
    """
    if changes := differences(recorded, present):
        listed = "; ".join(changes[:8]) + (f"; and {len(changes) - 8} more" if len(changes) > 8 else "")
        raise ValueError(
            f"{folder} is of another run, which differs in: {listed}. Restore these to resume it, or start again in "
            f"another --output_dir, or with --overwrite_output true"
        )
