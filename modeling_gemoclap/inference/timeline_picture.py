"""A picture of a timeline: segments over the waveform."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..command_line.terminal import printable
from ..corpora.files import write_atomically
from .segments import Segment

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = 2000  # of the waveform, at most twice as many while it is read
SUFFIXES = (".png", ".svg", ".pdf")
# Light colours of P. Tol's scheme for colour-blind readers; black text can be read on each
COLOURS = ("#77aadd", "#ee8866", "#eedd88", "#ffaabb", "#99ddff", "#44bb99", "#bbcc33", "#aaaa00", "#dddddd")


class Envelope:
    """The lowest and the highest samples of a recording in columns, in bounded memory.

    When there are too many columns, each two become one.

    Args:
        rate: Sampling rate in Hz.
    """

    def __init__(self, rate: int):
        self._rate, self._width = rate, max(1, rate // 100)  # samples of a column
        self._columns: list[tuple[float, float]] = []
        self._rest = np.zeros(0, np.float32)

    def add(self, wave: np.ndarray) -> None:
        """Continue with samples `(time,)`."""
        while len(wave):  # in pieces, so that the columns become twice as wide at most once in each
            piece, wave = np.split(wave, [COLUMNS * self._width])
            self._add(np.concatenate([self._rest, piece]))

    def _add(self, wave: np.ndarray) -> None:
        count = len(wave) // self._width
        if len(self._columns) + count >= 2 * COLUMNS and (len(self._columns) + count) % 2:
            count -= 1  # an even number of columns can be joined in pairs
        blocks = wave[: count * self._width].reshape(count, self._width)
        self._columns += zip(blocks.min(1).tolist(), blocks.max(1).tolist(), strict=True)
        self._rest = wave[count * self._width :]
        if len(self._columns) >= 2 * COLUMNS:
            pairs = zip(self._columns[::2], self._columns[1::2], strict=True)
            self._columns = [(min(one[0], other[0]), max(one[1], other[1])) for one, other in pairs]
            self._width *= 2

    def columns(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Times in seconds, lowest and highest samples, each `(columns,)`."""
        values = np.array(self._columns, np.float32).reshape(-1, 2)
        times = (np.arange(len(values)) + 0.5) * self._width / self._rate
        return times, values[:, 0], values[:, 1]


def check_picture(path: str | Path) -> None:
    """Check the name of a picture.

    Raises:
        ValueError: If its suffix is unknown.
    """
    if Path(path).suffix.lower() not in SUFFIXES:
        raise ValueError(f"--picture {path}: give a name that ends in {', '.join(SUFFIXES)}")


def draw_timeline(
    segments: Sequence[Segment], envelope: Envelope, path: str | Path, labels: Sequence[str], title: str = ""
) -> None:
    """Draw segments over the waveform, with a row for each label: the place shows the label, not the colour alone.

    Args:
        segments: The segments.
        envelope: The waveform.
        path: The picture, `.png`, `.svg` or `.pdf`.
        labels: The labels; those without a segment have no row.
        title: Title of the picture.

    Raises:
        ValueError: If the suffix is unknown.
        ImportError: If matplotlib is not installed.
        OSError: If the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    check_picture(path)
    used = {segment.label for segment in segments}
    rows = [label for label in labels if label in used] + sorted(used - set(labels))
    figure = Figure(figsize=(12, 2.4 + 0.32 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(2, max(1.0, 0.5 * len(rows))))
    times, lowest, highest = envelope.columns()
    top.fill_between(times, lowest, highest, color="#444444", linewidth=0.4)
    top.set(ylabel="waveform", title=_plain(title), xlim=(0, times[-1] if len(times) else 1))
    order = [*labels, *rows]
    colours = {label: COLOURS[order.index(label) % len(COLOURS)] for label in rows}
    for segment in segments:
        top.axvspan(segment.start, segment.end, color=colours[segment.label], alpha=0.6, linewidth=0, zorder=0)
    _draw_rows(bottom, segments, rows, colours)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(Path(path)) as part, open(part, "wb") as file:
        figure.savefig(file, format=Path(path).suffix[1:].lower(), dpi=120)


def _draw_rows(axes: Axes, segments: Sequence[Segment], rows: list[str], colours: dict[str, str]) -> None:
    for number, label in enumerate(rows):
        bars = [(each.start, each.duration) for each in segments if each.label == label]
        axes.broken_barh(bars, (number - 0.4, 0.8), facecolor=colours[label], edgecolor="black", linewidth=0.4)
    axes.set_yticks(range(len(rows)), [_plain(label) for label in rows])
    axes.set(xlabel="seconds" if rows else "seconds (no speech found)", ylim=(max(len(rows), 1) - 0.5, -0.5))


def _plain(text: str) -> str:
    """A text without the marks of matplotlib's formulas."""
    return printable(text).replace("$", r"\$")
