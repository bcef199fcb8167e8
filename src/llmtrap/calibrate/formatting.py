"""Numbers as the calibration's sentences and tables show them."""

from __future__ import annotations

from llmtrap.calibrate.separation import Interval


def percent(interval: Interval | None) -> str:
    """A rate with its interval, in words."""
    if interval is None:
        return "no checkpoints"
    text = f"{100 * interval.value:.0f} %"
    if interval.low is None or interval.high is None:
        return text
    return f"{text} ({100 * interval.low:.0f} to {100 * interval.high:.0f} %)"


def signed(value: float) -> str:
    """A change to three decimals, with its sign; 0.000 has none."""
    text = f"{value:+.3f}".replace("-", "−")
    return text[1:] if text[1:] == "0.000" else text


def spread(values: list[float], form: str = ".3f") -> str:
    """One value, or the least and the greatest of several."""
    low, high = format(min(values), form), format(max(values), form)
    return low if low == high else f"{low} to {high}"
