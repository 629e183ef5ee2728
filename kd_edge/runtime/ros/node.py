"""The node ``action_recognition``: live labels inside a robot's own graph of ROS 2."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any, cast

from kd_edge.artifact import default_model
from kd_edge.engines import EngineName, Provider
from kd_edge.errors import ConfigError, KdEdgeError, printable, reason
from kd_edge.runtime.clock import MONOTONIC, Clock
from kd_edge.runtime.recognizer import MAX_SOURCES, Recognizer
from kd_edge.runtime.ros.annotated import AnnotatedImages
from kd_edge.runtime.ros.clock import RosClock
from kd_edge.runtime.ros.diagnostics import (
    NodeFacts,
    Rate,
    SourceFacts,
    Status,
    diagnostic_array,
    node_status,
    source_status,
)
from kd_edge.runtime.ros.events import Events
from kd_edge.runtime.ros.labelling import Labelling
from kd_edge.runtime.ros.loading import load
from kd_edge.runtime.ros.outputs import Changes, Messages, Outputs, set_label
from kd_edge.runtime.ros.parameters import PARAMETERS, Parameter, Parameters, refusal
from kd_edge.runtime.ros.sources import Sources, clock_for
from kd_edge.runtime.ros.waiting import WaitServer
from kd_edge.runtime.statistics import Statistics
from kd_edge.runtime.stream import LabelStream, StreamOptions
from kd_edge.types import Cause, Prediction, Reason

log = logging.getLogger("kd_edge.runtime")

NAME = "action_recognition"
CONFIGURED = ("inactive", "active")
"""States in which model and topics are there."""


def _lifecycle_node() -> type:
    """The lifecycle node of rclpy; where there is no ROS this module can be read, and the node not be made."""
    try:
        return cast("type", load("rclpy.lifecycle").LifecycleNode)
    except ConfigError:
        return object


class ActionRecognition(_lifecycle_node()):  # type: ignore[misc]
    """Labels image topics, or a camera of kd-edge's own, and publishes labels, events and diagnostics.

    A lifecycle node: ``configure`` loads the model, subscribes and makes publishers; ``activate`` begins to label;
    ``deactivate`` ends that; ``cleanup`` gives everything back. With the parameter ``autostart`` it configures and
    activates itself. In a program of one's own: ``executor.add_node(ActionRecognition(namespace="left"))``.

    Args:
        node_name: Of the node.
        options: What rclpy's ``Node`` takes besides: ``namespace``, ``parameter_overrides``, ``context``, ...

    Attributes:
        fault: What keeps it from labelling, in one line; empty where nothing does.
        over: Set when it has started by itself and labels can come no more.
        exit_code: What a program that runs only this node is to end with, once it is over.

    Raises:
        ConfigError: ROS 2 is not there, or lacks something.
    """

    def __init__(self, node_name: str = NAME, **options: Any) -> None:
        load("rclpy.lifecycle")
        super().__init__(node_name, **options)
        self.fault, self.exit_code, self.over = "", 0, threading.Event()
        self._lifecycle = "unconfigured"
        self._wrong: dict[str, str] = {}  # parameters that were given and cannot be
        self._closing = ExitStack()
        self._labelling: Labelling | None = None
        self._ended: Callable[[], None] | None = None
        self._newest: dict[str, Prediction] = {}
        self._rates: dict[str, Rate] = {}
        self._namesakes = 0
        self._clock: Clock = MONOTONIC
        self._messages = Messages.built()
        self._is_started = False
        self._declare()
        self._is_started = True
        self._waiting = self._wait_server()
        self._diagnostics = load("diagnostic_msgs.msg")
        self._diagnostics_publisher = self.create_publisher(self._diagnostics.DiagnosticArray, "/diagnostics", 10)
        clock = load("rclpy.clock")
        steady = clock.Clock(clock_type=clock.ClockType.STEADY_TIME)  # simulated time may stand still
        self._steady = steady
        self._ticking = self._ticker()
        self._over_guard = self.create_guard_condition(self._deactivate_itself)
        self._start = self.create_timer(0.0, self._start_itself, clock=steady) if self._value("autostart") else None
        self.context.on_shutdown(self._context_gone)

    # What ROS asks for

    def on_configure(self, state: Any) -> Any:
        """Load the model, subscribe, make publishers."""
        return self._transition("configured", self._configure, "inactive")

    def on_activate(self, state: Any) -> Any:
        """Begin to label."""
        return self._transition("activated", self._activate, "active")

    def on_deactivate(self, state: Any) -> Any:
        """End labelling; a last label says that there are no more."""
        return self._transition("deactivated", self._deactivate, "inactive")

    def on_cleanup(self, state: Any) -> Any:
        """Give everything back."""
        return self._transition("cleaned up", self._clean_up, "unconfigured")

    def on_shutdown(self, state: Any) -> Any:
        """The same from any state, for good."""
        return self._transition("shut down", self._stop_all, "finalized")

    def on_error(self, state: Any) -> Any:
        """After what was not foreseen: give everything back and be unconfigured again."""
        returns = load("rclpy.lifecycle").TransitionCallbackReturn
        with suppress(Exception):  # it was told already
            self._stop_all()
        self._lifecycle = "unconfigured"
        return returns.SUCCESS

    def destroy_node(self) -> Any:
        """Stop everything, whatever the state; no thread is left."""
        with suppress(Exception):
            self._stop_all()
        if self._waiting is not None:
            self._waiting.destroy()
        return super().destroy_node()

    # Transitions

    def _transition(self, done: str, work: Callable[[], None], state: str) -> Any:
        """Do what a transition asks; a fault is one line in the log and in the diagnostics, and no change of state."""
        returns = load("rclpy.lifecycle").TransitionCallbackReturn
        try:
            work()
        except KdEdgeError as error:
            self._fail(f"not {done}: {error}", error.exit_code)
            return returns.FAILURE
        except Exception as error:  # rclpy would not tell
            log.debug("not %s", done, exc_info=True)
            self._fail(printable(f"not {done}: {type(error).__name__}: {reason(error)}"), 1)
            return returns.ERROR
        self._lifecycle, self.fault = state, ""
        self._report()
        return returns.SUCCESS

    def _fail(self, fault: str, exit_code: int) -> None:
        self.fault, self.exit_code = fault, exit_code
        self.get_logger().error(fault)
        self._report()

    def _configure(self) -> None:
        if self._wrong:
            raise ConfigError(next(iter(self._wrong.values())), "a value it can have", "correct it, or leave it out")
        told = Parameters.of({each.name: self._value(each.name) for each in PARAMETERS})
        with ExitStack() as opened:
            recognizer = opened.enter_context(self._loaded(told))
            self._clock = clock_for(self, MONOTONIC)
            sources = Sources(self, told, recognizer.manifest, self._clock)
            opened.callback(sources.close)
            outputs = Outputs(self, told, self._messages, recognizer.manifest.labels)
            opened.callback(outputs.close)
            annotated = AnnotatedImages(self, told.annotated_fps)
            opened.callback(annotated.close)
            self._told, self._recognizer, self._sources = told, recognizer, sources
            self._outputs, self._annotated = outputs, annotated
            self._closing = opened.pop_all()
        self._newest, self._rates = {}, {}

    def _loaded(self, told: Parameters) -> Recognizer:
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

    def _activate(self) -> None:
        self._changes, self._events = Changes(), Events()
        self._newest, self._rates = {}, {}
        labelling = Labelling(self._stream, self._tell, self._sources.has_new_lens, self._labels_over)
        labelling.start()
        self._labelling = labelling
        if self._waiting is not None:
            self._waiting.open(self._told.max_waits, self._recognizer.manifest.labels, labelling.names)

    def _stream(self) -> LabelStream:
        """A stream over new cameras; kd-edge's own recordings are paced by their stamps."""
        self._recognizer.hand_over()
        options = StreamOptions(realtime=True, trust=self._told.trust or None)
        return LabelStream(self._recognizer, self._sources.cameras(), options, self._clock)

    def _deactivate(self) -> None:
        labelling, self._labelling = self._labelling, None
        if self._waiting is not None:
            self._waiting.waits.close("the node is not active")
        if labelling is None:
            return
        if not labelling.stop():
            self._closing.pop_all()  # what hangs may still use it
            raise RuntimeError("labels do not stop: the engine hangs")
        for name in labelling.names:
            self._tell_over(name)

    def _tell_over(self, name: str) -> None:
        """Whoever acts on labels is told that there are no more."""
        now_ns, last = self._clock.now_ns(), self._newest.get(name)
        frame_id, captured_ns = (-1, now_ns) if last is None else (last.frame_id, last.captured_ns)
        cause = Cause(Reason.NO_FRAME, "the node was deactivated")
        self._publish(self._recognizer.stale(name, frame_id, captured_ns, now_ns, cause))

    def _clean_up(self) -> None:
        self._closing.close()
        self._newest, self._rates = {}, {}

    def _stop_all(self) -> None:
        try:
            self._deactivate()
        finally:
            self._clean_up()

    def _context_gone(self) -> None:
        """ROS was shut down by somebody else: nothing can be published any more."""
        labelling, self._labelling = self._labelling, None
        if labelling is not None:
            labelling.stop()

    # Starting and ending by itself

    def _start_itself(self) -> None:
        returns = load("rclpy.lifecycle").TransitionCallbackReturn
        if self._start is None or self._lifecycle != "unconfigured":
            return
        self.destroy_timer(self._start)
        self._start = None
        begun = self.trigger_configure() == returns.SUCCESS and self.trigger_activate() == returns.SUCCESS
        if not begun:
            self.over.set()

    def _labels_over(self, error: KdEdgeError | None) -> None:
        """From the stream's thread: no label comes any more."""
        self._ended = partial(self._end, error)
        with suppress(Exception):  # ROS may be gone
            self._over_guard.trigger()

    def _deactivate_itself(self) -> None:
        ended, self._ended = self._ended, None
        if ended is not None:
            ended()

    def _end(self, error: KdEdgeError | None) -> None:
        if self._lifecycle != "active":
            return
        self.trigger_deactivate()
        if error is not None:
            self._fail(str(error), error.exit_code)
        if self._value("autostart"):
            self.over.set()

    # Labels; all of these run in the stream's thread

    def _tell(self, prediction: Prediction) -> None:
        self._take_live()
        before = self._newest.get(prediction.source)
        self._publish(prediction)
        if prediction.index >= 0 or prediction.reason is Reason.START:
            self._rates.setdefault(prediction.source, Rate()).see(prediction.captured_ns)
        if before is None or (before.state, before.reason) != (prediction.state, prediction.reason):
            self._report()

    def _publish(self, prediction: Prediction) -> None:
        """One prediction in every form, with what it begins and ends."""
        origin = self._sources.origin(prediction)
        self._newest[prediction.source] = prediction
        is_due = self._changes.is_due(prediction)
        if is_due or self._value("publish") == "every":
            self._outputs.label(prediction, origin)
        for event in self._events.see(prediction, origin.stamp_ns):
            self._outputs.event(event, origin)
        if self._waiting is not None:
            self._waiting.waits.see(prediction)
        now_ns = self._clock.now_ns()
        if self._annotated.is_due(prediction.source, now_ns):
            frame = None if self._labelling is None else self._labelling.frame_of(prediction.source)
            if frame is not None:
                self._annotated.publish(frame, prediction, origin, now_ns)

    def _take_live(self) -> None:
        """Parameters that may change while labels come."""
        self._events.min_confidence = self._value("event_min_confidence")
        self._annotated.fps = self._value("annotated_fps")
        if self._labelling is not None:
            self._labelling.set_max_age_ms(self._value("max_age_ms") or None)

    # Waiting for a label

    def _wait_server(self) -> WaitServer | None:
        return WaitServer(self, self._messages, self._held, self._label_message) if self._messages.are_typed else None

    def _held(self) -> list[Prediction]:
        """The predictions that hold now."""
        now_ns = self._clock.now_ns()
        return [each for each in tuple(self._newest.values()) if not each.is_stale(now_ns)]

    def _label_message(self, prediction: Prediction) -> Any:
        message = self._messages.label()
        set_label(message, prediction, self._sources.origin(prediction))
        return message

    # Diagnostics

    def _ticker(self) -> Any:
        return self.create_timer(self._value("diagnostics_period_s"), self._tick, clock=self._steady)

    def _tick(self) -> None:
        """Once in a period: look at the graph, and say how things are."""
        self._see_namesakes()
        if self._lifecycle == "inactive":
            self._sources.look()
        self._report()
        if self._ticking.timer_period_ns != round(self._value("diagnostics_period_s") * 1e9):
            self.destroy_timer(self._ticking)
            self._ticking = self._ticker()

    def _see_namesakes(self) -> None:
        own = (self.get_name(), self.get_namespace())
        namesakes = max(0, self.get_node_names_and_namespaces().count(own) - 1)
        if namesakes and not self._namesakes:
            self.get_logger().warning(
                f"{namesakes + 1} nodes are called {self.get_fully_qualified_name()}: give each a name of its own "
                "(--ros-args -r __node:=NAME); one that has just crashed is seen for some seconds more"
            )
        self._namesakes = namesakes

    def _report(self) -> None:
        """Publish diagnostics; at once where the state has changed."""
        if not self.context.ok():
            return
        kinds = self._diagnostics
        message = diagnostic_array(self._statuses(), kinds.DiagnosticArray, kinds.DiagnosticStatus, kinds.KeyValue)
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics_publisher.publish(message)

    def _statuses(self) -> list[Status]:
        facts = self._facts()
        names = self._names() if self._lifecycle in CONFIGURED else ()
        return [node_status(facts), *(source_status(facts, self._source_facts(name)) for name in names)]

    def _names(self) -> tuple[str, ...]:
        labelling = self._labelling
        return self._sources.names if labelling is None else labelling.names

    def _facts(self) -> NodeFacts:
        has_model, clock, labelling = self._lifecycle in CONFIGURED, self._clock, self._labelling
        statistics: Statistics | None = None if labelling is None else labelling.statistics
        return NodeFacts(
            name=self.get_fully_qualified_name(),
            lifecycle=self._lifecycle,
            fault=self.fault,
            model=self._recognizer.manifest.name if has_model else "",
            engine=self._recognizer.engine.name if has_model else "",
            degraded=self._recognizer.degraded_reason if has_model else "",
            namesakes=self._namesakes,
            standstill=clock.trouble if isinstance(clock, RosClock) else "",
            is_simulated=isinstance(clock, RosClock),
            statistics=statistics,
            waits=0 if self._waiting is None else len(self._waiting.waits),
        )

    def _source_facts(self, name: str) -> SourceFacts:
        prediction, rate, now_ns = self._newest.get(name), self._rates.get(name), self._clock.now_ns()
        age_ms = None if prediction is None else (now_ns - prediction.captured_ns) / 1e6
        return SourceFacts(
            name, prediction, age_ms, 0.0 if rate is None else rate.fps(now_ns), self._sources.facts(name)
        )

    # Parameters

    def _value(self, name: str) -> Any:
        return self.get_parameter(name).value

    def _declare(self) -> None:
        """Declare all parameters; one that was given and cannot be has its default, and configuring fails with it."""
        self.add_on_set_parameters_callback(self._judge)
        for each in PARAMETERS:
            default = list(each.default) if each.kind == "strs" else each.default
            descriptor = _descriptor(each)
            try:
                self.declare_parameter(each.name, default, descriptor)
            except Exception as error:  # rclpy's, of the type or the range of what was given
                self._wrong[each.name] = printable(f"parameter {each.name}: {reason(error)}")
                self.declare_parameter(each.name, default, descriptor, ignore_override=True)

    def _judge(self, parameters: list[Any]) -> Any:
        """Whether parameters may be set now, all or none."""
        is_configured = self._lifecycle in CONFIGURED
        refused = [
            why
            for p in parameters
            if (why := refusal(p.name, p.value, is_configured=is_configured, is_started=self._is_started))
        ]
        if not refused and self._is_started:
            for p in parameters:
                self._wrong.pop(p.name, None)
        result = load("rcl_interfaces.msg").SetParametersResult
        return result(successful=not refused, reason=refused[0] if refused else "")


def _descriptor(parameter: Parameter) -> Any:
    """What tools such as rqt show of a parameter."""
    messages = load("rcl_interfaces.msg")
    made = messages.ParameterDescriptor(name=parameter.name, description=parameter.description)
    if parameter.choices:
        choices = ", ".join(choice or "(empty)" for choice in parameter.choices)
        made.additional_constraints = f"one of {choices}"
    if not parameter.live:
        made.additional_constraints = "; ".join(
            filter(None, (made.additional_constraints, "changes only while the node is unconfigured"))
        )
    if parameter.kind == "int":
        least, most = cast("float", parameter.least), cast("float", parameter.most)
        made.integer_range = [messages.IntegerRange(from_value=int(least), to_value=int(most), step=0)]
    if parameter.kind == "float":
        made.floating_point_range = [
            messages.FloatingPointRange(from_value=float(parameter.least or 0), to_value=float(parameter.most or 0))
        ]
    return made
