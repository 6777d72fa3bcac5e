"""Ctrl-C comes where nothing is lost by it, and nowhere else."""

import os
import signal
import threading

import pytest

from clarp.interrupts import Interrupts


def ctrl_c():
    os.kill(os.getpid(), signal.SIGINT)


def interrupted(work):
    """What was done before Ctrl-C came: the arguments of the work's calls of its own argument."""
    done = []
    with pytest.raises(KeyboardInterrupt):
        work(done.append)
    return done


def test_it_waits_for_where_it_is_allowed():
    def work(do):
        with Interrupts(signal.SIGINT) as interrupts:
            with interrupts.allowed():
                do("nothing came")
            ctrl_c()
            do("not here")
            with interrupts.allowed():
                do("never")

    assert interrupted(work) == ["nothing came", "not here"]


def test_it_comes_at_once_where_it_is_allowed():
    def work(do):
        with Interrupts(signal.SIGINT) as interrupts, interrupts.allowed():
            do("something")
            ctrl_c()
            do("never")

    assert interrupted(work) == ["something"]


def test_it_waits_for_the_end_of_where_it_is_held():
    def work(do):
        with Interrupts(signal.SIGINT) as interrupts, interrupts.allowed():
            with interrupts.held():
                ctrl_c()
                do("held")
            do("never")

    assert interrupted(work) == ["held"]


def test_it_comes_at_the_end_at_the_latest_and_what_was_before_is_back():
    def work(do):
        with Interrupts(signal.SIGINT):
            ctrl_c()
            do("all")

    before = signal.getsignal(signal.SIGINT)
    assert interrupted(work) == ["all"]
    assert signal.getsignal(signal.SIGINT) is before


def test_an_error_that_was_there_first_stays():
    def work():
        with Interrupts(signal.SIGINT):
            ctrl_c()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()


def test_a_second_one_comes_at_once():
    def work(do):
        with Interrupts(signal.SIGINT):
            ctrl_c()
            do("not here")
            ctrl_c()
            do("never")

    assert interrupted(work) == ["not here"]


def test_in_another_thread_nothing_changes():
    before, found = signal.getsignal(signal.SIGINT), []

    def inside():
        with Interrupts(signal.SIGINT) as interrupts, interrupts.allowed():
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert found == [before]
