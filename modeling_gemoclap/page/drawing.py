"""Results as HTML: bars, the timeline and the comparison. Every text from outside is escaped.

Shapes are SVG that stretches with the page, and texts are HTML, so that they stay readable on a phone.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from ..inference.timeline_picture import COLOURS
from .acoustics import HIGHEST_PITCH, LOWEST_PITCH, Contours
from .analysis import Analysis

if TYPE_CHECKING:
    from ..inference.timeline import Segment

QUIETEST = -60.0  # dBFS at the bottom of the lane
PITCH_LINES, LOUDNESS_LINES = (100, 200, 400), (-20, -40)
NAMED_SEGMENTS = 8  # that the description of the picture names; a table has them all
TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300)  # s


def percent(score: float) -> str:
    """A score in per cent."""
    return f"{100 * score:.0f} %"


def colours_of(labels: Sequence[str]) -> dict[str, str]:
    """A colour for each label; from the tenth label on, colours recur."""
    return {label: COLOURS[index % len(COLOURS)] for index, label in enumerate(labels)}


def draw_message(message: str) -> str:
    """A message instead of a result."""
    return f'<p class="ge-message"><strong>No result.</strong> {escape(message)}</p>'


def draw_analysis(analysis: Analysis, labels: Sequence[str], title: str = "") -> str:
    """The result for a recording.

    Args:
        analysis: The result.
        labels: All labels, in the order in which they were given.
        title: Name of the recording if it is one of two, whose bars `draw_comparison` draws.
    """
    colours, prediction = colours_of(labels), analysis.prediction
    if title:
        bars, heading, level = "", f"<h2>{escape(title)}</h2>", 3
    else:
        bars, heading, level = f"<h2>Scores</h2>{draw_bars(prediction.scores, colours)}", "", 2
    gender = f"<p>Gender: <strong>{escape(prediction.gender)}</strong></p>" if prediction.gender else ""
    notes = "".join(f'<p class="ge-note"><strong>Note.</strong> {escape(note)}</p>' for note in analysis.notes)
    answer = f"Most likely label: <strong>{escape(prediction.label)}</strong> ({percent(prediction.score)})"
    if analysis.segments:
        answer = f'<p class="ge-answer">{answer}</p>{gender}{notes}'
    else:
        answer = f'{notes}<p class="ge-answer ge-weak">{answer}</p>{gender}'
    return (
        f'<section class="ge-result">{heading}{answer}{bars}'
        f"<h{level}>Timeline</h{level}>{draw_timeline(analysis, colours)}</section>"
    )


def draw_bars(scores: dict[str, float], colours: dict[str, str]) -> str:
    """Scores as a list of bars, highest first."""
    rows = [
        f'<li><span class="ge-label">{escape(label)}</span><span class="ge-track"><span class="ge-bar" '
        f'style="width:{100 * score:.1f}%;background:{colours[label]}"></span></span>'
        f'<span class="ge-value">{percent(score)}</span></li>'
        for label, score in scores.items()
    ]
    return f'<ol class="ge-bars">{"".join(rows)}</ol>'


def draw_timeline(analysis: Analysis, colours: dict[str, str]) -> str:
    """Segments over the waveform, the pitch and the loudness, and a table of the segments."""
    segments, lines = analysis.segments, analysis.contours
    voiced = lines.pitch[np.isfinite(lines.pitch)]
    pitch = f"median {np.median(voiced):.0f} Hz" if len(voiced) else "no voiced sound was found"
    loudness = f"loudest {lines.loudness.max():.0f} dBFS".replace("-", "\N{MINUS SIGN}")
    lanes = [
        f'<div class="ge-lane ge-segments">{_segment_boxes(segments, lines.seconds, colours)}</div>',
        _lane("Waveform", "", _envelope(lines), [], _segment_shades(segments, lines.seconds, colours)),
        _lane("Pitch", pitch, _pitch_curve(lines), [(f"{hz} Hz", _pitch_height(hz)) for hz in PITCH_LINES]),
        _lane(
            "Loudness",
            loudness,
            _loudness_area(lines),
            [(f"\N{MINUS SIGN}{-db} dB", _loudness_height(db)) for db in LOUDNESS_LINES],
        ),
    ]
    description = f"{describe(segments, lines.seconds)} Pitch: {pitch}. Loudness: {loudness}."
    return (
        f'<figure class="ge-timeline"><div role="img" aria-label="{escape(description)}">'
        f'<p class="ge-caption"><span>Emotion</span></p>{"".join(lanes)}{_axis(lines.seconds)}</div>'
        f"{_legend(segments, colours)}</figure>{_table(segments, colours)}"
    )


def describe(segments: Sequence[Segment], seconds: float) -> str:
    """A sentence that says what the timeline shows, for readers who do not see it."""
    if not segments:
        return f"Timeline of {seconds:.1f} s without speech."
    named = [_named(each) for each in segments[:NAMED_SEGMENTS]]
    more = len(segments) - len(named)
    rest = f"; and {more} more in the table" if more > 0 else ""
    return f"Timeline of {seconds:.1f} s: {'; '.join(named)}{rest}."


def draw_comparison(first: Analysis, second: Analysis, labels: Sequence[str]) -> str:
    """The results for two recordings: their scores label by label, then each result."""
    scores = [first.prediction.scores, second.prediction.scores]
    rows = []
    for label in sorted(labels, key=lambda label: -max(score[label] for score in scores)):
        bars = "".join(
            f'<span class="ge-who">{name}</span><span class="ge-track"><span class="ge-bar ge-bar-{name.lower()}" '
            f'style="width:{100 * score[label]:.1f}%"></span></span>'
            f'<span class="ge-value">{percent(score[label])}</span>'
            for name, score in zip("AB", scores, strict=True)
        )
        rows.append(f'<li><span class="ge-label">{escape(label)}</span><span class="ge-pair">{bars}</span></li>')
    answers = "; ".join(
        f"{name}: <strong>{escape(each.prediction.label)}</strong> ({percent(each.prediction.score)}"
        f"{'' if each.segments else '; no speech was found'})"
        for name, each in zip("AB", (first, second), strict=True)
    )
    return (
        f'<p class="ge-answer">{answers}</p><h2>Scores side by side</h2><ol class="ge-bars ge-compared">'
        f'{"".join(rows)}</ol><div class="ge-columns">{draw_analysis(first, labels, "Recording A")}'
        f"{draw_analysis(second, labels, 'Recording B')}</div>"
    )


def _named(segment: Segment) -> str:
    return f"{segment.start:.1f} to {segment.end:.1f} s {segment.label} ({percent(segment.score)})"


# ---- parts of the timeline ------------------------------------------------------------------------------------------
def _segment_boxes(segments: Sequence[Segment], seconds: float, colours: dict[str, str]) -> str:
    return "".join(
        f'<span class="ge-segment" title="{escape(_named(each))}" style="left:{100 * each.start / seconds:.2f}%;'
        f'width:{100 * (each.end - each.start) / seconds:.2f}%;background:{colours[each.label]}">'
        f"{escape(each.label)}</span>"
        for each in segments
    )


def _segment_shades(segments: Sequence[Segment], seconds: float, colours: dict[str, str]) -> str:
    return "".join(
        f'<rect x="{1000 * each.start / seconds:.1f}" width="{1000 * (each.end - each.start) / seconds:.1f}" y="0" '
        f'height="100" fill="{colours[each.label]}" fill-opacity="0.45"/>'
        for each in segments
    )


def _lane(title: str, summary: str, shapes: str, lines: list[tuple[str, float]], behind: str = "") -> str:
    """A row of the timeline: a caption, and shapes in a coordinate system of 1000 by 100."""
    grid = "".join(f'<line class="ge-grid" x1="0" x2="1000" y1="{y:.1f}" y2="{y:.1f}"/>' for _, y in lines)
    names = "".join(f'<span class="ge-line" style="top:{y:.1f}%">{name}</span>' for name, y in lines)
    summary = f" <span>{summary}</span>" if summary else ""
    return (
        f'<p class="ge-caption"><span>{title}</span>{summary}</p><div class="ge-lane">'
        f'<svg aria-hidden="true" viewBox="0 0 1000 100" preserveAspectRatio="none">{behind}{grid}{shapes}</svg>'
        f"{names}</div>"
    )


def _places(lines: Contours) -> np.ndarray:
    return (np.arange(len(lines.pitch)) + 0.5) * 1000 / len(lines.pitch)


def _points(places: np.ndarray, heights: np.ndarray) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(places, heights, strict=True))


def _envelope(lines: Contours) -> str:
    """The waveform between its lowest and highest samples, enlarged to the height of the lane."""
    peak = max(float(np.abs(lines.lowest).max()), float(np.abs(lines.highest).max()), 1e-6)
    places = _places(lines)
    top, bottom = 50 - 48 * lines.highest / peak, 50 - 48 * lines.lowest / peak
    thick = np.maximum(bottom - top, 0.6)  # a silent stretch stays visible as a line
    return f'<polygon class="ge-wave" points="{_points(places, top)} {_points(places[::-1], (top + thick)[::-1])}"/>'


def _pitch_height(hertz):
    """The height of a frequency in the lane, from 100 (`LOWEST_PITCH`) to 0, on a logarithmic scale."""
    return 100 * (1 - np.log(np.asarray(hertz) / LOWEST_PITCH) / np.log(HIGHEST_PITCH / LOWEST_PITCH))


def _loudness_height(decibels):
    return 100 * np.clip(np.asarray(decibels) / QUIETEST, 0, 1)


def _pitch_curve(lines: Contours) -> str:
    """One curve for each voiced stretch, within the lane also at the highest and lowest pitch."""
    voiced = np.isfinite(lines.pitch)
    edges = np.flatnonzero(np.diff(voiced.astype(int))) + 1
    places, curves = _places(lines), []
    for part in np.split(np.arange(len(voiced)), edges):
        if voiced[part[0]]:
            part = np.append(part, part[-1]) if len(part) == 1 else part  # a single point is drawn as a dot
            curves.append(_points(places[part], np.clip(_pitch_height(lines.pitch[part]), 3, 97)))
    return "".join(f'<polyline class="ge-curve" points="{curve}"/>' for curve in curves)


def _loudness_area(lines: Contours) -> str:
    places = _places(lines)
    return f'<polygon class="ge-area" points="0,100 {_points(places, _loudness_height(lines.loudness))} 1000,100"/>'


def _axis(seconds: float) -> str:
    """Times below the lanes: four to ten of them, at round distances."""
    step = next((tick for tick in TICKS if seconds / tick <= 7), TICKS[-1])
    ticks = np.arange(0, 0.86 * seconds, step)
    names = "".join(f'<span style="left:{100 * tick / seconds:.2f}%">{tick:g}</span>' for tick in ticks)
    return f'<div class="ge-axis">{names}<span class="ge-end">{seconds:.1f} s</span></div>'


def _legend(segments: Sequence[Segment], colours: dict[str, str]) -> str:
    """The labels of the segments and their colours: narrow segments have no room for their label."""
    used = {each.label for each in segments}
    items = "".join(f"<li>{_swatch(colour)}{escape(label)}</li>" for label, colour in colours.items() if label in used)
    return f'<ul class="ge-legend" aria-label="Labels of the segments">{items}</ul>' if items else ""


def _swatch(colour: str) -> str:
    return f'<span class="ge-swatch" style="background:{colour}"></span>'


def _table(segments: Sequence[Segment], colours: dict[str, str]) -> str:
    rows = "".join(
        f"<tr><td>{each.start:.1f} s</td><td>{each.end:.1f} s</td>"
        f'<td class="ge-name">{_swatch(colours[each.label])}{escape(each.label)}</td>'
        f"<td>{percent(each.score)}</td></tr>"
        for each in segments
    )
    if not rows:
        return ""
    head = "".join(f'<th scope="col">{name}</th>' for name in ("Start", "End", "Label", "Score"))
    count = f"{len(segments)} segment{'' if len(segments) == 1 else 's'}"
    return (
        f"<details><summary>{count} as a table</summary><table><thead><tr>{head}</tr></thead>"
        f"<tbody>{rows}</tbody></table></details>"
    )
