"""Models of other people's packages are explained as they are. `make test-packages` installs them; where one is absent its tests skip."""

import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import clarp
from clarp import models

sys.path.insert(0, str(Path(__file__).parent))
from zoo import CASES, Case

PAGE = Path(__file__).resolve().parents[2] / "docs" / "classifiers.md"


def needed(package: str) -> None:
    if find_spec(package) is None:
        pytest.skip(f"{package} is not installed: make test-packages")
    from clarp.models import _torchvision  # noqa: F401  most import torchvision, which works from here on


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.package}: {case.name}")
def test_a_model_of_a_package(case: Case) -> None:
    needed(case.package)
    torch.manual_seed(0)
    model = shaken(case.make().eval())
    images = torch.rand(2, *case.size, generator=torch.Generator().manual_seed(1))
    inputs = case.inputs()
    explainer = clarp.Explainer(model, "lrp", bounds=(0.0, 1.0), output=case.output)
    found = explainer(images, target=[0, 1], inputs=inputs)
    with torch.no_grad():
        own = picked(model(images, *inputs), case.output)
    close(
        found.logits,
        own
        if found.logits.shape == own.shape and torch.allclose(found.logits, own, atol=1e-3)
        else own.logit(),
    )
    kept = sum(found.ledger.total(what) for what in ("selection", "bias", "epsilon"))
    close(found.ledger.pixels + kept, found.ledger.seed)
    alone = explainer(images[:1], target=[0], inputs=inputs)
    close(alone.relevance[0], found.relevance[0])
    assert bool(found.relevance.isfinite().all())
    assert float(found.relevance.abs().sum()) > 0


def shaken(model: nn.Module) -> nn.Module:
    """What is zero before training (the second matrix of LoRA, the last norm of a branch) gets values, so that no part is silent."""
    with torch.no_grad():
        for weight in model.parameters():
            if not weight.any():
                weight.normal_(std=0.1)
    return model


def picked(result: object, output: object) -> Tensor:
    if isinstance(result, Tensor):
        return result
    if hasattr(result, "logits"):
        logits: Tensor = result.logits
        return logits
    if output is None:  # ultralytics' probabilities and logits
        assert isinstance(result, tuple)
        output = 1
    found: Tensor = result[output]  # type: ignore[index]
    return found


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-2 * max(float(expected.abs().max()), 1e-3))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_file_of_ultralytics(tmp_path: Path) -> None:
    needed("ultralytics")
    from ultralytics import YOLO

    YOLO("yolov8n-cls.yaml").save(str(tmp_path / "best.pt"))
    found = models.load(f"ultralytics:{tmp_path / 'best.pt'}")
    assert (len(found.labels), found.task) == (1000, "multiclass")
    YOLO("yolov8n.yaml").save(str(tmp_path / "detector.pt"))
    with pytest.raises(ValueError, match="holds a DetectionModel, expected a classifier"):
        models.load(f"ultralytics:{tmp_path / 'detector.pt'}")


def test_the_table_names_what_is_tested() -> None:
    table = PAGE.read_text(encoding="utf-8").partition("### Other packages")[2]
    rows = [line.split(" | ")[:2] for line in table.splitlines() if line.startswith("| ")][1:]
    assert [(row[0].removeprefix("| "), row[1]) for row in rows] == [
        (case.package, case.name) for case in CASES
    ]
