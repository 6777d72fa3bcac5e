"""What goes into an evaluation: samples become tensors with their truth, in the background and in order."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.export import ExportedProgram

from clarp.data.dataset import Dataset
from clarp.data.problems import Problem, UnreadableImageError
from clarp.data.sample import Label, Sample, Truth
from clarp.geometry import Box, Geometry, Size
from clarp.images import notes_of
from clarp.models import Classifier

Item = TypeVar("Item")
AHEAD = 17
"""How many samples are opened, or wait to be asked, at once."""


@dataclass(frozen=True, eq=False)
class Unit:
    """One question: one label in one picture.

    Attributes:
        number: the sample's place in the run.
        sample: the picture.
        label: the class ids that name it; any of them is right.
        image: (C, H, W), preprocessed.
        place: how the photo became the tensor; None where no metric needs it.
        truth: where the label's objects are; None where no metric needs it.
        cell: the label's place among the objects.
    """

    number: int
    sample: Sample
    label: Label
    image: Tensor
    place: Geometry | None
    truth: Truth | None
    cell: int

    @property
    def boxes(self) -> list[Box]:
        """The label's boxes in fractions of the input's width and height; none without a place."""
        if self.place is None:
            return []
        height, width = self.image.shape[1:]
        given = [thing.box for thing in self.sample.objects if thing.label == self.label and thing.box]
        seen = [box for box in map(self.place.box_to_model, given) if box]
        return [(x / width, y / height, right / width, bottom / height) for x, y, right, bottom in seen]


@dataclass
class Loader:
    """Opens samples for one model.

    Attributes:
        classifier: its preprocessing is used; pictures that already have the model's size are only
            normalised.
        as_is: whether the pictures have.
        located: load masks.
        placed: find out how each photo becomes a tensor.
        all_labels: one unit per label; otherwise one per sample, with its first label.
        assumed: what was assumed to open pictures: each sample's id with a sentence.
    """

    classifier: Classifier
    as_is: bool
    located: bool
    placed: bool
    all_labels: bool = True
    assumed: dict[tuple[str, str], None] = field(default_factory=dict, repr=False)
    _places: dict[Size, Geometry] = field(default_factory=dict, repr=False)

    def check(self, sample: Sample) -> None:
        """Refuse a preprocessing that can't do what is asked, before anything starts.

        Raises:
            ValueError: it isn't linear in the colours, and pictures are to be normalised only; or it does
                more than resize and crop, and masks are to follow it.
        """
        if self.as_is:
            self._check_scale()
        if self.placed:
            try:
                self._place(sample.size)
            except ValueError:  # it may be this photo: damaged, or too small to measure on
                self._place((300, 400))

    def tensor(self, sample: Sample) -> Tensor:
        """The picture as the model sees it, (C, H, W).

        Raises:
            UnreadableImageError: missing, damaged, or the preprocessing can't take it.
        """
        photo = sample.image()
        self.assumed |= {(sample.id, said): None for said in notes_of(photo)}
        try:
            image = self.normalised(photo) if self.as_is else self.classifier.preprocess(photo)
        except Exception as error:  # the user's own preprocessing may raise anything
            reason = f"the preprocessing failed with {type(error).__name__}: {error}"
            raise UnreadableImageError(Problem("damaged", sample.id, reason)) from error
        if not bool(torch.isfinite(image).all()):
            reason = "the preprocessing made NaN or infinity of it"
            raise UnreadableImageError(Problem("damaged", sample.id, reason))
        return image

    def units(self, numbered: tuple[int, Sample]) -> list[Unit] | Problem:
        """The questions about one sample, or why it can't be asked."""
        number, sample = numbered
        try:
            image = self.tensor(sample)
            labels = sample.labels if self.all_labels else sample.labels[:1] or ((),)
            place, truths = self._located(sample, labels)
        except UnreadableImageError as error:
            return error.problem
        cells: dict[Label, int] = {}
        for cell, thing in enumerate(sample.objects):
            cells.setdefault(thing.label, cell)
        return [
            Unit(number, sample, label, image, place, truth, cells.get(label, -1))
            for label, truth in zip(labels, truths, strict=True)
        ]

    def _located(self, sample: Sample, labels: Sequence[Label]) -> tuple[Geometry | None, list[Truth | None]]:
        """How the photo becomes the tensor, and where each label is; None where no metric needs it.

        Raises:
            UnreadableImageError: its file, its size or its objects don't allow to say.
        """
        try:
            place = self._place(sample.size) if self.placed else None
            return place, [sample.truth(label) if self.located else None for label in labels]
        except UnreadableImageError:
            raise
        except ValueError as error:
            shown = "x".join(map(str, sample.size))
            reason = f"where its objects are can't be told, {shown} pixels (height x width): {error}"
            raise UnreadableImageError(Problem("damaged", sample.id, reason)) from error

    def _place(self, size: Size) -> Geometry:
        if self.as_is:
            return Geometry.of(size)
        if size not in self._places:
            self._places[size] = Geometry.measured(self.classifier.preprocess, size)
        return self._places[size]

    def normalised(self, photo: Image.Image) -> Tensor:
        """A picture that already has the model's size, (C, H, W)."""
        scale = self.classifier.pixel_scale
        assert scale is not None
        pixels = torch.from_numpy(np.array(photo, dtype=np.float64) / 255)
        return (torch.einsum("kc,hwc->khw", scale.colours, pixels) + scale.black[:, None, None]).float()

    def _check_scale(self) -> None:
        """A picture of one grey must come out as the line between black and white says."""
        grey = Image.new("RGB", (320, 320), (127, 127, 127))
        if self.classifier.pixel_scale is not None:
            expected = self.normalised(grey)[:, :1, :1]
            if bool(torch.isclose(self.classifier.preprocess(grey).float(), expected, atol=1e-4).all()):
                return
        raise ValueError(
            f"the preprocessing of {self.classifier.name} is not linear in the colours, so pictures that "
            "already have the model's size (mosaics, composites) can't be normalised without it: use a "
            "data set of photos."
        )


def module_on(classifier: Classifier, device: torch.device) -> nn.Module:
    """The classifier's model as a module on a device; that of an exported program is made anew."""
    module = classifier.module
    return (module.module() if isinstance(module, ExportedProgram) else module).to(device)


def label_limit(dataset: Dataset, classes: int) -> None:
    """Refuse a data set whose classes are not the model's.

    Raises:
        ValueError: a class id that the model doesn't have, or another number of classes.
    """
    if dataset.classes and len(dataset.classes) != classes:
        raise ValueError(
            f"{dataset.name} numbers {len(dataset.classes)} classes, and the model has {classes}: their ids "
            "don't mean the same. Give a model that was trained on these classes (--weights, --labels)."
        )
    for sample in dataset:
        greatest = max(map(max, sample.labels), default=-1)
        if greatest >= classes:
            own = f"the model's {classes} classes are 0 to {classes - 1}."
            raise ValueError(f"{sample.id} has the class {greatest}, and {own}")


def spread(items: Sequence[Item], limit: int | None) -> Sequence[Item]:
    """All items, or ``limit`` of them, evenly spread.

    >>> spread("abcdefg", 3)
    ['a', 'c', 'e']
    """
    count = len(items)
    if limit is None or limit >= count:
        return items
    return [items[number * count // limit] for number in range(limit)]
