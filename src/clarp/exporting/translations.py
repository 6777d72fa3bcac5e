"""Operations of ATen that PyTorch's ONNX exporter lacks, or writes slowly or wrongly, as ONNX operators.

An average pooling and an interpolation are a product with a matrix along each axis. The matrix is what the
operation makes of the identity. All sizes but the batch's are known when a file is written, so the matrices
are constants of it.
"""

from collections.abc import Callable, Sequence
from itertools import product
from math import prod
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from onnx import numpy_helper
from onnxscript import opset18 as op
from torch import Tensor

aten = torch.ops.aten
NEAREST_EXACT = aten._upsample_nearest_exact1d.default  # noqa: SLF001  an ATen name


def _constant(values: Any) -> Any:
    return op.Constant(value=numpy_helper.from_array(np.ascontiguousarray(values)))


def _sizes(value: Any, axes: int) -> tuple[int, ...]:
    """The last axes of a value."""
    return tuple(int(side) for side in value.shape[-axes:])


def _product(value: Any, matrices: Sequence[Tensor]) -> Any:
    """A value (N, C, h, w) times each axis' matrix (H, h), to (N, C, H, W); with three axes likewise."""
    if len(matrices) == 2:
        rows, columns = matrices[0].numpy(), matrices[1].t().numpy()
        if rows.shape[1] == columns.shape[0] == 1:  # an outer product, which OpenVINO has wrong as MatMul
            return op.Mul(op.Mul(_constant(rows), value), _constant(columns))
        return op.MatMul(op.MatMul(_constant(rows), value), _constant(columns))
    constants = [_constant(matrix.numpy()) for matrix in matrices]
    return op.Einsum(value, *constants, equation="ncdhw,Dd,Hh,Ww->ncDHW")


def _per_axis(given: Sequence[int], axes: int) -> tuple[int, ...]:
    return tuple(given) * axes if len(given) == 1 else tuple(given)


def avg_pool_backward(  # noqa: PLR0917  as ATen has them
    grad_output: Any,
    self: Any,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None = None,
) -> Any:
    """Of (N, C, h, w) or (N, C, d, h, w); a window's count is the product of its counts along the axes."""
    axes = len(grad_output.shape) - 2
    windows = (_per_axis(kernel_size, axes), _per_axis(stride or kernel_size, axes), _per_axis(padding, axes))
    matrices = []
    for side, size, step, pad in zip(_sizes(self, axes), *windows, strict=True):
        matrix = F.avg_pool1d(torch.eye(side), size, step, pad, bool(ceil_mode), bool(count_include_pad))
        matrices.append(matrix if divisor_override is None else (matrix > 0).float())
    if divisor_override is not None:
        matrices[0] = matrices[0] / divisor_override
    return _product(grad_output, matrices)


def _adaptive(whole: Sequence[int], sizes: Sequence[int]) -> list[Tensor]:
    """The matrix (H, h) of the gradient along each axis."""
    sides = zip(whole, sizes, strict=True)
    return [F.adaptive_avg_pool1d(torch.eye(side), int(size)) for side, size in sides]


def adaptive_avg_pool3d(self: Any, output_size: Sequence[int]) -> Any:
    """Of (N, C, D, H, W); the exporter knows sizes that divide the input's alone."""
    return _product(self, [matrix.t() for matrix in _adaptive(_sizes(self, 3), output_size)])


def adaptive_avg_pool_backward(grad_output: Any, self: Any) -> Any:
    """Of (N, C, h, w) or (N, C, d, h, w)."""
    axes = len(grad_output.shape) - 2
    return _product(grad_output, _adaptive(_sizes(self, axes), _sizes(grad_output, axes)))


def _nearest(
    function: Callable[..., Tensor], whole: Sequence[int], size: Sequence[int], scales: Any
) -> list[Tensor]:
    """The matrix (H, h) of the gradient along each axis."""
    sides = zip(whole, size, scales, strict=True)
    return [function(torch.eye(int(i))[None], [int(o)], scale)[0] for i, o, scale in sides]


def upsample_nearest2d_backward(
    grad_output: Any,
    output_size: Sequence[int],
    input_size: Sequence[int],
    scales_h: float | None = None,
    scales_w: float | None = None,
) -> Any:
    """Of (N, C, h, w)."""
    function = aten.upsample_nearest1d.default
    return _product(grad_output, _nearest(function, input_size[2:], output_size, (scales_h, scales_w)))


def upsample_nearest_exact2d(
    self: Any, output_size: Sequence[int], scales_h: float | None = None, scales_w: float | None = None
) -> Any:
    """Of (N, C, H, W)."""
    matrices = _nearest(NEAREST_EXACT, _sizes(self, 2), output_size, (scales_h, scales_w))
    return _product(self, [matrix.t() for matrix in matrices])


def upsample_nearest_exact2d_backward(
    grad_output: Any,
    output_size: Sequence[int],
    input_size: Sequence[int],
    scales_h: float | None = None,
    scales_w: float | None = None,
) -> Any:
    """Of (N, C, h, w)."""
    scales = (scales_h, scales_w)
    return _product(grad_output, _nearest(NEAREST_EXACT, input_size[2:], output_size, scales))


def max_pool_backward(  # noqa: PLR0917
    grad_output: Any,
    self: Any,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool,
    indices: Any,
) -> Any:
    """Of (N, C, h, w) or (N, C, d, h, w): each gradient is added at its window's greatest value."""
    del padding, ceil_mode
    axes = len(grad_output.shape) - 2
    sizes = _sizes(self, axes)
    kernel = _per_axis(kernel_size, axes)
    windows = zip(kernel, _per_axis(stride or kernel, axes), _per_axis(dilation, axes), strict=True)
    apart = all(step > between * (size - 1) for size, step, between in windows)
    flat = _constant(np.array([0, 0, -1], np.int64))
    gradient, places = op.Reshape(grad_output, flat), op.Reshape(indices, flat)
    leading = op.Shape(gradient, start=0, end=2)
    shape = op.Concat(leading, _constant(np.array([prod(sizes)], np.int64)), axis=0)
    empty: Any = op.ConstantOfShape(shape)  # zeros, float32
    reduction = "none" if apart else "add"
    filled = op.ScatterElements(empty, places, gradient, axis=2, reduction=reduction)
    return op.Reshape(filled, _constant(np.array([0, 0, *sizes], np.int64)))


def sum_along(self: Any, dim: Sequence[int] | None = None, keepdim: bool = False, dtype: int = -1) -> Any:
    """Along each axis by itself, the last first.

    ONNX Runtime in a browser adds the numbers of several axes one after the other: a sum of a million is
    wrong in the fourth digit, and takes longer.
    """
    rank = len(self.shape)
    axes = sorted({axis % rank for axis in dim or range(rank)}, reverse=True) if rank else []
    total = self
    for axis in axes:
        total = op.ReduceSum(total, _constant(np.array([axis], np.int64)), keepdims=int(keepdim))
    if dtype is not None and dtype != -1:
        return op.Cast(total, to=dtype)
    return total if axes else op.Identity(total)


def elu(self: Any, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> Any:
    """``scale (max(0, x) + alpha (exp(rate min(0, x)) - 1))``; the exporter has the rate above zero, too."""
    below = op.Mul(op.Min(self, _constant(np.float32(0))), _constant(np.float32(input_scale)))
    both = op.Add(op.Relu(self), op.Elu(below, alpha=float(alpha)))
    return op.Mul(both, _constant(np.float32(scale)))


def silu_backward(grad_output: Any, self: Any) -> Any:
    """``g s (1 + x (1 - s))`` with the sigmoid s."""
    one, s = _constant(np.float32(1)), op.Sigmoid(self)
    return op.Mul(grad_output, op.Mul(s, op.Add(one, op.Mul(self, op.Sub(one, s)))))


def mish_backward(grad_output: Any, self: Any) -> Any:
    """``g (t + x s (1 - t^2))`` with ``t = tanh(softplus(x))`` and the sigmoid s."""
    one, s, t = _constant(np.float32(1)), op.Sigmoid(self), op.Tanh(op.Softplus(self))
    return op.Mul(grad_output, op.Add(t, op.Mul(op.Mul(self, s), op.Sub(one, op.Mul(t, t)))))


def adaptive_max_pool(self: Any, output_size: Sequence[int]) -> tuple[Any, Any]:
    """Of (N, C, H, W) or (N, C, D, H, W): the greatest value of each window, and its place in the image."""
    sizes = _sizes(self, len(output_size))
    places = _windows(sizes, [int(size) for size in output_size])
    count, longest = places.shape
    flat = op.Reshape(self, _constant(np.array([0, 0, -1], np.int64)))
    values = op.Gather(flat, _constant(places), axis=2)
    winners = op.ArgMax(values, axis=3, keepdims=0)
    starts = _constant(np.arange(0, count * longest, longest))
    chosen = op.Gather(_constant(places.ravel()), op.Add(winners, starts))
    shape = _constant(np.array([0, 0, *output_size], np.int64))
    greatest = op.ReduceMax(values, _constant(np.array([3], np.int64)), keepdims=0)
    return op.Reshape(greatest, shape), op.Reshape(chosen, shape)


def _windows(sizes: Sequence[int], output: Sequence[int]) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    """The places in the flat image of each window of an adaptive pooling, its first one again at its end."""
    sides = [
        [range(i * size // count, -(-(i + 1) * size // count)) for i in range(count)]
        for size, count in zip(sizes, output, strict=True)
    ]
    places = np.arange(prod(sizes)).reshape(*sizes)
    windows = [places[np.ix_(*window)].ravel() for window in product(*sides)]
    longest = max(map(len, windows))
    return np.stack([np.append(w, np.repeat(w[:1], longest - len(w))) for w in windows])


TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    aten.elu.default: elu,
    aten.silu_backward.default: silu_backward,
    aten.mish_backward.default: mish_backward,
    aten.sum.dim_IntList: sum_along,
    aten.avg_pool2d_backward.default: avg_pool_backward,
    aten.avg_pool3d_backward.default: avg_pool_backward,
    aten._adaptive_avg_pool3d.default: adaptive_avg_pool3d,  # noqa: SLF001
    aten._adaptive_avg_pool2d_backward.default: adaptive_avg_pool_backward,  # noqa: SLF001
    aten._adaptive_avg_pool3d_backward.default: adaptive_avg_pool_backward,  # noqa: SLF001
    aten.upsample_nearest2d_backward.default: upsample_nearest2d_backward,
    aten._upsample_nearest_exact2d.default: upsample_nearest_exact2d,  # noqa: SLF001
    aten._upsample_nearest_exact2d_backward.default: upsample_nearest_exact2d_backward,  # noqa: SLF001
    aten.adaptive_max_pool2d.default: adaptive_max_pool,
    aten.adaptive_max_pool3d.default: adaptive_max_pool,
    aten.max_pool2d_with_indices_backward.default: max_pool_backward,
    aten.max_pool3d_with_indices_backward.default: max_pool_backward,
}
