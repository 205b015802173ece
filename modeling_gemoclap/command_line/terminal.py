"""Text from data, such as names of files and words of a checkpoint, on a terminal."""

from __future__ import annotations


def printable(text: str) -> str:
    """A text on one line, such as the name of a file, with a replacement for each character that cannot be shown.

    Among them are escape sequences of terminals, line breaks, and marks that reverse the order of text.
    """
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def printable_lines(text: str) -> str:
    """A text of several lines, each as `printable` gives it. Tabs are kept."""
    return "\n".join("\t".join(map(printable, line.split("\t"))) for line in text.split("\n"))
