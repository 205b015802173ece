"""Ranges of numbers: declared beside a field, and checked in one place."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields

LARGEST_SEED = 2**32 - 1  # of NumPy


@dataclass(frozen=True)
class Range:
    """The values that a number may have. NaN and infinity are in no range.

    Args:
        at_least: Least value, itself allowed.
        at_most: Greatest value, itself allowed.
        above: Bound below, itself not allowed.
        below: Bound above, itself not allowed.
        besides: Values outside of the bounds that are allowed too.
    """

    at_least: float | None = None
    at_most: float | None = None
    above: float | None = None
    below: float | None = None
    besides: tuple[float, ...] = ()

    def __contains__(self, value: float) -> bool:
        """Whether a number lies in the range."""
        if value in self.besides:
            return True
        return (
            math.isfinite(value)
            and (self.at_least is None or value >= self.at_least)
            and (self.at_most is None or value <= self.at_most)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        """The range in words, as `above 0 and at most 1`."""
        bounds = (("at least", self.at_least), ("above", self.above), ("at most", self.at_most), ("below", self.below))
        words = " and ".join(f"{name} {value:.10g}" for name, value in bounds if value is not None)
        return " or ".join([words or "finite", *(f"{value:.10g}" for value in self.besides)])


FINITE = Range()
SHARE = Range(at_least=0, at_most=1)
DROPOUT = Range(at_least=0, below=1)
FACTOR = Range(above=0, at_most=1)
POSITIVE = Range(above=0)
NOT_NEGATIVE = Range(at_least=0)
COUNT = Range(at_least=1)
SEED = Range(at_least=0, at_most=LARGEST_SEED)


def ranges_of(*groups: type) -> dict[str, Range]:
    """The ranges that stand in the metadata of dataclasses' fields, as `within`."""
    every = (field for group in groups for field in fields(group))
    return {field.name: field.metadata["within"] for field in every if "within" in field.metadata}


def out_of_range(values: Mapping[str, object], ranges: Mapping[str, Range], prefix: str = "") -> list[str]:
    """Say which numbers are out of their range.

    Args:
        values: Numbers by name; lists of numbers are checked item by item. None and text are passed over.
        ranges: Ranges by name.
        prefix: Put before a name: `--` for options.

    Returns:
        One clause for each name that has a value out of its range, as `--alpha 2 must be at least 0 and at most 1`.
    """
    found = []
    for name, allowed in ranges.items():
        value = values.get(name)
        items = value if isinstance(value, (list, tuple)) else [value]
        numbers = [item for item in items if isinstance(item, (int, float))]
        if any(number not in allowed for number in numbers):
            said = " ".join(map(str, numbers))
            finite = "" if all(map(math.isfinite, numbers)) else "finite and "
            found.append(f"{prefix}{name} {said} must be {finite}{allowed}")
    return found


def refuse_out_of_range(values: Mapping[str, object], ranges: Mapping[str, Range], prefix: str = "") -> None:
    """Make sure that all numbers lie in their ranges; arguments as `out_of_range`.

    Raises:
        ValueError: If one does not. The message names all of them, each with its value and range.
    """
    refuse(out_of_range(values, ranges, prefix))


def check_values(group: type, **values: object) -> None:
    """Check values that are given in Python against the ranges in a dataclass of options.

    Args:
        group: The dataclass.
        **values: Values by field name.

    Raises:
        ValueError: If a value is out of its range.
    """
    refuse_out_of_range(values, {name: each for name, each in ranges_of(group).items() if name in values})


def refuse(found: Iterable[str]) -> None:
    """Raise one error for everything that was found to be wrong.

    Args:
        found: What is wrong, a clause each.

    Raises:
        ValueError: If anything is.
    """
    if found := list(found):
        raise ValueError("; ".join(found))
