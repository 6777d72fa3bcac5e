"""docs/your-own-classifier.md, as a reader would follow it: its files, code and commands, in their order, and what they give."""

import re
import shlex
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import pytest

from clarp.cli import main

PAGE = Path(__file__).resolve().parents[1] / "docs/your-own-classifier.md"
BLOCK = re.compile(r"^```(python|console|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PERCENT = re.compile(r"<?\d+(?:\.\d+)?%")
NEAR = 5  # percent: other processors round otherwise, and training makes more of it


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the page was followed, with what each of its commands and programs printed beside what the page shows."""
    folder = tmp_path_factory.mktemp("own")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(folder)
        yield folder, followed(PAGE.read_text(encoding="utf-8"))
    for name in ("net", "shapes", "xray"):
        sys.modules.pop(name, None)


def followed(text):
    """(what was printed, what the page shows) of each command, and of each program with a text behind it."""
    names = {"__name__": "__main__"}
    found = []
    printed = ""
    for block in BLOCK.finditer(text):
        kind, source = block.groups()
        if kind == "text":
            found.append((printed, source))
        elif kind == "console":
            command, _, shown = source.partition("\n")
            found.append((ran(command), shown))
        elif file := re.match(r"# (\w+\.py)\n", source):
            Path(file[1]).write_text(source, encoding="utf-8")
        else:
            above = "\n" * text.count("\n", 0, block.start(2))  # so that a traceback has the page's line
            with redirect_stdout(StringIO()) as out:
                exec(compile(above + source, str(PAGE), "exec"), names)
            printed = out.getvalue()
    return found


def ran(command):
    """What a command prints, notes first."""
    prompt, program, *arguments = shlex.split(command)
    assert (prompt, program) == ("$", "clarp")
    out, notes = StringIO(), StringIO()
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.setattr(sys, "stdout", out)
        patch.setattr(sys, "stderr", notes)
        main(arguments)
    assert ended.value.code == 0, notes.getvalue()
    return notes.getvalue() + out.getvalue()
