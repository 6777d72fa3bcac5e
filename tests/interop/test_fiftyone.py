"""Heatmaps in a sample of FiftyOne, where it is installed (not in CI: it brings a database server)."""

import sys
import types

import numpy as np
import pytest
import torch
from torch import nn

import clarp
from clarp.interop.fiftyone import heatmaps
from clarp.interop.strength import strengths

IMAGES = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def explainer() -> clarp.Explainer:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)).eval()
    return clarp.Explainer(model, "ssglrp", bounds=(0.0, 1.0))


def test_maps_and_their_range(explainer, monkeypatch) -> None:
    stand_in = types.ModuleType("fiftyone")
    stand_in.Heatmap = dict
    monkeypatch.setitem(sys.modules, "fiftyone", stand_in)
    e = explainer(IMAGES, [3, 1])
    for found, expected in zip(heatmaps(e), strengths(e), strict=True):
        assert found["range"] == [-1, 1]
        np.testing.assert_array_equal(found["map"], expected)
    np.testing.assert_array_equal(heatmaps(e, 0.1)[1]["map"], strengths(e, 0.1)[1])
    assert (strengths(e) < 0).any()


def test_several_targets_are_refused(explainer) -> None:
    with pytest.raises(ValueError, match=r"target has the shape \(2, 2\)"):
        heatmaps(explainer(IMAGES, [[3, 1]] * 2))


def test_the_package_itself(explainer, tmp_path) -> None:
    pytest.importorskip("clarp.models._torchvision")  # FiftyOne imports torchvision
    pytest.importorskip("fiftyone", reason="FiftyOne brings a database server, so CI does without")
    import fiftyone  # noqa: PLC0415

    e = explainer(IMAGES, [3, 1])
    sample = fiftyone.Sample(filepath=str(tmp_path / "photo.png"))
    sample["ssglrp"] = heatmaps(e)[0]
    read = fiftyone.Sample.from_dict(sample.to_dict())["ssglrp"]
    assert read.range == [-1, 1]
    np.testing.assert_array_equal(read.map, strengths(e)[0])
