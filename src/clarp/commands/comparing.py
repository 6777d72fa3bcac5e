"""Whether a map that was made again is the one that was written."""

import hashlib
import math
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from clarp.commands.recorded import RecordedMap, RecordedPhoto
from clarp.files import read_regular
from clarp.manifest import percent

ROUNDING = 1e-3
"""Up to this difference, relative to the peak of a map, it is the same but for rounding."""
PROBABILITY = 1e-3
"""Up to this difference, a probability is the same."""
Verdict = Literal["same", "rounding", "different", "unchecked"]
ORDER: tuple[Verdict, ...] = ("same", "rounding", "different", "unchecked")
"""From the best to the worst; a photo has the worst verdict of its maps."""
_MOST_BYTES = 4 << 30


@dataclass
class VerifiedPhoto:
    """What is found of a photo.

    Attributes:
        file: its path in the manifest.
        verdict: of all its maps.
        difference: the largest one of a value of its maps, relative to the map's peak; None: nothing was
            compared.
        reasons: why it is not the same, a sentence each.
        maps: file, class and difference of each map.
    """

    file: str
    verdict: Verdict = "same"
    difference: float | None = None
    reasons: list[str] = field(default_factory=list)
    maps: list[dict[str, Any]] = field(default_factory=list)

    def worse(self, verdict: Verdict, reason: str | None = None) -> None:
        """Lower the verdict to this one, unless it is lower already."""
        self.verdict = max(self.verdict, verdict, key=ORDER.index)
        if reason is not None:
            self.reasons.append(reason)


def compared(
    folder: Path,
    recorded: RecordedPhoto,
    entry: dict[str, Any],
    arrays: dict[str, bytes],
    *,
    labels: bool,
) -> VerifiedPhoto:
    """Compare what was written of a photo with what was made again.

    Args:
        folder: with the files that were written.
        recorded: the old entry.
        entry: the new one, as :meth:`Writer.write` returns it.
        arrays: the new files' bytes, by the names in the new entry.
        labels: whether the names of classes are to be compared.
    """
    found = VerifiedPhoto(str(recorded.file))
    if recorded.input_sha256 is not None and recorded.input_sha256 != entry["input_sha256"]:
        found.reasons.append("the preprocessing makes another image of the photo")
    for said in _predicted(recorded, entry, labels=labels):
        found.worse("different", said)
    new = entry["explanations"]
    if [one.target for one in recorded.maps] != [one["target"]["class"] for one in new]:
        now = ", ".join(f"{one['target']['label']} ({one['target']['class']})" for one in new)
        was = ", ".join(f"{one.label} ({one.target})" for one in recorded.maps)
        found.worse("different", f"the explained class is now {now}, and was {was}")
        return found
    for old, again in zip(recorded.maps, new, strict=True):
        _compare_map(folder, old, again, arrays, found)
    for name, digest in recorded.versus.items():
        _check_picture(folder / name, digest, found)
    return found


def _compare_map(
    folder: Path, old: RecordedMap, again: dict[str, Any], arrays: dict[str, bytes], found: VerifiedPhoto
) -> None:
    names = (again["relevance"], *again.get("layers", {}).values())
    if len(names) != len(old.files):
        found.worse("different", "the relevance of other modules was written")
        return
    sums = old.sha256 or {}
    for file, name in zip(old.files, names, strict=True):
        found.maps.append({"file": file, "class": old.target, "difference": None})
        try:
            data = read_regular(folder / file, _MOST_BYTES)
        except OSError as error:
            found.worse("unchecked", f"{file} can't be read ({error.strerror or error})")
            continue
        if file in sums and hashlib.sha256(data).hexdigest() != sums[file]:
            found.worse("different", f"{file} is not the file that was written: its SHA-256 is another one")
        difference = _difference(data, arrays[name])
        found.maps[-1]["difference"] = None if math.isinf(difference) else difference
        if difference == math.inf:
            found.worse("different", f"{file} is no array like the one that was made again")
            continue
        found.difference = max(difference, found.difference or 0.0)
        if difference > ROUNDING:
            found.worse("different")
        elif data != arrays[name]:
            found.worse("rounding")
    for name in sums.keys() - set(old.files):
        _check_picture(folder / name, sums[name], found)


def _check_picture(path: Path, digest: str, found: VerifiedPhoto) -> None:
    """Check that a picture has the bytes that were written; it is not drawn again."""
    try:
        data = read_regular(path, _MOST_BYTES)
    except OSError as error:
        found.worse("unchecked", f"{path.name} can't be read ({error.strerror or error})")
        return
    if hashlib.sha256(data).hexdigest() != digest:
        found.worse("different", f"{path.name} is not the file that was written: its SHA-256 is another one")


def _predicted(recorded: RecordedPhoto, entry: dict[str, Any], *, labels: bool) -> list[str]:
    """What is otherwise in the probabilities, a sentence each."""
    now = {one["class"]: one for one in entry["predictions"]}
    least = min((one["probability"] or 0 for one in entry["predictions"]), default=0)
    now |= {one["target"]["class"]: one["target"] for one in entry["explanations"]}
    said = (*recorded.predictions, *((one.target, one.label, one.probability) for one in recorded.maps))
    found = []
    for index, label, probability in dict.fromkeys(said):
        if index not in now:
            if (probability or 0) > least + PROBABILITY:
                found.append(f"class {index} had {percent(probability)}, and is not among the first now")
            continue
        other = now[index]
        if labels and label is not None and label != other["label"]:
            found.append(f"class {index} is now called {other['label']}, and was called {label}")
        if abs((probability or 0) - (other["probability"] or 0)) > PROBABILITY:
            found.append(
                f"class {index} has now {percent(other['probability'])}, and had {percent(probability)}"
            )
    return found


def _difference(old: bytes, new: bytes) -> float:
    """The largest difference of two arrays, relative to the larger peak; infinity if they are not alike.

    Args:
        old: the bytes of an .npy file.
        new: likewise.
    """
    before, after = array_of(old), array_of(new)
    if before is None or after is None or before.shape != after.shape:
        return math.inf
    if old == new:
        return 0.0
    before, after = before.astype(np.float64), after.astype(np.float64)
    peak = max(np.abs(before).max(initial=0), np.abs(after).max(initial=0))
    largest = float(np.abs(before - after).max(initial=0))
    return 0.0 if largest == 0 else largest / peak if math.isfinite(largest) else math.inf


def array_of(data: bytes) -> NDArray[np.float32] | None:
    """The float32 array in the bytes of an .npy file; None where they hold none.

    NumPy's own reader would allocate whatever size the file announces.
    """
    file = BytesIO(data)
    try:
        version = np.lib.format.read_magic(file)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, fortran, kind = read[version](file)
    except (ValueError, KeyError):
        return None
    body = memoryview(data)[file.tell() :]
    if fortran or kind != np.dtype("<f4") or math.prod(shape) * 4 != len(body):
        return None
    return np.frombuffer(body, "<f4").reshape(shape)
