"""The tutorials that are made of commands, as a reader would follow them, and all tutorials as notebooks."""

import re
import sys

import nbformat
import pytest

from test_docs import DOCS, PAGES, generator, page
from test_your_own_classifier import follow

NOTEBOOKS = generator("generate_notebooks")
NEAR = 0.02
"""How far figures may be from those of the page: processors round differently."""
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


def is_near(printed: str, shown: str) -> bool:
    """Whether the words are the same, and the numbers nearly; notes and progress are no result."""
    printed = "\n".join(line for line in printed.splitlines() if not line.startswith("clarp: "))
    numbers = [[float(one) for one in NUMBER.findall(text)] for text in (printed, shown)]
    words = [NUMBER.sub("N", text).split() for text in (printed, shown)]
    return words[0] == words[1] and numbers[0] == pytest.approx(numbers[1], abs=NEAR)


def test_numbers_are_compared_and_so_are_words():
    assert is_near("lrp 0.42 [-0.03, 0.92]\n", "lrp  0.43 [-0.03, 0.91]")
    assert is_near("clarp: 3 of 12 images\nlrp 0.42", "lrp 0.42")
    assert not is_near("lrp 0.42", "lrp 0.52")
    assert not is_near("lrp 0.42", "ssglrp 0.42")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "compared"), [("a-data-set", 2), ("in-production", 3)])
def test_what_the_page_shows_is_what_is_printed(name, compared, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = [(printed, shown) for printed, shown in follow().followed(DOCS / f"{name}.md") if shown]
    assert len(found) == compared
    for printed, shown in found:
        assert is_near(printed, shown), printed


@pytest.mark.parametrize("name", NOTEBOOKS.TUTORIALS)
def test_a_notebook_has_all_of_its_page(name):
    made = NOTEBOOKS.notebook(name)
    nbformat.validate(made)
    text = page(name)
    code = [cell.source for cell in made.cells if cell.cell_type == "code"]
    assert len(code) == len(re.findall(r"^```(?:python|console)$", text, re.MULTILINE))
    prose = "\n".join(cell.source for cell in made.cells if cell.cell_type == "markdown")
    assert re.findall(r"^#+ .*$", prose, re.MULTILINE) == [
        line
        for line in re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL).splitlines()
        if re.match("#+ ", line)
    ]
    assert not re.search(r"\]\([^)]*\.md|\]\(pictures/", prose)
    attached = {one for cell in made.cells for one in cell.get("attachments", {})}
    assert attached == set(re.findall(r"\]\(attachment:([\w.-]+)\)", prose))


def test_the_same_page_gives_the_same_notebook():
    first, second = (nbformat.writes(NOTEBOOKS.notebook("first-map")) for _ in range(2))
    assert first == second


def test_files_and_commands_become_cells_that_do_it():
    made = NOTEBOOKS.notebook("your-own-classifier")
    code = [cell.source for cell in made.cells if cell.cell_type == "code"]
    assert code[0].startswith("%%writefile shapes.py\nimport random")
    assert (
        "%%bash\nclarp explain circle.png --model net.py:build --weights checkpoint.pt --labels labels.txt"
        in code
    )


def test_every_tutorial_of_the_navigation_is_a_notebook():
    navigation = generator("generate_llms").yaml.safe_load(
        (DOCS.parent / "mkdocs.yml").read_text(encoding="utf-8")
    )["nav"]
    (section,) = (one["Tutorials"] for one in navigation if "Tutorials" in one)
    assert [path.removesuffix(".md") for entry in section for path in entry.values()] == list(
        NOTEBOOKS.TUTORIALS
    )
    assert set(NOTEBOOKS.TUTORIALS) <= set(PAGES)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NOTEBOOKS.TUTORIALS)
def test_a_notebook_runs(name):
    made = NOTEBOOKS.executed(name)
    assert all(cell.execution_count for cell in made.cells if cell.cell_type == "code")
    printed = "".join(
        out.text for cell in made.cells for out in cell.get("outputs", ()) if out.output_type == "stream"
    )
    for line in re.findall(r"^print\(.*\)\n# (.*)$", page(name), re.MULTILINE):
        assert line in printed


@pytest.mark.slow
def test_a_cell_that_fails_is_no_notebook(tmp_path, monkeypatch):
    (tmp_path / "broken.md").write_text(
        "# Broken\n\n```console\n$ clarp explain nothing.jpg\n```\n", encoding="utf-8"
    )
    monkeypatch.setattr(NOTEBOOKS, "DOCS", tmp_path)
    with pytest.raises(sys.modules["nbclient.exceptions"].CellExecutionError, match=r"nothing\.jpg"):
        NOTEBOOKS.executed("broken")
