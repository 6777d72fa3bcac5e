"""Models on another device, as far as that can be tried without one: fake tensors know where they are, and refuse to mix."""

from typing import Any

import pytest
import torch
from torch import fx
from torch._subclasses import FakeTensorMode

from clarp.capture.lowering import Call
from clarp.capture.lowering.rearrange import rearranged

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
