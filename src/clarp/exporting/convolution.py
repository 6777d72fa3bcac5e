"""Convolutions and products with weights that serve the forward and the backward pass, as ONNX operators."""

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from onnx import numpy_helper
from onnxscript import opset18 as op


def convolution(  # noqa: PLR0917  as ATen has them
    input: Any,  # noqa: A002
    weight: Any,
    bias: Any = None,
    stride: Sequence[int] = (1,),
    padding: Sequence[int] = (0,),
    dilation: Sequence[int] = (1,),
    transposed: bool = False,
    output_padding: Sequence[int] = (0,),
    groups: int = 1,
) -> Any:
    """``aten.convolution``.

    A transposed convolution with stride 1 is a convolution with the weight's channels exchanged and its axes
    reversed. Runtimes have fast convolutions, and make such a weight once, when they load the file.
    """
    outputs, inputs, *kernel = (int(size) for size in weight.shape)
    steps, pads, apart, more = (
        _each(given, len(kernel)) for given in (stride, padding, dilation, output_padding)
    )
    shared: Any = {"dilations": apart, "group": groups, "kernel_shape": kernel}
    if not transposed:
        return op.Conv(input, weight, bias, strides=steps, pads=[*pads, *pads], **shared)
    around = [gap * (size - 1) - pad for gap, size, pad in zip(apart, kernel, pads, strict=True)]
    if prod(steps) == 1 and not any(more) and min(around) >= 0:
        turned = _turned(weight, groups, (outputs, inputs, *kernel))
        return op.Conv(input, turned, bias, strides=steps, pads=[*around, *around], **shared)
    # A copy: OpenVINO confuses two kinds of operation that read one weight as wide as it is high.
    copied = _reversed(_reversed(weight, kernel), kernel)
    return op.ConvTranspose(
        input, copied, bias, strides=steps, pads=[*pads, *pads], output_padding=more, **shared
    )


def _each(given: Sequence[int], axes: int) -> list[int]:
    return list(given) * axes if len(given) == 1 else list(given)


def _turned(weight: Any, groups: int, sizes: Sequence[int]) -> Any:
    """A weight (g I, O, ...) of a transposed convolution as that of a convolution, (g O, I, ...)."""
    inputs, outputs, *kernel = sizes
    if groups == 1:
        exchanged = op.Transpose(weight, perm=[1, 0, *range(2, len(sizes))])
    elif inputs == groups and outputs == 1:
        exchanged = weight
    else:
        apart = op.Reshape(weight, _whole([groups, inputs // groups, outputs, *kernel]))
        exchanged = op.Transpose(apart, perm=[0, 2, 1, *range(3, len(sizes) + 1)])
        exchanged = op.Reshape(exchanged, _whole([groups * outputs, inputs // groups, *kernel]))
    return _reversed(exchanged, kernel)


def _reversed(weight: Any, kernel: Sequence[int]) -> Any:
    """A weight with the kernel's axes reversed."""
    axes = [axis for axis, size in enumerate(kernel, 2) if size > 1] or [2]
    ends = (_whole([value] * len(axes)) for value in (-1, np.iinfo(np.int64).min, -1))
    first, last, step = ends
    return op.Slice(weight, first, last, _whole(axes), step)


def _whole(values: Sequence[int]) -> Any:
    return op.Constant(value=numpy_helper.from_array(np.array(values, np.int64)))
