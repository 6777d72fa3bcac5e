"""A whole network propagated by hand: every linear layer an explicit matrix, every sample by itself.

``walk`` runs forwards and returns, with the output, a function that takes the relevance *and* the gradient of the
output back to the input at once; selection is the only place where the two meet.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from torch import nn

from oracle import linear
from oracle.blocks import Back, Block
from oracle.linear import Array, Rule
from oracle.nets import Residual
from oracle.nonlinear import add_proportional, add_ratio, max_pool, winner_takes_all

CONVOLUTIONS = (nn.modules.conv._ConvNd,)
AVERAGES = (nn.modules.pooling._AvgPoolNd, nn.modules.pooling._AdaptiveAvgPoolNd, nn.Upsample)
NORM = nn.modules.batchnorm._BatchNorm
WEIGHTED = (*CONVOLUTIONS, nn.Linear)
Select = Callable[[nn.Module, Array, Array], Array]
Modulate = Callable[[nn.Module, Array], Array]


@dataclass(frozen=True)
class Twin:
    """Which formula each kind of operation follows.

    ``select(convolution, R, g)`` changes the relevance of a convolution's output by the gradient there;
    ``modulate(convolution, g)`` is what the rule's input is multiplied with, by the gradient at the input (right only
    where nothing else reads that input: the oracle does not add up the gradients of other readers).
    ``bias_counts``: whether the convolutions' rule gives the bias a share, and a batch norm on its own follows it.
    """

    convolution: Rule
    dense: Rule
    first: Rule | None = None
    residual: Callable[[Array, Array, Array], tuple[Array, Array]] = add_ratio
    select: Select | None = None
    modulate: Modulate | None = None
    bias_counts: bool = False


def composites(low: Array, high: Array) -> dict[str, Twin]:
    """The named composites, for images whose pixels lie between ``low`` and ``high`` (flat arrays as long as the image)."""
    tiny = partial(linear.epsilon, epsilon=1e-6)
    box = partial(linear.zbox, low=low, high=high)
    alpha2 = partial(linear.alpha_beta, alpha=2.0, beta=1.0)
    return {
        "zplus-box": Twin(linear.zplus, linear.zplus, box),
        "epsilon-plus": Twin(linear.zplus, tiny),
        "epsilon-plus-box": Twin(linear.zplus, tiny, box),
        "epsilon-plus-flat": Twin(linear.zplus, tiny, linear.flat),
        "epsilon-alpha2-beta1": Twin(alpha2, tiny),
        "epsilon-alpha2-beta1-flat": Twin(alpha2, tiny, linear.flat),
        "epsilon-gamma-box": Twin(partial(linear.gamma, gamma=0.25), tiny, box, bias_counts=True),
        "gamma-alpha2-wsquare": Twin(
            partial(linear.gamma, gamma=0.25), alpha2, linear.wsquare, bias_counts=True
        ),
        "zero": Twin(linear.zero, linear.zero, bias_counts=True),
        "epsilon": Twin(tiny, tiny, bias_counts=True),
    }


RESIDUALS = {"ratio": add_ratio, "proportional": add_proportional}


def propagate(
    model: nn.Module, image: Array, seed: Array, twin: Twin, gradient: Array | None = None
) -> Array:
    """The relevance (C, H, W) of one image (C, H, W) for the initial relevance ``seed`` (N,) of its logits."""
    _, back = walk(model, image, twin, pixels=True)
    relevance, _ = back(seed, np.zeros_like(seed) if gradient is None else gradient)
    return relevance


def logits(model: nn.Module, image: Array) -> Array:
    """The model's output (N,) for one image (C, H, W), by the explicit matrices."""
    output, _ = walk(model, image, Twin(linear.zero, linear.zero), pixels=True)
    return output


def walk(module: nn.Module, x: Array, twin: Twin, *, pixels: bool) -> tuple[Array, Back]:
    """The output of ``module`` for one sample, and the way back. ``pixels``: whether ``x`` is the image itself."""
    if isinstance(module, nn.Sequential):
        return _chain(module, x, twin, pixels=pixels)
    if isinstance(module, Residual):
        return _residual(module, x, twin, pixels=pixels)
    if isinstance(module, Block):
        return module.twin(x, partial(walk, twin=twin, pixels=False), twin.residual)
    if isinstance(module, NORM):  # that no convolution took in
        return _linear(module, x, twin.convolution if twin.bias_counts else _passed)
    if isinstance(module, AVERAGES):
        return _linear(module, x, linear.norm)
    return _simple(module, x)


def _passed(layer: linear.Affine, x: Array, R: Array) -> Array:
    """Where a rule leaves the bias out, one number in and one number out hands everything on."""
    del layer, x
    return R


def _simple(module: nn.Module, x: Array) -> tuple[Array, Back]:
    """What has no weights: the relevance only finds its way back."""
    if isinstance(module, nn.ReLU | nn.ReLU6):
        top = 6.0 if isinstance(module, nn.ReLU6) else np.inf
        slope = (x > 0) & (x < top)
        return np.clip(x, 0.0, top), lambda R, g: (R, g * slope)
    if isinstance(module, nn.modules.pooling._MaxPoolNd):
        y, winners = max_pool(module, x)
        return y, lambda R, g: (winner_takes_all(winners, R, x.shape), winner_takes_all(winners, g, x.shape))
    if isinstance(module, nn.Flatten):
        return x.reshape(-1), lambda R, g: (R.reshape(x.shape), g.reshape(x.shape))
    if isinstance(module, nn.Identity | nn.Dropout):
        return x, lambda R, g: (R, g)
    raise TypeError(type(module))


def _affine_runs(module: nn.Sequential) -> Iterator[nn.Module]:
    """The layers in order; a convolution or dense layer and the batch norm after it are one affine map."""
    layers = list(module)
    while layers:
        layer = layers.pop(0)
        while layers and isinstance(layer, (*WEIGHTED, nn.Sequential)) and isinstance(layers[0], NORM):
            layer = nn.Sequential(*(layer if isinstance(layer, nn.Sequential) else [layer]), layers.pop(0))
        yield layer


def _chain(module: nn.Sequential, x: Array, twin: Twin, *, pixels: bool) -> tuple[Array, Back]:
    backs: list[Back] = []
    for layer in _affine_runs(module):
        core = layer[0] if isinstance(layer, nn.Sequential) and len(layer) else layer
        if isinstance(core, WEIGHTED):
            convolution = isinstance(core, CONVOLUTIONS)
            rule = twin.convolution if convolution else twin.dense
            rule = twin.first if pixels and twin.first else rule
            select = partial(twin.select, core) if convolution and twin.select else None
            modulate = partial(twin.modulate, core) if convolution and twin.modulate and not pixels else None
            x, back = _linear(layer, x, rule, select, modulate)
        else:
            x, back = walk(layer, x, twin, pixels=pixels)
        pixels = pixels and isinstance(layer, nn.Identity | nn.Flatten | nn.Dropout)
        backs.append(back)

    def all_back(R: Array, g: Array) -> tuple[Array, Array]:
        for step in reversed(backs):
            R, g = step(R, g)
        return R, g

    return x, all_back


def _linear(
    layer: nn.Module,
    x: Array,
    rule: Rule,
    select: Callable[[Array, Array], Array] | None = None,
    modulate: Callable[[Array], Array] | None = None,
) -> tuple[Array, Back]:
    matrix = linear.affine(layer, x.shape)

    def back(R: Array, g: Array) -> tuple[Array, Array]:
        below = (g.reshape(-1) @ matrix.weight).reshape(x.shape)
        R = select(R, g) if select else R
        read = x * modulate(below) if modulate else x
        return rule(matrix, read.reshape(-1), R.reshape(-1)).reshape(x.shape), below

    return matrix(x.reshape(-1)).reshape(matrix.output_shape), back


def _residual(module: Residual, x: Array, twin: Twin, *, pixels: bool) -> tuple[Array, Back]:
    body, body_back = walk(_sequence(module.body), x, twin, pixels=pixels)
    shortcut, shortcut_back = walk(_sequence(module.shortcut), x, twin, pixels=pixels)

    def back(R: Array, g: Array) -> tuple[Array, Array]:
        left, right = twin.residual(body.reshape(-1), shortcut.reshape(-1), R.reshape(-1))
        one, two = body_back(left.reshape(R.shape), g), shortcut_back(right.reshape(R.shape), g)
        return one[0] + two[0], one[1] + two[1]

    return body + shortcut, back


def _sequence(module: nn.Module) -> nn.Sequential:
    return module if isinstance(module, nn.Sequential) else nn.Sequential(module)
