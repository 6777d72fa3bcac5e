"""Methods that are not ours, from captum: one adapter, on a copy of the model, because captum works with hooks."""

import copy
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn

from clarp.capture import LogitsOf, Output
from clarp.method import BASELINES, Method
from clarp.network import Network
from clarp.optional import optional
from clarp.propagation import last_spatial, make_plan

_PURPOSE = "A baseline of captum's, such as Grad-CAM,"
_AT_ONCE = 32


@dataclass(frozen=True, eq=False)
class Baseline:
    """One of captum's methods on a copy of a model.

    Attributes:
        name: a name of :data:`clarp.method.BASELINES`; ``gradcam@MODULE`` names Grad-CAM's layer.
        module: the copy, its in-place operations switched off, for captum's hooks don't bear them; with two columns where the model has one.
        layer: Grad-CAM's module by its path, "" for the others.
    """

    name: str
    module: "Columns"
    layer: str = ""

    @classmethod
    def of(cls, name: str, network: Network, image: Tensor | None = None) -> "Baseline":
        """A baseline for a captured model.

        Args:
            name: see above.
            network: the model; it is copied.
            image: (C, H, W) as the model will see it; only Grad-CAM without a named layer needs it.

        Raises:
            TypeError: the model is an exported program.
            ValueError: no such layer, no convolution, or no ReLU for guided backprop to guide.
        """
        kind, _, option = name.partition("@")
        optional("captum", _PURPOSE)
        if not isinstance(network.model, nn.Module):
            raise TypeError(
                f"{name} is captum's, which needs a torch.nn.Module; given was a {network.name}. Leave {name} out."
            )
        if option and kind != "gradcam":
            raise ValueError(f"{name}: only gradcam takes something after the @, the layer's name.")
        if kind == "guided-backprop" and not any(
            isinstance(part, nn.ReLU) for part in network.model.modules()
        ):
            raise ValueError(f"{name} guides nn.ReLU modules, and {network.name} has none. Leave {name} out.")
        layer = ""
        if kind == "gradcam":
            layer = option or last_convolution(network, image)
            _check_layer(network.model, layer)
        return cls(name, Columns.of(network.model, network.output), layer)

    @property
    def kind(self) -> str:
        """The name without the layer."""
        return self.name.partition("@")[0]

    @property
    def definition(self) -> str:
        """Name, settings and layer."""
        return f"captum {self.kind}: {BASELINES[self.kind]}" + (f", layer {self.layer}" if self.layer else "")

    @property
    def coarse(self) -> bool:
        """Whether its maps have few cells."""
        return self.kind == "gradcam"

    def on(self, model: nn.Module) -> "Baseline":
        """The same for another model of the same architecture."""
        return Baseline(self.name, Columns.of(model), self.layer)

    def __call__(self, images: Tensor, targets: Tensor, ids: Sequence[str] = ()) -> Tensor:
        """Heatmaps (B, H, W) of images (B, C, H, W) for targets (B,); the ids are not used."""
        del ids
        given = images.detach().clone().requires_grad_()
        targets = targets.to(images.device)
        with torch.enable_grad(), warnings.catch_warnings():
            # captum announces its hooks, which live on our copy.
            warnings.simplefilter("ignore", UserWarning)
            return self._attribution(given, targets).detach()

    def _attribution(self, images: Tensor, targets: Tensor) -> Tensor:
        attr = optional("captum.attr", _PURPOSE)
        size = images.shape[2:]
        if self.kind == "gradient":
            return _magnitude(attr.Saliency(self.module).attribute(images, targets, abs=True))
        if self.kind == "guided-backprop":
            return _magnitude(attr.GuidedBackprop(self.module).attribute(images, targets))
        if self.kind == "input-x-gradient":
            return _sum(attr.InputXGradient(self.module).attribute(images, targets))
        if self.kind == "integrated-gradients":
            method = attr.IntegratedGradients(self.module)
            return _sum(method.attribute(images, target=targets, n_steps=50, internal_batch_size=_AT_ONCE))
        if self.kind == "gradcam":
            method = attr.LayerGradCam(self.module, self.module.model.get_submodule(self.layer))
            cells = method.attribute(images, targets, relu_attributions=True)
            return _sum(attr.LayerAttribution.interpolate(cells, tuple(size), "bilinear"))
        window = tuple(max(1, side // 14) for side in size)
        stride = tuple(max(1, side // 2) for side in window)
        with torch.no_grad():
            method = attr.Occlusion(self.module)
            found = method.attribute(
                images.detach(),
                sliding_window_shapes=(images.shape[1], *window),
                strides=(images.shape[1], *stride),
                target=targets,
                baselines=0,
                perturbations_per_eval=max(1, _AT_ONCE // len(images)),
            )
        return _sum(found)


class Columns(LogitsOf):
    """A column for each class: a single one z is the columns (-z, z) of "it is not" and "it is so"."""

    @classmethod
    def of(cls, model: nn.Module, output: Output = None) -> "Columns":
        """Those of a copy of the model."""
        if isinstance(model, LogitsOf):
            return cls(_copied(model.model), model.output)
        return cls(_copied(model), output)

    def forward(self, images: Tensor, *rows: Tensor) -> Tensor:
        """(B, N), with at least two columns."""
        columns = super().forward(images, *rows)
        assert isinstance(columns, Tensor)
        return torch.cat([-columns, columns], 1) if columns.shape[1] == 1 else columns


def last_convolution(network: Network, image: Tensor | None) -> str:
    """The module of the last convolution that acts at more than one position, as the captured plan has it.

    Raises:
        ValueError: there is no convolution, or it is none of a module.
    """
    shape = network.input_shape() if image is None else tuple(image.shape)
    if shape is None:
        raise ValueError(
            "Grad-CAM's layer is not known before the first image: give image=, or gradcam@LAYER."
        )
    graph = network.graph(shape, network.dtype or torch.get_default_dtype())
    found = make_plan(graph, Method.named("lrp").rules).convolutions()
    module = last_spatial(found).module if found else ""
    if not module:
        raise ValueError(
            f"{network.name} has no convolution that is a module, and Grad-CAM looks at the last of these; `clarp compare` and `evaluate` "
            "take another layer by its name, gradcam@LAYER."
        )
    return module


def _check_layer(model: nn.Module, layer: str) -> None:
    known = [name for name, _ in model.named_modules() if name]
    if layer not in known:
        near = get_close_matches(layer, known, n=3, cutoff=0.3)
        hint = f" The nearest names are {', '.join(near)}." if near else ""
        raise ValueError(f"gradcam@{layer}: the model has no module of that name.{hint}")


def _copied(model: nn.Module) -> nn.Module:
    other = copy.deepcopy(model).requires_grad_(False)
    for part in other.modules():
        if getattr(part, "inplace", False):
            part.inplace = False  # type: ignore[assignment]
    return other


def _magnitude(attribution: Any) -> Tensor:
    """(B, C, H, W) to (B, H, W): the largest magnitude over the channels."""
    return attribution.abs().amax(dim=1)


def _sum(attribution: Any) -> Tensor:
    return attribution.sum(dim=1)
