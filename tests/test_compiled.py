"""Compiled explanations: the same as plain ones, for every size, and after the weights changed."""

from functools import cache

import pytest
import torch
from torch import Tensor, nn

import clarp
from clarp.network import Network
from clarp.rules import Pass
from clarp.rules.rule import Shares
from oracle.calls import apart, images


class Net(nn.Module):
    """A residual block, a pooling, a gate."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.gate, self.head = nn.Linear(6, 6), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.max_pool2d(self.first(x).relu(), 2)
        x = (x + self.second(x)).relu().mean((2, 3))
        return self.head(x * self.gate(x).sigmoid())


@cache
def network() -> Network:
    """Of a model that no test changes, so that it is captured once."""
    return Network(Net().double().eval())


X = images(3, 3, 8, 7)
CLASSES = [[0, 1], [4, 2], [3, 3]]


def alike(compiled: clarp.Explanation, plain: clarp.Explanation, tolerance: float = 1e-12) -> None:
    """Maps, layers, logits and the whole ledger."""
    assert apart(compiled.relevance, plain.relevance) < tolerance
    assert apart(compiled.logits, plain.logits) < tolerance
    assert torch.equal(compiled.selection_skipped, plain.selection_skipped)
    assert compiled.layers.keys() == plain.layers.keys()
    for name, relevance in plain.layers.items():
        assert apart(compiled.layers[name], relevance) < tolerance
    for ours, theirs in zip(compiled.ledger.rows(1), plain.ledger.rows(1), strict=True):
        for name, value in theirs.items():
            found = ours[name]
            assert found == (pytest.approx(value, abs=1e-10) if isinstance(value, float) else value)


@pytest.mark.parametrize("method", ["lrp", "clrp2", "sglrp", "ssglrp", "clarp"])
def test_recorded_explanations_are_the_plain_ones(method: str) -> None:
    """With PyTorch's backend that compiles nothing, the recording shows alone."""
    plain = clarp.Explainer(network(), method)(X, CLASSES, layers=["second"])
    alike(clarp.Explainer(network(), method, compile="eager")(X, CLASSES, layers=["second"]), plain)


@pytest.mark.filterwarnings(
    "ignore:.*script_method.*:DeprecationWarning"
)  # PyTorch's own import of its compiler
@pytest.mark.parametrize("backend", [pytest.param(True, marks=pytest.mark.slow), "aot_eager"])
def test_compiled_explanations_are_the_plain_ones(*, backend: bool | str) -> None:
    """The compiler proper takes most of a minute."""
    explainer = clarp.Explainer(network(), "ssglrp", compile=backend)
    alike(explainer(X, CLASSES), clarp.Explainer(network(), "ssglrp")(X, CLASSES))


def test_every_call_is_explained_anew() -> None:
    """Nothing of the recorded call stays: images, classes, rivals, sizes, layers and weights can change."""
    model = Net().double().eval()
    own = Network(model)
    compiled, plain = clarp.Explainer(own, "ssglrp", compile="eager"), clarp.Explainer(own, "ssglrp")
    calls: list[tuple[Tensor, list[int], list[int] | None, list[str]]] = [
        (X, [0, 1, 2], None, []),
        (X.flip(0) * 0.5, [4, 4, 0], [2, 3], []),
        (X, [0, 1, 2], None, ["first"]),
        (X[:2], [1, 2], None, []),
        (images(2, 3, 9, 9), [1, 2], None, []),
    ]
    for x, target, against, layers in calls:
        alike(compiled(x, target, against, layers=layers), plain(x, target, against, layers=layers))
    with torch.no_grad():
        model.head.weight.mul_(-1)
    alike(compiled(X, [0, 1, 2]), plain(X, [0, 1, 2]))


def test_a_size_is_recorded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the second call of a size only the compiled program runs."""
    explainer = clarp.Explainer(Net().eval(), "lrp", compile="eager")
    x = X.float()
    explainer(x, 0)
    monkeypatch.setattr(Pass, "propagate", None)
    assert explainer(x, 1).relevance.isfinite().all()
    with pytest.raises(TypeError):
        explainer(x[:1], 1)


@pytest.mark.parametrize(
    ("compile_", "error", "text"),
    [
        ("inductr", ValueError, "inductr.*expected True, False or a backend.*inductor"),
        ("cudagraphs", ValueError, "cudagraphs.*expected"),
        (1, TypeError, "compile is 1, expected True, False or the name"),
    ],
)
def test_what_is_no_compiler_is_refused(*, compile_: bool | str, error: type[Exception], text: str) -> None:
    """At once, and with what there is."""
    with pytest.raises(error, match=text):
        clarp.Explainer(Net().eval(), compile=compile_)


def test_a_rule_that_looks_at_values_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """What can't be recorded is said, with the remedy."""

    def looking(self: Pass, relevance: Tensor, context: object) -> Shares:
        del self, context
        return Shares((relevance * float(relevance.sum()),))

    monkeypatch.setattr(Pass, "propagate", looking)
    with pytest.raises(clarp.CaptureError, match=r"can't be compiled.*Leave compile out"):
        clarp.Explainer(Net().eval(), "lrp", compile="eager")(X.float(), 0)
