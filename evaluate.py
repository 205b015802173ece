"""Judge a checkpoint on a corpus: GEmo-CLAP zero-shot by its prompts, the baseline by its head.

    python evaluate.py --model runs/sl --data_dir corpora/emodb --speakers 14 15

    python evaluate.py --model runs/folds --data_dir corpora/emodb --protocol 5-folds-by-speaker

The second judges a run of train.py --protocol. Both write results.json, results.md, report.html, predictions and PNGs.
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
        raise ModuleNotFoundError("No module named 'evaluate' (pip install evaluate)", name="evaluate")
    _module = importlib.util.module_from_spec(_spec)
    sys.modules["evaluate"] = _module
    _spec.loader.exec_module(_module)


def parse(argv):
    """The command line."""
    import argparse

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model", required=True, help="checkpoint: a folder or a name on the Hub; or a protocol's run"
    )
    parser.add_argument("--data_dir", required=True, nargs="+", help="corpus folder; several are mixed")
    parser.add_argument("--output_dir", help="default: results/MODEL/CORPUS, of a protocol's run RUN/results")
    parser.add_argument("--corpus_name", nargs="+", help="what to call each; default: its own or its folder's name")
    parser.add_argument("--protocol", help="as it was trained with; or ravdess-zeroshot, for any checkpoint")
    parser.add_argument("--folds_file", help="as it was trained with")
    parser.add_argument("--seeds", nargs="+", type=int, help="judge these seeds of a protocol's run alone")
    parser.add_argument("--speakers", nargs="+", help="judge on these speakers alone")
    parser.add_argument("--exclude_speakers", nargs="+", help="judge on all but these speakers")
    parser.add_argument("--labels", nargs="+", help="emotions to choose between, by prompts; `corpus`: those it has")
    parser.add_argument("--allow_seen_speakers", action="store_true", help="judge on speakers it was trained on too")
    parser.add_argument("--drop_other_emotions", action="store_true", help="drop clips of emotions it does not know")
    parser.add_argument("--on_bad_audio", choices=["raise", "skip"], default="raise")
    parser.add_argument("--overwrite_output", action="store_true", help="write over the results of another run")
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--device", help="cpu, cuda, ...; default: what there is")
    return parser.parse_args(argv)


def judge_run(arguments, command):
    """Judge a protocol's run: record, rows of each seed, what is pictured, where it goes."""
    from pathlib import Path

    from modeling_gemoclap.corpora.manifest import load_corpora
    from modeling_gemoclap.evaluation.loading import class_similarities, load_pipeline
    from modeling_gemoclap.evaluation.protocol_runs import judge_protocol, read_run
    from modeling_gemoclap.evaluation.report import protocol_record, refuse_other_results

    root = Path(arguments.model)
    if arguments.speakers or arguments.exclude_speakers or arguments.labels:
        raise ValueError("--protocol says what is judged: leave out --speakers, --exclude_speakers and --labels")
    corpus = load_corpora(arguments.data_dir, arguments.corpus_name, read_run(root)["settings"]["emotions"])
    asked = corpus.identity | {"model": arguments.model}
    output_dir = Path(arguments.output_dir or root / "results")
    refuse_other_results(asked, output_dir, arguments.overwrite_output)
    options = (arguments.seeds, arguments.folds_file, arguments.batch_size, arguments.on_bad_audio)
    found = judge_protocol(
        root, arguments.protocol, corpus, lambda folder: load_pipeline(folder, arguments.device), *options
    )
    pipe = load_pipeline(str(found.checkpoint), arguments.device)
    similarities = class_similarities(pipe, found.pictured, found.embeddings)
    title = f"fold 0 of seed {next(iter(found.protocols))}"
    pictured = {"judged": found.pictured, "embeddings": found.embeddings, "similarities": similarities, "title": title}
    record = protocol_record(found, corpus, arguments.model, command) | {"asked": asked}
    return record, found.rows, pictured, output_dir


def judge_checkpoint(arguments, command):
    """Judge one checkpoint; returns as `judge_run`."""
    from pathlib import Path

    import numpy as np

    from modeling_gemoclap.corpora.manifest import load_corpora
    from modeling_gemoclap.evaluation import answers, mteb
    from modeling_gemoclap.evaluation.loading import class_similarities, load_pipeline
    from modeling_gemoclap.evaluation.report import refuse_other_results, results_record

    if arguments.seeds:
        raise ValueError("--seeds is for a protocol's run: give --protocol, or leave it out")
    pipe = load_pipeline(arguments.model, arguments.device)
    corpus = load_corpora(arguments.data_dir, arguments.corpus_name, pipe.model.config.emotions)
    corpus = corpus.of_speakers(arguments.speakers, arguments.exclude_speakers)
    choice = {"labels": corpus.emotions if arguments.labels == ["corpus"] else arguments.labels}
    if arguments.protocol == mteb.NAME:
        choice = mteb.ravdess_zeroshot(corpus)
    labels = choice["labels"] or pipe.model.config.emotions
    corpus, notes = answers.labelled(corpus.of_emotions(labels, arguments.drop_other_emotions))
    notes += answers.absent_labels(corpus, labels) + answers.unknown_words(pipe, labels, choice.get("words"))
    asked = corpus.identity | {"model": arguments.model, "protocol": arguments.protocol}
    asked |= {"labels": list(labels), "speakers": corpus.speakers}
    answers.refuse_seen_speakers(corpus, pipe.model.config, arguments.allow_seen_speakers)
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


def main(argv):
    """Load, judge, write."""
    import shlex

    from modeling_gemoclap.evaluation import mteb
    from modeling_gemoclap.evaluation.report import as_table, remarks, write_report

    arguments = parse(argv)
    judge = judge_run if arguments.protocol not in (None, mteb.NAME) or arguments.folds_file else judge_checkpoint
    record, runs, pictured, output_dir = judge(arguments, shlex.join(["python", "evaluate.py", *argv]))
    write_report(record, runs, pictured, output_dir)
    print(f"\n{record['corpus']}, {record['protocol']}\n\n{as_table(record)}\n")
    print("\n".join(remarks(record) + [f"  {error}" for error in record["skipped"]]))
    print(f"\nReport: {output_dir / 'report.html'}; confusion matrix: {output_dir / 'confusion_matrix.png'}")


if __name__ == "__main__":
    import os

    try:
        main(sys.argv[1:])
    except (ValueError, ImportError, OSError) as error:
        if os.environ.get("GEMOCLAP_TRACEBACK"):
            raise
        sys.exit(f"evaluate.py: {error}")
