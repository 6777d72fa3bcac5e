"""The layout is found by looking; every reader's own tests are beside this file."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from clarp.data.opening import open_dataset


def photo(path, alpha=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(path.name)).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    if alpha:
        mask = np.zeros((12, 16), dtype=np.uint8)
        mask[3:9, 4:12] = 255
        image.putalpha(Image.fromarray(mask))
    image.save(path)
    return path


def table(folder, column):
    with (folder / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([["file", column], ["a.png", "0"], ["b.png", "2"]])


def test_class_folders_by_the_model_s_names(tmp_path):
    for name in ("cow/x.png", "ant/y.png"):
        photo(tmp_path / name)
    found = open_dataset(str(tmp_path), ["ant", "bee", "cow"])
    assert [(sample.id, sample.labels) for sample in found] == [
        ("ant/y.png", ((0,),)),
        ("cow/x.png", ((2,),)),
    ]


@pytest.mark.parametrize("column", ["class", "classes"])
def test_a_table_with_either_name_of_the_column(tmp_path, column):
    for name in ("a.png", "b.png"):
        photo(tmp_path / name)
    table(tmp_path, column)
    assert [sample.labels for sample in open_dataset(str(tmp_path))] == [((0,),), ((2,),)]


def test_a_table_with_a_header_in_quotes(tmp_path):
    photo(tmp_path / "a.png")
    (tmp_path / "labels.csv").write_text('"file","classes"\na.png,3\n')
    assert open_dataset(str(tmp_path))[0].labels == ((3,),)


def test_boxes(tmp_path):
    photo(tmp_path / "a.png")
    thing = {"label": "ant", "classes": [0], "box": [1, 1, 5, 5]}
    (tmp_path / "boxes.json").write_text(
        json.dumps({"a.png": {"width": 16, "height": 12, "objects": [thing]}})
    )
    assert open_dataset(str(tmp_path))[0].objects[0].box == (1, 1, 5, 5)


VOC = """<annotation><size><width>16</width><height>12</height></size>
<object><name>cat</name><bndbox><xmin>2</xmin><ymin>2</ymin><xmax>8</xmax><ymax>9</ymax></bndbox></object></annotation>"""


@pytest.mark.parametrize("inside", ["", "VOC2007"])
@pytest.mark.parametrize("lists", [("val", "test"), ("val",), ()])
def test_voc_with_the_test_list_if_there_is_one(tmp_path, inside, lists):
    root = tmp_path / inside
    for name in ("one", "two"):
        photo(root / "JPEGImages" / f"{name}.jpg")
        (root / "Annotations").mkdir(exist_ok=True)
        (root / "Annotations" / f"{name}.xml").write_text(VOC)
    for name in lists:
        (root / "ImageSets" / "Main").mkdir(parents=True, exist_ok=True)
        (root / "ImageSets" / "Main" / f"{name}.txt").write_text("one\n" if name == "test" else "two\n")
    expected = {2: ["one"], 1: ["two"], 0: ["one", "two"]}[len(lists)]
    assert [sample.id for sample in open_dataset(str(tmp_path))] == expected


@pytest.mark.parametrize(
    "spec", ["{0}", "{0}/annotations/instances_val.json", "{0}/annotations/instances_val.json:{0}/val"]
)
def test_coco(tmp_path, spec):
    pytest.importorskip("pycocotools")
    photo(tmp_path / "val" / "a.png")
    (tmp_path / "annotations").mkdir()
    thing = {"image_id": 1, "category_id": 7, "bbox": [1, 1, 4, 4], "segmentation": [[1, 1, 5, 1, 5, 5]]}
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": 16, "height": 12}],
        "annotations": [thing],
        "categories": [{"id": 7, "name": "cat"}],
    }
    (tmp_path / "annotations" / "instances_val.json").write_text(json.dumps(content))
    assert open_dataset(spec.format(tmp_path))[0].labels == ((0,),)


def test_imagenet(tmp_path):
    photo(tmp_path / "val" / "n01440764" / "a.JPEG")
    (tmp_path / "LOC_synset_mapping.txt").write_text("n01440764 tench\n")
    assert open_dataset(str(tmp_path)).name == "imagenet-val"


def test_mosaics_of_the_photos_that_are_chosen(tmp_path):
    for name in ("ant", "bee", "cow", "dog", "elk"):
        photo(tmp_path / name / "x.png")
    seen = []

    def choose(photos):
        seen.append(photos)
        return photos.select(lambda sample: not sample.id.startswith("elk"))

    found = open_dataset(f"mosaics:{tmp_path}", count=2, seed=3, choose=choose)
    assert len(found) == 2
    assert len(seen[0]) == 5
    assert all({label for (label,) in sample.labels} == {0, 1, 2, 3} for sample in found)
    assert found[0].id.startswith("3-")


def test_composites(tmp_path):
    for name in ("a.png", "b.png"):
        photo(tmp_path / name, alpha=True)
    table(tmp_path, "classes")
    assert len(open_dataset(f"composites:{tmp_path}", count=3)) == 3
    assert len(open_dataset(f"composites:{tmp_path}")) == 500


def test_what_is_no_data_set(tmp_path):
    with pytest.raises(ValueError, match=r"is not a folder, expected a data set: class folders, labels\.csv"):
        open_dataset(str(tmp_path / "nothing"))
    with pytest.raises(ValueError, match=r"has no class folders.*Layouts that are known"):
        open_dataset(str(tmp_path))
    (tmp_path / "annotations").mkdir()
    for name in ("val", "train"):
        (tmp_path / "annotations" / f"instances_{name}.json").write_text("{}")
    with pytest.raises(ValueError, match="give the one that is meant"):
        open_dataset(str(tmp_path))
