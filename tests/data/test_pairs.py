import json

import pytest

from clarp.data import AnnotationError, boxed_photos


@pytest.fixture
def table(tmp_path, paint):
    for name in ("b.jpg", "a.jpg"):
        paint(tmp_path / name, 20, 30)

    def write(**changes):
        content = {
            name: {
                "width": 30,
                "height": 20,
                "objects": [{"label": "zebra", "classes": [340, 1], "box": [0, 2, 10, 12]}],
            }
            for name in ("b.jpg", "a.jpg")
        }
        content["b.jpg"].update(changes)
        (tmp_path / "boxes.json").write_text(json.dumps(content, indent=1))
        return tmp_path

    return write


def test_labels_and_boxes(table):
    dataset = boxed_photos(table())
    assert [sample.id for sample in dataset] == ["a.jpg", "b.jpg"]
    assert dataset[0].labels == ((340, 1),)
    assert int(dataset[0].truth((340, 1)).mask.sum()) == 100


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"width": 31}, "the size is 31 x 20 pixels, the photo has 30 x 20"),
        ({"objects": [{"label": "x", "classes": [1], "box": [0, 0, 50, 5]}]}, "leaves the image"),
    ],
)
def test_contradictions_have_file_and_line(table, changes, reason):
    with pytest.raises(AnnotationError, match=rf"boxes\.json:2: b\.jpg: .*{reason}"):
        boxed_photos(table(**changes))


def test_missing_photos_are_named(table):
    root = table()
    (root / "b.jpg").unlink()
    assert [str(problem) for problem in boxed_photos(root).problems] == ["b.jpg: missing (no such file)"]


def test_no_table(tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        boxed_photos(tmp_path)


def test_not_json(tmp_path):
    (tmp_path / "boxes.json").write_text('{\n"a": }')
    with pytest.raises(ValueError, match=r"boxes\.json:2: not JSON"):
        boxed_photos(tmp_path)
