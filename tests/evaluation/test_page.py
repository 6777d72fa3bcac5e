"""The report's page: well-formed, closed to everything outside, and with the rows' numbers in it."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch

from clarp.cli import main
from clarp.evaluation import page as page_module
from clarp.evaluation import pictures
from clarp.evaluation.browsing import Index, as_script
from clarp.evaluation.drawing import FOREST, HEIGHT, WIDTH, Plot, whiskers
from clarp.evaluation.findings import Findings
from clarp.evaluation.page import build, write_page
from clarp.evaluation.pictures import Cells
from clarp.evaluation.store import Store
from clarp.evaluation.tables import Curve, Estimate, Report, TableLine
from clarp.render import Scale

arrow = pytest.importorskip("pyarrow")
html5lib = pytest.importorskip("html5lib")
pytest.importorskip("jinja2")

EVIL = "<script>alert('&amp;')</script>"
METHODS = ("lrp", "ssglrp", "random")
COLUMNS = {
    "pointing/hit": "higher",
    "masking/drop@5": "higher",
    "masking/drop@9": "higher",
    "masking/before": "none",
}
COUNT = 20
BOXES = [(0.25, 0.0, 0.75, 0.5), (0.5, 0.5, 1.0, 1.0)]  # of the second unit's label


def rows():
    """Twenty units in two parts; every third drop was not asked, ssglrp hits the even ones."""
    for number in range(COUNT):
        for place, method in enumerate(METHODS):
            yield {
                "id": f"{number}{EVIL}.jpg",
                "label": str(number % 3),
                "method": method,
                "sample": number,
                "class": number % 3,
                "target": 4 if number == 7 else number % 3,
                "predicted": {7: 3, 8: 99}.get(number, 0),
                "probability": 0.25,
                "difficult": False,
                "pointing/hit": float(number % 2 == 0) if method == "ssglrp" else float("nan"),
                "masking/drop@5": number / 7 + place,
                "masking/drop@9": -number / 7 - place,
                "masking/before": 0.5,
            }


def heatmap(number, place):
    values = torch.zeros(8, 6)
    values[number % 8, place] = 1.0 + number
    return values


@pytest.fixture
def store(tmp_path):
    """A folder as a run with pictures leaves it."""
    store = Store(tmp_path / "run")
    about = {
        "samples": COUNT,
        "dataset": f"toys {EVIL}",
        "model": f"/somewhere/{EVIL}",
        "classes": ["ant", EVIL, "cow", "dog", "eel"],
        "columns": COLUMNS,
        "notes": [f"assumed {EVIL}"],
    }
    table = arrow.Table.from_pylist(list(rows()))
    with store.locked():
        store.begin({"methods": dict.fromkeys(METHODS, EVIL)}, about)
        for start, stop in ((0, 16), (16, COUNT)):
            photos = [pictures.photo_bytes(np.full((8, 6, 3), 9 * n, np.uint8)) for n in range(start, stop)]
            photos[1] = None
            maps = [[Cells.of(heatmap(n, place)) for n in range(start, stop)] for place in range(2)]
            boxes = [BOXES if n == 1 else [] for n in range(start, stop)]
            shown = pictures.columns(photos, [*maps, [None] * (stop - start)], boxes)
            store.write_pictures(start, stop, shown, pictures.schema())
            part = table.slice(start * 3, (stop - start) * 3)
            store.write_part(
                start, stop, {n: part.column(n).to_pylist() for n in part.column_names}, part.schema, []
            )
        store.merge([(0, 16), (16, COUNT)], [])
    return store


@pytest.fixture
def report(store):
    return Report.of(store, "ssglrp", resamples=200)


@pytest.fixture
def written(store, report, tmp_path):
    return write_page(report, store, tmp_path / "report", Findings.of(store))


def data_of(path):
    return json.loads(
        re.search(r'<script type="application/json" id="data">(.*?)</script>', path.read_text())[1]
    )


class Tags(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))


def policy_of(tags):
    policy = next(a["content"] for _, a in tags if a.get("http-equiv") == "Content-Security-Policy")
    return dict(rule.split(" ", 1) for rule in policy.split("; "))


def test_it_is_well_formed(written):
    html5lib.HTMLParser(strict=True).parse(written.read_text())


def test_names_are_text_and_never_markup(written):
    text = written.read_text()
    assert "alert(" in text
    assert "<script>alert" not in text
    assert [tag for tag, _ in Tags(text).tags].count("script") == 2  # the data and the page's own
    assert data_of(written)["index"]["classes"]["1"] == EVIL


def test_nothing_comes_from_outside_and_the_policy_says_so(written):
    text = written.read_text()
    tags = Tags(text).tags
    for tag, attributes in tags:
        assert not {"style", "onclick", "onload"} & set(attributes), (tag, attributes)
        for name in ("src", "href"):
            assert attributes.get(name, "#").startswith("#"), (tag, attributes)
    rules = policy_of(tags)
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert rules["img-src"] == "data:"
    for kind, expression in (("style", r"<style>(.*?)</style>"), ("script", r"<script>(.*?)</script>")):
        (content,) = re.findall(expression, text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert rules[f"{kind}-src"] == f"'sha256-{digest}'"


def test_the_data_are_the_rows_and_the_maps(written):
    data = data_of(written)
    index = data["index"]
    assert index["methods"] == list(METHODS)
    assert index["pictured"] == [0, 1]
    assert index["columns"] == [
        {"name": "pointing/hit", "better": "higher", "hit": True},
        {"name": "masking/drop@5", "better": "higher", "hit": False},
        {"name": "masking/drop@9", "better": "higher", "hit": False},
    ]
    expected = list(rows())
    units = expected[:: len(METHODS)]
    for column in ("id", "target", "predicted", "probability"):
        assert index[column] == [row[column] for row in units]
    assert index["label"] == [[row["class"]] for row in units]
    # Every class that a unit names, if it has a name.
    assert index["classes"] == {"0": "ant", "1": EVIL, "2": "cow", "3": "dog", "4": "eel"}
    for column in ("masking/drop@5", "masking/drop@9"):
        assert index["values"][column] == pytest.approx([row[column] for row in expected], rel=1e-4)
    hits = [None if np.isnan(row["pointing/hit"]) else row["pointing/hit"] for row in expected]
    assert index["values"]["pointing/hit"] == hits
    assert index["parts"] == [16, 4]
    part = data["parts"][1]
    assert len(part["photos"]) == 4
    assert part["boxes"] == [[]] * 4
    height, width, peak, limit, codes = part["maps"][3 * 2 + 1]
    cells = np.frombuffer(base64.b64decode(codes), np.int8).reshape(height, width)
    assert (height, width, peak) == (8, 6, 19.0)
    assert limit == pytest.approx(Scale.of(heatmap(18, 1)).limit, rel=1e-4)
    assert np.argwhere(cells).tolist() == [[18 % 8, 1]]
    assert part["maps"][3 * 2 + 2] is None
    assert len(index["colours"]) == 6 * 256


def test_above_a_size_the_data_lie_beside_it(store, report, tmp_path, monkeypatch):
    monkeypatch.setattr(build, "INLINE", 6000)
    folder = tmp_path / "report"
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "part-00007.js").write_text("of an earlier report")
    path = write_page(report, store, folder, Findings.of(store))
    assert sorted(file.name for file in (folder / "data").iterdir()) == [
        "index.js",
        "part-00000.js",
        "part-00001.js",
    ]
    text = path.read_text()
    html5lib.HTMLParser(strict=True).parse(text)
    assert '<script src="data/index.js">' in text
    assert policy_of(Tags(text).tags)["script-src"].endswith(" 'self'")
    assert 'id="data"' not in text
    beside = {file.name: file.read_text() for file in (folder / "data").iterdir()}
    monkeypatch.undo()
    whole = data_of(write_page(report, store, folder, Findings.of(store)))
    assert not (folder / "data").exists()
    assert beside == {
        "index.js": f"clarpIndex({as_script(whole['index'])});\n",
        "part-00000.js": f"clarpPart(0,{as_script(whole['parts'][0])});\n",
        "part-00001.js": f"clarpPart(1,{as_script(whole['parts'][1])});\n",
    }


def test_a_run_without_pictures_has_a_page_too(store, report, tmp_path):
    for path in store.folder.glob("pictures/*"):
        path.unlink()
    data = data_of(write_page(report, store, tmp_path / "report", Findings.of(store)))
    assert data["parts"] == [None, None]
    for path in store.folder.glob("parts/*"):
        path.unlink()  # one of the two, and then both
        assert Index.of(store, report).parts == ()
    assert Index.of(store, report).parts == ()
    assert data_of(write_page(report, store, tmp_path / "report", Findings.of(store)))["parts"] == []


def test_the_command_writes_it(store, capsys):
    with pytest.raises(SystemExit):
        main(["report", str(store.folder), "--resamples", "200"])
    assert str(store.folder / "report" / "index.html") in capsys.readouterr().out
    assert (store.folder / "report" / "index.html").is_file()
    assert page_module.INLINE == 4_000_000  # as docs/evaluation.md says


class TestDrawing:
    def test_a_curve_lies_inside_and_keeps_its_order(self):
        curve = Curve("x/p", (0.0, 0.5, 1.0), {"a": (1.0, 0.4, 0.1), "b": (0.2, float("nan"), -0.3)})
        plot = Plot.of(curve)
        for points in plot.lines.values():
            assert all(0 < x < WIDTH and 0 < y < HEIGHT for x, y in points)
        (x0, y0), (x1, y1), (_, y2) = plot.lines["a"]
        assert x0 < x1
        assert y0 < y1 < y2  # downwards
        assert len(plot.lines["b"]) == 2
        zero = next(tick.at for tick in plot.y if tick.label == "0")
        assert plot.lines["b"][0][1] < zero < plot.lines["b"][1][1]

    @pytest.mark.parametrize("values", [(0.0, 0.0), (float("nan"),) * 2, (3.0, 3.0)])
    def test_flat_and_absent_curves(self, values):
        assert len(Plot.of(Curve("x", (5.0, 9.0), {"a": values})).y) >= 2

    def test_intervals_share_an_axis_with_zero_on_it(self):
        def line(mean, low, high):
            value = Estimate(mean, low, high)
            nan = float("nan")
            return TableLine("c", "higher", "all", "m", 1, 0, value, Estimate(), nan, Estimate(), nan)

        first, second, alone, none = whiskers(
            [line(2, 1, 3), line(-1, -2, 0), line(1, float("nan"), float("nan")), line(float("nan"), 0, 0)]
        )
        assert none is None
        assert first.zero == second.zero
        assert (
            0
            < second.low
            < second.mean
            < second.high
            == second.zero
            < first.low
            < first.mean
            < first.high
            < FOREST
        )
        assert alone.low == alone.mean == alone.high
        assert whiskers([line(float("nan"), 0, 0)]) == [None]
