import math

import pytest
import torch

from clarp.evaluation import EnergyPointing, GridPointingGame, RelevanceRankAccuracy, StrictPointing

PIXELS = [(r, c) for r in range(24) for c in range(30)]


@pytest.fixture
def maps(batch):
    batch.maps[0] = batch.maps[0].round()  # ties
    return batch.maps


def test_energy_equals_its_plain_twin(batch, maps):
    rows = EnergyPointing()(None, None, maps, masks=batch.masks)
    for i in range(5):
        inside = sum(max(0.0, float(maps[i, r, c])) for r, c in PIXELS if batch.masks[i, r, c])
        whole = sum(max(0.0, float(maps[i, r, c])) for r, c in PIXELS)
        assert rows["energy"][i].item() == pytest.approx(inside / whole, abs=1e-12)
        assert rows["area"][i].item() == pytest.approx(int(batch.masks[i].sum()) / 720, abs=1e-12)


def test_rank_accuracy_equals_its_plain_twin(batch, maps):
    rows = RelevanceRankAccuracy()(None, None, maps, masks=batch.masks)
    for i in range(5):
        count = int(batch.masks[i].sum())
        best = sorted(PIXELS, key=lambda at: -float(maps[i, at[0], at[1]]))[:count]
        assert rows["accuracy"][i].item() == pytest.approx(
            sum(bool(batch.masks[i, r, c]) for r, c in best) / count
        )


def test_strict_pointing_equals_its_plain_twin(batch, maps):
    thresholds = (0.3, 0.6, 0.95, 1.0)
    for i in range(5):  # masks that reach over the threshold or not
        batch.masks[i] = maps[i] >= [0.5, 0.7, 0.97, 0.99, 1.1][i] * maps[i].max()
    rows = StrictPointing(thresholds)(None, None, maps, masks=batch.masks)
    outcomes = []
    for i in range(5):
        top = max(float(maps[i, r, c]) for r, c in PIXELS)
        for value in thresholds:
            if not batch.masks[i].any():
                assert math.isnan(rows[f"hit@{value:g}"][i])
                continue
            hit = all(batch.masks[i, r, c] for r, c in PIXELS if float(maps[i, r, c]) >= value * top)
            outcomes.append(hit)
            assert rows[f"hit@{value:g}"][i].item() == hit
    assert set(outcomes) == {True, False}


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_grid_pointing_equals_its_plain_twin(maps, n):
    cells = torch.tensor([0, n * n - 1, 0, n - 1, n * (n - 1)])
    maps[2, 0, 0] = 99.0
    rows = GridPointingGame(n)(None, None, maps, cells=cells)
    for i in range(5):
        row, column = divmod(int(cells[i]), n)
        own = [
            (r, c)
            for r, c in PIXELS
            if row * 24 // n <= r < (row + 1) * 24 // n and column * 30 // n <= c < (column + 1) * 30 // n
        ]
        inside = sum(max(0.0, float(maps[i, r, c])) for r, c in own)
        whole = sum(max(0.0, float(maps[i, r, c])) for r, c in PIXELS)
        assert rows["energy"][i].item() == pytest.approx(inside / whole, abs=1e-12)
        best = min(PIXELS, key=lambda at: (-float(maps[i, at[0], at[1]]), at))
        assert rows["hit"][i].item() == (best in own)
    assert rows["hit"][2].item() == 1.0


def test_cells_share_the_energy():
    maps = torch.rand(9, 20, 31, generator=torch.Generator().manual_seed(0)).double()[:1].expand(9, -1, -1)
    rows = GridPointingGame(3)(None, None, maps, cells=range(9))
    assert float(rows["energy"].sum()) == pytest.approx(1.0)
    assert float(rows["hit"].sum()) == 1.0


MASKED = [EnergyPointing(), RelevanceRankAccuracy(), StrictPointing(0.5)]


@pytest.mark.parametrize("metric", MASKED, ids=lambda metric: metric.name)
class TestPolicies:
    def headline(self, metric, maps, masks):
        return metric(None, None, maps, masks=masks)[next(iter(metric.columns))]

    def test_an_empty_mask_is_not_asked(self, metric, maps):
        masks = torch.zeros(5, 24, 30, dtype=torch.bool)
        assert self.headline(metric, maps, masks).isnan().all()
        assert self.headline(metric, torch.full_like(maps, torch.nan), masks).isnan().all()

    @pytest.mark.parametrize("value", [0.0, -2.0, torch.nan, torch.inf])
    def test_a_map_that_says_nothing_gets_nothing(self, metric, maps, batch, value):
        assert self.headline(metric, torch.full_like(maps, value), batch.masks).tolist() == [0.0] * 5

    def test_a_perfect_map(self, metric, batch):
        assert self.headline(metric, batch.masks.double(), batch.masks).tolist() == [1.0] * 5

    def test_masks_of_numbers_and_lists(self, metric, maps, batch):
        expected = self.headline(metric, maps, batch.masks)
        torch.testing.assert_close(self.headline(metric, maps, batch.masks.float()), expected)
        torch.testing.assert_close(self.headline(metric, maps, list(batch.masks)), expected)

    def test_masks_that_are_not_true_or_false(self, metric, maps, batch):
        with pytest.raises(ValueError, match="true or false"):
            self.headline(metric, maps, batch.masks.float() * 0.5)

    def test_masks_of_another_size(self, metric, maps):
        with pytest.raises(ValueError, match="mask_to_model"):
            self.headline(metric, maps, torch.ones(5, 48, 60).bool())


def test_a_constant_positive_map_has_the_energy_of_chance(batch):
    rows = EnergyPointing()(None, None, torch.ones_like(batch.maps), masks=batch.masks)
    torch.testing.assert_close(rows["energy"], rows["area"])
    assert rows["degenerate"].tolist() == [1.0] * 5


def test_a_pixel_at_the_threshold_counts():
    heatmap, mask = torch.tensor([[[1.0, 0.5, 0.25]]]), torch.tensor([[[True, False, False]]])
    rows = StrictPointing((0.5, 0.51))(None, None, heatmap, masks=mask)
    assert (rows["hit@0.5"].item(), rows["hit@0.51"].item()) == (0.0, 1.0)


def test_strict_pointing_needs_positive_relevance(batch):
    maps = -2.0 + batch.masks.double()  # greatest, -1, inside the object
    assert StrictPointing()(None, None, maps, masks=batch.masks)["hit@0.5"].tolist() == [0.0] * 5


@pytest.mark.parametrize("value", [0.0, torch.nan])
def test_the_grid_game_of_a_map_that_says_nothing(maps, value):
    rows = GridPointingGame(2)(None, None, torch.full_like(maps, value), cells=[0] * 5)
    assert rows["energy"].tolist() == [0.0] * 5
    assert rows["hit"].tolist() == [0.0] * 5


def test_a_tie_between_cells_goes_to_the_first():
    heatmap = torch.zeros(1, 4, 4)
    heatmap[0, 1, 3] = heatmap[0, 2, 0] = 1.0
    assert GridPointingGame(2)(None, None, heatmap, cells=[1])["hit"].item() == 1.0
    assert GridPointingGame(2)(None, None, heatmap, cells=[2])["hit"].item() == 0.0


@pytest.mark.parametrize("cells", [[4, 0, 0, 0, 0], [-1, 0, 0, 0, 0], [0, 0]])
def test_cells_that_do_not_exist(maps, cells):
    with pytest.raises(ValueError, match="give one cell from 0 to 3"):
        GridPointingGame(2)(None, None, maps, cells=cells)


@pytest.mark.parametrize(
    "make",
    [
        lambda: GridPointingGame(0),
        lambda: StrictPointing(0.0),
        lambda: StrictPointing(1.5),
        lambda: StrictPointing(()),
    ],
)
def test_bad_options(make):
    with pytest.raises(ValueError, match="give"):
        make()
