"""The end of a model that returns probabilities: the logits before its softmax or sigmoid are explained."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx

from clarp.capture.link import (
    Clamp,
    Exp,
    Link,
    Log,
    LogSigmoid,
    LogSoftmax,
    Reciprocal,
    Scale,
    Sigmoid,
    Softmax,
    Softplus,
    Stage,
)
from clarp.operations.shape import NOTHING, SHAPES

aten = torch.ops.aten

PARTS = (aten.select.int, aten.slice.Tensor, aten.narrow.default)
SQUASHES: dict[Any, Stage] = {
    aten.softmax.int: Softmax(),
    aten._softmax.default: Softmax(),  # noqa: SLF001  an ATen name
    aten.special_softmax.default: Softmax(),
    aten._safe_softmax.default: Softmax(),  # noqa: SLF001  an ATen name
    aten.log_softmax.int: LogSoftmax(),
    aten._log_softmax.default: LogSoftmax(),  # noqa: SLF001  an ATen name
    aten.special_log_softmax.default: LogSoftmax(),
    aten.sigmoid.default: Sigmoid(),
    aten.special_expit.default: Sigmoid(),
    aten.log_sigmoid.default: LogSigmoid(),
}
OF_ONE: dict[Any, Stage] = {
    aten.log.default: Log(),
    aten.exp.default: Exp(),
    aten.reciprocal.default: Reciprocal(),
    aten.softplus.default: Softplus(),
    aten.neg.default: Scale(-1.0, 0.0),
    aten.negative.default: Scale(-1.0, 0.0),
}


@dataclass(frozen=True)
class End:
    """How an exported program ends.

    Attributes:
        output: the node whose values are the logits, once what is skipped passes its input on.
        link: what the model does to the logits, None for nothing.
        skipped: the nodes that make up the link.
        column: the column of a softmax over two classes that is all the program returns; its logit is the
            difference of both.
        negated: whether the logits are those of ``output`` with the other sign, as in ``1 - sigmoid(z)``.
    """

    output: fx.Node
    link: Link | None = None
    skipped: frozenset[fx.Node] = frozenset()
    column: int | None = None
    negated: bool = False


def end_of(output: fx.Node, constants: Mapping[str, Tensor]) -> End:
    """Look for a softmax or sigmoid at the end of an exported program with this output.

    Copies, changes of type or shape and increasing functions behind it do not hide it: a view, ``1 - p``, a
    factor, a logarithm. One that is written by hand, ``1 / (1 + exp(-z))`` or ``exp(z) / sum exp(z)``, is
    found too.

    Args:
        output: the program's.
        constants: its tensors that do not depend on the images, by name.
    """
    node, stages, skipped, parts = output, list[Stage](), list[fx.Node](), list[fx.Node]()
    shared = False
    while (stage := SQUASHES.get(node.target)) is None:
        scalar, share = _scalar_function(node, constants), _share_of_sum(node)
        if share is not None and share.target is aten.exp.default:
            end = End(output, Link((Softmax(), *stages)), frozenset({node, share, *skipped}))
            axis = node.args[1].args[1][0]  # type: ignore[union-attr,index]
            return _behind_softmax(end, share.args[0], axis, parts)  # type: ignore[arg-type]
        if scalar is not None:
            stages.insert(0, scalar)
            skipped.insert(0, node)
        elif share is not None:  # of a softmax it is the softmax
            shared = True
            skipped.insert(0, node)
            node = share
            continue
        elif node.target in PARTS:
            parts.append(node)
        elif node.target not in (*NOTHING, *SHAPES):
            return End(output) if shared else _by_hand(output, stages, skipped)
        source = _source(node, constants)
        if source is None:
            return End(output) if shared else _by_hand(output, stages, skipped)
        node = source
    link = Link((stage, *stages))
    if shared and (stages or stage != Softmax()):
        return End(output)
    if link.squash == "sigmoid":
        negated = not link.rising
        link = Link((Scale(-1.0, 0.0), *link.stages)) if negated else link
        return End(output, link, frozenset({node, *skipped}), negated=negated)
    logits = node.args[0]
    assert isinstance(logits, fx.Node)
    dim = node.args[1] if len(node.args) > 1 else node.kwargs["dim"]
    return _behind_softmax(End(output, link, frozenset({node, *skipped})), logits, dim, parts)


def _by_hand(output: fx.Node, stages: list[Stage], skipped: list[fx.Node]) -> End:
    """A sigmoid, or its logarithm, that is written as other functions: the last of the stages."""
    values = torch.linspace(-6, 6, 25, dtype=torch.float64)
    for first in range(len(stages)):
        found = values
        for stage in stages[first:]:
            found = stage.forward(found)
        for known in (Sigmoid(), LogSigmoid()):
            for sign in (1.0, -1.0):
                if torch.allclose(found, known.forward(sign * values), rtol=1e-9, atol=1e-12):
                    return End(output, Link((known,)), frozenset(skipped[first:]), negated=sign < 0)
    return End(output)


def _without_common(logits: fx.Node, dim: int) -> fx.Node | None:
    """The logits before a value that all classes have in common is subtracted: a softmax doesn't see it."""
    if logits.target is not aten.sub.Tensor or logits.kwargs:
        return None
    x, common = logits.args
    if not (isinstance(x, fx.Node) and isinstance(common, fx.Node)):
        return None
    shape, own = common.meta["val"].shape, x.meta["val"].shape
    return x if len(shape) == len(own) and shape[dim] == 1 and own[dim] != 1 else None


def _share_of_sum(node: fx.Node) -> fx.Node | None:
    """The x of ``x / x.sum(axis, keepdim=True)``, None where it is another operation."""
    if node.target is not aten.div.Tensor or node.kwargs or len(node.args) != 2:
        return None
    x, total = node.args
    if not (isinstance(x, fx.Node) and isinstance(total, fx.Node) and total.target is aten.sum.dim_IntList):
        return None
    axes, keeps = total.args[1], (*total.args[2:], False)[0]
    return x if total.args[0] is x and keeps and isinstance(axes, list | tuple) and len(axes) == 1 else None


def _behind_softmax(end: End, logits: fx.Node, dim: Any, parts: list[fx.Node]) -> End:
    """A softmax over the classes whose whole result is returned, or one column of two."""
    shape = logits.meta["val"].shape
    dim %= len(shape)
    while (inner := _without_common(logits, dim)) is not None:
        end, logits = replace(end, skipped=end.skipped | {logits}), inner
    assert end.link is not None
    alone = dim > 0 and all(size == 1 for axis, size in enumerate(shape) if axis not in (0, dim))
    parts = [part for part in parts if part.meta["val"].shape != _input_shape(part)]
    if not alone or not end.link.rising:
        return End(end.output)
    if not parts:
        return end
    column = _column(parts, dim) if shape[dim] == 2 else None
    if column is None:
        return End(end.output)
    stages = [
        Sigmoid() if s == Softmax() else LogSigmoid() if s == LogSoftmax() else s for s in end.link.stages
    ]
    return End(logits, Link(tuple(stages)), column=column)


def _column(parts: list[fx.Node], dim: int) -> int | None:
    if len(parts) != 1 or parts[0].args[1] not in (dim, dim - len(_input_shape(parts[0]))):
        return None
    start = parts[0].args[2]
    left = (
        [size for axis, size in enumerate(parts[0].meta["val"].shape) if axis == dim]
        if parts[0].target is not aten.select.int
        else [1]
    )
    return start % 2 if left == [1] and isinstance(start, int) else None


def _input_shape(node: fx.Node) -> Any:
    source = node.args[0]
    assert isinstance(source, fx.Node)
    return source.meta["val"].shape


def _source(node: fx.Node, constants: Mapping[str, Tensor]) -> fx.Node | None:
    """The value that an operation changes: its first argument, or of a product the one that varies."""
    if node.target in (*NOTHING, *SHAPES, *PARTS):
        first = node.args[0]
        return first if isinstance(first, fx.Node) and first.name not in constants else None
    found = [
        source
        for source in node.all_input_nodes
        if source.name not in constants and isinstance(source.meta.get("val"), Tensor)
    ]
    return found[0] if len(found) == 1 else None


def _scalar_function(node: fx.Node, constants: Mapping[str, Tensor]) -> Stage | None:
    """What an operation does to every element alike, None where it is another operation."""
    if node.target in OF_ONE and len(node.args) == 1:
        return OF_ONE[node.target]
    if node.target in (aten.clamp.default, aten.clamp_min.default, aten.clamp_max.default, aten.clip.default):
        return _clamp(node)
    name = getattr(getattr(node.target, "overloadpacket", None), "__name__", "")
    if (
        name not in {"add", "sub", "subtract", "rsub", "mul", "multiply", "div", "divide", "true_divide"}
        or node.kwargs
    ):
        return None
    numbers = [_number(arg, constants) for arg in node.args[:2]]
    if len(node.args) != 2 or [number is None for number in numbers].count(True) != 1:
        return None
    behind, number = numbers[0] is None, next(float(number) for number in numbers if number is not None)
    return _straight(name, number, behind=behind)


def _straight(name: str, number: float, *, behind: bool) -> Stage | None:
    """``x op number``, or ``number op x`` where the number is not behind the operator."""
    if name == "add":
        return Scale(1.0, number)
    if name in {"sub", "subtract", "rsub"}:
        from_number = behind == (name == "rsub")
        return Scale(-1.0, number) if from_number else Scale(1.0, -number)
    if number == 0 or (name not in {"mul", "multiply"} and not behind):
        return None
    return Scale(number if name in {"mul", "multiply"} else 1 / number, 0.0)


def _clamp(node: fx.Node) -> Stage | None:
    names = {aten.clamp_max.default: ("max",)}.get(node.target, ("min", "max"))  # type: ignore[call-overload]
    limits = {**dict(zip(names, node.args[1:], strict=False)), **node.kwargs}
    low, high = limits.get("min"), limits.get("max")
    if any(isinstance(limit, fx.Node) for limit in (low, high)):
        return None
    return Clamp(-torch.inf if low is None else float(low), torch.inf if high is None else float(high))


def _number(value: object, constants: Mapping[str, Tensor]) -> float | None:
    if isinstance(value, fx.Node):
        constant = constants.get(value.name)
        return None if constant is None or constant.numel() != 1 else float(constant)
    return float(value) if isinstance(value, int | float) else None
