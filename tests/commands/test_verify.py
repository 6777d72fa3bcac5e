"""`clarp verify`: the maps of a folder made again, what has changed since, and manifests of strangers."""

import hashlib
import json
import os
import random
import shutil
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from clarp.cli import main
from clarp.commands.comparing import ROUNDING_SELECTED, SAME, array_of, differences
from clarp.commands.recorded import RecordedRun

TOY = """
import torch
from torch import nn

def build():
    torch.manual_seed(SEED)
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)).eval()

labels = ["ant", "bee", "cow", "dog"]

def preprocess(image):
    side = 24 if image.size == (24, 24) else 16
    pixels = torch.frombuffer(bytearray(image.resize((side, side)).tobytes()), dtype=torch.uint8)
    return pixels.view(side, side, 3).permute(2, 0, 1) / SCALE
"""


def clarp(*arguments):
    """Run the command line in this process, and return its exit code."""
    with pytest.raises(SystemExit) as ending:
        main([str(argument) for argument in arguments])
    return ending.value.code or 0


def toy(folder, seed=0, scale=255, name="toy.py"):
    path = folder / name
    path.write_text(TOY.replace("SEED", str(seed)).replace("SCALE", str(scale)))
    return f"{path}:build"


def manifest_of(folder):
    return json.loads((folder / "manifest.json").read_text())


def rewritten(folder, change):
    """The manifest after a change."""
    content = manifest_of(folder)
    change(content)
    (folder / "manifest.json").write_text(json.dumps(content))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for number, size in enumerate([(16, 16), (24, 24), (16, 16)]):
        pixels = np.random.default_rng(number).integers(0, 256, (*size, 3), dtype=np.uint8)
        (folder / "deep").mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / "deep" / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def original(tmp_path_factory, photos):
    """What `clarp explain` wrote of three photos and two classes, with a layer."""
    folder = tmp_path_factory.mktemp("original")
    options = ("--model", toy(folder), "--target", "bee,dog", "--layers", "0", "--out", folder / "out")
    assert clarp("explain", photos, *options) == 0
    return folder / "out"


@pytest.fixture
def made(tmp_path, original):
    """A copy of it."""
    return Path(shutil.copytree(original, tmp_path / "out"))


def verified(capsys, *arguments):
    """Exit code and answer of `clarp verify --json`."""
    capsys.readouterr()
    code = clarp("verify", *arguments, "--json")
    return code, json.loads(capsys.readouterr().out)


def verdicts(answer):
    return [photo["verdict"] for photo in answer["photos"]]


def changes(answer):
    return {one["what"] for one in answer["changed"]}


class TestTheSame:
    def test_to_the_last_bit_on_the_same_machine(self, tmp_path, made, capsys):
        code, answer = verified(capsys, made, "--model", toy(tmp_path))
        assert (code, verdicts(answer), answer["changed"], answer["unknown"]) == (0, ["same"] * 3, [], [])
        assert answer["sha256"] == hashlib.sha256((made / "manifest.json").read_bytes()).hexdigest()
        assert [photo["difference"] for photo in answer["photos"]] == [{"largest": 0.0, "total": 0.0}] * 3
        assert len(answer["photos"][0]["maps"]) == 4

    def test_the_report_for_people(self, tmp_path, made, capsys):
        assert clarp("verify", made, "--model", toy(tmp_path)) == 0
        said = capsys.readouterr().out
        assert "0.png: the same\n" in said
        assert "3 photos: 3 the same\n" in said

    def test_rounding_is_told_from_a_difference(self, tmp_path, made, capsys):
        first, second = (photo["explanations"][0] for photo in manifest_of(made)["photos"][:2])
        limit = ROUNDING_SELECTED.largest
        for one, by in ((first, limit / 10), (second, limit * 2)):
            values = np.load(made / one["relevance"])
            values[0, 0, 0] += by * np.abs(values).max()
            np.save(made / one["relevance"], values)

        def without_checksums(content):
            for photo in content["photos"]:
                for one in photo["explanations"]:
                    del one["sha256"]

        rewritten(made, without_checksums)
        code, answer = verified(capsys, made, "--model", toy(tmp_path))
        assert (code, verdicts(answer)) == (1, ["rounding", "different", "same"])
        assert answer["photos"][0]["difference"]["largest"] == pytest.approx(limit / 10, rel=0.01)
        assert "whether the files are those that were written" in answer["unknown"]

    def test_without_selection_less_counts_as_rounding(self, tmp_path, photos, capsys):
        out = tmp_path / "lrp"
        options = ("--model", toy(tmp_path), "--method", "lrp", "--no-pictures", "--out", out)
        assert clarp("explain", photos, *options) == 0
        assert verified(capsys, out, "--model", toy(tmp_path))[1]["rounding"] == {
            "largest": 1e-3,
            "total": 1e-3,
        }

    def test_the_differences(self):
        def saved(*values):
            np.save(file := BytesIO(), np.array(values, np.float32))
            return file.getvalue()

        found = differences(saved(1, -4, 0), saved(1, -3, 0.5))
        assert (found.largest, found.total) == (1 / 4, 1.5 / 5)
        assert differences(saved(0, 0), saved(0, -0.0)) == SAME
        assert differences(saved(1, np.nan), saved(1, 2)).largest == np.inf
        assert differences(saved(1, 2), saved(1, 2, 3)).total == np.inf

    def test_nothing_is_written(self, tmp_path, made):
        before = {path: path.read_bytes() for path in made.iterdir()}
        assert clarp("verify", made, "--model", toy(tmp_path)) == 0
        assert {path: path.read_bytes() for path in made.iterdir()} == before

    def test_each_photos_own_top_class_without_targets(self, tmp_path, photos, capsys):
        out = tmp_path / "top"
        assert clarp("explain", photos, "--model", toy(tmp_path), "--no-pictures", "--out", out) == 0
        code, answer = verified(capsys, out, "--model", toy(tmp_path))
        assert (code, verdicts(answer)) == (0, ["same"] * 3)


class TestWhatChanged:
    def test_weights(self, tmp_path, made, capsys):
        code, answer = verified(capsys, made, "--model", toy(tmp_path, seed=1))
        assert code == 1
        assert verdicts(answer) == ["different"] * 3
        assert changes(answer) == {"weights", "the model's file"}

    def test_preprocessing(self, tmp_path, made, capsys):
        code, answer = verified(capsys, made, "--model", toy(tmp_path, scale=256))
        assert code == 1
        assert changes(answer) == {"the model's file", "bounds"}
        assert answer["photos"][0]["reasons"][0] == "the preprocessing makes another image of the photo"

    def test_a_photo_that_has_changed_is_gone_or_has_moved(self, tmp_path, made, photos, capsys):
        own = Path(shutil.copytree(photos, tmp_path / "own"))
        text = (made / "manifest.json").read_text()
        (made / "manifest.json").write_text(text.replace(str(photos), str(own)))
        photos = own
        Image.new("RGB", (16, 16)).save(photos / "deep" / "0.png")
        (photos / "deep" / "1.png").unlink()
        code, answer = verified(capsys, made, "--model", toy(tmp_path))
        assert (code, verdicts(answer)) == (1, ["unchecked", "unchecked", "same"])
        assert "has changed" in answer["photos"][0]["reasons"][0]
        assert "--photos" in answer["photos"][1]["reasons"][0]
        shutil.move(photos, tmp_path / "elsewhere")
        code, answer = verified(
            capsys, made, "--model", toy(tmp_path), "--photos", tmp_path / "elsewhere" / "deep"
        )
        assert verdicts(answer) == ["unchecked", "unchecked", "same"]

    @pytest.mark.parametrize("kind", ["relevance", "overlay"])
    def test_a_file_that_was_exchanged(self, tmp_path, made, capsys, kind):
        file = made / manifest_of(made)["photos"][0]["explanations"][0][kind]
        shutil.copy(made / manifest_of(made)["photos"][2]["explanations"][0][kind], file)
        code, answer = verified(capsys, made, "--model", toy(tmp_path))
        assert (code, verdicts(answer)) == (1, ["different", "same", "same"])
        assert f"{file.name} is not the file that was written" in " ".join(answer["photos"][0]["reasons"])

    def test_a_probability_or_a_name_that_was_exchanged(self, tmp_path, made, capsys):
        def lie(content):
            content["photos"][0]["predictions"][0]["probability"] = 0.99
            content["photos"][1]["explanations"][0]["target"]["label"] = "elk"

        rewritten(made, lie)
        code, answer = verified(capsys, made, "--model", toy(tmp_path))
        assert (code, verdicts(answer)) == (1, ["different", "different", "same"])
        assert "99.0%" in answer["photos"][0]["reasons"][0]
        assert "elk" in answer["photos"][1]["reasons"][0]

    def test_versions_code_and_threads(self, tmp_path, made, capsys):
        def older(content):
            content["versions"]["torch"] = "1.0"
            content["clarp_sha256"] = "0" * 64
            content["machine"]["threads"] = 77

        rewritten(made, older)
        code, answer = verified(capsys, made, "--model", toy(tmp_path))
        assert code == 0
        assert changes(answer) == {"PyTorch", "clarp's code", "threads"}
        assert {"what": "PyTorch", "was": "1.0", "now": torch.__version__} in answer["changed"]


class TestOlderManifests:
    def test_it_says_what_cant_be_checked(self, tmp_path, made, capsys):
        def older(content):
            for name in ("asked", "machine", "dtype", "clarp_sha256"):
                del content[name]
            for photo in content["photos"]:
                del photo["input_sha256"]
                for one in photo["explanations"]:
                    del one["sha256"]

        rewritten(made, older)
        code, answer = verified(capsys, made, "--model", toy(tmp_path))
        assert (code, verdicts(answer)) == (0, ["same"] * 3)
        assert {"clarp's code", "engine", "the options of the command", "threads"} <= set(answer["unknown"])
        assert "what the preprocessing made of each photo" in answer["unknown"]


class TestStrangersManifests:
    @pytest.mark.parametrize(
        "kind", ["evil.py:build", "evil.pt2", "ultralytics:evil.pt", "evil.onnx", "hf:a/b"]
    )
    def test_no_model_is_loaded_that_the_user_does_not_name(self, tmp_path, made, capsys, kind):
        mark = tmp_path / "executed"
        spec = kind.replace("evil", str(tmp_path / "evil"))
        (tmp_path / "evil.py").write_text(f"open({str(mark)!r}, 'w')\nbuild = print\n")
        rewritten(made, lambda content: content["asked"].update(model=spec))
        capsys.readouterr()
        assert clarp("verify", made) == 2
        said = capsys.readouterr().err
        assert "Name the model yourself: --model" in said
        assert said.count("\n") == 1
        assert not mark.exists()

    def test_nor_a_file_of_weights(self, tmp_path, made, capsys):
        rewritten(made, lambda content: content["asked"].update(model="resnet18", weights="/etc/passwd"))
        assert clarp("verify", made) == 2
        assert "--weights FILE" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("place", "value"),
        [
            (("photos",), {}),
            (("photos",), []),
            (("photos", 0), 3),
            (("photos", 0, "sha256"), "short"),
            (("photos", 0, "file"), "a\0b"),
            (("photos", 0, "explanations", 0, "relevance"), "../../secret.npy"),
            (("photos", 0, "explanations", 0, "relevance"), "/etc/passwd"),
            (("photos", 0, "explanations", 0, "layers", "0"), "..\\secret.npy"),
            (("photos", 0, "explanations", 0, "sha256"), {"../a": "0" * 64}),
            (("photos", 0, "explanations", 0, "target", "class"), -1),
            (("photos", 0, "explanations", 0, "target", "class"), 10**30),
            (("photos", 0, "predictions", 0, "probability"), 1e999),
            (("batch_size",), 10**9),
            (("batch_size",), True),
            (("device",), "meta"),
            (("device",), "cuda:99999"),
            (("asked", "model"), None),
            (("asked", "targets"), ["bee"]),
            (("asked", "targets"), [4]),
            (("asked", "layers"), ["nothing"]),
            (("asked", "method"), "\x1b[31mred"),
            (("asked", "engine"), "ray"),
            (("asked", "task"), "any"),
        ],
    )
    def test_one_clear_sentence(self, tmp_path, made, capsys, place, value):
        def change(content):
            for part in place[:-1]:
                content = content[part]
            content[place[-1]] = value

        rewritten(made, change)
        capsys.readouterr()
        assert clarp("verify", made, "--model", toy(tmp_path)) == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        sentences = [line for line in printed.err.splitlines() if not line.startswith("clarp: note: ")]
        assert len(sentences) == 1
        assert sentences[0].startswith("clarp: ")
        assert len(sentences[0]) < 600
        assert "\x1b" not in printed.err

    @pytest.mark.parametrize(
        "text", ["", "[" * 100_000, "7" * 10_000, "[]", "\xff", "null", '{"photos": [NaN]}']
    )
    def test_what_is_no_manifest(self, tmp_path, made, capsys, text):
        (made / "manifest.json").write_bytes(text.encode("latin-1"))
        assert clarp("verify", made) == 2
        assert "manifest" in capsys.readouterr().err

    def test_a_pipe_in_place_of_the_manifest_or_a_map_is_not_waited_for(self, tmp_path, made, capsys):
        file = made / manifest_of(made)["photos"][0]["explanations"][0]["relevance"]
        file.unlink()
        os.mkfifo(file)
        code, answer = verified(capsys, made, "--model", toy(tmp_path))
        assert (code, verdicts(answer)) == (1, ["unchecked", "same", "same"])
        (made / "manifest.json").unlink()
        os.mkfifo(made / "manifest.json")
        assert clarp("verify", made) == 2

    def test_changed_at_random_it_is_read_or_refused(self, made):
        draw = random.Random(0)
        text = (made / "manifest.json").read_text()
        odd = [None, -1, 1e308, "x", [], {}, True, "../x", [[[]]], {"class": "a"}]

        def places(value, path=()):
            yield path
            children = (
                value.items()
                if isinstance(value, dict)
                else enumerate(value)
                if isinstance(value, list)
                else ()
            )
            for key, child in children:
                yield from places(child, (*path, key))

        every = [path for path in places(json.loads(text)) if path]
        outcomes = set()
        for _ in range(400):
            content = json.loads(text)
            *way, last = draw.choice(every)
            inner = content
            for key in way:
                inner = inner[key]
            inner[last] = draw.choice(odd)
            (made / "manifest.json").write_text(json.dumps(content))
            try:
                found = RecordedRun.read(made)
            except ValueError as error:
                outcomes.add("refused" if "manifest" in str(error) else str(error))
            else:
                outcomes.add("read")
                found.changes(content)
        assert outcomes == {"read", "refused"}

    def test_an_array_that_announces_more_than_it_has(self):
        header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,), }"
        data = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
        assert array_of(data + b"\0" * 64) is None
        assert array_of(data[:20]) is None
        assert array_of(b"") is None


class TestArguments:
    def test_a_folder_without_a_manifest(self, tmp_path, capsys):
        assert clarp("verify", tmp_path) == 2
        assert "manifest.json" in capsys.readouterr().err

    def test_options_of_a_model_that_is_not_named(self, made, capsys):
        assert clarp("verify", made, "--weights", "w.pt") == 2
        assert "--model" in capsys.readouterr().err


class TestExpected:
    @pytest.fixture(scope="class")
    @classmethod
    def out(cls, tmp_path_factory, photos):
        out = tmp_path_factory.mktemp("expected")
        assert clarp("explain", photos, "--model", toy(out), "--expected", "dog", "--out", out) == 0
        return out

    def test_the_predicted_and_the_expected_class_are_explained_against_each_other(
        self, tmp_path, photos, out
    ):
        for photo in manifest_of(out)["photos"]:
            assert photo["expected"]["label"] == "dog"
            top = photo["predictions"][0]["class"]
            assert [one["target"]["class"] for one in photo["explanations"]] == (
                [3] if top == 3 else [top, 3]
            )
            if top != 3:
                first, second = photo["explanations"]
                assert [rival["class"] for rival in first["against"]] == [3]
                assert [rival["class"] for rival in second["against"]] == [top]
                assert (out / photo["versus"]["overlay"]).is_file()
                named = tmp_path / "named"
                both = f"{top},3"
                options = ("--target", both, "--against", both, "--out", named)
                assert clarp("explain", photo["file"], "--model", toy(tmp_path), *options) == 0
                for one, again in zip(
                    photo["explanations"], manifest_of(named)["photos"][0]["explanations"], strict=True
                ):
                    np.testing.assert_allclose(
                        np.load(out / one["relevance"]), np.load(named / again["relevance"]), atol=1e-6
                    )
        assert any(len(photo["explanations"]) == 2 for photo in manifest_of(out)["photos"])

    def test_as_expected_is_explained_against_all_others(self, tmp_path, photos):
        out, model = tmp_path / "right", toy(tmp_path)
        assert clarp("explain", photos, "--model", model, "--out", out) == 0
        right = manifest_of(out)["photos"][0]["predictions"][0]["class"]
        alone = Path(manifest_of(out)["photos"][0]["file"])
        assert clarp("explain", alone, "--model", model, "--expected", right, "--out", out) == 0
        (photo,) = manifest_of(out)["photos"]
        assert len(photo["explanations"]) == 1
        assert photo["explanations"][0]["against"] == "all other classes"
        assert "versus" not in photo

    def test_it_can_be_verified(self, tmp_path, out, capsys):
        code, answer = verified(capsys, out, "--model", toy(tmp_path))
        assert (code, verdicts(answer)) == (0, ["same"] * 3)
        picture = next(p["versus"]["overlay"] for p in manifest_of(out)["photos"] if "versus" in p)
        (out / picture).write_bytes(b"another")
        code, answer = verified(capsys, out, "--model", toy(tmp_path))
        assert (code, sorted(verdicts(answer))) == (1, ["different", "same", "same"])

    @pytest.mark.parametrize(
        "options",
        [
            ("--target", "bee"),
            ("--against", "bee"),
            ("--method", "lrp"),
            ("--style", "versus"),
        ],
    )
    def test_what_it_does_not_go_with(self, tmp_path, photos, capsys, options):
        given = ("--model", toy(tmp_path), "--expected", "dog", "--out", tmp_path / "x", *options)
        assert clarp("explain", photos, *given) == 2
        assert "--expected" in capsys.readouterr().err
