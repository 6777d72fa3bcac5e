"""The pointing game, as TorchRay plays it."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from clarp.evaluation.metrics.base import Direction, Heatmaps, Metric, only_where
from clarp.evaluation.metrics.perturbation import gaussian_blur
from clarp.geometry import Geometry

Flags = Tensor | Sequence[bool] | None


@dataclass(frozen=True)
class PointingGame(Metric):
    """The pointing game in TorchRay's protocol (Zhang 2016, arXiv 1608.00507; Fong 2019, arXiv 1910.08485).

    The map is brought back to the original image (bilinear), smoothed, and its greatest value is the point,
    of equal ones the first, row by row. A hit: some pixel of the class's objects lies closer than
    ``tolerance`` to the point, ``(u - u')^2 + (v - v')^2 < tolerance^2`` between pixel positions; or the
    point is itself such a pixel.

    - A map that is constant, or has NaN or infinity, is a miss.
    - An image without the class (empty mask) and one that the protocol skips (VOC: all its objects are
      flagged difficult) give NaN: they are not counted.
    - Pixels that the preprocessing's crop cut away can't be the point, but can be near it.

    ``hit_difficult`` is ``hit`` in the difficult subset and NaN outside; ``row`` and ``column`` are the
    point's. Accuracy is the mean over classes of each class's mean: :func:`mean_over_classes`.

    Attributes:
        tolerance: in pixels of the original image; 0 and 1 ask for the object's own pixels.
        smoothing: sigma of the Gaussian in units of the original image's longer side, cut at 4 sigma, zeros
            outside of the image. TorchRay takes 0.02 for pixel-level maps (gradient, guided backprop; LRP's
            are such), and 0 for maps of few cells (Grad-CAM).

    Raises:
        ValueError: a negative tolerance or smoothing.

    >>> heatmap, mask = torch.zeros(1, 40, 40), torch.zeros(1, 40, 40, dtype=torch.bool)
    >>> heatmap[0, 5, 5], mask[0, 5, 19] = 1.0, True
    >>> PointingGame(tolerance=15)(None, None, heatmap, masks=mask)["hit"].tolist()  # 14 pixels away
    [1.0]
    >>> PointingGame(tolerance=14)(None, None, heatmap, masks=mask)["hit"].tolist()
    [0.0]
    """

    tolerance: float = 15
    smoothing: float = 0.0

    name: ClassVar[str] = "pointing"
    truth: ClassVar[tuple[str, ...]] = ("masks",)
    optional_truth: ClassVar[tuple[str, ...]] = ("geometries", "difficult", "skip")
    columns: ClassVar[dict[str, Direction]] = {
        "hit": "higher",
        "hit_difficult": "higher",
        "row": "none",
        "column": "none",
        "degenerate": "none",
    }

    def __post_init__(self) -> None:
        if not (self.tolerance >= 0 and self.smoothing >= 0):
            raise ValueError(
                f"tolerance={self.tolerance}, smoothing={self.smoothing}: give distances of at least 0 (15 "
                "pixels and 0.02 of the longer side in TorchRay)"
            )

    def for_coarse_maps(self) -> "PointingGame":
        """Without smoothing, as TorchRay's protocol has it."""
        return replace(self, smoothing=0.0)

    def measure(
        self,
        heatmaps: Heatmaps,
        *,
        masks: Sequence[Tensor] | Tensor,
        geometries: Sequence[Geometry] | None = None,
        difficult: Flags = None,
        skip: Flags = None,
    ) -> dict[str, Tensor]:
        """Point.

        Args:
            heatmaps: (B, h, w), in the model's pixels.
            masks: B masks (H, W) bool in the pixels of their original images, which may differ in size.
            geometries: how each image was preprocessed; None: it was resized without a crop.
            difficult: (B,) which belong to the difficult subset (:class:`clarp.data.Truth`); None: none.
            skip: (B,) which the protocol doesn't ask about; None: none.

        Raises:
            ValueError: another number of masks, geometries or flags than maps, or another image's mask.
        """
        count = len(heatmaps.values)
        hard, left_out = _flags(difficult, count, "difficult"), _flags(skip, count, "skip")
        masks = [mask.detach().cpu().bool() for mask in masks]
        if len(masks) != count or (geometries is not None and len(geometries) != count):
            remedy = "give one mask and one geometry per map"
            raise ValueError(f"{len(masks)} masks do not fit {count} maps: {remedy}")
        if geometries is None:
            geometries = [Geometry.of(_size(mask), resize=_size(heatmaps.values[0])) for mask in masks]
        for mask, geometry in zip(masks, geometries, strict=True):
            if _size(mask) != geometry.original:
                raise ValueError(
                    f"a mask of {_size(mask)} pixels (height, width) is not of the image of "
                    f"{geometry.original} that was preprocessed: give the mask in the original image's "
                    "pixels"
                )
        points = [self._point(value, place) for value, place in zip(heatmaps.values, geometries, strict=True)]
        hits = torch.tensor([self.is_hit(mask, point) for mask, point in zip(masks, points, strict=True)])
        asked = torch.tensor([bool(mask.any()) for mask in masks]) & ~left_out
        hit = only_where(asked, hits & ~heatmaps.degenerate)
        place = torch.tensor(points, dtype=torch.float64)
        return {
            "hit": hit,
            "hit_difficult": only_where(hard, hit),
            "row": only_where(~heatmaps.degenerate, place[:, 0]),
            "column": only_where(~heatmaps.degenerate, place[:, 1]),
        }

    def is_hit(self, mask: Tensor, point: tuple[int, int]) -> bool:
        """Whether a (row, column) hits a mask (H, W): the rule alone, False for an empty mask."""
        # Only those that may be near: the mask of a large photo has millions.
        reach = math.ceil(min(self.tolerance, max(mask.shape)))
        (top, bottom), (left, right) = ((max(at - reach, 0), max(at + reach + 1, 0)) for at in point)
        pixels = mask[top:bottom, left:right].nonzero()
        squared = (pixels - torch.tensor([point[0] - top, point[1] - left])).square().sum(dim=1)
        return bool(((squared < self.tolerance**2) | (squared == 0)).any())

    def _point(self, heatmap: Tensor, geometry: Geometry) -> tuple[int, int]:
        """(row, column) in the original image."""
        original = geometry.map_to_original(heatmap)
        sigma = self.smoothing * max(original.shape)
        smooth = gaussian_blur(original[None, None], sigma, mode="constant")[0, 0]
        unseen = float(smooth.min()) - 1
        row, column = Heatmaps.of(smooth.masked_fill(~geometry.seen(), unseen)[None]).points()
        return int(row), int(column)


def mean_over_classes(values: Tensor, classes: Iterable[Any]) -> float:
    """The mean over classes of each class's mean, NaN rows left out (TorchRay's accuracy).

    A class none of whose rows count is left out too; NaN if that leaves nothing.

    Args:
        values: (B,) a column of rows.
        classes: B class ids or names.

    >>> mean_over_classes(torch.tensor([1.0, 1.0, 0.0, 0.0, torch.nan]), ["cat", "cat", "cat", "dog", "dog"])
    0.3333333333333333
    """
    groups: dict[Any, list[float]] = {}
    for value, name in zip(values.tolist(), classes, strict=True):
        if not math.isnan(value):
            groups.setdefault(name, []).append(value)
    means = [sum(group) / len(group) for group in groups.values()]
    return sum(means) / len(means) if means else float("nan")


def _flags(given: Flags, count: int, name: str) -> Tensor:
    flags = torch.as_tensor([False] * count if given is None else given).detach().cpu().bool()
    if flags.shape != (count,):
        shape = tuple(flags.shape)
        raise ValueError(f"{name} has the shape {shape}: give one flag for each of the {count} maps")
    return flags


def _size(image: Tensor) -> tuple[int, int]:
    return image.shape[0], image.shape[1]
