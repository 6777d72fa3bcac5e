"""A model with what is needed to use it on photos: labels, preprocessing, and its inverse."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.export import ExportedProgram

from clarp.classes import ClassNames
from clarp.task import TaskName

if TYPE_CHECKING:
    from clarp.exporting.file import ExplainedFile

Preprocess: TypeAlias = Callable[[Image.Image], Tensor]


@dataclass(frozen=True, eq=False)
class PixelScale:
    """How a preprocessing maps colours to numbers, measured on pictures of one colour each.

    Attributes:
        black: (C,) what a black pixel becomes.
        white: (C,) what a white pixel becomes.
        colours: (C, 3) what full red, green and blue add to black; ``white - black`` is their sum
            if the preprocessing is linear.
    """

    black: Tensor
    white: Tensor
    colours: Tensor

    @classmethod
    def measured(cls, preprocess: Preprocess) -> "PixelScale | None":
        """Measure a preprocessing; None where a plain picture does not come out plain.

        That is so when the preprocessing depends on the whole picture (standardises each by its own
        mean, say) or on the position.
        """
        values = [
            preprocess(Image.new("RGB", (320, 320), colour)).detach().double().flatten(1)
            for colour in ("black", "white", "red", "lime", "blue")
        ]
        if any(not (value == value[:, :1]).all() for value in values):  # NaN is caught here too
            return None
        black, white, *primaries = (value[:, 0] for value in values)
        if not (black != white).all():
            return None
        return cls(black, white, torch.stack(primaries, dim=1) - black[:, None])

    @property
    def bounds(self) -> tuple[Tensor, Tensor]:
        """(low, high), (C,) each: the smallest and the largest value of each channel."""
        low, high = torch.minimum(self.black, self.white), torch.maximum(self.black, self.white)
        return low.float(), high.float()

    def photo(self, tensor: Tensor) -> NDArray[np.uint8] | None:
        """Turn (C, H, W) back into (H, W, 3) bytes; None where the colours can't be told apart."""
        channels = len(self.black)
        offset = tensor.detach().double().cpu() - self.black[:, None, None]
        if channels == 1:
            pixels = (offset / (self.white - self.black)).expand(3, -1, -1)
        elif channels == 3 and torch.linalg.cond(self.colours) < 1e6:
            pixels = torch.einsum("kc,chw->khw", torch.linalg.inv(self.colours), offset)
        else:
            return None
        return _bytes(pixels)


def _bytes(pixels: Tensor) -> NDArray[np.uint8]:
    """(3, H, W) in 0 to 1 as (H, W, 3) bytes."""
    array: NDArray[np.uint8] = (pixels * 255).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
    return array


@dataclass(frozen=True, eq=False)
class Classifier:
    """An image classifier that knows its classes and how it wants its photos.

    Attributes:
        name: what the user calls it.
        module: the model, in eval mode; an ``ExportedProgram`` for a ``.pt2`` file; of a file that
            :func:`clarp.export` wrote, a module that runs it for its logits.
        labels: the name of each class, in the order of the logits.
        preprocess: turns an RGB photo into the float tensor (C, H, W) that the model expects.
        notes: what the user should know, a sentence each; assumptions above all.
        task: what the last layer means, where it is known; None: the captured graph tells.
        file: the file of :func:`clarp.export` that brings the explanation, where that is what was loaded.
    """

    name: str
    module: nn.Module | ExportedProgram
    labels: tuple[str, ...]
    preprocess: Preprocess
    notes: tuple[str, ...] = ()
    task: TaskName | None = None
    file: "ExplainedFile | None" = None

    @cached_property
    def pixel_scale(self) -> PixelScale | None:
        """The preprocessing's scale, or None where it differs from picture to picture."""
        return PixelScale.measured(self.preprocess)

    @property
    def bounds(self) -> tuple[Tensor, Tensor] | None:
        """(low, high) of every channel after preprocessing, (C,) each; None where there are none.

        Measured: what the preprocessing makes of a black and of a white picture.
        """
        return None if self.pixel_scale is None else self.pixel_scale.bounds

    def photo(self, tensor: Tensor) -> NDArray[np.uint8]:
        """The photo as the model saw it, from a preprocessed tensor.

        Args:
            tensor: (C, H, W), what ``preprocess`` returned.

        Returns:
            (H, W, 3) bytes, RGB. Where the preprocessing can't be inverted, the mean over the channels
            as a grey picture, from its smallest value (black) to its largest (white).
        """
        photo = None if self.pixel_scale is None else self.pixel_scale.photo(tensor)
        if photo is not None:
            return photo
        grey = tensor.detach().float().cpu().mean(0, keepdim=True)
        span = grey.max() - grey.min()
        return _bytes(((grey - grey.min()) / span.clamp(min=1e-12)).expand(3, -1, -1))

    @property
    def class_names(self) -> ClassNames:
        """The names of its classes, and which class a name means."""
        return ClassNames(self.labels, self.name)

    def class_index(self, name: str | int) -> int:
        """The index of a class, given by index or name: see :meth:`clarp.classes.ClassNames.index`.

        Raises:
            ValueError: no such class (the message has the nearest names), or several (it lists them).
            TypeError: neither a string nor an int.
        """
        return self.class_names.index(name)

    def check_is_model(self) -> None:
        """Refuse a file of :func:`clarp.export` where the model itself is needed.

        Raises:
            ValueError: it is one.
        """
        if self.file is not None:
            raise ValueError(
                f"{self.file.path} is a classifier with its explanation by {self.file.about.method}, in one "
                "program: `clarp explain --model` takes it. For everything else name the model that it was "
                "made of."
            )

    def weights_sha256(self) -> str:
        """SHA-256 over the model's parameters and buffers: names, types, shapes and bytes, sorted by name."""
        return sha256_of(self.module) if self.file is None else self.file.about.weights_sha256


def sha256_of(module: nn.Module | ExportedProgram) -> str:
    """SHA-256 over the parameters and buffers of a model: names, types, shapes and bytes, sorted by name."""
    digest = hashlib.sha256()
    state = module.state_dict if isinstance(module, ExportedProgram) else module.state_dict()
    for name, value in sorted(state.items()):
        if not isinstance(value, Tensor):
            continue
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
