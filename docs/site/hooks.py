"""What `make site` adds to docs/: the README as the first page, the files of the repository that pages link, the
tutorials as notebooks, and the page of all names.

Pages link as GitHub needs it, from file to file. A file outside docs/ gets a place in the site, and a link to it
is rewritten to that place.
"""

import posixpath
import re
import sys
from pathlib import Path, PurePosixPath

import nbformat
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from pymdownx.slugs import slugify

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
sys.path[:0] = [str(DOCS), str(DOCS / "site")]
import every_name  # noqa: E402  lies beside this file
import generate_notebooks  # noqa: E402  lies above it

README = ROOT / "README.md"
LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)\s#]+)(?=(?:#[^)\s]*)?\))")


def place(path: Path) -> PurePosixPath:
    """Where a file of the repository lies in the site, from the site's folder."""
    if path == README:
        return PurePosixPath("index.md")
    return PurePosixPath(path.relative_to(DOCS if path.is_relative_to(DOCS) else ROOT).as_posix())


def linked(path: Path) -> set[Path]:
    """The files of the repository that a page links."""
    targets = LINK.findall(path.read_text(encoding="utf-8"))
    return {found for one in targets if (found := (path.parent / one).resolve()).is_file()}


def outside() -> set[Path]:
    """The README, and all files outside docs/ that it, the pages, and pages that these link, link."""
    seen: set[Path] = set()
    waiting = {README, *DOCS.rglob("*.md")}
    while waiting:
        path = waiting.pop()
        seen.add(path)
        if path.suffix == ".md":
            waiting |= linked(path) - seen
    return {path for path in seen if not path.is_relative_to(DOCS)}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """GitHub's names of headings, so that one anchor serves both."""
    config.mdx_configs["toc"]["slugify"] = slugify(case="lower")
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for path in sorted(outside()):
        files.append(File.generated(config, str(place(path)), abs_src_path=str(path)))
    for name in generate_notebooks.TUTORIALS:  # `make site` puts the executed ones in their place
        content = nbformat.writes(generate_notebooks.notebook(name))
        files.append(File.generated(config, f"notebooks/{name}.ipynb", content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    assert page.file.abs_src_path is not None
    here = Path(page.file.abs_src_path)

    def moved(link: re.Match[str]) -> str:
        target = (here.parent / link[0]).resolve()
        return posixpath.relpath(place(target), place(here).parent) if target.is_file() else link[0]

    markdown = LINK.sub(moved, markdown).replace(every_name.PLACE, every_name.text())
    if here.parent == DOCS and here.stem in generate_notebooks.TUTORIALS:
        title, about, rest = markdown.split("\n\n", 2)
        notebook = f"[This page as a notebook](notebooks/{here.stem}.ipynb)"
        markdown = f"{title}\n\n{about}\n\n{notebook}\n\n{rest}"
    return markdown
