"""What holds for every metric."""

import copy
import math
import pickle
from dataclasses import FrozenInstanceError, replace
from inspect import signature

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from clarp import evaluation
from clarp.data import Scenes
from clarp.evaluation import METRICS, Rows, probabilities
from clarp.evaluation.metrics.base import Heatmaps, ranks, share
from clarp.evaluation.metrics.perturbation import filling, gaussian_blur


def attribute(model, images, targets):
    return (
        model[0](images).sum(1, keepdim=True).new_zeros(len(images), 24, 30)
        + images.sum(1) * model[0].weight.sum()
    )


CONFIGURED = [
    evaluation.PatchMasking(size=(3, 9), centre="window", fill="blur", chunk=4),
    evaluation.PointingGame(tolerance=3, smoothing=0.05),
    evaluation.StrictPointing(threshold=(0.5, 0.9)),
    evaluation.EnergyPointing(),
    evaluation.GridPointingGame(2),
    evaluation.RelevanceRankAccuracy(),
    evaluation.Insertion(steps=5, chunk=7),
    evaluation.Deletion(steps=5, chunk=7),
    evaluation.AOPC(size=5, steps=6),
    evaluation.ROAD(shares=(0.2, 0.6), chunk=3),
    evaluation.SRG(size=5, steps=4, fill="inpaint", chunk=7),
    evaluation.SignedEffect(grid=(2, 5), fill="inpaint", chunk=7),
    evaluation.ClassSensitivity(),
    evaluation.ParameterRandomisation(points=2),
    evaluation.DiFull(2),
    evaluation.MaxSensitivity(radius=0.1, samples=3),
    evaluation.Sparseness(),
    evaluation.SingleDeletion(),
    evaluation.TargetSensitivity(),
    evaluation.BackgroundIndependence(),
    evaluation.ShortcutNamed(),
]

CHUNKED = [metric for metric in CONFIGURED if hasattr(metric, "chunk")]


def drawn(batch):
    """Things at random places of the batch's images, and the images without them."""
    generator = torch.Generator().manual_seed(3)
    masks = torch.rand(5, 8, 24, 30, generator=generator) < 0.05
    without = torch.where(masks[:, :, None], 0, batch.images[:, None])
    shared = torch.tensor([[True, True, False, False], [False, False, True, True]]).expand(5, -1, -1)
    return masks[:, :4], without[:, :4], masks[:, 4:], without[:, 4:], torch.tensor([[0, 3]] * 5), shared


def truth_of(metric, batch, keep=slice(None)):
    everything = {
        "masks": batch.masks[keep],
        "cells": torch.tensor([0, 1, 2, 3, 0])[keep],
        "other_maps": batch.images.sum(1)[keep],
        "attribute": attribute,
        "apart": lambda network, numbers: batch.images[keep][numbers].sum(1) * (1 + network.cell),
        "explain": lambda images, targets: images.square().sum(1) * (1 + targets[:, None, None]),
        "scenes": Scenes(*(one[keep] for one in drawn(batch))),
    }
    return {"targets": batch.targets[keep], **{name: everything[name] for name in metric.truth}}


def test_every_metric_is_listed_and_tried_here():
    assert sorted(METRICS) == sorted(metric.name for metric in CONFIGURED)
    for name, metric in METRICS.items():
        assert metric.name == name
        assert getattr(evaluation, metric.__name__) is metric


@pytest.mark.parametrize("metric", CONFIGURED, ids=lambda metric: metric.name)
class TestEveryMetric:
    def test_columns_are_as_announced(self, metric, batch):
        rows = metric(batch.model, batch.images, batch.maps, **truth_of(metric, batch))
        assert list(rows) == list(metric.columns)
        assert rows.count == 5
        assert all(column.dtype == torch.float64 and column.device.type == "cpu" for column in rows.values())
        assert set(metric.columns.values()) <= {"higher", "lower", "none"}
        assert next(iter(metric.columns.values())) != "none"
        assert "degenerate" in rows

    def test_what_it_needs_is_what_its_measure_takes(self, metric):
        taken = list(signature(metric.measure).parameters.values())[1:]
        given = {"model", "images", "targets"} if metric.needs_model else set()
        needed = {one.name for one in taken if one.default is one.empty}
        assert needed == {*metric.truth, *given}
        assert {one.name for one in taken} >= {*metric.truth, *metric.optional_truth}

    def test_a_batch_equals_its_samples(self, metric, batch):
        rows = metric(batch.model, batch.images, batch.maps, **truth_of(metric, batch))
        for i in range(5):
            one = slice(i, i + 1)
            alone = metric(batch.model, batch.images[one], batch.maps[one], **truth_of(metric, batch, one))
            for name in rows:
                torch.testing.assert_close(alone[name], rows[name][one], atol=1e-10, rtol=0, equal_nan=True)

    def test_channels_are_summed(self, metric, batch):
        relevance = torch.stack(
            (batch.maps, torch.ones_like(batch.maps) * 0.25, -0.25 * torch.ones_like(batch.maps)), dim=1
        )
        arguments = truth_of(metric, batch)
        rows = metric(batch.model, batch.images, relevance, **arguments)
        flat = metric(batch.model, batch.images, batch.maps, **arguments)
        for name in rows:
            torch.testing.assert_close(rows[name], flat[name], atol=1e-9, rtol=1e-9, equal_nan=True)

    def test_a_map_with_nan_or_infinity_is_a_map_of_zeros(self, metric, batch):
        maps = batch.maps.clone()
        maps[0], maps[1, 3, 4], maps[2, 0, 0] = 0.0, torch.nan, torch.inf
        zeros = batch.maps.clone()
        zeros[:3] = 0.0
        arguments = truth_of(metric, batch)
        rows = metric(batch.model, batch.images, maps, **arguments)
        expected = metric(batch.model, batch.images, zeros, **arguments)
        for name in rows:
            torch.testing.assert_close(rows[name], expected[name], equal_nan=True)
        assert rows["degenerate"].tolist() == [1.0, 1.0, 1.0, 0.0, 0.0]

    def test_inputs_are_left_alone(self, metric, batch):
        before = copy.deepcopy(
            (batch.images, batch.maps, batch.targets, batch.masks, batch.model.state_dict())
        )
        hooks = [len(part._forward_hooks) for part in batch.model.modules()]
        metric(batch.model, batch.images, batch.maps, **truth_of(metric, batch))
        after = (batch.images, batch.maps, batch.targets, batch.masks, batch.model.state_dict())
        torch.testing.assert_close(after, before, atol=0, rtol=0)
        assert hooks == [len(part._forward_hooks) for part in batch.model.modules()]
        assert all(parameter.grad is None for parameter in batch.model.parameters())

    def test_half_precision_maps_and_images(self, metric, batch):
        model, images = batch.model.to(torch.bfloat16), batch.images.bfloat16()
        maps = batch.maps.bfloat16()
        batch.images = images
        rows = metric(model, images, maps, **truth_of(metric, batch))
        assert rows.count == 5

    def test_configuration_is_frozen_picklable_and_printable(self, metric, batch):
        assert pickle.loads(pickle.dumps(metric)) == metric
        assert eval(repr(metric), vars(evaluation)) == metric
        assert hash(metric) == hash(replace(metric))
        with pytest.raises(FrozenInstanceError):
            metric.fresh = 1

    def test_wrong_shape_of_maps(self, metric, batch):
        with pytest.raises(ValueError, match=r"heatmaps are \(B, H, W\)"):
            metric(batch.model, batch.images, batch.maps[0], **truth_of(metric, batch))

    def test_wrong_number_of_maps(self, metric, batch):
        if metric == evaluation.Sparseness():
            assert metric(None, None, batch.maps[:4]).count == 4  # it sees nothing but the maps
            return
        with pytest.raises(ValueError, match=r"map"):
            metric(batch.model, batch.images, batch.maps[:4], **truth_of(metric, batch))


@pytest.mark.parametrize("metric", CHUNKED, ids=lambda metric: metric.name)
def test_chunks_do_not_matter(metric, batch):
    arguments = truth_of(metric, batch)
    rows = replace(metric, chunk=1)(batch.model, batch.images, batch.maps, **arguments)
    together = replace(metric, chunk=1000)(batch.model, batch.images, batch.maps, **arguments)
    for name in rows:
        torch.testing.assert_close(rows[name], together[name], atol=1e-10, rtol=0)


@pytest.mark.parametrize("metric", CHUNKED, ids=lambda metric: metric.name)
def test_no_more_than_a_chunk_goes_through_the_model(metric, batch):
    sizes = []

    def model(images):
        sizes.append(len(images))
        return batch.model(images)

    metric(model, batch.images, batch.maps, targets=None)
    assert max(sizes) <= metric.chunk


class TestRows:
    def test_nan_stays_nan(self):
        rows = Rows({"a": torch.tensor([1, 2]), "b": torch.tensor([torch.nan, 0.5])})
        first, second = rows.records()
        assert first["a"] == 1.0
        assert first["b"] != first["b"]
        assert second == {"a": 2.0, "b": 0.5}
        assert len(rows) == 2
        assert rows.count == 2
        assert "'a'" in repr(rows)
        assert list(pickle.loads(pickle.dumps(rows)).records())[1] == second

    def test_columns_of_different_length(self):
        with pytest.raises(ValueError, match="one number per image"):
            Rows({"a": torch.zeros(2), "b": torch.zeros(3)})

    def test_columns_of_two_axes(self):
        with pytest.raises(ValueError, match="one number per image"):
            Rows({"a": torch.zeros(2, 2)})


def test_ranks_with_ties():
    assert ranks(torch.tensor([[1.0, 2.0, 2.0, -1.0, 1.0]])).tolist() == [[2, 0, 1, 4, 3]]


def test_the_first_of_equal_points_row_by_row():
    heatmap = torch.zeros(2, 3, 4)
    heatmap[0, 1, 3] = heatmap[0, 2, 0] = 1.0
    row, column = Heatmaps.of(heatmap).points()
    assert row.tolist() == [1, 0]
    assert column.tolist() == [3, 0]


def test_share_of_nothing_is_nothing():
    assert share(torch.zeros(1, 2, 2), torch.zeros(1, 2, 2)).tolist() == [0.0]


class TestProbabilities:
    def test_equals_softmax(self, batch):
        expected = [
            float(batch.model(image[None]).softmax(1)[0, t].detach())
            for image, t in zip(batch.images, batch.targets, strict=True)
        ]
        got = probabilities(batch.model, batch.images, batch.targets, chunk=2)
        torch.testing.assert_close(got, torch.tensor(expected, dtype=torch.float64))

    def test_without_targets_the_greatest(self, batch):
        expected = batch.model(batch.images).softmax(1).amax(1)
        torch.testing.assert_close(probabilities(batch.model, batch.images), expected.detach())

    def test_probabilities_instead_of_logits_are_refused(self, batch):
        likely = nn.Sequential(batch.model, nn.Softmax(1))
        with pytest.raises(ValueError, match="holds probabilities"):
            probabilities(likely, batch.images, batch.targets)

    def test_training_mode_is_refused(self, batch):
        with pytest.raises(ValueError, match="training mode"):
            probabilities(batch.model.train(), batch.images, batch.targets)

    def test_training_mode_without_consequences_is_fine(self, batch):
        model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 24 * 30, 4)).double()
        assert model.training
        assert len(probabilities(model, batch.images, batch.targets)) == 5

    @pytest.mark.parametrize("targets", [torch.tensor([0, 1, 2, 3, 4]), torch.tensor([0, -1, 2, 3, 1])])
    def test_targets_out_of_range(self, batch, targets):
        with pytest.raises(ValueError, match="the model has 4 classes"):
            probabilities(batch.model, batch.images, targets)

    @pytest.mark.parametrize("targets", [torch.tensor([0, 1]), torch.zeros(5)])
    def test_targets_of_another_kind(self, batch, targets):
        with pytest.raises(ValueError, match="5 class ids"):
            probabilities(batch.model, batch.images, targets)

    def test_output_that_is_not_logits(self, batch):
        with pytest.raises(ValueError, match=r"logits \(5, N\)"):
            probabilities(lambda images: images, batch.images, batch.targets)


def test_mean_image_of_batches(batch):
    expected = batch.images.mean(0).float()
    torch.testing.assert_close(evaluation.mean_image(iter(batch.images.split(2))), expected)
    with pytest.raises(ValueError, match="at least one batch"):
        evaluation.mean_image([])
    with pytest.raises(ValueError, match=r"3x24x30 and 3x30x24 .*\(fill=colour\)"):
        evaluation.mean_image([batch.images, batch.images.mT])
    with pytest.raises(ValueError, match=r"3x24x30 and 3x24x1 "):  # such would be spread over the whole
        evaluation.mean_image([batch.images, batch.images[..., :1]])


def whole_blur(length, sigma, mode):
    """(length, length): row i weighs the pixels that make up pixel i."""
    radius = math.ceil(4 * sigma)
    weights = [math.exp(-0.5 * (offset / sigma) ** 2) for offset in range(-radius, radius + 1)]
    whole = torch.zeros(length, length, dtype=torch.float64)
    for row in range(length):
        for offset, weight in enumerate(weights, -radius):
            source = min(max(row + offset, 0), length - 1)
            if mode == "replicate" or source == row + offset:
                whole[row, source] += weight / sum(weights)
    return whole


class TestFilling:
    def test_colour_is_zero(self, batch):
        assert not filling(batch.images, "colour").any()

    def test_mean_without_an_image_is_the_colour(self, batch):
        assert not filling(batch.images, "mean").any()

    def test_mean_image(self, batch):
        mean_image = batch.images.mean(0)
        torch.testing.assert_close(
            filling(batch.images, "mean", mean_image), mean_image.expand(5, -1, -1, -1)
        )

    @pytest.mark.parametrize(
        ("fill", "shape"), [("blur", (3, 24, 30)), ("colour", (3, 24, 30)), ("mean", (3,))]
    )
    def test_a_mean_image_that_does_not_belong(self, batch, fill, shape):
        with pytest.raises(ValueError, match="mean image goes with the fill"):
            filling(batch.images, fill, torch.zeros(shape))

    @pytest.mark.parametrize(("mode", "scipy_mode"), [("constant", "constant"), ("replicate", "nearest")])
    @pytest.mark.parametrize("sigma", [0.4, 1.0, 2.3])
    def test_blur_equals_scipy(self, batch, mode, scipy_mode, sigma):
        ndimage = pytest.importorskip("scipy.ndimage")
        radius = int(-(-4 * sigma // 1))
        expected = ndimage.gaussian_filter(
            batch.images.numpy(), (0, 0, sigma, sigma), mode=scipy_mode, radius=(0, 0, radius, radius)
        )
        torch.testing.assert_close(gaussian_blur(batch.images, sigma, mode), torch.from_numpy(expected))

    @pytest.mark.parametrize("mode", ["constant", "replicate"])
    @pytest.mark.parametrize(("length", "sigma"), [(300, 40.0), (129, 2.0), (7, 5.0), (1, 1.0)])
    def test_strips_make_up_the_whole(self, length, sigma, mode):
        """Against the matrix of all pixels by all pixels, for several strips and for less than the kernel."""
        generator = torch.Generator().manual_seed(0)
        image = torch.rand(1, 1, length, 50, generator=generator, dtype=torch.float64)
        expected = whole_blur(length, sigma, mode) @ image @ whole_blur(50, sigma, mode).mT
        torch.testing.assert_close(gaussian_blur(image, sigma, mode), expected)
        torch.testing.assert_close(gaussian_blur(image.mT, sigma, mode), expected.mT)

    def test_a_large_photo_is_not_multiplied_by_a_matrix_of_its_side(self):
        image = torch.rand(1, 1, 4000, 8)
        with FlopCounterMode(display=False) as counter:
            gaussian_blur(image, 20.0, "constant")
        assert counter.get_total_flops() < 0.2 * 2 * 4000 * 4000 * 8

    def test_the_blur_is_5_pixels_at_224(self):
        images = torch.rand(1, 2, 100, 224, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        torch.testing.assert_close(filling(images, "blur"), gaussian_blur(images, 5.0, "replicate"))

    def test_blur_by_nothing(self, batch):
        assert gaussian_blur(batch.images, 0, "constant") is batch.images
