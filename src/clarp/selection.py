"""Selection: relevance follows what raises the target's probability (SLRP's step, Jung, Han, Choi 2021).

The gradient g is that of ``z_t - sum_n s_n z_n`` with s the softmax over the rivals, which is the gradient of
the softmax probability up to the factor ``y_t (1 - y_t)``; the factor does not change the selection, and
would underflow.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor

from clarp.capture import Node
from clarp.operations import Convolution, Dense
from clarp.operations.base import may_overwrite
from clarp.propagation import ForwardCache, Plan, Program, Step, last_spatial, positions
from clarp.rules import LinearRule
from clarp.seeds import softmax_direction

Form = Literal["channel", "element", "neuron", "neuron-mask"]
Layers = Literal["all", "last", "last-stage", "before-last-stage"]
_LAYERS = "expected 'all', 'last', 'last-stage', 'before-last-stage', or a tuple of module names"
FLOOR = 1e-6
"""What every neuron keeps in neuron form, relative to the strongest: where no input of an output is selected,
a rule
without bias hands the output's relevance on as if there were no selection, and nothing is lost. (A rule with
the bias in its denominator gives it to the bias.)"""


ROUNDING = 100
"""How many units of rounding the mean of a channel's gradients must be from zero, relative to their size."""


@dataclass(frozen=True)
class Selection:
    """Which relevance goes on, at which layers, by which gradient.

    Forms, with A the output of a convolution and a its input:

    - "channel" (form A): ``R_k <- alpha_k R_k`` at the output, ``alpha_k = ReLU(mean over positions of
      g_k)``, g = dy_t/dA;
    - "element": ``R_k(u) <- alpha_k(u) R_k(u)`` with ``alpha = ReLU(g)`` at every position;
    - "neuron" (form B2): the convolution's rule reads ``m a`` instead of a, with ``m = ReLU(g)``, g =
      dy_t/da; conserves;
    - "neuron-mask" (form B1): the same with ``m = 1[g > 0]``;

    The neuron forms leave out the convolutions that read the pixels, where the sign of a value means nothing
    (a model without others has nothing to select), and take in the dense layers that act at every position,
    as in transformers, where their rule is z+ or alpha-beta: others divide by sums of either sign, which
    nearly cancel when most inputs are deselected, and layer after layer relevance would grow beyond all
    numbers. Views that are folded into the batch of the convolutions are no positions.

    In the channel and the element form, each sample is rescaled so that ``sum |R|`` stays what it was: only
    the shape of alpha matters, and nothing underflows. Where no gradient is positive, selection is skipped,
    and the explanation counts it.

    Attributes:
        form: one of the four.
        layers: "all" convolutions, the "last" one with more than one position (so no gate, and none behind
            the pooling), the "last-stage" (all with as many positions as the last), those
            "before-last-stage", or names of modules with shell wildcards, for example ("layer4.*",).
        gradient: of the softmax "probability", or of the target's "logit".

    Raises:
        ValueError: an unknown form, layers or gradient.
        TypeError: layers is neither a word nor a tuple of names.
    """

    form: Form = "channel"
    layers: Layers | tuple[str, ...] = "all"
    gradient: Literal["probability", "logit"] = "probability"

    def __post_init__(self) -> None:
        if self.form not in get_args(Form):
            raise ValueError(f"form is {self.form!r}, expected one of {', '.join(get_args(Form))}.")
        if self.gradient not in ("probability", "logit"):
            raise ValueError(f"gradient is {self.gradient!r}, expected 'probability' or 'logit'.")
        if isinstance(self.layers, str):
            if self.layers not in get_args(Layers):
                raise ValueError(f"layers is {self.layers!r}, {_LAYERS}, for example ({self.layers!r},).")
        elif not isinstance(self.layers, tuple | list):
            raise TypeError(f"layers is {self.layers!r}, {_LAYERS}.")
        elif not self.layers or not all(isinstance(name, str) for name in self.layers):
            raise ValueError(f"layers is {self.layers!r}, {_LAYERS}.")
        else:
            object.__setattr__(self, "layers", tuple(self.layers))

    def nodes(self, plan: Plan) -> tuple[Node, ...]:
        """At which operations of a plan it selects.

        Raises:
            ValueError: there is no convolution, a name matches none, no layer is before the last stage, or
                the rule at one of them doesn't look at the inputs that a neuron form selects.
        """
        reached = plan.reached()
        folded = _folded(plan)
        steps = [step for step in plan if self._knows(step.node, folded) and step.node.name in reached]
        if not steps:
            raise ValueError(
                f"{self} needs {self._kinds}, and the model has none. Use a method without selection, for "
                "example 'sglrp'."
            )
        where = [step for step in steps if not self.in_rule or _takes_a_selection(step)]
        nodes = self._chosen(tuple(step.node for step in where), steps)
        if self.in_rule:
            chosen = {node.name for node in nodes}
            self._check_rules([step for step in where if step.node.name in chosen])
        return nodes

    def _chosen(self, nodes: tuple[Node, ...], steps: Sequence[Step]) -> tuple[Node, ...]:
        """Those of the nodes that ``layers`` means; the steps are theirs, and those that read the pixels."""
        if not isinstance(self.layers, str):
            self._check_names(nodes, steps)
            return tuple(n for n in nodes if any(fnmatchcase(n.module, pattern) for pattern in self.layers))
        if self.layers == "all" or not nodes:
            return nodes
        last = last_spatial(nodes)
        if self.layers == "last":
            return (last,)
        of_stage = self.layers == "last-stage"
        found = tuple(n for n in nodes if (positions(n) == positions(last)) == of_stage)
        if not found:
            raise ValueError(
                f"layers is {self.layers!r}, and all the model's {self._kinds} belong to the last stage "
                f"({positions(last)} positions). Take layers='all', or name them."
            )
        return found

    def _check_names(self, nodes: Sequence[Node], steps: Sequence[Step]) -> None:
        """Refuse a name that none of these nodes has; steps may include those that read the pixels."""
        for pattern in self.layers:
            if any(fnmatchcase(node.module, pattern) for node in nodes):
                continue
            if any(fnmatchcase(step.node.module, pattern) for step in steps):
                raise ValueError(
                    f"layers has {pattern!r}, where the form {self.form!r} selects nothing: it reads the "
                    "pixels, whose sign means nothing, or is a dense layer whose rule is neither z+ nor "
                    "alpha-beta. Leave it out, or take the form 'channel'."
                )
            near = get_close_matches(pattern, [node.module for node in nodes], n=3, cutoff=0.0)
            hint = f"The nearest are {', '.join(near)}." if near else "There is none behind the first layer."
            raise ValueError(
                f"layers has {pattern!r}, which is none of the model's {self._kinds} that relevance arrives "
                f"at (a gate's get none). {hint}"
            )

    def _check_rules(self, steps: Sequence[Step]) -> None:
        """Refuse a neuron form under rules that give every input the same, whatever it is."""
        for step in steps:
            if isinstance(step.rule, LinearRule) and not step.rule.reads_input:
                raise ValueError(
                    f"the form {self.form!r} selects inputs, and the rule {step.rule!r} at "
                    f"{step.node.module or 'the model'!r} doesn't look at them: it would change nothing. "
                    "Take a rule that does, for example ZPlus(), or the form 'channel'."
                )

    @property
    def _kinds(self) -> str:
        """At which operations it selects, in words."""
        return "convolutions" + (" or dense layers that act at every position" if self.in_rule else "")

    def _knows(self, node: Node, folded: Collection[tuple[int, ...]]) -> bool:
        """Whether it selects at operations of this kind; views in the batch are no positions."""
        return isinstance(node.operation, Convolution) or (
            self.in_rule and isinstance(node.operation, Dense) and node.shape[:-1] not in {(), *folded}
        )

    @property
    def in_rule(self) -> bool:
        """Whether it changes the rule (neuron forms) and not the relevance (channel and element form)."""
        return self.form in ("neuron", "neuron-mask")


def _folded(plan: Plan) -> set[tuple[int, ...]]:
    """What a model has folded into the batch of its convolutions: views, slices, cells of an image."""
    return {
        step.node.shape[: -1 - len(step.node.operation.stride)]
        for step in plan
        if isinstance(step.node.operation, Convolution)
    }


def _takes_a_selection(step: Step) -> bool:
    """Whether a neuron form may select inputs: not pixels, nor where a dense layer's rule mixes signs."""
    mixed = (
        isinstance(step.node.operation, Dense)
        and isinstance(step.rule, LinearRule)
        and not step.rule.one_sign
    )
    return not (step.reads_pixels or mixed)


class _Gradients:
    """Gradients of the backward pass, each computed on demand and dropped after its last use.

    Args:
        coming: from :meth:`clarp.propagation.Program.gradients`.
        asked: how often each will be asked for.
    """

    def __init__(self, coming: Iterator[tuple[str, Tensor]], asked: Counter[str]) -> None:
        self._coming, self._asked = coming, asked
        self._arrived: dict[str, Tensor] = {}

    def take(self, name: str) -> Tensor:
        """The gradient at this value, (K, B, ...)."""
        while name not in self._arrived:
            arrived, gradient = next(self._coming)
            self._arrived[arrived] = gradient
        self._asked[name] -= 1
        return self._arrived[name] if self._asked[name] else self._arrived.pop(name)


class RunningSelection:
    """Selections at work on one batch, asked by the program on its way back, once for each operation.

    Attributes:
        skipped: at how many of the layers asked for so far no gradient was positive, (K, B).
    """

    def __init__(self, target: Tensor) -> None:
        self._channels: dict[str, tuple[Selection, Callable[[], Tensor], int]] = {}
        self._inputs: dict[str, tuple[Selection, Callable[[], Tensor]]] = {}
        self._targets = target.shape[0]  # len() makes a number of a symbolic size
        self.skipped = torch.zeros_like(target)

    def add(self, selection: Selection, node: Node, gradient: Callable[[], Tensor]) -> None:
        """Select at a convolution by the gradient (K, B, ...) of its output, in neuron form of its input."""
        if selection.in_rule:
            self._inputs[node.name] = selection, gradient
        else:
            assert isinstance(node.operation, Convolution)
            self._channels[node.name] = selection, gradient, len(node.operation.stride)

    def _strongest(self, gradient: Tensor) -> Tensor:
        """The greatest value in each sample, (K, B, 1, ...)."""
        strongest = gradient.amax(tuple(range(2, gradient.ndim)), keepdim=True)
        self.skipped = self.skipped + (strongest <= 0).view(self.skipped.shape)
        return strongest

    def modulation(self, name: str, seeds: int) -> Tensor | None:
        """What the input of this operation is multiplied with, (P K, B, ...) for P K seeds, or None.

        ``ReLU(g) / max g + FLOOR``, or its sign, and 1 where no gradient is positive.
        """
        if name not in self._inputs:
            return None
        selection, take = self._inputs.pop(name)
        gradient = take()
        strongest = self._strongest(gradient)
        some = strongest > 0
        least = torch.where(some, FLOOR, 1.0).to(gradient)
        if selection.form == "neuron-mask":
            return self._for_passes((gradient > 0) * some + least, seeds)
        positive = gradient.relu()
        scale = torch.where(some, 1 / strongest.where(some, 1), 0)
        out = positive if may_overwrite(positive, scale) else None
        return self._for_passes(torch.addcmul(least, positive, scale, out=out), seeds)

    def _for_passes(self, value: Tensor, seeds: int) -> Tensor:
        """(K, B, ...) as (P K, B, ...)."""
        return torch.cat([value] * (seeds // self._targets)) if seeds > self._targets else value

    def select(self, name: str, relevance: Tensor) -> Tensor:
        """``R <- alpha R`` with ``sum |R|`` kept; relevance is (P K, B, ...) for P passes of K targets."""
        if name not in self._channels:
            return relevance
        selection, take, axes = self._channels.pop(name)
        gradient = _mean_over_positions(take(), axes) if selection.form == "channel" else take()
        strongest = self._strongest(gradient)
        alpha = gradient.clamp(min=0) / strongest.masked_fill(strongest <= 0, 1)
        sizes = (
            relevance.unflatten(0, (-1, self._targets)).abs()
            if alpha.shape[3:].numel() > 1
            else self._channel_sizes(relevance)
        )
        sample = (0, *range(3, sizes.ndim))
        before, after = sizes.sum(sample, keepdim=True)[0], (sizes * alpha).sum(sample, keepdim=True)[0]
        enough = after > torch.finfo(after.dtype).tiny * before  # else the quotient could overflow
        factor = torch.where(enough, alpha * (before / after.where(enough, 1)), 1)
        return relevance * self._for_passes(factor, relevance.shape[0])

    def _channel_sizes(self, relevance: Tensor) -> Tensor:
        """``sum over positions of |R|``, (P, K, B, C, 1, ...)."""
        sizes = relevance.abs().sum(tuple(range(3, relevance.ndim)), keepdim=True)
        return sizes.unflatten(0, (-1, self._targets))


def _mean_over_positions(gradient: Tensor, axes: int) -> Tensor:
    """Over the last axes, (K, B, C, ...) to (K, B, C, 1, ...); zero where only rounding is left.

    Behind an instance norm, say, the gradients of a channel cancel by mathematics, and the sign of what is
    left means nothing.
    """
    positions = tuple(range(-axes, 0))
    mean, size = gradient.mean(positions, keepdim=True), gradient.abs().mean(positions, keepdim=True)
    return mean.masked_fill(mean.abs() <= ROUNDING * torch.finfo(mean.dtype).eps * size, 0)


def select_by_gradients(
    selections: Sequence[Selection], program: Program, cached: ForwardCache, target: Tensor, rivals: Tensor
) -> RunningSelection | None:
    """The selections of one batch; their gradients are computed during the backward pass.

    Args:
        selections: at each operation the first one that names it counts.
        program: the network.
        cached: its forward pass.
        target: (K, B).
        rivals: bool (K, B, N).

    Returns:
        None where there is nothing to select.
    """
    if not selections:
        return None
    running = RunningSelection(target)
    chosen: dict[str, tuple[Selection, Node]] = {}
    for selection in selections:
        for node in selection.nodes(program.plan):
            chosen.setdefault(node.name, (selection, node))
    for kind in ("probability", "logit"):
        group = [(s, node) for s, node in chosen.values() if s.gradient == kind]
        if group:
            direction = softmax_direction(
                cached.logits, target, rivals, strength=float(kind == "probability")
            )
            where = [node.inputs[0] if s.in_rule else node.name for s, node in group]
            gradients = _Gradients(program.gradients(cached, direction, set(where)), Counter(where))
            for (selection, node), name in zip(group, where, strict=True):
                running.add(selection, node, partial(gradients.take, name))
    return running


def needs_rivals(selections: Sequence[Selection]) -> bool:
    """Whether a selection's gradient is that of a probability."""
    return any(s.gradient == "probability" for s in selections)


def normalised(selection: Selection | Sequence[Selection] | None) -> tuple[Selection, ...]:
    """One, several or no selections as a tuple."""
    if selection is None:
        return ()
    selections = (selection,) if isinstance(selection, Selection) else tuple(selection)
    for one in selections:
        if not isinstance(one, Selection):
            raise TypeError(f"selection is {selection!r}, expected a Selection, several, or None.")
    return selections
