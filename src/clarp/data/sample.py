"""What every data set is made of: samples, their objects, and the problems found while reading."""

import hashlib
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image
from torch import Tensor

from clarp.data.geometry import Box, Size
from clarp.images import open_photo

Label = tuple[int, ...]
"""The class ids that name one thing equally well, the best first: ``(281,)``, or ``(331, 330)`` for hare or rabbit."""
ProblemKind = Literal["missing", "damaged", "unlabelled", "not an image"]
_MAXIMUM_SHOWN = 20
_QUARTER_TURNS = frozenset({5, 6, 7, 8})


class UnreadableImageError(ValueError):
    """A picture that is missing or can't be decoded; ``problem`` says which and why."""

    def __init__(self, problem: "Problem") -> None:
        super().__init__(str(problem))
        self.problem = problem

    def __reduce__(self) -> tuple[type["UnreadableImageError"], tuple["Problem"]]:
        return type(self), (self.problem,)


class AnnotationError(ValueError):
    """Annotations that contradict their pictures; the message lists all of them at once with file and line."""

    def __init__(self, contradictions: Iterable["Contradiction"]) -> None:
        self.contradictions = tuple(contradictions)
        shown = [f"  {c}" for c in self.contradictions[:_MAXIMUM_SHOWN]]
        rest = len(self.contradictions) - len(shown)
        more = [f"  ... and {rest} more"] if rest else []
        count = len(self.contradictions)
        head = f"{count} annotation{'s' * (count != 1)} can't be true; correct or remove the lines below, then read again:"
        super().__init__("\n".join([head, *shown, *more]))

    def __reduce__(self) -> tuple[type["AnnotationError"], tuple[tuple["Contradiction", ...]]]:
        return type(self), (self.contradictions,)


@dataclass(frozen=True)
class Contradiction:
    """One line of an annotation file that can't be true.

    >>> print(Contradiction("a.xml", 7, "class 'unicorn' is not one of the data set's 20 classes"))
    a.xml:7: class 'unicorn' is not one of the data set's 20 classes
    """

    file: str
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.reason}"


@dataclass(frozen=True)
class Problem:
    """A file that gives no sample: which, and why.

    >>> print(Problem("missing", "val/a.jpg", "no such file"))
    val/a.jpg: missing (no such file)
    """

    kind: ProblemKind
    file: str
    reason: str

    def __str__(self) -> str:
        return f"{self.file}: {self.kind} ({self.reason.removesuffix('.')})"


class Picture(Protocol):
    """Something that can be opened as an RGB image; frozen, picklable, and with a ``repr`` free of folders."""

    def size(self) -> Size:
        """(height, width) in pixels.

        Raises:
            UnreadableImageError: it is missing or not an image.
        """
        ...

    def open(self) -> Image.Image:
        """The whole image, decoded, RGB.

        Raises:
            UnreadableImageError: it is missing or damaged.
        """
        ...

    def files(self) -> tuple["Photo", ...]:
        """The files it is made of."""
        ...


@dataclass(frozen=True)
class Photo:
    """An image file.

    Attributes:
        file: its path below ``root``, with forward slashes.
        root: the data set's folder; not part of ``repr``, so that a moved data set keeps its fingerprint.
        as_stored: leave rotation tags (EXIF) alone, because annotations count the stored pixels, and
            published results on annotated data sets ignore the tags. Otherwise the photo is upright, as
            people see it.
    """

    file: str
    root: Path = field(repr=False)
    as_stored: bool = False

    @property
    def path(self) -> Path:
        """Where it lies."""
        return self.root / self.file

    def size(self) -> Size:
        """(height, width) of what ``open`` returns, from the file's header."""
        with self._opened() as image, self._damage_named():
            if image.format == "TIFF" and _lies(image):
                # Pillow itself turns a TIFF when it decodes it, whoever asks, and then drops the tag.
                image.load()
            lying = not self.as_stored and _lies(image)
            return (image.width, image.height) if lying else (image.height, image.width)

    def open(self) -> Image.Image:
        """The image as RGB."""
        with self._damage_named(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return open_photo(self.path, upright=not self.as_stored)

    def open_with_alpha(self) -> Image.Image:
        """The image as RGBA, as stored."""
        with self._opened() as image, self._damage_named():
            return image.convert("RGBA")

    def indices(self) -> NDArray[np.uint8]:
        """(H, W) palette indices of an indexed image."""
        with self._opened() as image, self._damage_named():
            return np.array(image, dtype=np.uint8)

    def files(self) -> tuple["Photo", ...]:
        """This file."""
        return (self,)

    def _opened(self) -> Image.Image:
        # Pillow warns of very large images and of odd metadata; neither is a reason to leave one out.
        with self._damage_named(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return Image.open(self.path)

    @contextmanager
    def _damage_named(self) -> Iterator[None]:
        """Turn whatever Pillow raises into an error that names this file."""
        try:
            yield
        except FileNotFoundError as error:
            raise UnreadableImageError(Problem("missing", self.file, "no such file")) from error
        except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
            reason = _reason(error).removeprefix(f"{self.path}: ")
            raise UnreadableImageError(Problem("damaged", self.file, reason)) from error


class Region(Protocol):
    """The exact place of an object; frozen and picklable, read only when asked for."""

    def mask(self, size: Size) -> Tensor:
        """(H, W) bool for an image of that (height, width)."""
        ...

    def files(self) -> tuple[Photo, ...]:
        """The files that it is read from."""
        ...


@dataclass(frozen=True)
class Object:
    """One thing in a picture.

    Attributes:
        label: the class ids that name it.
        name: its name in the annotation.
        box: (left, top, right, bottom) in pixel edges, or None.
        difficult: flagged as hard to recognise by the annotators (Pascal VOC).
        region: its exact place; None: the filled box.
    """

    label: Label
    name: str
    box: Box | None
    difficult: bool = False
    region: Region | None = None

    def mask(self, size: Size) -> Tensor:
        """(H, W) bool: its region, or the pixels whose centre lies in its box."""
        if self.region is not None:
            return self.region.mask(size)
        if self.box is None:
            return torch.zeros(size, dtype=torch.bool)
        left, top, right, bottom = self.box
        y, x = torch.arange(size[0]) + 0.5, torch.arange(size[1]) + 0.5
        return ((y > top) & (y < bottom))[:, None] & ((x > left) & (x < right))


@dataclass(frozen=True)
class Truth:
    """What a localisation metric asks about one label in one picture (TorchRay's pointing game, Fong 2019).

    Attributes:
        mask: (H, W) bool, the union of the label's objects, in the photo's pixels.
        difficult: the mask covers less than a quarter of the picture, and another label is present.
        skip: the label's objects are all flagged difficult by the annotators, so the protocol doesn't ask
            about it.
    """

    mask: Tensor
    difficult: bool
    skip: bool


@dataclass(frozen=True)
class Sample:
    """One picture with what is known about it.

    Attributes:
        id: unique in the data set and the same on every machine.
        picture: opened only when asked for.
        labels: the things to be found in it, each once.
        objects: where they are, if that is known.
    """

    id: str
    picture: Picture
    labels: tuple[Label, ...]
    objects: tuple[Object, ...] = ()

    @property
    def size(self) -> Size:
        """(height, width) in pixels."""
        return self.picture.size()

    def image(self) -> Image.Image:
        """The RGB image.

        Raises:
            UnreadableImageError: it is missing or damaged; its ``problem`` belongs in the report.
        """
        return self.picture.open()

    def files(self) -> tuple[Photo, ...]:
        """The files of the picture, then those of its objects' regions; each once."""
        regions = (thing.region for thing in self.objects)
        places = (photo for region in regions if region is not None for photo in region.files())
        return tuple(dict.fromkeys((*self.picture.files(), *places)))

    def truth(self, label: Label) -> Truth:
        """Where the label's objects are; a label without objects has an empty mask."""
        size = self.size
        own = [thing for thing in self.objects if thing.label == label]
        mask = torch.zeros(size, dtype=torch.bool)
        for thing in own:
            mask |= thing.mask(size)
        others = any(thing.label != label for thing in self.objects)
        small = int(mask.sum()) < 0.25 * mask.numel()
        return Truth(
            mask, difficult=small and others, skip=bool(own) and all(thing.difficult for thing in own)
        )


@dataclass(frozen=True)
class Dataset:
    """Samples in a fixed order, and the files that gave none.

    Attributes:
        name: for tables and messages.
        samples: sorted by the reader; the same files give the same order everywhere.
        classes: the names of the class ids, by index; empty where nobody knows them.
        problems: the files that gave no sample, by name.
        as_is: the pictures already have the size for the model (mosaics, composites): no resize, no crop.

    Raises:
        ValueError: two samples have the same id: tables and pictures would mix them up.
    """

    name: str
    samples: tuple[Sample, ...]
    classes: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()
    as_is: bool = False

    def __post_init__(self) -> None:
        count = Counter(sample.id for sample in self.samples)
        if len(count) < len(self.samples):
            twice = [identity for identity, number in count.items() if number > 1]
            shown = ", ".join(map(repr, twice[:_MAXIMUM_SHOWN]))
            raise ValueError(
                f"{self.name} has {len(twice)} ids more than once: {shown}; an id belongs to one sample"
            )

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        return self.samples[index]

    def __iter__(self) -> Iterator[Sample]:
        return iter(self.samples)

    def __str__(self) -> str:
        count = Counter(problem.kind for problem in self.problems)
        found = [f"{number} {kind}" for kind, number in sorted(count.items())]
        return ", ".join([f"{self.name}: {len(self)} samples", *found])

    def select(self, keep: Callable[[Sample], bool]) -> "Dataset":
        """The samples that ``keep`` says yes to, in the same order; the problems stay."""
        return replace(self, samples=tuple(sample for sample in self.samples if keep(sample)))

    def verified(self) -> "Dataset":
        """Decode every picture once; those that can't be decoded become problems."""
        good: list[Sample] = []
        problems = list(self.problems)
        for sample in self.samples:
            try:
                sample.image()
            except UnreadableImageError as error:
                problems.append(error.problem)
            else:
                good.append(sample)
        return replace(self, samples=tuple(good), problems=tuple(problems))

    def fingerprint(self) -> str:
        """SHA-256 of ids, labels, objects, and of each picture's and region's file: name, length, first and last 4 KiB.

        Folders and dates are no part of it: a copy has the same fingerprint. Pixels in the middle of a file
        that change without changing its length are not seen; that keeps it fast for a million files.
        """
        digest = hashlib.sha256(repr((self.name, self.classes, self.as_is)).encode())
        for sample in self.samples:
            digest.update(repr(sample).encode())
            for photo in sample.files():
                digest.update(_ends(photo.path))
        return digest.hexdigest()


def checked_box(box: Box, size: Size, slack: float = 1.0) -> Box | str:
    """The box inside a picture of (height, width), or why it can't be one.

    Annotations round in many ways, so an edge up to ``slack`` pixels outside is moved to the border.
    """
    left, top, right, bottom = box
    height, width = size
    if not np.isfinite(box).all() or left >= right or top >= bottom:
        return f"the box {_shown(box)} (left, top, right, bottom) has no area"
    if left < -slack or top < -slack or right > width + slack or bottom > height + slack:
        return (
            f"the box {_shown(box)} (left, top, right, bottom) leaves the image of {width} x {height} pixels"
        )
    return max(left, 0.0), max(top, 0.0), min(right, float(width)), min(bottom, float(height))


def unique(labels: Iterable[Label]) -> tuple[Label, ...]:
    """Each label once, in order of first appearance."""
    return tuple(dict.fromkeys(labels))


def _shown(box: Box) -> str:
    return "(" + ", ".join(f"{edge:g}" for edge in box) + ")"


def _lies(image: Image.Image) -> bool:
    """Whether its rotation tag asks for a quarter turn."""
    return image.getexif().get(ExifTags.Base.Orientation) in _QUARTER_TURNS


def _reason(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _ends(path: Path, length: int = 4096) -> bytes:
    try:
        with path.open("rb") as file:
            total = path.stat().st_size
            head = file.read(length)
            file.seek(max(total - length, 0))
            return f"{total}".encode() + head + file.read(length)
    except OSError:
        return b"unreadable"
