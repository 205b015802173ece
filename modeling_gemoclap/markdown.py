"""Names and words that come from data, as text in Markdown: they make no markup, table cell, heading or line."""

from __future__ import annotations

import re

LINES = re.compile(r"[\r\n\t\f\v\x1c-\x1e\x85\u2028\u2029]+")


def as_text(value: str) -> str:
    """Text that stands for itself, on one line, in a paragraph or in a cell of a table."""
    value = re.sub(r"([\\`*|<>\[\]])", r"\\\1", LINES.sub(" ", value))
    return re.sub(r"^(\s*)([#+=~-])", r"\1\\\2", value)  # what would begin a heading, a list, a rule or a fence


def as_code(value: str, in_table: bool = False) -> str:
    """A span of code, with its backticks.

    Args:
        value: What it holds.
        in_table: Whether it stands in a table, where a bar ends the cell even in code.
    """
    value = LINES.sub(" ", value)
    value = value.replace("|", r"\|") if in_table else value
    fence = "`" * (_longest_run(value) + 1)
    space = " " if len(fence) > 1 or not value.strip() else ""
    return f"{fence}{space}{value}{space}{fence}"


def as_block(value: str) -> str:
    """A block of code, its fence longer than any run of backticks in it."""
    fence = "`" * max(3, _longest_run(value) + 1)
    return f"{fence}\n{value}\n{fence}"


def _longest_run(value: str) -> int:
    return max(map(len, re.findall("`+", value)), default=0)
