"""captum's own tools run on clarp's maps, and get what a loop by hand gets."""

import pytest
import torch
from torch import Tensor, nn

import clarp
from oracle.calls import apart

pytest.importorskip("captum")

from captum import attr, metrics

from clarp.interop.captum import RelevanceAttribution


@pytest.fixture(scope="module")
def explainer() -> clarp.Explainer:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)).double().eval()
    return clarp.Explainer(model, "ssglrp", bounds=(-9.0, 9.0))


@pytest.fixture
def images() -> Tensor:
    return torch.rand(2, 3, 8, 8, dtype=torch.float64)


@pytest.mark.parametrize("target", [3, [3, 1], torch.tensor([3, 1]), torch.tensor([3])])
def test_targets_as_captum_has_them(explainer, images, target) -> None:
    given = 3 if isinstance(target, Tensor) and target.numel() == 1 else target
    expected = explainer(images, given).relevance
    relevance = RelevanceAttribution(explainer)
    assert torch.equal(relevance.attribute(images, target=target), expected)
    (of_tuple,) = relevance.attribute((images,), target=target)
    assert torch.equal(of_tuple, expected)


def test_rivals_reach_the_explainer(explainer, images) -> None:
    found = RelevanceAttribution(explainer).attribute(images, 3, against=[1])
    assert torch.equal(found, explainer(images, 3, [1]).relevance)
    assert not torch.equal(found, explainer(images, 3).relevance)


def test_a_noise_tunnel_is_the_mean_over_noisy_images(explainer, images) -> None:
    noisy: list[Tensor] = []

    class Recording:
        network = explainer.network

        def __call__(self, images, target, against, **others):
            noisy.append(images)
            return explainer(images, target, against, **others)

    found = attr.NoiseTunnel(RelevanceAttribution(Recording())).attribute(
        images, nt_type="smoothgrad", nt_samples=6, nt_samples_batch_size=2, stdevs=0.3, target=[3, 1]
    )
    assert [len(part) for part in noisy] == [4, 4, 4]  # of each image two
    means = [
        explainer(torch.cat([part[2 * i : 2 * i + 2] for part in noisy]), target).relevance.mean(0)
        for i, target in enumerate((3, 1))
    ]
    assert apart(found, torch.stack(means)) < 1e-12


def test_sensitivity_is_the_largest_change(explainer, images) -> None:
    steps: list[Tensor] = []

    def perturb(inputs: Tensor) -> Tensor:
        steps.append(inputs + 0.01 * torch.randn_like(inputs))
        return steps[-1]

    found = metrics.sensitivity_max(
        RelevanceAttribution(explainer).attribute, images, perturb, n_perturb_samples=3, target=[3, 1]
    )
    own = explainer(images, [3, 1]).relevance
    noisy = torch.cat(steps)
    changed = explainer(noisy, torch.tensor([3, 1]).repeat_interleave(3)).relevance.view(2, 3, -1)
    distance = (changed - own.flatten(1)[:, None]).norm(dim=2).amax(1) / own.flatten(1).norm(dim=1)
    assert apart(found, distance) < 1e-6


def test_infidelity_of_a_linear_model_is_zero() -> None:
    """LRP of a linear layer without bias is the share of each pixel, so it foretells every change but one of sign."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3, bias=False)).double().eval()
    images = torch.rand(2, 3, 2, 2, dtype=torch.float64)
    relevance = RelevanceAttribution(clarp.Explainer(model, "lrp", composite="epsilon")).attribute(images, 2)

    def cover(inputs: Tensor) -> tuple[Tensor, Tensor]:
        covered = (torch.rand_like(inputs) < 0.5).double()
        return covered, inputs * (1 - covered)

    found = metrics.infidelity(model, cover, images, relevance, target=2, n_perturb_samples=5)
    assert float(found.max()) < 1e-9
    other = metrics.infidelity(model, cover, images, relevance.flip(0), target=2, n_perturb_samples=5)
    assert float(other.min()) > 1e-6


def test_further_inputs() -> None:
    class WithTable(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.image, self.table = nn.Linear(12, 3), nn.Linear(2, 3)

        def forward(self, x: Tensor, table: Tensor) -> Tensor:
            return self.image(x.flatten(1)) + self.table(table)

    explainer = clarp.Explainer(WithTable().eval(), "lrp")
    images, table = torch.rand(2, 3, 2, 2), torch.rand(2, 2)
    found = RelevanceAttribution(explainer).attribute(images, 1, table)
    assert torch.equal(found, explainer(images, 1, inputs=(table,)).relevance)


@pytest.mark.parametrize("target", [None, [[1, 2], [0, 1]]])
def test_no_class_is_refused(explainer, images, target) -> None:
    with pytest.raises(ValueError, match=r"target is .*expected one class"):
        RelevanceAttribution(explainer).attribute(images, target)


def test_two_inputs_are_refused(explainer, images) -> None:
    with pytest.raises(ValueError, match="inputs has 2 tensors"):
        RelevanceAttribution(explainer).attribute((images, images), 1)
