"""Many cases in child processes whose memory is bounded and whose silence is noticed, and what became of them."""

from __future__ import annotations

import json
import resource
import selectors
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np

from tests.fuzz.mutate import Generator

KINDS = ("artifacts", "bags", "lists", "replays", "tomls")
ADDRESS_SPACE = 4 << 30
"""Bytes a child may map: a case that asks for more gets a MemoryError instead of the machine."""
CASE_SECONDS = 20.0
START_SECONDS = 120.0
TRACEBACKS, NOTE_CHARACTERS = 5, 4000


@dataclass
class Figures:
    """What became of the cases.

    Attributes:
        outcomes: Number of cases refused, accepted, raw (another exception than a KdEdgeError), hung or crashed.
        peak_mb: Most memory that a child held.
        peak_case: During which case.
        slowest: Longest time of a case in seconds, and which.
        notes: What the first raw exceptions, hangs and crashes were.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    peak_mb: float = 0.0
    peak_case: int = -1
    slowest: tuple[float, int] = (0.0, -1)
    notes: list[str] = field(default_factory=list)

    def line(self) -> str:
        """All of it but the notes."""
        counts = ", ".join(
            f"{self.outcomes[name]:,} {name}" for name in ("refused", "accepted", "raw", "hung", "crashed")
        )
        return (
            f"{self.outcomes.total():,} cases: {counts}; peak {self.peak_mb:.0f} MB (case {self.peak_case}), "
            f"slowest {self.slowest[0]:.2f} s (case {self.slowest[1]})"
        )

    def count(self, case: int, outcome: str, note: str = "", seconds: float = 0.0, peak_mb: float = 0.0) -> None:
        """Add a case."""
        self.outcomes[outcome] += 1
        self.slowest = max(self.slowest, (seconds, case))
        if peak_mb > self.peak_mb:
            self.peak_mb, self.peak_case = peak_mb, case
        if note and len(self.notes) < TRACEBACKS:
            self.notes.append(f"case {case}: {note[:NOTE_CHARACTERS]}")


def tried(case: Callable[[Generator], str], seed: int, index: int) -> tuple[str, str]:
    """What became of one case, and the traceback of an exception that should not have come out."""
    try:
        return case(np.random.default_rng([seed, index])), ""
    except Exception:
        return "raw", traceback.format_exc(limit=-8)


def cases_of(kind: str, folder: Path, *, large: bool = True) -> Callable[[Generator], str]:
    """The cases of a kind; their modules bring what they need, which is much."""
    if kind == "artifacts":
        from tests.fuzz.artifacts import Artifacts

        return Artifacts(folder, large=large)
    if kind == "bags":
        from tests.fuzz.bags import Bags

        return Bags(folder, large=large)
    if kind == "lists":
        from tests.fuzz.lists import Lists

        return Lists(folder, large=large)
    if kind == "replays":
        from tests.fuzz.replays import Replays

        return Replays(folder, large=large)
    from tests.fuzz.tomls import Tomls

    return Tomls(folder, large=large)


def command(kind: str, seed: int, first: int, end: int, folder: str) -> list[str]:
    """What starts a child."""
    return [sys.executable, "-m", "tests.fuzz.campaign", kind, str(seed), str(first), str(end), folder]


def run(kind: str, count: int, seed: int, first: int = 0) -> Figures:
    """Try ``count`` cases, in a new child after every hang and crash."""
    figures, case, end = Figures(), first, first + count
    while case < end:
        with tempfile.TemporaryDirectory() as folder, open(f"{folder}/stderr", "w+") as errors:
            started = command(kind, seed, case, end, folder)
            with subprocess.Popen(started, stdout=subprocess.PIPE, stderr=errors) as child:
                assert child.stdout is not None
                case, outcome = _watched(child.stdout, case, end, figures)
                child.kill()
                code = child.wait()
            if case < end:
                errors.seek(0)
                figures.count(case, outcome, f"{outcome}, exit code {code}: {errors.read()[-1500:]}")
                case += 1
    return figures


def _watched(answers: IO[bytes], case: int, end: int, figures: Figures) -> tuple[int, str]:
    """Count a child's answers until the last one; the case that gave none, and what became of it."""
    patience = START_SECONDS
    with selectors.DefaultSelector() as selector:
        selector.register(answers, selectors.EVENT_READ)
        while case < end:
            if not selector.select(patience):
                return case, "hung"
            if not (line := answers.readline()):
                return case, "crashed"
            figures.count(case, *json.loads(line))
            case, patience = case + 1, CASE_SECONDS
    return case, ""


def _peak_mb() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def _child(kind: str, seed: int, first: int, end: int, folder: str) -> None:
    """Try cases and write one line of JSON for each."""
    answers = sys.stdout
    sys.stdout = sys.stderr
    cases = cases_of(kind, Path(folder))
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    for index in range(first, end):
        started = time.monotonic()
        outcome, note = tried(cases, seed, index)
        answers.write(json.dumps([outcome, note, time.monotonic() - started, _peak_mb()]) + "\n")
        answers.flush()


if __name__ == "__main__":
    _child(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), sys.argv[5])
