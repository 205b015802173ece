"""One fingerprint for everything that is stored and used again: features, frames, embeddings, answers, folds, runs.

A fingerprint is a dict of what a result depends on: the package's source files involved, the versions of libraries,
and whatever else the caller names (settings, recordings, weights). It can be hashed (`digest`), and two of them can be
compared by name (`differences`), so that a refusal says what differs.
"""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterator, Sequence
from functools import cache, lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
# What decodes, resamples and computes features; and what else a training depends on.
AUDIO_LIBRARIES = ("numpy", "soundfile", "soxr", "transformers")
TRAINING_LIBRARIES = (*AUDIO_LIBRARIES, "accelerate", "scipy", "tokenizers", "torch")
IDENTITY = "run_identity.json"  # the fingerprint of a run, in its folder and in each of its checkpoints and folds
UNSET = "not recorded"
SHOWN = 60  # characters of a value in a message
WEIGHT_FILES = ("*.safetensors", "*.bin", "*.json", "*.txt", "*.model", "*.py")


def fingerprint(code: Sequence[str], libraries: Sequence[str] = (), **parts) -> dict:
    """Describe what a stored result depends on.

    Args:
        code: Modules of this package that make the result, as `"training.run"`; what they import is included.
        libraries: Distributions whose version matters.
        **parts: Anything else that JSON can hold: settings, hashes of recordings and weights.

    Returns:
        A dict of `package`, `code`, `versions` and the parts, as JSON would give it back.
    """
    own = {
        "package": _package_version(),
        "code": source_hashes(*code),
        "versions": {name: library_version(name) for name in libraries},
    }
    return json.loads(json.dumps(own | parts, sort_keys=True, default=str))


def digest(value) -> str:
    """SHA-256 of a fingerprint, or of anything that JSON can hold."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def differences(before: dict, now: dict, when: tuple[str, str] = ("then", "now")) -> list[str]:
    """Name what differs between two fingerprints.

    Args:
        before: The recorded one.
        now: The present one.
        when: What the two are called beside their values.

    Returns:
        For each difference its name with the value that is recorded and the present one; hashes are not shown.
    """
    return [_describe(*difference, when) for difference in _walk("", before, now)]


def _walk(name: str, before, now) -> Iterator[tuple[str, object, object]]:
    if before == now:
        return
    if not (isinstance(before, dict) and isinstance(now, dict)):
        yield name, before, now
        return
    for key in sorted({*before, *now}):
        path = f"{name}.{key}" if name else key
        yield from _walk(path, before.get(key, UNSET), now.get(key, UNSET))


def _describe(name: str, before, now, when: tuple[str, str]) -> str:
    group, _, rest = name.partition(".")
    if group == "code":
        return f"the package's source file {rest}" if rest else "the package's source files"
    label = f"the version of {rest}" if group == "versions" else rest if group == "settings" else name
    before, now = (json.dumps(value, ensure_ascii=False).strip('"') for value in (before, now))
    if any(len(value) > SHOWN for value in (before, now)):
        return label
    return f"{label} ({before} {when[0]}, {now} {when[1]})"


def _package_version() -> str:
    from . import __version__  # late: the package imports what imports this

    return __version__


@cache
def library_version(name: str) -> str:
    """Version of an installed distribution; of soundfile with that of libsndfile, which decodes."""
    try:
        found = version(name)
    except PackageNotFoundError:
        return "not installed"
    if name == "soundfile":
        import soundfile

        found += f" ({soundfile.__libsndfile_version__})"
    return found


@lru_cache(maxsize=64)
def source_hashes(*modules: str) -> dict[str, str]:
    """SHA-256 of the source files of some modules of this package and of all that they import from it.

    Args:
        *modules: Their names within the package, as `"training.run"`.

    Returns:
        Hash by path within the package.
    """
    found: dict[str, str] = {}
    waiting = [PACKAGE / f"{name.replace('.', '/')}.py" for name in modules]
    while waiting:
        path = waiting.pop()
        name = path.relative_to(PACKAGE).as_posix()
        if name not in found:
            source = path.read_bytes()
            found[name] = hashlib.sha256(source).hexdigest()
            waiting += _imports_of(path, source)
    return dict(sorted(found.items()))


def _imports_of(path: Path, source: bytes) -> Iterator[Path]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.level:
            folder = path.parents[node.level - 1]
            target = folder / (node.module or "").replace(".", "/")
            for place in (target, *(target / alias.name for alias in node.names)):
                for candidate in (place.with_suffix(".py"), place / "__init__.py"):
                    # The package's own __init__ imports everything for its users, and makes nothing itself.
                    if candidate.is_file() and candidate != PACKAGE / "__init__.py":
                        yield candidate


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file's content; read again only after its size or one of its times has changed."""
    state = Path(path).stat()
    return _file_sha256(str(path), state.st_size, state.st_mtime_ns, state.st_ctime_ns)


@lru_cache(maxsize=2**17)
def _file_sha256(path: str, *state: int) -> str:
    found = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**22):
            found.update(block)
    return found.hexdigest()


def folder_sha256(folder: str | Path, patterns: Sequence[str] = WEIGHT_FILES, leave_out: Sequence[str] = ()) -> str:
    """SHA-256 of the names and contents of a checkpoint's files.

    Args:
        folder: The checkpoint.
        patterns: Which files, by glob.
        leave_out: Names that have no part in it.
    """
    paths = {path for pattern in patterns for path in Path(folder).glob(pattern) if path.is_file()}
    kept = sorted(path for path in paths if path.name not in leave_out and not path.name.startswith("."))
    return digest([[path.name, file_sha256(path)] for path in kept])
