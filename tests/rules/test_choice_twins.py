"""Rules for choices, powers, samples, resampling and recurrence equal their formulas, written out element by element."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import clarp
from clarp import rules
from oracle import recurrent
from oracle.calls import apart, composite, images, propagate

TOLERANCE = 1e-10
EPSILON = 1e-3
FILLING = images(1, 2, 3, 4, seed=11)


class Body(nn.Module):
    """A function of the pixels whose values are the logits."""

    def __init__(self, body: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x).flatten(1)


def given(body: Callable[[Tensor], Tensor], x: Tensor, **rules_: Any) -> tuple[Tensor, Tensor]:
    """A random relevance over the outputs of a function, and what the pixels get of it."""
    R = images(len(x), body(x).flatten(1).shape[1], seed=12)
    return R, propagate(Body(body).eval(), x, R, composite(rules.ZPlus(), **rules_))


def loops(
    x: Tensor, R: Tensor, part: Callable[[list[float], int], float], out: int, axis_size: int
) -> Tensor:
    """For (B, C, H, W) and outputs over the last two axes: each element gets ``part(values, i) R``."""
    found = torch.zeros_like(x)
    for b in range(x.shape[0]):
        for c in range(out):
            values = x[b, c].flatten().tolist()
            for i in range(axis_size):
                found[b, c].view(-1)[i] = part(values, i) * R[b, c]
    return found


def test_where_gives_to_what_was_chosen() -> None:
    x = images(2, 2, 3, 4)
    R, found = given(lambda x: torch.where(x > x.flip(3), x * 2, x.flip(2)), x)
    expected = torch.zeros_like(x)
    for b, c, i, j in np.ndindex(*x.shape):
        r = R.view(x.shape)[b, c, i, j]
        if x[b, c, i, j] > x[b, c, i, 3 - j]:
            expected[b, c, i, j] += r
        else:
            expected[b, c, 2 - i, j] += r
    assert apart(found, expected) < TOLERANCE


def test_what_a_constant_was_chosen_for_is_the_bias() -> None:
    x = images(2, 2, 3, 4)
    model = Body(lambda x: torch.where(x > x.flip(3), FILLING, x)).eval()
    R = images(2, 24, seed=12)
    method = clarp.Method(clarp.seeds.Vector(R), None, composite(rules.ZPlus()))
    e = clarp.Explainer(model, method)(x)
    chosen = (x > x.flip(3)).flatten(1)
    assert "Compare" not in {row["operation"] for row in e.ledger.rows()}  # a condition gets nothing
    assert apart(e.relevance.flatten(1), R * ~chosen) < TOLERANCE
    assert apart(e.ledger.total("bias"), (R * chosen).sum(1)) < TOLERANCE


@pytest.mark.parametrize(
    "body",
    [
        lambda x: torch.where(x > 0.3, x, 7.0),
        lambda x: torch.where(x < 0.3, x, 0.3),
        lambda x: x.abs(),
        lambda x: x.abs() ** 1.7,
        lambda x: x.exp(),
        F.softshrink,
        lambda x: x.sign() * x.abs().sqrt(),
        lambda x: x * (x > 0.3),
        lambda x: x * x.flip(3).sign(),
        lambda x: (x.flip(2) > 0.3).to(x.dtype) * x,
    ],
)
def test_one_element_in_one_out_passes_everything(body: Callable[[Tensor], Tensor]) -> None:
    x = images(2, 2, 3, 4)
    R, found = given(body, x)
    assert apart(found, R.view(x.shape)) < TOLERANCE


def test_k_greatest() -> None:
    x = images(2, 2, 3, 4)
    R, found = given(lambda x: x.flatten(2).topk(3).values, x)
    expected = torch.zeros(2, 2, 12, dtype=torch.float64)
    for b, c in np.ndindex(2, 2):
        order = sorted(range(12), key=lambda i: -float(x[b, c].flatten()[i]))
        for k in range(3):
            expected[b, c, order[k]] += R.view(2, 2, 3)[b, c, k]
    assert apart(found, expected.view(x.shape)) < TOLERANCE


def test_soft_maximum_shares_by_the_softmax() -> None:
    x = images(2, 2, 3, 4)
    R, found = given(lambda x: torch.logsumexp(x, (2, 3)), x)

    def part(values: list[float], i: int) -> float:
        return math.exp(values[i]) / math.fsum(map(math.exp, values))

    assert apart(found, loops(x, R, part, 2, 12)) < TOLERANCE


@pytest.mark.parametrize("p", [3.0, 2.6, 1.0])
def test_generalised_mean_shares_by_the_powers(p: float) -> None:
    x = images(2, 2, 3, 4)
    exponent = torch.tensor([p], dtype=torch.float64)
    R, found = given(lambda x: x.clamp(min=1e-3).pow(exponent).mean((2, 3)).pow(1 / exponent), x)

    def part(values: list[float], i: int) -> float:
        powers = [max(value, 1e-3) ** p for value in values]
        return powers[i] / math.fsum(powers)

    assert apart(found, loops(x, R, part, 2, 12)) < TOLERANCE


def test_distance_shares_by_the_squares_beside_the_centre() -> None:
    x, centres = images(2, 1, 1, 4), images(3, 4, seed=2)
    # Behind an operation, where the centre is a branch that has its share; from pixels it would be a mean image.
    R, found = given(lambda x: torch.cdist(x.exp().log().flatten(1), centres), x)
    expected = torch.zeros(2, 4, dtype=torch.float64)
    for b, k in np.ndindex(2, 3):
        squares = [(float(x[b, 0, 0, i]) - float(centres[k, i])) ** 2 for i in range(4)]
        for i in range(4):
            own, other = abs(float(x[b, 0, 0, i])), abs(float(centres[k, i]))
            expected[b, i] += R[b, k] * squares[i] / math.fsum(squares) * own / (own + other)
    assert apart(found.flatten(1), expected) < TOLERANCE


def test_cosine_similarity_is_a_dense_layer_on_unit_vectors() -> None:
    x, prototypes = images(2, 1, 1, 4), images(3, 4, seed=2)
    rule = rules.Epsilon(EPSILON)
    R = images(2, 3, seed=12)
    model = Body(lambda x: F.cosine_similarity(x.flatten(1)[:, None], prototypes, dim=-1)).eval()
    found = propagate(model, x, R, composite(rule))
    expected = torch.zeros(2, 4, dtype=torch.float64)
    for b, k in np.ndindex(2, 3):
        unit = x[b, 0, 0] / x[b, 0, 0].norm()
        w = prototypes[k] / prototypes[k].norm()
        z = math.fsum((unit * w).tolist())
        for i in range(4):
            expected[b, i] += unit[i] * w[i] / (z + math.copysign(EPSILON, z)) * R[b, k]
    assert apart(found.flatten(1), expected) < TOLERANCE


@pytest.mark.parametrize("computed", [False, True], ids=["constant grid", "computed grid"])
def test_samples_share_by_what_each_value_contributes(computed: bool) -> None:
    x, grid = images(2, 2, 4, 5), images(1, 3, 4, 2, seed=3).tanh() * 1.2

    def body(x: Tensor) -> Tensor:
        places = grid.expand(x.shape[0], -1, -1, -1)
        if computed:
            places = places + 0.1 * x.mean((1, 2, 3))[:, None, None, None].tanh()
        return F.grid_sample(x, places, align_corners=False)

    R, found = given(body, x)
    expected = torch.zeros_like(x)
    places = grid.expand(2, -1, -1, -1) + (
        0.1 * x.mean((1, 2, 3))[:, None, None, None].tanh() if computed else 0
    )
    for b, c, i, j in np.ndindex(2, 2, 3, 4):
        column, row = (((float(places[b, i, j, a]) + 1) * n - 1) / 2 for a, n in ((0, 5), (1, 4)))
        parts = {}
        for u, v in ((math.floor(row) + a, math.floor(column) + e) for a in (0, 1) for e in (0, 1)):
            if 0 <= u < 4 and 0 <= v < 5:
                parts[u, v] = (1 - abs(row - u)) * (1 - abs(column - v)) * float(x[b, c, u, v])
        total = math.fsum(parts.values())
        for place, part in parts.items():
            expected[b, c][place] += part / total * R.view(2, 2, 3, 4)[b, c, i, j] if total else 0
    assert apart(found, expected) < 1e-9  # sums of either sign nearly cancel here and there


def test_unpooling_takes_from_the_places() -> None:
    x = images(2, 2, 4, 4)

    def body(x: Tensor) -> Tensor:
        values, places = F.max_pool2d(x, 2, return_indices=True)
        return F.max_unpool2d(values, places, 2)

    R, found = given(body, x)
    expected = torch.zeros_like(x)
    for b, c, i, j in np.ndindex(2, 2, 2, 2):
        window = x[b, c, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].flatten()
        best = int(window.argmax())
        u, v = 2 * i + best // 2, 2 * j + best % 2
        expected[b, c, u, v] = R.view(x.shape)[b, c, u, v]
    assert apart(found, expected) < TOLERANCE


RESIZED: dict[str, dict[str, Any]] = {
    "bilinear": {"size": (3, 7), "mode": "bilinear"},
    "bilinear, corners": {"size": (7, 3), "mode": "bilinear", "align_corners": True},
    "bilinear, smoothed": {"size": (3, 2), "mode": "bilinear", "antialias": True},
    "bicubic": {"size": (7, 6), "mode": "bicubic"},
    "bicubic, smoothed": {"size": (3, 3), "mode": "bicubic", "antialias": True},
    "nearest": {"size": (7, 4), "mode": "nearest"},
}


@pytest.mark.parametrize("name", RESIZED)
@pytest.mark.parametrize("rule", [rules.Flat(), rules.WSquare()], ids=["flat", "w^2"])
def test_flat_and_w_square_of_a_resampling(name: str, rule: Any) -> None:
    x = images(1, 1, 5, 4)
    R, found = given(lambda x: F.interpolate(x, **RESIZED[name]), x, first=rule)
    matrix = torch.stack(
        [F.interpolate(unit.view(1, 1, 5, 4), **RESIZED[name]).flatten() for unit in torch.eye(20, dtype=torch.float64)], 1
    )  # fmt: skip
    expected = torch.zeros(20, dtype=torch.float64)
    for j in range(len(matrix)):
        weights = [float(w != 0) if isinstance(rule, rules.Flat) else float(w) ** 2 for w in matrix[j]]
        for i in range(20):
            expected[i] += weights[i] / math.fsum(weights) * R[0, j]
    assert apart(found.flatten(), expected) < TOLERANCE


class Layer(nn.Module):
    """The last output of a recurrent layer over the rows of an image (B, 1, T, C)."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x[:, 0])[0][:, -1]


@pytest.mark.parametrize("name", ["LSTM", "GRU", "RNN"])
def test_recurrent_layers_step_by_step(name: str) -> None:
    torch.manual_seed(0)
    layer = getattr(nn, name)(3, 4, batch_first=True).double().eval()
    x, R = images(2, 1, 5, 3), images(2, 4, seed=12)
    found = propagate(Layer(layer).eval(), x, R, composite(rules.Epsilon(EPSILON)))
    weights = tuple(p.detach().numpy() for p in layer.parameters())
    twin = {"LSTM": recurrent.lstm, "GRU": recurrent.gru, "RNN": recurrent.rnn}[name]
    for b in range(2):
        output, expected = twin(x[b, 0].numpy(), weights, R[b].numpy(), EPSILON)  # type: ignore[arg-type]
        assert apart(Layer(layer)(x).detach()[b], output) < 1e-12
        assert apart(found[b, 0], expected) < TOLERANCE


@pytest.mark.parametrize("name", ["zplus-box", "epsilon-plus-flat", "epsilon-gamma-box"])
def test_coordinates_beside_the_pixels_and_a_mean_image_leave_the_first_layer_first(name: str) -> None:
    """z^B and flat look at the pixels: a constant channel has no range, and a mean image moves that of each pixel."""
    torch.manual_seed(0)
    convolution, head = nn.Conv2d(5, 4, 3).double(), nn.Linear(4, 3).double()
    coordinates = torch.stack(
        torch.meshgrid(*[torch.linspace(0, 1, 6, dtype=torch.float64)] * 2, indexing="ij")
    )
    mean = images(3, 6, 6, seed=4).sigmoid()

    def rest(x: Tensor) -> Tensor:
        return head(convolution(x).relu().mean((2, 3)))

    x = images(2, 3, 6, 6).sigmoid()
    inside = Body(lambda x: rest(torch.cat([x - mean, coordinates.expand(x.shape[0], -1, -1, -1)], 1))).eval()
    plan = clarp.Explainer(inside, "lrp", composite=name).plan((3, 6, 6))
    assert [step.rule for step in plan if step.reads_pixels][-1] == clarp.composites.get(name).first
    found = clarp.Explainer(inside, "lrp", composite=name, bounds=(0.0, 1.0))(x, target=1)
    w, b = convolution.weight.detach(), convolution.bias.detach()
    whole = torch.cat([x - mean, coordinates.expand(2, -1, -1, -1)], 1)
    low, high = (torch.cat([end - mean, coordinates]).expand_as(whole) for end in (0.0, 1.0))
    z = F.conv2d(whole, w, b).relu()
    relevance = z * head.weight.detach()[1].view(1, -1, 1, 1) / 16
    explained = head(z.mean((2, 3))).detach()[:, 1]
    dense = explained / (explained + 1e-6 * explained.sign()) if name != "zplus-box" else torch.ones(2)
    positive = head.weight.detach()[1].clamp(min=0).view(1, -1, 1, 1) * z
    if name == "zplus-box":
        relevance = positive / positive.sum((1, 2, 3), keepdim=True) * explained.view(-1, 1, 1, 1)
    else:
        relevance = relevance * dense.view(-1, 1, 1, 1)
    if "flat" in name:
        spread = F.conv_transpose2d(relevance / 45, torch.ones_like(w))
        expected = spread
    else:
        plus, minus = w.clamp(min=0), w.clamp(max=0)
        total = F.conv2d(whole - low, plus) + F.conv2d(whole - high, minus)
        ratio = relevance / total
        expected = (whole - low) * F.conv_transpose2d(ratio, plus) + (whole - high) * F.conv_transpose2d(
            ratio, minus
        )
    assert apart(found.relevance, expected[:, :3]) < TOLERANCE
