"""A file that explains, at work: its program, and what it says of itself."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clarp.capture.check import first_line
from clarp.exporting.about import KEY, FileDescription, in_program
from clarp.network import load_exported
from clarp.optional import optional


@dataclass(frozen=True, eq=False)
class ExplainedFile:
    """The program ``(images, target[, rivals]) -> (logits, heatmap, lost)`` of :func:`clarp.export`.

    Attributes:
        path: of the file.
        about: what it says of itself.
    """

    path: Path
    about: FileDescription

    @classmethod
    def open(cls, path: Path) -> "ExplainedFile":
        """Read what a file says of itself; its program is loaded at the first call.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is no file of :func:`clarp.export`, or a damaged one.
            ModuleNotFoundError: ONNX Runtime is not installed; the message says how to install it.
        """
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such model file.")
        if path.suffix == ".pt2":
            about = in_program(path)
        else:
            session = _session(path)
            text = session.get_modelmeta().custom_metadata_map.get(KEY)
            about = None if text is None else FileDescription.from_json(text, path)
        if about is None:
            raise ValueError(
                f"{path}: a model without an explanation, expected a file that `clarp export` wrote. The "
                "PyTorch model it was made of can be explained and exported: clarp export --model ..."
            )
        found = cls(path, about)
        if path.suffix != ".pt2":
            vars(found)["_run"] = _onnx(session)
        return found

    def __call__(
        self, images: Tensor, target: Tensor, rivals: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (B, N), heatmap (B, H, W) or (B, K, H, W), and lost (B,) or (B, K).

        Args:
            images: (B, C, H, W) float32.
            target: int64 (B,), or (B, K) where the file is for K targets.
            rivals: bool (B, N), where the file takes them.
        """
        given = (images, target) if rivals is None else (images, target, rivals)
        logits, heatmap, lost = self._run(given)
        return logits, heatmap, lost

    def logits(self, images: Tensor) -> Tensor:
        """Logits (B, N) of images (B, C, H, W)."""
        about = self.about
        shape = (images.shape[0],) if about.targets is None else (images.shape[0], about.targets)
        target = torch.zeros(shape, dtype=torch.int64)
        rivals = torch.zeros(images.shape[0], about.classes, dtype=torch.bool) if about.against else None
        return self(images, target, rivals)[0]

    @cached_property
    def _run(self) -> Any:
        """Loads the program."""
        if self.path.suffix == ".pt2":
            module = load_exported(self.path).module()

            def run(given: Sequence[Tensor]) -> Sequence[Tensor]:
                with torch.no_grad():
                    found: Sequence[Tensor] = module(*given)
                return found

            return run
        return _onnx(_session(self.path))


def _session(path: Path) -> Any:
    runtime = optional("onnxruntime", "Running an ONNX file", "onnx")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    try:
        return runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime documents none; whatever it is, the file is at fault
        raise ValueError(
            f"{path}: not a model that ONNX Runtime can run ({first_line(error)[:200]})."
        ) from error


def _onnx(session: Any) -> Any:
    names = [value.name for value in session.get_inputs()]

    def run(given: Sequence[Tensor]) -> Sequence[Tensor]:
        arrays = dict(zip(names, (value.cpu().numpy() for value in given), strict=True))
        return [torch.from_numpy(value) for value in session.run(None, arrays)]

    return run
