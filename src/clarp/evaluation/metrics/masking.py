"""Maximal patch masking: cover the most relevant patch, and see how much of the prediction goes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from clarp.evaluation.metrics.base import Direction, Heatmaps, Metric, Model, check_whole
from clarp.evaluation.metrics.perturbation import (
    Fill,
    check_fill,
    masked_values,
    mean_image_for,
    painter,
    predicted,
    probabilities,
)

MARGIN = 1e-7
"""How far from 0 and 1 a probability is kept before its log-odds are taken."""


@dataclass(frozen=True)
class PatchMasking(Metric):
    """Maximal patch masking (SGLRP, Iwana 2019, arXiv 1908.04351).

    ``drop@k = y_t(image) - y_t(image with a k x k patch filled)``, y_t the target's probability (softmax, or
    as the model's task has it), and ``odds@k`` the same for its log-odds ``log(y_t / (1 - y_t))``, with y_t
    kept 1e-7 away from 0 and 1. Where the model is sure, probabilities hardly move and a few photos make
    their mean; log-odds weigh all photos.

    The patch sits where the map (channels summed) is greatest:

    - centre "pixel": its middle is the arg-max pixel, as in the reference code; for even k the middle is the
      pixel to the lower right of it. The part outside of the image is cut off; the image is never left out.
    - centre "window": it is the k x k window inside the image with the greatest total relevance.

    A map that is constant, or has NaN or infinity, names no place: nothing is covered and its drop is 0.

    Attributes:
        size: k in pixels, 9 at 224 px in the paper; several sizes are a curve, one column each.
        fill: see :data:`~clarp.evaluation.metrics.perturbation.Fill`.
        centre: see above.
        chunk: at most so many images go through the model at once.

    Raises:
        ValueError: a size or chunk that is no whole number of at least 1, an unknown fill or centre.

    >>> image = torch.ones(1, 3, 8, 8)
    >>> def model(x):  # class 0 lives from the pixel in row 2, column 5
    ...     return torch.stack((4 * x[:, 0, 2, 5], torch.zeros(len(x))), dim=1)
    >>> heatmap = torch.zeros(1, 8, 8)
    >>> heatmap[0, 2, 5] = 1.0
    >>> rows = PatchMasking(size=3)(model, image, heatmap, targets=torch.tensor([0]))
    >>> round(float(rows["drop@3"]), 4)  # softmax of 4 minus softmax of 0
    0.482
    """

    size: int | tuple[int, ...] = 9
    fill: Fill = "mean"
    centre: Literal["pixel", "window"] = "pixel"
    chunk: int = 64

    name: ClassVar[str] = "patch-masking"
    needs_model: ClassVar[bool] = True

    def __post_init__(self) -> None:
        sizes = self.sizes
        if not sizes or len(set(sizes)) != len(sizes):
            several = "or several different ones"
            raise ValueError(f"size={self.size!r}: give a patch size of at least 1 pixel, {several}")
        for size in sizes:
            check_whole(size=size)
        check_whole(chunk=self.chunk)
        check_fill(self.fill)
        if self.centre not in {"pixel", "window"}:
            raise ValueError(f"centre={self.centre!r}: give one of the centres pixel, window")

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(self.size) if isinstance(self.size, Sequence) else (self.size,)

    @property
    def optional_truth(self) -> tuple[str, ...]:
        """The mean image where it fills with that, and the probabilities of the whole images."""
        return (*mean_image_for(self.fill), "before")

    @property
    def columns(self) -> dict[str, Direction]:
        """``drop@k``, then ``odds@k`` for each size, ``before`` (y_t of the whole image), ``degenerate``."""
        names = [f"{what}@{k}" for what in ("drop", "odds") for k in self.sizes]
        return {**dict.fromkeys(names, "higher"), "before": "none", "degenerate": "none"}

    def measure(
        self,
        heatmaps: Heatmaps,
        *,
        model: Model,
        images: Tensor,
        targets: Tensor | None,
        mean_image: Tensor | None = None,
        before: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Cover the patches.

        Args:
            heatmaps: of the images.
            model: images to logits.
            images: (B, C, H, W).
            targets: (B,) or None.
            mean_image: (C, H, W), the data set's mean image after preprocessing, for the fill "mean".
            before: (B,) probabilities of the targets, to spare a forward pass that several methods share.
        """
        targets = predicted(model, images, targets, chunk=self.chunk)
        if before is None:
            before = probabilities(model, images, targets, chunk=self.chunk)
        patches = torch.stack([self._patches(heatmaps, size) for size in self.sizes], dim=1)
        after = masked_values(
            model,
            painter(images, self.fill, mean_image),
            lambda image, variant: _inside(patches[image, variant], images.shape[2:]),
            variants=len(self.sizes),
            targets=targets,
            device=images.device,
            chunk=self.chunk,
        )
        before = before.detach().to("cpu", torch.float64)
        after = torch.where(heatmaps.degenerate[:, None], before[:, None], after)
        fallen = {"drop": before[:, None] - after, "odds": _log_odds(before)[:, None] - _log_odds(after)}
        columns = {f"{what}@{k}": by[:, n] for what, by in fallen.items() for n, k in enumerate(self.sizes)}
        return {**columns, "before": before}

    def _patches(self, heatmaps: Heatmaps, size: int) -> Tensor:
        """(top, left, bottom, right) of each map's patch, (B, 4); they may reach over the border."""
        if self.centre == "pixel":
            row, column = heatmaps.points()
            top, left = row - size // 2, column - size // 2
            return torch.stack((top, left, top + size, left + size), dim=1)
        height, width = (min(size, side) for side in heatmaps.values.shape[1:])
        # Sums, not means: whole numbers stay exact, and with them their ties.
        totals = F.avg_pool2d(heatmaps.values[:, None], (height, 1), stride=1, divisor_override=1)
        totals = F.avg_pool2d(totals, (1, width), stride=1, divisor_override=1)[:, 0]
        top, left = Heatmaps.of(totals).points()
        return torch.stack((top, left, top + height, left + width), dim=1)


def _log_odds(probability: Tensor) -> Tensor:
    return probability.clamp(MARGIN, 1 - MARGIN).logit()


def _inside(boxes: Tensor, size: Sequence[int]) -> Tensor:
    """(n, H, W) bool: the pixels in boxes (n, 4) of (top, left, bottom, right)."""
    rows, columns = torch.arange(size[0]), torch.arange(size[1])
    top, left, bottom, right = (edge[:, None] for edge in boxes.unbind(dim=1))
    return ((rows >= top) & (rows < bottom))[:, :, None] & ((columns >= left) & (columns < right))[:, None, :]
