"""When a model is captured anew."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import clarp
from clarp.model_state import changed, state_of
from clarp.network import Network
from oracle.calls import images

SHAPE = (3, 6, 5)


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)
    ).eval()


def test_as_long_as_nothing_changes_the_graph_is_the_same() -> None:
    model = net()
    model.register_buffer("odd", torch.tensor([torch.inf, -torch.inf]))
    network = Network(model)
    first = network.graph(SHAPE, torch.float32)
    model(images(1, *SHAPE).float())
    assert network.graph(SHAPE, torch.float32) is first


def test_another_module_in_the_place_of_one() -> None:
    """It has no parameter that could tell."""
    model = net()
    network = Network(model)
    first = network.graph(SHAPE, torch.float32)
    model[1] = nn.GELU().eval()
    second = network.graph(SHAPE, torch.float32)
    assert [type(node.operation).__name__ for node in first][1] == "ReLU"
    assert [type(node.operation).__name__ for node in second][1] == "GELU"


def test_another_stride() -> None:
    model = net()
    network = Network(model)
    first = network.graph(SHAPE, torch.float32)
    model[0].stride = (2, 2)
    assert network.graph(SHAPE, torch.float32) is not first


@pytest.mark.parametrize("place", range(6))
def test_another_whole_number_at_any_place_of_a_buffer(place: int) -> None:
    """Changes through ``.data`` are seen by the sum alone."""
    model = net()
    model.register_buffer("table", torch.zeros(2, 3, dtype=torch.long))
    before = state_of(model)
    model.table.data.view(-1)[place] = 1
    assert changed(before, state_of(model)) == {("", "table")}


class Odd(nn.Module):
    """Everything that a forward may depend on besides parameters and buffers."""

    wide = False

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.pool, self.head = nn.Conv2d(3, 4, 3), nn.AvgPool2d(3, 1, 1), nn.Linear(4, 5)
        self.temperature, self.skip, self.scales = 1.0, False, [1.0, 2.0]
        self.plain = torch.ones(4, 1, 1)
        self.act: Callable[[Tensor], Tensor] = torch.relu
        self.last: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.conv(x)) * self.plain * self.scales[1]
        x = x if self.skip else self.pool(x) * (2.0 if self.wide else 1.0)
        return self.head(x.mean((2, 3))) / self.temperature


CHANGES: dict[str, Callable[[Odd], object]] = {
    "a number": lambda m: setattr(m, "temperature", 3.0),
    "a flag": lambda m: setattr(m, "skip", True),
    "an attribute in place of the class's": lambda m: setattr(m, "wide", True),
    "a number in a list": lambda m: m.scales.__setitem__(1, 5.0),
    "an option that no module prints": lambda m: setattr(m.pool, "count_include_pad", False),
    "a tensor that is no buffer": lambda m: m.plain[:2].zero_(),
    "a function": lambda m: setattr(m, "act", torch.nn.functional.softplus),
    "a hook": lambda m: m.conv.register_forward_hook(
        lambda _, __, y: y * torch.tensor([0.0, 1, 1, 1]).view(4, 1, 1)
    ),
    "a hook before": lambda m: m.head.register_forward_pre_hook(lambda _, given: (given[0] * 2,)),
    "weights that change places": lambda m: m.conv.weight.data.copy_(m.conv.weight.data.flip(-1)),
    "filters that change places": lambda m: m.conv.weight.data.copy_(m.conv.weight.data.flip(0)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_changes_the_model_is_explained(change: str) -> None:
    model, x = Odd().eval(), images(1, 3, 8, 8).float()
    explainer = clarp.Explainer(model, "lrp", composite="epsilon-plus")
    explainer(x, 1)
    with torch.no_grad():
        CHANGES[change](model)
    found = explainer(x, 1)
    with torch.no_grad():
        torch.testing.assert_close(found.logits, model(x))
    fresh = clarp.Explainer(model, "lrp", composite="epsilon-plus")(x, 1)
    assert torch.equal(found.relevance, fresh.relevance)
    assert explainer(x, 1).relevance.equal(fresh.relevance)


class Remembers(nn.Module):
    """Keeps what it saw last, as models do that show their attention."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head, self.seen = nn.Conv2d(3, 4, 3), nn.Linear(4, 5), []

    def forward(self, x: Tensor) -> Tensor:
        self.seen = [tuple(x.shape), float(len(self.seen))]
        return self.head(self.conv(x).relu().mean((2, 3)))


def test_what_the_forward_itself_leaves_behind_is_no_change() -> None:
    model = Remembers().eval()
    network = Network(model)
    first = network.graph(SHAPE, torch.float32)
    model(images(3, *SHAPE).float())
    assert network.graph(SHAPE, torch.float32) is first
    model.conv.stride = (2, 2)
    assert network.graph(SHAPE, torch.float32) is not first
