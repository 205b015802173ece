"""What `evaluate.py` does, from its command line to what is written."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from ..command_line.files import json_object
from ..command_line.places import cache_folders, refuse_missing_device, refuse_unwritable
from ..configuration_gemoclap import GEmoClapConfig
from ..corpora.checkpoint_files import check_checkpoint_files
from ..corpora.manifest import Corpus, load_corpora
from ..corpora.provenance import Heard
from ..objectives.speaker_clusters.clusters import cluster_within_speakers
from ..objectives.speaker_clusters.embeddings import speaker_embeddings
from ..prompts_gemoclap import canonical_emotion, check_words, refuse_one_word, refuse_shared_prompts
from . import answers, mteb
from .cluster_analysis import ANALYSIS, analyse, as_table, write_analysis
from .layer_similarity import LAYERS, judge_layers, write_layers
from .loading import class_similarities, load_pipeline
from .protocol_runs import judge_protocol, read_run
from .report import CONTROL, protocol_record, refuse_other_results, results_record, speaker_independence


def _corpus(arguments: argparse.Namespace, emotions: list[str] | None, emotion_map: str | None = None) -> Corpus:
    emotion_map = arguments.emotion_map or emotion_map
    return load_corpora(arguments.data_dir, arguments.corpus_name, emotions, emotion_map)


def _labels(given: list[str] | None, corpus: Corpus) -> list[str] | None:
    """The classes that `--labels` names, by the corpus's own words where it has other words for the same emotions."""
    if given is None:
        return None
    if given == ["corpus"]:
        return corpus.emotions
    labels = refuse_one_word("--labels", refuse_shared_prompts("--labels", check_words("--labels", ",".join(given))))
    own = {canonical_emotion(emotion): emotion for emotion in corpus.emotions if canonical_emotion(emotion)}
    return [label if label in corpus.emotions else own.get(canonical_emotion(label), label) for label in labels]


def refuse_idle_options(arguments: argparse.Namespace) -> None:
    """Refuse options that would have no part in what is asked for, and a missing checkpoint.

    Args:
        arguments: The command line of evaluate.py.

    Raises:
        ValueError: If there are such options.
    """
    idle = {"before": "--layer_similarity", "speaker_embeddings": "--cluster_analysis"}
    idle["speaker_clusters"] = "--cluster_analysis"
    asked = {f"--{name}" for name in ("layer_similarity", "cluster_analysis") if getattr(arguments, name)}
    if len(asked) > 1:
        raise ValueError("--layer_similarity and --cluster_analysis are two evaluations: ask for one at a time")
    for name, wanted in idle.items():
        if getattr(arguments, name) is not None and wanted not in asked:
            raise ValueError(f"--{name} is for {wanted}")
    if not arguments.cluster_analysis:
        if not arguments.model:
            raise ValueError("give --model, a checkpoint or a protocol's run")
        return
    none = ("model", "protocol", "folds_file", "seeds", "labels", "allow_seen_speakers", "drop_other_emotions")
    if given := [f"--{name}" for name in none if getattr(arguments, name)]:
        raise ValueError(f"--cluster_analysis judges no checkpoint: leave out {', '.join(given)}")


def try_first(arguments: argparse.Namespace) -> None:
    """Make sure that there is the device, and that results can be written, before anything is read.

    Args:
        arguments: The command line of evaluate.py.

    Raises:
        ValueError: If something is missing.
    """
    refuse_missing_device(arguments.device)
    json_object(arguments.emotion_map, "--emotion_map")
    root = Path(arguments.model or "results")
    run = root if (root / "run.json").is_file() else None  # answers are stored beside each checkpoint of a run
    places = {"--model": run, "--output_dir": arguments.output_dir or run or "results"}
    refuse_unwritable(places | cache_folders())


def judge_run(arguments: argparse.Namespace, command: str) -> tuple:
    """Judge a protocol's run.

    Args:
        arguments: The command line of evaluate.py.
        command: The same, as one types it.

    Returns:
        What `write_report` wants: the record, rows of each seed, what is pictured, and where it goes.

    Raises:
        ValueError: If what is asked for cannot be judged, or another run's results lie there.
    """
    root = Path(arguments.model)
    if arguments.speakers or arguments.exclude_speakers or arguments.labels:
        raise ValueError("--protocol says what is judged: leave out --speakers, --exclude_speakers and --labels")
    if arguments.allow_seen_speakers:
        raise ValueError("--protocol says which speakers are judged by which fold: leave out --allow_seen_speakers")
    settings = read_run(root)["settings"]
    corpus = _corpus(arguments, settings["emotions"], settings.get("emotion_map"))
    trained = sorted(map(int, read_run(root)["protocols"]))
    seeds = sorted(set(arguments.seeds or trained))
    if absent := sorted({*seeds} - {*trained}):
        raise ValueError(f"{root} was not trained by {arguments.protocol} with seed {absent[0]}; see its run.json")
    asked = corpus.identity | {"model": arguments.model, "seeds": seeds}
    output_dir = Path(arguments.output_dir or root / "results")
    refuse_other_results(asked, output_dir, arguments.overwrite_output)
    options = (seeds, arguments.folds_file, arguments.batch_size, arguments.on_bad_audio)
    found = judge_protocol(
        root, arguments.protocol, corpus, lambda folder: load_pipeline(folder, arguments.device), *options
    )
    pipe = load_pipeline(str(found.checkpoint), arguments.device)
    similarities = class_similarities(pipe, found.pictured, found.embeddings)
    title = f"fold 0 of seed {next(iter(found.protocols))}"
    pictured = {"judged": found.pictured, "embeddings": found.embeddings, "similarities": similarities, "title": title}
    record = protocol_record(found, corpus, arguments.model, command) | {"asked": asked}
    return record, found.rows, pictured, output_dir


def judge_checkpoint(arguments: argparse.Namespace, command: str) -> tuple:
    """Judge one checkpoint; arguments, return and errors as `judge_run`."""
    if arguments.seeds:
        raise ValueError("--seeds is for a protocol's run: give --protocol, or leave it out")
    pipe = load_pipeline(arguments.model, arguments.device)
    corpus = _corpus(arguments, pipe.model.config.emotions)
    corpus = corpus.of_speakers(arguments.speakers, arguments.exclude_speakers)
    choice = {"labels": _labels(arguments.labels, corpus)}
    if arguments.protocol == mteb.NAME:
        choice = mteb.ravdess_zeroshot(corpus)
    labels = choice["labels"] or pipe.model.config.emotions
    corpus, notes = answers.labelled(corpus.of_emotions(labels, arguments.drop_other_emotions))
    notes += answers.absent_labels(corpus, labels) + answers.unknown_words(pipe, labels, choice.get("words"))
    asked = corpus.identity | {"model": arguments.model, "protocol": arguments.protocol}
    asked |= {"labels": list(labels), "speakers": corpus.speakers}
    answers.refuse_seen_speakers(corpus, pipe.model.config.training_data, arguments.allow_seen_speakers)
    output_dir = Path(arguments.output_dir or Path("results", Path(arguments.model).name, corpus.name))
    refuse_other_results(asked, output_dir, arguments.overwrite_output)
    options = (arguments.batch_size, arguments.on_bad_audio, arguments.allow_seen_speakers)
    evaluation = answers.evaluate_clips(pipe, corpus, *options, **choice)
    answers.refuse_one_emotion(evaluation.references, corpus, evaluation.skipped)
    record = results_record(evaluation, corpus, pipe.model.config, arguments.model, command, notes) | {"asked": asked}
    if arguments.protocol:
        mteb.refuse_skipped(evaluation.skipped)
        record["protocol"] = f"{arguments.protocol} (accuracy is WAR); {record['protocol']}"
    judged, embeddings = evaluation.judged(), np.stack(evaluation.embeddings)
    similarities = class_similarities(pipe, judged, embeddings)
    pictured = {"judged": judged, "embeddings": embeddings, "similarities": similarities, "title": "all clips"}
    return record, [evaluation.rows], pictured, output_dir


def judge_layer_similarity(arguments: argparse.Namespace, command: str) -> str:
    """Compare clips layer by layer, before and after training, and write numbers and picture.

    Args:
        arguments: See `judge_run`.
        command: See there.

    Returns:
        What there is to print.

    Raises:
        ValueError: See there.
    """
    root = Path(arguments.model)
    if arguments.protocol or arguments.folds_file or arguments.labels or arguments.seeds:
        raise ValueError(
            "--layer_similarity takes a run's own protocol: leave out --protocol, --folds_file, --labels and --seeds"
        )
    if (root / "run.json").is_file():
        settings = read_run(root)["settings"]
        if arguments.speakers or arguments.exclude_speakers:
            raise ValueError("the run's protocol says what is judged: leave out --speakers and --exclude_speakers")
        corpus, place = _corpus(arguments, settings["emotions"], settings.get("emotion_map")), root
    else:
        check_checkpoint_files(arguments.model)
        emotions = GEmoClapConfig.from_pretrained(arguments.model).emotions
        corpus = _corpus(arguments, emotions).of_speakers(arguments.speakers, arguments.exclude_speakers)
        corpus = corpus.of_emotions(emotions, True) if arguments.drop_other_emotions else corpus
        place = Path("results", root.name, corpus.name)
    output_dir = Path(arguments.output_dir or place / "layer_similarity")
    asked = corpus.identity | {"model": arguments.model, "before": arguments.before, "speakers": corpus.speakers}
    refuse_other_results(asked, output_dir, arguments.overwrite_output, LAYERS)
    options = (arguments.device, arguments.batch_size, arguments.on_bad_audio, arguments.allow_seen_speakers)
    record = judge_layers(root, corpus, arguments.before, *options)
    table = write_layers(record | corpus.identity | {"asked": asked, "command": command}, output_dir)
    pairs = ", ".join(f"{count:,} {kind.replace('_', ' ')}" for kind, count in record["pairs"].items())
    errors = "".join(f"\n  {error}" for error in record["skipped"])
    known = speaker_independence(Heard.from_dict(record["heard"]), len(corpus.speakers), corpus.name)
    known += CONTROL * record["control"]
    about = f"{corpus.name}: {record['clips']} clips; {known}; pairs: {pairs}"
    return f"\n{about}{errors}\n\n{table}\n\nPicture: {output_dir / 'layer_similarity.png'}"


def judge_clusters(arguments: argparse.Namespace, command: str) -> str:
    """Cluster speaker embeddings within each speaker, and write what the clusters agree with.

    Args:
        arguments: See `judge_run`; `model` has no part in it.
        command: See there.

    Returns:
        What there is to print.

    Raises:
        ValueError: If embeddings cannot be had, or there are no clusters.
    """
    source = arguments.speaker_embeddings or "resemblyzer"
    corpus = _corpus(arguments, None).of_speakers(arguments.speakers, arguments.exclude_speakers)
    output_dir = Path(arguments.output_dir or Path("results", corpus.name, "cluster_analysis"))
    asked = corpus.identity | {"embeddings": source, "clusters": arguments.speaker_clusters}
    refuse_other_results(asked | {"speakers": corpus.speakers}, output_dir, arguments.overwrite_output, ANALYSIS)
    options = {"on_bad_audio": arguments.on_bad_audio, "device": arguments.device}
    corpus, embeddings, errors = speaker_embeddings(corpus, source, **options)
    clusters = cluster_within_speakers(embeddings, corpus.column("speaker_id").to_pylist(), arguments.speaker_clusters)
    record = analyse(embeddings, clusters, corpus) | corpus.identity
    record |= {"asked": asked | {"speakers": corpus.speakers}, "command": command, "skipped": errors}
    write_analysis(record, embeddings, clusters, corpus, output_dir)
    sizes = record["clusters_of_a_speaker"]
    about = (
        f"{corpus.name}: {record['clips']} clips of {record['speakers']} speakers, {sizes['least']} to "
        f"{sizes['most']} clusters each, {sizes['mean']:.1f} on average"
    )
    notes = "".join(f"\n  {note}" for note in [*record["notes"], *errors])
    return f"\n{about}{notes}\n\n{as_table(record)}\n\nPicture: {output_dir / 'cluster_analysis.png'}"
