"""What classifiers trained on ImageNet share: 1000 class names and a preprocessing."""

from collections.abc import Sequence

from clarp.models._torchvision import torchvision
from clarp.models.classifier import Preprocess

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def labels() -> tuple[str, ...]:
    """The 1000 class names, as torchvision spells them."""
    return tuple(torchvision.models.ResNet50_Weights.DEFAULT.meta["categories"])


def preprocessing(
    size: tuple[int, int] = (224, 224),
    *,
    mean: Sequence[float] = MEAN,
    std: Sequence[float] = STD,
    interpolation: str = "bilinear",
) -> Preprocess:
    """The usual evaluation transform: resize, cut out the middle 7/8, normalise.

    Args:
        size: height and width of what the model gets. The photo's shorter side becomes 8/7 of the longer of the two.
        mean: subtracted from each channel, on the scale of 0 to 1.
        std: what is left is divided by it.
        interpolation: ``"bilinear"`` or ``"bicubic"``.
    """
    transforms = torchvision.transforms
    preprocess: Preprocess = transforms.Compose(
        [
            transforms.Resize(max(size) * 8 // 7, transforms.InterpolationMode(interpolation)),
            transforms.CenterCrop(size),
            transforms.ToTensor(),
            transforms.Normalize(mean, std),
        ]
    )
    return preprocess
