"""The one propagation through linear operations. A rule is the short table of terms that it gives."""

from abc import abstractmethod
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from clarp.operations import Add, Average, Convolution, Dense, Linear, Operation, Shift
from clarp.operations.base import Kept, may_overwrite, over_seeds, sample_sums
from clarp.rules.merge import proportional
from clarp.rules.parts import WHOLE, Branch, FromBound, Part, Signed, TensorOrFloat, Term
from clarp.rules.rule import TINY, Context, Rule, Shares, divide


class LinearRule(Rule):
    """``z = sum_k f(x_k, w_k) + b`` forwards, ``R_in = sum_k x_k f_transposed(R / z, w_k)`` backwards.

    Subclasses say which parts x_k of the input meet which parts w_k of the weight.
    """

    keeps: ClassVar[frozenset[Kept]] = frozenset({"inputs"})
    rescales: ClassVar[bool] = False
    """Whether the relevance of outputs without a contribution goes to the others, in proportion."""

    @abstractmethod
    def branches(self) -> tuple[Branch, ...]:
        """The table of terms."""

    @property
    def stabiliser(self) -> float:
        """What is added to the size of z."""
        return 0.0

    @property
    def reads_pixels_only(self) -> bool:
        """Whether it makes sense at the pixels only, because it needs their bounds."""
        return any(isinstance(term.input, FromBound) for branch in self.branches() for term in branch.terms)

    @property
    def reads_input(self) -> bool:
        """Whether it weighs inputs by their values, so that selecting some of them changes what it gives."""
        return any(isinstance(term.input, Signed) for branch in self.branches() for term in branch.terms)

    @property
    def one_sign(self) -> bool:
        """Whether its denominators sum terms of one sign (z+, alpha-beta), which can't nearly cancel."""
        return all(branch.one_sign for branch in self.branches())

    def weight_parts(self, operation: Operation, *, non_negative: bool) -> tuple[Part, ...]:
        """The parts of the weight in its terms."""
        branches = (b.given(**_known(operation, non_negative=non_negative)) for b in self.branches())
        return tuple({term.weight: None for branch in branches for term in branch.terms})

    def propagate(self, relevance: Tensor, context: Context) -> Shares:
        """Hand relevance (K, B, ...) of the output to the one input, or of a sum to what is added."""
        if isinstance(context.operation, Add | Shift):
            return proportional(relevance, context, self.stabiliser)
        total: Tensor | None = None
        absorbed: Tensor | None = None
        for branch in self.branches():
            handed, bias = _Fraction(branch, context).hand(relevance, self.stabiliser, rescale=self.rescales)
            if handed is not None:
                total = handed if total is None else total + handed
            if bias is not None:
                absorbed = bias if absorbed is None else absorbed + bias
        if total is None:
            total = relevance.new_zeros(*relevance.shape[:2], *context.record.shapes[0][1:])
        return Shares((total,), absorbed, fresh=True)


def _known(operation: Operation, *, non_negative: bool) -> dict[str, bool]:
    return {"input_non_negative": non_negative, "weight_non_negative": isinstance(operation, Average)}


class _Fraction:
    """One branch at one context: ``coefficient * sum_k x_k f_transposed(R / z, w_k)``."""

    def __init__(self, branch: Branch, context: Context) -> None:
        assert isinstance(context.operation, Linear)
        known = _known(context.operation, non_negative=context.signs[0])
        self.operation: Linear = context.operation
        self.context = context
        self.branch = branch.given(**known)
        self.sure_sign = branch.sure_sign(**known)
        inputs = [self._input(term) for term in self.branch.terms]
        weights = [context.weight(term.weight) for term in self.branch.terms]
        self.axis, self.stacked = self._stackable(len(inputs))
        if self.stacked:
            # One operation on twice the channels: a convolution with few channels costs as much as one with
            # twice as many.
            stacked = torch.cat([w for w in weights if isinstance(w, Tensor)], 1)
            self.pairs: list[tuple[Tensor, TensorOrFloat]] = [(torch.cat(inputs, self.axis), stacked)]
        else:
            self.pairs = list(zip(inputs, weights, strict=True))

    def _stackable(self, terms: int) -> tuple[int, int]:
        """The channels' axis, counted from the end, and how many terms to stack there (0: none)."""
        if terms < 2:
            return 0, 0
        if isinstance(self.operation, Dense):
            return -1, terms
        if isinstance(self.operation, Convolution) and self.operation.groups == 1:
            return -1 - len(self.operation.stride), terms
        return 0, 0

    def _input(self, term: Term) -> Tensor:
        if isinstance(term.input, FromBound):
            assert self.context.bounds is not None
            return self.context.record.input() - self.context.bounds[0 if term.input.end == "low" else 1]
        x = self.context.record.input() if self.context.selected is None else self.context.selected
        part = term.input(x)
        assert isinstance(part, Tensor)
        return part

    def _bias(self) -> Tensor | None:
        if self.branch.bias is None:
            return None
        _, bias = self.operation.parameters(self.context.tensors)
        part = None if bias is None else self.branch.bias(bias)
        assert part is None or isinstance(part, Tensor)
        return part

    def _output(self) -> Tensor:
        """The operation's output, of the selected inputs where there is selection."""
        if self.context.selected is None:
            return self.context.record.result()
        weight, bias = self.operation.parameters(self.context.tensors)
        output = over_seeds(lambda v: self.operation.apply(v, weight), self.context.selected)
        return output if bias is None else output + bias

    def _denominator(self, bias: Tensor | None) -> Tensor:
        _, own_bias = self.operation.parameters(self.context.tensors)
        whole = self.branch.terms == (Term(WHOLE, WHOLE),)
        complete = own_bias is None or self.branch.bias == WHOLE
        if whole and complete and self.context.selected is None and self.context.record.output is not None:
            return self.context.record.output
        z: Tensor | None = None
        for x, weight in self.pairs:
            if x.ndim > len(self.context.record.shapes[0]):
                y = over_seeds(lambda v, w=weight: self.operation.apply(v, w), x)  # type: ignore[misc]
            else:
                y = self.operation.apply(x, weight)
            z = y if z is None else _plus(z, y)
        assert z is not None
        return z if bias is None else _plus(z, bias)

    def _products(self, back: Tensor, x: Tensor) -> Tensor:
        """``sum_k x_k back_k`` over the terms that lie in these two."""
        if not self.stacked:
            # Fresh memory costs more than the product.
            return back.mul_(x) if may_overwrite(back, x) and 0 not in back.stride() else back * x
        size = x.shape[self.axis] // self.stacked

        def pair(term: int) -> tuple[Tensor, Tensor]:
            return back.narrow(self.axis, term * size, size), x.narrow(self.axis, term * size, size)

        total = torch.mul(*pair(0))
        for term in range(1, self.stacked):
            total = _plus_product(total, *pair(term))
        return total

    def hand(
        self, relevance: Tensor, epsilon: float, *, rescale: bool = False
    ) -> tuple[Tensor | None, Tensor | None]:
        """What the input gets (K, B, ...), and what the bias absorbs (K, B)."""
        if not self.branch.terms:
            return None, None
        bias = self._bias()
        z = self._denominator(bias)
        if rescale:
            relevance = _rescaled(relevance, z)
        if self.branch.where != "everywhere":
            true = self._output()
            relevance = relevance * (true > 0 if self.branch.where == "positive" else true < 0)
        reuse = z is not self.context.record.output
        ratio = divide(relevance, z, epsilon, non_negative=self.sure_sign, reuse=reuse)
        if self.branch.coefficient != 1.0:
            ratio = ratio * self.branch.coefficient
        total: Tensor | None = None
        for x, weight in self.pairs:
            shape = x.shape[-len(self.context.record.shapes[0]) :]
            transpose = partial(self.operation.transpose, weight=weight, shape=shape)
            back = over_seeds(transpose, ratio)
            total = self._products(back, x) if total is None else _plus_product(total, back, x)
        return total, None if bias is None else _weighted_sum(ratio, bias)


def _plus(total: Tensor, more: Tensor) -> Tensor:
    return total.add_(more) if may_overwrite(total, more) else total + more


def _plus_product(total: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return total.addcmul_(a, b) if may_overwrite(total, a, b) else torch.addcmul(total, a, b)


def _rescaled(relevance: Tensor, z: Tensor) -> Tensor:
    """Relevance (K, B, ...) times ``sum |R_j|``, through that sum over outputs with a contribution."""
    sizes = relevance.abs()
    every, served = sample_sums(sizes), sample_sums(sizes * (z > TINY))
    enough = served > torch.finfo(served.dtype).tiny * every  # else the quotient could overflow
    factor = torch.where(enough, every / served.where(enough, 1), 1).to(relevance.dtype)
    return relevance * factor.view(*factor.shape, *(1,) * (relevance.ndim - 2))


def _weighted_sum(ratio: Tensor, bias: Tensor) -> Tensor:
    """``sum_j ratio_j bias_j`` over each sample: (K, B, ...) and (C, 1, ...) or (C,) to (K, B)."""
    first = ratio.ndim - bias.ndim
    missing = [axis for axis in range(2, ratio.ndim) if axis < first or bias.shape[axis - first] == 1]
    ratio = ratio.sum(missing, keepdim=True) if missing else ratio
    return sample_sums(ratio * bias)
