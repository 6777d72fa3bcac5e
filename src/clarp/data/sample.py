"""What every data set is made of: samples, and the objects in them."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from clarp.data.photo import Photo, Picture
from clarp.geometry import Box, Size

Label = tuple[int, ...]
"""Class ids that name one thing equally well, the best first: ``(281,)``, or ``(331, 330)`` for a hare."""


class Region(Protocol):
    """The exact place of an object; frozen and picklable, read only when asked for."""

    def mask(self, size: Size) -> Tensor:
        """(H, W) bool for an image of that (height, width)."""
        ...

    def files(self) -> tuple[Photo, ...]:
        """The files that it is read from."""
        ...


@dataclass(frozen=True)
class Object:
    """One thing in a picture.

    Attributes:
        label: the class ids that name it.
        name: its name in the annotation.
        box: (left, top, right, bottom) in pixel edges, or None.
        difficult: flagged as hard to recognise by the annotators (Pascal VOC).
        region: its exact place; None: the filled box.
    """

    label: Label
    name: str
    box: Box | None
    difficult: bool = False
    region: Region | None = None

    def mask(self, size: Size) -> Tensor:
        """(H, W) bool: its region, or the pixels whose centre lies in its box."""
        if self.region is not None:
            return self.region.mask(size)
        if self.box is None:
            return torch.zeros(size, dtype=torch.bool)
        left, top, right, bottom = self.box
        y, x = torch.arange(size[0]) + 0.5, torch.arange(size[1]) + 0.5
        return ((y > top) & (y < bottom))[:, None] & ((x > left) & (x < right))


@dataclass(frozen=True)
class Truth:
    """What a localisation metric asks about one label in one picture (TorchRay's pointing game, Fong 2019).

    Attributes:
        mask: (H, W) bool, the union of the label's objects, in the photo's pixels.
        difficult: the mask covers less than a quarter of the picture, and another label is present.
        skip: the label's objects are all flagged difficult by the annotators, so the protocol doesn't ask
            about it.
    """

    mask: Tensor
    difficult: bool
    skip: bool


@dataclass(frozen=True)
class Sample:
    """One picture with what is known about it.

    Attributes:
        id: unique in the data set and the same on every machine.
        picture: opened only when asked for.
        labels: the things to be found in it, each once.
        objects: where they are, if that is known.
    """

    id: str
    picture: Picture
    labels: tuple[Label, ...]
    objects: tuple[Object, ...] = ()

    @property
    def size(self) -> Size:
        """(height, width) in pixels."""
        return self.picture.size()

    def image(self) -> Image.Image:
        """The RGB image.

        Raises:
            UnreadableImageError: it is missing or damaged; its ``problem`` belongs in the report.
        """
        return self.picture.open()

    def files(self) -> tuple[Photo, ...]:
        """The files of the picture, then those of its objects' regions; each once."""
        regions = (thing.region for thing in self.objects)
        places = (photo for region in regions if region is not None for photo in region.files())
        return tuple(dict.fromkeys((*self.picture.files(), *places)))

    def truth(self, label: Label) -> Truth:
        """Where the label's objects are; a label without objects has an empty mask."""
        size = self.size
        own = [thing for thing in self.objects if thing.label == label]
        mask = torch.zeros(size, dtype=torch.bool)
        for thing in own:
            mask |= thing.mask(size)
        others = any(thing.label != label for thing in self.objects)
        small = int(mask.sum()) < 0.25 * mask.numel()
        return Truth(
            mask, difficult=small and others, skip=bool(own) and all(thing.difficult for thing in own)
        )


def checked_box(box: Box, size: Size, slack: float = 1.0) -> Box | str:
    """The box inside a picture of (height, width), or why it can't be one.

    Annotations round in many ways, so an edge up to ``slack`` pixels outside is moved to the border.
    """
    left, top, right, bottom = box
    height, width = size
    if not np.isfinite(box).all() or left >= right or top >= bottom:
        return f"the box {_shown(box)} (left, top, right, bottom) has no area"
    if left < -slack or top < -slack or right > width + slack or bottom > height + slack:
        image = f"the image of {shown_size(size)} pixels"
        return f"the box {_shown(box)} (left, top, right, bottom) leaves {image}"
    return max(left, 0.0), max(top, 0.0), min(right, float(width)), min(bottom, float(height))


def shown_size(size: Size) -> str:
    """``640 x 480``, the width first, of a size of (height, width)."""
    return f"{size[1]} x {size[0]}"


def unique(labels: Iterable[Label]) -> tuple[Label, ...]:
    """Each label once, in order of first appearance."""
    return tuple(dict.fromkeys(labels))


def _shown(box: Box) -> str:
    return "(" + ", ".join(f"{edge:g}" for edge in box) + ")"
