"""The answers of a checkpoint for the same recordings, asked for in different ways."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
import torch

TOLERANCE = 1e-4
RATE = 16000


class Answers:
    """Answers of one checkpoint for some recordings.

    Args:
        model: `base` or `compact`.
        paths: The recordings.
        folder: An empty folder.
        chance: Random numbers.
    """

    def __init__(self, model: str, paths: list[Path], folder: Path, chance: random.Random):
        from modeling_gemoclap.inference.loading import load_pipeline

        self.model, self.paths, self.folder, self.chance = model, paths, folder, chance
        torch.set_num_threads(1)
        self.pipe = load_pipeline(model, "cpu")
        self.labels = list(self.pipe.model.config.emotions)
        alone = [self.of_pipeline([path], 1) for path in paths]  # (labels + dimensions,) of each
        self.reference = np.concatenate(alone)

    def of_pipeline(self, paths: list[Path], batch_size: int) -> np.ndarray:
        """Scores and embedding of each recording, `(recordings, labels + dimensions)`."""
        rows = []
        for answer in self.pipe([str(path) for path in paths], batch_size=batch_size, return_embeddings=True):
            scores = {entry["label"]: entry["score"] for entry in answer["emotion"]}
            rows.append(np.concatenate([[scores[label] for label in self.labels], answer["embedding"]]))
        return np.array(rows)

    def compare_batches(self, batch_size: int, threads: int) -> float:
        """Another batch size, order and number of threads."""
        order = self.chance.sample(range(len(self.paths)), len(self.paths))
        torch.set_num_threads(threads)
        try:
            found = self.of_pipeline([self.paths[index] for index in order], batch_size)
        finally:
            torch.set_num_threads(1)
        return self.refuse_difference(found, self.reference[order])

    @staticmethod
    def refuse_difference(found: np.ndarray, expected: np.ndarray) -> float:
        """The largest difference, which must not exceed the tolerance."""
        largest = float(np.abs(found - expected).max())
        if not largest <= TOLERANCE:
            raise AssertionError(f"answers differ by {largest:.2e}")
        return largest

    def compare_timeline(self) -> float:
        """A timeline of all recordings in one, in batches and chunks of other sizes."""
        from modeling_gemoclap.inference.stream import EmotionStream
        from modeling_gemoclap.inference.timeline import TimelineOptions, timeline

        waves = [soundfile.read(path, dtype="float32", always_2d=True) for path in self.paths[:8]]
        wave = np.concatenate([frames[:, 0] for frames, rate in waves if rate == waves[0][1]])
        rate = waves[0][1]
        options = [TimelineOptions(vad="level", batch_size=size) for size in (1, 16)]
        tables = [list(timeline(self.pipe, {"array": wave, "sampling_rate": rate}, each)) for each in options]
        stream, start, found = EmotionStream(self.pipe, options[1]), 0, []
        while start < len(wave):
            size = self.chance.randrange(1, 2 * rate)
            found += stream.push(wave[start : start + size], rate)
            start += size
        tables.append(found + stream.finish())
        shapes = {tuple((each.start, each.end, each.label) for each in table) for table in tables}
        if len(shapes) > 1:
            raise AssertionError(f"the segments differ: {[len(table) for table in tables]}")
        scores = [np.array([[each.scores[x] for x in self.labels] for each in table]) for table in tables]
        return max(self.refuse_difference(other, scores[0]) for other in scores[1:])

    def compare_export(self) -> Iterator[float]:
        """The ONNX file: one recording at a time and in a padded batch, with one and two threads."""
        import onnxruntime

        from modeling_gemoclap.inference.export import export_onnx
        from modeling_gemoclap.recordings_gemoclap import read_audio

        path = self.folder / f"{self.model}.onnx"
        export_onnx(self.pipe, path)
        read = [(number, *read_audio(str(path))) for number, path in enumerate(self.paths)]
        chosen = [(number, wave) for number, wave, rate in read if rate == RATE][:6]
        waves = [wave for _, wave in chosen]
        expected = self.reference[[number for number, _ in chosen], : len(self.labels)]
        for threads in (1, 2):
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = threads
            session = onnxruntime.InferenceSession(path, options)
            lengths = np.array([len(wave) for wave in waves])
            padded = np.stack([np.pad(wave, (0, lengths.max() - len(wave))) for wave in waves])
            one = [session.run(["scores"], {"waveform": w[None], "lengths": np.array([len(w)])})[0] for w in waves]
            yield self.refuse_difference(np.concatenate(one), expected)
            yield self.refuse_difference(
                session.run(["scores"], {"waveform": padded, "lengths": lengths})[0], expected
            )
