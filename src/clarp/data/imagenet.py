"""ImageNet's validation or training photos, in their two common layouts."""

import re
from pathlib import Path
from typing import Literal

from clarp.data._located import TableRow, read_rows, read_text
from clarp.data.dataset import Dataset
from clarp.data.folder import existing_folder, image_folder
from clarp.data.photo import Photo, within
from clarp.data.problems import AnnotationError, Contradiction, Problem, UnreadableImageError
from clarp.data.sample import Label, Object, Sample, checked_box

_WNID = re.compile(r"n\d{8}")
_MAPPINGS = ("LOC_synset_mapping.txt", "synset_words.txt")
_CLASSES = 1000


def imagenet(root: str | Path, split: Literal["val", "train"] = "val", *, outside: bool = False) -> Dataset:
    """ILSVRC 2012 in one of two layouts.

    - folders by synset: ``root/val/n01440764/*.JPEG`` (or ``root`` itself holds the synset folders);
    - Kaggle's: ``root/ILSVRC/Data/CLS-LOC/val/*.JPEG`` with ``root/LOC_val_solution.csv``, which has boxes
      too.

    The class index of a synset is its line in ``LOC_synset_mapping.txt`` or ``synset_words.txt`` below
    ``root``; without either, all 1000 synset folders must be there and are counted in order of their names,
    which is the order that every published classifier uses.

    Args:
        root: the folder that holds the split.
        split: "val" or "train".
        outside: files may lie outside of the folder (links, ``..``, absolute paths); else those are problems.

    Returns:
        Samples sorted by path; ids are paths below the folder of the split.

    Raises:
        ValueError: none of the layouts was found, synsets can't be numbered, or a table or the split is a
            link out of the folder.
        AnnotationError: the solution names an unknown synset, a box outside its image or without numbers, or
            a photo twice, or the mapping a synset twice; with file and line.
    """
    root = existing_folder(root)
    mapping = _mapping(root, outside=outside)
    candidates = (root / split, root / "ILSVRC" / "Data" / "CLS-LOC" / split, root)
    solution = root / f"LOC_{split}_solution.csv"
    for folder in candidates:
        if folder.is_dir() and any(_WNID.fullmatch(path.name) for path in folder.iterdir() if path.is_dir()):
            photos = within(root, folder, outside=outside)
            return _from_folders(photos, f"imagenet-{split}", mapping, outside=outside)
        if folder.is_dir() and solution.is_file() and folder != root:
            photos, table = (within(root, path, outside=outside) for path in (folder, solution))
            return _from_solution(photos, table, f"imagenet-{split}", mapping, outside=outside)
    tried = ", ".join(str(path) for path in candidates)
    raise ValueError(
        f"found no ImageNet below {root}: looked for synset folders such as n01440764 in {tried}, and for "
        f"{solution.name} beside a flat folder. Give the folder that holds {split}/"
    )


def _mapping(root: Path, *, outside: bool) -> dict[str, str]:
    """Synset to its words, in the order of the class indices; empty where no mapping file is found."""
    for name in _MAPPINGS:
        path = root / name
        if path.is_file():
            return _synsets(within(root, path, outside=outside))
    return {}


def _synsets(path: Path) -> dict[str, str]:
    """The mapping of a file; a synset that is there twice would move all numbers after it."""
    found: dict[str, str] = {}
    wrong: list[Contradiction] = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        synset, _, words = line.strip().partition(" ")
        if synset in found:
            wrong.append(Contradiction(path.name, number, f"{synset} is there twice"))
        found[synset] = words
    if wrong:
        raise AnnotationError(wrong)
    return found


def _from_folders(folder: Path, name: str, mapping: dict[str, str], *, outside: bool) -> Dataset:
    found = sorted(path.name for path in folder.iterdir() if path.is_dir() and _WNID.fullmatch(path.name))
    synsets = list(mapping) or found
    if not mapping and len(found) != _CLASSES:
        raise ValueError(
            f"{folder} has {len(found)} synset folders, so their order does not tell the class indices: put "
            f"{_MAPPINGS[0]} (a line 'n01440764 tench, Tinca tinca' per class, in order) beside it"
        )
    by_synset = image_folder(folder, synsets, as_stored=True, outside=outside)
    words = tuple(mapping.values()) or tuple(synsets)
    return Dataset(name, by_synset.samples, words, by_synset.problems)


def _from_solution(
    folder: Path, solution: Path, name: str, mapping: dict[str, str], *, outside: bool
) -> Dataset:
    if not mapping:
        raise ValueError(
            f"{solution.name} needs {_MAPPINGS[0]} beside it to number the synsets: add that file"
        )
    index = {synset: number for number, synset in enumerate(mapping)}
    samples: list[Sample] = []
    problems: list[Problem] = []
    wrong: list[Contradiction] = []
    listed: set[str] = set()
    for row in _rows(solution, wrong):
        identity, parts = row.cells[0], row.cells[1].split()
        if identity in listed:
            wrong.append(Contradiction(solution.name, row.line, f"{identity} is listed twice"))
            continue
        listed.add(identity)
        photo = _photo(folder, identity, parts, outside=outside)
        try:
            objects = _objects(parts, index, photo)
        except UnreadableImageError as error:
            problems.append(error.problem)
            continue
        if isinstance(objects, str):
            wrong.append(Contradiction(solution.name, row.line, objects))
        else:
            label: Label = objects[0].label
            samples.append(Sample(photo.file, photo, (label,), objects))
    if wrong:
        raise AnnotationError(sorted(wrong, key=lambda each: each.line))
    return Dataset(name, tuple(samples), tuple(mapping.values()), tuple(problems))


def _rows(solution: Path, wrong: list[Contradiction]) -> list[TableRow]:
    """The rows in the order of the photos; those with too many cells or too few are added to ``wrong``."""
    rows = list(read_rows(solution, ("ImageId", "PredictionString"), "give Kaggle's own table"))
    wrong += [Contradiction(solution.name, row.line, row.wrong) for row in rows if row.wrong]
    return sorted((row for row in rows if not row.wrong), key=lambda row: row.cells[0])


def _photo(folder: Path, identity: str, parts: list[str], *, outside: bool) -> Photo:
    """Validation photos lie flat, training photos in folders by synset."""
    nested = f"{parts[0]}/{identity}.JPEG" if parts else ""
    file = nested if nested and (folder / nested).is_file() else f"{identity}.JPEG"
    return Photo(file, folder, as_stored=True, outside=outside)


def _objects(parts: list[str], index: dict[str, int], photo: Photo) -> tuple[Object, ...] | str:
    """The boxes of one line, ``synset left top right bottom`` repeated; or why it can't be true."""
    if not parts or len(parts) % 5:
        return f"{len(parts)} words are not groups of synset, left, top, right, bottom"
    size = photo.size()
    objects: list[Object] = []
    for start in range(0, len(parts), 5):
        synset = parts[start]
        if synset not in index:
            return f"synset {synset!r} is not in the mapping"
        try:
            left, top, right, bottom = (float(edge) for edge in parts[start + 1 : start + 5])
        except ValueError:
            return (
                f"{' '.join(parts[start + 1 : start + 5])!r} are not four numbers: left, top, right, bottom"
            )
        box = checked_box((left, top, right, bottom), size)
        if isinstance(box, str):
            return box
        objects.append(Object((index[synset],), synset, box))
    return tuple(objects)
