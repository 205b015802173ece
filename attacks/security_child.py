"""Load a checkpoint in a process that reports what is opened, started and connected to outside of allowed folders.

    python security_child.py trusted|untrusted CHECKPOINT ALLOWED_FOLDER...

`trusted` loads it with its own code, as if the package were not installed; `untrusted` by the package. transformers is
imported before the hook is set. Loading may open files of Python, of the installed packages, of the checkpoint and of
the allowed folders, and connect to the address ALLOWED_ADDRESS alone.
"""

from __future__ import annotations

import json
import os
import sys
import sysconfig
from pathlib import Path

STARTED = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.startfile")
CONNECTED = ("socket.connect", "socket.bind", "socket.getaddrinfo", "socket.sendto", "urllib.Request")
WRITES = ("os.remove", "os.rename", "os.rmdir", "os.chmod", "os.symlink", "os.link", "shutil.rmtree", "os.truncate")
ADDRESS = os.environ.get("ALLOWED_ADDRESS")  # such as `('127.0.0.1', 8000)`
LIBRARIES = ("ctypes.dlopen",)
# Of the system: random numbers, the processor, and what the process itself uses.
SYSTEM = ("/dev/null", "/dev/urandom", "/proc/self", "/proc/cpuinfo", "/proc/meminfo", "/proc/stat")
SYSTEM += ("/sys/devices/system/cpu", "libc.so.6")  # the last is a name without a folder


def installed_roots() -> list[str]:
    """Folders of Python and of the installed packages."""
    paths = [*sysconfig.get_paths().values(), sys.prefix, sys.base_prefix, *filter(None, sys.path)]
    return sorted({os.path.realpath(path) for path in paths})


def _place(event: str, arguments: tuple):
    """The path of an event; one that is relative to an open folder is completed."""
    path = arguments[1 if event in ("os.symlink", "os.link") else 0]
    folder = arguments[-1] if event in WRITES else None
    if isinstance(folder, int) and folder >= 0 and isinstance(path, (str, bytes)):
        return os.path.join(os.readlink(f"/proc/self/fd/{folder}"), os.fsdecode(path))
    return path


class Watch:
    """An audit hook that keeps events outside of allowed folders.

    Args:
        roots: The allowed folders and files.
    """

    def __init__(self, roots: list[str]):
        self.roots = tuple(os.path.realpath(root) for root in roots)
        self.events: list[str] = []
        self.on = False

    def _is_allowed(self, path) -> bool:
        if isinstance(path, int):
            return True  # a file that is open already
        place = os.fsdecode(path)
        if place in SYSTEM:
            return True
        place = os.path.realpath(place)
        return any(place == root or place.startswith(root.rstrip("/") + "/") for root in self.roots)

    def __call__(self, event: str, arguments: tuple) -> None:
        """Look at an event; see `sys.addaudithook`."""
        if not self.on:
            return
        self.on = False  # realpath raises events of its own
        try:
            if event in STARTED + CONNECTED and not (ADDRESS and ADDRESS in f"{arguments!r}"):
                self.events.append(f"{event} {arguments[:2]!r}"[:300])
            elif event == "open" or event in WRITES + LIBRARIES:
                path = _place(event, arguments)
                if path is not None and not self._is_allowed(path):
                    self.events.append(f"{event} {path!r}"[:300])
        finally:
            self.on = True


def auto(name: str, **options):
    """A function that loads a folder by an auto class of transformers."""
    import transformers

    return lambda folder: getattr(transformers, name).from_pretrained(folder, **options)


def ways(trusted: bool) -> dict:
    """The ways of loading a checkpoint: with its own code, or by the package."""
    import transformers

    if trusted:
        code, task = {"trust_remote_code": True}, "zero-shot-emotion-recognition"
        code |= {"revision": os.environ["REVISION"]} if "REVISION" in os.environ else {}
        names = ("AutoConfig", "AutoModel", "AutoProcessor", "AutoFeatureExtractor", "AutoTokenizer")
        return {name: auto(name, **code) for name in names} | {
            "pipeline": lambda folder: transformers.pipeline(task, model=folder, **code)
        }
    from modeling_gemoclap.inference.loading import load_pipeline

    return {"load_pipeline": lambda folder: load_pipeline(folder, "cpu")}


def main(arguments: list[str]) -> None:
    """Load in every way, and print the outcome and the events of each."""
    trusted, folder, *allowed = arguments
    trusted = trusted == "trusted"
    if trusted:
        sys.modules["modeling_gemoclap"] = None  # as if it were not installed
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    watch = Watch([folder, *allowed, *installed_roots(), *SYSTEM])
    sys.addaudithook(watch)
    report = {}
    for name, load in ways(trusted).items():
        watch.events, watch.on = [], True
        try:
            loaded = load(folder)
            if name in ("pipeline", "load_pipeline"):
                loaded({"array": [0.1, -0.1] * 8000, "sampling_rate": 16000})
            outcome = "loaded"
        except Exception as error:
            outcome = f"{type(error).__name__}: {error}"[:300]
        watch.on = False
        report[name] = [outcome, watch.events]
    print("\n" + json.dumps(report))


if __name__ == "__main__":
    sys.path = [path for path in sys.path if Path(path or ".").resolve() != Path(__file__).resolve().parent]
    main(sys.argv[1:])
