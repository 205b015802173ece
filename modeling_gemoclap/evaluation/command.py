"""Evaluate a checkpoint on a corpus: GEmo-CLAP zero-shot by its prompts, the classifier by its head.

    python evaluate.py --model runs/sl --data_dir corpora/emodb --speakers 14 15

    python evaluate.py --model runs/folds --data_dir corpora/emodb --protocol 5-folds-by-speaker

The second command evaluates a run of train.py --protocol. Both write results.json, results.md, report.html, the
predictions and figures. --layer_similarity compares layers before and after training; --cluster_analysis needs no
checkpoint.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ..command_line.commands import command_words, publishable_command
from ..command_line.parser import RaisingParser, expanded, number, switch
from ..command_line.ranges import COUNT, SEED, Range
from ..command_line.terminal import printable_lines


def parse(argv: list[str]) -> argparse.Namespace:
    """Read the command line.

    Args:
        argv: The command line without the program's name.

    Raises:
        ValueError: If an option is unknown or has a value that it may not have.
    """
    on_or_off = {"nargs": "?", "const": True, "default": False, "type": switch, "metavar": "true|false"}
    form = {"formatter_class": argparse.RawDescriptionHelpFormatter, "allow_abbrev": False}
    parser = RaisingParser("evaluate.py", description=__doc__, **form)
    for option, text in {
        "--model": "checkpoint, a folder or a name on the Hub; or the run of a protocol",
        "--output_dir": "default: results/MODEL/CORPUS; for the run of a protocol RUN/results",
        "--folds_file": "the value that the run was trained with",
        "--before": "with --layer_similarity: the model before training; default: random weights",
        "--speaker_embeddings": "for --cluster_analysis; default: resemblyzer, as for train.py",
    }.items():
        parser.add_argument(option, type=expanded, help=text)
    parser.add_argument(
        "--data_dir", type=expanded, required=True, nargs="+", help="folder of a corpus; several are mixed"
    )
    parser.add_argument("--corpus_name", nargs="+", help="name of each corpus; default: its recorded or folder's name")
    parser.add_argument("--protocol", help="the value that the run was trained with; or ravdess-zeroshot")
    seeds, clusters = number(int, SEED), number(int, Range(at_least=2))
    parser.add_argument("--seeds", nargs="+", type=seeds, help="evaluate only these seeds of a protocol's run")
    parser.add_argument("--speakers", nargs="+", help="evaluate only these speakers")
    parser.add_argument("--exclude_speakers", nargs="+", help="evaluate all but these speakers")
    parser.add_argument("--emotion_map", help="emotions that words of the corpus stand for, as for train.py")
    parser.add_argument("--layer_similarity", action="store_true", help="compare layers before and after training")
    parser.add_argument("--cluster_analysis", action="store_true", help="analyse clusters of speaker embeddings")
    parser.add_argument("--speaker_clusters", type=clusters, help="clusters of a speaker; default: by silhouette")
    parser.add_argument("--labels", nargs="+", help="zero-shot: emotions to choose from; `corpus`: its own emotions")
    parser.add_argument("--allow_seen_speakers", **on_or_off, help="also evaluate speakers of the training data")
    parser.add_argument("--drop_other_emotions", **on_or_off, help="drop clips of emotions that the model lacks")
    on = on_or_off | {"default": True}
    parser.add_argument("--gender_probe", **on, help="predict gender from embeddings (protocols); default: true")
    parser.add_argument("--on_bad_audio", choices=["raise", "skip"], default="raise", help="unusable clips")
    parser.add_argument("--overwrite_output", **on_or_off, help="overwrite the results of another run")
    parser.add_argument("--batch_size", type=number(int, COUNT), default=16, help="default: 16")
    parser.add_argument("--device", help="cpu, cuda, ...; default: a GPU if there is one")
    return parser.parse_args(argv)


def main(argv: list[str]) -> Path | None:
    """Load the checkpoint, evaluate it, and write the results.

    Args:
        argv: The command line without the program's name.

    Returns:
        The `results.json` of a checkpoint, for its model card; None after other evaluations.
    """
    arguments, command = parse(argv), publishable_command([*command_words("evaluate"), *argv])
    from . import actions, mteb  # after the options are read: these need the packages of gemoclap[train]
    from .report import as_table, remarks, write_report

    actions.refuse_idle_options(arguments)
    actions.check_environment(arguments)
    if arguments.cluster_analysis:
        return print(actions.evaluate_clusters(arguments, command))
    if arguments.layer_similarity:
        return print(actions.evaluate_layer_similarity(arguments, command))
    of_run = arguments.protocol not in (None, mteb.NAME) or arguments.folds_file
    evaluate = actions.evaluate_run if of_run else actions.evaluate_checkpoint
    record, rows, figures, output_dir = evaluate(arguments, command)
    write_report(record, rows, figures, output_dir)
    print(printable_lines(f"\n{record['corpus']}, {record['protocol']}\n\n{as_table(record)}\n"))
    print(printable_lines("\n".join(remarks(record) + [f"  {error}" for error in record["skipped"]])))
    print(f"\nReport: {output_dir / 'report.html'}; confusion matrix: {output_dir / 'confusion_matrix.png'}")
    return None if of_run else output_dir / "results.json"
