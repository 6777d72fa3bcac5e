import pytest
import torch
from PIL import Image

from clarp.data import VOC_CLASSES, AnnotationError, voc

OBJECT = """  <object>
    <name>{name}</name>
    <difficult>{difficult}</difficult>
    <part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>
    <bndbox><xmin>{0}</xmin><ymin>{1}</ymin><xmax>{2}</xmax><ymax>{3}</ymax></bndbox>
  </object>
"""
CAT, DOG, PERSON = (VOC_CLASSES.index(name) for name in ("cat", "dog", "person"))


class Tree:
    def __init__(self, root, paint):
        self.root, self.paint = root / "VOCdevkit" / "VOC2007", paint
        for folder in ("Annotations", "ImageSets/Main", "ImageSets/Segmentation", "SegmentationObject"):
            (self.root / folder).mkdir(parents=True)

    def add(self, name, *objects, size=(20, 30), photo=True, stated=None):
        if photo:
            self.paint(self.root / "JPEGImages" / f"{name}.jpg", *size)
        height, width = stated or size
        lines = [f"<annotation>\n<size><width>{width}</width>\n<height>{height}</height></size>\n"]
        lines += [
            OBJECT.format(*box, name=kind, difficult=int(difficult)) for kind, box, difficult in objects
        ]
        (self.root / "Annotations" / f"{name}.xml").write_text("".join(lines) + "</annotation>\n")

    def list(self, *names, split="test", kind="Main"):
        (self.root / "ImageSets" / kind / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))


@pytest.fixture
def tree(tmp_path, paint):
    tree = Tree(tmp_path, paint)
    tree.add(
        "000007", ("cat", (1, 1, 10, 5), False), ("dog", (11, 6, 30, 20), True), ("cat", (5, 2, 6, 8), True)
    )
    tree.add("000003", ("person", (4, 4, 4, 4), False))
    tree.list("000007", "000003")
    return tree


def test_labels_boxes_and_flags(tree):
    dataset = voc(tree.root)
    assert [sample.id for sample in dataset] == ["000007", "000003"]
    first = dataset[0]
    assert first.labels == ((CAT,), (DOG,))
    assert [(thing.name, thing.box, thing.difficult) for thing in first.objects] == [
        ("cat", (0, 0, 10, 5), False),
        ("dog", (10, 5, 30, 20), True),
        ("cat", (4, 1, 6, 8), True),
    ]
    assert dataset.name == "voc2007-test"
    assert dataset.classes == VOC_CLASSES


def test_boxes_count_from_one_and_include_both_ends(tree):
    """TorchRay's mask: rows ymin - 1 to ymax - 1 and columns xmin - 1 to xmax - 1, both included."""
    cat = voc(tree.root)[0].truth((CAT,)).mask
    expected = torch.zeros(20, 30, dtype=torch.bool)
    expected[0:5, 0:10] = expected[1:8, 4:6] = True
    assert torch.equal(cat, expected)
    person = voc(tree.root)[1].truth((PERSON,)).mask
    assert person.nonzero().tolist() == [[3, 3]]


def test_truth_of_the_protocol(tree):
    sample = voc(tree.root)[0]
    assert sample.truth((CAT,)).difficult  # 64 of 600 pixels, beside a dog
    assert not sample.truth((CAT,)).skip
    assert sample.truth((DOG,)).skip
    assert not voc(tree.root)[1].truth((PERSON,)).difficult  # alone


def test_the_folder_above(tree):
    assert voc(tree.root.parent) == voc(tree.root)


def test_two_years_above(tree):
    (tree.root.parent / "VOC2012" / "Annotations").mkdir(parents=True)
    with pytest.raises(ValueError, match="found VOC2007, VOC2012: give that folder"):
        voc(tree.root.parent)


def test_every_annotation(tree):
    assert [sample.id for sample in voc(tree.root, None)] == ["000003", "000007"]


def test_no_such_list(tree):
    tree.list("000007", split="trainval")
    tree.list("000007  1", split="cat_trainval")
    with pytest.raises(ValueError, match="does not exist: there are test, trainval"):
        voc(tree.root, "val")


def test_missing_and_damaged_files_are_named(tree, tmp_path, paint):
    tree.add("1", ("cat", (1, 1, 9, 9), False), photo=False)
    paint(tree.root / "JPEGImages" / "2.jpg")
    tree.add("3", ("cat", (1, 1, 9, 9), False))
    (tree.root / "Annotations" / "3.xml").write_text("<annotation>\n<size>\n</annotation>")
    tree.add("4", ("cat", (1, 1, 9, 9), False))
    (tree.root / "JPEGImages" / "4.jpg").write_bytes(b"nothing")
    tree.add("5", ("cat", (1, 1, 9, 9), False))
    (tree.root / "Annotations" / "5.xml").write_text('<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>')
    tree.list("1", "2", "3", "4", "5", "000003")
    dataset = voc(tree.root)
    assert [sample.id for sample in dataset] == ["000003"]
    found = [(problem.kind, problem.file) for problem in dataset.problems]
    assert found == [
        ("missing", "JPEGImages/1.jpg"),
        ("missing", "Annotations/2.xml"),
        ("damaged", "Annotations/3.xml"),
        ("damaged", "JPEGImages/4.jpg"),
        ("damaged", "Annotations/5.xml"),
    ]
    assert dataset.problems[2].reason == "line 3: mismatched tag"
    assert "entity" in dataset.problems[4].reason
    assert str(dataset) == "voc2007-test: 1 samples, 3 damaged, 2 missing"


def test_contradictions_are_refused_at_once_with_file_and_line(tree):
    tree.add("a", ("unicorn", (1, 1, 9, 9), False))
    tree.add("b", ("cat", (1, 1, 40, 9), False))
    tree.add("c", ("cat", (1, 1, 9, 9), False), stated=(30, 20))
    tree.add("d", ("cat", (9, 1, 5, 9), False))
    tree.add("e", ("cat", ("x", 1, 5, 9), False))
    tree.list("a", "b", "c", "d", "e", "000007")
    with pytest.raises(AnnotationError) as caught:
        voc(tree.root)
    found = [(c.file, c.line) for c in caught.value.contradictions]
    assert found == [
        ("Annotations/a.xml", 5),
        ("Annotations/b.xml", 8),
        ("Annotations/c.xml", 2),
        ("Annotations/d.xml", 8),
        ("Annotations/e.xml", 8),
    ]
    text = str(caught.value)
    assert "Annotations/a.xml:5: class 'unicorn' is not one of the data set's 20 classes" in text
    assert "(0, 0, 40, 9) (left, top, right, bottom) leaves the image of 30 x 20 pixels" in text
    assert "Annotations/c.xml:2: the size is 20 x 30 pixels, the photo has 30 x 20" in text
    assert "has no area" in text
    assert "no numbers xmin, ymin, xmax, ymax" in text


def test_classes_of_ones_own(tree):
    tree.add("a", ("unicorn", (1, 1, 9, 9), False))
    tree.list("a")
    assert voc(tree.root, classes=["horse", "unicorn"])[0].labels == ((1,),)


def test_annotations_as_labelme_writes_them(tree):
    """An empty difficult flag, and boxes with fractions that count from 0."""
    tree.add("a", ("cat", (0.0, 1.25, 30.0, 9.5), False))
    path = tree.root / "Annotations" / "a.xml"
    path.write_text(path.read_text().replace("<difficult>0</difficult>", "<difficult/>"))
    tree.list("a")
    (thing,) = voc(tree.root)[0].objects
    assert thing.box == (0, 0.25, 30, 9.5)
    assert not thing.difficult


class TestSegmentation:
    @pytest.fixture
    def instances(self, tree):
        image = Image.new("P", (30, 20))
        image.paste(1, (2, 1, 5, 3))
        image.paste(2, (12, 7, 20, 15))
        image.paste(255, (20, 7, 21, 15))  # the border that belongs to nobody
        image.putpalette([value for index in range(256) for value in (index, 255 - index, 0)])
        image.save(tree.root / "SegmentationObject" / "000007.png")
        tree.list("000007", kind="Segmentation")
        return tree

    def test_objects_are_numbered_in_the_annotations_order(self, instances):
        sample = voc(instances.root, place="segmentation")[0]
        expected = torch.zeros(20, 30, dtype=torch.bool)
        expected[1:3, 2:5] = True
        assert torch.equal(sample.objects[0].mask(sample.size), expected)
        assert int(sample.truth((DOG,)).mask.sum()) == 64

    def test_missing(self, instances):
        instances.list("000007", "000003", kind="Segmentation")
        dataset = voc(instances.root, place="segmentation")
        assert [str(problem) for problem in dataset.problems] == [
            "SegmentationObject/000003.png: missing (no such file)"
        ]

    def test_another_size(self, instances):
        Image.new("P", (30, 21)).save(instances.root / "SegmentationObject" / "000007.png")
        with pytest.raises(AnnotationError, match=r"SegmentationObject/000007\.png:1: .*30 x 21"):
            voc(instances.root, place="segmentation")


def test_a_name_that_is_listed_twice(tree):
    tree.list("000007", "000003", "000007")
    with pytest.raises(AnnotationError, match=r"ImageSets/Main/test\.txt:3: 000007 is listed twice"):
        voc(tree.root)


def test_the_fingerprint_follows_the_segmentation(tree):
    """A run that is taken up again must not mix two truths."""
    tree.list("000007", split="val", kind="Segmentation")
    path = tree.root / "SegmentationObject" / "000007.png"
    fingerprints = set()
    for value in (1, 2, 1):
        Image.new("L", (30, 20), value).save(path)
        fingerprints.add(voc(tree.root, "val", place="segmentation").fingerprint())
    assert len(fingerprints) == 2
