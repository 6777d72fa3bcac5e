"""A run and its report with a model of many findings, and with one of one logit."""

import json

import pytest
import torch

from clarp.cli import main
from clarp.data.opening import open_dataset
from clarp.evaluation.attribution import attributors
from clarp.evaluation.browsing import Index
from clarp.evaluation.confident import _key
from clarp.evaluation.store import Store
from clarp.evaluation.tables import Report
from clarp.evaluation.writing import explanation
from clarp.models import load
from clarp.network import Network
from colours import discs, own_answer, written

pytest.importorskip("pyarrow")
GROUPS = [("red",), ("green",), ("red", "green")]


def clarp(*arguments):
    with pytest.raises(SystemExit) as ending:
        main([*map(str, arguments)])
    return ending.value.code or 0


def evaluated(spec, photos, out, *arguments):
    metrics = "patch-masking:size=9"
    command = (
        "evaluate",
        photos,
        "--model",
        spec,
        "--methods",
        "lrp,ssglrp",
        "--metrics",
        metrics,
        "--out",
        out,
    )
    assert clarp(*command, *arguments) == 0
    return Store(out), Report.of(Store(out), "lrp", resamples=50)


@pytest.fixture
def boxed(tmp_path):
    """A photo of each group of discs; its labels are all that are in it."""
    folder = tmp_path / "boxed"
    folder.mkdir()
    table = {}
    for group in GROUPS:
        (folder / f"{'-'.join(group)}.png").write_bytes(discs(*group))
        places = {"red": [8, 8, 40, 40], "green": [56, 8, 88, 40]}
        objects = [
            {"label": f"{colour}_disc", "classes": [number], "box": places[colour]}
            for number, colour in enumerate(places)
            if colour in group
        ]
        table[f"{'-'.join(group)}.png"] = {"width": 96, "height": 96, "objects": objects}
    (folder / "boxes.json").write_text(json.dumps(table))
    return folder


def test_each_finding_is_asked_by_itself(tmp_path, boxed):
    (spec,) = written(tmp_path, "findings")
    store, report = evaluated(spec, boxed, tmp_path / "run")
    assert store.about()["task"] == "multilabel"
    assert "each class is a question of its own" in explanation(report)
    document = Index.of(store, report).document
    assert document["task"] == "multilabel"
    assert sorted(zip(document["id"], document["target"], strict=True)) == [
        ("green.png", 1),
        ("red-green.png", 0),
        ("red-green.png", 1),
        ("red.png", 0),
    ]
    own = {group: own_answer(load(spec), discs(*group)) for group in GROUPS}
    for name, target, probability in zip(
        document["id"], document["target"], document["probability"], strict=True
    ):
        expected = float(own[tuple(name.removesuffix(".png").split("-"))][target])
        assert probability == pytest.approx(expected, rel=1e-4)  # the page has five digits


def test_one_logit_is_two_classes(tmp_path, capsys):
    for group in GROUPS:
        folder = tmp_path / "photos" / ("red_disc" if "red" in group else "not red_disc")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{'-'.join(group)}.png").write_bytes(discs(*group))
    (spec,) = written(tmp_path, "finding")
    store, report = evaluated(spec, tmp_path / "photos", tmp_path / "run")
    assert "clarp: note: task: binary (assumed: it has one logit)\n" in capsys.readouterr().err
    assert store.about()["notes"] == ["task: binary (assumed: it has one logit)"]
    assert "one question with two answers" in explanation(report)
    document = Index.of(store, report).document
    assert document["classes"] == {0: "not red_disc", 1: "red_disc"}
    assert document["target"] == document["predicted"] == [0, 1, 1]
    assert min(document["probability"]) > 0.9


def test_one_of_many_needs_no_words(tmp_path, boxed):
    (spec,) = written(tmp_path, "kinds")
    store, report = evaluated(spec, boxed, tmp_path / "run")
    assert store.about()["task"] == "multiclass"
    assert "task" not in explanation(report)


def test_a_map_of_rounding_alone_is_zero(tmp_path, monkeypatch):
    classifier = load(*written(tmp_path, "findings"))
    images = torch.rand(2, 3, 48, 48)
    method, *_ = attributors(["sglrp"], Network(classifier.module), bounds=classifier.bounds)
    assert method(images, torch.tensor([0, 0]), ["a", "b"]).any()
    monkeypatch.setattr("clarp.passes.NOISE", -3)  # so that every map counts as rounding
    assert not method(images, torch.tensor([0, 0]), ["a", "b"]).any()


def test_which_photos_are_sure_depends_on_the_task(tmp_path, boxed):
    (spec,) = written(tmp_path, "kinds")
    keys = set()
    for task in ("multilabel", "multiclass"):
        classifier = load(spec, task=task)
        keys.add(_key(open_dataset(str(boxed), classifier.labels), classifier, 0.9))
    assert len(keys) == 2
