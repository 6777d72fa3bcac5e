"""What the engine and the API answer for a model of each task, and ``clarp serve --task``."""

import base64
from io import BytesIO

import httpx
import numpy as np
import pytest
from PIL import Image

from clarp.cli import main
from clarp.explanation import EMPTY, MIRRORED
from clarp.models import load as load_model
from clarp.serve import engine as engine_module
from clarp.serve.app import application
from clarp.serve.engine import Engine, Question
from clarp.serve.limits import Limits
from colours import COLOURS, SIDE, discs, own_answer, share_in, written
from serve.servers import served, serving

PHOTO = discs("red", "green")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("colours")


@pytest.fixture(scope="module")
def engines(folder):
    return dict(
        zip(
            ("multilabel", "binary", "multiclass"),
            served(written(folder, "findings", "finding", "kinds")),
            strict=True,
        )
    )


@pytest.fixture(scope="module")
def url(engines):
    with serving(application(list(engines.values()))) as found:
        yield found


def explained(engine, targets, method, against=()):
    question = Question(tuple(targets), tuple(against), (method,))
    return engine.explain(PHOTO, question, lambda: False).maps


def heatmap(map_):
    return np.load(BytesIO(base64.b64decode(map_.heatmap)))


class TestPredict:
    def test_many_findings_have_their_own_sigmoids(self, engines):
        answer = engines["multilabel"].predict(PHOTO, 5)
        assert answer.task == "multilabel"
        own = own_answer(engines["multilabel"].classifier, PHOTO)
        assert {one.index: one.probability for one in answer.predictions} == pytest.approx(
            dict(enumerate(own.tolist())), abs=1e-6
        )
        assert sum(one.probability for one in answer.predictions) > 2
        assert [one.label for one in answer.predictions[:2]] == ["red_disc", "green_disc"]

    def test_one_logit_is_two_classes(self, engines):
        answer = engines["binary"].predict(PHOTO, 5)
        own = float(own_answer(engines["binary"].classifier, PHOTO).sigmoid())
        found = [(one.index, one.label, one.probability) for one in answer.predictions]
        assert answer.task == "binary"
        assert found == [
            (1, "red_disc", pytest.approx(own, abs=1e-6)),
            (0, "not red_disc", pytest.approx(1 - own, abs=1e-6)),
        ]

    def test_one_of_many(self, engines):
        answer = engines["multiclass"].predict(PHOTO, 5)
        assert answer.task == "multiclass"
        assert sum(one.probability for one in answer.predictions) == pytest.approx(1)

    def test_before_the_first_photo_the_task_is_unknown_and_then_its_assumption_is_told(self, folder):
        (spec,) = written(folder, "finding")
        engine = Engine("finding", spec, load_model(spec), Limits())
        assert (engine.task, engine.notes) == (None, ())
        engine.predict(PHOTO, 1)
        assert engine.task.name == "binary"
        assert engine.notes == ("task: binary (assumed: it has one logit)",)


class TestExplain:
    @pytest.mark.parametrize("method", ["lrp", "sglrp", "ssglrp"])
    def test_each_finding_lies_on_its_own_disc(self, engines, method):
        for map_, colour in zip(
            explained(engines["multilabel"], ("red_disc", "green_disc"), method), COLOURS, strict=False
        ):
            assert share_in(heatmap(map_), colour) > 0.95
            assert heatmap(map_).min() >= 0  # what else is in the picture is no evidence against it
            own = "the method has no rivals" if method == "lrp" else "each class is a question of its own"
            assert map_.against == f"nothing: {own}"
            assert map_.scale.warning == ""

    def test_a_finding_has_the_rivals_that_are_named(self, engines):
        (map_,) = explained(engines["multilabel"], ("red_disc",), "sglrp", against=("green_disc",))
        assert [one.label for one in map_.against] == ["green_disc"]
        assert share_in(heatmap(map_), "red") > 0.95
        assert share_in(-heatmap(map_), "green") > 0.95

    @pytest.mark.parametrize("method", ["lrp", "clrp2", "ssglrp"])
    @pytest.mark.parametrize("against", [(), ("not red_disc",)])
    def test_it_is_not_is_the_negative_of_it_is_so(self, engines, method, against):
        (so,) = explained(engines["binary"], ("red_disc",), method, against)
        (not_so,) = explained(engines["binary"], ("not red_disc",), method)
        assert share_in(heatmap(so), "red") > 0.95
        assert (heatmap(not_so) == -heatmap(so)).all()
        own = (
            "the other class: it is so, or not" if method == "ssglrp" else "nothing: the method has no rivals"
        )
        assert not_so.against == own

    def test_what_a_reader_must_know_is_said(self, engines, monkeypatch):
        so, not_so = explained(engines["binary"], ("red_disc", "not red_disc"), "lrp")
        assert (so.remark, not_so.remark) == ("", MIRRORED)
        captions = []
        monkeypatch.setattr(engine_module, "whole", lambda *given: captions.append(given[3]) or b"")
        for name in ("red_disc", "not red_disc"):
            engines["binary"].picture(PHOTO, Question((name,), (), ("lrp",)), lambda: False)
        assert [MIRRORED in caption for caption in captions] == [False, True]

    def test_grad_cam_of_one_logit_is_that_of_what_raises_it(self, engines):
        """Here nothing raises "it is not", and its rectified map is empty."""
        so, not_so = explained(engines["binary"], ("red_disc", "not red_disc"), "gradcam")
        assert share_in(heatmap(so), "red") > 0.9
        assert not heatmap(not_so).any()
        assert not_so.scale.warning == "all relevance is zero"
        assert not_so.against == "nothing: the method has no rivals"

    def test_a_class_is_not_its_own_rival(self, engines):
        with pytest.raises(ValueError, match="target and against are both 'red_disc'"):
            explained(engines["binary"], ("red_disc",), "sglrp", ("1",))

    def test_one_of_many_is_against_all_others(self, engines):
        (map_,) = explained(engines["multiclass"], ("red_disc",), "sglrp")
        assert map_.against == "all other classes"
        assert share_in(-heatmap(map_), "green") > 0.95

    @pytest.mark.parametrize("task", ["multilabel", "binary", "multiclass"])
    def test_the_lines_make_the_same_map(self, engines, task, folder, monkeypatch):
        (folder / "photo.jpg").write_bytes(PHOTO)
        monkeypatch.chdir(folder)
        for map_ in explained(engines[task], ("0", "1"), "ssglrp"):
            names = {}
            exec(map_.python, names)
            assert np.allclose(names["heatmap"].numpy(), heatmap(map_), rtol=1e-4, atol=1e-7)
            assert names["explanation"].task == task


class TestAnEmptyMap:
    """The class that is the same whatever the picture shows."""

    def test_says_so_and_is_without_colour(self, engines):
        red, nothing = explained(engines["multilabel"], ("red_disc", "anything"), "ssglrp")
        assert (red.scale.warning, nothing.scale.warning) == ("", EMPTY)
        assert not heatmap(nothing).any()
        layer = np.asarray(Image.open(BytesIO(base64.b64decode(nothing.pictures[0].png))))
        assert not layer[..., 3].any()

    def test_rounding_is_not_drawn(self, engines, monkeypatch):
        """Two classes that are the same leave rounding, which a scale of its own would paint in full colour."""
        monkeypatch.setattr("clarp.passes.NOISE", -3)  # so that every map counts as rounding
        (map_,) = explained(engines["multilabel"], ("red_disc",), "ssglrp")
        assert map_.scale.warning == EMPTY
        assert not heatmap(map_).any()
        assert map_.ledger["pixels"] > 0

    def test_its_picture_says_so(self, engines, monkeypatch):
        captions = []
        monkeypatch.setattr(
            "clarp.serve.engine.whole", lambda *arguments: captions.append(arguments[3]) or b""
        )
        for target in ("red_disc", "anything"):
            engines["multilabel"].picture(PHOTO, Question((target,), (), ("ssglrp",)), lambda: False)
        assert [EMPTY in caption for caption in captions] == [False, True]
        assert captions[0].startswith("red disc (91.")
        assert "against" not in "".join(captions)


class TestMask:
    def test_probabilities_are_the_tasks_own(self, engines):
        covered = [(0, 0, SIDE // 2, SIDE // 2)]  # the red disc
        changes = engines["multilabel"].mask(PHOTO, covered, "colour", ()).classes
        red, green = (
            next(one for one in changes if one.label == f"{name}_disc") for name in ("red", "green")
        )
        assert red.before > 0.9
        assert red.after < 0.1
        assert green.after == pytest.approx(green.before, abs=0.02)
        so, not_so = engines["binary"].mask(PHOTO, covered, "colour", ()).classes
        assert (so.after + not_so.after, so.label) == (pytest.approx(1), "red_disc")
        assert so.after < 0.1


class TestApi:
    def test_about_says_the_task_and_what_was_assumed(self, url):
        models = httpx.get(f"{url}/api/about").json()["models"]
        assert [(one["name"], one["task"], one["classes"], one["notes"]) for one in models] == [
            ("findings.py:build", "multilabel", 4, []),
            ("finding.py:build", "binary", 2, ["task: binary (assumed: it has one logit)"]),
            ("kinds.py:build", "multiclass", 3, []),
        ]

    @pytest.mark.parametrize("task", ["multilabel", "binary", "multiclass"])
    def test_answers_are_the_engines(self, url, engines, task):
        engine = engines[task]
        query = {"model": engine.name, "target": ["1", "0"], "method": "sglrp"}
        answer = httpx.post(f"{url}/api/explain", params=query, content=PHOTO).json()
        expected = engine.explain(PHOTO, Question(("1", "0"), (), ("sglrp",)), lambda: False)
        assert answer == expected.model_dump(mode="json", by_alias=True)
        said = httpx.post(f"{url}/api/predict", params={"model": engine.name}, content=PHOTO).json()
        assert said["task"] == task

    def test_classes_of_one_logit(self, url):
        answer = httpx.get(f"{url}/api/classes", params={"model": "finding.py:build"}).json()
        assert answer["labels"] == ["not red_disc", "red_disc"]


class TestTheCommand:
    @pytest.fixture
    def apps(self, monkeypatch):
        found = []
        monkeypatch.setattr("clarp.commands.serve.run", lambda app, _: found.append(app))
        return found

    def serve(self, *arguments):
        with pytest.raises(SystemExit) as ending:
            main(["serve", "--port", "0", *arguments])
        return ending.value.code

    def test_what_is_assumed_is_noted(self, tmp_path, apps, capsys):
        (spec,) = written(tmp_path, "finding")
        assert self.serve("--model", spec) == 0
        assert "clarp: note: task: binary (assumed: it has one logit)\n" in capsys.readouterr().err
        assert self.serve("--model", spec, "--task", "binary") == 0
        assert "task" not in capsys.readouterr().err
        assert len(apps) == 2

    def test_the_task_that_is_given_counts(self, tmp_path, apps):
        (spec,) = written(tmp_path, "kinds")
        assert self.serve("--model", spec, "--task", "multilabel") == 0
        (engine,) = apps[0].app.state.service.engines.values()
        answer = engine.predict(PHOTO, 3)
        assert answer.task == "multilabel"
        (map_,) = explained(engine, ("red_disc",), "sglrp")
        assert 'load("kinds.py:build", task="multilabel")' in map_.python

    def test_a_task_that_cannot_be(self, tmp_path, apps, capsys):
        (spec,) = written(tmp_path, "kinds")
        assert self.serve("--model", spec, "--task", "binary") == 2
        assert "the task is binary, and " in capsys.readouterr().err
        assert apps == []
