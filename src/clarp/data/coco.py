"""COCO by its instances json."""

import warnings
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from clarp.data._fields import FieldError, field, four, items, numbers, text_of, whole, wholes
from clarp.data._located import json_lines, read_json
from clarp.data.dataset import Dataset
from clarp.data.folder import existing_folder
from clarp.data.photo import Photo
from clarp.data.problems import AnnotationError, Contradiction, Problem, UnreadableImageError
from clarp.data.sample import Object, Region, Sample, checked_box, shown_size, unique
from clarp.geometry import Size
from clarp.optional import optional

_PURPOSE = "Reading COCO masks"
_MOST_AROUND = 1e6
"""Pixels; the longest outline of COCO's own has some ten thousand."""
_MOST_BITS = 40
"""Of a run length: no picture has more pixels."""


@dataclass(frozen=True)
class RunLengths:
    """A COCO mask: run lengths, compressed by pycocotools, of an image of (height, width)."""

    size: Size
    counts: bytes

    @classmethod
    def of(cls, region: Region, size: Size) -> "RunLengths":
        """Those of any region in an image of (height, width)."""
        if isinstance(region, cls):
            return region
        masks = optional("pycocotools.mask", "Run lengths of a mask")
        pixels = np.asfortranarray(region.mask(size).numpy().astype(np.uint8))
        return cls(size, masks.encode(pixels)["counts"])

    def mask(self, size: Size) -> Tensor:
        """(H, W) bool.

        Raises:
            ValueError: it is of an image of another size, or does not cover it; pycocotools would not notice.
        """
        covered = sum(_runs(self.counts.decode("ascii")))
        if self.size != size or covered != size[0] * size[1]:
            raise ValueError(
                f"a mask of {shown_size(self.size)} pixels covers {covered} of a photo of {shown_size(size)}"
            )
        masks = optional("pycocotools.mask", _PURPOSE)
        with warnings.catch_warnings():
            # pycocotools 2.0.11 hands its array to numpy in the way of numpy 1.
            warnings.simplefilter("ignore", DeprecationWarning)
            pixels = masks.decode({"size": list(self.size), "counts": self.counts})
        return torch.from_numpy(pixels.astype(bool))

    def files(self) -> tuple[Photo, ...]:
        return ()


def coco(annotations: str | Path, images: str | Path, *, outside: bool = False) -> Dataset:
    """COCO (Lin 2014): ``annotations/instances_val2014.json`` with the folder ``val2014``.

    Class indices number the categories in the order of their ids without gaps, 0 to 79, as the classifiers
    trained on COCO do. An object's place is its mask; crowds are objects too, as in TorchRay. Needs
    pycocotools.

    Args:
        annotations: the json file.
        images: the folder of the photos.
        outside: files may lie outside of the folder (links, ``..``, absolute paths); else those are problems.

    Returns:
        Samples in the order of the image ids; their ids are the file names. An image without objects is a
        sample without labels. Photos that are missing or damaged are problems.

    Raises:
        ValueError: no such file or folder, or not COCO's json.
        AnnotationError: a size that is not the photo's, a box or mask outside it, run lengths that don't
            cover it, an unknown category or image id, one that is there twice, a field that is absent or of
            another kind: all of them at once, with file and line.
    """
    path, folder = Path(annotations), existing_folder(images)
    text, content = _content(path)
    wrong: list[_Wrong] = []
    categories = _categories(content["categories"], wrong)
    pictures = _pictures(content["images"], wrong)
    objects = _by_image(content["annotations"], _ids(content["images"]), wrong)
    samples: list[Sample] = []
    problems: list[Problem] = []
    for identity, (place, file, stated) in sorted(pictures.items()):
        photo = Photo(file, folder, as_stored=True, outside=outside)
        try:
            size = photo.size()
        except UnreadableImageError as error:
            problems.append(error.problem)
            continue
        if stated != size:
            sizes = f"{shown_size(stated)} pixels, the photo has {shown_size(size)}"
            wrong.append(("images", place, f"{file}: the size is {sizes}"))
            continue
        things: list[Object] = []
        for number, record in objects[identity]:
            try:
                things.append(_object(record, size, categories))
            except FieldError as error:
                wrong.append(("annotations", number, f"{file}: {error}"))
        samples.append(Sample(file, photo, unique(thing.label for thing in things), tuple(things)))
    if wrong:
        lines = {key: json_lines(text, key) for key in {key for key, _, _ in wrong}}
        raise AnnotationError(Contradiction(path.name, lines[key][n], reason) for key, n, reason in wrong)
    return Dataset(path.stem, tuple(samples), tuple(name for _, name in categories.values()), tuple(problems))


_Wrong = tuple[str, int, str]
"""The list in the file, the element's number in it, and why it can't be true."""


def _pictures(records: list[object], wrong: list[_Wrong]) -> dict[int, tuple[int, str, Size]]:
    """By image id the number in the list, the file, and the stated (height, width); none is there twice."""
    found: dict[int, tuple[int, str, Size]] = {}
    files: set[str] = set()
    for number, record in enumerate(records):
        try:
            identity, file = field(record, "id", whole), field(record, "file_name", text_of)
            image = number, file, (field(record, "height", whole), field(record, "width", whole))
        except FieldError as error:
            wrong.append(("images", number, str(error)))
            continue
        if identity in found:
            wrong.append(("images", number, f"the image id {identity} is there twice"))
        elif file in files:
            wrong.append(("images", number, f"{file} is there twice"))
        found.setdefault(identity, image)
        files.add(file)
    return found


def _ids(images: list[object]) -> set[float]:
    """The ids, also of the images that lack something else: their annotations are not to blame for it."""
    found = (record.get("id") for record in images if isinstance(record, dict))
    return {identity for identity in found if isinstance(identity, int | float)}


def _by_image(
    records: list[object], known: set[float], wrong: list[_Wrong]
) -> dict[int, list[tuple[int, object]]]:
    """The annotations with their numbers in the list, by image id."""
    found: dict[int, list[tuple[int, object]]] = defaultdict(list)
    for number, record in enumerate(records):
        try:
            identity = field(record, "image_id", whole)
        except FieldError as error:
            wrong.append(("annotations", number, str(error)))
            continue
        if identity not in known:
            wrong.append(("annotations", number, f"image id {identity} is not in the file"))
        found[identity].append((number, record))
    return found


def _categories(records: list[object], wrong: list[_Wrong]) -> dict[int, tuple[int, str]]:
    """By the id of each category its number, in the order of the ids, and its name; no id twice."""
    names: dict[int, str] = {}
    for number, record in enumerate(records):
        try:
            identity, name = field(record, "id", whole), field(record, "name", text_of)
        except FieldError as error:
            wrong.append(("categories", number, str(error)))
            continue
        if identity in names:
            wrong.append(("categories", number, f"the category id {identity} is there twice"))
        names[identity] = name
    return {identity: (number, names[identity]) for number, identity in enumerate(sorted(names))}


def _object(record: object, size: Size, categories: Mapping[int, tuple[int, str]]) -> Object:
    """The object of an annotation.

    Raises:
        FieldError: there can't be such a one.
    """
    category = field(record, "category_id", whole)
    if category not in categories:
        raise FieldError(f"category id {category} is not in the file")
    left, top, width, height = field(record, "bbox", four)
    region = _region(field(record, "segmentation", lambda value: value), size)
    # COCO has a few boxes without width or height beside a good mask; the mask is the object's place.
    flat = min(width, height) == 0
    box = None if flat else checked_box((left, top, left + width, top + height), size)
    if isinstance(box, str):
        raise FieldError(box)
    index, name = categories[category]
    return Object((index,), name, box, region=region)


def _region(segmentation: object, size: Size) -> RunLengths:
    """Polygons, or run lengths as a list (crowds) or compressed.

    Raises:
        FieldError: it can't be the mask of an object in an image of that (height, width).
    """
    masks = optional("pycocotools.mask", _PURPOSE)
    height, width = size
    if isinstance(segmentation, dict):
        stated = field(segmentation, "size", wholes)
        if stated != [height, width]:
            shown = (
                shown_size((stated[0], stated[1]))
                if len(stated) == 2
                else f"a size of {len(stated)} numbers:"
            )
            raise FieldError(f"the mask has {shown} pixels, the photo {shown_size(size)}")
        runs = field(segmentation, "counts", _runs)
        if sum(runs) != height * width:
            raise FieldError(
                f"the mask's run lengths cover {sum(runs)} pixels, the photo has {height * width}"
            )
        lengths = masks.frPyObjects({"size": [height, width], "counts": runs}, height, width)
    else:
        lengths = masks.merge(masks.frPyObjects(_polygons(segmentation, size), height, width))
    return RunLengths(size, lengths["counts"])


def _polygons(segmentation: object, size: Size) -> list[list[float]]:
    """The polygons with three corners at least; each must lie in the photo, whether it has an area or not.

    pycocotools writes to memory where a corner outside says, and holds a hundred bytes for each pixel of the
    outlines.
    """
    try:
        polygons = [numbers(polygon) for polygon in items(segmentation)]
    except FieldError:
        reason = "the segmentation is neither run lengths nor a list of polygons of finite numbers"
        raise FieldError(reason) from None
    if odd := [polygon for polygon in polygons if len(polygon) % 2]:
        raise FieldError(f"a polygon has {len(odd[0])} numbers, expected x and y of each corner")
    polygons = [polygon for polygon in polygons if len(polygon) >= 6]
    if not polygons:
        raise FieldError("the mask has no polygon with three corners")
    height, width = size
    around = 0.0
    for polygon in polygons:
        x, y = np.array(polygon[::2]), np.array(polygon[1::2])
        if x.min() < -1 or y.min() < -1 or x.max() > width + 1 or y.max() > height + 1:
            corners = ", ".join(f"{edge:g}" for edge in (x.min(), y.min(), x.max(), y.max()))
            image = f"the image of {shown_size(size)} pixels"
            raise FieldError(f"the polygon in ({corners}) (left, top, right, bottom) leaves {image}")
        around += float(np.maximum(abs(np.diff(x, append=x[0])), abs(np.diff(y, append=y[0]))).sum())
    if around > _MOST_AROUND:
        raise FieldError(f"the polygons go {around:.3g} pixels around, expected at most {_MOST_AROUND:.3g}")
    return polygons


def _runs(counts: object) -> list[int]:
    """Run lengths from a list, or from COCO's compressed text.

    pycocotools does not check run lengths: those that cover less than the image leave memory as it was in the
    mask, and those that cover more end the program.
    """
    if not isinstance(counts, str):
        return wholes(counts)
    runs = _decompressed(counts)
    if runs is None or min(runs, default=0) < 0:
        raise FieldError("COCO's compressed run lengths")
    return runs


def _decompressed(text: str) -> list[int] | None:
    """The numbers in a text of COCO's run lengths (``rleFrString`` of its API); None: it is no such text.

    Five bits a letter, the low ones first, from "0" on: bit 5 says that the number goes on, bit 4 of its last
    letter that it is negative. From the fourth on, the difference to the number two before is written.
    """
    runs: list[int] = []
    value = shift = 0
    for letter in text:
        bits = ord(letter) - ord("0")
        if not 0 <= bits < 64:
            return None
        value |= (bits & 0x1F) << shift
        shift += 5
        if bits & 0x20:
            if shift > _MOST_BITS:
                return None
            continue
        if bits & 0x10:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = shift = 0
    return None if shift else runs


def _content(path: Path) -> tuple[str, dict[str, list[object]]]:
    remedy = "give COCO's instances_*.json"
    if not path.is_file():
        raise ValueError(f"{path} does not exist: {remedy}")
    text, content = read_json(path, remedy)
    keys = ("images", "annotations", "categories")
    absent = [key for key in keys if not isinstance(content, dict) or key not in content]
    if absent:
        raise ValueError(f"{path} has no {', '.join(absent)}: {remedy}, not the captions")
    try:
        return text, {key: field(content, key, items) for key in keys}
    except FieldError as error:
        raise ValueError(f"{path}: {error}: {remedy}") from error
