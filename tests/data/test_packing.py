"""A packed data set is the one that was packed, whatever its layout was; what is wrong with shards is said."""

import hashlib
import json
import os
import pickle
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import bombs
from clarp.data import Dataset, Photo, Sample, pack, voc
from clarp.data.opening import open_dataset
from clarp.data.packed import ABOUT, index_schema
from clarp.data.problems import StoreError, UnreadableImageError
from clarp.files import write_summed
from clarp.images import notes_of
from evaluation.toys import toy_boxes, toy_photos

arrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")
pytest.importorskip("pycocotools")
SIZE = (20, 30)
CLASSES = ["cow", "ant", "dog", "bee"]
XML = """<annotation><size><width>30</width><height>20</height></size>
<object><name>cat</name><difficult>1</difficult><bndbox><xmin>2</xmin><ymin>2</ymin><xmax>8</xmax><ymax>9</ymax></bndbox></object>
<object><name>dog</name><bndbox><xmin>9</xmin><ymin>3</ymin><xmax>30</xmax><ymax>20</ymax></bndbox></object></annotation>"""


def folders(root, paint):
    toy_photos(root, 10)
    (root / "ant" / "notes.txt").write_text("no photo")


def table(root, paint):
    for k, name in enumerate(("b.jpg", "a.png", "sub/c.webp")):
        paint(root / name, *SIZE, seed=k)
    (root / "labels.csv").write_text("file,classes\nsub/c.webp,2\nb.jpg,0 3\na.png,bee\n")


def boxes(root, paint):
    toy_boxes(root, 5)


def pascal(root, paint):
    for folder in ("JPEGImages", "Annotations", "SegmentationObject", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    for k, name in enumerate(("two", "one")):
        paint(root / "JPEGImages" / f"{name}.jpg", *SIZE, seed=k)
        (root / "Annotations" / f"{name}.xml").write_text(XML)
        places = np.zeros(SIZE, np.uint8)
        places[2 + k : 9, 1:8], places[12:, 9:] = 1, 2
        Image.fromarray(places).save(root / "SegmentationObject" / f"{name}.png")
    (root / "ImageSets" / "Segmentation" / "val.txt").write_text("two\none\n")


def cocos(root, paint):
    paint(root / "v" / "a.png", *SIZE)
    paint(root / "v" / "b.png", *SIZE, seed=1)
    first = {"image_id": 2, "category_id": 7, "bbox": [1, 1, 5, 5]}
    first["segmentation"] = [[1, 1, 6.5, 1, 6, 7]]
    crowd = {"image_id": 2, "category_id": 3, "bbox": [0, 0, 9, 0]}
    crowd["segmentation"] = {"size": [20, 30], "counts": [100, 60, 440]}
    content = {
        "images": [
            {"id": 2 - k, "file_name": f"{n}.png", "width": 30, "height": 20} for k, n in enumerate("ab")
        ],
        "annotations": [first, crowd],
        "categories": [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}],
    }
    (root / "annotations").mkdir()
    (root / "annotations" / "instances_v.json").write_text(json.dumps(content))


def synsets(root, paint):
    for k, name in enumerate(("b", "a")):
        path = paint(root / "val" / f"n0000000{k + 1}" / f"{name}.png", *SIZE, seed=k)
        path.rename(path.with_suffix(".JPEG"))
    (root / "LOC_synset_mapping.txt").write_text("n00000002 bee\nn00000001 ant, emmet\n")


LAYOUTS = {
    "folders": (folders, "{0}"),
    "table": (table, "{0}"),
    "boxes": (boxes, "{0}"),
    "VOC": (pascal, "{0}"),
    "COCO": (cocos, "{0}"),
    "ImageNet": (synsets, "{0}"),
    "mosaics": (folders, "mosaics:{0}"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_it_opens_as_what_was_packed(tmp_path, paint, layout):
    make, spec = LAYOUTS[layout]
    make(tmp_path / "set", paint)
    classes = CLASSES if layout in {"table", "folders", "mosaics"} else ()
    given = classes if layout == "table" else ()  # folders find their numbers when they are opened
    given = open_dataset(spec.format(tmp_path / "set"), given)
    outcome = pack(given, tmp_path / "shards", photos_per_shard=2)
    assert (outcome.samples, outcome.shards, outcome.problems) == (len(given), -(-len(given) // 2), ())
    for asked in {(), tuple(classes)}:
        if layout == "table" and not asked:
            continue
        expected, found = (
            open_dataset(spec.format(tmp_path / "set"), asked),
            open_dataset(str(tmp_path / "shards"), asked),
        )
        same(expected, found)
        assert found.problems == ()
        if layout not in {
            "mosaics",
            "table",
        }:  # a table's classes are those of the model that it is opened for
            assert found.fingerprint() == expected.fingerprint()


def same(expected, found):
    """Each sample with its objects, its pixels and its bytes, and what the data set says of itself."""
    assert (found.name, found.as_is) == (expected.name, expected.as_is)
    assert found.classes == expected.classes or not found.classes or not expected.classes
    assert len(found) == len(expected)
    for one, other in zip(expected, found, strict=True):
        assert (other.id, other.labels, other.size) == (one.id, one.labels, one.size)
        assert np.array_equal(np.asarray(other.image()), np.asarray(one.image()))
        if isinstance(one.picture, Photo):
            assert other.picture.read() == one.picture.read()
            assert other.picture.as_stored == one.picture.as_stored
        kept = [(thing.label, thing.name, thing.box, thing.difficult) for thing in one.objects]
        assert [(thing.label, thing.name, thing.box, thing.difficult) for thing in other.objects] == kept
        for thing, twin in zip(one.objects, other.objects, strict=True):
            assert thing.mask(one.size).equal(twin.mask(one.size))


@pytest.mark.parametrize("place", ["box", "segmentation"])
def test_regions_that_are_files_become_run_lengths(tmp_path, paint, place):
    pascal(tmp_path / "set", paint)
    (tmp_path / "set" / "ImageSets" / "Main").mkdir()
    shutil.copy(tmp_path / "set/ImageSets/Segmentation/val.txt", tmp_path / "set/ImageSets/Main/val.txt")
    given = voc(tmp_path / "set", "val", place=place)
    assert [sample.id for sample in given] == ["two", "one"]
    pack(given, tmp_path / "shards")
    found = open_dataset(str(tmp_path / "shards"))
    same(given, found)
    assert [found[0].truth(label).skip for label in found[0].labels] == [True, False]


def test_composites_with_their_masks(tmp_path):
    for k, name in enumerate(("a.png", "b.png")):
        pixels = np.random.default_rng(k).integers(0, 256, (12, 16, 4), dtype=np.uint8)
        pixels[..., 3] = 0
        pixels[3:9, 4:12, 3] = 255
        Image.fromarray(pixels).save(tmp_path / name)
    (tmp_path / "labels.csv").write_text("file,class\na.png,0\nb.png,2\n")
    given = open_dataset(f"composites:{tmp_path}", count=3)
    pack(given, tmp_path / "shards")
    same(given, open_dataset(str(tmp_path / "shards")))
    pack(open_dataset(str(tmp_path)), tmp_path / "cutouts")
    same(given, open_dataset(f"composites:{tmp_path / 'cutouts'}", count=3))


def test_mosaics_of_shards_are_those_of_the_photos(tmp_path):
    toy_photos(tmp_path / "photos", 12)
    pack(open_dataset(str(tmp_path / "photos")), tmp_path / "shards", photos_per_shard=5)
    expected, found = (open_dataset(f"mosaics:{tmp_path / name}", CLASSES) for name in ("photos", "shards"))
    same(expected, found)
    assert found.fingerprint() == expected.fingerprint()


def test_dicom_by_its_mark_and_by_its_suffix(tmp_path):
    pydicom = pytest.importorskip("pydicom")
    dataset = pydicom.Dataset()
    values = np.arange(48, dtype=np.uint16).reshape(6, 8) * 80
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = 6, 8, 1
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.PhotometricInterpretation, dataset.PixelData = "MONOCHROME2", values.tobytes()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = pydicom.uid.CTImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = "1.2.3"
    (tmp_path / "set" / "ant").mkdir(parents=True)
    for name in ("IM000001", "1.2.840", "b.dcm"):
        dataset.save_as(tmp_path / "set" / "ant" / name, enforce_file_format=True)
    given = open_dataset(str(tmp_path / "set"))
    assert len(given) == 3
    pack(given, tmp_path / "shards")
    found = open_dataset(str(tmp_path / "shards"))
    same(given, found)
    assert [notes_of(sample.image()) for sample in found] == [notes_of(sample.image()) for sample in given]
    assert "no window" in notes_of(found[0].image())[0]


class TestShards:
    @pytest.fixture
    def photos(self, tmp_path):
        return open_dataset(str(toy_photos(tmp_path / "photos", 10)))

    @pytest.fixture
    def out(self, photos, tmp_path):
        pack(photos, tmp_path / "shards", photos_per_shard=4)
        return tmp_path / "shards"

    def test_others_read_them(self, photos, out):
        """With tarfile alone: two files a sample, and the index knows where each photo is."""
        rows = parquet.read_table(out / "index.parquet").to_pylist()
        listed = [(path, *members(path)) for path in sorted(out.glob("*.tar"))]
        files = [(path.name, *each) for path, *found in listed for each in found]
        assert [path.name for path, *_ in listed] == ["000000.tar", "000001.tar", "000002.tar"]
        assert [len(found) for _, *found in listed] == [8, 8, 4]
        for number, (row, sample) in enumerate(zip(rows, photos, strict=True)):
            (shard, name, offset, data), (_, described, _, text) = files[2 * number : 2 * number + 2]
            assert (name, described) == (f"{number:06d}.png", f"{number:06d}.json")
            assert (row["shard"], row["member"], row["offset"], row["size"]) == (
                shard,
                name,
                offset,
                len(data),
            )
            assert data == sample.picture.path.read_bytes()
            assert row["sha256"] == hashlib.sha256(data).digest()
            assert json.loads(text) == {
                "packed_by": "clarp",
                "id": sample.id,
                "label": sample.labels[0][0],
                "labels": [list(label) for label in sample.labels],
            }

    def test_the_same_data_set_gives_the_same_bytes(self, photos, out, tmp_path):
        pack(photos, tmp_path / "again", photos_per_shard=4)
        for path in out.iterdir():
            assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()

    def test_of_shards_again(self, out, tmp_path):
        pack(open_dataset(str(out)), tmp_path / "again", photos_per_shard=3)
        expected, found = open_dataset(str(out), CLASSES), open_dataset(str(tmp_path / "again"), CLASSES)
        same(expected, found)
        assert expected.fingerprint() == found.fingerprint()

    def test_samples_are_a_sequence(self, photos, out):
        found = open_dataset(str(out)).samples
        ids = [sample.id for sample in photos]
        for part in (
            slice(2, 7),
            slice(None),
            slice(-3, None),
            slice(9, 2),
            slice(None, None, -2),
            slice(1, 9, 3),
        ):
            assert [sample.id for sample in found[part]] == ids[part]
        assert [found[k].id for k in (0, 9, -1, -10)] == [ids[k] for k in (0, 9, -1, -10)]
        for place in (10, -11):
            with pytest.raises(IndexError):
                found[place]
        assert found[3].id in ids
        assert pickle.loads(pickle.dumps(found[3])) == found[3]
        assert len(pickle.dumps(found[3])) < 2000  # and not the whole index

    def test_classes_of_another_model(self, out):
        with pytest.raises(ValueError, match=r"'bee', 'cow'|2 folder names are no class of the model: 'bee'"):
            open_dataset(str(out), ["ant", "dog"])
        assert open_dataset(str(out), CLASSES)[0].labels == ((1,),)

    def test_a_folder_that_has_something_in_it(self, photos, out):
        before = {path.name: path.read_bytes() for path in out.iterdir()}
        with pytest.raises(
            ValueError, match=r"has 000000\.tar and others in it, and shards go into an empty"
        ):
            pack(open_dataset(str(out)), out)
        assert {path.name: path.read_bytes() for path in out.iterdir()} == before
        with pytest.raises(
            ValueError, match=r"000000\.tar is a file, and shards go into an empty or a new folder"
        ):
            pack(photos, out / "000000.tar")

    def test_photos_that_can_t_be_read_are_left_out(self, photos, tmp_path):
        photos[4].picture.path.unlink()
        outcome = pack(photos, tmp_path / "shards", photos_per_shard=4)
        assert outcome.samples == 9
        assert [(problem.kind, problem.file) for problem in outcome.problems] == [("missing", photos[4].id)]
        ids = [sample.id for sample in photos]
        assert [sample.id for sample in open_dataset(str(tmp_path / "shards"))] == ids[:4] + ids[5:]

    def test_a_name_that_is_not_utf_8(self, tmp_path, paint):
        path = paint(tmp_path / "ant" / "a.png")
        sample = Sample("ant/\udcff.png", Photo("ant/a.png", tmp_path), ((0,),))
        with pytest.raises(ValueError, match=r"ant/\\udcff\.png: this name is not UTF-8"):
            pack(Dataset("a", (sample,)), tmp_path / "shards")
        assert path.exists()

    def test_a_file_of_a_terabyte(self, photos, tmp_path):
        os.truncate(photos[2].picture.path, 1 << 40)  # sparse: nothing of it is on the disk
        (problem,) = pack(photos, tmp_path / "shards").problems
        assert (problem.kind, problem.file) == ("damaged", photos[2].id)

    def test_nothing(self, tmp_path):
        assert pack(Dataset("nothing", ()), tmp_path / "shards").shards == 0
        assert len(open_dataset(str(tmp_path / "shards"))) == 0

    def test_without_its_index_a_pack_is_refused(self, out):
        (out / "index.parquet").unlink()
        with pytest.raises(
            ValueError, match=r"000000\.tar is of `clarp pack`, which did not come to its end"
        ):
            open_dataset(str(out))

    def test_a_photo_with_other_bytes_is_named(self, photos, out):
        row = parquet.read_table(out / "index.parquet").to_pylist()[5]
        path = out / row["shard"]
        content = bytearray(path.read_bytes())
        content[row["offset"] + row["size"] // 2] ^= 1
        path.write_bytes(content)
        found = open_dataset(str(out))
        for number, sample in enumerate(found):
            if number != 5:
                sample.image()
        said = f"{photos[5].id}: damaged.*{row['member']} in {row['shard']}, are not those that were packed"
        for look in (found[5].image, lambda: found[5].size, found[5].picture.read):
            with pytest.raises(UnreadableImageError, match=said):
                look()

    @pytest.mark.parametrize("how", ["missing", "damaged", "outside", "not an image"])
    def test_a_shard_that_is_not_whole(self, photos, out, tmp_path, how):
        path = out / "000001.tar"
        if how == "damaged":
            rows = parquet.read_table(out / "index.parquet").to_pylist()
            path.write_bytes(path.read_bytes()[: rows[5]["offset"] + 10])
        else:
            path.rename(tmp_path / "elsewhere.tar")
        if how == "outside":
            path.symlink_to(tmp_path / "elsewhere.tar")
        elif how == "not an image":
            path.mkdir()
        found = open_dataset(str(out))
        ids = [sample.id for sample in photos]
        gone = ids[5:8] if how == "damaged" else ids[4:8]
        assert [sample.id for sample in found] == [identity for identity in ids if identity not in gone]
        assert [(problem.kind, problem.file) for problem in found.problems] == [(how, one) for one in gone]
        assert all("000001.tar" in problem.reason for problem in found.problems)
        assert "000005.png" in found.problems[-3].reason
        for sample in found:
            sample.image()
        if how == "outside":
            assert len(open_dataset(str(out), outside=True)) == 10

    def test_a_shard_that_changes_while_it_is_in_use(self, out):
        found = open_dataset(str(out))
        path = out / "000001.tar"
        content = path.read_bytes()
        path.write_bytes(content[:2000])
        with pytest.raises(
            StoreError,
            match=r"000001\.tar is not as it was when the data set was opened: .* it has 2,000 bytes",
        ):
            found[7].image()
        path.unlink()
        with pytest.raises(StoreError, match=r"it has no bytes, and it had"):
            found[7].image()
        path.write_bytes(content)
        found[7].image()


BAD = {
    "empty": b"",
    "text": b"no picture",
    "cut": bombs.saved(Image.effect_noise((64, 64), 50), "PNG")[:900],
    "large": bombs.saved(Image.new("1", (30_000, 30_000)), "PNG"),
}


@pytest.mark.parametrize("which", BAD)
def test_a_bad_photo_is_as_bad_in_a_shard(tmp_path, which):
    """It is decoded in the same process with the same bounds, and the message has the same words."""
    (tmp_path / "set" / "ant").mkdir(parents=True)
    (tmp_path / "set" / "ant" / "a.png").write_bytes(BAD[which])
    given = open_dataset(str(tmp_path / "set"))
    assert pack(given, tmp_path / "shards").problems == ()
    found = open_dataset(str(tmp_path / "shards"))
    for look in (Sample.image, lambda sample: sample.size):
        said = []
        for sample in (given[0], found[0]):
            try:
                look(sample)
            except UnreadableImageError as error:
                said.append(error.problem)
            else:
                said.append(None)
        assert said[0] == said[1]
    with pytest.raises(UnreadableImageError):
        found[0].image()


def members(path: Path):
    with tarfile.open(path) as tar:
        return [(one.name, one.offset_data, tar.extractfile(one).read()) for one in tar]


class TestIndex:
    """One that is damaged is refused, and one that somebody made on purpose harms nobody."""

    @pytest.fixture
    def out(self, tmp_path):
        toy_boxes(tmp_path / "set", 3)
        pack(open_dataset(str(tmp_path / "set")), tmp_path / "shards")
        return tmp_path / "shards"

    def test_damaged_anywhere(self, out):
        whole = (out / "index.parquet").read_bytes()
        for place in range(0, len(whole), 97):
            content = bytearray(whole)
            content[place] ^= 1 << place % 8
            (out / "index.parquet").write_bytes(content)
            with pytest.raises(ValueError, match=r"index\.parquet is damaged"):
                open_dataset(str(out))

    @pytest.mark.parametrize("name", ["index.parquet", "index.parquet.sha256"])
    def test_of_a_terabyte(self, out, name):
        os.truncate(out / name, 1 << 40)
        with pytest.raises(ValueError, match="1,099,511,627,776 bytes, expected at most"):
            open_dataset(str(out))

    def test_without_its_checksum(self, out):
        (out / "index.parquet.sha256").unlink()
        with pytest.raises(ValueError, match=r"index\.parquet\.sha256"):
            open_dataset(str(out))

    BOX = '{"label": [0], "name": "a", "box": [0, 0, 5, 5]'

    @pytest.mark.parametrize(
        ("column", "value"),
        [
            ("shard", "../000000.tar"),
            ("shard", None),
            ("offset", -1),
            ("size", -5),
            ("labels", [[-1]]),
            ("labels", [[]]),
            ("labels", [None]),
            ("labels", [[None]]),
            ("id", None),
            ("objects", "{"),
            ("objects", "[" * 100_000),
            ("objects", "9" * 5000),
            ("objects", "[3]"),
            ("objects", '[{"label": [0], "name": "a"}]'),
            ("objects", '[{"label": [], "name": "a", "box": null}]'),
            ("objects", '[{"label": [0], "name": "a", "box": [0, 0, 1e999, 5]}]'),
            ("objects", f'[{BOX}, "mask": 5}}]'),
            ("objects", f'[{BOX}, "mask": {{"size": [20, 30], "counts": "\u00e9"}}}}]'),
        ],
        ids=range(18),
    )
    def test_rows_that_no_data_set_has(self, out, column, value):
        self.rewrite(out, lambda row: row | {column: value})
        with pytest.raises(
            ValueError, match=r"index\.parquet is damaged \(.+\): copy it again, or pack again"
        ):
            open_dataset(str(out))

    @pytest.mark.parametrize(
        "change",
        [{"offset": 2**62}, {"size": 2**62}, {"offset": 2**63 - 1, "size": 2**63 - 1}, {"offset": 10**6}],
    )
    def test_places_behind_the_end(self, out, change):
        self.rewrite(out, lambda row: row | change)
        found = open_dataset(str(out))
        assert [problem.kind for problem in found.problems] == ["damaged"] * 3

    @pytest.mark.parametrize(
        ("size", "counts"),
        [([40, 48], "P" * 100), ([40, 48], "0" * 9), ([2**40, 2**40], "0"), ([40], "0"), ([48, 40], "PPPl1")],
    )
    def test_masks_that_cover_something_else(self, out, size, counts):
        mask = json.dumps({"size": size, "counts": counts})
        self.rewrite(out, lambda row: row | {"objects": f'[{self.BOX}, "mask": {mask}}}]'})
        (sample, *_) = open_dataset(str(out))
        with pytest.raises(ValueError, match=r"a mask of|COCO's compressed run lengths"):
            sample.truth((0,))

    @pytest.mark.parametrize(
        "about",
        [
            {},
            {"version": 2},
            {"shards": {"000000.tar": -1}},
            {"shards": []},
            {"classes": [3]},
            {"classes": ["a"], "own_classes": True},
            {"classes": [], "own_classes": True},
            {"name": None},
        ],
    )
    def test_what_it_says_of_itself(self, out, about):
        self.rewrite(out, lambda row: row, about)
        with pytest.raises(ValueError, match=r"index\.parquet is damaged"):
            open_dataset(str(out))

    def test_two_samples_with_one_id(self, out):
        self.rewrite(out, lambda row: row | {"id": "a"})
        with pytest.raises(ValueError, match="1 ids more than once"):
            open_dataset(str(out))

    def test_other_columns(self, out):
        write_summed(
            out / "index.parquet", lambda file: parquet.write_table(arrow.table({"id": ["a"]}), file)
        )
        with pytest.raises(ValueError, match=r"index\.parquet is damaged"):
            open_dataset(str(out))

    def test_a_shard_outside(self, out, tmp_path):
        shutil.copy(out / "000000.tar", tmp_path / "secret.tar")
        shards = {"../secret.tar": (out / "000000.tar").stat().st_size}
        self.rewrite(out, lambda row: row | {"shard": "../secret.tar"}, {"shards": shards})
        found = open_dataset(str(out))
        assert {problem.kind for problem in found.problems} == {"outside"}
        assert len(found) == 0

    @staticmethod
    def rewrite(out, change, about=None):
        with parquet.ParquetFile(out / "index.parquet") as file:
            said = json.loads(file.metadata.metadata[ABOUT])
            rows = [change(row) for row in file.read().to_pylist()]
        said = {} if about == {} else said | (about or {})
        with parquet.ParquetWriter(out / "new", index_schema()) as writer:
            writer.write_table(arrow.Table.from_pylist(rows, index_schema()))
            writer.add_key_value_metadata({ABOUT: json.dumps(said)})
        content = (out / "new").read_bytes()
        (out / "new").unlink()
        write_summed(out / "index.parquet", lambda file: file.write(content))
