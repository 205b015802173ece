"""Scales beyond their bound and damaged weights: finite scores, or an error that says so."""

from __future__ import annotations

import copy
import itertools

import numpy as np
import torch
from attack import Attack
from fuzz_listening import pipe_of
from numerics_statistics import NotFinite, finite_or_refused

RATE = 16000


def attack_damage(attack: Attack) -> None:
    """Scales beyond their bound and damaged weights: finite scores, or an error that says so."""
    pipe = copy.copy(pipe_of("compact"))
    tone = {"array": 0.3 * np.sin(np.arange(8000) / 9), "sampling_rate": RATE}
    values = (0.0, 4.6, 4.7, 88.0, 1e4, 3e38, -50.0, -200.0, -3e38, float("inf"), -float("inf"), float("nan"))
    for value in values:
        with attack.case("logit scales of damaged checkpoints", str(value)):
            pipe.model = copy.deepcopy(pipe_of("compact").model)
            with torch.no_grad():
                pipe.model.audio_logit_scale.fill_(value)
            finite_or_refused(lambda value=value: _scores(pipe, tone, value))
    names = [name for name, _ in pipe_of("compact").model.named_parameters()]
    names = names[:: 9 if attack.options.small else 1]
    for name, value in itertools.product(names, (float("nan"), float("inf"), 1e30)):
        with attack.case("weights of damaged checkpoints", f"{name} {value}"):
            pipe.model = copy.deepcopy(pipe_of("compact").model)
            with torch.no_grad():
                dict(pipe.model.named_parameters())[name].view(-1)[0] = value
            finite_or_refused(lambda: _scores(pipe, tone, 1.0))


def _scores(pipe, recording: dict, log_scale: float) -> None:
    scores = [answer["score"] for answer in pipe(recording)]
    if not np.isfinite(scores).all() or not abs(sum(scores) - 1) < 1e-3:
        raise NotFinite(f"scores {scores}")
    if max(scores) == min(scores) and log_scale > -20:
        raise NotFinite(f"all scores are {scores[0]}")
