"""What is read from the cache is what was written, to the last bit."""

from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

import clarp
from cache.nets_in_files import SHAPE, graph, same
from clarp.network import Network
from oracle import nets


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


def test_exported_programs_are_not_kept(net: ModuleType, tmp_path: Path) -> None:
    program = torch.export.export(net.build(), (torch.rand(2, *SHAPE),))
    Network(program, cache=tmp_path / "cache").graph(SHAPE, torch.float32)
    assert not (tmp_path / "cache").exists()


def test_explanations_are_the_same_to_the_last_bit(net: ModuleType, tmp_path: Path, captures: list) -> None:
    x = torch.rand(2, *SHAPE)
    made = [clarp.Explainer(Network(net.build(), cache=tmp_path), "ssglrp")(x, [1, 2]) for _ in range(2)]
    assert len(captures) == 1
    assert torch.equal(made[0].relevance, made[1].relevance)
    assert str(made[0].ledger) == str(made[1].ledger)


def test_weights_have_their_old_memory_layout(net: ModuleType, tmp_path: Path, captures: list) -> None:
    """Another layout is rounded differently."""
    made = [graph(net.build().to(memory_format=torch.channels_last), tmp_path) for _ in range(2)]
    assert len(captures) == 1
    first, second = ({n: t.stride() for n, t in one.tensors.items()} for one in made)
    assert first == second
    assert any(t.ndim == 4 and not t.is_contiguous() for t in made[1].tensors.values())


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
