"""One line of the doctor's report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from kd_edge.errors import KdEdgeError

Level = Literal["ok", "note", "problem"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report.

    Attributes:
        level: ``ok``, ``note`` (something optional is absent) or ``problem`` (something is wrong).
        topic: What was checked.
        found: What was found.
        expected: What would have been right; an empty string if nothing is wrong.
        fix: How to fix it; an empty string if there is nothing to fix.
    """

    level: Level
    topic: str
    found: str
    expected: str = ""
    fix: str = ""

    @classmethod
    def of(cls, level: Level, topic: str, error: KdEdgeError) -> Finding:
        """Convert an error into a finding."""
        return cls(level, topic, error.found, error.expected, error.fix)
