"""The captured graph must compute the model's own logits."""

import inspect

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from clarp.capture.graph import Graph
from clarp.capture.output import Output, in_rows, pick
from clarp.capture.reading import Hookless
from clarp.errors import CaptureError
from clarp.operations.base import in_dtype

ROUNDING = 4.0
"""How much farther than the graph in the model's own type the model may be from the graph in float64."""


def own_logits(model: nn.Module, images: Tensor, output: Output) -> tuple[Tensor, bool]:
    """What the model itself returns; what its forward may write to is a copy.

    Returns:
        The logits (B, N), and whether they are what it returns: nothing beside them, in this shape.

    Raises:
        ValueError: the model refuses the images.
        CaptureError: it does not return logits (B, N).
    """
    _check_inputs(model)
    result = _run(model, images)
    picked = pick(result, output)
    assert isinstance(picked, Tensor)
    logits = in_rows(picked) if picked.shape[:1] == images.shape[:1] else picked
    if logits.ndim != 2 or logits.shape[0] != images.shape[0] or not logits.is_floating_point():
        raise CaptureError(
            f"the model returns a tensor of shape {tuple(logits.shape)} of {logits.dtype} for {images.shape[0]} images, expected "
            "logits (B, N). Wrap the model in a module that returns one row of logits for each image."
        )
    return logits, logits is result


def _check_inputs(model: nn.Module) -> None:
    parameters = inspect.signature(model.forward).parameters.values()
    first = next(iter(parameters), None)
    if first is None or first.kind == first.KEYWORD_ONLY:
        raise CaptureError(
            "the model's forward takes no positional argument, expected a tensor of images. Wrap the model in a module that hands them "
            "on by name."
        )
    needed = [
        p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    if len(needed) > 1:
        raise CaptureError(
            f"the model's forward needs {len(needed)} arguments ({', '.join(needed)}), expected one tensor of images. "
            "Wrap the model in a module that takes the images and adds the rest."
        )


def _run(model: nn.Module, images: Tensor) -> object:
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    try:
        with torch.no_grad(), Hookless():
            return torch.func.functional_call(model, buffers, (images.clone(),))
    except Exception as error:
        named = {2: " (channels, length)", 3: " (channels, height, width)"}.get(images.ndim - 1, "")
        raise ValueError(
            f"the model refuses images of shape {tuple(images.shape[1:])}{named}: {first_line(error)}. Pass images as the model expects them, "
            f"after its own preprocessing.{_without_batch(model, images)}"
        ) from error


def _without_batch(model: nn.Module, images: Tensor) -> str:
    """What to do where the batch's axis may be forgotten."""
    volumes = any(isinstance(module, nn.Conv3d) for module in model.modules())
    signals = any(isinstance(module, nn.Conv1d) for module in model.modules())
    expected = 5 if volumes else 3 if signals else 4
    return " For a single one add the batch axis: images.unsqueeze(0)." if images.ndim == expected - 1 else ""


def check_logits(graph: Graph, images: Tensor, expected: Tensor, precision: float = 0.0) -> None:
    """Compare the graph's logits with the model's own.

    Args:
        graph: of the model.
        images: for the comparison.
        expected: the model's logits.
        precision: of the coarsest type that the model computes in (:func:`coarsest`), which may be neither its weights' nor its
            logits'.

    Raises:
        CaptureError: they differ by more than rounding.
    """
    dtype = next((t.dtype for t in graph.tensors.values() if t.is_floating_point()), images.dtype)
    logits = _logits(graph, images, dtype).to(expected.dtype)
    tolerance = max(torch.finfo(dtype).eps, torch.finfo(expected.dtype).eps, precision) ** 0.5
    infinite = (
        expected.isinf()
    )  # classes that the model rules out: infinite in both, or it is another function
    if not torch.equal(logits.where(infinite, 0), expected.where(infinite, 0)):
        raise CaptureError(
            "the captured graph's logits differ from the model's own, some of which are infinite where the graph's are not. Is the "
            "model's forward deterministic, in eval mode, and the same for one image as for several? If so, please report this model."
        )
    logits, expected = logits.where(~infinite, 0), expected.where(~infinite, 0)
    scale = expected.abs().max().clamp(min=torch.finfo(expected.dtype).tiny)
    error = ((logits - expected).abs().max() / scale).item()
    if not error <= tolerance and not _rounding(graph, images, logits, expected):
        raise CaptureError(
            f"the captured graph's logits differ from the model's own by {error:.2g} of their maximum for "
            f"{len(images)} image(s), expected at most {tolerance:.2g}. Is the model's forward deterministic, in eval mode, "
            "and the same for one image as for several? If so, please report this model."
        )


def coarsest(program: ExportedProgram) -> float:
    """The relative precision of the coarsest type among the values of a program; its casts are no part of the graph."""
    graphs = [module.graph for module in program.graph_module.modules() if isinstance(module, fx.GraphModule)]
    values = pytree.tree_leaves([node.meta.get("val") for graph in graphs for node in graph.nodes])
    types = {value.dtype for value in values if isinstance(value, Tensor)}
    return max((torch.finfo(kind).eps for kind in types if kind.is_floating_point), default=0.0)


def _logits(graph: Graph, images: Tensor, dtype: torch.dtype) -> Tensor:
    """The graph's logits, computed in this type."""
    tensors = {name: in_dtype(tensor, dtype) for name, tensor in graph.tensors.items()}
    values = {graph.input: images.to(dtype)}
    with torch.no_grad():
        for node in graph:
            inputs = [values[name] for name in node.inputs]
            values[node.name], _ = node.operation.forward(inputs, tensors)
    logits = values[graph.output]
    return logits if graph.link is None else graph.link(logits)


def _rounding(graph: Graph, images: Tensor, logits: Tensor, expected: Tensor) -> bool:
    """Whether rounding is what tells the logits apart: in float64 the graph is not farther from the model than from itself."""
    exact = _logits(graph, images, torch.float64)
    exact = exact.where(exact.isfinite(), 0)
    own, theirs = ((found - exact).abs().max().item() for found in (logits, expected))
    return theirs <= ROUNDING * own


def check_one_image(graph: Graph, model: nn.Module, image: Tensor, precision: float = 0.0) -> None:
    """The graph was made from two images; the model must do the same for one, a forgotten batch axis aside.

    Raises:
        CaptureError: it does not.
    """
    output = _run(model, image)
    if isinstance(output, Tensor) and output.numel():
        check_logits(graph, image, output.reshape(1, -1), precision)


def first_line(error: Exception) -> str:
    """What an error says, in one line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].strip().rstrip(".")
