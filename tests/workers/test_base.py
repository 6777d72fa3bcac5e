"""Work in pieces: how it is divided, and when a piece is given up."""

from dataclasses import dataclass

import pytest

from clarp.workers.base import Attempts, abandoned_error, ranges


@dataclass(frozen=True)
class Numbers:
    start: int
    stop: int

    @property
    def name(self):
        return f"numbers {self.start} to {self.stop}"


@pytest.mark.parametrize("batch_size", [1, 3, 8, 16, 17, 40])
@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 100])
def test_pieces_are_whole_batches_and_hold_everything_once(count, batch_size):
    found = ranges(count, batch_size)
    assert [number for start, stop in found for number in range(start, stop)] == list(range(count))
    assert all((stop - start) % batch_size == 0 for start, stop in found[:-1])
    assert len({stop - start for start, stop in found[:-1]}) <= 1


def test_a_piece_is_given_up_when_it_ended_its_process_so_often():
    attempts = Attempts(2, "Do this.", "And that.")
    one, other = Numbers(0, 4), Numbers(4, 8)
    assert attempts.ended(one, "signal 9") is None
    assert attempts.ended(other, "signal 9") is None
    lost = attempts.ended(one, "signal 11")
    assert (lost.piece, lost.deaths, lost.reason, lost.remedy) == (one, 2, "signal 11", "Do this.")
    error = abandoned_error([lost], "And that.")
    assert str(error).endswith(":\n  numbers 0 to 4, 2 times: signal 11\nDo this. And that.")


def test_three_in_succession_are_the_machine_s_fault_and_three_apart_are_not():
    attempts = Attempts(1, "Do this.", "And that.")
    for number in range(8):
        assert attempts.ended(Numbers(number, number + 1), "signal 9") is not None
        if number % 2:
            attempts.found()
    attempts.ended(Numbers(8, 9), "signal 9")
    attempts.ended(Numbers(9, 10), "signal 9")
    with pytest.raises(ChildProcessError, match=r"numbers 8 to 9, .*\n.*\n  numbers 10 to 11"):
        attempts.ended(Numbers(10, 11), "signal 9")
