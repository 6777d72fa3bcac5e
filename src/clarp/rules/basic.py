"""The field's rules for linear operations, each a table of terms.

Overview: Montavon et al. 2019, "Layer-Wise Relevance Propagation: An Overview". Notation: input x, weight w,
bias b, output ``z_j = sum_i x_i w_ij + b_j``, ``v+ = max(0, v)``, ``v- = min(0, v)``. Where a denominator is
exactly zero, no input contributed and the relevance goes nowhere; the ledger shows it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import ClassVar

from torch import Tensor

from clarp.operations import Add, Shift
from clarp.operations.base import Kept
from clarp.rules.linear import LinearRule
from clarp.rules.merge import favoured
from clarp.rules.parts import NEGATIVE, POSITIVE, WHOLE, Branch, FromBound, Ones, Signed, Square, Term
from clarp.rules.rule import Context, Shares

_WHOLE_KEEPS: frozenset[Kept] = frozenset({"inputs", "output"})


def _number(rule: str, name: str, value: float, low: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(
            f"{rule} got {name}={value!r}, expected a number. Pass for example {name}={max(low, 0.25)}."
        )
    if not (isfinite(value) and value >= low):
        raise ValueError(f"{rule} got {name}={value!r}, expected a finite number of at least {low}.")


@dataclass(frozen=True)
class Zero(LinearRule):
    """LRP-0: ``R_i = sum_j x_i w_ij / z_j R_j`` (Bach et al. 2015, eq. 56); the bias absorbs its share."""

    keeps: ClassVar[frozenset[Kept]] = _WHOLE_KEEPS

    def branches(self) -> tuple[Branch, ...]:
        return (Branch((Term(WHOLE, WHOLE),), bias=WHOLE),)


@dataclass(frozen=True)
class Epsilon(LinearRule):
    """LRP-epsilon: ``R_i = sum_j x_i w_ij / (z_j + epsilon sign(z_j)) R_j`` (Bach et al. 2015, eq. 58).

    For a sum of two branches ``R_a = a / (z + epsilon sign(z)) R``, as in AttnLRP.

    Attributes:
        epsilon: in units of the operation's output; 0 gives :class:`Zero`.

    Raises:
        TypeError: epsilon is not a number.
        ValueError: epsilon is negative or not finite.
    """

    epsilon: float = 1e-6
    keeps: ClassVar[frozenset[Kept]] = _WHOLE_KEEPS

    def __post_init__(self) -> None:
        _number("Epsilon", "epsilon", self.epsilon, 0)

    @property
    def stabiliser(self) -> float:
        """Epsilon."""
        return self.epsilon

    def branches(self) -> tuple[Branch, ...]:
        return (Branch((Term(WHOLE, WHOLE),), bias=WHOLE),)


@dataclass(frozen=True)
class ZPlus(LinearRule):
    """z+, also called alpha1-beta0: ``R_i = sum_j (x_i w_ij)+ / sum_i' (x_i' w_i'j)+ R_j``.

    For inputs of either sign, ``(x w)+ = x+ w+ + x- w-`` (Montavon et al. 2017, Deep Taylor). No bias:
    conserves wherever an output has a positive contribution.
    """

    def branches(self) -> tuple[Branch, ...]:
        return (Branch((Term(POSITIVE, POSITIVE), Term(NEGATIVE, NEGATIVE))),)


@dataclass(frozen=True)
class ScaledZPlus(ZPlus):
    """z+, scaled: ``R_i = f sum_j (x_i w_ij)+ / sum_i' (x_i' w_i'j)+ R_j``.

    What outputs without a positive contribution received goes to the others:
    ``f = sum_j |R_j| / sum_j' |R_j'|``, j' over the outputs that have a positive contribution, in each image.
    Such an output is positive by its bias alone, and z+ leaves biases out. In a depthwise convolution, with
    one channel of inputs to each output, there are many. Conserves amounts wherever any output has a positive
    contribution. Not linear in the seed: f depends on it.
    """

    rescales: ClassVar[bool] = True


@dataclass(frozen=True)
class AlphaBeta(LinearRule):
    """LRP-alpha-beta: ``R_i = sum_j (alpha (x_i w_ij)+ / sum (x w)+ - beta (x_i w_ij)- / sum (x w)-) R_j``.

    Bach et al. 2015, eq. 60, without bias. Conserves where an output has contributions of both signs.

    Attributes:
        alpha: weight of the positive contributions.
        beta: weight of the negative contributions; alpha - beta = 1.

    Raises:
        TypeError: one is not a number.
        ValueError: one is negative, or alpha - beta is not 1.
    """

    alpha: float = 2.0
    beta: float = 1.0

    def __post_init__(self) -> None:
        _number("AlphaBeta", "alpha", self.alpha, 0)
        _number("AlphaBeta", "beta", self.beta, 0)
        if abs(self.alpha - self.beta - 1) > 1e-9:
            raise ValueError(
                f"AlphaBeta got alpha={self.alpha!r} and beta={self.beta!r}, expected alpha - beta = 1. For "
                f"alpha={self.alpha!r} pass beta={self.alpha - 1!r}."
            )

    def branches(self) -> tuple[Branch, ...]:
        """Alpha times [(x+, w+), (x-, w-)], minus beta times [(x+, w-), (x-, w+)]."""
        positive = Branch((Term(POSITIVE, POSITIVE), Term(NEGATIVE, NEGATIVE)), coefficient=self.alpha)
        negative = Branch((Term(POSITIVE, NEGATIVE), Term(NEGATIVE, POSITIVE)), coefficient=-self.beta)
        return (positive, negative) if self.beta else (positive,)


@dataclass(frozen=True)
class Gamma(LinearRule):
    """LRP-gamma for inputs of either sign: contributions of the output's own sign count 1 + gamma times.

    ``R_i = sum_j (x_i w_ij + gamma (x_i w_ij)+) / (z_j + gamma sum_i' (x_i' w_i'j)+) R_j`` where z_j > 0, the
    same with ``(.)-`` where z_j < 0 (Montavon et al. 2019; Andeol et al. 2021). The bias counts as one more
    contribution and absorbs its share. Of a sum of two branches ``a + b`` the contributions are a and b:
    relevance is conserved, and its parts are together at most ``(2 + gamma) / gamma`` times as large.

    Attributes:
        gamma: 0 gives :class:`Zero`, infinity tends to :class:`ZPlus` at positive outputs.

    Raises:
        TypeError: gamma is not a number.
        ValueError: gamma is negative or not finite.
    """

    gamma: float = 0.25
    keeps: ClassVar[frozenset[Kept]] = _WHOLE_KEEPS

    def __post_init__(self) -> None:
        _number("Gamma", "gamma", self.gamma, 0)

    def branches(self) -> tuple[Branch, ...]:
        """(x+, w + gamma w+), (x-, w + gamma w-) where z > 0, mirrored where z < 0."""
        up, down = Signed(1 + self.gamma, 1), Signed(1, 1 + self.gamma)
        return (
            Branch((Term(POSITIVE, up), Term(NEGATIVE, down)), bias=up, where="positive"),
            Branch((Term(POSITIVE, down), Term(NEGATIVE, up)), bias=down, where="negative"),
        )

    def propagate(self, relevance: Tensor, context: Context) -> Shares:
        if isinstance(context.operation, Add | Shift):
            return favoured(relevance, context, self.gamma)
        return super().propagate(relevance, context)


@dataclass(frozen=True)
class Flat(LinearRule):
    """Flat: ``R_i = sum_j 1 / n_j R_j``, over the n_j inputs of an output (Lapuschkin et al. 2019)."""

    def branches(self) -> tuple[Branch, ...]:
        return (Branch((Term(Ones(), Ones()),)),)


@dataclass(frozen=True)
class WSquare(LinearRule):
    """w^2: ``R_i = sum_j w_ij^2 / sum_i' w_i'j^2 R_j`` (Montavon et al. 2017)."""

    def branches(self) -> tuple[Branch, ...]:
        return (Branch((Term(Ones(), Square()),)),)


@dataclass(frozen=True)
class ZBox(LinearRule):
    """z^B for pixels between l and h: ``R_i = sum_j (x_i w_ij - l_i w+_ij - h_i w-_ij) / sum_i' (...) R_j``.

    Montavon et al. 2017, eq. 13.

    Attributes:
        low: l, per channel, in the units of the network's input; None: what the explainer knows of its
            images.
        high: h, likewise.

    Raises:
        ValueError: only one is given, their lengths differ, or one low is not below its high.
    """

    low: tuple[float, ...] | None = None
    high: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if (self.low is None) != (self.high is None):
            raise ValueError(f"ZBox got low={self.low!r} and high={self.high!r}, expected both or neither.")
        if self.low is None or self.high is None:
            return
        low, high = _floats("low", self.low), _floats("high", self.high)
        if len(low) != len(high) or not all(a < b for a, b in zip(low, high, strict=True)):
            raise ValueError(
                f"ZBox got low={low} and high={high}, expected as many numbers in both, each low below its "
                "high. For pixels in 0..1 normalised by mean and std these are (0 - mean) / std and (1 - "
                "mean) / std."
            )
        object.__setattr__(self, "low", low)
        object.__setattr__(self, "high", high)

    def __repr__(self) -> str:
        """Without bounds of its own it has the explainer's, and none to show."""
        return "ZBox()" if self.low is None else f"ZBox(low={self.low}, high={self.high})"

    def branches(self) -> tuple[Branch, ...]:
        """(x - low, w+), (x - high, w-): the formula's three terms in two, all of one sign."""
        return (Branch((Term(FromBound("low"), POSITIVE), Term(FromBound("high"), NEGATIVE))),)


def _floats(name: str, values: Sequence[float] | Tensor | float) -> tuple[float, ...]:
    """Numbers per channel as a tuple; a single number is one for all channels."""
    values = values.flatten().tolist() if isinstance(values, Tensor) else values
    numbers = tuple(values) if isinstance(values, Sequence) else (values,)
    if not numbers or not all(isinstance(v, int | float) and isfinite(v) for v in numbers):
        raise ValueError(f"ZBox got {name}={values!r}, expected finite numbers, one per channel.")
    return tuple(float(v) for v in numbers)


@dataclass(frozen=True)
class Norm(LinearRule):
    """Proportional: ``R_i = sum_j x_i w_ij / sum_i' x_i' w_i'j R_j``; for a sum ``R_a = a / (a + b) R``."""

    keeps: ClassVar[frozenset[Kept]] = _WHOLE_KEEPS

    def branches(self) -> tuple[Branch, ...]:
        return (Branch((Term(WHOLE, WHOLE),)),)
