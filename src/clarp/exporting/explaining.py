"""Explanations of photos by a file of :func:`clarp.export`."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from clarp.exporting.about import FileDescription
from clarp.exporting.file import ExplainedFile
from clarp.task import Task, task_named


@dataclass(frozen=True, eq=False)
class FileExplanation:
    """What a file says of images.

    Attributes:
        about: the file's description of itself.
        logits: (B, N).
        target: (B, K).
        heatmap: (B, K, H, W); NaN where there is no explanation.
        lost: the share of the relevance that never reached the pixels, (B, K).
        question: the task.
    """

    about: FileDescription
    logits: Tensor
    target: Tensor
    heatmap: Tensor
    lost: Tensor
    question: Task

    @property
    def notes(self) -> tuple[str, ...]:
        """Nothing beside what the classifier's notes say."""
        return ()

    @property
    def probabilities(self) -> Tensor:
        """(B, classes), as the task has them."""
        return self.question.probabilities(self.logits)


class FileExplainer:
    """Explains images by the program in a file, as :class:`clarp.Explainer` does by a model.

    Args:
        file: of :func:`clarp.export`.
    """

    def __init__(self, file: ExplainedFile) -> None:
        self.file = file
        self.task = task_named(file.about.task, "given: it is the file's", file.about.classes)

    def __call__(
        self, images: Tensor, target: Sequence[Sequence[int]] | None, against: Sequence[int] | None
    ) -> FileExplanation:
        """Explain images (B, C, H, W).

        Args:
            images: float32, of the file's own size.
            target: K classes of each image; None: the most probable one.
            against: the rivals; None: those of the task.

        Raises:
            ValueError: images of another size, rivals that the file does not take, or an image that can't be
                explained.
        """
        about = self.file.about
        if tuple(images.shape[1:]) != about.input_shape:
            raise ValueError(
                f"images has the shape {tuple(images.shape)}, and {self.file.path} explains images (B, "
                f"{', '.join(map(str, about.input_shape))}). Export the model for that size."
            )
        if against is not None and not about.against:
            raise ValueError(
                f"against is {list(against)}, and {self.file.path} was exported without rivals as an input. "
                "Export it with --against."
            )
        if target is None:
            chosen = self.task.scores(self.file.logits(images)).argmax(1, keepdim=True)
        else:
            chosen = torch.tensor(target, dtype=torch.int64)
        logits, heatmap, lost = self._run(images, chosen, against)
        if not bool(heatmap.isfinite().all()):
            raise ValueError(
                "it can't be explained: a value of the image is not finite, or the class' logit is infinite."
            )
        return FileExplanation(about, logits, chosen, heatmap, lost, self.task)

    def _run(
        self, images: Tensor, target: Tensor, against: Sequence[int] | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The file's results for targets (B, K), in as many runs as it takes."""
        about = self.file.about
        rivals = None
        if about.against:
            rivals = torch.zeros(len(images), about.classes, dtype=torch.bool)
            rivals[:, list(against or ())] = True
        width = about.targets or 1
        parts = []
        for columns in target.split(width, 1):
            # A file for several classes gets the last one again where there are fewer.
            filled = torch.cat([columns, columns[:, -1:].expand(-1, width - columns.shape[1])], 1)
            found = self.file(images, filled if about.targets else filled[:, 0], rivals)
            logits, heatmap, lost = found
            if not about.targets:
                heatmap, lost = heatmap[:, None], lost[:, None]
            parts.append((logits, heatmap[:, : columns.shape[1]], lost[:, : columns.shape[1]]))
        return (
            parts[0][0],
            torch.cat([part[1] for part in parts], 1),
            torch.cat([part[2] for part in parts], 1),
        )
