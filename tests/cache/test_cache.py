"""A graph from the cache is that of this very model, or it is not used."""

import functools
import importlib.util
import math
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

import clarp
from clarp import network as network_module
from clarp.cache import default_folder
from clarp.cache import folder as folder_module
from clarp.cache import key as key_module
from clarp.network import Network
from oracle import nets

SHAPE = (3, 12, 12)
SOURCE = """
import torch
from torch import nn

SLOPE = 0.0

def activation(x):
    return torch.nn.functional.leaky_relu(x, SLOPE) if SLOPE else x.relu()

class Net(nn.Module):
    def __init__(self, eps=1e-5, doubled=False):
        super().__init__()
        self.conv, self.norm, self.doubled = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, eps=eps), doubled
        self.head = nn.Linear(4, 5)

    def forward(self, x):
        x = self.body(x)
        return self.head(x.mean((2, 3)))

    def body(self, x):
        x = activation(self.norm(self.conv(x)))
        return 2 * x if self.doubled else x

def build(**options):
    torch.manual_seed(0)
    return Net(**options).eval()
"""


def module_of(path: Path, source: str = SOURCE) -> ModuleType:
    """The file, imported anew."""
    path.write_text(source)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    exec(compile(source, str(path), "exec"), vars(module))
    return module


@pytest.fixture
def captures(monkeypatch: pytest.MonkeyPatch) -> list[nn.Module]:
    """The models that were captured since."""
    found: list[nn.Module] = []
    capture = network_module.capture_module

    def counted(model: nn.Module, *arguments: object) -> object:
        found.append(model)
        return capture(model, *arguments)

    monkeypatch.setattr(network_module, "capture_module", counted)
    return found


@pytest.fixture
def net(tmp_path: Path) -> ModuleType:
    return module_of(tmp_path / "net_in_a_file.py")


def graph(model: nn.Module, folder: Path, dtype: torch.dtype = torch.float32) -> clarp.capture.Graph:
    return Network(model, cache=folder).graph(SHAPE, dtype)


def same(one: clarp.capture.Graph, other: clarp.capture.Graph) -> bool:
    return (
        (one.nodes, one.input, one.output, one.input_shape, dict(one.outputs), one.link)
        == (other.nodes, other.input, other.output, other.input_shape, dict(other.outputs), other.link)
        and one.tensors.keys() == other.tensors.keys()
        and all(
            torch.equal(value, other.tensors[name]) and value.stride() == other.tensors[name].stride()
            for name, value in one.tensors.items()
        )
    )


def test_the_second_time_nothing_is_captured(net: ModuleType, tmp_path: Path, captures: list) -> None:
    first = graph(net.build(), tmp_path)
    second = graph(net.build(), tmp_path)
    assert len(captures) == 1
    assert same(first, second)
    assert same(first, Network(net.build()).graph(SHAPE, torch.float32))


def test_without_a_folder_nothing_is_written(net: ModuleType, tmp_path: Path, captures: list) -> None:
    before = sorted(tmp_path.rglob("*"))
    for _ in range(2):
        Network(net.build()).graph(SHAPE, torch.float32)
    assert len(captures) == 2
    assert sorted(tmp_path.rglob("*")) == before


def test_explanations_are_the_same_to_the_last_bit(net: ModuleType, tmp_path: Path, captures: list) -> None:
    x = torch.rand(2, *SHAPE)
    made = [clarp.Explainer(Network(net.build(), cache=tmp_path), "ssglrp")(x, [1, 2]) for _ in range(2)]
    assert len(captures) == 1
    assert torch.equal(made[0].relevance, made[1].relevance)
    assert str(made[0].ledger) == str(made[1].ledger)


@pytest.mark.parametrize("spelling", nets.SPELLINGS)
def test_a_graph_of_everything_is_read_as_it_was_written(
    spelling: str, tmp_path: Path, captures: list
) -> None:
    plan: nets.Plan = (
        ("conv", {"conv": {"in_channels": 3, "out_channels": 4, "kernel_size": 3}, "norm": True}),
        ("relu6", {}),
        ("residual", {"inputs": 4, "outputs": 6, "stride": 2, "bias": True}),
        ("max", {"kernel_size": 3, "stride": 1, "padding": 1, "ceil_mode": True}),
        ("preact", {"channels": 6}),
        ("upsample", {"mode": "bilinear"}),
        ("avg", {"kernel_size": 2, "stride": 1, "padding": 0, "ceil_mode": False}),
        ("global", {"inputs": 6, "outputs": 5}),
    )
    made = [
        graph(nn.Sequential(nets.build(plan, spelling), nn.Softmax(-1)).eval(), tmp_path, torch.float64)
        for _ in range(2)
    ]
    assert len(captures) == 1
    assert made[0].link is not None
    assert same(*made)


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


def compiled(model: nn.Module) -> None:
    model._compiled_call_impl = model.forward


def opaque(model: nn.Module) -> None:
    model.generator = torch.Generator()


@pytest.mark.parametrize("change", [hooked, compiled, opaque])
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


@pytest.mark.parametrize("place", [0, 70, 0.5, -1])
def test_a_damaged_file(place: float, net: ModuleType, tmp_path: Path, captures: list) -> None:
    first = graph(net.build(), tmp_path)
    (path,) = tmp_path.glob("*.graph")
    content = bytearray(path.read_bytes())
    content[int(place * len(content)) if place == 0.5 else int(place)] ^= 1
    path.write_bytes(content)
    assert same(graph(net.build(), tmp_path), first)
    assert len(captures) == 2
    assert same(graph(net.build(), tmp_path), first)
    assert len(captures) == 2


@pytest.mark.parametrize("size", [0, 10, 1000])
def test_a_file_cut_short(size: int, net: ModuleType, tmp_path: Path, captures: list) -> None:
    graph(net.build(), tmp_path)
    (path,) = tmp_path.glob("*.graph")
    path.write_bytes(path.read_bytes()[:size])
    graph(net.build(), tmp_path)
    assert len(captures) == 2


WRITER = """
import sys
import torch
sys.path.insert(0, {folder!r})
import net_in_a_file
from clarp.network import Network
{more}
print("ready", flush=True)
graph = Network(net_in_a_file.build(), cache={folder!r}).graph({shape!r}, torch.float32)
print(len(graph.nodes), flush=True)
"""


def start(folder: Path, more: str = "") -> subprocess.Popen[str]:
    source = WRITER.format(folder=str(folder), shape=SHAPE, more=textwrap.dedent(more))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", source], stdout=subprocess.PIPE, text=True, env=environment
    )


def test_two_processes_at_once_and_one_killed_while_it_writes(
    net: ModuleType, tmp_path: Path, captures: list
) -> None:
    both = [start(tmp_path), start(tmp_path)]
    counts = [process.communicate(timeout=240)[0].split() for process in both]
    assert counts[0] == counts[1]
    assert [path.suffix for path in tmp_path.glob("*.graph")] == [".graph"]
    (path,) = tmp_path.glob("*.graph")
    path.unlink()
    # os.fsync comes after the bytes and before the rename: there it dies.
    killed = start(tmp_path, "import os, signal\nos.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)")
    killed.communicate(timeout=240)
    assert killed.returncode == -signal.SIGKILL
    assert not list(tmp_path.glob("*.graph"))
    (left,) = tmp_path.glob(".*.tmp")
    os.utime(left, (time.time() - 2 * folder_module.ABANDONED,) * 2)
    graph(net.build(), tmp_path)
    assert len(captures) == 1
    assert not left.exists()


def test_a_folder_that_can_t_be_written_to(net: ModuleType, tmp_path: Path, captures: list) -> None:
    (tmp_path / "file").write_text("in the way")
    for _ in range(2):
        graph(net.build(), tmp_path / "file" / "folder")
    assert len(captures) == 2


def test_the_oldest_goes_first(net: ModuleType, tmp_path: Path, monkeypatch) -> None:
    graph(net.build(), tmp_path)
    (first,) = tmp_path.glob("*.graph")
    os.utime(first, (1, 1))
    monkeypatch.setattr(folder_module, "LIMIT", first.stat().st_size + 10)
    graph(net.build(doubled=True), tmp_path)
    (second,) = tmp_path.glob("*.graph")
    assert second != first


def test_the_memory_keeps_the_last_sizes(net: ModuleType) -> None:
    network = Network(net.build())
    first = network.graph(SHAPE, torch.float32)
    for size in range(network_module.KEPT - 1):
        network.graph((3, 13 + size, 12), torch.float32)
    assert network.graph(SHAPE, torch.float32) is first
    assert network.input_shape() == SHAPE
    network.graph((3, 12, 13), torch.float32)
    assert network.graph(SHAPE, torch.float32) is first
    assert len(network._captured) == network_module.KEPT


def test_where_the_folder_is(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CLARP_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "clarp"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_folder() == Path.home() / ".cache" / "clarp"
    monkeypatch.setenv("CLARP_CACHE", str(tmp_path / "own"))
    assert default_folder() == tmp_path / "own"
    monkeypatch.setenv("CLARP_CACHE", "OFF")
    assert default_folder() is None
    (tmp_path / "file").touch()
    monkeypatch.setenv("CLARP_CACHE", str(tmp_path / "file"))
    with pytest.raises(ValueError, match=r"CLARP_CACHE is .* a file; expected a folder, or off"):
        default_folder()
