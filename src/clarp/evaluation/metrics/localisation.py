"""How much of the relevance lies where it should."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from clarp.evaluation.metrics.base import (
    Direction,
    Heatmaps,
    Metric,
    cells_of,
    check_mosaics,
    check_whole,
    checked_cells,
    checked_masks,
    only_where,
    share,
)

Masks = Tensor | Sequence[Tensor]


@dataclass(frozen=True)
class StrictPointing(Metric):
    """The strict pointing game (after SGLRP, Iwana 2019, arXiv 1908.04351).

    A hit: the map has positive relevance, and no pixel at or above ``threshold`` times its maximum lies
    outside the object. A constant map, one with NaN or infinity, and one without positive relevance is a
    miss; an empty mask gives NaN.

    Attributes:
        threshold: in (0, 1], relative to the map's maximum; several are a curve, one column each.

    Raises:
        ValueError: a threshold outside (0, 1].
    """

    threshold: float | tuple[float, ...] = 0.5

    name: ClassVar[str] = "strict-pointing"
    truth: ClassVar[tuple[str, ...]] = ("masks",)

    def __post_init__(self) -> None:
        if not self.thresholds or not all(0 < value <= 1 for value in self.thresholds):
            raise ValueError(f"threshold={self.threshold}: give shares of the maximum, above 0 and at most 1")

    @property
    def thresholds(self) -> tuple[float, ...]:
        return tuple(self.threshold) if isinstance(self.threshold, Sequence) else (self.threshold,)

    @property
    def columns(self) -> dict[str, Direction]:
        """``hit@t`` for each threshold, ``degenerate``."""
        return {**{f"hit@{value:g}": "higher" for value in self.thresholds}, "degenerate": "none"}

    def measure(self, heatmaps: Heatmaps, *, masks: Masks) -> dict[str, Tensor]:
        """By ``masks`` (B, H, W) bool in the maps' pixels."""
        inside = checked_masks(masks, heatmaps)
        asked = inside.flatten(1).any(dim=1)
        top = heatmaps.values.flatten(1).amax(dim=1)[:, None, None]
        columns: dict[str, Tensor] = {}
        for value in self.thresholds:
            outside = ((heatmaps.values >= value * top) & ~inside).flatten(1).any(dim=1)
            hit = ~outside & ~heatmaps.degenerate & (top.flatten() > 0)
            columns[f"hit@{value:g}"] = only_where(asked, hit)
        return columns


@dataclass(frozen=True)
class EnergyPointing(Metric):
    """The energy-based pointing game (Score-CAM, Wang 2020, arXiv 1910.01279).

    ``energy = sum over the object of max(0, R) / sum over the image of max(0, R)``. It is also the relevance
    mass accuracy of Arras 2022. A map without positive relevance, or with NaN or infinity, has energy 0; an
    empty mask gives NaN. ``area`` is the mask's share of the image: what a map that is equal everywhere
    reaches.
    """

    name: ClassVar[str] = "energy-pointing"
    truth: ClassVar[tuple[str, ...]] = ("masks",)
    columns: ClassVar[dict[str, Direction]] = {"energy": "higher", "area": "none", "degenerate": "none"}

    def measure(self, heatmaps: Heatmaps, *, masks: Masks) -> dict[str, Tensor]:
        """By ``masks`` (B, H, W) bool in the maps' pixels."""
        inside = checked_masks(masks, heatmaps)
        energy = share(heatmaps.positive * inside, heatmaps.positive)
        area = inside.flatten(1).double().mean(dim=1)
        return {"energy": only_where(area > 0, energy), "area": area}


@dataclass(frozen=True)
class RelevanceRankAccuracy(Metric):
    """Relevance rank accuracy (Arras 2022, arXiv 2003.07258).

    With K the number of the object's pixels: the share of the K most relevant pixels, equal ones row by row,
    that lie in the object. A constant map, or one with NaN or infinity, ranks nothing and has accuracy 0; an
    empty mask gives NaN.
    """

    name: ClassVar[str] = "rank-accuracy"
    truth: ClassVar[tuple[str, ...]] = ("masks",)
    columns: ClassVar[dict[str, Direction]] = {"accuracy": "higher", "degenerate": "none"}

    def measure(self, heatmaps: Heatmaps, *, masks: Masks) -> dict[str, Tensor]:
        """By ``masks`` (B, H, W) bool in the maps' pixels."""
        inside = checked_masks(masks, heatmaps).flatten(1)
        count = inside.sum(dim=1)
        best = heatmaps.ranks().flatten(1) < count[:, None]
        accuracy = (best & inside).sum(dim=1) / count.clamp(min=1)
        accuracy = torch.where(heatmaps.degenerate, 0.0, accuracy.double())
        return {"accuracy": only_where(count > 0, accuracy)}


@dataclass(frozen=True)
class GridPointingGame(Metric):
    """The grid pointing game (Boehle 2021, arXiv 2104.00032) on mosaics: :func:`clarp.data.mosaics`.

    ``energy = sum over the target's cell of max(0, R) / sum over the mosaic of max(0, R)``; chance is 1/n^2.

    ``hit``: the greatest value, of equal ones the first, row by row, lies in the target's cell.

    A map without positive relevance, or with NaN or infinity, has energy 0; a constant map is no hit.

    Attributes:
        n: cells per side; row i of cells begins at pixel ``i H // n``.

    Raises:
        ValueError: n below 1.

    >>> heatmap = torch.zeros(1, 4, 4)
    >>> heatmap[0, 0, 3], heatmap[0, 3, 3] = 3.0, 1.0
    >>> rows = GridPointingGame(2)(None, None, heatmap, cells=torch.tensor([1]))
    >>> rows["energy"].tolist(), rows["hit"].tolist()
    ([0.75], [1.0])
    """

    n: int = 2

    name: ClassVar[str] = "grid-pointing"
    truth: ClassVar[tuple[str, ...]] = ("cells",)
    columns: ClassVar[dict[str, Direction]] = {"energy": "higher", "hit": "higher", "degenerate": "none"}

    def __post_init__(self) -> None:
        check_whole(n=self.n)

    def check_dataset(self, own: str, dataset: str) -> None:
        """Refuse all but mosaics of n x n photos, whose data sets are named ``...-mosaic-NxN``."""
        check_mosaics(own, dataset, self.n)

    def measure(self, heatmaps: Heatmaps, *, cells: Tensor | Sequence[int]) -> dict[str, Tensor]:
        """By ``cells`` (B,), the cell of each map's target, 0 ... n^2 - 1, row by row.

        Raises:
            ValueError: cells that don't exist, or another number of them than maps.
        """
        cells = checked_cells(cells, len(heatmaps.values), self.n)
        own = cells_of(heatmaps.values.shape[1:], self.n) == cells[:, None, None]
        row, column = heatmaps.points()
        hit = own[torch.arange(len(cells)), row, column] & ~heatmaps.degenerate
        energy = share(heatmaps.positive * own, heatmaps.positive)
        return {"energy": energy, "hit": hit}
