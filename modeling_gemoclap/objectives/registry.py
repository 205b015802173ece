"""The objectives by name. To add one, write one file and add one line here, or call `register`."""

from __future__ import annotations

import dataclasses

from ..command_line.parser import near_name
from ..training.arguments import DataArguments, GEmoClapTrainingArguments, ModelArguments
from .base import Objective
from .classifier import Classifier
from .gemo_clap.objective import GEmoClap
from .probe.objective import Probe
from .speaker_clusters.objective import SpeakerClusters
from .two_stage.objective import TwoStage

OBJECTIVES: dict[str, type[Objective]] = {
    GEmoClap.name: GEmoClap,
    Classifier.name: Classifier,
    TwoStage.name: TwoStage,
    SpeakerClusters.name: SpeakerClusters,
    Probe.name: Probe,
}


def register(objective: type[Objective]) -> type[Objective]:
    """Add an objective that is defined outside of this package. Can be used as a decorator.

    Args:
        objective: The objective. Its `name` becomes a value of `--head`.

    Raises:
        ValueError: If another objective has the same name, or an option has the name of a shared option.
    """
    if OBJECTIVES.get(objective.name, objective) is not objective:
        raise ValueError(f"an objective {objective.name!r} exists already ({OBJECTIVES[objective.name].__name__})")
    shared = {
        field.name
        for group in (ModelArguments, DataArguments, GEmoClapTrainingArguments)
        for field in dataclasses.fields(group)
    }
    if taken := sorted(shared & {field.name for field in dataclasses.fields(objective.Options)}):
        raise ValueError(f"{objective.Options.__name__}: {', '.join(taken)} is an option of all objectives; rename it")
    OBJECTIVES[objective.name] = objective
    return objective


def objective_named(name: str) -> type[Objective]:
    """Return the objective of `--head NAME`.

    Raises:
        ValueError: If no objective has this name.
    """
    if name not in OBJECTIVES:
        near = near_name(name, list(OBJECTIVES))
        raise ValueError(
            f"--head {' '.join(name.split()):.100}: no such objective; known are {', '.join(OBJECTIVES)}{near}. The "
            f"script that is run must register an objective that is not part of the package"
        )
    return OBJECTIVES[name]
