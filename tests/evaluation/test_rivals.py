"""Rivals equal their formulas, written as plain loops in float64, and are refused where they mean nothing."""

import copy
import warnings
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import clarp
from clarp.errors import RelevanceLost
from clarp.evaluation.attribution import attributors
from clarp.method import RIVALS
from clarp.network import Network
from clarp.optional import optional
from oracle.nets import randomise_


class Pair(nn.Module):
    """A residual sum of two convolutions, and a head for five classes."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.act, self.head = nn.ReLU(inplace=True), nn.Linear(4, 5)

    def forward(self, x):
        x = self.act(self.first(x))
        return self.head((x + self.act(self.second(x))).mean((2, 3)))


class Block(nn.Module):
    def __init__(self, width=4, heads=2):
        super().__init__()
        self.heads = heads
        self.norm, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 6), nn.Linear(6, width)

    def split(self, x):
        """Queries, keys and values (B, heads, n, width / heads)."""
        return self.qkv(self.norm(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)

    def forward(self, x):
        x = x + self.out(F.scaled_dot_product_attention(*self.split(x)).transpose(1, 2).flatten(2))
        return x + self.down(F.relu(self.up(self.norm2(x))))


class ViT(nn.Module):
    """Patches of 4 x 4 px, a class token or none, and blocks."""

    def __init__(self, blocks=2, token=True):
        super().__init__()
        self.embed = nn.Conv2d(3, 4, 4, stride=4)
        self.token = nn.Parameter(torch.randn(1, 1, 4)) if token else None
        self.place = nn.Parameter(torch.randn(1, 6 + token, 4))
        self.blocks = nn.ModuleList(Block() for _ in range(blocks))
        self.norm, self.head = nn.LayerNorm(4), nn.Linear(4, 5)

    def tokens(self, x):
        x = self.embed(x).flatten(2).mT
        return (
            x if self.token is None else torch.cat([self.token.expand(len(x), -1, -1), x], 1)
        ) + self.place

    def logits(self, x):
        x = self.norm(x)
        return self.head(x.mean(1) if self.token is None else x[:, 0])

    def forward(self, x):
        x = self.tokens(x)
        for block in self.blocks:
            x = block(x)
        return self.logits(x)


def made(model, seed=3):
    torch.manual_seed(seed)
    return randomise_(model.double(), seed=seed).eval().requires_grad_(False)


def images(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)


def method(name, model, image=None):
    return attributors([name], Network(model), image=image)[0]


def apart(found, expected):
    assert expected.abs().max() > 1e-6
    return float((found - expected).abs().max() / expected.abs().max())


def test_idgi_shares_each_steps_change_by_squared_gradients():
    model, x, targets = made(Pair()), images(2, 3, 6, 6), torch.tensor([1, 4])
    state = copy.deepcopy(model.state_dict())
    found = method("idgi", model, x[0])(x, targets, ["a", "b"])
    for image, target, heatmap in zip(x, targets, found, strict=True):
        path = [image * j / 50 for j in range(51)]
        expected = torch.zeros_like(image)
        for here, there in pairwise(path):
            given = here[None].clone().requires_grad_()
            f = model(given).softmax(1)[0, target]
            (g,) = torch.autograd.grad(f, given)
            change = model(there[None]).softmax(1)[0, target] - f.detach()
            expected += g[0] ** 2 * change / (g**2).sum() if g.any() else 0
        assert apart(heatmap, expected.sum(0)) < 1e-10
    assert model.act.inplace
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


def test_idgi_asks_for_the_tasks_probability():
    model, x = made(nn.Sequential(nn.Flatten(), nn.Linear(12, 1))), images(1, 3, 2, 2)
    so, not_so = (method("idgi", model, x[0])(x, torch.tensor([k]), [""]) for k in (1, 0))
    torch.testing.assert_close(so, -not_so)
    gained = model(x).sigmoid() - model(0 * x).sigmoid()
    assert float(so.sum()) == pytest.approx(float(gained))


def test_idgi_of_a_model_that_looks_at_nothing_is_zero():
    model = made(nn.Sequential(nn.Flatten(), nn.Linear(12, 3)))
    model[1].weight.data.zero_()
    assert method("idgi", model)(images(1, 3, 2, 2), torch.tensor([0]), [""]).tolist() == [[[0.0] * 2] * 2]


@pytest.mark.parametrize("base", ["lrp", "sglrp"])
def test_var_keeps_where_the_target_is_the_strongest_of_five(base):
    model, x, targets = made(nn.Sequential(nn.Flatten(), nn.Linear(48, 7))), images(2, 3, 4, 4), (6, 2)
    name = "var" if base == "lrp" else f"var@{base}"
    found = method(name, model, x[0])(x, torch.tensor(targets), ["a", "b"])
    explainer = clarp.Explainer(model, base)
    kept = 0
    for image, target, heatmap in zip(x, targets, found, strict=True):
        logits = model(image[None])[0]
        others = sorted((n for n in range(7) if n != target), key=lambda n: -float(logits[n]))[:4]
        maps = [explainer(image[None], n).heatmap[0] for n in (target, *others)]
        greatest = max(float(one.abs().max()) for one in maps)
        for i in range(4):
            for j in range(4):
                powers = [float(torch.exp(10 * one[i, j].abs() / greatest)) for one in maps]
                share = powers[0] / sum(powers)
                value = float(maps[0][i, j]) * share if share - 1 / 5 > 0.01 else 0.0
                assert float(heatmap[i, j]) == pytest.approx(value, abs=1e-9 * greatest)
                kept += value != 0
    assert 0 < kept < 32


def attention(model, x):
    """All attention weights, the tokens behind each block, and the logits."""
    x, weights, ends = model.tokens(x), [], []
    for block in model.blocks:
        q, k, v = block.split(x)
        weights.append((q @ k.mT / q.shape[-1] ** 0.5).softmax(-1))
        x = x + block.out((weights[-1] @ v).transpose(1, 2).flatten(2))
        x = x + block.down(F.relu(block.up(block.norm2(x))))
        ends.append(x)
    return weights, ends, model.logits(x)


@pytest.mark.parametrize("token", [True, False])
def test_legrad_is_the_mean_of_positive_gradients_of_attention(token):
    model, x, targets = made(ViT(token=token)), images(2, 3, 8, 12), (1, 4)
    found = method("legrad", model, x[0])(x, torch.tensor(targets), ["a", "b"])
    for image, target, heatmap in zip(x, targets, found, strict=True):
        weights, ends, logits = attention(model, image[None].clone().requires_grad_())
        torch.testing.assert_close(logits, model(image[None]))
        total = torch.zeros(6 + token, dtype=torch.float64)
        for weight, end in zip(weights, ends, strict=True):
            (g,) = torch.autograd.grad(model.logits(end)[0, target], weight, retain_graph=True)
            for head in range(2):
                for query in range(6 + token):
                    total += g[0, head, query].clamp(min=0) / 2 / (6 + token)
        cells = total[int(token) :].view(1, 1, 2, 3)
        drawn = F.interpolate(cells, (8, 12), mode="bilinear")[0, 0].detach()
        assert apart(heatmap, (drawn - drawn.min()) / (drawn.max() - drawn.min())) < 1e-9


@pytest.mark.parametrize("token", [True, False])
def test_chefer_multiplies_attention_times_gradient_over_blocks(token):
    model, x, targets = made(ViT(token=token)), images(2, 3, 8, 12), (1, 4)
    found = method("chefer", model, x[0])(x, torch.tensor(targets), ["a", "b"])
    for image, target, heatmap in zip(x, targets, found, strict=True):
        weights, _, logits = attention(model, image[None].clone().requires_grad_())
        gradients = torch.autograd.grad(logits[0, target], weights)
        R = torch.eye(6 + token, dtype=torch.float64)
        for weight, g in zip(weights, gradients, strict=True):
            R = R + sum((weight[0, h] * g[0, h]).clamp(min=0) for h in range(2)) / 2 @ R
        row = (R[0] if token else R.mean(0)).detach()
        drawn = F.interpolate(row[int(token) :].view(1, 1, 2, 3), (8, 12), mode="bilinear")[0, 0]
        assert apart(heatmap, drawn) < 1e-10


def z_plus(layer, x, R):
    """Each of R (outputs,) shared by the positive contributions of x (inputs,)."""
    share = torch.zeros_like(x)
    for j in range(layer.out_features):
        positive = (x * layer.weight[j]).clamp(min=0)
        share += positive / positive.sum() * R[j] if positive.sum() > 0 else 0
    return share


def test_chefer_lrp_takes_the_relevance_of_attention():
    """By loops through one block: the class token alone gets relevance until attention."""
    model, x, target = made(ViT(blocks=1)), images(1, 3, 8, 12), 2
    found = method("chefer-lrp", model, x[0])(x, torch.tensor([target]), [""])[0]
    weights, ends, logits = attention(model, x.clone().requires_grad_())
    (gradient,) = torch.autograd.grad(logits[0, target], weights)
    with torch.no_grad():
        block, before, end = model.blocks[0], model.tokens(x)[0, 0], ends[0][0, 0]
        v = block.split(model.tokens(x))[2][0]
        mixed = torch.cat([weights[0][0, h, 0] @ v[h] for h in range(2)])
        middle = before + block.out(mixed)
        R = z_plus(model.head, model.norm(end), F.one_hot(torch.tensor(target), 5).double())
        of_mlp = R * (end - middle).abs() / ((end - middle).abs() + middle.abs())
        hidden = F.relu(block.up(block.norm2(middle)))
        R = R - of_mlp + z_plus(block.up, block.norm2(middle), z_plus(block.down, hidden, of_mlp))
        of_attention = R * (middle - before).abs() / ((middle - before).abs() + before.abs())
        of_mixed = z_plus(block.out, mixed, of_attention).view(2, 2)
        relevance = torch.zeros(2, 7, 7, dtype=torch.float64)
        for h in range(2):
            for key in range(7):
                for d in range(2):
                    z = weights[0][0, h, 0] @ v[h, :, d]
                    z = z + (1e-6 if z >= 0 else -1e-6)
                    relevance[h, 0, key] += weights[0][0, h, 0, key] * v[h, key, d] / z * of_mixed[h, d] / 2
    R = (torch.eye(7) + (gradient[0] * relevance).clamp(min=0).mean(0))[0, 1:]
    drawn = F.interpolate(R.view(1, 1, 2, 3), (8, 12), mode="bilinear")[0, 0].detach()
    assert apart(found, drawn) < 1e-9


def test_a_rival_by_rules_is_lrp_with_them():
    network, x, target = Network(made(ViT(blocks=1))), images(1, 3, 8, 12), torch.tensor([2])
    attnlrp, reslrp = attributors(["attnlrp", "reslrp"], network, image=x[0])[:2]
    ours = clarp.composites.get("attnlrp", residual="gamma")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RelevanceLost)
        maps = [method(x, target, [""]) for method in (attnlrp, reslrp)]
        for found, composite in zip(maps, ("attnlrp", ours), strict=True):
            assert torch.equal(found, clarp.Explainer(network, "lrp", composite=composite)(x, 2).heatmap)
    assert apart(*maps) > 1e-3
    assert "Gamma(gamma=1.0)" in reslrp.definition


def cells(name, model, image, target):
    """The formulas of grad-cam's three, at the second convolution."""
    x = model.act(model.first(image[None].clone().requires_grad_()))
    a = model.second(x)
    logits = model.head((x + a.clamp(min=0)).mean((2, 3)))[0]
    score = logits[target]
    if name == "finer-cam":
        values = logits.tolist()
        near = sorted((n for n in range(5) if n != target), key=lambda n: abs(values[n] - values[target]))
        p = logits.softmax(0)
        score = sum(p[d] * (logits[target] - logits[d]) for d in near[:3]) / sum(p[d] for d in near[:3])
    (g,) = torch.autograd.grad(score, a)
    a, g = a[0].detach(), g[0]
    found = torch.zeros(a.shape[1:], dtype=torch.float64)
    for k in range(len(a)):
        if name == "layercam":
            found += g[k].clamp(min=0) * a[k]
        elif name == "finer-cam":
            found += g[k].mean() * a[k]
        else:
            alpha = g[k] ** 2 / (2 * g[k] ** 2 + a[k].sum() * g[k] ** 3 + 1e-6)
            found += (alpha * g[k].clamp(min=0)).sum() * a[k]
    return found.clamp(min=0)


@pytest.mark.parametrize("name", ["gradcam-plusplus", "layercam", "finer-cam"])
def test_cams_are_the_packages(name):
    try:
        optional("pytorch_grad_cam", name, extra="bench")
    except ModuleNotFoundError as absent:
        pytest.skip(str(absent))
    model, x, targets = made(Pair()), images(2, 3, 8, 8), (1, 4)
    found = method(name, model, x[0])
    maps = found(x, torch.tensor(targets), ["a", "b"])
    assert (found.layer, found.coarse, found.layered) == ("second", True, True)
    for image, target, heatmap in zip(x, targets, maps, strict=True):
        expected = cells(name, model, image, target)
        assert apart(heatmap, (expected - expected.min()) / (expected.max() - expected.min())) < 1e-4
    assert not any(part._forward_hooks for part in model.modules())
    first = method(f"{name}@first", model, x[0])
    assert "layer first" in first.definition
    assert apart(first(x, torch.tensor(targets), ["a", "b"]), maps) > 1e-3
    moved = found.on(Network(made(Pair(), seed=9)))(x, torch.tensor(targets), ["a", "b"])
    assert apart(moved, maps) > 1e-3


@pytest.mark.parametrize("name", ["idgi", "var"])
def test_a_rivals_copy_explains_the_other_model(name):
    first, second = (made(nn.Sequential(nn.Flatten(), nn.Linear(48, 7)), seed=seed) for seed in (3, 8))
    x, targets = images(2, 3, 4, 4), torch.tensor([1, 2])
    moved = method(name, first, x[0]).on(Network(second))(x, targets, ["a", "b"])
    assert torch.equal(moved, method(name, second, x[0])(x, targets, ["a", "b"]))
    assert apart(moved, method(name, first, x[0])(x, targets, ["a", "b"])) > 1e-3


def test_attention_is_read_anew_of_a_changed_model():
    model, x, target = made(ViT(blocks=1)), images(1, 3, 8, 12), torch.tensor([1])
    found = method("chefer", model, x[0])
    before = found(x, target, [""])
    with torch.no_grad():
        model.blocks[0].qkv.weight.mul_(-0.5)
    after = found(x, target, [""])
    assert torch.equal(after, found.on(Network(model))(x, target, [""]))
    assert apart(after, before) > 1e-3


class Windowed(ViT):
    """Attention over halves of the tokens, one block of it."""

    def forward(self, x):
        x = self.tokens(x)
        x = self.blocks[0](x)
        return self.logits(self.blocks[1](x[:, :3]))


@pytest.mark.parametrize(
    ("name", "model", "message"),
    [
        ("legrad", Pair(), "Pair has no attention.*Leave legrad out"),
        ("chefer-lrp", Windowed(token=False), r"sizes \(3, 3\), \(6, 6\), expected one size"),
        ("attnlrp", Pair(), "Pair does not have: attention.*Take lrp@epsilon-gamma-box"),
        ("reslrp", nn.Sequential(nn.Conv2d(3, 5, 4), nn.Flatten()), "sums of two branches"),
        ("idgi@5", Pair(), "takes nothing after an @"),
        ("legrad@blocks", Pair(), "takes nothing after an @"),
        ("var@gradcam", Pair(), "gradcam"),
        ("finer-camm", Pair(), "Did you mean finer-cam"),
    ],
)
def test_what_means_nothing_is_refused(name, model, message):
    side = (4, 4) if isinstance(model, nn.Sequential) else (8, 12)
    with pytest.raises(ValueError, match=message):
        method(name, made(model), images(3, *side))


def test_idgi_needs_a_module():
    program = torch.export.export(made(Pair()), (images(1, 3, 8, 8),))
    with pytest.raises(TypeError, match=r"idgi needs a torch.nn.Module.*Leave idgi out"):
        attributors(["idgi"], Network(program))


def test_rivals_are_named_where_somebody_asks_clarp_to_explain_with_one():
    assert len(RIVALS) == 10
    with pytest.raises(ValueError, match="clarp compare PHOTO --methods finer-cam,ssglrp"):
        clarp.Method.named("Finer-CAM")
    with pytest.raises(ValueError, match="--methods gradcam-plusplus,ssglrp"):
        clarp.Method.named("Grad-CAM++")
