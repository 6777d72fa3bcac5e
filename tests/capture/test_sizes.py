"""Exported programs for images of several sizes: their graph is that of the images' own."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

import clarp
from clarp.capture import example_shape
from oracle import nets
from oracle.calls import apart, images


class AnySize(nn.Module):
    """Reads heights and widths in every way: as a size, as the end of a slice, and in a shape."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu, self.head = (
            nn.Conv2d(3, 4, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Linear(4, 5),
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.conv(x))
        y = y + F.interpolate(y[:, :, : y.shape[2] - 1], size=y.shape[2:])
        return self.head(y.reshape(y.shape[0], 4, y.shape[2] * y.shape[3]).mean(2))


def model() -> nn.Module:
    return nets.randomise_(AnySize(), 1).double().eval()


def program(batch: int, *dynamic: int) -> ExportedProgram:
    sizes = {axis: Dim(f"axis{axis}", min=4, max=64) if axis else Dim("batch") for axis in dynamic}
    return torch.export.export(model(), (images(batch, 3, 12, 8),), dynamic_shapes=(sizes,))


@pytest.mark.parametrize("dynamic", [(0, 2, 3), (2, 3), (0, 3)])
def test_every_size_gets_the_maps_of_the_model(dynamic: tuple[int, ...]) -> None:
    batch = 2 if 0 in dynamic else 1
    exported = program(batch, *dynamic)
    before = exported.graph_module.code
    assert [axis for axis, size in enumerate(example_shape(exported)) if size is None] == list(dynamic)
    ours, theirs = clarp.Explainer(exported, "sglrp"), clarp.Explainer(model(), "sglrp")
    for width in (8, 10):
        x = images(batch, 3, 12, width, seed=width)
        found, expected = (each(x, 1, layers=["conv", "relu"]) for each in (ours, theirs))
        assert apart(found.relevance, expected.relevance) < 1e-12
        for layer in ("conv", "relu"):
            assert apart(found.layers[layer], expected.layers[layer]) < 1e-12
    assert ours.plan((3, 12, 8)).rows()[0]["module"] == "conv"
    assert exported.graph_module.code == before


def test_a_size_that_the_program_refuses() -> None:
    with pytest.raises(ValueError, match=r"refuses images of shape \(3, 2, 8\)"):
        clarp.Explainer(program(2, 0, 2, 3), "lrp")(images(2, 3, 2, 8))


def test_a_program_that_can_not_be_fixed(monkeypatch: pytest.MonkeyPatch) -> None:
    exported = program(2, 0, 2, 3)

    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("something inside\nand more of it")

    monkeypatch.setattr(torch.export, "export", fails)
    with pytest.raises(
        clarp.CaptureError, match=r"\(None, 3, None, None\).*\(2, 3, 12, 8\): something inside\. Export"
    ):
        clarp.Explainer(exported, "lrp")(images(2, 3, 12, 8))
