#!/usr/bin/env python3
"""What checking a signature adds to loading an artifact: with and without, in turn, in fresh processes and in one.

python tools/bench_signatures.py ARTIFACT... [--rounds 30]
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from kd_edge import artifact
from kd_edge.artifact import SigningKey, Trust, new_keys, sign

CHILD = """
import sys, time
from kd_edge import artifact
started = time.perf_counter()
artifact.load(sys.argv[1], trust=sys.argv[2] if len(sys.argv) > 2 else None)
print(1e3 * (time.perf_counter() - started))
"""


def child(*arguments: str) -> float:
    """Milliseconds of the first load in a fresh process."""
    done = subprocess.run([sys.executable, "-c", CHILD, *arguments], check=True, capture_output=True, text=True)
    return float(done.stdout)


def main() -> None:
    """Print one line for each artifact."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifacts", type=Path, nargs="+")
    parser.add_argument("--rounds", type=int, default=30)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        public = new_keys(Path(folder, "key"))
        trust = Trust(public)
        for given in options.artifacts:
            path = Path(shutil.copy(given, Path(folder, "signed.onnx")))
            sign(path, SigningKey(Path(folder, "key")))
            plain: list[float] = []
            checked: list[float] = []
            first, first_checked = [], []
            for turn in range(options.rounds):
                for times, keys in ((plain, None), (checked, trust)):
                    started = time.perf_counter()
                    artifact.load(path, trust=keys)
                    times.append(1e3 * (time.perf_counter() - started))
                if turn % 3 == 0:
                    first.append(child(str(path)))
                    first_checked.append(child(str(path), str(public)))
            medians = [statistics.median(times) for times in (plain, checked, first, first_checked)]
            sys.stdout.write(
                f"{given.name}, {path.stat().st_size / 1e6:.1f} MB: load {medians[0]:.1f} ms, with its signature "
                f"{medians[1]:.1f} ms (+{medians[1] - medians[0]:.1f}); first load of a process {medians[2]:.1f} ms, "
                f"with its signature {medians[3]:.1f} ms (+{medians[3] - medians[2]:.1f})\n"
            )


if __name__ == "__main__":
    main()
