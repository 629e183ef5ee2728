"""Frames of several cameras that are handed over together."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from kd_edge.runtime.ros import pairing as module
from kd_edge.runtime.ros.pairing import Pairing

MS = 1_000_000


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(3) as pool:
        yield pool


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A camera is never absent, however busy the machine is."""
    monkeypatch.setattr(module, "ABSENT_SECONDS", 600.0)


def joined(pairing: Pairing, *cameras: str) -> None:
    """Cameras that have given a frame before."""
    for camera in cameras:
        pairing.join(camera)
        pairing.seen(camera)


def done(*futures: Future[None]) -> None:
    for future in futures:
        future.result(30)


@pytest.mark.usefixtures("patient")
def test_frames_within_the_slop_are_handed_over_together(threads: ThreadPoolExecutor) -> None:
    pairing = Pairing(5 * MS, 60.0)
    joined(pairing, "left", "right")
    done(threads.submit(pairing.meet, "left", 1000 * MS), threads.submit(pairing.meet, "right", 1005 * MS))
    assert (pairing.has_met("left"), pairing.has_met("right"), pairing.paired) == (True, True, 1)
    pairing.forget("left")
    assert not pairing.has_met("left")


@pytest.mark.usefixtures("patient")
def test_the_earlier_of_two_frames_that_lie_apart_goes_alone(threads: ThreadPoolExecutor) -> None:
    pairing = Pairing(5 * MS, 60.0)
    joined(pairing, "left", "right")
    early, late = threads.submit(pairing.meet, "left", 1000 * MS), threads.submit(pairing.meet, "right", 1006 * MS)
    done(early)
    assert (pairing.has_met("left"), pairing.paired, late.done()) == (False, 0, False)
    pairing.meet("left", 1008 * MS)  # the next one is its partner
    done(late)
    assert (pairing.has_met("left"), pairing.has_met("right"), pairing.paired) == (True, True, 1)


@pytest.mark.usefixtures("patient")
def test_three_cameras_wait_for_each_other(threads: ThreadPoolExecutor) -> None:
    pairing = Pairing(5 * MS, 60.0)
    joined(pairing, "a", "b", "c")
    done(*(threads.submit(pairing.meet, camera, stamp * MS) for camera, stamp in (("a", 10), ("b", 13), ("c", 15))))
    assert pairing.paired == 1
    assert all(pairing.has_met(camera) for camera in "abc")


@pytest.mark.usefixtures("patient")
def test_one_that_leaves_holds_nobody_up(threads: ThreadPoolExecutor) -> None:
    pairing = Pairing(5 * MS, 60.0)
    joined(pairing, "left", "right")
    waits = threads.submit(pairing.meet, "left", 1000 * MS)
    pairing.leave("right")
    done(waits)
    assert (pairing.has_met("left"), pairing.paired) == (False, 0)


def test_one_that_gave_nothing_yet_is_not_waited_for() -> None:
    pairing = Pairing(5 * MS, 600.0)
    pairing.join("left")
    pairing.join("right")
    pairing.meet("left", 1000 * MS)
    assert pairing.paired == 0


def test_a_silent_partner_is_waited_for_no_longer_than_stated() -> None:
    pairing = Pairing(5 * MS)
    joined(pairing, "left", "right")
    pairing.meet("left", 1000 * MS)
    assert not pairing.has_met("left")
