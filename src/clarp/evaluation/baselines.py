"""Methods from captum: one adapter, on a copy of the model, because captum works with hooks."""

import copy
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import ClassVar

import torch
from torch import Tensor, nn

from clarp.explainer import Explainer
from clarp.method import BASELINES
from clarp.network import Network
from clarp.optional import optional
from clarp.output import LogitsOf, Output

_PURPOSE = "A baseline of captum's, such as Grad-CAM,"
_AT_ONCE = 32


@dataclass(frozen=True, eq=False)
class Baseline:
    """One of captum's methods on a copy of a model.

    Attributes:
        name: a name of :data:`clarp.method.BASELINES`; ``gradcam@MODULE`` names Grad-CAM's layer.
        module: the copy, without in-place operations, which captum's hooks don't allow; with two columns
            where the model has one.
        layer: Grad-CAM's module by its path, "" for the others.
    """

    package: ClassVar[str] = "captum"
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
        model = checked_module(name, network)
        if option and kind != "gradcam":
            raise ValueError(f"{name}: only gradcam takes something after the @, the layer's name.")
        if kind == "guided-backprop" and not any(isinstance(part, nn.ReLU) for part in model.modules()):
            raise ValueError(f"{name} guides nn.ReLU modules, and {network.name} has none. Leave {name} out.")
        if kind == "gradcam":
            return cls(name, *checked_layer(name, network, image))
        return cls(name, Columns.of(model, network.output))

    @property
    def kind(self) -> str:
        return self.name.partition("@")[0]

    @property
    def definition(self) -> str:
        return f"captum {self.kind}: {BASELINES[self.kind]}" + (f", layer {self.layer}" if self.layer else "")

    @property
    def coarse(self) -> bool:
        return self.kind == "gradcam"

    @property
    def layered(self) -> bool:
        return self.kind == "gradcam"

    def on(self, network: Network) -> "Baseline":
        assert isinstance(network.model, nn.Module)  # it is made of one
        return Baseline(self.name, Columns.of(network.model), self.layer)

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
        channels, *size = images.shape[1:]
        if self.kind in ("gradient", "guided-backprop"):
            method = attr.Saliency if self.kind == "gradient" else attr.GuidedBackprop
            return method(self.module).attribute(images, targets).abs().amax(dim=1)
        if self.kind == "input-x-gradient":
            found = attr.InputXGradient(self.module).attribute(images, targets)
        elif self.kind == "integrated-gradients":
            method = attr.IntegratedGradients(self.module)
            found = method.attribute(images, target=targets, n_steps=50, internal_batch_size=_AT_ONCE)
        elif self.kind == "gradcam":
            method = attr.LayerGradCam(self.module, self.module.model.get_submodule(self.layer))
            cells = method.attribute(images, targets, relu_attributions=True)
            found = attr.LayerAttribution.interpolate(cells, tuple(size), "bilinear")
        else:
            window = [max(1, side // 14) for side in size]
            with torch.no_grad():
                found = attr.Occlusion(self.module).attribute(
                    images.detach(),
                    sliding_window_shapes=(channels, *window),
                    strides=(channels, *(max(1, side // 2) for side in window)),
                    target=targets,
                    baselines=0,
                    perturbations_per_eval=max(1, _AT_ONCE // len(images)),
                )
        return found.sum(dim=1)


class Columns(LogitsOf):
    """A column for each class: a single one z is the columns (-z, z) of "it is not" and "it is so"."""

    @classmethod
    def of(cls, model: nn.Module, output: Output = None) -> "Columns":
        if isinstance(model, LogitsOf):
            return cls(copied(model.model), model.output)
        return cls(copied(model), output)

    def forward(self, images: Tensor, *rows: Tensor) -> Tensor:
        """(B, N), with at least two columns."""
        columns = super().forward(images, *rows)
        assert isinstance(columns, Tensor)
        return torch.cat([-columns, columns], 1) if columns.shape[1] == 1 else columns


def last_convolution(network: Network, image: Tensor | None) -> str:
    """The module of the last convolution that acts at more than one position, as the plan of LRP has it.

    Raises:
        ValueError: there is no convolution, or it is none of a module.
    """
    shape = network.input_shape() if image is None else tuple(image.shape)
    if shape is None:
        raise ValueError(
            "Grad-CAM's layer is not known before the first image: give image=, or gradcam@LAYER."
        )
    found = Explainer(network, "lrp").plan(shape).convolutions()
    # Behind the pooling there are no places to look at.
    last = next(
        (node for node in reversed(found) if math.prod(node.shape[1:]) > 1), found[-1] if found else None
    )
    if last is None or not last.module:
        raise ValueError(
            f"{network.name} has no convolution that is a module, and Grad-CAM looks at the last of these; "
            "`clarp compare` and `evaluate` take another layer by its name, gradcam@LAYER."
        )
    return last.module


def checked_module(name: str, network: Network) -> nn.Module:
    """The model of a method that puts hooks into a copy of it, or goes through it with autograd.

    Raises:
        TypeError: it is an exported program.
    """
    if not isinstance(network.model, nn.Module):
        given = f"given was a {network.name}. Leave {name} out."
        raise TypeError(f"{name} needs a torch.nn.Module, which it copies; {given}")
    return network.model


def checked_layer(name: str, network: Network, image: Tensor | None) -> tuple[Columns, str]:
    """A copy of the model, and the module that ``NAME@MODULE`` names, else that of the last convolution.

    Raises:
        TypeError: the model is an exported program.
        ValueError: no such module, or no convolution.
    """
    model, layer = checked_module(name, network), name.partition("@")[2] or last_convolution(network, image)
    known = [path for path, _ in model.named_modules() if path]
    if layer not in known:
        near = get_close_matches(layer, known, n=3, cutoff=0.3)
        hint = f" The nearest names are {', '.join(near)}." if near else ""
        raise ValueError(f"{name}: the model has no module of that name.{hint}")
    return Columns.of(model, network.output), layer


def copied(model: nn.Module) -> nn.Module:
    """A copy without in-place operations, its parameters held constant."""
    other = copy.deepcopy(model).requires_grad_(False)
    for part in other.modules():
        if getattr(part, "inplace", False):
            part.inplace = False  # type: ignore[assignment]
    return other
