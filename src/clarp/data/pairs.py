"""A few photos with boxes by hand, described by one ``boxes.json``."""

import json
from pathlib import Path
from typing import Any

from clarp.data._located import json_lines
from clarp.data.folder import existing_folder
from clarp.data.geometry import Size
from clarp.data.sample import (
    AnnotationError,
    Contradiction,
    Dataset,
    Object,
    Photo,
    Problem,
    Sample,
    UnreadableImageError,
    checked_box,
    unique,
)


def boxed_photos(root: str | Path, table: str = "boxes.json") -> Dataset:
    """Photos listed in a JSON table with their objects' boxes.

    The table maps each file to ``{"width": 640, "height": 512, "objects": [...]}`` with objects like
    ``{"label": "zebra", "classes": [340], "box": [left, top, right, bottom]}``: pixels, the best class first.

    Returns:
        Samples in the order of the file names, which are their ids.

    Raises:
        ValueError: no such folder or table.
        AnnotationError: a size that is not the photo's, or a box outside it; with file and line.
    """
    root = existing_folder(root)
    path = root / table
    if not path.is_file():
        raise ValueError(f"{path} does not exist: give a table of files, sizes and boxes")
    text = path.read_text(encoding="utf-8")
    try:
        content: dict[str, dict[str, Any]] = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}:{error.lineno}: not JSON ({error.msg}): correct that line") from error
    lines = dict(zip(content, json_lines(text, ""), strict=True))
    samples: list[Sample] = []
    problems: list[Problem] = []
    wrong: list[Contradiction] = []
    for file, record in sorted(content.items()):
        photo = Photo(file, root, as_stored=True)
        try:
            size = photo.size()
        except UnreadableImageError as error:
            problems.append(error.problem)
            continue
        found = _objects(record, size)
        wrong += [
            Contradiction(table, lines[file], f"{file}: {thing}") for thing in found if isinstance(thing, str)
        ]
        objects = tuple(thing for thing in found if isinstance(thing, Object))
        samples.append(Sample(file, photo, unique(thing.label for thing in objects), objects))
    if wrong:
        raise AnnotationError(wrong)
    return Dataset(root.name, tuple(samples), (), tuple(problems))


def _objects(record: dict[str, Any], size: Size) -> list[Object | str]:
    stated = record["height"], record["width"]
    if stated != size:
        return [f"the size is {stated[1]} x {stated[0]} pixels, the photo has {size[1]} x {size[0]}"]
    objects: list[Object | str] = []
    for entry in record["objects"]:
        left, top, right, bottom = (float(edge) for edge in entry["box"])
        box = checked_box((left, top, right, bottom), size)
        label = tuple(int(index) for index in entry["classes"])
        objects.append(box if isinstance(box, str) else Object(label, entry["label"], box))
    return objects
