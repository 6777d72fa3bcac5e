"""The table of classifiers: complete, and still true of a part that is measured afresh."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "classifiers.md"

FRESH = (
    "torchvision/resnet18",
    "torchvision/densenet121",
    "torchvision/efficientnet_b0",
    "torchvision/shufflenet_v2_x0_5",
    "torchvision/googlenet",
    "torchvision/vit_b_32",
    "torchvision/swin_t",
    "torchvision/swin_v2_t",
    "torchvision/convnext_tiny",
    "transformers/ResNet",
    "transformers/ViT",
    "transformers/ConvNeXt",
    "transformers/Swin",
    "transformers/DINOv2",
    "timm/test_convnext",
    "timm/deit_tiny_patch16_224",
    "timm/levit_128s",
    "timm/poolformerv2_s12",
    "timm/lowformer_b0",
)


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    pytest.importorskip("clarp.models._torchvision")
    spec = importlib.util.spec_from_file_location("classifiers", ROOT / "benchmarks" / "classifiers.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["classifiers"] = module
    spec.loader.exec_module(module)
    return module


def test_every_classifier_of_torchvision_is_in_the_table(benchmark: ModuleType) -> None:
    table = PAGE.read_text(encoding="utf-8").partition("### torchvision")[2].partition("### ")[0]
    named = {line.split(" | ")[0].removeprefix("| ") for line in table.splitlines() if line.startswith("| ")}
    assert {name.removeprefix("torchvision/") for name in benchmark.torchvision_names()} <= named


def test_all_of_torchvision_is_explained() -> None:
    table = PAGE.read_text(encoding="utf-8").partition("### torchvision")[2].partition("### ")[0]
    assert not [line for line in table.splitlines() if "| no:" in line]


def test_a_table_is_written_between_the_markers(benchmark: ModuleType) -> None:
    """Rows by library; a refusal shows its reason in place of numbers."""
    rows = [
        benchmark.Row(
            "torchvision/alexnet", 64, 20, logits=1e-7, batch=2e-6, reached=0.5, capture=1.25, explain=0.1
        ),
        benchmark.Row("timm/lstm", 64, reason="`aten.lstm.input` not supported"),
    ]
    page = f"before\n{benchmark.BEGIN}old\n{benchmark.END}\nafter"
    text = benchmark.updated(page, rows)
    assert text.startswith("before\n")
    assert text.endswith("\nafter")
    assert "old" not in text
    assert "| alexnet | 64 | 20 | yes | 1e-07 | 0e+00 | 2e-06 | 50 % | 1.2 | 0.10 |" in text
    assert "### timm: 0 of 1" in text
    assert "no: `aten.lstm.input` not supported" in text
    assert benchmark.updated(text, rows) == text


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", FRESH)
def test_measured_afresh(benchmark: ModuleType, name: str) -> None:
    """Captured, finite, the ledger closes to float32's precision, and a batch equals its samples."""
    pytest.importorskip(name.partition("/")[0])
    row = benchmark.measure(name)
    assert not row.reason
    assert row.logits < 1e-4
    assert row.ledger < 1e-5
    assert row.batch < 1e-3
