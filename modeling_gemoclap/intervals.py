"""When a figure has an interval over speakers, and how reports and model cards print it."""

from __future__ import annotations

FEWEST_SPEAKERS = 5


def enough_speakers(number: int) -> bool:
    """Whether there are enough speakers for an interval: at least `FEWEST_SPEAKERS`."""
    return number >= FEWEST_SPEAKERS


def why_no_interval(*numbers: int) -> str:
    """Explain why a statistic has no interval.

    Args:
        numbers: Number of speakers; for a difference between two groups, the number in each group.
    """
    if all(map(enough_speakers, numbers)):
        return "no interval: the speakers do not differ"
    return f"no interval below {FEWEST_SPEAKERS} speakers{' of each gender' if len(numbers) > 1 else ''}"


def interval_text(bounds: list[float] | None, *numbers: int, sign: str = "") -> str:
    """Format an interval in per cent, or explain why there is none.

    Args:
        bounds: Interval of a share or of a difference of shares.
        numbers: See `why_no_interval`.
        sign: "+" for a difference.
    """
    if bounds is None:
        return why_no_interval(*numbers)
    return " to ".join(f"{100 * bound:{sign}.1f}" for bound in bounds)
