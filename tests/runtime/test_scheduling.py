"""Cores and priority of a stream; the tests change their own thread only."""

from __future__ import annotations

import os
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


def test_nothing_asked_nothing_done():
    before = os.sched_getaffinity(0), os.sched_getscheduler(0)
    with scheduled():
        assert (os.sched_getaffinity(0), os.sched_getscheduler(0)) == before
