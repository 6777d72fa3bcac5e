"""What comes back: shapes, files, the ledger."""

import json
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import clarp
from clarp.network import Network
from clarp.render import Look
from clarp.task import TaskName


def small(*, bias: bool = True) -> nn.Module:
    torch.manual_seed(0)
    return (
        nn.Sequential(
            nn.Conv2d(3, 4, 3, bias=bias),
            nn.ReLU(),
            nn.Conv2d(4, 5, 3, bias=bias),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(80, 6, bias=bias),
        )
        .double()
        .eval()
    )


@cache
def network() -> Network:
    """Of a small model that no test changes, so that it is captured once."""
    return Network(small())


def test_saved_files(tmp_path: Path) -> None:
    images = torch.rand(2, 3, 8, 8, dtype=torch.float64)
    explanation = clarp.Explainer(network(), "ssglrp", bounds=(0.0, 1.0))(images, target=[[1, 2], [3, 4]])
    manifest = json.loads(explanation.save(tmp_path / "new" / "out").read_text())
    folder = tmp_path / "new" / "out"
    saved = np.load(folder / manifest["relevance"])
    assert np.array_equal(saved, explanation.relevance.numpy())
    assert [(row["image"], row["target"]) for row in manifest["explanations"]] == [
        (0, 1),
        (0, 2),
        (1, 3),
        (1, 4),
    ]
    for row in manifest["explanations"]:
        with Image.open(folder / row["overlay"]) as picture:
            assert min(picture.size) > 50
        with Image.open(folder / row["heatmap"]) as picture:
            assert picture.size == (8, 8)
    assert manifest["method"] == "ssglrp"
    assert manifest["against"] == "all other classes"
    assert manifest["ledger"]["pixels"] == pytest.approx(explanation.heatmap.sum((2, 3)).numpy())
    wanted = {manifest["relevance"], "manifest.json"} | {
        row[kind] for row in manifest["explanations"] for kind in ("heatmap", "overlay")
    }
    assert {path.name for path in folder.iterdir()} == wanted


def test_heatmap_is_the_sum_over_channels() -> None:
    explanation = clarp.Explainer(network(), "sglrp")(
        torch.rand(2, 3, 8, 8, dtype=torch.float64), target=[[1, 2], [3, 4]]
    )
    assert explanation.heatmap.shape == (2, 2, 8, 8)
    assert torch.equal(explanation.heatmap, explanation.relevance.sum(2))


@pytest.mark.parametrize(
    ("method", "composite"),
    [(m, c) for m in clarp.methods() if m != "clrp2" for c in clarp.composites.names()]
    + [("clrp2", "zplus-box")],
)
def test_the_ledger_adds_up(method: str, composite: str) -> None:
    """seed = pixels + selection + bias + epsilon, and every operation's balance with its neighbours'."""
    images = torch.rand(2, 3, 8, 8, dtype=torch.float64)
    explanation = clarp.Explainer(network(), method, composite=composite)(images, target=[1, 2])
    ledger = explanation.ledger
    lost = ledger.total("selection") + ledger.total("bias") + ledger.total("epsilon")
    assert torch.allclose(ledger.seed, ledger.pixels + lost, atol=1e-10)
    assert torch.allclose(ledger.pixels, explanation.heatmap.sum((1, 2)), atol=1e-10)
    for later, earlier in zip(ledger.entries, ledger.entries[1:], strict=False):
        assert torch.allclose(later.handed_on, earlier.arrived, atol=1e-10)


def test_the_ledgers_shares_by_hand() -> None:
    """One dense layer with epsilon: the bias takes b/(z+eps) of each output's relevance, the stabiliser eps/(z+eps)."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3)).double().eval()
    images, seed, epsilon = (
        torch.rand(1, 3, 2, 2, dtype=torch.float64),
        torch.tensor([1.0, -2.0, 0.5]).double(),
        0.1,
    )
    composite = clarp.composites.Composite("mine", clarp.rules.Epsilon(epsilon), clarp.rules.Epsilon(epsilon))
    explanation = clarp.Explainer(model, clarp.Method(clarp.seeds.Vector(seed), composite=composite))(
        images, target=0
    )
    z = model(images)[0].detach()
    stabilised = z + epsilon * torch.where(z < 0, -1.0, 1.0).double()
    entry = explanation.ledger.entries[0]
    assert entry.bias.item() == pytest.approx(
        (seed * model[1].bias.detach() / stabilised).sum().item(), rel=1e-12
    )
    assert entry.epsilon.item() == pytest.approx(
        (seed * (stabilised - z) / stabilised).sum().item(), rel=1e-12
    )


def test_zplus_conserves_where_every_output_has_a_positive_contribution() -> None:
    model = small(bias=False)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter[
                ..., :1
            ].abs_()  # one positive weight at every output is enough: the values behind it are positive
            parameter.add_(0.05)
    images = torch.rand(2, 3, 8, 8, dtype=torch.float64)
    seed = clarp.seeds.Vector(torch.rand(6, dtype=torch.float64))
    explanation = clarp.Explainer(model, clarp.Method(seed), bounds=(0.0, 1.0))(images, 1)
    assert torch.allclose(explanation.ledger.pixels, explanation.ledger.seed, rtol=1e-12)


def test_plan_is_a_table() -> None:
    explainer = clarp.Explainer(network(), "lrp")
    text = str(explainer.plan((3, 8, 8)))
    assert "Convolution" in text
    assert "ZBox" in text
    assert len(text.splitlines()) == 2 + len(explainer.plan())


def test_one_capture_serves_several_methods() -> None:
    images = torch.rand(1, 3, 8, 8, dtype=torch.float64)
    first = clarp.Explainer(small(), "lrp")
    first(images)
    second = clarp.Explainer(first.network, "sglrp")
    assert second.plan().graph is first.plan().graph
    alone = clarp.Explainer(small(), "sglrp")(images).relevance
    assert torch.equal(second(images).relevance, alone)


class TestRemarks:
    @staticmethod
    def told(method: str, values: list[float], task: TaskName = "multiclass") -> str:
        """The remark on a map of these values, (2, 2)."""
        model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).eval()
        nn.init.constant_(model[1].bias, 5.0)  # no logit is negative
        found = clarp.Explainer(model, method, composite="epsilon", task=task)(torch.ones(1, 1, 2, 2), [1])
        return replace(found, relevance=torch.tensor(values).view(1, 1, 2, 2)).remark(0)

    def test_a_contrast_that_is_mostly_negative_says_so(self) -> None:
        assert "more speaks against the class than for it" in self.told("sglrp", [1.0, -2.0, 0.0, 0.0])
        assert self.told("sglrp", [1.0, -1.0, 0.0, 0.0]) == ""
        assert self.told("sglrp", [2.0, -1.0, 0.0, 0.0]) == ""

    def test_what_has_no_rivals_never_does(self) -> None:
        assert self.told("lrp", [1.0, -2.0, 0.0, 0.0]) == ""
        assert self.told("sglrp", [1.0, -2.0, 0.0, 0.0], "multilabel") == ""

    FOR, AGAINST, NOTHING = "drawn as speaking for this", "drawn as speaking against", "so nothing speaks for"

    @pytest.mark.parametrize(
        ("method", "composite", "logit", "remarks"),
        [
            ("lrp", None, 2.0, (NOTHING, "")),
            ("lrp", None, -2.0, (FOR, AGAINST)),
            ("lrp", "epsilon-plus", -2.0, ("", "")),
            ("ssglrp", None, 2.0, (NOTHING, "")),
            ("ssglrp", None, -2.0, (NOTHING, "")),
            ("sglrp", "epsilon-plus", 2.0, ("", "")),
            ("sglrp", "epsilon-plus", -2.0, (FOR, AGAINST)),
            ("ssglrp", "epsilon-plus", -2.0, (FOR, AGAINST)),
            ("sglrp", "epsilon-gamma-box", -2.0, (FOR, AGAINST)),
            ("clarp", None, 2.0, ("", "")),
            ("clarp", None, -2.0, ("", "")),
            ("clarp", "zplus-box", -2.0, (FOR, AGAINST)),
        ],
    )
    def test_one_logit(
        self, method: str, composite: str | None, logit: float, remarks: tuple[str, str]
    ) -> None:
        """What the remark says is so: input 0 alone raises the logit, and its sign in the map is as told."""
        model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU(), nn.Flatten(), nn.Linear(2, 1)).eval()
        with torch.no_grad():
            for values, parameter in zip(
                ([1.0], [0.0], [1.0, -1.0], [logit]), model.parameters(), strict=True
            ):
                parameter.copy_(torch.tensor(values).view_as(parameter))
        found = clarp.Explainer(model, method, task="binary", bounds=(0.0, 2.0), composite=composite)(
            torch.ones(1, 1, 1, 2), [[0, 1]]
        )
        told = [found.remark(0, k) for k in (0, 1)]
        for said, expected in zip(told, remarks, strict=True):
            assert (expected in said) if expected else said == ""
        raising = found.relevance[0, :, 0, 0, 0]
        assert bool(raising[0] > 0) == (self.FOR in told[0])  # of class 0: it should speak against
        assert bool(raising[1] < 0) == (self.AGAINST in told[1])

    def test_the_rule_is_that_of_the_last_layer(self) -> None:
        """A convolution behind which positions are averaged has z+ in this composite, and 1 is its seed."""
        model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), nn.Conv2d(2, 1, 1), nn.AdaptiveAvgPool2d(1))
        model = nn.Sequential(*model, nn.Flatten()).eval()
        with torch.no_grad():
            values = ([1.0, -1.0], [0.0, 2.0], [1.0, -1.0], [-4.0])
            for numbers, parameter in zip(values, model.parameters(), strict=True):
                parameter.copy_(torch.tensor(numbers).view_as(parameter))
        explainer = clarp.Explainer(model, "sglrp", composite="epsilon-plus", task="binary")
        found = explainer(torch.tensor([[[[1.0, 2.0]]]]), 1)
        assert found.logits.item() < 0
        assert bool((found.relevance > 0).all())  # more of each pixel raises the logit
        assert found.remark(0) == ""

    def test_differences_divide_by_nothing(self) -> None:
        """A secant map of a negative logit has the signs of its differences."""
        model = nn.Sequential(nn.Flatten(), nn.Linear(256, 1)).eval()
        nn.init.constant_(model[1].bias, -9.0)
        found = clarp.Explainer(model, "secant", task="binary")(torch.rand(1, 1, 16, 16), [[0, 1]])
        assert found.logits.item() < 0
        assert [found.remark(0, k) for k in (0, 1)] == ["", ""]

    @pytest.mark.parametrize("rival", [1.0, -1.0])
    @pytest.mark.parametrize("method", ["sglrp", "clarp"])
    @pytest.mark.parametrize("composite", ["epsilon-plus", "zplus-box"])
    def test_rivals_of_negative_logits(self, method: str, composite: str, rival: float) -> None:
        """Pixel 0 raises class 0 alone, and pixel 1 its only rival: it should speak against class 0."""
        model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU(), nn.Flatten(), nn.Linear(2, 2)).eval()
        with torch.no_grad():
            values = ([1.0], [0.0], [1.0, 0.0, 0.0, 1.0], [1.0, rival - 1])
            for numbers, parameter in zip(values, model.parameters(), strict=True):
                parameter.copy_(torch.tensor(numbers).view_as(parameter))
        found = clarp.Explainer(model, method, bounds=(0.0, 2.0), composite=composite)(
            torch.ones(1, 1, 1, 2), 0
        )
        turned = bool(found.relevance[0, 0, 0, 1] > 0)
        assert turned == (
            rival < 0 and (method, composite) in {("sglrp", "epsilon-plus"), ("clarp", "zplus-box")}
        )
        said = "what raises these is drawn as speaking for the class"
        assert (said in found.remark(0)) == turned

    def test_of_each_image_and_its_own_rivals(self) -> None:
        """In a batch, the remark is that of the image alone against the rivals named for it."""
        torch.manual_seed(3)
        model = nn.Sequential(nn.Flatten(), nn.Linear(4, 5)).eval()
        images, against = torch.randn(6, 1, 2, 2), torch.tensor([[1, 2], [3, 4]] * 3)
        explainer = clarp.Explainer(model, "sglrp", composite="epsilon")
        together = explainer(images, [[0, 0]] * 6, against)
        told = [together.remark(i, 1) for i in range(6)]
        assert told == [explainer(images[i : i + 1], 0, against[i].tolist()).remark(0) for i in range(6)]
        assert len(set(told)) > 2


class TestPictures:
    @staticmethod
    def explained(count: int = 2, targets: list[int] | None = None) -> clarp.Explanation:
        model = small()
        model.__class__ = type("<script>alert(1)</script>", (nn.Sequential,), {})
        images = torch.rand(count, 3, 8, 8, dtype=torch.float64)
        method = clarp.Method(name="<b>mine & yours</b>")
        return clarp.Explainer(model, method, bounds=(0.0, 1.0))(images, [targets or [1, 2]] * count)

    def test_a_figure_of_its_own(self) -> None:
        figure = self.explained().plot()
        maps = [axes for axes in figure.axes if axes.images[0].get_array().shape[:2] == (344, 344)]
        assert len(maps) == 2 * 3  # photo and two targets
        words = [text.get_text() for text in figure.texts]
        assert "image 1" in words
        assert any(word.startswith("class 2 (") for word in words)
        assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()

    @pytest.mark.parametrize("one_scale", [None, False, True])
    def test_each_image_has_its_own_scale_unless_one_is_asked_for(self, one_scale: bool | None) -> None:
        options = {} if one_scale is None else {"one_scale": one_scale}
        said = self.explained().plot(**options).texts[-1].get_text()
        assert said.startswith("One scale over all maps." if one_scale else "One scale in each row.")

    def test_styles(self) -> None:
        explanation = self.explained()
        for style in ("contours", "region", "signs", "heatmap", "pixels", "versus", Look(colours="bam")):
            assert len(explanation.plot(style).axes) >= 4
        with pytest.raises(ValueError, match="expected one of overlay"):
            explanation.plot("pie")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="versus draws two classes at once, and there are 3 targets"):
            self.explained(1, [0, 1, 2]).plot("versus")

    def test_many_images_are_cut_off_in_words(self) -> None:
        figure = self.explained(20).plot()
        assert "the first 16 of 20 images" in figure.texts[-2].get_text().replace("\n", " ")

    def test_html_is_well_formed_and_names_are_escaped(self) -> None:
        html = self.explained()._repr_html_()
        root = ET.fromstring(html.replace("<br>", "<br/>").replace('"><br/>', '"/><br/>'))
        caption = root.findtext("caption")
        assert caption == "<B>MINE & YOURS</B> (zplus-box), <script>alert(1)</script>"
        pictures = list(root.iter("img"))
        assert len(pictures) == 6
        assert all(picture.get("src", "").startswith("data:image/png;base64,") for picture in pictures)
        assert all(picture.get("alt") for picture in pictures)
        assert "<script" not in html
        assert len(html) < 200_000

    def test_html_of_many_is_cut_off(self) -> None:
        html = self.explained(20, [0, 1, 2, 3, 4])._repr_html_()
        assert html.count("<img") == 8 * 5
        assert "the first 8 of 20 images, the first 4 of 5 targets" in html
