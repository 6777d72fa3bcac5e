"""Relevance at the outputs of modules: every value that the engine passes through, by the user's own names."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import clarp
from clarp.rules import LinearRule, ZPlus
from clarp.rules.composites import Composite
from clarp.rules.parts import Branch
from clarp.rules.rule import Context, Shares
from oracle.calls import apart, captured, images

BOUNDS = (-4.0, 4.0)


class Block(nn.Module):
    """A residual block as torchvision writes it: one in-place ReLU, called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.bn1, self.bn2 = nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(y)) + x)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Dropout())
        self.layer1 = nn.Sequential(Block(), Block())
        self.pre, self.late = nn.BatchNorm2d(4), nn.Conv2d(4, 5, 1)
        self.pad, self.padded = nn.ZeroPad2d((1, 0, 1, 0)), nn.Conv2d(5, 6, 2)
        self.nothing = nn.Identity()
        self.head = nn.Linear(6, 7)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer1(self.stem(x))
        x = self.padded(self.pad(self.late(self.pre(x)).relu())).relu()
        return self.head(self.nothing(x).mean((2, 3)))


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    model = Net().double()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 2.0)
    return model.eval()


X = images(2, 3, 9, 8, seed=3).clamp(-3, 3)
NAMES = (
    "stem", "stem.0", "stem.1", "stem.2", "layer1", "layer1.0", "layer1.0.conv1", "layer1.0.bn1", "layer1.0.relu#1",
    "layer1.0.relu#2", "layer1.0.conv2", "layer1.0.bn2", "layer1.1", "pre", "late", "padded", "head",
)  # fmt: skip


def outputs(model: nn.Module, x: Tensor) -> dict[str, list[Tensor]]:
    """What each module returns, by hooks on the test's own model."""
    found: dict[str, list[Tensor]] = {}
    hooks = [
        module.register_forward_hook(lambda _, __, y, name=name: found.setdefault(name, []).append(y.clone()))
        for name, module in model.named_modules()
    ]
    with torch.no_grad():
        model(x)
    for hook in hooks:
        hook.remove()
    return found


def test_every_module_with_operations_is_listed(model: nn.Module) -> None:
    listed = clarp.Explainer(captured(model), "lrp").layers((3, 9, 8))
    assert set(NAMES) <= set(listed)
    assert not {"pad", "nothing", "", "layer1.0.relu"} & set(listed)


@pytest.mark.parametrize("target", [[1, 2], [[1, 2, 3], [4, 5, 6]]])
def test_shapes_are_those_of_the_outputs(model: nn.Module, target: list[int]) -> None:
    found = outputs(model, X)
    e = clarp.Explainer(captured(model), "sglrp", bounds=BOUNDS)(X, target, layers=NAMES)
    assert tuple(e.layers) == NAMES
    classes = torch.tensor(target).shape[1:]
    for name, relevance in e.layers.items():
        path, _, call = name.partition("#")
        output = found[path][int(call or 1) - 1]
        assert relevance.shape == (2, *classes, *output.shape[1:]), name


@pytest.mark.parametrize("method", clarp.methods())
def test_a_cut_through_the_network_has_the_whole_balance(model: nn.Module, method: str) -> None:
    """What goes through ``layer1`` is the seed minus what was absorbed behind it, and the pixels' plus what was in front."""
    e = clarp.Explainer(captured(model), method, bounds=BOUNDS)(X, [1, 2], layers=["layer1"])
    sums = e.layers["layer1"].flatten(1).sum(1)
    before = [entry for entry in e.ledger if entry.node.module.startswith(("stem", "layer1"))]
    lost = sum(entry.absorbed + entry.selection for entry in before)
    assert torch.allclose(sums, e.ledger.pixels + lost, atol=1e-10)


def test_a_tail_alone_gives_the_same(model: nn.Module) -> None:
    """The relevance at ``layer1`` is that of the pixels of a network that begins there."""
    e = clarp.Explainer(captured(model), "lrp", composite="epsilon", bounds=BOUNDS)(
        X, [1, 2], layers=["layer1", "late", "stem.1"]
    )
    found = outputs(model, X)

    class Tail(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = model

        def forward(self, x: Tensor) -> Tensor:
            m = self.net
            return m.head(m.padded(m.pad(m.late(m.pre(x.relu())).relu())).relu().mean((2, 3)))

    tail = clarp.Explainer(Tail().eval(), "lrp", composite="epsilon")(found["layer1"][0], [1, 2])
    assert apart(e.layers["layer1"], tail.relevance) < 1e-10


def test_folded_norms(model: nn.Module) -> None:
    """A convolution and the norm behind it are one operation; a norm before it reads what it gets back."""
    e = clarp.Explainer(captured(model), "lrp", bounds=BOUNDS)(
        X, 1, layers=["layer1.0.conv1", "layer1.0.bn1", "layer1.0.relu#1", "pre", "layer1", "stem", "stem.2"]
    )
    assert torch.equal(e.layers["layer1.0.conv1"], e.layers["layer1.0.bn1"])
    assert torch.equal(e.layers["layer1.0.bn1"], e.layers["layer1.0.relu#1"])  # a ReLU passes it on
    assert torch.equal(e.layers["pre"], e.layers["layer1"])
    assert torch.equal(e.layers["stem"], e.layers["stem.2"])
    assert e.layers["stem"].abs().max() > 0


def test_a_norm_that_is_read_around() -> None:
    """What a norm before a convolution got stays that, when the shortcut's share joins it at their common input."""

    class Around(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.pre = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
            self.late, self.head = nn.Conv2d(4, 4, 1, bias=False), nn.Linear(4, 5)

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x).relu()
            return self.head((x + self.late(self.pre(x))).mean((2, 3)))

    torch.manual_seed(0)
    e = clarp.Explainer(Around().double().eval(), "lrp")(X, 1, layers=["stem", "pre"])
    stem, pre = (e.layers[name].flatten(1).sum(1) for name in ("stem", "pre"))
    (late,) = [entry for entry in e.ledger if entry.node.module == "late"]
    torch.testing.assert_close(pre, late.handed_on)
    assert (stem - pre).abs().min() > 1e-3 * stem.abs().max()


def test_a_rule_that_hands_on_what_it_got() -> None:
    """What a user's rule gives back is not overwritten by the sum at its input: the relevance behind it may be wanted."""

    class Same(LinearRule):
        def branches(self) -> tuple[Branch, ...]:
            return ()

        def propagate(self, relevance: Tensor, context: Context) -> Shares:
            return Shares((relevance,))

    class Around(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.late, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1), nn.Linear(4, 5)

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x).relu()
            return self.head((x + self.late(x)).mean((2, 3)))

    torch.manual_seed(0)
    composite = Composite("same", Same(), ZPlus())
    e = clarp.Explainer(Around().double().eval(), "lrp", composite=composite)(X, 1, layers=["stem", "late"])
    (late,) = [entry for entry in e.ledger if entry.node.module == "late"]
    torch.testing.assert_close(e.layers["late"].flatten(1).sum(1), late.arrived)


def test_several_calls(model: nn.Module) -> None:
    explainer = clarp.Explainer(captured(model), "lrp", bounds=BOUNDS)
    both = explainer(X, 1, layers=["layer1.0.relu"]).layers
    assert list(both) == ["layer1.0.relu#1", "layer1.0.relu#2"]
    second = explainer(X, 1, layers=["layer1.0.relu#2"]).layers
    assert list(second) == ["layer1.0.relu#2"]
    assert torch.equal(second["layer1.0.relu#2"], both["layer1.0.relu#2"])
    assert torch.equal(second["layer1.0.relu#2"], explainer(X, 1, layers=["layer1.0"]).layers["layer1.0"])


def test_the_first_call_of_a_module_that_is_called_once(model: nn.Module) -> None:
    explainer = clarp.Explainer(captured(model), "lrp", bounds=BOUNDS)
    first, whole = (explainer(X, 1, layers=[name]).layers for name in ("late#1", "late"))
    assert list(first) == list(whole) == ["late"]
    assert torch.equal(first["late"], whole["late"])


def test_selection_has_taken_its_part(model: nn.Module) -> None:
    """At a convolution the relevance is what goes on, behind selection; at the ReLU behind it, what arrived."""
    method = clarp.Method(clarp.seeds.SoftmaxGradient(), clarp.Selection("channel", "all"))
    e = clarp.Explainer(captured(model), method, bounds=BOUNDS)(
        X, 1, layers=["layer1.1.conv1", "layer1.1.relu#1"]
    )
    selected, arrived = e.layers["layer1.1.conv1"], e.layers["layer1.1.relu#1"]
    (entry,) = [x for x in e.ledger if x.node.module == "layer1.1.conv1"]
    assert torch.allclose(arrived.flatten(1).sum(1), entry.arrived)
    assert torch.allclose(selected.flatten(1).sum(1), entry.arrived - entry.selection)
    assert not torch.allclose(selected, arrived)


def test_nothing_else_changes(model: nn.Module) -> None:
    explainer = clarp.Explainer(captured(model), "ssglrp", bounds=BOUNDS)
    assert torch.equal(explainer(X, 1).relevance, explainer(X, 1, layers=NAMES).relevance)
    assert explainer(X, 1).layers == {}


@pytest.mark.parametrize(
    ("layers", "error", "message"),
    [
        (["layer2"], ValueError, "'layer2'.*nearest.*layer1"),
        (["layer1.0.relu#3"], ValueError, r"'layer1\.0\.relu#3'.*layer1\.0\.relu#"),
        (["late#2"], ValueError, "'late#2'.*late"),
        (["nothing"], ValueError, "'nothing'.*nearest"),
        (["pad"], ValueError, "'pad'.*not one output of its own"),
        ("layer1", TypeError, r"\['layer4'\]"),
        ([3], TypeError, r"\['layer4'\]"),
    ],
)
def test_names_that_do_not_work(model: nn.Module, layers: object, error: type, message: str) -> None:
    explainer = clarp.Explainer(captured(model), "lrp", bounds=BOUNDS)
    with pytest.raises(error, match=message):
        explainer(X, 1, layers=layers)


class Around(nn.Module):
    """A dropout whose input also goes around it: the two have one value, and each has its own relevance."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.drop, self.other = nn.Conv2d(3, 3, 1), nn.Dropout(), nn.Conv2d(3, 3, 1)
        self.head = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).relu()
        return self.head((self.other(self.drop(x)) + x).mean((2, 3)))


def test_a_module_that_is_read_around() -> None:
    explainer = clarp.Explainer(Around().double().eval(), "lrp")
    with pytest.raises(ValueError, match=r"'drop'.*read around it"):
        explainer(X, 1, layers=["drop"])
    assert "drop" not in explainer.layers()


def test_the_logits_of_a_model_that_ends_in_a_softmax(model: nn.Module) -> None:
    """They are the output of their module, as without the softmax, which is undone and has no layer."""
    ends = nn.Sequential(model, nn.Softmax(1)).eval()
    explainer = clarp.Explainer(ends, "sglrp", bounds=BOUNDS)
    names = [
        f"0.{name}" for name in clarp.Explainer(captured(model), "sglrp", bounds=BOUNDS).layers((3, 9, 8))
    ]
    assert set(explainer.layers((3, 9, 8))) == {"0", *names}
    e = explainer(X, 1, layers=["0.head", "0"])
    assert e.layers["0.head"].sum(1).abs().max() < 1e-10  # the seed, which sums to zero
    assert torch.equal(e.layers["0.head"], e.layers["0"])
    assert torch.allclose(e.layers["0.head"][:, 1], torch.ones(2, dtype=torch.float64))


def test_saved(model: nn.Module, tmp_path: Path) -> None:
    e = clarp.Explainer(captured(model), "lrp", bounds=BOUNDS)(X, 1, layers=["layer1", "layer1.0.relu#2"])
    manifest = json.loads(e.save(tmp_path).read_text())
    assert list(manifest["layers"]) == ["layer1", "layer1.0.relu#2"]
    for name, file in manifest["layers"].items():
        assert np.array_equal(np.load(tmp_path / file), e.layers[name].numpy())
