"""SIGTERM, with which a cluster announces the end of a job: training saves a checkpoint and stops."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ..training.trainer import SpeechTrainer


@contextmanager
def checkpoint_on_sigterm(trainer: SpeechTrainer) -> Iterator[None]:
    """Within this context, training stops after SIGTERM at the end of the step, when its checkpoint is complete.

    One process that gets the signal is enough to stop all of them at the same step. transformers' own
    `--enable_jit_checkpoint` decides in each process alone, saves in the middle of a step, and ends as if the training
    were finished, so it is refused.

    Args:
        trainer: The trainer. Its `train` raises a `TerminatedError`, after which the exit status is 143.
    """
    if threading.current_thread() is not threading.main_thread():  # only the main thread may handle signals
        yield
        return

    def request(number, frame) -> None:
        trainer.request_stop()

    before = signal.signal(signal.SIGTERM, request)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)
