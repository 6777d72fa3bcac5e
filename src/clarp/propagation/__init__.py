"""A plan gives every operation its rule; the program runs it; the ledger says where the relevance went."""

from clarp.propagation.forward_cache import ForwardCache
from clarp.propagation.ledger import Entry, Ledger
from clarp.propagation.plan import Plan, Step, last_spatial, make_plan, positions
from clarp.propagation.program import Program, Propagated

__all__ = [
    "Entry",
    "ForwardCache",
    "Ledger",
    "Plan",
    "Program",
    "Propagated",
    "Step",
    "last_spatial",
    "make_plan",
    "positions",
]
