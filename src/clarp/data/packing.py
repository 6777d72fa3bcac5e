"""Any data set as shards: tar files for WebDataset and others, and an index to read single photos of them."""

import hashlib
import json
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from clarp import dicom
from clarp.background import ahead
from clarp.data.coco import RunLengths
from clarp.data.dataset import Dataset
from clarp.data.packed import ABOUT, CHECKSUM, INDEX, VERSION, index_schema, record
from clarp.data.photo import Photo, digest_of_ends
from clarp.data.problems import Problem, UnreadableImageError
from clarp.data.sample import Object, Sample
from clarp.data.stores import LocalFolder, StoredFolder, stored_folder
from clarp.data.tars import PACKED_BY
from clarp.images import SUFFIXES
from clarp.optional import optional
from clarp.text import printable

_AHEAD = 17


@dataclass(frozen=True)
class PackOutcome:
    """What came of packing.

    Attributes:
        samples: that were packed.
        shards: tar files that were written.
        problems: photos that can't be read, and were left out.
    """

    samples: int
    shards: int
    problems: tuple[Problem, ...]


def pack(dataset: Dataset, out: str | Path, *, photos_per_shard: int = 1000) -> PackOutcome:
    """Write a data set as WebDataset shards with an index; ``open_dataset(out)`` opens it.

    A shard, ``000000.tar``, has of each sample its photo, byte for byte, and a JSON with id, labels and
    objects. Pictures that are made (mosaics, composites) become PNG files, and all regions run lengths. The
    same data set gives the same bytes. ``index.parquet`` is written last, with its checksum beside it.

    Args:
        dataset: any; its problems are left behind.
        out: an empty or a new folder, or a URL such as ``s3://bucket/shards``.
        photos_per_shard: as many as a shard has.

    Raises:
        ValueError: the folder has something in it.
        StoreError: a remote folder can't be written to.
        ModuleNotFoundError: pyarrow is not installed, or for a URL fsspec.
    """
    folder = stored_folder(out)
    _check_empty(folder)
    arrow, parquet = optional("pyarrow", "Packing"), optional("pyarrow.parquet", "Packing")
    lengths: dict[str, int] = {}
    problems: list[Problem] = []
    index, digits = BytesIO(), len(str(len(dataset)))
    with parquet.ParquetWriter(index, index_schema()) as writer:
        for start in range(0, len(dataset), photos_per_shard):
            name = f"{start // photos_per_shard:06d}.tar"
            numbered = enumerate(dataset.samples[start : start + photos_per_shard], start)
            shard = _ShardWriter(name, numbered, max(digits, 6), problems)
            folder.write(name, shard.write)
            lengths[name] = shard.length
            writer.write_table(arrow.Table.from_pylist(shard.rows, index_schema()))
        about = {
            "version": VERSION,
            "name": dataset.name,
            "classes": dataset.classes,
            "own_classes": dataset.own_classes,
            "as_is": dataset.as_is,
            "shards": lengths,
        }
        writer.add_key_value_metadata({ABOUT: json.dumps(about)})
    content = index.getvalue()
    checksum = f"{hashlib.sha256(content).hexdigest()}  {INDEX}\n".encode()
    folder.write(CHECKSUM, lambda file: file.write(checksum))
    folder.write(INDEX, lambda file: file.write(content))
    return PackOutcome(len(dataset) - len(problems), len(lengths), tuple(problems))


def _check_empty(folder: StoredFolder) -> None:
    if isinstance(folder, LocalFolder) and folder.root.is_file():
        raise ValueError(f"{folder} is a file, and shards go into an empty or a new folder: give one.")
    try:
        there = list(folder.entries())
    except ValueError:  # there is none
        return
    if there:
        raise ValueError(
            f"{folder} has {there[0]}{' and others' * (len(there) > 1)} in it, and shards go into an empty "
            "or a new folder: give another one, or empty this one."
        )


class _ShardWriter:
    """Writes one shard, and notes the rows of the index."""

    def __init__(
        self, name: str, numbered: Iterable[tuple[int, Sample]], digits: int, problems: list[Problem]
    ) -> None:
        self.rows: list[dict[str, Any]] = []
        self.length = 0
        self._name, self._numbered, self._digits, self._problems = name, numbered, digits, problems

    def write(self, file: BinaryIO) -> None:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for found in ahead(_read, self._numbered, most=_AHEAD):
                if isinstance(found, Problem):
                    self._problems.append(found)
                    continue
                number, data, row = found
                key = f"{number:0{self._digits}d}"
                member = key + _suffix(row["file"], data)
                row |= {"shard": self._name, "member": member, "offset": tar.offset + tarfile.BLOCKSIZE}
                _add(tar, member, data)
                _add(tar, f"{key}.json", _described(row))
                self.rows.append(row)
        self.length = file.tell()


def _read(numbered: tuple[int, Sample]) -> tuple[int, bytes, dict[str, Any]] | Problem:
    """A sample's number, the bytes of its photo, and its row of the index but for the place."""
    number, sample = numbered
    picture = sample.picture
    file = picture.file if isinstance(picture, Photo) else sample.id
    _check_utf_8(sample.id, file)
    try:
        data = picture.read() if isinstance(picture, Photo) else _rendered(sample)
        objects = [record(_with_run_lengths(thing, sample)) for thing in sample.objects]
    except UnreadableImageError as error:
        return error.problem
    row = {
        "id": sample.id,
        "size": len(data),
        "sha256": hashlib.sha256(data).digest(),
        "ends": digest_of_ends(len(data), lambda start, stop: data[start:stop]),
        "file": file,
        "as_stored": picture.as_stored if isinstance(picture, Photo) else True,
        "labels": sample.labels,
        "objects": json.dumps(objects) if objects else None,
    }
    return number, data, row


def _check_utf_8(*names: str) -> None:
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                f"{printable(name)}: this name is not UTF-8, which an index can't hold: rename the file."
            ) from error


def _rendered(sample: Sample) -> bytes:
    file = BytesIO()
    sample.image().save(file, "PNG")
    return file.getvalue()


def _with_run_lengths(thing: Object, sample: Sample) -> Object:
    if thing.region is None or isinstance(thing.region, RunLengths):
        return thing
    return replace(thing, region=RunLengths.of(thing.region, sample.size))


def _suffix(file: str, data: bytes) -> str:
    """That of the photo's name, if it is one of photos."""
    suffix = PurePosixPath(file).suffix.lower()
    if suffix in SUFFIXES:
        return suffix
    return ".png" if data.startswith(b"\x89PNG") else ".dcm" if dicom.has_mark(data) else ".bin"


def _described(row: dict[str, Any]) -> bytes:
    """What other readers of the shard find beside a photo."""
    labels = row["labels"]
    about = {PACKED_BY: "clarp", "id": row["id"], "labels": labels}
    about |= {"label": labels[0][0]} if labels else {}
    about |= {"objects": json.loads(row["objects"])} if row["objects"] else {}
    return json.dumps(about).encode()


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    tar.addfile(entry, BytesIO(data))
