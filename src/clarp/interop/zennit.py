"""zennit's composites by name and number: with its stabiliser in every rule, and its treatment of bias."""

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from clarp.hints import unknown
from clarp.operations import Affine, Operation
from clarp.operations.base import Kept
from clarp.rules import AlphaBeta, Epsilon, Flat, Gamma, LinearRule, Pass, Rule, WSquare, ZBox, ZPlus
from clarp.rules.composites import Composite
from clarp.rules.parts import Branch, Part

STABILISER = 1e-6


@dataclass(frozen=True)
class Stabilised(LinearRule):
    """A rule whose denominators are ``z + epsilon sign(z)``, and have a bias as zennit's have.

    In zennit the bias is part of the weight: of z+ the denominator is ``sum_i (x_i w_ij)+ + b_j+``, of
    alpha-beta's negative part ``sum_i (x_i w_ij)- + b_j-``, of w^2 ``sum_i w_ij^2 + b_j^2``.

    Attributes:
        rule: clarp's.
        epsilon: zennit's ``stabilizer``.
        zero_bias: zennit's ``zero_params="bias"``: no denominator has a bias.
    """

    rule: LinearRule
    epsilon: float = STABILISER
    zero_bias: bool = False
    keeps: ClassVar[frozenset[Kept]] = frozenset({"inputs", "output"})

    @property
    def stabiliser(self) -> float:
        """Epsilon."""
        return self.epsilon

    def branches(self) -> tuple[Branch, ...]:
        """Those of the rule, with other biases."""
        return tuple(replace(branch, bias=self._bias(branch)) for branch in self.rule.branches())

    def _bias(self, branch: Branch) -> Part | None:
        if self.zero_bias:
            return None
        by_weight = isinstance(self.rule, ZPlus | AlphaBeta | WSquare)
        return branch.terms[0].weight if by_weight else branch.bias


@dataclass(frozen=True)
class StabilisedBox(ZBox):
    """z^B with the denominator ``z + epsilon sign(z)``; the parts of the bias cancel in zennit's.

    Attributes:
        low: as of :class:`clarp.rules.ZBox`.
        high: likewise.
        epsilon: zennit's ``stabilizer``.
    """

    epsilon: float = STABILISER

    @property
    def stabiliser(self) -> float:
        """Epsilon."""
        return self.epsilon


@dataclass(frozen=True)
class ZennitComposite(Composite):
    """A composite that passes relevance through batch norms that were not folded, as zennit's do."""

    def rule(
        self,
        operation: Operation,
        *,
        reads_pixels: bool,
        only_weighs: bool = False,
        depthwise: bool = False,
        at_tokens: bool = False,
    ) -> Rule:
        """See :meth:`clarp.composites.Composite.rule`."""
        if isinstance(operation, Affine):
            return Pass()
        return super().rule(
            operation,
            reads_pixels=reads_pixels,
            only_weighs=only_weighs,
            depthwise=depthwise,
            at_tokens=at_tokens,
        )


CONVOLUTIONS: dict[str, tuple[type[LinearRule], type[LinearRule] | None]] = {
    "epsilon_plus": (ZPlus, None),
    "epsilon_plus_flat": (ZPlus, Flat),
    "epsilon_alpha2_beta1": (AlphaBeta, None),
    "epsilon_alpha2_beta1_flat": (AlphaBeta, Flat),
    "epsilon_gamma_box": (Gamma, ZBox),
}
"""By zennit's names, the rules of the convolutions and of the first layer."""


def zennit_composite(
    name: str,
    *,
    epsilon: float = STABILISER,
    gamma: float = 0.25,
    stabilizer: float = STABILISER,
    zero_params: Literal["bias"] | None = None,
) -> Composite:
    """One of zennit's composites, for ``clarp.Explainer(composite=...)``; zennit need not be installed.

    Args:
        name: zennit's, for example "epsilon_plus_flat".
        epsilon: of the epsilon rule in dense layers.
        gamma: of the gamma rule.
        stabilizer: of all other rules.
        zero_params: None, zennit's default: biases are in the denominators; "bias": they are not.

    Raises:
        ValueError: no such composite, or none of LRP's; another ``zero_params``.

    The bounds of "epsilon_gamma_box" are the explainer's (``bounds=(low, high)``).

    >>> zennit_composite("epsilon_plus").dense
    Stabilised(rule=Epsilon(epsilon=1e-06), epsilon=1e-06, zero_bias=False)
    """
    if name not in CONVOLUTIONS:
        raise ValueError(unknown("composite of zennit's", name, CONVOLUTIONS, most=2))
    if zero_params not in (None, "bias"):
        raise ValueError(f"zero_params is {zero_params!r}, expected None or 'bias'.")
    zero_bias = zero_params == "bias"
    convolution, first = CONVOLUTIONS[name]
    inner = Gamma(gamma) if convolution is Gamma else convolution()
    others = None if first is None else Stabilised(first(), stabilizer, zero_bias)
    return ZennitComposite(
        f"zennit's {name}",
        convolution=Stabilised(inner, stabilizer, zero_bias),
        dense=Stabilised(Epsilon(epsilon), epsilon, zero_bias),
        first=StabilisedBox(epsilon=stabilizer) if first is ZBox else others,
        average=Epsilon(stabilizer),
        residual=Epsilon(stabilizer),
    )
