"""``python -m tests.fuzz artifacts|bags|lists|replays|tomls --count N --seed S``: the same cases for the same seed."""

from __future__ import annotations

import argparse
import sys

from tests.fuzz.campaign import KINDS, run


def main() -> int:
    """Print one line of figures, and the first faults before it; 1 where there is one."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first case, to try one again")
    options = parser.parse_args()
    figures = run(options.kind, options.count, options.seed, options.first)
    line = f"{options.kind}, seed {options.seed}: {figures.line()}"
    sys.stdout.write("\n".join((*figures.notes, line)) + "\n")
    return 1 if figures.notes else 0


if __name__ == "__main__":
    sys.exit(main())
