"""timm's classifiers by name: built, preprocessed and named as timm does it."""

import sys
from importlib import resources
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from clarp import models
from clarp.cli import main
from clarp.models import imagenet, timm_zoo

timm = timm_zoo._timm()
DEMO = Path(str(resources.files("clarp") / "assets" / "cat_and_coffee.jpg"))


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(1)
    file = tmp_path / "w.safetensors"
    save_file(timm.create_model("test_resnet").state_dict(), file)
    return file


def test_weights_from_a_file(weights: Path) -> None:
    loaded = models.load("timm:test_resnet", weights)
    torch.manual_seed(1)
    model = timm.create_model("test_resnet").eval()
    photo = Image.effect_noise((300, 280), 80).convert("RGB")
    config = timm.data.resolve_model_data_config(model)
    x = timm.data.create_transform(**config)(photo)
    assert torch.equal(loaded.preprocess(photo), x)
    assert not loaded.module.training
    with torch.no_grad():
        assert torch.equal(loaded.module(x[None]), model(x[None]))
    assert loaded.labels == imagenet.labels()
    mean, std = (torch.tensor(config[name]) for name in ("mean", "std"))
    torch.testing.assert_close(loaded.bounds, (-mean / std, (1 - mean) / std))
    assert "w.safetensors" in loaded.notes[0]


def test_the_prefix_may_be_left_out_where_torchvision_has_no_such_name() -> None:
    assert models.load("test_resnet", trained=False).name == "timm:test_resnet"
    assert models.load("resnet18", trained=False).name == "resnet18"  # torchvision's
    assert models.load("timm:resnet18", trained=False).name == "timm:resnet18"


def test_labels_of_larger_sets() -> None:
    """ImageNet-21k has names of its own."""
    labels = timm_zoo._own_labels(21841)
    assert len(labels) == 21841
    assert len(set(labels)) > 20000
    assert timm_zoo._own_labels(7) is None


def test_own_labels_set_the_number_of_classes(tmp_path: Path) -> None:
    model = timm.create_model("test_resnet", num_classes=3)
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    (tmp_path / "labels.txt").write_text("a\nb\nc\n")
    loaded = models.load("timm:test_resnet", tmp_path / "w.safetensors", tmp_path / "labels.txt")
    assert loaded.labels == ("a", "b", "c")
    (tmp_path / "labels.txt").write_text("a\nb\n")
    with pytest.raises(ValueError, match=r"of another shape"):
        models.load("timm:test_resnet", tmp_path / "w.safetensors", tmp_path / "labels.txt")


@pytest.mark.usefixtures("offline")
def test_offline_the_failed_download_names_the_two_ways_out() -> None:
    with pytest.raises(ConnectionError, match=r"timm's test_resnet.*--weights FILE.*efficientnet-lite0"):
        models.load("timm:test_resnet")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm:test_resnot", r"timm has no model 'test_resnot'.*test_resnet"),
        ("timm:botnet50ts_256", r"No pretrained weights.*--weights FILE"),
        (
            "timm:test_resnet.nobody",
            r"Invalid pretrained tag.*has weights for test_resnet\.r160_in1k.*--weights FILE",
        ),
        ("test_resnot", r"unknown model 'test_resnot'.*test_resnet.*timm:NAME"),
    ],
)
@pytest.mark.usefixtures("offline")
def test_names_and_weights_that_are_not_there(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        models.load(name)


def test_without_timm_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "clarp\[timm\]"'):
        models.load("timm:test_resnet")


def test_explained_from_the_command_line(weights: Path, tmp_path: Path) -> None:
    command = ["explain", str(DEMO), "--model", "timm:test_resnet", "--weights", str(weights)]
    with pytest.raises(SystemExit) as end:
        main([*command, "--target", "espresso", "--method", "sglrp", "--out", str(tmp_path / "maps")])
    assert end.value.code == 0
    assert len(list((tmp_path / "maps").glob("*.png"))) == 1
