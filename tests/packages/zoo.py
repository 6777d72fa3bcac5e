"""Models of other people's packages, with random weights: what they are called, how they are made, and what becomes of them.

Each is imported when it is made: none of these packages is among the tests' own.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Make = Callable[[], nn.Module]


@dataclass(frozen=True)
class Case:
    """One model.

    Attributes:
        package: what must be importable.
        name: as in docs/classifiers.md.
        make: the model, in whatever mode.
        size: of an image.
        output: which of its results are the logits.
        inputs: what it takes beside the images.
    """

    package: str
    name: str
    make: Make
    size: tuple[int, ...] = (3, 64, 64)
    output: Any = None
    inputs: Callable[[], tuple[Any, ...]] = tuple


class Head(nn.Module):
    """Something, and behind it a small classifier of three channels."""

    def __init__(self, *layers: nn.Module, channels: int = 3) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)
        self.body, self.head = nn.Conv2d(channels, 4, 3), nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(self.layers(x)).relu().mean((2, 3)))
        return logits


class ZeroShot(nn.Module):
    """An image encoder against texts that are encoded already, the usual end of CLIP."""

    texts: Tensor

    def __init__(self, model: Any, width: int) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("texts", F.normalize(torch.randn(5, width), dim=-1))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = (
            self.model.logit_scale.exp() * self.model.encode_image(x, normalize=True) @ self.texts.T
        )
        return logits


class WithPrompts(nn.Module):
    """Image and texts through one model; the texts are a further input."""

    def __init__(self, model: Any, *, hugging_face: bool) -> None:
        super().__init__()
        self.model, self.hugging_face = model, hugging_face

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        if self.hugging_face:
            found: Tensor = self.model(pixel_values=x, input_ids=tokens).logits_per_image
            return found
        images, texts, scale = self.model(x, tokens)
        logits: Tensor = scale * images @ texts.T
        return logits


def xray(*, thresholds: bool) -> nn.Module:
    from torchxrayvision.models import DenseNet

    model: nn.Module = DenseNet(num_classes=18)
    if thresholds:
        found = torch.rand(18) * 0.5 + 0.2
        found[3] = torch.nan  # a finding without a threshold, as in its weights
        model.op_threshs, model.apply_sigmoid = found, True
    return model


def monai(name: str, **keywords: Any) -> nn.Module:
    from monai.networks import nets

    model: nn.Module = getattr(nets, name)(spatial_dims=2, **keywords)
    return model


def smp(name: str, encoder: str = "resnet18") -> nn.Module:
    import segmentation_models_pytorch

    made = getattr(segmentation_models_pytorch, name)
    model: nn.Module = made(
        encoder, encoder_weights=None, classes=2, aux_params={"classes": 5, "dropout": 0.2}
    )
    return model


def open_clip(name: str) -> Any:
    import open_clip

    return open_clip.create_model(name, pretrained=None)


def prompts() -> tuple[Tensor]:
    from open_clip import tokenizer

    return (tokenizer.tokenize(["a cat", "a dog", "a tree"]),)


def lora(model: nn.Module, *modules: str, head: str) -> nn.Module:
    from peft import LoraConfig, get_peft_model

    found: nn.Module = get_peft_model(model, LoraConfig(target_modules=list(modules), modules_to_save=[head]))  # type: ignore[arg-type]
    return found


def lora_timm() -> nn.Module:
    import timm

    return lora(timm.create_model("vit_tiny_patch16_224", num_classes=5), "qkv", head="head")


def lora_hf() -> nn.Module:
    import transformers

    config = transformers.ViTConfig(
        hidden_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=96,
        image_size=64,
        patch_size=16,
        num_labels=3,
    )
    model = transformers.ViTForImageClassification(config)
    names = (
        ("q_proj", "v_proj")
        if any(n.endswith("q_proj") for n, _ in model.named_modules())
        else ("query", "value")
    )
    return lora(model, *names, head="classifier")


def yolo(name: str) -> nn.Module:
    from ultralytics import YOLO

    model: nn.Module = YOLO(f"{name}.yaml").model
    return model


def efficientnet(name: str) -> nn.Module:
    from efficientnet_pytorch import EfficientNet

    model: nn.Module = EfficientNet.from_name(name)
    return model


def cadene(name: str) -> nn.Module:
    import pretrainedmodels

    model: nn.Module = pretrainedmodels.__dict__[name](num_classes=1000, pretrained=None)
    return model


def lucidrains(module: str, name: str, **keywords: Any) -> nn.Module:
    from importlib import import_module

    model: nn.Module = getattr(import_module(module), name)(num_classes=5, **keywords)
    return model


PLAIN: dict[str, Any] = {
    "image_size": 64,
    "patch_size": 16,
    "dim": 48,
    "depth": 2,
    "heads": 4,
    "mlp_dim": 64,
    "dim_head": 12,
}
CCT: dict[str, Any] = {
    "img_size": 64,
    "embedding_dim": 48,
    "n_conv_layers": 2,
    "kernel_size": 3,
    "stride": 2,
    "padding": 1,
    "pooling_kernel_size": 3,
    "pooling_stride": 2,
    "pooling_padding": 1,
    "num_layers": 2,
    "num_heads": 4,
    "mlp_ratio": 2.0,
    "positional_embedding": "learnable",
}


def kornia(which: str) -> nn.Module:
    import kornia

    layers: dict[str, Callable[[], nn.Module]] = {
        "Normalize": lambda: kornia.enhance.Normalize(
            torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.2, 0.2, 0.3])
        ),
        "GaussianBlur2d": lambda: kornia.filters.GaussianBlur2d((5, 5), (1.5, 1.5)),
        "MaxBlurPool2D": lambda: kornia.filters.MaxBlurPool2D(3),
        "Resize": lambda: kornia.geometry.transform.Resize((24, 24)),
        "RgbToYcbcr": kornia.color.RgbToYcbcr,
        "Sobel": kornia.filters.Sobel,
    }
    return Head(layers[which]())


def clip(kind: str) -> Any:
    import transformers

    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    words = {
        "vocab_size": 99,
        "max_position_embeddings": 16,
        "eos_token_id": 98,
        "bos_token_id": 97,
        "pad_token_id": 1,
    }
    config = transformers.CLIPConfig(
        text_config=small | words,
        vision_config=small | {"image_size": 64, "patch_size": 16},
        projection_dim=24,
        num_labels=4,
    )
    return getattr(transformers, kind)(config)


def tokens() -> tuple[Tensor]:
    found = torch.randint(2, 90, (3, 7), generator=torch.Generator().manual_seed(0))
    found[:, -1] = 98
    return (found,)


CASES = (
    Case("torchxrayvision", "DenseNet", partial(xray, thresholds=False), (1, 64, 64)),
    Case("torchxrayvision", "DenseNet with its thresholds", partial(xray, thresholds=True), (1, 64, 64)),
    Case(
        "monai", "DenseNet121, 2-d", partial(monai, "DenseNet121", in_channels=1, out_channels=3), (1, 64, 64)
    ),
    Case("monai", "ResNet, 2-d", partial(monai, "resnet18", n_input_channels=1, num_classes=3), (1, 64, 64)),
    Case("monai", "SEResNet50, 2-d", partial(monai, "SEResNet50", in_channels=1, num_classes=3), (1, 64, 64)),
    Case(
        "monai",
        "ViT, 2-d",
        partial(
            monai,
            "ViT",
            in_channels=1,
            img_size=(64, 64),
            patch_size=(16, 16),
            classification=True,
            num_classes=3,
            hidden_size=48,
            mlp_dim=96,
            num_layers=2,
            num_heads=4,
        ),
        (1, 64, 64),
        output=0,
    ),
    *(
        Case("segmentation_models_pytorch", f"{name}, classification head", partial(smp, name), output=1)
        for name in ("Unet", "FPN", "Linknet", "PSPNet", "DeepLabV3Plus")
    ),
    Case(
        "segmentation_models_pytorch",
        "Unet of mit_b0, classification head",
        partial(smp, "Unet", "mit_b0"),
        output=1,
    ),
    Case("open_clip", "ViT-B-32, zero-shot", lambda: ZeroShot(open_clip("ViT-B-32"), 512), (3, 224, 224)),
    Case(
        "open_clip",
        "ViT-B-32, prompts as further input",
        lambda: WithPrompts(open_clip("ViT-B-32"), hugging_face=False),
        (3, 224, 224),
        inputs=prompts,
    ),
    Case("peft", "LoRA of timm's ViT", lora_timm, (3, 224, 224)),
    Case("peft", "LoRA of transformers' ViT", lora_hf),
    Case("ultralytics", "yolov8n-cls", partial(yolo, "yolov8n-cls")),
    Case("ultralytics", "yolo11n-cls", partial(yolo, "yolo11n-cls")),
    Case("efficientnet_pytorch", "efficientnet-b0", partial(efficientnet, "efficientnet-b0")),
    Case("pretrainedmodels", "resnet18", partial(cadene, "resnet18"), (3, 224, 224)),
    Case("pretrainedmodels", "se_resnext50_32x4d", partial(cadene, "se_resnext50_32x4d"), (3, 224, 224)),
    Case("pretrainedmodels", "inceptionv4", partial(cadene, "inceptionv4"), (3, 299, 299)),
    Case("pretrainedmodels", "xception", partial(cadene, "xception"), (3, 299, 299)),
    Case("pretrainedmodels", "dpn68", partial(cadene, "dpn68"), (3, 224, 224)),
    Case("vit_pytorch", "ViT", partial(lucidrains, "vit_pytorch.vit", "ViT", **PLAIN)),
    Case("vit_pytorch", "SimpleViT", partial(lucidrains, "vit_pytorch.simple_vit", "SimpleViT", **PLAIN)),
    Case(
        "vit_pytorch",
        "CvT",
        partial(
            lucidrains, "vit_pytorch.cvt", "CvT", s1_emb_dim=16, s2_emb_dim=32, s3_emb_dim=48, s3_depth=2
        ),
    ),
    Case("vit_pytorch", "CCT", partial(lucidrains, "vit_pytorch.cct", "CCT", **CCT)),
    Case("vit_pytorch", "CaiT", partial(lucidrains, "vit_pytorch.cait", "CaiT", cls_depth=1, **PLAIN)),
    Case("vit_pytorch", "DeepViT", partial(lucidrains, "vit_pytorch.deepvit", "DeepViT", **PLAIN)),
    Case(
        "vit_pytorch",
        "LeViT",
        partial(
            lucidrains,
            "vit_pytorch.levit",
            "LeViT",
            image_size=64,
            stages=2,
            dim=(48, 64),
            depth=2,
            heads=(2, 3),
            mlp_mult=2,
        ),
    ),
    *(
        Case("kornia", name, partial(kornia, name), (3, 32, 32))
        for name in ("Normalize", "GaussianBlur2d", "MaxBlurPool2D", "Resize", "RgbToYcbcr", "Sobel")
    ),
    Case(
        "transformers",
        "CLIPForImageClassification",
        partial(clip, "CLIPForImageClassification"),
        output="logits",
    ),
    Case(
        "transformers",
        "CLIPModel, prompts as further input",
        lambda: WithPrompts(clip("CLIPModel"), hugging_face=True),
        inputs=tokens,
    ),
)
