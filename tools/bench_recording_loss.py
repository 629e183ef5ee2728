#!/usr/bin/env python3
"""What `kd-edge record` keeps, by the clock: two cameras of 640x480 at 30 Hz, and a recorder that is killed.

    python tools/bench_recording_loss.py [--seconds 30] [--kills 3] [--rgb] [--out DIR]

The cameras are generated figures, rendered by the same process; --rgb makes the second one colour. A frame is missing
where the camera's stamps are further apart than its period: "dropped" ones found no room in the recorder, the others
were never rendered, because the processor was busy. A killed recorder's loss is the time from its last frame that the
next session keeps to the kill. Prints Markdown; exit code 1 where the recorder dropped a frame or lost a second.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

FPS = 30


def command(out: Path, *options: str, rgb: bool) -> list[str]:
    size = "width_px=640&height_px=480"
    cameras = [f"ir0=synthetic:?seed=1&{size}", f"cam1=synthetic:?seed=2&modality={'rgb' if rgb else 'nir'}&{size}"]
    chosen = [word for camera in cameras for word in ("--camera", camera)]
    return [sys.executable, "-m", "kd_edge", "record", *chosen, "--out", str(out), *options]


def stamps_of(out: Path, camera: str) -> np.ndarray:
    """Moments of capture in the order of the clips, monotonic ns."""
    files = sorted((out / "clips").glob(f"*_{camera}.mkv.stamps"))
    return np.array([int(line) for file in files for line in file.read_text().split()[1:]])


def recorded(out: Path, seconds: float, rgb: bool) -> int:
    """Print a row for each camera; how many frames the recorder dropped."""
    began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    options = ("--duration", str(seconds), "--json")
    done = subprocess.run(command(out, *options, rgb=rgb), stdout=subprocess.PIPE, check=True)
    took, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    cores = (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / took
    summary = json.loads(done.stdout)
    print("| camera | s | frames | dropped | not rendered | largest gap, ms | MB |\n|---|---|---|---|---|---|---|")
    for name, dropped in summary["dropped"].items():
        stamps = stamps_of(out, name)
        missing = round((stamps[-1] - stamps[0]) / 1e9 * FPS) + 1 - len(stamps)
        gap_ms = np.diff(stamps).max() / 1e6
        size = sum(file.stat().st_size for file in (out / "clips").glob(f"*_{name}.mkv")) / 1e6
        span = (stamps[-1] - stamps[0]) / 1e9
        print(f"| {name} | {span:.1f} | {len(stamps)} | {dropped} | {missing - dropped} | {gap_ms:.0f} | {size:.0f} |")
    print(f"\n{cores:.2f} cores, start and rendering included; load of the machine {os.getloadavg()[0]:.1f}\n")
    return sum(summary["dropped"].values())


def killed(out: Path, seconds: float, rgb: bool) -> float:
    """How many seconds before its kill a recorder's last kept frame was."""
    process = subprocess.Popen(command(out, rgb=rgb), stderr=subprocess.DEVNULL)
    stamps = out / "clips/00001_ir0.mkv.stamps"
    while not stamps.exists():
        time.sleep(0.01)
    time.sleep(seconds)
    killed_ns = time.monotonic_ns()  # the clock of the stamps
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    subprocess.run(
        command(out, "--seconds", "0.5", rgb=rgb), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True
    )
    kept = min(int(f.read_text().split()[-1]) for f in (out / "clips").glob("00001_*.stamps"))
    return (killed_ns - kept) / 1e9


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--rgb", action="store_true")
    parser.add_argument("--out", type=Path, help="where to record; default a temporary folder")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.out) as folder:
        dropped = recorded(Path(folder) / "kept", given.seconds, given.rgb)
        losses = [killed(Path(folder) / f"killed{n}", 3.0 + 0.37 * n, given.rgb) for n in range(given.kills)]
    if losses:
        print(f"killed {len(losses)} times: {', '.join(f'{1e3 * loss:.0f}' for loss in losses)} ms lost")
    return int(dropped > 0 or max(losses, default=0.0) > 1.0)


if __name__ == "__main__":
    sys.exit(main())
