"""``clarp export``: a classifier and its explanation as one file."""

import sys
from collections.abc import Callable
from contextlib import nullcontext, redirect_stdout
from dataclasses import asdict, replace
from pathlib import Path

from PIL import Image

from clarp.commands.notes import note
from clarp.exporting import export
from clarp.exporting.preprocessing import evaluation, resized
from clarp.exporting.writing import check_export
from clarp.method import Method
from clarp.models import Classifier
from clarp.session import Session
from clarp.text import document, printable


def run(
    load: Callable[[], Session],
    *,
    method: str,
    composite: str | None,
    size: int | None,
    targets: int | None,
    against: bool,
    half: bool,
    out: Path,
    json: bool,
) -> int:
    """Write the file, and say what it takes and gives.

    Args:
        load: makes the session.
        method: its name.
        composite: rules in place of the method's own.
        size: pixels of the images' sides; None: those of the preprocessing.
        targets: how many classes are explained at once; None: one, without an axis of its own.
        against: whether the rivals are an input.
        half: whether the weights are stored in float16.
        out: the file, ``.onnx`` or ``.pt2``.
        json: print one JSON document and nothing else.

    Raises:
        ValueError, TypeError, OSError, ImportError, CaptureError: as of :func:`clarp.export`.
    """
    with redirect_stdout(sys.stderr) if json else nullcontext():
        named = Method.named(method).with_composite(composite)
        session = load()
        classifier, shape = _for_size(session.classifier, size)
        explainer = session.explainer(named)
        check_export(explainer, out, targets=targets, against=against)
        for assumed in classifier.notes:
            note(assumed)
        note(f"recording {named.name} for images {shape}; a large model takes minutes")
        about = export(
            explainer, out, shape, targets=targets, against=against, half=half, classifier=classifier
        )
    written = out.stat().st_size
    if json:
        sys.stdout.write(document({"file": str(out), "bytes": written, **asdict(about)}) + "\n")
        return 0
    if about.preprocessing is None:
        note("the preprocessing is code of your own, which the file can't carry: give it along")
    several = "" if targets is None else f", {targets}"
    rivals = f", rivals bool (B, {about.classes})" if against else ""
    axes = ", ".join(map(str, (size for axis, size in enumerate(shape, 1) if axis != about.channels)))
    lines = (
        f"{out}: {written / 1e6:.1f} MB",
        f"  takes images float32 (B, {', '.join(map(str, shape))}), target int64 (B{several}){rivals}",
        f"  gives logits, heatmap (B{several}, {axes}), lost (B{several})",
        f"  run it with `clarp explain PHOTO --model {out}`, or without clarp (docs/export.md)",
    )
    sys.stdout.write("\n".join(map(printable, lines)) + "\n")
    return 0


def _for_size(classifier: Classifier, size: int | None) -> tuple[Classifier, tuple[int, ...]]:
    """The classifier for images of this side, and their shape (C, H, W)."""
    shape = tuple(classifier.preprocess(Image.new("RGB", (320, 320))).shape)
    if size is None or shape[1:] == (size, size):
        return classifier, shape
    usual = evaluation(classifier.preprocess)
    if usual is None:
        raise ValueError(
            f"--size is {size}, and the preprocessing of {classifier.name} gives images {shape} by code of "
            "its own. Leave --size out, or change that code."
        )
    return replace(classifier, preprocess=resized(usual, size)), (shape[0], size, size)
