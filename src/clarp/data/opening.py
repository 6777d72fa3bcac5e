"""A data set from what a user writes on the command line: the layout is found by looking."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from clarp.data._located import header
from clarp.data.coco import coco
from clarp.data.composites import composites
from clarp.data.dataset import Dataset
from clarp.data.folder import class_column, image_folder, image_table
from clarp.data.imagenet import imagenet
from clarp.data.mosaics import mosaics
from clarp.data.packed import INDEX, packed
from clarp.data.pairs import boxed_photos
from clarp.data.photo import within
from clarp.data.remote import TABLE, remote_folders, remote_table
from clarp.data.stores import LocalFolder, RemoteFolder, StoredFolder, is_url
from clarp.data.tars import tar_shards
from clarp.data.voc import voc

COMPOSITES = 500
"""How many composites are made where no number is given."""
_SYNSET = re.compile(r"n\d{8}")
_LAYOUTS = (
    "class folders, labels.csv, boxes.json, ImageNet's, Pascal VOC's, COCO's instances_*.json, or shards "
    "(of `clarp pack`, or WebDataset's *.tar); mosaics:FOLDER and composites:FOLDER make pictures of what is "
    "in a folder"
)


def open_dataset(
    spec: str,
    classes: Sequence[str] = (),
    *,
    count: int | None = None,
    cells: int = 2,
    seed: int = 0,
    choose: Callable[[Dataset], Dataset] = lambda photos: photos,
    outside: bool = False,
) -> Dataset:
    """Open a data set, its layout found by what lies in the folder.

    ============================== ==================================================================
    what is there                  how it is read
    ============================== ==================================================================
    ``index.parquet``              :func:`packed`, the shards of :func:`pack`
    ``boxes.json``                 :func:`boxed_photos`
    ``labels.csv``                 :func:`image_table`, column ``class`` or ``classes``
    ``Annotations/`` or ``VOC*/``  :func:`voc`, the first of the lists test, val that exists, else all
    synset folders, or ImageNet's  :func:`imagenet`, ``val``
    ``annotations/instances_*``    :func:`coco`; also ``FILE.json``, or ``FILE.json:FOLDER of photos``
    ``*.tar``, and no folders      :func:`tar_shards`; also ``FILE.tar``
    other folders                  :func:`image_folder`
    ``mosaics:...``                :func:`mosaics` of any of the above
    ``composites:...``             :func:`composites` of cut-outs with ``labels.csv``
    ============================== ==================================================================

    On another file system (``s3://bucket/photos``; fsspec reads it): shards, ``labels.csv``, class folders.

    Args:
        spec: the folder, URL or file, or ``mosaics:`` or ``composites:`` and one of these.
        classes: the model's class names by index, for folders and tables with names.
        count: how many mosaics or composites to make; None: one dealing of all photos, and 500.
        cells: of mosaics, per side.
        seed: of mosaics and composites.
        choose: the photos that mosaics are made of; the protocol wants those that the model gets right with
            confidence.
        outside: files may lie outside of the folder (links, ``..``, absolute paths); else those are problems.

    Raises:
        ValueError: nothing there, or no layout that is known; and what the readers raise.
        StoreError: another file system does not answer.
        ModuleNotFoundError: a library of the extra ``remote`` or ``eval`` is not installed.
    """
    kind, _, rest = spec.partition(":")
    if kind == "mosaics":
        chosen = choose(open_dataset(rest, classes, outside=outside))
        return mosaics(chosen, cells, count=count, seed=seed)
    if kind == "composites":
        number = COMPOSITES if count is None else count
        return composites(open_dataset(rest, classes, outside=outside).verified(), number, seed=seed)
    return _of_files(spec, classes, outside=outside)


def _of_files(spec: str, classes: Sequence[str], *, outside: bool) -> Dataset:
    if is_url(spec):
        return _remote(spec.rstrip("/"), classes)
    if spec.endswith(".tar"):
        return tar_shards(LocalFolder(Path(spec).parent, outside), [Path(spec).name], classes)
    if spec.endswith(".json") or ".json:" in spec:
        file, _, folder = spec.rpartition(".json")
        annotations = Path(f"{file}.json")
        photos = folder.removeprefix(":") or _photos_beside(annotations, outside=outside)
        return coco(annotations, photos, outside=outside)
    root = Path(spec)
    if not root.is_dir():
        raise ValueError(f"{spec} is not a folder, expected a data set: {_LAYOUTS}.")
    if (root / INDEX).is_file():
        return packed(LocalFolder(root, outside), classes)
    if any(root.glob("*.tar")) and (tars := _tars(LocalFolder(root, outside))):
        return tar_shards(LocalFolder(root, outside), tars, classes)
    return _by_layout(root, classes, outside=outside)


def _remote(url: str, classes: Sequence[str]) -> Dataset:
    """What lies behind a URL."""
    above, _, name = url.rpartition("/")
    if name.endswith(".tar"):
        return tar_shards(RemoteFolder(above), [name], classes)
    folder = RemoteFolder(url)
    there = folder.entries()
    if INDEX in there:
        return packed(folder, classes)
    if TABLE in there:
        return remote_table(folder, classes)
    if tars := _tars(folder):
        return tar_shards(folder, tars, classes)
    return remote_folders(folder, classes or None)


def _tars(folder: StoredFolder) -> list[str]:
    """The tar files of a folder; none beside folders and tables, where they are what photos came in."""
    there = folder.entries()
    if {TABLE, "boxes.json"} & set(there):
        return []
    files = [name for name in there if name.endswith(".tar") and not name.startswith(".")]
    folders = [name for name, length in there.items() if length is None and not name.startswith(".")]
    return [] if set(folders) - set(files) else files


def _by_layout(root: Path, classes: Sequence[str], *, outside: bool) -> Dataset:
    if (root / "boxes.json").is_file():
        return boxed_photos(root, outside=outside)
    if (root / "labels.csv").is_file():
        column = class_column(header(within(root, root / "labels.csv", outside=outside)))
        return image_table(root, class_column=column, classes=classes, outside=outside)
    for base in (root, *sorted(root.glob("VOC*"))):
        if (base / "Annotations").is_dir():
            lists = base / "ImageSets" / "Main"
            split = next((name for name in ("test", "val") if (lists / f"{name}.txt").is_file()), None)
            return voc(root, split, outside=outside)
    if annotations := sorted((root / "annotations").glob("instances_*.json")):
        if len(annotations) > 1:
            names = ", ".join(path.name for path in annotations)
            raise ValueError(f"{root}/annotations has {names}: give the one that is meant as a file.")
        file = within(root, annotations[0], outside=outside)
        return coco(file, _photos_beside(file, outside=outside), outside=outside)
    if _is_imagenet(root):
        return imagenet(root, outside=outside)
    try:
        return image_folder(root, classes or None, outside=outside)
    except ValueError as error:
        raise ValueError(f"{error}. Layouts that are known: {_LAYOUTS}.") from error


def _photos_beside(annotations: Path, *, outside: bool) -> Path:
    """``val2014`` beside ``annotations/instances_val2014.json``, else ``images`` beside the file."""
    above = annotations.parent.parent
    split = above / annotations.stem.partition("_")[2]
    if annotations.stem.startswith("instances_") and split.is_dir():
        return within(above, split, outside=outside)
    return within(annotations.parent, annotations.parent / "images", outside=outside)


def _is_imagenet(root: Path) -> bool:
    return (root / "LOC_val_solution.csv").is_file() or any(
        _SYNSET.fullmatch(path.name)
        for folder in (root, root / "val")
        if folder.is_dir()
        for path in folder.iterdir()
        if path.is_dir()
    )
