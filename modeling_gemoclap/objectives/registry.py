"""The objectives by name. To add one, write one file and add one line here, or call `register`."""

from __future__ import annotations

from .base import Objective
from .classifier import Classifier
from .gemo_clap.objective import GEmoClap
from .speaker_clusters.objective import SpeakerClusters
from .two_stage.objective import TwoStage

OBJECTIVES: dict[str, type[Objective]] = {
    GEmoClap.name: GEmoClap,
    Classifier.name: Classifier,
    TwoStage.name: TwoStage,
    SpeakerClusters.name: SpeakerClusters,
}


def register(objective: type[Objective]) -> type[Objective]:
    """Add an objective that is defined outside of this package. Can be used as a decorator.

    Args:
        objective: The objective. Its `name` becomes a value of `--head`.

    Raises:
        ValueError: If another objective has the same name.
    """
    if OBJECTIVES.get(objective.name, objective) is not objective:
        raise ValueError(f"an objective {objective.name!r} exists already ({OBJECTIVES[objective.name].__name__})")
    OBJECTIVES[objective.name] = objective
    return objective


def objective_named(name: str) -> type[Objective]:
    """Return the objective of `--head NAME`.

    Raises:
        ValueError: If no objective has this name.
    """
    if name not in OBJECTIVES:
        raise ValueError(f"--head {name}: no such objective; known are {', '.join(OBJECTIVES)}")
    return OBJECTIVES[name]
