"""One function of a program's tensors as an ONNX model without its weights, for :mod:`clarp.exporting.runtime`."""

from collections.abc import Callable, Sequence
from typing import Any

import onnx
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from clarp.capture.check import first_line
from clarp.capture.exporting import quiet
from clarp.compiled import CARRIERS
from clarp.errors import CaptureError, UnsupportedOperation
from clarp.exporting.onnx_model import model_of
from clarp.exporting.packing import Packing
from clarp.network import CAPTURING
from clarp.propagation import Program
from clarp.tree import filled, tensors

TWO = 2
"""The least number that ``torch.export`` does not take for a constant."""
NO_FILE = "weights"
"""Where the weights of a model without them would lie."""


class _Function(nn.Module):
    """The function with the program's constants as buffers, from a list of tensors to a list of them."""

    def __init__(
        self,
        program: Program,
        function: Callable[..., Any],
        arguments: Sequence[object],
        tell: Callable[[Packing], None],
    ) -> None:
        super().__init__()
        self.program, self.function, self.arguments = program, function, arguments
        self.names = {f"w{number}": name for number, name in enumerate(program.tensors)}
        for own, name in self.names.items():
            self.register_buffer(own, program.tensors[name].contiguous())
        self.tell = tell
        self.eval()

    def forward(self, *values: Tensor) -> list[Tensor]:
        program = self.program.reading({name: getattr(self, own) for own, name in self.names.items()})
        result = self.function(program, *filled(self.arguments, iter(values), CARRIERS))
        found = tensors(result, CARRIERS)
        packing = Packing.of(found)
        self.tell(packing)  # torch.export puts attributes back
        return packing.pack(found)


def converted(
    program: Program,
    function: Callable[..., Any],
    arguments: Sequence[object],
    per_target: Sequence[Tensor],
) -> tuple[bytes, dict[str, str], Packing]:
    """A function for one image and any number of targets, as an ONNX model.

    Args:
        program: whose tensors it reads, in float32 on the CPU.
        function: of a program, the arguments and those for each target; nothing that it does may depend on
            values.
        arguments: for it, of one image.
        per_target: for it, (K, ...) each.

    Returns:
        The model; which of its constants are which of the program's tensors; how its results are packed.

    Raises:
        CaptureError: the function can't be recorded.
        UnsupportedOperation: ONNX has not what it needs.
    """
    example = [value[:1].expand(TWO, *value.shape[1:]).contiguous() for value in per_target]
    packings: list[Packing] = []
    module = _Function(program, function, (*arguments, *example), packings.append)
    given = tensors(arguments, CARRIERS)
    shapes = [{}] * len(given) + [{0: Dim.DYNAMIC}] * len(example)
    with CAPTURING, quiet(), torch.no_grad():
        try:
            recorded = torch.export.export(
                module, (*given, *example), dynamic_shapes=(tuple(shapes),), strict=False
            )
        except UnsupportedOperation:
            raise
        except Exception as error:  # torch.export documents none
            raise CaptureError(
                f"the explanation can't be recorded for ONNX Runtime: {first_line(error)}. An operation or a "
                "rule of your own that looks at values in Python may be the reason. Leave engine out."
            ) from error
        model = _model(recorded)
    return *_without_weights(model, module.names), packings[-1]


def _model(recorded: ExportedProgram) -> onnx.ModelProto:
    recorded.graph.eliminate_dead_code()
    count = len(recorded.graph_signature.user_outputs)
    try:
        return model_of(recorded, tuple(f"result{number}" for number in range(count)))
    except UnsupportedOperation as error:
        raise UnsupportedOperation(
            f"{str(error).partition('.')[0]}. Leave engine out, for PyTorch."
        ) from error


def _without_weights(model: onnx.ModelProto, names: dict[str, str]) -> tuple[bytes, dict[str, str]]:
    """The model with nothing in place of the buffers, and the names of those that it reads."""
    found: dict[str, str] = {}
    for constant in model.graph.initializer:
        if constant.name not in names:
            continue
        found[constant.name] = names[constant.name]
        size = len(constant.raw_data)
        constant.ClearField("raw_data")
        constant.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", NO_FILE), ("offset", "0"), ("length", str(size))):
            constant.external_data.add(key=key, value=value)
    data: bytes = model.SerializeToString()
    return data, found
