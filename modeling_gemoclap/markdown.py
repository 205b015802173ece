"""Escape text from data for Markdown, so that it creates no markup, table cell, heading or line break."""

from __future__ import annotations

import re

MARKUP = re.compile(r"([\\`*|<>\[\]]|&(?=#?\w+;)|(?<![^\W_])_|_(?![^\W_])|~(?=~))")
LINE_BREAKS = re.compile(r"[\r\n\t\f\v\x1c-\x1e\x85\u2028\u2029]+")


def as_text(value: str) -> str:
    """Escape text for a paragraph or a table cell; the result is a single line."""
    value = MARKUP.sub(r"\\\1", LINE_BREAKS.sub(" ", value))
    return re.sub(r"^(\s*)([#+=~-])", r"\1\\\2", value)  # starts of headings, lists, rules and fences


def as_code(value: str, in_table: bool = False) -> str:
    """Write text as a code span, with backticks.

    Args:
        value: The text.
        in_table: Whether the span is in a table, where a bar ends the cell even within code.
    """
    value = LINE_BREAKS.sub(" ", value)
    value = value.replace("|", r"\|") if in_table else value
    fence = "`" * (_longest_run(value) + 1)
    space = " " if len(fence) > 1 or not value.strip() else ""
    return f"{fence}{space}{value}{space}{fence}"


def as_block(value: str) -> str:
    """Write text as a fenced code block. The fence is longer than every run of backticks in the text."""
    fence = "`" * max(3, _longest_run(value) + 1)
    return f"{fence}\n{value}\n{fence}"


def _longest_run(value: str) -> int:
    return max(map(len, re.findall("`+", value)), default=0)
