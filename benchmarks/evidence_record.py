"""What `evidence.py` keeps of judged runs, in docs/evidence/*.json."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from evidence_runs import ROOT

sys.path.insert(0, str(ROOT))

from modeling_gemoclap.evaluation.prediction_files import load_predictions  # noqa: E402
from modeling_gemoclap.evaluation.statistics import (  # noqa: E402
    calibration,
    fairness,
    intervals,
    mean_scores,
    over_folds,
    scores_of,
    speaker_confusions,
)


def record_of(folders: list[Path], untouched: list[str] | None = None) -> dict:
    """The figures of judged runs, and what their training cost.

    Args:
        folders: A run of a protocol, or a checkpoint for each seed; each was judged into its `results`.
        untouched: Speakers whose figures are given apart, because no choice was made on them.
    """
    runs = [judged for folder in folders for judged in load_predictions(folder)]
    if any(sorted(run.files) != sorted(runs[0].files) for run in runs):
        raise ValueError(f"{folders[0]} and the others were judged on different clips: their figures have no mean")
    told = [json.loads((folder / "results/results.json").read_text(encoding="utf-8")) for folder in folders]
    scores, calibrated = [scores_of(run) for run in runs], calibration(runs)
    apart = [run.where(np.isin(run.speakers, untouched)) for run in runs] if untouched else None
    return {
        "protocol": told[0]["protocol"],
        "n": len(runs[0]),
        "speakers": len(set(runs[0].speakers)),
        **mean_scores(runs),
        "intervals": intervals(runs),
        "labels": runs[0].labels,
        "speaker_confusions": speaker_confusions(runs),
        "per_seed": [{name: one[name] for name in ("uar", "war")} for one in scores],
        "untouched": apart and mean_scores(apart) | {"n": len(apart[0]), "intervals": intervals(apart)},
        "over_folds": over_folds(runs),
        "chance": {name: control and control["uar"] for name, control in told[0]["controls"].items()},
        "fairness": fairness(runs),
        "gender_probe": told[0]["gender_probe"],
        "calibration": {name: calibrated[name] for name in ("ece", "confidence", "accuracy")},
        **cost_of(folders),
        "versions": told[0]["versions"],
    }


def kept(record: dict) -> dict:
    """What a part keeps of a record that is one of many in its table."""
    names = ("n", "speakers", "uar", "war", "intervals", "labels", "speaker_confusions", "per_seed")
    names += ("losses", "trainings", "training_seconds")
    return {name: record[name] for name in names}


def cost_of(folders: list[Path]) -> dict:
    """The last loss of each training, how many there were, and their seconds; controls left out."""
    states = [path for folder in folders for path in sorted(folder.rglob("trainer_state.json"))]
    states = [path for path in states if "shuffled_labels" not in path.parts]
    history = [json.loads(path.read_text(encoding="utf-8"))["log_history"] for path in states]
    losses = [[entry["loss"] for entry in one if "loss" in entry][-1] for one in history]
    seconds = sum(entry["train_runtime"] for one in history for entry in one if "train_runtime" in entry)
    return {
        "losses": [float(loss) for loss in losses],
        "trainings": len(history),
        "training_seconds": round(seconds),
    }
