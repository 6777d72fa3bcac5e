"""Other people's WebDataset shards, whole and hostile: what gives no sample is a problem with shard and name."""

import io
import json
import os
import random
import tarfile

import numpy as np
import pytest
from PIL import Image

from clarp.data import AnnotationError, pack
from clarp.data.opening import open_dataset
from clarp.data.problems import StoreError, UnreadableImageError


def png(seed=0, side=12):
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def shard(path, entries, **options):
    """Entries are (name, bytes), or a TarInfo."""
    with tarfile.open(path, "w", **options) as tar:
        for entry in entries:
            if isinstance(entry, tarfile.TarInfo):
                tar.addfile(entry)
            else:
                info = tarfile.TarInfo(entry[0])
                info.size = len(entry[1])
                tar.addfile(info, io.BytesIO(entry[1]))
    return path


def special(name, kind, link=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


GOOD = [
    ("a.png", png(0)),
    ("a.cls", b"1"),
    ("sub/b.c.png", b""),
    ("sub/b.png", png(1)),
    ("sub/b.cls", b"0 2\n"),
]


def opened(folder, *classes):
    dataset = open_dataset(str(folder), classes)
    for sample in dataset:
        assert sample.image().size
    return dataset


def problems(dataset):
    return {problem.file: (problem.kind, problem.reason) for problem in dataset.problems}


@pytest.mark.parametrize(
    "form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT], ids=["ustar", "gnu", "pax"]
)
def test_photos_with_labels(tmp_path, form):
    long = f"{'x' * 60}/{'y' * 200}" if form != tarfile.USTAR_FORMAT else "x"
    more = [
        ("1.jpeg.txt", b"words"),
        ("1.JPG", png(2)),
        ("1.json", b'{"label": 2, "caption": "[}"}'),
        ("2.webp", png(3)),
        ("2.json", json.dumps({"label": [2, 0]}).encode()),
        (f"{long}.png", png(4)),
        (f"{long}.cls", "käfer".encode()),
        ("3.png", png(5)),
        ("3.json", json.dumps({"label": "käfer"}).encode()),
        ("3.cls", b"0"),
    ]
    shard(tmp_path / "000001.tar", more, format=form)
    shard(tmp_path / "000000.tar", GOOD, format=form)
    (tmp_path / "README.md").write_text("words")
    dataset = opened(tmp_path, "ant", "bee", "käfer")
    assert [(sample.id, sample.labels) for sample in dataset] == [
        ("000000.tar/a.png", ((1,),)),
        ("000000.tar/sub/b.png", ((0, 2),)),
        ("000001.tar/1.JPG", ((2,),)),
        ("000001.tar/2.webp", ((2, 0),)),
        (f"000001.tar/{long}.png", ((2,),)),
        ("000001.tar/3.png", ((0,),)),
    ]
    assert dataset.problems == ()
    assert [sample.picture.read() for sample in dataset] == [png(k) for k in range(6)]
    assert dataset.classes == ("ant", "bee", "käfer")
    one = open_dataset(str(tmp_path / "000000.tar"))
    assert (one.name, [sample.id for sample in one]) == ("000000", [sample.id for sample in dataset[:2]])


def test_they_can_be_packed(tmp_path):
    pytest.importorskip("pyarrow.parquet")
    (tmp_path / "a").mkdir()
    shard(tmp_path / "a" / "0.tar", GOOD)
    given = opened(tmp_path / "a")
    pack(given, tmp_path / "packed")
    found = opened(tmp_path / "packed")
    assert [(s.id, s.labels, s.picture.read()) for s in found] == [
        (s.id, s.labels, s.picture.read()) for s in given
    ]
    assert found.fingerprint() == given.fingerprint()


def test_tar_files_beside_what_was_in_them(tmp_path, paint):
    paint(tmp_path / "ant" / "a.png")
    shard(tmp_path / "photos.tar", GOOD)
    assert [sample.id for sample in open_dataset(str(tmp_path))] == ["ant/a.png"]
    paint(tmp_path / "flat" / "a.png")
    shard(tmp_path / "flat" / "photos.tar", GOOD)
    (tmp_path / "flat" / "labels.csv").write_text("file,class\na.png,3\n")
    assert [sample.id for sample in open_dataset(str(tmp_path / "flat"))] == ["a.png"]


def test_labels_that_are_no_class_are_listed_all_at_once(tmp_path):
    entries = [
        ("a.png", png()),
        ("a.cls", b"tabbi"),
        ("b.png", png()),
        ("b.json", b'{"label": 9}'),
        *GOOD[3:],
    ]
    shard(tmp_path / "0.tar", entries)
    with pytest.raises(AnnotationError) as error:
        open_dataset(str(tmp_path), ["ant", "tabby", "cow"])
    assert "0.tar/a.cls:1: class 'tabbi' (nearest: 'tabby')" in str(error.value)
    assert "0.tar/b.json:1: class 9 does not exist: there are 3 classes" in str(error.value)


ODD = {
    "a link": ([special("x.png", tarfile.SYMTYPE, "/etc/passwd")], ("not an image", "a link, a pipe or a device")),
    "a hard link": ([special("x.png", tarfile.LNKTYPE, "a.png")], ("not an image", "a link, a pipe or a device")),
    "a pipe": ([special("x.png", tarfile.FIFOTYPE)], ("not an image", "a link, a pipe or a device")),
    "a device": ([special("x.png", tarfile.CHRTYPE)], ("not an image", "a link, a pipe or a device")),
    "above": ([("../x.png", png())], ("outside", "its name leaves the shard")),
    "absolute": ([("/x.png", png())], ("outside", "its name leaves the shard")),
    "twice": ([("a.png", png(9))], ("damaged", "it is there twice")),
    "no suffix": ([("x", png())], ("not an image", "its name has no suffix")),
    "no label": ([("x.png", png())], ("unlabelled", "there is neither x.cls nor x.json")),
    "no photo": ([("x.cls", b"1")], ("missing", "0 photos have this key, expected one")),
    "two photos": ([("x.png", png()), ("x.jpg", png()), ("x.cls", b"1")], ("damaged", "2 photos have this key, expected one")),
    "neither": ([("x.txt", b"words")], ("not an image", "no photo, and no label of one")),
    "no JSON": ([("x.png", png()), ("x.json", b"{")], ("damaged", "no label can be read from it (JSONDecodeError)")),
    "a list": ([("x.png", png()), ("x.json", b"[3]")], ("damaged", "no label can be read from it (KeyError)")),
    "no field": ([("x.png", png()), ("x.json", b"{}")], ("damaged", "no label can be read from it (KeyError)")),
    "deep": ([("x.png", png()), ("x.json", b"[" * 200_000)], ("damaged", "no label can be read from it (RecursionError)")),
    "digits": ([("x.png", png()), ("x.json", b'{"label": ' + b"9" * 5000 + b"}")], ("damaged", "no label can be read from it (ValueError)")),
    "no text": ([("x.png", png()), ("x.cls", b"\xff")], ("damaged", "no label can be read from it (UnicodeDecodeError)")),
    "a long label": ([("x.png", png()), ("x.cls", b"1" * (1 << 20) + b"1")], ("damaged", "1,048,577 bytes, expected at most 1,048,576")),
}  # fmt: skip


@pytest.mark.parametrize("which", ODD)
def test_what_is_no_photo_with_a_label(tmp_path, which):
    entries, expected = ODD[which]
    shard(tmp_path / "0.tar", [*GOOD, *entries, ("z.png", png(7)), ("z.cls", b"0")])
    dataset = opened(tmp_path)
    assert [sample.id for sample in dataset] == ["0.tar/a.png", "0.tar/sub/b.png", "0.tar/z.png"]
    ((file, said),) = problems(dataset).items()
    assert said == expected
    assert file.startswith("0.tar/")


def test_folders_and_hidden_files_are_left_alone(tmp_path):
    shard(tmp_path / "0.tar", [special("sub", tarfile.DIRTYPE), ("sub/._b.png", b"junk"), *GOOD])
    assert opened(tmp_path).problems == ()


class TestDamaged:
    """Cut, changed and made on purpose: the samples before it stay, and the shard is named."""

    @pytest.fixture
    def content(self, tmp_path):
        more = [entry for k in range(4) for entry in ((f"{k}.png", png(k)), (f"{k}.cls", str(k).encode()))]
        return shard(tmp_path / "whole", more).read_bytes()

    def test_cut_anywhere(self, tmp_path, content):
        pictures = [png(k) for k in range(4)]
        path = tmp_path / "0.tar"
        for length in range(0, len(content), 61):
            path.write_bytes(content[:length])
            dataset = open_dataset(str(path))
            assert [sample.picture.read() for sample in dataset] == pictures[: len(dataset)]
            # What is cut off behind the first block of zeros is nothing.
            assert len(dataset) == 4 or dataset.problems, length
            assert all(problem.file.startswith("0.tar") for problem in dataset.problems)

    def test_the_end_is_missing(self, tmp_path, content):
        end = content.rindex(b"3.cls") + 1024
        (tmp_path / "0.tar").write_bytes(content[:end])
        dataset = opened(tmp_path / "0.tar")
        assert len(dataset) == 4
        assert problems(dataset) == {
            "0.tar": ("damaged", f"neither a file nor the end at byte {end:,}; what is behind it is not read")
        }

    def test_changed_anywhere(self, tmp_path, content):
        chance = random.Random(0)
        path = tmp_path / "0.tar"
        headers = [
            place for place in range(0, len(content), 512) if content[place + 257 : place + 262] == b"ustar"
        ]
        for _ in range(400):
            changed = bytearray(content)
            for _ in range(chance.choice([1, 1, 3, 20])):
                changed[chance.choice(headers) + chance.randrange(512)] = chance.randrange(256)
            path.write_bytes(changed)
            with_names(path)

    def test_headers_with_a_sum_that_is_right(self, tmp_path, content):
        """Whoever writes them on purpose gets the checksum right."""
        chance = random.Random(1)
        path = tmp_path / "0.tar"
        sizes = [
            b"77777777777\0",
            b"\x80" + b"\xff" * 11,
            b"\xff" * 12,
            b"\xff" * 11 + b"\0",
            b"00000000000\0",
        ]
        for _ in range(200):
            changed = bytearray(content)
            start = chance.choice([0, 512 + 512 * -(-len(png(0)) // 512)])
            changed[start + 124 : start + 136] = chance.choice(sizes)
            changed[start + 156] = chance.choice(b"0123456789LKxgSX")
            changed[start + 148 : start + 156] = b" " * 8
            changed[start + 148 : start + 156] = b"%06o\0 " % sum(changed[start : start + 512])
            path.write_bytes(changed)
            with_names(path)

    def test_a_long_name_of_a_terabyte(self, tmp_path):
        info = special("././@LongLink", tarfile.GNUTYPE_LONGNAME)
        info.size = 1 << 40
        path = tmp_path / "0.tar"
        path.write_bytes(info.tobuf(tarfile.GNU_FORMAT))
        os.truncate(path, 1 << 41)  # sparse: nothing of it is on the disk
        ((file, (kind, reason)),) = problems(open_dataset(str(path))).items()
        assert (file, kind) == ("0.tar", "damaged")
        assert "a header of 1,099,511,627,776 bytes" in reason

    def test_a_photo_of_a_terabyte(self, tmp_path):
        """Nothing of it is on the disk, and nothing of it may come to memory."""
        path = tmp_path / "0.tar"
        header, label = tarfile.TarInfo("a.png"), tarfile.TarInfo("a.cls")
        header.size, label.size = 1 << 40, 1
        with path.open("wb") as file:
            file.write(header.tobuf(tarfile.GNU_FORMAT))
            file.seek(1 << 40, os.SEEK_CUR)
            file.write(label.tobuf() + b"1" + bytes(511 + 1024))
        (sample,) = open_dataset(str(path))
        with pytest.raises(
            UnreadableImageError, match=r"a\.png: damaged \(1,099,511,627,776 bytes, expected at most"
        ):
            sample.image()

    def test_a_chain_of_headers(self, tmp_path):
        path = tmp_path / "0.tar"
        path.write_bytes(special("x", tarfile.XHDTYPE).tobuf() * 5000 + bytes(1024))
        assert {kind for kind, _ in problems(open_dataset(str(path))).values()} == {"damaged"}

    def test_a_sparse_file(self, tmp_path):
        header = bytearray(special("a.png", tarfile.GNUTYPE_SPARSE).tobuf(tarfile.GNU_FORMAT))
        header[386:398], header[398:410] = b"00000000000\0", b"00000000000\0"
        header[483:495] = b"77777777777\0"
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
        (tmp_path / "0.tar").write_bytes(header + bytes(1024))
        assert problems(open_dataset(str(tmp_path / "0.tar"))) == {
            "0.tar/a.png": ("not an image", "a sparse file")
        }

    def test_compressed(self, tmp_path):
        with tarfile.open(tmp_path / "0.tar", "w:gz") as tar:
            tar.addfile(special("a.png", tarfile.REGTYPE))
        assert [kind for kind, _ in problems(open_dataset(str(tmp_path / "0.tar"))).values()] == ["damaged"]

    def test_what_is_no_file(self, tmp_path):
        os.mkfifo(tmp_path / "0.tar")
        assert problems(open_dataset(str(tmp_path / "0.tar"))) == {
            "0.tar": ("not an image", "a named pipe, expected a file")
        }
        assert problems(open_dataset(str(tmp_path / "no.tar"))) == {"no.tar": ("missing", "no such file")}

    def test_a_link_out_of_the_folder(self, tmp_path):
        (tmp_path / "set").mkdir()
        shard(tmp_path / "secret.tar", GOOD)
        (tmp_path / "set" / "0.tar").symlink_to(tmp_path / "secret.tar")
        dataset = open_dataset(str(tmp_path / "set"))
        assert len(dataset) == 0
        assert problems(dataset)["0.tar"][0] == "outside"
        assert len(open_dataset(str(tmp_path / "set"), outside=True)) == 2

    def test_a_photo_that_is_damaged(self, tmp_path):
        shard(tmp_path / "0.tar", [("a.png", png()[:50]), ("a.cls", b"1")])
        (sample,) = open_dataset(str(tmp_path))
        with pytest.raises(UnreadableImageError, match=r"0\.tar/a\.png: damaged"):
            sample.image()

    def test_a_shard_that_is_replaced_while_it_is_in_use(self, tmp_path):
        path = shard(tmp_path / "0.tar", GOOD)
        dataset = open_dataset(str(tmp_path))
        content = bytearray(path.read_bytes())
        before = [sample.picture.digest(anew=True) for sample in dataset]
        assert before == [sample.picture.digest() for sample in dataset]
        content[600] ^= 1
        path.write_bytes(content)
        assert dataset[0].picture.digest(anew=True) != before[0]
        assert dataset[1].picture.digest(anew=True) == before[1]
        path.write_bytes(content[:600])
        with pytest.raises(StoreError, match=r"0\.tar is not as it was"):
            dataset[0].image()
        path.unlink()
        assert dataset[0].picture.digest(anew=True) not in before


def with_names(path):
    """Whatever a shard holds, it gives samples and problems that name it, or says which label is none."""
    try:
        dataset = open_dataset(str(path))
    except AnnotationError as error:
        assert "0.tar/" in str(error)  # noqa: PT017
        return
    assert all(problem.file.startswith("0.tar") for problem in dataset.problems)
    for sample in dataset:
        assert sample.id.startswith("0.tar/")
        sample.picture.read()
