"""Metrics on rendered scenes: plain twins, and what a trained network and its maps have."""

import math

import pytest
import torch

from clarp import Explainer
from clarp.data import Scenes, rendered
from clarp.data.rendered import PARTS, SHORTCUT
from clarp.evaluation import (
    BackgroundIndependence,
    ShortcutNamed,
    SingleDeletion,
    TargetSensitivity,
)
from clarp.evaluation.run import Run, Settings
from clarp.evaluation.specs import metrics
from clarp.evaluation.tables import Report
from evaluation.painted import SIDE, classifier, labels, pixels, preprocess, trained

pytest.importorskip("pyarrow")
stats = pytest.importorskip("scipy.stats")


@pytest.fixture(scope="module")
def net():
    torch.set_num_threads(1)
    return trained()


@pytest.fixture(scope="module")
def marked_net():
    torch.set_num_threads(1)
    return trained(shortcut=2)


SET = rendered(16, side=SIDE, shortcut=2, seed=3)
IMAGES, TARGETS = pixels(SET), labels(SET)
DRAWN = [sample.picture for sample in SET]
SCENES = Scenes.of(DRAWN, preprocess)
MAPS = torch.randn(16, SIDE, SIDE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def lead(net, scene, target):
    z = net(preprocess(scene.open())[None])[0].double()
    others = torch.cat([z[:target], z[target + 1 :]])
    return float(z[target] - others.logsumexp(0))


def plain(net, i, names):
    """What is lost without each, and the relevance of each."""
    scene, target = DRAWN[i], int(TARGETS[i])
    lost = [lead(net, scene, target) - lead(net, scene.removed(name), target) for name in names]
    return lost, [float(MAPS[i][scene.mask(name)].sum()) for name in names]


def asked(metric, net, **truth):
    return metric(net, IMAGES, MAPS, targets=TARGETS, scenes=SCENES, **truth)


def test_single_deletion_equals_its_plain_twin(net):
    rows = asked(SingleDeletion(), net)
    for i in range(16):
        lost, sums = plain(net, i, PARTS)
        assert rows["rank"][i].item() == pytest.approx(float(stats.spearmanr(lost, sums).statistic))


def test_background_independence_equals_its_plain_twin(net):
    rows = asked(BackgroundIndependence(tolerance=0.1, threshold=0.6), net)
    seen = set()
    for i in range(16):
        scene = DRAWN[i]
        names = [name for name in (*scene.stones, SHORTCUT) if scene.mask(name).any()]
        (lost, sums), (parts_lost, parts_sums) = plain(net, i, names), plain(net, i, PARTS)
        unused = [k for k in range(len(names)) if abs(lost[k]) < 0.1 * max(parts_lost)]
        good = [k for k in unused if abs(sums[k]) < 0.6 * max(map(abs, parts_sums))]
        assert rows["unused"][i].item() == len(unused)
        if unused:
            assert rows["independent"][i].item() == pytest.approx(len(good) / len(unused))
        else:
            assert math.isnan(rows["independent"][i])
        seen.add(len(good) / len(unused) if unused else None)
    assert len(seen) > 2


def test_target_sensitivity_equals_its_plain_twin(net):
    maps = {
        index: torch.randn(16, SIDE, SIDE, generator=torch.Generator().manual_seed(index))
        for index in range(8)
    }

    def explain(images, targets):
        return torch.stack([maps[target][i] for i, target in enumerate(targets.tolist())])

    rows = asked(TargetSensitivity(), net, explain=explain)
    for i in range(16):
        first, second = SCENES.others[i].tolist()
        right = 0
        for mine, other, shared in (
            (first, second, SCENES.shared[i, 0]),
            (second, first, SCENES.shared[i, 1]),
        ):
            sums = [0.0, 0.0]
            for part, own in zip(PARTS, shared.tolist(), strict=True):
                if own:
                    mask = DRAWN[i].mask(part)
                    sums[0] += float(maps[mine][i][mask].sum())
                    sums[1] += float(maps[other][i][mask].sum())
            right += sums[0] > sums[1]
        assert rows["right"][i].item() == right / 2
    assert set(rows["right"].tolist()) == {0.0, 0.5, 1.0}


def test_shortcut_named_equals_its_plain_twin(net, marked_net):
    used = []
    for model in (net, marked_net):  # the first never saw a mark
        rows = asked(ShortcutNamed(), model)
        for i in range(16):
            (lost, *rest), (mark, *sums) = plain(model, i, (SHORTCUT, *PARTS))
            if DRAWN[i].marked and lost > max(rest):
                used.append(model)
                assert rows["named"][i].item() == float(mark > max(sums))
            else:
                assert math.isnan(rows["named"][i])
    assert used == [marked_net] * 2


def test_a_map_that_says_nothing(net, marked_net):
    nothing = torch.full_like(MAPS, 2.0)
    for metric, model in (
        (SingleDeletion(), net),
        (BackgroundIndependence(), net),
        (ShortcutNamed(), marked_net),
    ):
        rows = metric(model, IMAGES, nothing, targets=TARGETS, scenes=SCENES)
        first = rows[next(iter(metric.columns))]
        assert first[~first.isnan()].tolist() == [0.0] * int((~first.isnan()).sum())
        assert (~first.isnan()).any()
    rows = asked(TargetSensitivity(), net, explain=lambda images, targets: nothing)
    assert rows["right"].tolist() == [0.0] * 16


def test_other_data_sets_are_refused():
    for metric in (SingleDeletion(), TargetSensitivity(), BackgroundIndependence(), ShortcutNamed()):
        with pytest.raises(ValueError, match=r"give a data set of clarp\.data\.rendered"):
            metric.check_dataset("it", "photos")
    with pytest.raises(ValueError, match="give shares above 0"):
        BackgroundIndependence(tolerance=0)


def means(report, column):
    return {line.method: line.value.mean for line in report.lines if line.column == column}


def test_a_run_on_scenes(net, tmp_path):
    scenes = rendered(64, side=SIDE, seed=1)
    assert (net(pixels(scenes)).argmax(1) == labels(scenes)).float().mean() > 0.95
    asked = metrics(["single-deletion", "target-sensitivity", "background-independence", "energy-pointing"])
    run = Run(scenes, classifier(net), Settings(("lrp", "sglrp"), asked, batch_size=16), tmp_path / "run")
    run.complete()
    report = Report.of(run.store, "sglrp", resamples=50)
    right = means(report, "target-sensitivity/right")
    assert right["sglrp"] > 0.95
    assert right["sglrp"] > right["lrp"]
    assert right["random"] == right["centre"] == 0.0  # one map for all classes
    independent = means(report, "background-independence/independent")
    assert independent["sglrp"] > 0.85 > independent["random"]
    assert means(report, "single-deletion/rank")["lrp"] > means(report, "single-deletion/rank")["random"]


@pytest.mark.parametrize("method", ["sglrp", "ssglrp", "clarp"])
def test_maps_name_a_planted_shortcut(marked_net, method):
    scenes = rendered(320, side=SIDE, shortcut=2, seed=1).select(lambda sample: sample.picture.marked)
    images, drawn = pixels(scenes), Scenes.of([sample.picture for sample in scenes], preprocess)
    maps = Explainer(marked_net, method, bounds=(-1.0, 1.0))(images, target=2).heatmap
    rows = ShortcutNamed()(marked_net, images, maps, targets=labels(scenes), scenes=drawn)
    used = rows["named"][~rows["named"].isnan()]
    assert len(used) >= 30
    assert used.mean() >= 0.95
