"""What the lowering refused, as one message that a user can act on."""

from dataclasses import dataclass, field

from clarp.errors import UnsupportedOperation

SHOWN = 3


@dataclass
class Refusals:
    """Collects refusals; the same operation refused for the same reason is one line, however often it occurs.

    Attributes:
        places: of each operation and reason.
    """

    places: dict[tuple[str, str], list[str]] = field(default_factory=dict)

    def add(self, operation: str, module: str, line: str, reason: str) -> None:
        """Note one refusal; module and line may be ""."""
        place = f"module {module!r}" if module else "the model itself"
        self.places.setdefault((operation, reason), []).append(f"{place}{f' at {line}' if line else ''}")

    def check(self) -> None:
        """Raise if there are any.

        Raises:
            UnsupportedOperation: lists all of them.
        """
        if not self.places:
            return
        count = sum(len(places) for places in self.places.values())
        listed = "\n".join(
            f"  {operation} {_listed(places)}: {reason}"
            for (operation, reason), places in self.places.items()
        )
        raise UnsupportedOperation(
            f"the model has {count} operation(s) that no rule covers:\n{listed}\n"
            "Replace them by operations with a rule (docs/operations.md lists these), or give them one "
            "(clarp.rules.register)."
        )


def _listed(places: list[str]) -> str:
    if len(places) == 1:
        return f"in {places[0]}"
    more = f", and {len(places) - SHOWN} more" if len(places) > SHOWN else ""
    return f"at {len(places)} places ({', '.join(places[:SHOWN])}{more})"
