"""What a worker sends to the command's own process."""

import pytest

from clarp.workers.processes import portable


def test_an_error_that_does_not_pickle_comes_in_words():
    class OwnError(Exception):
        pass

    with pytest.raises(OwnError) as raised:
        raise OwnError("why")
    assert str(portable(raised.value)) == "OwnError: why"
    with pytest.raises(ZeroDivisionError) as raised:
        1 / 0  # noqa: B018
    (said,) = portable(raised.value).__notes__
    assert "test_an_error_that_does_not_pickle" in said
