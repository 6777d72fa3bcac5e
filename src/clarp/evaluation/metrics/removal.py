"""What the most and the least relevant parts are worth, each removed first in its turn."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from clarp.evaluation.metrics.base import (
    Direction,
    Heatmaps,
    Metric,
    Model,
    check_whole,
    ranks,
    region_ranks,
)
from clarp.evaluation.metrics.perturbation import (
    Cover,
    Paint,
    check_fill,
    masked_values,
    mean_image_for,
    painter,
    predicted,
    probability,
)
from clarp.task import Task


@dataclass(frozen=True)
class ROAD(Metric):
    """Remove and debias (Rong 2022, arXiv 2202.00449): higher is better.

    Pixels are removed in two orders, from the most and from the least relevant on (equal ones row by row),
    and replaced by their surroundings, continued linearly, with Gaussian noise
    (:func:`~clarp.evaluation.metrics.inpainting.inpainted`). With p the target's probability after the share
    s is removed, ``road = mean over s of p_least(s) - p_most(s)``; a map that orders nothing has 0.

    ``most@s`` and ``least@s`` are the two probabilities, ``kept_most@s`` and ``kept_least@s`` whether the
    target is still the most probable class: their means are the paper's curves of accuracy.

    Known bias: against mean colour, an imputation gives away less by the shape of what was removed, and the
    network is not trained anew; where most of the picture is gone, what is left is still no photo. Maps of a
    few large regions leave large holes, which a linear imputation fills with less.

    Attributes:
        shares: of the pixels that are removed, each above 0 and below 1.
        noise: standard deviation in units of the preprocessed pixels, 0.01 in the authors' code.
        seed: of the noise, which is the same for all images of a size.
        chunk: at most so many images go through the model at once.

    Raises:
        ValueError: no share, one twice or out of range, a negative noise, or a wrong chunk.
    """

    shares: float | tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 0.9)
    noise: float = 0.01
    seed: int = 0
    chunk: int = 64

    name: ClassVar[str] = "road"
    needs_model: ClassVar[bool] = True

    def __post_init__(self) -> None:
        asked = self._shares
        if not asked or len(set(asked)) != len(asked) or not all(0 < share < 1 for share in asked):
            raise ValueError(f"shares={self.shares}: give different shares of the pixels, above 0, below 1")
        if not self.noise >= 0:
            raise ValueError(f"noise={self.noise}: give a standard deviation of at least 0")
        check_whole(chunk=self.chunk)

    @property
    def _shares(self) -> tuple[float, ...]:
        return tuple(self.shares) if isinstance(self.shares, Sequence) else (self.shares,)

    @property
    def columns(self) -> dict[str, Direction]:
        """``road``, the curves ``most@s``, ``least@s``, ``kept_most@s``, ``kept_least@s``, ``degenerate``."""
        return {"road": "higher", **dict.fromkeys([*self._curves, "degenerate"], "none")}

    @property
    def _curves(self) -> list[str]:
        kinds = ("most", "least", "kept_most", "kept_least")
        return [f"{kind}@{share:g}" for kind in kinds for share in self._shares]

    def measure(
        self, heatmaps: Heatmaps, *, model: Model, images: Tensor, targets: Tensor | None
    ) -> dict[str, Tensor]:
        orders = torch.stack([ranks(sign * heatmaps.values.flatten(1)) for sign in (1, -1)], dim=1)
        orders = orders.view(len(images), 2, *heatmaps.values.shape[1:])
        count = orders[0, 0].numel()
        removed = torch.tensor([round(share * count) for share in self._shares]).repeat(2)
        order = torch.arange(2).repeat_interleave(len(self._shares))
        found = masked_values(
            model,
            _noisy(painter(images, "inpaint"), images, self.noise, self.seed),
            lambda image, variant: orders[image, order[variant]] < removed[variant][:, None, None],
            variants=len(removed),
            targets=predicted(model, images, targets, chunk=self.chunk),
            device=images.device,
            chunk=self.chunk,
            read=_probability_and_kept,
        )
        most, least = found[..., 0].chunk(2, dim=1)
        curves = found.movedim(2, 1).flatten(1)
        return {
            "road": (least - most).mean(dim=1),
            **dict(zip(self._curves, curves.unbind(dim=1), strict=True)),
        }


@dataclass(frozen=True)
class SRG(Metric):
    """The symmetric relevance gain (Bluecher 2024, arXiv 2401.06654): higher is better.

    The image is divided into patches of ``size`` x ``size`` pixels from the upper left, ordered by the mean
    of their relevance, equal ones row by row. They are removed in ``steps`` equal steps in two orders: from
    the least and from the most relevant on. With z the target's logit after the share s of the patches is
    removed, ``srg`` is the area between the two curves, ``integral over s of z_least(s) - z_most(s)`` by
    trapezoids, and ``srg_probability`` the same for its probability. ``most@s`` and ``least@s`` are the
    logits. A map that orders nothing has 0.

    Of one curve alone the fill decides how high it lies; in the difference of the two much of that cancels.
    Known bias: logits have a scale of their own, so values of two models can't be compared; a target's logit
    rises with its rivals too, so a map that contrasts classes answers another question; and patches don't
    tell a map from its own mean over patches.

    Attributes:
        size: side of a patch in pixels; that of a transformer's tokens, 16 in a ViT-B/16.
        steps: number of steps.
        fill: see :data:`~clarp.evaluation.metrics.perturbation.Cover`.
        chunk: at most so many images go through the model at once.

    Raises:
        ValueError: an option that is no whole number of at least 1 (steps: from 2 to 1000), or an unknown
            fill. When it is called: fewer patches than steps.
    """

    size: int = 16
    steps: int = 14
    fill: Cover = "colour"
    chunk: int = 64

    name: ClassVar[str] = "srg"
    needs_model: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_whole(size=self.size, steps=self.steps, chunk=self.chunk)
        if not 2 <= self.steps <= 1000:
            raise ValueError(f"steps={self.steps}: give between 2 and 1000 steps")
        check_fill(self.fill, Cover)

    @property
    def optional_truth(self) -> tuple[str, ...]:
        return mean_image_for(self.fill)

    @property
    def columns(self) -> dict[str, Direction]:
        """``srg``, ``srg_probability``, the logits ``most@s`` and ``least@s`` for s from 0 to 1."""
        gains: dict[str, Direction] = dict.fromkeys(("srg", "srg_probability"), "higher")
        return {**gains, **dict.fromkeys([*self._curves, "degenerate"], "none")}

    @property
    def _curves(self) -> list[str]:
        shares = [f"{step / self.steps:.4f}" for step in range(self.steps + 1)]
        return [f"{kind}@{share}" for kind in ("most", "least") for share in shares]

    def measure(
        self,
        heatmaps: Heatmaps,
        *,
        model: Model,
        images: Tensor,
        targets: Tensor | None,
        mean_image: Tensor | None = None,
    ) -> dict[str, Tensor]:
        orders = torch.stack([region_ranks(sign * heatmaps.values, self.size) for sign in (1, -1)], dim=1)
        count = int(orders.max()) + 1
        if count < self.steps:
            raise ValueError(
                f"{images.shape[2]} x {images.shape[3]} pixels have {count} patches of {self.size} x "
                f"{self.size}, but steps={self.steps}: give at most {count} steps, or smaller patches"
            )
        # Both orders begin with the whole image and end with none of it: those are asked once.
        step = torch.cat([torch.arange(self.steps + 1), torch.arange(1, self.steps)])
        order = (torch.arange(len(step)) > self.steps).long()
        removed = (step * count / self.steps).round()
        found = masked_values(
            model,
            painter(images, self.fill, mean_image),
            lambda image, variant: orders[image, order[variant]] < removed[variant][:, None, None],
            variants=len(step),
            targets=predicted(model, images, targets, chunk=self.chunk),
            device=images.device,
            chunk=self.chunk,
            read=_score_and_probability,
        )
        most, between = found[:, : self.steps + 1], found[:, self.steps + 1 :]
        least = torch.cat([most[:, :1], between, most[:, -1:]], dim=1)
        gain = torch.trapezoid(least - most, dim=1) / self.steps
        curves = torch.cat([most[..., 0], least[..., 0]], dim=1)
        return {
            "srg": gain[:, 0],
            "srg_probability": gain[:, 1],
            **dict(zip(self._curves, curves.unbind(dim=1), strict=True)),
        }


def _noisy(paint: Paint, images: Tensor, noise: float, seed: int) -> Paint:
    """Covered pixels with noise on top, the same for each image and variant, so that no batch changes it."""
    generator = torch.Generator().manual_seed(seed)
    field = noise * torch.randn(images.shape[1:], generator=generator).to(images)
    return lambda image, covered: paint(image, covered) + field * covered


def _probability_and_kept(task: Task, logits: Tensor, targets: Tensor) -> Tensor:
    kept = task.scores(logits).argmax(dim=1) == targets
    return torch.stack([probability(task, logits, targets), kept.double()], dim=1)


def _score_and_probability(task: Task, logits: Tensor, targets: Tensor) -> Tensor:
    scores = task.scores(logits).gather(1, targets[:, None])[:, 0]
    return torch.stack([scores, probability(task, logits, targets)], dim=1)
