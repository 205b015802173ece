"""The clips and folds of a row of the plan, for whoever compares another model on them."""

from __future__ import annotations

import sys
from pathlib import Path

from evidence_runs import ROOT

sys.path.insert(0, str(ROOT))

from modeling_gemoclap.corpora.manifest import Corpus  # noqa: E402
from modeling_gemoclap.corpora.protocols import protocol_of  # noqa: E402


def option(words: list, name: str) -> str | list[str] | None:
    """What stands behind an option of the plan: a word, a list of words, or None."""
    if name not in words:
        return None
    rest = [str(word) for word in words[words.index(name) + 1 :]]
    end = next((place for place, word in enumerate(rest) if word.startswith("--")), len(rest))
    return rest[0] if end == 1 else rest[:end]


def parts_of(row: dict, corpora: dict[str, Corpus]) -> list[list[tuple[Corpus, Corpus]]]:
    """What a row of the plan trains on and judges: a list of folds for each seed."""
    emotions = option(row["train"], "--emotions")

    def corpus_of(words: list) -> Corpus:
        corpus = corpora[Path(option(words, "--data_dir")).name]
        return corpus.of_emotions(emotions, drop_others=True) if emotions else corpus

    corpus, name = corpus_of(row["train"]), option(row["train"], "--protocol")
    if "judge" in row:
        return [[(corpus, corpus_of(row["judge"]))]]  # the linear models draw nothing: one seed is all seeds
    folds_file = option(row["train"], "--folds_file")
    protocols = [protocol_of(name, corpus, seed, folds_file and ROOT / folds_file) for seed in row["seeds"]]
    alike = all(protocol.folds == protocols[0].folds for protocol in protocols)
    return [
        [(protocol.training(corpus, fold), protocol.test(corpus, fold)) for fold in range(len(protocol.folds))]
        for protocol in (protocols[:1] if alike else protocols)
    ]
