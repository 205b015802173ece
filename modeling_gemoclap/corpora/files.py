"""Write files atomically, and read JSON files with checks of their structure."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..command_line.failures import is_network_error, raised_in_this_project

MAX_DEPTH = 100  # of nested objects and lists; the files of checkpoints and runs stay far below it
BUGS = (AssertionError, AttributeError, LookupError, NameError, TypeError)  # in a line of this package


@contextmanager
def write_atomically(path: Path) -> Iterator[Path]:
    """Give a temporary path to write to, which replaces `path` at the end.

    If the process is killed while it writes, the previous file at `path` is unchanged.
    """
    temporary = path.with_name(f".{path.name}.part")
    yield temporary
    os.replace(temporary, path)


@contextmanager
def unfinished_folder(path: Path) -> Iterator[Path]:
    """Give a new empty folder beside `path`, which is deleted at the end, also after an error or an interrupt.

    Args:
        path: The path that a caller may move the content to.
    """
    folder = path.with_name(f".{path.name}.part")
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_json(path: Path, value) -> None:
    """Write a JSON file atomically."""
    with write_atomically(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


@contextmanager
def damage_is_named(name: str | Path, part: str, fields: bool = False) -> Iterator[None]:
    """Name a file in the errors that its content causes where it is used.

    Libraries raise errors of any type for content that is valid JSON or text but has other fields or values than
    expected. Some errors are not changed: those of missing packages, memory, devices, the network and the opening of
    files; messages of one line that name the file; and errors of types that would be a bug of this package where its
    own code raised them.

    Args:
        name: The file, or the checkpoint.
        part: What is read, in messages: "its rows".
        fields: Whether the block only reads fields of the content, so that a missing field or one of another type is
            damage, not a bug.

    Raises:
        ValueError: If it cannot be used.
    """
    try:
        yield
    except (ImportError, MemoryError, RuntimeError):
        raise
    except Exception as error:
        message, is_ours = str(error).strip(), not fields and raised_in_this_project(error)
        if getattr(error, "errno", None) or isinstance(error, FileNotFoundError) or is_network_error(error):
            raise
        if isinstance(error, (OSError, ValueError)) and str(name) in message and "\n" not in message:
            raise
        if is_ours and isinstance(error, BUGS):
            raise
        if "trust_remote_code" in message and not is_ours:  # transformers asks for consent, on several lines
            raise ValueError(
                f"{name}: {part} need code of their own, which is not run; use files without it"
            ) from error
        kind = "" if isinstance(error, ValueError) or type(error) is Exception else f"{type(error).__name__}: "
        reason = (message.splitlines() or [""])[0].rstrip(".")[:300]
        reason = re.sub(r"( at| @)? 0x[0-9a-fA-F]+", "", reason)
        advice = "" if is_ours else "; download or create the file again"  # messages of this package have their own
        raise ValueError(f"{name}: {part} cannot be used ({kind}{reason}){advice}") from error


def read_json(path: str | Path):
    """Read a JSON file.

    Raises:
        ValueError: If the file is not JSON, is not UTF-8, or is nested more than `MAX_DEPTH` levels deep. The message
            names the file.
        OSError: If the file cannot be opened.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        value = json.loads(text)
        if r"\ud" in text.casefold():  # half of a pair of surrogates could be written to no file
            json.dumps(value, ensure_ascii=False).encode()
        if is_deep(value):
            raise RecursionError
    except RecursionError:
        reason = f"nested more than {MAX_DEPTH} levels deep"
    except ValueError as error:  # UnicodeDecodeError is a ValueError
        reason = str(error)
    else:
        return value
    raise ValueError(f"{path}: not valid JSON ({reason}); download or create the file again")


def read_object(path: str | Path, /, **types: type | tuple[type, ...]) -> dict:
    """Read a JSON file that holds an object.

    Args:
        path: The file.
        **types: Required fields, and the types that their values may have.

    Raises:
        ValueError: If the file holds something else, or if a field is missing or has another type. The message names
            the file.
        OSError: If the file cannot be opened.
    """
    value = read_json(path)
    if not isinstance(value, dict):
        raise ValueError(
            f"{path}: must hold a JSON object, not {_type_name(value)}; download or create the file again"
        )
    require(value, str(path), **types)
    return value


def require(value: dict, name: str, /, **types: type | tuple[type, ...]) -> None:
    """Check the fields of an object that was read from a file.

    Args:
        value: The object.
        name: How errors name the object: the file, and the place of the object in the file.
        **types: Required fields, and the types that their values may have.

    Raises:
        ValueError: If a field is missing or has another type.
    """
    for field, kind in types.items():
        if field not in value:
            raise ValueError(f"{name}: {field} is missing, so the file is incomplete; download or create it again")
        if not isinstance(value[field], kind):
            raise ValueError(
                f"{name}: {field} must not be {_type_name(value[field])}; download or create the file again"
            )


def is_deep(value) -> bool:
    """Whether a value from JSON or YAML is nested more than `MAX_DEPTH` levels deep."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        containers = [item for item in level if isinstance(item, (dict, list))]
        level = [child for item in containers for child in (item.values() if isinstance(item, dict) else item)]
        if not containers:
            return False
    return True


def _type_name(value) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
