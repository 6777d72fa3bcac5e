"""Curves and intervals as small SVG pictures inside a page: positions and ticks, no colours."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.ticker import MaxNLocator

from clarp.evaluation.tables import Curve, Estimate, TableLine

WIDTH, HEIGHT = 560, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 12, 12, 44
FOREST = 180
"""Width of an interval's picture."""


@dataclass(frozen=True)
class Tick:
    """A number on an axis, and where it stands."""

    at: float
    label: str


@dataclass(frozen=True)
class Plot:
    """A curve's picture.

    Attributes:
        x: ticks from left to right, at x.
        y: ticks from bottom to top, at y.
        lines: by method the points, pairs of numbers for a polyline.
    """

    x: tuple[Tick, ...]
    y: tuple[Tick, ...]
    lines: dict[str, tuple[tuple[float, float], ...]]

    @classmethod
    def of(cls, curve: Curve) -> "Plot":
        """Place a curve's points; those without a value are left out."""
        values = [value for line in curve.values.values() for value in line if math.isfinite(value)] or [0.0]
        x, y = _ticks(min(curve.at), max(curve.at), 6), _ticks(min(*values, 0.0), max(*values, 0.0), 5)

        def place(at: float, value: float) -> tuple[float, float]:
            across = (at - x[0]) / (x[-1] - x[0])
            up = (value - y[0]) / (y[-1] - y[0])
            return (
                round(_LEFT + across * (WIDTH - _LEFT - _RIGHT), 1),
                round(HEIGHT - _BOTTOM - up * (HEIGHT - _TOP - _BOTTOM), 1),
            )

        return cls(
            tuple(Tick(place(at, y[0])[0], f"{at:g}") for at in x),
            tuple(Tick(place(x[0], at)[1], f"{at:g}") for at in y),
            {
                method: tuple(
                    place(at, value) for at, value in zip(curve.at, line, strict=True) if math.isfinite(value)
                )
                for method, line in curve.values.items()
            },
        )


@dataclass(frozen=True)
class Whisker:
    """A mean and its interval on an axis that a table's lines share; 0 to :data:`FOREST`."""

    low: float
    mean: float
    high: float
    zero: float


def whiskers(lines: Sequence[TableLine]) -> list[Whisker | None]:
    """The intervals of a table on one axis, zero included; None where a line has no mean."""
    intervals = [_ends(line.value) for line in lines]
    ends = [end for interval in intervals for end in interval if math.isfinite(end)]
    if not ends:
        return [None] * len(lines)
    low, high = min(*ends, 0.0), max(*ends, 0.0)
    span = high - low or 1.0

    def place(value: float) -> float:
        return round(4 + (value - low) / span * (FOREST - 8), 1)

    return [
        Whisker(*map(place, (*interval, 0.0))) if math.isfinite(interval[1]) else None
        for interval in intervals
    ]


def _ends(value: Estimate) -> tuple[float, float, float]:
    low, high = (value.mean, value.mean) if math.isnan(value.low) else (value.low, value.high)
    return low, value.mean, high


def _ticks(low: float, high: float, count: int) -> list[float]:
    """Round numbers from at most the lowest to at least the highest."""
    found = MaxNLocator(count, min_n_ticks=2).tick_values(low, high if high > low else low + 1.0)
    return [round(float(at), 10) for at in found]
