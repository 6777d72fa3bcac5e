"""Each translation for ONNX, in ONNX Runtime, against ATen."""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim

from clarp.exporting.onnx_model import model_of
from clarp.exporting.translations import TRANSLATIONS
from oracle.calls import images

aten = torch.ops.aten


@dataclass(frozen=True)
class Case:
    """One call.

    Attributes:
        operation: what is translated, mostly the backward of another.
        shape: of what goes forward, without the batch.
        arguments: forward and backward alike.
        forward: what the operation is the backward of, for its output's shape and, of max pooling, the winners.
    """

    operation: Any
    shape: tuple[int, ...]
    arguments: tuple[Any, ...]
    forward: Callable[..., Any]

    def out_shape(self) -> tuple[int, ...]:
        y = self.forward(torch.zeros(1, *self.shape), *self.arguments)
        return tuple((y[0] if isinstance(y, tuple) else y).shape[1:])

    def __call__(self, x: Tensor, gradient: Tensor) -> Tensor:
        if self.operation in FORWARDS:
            y = self.operation(x, *self.arguments)
            return torch.cat([part.to(x) for part in y], 1) if isinstance(y, tuple) else y
        if self.operation in (NEAREST, EXACT):
            size, *scales = self.arguments
            return self.operation(gradient, list(size), [x.shape[0], *self.shape], *scales)
        if self.operation in (MAX_2D, MAX_3D):
            return self.operation(gradient, x, *self.arguments, self.forward(x, *self.arguments)[1])
        if self.operation in (ADAPTIVE_2D, ADAPTIVE_3D):
            return self.operation(gradient, x)
        return self.operation(gradient, x, *self.arguments)


AVERAGE_2D, AVERAGE_3D = aten.avg_pool2d_backward.default, aten.avg_pool3d_backward.default
ADAPTIVE_2D = aten._adaptive_avg_pool2d_backward.default
ADAPTIVE_3D = aten._adaptive_avg_pool3d_backward.default
NEAREST = aten.upsample_nearest2d_backward.default
EXACT = aten._upsample_nearest_exact2d_backward.default
EXACT_FORWARD = aten._upsample_nearest_exact2d.default
ADAPTIVE_3D_FORWARD = aten._adaptive_avg_pool3d.default
ADAPTIVE_MAX_2D, ADAPTIVE_MAX_3D = aten.adaptive_max_pool2d.default, aten.adaptive_max_pool3d.default
SUM = aten.sum.dim_IntList
FORWARDS = (SUM, aten.elu.default, EXACT_FORWARD, ADAPTIVE_3D_FORWARD, ADAPTIVE_MAX_2D, ADAPTIVE_MAX_3D)
MAX_2D = aten.max_pool2d_with_indices_backward.default
MAX_3D = aten.max_pool3d_with_indices_backward.default

# kernel, stride, padding, ceil_mode, count_include_pad, divisor_override
AVERAGES_2D = (
    ((7, 9), ([2], [], [0], False, True, None)),
    ((7, 9), ([3, 2], [2, 3], [1, 0], False, True, None)),
    ((7, 9), ([3, 2], [2, 3], [1, 0], False, False, None)),
    ((7, 10), ([3], [2], [1], True, True, None)),
    ((8, 10), ([3], [2], [1], True, False, None)),
    ((7, 9), ([3, 4], [1, 2], [1, 2], True, False, None)),
    ((7, 9), ([3, 2], [2, 3], [1, 0], False, True, 5)),
    ((7, 9), ([3, 2], [2, 3], [1, 0], True, False, 2)),
    ((8, 8), ([2], [3], [0], True, True, None)),
)
AVERAGES_3D = (
    ((4, 5, 6), ([2], [], [0], False, True, None)),
    ((4, 5, 6), ([2, 3, 3], [1, 2, 2], [0, 1, 1], True, True, None)),
    ((4, 5, 6), ([2, 3, 3], [1, 2, 2], [1, 1, 0], True, False, None)),
    ((4, 5, 6), ([2, 3, 2], [2, 2, 1], [0, 1, 1], False, False, 7)),
)
# kernel, stride, padding, dilation, ceil_mode
MAXIMA_2D = (
    ((8, 6), ([2, 2], [], [0, 0], [1, 1], False)),  # windows apart
    ((8, 6), ([2, 2], [2, 2], [1, 1], [1, 1], True)),
    ((7, 9), ([3, 3], [2, 2], [1, 1], [1, 1], False)),  # windows that overlap
    ((7, 9), ([3, 2], [1, 2], [1, 0], [1, 1], True)),
    ((9, 9), ([2, 2], [2, 2], [0, 0], [2, 2], False)),  # wider than their strides by their dilation
    ((9, 9), ([2, 3], [1, 1], [0, 1], [3, 2], False)),
)
MAXIMA_3D = (
    ((4, 6, 6), ([2, 2, 2], [], [0, 0, 0], [1, 1, 1], False)),
    ((4, 5, 7), ([2, 3, 3], [1, 2, 2], [0, 1, 1], [1, 1, 1], True)),
)
# size, scales along each axis
NEARESTS = (
    ((4, 5), ((8, 15), 2.0, 3.0)),
    ((4, 5), ((7, 3), None, None)),
    ((4, 5), ((9, 12), 2.3, 2.45)),
    ((6, 5), ((2, 5), 0.4, None)),
)
ADAPTED_2D = (((7, 9), (3, 4)), ((7, 9), (1, 1)), ((5, 4), (8, 4)), ((6, 6), (3, 2)))
ADAPTED_3D = (((5, 6, 7), (2, 3, 4)), ((4, 4, 4), (1, 1, 1)))


def cases() -> list[Case]:
    channels = 2

    def of(operation: Any, forward: Callable[..., Any], rows: Any) -> list[Case]:
        return [Case(operation, (channels, *shape), arguments, forward) for shape, arguments in rows]

    return [
        *of(SUM, SUM, [((3, 4, 5), ([1, 3],)), ((3, 4, 5), ([-1, 2], True)), ((6, 2), ([1],))]),
        *of(aten.elu.default, aten.elu.default, [((50,), (1.3, 0.8, 1.7))]),
        *of(aten.silu_backward.default, F.silu, [((50,), ())]),
        *of(aten.mish_backward.default, F.mish, [((50,), ())]),
        *of(AVERAGE_2D, F.avg_pool2d, AVERAGES_2D),
        *of(AVERAGE_3D, F.avg_pool3d, AVERAGES_3D),
        *of(MAX_2D, aten.max_pool2d_with_indices.default, MAXIMA_2D),
        *of(MAX_3D, aten.max_pool3d_with_indices.default, MAXIMA_3D),
        *of(NEAREST, aten.upsample_nearest2d.default, NEARESTS),
        *of(EXACT, EXACT_FORWARD, NEARESTS),
        *of(EXACT_FORWARD, EXACT_FORWARD, NEARESTS),
        *of(ADAPTIVE_2D, F.adaptive_avg_pool2d, [(shape, (size,)) for shape, size in ADAPTED_2D]),
        *of(ADAPTIVE_3D, F.adaptive_avg_pool3d, [(shape, (size,)) for shape, size in ADAPTED_3D]),
        *of(ADAPTIVE_MAX_2D, ADAPTIVE_MAX_2D, [(shape, (size,)) for shape, size in ADAPTED_2D]),
        *of(ADAPTIVE_MAX_3D, ADAPTIVE_MAX_3D, [(shape, (size,)) for shape, size in ADAPTED_3D]),
        *of(ADAPTIVE_3D_FORWARD, F.adaptive_avg_pool3d, [(shape, (size,)) for shape, size in ADAPTED_3D]),
    ]


CASES = cases()


class Backwards(nn.Module):
    """All cases in one program, so that there is one export: flat inputs and gradients to flat results."""

    def parts(self, flat: Tensor, shapes: list[tuple[int, ...]]) -> list[Tensor]:
        values = flat.split([prod(shape) for shape in shapes], 1)
        return [value.unflatten(1, shape) for value, shape in zip(values, shapes, strict=True)]

    def forward(self, inputs: Tensor, gradients: Tensor) -> tuple[Tensor, ...]:
        xs = self.parts(inputs, [case.shape for case in CASES])
        gs = self.parts(gradients, [case.out_shape() for case in CASES])
        return tuple(case(x, g) for case, x, g in zip(CASES, xs, gs, strict=True))


def sizes() -> tuple[int, int]:
    return sum(prod(case.shape) for case in CASES), sum(prod(case.out_shape()) for case in CASES)


@pytest.fixture(scope="module")
def session() -> onnxruntime.InferenceSession:
    example = tuple(torch.zeros(2, size) for size in sizes())
    batch = {0: Dim.DYNAMIC}
    program = torch.export.export(Backwards(), example, dynamic_shapes=(batch, batch), strict=False)
    model = model_of(program, tuple(f"y{number}" for number in range(len(CASES))))
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def test_there_is_a_case_for_each() -> None:
    assert {case.operation for case in CASES} == set(TRANSLATIONS)


@pytest.mark.parametrize("batch", [1, 3])
def test_translations(session: onnxruntime.InferenceSession, batch: int) -> None:
    inputs, gradients = (images(batch, size, seed=seed).float() for seed, size in enumerate(sizes()))
    expected = Backwards()(inputs, gradients)
    found = session.run(None, {"inputs": inputs.numpy(), "gradients": gradients.numpy()})
    wrong = [
        case
        for case, ours, theirs in zip(CASES, found, expected, strict=True)
        if not torch.allclose(torch.from_numpy(ours), theirs, rtol=1e-5, atol=1e-6)
    ]
    assert wrong == []
