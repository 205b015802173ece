"""The records of evaluated runs in docs/evidence/*.json."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from harness import EVIDENCE

from modeling_gemoclap.evaluation.prediction_files import load_predictions
from modeling_gemoclap.evaluation.statistics import (
    calibration,
    fairness,
    intervals,
    mean_scores,
    over_folds,
    scores_of,
    speaker_confusions,
)


def load(name: str) -> dict | None:
    """The record of a part of the evidence, or None if that part was not run.

    Args:
        name: `opensmile`, `corpora`, or what `evidence_plan.record_name` gives.
    """
    path = EVIDENCE / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def record_of(folders: list[Path], untouched: list[str] | None = None) -> dict:
    """The figures of evaluated runs, and what their training cost.

    Args:
        folders: A run of a protocol, or a checkpoint for each seed. Each was evaluated into its `results`.
        untouched: Speakers that were not used for choosing settings; their figures are also given separately.

    Raises:
        ValueError: If the runs were evaluated on different clips.
    """
    runs = [run for folder in folders for run in load_predictions(folder)]
    if any(sorted(run.files) != sorted(runs[0].files) for run in runs):
        raise ValueError(f"{folders[0]}: these runs were evaluated on different clips, so they have no common mean")
    results = json.loads((folders[0] / "results/results.json").read_text(encoding="utf-8"))
    calibrated = calibration(runs)
    subsets = [run.where(np.isin(run.speakers, untouched)) for run in runs] if untouched else None
    return {
        "protocol": results["protocol"],
        **figures_of(runs),
        "untouched": subsets and mean_scores(subsets) | {"n": len(subsets[0]), "intervals": intervals(subsets)},
        "over_folds": over_folds(runs),
        "chance": {name: control and control["uar"] for name, control in results["controls"].items()},
        "fairness": fairness(runs),
        "gender_probe": results["gender_probe"],
        "calibration": {name: calibrated[name] for name in ("ece", "confidence", "accuracy")},
        **cost_of(folders),
        "versions": results["versions"],
    }


def figures_of(runs: list) -> dict:
    """Scores of runs on the same clips, with intervals, the scores of each run and each speaker's confusions."""
    return {
        "n": len(runs[0]),
        "speakers": len(set(runs[0].speakers)),
        **mean_scores(runs),
        "intervals": intervals(runs),
        "labels": runs[0].labels,
        "speaker_confusions": speaker_confusions(runs),
        "per_seed": [{name: scores_of(run)[name] for name in ("uar", "war")} for run in runs],
    }


def table_record(record: dict) -> dict:
    """The fields of a record that are stored where a part has many records."""
    names = ("n", "speakers", "uar", "war", "intervals", "labels", "speaker_confusions", "per_seed")
    names += ("losses", "trainings", "training_seconds")
    return {name: record[name] for name in names}


def cost_of(folders: list[Path]) -> dict:
    """The last loss of each training, the number of trainings and their seconds, controls excluded."""
    states = [path for folder in folders for path in sorted(folder.rglob("trainer_state.json"))]
    states = [path for path in states if "shuffled_labels" not in path.parts]
    histories = [json.loads(path.read_text(encoding="utf-8"))["log_history"] for path in states]
    losses = [[entry["loss"] for entry in history if "loss" in entry][-1] for history in histories]
    seconds = sum(entry["train_runtime"] for history in histories for entry in history if "train_runtime" in entry)
    return {
        "losses": [float(loss) for loss in losses],
        "trainings": len(histories),
        "training_seconds": round(seconds),
    }
