"""Whether red and blue are true: signed relevance beside what covering does to the class."""

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
    cells_of,
    check_whole,
    only_where,
)
from clarp.evaluation.metrics.perturbation import (
    Cover,
    check_fill,
    lead,
    masked_values,
    mean_image_for,
    painter,
    predicted,
)


@dataclass(frozen=True)
class SignedEffect(Metric):
    """Whether a map's signs are those of the effects that covering has: higher is better.

    The image is divided into g x g cells, row i of cells from pixel ``i H // g`` on. For each cell c,

    - the effect ``E_c = lead(x) - lead(x with c covered)``, positive where the class needs the cell; the lead
      is the log-odds of the target (multiclass: ``z_t - log sum_n exp(z_n)`` over its rivals),
    - ``S_c``, the sum of the signed relevance in c.

    ``correlation@g`` is Pearson's, of S and E over the cells of one image. ``red@g``: S is above 0 at the
    cell with the greatest E; NaN where no E is above 0. ``blue@g``: S is below 0 at the cell with the least
    E; NaN where no E is below 0, because then no cell speaks against the class. Of equal cells the first, row
    by row. ``opposed@g``: the share of cells whose E is below 0.

    A map that is constant, or has NaN or infinity, names no cell: it has the correlation 0 and neither red
    nor blue. Where all effects are equal (the model does not look), the correlation is NaN.

    The definition is ours, after occlusion (Zeiler 2014, arXiv 1311.2901) and the correlation of sums of
    attributions with drops of the output (Ancona 2018, arXiv 1711.06104; Bhatt 2020, arXiv 2005.00631). Known
    bias: each fill is an input of its own. The mean colour brings edges, a blur leaves what is coarse, and
    inpainting continues an object into the cell; and cells are covered one at a time, so of evidence that is
    there twice, neither has an effect. Take several fills.

    Attributes:
        grid: g; several are a curve, three columns each.
        fill: see :data:`~clarp.evaluation.metrics.perturbation.Cover`.
        chunk: at most so many images go through the model at once.

    Raises:
        ValueError: a grid or chunk that is no whole number of at least 1 (a grid: 2), or an unknown fill.
            When it is called: more cells along a side than pixels.

    >>> image = torch.ones(1, 1, 4, 4)
    >>> def model(x):  # the left half speaks for class 0, the right upper quarter against it
    ...     z = x[:, 0, :, :2].sum((1, 2)) - x[:, 0, :2, 2:].sum((1, 2))
    ...     return torch.stack((z, torch.zeros(len(x))), dim=1)
    >>> heatmap = torch.tensor([[[1.0, 1.0, -1.0, -1.0]] * 4])
    >>> rows = SignedEffect(grid=2)(model, image, heatmap, targets=torch.tensor([0]))
    >>> rows["red@2"].item(), rows["blue@2"].item(), rows["opposed@2"].item()
    (1.0, 1.0, 0.25)
    """

    grid: int | tuple[int, ...] = 7
    fill: Cover = "colour"
    chunk: int = 64

    name: ClassVar[str] = "signed-effect"
    needs_model: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not self.grids or len(set(self.grids)) != len(self.grids):
            raise ValueError(
                f"grid={self.grid!r}: give a number of cells per side, or several different ones"
            )
        for grid in self.grids:
            check_whole(grid=grid)
            if grid < 2:
                raise ValueError(f"grid={grid}: give at least 2 cells per side")
        check_whole(chunk=self.chunk)
        check_fill(self.fill, Cover)

    @property
    def grids(self) -> tuple[int, ...]:
        return tuple(self.grid) if isinstance(self.grid, Sequence) else (self.grid,)

    @property
    def optional_truth(self) -> tuple[str, ...]:
        """The mean image where it fills with that, and the effects, which several methods share."""
        return (*mean_image_for(self.fill), "effects")

    @property
    def columns(self) -> dict[str, Direction]:
        """``correlation@g``, ``red@g``, ``blue@g`` for each grid, ``opposed@g``, ``degenerate``."""
        names = [f"{what}@{grid}" for what in ("correlation", "red", "blue") for grid in self.grids]
        described = [f"opposed@{grid}" for grid in self.grids]
        return {**dict.fromkeys(names, "higher"), **dict.fromkeys([*described, "degenerate"], "none")}

    def effects(
        self, model: Model, images: Tensor, targets: Tensor | None, mean_image: Tensor | None = None
    ) -> Tensor:
        """E of all cells of the grids, one grid after the other and each row by row, (B, V) float64.

        The effects depend on no map: compute them once for the methods that are compared.
        """
        size = images.shape[2:]
        if (most := max(self.grids)) > min(size):
            raise ValueError(f"{size[0]} x {size[1]} pixels have no {most} x {most} cells: give fewer")
        # The first variant covers nothing.
        cells = torch.cat(
            [torch.zeros(1, *size, dtype=torch.bool)]
            + [cells_of(size, grid) == torch.arange(grid**2)[:, None, None] for grid in self.grids]
        )
        leads = masked_values(
            model,
            painter(images, self.fill, mean_image),
            lambda _, variant: cells[variant],
            variants=len(cells),
            targets=predicted(model, images, targets, chunk=self.chunk),
            device=images.device,
            chunk=self.chunk,
            read=lead,
        )
        return leads[:, :1] - leads[:, 1:]

    def measure(
        self,
        heatmaps: Heatmaps,
        *,
        model: Model,
        images: Tensor,
        targets: Tensor | None,
        mean_image: Tensor | None = None,
        effects: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Compare.

        Args:
            heatmaps: of the images.
            model: images to logits.
            images: (B, C, H, W).
            targets: (B,) or None.
            mean_image: (C, H, W), the data set's mean image after preprocessing, for the fill "mean".
            effects: what :meth:`effects` gave, to spare forward passes that several methods share.
        """
        if effects is None:
            effects = self.effects(model, images, targets, mean_image)
        columns: dict[str, Tensor] = {}
        for grid, effect in zip(self.grids, effects.split([grid**2 for grid in self.grids], 1), strict=True):
            cells = cells_of(heatmaps.values.shape[1:], grid).flatten()
            sums = torch.zeros_like(effect).index_add_(1, cells, heatmaps.values.flatten(1))
            named = ~heatmaps.degenerate
            strongest, weakest = effect.argmax(dim=1, keepdim=True), effect.argmin(dim=1, keepdim=True)
            red = (sums.gather(1, strongest)[:, 0] > 0) & named
            blue = (sums.gather(1, weakest)[:, 0] < 0) & named
            columns |= {
                f"correlation@{grid}": _correlation(sums, effect, named),
                f"red@{grid}": only_where((effect > 0).any(dim=1), red),
                f"blue@{grid}": only_where((effect < 0).any(dim=1), blue),
                f"opposed@{grid}": (effect < 0).double().mean(dim=1),
            }
        return {name: columns[name] for name in self.columns if name in columns}


def _correlation(sums: Tensor, effect: Tensor, named: Tensor) -> Tensor:
    """Pearson's, (B,), from (B, V): 0 for sums that are all equal, NaN for effects that are."""
    left, right = (values - values.mean(dim=1, keepdim=True) for values in (sums, effect))
    size = left.norm(dim=1) * right.norm(dim=1)
    varied, moved = ((values != values[:, :1]).any(dim=1) for values in (sums, effect))
    found = torch.where(varied & named & moved, (left * right).sum(dim=1) / size, 0.0)
    return only_where(moved, found)
