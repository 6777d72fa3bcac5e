"""Data sets on other file systems: a real S3 server on this machine, and fsspec's own memory."""

import os
import shutil
import sys
import tarfile
import tracemalloc
from functools import partial

import pytest

from clarp.data import pack
from clarp.data.listing import ListedFile, ListedSamples
from clarp.data.opening import open_dataset
from clarp.data.problems import StoreError, UnreadableImageError
from clarp.data.remote import RemoteFile
from clarp.data.stores import RemoteFolder, _file_system
from data.buckets import s3_server
from evaluation.toys import toy_photos

fsspec = pytest.importorskip("fsspec", reason='needs pip install "clarp[remote]"')
CLASSES = ["cow", "ant", "dog", "bee"]


@pytest.fixture(scope="module")
def server():
    with s3_server(os.environ):
        yield


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    root = toy_photos(tmp_path_factory.mktemp("toys") / "photos", 10)
    (root / "ant" / "notes.txt").write_text("no photo")
    (root / "ant" / ".hidden.png").write_text("hidden")
    (root / "alone.png").write_bytes(next((root / "ant").glob("0*.png")).read_bytes())
    (root / "ant-ants").mkdir()  # which letters put before ant/, and paths behind
    shutil.copy(root / "alone.png", root / "ant-ants" / "a.png")
    return root


@pytest.fixture(params=["s3", "memory"])
def bucket(request, tmp_path):
    """The URL of a bucket, and its file system."""
    if request.param == "s3":
        request.getfixturevalue("server")
    url = f"{request.param}://clarp-{tmp_path.name.replace('_', '-').lower()}"
    system, root = fsspec.core.url_to_fs(url)
    system.mkdir(root)
    yield url, system
    system.rm(root, recursive=True)


def same(found, expected):
    assert [(s.id, s.labels, s.objects) for s in found] == [(s.id, s.labels, s.objects) for s in expected]
    assert [s.picture.read() for s in found] == [s.picture.read() for s in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.image().tobytes() == other.image().tobytes()
        assert one.size == other.size
    assert (found.name, found.classes) == (expected.name, expected.classes)


@pytest.mark.parametrize("classes", [(), (*CLASSES, "ant-ants")])
def test_class_folders(bucket, photos, classes):
    url, system = bucket
    system.put(str(photos), f"{url}/photos", recursive=True)
    found, expected = open_dataset(f"{url}/photos/", classes), open_dataset(str(photos), classes)
    same(found, expected)
    assert set(found.problems) == set(expected.problems)
    assert len(found.problems) == 2


def test_a_listing_is_a_stream(photos, monkeypatch):
    """A folder is listed when the files before it have been taken, and its listing is not kept."""
    memory = fsspec.filesystem("memory")
    memory.put(str(photos), "/stream", recursive=True)
    try:
        asked, listed = [], type(memory).ls

        def ls(self, path, detail=True, **more):
            asked.append(path.rpartition("/")[2])
            return listed(self, path, detail, **more)

        monkeypatch.setattr(type(memory), "ls", ls)
        files = RemoteFolder("memory://stream").files()
        first = next(files)
        assert (first.path, asked) == ("alone.png", ["stream"])
        found = [first.path, *(file.path for file in files)]
        assert asked == ["stream", "ant", "ant-ants", "bee", "cow", "dog"]
        here = (path.relative_to(photos) for path in photos.rglob("*") if path.is_file())
        assert found == list(map(str, sorted(here)))
    finally:
        memory.rm("/stream", recursive=True)


def test_a_listed_photo_takes_a_hundred_bytes():
    tracemalloc.start()
    try:
        samples = ListedSamples(partial(RemoteFile, RemoteFolder("memory://none")))
        samples.classes = [5, 7]
        for number in range(10_000):
            name = f"classes/{number:08d}-\udce9é.jpg"
            samples.append(ListedFile(name, number, f"{number:032x}"), number % 2)
        assert tracemalloc.get_traced_memory()[0] / 10_000 < 150
    finally:
        tracemalloc.stop()
    assert len(samples) == len(list(samples)) == 10_000
    (one,) = samples[7:8]
    assert (one, samples[-1].id) == (samples[7], "classes/00009999-\udce9é.jpg")
    assert (one.id, one.labels) == ("classes/00000007-\udce9é.jpg", ((7,),))
    assert (one.picture.root.length, one.picture.root.version) == (7, f"{7:032x}")


def test_a_table(bucket, photos):
    url, system = bucket
    system.put(str(photos / "bee"), f"{url}/bees", recursive=True)
    text = "file,classes\nbee.png,2\n./005.png,0 3\n001.png,bee\n"
    system.pipe(f"{url}/bees/labels.csv", text.encode())
    found = open_dataset(f"{url}/bees", CLASSES)
    assert [(s.id, s.labels) for s in found] == [("005.png", ((0, 3),)), ("001.png", ((3,),))]
    assert found[0].picture.read() == (photos / "bee" / "005.png").read_bytes()
    assert {(problem.kind, problem.file) for problem in found.problems} == {
        ("missing", "bee.png"),
        ("unlabelled", "009.png"),
    }
    system.pipe(f"{url}/bees/labels.csv", b"file,class\na.png,wasp\n")
    with pytest.raises(ValueError, match=r"labels\.csv:2: class 'wasp'"):
        open_dataset(f"{url}/bees", CLASSES)
    system.pipe(f"{url}/bees/labels.csv", b"photo,class\n")
    with pytest.raises(ValueError, match=rf"{url}/bees/labels\.csv has no column 'file'"):
        open_dataset(f"{url}/bees", CLASSES)
    system.pipe(f"{url}/bees/labels.csv", b"file,class\n\xff")
    with pytest.raises(ValueError, match=rf"{url}/bees/labels\.csv:2: not UTF-8"):
        open_dataset(f"{url}/bees", CLASSES)


def test_shards(bucket, photos, tmp_path):
    pytest.importorskip("pyarrow.parquet")
    url, system = bucket
    given = open_dataset(str(photos))
    pack(given, f"{url}/shards", photos_per_shard=4)
    pack(given, tmp_path / "shards", photos_per_shard=4)
    for path in (tmp_path / "shards").iterdir():
        assert system.cat_file(f"{url}/shards/{path.name}") == path.read_bytes()
    found = open_dataset(f"{url}/shards")
    same(found, given)
    assert found.problems == ()
    assert found.fingerprint() == given.fingerprint()
    with pytest.raises(ValueError, match=r"has 000000\.tar and others in it"):
        pack(given, f"{url}/shards")
    content = system.cat_file(f"{url}/shards/000001.tar")
    system.pipe(f"{url}/shards/000001.tar", content[:700] + b"?" + content[701:])
    with pytest.raises(UnreadableImageError, match=r"000004\.png in 000001\.tar, are not those"):
        found[4].image()
    system.pipe(f"{url}/shards/000001.tar", content[:600])
    with pytest.raises(StoreError, match=r"000001\.tar is not as it was"):
        found[4].image()
    found[3].image()
    again = open_dataset(f"{url}/shards")
    assert (len(again), {problem.kind for problem in again.problems}) == (len(given) - 4, {"damaged"})
    system.rm(f"{url}/shards/000001.tar")
    assert {problem.kind for problem in open_dataset(f"{url}/shards").problems} == {"missing"}


def test_a_bucket_that_is_not_there_is_not_made(server, photos):
    pytest.importorskip("pyarrow.parquet")
    given = open_dataset(str(photos))
    with pytest.raises(ValueError, match=r"s3://no-such-bucket/shards does not exist"):
        pack(given, "s3://no-such-bucket/shards")
    with pytest.raises(ValueError, match=r"s3://no-such-bucket/shards does not exist"):
        open_dataset("s3://no-such-bucket/shards")
    assert not fsspec.filesystem("s3").exists("no-such-bucket")


def test_shards_of_others(bucket, photos, tmp_path):
    url, system = bucket
    for k in range(3):
        with tarfile.open(tmp_path / f"{k}.tar", "w") as tar:
            tar.add(photos / "bee" / "001.png", "1.png")
            (tmp_path / "1.cls").write_text(str(k))
            tar.add(tmp_path / "1.cls", "1.cls")
        system.put_file(str(tmp_path / f"{k}.tar"), f"{url}/{k}.tar")
    found = open_dataset(url)
    assert [(s.id, s.labels) for s in found] == [(f"{k}.tar/1.png", ((k,),)) for k in range(3)]
    assert found[2].picture.read() == (photos / "bee" / "001.png").read_bytes()
    assert found[2].picture.digest(anew=True) == found[2].picture.digest()
    assert [s.id for s in open_dataset(f"{url}/1.tar")] == ["1.tar/1.png"]


def test_a_photo_that_changes_or_goes(bucket, photos):
    url, system = bucket
    system.put(str(photos / "bee"), f"{url}/photos/bee", recursive=True)
    first, second, third = open_dataset(f"{url}/photos")
    for sample in (first, second, third):
        assert sample.picture.digest(anew=True) == sample.picture.digest()
    other = second.picture.read()[:-1] + b"?"
    system.pipe(f"{url}/photos/bee/005.png", other)
    assert second.picture.digest(anew=True) != second.picture.digest()
    assert first.picture.digest(anew=True) == first.picture.digest()
    system.pipe(f"{url}/photos/bee/005.png", other[:100])
    with pytest.raises(UnreadableImageError, match=r"bee/005\.png: damaged \(100 bytes were read"):
        second.image()
    system.rm(f"{url}/photos/bee/009.png")
    with pytest.raises(UnreadableImageError, match=r"bee/009\.png: missing"):
        third.image()
    assert third.picture.digest(anew=True) != third.picture.digest()


def test_what_is_no_data_set(bucket):
    url, system = bucket
    with pytest.raises(ValueError, match=rf"{url}/nothing does not exist|has neither class folders"):
        open_dataset(f"{url}/nothing")
    system.pipe(f"{url}/flat/a.png", b"1")
    with pytest.raises(ValueError, match=r"has neither class folders, nor labels\.csv, nor shards"):
        open_dataset(f"{url}/flat")


def test_a_store_that_does_not_answer(photos, monkeypatch):
    """It is no photo's fault: a run must stop, and not note thousands of damaged photos."""
    memory = fsspec.filesystem("memory")
    memory.put(str(photos / "bee"), "/down/bee", recursive=True)
    try:
        dataset = open_dataset("memory://down")

        def refuse(*_, **__):
            raise TimeoutError("nobody answers\nmore")

        monkeypatch.setattr(type(memory), "cat_file", refuse)
        said = r"memory://down/bee/001\.png can't be read or written: TimeoutError: nobody answers\.$"
        for look in (dataset[0].image, dataset[0].picture.read, lambda: dataset[0].size):
            with pytest.raises(StoreError, match=said):
                look()
        with pytest.raises(StoreError, match=said):
            dataset.verified()
    finally:
        memory.rm("/down", recursive=True)


def test_without_the_extra(monkeypatch):
    _file_system.cache_clear()
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "fsspec", None)
        with pytest.raises(ModuleNotFoundError) as error:
            open_dataset("s3://bucket/photos")
    said = (
        'A data set at s3://bucket/photos needs fsspec, which is not installed: pip install "clarp[remote]".'
    )
    assert str(error.value) == said
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "s3fs", None)
        registry = sys.modules["fsspec.registry"]
        patch.setattr(registry, "_registry", {})
        patch.setattr(registry, "registry", {})
        with pytest.raises(
            ModuleNotFoundError, match=r"Install s3fs.*pip install \"clarp\[remote\]\" has that"
        ):
            open_dataset("s3://bucket/other")
    with pytest.raises(ValueError, match=r"gopher://host/photos can't be opened: .*gopher"):
        open_dataset("gopher://host/photos")
