"""Judges a run of `train.py --protocol`: every fold by its own checkpoint, on speakers that this has not heard."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ..corpora.files import read_object, require
from ..corpora.manifest import Corpus
from ..corpora.protocols import Protocol, absent_classes, not_judged, protocol_of
from ..corpora.provenance import Heard, merged
from .answers import evaluate_clips, labelled, refuse_one_emotion
from .fold_identity import CONTROL, refuse_fold_of_another_run
from .statistics import Judged
from .stored import answers_identity, answers_of, judged_of, store, stored


@dataclass
class JudgedRun:
    """What is known of a run once it is judged.

    Args:
        protocols: Protocol of each seed.
        settings: Settings of the training.
        commands: The commands of the training.
        runs: Pooled answers of each seed.
        rows: Rows of each seed, as they are written.
        constant: What the most frequent emotion of each training part would have answered, for each seed.
        shuffled: Answers of the models that were trained on shuffled labels, or None.
        no_control: Why there are none.
        embeddings: Those of one fold's test clips, `(clips, size)`, for a picture; and these clips.
        probe: True and probed gender of each clip, of all seeds.
        checkpoint: The checkpoint of that fold.
        skipped: What was wrong with clips that were left out.
        notes: What is to be told beside the figures.
        method: How answers were chosen.
        temperatures: Calibration temperature of each fold and seed; None where none was fitted.
        heard: Whether a fold's checkpoint was trained or developed on the speakers it is judged on.
    """

    protocols: dict[int, Protocol]
    settings: dict
    commands: list[str]
    runs: list[Judged] = field(default_factory=list)
    rows: list[list[dict]] = field(default_factory=list)
    constant: list[Judged] = field(default_factory=list)
    shuffled: Judged | None = None
    no_control: str = ""
    embeddings: np.ndarray | None = None
    pictured: Judged | None = None
    probe: list[tuple[str, str]] = field(default_factory=list)
    checkpoint: Path | None = None
    skipped: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    method: str = ""
    temperatures: list[float | None] = field(default_factory=list)
    heard: Heard = field(default_factory=Heard)


def read_run(root: Path) -> dict:
    """What `RUN/run.json` says.

    Raises:
        ValueError: If the folder holds no run of a protocol.
    """
    path = root / "run.json"
    if not path.is_file():
        raise ValueError(f"{root}: no run.json there: --protocol judges a run of train.py --protocol")
    run = read_object(path, corpus=str, manifest_sha256=str, settings=dict, protocols=dict, commands=list)
    lists = dict.fromkeys(("exclude_speakers", "emotions"), (list, NoneType))
    require(run["settings"], f"{path}, settings", **lists, drop_other_emotions=bool)
    for seed, protocol in run["protocols"].items():
        if not seed.isdecimal() or not isinstance(protocol, dict):
            raise ValueError(f"{path}: protocols must have an object for each seed; fetch or make it anew")
        require(protocol, f"{path}, protocol of seed {seed}", name=str, corpus=str, folds=list)
    return run


def clips_of_run(root: Path, corpus: Corpus) -> Corpus:
    """The clips of a corpus that a run is about.

    Raises:
        ValueError: If the run is of another corpus.
    """
    run = read_run(root)
    if run["manifest_sha256"] not in corpus.hashes:
        raise ValueError(
            f"{root} was trained on another version of {run['corpus']} (hash of the manifest): give that --data_dir"
        )
    corpus = corpus.of_speakers(exclude=run["settings"]["exclude_speakers"])
    return corpus.of_emotions(run["settings"]["emotions"] or corpus.emotions, run["settings"]["drop_other_emotions"])


def judge_protocol(
    root: Path,
    name: str,
    corpus: Corpus,
    load: Callable,
    seeds: list[int] | None = None,
    folds_file: str | None = None,
    batch_size: int = 16,
    on_bad_audio: str = "raise",
) -> JudgedRun:
    """Judge every fold and seed; what was judged before is not judged again.

    Args:
        root: Folder of the run.
        name: The protocol.
        corpus: The clips.
        load: From a checkpoint's folder to its pipeline or classifier.
        seeds: Judge these alone; None: all that were trained.
        folds_file: As it was trained with.
        batch_size: Clips that go through the model together.
        on_bad_audio: As for `evaluate_clips`.

    Returns:
        The answers, pooled.

    Raises:
        ValueError: If the run is of another protocol or corpus, or a fold is not trained to its end.
    """
    run = read_run(root)
    corpus = clips_of_run(root, corpus)
    excluded = run["settings"]["exclude_speakers"]
    _, unlabelled = labelled(corpus)
    seeds = seeds or sorted(map(int, run["protocols"]))
    protocols = {seed: protocol_of(name, corpus, seed, folds_file) for seed in seeds}
    for seed, protocol in protocols.items():
        if run["protocols"].get(str(seed)) != protocol.to_dict():
            raise ValueError(f"{root} was not trained by {protocol.name} with seed {seed}; see its run.json")
    found = JudgedRun(protocols, run["settings"], run["commands"], notes=[*corpus.notes, *unlabelled])
    found.notes += [f"speakers {', '.join(excluded)} have no part in this"] if excluded else []
    options = (load, batch_size, on_bad_audio)
    found.notes += _refuse_other_folds(root, run, protocols)
    for seed, protocol in protocols.items():
        answers = [_judge_fold(root, protocol, corpus, fold, seed, options) for fold in range(len(protocol.folds))]
        found.rows.append([row | {"fold": fold} for fold, (rows, *_) in enumerate(answers) for row in rows])
        found.runs.append(judged_of(found.rows[-1]))
        found.probe += [(row["gender"], row["gender_probe"]) for row in found.rows[-1] if row["gender_probe"]]
        found.skipped += [error for *_, record in answers for error in record["skipped"]]
        found.heard = merged([found.heard, *(Heard.from_dict(record["heard"]) for *_, record in answers)])
        found.temperatures += [record["made_of"]["temperature"] for *_, record in answers]
        if found.embeddings is None:
            rows, found.embeddings, record = answers[0]
            found.pictured, found.method = judged_of(rows), record["method"]
            found.checkpoint = root / "fold_0" / f"seed_{seed}"
    refuse_one_emotion([row["emotion"] for row in found.rows[0]], corpus, found.skipped)
    found.notes = list(dict.fromkeys(found.notes + _not_in_every_fold(protocols, corpus)))
    found.constant = [
        _constant(protocol, corpus, judged) for protocol, judged in zip(protocols.values(), found.runs, strict=True)
    ]
    found.shuffled, found.no_control = _control(root, run, corpus, options)
    return found


def _not_in_every_fold(protocols: dict[int, Protocol], corpus: Corpus) -> list[str]:
    """Clips that no fold judges, and emotions that a fold lacks."""
    notes = []
    for seed, protocol in protocols.items():
        if left := not_judged(protocol, corpus):
            notes.append(f"no fold judges {', '.join(left[:20])}")
        start = f"seed {seed}, " * (len(protocols) > 1)
        notes += [f"{start}{note}" for note in absent_classes(protocol, corpus)]
    return notes


def _refuse_other_folds(root: Path, run: dict, protocols: dict[int, Protocol]) -> list[str]:
    """What is unknown of the folds, before any is judged; a fold of another run is refused."""
    folders = [
        (protocol, fold, root / f"fold_{fold}" / f"seed_{seed}")
        for seed, protocol in protocols.items()
        for fold in range(len(protocol.folds))
    ]
    unknown = [refuse_fold_of_another_run(root, run, *place) for place in folders]
    return [note for note in dict.fromkeys(unknown) if note]


def _judge_fold(root: Path, protocol: Protocol, corpus: Corpus, fold: int, seed: int, options, probe: bool = True):
    load, batch_size, on_bad_audio = options
    folder = root / f"fold_{fold}" / f"seed_{seed}"
    dev = read_object(folder / "fold.json", dev=list)["dev"]
    config = read_object(folder / "config.json")
    test = protocol.test(corpus, fold).where("emotion", bool)
    made_of = answers_identity(
        folder,
        test,
        protocol=protocol.sha256,
        on_bad_audio=on_bad_audio,
        temperature=config.get("calibration_temperature"),
    )
    if (known := stored(folder / "answers", made_of)) is None:
        pipe = load(str(folder))
        allow = not protocol.speaker_independent
        evaluation = evaluate_clips(pipe, test, batch_size, on_bad_audio, allow)
        train = protocol.training(corpus, fold)
        train = train.of_speakers(exclude=dev) if dev else train
        answers = _probe_gender(pipe, train, evaluation.embeddings, batch_size) if probe else None
        extra = [{"gender_probe": answer} for answer in answers or [""] * len(evaluation.rows)]
        store(folder / "answers", evaluation, made_of, extra)
        return answers_of(folder / "answers")
    return known


def _probe_gender(pipe, train: Corpus, embeddings: list[np.ndarray], batch_size: int) -> list[str] | None:
    """Gender of clips by logistic regression on frozen embeddings, learnt from the fold's training clips."""
    train = train.where("gender", bool)
    genders = train.column("gender").to_pylist()
    if len(set(genders)) < 2:
        return None
    answers = pipe(train.recordings(), batch_size=batch_size, on_error="return", return_embeddings=True)
    pairs = [
        (answer["embedding"], gender) for answer, gender in zip(answers, genders, strict=True) if "error" not in answer
    ]
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    probe.fit(np.stack([embedding for embedding, _ in pairs]), [gender for _, gender in pairs])
    return probe.predict(np.stack(embeddings)).tolist()


def _constant(protocol: Protocol, corpus: Corpus, run: Judged) -> Judged:
    """What the most frequent emotion of each fold's training part would have answered."""
    scores = np.zeros_like(run.scores)
    for fold in range(len(protocol.folds)):
        counts = Counter(protocol.training(corpus, fold).column("emotion").to_pylist())
        counts.pop("", None)
        scores[run.folds == fold, run.labels.index(max(sorted(counts), key=counts.get))] = 1.0
    return Judged(run.labels, run.files, run.speakers, run.genders, run.folds, run.truth, scores)


def _control(root: Path, run: dict, corpus: Corpus, options) -> tuple[Judged | None, str]:
    """Answers of the models that were trained on shuffled labels; or why there are none."""
    root = root / CONTROL
    seeds = sorted({int(path.name.removeprefix("seed_")) for path in root.glob("fold_*/seed_*")})
    if not seeds:
        return None, "no model was trained on shuffled labels (train.py --control false)"
    known = run["protocols"][str(seeds[0])]
    protocol, rows = Protocol(**known), []
    folders = [root / f"fold_{fold}" / f"seed_{seeds[0]}" for fold in range(len(protocol.folds))]
    missing = [folder for folder in folders if not (folder / "fold.json").is_file()]
    if missing:
        return (
            None,
            f"the control of shuffled labels is not whole, {missing[0].name} of {missing[0].parent.name} lacks",
        )
    for fold, folder in enumerate(folders):
        refuse_fold_of_another_run(root.parent, run, protocol, fold, folder)
        answers, *_ = _judge_fold(root, protocol, corpus, fold, seeds[0], options, probe=False)
        rows += [row | {"fold": fold} for row in answers]
    return judged_of(rows), ""
