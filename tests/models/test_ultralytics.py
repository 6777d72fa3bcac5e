"""Classifiers that ultralytics saved. Its package is not in the tests' environment, so what clarp asks of it is played here; the real one
is asked in tests/test_packages.py."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import clarp
from clarp import models
from clarp.models import imagenet


class ClassificationModel(nn.Module):
    """As ultralytics': probabilities and logits, in eval mode."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.head = nn.Conv2d(3, 4, 3, stride=4), nn.Linear(4, 3)
        self.names = {0: "cat", 2: "tree", 1: "dog"}

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.head(self.body(x).relu().mean((2, 3)))
        return y.softmax(1), y


@pytest.fixture
def ultralytics(monkeypatch: pytest.MonkeyPatch) -> None:
    def torch_safe_load(file: str, safe_only: bool | None = None) -> tuple[Any, str]:
        assert safe_only
        return torch.load(file, weights_only=False), file

    parts = {
        name: ModuleType(f"ultralytics{name}") for name in ("", ".nn", ".nn.tasks", ".data", ".data.augment")
    }
    parts[".nn.tasks"].torch_safe_load = torch_safe_load  # type: ignore[attr-defined]
    parts[".nn.tasks"].ClassificationModel = ClassificationModel  # type: ignore[attr-defined]
    parts[".data.augment"].classify_transforms = lambda size: imagenet.preprocessing(  # type: ignore[attr-defined]
        (size, size), mean=[0.0] * 3, std=[1.0] * 3
    )
    for name, part in parts.items():
        monkeypatch.setitem(sys.modules, f"ultralytics{name}", part)


def saved(folder: Path, content: object) -> Path:
    torch.save(content, folder / "best.pt")
    return folder / "best.pt"


@pytest.mark.usefixtures("ultralytics")
def test_a_classifier_with_its_labels_and_size(tmp_path: Path) -> None:
    file = saved(tmp_path, {"model": ClassificationModel().half(), "train_args": {"imgsz": 64}})
    found = models.load(f"ultralytics:{file}")
    assert (found.labels, found.task) == (("cat", "dog", "tree"), "multiclass")
    photo = Image.effect_noise((90, 80), 60).convert("RGB")
    assert found.preprocess(photo).shape == (3, 64, 64)
    e = clarp.explain(photo, model=f"ultralytics:{file}", target="tree", against="dog")
    own = ClassificationModel().half().float().eval()(found.preprocess(photo)[None])[1]
    torch.testing.assert_close(e.logits, own)


@pytest.mark.usefixtures("ultralytics")
@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"model": nn.Linear(2, 2)}, "holds a Linear, expected a classifier of ultralytics"),
        ({"epoch": 1}, "holds no model, expected a classifier of ultralytics"),
        ([1, 2], "not what ultralytics writes, or damaged"),
    ],
)
def test_other_files_are_refused(content: object, said: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=said):
        models.load(f"ultralytics:{saved(tmp_path, content)}")


def test_without_the_file_the_package_or_its_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match=r"no such model file"):
        models.load(f"ultralytics:{tmp_path / 'none.pt'}")
    file = saved(tmp_path, {})
    with pytest.raises(ValueError, match=r"has its weights inside"):
        models.load(f"ultralytics:{file}", weights=file)
    for name in [name for name in sys.modules if name.partition(".")[0] == "ultralytics"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ultralytics", None)
    with pytest.raises(ModuleNotFoundError):
        models.load(f"ultralytics:{file}")
