"""Selection: where there is nothing to select by, stages, and what clarp makes of it."""

import dataclasses
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import clarp
from clarp.operations import Convolution
from clarp.rules import LinearRule
from clarp.selection import RunningSelection
from oracle.calls import captured


@cache
def never_positive() -> nn.Module:
    """The target's logit falls with every feature: no gradient is positive behind the convolutions. No test changes it."""
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
    selected, plain = (
        clarp.Explainer(captured(never_positive()), clarp.Method(seed, selection, composite))(images, 0)
        for selection in (clarp.Selection(form), None)
    )
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
        for step in clarp.Explainer(captured(never_positive()), "lrp").plan((3, 8, 8))
        if step.node.module == "2"
    )
    running = RunningSelection(torch.zeros(1, 1, dtype=torch.long))
    running.add(clarp.Selection(form), node, lambda: gradient)
    torch.testing.assert_close(running.select(node.name, relevance), relevance)


@pytest.mark.parametrize(
    "method", ["slrp", clarp.Method(clarp.seeds.SoftmaxGradient(), clarp.Selection("channel"))]
)
def test_gradients_that_cancel_select_nothing(method: str | clarp.Method) -> None:
    """Behind an instance norm a channel's gradients sum to zero; the sign of the rounding chose the channels, other ones in each batch."""
    torch.manual_seed(0)
    block = [
        nn.Conv2d(3, 6, 3),
        nn.InstanceNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 6, 3),
        nn.InstanceNorm2d(6),
        nn.ReLU(),
    ]
    model = nn.Sequential(*block, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)).double().eval()
    images = torch.rand(4, 3, 12, 12, dtype=torch.float64)
    explainer = clarp.Explainer(model, method, bounds=(0.0, 1.0))
    batch = explainer(images, [0, 1, 2, 3])
    single = torch.cat([explainer(images[i : i + 1], i).relevance for i in range(4)])
    torch.testing.assert_close(batch.relevance, single)
    assert batch.selection_skipped.tolist() == [1 if method == "slrp" else 2] * 4


def test_gradients_are_computed_as_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """They travel beside the relevance; computed all before it, they cost as much memory as the forward pass."""
    events: list[str] = []
    gradient, propagate = Convolution.gradient, LinearRule.propagate

    def noted_gradient(self: Convolution, *rest: Any) -> Any:
        events.append("gradient")
        return gradient(self, *rest)

    def noted_propagate(self: LinearRule, relevance: Tensor, site: Any) -> Any:
        events.extend(["relevance"] if isinstance(site.operation, Convolution) else [])
        return propagate(self, relevance, site)

    monkeypatch.setattr(Convolution, "gradient", noted_gradient)
    monkeypatch.setattr(LinearRule, "propagate", noted_propagate)
    blocks = [part for _ in range(3) for part in (nn.Conv2d(4, 4, 3), nn.ReLU())]
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), *blocks, nn.Flatten(), nn.Linear(4 * 4 * 4, 5))
    clarp.Explainer(model.eval(), "ssglrp")(torch.rand(2, 3, 12, 12), 1)
    # What comes behind is the look at the relevance that was lost.
    assert events[:7] == ["gradient", "relevance"] * 3 + ["relevance"]


def test_the_gradient_of_a_value_that_several_sums_read() -> None:
    """A sum hands both of its inputs one and the same gradient: what joins it at one of them is not the other's."""

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.one, self.two = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
            self.head = nn.Linear(4, 5)

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x).relu()
            y = self.one(x) + x
            return self.head((self.two(y) + x).relu().mean((2, 3)))

    torch.manual_seed(0)
    model, x = Twice().double().eval(), torch.rand(2, 3, 6, 6, dtype=torch.float64, requires_grad=True)
    seed = torch.rand(2, 2, 5, dtype=torch.float64)
    program = clarp.Explainer(model, "ssglrp")._program(x.detach())[0]
    cached, name = program.forward(x.detach()), program.plan.graph.input
    found = dict(program.gradients(cached, seed, {name}))
    for one, direction in zip(found[name], seed, strict=True):
        (expected,) = torch.autograd.grad(model(x), x, direction)
        torch.testing.assert_close(one, expected)


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


@pytest.mark.parametrize("leads", [True, False])
def test_clarps_head_decomposes_the_lead(leads: bool) -> None:
    """Relevance at the last features is what each contributes to the target's lead, over rivals that are not ahead of it."""
    model = residual_gap()
    with torch.no_grad():
        model.head.weight.abs_()  # type: ignore[operator,union-attr]
    images = torch.rand(2, 3, 8, 8, dtype=torch.float64)
    ranked = model(images).argsort(1, descending=True)
    target = ranked[:, 0] if leads else ranked[:, -1]
    found = clarp.Explainer(model, "clarp")(images, target, layers=["block"])

    features = model.features(images)  # type: ignore[operator]
    features.retain_grad()
    logits = model.head(features.mean((2, 3)))  # type: ignore[operator]
    own = logits.gather(1, target[:, None])[:, 0]
    shares = logits.detach().scatter(1, target[:, None], -torch.inf).softmax(1)
    rivals = (shares * logits).sum(1)
    lead = own - rivals if leads else own - rivals * (own / rivals).detach()
    lead.sum().backward()
    evidence = features * features.grad
    assert torch.allclose(evidence.sum((1, 2, 3)), lead, atol=1e-12)
    assert torch.allclose(found.ledger.seed, lead, atol=1e-12)
    assert ((evidence > 0).flatten(1).any(1) & (evidence < 0).flatten(1).any(1)).all()
    beside = model.down(model.first(images).relu()).relu()  # type: ignore[operator]
    block = model.block(beside)  # type: ignore[operator]
    share = block.abs() / (block.abs() + beside.abs())
    torch.testing.assert_close(found.layers["block"], evidence * share, rtol=1e-3, atol=1e-6)


def test_the_rivals_count_no_more_than_a_target_that_trails() -> None:
    """Seeds by hand: ahead, behind, no evidence at all, and rivals without any."""
    two = torch.tensor([False, True, True])
    for logits, expected in [
        ([4.0, 1.0, 1.0], [4.0, -0.5, -0.5]),
        ([1.0, 4.0, 4.0], [1.0, -0.5, -0.5]),
        ([-1.0, 4.0, 4.0], [-1.0, 0.0, 0.0]),
        ([1.0, -4.0, -4.0], [1.0, 2.0, 2.0]),
    ]:
        found = clarp.seeds.Contrast().relevance(
            torch.tensor([logits]), torch.tensor([[0]]), two.view(1, 1, 3)
        )
        torch.testing.assert_close(found, torch.tensor([[expected]]))


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
    for layers in ("last", "last-stage"):
        assert [node.module for node in clarp.Selection("channel", layers).nodes(plan)] == ["0"]
    assert torch.isfinite(clarp.attribute(model, torch.rand(1, 3, 8, 8), 0, method="clarp")).all()


@cache
def gated() -> nn.Module:
    """Two convolutions, and behind them squeeze and excitation, whose convolutions are called last."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 8, 3)
            self.squeeze, self.excite = nn.Conv2d(8, 2, 1), nn.Conv2d(2, 8, 1)
            self.head = nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = self.second(self.first(x).relu()).relu()
            gate = self.excite(self.squeeze(x.mean((2, 3), keepdim=True)).relu()).sigmoid()
            return self.head((x * gate).mean((2, 3)))

    torch.manual_seed(0)
    return Net().double().eval()


@pytest.mark.parametrize("form", ["channel", "neuron"])
def test_the_last_convolution_is_none_of_a_gate(form: str) -> None:
    plan = clarp.Explainer(captured(gated()), "lrp").plan((3, 8, 8))
    assert [node.module for node in clarp.Selection(form, "last").nodes(plan)] == ["second"]


@cache
def attended() -> nn.Module:
    """Two convolutions, and behind them CBAM's gate of places: a convolution with as many positions as they."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 8, 3, padding=1)
            self.places = nn.Conv2d(2, 1, 7, padding=3)
            self.head = nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = self.second(self.first(x).relu()).relu()
            seen = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
            return self.head((x * self.places(seen).sigmoid()).mean((2, 3)))

    torch.manual_seed(0)
    return Net().double().eval()


@pytest.mark.parametrize("form", ["channel", "neuron"])
def test_a_gate_of_places_is_no_last_convolution(form: str) -> None:
    plan = clarp.Explainer(captured(attended()), "lrp").plan((3, 8, 8))
    assert [node.module for node in clarp.Selection(form, "last").nodes(plan)] == ["second"]
    assert [node.module for node in plan.convolutions()] == ["first", "second"]
    with pytest.raises(ValueError, match=r"'places'.*a gate's get none.*second"):
        clarp.Selection(form, ("places",)).nodes(plan)


@pytest.mark.parametrize("rule", [clarp.rules.Flat(), clarp.rules.WSquare()])
def test_rules_that_do_not_look_at_inputs_refuse_to_select_them(rule: clarp.rules.LinearRule) -> None:
    composite = clarp.composites.Composite("even", rule, clarp.rules.ZPlus())
    images = torch.rand(1, 3, 8, 8, dtype=torch.float64)
    for form in ("neuron", "neuron-mask"):
        method = clarp.Method(clarp.seeds.SoftmaxGradient(), clarp.Selection(form), composite)
        with pytest.raises(ValueError, match=rf"{form}.*{type(rule).__name__}\(\) at '2'.*ZPlus.*'channel'"):
            clarp.Explainer(captured(never_positive()), method)(images, 0)
    channel = clarp.Method(clarp.seeds.SoftmaxGradient(), clarp.Selection("channel"), composite)
    assert clarp.Explainer(captured(never_positive()), channel)(images, 1).relevance.isfinite().all()


def test_a_first_layer_that_does_not_look_at_pixels_is_none_of_the_selected() -> None:
    images = torch.rand(1, 3, 8, 8, dtype=torch.float64)
    found = clarp.attribute(never_positive(), images, 1, method="ssglrp", composite="epsilon-plus-flat")
    assert found.abs().sum() > 0


def test_slrp_selects_in_front_of_a_gate() -> None:
    torch.manual_seed(1)
    images = torch.rand(1, 3, 8, 8, dtype=torch.float64)
    slrp, lrp = (clarp.Explainer(captured(gated()), m)(images, 0).relevance for m in ("slrp", "lrp"))
    assert not torch.allclose(slrp, lrp)


def test_where_no_convolution_has_positions_the_last_is_the_last_of_all() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Flatten(), nn.Linear(4, 3)).eval()
    plan = clarp.Explainer(model, "lrp").plan((3, 1, 1))
    assert [node.module for node in clarp.Selection("channel", "last").nodes(plan)] == ["1"]


class Patches(nn.Module):
    """Patches embedded by a convolution or a dense layer, two dense layers at every patch, a smaller stage of one more."""

    def __init__(self, embedding: nn.Module) -> None:
        super().__init__()
        self.embedding = embedding
        self.up, self.down = nn.Linear(6, 8), nn.Linear(8, 6)
        self.last, self.head = nn.Linear(24, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(self.embedding, nn.Conv2d):
            x = self.embedding(x).permute(0, 2, 3, 1)
        else:
            x = x.unflatten(3, (4, 2)).unflatten(2, (4, 2)).permute(0, 2, 4, 1, 3, 5).flatten(3)
            x = self.embedding(x)
        x = self.down(self.up(x).relu())
        x = x.unflatten(2, (2, 2)).unflatten(1, (2, 2)).permute(0, 1, 3, 2, 4, 5).flatten(3)
        return self.head(self.last(x).relu().mean((1, 2)))


def test_dense_layers_are_selected_under_rules_of_one_sign_only() -> None:
    """A deep transformer with the epsilon rule in its dense layers: sums of either sign nearly cancel, and relevance was infinite."""
    model = Patches(nn.Conv2d(3, 6, 2, 2)).double().eval()
    for composite, selected in [
        ("zplus-box", 3),
        ("epsilon-alpha2-beta1", 0),
        ("epsilon-plus", 0),
        ("epsilon", 0),
    ]:
        plan = clarp.Explainer(captured(model), "lrp", composite=composite).plan((3, 8, 8))
        assert len(clarp.Selection("neuron").nodes(plan)) == selected
    images = torch.rand(1, 3, 8, 8, dtype=torch.float64)
    found = [
        clarp.Explainer(captured(model), m, composite="epsilon-plus")(images, 0).relevance
        for m in ("ssglrp", "sglrp")
    ]
    assert torch.equal(*found)
    plan = clarp.Explainer(captured(model), "lrp", composite="epsilon-plus").plan((3, 8, 8))
    with pytest.raises(
        ValueError, match=r"'up', where the form 'neuron' selects nothing.*neither z\+ nor alpha-beta"
    ):
        clarp.Selection("neuron", ("up",)).nodes(plan)


def test_a_vision_transformer_with_epsilon_has_numbers() -> None:
    from clarp.models._torchvision import torchvision  # noqa: PLC0415

    torch.manual_seed(0)
    model = torchvision.models.VisionTransformer(32, 8, 12, 4, 32, 64, num_classes=10).eval()
    torch.nn.init.normal_(model.heads.head.weight, std=0.05)
    images = torch.rand(1, 3, 32, 32)
    for method in ("ssglrp", "clarp", "sglrp"):
        explainer = clarp.Explainer(captured(model), method, composite="epsilon-plus")
        assert explainer(images, 1).relevance.isfinite().all()


@pytest.mark.parametrize("embedding", [nn.Conv2d(3, 6, 2, 2), nn.Linear(12, 6)])
def test_stages_of_dense_layers(embedding: nn.Module) -> None:
    """Their channels are the last axis, and what embeds the pixels is left out in neuron form."""
    plan = clarp.Explainer(Patches(embedding).eval(), "lrp").plan((3, 8, 8))
    names = {
        layers: [node.module for node in clarp.Selection("neuron", layers).nodes(plan)]
        for layers in ("all", "last", "before-last-stage", "last-stage")
    }
    assert names["all"] == ["up", "down", "last"]
    assert names["last"] == names["last-stage"] == ["last"]
    assert names["before-last-stage"] == ["up", "down"]


@pytest.mark.parametrize(("method", "selects"), [("ssglrp", True), ("clarp", False)])
def test_dense_layers_at_every_position_need_no_convolution(method: str, selects: bool) -> None:
    """``clarp`` has the epsilon rule there, under which nothing is selected."""
    torch.manual_seed(0)
    model = Patches(nn.Linear(12, 6)).double().eval()
    images = torch.rand(1, 3, 8, 8, dtype=torch.float64)
    without = dataclasses.replace(clarp.Method.named(method), selection=None)
    maps = [clarp.Explainer(captured(model), m)(images, 0).relevance for m in (method, without)]
    assert torch.equal(*maps) != selects
    with pytest.raises(ValueError, match="needs convolutions, and the model has none"):
        clarp.Explainer(captured(model), "slrp")(images, 0)


def refusal(model: nn.Module, selection: clarp.Selection) -> str:
    with pytest.raises(ValueError, match="layers ") as caught:
        selection.nodes(clarp.Explainer(captured(model), "lrp").plan((3, 8, 8)))
    return str(caught.value)


def test_no_layer_before_the_last_stage_is_refused() -> None:
    same = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 1), nn.Flatten(), nn.Linear(256, 2)
    ).eval()
    assert "belong to the last stage (64 positions)" in refusal(
        same, clarp.Selection("channel", "before-last-stage")
    )


def test_a_name_that_can_not_be_selected_at_says_why() -> None:
    chain = never_positive()
    assert "reads the pixels" in refusal(chain, clarp.Selection("neuron", ("0",)))
    assert "The nearest are 2." in refusal(chain, clarp.Selection("neuron", ("third",)))
    one = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 2)).eval()
    assert "reads the pixels" in refusal(one, clarp.Selection("neuron", ("0",)))
    assert refusal(one, clarp.Selection("neuron", ("second",))).endswith("none behind the first layer.")


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
