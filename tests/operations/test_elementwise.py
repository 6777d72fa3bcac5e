"""Operations of convolutional networks: gradients against autograd, values against torch, and the limits they promise."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from clarp import operations as ops
from clarp.operations import Operation
from oracle.calls import images
from oracle.gradients import check_gradient

inf = float("inf")
TENSORS = {
    "channel": images(1, 3, 1, 1, seed=7),
    "bias": images(1, 3, 1, 1, seed=8),
    "place": images(1, 3, 4, 5, seed=9),
    "index": torch.tensor([1, 0, 7, 7, 60, 3]),
}

ACTIVATIONS: dict[str, tuple[Any, Callable[[Tensor], Tensor]]] = {
    "sigmoid": (ops.Sigmoid(), torch.sigmoid),
    "hard sigmoid": (ops.HardSigmoid(), F.hardsigmoid),
    "tanh": (ops.Tanh(), torch.tanh),
    "arctan": (ops.Atan(), torch.atan),
    "erf": (ops.Erf(), torch.erf),
    "SiLU": (ops.SiLU(), F.silu),
    "hard swish": (ops.HardSwish(), F.hardswish),
    "GELU": (ops.GELU("none"), F.gelu),
    "GELU by tanh": (ops.GELU("tanh"), lambda x: F.gelu(x, approximate="tanh")),
    "mish": (ops.Mish(), F.mish),
    "softplus": (ops.Softplus(2.0, 3.0), lambda x: F.softplus(x, 2.0, 3.0)),
    "ELU": (ops.ELU(0.7, 1.0, 1.0), lambda x: F.elu(x, 0.7)),
    "SELU": (ops.ELU(1.6732632423543772, 1.0507009873554805, 1.0), F.selu),
    "CELU": (ops.ELU(0.7, 1.0, 1 / 0.7), lambda x: F.celu(x, 0.7)),
    "leaky ReLU": (ops.LeakyReLU(0.2), lambda x: F.leaky_relu(x, 0.2)),
    "leaky ReLU that turns": (ops.LeakyReLU(-0.5), lambda x: F.leaky_relu(x, -0.5)),
    "log sigmoid": (ops.LogSigmoid(), F.logsigmoid),
    "ReLU": (ops.ReLU(), F.relu),
    "ReLU6": (ops.HardTanh(0.0, 6.0), F.relu6),
    "root": (ops.Sqrt(), lambda x: x.clamp(min=0).sqrt()),
    "square": (ops.Power(2), torch.square),
    "cube": (ops.Power(3), lambda x: x**3),
    "threshold": (ops.Threshold(0.5, -2.0), lambda x: F.threshold(x, 0.5, -2.0)),
    "hard shrinkage": (ops.Shrink(0.5, soft=False), lambda x: F.hardshrink(x, 0.5)),
    "soft shrinkage": (ops.Shrink(0.5, soft=True), lambda x: F.softshrink(x, 0.5)),
    "absolute": (ops.Absolute(), torch.abs),
    "exponential": (ops.Exp(), torch.exp),
}
OTHERS: dict[str, tuple[Any, tuple[tuple[int, ...], ...]]] = {
    "PReLU": (ops.PReLU("channel"), ((2, 3, 4, 5),)),
    "affine": (ops.Affine("channel", "bias"), ((2, 3, 4, 5),)),
    "factor": (ops.Affine("place", None), ((2, 3, 4, 5),)),
    "sum": (ops.Add(), ((2, 3, 4), (2, 3, 4))),
    "product": (ops.Multiply(), ((2, 3, 4), (2, 3, 4))),
    "max pool": (ops.MaxPool((3, 2), (2, 1), (1, 0), (1, 2), ceil_mode=True), ((2, 3, 7, 6),)),
    "max pool 3d": (
        ops.MaxPool((2, 3, 1), (2, 1, 1), (0, 1, 0), (1, 1, 1), ceil_mode=False),
        ((2, 3, 4, 5, 3),),
    ),
    "adaptive max": (ops.AdaptiveMax((3, 2)), ((2, 3, 7, 5),)),
    "max": (ops.Max(-2, keepdim=False), ((2, 3, 4, 5),)),
    "max, axis kept": (ops.Max(-1, keepdim=True), ((2, 3, 4, 5),)),
    "average pool": (ops.AveragePool((3, 2), (2, 1), (1, 0), True, False, None), ((2, 3, 7, 6),)),
    "average pool 3d": (ops.AveragePool((2, 3, 1), (2, 1, 1), (0, 1, 0), False, True, 5), ((2, 3, 4, 5, 3),)),
    "adaptive average": (ops.AdaptiveAverage((3, 2)), ((2, 3, 7, 5),)),
    "adaptive average 3d": (ops.AdaptiveAverage((2, 3, 1)), ((2, 3, 4, 5, 3),)),
    "mean": (ops.Mean((-3, -1), keepdim=False), ((2, 3, 4, 5),)),
    "length": (ops.VectorNorm((-2,), keepdim=False), ((2, 3, 4, 5),)),
    "length over two axes": (ops.VectorNorm((-3, -1), keepdim=False), ((2, 3, 4, 5),)),
    "nearest": (ops.Interpolate("nearest", (7, 4), (None, None)), ((2, 3, 4, 5),)),
    "nearest-exact": (ops.Interpolate("nearest-exact", (7, 4), (None, None)), ((2, 3, 4, 5),)),
    "rearranged": (ops.Rearrange("index", (2, 3)), ((2, 3, 4, 5),)),
}
ALL = {name: operation for name, (operation, _) in (ACTIVATIONS | OTHERS).items()} | {
    "quotient": ops.Divide()
}


def inputs_of(name: str) -> tuple[Tensor, ...]:
    if name == "quotient":
        return images(2, 3, 4), images(2, 3, 4, seed=1).exp()
    if name in ("reciprocal", "root"):
        return (images(2, 3, 4).exp(),)
    shapes = OTHERS[name][1] if name in OTHERS else ((2, 3, 4, 5),)
    return tuple(3 * images(*shape, seed=seed) for seed, shape in enumerate(shapes))


@pytest.mark.parametrize("name", ALL)
def test_gradient(name: str) -> None:
    check_gradient(ALL[name], *inputs_of(name), tensors=TENSORS)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation(name: str) -> None:
    operation, function = ACTIVATIONS[name]
    (x,) = inputs_of(name)
    assert torch.allclose(operation.forward([x], {})[0], function(x), rtol=1e-12)


@pytest.mark.parametrize("name", ["threshold", "hard shrinkage", "soft shrinkage"])
def test_at_its_limit_a_value_is_not_beyond_it(name: str) -> None:
    operation, function = ACTIVATIONS[name]
    x = torch.tensor([[-0.5, 0.5]])
    output, beyond = operation.forward([x], {})
    assert torch.equal(output, function(x))
    assert not beyond.any()


@pytest.mark.parametrize(
    "bounds", [(-inf, inf), (0.0, inf), (-0.3, 2.0), (0.0, 1.0), (-4.0, -1.0), (0.5, 2.5)]
)
@pytest.mark.parametrize("name", ALL)
def test_no_output_leaves_its_interval(name: str, bounds: tuple[float, float]) -> None:
    operation: Operation = ALL[name]
    values = [x.clamp(*bounds) for x in inputs_of(name)]
    if name == "quotient" and bounds[0] < 0:
        values[1] = values[1].abs() + 0.1  # not zero
    low, high = operation.interval([bounds] * len(values), TENSORS)
    output, _ = operation.forward(values, TENSORS)
    assert low <= high
    assert bool((output >= low - 1e-9).all())
    assert bool((output <= high + 1e-9).all())


@pytest.mark.parametrize(
    ("operation", "inputs", "expected"),
    [
        (ops.Sigmoid(), [(-inf, inf)], (0.0, 1.0)),
        (ops.HardSigmoid(), [(-inf, inf)], (0.0, 1.0)),
        (ops.Tanh(), [(-inf, inf)], (-1.0, 1.0)),
        (ops.Tanh(), [(0.0, inf)], (0.0, 1.0)),
        (ops.Softmax(-1), [(-inf, inf)], (0.0, 1.0)),
        (ops.SiLU(), [(0.0, inf)], (0.0, inf)),
        (ops.HardTanh(0.0, 6.0), [(-inf, inf)], (0.0, 6.0)),
        (ops.Multiply(), [(0.0, 1.0), (-2.0, inf)], (-2.0, inf)),
        (ops.Multiply(), [(0.0, inf), (0.0, inf)], (0.0, inf)),
        (ops.Add(), [(0.0, 1.0), (-inf, 2.0)], (-inf, 3.0)),
        (ops.Concatenate(1), [(0.0, 1.0), (0.5, 2.0)], (0.0, 2.0)),
        (ops.Pad((1, 1), 0.0), [(0.5, 2.0)], (0.0, 2.0)),
        (ops.Mean((-1,), keepdim=False), [(0.0, 1.0)], (0.0, 1.0)),
        (ops.Shrink(0.5, soft=True), [(1.0, 2.0)], (0.0, 2.0)),
        (ops.Absolute(), [(-3.0, -1.0)], (1.0, 3.0)),
    ],
)
def test_interval_is_as_tight_as_it_should_be(
    operation: Operation, inputs: list[tuple[float, float]], expected: tuple[float, float]
) -> None:
    assert operation.interval(inputs, {}) == expected
