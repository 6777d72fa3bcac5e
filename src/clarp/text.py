"""Text from files, names and labels, made harmless for who reads it: terminals, spreadsheets, JSON."""

import json
from unicodedata import category

_OBEYED = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Kinds of letters that a terminal obeys, that turn the order of reading, or that no encoding has."""
_JOINERS = "\u200c\u200d"
"""Of Persian words and of emoji; they change nothing else."""
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def printable(text: str) -> str:
    r"""The text with the code in place of each letter that a terminal would obey, or could not show.

    >>> printable("a\x1b[31mb\nc\u202e 樹 é")
    'a\\x1b[31mb\\nc\\u202e 樹 é'
    """
    return "".join(letter if _harmless(letter) else _code(letter) for letter in text)


def lines(text: str) -> str:
    r"""As :func:`printable`, and the text keeps its lines."""
    return "\n".join(map(printable, text.split("\n")))


def document(value: object) -> str:
    r"""A value as JSON for people, in which every letter is one that a terminal only shows.

    What is not UTF-8 in a file's name stays what Python reads there (``\udcff``), so the name can be had again.

    >>> document({"file": "a\udcff"})
    '{\n  "file": "a\\udcff"\n}'

    Raises:
        ValueError: NaN or infinity, for which JSON has no word.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    return "\n".join(
        "".join(c if _harmless(c) else json.dumps(c)[1:-1] for c in line) for line in text.split("\n")
    )


def cell(text: str) -> str:
    r"""A text as the cell of a table: a spreadsheet would run what begins like a formula, and shows what is behind an apostrophe.

    >>> cell("=HYPERLINK(1)"), cell("tabby")
    ("'=HYPERLINK(1)", 'tabby')
    """
    text = printable(text)
    return f"'{text}" if text.lstrip().startswith(_FORMULA) else text


def literal(text: str) -> str:
    r"""Text as a literal of Python on one line, whatever is in it.

    >>> literal('a "b"'), literal("a\nb")
    ('"a \\"b\\""', "'a\\nb'")
    """
    if not all(map(_harmless, text)):
        return ascii(text)
    escaped = text.replace("\\", r"\\").replace('"', r"\"")
    return f'"{escaped}"'


def _harmless(letter: str) -> bool:
    return letter in _JOINERS or category(letter) not in _OBEYED


def _code(letter: str) -> str:
    return ascii(letter)[1:-1]
