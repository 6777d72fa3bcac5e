"""From relevance to colour: one symmetric scale, zero neutral, red for and blue against."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from clarp.render.palette import Bytes, Floats, Pixels, paint

PERCENTILE, NEARLY_ALL = 99.5, 0.99
TINY = float(np.finfo(np.float64).tiny)


@dataclass(frozen=True)
class Scale:
    """The symmetric range of a heatmap that the colours cover.

    Attributes:
        limit: relevance at and beyond which the colour is full; 1 where there is nothing to scale by.
        basis: how the limit was chosen, for people.
        warning: what is odd about the map (all zero, constant, not finite), or nothing.
        peak: the largest ``|R|``, in percent of which colour bars are marked.
    """

    limit: float
    basis: str
    warning: str
    peak: float = 1.0

    @classmethod
    def of(cls, *heatmaps: ArrayLike) -> "Scale":
        """Choose the limit: the 99.5th percentile of ``|R|``, so that a few extremes do not pale the rest.

        Where what lies beyond is nearly all relevance (a map of few pixels), the median of these; values that
        are not finite don't count.

        Args:
            *heatmaps: (H, W) relevance; several maps get one scale, over all their pixels.

        Raises:
            ValueError: no map, or one that is not two-dimensional, or empty.

        >>> Scale.of([[0.0, 0.0], [0.0, -3.0]]).warning
        ''
        >>> Scale.of([[0.0, 0.0], [0.0, 0.0]])
        Scale(limit=1.0, basis='no scale', warning='all relevance is zero', peak=1.0)
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
        sizes = np.abs(finite)
        few = sizes[sizes > limit]
        unit = max(float(sizes.max()), TINY)  # sums of the greatest numbers would be infinite
        if (few / unit).sum() > NEARLY_ALL * (sizes / unit).sum():
            limit, basis = (
                float(np.median(few)),
                f"median of {of} in the {few.size} pixels that have nearly all",
            )
        return cls(limit, basis, warning, unit) if limit > 0.0 else cls(1.0, "no scale", warning)

    @property
    def full(self) -> float:
        """The share of the peak at and beyond which the colour is full."""
        return self.limit / self.peak

    def strength(self, heatmap: ArrayLike) -> Floats:
        """The relevance in units of the limit, (H, W) within -1 to 1; not-finite values stay NaN."""
        values = checked(heatmap)
        values = np.where(np.isfinite(values), values, np.nan)
        return np.asarray(np.clip(values, -self.limit, self.limit) / self.limit)


def oddity(heatmap: ArrayLike) -> str:
    """What is odd about a map (H, W): values that are not finite, all zero, or constant; "" for nothing.

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


def checked(heatmap: ArrayLike) -> Floats:
    """A heatmap as (H, W) float64.

    Raises:
        ValueError: not two-dimensional, or empty.
    """
    values = np.asarray(heatmap, dtype=np.float64)
    if values.ndim != 2 or values.size == 0:
        raise ValueError(f"a heatmap is (H, W), got an array of shape {values.shape}.")
    return values


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


def as_bytes(picture: Floats | Pixels) -> Bytes:
    """Colours in 0 to 1 as bytes."""
    levels = picture * 255
    levels += 0.5
    return levels.astype(np.uint8)
