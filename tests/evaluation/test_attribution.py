"""What makes the maps of a run: targets of one image share its forward pass, and pooled maps are of another method."""

import pytest
import torch
from torch import nn

from clarp.evaluation import Pooling
from clarp.evaluation.attribution import ClarpMethod, attributors
from clarp.explainer import Explainer
from clarp.network import Network


@pytest.fixture
def net():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 6, 3),
            nn.ReLU(),
            nn.Conv2d(6, 8, 3, stride=2),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(32, 5),
        ).eval()


IMAGES = torch.randn(4, 3, 20, 20, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("rows", "asked"),
    [
        ((0, 0, 1, 1, 2, 2), [(3, 2)]),
        ((0, 0, 0, 1, 2, 2, 2, 3), [(2, 3), (2, 1)]),
        ((0, 1, 2, 3), [(4,)]),
        ((0, 1, 0, 1), [(4,)]),  # not one after the other
        ((3, 3, 3, 3), [(1, 4)]),
    ],
)
@pytest.mark.parametrize("name", ["lrp", "ssglrp"])
def test_targets_of_one_image_share_its_forward_pass(net, monkeypatch, rows, asked, name):
    seen, explain = [], Explainer.__call__

    def counted(self, images, target, **options):
        seen.append(tuple(target.shape))
        return explain(self, images, target=target, **options)

    method, *_ = attributors([name], Network(net), bounds=(-4.0, 4.0))
    assert isinstance(method, ClarpMethod)
    targets = torch.tensor([number % 5 for number in range(len(rows))])
    alone = torch.cat(
        [method(IMAGES[row : row + 1], targets[i : i + 1], [f"{row}"]) for i, row in enumerate(rows)]
    )
    monkeypatch.setattr(Explainer, "__call__", counted)
    maps = method(IMAGES[list(rows)], targets, [f"{row}" for row in rows])
    assert seen == asked
    torch.testing.assert_close(maps, alone, atol=1e-6 * float(alone.abs().max()), rtol=1e-4)


def test_other_images_under_one_id_are_not_taken_for_one(net):
    method, *_ = attributors(["lrp"], Network(net), bounds=(-4.0, 4.0))
    targets = torch.tensor([0, 1, 2, 3])
    expected = method(IMAGES, targets, ["a", "b", "c", "d"])
    assert torch.equal(method(IMAGES, targets, ["a"] * 4), expected)


def test_pooled_maps_are_means_of_another_method_s(net):
    found = attributors(["pooled@lrp", "lrp", "pooled@lrp@epsilon-plus"], Network(net), bounds=(-4.0, 4.0))
    pooled, method, other, *controls = found
    assert [one.name for one in found] == [
        "pooled@lrp",
        "lrp",
        "pooled@lrp@epsilon-plus",
        "random",
        "centre",
    ]
    assert pooled.of is method
    assert pooled.coarse
    assert method.definition in pooled.definition
    assert "size=16" in pooled.definition
    assert "epsilon-plus" in other.definition
    targets, ids = torch.tensor([0, 1, 2, 3]), ["a", "b", "c", "d"]
    torch.testing.assert_close(
        pooled(IMAGES, targets, ids), Pooling(16)(method(IMAGES, targets, ids)), atol=0, rtol=0
    )
    assert pooled.on(Network(net)).name == "pooled@lrp"
    assert len(controls) == 2


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["pooled@lpr"], "Did you mean lrp"),
        (["pooled@lrp", "pooled@lrp"], "more than once"),
        (["pooled"], "pooled"),
    ],
)
def test_bad_names(net, names, message):
    with pytest.raises(ValueError, match=message):
        attributors(names, Network(net))
