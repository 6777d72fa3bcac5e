"""What an explainer is given, checked."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Tensor

from clarp.network import Network

if TYPE_CHECKING:
    from clarp.compiled import Compiler

RANKS = (3, 4, 5)
"""How many axes a batch can have: signals, images, and volumes, clips or several views."""
DType = Literal["float32", "float64", "bfloat16"]


def checked_images(
    images: Tensor,
    network: Network,
    device: torch.device | None,
    computing: Callable[[torch.dtype], torch.dtype],
) -> Tensor:
    """Images as they are computed with: a copy on the device and in the type for it.

    Args:
        images: as the user gave them.
        network: who will see them.
        device: where to compute; None: where the model is, and the images too.
        computing: the type to compute in, for images of a type.

    Raises:
        TypeError: no floating tensor.
        ValueError: another shape or device, or values that are not finite.
    """
    if not isinstance(images, Tensor):
        raise TypeError(f"images is a {type(images).__name__}, expected a tensor (B, C, H, W).")
    if images.ndim not in RANKS or 0 in images.shape:
        raise ValueError(
            f"images has the shape {tuple(images.shape)}, expected (B, C, H, W), a volume or clip (B, C, D, H, W), views (B, V, C, H, W) "
            "or a signal (B, C, L), with nothing empty."
        )
    if not images.is_floating_point():
        raise TypeError(
            f"images is of type {images.dtype}, expected floating values, preprocessed as the model expects them."
        )
    network.check_mode()
    own = network.device
    if device is None and images.device != own:
        raise ValueError(
            f"images is on {images.device}, and the model on {own}, expected the same. Move images: images.to({str(own)!r})."
        )
    if images.is_meta:
        raise ValueError("images is on the device meta, which holds no values, expected images with values.")
    if not bool(torch.isfinite(images).all()):
        wrong = (~torch.isfinite(images)).flatten(1).any(1).nonzero().flatten().tolist()
        raise ValueError(f"images {wrong} of the batch hold NaN or infinity, expected finite values.")
    copied = images.detach().to(device or own, computing(images.dtype))
    # A loader may fill its memory anew before the explanation is drawn.
    return copied.clone() if copied.data_ptr() == images.data_ptr() else copied


def compiler_of(backend: object) -> "Compiler | None":
    """What was given as ``compile``.

    Raises:
        TypeError: neither a bool nor the name of a backend.
    """
    if backend is False:
        return None
    if backend is not True and not isinstance(backend, str):
        raise TypeError(
            f"compile is {backend!r}, expected True, False or the name of a backend of torch.compile."
        )
    from clarp.compiled import Compiler  # noqa: PLC0415  imports PyTorch's tracer

    return Compiler("inductor" if backend is True else backend)


def checked_dtype(dtype: object) -> torch.dtype | None:
    """What was given as ``dtype``.

    Raises:
        TypeError: none of :data:`DType`.
    """
    types = {getattr(torch, name): name for name in get_args(DType)}
    found = next((kind for kind, name in types.items() if dtype in (kind, name)), None)
    if found is None and dtype is not None:
        raise TypeError(
            f"dtype is {dtype!r}, expected {', '.join(map(str, types))} or None. (float16 ends at 65504, and "
            "relevance divided by small activations does not fit; a model in float16 is explained in float32.)"
        )
    return found
