"""Streams that are stopped before they run, dropped, or still run when the process ends."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from kd_edge.errors import ConfigError
from kd_edge.runtime import Recognizer, lifetime
from kd_edge.runtime.options import StreamOptions
from kd_edge.runtime.stream import LabelStream
from kd_edge.types import LabelState
from tests.waiting import PATIENCE_SECONDS, wait_for

from .conftest import HandCamera, HandClock

DAY_MS = 3_600_000.0


@pytest.fixture
def camera():
    return HandCamera()


@pytest.fixture
def labels(make_model, camera):
    return LabelStream(make_model()[0], camera, StreamOptions(valid_ms=DAY_MS), HandClock())


def is_labelled(labels, camera):
    """Whether a frame of an entered stream gets a prediction."""
    camera.give(np.zeros((24, 32), np.uint8), labels._clock.ns)
    return next(labels).state is LabelState.WARMING


def test_a_stop_before_entering_ends_the_next_pass(labels, camera):
    labels.stop()
    with labels:
        assert list(labels) == []
    labels.stop()  # as a controller does that closes what has ended already
    with labels:
        assert is_labelled(labels, camera)


def test_a_stop_while_the_stream_is_being_entered_is_not_lost(labels, camera, monkeypatch):
    opened = camera.open
    monkeypatch.setattr(camera, "open", lambda: (opened(), labels.stop()))
    with labels:
        assert list(labels) == []
    assert not camera.open_now


def test_a_stop_outlasts_an_entering_that_fails(labels, camera, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(camera, "open", lambda: [labels.stop(), {}["driver"]])
        with pytest.raises(Exception, match="camera hand"):
            labels.__enter__()
    with labels:
        assert list(labels) == []


def test_a_stopped_stream_is_still_entered(labels, camera):
    with labels:
        labels.stop()
        with pytest.raises(RuntimeError, match="already entered"):
            labels.__enter__()
        assert camera.open_now
    assert not camera.open_now


def test_a_dropped_stream_closes_its_camera_and_is_told(labels, make_model, camera, caplog):
    dropped = LabelStream(make_model()[0], camera, StreamOptions(valid_ms=DAY_MS))
    dropped.__enter__()
    del dropped
    gc.collect()
    wait_for(lambda: not camera.open_now)
    wait_for(lambda: not any(t.name.startswith("kd-edge") for t in threading.enumerate()))
    assert "a stream was dropped while it ran; leave its with block, or stop() it and leave" in caplog.messages


def test_the_end_of_the_process_lets_the_thread_that_iterates_leave(labels, camera):
    ended = []

    def listen():
        with labels:
            ended.extend(labels)
        ended.append("left")

    thread = threading.Thread(target=listen, name="kd-edge test listener", daemon=True)
    thread.start()
    wait_for(lambda: camera.open_now)
    lifetime._end_all()
    thread.join(PATIENCE_SECONDS)
    assert ended == ["left"]
    assert not camera.open_now


def test_the_end_of_the_process_does_not_wait_for_a_program_that_is_busy(labels, camera, monkeypatch):
    monkeypatch.setattr(lifetime, "LEAVE_SECONDS", 0.0)
    busy, goes_on = threading.Event(), threading.Event()

    def listen():
        with labels:
            is_labelled(labels, camera)
            busy.set()
            goes_on.wait(PATIENCE_SECONDS)
            assert list(labels) == []

    thread = threading.Thread(target=listen, name="kd-edge test listener", daemon=True)
    thread.start()
    assert busy.wait(PATIENCE_SECONDS)
    lifetime._end_all()
    assert not camera.open_now
    goes_on.set()
    thread.join(PATIENCE_SECONDS)
    assert not thread.is_alive()


LISTENER = """
import sys, threading
from kd_edge.runtime import stream
from kd_edge.runtime.cameras import open_camera

class Told:
    def __init__(self): self.camera = open_camera("synthetic:?height_px=48&width_px=64")
    def __getattr__(self, name): return getattr(self.camera, name)
    def close(self):
        self.camera.close()
        print("closed", flush=True)

def listen():
    with stream(model=sys.argv[1], camera=Told()) as labels:
        for prediction in labels:
            labelled.set()

labelled = threading.Event()
threading.Thread(target=listen, daemon=True).start()
labelled.wait()
"""


def test_a_process_that_ends_under_a_daemon_thread_closes_the_camera(make_model):
    done = subprocess.run(
        [sys.executable, "-c", LISTENER, str(make_model()[0])], capture_output=True, text=True, timeout=110,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert (done.returncode, done.stdout.splitlines()[-1:], done.stderr) == (0, ["closed"], "")


FORKED = """
import os, sys
from kd_edge.runtime import stream
from kd_edge.runtime.cameras import open_camera

class Told:
    def __init__(self): self.camera = open_camera("synthetic:?height_px=48&width_px=64")
    def __getattr__(self, name): return getattr(self.camera, name)
    def interrupt(self): print("child" if os.getpid() != parent else "parent", flush=True)

parent = os.getpid()
labels = stream(model=sys.argv[1], camera=Told()).__enter__()
child = os.fork()
if child:
    assert os.waitpid(child, 0)[1] == 0
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_the_end_of_a_forked_child_leaves_the_parents_streams_alone(make_model):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKED, str(make_model()[0])], capture_output=True, text=True,
        timeout=110, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert (done.returncode, set(done.stdout.split()), done.stderr) == (0, {"parent"}, "")


def test_a_recogniser_serves_one_open_stream(make_model):
    with Recognizer.load(make_model()[0]) as recognizer:
        first, second = (LabelStream(recognizer, HandCamera(), StreamOptions()) for _ in range(2))
        with first:
            with pytest.raises(ConfigError, match="another open stream uses") as caught:
                second.__enter__()
            assert "load a recogniser for each" in caught.value.fix
        with second, pytest.raises(ConfigError):
            first.__enter__()
        with first:
            pass
