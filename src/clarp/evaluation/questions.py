"""A batch of questions, and which questions a data set can answer."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from clarp.data.dataset import Dataset
from clarp.evaluation.inputs import Unit
from clarp.evaluation.metrics import GridPointingGame, Metric

TargetKind = Literal["label", "predicted"]
LOCATED = frozenset({"masks", "cells"})
"""What a metric needs that only some data sets have."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Units of one shape, and what the model says of them.

    Attributes:
        units: the questions, B of them.
        images: (B, C, H, W).
        scores: (B, N) of N classes: the greater, the more the model says that it is this one.
        targets: (B,) on the CPU, the classes to explain.
        before: (B,) their probabilities.
    """

    units: list[Unit]
    images: Tensor
    scores: Tensor
    targets: Tensor
    before: Tensor

    @property
    def ids(self) -> list[str]:
        """The samples' ids."""
        return [unit.sample.id for unit in self.units]

    @cached_property
    def masks(self) -> list[Tensor]:
        """(H, W) bool each, in the model's pixels."""
        return [u.place.mask_to_model(u.truth.mask) for u in self.units if u.truth and u.place]

    @cached_property
    def rivals(self) -> Tensor:
        """(B,): the strongest class that does not name the label."""
        values = self.scores.detach().cpu().clone()
        for row, unit, target in zip(values, self.units, self.targets.tolist(), strict=True):
            row[[*unit.label, target]] = -torch.inf
        return values.argmax(dim=1)

    def located(self) -> dict[str, Any]:
        """What the pointing game asks, in the photos' pixels."""
        truths = [unit.truth for unit in self.units if unit.truth]
        return {
            "masks": [truth.mask for truth in truths],
            "geometries": [unit.place for unit in self.units if unit.place],
            "difficult": [truth.difficult for truth in truths],
            "skip": [truth.skip for truth in truths],
        }


def check_truth(dataset: Dataset, metrics: Mapping[str, Metric], target: TargetKind) -> None:
    """Refuse metrics that the data set can't answer.

    Raises:
        ValueError: a metric needs to know where the objects are and nobody says, or it is played on mosaics only.
    """
    needy = [name for name, metric in metrics.items() if LOCATED & set(metric.truth)]
    asks, needs, them = ("asks", "needs", "it") if len(needy) == 1 else ("ask", "need", "them")
    if needy and target == "predicted":
        raise ValueError(
            f"{', '.join(needy)} {asks} where a label is; use --target label, or leave {them} out."
        )
    if needy and not any(sample.objects for sample in dataset):
        raise ValueError(
            f"{', '.join(needy)} {needs} to know where the objects are, and {dataset.name} doesn't say: leave {them} "
            "out, or give a data set with boxes or masks (VOC, COCO, ImageNet with its boxes, mosaics:FOLDER, composites:FOLDER)."
        )
    for name, metric in metrics.items():
        if isinstance(metric, GridPointingGame) and not dataset.name.endswith(
            f"-mosaic-{metric.n}x{metric.n}"
        ):
            raise ValueError(
                f"{name} is played on mosaics of {metric.n} x {metric.n} photos, and {dataset.name} is none: "
                "give mosaics:FOLDER."
            )
