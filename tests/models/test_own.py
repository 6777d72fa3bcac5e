import logging
import subprocess
import sys

import pytest
import torch
from PIL import Image
from torch import nn

from clarp import models

SOURCE = """
import torch
from torch import nn
import own_helper

def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, own_helper.WIDTH, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)).eval()

def training():
    return build().train()

def broken():
    raise KeyError("the weights")

def number():
    return 3

def image_out():
    return nn.Conv2d(3, 3, 1).eval()

def thousand():
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 1000)).eval()
"""
LABELS = "\ndef labels():\n    return ['ant', 'bee', 'cow']\n"
PREPROCESS = """
def preprocess(image):
    return torch.full((3, 8, 8), image.getpixel((0, 0))[0] / 51)
"""


@pytest.fixture
def write(tmp_path):
    (tmp_path / "own_helper.py").write_text("WIDTH = 4")

    def write(extra="", name="mine.py"):
        (tmp_path / name).write_text(SOURCE + extra)
        return tmp_path / name

    yield write
    sys.modules.pop("own_helper", None)


class TestFunction:
    def test_its_own_labels_and_preprocessing(self, write):
        path = list(sys.path)
        loaded = models.load(f"{write(LABELS + PREPROCESS)}:build")
        assert loaded.labels == ("ant", "bee", "cow")
        assert loaded.notes == ()
        assert loaded.preprocess(Image.new("RGB", (9, 9), "white")).shape == (3, 8, 8)
        assert [bound.tolist() for bound in loaded.bounds] == [[0.0] * 3, [5.0] * 3]
        assert sys.path == path

    def test_labels_as_a_list_and_imagenets_preprocessing(self, write):
        loaded = models.load(f"{write('labels = [1, 2, 3]')}:build")
        assert loaded.labels == ("1", "2", "3")
        assert loaded.preprocess(Image.new("RGB", (300, 400))).shape == (3, 224, 224)
        assert len(loaded.notes) == 1
        assert loaded.notes[0].startswith(
            "preprocessing: ImageNet's usual one was assumed (shorter side to 256"
        )
        assert loaded.notes[0].endswith(
            "PIL photo, into mine.py"
        )  # the name alone: strangers read it in clarp serve

    def test_without_labels(self, write):
        assert models.load(f"{write(PREPROCESS)}:build").labels == ("class 0", "class 1", "class 2")
        thousand = models.load(f"{write(PREPROCESS)}:thousand")
        assert thousand.labels[281] == "tabby"
        assert thousand.notes == ("labels: ImageNet's were assumed",)

    def test_given_labels_take_precedence_and_must_fit(self, write, tmp_path):
        labels = tmp_path / "labels.txt"
        labels.write_text("x\ny\nz")
        assert models.load(f"{write(LABELS)}:build", labels=labels).labels == ("x", "y", "z")
        labels.write_text("x\ny")
        with pytest.raises(ValueError, match="has 3 classes, but 2 labels were given"):
            models.load(f"{write(LABELS)}:build", labels=labels)

    def test_weights_are_put_into_it(self, write, tmp_path):
        file = write(LABELS)
        state = {name: value + 1 for name, value in models.load(f"{file}:build").module.state_dict().items()}
        torch.save(state, tmp_path / "w.pth")
        loaded = models.load(f"{file}:build", weights=tmp_path / "w.pth").module.state_dict()
        assert all(torch.equal(loaded[name], value) for name, value in state.items())

    @pytest.mark.parametrize("norm", ["nn.BatchNorm2d(4)", "nn.GroupNorm(2, 4)"])
    def test_a_model_that_looks_untrained_is_noted(self, write, tmp_path, norm):
        source = f"\ndef normed():\n    return nn.Sequential(build()[0], {norm}, *build()[1:]).eval()\n"
        spec = f"{write(LABELS + PREPROCESS + source)}:normed"
        fresh = models.load(spec)
        assert [said.partition(",")[0] for said in fresh.notes] == ["weights: none were given"]
        torch.save({k: v + 1 for k, v in fresh.module.state_dict().items()}, tmp_path / "w.pth")
        assert models.load(spec, weights=tmp_path / "w.pth").notes == ()

    def test_labels_of_one_logit(self, write, tmp_path):
        source = "\ndef one():\n    return nn.Sequential(build(), nn.Linear(3, 1)).eval()\n"
        file, labels = write(PREPROCESS + source), tmp_path / "labels.txt"
        labels.write_text("ill")
        assert models.load(f"{file}:one", labels=labels).labels == ("not ill", "ill")
        labels.write_text("a\nb\nc")
        with pytest.raises(ValueError, match="one logit: name class 0"):
            models.load(f"{file}:one", labels=labels)
        labels.write_text("a")
        with pytest.raises(ValueError, match="has 3 classes, but 1 label was given"):
            models.load(f"{file}:build", labels=labels)

    @pytest.mark.parametrize(
        ("function", "error", "message"),
        [
            ("biuld", ValueError, "no function 'biuld'; did you mean build"),
            ("broken", ValueError, "broken failed with KeyError: 'the weights'"),
            ("number", TypeError, r"returned a int, expected a torch\.nn\.Module"),
            ("training", ValueError, r"training mode, expected return model\.eval\(\)"),
            ("image_out", ValueError, r"returned a tensor \(1, 3, 224, 224\), expected logits \(B, N\)"),
        ],
    )
    def test_functions_that_do_not_work(self, write, function, error, message):
        with pytest.raises(error, match=message):
            models.load(f"{write()}:{function}")

    @pytest.mark.parametrize(
        "returned", ["'text'", "torch.zeros(1, 3, 8, 8)", "torch.zeros(3, 8, 8, dtype=torch.uint8)"]
    )
    def test_a_preprocessing_that_does_not_work(self, write, returned):
        with pytest.raises(ValueError, match=r"expected a float tensor \(C, H, W\)"):
            models.load(f"{write(f'{chr(10)}def preprocess(image):{chr(10)}    return {returned}')}:build")

    def test_files_that_do_not_work(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="no such Python file"):
            models.load(f"{tmp_path / 'nowhere.py'}:build")
        (tmp_path / "wrong.py").write_text("import nothing_of_the_kind")
        with pytest.raises(
            ValueError, match="failed with ModuleNotFoundError: No module named 'nothing_of_the_kind'"
        ):
            models.load(f"{tmp_path / 'wrong.py'}:build")

    def test_a_real_one(self, shared):
        loaded = models.load(f"{shared / 'models' / 'imagenet_resnet34.py'}:build")
        assert loaded.class_index("Great white shark") == 2
        low, high = loaded.bounds  # (0 - mean) / 256 and (255 - mean) / 256, from its source
        assert low.tolist() == pytest.approx([-122.782 / 256, -117.001 / 256, -104.298 / 256], abs=1e-7)
        assert high.tolist() == pytest.approx([132.218 / 256, 137.999 / 256, 150.702 / 256], abs=1e-7)


class Small(nn.Module):
    def __init__(self, classes=3):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, classes)

    def forward(self, x):
        return self.fc(self.conv(x).relu().mean((2, 3)))


def exported(path, module, example, **options):
    torch.export.save(torch.export.export(module.eval(), example, **options), path)
    return path


@pytest.mark.parametrize("where", ["on top", "inside"])
def test_a_file_that_imports_torchvision_itself(tmp_path, where):
    """In a process of its own: here torchvision is loaded already, by clarp's own import that cures it."""
    line = "import torchvision\n"
    inside = f"    {line}" if where == "inside" else ""
    source = "from torch import nn\ndef build():\n" + inside
    source += "    return nn.Sequential(torchvision.ops.Conv2dNormActivation(3, 4), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()\n"
    (tmp_path / "net.py").write_text(source if where == "inside" else line + source)
    program = (
        f"from clarp import models; print(len(models.load({str(tmp_path / 'net.py')!r} + ':build').labels))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout == "4\n", done.stderr


class TestProgram:
    def test_a_program_of_one_size(self, tmp_path):
        module = Small()
        batch = {"x": {0: torch.export.Dim("batch")}}
        path = exported(tmp_path / "m.pt2", module, (torch.rand(2, 3, 40, 64),), dynamic_shapes=batch)
        loaded = models.load(str(path))
        x = loaded.preprocess(Image.effect_noise((100, 90), 50).convert("RGB"))
        assert x.shape == (3, 40, 64)
        torch.testing.assert_close(loaded.module.module()(x[None]), module(x[None]))
        assert loaded.labels == ("class 0", "class 1", "class 2")
        assert "40 x 64" in loaded.notes[0]
        assert (
            loaded.weights_sha256() == models.Classifier("", module, (), loaded.preprocess).weights_sha256()
        )

    def test_a_program_of_any_size_gets_224(self, tmp_path):
        sizes = {"x": {2: torch.export.Dim("h", min=4), 3: torch.export.Dim("w", min=4)}}
        path = exported(tmp_path / "m.pt2", Small(1000), (torch.rand(1, 3, 40, 64),), dynamic_shapes=sizes)
        loaded = models.load(str(path))
        assert loaded.preprocess(Image.new("RGB", (100, 90))).shape == (3, 224, 224)
        assert loaded.labels[281] == "tabby"

    def test_programs_that_do_not_work(self, tmp_path, caplog):
        path = exported(tmp_path / "m.pt2", nn.Conv2d(3, 3, 1), (torch.rand(1, 3, 8, 8),))
        with pytest.raises(ValueError, match=r"expected a program from one tensor \(B, C, H, W\) to logits"):
            models.load(str(path))
        (tmp_path / "text.pt2").write_text("text")
        with pytest.raises(ValueError, match=r"not a program that torch\.export\.save wrote"):
            models.load(str(tmp_path / "text.pt2"))
        # torch.export logs a traceback of its own
        assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
        with pytest.raises(FileNotFoundError, match="no such model file"):
            models.load(str(tmp_path / "nowhere.pt2"))
        with pytest.raises(ValueError, match="has its weights inside"):
            models.load(str(path), weights=path)
