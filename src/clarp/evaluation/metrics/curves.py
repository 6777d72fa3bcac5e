"""What happens to the prediction when pixels go, or come, in the order of their relevance."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from clarp.evaluation.metrics.base import Direction, Heatmaps, Metric, Model, Rows, ranks
from clarp.evaluation.metrics.perturbation import Fill, filling, masked_probabilities, predicted


@dataclass(frozen=True)
class Deletion(Metric):
    """The deletion game (RISE, Petsiuk 2018, arXiv 1806.07421): lower is better.

    Pixels are filled from the most relevant on, equal ones row by row, in ``steps`` equal steps. With p_i the
    target's softmax probability after step i, ``auc = sum_i (p_i + p_(i+1)) / (2 steps)``.

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

    def __post_init__(self) -> None:
        _check_steps(self.steps)

    @property
    def columns(self) -> dict[str, Direction]:
        """``auc``, then the curve: ``p@0.0000`` (whole image) to ``p@1.0000`` (all pixels filled), ``degenerate``."""
        return {"auc": "lower", **dict.fromkeys(_curve_names(self.steps), "none"), "degenerate": "none"}

    def __call__(
        self,
        model: Model,
        images: Tensor,
        maps: Tensor,
        *,
        targets: Tensor | None = None,
        mean_image: Tensor | None = None,
    ) -> Rows:
        """Delete pixels; arguments as in :meth:`PatchMasking.__call__ <clarp.evaluation.PatchMasking>`."""
        heatmaps = Heatmaps.of(maps, like=images)
        fill = filling(images, self.fill, mean_image)
        curve = _curve(
            model, images, fill, heatmaps.ranks(), steps=self.steps, targets=targets, chunk=self.chunk
        )
        return _curve_rows(curve, heatmaps)


@dataclass(frozen=True)
class Insertion(Metric):
    """The insertion game (RISE, Petsiuk 2018, arXiv 1806.07421): higher is better.

    As :class:`Deletion`, but it begins with the filled image, and pixels come back from the most relevant on.

    Attributes:
        steps: number of steps; RISE takes one per row of the image (224).
        fill: see :data:`~clarp.evaluation.metrics.perturbation.Fill`; RISE begins with a blurred image.
        chunk: at most so many images go through the model at once.
    """

    steps: int = 32
    fill: Fill = "blur"
    chunk: int = 64

    name: ClassVar[str] = "insertion"
    needs_model: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check_steps(self.steps)

    @property
    def columns(self) -> dict[str, Direction]:
        """``auc``, then the curve: ``p@0.0000`` (nothing inserted) to ``p@1.0000`` (whole image), ``degenerate``."""
        return {"auc": "higher", **dict.fromkeys(_curve_names(self.steps), "none"), "degenerate": "none"}

    def __call__(
        self,
        model: Model,
        images: Tensor,
        maps: Tensor,
        *,
        targets: Tensor | None = None,
        mean_image: Tensor | None = None,
    ) -> Rows:
        """Insert pixels; arguments as in :meth:`PatchMasking.__call__ <clarp.evaluation.PatchMasking>`."""
        heatmaps = Heatmaps.of(maps, like=images)
        fill = filling(images, self.fill, mean_image)
        # To insert is to begin with the fill and to cover it with the image.
        targets = predicted(model, images, targets, chunk=self.chunk)
        order = heatmaps.ranks()
        curve = _curve(model, fill, images, order, steps=self.steps, targets=targets, chunk=self.chunk)
        return _curve_rows(curve, heatmaps)


@dataclass(frozen=True)
class AOPC(Metric):
    """Area over the perturbation curve, most relevant first (Samek 2017, arXiv 1509.06321): higher is better.

    The image is divided into a grid of ``size`` x ``size`` regions from the upper left (those at the right
    and lower border are cut off there), ordered by the sum of their relevance, equal ones row by row. With
    x_k the image whose first k regions are filled and L the number of steps,

    ``aopc = sum_{k=0..L} (y_t(x_0) - y_t(x_k)) / (L + 1)``.

    Samek fills with noise and takes the network's score; here the fill is deterministic and y_t the softmax
    probability, as in the other metrics.

    Attributes:
        size: side of a region in pixels, 9 in the paper.
        steps: L, 100 in the paper.
        fill: see :data:`~clarp.evaluation.metrics.perturbation.Fill`.
        chunk: at most so many images go through the model at once.
    """

    size: int = 9
    steps: int = 100
    fill: Fill = "mean"
    chunk: int = 64

    name: ClassVar[str] = "aopc"
    needs_model: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check_steps(self.steps)
        if self.size < 1:
            raise ValueError(f"size={self.size}: give regions of at least 1 pixel")

    @property
    def columns(self) -> dict[str, Direction]:
        """``aopc``, then the curve: ``drop@k`` after k regions for k = 1 ... steps, ``degenerate``."""
        curve: dict[str, Direction] = {f"drop@{k}": "none" for k in range(1, self.steps + 1)}
        return {"aopc": "higher", **curve, "degenerate": "none"}

    def __call__(
        self,
        model: Model,
        images: Tensor,
        maps: Tensor,
        *,
        targets: Tensor | None = None,
        mean_image: Tensor | None = None,
    ) -> Rows:
        """Fill regions; arguments as in :meth:`PatchMasking.__call__ <clarp.evaluation.PatchMasking>`.

        Raises:
            ValueError: the image has fewer regions than steps.
        """
        heatmaps = Heatmaps.of(maps, like=images)
        order = self._region_ranks(heatmaps.values)
        probability = masked_probabilities(
            model,
            images,
            filling(images, self.fill, mean_image),
            lambda image, variant: order[image] < variant[:, None, None],
            variants=self.steps + 1,
            targets=predicted(model, images, targets, chunk=self.chunk),
            chunk=self.chunk,
        )
        drops = probability[:, :1] - probability
        curve = {f"drop@{k}": drops[:, k] for k in range(1, self.steps + 1)}
        return Rows({"aopc": drops.mean(dim=1), **curve, "degenerate": heatmaps.degenerate})

    def _region_ranks(self, values: Tensor) -> Tensor:
        """(B, H, W) long: for each pixel the place of its region in the order."""
        height, width = values.shape[1:]
        across = -(-width // self.size)
        rows, columns = torch.arange(height) // self.size, torch.arange(width) // self.size
        region = (rows[:, None] * across + columns).flatten()
        count = int(region.max()) + 1
        if count < self.steps:
            raise ValueError(
                f"{height} x {width} pixels have {count} regions of {self.size} x {self.size}, but steps={self.steps}: "
                f"give at most {count} steps, or smaller regions"
            )
        sums = torch.zeros(len(values), count, dtype=values.dtype).index_add_(1, region, values.flatten(1))
        return ranks(sums)[:, region].view(values.shape)


def _curve(
    model: Model,
    images: Tensor,
    fill: Tensor,
    order: Tensor,
    *,
    steps: int,
    targets: Tensor | None,
    chunk: int,
) -> Tensor:
    """(B, steps + 1): the probability when the first i / steps of the pixels show the fill."""
    counts = torch.tensor([round(i * order[0].numel() / steps) for i in range(steps + 1)])
    return masked_probabilities(
        model,
        images,
        fill,
        lambda image, variant: order[image] < counts[variant][:, None, None],
        variants=steps + 1,
        targets=predicted(model, images, targets, chunk=chunk),
        chunk=chunk,
    )


def _curve_rows(curve: Tensor, heatmaps: Heatmaps) -> Rows:
    steps = curve.shape[1] - 1
    names = _curve_names(steps)
    auc = torch.trapezoid(curve, dim=1) / steps
    points = {name: curve[:, number] for number, name in enumerate(names)}
    return Rows({"auc": auc, **points, "degenerate": heatmaps.degenerate})


def _curve_names(steps: int) -> list[str]:
    return [f"p@{i / steps:.4f}" for i in range(steps + 1)]


def _check_steps(steps: int) -> None:
    if not 1 <= steps <= 1000:
        raise ValueError(f"steps={steps}: give between 1 and 1000 steps")
