"""A plan gives every operation its rule; the program runs it; the ledger says where the relevance went."""

from clarp.propagation.ledger import Entry, Ledger
from clarp.propagation.plan import Plan, Step, last_spatial, make_plan, positions
from clarp.propagation.program import Program, Relevance, Tape

__all__ = [
    "Entry",
    "Ledger",
    "Plan",
    "Program",
    "Relevance",
    "Step",
    "Tape",
    "last_spatial",
    "make_plan",
    "positions",
]
