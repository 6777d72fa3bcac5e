"""clarp's metrics of maps as one of torchmetrics: update, compute, reset, also over several processes."""

import zlib
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from clarp.evaluation.metrics import Metric, Model
from clarp.optional import optional

if TYPE_CHECKING:
    from torchmetrics import Metric as Accumulator
else:
    Accumulator = optional("torchmetrics", "A metric of torchmetrics", "interop").Metric


class MapMetric(Accumulator):  # type: ignore[misc,unused-ignore]
    """The means of a clarp metric's columns over all images.

    Its states are sums and counts, which add up over processes.

    Args:
        metric: one of :mod:`clarp.evaluation`, for example ``PatchMasking(size=9)`` or ``PointingGame()``.
        num_classes: None for the mean over images; a number for the mean over classes of each class's mean,
            as the pointing game has it, of classes that have images.
        **options: torchmetrics' own, such as ``dist_sync_on_step``.

    Example:
        >>> from clarp.evaluation import PointingGame
        >>> pointing = MapMetric(PointingGame(tolerance=0))
        >>> mask = torch.eye(4, dtype=torch.bool)[None]
        >>> pointing.update(None, None, mask.float(), masks=mask)
        >>> pointing.update(None, None, (~mask).float(), masks=mask)
        >>> pointing.compute()["hit"]
        tensor(0.5000, dtype=torch.float64)
    """

    is_differentiable: ClassVar[bool] = False  # type: ignore[misc,unused-ignore]
    higher_is_better: ClassVar[bool | None] = None  # type: ignore[misc,unused-ignore]  # differs by column
    full_state_update: ClassVar[bool] = False  # type: ignore[misc,unused-ignore]

    def __init__(self, metric: Metric, num_classes: int | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.metric, self.num_classes = metric, num_classes
        # A MetricCollection takes metrics for the same whose states have the same names, and are equal once.
        self._own = f"{zlib.crc32(repr(metric).encode()):08x}"
        shape = (len(metric.columns), num_classes or 1)
        for state in ("total", "count"):
            empty = torch.zeros(shape, dtype=torch.float64)
            self.add_state(f"{state}_{self._own}", empty, dist_reduce_fx="sum")

    @property
    def total(self) -> Tensor:
        """The sum of each column over the rows that count, (columns, classes)."""
        return getattr(self, f"total_{self._own}")

    @property
    def count(self) -> Tensor:
        """How many rows count, (columns, classes)."""
        return getattr(self, f"count_{self._own}")

    def update(
        self,
        model: Model | None,
        images: Tensor | None,
        maps: Tensor,
        targets: Tensor | None = None,
        **truth: Any,
    ) -> None:
        """Measure the maps of a batch; the arguments are those of the clarp metric.

        What it does not know of the images it leaves out: a collection hands the same to all its metrics.

        Raises:
            ValueError: as the metric; and where there is a mean over classes, no targets, or one of another
                class.
        """
        known = {*self.metric.truth, *self.metric.optional_truth}
        asked = {name: value for name, value in truth.items() if name in known}
        rows = self.metric(model, images, maps, targets=targets, **asked)
        values = torch.stack([rows[name] for name in self.metric.columns]).to(self.total.device)
        classes = self._classes(targets, values.shape[1]).to(values.device)
        there = ~values.isnan()
        self.total.index_add_(1, classes, values.nan_to_num(nan=0.0))
        self.count.index_add_(1, classes, there.to(self.count.dtype))

    def compute(self) -> dict[str, Tensor]:
        """The mean of each column, by name; NaN where no row counts."""
        means = (self.total / self.count).nanmean(1)
        return dict(zip(self.metric.columns, means, strict=True))

    def _classes(self, targets: Tensor | None, count: int) -> Tensor:
        if self.num_classes is None:
            return torch.zeros(count, dtype=torch.long)
        if targets is None or not bool(((targets >= 0) & (targets < self.num_classes)).all()):
            raise ValueError(
                f"targets is {targets!r}, expected the class of each image, from 0 to {self.num_classes - 1}"
                ", for the mean over classes."
            )
        return targets.long()
