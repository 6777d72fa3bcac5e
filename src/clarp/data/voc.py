"""Pascal VOC 2007 to 2012 in its own layout."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from clarp.data._located import Element, MalformedFileError, read_text, read_xml
from clarp.data.dataset import Dataset
from clarp.data.folder import existing_folder, unknown_name
from clarp.data.photo import Photo, within
from clarp.data.problems import AnnotationError, Contradiction, Problem, UnreadableImageError
from clarp.data.sample import Object, Sample, checked_box, shown_size, unique
from clarp.geometry import Box, Size

VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
)
"""The twenty classes in the challenge's order, which is the order of the models' outputs."""
_DIGITS = 20
"""More has no picture's side, and Python refuses to count thousands."""
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True)
class Instance:
    """One object of a VOC segmentation: the pixels of value ``index`` in ``SegmentationObject/*.png``."""

    picture: Photo
    index: int

    def mask(self, size: Size) -> Tensor:
        """(H, W) bool; the size was compared with the photo's when the data set was read."""
        del size
        return torch.from_numpy(self.picture.indices() == self.index)

    def files(self) -> tuple[Photo, ...]:
        return (self.picture,)


def voc(
    root: str | Path,
    split: str | None = "test",
    *,
    place: Literal["box", "segmentation"] = "box",
    classes: Sequence[str] = VOC_CLASSES,
    outside: bool = False,
) -> Dataset:
    """Pascal VOC (Everingham 2010): ``JPEGImages``, ``Annotations``, ``ImageSets``.

    Boxes count pixels from 1 and include both ends, so (xmin, ymin, xmax, ymax) covers the edges
    (xmin - 1, ymin - 1, xmax, ymax).

    Args:
        root: the folder that holds ``Annotations``, or the one above it (``VOCdevkit/VOC2007`` or
            ``VOCdevkit`` with one year in it).
        split: a list in ``ImageSets/Main`` (``ImageSets/Segmentation`` for segmentations): "test", "val",
            "trainval", ...; None: every annotation there is.
        place: an object's place is its box, as in the pointing game, or its pixels in ``SegmentationObject``.
        classes: the class names by index.
        outside: files may lie outside of the folder (links, ``..``, absolute paths); else those are problems.

    Returns:
        Samples in the list's order; ids are the names without ending. Photos and annotations that are missing
        or damaged are problems.

    Raises:
        ValueError: no such layout or list, or a list or the year's folder is a link out of the folder.
        AnnotationError: a size that is not the photo's, a box outside it or without area, an unknown class, a
            name that is listed twice: all of them at once, with file and line.
    """
    above = existing_folder(root)
    root = within(above, _base(above), outside=outside)
    samples: list[Sample] = []
    problems: list[Problem] = []
    wrong: list[Contradiction] = []
    for identity in _identities(root, split, place, wrong, outside=outside):
        file = f"Annotations/{identity}.xml"
        photo = Photo(f"JPEGImages/{identity}.jpg", root, as_stored=True, outside=outside)
        places = Photo(f"SegmentationObject/{identity}.png", root, as_stored=True, outside=outside)
        try:
            annotation = read_xml(Photo(file, root, outside=outside).checked())
            size = photo.size()
            places_size = places.size() if place == "segmentation" else size
        except FileNotFoundError:
            problems.append(Problem("missing", file, "no such file"))
        except (MalformedFileError, OSError) as error:
            problems.append(Problem("damaged", file, str(error).removeprefix(f"{root / file}: ")))
        except UnreadableImageError as error:
            problems.append(error.problem)
        else:
            objects, reasons = _objects(annotation, size, classes)
            wrong += [Contradiction(file, line, reason) for line, reason in reasons]
            if places_size != size:
                reason = (
                    f"the segmentation is {shown_size(places_size)} pixels, the photo has {shown_size(size)}"
                )
                wrong.append(Contradiction(places.file, 1, reason))
            if place == "segmentation":
                objects = _segmented(objects, places)
            samples.append(Sample(identity, photo, unique(thing.label for thing in objects), objects))
    if wrong:
        raise AnnotationError(wrong)
    name = "-".join(filter(None, (root.name.lower(), split)))
    return Dataset(name, tuple(samples), tuple(classes), tuple(problems))


def _objects(
    annotation: Element, size: Size, classes: Sequence[str]
) -> tuple[tuple[Object, ...], list[tuple[int, str]]]:
    """The objects, and what can't be true as (line, reason)."""
    objects: list[Object] = []
    wrong = _wrong_size(annotation, size)
    for element in annotation.all("object"):
        name = element.value("name")
        box = _box(element, size)
        if name not in classes:
            line = (element.find("name") or element).line
            shown = unknown_name(name, classes)
            wrong.append((line, f"class {shown} is not one of the data set's {len(classes)} classes"))
        elif isinstance(box, str):
            wrong.append(((element.find("bndbox") or element).line, box))
        else:
            difficult = element.value("difficult") == "1"
            objects.append(Object((list(classes).index(name),), name, box, difficult))
    return tuple(objects), wrong


def _wrong_size(annotation: Element, size: Size) -> list[tuple[int, str]]:
    element = annotation.find("size")
    if element is None:
        return []
    try:
        stated = int(element.value("height")[:_DIGITS]), int(element.value("width")[:_DIGITS])
    except ValueError:
        return [(element.line, "the size has no whole height and width")]
    if stated == size:
        return []
    return [(element.line, f"the size is {shown_size(stated)} pixels, the photo has {shown_size(size)}")]


def _box(element: Element, size: Size) -> Box | str:
    try:
        left, top, right, bottom = (float(element.value(f"bndbox/{corner}")) for corner in _CORNERS)
    except ValueError:
        return f"the box has no numbers {', '.join(_CORNERS)}"
    return checked_box((left - 1, top - 1, right, bottom), size)


def _segmented(objects: tuple[Object, ...], picture: Photo) -> tuple[Object, ...]:
    """Objects are numbered from 1 in the order of the annotation (VOC development kit)."""
    return tuple(
        Object(thing.label, thing.name, thing.box, thing.difficult, Instance(picture, number))
        for number, thing in enumerate(objects, start=1)
    )


def _base(root: Path) -> Path:
    """The folder that holds ``Annotations``."""
    if (root / "Annotations").is_dir():
        return root
    years = sorted(path for path in root.glob("VOC*") if (path / "Annotations").is_dir())
    if len(years) != 1:
        found = f"found {', '.join(path.name for path in years)}" if years else "found none"
        raise ValueError(
            f"{root} should hold Annotations/ or one VOCxxxx folder that does; {found}: give that folder"
        )
    return years[0]


def _identities(
    root: Path, split: str | None, place: str, wrong: list[Contradiction], *, outside: bool
) -> list[str]:
    """The names in a list, or of all annotations; one that is listed twice is added to ``wrong``."""
    if split is None:
        return sorted(path.stem for path in (root / "Annotations").glob("*.xml"))
    file = f"ImageSets/{'Segmentation' if place == 'segmentation' else 'Main'}/{split}.txt"
    path = within(root, root / file, outside=outside)
    if not path.is_file():
        known = sorted(other.stem for other in path.parent.glob("*.txt") if "_" not in other.stem)
        none = "there is no list at all; split=None takes every annotation"
        raise ValueError(f"{path} does not exist: " + (f"there are {', '.join(known)}" if known else none))
    found: dict[str, None] = {}
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        identity = line.split()[0]
        if identity in found:
            wrong.append(Contradiction(file, number, f"{identity} is listed twice"))
        found[identity] = None
    return list(found)
