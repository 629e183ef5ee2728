"""A fake of ROS 2's ``launch`` and ``launch_ros``: it records what a launch file declares, and starts nothing.

It knows the names that launch files of this repository use, each with the keywords that the real one has since Humble;
any other keyword is a TypeError. Wheels of the real ones do not exist.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

PACKAGES = Path(__file__).parents[2] / "launch/ros2"


class LaunchContext:
    def __init__(self, environment: Mapping[str, str]) -> None:
        self.launch_configurations: dict[str, str] = {}
        self.environment = environment


def performed(value: Any, context: LaunchContext) -> Any:
    return value.perform(context) if hasattr(value, "perform") else value


@dataclass(frozen=True)
class LaunchConfiguration:
    name: str

    def perform(self, context: LaunchContext) -> str:
        return context.launch_configurations[self.name]


@dataclass(frozen=True)
class EnvironmentVariable:
    name: str
    default_value: str | None = field(default=None, kw_only=True)

    def perform(self, context: LaunchContext) -> str:
        found = context.environment.get(self.name, self.default_value)
        if found is None:
            raise RuntimeError(f"environment variable '{self.name}' does not exist")
        return found


@dataclass(frozen=True)
class FindPackageShare:
    package: str

    def perform(self, context: LaunchContext) -> str:
        return str(PACKAGES / self.package)


@dataclass(frozen=True)
class PathJoinSubstitution:
    parts: Sequence[Any]

    def perform(self, context: LaunchContext) -> str:
        return "/".join(performed(part, context) for part in self.parts)


@dataclass(frozen=True)
class ParameterValue:
    value: Any
    value_type: type | None = field(default=None, kw_only=True)


@dataclass(eq=False)
class DeclareLaunchArgument:
    name: str
    default_value: Any = field(default=None, kw_only=True)
    description: str | None = field(default=None, kw_only=True)
    choices: list[str] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if self.choices is not None and self.default_value not in (None, *self.choices):
            raise RuntimeError(f"default {self.default_value!r} of '{self.name}' is not one of {self.choices}")


@dataclass(eq=False)
class OpaqueFunction:
    function: Callable[[LaunchContext], list[Any] | None] = field(kw_only=True)


@dataclass(eq=False)
class PythonLaunchDescriptionSource:
    path: Any


@dataclass(eq=False)
class IncludeLaunchDescription:
    source: PythonLaunchDescriptionSource
    launch_arguments: Iterable[tuple[str, str]] = field(default=(), kw_only=True)


@dataclass(eq=False)
class LaunchDescription:
    entities: list[Any]


@dataclass(eq=False)
class ExecuteProcess:
    cmd: Sequence[Any] = field(kw_only=True)
    output: str = field(default="log", kw_only=True)
    on_exit: Any = field(default=None, kw_only=True)


@dataclass(eq=False)
class Node:
    package: str = field(kw_only=True)
    executable: str = field(kw_only=True)
    name: str | None = field(default=None, kw_only=True)
    namespace: str | None = field(default=None, kw_only=True)
    parameters: list[Any] = field(default_factory=list, kw_only=True)
    remappings: Sequence[tuple[str, str]] = field(default=(), kw_only=True)
    arguments: Sequence[Any] = field(default=(), kw_only=True)
    additional_env: Mapping[str, str] = field(default_factory=dict, kw_only=True)
    output: str = field(default="log", kw_only=True)
    respawn: bool = field(default=False, kw_only=True)
    respawn_delay: float | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if not isinstance(self.parameters, list):
            raise TypeError("parameters must be a list")


@dataclass(eq=False)
class LifecycleNode(Node):
    pass


@dataclass(eq=False)
class ComposableNode:
    package: str = field(kw_only=True)
    plugin: str = field(kw_only=True)
    name: str | None = field(default=None, kw_only=True)
    namespace: str | None = field(default=None, kw_only=True)
    parameters: list[Any] = field(default_factory=list, kw_only=True)
    remappings: Sequence[tuple[str, str]] = field(default=(), kw_only=True)
    extra_arguments: Sequence[Any] = field(default=(), kw_only=True)


@dataclass(eq=False)
class LoadComposableNodes:
    target_container: str = field(kw_only=True)
    composable_node_descriptions: list[ComposableNode] = field(kw_only=True)


@dataclass(eq=False)
class RegisterEventHandler:
    event_handler: Any


@dataclass(eq=False)
class EmitEvent:
    event: Any = field(kw_only=True)


@dataclass(eq=False)
class Shutdown:
    reason: str = field(default="reason not given", kw_only=True)


@dataclass(frozen=True)
class matches_action:  # launch's own name
    action: Any


@dataclass(frozen=True)
class ChangeState:
    lifecycle_node_matcher: matches_action = field(kw_only=True)
    transition_id: int = field(kw_only=True)


@dataclass(eq=False)
class OnProcessStart:
    target_action: Any = field(default=None, kw_only=True)
    on_start: Sequence[Any] = field(kw_only=True)


@dataclass(eq=False)
class OnStateTransition:
    entities: Sequence[Any] = field(kw_only=True)
    target_lifecycle_node: LifecycleNode | None = field(default=None, kw_only=True)
    start_state: str | None = field(default=None, kw_only=True)
    goal_state: str | None = field(default=None, kw_only=True)
    handle_once: bool = field(default=False, kw_only=True)


class Transition:
    TRANSITION_CONFIGURE = 1
    TRANSITION_ACTIVATE = 3


MODULES: dict[str, tuple[type, ...]] = {
    "launch": (LaunchContext, LaunchDescription),
    "launch.action": (),
    "launch.actions": (
        DeclareLaunchArgument, EmitEvent, ExecuteProcess, IncludeLaunchDescription, OpaqueFunction,
        RegisterEventHandler, Shutdown,
    ),
    "launch.event_handlers": (OnProcessStart,),
    "launch.events": (matches_action,),
    "launch.launch_description_sources": (PythonLaunchDescriptionSource,),
    "launch.substitutions": (EnvironmentVariable, LaunchConfiguration, PathJoinSubstitution),
    "launch_ros": (),
    "launch_ros.actions": (LifecycleNode, LoadComposableNodes, Node),
    "launch_ros.descriptions": (ComposableNode,),
    "launch_ros.event_handlers": (OnStateTransition,),
    "launch_ros.events": (),
    "launch_ros.events.lifecycle": (ChangeState,),
    "launch_ros.parameter_descriptions": (ParameterValue,),
    "launch_ros.substitutions": (FindPackageShare,),
    "lifecycle_msgs": (),
    "lifecycle_msgs.msg": (Transition,),
}  # fmt: skip


@contextmanager
def in_place_of_ros() -> Iterator[None]:
    """``import launch`` finds the fake; afterwards what was there before."""
    before = {name: sys.modules.pop(name, None) for name in MODULES}
    for name, members in MODULES.items():
        module = ModuleType(name)
        vars(module).update({member.__name__: member for member in members})
        sys.modules[name] = module
    vars(sys.modules["launch.action"])["Action"] = object
    try:
        yield
    finally:
        for name, module in before.items():
            sys.modules.pop(name)
            if module is not None:
                sys.modules[name] = module


def described(path: Path) -> LaunchDescription:
    """What a launch file describes."""
    spec = importlib.util.spec_from_file_location(path.name.replace(".", "_"), path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with in_place_of_ros():
        spec.loader.exec_module(module)
        description: LaunchDescription = module.generate_launch_description()
    return description


def declared(path: Path) -> dict[str, DeclareLaunchArgument]:
    """The arguments of a launch file itself, by name."""
    return {each.name: each for each in described(path).entities if isinstance(each, DeclareLaunchArgument)}


def launched(path: Path, *, environment: Mapping[str, str] | None = None, **arguments: str) -> list[Any]:
    """What a launch file does with these arguments, in order, includes among them; declarations left out."""
    context = LaunchContext(environment or {})
    context.launch_configurations.update(arguments)
    return list(_executed(described(path).entities, context))


def _executed(entities: Iterable[Any], context: LaunchContext) -> Iterator[Any]:
    for entity in entities:
        if isinstance(entity, DeclareLaunchArgument):
            _declare(entity, context)
        elif isinstance(entity, OpaqueFunction):
            yield from _executed(entity.function(context) or (), context)
        elif isinstance(entity, IncludeLaunchDescription):
            outer = dict(context.launch_configurations)
            context.launch_configurations.update(entity.launch_arguments)
            yield from _executed(described(Path(performed(entity.source.path, context))).entities, context)
            context.launch_configurations = outer
        else:
            yield entity


def _declare(argument: DeclareLaunchArgument, context: LaunchContext) -> None:
    found = context.launch_configurations
    if argument.name not in found:
        if argument.default_value is None:
            raise RuntimeError(f"Required launch argument '{argument.name}' was not provided.")
        found[argument.name] = performed(argument.default_value, context)
    if argument.choices is not None and found[argument.name] not in argument.choices:
        raise RuntimeError(f"Argument '{argument.name}' is not in the valid options {argument.choices}")
