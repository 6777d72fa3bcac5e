"""How few pixels carry the relevance."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from clarp.evaluation.metrics.base import Direction, Heatmaps, Metric


@dataclass(frozen=True)
class Sparseness(Metric):
    """The Gini index of the magnitudes (Hurley 2009, arXiv 0811.4706).

    Chalasani 2020 (arXiv 1810.06583) took it for heatmaps.

    With |R| sorted upwards, a_1 <= ... <= a_n: ``gini = sum_i (2 i - n - 1) a_i / (n sum_i a_i)``, from 0
    (equal everywhere) to 1 - 1/n (one pixel has it all). A map of zeros, or with NaN or infinity, has 0.

    >>> Sparseness()(None, None, torch.tensor([[[0.0, 0.0], [0.0, 5.0]]]))["gini"].tolist()
    [0.75]
    """

    name: ClassVar[str] = "sparseness"
    columns: ClassVar[dict[str, Direction]] = {"gini": "higher", "degenerate": "none"}

    def measure(self, heatmaps: Heatmaps) -> dict[str, Tensor]:
        sizes = heatmaps.values.abs().flatten(1).sort(dim=1).values
        n = sizes.shape[1]
        weights = 2 * torch.arange(1, n + 1, dtype=torch.float64) - n - 1
        total = sizes.sum(dim=1)
        gini = (sizes * weights).sum(dim=1) / (n * total.where(total > 0, torch.ones_like(total)))
        return {"gini": gini}
