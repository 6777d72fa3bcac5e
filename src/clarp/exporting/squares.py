"""Square weights of an ONNX file, in a form that OpenVINO reads rightly.

The forward pass of a dense layer multiplies by W^T, the backward pass by W. Where W is square, OpenVINO
2026.4 computes one of the two products with the matrix of the other, on a CPU. It does not with a copy of W
that it can't recognise as W.
"""

from collections.abc import Iterator

import onnx
from onnx import helper


def copy_squares(model: onnx.ModelProto) -> None:
    """Let the products with W read ``-(-W)``, equal to the last bit, where others read W^T.

    Runtimes compute it once, when they load the file; ``W + 0`` and ``1 W`` would be taken for W itself.
    """
    graph = model.graph
    turned = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Transpose"}
    squares = _squares(graph)
    both: dict[str, list[onnx.NodeProto]] = {}
    transposed: set[str] = set()
    for node in graph.node:
        if node.op_type not in ("MatMul", "Gemm"):
            continue
        weight = node.input[1]
        source = turned.get(weight, weight)
        if source not in squares:
            continue
        if (weight in turned) != any(one.name == "transB" and one.i for one in node.attribute):
            transposed.add(source)
        else:
            both.setdefault(source, []).append(node)
    copies: dict[str, list[onnx.NodeProto]] = {}
    for source, nodes in both.items():
        if source in transposed:
            copies[source] = list(_copied(source))
            for node in nodes:
                node.input[1] = copies[source][-1].output[0]
    _insert(graph, copies)


def _squares(graph: onnx.GraphProto) -> set[str]:
    """Square constants, and what is made of them value by value, such as their positive parts."""
    constants = {one.name: tuple(one.dims) for one in graph.initializer}
    for node in graph.node:
        if node.input and all(name in constants for name in node.input if name):
            sizes = max((constants[name] for name in node.input if name), key=len)
            constants.update(dict.fromkeys(node.output, sizes))
        elif node.op_type == "Constant":
            constants.update(dict.fromkeys(node.output, ()))
    return {name for name, sizes in constants.items() if len(sizes) == 2 and sizes[0] == sizes[1]}


def _copied(source: str) -> Iterator[onnx.NodeProto]:
    less, copy = f"{source}_less", f"{source}_copy"
    yield helper.make_node("Neg", [source], [less], name=less)
    yield helper.make_node("Neg", [less], [copy], name=copy)


def _insert(graph: onnx.GraphProto, copies: dict[str, list[onnx.NodeProto]]) -> None:
    """Each copy behind what makes its source; those of stored weights first."""
    stored = {one.name for one in graph.initializer}
    ordered = [node for source, made in copies.items() if source in stored for node in made]
    for node in graph.node:
        ordered.append(node)
        for name in node.output:
            ordered += copies.get(name, [])
    del graph.node[:]
    graph.node.extend(ordered)
