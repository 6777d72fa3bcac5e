"""What a run refuses and reports, and that its rows are what the metrics say when called directly."""

import json
import re
import shutil
import threading
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image

from clarp.cli import main
from clarp.data.opening import open_dataset
from clarp.data.sample import Sample
from clarp.evaluation import (
    CentrePosition,
    EnergyPointing,
    GridPointingGame,
    Metric,
    PatchMasking,
    PointingGame,
    mean_image,
)
from clarp.evaluation.confident import confident
from clarp.evaluation.run import Run, Settings
from clarp.evaluation.specs import metrics
from clarp.evaluation.store import Store, part_name
from clarp.evaluation.tables import Report
from clarp.evaluation.writing import headline
from clarp.explainer import attribute
from clarp.files import write_summed
from clarp.models import load
from evaluation.toys import parts_of, toy_boxes, toy_model, toy_photos

parquet = pytest.importorskip("pyarrow.parquet")


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def model(tmp_path):
    return toy_model(tmp_path)


@pytest.fixture
def photos(tmp_path):
    return toy_photos(tmp_path / "photos", 20)


def run(dataset, model, out, methods=("lrp",), wanted=("patch-masking:size=5",), **settings):
    classifier = load(model)
    opened = open_dataset(str(dataset), classifier.labels)
    return Run(opened, classifier, Settings(tuple(methods), metrics(wanted), batch_size=4, **settings), out)


@dataclass(frozen=True)
class MeanInside(Metric):
    """With geometries, so the masks are in the photo's pixels."""

    name: ClassVar[str] = "mean-inside"
    truth: ClassVar[tuple[str, ...]] = ("masks", "before")
    optional_truth: ClassVar[tuple[str, ...]] = ("geometries",)
    columns: ClassVar[dict[str, str]] = {"pixels": "higher", "before": "none", "degenerate": "none"}

    def measure(self, heatmaps, *, masks, before, geometries):
        assert [mask.shape for mask in masks] == [place.original for place in geometries]
        return {"pixels": torch.tensor([float(mask.sum()) for mask in masks]), "before": before}


def rows(out):
    return parquet.read_table(out / "rows.parquet").to_pylist()


def clarp(*arguments):
    with pytest.raises(SystemExit) as ending:
        main([str(argument) for argument in arguments])
    return ending.value.code or 0


class TestTheRows:
    def test_they_are_what_the_metric_says_of_every_method(self, photos, model, tmp_path):
        outcome = run(photos, model, tmp_path / "run", ["lrp", "ssglrp"]).complete()
        assert outcome.images == outcome.computed == 20
        found = rows(tmp_path / "run")
        assert len(found) == 20 * 4
        assert [row["method"] for row in found[:4]] == ["lrp", "ssglrp", "random", "centre"]

        classifier = load(model)
        samples = open_dataset(str(photos), classifier.labels).samples
        images = torch.stack([classifier.preprocess(sample.image()) for sample in samples])
        targets = torch.tensor([sample.labels[0][0] for sample in samples])
        mean = mean_image([images])
        for method in ("lrp", "ssglrp", "centre"):
            if method == "centre":
                maps = CentrePosition()(images, [sample.id for sample in samples])
            else:
                maps = attribute(classifier.module, images, targets, method, bounds=classifier.bounds)
            expected = PatchMasking(5)(classifier.module, images, maps, targets=targets, mean_image=mean)
            own = [row for row in found if row["method"] == method]
            assert [row["id"] for row in own] == [sample.id for sample in samples]
            assert [row["target"] for row in own] == targets.tolist()
            drops = [row["patch-masking:size=5/drop@5"] for row in own]
            assert drops == pytest.approx(expected["drop@5"].tolist(), abs=1e-6)
            assert [row["probability"] for row in own] == pytest.approx(expected["before"].tolist(), abs=1e-6)
            assert max(map(abs, drops)) > 1e-4

    def test_what_ran_before_changes_no_row(self, photos, model, tmp_path):
        whole, late = run(photos, model, tmp_path / "a"), run(photos, model, tmp_path / "b")
        whole.complete()
        assert late.ranges == [(0, 16), (16, 20)]
        late.complete()
        (late.folder / part_name(0, 16)).unlink()
        (late.folder / "rows.parquet").unlink()
        run(photos, model, tmp_path / "b").complete()
        assert (whole.folder / "rows.parquet").read_bytes() == (late.folder / "rows.parquet").read_bytes()

    def test_a_model_that_ends_in_a_softmax_has_the_same_rows(self, photos, model, tmp_path):
        methods = ["lrp", "sglrp"]
        likely = model.replace(":build", ":likely")
        run(photos, model, tmp_path / "a", methods, limit=4).complete()
        run(photos, likely, tmp_path / "b", methods, limit=4).complete()
        for one, other in zip(rows(tmp_path / "a"), rows(tmp_path / "b"), strict=True):
            for name in ("probability", "patch-masking:size=5/drop@5", "patch-masking:size=5/odds@5"):
                assert one[name] == pytest.approx(other[name], abs=1e-5)
            assert (one["target"], one["predicted"]) == (other["target"], other["predicted"])

    def test_predicted_targets(self, photos, model, tmp_path):
        run(photos, model, tmp_path / "run", target="predicted").complete()
        found = rows(tmp_path / "run")
        assert all(row["target"] == row["predicted"] for row in found)
        assert any(row["target"] != row["class"] for row in found)

    def test_a_limit_takes_samples_from_all_over_the_data_set(self, photos, model, tmp_path):
        run(photos, model, tmp_path / "run", limit=4).complete()
        assert sorted({row["class"] for row in rows(tmp_path / "run")}) == [0, 1, 2, 3]

    def test_located_metrics_get_the_label_s_mask_in_the_right_pixels(self, model, tmp_path):
        boxes = toy_boxes(tmp_path / "boxes")
        wanted = ("pointing:tolerance=3:smoothing=0.1", "energy-pointing", "class-sensitivity")
        evaluation = run(boxes, model, tmp_path / "run", ["lrp"], wanted)
        evaluation.complete()
        found = rows(tmp_path / "run")
        assert len(found) == 12 * 2 * 3
        classifier = load(model)
        for row in found:
            sample = next(s for s in evaluation.dataset if s.id == row["id"])
            assert row["label"] in {"0 1", "3"}
            assert row["target"] in ({0, 1} if row["label"] == "0 1" else {3})
            truth = sample.truth(tuple(map(int, row["label"].split())))
            assert row["difficult"] == truth.difficult
            image = classifier.preprocess(sample.image())[None]
            target = torch.tensor([row["target"]])
            if row["method"] == "lrp":
                maps = attribute(classifier.module, image, target, "lrp", bounds=classifier.bounds)
                smoothing = 0.1
            elif row["method"] == "centre":
                maps, smoothing = CentrePosition()(image, [row["id"]]), 0.0
            else:
                continue
            place = evaluation.loader._place(sample.size)
            hit = PointingGame(3, smoothing)(None, None, maps, masks=[truth.mask], geometries=[place])
            assert row["pointing:tolerance=3:smoothing=0.1/hit"] == hit["hit"].item()
            energy = EnergyPointing()(None, None, maps, masks=[place.mask_to_model(truth.mask)])
            assert row["energy-pointing/energy"] == pytest.approx(energy["energy"].item(), abs=1e-6)
        hits = [row["pointing:tolerance=3:smoothing=0.1/hit"] for row in found]
        assert 0 < sum(hits) < len(hits)
        alike = [row["class-sensitivity/correlation"] for row in found if row["method"] == "lrp"]
        assert all(value < 0.999 for value in alike)
        controls = [row["class-sensitivity/overlap"] for row in found if row["method"] != "lrp"]
        assert controls == pytest.approx([1.0] * len(controls))

    def test_a_metric_of_one_s_own_gets_what_it_names(self, model, tmp_path):
        boxes = toy_boxes(tmp_path / "boxes")
        classifier = load(model)
        wanted = {"mean-inside": MeanInside(), **metrics(["patch-masking:size=5"])}
        settings = Settings(("lrp",), wanted, batch_size=4, limit=4)
        Run(open_dataset(str(boxes), classifier.labels), classifier, settings, tmp_path / "run").complete()
        samples = {sample.id: sample for sample in open_dataset(str(boxes), classifier.labels)}
        found = rows(tmp_path / "run")
        assert found
        for row in found:
            truth = samples[row["id"]].truth(tuple(map(int, row["label"].split())))
            assert row["mean-inside/pixels"] == truth.mask.sum()
            assert row["mean-inside/before"] == row["probability"]
            assert row["mean-inside/degenerate"] == row["patch-masking:size=5/degenerate"]

    def test_parameter_randomisation_explains_the_copies(self, photos, model, tmp_path):
        wanted = ("parameter-randomisation:points=2",)
        run(photos, model, tmp_path / "run", ["lrp", "gradient"], wanted, limit=4).complete()
        name = "parameter-randomisation:points=2/rank"
        found = {}
        for row in rows(tmp_path / "run"):
            found.setdefault(row["method"], []).append(row[name])
        assert all(abs(value) < 0.999 for value in found["lrp"] + found["gradient"])
        assert found["centre"] == pytest.approx([1.0] * 4)

    def test_mosaics_are_normalised_only_and_cells_are_the_labels(self, photos, model, tmp_path):
        classifier = load(model)
        dataset = open_dataset(f"mosaics:{photos}", classifier.labels, count=3)
        settings = Settings(("gradient",), metrics(["grid-pointing"]), batch_size=4)
        Run(dataset, classifier, settings, tmp_path / "run").complete()
        found = [row for row in rows(tmp_path / "run") if row["method"] == "gradient"]
        assert len(found) == 12
        for number, row in enumerate(found):
            sample, cell = dataset[number // 4], number % 4
            pixels = torch.from_numpy(np.array(sample.image())).permute(2, 0, 1)[None] / 255 - 0.5
            assert pixels.shape == (1, 3, 448, 448)
            assert row["class"] == sample.labels[cell][0]
            pixels.requires_grad_()
            classifier.module(pixels)[0, row["target"]].backward()
            heatmap = pixels.grad.abs().amax(1)
            expected = GridPointingGame()(None, None, heatmap, cells=[cell])["energy"].item()
            assert row["grid-pointing/energy"] == pytest.approx(expected, rel=1e-3)

    def test_an_exported_program_is_evaluated_too(self, photos, model, tmp_path):
        module = load(model).module
        dynamic = {0: torch.export.Dim("batch")}
        example = torch.zeros(2, 3, 224, 224)
        torch.export.save(
            torch.export.export(module, (example,), dynamic_shapes=(dynamic,)), tmp_path / "toy.pt2"
        )
        names = tmp_path / "names.txt"
        names.write_text("ant\nbee\ncow\ndog\n")
        for computed in (4, 0):
            classifier = load(str(tmp_path / "toy.pt2"), labels=names)
            settings = Settings(("lrp",), metrics(["patch-masking"]), limit=4)
            evaluation = Run(
                open_dataset(str(photos), classifier.labels), classifier, settings, tmp_path / "run"
            )
            assert evaluation.complete().computed == computed
        drops = [row["patch-masking/drop@9"] for row in rows(tmp_path / "run") if row["method"] == "lrp"]
        assert len(drops) == 4
        assert max(map(abs, drops)) > 0
        with pytest.raises(TypeError, match=r"gradient needs a torch\.nn\.Module"):
            Run(evaluation.dataset, classifier, Settings(("gradient",), {}), tmp_path / "other")


class TestConfidentPhotos:
    @pytest.mark.parametrize("name", ["build", "likely"])
    def test_mosaics_are_made_of_those_that_the_model_gets_right(
        self, photos, model, tmp_path, monkeypatch, *, name
    ):
        classifier = load(model)
        dataset = open_dataset(str(photos), classifier.labels)
        shares = {}
        for sample in dataset:
            image = classifier.preprocess(sample.image())[None]
            logits = classifier.module(image).detach()
            shares[sample.id] = float(logits.softmax(1)[0, sample.labels[0][0]])
        limit = sorted(shares.values())[10]
        monkeypatch.setattr("clarp.evaluation.confident.CONFIDENCE", limit - 1e-6)
        classifier = load(model.replace(":build", f":{name}"))
        found = confident(dataset, classifier, tmp_path / "run", torch.device("cpu"))
        assert {sample.id for sample in found} == {name for name, share in shares.items() if share >= limit}
        assert len(found) == 10
        kept = tmp_path / "run" / "confident.json"
        other = kept.read_bytes().replace(found[0].id.encode(), b"nobody")
        write_summed(kept, lambda file: file.write(other))  # what is kept is not computed again
        assert len(confident(dataset, classifier, tmp_path / "run", torch.device("cpu"))) == 9
        kept.write_bytes(kept.read_bytes().replace(b"nobody", b"noboby"))  # unless it rotted
        assert len(confident(dataset, classifier, tmp_path / "run", torch.device("cpu"))) == 10

    def test_photos_that_are_damaged_or_have_no_label_are_left_out(
        self, photos, model, tmp_path, monkeypatch
    ):
        monkeypatch.setattr("clarp.evaluation.confident.CONFIDENCE", 0.0)
        classifier = load(model)
        listed = open_dataset(str(photos), classifier.labels)
        dataset = replace(listed, samples=(replace(listed[0], labels=()), *list(listed)[1:3]))
        (photos / listed[1].id).write_bytes(b"no photo")
        found = confident(dataset, classifier, tmp_path / "run", torch.device("cpu"))
        assert [sample.id for sample in found] == [listed[2].id]

    def test_they_are_looked_for_again_where_anything_they_depend_on_is_another(
        self, photos, model, tmp_path, monkeypatch
    ):
        def names():
            classifier = load(model)
            dataset = open_dataset(str(photos), classifier.labels)
            return [
                sample.id for sample in confident(dataset, classifier, tmp_path / "run", torch.device("cpu"))
            ]

        monkeypatch.setattr("clarp.evaluation.confident.CONFIDENCE", 0.25)
        path = tmp_path / "toy.py"
        right = path.read_text()
        path.write_text(right.replace("/ 255 - 0.5", "* 0.0 - 9.0"))
        wrong = names()
        path.write_text(right)
        corrected = names()
        assert corrected != wrong
        (tmp_path / "run" / "confident.json").unlink()
        assert names() == corrected
        monkeypatch.setattr("clarp.evaluation.confident.CONFIDENCE", 0.0)
        assert len(names()) == 20

    def test_none_at_all(self, photos, model, tmp_path, capsys):
        arguments = [
            "--model",
            model,
            "--methods",
            "lrp",
            "--metrics",
            "grid-pointing",
            "--out",
            tmp_path / "run",
        ]
        assert clarp("evaluate", f"mosaics:{photos}", *arguments) == 2
        assert "gives none of the 20 photos" in capsys.readouterr().err
        assert not (tmp_path / "run" / "confident.json").exists()


class TestDamagedPhotos:
    def test_they_are_listed_counted_and_cost_nothing_else(self, photos, model, tmp_path, capsys):
        (photos / "bee" / "005.png").write_bytes((photos / "bee" / "005.png").read_bytes()[:200])
        (photos / "cow" / "zero.jpg").write_bytes(b"")
        (photos / "notes.txt").write_text("no photo")
        out = tmp_path / "run"
        arguments = ["evaluate", photos, "--model", model, "--methods", "lrp", "--metrics", "sparseness"]
        for _ in range(2):  # the second time from the parts
            assert clarp(*arguments, "--out", out) == 1
            said = capsys.readouterr()
            assert "no rows for bee/005.png: damaged" in said.err
            assert "2 gave no rows" in said.out
            assert "notes.txt" in said.err
        document = json.loads((out / "problems.json").read_text())
        assert document["count"] == 2
        assert [problem["file"] for problem in document["problems"]] == ["bee/005.png", "cow/zero.jpg"]
        assert len(rows(out)) == 19 * 3

    def test_a_photo_that_the_preprocessing_can_t_take_is_one_of_them(self, photos, model, tmp_path):
        evaluation = run(photos, model, tmp_path / "run")
        whole = evaluation.classifier.preprocess
        evaluation.loader.classifier.__dict__["preprocess"] = lambda photo: (
            whole(photo) * float("nan") if photo.getpixel((0, 0)) == first else whole(photo)
        )
        first = evaluation.samples[0].image().getpixel((0, 0))
        outcome = evaluation.complete()
        assert [problem.file for problem in outcome.problems] == [evaluation.samples[0].id]
        assert "NaN" in outcome.problems[0].reason

    def test_a_photo_whose_objects_can_t_be_placed_is_one_of_them(self, model, tmp_path):
        """One pixel doesn't tell how the preprocessing resizes; it is the first that is looked at, too."""
        boxes = toy_boxes(tmp_path / "boxes", 6)
        table = json.loads((boxes / "boxes.json").read_text())
        Image.new("RGB", (1, 1)).save(boxes / "000.png")
        table["000.png"] = {
            "width": 1,
            "height": 1,
            "objects": [{"label": "ant", "classes": [0], "box": [0, 0, 1, 1]}],
        }
        (boxes / "boxes.json").write_text(json.dumps(table))
        outcome = run(boxes, model, tmp_path / "run", wanted=("energy-pointing",)).complete()
        (problem,) = outcome.problems
        assert (problem.kind, problem.file) == ("damaged", "000.png")
        assert problem.reason.startswith("where its objects are can't be told, 1x1 pixels")
        assert len({row["id"] for row in rows(tmp_path / "run")}) == 5

    def test_so_is_one_whose_truth_contradicts_itself(self, model, tmp_path, monkeypatch):
        boxes = toy_boxes(tmp_path / "boxes", 6)
        whole = Sample.truth

        def truth(sample, label):
            if sample.id == "004.png":
                raise ValueError("5100 pixels in a mask of 1920")
            return whole(sample, label)

        monkeypatch.setattr(Sample, "truth", truth)
        outcome = run(boxes, model, tmp_path / "run", wanted=("energy-pointing",)).complete()
        (problem,) = outcome.problems
        assert problem.file == "004.png"
        assert problem.reason.endswith("40x48 pixels (height x width): 5100 pixels in a mask of 1920")


class TestPhotosOutside:
    def test_they_are_left_out_and_named_unless_allowed(self, photos, model, tmp_path, capsys):
        secret = tmp_path / "secret.png"
        (photos / "bee" / "001.png").rename(secret)
        (photos / "bee" / "link.png").symlink_to(secret)
        listed = {"ant/000.png": 0, "bee/link.png": 1, "../secret.png": 1, str(secret): 1}
        (photos / "labels.csv").write_text("file,class\n" + "".join(f"{f},{k}\n" for f, k in listed.items()))
        arguments = ["evaluate", photos, "--model", model, "--methods", "lrp", "--metrics", "sparseness"]
        assert clarp(*arguments, "--out", tmp_path / "refused") == 1
        said = capsys.readouterr().err
        for file in list(listed)[1:]:
            assert f"{file}: outside (it leaves the data set's folder; --outside allows that" in said
        assert {row["id"] for row in rows(tmp_path / "refused")} == {"ant/000.png"}
        document = json.loads((tmp_path / "refused" / "problems.json").read_text())
        assert {problem["file"] for problem in document["problems"]} == {*listed} - {"ant/000.png"}
        assert clarp(*arguments, "--outside", "--out", tmp_path / "allowed") == 0
        assert {row["id"] for row in rows(tmp_path / "allowed")} == {*listed}


def test_ctrl_c_says_how_to_go_on(photos, model, tmp_path, capsys, monkeypatch):
    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Run, "complete", stopped)
    assert clarp("evaluate", photos, "--model", model, "--out", tmp_path / "run") == 130
    assert "clarp: stopped; the same command goes on from here." in capsys.readouterr().err


class TestLostRelevance:
    def test_it_is_said_once_and_stays_in_the_report(self, photos, model, tmp_path, capsys):
        """Without weights nothing reaches the pixels; the second run has it from the parts."""
        path = tmp_path / "toy.py"
        path.write_text(
            path.read_text()
            + """
def lossy():
    model = build()
    with torch.no_grad():
        model[0].weight.zero_()
    return model
"""
        )
        spec, out = model.replace(":build", ":lossy"), tmp_path / "run"
        arguments = ("--methods", "lrp,clarp", "--metrics", "sparseness", "--composite", "epsilon-plus")
        for _ in range(2):
            assert clarp("evaluate", photos, "--model", spec, *arguments, "--out", out) == 0
            (note,) = (line for line in capsys.readouterr().err.splitlines() if "relevance" in line)
            assert note.startswith("clarp: note: with lrp and clarp more than half of the relevance never")
            assert note.endswith("what is missing may be elsewhere.")
        report = Report.of(Store(out), "lrp", resamples=100)
        assert report.lost == ("lrp", "clarp")
        assert "With lrp, clarp more than half of the relevance never reached" in headline(report)


class TestRefusals:
    def test_a_change_is_refused_and_named(self, photos, model, tmp_path):
        out = tmp_path / "run"
        run(photos, model, out).complete()
        table = (out / "rows.parquet").read_bytes()
        with pytest.raises(
            ValueError, match=r"metrics, patch-masking:size=5: PatchMasking\(size=5.* -> nothing"
        ):
            run(photos, model, out, wanted=("sparseness",)).complete()
        with pytest.raises(ValueError, match="limit: nothing -> 4"):
            run(photos, model, out, limit=4).complete()
        with pytest.raises(ValueError, match="methods, gradient: nothing -> captum gradient"):
            run(photos, model, out, ["lrp", "gradient"]).complete()
        with pytest.raises(ValueError, match=r"methods, lrp: .*zplus-box.* -> .*epsilon-plus"):
            run(photos, model, out, composite="epsilon-plus").complete()
        path = tmp_path / "toy.py"
        text = path.read_text()
        path.write_text(text.replace("manual_seed(0)", "manual_seed(1)"))
        with pytest.raises(ValueError, match=r"model, weights: .* -> .*\n.*model, source"):
            run(photos, model, out).complete()
        path.write_text(text.replace("/ 255 - 0.5", "/ 255 - 0.4"))
        with pytest.raises(ValueError, match="model, preprocessing"):
            run(photos, model, out).complete()
        path.write_text(text)
        (photos / "ant" / "000.png").unlink()
        with pytest.raises(ValueError, match=r"data set, samples: 20 -> 19\n.*data set, content"):
            run(photos, model, out).complete()
        assert (out / "rows.parquet").read_bytes() == table

    def test_another_order_is_a_change(self, photos, model, tmp_path):
        """Parts in two orders would swap the methods' numbers."""
        out, both = tmp_path / "run", ("sparseness", "patch-masking:size=5")
        run(photos, model, out, ["lrp", "sglrp"], both).complete()
        (out / "rows.parquet").unlink()
        (out / "parts" / "00000016-00000020.parquet").unlink()
        with pytest.raises(
            ValueError, match=r"order, methods: \['lrp', 'sglrp', .* -> \['sglrp', 'lrp', .*\nGive another"
        ):
            run(photos, model, out, ["sglrp", "lrp"], both).complete()
        with pytest.raises(ValueError, match=r"order, metrics: \['sparseness', .* -> \['patch-masking"):
            run(photos, model, out, ["lrp", "sglrp"], both[::-1]).complete()
        assert len(parts_of(out)) == 1
        assert run(photos, model, out, ["lrp", "sglrp"], both).complete().computed == 4

    def test_what_another_run_left_is_not_taken_for_this_ones(self, photos, model, tmp_path):
        """Without run.json nobody knows of which run a table or a mean image is."""
        out = tmp_path / "run"
        run(photos, model, out).complete()
        (out / "run.json").unlink()
        names = {"rows.parquet", "problems.json", "mean_image.npy", "parts/*.parquet", "pictures/*.parquet"}
        files = {name: next(out.glob(name)) for name in names}
        kept = {path: path.read_bytes() for path in files.values()}
        for path in out.rglob("*.parquet"):
            path.unlink()
        for path in kept:
            path.unlink(missing_ok=True)
        for name, path in files.items():
            path.write_bytes(kept[path])
            with pytest.raises(ValueError, match=f"has {re.escape(name)} but no run.json.*another --out, or"):
                run(photos, model, out).complete()
            assert not (out / "run.json").exists()
            path.unlink()
        assert run(photos, model, out).complete().computed == 20

    def test_moving_everything_is_no_change(self, photos, model, tmp_path):
        out = tmp_path / "run"
        run(photos, model, out).complete()
        (tmp_path / "elsewhere").mkdir()
        moved = photos.rename(tmp_path / "elsewhere" / "photos")
        assert run(moved, toy_model(tmp_path / "elsewhere"), out).complete().computed == 0

    def test_two_at_once_in_one_folder(self, photos, model, tmp_path):
        evaluation = run(photos, model, tmp_path / "run")
        refused = []
        with evaluation.store.locked():

            def second():
                try:
                    run(photos, model, tmp_path / "run").complete()
                except ValueError as error:
                    refused.append(str(error))

            other = threading.Thread(target=second)
            other.start()
            other.join()
        assert len(refused) == 1
        assert "another process is at work" in refused[0]
        assert parts_of(tmp_path / "run") == []
        assert evaluation.complete().computed == 20

    def test_leftovers_of_a_killed_process_are_removed(self, photos, model, tmp_path):
        out = tmp_path / "run"
        for place in (out, out / "parts", out / "pictures"):
            place.mkdir(parents=True, exist_ok=True)
            (place / ".00000000-00000016.parquet.1f.tmp").write_bytes(b"half")
        run(photos, model, out).complete()
        assert not list(out.rglob("*.tmp"))

    def test_a_part_that_is_damaged_or_from_elsewhere(self, photos, model, tmp_path):
        first, other = run(photos, model, tmp_path / "a"), run(photos, model, tmp_path / "b", ["sglrp"])
        first.complete()
        other.complete()
        path = first.folder / part_name(0, 16)
        for name in (path.name, f"{path.name}.sha256"):
            shutil.copy((other.folder / part_name(0, 16)).with_name(name), path.with_name(name))
        with pytest.raises(ValueError, match="belongs to another run"):
            run(photos, model, tmp_path / "a").complete()
        path.write_bytes(b"PAR1 and nothing else")
        outcome = run(photos, model, tmp_path / "a").complete()
        assert outcome.damaged == ("parts/00000000-00000016.parquet",)

    @pytest.mark.parametrize(
        ("wanted", "message"),
        [
            (("pointing",), "^pointing needs to know where the objects are, .*: leave it out,"),
            (("pointing", "grid-pointing"), "^pointing, grid-pointing need to know .*: leave them out,"),
            (("paching",), "Did you mean"),
            (("patch-masking:sise=3",), "its options are size, fill, centre, chunk"),
            (("patch-masking:size=0",), "size=0: give a whole number of at least 1"),
            (("sparseness", "sparseness"), "given twice"),
        ],
    )
    def test_metrics_that_can_t_be_asked(self, photos, model, tmp_path, wanted, message):
        with pytest.raises(ValueError, match=message):
            run(photos, model, tmp_path / "run", wanted=wanted)
        assert not (tmp_path / "run").exists()

    def test_mosaics_only(self, model, tmp_path):
        with pytest.raises(ValueError, match="give mosaics:FOLDER"):
            run(toy_boxes(tmp_path / "boxes"), model, tmp_path / "run", wanted=("grid-pointing",))

    def test_classes_that_are_not_the_model_s(self, model, tmp_path):
        boxes = toy_boxes(tmp_path / "boxes", 2)
        table = (boxes / "boxes.json").read_text()
        (boxes / "boxes.json").write_text(table.replace('"classes": [3]', '"classes": [4]'))
        with pytest.raises(ValueError, match="has the class 4, and the model's 4 classes are 0 to 3"):
            run(boxes, model, tmp_path / "run")

    def test_a_folder_without_a_run(self, tmp_path):
        with pytest.raises(ValueError, match=r"has no run.json"):
            Store(tmp_path).about()


class TestSuites:
    def test_a_suite_names_methods_and_metrics_and_leaves_out_what_has_no_truth(
        self, photos, model, tmp_path, capsys
    ):
        out = tmp_path / "run"
        assert clarp("evaluate", photos, "--suite", "ssglrp-paper", "--model", model, "--out", out) == 0
        assert "are left out: " in capsys.readouterr().err
        about = Store(out).about()
        assert list(about["fingerprint"]["methods"]) == ["lrp", "slrp", "sglrp", "ssglrp", "random", "centre"]
        assert list(about["fingerprint"]["metrics"]) == [
            "patch-masking:size=9",
            "patch-masking:size=9:centre=window",
        ]

    def test_with_objects_it_points_too(self, model, tmp_path):
        out = tmp_path / "run"
        boxes = toy_boxes(tmp_path / "boxes", 4)
        assert clarp("evaluate", boxes, "--suite", "torchray", "--model", model, "--out", out) == 0
        assert list(Store(out).about()["fingerprint"]["metrics"]) == ["pointing:tolerance=15:smoothing=0.02"]

    @pytest.mark.parametrize(
        ("extra", "message"),
        [
            (["--suite", "torchrai"], "Did you mean torchray"),
            (["--suite", "torchray", "--metrics", "sparseness"], "leave out --methods and --metrics"),
            (["--suite", "torchray"], "asks where objects are"),
            (["--target", "both"], "expected label or predicted"),
        ],
    )
    def test_refusals(self, photos, model, tmp_path, capsys, *, extra, message):
        assert clarp("evaluate", photos, "--model", model, "--out", tmp_path / "run", *extra) == 2
        assert message in capsys.readouterr().err
