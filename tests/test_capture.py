"""The captured graph computes what the model computes: real architectures, aliases, shared and changed weights."""

import copy
import gc
import importlib.util
import weakref
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import clarp
from oracle import nets, network
from oracle.calls import apart, captured, images

pytest.importorskip("clarp.models._torchvision")

from torchvision import models


def calibrated(model: nn.Module, size: int = 64) -> nn.Module:
    """Batch-norm statistics as after training, then shaken, so that the logits depend on every layer."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        model.train()(images(4, 3, size, size, seed=9, dtype=torch.float32))
        for norm in norms:
            norm.running_mean += 0.3 * norm.running_var.sqrt() * torch.randn_like(norm.running_mean)
            norm.running_var *= torch.empty_like(norm.running_var).uniform_(0.5, 2.0)
            norm.weight.uniform_(0.6, 1.3)
            norm.bias.normal_(0.1, 0.2)
    return model.eval()


def vgg(features: int) -> nn.Module:
    with torch.device("meta"):
        model = models.VGG(nn.Identity(), num_classes=10, init_weights=False)
    model.features = models.vgg.make_layers(models.vgg.cfgs["D"], batch_norm=True)
    model.classifier[0], model.classifier[3] = nn.Linear(512 * 49, features), nn.Linear(features, features)
    model.classifier[6] = nn.Linear(features, 10)
    return model


def efficientnet_lite0() -> nn.Module:
    module = pytest.importorskip("efficientnet_lite_pytorch")
    return module.EfficientNet.from_name("efficientnet-lite0")


ARCHITECTURES: dict[str, Callable[[], nn.Module]] = {
    "vgg16_bn": lambda: vgg(64),
    "resnet18": lambda: models.resnet18(weights=None, num_classes=10),
    "resnet34": lambda: models.resnet34(weights=None, num_classes=10),
    "resnet50": lambda: models.resnet50(weights=None, num_classes=10),
    "efficientnet-lite0": efficientnet_lite0,
}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_logits_of_real_architectures(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Captured once, run with batches of 1, 2 and 5; the logits are the model's own."""
    model = calibrated(ARCHITECTURES[name]())
    exports = []
    export = torch.export.export
    monkeypatch.setattr(torch.export, "export", lambda *a, **k: exports.append(1) or export(*a, **k))
    explainer = clarp.Explainer(model, method="ssglrp")
    for batch in (2, 1, 5):
        x = images(batch, 3, 64, 64, seed=batch, dtype=torch.float32)
        explanation = explainer(x)
        with torch.no_grad():
            logits = model(x)
        assert apart(explanation.logits, logits) < 1e-4
        assert explanation.relevance.shape == x.shape
        assert torch.isfinite(explanation.relevance).all()
        assert (explanation.relevance != 0).any(dim=(1, 2, 3)).all()
        assert torch.equal(explanation.target, logits.argmax(1))
    assert len(exports) <= 1


def test_another_image_size_is_another_graph() -> None:
    """One explainer, several sizes."""
    model = calibrated(models.resnet18(weights=None, num_classes=10))
    explainer = clarp.Explainer(model, method="sglrp")
    for size in ((64, 64), (40, 56), (64, 64)):
        x = images(2, 3, *size, dtype=torch.float32)
        with torch.no_grad():
            assert apart(explainer(x).logits, model(x)) < 1e-4


def load_shared(shared: Path) -> Any:
    spec = importlib.util.spec_from_file_location(
        "imagenet_resnet34", shared / "models" / "imagenet_resnet34.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_users_own_resnet34(shared: Path) -> None:
    """Functional pads, slices, zero-padded channels, average-pool shortcuts; real weights."""
    model = load_shared(shared).build()
    explainer = clarp.Explainer(model, method="ssglrp")
    for batch in (1, 3):
        x = images(batch, 3, 96, 96, seed=batch, dtype=torch.float32).clamp(-2, 2) * 0.25
        with torch.no_grad():
            logits = model(x)
        explanation = explainer(x)
        assert apart(explanation.logits, logits) < 1e-4
        assert torch.isfinite(explanation.relevance).all()


SMALL: nets.Plan = (
    ("conv", {"conv": {"in_channels": 2, "out_channels": 3, "kernel_size": 3}, "norm": True}),
    ("relu", {}),
    ("global", {"inputs": 3, "outputs": 4}),
)


class Network(nn.Module):
    """A convolution, the operation under test on its output, and a dense layer."""

    def __init__(self, middle: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=1)
        self.middle = middle
        self.head = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.middle(self.conv(x)).mean((2, 3)))


def relu_read_by_earlier_view(x: Tensor) -> Tensor:
    view = x[:, :2]
    x.relu_()
    return x + F.pad(view, (0, 0, 0, 0, 0, 2))


def write_through_view(x: Tensor) -> Tensor:
    view = x[:, :2]
    view.relu_()
    return x + 0.0


def write_through_view_of_view(x: Tensor) -> Tensor:
    x[:, 1:][:, :, 2:].relu_()
    return x


def copy_before_write(x: Tensor) -> Tensor:
    y = x.clone()
    y.relu_()
    return x + y


def add_in_place(x: Tensor) -> Tensor:
    y = F.relu(x)
    x += y
    return x


def add_in_place_twice(x: Tensor) -> Tensor:
    y = F.relu(x)
    y += x
    y += x
    return y


def old_value_read_after_write(x: Tensor) -> Tensor:
    y = x + 0.0
    z = y[:, :, 1:, 1:]
    y.relu_()
    return z


def relu6_in_place(x: Tensor) -> Tensor:
    F.relu6(x, inplace=True)
    return x


def reshape_alias(x: Tensor) -> Tensor:
    flat = x.view(x.shape[0], -1)
    flat.relu_()
    return x


def hardtanh(x: Tensor) -> Tensor:
    return F.hardtanh(x, 0.0, 6.0)


def clamp(x: Tensor) -> Tensor:
    return x.clamp(min=0.0)


def threshold(x: Tensor) -> Tensor:
    return F.threshold(x, 0.0, 0.0)


ALIASES = (
    relu_read_by_earlier_view,
    write_through_view,
    write_through_view_of_view,
    copy_before_write,
    add_in_place,
    add_in_place_twice,
    old_value_read_after_write,
    relu6_in_place,
    reshape_alias,
    hardtanh,
    clamp,
    threshold,
)
IN_SCOPE = {relu_read_by_earlier_view, copy_before_write, add_in_place, add_in_place_twice, relu6_in_place}


@pytest.mark.parametrize("middle", ALIASES, ids=lambda middle: middle.__name__)
def test_aliases(middle: Callable[[Tensor], Tensor]) -> None:
    """In-place operations on values that others see: the right logits, or a refusal; never another network's map."""
    model = nets.randomise_(Network(middle), 3).double().eval()
    x = images(3, 2, 5, 5)
    with torch.no_grad():
        logits = model(x.clone())
    try:
        explanation = clarp.Explainer(model, method="lrp", composite="epsilon", dtype=torch.float64)(x)
    except clarp.UnsupportedOperation:
        assert middle not in IN_SCOPE
        return
    assert apart(explanation.logits, logits) < 1e-12
    assert torch.isfinite(explanation.relevance).all()


def far(x: Tensor) -> Tensor:
    """What a network does only to values that no random example image has."""
    return x.clamp(max=1e4)


WRITES: dict[str, Callable[[Tensor], Any]] = {
    "copy_ into a slice": lambda x: x[:, :2].copy_(far(x[:, :2])),
    "assignment to a slice": lambda x: x.__setitem__((slice(None), slice(0, 2)), far(x[:, :2])),
    "assignment to a channel": lambda x: x.__setitem__((slice(None), 0), far(x[:, 0])),
    "assignment to a mask": lambda x: x.__setitem__(x > 1e4, 1e4),
    "clamp_ of a slice": lambda x: x[:, :2].clamp_(max=1e4),
    "clamp_ of a channel": lambda x: x[:, 0].clamp_(max=1e4),
    "masked_fill_": lambda x: x.masked_fill_(x > 1e4, 1e4),
    "copy_ of everything": lambda x: x.copy_(far(x)),
    "out=": lambda x: torch.clamp(x, max=1e4, out=x.data),
}


@pytest.mark.parametrize("which", WRITES)
def test_a_write_is_never_dropped(which: str) -> None:
    """A write whose result nobody names is no dead code; the check on an example cannot notice these."""

    def middle(x: Tensor) -> Tensor:
        WRITES[which](x)
        return x

    model = nets.randomise_(Network(middle), 3).double().eval()
    x = images(3, 2, 5, 5) * 1e6
    with torch.no_grad():
        logits = model(x.clone())
    try:
        explanation = clarp.Explainer(model, method="lrp", composite="epsilon", dtype=torch.float64)(x)
    except clarp.CaptureError:
        return
    assert apart(explanation.logits, logits) < 1e-12


def test_relevance_through_an_alias() -> None:
    """x += relu(x) is x + relu(x), bit for bit, in the map too."""

    def apart_add(x: Tensor) -> Tensor:
        return x + F.relu(x)

    x = images(2, 2, 5, 5)
    maps = []
    for middle in (add_in_place, apart_add):
        model = nets.randomise_(Network(middle), 3).double().eval()
        maps.append(clarp.attribute(model, x, 1, "sglrp", composite="epsilon-plus"))
    assert torch.equal(*maps)


Row = tuple[str, int, int]
OPERATIONS = (
    "conv",
    "norm",
    "relu",
    "relu_",
    "relu_ a part",
    "relu_ a view",
    "add",
    "add_",
    "part",
    "cut",
    "max",
    "average",
    "alias",
    "view",
    "clone",
    "transpose",
)


class Program(nn.Module):
    """Random operations on a pool of values, some of them views of others, some written to in place."""

    def __init__(self, rows: tuple[Row, ...]) -> None:
        super().__init__()
        self.rows = rows
        self.stem = nn.Conv2d(2, 4, 3, padding=1)
        self.convs = nn.ModuleList(nn.Conv2d(4, 4, 3, padding=1) for _ in range(2))
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        pool = [self.stem(x)]
        for kind, i, j in self.rows:
            a, b = pool[i % len(pool)], pool[j % len(pool)]
            made = self.apply_row(kind, a, b, j)
            if made is not None:
                pool.append(made)
        total = pool[0]
        for value in pool[1:]:
            total = total + value
        return self.head(total.mean((2, 3)))

    def apply_row(self, kind: str, a: Tensor, b: Tensor, j: int) -> Tensor | None:
        """A new value, or None where it only wrote."""
        values: dict[str, Callable[[], Any]] = {
            "conv": lambda: self.convs[j % 2](a),
            "norm": lambda: self.norm(self.convs[j % 2](a)),
            "relu": lambda: F.relu(a),
            "relu_": a.relu_,
            "relu_ a part": lambda: F.relu(a[:, :2, 1:], inplace=True),
            "relu_ a view": lambda: a.view(a.shape[0], 4, -1).relu_() if a.is_contiguous() else a.relu_(),
            "add": lambda: a + b,
            "add_": lambda: a.add_(b),
            "part": lambda: F.pad(a[:, 1:3], (0, 0, 0, 0, 1, 1)),
            "cut": lambda: F.pad(a[:, :, 1:, :-1], (0, 1, 1, 0)),
            "max": lambda: F.max_pool2d(a, 3, 1, 1),
            "average": lambda: F.avg_pool2d(a, 3, 1, 1),
            "alias": lambda: a,
            "view": lambda: a.reshape(a.shape[0], -1).reshape(a.shape),
            "clone": a.clone,
            "transpose": lambda: a.transpose(2, 3),
        }
        value = values[kind]()
        return None if kind.startswith(("relu_", "add_")) else value


def slopes(model: nn.Module, x: Tensor, target: int) -> Tensor:
    """The gradient of a piecewise linear model by central differences: no autograd, so any in-place write is allowed."""
    size, step = x[0].numel(), 1e-6
    steps = step * torch.eye(size, dtype=x.dtype).reshape(size, *x.shape[1:])
    with torch.no_grad():
        rows = [(model(a + steps)[:, target] - model(a - steps)[:, target]) / (2 * step) for a in x]
    return torch.stack(rows).reshape(x.shape)


@settings(max_examples=40)
@given(
    rows=st.lists(
        st.tuples(st.sampled_from(OPERATIONS), st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=7
    ),
    seed=st.integers(0, 1000),
)
def test_any_program(rows: list[Row], seed: int) -> None:
    """The zero rule with proportional sums is gradient times input in a network of ReLUs: it sees every mistake of aliases.

    A network that cannot be captured is refused, and then nothing is claimed; most can.
    """
    model = nets.randomise_(Program(tuple(rows)), seed).double().eval()
    x = images(2, 2, 5, 5, seed=seed)
    try:
        with torch.no_grad():
            logits = model(x.clone())
    except RuntimeError:  # PyTorch refuses to write where the same memory is read
        reject()
    zero = clarp.composites.get("zero", residual="proportional")
    try:
        explanation = clarp.Explainer(model, "lrp", composite=zero, dtype=torch.float64)(x, 1)
    except clarp.UnsupportedOperation:
        assert any(kind in {"relu_ a part", "relu_ a view"} for kind, *_ in rows)
        return
    assert apart(explanation.logits, logits) < 1e-12
    assert apart(explanation.relevance, x * slopes(model, x, 1)) < 1e-6


@pytest.mark.parametrize("name", ["vgg16_bn", "resnet18", "resnet50"])
def test_zero_rule_is_gradient_times_input(name: str) -> None:
    """In a network of ReLUs, with proportional sums (Ancona 2018): whole architectures against autograd."""
    model = calibrated(ARCHITECTURES[name]()).double()
    check_gradient_times_input(model, images(2, 3, 64, 64))


def test_zero_rule_is_gradient_times_input_in_a_users_own_resnet34(shared: Path) -> None:
    check_gradient_times_input(load_shared(shared).build().double(), images(1, 3, 96, 96).clamp(-2, 2) * 0.25)


def check_gradient_times_input(model: nn.Module, x: Tensor) -> None:
    x = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model(x)[:, 3].sum(), x)
    zero = clarp.composites.get("zero", residual="proportional")
    ours = clarp.attribute(model, x.detach(), 3, "lrp", composite=zero)
    assert apart(ours, (x * gradient).detach()) < 1e-7


def test_views_and_pads() -> None:
    """Slices hand relevance to what they show, pads drop what they made up."""

    class Cut(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(2 * 5 * 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = F.pad(x[:, 1:, ::2, 1:-1], (0, 1, 1, 0, 1, 0))
            return self.head(x.flatten(1)[:, :40])

    model = nets.randomise_(Cut(), 1).double().eval()
    x = images(2, 2, 8, 5)
    with torch.no_grad():
        padded = F.pad(x[:, 1:, ::2, 1:-1], (0, 1, 1, 0, 1, 0)).flatten(1)
        assert padded.shape[1] == 40
        expected = torch.zeros_like(x)
        weight, logits = model.head.weight[1], model(x)[:, 1]
        share = padded * weight / (padded @ weight + model.head.bias[1])[:, None] * logits[:, None]
        part = share.reshape(2, 2, 5, 4)[:, 1:, 1:, :-1]
        expected[:, 1:, ::2, 1:-1] = part
    assert apart(clarp.attribute(model, x, 1, "lrp", composite="zero"), expected) < 1e-12


class Folding(nn.Module):
    """Batch norms where they can be folded and where they cannot."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(x).mean((2, 3)))


class Twofold(nn.Module):
    """A convolution whose output goes to a batch norm *and* elsewhere: folding would change the other reader."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return self.norm(x).relu() + x


FOLDS: dict[str, tuple[Callable[[], list[nn.Module]], bool]] = {
    "after": (lambda: [nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()], True),
    "after, without bias": (lambda: [nn.Conv2d(2, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU()], True),
    "after, not affine": (lambda: [nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4, affine=False), nn.ReLU()], True),
    "after, grouped": (lambda: [nn.Conv2d(2, 4, 3, groups=2), nn.BatchNorm2d(4), nn.ReLU()], True),
    "two in a row": (lambda: [nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.BatchNorm2d(4), nn.ReLU()], True),
    "before": (lambda: [nn.BatchNorm2d(2), nn.Conv2d(2, 4, 3), nn.ReLU()], True),
    "before, 1x1": (lambda: [nn.Conv2d(2, 4, 3), nn.ReLU(), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1)], True),
    "before, grouped": (lambda: [nn.BatchNorm2d(2), nn.Conv2d(2, 4, 3, groups=2), nn.ReLU()], True),
    "before a padded convolution": (
        lambda: [nn.BatchNorm2d(2), nn.Conv2d(2, 4, 3, padding=1), nn.ReLU()],
        False,
    ),
    "after a transposed convolution": (
        lambda: [nn.ConvTranspose2d(2, 4, 3, stride=2, groups=2), nn.BatchNorm2d(4), nn.ReLU()],
        True,
    ),
    "inside, before a padded convolution": (
        lambda: [nn.Conv2d(2, 4, 3), nn.ReLU(), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, padding=1), nn.ReLU()],
        False,
    ),
    "inside, before a transposed convolution": (
        lambda: [nn.Conv2d(2, 4, 3), nn.ReLU(), nn.BatchNorm2d(4), nn.ConvTranspose2d(4, 4, 3), nn.ReLU()],
        False,
    ),
    "between two": (lambda: [nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3), nn.ReLU()], True),
    "after a ReLU, at the end": (lambda: [nn.Conv2d(2, 4, 3), nn.ReLU(), nn.BatchNorm2d(4)], False),
    "two readers": (lambda: [Twofold()], False),
}


@cache
def folding(which: str) -> Folding:
    """One model for all composites, so that it is captured once; no test changes it."""
    return nets.randomise_(Folding(FOLDS[which][0]()), 2).double().eval()


@pytest.mark.parametrize("which", FOLDS)
@pytest.mark.parametrize("composite", ["epsilon", "zplus-box", "epsilon-gamma-box"])
def test_batch_norm(which: str, composite: str) -> None:
    """Folded or not, the logits are the model's; what cannot be folded is treated or refused, never wrong."""
    model, (_, foldable) = folding(which), FOLDS[which]
    x = images(2, 2, 7, 7)
    with torch.no_grad():
        logits = model(x)
    try:
        explainer = clarp.Explainer(captured(model), "sglrp", composite=composite, dtype=torch.float64)
        explanation = explainer(x)
    except clarp.UnsupportedOperation:
        assert not foldable
        return
    assert apart(explanation.logits, logits) < 1e-12
    assert torch.isfinite(explanation.relevance).all()


def test_a_folded_batch_norm_is_the_folded_convolution() -> None:
    """The same map as from a convolution folded by hand."""
    conv, norm = nn.Conv2d(2, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
    model = (
        nets.randomise_(nn.Sequential(conv, norm, nn.ReLU(), nets.Mean(), nn.Linear(4, 5)), 1).double().eval()
    )
    by_hand = nn.utils.fusion.fuse_conv_bn_eval(conv, norm)
    folded = nn.Sequential(by_hand, *list(model)[2:]).eval()
    x = images(2, 2, 6, 6)
    for composite in ("epsilon", "zplus-box", "epsilon-gamma-box", "epsilon-plus-flat"):
        maps = [
            clarp.Explainer(captured(each), "sglrp", composite=composite)(x, [1, 3]).relevance
            for each in (model, folded)
        ]
        assert apart(*maps) < 1e-10, composite


def test_the_wrong_order_of_buffers_would_show() -> None:
    """Guards the guard: the oracle that the other tests trust computes these logits as well."""
    model = nets.build(
        (
            ("residual", {"inputs": 2, "outputs": 3, "stride": 2, "bias": False}),
            ("global", {"inputs": 3, "outputs": 4}),
        )
    )
    x = images(1, 2, 6, 6)
    explanation = clarp.Explainer(model, "lrp", dtype=torch.float64)(x)
    assert apart(explanation.logits[0], network.logits(model, x[0].numpy())) < 1e-12


def train(model: nn.Module) -> None:
    with torch.enable_grad():
        model(images(2, 2, 6, 6)).square().sum().backward()
    torch.optim.SGD(model.parameters(), lr=0.05).step()
    model.zero_grad()


CHANGES: dict[str, Callable[[nn.Module], Any]] = {
    "weight, in place": lambda m: m[-1].weight.mul_(2.0),
    "one entry": lambda m: m[-1].weight[1, 0].add_(3.0),
    "bias": lambda m: m[-1].bias.add_(1.0),
    "first convolution": lambda m: m[0].weight.mul_(-1.0),
    "running mean": lambda m: m[1].running_mean.add_(0.5),
    "running variance": lambda m: m[1].running_var.mul_(4.0),
    "through .data": lambda m: m[0].weight.data.mul_(-1.0),
    "a new parameter": lambda m: setattr(m[-1], "weight", nn.Parameter(m[-1].weight.detach() * 2.0)),
    "load_state_dict": lambda m: m.load_state_dict(
        {key: value * 1.5 for key, value in m.state_dict().items()}
    ),
    "a new module": lambda m: m.__setitem__(len(m) - 1, nets.randomise_(nn.Linear(3, 4), 77).double().eval()),
    "a later optimiser step": train,
}


@pytest.mark.parametrize("which", CHANGES)
@pytest.mark.parametrize("composite", ["epsilon", "epsilon-plus"])
def test_changed_weights_are_seen(which: str, composite: str) -> None:
    """An explainer must not explain the weights of yesterday: it notices, or it says that it cannot."""
    model, x = nets.build(SMALL), images(2, 2, 6, 6)
    explainer = clarp.Explainer(model, "lrp", composite=composite, dtype=torch.float64)
    before = explainer(x, target=1).relevance
    with torch.no_grad():
        CHANGES[which](model)
    fresh = clarp.Explainer(copy.deepcopy(model), "lrp", composite=composite, dtype=torch.float64)(
        x, target=1
    )
    assert apart(fresh.relevance, before) > 1e-6, "a change that changes nothing proves nothing"
    again = explainer(x, target=1)
    assert torch.equal(again.logits, fresh.logits)
    assert torch.equal(again.relevance, fresh.relevance)


@pytest.mark.parametrize("write", ["through .data", "in inference mode", "under no_grad"])
def test_a_pruned_filter_is_seen(write: str) -> None:
    """One filter of many set to zero, the way that pruning scripts do it: 12 of 512, one after the other."""
    wide = nn.Conv2d(8, 512, 1)
    model = nets.randomise_(
        nn.Sequential(nn.Conv2d(2, 8, 3), nn.ReLU(), wide, nn.ReLU(), nets.Mean(), nn.Linear(512, 4)), 1
    )
    model, x = model.double().eval(), images(1, 2, 6, 6)
    explainer = clarp.Explainer(model, "lrp", composite="epsilon-plus")
    missed = []
    for k in range(12):
        if write == "through .data":
            wide.weight.data[k] = 0.0
        elif write == "in inference mode":
            with torch.inference_mode():
                wide.weight[k] = 0.0
        else:
            with torch.no_grad():
                wide.weight[k] = 0.0
        fresh = clarp.Explainer(copy.deepcopy(model), "lrp", composite="epsilon-plus")
        if apart(explainer(x, 1).relevance, fresh(x, 1).relevance) > 1e-12:
            missed.append(k)
    assert not missed


def test_nothing_keeps_the_model_alive() -> None:
    """No registry of models: without its explainer and itself, a model is gone."""
    model = nets.build(SMALL)
    seen = weakref.ref(model)
    explainer = clarp.Explainer(model, "ssglrp")
    explanation = explainer(images(2, 2, 6, 6), 1)
    del model, explainer
    gc.collect()
    assert seen() is None
    assert explanation.relevance.shape == (2, 2, 6, 6)


def test_a_half_precision_model_is_explained_in_the_dtype_asked_for() -> None:
    """bfloat16 weights, explained in float64: the same as converting the model first."""
    model = nets.build(SMALL).bfloat16()
    x = images(2, 2, 6, 6)
    ours = clarp.Explainer(model, "sglrp", dtype=torch.float64)(x, target=1).relevance
    theirs = clarp.Explainer(nets.build(SMALL).bfloat16().double(), "sglrp", dtype=torch.float64)(
        x, target=1
    ).relevance
    assert ours.dtype == torch.float64
    assert apart(ours, theirs) < 1e-12


def test_folding_is_done_in_the_dtype_asked_for() -> None:
    """float32 weights, explained in float64: the fold may not round to float32 on the way."""
    model, x = nets.build(SMALL).float(), images(2, 2, 6, 6)
    explanation = clarp.Explainer(model, "sglrp", dtype=torch.float64)(x, target=1)
    with torch.no_grad():
        assert apart(explanation.logits, copy.deepcopy(model).double()(x)) < 1e-12


class BatchOfOne(nn.Module):
    """Does something else for one image than for several."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(2, 4, 3), nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        x = x.relu() if x.shape[0] > 1 else x.abs()
        return self.head(x.mean((2, 3)))


def test_a_model_that_treats_one_image_differently() -> None:
    """The graph was made from two images: for one it is another network's, so it is refused or captured again."""
    model = nets.randomise_(BatchOfOne(), 1).double().eval()
    explainer = clarp.Explainer(model, "lrp", composite="epsilon", dtype=torch.float64)
    for batch in (2, 1):
        x = images(batch, 2, 6, 6)
        try:
            explanation = explainer(x)
        except (ValueError, clarp.CaptureError):
            continue
        with torch.no_grad():
            assert apart(explanation.logits, model(x)) < 1e-12


def test_squeeze_of_one_image() -> None:
    """``x.squeeze()`` forgets the batch of one image; the explanation does not."""

    class Squeezes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.pool, self.head = nn.Conv2d(2, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Linear(4, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.pool(self.conv(x).relu()).squeeze())

    model = nets.randomise_(Squeezes(), 1).double().eval()
    explainer = clarp.Explainer(model, "lrp", dtype=torch.float64)
    x = images(2, 2, 6, 6)
    both = explainer(x, 1)
    alone = explainer(x[:1], 1)
    assert alone.relevance.shape == (1, 2, 6, 6)
    assert apart(alone.relevance, both.relevance[:1]) < 1e-12


def test_a_model_without_parameters_keeps_the_images_dtype() -> None:
    class Pool(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.max_pool2d(x, 2).flatten(1)

    x = images(2, 1, 4, 4)
    explanation = clarp.Explainer(Pool().eval(), "lrp", composite="epsilon")(x, 1)
    assert explanation.relevance.dtype == torch.float64
    assert apart(explanation.logits, Pool()(x)) < 1e-12


def test_a_compiled_model() -> None:
    """``torch.compile`` wraps the module; the one inside is explained, or the message says to pass it."""
    model = nets.randomise_(Network(F.relu), 3).double().eval()
    x = images(2, 2, 5, 5)
    try:
        ours = clarp.attribute(torch.compile(model, backend="eager"), x, 1, "sglrp")
    except (TypeError, clarp.CaptureError) as error:
        assert "compile" in str(error)  # noqa: PT017
        return
    assert torch.equal(ours, clarp.attribute(model, x, 1, "sglrp"))


def test_the_plan_names_every_operation() -> None:
    """operation -> rule, as a table."""
    model = nets.build(
        (
            ("conv", {"conv": {"in_channels": 2, "out_channels": 3, "kernel_size": 3}, "norm": True}),
            ("relu", {}),
            ("residual", {"inputs": 3, "outputs": 3, "stride": 1, "bias": False}),
            ("global", {"inputs": 3, "outputs": 4}),
        )
    )
    explainer = clarp.Explainer(model, "ssglrp", composite="zplus-box")
    explainer(images(1, 2, 6, 6))
    table = str(explainer.plan())
    for word in ("ZBox", "ZPlus", "Ratio", "Norm", "Convolution", "Dense", "Add"):
        assert word.lower() in table.lower(), f"{word} is not in\n{table}"
    assert "batch_norm" not in table, "folded"


class Logarithm(nn.Module):
    """Of pixels, which must be greater than -1/3."""

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        self.factor, self.conv, self.head = factor, nn.Conv2d(3, 4, 3), nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(torch.log1p(3 * x)).relu().mean((2, 3))) * self.factor


def test_a_model_that_takes_logarithms_of_pixels() -> None:
    explanation = clarp.Explainer(Logarithm().eval(), "lrp")(torch.rand(2, 3, 8, 8))
    assert explanation.heatmap.isfinite().all()


def test_logits_that_are_not_a_number_are_the_models_own() -> None:
    with pytest.raises(ValueError, match="own logits are NaN"):
        clarp.Explainer(Logarithm(float("nan")).eval(), "lrp")(torch.rand(2, 3, 8, 8))
