"""Judge a checkpoint on a corpus: GEmo-CLAP zero-shot by its prompts, the baseline by its head.

    python evaluate.py --model runs/sl --data_dir corpora/emodb --speakers 14 15

It writes results.json, predictions.csv and confusion_matrix.png.
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
    parser.add_argument("--model", required=True, help="checkpoint: a folder, or a name on the Hub")
    parser.add_argument("--data_dir", required=True, help="corpus folder with metadata.csv")
    parser.add_argument("--output_dir", help="default: results/MODEL/CORPUS")
    parser.add_argument("--corpus_name", help="what to call the corpus; default: the folder's name")
    parser.add_argument("--speakers", nargs="+", help="judge on these speakers alone")
    parser.add_argument("--exclude_speakers", nargs="+", help="judge on all but these speakers")
    parser.add_argument("--allow_seen_speakers", action="store_true", help="judge on speakers it was trained on too")
    parser.add_argument("--drop_other_emotions", action="store_true", help="drop clips of emotions it does not know")
    parser.add_argument("--on_bad_audio", choices=["raise", "skip"], default="raise")
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--device", help="cpu, cuda, ...; default: what there is")
    return parser.parse_args(argv)


def load_pipeline(model, device=None):
    """The checkpoint's pipeline, or its classifier, run by this package's code."""
    from pathlib import Path

    from modeling_gemoclap import (
        GEmoClapConfig,
        GEmoClapFeatureExtractor,
        GEmoClapForAudioClassification,
        GEmoClapModel,
        GEmoClapProcessor,
        ZeroShotEmotionPipeline,
    )
    from modeling_gemoclap.evaluation.classifier import AudioClassifier
    from modeling_gemoclap.towers_gemoclap import load_whole

    if Path(model, "adapter_config.json").is_file():
        raise ValueError(f"{model} is a LoRA adapter: give the folder of its run, in which the updates are merged")
    if Path(model).exists() and not Path(model, "config.json").is_file():
        raise ValueError(f"{model}: no config.json there; give the folder of a checkpoint")
    if "GEmoClapForAudioClassification" in (GEmoClapConfig.from_pretrained(model).architectures or []):
        extractor = GEmoClapFeatureExtractor.from_pretrained(model)
        return AudioClassifier(load_whole(GEmoClapForAudioClassification, model), extractor, device)
    loaded = load_whole(GEmoClapModel, model)
    processor = GEmoClapProcessor.from_pretrained(model)
    return ZeroShotEmotionPipeline(model=loaded, processor=processor, device=device)


def main(argv):
    """Load, judge, write."""
    import shlex
    from pathlib import Path

    from modeling_gemoclap.corpora.manifest import load_corpus
    from modeling_gemoclap.evaluation.answers import evaluate_clips
    from modeling_gemoclap.evaluation.report import as_table, results_record, write_report

    arguments = parse(argv)
    pipe = load_pipeline(arguments.model, arguments.device)
    emotions = pipe.model.config.emotions
    corpus = load_corpus(arguments.data_dir, arguments.corpus_name, emotions)
    corpus = corpus.of_speakers(arguments.speakers, arguments.exclude_speakers)
    corpus = corpus.of_emotions(emotions, arguments.drop_other_emotions)
    evaluation = evaluate_clips(
        pipe, corpus, arguments.batch_size, arguments.on_bad_audio, arguments.allow_seen_speakers
    )
    record = results_record(evaluation, corpus, arguments.model, shlex.join(["python", "evaluate.py", *argv]))
    output_dir = Path(arguments.output_dir or Path("results", Path(arguments.model).name, corpus.name))
    write_report(record, evaluation, output_dir)
    print(f"\n{corpus.name}, {record['protocol']}\n\n{as_table(record)}\n")
    if evaluation.skipped:
        print(f"{len(evaluation.skipped)} clips were skipped:\n  " + "\n  ".join(evaluation.skipped))
    print(f"Confusion matrix: {output_dir / 'confusion_matrix.png'}; all else: {output_dir}")


if __name__ == "__main__":
    import os

    try:
        main(sys.argv[1:])
    except (ValueError, ImportError, OSError) as error:
        if os.environ.get("GEMOCLAP_TRACEBACK"):
            raise
        sys.exit(f"evaluate.py: {error}")
