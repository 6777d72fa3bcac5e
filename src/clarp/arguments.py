"""What an explainer is given, checked."""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from clarp.capture.further import Further, check_arguments
from clarp.network import Network

RANKS = (3, 4, 5)
"""How many axes a batch can have: signals, images, and volumes, clips or several views."""
EngineName = Literal["torch", "onnxruntime"]
"""What can compute explanations."""
ENGINE_LOG = "clarp.engine"
"""Where an engine says that it records, and how long that took: the name of a ``logging.Logger``."""
DType = Literal["float32", "float64", "bfloat16"]
Inputs = Sequence[object] | Mapping[str, object]
"""What a model takes beside the images: values in the order of its forward, or by name."""


def checked_images(
    images: Tensor,
    network: Network,
    device: torch.device | None,
    computing: Callable[[torch.dtype], torch.dtype],
    *,
    live: bool = False,
) -> Tensor:
    """Images as they are computed with: a copy on the device and in the type for it.

    Args:
        images: as the user gave them.
        network: who will see them.
        device: where to compute; None: where the model is, and the images too.
        computing: the type to compute in, for images of a type.
        live: whether autograd may go back to them.

    Raises:
        TypeError: no floating tensor.
        ValueError: another shape or device, or values that are not finite.
    """
    if not isinstance(images, Tensor):
        raise TypeError(f"images is a {type(images).__name__}, expected a tensor (B, C, H, W).")
    if images.ndim not in RANKS or 0 in images.shape:
        raise ValueError(
            f"images has the shape {tuple(images.shape)}, expected (B, C, H, W), a volume or clip (B, C, D, "
            "H, W), views (B, V, C, H, W) or a signal (B, C, L), with nothing empty."
        )
    if not images.is_floating_point():
        raise TypeError(
            f"images is of type {images.dtype}, expected floating values, preprocessed as the model expects "
            "them."
        )
    network.check_mode()
    own = network.device
    if device is None and images.device != own:
        raise ValueError(
            f"images is on {images.device}, and the model on {own}, expected the same. Move images: "
            f"images.to({str(own)!r})."
        )
    if images.is_meta:
        raise ValueError("images is on the device meta, which holds no values, expected images with values.")
    if not bool(torch.isfinite(images).all()):
        wrong = (~torch.isfinite(images)).flatten(1).any(1).nonzero().flatten().tolist()
        raise ValueError(f"images {wrong} of the batch hold NaN or infinity, expected finite values.")
    copied = (images if live else images.detach()).to(device or own, computing(images.dtype))
    # A loader may fill its memory anew before the explanation is drawn.
    return copied.clone() if copied.data_ptr() == images.data_ptr() else copied


def checked_inputs(
    inputs: Inputs,
    images: Tensor,
    network: Network,
    device: torch.device | None,
    computing: Callable[[torch.dtype], torch.dtype],
) -> Further:
    """Further inputs as they are computed with.

    Args:
        inputs: as the user gave them.
        images: (B, C, H, W), checked.
        network: who will see them.
        device: where to compute; None: where the model is, and the inputs too.
        computing: the type to compute in, for values of a type.

    Raises:
        TypeError: no sequence or mapping, or a value that is neither a tensor nor a plain value.
        ValueError: more or fewer than the model takes, another device, or NaN.
    """
    if isinstance(inputs, Tensor | str) or not isinstance(inputs, Sequence | Mapping):
        raise TypeError(
            f"inputs is a {type(inputs).__name__}, expected a tuple of what the model takes beside the "
            "images, inputs=(table,), or a dictionary by the names of its arguments."
        )
    named = inputs if isinstance(inputs, Mapping) else {}
    if not all(isinstance(name, str) for name in named):
        raise TypeError(
            f"inputs has the names {list(named)}, expected words, the names of the model's arguments."
        )
    given = list(named.values()) if named else [] if isinstance(inputs, Mapping) else list(inputs)
    places: list[int | str] = list(named) if named else list(range(len(given)))
    wrong = None
    if isinstance(network.model, nn.Module):
        wrong = check_arguments(network.model.forward, 0 if named else len(given), named)
    elif (takes := len(network.model.graph_signature.user_inputs) - 1) != len(given):
        wrong = (
            f"inputs has {len(given)} value(s), and the exported program takes {takes} beside the images: "
            "inputs=(...)."
        )
    if wrong is not None:
        raise ValueError(wrong)
    values = [
        _checked_input(
            value, f"inputs[{place!r}]", network.device, images.device if device else None, computing
        )
        for place, value in zip(places, given, strict=True)
    ]
    rows = tuple(isinstance(v, Tensor) and v.ndim > 0 and v.shape[0] in (1, len(images)) for v in values)
    return Further(tuple(places), tuple(values), rows, len(images))


def _checked_input(
    value: object,
    name: str,
    own: torch.device,
    device: torch.device | None,
    computing: Callable[[torch.dtype], torch.dtype],
) -> object:
    """One of them; ``own`` is the model's device, ``device`` where to compute if that was said."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if not isinstance(value, Tensor):
        raise TypeError(
            f"{name} is a {type(value).__name__}, expected a tensor with a row for each image, or a tensor, "
            "a number or a word for all."
        )
    if value.layout != torch.strided or value.is_complex() or value.is_quantized:
        raise TypeError(
            f"{name} is of type {value.dtype} and layout {value.layout}, expected a plain tensor."
        )
    if value.is_meta or (device is None and value.device != own):
        raise ValueError(
            f"{name} is on {value.device}, and the model on {own}, expected the same. Move it: "
            f".to({str(own)!r})."
        )
    value = value.detach().to(device or own)
    if not value.is_floating_point():
        return value.clone()
    if bool(value.isnan().any()):
        raise ValueError(f"{name} holds NaN, expected numbers.")
    return value.to(computing(value.dtype), copy=True)


def checked_engine(engine: object) -> EngineName:
    """What was given as ``engine``.

    Raises:
        ValueError: an unknown name.
    """
    found = next((name for name in get_args(EngineName) if name == engine), None)
    if found is None:
        raise ValueError(f"engine is {engine!r}, expected one of {', '.join(get_args(EngineName))}.")
    return found


def check_engine_computes(engine: EngineName, device: torch.device | None, dtype: torch.dtype | None) -> None:
    """Refuse a device and a type that the engine does not compute with; None for what is not known yet.

    Raises:
        ValueError: the engine is not PyTorch, and the device no CPU or the type not float32.
    """
    if engine == "torch":
        return
    if device is not None and device.type != "cpu":
        raise ValueError(
            f"engine is {engine!r}, which computes on the CPU, and the device is {str(device)!r}: take "
            "device='cpu', or leave engine out."
        )
    if dtype not in (None, torch.float32):
        raise ValueError(
            f"engine is {engine!r}, which computes in float32, and the type is {dtype}: take "
            "dtype='float32', or leave engine out."
        )


def checked_dtype(dtype: object) -> torch.dtype | None:
    """What was given as ``dtype``.

    Raises:
        TypeError: none of :data:`DType`.
    """
    types = {getattr(torch, name): name for name in get_args(DType)}
    found = next((kind for kind, name in types.items() if dtype in (kind, name)), None)
    if found is None and dtype is not None:
        raise TypeError(
            f"dtype is {dtype!r}, expected {', '.join(map(str, types))} or None. (float16 ends at 65504, "
            "and relevance divided by small activations does not fit; a model in float16 is explained in "
            "float32.)"
        )
    return found
