from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from kd_edge.export.culprits import Culprits, culprits

NODES = [f"layer{i}/Conv" for i in range(64)]


class Graph:
    """Passes where a rule holds of what is kept; counts how often it is asked."""

    def __init__(self, rule: Callable[[frozenset[str]], bool]) -> None:
        self._rule, self.asked = rule, 0

    def __call__(self, kept: frozenset[str]) -> bool:
        assert kept, "that nothing kept fails is known"
        self.asked += 1
        return self._rule(kept)


def needs(*faulty: str) -> Graph:
    return Graph(lambda kept: set(faulty) <= kept)


def test_one_node_at_fault_is_named() -> None:
    graph = needs("layer37/Conv")
    found = culprits(NODES, graph)
    assert found == Culprits(("layer37/Conv",), minimal=True, tries=graph.asked)
    assert graph.asked <= 12


def test_two_distant_nodes_are_named_in_the_order_of_the_graph() -> None:
    found = culprits(NODES, needs("layer62/Conv", "layer3/Conv"))
    assert found is not None
    assert (found.nodes, found.minimal) == (("layer3/Conv", "layer62/Conv"), True)
    assert found.tries <= 24


def test_a_good_hint_makes_it_quick() -> None:
    # all, the likeliest alone
    found = culprits(NODES, needs("layer50/Conv"), likeliest=["layer50/Conv", "layer7/Conv"])
    assert found == Culprits(("layer50/Conv",), minimal=True, tries=2)


def test_a_wrong_hint_and_names_of_other_graphs_do_no_harm() -> None:
    found = culprits(NODES, needs("layer5/Conv"), likeliest=["another", *NODES[60:]])
    assert found is not None
    assert (found.nodes, found.minimal) == (("layer5/Conv",), True)


def test_a_failure_that_precision_does_not_cause_has_no_culprits() -> None:
    graph = Graph(lambda kept: False)
    assert culprits(NODES, graph) is None
    assert graph.asked == 1


def test_nodes_that_are_all_a_little_at_fault_give_the_smallest_set_found() -> None:
    graph = Graph(lambda kept: len(kept) >= 32)
    found = culprits(NODES, graph, tries=10)
    assert found is not None
    assert (len(found.nodes), found.minimal, found.tries) == (32, False, 10)


def test_where_only_one_try_is_left_all_are_named() -> None:
    assert culprits(NODES, needs("layer5/Conv"), tries=1) == Culprits(tuple(NODES), minimal=False, tries=1)


def test_a_node_that_can_be_given_up_after_all_is() -> None:
    # Keeping more may harm: layer 1 helps alone, or where layer 7 is kept too.
    graph = Graph(lambda kept: {NODES[1], NODES[7]} <= kept or kept == {NODES[1]})
    found = culprits(NODES[:8], graph)
    assert found is not None
    assert (found.nodes, found.minimal) == ((NODES[1],), True)


@st.composite
def rules(draw: st.DrawFn) -> tuple[int, list[set[str]], list[str]]:
    """Size of a graph, the sets of which any one suffices, and a hint."""
    size = draw(st.integers(1, 40))
    names = NODES[:size]
    sets = draw(st.lists(st.sets(st.sampled_from(names), min_size=1, max_size=6), min_size=1, max_size=3))
    return size, sets, draw(st.lists(st.sampled_from(NODES), max_size=6))


@given(rules())
def test_what_is_found_passes_and_is_minimal(rule: tuple[int, list[set[str]], list[str]]) -> None:
    size, sets, hint = rule
    graph = Graph(lambda kept: any(enough <= kept for enough in sets))
    found = culprits(NODES[:size], graph, likeliest=hint, tries=1000)
    assert found is not None
    assert found.minimal
    assert set(found.nodes) in sets
    assert not any(other < set(found.nodes) for other in sets)
    assert found.tries == graph.asked
    assert graph.asked <= 2 + 13 * len(found.nodes)
    assert found == culprits(NODES[:size], graph, likeliest=hint, tries=1000)


@given(rules(), st.integers(1, 40))
def test_few_tries_are_never_exceeded_and_still_give_a_set_that_passes(
    rule: tuple[int, list[set[str]], list[str]], tries: int
) -> None:
    size, sets, hint = rule
    graph = Graph(lambda kept: any(enough <= kept for enough in sets))
    found = culprits(NODES[:size], graph, likeliest=hint, tries=tries)
    assert found is not None
    assert found.tries == graph.asked <= tries
    assert any(enough <= set(found.nodes) for enough in sets)
    assert not found.minimal or set(found.nodes) in sets
