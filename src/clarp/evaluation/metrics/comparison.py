"""How alike two heatmaps of one image are: of two classes, or of a trained and a randomised model."""

import copy
import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from clarp.evaluation.metrics.base import Direction, Heatmaps, Metric, Model, check_whole, only_where
from clarp.optional import optional

Attribute = Callable[[nn.Module, Tensor, Tensor | None], Tensor]
"""(model, images (B, C, H, W), targets (B,)) to heatmaps (B, H, W) or relevance (B, C, H, W)."""
_PURPOSE = "Comparing heatmaps"


@dataclass(frozen=True)
class ClassSensitivity(Metric):
    """How alike the maps of two classes in one image are: lower is better, a map should depend on its class.

    - ``overlap``: ``sum min(P, Q) / sum max(P, Q)``, P and Q the positive parts, each divided by its sum.
    - ``correlation``: Pearson's, over pixels.
    - ``rank_correlation``: Spearman's, over pixels, equal values share their mean rank.

    ``degenerate`` says that at least one of the two maps is. A statistic that doesn't exist (a constant map,
    or for the overlap one without positive relevance) is NaN: a map that says nothing must not look
    discriminative. The comparison of a class's map with another's goes back to the critique that many methods
    give the same map for every class (Nie 2018, arXiv 1805.07039; Sixt 2020, arXiv 1912.09818).
    """

    name: ClassVar[str] = "class-sensitivity"
    truth: ClassVar[tuple[str, ...]] = ("other_maps",)
    columns: ClassVar[dict[str, Direction]] = {
        "overlap": "lower",
        "correlation": "lower",
        "rank_correlation": "lower",
        "degenerate": "none",
    }

    def measure(self, heatmaps: Heatmaps, *, other_maps: Tensor) -> dict[str, Tensor]:
        """Compare with ``other_maps`` of the same shape, of the same images and another class."""
        other = Heatmaps.of(other_maps, like=heatmaps.values[:, None])
        return {
            "overlap": _overlap(heatmaps.positive, other.positive),
            "correlation": _each(_pearson, heatmaps, other),
            "rank_correlation": _each(_spearman, heatmaps, other),
            "degenerate": heatmaps.degenerate | other.degenerate,
        }


@dataclass(frozen=True)
class ParameterRandomisation(Metric):
    """The model parameter randomisation test (Adebayo 2018, arXiv 1810.03292): lower is better.

    A map that explains the model must change when the model's weights become random. The modules that own
    parameters, in the order in which the model registered them, are divided into ``points`` groups of nearly
    equal number, from the output to the input. Order "cascading": after randomising groups 1 ... i;
    "independent": group i alone. Randomised parameters are normal draws with the mean and standard deviation
    of the trained ones, by seed and parameter name; batch norm's running statistics stay.

    ``rank@f`` is Spearman's correlation of the trained and the randomised model's map, ``ssim@f`` their
    structural similarity (Wang 2004, Gaussian window of sigma 1.5; each map divided by its greatest
    magnitude), f = i / points. ``rank`` is the mean over f. A constant map, or one with NaN or infinity,
    makes them NaN.

    Attributes:
        order: "cascading" or "independent".
        points: number of groups.
        seed: of the random weights.

    Raises:
        ValueError: an unknown order, or less than one point.
    """

    order: Literal["cascading", "independent"] = "cascading"
    points: int = 4
    seed: int = 0

    name: ClassVar[str] = "parameter-randomisation"
    needs_model: ClassVar[bool] = True
    truth: ClassVar[tuple[str, ...]] = ("attribute",)
    optional_truth: ClassVar[tuple[str, ...]] = ("copies",)

    def __post_init__(self) -> None:
        if self.order not in {"cascading", "independent"}:
            raise ValueError(f"order={self.order!r}: give one of the orders cascading, independent")
        check_whole(points=self.points)

    @property
    def columns(self) -> dict[str, Direction]:
        """``rank``, ``rank@f`` and ``ssim@f`` for each point, ``degenerate`` (of the trained model's map)."""
        shares = [point / self.points for point in range(1, self.points + 1)]
        curve = [f"{what}@{share:.2f}" for share in shares for what in ("rank", "ssim")]
        return {**dict.fromkeys(("rank", *curve), "lower"), "degenerate": "none"}

    def copies_of(self, model: Model) -> Iterator[nn.Module]:
        """As :meth:`randomised`."""
        return self.randomised(model)

    def randomised(self, model: Model) -> Iterator[nn.Module]:
        """The randomised copies, one per point; ``model`` itself is not changed.

        Raises:
            TypeError: not a ``torch.nn.Module``.
            ValueError: fewer modules with parameters than points.
        """
        if not isinstance(model, nn.Module):
            raise TypeError(f"randomising needs a torch.nn.Module, given was {type(model).__name__}")
        owners = [
            name for name, part in model.named_modules() if any(True for _ in part.parameters(recurse=False))
        ]
        if len(owners) < self.points:
            raise ValueError(
                f"the model has {len(owners)} modules with parameters, too few for points={self.points}: "
                "take fewer points"
            )
        groups = np.array_split(np.array(owners[::-1], dtype=object), self.points)
        for point in range(self.points):
            chosen = groups[: point + 1] if self.order == "cascading" else groups[point : point + 1]
            yield self._randomised(model, {name for group in chosen for name in group})

    def measure(
        self,
        heatmaps: Heatmaps,
        *,
        model: Model,
        images: Tensor,
        targets: Tensor | None,
        attribute: Attribute,
        copies: Iterable[nn.Module] | None = None,
    ) -> dict[str, Tensor]:
        """Compare.

        Args:
            heatmaps: of the trained model.
            model: the trained model.
            images: (B, C, H, W), preprocessed.
            targets: (B,) class ids, passed on to ``attribute``.
            attribute: the method that made the maps.
            copies: what :meth:`randomised` gave, kept for many batches, so that ``attribute`` can keep what
                it prepares for each of them too; None: made anew.
        """
        columns: dict[str, Tensor] = {}
        for point, other in enumerate(self.randomised(model) if copies is None else copies, start=1):
            random = Heatmaps.of(attribute(other, images, targets), like=images)
            columns[f"rank@{point / self.points:.2f}"] = _each(_spearman, heatmaps, random)
            columns[f"ssim@{point / self.points:.2f}"] = _each(_ssim, heatmaps, random)
        ranks = torch.stack([value for name, value in columns.items() if name.startswith("rank")])
        return {"rank": ranks.mean(dim=0), **columns}

    def _randomised(self, model: nn.Module, owners: set[str]) -> nn.Module:
        other = copy.deepcopy(model)
        for owner in sorted(owners):
            for name, parameter in other.get_submodule(owner).named_parameters(recurse=False):
                digest = hashlib.sha256(f"{self.seed} {owner}.{name}".encode()).digest()
                generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
                noise = torch.randn(parameter.shape, generator=generator).to(parameter)
                with torch.no_grad():
                    parameter.copy_(parameter.mean() + parameter.std(correction=0) * noise)
        return other


def _overlap(one: Tensor, other: Tensor) -> Tensor:
    """(B,) from positive parts (B, H, W)."""
    one, other = one.flatten(1), other.flatten(1)
    sums = one.sum(dim=1, keepdim=True), other.sum(dim=1, keepdim=True)
    one, other = one / sums[0], other / sums[1]
    overlap = torch.minimum(one, other).sum(dim=1) / torch.maximum(one, other).sum(dim=1)
    return only_where((sums[0] > 0).flatten() & (sums[1] > 0).flatten(), overlap)


def _each(statistic: Callable[[Tensor, Tensor], float], one: Heatmaps, other: Heatmaps) -> Tensor:
    """(B,): the statistic of each pair of maps, NaN where one of the two is constant."""
    usable = ~(one.degenerate | other.degenerate)
    values = [
        statistic(one.values[i], other.values[i]) if usable[i] else torch.nan for i in range(len(one.values))
    ]
    return torch.tensor(values, dtype=torch.float64)


def _pearson(one: Tensor, other: Tensor) -> float:
    stats = optional("scipy.stats", _PURPOSE)
    return float(stats.pearsonr(one.flatten().numpy(), other.flatten().numpy()).statistic)


def _spearman(one: Tensor, other: Tensor) -> float:
    stats = optional("scipy.stats", _PURPOSE)
    return float(stats.spearmanr(one.flatten().numpy(), other.flatten().numpy()).statistic)


def _ssim(one: Tensor, other: Tensor) -> float:
    """scikit-image's, as in Adebayo's code."""
    similarity = optional("skimage.metrics", _PURPOSE).structural_similarity
    scaled = [(heatmap / heatmap.abs().max()).numpy() for heatmap in (one, other)]
    return float(
        similarity(*scaled, data_range=2.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False)
    )
