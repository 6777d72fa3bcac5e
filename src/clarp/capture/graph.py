"""The captured network: a list of operations in the order of computation, each reading values by name."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from math import inf
from typing import Literal

import torch
from torch import Tensor

from clarp.capture.auxiliary import Auxiliary
from clarp.capture.link import Link
from clarp.operations import Add, Affine, Concatenate, Extend, Multiply, Operation, Routing, Shift
from clarp.operations.contraction import RESIZING

Pair = Literal["difference", "log-odds", "second"]
"""The log-odds of class 1 from two columns: ``l_1 - l_0`` of logits, ``log p_1 - log p_0`` of probabilities,
or ``l_1``."""


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
        low: no element of the output can be less, whatever the image.
        high: none can be greater.
    """

    name: str
    operation: Operation
    inputs: tuple[str, ...]
    shape: tuple[int, ...]
    module: str
    source: str
    low: float = -inf
    high: float = inf

    @property
    def non_negative(self) -> bool:
        """Whether no element of the output can be negative."""
        return self.low >= 0


KEEP_PIXELS = (Routing, Affine, Shift, Extend, *RESIZING)
"""The operations of pixels alone whose results are pixels."""
KEEP_PIXELS_WITH_INPUT = (Add, Multiply, Concatenate)
"""The operations of pixels and a further input whose results are pixels."""


@dataclass(frozen=True)
class HookPoint:
    """A place where relevance can be looked at.

    Attributes:
        value: at this value.
        reader: only what this operation hands to it; None: what all its readers hand to it.
    """

    value: str
    reader: str | None = None


@dataclass(frozen=True)
class Graph:
    """A network from one input to one output.

    Attributes:
        nodes: in the order of computation.
        input: the name of the images (B, *input_shape).
        output: the name of the logits (B, N).
        input_shape: of one image, (C, H, W).
        tensors: weights, biases and other constants by name.
        outputs: where each module's output is, a point for each time that it is called; None where it has not
            one output of its own.
        link: what the model does to the logits at its end (a softmax, say), None for nothing.
        pair: where the model returns two columns that are made of one value, which is the output here: how
            they make it up.
        assumed: which of several results the logits were taken to be, a note; "" where that was no question.
        auxiliary: what the graph reads beside the images: made of further inputs, and held constant.
        again: makes the same graph of the model's parameters and buffers as they are at that time, its
            tensors differentiable functions of them; None where that was not asked for.
    """

    nodes: tuple[Node, ...]
    input: str
    output: str
    input_shape: tuple[int, ...]
    tensors: dict[str, Tensor]
    outputs: Mapping[str, tuple[HookPoint | None, ...]] = field(default_factory=dict)
    link: Link | None = None
    pair: Pair | None = None
    assumed: str = ""
    auxiliary: Auxiliary = Auxiliary()
    again: "Callable[[], Graph] | None" = field(default=None, compare=False, repr=False)

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)

    def users(self) -> dict[str, list[Node]]:
        """For each value the nodes that read it, once per reading."""
        values = (self.input, *self.auxiliary.names, *(node.name for node in self.nodes))
        users: dict[str, list[Node]] = {name: [] for name in values}
        for node in self.nodes:
            for name in node.inputs:
                users[name].append(node)
        return users

    def image_independent(self) -> set[str]:
        """The values that are made of further inputs alone."""
        found = set(self.auxiliary.names)
        for node in self.nodes if found else ():
            if node.inputs and found.issuperset(node.inputs):
                found.add(node.name)
        return found

    def pixels(self) -> set[str]:
        """The values that are the image's own pixels.

        They may be moved around, padded, resized, in other units (normalised), less a mean image, or beside
        constants (coordinates).
        """
        found, constant = {self.input}, self.image_independent()
        for node in self.nodes:
            own = [name for name in node.inputs if name not in constant]
            kinds = KEEP_PIXELS if len(own) == len(node.inputs) else KEEP_PIXELS_WITH_INPUT
            if own and isinstance(node.operation, kinds) and found.issuperset(own):
                found.add(node.name)
        return found

    def inverse(self) -> Callable[[Tensor], Tensor]:
        """The function from what the model returns, (B, C), to its logits (B, N)."""
        return partial(_logits, self.link, self.pair)


def _logits(link: Link | None, pair: Pair | None, output: Tensor) -> Tensor:
    columns = output if link is None else link.undone(output)
    if pair is None:
        return columns
    if pair == "log-odds":
        columns = columns.double().clamp(min=torch.finfo(output.dtype).tiny).log()
    return columns[:, 1:] if pair == "second" else columns[:, 1:] - columns[:, :1]
