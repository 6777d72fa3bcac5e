"""Transformers: which composite a method has there, and which rule their dense layers have."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

import clarp
from clarp import Method, rules
from clarp.propagation.ledger import SINKS
from clarp.rules.composites import Composite

X = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


class Transformer(nn.Module):
    """Patches of 4 px, blocks of attention and an MLP, the mean of the tokens, a head."""

    def __init__(self, blocks: int, convolutions: int = 0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.patches = nn.Conv2d(3, 8, 4, 4)
        self.stem = nn.Sequential(*(nn.Conv2d(3, 3, 3, padding=1) for _ in range(convolutions)))
        layer = nn.TransformerEncoderLayer(8, 2, 16, activation="gelu", batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(layer, blocks, enable_nested_tensor=False)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(self.stem(x)).flatten(2).transpose(1, 2)
        out: Tensor = self.head(self.blocks(tokens).mean(1))
        return out


class Mixed(nn.Module):
    """Dense layers at every position, without attention."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.patches = nn.Conv2d(3, 8, 4, 4)
        self.layers = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU())
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.layers(self.patches(x).flatten(2).transpose(1, 2)).mean(1))
        return out


def made(model: nn.Module, method: str | Method = "lrp", **options: str) -> clarp.Explainer:
    return clarp.Explainer(model.double().eval(), method, bounds=(0.0, 1.0), **options)  # type: ignore[arg-type]


def dense_rules(explainer: clarp.Explainer) -> Sequence[tuple[bool, rules.Rule]]:
    """Of each dense layer whether it acts at every position, and its rule."""
    steps = explainer.plan((3, 8, 8))
    return [(len(s.node.shape) > 1, s.rule) for s in steps if type(s.node.operation).__name__ == "Dense"]


@pytest.mark.parametrize(
    ("method", "composite"),
    [("lrp", "zplus-gamma"), ("ssglrp", "zplus-gamma"), ("clarp", "epsilon-plus-gamma")],
)
def test_a_transformer_has_rules_of_its_own(method: str, composite: str) -> None:
    explainer = made(Transformer(2), method)
    found = dense_rules(explainer)
    assert len(found) == 9
    tokens, head = (rules.Epsilon(),) * 2 if method == "clarp" else (rules.Gamma(), rules.ZPlus())
    assert {rule for at_tokens, rule in found if at_tokens} == {tokens}
    assert [rule for at_tokens, rule in found if not at_tokens] == [head]
    plan = explainer.plan((3, 8, 8))
    assert [step.rule for step in plan if step.reads_pixels] == [rules.Gamma()]
    assert {step.rule for step in plan if type(step.node.operation).__name__ == "Add"} == {rules.Gamma(1.0)}
    explanation = explainer(X, 0)
    assert explanation.method.rules.name == explanation.describe()["composite"] == composite
    assert explanation.bounds_source == "not used"


@pytest.mark.parametrize(
    "model", [Mixed(), Transformer(1, convolutions=4)], ids=["no attention", "more convolutions than tokens"]
)
def test_other_networks_keep_the_papers_composite(model: nn.Module) -> None:
    assert made(model)(X, 0).method.rules.name == "zplus-box"


def test_what_was_asked_for_by_name_stays() -> None:
    assert made(Transformer(2), composite="zplus-box")(X, 0).method.rules.name == "zplus-box"


def test_a_changed_default_keeps_its_changes() -> None:
    own = clarp.composites.get(Method.named("lrp").rules, residual="proportional")
    found = made(Transformer(2), Method(composite=own))(X, 0).method.rules
    assert found == clarp.composites.get("zplus-gamma", residual="proportional")


def test_tokens_without_a_rule_of_their_own_are_dense_layers() -> None:
    own = Composite("own", rules.ZPlus(), rules.Epsilon())
    assert {rule for _, rule in dense_rules(made(Transformer(1), Method(composite=own)))} == {rules.Epsilon()}


def test_what_reaches_pixels_and_biases_is_the_seed() -> None:
    ledger = made(Transformer(3), "clarp")(X, [[0, 3]] * 2).ledger
    taken = sum((ledger.total(what) for what in SINKS), torch.zeros(2, 2))
    assert torch.allclose(ledger.pixels + taken, ledger.seed, rtol=1e-9, atol=1e-12)
    assert (ledger.pixels.abs() > 0.1 * ledger.seed.abs()).all()


def test_a_rule_for_tokens_is_a_rule_for_linear_operations() -> None:
    with pytest.raises(TypeError, match=r"tokens=Taylor\(\), expected a LinearRule"):
        Composite("own", rules.ZPlus(), rules.ZPlus(), tokens=rules.Taylor())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"tokens=ZBox\(\), which needs the bounds"):
        Composite("own", rules.ZPlus(), rules.ZPlus(), tokens=rules.ZBox())
