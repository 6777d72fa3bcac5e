"""Operations that the user registered."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, fx
from torch._ops import OpOverload

from clarp.capture.lowering.call import LOWERINGS, Call, Lowered, Refused, no_lowering
from clarp.operations.custom import Constant, Custom, Gradient, Input

REGISTERED: dict[OpOverload, Gradient | None] = {}
"""How a gradient goes back through each; None: by its own autograd formula."""


def lowering_of(target: Any) -> Callable[[Call], Lowered]:
    """What lowers calls of this operation: ours, then the user's."""
    return LOWERINGS.get(target, _custom if target in REGISTERED else no_lowering)


def _custom(call: Call) -> Lowered:
    values: list[fx.Node] = []
    arguments: list[object] = []
    for name, value in call.arguments.items():
        if isinstance(value, fx.Node) and value.name not in call.constants:
            arguments.append(Input(len(values)))
            values.append(value)
        elif isinstance(value, fx.Node):
            arguments.append(Constant(call.required(name)))
        elif isinstance(value, list | tuple) and any(isinstance(one, fx.Node) for one in value):
            raise Refused(
                f"its argument {name!r} is a list of tensors, expected each as an argument of its own"
            )
        else:
            arguments.append(value)
    if not isinstance(call.node.meta["val"], Tensor):
        raise Refused("it returns several values, expected one tensor")
    assert isinstance(call.node.target, OpOverload)
    names = tuple(argument.name for argument in arguments if isinstance(argument, Constant))
    backward = REGISTERED[call.node.target]
    return Custom(call.node.target, tuple(arguments), backward, names), tuple(values)
