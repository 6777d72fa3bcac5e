"""The adapter gives what captum gives when it is called directly, and leaves the model alone."""

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from clarp.evaluation.attribution import attributors
from clarp.evaluation.baselines import Baseline, last_convolution
from clarp.method import BASELINES
from clarp.network import Network

attr = pytest.importorskip("captum.attr")


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3),
        nn.ReLU(inplace=True),
        nn.Conv2d(6, 8, 3, stride=2),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(32, 4),
    ).eval()


def direct(name, model, images, targets):
    """captum as its documentation calls it, on a model without in-place operations."""
    model = copy.deepcopy(model)
    for part in model.modules():
        if isinstance(part, nn.ReLU):
            part.inplace = False
    images = images.clone().requires_grad_()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if name == "gradient":
            return attr.Saliency(model).attribute(images, target=targets).amax(1)
        if name == "guided-backprop":
            return attr.GuidedBackprop(model).attribute(images, target=targets).abs().amax(1)
        if name == "input-x-gradient":
            return attr.InputXGradient(model).attribute(images, target=targets).sum(1)
        if name == "integrated-gradients":
            return attr.IntegratedGradients(model).attribute(images, target=targets, n_steps=50).sum(1)
        if name == "gradcam":
            cells = attr.LayerGradCam(model, model[2]).attribute(
                images, target=targets, relu_attributions=True
            )
            return F.interpolate(cells, images.shape[2:], mode="bilinear")[:, 0]
        return (
            attr.Occlusion(model)
            .attribute(
                images, sliding_window_shapes=(3, 2, 2), strides=(3, 1, 1), target=targets, baselines=0
            )
            .sum(1)
        )


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_is_captums_own_result(name):
    torch.set_num_threads(1)
    model, images, targets = net(), torch.randn(3, 3, 28, 28), torch.tensor([0, 3, 1])
    network = Network(model)
    state = copy.deepcopy(model.state_dict())
    found = Baseline.of(name, network, images[0])(images, targets)
    expected = direct(name, model, images, targets)
    assert found.shape == (3, 28, 28)
    assert expected.abs().max() > 0
    torch.testing.assert_close(found, expected.detach(), rtol=1e-4, atol=1e-6)
    assert not found.requires_grad
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(part.inplace for part in model.modules() if isinstance(part, nn.ReLU))
    assert not any(part._forward_hooks or part._backward_hooks for part in model.modules())


def test_gradcams_layer_is_the_last_convolution_or_the_one_that_is_named():
    network, image = Network(net()), torch.randn(3, 28, 28)
    assert last_convolution(network, image) == "2"
    assert Baseline.of("gradcam", network, image).layer == "2"
    assert Baseline.of("gradcam@0", network).layer == "0"
    with pytest.raises(ValueError, match="no module of that name"):
        Baseline.of("gradcam@layer9", network)
    with pytest.raises(ValueError, match="only gradcam takes"):
        Baseline.of("gradient@2", network)


def test_gradcams_layer_is_in_front_of_the_pooling():
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Conv2d(6, 8, 1),
        nn.Flatten(),
        nn.Linear(8, 4),
    ).eval()
    assert last_convolution(Network(model), torch.randn(3, 28, 28)) == "0"


def test_guided_backprop_is_refused_where_there_is_nothing_to_guide():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Hardtanh(0, 6), nn.Flatten(), nn.Linear(144, 2)).eval()
    with pytest.raises(ValueError, match="has none"):
        Baseline.of("guided-backprop", Network(model))


def test_every_method_has_its_controls_and_its_composite():
    found = attributors(
        ["lrp", "lrp@epsilon-plus", "gradcam", "random"], Network(net()), image=torch.randn(3, 28, 28)
    )
    assert [method.name for method in found] == ["lrp", "lrp@epsilon-plus", "gradcam", "random", "centre"]
    assert "epsilon-plus" in found[1].definition
    assert "epsilon-plus" not in found[0].definition
    assert [method.coarse for method in found] == [False, False, True, True, True]
    images, targets = torch.randn(2, 3, 28, 28), torch.tensor([1, 2])
    assert all(method(images, targets, ["a", "b"]).shape == (2, 28, 28) for method in found)


def test_a_methods_copy_explains_the_other_model():
    first, second = net(), net()
    with torch.no_grad():
        second[6].weight.mul_(-1)
    images, targets = torch.randn(2, 3, 28, 28), torch.tensor([1, 2])
    for method in attributors(["lrp", "gradient"], Network(first))[:2]:
        moved = method.on(Network(second))(images, targets, ["a", "b"])
        (fresh,) = attributors([method.name], Network(second))[:1]
        assert torch.equal(moved, fresh(images, targets, ["a", "b"]))


@pytest.mark.parametrize(
    ("names", "message"),
    [(["lpr"], "Did you mean lrp"), (["lrp", "lrp"], "more than once"), (["lrp@nothing"], "nothing")],
)
def test_bad_names_are_refused(names, message):
    with pytest.raises(ValueError, match=message):
        attributors(names, Network(net()))
