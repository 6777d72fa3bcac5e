"""Whether a map that was made again is the one that was written."""

import hashlib
import math
from dataclasses import asdict, dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from clarp.commands.recorded import RecordedMap, RecordedPhoto
from clarp.files import read_regular
from clarp.manifest import percent


@dataclass(frozen=True)
class Differences:
    """How far two maps lie apart.

    Attributes:
        largest: the largest difference of a value, relative to the larger peak.
        total: the sum of all differences, relative to the larger sum of absolute values.
    """

    largest: float
    total: float

    def within(self, other: "Differences") -> bool:
        """Whether neither is more than that of another."""
        return self.largest <= other.largest and self.total <= other.total


SAME = Differences(0.0, 0.0)
UNLIKE = Differences(math.inf, math.inf)
ROUNDING = Differences(1e-3, 1e-3)
"""Up to this a map is the same but for rounding."""
ROUNDING_SELECTED = Differences(5e-2, 1e-2)
"""Likewise, with selection: it asks for signs of gradients, and rounding changes those that are nearly zero.

One thread against two gave up to 1.7e-2 and 3.2e-3 for ssglrp on 40 photos, and below 1e-4 on 32 of these.
"""
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
        difference: of its maps, the worst of each kind; None: nothing was compared.
        reasons: why it is not the same, a sentence each.
        maps: file, class and difference of each map.
    """

    file: str
    verdict: Verdict = "same"
    difference: Differences | None = None
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
    rounding: Differences,
) -> VerifiedPhoto:
    """Compare what was written of a photo with what was made again.

    Args:
        folder: with the files that were written.
        recorded: the old entry.
        entry: the new one, as :meth:`Writer.write` returns it.
        arrays: the new files' bytes, by the names in the new entry.
        labels: whether the names of classes are to be compared.
        rounding: up to which differences a map is the same.
    """
    found = VerifiedPhoto(str(recorded.file))
    if recorded.input_sha256 is not None and recorded.input_sha256 != entry["input_sha256"]:
        found.reasons.append("the preprocessing makes another image of the photo")
        rounding = SAME  # what differs then has a cause that is known
    for said in _predicted(recorded, entry, labels=labels):
        found.worse("different", said)
    new = entry["explanations"]
    if [one.target for one in recorded.maps] != [one["target"]["class"] for one in new]:
        now = ", ".join(f"{one['target']['label']} ({one['target']['class']})" for one in new)
        was = ", ".join(f"{one.label} ({one.target})" for one in recorded.maps)
        found.worse("different", f"the explained class is now {now}, and was {was}")
        return found
    for old, again in zip(recorded.maps, new, strict=True):
        _compare_map(folder, old, again, arrays, found, rounding=rounding)
    for name, digest in recorded.versus.items():
        _check_picture(folder / name, digest, found)
    return found


def _compare_map(
    folder: Path,
    old: RecordedMap,
    again: dict[str, Any],
    arrays: dict[str, bytes],
    found: VerifiedPhoto,
    *,
    rounding: Differences,
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
        difference = differences(data, arrays[name])
        if difference == UNLIKE:
            found.worse("different", f"{file} is no array like the one that was made again")
            continue
        found.maps[-1]["difference"] = asdict(difference)
        worst = found.difference or SAME
        found.difference = Differences(
            max(difference.largest, worst.largest), max(difference.total, worst.total)
        )
        if not difference.within(rounding):
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


def differences(old: bytes, new: bytes) -> Differences:
    """How far two arrays lie apart; UNLIKE where shapes differ or values are not finite.

    Args:
        old: the bytes of an .npy file.
        new: likewise.
    """
    before, after = array_of(old), array_of(new)
    if before is None or after is None or before.shape != after.shape:
        return UNLIKE
    if old == new:
        return SAME
    first, second = before.astype(np.float64), after.astype(np.float64)
    apart = np.abs(first - second)
    if not apart.any():
        return SAME
    if not np.isfinite(apart).all():
        return UNLIKE
    sizes = np.abs(first), np.abs(second)
    peak, total = (max(float(read(size)) for size in sizes) for read in (np.max, np.sum))
    return Differences(float(apart.max()) / peak, float(apart.sum()) / total)


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
