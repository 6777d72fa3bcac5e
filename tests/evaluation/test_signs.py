import math

import numpy as np
import pytest
import torch

from clarp import Explainer
from clarp.evaluation import SignedEffect
from clarp.evaluation.metrics.inpainting import inpainted
from clarp.evaluation.metrics.perturbation import filling
from evaluation.plain import plain_inpainted


def lead(model, image, target):
    z = model(image[None])[0].detach().tolist()
    rivals = [value for n, value in enumerate(z) if n != target]
    return z[target] - math.log(sum(math.exp(value) for value in rivals))


def plain_cells(size, grid):
    for i in range(grid):
        for j in range(grid):
            rows = range(i * size[0] // grid, (i + 1) * size[0] // grid)
            columns = range(j * size[1] // grid, (j + 1) * size[1] // grid)
            yield [(r, c) for r in rows for c in columns]


def plain(batch, grid, fill):
    """One image, one cell, one pixel, one forward pass at a time."""
    mean_image = batch.images.mean(0) if fill == "mean" else None
    found = {"correlation": [], "red": [], "blue": [], "opposed": []}
    for i, (image, target) in enumerate(zip(batch.images, batch.targets.tolist(), strict=True)):
        effects, sums = [], []
        for cell in plain_cells((24, 30), grid):
            covered = torch.zeros(24, 30, dtype=torch.bool)
            for r, c in cell:
                covered[r, c] = True
            if fill == "inpaint":
                changed = plain_inpainted(image, covered)
            else:
                changed = image.clone()
                for r, c in cell:
                    changed[:, r, c] = filling(image[None], fill, mean_image)[0, :, r, c]
            effects.append(lead(batch.model, image, target) - lead(batch.model, changed, target))
            sums.append(sum(float(batch.maps[i, r, c]) for r, c in cell))
        found["correlation"].append(float(np.corrcoef(sums, effects)[0, 1]))
        found["red"].append(float(sums[int(np.argmax(effects))] > 0))
        found["blue"].append(float(sums[int(np.argmin(effects))] < 0))
        found["opposed"].append(float(np.mean(np.array(effects) < 0)))
    return found


@pytest.mark.parametrize("fill", ["mean", "colour", "blur", "inpaint"])
def test_equals_its_plain_twin(batch, fill):
    mean_image = batch.images.mean(0) if fill == "mean" else None
    rows = SignedEffect((2, 3), fill, chunk=8)(
        batch.model, batch.images, batch.maps, targets=batch.targets, mean_image=mean_image
    )
    for grid in (2, 3):
        for what, expected in plain(batch, grid, fill).items():
            assert rows[f"{what}@{grid}"].tolist() == pytest.approx(expected, abs=1e-6), what


def against_the_right(x):
    """Two columns of two cells: the left ones speak for class 0, the right ones against it."""
    z = 2 * x[:, 0, :2, :2].sum((1, 2)) + x[:, 0, 2:, :2].sum((1, 2)) - x[:, 0, :, 2:].sum((1, 2))
    return torch.stack((z, torch.zeros(len(x))), dim=1)


IMAGE = torch.ones(1, 1, 4, 4)


def measured(heatmap, model=against_the_right, **options):
    rows = SignedEffect(2, **options)(model, IMAGE, heatmap[None], targets=torch.tensor([0]))
    return {name: value.item() for name, value in rows.items()}


def test_the_true_effects_are_right_in_everything_and_their_negative_in_nothing():
    effects = torch.tensor([[2.0, 2.0, -1.0, -1.0]] * 2 + [[1.0, 1.0, -1.0, -1.0]] * 2)
    right = measured(effects)
    assert right["correlation@2"] == pytest.approx(1.0)
    assert (right["red@2"], right["blue@2"], right["opposed@2"]) == (1.0, 1.0, 0.5)
    wrong = measured(-effects)
    assert wrong["correlation@2"] == pytest.approx(-1.0)
    assert (wrong["red@2"], wrong["blue@2"]) == (0.0, 0.0)


def test_red_and_blue_look_at_the_strongest_cells_only():
    heatmap = torch.zeros(4, 4)
    heatmap[0, 0], heatmap[0, 2] = 0.1, -0.1  # the two strongest; the others are the wrong way round
    heatmap[2:, :2], heatmap[2:, 2:] = -5.0, 5.0
    found = measured(heatmap)
    assert (found["red@2"], found["blue@2"]) == (1.0, 1.0)
    assert found["correlation@2"] < 0


def test_cells_without_relevance_are_neither_red_nor_blue():
    heatmap = torch.zeros(4, 4)
    heatmap[2, 0] = 1.0
    found = measured(heatmap)
    assert (found["red@2"], found["blue@2"]) == (0.0, 0.0)


def test_the_question_does_not_arise_where_no_cell_opposes_or_none_helps():
    heatmap = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))
    helps = measured(heatmap, lambda x: torch.stack((x.sum((1, 2, 3)), torch.zeros(len(x))), dim=1))
    assert math.isnan(helps["blue@2"])
    assert not math.isnan(helps["red@2"])
    opposes = measured(heatmap, lambda x: torch.stack((-x.sum((1, 2, 3)), torch.zeros(len(x))), dim=1))
    assert math.isnan(opposes["red@2"])
    assert not math.isnan(opposes["blue@2"])
    blind = measured(heatmap, lambda x: torch.zeros(len(x), 2))
    assert all(math.isnan(blind[name]) for name in ("correlation@2", "red@2", "blue@2"))


@pytest.mark.parametrize("value", [0.0, 3.0, -3.0, torch.nan, torch.inf])
def test_a_map_that_names_no_cell(value):
    found = measured(torch.full((4, 4), value))
    assert (found["correlation@2"], found["red@2"], found["blue@2"]) == (0.0, 0.0, 0.0)
    assert found["degenerate"] == 1.0


def test_cells_of_unequal_size_do_not_give_a_constant_map_a_correlation():
    rows = SignedEffect(2)(
        lambda x: torch.stack((x[:, 0, 2:, 2:].sum((1, 2)), torch.zeros(len(x))), dim=1),
        torch.ones(1, 1, 5, 5),
        torch.full((1, 5, 5), 3.0),
        targets=torch.tensor([0]),
    )
    assert rows["correlation@2"].item() == 0.0


def test_the_lead_does_not_saturate():
    """Both probabilities are 1 in float64; the lead still tells what is lost."""
    heatmap = torch.tensor([[1.0, 1.0, 0.0, 0.0]] * 4)
    found = measured(heatmap, lambda x: 1000 + 100 * against_the_right(x) * torch.tensor([1.0, 0.0]))
    assert found["correlation@2"] > 0.9
    assert found["red@2"] == 1.0


def test_known_effects_spare_the_forward_passes(batch):
    metric = SignedEffect((2, 3))
    known = metric.effects(batch.model, batch.images, batch.targets)
    assert known.shape == (5, 13)

    def refused(images):
        raise AssertionError(images)

    rows = metric(refused, batch.images, batch.maps, targets=batch.targets, effects=known)
    expected = metric(batch.model, batch.images, batch.maps, targets=batch.targets)
    for name in expected:
        torch.testing.assert_close(rows[name], expected[name])


def test_an_explainer_knows_the_task():
    """A multilabel model's class has no rivals; a binary one's other class is its negative."""
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 3))
    torch.nn.init.normal_(net[1].weight, generator=torch.Generator().manual_seed(0))
    images = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    maps = torch.randn(2, 4, 4, generator=torch.Generator().manual_seed(2))
    targets = torch.tensor([0, 1])
    effects = SignedEffect(2).effects(Explainer(net.eval(), "lrp", task="multilabel"), images, targets)
    half = images.clone()
    half[:, :, :2, :2] = 0
    lost = (net(images) - net(half)).gather(1, targets[:, None])[:, 0].detach()
    torch.testing.assert_close(effects[:, 0].float(), lost, atol=1e-5, rtol=1e-5)
    one = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 1)).eval()
    both = [
        SignedEffect(2)(one, images, sign * maps, targets=torch.full((2,), target))
        for target, sign in ((1, 1), (0, -1))
    ]
    torch.testing.assert_close(both[0]["red@2"], both[1]["blue@2"], equal_nan=True)
    torch.testing.assert_close(both[0]["blue@2"], both[1]["red@2"], equal_nan=True)
    torch.testing.assert_close(both[0]["correlation@2"], both[1]["correlation@2"])


class TestInpainting:
    @pytest.mark.parametrize("share", [0.02, 0.5, 0.97])
    def test_equals_its_plain_twin(self, share):
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(3, 2, 9, 12, generator=generator, dtype=torch.float64)
        covered = torch.rand(3, 1, 9, 12, generator=generator) < share
        found = inpainted(images, covered)
        for i in range(3):
            expected = plain_inpainted(images[i], covered[i, 0])
            torch.testing.assert_close(found[i], expected, atol=1e-7, rtol=0)

    def test_every_corner_and_border(self):
        images = torch.randn(4, 1, 8, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        covered = torch.zeros(4, 1, 8, 9, dtype=torch.bool)
        covered[0, :, :3, :4] = covered[1, :, 5:, 5:] = covered[2, :, :, 4] = covered[3, :, 7, :] = True
        found = inpainted(images, covered)
        for i in range(4):
            torch.testing.assert_close(found[i], plain_inpainted(images[i], covered[i, 0]), atol=1e-7, rtol=0)

    def test_a_constant_is_continued(self):
        images = torch.full((1, 3, 20, 20), 0.7)
        covered = torch.ones(1, 1, 20, 20, dtype=torch.bool)
        covered[0, 0, 3, 4] = False
        torch.testing.assert_close(inpainted(images, covered), images, atol=1e-3, rtol=0)

    def test_nothing_to_continue(self):
        images = torch.rand(1, 3, 6, 6)
        assert not inpainted(images, torch.ones(1, 1, 6, 6, dtype=torch.bool)).any()
        assert torch.equal(inpainted(images, torch.zeros(1, 1, 6, 6, dtype=torch.bool)), images)

    def test_float32_is_within_a_grey_level(self):
        generator = torch.Generator().manual_seed(0)
        images = torch.rand(2, 3, 60, 60, generator=generator)
        covered = torch.zeros(2, 1, 60, 60, dtype=torch.bool)
        covered[0, :, 10:45, 10:45] = covered[1, :, 30:, 30:] = True
        exact = inpainted(images.double(), covered)
        assert float((inpainted(images, covered) - exact).abs().max()) < 1 / 255

    def test_no_image_changes_another(self):
        generator = torch.Generator().manual_seed(0)
        images = torch.rand(3, 3, 30, 30, generator=generator)
        covered = (
            torch.rand(3, 1, 30, 30, generator=generator)
            < torch.tensor([0.1, 0.5, 0.95])[:, None, None, None]
        )
        together = inpainted(images, covered)
        for i in range(3):
            alone = inpainted(images[i : i + 1], covered[i : i + 1])[0]
            torch.testing.assert_close(together[i], alone, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"grid": 1}, "at least 2 cells"),
        ({"grid": 2.5}, "grid=2.5: give a whole number"),
        ({"grid": ()}, "several different ones"),
        ({"grid": (4, 4)}, "several different ones"),
        ({"fill": "grey"}, "fill='grey': give one of the fills mean, colour, blur, inpaint"),
        ({"chunk": 0}, "chunk=0"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        SignedEffect(**options)


def test_more_cells_than_pixels():
    with pytest.raises(ValueError, match="4 x 4 pixels have no 7 x 7 cells"):
        SignedEffect()(against_the_right, IMAGE, torch.rand(1, 4, 4))
