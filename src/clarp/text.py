"""Text from files, names and labels, escaped for terminals, spreadsheets and JSON."""

import json
from unicodedata import category

_OBEYED = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode categories of control characters, of changes of the reading order, and of surrogates."""
_JOINERS = "\u200c\u200d"
"""Joiners in Persian words and emoji; they are harmless."""
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def printable(text: str) -> str:
    r"""The text with an escape in place of each control character and each that can't be shown.

    >>> printable("a\x1b[31mb\nc\u202e 樹 é")
    'a\\x1b[31mb\\nc\\u202e 樹 é'
    """
    return "".join(letter if _harmless(letter) else _code(letter) for letter in text)


def lines(text: str) -> str:
    r"""As :func:`printable`, but the text keeps its lines."""
    return "\n".join(map(printable, text.split("\n")))


def document(value: object) -> str:
    r"""A value as indented JSON without control characters.

    Bytes of a file's name that are not UTF-8 stay as Python reads them (``\udcff``).

    >>> document({"file": "a\udcff"})
    '{\n  "file": "a\\udcff"\n}'

    Raises:
        ValueError: NaN or infinity, which JSON can't express.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    return "\n".join(
        "".join(c if _harmless(c) else json.dumps(c)[1:-1] for c in line) for line in text.split("\n")
    )


def cell(text: str) -> str:
    r"""A text as the cell of a table, with an apostrophe before what a spreadsheet would run as a formula.

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
