"""The runner by itself: how many sources fit, when another engine goes on, and when nothing does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from kd_edge.engines import Binding
from kd_edge.errors import ArtifactError, EngineError
from kd_edge.runtime.runner import StepRunner
from kd_edge.types import Reason

from .conftest import TinyStep, tiny_manifest
from .stepped import TinyEngine

STEP = TinyStep(tiny_manifest())


class RoomFor(TinyEngine):
    """Has room for so many sources; its ``failing`` runs are the first ones."""

    def __init__(self, most: int = 8, failing: int = 0, name: str = "tiny") -> None:
        super().__init__(STEP)
        self.most, self.failures, self.name = most, failing, name
        self.asked: list[int] = []
        self.closed = 0

    def close(self) -> None:
        self.closed += 1

    def bind(self, batch: int) -> Binding:
        self.asked.append(batch)
        if batch > self.most:
            raise ArtifactError(f"{self.name} has no memory for {batch}", "memory", "push fewer at once")
        return super().bind(batch)


class Rungs:
    """A ladder of engines that are there already."""

    def __init__(self, engines: Sequence[TinyEngine]) -> None:
        self.left = list(engines)
        self.whys: list[str] = []

    def step_down(self, why: str) -> TinyEngine | None:
        self.whys.append(why)
        if not self.left:
            return None
        engine = self.left.pop(0)
        engine.fallback_reason = f"{why}; {engine.name} goes on"
        return engine

    def awaited(self) -> str | None:
        return "tensorrt"


def runner(*engines: TinyEngine) -> tuple[StepRunner, Rungs]:
    ladder: Any = Rungs(engines[1:])
    return StepRunner(STEP.manifest, engines[0], ladder=ladder), ladder


def test_an_engine_without_room_is_asked_for_half_as_much_from_then_on() -> None:
    engine = RoomFor(most=2)
    alone = StepRunner(STEP.manifest, engine)
    assert alone.room is None
    assert alone.bind_or_step_down(5) is None
    assert alone.room == 2
    assert alone.bind_or_step_down(2) is alone.binding(2)
    assert engine.asked == [5, 2]  # arrays are made once
    assert alone.degraded.reason is Reason.NONE
    assert alone.awaited is None


def test_an_engine_that_says_how_much_room_it_has_is_believed() -> None:
    engine: Any = RoomFor()
    engine.max_batch = 3
    assert StepRunner(STEP.manifest, engine).room == 3


def test_no_room_for_a_single_source_is_an_error() -> None:
    with pytest.raises(ArtifactError, match="has no memory for 1"):
        StepRunner(STEP.manifest, RoomFor(most=0)).bind_or_step_down(1)


def test_the_next_engine_has_room_and_nobody_asks_the_first_again() -> None:
    both, ladder = runner(RoomFor(most=1, name="small"), RoomFor(most=4, name="large"))
    both.binding(1)
    assert both.bind_or_step_down(4) is both.binding(4)
    assert both.engine.name == "large"
    assert both.room is None
    assert (both.degraded.reason, both.degraded.detail) == (
        Reason.FALLBACK,
        "small has no memory for 4; large goes on",
    )
    assert ladder.whys == ["small has no memory for 4"]
    assert both.awaited == "tensorrt"


def test_where_the_next_engine_has_no_room_either_it_is_asked_for_half_as_much() -> None:
    both, ladder = runner(RoomFor(most=1), RoomFor(most=2), RoomFor(most=8))
    assert both.bind_or_step_down(4) is None
    assert both.room == 2
    assert both.bind_or_step_down(2) is not None
    assert len(ladder.whys) == 1  # once is enough: what fails now is no engine's fault alone


def test_a_step_that_failed_is_run_again_on_the_same_inputs() -> None:
    both, _ = runner(RoomFor(failing=99), RoomFor(name="next"))
    given = both.binding(2)
    rng = np.random.default_rng(0)
    for array in given.inputs.values():
        array[:] = rng.normal(size=array.shape)
    expected = TinyEngine(STEP).bind(2)
    for name, array in expected.inputs.items():
        array[:] = given.inputs[name]
    expected.run()
    done = both.run(given, 2)
    assert done is not given
    np.testing.assert_array_equal(done.logits, expected.logits)
    assert both.engine.name == "next"


def test_the_second_failure_is_nobodys_to_mend() -> None:
    second = RoomFor()
    both, ladder = runner(RoomFor(failing=99), second, RoomFor())
    given = both.run(both.binding(1), 1)
    second.failures = 1
    with pytest.raises(ArtifactError, match="out of memory"):
        both.run(given, 1)
    assert both.run(given, 1) is given  # the same engine, which failed once only
    assert len(ladder.whys) == 1


def test_closing_twice_closes_once() -> None:
    engine = RoomFor()
    alone = StepRunner(STEP.manifest, engine)
    alone.close()
    alone.close()
    assert engine.closed == 1


def test_one_that_is_closed_while_it_steps_down_leaves_no_engine_open() -> None:
    """Not by a recogniser, which waits for its push: also what runs a step by itself may be closed at any moment."""
    first, second = RoomFor(failing=1), RoomFor()
    both, ladder = runner(first, second)
    step_down = ladder.step_down
    ladder.step_down = lambda why: (both.close(), step_down(why))[1]  # type: ignore[method-assign]
    with pytest.raises(EngineError, match="closed while a fallback engine was being opened"):
        both.run(both.binding(1), 1)
    assert (first.closed, second.closed) == (1, 1)
    both.close()
    assert (first.closed, second.closed) == (1, 1)


def test_one_that_is_retired_opens_no_other_engine() -> None:
    both, ladder = runner(RoomFor(failing=1), RoomFor())
    both.retire()
    with pytest.raises(EngineError, match="closed while a fallback engine was being opened"):
        both.run(both.binding(1), 1)
    assert ladder.whys == []


def test_warming_up_takes_the_first_engine_that_runs() -> None:
    three, ladder = runner(RoomFor(failing=1), RoomFor(most=0), RoomFor(name="third"))
    three.prove(accept=False)
    assert three.engine.name == "third"
    assert len(ladder.whys) == 2
    assert three.self_test_error is None
    alone, _ = runner(RoomFor(failing=1))
    with pytest.raises(ArtifactError, match="out of memory"):
        alone.prove(accept=False)
