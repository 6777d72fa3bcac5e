"""A model that makes its images larger or smaller first: their pixels are pixels still."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import clarp

LOW, HIGH = -2.0, 2.0
RESIZE = {
    "nearest": lambda x: F.interpolate(x, size=(17, 17), mode="nearest"),
    "bilinear": lambda x: F.interpolate(x, size=(17, 17), mode="bilinear"),
    "bilinear, smoothed": lambda x: F.interpolate(x, size=(17, 17), mode="bilinear", antialias=True),
    "bicubic": lambda x: F.interpolate(x, size=(17, 17), mode="bicubic"),
    "bicubic, smoothed": lambda x: F.interpolate(x, size=(17, 17), mode="bicubic", antialias=True),
    "pooled": lambda x: F.avg_pool2d(x, 2),
}


class Resizing(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.how = how
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, bias=False), nn.ReLU(), nn.Conv2d(8, 8, 3, bias=False), nn.ReLU()
        )
        self.head = nn.Linear(8, 4, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(RESIZE[self.how](x)).mean((2, 3)))


def dark_object() -> Tensor:
    """Bright, and in the middle darker than the mean of the pixels."""
    image = torch.full((1, 3, 32, 32), 1.5, dtype=torch.float64)
    image[:, :, 10:22, 10:22] = -1.5 + 0.3 * torch.rand(1, 3, 12, 12, dtype=torch.float64)
    return image


@pytest.mark.parametrize("how", RESIZE)
def test_the_first_rule_reads_the_pixels_behind_it(how: str) -> None:
    explainer = clarp.Explainer(Resizing(how).double().eval(), "lrp", bounds=(LOW, HIGH))
    found = explainer(dark_object(), 1)
    assert found.bounds_source == "given"
    rules = [repr(step.rule) for step in explainer.plan()]
    assert rules.count("ZBox()") == (3 if "bi" in how else 2)  # two axes, one after the other
    torch.testing.assert_close(found.ledger.pixels, found.ledger.seed)
    size = found.relevance.abs().sum() / found.ledger.size
    assert size == pytest.approx(1, abs=1e-6)  # z+ and z^B: all of one sign
    dark = found.relevance.abs()[..., 10:22, 10:22].sum() / found.relevance.abs().sum()
    assert dark > 0.1


@pytest.mark.parametrize("how", RESIZE)
def test_in_the_middle_of_a_network_it_is_an_average(how: str) -> None:
    class Middle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.first, self.second, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.second(RESIZE[how](self.first(x))).relu().mean((2, 3)))

    plan = clarp.Explainer(Middle().double().eval(), "lrp").plan((3, 32, 32))
    kinds = [(type(step.node.operation).__name__, repr(step.rule)) for step in plan]
    assert {rule for kind, rule in kinds if kind in {"Interpolate", "Resample", "AveragePool"}} == {"Norm()"}
    assert [rule for kind, rule in kinds if kind == "Convolution"] == ["ZBox()", "ZPlus()"]
