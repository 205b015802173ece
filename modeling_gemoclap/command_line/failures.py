"""Error messages of commands: one sentence for an expected failure, a traceback for a possible bug."""

from __future__ import annotations

import datetime
import errno
import os
import pickle  # for the name of an error  # nosec B403
import re
import shlex
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import NoReturn

from .memory import limit_kernel_cache
from .terminal import printable_lines

TRACEBACK_VARIABLE = "GEMOCLAP_TRACEBACK"
FILES_KEPT = "files written so far are kept"
EXTRAS = {
    **dict.fromkeys(("accelerate", "datasets", "evaluate", "jinja2", "matplotlib", "pandas", "pyarrow"), "train"),
    **dict.fromkeys(("scipy", "sklearn", "yaml"), "train"),
    **dict.fromkeys(("fastapi", "python_multipart", "starlette", "uvicorn"), "serve"),
    **dict.fromkeys(("nbclient", "sentence_transformers"), "dev"),
    "mkdocs": "docs",
    "mteb": "mteb",
    "gradio": "page",
    "peft": "lora",
    "tensorboard": "tensorboard",
    "espeakng_loader": "demo",
    "silero_vad": "vad",
    "sounddevice": "mic",
    **dict.fromkeys(("onnx", "onnxruntime", "onnxscript"), "onnx"),
}
BASE = ("filelock", "numpy", "safetensors", "soundfile", "soxr", "tokenizers", "torch", "transformers", "typer")
# Modules whose ValueErrors are messages for the user. A ValueError of NumPy, torch or the standard library names no
# file or option and may be a bug.
THIS_PROJECT = ("__main__", "modeling_gemoclap")
FOR_USERS = (*THIS_PROJECT, "transformers", "transformers_modules")
FOR_USERS += ("accelerate", "datasets", "huggingface_hub", "peft")
# Modules that re-raise errors of other processes.
RERAISING = ("torch.utils.data", "torch._utils", "multiprocess", "multiprocessing", "concurrent.futures")
NETWORK = ("httpx", "httpx2", "requests", "urllib3")
DISK_FULL = re.compile(r"No space left on device|StorageFull|Disk quota exceeded|os error 28|\[errno 28\]", re.I)
INCOMPLETE_WRITE = re.compile(r"inline_container\.cc.*unexpected pos|PytorchStreamWriter failed writing", re.S)
INCOMPLETE_READ = re.compile(r"PytorchStreamReader failed|Ran out of input")
NO_MEMORY = re.compile(r"can't allocate memory|Cannot allocate memory|out of memory", re.I)
DEAD_WORKER = re.compile(
    r"DataLoader worker .*(exited unexpectedly|is killed by signal)|One of the subprocesses", re.S
)
IN_WORKER = re.compile(r"^Caught (\w+) in DataLoader worker process \d+\.\n.*\n(?:[\w.]*\1): (?P<message>.*)$", re.S)
PEER = re.compile(r"Connection (closed|reset) by peer|Connection refused|Broken pipe|Timed out|timed? ?out", re.I)
NO_CUDA = re.compile(r"not compiled with CUDA|No CUDA GPUs|no NVIDIA driver|invalid device ordinal", re.I)


class UsageError(ValueError):
    """Arguments of a command that are wrong. The exit status is 2."""


class TerminatedError(RuntimeError):
    """A training that SIGTERM stopped after it saved a checkpoint.

    The exit status is 143, as a shell reports it for a process that SIGTERM ended (128 + 15).
    """


@contextmanager
def usage_errors(options: Mapping[str, str] | None = None) -> Iterator[None]:
    """Convert a `ValueError` to a `UsageError`.

    Args:
        options: Options of the command by the arguments whose names begin a message.
    """
    try:
        yield
    except UsageError:
        raise
    except ValueError as error:
        message = str(error)
        for argument, option in (options or {}).items():
            if message.startswith(argument):
                message = option + message.removeprefix(argument)
        raise UsageError(message) from error


def run_main(program: str, main: Callable[[list[str]], None]) -> None:
    """Run a command.

    If it fails, the exit status is 130 after an interrupt, 143 after a SIGTERM that stopped a training with a
    checkpoint, 2 after a `UsageError`, and 1 otherwise.

    An expected failure (option, file, missing package, memory, disk, network) is reported in one sentence, by only one
    of several processes. Other failures are printed with a traceback. `GEMOCLAP_TRACEBACK=1` shows all tracebacks.

    Args:
        program: Start of the message, for example `train.py`.
        main: The command, a function of the command line without the program name.
    """
    limit_kernel_cache()
    try:
        main(sys.argv[1:])
    except (Exception, KeyboardInterrupt) as error:
        _exit(_report(program, error))


def report_uncaught_errors(program: str) -> None:
    """Report uncaught errors as `run_main` does, including those of imports in a module that is run.

    Args:
        program: See `run_main`.
    """

    def report(kind, error: BaseException, trace) -> None:
        _exit(_report(program, error.with_traceback(trace)), immediately=True)

    sys.excepthook = report


def _report(program: str, error: BaseException) -> int:
    """Print the message of an error and return the exit status."""
    if isinstance(error, BrokenPipeError):  # the reader of a pipe has exited, as with `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    interrupted = isinstance(error, KeyboardInterrupt)
    sentence = f"interrupted; {FILES_KEPT}" if interrupted else failure_message(error)
    expected, show = sentence is not None, os.environ.get(TRACEBACK_VARIABLE)
    if not expected:
        kind = type(error).__name__
        sentence = f"unexpected {kind}: please report it as a bug, with the lines above and the command"
    if not expected or (show and not interrupted):
        traceback.print_exception(error)
    if not expected or show or _is_reporting_process():
        print(printable_lines(f"{program}: {sentence}"), file=sys.stderr, flush=True)
    if isinstance(error, TerminatedError):
        return 128 + signal.SIGTERM
    return 130 if interrupted else 2 if isinstance(error, UsageError) else 1


def failure_message(error: BaseException) -> str | None:
    """The message for an expected failure.

    Args:
        error: The error that stopped a command.

    Returns:
        The message; None for an error that may be a bug.
    """
    message = str(error)
    if match := IN_WORKER.match(message):
        message = match["message"].strip()
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or DISK_FULL.search(message):
        place = getattr(error, "filename", None)
        return f"the disk is full{f' ({place})' if place else ''}: free some space and start again; {FILES_KEPT}"
    if INCOMPLETE_WRITE.search(message):
        return f"a file could not be written completely; the disk may be full: free some space; {FILES_KEPT}"
    if is_out_of_memory(error, message):
        return _memory_message(error, message)
    if isinstance(error, ImportError):
        return _import_message(error)
    if load_message := _load_message(error):
        return load_message
    if isinstance(error, subprocess.CalledProcessError):
        return f"stopped: {_command_line(error.cmd)} ended with status {error.returncode}; see its error above"
    if _is_network(error):
        return f"the network or the Hub cannot be reached ({first_line(message)}): try again, or give local folders"
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}" if error.filename and error.strerror else message
    if _any_defined_in([type(error)], ("modeling_gemoclap",)):
        return message
    if isinstance(error, (RuntimeError, AssertionError)):
        return _torch_message(error, message)
    if type(error).__name__ == "SafetensorError":
        return f"a file of weights cannot be read ({message}): it is incomplete or not a safetensors file"
    return message if isinstance(error, ValueError) and _for_users(error) else None


def is_out_of_memory(error: BaseException, message: str | None = None) -> bool:
    """Whether an error is for lack of memory.

    Args:
        error: The error.
        message: Its message; None: that of `error`.
    """
    message = str(error) if message is None else message
    return isinstance(error, MemoryError) or (
        isinstance(error, (RuntimeError, OSError)) and NO_MEMORY.search(message) is not None
    )


def _memory_message(error: BaseException, message: str) -> str:
    if _any_defined_in([type(error)], ("modeling_gemoclap",)):
        return message
    memory = "GPU" if type(error).__name__ == "OutOfMemoryError" or "CUDA" in message else "main"
    return (
        f"out of {memory} memory ({first_line(message) or 'MemoryError'}): use smaller batches "
        f"(--per_device_train_batch_size or --contrastive_chunk_size in training, --batch_size in evaluation, "
        f"--batch-size in predictions); "
        f"{FILES_KEPT}"
    )


def _import_message(error: ImportError) -> str | None:
    if error.name is None and _is_in(_raised_in(error)[-1], THIS_PROJECT):
        return str(error)
    if message := _old_library_message():
        return message
    # transformers raises another error from the one with the name
    names = [_package_of(cause) for cause in causes(error) if isinstance(cause, ImportError) and cause.name]
    if "modeling_gemoclap" in names:
        return None
    names += [name for name in (*EXTRAS, *BASE) if re.search(rf"\b{name}\b", str(error))]
    for name in names:
        if name in EXTRAS:
            return f"{name} is not installed or cannot be imported ({error}): pip install 'gemoclap[{EXTRAS[name]}]'"
        if name in BASE:
            return f"{name} is not installed or cannot be imported ({error}): pip install gemoclap"
    return f"{names[0]} is not installed: pip install {names[0]}" if names else str(error)


def _old_library_message() -> str | None:
    """The message for a library that is too old; an import of what it lacks may fail before its version is checked."""
    try:
        from ..versions_gemoclap import OLDEST  # noqa: F401
    except ImportError as error:
        return None if error.name else str(error)
    return None


def _load_message(error: BaseException) -> str | None:
    """Message for a file that `torch.load` cannot read, such as an optimizer state; None for other failures."""
    may_be_incomplete = isinstance(error, (EOFError, RuntimeError))
    incomplete = may_be_incomplete and INCOMPLETE_READ.search(str(error) or "Ran out of input")
    if not (incomplete or isinstance(error, pickle.UnpicklingError)):
        return None
    from ..safety_gemoclap import MAY_RUN_CODE  # imports transformers, which other failures do not need

    problem = "is incomplete" if incomplete else f"{MAY_RUN_CODE}: do not load it"
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_globals.get("__name__") == "torch.serialization" and frame.f_code.co_name == "load":
            return f"{frame.f_locals.get('f')} {problem}; resume from another checkpoint"
    return None


def _package_of(error: ImportError) -> str:
    """The missing package. For an unmet version requirement, `error.name` is a sentence."""
    if required := re.match(r"The '([\w.-]+)", error.name):
        return required[1]
    return error.name.partition(".")[0]


def _torch_message(error: BaseException, message: str) -> str | None:
    if NO_CUDA.search(message):
        return f"no GPU is available ({first_line(message)}): use the CPU (--use_cpu true in training, --device cpu)"
    if DEAD_WORKER.search(message):
        return (
            f"a worker process died ({first_line(message)}), usually for lack of memory: use fewer workers "
            f"(--dataloader_num_workers, --preprocessing_num_workers)"
        )
    if type(error).__name__.startswith("Dist") or ("gloo" in message.lower() and PEER.search(message)):
        return f"another process ended or cannot be reached ({first_line(message)}): see the error of that process"
    return None


def _for_users(error: BaseException) -> bool:
    """Whether an error was raised by code whose messages are for the user."""
    modules = [module for module in _raised_in(error) if not _is_in(module, RERAISING)]
    return IN_WORKER.match(str(error)) is not None or _is_in(modules[-1], FOR_USERS)


def _raised_in(error: BaseException) -> list[str]:
    """The modules of the traceback, from the outermost call to the one that raised the error."""
    return ["", *(frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__))]


def _is_network(error: BaseException) -> bool:
    return _any_defined_in(type(error).__mro__, NETWORK) or isinstance(error, (ConnectionError, TimeoutError))


def causes(error: BaseException | None, context: bool = False) -> Iterator[BaseException]:
    """An error and those that it was raised from, each once: an error can be its own cause.

    Args:
        error: The error; None has no causes.
        context: Whether an error that was being handled when another one was raised is a cause of it too.
    """
    seen: list[BaseException] = []
    while error is not None and not any(error is each for each in seen):
        yield error
        seen.append(error)
        error = error.__cause__ or (error.__context__ if context else None)


def is_network_error(error: BaseException | None) -> bool:
    """Whether an error, or one that it was raised from, is of a connection or of the Hub."""
    return any(_is_network(cause) for cause in causes(error))


def raised_in_this_project(error: BaseException) -> bool:
    """Whether an error was raised by a line of this project, not by a library that it called."""
    return _is_in(_raised_in(error)[-1], THIS_PROJECT)


def _any_defined_in(classes, packages: tuple[str, ...]) -> bool:
    return any(_is_in(error_class.__module__, packages) for error_class in classes)


def _is_in(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def first_line(message: str) -> str:
    """The first line of a message, cut to 200 characters."""
    return message.strip().partition("\n")[0][:200]


def _command_line(command) -> str:
    return command if isinstance(command, str) else shlex.join(map(str, command))


def _exit(status: int, immediately: bool = False) -> NoReturn:
    """Exit. One of several processes exits immediately, since it and the others may wait for each other."""
    sys.stdout.flush()
    sys.stderr.flush()
    if immediately or int(os.environ.get("WORLD_SIZE", 1)) > 1:
        os._exit(status)
    sys.exit(status)


def _is_reporting_process() -> bool:
    """Whether this process reports the failure: the first to fail of those of torchrun, otherwise every process."""
    if int(os.environ.get("WORLD_SIZE", 1)) < 2 or os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return True
    try:
        from torch.distributed import TCPStore

        address = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        store = TCPStore(*address, is_master=False, timeout=datetime.timedelta(seconds=5))
        return store.add(f"gemoclap/failures/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", 1) == 1
    except Exception:  # the launcher has exited: every process reports
        return True
