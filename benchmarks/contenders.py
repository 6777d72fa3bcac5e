"""Who is timed: clarp, the plain gradient, and the installed peers. Each is prepared once, outside the clock."""

import copy
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

import clarp
from clarp.models._torchvision import torchvision
from clarp.network import Network

Call = Callable[[], object]
Prepare = Callable[[nn.Module, Tensor, Tensor], Call]
"""Model, images (B, C, H, W) and targets (B,) or (B, K) to what is timed."""

BOUNDS = (-3.0, 3.0)


def explained(method: str, **options: Any) -> Prepare:
    """Clarp's explainer."""

    def prepare(model: nn.Module, images: Tensor, targets: Tensor) -> Call:
        explainer = clarp.Explainer(_network(model), method, bounds=BOUNDS, **options)
        return lambda: explainer(images, targets)

    return prepare


def gradient(model: nn.Module, images: Tensor, targets: Tensor) -> Call:
    """PyTorch's own gradient of the logits, the parameters left out."""
    model.requires_grad_(requires_grad=False)

    def call() -> Tensor:
        x = images.clone().requires_grad_()
        logits = model(x)
        columns = targets.view(len(images), -1).unbind(1)
        return torch.stack(
            [
                torch.autograd.grad(logits.gather(1, t.unsqueeze(1)).sum(), x, retain_graph=True)[0]
                for t in columns
            ]
        )

    return call


def zennit(model: nn.Module, images: Tensor, targets: Tensor) -> Call:
    """Zennit's EpsilonPlus with the canonizer of the architecture."""
    own, attribution = import_module("zennit.torchvision"), import_module("zennit.attribution")
    composites, canonizers = import_module("zennit.composites"), import_module("zennit.canonizers")
    if isinstance(model, torchvision.models.ResNet):
        canonizer = own.ResNetCanonizer()
    elif isinstance(model, torchvision.models.VGG):
        canonizer = own.VGGCanonizer()
    else:
        canonizer = canonizers.SequentialMergeBatchNorm()
    composite = composites.EpsilonPlus(canonizers=[canonizer])

    def call() -> Tensor:
        seed = nn.functional.one_hot(targets, _classes(model, images)).to(images)
        with attribution.Gradient(model, composite) as attributor:
            return attributor(images.clone(), seed)[1]

    return call


def captum(model: nn.Module, images: Tensor, targets: Tensor) -> Call:
    """Captum's LRP with its alpha-1-beta-0 rule (z+) in convolutions; it refuses a module that is called twice."""
    attr, rules = import_module("captum.attr"), import_module("captum.attr._utils.lrp_rules")
    model = _without_inplace(model)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.rule = rules.Alpha1_Beta0_Rule()
        elif isinstance(module, nn.Linear):
            module.rule = rules.EpsilonRule()
    method = attr.LRP(model)
    return lambda: method.attribute(images.clone().requires_grad_(), target=targets)


def autolrp(model: nn.Module, images: Tensor, targets: Tensor) -> Call:
    """AutoLRP with zplus in convolutions, epsilon in dense layers."""
    package = import_module("autolrp")
    config = package.LRPConfig(rule={**package.BASE, "ConvolutionBackward": "zplus"})

    def call() -> Tensor:
        x = package.tensor(images.clone())
        model(x).gather(1, targets.unsqueeze(1)).sum().lrp(config=config)
        return x.relevance

    return call


def gradcam(model: nn.Module, images: Tensor, targets: Tensor) -> Call:
    """grad-cam's Grad-CAM of the last convolution: a coarse map, here for its price."""
    package, target = (
        import_module("pytorch_grad_cam"),
        import_module("pytorch_grad_cam.utils.model_targets"),
    )
    last = [module for module in model.modules() if isinstance(module, nn.Conv2d)][-1]
    cam = package.GradCAM(model=model.requires_grad_(requires_grad=True), target_layers=[last])
    wanted = [target.ClassifierOutputTarget(int(t)) for t in targets]
    return lambda: cam(input_tensor=images, targets=wanted)


CONTENDERS: Mapping[str, Prepare] = {
    "lrp": explained("lrp"),
    "sglrp": explained("sglrp"),
    "slrp": explained("slrp"),
    "ssglrp": explained("ssglrp"),
    "clarp": explained("clarp"),
    "lrp, epsilon-plus": explained("lrp", composite="epsilon-plus"),
    "lrp, bfloat16": explained("lrp", dtype="bfloat16"),
    "ssglrp, bfloat16": explained("ssglrp", dtype="bfloat16"),
    "lrp, compiled": explained("lrp", compile=True),
    "ssglrp, compiled": explained("ssglrp", compile=True),
    "gradient": gradient,
    "zennit, epsilon-plus": zennit,
    "autolrp, epsilon-plus": autolrp,
    "captum, epsilon-plus": captum,
    "grad-cam": gradcam,
}
OURS = tuple(name for name, prepare in CONTENDERS.items() if prepare.__name__ == "prepare")
"""Those that leave the model as it is; a peer that fails half-way may not, and gets a copy."""
ON_REQUEST = ("lrp, compiled", "ssglrp, compiled")
"""Those that take minutes before the first call."""
MANY = ("lrp", "ssglrp", "gradient")
"""Those that take several targets of an image."""
FIRST_PEER = "zennit, epsilon-plus"
PLOTTED = (
    "lrp, bfloat16",
    "lrp",
    "ssglrp",
    "gradient",
    "grad-cam",
    "autolrp, epsilon-plus",
    "zennit, epsilon-plus",
    "captum, epsilon-plus",
)
WEIGHED = ("lrp", "ssglrp", "clarp", "lrp, bfloat16", "gradient", "zennit, epsilon-plus")
"""Those whose memory is measured."""


def _network(model: nn.Module) -> Network:
    """One for all explainers of a model: they share its weights."""
    if not hasattr(model, "_network"):
        object.__setattr__(model, "_network", Network(model))
    return model._network  # type: ignore[return-value]  # noqa: SLF001


def _classes(model: nn.Module, images: Tensor) -> int:
    if not hasattr(model, "_classes"):
        with torch.inference_mode():
            model._classes = model(images[:1]).shape[1]  # type: ignore[assignment]  # noqa: SLF001
    return model._classes  # type: ignore[return-value]  # noqa: SLF001


def _without_inplace(model: nn.Module) -> Any:
    model = copy.deepcopy(model)
    for module in model.modules():
        if hasattr(module, "inplace"):
            module.inplace = False
    return model
