"""What is said of a name that nobody knows."""

from clarp.hints import unknown

KNOWN = ("pointing", "pointings", "point", "appointing", "aopc")


def test_the_three_nearest_names():
    said = unknown("metric", "pointin", KNOWN)
    assert said.endswith("Did you mean pointing or pointings or point?")


def test_nothing_is_near():
    assert unknown("metric", "xyz", KNOWN) == f"unknown metric 'xyz', expected one of {', '.join(KNOWN)}."


def test_a_part_of_the_name_is_compared():
    assert unknown("metric", "aopc@5", KNOWN, wanted="aopc").endswith("Did you mean aopc?")
