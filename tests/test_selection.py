"""Selection where there is nothing to select by."""

import pytest
import torch
from torch import nn

import clarp


def never_positive() -> nn.Module:
    """The target's logit falls with every feature: no gradient is positive behind the convolutions."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.ReLU(),
        nn.Conv2d(4, 5, 3),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(5, 3),
    )
    with torch.no_grad():
        for layer in (model[0], model[2]):
            layer.weight.abs_()
        model[-1].weight.copy_(torch.tensor([[-1.0], [1.0], [1.0]]).expand(3, 5))
    return model.double().eval()


@pytest.mark.parametrize("composite", ["zplus-box", "epsilon", "epsilon-gamma-box"])
@pytest.mark.parametrize("form", ["channel", "element", "neuron", "neuron-mask"])
def test_skipped_means_unchanged(form: str, composite: str) -> None:
    images = torch.rand(2, 3, 8, 8, dtype=torch.float64)
    seed = clarp.seeds.SoftmaxGradient()
    selected = clarp.Explainer(never_positive(), clarp.Method(seed, clarp.Selection(form), composite))(
        images, 0
    )
    plain = clarp.Explainer(never_positive(), clarp.Method(seed, None, composite))(images, 0)
    convolutions = 1 if form.startswith("neuron") else 2
    assert selected.selection_skipped.tolist() == [convolutions, convolutions]
    assert torch.allclose(selected.relevance, plain.relevance, rtol=1e-12)
    assert plain.relevance.abs().sum() > 0
