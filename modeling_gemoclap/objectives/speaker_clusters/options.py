"""Options of pretraining on speaker clusters."""

from __future__ import annotations

from dataclasses import dataclass

from ...command_line.parser import option
from ...command_line.ranges import NOT_NEGATIVE, POSITIVE, Range

TASKS = ("contrastive", "multi-task", "adversarial")


@dataclass
class SpeakerClusterOptions:
    """Speaker clusters (--head speaker)."""

    speaker_embeddings: str = option(
        "resemblyzer", "Source of speaker embeddings: resemblyzer, an x-vector model, or a .npz file", path=True
    )
    speaker_clusters: int | None = option(
        None, "Number of clusters of each speaker; none: the number with the best silhouette", within=Range(at_least=2)
    )
    speaker_task: str = option(
        "contrastive",
        "Contrastive loss alone, with speaker classification, or with adversarial classification",
        choices=list(TASKS),
    )
    speaker_weight: float = option(0.1, "Weight of the speaker classifier", within=NOT_NEGATIVE)
    speaker_temperature: float = option(0.1, "Temperature of InfoNCE", within=POSITIVE)
    speaker_group_size: int = option(
        4,
        "Number of clips of a group: one speaker, half of the clips from each of two clusters",
        within=Range(at_least=2),
    )
