"""The captured graph must compute the model's own logits."""

import torch
from torch import Tensor, nn

from clarp.capture.graph import Graph
from clarp.errors import CaptureError


def own_logits(model: nn.Module, images: Tensor) -> Tensor:
    """What the model itself returns; what its forward may write to is a copy.

    Raises:
        ValueError: the model refuses the images.
        CaptureError: it does not return logits (B, N).
    """
    output = _run(model, images)
    if not isinstance(output, Tensor):
        keys = f" with the keys {list(output)}" if isinstance(output, dict) else ""
        raise CaptureError(
            f"the model returns a {type(output).__name__}{keys}, expected one tensor of logits (B, N). "
            "Wrap the model in a module that returns only the logits."
        )
    if output.ndim != 2 or output.shape[0] != images.shape[0]:
        raise CaptureError(
            f"the model returns a tensor of shape {tuple(output.shape)} for {images.shape[0]} images, expected logits "
            "(B, N). Wrap the model in a module that returns one row of logits for each image."
        )
    return output


def _run(model: nn.Module, images: Tensor) -> object:
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    try:
        with torch.no_grad():
            return torch.func.functional_call(model, buffers, (images.clone(),))
    except Exception as error:
        raise ValueError(
            f"the model refuses images of shape {tuple(images.shape[1:])} (channels, height, width): "
            f"{first_line(error)}. Pass images as the model expects them, after its own preprocessing."
        ) from error


def check_logits(graph: Graph, images: Tensor, expected: Tensor) -> None:
    """Compare the graph's logits with the model's own.

    Raises:
        CaptureError: they differ by more than rounding.
    """
    dtype = next((t.dtype for t in graph.tensors.values()), images.dtype)
    values = {graph.input: images.to(dtype)}
    with torch.no_grad():
        for node in graph:
            inputs = [values[name] for name in node.inputs]
            values[node.name], _ = node.operation.forward(inputs, graph.tensors)
    logits = values[graph.output].to(expected.dtype)
    tolerance = torch.finfo(expected.dtype).eps ** 0.5
    scale = expected.abs().max().clamp(min=torch.finfo(expected.dtype).tiny)
    error = ((logits - expected).abs().max() / scale).item()
    if not error <= tolerance:
        raise CaptureError(
            f"the captured graph's logits differ from the model's own by {error:.2g} of their maximum for "
            f"{len(images)} image(s), expected at most {tolerance:.2g}. Is the model's forward deterministic, in eval mode, "
            "and the same for one image as for several? If so, please report this model."
        )


def check_one_image(graph: Graph, model: nn.Module, image: Tensor) -> None:
    """The graph was made from two images; the model must do the same for one, a forgotten batch axis aside.

    Raises:
        CaptureError: it does not.
    """
    output = _run(model, image)
    if isinstance(output, Tensor) and output.numel():
        check_logits(graph, image, output.reshape(1, -1))


def first_line(error: Exception) -> str:
    """What an error says, in one line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].strip().rstrip(".")
