"""Mosaics whose cells go through the network apart: what a map says of the other cells is certainly wrong."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from clarp.evaluation.metrics.base import (
    Direction,
    Heatmaps,
    Metric,
    Model,
    cells_of,
    check_mosaics,
    check_whole,
    checked_cells,
    only_where,
    share,
)

AskedApart = Callable[[nn.Module, Tensor], Tensor]
"""From a network and the numbers (b,) of images in the batch to their maps (b, H, W), each of its target."""


class Apart(nn.Module):
    """A classifier that sees each cell of a mosaic by itself, and answers for one of them.

    All n x n cells go through the whole network as images of their own, and their logits are joined; then
    those of one cell are taken. So the others are computed, and can't influence any logit.

    Args:
        model: images (B, C, h, w) to logits (B, N) of a cell's size; shared, not copied.
        n: cells per side.
        cell: that answers, 0 ... n^2 - 1, row by row.
    """

    def __init__(self, model: nn.Module, n: int, cell: int) -> None:
        super().__init__()
        self.model, self.n, self.cell = model, n, cell
        self.training = model.training

    def forward(self, mosaics: Tensor) -> Tensor:
        """Mosaics (B, C, n h, n w) to logits (B, N).

        Raises:
            ValueError: sides that n does not divide.
        """
        height, width = mosaics.shape[2:]
        if height % self.n or width % self.n:
            raise ValueError(
                f"{height} x {width} pixels can't be cut into {self.n} x {self.n} equal cells: give mosaics "
                f"whose sides are multiples of {self.n}"
            )
        cells = mosaics.unflatten(3, (self.n, -1)).unflatten(2, (self.n, -1))
        logits = self.model(cells.permute(0, 2, 4, 1, 3, 5).flatten(0, 2))
        return logits.unflatten(0, (-1, self.n**2))[:, self.cell]


@dataclass(frozen=True)
class DiFull(Metric):
    """Attribution under full disconnection (Rao 2022, arXiv 2205.10435) on mosaics: higher is better.

    The map is made anew of a network that sees each cell by itself and answers for the target's cell alone
    (:class:`Apart`), so relevance in another cell is wrong for certain, and not only likely to be.
    ``energy = sum over the target's cell of max(0, R) / sum over the mosaic of max(0, R)``. ``outside`` is
    the share of |R| in the other cells, NaN for a map of zeros.

    In the paper the logit of each cell's own class comes from that cell; here all logits come from the
    target's cell, so that a method with rivals can have no reason to look elsewhere. Known bias: it tells
    what is certainly wrong, not what is right: a map of the target's cell that is nonsense scores 1. Methods
    that look at one layer (Grad-CAM) are not asked, because here a layer sees the cells as images of their
    own: NaN. A dense head acts at every cell, so the neuron forms of selection select there too.

    Attributes:
        n: cells per side.

    Raises:
        ValueError: n below 1; when it is called, sides that n does not divide, or cells that don't exist.
    """

    n: int = 2

    name: ClassVar[str] = "difull"
    needs_model: ClassVar[bool] = True
    truth: ClassVar[tuple[str, ...]] = ("cells", "apart")
    optional_truth: ClassVar[tuple[str, ...]] = ("copies",)
    columns: ClassVar[dict[str, Direction]] = {"energy": "higher", "outside": "lower", "degenerate": "none"}

    def __post_init__(self) -> None:
        check_whole(n=self.n)

    def check_dataset(self, own: str, dataset: str) -> None:
        """Refuse all but mosaics of n x n photos."""
        check_mosaics(own, dataset, self.n)

    def copies_of(self, model: Model) -> Iterator[nn.Module]:
        """The network that answers for the first cell, the second ...; they share the model.

        Raises:
            TypeError: not a ``torch.nn.Module``.
        """
        if not isinstance(model, nn.Module):
            raise TypeError(f"cells apart need a torch.nn.Module, given was {type(model).__name__}")
        for cell in range(self.n**2):
            yield Apart(model, self.n, cell)

    def measure(
        self,
        heatmaps: Heatmaps,
        *,
        model: Model,
        images: Tensor,
        targets: Tensor | None,
        cells: Tensor | Sequence[int],
        apart: AskedApart | None,
        copies: Sequence[nn.Module] | None = None,
    ) -> dict[str, Tensor]:
        """Make the maps of the network with cells apart, and compare.

        Args:
            heatmaps: of the whole network; only their number and ``degenerate`` count.
            model: the classifier.
            images: (B, C, H, W) mosaics.
            targets: (B,) class ids, which ``apart`` knows.
            cells: (B,), the cell of each map's target, 0 ... n^2 - 1, row by row.
            apart: the method that made the maps, on another network; None: it can't be asked.
            copies: what :meth:`copies_of` gave, kept for many batches; None: made anew.
        """
        del targets
        cells = checked_cells(cells, len(heatmaps.values), self.n)
        if apart is None:
            nothing = torch.full((len(cells),), torch.nan)
            return {"energy": nothing, "outside": nothing}
        networks = list(self.copies_of(model)) if copies is None else copies
        values = torch.zeros_like(heatmaps.values)
        for cell in cells.unique().tolist():
            numbers = (cells == cell).nonzero()[:, 0]
            maps = apart(networks[cell], numbers)
            values[numbers] = Heatmaps.of(maps, like=images[numbers.to(images.device)]).values
        own = cells_of(values.shape[1:], self.n) == cells[:, None, None]
        positive, size = values.clamp(min=0), values.abs()
        outside = only_where(size.flatten(1).any(dim=1), share(size * ~own, size))
        return {"energy": share(positive * own, positive), "outside": outside}
