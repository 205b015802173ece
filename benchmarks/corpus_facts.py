"""Count, time and level of the recordings that docs/evidence.md speaks of, into docs/evidence/corpora.json.

python benchmarks/corpus_facts.py --corpora CORPORA
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import soundfile
from evidence_markdown import FOUND, markdown
from evidence_runs import ROOT

sys.path.insert(0, str(ROOT))

from modeling_gemoclap.corpora.files import write_json  # noqa: E402
from modeling_gemoclap.corpora.manifest import Corpus, load_corpus  # noqa: E402


def facts_of(corpus: Corpus) -> dict:
    """Clips, speakers, minutes, median level and recordings that occur twice.

    Returns:
        A dict; `level` is the median over clips of the root mean square in dB below full scale.
    """
    seconds, levels, files = 0.0, [], defaultdict(list)
    for path, name in zip(corpus.clips["path"], corpus.clips["file_name"], strict=True):
        wave, rate = soundfile.read(path)
        seconds += len(wave) / rate
        levels.append(20 * np.log10(np.sqrt(np.mean(wave**2))))
        files[hashlib.sha256(wave.tobytes()).hexdigest()].append(Path(name).stem)
    return {
        "clips": len(corpus),
        "speakers": len(corpus.speakers),
        "minutes": seconds / 60,
        "level": float(np.median(levels)),
        "clips_of_an_emotion": dict(sorted(Counter(corpus.clips["emotion"]).items())),
        "identical": [names for names in files.values() if len(names) > 1],
    }


def table(found: dict) -> str:
    """The facts as a table."""
    rows = [
        [name, *(str(one[key]) for key in ("clips", "speakers")), f"{one['minutes']:.1f}", f"{one['level']:.0f} dBFS"]
        + ["; ".join(", ".join(f"`{file}`" for file in files) for files in one["identical"]) or "none"]
        for name, one in found["corpora"].items()
    ]
    return markdown("corpus|clips|speakers|minutes|median level|identical recordings", rows)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpora", type=Path, required=True, help="folder that holds emodb/ and ravdess/")
    folder = parser.parse_args().corpora
    found = {name: facts_of(load_corpus(folder / name)) for name in ("emodb", "ravdess")}
    command = "python benchmarks/corpus_facts.py --corpora CORPORA"
    write_json(FOUND / "corpora.json", {"corpora": found, "command": command})
    print(table({"corpora": found}))


if __name__ == "__main__":
    main()
