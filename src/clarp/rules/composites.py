"""Composites: which rule for which operation. The presets have the field's (zennit's) names."""

from dataclasses import dataclass, field, replace
from typing import Literal

from clarp.hints import unknown
from clarp.operations import Affine, Operation, Softmax
from clarp.operations.custom import Custom
from clarp.rules.attention import Halves, Hold, Taylor
from clarp.rules.basic import AlphaBeta, Epsilon, Flat, Gamma, Norm, ScaledZPlus, ZBox, Zero, ZPlus
from clarp.rules.condition import Chosen, Sampled
from clarp.rules.custom import rule_of
from clarp.rules.linear import LinearRule
from clarp.rules.merge import Gate, Ratio
from clarp.rules.normalisation import Squares
from clarp.rules.rule import Crop, Pass, Rule, Transport

SAME_IN_ALL: dict[str, Rule] = {
    "Chosen": Chosen(),
    "Crop": Crop(),
    "Gate": Gate(signal=0),
    "Hold": Hold(),
    "Pass": Pass(),
    "Sampled": Sampled(),
    "Squares": Squares(),
    "Transport": Transport(),
}
"""What moves or passes values has only one sensible rule; an operation says which, by
:attr:`Operation.rule`."""


@dataclass(frozen=True)
class Composite:
    """A rule for each kind of operation; what moves or passes values has only one sensible rule and no field.

    Attributes:
        name: for plans and manifests.
        convolution: for convolutions.
        dense: for dense layers and other products with constants.
        first: for the linear operations that read the pixels, and for what makes them a larger or smaller
            image before; None for no exception there.
        depthwise: for convolutions whose outputs read one channel each; None: as other convolutions.
        tokens: for dense layers that act at every position, as in transformers; None: as other dense layers.
        average: for average poolings, means, and images made larger or smaller.
        residual: for sums of two branches, or of a value and a constant (a position embedding, say).
        product: for products of two values, as in attention.
        softmax: for softmaxes. :class:`Hold` holds constant those that only weigh other values, as attention
            weights do.
        adapts: whether it gives way to its twin for transformers or for depthwise convolutions where a
            network has them; see :func:`default`.

    Raises:
        TypeError: a field is not a rule of the right kind.
        ValueError: a rule that needs the pixels' bounds stands anywhere but at ``first``.
    """

    name: str
    convolution: LinearRule
    dense: LinearRule
    first: LinearRule | None = None
    depthwise: LinearRule | None = None
    tokens: LinearRule | None = None
    average: LinearRule = Norm()
    residual: Ratio | Norm | Epsilon | Gamma = Ratio()
    product: Halves = Halves()
    softmax: Taylor | Hold = Taylor()
    adapts: bool = field(default=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for place in ("convolution", "dense", "average", "depthwise", "tokens"):
            rule = getattr(self, place)
            if rule is None and place in ("depthwise", "tokens"):
                continue
            _expect(rule, LinearRule, place)
            if rule.reads_pixels_only:
                raise ValueError(
                    f"Composite got {place}={rule!r}, which needs the bounds of the pixels. Put it at "
                    f"first=..., and another rule, for example ZPlus(), at {place}."
                )
        if self.first is not None:
            _expect(self.first, LinearRule, "first")
        _expect(self.residual, (Ratio, Norm, Epsilon, Gamma), "residual")
        _expect(self.product, Halves, "product")
        _expect(self.softmax, (Taylor, Hold), "softmax")

    def rule(
        self,
        operation: Operation,
        *,
        reads_pixels: bool,
        only_weighs: bool = False,
        depthwise: bool = False,
        at_tokens: bool = False,
    ) -> Rule:
        """The rule for an operation.

        Args:
            operation: it.
            reads_pixels: whether it reads the image itself.
            only_weighs: whether its output is read as a factor of products only.
            depthwise: whether it is a convolution each of whose outputs reads one channel of several.
            at_tokens: whether it is a dense layer that acts at every position.
        """
        if isinstance(operation, Custom):
            return rule_of(operation)
        name = operation.rule_at_pixels if reads_pixels else None
        if name is None or (name == "first" and self.first is None):
            name = operation.rule
        if name in SAME_IN_ALL or (isinstance(operation, Softmax) and not only_weighs):
            return SAME_IN_ALL.get(name, Taylor())
        if isinstance(operation, Affine):
            return self._affine(operation)
        if (name, depthwise) == ("convolution", True):
            return self.depthwise or self.convolution
        if (name, at_tokens) == ("dense", True):
            return self.tokens or self.dense
        rule: Rule = getattr(self, name)
        return rule

    def _affine(self, operation: Affine) -> Rule:
        """As if folded into a convolution: its bias absorbs what that rule gives to a bias."""
        takes_bias = any(branch.bias is not None for branch in self.convolution.branches())
        return self.convolution if takes_bias and operation.bias else Pass()


def _expect(rule: object, kind: type | tuple[type, ...], field: str) -> None:
    if not isinstance(rule, kind):
        names = " or ".join(k.__name__ for k in (kind if isinstance(kind, tuple) else (kind,)))
        raise TypeError(
            f"Composite got {field}={rule!r}, expected a {names}, for example ZPlus() or Ratio() of "
            "clarp.rules."
        )


_PRESETS = {
    composite.name: composite
    for composite in (
        # z+ conserves, so attention weights are held constant: through the softmax relevance would be lost.
        Composite("zplus-box", ZPlus(), ZPlus(), first=ZBox(), softmax=Hold()),
        Composite(
            "zplus-scaled-box", ZPlus(), ZPlus(), first=ZBox(), depthwise=ScaledZPlus(), softmax=Hold()
        ),
        # Transformers: z+ tells classes apart worst there, gamma at sums better than sizes (docs/rules.md).
        Composite(
            "zplus-gamma",
            ZPlus(),
            ZPlus(),
            first=Gamma(),
            depthwise=ScaledZPlus(),
            tokens=Gamma(),
            residual=Gamma(1.0),
            softmax=Hold(),
        ),
        Composite("epsilon-plus", ZPlus(), Epsilon()),
        Composite("epsilon-plus-box", ZPlus(), Epsilon(), first=ZBox(), softmax=Hold()),
        Composite(
            "epsilon-plus-scaled-box",
            ZPlus(),
            Epsilon(),
            first=ZBox(),
            depthwise=ScaledZPlus(),
            softmax=Hold(),
        ),
        Composite(
            "epsilon-plus-gamma",
            ZPlus(),
            Epsilon(),
            first=Gamma(),
            depthwise=ScaledZPlus(),
            residual=Gamma(1.0),
            softmax=Hold(),
        ),
        Composite("epsilon-plus-flat", ZPlus(), Epsilon(), first=Flat()),
        Composite("epsilon-alpha2-beta1", AlphaBeta(2, 1), Epsilon()),
        Composite("epsilon-alpha2-beta1-flat", AlphaBeta(2, 1), Epsilon(), first=Flat()),
        Composite("epsilon-gamma-box", Gamma(0.25), Epsilon(), first=ZBox()),
        Composite("attnlrp", Gamma(0.25), Epsilon(), residual=Epsilon()),
        Composite("epsilon", Epsilon(), Epsilon()),
        Composite("zero", Zero(), Zero(), product=Halves(Zero())),
    )
}
_FOR_DEPTHWISE = {"zplus-box": "zplus-scaled-box", "epsilon-plus-box": "epsilon-plus-scaled-box"}
_FOR_TRANSFORMERS = {"zplus-box": "zplus-gamma", "epsilon-plus-box": "epsilon-plus-gamma"}
_RESIDUALS: dict[str, Ratio | Norm | Gamma] = {"ratio": Ratio(), "proportional": Norm(), "gamma": Gamma(1.0)}


def names() -> tuple[str, ...]:
    """The names of the presets."""
    return tuple(_PRESETS)


def default(name: str) -> Composite:
    """A preset as a method's default, where nobody asked for a composite: :func:`settled` may change it."""
    return replace(get(name), adapts=True)


def settled(composite: Composite, *, depthwise: bool, transformer: bool) -> Composite:
    """A composite for a network: a default gives way to its twin.

    Args:
        composite: it.
        depthwise: whether the network has depthwise convolutions.
        transformer: whether it has dense layers at every position, and attention.

    >>> settled(default("zplus-box"), depthwise=True, transformer=False).name
    'zplus-scaled-box'
    >>> settled(default("zplus-box"), depthwise=True, transformer=True).name
    'zplus-gamma'
    >>> settled(get("zplus-box"), depthwise=True, transformer=True).name
    'zplus-box'
    """
    if not composite.adapts:
        return composite
    twins = _FOR_TRANSFORMERS if transformer else _FOR_DEPTHWISE if depthwise else {}
    if composite.name not in twins:
        return replace(composite, adapts=False)
    own, twin = _PRESETS[composite.name], _PRESETS[twins[composite.name]]
    places = ("first", "depthwise", "tokens", "residual")
    rules = {p: getattr(twin, p) for p in places if getattr(composite, p) == getattr(own, p)}
    return replace(composite, name=twin.name, adapts=False, **rules)


def get(
    composite: str | Composite, residual: Literal["ratio", "proportional", "gamma"] | None = None
) -> Composite:
    """A preset by name.

    Args:
        composite: one of :func:`names`, or a composite, which is returned.
        residual: how a sum of two branches splits its relevance; None: as the composite says (presets:
            "ratio", attnlrp: the epsilon rule). "gamma" is ``Gamma(1)``, ResLRP's: no sum makes its relevance
            more than three times as large.

    Raises:
        ValueError: no such preset or split.
        TypeError: neither a name nor a composite.

    >>> get("epsilon-plus").convolution
    ZPlus()
    >>> get("epsilon-plus", residual="proportional").residual
    Norm()
    """
    if isinstance(composite, str):
        if composite not in _PRESETS:
            raise ValueError(unknown("composite", composite, _PRESETS))
        composite = _PRESETS[composite]
    if not isinstance(composite, Composite):
        raise TypeError(
            f"composite is {composite!r}, expected a name (one of {', '.join(_PRESETS)}) or a Composite."
        )
    if residual is None:
        return composite
    if residual not in _RESIDUALS:
        raise ValueError(f"residual is {residual!r}, expected one of {', '.join(_RESIDUALS)}.")
    return replace(composite, residual=_RESIDUALS[residual])
