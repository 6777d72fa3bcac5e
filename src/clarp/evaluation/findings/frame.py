"""The common frame: every map of a run as shares of its evidence in the same 14 x 14 fields of the input.

A mark that a shortcut rests on (a watermark, a border, a date) stands at the same place of every photo that
bears it, so maps are compared field by field where the model looked, and no map is moved or turned.
"""

from typing import TypeAlias

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from clarp.evaluation.pictures import decoded
from clarp.geometry import Box
from clarp.optional import optional

Frames: TypeAlias = NDArray[np.float32]
"""Maps in the common frame, (n, FIELDS, FIELDS): shares of the evidence for the class, with the sum 1."""

FIELDS = 14
"""Fields along each side of the frame."""
WINDOW = 3
"""Fields along each side of a place."""
ALONG = FIELDS - WINDOW + 1
"""Places along each side: every window that lies inside the frame."""
PLACES = ALONG * ALONG
PEAKS = 4
"""So many peaks of a map are kept."""
NONE = 255
"""In place of a peak that there isn't."""
_LEAST_OF_PEAK = 0.5
_FINE = 4  # points along each side of a cell, where the part of it that boxes cover is measured
_ALL_CODES = np.arange(-128, 128).astype(np.int8)
_POSITIVE = np.nan_to_num(np.maximum(decoded(_ALL_CODES), 0.0))


def evidence(codes: NDArray[np.int8]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What speaks for the class in maps (n, h, w) of codes: as shares with the sum 1, and that sum before.

    Cells that speak against it or are not finite count as zero; a map without any evidence stays zero.
    """
    positive = _POSITIVE[codes.astype(np.int16) + 128]
    totals = positive.sum(axis=(1, 2))
    return positive / np.where(totals > 0, totals, 1.0)[:, None, None], totals


def framed(shares: NDArray[np.float64]) -> Frames:
    """Shares (n, h, w) in the common frame; what lies in several fields is divided by area.

    >>> framed(np.full((1, 7, 21), 1 / 147)).round(4)[0, 3, :3].tolist()
    [0.005100000184029341, 0.005100000184029341, 0.005100000184029341]
    """
    down, across = _overlap(shares.shape[1]), _overlap(shares.shape[2])
    return (down @ shares @ across.T).astype(np.float32)


def windowed(frames: NDArray[np.floating]) -> NDArray[np.float64]:
    """The share of each place: (..., FIELDS, FIELDS) becomes (..., ALONG, ALONG)."""
    views = sliding_window_view(np.asarray(frames, dtype=np.float64), (WINDOW, WINDOW), axis=(-2, -1))
    found: NDArray[np.float64] = views.sum(axis=(-2, -1))
    return found


def peaks(windows: NDArray[np.float64]) -> NDArray[np.uint8]:
    """The places (n, PEAKS) where maps have their evidence, the strongest first; NONE where there are fewer.

    A peak is a place with at least as much evidence as those around it, and at least half of the strongest.

    Args:
        windows: (n, ALONG, ALONG).
    """
    count = len(windows)
    around = optional("scipy.ndimage", "Findings").maximum_filter(windows, size=(1, 3, 3), mode="nearest")
    least = _LEAST_OF_PEAK * windows.max(axis=(1, 2), keepdims=True)
    height = np.where((windows >= around) & (windows >= least) & (windows > 0), windows, 0.0)
    flat = height.reshape(count, PLACES)
    order = np.argsort(-flat, axis=1, kind="stable")[:, :PEAKS]
    there = np.take_along_axis(flat, order, axis=1) > 0
    return np.where(there, order, NONE).astype(np.uint8)


def near(found: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """At which places maps have a peak, or have one a field beside it: (n, PEAKS) becomes (n, PLACES)."""
    hits = np.zeros((len(found), ALONG, ALONG), dtype=bool)
    for peak in found.T:
        there = np.flatnonzero(peak != NONE)
        row, column = np.divmod(peak[there].astype(np.int64), ALONG)
        for down in (-1, 0, 1):
            for right in (-1, 0, 1):
                y, x = row + down, column + right
                inside = (y >= 0) & (y < ALONG) & (x >= 0) & (x < ALONG)
                hits[there[inside], y[inside], x[inside]] = True
    return hits.reshape(len(found), PLACES)


def box_of(place: int) -> Box:
    """A place in shares of the input's width and height.

    >>> box_of(0)
    (0.0, 0.0, 0.21428571428571427, 0.21428571428571427)
    """
    row, column = divmod(place, ALONG)
    return column / FIELDS, row / FIELDS, (column + WINDOW) / FIELDS, (row + WINDOW) / FIELDS


def name_of(place: int) -> str:
    """A place in words, by the third of the frame that its middle lies in.

    >>> [name_of(place) for place in (0, 5, 11, 66, 132)]
    ['top left', 'top', 'top right', 'centre', 'bottom left']
    """
    row, column = divmod(place, ALONG)
    down, across = (
        names[min(2, int(3 * (at + WINDOW / 2) / FIELDS))]
        for at, names in ((row, ("top", "", "bottom")), (column, ("left", "", "right")))
    )
    return f"{down} {across}".strip() or "centre"


def in_a_box(place: int, boxes: list[float]) -> bool:
    """Whether the middle of a place lies in one of the boxes, four edges each."""
    left, top, right, bottom = box_of(place)
    x, y = (left + right) / 2, (top + bottom) / 2
    return any(a < x < c and b < y < d for a, b, c, d in zip(*[iter(boxes)] * 4, strict=True))


def covered(boxes: list[float], height: int, width: int) -> NDArray[np.float64]:
    """Which part of each cell (height, width) lies in a box.

    Args:
        boxes: four edges a box, left, top, right, bottom, in shares of the input's sides.
        height: cells from top to bottom.
        width: cells from left to right.
    """
    y, x = ((np.arange(_FINE * count) + 0.5) / (_FINE * count) for count in (height, width))
    inside = np.zeros((len(y), len(x)), dtype=bool)
    for left, top, right, bottom in zip(*[iter(boxes)] * 4, strict=True):
        inside |= ((y > top) & (y < bottom))[:, None] & ((x > left) & (x < right))
    found: NDArray[np.float64] = inside.reshape(height, _FINE, width, _FINE).mean(axis=(1, 3))
    return found


def _overlap(count: int) -> NDArray[np.float64]:
    """Which part of each of so many cells lies in each field: (FIELDS, count), columns with the sum 1."""
    cells, fields = np.arange(count) / count, np.arange(FIELDS) / FIELDS
    start = np.maximum(fields[:, None], cells[None])
    stop = np.minimum(fields[:, None] + 1 / FIELDS, cells[None] + 1 / count)
    return np.maximum(stop - start, 0.0) * count
