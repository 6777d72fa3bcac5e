"""Two neighbours become one operation that computes the same; in float64."""

from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from clarp.capture.graph import Node
from clarp.operations import Affine, Convolution, Dense, Pad, TransposedConvolution, WeightedLinear

Tensors = dict[str, Tensor]
NodeFold = Callable[[Node, Node, Tensors], Node | None]
"""Two neighbours, the second the only reader of the first, become one node or stay as they are (None)."""


def affine_behind(first: Node, second: Node, tensors: Tensors) -> Node | None:
    """``s (f(x, w) + b) + t = f(x, s w) + (s b + t)``, with the channels of w first."""
    linear, affine = first.operation, second.operation
    if not isinstance(affine, Affine) or not isinstance(linear, Convolution | Dense):
        return None
    weight, bias = tensors[linear.weight].double(), _bias(linear, tensors)
    constants = _per_channel(linear, affine, tensors, weight.shape[0])
    if constants is None:
        return None
    scale, shift = constants
    scaled = weight * scale.view(-1, *(1,) * (weight.ndim - 1))
    folded = _with_tensors(
        linear, first.name, scaled, _sum(None if bias is None else bias * scale, shift), tensors
    )
    return replace(second, operation=folded, inputs=first.inputs, module=first.module, source=first.source)


def affine_before(first: Node, second: Node, tensors: Tensors) -> Node | None:
    """``f(s x + t, w) + b = f(x, w s) + (f(t, w) + b)``, where all outputs read as many shifted values."""
    affine, linear = first.operation, second.operation
    if not isinstance(affine, Affine) or not isinstance(linear, Convolution | Dense):
        return None
    weight = tensors[linear.weight].double()
    groups = linear.groups if isinstance(linear, Convolution) else 1
    constants = _per_channel(linear, affine, tensors, groups * weight.shape[1])
    if constants is None:
        return None
    scale, shift = constants
    if shift is not None and isinstance(linear, Convolution) and not linear.uniform:
        return None
    # (C', C / groups, ...) as (groups, C' / groups, C / groups, ...), beside constants (C,) as (groups, 1, C
    # / groups, ...)
    grouped = weight.unflatten(0, (groups, -1))
    shape = (groups, 1, -1, *(1,) * (weight.ndim - 2))
    scaled = (grouped * scale.view(shape)).flatten(0, 1)
    through = None if shift is None else (grouped * shift.view(shape)).flatten(2).sum(2).flatten()
    folded = _with_tensors(linear, second.name, scaled, _sum(_bias(linear, tensors), through), tensors)
    return replace(second, operation=folded, inputs=first.inputs)


def affine_twice(first: Node, second: Node, tensors: Tensors) -> Node | None:
    """``s' (s x + t) + t' = s' s x + (s' t + t')``."""
    inner, outer = first.operation, second.operation
    if not isinstance(inner, Affine) or not isinstance(outer, Affine):
        return None
    scale, bias = tensors[outer.weight].double(), _bias(inner, tensors)
    total = _sum(None if bias is None else bias * scale, _bias(outer, tensors))
    folded = _with_tensors(outer, second.name, tensors[inner.weight].double() * scale, total, tensors)
    return replace(second, operation=folded, inputs=first.inputs)


def padding(first: Node, second: Node, tensors: Tensors) -> Node | None:
    """Zeros around the image belong to the convolution: a rule must not hand relevance to them."""
    del tensors
    pad, convolution = first.operation, second.operation
    if not isinstance(pad, Pad) or not isinstance(convolution, Convolution) or pad.value != 0:
        return None
    axes = 2 * len(convolution.stride)
    if min(pad.amounts) < 0 or any(pad.amounts[axes:]) or convolution.extra:
        return None
    amounts = pad.amounts[:axes] + (0,) * (axes - len(pad.amounts))
    left, right = amounts[0::2][::-1], amounts[1::2][::-1]
    if left == right and not isinstance(convolution, TransposedConvolution):
        both = tuple(own + more for own, more in zip(convolution.padding, left, strict=True))
        folded = replace(convolution, padding=both)
    else:
        folded = replace(convolution, extra=amounts)
    return replace(second, operation=folded, inputs=first.inputs)


def _per_channel(
    linear: WeightedLinear, affine: Affine, tensors: Tensors, channels: int
) -> tuple[Tensor, Tensor | None] | None:
    """The factor and summand of each channel (C,) of the linear operation, None where they differ in one."""
    axis = -1 - len(linear.stride) if isinstance(linear, Convolution) else -1
    found: list[Tensor | None] = []
    for constant in (tensors[affine.weight].double(), _bias(affine, tensors)):
        if constant is None:
            found.append(None)
            continue
        if constant.numel() != constant.shape[axis]:
            return None
        found.append(constant.flatten().expand(channels))
    scale, shift = found
    assert scale is not None
    return scale, shift


def _bias(linear: WeightedLinear, tensors: Tensors) -> Tensor | None:
    return None if linear.bias is None else tensors[linear.bias].double()


def _sum(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return b if a is None else a if b is None else a + b


def _with_tensors(
    linear: WeightedLinear, name: str, weight: Tensor, bias: Tensor | None, tensors: Tensors
) -> WeightedLinear:
    tensors[f"{name}.weight"] = weight
    if bias is not None:
        tensors[f"{name}.bias"] = bias
    return replace(linear, weight=f"{name}.weight", bias=None if bias is None else f"{name}.bias")
