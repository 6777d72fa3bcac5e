"""Small networks, drawn at random, each in several spellings that mean the same.

A *plan* is a tuple of rows such as ``("conv", {...})``; ``build(plan, spelling)`` makes the model. The functional
modules subclass the modules that they spell, so that whoever reads the tree sees what they compute.
"""

from collections.abc import Callable
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
            if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
                module.running_mean.copy_(uniform(module.running_mean, -0.5, 0.5))
                module.running_var.copy_(uniform(module.running_var, 0.3, 2.0))
                if module.affine:
                    module.weight.copy_(
                        uniform(module.weight, 0.5, 1.5) * uniform(module.weight, -1, 3).sign()
                    )
                    module.bias.copy_(uniform(module.bias, -0.3, 0.5))
            elif isinstance(module, nn.Conv2d | nn.Linear):
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


def _layers(kind: str, options: dict[str, Any], spelling: str) -> list[nn.Module]:
    return MAKERS[kind](options, spelling)


def _conv(o: dict[str, Any], _: str) -> list[nn.Module]:
    conv = nn.Conv2d(**o["conv"])
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
    return [Residual(body, shortcut, spelling), RELU[spelling]()]


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
        rows.append(("block", {"kind": draw(st.sampled_from(kinds)), "channels": channels}))
    if not draw(st.integers(0, 3)):
        rows.append(("preact", {"channels": channels}))
    return rows


@st.composite
def plans(draw: st.DrawFn, *, classes: int = 4, depth: int = 3) -> tuple[Plan, tuple[int, int, int]]:
    """A random plan and the shape (C, H, W) of its images."""
    channels, height, width = 2, draw(st.integers(6, 8)), draw(st.integers(6, 8))
    shape = (channels, height, width)
    rows: list[tuple[str, dict[str, Any]]] = []
    flag = st.booleans()
    for index in range(draw(st.integers(1, depth))):
        kind = "conv" if index == 0 and draw(flag) else draw(st.sampled_from(["conv", "residual", "twice"]))
        if kind == "conv":
            groups = draw(st.sampled_from([g for g in (1, 2) if channels % g == 0]))
            conv = {
                "in_channels": channels,
                "out_channels": groups * draw(st.integers(1, 2)),
                "kernel_size": (draw(st.integers(1, 3)), draw(st.integers(1, 3))),
                "stride": draw(st.integers(1, 2)),
                "padding": draw(st.sampled_from([0, 1, (1, 0)])),
                "dilation": draw(st.integers(1, 2)) if min(height, width) > 4 else 1,
                "groups": groups,
                "bias": draw(flag),
            }
            if min(height, width) < 3:
                conv["kernel_size"] = 1
            row: tuple[str, dict[str, Any]] = ("conv", {"conv": conv, "norm": draw(flag)})
        elif kind == "residual":
            outputs, stride = draw(st.integers(2, 3)), draw(st.integers(1, 2))
            row = (kind, {"inputs": channels, "outputs": outputs, "stride": stride, "bias": draw(flag)})
        else:
            row = (kind, {"channels": channels, "bias": draw(flag)})
        rows.append(row)
        if kind == "conv":
            rows.extend(
                [(draw(st.sampled_from(["relu", "relu", "relu6"])), {})] if draw(st.integers(0, 4)) else []
            )
        channels, height, width = _shape(tuple(rows), shape)
        rows.extend(_modern(draw, channels))
        if max(height, width) < 4 and draw(flag):
            rows.append(("upsample", {"mode": draw(st.sampled_from(["nearest", "bilinear"]))}))
            channels, height, width = _shape(tuple(rows), shape)
        if min(height, width) > 3 and draw(flag):
            pool = {
                "kernel_size": draw(st.integers(2, 3)),
                "stride": draw(st.integers(1, 2)),
                "padding": draw(st.integers(0, 1)),
                "ceil_mode": draw(flag),
            }
            rows.append((draw(st.sampled_from(["max", "avg"])), pool))
            channels, height, width = _shape(tuple(rows), shape)
    if draw(flag):
        rows.append(("global", {"inputs": channels, "outputs": classes}))
    else:
        dense = {"inputs": channels * height * width, "outputs": classes, "bias": draw(flag)}
        rows.append(("dense", dense))
    return tuple(rows), shape


def _shape(plan: Plan, shape: tuple[int, int, int]) -> tuple[int, int, int]:
    layers = [layer for kind, options in plan for layer in _layers(kind, options, "module")]
    with torch.no_grad():
        _, channels, height, width = nn.Sequential(*layers).eval()(torch.zeros(1, *shape)).shape
    return channels, height, width
