"""Data sets that ``clarp pack`` wrote: shards, and an index that tells where each photo lies in them."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast, overload

from clarp.data._fields import FieldError, field, four, items, label, text_of, whole, wholes
from clarp.data.coco import RunLengths
from clarp.data.dataset import Dataset
from clarp.data.folder import index_of_folders
from clarp.data.photo import Photo
from clarp.data.pieces import Shard, ShardPiece
from clarp.data.problems import Problem, UnreadableImageError
from clarp.data.sample import Label, Object, Sample
from clarp.data.stores import StoredFolder, read_whole
from clarp.geometry import Box
from clarp.optional import optional
from clarp.text import printable

INDEX = "index.parquet"
CHECKSUM = f"{INDEX}.sha256"
ABOUT = b"clarp.pack"
VERSION = 1
_AT_ONCE = 4096
_INDEX_BYTES = 4 << 30
_PURPOSE = "A packed data set"


def index_schema() -> Any:
    """Of the index, for pyarrow: a row for each sample, in their order."""
    arrow = optional("pyarrow", _PURPOSE)
    return arrow.schema(
        [
            ("id", arrow.string()),
            ("shard", arrow.string()),
            ("member", arrow.string()),  # the photo's name in the shard
            ("offset", arrow.int64()),  # of its first byte
            ("size", arrow.int64()),
            ("sha256", arrow.binary(32)),
            ("ends", arrow.binary(32)),  # Photo.digest of the file that was packed
            ("file", arrow.string()),  # its name in the data set that was packed
            ("as_stored", arrow.bool_()),
            ("labels", arrow.list_(arrow.list_(arrow.int64()))),
            ("objects", arrow.string()),  # JSON as of `record`, null where there are none
        ]
    )


def record(thing: Object) -> dict[str, Any]:
    """An object as JSON has it; its region has to be run lengths."""
    found: dict[str, Any] = {"label": list(thing.label), "name": thing.name, "box": thing.box}
    if thing.difficult:
        found["difficult"] = True
    if isinstance(thing.region, RunLengths):
        found["mask"] = {"size": list(thing.region.size), "counts": thing.region.counts.decode("ascii")}
    return found


@dataclass(frozen=True, eq=False)
class PackedSamples(Sequence[Sample]):
    """The samples of an index, made when they are asked for, because the index takes less memory.

    Attributes:
        table: the index, of pyarrow.
        shards: by their names.
        numbers: by its number in the index the number of each class; None: the same.
    """

    table: Any
    shards: dict[str, Shard]
    numbers: tuple[int, ...] | None

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @overload
    def __getitem__(self, place: int) -> Sample: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[Sample, ...]: ...
    def __getitem__(self, place: int | slice) -> Sample | tuple[Sample, ...]:
        numbers = range(len(self))[place]
        if isinstance(numbers, int):
            return next(self._samples(self.table.slice(numbers, 1)))
        if numbers.step == 1:
            return tuple(self._samples(self.table.slice(numbers.start, len(numbers))))
        return tuple(self._samples(self.table.take(list(numbers))))

    def __iter__(self) -> Iterator[Sample]:
        for start in range(0, len(self), _AT_ONCE):
            yield from self._samples(self.table.slice(start, _AT_ONCE))

    def _samples(self, rows: Any) -> Iterator[Sample]:
        for row in zip(*(rows[name].to_pylist() for name in index_schema().names), strict=True):
            name, shard, member, offset, size, sha256, ends, file, as_stored, labels, objects = row
            piece = ShardPiece(self.shards[shard], member, offset, size, ends, sha256)
            yield Sample(
                name,
                Photo(file, piece, as_stored),
                tuple(self._label(each) for each in labels),
                () if objects is None else tuple(_objects(objects, self._label)),
            )

    def _label(self, ids: Sequence[int]) -> Label:
        return tuple(ids) if self.numbers is None else tuple(self.numbers[one] for one in ids)


def packed(folder: StoredFolder, classes: Sequence[str] = ()) -> Dataset:
    """Shards with the index that :func:`~clarp.data.packing.pack` wrote.

    Args:
        folder: where they lie.
        classes: the model's class names by index; classes that are folders' names get the index of their
            name, as of :func:`~clarp.data.folder.image_folder`.

    Returns:
        The samples that were packed, in their order. Those in shards that are missing or too short are
        problems.

    Raises:
        ValueError: the index is damaged, or a class is none of the model's.
        StoreError: a remote folder does not answer.
    """
    content, checksum = read_whole(folder, INDEX, _INDEX_BYTES), read_whole(folder, CHECKSUM, 1 << 10)
    try:
        if checksum.decode().partition(" ")[0] != hashlib.sha256(content).hexdigest():
            raise ValueError(f"its bytes are not those of {CHECKSUM}")  # noqa: TRY301  worded below
        about, table = _read(content)
        names = tuple(text_of(name) for name in field(about, "classes", items))
        name, lengths = field(about, "name", text_of), field(about, "shards", _lengths)
        by_names = about.get("own_classes") is True
        _check(table, lengths, len(names) if by_names else None)
    except (
        ValueError,
        KeyError,
        RecursionError,
        OSError,
        optional("pyarrow", _PURPOSE).ArrowException,
    ) as error:
        said = printable((str(error).splitlines() or [""])[0].rstrip("."))
        raise ValueError(f"{folder}/{INDEX} is damaged ({said}): copy it again, or pack again.") from error
    table, shards, problems = _present(folder, table, lengths)
    mapped = by_names and bool(classes)
    index = index_of_folders(names, classes) if mapped else {}
    samples = PackedSamples(table, shards, tuple(index[one] for one in names) if mapped else None)
    return Dataset(
        name,
        samples,
        tuple(classes) if mapped else names,
        problems,
        as_is=about.get("as_is") is True,
        own_classes=by_names and not mapped,
    )


def _read(content: bytes) -> tuple[dict[str, Any], Any]:
    """What an index says of its data set, and its table.

    Raises:
        ValueError, KeyError, ArrowException: it is none.
    """
    parquet = optional("pyarrow.parquet", _PURPOSE)
    with parquet.ParquetFile(optional("pyarrow", _PURPOSE).BufferReader(content)) as file:
        about = json.loads(file.metadata.metadata[ABOUT])
        if field(about, "version", whole) != VERSION:
            raise ValueError(f"its version is {about['version']}, and this clarp reads {VERSION}")
        if not file.schema_arrow.equals(index_schema()):
            raise ValueError(f"its columns are {', '.join(file.schema_arrow.names)}")
        return about, file.read().combine_chunks()


def _lengths(value: object) -> dict[str, int]:
    """The shards' lengths by their names."""
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise FieldError("an object of shards")
    return {name: whole(length) for name, length in value.items()}


def _check(table: Any, shards: Mapping[str, int], classes: int | None) -> None:
    """Refuse rows that no data set can have; ``classes``: so many, if they have names of their own.

    Raises:
        ValueError: there are such.
    """
    arrow, compute = optional("pyarrow", _PURPOSE), optional("pyarrow.compute", _PURPOSE)
    if any(table[name].null_count for name in table.column_names if name != "objects"):
        raise ValueError("a row is not whole")
    known = compute.is_in(table["shard"], value_set=arrow.array(list(shards), arrow.string()))
    if not compute.all(known, min_count=0).as_py():
        raise ValueError("a row names a shard that is not listed")
    if table.num_rows and min(compute.min(table[name]).as_py() for name in ("offset", "size")) < 0:
        raise ValueError("a row has a place before the beginning of its shard")
    labels = compute.list_flatten(table["labels"])
    ids = compute.list_flatten(labels)
    least = compute.min(compute.list_value_length(labels)).as_py()
    if labels.null_count or ids.null_count or least == 0 or (compute.min(ids).as_py() or 0) < 0:
        raise ValueError("a label is no list of classes")
    texts = compute.drop_null(table["objects"]).to_pylist()
    named = [max(thing.label) for text in texts for thing in _objects(text, tuple)]
    highest = max([*named, *compute.drop_null(compute.unique(ids)).to_pylist()], default=-1)
    if classes is not None and highest >= classes:
        raise ValueError(f"it has the class {highest}, and {classes} names of classes")


def _present(
    folder: StoredFolder, table: Any, lengths: Mapping[str, int]
) -> tuple[Any, dict[str, Shard], tuple[Problem, ...]]:
    """The rows whose bytes are there, the shards, and problems for the other rows."""
    arrow, compute = optional("pyarrow", _PURPOSE), optional("pyarrow.compute", _PURPOSE)
    there = folder.entries()
    found = {name: length for name in lengths if (length := there.get(name)) is not None}
    totals = arrow.array([found.get(name, -1) for name in lengths], arrow.int64())
    places = compute.index_in(table["shard"], value_set=arrow.array(list(lengths), arrow.string()))
    room = compute.subtract(totals.take(places.combine_chunks()), table["offset"])
    whole_ones = compute.less_equal(table["size"], room)
    rows = table.filter(compute.invert(whole_ones)).select(["file", "shard", "member"]).to_pylist()
    problems = tuple(_lost(folder, row, there=row["shard"] in found) for row in rows)
    shards = {name: Shard(folder, name, length) for name, length in found.items()}
    return (table.filter(whole_ones).combine_chunks() if rows else table), shards, problems


def _lost(folder: StoredFolder, row: Mapping[str, str], *, there: bool) -> Problem:
    """Why a photo is not there."""
    if there:
        return Problem("damaged", row["file"], f"{row['shard']} ends before the end of {row['member']}")
    try:
        folder.length(row["shard"])
    except UnreadableImageError as error:
        problem = error.problem
        return Problem(problem.kind, row["file"], f"{row['member']} in {row['shard']}: {problem.reason}")
    return Problem("missing", row["file"], f"{row['member']} in {row['shard']}, which is no file")


def _objects(text: str, label_of: Callable[[Sequence[int]], Label]) -> tuple[Object, ...]:
    """The objects of a row; ``label_of`` turns the ids of a label into those of the data set.

    Raises:
        ValueError: there can't be such.
    """
    return tuple(
        Object(
            label_of(field(each, "label", label)),
            field(each, "name", text_of),
            field(each, "box", _box),
            isinstance(each, dict) and each.get("difficult") is True,
            _region(each),
        )
        for each in items(json.loads(text))
    )


def _box(value: object) -> Box | None:
    """Four numbers as they were written, whole ones too; None: the object has no box."""
    if value is None:
        return None
    four(value)
    left, top, right, bottom = cast("list[float]", value)
    return left, top, right, bottom


def _region(each: object) -> RunLengths | None:
    if not isinstance(each, dict) or "mask" not in each:
        return None
    height, width = (*field(each["mask"], "size", wholes), -1, -1)[:2]
    return RunLengths((height, width), field(each["mask"], "counts", text_of).encode("ascii"))
