import math

import pytest
import torch
from torch import nn

from clarp import Explainer
from clarp.evaluation import Apart, DiFull
from clarp.evaluation.attribution import attributors
from clarp.method import methods
from clarp.network import Network

SIDE = 12
BOUNDS = (-4.0, 4.0)


@pytest.fixture
def net():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1),
            nn.ReLU(),
            nn.BatchNorm2d(6),
            nn.Conv2d(6, 8, 3, stride=2),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(32, 4),
        ).eval()
        with torch.no_grad():
            made[7].bias += 5.0  # logits above zero, so that LRP's maps have positive relevance
        return made


@pytest.fixture
def mosaics():
    return torch.randn(4, 3, 2 * SIDE, 2 * SIDE, generator=torch.Generator().manual_seed(1))


def cell_of(images, cell):
    top, left = SIDE * (cell // 2), SIDE * (cell % 2)
    return images[..., top : top + SIDE, left : left + SIDE]


CELLS, TARGETS = torch.tensor([0, 3, 1, 3]), torch.tensor([2, 0, 1, 3])


@pytest.mark.parametrize("name", list(methods()))
def test_a_map_is_that_of_the_photo_alone_and_exactly_zero_elsewhere(net, mosaics, name):
    for cell in (1, 2):
        maps = Explainer(Apart(net, 2, cell).eval(), name, bounds=BOUNDS)(mosaics, target=TARGETS).heatmap
        alone = Explainer(net, name, bounds=BOUNDS)(cell_of(mosaics, cell), target=TARGETS).heatmap
        inside = cell_of(maps, cell).clone()
        if name != "secant":  # it covers cells of the whole mosaic, by the whole mosaic's colour
            torch.testing.assert_close(inside, alone, atol=1e-6 * float(alone.abs().max()), rtol=1e-4)
        assert inside.any()
        cell_of(maps, cell).zero_()
        assert not maps.any()


def asked(net, mosaics, name, cells=CELLS):
    method, *_ = attributors([name], Network(net), bounds=BOUNDS, image=mosaics[0])

    def apart(network, numbers):
        return method.on(Network(network))(mosaics[numbers], TARGETS[numbers], ["a"] * len(numbers))

    maps = method(mosaics, TARGETS, ["a", "b", "c", "d"])
    return DiFull(2)(net, mosaics, maps, targets=TARGETS, cells=cells, apart=apart)


@pytest.mark.parametrize("name", ["lrp", "clrp2", "ssglrp", "input-x-gradient"])
def test_nothing_is_outside(net, mosaics, name):
    if name == "input-x-gradient":
        pytest.importorskip("captum")
    rows = asked(net, mosaics, name)
    assert rows["energy"].tolist() == pytest.approx([1.0] * 4)
    assert rows["outside"].tolist() == [0.0] * 4


def test_maps_that_do_not_look_are_found_out(net, mosaics):
    """Equals the shares counted pixel by pixel, for maps with every sign everywhere."""
    fixed = torch.randn(4, 24, 24, generator=torch.Generator().manual_seed(2))
    rows = DiFull(2)(
        net,
        mosaics,
        fixed,
        targets=TARGETS,
        cells=CELLS,
        apart=lambda network, numbers: fixed[numbers],
    )
    for i in range(4):
        inside = cell_of(fixed[i], int(CELLS[i])).double()
        whole = fixed[i].double()
        energy = float(inside.clamp(min=0).sum() / whole.clamp(min=0).sum())
        outside = 1 - float(inside.abs().sum() / whole.abs().sum())
        assert rows["energy"][i].item() == pytest.approx(energy)
        assert rows["outside"][i].item() == pytest.approx(outside)


def test_each_map_is_made_of_the_network_of_its_cell(net, mosaics):
    seen = []

    def apart(network, numbers):
        seen.append((network.cell, numbers.tolist()))
        return mosaics[numbers].sum(1)

    DiFull(2)(net, mosaics, mosaics[:, 0], targets=TARGETS, cells=CELLS, apart=apart)
    assert seen == [(0, [0]), (1, [2]), (3, [1, 3])]


def test_no_relevance_and_a_method_that_is_not_asked(net, mosaics):
    nothing = DiFull(2)(
        net,
        mosaics,
        mosaics[:, 0],
        targets=TARGETS,
        cells=CELLS,
        apart=lambda network, numbers: torch.zeros(len(numbers), 24, 24),
    )
    assert nothing["energy"].tolist() == [0.0] * 4
    assert all(math.isnan(value) for value in nothing["outside"])
    left_out = DiFull(2)(net, mosaics, mosaics[:, 0], targets=TARGETS, cells=CELLS, apart=None)
    assert all(math.isnan(value) for name in ("energy", "outside") for value in left_out[name])


def test_the_answer_is_the_cell_s(net, mosaics):
    for cell in range(4):
        torch.testing.assert_close(Apart(net, 2, cell)(mosaics), net(cell_of(mosaics, cell)))


def test_the_model_is_shared_and_left_alone(net):
    modes = [part.training for part in net.modules()]
    net[2].train()
    first = Apart(net, 2, 0)
    assert first.model is net
    assert net[2].training
    net[2].eval()
    assert [part.training for part in net.modules()] == modes


def test_refusals(net, mosaics):
    with pytest.raises(ValueError, match="23 x 24 pixels can't be cut into 2 x 2 equal cells"):
        Apart(net, 2, 0)(mosaics[:, :, 1:])
    with pytest.raises(ValueError, match="give one cell from 0 to 3 for each of 4 maps"):
        asked(net, mosaics, "lrp", cells=[0, 1, 2, 4])
    with pytest.raises(TypeError, match=r"need a torch\.nn\.Module, given was function"):
        list(DiFull().copies_of(lambda x: x))
    with pytest.raises(ValueError, match="n=0"):
        DiFull(0)
