"""Heads that compare: cosine similarities and distances to prototypes, made of what they compute."""

from math import inf, prod
from typing import Any

import torch
from torch import Tensor, fx

from clarp.operations.average import norm, total
from clarp.operations.call import Call, Lowered, Refused, Value, lowers
from clarp.operations.elementwise import HardTanh
from clarp.operations.linear import Affine, Dense, line, scaled
from clarp.operations.merge import Add, Divide, Multiply, Shift, is_constant
from clarp.operations.pooling import VectorNorm
from clarp.operations.shape import Expand, Reshape

aten = torch.ops.aten


@lowers(aten.cosine_similarity.default)
def _cosine(call: Call) -> Lowered:
    """Of two values, or of a value and constants. Several prototypes become a dense layer on unit vectors."""
    names, dim, eps = ("x1", "x2"), call["dim"], float(call["eps"])
    shape = _common(call, names)
    axes = len(call.node.meta["val"].shape) + 1
    constants = [name for name in names if is_constant(call, name)]
    if constants:
        value = "x2" if constants == ["x1"] else "x1"
        given: Any = call[constants[0]]
        weight: Tensor = call.constants[given.name].double()
        weight = weight.reshape((1,) * (axes - weight.ndim) + tuple(weight.shape))
        unit = weight / weight.norm(dim=dim, keepdim=True).clamp_min(eps)
        x: fx.Node = call.value(value)
        own = call.sizes(x)
        if dim % axes == axes - 1 and own[-2:-1] == (1,) and weight.squeeze().ndim == 2:
            flat = (*own[:-2], own[-1])
            vector = call.step(Reshape(flat), (_unit(call, x, own, len(own) - 1, eps),), flat)
            if (*flat[:-1], len(unit.squeeze())) == call.sizes():
                return Dense(call.new("prototypes", unit.squeeze().contiguous()), None), (vector,)
    axis = dim % axes - 1
    units: list[Value] = []
    for name in names:
        if name not in constants:
            x = call.value(name)
            own = call.sizes(x)
            normed = _unit(call, x, own, axis - (len(shape) - len(own)), eps)
            units.append(normed if own == shape else _expanded(call, normed, own, shape))
    if constants:
        product = call.step(Affine(call.new("prototypes", unit), None), (units[0],), shape)
    else:
        product = call.step(Multiply(), tuple(units), shape)
    return total(call, product, shape, (axis - len(shape),))


def _common(call: Call, names: tuple[str, str]) -> tuple[int, ...]:
    """The shape of both, without the batch, which must be in front of either value."""
    shapes = []
    for name in names:
        given: Any = call[name]
        if is_constant(call, name):
            constant = call.constants[given.name]
            shapes.append(tuple(constant.shape))
        else:
            if call.layout(given).axis != 0 or call.layout(given).inner != 1:
                raise Refused("the batch is not its first axis")
            shapes.append((1, *call.sizes(given)))
    try:
        whole = torch.broadcast_shapes(*shapes)
    except RuntimeError as error:
        raise Refused("its two arguments are of different shapes") from error
    if whole[0] != 1:
        raise Refused("one of its arguments is a constant that differs between the images of a batch")
    return tuple(whole[1:])


def _expanded(call: Call, x: Value, own: tuple[int, ...], shape: tuple[int, ...]) -> Value:
    wide = (1,) * (len(shape) - len(own)) + own
    x = x if wide == own else call.step(Reshape(wide), (x,), wide)
    return x if wide == shape else call.step(Expand(shape), (x,), shape)


def _unit(call: Call, x: Value, shape: tuple[int, ...], axis: int, eps: float) -> Value:
    """A value divided by its length along an axis of ``shape``."""
    kept = (*shape[:axis], 1, *shape[axis + 1 :])
    length = call.step(VectorNorm((axis - len(shape),), keepdim=True), (x,), kept)
    safe = call.step(HardTanh(eps, inf), (length,), kept)
    return call.step(Divide(), (x, call.step(Expand(shape), (safe,), shape)), shape)


@lowers(aten.cdist.default, aten._cdist_forward.default)  # noqa: SLF001  an ATen name
def _distance(call: Call) -> Lowered:
    """From values to constants (centres) or to other values, of any order.

    It becomes differences, powers, a sum and a root.
    """
    order = _order(float(call["p"]))
    wide = (*call.sizes(), _rows(call, "x1")[-1])
    sides: list[Value] = []
    for name, places in (("x1", len(wide) - 2), ("x2", len(wide) - 3)):
        if not is_constant(call, name):
            own = call.sizes(call.value(name))
            apart = (*own[:places], 1, *own[places:])
            value = call.step(Reshape(apart), (call.value(name),), apart)
            value = call.step(Expand(wide), (value,), wide)
            subtracts = name == "x2" and not is_constant(call, "x1")
            sides.append(scaled(call, value, -1.0 if subtracts else 1.0, wide))
    if len(sides) == 2:
        return norm(call, call.step(Add(), tuple(sides), wide), wide, (-1,), order)
    first = is_constant(call, "x1")
    given: Any = call["x1" if first else "x2"]
    centres = call.constants[given.name].double()
    if prod(centres.shape[:-2]) != 1:
        raise Refused(f"its centres have the shape {tuple(centres.shape)}, expected one matrix")
    count, width = centres.shape[-2:]
    around = (count, 1, width) if first else (1, count, width)
    shift = call.new("centres", -centres.reshape((1,) * (len(wide) - 2) + around))
    return norm(call, call.step(Shift(shift), (sides[0],), wide), wide, (-1,), order)


def _rows(call: Call, name: str) -> tuple[int, ...]:
    """The shape of one side, without the batch where it has one."""
    given: Any = call[name]
    return tuple(call.constants[given.name].shape) if is_constant(call, name) else call.sizes(given)


@lowers(aten.pairwise_distance.default)
def _pairwise(call: Call) -> Lowered:
    """Row by row, from values to constants or to other values.

    It becomes differences, powers, a sum and a root.
    """
    names, order = ("x1", "x2"), _order(float(call["p"]))
    shape = _common(call, names)
    values: list[Value] = []
    centre: Tensor | None = None
    for name, sign in (("x1", 1.0), ("x2", -1.0)):
        if is_constant(call, name):
            constant = call.constants[call[name].name].double()
            centre = sign * constant.reshape((1,) * (len(shape) + 1 - constant.ndim) + tuple(constant.shape))
            continue
        x = call.value(name)
        value = _expanded(call, x, call.sizes(x), shape)
        values.append(scaled(call, value, sign, shape))
    if centre is not None:
        value = call.step(Shift(call.new("centre", centre)), (values[0],), shape)
    else:
        value = call.step(Add(), tuple(values), shape)
    value = call.step(line(call, 1.0, float(call["eps"]), len(shape)), (value,), shape)
    return norm(call, value, shape, (-1,), order, keepdim=call["keepdim"])


def _order(order: float) -> float:
    if order <= 0 or order == inf:
        raise Refused(f"its order is {order}, expected one above zero")
    return order
