"""Ranges of numbers: declared in the metadata of a field, and checked here."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields

MAX_SEED = 2**32 - 1  # limit of NumPy


@dataclass(frozen=True)
class Range:
    """A range of allowed numbers. NaN and infinity are in no range.

    Args:
        at_least: Lower bound, inclusive.
        at_most: Upper bound, inclusive.
        above: Lower bound, exclusive.
        below: Upper bound, exclusive.
        also_allowed: Allowed values outside of the bounds.
    """

    at_least: float | None = None
    at_most: float | None = None
    above: float | None = None
    below: float | None = None
    also_allowed: tuple[float, ...] = ()

    def __contains__(self, value: float) -> bool:
        """Whether a number is in the range."""
        if value in self.also_allowed:
            return True
        return (
            math.isfinite(value)
            and (self.at_least is None or value >= self.at_least)
            and (self.at_most is None or value <= self.at_most)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        """The range as text, for example `above 0 and at most 1`."""
        bounds = (("at least", self.at_least), ("above", self.above), ("at most", self.at_most), ("below", self.below))
        words = " and ".join(f"{name} {value:.10g}" for name, value in bounds if value is not None)
        return " or ".join([words or "finite", *(f"{value:.10g}" for value in self.also_allowed)])


FINITE = Range()
SHARE = Range(at_least=0, at_most=1)
DROPOUT = Range(at_least=0, below=1)
FACTOR = Range(above=0, at_most=1)
POSITIVE = Range(above=0)
NOT_NEGATIVE = Range(at_least=0)
COUNT = Range(at_least=1)
SEED = Range(at_least=0, at_most=MAX_SEED)


def ranges_of(*groups: type) -> dict[str, Range]:
    """The ranges in the metadata of the fields of dataclasses, by field name."""
    all_fields = (field for group in groups for field in fields(group))
    return {field.name: field.metadata["within"] for field in all_fields if "within" in field.metadata}


def out_of_range(values: Mapping[str, object], ranges: Mapping[str, Range], prefix: str = "") -> list[str]:
    """Find the numbers that are out of their range.

    Args:
        values: Numbers, or lists of numbers, by name. None and text are ignored.
        ranges: Ranges by name.
        prefix: Prefix of names in messages: `--` for options.

    Returns:
        A message for each name with a value out of its range, as `--alpha 2 must be at least 0 and at most 1`.
    """
    problems = []
    for name, allowed in ranges.items():
        value = values.get(name)
        items = value if isinstance(value, (list, tuple)) else [value]
        numbers = [item for item in items if isinstance(item, (int, float))]
        if any(number not in allowed for number in numbers):
            text = " ".join(map(str, numbers))
            finite = "" if all(map(math.isfinite, numbers)) else "finite and "
            problems.append(f"{prefix}{name} {text} must be {finite}{allowed}")
    return problems


def refuse_out_of_range(values: Mapping[str, object], ranges: Mapping[str, Range], prefix: str = "") -> None:
    """Check that all numbers are in their ranges. For the arguments see `out_of_range`.

    Raises:
        ValueError: If a number is out of its range. The message lists all such numbers with their ranges.
    """
    refuse(out_of_range(values, ranges, prefix))


def check_values(group: type, **values: object) -> None:
    """Check values against the ranges and choices in the metadata of a dataclass of options.

    Args:
        group: The dataclass.
        **values: Values by field name.

    Raises:
        ValueError: If a value is out of its range, or is not one of the choices.
    """
    choices = {field.name: field.metadata.get("choices") for field in fields(group)}
    for name, value in values.items():
        if choices[name] and value not in choices[name]:
            raise ValueError(f"{name} {value!r} must be one of {', '.join(choices[name])}")
    refuse_out_of_range(values, {name: allowed for name, allowed in ranges_of(group).items() if name in values})


def refuse(problems: Iterable[str]) -> None:
    """Raise one error for several problems.

    Args:
        problems: Messages.

    Raises:
        ValueError: If there is at least one message.
    """
    if problems := list(problems):
        raise ValueError("; ".join(problems))
