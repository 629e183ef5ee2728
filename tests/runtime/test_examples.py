"""The examples run as a user runs them."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import importlib.util
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from kd_edge.artifact import default_model
from kd_edge.errors import CameraError
from kd_edge.runtime import stream
from kd_edge.types import Frame, LabelState, Prediction
from tests.waiting import PATIENCE_SECONDS, wait_for

from .conftest import HandClock

FOLDER = Path(__file__).parents[2] / "runtime"


PATHS = os.pathsep.join([str(FOLDER / "examples"), *filter(None, [os.environ.get("PYTHONPATH")])])
NAMES = sorted(p.name for p in (FOLDER / "examples").glob("*.py"))
CAMERA = "synthetic:?height_px=48&width_px=64&seed=1"
"""With this seed the tiny model does not say "throw" all the time, for which a robot halts."""


def command(name, model, camera, seconds):
    return [sys.executable, str(FOLDER / "examples" / name), "--model", model, "--camera", camera, "--seconds", seconds]


def said(lines):
    """The first word of each line, without the heartbeat of the rest of the robot, which may come at any time."""
    return (word for word in (line.split()[0] for line in lines) if word != "...")


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_example_ends_with_the_recording(make_model, tmp_path, name):
    model, _ = make_model()
    done = subprocess.run(
        command(name, model, f"{CAMERA}&realtime=false&frames=60", "3600"),
        capture_output=True, text=True, timeout=110, cwd=tmp_path, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    words = list(said(done.stdout.splitlines()))
    assert words[0] in ("halt", "warming")
    # its stamps are its own: to a robot whose clock is another one its labels are old
    assert set(words) <= ({"halt"} if name == "control_loop.py" else {"warming", "ok", "degraded"})
    assert name == "control_loop.py" or "ok" in words


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_example_ends_after_so_many_seconds(make_model, tmp_path, name):
    model, _ = make_model()
    done = subprocess.run(
        command(name, model, CAMERA, "0.5"),
        capture_output=True, text=True, timeout=110, cwd=tmp_path, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1].startswith("halt" if name == "control_loop.py" else "... halt")


def _heeds_interrupts() -> None:
    """A shell has what it runs in the background ignore Ctrl-C, and whatever that starts, this test's examples too."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "number"), [*((n, signal.SIGTERM) for n in NAMES), (NAMES[0], signal.SIGINT)])
def test_example_labels_a_live_camera_and_halts_when_it_is_ended(make_model, tmp_path, name, number):
    """On a busy machine that may take a while: it goes on until it did."""
    model, _ = make_model()
    with subprocess.Popen(
        command(name, model, CAMERA, "3600"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1"}, preexec_fn=_heeds_interrupts,
    ) as process:  # fmt: skip
        words = []
        for word in said(process.stdout):
            words.append(word)
            if word in ("drive", "ok", "degraded"):
                break
        process.send_signal(number)
        rest = process.stdout.read().splitlines()
        assert process.stderr.read() == ""
    assert process.returncode == 0
    assert rest[-1].startswith("halt" if name == "control_loop.py" else "... halt")
    assert words[0] in ("halt", "warming", "stale")
    assert words[-1] in ("drive", "ok", "degraded")


def example(name):
    spec = importlib.util.spec_from_file_location(name, FOLDER / "examples" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Told:
    """A recogniser that is sure of what it is told, and knows how stale a stamp is."""

    valid_ns = 250_000_000

    def __init__(self, label="wave"):
        self.label = label

    def push(self, image, captured_ns, source, *, now_ns):
        state = LabelState.OK if self.label else LabelState.UNKNOWN
        return Prediction(
            source=source, label=self.label, probabilities=np.zeros(2, np.float32), state=state, frame_id=0,
            captured_ns=captured_ns, emitted_ns=now_ns, valid_until_ns=captured_ns + self.valid_ns,
        )  # fmt: skip


class Scripted:
    """A camera by hand: every read takes 50 ms and gives what is next: True a frame, False silence, or an exception."""

    ended = False

    def __init__(self, clock, script, recognizer, robot):
        self.clock, self.script, self.recognizer, self.robot = clock, list(script), recognizer, robot
        self.seen = []

    def read(self, timeout_seconds):
        self.seen.append(self.robot.driving)
        self.clock.advance(50)
        item = self.script.pop(0)
        if isinstance(item, BaseException):
            raise item
        if isinstance(item, str):
            self.recognizer.label = item or None
        return Frame(np.zeros((8, 8), np.uint8), self.clock.now_ns() - 5_000_000, 0, "x") if item is not False else None


def driven(script, seconds=1000):
    """Whether the robot drove before each read of a script, and in the end."""
    module, clock, recognizer = example("control_loop"), HandClock(), Told()
    robot = module.Robot()
    camera = Scripted(clock, [*script, KeyboardInterrupt()], recognizer, robot)
    with pytest.raises(KeyboardInterrupt):
        module.control(camera, recognizer, robot, seconds, clock.now_ns)
    assert not robot.driving
    return camera.seen


def test_the_control_loop_drives_only_after_it_was_calm():
    assert driven([True] * 20) == [False] * 11 + [True] * 10


def test_the_control_loop_halts_when_the_camera_dies():
    seen = driven([True] * 20 + [False] * 200)
    assert seen[15:25] == [True] * 10
    assert not any(seen[26:])  # the last label held for 250 ms after its frame


@pytest.mark.parametrize("label", ["throw", "drop", ""])
def test_the_control_loop_halts_at_once_and_does_not_stutter(label):
    seen = driven([True] * 20 + [label, "wave"] + [True] * 20)
    assert seen[20] is True
    assert seen[21:31] == [False] * 10
    assert seen[-1] is True


@pytest.mark.parametrize("error", [CameraError("gone", "a camera", "cable"), RuntimeError("driver"), MemoryError()])
def test_the_control_loop_leaves_the_robot_standing_whatever_is_raised(error):
    module, clock, recognizer = example("control_loop"), HandClock(), Told()
    robot = module.Robot()
    camera = Scripted(clock, [True] * 20 + [error], recognizer, robot)
    with pytest.raises(type(error)):
        module.control(camera, recognizer, robot, 1000, clock.now_ns)
    assert camera.seen[-1] is True
    assert not robot.driving


def test_the_deadman_halts_when_a_label_has_run_out_whatever_the_loop_does():
    module, clock, recognizer = example("control_loop"), HandClock(), Told()
    robot = module.Robot()
    captured_ns = clock.now_ns()
    robot.tick(clock.now_ns())
    for _ in range(12):  # calm for long enough
        captured_ns = clock.now_ns()
        robot.decide(recognizer.push(None, captured_ns, "x", now_ns=captured_ns), captured_ns)
        robot.tick(captured_ns)
        clock.advance(50)
    robot.tick(captured_ns + recognizer.valid_ns)
    assert robot.driving
    robot.tick(captured_ns + recognizer.valid_ns + 1)
    assert not robot.driving
    late_ns = captured_ns + recognizer.valid_ns + 2
    robot.decide(recognizer.push(None, late_ns, "x", now_ns=late_ns), late_ns)
    assert not robot.driving  # it must be calm anew


HANGS = """
import time
import control_loop

def hang(camera, recognizer, robot, seconds):
    robot.driving = True
    while robot.driving:
        time.sleep(0.01)

control_loop.control = hang
control_loop.main()
"""


@pytest.mark.slow
def test_the_deadman_watches_a_loop_that_hangs(make_model, tmp_path):
    model, _ = make_model()
    done = subprocess.run(
        [sys.executable, "-c", HANGS, "--model", model, "--camera", CAMERA], capture_output=True, text=True,
        timeout=110, cwd=tmp_path, env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": PATHS},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["halt (start)", "halt (the label ran out)"]


@pytest.mark.parametrize("error", [None, CameraError("gone", "a camera", "cable"), asyncio.CancelledError()])
def test_the_event_loop_ends_with_a_halt(capsys, error):
    module = example("asyncio_labels")
    latest = module.Latest()

    async def listening():
        latest.prediction = Told().push(None, 0, "x", now_ns=0)
        latest.prediction = dataclasses.replace(latest.prediction, valid_until_ns=2**62)
        await asyncio.sleep(0.15)
        if error is not None:
            raise error

    with pytest.raises(type(error)) if error else contextlib.nullcontext():
        asyncio.run(module.both(module.act(latest), listening(), 1000))
    assert capsys.readouterr().out.splitlines()[-2:] == ["... act on wave", "... halt"]


def test_the_event_loop_goes_on_while_a_stream_closes(monkeypatch):
    module = example("asyncio_labels")
    closing, went_on = threading.Event(), threading.Event()

    class Labels:
        def __enter__(self):
            return self

        def __next__(self):
            raise StopIteration

        def __exit__(self, *raised):
            closing.set()
            assert went_on.wait(60), "the event loop stood still"

    async def watch():
        while not closing.is_set():
            await asyncio.sleep(0)
        went_on.set()

    async def both():
        await asyncio.gather(watch(), module.listen("", "", module.Latest()))

    monkeypatch.setattr(module, "stream", lambda model, camera: Labels())
    asyncio.run(both())
    assert went_on.is_set()


def test_the_event_loop_acts_on_nothing_that_has_run_out():
    latest = example("asyncio_labels").Latest()
    assert latest.label(0) is None
    latest.prediction = Told().push(None, 1_000_000_000, "x", now_ns=1_000_000_000)
    assert latest.label(1_250_000_000) == "wave"
    assert latest.label(1_250_000_001) is None


@pytest.mark.parametrize("error", [CameraError("gone", "a camera", "cable"), RuntimeError("driver")])
def test_the_event_loop_acts_on_nothing_when_the_labels_end(monkeypatch, error):
    module = example("asyncio_labels")

    async def labels_of(model, camera):
        yield Told().push(None, 10**18, "x", now_ns=10**18)
        assert latest.label(10**18) == "wave"
        raise error

    monkeypatch.setattr(module, "labels_of", labels_of)
    latest = module.Latest()
    with pytest.raises(type(error)):
        asyncio.run(module.listen("", "", latest))
    assert latest.prediction is None


class Labels:
    """A stream by hand: gives what is put into it, raises an exception among that, ends when it is stopped."""

    def __init__(self, *given):
        self.given, self.stopped, self.closed = list(given), threading.Event(), False

    def __enter__(self):
        return self

    def __exit__(self, *raised):
        self.closed = True

    def __iter__(self):
        for each in self.given:
            if isinstance(each, BaseException):
                raise each
            yield each
        assert self.stopped.wait(PATIENCE_SECONDS)

    def stop(self):
        self.stopped.set()


def test_the_loop_beside_a_listener_sees_what_holds_and_leaves_cleanly(capsys):
    labels = Labels(Told().push(None, 10**9, "x", now_ns=10**9))
    listener = example("listener").Listener(labels)
    assert listener.label(10**9) is None
    with listener:
        wait_for(lambda: listener.label(10**9))
        assert listener.label(1_250_000_000) == "wave"
        assert listener.label(1_250_000_001) is None
        assert listener.listens
    assert (labels.closed, listener.listens, listener.label(10**9)) == (True, False, None)


@pytest.mark.parametrize("error", [CameraError("gone", "a camera", "cable"), RuntimeError("driver"), SystemExit(3)])
def test_what_ends_the_labels_is_raised_in_the_loop_beside_them(capsys, error):
    module = example("listener")
    labels = Labels(Told().push(None, 10**9, "x", now_ns=10**9), error)
    with pytest.raises(type(error)), module.Listener(labels) as listener:
        module.control(listener, 3600)
    assert labels.closed
    assert capsys.readouterr().out.splitlines()[-1] == "... halt"


def test_readme_names_every_file():
    text = (FOLDER / "README.md").read_text()
    files = [*FOLDER.glob("cameras/*.toml"), *FOLDER.glob("examples/*.py")]
    assert [f for f in files if f"`{f.relative_to(FOLDER)}`" not in text] == []


def printed_programs():
    """The Python blocks of the READMEs, as they are printed."""
    for path in (FOLDER.parent / "README.md", FOLDER / "README.md"):
        for k, block in enumerate(re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL)):
            yield pytest.param(block, id=f"{path.relative_to(FOLDER.parent)}-{k}")


@pytest.mark.parametrize("program", [*printed_programs()])
def test_the_readmes_programs_run_as_they_are_printed(monkeypatch, tmp_path, program):
    """Each stands alone; a stream of the generated figure renders no slower than the machine allows."""
    monkeypatch.chdir(tmp_path)  # no model lies here: the bundled one
    live = 'camera="synthetic:"'
    exec(program.replace(live, 'camera="synthetic:?realtime=false&frames=100"'), {"__name__": "readme"})


FITS = """
from kd_edge.runtime import stream

stream(model="student.onnx", camera=[MyCamera(), "ir0"])
"""


@pytest.mark.slow
def test_the_readmes_programs_and_the_examples_have_strict_types(tmp_path):
    """As a user checks them: without this repository's settings."""
    for k, program in enumerate(b.values[0] for b in printed_programs()):
        fits = FITS if "class MyCamera" in program else ""
        (tmp_path / f"printed_{k}.py").write_text(program + fits)
    files = [*tmp_path.glob("*.py"), *(FOLDER / "examples").glob("*.py")]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file=", f"--cache-dir={tmp_path}/cache", *map(str, files)],
        capture_output=True, text=True, timeout=290, cwd=tmp_path,
        env=os.environ | {"MYPYPATH": str(FOLDER.parent)},
    )  # fmt: skip
    assert done.stdout.startswith("Success: no issues found"), done.stdout


def test_the_readmes_own_camera_is_labelled():
    names = {"__name__": "readme"}
    (block,) = [b.values[0] for b in printed_programs() if "class MyCamera" in b.values[0]]
    exec(block, names)
    with stream(model=default_model(), camera=names["MyCamera"](), threads=1) as labels:
        predictions = [p for p, _ in zip((p for p in labels if p.frame_id >= 0), range(3), strict=False)]
    assert [p.source for p in predictions] == ["mine"] * 3
    assert {p.state for p in predictions} <= {LabelState.WARMING, LabelState.STALE}
