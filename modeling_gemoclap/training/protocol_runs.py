"""A protocol's folds, trained one after the other into `RUN/fold_k/seed_s/`; what is finished is not run again."""

from __future__ import annotations

import copy
import json
import shlex
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

from transformers.utils import logging

from ..corpora.files import write_json
from ..corpora.manifest import Corpus
from ..corpora.protocols import Protocol, absent_classes, protocol_of, shuffled_labels
from .arguments import DataArguments, GEmoClapTrainingArguments, ModelArguments
from .checkpoints import latest_whole_checkpoint
from .gather import finish, of_all, release
from .run import choosing_on_dev, select_corpus, split, train_and_save
from .settings import digest, settings_of
from .start import records_of, start_of_fold, start_sha256

logger = logging.get_logger(__name__)


def open_run(folder: Path, settings: dict, corpus: Corpus, overwrite: bool) -> dict:
    """What `RUN/run.json` says, or would if there is none.

    Raises:
        ValueError: If the folder holds another run, and may not be overwritten.
    """
    path = folder / "run.json"
    mine = {"corpus": corpus.name, "manifest_sha256": corpus.manifest_sha256, "settings": settings}
    empty = not folder.is_dir() or not any(folder.iterdir())
    if not empty and not path.is_file():
        raise ValueError(f"{folder} is not empty, and holds no protocol's run: give another --output_dir")
    if overwrite or empty:
        return mine | {"protocols": {}, "commands": []}
    found = json.loads(path.read_text(encoding="utf-8"))
    differing = [name for name in ("corpus", "manifest_sha256") if found[name] != mine[name]]
    names = {*found["settings"], *settings}
    differing += sorted(name for name in names if found["settings"].get(name) != settings.get(name))
    if differing:
        raise ValueError(
            f"{folder} holds another run, with another {', '.join(differing)}: give another --output_dir, or "
            f"--overwrite_output true to begin anew"
        )
    return found


def train_protocol(
    model_args: ModelArguments,
    data_args: DataArguments,
    arguments: GEmoClapTrainingArguments,
    compute_metrics: Callable,
) -> None:
    """Train every fold and seed of `--protocol`, and a control of shuffled labels; what is finished is passed over.

    Args:
        model_args: What to train.
        data_args: On what; `protocol`, `folds`, `seeds` and `control` say which runs.
        arguments: How.
        compute_metrics: As for `transformers.Trainer`.

    Raises:
        ValueError: If the protocol does not fit the corpus, or the folder holds another run.
    """
    if data_args.speakers or data_args.dev_speakers:
        raise ValueError(
            "--protocol says which speakers are trained on: leave out --speakers and --dev_speakers "
            "(--num_dev_speakers deals some of each fold's training part; --exclude_speakers leaves some out of all)"
        )
    arguments = choosing_on_dev(arguments, data_args)
    corpus, emotions = select_corpus(data_args, model_args)
    root = Path(arguments.output_dir)
    main = arguments.process_index == 0
    settings = settings_of(model_args, data_args, arguments)
    run = of_all(open_run(root, settings, corpus, arguments.overwrite_output) if main else None)[0]
    protocols = plan_protocols(run, root, corpus, data_args, arguments, model_args.head)
    for seed, protocol in protocols.items():
        for fold in data_args.folds if data_args.folds is not None else range(len(protocol.folds)):
            start_of_fold(model_args, protocol, corpus, fold, seed)
    if main and arguments.overwrite_output:
        for folder in [*root.glob("fold_*"), *root.glob("shuffled_labels"), *root.glob("results")]:
            shutil.rmtree(folder)
    if main:
        remember(run, root, protocols)
        for note in absent_classes(protocols[min(protocols)], corpus):
            logger.warning(note)
    trainer = None
    for seed, protocol in protocols.items():
        control = wants_control(model_args, data_args) and seed == min(protocols)
        for fold in data_args.folds if data_args.folds is not None else range(len(protocol.folds)):
            for shuffled in (False, True) if control else (False,):
                folder = (root / "shuffled_labels" if shuffled else root) / f"fold_{fold}" / f"seed_{seed}"
                plan = {"protocol_sha256": protocol.sha256, "fold": fold, "seed": seed, "settings": digest(settings)}
                own_args = start_of_fold(model_args, protocol, corpus, fold, seed)
                plan |= {"start_sha256": start_sha256(own_args)} if own_args.init_from else {}
                if of_all(main and finished(folder, plan))[0]:
                    continue
                if trainer is not None:
                    release(trainer)
                parts = fold_parts(protocol, corpus, fold, data_args, seed, shuffled, model_args.head != "speaker")
                options = (emotions, own_args, data_args, for_fold(arguments, folder, seed), compute_metrics)
                start = time.perf_counter()
                of_all(begin(folder, plan) if main else None)  # the others wait for it
                checkpoint = latest_whole_checkpoint(folder) if folder.is_dir() else None
                trainer = train_and_save(parts, *options, checkpoint)
                if main:
                    plan |= {"dev": parts[1].speakers if parts[1] else [], "seconds": time.perf_counter() - start}
                    write_json(folder / "fold.json", plan)
                    for resumable in folder.glob("checkpoint-*"):  # of no use to a fold that is finished
                        shutil.rmtree(resumable)
                    print(
                        f"fold {fold}, seed {seed}{', shuffled labels' * shuffled}: {plan['seconds']:.0f} s",
                        flush=True,
                    )
    if main:
        told(root, protocols, data_args, model_args)
    if trainer is not None:
        finish(trainer)


def plan_protocols(
    run: dict,
    root: Path,
    corpus: Corpus,
    data: DataArguments,
    arguments: GEmoClapTrainingArguments,
    head: str = "contrastive",
) -> dict[int, Protocol]:
    """The protocol of each seed, before anything is trained or removed.

    Raises:
        ValueError: If one does not fit the corpus, seeds judge different clips, or the run has other folds.
    """
    seeds = data.seeds or [arguments.seed]
    protocols = {seed: protocol_of(data.protocol, corpus, seed, data.folds_file) for seed in seeds}
    if head == "speaker" and not protocols[seeds[0]].speaker_independent:
        raise ValueError(f"{data.protocol} deals clips by their emotion, which head speaker does not read")
    for seed, protocol in protocols.items():
        known = run["protocols"].get(str(seed), protocol.to_dict())
        others = {one["name"] for one in run["protocols"].values()} - {protocol.name}
        if others or known != protocol.to_dict():
            begun = ", ".join(others) or f"{protocol.name} of other folds"
            raise ValueError(f"{root} was begun with another protocol, {begun}: give another --output_dir")
        every = range(len(protocol.folds))
        for fold in data.folds if data.folds is not None else every:
            if fold not in every:
                raise ValueError(f"--folds {fold}: {protocol.name} has folds 0 to {every[-1]}")
            fold_parts(protocol, corpus, fold, data, seed, False, head != "speaker")
    all_folds = [*run["protocols"].values(), *(protocol.to_dict() for protocol in protocols.values())]
    if len({tuple(sorted(value for fold in one["folds"] for value in fold)) for one in all_folds}) > 1:
        raise ValueError(f"{root}: the seeds' folds judge different clips, so their figures have no mean")
    return protocols


def remember(run: dict, root: Path, protocols: dict[int, Protocol]) -> None:
    """Put protocols and the command into `RUN/run.json`, and print the protocols' hashes."""
    run["protocols"] |= {str(seed): protocol.to_dict() for seed, protocol in protocols.items()}
    command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    run["commands"] += [command] if command not in run["commands"] else []
    root.mkdir(parents=True, exist_ok=True)
    write_json(root / "run.json", run)
    for seed, protocol in protocols.items():
        print(f"{protocol.name} of {protocol.corpus}, seed {seed}: protocol {protocol.sha256[:16]}", flush=True)


def told(root: Path, protocols: dict[int, Protocol], data: DataArguments, model: ModelArguments) -> None:
    """Print what is trained, and how it is judged."""
    wanted = [
        root / f"fold_{fold}" / f"seed_{seed}" / "fold.json"
        for seed, protocol in protocols.items()
        for fold in range(len(protocol.folds))
    ]
    left = [path for path in wanted if not path.is_file()]
    if left:
        print(f"{root}: {len(wanted) - len(left)} of {len(wanted)} folds are trained")
        return
    name = next(iter(protocols.values())).name
    more = ["--folds_file", data.folds_file] if data.folds_file else []
    if model.head == "speaker":
        print(f"{root}: all folds are pretrained. Go on from them: train.py --init_from {root}, by the same protocol")
        return
    judged = ["--protocol", name, *more]
    if model.head == "supcon":
        judged = ["--layer_similarity", *(["--before", model.audio_model] if model.audio_model else [])]
    command = shlex.join(["--model", str(root), "--data_dir", *data.data_dir, *judged])
    print(f"{root}: all folds are trained. Judge them: python evaluate.py {command}")


def wants_control(model: ModelArguments, data: DataArguments) -> bool:
    """Whether a training on shuffled labels belongs to the run: not where an encoder has heard the true ones."""
    if model.head in ("supcon", "speaker"):  # nothing is judged that it could stand beside
        return False
    labelled = any("unlabelled" not in record for record in records_of(model))
    if data.control and labelled:
        logger.warning("no control of shuffled labels: the encoder has heard the true ones")
    return data.control and not labelled


def begin(folder: Path, plan: dict) -> None:
    """Note what a fold is trained by; a part of it that another start left is removed."""
    path = folder / "begun.json"
    if path.is_file() and json.loads(path.read_text()) != plan:
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(path, plan)


def finished(folder: Path, plan: dict) -> bool:
    """Whether a fold was trained to its end, as planned."""
    path = folder / "fold.json"
    if not path.is_file():
        return False
    found = json.loads(path.read_text())
    if any(found[name] != value for name, value in plan.items()):
        raise ValueError(f"{folder} holds another run's fold: give another --output_dir")
    return True


def fold_parts(
    protocol: Protocol,
    corpus: Corpus,
    fold: int,
    data: DataArguments,
    seed: int,
    shuffled: bool,
    labelled: bool = True,
) -> tuple[Corpus, Corpus | None]:
    """The training clips of a fold and its development clips; for the control, the labels of both are shuffled.

    `labelled` is whether emotions are asked for.
    """
    train, dev = split(protocol.training(corpus, fold), data, seed, labelled)
    overlap = set(train.speakers) & set(protocol.test(corpus, fold).speakers)
    if protocol.speaker_independent and overlap:
        raise ValueError(
            f"{protocol.name}, fold {fold}: speakers {', '.join(sorted(overlap))} are trained on and judged"
        )
    return tuple(part and shuffled_labels(part, seed) for part in (train, dev)) if shuffled else (train, dev)


def for_fold(arguments: GEmoClapTrainingArguments, folder: Path, seed: int) -> GEmoClapTrainingArguments:
    """The same arguments for another folder and seed."""
    own = copy.copy(arguments)
    own.output_dir, own.seed, own.data_seed = str(folder), seed, None
    return own
