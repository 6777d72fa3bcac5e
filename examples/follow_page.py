"""Follow a page of the documentation: write its files, and run its programs and commands, in their order.

python examples/follow_page.py docs/your-own-classifier.md     in the folder where its files shall be
"""

import re
import shlex
import sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

from clarp.cli import main

BLOCK = re.compile(r"^```(python|console|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def followed(page: Path) -> list[tuple[str, str]]:
    """(what was printed, what the page shows) of each command, and of each program with a text behind it."""
    names: dict[str, object] = {"__name__": "__main__"}
    text = page.read_text(encoding="utf-8")
    found, printed = [], ""
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
                exec(compile(above + source, str(page), "exec"), names)
            printed = out.getvalue()
    return found


def ran(command: str) -> str:
    """What a command prints, notes and results.

    Raises:
        RuntimeError: it failed.
    """
    prompt, program, *arguments = shlex.split(command)
    assert (prompt, program) == ("$", "clarp")
    with redirect_stdout(StringIO()) as out, redirect_stderr(out):
        try:
            main(arguments)
        except SystemExit as ended:
            if ended.code == 0:
                return out.getvalue()
    raise RuntimeError(f"{command} failed:\n{out.getvalue()}")


if __name__ == "__main__":
    sys.path.insert(0, "")  # the page's own files
    followed(Path(sys.argv[1]))
