"""Recent methods of others as contenders of ``clarp evaluate``: those of :data:`clarp.method.RIVALS`."""

from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from clarp.evaluation.cams import ActivationMap
from clarp.evaluation.competing import Competition
from clarp.evaluation.paths import DecisionGradients
from clarp.evaluation.tokens import TokenMap
from clarp.explainer import Explainer
from clarp.hints import unknown
from clarp.method import Method, methods
from clarp.network import Network
from clarp.rules.composites import Composite, get
from clarp.task import TaskName

Rival = ActivationMap | DecisionGradients | TokenMap | Competition
RULED: dict[str, Composite] = {
    "attnlrp": get("attnlrp"),
    "reslrp": replace(get("attnlrp", residual="gamma"), name="reslrp"),
}
"""The rivals that are ``lrp`` with other rules.

- ``attnlrp``: the epsilon rule in dense layers, sums and (by halves) matrix products, the softmax
  linearised, gamma in convolutions (Achtibat et al. 2024, arXiv 2402.05602, prop. 3.1 to 3.4). Bias: at a
  sum that nearly cancels the parts grow without bound.
- ``reslrp``: the same with ``R_a = c(a) / (c(a) + c(b)) R`` at sums a + b, where c doubles what has the
  sign of the sum (:class:`clarp.rules.Gamma` with gamma 1; Berend et al. 2026): relevance is conserved, and
  its parts are at most three times as large. The paper was not at hand: gamma follows from this bound, ``(2
  + gamma) / gamma = 3``, and the other rules are AttnLRP's. Bias: what agrees with a sum is favoured, so
  what speaks against the class is shown too small.
"""
_NEEDED = {
    "attnlrp": ("Softmax", "attention (a softmax of values)", "lrp@epsilon-gamma-box"),
    "reslrp": ("Add", "sums of two branches", "lrp@epsilon-gamma-box"),
}
_WITH_LAYER = ("gradcam-plusplus", "layercam", "finer-cam")


def ruled(name: str, explained: Callable[[Method], Explainer], image: Tensor | None) -> Explainer:
    """What explains by the rules of a rival.

    Args:
        name: one of :data:`RULED`.
        explained: makes an explainer.
        image: (C, H, W) as the model will see it, to look whether the rules mean anything in this model.

    Raises:
        ValueError: the model has nothing that the rules are for.
    """
    found = explained(Method.named("lrp").with_composite(RULED[name]))
    if image is not None:
        operation, what, instead = _NEEDED[name]
        if all(row["operation"] != operation for row in found.plan(tuple(image.shape)).rows()):
            raise ValueError(
                f"{name} is about what {found.network.name} does not have: {what}. Take {instead}, or leave "
                f"{name} out."
            )
    return found


def rival(
    name: str,
    network: Network,
    explained: Callable[[Method], Explainer],
    image: Tensor | None,
    task: TaskName | None,
) -> Rival:
    """A rival that is not :data:`RULED`, with the layer or the method after its ``@``.

    Args:
        name: it.
        network: the model.
        explained: makes an explainer of one of clarp's methods.
        image: (C, H, W) as the model will see it, to find a layer and to refuse what means nothing in this
            model.
        task: what the last layer means; None: as the model ends.

    Raises:
        ModuleNotFoundError: it is another package's, which is not installed.
        TypeError: the model is an exported program, and it works on a copy of a module.
        ValueError: it means nothing in this model, or what is after the ``@`` is no layer or method.
    """
    head, _, option = name.partition("@")
    if head in _WITH_LAYER:
        return ActivationMap.of(name, network, image)
    if head == "var":
        if option and option not in methods():
            raise ValueError(f"{name}: {unknown('method', option, methods(), wanted=option)}")
        return Competition(explained(Method.named(option or "lrp")), name)
    if head == "idgi":
        return DecisionGradients.of(name, network, task)
    return TokenMap.of(name, network, image, task)


def check_option(name: str) -> None:
    """Refuse something after an ``@`` that a rival does not read.

    Raises:
        ValueError: there is something.
    """
    head, at, _ = name.partition("@")
    if at and head not in (*_WITH_LAYER, "var"):
        raise ValueError(f"{name}: {head} takes nothing after an @. Name it {head}.")
