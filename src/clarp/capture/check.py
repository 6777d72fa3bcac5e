"""The captured graph must compute the model's own logits."""

import inspect
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from clarp.capture.further import WithInputs, check_arguments
from clarp.capture.graph import Graph
from clarp.capture.reading import Hookless
from clarp.errors import CaptureError
from clarp.operations.base import in_dtype
from clarp.output import Output, assumption, in_rows, pick, settled

ROUNDING = 4.0
"""How much farther than the graph in the model's own type the model may be from the graph in float64."""


class Own(NamedTuple):
    """What a model itself returns.

    Attributes:
        logits: (B, N).
        alone: whether they are what it returns: nothing beside them, in this shape.
        output: which of its results they are.
        assumed: a note of that, where the user named none of several; else "".
    """

    logits: Tensor
    alone: bool
    output: Output
    assumed: str


def own_logits(model: nn.Module, images: Tensor, output: Output, rows: Sequence[Tensor] = ()) -> "Own":
    """What the model itself returns; what its forward may write to is a copy.

    Args:
        model: of images and of further inputs.
        images: (B, C, H, W).
        output: which of its results are the logits.
        rows: the further inputs that have a row for each image, (B, ...).

    Raises:
        ValueError: the model refuses the images.
        CaptureError: it does not return logits (B, N).
    """
    _check_inputs(model)
    result = _run(model, images, rows)
    named, output = output is not None, settled(result, output)
    picked = pick(result, output)
    assert isinstance(picked, Tensor)
    logits = in_rows(picked) if picked.shape[:1] == images.shape[:1] else picked
    if logits.ndim != 2 or logits.shape[0] != images.shape[0] or not logits.is_floating_point():
        raise CaptureError(
            f"the model returns a tensor of shape {tuple(logits.shape)} of {logits.dtype} for "
            f"{images.shape[0]} images, expected logits (B, N). Wrap the model in a module that returns one "
            "row of logits for each image."
        )
    return Own(logits, logits is result, output, "" if named else assumption(result, output))


def _check_inputs(model: nn.Module) -> None:
    if isinstance(model, WithInputs):
        return
    if not takes_position(model):
        raise CaptureError(
            "the model's forward takes no positional argument, expected a tensor of images. Wrap the model "
            "in a module that hands them on by name."
        )
    wrong = check_arguments(model.forward, 0, {})
    if wrong is not None:
        raise CaptureError(wrong)


def takes_position(model: nn.Module) -> bool:
    """Whether a model's forward takes an argument by position."""
    first = next(iter(inspect.signature(model.forward).parameters.values()), None)
    return first is not None and first.kind not in (first.KEYWORD_ONLY, first.VAR_KEYWORD)


def _run(model: nn.Module, images: Tensor, rows: Sequence[Tensor] = ()) -> object:
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    try:
        with torch.no_grad(), Hookless():
            arguments = (images.clone(), *(value.clone() for value in rows))
            return torch.func.functional_call(model, buffers, arguments)
    except Exception as error:
        named = {2: " (channels, length)", 3: " (channels, height, width)"}.get(images.ndim - 1, "")
        beside = f" with {model.told}" if isinstance(model, WithInputs) else ""
        raise ValueError(
            f"the model refuses images of shape {tuple(images.shape[1:])}{named}{beside}: "
            f"{first_line(error)}. Pass images{' and inputs' if beside else ''} as the model expects them, "
            f"after its own preprocessing.{_without_batch(model, images)}"
        ) from error


def _without_batch(model: nn.Module, images: Tensor) -> str:
    volumes = any(isinstance(module, nn.Conv3d) for module in model.modules())
    signals = any(isinstance(module, nn.Conv1d) for module in model.modules())
    expected = 5 if volumes else 3 if signals else 4
    return " For a single one add the batch axis: images.unsqueeze(0)." if images.ndim == expected - 1 else ""


def check_logits(
    graph: Graph, images: Tensor, expected: Tensor, precision: float = 0.0, rows: Sequence[Tensor] = ()
) -> None:
    """Compare the graph's logits with the model's own.

    Args:
        graph: of the model.
        images: for the comparison.
        expected: the model's logits.
        precision: of the coarsest type that the model computes in (:func:`coarsest`), which may be neither
            its weights' nor its logits'.
        rows: the further inputs that have a row for each image.

    Raises:
        CaptureError: they differ by more than rounding.
        ValueError: the model's own are NaN.
    """
    if bool(expected.isnan().any()):
        raise ValueError(
            "the model's own logits are NaN for random images, so that nothing can be checked by them. Is "
            "there a logarithm or a root of negative values, or a weight that is NaN?"
        )
    dtype = next((t.dtype for t in graph.tensors.values() if t.is_floating_point()), images.dtype)
    logits = _logits(graph, images, dtype, rows).to(expected.dtype)
    tolerance = max(torch.finfo(dtype).eps, torch.finfo(expected.dtype).eps, precision) ** 0.5
    infinite = (
        expected.isinf()
    )  # classes that the model rules out: infinite in both, or it is another function
    if not torch.equal(logits.where(infinite, 0), expected.where(infinite, 0)):
        raise CaptureError(
            "the captured graph's logits differ from the model's own, some of which are infinite where the "
            "graph's are not. Is the model's forward deterministic, in eval mode, and the same for one "
            "image as for several? If so, please report this model."
        )
    logits, expected = logits.where(~infinite, 0), expected.where(~infinite, 0)
    scale = expected.abs().max().clamp(min=torch.finfo(expected.dtype).tiny)
    error = ((logits - expected).abs().max() / scale).item()
    if not error <= tolerance and not _rounding(graph, images, logits, expected, rows):
        raise CaptureError(
            f"the captured graph's logits differ from the model's own by {error:.2g} of their maximum for "
            f"{len(images)} image(s), expected at most {tolerance:.2g}. Is the model's forward "
            "deterministic, in eval mode, and the same for one image as for several? If so, please report "
            "this model."
        )


def coarsest(program: ExportedProgram) -> float:
    """The relative precision of the coarsest type among a program's values; the graph has no casts."""
    graphs = [module.graph for module in program.graph_module.modules() if isinstance(module, fx.GraphModule)]
    values = pytree.tree_leaves([node.meta.get("val") for graph in graphs for node in graph.nodes])
    types = {value.dtype for value in values if isinstance(value, Tensor)}
    return max((torch.finfo(kind).eps for kind in types if kind.is_floating_point), default=0.0)


def _logits(graph: Graph, images: Tensor, dtype: torch.dtype, rows: Sequence[Tensor] = ()) -> Tensor:
    tensors = {name: in_dtype(tensor, dtype) for name, tensor in graph.tensors.items()}
    images = images.to(dtype)
    with torch.no_grad():
        values = {graph.input: images, **graph.auxiliary.values(rows, tensors, images)}
        for node in graph:
            inputs = [values[name] for name in node.inputs]
            values[node.name], _ = node.operation.forward(inputs, tensors)
    logits = values[graph.output]
    return logits if graph.link is None else graph.link(logits)


def _rounding(graph: Graph, images: Tensor, logits: Tensor, expected: Tensor, rows: Sequence[Tensor]) -> bool:
    """Whether only rounding differs: in float64 the graph is as near to the model as to itself."""
    exact = _logits(graph, images, torch.float64, rows)
    exact = exact.where(exact.isfinite(), 0)
    own, theirs = ((found - exact).abs().max().item() for found in (logits, expected))
    return theirs <= ROUNDING * own


def check_one_image(
    graph: Graph, model: nn.Module, image: Tensor, precision: float = 0.0, rows: Sequence[Tensor] = ()
) -> None:
    """The graph was made from two images; the model must do the same for one, a forgotten batch axis aside.

    Raises:
        CaptureError: it does not.
    """
    output = _run(model, image, rows)
    if isinstance(output, Tensor) and output.numel():
        check_logits(graph, image, output.reshape(1, -1), precision, rows)


def check_rows(graph: Graph, images: Tensor, rows: Sequence[Tensor]) -> None:
    """What is made of the further inputs of one image must not depend on those of others in the batch.

    Raises:
        CaptureError: it does.
    """
    together = graph.auxiliary.values(rows, graph.tensors, images)
    alone = graph.auxiliary.values([value[:1] for value in rows], graph.tensors, images[:1])
    for name, value in alone.items():
        if not torch.allclose(value, together[name][:1], rtol=1e-3, equal_nan=True):
            raise CaptureError(
                "what the model makes of one image's further inputs depends on those of the others in the "
                "batch (a mean over the batch, say), expected each image's by itself."
            )


def first_line(error: Exception) -> str:
    """What an error says, in one line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].strip().rstrip(".")
