"""The evaluations that `evaluate.py` offers: a run, a checkpoint, the layers of an encoder, clusters of speakers."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..command_line.files import json_object
from ..command_line.places import cache_folders, refuse_missing_device, refuse_unwritable
from ..configuration_gemoclap import GEmoClapConfig
from ..corpora.checkpoint_files import check_checkpoint_files
from ..corpora.manifest import Corpus, load_corpora
from ..corpora.provenance import Heard
from ..inference.loading import load_pipeline
from ..objectives.speaker_clusters.clusters import cluster_within_speakers
from ..objectives.speaker_clusters.embeddings import speaker_embeddings
from ..prompts_gemoclap import canonical_emotion, check_words, refuse_shared_prompts, require_two_words
from . import label_checks, mteb
from .checkpoint import evaluate_pipeline
from .clips import Candidates, EvaluationOptions
from .cluster_analysis import ANALYSIS, analyse, as_table, write_analysis
from .layer_similarity import LAYERS, compare_layers, write_layers
from .pictures import EmbeddingFigures
from .protocol_runs import RunEvaluation, evaluate_protocol, read_run
from .records import Source, run_record
from .report import Report, refuse_other_results
from .seen_speakers import CONTROL_NOTE, refuse_seen_speakers, speaker_independence
from .similarities import class_similarities

# Options that need another option.
PARTNERS = {
    "before": "--layer_similarity",
    "speaker_embeddings": "--cluster_analysis",
    "speaker_clusters": "--cluster_analysis",
}
# Options that have no effect with --cluster_analysis, which evaluates no checkpoint.
OF_A_CHECKPOINT = ("model", "protocol", "folds_file", "seeds", "labels", "allow_seen_speakers", "drop_other_emotions")


def refuse_idle_options(arguments: argparse.Namespace) -> None:
    """Refuse options without effect, and a missing checkpoint.

    Args:
        arguments: Options of evaluate.py.

    Raises:
        ValueError: If there are such options, or `--model` is needed and missing.
    """
    analyses = {f"--{name}" for name in ("layer_similarity", "cluster_analysis") if getattr(arguments, name)}
    if len(analyses) > 1:
        raise ValueError("--layer_similarity and --cluster_analysis are two evaluations: give one at a time")
    for name, partner in PARTNERS.items():
        if getattr(arguments, name) is not None and partner not in analyses:
            raise ValueError(f"--{name} is for {partner}")
    if not arguments.cluster_analysis and not arguments.model:
        raise ValueError("give --model, a checkpoint or the run of a protocol")
    if arguments.cluster_analysis:
        if given := [f"--{name}" for name in OF_A_CHECKPOINT if getattr(arguments, name)]:
            raise ValueError(f"--cluster_analysis evaluates no checkpoint: leave out {', '.join(given)}")


def check_environment(arguments: argparse.Namespace) -> None:
    """Check, before any file is read, that the device exists and the results can be written.

    Args:
        arguments: Options of evaluate.py.

    Raises:
        ValueError: If the device is missing, or a folder cannot be written.
    """
    refuse_missing_device(arguments.device)
    json_object(arguments.emotion_map, "--emotion_map")
    root = Path(arguments.model or "results")
    run = root if (root / "run.json").is_file() else None  # predictions are stored beside each checkpoint of a run
    places = {"--model": run, "--output_dir": arguments.output_dir or run or "results"}
    refuse_unwritable(places | cache_folders())


def evaluate_run(arguments: argparse.Namespace, command: str) -> Report:
    """Evaluate the run of a protocol.

    Args:
        arguments: Options of evaluate.py.
        command: The command line.

    Returns:
        What `write_report` writes.

    Raises:
        ValueError: If options do not fit, or `--output_dir` has the results of another run.
    """
    root = Path(arguments.model)
    _refuse_selection(arguments)
    corpus, seeds = _corpus_of_run(arguments), _seeds_of_run(arguments)
    asked = corpus.identity | {"model": arguments.model, "seeds": seeds}
    output_dir = Path(arguments.output_dir or root / "results")
    refuse_other_results(asked, output_dir, arguments.overwrite_output)
    evaluation = evaluate_protocol(root, arguments.protocol, corpus, _options(arguments), seeds, arguments.folds_file)
    record = run_record(evaluation, Source(corpus, arguments.model, command, asked))
    return Report(record, evaluation.rows, _figures_of_run(evaluation, arguments.device), output_dir)


def evaluate_checkpoint(arguments: argparse.Namespace, command: str) -> Report:
    """Evaluate a single checkpoint.

    Args:
        arguments: Options of evaluate.py.
        command: The command line.

    Returns:
        What `write_report` writes.

    Raises:
        SeenSpeakersError: If the checkpoint was trained on test speakers and that is not allowed.
        ValueError: If options do not fit, or `--output_dir` has the results of another run.
    """
    if arguments.seeds:
        raise ValueError("--seeds is for a protocol's run: give --protocol, or leave it out")
    pipe = load_pipeline(arguments.model, arguments.device)
    config = pipe.model.config
    corpus, candidates, notes = _corpus_of_checkpoint(arguments, config)
    asked = corpus.identity | {"model": arguments.model, "protocol": arguments.protocol}
    asked |= {"labels": candidates.labels, "speakers": corpus.speakers}
    refuse_seen_speakers(corpus, config.training_data, arguments.allow_seen_speakers)
    output_dir = Path(arguments.output_dir or Path("results", Path(arguments.model).name, corpus.name))
    refuse_other_results(asked, output_dir, arguments.overwrite_output)
    source = Source(corpus, arguments.model, command, asked)
    record, rows, figures = evaluate_pipeline(pipe, candidates, _options(arguments), source, notes)
    if arguments.protocol:
        mteb.refuse_skipped(record["skipped"])
        record["protocol"] = f"{arguments.protocol} (accuracy is WAR); {record['protocol']}"
    return Report(record, [rows], figures, output_dir)


def evaluate_layer_similarity(arguments: argparse.Namespace, command: str) -> str:
    """Compare clips layer by layer, before and after training, and write the figures and a picture.

    Args:
        arguments: Options of evaluate.py.
        command: The command line.

    Returns:
        Text to print.

    Raises:
        SeenSpeakersError: If a checkpoint was trained on test speakers and that is not allowed.
        ValueError: If options do not fit, or `--output_dir` has the results of another run.
    """
    if arguments.protocol or arguments.folds_file or arguments.labels or arguments.seeds:
        raise ValueError(
            "--layer_similarity uses the protocol of the run: leave out --protocol, --folds_file, --labels and --seeds"
        )
    root = Path(arguments.model)
    corpus, folder = _corpus_of_layers(arguments)
    output_dir = Path(arguments.output_dir or folder / "layer_similarity")
    asked = corpus.identity | {"model": arguments.model, "before": arguments.before, "speakers": corpus.speakers}
    refuse_other_results(asked, output_dir, arguments.overwrite_output, LAYERS)
    record = compare_layers(root, corpus, arguments.before, _options(arguments))
    table = write_layers(record | corpus.identity | {"asked": asked, "command": command}, output_dir)
    pairs = ", ".join(f"{count:,} {kind.replace('_', ' ')}" for kind, count in record["pairs"].items())
    errors = "".join(f"\n  {error}" for error in record["skipped"])
    independence = speaker_independence(Heard.from_dict(record["heard"]), len(corpus.speakers), corpus.name)
    independence += CONTROL_NOTE if record["control"] else ""
    summary = f"{corpus.name}: {record['clips']} clips; {independence}; pairs: {pairs}"
    return f"\n{summary}{errors}\n\n{table}\n\nPicture: {output_dir / 'layer_similarity.png'}"


def evaluate_clusters(arguments: argparse.Namespace, command: str) -> str:
    """Cluster speaker embeddings within each speaker, and write the agreement of the clusters with labels.

    Args:
        arguments: Options of evaluate.py.
        command: The command line.

    Returns:
        Text to print.

    Raises:
        ValueError: If embeddings cannot be computed, or there are no clusters.
    """
    source = arguments.speaker_embeddings or "resemblyzer"
    corpus = _load_corpus(arguments, None).of_speakers(arguments.speakers, arguments.exclude_speakers)
    output_dir = Path(arguments.output_dir or Path("results", corpus.name, "cluster_analysis"))
    asked = corpus.identity | {"embeddings": source, "clusters": arguments.speaker_clusters}
    asked |= {"speakers": corpus.speakers}
    refuse_other_results(asked, output_dir, arguments.overwrite_output, ANALYSIS)
    options = {"on_bad_audio": arguments.on_bad_audio, "device": arguments.device}
    corpus, embeddings, errors = speaker_embeddings(corpus, source, **options)
    clusters = cluster_within_speakers(embeddings, corpus.column("speaker_id").to_pylist(), arguments.speaker_clusters)
    record = analyse(embeddings, clusters, corpus) | corpus.identity
    record |= {"asked": asked, "command": command, "skipped": errors}
    write_analysis(record, embeddings, clusters, corpus, output_dir)
    sizes = record["clusters_of_a_speaker"]
    summary = (
        f"{corpus.name}: {record['clips']} clips of {record['speakers']} speakers, {sizes['least']} to "
        f"{sizes['most']} clusters for each speaker, {sizes['mean']:.1f} on average"
    )
    notes = "".join(f"\n  {note}" for note in [*record["notes"], *errors])
    return f"\n{summary}{notes}\n\n{as_table(record)}\n\nPicture: {output_dir / 'cluster_analysis.png'}"


def _options(arguments: argparse.Namespace) -> EvaluationOptions:
    return EvaluationOptions(
        arguments.batch_size,
        arguments.on_bad_audio,
        arguments.device,
        arguments.allow_seen_speakers,
        arguments.gender_probe,
    )


def _load_corpus(arguments: argparse.Namespace, emotions: list[str] | None, emotion_map: str | None = None) -> Corpus:
    """Load the corpora of `--data_dir`.

    Args:
        arguments: Options of evaluate.py.
        emotions: Emotions of the model; None if there is no model.
        emotion_map: `--emotion_map` of the training, used if evaluate.py has none.
    """
    emotion_map = arguments.emotion_map or emotion_map
    return load_corpora(arguments.data_dir, arguments.corpus_name, emotions, emotion_map)


def _refuse_selection(arguments: argparse.Namespace) -> None:
    if arguments.speakers or arguments.exclude_speakers or arguments.labels:
        raise ValueError(
            "--protocol determines what is evaluated: leave out --speakers, --exclude_speakers and --labels"
        )
    if arguments.allow_seen_speakers:
        raise ValueError("--protocol determines the test speakers of each fold: leave out --allow_seen_speakers")


def _corpus_of_run(arguments: argparse.Namespace) -> Corpus:
    settings = read_run(Path(arguments.model))["settings"]
    return _load_corpus(arguments, settings["emotions"], settings.get("emotion_map"))


def _seeds_of_run(arguments: argparse.Namespace) -> list[int]:
    trained = sorted(map(int, read_run(Path(arguments.model))["protocols"]))
    seeds = sorted(set(arguments.seeds or trained))
    if absent := sorted({*seeds} - {*trained}):
        raise ValueError(
            f"{arguments.model} was not trained by {arguments.protocol} with seed {absent[0]}; see its run.json"
        )
    return seeds


def _figures_of_run(evaluation: RunEvaluation, device: str | None) -> EmbeddingFigures:
    example = evaluation.example
    pipe = load_pipeline(str(example.checkpoint), device)
    similarities = class_similarities(pipe, example.predictions, example.embeddings)
    return EmbeddingFigures(example.predictions, example.embeddings, similarities, example.title)


def _corpus_of_checkpoint(
    arguments: argparse.Namespace, config: GEmoClapConfig
) -> tuple[Corpus, Candidates, list[str]]:
    """The clips to evaluate, the labels to choose between, and notes for the report."""
    corpus = _load_corpus(arguments, config.emotions).of_speakers(arguments.speakers, arguments.exclude_speakers)
    candidates = Candidates(_labels(arguments.labels, corpus) or list(config.emotions))
    if arguments.protocol == mteb.NAME:
        candidates = mteb.ravdess_zeroshot(corpus)
    corpus = corpus.of_emotions(candidates.labels, arguments.drop_other_emotions)
    corpus, notes = label_checks.with_emotion(corpus)
    return corpus, candidates, notes


def _labels(given: list[str] | None, corpus: Corpus) -> list[str] | None:
    """Read `--labels`. An emotion that the corpus calls by a synonym takes the word of the corpus."""
    if given is None:
        return None
    if given == ["corpus"]:
        return corpus.emotions
    labels = require_two_words("--labels", refuse_shared_prompts("--labels", check_words("--labels", ",".join(given))))
    words = {canonical_emotion(emotion): emotion for emotion in corpus.emotions if canonical_emotion(emotion)}
    return [label if label in corpus.emotions else words.get(canonical_emotion(label), label) for label in labels]


def _corpus_of_layers(arguments: argparse.Namespace) -> tuple[Corpus, Path]:
    """The clips of which layers are compared, and the default folder for results."""
    root = Path(arguments.model)
    if (root / "run.json").is_file():
        if arguments.speakers or arguments.exclude_speakers:
            raise ValueError(
                "the protocol of the run determines what is evaluated: leave out --speakers and --exclude_speakers"
            )
        return _corpus_of_run(arguments), root
    check_checkpoint_files(arguments.model)
    emotions = GEmoClapConfig.from_pretrained(arguments.model).emotions
    corpus = _load_corpus(arguments, emotions).of_speakers(arguments.speakers, arguments.exclude_speakers)
    corpus = corpus.of_emotions(emotions, True) if arguments.drop_other_emotions else corpus
    return corpus, Path("results", root.name, corpus.name)
