"""What happens to the prediction when pixels go, or come, in the order of their relevance."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from clarp.evaluation.metrics.base import Direction, Heatmaps, Metric, Model, check_whole, region_ranks
from clarp.evaluation.metrics.perturbation import (
    Fill,
    check_fill,
    filling,
    masked_values,
    mean_image_for,
    painter,
    pasted,
    predicted,
)


@dataclass(frozen=True)
class Deletion(Metric):
    """The deletion game (RISE, Petsiuk 2018, arXiv 1806.07421): lower is better.

    Pixels are filled from the most relevant on, equal ones row by row, in ``steps`` equal steps. With p_i the
    target's probability after step i (softmax, or as the model's task has it), ``auc = sum_i (p_i + p_(i+1))
    / (2 steps)``.

    Attributes:
        steps: number of steps; RISE takes one per row of the image (224).
        fill: see :data:`~clarp.evaluation.metrics.perturbation.Fill`; RISE deletes to the mean colour.
        chunk: at most so many images go through the model at once.
    """

    steps: int = 32
    fill: Fill = "colour"
    chunk: int = 64

    name: ClassVar[str] = "deletion"
    needs_model: ClassVar[bool] = True
    better: ClassVar[Direction] = "lower"

    def __post_init__(self) -> None:
        _check_steps(self.steps)
        check_whole(chunk=self.chunk)
        check_fill(self.fill)

    def ends(self, images: Tensor, fill: Tensor) -> tuple[Tensor, Tensor]:
        """The pictures before the first step and those after the last, each (B, C, H, W)."""
        return images, fill

    @property
    def optional_truth(self) -> tuple[str, ...]:
        return mean_image_for(self.fill)

    @property
    def columns(self) -> dict[str, Direction]:
        """``auc``, ``p@0.0000`` (before the first step) to ``p@1.0000`` (after the last), ``degenerate``."""
        return {"auc": self.better, **dict.fromkeys(self._curve, "none"), "degenerate": "none"}

    @property
    def _curve(self) -> list[str]:
        return [f"p@{i / self.steps:.4f}" for i in range(self.steps + 1)]

    def measure(
        self,
        heatmaps: Heatmaps,
        *,
        model: Model,
        images: Tensor,
        targets: Tensor | None,
        mean_image: Tensor | None = None,
    ) -> dict[str, Tensor]:
        before, after = self.ends(images, filling(images, self.fill, mean_image))
        order = heatmaps.ranks()
        counts = torch.tensor([round(i * order[0].numel() / self.steps) for i in range(self.steps + 1)])
        curve = masked_values(
            model,
            pasted(before, after),
            lambda image, variant: order[image] < counts[variant][:, None, None],
            variants=self.steps + 1,
            targets=predicted(model, images, targets, chunk=self.chunk),
            device=images.device,
            chunk=self.chunk,
        )
        auc = torch.trapezoid(curve, dim=1) / self.steps
        return {"auc": auc, **dict(zip(self._curve, curve.unbind(1), strict=True))}


@dataclass(frozen=True)
class Insertion(Deletion):
    """The insertion game (RISE, Petsiuk 2018, arXiv 1806.07421): higher is better.

    As :class:`Deletion`, but it begins with the filled image, and pixels come back from the most relevant on.
    RISE begins with a blurred image.
    """

    fill: Fill = "blur"

    name: ClassVar[str] = "insertion"
    better: ClassVar[Direction] = "higher"

    def ends(self, images: Tensor, fill: Tensor) -> tuple[Tensor, Tensor]:
        """From the filled images to the images."""
        return fill, images


@dataclass(frozen=True)
class AOPC(Metric):
    """Area over the perturbation curve, most relevant first (Samek 2017, arXiv 1509.06321): higher is better.

    The image is divided into a grid of ``size`` x ``size`` regions from the upper left (those at the right
    and lower border are cut off there), ordered by the mean of their relevance, equal ones row by row. For
    whole regions mean and sum order alike; by the sum, those that are cut off would come late where relevance
    is positive and early where it is negative, for their size alone. With x_k the image whose first k regions
    are filled and L the number of steps,

    ``aopc = sum_{k=0..L} (y_t(x_0) - y_t(x_k)) / (L + 1)``.

    Samek fills with noise and takes the network's score; here the fill is deterministic and y_t the
    probability, as in the other metrics.

    Attributes:
        size: side of a region in pixels, 9 in the paper.
        steps: L, 100 in the paper.
        fill: see :data:`~clarp.evaluation.metrics.perturbation.Fill`.
        chunk: at most so many images go through the model at once.

    Raises:
        ValueError: when it is called, that the image has fewer regions than steps.
    """

    size: int = 9
    steps: int = 100
    fill: Fill = "mean"
    chunk: int = 64

    name: ClassVar[str] = "aopc"
    needs_model: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check_steps(self.steps)
        check_whole(size=self.size, chunk=self.chunk)
        check_fill(self.fill)

    @property
    def optional_truth(self) -> tuple[str, ...]:
        return mean_image_for(self.fill)

    @property
    def columns(self) -> dict[str, Direction]:
        """``aopc``, then the curve: ``drop@k`` after k regions for k = 1 ... steps, ``degenerate``."""
        curve: dict[str, Direction] = {f"drop@{k}": "none" for k in range(1, self.steps + 1)}
        return {"aopc": "higher", **curve, "degenerate": "none"}

    def measure(
        self,
        heatmaps: Heatmaps,
        *,
        model: Model,
        images: Tensor,
        targets: Tensor | None,
        mean_image: Tensor | None = None,
    ) -> dict[str, Tensor]:
        order = region_ranks(heatmaps.values, self.size)
        count = int(order.max()) + 1
        if count < self.steps:
            height, width = images.shape[2:]
            raise ValueError(
                f"{height} x {width} pixels have {count} regions of {self.size} x {self.size}, but "
                f"steps={self.steps}: give at most {count} steps, or smaller regions"
            )
        found = masked_values(
            model,
            painter(images, self.fill, mean_image),
            lambda image, variant: order[image] < variant[:, None, None],
            variants=self.steps + 1,
            targets=predicted(model, images, targets, chunk=self.chunk),
            device=images.device,
            chunk=self.chunk,
        )
        drops = found[:, :1] - found
        curve = {f"drop@{k}": drops[:, k] for k in range(1, self.steps + 1)}
        return {"aopc": drops.mean(dim=1), **curve}


def _check_steps(steps: int) -> None:
    check_whole(steps=steps)
    if steps > 1000:
        raise ValueError(f"steps={steps}: give between 1 and 1000 steps")
