"""The pictures and figures of the site are those that the code makes."""

import re
import sys
from importlib.util import module_from_spec, spec_from_file_location

import numpy as np
import pytest
from PIL import Image

from test_docs import DOCS, ROOT, page

NOISE = {"": 1.0, "own-": 12.0}
"""Mean difference of a pixel, of 255. The `own-` pictures are of networks that are trained anew, with all that follows
from another rounding; the others differ by the rounding of one explanation and by JPEG."""
BAR = re.compile(r'<g id="patch_\d+">\s*<path d="([^"]*)" clip-path')


def script(path):
    spec = spec_from_file_location(path.stem, path)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_picture_is_made_by_the_script_and_shown():
    drawing = script(ROOT / "examples/draw_docs_pictures.py")
    made = {"compare", *drawing.STYLES, *drawing.OWN}
    assert {path.stem for path in (DOCS / "pictures").iterdir()} == made
    shown = "".join(path.read_text(encoding="utf-8") for path in DOCS.glob("*.md"))
    assert {name for name in made if f"(pictures/{name}.jpg)" not in shown} == set()


@pytest.mark.slow
def test_pictures_are_as_they_are_drawn_today(tmp_path):
    script(ROOT / "examples/draw_docs_pictures.py").main(tmp_path / "drawn")
    for path in sorted((DOCS / "pictures").iterdir()):
        old, new = (
            np.asarray(Image.open(one).convert("RGB"), float)
            for one in (path, tmp_path / "drawn" / path.name)
        )
        assert old.shape == new.shape, path.name
        noise = NOISE["own-" if path.stem.startswith("own-") else ""]
        assert abs(old - new).mean() < noise, f"{path.name}: run python examples/draw_docs_pictures.py"


def test_the_plot_of_the_benchmarks_is_that_of_its_table(tmp_path, monkeypatch):
    """Within two points of 300: the table has three digits, and the longest bar sets the scale."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    speed = script(ROOT / "benchmarks/speed.py")
    monkeypatch.setattr(speed, "PLOT", tmp_path / "speed.svg")
    table = page("benchmarks").partition("### Batch 8, 1 target")[2].partition("\n\n")[2].partition("\n\n")[0]
    head, _, *rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in table.splitlines()]
    cells = {
        model: {row[0]: float(row[k]) for row in rows if re.fullmatch(r"[\d.]+", row[k])}
        for k, model in enumerate(head)
        if k
    }
    speed.plot(cells)
    drawn, committed = (
        [
            [float(one) for one in re.findall(r"-?\d+\.?\d*", bar)]
            for bar in BAR.findall(path.read_text(encoding="utf-8"))
        ]
        for path in (tmp_path / "speed.svg", DOCS / "images/speed.svg")
    )
    assert len(drawn) == len(committed) > 40
    assert np.abs(np.array(drawn) - np.array(committed)).max() < 2
    sys.modules.pop("contenders", None)
