"""The pointing game against TorchRay's published rule.

The rule, as published (Fong 2019, and TorchRay's documentation): the region of acceptance is the open disc of
radius 15 px around the arg-max point of the map on the original image; a hit if it meets the class's mask,
otherwise a miss.
"""

import math

import pytest
import torch
from torch.nn import functional as F

from clarp.data import Geometry
from clarp.evaluation import PointingGame, mean_over_classes


def published(heatmap, mask, tolerance):
    """Hit (True), miss (False) or not asked (None), pixel by pixel, by the documented policies."""
    height, width = len(heatmap), len(heatmap[0])
    values = [heatmap[r][c] for r in range(height) for c in range(width)]
    if not any(any(line) for line in mask):
        return None
    if not all(math.isfinite(value) for value in values) or min(values) == max(values):
        return False
    at = values.index(max(values))
    row, column = at // width, at % width
    return any(
        mask[r][c] and ((r - row) ** 2 + (c - column) ** 2 < tolerance**2 or (r, c) == (row, column))
        for r in range(height)
        for c in range(width)
    )


def test_equals_the_published_rule_on_random_inputs():
    generator = torch.Generator().manual_seed(3)
    outcomes = set()
    for trial in range(60):
        height, width = (int(x) for x in torch.randint(20, 50, (2,), generator=generator))
        heatmap = torch.randn(height, width, generator=generator, dtype=torch.float64)
        if trial % 3 == 0:
            heatmap = heatmap.round()  # many ties
        mask = torch.rand(height, width, generator=generator) < 0.0015
        tolerance = [0, 1, 4, 15][trial % 4]
        row = PointingGame(tolerance)(None, None, heatmap[None], masks=[mask])["hit"].item()
        expected = published(heatmap.tolist(), mask.tolist(), tolerance)
        outcomes.add(expected)
        assert row == expected if expected is not None else math.isnan(row)
    assert outcomes == {True, False, None}


def one_hot(size, row, column):
    heatmap = torch.zeros(size)
    heatmap[row, column] = 1.0
    return heatmap


def spot(size, row, column):
    return one_hot(size, row, column).bool()


SIZE = (60, 80)
EDGES = [
    ("inside", one_hot(SIZE, 30, 40), spot(SIZE, 30, 40), 1.0),
    ("14 pixels away", one_hot(SIZE, 30, 40), spot(SIZE, 30, 54), 1.0),
    ("exactly 15 pixels away is outside", one_hot(SIZE, 30, 40), spot(SIZE, 30, 55), 0.0),
    ("9 and 12 pixels away is 15", one_hot(SIZE, 30, 40), spot(SIZE, 39, 52), 0.0),
    ("10 and 11 pixels away is less than 15", one_hot(SIZE, 30, 40), spot(SIZE, 40, 51), 1.0),
    ("point in the corner", one_hot(SIZE, 0, 0), spot(SIZE, 14, 0), 1.0),
    ("the disc does not wrap around", one_hot(SIZE, 0, 0), spot(SIZE, 0, 79), 0.0),
    ("point on the last row", one_hot(SIZE, 59, 79), spot(SIZE, 59, 66), 1.0),
    (
        "tie: the first row by row, here the hit",
        one_hot(SIZE, 5, 70) + one_hot(SIZE, 50, 5),
        spot(SIZE, 5, 70),
        1.0,
    ),
    ("tie: the second does not count", one_hot(SIZE, 5, 70) + one_hot(SIZE, 50, 5), spot(SIZE, 50, 5), 0.0),
    ("nan", one_hot(SIZE, 30, 40).index_fill(0, torch.tensor(7), torch.nan), torch.ones(SIZE).bool(), 0.0),
    ("all nan", torch.full(SIZE, torch.nan), torch.ones(SIZE).bool(), 0.0),
    ("infinity", one_hot(SIZE, 30, 40) * torch.inf, torch.ones(SIZE).bool(), 0.0),
    ("zeros", torch.zeros(SIZE), torch.ones(SIZE).bool(), 0.0),
    ("constant", torch.full(SIZE, 2.5), torch.ones(SIZE).bool(), 0.0),
    ("negative everywhere but not constant", -1 - one_hot(SIZE, 0, 0), torch.ones(SIZE).bool(), 1.0),
    ("no object", one_hot(SIZE, 30, 40), torch.zeros(SIZE).bool(), None),
    ("no object and nan", torch.full(SIZE, torch.nan), torch.zeros(SIZE).bool(), None),
]


@pytest.mark.parametrize(
    ("heatmap", "mask", "expected"), [edge[1:] for edge in EDGES], ids=[edge[0] for edge in EDGES]
)
def test_edges(heatmap, mask, expected):
    rows = PointingGame()(None, None, heatmap[None], masks=mask[None])
    value = rows["hit"].item()
    assert math.isnan(value) if expected is None else value == expected


def test_all_edges_at_once():
    maps, masks = torch.stack([edge[1] for edge in EDGES]), torch.stack([edge[2] for edge in EDGES])
    rows = PointingGame()(None, None, maps, masks=masks)
    expected = torch.tensor(
        [torch.nan if edge[3] is None else edge[3] for edge in EDGES], dtype=torch.float64
    )
    torch.testing.assert_close(rows["hit"], expected, equal_nan=True)


def test_difficult_and_skipped():
    maps = torch.stack([one_hot(SIZE, 30, 40)] * 5)
    masks = torch.stack(
        [
            spot(SIZE, 30, 40),
            spot(SIZE, 0, 0),
            spot(SIZE, 30, 40),
            torch.zeros(SIZE).bool(),
            spot(SIZE, 30, 40),
        ]
    )
    rows = PointingGame()(
        None,
        None,
        maps,
        masks=masks,
        difficult=[True, True, False, True, True],
        skip=torch.tensor([False, False, False, False, True]),
    )
    nan = torch.nan
    torch.testing.assert_close(
        rows["hit"], torch.tensor([1, 0, 1, nan, nan], dtype=torch.float64), equal_nan=True
    )
    torch.testing.assert_close(
        rows["hit_difficult"], torch.tensor([1, 0, nan, nan, nan], dtype=torch.float64), equal_nan=True
    )


def test_the_map_is_resized_to_the_original_as_torch_does_it():
    generator = torch.Generator().manual_seed(0)
    maps = torch.rand(4, 14, 18, generator=generator, dtype=torch.float64)
    sizes = [(61, 90), (14, 18), (9, 40), (120, 33)]
    rows = PointingGame()(None, None, maps, masks=[torch.ones(size).bool() for size in sizes])
    for i, size in enumerate(sizes):
        large = F.interpolate(maps[i][None, None], size, mode="bilinear", align_corners=False)[0, 0]
        at = divmod(int(large.argmax()), size[1])
        assert (rows["row"][i].item(), rows["column"][i].item()) == at


def test_the_point_of_a_crop_is_counted_from_the_original():
    geometry = Geometry.of(
        (100, 200), resize=50, crop=40
    )  # the crop begins 5 rows and 30 columns in, at half size
    mask = spot((100, 200), 2 * (5 + 20), 2 * (30 + 10))
    rows = PointingGame(tolerance=3)(
        None, None, one_hot((40, 40), 20, 10)[None], masks=[mask], geometries=[geometry]
    )
    assert rows["hit"].item() == 1.0
    assert abs(rows["row"].item() - 50.5) <= 0.5
    assert abs(rows["column"].item() - 80.5) <= 0.5


def test_what_the_crop_cut_away_is_never_the_point():
    geometry = Geometry.of((100, 200), resize=50, crop=40)
    heatmap = -1 - torch.rand(40, 40, generator=torch.Generator().manual_seed(0))  # zeros outside would win
    rows = PointingGame(smoothing=0.02)(
        None, None, heatmap[None], masks=[torch.ones(100, 200).bool()], geometries=[geometry]
    )
    assert 10 <= rows["row"].item() < 90
    assert 60 <= rows["column"].item() < 140


@pytest.mark.parametrize("smoothing", [0.02, 0.1])
def test_smoothing_equals_scipy(smoothing):
    ndimage = pytest.importorskip("scipy.ndimage")
    maps = torch.rand(3, 40, 64, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    rows = PointingGame(smoothing=smoothing)(None, None, maps, masks=torch.ones(3, 40, 64).bool())
    sigma = smoothing * 64
    moved = 0
    for i in range(3):
        smooth = ndimage.gaussian_filter(maps[i].numpy(), sigma, mode="constant", radius=math.ceil(4 * sigma))
        at = divmod(int(smooth.argmax()), 64)
        moved += at != divmod(int(maps[i].argmax()), 64)
        assert (rows["row"][i].item(), rows["column"][i].item()) == at
    assert moved


def test_a_lone_pixel_loses_against_a_crowd_when_smoothed():
    heatmap = torch.zeros(1, 60, 80)
    heatmap[0, 5, 5] = 1.0
    heatmap[0, 40:46, 60:66] = 0.8
    mask = spot(SIZE, 43, 63)[None]
    assert PointingGame()(None, None, heatmap, masks=mask)["hit"].item() == 0.0
    assert PointingGame(smoothing=0.02)(None, None, heatmap, masks=mask)["hit"].item() == 1.0


class TestErrors:
    maps = torch.rand(2, 10, 10)
    masks = torch.ones(2, 10, 10).bool()

    def test_number_of_masks(self):
        with pytest.raises(ValueError, match="one mask and one geometry per map"):
            PointingGame()(None, None, self.maps, masks=self.masks[:1])

    def test_number_of_geometries(self):
        with pytest.raises(ValueError, match="one mask and one geometry per map"):
            PointingGame()(None, None, self.maps, masks=self.masks, geometries=[])

    def test_geometry_of_another_model_size(self):
        with pytest.raises(ValueError, match="the model's input is 8 x 8"):
            PointingGame()(
                None, None, self.maps, masks=self.masks, geometries=[Geometry.of((10, 10), resize=8)] * 2
            )

    def test_mask_of_another_photo(self):
        with pytest.raises(ValueError, match=r"not of the image of \(12, 12\)"):
            PointingGame()(
                None, None, self.maps, masks=self.masks, geometries=[Geometry.of((12, 12), resize=10)] * 2
            )

    @pytest.mark.parametrize("name", ["difficult", "skip"])
    def test_number_of_flags(self, name):
        with pytest.raises(ValueError, match=name):
            PointingGame()(None, None, self.maps, masks=self.masks, **{name: [True]})

    @pytest.mark.parametrize("options", [{"tolerance": -1}, {"smoothing": -0.1}, {"tolerance": float("nan")}])
    def test_options(self, options):
        with pytest.raises(ValueError, match="at least 0"):
            PointingGame(**options)


class TestMeanOverClasses:
    def test_small_classes_count_as_much_as_large_ones(self):
        assert mean_over_classes(torch.tensor([1.0, 1.0, 1.0, 0.0]), [7, 7, 7, 2]) == 0.5

    def test_rows_that_are_not_counted(self):
        values = torch.tensor([1.0, torch.nan, torch.nan, 0.0, 1.0])
        assert mean_over_classes(values, ["a", "a", "b", "c", "c"]) == 0.75

    def test_nothing(self):
        assert math.isnan(mean_over_classes(torch.tensor([torch.nan]), ["a"]))
