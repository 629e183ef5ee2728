#!/usr/bin/env python3
"""One's own recordings, by the clock: a folder of 60 clips to a running label, and data init over thousands of files.

    python tools/bench_own.py train [--clips 60] [--rgb] [--keep DIR]
    python tools/bench_own.py init [--files 10000]

``train`` times kd-edge data init, train, export and run, each as a user types it; ``init`` kd-edge data init over so
many videos, H.264 of 640x480 among them. ``train`` writes clips of four generated actions by five people as infrared
videos (FFV1, 160x120, 30 Hz) into folders of classes; ``--rgb`` adds the colour camera, which then teaches. Figures are
Markdown on standard output, what the commands print is on standard error. Exit code 1 above five minutes, or 20 s.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import cast

import av
import numpy as np

from kd_edge.data.synthetic.dataset import Synthetic

ACTIONS, SUBJECTS = ("clap", "pick up", "sit down", "throw"), 5
MINUTES, SECONDS = 5.0, 20.0


def write(path: Path, images: np.ndarray, codec: str, fps: float = 30.0) -> None:
    """(T, H, W) or (T, H, W, 3) uint8 as a video."""
    path.parent.mkdir(parents=True, exist_ok=True)
    grey = images.ndim == 3
    with av.open(str(path), "w") as container:
        stream = cast("av.VideoStream", container.add_stream(codec, rate=round(fps)))
        stream.height, stream.width = images.shape[1:3]
        stream.pix_fmt = {"ffv1": "gray" if grey else "bgr0", "mjpeg": "yuvj420p"}.get(codec, "yuv420p")
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "gray" if grey else "rgb24")))
        container.mux(stream.encode())


def own_clips(folder: Path, clips: int, colour: bool) -> None:
    """Folders of classes; names tell who and which take."""
    dataset = Synthetic(clips_per_class=-(-clips // len(ACTIONS)), subjects=SUBJECTS)
    takes: dict[str, int] = {}
    for sample in dataset.samples:
        label = dataset.labels[sample.label]
        if label not in ACTIONS:
            continue
        who = f"{label}/subject{sample.subject}"
        takes[who] = takes.get(who, 0) + 1
        for modality, name in (("nir", "ir"), ("rgb", "rgb"))[: 1 + colour]:
            write(folder / f"{who}_{takes[who]:02d}_{name}.mkv", dataset.open(sample, modality).frames, "ffv1")


def kd_edge(words: list[str], folder: Path) -> tuple[float, float]:
    """Seconds that a command takes, by the clock and of the processor, which other programs disturb less."""
    print(f"$ kd-edge {' '.join(words)}", file=sys.stderr, flush=True)
    start, before = time.perf_counter(), os.times()
    subprocess.run([sys.executable, "-m", "kd_edge", *words], cwd=folder, check=True, stdout=sys.stderr)
    after = os.times()
    worked = after.children_user - before.children_user + after.children_system - before.children_system
    return time.perf_counter() - start, worked


def load() -> str:
    return f"load of the machine over the last five minutes: {os.getloadavg()[1]:.1f}"


def train(given: argparse.Namespace, folder: Path) -> bool:
    own_clips(folder / "gestures", given.clips, given.rgb)
    clip = sorted((folder / "gestures").rglob(f"*subject{SUBJECTS}_*_ir.mkv"))[0].relative_to(folder)
    commands = [
        ["data", "init", "gestures"],
        ["train", "--data", "gestures", "--out", "run"],
        ["export", "run", "--out", "student.onnx"],
        ["run", "--camera", f"replay:{clip}", "--model", "student.onnx"],
    ]
    print(f"{given.clips} clips, {'infrared and colour' if given.rgb else 'infrared'}, {os.cpu_count()} cores\n")
    print("| command | s | processor, s |\n|---|---|---|")
    total = np.zeros(2)
    for words in commands:
        took = np.array(kd_edge(words, folder))
        total += took
        name = " ".join(words[:2] if words[0] == "data" else words[:1])
        print(f"| `kd-edge {name}` | {took[0]:.1f} | {took[1]:.1f} |", flush=True)
    print(f"| all | {total[0]:.1f} | {total[1]:.1f} |\n\n{load()}")
    return bool(total[0] <= 60 * MINUTES)


def init(given: argparse.Namespace, folder: Path) -> bool:
    rng = np.random.default_rng(0)
    kinds = [("libx264", ".mp4", (480, 640, 3)), ("ffv1", ".mkv", (120, 160)), ("mjpeg", ".avi", (240, 320, 3))]
    sources = []
    for codec, ending, shape in kinds:
        path = folder / f"source{ending}"
        tiles = rng.integers(0, 256, (60, shape[0] // 20, shape[1] // 20, *shape[2:]), dtype=np.uint8)
        write(path, tiles.repeat(20, axis=1).repeat(20, axis=2), codec)
        sources.append(path)
    for kind, source in enumerate(sources):
        modality = ("rgb", "ir", "color")[kind]
        for k in range(kind, given.files, len(sources)):
            target = folder / f"many/class{k % 20:02d}/subject{k % 37}_{k:05d}_{modality}{source.suffix}"
            target.parent.mkdir(parents=True, exist_ok=True)
            os.link(source, target)  # headers are read file by file all the same
    seconds, worked = kd_edge(["data", "init", "many"], folder)
    print(
        f"{given.files} files, {os.cpu_count()} cores: `kd-edge data init` takes {seconds:.1f} s, {worked:.1f} s of the"
    )
    print(f"processor; {load()}")
    return seconds <= SECONDS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    training = verbs.add_parser("train")
    training.add_argument("--clips", type=int, default=60)
    training.add_argument("--rgb", action="store_true")
    training.add_argument("--keep", type=Path, help="Folder for clips, run and student; else a temporary one.")
    verbs.add_parser("init").add_argument("--files", type=int, default=10_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(getattr(given, "keep", None) or temporary)
        passed = {"train": train, "init": init}[given.verb](given, folder)
    raise SystemExit(not passed)


if __name__ == "__main__":
    main()
