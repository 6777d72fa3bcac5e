"""A batch of questions, and which questions a data set can answer."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor, nn

from clarp.data.dataset import Dataset
from clarp.data.rendered import Scene, Scenes
from clarp.evaluation.attribution import Attributor
from clarp.evaluation.inputs import Unit
from clarp.evaluation.metrics import Metric, Model, SignedEffect

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
    _effects: dict[SignedEffect, Tensor] = field(default_factory=dict)
    _drawn: list[Scenes] = field(default_factory=list)

    @property
    def ids(self) -> list[str]:
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

    def truth(
        self,
        metric: Metric,
        method: Attributor,
        *,
        model: Model,
        normalised: Callable[[Image.Image], Tensor],
        on_copy: Callable[[Attributor, nn.Module], Attributor],
        copies: Callable[[Metric], list[nn.Module]],
        mean_image: Callable[[], Tensor],
    ) -> dict[str, Any]:
        """What a metric says that it needs or uses, by name.

        Args:
            metric: asked of this batch.
            method: made the maps; it makes those of other classes and of randomised copies too.
            model: what metrics ask.
            normalised: a picture that has the model's size, as the model sees it.
            on_copy: the method for such a network.
            copies: the other networks of a metric.
            mean_image: (C, H, W), the mean of the run's images.
        """
        names = (*metric.truth, *metric.optional_truth)
        truths = [unit.truth for unit in self.units if unit.truth]
        photos_pixels = "geometries" in names

        def attribute(model: nn.Module, images: Tensor, targets: Tensor | None) -> Tensor:
            assert targets is not None
            return on_copy(method, model)(images, targets, self.ids)

        def apart(network: nn.Module, numbers: Tensor) -> Tensor:
            there, ids = numbers.to(self.images.device), [self.ids[number] for number in numbers.tolist()]
            return on_copy(method, network)(self.images[there], self.targets[numbers], ids)

        def explain(images: Tensor, targets: Tensor | None) -> Tensor:
            assert targets is not None
            return method(images, targets, self.ids)

        known: dict[str, Callable[[], Any]] = {
            "masks": lambda: [truth.mask for truth in truths] if photos_pixels else self.masks,
            "geometries": lambda: [unit.place for unit in self.units if unit.place],
            "difficult": lambda: [truth.difficult for truth in truths],
            "skip": lambda: [truth.skip for truth in truths],
            "cells": lambda: [unit.cell for unit in self.units],
            "other_maps": lambda: method(self.images, self.rivals, self.ids),
            "attribute": lambda: attribute,
            "apart": lambda: None if method.layered else apart,
            "explain": lambda: explain,
            "copies": lambda: copies(metric),
            "mean_image": mean_image,
            "before": lambda: self.before,
            "scenes": lambda: self._scenes(normalised),
            "effects": lambda: self._effects_of(metric, model, mean_image),
        }
        return {name: known[name]() for name in names}

    def _scenes(self, normalised: Callable[[Image.Image], Tensor]) -> Scenes:
        """Drawn once for all metrics and methods."""
        if not self._drawn:
            pictures = [unit.sample.picture for unit in self.units]
            self._drawn.append(Scenes.of([one for one in pictures if isinstance(one, Scene)], normalised))
        return self._drawn[0]

    def _effects_of(self, metric: Metric, model: Model, mean_image: Callable[[], Tensor]) -> Tensor:
        """Of the cells that the metric covers: they depend on no method, so they are computed once."""
        assert isinstance(metric, SignedEffect)
        if metric not in self._effects:
            mean = mean_image() if "mean_image" in metric.optional_truth else None
            self._effects[metric] = metric.effects(model, self.images, self.targets, mean)
        return self._effects[metric]


def check_truth(dataset: Dataset, metrics: Mapping[str, Metric], target: TargetKind) -> None:
    """Refuse metrics that the data set can't answer.

    Raises:
        ValueError: a metric needs to know where the objects are and nobody says, or it is not made for such
            pictures.
    """
    located = [name for name, metric in metrics.items() if LOCATED & set(metric.truth)]
    asks, needs, them = ("asks", "needs", "it") if len(located) == 1 else ("ask", "need", "them")
    if located and target == "predicted":
        raise ValueError(
            f"{', '.join(located)} {asks} where a label is; use --target label, or leave {them} out."
        )
    if located and not any(sample.objects for sample in dataset):
        raise ValueError(
            f"{', '.join(located)} {needs} to know where the objects are, and {dataset.name} doesn't say: "
            f"leave {them} out, or give a data set with boxes or masks (VOC, COCO, ImageNet with its boxes, "
            "mosaics:FOLDER, composites:FOLDER)."
        )
    for name, metric in metrics.items():
        metric.check_dataset(name, dataset.name)
