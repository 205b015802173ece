"""How a command fails: one sentence where the cause lies outside the program, a traceback where it may be a bug."""

from __future__ import annotations

import datetime
import errno
import os
import pickle
import re
import shlex
import subprocess
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn

SHOW_ALL = "GEMOCLAP_TRACEBACK"
KEPT = "what had been written is kept"
EXTRAS = {
    **dict.fromkeys(("accelerate", "datasets", "evaluate", "jinja2", "matplotlib", "pandas", "pyarrow"), "train"),
    **dict.fromkeys(("scipy", "sklearn", "yaml"), "train"),
    "peft": "lora",
    "tensorboard": "tensorboard",
    "espeakng_loader": "demo",
}
BASE = ("numpy", "safetensors", "soundfile", "soxr", "tokenizers", "torch", "transformers")
# Where a ValueError is raised for the user to read. One of NumPy, torch or the standard library names no file or
# option, and nobody expected it.
THIS_PROJECT = ("__main__", "modeling_gemoclap")
FOR_USERS = (*THIS_PROJECT, "transformers", "transformers_modules")
FOR_USERS += ("accelerate", "datasets", "huggingface_hub", "peft")
# What only passes on an error of another process.
PASS_ON = ("torch.utils.data", "torch._utils", "multiprocess", "multiprocessing", "concurrent.futures")
NETWORK = ("httpx", "httpx2", "requests", "urllib3")
DISK_FULL = re.compile(r"No space left on device|StorageFull|Disk quota exceeded|os error 28|\[errno 28\]", re.I)
CUT_WRITE = re.compile(r"inline_container\.cc.*unexpected pos|PytorchStreamWriter failed writing", re.S)
CUT_READ = re.compile(r"PytorchStreamReader failed|Ran out of input")
NO_MEMORY = re.compile(r"can't allocate memory|Cannot allocate memory|out of memory", re.I)
DEAD_WORKER = re.compile(
    r"DataLoader worker .*(exited unexpectedly|is killed by signal)|One of the subprocesses", re.S
)
IN_WORKER = re.compile(r"^Caught (\w+) in DataLoader worker process \d+\.\n.*\n(?:[\w.]*\1): (?P<message>.*)$", re.S)
PEER = re.compile(r"Connection (closed|reset) by peer|Connection refused|Broken pipe|Timed out|timed? ?out", re.I)
NO_CUDA = re.compile(r"not compiled with CUDA|No CUDA GPUs|no NVIDIA driver|invalid device ordinal", re.I)


def run_main(program: str, main: Callable[[list[str]], None]) -> None:
    """Run a command. A failure ends the process: with status 130 if it was interrupted, otherwise with 1.

    An expected failure (an option, a file, a missing package, memory, disk, network) is told in one sentence, by one
    of several processes. An unexpected one keeps its traceback. `GEMOCLAP_TRACEBACK=1` shows all tracebacks.

    Args:
        program: What the sentence begins with, as `train.py`.
        main: The command; it takes the command line without the program's name.
    """
    try:
        main(sys.argv[1:])
    except (Exception, KeyboardInterrupt) as error:
        _leave(_tell(program, error))


def tell_failures(program: str) -> None:
    """Treat errors that nothing catches as `run_main` does: those of the imports of a module that is run.

    Args:
        program: See `run_main`.
    """

    def tell(kind, error: BaseException, where) -> None:
        _leave(_tell(program, error.with_traceback(where)), at_once=True)

    sys.excepthook = tell


def _tell(program: str, error: BaseException) -> int:
    """Say what happened; the exit status."""
    if isinstance(error, BrokenPipeError):  # of `| head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    interrupted = isinstance(error, KeyboardInterrupt)
    sentence = f"interrupted; {KEPT}" if interrupted else sentence_for(error)
    expected, show = sentence is not None, os.environ.get(SHOW_ALL)
    if not expected:
        kind = type(error).__name__
        sentence = f"this {kind} was not expected: please report it as a bug, with the lines above and the command"
    if not expected or (show and not interrupted):
        traceback.print_exception(error)
    if not expected or show or _speaks():
        print(f"{program}: {sentence}", file=sys.stderr, flush=True)
    return 130 if interrupted else 1


def sentence_for(error: BaseException) -> str | None:
    """What there is to say of an expected failure.

    Args:
        error: What stopped a command.

    Returns:
        The sentence; None for a failure that may be a bug.
    """
    message = str(error)
    if found := IN_WORKER.match(message):
        message = found["message"].strip()
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or DISK_FULL.search(message):
        place = getattr(error, "filename", None)
        return f"the disk is full{f' ({place})' if place else ''}: free some space and start again; {KEPT}"
    if CUT_WRITE.search(message):
        return f"a file could not be written to its end, as if the disk were full: free some space; {KEPT}"
    if isinstance(error, MemoryError) or (isinstance(error, (RuntimeError, OSError)) and NO_MEMORY.search(message)):
        return _of_memory(error, message)
    if isinstance(error, ImportError):
        return _of_import(error)
    if unread := _of_torch_load(error):
        return unread
    if isinstance(error, subprocess.CalledProcessError):
        return f"stopped: {_typed(error.cmd)} ended with {error.returncode}; its error stands above"
    if _from(type(error).__mro__, NETWORK) or isinstance(error, (ConnectionError, TimeoutError)):
        return f"the network or the Hub cannot be reached ({_first_line(message)}): try again, or give local folders"
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}" if error.filename and error.strerror else message
    if _from([type(error)], ("modeling_gemoclap",)):
        return message
    if isinstance(error, (RuntimeError, AssertionError)):
        return _of_torch(error, message)
    if type(error).__name__ == "SafetensorError":
        return f"a file of weights cannot be read ({message}): it is not whole, or no safetensors file"
    return message if isinstance(error, ValueError) and _for_users(error) else None


def _of_memory(error: BaseException, message: str) -> str:
    where = "GPU" if type(error).__name__ == "OutOfMemoryError" or "CUDA" in message else "machine"
    return (
        f"the {where}'s memory is used up ({_first_line(message) or 'MemoryError'}): use smaller batches "
        f"(--per_device_train_batch_size or --contrastive_chunk_size in training, --batch_size in evaluation); {KEPT}"
    )


def _of_import(error: ImportError) -> str | None:
    if error.name is None and _is_in(_raised_in(error)[-1], THIS_PROJECT):
        return str(error)
    names, cause = [], error
    while cause is not None:  # transformers raises an error of its own from the one that says what is missing
        names += [_package_of(cause)] if isinstance(cause, ImportError) and cause.name else []
        cause = cause.__cause__
    if "modeling_gemoclap" in names:
        return None
    names += [name for name in (*EXTRAS, *BASE) if re.search(rf"\b{name}\b", str(error))]
    for name in names:
        if name in EXTRAS:
            return f"{name} is not installed, or cannot be imported ({error}): pip install 'gemoclap[{EXTRAS[name]}]'"
        if name in BASE:
            return f"{name} is not installed, or cannot be imported ({error}): pip install gemoclap"
    return f"{names[0]} is not installed: pip install {names[0]}" if names else str(error)


def _of_torch_load(error: BaseException) -> str | None:
    """What is wrong with a file that `torch.load` refuses, as the state of an optimizer; None for other failures."""
    cut_off = isinstance(error, (EOFError, RuntimeError)) and CUT_READ.search(str(error) or "Ran out of input")
    if not (cut_off or isinstance(error, pickle.UnpicklingError)):
        return None
    from ..safety_gemoclap import MAY_RUN_CODE  # imports transformers, which other failures do without

    what = "is not whole" if cut_off else f"{MAY_RUN_CODE}: do not load it"
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_globals.get("__name__") == "torch.serialization" and frame.f_code.co_name == "load":
            return f"{frame.f_locals.get('f')} {what}; go on from another checkpoint"
    return None


def _package_of(error: ImportError) -> str:
    """The package that is missing; a requirement that is not met has a whole sentence for its name."""
    if required := re.match(r"The '([\w.-]+)", error.name):
        return required[1]
    return error.name.partition(".")[0]


def _of_torch(error: BaseException, message: str) -> str | None:
    if NO_CUDA.search(message):
        return f"no GPU can be used ({_first_line(message)}): use the CPU (--use_cpu true in training, --device cpu)"
    if DEAD_WORKER.search(message):
        return (
            f"a worker process died ({_first_line(message)}), mostly for lack of memory: use fewer workers "
            f"(--dataloader_num_workers, --preprocessing_num_workers)"
        )
    if type(error).__name__.startswith("Dist") or ("gloo" in message.lower() and PEER.search(message)):
        return f"another process ended or cannot be reached ({_first_line(message)}): its own error says why"
    return None


def _for_users(error: BaseException) -> bool:
    """Whether the code that raised an error did so for the user to read."""
    modules = [module for module in _raised_in(error) if not _is_in(module, PASS_ON)]
    return IN_WORKER.match(str(error)) is not None or _is_in(modules[-1], FOR_USERS)


def _raised_in(error: BaseException) -> list[str]:
    """The modules that an error passed, from where it was caught to where it was raised."""
    return ["", *(frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__))]


def _from(kinds, packages: tuple[str, ...]) -> bool:
    return any(_is_in(kind.__module__, packages) for kind in kinds)


def _is_in(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def _first_line(message: str) -> str:
    return message.strip().partition("\n")[0][:200]


def _typed(command) -> str:
    return command if isinstance(command, str) else shlex.join(map(str, command))


def _leave(status: int, at_once: bool = False) -> NoReturn:
    """End the process; one of several at once, since the others may wait for it, and it would for them."""
    sys.stdout.flush()
    sys.stderr.flush()
    if at_once or int(os.environ.get("WORLD_SIZE", 1)) > 1:
        os._exit(status)
    sys.exit(status)


def _speaks() -> bool:
    """Whether this process tells the failure: the first of those that torchrun started, or else each."""
    if int(os.environ.get("WORLD_SIZE", 1)) < 2 or os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return True
    try:
        from torch.distributed import TCPStore

        place = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        store = TCPStore(*place, is_master=False, timeout=datetime.timedelta(seconds=5))
        return store.add(f"gemoclap/failures/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", 1) == 1
    except Exception:  # the launcher is gone: better twice than not at all
        return True
