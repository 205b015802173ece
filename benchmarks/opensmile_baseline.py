"""openSMILE's functionals under a linear SVM, on the clips and folds of docs/evidence.md's rows.

    pip install opensmile==2.6.0
    python benchmarks/opensmile_baseline.py --corpora CORPORA --output_dir runs/opensmile

openSMILE's licence forbids commercial use, so it is no dependency of this project: install it into an environment of
its own, beside the project. Functionals are computed once and kept in --output_dir.

Features are standardised by the training speakers' mean and deviation. The SVM's C is chosen by UAR in folds of
training speakers. No statistic and no choice comes from test speakers. What was found goes into
docs/evidence/opensmile.json, from where `benchmarks/evidence.py` writes it beside the rows.
"""

from __future__ import annotations

import argparse
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
from evidence_markdown import FOUND
from evidence_runs import PLAN, ROOT
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

sys.path.insert(0, str(ROOT))

from modeling_gemoclap.corpora.files import write_json  # noqa: E402
from modeling_gemoclap.corpora.manifest import Corpus, load_corpus  # noqa: E402
from modeling_gemoclap.corpora.protocols import protocol_of  # noqa: E402
from modeling_gemoclap.evaluation.statistics import (  # noqa: E402
    Judged,
    fairness,
    intervals,
    mean_scores,
    scores_of,
    speaker_confusions,
)

SETS = {"eGeMAPS": "eGeMAPSv02", "ComParE": "ComParE_2016"}
STRENGTHS = [1e-4, 1e-3, 1e-2, 1e-1, 1.0]
INNER_FOLDS = 3


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


def option(words: list, name: str) -> str | list[str] | None:
    """What stands behind an option of the plan: a word, a list of words, or None."""
    if name not in words:
        return None
    rest = [str(word) for word in words[words.index(name) + 1 :]]
    end = next((place for place, word in enumerate(rest) if word.startswith("--")), len(rest))
    return rest[0] if end == 1 else rest[:end]


def answer(training: Corpus, test: Corpus, features: dict, labels: list[str]) -> np.ndarray:
    """One-hot answers to the test clips, `(clips, labels)`, by an SVM that is fitted and tuned on the training part."""
    heard, asked = (np.stack([features[name] for name in part.clips["file_name"]]) for part in (training, test))
    svm = make_pipeline(StandardScaler(), SVC(kernel="linear", class_weight="balanced", cache_size=500))
    inner = GroupKFold(min(INNER_FOLDS, len(training.speakers)))
    search = GridSearchCV(svm, {"svc__C": STRENGTHS}, scoring="balanced_accuracy", cv=inner)
    search.fit(heard, training.clips["emotion"], groups=training.clips["speaker_id"])
    return (search.predict(asked)[:, None] == np.array(labels)).astype(float)


def judged(parts: list[tuple[Corpus, np.ndarray]], labels: list[str]) -> Judged:
    """The answers of all folds, pooled."""
    names = ("file_name", "speaker_id", "gender", "emotion")
    columns = [np.concatenate([np.array(part.clips[name]) for part, _ in parts]) for name in names]
    folds = np.concatenate([np.full(len(part), fold) for fold, (part, _) in enumerate(parts)])
    truth = np.array([labels.index(emotion) for emotion in columns.pop()])
    return Judged(labels, *columns, folds, truth, np.concatenate([scores for _, scores in parts]))


def run_row(row: dict, features: dict[str, dict], corpora: dict[str, Corpus]) -> dict:
    """A row of the plan by the SVM: on the same folds, or trained on one corpus and judged on the other."""
    corpus = corpora[Path(option(row["train"], "--data_dir")).name]
    target = corpora[Path(option(row["judge"], "--data_dir")).name] if "judge" in row else None
    emotions = option(row["train"], "--emotions")
    corpus, target = (one and emotions and one.of_emotions(emotions, drop_others=True) or one for one in (corpus, target))
    labels, runs = sorted(emotions or corpus.emotions), []
    for seed in row["seeds"] if target is None else [0]:
        if target is not None:
            pairs = [(corpus, target)]
        else:
            folds_file = option(row["train"], "--folds_file")
            protocol = protocol_of(
                option(row["train"], "--protocol"), corpus, seed, folds_file and ROOT / folds_file
            )
            pairs = [(protocol.training(corpus, k), protocol.test(corpus, k)) for k in range(len(protocol.folds))]
        known = features[corpus.name] | (features[target.name] if target else {})
        runs.append(judged([(test, answer(training, test, known, labels)) for training, test in pairs], labels))
        if "--protocol" in row["train"] and option(row["train"], "--protocol") == "leave-one-speaker-out":
            break  # every seed has the same folds, and the SVM draws nothing
    return {
        "n": len(runs[0]),
        "speakers": len(set(runs[0].speakers)),
        **mean_scores(runs),
        "intervals": intervals(runs),
        "per_seed": [{name: scores_of(one)[name] for name in ("uar", "war")} for one in runs],
        "fairness": fairness(runs),
        "labels": labels,
        "speaker_confusions": speaker_confusions(runs),
    }


def main() -> None:
    """Compute what is named, and write it down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpora", type=Path, required=True, help="folder that holds emodb/ and ravdess/")
    parser.add_argument("--output_dir", type=Path, default=Path("runs/opensmile"))
    parser.add_argument("--features", nargs="+", default=list(SETS), choices=list(SETS))
    rows = [name for name in PLAN["rows"] if name != "ravdess-zeroshot"]  # which asks for words
    parser.add_argument("--rows", nargs="+", default=rows, choices=rows)
    options = parser.parse_args()
    corpora = {name: load_corpus(options.corpora / name) for name in ("emodb", "ravdess")}
    path = FOUND / "opensmile.json"
    from evidence_markdown import load

    found = load("opensmile") or {"rows": {}}
    for name in options.features:
        features = {
            corpus: functionals(one, SETS[name], options.output_dir / f"{corpus}-{SETS[name]}.npz")
            for corpus, one in corpora.items()
        }
        for row in options.rows:
            begun = time.monotonic()
            found["rows"].setdefault(row, {})[name] = record = run_row(PLAN["rows"][row], features, corpora)
            print(f"{row}, {name}: UAR {record['uar']:.4f}, WAR {record['war']:.4f}, {time.monotonic() - begun:.0f} s")
            found["command"] = "python benchmarks/opensmile_baseline.py --corpora CORPORA"
            found["versions"] = {one: version(one) for one in ("opensmile", "scikit-learn", "numpy")}
            write_json(path, found)


if __name__ == "__main__":
    main()
