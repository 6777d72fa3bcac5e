"""Two cut-outs on a background: every object's exact pixels are known by construction."""

import itertools
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from clarp.data.dataset import Dataset
from clarp.data.draws import below, draw
from clarp.data.photo import Photo
from clarp.data.problems import AnnotationError, Contradiction
from clarp.data.sample import Object, Sample
from clarp.geometry import Box, Size

IMAGENET_GREY = (124, 116, 104)
"""ImageNet's mean colour: the background that says least to a classifier."""
_OPAQUE = 128


@dataclass(frozen=True)
class Cutout:
    """A photo with transparency, trimmed to its visible part, scaled and placed.

    Attributes:
        photo: the file.
        left, top, width, height: its place on the canvas in whole pixels.
    """

    photo: Photo
    left: int
    top: int
    width: int
    height: int

    @property
    def box(self) -> Box:
        return self.left, self.top, self.left + self.width, self.top + self.height

    def image(self) -> Image.Image:
        """The scaled cut-out, RGBA."""
        return _trimmed(self.photo).resize((self.width, self.height), Image.Resampling.LANCZOS)

    def mask(self, size: Size) -> Tensor:
        """(H, W) bool: the canvas' pixels that it covers by at least half."""
        mask = torch.zeros(size, dtype=torch.bool)
        alpha = np.array(self.image().getchannel("A"))
        opaque = torch.from_numpy(alpha >= _OPAQUE)
        mask[self.top : self.top + self.height, self.left : self.left + self.width] = opaque
        return mask

    def files(self) -> tuple[Photo, ...]:
        return (self.photo,)


@dataclass(frozen=True)
class ComposedPicture:
    """Cut-outs pasted on a background.

    Attributes:
        side: of the square canvas, in pixels.
        cutouts: they do not overlap.
        background: a colour, or a photo cut to a square in its middle and scaled to the canvas.
    """

    side: int
    cutouts: tuple[Cutout, ...]
    background: tuple[int, int, int] | Photo

    def __repr__(self) -> str:
        # By the name that fingerprints of data sets have had from the first run on.
        return f"Composite(side={self.side!r}, cutouts={self.cutouts!r}, background={self.background!r})"

    def size(self) -> Size:
        return self.side, self.side

    def open(self) -> Image.Image:
        if isinstance(self.background, Photo):
            canvas = ImageOps.fit(self.background.open(), (self.side, self.side), Image.Resampling.BILINEAR)
        else:
            canvas = Image.new("RGB", (self.side, self.side), self.background)
        for cutout in self.cutouts:
            image = cutout.image()
            canvas.paste(image, (cutout.left, cutout.top), image)
        return canvas

    def files(self) -> tuple[Photo, ...]:
        behind = (self.background,) if isinstance(self.background, Photo) else ()
        return (*(cutout.photo for cutout in self.cutouts), *behind)


def composites(
    cutouts: Dataset,
    count: int,
    *,
    side: int = 224,
    background: tuple[int, int, int] | Dataset = IMAGENET_GREY,
    seed: int = 0,
) -> Dataset:
    """Squares with two cut-outs of different classes, one in each half.

    The halves lie side by side or one above the other, by the seed; in each, the cut-out's longer side
    (relative to the half) takes between 3/4 and all of the half, at a place by the seed. So the two never
    overlap.

    Args:
        cutouts: single-label samples of files with transparency, for example
            ``image_table(folder, class_column="classes")``.
        count: number of composites.
        side: of the canvas in pixels; give the model's input size, the pictures are used as they are.
        background: a colour, or photos to choose from (samples of files).
        seed: another seed, other composites; the same seed, the same composites on every machine.

    Returns:
        Samples with two objects with exact masks. Ids begin with the seed.

    Raises:
        ValueError: fewer than two classes, or a sample that isn't one file with one label.
        AnnotationError: a cut-out without any transparent pixel, or without any opaque one; all of them at
            once.
        UnreadableImageError: a cut-out is missing or damaged; ``cutouts.verified()`` sorts those out first.
    """
    photos = _checked(cutouts)
    samples: list[Sample] = []
    for index in range(count):
        beside = draw(seed, index, "beside") < 0.5
        pair = _pair(cutouts, seed, index)
        placed = tuple(
            _placed(*photos[sample.id], side, (seed, index, half), half, beside=beside)
            for half, sample in enumerate(pair)
        )
        objects = tuple(
            Object(sample.labels[0], sample.id, cutout.box, region=cutout)
            for sample, cutout in zip(pair, placed, strict=True)
        )
        picture = ComposedPicture(side, placed, _chosen_background(background, seed, index))
        labels = tuple(thing.label for thing in objects)
        samples.append(Sample(f"{seed}-{index:05d}", picture, labels, objects))
    return replace(cutouts, name=f"{cutouts.name}-composites", samples=tuple(samples), as_is=True)


def _pair(cutouts: Dataset, seed: int, index: int) -> tuple[Sample, Sample]:
    """Two samples that share no class id."""
    for attempt in itertools.count():
        first = cutouts[below(len(cutouts), seed, index, attempt, "first")]
        second = cutouts[below(len(cutouts), seed, index, attempt, "second")]
        if _differ(first, second):
            break
    return first, second


def _placed(
    photo: Photo, size: Size, side: int, names: tuple[int, int, int], half: int, *, beside: bool
) -> Cutout:
    """A cut-out of (height, width) at a random place in its half of the canvas, drawn by ``names``."""
    thickness = side // 2
    room = (side, thickness) if beside else (thickness, side)
    share = 0.75 + 0.25 * draw(*names, "scale")
    factor = share * min(room[0] / size[0], room[1] / size[1])
    height, width = max(1, round(size[0] * factor)), max(1, round(size[1] * factor))
    top = int((room[0] - height + 1) * draw(*names, "top"))
    left = int((room[1] - width + 1) * draw(*names, "left"))
    shift = half * (side - thickness)
    if beside:
        return Cutout(photo, left + shift, top, width, height)
    return Cutout(photo, left, top + shift, width, height)


def _chosen_background(
    background: tuple[int, int, int] | Dataset, seed: int, index: int
) -> tuple[int, int, int] | Photo:
    if not isinstance(background, Dataset):
        return background
    sample = background[below(len(background), seed, index, "background")]
    if not isinstance(sample.picture, Photo):
        raise ValueError(f"{sample.id} is no file: backgrounds are photos")  # noqa: TRY004  a wrong sample
    return sample.picture


def _checked(cutouts: Dataset) -> dict[str, tuple[Photo, Size]]:
    """For each sample its file and the size of its visible part."""
    found: dict[str, tuple[Photo, Size]] = {}
    wrong: list[Contradiction] = []
    for sample in cutouts:
        if len(sample.labels) != 1 or not isinstance(sample.picture, Photo):
            labels = f"{sample.id} has {len(sample.labels)} labels"
            raise ValueError(f"{labels}: a cut-out is one file with one label")
        image = sample.picture.open_with_alpha()
        alpha = np.array(image.getchannel("A"))
        if alpha.min() >= _OPAQUE or alpha.max() < _OPAQUE:
            reason = "no cut-out: it needs both opaque and transparent pixels"
            wrong.append(Contradiction(sample.id, 1, reason))
            continue
        trimmed = _trimmed(sample.picture)
        found[sample.id] = (sample.picture, (trimmed.height, trimmed.width))
    if wrong:
        raise AnnotationError(wrong)
    if not any(_differ(first, other) for first in cutouts for other in cutouts):
        raise ValueError(
            f"{cutouts.name} has no two cut-outs of different classes: add cut-outs of another class"
        )
    return found


def _differ(first: Sample, second: Sample) -> bool:
    return set(first.labels[0]).isdisjoint(second.labels[0])


def _trimmed(photo: Photo) -> Image.Image:
    """The visible part of a cut-out, RGBA."""
    image = photo.open_with_alpha()
    visible = image.getchannel("A").point(lambda alpha: 255 * (alpha >= _OPAQUE))
    return image.crop(visible.getbbox())
