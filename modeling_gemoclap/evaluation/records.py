"""Content of `results.json`."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import transformers

from ..configuration_gemoclap import GEmoClapConfig
from ..corpora.manifest import Corpus
from .clips import Evaluation
from .protocol_runs import RunEvaluation
from .rejection import rejection
from .seen_speakers import CONTROL_NOTE, is_control, speaker_independence
from .statistics import (
    Predictions,
    calibration,
    fairness,
    intervals,
    mean_scores,
    over_folds,
    recall_intervals,
    scores_of,
    speaker_confusions,
)


@dataclass(frozen=True)
class Source:
    """What was evaluated.

    Args:
        corpus: The clips.
        model: Name or path of the checkpoint or run.
        command: The command of the evaluation.
        asked: The selection that identifies the results; see `refuse_other_results`.
    """

    corpus: Corpus
    model: str
    command: str
    asked: dict


def checkpoint_record(evaluation: Evaluation, config: GEmoClapConfig, source: Source, notes: list[str]) -> dict:
    """The record of a single checkpoint.

    Args:
        evaluation: Its predictions.
        config: Its configuration.
        source: What was evaluated.
        notes: Notes for the report, beside those of the corpus.

    Returns:
        A dict that can be written as JSON.
    """
    independence = speaker_independence(evaluation.heard, len(source.corpus.speakers), source.corpus.name)
    control = CONTROL_NOTE if is_control(config.training_data) else ""
    predictions = evaluation.as_predictions()
    return _common_record([predictions], source) | {
        "protocol": f"{evaluation.method}; {independence}{control}",
        "controls": {"constant": _constant_baseline(predictions), "shuffled_labels": None},
        "gender_probe": None,
        "temperatures": [config.calibration_temperature],
        "temperature_of_other_labels": set(evaluation.labels) != set(config.emotions),
        "protocols": None,
        "training_command": None,
        "per_seed": None,
        "over_folds": None,
        "seen_speakers": evaluation.heard.speakers,
        "heard": evaluation.heard.to_dict(),
        "training_data": config.training_data,
        "weights_sha256": getattr(config, "weights_sha256", None),
        "skipped": evaluation.skipped,
        "notes": [*source.corpus.notes, *notes],
        "asked": source.asked,
    }


def run_record(evaluation: RunEvaluation, source: Source) -> dict:
    """The record of a run of a protocol. Figures are of pooled predictions, averaged over seeds.

    Args:
        evaluation: Predictions of all folds and seeds.
        source: What was evaluated.

    Returns:
        A dict that can be written as JSON.
    """
    seeds = list(evaluation.protocols)
    independent = evaluation.protocols[seeds[0]].speaker_independent
    return _common_record(evaluation.predictions, source) | {
        "protocol": _protocol_text(evaluation, source.corpus),
        "protocols": {
            str(seed): protocol.to_dict() | {"sha256": protocol.sha256}
            for seed, protocol in evaluation.protocols.items()
        },
        "seeds": seeds,
        "per_seed": {str(seed): scores_of(run) for seed, run in zip(seeds, evaluation.predictions, strict=True)},
        "over_folds": over_folds(evaluation.predictions),
        "controls": {
            "constant": mean_scores(evaluation.constant) | {"says": "the most frequent emotion of each training part"},
            "shuffled_labels": scores_of(evaluation.shuffled) if evaluation.shuffled else None,
        },
        "gender_probe": _gender_uar(evaluation.gender_probe),
        "temperatures": evaluation.temperatures,
        "temperature_of_other_labels": False,
        "no_control": evaluation.no_control,
        "settings": evaluation.settings,
        "training_command": "\n".join(evaluation.commands),
        "seen_speakers": evaluation.heard.speakers if independent else source.corpus.speakers,
        "heard": evaluation.heard.to_dict(),
        "speaker_independent": independent,
        "training_data": None,
        "skipped": evaluation.skipped,
        "notes": evaluation.notes,
        "asked": source.asked,
    }


def _common_record(runs: list[Predictions], source: Source) -> dict:
    corpus = source.corpus
    known = [part.known for part, _ in corpus.by_part() if part.known]
    return mean_scores(runs) | {
        "n": len(runs[0]),
        "labels": runs[0].labels,
        "confusion": sum(run.confusion() for run in runs).tolist(),
        "speaker_confusions": speaker_confusions(runs),
        "intervals": intervals(runs),
        "recall_intervals": recall_intervals(runs),
        "fairness": fairness(runs),
        "calibration": calibration(runs),
        "rejection": rejection(runs),
        "model": source.model,
        "corpus": corpus.name,
        "licence": "; ".join(part.licence for part in known) or None,
        "citation": "; ".join(part.citation for part in known) or None,
        "speakers": sorted(set(runs[0].speakers.tolist())),
        "manifest_sha256": corpus.manifest_sha256,
        "command": source.command,
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }


def _constant_baseline(predictions: Predictions) -> dict:
    """Scores of a baseline that always predicts the most frequent emotion of the test clips."""
    emotions = [predictions.labels[index] for index in predictions.truth]
    most_frequent = max(sorted(set(emotions)), key=emotions.count)
    constant = predictions.where(slice(None))
    constant.scores = (predictions.scores * 0) + [label == most_frequent for label in predictions.labels]
    return scores_of(constant) | {"says": f"always {most_frequent}"}


def _protocol_text(evaluation: RunEvaluation, corpus: Corpus) -> str:
    seeds = list(evaluation.protocols)
    protocol = evaluation.protocols[seeds[0]]
    independence = "SPEAKER-DEPENDENT: the same speakers in training and test"
    if protocol.speaker_independent:
        independence = speaker_independence(evaluation.heard, len(corpus.speakers), corpus.name)
    return (
        f"{protocol.name} ({independence}), {len(protocol.folds)} folds, seeds {', '.join(map(str, seeds))}; "
        f"pooled over folds, mean over seeds; {evaluation.method}"
    )


def _gender_uar(pairs: list[tuple[str, str]]) -> dict | None:
    """UAR of the gender probe.

    Args:
        pairs: True and predicted gender of each clip; the true gender is "" if unknown.

    Returns:
        `uar` and the number of clips `n`; None if only one gender occurs.
    """
    pairs = [pair for pair in pairs if pair[0]]
    recalls = [
        sum(truth == predicted for truth, predicted in pairs if truth == gender)
        / sum(truth == gender for truth, _ in pairs)
        for gender in ("female", "male")
        if any(truth == gender for truth, _ in pairs)
    ]
    return {"uar": sum(recalls) / len(recalls), "n": len(pairs)} if len(recalls) == 2 else None
