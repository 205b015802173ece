"""Attack on determinism: what must not change weights or answers is changed.

    python attacks/determinism.py --minutes 8 --record attacks/records/determinism.json

Weights of trainings with the same seed must be equal bit for bit with any number of workers, after a resumption, and
in any environment. Answers must not depend on batches, order, threads, processes or chunks by more than 1e-4.
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from attack import Attack, parse_options
from crash_training import Trainings
from determinism_answers import RATE
from determinism_programs import Programs
from determinism_training import ENVIRONMENTS, KINDS, Weights

SHARDS = "streamed Parquet shards"
Case = tuple[str, str, Callable[[], object]]


def recordings(folder: Path, chance: random.Random, count: int) -> list[Path]:
    """Recordings of the corpora of GEMOCLAP_CORPORA, or tones of several lengths."""
    corpora = os.environ.get("GEMOCLAP_CORPORA")
    if corpora:
        found = [sorted(Path(corpora, name).rglob("*.*")) for name in ("emodb", "ravdess")]
        paths = [path for paths in found for path in chance.sample(_audio(paths), count // 2)]
        return chance.sample(paths, len(paths))
    import numpy as np
    import soundfile

    folder.mkdir()
    paths = [folder / f"{number}.wav" for number in range(count)]
    for path in paths:
        time = np.arange(int(RATE * chance.uniform(0.4, 4.0))) / RATE
        soundfile.write(path, 0.1 * np.sin(2 * np.pi * chance.uniform(100, 2000) * time), RATE)
    return paths


def _audio(paths: list[Path]) -> list[Path]:
    return [path for path in paths if path.suffix in (".wav", ".flac")]


class Cases:
    """The cases, and the largest differences.

    Args:
        attack: The record.
        folder: An empty folder.
    """

    def __init__(self, attack: Attack, folder: Path):
        self.attack, self.folder, self.small = attack, folder, attack.options.small
        self.chance = random.Random(attack.options.seed)
        self.trainings = Trainings(folder)
        self.weights = Weights(self.trainings)

    def note(self, model: str, difference: float) -> None:
        """Keep the largest difference of the answers of a model."""
        name = f"largest difference of a score or a value of an embedding, {model}"
        self.attack.figures[name] = max(float(f"{difference:.2g}"), float(self.attack.figures.get(name, 0)))

    def of_trainings(self) -> Iterator[Case]:
        """Workers and environments."""
        kind = "the number of workers and a resumption"
        for variant in self.chance.sample(KINDS, 1) if self.small else KINDS:
            counts = ("0", "2") if self.small else ("0", "1", "2")
            yield kind, variant, lambda v=variant, c=counts: self.weights.compare_workers(v, c)
        if not self.small:
            yield kind, SHARDS, lambda: self.weights.compare_workers(SHARDS, ("0", "1"))
            for name in ENVIRONMENTS:
                kind = "hash seed, locale, time zone and folder of a training"
                yield kind, name, lambda n=name: self.weights.compare_environments((n,))

    def of_answers(self, model: str) -> Iterator[Case]:
        """Batches, order, threads, programs, timelines and exports of a checkpoint."""
        place = self.folder / model
        place.mkdir()
        paths = recordings(place / "tones", self.chance, 6 if self.small else 24)
        answers = Programs(model, paths, place, self.chance)
        sizes = ((3, 2),) if self.small else ((2, 1), (7, 2), (16, 1), (24, 2), (5, 1), (11, 2))
        for size, threads in sizes:
            what = f"{model}, batches of {size}, {threads} threads"
            yield (
                "the pipeline: batch size, order and threads",
                what,
                lambda s=size, t=threads: self.note(model, answers.compare_batches(s, t)),
            )
        yield "a timeline: batches and chunks", model, lambda: self.note(model, answers.compare_timeline())
        if self.small:
            return
        for processes, size, env in ((1, 16, {"OMP_NUM_THREADS": "2"}), (1, 3, {"PYTHONHASHSEED": "7"}), (2, 8, {})):
            yield (
                "gemoclap predict and embed: processes, threads, order of files",
                f"{model}, {processes} processes, {env}",
                lambda p=processes, s=size, e=env: self.note(model, answers.compare_command(p, s, **e)),
            )
        yield (
            "an exported ONNX file: batches and threads",
            model,
            lambda: [self.note(model, value) for value in answers.compare_export()],
        )
        yield "evaluate.py: batch size", model, lambda: self.note(model, answers.compare_evaluation(self.trainings))

    def __iter__(self) -> Iterator[Case]:
        models = ("compact",) if self.small else ("compact", "base")
        yield from self.of_trainings()
        for model in models:
            yield from self.of_answers(model)


def main() -> None:
    """Run the cases."""
    attack = Attack("determinism", parse_options(__doc__))
    with tempfile.TemporaryDirectory(prefix="determinism-") as folder:
        for kind, what, run in Cases(attack, Path(folder)):
            if attack.seconds_left() < 0:
                break
            with attack.case(kind, what):
                run()
    attack.finish()


if __name__ == "__main__":
    sys.exit(main())
