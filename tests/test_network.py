"""When a model is captured anew."""

import torch
from torch import nn

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
