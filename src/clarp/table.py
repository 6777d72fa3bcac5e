"""Rows for people, for JSON and for data frames."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pandas import DataFrame


def table(
    rows: Sequence[Mapping[str, object]], columns: Sequence[str], *, numbers: Sequence[str] = ()
) -> list[str]:
    r"""Aligned lines: a head, a rule, a line per row; the columns of numbers to the right.

    >>> print(*table([{"module": "fc", "bias": "+0.5"}], ["module", "bias"], numbers=["bias"]), sep="\n")
    module  bias
    ------  ----
    fc      +0.5
    """
    cells = [[str(row[column]) for column in columns] for row in rows]
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    lines = [list(columns), ["-" * width for width in widths], *cells]
    right = [column in numbers for column in columns]
    return [
        "  ".join(
            cell.rjust(width) if to_the_right else cell.ljust(width)
            for cell, width, to_the_right in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in lines
    ]


def data_frame(rows: Sequence[Mapping[str, object]]) -> "DataFrame":
    """The rows as a pandas data frame.

    Raises:
        ModuleNotFoundError: pandas is not installed.
    """
    try:
        from pandas import DataFrame  # noqa: PLC0415  optional
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "to_frame() needs pandas, which is not installed: pip install pandas. rows() gives the same as "
            "a list of dictionaries."
        ) from error
    return DataFrame(list(rows))
