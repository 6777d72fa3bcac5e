"""The sheet of methods and classes: its numbers against the explainer's, its files, and what it refuses."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from clarp import Explainer, models
from clarp.cli import main
from clarp.images import open_photo
from clarp.render.styles import smoothed
from evaluation.toys import toy_model


def compare(*arguments):
    with pytest.raises(SystemExit) as ending:
        main(["compare", *map(str, arguments)])
    return ending.value.code or 0


@pytest.fixture
def toy(tmp_path):
    return toy_model(tmp_path)


@pytest.fixture
def photo(tmp_path):
    """48 pixels wide and high, so that the model's 24 are every second."""
    path = tmp_path / "a $photo_.png"
    pixels = np.random.default_rng(3).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def test_the_manifest_has_the_explainers_numbers(tmp_path, toy, photo, capsys):
    out = tmp_path / "new" / "sheet.png"
    box = ["--boxes", "bee:0,0,24,48", "--boxes", "dog:0,24,48,48"]
    command = [
        photo,
        "--model",
        toy,
        "--methods",
        "ssglrp,sglrp",
        "--target",
        "bee,dog,cow",
        *box,
        "--out",
        out,
    ]
    assert compare(*command) == 0
    assert capsys.readouterr().out == f"{out}\n{out.with_suffix('.json')}\n"
    with Image.open(out) as picture:
        assert picture.width > 800
    manifest = json.loads(out.with_suffix(".json").read_text())
    assert [method["name"] for method in manifest["methods"]] == ["ssglrp", "sglrp"]
    assert [target["label"] for target in manifest["targets"]] == ["bee", "dog", "cow"]
    assert sum(p["probability"] for p in manifest["photo"]["predictions"]) == pytest.approx(1)

    classifier = models.load(toy)
    image = classifier.preprocess(open_photo(photo))
    for method in manifest["methods"]:
        explainer = Explainer(classifier.module, method["name"], bounds=classifier.bounds)
        maps = explainer(image[None], target=[[1, 3, 2]]).heatmap[0].double().numpy()
        drawn = np.abs([smoothed(one, 0.01) for one in maps])
        assert method["scale"]["full_colour"] == pytest.approx(np.percentile(drawn, 99.5))
        assert method["scale"]["peak"] == pytest.approx(drawn.max())
        bee, dog, cow = method["maps"]
        positive = maps.clip(min=0)
        assert bee["inside"] == pytest.approx(positive[0, :, :12].sum() / positive[0].sum())
        assert dog["inside"] == pytest.approx(positive[1, 12:].sum() / positive[1].sum())
        assert (bee["box_area"], dog["box_area"]) == (0.5, 0.5)
        assert (cow["inside"], cow["box_area"]) == (None, None)
        assert [m["sum"] for m in (bee, dog, cow)] == pytest.approx(maps.sum((1, 2)))


def test_json_is_the_manifest_and_nothing_else(tmp_path, toy, photo, capsys):
    out = tmp_path / "sheet.svg"
    assert compare(photo, "--model", toy, "--methods", "lrp,sglrp", "--out", out, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document == json.loads(out.with_suffix(".json").read_text())
    assert len(document["targets"]) == 2  # the two top classes
    assert out.read_text().startswith("<?xml")


def test_a_model_that_ends_in_a_softmax_has_the_same_probabilities(tmp_path, toy, photo):
    found = []
    for name in ("build", "likely"):
        out = tmp_path / f"{name}.png"
        model = toy.replace(":build", f":{name}")
        assert compare(photo, "--model", model, "--methods", "lrp", "--out", out) == 0
        found.append(json.loads(out.with_suffix(".json").read_text())["photo"]["predictions"])
    for one, other in zip(*found, strict=True):
        assert one["label"] == other["label"]
        assert one["probability"] == pytest.approx(other["probability"], abs=1e-6)


def test_rivals_go_to_the_methods_that_have_some(tmp_path, toy, photo):
    sums = {}
    for name, rivals in {"all": [], "ant": ["--against", "ant"]}.items():
        out = tmp_path / f"{name}.png"
        command = [photo, "--model", toy, "--methods", "lrp,sglrp", "--target", "bee", "--out", out]
        assert compare(*command, *rivals) == 0
        manifest = json.loads(out.with_suffix(".json").read_text())
        sums[name] = {method["name"]: method["maps"][0]["maximum"] for method in manifest["methods"]}
        assert [method["has_rivals"] for method in manifest["methods"]] == [False, True]
    assert sums["all"]["lrp"] == sums["ant"]["lrp"]
    assert sums["all"]["sglrp"] != sums["ant"]["sglrp"]


def test_baselines_and_controls(tmp_path, toy, photo):
    pytest.importorskip("captum")
    out = tmp_path / "sheet.pdf"
    methods = "centre,gradcam,input-x-gradient,lrp@epsilon-plus"
    assert compare(photo, "--model", toy, "--methods", methods, "--style", "signs", "--out", out) == 0
    manifest = json.loads(out.with_suffix(".json").read_text())
    assert [method["name"] for method in manifest["methods"]] == methods.split(",")
    assert out.read_bytes().startswith(b"%PDF")


def test_a_table_of_boxes_counts_stored_pixels(tmp_path, toy):
    """A photo on its side: with a table it is taken as stored, like in an evaluation; else upright."""
    pixels = np.zeros((48, 96, 3), dtype=np.uint8)
    pixels[:, :48] = np.random.default_rng(1).integers(0, 256, (48, 48, 3))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "lying.png", exif=exif)
    table = {
        "lying.png": {
            "width": 96,
            "height": 48,
            "objects": [{"label": "bee", "classes": [1], "box": [0, 0, 48, 48]}],
        }
    }
    (tmp_path / "boxes.json").write_text(json.dumps(table))
    classifier = models.load(toy)
    for boxes, upright in (([tmp_path / "boxes.json"], False), (["bee:0,0,48,48"], True)):
        out = tmp_path / f"{upright}.png"
        given = [argument for box in boxes for argument in ("--boxes", box)]
        command = [tmp_path / "lying.png", "--model", toy, "--methods", "sglrp", "--target", "bee"]
        assert compare(*command, *given, "--out", out) == 0
        (method,) = json.loads(out.with_suffix(".json").read_text())["methods"]
        image = classifier.preprocess(open_photo(tmp_path / "lying.png", upright=upright))
        maps = Explainer(classifier.module, "sglrp", bounds=classifier.bounds)(image[None], target=1)
        positive = maps.heatmap[0].clamp(min=0)
        part = positive[:12] if upright else positive[:, :12]
        assert method["maps"][0]["inside"] == pytest.approx(float(part.sum() / positive.sum()), rel=1e-5)


def test_a_map_that_is_not_finite_is_drawn_and_null(tmp_path, toy, photo, monkeypatch):
    def broken(self, images, targets, ids):
        return torch.full((len(images), *images.shape[2:]), torch.nan)

    monkeypatch.setattr("clarp.evaluation.attribution.Control.__call__", broken)
    out = tmp_path / "sheet.png"
    assert compare(photo, "--model", toy, "--methods", "centre", "--boxes", "bee:0,0,9,9", "--out", out) == 0
    (method,) = json.loads(out.with_suffix(".json").read_text())["methods"]
    assert method["scale"]["warning"] == "no value is finite (yellow)"
    assert {entry["maximum"] for entry in method["maps"]} == {None}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "sheet.jpg"], "expected a name that ends in .png, .svg, .pdf"),
        (["--methods", "lpr"], "unknown method 'lpr'"),
        (["--methods", ""], "--methods names none"),
        (["--methods", "lrp", "--against", "ant"], "--against was given, but none of lrp has rivals"),
        (["--target", "doge"], "has no class 'doge'"),
        (["--style", "pie"], "style is 'pie', expected one of overlay"),
        (["--boxes", "bee:1,2,3"], "--boxes bee:1,2,3: expected CLASS:left,top,right,bottom in pixels"),
        (["--boxes", "1,2,3,4"], "has no class ''"),
        (["--boxes", "bee:0,0,99,9"], "leaves the image of 48 x 48 pixels"),
        (["--boxes", "bee:9,9,9,20"], "has no area"),
        (["--boxes", "nowhere.json"], "nowhere.json does not exist"),
        (["--boxes", "TABLE"], "does not list"),
        (
            ["--boxes", "TABLE", "--out", "boxes.svg"],
            "--out boxes.svg would replace boxes.json, which is read",
        ),
        (["--out", "a $photo_.png"], "which is read: give another name"),
        (["--boxes", "TABLE", "--boxes", "bee:0,0,9,9"], "one table, or boxes one by one"),
    ],
)
def test_one_sentence_and_nothing_written(tmp_path, toy, photo, capsys, monkeypatch, *, arguments, message):
    table = tmp_path / "boxes.json"
    table.write_text("{}")
    monkeypatch.chdir(tmp_path)
    before = set(tmp_path.iterdir())
    given = [str(table) if argument == "TABLE" else argument for argument in arguments]
    assert compare(photo, "--model", toy, *given) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert message in printed.err
    assert printed.err.count("\n") == 1
    assert {path for path in tmp_path.iterdir() if path.name != "__pycache__"} == before
