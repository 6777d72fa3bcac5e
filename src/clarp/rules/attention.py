"""Rules for what attention is made of: products of two values, and the softmax.

AttnLRP: Achtibat et al. 2024, arXiv 2402.05602. CP-LRP: Ali et al. 2022, arXiv 2202.07304.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from clarp.operations import MatMul, Softmax
from clarp.operations.base import Kept, sample_sums, summed_to
from clarp.rules.basic import Epsilon
from clarp.rules.linear import LinearRule
from clarp.rules.parts import Branch, Part, Signed, TensorOrFloat
from clarp.rules.rule import Context, Rule, Shares, divide


@dataclass(frozen=True)
class Halves(Rule):
    """A product ``z_ij = sum_k a_ik b_kj``: each contribution hands half of its relevance to either factor.

    ``R(a_ik) = 1/2 sum_j R_ikj`` and ``R(b_kj) = 1/2 sum_i R_ikj``, where R_ikj is the share of the
    contribution ``a_ik b_kj`` in R_ij by a rule for linear operations. With :class:`Epsilon` this is
    AttnLRP's, ``R_ikj = a_ik b_kj / (z_ij + epsilon sign(z_ij)) R_ij`` (prop. 3.3). A factor that is held
    constant (:class:`Hold`) is a weight: the other one gets everything.

    Attributes:
        rule: shares R_ij among the contributions.

    Raises:
        TypeError: the rule is not one for linear operations.
        ValueError: it does not look at both factors, so that there is nothing to halve.
    """

    rule: LinearRule = Epsilon()
    keeps: ClassVar[frozenset[Kept]] = frozenset({"inputs", "output"})

    def __post_init__(self) -> None:
        if not isinstance(self.rule, LinearRule):
            raise TypeError(
                f"Halves got rule={self.rule!r}, expected a rule for linear operations, for example "
                "Epsilon()."
            )
        parts: list[object] = [
            p for branch in self.rule.branches() for term in branch.terms for p in (term.input, term.weight)
        ]
        if not all(isinstance(part, Signed) for part in parts):
            raise ValueError(
                f"Halves got rule={self.rule!r}, which does not look at both factors of a product, expected "
                "one of Zero, Epsilon, ZPlus, Gamma, AlphaBeta and Norm."
            )

    def propagate(self, relevance: Tensor, context: Context) -> Shares:
        first, second = context.constant
        if first == second:
            relevance = relevance / 2
        a = b = None
        for branch in self.rule.branches():
            known = branch.given(input_non_negative=context.signs[0], weight_non_negative=context.signs[1])
            to_a, to_b = self._hand(known, relevance, context)
            a = to_a if a is None or to_a is None else a + to_a
            b = to_b if b is None or to_b is None else b + to_b
        return Shares((a, b))

    def _hand(
        self, branch: Branch, relevance: Tensor, context: Context
    ) -> tuple[Tensor | None, Tensor | None]:
        """What one branch gives to the two factors, None for one that is held constant."""
        assert isinstance(context.operation, MatMul)
        a, b, result = context.record.input(0), context.record.input(1), context.record.result()
        pairs = [(_part(term.input, a), _part(term.weight, b)) for term in branch.terms]
        if branch.where != "everywhere":
            relevance = relevance * (result > 0 if branch.where == "positive" else result < 0)
        whole = all(x is a and y is b for x, y in pairs)
        z = result if whole else sum((x @ y for x, y in pairs), torch.zeros_like(result))
        ratio = divide(relevance, z, self.rule.stabiliser) * branch.coefficient
        keep_a, keep_b = (not fixed or all(context.constant) for fixed in context.constant)
        to_a = [x * summed_to(ratio @ y.mT, a.shape) for x, y in pairs] if keep_a else []
        to_b = [y * summed_to(x.mT @ ratio, b.shape) for x, y in pairs] if keep_b else []
        zeros = relevance.new_zeros(())
        return sum(to_a, zeros) if keep_a else None, sum(to_b, zeros) if keep_b else None


def _part(part: object, value: Tensor) -> Tensor:
    assert isinstance(part, Part)
    result: TensorOrFloat = part(value)
    assert isinstance(result, Tensor)
    return result


@dataclass(frozen=True)
class Taylor(Rule):
    """The softmax linearised: ``R_i = sum_j x_i (ds_j/dx_i) / s_j R_j = x_i (R_i - s_i sum_j R_j)``.

    AttnLRP, prop. 3.1. What the constant of the linearisation absorbs is in the ledger as bias. Where ``s_i``
    is zero (a masked score, minus infinity) nothing is handed on.
    """

    keeps: ClassVar[frozenset[Kept]] = frozenset({"inputs", "output"})

    def propagate(self, relevance: Tensor, context: Context) -> Shares:
        assert isinstance(context.operation, Softmax)
        s = context.record.result()
        x = torch.where(s > 0, context.record.input(), 0)
        share = x * (relevance - s * relevance.sum(context.operation.axis, keepdim=True))
        return Shares((share,), sample_sums(relevance - share))


@dataclass(frozen=True)
class Hold(Rule):
    """The value is held constant, as if it were a weight: ``R_in = 0``, and what arrives is the bias's.

    CP-LRP's treatment of the softmax: attention weights only say how much of which value goes where, and a
    product (:class:`Halves`) hands everything to the value.
    """

    def propagate(self, relevance: Tensor, context: Context) -> Shares:
        return Shares((None,), sample_sums(relevance))
