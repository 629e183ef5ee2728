"""Waiting for a label without holding up the executor: what a behaviour tree asks by service or action."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from kd_edge.errors import did_you_mean, printable
from kd_edge.runtime.ros.loading import load
from kd_edge.runtime.ros.outputs import Messages
from kd_edge.types import Prediction

LONGEST_SECONDS = 3600.0
"""Nobody may wait longer."""
TICK_SECONDS = 0.05
"""How often time-outs and cancellations are looked for, while anybody waits."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a caller waits for.

    Attributes:
        label: The action.
        source: Name of the camera; empty for any.
        min_confidence: How sure the label must be, 0 to 1.
        seconds: How long to wait at most; 0 asks what holds now.
    """

    label: str
    source: str
    min_confidence: float
    seconds: float

    def fault(self, labels: Sequence[str], sources: Sequence[str]) -> str:
        """Why no label can ever be what is wanted; empty where one can.

        Args:
            labels: Of the model.
            sources: Names of the cameras.
        """
        if self.label not in labels:
            found = f"label '{self.label:.80}' is none of the model's{did_you_mean(self.label, labels)}"
            return printable(f"{found}. Expected one of {', '.join(labels)}")
        if self.source and self.source not in sources:
            found = f"source '{self.source:.80}' is no camera of this node"
            return printable(f"{found}. Expected {', '.join(sources)}, or none")
        if not 0 <= self.min_confidence <= 1:  # nor is NaN
            return f"min_confidence {self.min_confidence:g}. Expected 0 to 1"
        if not (math.isfinite(self.seconds) and 0 <= self.seconds <= LONGEST_SECONDS):
            return f"timeout {self.seconds:g} s. Expected 0 to {LONGEST_SECONDS:g} s"
        return ""

    def is_met(self, prediction: Prediction) -> bool:
        """Whether a label that may be acted on now is what is wanted."""
        return (
            prediction.label == self.label
            and prediction.confidence >= self.min_confidence
            and self.source in ("", prediction.source)
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """How a wait ended.

    Attributes:
        success: Whether the label came.
        prediction: The one that it ended with; None where there never was one.
        message: Why it did not come; empty where it did.
        is_cancelled: Whether the caller took it back.
    """

    success: bool
    prediction: Prediction | None
    message: str = ""
    is_cancelled: bool = False


class Wait:
    """One caller that waits.

    Args:
        wanted: For what.
        deadline: By ``time.monotonic``.
        future: Gets the answer.
        tell: Is told of each change of the label meanwhile.
        is_cancelled: Asked now and then.
    """

    def __init__(
        self,
        wanted: Wanted,
        deadline: float,
        future: Any,
        tell: Callable[[Prediction], None] | None,
        is_cancelled: Callable[[], bool],
    ) -> None:
        self.wanted, self.deadline, self.future, self.is_cancelled = wanted, deadline, future, is_cancelled
        self._tell = tell
        self.newest: Prediction | None = None

    def see(self, prediction: Prediction) -> bool:
        """Whether this prediction is what is waited for."""
        if self.wanted.source not in ("", prediction.source):
            return False
        before, self.newest = self.newest, prediction
        changed = before is None or (before.source, before.label, before.state, before.reason) != (
            prediction.source, prediction.label, prediction.state, prediction.reason
        )  # fmt: skip
        if changed and self._tell is not None:
            self._tell(prediction)
        return self.wanted.is_met(prediction)

    def end(self, answer: Answer) -> None:
        """Let the caller go on."""
        self.future.set_result(answer)


class Waits:
    """All callers that wait; thread-safe.

    Args:
        make_future: What a caller awaits: ``rclpy.task.Future``.
        wake: Called when an answer is there, so that an executor that sleeps looks at it.
        now: Seconds.

    Attributes:
        closed: Why nobody can wait now; empty while callers can.
    """

    def __init__(
        self, make_future: Callable[[], Any], wake: Callable[[], None], now: Callable[[], float] = time.monotonic
    ) -> None:
        self._make_future, self._wake, self._now = make_future, wake, now
        self._lock = threading.Lock()
        self._waiting: list[Wait] = []
        self._most = 0
        self.closed = "the node is not active"

    def __len__(self) -> int:
        return len(self._waiting)

    def open(self, most: int) -> None:
        """Take callers from now on, so many at once."""
        with self._lock:
            self._most, self.closed = most, ""

    def begin(
        self,
        wanted: Wanted,
        newest: Sequence[Prediction],
        tell: Callable[[Prediction], None] | None = None,
        is_cancelled: Callable[[], bool] = lambda: False,
    ) -> Any:
        """Begin to wait.

        Args:
            wanted: What can come (``Wanted.fault``).
            newest: The predictions that hold now, one a camera.
            tell: Is told of each change of the label meanwhile, from the stream's thread.
            is_cancelled: Whether the caller has taken it back.

        Returns:
            What to await: a future of an ``Answer``, which may be there at once.
        """
        wait = Wait(wanted, self._now() + wanted.seconds, self._make_future(), tell, is_cancelled)
        met = next((p for p in newest if wait.see(p)), None)
        with self._lock:
            refused = self.closed or (f"{self._most} callers wait already (max_waits)" if self._is_full else "")
            if not refused and met is None and wanted.seconds > 0:
                self._waiting.append(wait)
                return wait.future
        if refused:
            return self.refused(refused, wait.newest)
        if met is not None:
            wait.end(Answer(True, met))
        else:
            wait.end(_too_late(wait))
        return wait.future

    def refused(self, why: str, newest: Prediction | None = None) -> Any:
        """A future whose answer is there: no."""
        future = self._make_future()
        future.set_result(Answer(False, newest, why))
        return future

    @property
    def _is_full(self) -> bool:
        return len(self._waiting) >= self._most

    def see(self, prediction: Prediction, *, holds: bool = True) -> None:
        """A prediction was made.

        Args:
            prediction: The newest of its camera.
            holds: Whether it has not run out meanwhile; one that has ends no wait.
        """
        self._end_those(lambda wait: Answer(True, prediction) if wait.see(prediction) and holds else None)

    def look(self) -> None:
        """Let those go whose time is over or who were taken back."""
        now = self._now()
        self._end_those(lambda wait: _cancelled(wait) if wait.is_cancelled() else None)
        self._end_those(lambda wait: _too_late(wait) if now >= wait.deadline else None)

    def close(self, why: str) -> None:
        """Let all go, and take nobody any more."""
        with self._lock:
            self.closed = why
        self._end_those(lambda wait: Answer(False, wait.newest, why))

    def _end_those(self, answer_of: Callable[[Wait], Answer | None]) -> None:
        if not self._waiting:
            return
        with self._lock:
            answers = [(wait, answer_of(wait)) for wait in self._waiting]
            self._waiting = [wait for wait, answer in answers if answer is None]
        for wait, answer in answers:
            if answer is not None:
                wait.end(answer)
        if len(self._waiting) < len(answers):
            self._wake()


def _too_late(wait: Wait) -> Answer:
    last = wait.newest
    held = "no label came at all" if last is None else f"the last was {last.label or last.state.value}"
    if last is not None and last.reason:
        held += f" ({last.reason.value})"
    return Answer(False, last, f"no '{wait.wanted.label}' in {wait.wanted.seconds:g} s: {held}")


def _cancelled(wait: Wait) -> Answer:
    return Answer(False, wait.newest, "cancelled", is_cancelled=True)


class WaitServer:
    """The service ``~/wait_for_label`` and the action ``~/wait_for_label_action``.

    They are there as long as the node: who asks one that is not active is told so at once, and a caller is still
    answered while the node is taken down.

    Args:
        node: Theirs.
        messages: With the types of kd_edge_msgs.
        newest: The predictions that hold now.
        label_message: A prediction as ``ActionLabel``.

    Attributes:
        waits: Those who wait.
    """

    def __init__(
        self,
        node: Any,
        messages: Messages,
        newest: Callable[[], Sequence[Prediction]],
        label_message: Callable[[Prediction], Any],
    ) -> None:
        self._messages, self._newest, self._label_message = messages, newest, label_message
        self._labels: Sequence[str] = ()
        self._sources: Sequence[str] = ()
        action, clock = load("rclpy.action"), load("rclpy.clock")
        group = load("rclpy.callback_groups").ReentrantCallbackGroup()  # one that waits does not hold up the others
        self._guard = node.create_guard_condition(lambda: None, group)
        self.waits = Waits(load("rclpy.task").Future, self._wake)
        self._ticking = threading.Lock()
        steady = clock.Clock(clock_type=clock.ClockType.STEADY_TIME)
        self._timer = node.create_timer(TICK_SECONDS, self._look, group, clock=steady)
        self._timer.cancel()  # goes only while somebody waits
        node.create_service(messages.service, "~/wait_for_label", self._serve, callback_group=group)
        self._action = action.ActionServer(
            node,
            messages.action,
            "~/wait_for_label_action",
            self._execute,
            callback_group=group,
            goal_callback=lambda goal: action.GoalResponse.ACCEPT,  # why one is refused stands in its result
            cancel_callback=lambda goal: action.CancelResponse.ACCEPT,
        )

    def open(self, most: int, labels: Sequence[str], sources: Sequence[str]) -> None:
        """Let callers wait from now on.

        Args:
            most: How many at once.
            labels: Of the model.
            sources: Names of the cameras.
        """
        self._labels, self._sources = labels, sources
        self.waits.open(most)

    def destroy(self) -> None:
        """Take the action back, before the node is destroyed."""
        self._action.destroy()

    def _wake(self) -> None:
        with suppress(Exception):  # the node may be gone by now
            self._guard.trigger()

    def _look(self) -> None:
        self.waits.look()
        with self._ticking:
            if not len(self.waits):
                self._timer.cancel()

    def _begin(
        self,
        request: Any,
        tell: Callable[[Prediction], None] | None = None,
        is_cancelled: Callable[[], bool] = lambda: False,
    ) -> Any:
        """What to await for an answer."""
        seconds = request.timeout.sec + request.timeout.nanosec / 1e9
        wanted = Wanted(request.label, request.source, float(request.min_confidence), seconds)
        if not self.waits.closed and (fault := wanted.fault(self._labels, self._sources)):
            return self.waits.refused(fault)
        with self._ticking:
            future = self.waits.begin(wanted, self._newest(), tell, is_cancelled)
            if len(self.waits):
                self._timer.reset()
        return future

    async def _serve(self, request: Any, response: Any) -> Any:
        return self._filled(response, await self._begin(request))

    async def _execute(self, goal: Any) -> Any:
        def tell(prediction: Prediction) -> None:
            feedback = self._messages.action.Feedback()
            feedback.label = self._label_message(prediction)
            with suppress(Exception):  # its client is gone, or the node
                goal.publish_feedback(feedback)

        answer = await self._begin(goal.request, tell, lambda: bool(goal.is_cancel_requested))
        if answer.is_cancelled:
            goal.canceled()
        elif answer.success:
            goal.succeed()
        else:
            goal.abort()
        return self._filled(self._messages.action.Result(), answer)

    def _filled(self, response: Any, answer: Answer) -> Any:
        response.success, response.message = answer.success, answer.message
        if answer.prediction is not None:
            response.label = self._label_message(answer.prediction)
        return response
