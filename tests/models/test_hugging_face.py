"""Classifiers of transformers, from a folder as ``save_pretrained`` writes it: the same files as in a repository of the hub."""

import json
import shutil
import sys
from importlib import resources
from pathlib import Path

import pytest
import torch
from PIL import Image

import clarp
from clarp import models
from clarp.cli import main
from clarp.models import hugging_face

transformers = hugging_face._transformers()
DEMO = Path(str(resources.files("clarp") / "assets" / "cat_and_coffee.jpg"))
NAMES = ["cat", "cup", "spoon", "table", "window"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(2)
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], id2label=dict(enumerate(NAMES))
    )
    path = tmp_path_factory.mktemp("checkpoint")
    transformers.ResNetForImageClassification(config).save_pretrained(path)
    transformers.ViTImageProcessor(size={"height": 64, "width": 64}).save_pretrained(path)
    return path


def test_a_folder(folder: Path) -> None:
    loaded = models.load(f"hf:{folder}")
    photo = Image.effect_noise((300, 280), 80).convert("RGB")
    x = loaded.preprocess(photo)
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    assert torch.equal(x, processor(images=photo, return_tensors="pt")["pixel_values"][0])
    model = transformers.AutoModelForImageClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        assert torch.equal(loaded.module(x[None]), model(x[None]).logits)
    assert loaded.labels == tuple(NAMES)
    torch.testing.assert_close(loaded.bounds, (-torch.ones(3), torch.ones(3)))


def test_random_weights_are_always_the_same(folder: Path) -> None:
    before = torch.get_rng_state()
    digests = {models.load(f"hf:{folder}", trained=False).weights_sha256() for _ in range(2)}
    assert len(digests) == 1
    assert models.load(f"hf:{folder}").weights_sha256() not in digests
    assert torch.equal(torch.get_rng_state(), before)


def test_explained_from_the_command_line(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["explain", str(DEMO), "--model", f"hf:{folder}", "--target", "spoon", "--against", "cat"]
    with pytest.raises(SystemExit) as end:
        main([*command, "--method", "sglrp", "--out", str(tmp_path / "maps"), "--json"])
    assert end.value.code == 0
    manifest = json.loads(capsys.readouterr().out)
    assert manifest["model"]["classes"] == 5
    assert "ViTImageProcessor" in manifest["model"]["preprocessing"]
    assert len(list((tmp_path / "maps").glob("*.png"))) == 1


@pytest.mark.parametrize("trained", [True, False])
def test_no_code_of_the_repository_is_executed(folder: Path, tmp_path: Path, trained: bool) -> None:
    ran, path = tmp_path / "ran", tmp_path / "stranger"
    shutil.copytree(folder, path)
    code = f"open({str(ran)!r}, 'w').close()\nclass Own: pass\n"
    for name in ("modeling_own.py", "configuration_own.py", "processing_own.py", "__init__.py"):
        (path / name).write_text(code)
    for file, names in {
        "config.json": {
            "AutoConfig": "configuration_own.Own",
            "AutoModelForImageClassification": "modeling_own.Own",
        },
        "preprocessor_config.json": {"AutoImageProcessor": "processing_own.Own"},
    }.items():
        settings = json.loads((path / file).read_text())
        (path / file).write_text(json.dumps({**settings, "auto_map": names}))
    models.load(f"hf:{path}", trained=trained)
    settings = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**settings, "model_type": "own"}))
    with pytest.raises(ValueError, match="no image classifier that transformers"):
        models.load(f"hf:{path}", trained=trained)
    assert not ran.exists()


def test_weights_of_the_repository_that_are_a_pickle_execute_nothing(folder: Path, tmp_path: Path) -> None:
    ran, path = tmp_path / "ran", tmp_path / "stranger"
    shutil.copytree(folder, path)
    whole = (path / "model.safetensors").read_bytes()
    (path / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="its weights are damaged"):
        models.load(f"hf:{path}")
    (path / "model.safetensors").unlink()
    torch.save(Trap(ran), path / "pytorch_model.bin")
    with pytest.raises(ValueError, match="not loaded, because that may execute code"):
        models.load(f"hf:{path}")
    assert not ran.exists()
    torch.load(path / "pytorch_model.bin", weights_only=False)
    assert ran.exists()


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def test_what_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ConnectionError, match=r"could not be downloaded.*hf:FOLDER"):
        models.load("hf:nobody/nothing")
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*save_pretrained"):
        models.load(f"hf:{tmp_path / 'nothing'}")


def test_no_image_classifier(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    (tmp_path / "preprocessor_config.json").write_bytes((folder / "preprocessor_config.json").read_bytes())
    with pytest.raises(ValueError, match="is no image classifier that transformers"):
        models.load(f"hf:{tmp_path}")


def test_options_that_make_no_sense(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has its weights inside"):
        models.load(f"hf:{folder}", weights=tmp_path / "w.safetensors")
    (tmp_path / "labels.txt").write_text("a\nb\n")
    with pytest.raises(ValueError, match="5 classes, but 2 labels"):
        models.load(f"hf:{folder}", labels=tmp_path / "labels.txt")


def test_without_transformers_the_remedy_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "clarp\[transformers\]"'):
        models.load(f"hf:{folder}")


@pytest.mark.parametrize(
    ("problem", "task"),
    [("multi_label_classification", "multilabel"), ("single_label_classification", "multiclass")],
)
def test_the_task_is_the_configurations(folder: Path, problem: str, task: str, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(folder, tmp_path / "other"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "problem_type": problem}))
    classifier = models.load(f"hf:{folder}")
    image = classifier.preprocess(Image.new("RGB", (40, 40), "red"))[None]
    e = clarp.Explainer(classifier.module, "sglrp", task=classifier.task)(image)
    assert (e.task, e.notes) == (task, ())
    with torch.no_grad():
        z = classifier.module(image)
    torch.testing.assert_close(
        e.probabilities, z.sigmoid() if task == "multilabel" else z.softmax(1), rtol=1e-5, atol=1e-6
    )
