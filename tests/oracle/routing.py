"""What moves values as an explicit matrix of zeros and ones (outputs, inputs), written from each operation's definition.

Arrays are float64 numpy arrays of one sample, (C, H, W); the matrix reads and gives them flat, in rows.
"""

import math
from collections.abc import Callable, Iterator

import numpy as np

from oracle.linear import Array

Place = tuple[int, ...]
Shape = tuple[int, ...]
Source = Callable[[Place], Place | None]
"""From which place of the input an output takes its value; None: it is zero."""


def matrix(shape: Shape, out: Shape, source: Source) -> Array:
    """The matrix of a rearrangement of (C, H, W) to the shape ``out``."""
    found = np.zeros((math.prod(out), math.prod(shape)))
    for row, place in enumerate(np.ndindex(*out)):
        taken = source(place)
        if taken is not None:
            found[row, np.ravel_multi_index(taken, shape)] = 1.0
    return found


def winners(x: Array, windows: Iterator[list[Place]]) -> Array:
    """The matrix of a maximum over each window, a list of places in the order of rows: the first of equals wins."""
    rows = []
    for places in windows:
        best = places[0]
        for place in places[1:]:
            if x[place] > x[best]:
                best = place
        rows.append(np.zeros(x.size))
        rows[-1][np.ravel_multi_index(best, x.shape)] = 1.0
    return np.stack(rows)


def over_axes(shape: Shape, axes: tuple[int, ...]) -> Iterator[list[Place]]:
    """For each output of a maximum over these axes (of C, H, W) all the places that differ along them only."""
    kept = [axis for axis in range(len(shape)) if axis not in axes]
    for place in np.ndindex(*(shape[axis] for axis in kept)):
        yield [p for p in np.ndindex(*shape) if tuple(p[axis] for axis in kept) == place]


def adaptive(shape: Shape, size: tuple[int, int]) -> Iterator[list[Place]]:
    """The windows of an adaptive pooling: output i of n reads ``floor(i L / n)`` to ``ceil((i + 1) L / n)``, without the end."""
    channels, *sides = shape
    for c, *place in np.ndindex(channels, *size):
        rows, columns = (
            range(i * side // n, -(-(i + 1) * side // n))
            for i, n, side in zip(place, size, sides, strict=True)
        )
        yield [(c, row, column) for row in rows for column in columns]


def pixel_shuffle(factor: int) -> Source:
    """``out[c, i r + a, j r + b] = x[c r^2 + a r + b, i, j]``."""

    def source(place: Place) -> Place:
        c, row, column = place
        within = (row % factor) * factor + column % factor
        return c * factor**2 + within, row // factor, column // factor

    return source


def pixel_unshuffle(factor: int) -> Source:
    """``out[c r^2 + a r + b, i, j] = x[c, i r + a, j r + b]``."""

    def source(place: Place) -> Place:
        c, row, column = place
        within = c % factor**2
        return c // factor**2, row * factor + within // factor, column * factor + within % factor

    return source


def channel_shuffle(channels: int, groups: int) -> Source:
    """``out[k g + j] = x[j (C / g) + k]``: the groups' channels by turns."""
    return lambda place: ((place[0] % groups) * (channels // groups) + place[0] // groups, *place[1:])


def mirrored(shape: Shape, left: int, top: int) -> Source:
    """Padding by what lies on the other side of the border, the border itself not twice."""

    def reflected(i: int, size: int) -> int:
        return -i if i < 0 else 2 * (size - 1) - i if i >= size else i

    return lambda place: (place[0], reflected(place[1] - top, shape[1]), reflected(place[2] - left, shape[2]))


def repeated(shape: Shape, left: int, top: int) -> Source:
    """Padding by the nearest value."""

    def nearest(i: int, size: int) -> int:
        return min(max(i, 0), size - 1)

    return lambda place: (place[0], nearest(place[1] - top, shape[1]), nearest(place[2] - left, shape[2]))


def windows(shape: Shape, kernel: int, stride: int, padding: int) -> tuple[Shape, Source]:
    """``out[c k^2 + u k + v, l]`` is place (u, v) of window l; around the image lie zeros. Also gives the output's shape."""
    channels, height, width = shape
    across = (width + 2 * padding - kernel) // stride + 1
    down = (height + 2 * padding - kernel) // stride + 1

    def source(place: Place) -> Place | None:
        within, window = place
        row = (window // across) * stride - padding + within % kernel**2 // kernel
        column = (window % across) * stride - padding + within % kernel
        inside = 0 <= row < height and 0 <= column < width
        return (within // kernel**2, row, column) if inside else None

    return (channels * kernel**2, down * across), source
