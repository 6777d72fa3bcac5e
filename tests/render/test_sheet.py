import numpy as np
import pytest
from PIL import Image

from clarp.render import Cell, Row, Scale, rasterised, save, sheet


@pytest.fixture
def photo():
    return np.full((40, 60, 3), 128, np.uint8)


def blob(value, rows=slice(10, 30)):
    heatmap = np.zeros((40, 60))
    heatmap[rows, 20:40] = value
    return heatmap


def panels(figure):
    """The pixel arrays of the maps and photos, in the order in which they were drawn; colour bars are left out."""
    found = [axes.images[0].get_array() for axes in figure.axes]
    return [pixels for pixels in found if pixels.shape[:2] == (200, 300)]  # five pixels each


def texts(figure):
    return [text.get_text() for text in figure.texts]


def small_print(figure):
    return figure.texts[-1].get_text().replace("\n", " ")


def test_a_row_has_one_scale_and_rows_have_their_own(photo):
    rows = [Row("one", photo, (Cell(blob(1.0)), Cell(blob(10.0)))), Row("two", photo, (Cell(blob(1.0)),))]
    _, weak, strong, _, alone = panels(sheet(rows, "x"))
    assert (strong[100, 150] == alone[100, 150]).all()
    assert (weak[100, 150] != strong[100, 150]).any()


def test_one_scale_over_all_rows_on_request(photo):
    rows = [Row("one", photo, (Cell(blob(1.0)),)), Row("two", photo, (Cell(blob(10.0)),))]
    figure = sheet(rows, "x", one_scale=True)
    _, weak, _, strong = panels(figure)
    assert (weak[100, 150] != strong[100, 150]).any()
    said = "In percent of its peak; full colour: 99.5th percentile of |relevance|"
    assert f"One scale over all maps. {said} over 2 maps." in small_print(figure)
    assert f"One scale in each row. {said}." in small_print(sheet(rows, "x"))


def test_titles_notes_and_aside_are_on_it_as_they_are_written(photo):
    rows = [
        Row("LRP", photo, (Cell(blob(1.0), "a $100 bill_x, 31.9%", "inside 62%"), Cell(blob(np.nan), "b")))
    ]
    figure = sheet(rows, "<script>\nsmall", aside=("The model says",))
    found = texts(figure)
    assert {"LRP", "a $100 bill_x, 31.9%", "inside 62%", "<script>", "The model says"} <= set(found)
    assert "Note: 400 of 2400 values are not finite (yellow)" in found
    assert rasterised(figure).width > 500


def test_a_box_is_drawn_on_the_edges_of_its_pixels(photo):
    figure = sheet([Row("x", photo, (Cell(blob(0.0), boxes=((10, 5, 30, 25),)),), shows_photo=False)], "")
    (outline, _) = figure.axes[0].patches
    assert outline.get_bbox().extents.tolist() == [49.5, 24.5, 149.5, 124.5]


def test_no_photo_no_column_for_it(photo):
    cells = (Cell(blob(1.0)),)
    assert len(panels(sheet([Row("x", photo, cells)], ""))) == 2
    assert len(panels(sheet([Row("x", photo, cells, shows_photo=False)], ""))) == 1
    assert len(panels(sheet([Row("x", None, cells)], ""))) == 1


@pytest.mark.parametrize(("style", "bars"), [("overlay", 1), ("region", 0)])
def test_each_row_has_a_colour_bar_where_colours_mean_a_number(photo, style, bars):
    figure = sheet(
        [Row("x", photo, (Cell(blob(1.0)),)), Row("y", photo, (Cell(blob(1.0)),))], "", style=style
    )
    assert len(figure.axes) == 2 * (2 + bars)


def test_nothing_to_draw(photo):
    for rows in ([], [Row("x", photo, ())]):
        with pytest.raises(ValueError, match="at least one row, and a map in every row"):
            sheet(rows, "")
    with pytest.raises(ValueError, match="at least one heatmap"):
        Scale.of()


@pytest.mark.parametrize(
    ("suffix", "head"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF"), ("PDF", b"%PDF")]
)
def test_files_are_what_their_suffix_says(tmp_path, photo, suffix, head):
    path = tmp_path / f"sheet.{suffix}"
    save(sheet([Row("x", photo, (Cell(blob(1.0)),))], "title"), path)
    assert path.read_bytes().startswith(head)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    if suffix == "png":
        with Image.open(path) as picture:
            assert picture.size == rasterised(sheet([Row("x", photo, (Cell(blob(1.0)),))], "title")).size


def test_another_suffix_is_refused(tmp_path, photo):
    with pytest.raises(ValueError, match=r"expected a name that ends in \.png, \.svg, \.pdf"):
        save(sheet([Row("x", photo, (Cell(blob(1.0)),))], ""), tmp_path / "sheet.jpg")
    assert not list(tmp_path.iterdir())


def test_the_signs_say_their_shares(photo):
    heatmap = blob(3.0) - blob(1.0, slice(30, 40))
    found = texts(sheet([Row("x", photo, (Cell(heatmap, "ant"),))], "", style="signs"))
    assert {"ant", "speaks for: 86% of |relevance|", "speaks against: 14% of |relevance|"} <= set(found)
