"""A graph from the cache is that of this very model, or it is not used."""

import functools
import math
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from cache.nets_in_files import SHAPE, SOURCE, graph, module_of, same
from clarp import network as network_module
from clarp.cache import folder as folder_module
from clarp.cache import key as key_module
from clarp.network import Network


def weight(model: nn.Module) -> None:
    model.conv.weight.data[0, 0, 0, 0] += 1e-3


def running_mean(model: nn.Module) -> None:
    model.norm.running_mean.data[2] = torch.nextafter(model.norm.running_mean[2], torch.tensor(9.0))


def channels_last(model: nn.Module) -> None:
    model.to(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    "change",
    [
        weight,
        running_mean,
        channels_last,
        lambda m: setattr(m, "doubled", True),
        lambda m: setattr(m.norm, "eps", 1.1e-5),
        lambda m: setattr(m.conv, "padding", (1, 1)),
        lambda m: setattr(m, "unused", "a note"),
        lambda m: setattr(m, "activation", functools.partial(torch.clamp, min=0.5)),
    ],
)
def test_another_model(
    change: Callable[[nn.Module], None], net: ModuleType, tmp_path: Path, captures: list
) -> None:
    graph(net.build(), tmp_path)
    changed = net.build()
    change(changed)
    found = graph(changed, tmp_path)
    assert len(captures) == 2
    assert same(found, Network(changed).graph(SHAPE, torch.float32))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("x.relu()", "x.relu() + 1"),
        ("x.relu()", "x.clamp(min=0)"),  # the same numbers, another operation
        ("SLOPE = 0.0", "SLOPE = 0.1"),
        ("2 * x if self.doubled else x", "3 * x if self.doubled else x"),
        ("return self.head(", "x = x.clone()\n        return self.head("),
    ],
)
def test_other_code_in_the_same_file(old: str, new: str, tmp_path: Path, captures: list) -> None:
    path = tmp_path / "net_in_a_file.py"
    graph(module_of(path).build(), tmp_path)
    assert old in SOURCE
    changed = module_of(path, SOURCE.replace(old, new))
    found = graph(changed.build(), tmp_path)
    assert len(captures) == 2
    assert same(found, Network(changed.build()).graph(SHAPE, torch.float32))


def test_a_file_that_changed_after_it_was_imported(net: ModuleType, tmp_path: Path, captures: list) -> None:
    """What counts is the code in memory: the graph of the old code must not be found for the new."""
    path = tmp_path / "net_in_a_file.py"
    path.write_text(SOURCE.replace("x.relu()", "x.clamp(min=0)"))
    graph(net.build(), tmp_path)
    graph(module_of(path, path.read_text()).build(), tmp_path)
    assert len(captures) == 2


def test_a_method_replaced_at_run_time(net: ModuleType, tmp_path: Path, captures: list) -> None:
    graph(net.build(), tmp_path)
    net.Net.body = lambda self, x: self.norm(self.conv(x)).relu()
    graph(net.build(), tmp_path)
    assert len(captures) == 2


def test_a_helper_in_another_file(tmp_path: Path, captures: list) -> None:
    source = SOURCE.replace("def activation(x):", "import a_helper\n\ndef _unused(x):").replace(
        "= activation(", "= a_helper.deep("
    )
    helper = "import torch\n\ndef deep(x):\n    return deeper(x)\n\ndef deeper(x):\n    return x.relu()\n"
    for text in (helper, helper, helper.replace("x.relu()", "x.clamp(min=0)")):
        module_of(tmp_path / "a_helper.py", text)
        graph(module_of(tmp_path / "net_in_a_file.py", source).build(), tmp_path)
    assert len(captures) == 2


class Closure(nn.Module):
    """Its forward is in an attribute."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function, self.head = function, nn.Linear(432, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.function(x).flatten(1))


def scaled(factor: float) -> Callable[[Tensor], Tensor]:
    return lambda x: x * factor


def test_closures_count_with_what_they_hold(tmp_path: Path, captures: list) -> None:
    for factor in (2.0, 2.0, math.pi):
        torch.manual_seed(0)
        graph(Closure(scaled(factor)).eval(), tmp_path)
    assert len(captures) == 2


@pytest.mark.parametrize("function", [nn.functional.relu, nn.functional.relu6, nn.functional.hardtanh])
def test_functions_of_torch_are_told_apart(
    function: Callable[[Tensor], Tensor], tmp_path: Path, captures: list
) -> None:
    for one in (function, torch.tanh):
        torch.manual_seed(0)
        graph(Closure(one).eval(), tmp_path)
    assert len(captures) == 2


def test_other_circumstances(net: ModuleType, tmp_path: Path, captures: list, monkeypatch) -> None:
    model = net.build()
    graph(model, tmp_path)
    monkeypatch.setattr(torch, "__version__", "2.99.0")
    graph(model, tmp_path)
    assert len(captures) == 2
    monkeypatch.setattr(key_module, "_own_code", lambda: "another clarp")
    graph(model, tmp_path)
    assert len(captures) == 3
    monkeypatch.setattr(key_module, "version", lambda name: f"{name} of tomorrow")
    graph(model, tmp_path)
    assert len(captures) == 4
    monkeypatch.setattr(network_module, "_device_name", lambda _: "cuda:0 of another kind")
    graph(model, tmp_path)
    assert len(captures) == 5
    graph(model, tmp_path, torch.float64)
    assert len(captures) == 6
    Network(model, cache=tmp_path).graph((3, 13, 12), torch.float32)
    assert len(captures) == 7
    graph(model, tmp_path)
    assert len(captures) == 7


def test_other_logits_though_the_key_is_the_same(
    net: ModuleType, tmp_path: Path, captures: list, monkeypatch
) -> None:
    """The last line of defence: whatever the key does not see changes what the model computes."""
    monkeypatch.setattr(folder_module, "graph_key", lambda *_: "the-same")
    graph(net.build(), tmp_path)
    graph(net.build(), tmp_path)
    assert len(captures) == 1
    changed = net.build()
    changed.head.bias.data[0] = torch.nextafter(changed.head.bias[0], torch.tensor(9.0))
    graph(changed, tmp_path)
    assert len(captures) == 2


def hooked(model: nn.Module) -> None:
    model.head.register_forward_hook(lambda *_: None)


def opaque(model: nn.Module) -> None:
    model.generator = torch.Generator()


@pytest.mark.parametrize("change", [hooked, opaque])
def test_what_can_t_be_told_apart_is_not_kept(
    change: Callable[[nn.Module], None], net: ModuleType, tmp_path: Path, captures: list
) -> None:
    model = net.build()
    change(model)
    for _ in range(2):
        graph(model, tmp_path)
    assert len(captures) == 2
    assert not list(tmp_path.glob("*.graph"))


def test_hooks_on_all_modules_are_hooks_too(net: ModuleType, tmp_path: Path) -> None:
    handle = nn.modules.module.register_module_forward_hook(lambda *_: None)
    try:
        graph(net.build(), tmp_path)
    finally:
        handle.remove()
    assert not list(tmp_path.glob("*.graph"))
