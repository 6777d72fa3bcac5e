"""The end of a captured graph: logits as rows (B, N), and two columns that are made of one value."""

from collections.abc import Iterator
from dataclasses import replace
from math import isfinite, prod

import torch
from torch import Tensor

from clarp.capture.end import End
from clarp.capture.graph import Graph, HookPoint, Node, Pair
from clarp.capture.link import Link, Sigmoid, Softmax
from clarp.capture.simplify import simplify
from clarp.operations import Affine, Dense, Log, LogOdds, Operation, Reshape
from clarp.operations.base import in_dtype

DIFFERENCE = "logits.difference"
"""The name of the weights (-1, 1) or (1, -1) of the difference of two logits."""
WIDE = 30.0
"""How far from zero a value is tried where its limits are unknown."""
SAMPLES, ENOUGH = 121, 5
SUM = 1e-4
"""How far from 1 the sum of probabilities of classes that exclude each other may be."""
EXACT = 1e-6
"""How far samples may be from a straight line, beside their span; the graph's constants are rounded, its
values are not."""
UNSURE = 1e-3
"""Probabilities nearer to 0 or 1 than this may be clamped, and are not looked at."""


def closed(graph: Graph, end: End) -> Graph:
    """The graph whose output are the logits (B, N) that an exported program's end was found to have."""
    last = _output(graph)
    if len(last.shape) != 1:
        graph = _appended(graph, Reshape((prod(last.shape),)), (prod(last.shape),))
    if end.column is not None:
        weight = torch.full((1, 2), -1.0, dtype=torch.float64)
        weight[0, end.column] = 1.0
        graph = _appended(graph, Dense(DIFFERENCE, None), (1,), weight)
    if end.negated:
        (count,) = _output(graph).shape
        graph = _appended(graph, Affine("logits.sign", None), (count,), torch.full((1, 1), -1.0).double())
    return graph


def _output(graph: Graph) -> Node:
    return next(node for node in graph if node.name == graph.output)


def _appended(
    graph: Graph, operation: Operation, shape: tuple[int, ...], weight: Tensor | None = None
) -> Graph:
    last = _output(graph)
    node = Node(f"{last.name}.{type(operation).__name__}", operation, (last.name,), shape, "", last.source)
    tensors = dict(graph.tensors)
    if weight is not None and isinstance(operation, Affine | Dense):
        device = next((tensor.device for tensor in tensors.values()), torch.device("cpu"))
        tensors[operation.weight] = weight.to(device)
    return replace(graph, nodes=(*graph.nodes, node), output=node.name, tensors=tensors)


def as_logits(graph: Graph, results: Tensor) -> Graph:
    """The graph whose output are the logits of what the model returns.

    Two columns that are made of one value become its log-odds (:func:`one_value`). Probabilities without a
    softmax or sigmoid at their end, the mean of several models' for example, become their logarithms if they
    sum to 1, else their log-odds.

    Args:
        graph: checked to compute what the model returns.
        results: what the model returns for some images, (B, N).
    """
    found = one_value(graph)
    last = _output(found)
    sums = results.double().sum(1)
    shares = results.shape[1] > 1 and bool((results >= 0).all() and ((sums - 1).abs() <= SUM).all())
    if found.pair is not None or found.link is not None or not (shares or (last.low >= 0 and last.high <= 1)):
        return found
    stage, operation = (Softmax(), Log()) if shares else (Sigmoid(), LogOdds())
    return replace(_appended(found, operation, last.shape), link=Link((stage,), seen=False))


def one_value(graph: Graph) -> Graph:
    """The graph up to the log-odds z of class 1, a straight line of the one value v that makes both columns.

    ``(-v, v)``, ``(0, v)``, ``(1 - p, p)`` and a dense layer of one input are such columns: relevance that
    goes out with opposite signs from both cancels where they meet. Any other graph stays as it is.
    """
    last = _output(graph)
    if isinstance(last.operation, Dense) and last.operation.weight == DIFFERENCE:
        return _of_two(graph, last)
    if last.shape != (2,):
        return graph
    single = _one_row(graph, last)
    if single is not None:
        return single
    for node in _bottlenecks(graph):
        found = _log_odds(graph, node)
        if found is not None:
            return _cut(graph, node, *found)
        column = _share(graph, node)
        if column is not None:
            cut = _cut(graph, node, 1.0, 0.0, "log-odds")
            odds = _appended(cut, LogOdds(), (1,))
            return odds if column == 1 else _turned(odds)
    return graph


def _share(graph: Graph, node: Node) -> int | None:
    """Which of the columns (1 - p, p) or (p, 1 - p) this value is, if no straight line of logits gives it."""
    if graph.link is not None or not (node.low >= 0 and node.high <= 1):
        return None
    values = _samples(node)
    columns = _columns(graph, node, values)
    if columns is None:
        return None
    both = torch.stack([values, 1 - values], 1)
    return next(
        (k for k, made in ((0, both), (1, both.flip(1))) if torch.allclose(columns, made, atol=EXACT)), None
    )


def _of_two(graph: Graph, last: Node) -> Graph:
    """The graph of a difference of two columns, as one value or as a dense layer with that difference."""
    weight = graph.tensors[DIFFERENCE]
    columns = replace(graph, nodes=graph.nodes[:-1], output=last.inputs[0], link=None)
    found = one_value(columns)
    if found.pair is not None:
        return replace(_turned(found) if weight[0, 1] < 0 else found, link=graph.link, pair=None)
    before = _output(columns)
    if not isinstance(before.operation, Dense) or len(graph.users()[before.name]) > 1:
        return graph
    head, tensors = before.operation, dict(graph.tensors)
    tensors["logits.weight"] = weight @ tensors[head.weight]
    if head.bias is not None:
        tensors["logits.bias"] = weight @ tensors[head.bias]
    folded = replace(head, weight="logits.weight", bias=None if head.bias is None else "logits.bias")
    node = replace(last, operation=folded, inputs=before.inputs, module=before.module, source=before.source)
    nodes = (*(other for other in columns if other is not before), node)
    outputs = {
        path: tuple(HookPoint(node.name) if point == HookPoint(before.name) else point for point in points)
        for path, points in graph.outputs.items()
    }
    return simplify(replace(graph, nodes=nodes, tensors=tensors, outputs=outputs), weight.dtype)


def _turned(graph: Graph) -> Graph:
    dtype = next(
        (t.dtype for t in graph.tensors.values() if t.is_floating_point()), torch.get_default_dtype()
    )
    sign = torch.full((1, 1), -1.0, dtype=torch.float64)
    return simplify(_appended(graph, Affine("logits.sign", None), (1,), sign), dtype)


def _one_row(graph: Graph, last: Node) -> Graph | None:
    """A dense head whose first row is zero, so that class 0 has a constant for a logit."""
    head = last.operation
    if not isinstance(head, Dense) or (graph.link is not None and graph.link.squash == "sigmoid"):
        return None
    weight, bias = graph.tensors[head.weight], None if head.bias is None else graph.tensors[head.bias]
    if weight.shape[0] != 2 or bool(weight[0].any()):
        return None
    tensors = dict(graph.tensors)
    tensors["logits.weight"] = weight[1:]
    if bias is not None:
        tensors["logits.bias"] = bias[1:] - bias[:1]
    operation = replace(head, weight="logits.weight", bias=None if bias is None else "logits.bias")
    nodes = (*graph.nodes[:-1], replace(last, operation=operation, shape=(1,)))
    return replace(simplify(replace(graph, nodes=nodes, tensors=tensors), weight.dtype), pair="difference")


def _bottlenecks(graph: Graph) -> Iterator[Node]:
    """The values of one element that all paths to the output lead through, the nearest to it first."""
    wanted = {graph.output}
    for node in reversed(graph.nodes):
        if node.name not in wanted:
            continue
        wanted.discard(node.name)
        if not wanted and prod(node.shape) == 1:
            yield node
        wanted.update(node.inputs)


def _log_odds(graph: Graph, node: Node) -> tuple[float, float, Pair] | None:
    """Factor and summand of the log-odds of class 1 over this value, and how the columns make them up."""
    values = _samples(node)
    columns = _columns(graph, node, values)
    if columns is None or not bool(columns.isfinite().all()):
        return None
    pair = _pair(graph, columns)
    if pair is None:
        return None
    shares = columns if pair == "log-odds" else columns.exp()
    if _sums_to_one(shares):
        unsure = shares.amin(1) >= UNSURE
        values, columns = values[unsure], shares[unsure].log()
    if len(values) < ENOUGH:
        return None
    odds = columns[:, 1] if pair == "second" else columns[:, 1] - columns[:, 0]
    factor = (odds[-1] - odds[0]) / (values[-1] - values[0])
    summand = odds[0] - factor * values[0]
    span = (odds[-1] - odds[0]).abs()
    straight = (factor * values + summand - odds).abs().max() <= EXACT * span
    if span <= EXACT * odds.abs().max() or not straight:
        return None
    return _plain(factor), _plain(summand) if abs(summand) > EXACT * span else 0.0, pair


def _pair(graph: Graph, columns: Tensor) -> Pair | None:
    """How two columns make up the log-odds of class 1, None where each is a question of its own."""
    total = columns.sum(1)
    if graph.link is not None and graph.link.squash == "sigmoid":
        return "second" if bool((total.abs() <= EXACT * columns.abs().max()).all()) else None
    return "log-odds" if graph.link is None and _sums_to_one(columns) else "difference"


def _sums_to_one(columns: Tensor) -> bool:
    """Whether these are probabilities of two classes, (S, 2)."""
    return bool(((columns >= 0) & ((columns.sum(1, keepdim=True) - 1).abs() <= EXACT)).all())


def _plain(number: Tensor) -> float:
    """Without the last digits, which rounding made up: 1 and not 1.0000000000000002."""
    return float(f"{number.item():.12g}")


def _samples(node: Node) -> Tensor:
    """Values that the node can have, in float64."""
    low = node.low if isfinite(node.low) else min(-WIDE, node.high - 2 * WIDE)
    high = node.high if isfinite(node.high) else max(WIDE, node.low + 2 * WIDE)
    inside = torch.linspace(0, 1, SAMPLES + 2, dtype=torch.float64)[1:-1]
    return low + (high - low) * inside


def _columns(graph: Graph, node: Node, values: Tensor) -> Tensor | None:
    """What the graph makes of these values (S,) of a node: (S, 2), in float64."""
    tensors = {name: in_dtype(tensor, torch.float64).cpu() for name, tensor in graph.tensors.items()}
    known = {node.name: values.view(-1, *node.shape)}
    for other in graph.nodes[graph.nodes.index(node) + 1 :]:
        if all(name in known for name in other.inputs):
            known[other.name], _ = other.operation.forward([known[name] for name in other.inputs], tensors)
    return known.get(graph.output)


def _cut(graph: Graph, node: Node, factor: float, summand: float, pair: Pair) -> Graph:
    """The graph that ends in ``factor v + summand``."""
    dtype = next(
        (t.dtype for t in graph.tensors.values() if t.is_floating_point()), torch.get_default_dtype()
    )
    nodes = graph.nodes[: graph.nodes.index(node) + 1]
    names = {graph.input, *(kept.name for kept in nodes)}
    outputs = {path: tuple(_kept(point, names) for point in points) for path, points in graph.outputs.items()}
    cut = replace(graph, nodes=nodes, output=node.name, outputs=outputs, pair=pair)
    if node.shape != (1,):
        cut = _appended(cut, Reshape((1,)), (1,))
    if (factor, summand) != (1.0, 0.0):
        device = next((t.device for t in graph.tensors.values()), torch.device("cpu"))
        tensors = dict(cut.tensors)
        tensors["logits.scale"] = torch.full((1, 1), factor, dtype=torch.float64, device=device)
        tensors["logits.shift"] = torch.full((1, 1), summand, dtype=torch.float64, device=device)
        shift = "logits.shift" if summand else None
        cut = _appended(replace(cut, tensors=tensors), Affine("logits.scale", shift), (1,))
    return simplify(cut, dtype)


def _kept(point: HookPoint | None, names: set[str]) -> HookPoint | None:
    return (
        None
        if point is None or point.value not in names or (point.reader or point.value) not in names
        else point
    )
