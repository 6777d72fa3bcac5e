"""A function of a program's tensors as an ONNX model without weights, for :mod:`clarp.exporting.runtime`."""

from collections.abc import Callable, Collection, Sequence
from typing import Any

import onnx
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from clarp.capture.check import first_line
from clarp.capture.exporting import quiet
from clarp.compiled import CARRIERS
from clarp.errors import CaptureError, UnsupportedOperation
from clarp.exporting.explained import buffer_names
from clarp.exporting.onnx_model import model_of
from clarp.network import CAPTURING
from clarp.propagation import Program
from clarp.runner import Computation
from clarp.tree import distinct, filled, tensors

TWO = 2
"""The least number that ``torch.export`` does not take for a constant."""
NO_FILE = "weights"
"""Where the weights of a model without them would lie."""


class _Function(nn.Module):
    """The function with the program's constants as buffers, from a list of tensors to a list of them."""

    def __init__(self, program: Program, function: Callable[..., Any], arguments: Sequence[object]) -> None:
        super().__init__()
        self.program, self.function, self.arguments = program, function, arguments
        self.names = buffer_names(program.tensors)
        for name, own in self.names.items():
            self.register_buffer(own, program.tensors[name].contiguous())
        self.eval()

    def forward(self, *values: Tensor) -> list[Tensor]:
        program = self.program.reading({name: getattr(self, own) for name, own in self.names.items()})
        result = self.function(program, *filled(self.arguments, iter(values), CARRIERS))
        found = distinct(tensors(result, CARRIERS))
        for given in found.keys() & distinct(values).keys():  # a model whose input is an output has no output
            found[given] = found[given].clone()
        return list(found.values())


def recorded_function(computation: Computation[Any]) -> bytes:
    """A function for one image and any number of targets, as an ONNX model without the program's constants.

    Args:
        computation: the function, with arguments of one image; its program is in float32 on the CPU.

    Raises:
        CaptureError: the function can't be recorded.
        UnsupportedOperation: ONNX has not what it needs.
    """
    arguments = computation.arguments
    example = [v[:1].expand(TWO, *v.shape[1:]).contiguous() for v in computation.per_target]
    module = _Function(computation.program, computation.function, (*arguments, *example))
    given = tensors(arguments, CARRIERS)
    shapes: list[dict[int, object]] = [{}] * len(given) + [{0: Dim.DYNAMIC}] * len(example)
    with CAPTURING, quiet(), torch.no_grad():
        try:
            recorded = torch.export.export(
                module, (*given, *example), dynamic_shapes=(tuple(shapes),), strict=False
            )
        except Exception as error:  # torch.export documents none
            raise CaptureError(
                f"the explanation can't be recorded for ONNX Runtime: {first_line(error)}. An operation or a "
                "rule of your own that looks at values in Python may be the reason. Leave engine out."
            ) from error
        return _without(module.names.values(), _model(recorded))


def _model(recorded: ExportedProgram) -> onnx.ModelProto:
    recorded.graph.eliminate_dead_code()
    count = len(recorded.graph_signature.user_outputs)
    try:
        return model_of(recorded, tuple(f"result{number}" for number in range(count)))
    except UnsupportedOperation as error:
        raise UnsupportedOperation(
            f"{str(error).partition('.')[0]}. Leave engine out, for PyTorch."
        ) from error


def _without(constants: Collection[str], model: onnx.ModelProto) -> bytes:
    """The model with nothing in place of these constants: they are given to it when it is loaded."""
    for constant in model.graph.initializer:
        if constant.name in constants:
            size = len(constant.raw_data)
            constant.ClearField("raw_data")
            constant.data_location = onnx.TensorProto.EXTERNAL
            for key, value in (("location", NO_FILE), ("offset", "0"), ("length", str(size))):
                constant.external_data.add(key=key, value=value)
    data: bytes = model.SerializeToString()
    return data
