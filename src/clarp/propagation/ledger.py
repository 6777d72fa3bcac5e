"""Where the relevance went: conservation as a table that one can read."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch import Tensor

from clarp.capture import Node
from clarp.rules import Rule


@dataclass(frozen=True)
class Entry:
    """One operation's balance: ``arrived = handed_on + selection + bias + epsilon``. All tensors are (B,) or (B, K).

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

    def map(self, function: Callable[[Tensor], Tensor]) -> "Entry":
        """The same entry with a linear function applied to all its tensors."""
        return Entry(
            self.node,
            self.rule,
            function(self.arrived),
            function(self.handed_on),
            function(self.selection),
            function(self.bias),
        )


@dataclass(frozen=True)
class Ledger:
    """The balance of every operation, from the logits to the pixels; ``str(ledger)`` is a table for the first sample.

    Attributes:
        seed: the sum of the initial relevance, (B,) or (B, K).
        pixels: the sum of the relevance that reached the pixels.
        entries: one per operation on the way.
    """

    seed: Tensor
    pixels: Tensor
    entries: tuple[Entry, ...]

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)

    def total(self, what: str) -> Tensor:
        """The sum over all operations of "selection", "bias" or "epsilon", (B,) or (B, K)."""
        return sum((getattr(entry, what) for entry in self.entries), self.seed * 0)

    def map(self, function: Callable[[Tensor], Tensor]) -> "Ledger":
        """The same ledger with a linear function applied to all its tensors."""
        return Ledger(
            function(self.seed), function(self.pixels), tuple(e.map(function) for e in self.entries)
        )

    def summary(self) -> dict[str, list[float] | list[list[float]]]:
        """The totals: seed = pixels + selection + bias + epsilon."""
        parts = {"seed": self.seed, "pixels": self.pixels}
        parts |= {what: self.total(what) for what in ("selection", "bias", "epsilon")}
        return {name: value.tolist() for name, value in parts.items()}

    def __str__(self) -> str:
        fields = ("arrived", "handed_on", "selection", "bias", "epsilon")
        rows: list[tuple[str, ...]] = [("module", "operation", "rule", *fields)]
        for entry in self.entries:
            numbers = (f"{getattr(entry, f).flatten()[0].item():+.4g}" for f in fields)
            rows.append(
                (
                    entry.node.module or "(model)",
                    type(entry.node.operation).__name__,
                    repr(entry.rule),
                    *numbers,
                )
            )
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines = [
            "  ".join(
                cell.ljust(w) if i < 3 else cell.rjust(w)
                for i, (cell, w) in enumerate(zip(row, widths, strict=True))
            )
            for row in rows
        ]
        seed, pixels = (value.flatten()[0].item() for value in (self.seed, self.pixels))
        return "\n".join([*lines, f"seed {seed:+.4g}, pixels {pixels:+.4g}"])
