"""The explain_func of Quantus: its own metrics run where Quantus is installed (not in CI: it brings OpenCV)."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

import clarp
from clarp.interop.quantus import ExplainFunction


@pytest.fixture(scope="module")
def explainer() -> clarp.Explainer:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)).eval()
    return clarp.Explainer(model, "ssglrp", bounds=(0.0, 1.0))


@pytest.fixture
def quantus():
    pytest.importorskip("clarp.models._torchvision")  # Quantus imports torchvision
    return pytest.importorskip("quantus", reason="Quantus brings OpenCV, so CI does without")


X = np.random.default_rng(0).random((2, 3, 8, 8), dtype=np.float32)
Y = np.array([1, 4])


def test_arrays_in_and_out(explainer) -> None:
    found = ExplainFunction(explainer)(explainer.network.model, X.astype(np.float64), Y, device="cpu")
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, explainer(torch.tensor(X), [1, 4]).relevance.numpy())


def test_rivals_reach_the_explainer(explainer) -> None:
    found = ExplainFunction(explainer)(explainer.network.model, X, Y, against=[0])
    np.testing.assert_array_equal(found, explainer(torch.tensor(X), [1, 4], [0]).relevance.numpy())


def test_the_model_that_is_handed_over_is_explained(explainer) -> None:
    """As in model parameter randomisation: a copy, whose layers change one after the other."""
    explain, model = ExplainFunction(explainer), copy.deepcopy(explainer.network.model)
    own = explain(explainer.network.model, X, Y)
    np.testing.assert_array_equal(explain(model, X, Y), own)
    nn.init.normal_(model[3].weight)
    changed = explain(model, X, Y)
    assert np.abs(changed - own).max() > 1e-3 * np.abs(own).max()
    expected = clarp.Explainer(model, "ssglrp", bounds=(0.0, 1.0))(torch.tensor(X), [1, 4]).relevance
    np.testing.assert_array_equal(changed, expected.numpy())
    np.testing.assert_array_equal(explain(explainer.network.model, X, Y), own)


def test_pixel_flipping(explainer, quantus) -> None:
    """Quantus takes the pixels of the greatest values first."""
    metric = quantus.PixelFlipping(features_in_step=64, normalise=False, disable_warnings=True)
    model = explainer.network.model
    curves = metric(model, X, Y, None, explain_func=ExplainFunction(explainer), softmax=True)
    relevance = explainer(torch.tensor(X), [1, 4]).relevance.numpy().reshape(2, -1)
    flat = X.reshape(2, -1).copy()
    for step in range(3):
        for image, order in enumerate(np.argsort(-relevance, axis=1)):
            flat[image, order[64 * step : 64 * (step + 1)]] = 0  # "black": the least value of the image
        shares = model(torch.tensor(flat.reshape(X.shape))).softmax(1).detach().numpy()
        found = [curve[step] for curve in curves]
        np.testing.assert_allclose(found, shares[[0, 1], Y], atol=2e-2)


def test_max_sensitivity(explainer, quantus) -> None:
    metric = quantus.MaxSensitivity(nr_samples=4, lower_bound=0.02, disable_warnings=True)
    found = metric(explainer.network.model, X, Y, None, explain_func=ExplainFunction(explainer))
    assert len(found) == 2
    assert all(0 < value < 2 for value in found)


def test_parameter_randomisation(explainer, quantus) -> None:
    metric = quantus.MPRT(disable_warnings=True, return_average_correlation=True)
    found = metric(explainer.network.model, X, Y, None, explain_func=ExplainFunction(explainer))
    assert all(value < 0.95 for value in found)
