"""Folders of photos: labels from the folders' names, or from a table."""

import csv
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path

from clarp.data.sample import AnnotationError, Contradiction, Dataset, Label, Photo, Problem, Sample
from clarp.images import SUFFIXES


def image_folder(
    root: str | Path, classes: Sequence[str] | None = None, *, as_stored: bool = False
) -> Dataset:
    """One folder per class: ``root/tabby/cat1.jpg``, at any depth below the class folder.

    Args:
        root: the folder of class folders. Hidden files and folders (a leading dot) are left alone.
        classes: the model's class names by index; a folder gets the index of its name. None: the folders in
            the order of their names are classes 0, 1, 2, ...
        as_stored: leave rotation tags (EXIF) alone.

    Returns:
        Samples sorted by path; their ids are their paths below ``root``.

    Raises:
        ValueError: no such folder, no class folders, or a folder whose name is not in ``classes``.
    """
    root = existing_folder(root)
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not folders:
        raise ValueError(
            f"{root} has no class folders: put the photos of each class into a folder of their own, "
            "or list files and classes in labels.csv"
        )
    index = _index_of_folders([folder.name for folder in folders], classes)
    samples: list[Sample] = []
    problems: list[Problem] = []
    for path in _photos(root, problems):
        photo = Photo(path, root, as_stored)
        folder, _, inside = photo.file.partition("/")
        if inside:
            samples.append(Sample(photo.file, photo, ((index[folder],),)))
        else:
            problems.append(Problem("unlabelled", photo.file, "outside the class folders"))
    names = classes if classes is not None else [folder.name for folder in folders]
    return Dataset(root.name, tuple(samples), tuple(names), tuple(problems))


def image_table(
    root: str | Path,
    table: str = "labels.csv",
    *,
    file_column: str = "file",
    class_column: str = "class",
    classes: Sequence[str] = (),
) -> Dataset:
    """Photos listed in a CSV table with a header line.

    Args:
        root: the folder that the table's paths start from.
        table: the table's path below ``root``.
        file_column: the column with the paths.
        class_column: the column with the classes: an index, several indices separated by spaces (any of them
            is right, the best first), or one name of ``classes``.
        classes: the model's class names by index.

    Returns:
        Samples in the table's order; their ids are their paths. Photos below ``root`` that the table doesn't
        list are problems of the kind "unlabelled".

    Raises:
        ValueError: no such folder, table or column.
        AnnotationError: a class that doesn't exist, or a file listed twice; with the table's lines.
    """
    root = existing_folder(root)
    samples: dict[str, Sample] = {}
    problems: list[Problem] = []
    wrong: list[Contradiction] = []
    listed: set[str] = set()
    for line, file, text in _table_rows(root / table, file_column, class_column):
        label = _label(text, classes)
        if isinstance(label, str):
            wrong.append(Contradiction(table, line, label))
        elif file in listed:
            wrong.append(Contradiction(table, line, f"{file} is listed twice"))
        elif not (root / file).is_file():
            problems.append(Problem("missing", file, f"listed in {table}, line {line}"))
        else:
            samples[file] = Sample(file, Photo(file, root), (label,))
        listed.add(file)
    if wrong:
        raise AnnotationError(wrong)
    others: list[Problem] = []
    problems += [
        Problem("unlabelled", file, f"not listed in {table}")
        for file in _photos(root, others)
        if file not in listed
    ]
    problems += [problem for problem in others if problem.file != table]
    return Dataset(root.name, tuple(samples.values()), tuple(classes), tuple(problems))


def existing_folder(root: str | Path) -> Path:
    """The folder as a path.

    Raises:
        ValueError: there is none.
    """
    root = Path(root)
    if not root.is_dir():
        raise ValueError(f"{root} is not a folder: give the folder that holds the data set")
    return root


def _photos(root: Path, problems: list[Problem]) -> Iterator[str]:
    """The paths of the photos below a folder, sorted; other files are added to the problems."""
    for path in sorted(root.rglob("*")):
        file = path.relative_to(root).as_posix()
        if path.is_dir() or any(part.startswith(".") for part in file.split("/")):
            continue
        if path.suffix.lower() in SUFFIXES:
            yield file
        else:
            problems.append(Problem("not an image", file, f"its name ends in {path.suffix or 'nothing'!r}"))


def _index_of_folders(folders: list[str], classes: Sequence[str] | None) -> dict[str, int]:
    known = {name: index for index, name in enumerate(folders if classes is None else classes)}
    unknown = [folder for folder in folders if folder not in known]
    if unknown:
        shown = "; ".join(unknown_name(name, list(known)) for name in unknown[:20])
        raise ValueError(
            f"{len(unknown)} folder names are no class of the model: {shown}. Rename them to the model's class names"
        )
    return known


def unknown_name(name: str, known: Sequence[str]) -> str:
    """``'tabbi' (nearest: 'tabby')``."""
    nearest = get_close_matches(name, known, n=2)
    return f"{name!r}" + (f" (nearest: {', '.join(map(repr, nearest))})" if nearest else "")


def _table_rows(path: Path, file_column: str, class_column: str) -> Iterator[tuple[int, str, str]]:
    """(line, file, class text) of each row."""
    if not path.is_file():
        raise ValueError(
            f"{path} does not exist: give a CSV table with the columns {file_column},{class_column}"
        )
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        absent = [name for name in (file_column, class_column) if name not in (reader.fieldnames or [])]
        if absent:
            raise ValueError(
                f"{path} has no column {' and no column '.join(map(repr, absent))}; it has "
                f"{', '.join(reader.fieldnames or ['no header'])}: name the right ones by file_column and class_column"
            )
        for row in reader:
            yield reader.line_num, (row[file_column] or "").strip(), (row[class_column] or "").strip()


def _label(text: str, classes: Sequence[str]) -> Label | str:
    """The label, or why the text is none."""
    if text in classes:
        return (list(classes).index(text),)
    parts = text.split()
    if not parts or not all(part.isdecimal() for part in parts):
        known = f"the {len(classes)} class names" if classes else "class indices separated by spaces"
        return f"class {unknown_name(text, classes)} is none of {known}"
    label = tuple(int(part) for part in parts)
    if classes and max(label) >= len(classes):
        return f"class {max(label)} does not exist: there are {len(classes)} classes, counted from 0"
    return label
