"""What people write in a forward besides mathematics: it does not change the map, or it is refused by its true reason."""

import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import clarp
from oracle.calls import captured, images

Forward = Callable[["Net", Tensor], Tensor]


class Net(nn.Module):
    """A small network whose forward is given; all share their weights."""

    def __init__(self, forward: Forward | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.fc = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Linear(4, 3)
        self.how = forward
        self.register_buffer("scale", torch.tensor(2.0))
        self.register_buffer("few", torch.tensor([True, False, True, True]))
        self.register_buffer("deviations", torch.tensor([1.0, 1.0, 1.0]))

    def features(self, x: Tensor) -> Tensor:
        return F.relu(self.b(F.relu(self.a(x))))

    def plain(self, x: Tensor) -> Tensor:
        return self.fc(self.features(x).mean((2, 3)))

    def forward(self, x: Tensor) -> Tensor:
        return self.how(self, x) if self.how else self.plain(x)


@cache
def made(forward: Forward | None = None) -> Net:
    """One for each forward, so that it is captured once; no test changes it."""
    return Net(forward).double().eval()


def reshaped(how: Callable[[Tensor], Tensor]) -> Forward:
    return lambda net, x: net.fc(how(net.features(x).mean((2, 3))))


def hooked(net: Net, x: Tensor) -> Tensor:
    features = net.features(x)
    features.register_hook(lambda gradient: gradient)
    features.retain_grad()
    handle = features.register_post_accumulate_grad_hook(lambda tensor: None)
    handle.remove()
    return net.fc(features.mean((2, 3)))


def branching(net: Net, x: Tensor) -> Tensor:
    if net.scale > 1 and (net.deviations == 1).all() and torch.equal(net.scale, net.scale):
        return net.plain(x)
    return -net.plain(x)


def normalised(net: Net, x: Tensor) -> Tensor:
    """torchvision's ``F.normalize``, as it is written there."""
    mean, std = torch.as_tensor([0.0] * 3, dtype=x.dtype), torch.as_tensor([1.0] * 3, dtype=x.dtype)
    if (std == 0).any():
        raise ValueError("std evaluated to zero")
    return net.plain(x.clone().sub_(mean.view(-1, 1, 1)).div_(std.view(-1, 1, 1)))


def checking(net: Net, x: Tensor) -> Tensor:
    assert x.max() < 100, "no photo"
    assert x.ndim == 4
    assert x.shape[1] == 3
    if torch.isnan(x).any():
        raise ValueError("not a number")
    low = x.min().item()
    assert low > -100
    if low < -50:
        warnings.warn(f"{low} is dark", stacklevel=2)
    return net.plain(x)


def showing(net: Net, x: Tensor) -> Tensor:
    brightness = x.mean().item()
    print("brightness", brightness, f"{brightness:.3f}", x[0, 0, 0, 0], f"{x[0, 0, 0, 0]:.2f}")  # noqa: T201  as users do
    print(float(x.max()))  # noqa: T201  as users do
    return net.plain(x)


ALIKE: dict[str, Forward] = {
    "to a device": lambda n, x: n.plain(x.to(n.fc.weight.device)),
    "to a device and type": lambda n, x: n.plain(x.to(device=n.fc.weight.device, dtype=torch.float64)),
    "to another": lambda n, x: n.plain(x.to(n.fc.weight)),
    "to the CPU": lambda n, x: n.plain(x.cpu()),
    "type_as": lambda n, x: n.plain(x.type_as(n.fc.weight)).type_as(x),
    "type": lambda n, x: n.plain(x.type(torch.float64).double()),
    "contiguous, non-blocking": lambda n, x: n.plain(x.to("cpu", non_blocking=True).contiguous()),
    "len": reshaped(lambda f: f.view(len(f), -1)),
    "len twice": reshaped(lambda f: f.reshape(len(f), 2, 2).reshape(len(f), 4)),
    "int of a size": reshaped(lambda f: f.view(int(f.size(0)), -1)),
    "a list of sizes": reshaped(lambda f: f.view([int(s) for s in f.shape])),
    "expanded by a length": lambda n, x: n.plain(x) + n.fc.bias.new_zeros(1, 3).expand(len(x), 3),
    "hooks on tensors": hooked,
    "a gradient asked for": lambda n, x: n.plain(x.requires_grad_()),
    "a constant branch": branching,
    "torchvision's normalize": normalised,
    "an item of a constant": lambda n, x: n.plain(x) * (n.scale.item() / 2),
    "float of a constant": lambda n, x: n.plain(x) * (float(n.scale) - 1),
    "a list of constants": lambda n, x: n.plain(x) * n.deviations.tolist()[1],
    "numpy of a constant": lambda n, x: n.plain(x) * n.deviations.numpy().sum().item() / 3,
    "checks": checking,
    "prints": showing,
    "a size printed": lambda n, x: (print(x.shape), n.plain(x))[1],  # noqa: T201  as users do
    "nan to num": lambda n, x: n.plain(x.detach().clone()),
}


@pytest.mark.parametrize("name", ALIKE)
def test_the_same_map(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    x = images(3, 3, 8, 8)
    expected = clarp.Explainer(captured(made()), "lrp")(x, target=1)
    found = clarp.Explainer(made(ALIKE[name]), "lrp")(x, target=1)
    assert torch.allclose(found.logits, expected.logits)
    assert torch.allclose(found.relevance, expected.relevance, rtol=1e-9, atol=1e-12)
    assert capsys.readouterr().err == ""


def test_a_forward_that_checks_the_range_of_its_pixels() -> None:
    def ranged(net: Net, x: Tensor) -> Tensor:
        assert x.min() >= 0
        if x.max() > 1:
            raise ValueError("pixels go from 0 to 1")
        return net.plain(x)

    x = images(3, 3, 8, 8).sigmoid()
    expected = clarp.Explainer(captured(made()), "lrp")(x, target=1)
    assert torch.allclose(clarp.Explainer(made(ranged), "lrp")(x, target=1).relevance, expected.relevance)


MASKS: dict[str, tuple[Forward, Forward]] = {
    "a constant mask": (
        reshaped(lambda f: f[:, torch.tensor([False, True, True, True])].repeat(1, 2)[:, :4]),
        reshaped(lambda f: f[:, 1:].repeat(1, 2)[:, :4]),
    ),
    "a buffer": (
        lambda n, x: n.plain(x)[:, n.few[:3]],
        lambda n, x: n.plain(x)[:, [0, 2]],
    ),
    "two axes": (
        lambda n, x: n.fc(n.features(x)[:, :, torch.eye(4, dtype=torch.bool)].mean(2)),
        lambda n, x: n.fc(torch.diagonal(n.features(x), dim1=2, dim2=3).mean(2)),
    ),
}


@pytest.mark.parametrize("name", MASKS)
def test_constant_masks(name: str) -> None:
    x = images(3, 3, 8, 8)
    found, expected = (clarp.Explainer(made(how), "lrp")(x, target=1) for how in MASKS[name])
    assert torch.allclose(found.relevance, expected.relevance, rtol=1e-9, atol=1e-12)


LIMITS = torch.tensor([0.1, float("nan"), -0.2], dtype=torch.float64)


def scaled_by_masks(net: Net, x: Tensor) -> Tensor:
    """As torchxrayvision scales its findings by their thresholds, some of which are not a number."""
    y = net.plain(x)
    limits = LIMITS.expand(y.shape[0], -1)
    low, high = (y < limits) & ~limits.isnan(), ~(y < limits) & ~limits.isnan()
    found = torch.zeros_like(y) + 0.5
    found[low] = y[low] / (limits[low] * 2)
    found[high] = 1.0 - (1.0 - y[high]) / ((1 - limits[high]) * 2)
    return found


def scaled_by_where(net: Net, x: Tensor) -> Tensor:
    y = net.plain(x)
    known = LIMITS.nan_to_num(1.0)
    found = torch.where(y < known, y / (2 * known), 1 - (1 - y) / (2 * (1 - LIMITS.nan_to_num(0.0))))
    return torch.where(LIMITS.isnan(), 0.5, found)


def written(change: Callable[[Tensor], Tensor]) -> Forward:
    """A part of the features written back where they are positive."""

    def forward(net: Net, x: Tensor) -> Tensor:
        y = net.plain(x) * 1.0
        y[y > 0] = change(y[y > 0])
        return y

    return forward


def chosen(change: Callable[[Tensor], Tensor], fill: float) -> Forward:
    """The same by ``torch.where``."""

    def forward(net: Net, x: Tensor) -> Tensor:
        y = net.plain(x)
        return torch.where(y > 0, change(torch.where(y > 0, y, fill)), y)

    return forward


WRITTEN: dict[str, tuple[Forward, Forward]] = {
    "scaled by thresholds": (scaled_by_masks, scaled_by_where),
    "a function of each": (written(lambda v: 2 * v.sqrt()), chosen(lambda v: 2 * v.sqrt(), 1.0)),
    "torch's function": (
        written(lambda v: torch.exp(-v) + v**2),
        chosen(lambda v: torch.exp(-v) + v**2, 1.0),
    ),
    "a clamp": (written(lambda v: v.clamp(max=0.3).mul(0.5)), chosen(lambda v: v.clamp(max=0.3) * 0.5, 1.0)),
}


@pytest.mark.parametrize("method", ["lrp", "ssglrp"])
@pytest.mark.parametrize("name", WRITTEN)
def test_values_written_by_a_mask_of_the_image(name: str, method: str) -> None:
    x = images(3, 3, 8, 8)
    found, expected = (clarp.Explainer(captured(made(how)), method)(x, target=2) for how in WRITTEN[name])
    assert torch.allclose(found.logits, expected.logits)
    assert bool(found.relevance.isfinite().all())
    assert torch.allclose(found.relevance, expected.relevance, rtol=1e-9, atol=1e-12)


def branch(net: Net, x: Tensor) -> Tensor:
    if x.mean() > 0:
        return net.plain(x)
    return -net.plain(x)


def late_branch(net: Net, x: Tensor) -> Tensor:
    brightness = x.mean().item()
    return net.plain(x) if brightness > 0 else -net.plain(x)


def swapped(net: Net, x: Tensor) -> Tensor:
    """As many values as there is room for, from elsewhere."""
    y = net.plain(x) * 1.0
    y[y == y.amin(1, keepdim=True)] = y[y == y.amax(1, keepdim=True)]
    return y


REFUSED: dict[str, tuple[Forward, str]] = {
    "a branch on the image": (branch, "reads a value of the image in Python at .*test_everyday.py"),
    "a later branch": (late_branch, "reads a value of the image in Python at .*test_everyday.py"),
    "a number of the image": (lambda n, x: n.plain(x) * x.mean().item(), "reads a value of the image"),
    "float of the image": (lambda n, x: n.plain(x) * float(x.max()), "reads a value of the image"),
    "a list of the image": (lambda n, x: n.plain(x) * x.mean((1, 2, 3)).tolist()[0], "reads a value of the image"),
    "a mask of the image": (lambda n, x: n.plain(x) + n.features(x)[n.features(x) > 0].mean(), "by a mask that is computed"),
    "another mask": (swapped, "write them back by the same mask"),
    "a sum over a mask": (lambda n, x: n.plain(x) + n.features(x)[n.features(x) > 0].sum(), "by a mask that is computed"),
    "another function for more images": (lambda n, x: n.plain(x) * (3 if x.shape[0] > 4 else 1), "for a batch of more than 4"),
    "the same by len": (lambda n, x: n.plain(x) * (3 if len(x) > 4 else 1), "same for one image as for several"),
    "one image alone": (lambda n, x: n.plain(x) if x.shape[0] > 1 else -n.plain(x), "same for one image as for several"),
    "image by image": (lambda n, x: torch.cat([n.plain(x[i : i + 1]) for i in range(len(x))]), "batch"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_the_true_reason(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    how, reason = REFUSED[name]
    with pytest.raises(clarp.CaptureError, match=reason):
        clarp.Explainer(made(how), "lrp")(images(3, 3, 8, 8))
    assert capsys.readouterr().err == ""


def test_up_to_128_images_a_branch_on_their_number_is_tried() -> None:
    x = images(3, 3, 8, 8)
    with pytest.raises(clarp.CaptureError, match="for a batch of more than 127"):
        clarp.Explainer(made(lambda n, x: n.plain(x) * (3 if x.shape[0] > 127 else 1)), "lrp")(x)
    beyond = made(lambda n, x: n.plain(x) * (3 if x.shape[0] > 128 else 1))
    assert torch.equal(clarp.Explainer(beyond, "lrp")(x).logits, clarp.Explainer(made(), "lrp")(x).logits)


@pytest.mark.parametrize("error", [AttributeError, TypeError, KeyError, RuntimeError])
def test_what_a_forward_raises_is_told_in_our_words(error: Any) -> None:
    def raising(net: Net, x: Tensor) -> Tensor:
        raise error("of its own")

    with pytest.raises(ValueError, match=r"the model refuses images of shape .*of its own"):
        clarp.Explainer(made(raising), "lrp")(images(3, 3, 8, 8))


def test_a_distance_to_many_centres_is_no_branch_on_the_batch() -> None:
    """PyTorch computes it otherwise beyond 25 images; what an image gets stays the same."""
    centres = images(5, 3, seed=3)
    x = images(30, 3, 8, 8)
    network = made(lambda n, x: torch.cdist(n.plain(x), centres))
    assert torch.allclose(clarp.Explainer(network, "lrp")(x).logits, network(x))


def test_one_hot_targets_are_refused() -> None:
    x, explainer = images(2, 3, 8, 8), clarp.Explainer(made(), "lrp")
    with pytest.raises(ValueError, match="one-hot"):
        explainer(x, target=F.one_hot(torch.tensor([2, 0]), 3))
    several = explainer(x, target=[[0, 1, 2], [1, 0, 0]])
    assert several.relevance.shape == (2, 3, 3, 8, 8)
