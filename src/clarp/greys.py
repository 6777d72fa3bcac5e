"""Greys of more than 8 bits: photos that people see in 8, and that keep the others for a model."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_DEPTHS = (8, 10, 12, 14, 16)
"""Bits that detectors and cameras have; a file of 16 bits holds any of them."""

Levels = NDArray[np.float32]
"""(H, W) from 0 (black) to 1 (white)."""


class NotedPhoto(Image.Image):
    """An RGB photo of 8 bits a channel that knows what was assumed to make it.

    Pictures made from it (resized, cropped, copied) are plain ones.

    Attributes:
        levels: all greys of a file that has more than 8 bits; None where there are no more than the pixels
            have.
        notes: what was assumed, a sentence each.
    """

    levels: Levels | None = None
    notes: tuple[str, ...] = ()


def greys(photo: Image.Image) -> Levels:
    """The greys of a photo that `clarp.images.open_photo` opened, in the full depth of its file.

    Args:
        photo: of colours, the brightness counts (ITU-R 601-2, in 8 bits, as Pillow's ``convert("L")``).

    Returns:
        (H, W) float32, from 0 (black) to 1 (white).

    >>> greys(Image.new("RGB", (2, 1), "white")).tolist()
    [[1.0, 1.0]]
    """
    if isinstance(photo, NotedPhoto) and photo.levels is not None:
        return photo.levels
    return np.asarray(photo.convert("L"), dtype=np.float32) / np.float32(255)


def notes_of(photo: Image.Image) -> tuple[str, ...]:
    """What was assumed to open a photo."""
    return photo.notes if isinstance(photo, NotedPhoto) else ()


def noted(photo: Image.Image, notes: tuple[str, ...], levels: Levels | None = None) -> Image.Image:
    """The photo with notes and greys, and with the same pixels; itself where there are none."""
    if not notes and levels is None:
        return photo
    found = NotedPhoto()
    vars(found).update(vars(photo))  # a copy would take a large photo's memory twice
    found.levels, found.notes = levels, notes
    return found


def grey_photo(levels: NDArray[Any], notes: tuple[str, ...]) -> Image.Image:
    """An RGB photo of (H, W) levels in 0 to 1, which it keeps."""
    kept = levels.astype(np.float32, copy=False)
    return noted(Image.fromarray(_bytes(levels)).convert("RGB"), notes, kept)


def _bytes(levels: NDArray[Any]) -> NDArray[np.uint8]:
    scaled = levels * 255
    return np.rint(scaled, out=scaled).astype(np.uint8)


def deep_photo(values: NDArray[Any], bits: int | None, *, inverted: bool) -> Image.Image:
    """An RGB photo of whole numbers from 0 to 65535, which keeps all their greys.

    Args:
        values: (H, W).
        bits: how many of them the file says to be used; None: as many as the values need, of 8, 10, 12, 14 or
            16, which a note tells.
        inverted: 0 is white.

    Raises:
        ValueError: values outside.
    """
    smallest, greatest = int(values.min()), int(values.max())
    if smallest < 0 or greatest > 65535:
        raise ValueError("its 32-bit values don't fit 16 bits; save it with 8 bits a channel")
    notes: tuple[str, ...] = ()
    if bits is None:
        bits = next(depth for depth in _DEPTHS if greatest < 2**depth) if greatest else 16
        if bits < 16:
            end = "black" if inverted else "white"
            said = (
                f"greys: no value of its 16 bits is above {greatest}, so {bits} bits were taken for used: "
                f"{2**bits - 1} is {end}"
            )
            notes = (said,)
    levels = values.astype(np.float32)  # half the memory, and exact to a grey
    levels /= np.float32(2**bits - 1)
    if inverted:
        np.subtract(1, levels, out=levels)
    return grey_photo(levels, notes)
