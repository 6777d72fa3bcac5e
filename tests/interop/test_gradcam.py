"""An explainer in the place of a CAM: pytorch-grad-cam's targets and drawing where it is installed (not in CI)."""

import numpy as np
import pytest
import torch
from torch import nn

import clarp
from clarp.interop.gradcam import RelevanceCAM
from clarp.interop.strength import strengths


class ClassifierOutputTarget:
    """As pytorch-grad-cam's."""

    def __init__(self, category: int) -> None:
        self.category = category


@pytest.fixture(scope="module")
def explainer() -> clarp.Explainer:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)).eval()
    return clarp.Explainer(model, "ssglrp", bounds=(0.0, 1.0))


IMAGES = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def test_maps_are_the_positive_relevance_on_the_scale_of_pictures(explainer) -> None:
    cam = RelevanceCAM(explainer)
    found = cam(input_tensor=IMAGES, targets=[ClassifierOutputTarget(3), ClassifierOutputTarget(1)])
    e = explainer(IMAGES, [3, 1])
    assert torch.equal(cam.outputs, e.logits)
    assert found.dtype == np.float32
    for drawn, heatmap in zip(found, e.heatmap.double().numpy(), strict=True):
        limit = np.percentile(np.abs(heatmap), 99.5)
        np.testing.assert_allclose(drawn, (heatmap / limit).clip(0, 1), atol=1e-6)
        assert drawn.max() == 1


def test_without_targets_the_most_probable_class(explainer) -> None:
    np.testing.assert_array_equal(RelevanceCAM(explainer)(IMAGES), strengths(explainer(IMAGES)).clip(min=0))


def test_rivals_reach_the_explainer(explainer) -> None:
    targets = [ClassifierOutputTarget(3)] * 2
    found = RelevanceCAM(explainer)(IMAGES, targets, against=[1])
    np.testing.assert_array_equal(found, strengths(explainer(IMAGES, 3, [1])).clip(min=0))


def test_an_error_leaves_the_block(explainer) -> None:
    """pytorch-grad-cam swallows an IndexError there."""
    with pytest.raises(IndexError), RelevanceCAM(explainer):
        raise IndexError


def test_a_function_of_other_outputs_is_refused(explainer) -> None:
    with pytest.raises(TypeError, match="a target is a function, expected one that names a class"):
        RelevanceCAM(explainer)(IMAGES, [lambda output: output[0]] * 2)


def test_a_map_without_relevance_is_zero() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3)).eval()
    nn.init.zeros_(model[1].weight)
    with pytest.warns(clarp.EmptyMap):
        found = RelevanceCAM(clarp.Explainer(model, "lrp"))(IMAGES[:, :, :2, :2])
    np.testing.assert_array_equal(found, np.zeros((2, 2, 2), dtype=np.float32))


def test_one_scale_for_several_maps(explainer) -> None:
    e = explainer(IMAGES, [[0, 1], [2, 3]])
    found = strengths(e, limit=0.01)
    np.testing.assert_allclose(found, (e.heatmap.numpy() / 0.01).clip(-1, 1), atol=1e-6)
    with pytest.raises(ValueError, match="limit is 0"):
        strengths(e, limit=0)


def test_what_is_no_photo_is_refused() -> None:
    model = nn.Sequential(nn.Conv1d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(18, 3)).eval()
    with pytest.raises(ValueError, match="takes maps of photos"):
        strengths(clarp.Explainer(model, "lrp", composite="epsilon")(torch.rand(1, 2, 8)))


def test_the_package_itself(explainer) -> None:
    pytest.importorskip("clarp.models._torchvision")  # pytorch-grad-cam imports torchvision
    pytest.importorskip("pytorch_grad_cam", reason="pytorch-grad-cam brings OpenCV, so CI does without")
    from pytorch_grad_cam.utils import image, model_targets  # noqa: PLC0415

    given = (
        model_targets.ClassifierOutputTarget(3),
        model_targets.ClassifierOutputSoftmaxTarget(3),
        model_targets.ClassifierOutputReST(3),
        model_targets.BinaryClassifierOutputTarget(3),
    )
    expected = strengths(explainer(IMAGES[:1], 3)).clip(min=0)
    for target in given:
        found = RelevanceCAM(explainer)(input_tensor=IMAGES[:1], targets=[target])
        np.testing.assert_array_equal(found, expected)
    drawn = image.show_cam_on_image(IMAGES[0].permute(1, 2, 0).numpy(), found[0], use_rgb=True)
    assert drawn.shape == (8, 8, 3)
    assert drawn.dtype == np.uint8
