"""Blocks of modern networks, each in the spellings of ``nets``, and how each hands relevance on, written out.

A twin gets the walk through a part of the network from the caller, and returns the block's output and the way back.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from oracle.linear import Array

Back = Callable[[Array, Array], tuple[Array, Array]]
Walk = Callable[[nn.Module, Array], tuple[Array, Back]]


class Block(nn.Module):
    """A block of ``channels`` in, spelled as a "module", "functional" or "inplace"."""

    def __init__(self, channels: int, spelling: str) -> None:
        super().__init__()
        self.channels, self.spelling = channels, spelling

    def twin(self, x: Array, walk: Walk, add: Callable[..., tuple[Array, Array]]) -> tuple[Array, Back]:
        """The output for one sample (C, H, W), and the way back."""
        raise NotImplementedError


class Gated(Block):
    """Squeeze and excite: ``x sigmoid(w x_mean + b)``. The gate is a weight: all relevance goes to x."""

    def __init__(self, channels: int, spelling: str) -> None:
        super().__init__(channels, spelling)
        self.squeeze = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        if self.spelling == "module":
            return x * torch.sigmoid(self.squeeze(x))
        gate = self.squeeze[1](x.mean((2, 3), keepdim=True))
        return (
            torch.mul(gate.sigmoid().expand_as(x), x)
            if self.spelling == "functional"
            else gate.sigmoid_().mul(x)
        )

    def twin(self, x: Array, walk: Walk, add: Callable[..., tuple[Array, Array]]) -> tuple[Array, Back]:
        squeezed, squeezed_back = walk(self.squeeze, x)
        gate = 1 / (1 + np.exp(-squeezed))

        def back(R: Array, g: Array) -> tuple[Array, Array]:
            to_gate = (g * x).sum((1, 2), keepdims=True) * gate * (1 - gate)
            _, through = squeezed_back(np.zeros_like(to_gate), to_gate)
            return R, g * gate + through

        return x * gate, back


class Product(Block):
    """``conv(x) conv'(x)``: two signals, half of the relevance each."""

    def __init__(self, channels: int, spelling: str) -> None:
        super().__init__(channels, spelling)
        self.one, self.other = (nn.Sequential(nn.Conv2d(channels, channels, 1)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.one(x), self.other(x)
        return {"module": torch.mul, "functional": torch.multiply, "inplace": Tensor.mul_}[self.spelling](
            a, b
        )

    def twin(self, x: Array, walk: Walk, add: Callable[..., tuple[Array, Array]]) -> tuple[Array, Back]:
        a, one_back = walk(self.one, x)
        b, other_back = walk(self.other, x)

        def back(R: Array, g: Array) -> tuple[Array, Array]:
            of_one, of_other = one_back(R / 2, g * b), other_back(R / 2, g * a)
            return of_one[0] + of_other[0], of_one[1] + of_other[1]

        return a * b, back


class Joined(Block):
    """Dense concatenation, and a pointwise convolution back: ``relu(conv([x, relu(conv(x))]))``."""

    def __init__(self, channels: int, spelling: str) -> None:
        super().__init__(channels, spelling)
        self.body = nn.Sequential(nn.Conv2d(channels, 2, 3, padding=1), nn.ReLU())
        self.joint = nn.Sequential(nn.Conv2d(channels + 2, channels, 1), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        if self.spelling == "functional":
            return self.joint(torch.cat((x, F.relu(self.body[0](x))), -3))
        return self.joint(torch.cat([x, self.body(x)], 1))

    def twin(self, x: Array, walk: Walk, add: Callable[..., tuple[Array, Array]]) -> tuple[Array, Back]:
        new, new_back = walk(self.body, x)
        y, joint_back = walk(self.joint, np.concatenate([x, new]))

        def back(R: Array, g: Array) -> tuple[Array, Array]:
            R, g = joint_back(R, g)
            relevance, gradient = new_back(R[len(x) :], g[len(x) :])
            return R[: len(x)] + relevance, g[: len(x)] + gradient

        return y, back


class Grown(Block):
    """Dense concatenation as in a DenseNet: each layer reads all before it, and the channels grow."""

    def __init__(self, channels: int, spelling: str) -> None:
        super().__init__(channels, spelling)
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(width, 1, 3, padding=1, bias=False),
                nn.BatchNorm2d(1),
                nn.ReLU(inplace=spelling == "inplace"),
            )
            for width in (channels, channels + 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.spelling == "functional":
            parts = [x]
            for conv, norm, _ in self.layers:
                parts.append(torch.relu(norm(conv(torch.concat(parts, -3)))))
            return torch.concat(parts, -3)
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return x

    def twin(self, x: Array, walk: Walk, add: Callable[..., tuple[Array, Array]]) -> tuple[Array, Back]:
        backs = []
        for layer in self.layers:
            new, new_back = walk(layer, x)
            backs.append((len(x), new_back))
            x = np.concatenate([x, new])

        def back(R: Array, g: Array) -> tuple[Array, Array]:
            for width, new_back in reversed(backs):
                relevance, gradient = new_back(R[width:], g[width:])
                R, g = R[:width] + relevance, g[:width] + gradient
            return R, g

        return x, back


class Shuffled(Block):
    """Half of the channels through a convolution, half as they are; then the channels of both interleaved (ShuffleNet)."""

    def __init__(self, channels: int, spelling: str) -> None:
        super().__init__(channels, spelling)
        self.half = channels // 2
        self.body = nn.Sequential(nn.Conv2d(self.half, self.half, 1), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        if self.spelling == "functional":
            x = torch.cat([x[:, : self.half], self.body(x.narrow(1, self.half, self.half))], 1)
            return F.channel_shuffle(x, 2)
        a, b = x.chunk(2, 1) if self.spelling == "module" else x.split([self.half, self.half], 1)
        x = torch.stack([a, self.body(b)], 2)
        return x.flatten(1, 2)

    def twin(self, x: Array, walk: Walk, add: Callable[..., tuple[Array, Array]]) -> tuple[Array, Back]:
        y, body_back = walk(self.body, x[self.half :])
        out = np.empty_like(x)
        out[0::2], out[1::2] = x[: self.half], y

        def back(R: Array, g: Array) -> tuple[Array, Array]:
            relevance, gradient = body_back(R[1::2].copy(), g[1::2].copy())
            return np.concatenate([R[0::2], relevance]), np.concatenate([g[0::2], gradient])

        return out, back


class Broadcast(Block):
    """``x + conv(x_mean)``, the second summand broadcast over all positions."""

    def __init__(self, channels: int, spelling: str) -> None:
        super().__init__(channels, spelling)
        self.context = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        if self.spelling == "module":
            return x + self.context(x)
        context = self.context[1](x.mean((2, 3), keepdim=True))
        return torch.add(x, context) if self.spelling == "functional" else x.clone().add_(context)

    def twin(self, x: Array, walk: Walk, add: Callable[..., tuple[Array, Array]]) -> tuple[Array, Back]:
        context, context_back = walk(self.context, x)

        def back(R: Array, g: Array) -> tuple[Array, Array]:
            wide = np.broadcast_to(context, x.shape)
            left, right = (
                part.reshape(x.shape) for part in add(x.reshape(-1), wide.reshape(-1), R.reshape(-1))
            )
            relevance, gradient = context_back(right.sum((1, 2), keepdims=True), g.sum((1, 2), keepdims=True))
            return left + relevance, g + gradient

        return x + context, back


class Smooth(Block):
    """A smooth or leaky activation: relevance passes unchanged."""

    def __init__(self, channels: int, spelling: str, kind: str) -> None:
        super().__init__(channels, spelling)
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "silu":
            return {
                "module": F.silu,
                "functional": lambda v: v * v.sigmoid(),
                "inplace": nn.SiLU(inplace=True),
            }[self.spelling](x)
        if self.kind == "gelu":
            return F.gelu(x) if self.spelling == "module" else x * ((1 + (x / 2**0.5).erf()) / 2)
        return F.leaky_relu(x, 0.1, inplace=self.spelling == "inplace")

    def twin(self, x: Array, walk: Walk, add: Callable[..., tuple[Array, Array]]) -> tuple[Array, Back]:
        y, slope = np.empty_like(x), np.empty_like(x)
        for place in np.ndindex(*x.shape):
            y[place], slope[place] = FORMULAS[self.kind](float(x[place]))
        return y, lambda R, g: (R, g * slope)


def _silu(v: float) -> tuple[float, float]:
    s = 1 / (1 + math.exp(-v))
    return v * s, s + v * s * (1 - s)


def _gelu(v: float) -> tuple[float, float]:
    p = (1 + math.erf(v / math.sqrt(2))) / 2
    return v * p, p + v * math.exp(-v * v / 2) / math.sqrt(2 * math.pi)


FORMULAS: dict[str, Callable[[float], tuple[float, float]]] = {
    "silu": _silu,
    "gelu": _gelu,
    "leaky": lambda v: (v, 1.0) if v > 0 else (0.1 * v, 0.1),
}

BLOCKS: dict[str, Callable[[int, str], Any]] = {
    "gate": Gated,
    "product": Product,
    "joined": Joined,
    "grown": Grown,
    "shuffle": Shuffled,
    "broadcast": Broadcast,
    "silu": lambda channels, spelling: Smooth(channels, spelling, "silu"),
    "gelu": lambda channels, spelling: Smooth(channels, spelling, "gelu"),
    "leaky": lambda channels, spelling: Smooth(channels, spelling, "leaky"),
}
