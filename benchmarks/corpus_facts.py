"""Measure the recordings that docs/evidence.md describes and write docs/evidence/corpora.json.

python benchmarks/corpus_facts.py --corpora CORPORA
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import soundfile
from documents import render
from harness import EVIDENCE, parser_of
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import LeaveOneGroupOut, cross_val_predict
from sklearn.naive_bayes import MultinomialNB
from sklearn.preprocessing import OneHotEncoder

from modeling_gemoclap.corpora.files import write_json
from modeling_gemoclap.corpora.manifest import Corpus, load_corpus


def sentence_uar(corpus: Corpus) -> float:
    """The UAR of naive Bayes that knows the sentence of a clip and no sound, leaving one speaker out."""
    sentences = OneHotEncoder().fit_transform(np.array(corpus.clips["transcript"])[:, None])
    emotions, model = np.array(corpus.clips["emotion"]), MultinomialNB(fit_prior=False)
    folds = {"groups": corpus.clips["speaker_id"], "cv": LeaveOneGroupOut()}
    return float(balanced_accuracy_score(emotions, cross_val_predict(model, sentences, emotions, **folds)))


def facts_of(corpus: Corpus) -> dict:
    """Clips, speakers, minutes, median level, identical recordings, and what the sentence alone tells.

    Returns:
        A dict; `level` is the median over clips of the root mean square in dB relative to full scale.
    """
    seconds, levels, files = 0.0, [], defaultdict(list)
    for path, name in zip(corpus.clips["path"], corpus.clips["file_name"], strict=True):
        wave, rate = soundfile.read(path)
        seconds += len(wave) / rate
        levels.append(20 * np.log10(np.sqrt(np.mean(wave**2))))
        files[hashlib.sha256(wave.tobytes()).hexdigest()].append(Path(name).stem)
    return {
        "sentence_uar": sentence_uar(corpus),
        "sentences": len(set(corpus.clips["transcript"])),
        "clips": len(corpus),
        "speakers": len(corpus.speakers),
        "minutes": seconds / 60,
        "level": float(np.median(levels)),
        "clips_of_an_emotion": dict(sorted(Counter(corpus.clips["emotion"]).items())),
        "identical": [names for names in files.values() if len(names) > 1],
    }


def main() -> None:
    """Measure, write the record and print the table."""
    parser = parser_of(__doc__)
    parser.add_argument("--corpora", type=Path, required=True, help="folder with emodb/, ravdess/ and nemo/")
    folder = parser.parse_args().corpora
    facts = {name: facts_of(load_corpus(folder / name)) for name in ("emodb", "ravdess", "nemo")}
    command = "python benchmarks/corpus_facts.py --corpora CORPORA"
    write_json(EVIDENCE / "corpora.json", {"corpora": facts, "command": command})
    print(render("corpora", part={"corpora": facts}))


if __name__ == "__main__":
    main()
