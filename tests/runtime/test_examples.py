"""The examples run as a user runs them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "runtime"


@pytest.mark.parametrize("name", sorted(p.name for p in (FOLDER / "examples").glob("*.py")))
@pytest.mark.parametrize(  # with this seed the tiny model does not say "throw" all the time, for which a robot halts
    "camera", ["synthetic:?height_px=48&width_px=64&seed=1", "synthetic:?realtime=false&frames=60&seed=1"]
)
def test_example(make_model, tmp_path, name, camera):
    model, _ = make_model()
    done = subprocess.run(
        [sys.executable, FOLDER / "examples" / name, "--model", model, "--camera", camera, "--seconds", "2.5"],
        capture_output=True, text=True, timeout=30, cwd=tmp_path, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].split()[0] in ("halt", "warming", "stale")
    if "realtime=false" not in camera or name != "control_loop.py":
        assert any(line.split()[0] in ("drive", "ok", "degraded") for line in lines), done.stdout


def test_readme_names_every_file():
    text = (FOLDER / "README.md").read_text()
    files = [*FOLDER.glob("cameras/*.toml"), *FOLDER.glob("examples/*.py")]
    assert [f for f in files if f"`{f.relative_to(FOLDER)}`" not in text] == []
