"""Operations of clarp's graph in ONNX files: forward, gradient and rule of each, in ONNX Runtime.

All of a group stand side by side behind one convolution, each in front of a logit of its own, and one file explains
all logits, so that there is one export for many operations.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import clarp
from clarp.exporting.file import ExplainedFile
from clarp.selection import Selection
from oracle.calls import apart, images
from oracle.nets import randomise_

Body = Callable[[Tensor], Tensor]
BOUND = 1e-3
"""Of the largest difference of a map, relative to its largest value: what cancels is large beside it."""


class MaxUnpool(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2)


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase], *, bidirectional: bool = False) -> None:
        super().__init__()
        self.layer = kind(6, 3, batch_first=True, bidirectional=bidirectional)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.mean(2))[0]


def attention(x: Tensor, *, causal: bool = False) -> Tensor:
    return F.scaled_dot_product_attention(x, x.flip(2), x.flip(3), is_causal=causal)


def fourier(x: Tensor) -> Tensor:
    return torch.fft.irfft2(torch.fft.rfft2(x) * 0.5 * torch.arange(1, 5), s=(6, 6))


KERNEL = torch.linspace(-1, 1, 2 * 4 * 3 * 3).view(2, 4, 3, 3).sin()

BODIES: dict[str, Body] = {
    # of (B, 4, 6, 6)
    "relu": F.relu, "relu6": F.relu6, "clamp": lambda x: x.clamp(-0.3, 0.4), "leaky relu": lambda x: F.leaky_relu(x, 0.1),
    "prelu": nn.PReLU(4), "hard sigmoid": F.hardsigmoid, "hard swish": F.hardswish,
    "threshold": lambda x: F.threshold(x, 0.1, 0.2), "hard shrink": lambda x: F.hardshrink(x, 0.1),
    "soft shrink": lambda x: F.softshrink(x, 0.1), "square root": lambda x: x.abs().add(0.1).sqrt(),
    "absolute": torch.abs, "power": lambda x: x**3,
    "real power": lambda x: x.clamp(min=1e-3).pow(torch.tensor(2.7)).mean((2, 3)),
    "exp": torch.exp, "expm1": torch.expm1, "power of two": lambda x: 2**x, "log": lambda x: (x.abs() + 0.1).log(),
    "log1p": lambda x: x.abs().log1p(), "log odds": lambda x: x.sigmoid().logit(1e-3),
    "sigmoid": torch.sigmoid, "tanh": torch.tanh, "atan": torch.atan, "erf": torch.erf, "silu": F.silu, "gelu": F.gelu,
    "gelu by tanh": lambda x: F.gelu(x, approximate="tanh"), "mish": F.mish, "softplus": lambda x: F.softplus(x, 2),
    "elu": F.elu, "selu": F.selu, "celu": lambda x: F.celu(x, 0.5), "log sigmoid": F.logsigmoid,
    "glu": lambda x: F.glu(x, 1), "sign": lambda x: x.sign() * x,
    "permute": lambda x: x.permute(0, 2, 3, 1), "expand": lambda x: x.mean((2, 3), keepdim=True).expand_as(x) * x,
    "repeat": lambda x: x.repeat(1, 2, 1, 1), "repeat each": lambda x: x.repeat_interleave(2, 1),
    "add": lambda x: x + x.flip(1), "multiply": lambda x: x * x.flip(1), "gate": lambda x: x * x.flip(1).sigmoid(),
    "divide": lambda x: x / (x.flip(1).abs() + 0.2), "lerp": lambda x: torch.lerp(x, x.flip(1), 0.3),
    "average": lambda x: F.avg_pool2d(x, 3, 2, 1), "average of a row": lambda x: F.avg_pool1d(x.flatten(2), 4, 3),
    "average over three axes": lambda x: F.avg_pool3d(x[:, None], (2, 3, 3), (2, 1, 2)),
    "adaptive average": lambda x: F.adaptive_avg_pool2d(x, 4), "global average": lambda x: F.adaptive_avg_pool2d(x, 1),
    "adaptive average over three axes": lambda x: F.adaptive_avg_pool3d(x[:, None], (3, 4, 4)),
    "mean": lambda x: x.mean((2, 3)), "sum": lambda x: x.sum(1), "deviation": lambda x: x.std(1),
    "nearest": lambda x: F.interpolate(x, scale_factor=2), "nearest by size": lambda x: F.interpolate(x, size=(8, 9)),
    "nearest-exact": lambda x: F.interpolate(x, size=(9, 8), mode="nearest-exact"),
    "bilinear": lambda x: F.interpolate(x, size=(9, 8), mode="bilinear"),
    "bicubic": lambda x: F.interpolate(x, size=(9, 8), mode="bicubic", antialias=True),
    "trilinear": lambda x: F.interpolate(x[:, None], size=(3, 5, 5), mode="trilinear"),
    "fold": lambda x: F.fold(F.unfold(x, 3, padding=1), (6, 6), 3, padding=1), "slice": lambda x: x[:, :, 1:5:2],
    "roll": lambda x: x.roll((1, 2), (2, 3)), "flip": lambda x: x.flip(-1),
    "mirrored padding": lambda x: F.pad(x, (1, 2, 2, 1), mode="reflect"), "padding": lambda x: F.pad(x, (1, 0, 0, 2), value=0.5),
    "crop": lambda x: F.pad(x, (-1, 0, 0, -2)), "concatenate": lambda x: torch.cat([x, x.flip(1)], 1),
    "extend": lambda x: torch.cat([torch.ones(1, 1, 6, 6).expand(x.shape[0], -1, -1, -1), x], 1) ** 2,
    "stack": lambda x: torch.stack([x, x.flip(1)], 2), "pixel shuffle": lambda x: F.pixel_shuffle(x, 2),
    "index": lambda x: x[:, [0, 2, 1, 3, 0]], "triangle": torch.triu,
    "slice overwritten": lambda x: torch.slice_scatter(x, x[:, :, 2:5].tanh(), 2, 2, 5),
    "max pool": lambda x: F.max_pool2d(x, 2), "overlapping max pool": lambda x: F.max_pool2d(x, 3, 2, 1),
    "ceiling max pool": lambda x: F.max_pool2d(x, 3, 2, ceil_mode=True), "maximum of a row": lambda x: F.max_pool1d(x.flatten(2), 4, 4),
    "max pool over three axes": lambda x: F.max_pool3d(x[:, None], 2),
    "adaptive maximum": lambda x: F.adaptive_max_pool2d(x, 4), "global maximum": lambda x: F.adaptive_max_pool2d(x, 1),
    "adaptive maximum over three axes": lambda x: F.adaptive_max_pool3d(x[:, None], (3, 4, 4)), "unpool": MaxUnpool(),
    "amax": lambda x: x.amax((2, 3)), "amin": lambda x: x.amin(1), "topk": lambda x: x.flatten(1).topk(7, 1).values,
    "sort": lambda x: x.sort(1).values, "median": lambda x: x.flatten(2).median(2).values,
    "kth value": lambda x: x.flatten(2).kthvalue(5, 2).values, "maximum": lambda x: torch.maximum(x, x.flip(1)),
    "minimum": lambda x: torch.minimum(x, x.flip(1)), "length": lambda x: x.norm(dim=1),
    "norm of order three": lambda x: torch.linalg.vector_norm(x, 3, 1), "normalise": lambda x: F.normalize(x, dim=1),
    "cosine": lambda x: F.cosine_similarity(x, x.flip(1) + 1, 1),
    "distance": lambda x: torch.cdist(x.flatten(2), KERNEL.view(2, 36)), "fourier": fourier,
    "lstm": Recurrent(nn.LSTM), "gru": Recurrent(nn.GRU, bidirectional=True),
    "greater": lambda x: (x > 0.1) * x, "compare": lambda x: (x >= x.flip(1)).float() * x,
    "where": lambda x: torch.where(x > 0.1, x * 2, x.flip(1)), "constant where": lambda x: torch.where(torch.arange(6) > 2, x, -1.0),
    "fill": lambda x: x.masked_fill(x < -0.2, 0.3), "and, or": lambda x: ((x > 0) & (x.flip(1) > 0) | (x < -0.3)) * x,
    "softmax": lambda x: x.flatten(2).softmax(-1), "product": lambda x: x @ x.mT, "product with a constant": lambda x: x @ torch.ones(6, 2),
    "attention": attention, "causal attention": lambda x: attention(x, causal=True),
    "einsum": lambda x: torch.einsum("bchw,bdhw->bcd", x, x.flip(1)),
    "einsum with a constant": lambda x: torch.einsum("bchw,dc->bdhw", x, KERNEL[:, :, 0, 0]),
    "logsumexp": lambda x: x.logsumexp((2, 3)), "log softmax": lambda x: x.log_softmax(1),
    "batch norm": nn.BatchNorm2d(4), "layer norm": nn.LayerNorm(6), "rms norm": nn.RMSNorm(6), "group norm": nn.GroupNorm(2, 4),
    "instance norm": nn.InstanceNorm2d(4, affine=True), "depthwise": nn.Conv2d(4, 8, 3, padding=1, groups=4),
    "transposed": lambda x: F.conv_transpose2d(x, KERNEL.mT.reshape(4, 2, 3, 3), stride=2, padding=1, output_padding=1),
    "convolution of a row": lambda x: F.conv1d(x.flatten(2), KERNEL[..., 0], stride=2),
    "convolution over three axes": lambda x: F.conv3d(x[:, None], KERNEL[:, :1, None]),
    "same convolution": lambda x: F.conv2d(x, KERNEL, padding="same"), "dilated": lambda x: F.conv2d(x, KERNEL, dilation=2),
}  # fmt: skip
METHODS = {
    "rules": clarp.Method(),
    "gradients": clarp.Method(selection=Selection("element", gradient="logit")),
}
SIZE = 20
GROUPS = [list(BODIES)[start : start + SIZE] for start in range(0, len(BODIES), SIZE)]


class SideBySide(nn.Module):
    """A convolution, and behind it a logit of each body."""

    def __init__(self, names: list[str]) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.bodies = [BODIES[name] for name in names]
        self.modules_ = nn.ModuleList(body for body in self.bodies if isinstance(body, nn.Module))
        x = torch.ones(2, 4, 6, 6)
        self.heads = nn.ModuleList(nn.Linear(body(x).flatten(1).shape[1], 1) for body in self.bodies)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return torch.cat(
            [head(body(x).flatten(1)) for head, body in zip(self.heads, self.bodies, strict=True)], 1
        )


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("names", GROUPS, ids=lambda names: f"{names[0]} to {names[-1]}")
def test_operations(names: list[str], method: str, tmp_path: Path) -> None:
    model = randomise_(SideBySide(names)).eval()
    explainer = clarp.Explainer(model, METHODS[method], bounds=(0.0, 1.0), task="multilabel")
    file, count = tmp_path / "operations.onnx", len(names)
    clarp.export(explainer, file, (3, 6, 6), targets=count)
    x = images(2, 3, 6, 6).float().sigmoid()
    logits, heatmap, _ = ExplainedFile.open(file)(x, torch.arange(count).expand(2, -1).contiguous())
    wrong = {}
    for number, name in enumerate(names):
        ours = explainer(x, number)
        far = [apart(heatmap[:, number], ours.heatmap), apart(logits[:, number], ours.logits[:, number])]
        if not max(far) < BOUND:
            wrong[name] = far
    assert wrong == {}


class Sampled(nn.Module):
    """A spatial transformer that turns every image by the same angle."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 2, 3), nn.Linear(2, 3)
        self.register_buffer(
            "grid",
            F.affine_grid(
                torch.tensor([[[0.8, 0.6, 0.0], [-0.6, 0.8, 0.0]]]), [1, 2, 4, 4], align_corners=False
            ),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.head(
            F.grid_sample(self.stem(x), self.grid.expand(x.shape[0], -1, -1, -1), align_corners=False).mean(
                (2, 3)
            )
        )


def test_what_onnx_lacks_is_named(tmp_path: Path) -> None:
    explainer = clarp.Explainer(Sampled().eval(), "lrp")
    with pytest.raises(
        clarp.UnsupportedOperation, match=r"operation aten\.grid_sampler_2d_backward, .*\.pt2 file"
    ):
        clarp.export(explainer, tmp_path / "sampled.onnx", (3, 6, 6))
    assert not (tmp_path / "sampled.onnx").exists()
