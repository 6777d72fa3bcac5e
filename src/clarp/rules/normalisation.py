"""Rules for the length of a vector, which normalisations divide by."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from clarp.operations.base import Kept
from clarp.rules.rule import Context, Rule, Shares, divide


@dataclass(frozen=True)
class Squares(Rule):
    """The length of a vector: ``R_i = x_i^2 / sum_j x_j^2 R``. Conserves unless the length is zero.

    It is ``x_i (dy/dx_i) / y R``: a length is a function of degree one, and loses nothing by its
    linearisation.
    """

    keeps: ClassVar[frozenset[Kept]] = frozenset({"inputs", "output"})

    def propagate(self, relevance: Tensor, context: Context) -> Shares:
        (back,) = context.operation.gradient(
            divide(relevance, context.record.result()), context.record, context.tensors
        )
        return Shares((back * context.record.input(),))
