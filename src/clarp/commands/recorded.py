"""What the manifest of ``clarp explain`` records, read from a file that anybody may have written.

Nothing that it names is opened here. Each field that is used is checked; what is wrong becomes one sentence.
"""

import hashlib
import json
import re
import reprlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from clarp.files import read_regular

T = TypeVar("T")
MANIFEST = "manifest.json"
_MOST_BYTES = 1 << 30
_MOST_CLASSES, _MOST_BATCH = 1 << 31, 1 << 16
_DEVICE = re.compile(r"(cpu|mps|cuda(:\d{1,3})?)")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_HEAD = {
    "clarp": "clarp's version",
    "clarp_sha256": "clarp's code",
    "versions.python": "Python",
    "versions.torch": "PyTorch",
    "versions.numpy": "NumPy",
    "versions.pillow": "Pillow",
    "asked.model_file_sha256": "the model's file",
    "model.weights_sha256": "weights",
    "model.preprocessing": "preprocessing",
    "model.classes": "number of classes",
    "method.definition": "method",
    "composite.name": "composite",
    "composite.definition": "rules",
    "bounds": "bounds",
    "task.name": "task",
    "asked.engine": "engine",
    "device": "device",
    "machine.processor": "processor",
    "machine.threads": "threads",
    "machine.gpu": "GPU",
    "dtype": "type of the numbers",
}
"""What may have changed since, by its place in the manifest, and in words."""


@dataclass(frozen=True)
class RecordedMap:
    """A map that was written.

    Attributes:
        target: its class.
        label: of the class.
        probability: of the class.
        files: its arrays in the folder: relevance, then that of modules.
        sha256: of its files, pictures too; None where it was not recorded.
    """

    target: int
    label: str | None
    probability: float | None
    files: tuple[str, ...]
    sha256: dict[str, str] | None


@dataclass(frozen=True)
class RecordedPhoto:
    """A photo that was explained.

    Attributes:
        file: its path, as it was given.
        sha256: of the file.
        input_sha256: of the preprocessed image; None where it was not recorded.
        predictions: class, label and probability of the most probable ones.
        maps: one for each class that was explained.
        versus: the picture of two classes with its checksum, if there is one.
    """

    file: Path
    sha256: str
    input_sha256: str | None
    predictions: tuple[tuple[int, str | None, float | None], ...]
    maps: tuple[RecordedMap, ...]
    versus: dict[str, str]


@dataclass(frozen=True)
class RecordedOptions:
    """The options that decide what the maps are, as those of ``clarp explain``.

    Attributes:
        model: its name, or the file that it was loaded from.
        weights: the file of weights, if one was named.
        labels: likewise of class names.
        output: which of several results are the logits.
        task: what the last layer means, if it was said.
        method: a name; None: the default, or the file's own.
        composite: a name; None: the method's own.
        layers: modules whose relevance was written too.
        targets: classes; none: the top one of each photo.
        against: rivals; none: those of the task.
        expected: the class that was expected, if one was named.
        engine: what computed.
        device: where.
        batch_size: how many photos were explained at once.
    """

    model: str
    weights: str | None
    labels: str | None
    output: str | None
    task: str | None
    method: str | None
    composite: str | None
    layers: tuple[str, ...]
    targets: tuple[int, ...]
    against: tuple[int, ...]
    expected: int | None
    engine: str
    device: str
    batch_size: int


@dataclass(frozen=True)
class RecordedRun:
    """A manifest.

    Attributes:
        folder: where it lies.
        sha256: of the manifest.
        content: all of it.
        options: what was asked.
        complete: whether the options were recorded; an older clarp did not, and they were put together from
            the entries of the maps.
        photos: those that were explained.
    """

    folder: Path
    sha256: str
    content: dict[str, Any]
    options: RecordedOptions
    complete: bool
    photos: tuple[RecordedPhoto, ...]

    @classmethod
    def read(cls, folder: Path) -> "RecordedRun":
        """Read the manifest of a folder.

        Raises:
            OSError: there is none, or it can't be read.
            ValueError: it is not one of ``clarp explain``; the message names the field.
        """
        path = folder / MANIFEST
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder}: no such folder, expected one that `clarp explain` wrote.")
        if not path.exists():
            raise FileNotFoundError(
                f"{folder} has no {MANIFEST}, expected a folder that `clarp explain` wrote."
            )
        data = read_regular(path, _MOST_BYTES)
        try:
            content = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path} is no JSON ({type(error).__name__}), expected a manifest.") from error
        try:
            whole = _record(content)
            photos = tuple(map(_photo, _each(whole, "photos")))
            options = _options(whole, photos)
        except ManifestError as error:
            raise ValueError(f"{path}: {error}. It is no manifest that `clarp explain` wrote.") from error
        if not photos:
            raise ValueError(f"{path} lists no photo that was explained, so there is nothing to verify.")
        return cls(folder, hashlib.sha256(data).hexdigest(), whole, options, "asked" in whole, photos)

    def has_weights(self, sha256: str) -> bool:
        """Whether the maps were made with weights of this checksum, as far as is recorded."""
        known, before = _found(self.content, "model.weights_sha256")
        return not known or before == sha256

    def changes(self, now: dict[str, Any]) -> tuple[list[dict[str, Any]], list[str]]:
        """What is otherwise than in the manifest of a new run, and what the old one does not record.

        Returns:
            For each change ``what`` it is, what it ``was`` and is ``now``; and the names of what is unknown.
        """
        changed, unknown = [], []
        for place, name in _HEAD.items():
            known, before = _found(self.content, place)
            after = _found(now, place)[1]
            if not known:
                unknown.append(name)
            elif before != after:
                changed.append({"what": name, "was": before, "now": after})
        return changed, unknown


class ManifestError(ValueError):
    """A field that is absent or of another kind; the message says which."""


def _found(content: Any, place: str) -> tuple[bool, Any]:
    """Whether there is something at a place such as "model.classes", and what."""
    for name in place.split("."):
        if not isinstance(content, dict) or name not in content:
            return False, None
        content = content[name]
    return True, content


def _photo(entry: object) -> RecordedPhoto:
    record = _record(entry)
    predictions = []
    for one in _each(record, "predictions"):
        predicted = _record(one)
        predictions.append((_need(predicted, "class", _class), *_words(predicted)))
    return RecordedPhoto(
        Path(_need(record, "file", _text)),
        _need(record, "sha256", _digest),
        _maybe(record, "input_sha256", _digest),
        tuple(predictions),
        tuple(map(_map, _each(record, "explanations"))),
        _picture(_maybe(record, "versus", _record)),
    )


def _picture(entry: dict[str, Any] | None) -> dict[str, str]:
    return {} if entry is None else {_need(entry, "overlay", _plain_name): _need(entry, "sha256", _digest)}


def _map(entry: object) -> RecordedMap:
    record = _record(entry)
    target = _need(record, "target", _record)
    layers = _maybe(record, "layers", _record) or {}
    files = (_need(record, "relevance", _plain_name), *(_need(layers, name, _plain_name) for name in layers))
    sums = _maybe(record, "sha256", _record)
    digests = None if sums is None else {_plain_name(name): _need(sums, name, _digest) for name in sums}
    return RecordedMap(_need(target, "class", _class), *_words(target), files, digests)


def _words(record: dict[str, Any]) -> tuple[str | None, float | None]:
    return _maybe(record, "label", _text), _maybe(record, "probability", _number)


def _options(record: dict[str, Any], photos: Sequence[RecordedPhoto]) -> RecordedOptions:
    asked = _maybe(record, "asked", _record)
    if asked is None:
        asked = _put_together(record, photos)
    return RecordedOptions(
        model=_need(asked, "model", _text),
        weights=_maybe(asked, "weights", _text),
        labels=_maybe(asked, "labels", _text),
        output=_maybe(asked, "output", _text),
        task=_maybe(asked, "task", _text),
        method=_maybe(asked, "method", _text),
        composite=_maybe(asked, "composite", _text),
        layers=tuple(_text(name) for name in _each(asked, "layers")),
        targets=tuple(_class(index) for index in _each(asked, "targets")),
        against=tuple(_class(index) for index in _each(asked, "against")),
        expected=_maybe(asked, "expected", _class),
        engine=_maybe(asked, "engine", _text) or "torch",
        device=_need(record, "device", _device),
        batch_size=_need(record, "batch_size", _batch),
    )


def _put_together(record: dict[str, Any], photos: Sequence[RecordedPhoto]) -> dict[str, Any]:
    """The options of a manifest that does not record them, from the entries of its maps."""
    method, composite = (_maybe(record, name, _record) or {} for name in ("method", "composite"))
    classes = {tuple(one.target for one in photo.maps) for photo in photos}
    entries = [_record(e) for photo in _each(record, "photos") for e in _each(_record(photo), "explanations")]
    rivals = [e["against"] for e in entries if isinstance(e.get("against"), list)]
    return {
        "model": _need(_need(record, "model", _record), "name", _text),
        "method": method.get("name"),
        "composite": composite.get("name"),
        "layers": list(_maybe(entries[0], "layers", _record) or {}) if entries else [],
        "targets": list(classes.pop()) if len(classes) == 1 else [],
        "against": sorted({_need(_record(one), "class", _class) for some in rivals for one in some}),
    }


def _need(record: dict[str, Any], name: str, kind: Callable[[object], T]) -> T:
    """The field of a record.

    Raises:
        ManifestError: it is absent, or of another kind.
    """
    if name not in record:
        raise ManifestError(f"there is no {reprlib.repr(name)}")
    try:
        return kind(record[name])
    except ManifestError as error:
        raise ManifestError(f"{reprlib.repr(name)}: {error}") from None


def _maybe(record: dict[str, Any], name: str, kind: Callable[[object], T]) -> T | None:
    """The same, or None where it is absent or null."""
    return None if record.get(name) is None else _need(record, name, kind)


def _each(record: dict[str, Any], name: str) -> list[object]:
    return _need(record, name, _list)


def _wrong(value: object, expected: str) -> ManifestError:
    return ManifestError(f"{reprlib.repr(value)} was found, expected {expected}")


def _record(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _wrong(value, "an object")
    return value


def _list(value: object) -> list[object]:
    if not isinstance(value, list):
        raise _wrong(value, "a list")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise _wrong(value, "a text")
    return value


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise _wrong(value, "a number from 0 to 1")
    return float(value)


def _class(value: object) -> int:
    return _whole(value, 0, _MOST_CLASSES)


def _batch(value: object) -> int:
    return _whole(value, 1, _MOST_BATCH)


def _whole(value: object, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise _wrong(value, f"a whole number from {low} to {high}")
    return value


def _digest(value: object) -> str:
    if not isinstance(value, str) or not _SHA256.fullmatch(value):
        raise _wrong(value, "a SHA-256, 64 hexadecimal digits")
    return value


def _device(value: object) -> str:
    if not isinstance(value, str) or not _DEVICE.fullmatch(value):
        raise _wrong(value, "cpu, mps, cuda or cuda:N")
    return value


def _plain_name(value: object) -> str:
    """A file's name without folders, so that nothing outside of the manifest's folder is named."""
    name = _text(value)
    if name in {"", ".", ".."} or any(letter in name for letter in "/\\:"):
        raise _wrong(value, "the name of a file in the manifest's folder")
    return name
