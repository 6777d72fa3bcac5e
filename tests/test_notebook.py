"""What a cell's last line shows, through IPython's own formatters, as Jupyter's kernel asks them."""

import base64
import io
from types import SimpleNamespace

import pytest
import torch
from IPython.core.formatters import DisplayFormatter
from IPython.core.pylabtools import select_figure_formats
from matplotlib.figure import Figure
from PIL import Image
from torch import nn

import clarp


@pytest.fixture(scope="module")
def explanation():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    )
    return clarp.Explainer(model.eval(), "lrp")(torch.rand(2, 3, 16, 16), target=[0, 1])


@pytest.fixture(params=["plain", "inline"])
def shown(request):
    """``shown(thing)``: the types of content that a cell shows, with and without ``%matplotlib inline``."""
    formatter = DisplayFormatter()
    if request.param == "inline":
        select_figure_formats(SimpleNamespace(display_formatter=formatter), {"png"})
    return lambda thing: formatter.format(thing)[0]


def test_a_plot_is_a_picture_and_still_matplotlibs(explanation, shown, tmp_path):
    plot = explanation.plot()
    content = shown(plot)["image/png"]
    data = content if isinstance(content, bytes) else base64.b64decode(content)  # the inline backend's way
    picture = Image.open(io.BytesIO(data))
    assert picture.format == "PNG"
    assert min(picture.size) > 100
    assert len(picture.convert("RGB").getcolors(10**6)) > 20
    assert isinstance(plot, Figure)
    plot.savefig(tmp_path / "plot.pdf")
    assert (tmp_path / "plot.pdf").read_bytes().startswith(b"%PDF")


def test_a_figure_of_one_map_is_one_too(explanation, shown):
    drawn = clarp.render.figure(explanation.heatmap[0].numpy(), None, "a caption")
    assert "image/png" in shown(drawn)


def test_an_explanation_is_a_table_with_pictures(explanation, shown):
    content = shown(explanation)
    assert content["text/html"].count("data:image/png") == 4
    assert content["text/plain"].startswith("Explanation(method='lrp'")


def test_a_ledger_is_a_short_table(explanation, shown):
    content = shown(explanation.ledger)
    html = content["text/html"]
    assert [line.split("</td>")[0] for line in html.split("<tr><td>")[1:]] == ["4", "3", "2", "1", "0"]
    assert "<p>seed " in html
    assert "the first of 2 explanations" in html
    assert len(content["text/plain"]) < 200
    assert content["text/plain"].startswith("Ledger(2 explanation(s), 5 operations; seed ")


def test_a_long_ledger_shows_the_operations_that_kept_the_most():
    torch.manual_seed(0)
    layers = [layer for _ in range(20) for layer in (nn.Linear(6, 6), nn.ReLU())]
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 6), nn.ReLU(), *layers, nn.Linear(6, 2)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.abs_()
        model[21].bias += 50  # absorbs more than any other layer does
    method = clarp.Method.named("lrp").with_composite("epsilon")
    ledger = clarp.Explainer(model, method)(torch.rand(1, 3, 2, 2), target=[0]).ledger
    html = ledger._repr_html_()
    lines = html.split("<tr><td>")[1:]
    assert "first, 12 of 44; print(ledger) has all" in html
    assert len(lines) == 12
    assert lines[0].startswith("21</td>")
    assert ledger.absorbers()[0][0].node.module == "21"
