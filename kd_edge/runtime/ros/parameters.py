"""The parameters of the node: default, range, description, and whether they may change while labelling."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

from kd_edge.engines import EngineName, Provider
from kd_edge.errors import ConfigError, printable
from kd_edge.runtime.clock import ClockKind

Kind = Literal["bool", "int", "float", "str", "strs"]
"""Types of the node's parameters; ``strs`` is a list of strings."""
Publish = Literal["every", "change"]
Json = Literal["auto", "always", "never"]
SIMULATED = "use_sim_time"
"""Parameter declared by ROS itself; the stream's clock is fixed when the node is configured."""
LONGEST = 1024
"""Maximum number of characters of a text, or of an entry of a list."""
_TYPES: dict[Kind, tuple[type, ...]] = {
    "bool": (bool,), "int": (int,), "float": (float,), "str": (str,), "strs": (list, tuple)
}  # fmt: skip
_NAMES: dict[Kind, str] = {
    "bool": "true or false", "int": "a whole number", "float": "a number with a decimal point (5.0)",
    "str": "a text", "strs": "a list of texts ([/left/image, /right/image])",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of the node.

    Attributes:
        name: As in ``ros2 param set``.
        kind: Its type.
        default: Its default value.
        description: One line, with the unit and the meaning of the default.
        least: Minimum of a number.
        most: Maximum of a number.
        choices: Allowed texts; empty for any.
        live: Whether it may change in any state of the node; otherwise only while the node is unconfigured.
    """

    name: str
    kind: Kind
    default: Any
    description: str
    least: float | None = None
    most: float | None = None
    choices: tuple[str, ...] = ()
    live: bool = False

    def fault(self, value: object) -> str:
        """Return why a value is invalid and what is expected; empty if it is valid."""
        shown = printable(f"{value!r:.80}")
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not isinstance(value, _TYPES[self.kind]) or (self.kind in ("int", "float") and not is_number):
            return f"{shown}. Expected {_NAMES[self.kind]}"
        if isinstance(value, (int, float)) and self.least is not None and self.most is not None:
            inside = math.isfinite(value) and self.least <= value <= self.most
            return "" if inside else f"{shown}. Expected {self.least:g} to {self.most:g}"
        if self.choices and value not in self.choices:
            return f"{shown}. Expected one of {', '.join(choice or repr('') for choice in self.choices)}"
        if isinstance(value, str) and (len(value) > LONGEST or "\0" in value):
            return f"{shown}. Expected at most {LONGEST} characters"
        if isinstance(value, (list, tuple)):
            return self._list_fault(value)
        return ""

    def _list_fault(self, values: Sequence[object]) -> str:
        if not 1 <= len(values) <= 16:
            return f"{len(values)} entries. Expected 1 to 16"
        wrong = next((v for v in values if not isinstance(v, str) or not 0 < len(v) <= LONGEST), None)
        return "" if wrong is None else printable(f"the entry {wrong!r:.80}. Expected a text that is not empty")


def _declared(
    default: Any,
    description: str,
    *,
    within: tuple[float, float] | None = None,
    choices: tuple[str, ...] = (),
    live: bool = False,
) -> Any:
    least, most = within or (None, None)
    metadata = {"description": description, "least": least, "most": most, "choices": choices, "live": live}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """Values of all parameters when the node was configured; their descriptions define what empty and 0 mean."""

    autostart: bool = _declared(
        True, "Configure and activate by itself; false where a lifecycle manager does it. Read once, at the start."
    )
    model: str = _declared("", "Artifact (.onnx). Empty: the newest in the working folder, else the bundled one.")
    topics: tuple[str, ...] = _declared(
        ("image",),
        "Image or CompressedImage topics to label, up to 16; NAME=TOPIC gives one a name for its labels. "
        "'image' can be remapped.",
    )
    camera: str = _declared(
        "", "kd-edge's own camera instead of topics: a name, a URI (v4l2:/dev/video0) or NAME=URI. Empty: topics."
    )
    band: str = _declared(
        "",
        "What the topics' cameras see; a model for another band is refused. Empty: not checked.",
        choices=("", "nir", "lwir", "depth", "rgb"),
    )
    hfov_deg: float = _declared(
        0.0, "How many degrees wide the topics' images are. 0: as CameraInfo says, else the model.", within=(0, 157)
    )
    clock: str = _declared(
        "wall",
        "What header stamps are of: the time of day, a device's own clock, or nothing usable (arrival). "
        "With use_sim_time they are of /clock.",
        choices=tuple(kind for kind in get_args(ClockKind) if kind != "monotonic"),
    )
    reliability: str = _declared(
        "auto",
        "QoS of the topics. auto: reliable where every publisher offers it, else best_effort.",
        choices=("auto", "reliable", "best_effort"),
    )
    durability: str = _declared(
        "volatile", "QoS of the topics; transient_local also takes what was published before.",
        choices=("volatile", "transient_local"),
    )  # fmt: skip
    depth: int = _declared(5, "QoS of the topics: how many messages the middleware keeps.", within=(1, 100))
    pair_slop_ms: float = _declared(
        0.0, "Frames of several topics whose stamps differ by no more are labelled in one step. 0: as they come.",
        within=(0, 1000),
    )  # fmt: skip
    read_timeout_ms: int = _declared(1000, "No frame for so long means that the camera is gone.", within=(50, 60_000))
    reconnect_max_ms: int = _declared(
        1500, "Longest pause between two attempts to find a camera again.", within=(100, 60_000)
    )
    frozen_ms: int = _declared(2000, "The same picture for so long means that the camera hangs.", within=(100, 60_000))
    max_ahead_ms: int = _declared(
        50, "How far a frame's stamp may lie ahead of now before it counts as another clock's.", within=(0, 60_000)
    )
    frame_id: str = _declared("", "header.frame_id of labels of kd-edge's own camera. Empty: the camera's name.")
    engine: str = _declared("auto", "What runs the model.", choices=get_args(EngineName))
    provider: str = _declared("", "What the engine runs on. Empty: its own choice.", choices=("", *get_args(Provider)))
    threads: int = _declared(1, "How many threads the engine may use.", within=(1, 256))
    strict: bool = _declared(False, "Make any fallback of the engine an error.")
    accept_self_test: bool = _declared(False, "Run a model that fails its self-test; labels are 'degraded'.")
    trust: str = _declared("", "Public key, or folder of keys: the model must be signed with one. Empty: any model.")
    valid_ms: float = _declared(
        0.0, "How long a label holds after its frame. 0: as the model says.", within=(0, 3_600_000)
    )
    smooth_ms: float = _declared(
        -1.0, "How long a window counts in the label. -1: one segment spacing; 0: the newest alone.",
        within=(-1, 60_000),
    )  # fmt: skip
    max_age_ms: float = _declared(
        0.0, "Frames that are older when their turn comes are skipped. 0: none is.", within=(0, 3_600_000), live=True
    )
    publish: str = _declared(
        "every",
        "Labels of every frame, or when label, state or reason change and before the last one runs out.",
        choices=get_args(Publish),
        live=True,
    )
    json: str = _declared(
        "auto", "Labels and events as JSON, too. auto: where kd_edge_msgs is not built.", choices=get_args(Json)
    )
    classification: bool = _declared(True, "Labels as vision_msgs/Classification, too, where vision_msgs is built.")
    event_min_confidence: float = _declared(
        0.0, "How sure a label must be for an action to begin.", within=(0, 1), live=True
    )
    annotated_fps: float = _declared(
        5.0, "Most annotated images a second and camera, while somebody looks. 0: none.", within=(0, 60), live=True
    )
    diagnostics_period_s: float = _declared(
        1.0, "Seconds between two diagnostics; a change of state is reported at once.", within=(0.1, 60), live=True
    )
    max_waits: int = _declared(16, "How many callers may wait for a label at the same time.", within=(1, 256))

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Parameters:
        """Create from values that are each valid on their own.

        Raises:
            ConfigError: Two of them are incompatible.
        """
        taken: dict[str, Any] = {
            each.name: tuple(values[each.name]) if each.kind == "strs" else values[each.name]
            for each in PARAMETERS
            if each.name in values
        }
        made = cls(**taken)
        if 0 < made.valid_ms < 1:
            raise ConfigError(f"parameter valid_ms {made.valid_ms:g}", "0, or 1 to 3600000", "correct it")
        if made.camera and made.pair_slop_ms:
            raise ConfigError("parameter pair_slop_ms together with camera", "one of them", "only topics can be paired")
        return made


def _kind(default: Any) -> Kind:
    if isinstance(default, tuple):
        return "strs"
    kinds: dict[type, Kind] = {bool: "bool", int: "int", float: "float", str: "str"}
    return kinds[type(default)]


PARAMETERS: tuple[Parameter, ...] = tuple(
    Parameter(each.name, _kind(each.default), each.default, **each.metadata) for each in fields(Parameters)
)
"""All parameters, in the order of the documentation."""
BY_NAME = {each.name: each for each in PARAMETERS}


def refusal(name: str, value: object, *, is_configured: bool, is_started: bool = True) -> str:
    """Return why a parameter cannot be set to a value now, in one line; empty if it can, or is not one of ours.

    Args:
        name: As in ``ros2 param set``.
        value: The new value.
        is_configured: Whether the node is configured: inactive or active.
        is_started: Whether the node has finished starting.
    """
    if name == SIMULATED:
        return _settled(name) if is_configured else ""
    if name not in BY_NAME:
        return ""
    parameter = BY_NAME[name]
    if wrong := parameter.fault(value):
        return f"parameter {name} is {wrong}"
    if name == "autostart" and is_started:
        return "parameter autostart is read once, at the start: set it in the launch file or the parameter file"
    return _settled(name) if is_configured and not parameter.live else ""


def _settled(name: str) -> str:
    return f"parameter {name} is read when the node is configured: deactivate and clean it up first"
