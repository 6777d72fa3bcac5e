"""Files of `clarp export`: they run without clarp, say what they are, and `clarp explain` reads them."""

import json
import subprocess
import sys
import zipfile
from contextlib import nullcontext
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import clarp
from clarp import models
from clarp.cli import main
from clarp.exporting import writing
from clarp.exporting.about import KEY
from clarp.exporting.file import ExplainedFile
from clarp.models import imagenet
from clarp.models.classifier import Classifier

SIDE = 24
LABELS = ("ant", "bee", "cow", "dog")
WITHOUT_CLARP = """
import sys
for name in ("clarp", "torchvision"):
    sys.modules[name] = None
import numpy as np
given = np.load(sys.argv[2])
if sys.argv[1].endswith(".pt2"):
    import torch
    module = torch.export.load(sys.argv[1]).module()
    run = lambda *given: [value.numpy() for value in module(*map(torch.from_numpy, given))]
else:
    sys.modules["torch"] = None
    import onnxruntime
    session = onnxruntime.InferenceSession(sys.argv[1])
    run = lambda x, t: session.run(["logits", "heatmap", "lost"], {"images": x, "target": t})
found = [run(given["images"][:count], given["target"][:count]) for count in (1, 3, 8)]
np.savez(sys.argv[3], *(value for values in found for value in values))
"""


class Net(nn.Module):
    """Poolings of every kind, a residual sum, a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.most, self.mean = nn.MaxPool2d(3, 2, 1), nn.AvgPool2d(2, padding=1)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.last, self.head = nn.AdaptiveAvgPool2d(3), nn.Linear(72, len(LABELS))

    def forward(self, x: Tensor) -> Tensor:
        x = self.most(torch.relu(self.norm(self.first(x))))
        x = self.mean(x + torch.relu(self.second(x)))
        return self.head(self.last(x).flatten(1))


def classifier() -> Classifier:
    torch.manual_seed(0)
    preprocess = imagenet.preprocessing((SIDE, SIDE))
    return Classifier("toy", Net().eval(), LABELS, preprocess, ("weights: random",), "multiclass")


def explainer(method: str = "ssglrp") -> clarp.Explainer:
    made = classifier()
    return clarp.Explainer(made.module, method, bounds=made.bounds, labels=made.labels, task=made.task)


def images(count: int = 3) -> Tensor:
    return torch.randn(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files explain of one target and several of three with rivals, as .pt2 and as .onnx, and a photo."""
    path = tmp_path_factory.mktemp("exported")
    for name, options in (("explain", {}), ("several", {"targets": 3, "against": True})):
        for suffix in (".pt2", ".onnx"):
            clarp.export(
                explainer(), path / f"{name}{suffix}", (3, SIDE, SIDE), classifier=classifier(), **options
            )
    pixels = np.random.default_rng(0).integers(0, 256, (40, 52, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path / "photo.png")
    return path


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    path = tmp_path_factory.mktemp("own")
    (path / "toy.py").write_text(
        "import torch\nfrom torch import nn\n\n"
        "def build():\n    torch.manual_seed(0)\n"
        "    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),"
        " nn.Linear(6, 3)).eval()\n\nlabels = ['ant', 'bee', 'cow']\n"
    )
    return path


@cache
def opened(path: Path) -> ExplainedFile:
    """A file whose program is loaded once."""
    return ExplainedFile.open(path)


def apart(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max())


@pytest.mark.parametrize("suffix", [".pt2", ".onnx"])
def test_it_runs_without_clarp(folder, tmp_path, suffix):
    target = torch.arange(8) % len(LABELS)
    np.savez(tmp_path / "given.npz", images=images(8).numpy(), target=target.numpy())
    files = (folder / f"explain{suffix}", tmp_path / "given.npz", tmp_path / "found.npz")
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_CLARP, *map(str, files)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = [torch.from_numpy(value) for value in np.load(tmp_path / "found.npz").values()]
    for count, (logits, heatmap, lost) in zip((1, 3, 8), zip(*[iter(found)] * 3, strict=True), strict=True):
        expected = explainer()(images(8)[:count], target=target[:count])
        assert heatmap.shape == (count, SIDE, SIDE)
        assert lost.shape == (count,)
        # Another process computes on other threads, and so not to the last bit.
        assert apart(logits, expected.logits) < 1e-5
        assert apart(heatmap, expected.heatmap) < 1e-5


def test_openvino_gives_the_same(folder):
    compiled = openvino.compile_model(folder / "explain.onnx", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    target = torch.tensor([0, 1, 3])
    found = compiled({"images": images().numpy(), "target": target.numpy()})
    expected = explainer()(images(), target=target)
    assert apart(torch.from_numpy(found["logits"]), expected.logits) < 1e-5
    assert apart(torch.from_numpy(found["heatmap"]), expected.heatmap) < 1e-4


class Squares(nn.Module):
    """Dense layers as wide as they are high, on tokens and on vectors, and such a convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.patches, self.mixed = nn.Conv2d(3, width, 3, 3), nn.Conv2d(width, width, 1)
        self.tokens, self.hidden = nn.Linear(width, width), nn.Linear(width, width)
        self.head = nn.Linear(width, len(LABELS))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.mixed(torch.relu(self.patches(x)))).flatten(2).mT
        x = torch.relu(self.tokens(x)).mean(1)
        return self.head(torch.relu(self.hidden(x)))


@pytest.mark.parametrize("composite", ["epsilon", pytest.param("zplus-box", marks=pytest.mark.slow)])
def test_openvino_reads_square_weights_rightly(tmp_path, composite):
    torch.manual_seed(0)
    square = clarp.Explainer(Squares(40).eval(), "lrp", composite=composite, bounds=(0.0, 1.0))
    clarp.export(square, tmp_path / "square.onnx", (3, 6, 6))
    compiled = openvino.compile_model(tmp_path / "square.onnx", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    x, target = images()[:, :, :6, :6].sigmoid(), torch.tensor([0, 1, 3])
    found = compiled({"images": x.numpy(), "target": target.numpy()})
    expected = square(x, target=target)
    assert apart(torch.from_numpy(found["logits"]), expected.logits) < 1e-5
    assert apart(torch.from_numpy(found["heatmap"]), expected.heatmap) < 1e-4


@pytest.mark.parametrize("suffix", [".pt2", ".onnx"])
def test_nonsense_gives_nan_and_never_a_map(folder, suffix):
    file = opened(folder / f"explain{suffix}")
    x = images(4)
    x[1, 0, 3, 3], x[2, 2, 5, 5] = float("nan"), float("inf")
    _, heatmap, lost = file(x, torch.tensor([0, 1, 2, -1]))
    assert heatmap[0].isfinite().all()
    assert heatmap[1:].isnan().all()
    assert lost[1:].tolist() == [1, 1, 1]
    _, heatmap, lost = file(images(1), torch.tensor([len(LABELS)]))
    assert heatmap.isnan().all()
    assert lost.tolist() == [1]


@pytest.mark.parametrize("suffix", [".pt2", ".onnx"])
def test_nonsense_in_a_batch_spoils_its_own_maps_alone(folder, suffix):
    """Every other map is that of the same image and target without nonsense beside them."""
    file = opened(folder / f"several{suffix}")
    clean, count = images(6), len(LABELS)
    x = clean.clone()
    x[1, 0, 3, 3], x[2, 2, 5, 5] = float("nan"), -float("inf")
    good = torch.tensor([[0, 1, 2]] * 6)
    target, rivals = good.clone(), torch.zeros(6, count, dtype=torch.bool)
    target[3], target[4, 1] = torch.tensor([-1, 1, 2**62]), count
    rivals[5, 1], rivals[0, 3] = True, True  # of image 5, the second target is its own only rival
    spoilt = torch.zeros(6, 3, dtype=torch.bool)
    spoilt[1:3], spoilt[3, [0, 2]], spoilt[4, 1], spoilt[5, 1] = True, True, True, True
    _, heatmap, lost = file(x, target, rivals)
    assert torch.equal(heatmap.isnan().flatten(2).all(2), spoilt)
    assert torch.equal(heatmap.isfinite().flatten(2).all(2), ~spoilt)
    assert bool((lost[spoilt] == 1).all())
    rivals[5] = False
    rivals[5, 3] = True  # none of its targets
    _, expected, kept = file(clean, good, rivals)
    assert bool(expected.isfinite().all())
    same = ~spoilt
    same[5] = False  # its rivals are others now
    assert apart(heatmap[same], expected[same]) < 1e-6
    assert apart(lost[same], kept[same]) < 1e-6


@pytest.mark.parametrize("suffix", [".pt2", ".onnx"])
def test_a_batch_of_nonsense_alone(folder, suffix):
    file = opened(folder / f"several{suffix}")
    target = torch.tensor([[len(LABELS), -1, -(2**63)], [2**63 - 1, 99, 4]])
    _, heatmap, lost = file(images(2), target, torch.zeros(2, len(LABELS), dtype=torch.bool))
    assert heatmap.shape == (2, 3, SIDE, SIDE)
    assert bool(heatmap.isnan().all())
    assert lost.tolist() == [[1.0] * 3] * 2


def test_several_targets_and_rivals(folder):
    file = ExplainedFile.open(folder / "several.onnx")
    target = torch.tensor([[0, 1, 2], [3, 2, 1]])
    rivals = torch.tensor([[False, False, False, True], [True, False, False, False]])
    logits, heatmap, lost = file(images(2), target, rivals)
    expected = explainer()(images(2), target=target, against=torch.tensor([[3], [0]]))
    assert apart(heatmap, expected.heatmap) < 1e-5
    assert (logits.shape, lost.shape) == ((2, 4), (2, 3))


@pytest.mark.parametrize("suffix", [".pt2", ".onnx"])
def test_it_says_what_it_is(folder, suffix):
    about = ExplainedFile.open(folder / f"explain{suffix}").about
    assert (about.model, about.method, about.composite) == ("toy", "ssglrp", "zplus-box")
    assert (about.task, about.labels, about.classes) == ("multiclass", LABELS, 4)
    assert (about.input_shape, about.targets, about.against, about.half) == (
        (3, SIDE, SIDE),
        None,
        False,
        False,
    )
    assert about.weights_sha256 == classifier().weights_sha256()
    assert about.preprocessing["size"] in ([SIDE, SIDE], (SIDE, SIDE))
    assert set(about.versions) == {"clarp", "torch"}
    assert about.low is not None
    assert len(about.low) == 3


def test_inputs_and_outputs_have_their_names(folder):
    session = onnxruntime.InferenceSession(folder / "explain.onnx")
    assert [(v.name, v.shape, v.type) for v in session.get_inputs()] == [
        ("images", ["batch", 3, SIDE, SIDE], "tensor(float)"),
        ("target", ["batch"], "tensor(int64)"),
    ]
    assert [v.name for v in session.get_outputs()] == ["logits", "heatmap", "lost"]


def test_weights_are_stored_once(tmp_path):
    torch.manual_seed(0)
    wide = nn.Sequential(
        nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Conv2d(64, 512, 3), nn.ReLU(), nn.Conv2d(512, 256, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(256, 10),
    ).eval()  # fmt: skip
    weights = sum(4 * value.numel() for value in wide.state_dict().values())
    sizes = {}
    for name, half in (("whole.pt2", False), ("whole.onnx", False), ("half.pt2", True), ("half.onnx", True)):
        clarp.export(clarp.Explainer(wide), tmp_path / name, (3, 16, 16), half=half)
        sizes[name] = (tmp_path / name).stat().st_size / weights
    assert max(sizes["whole.pt2"], sizes["whole.onnx"]) < 1.15
    assert max(sizes["half.pt2"], sizes["half.onnx"]) < 0.6


class TestTheCommandLine:
    """`clarp export`, and `clarp explain` by what it wrote."""

    def run(self, *arguments: object) -> int:
        with pytest.raises(SystemExit) as ending:
            main([str(argument) for argument in arguments])
        return int(ending.value.code or 0)

    def test_export_and_explain(self, own, folder, tmp_path, capsys):
        file = tmp_path / "toy.onnx"
        model = f"{own / 'toy.py'}:build"
        assert self.run("export", "--model", model, "--size", 32, "--out", file, "--json") == 0
        told = json.loads(capsys.readouterr().out)
        assert (told["input_shape"], told["method"], told["bytes"]) == (
            [3, 32, 32],
            "ssglrp",
            file.stat().st_size,
        )
        photo, out = folder / "photo.png", tmp_path / "out"
        assert self.run("explain", photo, "--model", file, "--target", "bee,cow", "--out", out, "--json") == 0
        manifest = json.loads(capsys.readouterr().out)
        (entry,) = manifest["photos"]
        assert [one["target"]["label"] for one in entry["explanations"]] == ["bee", "cow"]
        assert manifest["method"]["name"] == "ssglrp"
        assert manifest["model"]["weights_sha256"] == told["weights_sha256"]
        written = np.load(out / entry["explanations"][0]["relevance"])
        explained = models.load(str(file))
        image = explained.preprocess(Image.open(photo).convert("RGB"))[None]
        module = models.load(model).module
        expected = clarp.Explainer(module, bounds=explained.bounds)(image, target=1).heatmap
        assert written.shape == (1, 32, 32)
        assert apart(torch.from_numpy(written), expected) < 1e-5

    @pytest.mark.parametrize("name", ["explain.pt2", "several.onnx"])
    def test_every_kind_of_file_explains_the_top_class(self, folder, tmp_path, name, capsys):
        code = self.run(
            "explain", folder / "photo.png", "--model", folder / name, "--out", tmp_path, "--json"
        )
        entry = json.loads(capsys.readouterr().out)["photos"][0]
        assert code == 0
        assert entry["explanations"][0]["target"] == entry["predictions"][0]
        assert (tmp_path / entry["explanations"][0]["overlay"]).is_file()

    def test_rivals(self, folder, tmp_path, capsys):
        asked = ("--target", "ant", "--against", "cow,dog", "--out", tmp_path)
        photo = folder / "photo.png"
        assert self.run("explain", photo, "--model", folder / "several.onnx", *asked, "--json") == 0
        entry = json.loads(capsys.readouterr().out)["photos"][0]["explanations"][0]
        assert [rival["label"] for rival in entry["against"]] == ["cow", "dog"]
        assert self.run("explain", photo, "--model", folder / "explain.onnx", *asked) == 2
        assert "was exported without rivals" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("command", "message"),
        [
            (("explain", "PHOTO", "--method", "lrp"), "explains by ssglrp"),
            (("explain", "PHOTO", "--layers", "first"), "the map of the pixels alone"),
            (("explain", "PHOTO", "--engine", "onnxruntime"), "is a program that computes by itself"),
            (("explain", "PHOTO", "--engine", "tensorrt"), "expected one of torch, onnxruntime"),
            (("serve", "--engine", "tensorrt"), "expected one of torch, onnxruntime"),
            (("explain", "PHOTO", "--task", "multilabel"), "was exported for 'multiclass'"),
            (("explain", "PHOTO", "--weights", "x.pt"), "has its weights inside"),
            (("compare", "PHOTO"), "`clarp explain --model` takes it"),
            (("plan", "FILE"), "`clarp explain --model` takes it"),
            (("export",), "`clarp explain --model` takes it"),
        ],
    )
    def test_what_a_file_cannot_do(self, folder, command, message, capsys):
        named = {"PHOTO": folder / "photo.png", "FILE": folder / "explain.pt2"}
        words = [named.get(word, word) for word in command]
        words += [] if "FILE" in command else ["--model", named["FILE"]]
        assert self.run(*words) == 2
        assert message in " ".join(capsys.readouterr().err.split())

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (("--out", "explain.txt"), "ends in .pt2 or .onnx"),
            (("--out", "nowhere/explain.onnx"), "there is no folder"),
            (("--out", "folder.onnx"), "is a folder"),
            (("--method", "lrp", "--against"), "has no rivals"),
            (("--task", "binary"), "the task is binary"),
            (("--method", "gradcam"), "no method of clarp's"),
        ],
    )
    def test_export_refuses(self, own, options, message, capsys, monkeypatch):
        monkeypatch.chdir(own)
        (own / "folder.onnx").mkdir(exist_ok=True)
        assert self.run("export", "--model", "toy.py:build", *options) == 2
        said = " ".join(capsys.readouterr().err.split())
        assert message in said
        assert "recording" not in said
        assert not (own / "explain.onnx").exists()

    def test_export_without_what_writes_onnx(self, own, capsys, monkeypatch):
        monkeypatch.chdir(own)
        monkeypatch.setitem(sys.modules, "onnxscript", None)
        assert self.run("export", "--model", "toy.py:build") == 2
        said = capsys.readouterr().err
        assert "needs onnxscript, which is not installed" in said
        assert "recording" not in said

    def test_an_engine_explains_the_same(self, own, folder, tmp_path, capsys, monkeypatch):
        monkeypatch.setenv("CLARP_CACHE", str(tmp_path / "cache"))
        asked = ("explain", folder / "photo.png", "--model", f"{own / 'toy.py'}:build", "--target", "bee,cow")
        maps, notes = [], []
        for name, engine in (("a", "torch"), ("b", "onnxruntime"), ("c", "onnxruntime")):
            out = tmp_path / name
            assert self.run(*asked, "--method", "lrp", "--engine", engine, "--out", out, "--json") == 0
            told = capsys.readouterr()
            files = [one["relevance"] for one in json.loads(told.out)["photos"][0]["explanations"]]
            maps.append(torch.from_numpy(np.stack([np.load(out / file) for file in files])))
            notes.append("recording the backward pass" in told.err)
        assert notes == [False, True, False]
        assert apart(maps[1], maps[0]) < 1e-3
        assert torch.equal(maps[1], maps[2])


class TestDamage:
    """Files that are not what they say."""

    def test_a_plain_onnx_model(self, folder, tmp_path):
        model = onnx.load(folder / "explain.onnx")
        del model.metadata_props[:]
        onnx.save(model, tmp_path / "plain.onnx")
        with pytest.raises(ValueError, match="a model without an explanation"):
            models.load(str(tmp_path / "plain.onnx"))

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda told: told.pop("labels"), "is damaged"),
            (lambda told: told.update(format=2), "another version of clarp"),
            (lambda told: told.update(classes=7), "contradicts itself"),
            (lambda told: told.update(input_shape=[3, -1, 2]), "contradicts itself"),
            (lambda told: told.update(task="guess"), "contradicts itself"),
        ],
    )
    def test_a_wrong_description(self, folder, tmp_path, change, message):
        model = onnx.load(folder / "explain.onnx")
        (entry,) = (entry for entry in model.metadata_props if entry.key == KEY)
        told = json.loads(entry.value)
        change(told)
        entry.value = json.dumps(told)
        onnx.save(model, tmp_path / "wrong.onnx")
        with pytest.raises(ValueError, match=message):
            models.load(str(tmp_path / "wrong.onnx"))

    @pytest.mark.parametrize("suffix", [".pt2", ".onnx"])
    @pytest.mark.filterwarnings("ignore::ResourceWarning")
    def test_half_of_a_file(self, folder, tmp_path, suffix):
        data = (folder / f"explain{suffix}").read_bytes()
        file = tmp_path / f"half{suffix}"
        file.write_bytes(data[: len(data) // 2])
        with pytest.raises(ValueError, match=r"not a (program|model)"):
            models.load(str(file))

    def test_a_missing_one(self):
        with pytest.raises(FileNotFoundError, match="no such model file"):
            models.load("nowhere.onnx")

    def test_a_damaged_description_of_a_program(self, folder, tmp_path):
        with (
            zipfile.ZipFile(folder / "explain.pt2") as archive,
            zipfile.ZipFile(tmp_path / "x.pt2", "w") as new,
        ):
            for name in archive.namelist():
                text = b"{" if name.endswith(f"{KEY}.json") else archive.read(name)
                new.writestr(name, text)
        with pytest.raises(ValueError, match="is damaged"):
            models.load(str(tmp_path / "x.pt2"))


class TestRefusals:
    """What can't be exported is said before anything is written."""

    @pytest.mark.parametrize(
        ("made", "options", "error", "message"),
        [
            (lambda: clarp.Explainer(Net().double().eval()), {}, ValueError, "computes in torch.float64"),
            (lambda: clarp.Explainer(Net()), {}, ValueError, "train"),
            (
                lambda: clarp.Explainer(Net().eval(), clarp.Method(clarp.seeds.Vector(torch.ones(4)))),
                {},
                ValueError,
                "Vector",
            ),
            (lambda: clarp.Explainer(Net().eval(), "lrp"), {"against": True}, ValueError, "no rivals"),
            (lambda: clarp.Explainer(Net().eval()), {"targets": 0}, ValueError, "targets is 0"),
            (lambda: clarp.Explainer(Net().eval()), {"targets": True}, ValueError, "targets is True"),
        ],
    )
    def test_it_is_refused(self, tmp_path, made, options, error, message):
        with pytest.raises(error, match=message):
            clarp.export(made(), tmp_path / "explain.pt2", (3, SIDE, SIDE), **options)
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize(("half", "fits"), [(False, False), (True, True)])
    def test_weights_that_onnx_cannot_hold(self, tmp_path, monkeypatch, half, fits):
        weights = sum(4 * value.numel() for value in Net().state_dict().values())
        monkeypatch.setattr(writing, "LARGEST", 0.75 * weights)
        with nullcontext() if fits else pytest.raises(ValueError, match="expected less than 2"):
            clarp.export(explainer(), tmp_path / "explain.onnx", (3, SIDE, SIDE), half=half)

    def test_a_binary_task_has_no_choice_of_rivals(self, tmp_path):
        net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 22 * 22, 1)).eval()
        with pytest.raises(ValueError, match="each other's only rivals"):
            clarp.export(
                clarp.Explainer(net, "clarp", task="binary"),
                tmp_path / "x.pt2",
                (3, SIDE, SIDE),
                against=True,
            )

    def test_without_onnx_it_says_what_to_install(self, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "onnxscript", None)
        with pytest.raises(ModuleNotFoundError, match=r"clarp\[onnx\]"):
            clarp.export(explainer(), tmp_path / "explain.onnx", (3, SIDE, SIDE))
