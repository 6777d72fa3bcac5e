"""Malicious and broken data sets: each is a problem or an error that names the file and the line."""

import json
import os
import socket
import subprocess
import sys
from contextlib import suppress
from typing import ClassVar

import pytest

from clarp.data import boxed_photos, coco, image_folder, image_table, imagenet, voc
from clarp.data._fields import FieldError
from clarp.data._located import MalformedFileError, read_json, read_xml
from clarp.data.coco import _decompressed, _region
from clarp.data.opening import open_dataset
from clarp.data.problems import AnnotationError, Contradiction, Problem
from clarp.files import read_regular

pytest.importorskip("pycocotools")
SIZE = (30, 40)


@pytest.fixture(autouse=True)
def _soon():
    """In processor time, this process's and its children's: other tests run beside this one."""
    began = sum(os.times()[:4])
    yield
    assert sum(os.times()[:4]) - began < 10


class TestPolygons:
    """pycocotools writes outside of its memory, or asks for all there is, where a polygon says so."""

    @pytest.mark.parametrize(
        "corners",
        [
            [0, 0, 0, 0, 0, 1e9],
            [5, 5, 5, 5, 5e9, 5],
            [-1e6, 3, -1e6, 3, -1e6, 3],
            [3, 99, 3, 99, 3, 99],
            [1e299, 1, 1e299, 1, 1e299, 1],
            [0, 0, 2**31, 0, 2**31, 0],
            [0, -2.0, 5, -2.0, 9, -2.0],
        ],
    )
    def test_without_area_outside_of_the_photo(self, corners):
        with pytest.raises(FieldError, match="leaves the image of 40 x 30 pixels"):
            _region([corners], SIZE)

    def test_that_go_around_a_million_pixels(self):
        zigzag = [number for k in range(30_000) for number in (k % 2 * 40, k % 7)]
        with pytest.raises(FieldError, match=r"go 1\.2e\+06 pixels around, expected at most 1e\+06"):
            _region([zigzag], SIZE)
        with pytest.raises(FieldError, match="pixels around"):
            _region([[0, 0, 40, 0, 0, 1]] * 20_000, SIZE)

    @pytest.mark.parametrize(
        "corners", [[1, 1, 1, 1, 1, 1], [0, 0, 40, 30, 0, 0], [-1, -1, 41, -1, 41, 31, -1, 31]]
    )
    def test_without_area_inside(self, corners):
        assert _region([corners], SIZE).mask(SIZE).shape == SIZE

    def test_the_file_and_the_line(self, tmp_path, paint):
        paint(tmp_path / "a.png", *SIZE)
        record = {
            "id": 1,
            "image_id": 1,
            "category_id": 1,
            "bbox": [1, 1, 5, 5],
            "segmentation": [[0, 0, 0, 0, 0, 1e9]],
        }
        content = {
            "images": [{"id": 1, "file_name": "a.png", "width": 40, "height": 30}],
            "categories": [{"id": 1, "name": "ant"}],
            "annotations": [record],
        }
        path = tmp_path / "instances.json"
        path.write_text(json.dumps(content, indent=1))
        with pytest.raises(AnnotationError, match=r"instances\.json:17: a\.png: the polygon in"):
            coco(path, tmp_path)


class TestRunLengths:
    @pytest.mark.parametrize("text", ["P" * 1_000_000, "o" * 50, "0" * 3 + "P" * 20 + "0"])
    def test_numbers_that_never_end(self, text):
        assert _decompressed(text) is None
        with pytest.raises(FieldError, match="COCO's compressed run lengths"):
            _region({"size": [30, 40], "counts": text}, SIZE)

    @pytest.mark.parametrize(
        "counts", [[-1, 1201], [2**40, 1], [1e300], ["1200"], [1200, 2**62, 2**62], [[1200]], None]
    )
    def test_that_cover_something_else(self, counts):
        with pytest.raises(FieldError):
            _region({"size": [30, 40], "counts": counts}, SIZE)

    def test_many_of_no_length(self):
        lengths = _region({"size": [30, 40], "counts": [0] * 100_000 + [1200]}, SIZE)
        assert lengths.mask(SIZE).shape == SIZE


def xml(tmp_path, content: bytes):
    path = tmp_path / "a.xml"
    path.write_bytes(content)
    return read_xml(path)


class TestXml:
    @pytest.mark.parametrize(
        "name",
        [
            "idna",
            "rot13",
            "zip",
            "hex",
            "punycode",
            "utf-7",
            "big5",
            "shift_jis",
            "nothing",
            "",
            "x" * 10_000,
            "undefined",
            "utf-16",
        ],
    )
    def test_odd_encodings(self, tmp_path, name):
        content = f"<?xml version='1.0' encoding='{name}'?>\n<a>\xe9</a>".encode("latin-1")
        with suppress(MalformedFileError):
            xml(tmp_path, content)

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (b"", "line 1: no element found"),
            (b"\xff\xfe<\0a", "line 1"),
            (b"<a>" * 100_000, "line 1: more than 500 elements in each other"),
            (b"<a>\n" * 600, "line 501: more than 500"),
            (b"<!DOCTYPE a [<!ENTITY b 'c'>]>\n<a>&b;</a>", "line 1: entity declarations are not read"),
            (b"<a>\0</a>", "line 1"),
            (b"<a></b>", "line 1: mismatched tag"),
        ],
    )
    def test_broken(self, tmp_path, content, said):
        with pytest.raises(MalformedFileError, match=said):
            xml(tmp_path, content)

    def test_long_texts_take_no_longer_than_they_are(self, tmp_path):
        root = xml(tmp_path, b"<a>" + b"&#10;x" * 1_000_000 + b"</a>")
        assert len(root.text) == 2_000_000

    def test_more_than_sixteen_mebibytes(self, tmp_path):
        assert xml(tmp_path, b"<a></a>" + b" " * ((16 << 20) - 7)).tag == "a"
        with pytest.raises(OSError, match=r"a\.xml"):
            xml(tmp_path, b"<a></a>" + b" " * (16 << 20))

    def test_many_elements(self, tmp_path):
        assert len(xml(tmp_path, b"<a>" + b"<b/>" * 500_000 + b"</a>").children) == 500_000

    def test_sizes_and_boxes_of_thousands_of_digits(self, tmp_path, paint):
        for folder in ("Annotations", "JPEGImages"):
            (tmp_path / folder).mkdir()
        paint(tmp_path / "JPEGImages" / "a.jpg", *SIZE)
        digits = "9" * 5000
        (tmp_path / "Annotations" / "a.xml").write_text(
            f"<annotation><size><width>{digits}</width><height>{digits}</height></size>\n<object><name>cat</name><bndbox><xmin>{digits}</xmin><ymin>nan</ymin><xmax>inf</xmax><ymax>1</ymax></bndbox></object></annotation>"
        )
        with pytest.raises(AnnotationError, match=r"a\.xml:1: the size.*\n.*a\.xml:2: the box"):
            voc(tmp_path, None)


class TestJson:
    @pytest.mark.parametrize(
        ("content", "said"),
        [
            ('{"a":\n' + "[" * 200_000, "boxes.json:2: lists and objects more than 500 deep"),
            ('{"a":\n\n' + "9" * 5000 + "}", "boxes.json:3: a number of thousands of digits"),
            ('{"a": {"width": 1e999}}', "'height'"),
            ('{"a": NaN}', "nan is no object"),
            ('{"a": "\\ud800"}', "is no object"),
            ("[" * 100, "boxes.json:1: not JSON"),
            ('{"a": tru', "boxes.json:1: not JSON"),
            ("\x00", "boxes.json:1: not JSON"),
            ('"a"', "boxes.json holds no object"),
        ],
        ids=range(9),
    )
    def test_what_is_no_table_of_boxes(self, tmp_path, paint, content, said):
        paint(tmp_path / "a.png", *SIZE).rename(tmp_path / "a")
        (tmp_path / "boxes.json").write_text(content)
        with pytest.raises(ValueError, match=said):
            boxed_photos(tmp_path)

    def test_a_name_that_is_there_thousands_of_times(self, tmp_path):
        path = tmp_path / "a.json"
        path.write_text("{" + ",".join(f'"{k % 50_000}": 1' for k in range(100_000)) + "}")
        _, content = read_json(path, "")
        assert len(content.repeated) == 50_000

    def test_numbers_beyond_all_pictures(self, tmp_path, paint):
        paint(tmp_path / "a.png", *SIZE)
        entry = {"width": int("9" * 4000), "height": 30, "objects": []}
        (tmp_path / "boxes.json").write_text(json.dumps({"a.png": entry}))
        with pytest.raises(AnnotationError, match=r"'width' is .*expected a whole number"):
            boxed_photos(tmp_path)


class TestCsv:
    @pytest.mark.parametrize(
        ("content", "said"),
        [
            ("file,class\na.png," + "9" * 5000, r"labels\.csv:2: a class of 5000 digits does not exist"),
            ("file,class\na.png,\u0661", r"labels\.csv:2: class 1 does not exist"),
            ("file,class\n" + "x" * 200_000 + ",0", r"labels\.csv:2: not CSV \(field larger"),
            ('file,class\n"a.png,0\n' * 3, r"labels\.csv:"),
            ("file,class\na.png,0,1,2", r"labels\.csv:2: 4 cells"),
            ("", "has no header"),
        ],
        ids=range(6),
    )
    def test_broken(self, tmp_path, paint, content, said):
        paint(tmp_path / "a.png", *SIZE)
        (tmp_path / "labels.csv").write_text(content)
        with pytest.raises(ValueError, match=said):
            image_table(tmp_path, classes=("only",))

    @pytest.mark.parametrize("name", ["a\0b.png", "x" * 5000, "\ud83d", "a.png/b"])
    def test_names_of_no_file(self, tmp_path, paint, name):
        paint(tmp_path / "a.png", *SIZE)
        (tmp_path / "labels.csv").write_bytes(f"file,class\n{name},0\na.png,0".encode("utf-8", "replace"))
        dataset = image_table(tmp_path)
        assert [sample.id for sample in dataset] == ["a.png"]
        assert [problem.kind for problem in dataset.problems] == ["missing"]


class TestWhatIsNoFile:
    """Nobody waits: each look has ten seconds, and a pipe that nobody writes to would take for ever."""

    @pytest.fixture
    def odd(self, tmp_path, paint, monkeypatch):
        folder = tmp_path / "ant"
        folder.mkdir()
        paint(folder / "good.png", *SIZE)
        os.mkfifo(folder / "pipe.png")
        monkeypatch.chdir(folder)
        with socket.socket(socket.AF_UNIX) as own:
            own.bind("socket.png")
        (folder / "device.png").symlink_to("/dev/zero")
        (folder / "gone.png").symlink_to(folder / "nowhere")
        return tmp_path

    KINDS: ClassVar = {
        "ant/pipe.png": ("not an image", "a named pipe"),
        "ant/socket.png": ("not an image", "a socket"),
        "ant/device.png": ("not an image", "a device"),
        "ant/gone.png": ("missing", "a link to nothing"),
    }

    def test_in_a_folder(self, odd):
        dataset = image_folder(odd, outside=True)
        assert [sample.id for sample in dataset] == ["ant/good.png"]
        assert {problem.file: (problem.kind, problem.reason) for problem in dataset.problems} == self.KINDS
        assert len(dataset.fingerprint()) == 64

    def test_in_a_table(self, odd):
        (odd / "labels.csv").write_text(
            "file,class\n" + "".join(f"{file},0\n" for file in [*self.KINDS, "ant/good.png"])
        )
        dataset = image_table(odd, outside=True)
        assert [sample.id for sample in dataset] == ["ant/good.png"]
        found = {problem.file: problem.reason for problem in dataset.problems}
        assert found["ant/pipe.png"] == "a named pipe"
        assert found["ant/socket.png"] == "a socket"

    def test_in_a_table_of_boxes(self, odd):
        entry = {"width": 40, "height": 30, "objects": []}
        (odd / "boxes.json").write_text(json.dumps(dict.fromkeys([*self.KINDS, "ant/good.png"], entry)))
        dataset = boxed_photos(odd, outside=True)
        assert [sample.id for sample in dataset] == ["ant/good.png"]
        assert {problem.file for problem in dataset.problems} == {*self.KINDS}

    def test_annotations(self, tmp_path, paint):
        for folder in ("Annotations", "JPEGImages"):
            (tmp_path / folder).mkdir()
        os.mkfifo(tmp_path / "Annotations" / "a.xml")
        (problem,) = voc(tmp_path, None).problems
        assert (problem.file, problem.reason) == (
            "Annotations/a.xml",
            "a named pipe, where a file was expected",
        )

    def test_a_sparse_file_of_a_terabyte(self, tmp_path):
        with (tmp_path / "a.xml").open("wb") as file:
            file.truncate(1 << 40)
        with pytest.raises(OSError, match="bytes, expected at most"):
            read_xml(tmp_path / "a.xml")

    def test_reading(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        os.mkfifo("pipe")
        with socket.socket(socket.AF_UNIX) as own:
            own.bind("socket")
        for name, words in (
            ("pipe", "a named pipe"),
            ("socket", "a socket"),
            ("/dev/zero", "a device"),
            (".", "a folder"),
        ):
            with pytest.raises(OSError, match=words):
                read_regular(type(tmp_path)(name), 10)


class TestOutside:
    """Paths that leave the data set: each reader refuses each kind, and takes it where it is allowed."""

    @pytest.fixture
    def files(self, tmp_path, paint):
        root = tmp_path / "set"
        root.mkdir()
        paint(tmp_path / "secret.jpg", *SIZE)
        paint(root / "good.jpg", *SIZE)
        (root / "link.jpg").symlink_to(tmp_path / "secret.jpg")
        (root / "inside.jpg").symlink_to(root / "good.jpg")
        return ["../secret.jpg", str(tmp_path / "secret.jpg"), "link.jpg"], ["good.jpg", "inside.jpg"], root

    def check(self, read, files, good):
        dataset = read(False)
        assert {problem.file for problem in dataset.problems if problem.kind == "outside"} == {*files}
        assert {sample.id for sample in dataset} == {*good}
        assert all(problem.kind != "outside" for problem in read(True).problems)
        assert {sample.id for sample in read(True)} == {*files, *good}

    def test_a_table(self, files):
        bad, good, root = files
        (root / "labels.csv").write_text("file,class\n" + "".join(f"{file},0\n" for file in bad + good))
        self.check(lambda allowed: image_table(root, outside=allowed), bad, good)
        self.check(lambda allowed: open_dataset(str(root), outside=allowed), bad, good)

    def test_boxes(self, files):
        bad, good, root = files
        entry = {"width": 40, "height": 30, "objects": []}
        (root / "boxes.json").write_text(json.dumps(dict.fromkeys(bad + good, entry)))
        self.check(lambda allowed: boxed_photos(root, outside=allowed), bad, good)

    def test_coco(self, files):
        bad, good, root = files
        images = [
            {"id": k, "file_name": file, "width": 40, "height": 30} for k, file in enumerate(bad + good)
        ]
        (root / "a.json").write_text(json.dumps({"images": images, "annotations": [], "categories": []}))
        self.check(lambda allowed: coco(root / "a.json", root, outside=allowed), bad, good)

    def test_folders(self, files, tmp_path):
        _, _, root = files
        (root / "ant").mkdir()
        (root / "ant" / "a.jpg").symlink_to(tmp_path / "secret.jpg")
        (root / "ant" / "b.jpg").symlink_to(root / "good.jpg")
        (root / "ant" / "all").symlink_to(tmp_path)
        (root / "bee").symlink_to(tmp_path)
        dataset = image_folder(root)
        assert {problem.file for problem in dataset.problems if problem.kind == "outside"} == {
            *("ant/a.jpg", "ant/all", "bee", "link.jpg")
        }
        assert [sample.id for sample in dataset] == ["ant/b.jpg"]

    @pytest.mark.parametrize("identity", ["../../secret", "link"])
    def test_voc(self, tmp_path, paint, identity):
        root = tmp_path / "set"
        for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
            (root / folder).mkdir(parents=True)
        (tmp_path / "secret.xml").write_text("<annotation><object><name>SECRET</name></object></annotation>")
        (root / "Annotations" / "link.xml").symlink_to(tmp_path / "secret.xml")
        (root / "ImageSets" / "Main" / "test.txt").write_text(identity)
        (problem,) = voc(root).problems
        assert problem.kind == "outside"
        with pytest.raises(ValueError, match="SECRET") if identity == "link" else pytest.raises(ValueError):  # noqa: PT011
            paint(root / "JPEGImages" / "link.jpg", *SIZE)
            paint(tmp_path / "secret.jpg", *SIZE)
            voc(root, outside=True)

    def test_imagenet(self, files, tmp_path):
        _, _, root = files
        (root / "LOC_synset_mapping.txt").write_text("n00000001 ant\n")
        (root / "val").mkdir()
        (tmp_path / "secret.jpg").rename(tmp_path / "secret.JPEG")
        rows = "".join(f"{name},n00000001 1 1 5 5\n" for name in ("../../secret", tmp_path / "secret"))
        (root / "LOC_val_solution.csv").write_text("ImageId,PredictionString\n" + rows)
        assert imagenet(root).samples == ()
        assert {problem.kind for problem in imagenet(root).problems} <= {"outside", "missing", "unlabelled"}


OBJECTS = json.dumps({"good.jpg": {"width": 40, "height": 30, "objects": []}})
COCO = json.dumps({"images": [], "annotations": [], "categories": []})
LAYOUTS = {
    "a table": ({"labels.csv": "file,class\ngood.jpg,0\n"}, "labels.csv"),
    "boxes": ({"boxes.json": OBJECTS}, "boxes.json"),
    "VOC's list": (
        {"Annotations/a.xml": "<a/>", "ImageSets/Main/test.txt": "SECRET"},
        "ImageSets/Main/test.txt",
    ),
    "VOC's year": ({"VOC2007/Annotations/a.xml": "<a/>"}, "VOC2007"),
    "COCO's annotations": (
        {"annotations/instances_v.json": COCO, "v/a.jpg": ""},
        "annotations/instances_v.json",
    ),
    "COCO's photos": ({"annotations/instances_v.json": COCO, "v/a.jpg": ""}, "v"),
    "COCO's folder": ({"annotations/instances_v.json": COCO, "v/a.jpg": ""}, "annotations"),
    "synsets": (
        {"LOC_synset_mapping.txt": "n00000001 ant\n", "val/n00000001/a.JPEG": ""},
        "LOC_synset_mapping.txt",
    ),
    "a solution": (
        {
            "LOC_synset_mapping.txt": "n00000001 ant\n",
            "LOC_val_solution.csv": "ImageId,PredictionString\n",
            "ILSVRC/Data/CLS-LOC/val/a.JPEG": "",
        },
        "LOC_val_solution.csv",
    ),
    "ImageNet's photos": (
        {"LOC_synset_mapping.txt": "n00000001 ant\n", "val/n00000001/a.JPEG": ""},
        "val",
    ),
}


@pytest.mark.parametrize("which", LAYOUTS)
def test_a_part_of_the_data_set_that_is_a_link(tmp_path, which):
    """What a link outside leads to is not read: its words would be in errors, its photos in pictures."""
    files, link = LAYOUTS[which]
    root = tmp_path / "set"
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    open_dataset(str(root))
    (root / link).rename(tmp_path / "elsewhere")
    (root / link).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=r"leads out of the data set's folder.*--outside") as error:
        open_dataset(str(root))
    assert "SECRET" not in str(error.value)
    open_dataset(str(root), outside=True)
    moved = root / "inside"
    (tmp_path / "elsewhere").rename(moved)
    (root / link).unlink()
    (root / link).symlink_to(moved)
    open_dataset(str(root))  # a link to another place of the same folder is none of that


def test_names_in_messages_are_harmless():
    """A terminal would obey them: colours, another title, lines that look like clarp's own."""
    for shown in (
        Problem("missing", "a\x1b]0;x\x07\n\u202e.png", "\x9b31m"),
        Contradiction("\x1b[2J\r", 3, "\u2066"),
    ):
        assert str(shown).isprintable()


def test_a_process_that_reads_the_worst_lives():
    """In a process of its own: what pycocotools does wrong would end this one."""
    code = (
        "from clarp.data.coco import _region\n"
        "from clarp.data._fields import FieldError\n"
        "import random\n"
        "chance = random.Random(0)\n"
        "for _ in range(3000):\n"
        "    numbers = [0, -1, 41, 31, 5, 1e9, -1e9, 2**31, 0.5]\n"
        "    values = [chance.choice(numbers) for _ in range(chance.choice([6, 8, 20]))]\n"
        "    counts = [chance.choice([0, 1, 600, 1200, 2**32, -1]) for _ in range(chance.randrange(5))]\n"
        "    letters = '0123456789:;<=>?@OPQRSTabcdefghijklmno'\n"
        "    text = ''.join(chance.choice(letters) for _ in range(chance.randrange(12)))\n"
        "    runs = [{'size': [30, 40], 'counts': each} for each in (counts, text)]\n"
        "    for given in ([values], *runs):\n"
        "        try: _region(given, (30, 40)).mask((30, 40))\n"
        "        except FieldError: pass\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
