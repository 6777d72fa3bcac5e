"""Mosaics of n x n photos: where each class is, is known by construction."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from heapq import heappop, heappush

from PIL import Image, ImageOps

from clarp.data.dataset import Dataset
from clarp.data.draws import draw
from clarp.data.photo import Photo
from clarp.data.sample import Label, Object, Sample
from clarp.geometry import Size


@dataclass(frozen=True)
class Mosaic:
    """n x n photos, row by row, each cut to a square in its middle and scaled to ``cell`` pixels."""

    photos: tuple[Photo, ...]
    n: int
    cell: int

    def size(self) -> Size:
        return self.n * self.cell, self.n * self.cell

    def open(self) -> Image.Image:
        mosaic = Image.new("RGB", (self.n * self.cell, self.n * self.cell))
        for number, photo in enumerate(self.photos):
            row, column = divmod(number, self.n)
            square = ImageOps.fit(photo.open(), (self.cell, self.cell), Image.Resampling.BILINEAR)
            mosaic.paste(square, (column * self.cell, row * self.cell))
        return mosaic

    def files(self) -> tuple[Photo, ...]:
        return self.photos


def mosaics(
    photos: Dataset, n: int = 2, *, count: int | None = None, cell: int = 224, seed: int = 0
) -> Dataset:
    """Mosaics of photos of different classes, for the grid pointing game (Boehle 2021).

    The protocol takes photos that the model gets right with confidence: choose them first, for example
    ``photos.select(lambda sample: sample.id in confident)``. Photos are shuffled by the seed and dealt out,
    each once before any comes a second time; a photo whose class is in the mosaic already waits for the next
    one.

    Args:
        photos: single-label samples of files.
        n: cells per side.
        count: number of mosaics; None: as many as one dealing of all photos gives.
        cell: side of a cell in pixels; the mosaic has n x cell.
        seed: another seed, other mosaics; the same seed, the same mosaics on every machine.

    Returns:
        Samples with n^2 objects, one per cell and in the order of the cells, row by row; so an object's place
        in ``objects`` is the ``cells`` of :class:`~clarp.evaluation.GridPointingGame`. Ids begin with the
        seed.

    Raises:
        ValueError: too few photos of different classes for one mosaic, or a sample that isn't one file with
            one label.
    """
    for sample in photos:
        if len(sample.labels) != 1 or not isinstance(sample.picture, Photo):
            raise ValueError(
                f"{sample.id} has {len(sample.labels)} labels: a mosaic is made of files with one label each"
            )
    made: list[Sample] = []
    dealing = 0
    while dealing == 0 or (count is not None and len(made) < count):
        before = len(made)
        for cells in _deal(photos, n * n, (seed, dealing)):
            made.append(_mosaic(f"{seed}-{len(made):05d}", cells, n, cell))
        if len(made) == before:
            classes = len({sample.labels[0] for sample in photos})
            raise ValueError(
                f"{classes} classes can't fill {n} x {n} cells with different ones: give more photos or a "
                "smaller n"
            )
        dealing += 1
    name = f"{photos.name}-mosaic-{n}x{n}"
    return replace(photos, name=name, samples=tuple(made[:count]), as_is=True)


def _deal(photos: Dataset, cells: int, seed: tuple[int, int]) -> Iterator[list[Sample]]:
    """Groups of samples whose labels share no class id, each the first that are waiting and fit.

    Of a label only the first that waits can be next, so the labels' firsts are kept in a heap: to look
    through all that wait for each mosaic takes time by the square of their number.
    """
    shuffled = sorted(photos, key=lambda sample: draw(*seed, sample.id))
    places: dict[Label, deque[int]] = {}
    for place, sample in enumerate(shuffled):
        places.setdefault(sample.labels[0], deque()).append(place)
    firsts = [waiting.popleft() for waiting in places.values()]  # ascending, and so a heap
    while True:
        chosen: list[Sample] = []
        taken: set[int] = set()
        later: list[int] = []
        while firsts and len(chosen) < cells:
            place = heappop(firsts)
            label = shuffled[place].labels[0]
            if taken.isdisjoint(label):
                chosen.append(shuffled[place])
                taken.update(label)
                later += [places[label].popleft()] if places[label] else []
            else:
                later.append(place)
        if len(chosen) < cells:
            return
        yield chosen
        for place in later:
            heappush(firsts, place)


def _mosaic(identity: str, cells: list[Sample], n: int, cell: int) -> Sample:
    objects: list[Object] = []
    for number, sample in enumerate(cells):
        row, column = divmod(number, n)
        box = (column * cell, row * cell, (column + 1) * cell, (row + 1) * cell)
        objects.append(Object(sample.labels[0], sample.id, box))
    pictures = tuple(sample.picture for sample in cells if isinstance(sample.picture, Photo))
    return Sample(
        identity, Mosaic(pictures, n, cell), tuple(thing.label for thing in objects), tuple(objects)
    )
