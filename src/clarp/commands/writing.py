"""What ``clarp explain`` writes of one photo: pictures, arrays, and the photo's part of the manifest."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from clarp.files import shortened, slug, write_atomically
from clarp.manifest import class_entry, scale_entry, top
from clarp.maps import PhotoMaps
from clarp.render import Look, Seen
from clarp.render.canvas import composed
from clarp.render.encoding import Format, encoded
from clarp.render.styles import laid
from clarp.session import Session
from clarp.text import printable


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
class ExplainedPhoto:
    """A photo with its maps, and with the probabilities of all classes, (N,) float64."""

    photo: Opened
    maps: PhotoMaps
    probabilities: Tensor


@dataclass(frozen=True, eq=False)
class Writer:
    """Writes explained photos to a folder, in any number of threads.

    Attributes:
        session: with the model.
        look: of the pictures.
        format: of the pictures; None: there are none.
        out: an existing folder.
        stems: for each photo how its files' names begin.
    """

    session: Session
    look: Look
    format: Format | None
    out: Path
    stems: Mapping[Path, str]

    def write(self, item: ExplainedPhoto) -> dict[str, Any]:
        """Write the files of one photo.

        Returns:
            Its part of the manifest.

        Raises:
            ValueError: it can't be drawn, or not in this format.
            OSError: a file can't be written.
        """
        maps = item.maps
        assert maps.relevance is not None
        relevance = maps.relevance.float().cpu().numpy()
        # On a scale of its own rounding would be in full colour.
        heatmaps = relevance.astype(np.float64).sum(1) * ~np.array(maps.empty)[:, None, None]
        drawn = self._drawn(item, heatmaps)
        return {
            "file": str(item.photo.path),
            "sha256": item.photo.sha256,
            "predictions": self._classes(item, top(item.probabilities)),
            "explanations": [
                self._write_map(item, k, relevance[k], drawn[k]) for k in range(len(maps.targets))
            ],
            **({"notes": list(item.photo.notes)} if item.photo.notes else {}),
        }

    def _write_map(
        self, item: ExplainedPhoto, k: int, relevance: NDArray[np.float32], drawn: Mapping[str, Any]
    ) -> dict[str, Any]:
        """The arrays and the entry of target ``k``; ``drawn`` is what the entry says of its picture."""
        maps = item.maps
        name = self._name(item, maps.targets[k])
        self._write(f"{name}.npy", partial(np.save, arr=relevance))
        layers = {layer: f"{name}.{layer}.npy" for layer in maps.layers}
        for layer, file in layers.items():
            self._write(file, partial(np.save, arr=maps.layers[layer][k].float().cpu().numpy()))
        return {
            "target": self._classes(item, [maps.targets[k]])[0],
            "against": self._classes(item, maps.rivals(k)) or maps.otherwise,
            "selection_skipped": maps.skipped[k],
            "empty": maps.empty[k],
            "remark": maps.remark(k),
            "ledger": maps.ledgers[k],
            **drawn,
            "relevance": f"{name}.npy",
            **({"layers": layers} if layers else {}),
        }

    def _classes(self, item: ExplainedPhoto, indices: Sequence[int]) -> list[dict[str, Any]]:
        return [class_entry(self.session.classifier, item.probabilities, index) for index in indices]

    def _name(self, item: ExplainedPhoto, *targets: int) -> str:
        """How the files of a photo's classes begin."""
        labels = self.session.classifier.labels
        classes = "-vs-".join(f"{target}-{slug(labels[target])}" for target in targets)
        return f"{self.stems[item.photo.path]}.{classes}.{item.maps.method}"

    def _drawn(self, item: ExplainedPhoto, heatmaps: NDArray[np.float64]) -> list[dict[str, Any]]:
        """Draw the maps (K, H, W) of a photo, and return what each entry says of its picture."""
        targets = item.maps.targets
        if item.photo.seen is None:
            return [{}] * len(targets)
        if self.look.style == "versus":
            return [self._picture(item, 0, heatmaps, self._name(item, *targets))] * len(targets)
        return [
            self._picture(item, k, heatmaps[k : k + 1], self._name(item, target))
            for k, target in enumerate(targets)
        ]

    def _picture(
        self, item: ExplainedPhoto, k: int, heatmaps: NDArray[np.float64], name: str
    ) -> dict[str, Any]:
        """Write the picture of map ``k``, or of two, and return its file and what its colours stand for."""
        assert self.format is not None
        skipped, remark = item.maps.skipped[k], item.maps.remark(k)
        more = [item.photo.path.name]
        more += [f"selection was skipped at {skipped} layers"] if skipped else []
        more += [remark] if remark else []
        caption, names = self.session.words(item.maps, k, item.probabilities, self.look, *more)
        rival = None if names is None else heatmaps[1]
        placed, view = laid(heatmaps[0], item.photo.seen, self.look, rival=rival)
        data = encoded(composed(placed, view, caption, self.look, names), self.format)
        self._write(f"{name}.{self.format}", lambda file: file.write(data))
        return {"overlay": f"{name}.{self.format}", "scale": scale_entry(view.scale)}

    def _write(self, name: str, write: Callable[[BinaryIO], object]) -> None:
        try:
            write_atomically(self.out / name, write)
        except OSError as error:
            reason = error.strerror or str(error)
            raise OSError(
                f"{self.out / name} can't be written ({reason}); make room, or name another folder with "
                "--out."
            ) from error


def output_stems(paths: Iterable[Path]) -> dict[Path, str]:
    """A file name for each photo, without suffix: its own, and a number where that is taken.

    Names that differ only in case count as the same, because they are on some file systems.

    >>> list(output_stems([Path("a/cat.jpg"), Path("b/Cat.png"), Path("dog.jpg")]).values())
    ['cat', 'Cat-2', 'dog']
    """
    stems: dict[Path, str] = {}
    taken: set[str] = set()
    for path in paths:
        own = _plain(path.stem)
        stem, number = own, 2
        while stem.casefold() in taken:
            stem, number = f"{own}-{number}", number + 1
        taken.add(stem.casefold())
        stems[path] = stem
    return stems


def _plain(stem: str) -> str:
    r"""A name that every file system takes and no terminal obeys, with room for what is put behind it.

    >>> _plain("a\nb$'"), _plain("\udcff")
    ("a_b$'", '_')
    """
    kept = "".join(letter if printable(letter) == letter else "_" for letter in stem)
    return shortened(kept[:80], 80)
