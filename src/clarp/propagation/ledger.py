"""Where the relevance went: conservation as a table that one can read."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from torch import Tensor

from clarp.capture import Node
from clarp.rules import Rule
from clarp.table import data_frame, table
from clarp.tree import mapped

if TYPE_CHECKING:
    from pandas import DataFrame

SINKS = ("selection", "bias", "epsilon")
"""What takes relevance on its way: seed = pixels + all of these."""
TOP = 3
SHOWN = 12  # operations in a notebook
NOTHING = ("0", "~0")
ROUNDING = 1e-5  # of the seed's size


@dataclass(frozen=True)
class Entry:
    """One operation's balance: ``arrived = handed_on + selection + bias + epsilon``.

    All tensors are (B,) or (B, K).

    Attributes:
        node: the operation.
        rule: its rule.
        arrived: relevance that arrived at its output.
        handed_on: relevance that its inputs got.
        selection: what selection took away (negative: added; it keeps the total size, not the sum).
        bias: what the bias absorbed.
        epsilon: the rest: stabilisers, outputs that no input contributed to, padding, and rounding.
    """

    node: Node
    rule: Rule
    arrived: Tensor
    handed_on: Tensor
    selection: Tensor
    bias: Tensor

    @property
    def epsilon(self) -> Tensor:
        """The rest of the balance."""
        return self.arrived - self.handed_on - self.selection - self.bias

    @property
    def absorbed(self) -> Tensor:
        """What reached none of its inputs: bias and epsilon. Selection moves relevance elsewhere."""
        return self.arrived - self.handed_on - self.selection

    def map(self, function: Callable[[Tensor], Tensor]) -> "Entry":
        """The same entry with a linear function applied to all its tensors."""
        found: Entry = mapped(function, self, (Entry,))
        return found

    def __str__(self) -> str:
        return f"{self.node.module or type(self.node.operation).__name__} ({self.rule!r})"


@dataclass(frozen=True)
class Ledger:
    """The balance of every operation, from the logits to the pixels.

    ``print(ledger)`` is a table of the first sample, and a notebook shows its totals and greatest entries;
    :meth:`rows`, :meth:`to_dict` and :meth:`to_frame` have the numbers.

    Attributes:
        seed: the sum of the initial relevance, (B,) or (B, K).
        size: the sum of its absolute values. A seed that contrasts classes has a sum near zero, and this is
            what it weighs.
        pixels: the sum of the relevance that reached the pixels.
        entries: one per operation on the way.
    """

    seed: Tensor
    size: Tensor
    pixels: Tensor
    entries: tuple[Entry, ...]

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)

    def total(self, what: str) -> Tensor:
        """The sum over all operations of "selection", "bias", "epsilon" or "absorbed", (B,) or (B, K)."""
        return sum((getattr(entry, what) for entry in self.entries), self.seed * 0)

    def map(self, function: Callable[[Tensor], Tensor]) -> "Ledger":
        """The same ledger with a linear function applied to all its tensors."""
        found: Ledger = mapped(function, self, (Ledger, Entry))
        return found

    def summary(self) -> dict[str, list[float] | list[list[float]]]:
        """The totals: seed = pixels + selection + bias + epsilon."""
        parts = {"seed": self.seed, "pixels": self.pixels}
        parts |= {what: self.total(what) for what in SINKS}
        return {name: value.tolist() for name, value in parts.items()}

    def absorbers(self, image: int = 0, target: int = 0) -> list[tuple[Entry, float]]:
        """The operations that absorbed anything of one sample, with how much; the greatest first."""
        taken = [(entry, _of(entry.absorbed, image, target)) for entry in self.entries]
        return sorted((pair for pair in taken if pair[1]), key=lambda pair: -abs(pair[1]))

    def rows(self, image: int = 0, target: int = 0) -> list[dict[str, str | float]]:
        """A row per operation of one sample: module, operation, rule, source, and its balance.

        Args:
            image: which of the batch.
            target: which of the K classes explained.

        Raises:
            IndexError: there is no such image or target.
        """
        images, targets = self._size()
        if not (0 <= image < images and 0 <= target < targets):
            raise IndexError(
                f"image {image}, target {target} were asked for, and the ledger has {images} image(s) with "
                f"{targets} target(s) each."
            )
        return [
            {
                "module": entry.node.module or "(model)",
                "operation": type(entry.node.operation).__name__,
                "rule": repr(entry.rule),
                "source": entry.node.source,
                **{
                    what: _of(getattr(entry, what), image, target)
                    for what in ("arrived", "handed_on", *SINKS)
                },
            }
            for entry in self.entries
        ]

    def to_dict(self) -> dict[str, Any]:
        """Everything for JSON: the totals of :meth:`summary`, and ``operations`` as in :meth:`rows`.

        Numbers are lists of shape (B,) or (B, K).
        """
        operations = [
            row | {name: getattr(entry, name).tolist() for name in ("arrived", "handed_on", *SINKS)}
            for row, entry in zip(self.rows(), self.entries, strict=True)
        ]
        return {**self.summary(), "operations": operations}

    def to_frame(self) -> "DataFrame":
        """A pandas data frame with a row for each image, target and operation.

        Raises:
            ModuleNotFoundError: pandas is not installed.
        """
        images, targets = self._size()
        return data_frame(
            [
                {"image": image, "target": target, **row}
                for image in range(images)
                for target in range(targets)
                for row in self.rows(image, target)
            ]
        )

    def _size(self) -> tuple[int, int]:
        return len(self.seed), self.seed[0].numel()

    def __repr__(self) -> str:
        seed, pixels = (f"{_of(value, 0, 0):.4g}" for value in (self.seed, self.pixels))
        first = " in the first" if self.seed.numel() > 1 else ""
        return (
            f"Ledger({self.seed.numel()} explanation(s), {len(self.entries)} operations; seed {seed}, "
            f"pixels {pixels}{first}; print(ledger) is the table)"
        )

    def _repr_html_(self) -> str:
        """What a notebook shows of the first sample: the operations that kept the most, and the totals."""
        rows, size = self._written_rows(), _of(self.size, 0, 0)
        amounts = [
            sum(abs(_of(getattr(entry, what), 0, 0)) for what in SINKS) / (size or 1.0)
            for entry in self.entries
        ]
        top = sorted(range(len(rows)), key=lambda k: -amounts[k] if amounts[k] > ROUNDING else 0.0)[:SHOWN]
        columns = ["module", "operation", "rule", "arrived", "handed_on", *SINKS]
        head = "".join(f"<th>{escape(name)}</th>" for name in columns)
        lines = [
            f"<tr>{''.join(f'<td>{escape(str(rows[k][name]))}</td>' for name in columns)}</tr>" for k in top
        ]
        left_out = f", {len(top)} of {len(rows)}; print(ledger) has all" if len(top) < len(rows) else ""
        told = f"operations, those that kept the most relevance first{left_out}"
        foot = "".join(f"<p>{escape(line)}</p>" for line in self._foot(size))
        return (
            f"<table><caption>{escape(told)}</caption><thead><tr>{head}</tr></thead>"
            f"<tbody>{''.join(lines)}</tbody></table>{foot}"
        )

    def _written_rows(self) -> list[dict[str, str]]:
        """The first sample's rows in words."""
        size = _of(self.size, 0, 0)
        return [
            {
                name: _written(value, size) if isinstance(value, float) else value
                for name, value in row.items()
            }
            for row in self.rows()
        ]

    def __str__(self) -> str:
        rows, size = self._written_rows(), _of(self.size, 0, 0)
        taking = [what for what in SINKS if any(row[what] not in NOTHING for row in rows)]
        numbers = ["arrived", "handed_on", *taking]
        lines = table(rows, ["module", "operation", "rule", *numbers], numbers=numbers)
        return "\n".join([*lines, "", *self._foot(size)])

    def _foot(self, size: float) -> Iterator[str]:
        parts = [("pixels", self.pixels), *((what, self.total(what)) for what in SINKS)]
        shares = " + ".join(f"{name} {_written(_of(value, 0, 0), size)}" for name, value in parts)
        seed = _written(_of(self.seed, 0, 0), size)
        yield f"seed {seed} = {shares}"
        if seed in NOTHING and size:
            yield (
                "The seed contrasts classes and sums to nothing, and so does the relevance on its way; the "
                "ledger of a method without rivals ('lrp') shows what these rules lose."
            )
        top = [(entry, amount, _written(amount, size)) for entry, amount in self.absorbers()[:TOP]]
        named = [
            f"{entry} {text}" + (f" ({abs(amount) / size:.0%})" if size else "")
            for entry, amount, text in top
            if text not in NOTHING
        ]
        if named:
            yield f"absorbed by bias and epsilon, the most (of a seed of size {size:.4g}): {', '.join(named)}"
        if self.seed.numel() > 1:
            others = "rows(image, target) and to_frame() have the others"
            yield f"the first of {self.seed.numel()} explanations; {others}"


def _of(value: Tensor, image: int, target: int) -> float:
    """One sample's number of (B,) or (B, K)."""
    return float(value[image].flatten()[target])


def _written(value: float, size: float) -> str:
    """A number for people: "~0" for what is rounding beside the size of the seed."""
    if value == 0:
        return NOTHING[0]
    return NOTHING[1] if abs(value) < ROUNDING * size else f"{value:+.4g}"
