"""Pictures in DICOM files, in the greys that their window makes. Nothing about the patient is read."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clarp.greys import grey_photo, noted
from clarp.optional import optional

SUFFIXES = frozenset({".dcm", ".dicom"})
_HEAD = 132
_GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
_SHOWN_BY = ("PixelValueTransformationSequence", "FrameVOILUTSequence")


def has_mark(head: bytes) -> bool:
    """Whether a file's first bytes are those of DICOM."""
    return head[128:_HEAD] == b"DICM"


def is_dicom(source: Path | BytesIO, name: str | None = None) -> bool:
    """Whether an existing file is DICOM, by its mark or its suffix; ``name`` is that of bytes."""
    if isinstance(source, BytesIO):
        return Path(name or "").suffix.lower() in SUFFIXES or has_mark(source.getbuffer()[:_HEAD].tobytes())
    if source.suffix.lower() in SUFFIXES:
        return True
    with source.open("rb") as file:
        return has_mark(file.read(_HEAD))


def dicom_size(path: Path | BytesIO, name: str) -> tuple[int, int]:
    """(height, width) of the picture in a file, without its pixels; messages call it ``name``.

    Raises:
        ModuleNotFoundError: pydicom is not installed.
        ValueError: the file is damaged, or has no picture.
    """
    with _in_own_words(name):
        dataset = _read(path, pixels=False)
        return int(dataset.Rows), int(dataset.Columns)


def open_dicom(path: Path | BytesIO, name: str) -> Image.Image:
    """Open the picture in a file as RGB, as people see it; of greys its notes and full depth are kept.

    Only `clarp._decoder` calls it, in a process with bounds: tables, frames and compressed pixels may ask for
    anything.

    Greys: rescale slope and intercept (or the modality table), then the first window or table of the file,
    else from the smallest to the greatest value without padding; MONOCHROME1 is inverted. Of several frames
    the first counts.

    Args:
        path: the file, or its bytes.
        name: how messages call it.

    Raises:
        ModuleNotFoundError: pydicom is not installed.
        MemoryError: there is not enough.
        ValueError: the file is damaged, has no picture, or one that can't be decoded with what is installed.
    """
    with _in_own_words(name):
        dataset = _read(path, pixels=True)
        if dataset.Rows * dataset.Columns > 2 * (Image.MAX_IMAGE_PIXELS or np.inf):
            raise _UnreadableError(f"too many pixels, {dataset.Columns} x {dataset.Rows}.")
        return _photo(dataset, _decoded(dataset))


class _UnreadableError(Exception):
    """Why a file is not opened, in words of ours."""


@contextmanager
def _in_own_words(name: str) -> Iterator[None]:
    """Whatever pydicom raises becomes a ValueError without its words, which may quote the patient's data.

    Warnings of odd metadata are left out, which are no reason to leave a picture out.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (MemoryError, ModuleNotFoundError):
        raise
    except _UnreadableError as error:
        raise ValueError(f"{name}: {error}") from error
    except Exception as error:
        reason = f"the DICOM file can't be read, it is damaged or not DICOM ({type(error).__name__})."
        raise ValueError(f"{name}: {reason}") from error


def _read(path: Path | BytesIO, *, pixels: bool) -> Any:
    pydicom = optional("pydicom", "A DICOM file", "dicom")
    # Files without the mark are as old as the suffix.
    dataset = pydicom.dcmread(path, force=True, stop_before_pixels=not pixels)
    usable = int(dataset.get("Rows") or 0) > 0 and int(dataset.get("Columns") or 0) > 0
    named = dataset.get("SOPClassUID")
    _with_syntax(dataset)
    kinds = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
    if not usable or (pixels and not any(kind in dataset for kind in kinds)):
        kind = f" (it is a {named.name})" if named and named.name != named else ""
        raise _UnreadableError(f"no picture in this DICOM file{kind}.")
    return dataset


def _with_syntax(dataset: Any) -> None:
    """Old files don't say how they are encoded; pydicom has found out."""
    meta = getattr(dataset, "file_meta", None)
    if meta is not None and "TransferSyntaxUID" in meta:
        return
    uid = optional("pydicom.uid", "A DICOM file", "dicom")
    dataset.file_meta = optional("pydicom.dataset", "A DICOM file", "dicom").FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = {
        (True, True): uid.ImplicitVRLittleEndian,
        (False, True): uid.ExplicitVRLittleEndian,
        (False, False): uid.ExplicitVRBigEndian,
    }[dataset.original_encoding]


def _decoded(dataset: Any) -> NDArray[Any]:
    """The stored values of the first frame, (H, W) or (H, W, 3)."""
    library = optional("pydicom.pixels", "A DICOM file", "dicom")
    try:
        stored: NDArray[Any] = library.pixel_array(dataset, index=0)
    except MemoryError:
        raise
    except Exception as error:  # pydicom and its decoders raise whatever they run into
        syntax = dataset.file_meta.TransferSyntaxUID
        if not syntax.is_compressed:
            raise
        try:
            decoder = library.get_decoder(syntax)
            installed, others = decoder.is_available, decoder.missing_dependencies
        except NotImplementedError:
            installed, others = False, []
        reason = (
            "they are damaged, or of a kind that the installed decoders don't read"
            if installed
            else "no decoder is installed"
        )
        remedy = f"; pip install one of these: {'; '.join(others)}" if others else "; save it uncompressed"
        raise _UnreadableError(
            f"its pixels are compressed as {syntax.name} ({syntax}): {reason}{remedy}."
        ) from error
    return stored


def _photo(dataset: Any, stored: NDArray[Any]) -> Image.Image:
    frames = int(dataset.get("NumberOfFrames") or 1)
    notes = (f"DICOM: the first of {frames} frames",) if frames > 1 else ()
    kind = str(dataset.get("PhotometricInterpretation") or "")
    if kind in {"MONOCHROME1", "MONOCHROME2"} and stored.ndim == 2:
        levels, said = _levels(dataset, stored, inverted=kind == "MONOCHROME1")
        return grey_photo(levels, (*notes, said))
    if kind == "PALETTE COLOR":
        library = optional("pydicom.pixels", "A DICOM file", "dicom")
        stored = library.apply_color_lut(stored, dataset)
        white = np.iinfo(stored.dtype).max
    elif kind == "RGB" or kind.startswith("YBR"):  # which pydicom has made RGB
        white = 2 ** int(dataset.BitsStored) - 1
    else:
        raise _UnreadableError(f"its colours are {kind or 'not told'}, which is not read; save it as PNG")
    colours = (stored[..., :3].astype(np.float64) / white * 255).round().astype(np.uint8)
    return noted(Image.fromarray(colours), notes)


def _levels(dataset: Any, stored: NDArray[Any], *, inverted: bool) -> tuple[NDArray[np.float64], str]:
    """The greys of stored values, 0 (black) to 1 (white), and how they were made."""
    for groups in _GROUPS:
        for part in _SHOWN_BY:
            found = dataset.get(groups) and dataset.get(groups)[0].get(part)
            if found:
                dataset.update(found[0])
    library = optional("pydicom.pixels", "A DICOM file", "dicom")
    values = library.apply_modality_lut(stored, dataset)
    levels, said = _by_table(library, dataset, values) or _by_window(library, dataset, values) or (None, "")
    ends = ("white", "black") if inverted else ("black", "white")
    if levels is None:
        low, high = _range(dataset, stored, values)
        levels = (values - low) / ((high - low) or 1.0)
        said = (
            f"DICOM: no window in the file, so its smallest value ({low:g}) is {ends[0]}, and its greatest "
            f"({high:g}) {ends[1]}"
        )
    levels = np.clip(levels, 0, 1)
    return (1 - levels, f"{said}; inverted (MONOCHROME1)") if inverted else (levels, said)


def _by_table(library: Any, dataset: Any, values: NDArray[Any]) -> tuple[NDArray[Any], str] | None:
    tables = dataset.get("VOILUTSequence")
    if not tables or "LUTDescriptor" not in tables[0] or "LUTData" not in tables[0]:
        return None
    shown = library.apply_voi(values.round().astype(np.int64), dataset, index=0)
    among = f", the first of {len(tables)}" if len(tables) > 1 else ""
    return shown / (2 ** tables[0].LUTDescriptor[2] - 1), f"DICOM: greys by the file's VOI table{among}"


def _by_window(library: Any, dataset: Any, values: NDArray[Any]) -> tuple[NDArray[Any], str] | None:
    """None where there is no window, or one without width."""
    centres, widths = (np.atleast_1d(dataset.get(name, [])) for name in ("WindowCenter", "WindowWidth"))
    if not len(centres) or not len(widths) or centres[0] is None or widths[0] is None:
        return None
    centre, width = float(centres[0]), float(widths[0])
    try:
        # The lowest and the highest grey that the window gives: pydicom has a range of its own for each kind
        # of file.
        black, white = library.apply_windowing(
            np.array([centre - 10 * width, centre + 10 * width]), dataset, index=0
        )
        shown = library.apply_windowing(values, dataset, index=0)
    except ValueError:
        return None
    among = f", the first of {len(centres)}" if len(centres) > 1 else ""
    said = f"DICOM: greys by the file's window (centre {centre:g}, width {width:g}{among})"
    return (shown - black) / (white - black), said


def _range(dataset: Any, stored: NDArray[Any], values: NDArray[Any]) -> tuple[float, float]:
    """The smallest and the greatest value that is no padding."""
    padding = dataset.get("PixelPaddingValue")
    real = values
    if padding is not None:
        limit = dataset.get("PixelPaddingRangeLimit", padding)
        real = values[(stored < min(padding, limit)) | (stored > max(padding, limit))]
    real = real if real.size else values
    return float(real.min()), float(real.max())
