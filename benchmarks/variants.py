"""What the study compares: the published methods, every form of SSGLRP within its description, and what leads to ``clarp``."""

from dataclasses import replace

from clarp import Method, Selection, composites
from clarp.rules import Epsilon
from clarp.seeds import Contrast, Logit, SoftmaxGradient

_PLUS = composites.get("zplus-box")
_GAMMA = composites.get("epsilon-gamma-box")
_EPSILON_HEAD = replace(_PLUS, name="zplus-box, epsilon head", dense=Epsilon())
_EVERYWHERE, _BELOW = Selection("channel", "all"), Selection("channel", "before-last-stage")
_ELEMENT, _PLACE = Selection("element", "all"), Selection("position", "last")

VARIANTS: dict[str, Method] = {
    "lrp": Method.named("lrp"),
    "sglrp": Method.named("sglrp"),
    "slrp": Method.named("slrp"),
    "slrp-all": Method(Logit(), _EVERYWHERE),
    "slrp-element": Method(Logit(), _ELEMENT),
    # SSGLRP: form A, with weaker or fewer rivals (A-lambda), the neuron forms, element by element, ...
    "ssglrp": Method.named("ssglrp"),
    "ssglrp-half": Method(SoftmaxGradient(strength=0.5), _EVERYWHERE),
    "ssglrp-top5": Method(SoftmaxGradient(rivals=5), _EVERYWHERE),
    "ssglrp-b1": Method(SoftmaxGradient(), Selection("neuron-mask", "all")),
    "ssglrp-b2": Method(SoftmaxGradient(), Selection("neuron", "all")),
    "ssglrp-element": Method(SoftmaxGradient(), _ELEMENT),
    # ... at other layers, by the gradient of the logit, with other rules.
    "ssglrp-last-stage": Method(SoftmaxGradient(), Selection("channel", "last-stage")),
    "ssglrp-before": Method(SoftmaxGradient(), _BELOW),
    "ssglrp-logit": Method(SoftmaxGradient(), Selection("channel", "all", "logit")),
    "ssglrp-epsilon-head": Method(SoftmaxGradient(), _EVERYWHERE, _EPSILON_HEAD),
    "ssglrp-proportional": Method(
        SoftmaxGradient(), _EVERYWHERE, composites.get(_PLUS, residual="proportional")
    ),
    "ssglrp-gamma": Method(SoftmaxGradient(), _EVERYWHERE, _GAMMA),
    # Beyond it: neuron by neuron where the class is decided and channel by channel below; evidence by position.
    "b2-then-a": Method(SoftmaxGradient(), (Selection("neuron", "last-stage"), _BELOW)),
    "clarp": Method.named("clarp"),
    "clarp-unselected": Method(Contrast(), _PLACE, _GAMMA),
    "clarp-everywhere": Method(Contrast(), (_PLACE, _EVERYWHERE), _GAMMA),
    "clarp-zplus": Method(Contrast(), (_PLACE, _BELOW), _EPSILON_HEAD),
    "clarp-element": Method(Contrast(), (_PLACE, _ELEMENT), _EPSILON_HEAD),
}
