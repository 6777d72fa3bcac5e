"""What a file that explains says of itself: JSON in its metadata."""

import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, get_args

from clarp.task import TaskName

KEY = "clarp"
"""The name of the metadata in an ONNX file, and with ``.json`` in a ``.pt2`` file."""
FORMAT = 1


@dataclass(frozen=True)
class FileDescription:
    """How the explanations of a file are made, and for which photos.

    Attributes:
        model: the name of the classifier.
        weights_sha256: of its parameters and buffers, before anything was folded into them.
        task: what its logits mean.
        labels: the names of the classes; empty where there are none.
        classes: how many there are.
        method: the name of the method.
        definition: the method in full.
        composite: the name of its rules.
        has_rivals: whether the choice of rivals changes anything.
        input_shape: of one image, (C, H, W).
        channels: the axis of (B, C, H, W) that holds the channels.
        low: the lowest value of a pixel, one for each channel; None: each image's own.
        high: likewise the highest.
        targets: K, how many classes of an image are explained at once; None: one, and target is (B,).
        against: whether the rivals are an input, bool (B, N).
        half: whether the weights are stored in float16.
        preprocessing: how a photo becomes an image, see :mod:`clarp.exporting.preprocessing`; None where it
            is code of the user's.
        notes: what the classifier assumed.
        versions: of clarp, torch, and what wrote the file.
        format: of this description.
    """

    model: str
    weights_sha256: str
    task: TaskName
    labels: tuple[str, ...]
    classes: int
    method: str
    definition: str
    composite: str
    has_rivals: bool
    input_shape: tuple[int, ...]
    channels: int
    low: tuple[float, ...] | None
    high: tuple[float, ...] | None
    targets: int | None
    against: bool
    half: bool
    preprocessing: Mapping[str, Any] | None
    notes: tuple[str, ...]
    versions: Mapping[str, str]
    format: int = FORMAT

    def to_json(self) -> str:
        """The text that a file carries."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str, file: Path) -> "FileDescription":
        """What a file carries.

        Raises:
            ValueError: it is damaged, or of a later format.
        """
        try:
            found = json.loads(text)
            if found["format"] != FORMAT:
                raise ValueError(
                    f"{file}: its description has the format {found['format']!r}, expected {FORMAT}: it was "
                    "written by another version of clarp. Update clarp, or export it again."
                )
            plain: dict[str, Any] = {field.name: found[field.name] for field in fields(cls)}
            values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in plain.items()}
            about = cls(**values)
        except (KeyError, TypeError, json.JSONDecodeError) as error:
            raise ValueError(
                f"{file}: its description of itself is damaged ({type(error).__name__}: {error}). Export it "
                "again."
            ) from error
        about._check(file)
        return about

    def _check(self, file: Path) -> None:
        shape, labels = self.input_shape, self.labels
        good = (
            isinstance(shape, tuple)
            and all(isinstance(size, int) and size > 0 for size in shape)
            and isinstance(self.classes, int)
            and self.task in get_args(TaskName)
            and len(labels) in (0, self.classes)
        )
        if not good:
            raise ValueError(f"{file}: its description of itself contradicts itself. Export it again.")


def in_program(file: Path) -> FileDescription | None:
    """The description in a .pt2 file, without loading the program; None for one that explains nothing.

    Raises:
        ValueError: it is damaged, or of a later format.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            names = [name for name in archive.namelist() if name.endswith(f"/{KEY}.json")]
            text = archive.read(names[0]).decode() if names else None
    except (OSError, zipfile.BadZipFile, UnicodeDecodeError, NotImplementedError):
        return None  # whoever loads the program says what is wrong with it
    return None if text is None else FileDescription.from_json(text, file)
