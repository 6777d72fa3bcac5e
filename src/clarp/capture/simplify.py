"""A captured graph becomes simpler and stays the same function.

Batch norms go into the convolution or dense layer beside them, zero paddings into the convolution behind them,
what nobody reads is dropped, and every value that can't be negative is marked.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from clarp.capture.graph import Graph, Node
from clarp.operations import Affine, Convolution, Dense, Pad, WeightedLinear


def simplify(graph: Graph, dtype: torch.dtype) -> Graph:
    """Fold, drop and mark.

    A fold is tried wherever one operation is the only reader of another. Folds compute in float64; dtype is the type of
    the tensors in the end.
    """
    graph = _drop_unread(graph)
    for fold in (_fold_affine_behind, _fold_affine_before, _fold_padding):
        graph = _fold_everywhere(graph, fold)
    used = {name for node in graph for name in _tensor_names(node)}
    kept = {name: tensor.to(dtype) for name, tensor in graph.tensors.items() if name in used}
    return _mark_signs(replace(graph, tensors=kept))


Fold = Callable[[Node, Node, dict[str, Tensor]], Node | None]
"""Two neighbours, the second the only reader of the first, become one node or stay as they are (None)."""


def _fold_everywhere(graph: Graph, fold: Fold) -> Graph:
    nodes = {node.name: node for node in graph}
    users = graph.users()
    tensors = dict(graph.tensors)
    for node in graph:
        second = nodes[node.name]
        if len(second.inputs) != 1 or len(users[second.inputs[0]]) != 1 or second.inputs[0] not in nodes:
            continue
        first = nodes[second.inputs[0]]
        folded = fold(first, second, tensors)
        if folded is not None:
            nodes[second.name] = folded
            del nodes[first.name]
    return replace(graph, nodes=tuple(nodes.values()), tensors=tensors)


def _fold_affine_behind(first: Node, second: Node, tensors: dict[str, Tensor]) -> Node | None:
    """``s (f(x, w) + b) + t = f(x, s w) + (s b + t)``, with the channels of w first."""
    linear, affine = first.operation, second.operation
    if not isinstance(affine, Affine) or not isinstance(linear, WeightedLinear):
        return None
    if isinstance(linear, Dense) and len(first.shape) != 1:
        return None  # the batch norm's channels are not the dense layer's
    scale, shift = tensors[affine.scale].double(), tensors[affine.shift].double()
    weight = tensors[linear.weight]
    scaled = weight.double() * scale.view(-1, *(1,) * (weight.ndim - 1))
    bias = shift if linear.bias is None else tensors[linear.bias].double() * scale + shift
    folded = _with_tensors(linear, first.name, scaled, bias, tensors)
    return replace(second, operation=folded, inputs=first.inputs, module=first.module, source=first.source)


def _fold_affine_before(first: Node, second: Node, tensors: dict[str, Tensor]) -> Node | None:
    """``f(s x + t, w) + b = f(x, w s) + (f(t, w) + b)``; not where zero padding meets a shifted value."""
    affine, linear = first.operation, second.operation
    if not isinstance(affine, Affine) or not isinstance(linear, WeightedLinear):
        return None
    if isinstance(linear, Convolution) and (any(linear.padding) or linear.extra or linear.groups != 1):
        return None
    if isinstance(linear, Dense) and len(first.shape) != 1:
        return None
    scale, shift = tensors[affine.scale].double(), tensors[affine.shift].double()
    weight = tensors[linear.weight]
    shape = (1, -1, *(1,) * (weight.ndim - 2))
    through = (weight.double() * shift.view(shape)).flatten(1).sum(1)
    bias = through if linear.bias is None else tensors[linear.bias].double() + through
    scaled = weight.double() * scale.view(shape)
    folded = _with_tensors(linear, second.name, scaled, bias, tensors)
    return replace(second, operation=folded, inputs=first.inputs)


def _with_tensors(
    linear: WeightedLinear, name: str, weight: Tensor, bias: Tensor, tensors: dict[str, Tensor]
) -> WeightedLinear:
    tensors[f"{name}.weight"], tensors[f"{name}.bias"] = weight, bias
    return replace(linear, weight=f"{name}.weight", bias=f"{name}.bias")


def _fold_padding(first: Node, second: Node, tensors: dict[str, Tensor]) -> Node | None:
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
    if left == right:
        padding = tuple(own + more for own, more in zip(convolution.padding, left, strict=True))
        folded = replace(convolution, padding=padding)
    else:
        folded = replace(convolution, extra=amounts)
    return replace(second, operation=folded, inputs=first.inputs)


def _drop_unread(graph: Graph) -> Graph:
    read = {graph.output}
    kept = []
    for node in reversed(graph.nodes):
        if node.name in read:
            kept.append(node)
            read.update(node.inputs)
    return replace(graph, nodes=tuple(reversed(kept)))


def _mark_signs(graph: Graph) -> Graph:
    signs = {graph.input: False}
    nodes = []
    for node in graph:
        signs[node.name] = node.operation.keeps_sign([signs[name] for name in node.inputs])
        nodes.append(replace(node, non_negative=signs[node.name]))
    return replace(graph, nodes=tuple(nodes))


def _tensor_names(node: Node) -> list[str]:
    operation = node.operation
    if isinstance(operation, WeightedLinear):
        return [name for name in (operation.weight, operation.bias) if name is not None]
    return [operation.scale, operation.shift] if isinstance(operation, Affine) else []
