"""Small networks, drawn at random, each in several spellings that mean the same.

A *plan* is a tuple of rows such as ``("conv", {...})``; ``build(plan, spelling)`` makes the model. The functional
modules subclass the modules that they spell, so that whoever reads the tree sees what they compute.
"""

from collections.abc import Callable
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor, nn

from oracle.blocks import BLOCKS

Plan = tuple[tuple[str, dict[str, Any]], ...]
SPELLINGS = ("module", "functional", "inplace")


class FunctionalReLU(nn.ReLU):
    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x)


class MethodReLU(nn.ReLU):
    def forward(self, x: Tensor) -> Tensor:
        return x.relu_()


class FunctionalReLU6(nn.ReLU6):
    def forward(self, x: Tensor) -> Tensor:
        return F.relu6(x)


class FunctionalMaxPool2d(nn.MaxPool2d):
    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(
            x, self.kernel_size, self.stride, self.padding, self.dilation, ceil_mode=self.ceil_mode
        )


class FunctionalAvgPool2d(nn.AvgPool2d):
    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(
            x, self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad
        )


class Mean(nn.AdaptiveAvgPool2d):
    """The global average as users write it; gives (B, C)."""

    def __init__(self) -> None:
        super().__init__(1)

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


class View(nn.Flatten):
    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], -1)


class Residual(nn.Module):
    """``body(x) + shortcut(x)``."""

    def __init__(self, body: nn.Module, shortcut: nn.Module, spelling: str = "module") -> None:
        super().__init__()
        self.body, self.shortcut, self.spelling = body, shortcut, spelling

    def forward(self, x: Tensor) -> Tensor:
        y, x = self.body(x), self.shortcut(x)
        if self.spelling == "functional":
            return torch.add(y, x)
        if self.spelling == "inplace":
            y += x
            return y
        return y + x


RELU = {"module": nn.ReLU, "functional": FunctionalReLU, "inplace": lambda: nn.ReLU(inplace=True)}
RELU6 = {"module": nn.ReLU6, "functional": FunctionalReLU6, "inplace": lambda: nn.ReLU6(inplace=True)}
MAX_POOL = {"module": nn.MaxPool2d, "functional": FunctionalMaxPool2d, "inplace": nn.MaxPool2d}
AVG_POOL = {"module": nn.AvgPool2d, "functional": FunctionalAvgPool2d, "inplace": nn.AvgPool2d}
FLATTEN = {"module": nn.Flatten, "functional": View, "inplace": nn.Flatten}
GLOBAL = {"module": lambda: nn.AdaptiveAvgPool2d(1), "functional": Mean, "inplace": Mean}


def randomise_(model: nn.Module, seed: int = 0) -> nn.Module:
    """Random biases and batch-norm statistics: all different, none that lets the activations die or explode."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(like: Tensor, low: float, high: float) -> Tensor:
        return torch.empty(like.shape, dtype=torch.float64).uniform_(low, high, generator=generator)

    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.running_mean.copy_(uniform(module.running_mean, -0.5, 0.5))
                module.running_var.copy_(uniform(module.running_var, 0.3, 2.0))
                if module.affine:
                    module.weight.copy_(
                        uniform(module.weight, 0.5, 1.5) * uniform(module.weight, -1, 3).sign()
                    )
                    module.bias.copy_(uniform(module.bias, -0.3, 0.5))
            elif isinstance(module, nn.modules.conv._ConvNd | nn.Linear):
                bound = (3.0 / module.weight[0].numel()) ** 0.5
                module.weight.copy_(uniform(module.weight, -bound, bound))
                if module.bias is not None:
                    module.bias.copy_(uniform(module.bias, -0.3, 0.3))
    return model


def build(plan: Plan, spelling: str = "module", seed: int = 0) -> nn.Sequential:
    """The network of ``plan`` in float64 and eval mode; weights depend on ``seed`` and the plan, not on the spelling."""
    layers: list[nn.Module] = []
    for kind, options in plan:
        layers.extend(_layers(kind, options, spelling))
    return randomise_(nn.Sequential(*layers).double(), seed).eval()


def undecided(model: nn.Sequential, images: Tensor) -> bool:
    """Whether rounding alone decides who wins a max pooling: equal inputs, as every place has them behind dead units.

    ``model`` is in the spelling "module". Equals that an upsampling made are copies of one value, whoever wins, and
    those that a rectifier made are equal whatever the order of summation.
    """
    x, before = images, None
    with torch.no_grad():
        for layer in model:
            copies = isinstance(before, nn.Upsample) and before.mode == "nearest"
            if isinstance(layer, nn.MaxPool2d) and not copies and _meets_equals(layer, x):
                return True
            x, before = layer(x), layer
    return False


def _meets_equals(pool: nn.MaxPool2d, x: Tensor) -> bool:
    kernel, padding = pool.kernel_size, pool.padding
    padded = F.pad(x, (padding, padding + kernel - 1) * 2, value=-torch.inf)  # a last window may hang over
    windows = padded.unfold(2, kernel, pool.stride).unfold(3, kernel, pool.stride).flatten(-2)
    first, second = windows.topk(2).values.unbind(-1)
    return bool(((first - second <= 1e-9 * first.abs()) & (first != 0) & (first != 6)).any())


def _layers(kind: str, options: dict[str, Any], spelling: str) -> list[nn.Module]:
    return MAKERS[kind](options, spelling)


def _conv(o: dict[str, Any], _: str) -> list[nn.Module]:
    conv = nn.Conv2d(**o["conv"])
    return [conv, nn.BatchNorm2d(conv.out_channels)] if o["norm"] else [conv]


def _transposed(o: dict[str, Any], _: str) -> list[nn.Module]:
    conv = nn.ConvTranspose2d(**o["conv"])
    return [conv, nn.BatchNorm2d(conv.out_channels)] if o["norm"] else [conv]


def _twice(o: dict[str, Any], spelling: str) -> list[nn.Module]:
    conv = nn.Conv2d(o["channels"], o["channels"], 3, padding=1, bias=o["bias"])
    return [conv, RELU[spelling](), conv, RELU[spelling]()]


def _block(o: dict[str, Any], spelling: str) -> list[nn.Module]:
    body = nn.Sequential(
        nn.Conv2d(o["inputs"], o["outputs"], 3, o["stride"], 1, bias=False),
        nn.BatchNorm2d(o["outputs"]),
        RELU[spelling](),
        nn.Conv2d(o["outputs"], o["outputs"], 3, 1, 1),
    )
    shortcut: nn.Module = nn.Identity()
    if o["stride"] != 1 or o["inputs"] != o["outputs"]:
        project = nn.Conv2d(o["inputs"], o["outputs"], 1, o["stride"], bias=o["bias"])
        shortcut = nn.Sequential(project, nn.BatchNorm2d(o["outputs"]))
    return [Residual(body, shortcut, spelling), RELU[spelling]()] * o.get("times", 1)


def _global(o: dict[str, Any], spelling: str) -> list[nn.Module]:
    return [GLOBAL[spelling](), FLATTEN[spelling](), nn.Dropout(0.3), nn.Linear(o["inputs"], o["outputs"])]


def _dense(o: dict[str, Any], spelling: str) -> list[nn.Module]:
    first, last = nn.Linear(o["inputs"], 6, bias=o["bias"]), nn.Linear(6, o["outputs"])
    return [FLATTEN[spelling](), first, RELU[spelling](), nn.Dropout(0.5), last]


def _preact(o: dict[str, Any], spelling: str) -> list[nn.Module]:
    norm, conv = nn.BatchNorm2d(o["channels"]), nn.Conv2d(o["channels"], o["channels"], 3, padding=1)
    return [norm, RELU[spelling](), conv]


MAKERS: dict[str, Callable[[dict[str, Any], str], list[nn.Module]]] = {
    "preact": _preact,
    "block": lambda o, spelling: [BLOCKS[o["kind"]](o["channels"], spelling)],
    "upsample": lambda o, _: [nn.Upsample(scale_factor=2, **o)],
    "conv": _conv,
    "transposed": _transposed,
    "twice": _twice,
    "residual": _block,
    "global": _global,
    "dense": _dense,
    "relu": lambda _, spelling: [RELU[spelling]()],
    "relu6": lambda _, spelling: [RELU6[spelling]()],
    "max": lambda o, spelling: [MAX_POOL[spelling](**o)],
    "avg": lambda o, spelling: [AVG_POOL[spelling](**o)],
}


def _modern(draw: st.DrawFn, channels: int) -> list[tuple[str, dict[str, Any]]]:
    """Perhaps a block of a modern network, perhaps a batch norm that no convolution takes in."""
    rows: list[tuple[str, dict[str, Any]]] = []
    if draw(st.booleans()):
        kinds = [kind for kind in BLOCKS if kind != "shuffle" or channels % 2 == 0]
        kind = draw(st.sampled_from(kinds))
        rows.append(("block", {"kind": kind, "channels": channels}))
        channels += 2 if kind == "grown" else 0
    if not draw(st.integers(0, 3)):
        rows.append(("preact", {"channels": channels}))
    return rows


def _drawn_conv(draw: st.DrawFn, size: tuple[int, int, int]) -> dict[str, Any]:
    channels, side = size[0], min(size[1:])
    groups = draw(_groups(channels))
    kernel = st.integers(1, 3 if side > 2 else 1)
    conv = {
        "in_channels": channels,
        "out_channels": groups * draw(st.integers(1, 2)),
        "kernel_size": (draw(kernel), draw(kernel)),
        "stride": draw(st.integers(1, 2)),
        "padding": draw(st.sampled_from([0, 1, (1, 0)])),
        "dilation": draw(st.integers(1, 2)) if side > 4 else 1,
        "groups": groups,
        "bias": draw(st.booleans()),
    }
    return {"conv": conv, "norm": draw(st.booleans())}


def _drawn_transposed(draw: st.DrawFn, size: tuple[int, int, int]) -> dict[str, Any]:
    channels, side = size[0], min(size[1:])
    groups, stride = draw(_groups(channels)), draw(st.integers(1, 2)) if max(size[1:]) < 6 else 1
    conv = {
        "in_channels": channels,
        "out_channels": groups * draw(st.integers(1, 2)),
        "kernel_size": (draw(st.integers(2, 3)), draw(st.integers(2, 3))),
        "stride": stride,
        "padding": draw(st.sampled_from([0, 1, (1, 0)])) if side > 1 else 0,
        "output_padding": draw(st.integers(0, stride - 1)),
        "groups": groups,
        "bias": draw(st.booleans()),
    }
    return {"conv": conv, "norm": draw(st.booleans())}


def _drawn_residual(draw: st.DrawFn, size: tuple[int, int, int]) -> dict[str, Any]:
    outputs, stride = draw(st.sampled_from([size[0], 2, 3])), draw(st.integers(1, 2))
    times = draw(st.integers(1, 2)) if stride == 1 and outputs == size[0] else 1
    bias = draw(st.booleans())
    return {"inputs": size[0], "outputs": outputs, "stride": stride, "bias": bias, "times": times}


def _drawn_twice(draw: st.DrawFn, size: tuple[int, int, int]) -> dict[str, Any]:
    return {"channels": size[0], "bias": draw(st.booleans())}


def _groups(channels: int) -> st.SearchStrategy[int]:
    return st.sampled_from([g for g in (1, 2) if channels % g == 0])


STAGES = {
    "conv": _drawn_conv,
    "residual": _drawn_residual,
    "twice": _drawn_twice,
    "transposed": _drawn_transposed,
}


def features(plan: Plan) -> set[str]:
    """What a plan has, in words."""
    found = {options["kind"] if kind == "block" else kind for kind, options in plan}
    for kind, options in plan:
        conv = options.get("conv", options)
        found |= {f"{kind}, strided"} if conv.get("stride", 1) > 1 else set()
        found |= {f"{kind}, grouped"} if conv.get("groups", 1) > 1 else set()
        found |= {f"{kind}, with batch norm"} if options.get("norm") else set()
        found |= {f"{kind}, reused"} if options.get("times", 1) > 1 else set()
    return found


@st.composite
def plans(draw: st.DrawFn, *, classes: int = 4, depth: int = 3) -> tuple[Plan, tuple[int, int, int]]:
    """A random plan and the shape (C, H, W) of its images."""
    shape = size = (2, draw(st.integers(6, 8)), draw(st.integers(6, 8)))
    rows: list[tuple[str, dict[str, Any]]] = []
    flag = st.booleans()
    for index in range(draw(st.integers(1, depth))):
        kind = "conv" if index == 0 and draw(flag) else draw(st.sampled_from(list(STAGES)))
        rows.append((kind, STAGES[kind](draw, size)))
        if kind in ("conv", "transposed") and draw(st.integers(0, 4)):
            rows.append((draw(st.sampled_from(["relu", "relu", "relu6"])), {}))
        rows.extend(_modern(draw, _shape(tuple(rows), shape)[0]))
        size = _shape(tuple(rows), shape)
        if max(size[1:]) < 4 and draw(flag):
            rows.append(("upsample", {"mode": draw(st.sampled_from(["nearest", "bilinear"]))}))
            size = _shape(tuple(rows), shape)
        if min(size[1:]) > 3 and draw(flag):
            pool = {
                "kernel_size": draw(st.integers(2, 3)),
                "stride": draw(st.integers(1, 2)),
                "padding": draw(st.integers(0, 1)),
                "ceil_mode": draw(flag),
            }
            rows.append((draw(st.sampled_from(["max", "avg"])), pool))
            size = _shape(tuple(rows), shape)
    if draw(flag):
        rows.append(("global", {"inputs": size[0], "outputs": classes}))
    else:
        rows.append(("dense", {"inputs": prod(size), "outputs": classes, "bias": draw(flag)}))
    return tuple(rows), shape


def _shape(plan: Plan, shape: tuple[int, int, int]) -> tuple[int, int, int]:
    layers = [layer for kind, options in plan for layer in _layers(kind, options, "module")]
    with torch.no_grad():
        _, channels, height, width = nn.Sequential(*layers).eval()(torch.zeros(1, *shape)).shape
    return channels, height, width
