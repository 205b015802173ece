"""Reading of YAML and JSON without implicit conversion of text, and with an error for duplicate keys."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from pathlib import Path

import yaml

NULL = ("", "~", "null", "Null", "NULL")
INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)")  # no leading zero: 01 is an identifier
NUMBER = re.compile(r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
NOT_FINITE = re.compile(r"[-+]?\.inf|\.nan", re.IGNORECASE)
WORDS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}


class Plain(str):
    """An unquoted scalar, which `typed` may convert to a number or a boolean."""

    __slots__ = ()


class _TextLoader(yaml.BaseLoader):
    """Loads all scalars as text, except for an unquoted null. Refuses duplicate keys."""

    def construct_scalar(self, node):
        text = super().construct_scalar(node)
        if node.style is not None:
            return text
        return None if text in NULL else Plain(text)

    def construct_mapping(self, node, deep=False):
        seen = {}
        for key, _ in node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else None
            if name is None:
                raise yaml.constructor.ConstructorError(None, None, "a key that is not text", key.start_mark)
            if name in seen:
                problem = f"duplicate key {name!r}, first in line {seen[name].line + 1}"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen[name] = key.start_mark
        return {
            (key.value if key.style else Plain(key.value)): self.construct_object(value, deep=True)
            for key, value in node.value
        }


def read_yaml(path: str | Path) -> dict:
    """Read a YAML file with a mapping. All scalars are text: `01`, `no` and `1e5` are not converted.

    Args:
        path: The file.

    Returns:
        The content: mappings, lists, text, and None for `~`, `null` and an empty value.

    Raises:
        ValueError: If the file is not valid YAML in UTF-8, is not a mapping, or has a duplicate key.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
        values = yaml.load(text, Loader=_TextLoader)  # the loader creates only text, lists and dicts  # nosec B506
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not YAML: {_yaml_reason(error)}") from None
    except RecursionError:
        raise ValueError(f"{path}: nested too deeply for a configuration") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start}): save it as UTF-8") from None
    if values is not None and not isinstance(values, dict):
        kind = {"list": "a list"}.get(type(values).__name__, "text")
        raise ValueError(f"{path}: a configuration must be a mapping of fields to values, not {kind}")
    return values or {}


def _yaml_reason(error: yaml.YAMLError) -> str:
    """What is wrong and in which line, as one sentence."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        return f"{place}{error.problem}{f' ({error.context})' if error.context else ''}"
    if isinstance(error, yaml.reader.ReaderError):
        return f"the character #x{int(error.character):04x} at position {error.position} is not allowed"
    return " ".join(str(error).split())


def typed(value, keys: bool = False):
    """Convert unquoted scalars of `read_yaml` to numbers and booleans, for values without a declared type.

    Args:
        value: A value, list or mapping from `read_yaml`.
        keys: Whether keys are converted too. Keys of JSON are text.

    Returns:
        The converted value, by the rules of JSON: `0x1F`, `01`, `1_000`, `no` and `12:30` stay text.
    """
    if isinstance(value, dict):
        return {typed(key) if keys else str(key): typed(item, keys) for key, item in value.items()}
    if isinstance(value, list):
        return [typed(item, keys) for item in value]
    if not isinstance(value, Plain):
        return value
    if value in WORDS:
        return WORDS[value]
    if INTEGER.fullmatch(value):
        return int(value)
    if NUMBER.fullmatch(value):
        return float(value)
    return float(value.replace(".", "")) if NOT_FINITE.fullmatch(value) else str(value)


def shown(text: object) -> str:
    """A value of an option in messages: on one line, and at most 200 characters of it."""
    return " ".join(str(text).split())[:200]


def listed(names: Iterable[str], most: int = 20) -> str:
    """Names of a file in messages: separated by commas, each by `shown`, and at most so many of them."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(shown, names[:most])) + more


def json_object(text: str | None, name: str) -> dict:
    """Parse the JSON object of an option.

    Args:
        text: The JSON; None is an empty object.
        name: Name of the option, for messages: `--audio_config`.

    Raises:
        ValueError: If it is not a JSON object, or has a duplicate key or a number that is not finite.
    """

    def refuse_number(word: str):
        raise ValueError(f"{name}: {word} is not a finite number: {shown(text)}")

    def finite(word: str) -> float:
        return float(word) if math.isfinite(float(word)) else refuse_number(word)

    def pairs(items: list[tuple]) -> dict:
        if repeated := sorted({key for key, _ in items if sum(key == other for other, _ in items) > 1}):
            raise ValueError(f"{name}: duplicate key {', '.join(map(repr, repeated))}: {shown(text)}")
        return dict(items)

    try:
        values = json.loads(text or "{}", parse_constant=refuse_number, parse_float=finite, object_pairs_hook=pairs)
    except RecursionError:
        raise ValueError(f"{name}: nested too deeply") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{name}: not JSON ({error}): {shown(text)}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{name}: must be a JSON object, got {shown(text)}")
    return values
