"""Running the model on images with some pixels filled in: all variants of a batch together, in pieces."""

import math
from collections.abc import Callable, Iterable
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clarp.evaluation.metrics.base import Model
from clarp.evaluation.metrics.inpainting import inpainted
from clarp.explainer import Explainer
from clarp.models.logits import Logits
from clarp.task import ASSUMED, Binary, Multiclass, Task

Fill = Literal["mean", "colour", "blur"]
"""What covered pixels show.

- "mean": the data set's mean image, where the call gives ``mean_image`` (C, H, W), preprocessed like the
  images; without one the mean colour.
- "colour": the mean colour, which is 0 after a preprocessing that subtracts it.
- "blur": the image itself, blurred by a Gaussian of sigma = 5 px at 224 px (the insertion game of RISE).
"""
Cover = Literal["mean", "colour", "blur", "inpaint"]
"""What covered pixels show where it may depend on which are covered: :data:`Fill`, or

- "inpaint": their surroundings, continued linearly (:func:`~clarp.evaluation.metrics.inpainting.inpainted`).
"""
Paint = Callable[[Tensor, Tensor], Tensor]
"""From image numbers (n,) and covered pixels (n, 1, H, W) to the covered images (n, C, H, W)."""
Reading = Callable[[Task, Tensor, Tensor], Tensor]
"""What is read off logits (n, N) of a task for targets (n,): (n,) or (n, R), all on the CPU."""
_BLUR = 5 / 224
_STRIP = 64  # rows that are blurred at once, at least
_ONE = 1e-4  # how far a sum of probabilities may be from 1
# There are no public base classes.
_MODES = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)  # noqa: SLF001


def check_fill(fill: str, known: object = Fill) -> None:
    """Refuse an unknown fill.

    Raises:
        ValueError: it is none of the known ones, :data:`Fill` or :data:`Cover`.
    """
    if fill not in get_args(known):
        raise ValueError(f"fill={fill!r}: give one of the fills {', '.join(get_args(known))}")


def mean_image_for(fill: Cover) -> tuple[str, ...]:
    """What a metric with this fill uses besides the images: the mean image for "mean"."""
    return ("mean_image",) if fill == "mean" else ()


def probabilities(model: Model, images: Tensor, targets: Tensor | None = None, *, chunk: int = 64) -> Tensor:
    """The model's probability of each image's target, (B,) float64 on the CPU, as its task has it.

    Args:
        model: who is asked.
        images: (B, C, H, W).
        targets: (B,) class ids; None: the model's arg-max, whose probability is the greatest.
        chunk: at most so many images go through the model at once.

    Raises:
        ValueError: a model in training mode whose batch norm or dropout would let images change each other,
            an output that is not (B, N) or holds probabilities already, or a target that is no class.
    """
    asked = [_answers(model, piece) for piece in torch.split(images, chunk)]
    found = torch.cat([task.probabilities(logits) for task, logits in asked])
    if targets is None:
        return found.amax(dim=1)
    return found.gather(1, _checked_targets(targets, *found.shape)[:, None])[:, 0]


def predicted(model: Model, images: Tensor, targets: Tensor | None, *, chunk: int = 64) -> Tensor:
    """The targets (B,), or where they are None the model's arg-max."""
    if targets is not None:
        return targets.detach().cpu()
    asked = [_answers(model, piece) for piece in torch.split(images, chunk)]
    return torch.cat([task.scores(logits).argmax(dim=1) for task, logits in asked])


def probability(task: Task, logits: Tensor, targets: Tensor) -> Tensor:
    """The targets' probabilities, (n,)."""
    return task.probabilities(logits).gather(1, targets[:, None])[:, 0]


def lead(task: Task, logits: Tensor, targets: Tensor) -> Tensor:
    """How far the targets are ahead, (n,): :meth:`~clarp.task.Task.lead`."""
    return task.lead(logits, targets)


def leads(model: Model, images: Tensor, targets: Tensor, *, chunk: int = 64) -> Tensor:
    """How far each image's target is ahead, (B,) float64 on the CPU; errors as of :func:`probabilities`."""
    asked = [_answers(model, piece) for piece in torch.split(images, chunk)]
    task, found = asked[0][0], torch.cat([logits for _, logits in asked])
    return task.lead(found, _checked_targets(targets, len(found), task.classes))


def filling(images: Tensor, fill: Fill, mean_image: Tensor | None = None) -> Tensor:
    """What covered pixels show: (B, C, H, W) like the images.

    Raises:
        ValueError: a mean image of another shape, or with a fill that has no use for it.
    """
    if mean_image is not None and (fill != "mean" or mean_image.shape != images.shape[1:]):
        raise ValueError(
            f"mean_image has the shape {tuple(mean_image.shape)} and the fill is {fill!r}: a mean image "
            f"goes with the fill 'mean' and has the shape of one image, {tuple(images.shape[1:])}"
        )
    if fill == "blur":
        return gaussian_blur(images, _BLUR * max(images.shape[2:]), mode="replicate")
    if mean_image is None:
        return torch.zeros_like(images)
    return mean_image.to(images).expand_as(images)


def mean_image(batches: Iterable[Tensor]) -> Tensor:
    """The mean image of a data set: (C, H, W) from preprocessed batches (B, C, H, W), summed in float64.

    Raises:
        ValueError: no images, or images of several sizes.

    >>> mean_image([torch.zeros(1, 3, 2, 2), torch.ones(3, 3, 2, 2)])[0]
    tensor([[0.7500, 0.7500],
            [0.7500, 0.7500]])
    """
    total, count = torch.zeros(()), 0
    for batch in batches:
        if count and batch.shape[1:] != total.shape:
            one, other = ("x".join(map(str, shape)) for shape in (total.shape, batch.shape[1:]))
            raise ValueError(
                f"images of the sizes {one} and {other} (channels x height x width) have no mean image: "
                "preprocess to one size, or fill with the mean colour (fill=colour)"
            )
        total = total + batch.detach().to("cpu", torch.float64).sum(dim=0)
        count += len(batch)
    if count == 0:
        raise ValueError("there are no images to take the mean of: give at least one batch")
    return (total / count).float()


def pasted(images: Tensor, fill: Tensor) -> Paint:
    """Covered pixels are those of another picture: images and fill (B, C, H, W)."""

    def paint(image: Tensor, covered: Tensor) -> Tensor:
        return torch.where(covered, fill[image], images[image])

    return paint


def painter(images: Tensor, fill: Cover, mean_image: Tensor | None = None) -> Paint:
    """Covered pixels show a fill.

    Raises:
        ValueError: a mean image of another shape, or with a fill that has no use for it.
    """
    if fill != "inpaint":
        return pasted(images, filling(images, fill, mean_image))
    return lambda image, covered: inpainted(images[image], covered)


def masked_values(
    model: Model,
    paint: Paint,
    covered: Callable[[Tensor, Tensor], Tensor],
    *,
    variants: int,
    targets: Tensor,
    device: torch.device,
    chunk: int,
    read: Reading = probability,
) -> Tensor:
    """What is read off the model for each variant of B images, (B, V) or (B, V, R) float64 on the CPU.

    Args:
        model: images to logits (B, N).
        paint: covers pixels of the images, on the device.
        covered: from image numbers (n,) and variant numbers (n,) to the covered pixels (n, H, W), all on the
            CPU.
        variants: V, the number of variants of each image.
        targets: (B,) class ids.
        device: of the images.
        chunk: at most so many variants exist at once.
        read: what of the answers.

    Raises:
        ValueError: a model or a target as in :func:`probabilities`.
    """
    pieces: list[Tensor] = []
    for numbers in torch.split(torch.arange(len(targets) * variants), chunk):
        image, variant = numbers // variants, numbers % variants
        mask = covered(image, variant).to(device)[:, None]
        task, logits = _answers(model, paint(image.to(device), mask))
        pieces.append(read(task, logits, _checked_targets(targets[image], len(image), task.classes)))
    found = torch.cat(pieces)
    return found.view(len(targets), variants, *found.shape[1:])


def gaussian_blur(images: Tensor, sigma: float, mode: Literal["constant", "replicate"]) -> Tensor:
    """Convolve (B, C, H, W) with a normalised Gaussian cut at ceil(4 sigma).

    Args:
        images: any floating type.
        sigma: standard deviation in pixels; 0 changes nothing.
        mode: outside of the image zeros ("constant", as in TorchRay's smoothing), or the border's pixels.
    """
    if sigma == 0:
        return images
    radius = math.ceil(4 * sigma)
    weights = torch.exp(-0.5 * (torch.arange(-radius, radius + 1).double() / sigma) ** 2)
    weights = weights / weights.sum()
    return _convolved(_convolved(images, weights, mode, axis=2), weights, mode, axis=3)


def _convolved(
    images: Tensor, weights: Tensor, mode: Literal["constant", "replicate"], axis: Literal[2, 3]
) -> Tensor:
    """Along one axis, by weights (2 r + 1,).

    Products with a matrix are faster than torch's convolutions of float64, and one as long and as wide as the
    axis would be mostly zeros for a large photo. So a strip of rows is a product of its neighbourhood and one
    small band of weights.
    """
    radius, length = len(weights) // 2, images.shape[axis]
    step = min(length, max(radius // 2, _STRIP))
    sources = torch.arange(step)[:, None] + torch.arange(len(weights))
    band = torch.zeros(step, step + 2 * radius, dtype=weights.dtype)
    band = band.scatter_(1, sources, weights.expand_as(sources)).to(images)
    padding = (0, 0, radius, radius) if axis == 2 else (radius, radius, 0, 0)
    padded = F.pad(images, padding, mode=mode)
    blurred = torch.empty_like(images)
    for start in range(0, length, step):
        rows = min(step, length - start)
        near = padded.narrow(axis, start, rows + 2 * radius)
        part = band[:rows, : rows + 2 * radius]
        blurred.narrow(axis, start, rows).copy_(part @ near if axis == 2 else near @ part.mT)
    return blurred


def _answers(model: Model, images: Tensor) -> tuple[Task, Tensor]:
    """The task, and logits (B, N) float64 on the CPU."""
    if isinstance(model, Logits):
        return model.task, model(images).to("cpu", torch.float64)
    if isinstance(model, Explainer):
        task, logits = model.task_and_logits(images)
        return task, logits.to("cpu", torch.float64)
    if isinstance(model, nn.Module) and any(
        part.training and isinstance(part, _MODES) for part in model.modules()
    ):
        reason = "the model is in training mode, where images change each other's results"
        raise ValueError(f"{reason}: call model.eval() first")
    with torch.no_grad():
        logits = model(images)
    if logits.ndim == 1 or (logits.ndim > 2 and logits.shape[2:].numel() == 1):
        logits = logits[:, None] if logits.ndim == 1 else logits.flatten(1)
    if logits.ndim != 2 or len(logits) != len(images):
        shape = tuple(logits.shape)
        raise ValueError(f"the model's output has the shape {shape}: metrics need logits ({len(images)}, N)")
    logits = logits.to("cpu", torch.float64)
    far = (logits.sum(dim=1) - 1).abs()
    if logits.shape[1] > 2 and len(logits) and bool((logits >= 0).all() and (far <= _ONE).all()):
        raise ValueError(
            "the model's output holds probabilities, at least 0 and with the sum 1 for each image: metrics "
            "need logits. Leave the model's final softmax out, or give an explainer of the model, which "
            "knows how it ends: clarp.Explainer(model)"
        )
    count = logits.shape[1]
    return Binary(ASSUMED) if count == 1 else Multiclass(ASSUMED, count), logits


def _checked_targets(targets: Tensor, count: int, classes: int) -> Tensor:
    """(count,) class ids on the CPU."""
    targets = targets.detach().cpu()
    if targets.shape != (count,) or targets.dtype.is_floating_point:
        given = f"{targets.dtype} {tuple(targets.shape)}"
        raise ValueError(f"targets are {count} class ids, one per image; given was {given}")
    if count and not 0 <= int(targets.min()) <= int(targets.max()) < classes:
        ends = f"from {targets.min()} to {targets.max()}"
        raise ValueError(f"targets go {ends}, but the model has {classes} classes")
    return targets.long()
