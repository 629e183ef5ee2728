#!/usr/bin/env python3
"""The camera gstreamer: with an OpenCV that has GStreamer, the system's: what it delivers, and what it says of faults.

    python tools/check_gstreamer.py [--install]

kd-edge itself is this checkout; pydantic and what else it needs come from the environment that runs this script, NumPy
and OpenCV from the system's Python, which must be of the same version. ``--install`` installs Debian's or Ubuntu's
packages (apt-get, as root). Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = "python3-opencv gstreamer1.0-plugins-base gstreamer1.0-plugins-good"
SYSTEM_PYTHON, SYSTEM_PACKAGES = "/usr/bin/python3", "/usr/lib/python3/dist-packages"
SOURCE = "videotestsrc is-live=true pattern=snow ! video/x-raw,format={},width=640,height=480,framerate=30/1"


def checks() -> Iterator[tuple[str, str, bool]]:
    """Each check: what, what came of it, whether that is right."""
    import cv2
    import numpy as np

    from kd_edge.errors import CameraError
    from kd_edge.runtime.cameras import Wanted, make_camera
    from kd_edge.runtime.cameras.base import check_fits
    from kd_edge.runtime.cameras.config import CameraConfig

    yield "OpenCV", f"{cv2.__version__}, NumPy {np.__version__}", cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER)

    def seen(pipeline: str, wanted: Wanted, frames: int = 60, **keys: object) -> str:
        uri = f"gstreamer:{pipeline}"
        camera = make_camera(uri, CameraConfig.model_validate({"uri": uri, **keys}), wanted)
        began = time.monotonic()
        with closing(camera):
            try:
                camera.open()
                check_fits(camera, wanted)
                read = [frame for _ in range(frames) if (frame := camera.read(1.0)) is not None]
                ages = sorted(time.monotonic_ns() - frame.captured_ns for frame in read[-1:])
            except CameraError as error:
                return f"{error.found.partition(': ')[2] or error.found} (after {time.monotonic() - began:.1f} s)"
        rate = (len(read) - 1) / (read[-1].captured_ns - read[0].captured_ns) * 1e9
        image = read[-1].image
        return f"{image.dtype} {image.shape}, {rate:.0f} frames/s, the last {ages[0] / 1e6:.1f} ms old"

    grey, colour, deep = Wanted(None, "uint8", 1), Wanted(None, "uint8", 3), Wanted(None, "uint16", 1)
    for what, pipeline, wanted, expected in (
        ("grey", SOURCE.format("GRAY8"), grey, r"uint8 \(480, 640\), (2[89]|3[0-2]) frames"),
        ("grey of colour", SOURCE.format("I420"), grey, r"uint8 \(480, 640\), (2[89]|3[0-2]) frames"),
        ("colour", SOURCE.format("I420"), colour, r"uint8 \(480, 640, 3\), (2[89]|3[0-2]) frames"),
        ("16 bit", SOURCE.format("GRAY16_LE"), deep, r"uint16 \(480, 640\), (2[89]|3[0-2]) frames"),
        ("16 bit of 8", SOURCE.format("GRAY8"), deep, "cannot be started"),
        (
            "a sink of one's own",
            SOURCE.format("GRAY16_LE") + " ! appsink",
            deep,
            r"uint16 \(480, 640\), (2[89]|3[0-2]) frames",
        ),
        ("8 bit of 16, by the user", SOURCE.format("GRAY16_LE") + " ! appsink", grey, "has dtype uint16"),
        ("planes", SOURCE.format("I420") + " ! appsink", grey, "no picture of 640x480"),
        ("no such element", "nosuchsrc", grey, "no answer within 1.0 s"),
        ("sound", "audiotestsrc is-live=true", grey, "cannot be started"),
        ("an end", "videotestsrc is-live=true num-buffers=20 ! videorate", grey, "the pipeline has ended"),
    ):
        answer = seen(pipeline, wanted, open_timeout_ms=1000)
        yield what, answer, re.search(expected, answer) is not None
    silent = "udpsrc address=127.0.0.1 port=0 ! video/x-raw,format=GRAY8,width=64,height=48,framerate=30/1"
    answer = seen(silent, grey, open_timeout_ms=1000)
    yield "silence", answer, "no answer within 1.0 s" in answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--install", action="store_true", help="install the packages before")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.install:
        subprocess.run(["apt-get", "install", "-y", "--no-install-recommends", *PACKAGES.split()], check=True)
    if not given.here:
        path = os.pathsep.join((str(ROOT), SYSTEM_PACKAGES, sysconfig.get_path("purelib")))
        here = [SYSTEM_PYTHON, __file__, "--here"]
        sys.exit(subprocess.run(here, env=os.environ | {"PYTHONPATH": path, "OPENCV_LOG_LEVEL": "SILENT"}).returncode)
    print("| check | result | right |\n|---|---|---|")
    all_right = True
    for what, answer, is_right in checks():
        all_right = all_right and is_right
        print(f"| {what} | {answer.replace('|', '/')} | {'yes' if is_right else 'NO'} |", flush=True)
    sys.stdout.flush()
    os._exit(0 if all_right else 1)  # a silent pipeline's thread never ends


if __name__ == "__main__":
    main()
