"""Photos with boxes, described by one ``boxes.json``."""

from collections.abc import Iterator
from pathlib import Path

from clarp.data._fields import FieldError, field, four, items, label, text_of, whole
from clarp.data._located import RepeatedKeys, json_keys, read_json
from clarp.data.dataset import Dataset
from clarp.data.folder import existing_folder
from clarp.data.photo import Photo, within
from clarp.data.problems import AnnotationError, Contradiction, Problem, UnreadableImageError
from clarp.data.sample import Object, Sample, checked_box, shown_size, unique
from clarp.geometry import Size


def boxed_photos(root: str | Path, table: str = "boxes.json", *, outside: bool = False) -> Dataset:
    """Photos listed in a JSON table with their objects' boxes.

    The table maps each file to ``{"width": 640, "height": 512, "objects": [...]}`` with objects like
    ``{"label": "zebra", "classes": [340], "box": [left, top, right, bottom]}``: pixels, the best class first.

    Args:
        root: the folder of the photos.
        table: the table's path below ``root``.
        outside: files may lie outside of the folder (links, ``..``, absolute paths); else those are problems.

    Returns:
        Samples in the order of the file names, which are their ids.

    Raises:
        ValueError: no such folder or table, or a table that is a link out of the folder.
        AnnotationError: a size that is not the photo's, a box outside it, a field that is absent or of
            another kind, or a file listed twice; all of them at once, with file and line.
    """
    root = existing_folder(root)
    path = within(root, root / table, outside=outside)
    if not path.is_file():
        raise ValueError(f"{path} does not exist: give a table of files, sizes and boxes")
    text, content = read_json(path, "correct that line")
    if not isinstance(content, dict):
        raise ValueError(  # noqa: TRY004  a wrong content of the right type
            f"{path} holds no object, expected one that maps each file to its size and objects"
        )
    samples: list[Sample] = []
    problems: list[Problem] = []
    wrong: list[tuple[str, str]] = []
    for file, record in sorted(content.items()):
        photo = Photo(file, root, as_stored=True, outside=outside)
        try:
            objects = _objects(record, photo, wrong)
        except UnreadableImageError as error:
            problems.append(error.problem)
        else:
            samples.append(Sample(file, photo, unique(thing.label for thing in objects), objects))
    if wrong or isinstance(content, RepeatedKeys):
        raise AnnotationError(_located(table, json_keys(text), wrong))
    return Dataset(root.name, tuple(samples), (), tuple(problems))


def _objects(record: object, photo: Photo, wrong: list[tuple[str, str]]) -> tuple[Object, ...]:
    """The photo's objects; what can't be true is added to ``wrong``, as (file, reason).

    Raises:
        UnreadableImageError: the photo is missing or damaged.
    """
    size = photo.size()
    objects: list[Object] = []
    try:
        entries = _entries(record, size)
    except FieldError as error:
        wrong.append((photo.file, str(error)))
        return ()
    for number, entry in enumerate(entries, start=1):
        try:
            objects.append(_object(entry, size))
        except FieldError as error:
            wrong.append((photo.file, f"object {number}: {error}"))
    return tuple(objects)


def _entries(record: object, size: Size) -> list[object]:
    """The records of the objects of a photo of (height, width)."""
    height, width = field(record, "height", whole), field(record, "width", whole)
    if (height, width) != size:
        stated = shown_size((height, width))
        raise FieldError(f"the size is {stated} pixels, the photo has {shown_size(size)}")
    return field(record, "objects", items)


def _object(entry: object, size: Size) -> Object:
    box = checked_box(field(entry, "box", four), size)
    if isinstance(box, str):
        raise FieldError(box)
    return Object(field(entry, "classes", label), field(entry, "label", text_of), box)


def _located(
    table: str, keys: list[tuple[str, int]], wrong: list[tuple[str, str]]
) -> Iterator[Contradiction]:
    """With lines; and files that are listed twice, of which JSON's reader keeps the last."""
    lines: dict[str, int] = {}
    for file, line in keys:
        if file in lines:
            yield Contradiction(table, line, f"{file} is listed twice")
        lines[file] = line
    for file, reason in wrong:
        yield Contradiction(table, lines[file], f"{file}: {reason}")
