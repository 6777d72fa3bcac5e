import math

import pytest
import torch
from torch import nn

from clarp.evaluation import ClassSensitivity, ParameterRandomisation, Sparseness


def plain_pearson(one, other):
    mean_one, mean_other = sum(one) / len(one), sum(other) / len(other)
    together = sum((a - mean_one) * (b - mean_other) for a, b in zip(one, other, strict=True))
    spread = sum((a - mean_one) ** 2 for a in one) * sum((b - mean_other) ** 2 for b in other)
    return together / math.sqrt(spread)


def plain_ranks(values):
    """Equal values share the mean of their places."""
    return [sum(b < a for b in values) + (sum(b == a for b in values) - 1) / 2 for a in values]


def test_class_sensitivity_equals_its_plain_twin(batch):
    maps, others = batch.maps[:, :6, :7], batch.images.sum(1)[:, :6, :7]
    others[1] = others[1].round()  # ties
    rows = ClassSensitivity()(None, None, maps, other_maps=others)
    for i in range(5):
        one, other = maps[i].flatten().tolist(), others[i].flatten().tolist()
        p, q = [max(0, a) for a in one], [max(0, b) for b in other]
        p, q = [a / sum(p) for a in p], [b / sum(q) for b in q]
        overlap = sum(map(min, p, q)) / sum(map(max, p, q))
        assert rows["overlap"][i].item() == pytest.approx(overlap, abs=1e-12)
        assert rows["correlation"][i].item() == pytest.approx(plain_pearson(one, other), abs=1e-12)
        spearman = plain_pearson(plain_ranks(one), plain_ranks(other))
        assert rows["rank_correlation"][i].item() == pytest.approx(spearman, abs=1e-12)


def test_the_same_map_for_both_classes(batch):
    rows = ClassSensitivity()(None, None, batch.maps, other_maps=batch.maps * 3)
    for name in ("overlap", "correlation", "rank_correlation"):
        torch.testing.assert_close(rows[name], torch.ones(5, dtype=torch.float64))


def test_maps_that_have_nothing_in_common(batch):
    left, right = torch.zeros(1, 4, 6), torch.zeros(1, 4, 6)
    left[..., :3], right[..., 3:] = 1.0, 1.0
    rows = ClassSensitivity()(None, None, left, other_maps=right)
    assert rows["overlap"].item() == 0.0
    assert rows["correlation"].item() == pytest.approx(-1.0)


@pytest.mark.parametrize("value", [0.0, 1.0, torch.nan])
def test_a_map_that_says_nothing_does_not_look_discriminative(batch, value):
    silent = torch.full_like(batch.maps, value)
    for maps, others in ((silent, batch.maps), (batch.maps, silent)):
        rows = ClassSensitivity()(None, None, maps, other_maps=others)
        assert rows["correlation"].isnan().all()
        assert rows["rank_correlation"].isnan().all()
        assert rows["degenerate"].tolist() == [1.0] * 5
        assert rows["overlap"].isnan().all() == (value != 1.0)


def test_no_positive_relevance_has_no_overlap(batch):
    rows = ClassSensitivity()(None, None, -batch.maps.abs(), other_maps=batch.maps)
    assert rows["overlap"].isnan().all()
    assert not rows["correlation"].isnan().any()


def test_maps_of_different_shape(batch):
    with pytest.raises(ValueError, match="no heatmaps"):
        ClassSensitivity()(None, None, batch.maps, other_maps=batch.maps[:, :5])


def gradient(model, images, targets):
    images = images.detach().requires_grad_()
    logits = model(images).gather(1, targets[:, None]).sum()
    return (torch.autograd.grad(logits, images)[0] * images).detach()


class TestParameterRandomisation:
    @pytest.mark.parametrize("order", ["cascading", "independent"])
    def test_which_parameters_become_random(self, batch, order):
        metric = ParameterRandomisation(order, points=2)
        before = {name: value.clone() for name, value in batch.model.state_dict().items()}
        copies = list(metric.randomised(batch.model))
        changed = [
            {name for name, value in other.state_dict().items() if not torch.equal(value, before[name])}
            for other in copies
        ]
        head = {"3.weight", "3.bias", "5.weight", "5.bias"}
        stem = {"0.weight", "0.bias"}  # the batch norm's weights are all 1: no spread, no change
        assert changed == [head, head | stem if order == "cascading" else stem]
        assert all(torch.equal(value, before[name]) for name, value in batch.model.state_dict().items())

    def test_random_parameters_keep_mean_and_spread(self, batch):
        (other,) = ParameterRandomisation(points=1).randomised(batch.model)
        trained, random = batch.model[5].weight.detach(), other[5].weight.detach()
        assert float(random.mean()) == pytest.approx(
            float(trained.mean()), abs=5 * float(trained.std()) / trained.numel() ** 0.5
        )
        assert float(random.std()) == pytest.approx(float(trained.std()), rel=0.1)

    def test_the_seed_decides(self, batch):
        weights = [
            next(iter(ParameterRandomisation(points=1, seed=seed).randomised(batch.model)))[0].weight
            for seed in (0, 0, 1)
        ]
        assert torch.equal(weights[0], weights[1])
        assert not torch.equal(weights[0], weights[2])

    def test_the_global_random_state_is_left_alone(self, batch):
        state = torch.random.get_rng_state()
        list(ParameterRandomisation(points=1).randomised(batch.model))
        assert torch.equal(state, torch.random.get_rng_state())

    def test_equals_its_plain_twin(self, batch):
        metric = ParameterRandomisation(points=2)
        maps = gradient(batch.model, batch.images, batch.targets)
        rows = metric(batch.model, batch.images, maps, targets=batch.targets, attribute=gradient)
        copies = list(metric.randomised(batch.model))
        for i in (0, 3):
            for point, other in enumerate(copies, start=1):
                random = gradient(other, batch.images, batch.targets)[i].sum(0)
                one, two = maps[i].sum(0).flatten().tolist(), random.flatten().tolist()
                expected = plain_pearson(plain_ranks(one), plain_ranks(two))
                assert rows[f"rank@{point / 2:.2f}"][i].item() == pytest.approx(expected, abs=1e-12)
                similarity = plain_ssim(maps[i].sum(0), random)
                assert rows[f"ssim@{point / 2:.2f}"][i].item() == pytest.approx(similarity, abs=1e-9)
        torch.testing.assert_close(rows["rank"], (rows["rank@0.50"] + rows["rank@1.00"]) / 2)

    def test_kept_copies_give_the_same(self, batch):
        metric = ParameterRandomisation(points=2)
        maps = gradient(batch.model, batch.images, batch.targets)
        arguments = {"targets": batch.targets, "attribute": gradient}
        anew = metric(batch.model, batch.images, maps, **arguments)
        kept = metric(
            batch.model, batch.images, maps, **arguments, copies=list(metric.randomised(batch.model))
        )
        assert list(anew.records()) == list(kept.records())

    def test_a_map_that_does_not_see_the_model_is_found_out(self, batch):
        def blind(model, images, targets):
            return images.sum(1)

        rows = ParameterRandomisation(points=2)(
            batch.model, batch.images, batch.images.sum(1), attribute=blind
        )
        for name in ("rank", "rank@1.00", "ssim@0.50"):
            torch.testing.assert_close(rows[name], torch.ones(5, dtype=torch.float64))

    def test_a_random_model_without_a_map(self, batch):
        rows = ParameterRandomisation(points=1)(
            batch.model, batch.images, batch.maps, attribute=lambda m, x, t: x.sum(1) * torch.nan
        )
        assert rows["rank"].isnan().all()
        assert rows["degenerate"].tolist() == [0.0] * 5

    def test_too_few_modules(self, batch):
        with pytest.raises(ValueError, match="has 4 modules with parameters"):
            list(ParameterRandomisation(points=5).randomised(batch.model))

    def test_not_a_module(self):
        with pytest.raises(TypeError, match=r"torch\.nn\.Module"):
            list(ParameterRandomisation().randomised(torch.relu))

    @pytest.mark.parametrize("options", [{"order": "upwards"}, {"points": 0}])
    def test_bad_options(self, options):
        with pytest.raises(ValueError, match=r"give (one of the orders|a whole number)"):
            ParameterRandomisation(**options)

    def test_a_module_used_twice_is_one_module(self):
        shared = nn.Linear(4, 4)
        assert len(list(ParameterRandomisation(points=1).randomised(nn.Sequential(shared, shared)))) == 1
        with pytest.raises(ValueError, match="has 1 modules"):
            list(ParameterRandomisation(points=2).randomised(nn.Sequential(shared, shared)))


def plain_ssim(one, other):
    """Wang 2004 with an 11 x 11 Gaussian window of sigma 1.5, averaged where the window fits."""
    one, other = one / one.abs().max(), other / other.abs().max()
    offsets = torch.arange(-5.0, 6.0).double()
    window = torch.exp(-(offsets**2) / (2 * 1.5**2))
    window = window[:, None] * window
    window /= window.sum()
    c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2
    values = []
    for r in range(one.shape[0] - 10):
        for c in range(one.shape[1] - 10):
            a, b = one[r : r + 11, c : c + 11], other[r : r + 11, c : c + 11]
            mean_a, mean_b = (window * a).sum(), (window * b).sum()
            spread_a, spread_b = (window * a * a).sum() - mean_a**2, (window * b * b).sum() - mean_b**2
            both = (window * a * b).sum() - mean_a * mean_b
            upper = (2 * mean_a * mean_b + c1) * (2 * both + c2)
            values.append(float(upper / ((mean_a**2 + mean_b**2 + c1) * (spread_a + spread_b + c2))))
    return sum(values) / len(values)


class TestSparseness:
    def test_equals_its_plain_twin(self, batch):
        rows = Sparseness()(None, None, batch.maps)
        for i in range(5):
            sizes = [abs(a) for a in batch.maps[i].flatten().tolist()][:720]
            # Half the relative mean absolute difference, the textbook's definition.
            differences = sum(abs(a - b) for a in sizes for b in sizes)
            assert rows["gini"][i].item() == pytest.approx(
                differences / (2 * len(sizes) * sum(sizes)), abs=1e-10
            )

    def test_extremes(self):
        one = torch.zeros(3, 4, 5)
        one[0, 2, 2], one[1] = -3.0, 0.7
        torch.testing.assert_close(
            Sparseness()(None, None, one)["gini"], torch.tensor([1 - 1 / 20, 0.0, 0.0]).double()
        )
