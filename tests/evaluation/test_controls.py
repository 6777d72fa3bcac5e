import pytest
import torch

from clarp.evaluation import CentrePosition, PatchMasking, Pooling, RandomPosition
from clarp.evaluation.metrics.base import Heatmaps

IMAGES = torch.zeros(3, 3, 12, 17)
IDS = ["a.jpg", "b.jpg", "c.jpg"]


def test_the_random_position_depends_on_seed_and_id_only():
    maps = RandomPosition(4)(IMAGES, IDS)
    torch.testing.assert_close(RandomPosition(4)(IMAGES[:1], ["b.jpg"])[0], maps[1])
    assert not torch.equal(RandomPosition(5)(IMAGES, IDS), maps)
    assert not torch.equal(maps[0], maps[1])


def test_random_positions_are_uniform():
    ids = [f"{i}" for i in range(4000)]
    row, column = Heatmaps.of(RandomPosition()(torch.zeros(4000, 1, 4, 5), ids)).points()
    counts = torch.bincount(row * 5 + column, minlength=20)
    # 200 expected in each of 20 cells; the chi-square of 19 degrees of freedom exceeds 43.8 once in 1000.
    assert float(((counts - 200.0) ** 2 / 200).sum()) < 43.8


def test_a_random_position_without_ids():
    with pytest.raises(ValueError, match="one id per image"):
        RandomPosition()(IMAGES, IDS[:2])


@pytest.mark.parametrize(("height", "width"), [(12, 17), (5, 5), (1, 1), (224, 224)])
def test_the_centre(height, width):
    row, column = Heatmaps.of(CentrePosition()(torch.zeros(2, 3, height, width), IDS[:2])).points()
    assert row.tolist() == [height // 2] * 2
    assert column.tolist() == [width // 2] * 2


def test_the_window_surrounds_the_position():
    images = torch.zeros(1, 3, 30, 30)
    maps = CentrePosition()(images, ["a"])
    boxes = PatchMasking(9, centre="window")._patches(Heatmaps.of(maps), 9)
    assert boxes.tolist() == [[11, 11, 20, 20]]


def test_type_and_range():
    maps = RandomPosition()(IMAGES.half(), IDS)
    assert maps.dtype == torch.float16
    assert float(maps.min()) == 0.0
    assert float(maps.max()) == 1.0


@pytest.mark.parametrize("size", [1, 4, 5, 16])
def test_pooling_equals_its_plain_twin(size):
    maps = torch.randn(2, 12, 17, generator=torch.Generator().manual_seed(0))
    expected = torch.empty_like(maps)
    for top in range(0, 12, size):
        for left in range(0, 17, size):
            square = maps[:, top : top + size, left : left + size]
            expected[:, top : top + size, left : left + size] = square.mean((1, 2), keepdim=True)
    torch.testing.assert_close(Pooling(size)(maps), expected)
