"""Statistics, calibration and measurements of degenerate input: finite numbers, None, or a clear error."""

from __future__ import annotations

import itertools
import math
import warnings

import numpy as np
import torch
from attack import Attack

from modeling_gemoclap.command_line.failures import failure_message

CLIPS, LABELS = 12, ["angry", "happy", "sad"]


def predictions_of(scores: str, speakers: int, truth: str, genders: str = "both", clips: int = CLIPS):
    """Predictions for clips, with scores, speakers and true emotions of a kind."""
    from modeling_gemoclap.evaluation.statistics import Predictions

    places = np.arange(clips)
    values = np.random.default_rng(0).dirichlet([1, 1, 1], clips)
    if scores == "constant":
        values = np.full((clips, 3), 1 / 3)
    elif scores == "certain":
        values = np.eye(3)[places % 3]
    elif scores == "tiny":
        values = np.tile([1 - 2e-300, 1e-300, 1e-300], (clips, 1))
    true = {"one class": places * 0, "a class with one clip": (places == 0).astype(int), "mixed": places % 3}[truth]
    sexes = np.array(["female", "male"])[places % speakers % 2] if genders == "both" else np.full(clips, genders)
    names = [f"s{place % speakers}" for place in places]
    files = np.array([f"{n}.wav" for n in places])
    return Predictions(LABELS, files, np.array(names), sexes, places % 2, true, values)


class NotFinite(Exception):
    """A number of an answer is NaN or infinite."""


def check_numbers(value, where: str = "") -> None:
    """Check that all numbers in a nested result are finite; None is a valid answer.

    Raises:
        NotFinite: If one is not.
    """
    if isinstance(value, dict):
        for name, item in value.items():
            check_numbers(item, f"{where}.{name}")
    elif isinstance(value, (list, tuple)):
        for number, item in enumerate(value):
            check_numbers(item, f"{where}[{number}]")
    elif isinstance(value, (float, np.floating)) and not math.isfinite(value):
        raise NotFinite(f"{where} is {value}")


def finite_or_refused(run) -> None:
    """Run something whose numbers must be finite, or that must raise an error with a message for the user.

    Raises:
        NotFinite: If a number is not finite, or the error has no message for the user.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            check_numbers(run())
    except NotFinite:
        raise
    except Exception as error:
        if failure_message(error) is None:
            raise NotFinite(f"{type(error).__name__}: {error}") from error


def attack_statistics(attack: Attack) -> None:
    """Metrics, intervals, fairness, calibration, rejection and comparisons of degenerate predictions."""
    from modeling_gemoclap.evaluation import rejection, statistics
    from modeling_gemoclap.evaluation.comparison import compare

    functions = {
        "scores_of": lambda runs: statistics.scores_of(runs[0]),
        "over_folds": statistics.over_folds,
        "intervals": statistics.intervals,
        "recall_intervals": statistics.recall_intervals,
        "fairness": statistics.fairness,
        "calibration": statistics.calibration,
        "rejection": rejection.rejection,
        "compare": lambda runs: compare(runs[:1], runs[1:]),
    }
    kinds = ("random", "constant", "certain", "tiny"), (1, 2, 6, 12), ("one class", "a class with one clip", "mixed")
    for name, scores, speakers, truth, clips in itertools.product(functions, *kinds, (1, 2, CLIPS)):
        if attack.options.small and (clips == 2 or scores == "certain" or speakers == 2 or truth == "mixed"):
            continue
        for genders in ("both", "female", ""):
            with attack.case("statistics of evaluations", f"{name} {scores} {speakers} {truth} {clips} {genders!r}"):
                first = predictions_of(scores, speakers, truth, genders, clips)
                second = predictions_of("random", speakers, truth, genders, clips)
                finite_or_refused(lambda name=name, pair=[first, second]: functions[name](pair))


def attack_calibration(attack: Attack) -> None:
    """The temperature of degenerate logits: a positive number, None, or a clear error."""
    from modeling_gemoclap.runs.calibration import temperature_of

    logits = {
        "zero": torch.zeros(6, 3),
        "constant": torch.full((6, 3), 7.0),
        "right": 20 * torch.eye(3).repeat(2, 1),
        "wrong": -20 * torch.eye(3).repeat(2, 1),
        "huge": 3e38 * torch.randn(6, 3, generator=torch.Generator().manual_seed(0)).clamp(-1, 1),
        "tiny": 1e-38 * torch.randn(6, 3, generator=torch.Generator().manual_seed(0)),
        "half precision": 6e4 * torch.randn(6, 3, generator=torch.Generator().manual_seed(0)).clamp(-1, 1).half(),
        "NaN": torch.full((6, 3), float("nan")),
        "infinite": torch.full((6, 3), float("-inf")),
        "one clip": torch.tensor([[1.0, 0.0, 0.0]]),
        "one class": torch.randn(6, 1),
    }
    for name, values in logits.items():
        for truth in ([0, 1, 2, 0, 1, 2], [0] * 6, [-1] * 6, [0, -1, -1, -1, -1, -1]):
            with attack.case("calibration", f"{name} {truth}"):
                labels = torch.tensor(truth[: len(values)]).clamp_max(values.shape[1] - 1)
                finite_or_refused(lambda values=values, labels=labels: temperature_of(values, labels))
