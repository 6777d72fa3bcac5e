import base64
import copy
import sys
from io import BytesIO

import numpy as np
import pytest
import torch
from captum.attr import LayerAttribution, LayerGradCam
from PIL import Image

from clarp.explainer import Explainer
from clarp.method import BASELINES
from clarp.models import Classifier
from clarp.render import STYLES, Look, Scale, Seen, prepared
from clarp.render import picture as drawn_picture
from clarp.render.shading import faded
from clarp.render.styles import View
from clarp.serve import photos
from clarp.serve.engine import COMPARED, Engine, GivenUp, Question
from clarp.serve.limits import Limits
from serve.servers import LABELS, SIDE, classifier, engine, photo, preprocess


def tensor(data):
    return preprocess(Image.open(BytesIO(data)).convert("RGB"))[None]


def heatmap(map_):
    return np.load(BytesIO(base64.b64decode(map_.heatmap)))


def picture(text):
    return np.asarray(Image.open(BytesIO(base64.b64decode(text))))


def explained(toy, data, *, targets=(), against=(), methods=("sglrp",)):
    return toy.explain(data, Question(targets, against, methods), lambda: False)


def sampled(shown):
    """The middles of the squares of a picture of a toy's map."""
    middles = (np.arange(SIDE) * (len(shown) // SIDE)) + len(shown) // SIDE // 2
    return shown[np.ix_(middles, middles)]


def middle(image):
    """A preprocessing that resizes the shorter side, and cuts the middle."""
    factor = SIDE / min(image.size)
    width, height = (round(factor * length) for length in image.size)
    left, top = (width - SIDE) // 2, (height - SIDE) // 2
    return preprocess(image.resize((width, height)).crop((left, top, left + SIDE, top + SIDE)))


LOOKS = [
    *map(Look, STYLES),
    Look("overlay", "bam", 0.04, 0.5, 96),
    Look("versus", smoothing=0.0, opacity=0.3),
    Look("heatmap", smoothing=0.1),
    Look("contours", "bam", size=200),
]


class Summed(torch.nn.Module):
    """An operation without rule."""

    def forward(self, x):
        return x.cumsum(1)


class TestPredict:
    def test_the_models_own_probabilities_the_greatest_first(self, toy):
        data = photo()
        with torch.no_grad():
            expected = toy.classifier.module(tensor(data))[0].softmax(0)
        found = toy.predict(data, 3).predictions
        assert [one.index for one in found] == expected.topk(3).indices.tolist()
        assert [one.probability for one in found] == pytest.approx(expected.topk(3).values.tolist(), abs=1e-7)
        assert [one.label for one in found] == [LABELS[one.index] for one in found]

    def test_a_model_that_ends_in_a_softmax(self, toy):
        likely = torch.nn.Sequential(toy.classifier.module, torch.nn.Softmax(1)).eval()
        found = Engine("likely", "likely", Classifier("likely", likely, LABELS, preprocess), Limits())
        one, other = (model.predict(photo(), 4).predictions for model in (toy, found))
        assert [each.index for each in one] == [each.index for each in other]
        assert [each.probability for each in other] == pytest.approx(
            [each.probability for each in one], abs=1e-6
        )

    def test_the_photo_as_the_model_sees_it(self, toy):
        data = photo((60, 20))
        answer = toy.predict(data, 1)
        assert (answer.photo.width, answer.photo.height) == (60, 20)
        expected = (tensor(data)[0] * 255).round().byte().permute(1, 2, 0).numpy()
        assert (picture(answer.seen.png) == expected).all()

    def test_more_classes_than_there_are(self, toy):
        assert len(toy.predict(photo(), 100).predictions) == len(LABELS)


class TestExplain:
    @pytest.mark.parametrize("method", ["lrp", "clrp2", "ssglrp", "clarp"])
    def test_the_heatmaps_are_the_explainers(self, toy, method):
        data = photo()
        maps = explained(toy, data, targets=("bee", "3"), methods=(method,)).maps
        explainer = Explainer(toy.classifier.module, method, bounds=toy.classifier.bounds)
        expected = explainer(tensor(data), target=[[1, 3]]).heatmap[0]
        assert [one.target.index for one in maps] == [1, 3]
        for one, values in zip(maps, expected, strict=True):
            assert heatmap(one).dtype == np.float32
            assert (heatmap(one) == values.numpy()).all()

    def test_every_method_with_every_target(self, toy):
        maps = explained(toy, photo(), targets=("0", "1"), methods=("lrp", "sglrp")).maps
        assert [(one.method, one.target.index) for one in maps] == [
            ("lrp", 0),
            ("lrp", 1),
            ("sglrp", 0),
            ("sglrp", 1),
        ]

    def test_rivals(self, toy):
        data = photo()
        sglrp, lrp = explained(
            toy, data, targets=("ant",), against=("bee", "cow"), methods=("sglrp", "lrp")
        ).maps
        explainer = Explainer(toy.classifier.module, "sglrp", bounds=toy.classifier.bounds)
        expected = explainer(tensor(data), target=0, against=[1, 2]).heatmap[0]
        assert (heatmap(sglrp) == expected.numpy()).all()
        assert [one.label for one in sglrp.against] == ["bee", "cow"]
        assert lrp.against == "nothing: the method has no rivals"
        assert explained(toy, data).maps[0].against == "all other classes"

    def test_two_classes_against_each_other(self, toy):
        first, second = explained(toy, photo(), targets=("0", "1"), against=("0", "1")).maps
        assert ([one.index for one in first.against], [one.index for one in second.against]) == ([1], [0])

    def test_the_target_is_the_top_class_if_none_is_named(self, toy):
        top = toy.predict(photo(), 1).predictions[0]
        assert explained(toy, photo()).maps[0].target == top

    def test_the_lines_make_the_same_map(self, toy, tmp_path, monkeypatch):
        data = photo()
        (tmp_path / "photo.jpg").write_bytes(data)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("clarp.models.load", {"toy.py:build": toy.classifier}.__getitem__)
        maps = explained(
            toy, data, targets=("1", "dog, hound"), against=("2",), methods=("sglrp", "lrp")
        ).maps
        assert len(maps) == 4
        for one in maps:
            names = {}
            exec(one.python, names)
            assert np.allclose(names["heatmap"].numpy(), heatmap(one), rtol=1e-4, atol=1e-9)

    def test_the_colours_are_the_stronger_the_more_opaque(self, toy):
        one = explained(toy, photo()).maps[0]
        layer, values = sampled(picture(one.pictures[0].png)), np.abs(prepared(heatmap(one), "overlay"))
        assert layer.shape == (SIDE, SIDE, 4)
        positive = prepared(heatmap(one), "overlay") > 0
        assert (layer[..., 3][positive & (values >= one.scale.limit)] == 255).all()
        weak = values < 0.25 * one.scale.limit
        assert (layer[..., 3][weak] < 128).all()
        assert weak.any()

    def test_on_the_same_scale_the_maps_of_a_method_have_one_limit(self, toy):
        question = Question(("ant", "bee"), (), ("lrp", "sglrp"), same_scale=True)
        maps = toy.explain(photo(), question, lambda: False).maps
        own = explained(toy, photo(), targets=("ant", "bee"), methods=("lrp", "sglrp")).maps
        for pair, alone in ((maps[:2], own[:2]), (maps[2:], own[2:])):
            both = np.percentile(np.abs([prepared(heatmap(one), "overlay") for one in pair]), 99.5)
            assert [one.scale.limit for one in pair] == pytest.approx([both, both])
            assert alone[0].scale.limit != pytest.approx(alone[1].scale.limit)
            assert pair[0].scale.basis == "99.5th percentile of |relevance| over 2 maps"
            for one in pair:
                full = prepared(heatmap(one), "overlay") >= one.scale.limit
                layer = sampled(picture(one.pictures[0].png))
                assert (layer[..., 3][full] == 255).all()
                assert (layer[..., 3][~full] < 255).any()

    @pytest.mark.parametrize("look", LOOKS, ids=str)
    def test_each_look_is_what_the_command_line_draws(self, toy, look):
        """The pictures are those of the style's panels, on the scale of what it draws."""
        targets = ("ant", "cow") if look.style == "versus" else ("ant",)
        maps = toy.explain(photo(), Question(targets, (), ("lrp",), look=look), lambda: False).maps
        one = maps[0]
        seen = Seen.of(picture(toy.predict(photo(), 1).seen.png), (SIDE, SIDE)).at(
            look.size or 450, squares=True
        )
        view = View.of(heatmap(one), seen, look, rival=heatmap(maps[1]) if look.style == "versus" else None)
        assert (one.scale.limit, one.scale.peak) == (view.scale.limit, view.scale.peak)
        assert one.note == view.note
        assert one.scale.smoothed == (look.sigma > 0)
        assert one.scale.hues == look.words
        assert [each.title for each in one.pictures] == [panel.title for panel in view.panels]
        for each, panel in zip(one.pictures, view.panels, strict=True):
            shown = picture(each.png) / 255
            assert shown.shape[:2] == seen.size
            if look.style == "overlay":  # lies over the photo, as the page lays it
                share = shown[..., 3:]
                shown = share * shown[..., :3] + (1 - share) * faded(seen.photo)
            far = np.abs(shown - panel.pixels).max(-1) > 0.02
            assert far.mean() < (0.35 if panel.lines else 0.001)  # where no line lies

    def test_two_classes_have_one_picture_and_both_maps(self, toy):
        question = Question(("ant", "bee"), (), ("lrp", "sglrp"), look=Look("versus"))
        maps = toy.explain(photo(), question, lambda: False).maps
        own = explained(toy, photo(), targets=("ant", "bee"), methods=("lrp", "sglrp")).maps
        assert [(one.method, one.target.index) for one in maps] == [
            ("lrp", 0),
            ("lrp", 1),
            ("sglrp", 0),
            ("sglrp", 1),
        ]
        assert [one.heatmap for one in maps] == [one.heatmap for one in own]
        for first, second in (maps[:2], maps[2:]):
            assert len(first.pictures) == 1
            assert first.pictures == second.pictures
            assert first.scale.hues == ("orange", "violet")
        assert maps[0].pictures != maps[2].pictures

    @pytest.mark.parametrize("targets", [(), ("ant",), ("ant", "0"), ("ant", "bee", "cow")])
    def test_two_classes_are_two(self, toy, targets):
        question = Question(targets, (), ("lrp",), look=Look("versus"))
        count = len(set(targets) - {"0"})
        for ask in (toy.explain, toy.picture):
            with pytest.raises(ValueError, match=f"two classes at once, and target names {count}; name two"):
                ask(photo(), question, lambda: False)

    def test_the_bar_is_in_the_colours(self, toy):
        """From what speaks against to what speaks for, and of two classes from the second to the first."""

        def ends(look, targets=("ant",)):
            bar = (
                toy.explain(photo(), Question(targets, (), ("lrp",), look=look), lambda: False)
                .maps[0]
                .scale.bar
            )
            return tuple(picture(bar)[:, k].mean(0) for k in (0, -1))

        blue, red = ends(Look("heatmap"))
        pink, green = ends(Look("heatmap", colours="bam"))
        violet, orange = ends(Look("versus"), ("ant", "bee"))
        assert blue.argmax() == violet.argmax() == 2
        assert red.argmax() == orange.argmax() == pink.argmax() == 0
        assert green.argmax() == 1
        pale, _ = ends(Look())  # striped: the ground between
        assert np.abs(pale - blue).max() > 20
        regions = toy.explain(photo(), Question((), (), ("lrp",), look=Look("region")), lambda: False)
        assert regions.maps[0].scale.bar == ""

    def test_a_style_of_a_wide_photo_has_its_shape(self):
        wide = Engine("toy", "toy", classifier(lambda image: preprocess(image)[:, :8]), Limits())
        maps = wide.explain(photo(), Question((), (), ("lrp",), look=Look("signs")), lambda: False).maps
        assert [picture(each.png).shape for each in maps[0].pictures] == [(144, 432, 3)] * 2

    def test_on_the_same_scale_in_a_smoothed_style(self, toy):
        question = Question(("ant", "bee"), (), ("lrp",), same_scale=True, look=Look("contours"))
        one, other = toy.explain(photo(), question, lambda: False).maps
        both = Scale.of(*(prepared(heatmap(each), "contours") for each in (one, other)))
        assert one.scale.limit == other.scale.limit == both.limit

    def test_the_ledger_balances(self, toy):
        ledger = explained(toy, photo(), methods=("lrp",)).maps[0].ledger
        rest = sum(ledger[part] for part in ("pixels", "selection", "bias", "epsilon"))
        assert ledger["seed"] == pytest.approx(rest, rel=1e-4)

    def test_given_up_between_two_methods(self, toy):
        asked = iter([False, True])
        with pytest.raises(GivenUp):
            toy.explain(photo(), Question((), (), ("lrp", "sglrp")), lambda: next(asked))
        assert not list(asked)

    @pytest.mark.parametrize(
        ("targets", "against", "message"),
        [
            (("bees",), (), "no class 'bees'; the nearest names are 'bee'"),
            (("4",), (), "no class 4: its 4 classes are 0 to 3"),
            (("ant",), ("0",), "target and against are both 'ant'"),
        ],
    )
    def test_wrong_classes(self, toy, targets, against, message):
        with pytest.raises(ValueError, match=message):
            explained(toy, photo(), targets=targets, against=against)

    def test_a_picture_with_caption(self, toy):
        drawn = Image.open(BytesIO(toy.picture(photo(), Question(("1",), ("2",), ("sglrp",)), lambda: False)))
        assert drawn.format == "PNG"
        assert drawn.height > drawn.width > 450

    @pytest.mark.parametrize("size", [None, 600, 1500])
    def test_a_picture_lies_over_the_whole_photo(self, size):
        """At the photo's own resolution, with the model's crop framed."""
        data = photo((700, 400))
        toy = Engine("toy", "toy", classifier(middle), Limits())
        look = Look("overlay", size=size, caption=False)
        drawn = Image.open(
            BytesIO(toy.picture(data, Question(("1",), (), ("lrp",), look=look), lambda: False))
        )
        one = toy.explain(data, Question(("1",), (), ("lrp",)), lambda: False).maps[0]
        whole = Seen(np.asarray(Image.open(BytesIO(data))), (150, 0, 550, 400), (400, 700))
        assert np.array_equal(drawn, drawn_picture(heatmap(one), whole, "", look))
        assert max(drawn.size) == (size or 700)

    def test_the_whole_photo_is_kept_in_the_usual_size_only(self, monkeypatch):
        toy = Engine("toy", "toy", classifier(middle), Limits())
        data, decoded = photo((1300, 1000), kind="JPEG"), []
        real = photos.decode_photo
        monkeypatch.setattr(photos, "decode_photo", lambda *given: decoded.append(1) or real(*given))

        def ask(size):
            toy.picture(data, Question(("1",), (), ("lrp",), look=Look(size=size)), lambda: False)
            return len(decoded)

        assert [ask(size) for size in (None, None, 300, 1024)] == [2, 2, 2, 2]
        assert toy._photos.prepared(data).whole.size == (788, 1024)
        assert [ask(size) for size in (1200, 1200)] == [3, 4]
        assert toy._photos.prepared(data).whole.size == (788, 1024)

    def test_a_picture_of_two_classes_names_both(self, toy, monkeypatch):
        given = []
        monkeypatch.setattr("clarp.serve.engine.whole", lambda *arguments: given.append(arguments) or b"")
        look = Look("versus", caption=True)
        toy.picture(photo(), Question(("bee", "3"), (), ("lrp",), look=look), lambda: False)
        heatmaps, _, _, words, names = given[0]
        assert len(heatmaps) == 2
        assert names == ("bee", "dog, hound")
        assert words.splitlines()[0] == "bee or dog, hound"

    def test_a_picture_of_several_classes_is_refused(self, toy):
        with pytest.raises(ValueError, match="in the style signs is of one class, and target names 2"):
            toy.picture(photo(), Question(("0", "1"), (), ("lrp",), look=Look("signs")), lambda: False)


class TestGradCAM:
    def test_it_is_the_evaluations_and_captums(self, toy):
        data = photo()
        maps = explained(toy, data, targets=("bee", "3"), against=("ant",), methods=("gradcam", "lrp")).maps
        assert [(one.method, one.target.index) for one in maps] == [
            ("gradcam", 1),
            ("gradcam", 3),
            ("lrp", 1),
            ("lrp", 3),
        ]
        copied = copy.deepcopy(toy.classifier.module)
        for one in maps[:2]:
            grad_cam = LayerGradCam(copied, copied[2])
            cells = grad_cam.attribute(tensor(data), one.target.index, relu_attributions=True)
            expected = LayerAttribution.interpolate(cells, (SIDE, SIDE), "bilinear")[0, 0]
            assert np.allclose(heatmap(one), expected.detach().numpy(), rtol=1e-5, atol=1e-9)
            assert one.definition.endswith("layer 2")
            assert (one.composite, one.against, one.ledger) == ("", "nothing: the method has no rivals", {})

    def test_the_lines_make_the_same_map(self, toy, tmp_path, monkeypatch):
        (tmp_path / "photo.jpg").write_bytes(photo())
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("clarp.models.load", {"toy.py:build": toy.classifier}.__getitem__)
        for one in explained(toy, photo(), targets=("0", "1"), methods=("gradcam",)).maps:
            names = {}
            exec(one.python, names)
            assert np.allclose(names["heatmap"].numpy(), heatmap(one), rtol=1e-4, atol=1e-9)

    def test_a_picture_names_the_layer(self, toy, monkeypatch):
        captions = []
        monkeypatch.setattr(
            "clarp.serve.engine.whole", lambda *arguments: captions.append(arguments[3]) or b""
        )
        toy.picture(photo(), Question(("1",), (), ("gradcam",)), lambda: False)
        title, small = captions[0].splitlines()
        assert title.startswith("bee (")
        assert "against" not in title
        assert small == "GRADCAM (2) · toy"

    def test_a_model_without_convolutions_is_told_why_and_has_its_other_maps(self):
        flat = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * SIDE * SIDE, 4)).eval()
        found = Engine("flat", "flat", Classifier("flat", flat, LABELS, preprocess), Limits())
        with pytest.raises(
            ValueError, match="no convolution that is a module, and Grad-CAM looks at the last"
        ):
            explained(found, photo(), methods=("gradcam",))
        assert explained(found, photo(), methods=("lrp",)).maps

    def test_an_exported_program_is_told_why(self):
        program = torch.export.export(classifier().module, (torch.zeros(1, 3, SIDE, SIDE),))
        found = Engine("exported", "exported", Classifier("exported", program, LABELS, preprocess), Limits())
        with pytest.raises(TypeError, match=r"needs a torch\.nn\.Module"):
            explained(found, photo(), methods=("gradcam",))

    def test_without_captum_it_says_what_to_install(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "captum", None)
        with pytest.raises(ValueError, match=r'needs captum, .* pip install "clarp\[eval\]"'):
            explained(engine(), photo(), methods=("gradcam",))

    def test_what_is_compared_is_a_baseline(self):
        assert set(COMPARED) <= set(BASELINES)


class TestMask:
    def test_covered_pixels_are_the_mean_colour(self, toy):
        data = photo()
        answer = toy.mask(data, [(0, 0, 12, 24), (6, 0, 18, 6)], "colour", ["dog, hound"])
        image = tensor(data).clone()
        image[..., :12, :] = 0
        image[..., 6:18, :6] = 0
        with torch.no_grad():
            expected = toy.classifier.module(image)[0].softmax(0)
        assert answer.covered == pytest.approx((12 * 24 + 6 * 6) / SIDE**2)
        assert sorted(one.index for one in answer.classes) == [0, 1, 2, 3]
        assert answer.classes[0].label == "dog, hound"
        for one in answer.classes:
            assert one.after == pytest.approx(float(expected[one.index]), abs=1e-7)
            assert one.before != pytest.approx(one.after, abs=1e-4)

    def test_a_blur_is_another_fill(self, toy):
        colour, blur = (toy.mask(photo(), [(0, 0, 12, 24)], fill, []).classes for fill in ("colour", "blur"))
        assert colour[0].before == blur[0].before
        assert colour[0].after != pytest.approx(blur[0].after, abs=1e-4)

    @pytest.mark.parametrize("box", [(0, 0, 25, 4), (5, 5, 5, 9), (9, 0, 3, 4), (0, 20, 4, 25)])
    def test_boxes_outside(self, toy, box):
        with pytest.raises(ValueError, match=r"not inside the picture: expected .* right <= 24"):
            toy.mask(photo(), [box], "colour", [])


class TestLimits:
    def test_a_thin_strip_is_refused_before_the_preprocessing_makes_it_huge(self, toy):
        with pytest.raises(ValueError, match="20 times the shorter one"):
            toy.predict(photo((1, 21)), 1)
        assert toy.predict(photo((1, 20)), 1)

    def test_pixels(self):
        small = engine(limits=Limits(pixels=100))
        assert small.predict(photo((10, 10)), 1)
        with pytest.raises(ValueError, match=r"11 x 10 pixels, expected at most 0\.0001 million"):
            small.predict(photo((11, 10)), 1)

    def test_a_preprocessing_that_fails_says_so(self, toy):
        with pytest.raises(ValueError, match="the preprocessing failed with RuntimeError: unlucky size"):
            toy.predict(photo((13, 13)), 1)

    def test_few_photos_are_kept_and_each_is_decoded_once(self, monkeypatch):
        found = engine(limits=Limits(photos=2))
        decoded = []
        monkeypatch.setattr(
            "clarp.serve.photos.decode_photo",
            lambda data, most: decoded.append(most) or Image.open(BytesIO(data)),
        )
        for seed in (0, 1, 0, 2, 0, 1):
            found.predict(photo(seed=seed), 1)
        assert len(decoded) == 4  # 0, 1, 2, and 1 again

    def test_sizes_are_forgotten_when_they_become_too_many(self):
        def as_it_is(image):
            return torch.from_numpy(np.asarray(image, dtype=np.float32) / 255).permute(2, 0, 1)

        found = Engine("any", "any", classifier(as_it_is), Limits(sizes=2))
        networks = set()
        for side in (8, 9, 8, 10):
            answer = explained(found, photo((side, side)), methods=("lrp",))
            assert heatmap(answer.maps[0]).shape == (side, side)
            networks.add(id(found.session.network))
        assert len(networks) == 2
        assert len(found._sizes) == 1

    def test_a_model_without_rules_is_refused_at_the_start(self):
        odd = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * SIDE**2, 4), Summed())
        with pytest.raises(RuntimeError, match="cumsum"):
            Engine("odd", "odd", Classifier("odd", odd.eval(), LABELS, preprocess), Limits()).try_out(
                "ssglrp"
            )
