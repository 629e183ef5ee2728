"""Cores and priority of a stream; the tests change their own thread only."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest

from kd_edge.errors import ConfigError
from kd_edge.runtime.scheduling import at_ease, scheduled

pytestmark = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs Linux's scheduler")


def test_threads_started_inside_are_bound_too():
    there = os.sched_getaffinity(0)
    one = min(there)
    seen = []
    with scheduled((one,)):
        thread = threading.Thread(target=lambda: seen.append(os.sched_getaffinity(0)))
        thread.start()
        thread.join()
    assert seen == [{one}]
    assert os.sched_getaffinity(0) == there


def test_a_core_that_is_not_there():
    with pytest.raises(ConfigError, match=r"cpus \[4095\] in the camera file. Expected some of this process's cores"):
        scheduled((4095,)).__enter__()


def test_priority_is_taken_or_told(caplog):
    before = os.sched_getscheduler(0)
    with scheduled(priority=1):
        urgent = os.sched_getscheduler(0) == os.SCHED_FIFO
        assert urgent or "real-time priority 1 is not permitted" in caplog.text
        at_ease()
        assert os.sched_getscheduler(0) == os.SCHED_OTHER
    assert os.sched_getscheduler(0) == before


def test_at_ease_keeps_to_the_operators_cores():
    """A service bound by systemd or taskset stays there: what is given up is what the camera file gave."""
    there, one = os.sched_getaffinity(0), min(os.sched_getaffinity(0))
    seen = []

    def write():
        at_ease()
        seen.append(os.sched_getaffinity(0))

    try:
        os.sched_setaffinity(0, {one})
        at_ease()
        assert os.sched_getaffinity(0) == {one}, "nobody asked for cores"
        with scheduled((one,)):
            thread = threading.Thread(target=write)
            thread.start()
            thread.join()
        assert seen == [{one}]
    finally:
        os.sched_setaffinity(0, there)


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
def test_writers_leave_the_streams_cores():
    there = os.sched_getaffinity(0)
    seen = []

    def write():
        at_ease()
        seen.append(os.sched_getaffinity(0))

    with scheduled((min(there),)):
        thread = threading.Thread(target=write)
        thread.start()
        thread.join()
    assert seen == [there]


def test_at_ease_restores_the_operators_policy():
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        at_ease()
        assert os.sched_getscheduler(0) == os.SCHED_BATCH
        with scheduled((min(os.sched_getaffinity(0)),), priority=1):
            at_ease()
            assert os.sched_getscheduler(0) == os.SCHED_BATCH
        assert os.sched_getscheduler(0) == os.SCHED_BATCH
    finally:
        os.sched_setscheduler(0, *before)


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
def test_at_ease_leaves_a_stream_alone_that_asked_for_nothing():
    """Another stream of the process has cores of its own; this one's threads are the operator's."""
    there = os.sched_getaffinity(0)
    one, other = sorted(there)[:2]
    seen = []

    def write():
        os.sched_setaffinity(0, {other})
        at_ease()
        seen.append(os.sched_getaffinity(0))

    with scheduled((one,)):
        thread = threading.Thread(target=write)
        thread.start()
        thread.join()
    assert seen == [{other}]


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
def test_a_stream_inside_another_one_gives_up_both():
    there = os.sched_getaffinity(0)
    one, other = sorted(there)[:2]
    is_inside, is_over = threading.Event(), threading.Event()
    seen = []

    def second():
        with scheduled((other,)):
            is_inside.set()
            assert is_over.wait(60)
            at_ease()
            seen.append(os.sched_getaffinity(0))

    with scheduled((one,)):
        thread = threading.Thread(target=second)
        thread.start()
        assert is_inside.wait(60)
    is_over.set()
    thread.join()
    assert seen == [there]


def test_a_child_gives_up_what_it_inherits():
    there, one = os.sched_getaffinity(0), min(os.sched_getaffinity(0))
    with scheduled((one,)):
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        try:
            assert os.sched_getaffinity(child.pid) == {one}
            at_ease(child.pid)
            assert os.sched_getaffinity(child.pid) == there
            assert os.sched_getaffinity(0) == {one}
        finally:
            child.communicate(b"\n")
        at_ease(child.pid)  # it has ended


def test_nothing_asked_nothing_done():
    before = os.sched_getaffinity(0), os.sched_getscheduler(0)
    with scheduled():
        assert (os.sched_getaffinity(0), os.sched_getscheduler(0)) == before
