"""Types, shapes, devices, and weights that are not plain tensors: right, or refused with the remedy."""

import copy
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm

import clarp
from clarp.network import Network
from oracle.calls import apart, captured

SIZE = (17, 13)
HALF = (torch.float16, torch.bfloat16)


def small(channels: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(channels, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(inplace=True),
        nn.Conv2d(6, 8, 3, stride=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(8 * 4 * 3, 7),
    ).eval()


def pixels(batch: int = 2, channels: int = 3) -> Tensor:
    return torch.rand(batch, channels, *SIZE, generator=torch.Generator().manual_seed(1))


MODEL, X = small(), pixels()


@pytest.fixture(scope="module")
def expected() -> clarp.Explanation:
    return clarp.Explainer(captured(MODEL), "ssglrp")(X, [1, 2])


@cache
def scaled(scale: float, *, dead: bool) -> nn.Module:
    """MODEL with smaller or greater activations, perhaps with a unit that is always zero; no test changes it."""
    model = copy.deepcopy(MODEL)
    with torch.no_grad():
        model[3].weight.mul_(scale)
        if dead:
            model[3].weight[0] = 0.0
    return model


@pytest.mark.parametrize("dtype", HALF)
def test_models_in_half_precision_are_explained_in_float32(
    dtype: torch.dtype, expected: clarp.Explanation
) -> None:
    e = clarp.Explainer(copy.deepcopy(MODEL).to(dtype), "ssglrp")(X.to(dtype), [1, 2])
    assert e.relevance.dtype == e.logits.dtype == torch.float32
    assert torch.isfinite(e.relevance).all()
    assert apart(e.relevance, expected.relevance) < 20 * torch.finfo(dtype).eps


@pytest.mark.parametrize("method", clarp.methods())
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_bfloat16_stays_finite(method: str, scale: float) -> None:
    model = scaled(scale, dead=True)
    e = clarp.Explainer(captured(model), method, dtype="bfloat16")(X, [1, 2])
    with torch.no_grad():
        torch.testing.assert_close(e.logits, model(X), rtol=1e-4, atol=0.01)  # the forward pass is in float32
    assert e.relevance.dtype == torch.float32
    assert torch.isfinite(e.relevance).all()
    for entry in e.ledger:
        assert entry.arrived.dtype == torch.float32  # a sum of many needs its digits
        assert torch.isfinite(entry.epsilon).all()


@pytest.fixture(scope="module")
def classified() -> tuple[Network, Tensor]:
    """A real classifier, captured once for each type, and a photo."""
    classifier = pytest.importorskip("clarp.models").load("efficientnet-lite0")
    with Image.open(Path(clarp.__file__).parent / "assets" / "cat_and_coffee.jpg") as photo:
        x = classifier.preprocess(photo.convert("RGB")).unsqueeze(0)
    return Network(classifier.module), x


@pytest.mark.parametrize("method", ["lrp", "sglrp", "ssglrp", "clarp"])
def test_bfloat16_gives_the_same_picture_of_a_real_classifier(
    method: str, classified: tuple[Network, Tensor]
) -> None:
    network, x = classified
    exact, half = (clarp.Explainer(network, method, dtype=t)(x) for t in (None, torch.bfloat16))
    assert spearmanr(exact.heatmap.flatten(), half.heatmap.flatten()).statistic > 0.99
    assert not torch.equal(exact.heatmap, half.heatmap)


@pytest.mark.parametrize("composite", [name for name in clarp.composites.names() if name != "zero"])
@pytest.mark.parametrize("scale", [1e-18, 1e-9, 1e9, 1e15])
def test_float32_stays_finite_at_any_scale(composite: str, scale: float) -> None:
    """Activations far from one: near zero they are zero, or a stabiliser holds; nothing becomes infinite."""
    network = captured(scaled(scale, dead=False))
    e = clarp.Explainer(network, "ssglrp", composite=composite)(X, 1)
    assert torch.isfinite(e.relevance).all()
    assert torch.isfinite(e.ledger.pixels).all()


@pytest.mark.parametrize("dtype", HALF)
def test_called_under_autocast(dtype: torch.dtype, expected: clarp.Explanation) -> None:
    with torch.autocast("cpu", dtype=dtype):
        explainer = clarp.Explainer(MODEL, "ssglrp")
        explainer.plan((3, *SIZE))
        e = explainer(X, [1, 2])
        probabilities = explainer.probabilities(X)
    assert torch.equal(e.relevance, expected.relevance)
    assert torch.equal(probabilities, explainer.probabilities(X))


def test_autocast_inside_the_model_is_explained_in_float32(expected: clarp.Explanation) -> None:
    class Casting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = small()

        def forward(self, x: Tensor) -> Tensor:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                return self.inner(x).float()

    assert apart(clarp.Explainer(Casting().eval(), "ssglrp")(X, [1, 2]).relevance, expected.relevance) < 1e-5


class Attention(nn.Module):
    """The usual one of Hugging Face: its softmax is in float32, whatever the model's type."""

    def __init__(self, *, end: torch.dtype | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.patches, self.qkv, self.head = nn.Conv2d(3, 8, 4, stride=4), nn.Linear(8, 24), nn.Linear(8, 5)
        self.end = end

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.patches(x).flatten(2).mT).chunk(3, -1)
        weights = F.softmax(q @ k.mT, -1, dtype=torch.float32).to(q.dtype)
        logits = self.head((weights @ v).mean(1))
        return logits if self.end is None else logits.to(self.end)


@pytest.mark.parametrize("end", [None, torch.float32])
@pytest.mark.parametrize("dtype", [*HALF, torch.float64])
def test_casts_between_floating_types_change_nothing(dtype: torch.dtype, end: torch.dtype | None) -> None:
    model, x = Attention(end=end).to(dtype).eval(), X.to(dtype)
    ours = clarp.Explainer(model, "lrp")(x, [1, 2])
    theirs = clarp.Explainer(copy.deepcopy(model).float(), "lrp")(x.float(), [1, 2])
    assert apart(ours.logits, theirs.logits) < 1e-5
    assert apart(ours.relevance, theirs.relevance) < 1e-3


def test_half_precision_in_the_middle_of_a_model() -> None:
    """The model rounds to bfloat16 there, and the graph doesn't: that is no reason to refuse it."""

    class Middle(Attention):
        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.patches(x).bfloat16().relu().float().mean((2, 3)))

    clarp.Explainer(Middle().eval(), "lrp")(X, [1, 2])


def test_casts_to_whole_numbers_are_refused() -> None:
    class Whole(Attention):
        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.patches(x).mean((2, 3)).long().to(x.dtype))

    with pytest.raises(
        clarp.UnsupportedOperation, match=r"changes the type from torch\.float32 to torch\.int64"
    ):
        clarp.Explainer(Whole().eval())(X)


class Branching(nn.Module):
    """A value that a rectifier and another branch read, and one that a rectifier alone reads."""

    def __init__(self, *, spelled_out: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1), nn.Linear(4, 3)
        self.spelled_out = spelled_out

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        z = (y.relu() * 1.0 if self.spelled_out else y.relu()) + y
        z = self.second(z) * (1.0 if self.spelled_out else 1)
        return self.head(z.clamp(0, 6).mean((2, 3)))


def test_a_rectifier_overwrites_no_value_that_others_read() -> None:
    one, other = (Branching(spelled_out=flag).eval() for flag in (False, True))
    a, b = (clarp.Explainer(captured(each), "ssglrp")(X, 1) for each in (one, other))
    with torch.no_grad():
        torch.testing.assert_close(a.logits, one(X))
    assert apart(a.relevance, b.relevance) < 1e-5
    for layers in (("first",), ("second",)):  # kept values are not overwritten either
        seen = clarp.Explainer(captured(one), "ssglrp")(X, 1, layers=layers)
        torch.testing.assert_close(seen.relevance, a.relevance)


def test_maps_are_plain_tensors(expected: clarp.Explanation) -> None:
    assert expected.relevance.is_contiguous()
    assert expected.relevance.view(2, -1).shape == (2, 3 * 17 * 13)


def test_channels_last(expected: clarp.Explanation) -> None:
    last = torch.channels_last
    model = copy.deepcopy(MODEL).to(memory_format=last)
    for m, x in (
        (model, X),
        (MODEL, X.contiguous(memory_format=last)),
        (model, X.contiguous(memory_format=last)),
    ):
        assert apart(clarp.Explainer(m, "ssglrp")(x, [1, 2]).relevance, expected.relevance) < 1e-5


@pytest.mark.parametrize("dtype", [None, "bfloat16"])
@pytest.mark.parametrize("options", [{"stride": 2, "output_padding": 1}, {"dilation": 2, "groups": 2}])
def test_transposed_convolutions_in_every_layout_and_type(options: dict[str, int], dtype: str | None) -> None:
    """float32 and bfloat16 run with the channels side by side, float64 without."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2), nn.ReLU(), nn.ConvTranspose2d(6, 8, 3, padding=1, **options), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 7),
    ).eval()  # fmt: skip
    exact = clarp.Explainer(model, "ssglrp", dtype="float64")(X, [1, 2]).relevance
    for each in (model, copy.deepcopy(model).to(memory_format=torch.channels_last)):
        found = clarp.Explainer(each, "ssglrp", dtype=dtype)(X, [1, 2]).relevance
        assert apart(found, exact) < (1e-5 if dtype is None else 0.03)


@pytest.mark.parametrize("channels", [1, 5])
@pytest.mark.parametrize("batch", [1, 3])
def test_other_channels_and_batches(channels: int, batch: int) -> None:
    x = pixels(batch, channels)
    explainer = clarp.Explainer(small(channels), "ssglrp", bounds=([0.0] * channels, [1.0] * channels))
    e = explainer(x, 1)
    assert e.relevance.shape == x.shape
    one = explainer(x[-1:], 1)
    assert apart(one.relevance, e.relevance[-1:]) < 1e-5


def parametrized(model: nn.Module) -> None:
    parametrizations.weight_norm(model[0])
    parametrizations.spectral_norm(model[3])
    parametrizations.orthogonal(model[7])


def pruned(model: nn.Module) -> None:
    prune.l1_unstructured(model[0], "weight", 0.5)
    prune.ln_structured(model[3], "weight", 0.5, n=2, dim=0)


def frozen(model: nn.Module) -> None:
    model.requires_grad_(requires_grad=False)


def shared(model: nn.Module) -> None:
    model[2] = nn.Sequential(nn.ReLU(), nn.Conv2d(6, 6, 1), nn.ReLU(), nn.Conv2d(6, 6, 1))
    model[2][3].weight = model[2][1].weight


WEIGHTS: dict[str, Callable[[nn.Module], object]] = {
    "parametrized": parametrized,
    "weight norm by hook": lambda model: weight_norm(model[0]),
    "spectral norm by hook": lambda model: spectral_norm(model[0]),
    "pruned": pruned,
    "frozen": frozen,
    "shared": shared,
}


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated")
@pytest.mark.parametrize("which", WEIGHTS)
def test_weights_that_are_computed(which: str) -> None:
    """The map is that of the same network with the weights written out, and the model stays as it was."""
    model = small()
    WEIGHTS[which](model)
    model.eval()
    with torch.no_grad():
        logits = model(X)
    plain = written_out(model)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    kinds = [{name: type(v) for name, v in vars(m).items()} for m in model.modules()]
    e = clarp.Explainer(model, "ssglrp")(X, [1, 2])
    assert apart(e.logits, logits) < 1e-5
    assert apart(e.relevance, clarp.Explainer(plain, "ssglrp")(X, [1, 2]).relevance) < 1e-5
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in state.items())
    assert kinds == [{name: type(v) for name, v in vars(m).items()} for m in model.modules()]


def written_out(model: nn.Module) -> nn.Module:
    """The same layers with plain weights."""

    def plain(layer: nn.Module) -> nn.Module:
        if isinstance(layer, nn.Sequential):
            return nn.Sequential(*map(plain, layer))
        if not isinstance(layer, nn.Conv2d | nn.Linear):
            return layer
        new = (
            nn.Linear(layer.in_features, layer.out_features)
            if isinstance(layer, nn.Linear)
            else nn.Conv2d(
                layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding
            )
        )
        new.load_state_dict({"weight": layer.weight.detach(), "bias": layer.bias.detach()})
        return new

    return plain(model).eval()


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        (X[:0], ValueError, r"\(0, 3, 17, 13\).*nothing empty"),
        (X.to(torch.complex64), TypeError, "complex64, expected floating"),
        ((X * 255).byte(), TypeError, "uint8, expected floating"),
        (X[0], ValueError, r"images\.unsqueeze\(0\)"),
        (X.to("meta"), ValueError, r"on meta, and the model on cpu.*images\.to\('cpu'\)"),
    ],
)
def test_images_that_do_not_work(images: Tensor, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        clarp.Explainer(MODEL)(images)


def test_a_model_on_two_devices() -> None:
    model = copy.deepcopy(MODEL)
    model[7] = model[7].to("meta")
    with pytest.raises(ValueError, match=r"several devices \(cpu, meta\).*model\.to\('cpu'\)"):
        Network(model).device  # noqa: B018  the property looks at all tensors
    with pytest.raises(clarp.CaptureError, match=r"module '7' .*parameters without values"):
        clarp.Explainer(model)(X)


def test_a_model_without_values() -> None:
    with pytest.raises(clarp.CaptureError, match=r"parameters without values.*Load its weights first"):
        clarp.Explainer(copy.deepcopy(MODEL).to("meta"))(X.to("meta"))


@pytest.mark.parametrize("dtype", [torch.float16, torch.int64, torch.complex64, "float16", "single"])
def test_types_that_nothing_is_computed_in(dtype: torch.dtype) -> None:
    with pytest.raises(TypeError, match=r"dtype is .*expected torch\.float32"):
        clarp.Explainer(MODEL, dtype=dtype)


class Masked(nn.Module):
    """Rules the last two of five classes out."""

    def __init__(self, *, masks: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8, 5)
        self.register_buffer("mask", torch.tensor([0.0, 0.0, 0.0, -torch.inf, -torch.inf]))
        self.masks = masks

    def forward(self, x: Tensor) -> Tensor:
        logits = self.head(self.first(x).relu().mean((2, 3)))
        return logits + self.mask if self.masks else logits


@cache
def masked_and_plain() -> tuple[nn.Module, nn.Module]:
    """One of each for all methods, so that it is captured once; no test changes them."""
    return Masked(masks=True).eval(), Masked(masks=False).eval()


@pytest.mark.filterwarnings("ignore::clarp.RelevanceLost")
@pytest.mark.parametrize("method", clarp.methods())
def test_classes_that_the_model_rules_out_are_no_rivals(method: str) -> None:
    masked, plain = map(captured, masked_and_plain())
    rivals = [0, 2] if clarp.Method.named(method).has_rivals else None
    ours = clarp.Explainer(masked, method)(X, 1)
    theirs = clarp.Explainer(plain, method)(X, 1, rivals)
    assert apart(ours.relevance, theirs.relevance) < 1e-5
    with pytest.raises(ValueError, match=r"target \[3\] has an infinite logit"):
        clarp.Explainer(masked, method)(X, 3)
