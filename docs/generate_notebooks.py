"""Write the tutorials as notebooks, and execute them.

python docs/generate_notebooks.py site/notebooks                    # all tutorials
python docs/generate_notebooks.py build/notebooks first-map         # some

`make site` does this behind mkdocs. The pages are the source: nothing is edited in a notebook.
"""

import base64
import os
import re
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

DOCS = Path(__file__).resolve().parent
TUTORIALS = (
    "first-map",
    "why-a-and-not-b",
    "your-own-classifier",
    "a-data-set",
    "your-own-rule",
    "your-own-operation",
    "in-production",
    "training-loop",
)
BLOCK = re.compile(r"^```(python|console|text)\n(.*?)^```$\n?", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# (\w+\.py)\n")
PICTURE = re.compile(r"!\[([^\]]*)\]\((pictures/[\w-]+\.jpg)\)")
PAGE = re.compile(r"\]\((?:\.\./)?([\w-]+)\.md(#[^)]*)?\)")
SECONDS = 900
"""A cell may take, on a busy machine."""


def notebook(name: str) -> nbformat.NotebookNode:
    """A page as cells: its prose, its code, its commands; what the page says is printed is left to be printed."""
    text = (DOCS / f"{name}.md").read_text(encoding="utf-8")
    cells, at = [], 0
    for block in BLOCK.finditer(text):
        cells += prose(text[at : block.start()])
        at = block.end()
        cells += code(*block.groups())
    cells += prose(text[at:])
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number}"  # not drawn at random, so that the same page gives the same file
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return new_notebook(cells=cells, metadata={"kernelspec": kernel, "language_info": {"name": "python"}})


def code(kind: str, source: str) -> list[nbformat.NotebookNode]:
    """A file is written, a command is the shell's."""
    if kind == "text":
        return []
    if kind == "console":
        return [new_code_cell("%%bash\n" + source.partition("\n")[0].removeprefix("$ "))]  # which fails if it does
    if file := FILE.match(source):
        return [new_code_cell(f"%%writefile {file[1]}\n{source.removeprefix(file[0]).rstrip()}")]
    return [new_code_cell(source.rstrip())]


def prose(text: str) -> list[nbformat.NotebookNode]:
    """Pictures go into the notebook, and links to other pages lead to the site around it."""
    if not text.strip():
        return []
    cell = new_markdown_cell(PAGE.sub(r"](../\1.html\2)", text.strip()))
    for _, path in PICTURE.findall(text):
        held = cell.setdefault("attachments", {})
        held[Path(path).name] = {"image/jpeg": base64.b64encode((DOCS / path).read_bytes()).decode()}
    cell["source"] = PICTURE.sub(lambda found: f"![{found[1]}](attachment:{Path(found[2]).name})", cell["source"])
    return [cell]


def executed(name: str) -> nbformat.NotebookNode:
    """The notebook with what its cells print and show, run in an empty folder.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed.
    """
    made = notebook(name)
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # of `clarp` in a cell
    with TemporaryDirectory() as folder:
        NotebookClient(made, timeout=SECONDS, resources={"metadata": {"path": folder}}).execute()
    return made


def main(out: Path, names: list[str]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for name in names:
        nbformat.write(executed(name), out / f"{name}.ipynb")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:] or list(TUTORIALS))
