"""What classifiers trained on ImageNet share: 1000 class names and a preprocessing.

Both are torchvision's, to the letter and to the bit, without importing it: that takes as long as importing
PyTorch itself.
"""

import runpy
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from clarp.greys import greys
from clarp.models.classifier import Preprocess

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def labels() -> tuple[str, ...]:
    """The 1000 class names, as torchvision spells them."""
    package = find_spec("torchvision")
    if package is not None and package.origin is not None:
        names = Path(package.origin).parent / "models" / "_meta.py"
        found = runpy.run_path(str(names)).get("_IMAGENET_CATEGORIES") if names.is_file() else None
        if found is not None:
            return tuple(found)
    from clarp.models._torchvision import torchvision

    return tuple(torchvision.models.ResNet50_Weights.DEFAULT.meta["categories"])


@dataclass(frozen=True)
class Evaluation:
    """The usual evaluation transform, from an RGB photo to (C, H, W): resize, cut out the middle, normalise.

    Attributes:
        resize: the photo's shorter side becomes this.
        size: height and width of what is cut out.
        mean: subtracted from each channel, on the scale of 0 to 1.
        std: what is left is divided by it.
        interpolation: ``"bilinear"`` or ``"bicubic"``.
    """

    resize: int
    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str

    def __call__(self, photo: Image.Image) -> Tensor:
        """(C, H, W) float32."""
        middle = resized_middle(photo, self.resize, self.size, self.interpolation)
        pixels = torch.from_numpy(np.array(middle)).permute(2, 0, 1).contiguous().float() / 255
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (self.mean, self.std))
        return (pixels - mean) / std


@dataclass(frozen=True)
class GreyEvaluation:
    """From a photo to (1, H, W): resize, cut out the middle, greys from 0 (black) to 1 (white).

    The greys have the full depth of the photo's file.

    Attributes:
        resize: the photo's shorter side becomes this.
        size: height and width of what is cut out.
    """

    resize: int
    size: tuple[int, int]

    def __call__(self, photo: Image.Image) -> Tensor:
        """(1, H, W) float32."""
        middle = resized_middle(Image.fromarray(greys(photo)), self.resize, self.size, "bilinear")
        return torch.from_numpy(np.array(middle))[None]


def resized_middle(photo: Image.Image, resize: int, size: tuple[int, int], interpolation: str) -> Image.Image:
    """The middle of a photo, ``size`` high and wide, after its shorter side became ``resize``."""
    width, height = photo.size
    short = min(width, height)
    if short != resize:
        photo = photo.resize((resize * width // short, resize * height // short), _FILTERS[interpolation])
    rows, columns = size
    left, top = round((photo.width - columns) / 2), round((photo.height - rows) / 2)
    return photo.crop((left, top, left + columns, top + rows))


def preprocessing(
    size: tuple[int, int] = (224, 224),
    *,
    mean: Sequence[float] = MEAN,
    std: Sequence[float] = STD,
    interpolation: str = "bilinear",
) -> Preprocess:
    """The usual evaluation transform: resize, cut out the middle 7/8, normalise.

    Args:
        size: height and width of what the model gets. The photo's shorter side becomes 8/7 of the longer of
            the two.
        mean: subtracted from each channel, on the scale of 0 to 1.
        std: what is left is divided by it.
        interpolation: ``"bilinear"`` or ``"bicubic"``.
    """
    return Evaluation(max(size) * 8 // 7, size, tuple(mean), tuple(std), interpolation)
