"""Letters that the usual font lacks: drawn by another font or told by their codes, never as boxes, never with a warning."""

import logging

import numpy as np
import pytest
from matplotlib.font_manager import findfont, get_font

from clarp.render import Cell, Row, figure, letters, rasterised, save, sheet

HEATMAP = np.random.default_rng(0).normal(size=(24, 24))


@pytest.fixture
def only_the_usual_font(monkeypatch):
    usual = [font for font in letters.fontManager.ttflist if font.name == letters.USUAL]
    monkeypatch.setattr(letters.fontManager, "ttflist", usual)
    letters._font.cache_clear()
    yield
    letters._font.cache_clear()


@pytest.mark.usefixtures("only_the_usual_font")
def test_what_no_font_has_is_told_by_its_code(tmp_path):
    assert letters.drawable("\u732b, caf\u00e9 \U0001f408") == "[U+732B], caf\u00e9 [U+1F408]"
    for suffix in ("png", "svg", "pdf"):
        drawn = figure(HEATMAP, None, "\u732b (31.9%)\n\u5199\u771f.jpg")
        save(drawn, tmp_path / f"picture.{suffix}")
        assert [text.get_text() for text in drawn.texts][-2] == "[U+732B] (31.9%)"
    rasterised(sheet([Row("\u732b", None, (Cell(HEATMAP, "\u732b", "\u732b"),))], "\u732b", aside=["\u732b"]))


def test_another_font_helps_out(caplog):
    """STIXGeneral comes with matplotlib, and has letters that DejaVu Sans lacks."""
    usual, other = (get_font(findfont(name)).get_charmap() for name in (letters.USUAL, "STIXGeneral"))
    letter = chr(max(code for code in other if code not in usual and code > 0xFFFF))
    assert letters.drawable(letter) == letter
    first, second = letters.families(f"a{letter}")
    assert first == letters.USUAL
    assert ord(letter) in get_font(findfont(second)).get_charmap()
    with_letter, without = (np.asarray(rasterised(figure(HEATMAP, None, text))) for text in (letter, " "))
    assert (with_letter != without).any()
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_fonts_of_boxes_are_no_help():
    assert letters._font("\U000e0fff") == ""
