"""Evaluation of a run of `train.py --protocol`: each fold with its own checkpoint, on its own test clips."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType

import numpy as np

from ..corpora.files import read_object, require
from ..corpora.manifest import Corpus
from ..corpora.protocols import Protocol, absent_classes, not_judged, protocol_of
from ..corpora.provenance import Heard, merged
from .clips import EvaluationOptions
from .folds import evaluate_fold
from .label_checks import refuse_one_emotion, with_emotion
from .pooled_clips import PooledClips
from .prediction_files import FoldPredictions, predictions_of_rows
from .statistics import Predictions
from .trained_folds import CONTROL_FOLDER, TrainedFold, check_fold, folds_of, recorded_protocol


@dataclass
class ExampleFold:
    """The fold whose embeddings are drawn.

    Args:
        checkpoint: Folder of its checkpoint.
        predictions: Its predictions.
        embeddings: Audio embeddings of its test clips, `(clips, projection_dim)`.
        title: Its name in the report.
    """

    checkpoint: Path
    predictions: Predictions
    embeddings: np.ndarray
    title: str


@dataclass
class RunEvaluation:
    """Evaluation of all folds and seeds of a run.

    Args:
        protocols: Protocol of each seed.
        settings: Settings of the training.
        commands: Commands of the training.
        predictions: Pooled predictions of each seed.
        rows: Rows of `predictions_seed_S.csv`, for each seed.
        constant: For each seed the baseline that always predicts the most frequent emotion of the training clips.
        shuffled: Predictions of the control models, trained on shuffled labels; None if there are none.
        no_control: Why there are none.
        gender_probe: True and predicted gender of each clip of all seeds.
        example: The fold whose embeddings are drawn.
        skipped: Error message of each clip that could not be used.
        notes: Notes for the report.
        method: How the checkpoints predict, in words.
        temperatures: Calibration temperature of each fold and seed; None where none was fitted.
        heard: Test speakers that a fold's checkpoint was trained or developed on, and what is unknown.
    """

    protocols: dict[int, Protocol]
    settings: dict
    commands: list[str]
    predictions: list[Predictions] = field(default_factory=list)
    rows: list[list[dict]] = field(default_factory=list)
    constant: list[Predictions] = field(default_factory=list)
    shuffled: Predictions | None = None
    no_control: str = ""
    gender_probe: list[tuple[str, str]] = field(default_factory=list)
    example: ExampleFold | None = None
    skipped: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    method: str = ""
    temperatures: list[float | None] = field(default_factory=list)
    heard: Heard = field(default_factory=Heard)

    def add_seed(self, folds: list[FoldPredictions]) -> None:
        """Add the predictions of all folds of one seed."""
        rows = [row | {"fold": number} for number, fold in enumerate(folds) for row in fold.rows]
        records = [fold.record for fold in folds]
        self.rows.append(rows)
        self.predictions.append(predictions_of_rows(rows))
        self.gender_probe += [(row["gender"], row["gender_probe"]) for row in rows if row["gender_probe"]]
        self.skipped += [error for record in records for error in record["skipped"]]
        self.heard = merged([self.heard, *(Heard.from_dict(record["heard"]) for record in records)])
        self.temperatures += [record["made_of"]["temperature"] for record in records]
        self.method = self.method or records[0]["method"]


def read_run(root: Path) -> dict:
    """Read and check `RUN/run.json`.

    Raises:
        ValueError: If the folder is not a run of a protocol, or the file is damaged.
    """
    path = root / "run.json"
    if not path.is_file():
        raise ValueError(f"{root}: no run.json there: --protocol evaluates a run of train.py --protocol")
    run = read_object(path, corpus=str, manifest_sha256=str, settings=dict, protocols=dict, commands=list)
    lists = dict.fromkeys(("exclude_speakers", "emotions"), (list, NoneType))
    require(run["settings"], f"{path}, settings", **lists, drop_other_emotions=bool)
    for seed, protocol in run["protocols"].items():
        if not seed.isdecimal() or not isinstance(protocol, dict):
            raise ValueError(f"{path}: protocols must have an object for each seed: copy or train the run again")
        require(protocol, f"{path}, protocol of seed {seed}", name=str, corpus=str, folds=list)
    return run


def clips_of_run(root: Path, corpus: Corpus) -> Corpus:
    """Select the clips of a corpus that a run uses.

    Args:
        root: Folder of the run.
        corpus: The corpus of the run.

    Raises:
        ValueError: If the run used another corpus.
    """
    run = read_run(root)
    if run["manifest_sha256"] not in corpus.hashes:
        raise ValueError(
            f"{root} was trained on another version of {run['corpus']} (the hash of the manifest differs): give its "
            f"--data_dir"
        )
    corpus = corpus.of_speakers(exclude=run["settings"]["exclude_speakers"])
    return corpus.of_emotions(run["settings"]["emotions"] or corpus.emotions, run["settings"]["drop_other_emotions"])


def evaluate_protocol(
    root: Path,
    name: str | None,
    corpus: Corpus,
    options: EvaluationOptions | None = None,
    seeds: list[int] | None = None,
    folds_file: str | None = None,
) -> RunEvaluation:
    """Evaluate every fold and seed. Predictions of an earlier evaluation are reused where they are still valid.

    Args:
        root: Folder of the run.
        name: The protocol.
        corpus: The corpus of the run.
        options: How clips are evaluated.
        seeds: Seeds to evaluate; None evaluates all trained seeds.
        folds_file: The folds file of the training, if it had one.

    Returns:
        The predictions, pooled over folds.

    Raises:
        ValueError: If the run used another protocol or corpus, or the training of a fold is not complete.
    """
    options = options or EvaluationOptions()
    run, corpus = read_run(root), clips_of_run(root, corpus)
    notes = _corpus_notes(corpus, run)
    seeds = seeds or sorted(map(int, run["protocols"]))
    protocols = {seed: protocol_of(name, corpus, seed, folds_file) for seed in seeds}
    _refuse_other_protocols(root, run, protocols)
    folds = {seed: folds_of(root, protocol, seed) for seed, protocol in protocols.items()}
    notes += [note for seed in folds for fold in folds[seed] if (note := check_fold(fold, run))]
    evaluation, pooled = RunEvaluation(protocols, run["settings"], run["commands"]), PooledClips()
    for seed in seeds:
        predictions = [evaluate_fold(fold, corpus, options, pooled) for fold in folds[seed]]
        evaluation.add_seed(predictions)
        evaluation.example = evaluation.example or _example(folds[seed][0], predictions[0])
    refuse_one_emotion([row["emotion"] for row in evaluation.rows[0]], corpus, evaluation.skipped)
    evaluation.notes = list(dict.fromkeys(notes + _fold_notes(protocols, corpus)))
    pairs = zip(protocols.values(), evaluation.predictions, strict=True)
    evaluation.constant = [_constant_baseline(protocol, corpus, predictions) for protocol, predictions in pairs]
    evaluation.shuffled, evaluation.no_control = _evaluate_control(root, run, corpus, options, pooled)
    return evaluation


def _corpus_notes(corpus: Corpus, run: dict) -> list[str]:
    _, unlabelled = with_emotion(corpus)
    excluded = run["settings"]["exclude_speakers"]
    return [*corpus.notes, *unlabelled, *([f"speakers {', '.join(excluded)} are excluded"] if excluded else [])]


def _refuse_other_protocols(root: Path, run: dict, protocols: dict[int, Protocol]) -> None:
    for seed, protocol in protocols.items():
        if run["protocols"].get(str(seed)) != protocol.to_dict():
            raise ValueError(f"{root} was not trained by {protocol.name} with seed {seed}; see its run.json")


def _example(fold: TrainedFold, predictions: FoldPredictions) -> ExampleFold:
    title = f"fold {fold.number} of seed {fold.seed}"
    return ExampleFold(fold.folder, predictions_of_rows(predictions.rows), predictions.embeddings, title)


def _fold_notes(protocols: dict[int, Protocol], corpus: Corpus) -> list[str]:
    """Notes about clips that are in no fold, and emotions that a fold lacks."""
    notes = []
    for seed, protocol in protocols.items():
        if absent := not_judged(protocol, corpus):
            notes.append(f"no fold evaluates {', '.join(absent[:20])}")
        prefix = f"seed {seed}, " if len(protocols) > 1 else ""
        notes += [f"{prefix}{note}" for note in absent_classes(protocol, corpus)]
    return notes


def _constant_baseline(protocol: Protocol, corpus: Corpus, predictions: Predictions) -> Predictions:
    """Predict the most frequent emotion of the training clips of each fold."""
    scores = np.zeros_like(predictions.scores)
    for number in range(len(protocol.folds)):
        counts = Counter(protocol.training(corpus, number).column("emotion").to_pylist())
        counts.pop("", None)
        most_frequent = max(sorted(counts), key=counts.get)
        scores[predictions.folds == number, predictions.labels.index(most_frequent)] = 1.0
    baseline = predictions.where(slice(None))
    baseline.scores = scores
    return baseline


def _evaluate_control(
    root: Path, run: dict, corpus: Corpus, options: EvaluationOptions, pooled: PooledClips
) -> tuple[Predictions | None, str]:
    """Predictions of the models trained on shuffled labels, or the reason why there are none."""
    seeds = sorted({int(path.name.removeprefix("seed_")) for path in (root / CONTROL_FOLDER).glob("fold_*/seed_*")})
    if not seeds:
        return None, "no model was trained on shuffled labels (train.py --control false)"
    folds = folds_of(root, recorded_protocol(run, seeds[0]), seeds[0], control=True)
    missing = [fold for fold in folds if not fold.is_complete]
    if missing:
        place = f"fold_{missing[0].number}, seed_{missing[0].seed}"
        return None, f"the control on shuffled labels is incomplete: {place} is missing"
    rows = []
    for fold in folds:
        check_fold(fold, run)
        rows += [row | {"fold": fold.number} for row in evaluate_fold(fold, corpus, options, pooled).rows]
    return predictions_of_rows(rows), ""
