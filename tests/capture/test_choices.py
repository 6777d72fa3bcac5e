"""Powers, choices, order statistics, distances, resampling and recurrence: every spelling computes what torch computes, and agrees."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import clarp
from oracle.calls import images
from oracle.spellings import Body, check_gradient, check_maps, model

EXPONENTS = images(1, 4, 1, 1, seed=5).abs() + 0.5
LIMITS = images(1, 4, 6, 1, seed=6)
CENTRES = images(5, 36, seed=7)
GRID = images(1, 5, 7, 2, seed=8).tanh()
COLUMNS = torch.arange(6) > 2
AHEAD = torch.ones(4, 4, dtype=torch.bool).triu(1)
LOW, THIRD = torch.tensor(-0.2, dtype=torch.float64), torch.tensor(1 / 3, dtype=torch.float64)
LEARNT = nn.Parameter(torch.tensor([3.0], dtype=torch.float64))


def attention(mask: Body) -> Body:
    return lambda x: mask(x.flatten(2) @ x.flatten(2).mT).softmax(-1) @ x.flatten(2)


def capped(x: Tensor) -> Tensor:
    return torch.where(x > 0.5, 0.5, x)


def unpooled(x: Tensor) -> Tensor:
    values, places = F.max_pool2d(x, 2, return_indices=True)
    return F.max_unpool2d(values * 2, places, 2)


def doubled(x: Tensor) -> Tensor:
    """The same without places: twice what is the greatest of its window."""
    wide = F.interpolate(F.max_pool2d(x, 2), scale_factor=2)
    return torch.where(x == wide, 2 * x, 0.0)


SPELLINGS: dict[str, tuple[Body, ...]] = {
    "generalised mean": (
        lambda x: x.clamp(min=1e-6).pow(3).mean((2, 3)).pow(1 / 3),
        lambda x: x.clamp(min=1e-6).pow(LEARNT).mean((2, 3)).pow(1.0 / LEARNT),
        lambda x: F.avg_pool2d(x.clamp(min=1e-6).pow(3.0), (6, 6)).pow(1 / 3),
        lambda x: (x.clamp(min=1e-6) ** torch.tensor(3)).mean((-2, -1)) ** THIRD,
    ),
    "a power for each channel": (lambda x: x.relu() ** EXPONENTS, lambda x: torch.pow(x.relu(), EXPONENTS)),
    "root": (lambda x: x.relu().sqrt(), lambda x: x.relu() ** 0.5, lambda x: x.relu().pow(0.5)),
    "negative powers": (
        lambda x: x * (x.square() + 1).rsqrt(),
        lambda x: x * (x**2 + 1) ** -0.5,
        lambda x: x / (x * x + 1).sqrt(),
    ),
    "absolute value": (torch.abs, lambda x: x.absolute(), lambda x: torch.where(x > 0, x, -x), lambda x: x * x.sign()),
    "soft maximum": (
        lambda x: torch.logsumexp(x, (2, 3)),
        lambda x: x.exp().sum((2, 3)).log(),
        lambda x: torch.special.logsumexp(x.flatten(2), -1),
    ),
    "log-softmax inside": (
        lambda x: F.log_softmax(x, 1),
        lambda x: x - x.logsumexp(1, keepdim=True),
        lambda x: x - torch.special.logsumexp(x, 1, keepdim=True).expand_as(x),
    ),
    "other bases": (lambda x: 2**x, torch.exp2, lambda x: torch.exp(x * torch.tensor(2.0, dtype=torch.float64).log())),
    "logarithms": (lambda x: torch.log1p(x.abs()), lambda x: (x.abs() + 1).log(), lambda x: (1 + x.abs()).log2() * 0.6931471805599453),
    "expm1": (torch.expm1, lambda x: x.exp() - 1),
    "the greater of two": (
        lambda x: torch.maximum(x, x.flip(3)),
        lambda x: torch.max(x, x.flip(3)),
        lambda x: torch.fmax(x, x.flip(3)),
        lambda x: torch.where(x >= x.flip(3), x, x.flip(3)),
        lambda x: torch.stack([x, x.flip(3)], -1).amax(-1),
    ),
    "the less of two": (lambda x: torch.minimum(x, x.flip(3)), lambda x: -torch.maximum(-x, -x.flip(3))),
    "the greater of a value and constants": (
        lambda x: torch.maximum(x, LIMITS),
        lambda x: torch.where(x >= LIMITS, x, LIMITS),
        lambda x: x.masked_fill(x < LIMITS, 0.0) + LIMITS * (x < LIMITS),
    )[:2],
    "clamp": (
        lambda x: x.clamp(-0.2, 0.5),
        lambda x: torch.minimum(torch.maximum(x, LOW), torch.full_like(x, 0.5)),
        lambda x: capped(torch.where(x < -0.2, -0.2, x)),
        lambda x: torch.where(x > -0.2, x, -0.2).clamp(max=torch.full((1, 1, 1, 1), 0.5)),
    ),
    "ReLU": (F.relu, lambda x: torch.where(x > 0, x, 0.0), lambda x: x.masked_fill(x < 0, 0), lambda x: torch.maximum(x, torch.zeros(1)), lambda x: F.threshold(x, 0, 0), lambda x: x * (x > 0)),
    "leaky ReLU": (
        nn.LeakyReLU(0.1),
        lambda x: torch.where(x > 0, x, 0.1 * x),
        lambda x: torch.where(x <= 0, 0.1 * x, x),
        lambda x: torch.where(x > 0, x, x / 10),
        lambda x: torch.where((x > 0) & (x > -1), x, 0.1 * x),
        nn.RReLU(0.05, 0.15).eval(),
    ),
    "threshold": (nn.Threshold(0.1, 0.3), lambda x: torch.where(x > 0.1, x, 0.3), lambda x: x.masked_fill(x <= 0.1, 0.3)),
    "shrink": (nn.Hardshrink(0.2), lambda x: torch.where(x.abs() > 0.2, x, 0.0)),
    "soft shrink": (nn.Softshrink(0.2),),
    "a constant choice": (
        lambda x: torch.where(COLUMNS, x, x.flip(1)),
        lambda x: torch.cat([x.flip(1)[..., :3], x[..., 3:]], 3),
        lambda x: x * COLUMNS + x.flip(1) * ~COLUMNS,
    ),
    "constants where a constant mask is": (lambda x: x.masked_fill(COLUMNS, -3.0), lambda x: torch.where(COLUMNS, -3.0, x)),
    "conditions put together": (
        lambda x: torch.where((x > 0) & ~(x.flip(1) > 0.5) | (x < -1), x, 2 * x),
        lambda x: torch.where(torch.logical_or(torch.logical_and(x > 0, x.flip(1) <= 0.5), x < -1), x, x * 2),
        lambda x: torch.where(((x > 0).to(x.dtype) * (x.flip(1) <= 0.5) + (x < -1)) > 0, x, 2 * x),
    ),
    "the mean of what is positive": (
        lambda x: (x * (x > 0)).sum((2, 3)) / (x > 0).sum((2, 3)).clamp(min=1),
        lambda x: x.relu().sum((2, 3)) / (x > 0).to(x.dtype).sum((2, 3)).clamp(min=1),
    ),
    "masked attention": (
        attention(lambda s: s.masked_fill(AHEAD, -torch.inf)),
        attention(lambda s: torch.where(AHEAD, -torch.inf, s)),
        attention(lambda s: s.masked_fill(AHEAD == 1, -1e9)),
        attention(lambda s: s + torch.zeros(4, 4, dtype=torch.float64).masked_fill(AHEAD, -torch.inf)),
    ),
    "sign times root": (lambda x: x.sign() * x.abs().sqrt(), lambda x: torch.sgn(x) * x.abs() ** 0.5),
    "k greatest": (
        lambda x: x.flatten(2).topk(3, -1)[0].mean(-1),
        lambda x: x.flatten(2).sort(descending=True).values[..., :3].mean(-1),
        lambda x: torch.sort(x.flatten(2), -1)[0][..., -3:].mean(-1),
    ),
    "median": (lambda x: x.flatten(2).median(-1)[0], lambda x: x.flatten(2).kthvalue(18)[0], lambda x: x.flatten(2).sort()[0][..., 17]),
    "least": (lambda x: x.amin((2, 3)), lambda x: -((-x).amax((2, 3))), lambda x: x.flatten(2).min(-1)[0]),
    "local response normalisation": (
        nn.LocalResponseNorm(3),
        lambda x: x / (1 + 1e-4 * F.avg_pool3d((x * x)[:, None], (3, 1, 1), 1, (1, 0, 0))[:, 0]) ** 0.75,
    ),
    "gated linear unit": (nn.GLU(1), lambda x: x[:, :2] * x[:, 2:].sigmoid(), lambda x: x.chunk(2, 1)[0] * torch.sigmoid(x.chunk(2, 1)[1])),
    "maxout": (lambda x: x.unflatten(1, (2, 2)).amax(2), lambda x: torch.maximum(x[:, ::2], x[:, 1::2])),
    "power-average pooling": (nn.LPPool2d(2, 2), lambda x: (F.avg_pool2d(x**2, 2) * 4).sqrt()),
    "other norms": (lambda x: x.norm(p=3, dim=1), lambda x: torch.linalg.vector_norm(x, 3, 1), lambda x: (x.abs() ** 3).sum(1) ** (1 / 3)),
    "cosine similarity": (
        lambda x: F.cosine_similarity(x.flatten(2)[:, 1:2], CENTRES, dim=-1),
        lambda x: F.linear(F.normalize(x.flatten(2)[:, 1], dim=-1), F.normalize(CENTRES)),
        lambda x: F.normalize(x.flatten(2)[:, 1], dim=1) @ F.normalize(CENTRES).t(),
    ),
    "cosine of two values": (lambda x: F.cosine_similarity(x, x.flip(3), 1), lambda x: (F.normalize(x) * F.normalize(x.flip(3))).sum(1)),
    "distances between values": (
        lambda x: torch.cdist(x.flatten(2), x.flip(1).flatten(2) + 1),
        lambda x: (x.flatten(2)[:, :, None] - (x.flip(1).flatten(2) + 1)[:, None]).square().sum(-1).sqrt(),
    ),
    "distances of order one, from centres": (
        lambda x: torch.cdist(CENTRES, x.flatten(2), p=1.0),
        lambda x: (x.flatten(2)[:, None] - CENTRES[:, None]).abs().sum(-1),
    ),
    "distances row by row": (
        lambda x: torch.nn.functional.pairwise_distance(x.flatten(2), 2 * x.flip(1).flatten(2)),
        lambda x: (x.flatten(2) - 2 * x.flip(1).flatten(2) + 1e-6).square().sum(-1).sqrt(),
        lambda x: torch.nn.functional.pairwise_distance(x.flatten(2), 2 * x.flip(1).flatten(2), keepdim=True).squeeze(2),
    ),
    "a sum and a product": (lambda x: torch.addcmul(x, x.flip(2), x.flip(3), value=0.5), lambda x: x + (x.flip(2) * x.flip(3)) * 0.5),
    "between two": (lambda x: torch.lerp(x, x.flip(2), 0.3), lambda x: x * 0.7 + x.flip(2) * 0.3),
    "distances": (
        lambda x: torch.cdist(x.flatten(2), CENTRES),
        lambda x: (x.flatten(2)[:, :, None] - CENTRES).square().sum(-1).sqrt(),
        lambda x: ((x.flatten(2).unsqueeze(2) - CENTRES) ** 2).sum(3).pow(0.5),
    ),
    "city blocks": (lambda x: torch.cdist(x.flatten(2)[:, 0], CENTRES, p=1), lambda x: (x.flatten(2)[:, :1] - CENTRES).abs().sum(-1)),
    "radial basis": (
        lambda x: torch.exp(-torch.cdist(x.flatten(2), CENTRES) ** 2 / 50),
        lambda x: torch.exp((x.flatten(2)[:, :, None] - CENTRES).pow(2).sum(-1).neg() / 50),
    ),
    "linear": (lambda x: F.interpolate(x.flatten(2), size=20, mode="linear"), lambda x: F.interpolate(x.flatten(2)[:, :, None], size=(1, 20), mode="bilinear")[:, :, 0]),
    "trilinear": (
        lambda x: F.interpolate(x[:, :, None].expand(-1, -1, 3, -1, -1), size=(2, 4, 9), mode="trilinear"),
        lambda x: F.interpolate(x, size=(4, 9), mode="bilinear")[:, :, None].expand(-1, -1, 2, -1, -1),
    ),
    "nearest of a row": (lambda x: F.interpolate(x.flatten(2), scale_factor=2), lambda x: x.flatten(2).repeat_interleave(2, 2)),
    "nearest of a volume": (lambda x: F.interpolate(x[:, :, None], scale_factor=2), lambda x: F.interpolate(x, scale_factor=2)[:, :, None].repeat(1, 1, 2, 1, 1)),
    "unpooling": (unpooled, doubled),
    "a grid": (
        lambda x: F.grid_sample(x, GRID.expand(x.shape[0], -1, -1, -1), align_corners=False),
        lambda x: F.grid_sample(x, GRID.repeat(x.shape[0], 1, 1, 1), "bilinear", align_corners=False),
    ),
    "a grid that is the pixels": (nn.Identity(), lambda x: F.grid_sample(x, F.affine_grid(torch.eye(2, 3, dtype=x.dtype).expand(x.shape[0], -1, -1), x.shape, align_corners=False), align_corners=False)),
    "a constant of another shape": (lambda x: x + 0.5, lambda x: x + torch.full((4, 6, 6), 0.5, dtype=x.dtype), lambda x: x + torch.full_like(x, 0.5)),
}  # fmt: skip


@pytest.mark.parametrize("name", SPELLINGS)
def test_spellings_agree_and_the_ledger_closes(name: str) -> None:
    check_maps(*SPELLINGS[name])


OWN_GRADIENTS = (
    *("generalised mean", "a power for each channel", "absolute value", "soft maximum", "log-softmax inside", "logarithms", "threshold"),
    *("shrink", "soft shrink", "a constant choice", "conditions put together", "k greatest", "unpooling", "a grid", "linear", "distances"),
)  # fmt: skip


@pytest.mark.parametrize("name", OWN_GRADIENTS)
def test_selection_gradient(name: str) -> None:
    check_gradient(SPELLINGS[name][0])


class Rows(nn.Module):
    """A recurrent layer over rows, batch first or not, its outputs or its last states."""

    def __init__(self, layer: nn.Module, *, last: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.layer, self.last = nn.Conv2d(3, 4, 3, padding=1), layer, last
        for weight in layer.parameters():
            nn.init.normal_(weight, std=0.7)
        size = layer.hidden_size * (2 if layer.bidirectional and not last else 1)
        self.head = nn.Linear(size, 3)

    def forward(self, x: Tensor) -> Tensor:
        rows = self.stem(x).mean(3).transpose(1, 2)
        outputs, states = self.layer(rows if self.layer.batch_first else rows.transpose(0, 1))
        if self.last:
            return self.head((states[0] if isinstance(states, tuple) else states)[-1])
        return self.head(outputs[:, -1] if self.layer.batch_first else outputs[-1])


RECURRENT = {
    "LSTM": Rows(nn.LSTM(4, 3, batch_first=True)),
    "LSTM, last states": Rows(nn.LSTM(4, 3, 2, batch_first=True), last=True),
    "LSTM, time first": Rows(nn.LSTM(4, 3)),
    "LSTM, both ways": Rows(nn.LSTM(4, 3, 2, bidirectional=True, batch_first=True)),
    "GRU": Rows(nn.GRU(4, 3, batch_first=True)),
    "GRU without biases": Rows(nn.GRU(4, 3, 2, bias=False, bidirectional=True), last=True),
    "RNN": Rows(nn.RNN(4, 3, batch_first=True)),
    "RNN of ReLUs": Rows(nn.RNN(4, 3, nonlinearity="relu"), last=True),
}


@pytest.mark.parametrize("name", RECURRENT)
def test_recurrent_layers(name: str) -> None:
    network, x = RECURRENT[name].double().eval(), images(2, 3, 6, 6)
    explainer = clarp.Explainer(network, "lrp", composite="epsilon")
    explanation = explainer(x, target=[0, 2])
    assert torch.allclose(explanation.logits, network(x))
    ledger = explanation.ledger
    assert torch.allclose(ledger.seed, ledger.pixels + ledger.total("bias") + ledger.total("epsilon"))
    rules = {row["rule"] for row in explainer.plan().rows() if row["operation"] == "Multiply"}
    assert rules <= {"Gate(signal=0)", "Gate(signal=1)"}


class Transformer(nn.Module):
    """A spatial transformer: where it looks is computed from the image."""

    def __init__(self) -> None:
        super().__init__()
        self.where = nn.Linear(4, 6)

    def forward(self, x: Tensor) -> Tensor:
        theta = self.where(x.mean((2, 3))).view(-1, 2, 3) * 0.3 + torch.eye(2, 3, dtype=x.dtype)
        return F.grid_sample(x, F.affine_grid(theta, x.shape, align_corners=False), align_corners=False)


def test_a_spatial_transformer_holds_its_grid() -> None:
    network = model(Transformer().double())
    check_maps(network.body)
    plan = clarp.Explainer(network).plan((3, 6, 6))
    assert [row["rule"] for row in plan.rows() if row["operation"] == "GridSample"] == ["Sampled()"]
    reached = plan.reached()
    assert not [step for step in plan if step.node.name in reached and step.node.module == "body.where"]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (lambda x: x ** x.flip(1), "the exponent is computed from the image"),
        (lambda x: (-2.0) ** x.relu(), "a number above zero"),
        (lambda x: x * x.long().to(x.dtype), "changes the type from torch.float64 to torch.int64"),
        (lambda x: x.flatten(2).gather(2, x.flatten(2).topk(2)[1]), "result number 1"),
        (lambda x: x.index_put((x < 0,), torch.tensor(0.5, dtype=x.dtype)), "not supported"),
        (lambda x: x.norm(p=float("inf"), dim=1), "of order inf"),
    ],
)  # fmt: skip
def test_refusals_say_why(body: Body, reason: str) -> None:
    with pytest.raises(clarp.UnsupportedOperation, match=reason):
        clarp.Explainer(model(body)).plan((3, 6, 6))


def test_a_state_that_is_given_is_refused() -> None:
    class Started(Rows):
        def forward(self, x: Tensor) -> Tensor:
            start = torch.ones(1, x.shape[0], 3, dtype=x.dtype)
            return self.head(self.layer(self.stem(x).mean(3).transpose(1, 2), start)[0][:, -1])

    with pytest.raises(clarp.UnsupportedOperation, match="first state is not zero"):
        clarp.Explainer(Started(nn.GRU(4, 3, batch_first=True)).double().eval()).plan((3, 6, 6))
