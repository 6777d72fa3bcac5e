"""Recurrent layers, unrolled into the products, sums and gates that they are made of.

That is their published LRP (Arras et al. 2017, arXiv 1706.07206; 2019, arXiv 1909.12114): what a step reads,
its input and the state before it side by side, is one dense layer; a gate (a sigmoid) is held constant, and
the signal that it lets through gets everything (LRP-all).
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from clarp.operations.activation import Sigmoid, Tanh
from clarp.operations.base import Operation
from clarp.operations.call import Call, Intermediate, Lowered, Refused, Value, lowers
from clarp.operations.elementwise import ReLU
from clarp.operations.indexing import Concatenate, Flip, Slice
from clarp.operations.linear import Affine, Dense
from clarp.operations.merge import Add, Multiply
from clarp.operations.shape import Reshape

aten = torch.ops.aten


CELLS: dict[Any, tuple[str, int]] = {
    aten.lstm.input: ("lstm", 4),
    aten.gru.input: ("gru", 3),
    aten.rnn_tanh.input: ("tanh", 1),
    aten.rnn_relu.input: ("relu", 1),
}
"""The kind of each layer, and into how many parts its weights are split."""


@dataclass(frozen=True)
class _Recurrence:
    """One layer in one direction.

    Attributes:
        call: the layer's.
        kind: "lstm", "gru", "tanh" or "relu".
        name: of its tensors.
        inputs: how many features it reads.
        hidden: how many it has.
        weights: w_ih, w_hh, and the biases b_ih and b_hh.
    """

    call: Call
    kind: str
    name: str
    inputs: int
    hidden: int
    weights: tuple[Tensor, Tensor, Tensor, Tensor]

    def joint(self, rows: slice) -> Dense:
        """What reads the input and the state side by side."""
        w, u, b, c = self.weights
        key = f"{self.name}.{rows.start}"
        weight = self.call.new(f"{key}.weight", torch.cat([w[rows], u[rows]], 1))
        return Dense(weight, self.call.new(f"{key}.bias", b[rows] + c[rows]))

    def alone(self, of: int, rows: slice) -> Dense:
        """What reads the input (0) or the state (1) by itself."""
        key = f"{self.name}.{of}.{rows.start}"
        weight = self.call.new(f"{key}.weight", self.weights[of][rows])
        return Dense(weight, self.call.new(f"{key}.bias", self.weights[2 + of][rows]))

    def apply(self, operation: Operation, *values: Value, size: int | None = None) -> str:
        """One operation that gives a vector of the state's size, or another."""
        return self.call.step(operation, values, (self.hidden if size is None else size,))

    def part(self, value: str, index: int) -> str:
        """One of the vectors in a longer one."""
        return self.apply(Slice(1, index * self.hidden, (index + 1) * self.hidden, 1), value)

    def zeros(self, like: str) -> str:
        """The first state."""
        nothing = self.weights[0].new_zeros(self.hidden, self.inputs)
        return self.apply(Dense(self.call.new(f"{self.name}.none", nothing), None), like)

    def step(self, x: str, state: tuple[str, ...]) -> tuple[str, ...]:
        """The state behind one step; its first vector is what the layer returns."""
        h, n = state[0], self.hidden
        both = self.apply(Concatenate(1), x, h, size=self.inputs + n)
        if self.kind == "lstm":
            gates = self.apply(self.joint(slice(0, 4 * n)), both, size=4 * n)
            i, f, o = (self.apply(Sigmoid(), self.part(gates, index)) for index in (0, 1, 3))
            new = self.apply(Tanh(), self.part(gates, 2))
            c = self.apply(Add(), self.apply(Multiply(), f, state[1]), self.apply(Multiply(), i, new))
            return self.apply(Multiply(), o, self.apply(Tanh(), c)), c
        if self.kind == "gru":
            gates = self.apply(self.joint(slice(0, 2 * n)), both, size=2 * n)
            r, z = (self.apply(Sigmoid(), self.part(gates, index)) for index in (0, 1))
            rows = slice(2 * n, 3 * n)
            kept = self.apply(Multiply(), r, self.apply(self.alone(1, rows), h))
            new = self.apply(Tanh(), self.apply(Add(), self.apply(self.alone(0, rows), x), kept))
            one = torch.ones(1, 1, dtype=torch.float64)
            less = Affine(self.call.new("minus", -one), self.call.new("one", one))
            return (
                self.apply(
                    Add(),
                    self.apply(Multiply(), self.apply(less, z), new),
                    self.apply(Multiply(), z, h),
                ),
            )
        reads = self.apply(self.joint(slice(0, n)), both)
        return (self.apply(Tanh() if self.kind == "tanh" else ReLU(), reads),)


@lowers(*CELLS)
def _recurrent(call: Call) -> Lowered:
    """Any number of layers, in one direction or both, from a state of zeros. The steps are unrolled."""
    kind, parts = CELLS[call.node.target]
    x = call.value("input")
    if call["train"] and call["dropout"]:
        raise Refused("it drops at random: call model.eval() first")
    if len(call.sizes(x)) != 2:
        raise Refused("its input has no batch axis, expected (B, T, C) or (T, B, C)")
    _check_start(call)
    steps, features = call.sizes(x)
    directions = 2 if call["bidirectional"] else 1
    weights = _weights(call, call["num_layers"] * directions)
    value: Value = x
    last: list[str] = []
    for layer in range(call["num_layers"]):
        outputs = []
        for direction in range(directions):
            w = weights[layer * directions + direction]
            hidden = w[1].shape[1]
            if len(w[1]) != parts * hidden:
                raise Refused("its states are projected (proj_size), expected them as they are")
            cell = _Recurrence(call, kind, f"{layer}.{direction}", features, hidden, w)
            found, end = _run(cell, value, steps, backwards=direction == 1)
            outputs.append(found)
            last.append(end)
        features = hidden * directions
        value = (
            outputs[0] if directions == 1 else call.step(Concatenate(2), tuple(outputs), (steps, features))
        )
    rows = tuple(call.step(Reshape((1, hidden)), (end,), (1, hidden)) for end in last)
    call.steps.append(
        Intermediate(last_state(call.node), Concatenate(1), rows, (len(rows), hidden))
    )  # what its second result is
    return None, (value,)


def last_state(node: fx.Node) -> str:
    """The name of the value with the last states of all layers, (B, layers, C)."""
    return f"{node.name}.last"


def _run(cell: _Recurrence, value: Value, steps: int, *, backwards: bool) -> tuple[str, str]:
    """All outputs (B, T, C) of a cell, and the last."""
    call = cell.call
    outputs: list[str] = []
    state: tuple[str, ...] = ()
    for t in reversed(range(steps)) if backwards else range(steps):
        row = call.step(Slice(1, t, t + 1, 1), (value,), (1, cell.inputs))
        x = cell.apply(Reshape((cell.inputs,)), row, size=cell.inputs)
        if not state:
            start = cell.zeros(x)
            state = (start, start)
        state = cell.step(x, state)
        outputs.append(call.step(Reshape((1, cell.hidden)), (state[0],), (1, cell.hidden)))
    shape = (steps, cell.hidden)
    whole = call.step(Concatenate(1), tuple(outputs), shape)
    return call.step(Flip((1,)), (whole,), shape) if backwards else whole, state[0]


def _weights(call: Call, count: int) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
    given: list[fx.Node] = call["params"]
    if any(node.name not in call.constants for node in given):
        raise Refused("its weights are computed from the image, expected constants")
    each = 4 if call["has_biases"] else 2
    if len(given) != each * count:
        raise Refused("its states are projected (proj_size), expected them as they are")
    found = []
    for first in range(0, len(given), each):
        w, u, *biases = (call.constants[node.name] for node in given[first : first + each])
        b, c = biases or (w.new_zeros(len(w)), w.new_zeros(len(w)))
        found.append((w, u, b, c))
    return found


def _check_start(call: Call) -> None:
    given: Any = call["hx"]
    for node in given if isinstance(given, list | tuple) else [given]:
        if node.name not in call.constants or bool(call.constants[node.name].any()):
            raise Refused("its first state is not zero, expected a layer that is called with its input alone")
