import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from clarp.data import Geometry

SIZES = [(375, 500), (500, 375), (224, 224), (100, 640), (61, 47), (600, 601), (300, 301)]
OPTIONS = [
    {"resize": 256, "crop": 224},
    {"resize": 232, "crop": (200, 230)},
    {"resize": (256, 256), "crop": 224},
    {"resize": (120, 90)},
    {"crop": 40},
    {"resize": 64, "crop": 100},
    {},
]


def preprocessing(resize=None, crop=None):
    transforms = pytest.importorskip("clarp.models._torchvision").torchvision.transforms
    steps = []
    if resize is not None:
        steps.append(transforms.Resize(resize))
    if crop is not None:
        steps.append(transforms.CenterCrop(crop))
    return transforms.Compose(
        [*steps, transforms.ToTensor(), transforms.Normalize([0.5, 0.4, 0.3], [0.2, 0.3, 0.1])]
    )


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
class TestAgainstTorchvision:
    def test_size(self, size, options):
        image = Image.new("RGB", size[::-1])
        assert preprocessing(**options)(image).shape[1:] == Geometry.of(size, **options).model

    def test_a_rectangle_ends_where_its_box_ends(self, size, options):
        """Preprocess a picture of a white rectangle on black, and its box."""
        height, width = size
        box = (width // 3, height // 4, width - width // 5, height - height // 6)
        image = Image.new("RGB", (width, height))
        image.paste((255, 255, 255), box)
        seen = preprocessing(**options)(image).mean(0)
        geometry = Geometry.of(size, **options)
        white = seen > preprocessing()(Image.new("RGB", (2, 2), (128, 128, 128))).mean()
        moved = geometry.box_to_model(box)
        rows, columns = white.any(1).nonzero().flatten(), white.any(0).nonzero().flatten()
        edges = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        for got, edge in zip(moved, edges, strict=True):
            assert abs(got - float(edge)) <= 0.75

    def test_a_mask_follows(self, size, options):
        generator = torch.Generator().manual_seed(0)
        coarse = torch.rand(1, 1, 5, 6, generator=generator)
        mask = F.interpolate(coarse, size, mode="bilinear")[0, 0] > 0.5
        image = Image.fromarray((mask.numpy() * 255).astype("uint8")).convert("RGB")
        grey = preprocessing()(Image.new("RGB", (2, 2), (128, 128, 128))).mean()
        seen = preprocessing(**options)(image).mean(0) > grey
        moved = Geometry.of(size, **options).mask_to_model(mask)
        assert moved.dtype == torch.bool
        # Pillow rounds to bytes on the way, so pixels that are half and half may differ.
        assert float((seen != moved).double().mean()) < 0.01

    def test_measured(self, size, options):
        measured = Geometry.measured(preprocessing(**options), size)
        stated = Geometry.of(size, **options)
        assert measured.model == stated.model
        if all(2 * crop >= length for crop, length in zip(stated.model, stated.resized, strict=True)):
            assert measured == stated
        # Where less is seen, the whole length is less certain; what is seen still lies where it should.
        for edge in (0.0, 0.5, 1.0):
            places = []
            for geometry in (measured, stated):
                places += [
                    (geometry.crop[axis] + edge * geometry.model[axis])
                    / geometry.resized[axis]
                    * stated.resized[axis]
                    for axis in (0, 1)
                ]
            assert abs(places[0] - places[2]) < 1
            assert abs(places[1] - places[3]) < 1


@pytest.mark.parametrize("side", [2, 3, 8, 13, 20, 24])
def test_a_tiny_photo_is_measured_as_exactly(side):
    """Bilinear resizing repeats the border over half a pixel of the photo, a large part of so few."""

    def enlarged(image):
        pixels = np.asarray(image.resize((224, 200), Image.Resampling.BILINEAR))
        return torch.from_numpy(pixels.copy()).permute(2, 0, 1) / 255

    assert Geometry.measured(enlarged, (side, side)) == Geometry.of((side, side), resize=(200, 224))


@pytest.mark.parametrize("side", [1, 3])
def test_what_cannot_be_measured_on_a_tiny_photo_is_refused(side):
    def blocks(image):
        pixels = np.asarray(image.resize((224, 224), Image.Resampling.NEAREST))
        return torch.from_numpy(pixels.copy()).permute(2, 0, 1) / 255

    with pytest.raises(ValueError, match="more than resize and crop"):
        Geometry.measured(blocks, (side, side))


def test_a_preprocessing_that_turns_cannot_be_measured():
    transforms = pytest.importorskip("clarp.models._torchvision").torchvision.transforms
    flip = transforms.Compose([transforms.RandomHorizontalFlip(p=1.0), transforms.ToTensor()])
    with pytest.raises(ValueError, match="more than resize and crop"):
        Geometry.measured(flip, (40, 50))


def plain_map(heatmap, geometry, unseen):
    """Bilinear interpolation, one pixel of the photo at a time."""
    top, left, height, width = geometry.crop
    result = torch.full(geometry.original, unseen, dtype=torch.float64)
    for r in range(geometry.original[0]):
        for c in range(geometry.original[1]):
            y = (r + 0.5) * geometry.resized[0] / geometry.original[0] - top
            x = (c + 0.5) * geometry.resized[1] / geometry.original[1] - left
            if not (0 <= y <= height and 0 <= x <= width):
                continue
            y, x = min(max(y - 0.5, 0), height - 1), min(max(x - 0.5, 0), width - 1)
            y0, x0 = math.floor(y), math.floor(x)
            y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
            upper = heatmap[y0, x0] * (1 - (x - x0)) + heatmap[y0, x1] * (x - x0)
            lower = heatmap[y1, x0] * (1 - (x - x0)) + heatmap[y1, x1] * (x - x0)
            result[r, c] = upper * (1 - (y - y0)) + lower * (y - y0)
    return result


@pytest.mark.parametrize(
    "geometry",
    [
        Geometry.of((30, 44), resize=20, crop=14),
        Geometry.of((30, 44), resize=(25, 20)),
        Geometry.of((10, 9), resize=24, crop=(20, 12)),
        Geometry.of((10, 9), crop=14),
    ],
    ids=str,
)
def test_a_map_back_equals_its_plain_twin(geometry):
    heatmap = torch.randn(geometry.model, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    expected = plain_map(heatmap, geometry, -7.0)
    torch.testing.assert_close(geometry.map_to_original(heatmap, unseen=-7.0), expected)
    assert torch.equal(geometry.seen(), expected != -7.0)


@pytest.mark.parametrize("size", [(30, 44), (5, 70), (16, 12)])
def test_a_map_back_without_a_crop_is_torch_interpolate(size):
    heatmap = torch.randn(16, 12, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    expected = F.interpolate(heatmap[None, None], size, mode="bilinear", align_corners=False)[0, 0]
    torch.testing.assert_close(Geometry.of(size, resize=(16, 12)).map_to_original(heatmap), expected)


def test_equal_values_stay_equal():
    heatmap = torch.zeros(7, 7, dtype=torch.float64)
    heatmap[2:5, 2:5] = 0.1 + 0.2
    large = Geometry.of((93, 61), resize=(7, 7)).map_to_original(heatmap)
    assert float(large.max()) == 0.1 + 0.2
    assert int((large == large.max()).sum()) > 100


def test_identity():
    geometry = Geometry.of((9, 13))
    heatmap = torch.rand(9, 13, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.equal(geometry.map_to_original(heatmap), heatmap)
    assert torch.equal(geometry.mask_to_model(heatmap > 0.5), heatmap > 0.5)
    assert geometry.box_to_model((1, 2, 5, 6)) == (1, 2, 5, 6)
    assert geometry.seen().all()


def test_there_and_back():
    geometry = Geometry.of((375, 500), resize=256, crop=224)
    mask = Geometry.of((375, 500)).seen() & False
    mask[100:300, 150:400] = True
    back = geometry.map_to_original(geometry.mask_to_model(mask).double()) > 0.5
    assert float((back != mask).double().mean()) < 0.004


def test_a_box_that_the_crop_cuts_away():
    geometry = Geometry.of((100, 200), resize=100, crop=100)
    assert geometry.box_to_model((0, 0, 50, 100)) is None
    assert geometry.box_to_model((20, 10, 70, 30)) == (0, 10, 20, 30)


def test_padding_belongs_to_nothing():
    moved = Geometry.of((10, 10), crop=14).mask_to_model(torch.ones(10, 10).bool())
    assert int(moved.sum()) == 100
    assert moved[2:12, 2:12].all()


def test_an_object_under_half_a_pixel_is_gone():
    mask = torch.zeros(100, 100).bool()
    mask[50:52, 50:52] = True
    assert not Geometry.of((100, 100), resize=10).mask_to_model(mask).any()


@pytest.mark.parametrize(
    ("columns", "seen"), [(3, [True, True, False, False]), (2, [True, False, False, False])]
)
def test_a_pixel_of_which_half_is_the_object_belongs_to_it(columns, seen):
    """Halving weighs four pixels of the photo by 1/8, 3/8, 3/8 and 1/8, so three columns give the second pixel exactly 1/2."""
    mask = torch.zeros(8, 8).bool()
    mask[:, :columns] = True
    assert Geometry.of((8, 8), resize=4).mask_to_model(mask)[1].tolist() == seen


def test_pictures_of_another_size():
    geometry = Geometry.of((10, 12), resize=5)
    with pytest.raises(ValueError, match=r"mask has the shape \(12, 10\), but the photo is 10 x 12"):
        geometry.mask_to_model(torch.ones(12, 10).bool())
    with pytest.raises(ValueError, match=r"the model's input is 5 x 6"):
        geometry.map_to_original(torch.ones(5, 5))
