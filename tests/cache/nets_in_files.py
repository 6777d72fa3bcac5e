"""A network in a file, imported anew as often as wanted; and graphs compared."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import torch
from torch import nn

import clarp
from clarp.network import Network

SHAPE = (3, 12, 12)
SOURCE = """
import torch
from torch import nn

SLOPE = 0.0

def activation(x):
    return torch.nn.functional.leaky_relu(x, SLOPE) if SLOPE else x.relu()

class Net(nn.Module):
    def __init__(self, eps=1e-5, doubled=False):
        super().__init__()
        self.conv, self.norm, self.doubled = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, eps=eps), doubled
        self.head = nn.Linear(4, 5)

    def forward(self, x):
        x = self.body(x)
        return self.head(x.mean((2, 3)))

    def body(self, x):
        x = activation(self.norm(self.conv(x)))
        return 2 * x if self.doubled else x

def build(**options):
    torch.manual_seed(0)
    return Net(**options).eval()
"""


def module_of(path: Path, source: str = SOURCE) -> ModuleType:
    """The file, imported anew."""
    path.write_text(source)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    exec(compile(source, str(path), "exec"), vars(module))
    return module


def graph(model: nn.Module, folder: Path, dtype: torch.dtype = torch.float32) -> clarp.capture.Graph:
    return Network(model, cache=folder).graph(SHAPE, dtype)


def same(one: clarp.capture.Graph, other: clarp.capture.Graph) -> bool:
    return (
        (one.nodes, one.input, one.output, one.input_shape, dict(one.outputs), one.link)
        == (other.nodes, other.input, other.output, other.input_shape, dict(other.outputs), other.link)
        and one.tensors.keys() == other.tensors.keys()
        and all(
            torch.equal(value, other.tensors[name]) and value.stride() == other.tensors[name].stride()
            for name, value in one.tensors.items()
        )
    )
