"""The tab for search in an index of recordings."""

from __future__ import annotations

import os
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from ..command_line.terminal import printable
from .analysis import NAME, PageModel, read_recording

if TYPE_CHECKING:  # it needs pyarrow, and the page without an index does not
    from ..inference.search import Hit

MAX_TEXT = 200
HITS = 10
WEAK_MARGIN = 2.0  # below it, hits were mostly wrong on Emo-DB: docs/search.md
HELP = "Words such as: a woman speaking angrily. Empty, if a recording is enough."


class PageIndex:
    """An index as the page searches it.

    Args:
        path: A file of `gemoclap index`.
        model: The model of the page.

    Raises:
        ValueError: If there is no such index, or it is that of another model.
    """

    def __init__(self, path: str | Path, model: PageModel):
        from ..inference.search import Index

        self.index, self._pipe = Index(path), model.pipe
        self.index.check_model(model.pipe)

    def __len__(self) -> int:
        return len(self.index)

    def find(self, text: str | None, path: str | None, top: int = HITS) -> list[Hit]:
        """Search by text, by a recording, or by both.

        Args:
            text: Words; empty: none.
            path: A recording; None: none.
            top: Number of hits.

        Raises:
            AudioError: If the recording cannot be used.
            ValueError: If there is no query, or the text is too long.
        """
        from ..inference.search import search

        text = (text or "").strip() or None
        if text is None and not path:
            raise ValueError("There is nothing to search for: write a text, give a recording, or both.")
        if text is not None and len(text) > MAX_TEXT:
            raise ValueError(f"The text is longer than {MAX_TEXT} characters: shorten it.")
        like = None
        if path:
            wave, rate = read_recording(path)
            like = {"array": wave, "sampling_rate": rate, "path": NAME}
        return search(self._pipe, self.index, text, like, top)

    def name_of(self, hit: Hit) -> str:
        """The path of a hit within the folder of the index: other folders of the server are not shown."""
        return printable(os.path.relpath(hit.file, self.index.header.folder))


def draw_hits(index: PageIndex, hits: Sequence[Hit]) -> str:
    """Hits as a table."""
    rows = "".join(
        f'<tr><td>{hit.rank}</td><td class="ge-name">{escape(index.name_of(hit))}{_note(hit)}</td>'
        f"<td>{_number(hit.margin)}</td><td>{hit.similarity:.3f}</td></tr>"
        for hit in hits
    )
    head = "".join(f'<th scope="col">{name}</th>' for name in ("Rank", "Recording", "Margin", "Similarity"))
    weak = not any((hit.margin or 0) >= WEAK_MARGIN for hit in hits)
    warning = "<strong>No recording stands out: the hits may be arbitrary.</strong> " if weak else ""
    return (
        f'<section class="ge-result ge-found"><h2>Found</h2><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table>"
        f'<p class="ge-note">{warning}The margin tells how far a recording is above the middle of all '
        f"{len(index):,}, in units of the usual spread of the similarities. A rank is not a probability.</p></section>"
    )


def _note(hit: Hit) -> str:
    if hit.state != "unchanged":
        return f" <em>({escape(hit.state)} since it was indexed)</em>"
    return " <em>(a copy of a recording above)</em>" if hit.copy_of else ""


def _number(value: float | None) -> str:
    return "\N{EN DASH}" if value is None else f"{value:.1f}"
