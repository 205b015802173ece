"""Whether an input ended in a result, or in an error of the package that names the file, within limits."""

from __future__ import annotations

import re
import signal
import traceback
from collections.abc import Callable
from pathlib import Path

SECONDS = 5  # processor time of one input
MEMORY = 400 * 2**20  # bytes that one input may add to the memory that is in use, beside MULTIPLE of its own size
MULTIPLE = 100
LONGEST_MESSAGE = 2000  # characters


class BrokenPromise(Exception):
    """An input did not end in a result or in an error that names its file."""


class TooSlow(BaseException):
    """The time of an input is over. It is no `Exception`, so that no handler of the package takes it."""


def judge(run: Callable[[], object], names: tuple[str, ...], size: int = 0) -> tuple[str, str, str]:
    """Run one input and check the promise.

    Args:
        run: Raises an error of the package for an input that cannot be used.
        names: Words of which the error must contain one, such as the name of the file.
        size: Bytes of the input, which extend the limit of memory.

    Returns:
        Verdict, message and place, see `Outcome`.
    """
    from modeling_gemoclap.command_line.failures import failure_message

    signal.signal(signal.SIGPROF, _too_slow)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    before = _peak_memory(reset=True)
    verdict, message, place = "answered", "", ""
    try:
        run()
    except TooSlow as error:
        verdict, message, place = "broken", f"more than {SECONDS} s of processor time", _place(error)
    except Exception as error:
        place, message = _place(error), failure_message(error) or ""
        reason = _why_no_refusal(error, message, names)
        verdict = "broken" if reason else "refused"
        message = f"{reason}: {type(error).__name__}: {error}"[:600] if reason else message
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    used = _peak_memory() - before
    if verdict != "broken" and used > MEMORY + MULTIPLE * size:
        verdict, message = "broken", f"{used / 2**20:.0f} MiB of memory for {size} bytes; {message}"
    return verdict, message, place


def _why_no_refusal(error: Exception, message: str, names: tuple[str, ...]) -> str | None:
    """Why an error breaks the promise; None if it keeps it."""
    if isinstance(error, BrokenPromise):
        return "wrong answer"
    if isinstance(error, MemoryError) or "MemoryError" in message:
        return "out of memory"
    if not message:
        return "would be reported as a bug"
    if not any(name in message for name in names):
        return f"the message does not name {names[0]}"
    if len(message) > LONGEST_MESSAGE or "\n" in message or re.search(r"object at 0x|Traceback", message):
        return f"the message is not one sentence ({len(message)} characters)"
    return None


def _too_slow(*_) -> None:
    raise TooSlow


def _place(error: BaseException) -> str:
    """The innermost function of the package in a traceback, with its line."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "/modeling_gemoclap/" in frame.filename] or frames
    return f"{Path(ours[-1].filename).name}:{ours[-1].lineno} {ours[-1].name}" if ours else ""


def _peak_memory(reset: bool = False) -> int:
    """The highest resident memory in bytes since the last reset; 0 where the system does not say it."""
    try:
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
        return 1024 * int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1])
    except (OSError, TypeError):
        return 0
