"""Lost relevance: looked for once in each program, with a warning that says what loses less."""

import warnings
from weakref import WeakSet

from torch import Tensor

from clarp.errors import RelevanceLost, level_of_the_user
from clarp.passes import Maps, Passes, lost_of
from clarp.remedy import better


class LossWatch:
    """Warns of lost relevance, once for each program.

    Attributes:
        lost: the warnings so far.
    """

    def __init__(self, *lost: RelevanceLost) -> None:
        self.lost = list(lost)
        self._watched: WeakSet[object] = WeakSet()

    def __reduce__(self) -> tuple[type, tuple[RelevanceLost, ...]]:
        """A copy has programs of its own, and looks at them."""
        return type(self), tuple(self.lost)

    def look(self, passes: Passes, maps: Maps, images: Tensor, classes: Tensor, first: int) -> None:
        """Warn where these passes lost relevance, if their program has not been looked at.

        Args:
            passes: those that made the maps.
            maps: before they were multiplied by signs.
            images: (B, C, H, W).
            classes: those explained, (K, B).
            first: the number of the first image, where this is a part of a larger batch.
        """
        graph = passes.program.plan.graph
        watched = passes.program if graph.again is None else graph.again
        if watched in self._watched or passes.method.covering is not None:
            return  # what differences add up to may be anything, also nothing
        found = lost_of(passes.amounts(maps), classes, first)
        if found is not None:
            warning, row, column = found
            warning.better = better(passes, images[column], row, column)
            self.lost.append(warning)
            warnings.warn(warning, stacklevel=level_of_the_user())
        if found is not None or not maps.one_sign:  # to look at a contrast costs more passes
            self._watched.add(watched)
