"""The command line with the real engine: on the demo photo, and on small models where only the handling counts."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from clarp import __version__
from clarp.cli import main
from clarp.manifest import percent
from clarp.method import Method, methods
from clarp.models import Classifier
from clarp.render.styles import smoothed
from clarp.session import Session

DEMO = Path(str(resources.files("clarp") / "assets" / "cat_and_coffee.jpg"))

TOY = """
import torch
from torch import nn

print("noise on standard output")

def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)).eval()

def several():
    class Several(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = build()
        def forward(self, x):
            return {"scores": self.inner(x), "twice": self.inner(x) * 2}
    return Several().eval()

class Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = build()
    def forward(self, x):
        return {"features": x.mean((2, 3)), "logits": self.inner(x)}

def named():
    return Named().eval()

def lossy():
    model = build()
    with torch.no_grad():
        model[0].weight.copy_(-model[0].weight.abs())
        model[0].bias.fill_(100.0)
    return model

class Summed(nn.Module):
    def forward(self, x):
        return x.cumsum(1)

def unsupported():
    return nn.Sequential(nn.Flatten(), nn.Linear(768, 4), Summed()).eval()

def labels():
    return ["ant", "bee", "cow", "dog, hound"]

def preprocess(image):
    if image.size == (13, 13):
        raise RuntimeError("unlucky size")
    if image.size == (12, 12):
        raise KeyboardInterrupt
    if image.size == (14, 14):
        return torch.full((3, 16, 16), torch.nan)
    side = 24 if image.size == (24, 24) else 16
    pixels = torch.frombuffer(bytearray(image.resize((side, side)).tobytes()), dtype=torch.uint8)
    return pixels.view(side, side, 3).permute(2, 0, 1) / 255
"""


def clarp(*arguments):
    """Run the command line in this process, and return its exit code."""
    with pytest.raises(SystemExit) as ending:
        main([str(argument) for argument in arguments])
    return ending.value.code or 0


def noise(path, size=(16, 16), seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def manifest_of(folder):
    return json.loads((folder / "manifest.json").read_text())


@pytest.fixture
def toy(tmp_path):
    path = tmp_path / "toy.py"
    path.write_text(TOY)
    return f"{path}:build"


@pytest.fixture
def photos(tmp_path):
    """Three photos, two of them with the same file name."""
    folder = tmp_path / "photos"
    for seed, name in enumerate(["a/one.png", "b/one.png", "two.png"]):
        noise(folder / name, seed=seed)
    return folder


class TestTheMainJob:
    @pytest.fixture(scope="class")
    @classmethod
    def out(cls, tmp_path_factory):
        out = tmp_path_factory.mktemp("demo")
        both = "Egyptian cat,espresso"
        command = ["explain", DEMO, "--target", both, "--against", both, "--method", "sglrp", "--out", out]
        run = subprocess.run(
            [sys.executable, "-m", "clarp", *map(str, command)],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        assert run.returncode == 0, run.stderr
        (out / "stdout.txt").write_text(run.stdout)
        return out

    def test_the_report_has_the_predictions_and_what_was_explained_against_what(self, out):
        report = (out / "stdout.txt").read_text()
        assert "31.9%  Egyptian cat (285)" in report
        assert "18.8%  espresso (967)" in report
        assert f"Egyptian cat against espresso: {out / 'cat_and_coffee.285-egyptian-cat.sglrp.png'}" in report
        assert "espresso against Egyptian cat" in report

    def test_the_cat_is_seen_in_the_upper_half_and_the_coffee_in_the_lower(self, out):
        for name, half in [("285-egyptian-cat", slice(0, 112)), ("967-espresso", slice(112, 224))]:
            relevance = np.load(out / f"cat_and_coffee.{name}.sglrp.npy")
            assert relevance.shape == (3, 224, 224)
            assert relevance.dtype == np.float32
            positive = relevance.sum(0).clip(min=0)
            assert positive[half].sum() > 0.9 * positive.sum()

    def test_the_pictures_can_be_opened(self, out):
        for name in ["285-egyptian-cat", "967-espresso"]:
            with Image.open(out / f"cat_and_coffee.{name}.sglrp.png") as picture:
                assert picture.width > 900

    def test_the_manifest_says_everything(self, out):
        manifest = manifest_of(out)
        assert manifest["command"].startswith("clarp explain ")
        assert manifest["versions"]["torch"] == torch.__version__
        assert manifest["model"]["name"] == "efficientnet-lite0"
        assert len(manifest["model"]["weights_sha256"]) == 64
        assert manifest["method"]["name"] == "sglrp"
        assert "SoftmaxGradient" in manifest["method"]["definition"]
        assert manifest["composite"]["name"] == "zplus-scaled-box"
        assert manifest["bounds"]["source"].startswith("measured")
        assert manifest["bounds"]["low"] == pytest.approx([-127 / 128] * 3)
        assert manifest["failed"] == []
        (photo,) = manifest["photos"]
        assert photo["sha256"] == hashlib.sha256(DEMO.read_bytes()).hexdigest()
        assert [p["label"] for p in photo["predictions"][:2]] == ["Egyptian cat", "espresso"]
        cat, coffee = photo["explanations"]
        assert (cat["target"]["class"], cat["against"][0]["class"]) == (285, 967)
        assert (coffee["target"]["class"], coffee["against"][0]["class"]) == (967, 285)
        assert cat["ledger"]["seed"] == pytest.approx(0, abs=1e-6)
        assert set(cat["ledger"]) == {"seed", "pixels", "selection", "bias", "epsilon"}
        for explanation in photo["explanations"]:
            assert (out / explanation["overlay"]).is_file()
            assert (out / explanation["relevance"]).is_file()

    def test_nothing_half_written_is_left(self, out):
        assert not list(out.glob("*.tmp")) + list(out.glob(".*"))


class TestManyPhotos:
    def test_the_same_name_in_two_folders(self, tmp_path, photos, toy):
        out = tmp_path / "out"
        assert clarp("explain", photos, "--model", toy, "--target", "ant,cow", "--out", out) == 0
        manifest = manifest_of(out)
        assert [Path(p["file"]).relative_to(photos).as_posix() for p in manifest["photos"]] == [
            "a/one.png",
            "b/one.png",
            "two.png",
        ]
        written = [
            e[kind]
            for p in manifest["photos"]
            for e in p["explanations"]
            for kind in ("overlay", "relevance")
        ]
        assert len(set(written)) == 12
        assert sorted([*written, "manifest.json"]) == sorted(path.name for path in out.iterdir())
        first, second = (np.load(out / p["explanations"][0]["relevance"]) for p in manifest["photos"][:2])
        assert not np.array_equal(first, second)

    def test_batches_change_nothing(self, tmp_path, photos, toy):
        results = []
        for size in (1, 2, 8):
            out = tmp_path / f"out{size}"
            assert clarp("explain", photos, "--model", toy, "--batch-size", size, "--out", out) == 0
            results.append(
                [np.load(out / p["explanations"][0]["relevance"]) for p in manifest_of(out)["photos"]]
            )
        for other in results[1:]:
            for ours, theirs in zip(results[0], other, strict=True):
                np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-9)

    def test_photos_of_two_sizes_after_preprocessing(self, tmp_path, photos, toy):
        noise(photos / "three.png", size=(24, 24))
        out = tmp_path / "out"
        assert clarp("explain", photos, "--model", toy, "--out", out) == 0
        shapes = [np.load(out / p["explanations"][0]["relevance"]).shape for p in manifest_of(out)["photos"]]
        assert shapes == [(3, 16, 16), (3, 16, 16), (3, 24, 24), (3, 16, 16)]

    def test_broken_photos_are_reported_and_the_others_done(self, tmp_path, photos, toy, capsys):
        (photos / "text.jpg").write_text("not a photo")
        (photos / "empty.jpg").touch()
        jpeg = photos / "truncated.jpg"
        Image.effect_noise((200, 200), 50).save(jpeg)
        jpeg.write_bytes(jpeg.read_bytes()[:3000])
        noise(photos / "unlucky.png", size=(13, 13))
        noise(photos / "nan.png", size=(14, 14))
        out = tmp_path / "out"
        assert clarp("explain", photos, "--model", toy, "--out", out) == 1
        manifest = manifest_of(out)
        assert len(manifest["photos"]) == 3
        reasons = {Path(entry["file"]).name: entry["error"] for entry in manifest["failed"]}
        expected = {
            "text.jpg": "not a picture",
            "empty.jpg": "empty",
            "truncated.jpg": "truncated",
            "unlucky.png": "preprocessing failed with RuntimeError: unlucky size",
            "nan.png": "NaN",
        }
        assert set(reasons) == set(expected)
        errors = capsys.readouterr().err
        for name, reason in expected.items():
            assert reason in reasons[name]
            assert f"clarp: skipped {photos / name}: " in errors
        assert "Traceback" not in errors

    def test_a_photo_whose_top_class_is_its_only_rival(self, tmp_path, photos, toy):
        out = tmp_path / "out"
        clarp("explain", photos / "two.png", "--model", toy, "--out", out)
        top = manifest_of(out)["photos"][0]["predictions"][0]["class"]
        assert clarp("explain", photos / "two.png", "--model", toy, "--against", top, "--out", out) == 1
        assert "nobody is left to be a rival" in manifest_of(out)["failed"][0]["error"]

    def test_methods_without_rivals(self, tmp_path, photos, toy, capsys):
        out = tmp_path / "out"
        assert clarp("explain", photos / "two.png", "--model", toy, "--method", "lrp", "--out", out) == 0
        (explanation,) = manifest_of(out)["photos"][0]["explanations"]
        assert explanation["against"] == "nothing: the method has no rivals"
        assert "against all" not in capsys.readouterr().out

    def test_an_exported_program(self, tmp_path, photos, capsys):
        module = torch.nn.Sequential(
            torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(4 * 36, 3)
        ).eval()
        program = torch.export.export(
            module, (torch.rand(2, 3, 8, 8),), dynamic_shapes=({0: torch.export.Dim("batch")},)
        )
        torch.export.save(program, tmp_path / "model.pt2")
        assert (
            clarp(
                "explain", photos, "--model", tmp_path / "model.pt2", "--target", 2, "--out", tmp_path / "out"
            )
            == 0
        )
        manifest = manifest_of(tmp_path / "out")
        assert len(manifest["photos"]) == 3
        assert (
            "ImageNet's usual one was assumed (shorter side to 9, middle 8 x 8"
            in manifest["model"]["notes"][0]
        )
        said = capsys.readouterr().err
        assert f"clarp: note: {manifest['model']['notes'][0]}" in said
        assert all(line.startswith("clarp: ") for line in said.splitlines())

    def test_the_style_changes_the_picture_and_not_the_relevance(self, tmp_path, photos, toy):
        found = {}
        for style in ("overlay", "region"):
            out = tmp_path / style
            command = ["explain", photos / "two.png", "--model", toy, "--target", "ant", "--out", out]
            assert clarp(*command, "--style", style) == 0
            assert manifest_of(out)["look"]["style"] == style
            (explanation,) = manifest_of(out)["photos"][0]["explanations"]
            with Image.open(out / explanation["overlay"]) as picture:
                found[style] = picture.size, np.load(out / explanation["relevance"])
        assert found["overlay"][0] != found["region"][0]
        np.testing.assert_array_equal(found["overlay"][1], found["region"][1])

    def test_the_look_of_the_pictures(self, tmp_path, photos, toy):
        options = [
            "--colours",
            "bam",
            "--smoothing",
            "0.05",
            "--opacity",
            "0.5",
            "--size",
            "100",
            "--no-caption",
        ]
        out = tmp_path / "out"
        command = ["explain", photos / "two.png", "--model", toy, "--target", "ant", "--out", out, *options]
        assert clarp(*command) == 0
        manifest = manifest_of(out)
        look = {
            "style": "overlay",
            "colours": "bam",
            "smoothing": 0.05,
            "opacity": 0.5,
            "size": 100,
            "caption": False,
        }
        assert look.items() <= manifest["look"].items()
        assert "relevance of a pixel" in manifest["look"]["unit"]
        (explanation,) = manifest["photos"][0]["explanations"]
        with Image.open(out / explanation["overlay"]) as picture:
            assert max(picture.size) <= 100
        heatmap = smoothed(np.load(out / explanation["relevance"]).astype(float).sum(0), 0.05)
        assert explanation["scale"]["peak"] == pytest.approx(np.abs(heatmap).max())
        assert explanation["scale"]["full_colour"] == pytest.approx(np.percentile(np.abs(heatmap), 99.5))

    def test_two_classes_in_one_picture(self, tmp_path, photos, toy):
        out = tmp_path / "out"
        command = ["explain", photos / "two.png", "--model", toy, "--style", "versus", "--out", out]
        assert clarp(*command, "--target", "ant,bee") == 0
        explanations = manifest_of(out)["photos"][0]["explanations"]
        assert {one["overlay"] for one in explanations} == {"two.0-ant-vs-1-bee.ssglrp.png"}
        assert len({one["relevance"] for one in explanations}) == 2
        assert (out / "two.0-ant-vs-1-bee.ssglrp.png").is_file()

    @pytest.mark.parametrize("targets", [[], ["--target", "ant"], ["--target", "ant,bee,dog"]])
    def test_versus_needs_two_classes(self, tmp_path, photos, toy, targets, capsys):
        command = [
            "explain",
            photos / "two.png",
            "--model",
            toy,
            "--style",
            "versus",
            "--out",
            tmp_path / "out",
        ]
        assert clarp(*command, *targets) == 2
        assert "--style versus draws two classes at once, and --target names" in capsys.readouterr().err
        assert not (tmp_path / "out").exists()

    def test_the_whole_photo_is_drawn(self, tmp_path, toy):
        """A photo that is three times as wide as high, of which the toy sees a square."""
        Image.new("RGB", (900, 300), "grey").save(tmp_path / "wide.png")
        command = [
            "explain",
            tmp_path / "wide.png",
            "--model",
            toy,
            "--out",
            tmp_path / "out",
            "--no-caption",
        ]
        assert clarp(*command) == 0
        (explanation,) = manifest_of(tmp_path / "out")["photos"][0]["explanations"]
        with Image.open(tmp_path / "out" / explanation["overlay"]) as picture:
            assert picture.size == (900, 300)

    def test_composite_and_unused_bounds_are_recorded(self, tmp_path, photos, toy):
        out = tmp_path / "out"
        assert (
            clarp("explain", photos / "two.png", "--model", toy, "--composite", "epsilon-plus", "--out", out)
            == 0
        )
        manifest = manifest_of(out)
        assert manifest["composite"]["name"] == "epsilon-plus"
        assert manifest["bounds"] == {"source": "not used by this composite"}


class TestJson:
    def test_one_document_and_nothing_else(self, tmp_path, photos, toy, capsys):
        out = tmp_path / "out"
        assert clarp("explain", photos, "--model", toy, "--out", out, "--json") == 0
        printed = capsys.readouterr()
        assert json.loads(printed.out) == manifest_of(out)
        assert "noise on standard output" in printed.err

    def test_with_a_broken_photo(self, tmp_path, photos, toy, capsys):
        (photos / "text.jpg").write_text("not a photo")
        assert clarp("explain", photos, "--model", toy, "--out", tmp_path / "out", "--json") == 1
        document = json.loads(capsys.readouterr().out)
        assert (len(document["photos"]), len(document["failed"])) == (3, 1)

    @pytest.mark.parametrize("command", ["models", "methods"])
    def test_lists(self, command, capsys):
        assert clarp(command, "--json") == 0
        assert len(json.loads(capsys.readouterr().out)) >= 6

    def test_plan(self, toy, capsys):
        assert clarp("plan", toy, "--json") == 0
        rows = json.loads(capsys.readouterr().out)
        assert rows[0]["operation"] == "Convolution"
        assert "ZBox" in rows[0]["rule"]


class TestWrongArguments:
    """Exit code 2, one sentence on standard error, nothing on standard output, nothing written."""

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["nowhere.jpg"], "nowhere.jpg: no such file or folder"),
            (["PHOTO", "--model", "resnet5"], "unknown model 'resnet5'; the nearest names are resnet50"),
            (["PHOTO", "--model", "nowhere.py:build"], "no such Python file"),
            (
                ["PHOTO", "--model", "TOY", "--target", "doge"],
                "has no class 'doge'; the nearest names are 'dog, hound'",
            ),
            (["PHOTO", "--model", "TOY", "--target", "7"], "its 4 classes are 0 to 3"),
            (["PHOTO", "--model", "TOY", "--target", "ant,doge"], "has no class 'doge'"),
            (["PHOTO", "--model", "TOY", "--against", "-1"], "its 4 classes are 0 to 3"),
            (
                ["PHOTO", "--model", "TOY", "--target", "ant", "--against", "0"],
                "--target and --against are both 'ant'",
            ),
            (["PHOTO", "--model", "TOY", "--method", "ssglpr"], "unknown method 'ssglpr'"),
            (
                ["PHOTO", "--model", "TOY", "--method", "gradcam"],
                "`clarp compare PHOTO --methods gradcam,ssglrp` draws both",
            ),
            (["PHOTO", "--model", "TOY", "--method", "lrp", "--against", "ant"], "'lrp' has no rivals"),
            (
                ["PHOTO", "--model", "TOY", "--composite", "epsilon-minus"],
                "unknown composite 'epsilon-minus'",
            ),
            (["PHOTO", "--model", "TOY", "--style", "pie"], "style is 'pie', expected one of overlay"),
            (["PHOTO", "--model", "TOY", "--device", "abacus"], "--device abacus can't be used here"),
            (["PHOTO", "--model", "TOY", "--weights", "PHOTO"], "damaged"),
            (["PHOTO", "--model", "TOY", "--weights", "nowhere.pth"], "no such weights file"),
            (["PHOTO", "--model", "TOY", "--labels", "nowhere.txt"], "no such labels file"),
        ],
    )
    def test_one_sentence(self, tmp_path, photos, toy, capsys, *, arguments, message):
        names = {"PHOTO": str(photos / "two.png"), "TOY": toy}
        out = tmp_path / "out"
        assert clarp("explain", *[names.get(a, a) for a in arguments], "--out", out, "--json") == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        said = [line for line in printed.err.splitlines() if line != "noise on standard output"]
        assert len(said) == 1
        assert said[0].startswith("clarp: ")
        assert message in said[0]
        assert not out.exists()

    def test_a_model_with_an_operation_that_no_rule_covers(self, tmp_path, photos, toy, capsys):
        out = tmp_path / "out"
        spec = toy.replace(":build", ":unsupported")
        assert clarp("explain", photos, "--model", spec, "--out", out) == 2
        errors = capsys.readouterr().err
        assert "cumsum" in errors
        assert "Traceback" not in errors
        assert not (out / "manifest.json").exists()

    def test_an_empty_folder(self, tmp_path, capsys):
        assert clarp("explain", tmp_path) == 2
        assert "no photo in this folder" in capsys.readouterr().err

    def test_a_file_where_the_output_folder_should_be(self, tmp_path, photos, toy, capsys):
        (tmp_path / "out").touch()
        assert clarp("explain", photos, "--model", toy, "--out", tmp_path / "out") == 2
        assert "out" in capsys.readouterr().err

    @pytest.mark.parametrize(
        "arguments", [["explain"], ["explain", "x.jpg", "--batch-size", "0"], ["explode"]]
    )
    def test_what_the_parser_refuses(self, arguments):
        assert clarp(*arguments) == 2


class TestTheRest:
    def test_version(self, capsys):
        assert clarp("--version") == 0
        assert capsys.readouterr().out == f"clarp {__version__}\n"

    def test_help_names_every_command(self, capsys):
        assert clarp("--help") == 0
        text = capsys.readouterr().out
        assert all(command in text for command in ("explain", "models", "methods", "plan"))

    def test_models(self, capsys):
        assert clarp("models") == 0
        names = capsys.readouterr().out.split()
        assert names[0] == "efficientnet-lite0"
        assert {"vgg16", "resnet50"} < set(names)

    def test_methods(self, capsys):
        assert clarp("methods") == 0
        said = capsys.readouterr()
        when, made = said.out.split("\n\n")
        names = [line.split()[0] for line in when.splitlines() if not line.startswith(" ")]
        assert names == list(methods())
        assert [line.split()[0] for line in made.splitlines()] == ["name", *names]
        for name in names:
            assert Method.named(name).when in " ".join(when.split())
        assert max(map(len, when.splitlines())) <= 110
        assert "gradcam" in said.err

    def test_methods_for_programs(self, capsys):
        assert clarp("methods", "--json") == 0
        rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
        assert {name: row["when"] for name, row in rows.items()} == {
            name: Method.named(name).when for name in methods()
        }
        assert {name: rows[name]["selection"] for name in ("lrp", "slrp")} == {
            "lrp": "none",
            "slrp": "channel, last, probability",
        }

    def test_plan(self, toy, capsys):
        assert clarp("plan", toy, "--composite", "epsilon-plus") == 0
        assert "Epsilon(" in capsys.readouterr().out

    def test_a_plan_for_photos_of_any_size_says_for_which_it_is(self, toy, tmp_path, capsys):
        assert clarp("plan", toy) == 0
        assert "several sizes" not in capsys.readouterr().err
        path = tmp_path / "sizes.py"
        whole = "from torchvision.transforms.functional import to_tensor as preprocess"
        path.write_text(f"{TOY}\n{whole}\n")
        assert clarp("plan", f"{path}:build") == 0
        said = capsys.readouterr()
        assert "6 x 318 x 318" in said.out
        assert (
            "several sizes: this is the plan for a photo of 320 x 320, which becomes 3 x 320 x 320"
            in said.err
        )

    def test_the_command_is_installed(self):
        assert shutil.which("clarp", path=str(Path(sys.executable).parent))


class TestClasses:
    toy = Session(
        Classifier("toy", torch.nn.Linear(1, 1), ("ant", "bee", "cow", "dog, hound"), lambda image: image)
    )

    @pytest.mark.parametrize(
        ("written", "found"),
        [
            ([], []),
            (["ant"], [0]),
            (["cow", "0"], [2, 0]),
            (["cow,ant, 1"], [2, 0, 1]),
            (["dog, hound"], [3]),  # a label with a comma in it
            (["hound,ant"], [3, 0]),
            (["ant", "ANT", "0,ant"], [0]),
        ],
    )
    def test_names_numbers_and_commas(self, written, found):
        assert self.toy.classes(written) == found

    @pytest.mark.parametrize("written", ["", ",", "ant,,"])
    def test_a_comma_with_nothing_beside_it(self, written):
        with pytest.raises(ValueError, match="no class"):
            self.toy.classes([written])


def test_a_class_that_was_asked_for_has_its_probability_in_the_report(toy, tmp_path, capsys):
    """Also where it is not among the most probable five, and no class twice."""
    path = Path(toy.removesuffix(":build"))
    path.write_text(
        path.read_text().replace("Linear(6, 4)", "Linear(6, 9)").replace('"dog, hound"]', '"dog", *"efghi"]')
    )
    photo, out = noise(tmp_path / "one.png"), tmp_path / "out"
    assert clarp("explain", photo, "--model", toy, "--target", "0,1,2,3,4,5", "--out", out) == 0
    report = capsys.readouterr().out
    (record,) = manifest_of(out)["photos"]
    top = [one["class"] for one in record["predictions"]]
    for one in (explanation["target"] for explanation in record["explanations"]):
        line = f"{percent(one['probability']):>6}  {one['label']} ({one['class']})"
        assert report.count(line) == 1
        assert (f"{line}, as asked\n" in report) == (one["class"] not in top)
    assert report.count(", as asked\n") in range(1, 6)


@pytest.mark.slow
def test_the_pairs_of_objects(tmp_path, shared):
    """In the two photos with zebra and elephant, SGLRP's strongest pixel lies in the right box for each class."""
    pairs, out = shared / "images" / "pairs", tmp_path / "out"
    model = f"{shared / 'models' / 'imagenet_resnet34.py'}:build"
    both = "zebra,African elephant"
    photos = sorted(pairs.glob("zebra*.jpg"))
    assert (
        clarp(
            "explain",
            *photos,
            "--model",
            model,
            "--target",
            both,
            "--against",
            both,
            "--method",
            "sglrp",
            "--out",
            out,
        )
        == 0
    )
    boxes = json.loads((pairs / "boxes.json").read_text())
    for photo in manifest_of(out)["photos"]:
        entry = boxes[Path(photo["file"]).name]
        for explanation in photo["explanations"]:
            heatmap = np.load(out / explanation["relevance"]).sum(0)
            row, column = np.unravel_index(heatmap.argmax(), heatmap.shape)
            # 224 of 256 pixels along the shorter side, from the middle
            scale = min(entry["width"], entry["height"]) / 256
            x = (column - 112 + 0.5) * scale + entry["width"] / 2
            y = (row - 112 + 0.5) * scale + entry["height"] / 2
            (box,) = (o["box"] for o in entry["objects"] if explanation["target"]["class"] in o["classes"])
            assert box[0] <= x <= box[2]
            assert box[1] <= y <= box[3]


def test_ctrl_c_loses_nothing_that_was_done(toy, tmp_path, capsys):
    sizes = {
        "a": (16, 16),
        "b": (16, 16),
        "c": (12, 12),
    }  # which stops it, while the second waits to be explained
    photos = [noise(tmp_path / f"{name}.png", size) for name, size in sizes.items()]
    out = tmp_path / "out"
    assert clarp("explain", *photos, "--model", toy, "--batch-size", 1, "--out", out) == 130
    (record,) = manifest_of(out)["photos"]
    assert record["file"] == str(photos[0])
    assert (out / record["explanations"][0]["overlay"]).is_file()
    assert f"stopped after 1 of 3 photos; {out / 'manifest.json'} has those" in capsys.readouterr().err


def test_out_that_is_a_file(toy, tmp_path, capsys):
    taken = tmp_path / "taken"
    taken.write_text("a file")
    assert clarp("explain", noise(tmp_path / "a.png"), "--model", toy, "--out", taken) == 2
    assert "is a file" in capsys.readouterr().err
    assert taken.read_text() == "a file"


class TestLayers:
    def test_a_file_for_each_layer_and_target(self, toy, photos, tmp_path):
        out = tmp_path / "out"
        arguments = ("--target", "ant,bee", "--layers", "0, 1", "--method", "lrp", "--out", out)
        assert clarp("explain", photos, "--model", toy, *arguments) == 0
        for record in manifest_of(out)["photos"]:
            for explanation in record["explanations"]:
                assert list(explanation["layers"]) == ["0", "1"]
                first, second = (np.load(out / file) for file in explanation["layers"].values())
                assert first.shape == (6, 14, 14)
                assert np.array_equal(first, second)
                name = explanation["relevance"].removesuffix(".npy")
                assert explanation["layers"]["0"] == f"{name}.0.npy"

    def test_without_layers_there_are_none(self, toy, photos, tmp_path):
        assert clarp("explain", photos, "--model", toy, "--method", "lrp", "--out", tmp_path / "out") == 0
        assert "layers" not in manifest_of(tmp_path / "out")["photos"][0]["explanations"][0]

    def test_an_unknown_layer_stops_before_anything_is_written(self, toy, photos, tmp_path, capsys):
        out = tmp_path / "out"
        assert clarp("explain", photos, "--model", toy, "--layers", "layer4", "--out", out) == 2
        assert "'layer4', which is no module" in capsys.readouterr().err
        assert not out.exists()


class TestOutput:
    def test_a_model_with_several_results(self, toy, photos, tmp_path, capsys):
        out, spec = tmp_path / "out", toy.replace(":build", ":several")
        assert clarp("explain", photos, "--model", spec, "--out", out) == 2
        assert "Say which of its results they are: --output 'scores' (1, 4)" in capsys.readouterr().err
        arguments = ("--layers", "inner.0", "--method", "lrp", "--target", "ant")
        assert clarp("explain", photos, "--model", spec, "--output", "scores", *arguments, "--out", out) == 0
        assert (
            clarp(
                "explain",
                photos,
                "--model",
                toy,
                "--method",
                "lrp",
                "--target",
                "ant",
                "--out",
                tmp_path / "alone",
            )
            == 0
        )
        for ours, theirs in zip(
            manifest_of(out)["photos"], manifest_of(tmp_path / "alone")["photos"], strict=True
        ):
            files = ours["explanations"][0], theirs["explanations"][0]
            assert np.array_equal(
                np.load(out / files[0]["relevance"]), np.load(tmp_path / "alone" / files[1]["relevance"])
            )
            assert list(files[0]["layers"]) == ["inner.0"]

    def test_what_was_taken_is_noted_and_in_the_manifest(self, toy, photos, tmp_path, capsys):
        spec, said = toy.replace(":build", ":named"), "of its results (features, logits), logits was taken"
        assert clarp("explain", photos, "--model", spec, "--method", "lrp", "--out", tmp_path / "out") == 0
        assert f"clarp: note: output: {said}" in capsys.readouterr().err
        notes = manifest_of(tmp_path / "out")["model"]["notes"]
        assert [note for note in notes if said in note]
        assert clarp("plan", spec, "--output", "logits") == 0
        assert said not in capsys.readouterr().err

    def test_plan_has_the_models_own_names(self, toy, capsys):
        spec = toy.replace(":build", ":several")
        assert clarp("plan", spec, "--output", "scores", "--json") == 0
        assert json.loads(capsys.readouterr().out)[0]["module"] == "inner.0"

    def test_a_named_model_has_one_result(self, capsys):
        assert clarp("plan", "efficientnet-lite0", "--output", "logits") == 2
        assert "leave it out with efficientnet-lite0" in capsys.readouterr().err


class TestLostRelevance:
    def test_it_is_a_note(self, toy, photos, tmp_path, capsys):
        spec = toy.replace(":build", ":lossy")
        assert (
            clarp(
                "explain",
                photos,
                "--model",
                spec,
                "--method",
                "lrp",
                "--composite",
                "epsilon-plus",
                "--out",
                tmp_path / "out",
            )
            == 0
        )
        notes = [line for line in capsys.readouterr().err.splitlines() if "of the relevance reached" in line]
        assert len(notes) == 1
        assert notes[0].startswith("clarp: note: only 0% of the relevance reached the pixels (")
        assert re.search(r"photos/(a/one|b/one|two)\.png, (ant|bee|cow|dog, hound)\)", notes[0])
        assert "absorbed by 0 (ZPlus()) 100%" in notes[0]
        assert notes[0].endswith(" `--composite epsilon-plus-box` brings 100% there.")
        assert "explanation.ledger" not in notes[0]

    def test_clarp_compare_says_it_once_of_all_methods(self, toy, photos, tmp_path, capsys):
        spec, out = toy.replace(":build", ":lossy"), tmp_path / "sheet.png"
        methods = ("--methods", "lrp,clarp,centre", "--composite", "epsilon-plus")
        assert clarp("compare", photos / "two.png", "--model", spec, *methods, "--out", out) == 0
        (note,) = (line for line in capsys.readouterr().err.splitlines() if "relevance" in line)
        assert note.startswith("clarp: note: with lrp and clarp more than half of the relevance never")
