"""The example with the planted shortcut: it is learned without the penalty, and not with it."""

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).resolve().parents[2] / "examples/right_for_the_right_reasons.py"


@pytest.fixture(scope="module")
def outcomes():
    spec = spec_from_file_location("right_for_the_right_reasons", EXAMPLE)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.outcomes(count=1000)


def test_without_the_penalty_the_shortcut_is_all_that_is_learned(outcomes):
    found = outcomes["marked, no penalty"]
    assert found.marked > 0.99
    assert found.swapped < 0.1
    assert found.outside > 0.3


def test_the_penalty_cures_it_at_no_loss_of_accuracy(outcomes):
    found, clean = outcomes["marked, penalty"], outcomes["never marked"]
    assert found.outside < 0.01
    assert min(found.marked, found.swapped, found.unmarked) > clean.unmarked - 0.01
    assert clean.unmarked > 0.98
