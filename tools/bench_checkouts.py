#!/usr/bin/env python3
"""Time this checkout against another one, in turn, one thread: imports, a push, a training step.

    git worktree add ../before COMMIT
    python tools/bench_checkouts.py ../before --rounds 7

Imports and training steps run as fresh processes. Pushes run in a pair of processes a round, which take turns of 40: a
process differs from the next one of the same code by a percent, so neither one pair nor one turn tells much. Who is
first changes from turn to turn. Printed are both medians and the median of the turns' ratios (this checkout over the
other). The artifact is the other checkout's bundled one for both; the training step needs the recordings of the recipe.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
CLI = "from kd_edge.cli import main; main()"


def environment(checkout: Path) -> dict[str, str]:
    """A checkout's own code, one thread."""
    return {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}


def run(checkout: Path, code: str, *arguments: str) -> str:
    """What a checkout's Python prints."""
    command = [sys.executable, "-c", code, *arguments]
    env = environment(checkout)
    return subprocess.run(command, cwd=checkout, env=env, check=True, stdout=subprocess.PIPE, text=True).stdout


def import_seconds(module: str) -> Callable[[Path], float]:
    """Seconds to import a module in a fresh process."""
    code = f"import time; t = time.perf_counter(); import {module}; print(time.perf_counter() - t)"
    return lambda checkout: float(run(checkout, code))


PUSHER = """
import sys, time
import numpy as np
from kd_edge.runtime import Recognizer
recognizer = Recognizer.load(sys.argv[1], threads=1)
frames = np.random.default_rng(0).integers(0, 255, (8, 480, 640), dtype=np.uint8)
stamp_ns = 0
for line in sys.stdin:
    spent = []
    for k in range(int(line)):
        stamp_ns += 33_333_333
        start = time.perf_counter()
        recognizer.push(frames[k % 8], stamp_ns, source="compared")
        spent.append(time.perf_counter() - start)
    print(1e3 * sorted(spent)[len(spent) // 2], flush=True)
"""
PUSHES = 40
TURNS = 20


class Pusher:
    """A process a checkout, with the artifact loaded; called, one takes a turn and tells its median push in ms."""

    def __init__(self, artifact: Path) -> None:
        self._artifact = artifact
        self._processes: dict[Path, subprocess.Popen[str]] = {}

    def __call__(self, checkout: Path) -> float:
        if checkout not in self._processes:
            self._processes[checkout] = subprocess.Popen(
                [sys.executable, "-c", PUSHER, str(self._artifact)], cwd=checkout, env=environment(checkout),
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
            self(checkout)  # the first turn warms up
        process = self._processes[checkout]
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{PUSHES}\n")
        process.stdin.flush()
        return float(process.stdout.readline())

    def close(self) -> None:
        """End the processes; the next turns are those of new ones."""
        for process in self._processes.values():
            process.communicate()
        self._processes.clear()


def step_milliseconds(recipe: str) -> Callable[[Path], float]:
    """Milliseconds of a training step, per clip."""
    return lambda checkout: 1e3 / float(json.loads(run(checkout, CLI, "bench", "--training", recipe, "--json"))["step"])


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path, help="the checkout to compare with")
    parser.add_argument("--rounds", type=int, default=5, help="of the processes; pushes take twenty turns in each")
    parser.add_argument("--training", default="utd_mhad_pose_to_depth", metavar="RECIPE", help="empty leaves it out")
    options = parser.parse_args()
    other = options.other.resolve()
    figures: dict[str, Callable[[Path], float]] = {
        "import kd_edge.runtime, s": import_seconds("kd_edge.runtime"),
        "import kd_edge.train.recipe, s": import_seconds("kd_edge.train.recipe"),
        "push, ms": Pusher(other / "kd_edge" / "bundled.onnx"),
    }
    if options.training:
        figures[f"training step of {options.training}, ms a clip"] = step_milliseconds(options.training)
    print(f"{'':<60}{'other':>10}{'here':>10}{'ratio':>8}   load {os.getloadavg()[0]:.1f}")
    for name, measure in figures.items():
        pairs = []
        for k in range(options.rounds * (TURNS if isinstance(measure, Pusher) else 1)):
            checkouts = (other, HERE) if k % 2 == 0 else (HERE, other)
            seen = {checkout: measure(checkout) for checkout in checkouts}
            pairs.append((seen[other], seen[HERE]))
            if isinstance(measure, Pusher) and k % TURNS == TURNS - 1:
                measure.close()
        before, after = (statistics.median(column) for column in zip(*pairs, strict=True))
        ratio = statistics.median(b / a for a, b in pairs)
        print(f"{name:<60}{before:>10.4g}{after:>10.4g}{ratio:>8.3f}   load {os.getloadavg()[0]:.1f}", flush=True)


if __name__ == "__main__":
    main()
