"""An exported program as an ONNX model."""

import re

import onnx
import torch
from onnx_ir.passes.common import CommonSubexpressionEliminationPass
from onnxscript import optimizer
from torch.export import ExportedProgram
from torch.onnx import OnnxExporterError

from clarp.capture.exporting import quiet
from clarp.errors import UnsupportedOperation
from clarp.exporting.convolution import convolution
from clarp.exporting.translations import TRANSLATIONS

aten = torch.ops.aten

OPSET = 18
"""What ONNX Runtime (native and in browsers), OpenVINO and TensorRT all have."""
BATCH = "batch"
_FOLDED = 1024
"""Elements up to which constants are computed: shapes and numbers, but no parts of weights."""


def model_of(program: ExportedProgram, outputs: tuple[str, ...]) -> onnx.ModelProto:
    """The program with its weights, its outputs under these names.

    Raises:
        UnsupportedOperation: ONNX has no such operation.
    """
    for node in program.graph.nodes:
        # Where there is none, the exporter finds out which line of Python made each, in half of its time.
        node.meta["stack_trace"] = "-"
    with quiet():
        try:
            converted = torch.onnx.export(
                program,
                dynamo=True,
                optimize=False,  # its search for patterns takes minutes
                verbose=False,
                opset_version=OPSET,
                output_names=list(outputs),
                custom_translation_table={**TRANSLATIONS, aten.convolution.default: convolution},
            )
        except OnnxExporterError as error:
            raise UnsupportedOperation(_missing(error)) from error
        assert converted is not None
        optimizer.fold_constants(converted.model, input_size_limit=_FOLDED, output_size_limit=_FOLDED)
        CommonSubexpressionEliminationPass()(converted.model)
        optimizer.remove_unused_nodes(converted.model)
    model: onnx.ModelProto = converted.model_proto
    _name_batch(model)
    _without_origins(model)
    return model


def _missing(error: Exception) -> str:
    """What the exporter could not translate, and what to do."""
    found = re.search(r"op='([^']+)'", str(error))
    what = f"the operation {found[1]}" if found else str(error).strip().splitlines()[-1]
    return f"ONNX can't express {what}, which the explanation needs. Write a .pt2 file, for PyTorch."


def _name_batch(model: onnx.ModelProto) -> None:
    """Call the size that all inputs and outputs share by its name."""
    named = [*model.graph.input, *model.graph.output]
    own = model.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    if not own:  # recorded for one image
        return
    for value in (*named, *model.graph.value_info):
        for size in value.type.tensor_type.shape.dim:
            if size.dim_param == own:
                size.dim_param = BATCH


def _without_origins(model: onnx.ModelProto) -> None:
    """Drop what the exporter says of each node and value for people, which is larger than they are."""
    for part in (*model.graph.node, *model.graph.value_info, *model.graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""
    del model.graph.value_info[:]  # runtimes infer shapes themselves
