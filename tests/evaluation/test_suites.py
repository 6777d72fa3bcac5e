"""Every suite on ten photos, from the command line to the report."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import clarp
from clarp.cli import main
from clarp.evaluation import SignedEffect
from clarp.evaluation.specs import metrics
from clarp.evaluation.store import Store
from clarp.evaluation.suites import SUITES, Suite
from clarp.evaluation.tables import Report
from evaluation.sure import sure_model, sure_photos

pytest.importorskip("pyarrow")
pytest.importorskip("captum")


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def said(*arguments):
    with pytest.raises(SystemExit) as ending:
        main([*map(str, arguments)])
    return ending.value.code or 0


def evaluated(tmp_path, suite, *extra, network="convolutions"):
    """A suite's run with a model that is sure of its ten photos."""
    photos, out = sure_photos(tmp_path / "photos"), tmp_path / "run"
    command = ("evaluate", photos, "--suite", suite, "--model", sure_model(tmp_path, network), "--out", out)
    assert said(*command, "--no-pictures", *extra) == 0
    assert said("report", out) == 0
    return Store(out), Report.of(Store(out), Suite.named(suite).methods[0], resamples=50)


def column(store, name):
    """Of the rows, by method."""
    table = store.rows()
    methods = np.array(table.column("method").to_pylist())
    values = table.column(name).to_numpy()
    return {method: values[methods == method] for method in dict.fromkeys(methods)}


@pytest.mark.parametrize("suite", SUITES)
def test_all_names_are_known(suite):
    named = SUITES[suite]
    assert metrics((*named.metrics, *named.located))
    assert named.name == suite


@pytest.mark.parametrize(("suite", "n"), [("grids", 2), pytest.param("grids-3x3", 3, marks=pytest.mark.slow)])
def test_grids(tmp_path, suite, n):
    store, report = evaluated(tmp_path, suite, "--limit", 1)
    assert store.about()["samples"] == 1
    assert f"-mosaic-{n}x{n}" in store.about()["dataset"]
    energy = column(store, f"grid-pointing:n={n}/energy")
    assert all(len(values) == n * n for values in energy.values())
    assert energy["sglrp"].mean() > energy["lrp"].mean() > 1 / n**2 - 0.01
    assert energy["pooled@sglrp"].mean() != energy["sglrp"].mean()
    assert report.complete


@pytest.mark.slow
def test_the_papers_suite_on_a_real_vgg16(tmp_path, shared):
    """Photos with boxes, so it points too; ``benchmarks/paper.py`` prints its table."""
    out, model = tmp_path / "run", f"{shared / 'models' / 'vgg16_tiny20.py'}:build"
    photos = shared / "images" / "tiny20"
    asked = ("evaluate", photos, "--suite", "ssglrp-paper", "--model", model, "--limit", 2, "--out", out)
    assert said(*asked, "--no-pictures") == 0
    store = Store(out)
    for metric in ("patch-masking:size=9", "patch-masking:size=9:centre=window"):
        drops = column(store, f"{metric}/drop@9")
        assert all(np.isfinite(values).all() and (values != 0).all() for values in drops.values())
        assert not np.allclose(drops["ssglrp"], drops["sglrp"])
    assert set(np.concatenate([*column(store, "pointing:smoothing=0.02/hit").values()])) <= {0.0, 1.0}
    script = Path(__file__).resolve().parents[2] / "benchmarks" / "paper.py"
    printed = subprocess.run([sys.executable, script, out], capture_output=True, text=True, check=True).stdout
    assert all(f"| {half}, 1 photos |" in printed for half in ("tune", "test"))
    assert all(
        f"| `{method}` |" in printed for method in (*SUITES["ssglrp-paper"].methods, "random", "centre")
    )


def test_grids_are_500_of_sure_photos(tmp_path, monkeypatch):
    asked = {}

    def stopped(dataset, *_):
        asked["dataset"] = dataset
        raise ValueError("enough")

    monkeypatch.setattr("clarp.commands.evaluate._evaluated", stopped)
    photos = sure_photos(tmp_path / "photos", 20)
    for path in sorted(photos.glob("*/01*.png"))[:3]:  # half another colour: not sure
        other = sorted(photos.glob("*/00*.png"))[5]
        path.write_bytes(other.read_bytes())
    command = ("evaluate", f"mosaics:{photos}", "--suite", "grids", "--model", sure_model(tmp_path))
    assert said(*command, "--out", tmp_path / "run") == 2
    made = asked["dataset"]
    assert len(made) == 500
    assert all(len({thing.label for thing in sample.objects}) == 4 for sample in made)
    used = {thing.name for sample in made for thing in sample.objects}
    assert len(used) == 17


def test_difull(tmp_path):
    store, _ = evaluated(tmp_path, "difull", "--limit", 1)
    outside = column(store, "difull:n=2/outside")
    for name in ("lrp", "clrp1", "slrp", "sglrp", "ssglrp", "clarp", "input-x-gradient"):
        assert not outside[name].any(), name
    assert np.isnan(outside["gradcam"]).all()
    assert (outside["random"] > 0.5).all()


def test_srg(tmp_path):
    store, report = evaluated(tmp_path, "srg", "--batch-size", 10)
    assert {"srg/most", "srg/least", "road/most", "road/kept_least"} <= {
        curve.name for curve in report.curves
    }
    gain, debiased = column(store, "srg/srg"), column(store, "road/road")
    assert len(gain["ssglrp"]) == 10
    # Patches don't tell a map from its own means over the same squares; single pixels do.
    np.testing.assert_allclose(gain["pooled@ssglrp"], gain["ssglrp"], atol=1e-3)
    assert (debiased["pooled@ssglrp"] != debiased["ssglrp"]).any()


def test_signs(tmp_path, monkeypatch):
    asked, effects = [], SignedEffect.effects

    def counted(self, model, images, *rest):
        asked.append((self, len(images)))
        return effects(self, model, images, *rest)

    monkeypatch.setattr(SignedEffect, "effects", counted)
    store, report = evaluated(tmp_path, "signs", "--batch-size", 5)
    # Once for each batch and fill, not for each method.
    assert len(asked) == 3 * 2
    assert sum(count for _, count in asked) == 3 * 10
    names = {line.column for line in report.lines}
    for fill in ("", ":fill=blur", ":fill=inpaint"):
        assert f"signed-effect:grid=4+7+14{fill}/correlation@7" in names
    red = column(store, "signed-effect:grid=4+7+14/red@7")
    assert all(set(values[~np.isnan(values)]) <= {0.0, 1.0} for values in red.values())


def test_resnet_vgg(tmp_path):
    store, report = evaluated(tmp_path, "resnet-vgg")
    assert [*store.about()["fingerprint"]["metrics"]] == [*Suite.named("resnet-vgg").metrics]
    assert report.pictures == 10


def test_transformers(tmp_path):
    store, report = evaluated(tmp_path, "transformers", network="transformer")
    assert [*store.about()["fingerprint"]["methods"]] == [
        *Suite.named("transformers").methods,
        "random",
        "centre",
    ]
    assert report.pictures == 10
    gain = column(store, "srg/srg")
    assert all(np.isfinite(values).all() for values in gain.values())


@pytest.mark.slow
@pytest.mark.parametrize("suite", ["srg", "signs"])
def test_with_a_trained_model(tmp_path, suite):
    photo = Image.open(Path(clarp.__file__).parent / "assets" / "cat_and_coffee.jpg").convert("RGB")
    width, height = photo.size
    for number in range(10):
        left, top = number * width // 40, number * height // 40
        photo.crop((left, top, left + 3 * width // 4, top + 3 * height // 4)).save(tmp_path / f"{number}.png")
    rows = "".join(f"{number}.png,{(281, 967)[number % 2]}\n" for number in range(10))
    (tmp_path / "labels.csv").write_text("file,class\n" + rows)
    out = tmp_path / "run"
    assert said("evaluate", tmp_path, "--suite", suite, "--out", out, "--limit", 2) == 0
    report = Report.of(Store(out), "ssglrp", resamples=50)
    assert report.pictures == 2
    (first,) = Suite.named(suite).metrics[:1]
    drops = column(Store(out), f"{first}/{'srg' if suite == 'srg' else 'correlation@7'}")
    assert all(np.isfinite(values).all() for values in drops.values())
