"""Maps for the loggers of training runs, on one scale, so that steps can be compared."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clarp.explanation import Explanation
from clarp.optional import optional
from clarp.render import Scale
from clarp.render.explained import Drawable


def full_colour(*explanations: Explanation) -> float:
    """The relevance that is drawn in full colour where these explanations share a scale.

    Choose it once, for example on the first epoch's maps, and pass it as ``limit`` from then on.

    Raises:
        ValueError: no explanation.
    """
    maps = (Drawable.of(e).maps for e in explanations)
    return Scale.of(*(one.reshape(one.shape[0], -1) for own in maps for one in own)).limit


def pictures(explanation: Explanation, limit: float) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Each map over its image: its class with its probability, and (h, w, 3) bytes.

    Args:
        explanation: what is drawn.
        limit: the relevance at and beyond which the colour is full.

    Raises:
        ValueError: the limit is not above zero.
    """
    if not limit > 0:
        raise ValueError(f"limit is {limit!r}, expected relevance above zero, as full_colour() gives it.")
    drawn, probabilities = Drawable.of(explanation), explanation.probabilities
    for image, own in enumerate(drawn.pictures(Scale(limit, "given", ""))):
        for picture, target in zip(own, drawn.classes[image], strict=True):
            share = float(probabilities[image, target])
            yield f"image {image}, {explanation.label(target)} ({share:.1%})", np.asarray(picture)


def to_tensorboard(writer: Any, tag: str, explanation: Explanation, step: int, *, limit: float) -> None:
    """Log the maps as images ``tag/0``, ``tag/1``, ... of TensorBoard.

    Args:
        writer: a ``torch.utils.tensorboard.SummaryWriter``.
        tag: what the images are called.
        explanation: of the same photos each time.
        step: for example the epoch.
        limit: see :func:`pictures`.
    """
    for number, (_, picture) in enumerate(pictures(explanation, limit)):
        writer.add_image(f"{tag}/{number}", picture, step, dataformats="HWC")


def to_wandb(run: Any, tag: str, explanation: Explanation, step: int | None = None, *, limit: float) -> None:
    """Log the maps as a row of images of Weights & Biases, with their classes.

    Args:
        run: what ``wandb.init`` returned.
        tag: what the row is called.
        explanation: of the same photos each time.
        step: of the run; None: its current one.
        limit: see :func:`pictures`.
    """
    image = optional("wandb", "Logging to Weights & Biases", None).Image
    row = [image(picture, caption=caption) for caption, picture in pictures(explanation, limit)]
    run.log({tag: row}, step=step)


def to_mlflow(
    client: Any, run_id: str, tag: str, explanation: Explanation, step: int, *, limit: float
) -> None:
    """Log the maps as images ``tag/0``, ``tag/1``, ... of an MLflow run.

    Args:
        client: a ``mlflow.MlflowClient``.
        run_id: of the run.
        tag: what the images are called.
        explanation: of the same photos each time.
        step: for example the epoch.
        limit: see :func:`pictures`.
    """
    for number, (_, picture) in enumerate(pictures(explanation, limit)):
        client.log_image(run_id, picture, key=f"{tag}/{number}", step=step)
