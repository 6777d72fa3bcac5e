"""What ``clarp explain`` writes of one photo: pictures, arrays, and the photo's part of the manifest."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from clarp.files import shortened, slug, write_atomically
from clarp.manifest import class_entry, scale_entry, tensor_sha256, top
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
    """A photo with its maps.

    Attributes:
        photo: as it was opened.
        maps: of its targets.
        probabilities: of all classes, (N,) float64.
        expected: the class that was expected, where one was named.
    """

    photo: Opened
    maps: PhotoMaps
    probabilities: Tensor
    expected: int | None = None


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
            "input_sha256": tensor_sha256(item.photo.image),
            "predictions": self._classes(item, top(item.probabilities)),
            "explanations": [
                self._write_map(item, k, relevance[k], drawn[k]) for k in range(len(maps.targets))
            ],
            **self._expectation(item, heatmaps),
            **({"notes": list(item.photo.notes)} if item.photo.notes else {}),
        }

    def _write_map(
        self, item: ExplainedPhoto, k: int, relevance: NDArray[np.float32], drawn: Mapping[str, Any]
    ) -> dict[str, Any]:
        """The arrays and the entry of target ``k``; ``drawn`` is what the entry says of its picture."""
        maps = item.maps
        name = self._name(item, maps.targets[k])
        layers = {layer: f"{name}.{layer}.npy" for layer in maps.layers}
        sums = {f"{name}.npy": self._stored(f"{name}.npy", _npy(relevance))}
        for layer, file in layers.items():
            sums[file] = self._stored(file, _npy(maps.layers[layer][k].float().cpu().numpy()))
        picture = {key: value for key, value in drawn.items() if key != "sha256"}
        return {
            "target": self._classes(item, [maps.targets[k]])[0],
            "against": self._classes(item, maps.rivals(k)) or maps.otherwise,
            "selection_skipped": maps.skipped[k],
            "empty": maps.empty[k],
            "remark": maps.remark(k),
            "ledger": maps.ledgers[k],
            **picture,
            "relevance": f"{name}.npy",
            **({"layers": layers} if layers else {}),
            "sha256": {**sums, **({drawn["overlay"]: drawn["sha256"]} if drawn else {})},
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
            return [self._picture(item, 0, heatmaps, self._name(item, *targets), self.look)] * len(targets)
        return [
            self._picture(item, k, heatmaps[k : k + 1], self._name(item, target), self.look)
            for k, target in enumerate(targets)
        ]

    def _expectation(self, item: ExplainedPhoto, heatmaps: NDArray[np.float64]) -> dict[str, Any]:
        """What the entry says of the expected class: the class, and the picture of both where it lost."""
        if item.expected is None:
            return {}
        found: dict[str, Any] = {"expected": self._classes(item, [item.expected])[0]}
        if len(item.maps.targets) == 2 and item.photo.seen is not None:
            look, name = replace(self.look, style="versus"), self._name(item, *item.maps.targets)
            found["versus"] = self._picture(item, 0, heatmaps, name, look)
        return found

    def _picture(
        self, item: ExplainedPhoto, k: int, heatmaps: NDArray[np.float64], name: str, look: Look
    ) -> dict[str, Any]:
        """Write the picture of map ``k``, or of two: its file, its checksum, and what its colours mean."""
        assert self.format is not None
        skipped, remark = item.maps.skipped[k], item.maps.remark(k)
        more = [item.photo.path.name]
        more += [f"selection was skipped at {skipped} layers"] if skipped else []
        more += [remark] if remark else []
        caption, names = self.session.words(item.maps, k, item.probabilities, look, *more)
        rival = None if names is None else heatmaps[1]
        placed, view = laid(heatmaps[0], item.photo.seen, look, rival=rival)
        data = encoded(composed(placed, view, caption, look, names), self.format)
        file = f"{name}.{self.format}"
        return {"overlay": file, "scale": scale_entry(view.scale), "sha256": self._stored(file, data)}

    def _stored(self, name: str, data: bytes) -> str:
        """Store a file, and return its SHA-256."""
        self.store(name, data)
        return hashlib.sha256(data).hexdigest()

    def store(self, name: str, data: bytes) -> None:
        """Write a file of these bytes to the folder.

        Raises:
            OSError: it can't be written.
        """
        try:
            write_atomically(self.out / name, lambda file: file.write(data))
        except OSError as error:
            reason = error.strerror or str(error)
            raise OSError(
                f"{self.out / name} can't be written ({reason}); make room, or name another folder with "
                "--out."
            ) from error


def _npy(values: NDArray[np.float32]) -> bytes:
    """An array as the bytes of an .npy file."""
    file = BytesIO()
    np.save(file, values)
    return file.getvalue()


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
