"""Which axis of the images holds the channels, as the model reads them; and where that can't be told."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import clarp
from oracle.nets import randomise_


class Shaped(nn.Module):
    """Any function as a module."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Net(nn.Module):
    """A convolution on three channels behind any way of getting there, and a dense layer."""

    def __init__(self, before, conv: nn.Module, behind=None) -> None:
        super().__init__()
        self.before, self.behind = before, behind or (lambda features, _: features)
        self.conv, self.head = conv, nn.Linear(4, 2)

    def forward(self, images: Tensor) -> Tensor:
        features = F.relu(self.conv(self.before(images)))
        return self.behind(self.head(features.flatten(2).mean(2)), len(images))


def views(values: Tensor, count: int) -> Tensor:
    return values.reshape(count, -1, values.shape[1]).mean(1)


VIEWS, VOLUME = (2, 3, 6, 6), (3, 4, 6, 6)
READ = {
    "photos": ((3, 6, 6), 1, lambda x: x, nn.Conv2d(3, 4, 3), None),
    "photos, channels last": ((6, 6, 3), 3, lambda x: x.permute(0, 3, 1, 2), nn.Conv2d(3, 4, 3), None),
    "a volume": (VOLUME, 1, lambda x: x, nn.Conv3d(3, 4, 3), None),
    "a volume, depthwise": (VOLUME, 1, lambda x: x, nn.Conv3d(3, 3, 3, groups=3), lambda y, _: y),
    "slices of a volume": (VOLUME, 1, lambda x: x.transpose(1, 2).flatten(0, 1), nn.Conv2d(3, 4, 3), views),
    "a grey volume as channels": ((1, 3, 6, 6), 1, lambda x: x.squeeze(1), nn.Conv2d(3, 4, 3), None),
    "a clip, frames first": ((4, 3, 6, 6), 2, lambda x: x.transpose(1, 2), nn.Conv3d(3, 4, 3), None),
    "views in the batch": (VIEWS, 2, lambda x: x.flatten(0, 1), nn.Conv2d(3, 4, 3), views),
    "views, resized and normalised": (
        VIEWS,
        2,
        lambda x: F.interpolate((x.flatten(0, 1) - 0.5) / 0.2, size=(5, 5), mode="bilinear"),
        nn.Conv2d(3, 4, 3),
        views,
    ),
    "views, padded": (VIEWS, 2, lambda x: F.pad(x.flatten(0, 1), (1, 1, 1, 1), value=0.5), nn.Conv2d(3, 4, 3), views),
    "views in groups": (VIEWS, 2, lambda x: x.flatten(1, 2), nn.Conv2d(6, 4, 3, groups=2), None),
    "a signal": ((3, 9), 1, lambda x: x, nn.Conv1d(3, 4, 3), None),
    "a sequence of vectors": ((9, 3), 2, lambda x: x.transpose(1, 2), nn.Conv1d(3, 4, 3), None),
}  # fmt: skip


@pytest.mark.parametrize("which", READ)
def test_the_axis_that_the_model_reads_as_channels(which: str) -> None:
    shape, axis, before, conv, behind = READ[which]
    net = Net(before, conv, behind)
    if conv.out_channels != 4:
        net.head = nn.Linear(conv.out_channels, 2)
    explanation = clarp.Explainer(randomise_(net).eval(), "lrp", bounds=(0.0, 1.0))(torch.rand(2, *shape))
    assert explanation.channels == axis
    assert explanation.heatmap.shape == (2, *shape[: axis - 1], *shape[axis:])
    assert torch.equal(explanation.heatmap, explanation.relevance.sum(axis))
    assert not any("channels" in note for note in explanation.notes)


def test_a_loop_over_views() -> None:
    class Loop(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)

        def forward(self, images: Tensor) -> Tensor:
            return sum(self.head(F.relu(self.conv(images[:, v])).mean((2, 3))) for v in range(2))

    explanation = clarp.Explainer(randomise_(Loop()).eval(), "lrp")(torch.rand(2, *VIEWS))
    assert explanation.channels == 2


def test_patches_of_views_read_by_a_dense_layer() -> None:
    patches = Shaped(
        lambda x: x.unflatten(-1, (2, 3)).unflatten(3, (2, 3)).permute(0, 1, 3, 5, 2, 4, 6).flatten(4)
    )
    model = nn.Sequential(
        patches, nn.Linear(27, 4), nn.ReLU(), Shaped(lambda x: x.mean((1, 2, 3))), nn.Linear(4, 2)
    )
    assert clarp.Explainer(model.eval(), "lrp")(torch.rand(1, *VIEWS)).channels == 2


def test_views_as_channels_can_not_be_told_from_slices() -> None:
    model = Net(lambda x: x.flatten(1, 2), nn.Conv2d(6, 4, 3)).eval()
    images = torch.rand(2, *VIEWS)
    assumed = clarp.Explainer(model, "lrp")(images)
    assert assumed.channels == 1
    assert any("channels=2" in note for note in assumed.notes)
    said = clarp.Explainer(model, "lrp", channels=2)(images)
    assert said.heatmap.shape == (2, 2, 6, 6)
    assert not any("channels" in note for note in said.notes)


def test_bounds_are_those_of_the_channels() -> None:
    model = Net(lambda x: x.flatten(0, 1), nn.Conv2d(3, 4, 3), views).eval()
    images = torch.rand(2, *VIEWS)
    low, high = (-0.1, -0.2, -0.3), (1.1, 1.2, 1.3)
    one, same = (
        clarp.Explainer(model, "lrp", bounds=bounds)(images, target=0).relevance
        for bounds in ((low, high), (torch.tensor(low), torch.tensor(high)))
    )
    assert torch.equal(one, same)
    with pytest.raises(ValueError, match=r"2 low values for images of 3 channels.*axis 2"):
        clarp.Explainer(model, "lrp", bounds=(low[:2], high[:2]))(images)
    # Without bounds each image's own, over all views of a channel.
    own = clarp.Explainer(model, "lrp")(images, target=0)
    ends = images[:1].amin((1, 3, 4))[0].tolist(), images[:1].amax((1, 3, 4))[0].tolist()
    given = clarp.Explainer(model, "lrp", bounds=ends)(images[:1], target=0)
    assert torch.allclose(own.relevance[:1], given.relevance, rtol=1e-5, atol=1e-7)
    assert "own" in own.bounds_source


@pytest.mark.parametrize(
    ("channels", "error", "message"),
    [
        (0, ValueError, "expected an axis behind"),
        ("1", TypeError, "expected the axis"),
        (5, ValueError, "no axis of"),
    ],
)
def test_channels_that_are_no_axis(channels: object, error: type, message: str) -> None:
    model = Net(lambda x: x, nn.Conv2d(3, 4, 3)).eval()
    with pytest.raises(error, match=message):
        clarp.Explainer(model, "lrp", channels=channels)(torch.rand(1, 3, 6, 6))
