#!/usr/bin/env python3
"""How fast the one reader of videos decodes, beside OpenCV: H.264, 640x480, one thread, in turns.

    python tools/bench_decoding.py [--file VIDEO] [--frames 300] [--rounds 7]

Each round decodes the file by OpenCV (``cv2.VideoCapture`` with one thread, then B, G, R to R, G, B or to grey) and by
the reader that training and ``replay:`` share, one after the other. Speed is frames per second of processor time, which
other programs disturb less than the clock. Prints a Markdown table; exit code 1 where the reader is slower than 0.9
times OpenCV.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import av
import cv2
import numpy as np

from kd_edge.data.readers import container
from kd_edge.data.readers.video import decoder_key, frames_of

BOUND = 0.9


def made(path: Path, frames: int) -> Path:
    """A textured scene that moves, with noise: about 1 Mbit/s, as a camera's encoder gives."""
    rng = np.random.default_rng(0)
    ground = rng.integers(0, 256, (60, 80, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=30, options={"preset": "medium", "crf": "23"})
        stream.width, stream.height, stream.pix_fmt = 640, 480, "yuv420p"
        for k in range(frames):
            image = np.roll(ground, 3 * k, axis=1).astype(np.int16)
            image[100 + k % 200 : 220 + k % 200, 200:300] = (k % 255, 80, 200)
            noisy = np.clip(image + rng.integers(-12, 13, (480, 640, 1)), 0, 255).astype(np.uint8)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(noisy, format="rgb24")))
        file.mux(stream.encode())
    return path


def by_opencv(path: Path, grey: bool) -> int:
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    count = 0
    while True:
        is_there, image = capture.read()
        if not is_there:
            capture.release()
            return count
        cv2.cvtColor(image, cv2.COLOR_BGR2GRAY if grey else cv2.COLOR_BGR2RGB)
        count += 1


def by_reader(path: Path, grey: bool) -> int:
    return sum(1 for _ in frames_of(path, 1 if grey else 3))


def speed(decode: Callable[[Path, bool], int], path: Path, grey: bool) -> tuple[float, float]:
    """Frames per second of processor time, and by the clock."""
    began, began_cpu = time.perf_counter(), time.process_time()
    frames = decode(path, grey)
    return frames / (time.process_time() - began_cpu), frames / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--file", type=Path)
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    cv2.setNumThreads(1)
    container.THREADS = 1
    slowest = np.inf
    with tempfile.TemporaryDirectory() as folder:
        path = given.file or made(Path(folder) / "made.mp4", given.frames)
        count = by_reader(path, grey=True)
        size = f"{path.stat().st_size / 1e6:.1f} MB"
        print(f"{path.name}, {count} frames, {size}, {given.rounds} rounds in turns, one thread; {decoder_key()}\n")
        print(
            "| frames as | OpenCV, frames/s | the reader, frames/s | ratio (median of rounds; least to most) "
            "| by the clock |"
        )
        print("|---|---|---|---|---|")
        for name, grey in (("R, G, B", False), ("grey", True)):
            rounds = [(speed(by_opencv, path, grey), speed(by_reader, path, grey)) for _ in range(given.rounds)]
            opencv, reader = np.array(rounds).transpose(1, 0, 2)
            ratios, clock = (reader / opencv).T
            print(
                f"| {name} | {np.median(opencv[:, 0]):.0f} | {np.median(reader[:, 0]):.0f} "
                f"| {np.median(ratios):.2f} ({ratios.min():.2f} to {ratios.max():.2f}) | {np.median(clock):.2f} |"
            )
            slowest = min(slowest, float(np.median(ratios)))
    raise SystemExit(slowest < BOUND)


if __name__ == "__main__":
    main()
