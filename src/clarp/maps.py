"""The maps of one photo by one of clarp's methods, a baseline or a control, in one form."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clarp.explanation import EMPTY, Explanation
from clarp.manifest import finite
from clarp.passes import ENOUGH
from clarp.render.scale import oddity
from clarp.task import Task

if TYPE_CHECKING:
    from clarp.evaluation.attribution import Attributor
    from clarp.exporting.explaining import FileExplanation


@dataclass(frozen=True, eq=False)
class PhotoMaps:
    """One map for each of K targets.

    Attributes:
        method: its name.
        definition: the whole configuration in words.
        composite: the name of its rules; "" for a baseline.
        made: method and rules, or layer, for captions.
        has_rivals: whether the choice of rivals changes anything.
        task: what the model's last layer means.
        targets: K classes.
        shown: (K, H, W), zero where there is no relevance but rounding.
        against: the rivals that were named.
        skipped: at how many layers selection was skipped, K numbers.
        empty: which maps have no relevance at all, K.
        remark: what a reader of map k must know, or "".
        ledgers: where the relevance went, K; empty for a baseline.
        relevance: (K, C, H, W); None for a baseline.
        layers: the relevance at modules, (K, ...) each, by their names.
    """

    method: str
    definition: str
    composite: str
    made: str
    has_rivals: bool
    task: Task
    targets: list[int]
    shown: Tensor
    against: list[int]
    skipped: list[int]
    empty: list[bool]
    remark: Callable[[int], str]
    ledgers: list[dict[str, float | None]]
    relevance: Tensor | None = None
    layers: Mapping[str, Tensor] = field(default_factory=dict)

    @classmethod
    def explained(cls, explanation: Explanation, against: Sequence[int]) -> "list[PhotoMaps]":
        """Those of each image of an explanation, and the rivals that were named to it."""
        method, count = explanation.method, len(explanation.images)
        shape = (count, -1)

        def rows(values: Tensor) -> Tensor:
            """(B, K, ...)."""
            return values if explanation.target.ndim == 2 else values[:, None]

        targets, shown, relevance = map(rows, (explanation.target, explanation.shown, explanation.relevance))
        skipped, empty = (part.view(shape) for part in (explanation.selection_skipped, explanation.empty))
        layers = {name: rows(values) for name, values in explanation.layers.items()}
        parts = {part: np.asarray(v).reshape(shape) for part, v in explanation.ledger.summary().items()}
        return [
            cls(
                method=method.name,
                definition=repr(method),
                composite=method.rules.name,
                made=f"{method.name.upper()} ({method.rules.name})",
                has_rivals=method.has_rivals,
                task=explanation.question,
                targets=targets[row].tolist(),
                shown=shown[row],
                against=list(against),
                skipped=skipped[row].tolist(),
                empty=empty[row].tolist(),
                remark=partial(explanation.remark, row),
                ledgers=[
                    {part: finite(values[row, k].item()) for part, values in parts.items()}
                    for k in range(targets.shape[1])
                ],
                relevance=relevance[row],
                layers={name: values[row] for name, values in layers.items()},
            )
            for row in range(count)
        ]

    @classmethod
    def of_file(cls, explanation: "FileExplanation", against: Sequence[int]) -> "list[PhotoMaps]":
        """Those of each image by a file of :func:`clarp.export`, and the rivals that were named to it."""
        about = explanation.about

        def remark(row: int, k: int) -> str:
            share = float(explanation.lost[row, k])
            return f"{share:.0%} of the relevance never reached the pixels" if share > 1 - ENOUGH else ""

        return [
            cls(
                method=about.method,
                definition=about.definition,
                composite=about.composite,
                made=f"{about.method.upper()} ({about.composite})",
                has_rivals=about.has_rivals,
                task=explanation.question,
                targets=targets,
                shown=explanation.heatmap[row],
                against=list(against),
                skipped=[0] * len(targets),
                empty=[not bool(one.any()) for one in explanation.heatmap[row]],
                remark=partial(remark, row),
                ledgers=[{"lost": finite(share)} for share in explanation.lost[row].tolist()],
                relevance=explanation.heatmap[row].unsqueeze(about.channels),
            )
            for row, targets in enumerate(explanation.target.tolist())
        ]

    @classmethod
    def compared(
        cls, attributor: "Attributor", image: Tensor, targets: Sequence[int], task: Task, name: str = ""
    ) -> "PhotoMaps":
        """Those of a baseline or a control.

        Args:
            attributor: of the model.
            image: (C, H, W).
            targets: K classes.
            task: of the model.
            name: of the image; a control draws its maps by it.
        """
        count = len(targets)
        found = attributor(image.expand(count, -1, -1, -1), torch.tensor(targets), [name] * count)
        return cls(
            method=attributor.name,
            definition=attributor.definition,
            composite="",
            made=f"{attributor.name.upper()} ({getattr(attributor, 'layer', '')})",
            has_rivals=False,
            task=task,
            targets=list(targets),
            shown=found,
            against=[],
            skipped=[0] * count,
            empty=[False] * count,
            remark=lambda _: "",
            ledgers=[{}] * count,
        )

    @cached_property
    def heatmaps(self) -> NDArray[np.float32]:
        """(K, H, W), on the CPU."""
        return self.shown.detach().float().cpu().numpy()

    @property
    def otherwise(self) -> str:
        """What stands in place of rivals where none were named, in words."""
        return self.task.unnamed_rivals(self.has_rivals)

    def rivals(self, k: int) -> list[int]:
        """The named rivals of a target."""
        return [index for index in self.against if index != self.targets[k]]

    def oddity(self, k: int) -> str:
        """What is odd about a map, or nothing."""
        return EMPTY if self.empty[k] else oddity(self.heatmaps[k])
