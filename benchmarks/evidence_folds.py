"""The clips and folds of a row of the plan, for baselines that are trained and evaluated on the same."""

from __future__ import annotations

from pathlib import Path

from harness import ROOT

from modeling_gemoclap.corpora.manifest import Corpus
from modeling_gemoclap.corpora.protocols import protocol_of

PARTS = ("train", "judge", "zeroshot", "options")  # lists of options in a part of the plan


def option_of(words: list, name: str) -> str | list[str] | None:
    """The value of an option in a list of options: a word, a list of words, or None if the option is not there."""
    if name not in words:
        return None
    rest = [str(word) for word in words[words.index(name) + 1 :]]
    end = next((place for place, word in enumerate(rest) if word.startswith("--")), len(rest))
    return rest[0] if end == 1 else rest[:end]


def corpora_of(row: dict) -> list[str]:
    """The names of the folders of the corpora that a part of the plan names in its options."""
    words = [option_of(row[part], "--data_dir") for part in PARTS if part in row]
    folders = [[word] if isinstance(word, str) else word or [] for word in words]
    return list(dict.fromkeys(Path(folder).name for group in folders for folder in group))


def folds_of(row: dict, corpora: dict[str, Corpus]) -> list[list[tuple[Corpus, Corpus]]]:
    """The training and test part of each fold, for each seed; a single list if all seeds have the same folds.

    Args:
        row: A row of the plan.
        corpora: The corpora by the names of their folders.
    """
    emotions = option_of(row["train"], "--emotions")

    def corpus_of(words: list) -> Corpus:
        corpus = corpora[Path(option_of(words, "--data_dir")).name]
        return corpus.of_emotions(emotions, drop_others=True) if emotions else corpus

    corpus, name = corpus_of(row["train"]), option_of(row["train"], "--protocol")
    if "judge" in row:
        return [[(corpus, corpus_of(row["judge"]))]]
    folds_file = option_of(row["train"], "--folds_file")
    protocols = [protocol_of(name, corpus, seed, folds_file and ROOT / folds_file) for seed in row["seeds"]]
    same = all(protocol.folds == protocols[0].folds for protocol in protocols)
    return [
        [(protocol.training(corpus, fold), protocol.test(corpus, fold)) for fold in range(len(protocol.folds))]
        for protocol in (protocols[:1] if same else protocols)
    ]
