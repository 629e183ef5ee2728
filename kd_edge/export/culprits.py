"""Placeholder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple


class Culprits(NamedTuple):
    nodes: tuple[str, ...]
    minimal: bool


def culprits(
    candidates: Sequence[str], passes: Callable[[frozenset[str]], bool], *, tries: int = 40
) -> Culprits | None:
    """Placeholder."""
    return None
