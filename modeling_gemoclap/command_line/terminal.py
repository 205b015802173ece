"""Text from data, such as names of files and words of a checkpoint, on a terminal."""

from __future__ import annotations

import re

# Control characters, and marks that reverse the order of text. Bytes of a name that are no text stay as they are.
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """A text on one line, such as the name of a file, with a replacement for each character that cannot be shown.

    Among them are escape sequences of terminals, line breaks, and marks that reverse the order of text.
    """
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def printable_lines(text: str) -> str:
    """A text of several lines, each as `printable` gives it. Tabs are kept."""
    return "\n".join("\t".join(map(printable, line.split("\t"))) for line in text.split("\n"))


def without_control(text: str) -> str:
    """A text on one line for a file that people read, with a replacement for each control character."""
    return CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)
