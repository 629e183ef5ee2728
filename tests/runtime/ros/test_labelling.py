"""The thread in which a node's stream runs, without ROS."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kd_edge.errors import CameraError, KdEdgeError, UnexpectedError
from kd_edge.runtime import Recognizer
from kd_edge.runtime.options import StreamOptions
from kd_edge.runtime.ros.labelling import Labelling
from kd_edge.runtime.stream import LabelStream
from kd_edge.types import Prediction
from tests.runtime.conftest import HandCamera
from tests.waiting import wait_for


class Watched:
    """A labelling of cameras that are fed by hand."""

    def __init__(self, model: Path) -> None:
        self.recognizer = Recognizer.load(model, valid_ms=60_000)
        self.cameras: list[HandCamera] = []
        self.told: list[Prediction] = []
        self.over: list[KdEdgeError | None] = []
        self.again = False
        self.fault: Exception | None = None
        self.labelling = Labelling(self.make, self.tell, self.begin_again, self.over.append)

    def make(self) -> LabelStream:
        camera = HandCamera()
        self.cameras.append(camera)
        return LabelStream(self.recognizer, camera, StreamOptions())

    def tell(self, prediction: Prediction) -> None:
        if self.fault is not None:
            raise self.fault
        self.told.append(prediction)

    def begin_again(self) -> bool:
        again, self.again = self.again, False
        return again

    def give(self, image: np.ndarray | None = None) -> None:
        camera = self.cameras[-1]
        camera.give(np.zeros((24, 32), np.uint8) if image is None else image, time.monotonic_ns())


@pytest.fixture
def watched(make_model: Callable[..., tuple[Path, Any]]) -> Iterator[Watched]:
    watched = Watched(make_model()[0])
    yield watched
    watched.labelling.stop()
    watched.recognizer.close()


def threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith(("kd-edge labels", "kd-edge capture"))]


def test_it_labels_until_it_is_stopped_and_that_is_no_end_to_be_told(watched: Watched) -> None:
    watched.labelling.start()
    assert watched.labelling.names == ("hand",)
    watched.give()
    wait_for(lambda: watched.told)
    assert watched.labelling.statistics.pushed == 1
    frame = watched.labelling.frame_of("hand")
    assert frame is not None
    assert frame.frame_id == 0
    assert watched.labelling.frame_of("another") is None
    assert watched.labelling.stop()
    assert (watched.over, threads(), watched.cameras[0].open_now) == ([], [], False)
    assert watched.labelling.stop()  # a second one does nothing


def test_it_begins_again_with_new_cameras_where_that_is_asked_for(watched: Watched) -> None:
    watched.labelling.start()
    watched.again = True
    watched.give()
    wait_for(lambda: len(watched.cameras) == 2 and watched.cameras[1].open_now)
    assert not watched.cameras[0].open_now
    watched.give()
    wait_for(lambda: len(watched.told) == 2)
    assert [p.frame_id for p in watched.told] == [0, 0]


def test_what_ends_it_is_told_once(watched: Watched) -> None:
    watched.labelling.start()
    watched.give(np.zeros((24, 32), np.uint16))  # nothing for this model
    wait_for(lambda: watched.over)
    (error,) = watched.over
    assert isinstance(error, CameraError)
    wait_for(lambda: not threads())


def test_what_nobody_foresaw_becomes_one_line_with_its_traceback_in_the_log(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    watched.labelling.start()
    watched.fault = ZeroDivisionError("nobody foresaw that")
    watched.give()
    wait_for(lambda: watched.over)
    (error,) = watched.over
    assert isinstance(error, UnexpectedError)
    assert "nobody foresaw that" in error.found
    assert error.__cause__ is watched.fault
    (trace,) = (record for record in caplog.records if record.exc_info)
    assert (trace.levelname, trace.exc_info and trace.exc_info[1]) == ("ERROR", watched.fault)
    wait_for(lambda: not threads())


def test_a_camera_that_cannot_be_opened_again_ends_it(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    watched.labelling.start()

    def gone(camera: HandCamera) -> None:
        raise CameraError("camera hand is gone", "one that is there", "plug it in")

    monkeypatch.setattr(HandCamera, "open", gone)
    watched.again = True
    watched.give()
    wait_for(lambda: watched.over)
    assert str(watched.over[0]) == "camera hand is gone. Expected one that is there. Fix: plug it in"


def test_frames_that_are_too_old_are_skipped_from_now_on(watched: Watched) -> None:
    watched.labelling.start()
    watched.labelling.set_max_age_ms(1.0)
    watched.cameras[0].give(np.zeros((24, 32), np.uint8), time.monotonic_ns() - 500_000_000)
    wait_for(lambda: watched.labelling.statistics.skipped == 1)
    watched.labelling.set_max_age_ms(None)
    watched.give()
    wait_for(lambda: watched.told)
    assert watched.labelling.statistics.pushed == 1


def test_a_stop_while_another_stream_is_begun_is_meant_for_it_too(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched.labelling.start()
    stopped: list[bool] = []
    stopping = threading.Thread(target=lambda: stopped.append(watched.labelling.stop()), name="kd-edge test stop")

    def open_slowly(camera: HandCamera) -> None:
        stopping.start()
        wait_for(watched.labelling._stopping.is_set)

    monkeypatch.setattr(HandCamera, "open", open_slowly)
    watched.again = True
    watched.give()
    wait_for(lambda: stopped)
    stopping.join()
    assert (stopped, watched.over, threads()) == ([True], [], [])
