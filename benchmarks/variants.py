"""What the study compares: the published methods, every form of SSGLRP within its description, and what leads to ``clarp``."""

from dataclasses import dataclass

from torch import Tensor

from clarp import Method, Selection, composites
from clarp.seeds import Contrast, Contrasting, Logit, SoftmaxGradient, softmax_direction


@dataclass(frozen=True)
class Lead(Contrasting):
    """``R_t = z_t``, ``R_n = -s_n z_n``: :class:`Contrast` without its cap, so negative where the target trails."""

    strength: float = 1.0

    def relevance(self, logits: Tensor, target: Tensor, rivals: Tensor) -> Tensor:
        """``z (e_t - s)``."""
        return logits * softmax_direction(logits, target, rivals, self.strength)


@dataclass(frozen=True)
class OwnLogit(Contrasting):
    """``R_t = z_t``, ``R_n = -s_n z_t``: SGLRP's seed times the target's logit, so the same map where that is positive."""

    strength: float = 1.0

    def relevance(self, logits: Tensor, target: Tensor, rivals: Tensor) -> Tensor:
        """``z_t (e_t - s)``."""
        own = logits.expand(*target.shape, -1).gather(-1, target.unsqueeze(-1))
        return own * softmax_direction(logits, target, rivals, self.strength)


# The papers' composites on every network, also where the named methods have one for depthwise convolutions.
_PLUS = composites.get("zplus-box")
_GAMMA = composites.get("epsilon-gamma-box")
_EPSILON_HEAD = composites.get("epsilon-plus-box")
_EVERYWHERE, _BELOW = Selection("channel", "all"), Selection("channel", "before-last-stage")
_ELEMENT, _NEURON = Selection("element", "all"), Selection("neuron", "all")

READINGS = {
    "ssglrp": "neuron form, m = ReLU(g)",
    "ssglrp-mask": "neuron form, m = 1[g > 0]",
    "ssglrp-channel": "channel form, every convolution",
    "ssglrp-seed": "seed only, R_t = z_t, R_n = -s_n z_t",
}
"""What the abstract of SSGLRP can mean, the named method's reading first; ``readings.py`` compares them."""
VARIANTS: dict[str, Method] = {
    "lrp": Method.named("lrp").with_composite(_PLUS),
    "sglrp": Method.named("sglrp").with_composite(_PLUS),
    "slrp": Method.named("slrp").with_composite(_PLUS),
    "slrp-all": Method(Logit(), _EVERYWHERE),
    "slrp-element": Method(Logit(), _ELEMENT),
    # SSGLRP: form B2, form A, with weaker or fewer rivals (A-lambda), form B1, the seed alone, form A at SLRP's layer, element
    # by element, ...
    "ssglrp": Method.named("ssglrp").with_composite(_PLUS),
    "ssglrp-channel": Method(SoftmaxGradient(), _EVERYWHERE),
    "channel-half": Method(SoftmaxGradient(strength=0.5), _EVERYWHERE),
    "channel-top5": Method(SoftmaxGradient(rivals=5), _EVERYWHERE),
    "ssglrp-mask": Method(SoftmaxGradient(), Selection("neuron-mask", "all")),
    "ssglrp-seed": Method(OwnLogit()),
    "ssglrp-last": Method(SoftmaxGradient(), Selection("channel", "last")),
    "ssglrp-element": Method(SoftmaxGradient(), _ELEMENT),
    # ... at other layers, by the gradient of the logit, with other rules.
    "channel-last-stage": Method(SoftmaxGradient(), Selection("channel", "last-stage")),
    "channel-before": Method(SoftmaxGradient(), _BELOW),
    "channel-logit": Method(SoftmaxGradient(), Selection("channel", "all", "logit")),
    "channel-epsilon-head": Method(SoftmaxGradient(), _EVERYWHERE, _EPSILON_HEAD),
    "channel-proportional": Method(
        SoftmaxGradient(), _EVERYWHERE, composites.get(_PLUS, residual="proportional")
    ),
    "channel-gamma": Method(SoftmaxGradient(), _EVERYWHERE, _GAMMA),
    # Beyond it: neuron by neuron where the class is decided and channel by channel below; the lead in place of SGLRP's seed.
    "b2-then-a": Method(SoftmaxGradient(), (Selection("neuron", "last-stage"), _BELOW)),
    "neuron-epsilon-head": Method(SoftmaxGradient(), _NEURON, _EPSILON_HEAD),
    "clarp": Method.named("clarp").with_composite(_EPSILON_HEAD),
    "clarp-uncapped": Method(Lead(), _NEURON, _EPSILON_HEAD),
    "clarp-zplus": Method(Contrast(), _NEURON, _PLUS),
    "clarp-gamma": Method(Contrast(), _NEURON, _GAMMA),
}
