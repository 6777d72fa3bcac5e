"""An operation that the user registered: it computes itself, by its own gradient or one that was given."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, fx
from torch._ops import OpOverload

from clarp.operations.base import Kept, Operation, Record, Tensors
from clarp.operations.call import LOWERINGS, Call, Lowered, Lowering, Refused

Gradient = Callable[..., Tensor | Sequence[Tensor]]
"""``gradient(g, *arguments)``: from the gradient (B, ...) of the output, and the operation's arguments, that
of each input."""

REGISTERED: dict[OpOverload, Gradient | None] = {}
"""How a gradient goes back through each; None: by its own autograd formula."""


@dataclass(frozen=True)
class Custom(Operation):
    """What the registered operation computes.

    Attributes:
        target: the operation itself.
        arguments: by position; None where an input or a constant tensor goes.
        inputs: the positions of the inputs, in their order.
        constants: the positions of the constant tensors.
        backward: how a gradient goes back; None: as the operation's own autograd formula says.
        tensors: the names of the constant tensors.
    """

    rule: ClassVar[str] = "registered"
    target: OpOverload
    arguments: tuple[object, ...]
    inputs: tuple[int, ...]
    constants: tuple[int, ...]
    backward: Gradient | None
    tensors: tuple[str, ...]
    gradient_keeps: ClassVar[frozenset[Kept]] = frozenset({"inputs"})

    def forward(self, inputs: Sequence[Tensor], tensors: Tensors) -> tuple[Tensor, None]:
        return self.target(*self._filled(inputs, tensors)), None

    def gradient(self, gradient: Tensor, record: Record, tensors: Tensors) -> tuple[Tensor, ...]:
        """By the user's formula, or by autograd; one seed after the other."""
        inputs = [record.input(index) for index in range(len(record.inputs))]
        back = self._by_formula if self.backward is not None else self._by_autograd
        found = [back(seed, inputs, tensors) for seed in gradient]
        return tuple(torch.stack(one) for one in zip(*found, strict=True))

    def _filled(self, inputs: Sequence[Tensor], tensors: Tensors) -> list[object]:
        filled = dict(enumerate(self.arguments))
        filled |= zip(self.inputs, inputs, strict=True)
        filled |= {place: tensors[name] for place, name in zip(self.constants, self.tensors, strict=True)}
        return list(filled.values())

    def _by_formula(self, seed: Tensor, inputs: Sequence[Tensor], tensors: Tensors) -> tuple[Tensor, ...]:
        assert self.backward is not None
        found = self.backward(seed, *self._filled(inputs, tensors))
        found = (found,) if isinstance(found, Tensor) else tuple(found)
        if [one.shape for one in found] != [x.shape for x in inputs]:
            raise ValueError(
                f"the gradient registered for {self.target} gives the shapes "
                f"{[tuple(one.shape) for one in found]}, expected those of its inputs, "
                f"{[tuple(x.shape) for x in inputs]}."
            )
        return found

    def _by_autograd(self, seed: Tensor, inputs: Sequence[Tensor], tensors: Tensors) -> tuple[Tensor, ...]:
        again = torch.is_grad_enabled()
        with torch.inference_mode(mode=False), torch.enable_grad():
            given = [x.clone().requires_grad_() for x in inputs]
            try:
                output = self.target(*self._filled(given, tensors))
                return torch.autograd.grad(output, given, seed.clone(), create_graph=again)
            except RuntimeError as error:
                raise ValueError(
                    f"{self.target} has no gradient ({error}), and the method needs it. Give it one: "
                    "clarp.rules.register(..., gradient=...), or use a method without selection, for "
                    "example 'sglrp'."
                ) from error


def lowering_of(target: Any) -> Lowering:
    """What lowers calls of this operation: ours, then the user's."""
    return LOWERINGS.get(target, _custom)


def _custom(call: Call) -> Lowered:
    if call.node.target not in REGISTERED:
        raise Refused("not supported")
    values: list[fx.Node] = []
    arguments: list[object] = []
    inputs: list[int] = []
    constants: dict[int, str] = {}
    for place, (name, value) in enumerate(call.arguments.items()):
        arguments.append(None if isinstance(value, fx.Node) else value)
        if isinstance(value, fx.Node) and value.name not in call.constants:
            inputs.append(place)
            values.append(value)
        elif isinstance(value, fx.Node):
            constants[place] = call.required(name)
        elif isinstance(value, list | tuple) and any(isinstance(one, fx.Node) for one in value):
            raise Refused(
                f"its argument {name!r} is a list of tensors, expected each as an argument of its own"
            )
    if not isinstance(call.node.meta["val"], Tensor):
        raise Refused("it returns several values, expected one tensor")
    assert isinstance(call.node.target, OpOverload)
    backward = REGISTERED[call.node.target]
    custom = Custom(
        call.node.target,
        tuple(arguments),
        tuple(inputs),
        tuple(constants),
        backward,
        tuple(constants.values()),
    )
    return custom, tuple(values)
