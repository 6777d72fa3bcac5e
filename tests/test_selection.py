"""Selection: where there is nothing to select by, stages, and what clarp makes of it."""

import pytest
import torch
from torch import Tensor, nn

import clarp
from clarp.selection import RunningSelection


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


@pytest.mark.parametrize("form", ["channel", "element"])
@pytest.mark.parametrize("left", [0.0, 1e-42, 1e-39, 1e-30, 0.5])
def test_what_leaves_next_to_nothing_does_not_overflow(left: float, form: str) -> None:
    """All relevance sits where the gradient is next to zero: ``sum |R|`` over what is left of it was infinite."""
    gradient = torch.tensor([1.0, left]).view(1, 1, 2, 1, 1).expand(1, 1, 2, 3, 3)
    relevance = torch.tensor([0.0, -2.0]).view(1, 1, 2, 1, 1).repeat(1, 1, 1, 3, 3)
    (node,) = (
        step.node
        for step in clarp.Explainer(never_positive(), "lrp").plan((3, 8, 8))
        if step.node.module == "2"
    )
    running = RunningSelection(torch.zeros(1, 1, dtype=torch.long))
    running.add(clarp.Selection(form), node, gradient)
    torch.testing.assert_close(running.select(node.name, relevance), relevance)


def residual_gap(channels: int = 6) -> nn.Module:
    """Two stages with a residual block, no biases, global average pooling and one dense layer."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, channels, 3, padding=1, bias=False)
            self.down = nn.Conv2d(channels, channels, 3, stride=2, padding=1, bias=False)
            self.block = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
            self.head = nn.Linear(channels, 4, bias=False)

        def features(self, x: Tensor) -> Tensor:
            x = self.down(self.first(x).relu()).relu()
            return (self.block(x) + x).relu()

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.features(x).mean((2, 3)))

    torch.manual_seed(0)
    return Net().double().eval()


def test_clarps_head_decomposes_the_lead() -> None:
    """Relevance at the last features is each one's contribution to the target's lead over its rivals."""
    model = residual_gap()
    images = torch.rand(2, 3, 8, 8, dtype=torch.float64)
    found = clarp.Explainer(model, "clarp")(images, 1, layers=["block"])

    features = model.features(images)  # type: ignore[operator]
    features.retain_grad()
    logits = model.head(features.mean((2, 3)))  # type: ignore[operator]
    rivals = logits.clone()
    rivals[:, 1] = -torch.inf
    lead = logits[:, 1] - (rivals.softmax(1).detach() * logits).sum(1)
    lead.sum().backward()
    evidence = features * features.grad
    assert torch.allclose(evidence.sum((1, 2, 3)), lead)
    assert torch.allclose(found.ledger.seed, lead)
    beside = model.down(model.first(images).relu()).relu()  # type: ignore[operator]
    block = model.block(beside)  # type: ignore[operator]
    share = block.abs() / (block.abs() + beside.abs())
    torch.testing.assert_close(found.layers["block"], evidence * share, rtol=1e-3, atol=1e-6)


def test_stages_are_complements() -> None:
    plan = clarp.Explainer(residual_gap(), "lrp").plan((3, 8, 8))
    names = {
        layers: [node.module for node in clarp.Selection("channel", layers).nodes(plan)]
        for layers in ("all", "before-last-stage", "last-stage")
    }
    assert names["before-last-stage"] == ["first"]
    assert names["last-stage"] == ["down", "block"]
    assert names["all"] == ["first", "down", "block"]


def test_a_last_convolution_behind_the_pooling_is_no_stage() -> None:
    """MobileNetV3 of timm has a convolution behind its global pooling."""
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Conv2d(4, 5, 1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(5, 3),
    ).eval()
    plan = clarp.Explainer(model, "lrp").plan((3, 8, 8))
    assert plan.last_spatial().module == "0"
    assert torch.isfinite(clarp.attribute(model, torch.rand(1, 3, 8, 8), 0, method="clarp")).all()


def test_clarp_needs_convolutions() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 2)).eval()
    with pytest.raises(ValueError, match="needs convolutions"):
        clarp.attribute(model, torch.rand(1, 3, 2, 2), 0, method="clarp")


def test_clarp_prefers_the_target_of_two_halves() -> None:
    """Two classes live in two halves of the picture: the positive map of one lies in its own half."""
    model = nn.Sequential(
        nn.Conv2d(3, 2, 1, bias=False), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2)
    ).eval()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, 0.1, 0.0], [0.1, 1.0, 0.0]]).view(2, 3, 1, 1))
        model[4].weight.copy_(torch.eye(2) * 4)
        model[4].bias.zero_()
    image = torch.zeros(1, 3, 4, 8)
    image[:, 0, :, :4] = 1  # red, class 0, on the left
    image[:, 1, :, 4:] = 1  # green, class 1, on the right
    first, second = clarp.Explainer(model, "clarp", bounds=(0, 1))(image, [[0, 1]]).heatmap[0]
    assert first[:, :4].sum() > 0
    assert first[:, 4:].max() <= 0
    assert second[:, 4:].sum() > 0
    assert second[:, :4].max() <= 0
