"""Relatives of Grad-CAM by the package grad-cam, on a copy of the model, because it works with hooks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from clarp.evaluation.baselines import Columns, checked_layer
from clarp.method import RIVALS
from clarp.network import Network
from clarp.optional import optional

SIMILAR = 3
"""To how many classes Finer-CAM compares, the package's default."""


@dataclass(frozen=True, eq=False)
class ActivationMap:
    """One value for each cell of a layer's output, interpolated bilinearly and scaled to 0 .. 1.

    With the layer's output a (channels k, cells ij), the score y and ``g = dy / da``:

    - ``gradcam-plusplus``: ``ReLU(sum_k w_k a_kij)``, ``w_k = sum_ij alpha_kij ReLU(g_kij)``, ``alpha = g^2
      / (2 g^2 + (sum_ij a_kij) g^3)`` (Chattopadhay et al. 2018, arXiv 1710.11063, eq. 19), y the target's
      logit.
    - ``layercam``: ``ReLU(sum_k ReLU(g_kij) a_kij)`` (Jiang et al. 2021, 10.1109/TIP.2021.3089943), y the
      target's logit.
    - ``finer-cam``: Grad-CAM, ``ReLU(sum_k a_kij mean_ij g_kij)``, of ``y = sum_d p_d (z_t - z_d) / sum_d
      p_d`` over the three classes d whose logits are nearest to the target's, p their probabilities (Zhang
      et al., CVPR 2025, arXiv 2501.11309, with the package's weights and strength 1).

    Bias: a cell is as large as the layer's stride (32 px in a ResNet), so these maps gain wherever a score
    asks for large regions, and can't show anything smaller. The scale takes away the least value of each
    map. ``layercam`` was made for early layers too: name one with ``layercam@LAYER``. In a vision
    transformer the last convolution embeds the patches.

    Attributes:
        name: one of the three; ``finer-cam@MODULE`` names the layer.
        module: the copy of the model.
        layer: its module by its path.
    """

    package: ClassVar[str] = "grad-cam"
    name: str
    module: Columns
    layer: str
    coarse: bool = True
    layered: bool = True

    @classmethod
    def of(cls, name: str, network: Network, image: Tensor | None = None) -> "ActivationMap":
        """The map of a captured model, which is copied.

        Args:
            name: see above.
            network: the model.
            image: (C, H, W) as the model will see it, to find the last convolution; not needed where a
                layer is named.

        Raises:
            ModuleNotFoundError: grad-cam is not installed.
            TypeError: the model is an exported program.
            ValueError: no such layer, or no convolution.
        """
        optional("pytorch_grad_cam", f"{name} by the package grad-cam", extra="bench")
        return cls(name, *checked_layer(name, network, image))

    @property
    def definition(self) -> str:
        kind = self.name.partition("@")[0]
        return f"grad-cam {kind}: {RIVALS[kind]}, layer {self.layer}"

    def on(self, network: Network) -> "ActivationMap":
        assert isinstance(network.model, nn.Module)  # it is made of one
        return ActivationMap(self.name, Columns.of(network.model), self.layer)

    def __call__(self, images: Tensor, targets: Tensor, ids: Sequence[str] = ()) -> Tensor:
        """Heatmaps (B, H, W) of images (B, C, H, W) for targets (B,); the ids are not used."""
        del ids
        package = optional("pytorch_grad_cam", self.name, extra="bench")
        layers = [self.module.model.get_submodule(self.layer)]
        kinds = {
            "gradcam-plusplus": package.GradCAMPlusPlus,
            "layercam": package.LayerCAM,
            "finer-cam": package.FinerCAM,
        }
        kind = self.name.partition("@")[0]
        score = _lead if kind == "finer-cam" else _logit
        with torch.enable_grad(), kinds[kind](self.module, layers) as cam:
            given = images.detach().clone().requires_grad_()
            found = cam(input_tensor=given, targets=[score(int(target)) for target in targets])
        return torch.from_numpy(found).to(images)


def _logit(target: int) -> Callable[[Tensor], Tensor]:
    return lambda logits: logits[target]


def _lead(target: int) -> Callable[[Tensor], Tensor]:
    """How far a logit is ahead of those of the most similar classes, as the package weighs them."""
    targets = optional("pytorch_grad_cam.utils.model_targets", "finer-cam", extra="bench")

    def score(logits: Tensor) -> Tensor:
        apart = (logits.detach() - logits.detach()[target]).abs()
        apart[target] = torch.inf
        nearest = apart.topk(min(SIMILAR, len(logits) - 1), largest=False).indices.tolist()
        found: Tensor = targets.FinerWeightedTarget(target, nearest, 1.0)(logits)
        return found

    return score
