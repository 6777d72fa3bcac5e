"""Every spelling of an operation is captured, computes what torch computes, and loses no relevance unseen."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import clarp
from oracle.calls import images
from oracle.nets import randomise_
from oracle.spellings import Body, check_gradient, check_maps, model, network

KERNEL = images(2, 4, 2, 2, seed=9)
SPREAD = images(4, 2, 3, 3, seed=9)


def spread_out(x: Tensor) -> Tensor:
    """(B, 4, 6, 6) with a zero behind every value, along both axes."""
    return F.pad(x[:, :, :, None, :, None], (0, 1, 0, 0, 0, 1)).reshape(-1, 4, 12, 12)


SPELLINGS: dict[str, tuple[Body, ...]] = {
    # each row: spellings of the same function of (B, 4, 6, 6), which must give the same map
    "ReLU": (F.relu, torch.relu, nn.ReLU(), nn.ReLU(inplace=True), lambda x: x.clamp(min=0)),
    "clamp": (
        nn.ReLU6(),
        lambda x: x.clamp(0.0, 6.0),
        lambda x: x.clip(0.0, 6.0),
        lambda x: x.clamp(torch.tensor(0.0), torch.tensor([6.0])),
        lambda x: x.clamp(min=torch.tensor(0.0)).clamp_max(6),
    ),
    "SiLU": (
        F.silu,
        nn.SiLU(inplace=True),
        lambda x: x * torch.sigmoid(x),
        lambda x: torch.multiply(x, torch.special.expit(x)),
    ),
    "hard swish": (
        nn.Hardswish(inplace=True),
        lambda x: x * F.hardsigmoid(x),
        lambda x: x * (F.relu6(x + 3) / 6),
        lambda x: x * F.relu6(x + 3) / 6,
    ),
    "GELU": (
        nn.GELU(),
        lambda x: x * 0.5 * (1 + torch.erf(x / 2**0.5)),
        lambda x: x * 0.5 * (1 + torch.special.erf(x / 2**0.5)),
    ),
    "mish": (nn.Mish(inplace=True), lambda x: x * torch.tanh(F.softplus(x))),
    "arctan": (torch.atan, torch.arctan, lambda x: x.atan_(), torch.arctan_),
    "leaky ReLU": (nn.LeakyReLU(0.1), lambda x: F.leaky_relu_(x, 0.1)),
    "sum": (lambda x: x + x.flip(-1), lambda x: torch.add(x, x.flip(-1)), lambda x: x.flip(-1).add_(x)),
    "difference": (
        lambda x: x - 2 * x.flip(-1),
        lambda x: torch.sub(x, x.flip(-1), alpha=2),
        lambda x: x.subtract(2 * x.flip(-1)),
    ),
    "factor": (
        lambda x: x / 4,
        lambda x: x * 0.25,
        lambda x: x.mul(0.5).div_(2),
        lambda x: torch.divide(x, 4),
        lambda x: torch.true_divide(torch.negative(x), -4),
    ),
    "global average": (
        lambda x: x + F.adaptive_avg_pool2d(x, 1),
        lambda x: x + x.mean((2, 3), keepdim=True),
        lambda x: x + x.mean((2, 3))[:, :, None, None],
        lambda x: x + (x.sum((2, 3), keepdim=True) / 36),
    ),
    "global maximum": (
        lambda x: x + F.adaptive_max_pool2d(x, 1),
        lambda x: x + x.amax((2, 3), keepdim=True),
        lambda x: x + F.max_pool2d(x, 6),
    ),
    "channel shuffle": (
        lambda x: x.view(-1, 2, 2, 6, 6).transpose(1, 2).reshape(-1, 4, 6, 6),
        lambda x: x.view(-1, 2, 2, 6, 6).swapaxes(1, 2).reshape(-1, 4, 6, 6),
        lambda x: x.view(-1, 2, 2, 6, 6).swapdims(-3, -4).reshape(-1, 4, 6, 6),
        lambda x: x.view(-1, 2, 2, 6, 6).movedim(1, 2).reshape(-1, 4, 6, 6),
        lambda x: x.view(-1, 2, 2, 6, 6).moveaxis((-4, 2), (2, 1)).reshape(-1, 4, 6, 6),
        lambda x: F.channel_shuffle(x, 2),
        lambda x: x[:, [0, 2, 1, 3]],
        lambda x: torch.index_select(x, 1, torch.tensor([0, 2, 1, 3])),
    ),
    "split": (
        lambda x: torch.cat(x.chunk(2, 1)[::-1], 1),
        lambda x: torch.cat([x[:, 2:], x[:, :2]], 1),
        lambda x: torch.concat([x[:, 2:], x[:, :2]], 1),
        lambda x: torch.concatenate([x[:, 2:], x[:, :2]], dim=1),
        lambda x: torch.cat(x.split([2, 2], 1)[::-1], 1),
        lambda x: x.roll(2, 1),
    ),
    "dropout": (
        nn.Identity(),
        nn.Dropout2d(),
        nn.AlphaDropout(),
        nn.FeatureAlphaDropout(),
        lambda x: F.alpha_dropout(x, inplace=True),
    ),
    "squeeze-excite": (
        lambda x: x * torch.sigmoid(x.mean((2, 3), keepdim=True)),
        lambda x: torch.sigmoid(F.adaptive_avg_pool2d(x, 1)).expand_as(x).mul(x),
    ),
    "pixel shuffle": (
        lambda x: F.pixel_shuffle(x, 2),
        lambda x: x.view(-1, 1, 2, 2, 6, 6).permute(0, 1, 4, 2, 5, 3).reshape(-1, 1, 12, 12),
    ),
    "nearest": (
        lambda x: F.interpolate(x, scale_factor=2),
        lambda x: x.repeat_interleave(2, 2).repeat_interleave(2, 3),
    ),
    "bilinear": (
        lambda x: F.interpolate(x, size=(9, 8), mode="bilinear"),
        lambda x: F.interpolate(x, scale_factor=(1.5, 4 / 3), mode="bilinear", recompute_scale_factor=True),
    ),
    "unit length": (
        lambda x: F.normalize(x, dim=1),
        lambda x: x / x.norm(dim=1, keepdim=True).clamp_min(1e-12),
    ),
    "divided by the deviation": (
        lambda x: x / x.std((2, 3), keepdim=True),
        lambda x: x / x.var((2, 3), keepdim=True).sqrt(),
        lambda x: x * (1 / x.var((2, 3), keepdim=True).sqrt()),
        lambda x: x * x.var((2, 3), keepdim=True).rsqrt(),
        lambda x: x / torch.sqrt(x.var((2, 3), unbiased=False, keepdim=True) * (36 / 35)),
    ),
    "convolution in windows": (
        lambda x: F.conv2d(
            x.unfold(2, 3, 3).unfold(3, 3, 3).permute(0, 2, 3, 1, 4, 5).reshape(-1, 4, 3, 3), KERNEL, stride=2
        ).reshape(-1, 4, 2),
        lambda x: torch.stack(
            [F.conv2d(x[:, :, i : i + 3, j : j + 3], KERNEL, stride=2) for i in (0, 3) for j in (0, 3)], 1
        ),
    ),
    "transposed convolution": (
        lambda x: F.conv_transpose2d(x, SPREAD, stride=2, padding=1, output_padding=1),
        lambda x: F.conv2d(spread_out(x), SPREAD.transpose(0, 1).flip(2, 3), padding=1),
    ),
    "transposed convolution in windows": (
        lambda x: F.conv_transpose2d(
            x.unflatten(2, (2, 3)).transpose(1, 2).reshape(-1, 4, 3, 6), SPREAD, groups=2
        ).reshape(-1, 8, 5, 8),
        lambda x: torch.cat([F.conv_transpose2d(x[:, :, i : i + 3], SPREAD, groups=2) for i in (0, 3)], 1),
    ),
    "mirrored padding": (lambda x: F.pad(x, (1, 2, 2, 1), mode="reflect"),),
    "repeated padding": (nn.ReplicationPad2d((1, 2, 0, 1)),),
    "windows": (lambda x: F.unfold(x, 3, padding=1),),
    "pool of a row": (
        lambda x: F.max_pool1d(x.flatten(2), 4, 4),
        lambda x: F.max_pool2d(x.flatten(2).unsqueeze(2), (1, 4), (1, 4)).squeeze(2),
    ),
    "average of a row": (
        lambda x: F.avg_pool1d(x.flatten(2), 4, 4),
        lambda x: x.flatten(2).unflatten(2, (9, 4)).mean(3),
    ),
    "a part overwritten": (
        lambda x: torch.cat([x[:, :1] * 2, x[:, 1:]], 1),
        lambda x: torch.slice_scatter(x, x[:, :1] * 2, 1, 0, 1),
    ),
    "a part in the middle overwritten": (
        lambda x: torch.cat([x[:, :, :2], x[:, :, 2:5].tanh(), x[:, :, 5:]], 2),
        lambda x: torch.slice_scatter(x, x[:, :, 2:5].tanh(), 2, 2, 5),
        lambda x: torch.slice_scatter(x, x[:, :, 2:5].tanh(), -2, -4, -1),
    ),
    "product": (lambda x: x * x.flip(1), lambda x: torch.mul(x.flip(1), x)),
    "square": (lambda x: x**2, torch.square, lambda x: x * x),
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_spellings_agree_and_the_ledger_closes(name: str) -> None:
    check_maps(*SPELLINGS[name])


@pytest.mark.parametrize("name", SPELLINGS)
def test_selection_gradient(name: str) -> None:
    check_gradient(SPELLINGS[name][0])


@pytest.mark.parametrize(
    ("body", "rule"),
    [
        (lambda x: x * x.flip(1).sigmoid(), "Gate(signal=0)"),
        (lambda x: x.flip(1).softmax(1) * x, "Gate(signal=1)"),
        (lambda x: x.relu() * x.flip(1).sigmoid(), "Gate(signal=0)"),
        (lambda x: F.relu6(x) * F.hardsigmoid(x.mean((2, 3), keepdim=True)).expand_as(x), "Gate(signal=0)"),
        (lambda x: x * (F.relu6(x.flip(1) + 3) / 6), "Gate(signal=0)"),
        (lambda x: x * F.avg_pool2d(x.flip(1).sigmoid(), 3, 1, 1), "Gate(signal=0)"),
        (lambda x: torch.tanh(x) * x.flip(1).sigmoid(), "Gate(signal=0)"),
        (lambda x: F.relu6(x) * x.flip(1), "Gate(signal=1)"),
        (lambda x: x * x.flip(1), "Half()"),
        (lambda x: x.relu() * x.flip(1).relu(), "Half()"),
        (lambda x: x.sigmoid() * x.flip(1).sigmoid(), "Half()"),
        (lambda x: x * x.flip(1).tanh(), "Half()"),
    ],
)
def test_what_counts_as_a_gate(body: Body, rule: str) -> None:
    plan = clarp.Explainer(model(body)).plan((3, 6, 6))
    assert [row["rule"] for row in plan.rows() if row["operation"] == "Multiply"] == [rule]


class Normalised(nn.Module):
    """Takes pixels in 0..1 and normalises them itself."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.register_buffer("mean", torch.tensor([0.4, 0.5, 0.6], dtype=torch.float64).view(3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.inner((x - self.mean) / -0.25)
        return result


@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("composite", ["zplus-box", "epsilon", "epsilon-plus-flat", "epsilon-gamma-box"])
def test_normalisation_inside_or_outside_the_model(composite: str, padding: int) -> None:
    """The same map, z^B with its bounds included, also where a negative factor turns low and high around."""
    inner = randomise_(
        nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=padding),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(16, 3),
        ).double()
    ).eval()
    outer = Normalised(inner).eval()
    x = images(2, 3, 6, 6).sigmoid()
    low, high = (((end - outer.mean) / -0.25).flatten().tolist() for end in (1.0, 0.0))
    inside = clarp.Explainer(outer, "sglrp", composite=composite, bounds=(0.0, 1.0))(x)
    outside = clarp.Explainer(inner, "sglrp", composite=composite, bounds=(low, high))(
        (x - outer.mean) / -0.25
    )
    assert torch.allclose(inside.relevance, outside.relevance, rtol=1e-10)


@pytest.mark.parametrize("link", [nn.Softmax(1), nn.LogSoftmax(-1), nn.Sigmoid(), nn.LogSigmoid()])
def test_logits_are_what_comes_before_a_final_softmax(link: nn.Module) -> None:
    inner, x = model(F.relu), images(2, 3, 6, 6)
    task = "multiclass" if isinstance(link, nn.Softmax | nn.LogSoftmax) else "multilabel"
    with_link, plain = (
        clarp.Explainer(nn.Sequential(inner, link).eval())(x),
        clarp.Explainer(network(F.relu), task=task)(x),
    )
    assert with_link.task == task
    assert torch.equal(with_link.logits, plain.logits)
    assert torch.equal(with_link.relevance, plain.relevance)


class Ending(nn.Module):
    """What a model returns, and what is done to it at the end."""

    def __init__(self, inner: nn.Module, end: Body) -> None:
        super().__init__()
        self.inner, self.end = inner, end

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.inner(x))


ENDS: dict[str, Body] = {
    "same type": lambda z: F.softmax(z, 1).to(z.dtype),
    "another type": lambda z: F.softmax(z, 1).float(),
    "a sigmoid": lambda z: z.sigmoid().clone(),
    "clone": lambda z: F.log_softmax(z, -1).clone(),
    "several": lambda z: F.dropout(F.softmax(z, 1).type_as(z), training=False).clone().detach(),
}


@pytest.mark.parametrize("end", ENDS)
def test_a_copy_does_not_hide_a_final_softmax(end: str) -> None:
    inner, x = model(F.relu), images(2, 3, 6, 6)
    ours = clarp.Explainer(Ending(inner, ENDS[end]).eval())(x)
    plain = clarp.Explainer(network(F.relu), task=ours.task)(x)
    assert ours.task == ("multilabel" if end == "a sigmoid" else "multiclass")
    assert torch.equal(ours.logits, plain.logits)
    assert torch.equal(ours.relevance, plain.relevance)


def test_equal_refusals_are_one_line() -> None:
    class Sines(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.Conv2d(3, 3, 1) for _ in range(5))
            self.head = nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            for layer in self.layers:
                x = torch.sin(layer(x))
            return self.head(torch.cos(x).mean((2, 3)))

    with pytest.raises(clarp.UnsupportedOperation) as caught:
        clarp.Explainer(Sines().eval()).plan((3, 4, 4))
    lines = str(caught.value).splitlines()
    assert "6 operation(s)" in lines[0]
    assert lines[1].startswith("  aten.sin.default at 5 places (")
    assert lines[1].endswith(", and 2 more): not supported")
    assert lines[2].startswith("  aten.cos.default in ")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (lambda x: x**0, "the exponent is 0"),
        (lambda x: x.gather(1, x.argmax(1, keepdim=True)), "computed from the image"),
        (lambda x: torch.slice_scatter(x, x[..., ::2], 3, 0, 6, 2), "every 2th place, expected neighbours"),
        (lambda x: F.batch_norm(x, None, None, training=True), "track_running_stats=True"),
        (lambda x: x.clamp(min=torch.arange(4.0).view(4, 1, 1)), "its min is a tensor of several values"),
        (lambda x: x.clamp(max=x.mean((1, 2, 3), keepdim=True)), "its max is .*computed from the image"),
        (
            lambda x: torch.einsum("bchw,bchw", x, x.flip(1)) + x,
            "'bchw,bchw', expected the batch's letter in front",
        ),
    ],
)
def test_refusals_say_why(body: Any, reason: str) -> None:
    with pytest.raises(clarp.UnsupportedOperation, match=reason):
        clarp.Explainer(model(body)).plan((3, 6, 6))
