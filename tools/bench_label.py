#!/usr/bin/env python3
"""How long the labelling page waits for pictures of a recording of an hour, 640x480, 30 frames a second.

    python tools/bench_label.py DIR [KIND ...]

Kinds are ir.mkv, thermal.mkv, rgb.mp4, ir.avi, thermal and thermal.npy; all take four minutes.
Recordings are made below DIR where they are not there yet: few different pictures, stored as often as an hour has
frames, so that files and indices are as long as real ones. Each is served by a fresh ``kd-edge label``; times are those
the page sees: the first picture comes after state and recording, with the sample of the contrast. Prints a Markdown
table; exit code 1 where a first picture takes more than a second of a processor, which other programs disturb less.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple, cast

import av
import cv2
import numpy as np
import numpy.typing as npt

FPS, HEIGHT, WIDTH = 30, 480, 640
DIFFERENT = 250
"""So many pictures differ: a group of pictures of H.264."""
PLACES = 40
BOUND_S = 1.0
Frame = npt.NDArray[Any]


def pictures(dtype: Any = np.uint8) -> Iterator[Frame]:
    """A figure that walks on an even ground."""
    for number in range(DIFFERENT):
        image = np.full((HEIGHT, WIDTH), 60, np.uint8)
        cv2.ellipse(image, (100 + number, 260), (30, 110), 0, 0, 360, 190, -1)
        cv2.circle(image, (100 + number, 120), 26, 215, -1)
        yield image if dtype == np.uint8 else 27_000 + 10 * image.astype(np.uint16)


def video(path: Path, frames: int, codec: str, pixels: str, dtype: Any = np.uint8, **options: str) -> None:
    """A video that repeats the packets of the different pictures, each time with later stamps."""
    with av.open(str(path), "w") as container:
        stream = cast("av.VideoStream", container.add_stream(codec, rate=FPS, options=options))
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, pixels
        once: list[Any] = []
        for number, image in enumerate(pictures(dtype)):
            picture = av.VideoFrame.from_ndarray(image, format="gray" if dtype == np.uint8 else "gray16le")
            picture.pts = number
            once += stream.encode(picture)
        once += stream.encode()
        unit: Fraction = once[0].time_base
        begin, group = once[0].pts, int(Fraction(DIFFERENT, FPS) / unit)
        stored = [(packet.pts - begin, packet.dts - begin, packet.is_keyframe, bytes(packet)) for packet in once]
        for repeat in range(frames // DIFFERENT):
            for pts, dts, is_key, content in stored:
                packet = av.Packet(content)
                packet.stream, packet.time_base, packet.is_keyframe = stream, unit, is_key
                packet.pts, packet.dts = pts + repeat * group, dts + repeat * group
                container.mux(packet)


def images(path: Path, frames: int) -> None:
    """A folder of 16-bit images: links to the different ones."""
    path.mkdir()
    sources = []
    for number, image in enumerate(pictures(np.uint16)):
        cv2.imwrite(str(source := path.parent / f".source{number}.png"), image)
        sources.append(source)
    for number in range(frames):
        os.link(sources[number % DIFFERENT], path / f"{number:06}.png")
    for source in sources:
        source.unlink()
    stamps = np.round(np.arange(frames) * 1e9 / FPS).astype(np.int64)
    (path / "stamps.csv").write_text("stamp_ns\n" + "\n".join(map(str, stamps)) + "\n")


def array(path: Path, frames: int) -> None:
    """An array with holes for most of its pictures, of which the disk holds nothing."""
    stack = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint16, shape=(frames, HEIGHT, WIDTH))
    for number, image in enumerate(pictures(np.uint16)):
        stack[number * (frames // DIFFERENT)] = image


KINDS: dict[str, Callable[[Path, int], None]] = {
    "ir.mkv": lambda path, frames: video(path, frames, "ffv1", "gray", g="1", level="3"),
    "thermal.mkv": lambda path, frames: video(path, frames, "ffv1", "gray16le", np.uint16, g="1", level="3"),
    "rgb.mp4": lambda path, frames: video(path, frames, "libx264", "yuv420p", g="250", preset="veryfast"),
    "ir.avi": lambda path, frames: video(path, frames, "ffv1", "gray", g="1", level="3"),
    "thermal": images,
    "thermal.npy": array,
}


def prepared(root: Path, kind: str, seconds: int) -> Path:
    """A folder with one recording of a kind and its manifest."""
    folder = root / f"{kind.replace('.', '_')}_{seconds}"
    if not (folder / "manifest.csv").is_file():
        folder.mkdir(parents=True)
        KINDS[kind](folder / kind, seconds * FPS)
        name = kind.partition(".")[0]
        (folder / "manifest.csv").write_text(f"id,label,{name}\nhour,,{kind}\n")
    return folder


class Running(NamedTuple):
    """The program, and where it serves its page."""

    process: subprocess.Popen[str]
    host: str
    token: str

    def get(self, path: str) -> tuple[bytes, Any]:
        """What is answered, and its headers."""
        request = urllib.request.Request(self.host + path, headers={"X-Token": self.token})
        with urllib.request.urlopen(request, timeout=600) as answer:
            return answer.read(), answer.headers


@contextmanager
def labelling(folder: Path) -> Iterator[Running]:
    """Label a folder."""
    command = [sys.executable, "-m", "kd_edge", "label", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONUNBUFFERED": "1"})
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield Running(process, *process.stdout.readline().split()[0].split("/#"))
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)


def size(path: Path) -> int:
    return sum(file.stat().st_size for file in path.iterdir()) if path.is_dir() else path.stat().st_size


def processor_s(running: Running) -> float:
    """Seconds of a processor that the server has taken so far."""
    fields = Path(f"/proc/{running.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def server_has(running: Running) -> tuple[int, int]:
    """Bytes the server has read so far, and the memory it holds that belongs to no file."""
    process = Path(f"/proc/{running.process.pid}")
    read = dict(line.split(": ") for line in (process / "io").read_text().splitlines())
    status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
    return int(read["rchar"]), 1024 * int(status["RssAnon"].split()[0])


def picture(running: Running, name: str, at_s: float) -> float:
    """Seconds until a picture is there."""
    begun = time.perf_counter()
    content, headers = running.get(f"/api/recordings/0/frame?modality={name}&t={at_s:.6f}")
    assert content.startswith(b"\xff\xd8")
    assert float(headers["x-frame-s"]) <= at_s + 0.0005
    return time.perf_counter() - begun


def measured(root: Path, kind: str, seconds: int) -> dict[str, float]:
    """Times and amounts of one recording; see ``main``."""
    folder, name = prepared(root, kind, seconds), kind.partition(".")[0]
    with labelling(folder) as running:
        before, _ = server_has(running)
        begun, busy = time.perf_counter(), processor_s(running)
        running.get("/api/state")
        assert "error" not in json.loads(running.get("/api/recordings/0")[0])["tracks"][0]
        picture(running, name, 0.0)
        first_s, first_bytes = time.perf_counter() - begun, server_has(running)[0] - before
        busy = processor_s(running) - busy
        places = random.Random(0).sample(range(1, seconds - 1), PLACES)
        jumps = sorted(picture(running, name, place) for place in places)
        here = seconds / 2
        steps_on = [picture(running, name, here + k / FPS) for k in range(30)]
        steps_back = [picture(running, name, here - k / FPS) for k in range(30)]
        return {
            "bytes": size(folder / kind),
            "first_s": first_s,
            "first_processor_s": busy,
            "first_bytes": first_bytes,
            "jump_s": median(jumps),
            "longest_jump_s": jumps[-1],
            "on_s": median(steps_on[1:]),
            "back_s": median(steps_back),
            "memory_bytes": server_has(running)[1],
        }


def main() -> int:
    """Print a row for each kind of recording."""
    slowest_s = 0.0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", metavar="DIR", type=Path, help="where the recordings are, or are made: 1 GB")
    parser.add_argument("kinds", metavar="KIND", nargs="*", help=f"of {', '.join(KINDS)}; default all")
    given = parser.parse_args()
    root, kinds = given.root, given.kinds or list(KINDS)
    if unknown := set(kinds) - set(KINDS):
        parser.error(f"no kind {', '.join(sorted(unknown))}")
    print(
        "| recording of an hour, 640x480, 30 a second | GB | first picture, s (of a processor) | read for it, MB "
        "| elsewhere, ms (longest) | a frame on, ms | a frame back, ms | memory, MB |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for kind in kinds:
        found = measured(root, kind, 3600)
        slowest_s = max(slowest_s, found["first_processor_s"])
        shown = {name: 1e3 * value for name, value in found.items()}  # ms
        cells = (
            kind,
            f"{found['bytes'] / 1e9:.2f}",
            f"{found['first_s']:.2f} ({found['first_processor_s']:.2f})",
            f"{found['first_bytes'] / 1e6:.1f}",
            f"{shown['jump_s']:.0f} ({shown['longest_jump_s']:.0f})",
            f"{shown['on_s']:.1f}",
            f"{shown['back_s']:.1f}",
            f"{found['memory_bytes'] / 1e6:.0f}",
        )
        print(f"| {' | '.join(cells)} |", flush=True)
    return int(slowest_s > BOUND_S)


if __name__ == "__main__":
    sys.exit(main())
