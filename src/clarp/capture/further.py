"""Further inputs of a model beside the images: a table, a mask, a second image. They are held constant."""

import hashlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from clarp.operations.base import in_dtype

InputKey = int | str
"""Where an input stands in the call of the model: its number behind the images, or its name."""


@dataclass(frozen=True)
class Further:
    """The further inputs of one batch.

    Attributes:
        places: where each stands.
        given: as the user gave them, floating values in the type to compute in.
        rows: for each input whether it has a row for each image; the others are one for all, and a part of
            the model.
        batch: how many images there are.
    """

    places: tuple[InputKey, ...] = ()
    given: tuple[object, ...] = ()
    rows: tuple[bool, ...] = ()
    batch: int = 0

    def __bool__(self) -> bool:
        return bool(self.places)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """What has a row for each image, (B, ...) each."""
        found = []
        for value, by_image in zip(self.given, self.rows, strict=True):
            if by_image:
                assert isinstance(value, Tensor)
                found.append(value.expand(self.batch, *value.shape[1:]))
        return tuple(found)

    @property
    def signature(self) -> tuple[object, ...]:
        """What a captured graph depends on: the shapes of rows, the values of what is one for all images."""
        return tuple(
            (place, tuple(value.shape[1:]), value.dtype)
            if by_image and isinstance(value, Tensor)
            else (place, _told(value))
            for place, value, by_image in zip(self.places, self.given, self.rows, strict=True)
        )

    def part(self, rows: slice) -> "Further":
        """For these images alone."""
        tensors = iter(self.tensors)
        given = tuple(
            next(tensors)[rows] if by_image else value
            for value, by_image in zip(self.given, self.rows, strict=True)
        )
        return replace(self, given=given, batch=len(range(*rows.indices(self.batch))))

    def alike(self) -> "Further":
        """The same, each taken as one for all images, as the model's own forward would take it."""
        return replace(self, rows=(False,) * len(self.rows))

    def example(self, dtype: torch.dtype, count: int = 2) -> tuple[Tensor, ...]:
        """The rows of so many images; where there is one image, others have half of its values."""
        found = []
        for rows in self.tensors:
            places = torch.arange(count, device=rows.device)
            drawn = in_dtype(rows[places % self.batch], dtype)
            other = (places >= self.batch).view(-1, *(1,) * (rows.ndim - 1))
            found.append(torch.where(other, drawn / 2, drawn) if drawn.is_floating_point() else drawn)
        return tuple(found)

    def shapes(self) -> str:
        """For messages: what they are."""
        told = []
        for place, value, by_image in zip(self.places, self.given, self.rows, strict=True):
            name = f"inputs[{place!r}]"
            if isinstance(value, Tensor):
                kind = "a row for each image" if by_image else "one for all images"
                told.append(f"{name} {tuple(value.shape)} of {value.dtype}, {kind}")
            else:
                told.append(f"{name} {value!r}")
        return "; ".join(told)


NOTHING = Further()


class WithInputs(nn.Module):
    """A model of images and further inputs, as one whose inputs that are the same for all images are its own.

    Args:
        model: is not changed.
        further: its inputs; the values of those with a row for each image are not kept.
        dtype: of floating values.
    """

    model: nn.Module

    def __init__(self, model: nn.Module, further: Further, dtype: torch.dtype) -> None:
        super().__init__()
        self.model = model
        self.places, self.rows = further.places, further.rows
        self.constants: list[object] = []
        for number, (value, by_image) in enumerate(zip(further.given, further.rows, strict=True)):
            if isinstance(value, Tensor):
                self.register_buffer(f"input{number}", None if by_image else in_dtype(value, dtype))
            self.constants.append(None if isinstance(value, Tensor) else value)
        self.told = further.shapes()
        self.training = model.training

    def forward(self, images: Tensor, *rows: Tensor) -> object:
        """What the model returns."""
        given: list[object] = []
        named: dict[str, object] = {}
        by_image = iter(rows)
        for number, (place, has_rows) in enumerate(zip(self.places, self.rows, strict=True)):
            constant = getattr(self, f"input{number}", None)
            value = next(by_image) if has_rows else self.constants[number] if constant is None else constant
            if isinstance(place, str):
                named[place] = value
            else:
                given.append(value)
        return self.model(images, *given, **named)


def check_arguments(forward: Any, given: int, names: Mapping[str, object]) -> str | None:
    """What is wrong with these further inputs for a model's forward; None where nothing is."""
    parameters = list(inspect.signature(forward).parameters.values())
    by_position = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    any_number = any(p.kind == p.VAR_POSITIONAL for p in parameters)
    any_name = any(p.kind == p.VAR_KEYWORD for p in parameters)
    behind = by_position[1:]
    told = ", ".join(p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD))
    if given > len(behind) and not any_number:
        return (
            f"inputs has {given} value(s), and the model's forward ({told}) takes at most {len(behind)} "
            "beside the images."
        )
    known = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    wrong = [name for name in names if name not in known] if not any_name else []
    twice = [p.name for p in by_position[: given + 1] if p.name in names]
    if wrong or twice:
        name = (wrong or twice)[0]
        return f"inputs has {name!r}, which is no further argument of the model's forward ({told})."
    filled = {p.name for p in by_position[: given + 1]} | set(names)
    missing = [
        p.name
        for p in parameters
        if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD) and p.name not in filled
    ]
    if missing and by_position:
        return (
            f"the model's forward ({told}) needs {', '.join(missing)} beside the images. Pass what it needs "
            f"as further inputs, which are held constant: inputs=({', '.join(missing)},), or "
            f"inputs={{{missing[0]!r}: ...}} by name."
        )
    return None


def _told(value: object) -> object:
    """What changes when a value that is one for all images does."""
    if not isinstance(value, Tensor):
        return type(value).__name__, repr(value)
    plain = value.detach().cpu().contiguous().flatten().view(torch.uint8) if value.numel() else value.detach()
    return tuple(value.shape), value.dtype, hashlib.sha256(plain.numpy().tobytes()).hexdigest()
