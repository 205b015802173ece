"""Text from data, such as names of files and words of a checkpoint, on a terminal."""

from __future__ import annotations

import re

from ..prompts_gemoclap import CONTROL, CONTROL_CHARACTERS

IN_FILES = re.compile(f"[{CONTROL_CHARACTERS}]")  # bytes of a name that are no text stay as they are in files


def printable(text: str) -> str:
    """A text on one line, such as the name of a file, with a replacement for each control character.

    Among them are escape sequences of terminals, line breaks, and marks that reverse the order of text.
    """
    return CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def printable_lines(text: str) -> str:
    """A text of several lines, each as `printable` gives it. Tabs are kept."""
    return "\n".join("\t".join(map(printable, line.split("\t"))) for line in text.split("\n"))


def without_control(text: str) -> str:
    """A text on one line for a file that people read, with a replacement for each control character."""
    return IN_FILES.sub("\N{REPLACEMENT CHARACTER}", text)
