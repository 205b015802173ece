"""openSMILE's functionals under a linear model, on the clips and folds of docs/evidence.md's rows.

    pip install opensmile==2.6.0
    python benchmarks/opensmile_baseline.py --corpora CORPORA --output_dir runs/opensmile

openSMILE's licence forbids commercial use, so it is no dependency of this project: install it into an environment of
its own, beside the project. Features are standardised by the training speakers' mean and deviation. A linear SVM or
logistic regression and its C are chosen by UAR in folds of training speakers. No statistic and no choice comes from
test speakers. `benchmarks/evidence.py` writes docs/evidence/opensmile.json beside the rows.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from importlib.metadata import version
from itertools import product
from pathlib import Path

import numpy as np
from evidence_folds import parts_of
from evidence_markdown import FOUND, load
from evidence_runs import PLAN, ROOT
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

sys.path.insert(0, str(ROOT))

from modeling_gemoclap.corpora.files import write_json  # noqa: E402
from modeling_gemoclap.corpora.manifest import Corpus, load_corpus  # noqa: E402
from modeling_gemoclap.evaluation.statistics import (  # noqa: E402
    Predictions,
    intervals,
    mean_scores,
    scores_of,
    speaker_confusions,
)

SETS = {"eGeMAPS": "eGeMAPSv02", "ComParE": "ComParE_2016"}
MODELS = (
    SVC(kernel="linear", class_weight="balanced"),
    LogisticRegression(class_weight="balanced", max_iter=5000),
)
STRENGTHS = [1e-4, 1e-3, 1e-2, 1e-1, 1.0]
FOLDS = 3  # of training speakers


def functionals(corpus: Corpus, name: str, kept: Path) -> dict[str, np.ndarray]:
    """The functionals of each clip, by file name; computed where `kept` does not hold them."""
    if not kept.is_file():
        import opensmile

        level = opensmile.FeatureLevel.Functionals
        smile = opensmile.Smile(getattr(opensmile.FeatureSet, name), level, num_workers=1)
        values = np.stack([smile.process_file(path).to_numpy()[0] for path in corpus.clips["path"]])
        kept.parent.mkdir(parents=True, exist_ok=True)
        np.savez(kept, file_name=np.array(corpus.clips["file_name"]), values=values.astype(np.float32))
    found = np.load(kept)
    return dict(zip(found["file_name"], found["values"], strict=True))


def answer(training: Corpus, test: Corpus, features: dict, labels: list[str]) -> np.ndarray:
    """One-hot answers to the test clips, `(clips, labels)`, by a model fitted and tuned on the training part."""
    heard, asked = (np.stack([features[name] for name in part.clips["file_name"]]) for part in (training, test))
    # the rotation by PCA loses nothing of what a linear model with an L2 penalty sees, and is computed once a fold
    steps = [("scale", StandardScaler()), ("rotate", PCA(svd_solver="full")), ("model", None)]
    models = [
        SVC(kernel="linear", class_weight="balanced"),
        LogisticRegression(class_weight="balanced", max_iter=5000),
    ]
    grid = [{"model": [model], "model__C": STRENGTHS} for model in models]
    with tempfile.TemporaryDirectory() as memory:
        search = GridSearchCV(Pipeline(steps, memory=memory), grid, scoring="balanced_accuracy", cv=GroupKFold(FOLDS))
        search.fit(heard, training.clips["emotion"], groups=training.clips["speaker_id"])
    return (search.predict(asked)[:, None] == np.array(labels)).astype(float)


def judged(parts: list[tuple[Corpus, np.ndarray]], labels: list[str]) -> Predictions:
    """The answers of all folds, pooled."""
    names = ("file_name", "speaker_id", "gender", "emotion")
    columns = [np.concatenate([np.array(part.clips[name]) for part, _ in parts]) for name in names]
    folds = np.concatenate([np.full(len(part), fold) for fold, (part, _) in enumerate(parts)])
    truth = np.array([labels.index(emotion) for emotion in columns.pop()])
    return Predictions(labels, *columns, folds, truth, np.concatenate([scores for _, scores in parts]))


def run_row(row: dict, features: dict[str, np.ndarray], corpora: dict[str, Corpus]) -> dict:
    """The figures of the linear model on a row's clips and folds; `features` are by corpus and file name."""
    seeds = parts_of(row, corpora)
    labels = seeds[0][0][0].emotions
    runs = [
        judged([(test, answer(training, test, features, labels)) for training, test in parts], labels)
        for parts in seeds
    ]
    return {
        "n": len(runs[0]),
        "speakers": len(set(runs[0].speakers)),
        **mean_scores(runs),
        "intervals": intervals(runs),
        "per_seed": [{name: scores_of(run)[name] for name in ("uar", "war")} for run in runs],
        "labels": labels,
        "speaker_confusions": speaker_confusions(runs),
    }


def main() -> None:
    """Compute what is named, and write it down."""
    rows = [name for name in PLAN["rows"] if name != "ravdess-zeroshot"]  # that one asks for words
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpora", type=Path, required=True, help="folder that holds emodb/ and ravdess/")
    parser.add_argument("--output_dir", type=Path, default=Path("runs/opensmile"))
    parser.add_argument("--features", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument("--rows", nargs="+", default=rows, choices=rows)
    options = parser.parse_args()
    corpora = {name: load_corpus(options.corpora / name) for name in ("emodb", "ravdess")}
    found = load("opensmile") or {"rows": {}}
    for name, row in product(options.features, options.rows):
        features = {}  # the corpora's file names differ
        for corpus, clips in corpora.items():
            features |= functionals(clips, SETS[name], options.output_dir / f"{corpus}-{SETS[name]}.npz")
        found["rows"].setdefault(row, {})[name] = record = run_row(PLAN["rows"][row], features, corpora)
        print(f"{row}, {name}: UAR {record['uar']:.4f}, WAR {record['war']:.4f}", flush=True)
        found["command"] = "python benchmarks/opensmile_baseline.py --corpora CORPORA"
        found["versions"] = {one: version(one) for one in ("opensmile", "scikit-learn", "numpy")}
        write_json(FOUND / "opensmile.json", found)


if __name__ == "__main__":
    main()
