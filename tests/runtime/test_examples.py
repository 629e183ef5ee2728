"""The examples run as a user runs them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "runtime"


NAMES = sorted(p.name for p in (FOLDER / "examples").glob("*.py"))
CAMERA = "synthetic:?height_px=48&width_px=64&seed=1"
"""With this seed the tiny model does not say "throw" all the time, for which a robot halts."""


def command(name, model, camera, seconds):
    return [sys.executable, str(FOLDER / "examples" / name), "--model", model, "--camera", camera, "--seconds", seconds]


def said(lines):
    """The first word of each line, without the heartbeat of the rest of the robot, which may come at any time."""
    return (word for word in (line.split()[0] for line in lines) if word != "...")


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


@pytest.mark.parametrize("name", NAMES)
def test_example_ends_after_so_many_seconds(make_model, tmp_path, name):
    model, _ = make_model()
    done = subprocess.run(
        command(name, model, CAMERA, "0.5"),
        capture_output=True, text=True, timeout=110, cwd=tmp_path, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", NAMES)
def test_example_labels_a_live_camera(make_model, tmp_path, name):
    """On a busy machine that may take a while: it goes on until it did."""
    model, _ = make_model()
    with subprocess.Popen(
        command(name, model, CAMERA, "3600"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    ) as process:  # fmt: skip
        words = []
        for word in said(process.stdout):
            words.append(word)
            if word in ("drive", "ok", "degraded"):
                break
        process.terminate()
        assert process.stderr.read() == ""
    assert words[0] in ("halt", "warming", "stale")
    assert words[-1] in ("drive", "ok", "degraded")


def test_readme_names_every_file():
    text = (FOLDER / "README.md").read_text()
    files = [*FOLDER.glob("cameras/*.toml"), *FOLDER.glob("examples/*.py")]
    assert [f for f in files if f"`{f.relative_to(FOLDER)}`" not in text] == []
