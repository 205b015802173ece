"""Write documents from the templates in `templates/`: whole sections, and blocks between two comments."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import jinja2
from harness import machine

from modeling_gemoclap.publishing.card import TEMPLATES

RESULTS = Path(__file__).with_name("RESULTS.md")
# `<!-- evidence: NAME -->` to `<!-- end of evidence -->`, or `<!-- NAME -->` to `<!-- /NAME -->`
BLOCK = re.compile(
    r"(<!-- (?:evidence: )?([\w-]+) -->\n(\n?))((?:(?!<!-- ).)*?)(\n\3<!-- (?:end of evidence|/\2) -->)",
    flags=re.DOTALL,
)


def percent(share: float | None) -> str:
    """A share in per cent, or a dash."""
    return "–" if share is None else f"{100 * share:.1f}"


ENVIRONMENT = jinja2.Environment(
    loader=jinja2.FileSystemLoader([Path(__file__).with_name("templates"), TEMPLATES]),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    autoescape=False,  # Markdown, from the project's own files  # nosec B701
)
ENVIRONMENT.filters["number"] = format
ENVIRONMENT.filters["percent"] = percent


def render(template: str, **values) -> str:
    """Fill in a template of `templates/`, without the line break at its end."""
    return ENVIRONMENT.get_template(f"{template}.md").render(values).rstrip("\n")


def table_row(*cells: str) -> str:
    """A row of a table, for tables that are written row by row."""
    return f"| {' | '.join(cells)} |"


def with_blocks(text: str, block: Callable[[str], str | None]) -> str:
    """A document with new blocks.

    Args:
        text: The document.
        block: Returns the content of the block with a name; None leaves the block as it is.
    """

    def replacement(match: re.Match) -> str:
        content = block(match[2])
        return match[0] if content is None else match[1] + content + match[5]

    return BLOCK.sub(replacement, text)


def write_blocks(path: Path, block: Callable[[str], str | None]) -> None:
    """Replace the blocks of a file, as `with_blocks` does."""
    path.write_text(with_blocks(path.read_text(encoding="utf-8"), block), encoding="utf-8")


def write_section(command: str, text: str) -> None:
    """Write a section of RESULTS.md and print it.

    Args:
        command: The command that was run. It is the heading; a section with this heading is replaced.
        text: Markdown.
    """
    section = f"`{command}`\n\nMachine: {machine()}.\n\n{text}\n"
    sections = RESULTS.read_text(encoding="utf-8").rstrip().split("\n## ")
    headings = [section.partition("\n")[0] for section in sections]
    place = headings.index(f"`{command}`") if f"`{command}`" in headings else len(sections)
    sections[place : place + 1] = [section]
    RESULTS.write_text("\n\n## ".join(part.rstrip() for part in sections) + "\n", encoding="utf-8")
    print(f"## {section}", flush=True)
