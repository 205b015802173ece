"""Measure the precision of search by text and by example, and what similarity and margin say about a hit.

    python benchmarks/search_precision.py

The clips are those of Emo-DB's speakers 14 and 15 and all of RAVDESS, which the included checkpoints were not trained
on. A hit is correct if its labels are those of the query. Nothing is correct for the queries about other things.
"""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
from documents import render, write_section
from harness import parser_of
from sklearn.metrics import roc_auc_score

from modeling_gemoclap.inference.embeddings import embed_recordings
from modeling_gemoclap.inference.loading import load_pipeline
from modeling_gemoclap.inference.search import MAD_TO_STD, embed_query

CORPORA = {"emodb": ("14", "15"), "ravdess": None}
WORDS = {  # words that both checkpoints know, by emotion
    "angry": ("angry", "furious", "an irate voice"),
    "disgust": ("disgusted", "revolted", "a repelled voice"),
    "fear": ("fearful", "terrified", "an afraid voice"),
    "happy": ("happy", "joyful", "a cheerful voice"),
    "neutral": ("neutral", "unemotional", "an indifferent voice"),
    "sad": ("sad", "gloomy", "a sorrowful voice"),
}
GENDERS = {"female": "woman", "male": "man"}
OTHERS = (
    "a purple bicycle",
    "quantum chromodynamics",
    "a dog barking",
    "a slice of bread",
    "tax return",
    "the weather",
)
RANKS = (1, 5, 10)
BINS = ((-np.inf, 2), (2, 4), (4, 6), (6, np.inf))


def queries() -> list[tuple[str, str | None, str | None]]:
    """Text, emotion and gender of each query."""
    listed = [(text, emotion, None) for emotion, texts in WORDS.items() for text in texts]
    listed += [
        (f"a {WORDS[emotion][0]} {noun}", emotion, gender) for emotion in WORDS for gender, noun in GENDERS.items()
    ]
    return listed + [(text, None, None) for text in OTHERS]


def clips_of(name: str) -> list[tuple[str, str, str]]:
    """Path, emotion and gender of the clips of a corpus."""
    folder = Path(os.environ["GEMOCLAP_CORPORA"], name)
    with open(folder / "metadata.csv", encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if CORPORA[name] is None or row["speaker_id"] in CORPORA[name]]
    return [(str(folder / row["file_name"]), row["emotion"], row["gender"]) for row in rows]


def precision(correct: np.ndarray) -> list[float]:
    """Share of correct hits among the first of a ranking, for each of `RANKS`."""
    return [float(correct[:rank].mean()) for rank in RANKS]


def by_text(pipe, embeddings: np.ndarray, emotions: np.ndarray, genders: np.ndarray) -> dict:
    """Precision by kind of query, and similarity, margin and correctness of the first ten hits of every query."""
    kinds: dict[str, list] = {"emotion": [], "emotion and gender": []}
    hits: list[tuple[float, float, bool]] = []
    for text, emotion, gender in queries():
        similarities = embeddings @ embed_query(pipe, text)
        order = np.argsort(-similarities)[: max(RANKS)]
        correct = (emotions == emotion) & ((genders == gender) | (gender is None))
        deviations = similarities - np.median(similarities)
        margins = deviations / (MAD_TO_STD * np.median(np.abs(deviations)))
        hits += zip(similarities[order], margins[order], correct[order], strict=True)
        if emotion:
            kind = "emotion and gender" if gender else "emotion"
            kinds[kind].append([*precision(correct[order]), correct.mean()])
    similarities, margins, correct = (np.array(values) for values in zip(*hits, strict=True))
    bins = [(margins >= low) & (margins < high) for low, high in BINS]
    return {
        "kinds": {kind: np.mean(rows, axis=0).tolist() for kind, rows in kinds.items()},
        "auc": [roc_auc_score(correct, values) for values in (similarities, margins)],
        "bins": [(int(chosen.sum()), float(correct[chosen].mean()) if chosen.any() else None) for chosen in bins],
    }


def by_example(embeddings: np.ndarray, emotions: np.ndarray) -> list[float]:
    """Mean precision of the emotion, each clip being the query for the others, and that of a random order."""
    similarities = embeddings @ embeddings.T
    np.fill_diagonal(similarities, -np.inf)
    order = np.argsort(-similarities, axis=1)[:, : max(RANKS)]
    same = emotions[order] == emotions[:, None]
    chance = [(emotions == emotion).sum() - 1 for emotion in emotions]
    return [*np.mean([precision(row) for row in same], axis=0).tolist(), float(np.mean(chance) / (len(emotions) - 1))]


def main() -> None:
    """Measure, and write the section of RESULTS.md."""
    parser_of(__doc__).parse_args()
    results = []
    for model in ("base", "compact"):
        pipe = load_pipeline(model)
        for name in CORPORA:
            paths, *labels = zip(*clips_of(name), strict=True)
            emotions, genders = map(np.array, labels)
            embeddings = np.stack(list(embed_recordings(pipe, paths, 16)))
            measured = {"text": by_text(pipe, embeddings, emotions, genders), "like": by_example(embeddings, emotions)}
            results.append({"model": model, "corpus": name, "clips": len(paths), **measured})
    values = {"ranks": RANKS, "others": len(OTHERS), "queries": len(queries())}
    write_section("python benchmarks/search_precision.py", render("search_precision", results=results, **values))


if __name__ == "__main__":
    main()
