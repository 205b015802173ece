"""Files that are there whole or not at all, and JSON files that hold what they should."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MAX_DEPTH = 100  # of nested objects and lists; no file of a checkpoint or a run comes near it


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Where to write a file that then takes the place of `path`; if killed meanwhile, what was there stays."""
    part = path.with_name(f".{path.name}.part")
    yield part
    os.replace(part, path)


def write_json(path: Path, value) -> None:
    """Write a JSON file; it is there whole or not at all."""
    with whole(path) as part:
        part.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: str | Path):
    """Read a JSON file.

    Raises:
        ValueError: If it is not JSON, not UTF-8 text or nested more than `MAX_DEPTH` deep; the error names the file.
        OSError: If it cannot be opened.
    """
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
        if is_deep(value):
            raise RecursionError(f"nested more than {MAX_DEPTH} deep")
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        reason = str(error) if isinstance(error, ValueError) else f"nested more than {MAX_DEPTH} deep"
        raise ValueError(f"{path}: not JSON ({reason}); fetch or make it anew") from None
    return value


def read_object(path: str | Path, /, **kinds: type | tuple[type, ...]) -> dict:
    """Read a JSON file that holds an object.

    Args:
        path: The file.
        **kinds: Fields that it must have, and what types their values must have.

    Raises:
        ValueError: If it holds something else, or a field is missing or of another type; the error names the file.
        OSError: If it cannot be opened.
    """
    found = read_json(path)
    if not isinstance(found, dict):
        raise ValueError(f"{path}: not a JSON object but {_kind_of(found)}; fetch or make it anew")
    require(found, str(path), **kinds)
    return found


def require(found: dict, name: str, /, **kinds: type | tuple[type, ...]) -> None:
    """Make sure that an object from a file has fields of these types.

    Args:
        found: The object.
        name: What errors call it: the file, and where in it the object stands.
        **kinds: The fields, and what types their values must have.

    Raises:
        ValueError: If one is missing or of another type.
    """
    for field, kind in kinds.items():
        if field not in found:
            raise ValueError(f"{name}: {field} is missing, so the file is not whole; fetch or make it anew")
        if not isinstance(found[field], kind):
            raise ValueError(f"{name}: {field} must not be {_kind_of(found[field])}; fetch or make it anew")


def is_deep(value) -> bool:
    """Whether a value of JSON or YAML is nested more than `MAX_DEPTH` deep."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        inner = [each for each in level if isinstance(each, (dict, list))]
        level = [part for each in inner for part in (each.values() if isinstance(each, dict) else each)]
        if not inner:
            return False
    return True


def _kind_of(value) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
