"""Evaluate a checkpoint on a corpus: GEmo-CLAP zero-shot with its prompts, the baseline with its classification head.

    python evaluate.py --model runs/sl --data_dir corpora/emodb --speakers 14 15

    python evaluate.py --model runs/folds --data_dir corpora/emodb --protocol 5-folds-by-speaker

The second command evaluates a run of train.py --protocol. Both write results.json, results.md, report.html,
predictions and PNGs. --layer_similarity compares layers before and after training. --cluster_analysis needs no
checkpoint.
"""

import sys

if __name__ == "evaluate":  # `import evaluate` in this folder means the Hugging Face package of that name
    import importlib.machinery
    import importlib.util
    import os

    _here = os.path.dirname(os.path.abspath(__file__))
    _elsewhere = [path for path in sys.path if os.path.abspath(path or os.getcwd()) != _here]
    _spec = importlib.machinery.PathFinder.find_spec("evaluate", _elsewhere)
    if _spec is None:
        raise ModuleNotFoundError("No module named 'evaluate'", name="evaluate")
    _module = importlib.util.module_from_spec(_spec)
    sys.modules["evaluate"] = _module
    _spec.loader.exec_module(_module)


def switch(text):
    """Parse the value of a switch: `--option`, `--option true` or `--option false`, as in train.py."""
    if text.lower() not in ("true", "false"):
        raise ValueError
    return text.lower() == "true"


def parse(argv):
    """Parse the command line."""
    from argparse import RawDescriptionHelpFormatter

    on_or_off = {"nargs": "?", "const": True, "default": False, "type": switch, "metavar": "true|false"}
    from modeling_gemoclap.command_line.parser import OneSentence, expanded, number
    from modeling_gemoclap.command_line.ranges import COUNT, SEED, Range

    form = {"formatter_class": RawDescriptionHelpFormatter, "allow_abbrev": False}
    parser = OneSentence("evaluate.py", description=__doc__, **form)
    for option, text in {
        "--model": "checkpoint (a folder or a name on the Hub), or the run of a protocol",
        "--output_dir": "folder for the results; default: results/MODEL/CORPUS, for the run of a protocol RUN/results",
        "--folds_file": "folds file of the training",
        "--before": "with --layer_similarity: the model that the training started from; default: fresh weights",
        "--speaker_embeddings": "with --cluster_analysis: source of embeddings, as in train.py; default: resemblyzer",
    }.items():
        parser.add_argument(option, type=expanded, help=text)
    parser.add_argument(
        "--data_dir", type=expanded, required=True, nargs="+", help="folder of a corpus; several are mixed"
    )
    parser.add_argument(
        "--corpus_name", nargs="+", help="name of each corpus; default: its published name or that of its folder"
    )
    parser.add_argument("--protocol", help="protocol of the training; or ravdess-zeroshot, for any checkpoint")
    seeds, clusters = number(int, SEED), number(int, Range(at_least=2))
    parser.add_argument("--seeds", nargs="+", type=seeds, help="evaluate only these seeds of the run")
    parser.add_argument("--speakers", nargs="+", help="evaluate only these speakers")
    parser.add_argument("--exclude_speakers", nargs="+", help="evaluate all other speakers")
    parser.add_argument("--emotion_map", help="emotions that words of the corpus stand for (JSON), as in train.py")
    parser.add_argument(
        "--layer_similarity", action="store_true", help="compare clips in each layer, before and after training"
    )
    parser.add_argument(
        "--cluster_analysis", action="store_true", help="compare clusters of speaker embeddings with labels"
    )
    parser.add_argument(
        "--speaker_clusters", type=clusters, help="clusters for each speaker; default: chosen by silhouette"
    )
    parser.add_argument(
        "--labels", nargs="+", help="emotions to choose between, as prompts; `corpus`: those of the corpus"
    )
    parser.add_argument("--allow_seen_speakers", **on_or_off, help="also evaluate speakers that were seen in training")
    parser.add_argument(
        "--drop_other_emotions", **on_or_off, help="drop clips of emotions that the checkpoint does not predict"
    )
    parser.add_argument("--on_bad_audio", choices=["raise", "skip"], default="raise", help="unusable clips")
    parser.add_argument("--overwrite_output", **on_or_off, help="overwrite the results of another run")
    parser.add_argument("--batch_size", type=number(int, COUNT), default=16, help="default: 16")
    parser.add_argument("--device", help="such as cpu or cuda; default: a GPU if there is one")
    return parser.parse_args(argv)


def main(argv):
    """Evaluate, print the figures and write the report."""
    import shlex

    from modeling_gemoclap.evaluation import actions, mteb
    from modeling_gemoclap.evaluation.report import as_table, remarks, write_report

    arguments, command = parse(argv), shlex.join(["python", "evaluate.py", *argv])
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
    print(f"\n{record['corpus']}, {record['protocol']}\n\n{as_table(record)}\n")
    print("\n".join(remarks(record) + [f"  {error}" for error in record["skipped"]]))
    print(f"\nReport: {output_dir / 'report.html'}; confusion matrix: {output_dir / 'confusion_matrix.png'}")


if __name__ == "__main__":
    try:  # the libraries take seconds to import
        from modeling_gemoclap.command_line.failures import run_main
    except KeyboardInterrupt:
        print("evaluate.py: interrupted before it began", file=sys.stderr)
        sys.exit(130)
    run_main("evaluate.py", main)
