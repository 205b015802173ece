"""Train a linear model on openSMILE's functionals, on the clips and folds of the rows in docs/evidence.md.

    pip install -e '.[train,opensmile]' -c constraints.txt
    python benchmarks/opensmile_baseline.py --corpora CORPORA

openSMILE's licence forbids commercial use, so it is an extra of its own, which no other extra includes. Features are
standardised with the mean and deviation of the training speakers. A linear SVM or logistic regression and its C are
chosen by UAR in folds of training speakers. Test speakers are used for no statistic and no choice. The results go to
docs/evidence/opensmile.json, a record for each row and set of features with its figures, intervals, seeds, command and
seconds; `benchmarks/evidence.py` writes them into the documents. Without further options all rows are run. Records of
rows that are not named are kept.
"""

from __future__ import annotations

import shlex
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from itertools import product
from pathlib import Path

import numpy as np
from evidence_folds import corpora_of, folds_of
from evidence_plan import PLAN
from evidence_record import figures_of, load
from harness import EVIDENCE, parser_of
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from modeling_gemoclap.corpora.catalogue import where_to_get
from modeling_gemoclap.corpora.files import write_json
from modeling_gemoclap.corpora.manifest import Corpus, load_corpus
from modeling_gemoclap.evaluation.statistics import Predictions

SETS = {"eGeMAPS": "eGeMAPSv02", "ComParE": "ComParE_2016"}
STRENGTHS = [1e-4, 1e-3, 1e-2, 1e-1, 1.0]
FOLDS = 3  # of training speakers


def refuse_missing_opensmile() -> None:
    """Stop if openSMILE is not installed, before any recording is read."""
    try:
        version("opensmile")
    except PackageNotFoundError:
        sys.exit(
            "opensmile_baseline.py: openSMILE is not installed: pip install -e '.[opensmile]' -c constraints.txt (its "
            "licence forbids commercial use, so no other extra includes it)"
        )


def functionals(corpus: Corpus, name: str, cache: Path) -> dict[str, np.ndarray]:
    """The functionals of each clip by file name, read from the file `cache` or computed and written there.

    Args:
        corpus: The clips.
        name: Name of the set of features in `opensmile.FeatureSet`.
        cache: The file, of this corpus and set.
    """
    if not cache.is_file():
        import opensmile

        level = opensmile.FeatureLevel.Functionals
        smile = opensmile.Smile(getattr(opensmile.FeatureSet, name), level, num_workers=1)
        values = np.stack([smile.process_file(path).to_numpy()[0] for path in corpus.clips["path"]])
        cache.parent.mkdir(parents=True, exist_ok=True)
        np.savez(cache, file_name=np.array(corpus.clips["file_name"]), values=values.astype(np.float32))
    arrays = np.load(cache, allow_pickle=False)
    return dict(zip(arrays["file_name"], arrays["values"], strict=True))


def predict(training: Corpus, test: Corpus, features: dict, labels: list[str]) -> np.ndarray:
    """One-hot predictions for the test clips, `(clips, labels)`, by a model fitted and tuned on the training part."""
    train_x, test_x = (np.stack([features[name] for name in part.clips["file_name"]]) for part in (training, test))
    # A linear model with an L2 penalty loses nothing by the rotation, and PCA is computed once for each fold.
    steps = [("scale", StandardScaler()), ("rotate", PCA(svd_solver="full")), ("model", None)]
    models = [
        SVC(kernel="linear", class_weight="balanced"),
        LogisticRegression(class_weight="balanced", max_iter=5000),
    ]
    grid = [{"model": [model], "model__C": STRENGTHS} for model in models]
    with tempfile.TemporaryDirectory() as memory:
        search = GridSearchCV(Pipeline(steps, memory=memory), grid, scoring="balanced_accuracy", cv=GroupKFold(FOLDS))
        search.fit(train_x, training.clips["emotion"], groups=training.clips["speaker_id"])
    return (search.predict(test_x)[:, None] == np.array(labels)).astype(float)


def pooled(folds: list[tuple[Corpus, np.ndarray]], labels: list[str]) -> Predictions:
    """The predictions of all folds together."""
    names = ("file_name", "speaker_id", "gender", "emotion")
    columns = [np.concatenate([np.array(test.clips[name]) for test, _ in folds]) for name in names]
    numbers = np.concatenate([np.full(len(test), number) for number, (test, _) in enumerate(folds)])
    truth = np.array([labels.index(emotion) for emotion in columns.pop()])
    return Predictions(labels, *columns, numbers, truth, np.concatenate([scores for _, scores in folds]))


def run_row(row: dict, features: dict[str, np.ndarray], corpora: dict[str, Corpus]) -> dict:
    """The figures of the linear model on a row's clips and folds; `features` are by file name."""
    start, seeds = time.perf_counter(), folds_of(row, corpora)
    labels = seeds[0][0][0].emotions
    runs = [
        pooled([(test, predict(training, test, features, labels)) for training, test in folds], labels)
        for folds in seeds
    ]
    # Where all seeds have the same folds, one of them stands for all: nothing else is random.
    return figures_of(runs) | {"seeds": row["seeds"][: len(runs)], "seconds": round(time.perf_counter() - start)}


def main() -> None:
    """Evaluate the named features and rows, and write the record after each."""
    rows = [name for name in PLAN["rows"] if name != "ravdess-zeroshot"]  # that row needs a text encoder
    parser = parser_of(__doc__)
    parser.add_argument("--corpora", type=Path, required=True, help="folder with emodb/, ravdess/ and nemo/")
    parser.add_argument("--output_dir", type=Path, default=Path("runs/opensmile"), help="folder of the features")
    parser.add_argument("--features", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument("--rows", nargs="+", default=rows, choices=rows)
    options = parser.parse_args()
    refuse_missing_opensmile()
    names = sorted({name for row in options.rows for name in corpora_of(PLAN["rows"][row])})
    for name in names:
        if not (options.corpora / name).is_dir():
            sys.exit(f"opensmile_baseline.py: no folder {name} in --corpora {options.corpora}{where_to_get(name)}")
    corpora = {name: load_corpus(options.corpora / name) for name in names}
    results = load("opensmile") or {"rows": {}}
    for name, row in product(options.features, options.rows):
        features = {}  # of all corpora of the row, whose file names differ
        for corpus in corpora_of(PLAN["rows"][row]):
            path = options.output_dir / f"{corpus}-{SETS[name]}.npz"
            features |= functionals(corpora[corpus], SETS[name], path)
        results["rows"].setdefault(row, {})[name] = record = run_row(PLAN["rows"][row], features, corpora)
        command = ["python", "benchmarks/opensmile_baseline.py", "--corpora", "CORPORA"]
        record["command"] = shlex.join([*command, "--features", name, "--rows", row])
        print(f"{row}, {name}: UAR {record['uar']:.4f}, WAR {record['war']:.4f}", flush=True)
        results["command"] = shlex.join(command)
        results["versions"] = {package: version(package) for package in ("opensmile", "scikit-learn", "numpy")}
        write_json(EVIDENCE / "opensmile.json", results)


if __name__ == "__main__":
    main()
