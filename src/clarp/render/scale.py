"""From relevance to colour: one symmetric scale, zero neutral, red for and blue against."""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats: TypeAlias = NDArray[np.float64]
Bytes: TypeAlias = NDArray[np.uint8]

PERCENTILE, LEAST = 99.5, 0.01


def _vik(places: Floats) -> Floats:
    """Colours of Crameri's vik, read from its file: importing the package takes pyplot and 200 other maps along."""
    package = find_spec("cmcrameri")
    assert package is not None
    assert package.origin is not None
    table: Floats = np.loadtxt(Path(package.origin).parent / "cmaps" / "vik.txt")
    return table[(places * len(table)).astype(np.intp)]


# vik's outermost tenths are so dark that red and blue look alike there.
_COLOURS = _vik(np.linspace(0.09, 0.91, 511))
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_NOT_FINITE = (1.0, 0.85, 0.0)  # a yellow, which the scale does not have


@dataclass(frozen=True)
class Scale:
    """The symmetric range of a heatmap that the colours cover.

    Attributes:
        limit: relevance at and beyond which the colour is full; 1 where there is nothing to scale by.
        basis: how the limit was chosen, for people.
        warning: what is odd about the map (all zero, constant, not finite), or nothing.
    """

    limit: float
    basis: str
    warning: str

    @classmethod
    def of(cls, *heatmaps: ArrayLike) -> "Scale":
        """Choose the limit: the 99.5th percentile of ``|R|``, so that a few extreme pixels don't pale the rest.

        Of a map of few pixels, whose percentile is less than a hundredth of the maximum, the median of those that are not; values that
        are not finite don't count.

        Args:
            *heatmaps: (H, W) relevance; several maps get one scale, over all their pixels.

        Raises:
            ValueError: no map, or one that is not two-dimensional, or empty.

        >>> Scale.of([[0.0, 0.0], [0.0, -3.0]]).warning
        ''
        >>> Scale.of([[0.0, 0.0], [0.0, 0.0]])
        Scale(limit=1.0, basis='no scale', warning='all relevance is zero')
        """
        if not heatmaps:
            raise ValueError("a scale is of at least one heatmap (H, W), got none.")
        values = np.concatenate([checked(heatmap).ravel() for heatmap in heatmaps])
        finite = values[np.isfinite(values)]
        warning = oddity(values[None])
        if finite.size == 0:
            return cls(1.0, "no scale", warning)
        of = "|relevance|" if len(heatmaps) == 1 else f"|relevance| over {len(heatmaps)} maps"
        limit, basis = float(np.percentile(np.abs(finite), PERCENTILE)), f"{PERCENTILE}th percentile of {of}"
        least = LEAST * float(np.abs(finite).max())
        if limit < least or limit == 0.0:
            limit = float(np.median(np.abs(finite)[np.abs(finite) >= least]))
            basis = f"median of {of} that is at least {LEAST:.0%} of the maximum"
        return cls(limit, basis, warning) if limit > 0.0 else cls(1.0, "no scale", warning)

    def strength(self, heatmap: ArrayLike) -> Floats:
        """The relevance in units of the limit, (H, W) within -1 to 1; not-finite values stay NaN."""
        values = checked(heatmap)
        values = np.where(np.isfinite(values), values, np.nan)
        return np.asarray(np.clip(values, -self.limit, self.limit) / self.limit)


def oddity(heatmap: ArrayLike) -> str:
    """What is odd about a map (H, W): it has values that are not finite, is all zero, or constant; or nothing, "".

    >>> oddity([[1.0, float("nan")]])
    '1 of 2 values are not finite (yellow)'
    """
    values = checked(heatmap)
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        return "no value is finite (yellow)"
    if finite.size < values.size:
        return f"{values.size - finite.size} of {values.size} values are not finite (yellow)"
    if not finite.any():
        return "all relevance is zero"
    return "the relevance is the same everywhere" if finite.min() == finite.max() else ""


def number(value: float, digits: int = 3) -> str:
    """A number for people.

    >>> number(4.249e-6), number(-1.0e-6, 2), number(0.305), number(2.5e7), number(0.0)
    ('4.25×10⁻⁶', '−1.0×10⁻⁶', '0.305', '2.50×10⁷', '0')
    """
    text = f"{value:.{digits}g}"
    if "e" in text:  # with all its digits, so that numbers side by side have as many
        mantissa, _, exponent = f"{value:.{digits - 1}e}".partition("e")
        text = f"{mantissa}×10{str(int(exponent)).translate(_RAISED)}"
    return text.replace("-", "−")


def checked(heatmap: ArrayLike) -> Floats:
    """A heatmap as (H, W) float64.

    Raises:
        ValueError: not two-dimensional, or empty.
    """
    values = np.asarray(heatmap, dtype=np.float64)
    if values.ndim != 2 or values.size == 0:
        raise ValueError(f"a heatmap is (H, W), got an array of shape {values.shape}.")
    return values


def paint(strength: Floats) -> Floats:
    """Colours in 0 to 1 for relevance in units of the limit: any shape becomes that shape and 3."""
    missing = np.isnan(strength)
    middle = (len(_COLOURS) - 1) / 2
    index = np.rint((np.where(missing, 0.0, strength) + 1.0) * middle).astype(np.intp)
    painted: Floats = np.where(missing[..., None], _NOT_FINITE, _COLOURS[index])
    return painted


def colours(heatmap: ArrayLike) -> Bytes:
    """A heatmap in colour: nearly white is zero, red speaks for the class, blue against it.

    The colours are Crameri's ``vik`` (https://doi.org/10.5281/zenodo.1243862): perceptually uniform, and
    safe for colour-blind eyes. The scale is symmetric (see `Scale.of`); what is not finite is yellow.

    Args:
        heatmap: (H, W) relevance.

    Returns:
        (H, W, 3) bytes, RGB.

    Raises:
        ValueError: the heatmap is not two-dimensional.
    """
    return as_bytes(paint(Scale.of(heatmap).strength(heatmap)))


def as_bytes(picture: Floats) -> Bytes:
    """Colours in 0 to 1 as bytes."""
    return np.rint(picture * 255).astype(np.uint8)
