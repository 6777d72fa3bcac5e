"""Volumes, clips, several views and signals: explained like photos, through everything that the API promises."""

import copy
from functools import cache, partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import clarp
from clarp.evaluation.metrics.base import Heatmaps
from clarp.network import Network
from oracle.calls import captured
from oracle.nets import randomise_

TOLERANCE = {"rtol": 1e-8, "atol": 1e-12}


class Block(nn.Module):
    """A residual block over three axes."""

    def __init__(self, width: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv3d(width, width, 3, stride, padding=1, bias=False),
            nn.BatchNorm3d(width),
            nn.ReLU(),
            nn.Conv3d(width, width, 3, padding=1),
            nn.BatchNorm3d(width),
        )
        self.shortcut = nn.Conv3d(width, width, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.shortcut(x))


class Clips(nn.Module):
    """A video transformer: patches by a convolution, a class token, positions, one encoder layer."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv3d(3, 8, (2, 4, 4), (2, 4, 4))
        self.token = nn.Parameter(torch.zeros(1, 1, 8))
        self.places = nn.Parameter(torch.zeros(1, 9, 8))
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.places
        return self.head(self.layer(x)[:, 0])


def features(*, pool: nn.Module | None = None, norm: nn.Module | None = None) -> nn.Sequential:
    """A network of photos, (N, 3, H, W) to (N, 8)."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        norm or nn.BatchNorm2d(8),
        nn.PReLU(8),
        pool or nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 3),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )


class Views(nn.Module):
    """Every view by the same network, and the views together by any function."""

    def __init__(self, together, net: nn.Module | None = None, apart=None) -> None:
        super().__init__()
        self.net, self.head = net or features(), nn.Linear(8, 3)
        self.apart, self.together = apart or flattened, together

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.together(self.apart(self.net, x)))


def flattened(net: nn.Module, x: Tensor) -> Tensor:
    return net(x.flatten(0, 1)).unflatten(0, x.shape[:2])


def viewed(net: nn.Module, x: Tensor) -> Tensor:
    batch, count = x.shape[:2]
    return net(x.view(batch * count, *x.shape[2:])).view(batch, count, -1)


def looped(net: nn.Module, x: Tensor) -> Tensor:
    return torch.stack([net(view) for view in x.unbind(1)], 1)


class Recurrent(nn.Module):
    """Frames by a network of photos, and a recurrent layer over them."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.over, self.head = features(), nn.GRU(8, 4, batch_first=True), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.over(flattened(self.net, x))[0][:, -1])


def closed(*layers: nn.Module, axes: int = 3, width: int = 8) -> nn.Sequential:
    return nn.Sequential(
        *layers, getattr(nn, f"AdaptiveAvgPool{axes}d")(1), nn.Flatten(), nn.Linear(width, 3)
    )


VOLUMES = {
    "residual": lambda: closed(nn.Conv3d(3, 8, 3), nn.BatchNorm3d(8), nn.ReLU(), Block(8, 2)),
    "batch norm first": lambda: closed(nn.BatchNorm3d(3), nn.Conv3d(3, 8, 3), nn.ReLU()),
    "(2+1)d": lambda: closed(
        nn.Conv3d(3, 6, (1, 3, 3), padding=(0, 1, 1)), nn.ReLU(), nn.Conv3d(6, 8, (3, 1, 1)), nn.ReLU()
    ),
    "an encoder with a bottleneck": lambda: closed(
        nn.Conv3d(3, 4, 3, padding=1), nn.InstanceNorm3d(4, affine=True), nn.PReLU(),
        nn.MaxPool3d(2), nn.Conv3d(4, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.LeakyReLU(0.1),
        nn.AvgPool3d(2), nn.Conv3d(8, 8, 1), nn.ReLU(),
    ),
    "dilated, grouped, transposed": lambda: closed(
        nn.Conv3d(3, 6, 2, dilation=2, groups=3), nn.ReLU(), nn.ConvTranspose3d(6, 8, 2, stride=2), nn.ReLU()
    ),
    "pads": lambda: closed(
        nn.ZeroPad3d((1, 0, 1, 0, 0, 1)), nn.Conv3d(3, 4, 2), nn.ReLU(), nn.ReplicationPad3d(1),
        nn.Conv3d(4, 8, 3, padding=1, padding_mode="reflect"), nn.ReLU(), nn.ConstantPad3d(1, 0.5),
    ),
    "poolings": lambda: closed(
        nn.Conv3d(3, 8, 3, padding=1), nn.ReLU(), nn.LPPool3d(2, 2, ceil_mode=True), nn.AdaptiveMaxPool3d((2, 2, 1))
    ),
    "resized": lambda: closed(
        nn.Upsample(scale_factor=2, mode="trilinear"), nn.Conv3d(3, 8, 3, 2), nn.ReLU(), nn.Upsample(size=5)
    ),
    "gate": lambda: nn.Sequential(Gated(), nn.AdaptiveMaxPool3d(1), nn.Flatten(), nn.Linear(8, 3)),
    "a transformer": Clips,
}  # fmt: skip


class Gated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.gate = nn.Conv3d(3, 8, 3), nn.Conv3d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv(x))
        return x * self.gate(x.mean((2, 3, 4), keepdim=True)).sigmoid()


SIGNALS = {
    "residual dilations": lambda: closed(
        nn.ZeroPad1d((2, 0)), nn.Conv1d(3, 8, 3), nn.BatchNorm1d(8), nn.ReLU(), nn.Conv1d(8, 8, 3, dilation=2),
        nn.ReLU(), axes=1,
    ),
    "poolings": lambda: closed(
        nn.Conv1d(3, 8, 3, groups=1, stride=2), nn.ReLU(), nn.MaxPool1d(2, 1, 1), nn.AdaptiveMaxPool1d(4),
        nn.LPPool1d(2, 2), axes=1,
    ),
    "transposed, resized": lambda: closed(
        nn.ConvTranspose1d(3, 8, 3, 2), nn.InstanceNorm1d(8), nn.ReLU(), nn.Upsample(scale_factor=2, mode="linear"),
        axes=1,
    ),
}  # fmt: skip

MULTIVIEW = {
    "mean": partial(Views, lambda f: f.mean(1)),
    "max": partial(Views, lambda f: f.amax(1), apart=viewed),
    "a loop": partial(Views, lambda f: f.amax(1), apart=looped),
    "a recurrent layer": Recurrent,
    **{
        name: partial(Views, lambda f: f.mean(1), net)
        for name, net in {
            "average pooling": features(pool=nn.AvgPool2d(2)),
            "adaptive pooling": features(pool=nn.AdaptiveMaxPool2d(4)),
            "power pooling": features(pool=nn.LPPool2d(2, 2)),
            "bilinear": features(pool=nn.Upsample(size=5, mode="bilinear")),
            "nearest": features(pool=nn.Upsample(scale_factor=2)),
            "mirrored": features(pool=nn.ReflectionPad2d(1)),
            "shuffled": features(pool=nn.Sequential(nn.PixelUnshuffle(2), nn.PixelShuffle(2))),
            "unfolded": features(pool=nn.Sequential(nn.Unfold(2, stride=2), nn.Fold((8, 8), 2, stride=2))),
            "group norm": features(norm=nn.GroupNorm(2, 8)),
            "instance norm": features(norm=nn.InstanceNorm2d(8, affine=True)),
            "instance norm, running": features(norm=nn.InstanceNorm2d(8, track_running_stats=True)),
            "response norm": features(norm=nn.LocalResponseNorm(3)),
        }.items()
    },
}

CASES = {
    **{f"volume, {name}": (make, (3, 4, 8, 8)) for name, make in VOLUMES.items()},
    **{f"signal, {name}": (make, (3, 16)) for name, make in SIGNALS.items()},
    **{f"views, {name}": (make, (3, 3, 8, 8)) for name, make in MULTIVIEW.items()},
}


@cache
def made(name: str) -> tuple[nn.Module, Tensor]:
    """The same model for all tests, so that it is captured once: a test that changes it copies it."""
    make, shape = CASES[name]
    torch.manual_seed(0)
    return randomise_(make()).double().eval(), torch.rand(3, *shape, dtype=torch.float64)


def composite(name: str) -> str:
    return "epsilon-plus" if "transformer" in name else "epsilon-plus-box"


@pytest.mark.filterwarnings("ignore::clarp.errors.RelevanceLost")
@pytest.mark.parametrize("name", CASES)
def test_a_batch_is_its_samples_and_many_targets_are_one_at_a_time(name: str) -> None:
    model, x = made(name)
    explainer = clarp.Explainer(captured(model), "sglrp", composite=composite(name), bounds=(0.0, 1.0))
    targets = torch.tensor([[0, 1], [2, 0], [1, 2]])
    both = explainer(x, target=targets)
    with torch.no_grad():
        assert torch.allclose(both.logits, model(x), rtol=1e-9)
    assert both.relevance.shape == (3, 2, *x.shape[1:])
    assert torch.isfinite(both.relevance).all()
    assert (both.relevance.flatten(2).abs().sum(-1) > 0).all()
    for k in range(2):
        one = explainer(x, target=targets[:, k]).relevance
        assert torch.allclose(one, both.relevance[:, k], **TOLERANCE)
    for i in range(3):
        alone = explainer(x[i : i + 1], target=targets[i : i + 1]).relevance
        assert torch.allclose(alone[0], both.relevance[i], **TOLERANCE)
    parts = explainer(x, target=targets, batch_size=1)
    assert torch.allclose(parts.relevance, both.relevance, **TOLERANCE)
    assert parts.channels == both.channels


CONSERVING = [
    "volume, residual",
    "volume, (2+1)d",
    "signal, poolings",
    "views, mean",
    "views, max",
    "views, group norm",
]


@pytest.mark.parametrize("name", CONSERVING)
def test_the_ledger_is_balanced(name: str) -> None:
    """What did not arrive is in the ledger, operation by operation."""
    model, x = made(name)
    e = clarp.Explainer(captured(model), "lrp", composite="epsilon-plus-box", bounds=(0.0, 1.0))(x, target=1)
    taken = sum(entry.arrived - entry.handed_on for entry in e.ledger)
    assert torch.allclose(e.ledger.seed - taken, e.ledger.pixels, rtol=1e-9)
    assert torch.allclose(e.relevance.flatten(1).sum(1), e.ledger.pixels, rtol=1e-9)


@pytest.mark.filterwarnings("ignore::clarp.errors.RelevanceLost")
@pytest.mark.parametrize("method", ["lrp", "clrp2", "sglrp", "slrp", "ssglrp", "clarp"])
@pytest.mark.parametrize("name", ["volume, residual", "signal, residual dilations", "views, mean"])
def test_every_method(name: str, method: str) -> None:
    model, x = made(name)
    e = clarp.Explainer(captured(model), method, bounds=(0.0, 1.0))(x, target=[0, 1, 2])
    assert torch.isfinite(e.relevance).all()
    assert not e.empty.any()
    assert e.heatmap.ndim == x.ndim - 1


@cache
def spelt() -> tuple[nn.Module, ...]:
    """One network of views, spelled in three ways."""
    model, _ = made("views, mean")
    models = [copy.deepcopy(model) for _ in range(3)]
    for each, apart in zip(models, (flattened, viewed, looped), strict=True):
        each.apart = apart
    return tuple(models)


@pytest.mark.parametrize("method", ["lrp", "sglrp"])
def test_views_in_the_batch_and_in_a_loop_have_the_same_map(method: str) -> None:
    _, x = made("views, mean")
    maps = [
        clarp.Explainer(captured(model), method, bounds=(0.0, 1.0))(x, target=1).relevance
        for model in spelt()
    ]
    assert torch.allclose(maps[0], maps[1], **TOLERANCE)
    assert torch.allclose(maps[0], maps[2], **TOLERANCE)


def test_ssglrp_of_views_in_the_batch_and_in_a_loop() -> None:
    """Selection is relative to the strongest neuron of a call, which a loop has for each view: equal but for its floor."""
    _, x = made("views, mean")
    batch, _, loop = (
        clarp.Explainer(captured(model), "ssglrp", bounds=(0.0, 1.0))(x, target=1).relevance
        for model in spelt()
    )
    assert float((batch - loop).abs().max() / loop.abs().max()) < 1e-3


@cache
def of_photos() -> nn.Module:
    """The network of one view."""
    model, _ = made("views, mean")
    return nn.Sequential(model.net, model.head).eval()


@pytest.mark.parametrize("method", ["lrp", "slrp", "ssglrp", "clarp"])
def test_two_equal_views_are_a_photo(method: str) -> None:
    """Each gets half of what the photo alone gets, whatever is selected."""
    model, x = made("views, mean")
    views = clarp.Explainer(captured(model), method, bounds=(0.0, 1.0))
    both = views(torch.stack([x[:, 0]] * 2, 1), target=1).relevance
    alone = clarp.Explainer(captured(of_photos()), method, bounds=(0.0, 1.0))
    photo = alone(x[:, 0], target=1).relevance
    for view in range(2):
        assert torch.allclose(2 * both[:, view], photo, rtol=1e-6, atol=1e-9 * float(photo.abs().max()))


class OneOf(nn.Module):
    """The logits of the second of several views in the batch."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.flatten(0, 1)).unflatten(0, x.shape[:2])[:, 1]


@pytest.mark.parametrize("method", ["slrp", "ssglrp"])
@pytest.mark.parametrize("hidden", [False, True])
def test_a_view_alone_is_a_photo(method: str, hidden: bool) -> None:
    """Dense layers behind the pooling have no positions, whatever is in the batch: selection leaves them alone."""
    torch.manual_seed(7)
    head = (nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3)) if hidden else (nn.Linear(8, 3),)
    net = nn.Sequential(features(), *head).double().eval()
    _, x = made("views, mean")
    plan = clarp.Explainer(captured(OneOf(net).eval()), "lrp").plan(x.shape[1:])
    assert any(len(step.node.shape) == 2 for step in plan if step.node.module.startswith("net.1"))
    views = clarp.Explainer(captured(OneOf(net).eval()), method, bounds=(0.0, 1.0))(x, target=1).relevance
    photo = clarp.Explainer(captured(net), method, bounds=(0.0, 1.0))(x[:, 1], target=1).relevance
    assert torch.allclose(views[:, 1], photo, rtol=1e-6, atol=1e-9 * float(photo.abs().max()))
    assert not bool(views[:, [0, 2]].any())


def test_a_volume_of_one_slice_is_a_photo() -> None:
    torch.manual_seed(0)
    flat = randomise_(
        closed(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), axes=2)
    )
    deep = closed(
        nn.Conv3d(3, 8, (1, 3, 3), padding=(0, 1, 1)), nn.BatchNorm3d(8), nn.ReLU(), nn.MaxPool3d((1, 2, 2))
    )
    state = {k: v.unsqueeze(2) if v.ndim == 4 else v for k, v in flat.state_dict().items()}
    deep.load_state_dict(state)
    x = torch.rand(2, 3, 8, 8, dtype=torch.float64)
    for method in ("ssglrp", "clarp", "slrp"):
        one, other = (
            clarp.Explainer(captured(model), method, bounds=(0.0, 1.0))(images, target=[0, 1]).heatmap
            for model, images in ((flat.double().eval(), x), (deep.double().eval(), x.unsqueeze(2)))
        )
        assert torch.allclose(one, other[:, 0], **TOLERANCE)


def test_layers_of_a_volume_and_of_views() -> None:
    model, x = made("volume, residual")
    e = clarp.Explainer(captured(model), "lrp", bounds=(0.0, 1.0))(x, target=0, layers=["1", "3.body.2"])
    assert e.layers["1"].shape == (3, 8, 2, 6, 6)
    assert e.layers["1"].sum(-4).shape == (3, 2, 6, 6)
    model, x = made("views, mean")
    e = clarp.Explainer(captured(model), "lrp", bounds=(0.0, 1.0))(x, target=0, layers=["net.0"])
    assert e.layers["net.0"].shape == (3, 3, 8, 8, 8)


def test_in_one_call_and_plans() -> None:
    model, x = made("volume, residual")
    assert clarp.attribute(model, x, 1, "sglrp", bounds=(0.0, 1.0)).shape == x.shape
    explainer = clarp.Explainer(captured(model), "sglrp")
    assert "3.body.0" in explainer.layers((3, 4, 8, 8))
    assert "Convolution" in str(explainer.plan(input_shape=(3, 4, 8, 8)))
    with pytest.raises(ValueError, match="input_shape is"):
        explainer.plan(input_shape=(3,))


@pytest.mark.parametrize("name", ["volume, residual", "views, mean"])
def test_other_types_compiled_exported_and_cached(name: str, tmp_path) -> None:
    model, x = made(name)
    expected = clarp.Explainer(captured(model), "sglrp", bounds=(0.0, 1.0))(x, target=1)
    compiled = clarp.Explainer(captured(model), "sglrp", bounds=(0.0, 1.0), compile="eager")(x, target=1)
    assert torch.allclose(compiled.relevance, expected.relevance, rtol=1e-6, atol=1e-10)
    single = clarp.Explainer(copy.deepcopy(model).float(), "sglrp", bounds=(0.0, 1.0))(x.float(), target=1)
    assert torch.allclose(single.relevance.double(), expected.relevance, rtol=1e-2, atol=1e-4)
    for dynamic in (None, ({0: torch.export.Dim.AUTO},)):
        program = torch.export.export(model, (x,), dynamic_shapes=dynamic, strict=False)
        found = clarp.Explainer(program, "sglrp", bounds=(0.0, 1.0))(x, target=1)
        assert torch.allclose(found.relevance, expected.relevance, **TOLERANCE)
        assert found.channels == expected.channels


def test_a_volume_from_the_cache(tmp_path) -> None:
    model, x = made("volume, residual")
    maps = [
        clarp.Explainer(Network(model, cache=tmp_path), "lrp", bounds=(0.0, 1.0))(x, target=1).relevance
        for _ in range(2)
    ]
    assert torch.equal(*maps)


@pytest.mark.parametrize(
    ("model", "shape", "message"),
    [
        (nn.Conv2d, (3, 8, 8), r"\(8, 8\).*images\.unsqueeze\(0\)"),
        (nn.Conv3d, (3, 8, 8, 8), r"\(8, 8, 8\).*images\.unsqueeze\(0\)"),
        (nn.Conv2d, (2, 3, 4, 8, 8), r"refuses images of shape \(3, 4, 8, 8\)"),
        (nn.Conv3d, (2, 3, 4, 8, 8, 8), r"\(2, 3, 4, 8, 8, 8\), expected \(B, C, H, W\), a volume"),
        (nn.Conv2d, (8, 8), r"\(8, 8\), expected \(B, C, H, W\)"),
    ],
)
def test_what_is_no_batch_of_images_for_the_model(model, shape: tuple[int, ...], message: str) -> None:
    net = closed(model(3, 8, 3), axes=2 if model is nn.Conv2d else 3).eval()
    with pytest.raises(ValueError, match=message):
        clarp.Explainer(net, "lrp")(torch.rand(*shape))


def test_metrics_of_photos_refuse_volumes() -> None:
    model, x = made("volume, residual")
    e = clarp.Explainer(captured(model), "lrp", bounds=(0.0, 1.0))(x, target=1)
    for maps in (e.heatmap, e.relevance):
        with pytest.raises(ValueError, match="heatmaps"):
            Heatmaps.of(maps, like=x)


@pytest.mark.parametrize("name", ["volume, residual", "views, mean", "signal, poolings"])
def test_pictures_and_files(name: str, tmp_path) -> None:
    model, x = made(name)
    e = clarp.Explainer(captured(model), "lrp", bounds=(0.0, 1.0))(x, target=[[0, 1], [1, 2], [2, 0]])
    assert e.plot("contours").axes
    assert e.plot("versus").axes
    assert "<table>" in e._repr_html_()
    e.save(tmp_path)
    assert np.load(tmp_path / "relevance.npy").shape == (3, 2, *x.shape[1:])
    assert len(list(tmp_path.glob("*-overlay.png"))) == 6
