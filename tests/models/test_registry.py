import sys

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from clarp import models
from clarp.cli import main
from clarp.models import zoo


def test_names(torchvision):
    names = models.names()
    assert names[0] == "efficientnet-lite0"
    assert {"vgg16", "vgg16_bn", "resnet18", "resnet34", "resnet50"} < set(names)
    assert len(set(names)) == len(names)
    for name in names[1:]:  # each can say what its default weights need
        assert len(torchvision.models.get_model_weights(name).DEFAULT.meta["categories"]) == 1000


@pytest.fixture(scope="module")
def resnet(torchvision):
    return torchvision.models.resnet18(weights=None).eval()


class TestZoo:
    @pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
    def test_weights_from_a_file(self, tmp_path, torchvision, resnet, name):
        path = tmp_path / name
        (save_file if path.suffix == ".safetensors" else torch.save)(resnet.state_dict(), path)
        loaded = models.load("resnet18", weights=path)
        assert not loaded.module.training
        photo = Image.effect_noise((300, 280), 80).convert("RGB")
        x = loaded.preprocess(photo)
        assert x.shape == (3, 224, 224)
        with torch.no_grad():
            assert torch.equal(loaded.module(x[None]), resnet(x[None]))
        default = torchvision.models.ResNet18_Weights.DEFAULT
        assert loaded.labels == tuple(default.meta["categories"])
        assert torch.equal(x, default.transforms()(photo))
        assert name in loaded.notes[0]

    def test_bounds_come_from_mean_and_deviation(self, tmp_path, resnet):
        torch.save(resnet.state_dict(), tmp_path / "w.pth")
        low, high = models.load("resnet18", weights=tmp_path / "w.pth").bounds
        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        torch.testing.assert_close(low, -mean / std)
        torch.testing.assert_close(high, (1 - mean) / std)

    def test_own_labels_set_the_number_of_classes(self, tmp_path, torchvision):
        module = torchvision.models.squeezenet1_1(num_classes=3)
        torch.save(module.state_dict(), tmp_path / "w.pth")
        (tmp_path / "labels.txt").write_text("apple\nbüchse\ncherry\n", encoding="utf-8")
        loaded = models.load("squeezenet1_1", tmp_path / "w.pth", tmp_path / "labels.txt")
        assert loaded.class_index("cherry") == 2
        with torch.no_grad():
            assert loaded.module(torch.zeros(1, 3, 224, 224)).shape == (1, 3)

    def test_weights_of_another_model(self, tmp_path, resnet):
        torch.save(resnet.state_dict(), tmp_path / "w.pth")
        with pytest.raises(
            ValueError, match=r"w\.pth: the weights don't fit the model: .*missing.*unexpected"
        ):
            models.load("squeezenet1_1", weights=tmp_path / "w.pth")

    def test_the_published_densenet_files_have_old_names(self, tmp_path, torchvision):
        module = torchvision.models.densenet121()
        old = {
            name.replace("norm1.", "norm.1.").replace("conv2.", "conv.2.")
            if "denselayer" in name
            else name: value
            for name, value in module.state_dict().items()
        }
        assert "features.denseblock1.denselayer1.norm.1.weight" in old
        torch.save(old, tmp_path / "w.pth")
        loaded = models.load("densenet121", weights=tmp_path / "w.pth").module.state_dict()
        assert all(torch.equal(loaded[name], value) for name, value in module.state_dict().items())

    def test_googlenet_is_built_as_torchvision_builds_it_for_its_weights(self, tmp_path, torchvision):
        torch.save(torchvision.models.googlenet(init_weights=False).state_dict(), tmp_path / "w.pth")
        assert models.load("googlenet", weights=tmp_path / "w.pth").module.transform_input

    def test_vision_transformers_are_built_for_the_size_of_their_photos(self, torchvision):
        for name in [name for name in zoo.names() if name.startswith("vit")]:
            default = torchvision.models.get_model_weights(name).DEFAULT
            assert default.transforms().crop_size == [zoo._arguments(name, default)["image_size"]]

    @pytest.fixture
    @staticmethod
    def offline(tmp_path, monkeypatch):
        monkeypatch.setenv("TORCH_HOME", str(tmp_path))  # nothing cached
        for variable in ("https_proxy", "HTTPS_PROXY"):
            monkeypatch.setenv(variable, "http://127.0.0.1:9")  # nobody listens there
        for variable in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(variable, raising=False)

    @pytest.mark.usefixtures("offline")
    def test_offline_the_failed_download_names_the_two_ways_out(self, tmp_path):
        with pytest.raises(
            ConnectionError, match=r"could not be downloaded.*--weights FILE.*--model efficientnet-lite0"
        ):
            models.load("squeezenet1_1")
        assert not list(tmp_path.rglob("*.pth"))

    @pytest.mark.usefixtures("offline")
    def test_a_plan_needs_no_download(self, tmp_path, capsys):
        before = torch.get_rng_state()
        loaded = [models.load("squeezenet1_1", trained=False) for _ in range(2)]
        assert torch.equal(torch.get_rng_state(), before)
        assert loaded[0].weights_sha256() == loaded[1].weights_sha256()  # so that the cache knows it again
        (tmp_path / "labels.txt").write_text("a\nb\n")
        with pytest.raises(SystemExit):
            main(["plan", "squeezenet1_1", "--labels", str(tmp_path / "labels.txt")])
        said = capsys.readouterr()
        assert "classifier.1" in said.out
        assert "2 x 13 x 13" in said.out
        assert said.err == "clarp: note: weights: random ones, without a download\n"

    def test_labels_alone_can_not_change_the_number_of_classes(self, tmp_path):
        (tmp_path / "labels.txt").write_text("a\nb\n")
        with pytest.raises(
            ValueError, match=r"2 labels were given, but resnet18 has 1000 classes.*--weights"
        ):
            models.load("resnet18", labels=tmp_path / "labels.txt")


class TestUnknown:
    def test_the_nearest_names(self):
        with pytest.raises(
            ValueError, match=r"unknown model 'resnet5'; the nearest names are resnet50.*clarp models"
        ):
            models.load("resnet5")
        with pytest.raises(ValueError, match=r"unknown model 'zzz'\. Expected"):
            models.load("zzz")

    def test_a_python_file_without_a_function(self):
        with pytest.raises(ValueError, match=r"needs the function that builds the model, mine\.py:FUNCTION"):
            models.load("mine.py")

    def test_weights_where_a_model_is_expected(self):
        with pytest.raises(ValueError, match=r"weights alone are not a model.*--weights w\.safetensors"):
            models.load("w.safetensors")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "one class name a line"),
        (b"a\n\nb\n", "no empty lines"),
        (b"\xff\xfe\x00", "not a text file in UTF-8"),
    ],
)
def test_broken_labels(tmp_path, content, message):
    (tmp_path / "labels.txt").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        models.load("efficientnet-lite0", labels=tmp_path / "labels.txt")


def test_missing_labels(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such labels file"):
        models.load("efficientnet-lite0", labels=tmp_path / "labels.txt")


def test_missing_packages_are_named_with_the_remedy(monkeypatch):
    for name in ["clarp.models._torchvision", "clarp.models.imagenet", "clarp.models.zoo"]:
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "torchvision", None)
    monkeypatch.delattr("clarp.models.zoo", raising=False)
    with pytest.raises(ModuleNotFoundError, match=r'torchvision.*pip install "clarp\[models\]"'):
        models.names()


@pytest.mark.parametrize("task", ["binary", "sigmoid"])
def test_a_task_that_can_not_be_is_refused_before_any_photo(task, tmp_path):
    photo, out = tmp_path / "photo.png", tmp_path / "maps"
    Image.new("RGB", (8, 8)).save(photo)
    with pytest.raises(SystemExit) as ending:
        main(["explain", str(photo), "--task", task, "--out", str(out)])
    assert ending.value.code == 2
    assert not out.exists()
    with pytest.raises(
        ValueError, match=r"the task is binary.*1000 classes.*multilabel|task is 'sigmoid', expected"
    ):
        models.load("efficientnet-lite0", task=task)
