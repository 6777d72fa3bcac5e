"""A project as ViRelAy's own reader finds it where that is installed (not in CI: it brings a web server)."""

import json

import numpy as np
import pytest
import torch
from torch import nn

import clarp
from clarp.interop.virelay import write_project
from clarp.models import Classifier

h5py = pytest.importorskip("h5py")


def preprocess(photo):
    return torch.tensor(np.asarray(photo.resize((8, 8)), dtype=np.float32) / 255).permute(2, 0, 1)


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)).eval()
    return Classifier("tiny", model, ("ant", "bee", "cat"), preprocess)


@pytest.fixture(scope="module")
def explainer(classifier) -> clarp.Explainer:
    return clarp.Explainer(classifier.module, "ssglrp", bounds=(0.0, 1.0), labels=classifier.labels)


IMAGES = torch.randint(0, 256, (5, 3, 8, 8), generator=torch.Generator().manual_seed(0)).float() / 255
TARGETS, TRUTH = [2, 0, 1, 1, 0], [2, 0, 1, 2, 0]


def batches(explainer):
    for part in (slice(0, 3), slice(3, 5)):
        yield explainer(IMAGES[part], TARGETS[part])


def test_the_layout(explainer, classifier, tmp_path) -> None:
    path = write_project(tmp_path / "project", batches(explainer), classifier, TRUTH)
    e = explainer(IMAGES, TARGETS)
    with h5py.File(path.parent / "input.h5") as data, h5py.File(path.parent / "attribution.h5") as found:
        np.testing.assert_array_equal(data["data"][:], (IMAGES * 255).round().byte().numpy())
        assert data["label"][:].tolist() == TRUTH
        assert found["label"][:].tolist() == TARGETS
        assert found["index"][:].tolist() == list(range(5))
        np.testing.assert_allclose(found["attribution"][:], e.relevance.numpy(), rtol=1e-4, atol=1e-7)
        np.testing.assert_allclose(found["prediction"][:], e.probabilities.numpy(), rtol=1e-5)
    said = json.loads(path.read_text())["project"]["attributions"]
    assert said["attribution_strategy"] == "predicted_label"  # one was explained for another than its own
    assert said["attribution_method"] == "ssglrp (zplus-box)"


@pytest.mark.parametrize(("truth", "strategy"), [(TARGETS, "true_label"), (None, "predicted_label")])
def test_whose_class_was_explained(explainer, classifier, tmp_path, truth, strategy) -> None:
    path = write_project(tmp_path, batches(explainer), classifier, truth)
    assert json.loads(path.read_text())["project"]["attributions"]["attribution_strategy"] == strategy


def test_virelay_reads_it(explainer, classifier, tmp_path) -> None:
    model = pytest.importorskip("virelay.model", reason="ViRelAy is a web server, so CI does without")
    project = model.Project(str(write_project(tmp_path, batches(explainer), classifier, TRUTH)))
    assert len(project.dataset) == 5
    sample, attribution = project.dataset[3], project.get_attribution(3)
    assert [label.name for label in sample.labels] == ["cat"]
    assert [label.name for label in attribution.labels] == ["bee"]
    np.testing.assert_array_equal(sample.data, (IMAGES[3] * 255).round().byte().permute(1, 2, 0).numpy())
    heatmap = attribution.render_heatmap("blue-white-red")
    assert heatmap.shape[:2] == (8, 8)
    project.close()


@pytest.mark.parametrize(
    ("targets", "truth", "message"),
    [
        ([], None, r"0 image\(s\) were explained, expected one"),
        ([TARGETS], [0, 1, 2], r"5 image\(s\) were explained, and truth has 3"),
        ([[[0, 1]] * 5], None, r"target has the shape \(5, 2\), expected one class for each image"),
    ],
)
def test_what_is_refused(explainer, classifier, tmp_path, *, targets, truth, message) -> None:
    with pytest.raises(ValueError, match=message):
        write_project(tmp_path, (explainer(IMAGES, target) for target in targets), classifier, truth)
