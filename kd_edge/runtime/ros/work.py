"""What a configured node has and does: model, sources, publishers, and the thread that labels."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, cast

from kd_edge.artifact import default_model
from kd_edge.engines import EngineName, Provider
from kd_edge.errors import EngineError, KdEdgeError
from kd_edge.runtime.clock import MONOTONIC, Clock
from kd_edge.runtime.options import StreamOptions
from kd_edge.runtime.recognizer import MAX_SOURCES, Recognizer
from kd_edge.runtime.ros.annotated import AnnotatedImages
from kd_edge.runtime.ros.clock import RosClock
from kd_edge.runtime.ros.diagnostics import NodeFacts, Rate, SourceFacts
from kd_edge.runtime.ros.events import Events
from kd_edge.runtime.ros.labelling import Labelling
from kd_edge.runtime.ros.outputs import Changes, Messages, Outputs, set_label
from kd_edge.runtime.ros.parameters import Parameters
from kd_edge.runtime.ros.sources import Sources
from kd_edge.runtime.ros.waiting import WaitServer
from kd_edge.runtime.stream import LabelStream
from kd_edge.types import Cause, Prediction, Reason


class Work:
    """Made when the node is configured, closed when it is cleaned up; labels come between two transitions.

    Args:
        node: Of rclpy.
        told: Its parameters.
        live: The value that a parameter has now.
        messages: What is built here.
        waiting: Gets every prediction; None where kd_edge_msgs is not built.
        changed: Called when a camera's state is another one.
        over: Called once from the stream's thread when labels have ended by themselves, with what ended them.

    Raises:
        KdEdgeError: Model, topics or camera cannot be used; nothing stays open.
    """

    def __init__(
        self,
        node: Any,
        told: Parameters,
        live: Callable[[str], Any],
        messages: Messages,
        waiting: WaitServer | None,
        changed: Callable[[], None],
        over: Callable[[KdEdgeError | None], None],
    ) -> None:
        self._told, self._live, self._messages, self._waiting = told, live, messages, waiting
        self._changed, self._over = changed, over
        self._labelling: Labelling | None = None
        self._begin()
        with ExitStack() as opened:
            self.recognizer = opened.enter_context(loaded(told))
            is_simulated = live("use_sim_time") and not told.camera  # a camera of this machine knows no other time
            self.clock: Clock = RosClock(node) if is_simulated else MONOTONIC
            self._sources = Sources(node, told, self.recognizer.manifest, self.clock)
            opened.callback(self._sources.close)
            self._outputs = Outputs(node, told, messages, self.recognizer.manifest.labels)
            opened.callback(self._outputs.close)
            self._annotated = AnnotatedImages(node, told.annotated_fps)
            opened.callback(self._annotated.close)
            self._closing = opened.pop_all()

    def _begin(self) -> None:
        """Everything that one run of labels remembers."""
        self._changes, self._events = Changes(), Events()
        self._newest: dict[str, Prediction] = {}
        self._rates: dict[str, Rate] = {}

    def start(self) -> None:
        """Open the cameras and begin to label.

        Raises:
            KdEdgeError: A camera cannot be used; nothing stays open.
        """
        self._begin()
        labelling = Labelling(self._stream, self._tell, self._sources.has_new_lens, self._over)
        self._labelling = labelling  # before its thread asks for it
        try:
            labelling.start()
        except BaseException:
            self._labelling = None
            raise
        if self._waiting is not None:
            self._waiting.open(self._told.max_waits, self.recognizer.manifest.labels, labelling.names)

    def _stream(self) -> LabelStream:
        """A stream over new cameras; kd-edge's own recordings are paced by their stamps."""
        self.recognizer.hand_over()
        options = StreamOptions(realtime=True, trust=self._told.trust or None)
        return LabelStream(self.recognizer, self._sources.cameras(), options, self.clock)

    def stop(self, *, tell: bool = True) -> None:
        """End the labels; nothing is done where none come.

        Args:
            tell: Whether to publish for each camera that there are no more, for whoever acts on labels.

        Raises:
            EngineError: The thread hangs; it is left behind, and what it uses is not closed.
        """
        labelling, self._labelling = self._labelling, None
        if self._waiting is not None:
            self._waiting.waits.close("the node is not active")
        if labelling is None:
            return
        if not labelling.stop():
            self._closing.pop_all()
            raise EngineError("labels do not stop: the engine hangs", "an engine that answers", "restart the program")
        for name in labelling.names if tell else ():
            self._publish(self._last(name))

    def _last(self, name: str) -> Prediction:
        now_ns, last = self.clock.now_ns(), self._newest.get(name)
        frame_id, captured_ns = (-1, now_ns) if last is None else (last.frame_id, last.captured_ns)
        cause = Cause(Reason.NO_FRAME, "the node was deactivated")
        return self.recognizer.stale(name, frame_id, captured_ns, now_ns, cause)

    def close(self) -> None:
        """Stop, and give everything back; a second call does nothing."""
        try:
            self.stop()
        finally:
            self._closing.close()

    # In the stream's thread

    def _tell(self, prediction: Prediction) -> None:
        """What is done with every prediction of the stream."""
        self._take_live()
        before = self._newest.get(prediction.source)
        self._publish(prediction)
        self._rates.setdefault(prediction.source, Rate()).see(prediction.captured_ns)
        if before is None or (before.state, before.reason) != (prediction.state, prediction.reason):
            self._changed()

    def _take_live(self) -> None:
        """Parameters that may change while labels come."""
        self._events.min_confidence = self._live("event_min_confidence")
        self._annotated.fps = self._live("annotated_fps")
        labelling = self._labelling  # a stop in another thread takes it away
        if labelling is not None:
            labelling.set_max_age_ms(self._live("max_age_ms") or None)

    def _publish(self, prediction: Prediction) -> None:
        """One prediction in every form, with what it begins and ends."""
        origin = self._sources.origin(prediction)
        self._newest[prediction.source] = prediction
        is_change = self._changes.is_due(prediction)
        if is_change or self._live("publish") == "every":
            self._outputs.label(prediction, origin)
        for event in self._events.see(prediction, origin.stamp_ns):
            self._outputs.event(event, origin)
        if self._waiting is not None:
            self._waiting.waits.see(prediction, holds=not prediction.is_stale(self.clock.now_ns()))
        now_ns = self.clock.now_ns()
        if self._annotated.is_due(prediction.source, now_ns):
            labelling = self._labelling  # as above
            frame = None if labelling is None else labelling.frame_of(prediction.source)
            if frame is not None:
                self._annotated.publish(frame, prediction, origin, now_ns)

    # For others

    def held(self) -> list[Prediction]:
        """The predictions that hold now."""
        now_ns = self.clock.now_ns()
        return [each for each in tuple(self._newest.values()) if not each.is_stale(now_ns)]

    def label_message(self, prediction: Prediction) -> Any:
        """A prediction as ``ActionLabel``."""
        message = self._messages.label()
        set_label(message, prediction, self._sources.origin(prediction))
        return message

    def look(self) -> None:
        """Look at the topics' publishers; while labels come their cameras do that."""
        if self._labelling is None:
            self._sources.look()

    def node_facts(self, name: str, lifecycle: str, fault: str, namesakes: int) -> NodeFacts:
        """What is to be told of the node."""
        clock, labelling = self.clock, self._labelling
        return NodeFacts(
            name=name,
            lifecycle=lifecycle,
            fault=fault,
            model=self.recognizer.manifest.name,
            engine=self.recognizer.engine.name,
            degraded=self.recognizer.degraded_reason,
            namesakes=namesakes,
            is_simulated=isinstance(clock, RosClock),
            standstill=clock.trouble if isinstance(clock, RosClock) else "",
            statistics=None if labelling is None else labelling.statistics,
            waits=0 if self._waiting is None else len(self._waiting.waits),
        )

    def source_facts(self) -> list[SourceFacts]:
        """What is to be told of each camera."""
        labelling = self._labelling
        names = self._sources.names if labelling is None else labelling.names
        return [self._facts(name) for name in names]

    def _facts(self, name: str) -> SourceFacts:
        now_ns, prediction, rate = self.clock.now_ns(), self._newest.get(name), self._rates.get(name)
        age_ms = None if prediction is None else (now_ns - prediction.captured_ns) / 1e6
        fps = 0.0 if rate is None else rate.fps(now_ns)
        return SourceFacts(name, prediction, age_ms, fps, self._sources.facts(name))


def loaded(told: Parameters) -> Recognizer:
    """The model that a node's parameters name.

    Raises:
        KdEdgeError: It is not there, damaged, not trusted, or nothing here runs it.
    """
    return Recognizer.load(
        told.model or default_model(),
        engine=cast("EngineName", told.engine),
        threads=told.threads,
        provider=cast("Provider", told.provider) if told.provider else None,
        strict=told.strict,
        self_test="accept" if told.accept_self_test else "raise",
        valid_ms=told.valid_ms or None,
        max_sources=max(MAX_SOURCES, len(told.topics)),
        smooth_ms=None if told.smooth_ms < 0 else told.smooth_ms,
        trust=told.trust or None,
    )
