"""Whether photos look alike at a place: that tells a mark from evidence that lies at one place by chance.

A watermark, a date or a logo is the same picture in every photo that bears it; what else stands at a place is
another picture each time. So the small photos of the run are compared there, without their slow changes of
brightness, which many photos share (sky above, ground below).
"""

import io
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clarp.evaluation.findings.asked import Asked
from clarp.evaluation.findings.frame import FIELDS
from clarp.evaluation.findings.gathering import picture_parts
from clarp.evaluation.findings.places import FixedPlace
from clarp.evaluation.store import Store
from clarp.geometry import Box
from clarp.optional import optional

LEAST = 0.1
"""Mean correlation of two photos at a place; below it they don't look alike."""
_MOST = 200  # photos of a place are compared
_SIDE = 45  # pixels of a compared patch
_COARSE = 2.0  # pixels of the photo: sigma of the Gaussian whose result is taken away


def marks(store: Store, asked: Asked, found: Sequence[FixedPlace]) -> list[FixedPlace]:
    """Those places at which the photos look alike, with how much.

    Args:
        store: the run's folder, with its photos.
        asked: the units of the run.
        found: the places.
    """
    patches = _patches(store, asked, found)
    seen = [replace(one, likeness=likeness(patches[number])) for number, one in enumerate(found)]
    return [one for one in seen if one.likeness >= LEAST]


def likeness(patches: Sequence[NDArray[np.float64]]) -> float:
    """The mean correlation of all pairs of patches of mean 0 and length 1; patches without detail have 0.

    >>> likeness([np.array([0.6, -0.6, 0.2]), np.array([0.6, -0.6, 0.2]), np.zeros(3)])
    0.25333333333333335
    """
    count = len(patches)
    if count < 2:
        return 0.0
    held = np.stack(patches)
    total = held.sum(axis=0)
    return float((total @ total - (held**2).sum()) / (count * (count - 1)))


def patch(photo: bytes, box: Box) -> NDArray[np.float64]:
    """A photo at a place and a field around it, as :func:`likeness` takes it.

    Args:
        photo: a JPEG.
        box: of the place, in shares of the photo's sides.
    """
    pixels = np.asarray(Image.open(io.BytesIO(photo)).convert("L"), dtype=np.float64)
    detail = pixels - optional("scipy.ndimage", "Findings").gaussian_filter(pixels, _COARSE)
    height, width = pixels.shape
    margin = 1 / FIELDS
    left, top = (max(0.0, edge - margin) for edge in box[:2])
    right, bottom = (min(1.0, edge + margin) for edge in box[2:])
    own = detail[round(top * height) : round(bottom * height), round(left * width) : round(right * width)]
    resized = Image.fromarray(own.astype(np.float32)).resize((_SIDE, _SIDE))
    values = np.asarray(resized, dtype=np.float64).ravel()
    values = values - values.mean()
    length = float(np.linalg.norm(values))
    return values / length if length > 1e-6 else np.zeros_like(values)


def _patches(store: Store, asked: Asked, found: Sequence[FixedPlace]) -> dict[int, list[NDArray[np.float64]]]:
    """Of each place, by its number, the patches of its photos, or of some that are evenly spread."""
    wanted: dict[int, list[int]] = defaultdict(list)
    for number, one in enumerate(found):
        count = len(one.units)
        for at in np.linspace(0, count - 1, min(count, _MOST)).round().astype(int):
            wanted[one.units[at]].append(number)
    patches: dict[int, list[NDArray[np.float64]]] = defaultdict(list)
    if not wanted:
        return patches
    for start, table in picture_parts(store, asked):
        photo = b""
        for unit, shown in enumerate(table.column("photo").to_pylist()[:: asked.count], start):
            photo = shown or photo  # a photo's further labels have none of their own
            for number in wanted.get(unit, ()):
                patches[number].append(patch(photo, found[number].box))
    return patches
