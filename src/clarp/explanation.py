"""The explanation: what an explainer returns."""

from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from clarp.method import Method
from clarp.operations import Convolution, Dense
from clarp.propagation import Ledger
from clarp.rules import LinearRule, Rule
from clarp.rules.rule import TINY
from clarp.seeds import Vector
from clarp.targets import no_others
from clarp.task import Task, TaskName

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from clarp.render import Look, Seen, Style


EMPTY = "no relevance: it cancelled, or never arrived"
"""What stands with a map that shows nothing."""
NEGATIVE = "the logit is negative, and so is its relevance: what raises it is drawn as speaking against"
"""What stands with a map whose seed is a negative logit that a rule of one sign, such as z+, shares out."""
DIVIDED = (
    "the logit is negative, and the last layer's rule divides by it: what raises it is drawn as speaking "
    "against"
)
"""What stands with a map whose seed does not carry the sign of a logit that the rule divides by: SGLRP's with
the epsilon rule."""
REVERSED_RIVALS = "rivals have negative logits: what raises these is drawn as speaking for the class"
"""Likewise, where that is the rivals' logits, or where their seed carries the sign and the rule is of one."""
NEGATIVE_OTHER = (
    "the logit is negative: what raises it speaks for the other class, and is drawn as speaking for this"
)
"""Likewise by either kind of rule, of class 0 of one logit, whose map has the opposite sign."""
MIRRORED = (
    "the rules share out only what raises the logit, so nothing speaks for this class; clarp shows both"
)
"""What stands with class 0 of one logit by a rule of one sign: the map of class 1 with the opposite sign."""
OUTWEIGHED = "more speaks against the class than for it; what it shares with its rivals counts for them"
"""What stands with a contrast of several classes most of whose relevance is negative."""
OUTWEIGHS = 0.6  # of |R|
DRAWN_FOR = 0.1
"""The share of the rivals' weight at their logits from which :data:`REVERSED_RIVALS` is said."""


@dataclass(frozen=True)
class Prediction:
    """What the model says of one class.

    Attributes:
        label: its name.
        index: its number.
        probability: as the task has it.
    """

    label: str
    index: int
    probability: float


@dataclass(frozen=True, eq=False)
class Explanation:
    """Relevance of the pixels, and everything that one needs to trust it.

    Attributes:
        relevance: (B, C, H, W), or (B, K, C, H, W) for a target of shape (B, K); of volumes (B, C, D, H, W),
            and so on for all images.
        logits: the model's logits, (B, N); (B, 1) for a binary task, however the model spells it.
        target: the classes explained, (B,) or (B, K).
        against: the classes they were contrasted with as given, or None for all others.
        method: how.
        ledger: where the relevance went, operation by operation.
        selection_skipped: at how many layers selection found no positive gradient and was skipped, (B,) or
            (B, K).
        layers: the relevance at the outputs of the modules that were asked for, (B, ...) or (B, K, ...), by
            name: what goes on from there, behind selection. For a convolutional layer
                ``layers[name].sum(-3)`` is a coarse map of the image, ``.sum(-4)`` of a
            volume.
        images: what was explained, (B, C, H, W), (B, C, D, H, W), (B, V, C, H, W) or (B, C, L).
        bounds_source: where the z^B rule's bounds came from.
        model: the name of the model's class.
        empty: which maps have no relevance, bool (B,) or (B, K): it cancelled, never arrived, or there was
            none.
        question: the task, with its formulas.
        labels: the names of the classes, None where they have none.
        assumed: about the model and the photo, before the explanation.
        channels: the axis of the images that holds the channels.
        photos: the whole photos, with what the model saw of them, for pictures; None where there are only
            ``images``.
    """

    relevance: Tensor
    logits: Tensor
    target: Tensor
    against: Tensor | None
    method: Method
    ledger: Ledger
    selection_skipped: Tensor
    layers: dict[str, Tensor] = field(repr=False)
    images: Tensor = field(repr=False)
    bounds_source: str
    model: str
    empty: Tensor
    question: Task
    labels: tuple[str, ...] | None = None
    assumed: tuple[str, ...] = ()
    channels: int = 1
    photos: "tuple[Seen, ...] | None" = field(default=None, repr=False)

    @property
    def task(self) -> TaskName:
        """Which question the classes are answers to: "multiclass", "binary" or "multilabel"."""
        return self.question.name

    @property
    def notes(self) -> tuple[str, ...]:
        """What was assumed, a sentence each."""
        return (*self.assumed, *self.question.notes)

    @property
    def heatmap(self) -> Tensor:
        """The relevance summed over the channels, (B, H, W) or (B, K, H, W).

        Of volumes and clips (B, D, H, W), of views (B, V, H, W), of signals (B, L); or with K behind B.
        """
        return self.relevance.sum(self.channels + self.target.ndim - 1)

    @property
    def shown(self) -> Tensor:
        """The heatmap as pictures and metrics take it, (B, H, W) or (B, K, H, W), without rounding.

        On a scale of its own rounding would be in full colour, and be taken for evidence.
        """
        axes = (1,) * (self.images.ndim - 2)
        return self.heatmap.masked_fill(self.empty.view(*self.empty.shape, *axes), 0)

    @property
    def probabilities(self) -> Tensor:
        """(B, classes): the softmax of the logits, or the sigmoid of each; a binary task has two classes."""
        return self.question.probabilities(self.logits)

    def predictions(self, top: int = 5) -> list[list[Prediction]]:
        """The most probable classes of each image, the first first.

        Args:
            top: how many.

        Example:
            >>> import clarp
            >>> from torch import nn
            >>> model = nn.Sequential(nn.Flatten(), nn.Linear(48, 1)).eval()
            >>> e = clarp.Explainer(model, "lrp", task="binary", labels=["covid"])(torch.rand(1, 3, 4, 4))
            >>> sorted(prediction.label for prediction in e.predictions()[0])
            ['covid', 'not covid']
        """
        shares = self.probabilities.double().cpu()
        best = shares.topk(min(top, shares.shape[1]))
        return [
            [Prediction(self.label(k), k, p) for k, p in zip(classes, values, strict=True)]
            for classes, values in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]

    def remark(self, image: int, k: int = 0) -> str:
        """What a reader of a map must know, or "": it is empty, has reversed signs, or is mostly negative.

        Args:
            image: which of the batch.
            k: which of its targets.
        """
        if bool(self.empty.view(len(self.images), -1)[image, k]):
            return EMPTY
        target = self.target.view(len(self.images), -1)[image, k]
        signs, rule = self.question.signs(target), self._head_rule()
        opposite = signs is not None and float(signs) < 0
        if isinstance(rule, LinearRule) and self.method.covering is None:
            own, rivals = self._drawn_for(image, target, rule)
            if own < 0:
                return NEGATIVE_OTHER if opposite else NEGATIVE if rule.one_sign else DIVIDED
            if opposite and rule.one_sign:
                return MIRRORED
            if rivals > DRAWN_FOR:
                return REVERSED_RIVALS
        contrasted = self.method.has_rivals and self.task == "multiclass"
        return OUTWEIGHED if contrasted and self._negative(image, k) > OUTWEIGHS else ""

    def _head_rule(self) -> Rule:
        """The rule of the last layer with weights, which shares out the seed."""
        heads = (entry.rule for entry in self.ledger if isinstance(entry.node.operation, Convolution | Dense))
        return next(heads, self.method.rules.dense)

    def _drawn_for(self, image: int, target: Tensor, rule: LinearRule) -> tuple[float, float]:
        """Whether what raises logits is drawn as speaking for the class.

        It is where the relevance of a logit is positive, by a rule of one sign; else where ``R_n / z_n`` is.

        Returns:
            The sign of that for the class's own logit, and the share of the rivals' weights for which it is.
        """
        seed = self.method.seed
        if isinstance(seed, Vector):
            return 0.0, 0.0  # the user's own, and only the user knows what it asks
        logits, column = self.logits[image : image + 1].detach(), self.question.columns(target).view(1, 1)
        against = self.against if self.against is None or self.against.ndim < 2 else self.against[[image]]
        if self.method.has_rivals:
            rivals = self.question.rivals(against, target.view(1, 1), logits.shape[1])
        else:
            rivals = no_others(column, logits.shape[1])
        weights = seed.relevance(logits, column, rivals)[0, 0].double()
        if not rule.one_sign:
            size = logits[0].double().abs() + rule.stabiliser
            weights = weights * logits[0].sign() / size.clamp(min=TINY)
        others = weights.where(rivals[0, 0], 0)
        share = others.clamp(min=0).sum() / others.abs().sum().clamp(min=TINY)
        return float(weights[column[0, 0]]), float(share)

    def _negative(self, image: int, k: int) -> float:
        """The share of the relevance of a map, by size, that is negative."""
        relevance = self.relevance[image][k] if self.target.ndim == 2 else self.relevance[image]
        values = relevance.detach().sum(self.channels - 1).double()
        return float(-values.clamp(max=0).sum() / values.abs().sum())

    def label(self, index: int) -> str:
        """The name of a class; "class 7" where classes have none."""
        return f"class {index}" if self.labels is None else self.labels[index]

    def __repr__(self) -> str:
        return (
            f"Explanation(method={self.method.name!r}, target={self.target.tolist()}, relevance of shape "
            f"{tuple(self.relevance.shape)}, model={self.model!r}, task={self.task!r}"
            + (f", notes={list(self.notes)})" if self.notes else ")")
        )

    def plot(self, style: "Look | Style" = "overlay", *, one_scale: bool = False) -> "Figure":
        """Draw the heatmaps of the first 16 images, a row each, and of their first 8 targets, a column each.

        A volume, clip or set of views is drawn as slices side by side, a signal as a strip.

        Args:
            style: "overlay", "pixels", "heatmap", "contours", "signs", "region", "versus" (two targets in one
                map), or a whole :class:`clarp.render.Look`; see :func:`clarp.render.figure`.
            one_scale: one colour scale over all maps; otherwise one for each image.

        Returns:
            A matplotlib figure of its own: nothing has to be closed, and pyplot knows nothing of it.

        Raises:
            ValueError: no such style, or "versus" for another number of targets than two.
        """
        from clarp.render.explained import Drawable  # noqa: PLC0415  pictures are drawn on request only

        return Drawable.of(self).figure(style, one_scale=one_scale)

    def _repr_html_(self) -> str:
        """What a notebook shows: the first 8 images with their first 4 heatmaps."""
        from clarp.render.explained import Drawable  # noqa: PLC0415

        return Drawable.of(self).html()

    def save(self, folder: str | Path) -> Path:
        """Write relevance and layers (.npy), each heatmap and overlay (.png), and ``manifest.json``.

        The pictures of a volume, clip or set of views are slices side by side, those of a signal strips. Each
        file is written whole or not at all.

        Args:
            folder: made if it does not exist; files of an earlier explanation in it are replaced.

        Returns:
            The path of the manifest.
        """
        from clarp.render.explained import Drawable  # noqa: PLC0415

        return Drawable.of(self).save(Path(folder))

    def describe(self) -> dict[str, Any]:
        """What a manifest says of it: versions, model, method, targets, rivals, and the ledger's totals."""
        return {
            "clarp": version("clarp"),
            "torch": torch.__version__,
            "model": self.model,
            "task": {"name": self.task, "source": self.question.source},
            "notes": list(self.notes),
            "method": self.method.name,
            "method_definition": repr(self.method),
            "composite": self.method.rules.name,
            "bounds": self.bounds_source,
            "target": self.target.tolist(),
            "against": self.question.unnamed_rivals(self.method.has_rivals)
            if self.against is None
            else self.against.tolist(),
            "selection_skipped": self.selection_skipped.tolist(),
            "empty": self.empty.tolist(),
            "ledger": self.ledger.summary(),
        }
