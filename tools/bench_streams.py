#!/usr/bin/env python3
"""Labels of the generated stream: right ones, false changes and delay, by how long a window counts, over five seeds.

    python tools/bench_streams.py [--model ARTIFACT] [--seeds 0 1 2 3 4] [--frames 2400] [--smooth-ms 0 none 600]

Prints a Markdown table; ``none`` is the default, one segment spacing. Every action is seen once in 2400 frames.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

from kd_edge.artifact import BUNDLED, load
from kd_edge.runtime.stream import stream
from kd_edge.runtime.tally import Tally


def watched(model: Path, seed: int, frames: int, smooth_ms: float | None) -> Tally:
    tally = Tally()
    camera = f"synthetic:?realtime=false&seed={seed}&frames={frames}"
    with stream(model=model, camera=camera, smooth_ms=smooth_ms) as labels:
        for prediction in labels:
            tally.add(prediction)
    return tally


def spread(values: list[float], form: str) -> str:
    return f"{statistics.fmean(values):{form}} ± {statistics.stdev(values) if len(values) > 1 else 0:{form}}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=BUNDLED)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--frames", type=int, default=2400)
    parser.add_argument("--smooth-ms", nargs="+", default=["0", "none"])
    given = parser.parse_args()
    manifest = load(given.model).manifest
    print(f"Window {manifest.clip_seconds:.2f} s, spacing {manifest.spacing_ns / 1e6:.0f} ms, seeds {given.seeds}\n")
    print(
        "| a window counts | right, % of labels | labels, % of frames | changes (real) | false ones a minute "
        "| delay, s |"
    )
    print("|---|---|---|---|---|---|")
    for text in given.smooth_ms:
        seen = [watched(given.model, s, given.frames, None if text == "none" else float(text)) for s in given.seeds]
        print(
            f"| {'one spacing' if text == 'none' else f'{text} ms'} "
            f"| {spread([100 * t.accuracy for t in seen], '.1f')} "
            f"| {spread([100 * t.labels / given.frames for t in seen], '.1f')} "
            f"| {spread([t.changes for t in seen], '.0f')} ({seen[0].real_changes}) "
            f"| {spread([t.false_changes_per_minute for t in seen], '.1f')} "
            f"| {spread([t.delay_seconds for t in seen], '.2f')} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
