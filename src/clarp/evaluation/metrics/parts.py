"""Questions to maps of rendered scenes, of which it is known what the model can use."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from clarp.data.rendered import Scenes
from clarp.evaluation.metrics.base import Direction, Heatmaps, Metric, Model, only_where
from clarp.evaluation.metrics.perturbation import leads, predicted
from clarp.evaluation.metrics.stability import Explain
from clarp.optional import optional


class _OfScenes(Metric):
    """What metrics on :func:`clarp.data.rendered` share."""

    needs_model: ClassVar[bool] = True

    def check_dataset(self, own: str, dataset: str) -> None:
        """Refuse all but rendered scenes."""
        if not dataset.startswith("rendered"):
            raise ValueError(
                f"{own} asks what is known of rendered scenes, and {dataset} has none: give a data set of "
                "clarp.data.rendered."
            )


@dataclass(frozen=True)
class SingleDeletion(_OfScenes):
    """Single deletion (FunnyBirds, Hesse 2023, arXiv 2308.06248): higher is better.

    ``rank`` is Spearman's correlation, over the four parts of an object, of a part's relevance (its sum over
    the part's pixels) with what the lead loses when the picture is drawn without it. The paper's score is
    ``1/2 + rank/2``, with the logit in the lead's place.

    A map that is constant, or has NaN or infinity, has 0; where the model loses the same with each part, NaN.
    Known bias: a large part has more of any map and more of an effect, so maps that know nothing of the model
    are far above 0, as the controls show. Four parts give few ranks, so single pictures say little.
    """

    name: ClassVar[str] = "single-deletion"
    truth: ClassVar[tuple[str, ...]] = ("scenes",)
    columns: ClassVar[dict[str, Direction]] = {"rank": "higher", "degenerate": "none"}

    def measure(
        self, heatmaps: Heatmaps, *, model: Model, images: Tensor, targets: Tensor | None, scenes: Scenes
    ) -> dict[str, Tensor]:
        """By ``scenes``, which knows the parts and draws without them."""
        lost = _lost(model, images, targets, scenes.without_part)
        sums, stats = _sums(heatmaps, scenes.parts), optional("scipy.stats", "Ranks of parts")
        found = [
            float(stats.spearmanr(own, drop).statistic) if bool((own != own[0]).any()) else 0.0
            for own, drop in zip(sums.numpy(), lost.numpy(), strict=True)
        ]
        ranks = torch.tensor(found, dtype=torch.float64).masked_fill(heatmaps.degenerate, 0.0)
        return {"rank": only_where((lost != lost[:, :1]).any(dim=1), ranks)}


@dataclass(frozen=True)
class TargetSensitivity(_OfScenes):
    """Target sensitivity (FunnyBirds, Hesse 2023, arXiv 2308.06248): higher is better.

    Two other classes share two parts each with the object, and none with each other. Each class's map should
    have more relevance in the parts that it shares than the other class's map has there. ``right`` is the
    share of these two comparisons that come out so; equal sums do not. Chance is 1/2.

    Known bias: it asks for the order of two sums and not for their signs, and of two maps with scales of
    their own (a class far behind has a small logit).
    """

    name: ClassVar[str] = "target-sensitivity"
    truth: ClassVar[tuple[str, ...]] = ("scenes", "explain")
    columns: ClassVar[dict[str, Direction]] = {"right": "higher", "degenerate": "none"}

    def measure(
        self,
        heatmaps: Heatmaps,
        *,
        model: Model,
        images: Tensor,
        targets: Tensor | None,
        scenes: Scenes,
        explain: Explain,
    ) -> dict[str, Tensor]:
        """By ``explain``, which made the maps; those of the object's own class are not used."""
        del heatmaps, model, targets
        both = [Heatmaps.of(explain(images, others), like=images) for others in scenes.others.unbind(dim=1)]
        masks = (scenes.parts[:, None] & scenes.shared[..., None, None]).any(dim=2)
        first, second = (_sums(maps, masks) for maps in both)
        right = torch.stack([first[:, 0] > second[:, 0], second[:, 1] > first[:, 1]], dim=1)
        return {"right": right.double().mean(dim=1)}


@dataclass(frozen=True)
class BackgroundIndependence(_OfScenes):
    """Background independence (after FunnyBirds, Hesse 2023, arXiv 2308.06248): higher is better.

    Of the things on the ground that the model does not use (without one, the lead changes by less than
    ``tolerance`` times the most that it loses with a part), ``independent`` is the share whose relevance is,
    by its size, less than ``threshold`` times the greatest of a part. NaN where the model uses all of them.
    ``unused`` is how many it does not use. A map that is constant, or has NaN or infinity, has 0.

    The paper varies the threshold; here it is fixed. Known bias: things on the ground are small, and so is
    their share of relevance that is spread everywhere.

    Attributes:
        tolerance: above 0.
        threshold: above 0.

    Raises:
        ValueError: one of them is not above 0.
    """

    tolerance: float = 0.05
    threshold: float = 0.1

    name: ClassVar[str] = "background-independence"
    truth: ClassVar[tuple[str, ...]] = ("scenes",)
    columns: ClassVar[dict[str, Direction]] = {
        "independent": "higher",
        "unused": "none",
        "degenerate": "none",
    }

    def __post_init__(self) -> None:
        if not (self.tolerance > 0 and self.threshold > 0):
            raise ValueError(f"tolerance={self.tolerance}, threshold={self.threshold}: give shares above 0")

    def measure(
        self, heatmaps: Heatmaps, *, model: Model, images: Tensor, targets: Tensor | None, scenes: Scenes
    ) -> dict[str, Tensor]:
        """By ``scenes``, which knows the ground and draws without its things."""
        of_parts = _lost(model, images, targets, scenes.without_part).amax(dim=1, keepdim=True)
        moved = _lost(model, images, targets, scenes.without_ground).abs()
        unused = (moved < self.tolerance * of_parts) & scenes.ground.flatten(2).any(dim=2)
        greatest = _sums(heatmaps, scenes.parts).abs().amax(dim=1, keepdim=True)
        small = _sums(heatmaps, scenes.ground).abs() < self.threshold * greatest
        count = unused.sum(dim=1)
        share = (small & unused & ~heatmaps.degenerate[:, None]).sum(dim=1) / count.clamp(min=1)
        return {"independent": only_where(count > 0, share), "unused": count}


@dataclass(frozen=True)
class ShortcutNamed(_OfScenes):
    """Whether a map names a planted shortcut where the model uses it: higher is better.

    Asked of pictures with a mark on the ground of which the model loses more than of any part: ``named`` says
    whether the mark has more relevance, summed over its pixels, than any part. NaN for other pictures.
    """

    name: ClassVar[str] = "shortcut-named"
    truth: ClassVar[tuple[str, ...]] = ("scenes",)
    columns: ClassVar[dict[str, Direction]] = {"named": "higher", "degenerate": "none"}

    def measure(
        self, heatmaps: Heatmaps, *, model: Model, images: Tensor, targets: Tensor | None, scenes: Scenes
    ) -> dict[str, Tensor]:
        """By ``scenes``, whose last thing on the ground is the mark."""
        of_parts = _lost(model, images, targets, scenes.without_part).amax(dim=1)
        of_mark = _lost(model, images, targets, scenes.without_ground[:, -1:])[:, 0]
        used = scenes.ground[:, -1].flatten(1).any(dim=1) & (of_mark > of_parts)
        mark = _sums(heatmaps, scenes.ground[:, -1:])[:, 0]
        named = (mark > _sums(heatmaps, scenes.parts).amax(dim=1)) & ~heatmaps.degenerate
        return {"named": only_where(used, named)}


def _lost(model: Model, images: Tensor, targets: Tensor | None, without: Tensor) -> Tensor:
    """What the lead of each image's target loses in other drawings (B, P, C, H, W) of it, (B, P)."""
    chosen, count = predicted(model, images, targets), without.shape[1]
    after = leads(model, without.flatten(0, 1).to(images), chosen.repeat_interleave(count))
    return leads(model, images, chosen)[:, None] - after.view(-1, count)


def _sums(heatmaps: Heatmaps, masks: Tensor) -> Tensor:
    """The relevance in masks (B, P, H, W), (B, P)."""
    return (heatmaps.values[:, None] * masks.cpu()).flatten(2).sum(dim=2)
