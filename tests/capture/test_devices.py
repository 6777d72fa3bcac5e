"""Models on another device, as far as that can be tried without one: fake tensors know where they are, and refuse to mix."""

from typing import Any

import pytest
import torch
from torch import Tensor, fx
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import clarp
from clarp.models._torchvision import torchvision
from clarp.network import Network
from clarp.operations.call import Call
from clarp.operations.indexing import rearranged
from clarp.passes import Passes
from clarp.propagation import Program

aten = torch.ops.aten


@pytest.mark.parametrize("which", ["index_select", "gather"])
def test_places_and_constants_meet_on_one_device(which: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "equal", lambda *_: True)  # fake tensors have no values
    graph = fx.Graph()
    x, index = graph.placeholder("x"), graph.placeholder("index")
    calls: dict[str, tuple[Any, tuple[Any, ...], tuple[int, ...]]] = {
        "index_select": (aten.index_select.default, (x, 1, index), (3,)),
        "gather": (aten.gather.default, (x, 1, index), (2, 3, 1, 1)),
    }
    target, arguments, shape = calls[which]
    node = graph.call_function(target, arguments)
    with FakeTensorMode():
        constant = torch.zeros(shape, dtype=torch.int64, device="cuda")
        x.meta["val"] = torch.empty(2, 4, 6, 6, device="cuda")
        node.meta["val"] = torch.empty(2, 3, *((1, 1) if which == "gather" else (6, 6)), device="cuda")
        call = Call(node, {"index": constant}, {}, 2)
        operation, _ = rearranged(call)
    assert call.tensors[operation.index].device.type == "cuda"


class OnlyThere(TorchDispatchMode):
    """Refuse operations that mix values of the device "meta", which has none, with those of another."""

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor) and value.ndim]
        assert {value.device.type for value in given} <= {"meta"}, f"{operation} mixes devices"
        return operation(*args, **(kwargs or {}))


def transformer() -> Any:
    return torchvision.models.VisionTransformer(
        image_size=64, patch_size=16, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=10
    )


def swin() -> Any:
    """With windows that are shifted and such that are not, before and behind a merging of patches."""
    return torchvision.models.SwinTransformer([4, 4], 24, [2, 2], [1, 2], [7, 7], num_classes=10)


OWN = {"swin": swin, "transformer": transformer}


@pytest.mark.parametrize("name", ["resnet18", "shufflenet_v2_x0_5", "efficientnet_b0", *OWN])
def test_nothing_waits_for_the_cpu(name: str) -> None:
    """Forwards, gradients and relevance on a device without values: no constant is elsewhere, and nobody looks at a value."""
    model = (OWN[name]() if name in OWN else torchvision.models.get_model(name)).eval()
    network, there = Network(model), torch.device("meta")
    for name_of_method in ("clarp", "ssglrp", "slrp", "clrp2"):
        method = clarp.Method.named(name_of_method)
        plan = clarp.Explainer(network, method).plan((3, 64, 64))
        program = Program(plan, there, torch.float32, torch.bfloat16, gradients=True)
        with OnlyThere(), torch.no_grad():
            images = torch.rand(2, 3, 64, 64, device=there)
            cached = program.forward(images)
            seed = torch.rand(3, 2, cached.logits.shape[1], device=there)
            target = torch.zeros(3, 2, dtype=torch.int64, device=there)
            passes = Passes(method, program, cached, target, seed > 0, seed, (images - 1, images + 1))
            maps = passes.maps(())
        assert maps.relevance.shape == (3, 2, 3, 64, 64)
        amounts = [amount for entry in maps.ledger for amount in (entry.arrived, entry.handed_on, entry.bias)]
        assert {value.device.type for value in (maps.relevance, maps.skipped, *amounts)} == {"meta"}
