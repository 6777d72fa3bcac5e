"""Every public entry refuses bad input, and the message says what was given, what was expected and what to do."""

import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import clarp
from oracle import nets
from oracle.calls import composite, images

PLAN: nets.Plan = (
    ("conv", {"conv": {"in_channels": 3, "out_channels": 4, "kernel_size": 3}, "norm": True}),
    ("relu", {}),
    ("global", {"inputs": 4, "outputs": 7}),
)
BAD = (ValueError, TypeError)


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return nets.build(PLAN).float()


@pytest.fixture(scope="module")
def explainer(model: nn.Module) -> Any:
    return clarp.Explainer(model, method="sglrp")


def pixels(batch: int = 2) -> Tensor:
    return images(batch, 3, 8, 8, dtype=torch.float32)


def message(error: pytest.ExceptionInfo[BaseException], *parts: str) -> None:
    """Every part is a regular expression that the message must contain, whatever the case."""
    text = str(error.value)
    for part in parts:
        assert re.search(part, text, re.IGNORECASE | re.DOTALL), f"{part!r} is not in: {text}"
    assert text[:1].strip(), "an empty message"
    assert "\n\n\n" not in text
    assert len(text) < 2000, "nobody reads this"


IMAGES: dict[str, tuple[Callable[[], Any], tuple[str, ...]]] = {
    "integers": (lambda: torch.zeros(1, 3, 8, 8, dtype=torch.uint8), ("uint8", "float")),
    "int64": (lambda: torch.zeros(1, 3, 8, 8, dtype=torch.int64), ("int64", "float")),
    "bool": (lambda: torch.zeros(1, 3, 8, 8, dtype=torch.bool), ("bool", "float")),
    "complex": (lambda: torch.zeros(1, 3, 8, 8, dtype=torch.complex64), ("complex64", "float")),
    "no tensor": (lambda: [[1.0]], ("list", "tensor")),
    "None": (lambda: None, ("None", "tensor")),
    "a path": (lambda: "photo.jpg", ("str|photo.jpg", "tensor")),
    "NaN": (lambda: pixels().index_fill(3, torch.tensor([1]), torch.nan), ("nan",)),
    "infinity": (lambda: pixels().index_fill(3, torch.tensor([1]), torch.inf), ("inf",)),
    "one image without batch": (lambda: pixels()[0], (r"3.*8.*8", r"\(B, ?C, ?H, ?W\)|batch")),
    "a volume for a network of photos": (lambda: pixels()[None], (r"refuses.*2.*3.*8.*8", "conv2d")),
    "six dimensions": (lambda: pixels()[None, None], (r"1.*1.*2.*3.*8.*8", r"\(B, ?C, ?H, ?W\)")),
    "two dimensions": (lambda: pixels()[0, 0], (r"8.*8", r"\(B, ?C, ?H, ?W\)")),
    "one channel": (lambda: pixels()[:, :1], ("1", "3", "channel")),
    "four channels": (lambda: torch.zeros(2, 4, 8, 8), ("4", "3", "channel")),
    "empty batch": (lambda: pixels()[:0], ("0|empty",)),
    "no pixels": (lambda: torch.zeros(1, 3, 0, 8), ("0|empty",)),
    "smaller than the kernel": (lambda: torch.zeros(1, 3, 2, 2), (r"2",)),
}


@pytest.mark.parametrize("which", IMAGES)
def test_images(explainer: Any, model: nn.Module, which: str) -> None:
    make, parts = IMAGES[which]
    with pytest.raises((*BAD, clarp.CaptureError)) as error:
        explainer(make())
    message(error, *parts)
    with pytest.raises((*BAD, clarp.CaptureError)) as error:
        clarp.attribute(model, make(), 1)
    message(error, *parts)


TARGETS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "too large": (7, ("7", "6|7 classes")),
    "far too large": ([1, 700], ("700",)),
    "negative": (-1, ("-1",)),
    "negative in a tensor": (torch.tensor([0, -3]), ("-3",)),
    "too few": ([1], ("1", "2")),
    "too many": ([1, 2, 3], ("3", "2")),
    "wrong batch of (B, K)": ([[1, 2]], ("1", "2")),
    "three dimensions": (torch.zeros(2, 1, 1, dtype=torch.long), (r"2, 1, 1",)),
    "no class at all": (torch.zeros(2, 0, dtype=torch.long), (r"2, 0|empty|0",)),
    "ragged": ([[1, 2], [3]], (r"\[3\]|ragged|length",)),
    "a float": (1.0, ("1.0|float",)),
    "floats": (torch.tensor([1.0, 2.0]), ("float",)),
    "floats in a list": ([1.5, 2.0], ("1.5|float",)),
    "a bool": (True, ("True|bool",)),
    "bools": (torch.tensor([True, False]), ("bool",)),
    "bools in a list": ([True, False], ("True|bool",)),
    "a name": ("tabby", ("tabby",)),
    "names": (["tabby", "boxer"], ("tabby",)),
    "None in a list": ([None, 1], ("None",)),
    "one-hot": (torch.eye(7)[:2], ("float",)),
    "empty list": ([], ("0|empty",)),
}


@pytest.mark.parametrize("which", TARGETS)
def test_target(explainer: Any, which: str) -> None:
    target, parts = TARGETS[which]
    with pytest.raises(BAD) as error:
        explainer(pixels(), target=target)
    message(error, *parts, "target")


AGAINST: dict[str, tuple[Any, Any, tuple[str, ...]]] = {
    "empty": (1, [], (r"\[\]",)),
    "empty tensor": (1, torch.zeros(2, 0, dtype=torch.long), ("empty|no |0",)),
    "only the target": (1, 1, ("1",)),
    "only the target, as a list": ([1, 2], [2], ("2",)),
    "only the target, more than once": (4, [4, 4], ("4",)),
    "too large": (1, [2, 7], ("7",)),
    "negative": (1, [-2], ("-2",)),
    "floats": (1, [2.0], ("2.0|float",)),
    "bools": (1, [True], ("True|bool",)),
    "a name": (1, ["boxer"], ("boxer",)),
    "wrong batch": (1, torch.tensor([[2], [3], [4]]), ("3", "2")),
    "three dimensions": (1, torch.full((2, 1, 1), 3), (r"2, 1, 1",)),
}


@pytest.mark.parametrize("which", AGAINST)
def test_against(explainer: Any, which: str) -> None:
    target, against, parts = AGAINST[which]
    with pytest.raises(BAD) as error:
        explainer(pixels(), target=target, against=against)
    message(error, *parts, "against")


def test_against_means_nothing_to_a_method_without_rivals(model: nn.Module) -> None:
    """LRP contrasts with nobody: saying so beats a map that ignores the question."""
    with pytest.raises(BAD) as error:
        clarp.Explainer(model, method="lrp")(pixels(), target=1, against=[2])
    message(error, "against", "lrp|rival|seed")


NAMES: dict[str, tuple[Callable[[nn.Module], Any], tuple[str, ...]]] = {
    "method": (lambda m: clarp.Explainer(m, method="sslgrp"), ("sslgrp", "ssglrp")),
    "method of attribute": (lambda m: clarp.attribute(m, pixels(), 1, "grad-cam"), ("grad-cam", "sglrp")),
    "method, no string": (lambda m: clarp.Explainer(m, method=3), ("3|int", "ssglrp|Method")),
    "Method.named": (lambda m: clarp.Method.named("zlrp"), ("zlrp", "lrp")),
    "composite": (lambda m: clarp.Explainer(m, composite="epsilon-pluss"), ("epsilon-pluss", "epsilon-plus")),
    "composite, no string": (lambda m: clarp.Explainer(m, composite=3), ("3|int", "epsilon-plus|Composite")),
    "composites.get": (lambda m: clarp.composites.get("zbox"), ("zbox", "zplus-box")),
    "residual": (
        lambda m: clarp.composites.get("zero", residual="half"),
        ("half", "ratio", "proportional", "gamma"),
    ),
    "rivals": (lambda m: clarp.seeds.SoftmaxGradient(rivals="some"), ("some", "all")),
}


@pytest.mark.parametrize("which", NAMES)
def test_unknown_names_get_the_known_ones(model: nn.Module, which: str) -> None:
    call, parts = NAMES[which]
    with pytest.raises(BAD) as error:
        call(model)
    message(error, *parts)


VALUES: dict[str, tuple[Callable[[], Any], tuple[str, ...]]] = {
    "negative epsilon": (lambda: clarp.rules.Epsilon(-1e-3), ("-0.001", "epsilon")),
    "epsilon NaN": (lambda: clarp.rules.Epsilon(float("nan")), ("nan",)),
    "epsilon infinite": (lambda: clarp.rules.Epsilon(float("inf")), ("inf",)),
    "epsilon, a word": (lambda: clarp.rules.Epsilon("small"), ("small",)),
    "negative gamma": (lambda: clarp.rules.Gamma(-0.25), ("-0.25", "gamma")),
    "gamma NaN": (lambda: clarp.rules.Gamma(float("nan")), ("nan",)),
    "alpha - beta != 1": (lambda: clarp.rules.AlphaBeta(2, 2), ("2", "1")),
    "negative beta": (lambda: clarp.rules.AlphaBeta(0.5, -0.5), ("-0.5",)),
    "alpha NaN": (lambda: clarp.rules.AlphaBeta(float("nan"), 1), ("nan",)),
    "box of one bound": (lambda: clarp.rules.ZBox(low=0.0), ("high",)),
    "box upside down": (lambda: clarp.rules.ZBox(1.0, 0.0), ("1", "0", "low", "high")),
    "scaled by nothing": (
        lambda: clarp.seeds.SoftmaxGradient(strength=0, scaled=True),
        ("strength is 0", "scaled"),
    ),
    "no rival": (lambda: clarp.seeds.SoftmaxGradient(rivals=0), ("0", "rivals")),
    "negative rivals": (lambda: clarp.seeds.SoftmaxGradient(rivals=-2), ("-2", "rivals")),
    "half a rival": (lambda: clarp.seeds.SoftmaxGradient(rivals=1.5), ("1.5", "rivals")),
    "strength NaN": (lambda: clarp.seeds.SoftmaxGradient(strength=float("nan")), ("nan", "strength")),
    "negative strength": (lambda: clarp.seeds.SoftmaxGradient(strength=-1.0), ("-1", "strength")),
    "negative strength of uniform": (lambda: clarp.seeds.Uniform(strength=-1.0), ("-1", "strength")),
    "vector, no tensor": (lambda: clarp.seeds.Vector([1.0]), ("list", "tensor")),
}


@pytest.mark.parametrize("which", VALUES)
def test_values(which: str) -> None:
    call, parts = VALUES[which]
    with pytest.raises(BAD) as error:
        call()
    message(error, *parts)


VECTORS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "too short": (torch.ones(3), ("3", "7")),
    "wrong batch": (torch.ones(3, 7), ("3", "2")),
    "NaN": (torch.full((7,), torch.nan), ("nan|finite",)),
    "callable, wrong shape": (lambda logits, target: logits[:, :2], (r"2", "7")),
    "callable, no tensor": (lambda logits, target: 1.0, (r"1\.0", "tensor")),
}


@pytest.mark.parametrize("which", VECTORS)
def test_vector_seed(model: nn.Module, which: str) -> None:
    vector, parts = VECTORS[which]
    method = clarp.Method(seed=clarp.seeds.Vector(vector), selection=None, composite="epsilon-plus")
    with pytest.raises(BAD) as error:
        clarp.Explainer(model, method=method)(pixels())
    message(error, *parts)


BOUNDS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "one": (3.0, ("3.0",)),
    "three": ((0.0, 1.0, 2.0), ("low", "high")),
    "too short": (([0.0, 0.0], [1.0, 1.0]), ("2", "3", "channel")),
    "too long": (([0.0] * 4, [1.0] * 4), ("4", "3", "channel")),
    "unequal": (([0.0] * 3, [1.0] * 2), (r"0\.0, 0\.0, 0\.0", r"1\.0, 1\.0")),
    "upside down": ((1.0, -1.0), ("1", "-1", "low", "high")),
    "one channel upside down": (([0.0, 0.0, 2.0], [1.0, 1.0, 1.5]), ("2", "1.5")),
    "equal": ((1.0, 1.0), ("1", "low", "high")),
    "NaN": ((float("nan"), 1.0), ("nan",)),
    "words": (("dark", "light"), ("dark",)),
}


@pytest.mark.parametrize("which", BOUNDS)
def test_bounds(model: nn.Module, which: str) -> None:
    bounds, parts = BOUNDS[which]
    with pytest.raises(BAD) as error:
        clarp.Explainer(model, method="sglrp", bounds=bounds)(pixels())
    message(error, *parts)


OPTIONS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "device": ({"device": "no such device"}, ("no such device",)),
    "dtype": ({"dtype": torch.int32}, ("int32", "float")),
    "dtype, a word": ({"dtype": "float31"}, ("float31",)),
}


@pytest.mark.parametrize("which", OPTIONS)
def test_options(model: nn.Module, which: str) -> None:
    options, parts = OPTIONS[which]
    with pytest.raises((*BAD, RuntimeError)) as error:
        clarp.Explainer(model, **options)(pixels())
    message(error, *parts)


@pytest.mark.parametrize("field", ["convolution", "dense", "first", "average", "residual"])
def test_composite_of_something_else(field: str) -> None:
    with pytest.raises(BAD) as error:
        composite(clarp.rules.ZPlus(), **{field: "zplus"})
    message(error, field, "zplus")


def test_composite_with_a_rule_that_does_not_fit() -> None:
    """A residual has no weights to be positive, a convolution no two operands."""
    with pytest.raises(BAD) as error:
        composite(clarp.rules.ZPlus(), residual=clarp.rules.ZPlus())
    message(error, "residual", "ZPlus", "Ratio")
    with pytest.raises(BAD) as error:
        composite(clarp.rules.Ratio())
    message(error, "convolution", "Ratio")


@pytest.mark.parametrize("field", ["convolution", "dense", "average"])
def test_box_rule_where_no_pixels_are(field: str) -> None:
    with pytest.raises(BAD) as error:
        composite(clarp.rules.ZPlus(), **{field: clarp.rules.ZBox(0.0, 1.0)})
    message(error, field, "ZBox", "first")


def test_method_of_something_else() -> None:
    for wrong in ({"seed": "softmax"}, {"selection": "all"}, {"composite": 3}):
        parts = {"seed": clarp.seeds.Logit(), "selection": None, "composite": "epsilon-plus"} | wrong
        with pytest.raises(BAD) as error:
            clarp.Method(**parts)
        (key,) = wrong
        message(error, key, str(wrong[key]))


MODELS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "a function": (torch.relu, ("function|builtin", "Module")),
    "None": (None, ("None", "Module")),
    "a class": (nn.Linear, ("class|type|Linear", "Module")),
    "a state dict": ({"weight": torch.ones(1)}, ("dict", "Module")),
    "a name": ("resnet50", ("resnet50",)),
    "a missing file": ("missing.pt2", ("missing.pt2",)),
}


@pytest.mark.parametrize("which", MODELS)
def test_no_model(which: str) -> None:
    model, parts = MODELS[which]
    with pytest.raises((*BAD, FileNotFoundError)) as error:
        clarp.Explainer(model)(pixels())
    message(error, *parts)


@pytest.mark.parametrize("kinds", [nn.Module, nn.Dropout, nn.BatchNorm2d])
def test_train_mode(kinds: type[nn.Module]) -> None:
    """One module left in train mode is enough, and the message names it and the cure."""
    model = nets.build(PLAN).float()
    for module in model.modules():
        module.training = isinstance(module, kinds)
    with pytest.raises(BAD) as error:
        clarp.Explainer(model)(pixels())
    message(error, "train", r"eval\(\)")
    if kinds is not nn.Module:
        (name,) = (name for name, module in model.named_modules() if isinstance(module, kinds))
        message(error, rf"\b{name}\b")


def test_train_mode_after_the_explainer_was_made() -> None:
    model = nets.build(PLAN).float()
    explainer = clarp.Explainer(model)
    explainer(pixels())
    model.train()
    with pytest.raises(BAD) as error:
        explainer(pixels())
    message(error, "train", r"eval\(\)")


class Output(nn.Module):
    """A classifier whose output is changed by ``change``."""

    def __init__(self, change: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.inner, self.change = nets.build(PLAN).float(), change
        self.eval()

    def forward(self, x: Tensor) -> Any:
        return self.change(self.inner(x))


OUTPUTS: dict[str, tuple[Callable[[Tensor], Any], tuple[str, ...]]] = {
    "a tuple": (lambda y: (y, y * 2.0), ("tuple|2 ", "logits")),
    "a list": (lambda y: [y, y * 2.0], ("list|2 ", "output=0.*output=1")),
    "a dict": (lambda y: {"out": y, "aux": y}, ("dict", "logits")),
    "None": (lambda y: None, ("None", "logits")),
    "a map": (lambda y: y[:, :, None, None].expand(-1, -1, 2, 2), (r"\(B, ?N\)|logits", "7")),
    "one class of a softmax": (lambda y: y[:, :1].softmax(1), ("softmax", "sigmoid|binary")),
    "batch summed away": (lambda y: y.sum(0, keepdim=True), (r"\(B, ?N\)|logits|batch",)),
    "integers": (lambda y: y.argmax(1, keepdim=True), ("int64|argmax",)),
}


@pytest.mark.parametrize("which", OUTPUTS)
def test_output(which: str) -> None:
    change, parts = OUTPUTS[which]
    with pytest.raises((*BAD, clarp.CaptureError)) as error:
        clarp.Explainer(Output(change))(pixels(3))
    message(error, *parts)


class Branches(nn.Module):
    """What it does depends on the pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nets.build(PLAN).float()

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) if x.sum() > 0 else self.inner(-x)


def test_data_dependent_control_flow() -> None:
    with pytest.raises(clarp.CaptureError) as error:
        clarp.Explainer(Branches().eval())(pixels())
    message(error, r"test_bad_input\.py", r"line|:\d+", "data-dependent|depends on")
    assert not isinstance(error.value, clarp.UnsupportedOperation)


MIXES: dict[str, Callable[[Tensor], Tensor]] = {
    "mean over the batch": lambda x: x + x.mean(0, keepdim=True),
    "first image": lambda x: x + x[:1],
    "all but the first image": lambda x: x[1:],
    "a batch as channels": lambda x: x.reshape(1, -1, 8, 8)[:, :3],
    "pad of the batch": lambda x: nn.functional.pad(x, (0, 0, 0, 0, 0, 0, 1, 0)),
    "flattened with the batch": lambda x: x.flatten().reshape(-1, 3, 4, 16).reshape(-1, 3, 8, 8).flip(0),
}


class Mixes(nn.Module):
    """One image's logits depend on another image."""

    def __init__(self, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.inner, self.change = nets.build(PLAN).float(), change

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(self.change(x))


@pytest.mark.parametrize("which", MIXES)
def test_images_that_meet(which: str) -> None:
    """A batch could not equal its samples: refused, never a map of another network."""
    with pytest.raises((*BAD, clarp.CaptureError)) as error:
        clarp.Explainer(Mixes(MIXES[which]).eval())(pixels(3))
    message(error, "batch|operation|images")


class Odd(nn.Module):
    """Two operations that no rule covers, at two places, and one of them twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.strange = Strange()
        self.head = nn.Linear(4, 7)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cumsum(self.conv(x).relu(), 3)  # first
        x = self.strange(x)
        return self.head(x.mean((2, 3)))


class Strange(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cumsum(torch.cummax(x, 2).values, 2)  # second


def test_unsupported_operations_are_listed_all_at_once() -> None:
    """Each with what it is, its module path and its source line."""
    with pytest.raises(clarp.UnsupportedOperation) as error:
        clarp.Explainer(Odd().eval())(pixels())
    text = str(error.value)
    source = Path(__file__).read_text(encoding="utf-8").splitlines()
    lines = [number for number, line in enumerate(source, start=1) if line.endswith(("# first", "# second"))]
    assert len(lines) == 2
    message(
        error,
        "cumsum",
        "cummax",
        r"\bstrange\b",
        r"test_bad_input\.py",
        *(rf"\b{number}\b" for number in lines),
    )
    assert "cumsum.default at 2 places" in text


def test_the_plan_is_refused_the_same_way() -> None:
    with pytest.raises(clarp.UnsupportedOperation):
        clarp.attribute(Odd().eval(), pixels(), 1)


def test_attribute_needs_nothing_but_a_model_and_images(model: nn.Module) -> None:
    """The guard of this file: what is right is not refused."""
    for target in (
        None,
        0,
        6,
        [0, 6],
        torch.tensor([0, 6]),
        [[0, 1], [5, 6]],
        torch.tensor([0, 6], dtype=torch.uint8),
    ):
        relevance = clarp.attribute(model, pixels(), target)
        assert torch.isfinite(relevance).all()
    for against in (0, [0, 1], torch.tensor([[0, 1], [5, 4]])):
        assert torch.isfinite(clarp.attribute(model, pixels(), 6, "sglrp", against=against)).all()


def test_images_in_other_units_than_the_bounds(model: nn.Module) -> None:
    """0..255 with bounds of 0..1: the commonest slip in preprocessing."""
    explainer = clarp.Explainer(model, "lrp", bounds=(0.0, 1.0))
    with pytest.raises(ValueError, match=r"255.*bounds"):
        explainer(torch.full((1, 3, 8, 8), 255.0))


def test_images_outside_the_bounds_are_told(model: nn.Module) -> None:
    """-1..1 with bounds of 0..1: within a range of the bounds, so only a warning; resampling's overshoot is none."""
    explainer = clarp.Explainer(model, "lrp", bounds=(0.0, 1.0))
    with pytest.warns(
        UserWarning, match=r"images has values from -1 to 1, outside bounds \(0 to 1\).*z\^B"
    ) as caught:
        explainer(pixels().clamp(-1, 1))
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", category=clarp.RelevanceLost)
        explainer(pixels().sigmoid() * 1.1 - 0.05)
        clarp.Explainer(model, "lrp", bounds=(0.0, 1.0), composite="epsilon-plus")(pixels().sigmoid() * 2 - 1)


def test_names_in_capitals_get_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"unknown method 'SSGLRP'.*Did you mean ssglrp"):
        clarp.Method.named("SSGLRP")


def test_a_plan_before_the_first_image_says_what_to_pass(model: nn.Module) -> None:
    with pytest.raises(
        ValueError, match=r"not known before the first explanation.*plan\(input_shape=\(3, 224, 224\)\)"
    ):
        clarp.Explainer(model).plan()
