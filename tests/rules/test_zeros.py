"""Where there is nothing to divide by: exact zeros in sums with a constant, and in averages behind a ReLU."""

import pytest
import torch
from torch import Tensor, nn

import clarp
from clarp import rules
from oracle.calls import composite, images, propagate


class Shifted(nn.Module):
    """A position embedding with a zero in it."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.tensor([0.0, 0.0, 3.0, 1.0, -2.0, 0.0]).view(1, 2, 3))
        self.head = nn.Linear(6, 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head((x.exp().log() + self.shift).flatten(1))  # of pixels it would be another unit


def test_a_value_beside_a_constant_of_zero_keeps_everything() -> None:
    """Also where the value itself is zero; the others share by size."""
    model = Shifted().double().eval()
    with torch.no_grad():
        model.head.weight.copy_(torch.tensor([[1.0, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0]]))
    x = torch.tensor([0.0, 4.0, 1.0, -1.0, 2.0, 0.0], dtype=torch.float64).view(1, 1, 2, 3)
    seed = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    mine = composite(rules.Flat())
    ours = propagate(model, x, seed, mine)
    sixth = 1 / 6
    expected = [sixth, sixth, sixth / 4, sixth / 2, sixth / 2, sixth]
    assert ours.flatten().tolist() == pytest.approx(expected)


@pytest.mark.parametrize("rule", [rules.Norm(), rules.ZPlus(), rules.Zero()])
def test_an_average_of_what_a_relu_has_cut_off(rule: rules.LinearRule) -> None:
    """A window of zeros hands on nothing, and the others are not touched by it."""
    x = images(1, 1, 4, 4, seed=1)
    x[..., :2, :2] = -1.0
    model = nn.Sequential(nn.ReLU(), nn.AvgPool2d(2), nn.Flatten()).double().eval()
    R = torch.ones(1, 4, dtype=torch.float64)
    ours = propagate(model, x, R, composite(rules.Zero(), average=rule))
    assert torch.isfinite(ours).all()
    assert torch.count_nonzero(ours[..., :2, :2]) == 0
    windows = ours.unfold(2, 2, 2).unfold(3, 2, 2).sum((-1, -2)).flatten()
    assert torch.allclose(windows, torch.tensor([0.0, 1, 1, 1]).double())


@pytest.mark.parametrize("gamma", [0.5, 3.0])
def test_gammas_bias_of_outputs_of_both_signs(gamma: float) -> None:
    """``b + gamma b+`` over the denominator where z > 0, ``b + gamma b-`` where z < 0: both are in the ledger."""
    layer = nn.Linear(2, 4).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, -0.5], [-1.0, -0.5], [2.0, 1.0], [-3.0, 1.0]]))
        layer.bias.copy_(torch.tensor([0.5, -0.25, -0.5, 2.0]))
    x, seed = torch.tensor([1.0, 2.0], dtype=torch.float64), torch.tensor([1.0, 2.0, -3.0, 0.5]).double()
    expected = 0.0
    for w, b, r in zip(layer.weight.detach(), layer.bias.detach(), seed, strict=True):
        parts = w * x
        z = parts.sum() + b
        side = (lambda v: v.clamp(min=0)) if z > 0 else (lambda v: v.clamp(max=0))
        denominator = z + gamma * (side(parts).sum() + side(b))
        expected += float((b + gamma * side(b)) / denominator * r)
    method = clarp.Method(clarp.seeds.Vector(seed), composite=composite(rules.Gamma(gamma)))
    model = nn.Sequential(nn.Flatten(), layer).eval()
    e = clarp.Explainer(model, method)(x.view(1, 1, 1, 2), 0)
    assert e.ledger.total("bias").item() == pytest.approx(expected, rel=1e-10)
    assert e.ledger.total("epsilon").item() == pytest.approx(0.0, abs=1e-10)
