"""WebDataset shards of others: plain tar files, of which the headers are read once."""

import json
import os
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, BinaryIO, cast

from clarp.data.dataset import Dataset
from clarp.data.folder import by_names, label_of
from clarp.data.photo import Photo, digest_of_ends
from clarp.data.pieces import Shard, ShardPiece
from clarp.data.problems import (
    AnnotationError,
    Contradiction,
    Problem,
    ProblemKind,
    StoreError,
    UnreadableImageError,
)
from clarp.data.sample import Label, Sample
from clarp.data.stores import StoredFolder
from clarp.images import SUFFIXES

PACKED_BY = "packed_by"
"""A field of the JSON that `clarp pack` writes for each sample."""
_LABELS = ("cls", "json")
_MOST_OF_A_LABEL = 1 << 20
_MOST_OF_A_HEADER = 1 << 20
"""Bytes: what a header says of itself in further blocks (long names, pax) is read into memory."""


def tar_shards(folder: StoredFolder, names: Sequence[str], classes: Sequence[str] = ()) -> Dataset:
    """Samples of WebDataset shards without an index: a photo and its label have the same key.

    The key is a file's path in the tar up to the first dot of its name. The label is the text of ``KEY.cls``
    or the field ``label`` of ``KEY.json``: an index, several, or a name of ``classes``. Nothing is unpacked.

    Args:
        folder: where they lie.
        names: of the tar files, in their order.
        classes: the model's class names by index.

    Returns:
        Samples in the order of the shards; ids are the shard's name and the photo's path in it. What is no
        photo with a label, links and what is behind damage in a shard are problems.

    Raises:
        ValueError: no such file; or they are shards of ``clarp pack`` without their index.
        AnnotationError: labels that are no class, with shard and file.
        StoreError: a remote folder does not answer.
    """
    found = _Found(by_names(classes), len(classes))
    for name in names:
        found.add(folder, name)
    if found.wrong:
        raise AnnotationError(found.wrong)
    title = folder.name if len(names) != 1 else PurePosixPath(names[0]).stem
    return Dataset(title, tuple(found.samples), tuple(classes), tuple(found.problems))


@dataclass(frozen=True)
class _Member:
    """A regular file in a tar."""

    name: str
    offset: int
    length: int


@dataclass
class _Found:
    """What is in the shards that were looked at."""

    by_name: Mapping[str, Sequence[int]]
    classes: int
    samples: list[Sample] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    wrong: list[Contradiction] = field(default_factory=list)

    def add(self, folder: StoredFolder, name: str) -> None:
        """Look at a shard."""
        try:
            with folder.opened(name) as file:
                length = file.seek(0, os.SEEK_END)
                file.seek(0)
                keys = _by_key(_members(file, name, length, self.problems), name, self.problems)
                for key, files in keys.items():
                    self._add(Shard(folder, name, length), file, key, files)
        except UnreadableImageError as error:
            self.problems.append(error.problem)
        except OSError as error:
            raise StoreError(f"{folder}/{name} can't be read: {error}.") from error

    def _add(self, shard: Shard, file: BinaryIO, key: str, files: Mapping[str, _Member]) -> None:
        photos = [suffix for suffix in files if f".{suffix}" in SUFFIXES]
        given = [suffix for suffix in _LABELS if suffix in files]
        if not photos and not given:
            for member in files.values():
                self._problem("not an image", f"{shard.name}/{member.name}", "no photo, and no label of one")
        elif len(photos) != 1:
            what = f"{len(photos)} photos have this key, expected one"
            self._problem("damaged" if photos else "missing", f"{shard.name}/{key}", what)
        elif not given:
            what = f"there is neither {key}.cls nor {key}.json"
            self._problem("unlabelled", f"{shard.name}/{files[photos[0]].name}", what)
        elif label := self._label(shard, file, files[given[0]]):
            self.samples.append(_sample(shard, file, files[photos[0]], label))

    def _label(self, shard: Shard, file: BinaryIO, member: _Member) -> Label | None:
        """The label that a file has; None: it has none, and that was noted."""
        place = f"{shard.name}/{member.name}"
        if member.length > _MOST_OF_A_LABEL:
            self._problem("damaged", place, f"{member.length:,} bytes, expected at most {_MOST_OF_A_LABEL:,}")
            return None
        file.seek(member.offset)
        try:
            text = file.read(member.length).decode("utf-8-sig").strip()
            said = _said(json.loads(text)) if member.name.lower().endswith(".json") else text
        except (ValueError, RecursionError, KeyError) as error:
            self._problem("damaged", place, f"no label can be read from it ({type(error).__name__})")
            return None
        if said is None:
            raise ValueError(
                f"{shard.folder}/{shard.name} is of `clarp pack`, which did not come to its end, or its "
                "index was not copied: pack again, or copy index.parquet and index.parquet.sha256."
            )
        label = label_of(said, self.by_name, self.classes)
        if isinstance(label, str):
            self.wrong.append(Contradiction(place, 1, label))
            return None
        return label

    def _problem(self, kind: ProblemKind, file: str, reason: str) -> None:
        self.problems.append(Problem(kind, file, reason))


def _sample(shard: Shard, file: BinaryIO, photo: _Member, label: Label) -> Sample:
    def read(start: int, stop: int) -> bytes:
        file.seek(photo.offset + start)
        return file.read(stop - start)

    known = digest_of_ends(photo.length, read)
    piece = ShardPiece(shard, photo.name, photo.offset, photo.length, known)
    identity = f"{shard.name}/{photo.name}"
    return Sample(identity, Photo(identity, piece), (label,))


def _said(about: Any) -> str | None:
    """The text of the label in a JSON; None: it is of a shard of `clarp pack`.

    Raises:
        KeyError: it has no label.
    """
    if not isinstance(about, dict):
        raise KeyError("label")
    if about.get(PACKED_BY) == "clarp":
        return None
    label = about["label"]
    return " ".join(map(str, label)) if isinstance(label, list) else str(label)


def _by_key(members: Iterator[_Member], shard: str, problems: list[Problem]) -> dict[str, dict[str, _Member]]:
    """The files of each key by their suffixes, in the order of the tar."""
    found: dict[str, dict[str, _Member]] = {}
    for member in members:
        place, path = f"{shard}/{member.name}", PurePosixPath(member.name)
        key, _, suffix = path.name.partition(".")
        files = found.setdefault(str(path.with_name(key)) if key else "", {})
        if path.is_absolute() or ".." in path.parts:
            problems.append(Problem("outside", place, "its name leaves the shard"))
        elif key and not suffix:
            problems.append(Problem("not an image", place, "its name has no suffix"))
        elif key and suffix.lower() in files:
            problems.append(Problem("damaged", place, "it is there twice"))
        elif key:  # a name with a leading dot is of a hidden file
            files[suffix.lower()] = member
    return found


def _members(file: BinaryIO, shard: str, length: int, problems: list[Problem]) -> Iterator[_Member]:
    """The regular files of a tar, as far as it is whole."""
    before = -1
    try:
        headers = cast("BinaryIO", _HeaderReader(file))
        tar = tarfile.open(fileobj=headers, mode="r:")  # noqa: SIM115  nothing of it is open
        while (entry := tar.next()) is not None:
            tar.members.clear()  # type: ignore[attr-defined]  # it would hold all of them
            before, last = entry.offset, before
            cut = not entry.issparse() and entry.offset_data + entry.size > length
            if cut or entry.size < 0 or before <= last:  # a length below 0 would lead back, for ever
                problems.append(Problem("damaged", f"{shard}/{entry.name}", "the shard ends in it"))
                return
            if entry.isreg() and not entry.issparse():
                yield _Member(entry.name, entry.offset_data, entry.size)
            elif not entry.isdir():
                what = "a sparse file" if entry.issparse() else "a link, a pipe or a device"
                problems.append(Problem("not an image", f"{shard}/{entry.name}", what))
        file.seek(tar.offset)
        if file.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
            reason = f"neither a file nor the end at byte {tar.offset:,}; what is behind it is not read"
            problems.append(Problem("damaged", shard, reason))
    except OSError:
        raise
    except Exception as error:  # noqa: BLE001  tarfile raises whatever it runs into
        said = str(error) or type(error).__name__
        reason = f"behind byte {max(before, 0):,} it can't be read as a tar file: {said}"
        problems.append(Problem("damaged", shard, reason))


class _HeaderReader:
    """A file of which tarfile may read headers only: one may say that it is longer than all memory."""

    def __init__(self, file: BinaryIO) -> None:
        self.seek, self.tell, self._read = file.seek, file.tell, file.read

    def read(self, count: int) -> bytes:
        if not 0 <= count <= _MOST_OF_A_HEADER:
            raise ValueError(f"a header of {count:,} bytes")
        return self._read(count)
