"""Which nodes of a graph put a lower precision out of bounds: found by keeping sets of them in float32."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

Passes = Callable[[frozenset[str]], bool]
"""Whether the bounds hold with these nodes kept in float32; it costs seconds."""


class Culprits(NamedTuple):
    """Nodes that must stay in float32 for the bounds to hold.

    Attributes:
        nodes: Their names, in the order of the graph; the bounds were seen to hold with just these kept.
        minimal: Whether the bounds were seen to fail with any one of them given up. False where many nodes are a
            little at fault each and the tries ran out: ``nodes`` is then the smallest set that was found.
        tries: How often ``passes`` was asked.
    """

    nodes: tuple[str, ...]
    minimal: bool
    tries: int


def culprits(
    candidates: Sequence[str], passes: Passes, *, likeliest: Sequence[str] = (), tries: int = 40
) -> Culprits | None:
    """The nodes that a lower precision cannot be held to its bounds without.

    Of the candidates, likeliest first, the shortest run that passes ends with a culprit; the next culprit ends the
    shortest run that passes beside it, and so on until the culprits pass alone. A run's length is bisected, from its
    short end, so k culprits among n cost some k log n tries, fewer where the hint is good. Source: the extraction of
    minimal sets by bisection as in QuickXplain (Junker, AAAI 2004). That keeping more never harms is assumed to be
    quick, and not relied on: the answer passed, and is minimal only where that was tried out.

    Args:
        candidates: Names of nodes, in the order of the graph.
        passes: Converts with a set of them kept; known to be false of the empty set, which it is never asked.
        likeliest: Names to suspect first, the first most (``kd_edge.export.layers.likeliest``); any others are ignored.
        tries: How often ``passes`` may be asked, at least 1.

    Returns:
        What was found; None where the bounds do not hold with all candidates kept: precision is not the cause.
    """
    known = set(candidates)
    suspects = list(dict.fromkeys([*(name for name in likeliest if name in known), *candidates]))
    trials = _Trials(passes, tries)
    if not trials(frozenset(suspects)):
        return None
    found: frozenset[str] = frozenset()
    while not trials(found):
        length = _shortest(lambda n: trials(found | frozenset(suspects[:n])), len(suspects))  # noqa: B023
        found |= {suspects[length - 1]}
        del suspects[length - 1 :]
    found = _minimised(found, trials)
    kept = trials.smallest if trials.ran_out else found
    nodes = tuple(name for name in candidates if name in kept)
    return Culprits(nodes, minimal=not trials.ran_out, tries=trials.asked)


class _Trials:
    """Remembers what passed; when no try is left, what is not known counts as failing."""

    def __init__(self, passes: Passes, tries: int) -> None:
        self._passes, self._tries = passes, tries
        self._known: dict[frozenset[str], bool] = {frozenset(): False}
        self.asked, self.ran_out = 0, False

    def __call__(self, kept: frozenset[str]) -> bool:
        if kept not in self._known:
            if self.asked >= self._tries:
                self.ran_out = True
                return False
            self.asked += 1
            self._known[kept] = self._passes(kept)
        return self._known[kept]

    @property
    def smallest(self) -> frozenset[str]:
        """The smallest set that passed, the first of equals."""
        return min((kept for kept, held in self._known.items() if held), key=len)


def _shortest(passes: Callable[[int], bool], longest: int) -> int:
    """The shortest length above 0 that passes; ``longest`` is known to, and 0 not to."""
    fails, holds = 0, longest
    while holds - fails > 1:
        middle = min((fails + holds) // 2, max(fails + 1, 4 * fails))  # what is likeliest stands in front
        if passes(middle):
            holds = middle
        else:
            fails = middle
    return holds


def _minimised(nodes: frozenset[str], trials: _Trials) -> frozenset[str]:
    """Without those that can be given up after all."""
    while True:
        smaller = next((nodes - {name} for name in sorted(nodes) if trials(nodes - {name})), None)
        if smaller is None:
            return nodes
        nodes = smaller
