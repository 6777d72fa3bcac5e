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


GOOD = {"label": "x", "classes": [1], "box": [0, 0, 5, 5]}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"width": "wide"}, "'width' is 'wide', expected a whole number"),
        ({"objects": 3}, "'objects' is 3, expected a list"),
        ({"objects": [GOOD, [1]]}, r"object 2: \[1\] is no object, expected one with 'box'"),
        ({"objects": [GOOD | {"box": [1, 2, 3]}]}, r"object 1: 'box' is \[1, 2, 3\], expected four"),
        ({"objects": [GOOD | {"box": [float("nan"), 2, 3, 4]}]}, "object 1: 'box' is .*four finite"),
        ({"objects": [GOOD | {"classes": []}]}, r"'classes' is \[\], expected a list of class indices"),
        ({"objects": [GOOD | {"classes": [-1]}]}, r"'classes' is \[-1\], expected a list of class"),
        ({"objects": [GOOD | {"classes": 1}]}, "'classes' is 1, expected a list of class indices"),
        ({"objects": [{"classes": [1], "box": [0, 0, 5, 5]}]}, "there is no 'label'"),
    ],
)
def test_fields_that_are_wrong_have_file_and_line(table, changes, reason):
    with pytest.raises(AnnotationError, match=rf"boxes\.json:2: b\.jpg: .*{reason}"):
        boxed_photos(table(**changes))


@pytest.mark.parametrize("name", ["width", "height", "objects"])
def test_fields_that_are_absent(table, name):
    root = table()
    content = json.loads((root / "boxes.json").read_text())
    del content["b.jpg"][name]
    (root / "boxes.json").write_text(json.dumps(content))
    with pytest.raises(AnnotationError, match=f"b.jpg: there is no '{name}': add it"):
        boxed_photos(root)


def test_files_that_are_listed_twice(table):
    path = table() / "boxes.json"
    path.write_text(path.read_text().replace("a.jpg", "b.jpg"))
    with pytest.raises(
        AnnotationError, match=r"1 annotation can't.*\n  boxes\.json:21: b\.jpg is listed twice$"
    ):
        boxed_photos(path.parent)


def test_no_object(table):
    root = table()
    (root / "boxes.json").write_text("[]")
    with pytest.raises(ValueError, match=r"boxes\.json holds no object, expected one that maps each file"):
        boxed_photos(root)


def test_lines_are_looked_for_only_where_something_is_wrong(table, monkeypatch):
    monkeypatch.setattr("clarp.data.pairs.json_keys", None)
    assert len(boxed_photos(table())) == 2


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
