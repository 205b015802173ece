"""Fingerprints of everything that is stored and used again: features, embeddings, results, folds and runs.

A fingerprint is a dict of everything that a result depends on: the source files of the package that make it, the
versions of libraries, and whatever else the caller adds (settings, hashes of recordings and weights). `digest` hashes
a fingerprint. `differences` compares two fingerprints by name, so that an error can say what differs.
"""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterator, Sequence
from functools import cache, lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from .version import __version__

PACKAGE = Path(__file__).resolve().parent
AUDIO_LIBRARIES = ("numpy", "soundfile", "soxr", "transformers")  # decode, resample and compute features
TRAINING_LIBRARIES = (*AUDIO_LIBRARIES, "accelerate", "scipy", "tokenizers", "torch")
IDENTITY = "run_identity.json"  # the fingerprint of a run, in its folder and in each of its checkpoints and folds
UNSET = "not recorded"
MAX_SHOWN = 60  # characters of a value in a message
TRAINING_CLIPS = "training_clips.safetensors"  # beside the weights, but none; see training_clips.py
WEIGHT_FILES = ("*.safetensors", "*.bin", "*.json", "*.txt", "*.model", "*.py")
BLOCK_BYTES = 2**22


def fingerprint(code: Sequence[str], libraries: Sequence[str] = (), **parts) -> dict:
    """Describe everything that a stored result depends on.

    Args:
        code: Modules of this package that make the result, such as `"runs.fit"`. The modules that they import are
            included.
        libraries: Distributions whose versions change the result.
        **parts: Anything else that JSON can hold: settings, hashes of recordings and weights.

    Returns:
        A dict of `package`, `code`, `versions` and the parts, in the form that JSON returns.
    """
    made_by = {
        "package": __version__,
        "code": source_hashes(*code),
        "versions": {name: library_version(name) for name in libraries},
    }
    return json.loads(json.dumps(made_by | parts, sort_keys=True, default=str))


def digest(value) -> str:
    """SHA-256 of a fingerprint, or of any value that JSON can hold."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def differences(before: dict, now: dict, when: tuple[str, str] = ("then", "now")) -> list[str]:
    """List the differences between two fingerprints.

    Args:
        before: The recorded fingerprint.
        now: The present fingerprint.
        when: The words for the two fingerprints, shown after their values.

    Returns:
        One text for each difference: its name, the recorded value and the present value. Long values, such as hashes,
        are omitted.
    """
    return [_describe_difference(*difference, when) for difference in _walk_differences("", before, now)]


def _walk_differences(name: str, before, now) -> Iterator[tuple[str, object, object]]:
    if before == now:
        return
    if not (isinstance(before, dict) and isinstance(now, dict)):
        yield name, before, now
        return
    for key in sorted({*before, *now}):
        path = f"{name}.{key}" if name else key
        yield from _walk_differences(path, before.get(key, UNSET), now.get(key, UNSET))


def _describe_difference(name: str, before, now, when: tuple[str, str]) -> str:
    group, _, rest = name.partition(".")
    if group == "code":
        return f"the package's source file {rest}" if rest else "the package's source files"
    label = f"the version of {rest}" if group == "versions" else rest if group == "settings" else name
    before, now = (json.dumps(value, ensure_ascii=False).strip('"') for value in (before, now))
    if any(len(value) > MAX_SHOWN for value in (before, now)):
        return label
    return f"{label} ({before} {when[0]}, {now} {when[1]})"


@cache
def library_version(name: str) -> str:
    """The version of an installed distribution; for soundfile, also the version of libsndfile, which decodes audio."""
    try:
        text = version(name)
    except PackageNotFoundError:
        return "not installed"
    if name == "soundfile":
        import soundfile

        text += f" ({soundfile.__libsndfile_version__})"
    return text


@lru_cache(maxsize=64)
def source_hashes(*modules: str) -> dict[str, str]:
    """SHA-256 of the source files of some modules of this package, and of every module of it that they import.

    Args:
        *modules: Names within the package, such as `"runs.fit"`.

    Returns:
        Hashes by path within the package.
    """
    hashes: dict[str, str] = {}
    queue = [PACKAGE / f"{name.replace('.', '/')}.py" for name in modules]
    while queue:
        path = queue.pop()
        name = path.relative_to(PACKAGE).as_posix()
        if name not in hashes:
            source = path.read_bytes()
            hashes[name] = hashlib.sha256(source).hexdigest()
            queue += _imported_files(path, source)
    return dict(sorted(hashes.items()))


def _imported_files(path: Path, source: bytes) -> Iterator[Path]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.level:
            folder = path.parents[node.level - 1]
            target = folder / (node.module or "").replace(".", "/")
            for place in (target, *(target / alias.name for alias in node.names)):
                for candidate in (place.with_suffix(".py"), place / "__init__.py"):
                    # The __init__ of the package imports every part for its users and computes nothing.
                    if candidate.is_file() and candidate != PACKAGE / "__init__.py":
                        yield candidate


def file_sha256(path: str | Path) -> str:
    """SHA-256 of the content of a file. The file is read again only if its size or one of its times has changed."""
    state = Path(path).stat()
    return _file_sha256(str(path), state.st_size, state.st_mtime_ns, state.st_ctime_ns)


def code_sha256(folder: Path) -> dict[str, str]:
    """SHA-256 of the Python files of a checkpoint, by name."""
    return {path.name: file_sha256(path) for path in sorted(folder.glob("*.py"))}


def weight_files(folder: str | Path) -> list[Path]:
    """The safetensors files with weights in the folder of a checkpoint, sorted."""
    return sorted(path for path in Path(folder).glob("*.safetensors") if path.name != TRAINING_CLIPS)


@lru_cache(maxsize=2**17)
def _file_sha256(path: str, *state: int) -> str:
    sha256 = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(BLOCK_BYTES):
            sha256.update(block)
    return sha256.hexdigest()


def folder_sha256(folder: str | Path, patterns: Sequence[str] = WEIGHT_FILES, leave_out: Sequence[str] = ()) -> str:
    """SHA-256 of the names and contents of the files of a checkpoint.

    Args:
        folder: The folder of the checkpoint.
        patterns: Glob patterns of the files to hash.
        leave_out: Names of files to exclude. `TRAINING_CLIPS` always is.
    """
    matching = {path for pattern in patterns for path in Path(folder).glob(pattern) if path.is_file()}
    leave_out = (*leave_out, TRAINING_CLIPS)
    paths = sorted(path for path in matching if path.name not in leave_out and not path.name.startswith("."))
    return digest([[path.name, file_sha256(path)] for path in paths])
