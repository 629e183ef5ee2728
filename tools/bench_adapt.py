#!/usr/bin/env python3
"""kd-edge adapt by the clock: 20 clips of a new class on one core of a machine where torch and onnx cannot be imported.

    python tools/bench_adapt.py [--clips 20]

Clips of somebody who waves a striped cloth (640x480 infrared videos, FFV1, 2.8 s at 30 Hz) are added to the student
that ships (ResNet10-thin, 96 pixels), alone and with two clips of each class it knows to keep, and to an untrained
ResNet18 of 224 pixels, which knows its classes by the kept clips alone. The command is run as a user types it, in a
process of its own that is bound to one core. Figures are Markdown on standard output, what the commands print is on
standard error. Exit code 1 where 20 clips, kept ones counted, take more than 30 s of the processor.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import av
import numpy as np

from kd_edge.artifact import BUNDLED, load
from kd_edge.data.synthetic.dataset import Synthetic
from kd_edge.export.reference import make_reference_artifact

SECONDS = 30.0
KNOWN, FPS, SIZE = 2, 30, (480, 640)
BARE = """
import os, sys
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
for name in ("torch", "torchvision", "onnx", "onnxscript", "scipy", "sklearn"):
    sys.modules[name] = None  # an import fails
from kd_edge.cli import main
sys.argv = ["kd-edge", *sys.argv[1:]]
main()
"""


def write(path: Path, images: np.ndarray) -> None:
    """(T, H, W) uint8 as a video."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=FPS)
        stream.height, stream.width, stream.pix_fmt = *images.shape[1:3], "gray"
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "gray")))
        container.mux(stream.encode())


def waving(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    moments = np.arange(round(2.8 * FPS)) / FPS
    shift = 60 * np.sin(2 * np.pi * (1.2 + 0.4 * rng.random()) * moments + 6 * rng.random())
    y, x = np.mgrid[0 : SIZE[0], 0 : SIZE[1]]
    cloth = np.exp(-(((x[None] - 320 - shift[:, None, None]) / 120) ** 2 + ((y - 240) / 120) ** 2))
    stripes = 70 + 120 * cloth * (0.5 + 0.5 * np.sin(x / 12)) + rng.normal(0, 3, SIZE)
    images: np.ndarray = np.clip(stripes, 0, 255).astype(np.uint8)
    return images


def known(folder: Path, labels: list[str]) -> None:
    """Clips of the generated actions, in folders of classes of these names."""
    dataset = Synthetic(clips_per_class=KNOWN, subjects=KNOWN, height_px=SIZE[0], width_px=SIZE[1], seed=3)
    for sample in dataset.samples:
        write(folder / labels[sample.label] / f"subject{sample.subject}_ir.mkv", dataset.open(sample, "nir").frames)


def adapt(words: list[str], folder: Path) -> tuple[float, float]:
    """Seconds that the command takes, by the clock and of the processor, which other programs disturb less."""
    print(f"$ kd-edge adapt {' '.join(words)}", file=sys.stderr, flush=True)
    start, before = time.perf_counter(), os.times()
    subprocess.run([sys.executable, "-c", BARE, "adapt", *words], cwd=folder, check=True, stdout=sys.stderr)
    after = os.times()
    worked = after.children_user - before.children_user + after.children_system - before.children_system
    return time.perf_counter() - start, worked


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=20)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for k in range(given.clips):
            write(folder / f"clips/subject{k % 5}_{k // 5:02d}_ir.mkv", waving(k))
        known(folder / "bundled", list(load(BUNDLED).manifest.labels))
        known(folder / "large", [f"class {k}" for k in range(10)])
        make_reference_artifact("resnet18", 224, folder / "resnet18.onnx", motion=True)
        kept = 10 * KNOWN
        runs = [
            ("ResNet10-thin, 96 px, the one that ships", 0, [str(BUNDLED)]),
            ("the same", kept, [str(BUNDLED), "--keep", "bundled"]),
            ("ResNet18, 224 px, untrained", kept, ["resnet18.onnx", "--keep", "large", "--force"]),
        ]
        print(f"{given.clips} clips of 640x480 and 2.8 s, one core, without torch and onnx\n")
        print("| student | clips kept | s | processor, s |\n|---|---|---|---|")
        slowest = 0.0
        for name, count, words in runs:
            took = adapt([*words, "--add", "wave=clips", "--out", "robot.onnx"], folder)
            slowest = max(slowest, took[1] * 20 / (given.clips + count))
            print(f"| {name} | {count} | {took[0]:.1f} | {took[1]:.1f} |", flush=True)
        print(f"\nload of the machine over the last minute: {os.getloadavg()[0]:.1f}")
    raise SystemExit(slowest > SECONDS)


if __name__ == "__main__":
    main()
