"""A recorder that is killed, for real: what it had written is in the manifest after the next start."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from kd_edge.data.readers.video import read_video
from tests.waiting import PATIENCE_SECONDS

RECORD = (sys.executable, "-m", "kd_edge", "record", "--camera", "ir0=synthetic:?seed=3&fps=60", "--keep-free-gb", "0")


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def test_a_killed_recorder_loses_less_than_a_second(tmp_path: Path) -> None:
    out = tmp_path / "out"
    stamps = out / "clips/00001_ir0.mkv.stamps"
    process = subprocess.Popen([*RECORD, "--out", str(out)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while lines(stamps) < 61:
        assert process.poll() is None, process.stderr.read() if process.stderr else b""
        assert time.monotonic() < deadline
        time.sleep(0.01)
    seen = lines(stamps) - 1
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert (out / ".record/00001.jsonl").exists()
    written = [int(s) for s in stamps.read_bytes().split(b"\n")[1:-1]]

    done = subprocess.run([*RECORD, "--out", str(out), "--seconds", "0.5"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "recovered from an interrupted session: 00001" in done.stderr
    with (out / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["id"], row["ir0"]) for row in rows] == [(f"0000{n}", f"clips/0000{n}_ir0.mkv") for n in (1, 2)]
    assert list((out / ".record").glob("*.jsonl")) == []
    clip = read_video(out / rows[0]["ir0"], gray=True, whole=True)
    assert len(clip) >= seen - 1  # the frame that was being written
    np.testing.assert_array_equal(clip.stamps_ns, np.array(written[: len(clip)]) - written[0])


@pytest.mark.slow
def test_a_disk_that_fills_keeps_what_is_there_and_ends_with_one_line(tmp_path: Path) -> None:
    limited = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000));"
        "sys.argv = ['kd-edge', *sys.argv[1:]]; from kd_edge.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", limited, *RECORD[3:], "--out", str(tmp_path / "out")],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_SECONDS,
    )
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.strip().splitlines()[-1] == "ended early: the disk: File too large"
    with (tmp_path / "out/manifest.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    video = tmp_path / "out" / row["ir0"]
    assert len(read_video(video, gray=True, whole=True)) > 10
    assert 300_000 < video.stat().st_size <= 400_000
