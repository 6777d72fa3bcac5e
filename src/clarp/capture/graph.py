"""The captured network: a list of operations in the order of computation, each reading values by name."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from clarp.operations import Operation


@dataclass(frozen=True)
class Node:
    """One operation at one place of the network; a module that is called twice gives two nodes.

    Attributes:
        name: the name of its output, unique in the graph.
        operation: what it computes.
        inputs: the names of the values it reads.
        shape: of its output, without the batch axis.
        module: the path of the module it belongs to in the user's model, "" for the model itself.
        source: the line of the user's code, "file.py:38", or "".
        non_negative: whether no element of the output can be negative.
    """

    name: str
    operation: Operation
    inputs: tuple[str, ...]
    shape: tuple[int, ...]
    module: str
    source: str
    non_negative: bool = False


@dataclass(frozen=True)
class Graph:
    """A network from one input to one output.

    Attributes:
        nodes: in the order of computation.
        input: the name of the images (B, *input_shape).
        output: the name of the logits (B, N).
        input_shape: of one image, (C, H, W).
        tensors: weights, biases and other constants by name.
    """

    nodes: tuple[Node, ...]
    input: str
    output: str
    input_shape: tuple[int, ...]
    tensors: dict[str, Tensor]

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)

    def users(self) -> dict[str, list[Node]]:
        """For each value the nodes that read it, once per reading."""
        users: dict[str, list[Node]] = {self.input: [], **{node.name: [] for node in self.nodes}}
        for node in self.nodes:
            for name in node.inputs:
                users[name].append(node)
        return users
