"""Whole classifiers as ONNX files: what ONNX Runtime computes is what the library computes."""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import clarp
from clarp.exporting.file import ExplainedFile
from clarp.models._torchvision import torchvision
from oracle.calls import images
from oracle.nets import randomise_

ROOT = Path(__file__).resolve().parents[2]
LARGEST = 1e-4
"""Of the difference of a map, relative to its largest value, without a max pooling or a selection."""
SHARE = 1e-2
"""Of the sum of the difference, relative to the map's, with one: where two values of a window, or a gradient and zero,
are equal but for rounding, relevance goes here to one place and there to another."""


def compare(
    model: nn.Module, images: Tensor, method: str, folder: Path, composite: str | None = None
) -> None:
    """The maps and logits of a file, against the library's."""
    explainer = clarp.Explainer(model, method, composite=composite)
    shape = tuple(images.shape[1:])
    file = folder / "model.onnx"
    clarp.export(explainer, file, shape)
    ours = explainer(images, 1)
    logits, heatmap, lost = ExplainedFile.open(file)(images, torch.ones(len(images), dtype=torch.int64))
    assert float((logits - ours.logits).abs().max() / ours.logits.abs().max()) < LARGEST
    difference, size = ((value.abs().flatten(1)) for value in (heatmap - ours.heatmap, ours.heatmap))
    if explainer.method.selections or any(
        "Max" in type(node.operation).__name__ for node in explainer.plan(shape).graph
    ):
        assert float((difference.sum(1) / size.sum(1)).max()) < SHARE
    else:
        assert float((difference.amax(1) / size.amax(1)).max()) < LARGEST
    assert bool((lost >= 0).all())
    assert bool((lost < 1).all())


class SqueezeExcite(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(width, 4, 1), nn.Conv2d(4, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * F.hardsigmoid(self.up(F.silu(self.down(F.adaptive_avg_pool2d(x, 1)))))


def mobile() -> nn.Module:
    """Depthwise convolutions, batch norms, a gate, an average pooling."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.Hardswish(),
        nn.Conv2d(8, 8, 3, 1, 1, groups=8), nn.BatchNorm2d(8), nn.ReLU6(), SqueezeExcite(8),
        nn.Conv2d(8, 12, 1), nn.BatchNorm2d(12), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(12 * 4 * 4, 5),
    )  # fmt: skip


class Windows(nn.Module):
    """Attention in shifted windows with a bias by place, as Swin Transformers have it, on (B, H, W, C)."""

    def __init__(self, width: int, side: int, shift: int) -> None:
        super().__init__()
        self.side, self.shift = side, shift
        self.norm, self.qkv, self.out = (
            nn.LayerNorm(width),
            nn.Linear(width, 3 * width),
            nn.Linear(width, width),
        )
        self.bias = nn.Parameter(torch.randn(2, side**2, side**2))
        self.mlp = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 16), nn.GELU(), nn.Linear(16, width))

    def forward(self, x: Tensor) -> Tensor:
        batch, height, width, channels = x.shape
        rows, columns, side = height // self.side, width // self.side, self.side
        rolled = self.norm(x).roll((-self.shift, -self.shift), (1, 2))
        split = rolled.view(batch, rows, side, columns, side, channels).transpose(2, 3)
        q, k, v = (
            self.qkv(split.reshape(-1, side**2, channels)).unflatten(2, (3, 2, -1)).permute(2, 0, 3, 1, 4)
        )
        y = ((q @ k.mT / 2 + self.bias).softmax(-1) @ v).transpose(1, 2).flatten(2)
        y = self.out(y).view(batch, rows, columns, side, side, channels).transpose(2, 3)
        x = x + y.reshape(x.shape).roll((self.shift, self.shift), (1, 2))
        return x + self.mlp(x)


class Swin(nn.Module):
    """Patches, a block of windows, patches merged two by two, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 2, 2)
        self.windows = Windows(8, 4, 2)
        self.merge, self.head = nn.Linear(32, 8), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.windows(self.patches(x).permute(0, 2, 3, 1))
        parts = [x[:, i::2, j::2] for i in (0, 1) for j in (0, 1)]
        return self.head(self.merge(torch.cat(parts, -1)).mean((1, 2)))


class Encoder(nn.Module):
    """A vision transformer of PyTorch's own layers."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, 4)
        self.token, self.place = nn.Parameter(torch.randn(1, 1, 8)), nn.Parameter(torch.randn(1, 17, 8))
        layer = nn.TransformerEncoderLayer(8, 2, 16, activation="gelu", batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).mT
        return self.head(self.layers(torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.place)[:, 0])


@pytest.mark.parametrize(("kind", "method"), [(mobile, "ssglrp"), (Encoder, "ssglrp"), (Swin, "lrp")])
def test_small_classifiers(kind: Callable[[], nn.Module], method: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = randomise_(kind()).eval()
    compare(model, images(2, 3, 16, 16).float(), method, tmp_path)


def of_benchmarks(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    return of_benchmarks("classifiers")


@pytest.fixture(scope="module")
def exported() -> ModuleType:
    for name in ("classifiers", "exported"):
        of_benchmarks(name)
    return of_benchmarks("exported_classifiers")


@pytest.mark.slow
@pytest.mark.parametrize("name", torchvision.models.list_models(module=torchvision.models))
def test_torchvision_by_ssglrp(name: str, exported: ModuleType) -> None:
    """Within twice the library's own difference between float32 and float64; a file that is too large in float16."""
    row = exported.measure(f"torchvision/{name}")
    assert row.equal, row


LARGE = {"regnet_y_128gf", "vit_h_14"}
"""Their files would be larger than 2 GiB; by ssglrp they are tested with weights in float16."""


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", sorted(set(torchvision.models.list_models(module=torchvision.models)) - LARGE)
)
def test_torchvision(name: str, benchmark: ModuleType, tmp_path: Path) -> None:
    """With random weights, at the smallest size of image that it takes."""
    model, size = benchmark.make(f"torchvision/{name}")
    compare(model, images(2, 3, size, size).float(), "lrp", tmp_path)
