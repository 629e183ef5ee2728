"""One push at a time, and none once the process ends."""

from __future__ import annotations

import threading
from contextlib import suppress

import numpy as np
import pytest

from kd_edge.errors import EngineError
from kd_edge.runtime import Recognizer, guard
from kd_edge.runtime.guard import PushGuard
from kd_edge.types import LabelState
from tests.waiting import PATIENCE_SECONDS, wait_for

from .conftest import TinyStep, tiny_manifest
from .stepped import TinyEngine


class Pushing:
    """A recogniser whose push in another thread stands inside the engine until it is let go."""

    def __init__(self, path):
        self.recognizer = Recognizer.load(path)
        self.inside, self.goes_on, self.given, self.done = threading.Event(), threading.Event(), [], []
        binding = self.recognizer._runner.binding(1)
        run = binding.run

        def stand():
            self.inside.set()
            assert self.goes_on.wait(PATIENCE_SECONDS)
            run()
            self.done.append("pushed")

        binding.run = stand
        self.thread = threading.Thread(target=self._push, name="kd-edge test push")
        self.thread.start()
        assert self.inside.wait(PATIENCE_SECONDS)

    def _push(self):
        self.given.append(self.recognizer.push(np.zeros((24, 32), np.uint8), 0, "left"))

    def end(self):
        self.goes_on.set()
        self.thread.join(PATIENCE_SECONDS)


def test_two_threads_that_push_at_once_are_told(make_model):
    pushing = Pushing(make_model()[0])
    frame = np.zeros((24, 32), np.uint8)
    with pytest.raises(EngineError, match="a push while another thread pushes"):
        pushing.recognizer.push(frame, 0, "right")
    with pytest.raises(EngineError, match="one thread at a time"):
        pushing.recognizer.push_many({"right": (frame, 0)})
    pushing.end()
    assert [p.state for p in pushing.given] == [LabelState.WARMING]
    assert pushing.recognizer.push(frame, 0, "right").state is LabelState.WARMING  # one after the other
    pushing.recognizer.close()


def test_a_push_that_fails_lets_the_next_one_in(make_model):
    with Recognizer.load(make_model()[0]) as recognizer:
        for _ in range(2):
            with pytest.raises(Exception, match="delivers NoneType"):
                recognizer.push(None, 0)


def test_closing_waits_for_a_push(make_model, monkeypatch):
    monkeypatch.setattr(guard, "LONGEST_STEP_SECONDS", PATIENCE_SECONDS)
    pushing = Pushing(make_model()[0])
    lock, close = WatchedLock(pushing.recognizer._guard._lock), pushing.recognizer.engine.close
    monkeypatch.setattr(pushing.recognizer._guard, "_lock", lock)
    monkeypatch.setattr(pushing.recognizer.engine, "close", lambda: (pushing.done.append("closed"), close()))
    closing = threading.Thread(target=pushing.recognizer.close, name="kd-edge test close")
    closing.start()
    wait_for(lambda: lock.waiters)
    pushing.end()
    closing.join(PATIENCE_SECONDS)
    assert pushing.done == ["pushed", "closed"]


def test_a_push_that_takes_long_closes_the_engine_itself(make_model, monkeypatch):
    """And the one that it has then: it may have stepped down meanwhile."""
    monkeypatch.setattr(guard, "LONGEST_STEP_SECONDS", 0.01)
    pushing = Pushing(make_model()[0])
    runner, engine = pushing.recognizer._runner, pushing.recognizer.engine
    monkeypatch.setattr(runner, "close", lambda: (pushing.done.append("closed"), engine.close()))
    pushing.recognizer.close()
    assert pushing.done == [], "never under a step"
    pushing.recognizer.close()
    pushing.end()
    assert pushing.done == ["pushed", "closed"]
    with pytest.raises(EngineError, match="closed"):
        pushing.recognizer.push(np.zeros((24, 32), np.uint8), 0, "left")
    assert pushing.done == ["pushed", "closed"], "once"


def test_closing_in_the_midst_of_ones_own_push_waits_for_nothing(make_model, monkeypatch):
    """As a signal's handler does."""
    monkeypatch.setattr(guard, "LONGEST_STEP_SECONDS", 3600.0)
    recognizer, done = Recognizer.load(make_model()[0]), []
    binding = recognizer._runner.binding(1)
    run, close = binding.run, recognizer.engine.close
    monkeypatch.setattr(binding, "run", lambda: (recognizer.close(), run(), done.append("pushed")))
    monkeypatch.setattr(recognizer.engine, "close", lambda: (done.append("closed"), close()))
    assert recognizer.push(np.zeros((24, 32), np.uint8), 0).state is LabelState.WARMING
    assert done == ["pushed", "closed"]


class Counted(TinyEngine):
    """Counts how often it is closed."""

    def __init__(self, failures=0, on_close=lambda: None):
        super().__init__(TinyStep(tiny_manifest()))
        self.failures, self.closed, self.on_close = failures, 0, on_close

    def close(self):
        self.closed += 1
        self.on_close()


class Opening:
    """A recogniser whose engine fails at its first step, and a ladder to the next one, with what happens meanwhile."""

    def __init__(self, meanwhile):
        self.failed, self.next, self.meanwhile, self.opened = Counted(failures=1), Counted(), meanwhile, 0
        self.recognizer = Recognizer(self.failed.step.manifest, self.failed, ladder=self)

    def step_down(self, why):
        self.opened += 1
        self.meanwhile()
        self.failed.close()
        return self.next

    @property
    def closed(self):
        return self.failed.closed, self.next.closed

    def push(self):
        with pytest.raises(EngineError, match="the recogniser was closed while a fallback engine was being opened"):
            self.recognizer.push(np.zeros((24, 32), np.uint8), 0)


def test_an_engine_that_opens_when_its_recogniser_was_closed_meanwhile_is_closed(monkeypatch):
    monkeypatch.setattr(guard, "LONGEST_STEP_SECONDS", 0.01)
    opens, goes_on, told = threading.Event(), threading.Event(), []

    def meanwhile():
        opens.set()
        assert goes_on.wait(PATIENCE_SECONDS)

    opening = Opening(meanwhile)
    pushing = threading.Thread(target=lambda: (opening.push(), told.append(True)), name="kd-edge test push")
    pushing.start()
    assert opens.wait(PATIENCE_SECONDS)
    opening.recognizer.close()  # comes back though the push does not
    assert opening.closed == (0, 0), "never under a push"
    goes_on.set()
    pushing.join(PATIENCE_SECONDS)
    assert told
    assert opening.closed == (1, 1)
    opening.recognizer.close()
    assert opening.closed == (1, 1)


def test_closing_while_ones_own_push_opens_another_engine_waits_for_nothing(monkeypatch):
    monkeypatch.setattr(guard, "LONGEST_STEP_SECONDS", 3600.0)
    opening = Opening(lambda: opening.recognizer.close())
    opening.push()
    assert opening.closed == (1, 1)


def test_no_other_engine_is_opened_once_the_recogniser_is_closed(monkeypatch):
    """A load may take minutes."""
    monkeypatch.setattr(guard, "LONGEST_STEP_SECONDS", 3600.0)
    opening = Opening(lambda: None)
    binding = opening.recognizer._runner.binding(1)
    run = binding.run
    monkeypatch.setattr(binding, "run", lambda: (opening.recognizer.close(), run()))
    opening.push()
    assert opening.opened == 0
    assert opening.closed == (1, 0)


def test_an_engine_that_is_adopted_while_its_recogniser_is_closed_is_closed(monkeypatch):
    monkeypatch.setattr(guard, "LONGEST_STEP_SECONDS", 3600.0)
    better, first = Counted(), Counted(on_close=lambda: mine.close())
    mine = Recognizer(first.step.manifest, first)
    mine.adopt(Recognizer(better.step.manifest, better))
    assert (first.closed, better.closed) == (1, 1)
    with pytest.raises(EngineError, match="the recogniser is closed"):
        mine.push(np.zeros((24, 32), np.uint8), 0)


class WatchedLock:
    """Tells who waits for it."""

    def __init__(self, lock):
        self.lock, self.waiters = lock, []

    def acquire(self, blocking=True, timeout=-1.0):
        if blocking:
            self.waiters.append(threading.current_thread())
        return self.lock.acquire(blocking, timeout)

    def release(self):
        self.lock.release()


@pytest.fixture
def ended(monkeypatch):
    """A guard of a process that ends."""
    monkeypatch.setattr(guard, "_process_ends", threading.Event())
    made = PushGuard()
    monkeypatch.setattr(guard, "_GUARDS", {made})
    monkeypatch.setattr(made, "_lock", WatchedLock(made._lock))
    guard._shut_all()
    return made


def test_a_daemon_thread_gets_in_no_more_when_the_process_ends(ended):
    entered = []

    def push():
        with suppress(EngineError), ended:
            entered.append(True)

    thread = threading.Thread(target=push, name="kd-edge test push", daemon=True)
    thread.start()
    wait_for(lambda: thread in ended._lock.waiters)
    assert not entered
    ended._lock.release()  # for this test's sake it is not for ever
    thread.join(PATIENCE_SECONDS)


def test_the_thread_that_ends_the_process_is_told(ended):
    with pytest.raises(EngineError, match="a push while the process ends"), ended:
        pass
