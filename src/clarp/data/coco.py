"""COCO by its instances json."""

import json
import warnings
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clarp.data._located import json_lines
from clarp.data._optional import optional
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

_PURPOSE = "Reading COCO masks"


@dataclass(frozen=True)
class RunLengths:
    """A COCO mask: run lengths, compressed by pycocotools, of an image of (height, width)."""

    size: Size
    counts: bytes

    def mask(self, size: Size) -> Tensor:
        """(H, W) bool; the size was compared with the photo's when the data set was read."""
        del size
        masks = optional("pycocotools.mask", _PURPOSE)
        with warnings.catch_warnings():
            # pycocotools 2.0.11 hands its array to numpy in the way of numpy 1.
            warnings.simplefilter("ignore", DeprecationWarning)
            pixels = masks.decode({"size": list(self.size), "counts": self.counts})
        return torch.from_numpy(pixels.astype(bool))


def coco(annotations: str | Path, images: str | Path) -> Dataset:
    """COCO (Lin 2014): ``annotations/instances_val2014.json`` with the folder ``val2014``.

    Class indices number the categories in the order of their ids without gaps, 0 to 79, as the classifiers
    trained on COCO do. An object's place is its mask; crowds are objects too, as in TorchRay. Needs
    pycocotools.

    Args:
        annotations: the json file.
        images: the folder of the photos.

    Returns:
        Samples in the order of the image ids; their ids are the file names. An image without objects is a
        sample without labels. Photos that are missing or damaged are problems.

    Raises:
        ValueError: no such file or folder, or not COCO's json.
        AnnotationError: a size that is not the photo's, a box or mask outside it, an unknown category or
            image id: all of them at once, with file and line.
    """
    path, folder = Path(annotations), existing_folder(images)
    text, content = _content(path)
    categories = sorted(content["categories"], key=lambda category: int(category["id"]))
    reader = _Reader(
        {category["id"]: n for n, category in enumerate(categories)}, [c["name"] for c in categories]
    )
    pictures = {record["id"]: (n, record) for n, record in enumerate(content["images"])}
    objects: dict[int, list[tuple[int, dict[str, Any]]]] = defaultdict(list)
    wrong: list[tuple[str, int, str]] = []
    for number, record in enumerate(content["annotations"]):
        if record["image_id"] not in pictures:
            wrong.append(("annotations", number, f"image id {record['image_id']} is not in the file"))
        objects[record["image_id"]].append((number, record))
    samples: list[Sample] = []
    problems: list[Problem] = []
    for identity, (number, record) in sorted(pictures.items()):
        photo = Photo(record["file_name"], folder, as_stored=True)
        try:
            size = photo.size()
        except UnreadableImageError as error:
            problems.append(error.problem)
            continue
        if (stated := (record["height"], record["width"])) != size:
            sizes = f"{stated[1]} x {stated[0]} pixels, the photo has {size[1]} x {size[0]}"
            wrong.append(("images", number, f"{photo.file}: the size is {sizes}"))
            continue
        found = [(n, reader.object(entry, size)) for n, entry in objects[identity]]
        wrong += [
            ("annotations", n, f"{photo.file}: {thing}") for n, thing in found if isinstance(thing, str)
        ]
        things = tuple(thing for _, thing in found if isinstance(thing, Object))
        samples.append(Sample(photo.file, photo, unique(thing.label for thing in things), things))
    if wrong:
        lines = {key: json_lines(text, key) for key, _, _ in wrong}
        raise AnnotationError(Contradiction(path.name, lines[key][n], reason) for key, n, reason in wrong)
    return Dataset(path.stem, tuple(samples), tuple(reader.names), tuple(problems))


@dataclass(frozen=True)
class _Reader:
    """Turns annotation records into objects."""

    index: dict[int, int]
    names: list[str]

    def object(self, record: dict[str, Any], size: Size) -> Object | str:
        """The object, or why there can't be such a one."""
        if record["category_id"] not in self.index:
            return f"category id {record['category_id']} is not in the file"
        index = self.index[record["category_id"]]
        left, top, width, height = (float(edge) for edge in record["bbox"])
        region = _region(record["segmentation"], size)
        if isinstance(region, str):
            return region
        # COCO has a few boxes without width or height beside a good mask; the mask is the object's place.
        box = checked_box((left, top, left + width, top + height), size) if width > 0 and height > 0 else None
        return box if isinstance(box, str) else Object((index,), self.names[index], box, region=region)


def _region(segmentation: Any, size: Size) -> RunLengths | str:
    """Polygons, or run lengths as a list (crowds) or compressed."""
    masks = optional("pycocotools.mask", _PURPOSE)
    height, width = size
    if isinstance(segmentation, dict):
        if tuple(segmentation["size"]) != size:
            stated = segmentation["size"]
            return f"the mask has {stated[1]} x {stated[0]} pixels, the photo {width} x {height}"
        lengths = segmentation
        if isinstance(segmentation["counts"], list):
            lengths = masks.frPyObjects(segmentation, height, width)
    else:
        polygons = [polygon for polygon in segmentation if len(polygon) >= 6]
        if not polygons:
            return "the mask has no polygon with three corners"
        for polygon in polygons:
            whole = checked_box(
                (min(polygon[::2]), min(polygon[1::2]), max(polygon[::2]), max(polygon[1::2])), size
            )
            if isinstance(whole, str) and "leaves" in whole:
                return whole.replace("box", "polygon in")
        lengths = masks.merge(masks.frPyObjects(polygons, height, width))
    counts = lengths["counts"]
    return RunLengths(size, counts.encode() if isinstance(counts, str) else counts)


def _content(path: Path) -> tuple[str, dict[str, Any]]:
    if not path.is_file():
        raise ValueError(f"{path} does not exist: give COCO's instances_*.json")
    text = path.read_text(encoding="utf-8")
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path}:{error.lineno}: not JSON ({error.msg}): give COCO's instances_*.json"
        ) from error
    absent = [key for key in ("images", "annotations", "categories") if key not in content]
    if absent:
        raise ValueError(f"{path} has no {', '.join(absent)}: give COCO's instances_*.json, not the captions")
    return text, content
