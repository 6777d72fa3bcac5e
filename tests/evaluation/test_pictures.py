"""The small pictures of a run: true to the maps, row by row, and without a trace in the rows."""

import io
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from clarp.data import image_folder
from clarp.data.opening import open_dataset
from clarp.evaluation.pictures import CELLS, PHOTO, Cells, columns, photo_bytes
from clarp.evaluation.run import Run, Settings
from clarp.evaluation.specs import metrics
from clarp.evaluation.store import part_name
from clarp.models import load
from clarp.render import Scale
from evaluation.toys import toy_boxes, toy_model, toy_photos

pytest.importorskip("pyarrow")


class TestCells:
    def test_they_are_means_over_pixels(self):
        heatmap = torch.randn(224, 112, dtype=torch.float64)
        cells = Cells.of(heatmap)
        assert cells.codes.shape == (CELLS, CELLS // 2)
        means = heatmap.view(56, 4, 28, 4).mean((1, 3)).numpy()
        found = cells.values()
        assert cells.peak == pytest.approx(np.abs(means).max())
        assert cells.limit == pytest.approx(Scale.of(means).limit)
        # A code is within half a step of the root, so a value within 1/127 of the root's size.
        assert (
            np.abs(np.sqrt(np.abs(found)) - np.sqrt(np.abs(means))) <= 0.5 / 127 * np.sqrt(cells.peak) + 1e-12
        ).all()
        assert (np.sign(found) * np.sign(means) >= 0).all()

    def test_small_maps_stay_as_they_are(self):
        assert Cells.of(torch.ones(7, 9)).codes.shape == (7, 9)
        assert Cells.of(torch.ones(1, 1000)).codes.shape == (1, 56)

    @pytest.mark.parametrize("value", [0.0, torch.nan, torch.inf, -1e300])
    def test_odd_maps(self, value):
        heatmap = torch.zeros(8, 8, dtype=torch.float64)
        heatmap[2, 3] = value
        found = Cells.of(heatmap).values()
        assert found[2, 3] == pytest.approx(value if np.isfinite(value) else np.nan, nan_ok=True)
        assert np.isnan(found).sum() == (not np.isfinite(value))


def test_a_photo_is_a_small_jpeg():
    photo = np.zeros((300, 600, 3), np.uint8)
    photo[:, :300] = (200, 30, 30)
    with Image.open(io.BytesIO(photo_bytes(photo))) as picture:
        assert (picture.format, picture.size) == ("JPEG", (PHOTO, PHOTO // 2))
        np.testing.assert_allclose(picture.getpixel((20, 30)), (200, 30, 30), atol=6)
    with Image.open(io.BytesIO(photo_bytes(photo[:20, 290:310]))) as picture:
        assert picture.size == (20, 20)


def test_columns_are_in_the_order_of_the_rows():
    first, second = Cells.of(torch.ones(2, 2)), Cells.of(2 * torch.ones(2, 2))
    found = columns([b"a", b"b"], [[first, second], [None, first]])
    assert found["photo"] == [b"a", None, b"b", None]
    assert found["boxes"] == [[], None, [], None]
    assert found["peak"] == [1.0, None, 2.0, 1.0]
    assert found["codes"] == [first.codes.tobytes(), None, second.codes.tobytes(), first.codes.tobytes()]


@pytest.fixture
def run(tmp_path):
    """Make a run of 20 photos into a folder of that name."""
    classifier = load(toy_model(tmp_path))
    photos = image_folder(toy_photos(tmp_path / "photos", 20), classifier.labels)

    def make(name, **options):
        settings = Settings(("lrp", "sglrp"), metrics(["patch-masking:size=5"]), batch_size=4, **options)
        return Run(photos, classifier, settings, tmp_path / name)

    return make


def test_rows_are_the_same_bytes_with_and_without(run):
    with_pictures, without = run("with"), run("without", pictures=False)
    with_pictures.complete()
    without.complete()
    assert (with_pictures.folder / "rows.parquet").read_bytes() == (
        without.folder / "rows.parquet"
    ).read_bytes()
    assert with_pictures.fingerprint() == without.fingerprint()
    assert list(without.store.pictures()) == [None, None]


def test_pictures_are_those_of_the_rows(run):
    made = run("with")
    made.complete()
    tables = list(made.store.pictures())
    assert [len(table) for table in tables] == made.store.part_rows() == [16 * 4, 4 * 4]
    explainer = made.attributors[1]
    image = made.loader.tensor(made.samples[17])
    row = made.store.rows().slice(17 * 4 + 1, 1).to_pylist()[0]
    assert row["method"] == "sglrp"
    expected = Cells.of(explainer(image[None], torch.tensor([row["target"]]), [row["id"]])[0])
    found = tables[1].slice(4 + 1, 1).to_pylist()[0]
    assert found["codes"] == expected.codes.tobytes()
    assert found["peak"] == pytest.approx(expected.peak)
    assert [value is None for value in tables[1].column("photo").to_pylist()] == [False, True, True, True] * 4
    controls = tables[1].slice(2, 2).to_pylist()  # random and centre have nothing to show
    assert {row["codes"] for row in controls} == {None}


def test_a_photo_of_two_labels_is_kept_once(tmp_path):
    classifier = load(toy_model(tmp_path))
    photos = open_dataset(str(toy_boxes(tmp_path / "boxes", 2)))
    made = Run(photos, classifier, Settings(("lrp",), metrics(["energy-pointing"])), tmp_path / "run")
    made.complete()
    (table,) = made.store.pictures()
    photos = table.column("photo").to_pylist()
    assert [photo is not None for photo in photos[::3]] == [True, False, True, False]
    assert [codes is not None for codes in table.column("codes").to_pylist()[::3]] == [True] * 4
    boxes = table.column("boxes").to_pylist()  # the model sees the whole of 48 x 40 pixels
    ant, dog = [2 / 48, 2 / 40, 14 / 48, 14 / 40], [20 / 48, 10 / 40, 46 / 48, 38 / 40]
    assert np.allclose(boxes[::3], [ant, dog, ant, dog])
    assert boxes[1::3] == boxes[2::3] == [None] * 4


def test_a_run_begun_without_them_goes_on_and_keeps_what_it_has(run):
    made = run("run", pictures=False)
    made.complete()
    shutil.copytree(made.folder, made.folder.with_name("again"))
    again = run("again")
    (again.folder / part_name(16, 20)).unlink()
    assert again.complete().computed == 4
    first, second = again.store.pictures()
    assert first is None
    assert len(second) == 16
    assert (again.folder / "rows.parquet").read_bytes() == (made.folder / "rows.parquet").read_bytes()
