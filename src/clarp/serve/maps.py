"""The maps of one photo by one of clarp's methods or by a baseline, in one form; knows nothing of pictures."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clarp.commands.manifest import finite
from clarp.evaluation.baselines import Baseline
from clarp.explanation import EMPTY, Explanation
from clarp.method import methods
from clarp.render.scale import oddity
from clarp.task import Task

COMPARED = {
    "gradcam": "To compare with what most papers show. It is coarse, a value for each cell of the last convolution, and shows nothing "
    "that speaks against a class."
}
"""The baselines that are offered beside clarp's methods, and when to take each."""
OFFERED = (*methods(), *COMPARED)
"""What a request may name."""


@dataclass(frozen=True, eq=False)
class Maps:
    """One map for each target.

    Attributes:
        method: its name.
        definition: the whole configuration in words.
        composite: the name of its rules; "" for a baseline.
        made: method and rules, or layer, for captions.
        has_rivals: whether the choice of rivals changes anything.
        targets: K classes.
        heatmaps: (K, H, W), zero where there is no relevance but rounding.
        against: the rivals that were named.
        otherwise: what stands in their place where there are none, in words.
        skipped: at how many layers selection was skipped, K numbers.
        empty: which maps have no relevance at all, K.
        ledgers: where the relevance went, K; empty for a baseline.
    """

    method: str
    definition: str
    composite: str
    made: str
    has_rivals: bool
    targets: list[int]
    heatmaps: NDArray[np.float32]
    against: list[int]
    otherwise: str
    skipped: list[int]
    empty: list[bool]
    ledgers: list[dict[str, float | None]]

    @classmethod
    def explained(cls, explanation: Explanation, against: Sequence[int]) -> "Maps":
        """Those of an explanation of one photo with a target of shape (1, K), and the rivals that were named to it."""
        method, targets = explanation.method, explanation.target[0].tolist()
        parts = {part: np.asarray(values)[0] for part, values in explanation.ledger.summary().items()}
        return cls(
            method=method.name,
            definition=repr(method),
            composite=method.rules.name,
            made=f"{method.name.upper()} ({method.rules.name})",
            has_rivals=method.has_rivals,
            targets=targets,
            heatmaps=explanation.shown[0].float().cpu().numpy(),
            against=list(against),
            otherwise=explanation.question.unnamed_rivals(method.has_rivals),
            skipped=explanation.selection_skipped[0].tolist(),
            empty=explanation.empty[0].tolist(),
            ledgers=[
                {part: finite(values[k].item()) for part, values in parts.items()}
                for k in range(len(targets))
            ],
        )

    @classmethod
    def compared(cls, baseline: Baseline, image: Tensor, targets: Sequence[int], task: Task) -> "Maps":
        """Those of a baseline.

        Args:
            baseline: of the model.
            image: (1, C, H, W).
            targets: K classes.
            task: of the model.
        """
        found = baseline(image.expand(len(targets), -1, -1, -1), torch.tensor(targets))
        return cls(
            method=baseline.name,
            definition=baseline.definition,
            composite="",
            made=f"{baseline.name.upper()} ({baseline.layer})",
            has_rivals=False,
            targets=list(targets),
            heatmaps=found.float().cpu().numpy(),
            against=[],
            otherwise=task.unnamed_rivals(has_rivals=False),
            skipped=[0] * len(targets),
            empty=[False] * len(targets),
            ledgers=[{}] * len(targets),
        )

    def rivals(self, k: int) -> list[int]:
        """The named rivals of a target."""
        return [index for index in self.against if index != self.targets[k]]

    def oddity(self, k: int) -> str:
        """What is odd about a map, or nothing."""
        return EMPTY if self.empty[k] else oddity(self.heatmaps[k])
