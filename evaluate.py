"""Judge a checkpoint on a corpus: GEmo-CLAP zero-shot by its prompts, the baseline by its head.

    python evaluate.py --model runs/sl --data_dir corpora/emodb --speakers 14 15

    python evaluate.py --model runs/folds --data_dir corpora/emodb --protocol 5-folds-by-speaker

The second judges a run of train.py --protocol. Both write results.json, results.md, report.html, predictions and PNGs.
--layer_similarity compares layers before and after the training; --cluster_analysis needs no checkpoint.
"""

import sys

if __name__ == "evaluate":  # somebody who runs from this folder wants the Hugging Face package of that name
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
    """What `--option`, `--option true` and `--option false` say, as for train.py."""
    if text.lower() not in ("true", "false"):
        raise ValueError
    return text.lower() == "true"


def parse(argv):
    """The command line."""
    from argparse import RawDescriptionHelpFormatter

    on_or_off = {"nargs": "?", "const": True, "default": False, "type": switch, "metavar": "true|false"}
    from modeling_gemoclap.command_line.parser import RaisingParser, expanded, number
    from modeling_gemoclap.command_line.ranges import COUNT, SEED, Range

    form = {"formatter_class": RawDescriptionHelpFormatter, "allow_abbrev": False}
    parser = RaisingParser("evaluate.py", description=__doc__, **form)
    for option, text in {
        "--model": "checkpoint: a folder or a name on the Hub; or a protocol's run",
        "--output_dir": "default: results/MODEL/CORPUS, of a protocol's run RUN/results",
        "--folds_file": "as it was trained with",
        "--before": "with --layer_similarity: what the training began with; default: fresh weights",
        "--speaker_embeddings": "of --cluster_analysis; default: resemblyzer, as for train.py",
    }.items():
        parser.add_argument(option, type=expanded, help=text)
    parser.add_argument("--data_dir", type=expanded, required=True, nargs="+", help="corpus folder; several are mixed")
    parser.add_argument("--corpus_name", nargs="+", help="what to call each; default: its own or its folder's name")
    parser.add_argument("--protocol", help="as it was trained with; or ravdess-zeroshot, for any checkpoint")
    seeds, clusters = number(int, SEED), number(int, Range(at_least=2))
    parser.add_argument("--seeds", nargs="+", type=seeds, help="judge these seeds of a protocol's run alone")
    parser.add_argument("--speakers", nargs="+", help="judge on these speakers alone")
    parser.add_argument("--exclude_speakers", nargs="+", help="judge on all but these speakers")
    parser.add_argument("--emotion_map", help="what words of the corpus stand for, as for train.py")
    parser.add_argument(
        "--layer_similarity", action="store_true", help="compare clips layer by layer, before and after"
    )
    parser.add_argument("--cluster_analysis", action="store_true", help="what clusters of speaker embeddings tell")
    parser.add_argument("--speaker_clusters", type=clusters, help="of a speaker; default: by silhouette")
    parser.add_argument("--labels", nargs="+", help="emotions to choose between, by prompts; `corpus`: those it has")
    parser.add_argument("--allow_seen_speakers", **on_or_off, help="judge on speakers it was trained on too")
    parser.add_argument("--drop_other_emotions", **on_or_off, help="drop clips of emotions it does not know")
    parser.add_argument("--on_bad_audio", choices=["raise", "skip"], default="raise")
    parser.add_argument("--overwrite_output", **on_or_off, help="write over the results of another run")
    parser.add_argument("--batch_size", type=number(int, COUNT), default=16)
    parser.add_argument("--device", help="cpu, cuda, ...; default: what there is")
    return parser.parse_args(argv)


def main(argv):
    """Load, judge, write."""
    import shlex

    from modeling_gemoclap.evaluation import judging, mteb
    from modeling_gemoclap.evaluation.report import as_table, remarks, write_report

    arguments, command = parse(argv), shlex.join(["python", "evaluate.py", *argv])
    judging.refuse_idle_options(arguments)
    judging.try_first(arguments)
    if arguments.cluster_analysis:
        return print(judging.judge_clusters(arguments, command))
    if arguments.layer_similarity:
        return print(judging.judge_layer_similarity(arguments, command))
    of_run = arguments.protocol not in (None, mteb.NAME) or arguments.folds_file
    judge = judging.judge_run if of_run else judging.judge_checkpoint
    record, runs, pictured, output_dir = judge(arguments, command)
    write_report(record, runs, pictured, output_dir)
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
