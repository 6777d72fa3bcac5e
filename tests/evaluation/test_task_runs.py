"""Runs with one logit and with many findings: probabilities, targets and drops are those of the task."""

import pytest
import torch

from clarp import Explainer
from clarp.data.opening import open_dataset
from clarp.evaluation.metrics import PatchMasking, probabilities
from clarp.evaluation.run import Run, Settings
from clarp.evaluation.specs import metrics
from clarp.models import load
from evaluation.toys import toy_photos

parquet = pytest.importorskip("pyarrow.parquet")
MODELS = """
import torch
from torch import nn

def logits(count):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 8, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(2),
        nn.Flatten(), nn.Linear(32, count),
    ).eval()

def findings():
    return nn.Sequential(logits(4), nn.Sigmoid()).eval()

def one():
    return nn.Sequential(logits(1), nn.Sigmoid()).eval()

class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = one()

    def forward(self, x):
        p = self.one(x)
        return torch.cat([1 - p, p], 1)

def two():
    return Two().eval()

def preprocess(image):
    pixels = torch.frombuffer(bytearray(image.resize((24, 24)).tobytes()), dtype=torch.uint8)
    return pixels.view(24, 24, 3).permute(2, 0, 1) / 255 - 0.5
"""
METHODS = ("lrp", "ssglrp", "gradient", "gradcam", "occlusion")


def rows_of(tmp_path, name, labels, folders):
    path = tmp_path / "net.py"
    path.write_text(MODELS)
    photos = toy_photos(tmp_path / "photos", 8)
    for old, new in zip(("ant", "bee", "cow", "dog"), folders, strict=True):
        for photo in (photos / old).iterdir():
            (photos / new).mkdir(exist_ok=True)
            photo.rename(photos / new / photo.name)
        if old not in folders:
            (photos / old).rmdir()
    (tmp_path / "labels.txt").write_text("\n".join(labels))
    classifier = load(f"{path}:{name}", labels=tmp_path / "labels.txt")
    opened = open_dataset(str(photos), classifier.labels)
    settings = Settings(METHODS, metrics(["patch-masking:size=5"]), batch_size=4)
    run = Run(opened, classifier, settings, tmp_path / name)
    run.complete()
    images = torch.stack([classifier.preprocess(sample.image()) for sample in opened.samples])
    return parquet.read_table(tmp_path / name / "rows.parquet").to_pylist(), images, classifier


def test_findings(tmp_path):
    found, images, classifier = rows_of(
        tmp_path, "findings", ["ant", "bee", "cow", "dog"], ["ant", "bee", "cow", "dog"]
    )
    with torch.no_grad():
        shares = classifier.module(images).double()
    own = [row for row in found if row["method"] == "ssglrp"]
    targets = torch.tensor([row["target"] for row in own])
    assert [row["probability"] for row in own] == pytest.approx(shares[range(8), targets].tolist(), abs=1e-6)
    assert [row["predicted"] for row in own] == shares.argmax(1).tolist()
    explainer = Explainer(classifier.module, "ssglrp", bounds=classifier.bounds)
    mean = images.double().mean(0).float()
    expected = PatchMasking(5)(
        explainer, images, explainer(images, targets).heatmap, targets=targets, mean_image=mean
    )
    assert [row["patch-masking:size=5/drop@5"] for row in own] == pytest.approx(
        expected["drop@5"].tolist(), abs=1e-6
    )
    assert expected["before"].tolist() == pytest.approx(shares[range(8), targets].tolist(), abs=1e-6)


@pytest.mark.parametrize("name", ["one", "two"])
def test_one_logit(name, tmp_path):
    found, images, classifier = rows_of(
        tmp_path, name, ["healthy", "ill"], ["healthy", "ill", "healthy", "ill"]
    )
    with torch.no_grad():
        ill = classifier.module(images).double()[:, -1]
    own = [row for row in found if row["method"] == "ssglrp"]
    wanted = [float(p if row["target"] else 1 - p) for row, p in zip(own, ill, strict=True)]
    assert {row["target"] for row in own} == {0, 1}
    assert [row["probability"] for row in own] == pytest.approx(wanted, abs=1e-6)
    assert [row["predicted"] for row in own] == (ill > 0.5).long().tolist()
    drops = {m: [r["patch-masking:size=5/drop@5"] for r in found if r["method"] == m] for m in METHODS}
    assert all(any(abs(drop) > 1e-6 for drop in values) for values in drops.values())


def test_a_metric_takes_one_logit_for_a_sigmoid():
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 1)).eval()
    images = torch.rand(3, 3, 4, 4)
    with torch.no_grad():
        z = model(images)[:, 0].double()
    for asked in (model, Explainer(model, "lrp")):
        found = probabilities(asked, images, torch.tensor([1, 0, 1]))
        torch.testing.assert_close(found, torch.stack([z[0], -z[1], z[2]]).sigmoid(), rtol=1e-6, atol=1e-6)
