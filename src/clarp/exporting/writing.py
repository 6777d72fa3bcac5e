"""An explainer as one file: recorded by ``torch.export``, written as ``.pt2`` or as ONNX."""

import io
import warnings
import zipfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from clarp.bounds import given_by
from clarp.capture.check import first_line
from clarp.capture.exporting import quiet
from clarp.errors import CaptureError
from clarp.explainer import Explainer
from clarp.exporting.about import KEY, FileDescription
from clarp.exporting.explained import ExplainedModel
from clarp.exporting.preprocessing import written
from clarp.files import write_atomically
from clarp.models.classifier import Classifier, sha256_of
from clarp.network import CAPTURING
from clarp.optional import optional
from clarp.parts import ExplainerParts
from clarp.seeds import Vector

SUFFIXES = (".pt2", ".onnx")
OUTPUTS = ("logits", "heatmap", "lost")
LARGEST = 2**31 - 2**25
"""Bytes of the weights in an ONNX file: its format counts bytes in 31 bits, and the nodes need some."""
_DROPPED = ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn", "from_node", "custom")
"""What PyTorch writes of each node for people, which is larger than the node."""


def export(
    explainer: Explainer,
    path: str | Path,
    input_shape: Sequence[int],
    *,
    targets: int | None = None,
    against: bool = False,
    half: bool = False,
    classifier: Classifier | None = None,
) -> FileDescription:
    """Write a classifier and its explanation as one program, which runs without clarp.

    The program takes ``images`` (B, C, H, W) float32 for any B and ``target`` (B,) int64. It returns
    ``logits`` (B, N), ``heatmap`` (B, H, W) and ``lost`` (B,), the share of the relevance that never reached
    the pixels. What can't be explained has a heatmap of NaN and a ``lost`` of 1: an image with values that
    are not finite, a class out of range, a target whose logit is infinite, and a target that is its own only
    rival.

    Args:
        explainer: of a model in float32.
        path: of the file: ``.pt2`` for PyTorch, which computes what the explainer computes to the last bit at
            the same batch; ``.onnx`` for ONNX Runtime, OpenVINO and browsers.
        input_shape: (C, H, W) of the images; a file is for one size.
        targets: K; then ``target`` is (B, K), ``heatmap`` (B, K, H, W) and ``lost`` (B, K).
        against: whether the rivals are an input, ``rivals`` bool (B, N), where a row without any stands for
            the task's own; else they are the task's own.
        half: whether the weights are stored in float16, for a file of half the size. They are computed with
            in float32; their rounding changes logits and maps (docs/export.md).
        classifier: of :func:`clarp.models.load`, whose name, preprocessing and notes the file then carries,
            so that ``clarp explain --model FILE`` takes photos as they are.

    Returns:
        What the file says of itself.

    Raises:
        ValueError: another suffix, a model in another type than float32, with further inputs or in train
            mode, a method that has no rivals with ``against``, a seed of the user's own, or an ONNX file of
            more than 2 GiB.
        CaptureError: the model or its explanation can't be recorded.
        UnsupportedOperation: it has operations that no rule covers, or that ONNX has not; the message lists
            them.
        ModuleNotFoundError: what writes ONNX is not installed; the message says how to install it.
        OSError: the file can't be written.
    """
    file = Path(path)
    check_export(explainer, file, targets=targets, against=against)
    parts = explainer.parts(input_shape)
    if against and parts.task.name == "binary":
        raise ValueError(
            "against is True, and the task is binary, whose two classes are each other's only rivals: leave "
            "it out."
        )
    if file.suffix == ".onnx":
        _check_size(parts, half=half)
    about = _about(explainer, parts, input_shape, targets, classifier, against=against, half=half)
    program = recorded(parts, input_shape, targets, against=against, half=half)
    data = _program_file(program, about) if file.suffix == ".pt2" else _onnx_file(program, about)
    write_atomically(file, lambda opened: opened.write(data))
    return about


def check_export(explainer: Explainer, file: Path, *, targets: int | None, against: bool) -> None:
    """Refuse what can be refused before the model is captured and recorded, which takes minutes.

    Raises:
        ValueError, OSError, ModuleNotFoundError: as of :func:`export`.
    """
    if file.suffix not in SUFFIXES:
        raise ValueError(f"path is {str(file)!r}, expected a name that ends in {' or '.join(SUFFIXES)}.")
    if not file.parent.is_dir():
        raise FileNotFoundError(f"{file}: there is no folder {file.parent}.")
    if file.is_dir():
        raise IsADirectoryError(f"{file} is a folder, expected the name of a file to write.")
    if targets is not None and (isinstance(targets, bool) or not isinstance(targets, int) or targets < 1):
        raise ValueError(f"targets is {targets!r}, expected how many classes to explain at once, or None.")
    method = explainer.method
    if isinstance(method.seed, Vector):
        raise ValueError(  # noqa: TRY004  it is a seed, but one without a target
            "the method's seed is a Vector, the initial relevance of one call, expected one that is computed "
            "from the logits and the target."
        )
    if against and not method.has_rivals:
        raise ValueError(
            f"against is True, and the method {method.name!r} has no rivals: leave it out, or use a method "
            "with rivals, for example 'sglrp' or 'ssglrp'."
        )
    if file.suffix == ".onnx":
        optional("onnxscript", "Exporting to ONNX", "onnx")


def _check_size(parts: ExplainerParts, *, half: bool) -> None:
    """Refuse weights that an ONNX file can't hold.

    Raises:
        ValueError: they are too large.
    """
    tensors = parts.program.tensors.values()
    size = sum(t.numel() * (2 if half and t.is_floating_point() else t.element_size()) for t in tensors)
    if size > LARGEST:
        raise ValueError(
            f"the ONNX file would have {size / 2**30:.1f} GiB, expected less than 2: write a .pt2 file, or "
            "store the weights in float16 (half=True, --half)."
        )


def recorded(
    parts: ExplainerParts, input_shape: Sequence[int], targets: int | None, *, against: bool, half: bool
) -> ExportedProgram:
    """The explanation as an exported program for any batch.

    Raises:
        CaptureError: something in it depends on values, as an operation or a rule of the user's own may.
        ValueError: the method can't explain this model, or it computes in another type.
    """
    kinds = {t.dtype for t in parts.program.tensors.values() if t.is_floating_point()}
    if kinds - {torch.float32}:
        raise ValueError(
            f"the model computes in {', '.join(sorted(map(str, kinds)))}, expected torch.float32: make the "
            "explainer with dtype='float32'."
        )
    model = ExplainedModel(parts, half=half).cpu()
    batch = {0: Dim.DYNAMIC}
    # The least numbers that torch.export does not take for constants.
    images = torch.zeros(2, *input_shape)
    target = torch.zeros((2,) if targets is None else (2, targets), dtype=torch.int64)
    example: dict[str, Tensor] = {"images": images, "target": target}
    if against:
        example["rivals"] = torch.ones(2, parts.task.classes, dtype=torch.bool)
    shapes = dict.fromkeys(example, batch)
    with CAPTURING, quiet(), torch.no_grad():
        model(*example.values())  # refuses what the method can't explain, in its own words
        try:
            program = torch.export.export(model, tuple(example.values()), dynamic_shapes=shapes, strict=False)
        except Exception as error:  # torch.export documents none
            raise CaptureError(
                f"the explanation can't be recorded: {first_line(error)}. An operation or a rule of your own "
                "that looks at values in Python may be the reason."
            ) from error
    program.graph.eliminate_dead_code()
    for node in program.graph.nodes:
        for name in _DROPPED:
            node.meta.pop(name, None)
    return program


def _program_file(program: ExportedProgram, about: FileDescription) -> bytes:
    """A .pt2 file, its long description of the nodes compressed."""
    raw, packed = io.BytesIO(), io.BytesIO()
    with warnings.catch_warnings():
        # A weight with its channels side by side is no "complete tensor" to PyTorch; it is saved as it is.
        warnings.filterwarnings("ignore", "No complete tensor found", UserWarning)
        torch.export.save(program, raw, extra_files={f"{KEY}.json": about.to_json()})
    with zipfile.ZipFile(raw) as archive, zipfile.ZipFile(packed, "w") as smaller:
        for entry in archive.infolist():
            long = entry.filename.endswith(".json")
            smaller.writestr(
                zipfile.ZipInfo(entry.filename),
                archive.read(entry),
                zipfile.ZIP_DEFLATED if long else zipfile.ZIP_STORED,
            )
    return packed.getvalue()


def _onnx_file(program: ExportedProgram, about: FileDescription) -> bytes:
    """An ONNX file.

    Raises:
        UnsupportedOperation: ONNX has no such operation.
    """
    from clarp.exporting.onnx_model import model_of  # noqa: PLC0415  needs onnxscript
    from clarp.exporting.squares import copy_squares  # noqa: PLC0415  needs onnx

    model = model_of(program, OUTPUTS)
    copy_squares(model)
    model.metadata_props.add(key=KEY, value=about.to_json())
    data: bytes = model.SerializeToString()
    return data


def _about(
    explainer: Explainer,
    parts: ExplainerParts,
    input_shape: Sequence[int],
    targets: int | None,
    classifier: Classifier | None,
    *,
    against: bool,
    half: bool,
) -> FileDescription:
    method, task, labels = parts.method, parts.task, explainer.labels
    given = given_by(parts.bounds, method.rules.first) if method.needs_bounds else None
    low, high = (None, None) if given is None else (_numbers(end) for end in given)
    network = explainer.network
    return FileDescription(
        model=network.name if classifier is None else classifier.name,
        weights_sha256=sha256_of(network.model) if classifier is None else classifier.weights_sha256(),
        task=task.name,
        labels=() if labels is None else task.labels(labels),
        classes=task.classes,
        method=method.name,
        definition=repr(method),
        composite=method.rules.name,
        has_rivals=method.has_rivals,
        input_shape=tuple(input_shape),
        channels=parts.channels.axis,
        low=low,
        high=high,
        targets=targets,
        against=against,
        half=half,
        preprocessing=None if classifier is None else written(classifier.preprocess),
        notes=(*(() if classifier is None else classifier.notes), *task.notes),
        versions={name: version(name) for name in ("clarp", "torch")},
    )


def _numbers(end: Any) -> tuple[float, ...]:
    numbers: list[float] = torch.as_tensor(end).flatten().tolist()
    return tuple(numbers)
