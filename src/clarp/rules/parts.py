"""Which part of the input meets which part of the weight: the terms in which linear rules are written."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

TensorOrFloat = Tensor | float


class Part(ABC):
    """A function of a value v, written the way the formulas write it."""

    @abstractmethod
    def __call__(self, value: TensorOrFloat) -> TensorOrFloat:
        """The part of this value."""


@dataclass(frozen=True)
class Signed(Part):
    """``p v+ + n v-`` with ``v+ = max(0, v)`` and ``v- = min(0, v)``.

    Attributes:
        positive: p.
        negative: n.
    """

    positive: float = 1.0
    negative: float = 1.0

    def __call__(self, value: TensorOrFloat) -> TensorOrFloat:
        p, n = self.positive, self.negative
        if p == n:
            return value if p == 1.0 else value * p
        if not isinstance(value, Tensor):
            return value * (p if value > 0 else n)
        if n == 0.0:
            part = value.clamp(min=0)
            return part if p == 1.0 else part * p
        if p == 0.0:
            part = value.clamp(max=0)
            return part if n == 1.0 else part * n
        return torch.where(value > 0, value * p, value * n)


@dataclass(frozen=True)
class Ones(Part):
    """``1``."""

    def __call__(self, value: TensorOrFloat) -> TensorOrFloat:
        return torch.ones_like(value) if isinstance(value, Tensor) else 1.0


@dataclass(frozen=True)
class Square(Part):
    """``v^2``."""

    def __call__(self, value: TensorOrFloat) -> TensorOrFloat:
        return value * value


@dataclass(frozen=True)
class FromBound:
    """``x - l`` or ``x - h``: how far a pixel is from the lowest or the highest value that it can have.

    Attributes:
        end: from which of the two.
    """

    end: Literal["low", "high"]


WHOLE = Signed()
POSITIVE = Signed(1.0, 0.0)
NEGATIVE = Signed(0.0, 1.0)


@dataclass(frozen=True)
class Term:
    """``f(part of x, part of w)``.

    Attributes:
        input: the part of the input.
        weight: the part of the weight.
    """

    input: Part | FromBound
    weight: Part


@dataclass(frozen=True)
class Branch:
    """``coefficient * sum_k x_k f_transposed(R / z, w_k)`` with ``z = sum_k f(x_k, w_k) + b``: one fraction.

    Attributes:
        terms: the (x_k, w_k).
        bias: the part of the bias in z, or None for no bias.
        coefficient: the factor before the fraction.
        where: at which outputs it holds, by the sign of the operation's true output.
    """

    terms: tuple[Term, ...]
    bias: Part | None = None
    coefficient: float = 1.0
    where: Literal["everywhere", "positive", "negative"] = "everywhere"

    def given(self, *, input_non_negative: bool, weight_non_negative: bool) -> "Branch":
        """The same branch without the terms that are known to be zero."""
        terms = []
        for term in self.terms:
            part, weight = term.input, term.weight
            if input_non_negative and isinstance(part, Signed):
                part = Signed(part.positive, part.positive)
            if weight_non_negative and isinstance(weight, Signed):
                weight = Signed(weight.positive, weight.positive)
            if Signed(0.0, 0.0) not in (part, weight):
                terms.append(Term(part, weight))
        return replace(self, terms=tuple(terms))

    @property
    def one_sign(self) -> bool:
        """Whether all that is summed in z has one sign, whatever the values, so that nothing can cancel."""
        signs = {_sign(term.input, known=False) * _sign(term.weight, known=False) for term in self.terms}
        return self.bias is None and len(signs) == 1 and 0 not in signs

    def sure_sign(self, *, input_non_negative: bool, weight_non_negative: bool) -> bool:
        """Whether z can't be negative, whatever the values."""
        return self.bias is None and all(
            _sign(term.input, known=input_non_negative) * _sign(term.weight, known=weight_non_negative) > 0
            for term in self.terms
        )


def _sign(part: Part | FromBound, *, known: bool) -> int:
    """The sign of a part of a value: 1, -1, or 0 for unknown; ``known``: the value is non-negative."""
    if not isinstance(part, Signed):
        return 0 if isinstance(part, FromBound) else 1
    if part.positive == 0:
        return -1
    return 1 if known or part.negative == 0 else 0
