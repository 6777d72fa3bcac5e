"""Weights from a file into a model: safely read, strictly matched."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn


def read_state(path: Path) -> dict[str, Tensor]:
    """Read a state dict: safetensors by its suffix, else what ``torch.save(model.state_dict(), path)`` wrote.

    Nothing in the file is executed (``weights_only``).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or holds something else.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such weights file.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except SafetensorError as error:
        raise ValueError(f"{path}: not a safetensors file, or damaged ({error}).") from error
    except Exception as error:  # PyTorch documents none; on a text it is an IndexError
        raise ValueError(
            f"{path}: not a file of weights alone, or damaged; expected safetensors, or what "
            "torch.save(model.state_dict(), path) writes."
        ) from error
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        held = (
            f"the entries {_some(list(map(str, state)))}"
            if isinstance(state, Mapping)
            else f"a {type(state).__name__}"
        )
        raise ValueError(
            f"{path}: holds {held}, expected a state dict (names and tensors); "
            "save it again with torch.save(model.state_dict(), path)."
        )
    return dict(state)


def load_weights(module: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Put a state dict into a fresh model; every tensor must have its place, and every place its tensor.

    Args:
        module: the model; half-precision weights become its own precision.
        state: names and tensors.
        source: where the weights are from, for the message.

    Raises:
        ValueError: names or shapes differ; the message has how many, and the first few.
    """
    expected = module.state_dict()
    shapes = [
        f"{name} {tuple(value.shape)} instead of {tuple(expected[name].shape)}"
        for name, value in state.items()
        if name in expected and value.shape != expected[name].shape
    ]
    fitting = {
        name: value
        for name, value in state.items()
        if name not in expected or value.shape == expected[name].shape
    }
    result = module.load_state_dict(fitting, strict=False)
    missing = [name for name in result.missing_keys if name not in state]
    problems = {"missing": missing, "unexpected": result.unexpected_keys, "of another shape": shapes}
    listed = [f"{len(names)} {problem} ({_some(names)})" for problem, names in problems.items() if names]
    if listed:
        raise ValueError(f"{source}: the weights don't fit the model: {'; '.join(listed)}.")


def _some(names: Sequence[str], most: int = 3) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
