import json

import numpy as np
import pytest
import torch

from clarp.data import AnnotationError, coco

masks = pytest.importorskip("pycocotools.mask")

SQUARE = [[2, 3, 12, 3, 12, 13, 2, 13]]


class Tree:
    def __init__(self, root, paint):
        self.images, self.path, self.paint = root / "val2014", root / "instances.json", paint
        self.images.mkdir()
        self.content = {
            "images": [],
            "annotations": [],
            "categories": [
                {"id": 9, "name": "boat"},
                {"id": 2, "name": "zebra"},
                {"id": 90, "name": "apple"},
            ],
        }

    def image(self, identity, height=20, width=30, *, photo=True, stated=None):
        name = f"COCO_val2014_{identity:012d}.jpg"
        if photo:
            self.paint(self.images / name, height, width)
        stated = stated or (height, width)
        self.content["images"].append(
            {"id": identity, "file_name": name, "height": stated[0], "width": stated[1]}
        )

    def thing(self, image, category=9, box=(2, 3, 10, 10), segmentation=SQUARE, crowd=0):
        self.content["annotations"].append(
            {
                "id": 1,
                "image_id": image,
                "category_id": category,
                "bbox": list(box),
                "segmentation": segmentation,
                "iscrowd": crowd,
            }
        )

    def read(self, indent=None):
        self.path.write_text(json.dumps(self.content, indent=indent))
        return coco(self.path, self.images)


@pytest.fixture
def tree(tmp_path, paint):
    return Tree(tmp_path, paint)


def test_classes_boxes_and_masks(tree):
    tree.image(7)
    tree.image(3)
    tree.thing(7)
    tree.thing(7, 90, (20, 0, 4, 4), [[20, 0, 24, 0, 24, 4, 20, 4]])
    tree.thing(7, 9, (12, 13, 5, 5), [[12, 13, 17, 13, 17, 18, 12, 18]])
    dataset = tree.read()
    assert dataset.classes == ("zebra", "boat", "apple")
    assert [(s.id[-7:], s.labels) for s in dataset] == [("003.jpg", ()), ("007.jpg", ((1,), (2,)))]
    sample = dataset[1]
    assert sample.objects[0].box == (2, 3, 12, 13)
    expected = torch.zeros(20, 30, dtype=torch.bool)
    expected[3:13, 2:12] = expected[13:18, 12:17] = True
    assert torch.equal(sample.truth((1,)).mask, expected)
    assert sample.truth((2,)).difficult


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")
def test_masks_equal_pycocotools(tree):
    tree.image(1)
    polygons = [[1.5, 2.5, 20.25, 4, 14, 17.75], [22, 10, 28.5, 10, 25, 19]]
    tree.thing(1, segmentation=polygons)
    expected = masks.decode(masks.merge(masks.frPyObjects(polygons, 20, 30))).astype(bool)
    sample = tree.read()[0]
    assert torch.equal(sample.objects[0].mask((20, 30)), torch.from_numpy(expected))


@pytest.mark.parametrize("compressed", [False, True])
def test_crowds_are_run_lengths(tree, compressed):
    pixels = np.random.default_rng(0).random((20, 30)) < 0.4
    lengths = masks.encode(np.asfortranarray(pixels.astype(np.uint8)))
    segmentation = {"size": [20, 30], "counts": lengths["counts"].decode()}
    if not compressed:  # runs of background and object in turn, down the columns
        flat = pixels.T.flatten()
        changes = np.flatnonzero(np.diff(flat, prepend=False))
        segmentation["counts"] = np.diff([0, *changes, flat.size]).tolist()
    tree.image(1)
    tree.thing(1, segmentation=segmentation, crowd=1)
    assert torch.equal(tree.read()[0].truth((1,)).mask, torch.from_numpy(pixels))


@pytest.mark.parametrize(
    "counts",
    [[100, 50], [100, 5000], [], [-5, 605], [300, 300.5], [True, 599], None, "", "zzzz", "P", "T3 2", "é"],
)
def test_run_lengths_that_do_not_cover_the_image(tree, counts):
    """pycocotools believes them: too few leave memory as it was in the mask, too many end the run later."""
    tree.image(1)
    tree.thing(1, segmentation={"size": [20, 30], "counts": counts}, crowd=1)
    with pytest.raises(AnnotationError, match=r"instances\.json:1: COCO_val.*(cover|'counts' is)"):
        tree.read()


def test_compressed_run_lengths_are_counted_as_pycocotools_does(tree):
    """Negative differences, long runs and runs of nothing among them."""
    tree.image(1, 300, 400)
    for seed in range(6):
        generator = np.random.default_rng(seed)
        pixels = np.repeat(generator.random(1200) < 0.5, 100)[
            generator.permutation(120000) // (1 + 50 * seed)
        ]
        if seed == 5:
            pixels[:] = True
        lengths = masks.encode(np.asfortranarray(pixels.reshape(300, 400).astype(np.uint8)))
        tree.thing(1, segmentation={"size": [300, 400], "counts": lengths["counts"].decode()}, crowd=1)
    assert [thing.region.counts.decode() for thing in tree.read()[0].objects] == [
        record["segmentation"]["counts"] for record in tree.content["annotations"]
    ]


@pytest.mark.parametrize(
    ("place", "edit", "reason"),
    [
        ("annotations", lambda record: record.pop("segmentation"), "there is no 'segmentation'"),
        ("annotations", lambda record: record.pop("bbox"), "there is no 'bbox'"),
        ("annotations", lambda record: record.pop("image_id"), "there is no 'image_id'"),
        ("annotations", lambda record: record.pop("category_id"), "there is no 'category_id'"),
        ("annotations", lambda record: record.update(bbox=[1, 2, 3]), "'bbox' is .*expected four finite"),
        (
            "annotations",
            lambda record: record.update(bbox=[1, 2, float("nan"), 3]),
            "'bbox' is .*four finite",
        ),
        ("annotations", lambda record: record.update(bbox=[1, 2, -3, 3]), "has no area"),
        ("annotations", lambda record: record.update(segmentation=5), "neither run lengths nor"),
        ("annotations", lambda record: record.update(segmentation=[5]), "neither run lengths nor"),
        ("annotations", lambda record: record.update(segmentation=[[1, 1, 9, 1, 9, 9, 1]]), "has 7 numbers"),
        ("annotations", lambda record: record.update(segmentation={"counts": [600]}), "there is no 'size'"),
        ("annotations", lambda record: record.update(segmentation={"size": [20]}), "a size of 1 numbers"),
        ("images", lambda record: record.pop("height"), "there is no 'height'"),
        ("images", lambda record: record.update(file_name=5), "'file_name' is 5, expected a text"),
        ("images", lambda record: record.update(id="one"), "'id' is 'one', expected a whole number"),
        ("categories", lambda record: record.pop("name"), "there is no 'name'"),
    ],
)
def test_fields_that_are_absent_or_wrong(tree, place, edit, reason):
    tree.image(1)
    tree.image(2)
    tree.thing(1)
    tree.thing(1)
    edit(tree.content[place][1])
    with pytest.raises(AnnotationError, match=reason) as caught:
        tree.read(indent=1)
    first = caught.value.contradictions[0]
    lines = tree.path.read_text().splitlines()
    begin = lines.index(f' "{place}": [')
    second = [n for n, line in enumerate(lines, start=1) if n > begin and line == "  {"][1]
    assert (first.file, first.line) == ("instances.json", second)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), 10**400, None, "1", True])
def test_polygons_of_what_is_no_number(tree, number):
    """pycocotools asks for all memory there is."""
    tree.image(1)
    tree.thing(1, segmentation=[[number, 1, 9, 1, 9, 9]])
    with pytest.raises(AnnotationError, match="polygons of finite numbers"):
        tree.read()


def test_an_image_that_lacks_something_is_one_contradiction(tree):
    tree.image(1)
    tree.thing(1)
    del tree.content["images"][0]["height"]
    with pytest.raises(AnnotationError) as caught:
        tree.read()
    assert [c.reason for c in caught.value.contradictions] == ["there is no 'height': add it"]


def test_ids_and_files_that_are_there_twice(tree):
    tree.image(1)
    tree.image(1)
    tree.image(3)
    tree.content["images"][2]["file_name"] = tree.content["images"][0]["file_name"]
    tree.content["categories"].append({"id": 9, "name": "ship"})
    with pytest.raises(AnnotationError) as caught:
        tree.read()
    assert sorted(c.reason for c in caught.value.contradictions) == [
        "COCO_val2014_000000000001.jpg is there twice",
        "the category id 9 is there twice",
        "the image id 1 is there twice",
    ]


def test_a_field_that_is_there_twice(tree):
    tree.image(1)
    tree.thing(1)
    tree.read()
    text = tree.path.read_text()
    tree.path.write_text(text.replace('"bbox"', '"bbox": [0, 0, 1, 1], "bbox"'))
    with pytest.raises(AnnotationError, match="'bbox' is there twice"):
        coco(tree.path, tree.images)


def test_a_box_without_area_beside_a_good_mask(tree):
    tree.image(1)
    tree.thing(1, box=(2, 3, 0, 10))
    (thing,) = tree.read()[0].objects
    assert thing.box is None
    assert int(thing.mask((20, 30)).sum()) == 100


def test_rounding_at_the_border_is_forgiven(tree):
    tree.image(1)
    tree.thing(1, box=(2, 3, 28.4, 17.2), segmentation=[[2, 3, 30.4, 3, 30.4, 20.2, 2, 20.2]])
    assert tree.read()[0].objects[0].box == (2, 3, 30, 20)


def test_missing_and_damaged_photos_are_named(tree):
    tree.image(1, photo=False)
    tree.image(2)
    tree.image(3)
    (tree.images / "COCO_val2014_000000000003.jpg").write_text("nothing")
    dataset = tree.read()
    assert [(p.kind, p.file[-5:]) for p in dataset.problems] == [("missing", "1.jpg"), ("damaged", "3.jpg")]
    assert len(dataset) == 1


def test_contradictions_are_refused_at_once_with_file_and_line(tree):
    tree.image(1)
    tree.image(2, stated=(20, 31))
    tree.thing(1, box=(2, 3, 100, 10))
    tree.thing(1, category=5)
    tree.thing(77)
    tree.thing(1, segmentation=[[2, 3, 12, 3]])
    tree.thing(1, segmentation={"size": [30, 20], "counts": [600]})
    tree.thing(1, segmentation=[[2, 3, 90, 3, 12, 13]])
    with pytest.raises(AnnotationError) as caught:
        tree.read(indent=1)
    lines = tree.path.read_text().splitlines()
    text = str(caught.value)
    expected = {
        "the size is 31 x 20 pixels, the photo has 30 x 20": '"id": 2',
        "the box (2, 3, 102, 13) (left, top, right, bottom) leaves the image of 30 x 20": None,
        "category id 5 is not in the file": None,
        "image id 77 is not in the file": None,
        "no polygon with three corners": None,
        "the mask has 20 x 30 pixels, the photo 30 x 20": None,
        "the polygon in (2, 3, 90, 13)": None,
    }
    assert len(caught.value.contradictions) == len(expected)
    for reason in expected:
        assert reason in text
    for contradiction in caught.value.contradictions:
        assert contradiction.file == "instances.json"
        assert lines[contradiction.line - 1].strip() == "{"
    image = next(c for c in caught.value.contradictions if "31 x 20" in c.reason)
    assert '"id": 2' in lines[image.line]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"instances\.json:1: not JSON"),
        ("{}", "has no images, annotations, categories"),
        ("[]", "has no images, annotations, categories"),
        ("5", "has no images, annotations, categories"),
        ('{"images": {}, "annotations": [], "categories": []}', "'images' is {}, expected a list"),
    ],
)
def test_not_coco(tree, text, message):
    tree.path.write_text(text)
    with pytest.raises(ValueError, match=message):
        coco(tree.path, tree.images)


def test_no_file(tree):
    with pytest.raises(ValueError, match="does not exist"):
        coco(tree.path, tree.images)
