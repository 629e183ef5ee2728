"""Find the nodes of a graph that put a lower precision out of bounds, by keeping sets of nodes in float32."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

Passes = Callable[[frozenset[str]], bool]
"""Whether the bounds hold with these nodes kept in float32; a call takes seconds."""


class Culprits(NamedTuple):
    """Nodes that must stay in float32 for the bounds to hold.

    Attributes:
        nodes: Their names, in the order of the graph; the bounds were verified to hold with exactly these kept.
        minimal: Whether the bounds were verified to fail without any one of them. False if many nodes contribute a
            little each and the tries ran out: ``nodes`` is then the smallest set found.
        tries: Number of calls of ``passes``.
    """

    nodes: tuple[str, ...]
    minimal: bool
    tries: int


def culprits(
    candidates: Sequence[str], passes: Passes, *, likeliest: Sequence[str] = (), tries: int = 40
) -> Culprits | None:
    """Find the nodes that must stay in float32 for a lower precision to meet its bounds.

    The shortest prefix of the candidates (likeliest first) that passes ends with a culprit; the next culprit ends the
    shortest prefix that passes together with it, and so on until the culprits alone pass. The prefix length is
    bisected starting from the short end, so k culprits among n candidates cost about k log n tries, fewer with a good
    hint. Source: extraction of minimal sets by bisection as in QuickXplain (Junker, AAAI 2004). The search assumes
    that keeping more nodes never harms, but only for speed: the result passed, and ``minimal`` is set only if verified.

    Args:
        candidates: Names of nodes, in the order of the graph.
        passes: Tests a set of nodes kept in float32; known to be false for the empty set, which is never tested.
        likeliest: Names to suspect, the most likely first (``kd_edge.export.layers.likeliest``); unknown names are
            ignored.
        tries: Largest number of calls of ``passes``, at least 1.

    Returns:
        The nodes; None if the bounds do not hold even with all candidates kept, so that precision is not the cause.
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
    return Culprits(nodes, minimal=not trials.ran_out, tries=trials.calls)


class _Trials:
    """Caches the results of ``passes``; once the tries are used up, untested sets count as failing."""

    def __init__(self, passes: Passes, tries: int) -> None:
        self._passes, self._tries = passes, tries
        self._known: dict[frozenset[str], bool] = {frozenset(): False}
        self.calls, self.ran_out = 0, False

    def __call__(self, kept: frozenset[str]) -> bool:
        if kept not in self._known:
            if self.calls >= self._tries:
                self.ran_out = True
                return False
            self.calls += 1
            self._known[kept] = self._passes(kept)
        return self._known[kept]

    @property
    def smallest(self) -> frozenset[str]:
        """The smallest set that passed; the first on a tie."""
        return min((kept for kept, held in self._known.items() if held), key=len)


def _shortest(passes: Callable[[int], bool], longest: int) -> int:
    """Return the smallest length above 0 that passes; ``longest`` is known to pass, and 0 to fail."""
    fails, holds = 0, longest
    while holds - fails > 1:
        middle = min((fails + holds) // 2, max(fails + 1, 4 * fails))  # the likeliest nodes come first
        if passes(middle):
            holds = middle
        else:
            fails = middle
    return holds


def _minimised(nodes: frozenset[str], trials: _Trials) -> frozenset[str]:
    """Remove nodes that are not needed after all."""
    while True:
        smaller = next((nodes - {name} for name in sorted(nodes) if trials(nodes - {name})), None)
        if smaller is None:
            return nodes
        nodes = smaller
