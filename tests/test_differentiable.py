"""Relevance as a differentiable function: its gradients by finite differences in float64, and what it follows."""

import pickle

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck

import clarp
from clarp.capture import exporting
from clarp.network import Network

METHODS = {
    "conv": [
        ("ssglrp", None),
        ("slrp", None),
        ("clrp1", None),
        ("clarp", "epsilon-plus"),
        ("sglrp", "epsilon-gamma-box"),
    ],
    "residual": [("ssglrp", None), ("sglrp", "epsilon-alpha2-beta1-flat"), ("clrp2", None)],
    "dense": [("lrp", "zero"), ("sglrp", "epsilon"), ("sglrp", None)],
    "attention": [("sglrp", "epsilon-plus"), ("lrp", "attnlrp"), ("ssglrp", None)],
    "gates": [("ssglrp", None), ("clarp", None)],
}
CASES = [(kind, *how) for kind, several in METHODS.items() for how in several]


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3)
        self.second, self.head = nn.Conv2d(3, 3, 3, padding=1, bias=False), nn.Linear(3, 3)
        nn.init.uniform_(self.norm.weight, 0.5, 2)
        nn.init.uniform_(self.norm.running_mean, -0.3, 0.3)
        nn.init.uniform_(self.norm.running_var, 0.5, 2)

    def forward(self, x):
        x = self.norm(self.first(x)).relu()
        return self.head((x + self.second(x)).relu().mean((2, 3)))


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.patches, self.norm = nn.Conv2d(2, 4, 2, stride=2), nn.LayerNorm(4)
        self.attention, self.head = nn.MultiheadAttention(4, 2, batch_first=True), nn.Linear(4, 3)

    def forward(self, x):
        x = self.patches(x).flatten(2).mT
        y = self.norm(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return self.head(nn.functional.gelu(x).mean(1))


class Gates(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.gate = nn.Conv2d(2, 4, 3), nn.Conv2d(4, 4, 1)
        self.second, self.head = nn.Conv2d(4, 4, 2, groups=4), nn.Linear(4, 3)

    def forward(self, x):
        x = nn.functional.silu(self.first(x))
        x = x * self.gate(x.mean((2, 3), keepdim=True)).sigmoid()
        return self.head(nn.functional.hardswish(self.second(x)).amax((2, 3)))


def network(kind):
    torch.manual_seed(0)
    made = {
        "conv": lambda: nn.Sequential(
            nn.Conv2d(2, 3, 3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(3, 3, 2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(3, 3),
        ),
        "residual": Residual,
        "dense": lambda: nn.Sequential(nn.Flatten(), nn.Linear(72, 4), nn.ReLU(), nn.Linear(4, 3)),
        "attention": Attention,
        "gates": Gates,
    }
    model = made[kind]().double().eval()
    for name, value in model.named_parameters():
        if name.endswith("bias") and value is not list(model.parameters())[-1]:
            nn.init.uniform_(value, 0.1, 0.6)  # so that not all neurons are dead
    return model


@pytest.fixture
def images():
    return torch.rand(2, 2, 6, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def live(model, *how, **more):
    return clarp.Explainer(model, *how, bounds=(0.0, 1.0), differentiable=True, **more)


def weights(model):
    return [value for value in model.parameters() if value.requires_grad]


@pytest.mark.parametrize(("kind", "method", "composite"), CASES)
def test_gradients_are_those_of_finite_differences(kind, method, composite, images):
    """Over the images and every weight, for a target with its rivals; and relevance is that of any explainer."""
    model = network(kind)
    explainer = live(model, method, composite=composite)
    plain = clarp.Explainer(model, method, composite=composite, bounds=(0.0, 1.0))(images, target=1)
    torch.testing.assert_close(explainer(images, target=1).relevance, plain.relevance, rtol=1e-9, atol=1e-12)
    assert not plain.relevance.requires_grad

    def relevance(pixels, *_):
        return explainer(pixels, target=1).relevance.sum((0, 1))

    given = images.clone().requires_grad_(), *weights(model)
    found = torch.autograd.grad(relevance(*given).square().sum(), given, allow_unused=True)
    assert all(value is not None and bool(value.any()) for value in found[:2])
    assert gradcheck(relevance, given, eps=1e-7, atol=1e-5, rtol=1e-4, fast_mode=True)


def test_every_entry_of_the_jacobian(images):
    """As above, but for one small network each entry by itself."""
    model = network("residual")
    explainer = live(model, "ssglrp")
    given = images[:1].clone().requires_grad_(), model.first.weight, model.norm.weight, model.head.bias
    assert gradcheck(lambda x, *_: explainer(x, target=0).heatmap, given, eps=1e-7, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("method", clarp.methods())
def test_dead_neurons_and_black_pictures_give_no_nan(method):
    model = network("conv")
    with torch.no_grad():
        model[0].bias[:2] = -100
    for images in (torch.zeros(1, 2, 6, 6).double(), torch.rand(1, 2, 6, 6).double()):
        given = images.requires_grad_(), *weights(model)
        relevance = live(model, method)(images, target=0).relevance
        for gradient in torch.autograd.grad(relevance.square().sum(), given, allow_unused=True):
            assert gradient is None or bool(gradient.isfinite().all())


class TestWhatItFollows:
    def test_other_weights_and_statistics_without_another_capture(self, images, monkeypatch):
        model = network("residual")
        explainer = live(model, "sglrp")
        explainer(images, target=1)
        monkeypatch.setattr(exporting, "exported", None)
        monkeypatch.setattr(torch.export, "export", None)
        with torch.no_grad():
            model.first.weight.mul_(-0.5)
            model.norm.running_mean.add_(0.2)
            model.head.weight.data = model.head.weight.data.flip(0)
        found, probabilities = explainer(images, target=1), explainer.probabilities(images)
        monkeypatch.undo()
        plain = clarp.Explainer(model, "sglrp", bounds=(0.0, 1.0))
        torch.testing.assert_close(found.relevance, plain(images, target=1).relevance, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(probabilities, plain.probabilities(images))
        torch.testing.assert_close(found.logits, model(images))

    def test_another_parameter_is_captured(self, images):
        model = network("dense")
        explainer = live(model, "lrp", composite="epsilon")
        explainer(images, target=1)
        model[3] = nn.Linear(4, 3).double().eval()
        (gradient,) = torch.autograd.grad(explainer(images, target=1).relevance.abs().sum(), model[3].weight)
        assert bool(gradient.any())

    def test_a_weight_that_is_computed(self, images):
        model = network("conv")
        nn.utils.parametrizations.weight_norm(model[3])
        model.eval()
        explainer = live(model, "sglrp")
        given = weights(model[3])
        assert len(given) == 3
        assert gradcheck(
            lambda *_: explainer(images, target=1).relevance.sum((0, 1)),
            given,
            eps=1e-7,
            atol=1e-5,
            fast_mode=True,
        )

    def test_a_step_of_training(self, images):
        model = network("residual")
        explainer, optimiser = live(model, "ssglrp"), torch.optim.SGD(model.parameters(), lr=1e-3)
        amounts = []
        for _ in range(4):
            amount = explainer(images, target=1).relevance[:, :, :3].abs().sum()
            amounts.append(amount.item())
            optimiser.zero_grad()
            amount.backward()
            optimiser.step()
        assert amounts[-1] < amounts[0]

    def test_parts_of_a_batch(self, images):
        model = network("conv")
        explainer = live(model, "ssglrp")
        whole, parts = (
            torch.autograd.grad(
                explainer(images, target=1, batch_size=size).relevance.square().sum(), model[0].weight
            )[0]
            for size in (None, 1)
        )
        torch.testing.assert_close(whole, parts)


class TestWithoutGradients:
    def test_under_no_grad(self, images):
        with torch.no_grad():
            assert not live(network("conv"), "sglrp")(images, target=1).relevance.requires_grad

    def test_the_model_stays_as_it_is(self, images):
        model = network("residual")
        before = {name: value.clone() for name, value in model.state_dict().items()}
        live(model, "ssglrp")(images, target=1).relevance.sum().backward()
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
        model.train()
        with pytest.raises(ValueError, match="train mode"):
            live(model, "ssglrp")(images)

    def test_pictures_and_files_of_it(self, images, tmp_path):
        found = live(network("conv"), "sglrp")(images, target=1)
        found.save(tmp_path)
        found.plot()
        assert list(tmp_path.glob("*.npy"))
        assert found.ledger.rows()

    def test_a_copy(self, images):
        explainer = live(network("conv"), "sglrp")
        expected = explainer(images, target=1).relevance
        other = pickle.loads(pickle.dumps(explainer))
        torch.testing.assert_close(other(images, target=1).relevance, expected)


class TestRefusals:
    def test_an_exported_program(self, images):
        program = torch.export.export(network("conv"), (images,))
        with pytest.raises(ValueError, match=r"expected a torch\.nn\.Module"):
            clarp.Explainer(program, differentiable=True)

    @pytest.mark.parametrize("more", [{"compile": True}, {"engine": "onnxruntime"}])
    def test_what_does_not_record(self, more):
        with pytest.raises(ValueError, match="differentiable=True was given with"):
            clarp.Explainer(network("conv"), differentiable=True, **more)

    def test_a_network_of_the_other_kind(self):
        with pytest.raises(ValueError, match=r"Network\(model, differentiable=True\)"):
            clarp.Explainer(Network(network("conv")), differentiable=True)
        with pytest.raises(ValueError, match="differentiable=False"):
            clarp.Explainer(Network(network("conv"), differentiable=True))
