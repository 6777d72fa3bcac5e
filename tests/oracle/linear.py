"""One linear layer as an explicit matrix, and every rule as a loop over its outputs.

``x`` and ``R`` are flat float64 arrays of one sample: ``x`` the layer's input (n,), ``R`` the relevance of its
outputs (m,). Every rule returns the relevance of the inputs (n,). An output that has no contribution to divide by
(its denominator is exactly zero) hands on nothing.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

Array = NDArray[np.float64]
Rule = Callable[["Affine", Array, Array], Array]


@dataclass(frozen=True)
class Affine:
    """``f(x) = weight @ x + bias``; ``links`` is 1 where a weight exists (even if it is zero), else 0."""

    weight: Array
    bias: Array
    links: Array
    output_shape: tuple[int, ...]

    def __call__(self, x: Array) -> Array:
        return self.weight @ x + self.bias


def affine(layer: nn.Module, shape: tuple[int, ...]) -> Affine:
    """The matrix of ``layer`` for inputs of ``shape`` (without the batch), from its values at 0 and the unit vectors."""
    layer = copy.deepcopy(layer).double().eval()
    bias, weight = _columns(layer, shape)
    output_shape = tuple(layer(torch.zeros(1, *shape, dtype=torch.float64)).shape[1:])
    weighted = [m for m in layer.modules() if isinstance(m, nn.modules.conv._ConvNd | nn.Linear)]
    if not weighted:
        return Affine(weight, bias, (weight != 0).astype(np.float64), output_shape)
    (module,) = weighted
    nn.init.ones_(module.weight)
    if module.bias is not None:
        nn.init.zeros_(module.bias)
    _, ones = _columns(layer[0] if isinstance(layer, nn.Sequential) else layer, shape)
    return Affine(weight, bias, ones, output_shape)


def _columns(layer: nn.Module, shape: tuple[int, ...]) -> tuple[Array, Array]:
    size = int(np.prod(shape))
    with torch.no_grad():
        origin = layer(torch.zeros(1, *shape, dtype=torch.float64)).flatten()
        units = layer(torch.eye(size, dtype=torch.float64).reshape(size, *shape)).reshape(size, -1)
    return origin.numpy(), (units - origin).T.contiguous().numpy()


def positive(a: Array) -> Array:
    """``(a)+``."""
    return np.maximum(a, 0.0)


def negative(a: Array) -> Array:
    """``(a)-``."""
    return np.minimum(a, 0.0)


def _over(relevance: float, total: float) -> float:
    return 0.0 if total == 0.0 else relevance / total


def zero(layer: Affine, x: Array, R: Array) -> Array:
    """``R_i = sum_j x_i w_ij / (sum_i' x_i' w_i'j + b_j) R_j``."""
    result = np.zeros_like(x)
    for w, b, r in zip(layer.weight, layer.bias, R, strict=True):
        parts = x * w
        result += parts * _over(r, parts.sum() + b)
    return result


def epsilon(layer: Affine, x: Array, R: Array, *, epsilon: float) -> Array:
    """``R_i = sum_j x_i w_ij / (z_j + epsilon sign(z_j)) R_j`` with ``z_j`` including the bias and ``sign(0) = 1``."""
    result = np.zeros_like(x)
    for w, b, r in zip(layer.weight, layer.bias, R, strict=True):
        parts = x * w
        z = parts.sum() + b
        result += parts * r / (z + (epsilon if z >= 0 else -epsilon))
    return result


def norm(layer: Affine, x: Array, R: Array) -> Array:
    """``R_i = sum_j x_i w_ij / sum_i' x_i' w_i'j R_j``: the zero rule that knows no bias."""
    result = np.zeros_like(x)
    for w, r in zip(layer.weight, R, strict=True):
        parts = x * w
        result += parts * _over(r, parts.sum())
    return result


def zplus(layer: Affine, x: Array, R: Array) -> Array:
    """``R_i = sum_j (x_i w_ij)+ / sum_i' (x_i' w_i'j)+ R_j``: ``(xw)+ = x+ w+ + x- w-``."""
    result = np.zeros_like(x)
    for w, r in zip(layer.weight, R, strict=True):
        parts = positive(x * w)
        result += parts * _over(r, parts.sum())
    return result


def scaled_zplus(layer: Affine, x: Array, R: Array) -> Array:
    """z+ of ``f R``, ``f = sum_j |R_j|`` over all outputs through that over the outputs with a positive contribution."""
    some = np.array([positive(x * w).sum() > 0 for w in layer.weight])
    total, kept = np.abs(R).sum(), np.abs(R[some]).sum()
    return zplus(layer, x, R * (total / kept if kept > 0 else 1.0))


def alpha_beta(layer: Affine, x: Array, R: Array, *, alpha: float, beta: float) -> Array:
    """``R_i = sum_j (alpha (x_i w_ij)+ / sum(...)+ - beta (x_i w_ij)- / sum(...)-) R_j``."""
    result = np.zeros_like(x)
    for w, r in zip(layer.weight, R, strict=True):
        up, down = positive(x * w), negative(x * w)
        result += alpha * up * _over(r, up.sum()) - beta * down * _over(r, down.sum())
    return result


def gamma(layer: Affine, x: Array, R: Array, *, gamma: float) -> Array:
    """Gamma for inputs of either sign: the contributions that agree with the output's sign count ``1 + gamma`` times.

    ``R_i = sum_j (x_i w_ij + gamma (x_i w_ij)s) / (z_j + gamma sum_i' (x_i' w_i'j)s + gamma (b_j)s) R_j`` with ``s``
    the sign of the layer's own output ``z_j``; the bias is a contribution whose input is 1.
    """
    result = np.zeros_like(x)
    for w, b, r in zip(layer.weight, layer.bias, R, strict=True):
        plain = x * w
        z = plain.sum() + b
        if z == 0.0:
            continue
        agreeing = positive if z > 0 else negative
        parts = plain + gamma * agreeing(plain)
        result += parts * _over(r, parts.sum() + b + gamma * float(agreeing(np.asarray(b))))
    return result


def flat(layer: Affine, x: Array, R: Array) -> Array:
    """``R_i = sum_j 1 / n_j R_j`` over the ``n_j`` inputs that are linked with output j."""
    result = np.zeros_like(x)
    for link, r in zip(layer.links, R, strict=True):
        result += link * _over(r, link.sum())
    return result


def wsquare(layer: Affine, x: Array, R: Array) -> Array:
    """``R_i = sum_j w_ij^2 / sum_i' w_i'j^2 R_j``."""
    result = np.zeros_like(x)
    for w, r in zip(layer.weight, R, strict=True):
        result += w**2 * _over(r, (w**2).sum())
    return result


def zbox(layer: Affine, x: Array, R: Array, *, low: Array, high: Array) -> Array:
    """``R_i = sum_j (x_i w_ij - l_i w_ij+ - h_i w_ij-) / sum_i'(...) R_j``; ``low`` and ``high`` are as long as ``x``."""
    result = np.zeros_like(x)
    for w, r in zip(layer.weight, R, strict=True):
        parts = x * w - low * positive(w) - high * negative(w)
        result += parts * _over(r, parts.sum())
    return result
