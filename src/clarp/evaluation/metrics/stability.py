"""How much a map changes where the image hardly does."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from clarp.evaluation.metrics.base import Direction, Heatmaps, Metric, Model, check_whole, only_where

Explain = Callable[[Tensor, Tensor | None], Tensor]
"""Images (B, C, H, W) and targets (B,) to heatmaps (B, H, W) or relevance (B, C, H, W)."""


@dataclass(frozen=True)
class MaxSensitivity(Metric):
    """Maximum sensitivity (Yeh 2019, arXiv 1901.09392): lower is better.

    ``max over noise e of |R(x + e) - R(x)| / |R(x)|``, Euclidean norms of the maps, summed over channels; e
    is drawn ``samples`` times, each of its values uniformly from -radius to radius.

    A map of zeros, or with NaN or infinity, has NaN, and so has an image near which one has. Known bias: it
    asks for smoothness, not for truth. A map that does not look at the image has 0, as the controls show, and
    where the model itself is steep, a true map has to change.

    Attributes:
        radius: in units of the preprocessed pixels.
        samples: number of draws.
        seed: of the draws, which are the same for all images of a size.

    Raises:
        ValueError: a radius that is not above 0, or no sample.
    """

    radius: float = 0.02
    samples: int = 10
    seed: int = 0

    name: ClassVar[str] = "max-sensitivity"
    needs_model: ClassVar[bool] = True
    truth: ClassVar[tuple[str, ...]] = ("explain",)
    columns: ClassVar[dict[str, Direction]] = {"sensitivity": "lower", "degenerate": "none"}

    def __post_init__(self) -> None:
        if not 0 < self.radius < math.inf:
            raise ValueError(f"radius={self.radius}: give a size of the noise, above 0")
        check_whole(samples=self.samples)

    def measure(
        self, heatmaps: Heatmaps, *, model: Model, images: Tensor, targets: Tensor | None, explain: Explain
    ) -> dict[str, Tensor]:
        """By ``explain``, which made the maps."""
        del model
        size = heatmaps.values.flatten(1).norm(dim=1)
        usable, greatest = size > 0, torch.zeros_like(size)
        generator = torch.Generator().manual_seed(self.seed)
        for _ in range(self.samples):
            noise = torch.rand(images.shape[1:], generator=generator).to(images) * 2 - 1
            near = Heatmaps.of(explain(images + self.radius * noise, targets), like=images).values
            usable = usable & near.flatten(1).any(dim=1)
            change = (near - heatmaps.values).flatten(1).norm(dim=1) / size
            greatest = torch.maximum(greatest, change)
        return {"sensitivity": only_where(usable, greatest)}
