"""Rules for operations that clarp does not know."""

import torch
from torch._library.custom_ops import CustomOpDef
from torch._ops import OpOverload, OpOverloadPacket

from clarp.operations.call import LOWERINGS
from clarp.operations.custom import REGISTERED, Custom, Gradient
from clarp.rules.linear import LinearRule
from clarp.rules.rule import Rule

_RULES: dict[OpOverload, Rule] = {}


def register(
    operation: str | OpOverload | OpOverloadPacket | CustomOpDef,
    rule: Rule,
    gradient: Gradient | None = None,
) -> None:
    """Give an operation that clarp does not know a rule; explainers made from then on explain models with it.

    The operation itself is what computes: a custom operation (``torch.library.custom_op``), or one of
    PyTorch's own that was refused. It must treat each image of the batch on its own, and return one tensor.

    Args:
        operation: the operation, or its name, for example "mylib::snake" or "aten::cumsum".
        rule: how it hands relevance to its inputs, whatever the composite.
        gradient: ``gradient(g, *arguments)`` gives the gradient of each input that depends on the images,
            from the gradient g (B, ...) of the output and the operation's arguments; None: PyTorch's autograd
            formula of the operation. Only methods with selection, and rules that ask for it (``Transport``),
            need a gradient at all.

    Raises:
        TypeError: an argument is not of its kind, or the rule is one for linear operations.
        ValueError: there is no such operation, or clarp has rules for it, which composites choose.
    """
    target = _target(operation)
    if not isinstance(rule, Rule):
        raise TypeError(f"rule is {rule!r}, expected a rule, for example clarp.rules.Pass().")
    if isinstance(rule, LinearRule):
        raise TypeError(
            f"rule is {rule!r}, which needs the weights of a linear operation, and nothing is known of "
            f"those of {target}. Take Pass(), Transport() or Ratio(), or a rule of your own (docs/rules.md)."
        )
    if gradient is not None and not callable(gradient):
        raise TypeError(
            f"gradient is {gradient!r}, expected a function of a gradient and the operation's arguments."
        )
    if target in LOWERINGS:
        raise ValueError(
            f"{target} has rules already, which composites choose (clarp.rules.composites.Composite)."
        )
    REGISTERED[target] = gradient
    _RULES[target] = rule


def rule_of(operation: Custom) -> Rule:
    """The rule that was registered for this operation."""
    return _RULES[operation.target]


def _target(operation: object) -> OpOverload:
    if isinstance(operation, OpOverload):
        return operation
    if isinstance(operation, CustomOpDef):
        operation = operation._qualname  # noqa: SLF001  there is no public name
    if isinstance(operation, str):
        space, _, name = operation.partition("::")
        found = getattr(getattr(torch.ops, space), name, None) if space and name else None
        if found is None:
            raise ValueError(
                f"there is no operation {operation!r}, expected a name such as 'mylib::snake' that is "
                "registered."
            )
        operation = found
    if not isinstance(operation, OpOverloadPacket):
        raise TypeError(
            f"operation is {operation!r}, expected a custom operation (torch.library.custom_op) or its "
            "name. An autograd.Function or a module is traced into the operations that it does: make it a "
            "custom operation (docs/rules.md)."
        )
    found = [getattr(operation, name) for name in operation.overloads()]
    pure: list[OpOverload] = [one for one in found if not one._schema.is_mutable]  # noqa: SLF001
    if len(pure) != 1:
        raise ValueError(
            f"{operation} has the overloads {', '.join(map(str, pure))}: name one, torch.ops.{pure[0]}."
        )
    return pure[0]
