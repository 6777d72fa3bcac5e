"""What ``clarp explain`` writes of one photo: pictures, arrays, and the photo's part of the manifest."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from clarp.commands.manifest import caption, finite, named, of_two, spoken
from clarp.explanation import Explanation
from clarp.files import slug, write_atomically
from clarp.models import Classifier
from clarp.render import Look, Scale, Seen
from clarp.render.canvas import composed
from clarp.render.encoding import Format, encoded
from clarp.render.styles import laid

TOP = 5


@dataclass(frozen=True, eq=False)
class Opened:
    """A photo that waits to be explained.

    Attributes:
        path: its file.
        image: (C, H, W), preprocessed.
        notes: what was assumed to open it.
        sha256: of the file.
        seen: the whole photo, and what the model sees of it; None where nothing is drawn.
    """

    path: Path
    image: Tensor
    notes: tuple[str, ...]
    sha256: str
    seen: Seen | None


@dataclass(frozen=True, eq=False)
class Explained:
    """A photo with the explanation that it is in.

    Attributes:
        photo: what was explained.
        explanation: of its batch.
        row: its number there.
        probabilities: of all classes, (N,) float64.
        balance: the totals of the batch's ledger.
    """

    photo: Opened
    explanation: Explanation
    row: int
    probabilities: Tensor
    balance: Mapping[str, Sequence[Any]]

    @classmethod
    def of(cls, photos: Sequence[Opened], explanation: Explanation) -> "list[Explained]":
        """Each photo of a batch."""
        probabilities, balance = explanation.probabilities.double().cpu(), explanation.ledger.summary()
        return [cls(photo, explanation, row, probabilities[row], balance) for row, photo in enumerate(photos)]


@dataclass(frozen=True, eq=False)
class Writer:
    """Writes explained photos to a folder, in any number of threads.

    Attributes:
        classifier: whose decisions they are.
        against: the classes that targets were contrasted with, or none.
        look: of the pictures.
        format: of the pictures; None: there are none.
        out: an existing folder.
        stems: for each photo how its files' names begin.
    """

    classifier: Classifier
    against: Sequence[int]
    look: Look
    format: Format | None
    out: Path
    stems: Mapping[Path, str]

    def write(self, item: Explained) -> dict[str, Any]:
        """Write the files of one photo.

        Returns:
            Its record for the manifest.

        Raises:
            ValueError: it can't be drawn, or not in this format.
            OSError: a file can't be written.
        """
        photo, explanation = item.photo, item.explanation
        targets = explanation.target[item.row].view(-1).tolist()
        relevance = explanation.relevance[item.row].float().cpu().view(-1, *photo.image.shape).numpy()
        # On a scale of its own rounding would be in full colour.
        empty = explanation.empty[item.row].view(-1).numpy(force=True)
        heatmaps = relevance.astype(np.float64).sum(1) * ~empty[:, None, None]
        drawn = self._drawn(item, targets, heatmaps)
        top = item.probabilities.topk(min(TOP, len(item.probabilities))).indices.tolist()
        return {
            "file": str(photo.path),
            "sha256": photo.sha256,
            "predictions": [self._named(item, index) for index in top],
            "explanations": [
                self._write_map(item, k, target, relevance[k], drawn[k]) for k, target in enumerate(targets)
            ],
            **({"notes": list(photo.notes)} if photo.notes else {}),
        }

    def _write_map(
        self,
        item: Explained,
        k: int,
        target: int,
        relevance: NDArray[np.float32],
        drawn: Mapping[str, Any],
    ) -> dict[str, Any]:
        """The arrays and the record of target number ``k``, with its relevance (C, H, W) and what the record says of its picture."""
        explanation, row = item.explanation, item.row
        method = explanation.method
        rivals = [index for index in self.against if index != target]
        skipped = int(explanation.selection_skipped[row].view(-1)[k])
        name = self._name(item, target)
        self._write(f"{name}.npy", partial(np.save, arr=relevance))
        layers = self._write_layers(item, k, name)
        return {
            "target": self._named(item, target),
            "against": [self._named(item, index) for index in rivals]
            if rivals
            else explanation.question.unnamed_rivals(method.has_rivals),
            "selection_skipped": skipped,
            "empty": bool(explanation.empty[row].view(-1)[k]),
            "remark": explanation.remark(row, k),
            "ledger": {part: finite(_at(values, row, k)) for part, values in item.balance.items()},
            **drawn,
            "relevance": f"{name}.npy",
            **({"layers": layers} if layers else {}),
        }

    def _named(self, item: Explained, index: int) -> dict[str, Any]:
        return named(self.classifier, item.probabilities, index)

    def _name(self, item: Explained, *targets: int) -> str:
        """How the files of a photo's classes begin."""
        classes = "-vs-".join(f"{target}-{slug(self.classifier.labels[target])}" for target in targets)
        return f"{self.stems[item.photo.path]}.{classes}.{item.explanation.method.name}"

    def _drawn(
        self, item: Explained, targets: Sequence[int], heatmaps: NDArray[np.float64]
    ) -> list[dict[str, Any]]:
        """Draw the maps (K, H, W) of a photo, and return what each record says of its picture."""
        seen = item.photo.seen
        if seen is None:
            return [{}] * len(targets)
        if self.look.style == "versus":
            names = (spoken(self.classifier, targets[0]), spoken(self.classifier, targets[1]))
            words = of_two(names, self._caption(item, 0, targets[0]))
            placed, view = laid(heatmaps[0], seen, self.look, rival=heatmaps[1])
            both = composed(placed, view, words, self.look, names)
            return [self._picture(both, self._name(item, *targets), view.scale)] * len(targets)
        drawn = []
        for k, target in enumerate(targets):
            placed, view = laid(heatmaps[k], seen, self.look)
            one = composed(placed, view, self._caption(item, k, target), self.look)
            drawn.append(self._picture(one, self._name(item, target), view.scale))
        return drawn

    def _picture(self, drawn: Image.Image, name: str, scale: Scale) -> dict[str, Any]:
        """Write a picture, and return what the manifest says of it: its file, and what its colours stand for."""
        assert self.format is not None
        data = encoded(drawn, self.format)
        self._write(f"{name}.{self.format}", lambda file: file.write(data))
        return {
            "overlay": f"{name}.{self.format}",
            "scale": {
                "peak": scale.peak,
                "full_colour": scale.limit,
                "basis": scale.basis,
                "warning": scale.warning,
            },
        }

    def _caption(self, item: Explained, k: int, target: int) -> str:
        explanation = item.explanation
        skipped = int(explanation.selection_skipped[item.row].view(-1)[k])
        skips = [f"selection was skipped at {skipped} layers"] if skipped else []
        skips += filter(None, [explanation.remark(item.row, k)])
        return caption(
            self.classifier,
            explanation,
            target,
            float(item.probabilities[target]),
            [index for index in self.against if index != target],
            item.photo.path.name,
            *skips,
            colours=self.look.words,
        )

    def _write_layers(self, item: Explained, k: int, name: str) -> dict[str, str]:
        """Write the relevance at the layers that were asked for; returns the names of their files."""
        explanation = item.explanation
        files = {}
        for layer, values in explanation.layers.items():
            value = values[item.row][k] if explanation.target.ndim == 2 else values[item.row]
            files[layer] = f"{name}.{layer}.npy"
            self._write(files[layer], partial(np.save, arr=value.float().cpu().numpy()))
        return files

    def _write(self, name: str, write: Callable[[BinaryIO], object]) -> None:
        try:
            write_atomically(self.out / name, write)
        except OSError as error:
            reason = error.strerror or str(error)
            raise OSError(
                f"{self.out / name} can't be written ({reason}); make room, or name another folder with --out."
            ) from error


def _at(values: Any, row: int, k: int) -> float:
    """One number of a ledger's totals, which are (B,) or (B, K)."""
    value = values[row]
    return float(value[k] if isinstance(value, list) else value)
