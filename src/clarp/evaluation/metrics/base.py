"""What all metrics share: how they are called, what they return, and the policies for odd maps."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from clarp.explainer import Explainer
from clarp.models.logits import Logits

Model = Callable[[Tensor], Tensor] | Logits | Explainer
"""Who is asked: images (B, C, H, W) to logits (B, N), whose softmax counts (one logit: its sigmoid); or an
explainer of the model, which knows the task and how the model ends."""
Direction = Literal["higher", "lower", "none"]
"""Which values of a column are better; "none" for columns that only describe."""


class Rows(Mapping[str, Tensor]):
    """One row per image: columns by name, each (B,) float64 on the CPU.

    NaN says that the question doesn't arise for that image: leave it out of the mean, and count it.

    >>> rows = Rows({"hit": torch.tensor([True, False])})
    >>> rows["hit"].tolist(), rows.count
    ([1.0, 0.0], 2)
    >>> list(rows.records())
    [{'hit': 1.0}, {'hit': 0.0}]
    """

    def __init__(self, columns: Mapping[str, Tensor]) -> None:
        self._columns = {name: value.detach().to("cpu", torch.float64) for name, value in columns.items()}
        shapes = {name: tuple(value.shape) for name, value in self._columns.items()}
        if len(set(shapes.values())) != 1 or any(len(shape) != 1 for shape in shapes.values()):
            raise ValueError(f"every column needs one number per image, given were the shapes {shapes}")

    def __getitem__(self, name: str) -> Tensor:
        return self._columns[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)

    def __repr__(self) -> str:
        return f"Rows({self._columns})"

    @property
    def count(self) -> int:
        """The number of images."""
        return len(next(iter(self._columns.values())))

    def records(self) -> Iterator[dict[str, float]]:
        """One dictionary per image."""
        for values in zip(*(column.tolist() for column in self._columns.values()), strict=True):
            yield dict(zip(self._columns, values, strict=True))


class Metric(ABC):
    """A question about heatmaps, asked of a batch.

    Subclasses are frozen dataclasses: picklable, comparable, and with a ``repr`` that tells their whole
    configuration.
    """

    name: ClassVar[str]
    """Its name on the command line and in the tables."""
    needs_model: ClassVar[bool] = False
    """Whether it runs the model; if not, ``model``, ``images`` and ``targets`` may be anything."""
    truth: ClassVar[tuple[str, ...]] = ()
    """The keyword arguments that it can't do without, besides ``targets``."""

    @property
    def optional_truth(self) -> tuple[str, ...]:
        """The keyword arguments that it uses where they are known."""
        return ()

    def for_coarse_maps(self) -> "Metric":
        """The metric for maps of few cells, or with one tip."""
        return self

    def check_dataset(self, own: str, dataset: str) -> None:  # noqa: B027  most are made for all pictures
        """Refuse a data set that it is not made for.

        Args:
            own: what the user calls this metric.
            dataset: the name of the data set.

        Raises:
            ValueError: it is not made for such pictures.
        """

    def copies_of(self, model: "Model") -> Iterator[nn.Module]:
        """Other networks made of the model, which the metric needs for all batches."""
        del model
        return iter(())

    @property
    @abstractmethod
    def columns(self) -> dict[str, Direction]:
        """The columns of its rows in order; the first is the one for a table with one number per method."""

    def __call__(
        self,
        model: Model | None,
        images: Tensor | None,
        maps: Tensor,
        *,
        targets: Tensor | None = None,
        **truth: Any,
    ) -> Rows:
        """Measure heatmaps.

        Args:
            model: in evaluation mode; never changed. Not used where :attr:`needs_model` is False, nor are
                images and targets.
            images: (B, C, H, W), preprocessed as the model wants them.
            maps: heatmaps (B, H, W), or relevance (B, C, H, W), which is summed over C.
            targets: (B,) class ids, what each map explains; None: the model's arg-max.
            **truth: what the metric needs to know of the images, each with B entries: the keyword arguments
                of its ``measure``.

        Returns:
            A row for each image, with the columns of :attr:`columns`.

        Raises:
            ValueError: maps of another shape than the images, and what :meth:`measure` says.
        """
        heatmaps = Heatmaps.of(maps, like=images if self.needs_model else None)
        asked = {"model": model, "images": images, "targets": targets} if self.needs_model else {}
        found = self.measure(heatmaps, **asked, **truth)
        return Rows({**found, "degenerate": found.get("degenerate", heatmaps.degenerate)})

    @abstractmethod
    def measure(self, heatmaps: "Heatmaps", *args: Any, **truth: Any) -> dict[str, Tensor]:
        """The columns but for ``degenerate``, (B,) each.

        Args:
            heatmaps: of B images.
            *args: none; here for the type checker only.
            **truth: by name what :attr:`truth` and :attr:`optional_truth` list; ``model``, ``images`` and
                ``targets`` too where :attr:`needs_model` is True.
        """


@dataclass(frozen=True)
class Heatmaps:
    """Heatmaps that metrics can rely on.

    Attributes:
        values: (B, H, W) float64 on the CPU, so that ranks and ties are the same on every device. A map with
            NaN or infinity says nothing, so it is treated as a map of zeros.
        degenerate: (B,) bool, maps that are constant, those with NaN or infinity included.
    """

    values: Tensor
    degenerate: Tensor

    @classmethod
    def of(cls, maps: Tensor, like: Tensor | None = None) -> "Heatmaps":
        """Check maps.

        Args:
            maps: (B, H, W), or (B, C, H, W), which is summed over C.
            like: images (B, C, H, W) whose number, height and width the maps must have.

        Raises:
            ValueError: another shape.
        """
        if maps.ndim not in {3, 4} or maps.numel() == 0:
            shape = tuple(maps.shape)
            raise ValueError(f"heatmaps are (B, H, W) or (B, C, H, W), given was the shape {shape}")
        values = maps.detach().to("cpu", torch.float64)
        values = values.sum(dim=1) if maps.ndim == 4 else values
        if like is not None and (len(values) != len(like) or values.shape[1:] != like.shape[2:]):
            raise ValueError(
                f"{tuple(values.shape)} are no heatmaps of images of the shape {tuple(like.shape)}: give "
                "one map per image and target, in the size of the model's input"
            )
        finite = values.isfinite().flatten(1).all(dim=1)
        values = torch.where(finite[:, None, None], values, torch.zeros_like(values))
        flat = values.flatten(1)
        return cls(values, flat.amin(dim=1) == flat.amax(dim=1))

    @property
    def positive(self) -> Tensor:
        """(B, H, W): the positive part."""
        return self.values.clamp(min=0)

    def points(self) -> tuple[Tensor, Tensor]:
        """(row, column) of each map's greatest value, (B,) each; of equal ones the first, row by row."""
        # Documented since torch 1.7: of several maxima, the index of the first.
        first = self.values.flatten(1).argmax(dim=1)
        width = self.values.shape[2]
        return first // width, first % width

    def ranks(self) -> Tensor:
        """(B, H, W) long: 0 for the greatest value, H W - 1 for the smallest; equal ones row by row."""
        return ranks(self.values.flatten(1)).view(self.values.shape)


def ranks(values: Tensor) -> Tensor:
    """(B, n) long: the place of each value in descending order; of equal ones the first comes first.

    >>> ranks(torch.tensor([[1.0, 3.0, 3.0, 2.0]]))
    tensor([[3, 0, 1, 2]])
    """
    order = values.argsort(dim=1, descending=True, stable=True)
    places = torch.arange(values.shape[1]).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, places)


def region_ranks(values: Tensor, size: int) -> Tensor:
    """(B, H, W) long: for each pixel the place of its region in descending order of the regions' means.

    Regions are squares of ``size`` pixels from the upper left; the border cuts off those at the right and
    below. Of equal ones the first comes first, row by row.
    """
    height, width = values.shape[1:]
    rows, columns = torch.arange(height) // size, torch.arange(width) // size
    region = (rows[:, None] * -(-width // size) + columns).flatten()
    # From the minimum on, so that of a constant map nothing is left whose rounding could order it.
    above = (values - values.amin(dim=(1, 2), keepdim=True)).flatten(1)
    sums = torch.zeros(len(values), int(region.max()) + 1, dtype=values.dtype).index_add_(1, region, above)
    return ranks(sums / region.bincount())[:, region].view(values.shape)


def share(part: Tensor, whole: Tensor) -> Tensor:
    """Sum of ``part`` over sum of ``whole``, (B,), from (B, H, W); 0 where the whole is zero."""
    total = whole.flatten(1).sum(dim=1)
    there = total > 0
    return torch.where(there, part.flatten(1).sum(dim=1) / total.where(there, torch.ones_like(total)), 0.0)


def cells_of(size: Sequence[int], n: int) -> Tensor:
    """(H, W) long: the cell of each pixel in a grid of n x n, row by row; row i begins at pixel ``i H // n``.

    >>> cells_of((2, 5), 2)
    tensor([[0, 0, 1, 1, 1],
            [2, 2, 3, 3, 3]])
    """
    rows, columns = (
        torch.bucketize(torch.arange(side), torch.tensor([i * side // n for i in range(1, n)]), right=True)
        for side in size
    )
    return rows[:, None] * n + columns


def checked_cells(cells: Tensor | Sequence[int], count: int, n: int) -> Tensor:
    """(count,) cells of a mosaic of n x n on the CPU.

    Raises:
        ValueError: cells that don't exist, or another number of them than maps.
    """
    found = torch.as_tensor(cells).detach().cpu()
    if found.shape != (count,) or not bool(((found >= 0) & (found < n**2)).all()):
        raise ValueError(
            f"cells={found.tolist()}: give one cell from 0 to {n**2 - 1} for each of {count} maps"
        )
    return found


def check_mosaics(own: str, dataset: str, n: int) -> None:
    """Refuse all but mosaics of n x n photos, whose data sets are named ``...-mosaic-NxN``.

    Raises:
        ValueError: it is none.
    """
    if not dataset.endswith(f"-mosaic-{n}x{n}"):
        raise ValueError(
            f"{own} is played on mosaics of {n} x {n} photos, and {dataset} is none: give mosaics:FOLDER."
        )


def checked_masks(masks: Tensor | Sequence[Tensor], maps: Heatmaps) -> Tensor:
    """Masks as (B, H, W) bool on the CPU, in the maps' size.

    Raises:
        ValueError: another shape, or values that are not true or false.
    """
    stacked = masks if isinstance(masks, Tensor) else torch.stack(list(masks))
    stacked = stacked.detach().cpu()
    if stacked.shape != maps.values.shape:
        raise ValueError(
            f"masks of the shape {tuple(stacked.shape)} do not fit maps of the shape "
            f"{tuple(maps.values.shape)}: give one mask per map in the model's pixels "
            "(clarp.data.Geometry.mask_to_model makes them)"
        )
    if stacked.dtype != torch.bool and not bool(((stacked == 0) | (stacked == 1)).all()):
        raise ValueError(
            f"masks are true or false; these are {stacked.dtype} with values from {stacked.min()} to "
            f"{stacked.max()}"
        )
    return stacked.bool()


def check_whole(**options: object) -> None:
    """Refuse what is no whole number of at least 1.

    Raises:
        ValueError: one is not.

    >>> check_whole(size=9, chunk=0)
    Traceback (most recent call last):
    ...
    ValueError: chunk=0: give a whole number of at least 1
    """
    for name, value in options.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{name}={value!r}: give a whole number of at least 1")


def only_where(condition: Tensor, values: Tensor) -> Tensor:
    """``values`` (B,) as float64, NaN where the condition is false."""
    return torch.where(condition, values.to(torch.float64), torch.nan)
