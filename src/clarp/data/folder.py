"""Folders of photos: labels from the folders' names, or from a table."""

import posixpath
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from stat import S_ISREG

from clarp.data._located import TableRow, read_rows
from clarp.data.dataset import Dataset
from clarp.data.photo import Photo, leaves, within
from clarp.data.photo import outside as outside_of
from clarp.data.problems import AnnotationError, Contradiction, Problem
from clarp.data.sample import Label, Sample
from clarp.files import kind
from clarp.images import files_below, is_photo

_DIGITS = 18
_RIGHT_COLUMNS = "name the right ones by file_column and class_column"


def image_folder(
    root: str | Path,
    classes: Sequence[str] | None = None,
    *,
    as_stored: bool = False,
    outside: bool = False,
) -> Dataset:
    """One folder per class: ``root/tabby/cat1.jpg``, at any depth below the class folder.

    Args:
        root: the folder of class folders. Hidden files and folders (a leading dot) are left alone, links
            inside of it are followed.
        classes: the model's class names by index; a folder gets the index of its name. None: the folders in
            the order of their names are classes 0, 1, 2, ...
        as_stored: leave rotation tags (EXIF) alone.
        outside: files may lie outside of the folder (links, ``..``, absolute paths); else those are problems.

    Returns:
        Samples sorted by path; their ids are their paths below ``root``. Other files, and folders that can't
        be listed, are problems.

    Raises:
        ValueError: no such folder, no class folders, or a folder whose name is not in ``classes``, or more
            than once.
    """
    root = existing_folder(root)
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not folders:
        raise ValueError(
            f"{root} has no class folders: put the photos of each class into a folder of their own, or list "
            "files and classes in labels.csv"
        )
    index = index_of_folders([folder.name for folder in folders], classes)
    samples: list[Sample] = []
    problems: list[Problem] = []
    for path in _photos(root, problems, outside=outside):
        photo = Photo(path, root, as_stored, outside)
        folder, _, inside = photo.file.partition("/")
        if inside:
            samples.append(Sample(photo.file, photo, ((index[folder],),)))
        else:
            problems.append(Problem("unlabelled", photo.file, "outside the class folders"))
    names = classes if classes is not None else [folder.name for folder in folders]
    return Dataset(root.name, tuple(samples), tuple(names), tuple(problems), own_classes=classes is None)


def image_table(
    root: str | Path,
    table: str = "labels.csv",
    *,
    file_column: str = "file",
    class_column: str = "class",
    classes: Sequence[str] = (),
    outside: bool = False,
) -> Dataset:
    """Photos listed in a CSV table with a header line.

    Args:
        root: the folder that the table's paths start from.
        table: the table's path below ``root``.
        file_column: the column with the paths.
        class_column: the column with the classes: an index, several indices separated by spaces (any of them
            is right, the best first), or one name of ``classes``.
        classes: the model's class names by index.
        outside: files may lie outside of the folder (links, ``..``, absolute paths); else those are problems.

    Returns:
        Samples in the table's order; their ids are their paths in their shortest form. Photos below ``root``
        that the table doesn't list are problems of the kind "unlabelled".

    Raises:
        ValueError: no such folder, table or column, or a table that is not CSV in UTF-8 or a link that leads
            out of the folder.
        AnnotationError: a class that doesn't exist or whose name several have, a file listed twice, or a row
            with too many cells or too few; with the table's lines.
    """
    root = existing_folder(root)
    path = within(root, root / table, outside=outside)
    if not path.is_file():
        raise ValueError(
            f"{path} does not exist: give a CSV table with the columns {file_column},{class_column}"
        )
    others: list[Problem] = []

    def opened(file: str, absent: str) -> Photo | Problem:
        found = _unusable(root, file, absent, allowed=outside)
        return Photo(file, root, outside=outside) if found is None else found

    rows = read_rows(path, (file_column, class_column), _RIGHT_COLUMNS)
    there = _photos(root, others, outside=outside)
    return labelled(root.name, table, rows, classes, opened=opened, photos=there, others=others)


def existing_folder(root: str | Path) -> Path:
    """The folder as a path.

    Raises:
        ValueError: there is none.
    """
    root = Path(root)
    if not root.is_dir():
        raise ValueError(f"{root} is not a folder: give the folder that holds the data set")
    return root


def _photos(root: Path, problems: list[Problem], *, outside: bool) -> Iterator[str]:
    """The paths of the photos below a folder, sorted; other files are added to the problems."""

    def unreadable(folder: Path, reason: str) -> None:
        file = folder.relative_to(root).as_posix()
        problems.append(Problem("damaged", file, f"the folder can't be listed: {reason}"))

    def enter(folder: Path) -> bool:
        return outside or not folder.is_symlink() or not leaves(root, folder.relative_to(root).as_posix())

    for path in files_below(root, unreadable, enter):
        file = path.relative_to(root).as_posix()
        problem = _unusable(root, file, "a link to nothing", allowed=outside)
        if problem is None and not is_photo(path):
            problem = Problem("not an image", file, f"its name ends in {path.suffix or 'nothing'!r}")
        if problem is None:
            yield file
        else:
            problems.append(problem)


def _unusable(root: Path, file: str, absent: str, *, allowed: bool) -> Problem | None:
    """Why a file is no photo of the data set: it is absent, outside of it, or no regular file."""
    try:
        if not allowed and leaves(root, file):
            return outside_of(file)
        mode = (root / file).stat().st_mode
    except (OSError, ValueError):  # a name that is too long, or has a NUL, belongs to no file
        return Problem("missing", file, absent)
    return None if S_ISREG(mode) else Problem("not an image", file, kind(mode))


def index_of_folders(folders: Sequence[str], classes: Sequence[str] | None) -> dict[str, int]:
    """The class index of each folder; without classes, its place among the folders.

    Raises:
        ValueError: a folder's name is no class, or that of several.
    """
    by_name = by_names(folders if classes is None else classes)
    unknown = [folder for folder in folders if folder not in by_name]
    if unknown:
        shown = "; ".join(unknown_name(name, list(by_name)) for name in unknown[:20])
        raise ValueError(
            f"{len(unknown)} folder names are no class of the model: {shown}. Rename them to the model's "
            "class names"
        )
    several = [shared_name(name, by_name[name]) for name in folders if len(by_name[name]) > 1]
    if several:
        raise ValueError(
            f"{'; '.join(several)}: a folder's name doesn't tell which; list files and numbers in labels.csv"
        )
    return {name: by_name[name][0] for name in folders}


def by_names(classes: Sequence[str]) -> dict[str, list[int]]:
    """Each class name with all its numbers: ImageNet's lists have two cranes."""
    found: dict[str, list[int]] = {}
    for number, name in enumerate(classes):
        found.setdefault(name, []).append(number)
    return found


def shared_name(name: str, numbers: Sequence[int]) -> str:
    """``'crane' is the name of the classes 134 and 517``."""
    return f"{name!r} is the name of the classes {' and '.join(map(str, numbers))}"


def unknown_name(name: str, known: Sequence[str]) -> str:
    """``'tabbi' (nearest: 'tabby')``."""
    nearest = get_close_matches(name, known, n=2)
    return f"{name!r}" + (f" (nearest: {', '.join(map(repr, nearest))})" if nearest else "")


def class_column(names: Sequence[str]) -> str:
    """What a table calls the column of its classes."""
    return "classes" if "classes" in names else "class"


def labelled(
    name: str,
    table: str,
    rows: Iterable[TableRow],
    classes: Sequence[str],
    *,
    opened: Callable[[str, str], Photo | Problem],
    photos: Iterable[str],
    others: list[Problem],
) -> Dataset:
    """The data set of a table.

    Args:
        name: of the data set.
        table: the table's name.
        rows: (file, class) each.
        classes: the class names by index.
        opened: the photo of a file, or its problem; the text is that of one that is absent.
        photos: the files of all photos that are there, read when the table is known to be right.
        others: the problems that ``photos`` finds while it is read.

    Raises:
        AnnotationError: rows that can't be; with their lines.
    """
    samples: dict[str, Sample] = {}
    problems: list[Problem] = []
    wrong: list[Contradiction] = []
    listed: set[str] = set()
    for line, file, label in _labelled_rows(rows, table, classes, wrong):
        listed.add(file)
        found = opened(file, f"listed in {table}, line {line}")
        if isinstance(found, Problem):
            problems.append(found)
        else:
            samples[file] = Sample(file, found, (label,))
    if wrong:
        raise AnnotationError(sorted(wrong, key=lambda each: each.line))
    problems += [
        Problem("unlabelled", file, f"not listed in {table}") for file in photos if file not in listed
    ]
    problems += [problem for problem in others if problem.file != table]
    return Dataset(name, tuple(samples.values()), tuple(classes), tuple(problems))


def _labelled_rows(
    rows: Iterable[TableRow], table: str, classes: Sequence[str], wrong: list[Contradiction]
) -> Iterator[tuple[int, str, Label]]:
    """(line, file, label) of a table's rows (file, class); those that can't be are added to ``wrong``."""
    by_name, listed = by_names(classes), set[str]()
    for row in rows:
        if row.wrong or not row.cells[0]:
            wrong.append(Contradiction(table, row.line, row.wrong or "there is no file: name it"))
            continue
        # a.jpg and ./a.jpg are one file: as two, it would count twice.
        file = posixpath.normpath(row.cells[0])
        label = label_of(row.cells[1], by_name, len(classes))
        if isinstance(label, str):
            wrong.append(Contradiction(table, row.line, label))
        elif file in listed:
            wrong.append(Contradiction(table, row.line, f"{file} is listed twice"))
        else:
            yield row.line, file, label
        listed.add(file)


def label_of(text: str, by_name: Mapping[str, Sequence[int]], count: int) -> Label | str:
    """The label, or why the text is none."""
    numbers = by_name.get(text, ())
    if len(numbers) > 1:
        return f"class {shared_name(text, numbers)}: give the number"
    if numbers:
        return tuple(numbers)
    parts = text.split()
    if not parts or not all(part.isdecimal() for part in parts):
        known = f"the {count} class names" if count else "class indices separated by spaces"
        return f"class {unknown_name(text, list(by_name))} is none of {known}"
    if max(map(len, parts)) > _DIGITS:
        return f"a class of {max(map(len, parts))} digits does not exist"
    label = tuple(int(part) for part in parts)
    if count and max(label) >= count:
        return f"class {max(label)} does not exist: there are {count} classes, counted from 0"
    return label
