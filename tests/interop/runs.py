"""What the tests of loggers share: photos, a network, and what TensorBoard was written."""

import io

import numpy as np
import torch
from PIL import Image
from torch import nn

IMAGES = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Dropout(0.5), nn.AdaptiveAvgPool2d(4), nn.Flatten())
    return nn.Sequential(*layers, nn.Linear(64, 3)).eval()


def written(folder, tag="relevance/0"):
    """The images of a tag in TensorBoard's files: step and pixels."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # noqa: PLC0415

    events = EventAccumulator(str(folder), size_guidance={"images": 0}).Reload()
    return [
        (one.step, np.asarray(Image.open(io.BytesIO(one.encoded_image_string)).convert("RGB")))
        for one in events.Images(tag)
    ]
