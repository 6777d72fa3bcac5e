"""Small pictures of the photos and maps of a run, for the report's page."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from clarp.geometry import Box
from clarp.optional import optional
from clarp.render.palette import Bytes, Floats
from clarp.render.scale import Scale

PHOTO = 128
"""Pixels, the longer side of a photo."""
CELLS = 56
"""The longer side of a map; a cell is the mean over its pixels."""
_QUALITY = 80
_MISSING = -128
_STEPS = 127


@dataclass(frozen=True, eq=False)
class Cells:
    """A map in few cells and one byte each.

    A code c stands for ``sign(c) (c / 127)^2 peak``: small values, of which a map has most, are told apart
    more finely.

    Attributes:
        codes: (h, w) int8; -128: not finite.
        peak: the largest magnitude of a cell.
        limit: relevance of full colour, by :class:`~clarp.render.Scale` over the cells.
    """

    codes: NDArray[np.int8]
    peak: float
    limit: float

    @classmethod
    def of(cls, heatmap: Tensor) -> "Cells":
        """Pool a heatmap (H, W); a cell with a pixel that is not finite is not finite.

        >>> cells = Cells.of(torch.ones(112, 224))
        >>> cells.codes.shape, float(cells.values().max())
        ((28, 56), 1.0)
        """
        height, width = heatmap.shape
        shrink = max(1.0, max(height, width) / CELLS)
        size = (max(1, round(height / shrink)), max(1, round(width / shrink)))
        pooled = F.adaptive_avg_pool2d(heatmap.detach().to("cpu", torch.float64)[None], size)[0].numpy()
        finite = np.where(np.isfinite(pooled), pooled, 0.0)
        peak = float(np.abs(finite).max())
        codes = np.rint(np.sign(finite) * np.sqrt(np.abs(finite) / (peak or 1.0)) * _STEPS)
        codes = np.where(np.isfinite(pooled), codes, _MISSING).astype(np.int8)
        return cls(codes, peak, Scale.of(pooled).limit)

    def values(self) -> Floats:
        """The cells' means (h, w), with 127 steps of the square root; NaN where not finite."""
        return decoded(self.codes) * self.peak


def decoded(codes: NDArray[np.int8]) -> Floats:
    """What codes stand for in units of the peak, -1 to 1; NaN where not finite.

    >>> decoded(np.array([127, 0, -127, -128], np.int8)).tolist()
    [1.0, 0.0, -1.0, nan]
    """
    share = codes.astype(np.float64) / _STEPS
    return np.where(codes == _MISSING, np.nan, np.sign(share) * share**2)


def photo_bytes(photo: Bytes) -> bytes:
    """A photo (H, W, 3) as a small JPEG."""
    picture = Image.fromarray(photo)
    picture.thumbnail((PHOTO, PHOTO), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    picture.save(file, format="JPEG", quality=_QUALITY, optimize=True)
    return file.getvalue()


def columns(
    photos: Sequence[bytes | None],
    cells: Sequence[Sequence[Cells | None]],
    boxes: Sequence[Sequence[Box]] | None = None,
) -> dict[str, list[Any]]:
    """A batch's pictures in the order of its rows: unit by unit, and within a unit method by method.

    Args:
        photos: B JPEGs, each in the row of the first method only; None where the photo is that of the unit
            before.
        cells: for each method B maps, or None where a method has none to show.
        boxes: for each photo those of its label, in fractions of its width and height; in the row of the
            first method only.
    """
    placed = [[] for _ in photos] if boxes is None else boxes
    rows = [
        (photo if not m else None, own[b]) for b, photo in enumerate(photos) for m, own in enumerate(cells)
    ]
    maps = [found for _, found in rows]
    return {
        "photo": [photo for photo, _ in rows],
        "boxes": [
            [edge for box in own for edge in box] if not m else None
            for own in placed
            for m in range(len(cells))
        ],
        "height": [None if c is None else c.codes.shape[0] for c in maps],
        "width": [None if c is None else c.codes.shape[1] for c in maps],
        "codes": [None if c is None else c.codes.tobytes() for c in maps],
        "peak": [None if c is None else c.peak for c in maps],
        "limit": [None if c is None else c.limit for c in maps],
    }


def schema() -> Any:
    """Of the files that hold :func:`columns`."""
    arrow = optional("pyarrow", "A run's pictures")
    kinds = {
        "photo": arrow.binary(),
        "boxes": arrow.list_(arrow.float32()),
        "height": arrow.int16(),
        "width": arrow.int16(),
    }
    kinds |= {"codes": arrow.binary(), "peak": arrow.float64(), "limit": arrow.float64()}
    return arrow.schema(list(kinds.items()))
