#!/usr/bin/env python3
"""What recording costs the path of a label: two cameras at 30 Hz, 640x480, with and without it, in turns.

    python tools/bench_recording_cost.py [--model ARTIFACT] [--cameras 2] [--seconds 8] [--rounds 6]

Frames are pushed at their moments with one thread, one round recorded, the next one not. The time of a label is that
of its push and of handing frame and label to the recorder; its processor time, which other programs disturb less, is
that of its thread alone. Prints a Markdown table; exit code 1 above 3 %.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from kd_edge.artifact import BUNDLED
from kd_edge.runtime import Recognizer
from kd_edge.runtime.recording import Recorder
from kd_edge.types import Frame

PERIOD_NS = 1_000_000_000 // 30
BOUND = 1.03


def labelled(
    recognizer: Recognizer, pictures: np.ndarray, cameras: int, seconds: float, recorder: Recorder | None
) -> np.ndarray:
    """Milliseconds of each label in one round, (N, 2): by the clock, and of its thread's processor time."""
    names = [f"ir{k}" for k in range(cameras)]
    start_ns, times = time.monotonic_ns(), []
    for k in range(round(seconds * 30)):
        moment_ns = start_ns + k * PERIOD_NS
        time.sleep(max(0.0, (moment_ns - time.monotonic_ns()) / 1e9))
        for name in names:
            image = pictures[(k * cameras + names.index(name)) % len(pictures)].copy()  # as a camera gives it
            frame = Frame(image, moment_ns, k, name)
            began_ns, began_cpu_ns = time.perf_counter_ns(), time.thread_time_ns()
            prediction = recognizer.push(image, moment_ns, name, frame_id=k)
            if recorder is not None:
                recorder.frame(name, frame)
                if prediction is not None:
                    recorder.label(prediction)
            now_ns, now_cpu_ns = time.perf_counter_ns(), time.thread_time_ns()
            times.append(((now_ns - began_ns) / 1e6, (now_cpu_ns - began_cpu_ns) / 1e6))
    for name in names:
        recognizer.forget(name)
    return np.array(times)


def recorded(
    recognizer: Recognizer, pictures: np.ndarray, cameras: int, seconds: float, folder: Path, number: int
) -> tuple[np.ndarray, float, float, int]:
    """The same, recorded; with the recorder's share of a core and its bytes a second."""
    recorder = Recorder(folder / f"{number}.mcap", {})
    recorder.open()
    for k in range(cameras):
        recorder.add_camera(f"ir{k}", "nir", None)
    recorder.start()
    (writer,) = [t for t in threading.enumerate() if t.name == "kd-edge recorder"]
    assert writer.ident is not None
    clock = time.pthread_getcpuclockid(writer.ident)
    times = labelled(recognizer, pictures, cameras, seconds, recorder)
    share = time.clock_gettime(clock) / seconds
    recorder.close()
    assert recorder.fault is None, recorder.fault
    size = recorder.path.stat().st_size
    recorder.path.unlink()
    return times, share, size / seconds, recorder.counters.lost_frames


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=BUNDLED)
    parser.add_argument("--cameras", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--rounds", type=int, default=6)
    given = parser.parse_args()
    recognizer = Recognizer.load(given.model, threads=1)
    dtype, rng = recognizer.manifest.dtype, np.random.default_rng(0)
    pictures = rng.integers(0, 256 if dtype == "uint8" else 4000, (60, 480, 640)).astype(dtype)
    plain, kept, shares, rates, lost = [], [], [], [], 0
    with tempfile.TemporaryDirectory() as folder:
        labelled(recognizer, pictures, given.cameras, 2.0, None)
        for number in range(given.rounds):
            plain.append(labelled(recognizer, pictures, given.cameras, given.seconds, None))
            times, share, rate, missing = recorded(
                recognizer, pictures, given.cameras, given.seconds, Path(folder), number
            )
            kept.append(times)
            shares.append(share)
            rates.append(rate)
            lost += missing
    ratios = np.array([np.median(b, axis=0) / np.median(a, axis=0) for a, b in zip(plain, kept, strict=True)])
    print(f"{given.cameras} cameras, 30 Hz, 640x480 {dtype}, {given.rounds} rounds of {given.seconds:g} s each way\n")
    print("| | median, ms | 95 %, ms | processor, median ms | core of the recorder | MB/s | frames lost |")
    print("|---|---|---|---|---|---|---|")
    for name, times, rest in (
        ("not recorded", np.concatenate(plain), "| | |"),
        (
            "recorded",
            np.concatenate(kept),
            f"{statistics.fmean(shares):.1%} | {statistics.fmean(rates) / 1e6:.1f} | {lost} |",
        ),
    ):
        wall, cpu = times.T
        print(f"| {name} | {np.median(wall):.3f} | {np.quantile(wall, 0.95):.3f} | {np.median(cpu):.3f} | {rest}")
    print()
    for what, each in zip(("the clock", "processor time"), ratios.T, strict=True):
        print(
            f"recorded / not, by {what}: {np.median(each):.3f} (median of rounds; {each.min():.3f} to {each.max():.3f})"
        )
    raise SystemExit(float(np.median(ratios[:, 0])) > BOUND)


if __name__ == "__main__":
    main()
