"""What takes photos says so of a model of volumes, views or signals."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

import clarp
from clarp import models


def network(axes: int) -> nn.Sequential:
    conv, pool = getattr(nn, f"Conv{axes}d"), getattr(nn, f"AdaptiveAvgPool{axes}d")
    return nn.Sequential(conv(1, 4, 3), nn.ReLU(), pool(1), nn.Flatten(), nn.Linear(4, 2)).eval()


@pytest.mark.parametrize(("axes", "words"), [(3, "volumes or clips .*Conv3d"), (1, "signals .*Conv1d")])
@pytest.mark.parametrize("preprocess", [None, lambda _: torch.rand(1, 8, 8)])
def test_a_module(axes: int, words: str, preprocess) -> None:
    with pytest.raises(ValueError, match=f"takes {words}.*only photos.*clarp.Explainer"):
        clarp.explain(Image.new("RGB", (8, 8)), model=network(axes), preprocess=preprocess)


def test_a_file(tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    file.write_text(
        "from torch import nn\n"
        "def model():\n"
        "    return nn.Sequential(nn.Conv3d(1, 4, 3), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(4, 2)).eval()\n"
    )
    with pytest.raises(ValueError, match=r"own\.py:model takes volumes or clips"):
        models.load(f"{file}:model")


@pytest.mark.parametrize("shape", [(1, 8, 8, 8), (1, 8)])
def test_an_exported_program(shape: tuple[int, ...], tmp_path: Path) -> None:
    path = tmp_path / "own.pt2"
    torch.export.save(torch.export.export(network(len(shape) - 1), (torch.rand(2, *shape),)), path)
    with pytest.raises(ValueError, match="For volumes, clips, views and signals"):
        models.load(str(path))
