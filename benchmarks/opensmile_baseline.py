"""Train a linear model on openSMILE's functionals, on the clips and folds of the rows in docs/evidence.md.

    pip install opensmile==2.6.0
    python benchmarks/opensmile_baseline.py --corpora CORPORA --output_dir runs/opensmile

openSMILE's licence forbids commercial use, so it is not a dependency of this project: install it into a separate
environment, together with the project. Features are standardised with the mean and deviation of the training speakers.
A linear SVM or logistic regression and its C are chosen by UAR in folds of training speakers. Test speakers are used
for no statistic and no choice. The results go to docs/evidence/opensmile.json; `benchmarks/evidence.py` writes them
into the documents.
"""

from __future__ import annotations

import tempfile
from importlib.metadata import version
from itertools import product
from pathlib import Path

import numpy as np
from evidence_folds import folds_of
from evidence_record import figures_of, load
from evidence_runs import PLAN
from harness import EVIDENCE, parser_of
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from modeling_gemoclap.corpora.files import write_json
from modeling_gemoclap.corpora.manifest import Corpus, load_corpus
from modeling_gemoclap.evaluation.statistics import Predictions

SETS = {"eGeMAPS": "eGeMAPSv02", "ComParE": "ComParE_2016"}
STRENGTHS = [1e-4, 1e-3, 1e-2, 1e-1, 1.0]
FOLDS = 3  # of training speakers


def functionals(corpus: Corpus, name: str, cache: Path) -> dict[str, np.ndarray]:
    """The functionals of each clip by file name, read from the file `cache` or computed and written there."""
    if not cache.is_file():
        import opensmile

        level = opensmile.FeatureLevel.Functionals
        smile = opensmile.Smile(getattr(opensmile.FeatureSet, name), level, num_workers=1)
        values = np.stack([smile.process_file(path).to_numpy()[0] for path in corpus.clips["path"]])
        cache.parent.mkdir(parents=True, exist_ok=True)
        np.savez(cache, file_name=np.array(corpus.clips["file_name"]), values=values.astype(np.float32))
    arrays = np.load(cache)
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
    seeds = folds_of(row, corpora)
    labels = seeds[0][0][0].emotions
    runs = [
        pooled([(test, predict(training, test, features, labels)) for training, test in folds], labels)
        for folds in seeds
    ]
    return figures_of(runs)


def main() -> None:
    """Evaluate the named features and rows, and write the record after each."""
    rows = [name for name in PLAN["rows"] if name != "ravdess-zeroshot"]  # that row needs a text encoder
    parser = parser_of(__doc__)
    parser.add_argument("--corpora", type=Path, required=True, help="folder with emodb/ and ravdess/")
    parser.add_argument("--output_dir", type=Path, default=Path("runs/opensmile"), help="folder of the features")
    parser.add_argument("--features", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument("--rows", nargs="+", default=rows, choices=rows)
    options = parser.parse_args()
    corpora = {name: load_corpus(options.corpora / name) for name in ("emodb", "ravdess")}
    results = load("opensmile") or {"rows": {}}
    for name, row in product(options.features, options.rows):
        features = {}  # of both corpora, whose file names differ
        for corpus, clips in corpora.items():
            features |= functionals(clips, SETS[name], options.output_dir / f"{corpus}-{SETS[name]}.npz")
        results["rows"].setdefault(row, {})[name] = record = run_row(PLAN["rows"][row], features, corpora)
        print(f"{row}, {name}: UAR {record['uar']:.4f}, WAR {record['war']:.4f}", flush=True)
        results["command"] = "python benchmarks/opensmile_baseline.py --corpora CORPORA"
        results["versions"] = {package: version(package) for package in ("opensmile", "scikit-learn", "numpy")}
        write_json(EVIDENCE / "opensmile.json", results)


if __name__ == "__main__":
    main()
