"""What explanations of images of one size are computed with."""

from dataclasses import dataclass

from clarp.bounds import Bounds
from clarp.channels import Channels
from clarp.method import Method
from clarp.propagation import Program
from clarp.task import Task


@dataclass(frozen=True)
class ExplainerParts:
    """What explanations of images of one size are computed with.

    Attributes:
        program: the captured network, each operation with its rule.
        method: with the composite that it has in this network.
        task: what the logits mean.
        bounds: of the pixels, or None for each image's own.
        channels: the axis of the images that holds the channels.
    """

    program: Program
    method: Method
    task: Task
    bounds: Bounds | None
    channels: Channels
