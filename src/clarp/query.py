"""What one call of an explainer asks, checked once, and its parts."""

from dataclasses import dataclass, replace

from torch import Tensor

from clarp.bounds import Bounds, limits
from clarp.capture import HookPoint
from clarp.capture.further import Further
from clarp.channels import Channels
from clarp.method import Method
from clarp.seeds import Seed
from clarp.targets import Against, Target, integers, resolve_target
from clarp.task import Task


@dataclass(frozen=True, eq=False)
class Query:
    """Images, and what is asked of them.

    Attributes:
        images: (B, C, H, W), or with other axes; as they are computed with.
        further: the model's inputs beside the images.
        target: (B,) or (B, K); None: the most probable class of each image.
        against: the rivals, as they were given.
        layers: where relevance is kept, by the names that were asked for.
        bounds: the lowest and the highest pixels, each (B or 1, C, H, W).
        seed: the initial relevance.
        logits: N, how many the model has.
        first: the number of the first image, where this is a part of a larger batch.
    """

    images: Tensor
    further: Further
    target: Tensor | None
    against: Against
    layers: dict[str, HookPoint]
    bounds: tuple[Tensor, Tensor]
    seed: Seed
    logits: int
    first: int = 0

    @classmethod
    def checked(
        cls,
        images: Tensor,
        further: Further,
        target: Target,
        against: Against,
        *,
        layers: dict[str, HookPoint],
        bounds: Bounds | None,
        method: Method,
        task: Task,
        channels: Channels,
        logits: int,
    ) -> "Query":
        """As the user asked it of a method; ``logits`` is how many the model has.

        Raises:
            TypeError: target or against are no whole numbers.
            ValueError: one has another shape or is out of range, the method has no rivals, or images are far
                outside the bounds.
        """
        shape_of_logits = images.new_zeros(len(images), logits)
        classes = None if target is None else resolve_target(target, task.scores(shape_of_logits))
        if against is not None and not method.has_rivals:
            raise ValueError(
                f"against is {against!r}, and the method {method.name!r} has no rivals: it would explain "
                "the same. Leave against out, or use a method with rivals, for example 'sglrp' or 'ssglrp'."
            )
        limited = limits(bounds, method.rules.first, images, channels.axis)
        return cls(images, further, classes, against, layers, limited, method.seed, logits)

    @property
    def targets(self) -> int:
        """K, how many classes of each image are explained."""
        return 1 if self.target is None or self.target.ndim == 1 else self.target.shape[1]

    def part(self, images: range, targets: range) -> "Query":
        """Some of the images, with some of the targets of each."""
        rows = slice(images.start, images.stop)
        target = None if self.target is None else self.target[rows]
        if target is not None and target.ndim == 2:
            target = target[:, targets.start : targets.stop]
        rivals = None if self.against is None else integers("against", self.against)
        low, high = (bound if len(bound) == 1 else bound[rows] for bound in self.bounds)
        return replace(
            self,
            images=self.images[rows],
            further=self.further.part(rows),
            target=target,
            against=self.against if rivals is None or rivals.ndim < 2 else rivals[rows],
            bounds=(low, high),
            seed=self.seed.part(images, targets, (len(self.images), self.targets)),
            first=self.first + images.start,
        )
