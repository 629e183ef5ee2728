"""A better engine beside a stream: built in another process, loaded in a thread, taken between two frames."""

from __future__ import annotations

import os
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import kd_edge
from kd_edge.engines import Choice, Ladder
from kd_edge.errors import ArtifactError, EngineError
from kd_edge.runtime import Recognizer, upgrade
from kd_edge.runtime.cameras.config import SharedConfig
from kd_edge.runtime.options import StreamOptions
from kd_edge.runtime.scheduling import scheduled
from kd_edge.runtime.serving import Serving
from kd_edge.runtime.stream import LabelStream
from kd_edge.runtime.upgrade import NICENESS, Upgrade, build_command
from kd_edge.types import LabelState, Prediction
from tests.waiting import wait_for

from .conftest import HandCamera


def python(script: str) -> list[str]:
    return [sys.executable, "-c", script]


@pytest.fixture
def load(make_model):
    path = make_model()[0]
    return lambda: Recognizer.load(path)


def test_it_is_the_caller_s_once_when_it_is_ready(load, tmp_path) -> None:
    told = tmp_path / "nice"
    script = f"import os, time; time.sleep(0.2); open({str(told)!r}, 'w').write(str(os.nice(0)))"
    building = Upgrade("tensorrt", python(script), load)
    wait_for(lambda: building._loaded is not None)
    assert told.read_text() == str(min(os.nice(0) + NICENESS, 19))  # no process is nicer than that
    loaded = building.poll()
    assert loaded is not None
    assert (building.poll(), building.fault) == (None, "")
    building.close()
    loaded._check_open()  # what was taken is not closed
    loaded.close()


def test_nothing_of_it_is_left_where_nobody_takes_it(load) -> None:
    closed = []

    def keeping() -> Recognizer:
        closed.append(load())
        return closed[0]

    building = Upgrade("tensorrt", python(""), keeping)
    wait_for(lambda: building._loaded is not None)
    building.close()
    assert closed[0]._closed
    assert building.poll() is None


def test_it_is_closed_where_the_one_that_was_to_take_it_is_closed(make_model, load) -> None:
    loaded = load()
    building = Upgrade("tensorrt", python(""), lambda: loaded)
    wait_for(lambda: building._loaded is not None)
    serving = Serving(make_model()[0], StreamOptions(), SharedConfig.of([]), 1)
    serving._upgrade = building
    serving.recognizer.close()
    with pytest.raises(EngineError, match="the recogniser is closed"):
        serving.take_upgrade()
    assert loaded._closed
    building.close()
    serving.close()


@pytest.mark.parametrize(
    ("script", "fault"),
    [
        ("import sys; print('no GPU number 0'); sys.exit(2)", "its build failed: no GPU number 0"),
        ("import sys; sys.exit(3)", "its build failed: exit code 3"),
        ("import os; os.kill(os.getpid(), 9)", "its build failed: exit code -9"),
        ("print('x' * 100_000 + '\\nlast'); raise SystemExit(1)", "its build failed: last"),
    ],
)
def test_a_build_that_fails_says_why(load, script: str, fault: str) -> None:
    building = Upgrade("tensorrt", python(script), load)
    wait_for(lambda: building.fault)
    assert building.fault == fault
    assert building.poll() is None
    building.close()


def test_a_plan_that_fails_its_self_test_is_not_taken() -> None:
    def fails() -> Recognizer:
        raise ArtifactError("the self-test on tensorrt failed: logits differ", "others", "none")

    building = Upgrade("tensorrt", python(""), fails)
    wait_for(lambda: building.fault)
    assert building.fault == "the self-test on tensorrt failed: logits differ"
    building.close()


def test_a_program_that_is_not_there_is_told(load) -> None:
    building = Upgrade("tensorrt", ["/nowhere/python"], load)
    assert "No such file" in building.fault
    building.close()


def test_a_build_that_hangs_is_ended(load, monkeypatch) -> None:
    monkeypatch.setattr(upgrade, "BUILD_SECONDS", 0.2)
    building = Upgrade("tensorrt", python("import time; time.sleep(1000)"), load)
    wait_for(lambda: building.fault)
    assert "has not ended after" in building.fault
    assert building._child.poll() is not None
    building.close()


def test_leaving_ends_the_build(load) -> None:
    building = Upgrade("tensorrt", python("import time; time.sleep(1000)"), load)
    building.close()
    assert building._child.poll() is not None
    assert not building._thread.is_alive()


def test_the_command_names_engine_and_file() -> None:
    file = str(Path("a.onnx").resolve())  # it runs in another folder
    assert build_command("tensorrt", "a.onnx")[1:] == ["-m", "kd_edge", "export", file, "--tensorrt"]


def test_it_is_no_real_time_process_on_the_streams_cores(load, tmp_path) -> None:
    told = tmp_path / "told"
    script = (
        "import os, time; time.sleep(0.3)\n"
        "told = (os.sched_getscheduler(0), len(os.sched_getaffinity(0)), os.getcwd())\n"
        f"open({str(told)!r}, 'w').write(' '.join(map(str, told)))"
    )
    with scheduled([0], None):
        building = Upgrade("tensorrt", python(script), load)
        wait_for(lambda: building._loaded is not None)
    policy, cores, folder = told.read_text().split()
    assert (int(policy), int(cores)) == (os.SCHED_OTHER, len(os.sched_getaffinity(0)))
    assert folder == str(Path(kd_edge.__file__).parents[1])  # not the robot's, whose files could be imported
    building.close()


def test_whatever_loading_raises_is_a_fault() -> None:
    def fails() -> Recognizer:
        raise RuntimeError("a library's own")

    building = Upgrade("tensorrt", python(""), fails)
    wait_for(lambda: building.fault)
    assert building.fault == "RuntimeError: a library's own"
    building.close()


class Building:
    """Stands in for an upgrade; a test makes it ready."""

    def __init__(self, made: list[Building], engine, command, load) -> None:
        self.engine, self.command, self.load, self.fault, self.ready, self.closed = engine, command, load, "", None, 0
        made.append(self)

    def poll(self) -> Recognizer | None:
        ready, self.ready = self.ready, None
        return ready

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def building(monkeypatch) -> list[Building]:
    pytest.importorskip("openvino")
    made: list[Building] = []
    monkeypatch.setattr(upgrade, "Upgrade", partial(Building, made))
    monkeypatch.setattr(Ladder, "awaited", lambda self: "openvino")
    first = Choice("onnxruntime", "engine onnxruntime", {}, {}, kept=False)
    monkeypatch.setattr(sys.modules["kd_edge.engines.ladder"], "choose", lambda *_, **__: first)
    return made


def labelled(labels: LabelStream, camera: HandCamera, image: np.ndarray) -> Prediction:
    """The prediction of one frame, whatever ``stale`` ones come before it."""
    camera.give(image, time.monotonic_ns())
    return next(p for p in labels if p.state is not LabelState.STALE)


def test_a_stream_goes_on_with_it_and_keeps_its_window(make_model, noise, building, caplog) -> None:
    camera, path = HandCamera(), make_model()[0]
    with LabelStream(path, camera, StreamOptions(engine="auto")) as labels:
        engines = []
        for k, image in enumerate(noise(12)):
            if k == 6:
                building[0].ready = building[0].load()
            prediction = labelled(labels, camera, image)
            assert prediction.frame_id == k
            engines.append(labels.recognizer.engine.name.split()[0])
        assert engines == ["onnxruntime"] * 6 + ["openvino"] * 6
        assert labels.recognizer.degraded_reason == ""
    assert building[0].closed == 1
    said = [record.message for record in caplog.records]
    assert any("serves while openvino is built beside it" in line for line in said)
    assert any("openvino" in line and "goes on in the place of onnxruntime" in line for line in said)


def test_a_stream_says_why_there_is_none_and_goes_on(make_model, noise, building, caplog) -> None:
    camera, path = HandCamera(), make_model()[0]
    with LabelStream(path, camera, StreamOptions(engine="auto")) as labels:
        building[0].fault = "its build failed: no memory"
        for k, image in enumerate(noise(3)):
            assert labelled(labels, camera, image).frame_id == k
    assert [record.message for record in caplog.records].count(
        f"engine {labels.recognizer.engine.name} goes on: no openvino: its build failed: no memory"
    ) == 1


def test_a_recording_and_an_engine_that_was_asked_for_are_left_as_they_are(make_model, building, tmp_path) -> None:
    path = make_model()[0]
    for camera, options in (
        (HandCamera(), StreamOptions(engine="onnxruntime")),
        ("synthetic:?height_px=48&width_px=64&realtime=false&frames=3", StreamOptions(engine="auto")),
    ):
        with LabelStream(path, camera, options):
            pass
    with (
        Recognizer.load(path, engine="auto") as loaded,
        LabelStream(loaded, HandCamera(), StreamOptions(engine="auto")),
    ):
        pass
    assert building == []
