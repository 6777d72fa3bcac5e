"""What a user may pass as ``target`` and ``against``, and what the engine works with."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

Class = int | str
"""A class by its number, or by its name where the classes have names."""
Target = Class | Sequence[Class] | Sequence[Sequence[Class]] | Tensor | None
Against = Class | Sequence[Class] | Sequence[Sequence[Class]] | Tensor | None


def resolve_target(target: Target, scores: Tensor) -> Tensor:
    """The classes to explain as (B,) or (B, K), on the scores' device.

    Args:
        target: None for the class of the greatest score, an int, or a sequence or tensor of shape (B,) or (B,
            K).
        scores: (B, N), for N classes.

    Raises:
        TypeError: not integers.
        ValueError: another shape, or a class out of range.
    """
    if target is None:
        return scores.argmax(1)
    batch, classes = scores.shape
    found = integers("target", target).to(scores.device)
    if found.ndim == 0:
        found = found.expand(batch)
    if found.ndim not in (1, 2) or found.shape[0] != batch or found.numel() == 0:
        raise ValueError(
            f"target has the shape {tuple(found.shape)} for {batch} image(s), expected one class for each "
            f"image, ({batch},), or K classes for each image, ({batch}, K)."
        )
    _in_range("target", found, classes)
    if classes > 2 and found.shape[1:] == (classes,) and _one_hot(found):
        raise ValueError(
            f"target is one-hot, a row of {classes} zeros and ones for each image, expected the numbers of "
            "classes. Pass target.argmax(1)."
        )
    return found.clone()


def _one_hot(found: Tensor) -> bool:
    return bool(((found == 0) | (found == 1)).all() and (found.sum(1) == 1).all())


def all_others(target: Tensor, classes: int) -> Tensor:
    """All of the N classes but the target (K, B), bool (K, B, N)."""
    every = torch.ones(*target.shape, classes, dtype=torch.bool, device=target.device)
    return every.scatter(-1, target.unsqueeze(-1), False)


def no_others(target: Tensor, classes: int) -> Tensor:
    """None of the N classes, bool (K, B, N) for targets (K, B)."""
    return torch.zeros(*target.shape, classes, dtype=torch.bool, device=target.device)


def resolve_rivals(against: Against, target: Tensor, classes: int) -> Tensor:
    """Which classes each target is contrasted with, bool (K, B, N); a target is never its own rival.

    Args:
        against: an int, one sequence of classes for all, or a sequence or tensor (B, M).
        target: (K, B).
        classes: N.

    Raises:
        TypeError: not integers.
        ValueError: another shape, a class out of range, or nobody left to be a rival.
    """
    found = integers("against", against).to(target.device)
    found = found.view(1) if found.ndim == 0 else found
    if found.ndim == 2 and found.shape[0] != target.shape[1]:
        raise ValueError(
            f"against has the shape {tuple(found.shape)} for {target.shape[1]} image(s), expected one "
            f"set of classes for all, (M,), or one for each image, ({target.shape[1]}, M)."
        )
    if found.ndim > 2 or found.numel() == 0:
        raise ValueError(
            f"against is {against!r} of the shape {tuple(found.shape)}, expected at least one class, or "
            "None for all classes but the target."
        )
    _in_range("against", found, classes)
    sets = torch.zeros(*found.shape[:-1], classes, dtype=torch.bool, device=target.device)
    rivals = sets.scatter(-1, found, True) & all_others(target, classes)
    if not bool(rivals.any(-1).all()):
        raise ValueError(
            f"against is {against!r} for the target {target.t().tolist()}: nobody is left to be a rival. "
            "Name at least one class other than the target, or use a method without rivals, for example "
            "'lrp'."
        )
    return rivals


def integers(name: str, value: object) -> Tensor:
    """What was given as classes, as a tensor of whole numbers.

    Raises:
        TypeError: something else.
    """
    expected = "an int, or a list or tensor of ints"
    if isinstance(value, bool) or value is None:
        raise TypeError(f"{name} is {value!r}, expected {expected}.")
    try:
        found = (
            value
            if isinstance(value, Tensor)
            else torch.as_tensor(cast("Sequence[int]", value), device="cpu")
        )
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{name} is {value!r}, expected {expected} (in rows of the same length).") from error
    if found.numel() and (
        found.dtype == torch.bool or found.dtype.is_floating_point or found.dtype.is_complex
    ):
        raise TypeError(f"{name} is {value!r} of type {found.dtype}, expected {expected}.")
    return found.long()


def _in_range(name: str, found: Tensor, classes: int) -> None:
    wrong = found[(found < 0) | (found >= classes)]
    if wrong.numel():
        raise ValueError(
            f"{name} has {wrong.unique().tolist()}, expected classes from 0 to {classes - 1} of the model's "
            f"{classes}."
        )
