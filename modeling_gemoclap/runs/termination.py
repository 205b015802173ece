"""SIGTERM, with which a cluster announces the end of a job: training saves a checkpoint and stops."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from transformers.utils import logging

from ..command_line.failures import TerminatedError, failure_message
from ..training.trainer import SpeechTrainer

logger = logging.get_logger(__name__)


@contextmanager
def checkpoint_on_sigterm(trainer: SpeechTrainer) -> Iterator[None]:
    """Within this context, training stops after SIGTERM at the end of the step, when its checkpoint is complete.

    One process that gets the signal is enough to stop all of them at the same step. transformers' own
    `--enable_jit_checkpoint` decides in each process alone, saves in the middle of a step, and ends as if the training
    were finished, so it is refused.

    A signal after the last step ends the process when the training has returned. A handler of the caller is called
    too, and then decides what follows. Where the caller ignores SIGTERM, it stays ignored.

    Args:
        trainer: The trainer. Its `train` raises a `TerminatedError`, after which the exit status is 143.
    """
    main = threading.current_thread() is threading.main_thread()  # only the main thread may handle signals
    before = signal.getsignal(signal.SIGTERM)
    if not main or before == signal.SIG_IGN:
        yield
        return
    pending = False

    def request(number, frame) -> None:
        nonlocal pending
        trainer.request_stop()
        if callable(before):
            before(number, frame)
        else:
            pending = True

    signal.signal(signal.SIGTERM, request)
    try:
        yield
    except TerminatedError:
        pending = False
        raise
    except Exception as error:
        if pending:  # the signal would hide the error
            logger.error(failure_message(error) or "the training failed:", exc_info=not failure_message(error))
        raise
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)
        if pending:  # no step has followed that could stop
            os.kill(os.getpid(), signal.SIGTERM)
