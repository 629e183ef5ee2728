"""From an artifact's graph to a plan. What versions differ in is told by what the library has, never by its number.

TensorRT 11 knows strongly typed networks only, TensorRT 10 on request: so precision stands in the graph, and there are
no precision flags and no calibrators here.
"""

from __future__ import annotations

import time
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from kd_edge.artifact import Artifact
from kd_edge.engines.tensorrt.inspection import Shares, by_engine, by_network
from kd_edge.engines.tensorrt.library import Library, Messages
from kd_edge.engines.tensors import Tensors, tensors
from kd_edge.errors import ArtifactError, ConfigError

MEBIBYTE = 2**20


class BuildSettings(BaseModel):
    """What a plan is built for; every field is part of its key.

    Attributes:
        max_batch: Largest number of sources in one step.
        workspace_mb: How much memory a layer may use while it runs, in MiB; None leaves it to the library: all.
        optimisation_level: 0 to 5: how long the build searches for faster layers.
        version_compatible: Let later versions run the plan, too; it excludes the lean runtime that would have to be
            run from the plan itself.
        hardware_compatible: Let other GPUs from Ampere on run the plan, too; not on Jetsons.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    max_batch: int = Field(8, ge=1, le=64)
    workspace_mb: int | None = Field(None, ge=1, le=1_000_000)
    optimisation_level: int = Field(3, ge=0, le=5)
    version_compatible: bool = False
    hardware_compatible: bool = False


class PlanFigures(BaseModel):
    """What is known of a plan.

    Attributes:
        seconds: How long the build took.
        plan_bytes: How large it is.
        shares: Which numbers its layers compute with.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    seconds: float = Field(ge=0)
    plan_bytes: int = Field(ge=0)
    shares: Shares


class Built(NamedTuple):
    """A plan fresh from the builder.

    Attributes:
        content: The plan.
        figures: What is known of it.
        timing_cache: What the next build of this library on this GPU is faster with; may be empty.
    """

    content: bytes
    figures: PlanFigures
    timing_cache: bytes


def build(
    artifact: Artifact,
    library: Library,
    settings: BuildSettings,
    *,
    capability: tuple[int, int] | None = None,
    timing_cache: bytes = b"",
) -> Built:
    """Build a plan.

    Args:
        artifact: Verified by ``artifact.load``.
        library: What builds it.
        settings: What for.
        capability: Compute capability of the GPU it is for, where that is not the one of this machine; TensorRT-RTX
            alone can build without a GPU.
        timing_cache: Of an earlier build.

    Raises:
        ConfigError: The library cannot build for that GPU or with these settings.
        ArtifactError: The library refuses the graph; its own words are in the error.
    """
    trt, messages, started = library.trt, Messages(library), time.perf_counter()
    builder = _made(trt.Builder(messages.logger), "no builder", library, messages)
    network = builder.create_network(_strongly_typed(trt))
    _parse(artifact, network, library, messages)
    config = builder.create_builder_config()
    _configure(config, library, settings, capability)
    _add_profile(builder, config, tensors(artifact.manifest), settings.max_batch)
    cache = _timing_cache(config, library, timing_cache)
    plan = _made(builder.build_serialized_network(network, config), f"no plan of {artifact.path}", library, messages)
    content = bytes(plan)
    shares = _inspected(content, library) or by_network(network, trt)
    figures = PlanFigures(seconds=time.perf_counter() - started, plan_bytes=len(content), shares=shares)
    return Built(content, figures, b"" if cache is None else bytes(cache.serialize()))


def _strongly_typed(trt: Any) -> int:
    """The flags of a network whose types are those of the graph; the flag goes once there are no other networks."""
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


def _parse(artifact: Artifact, network: Any, library: Library, messages: Messages) -> None:
    parser = library.trt.OnnxParser(network, messages.logger)
    if not parser.parse(artifact.content()):
        why = _fault(parser.get_error(0)) if parser.num_errors else messages.why()
        raise _refused(f"{artifact.path} is refused by {library.name}: {why}")


def _fault(error: Any) -> str:
    return f"{error.desc()} ({error.node_operator()} '{error.node_name()}')"


def _configure(config: Any, library: Library, settings: BuildSettings, capability: tuple[int, int] | None) -> None:
    trt = library.trt
    config.builder_optimization_level = settings.optimisation_level
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if settings.workspace_mb is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, settings.workspace_mb * MEBIBYTE)
    if settings.version_compatible:  # without code in the plan, which a robot would not run
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
        config.set_flag(trt.BuilderFlag.EXCLUDE_LEAN_RUNTIME)
    if settings.hardware_compatible:
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
    if capability is not None:
        _set_target(config, library, capability)


def _set_target(config: Any, library: Library, capability: tuple[int, int]) -> None:
    """Build for another GPU than this machine's; only a library that compiles where it runs can."""
    targets = getattr(library.trt, "ComputeCapability", None)
    if targets is None:
        raise ConfigError(f"{library.name} for another GPU than this machine's", "the GPU itself", "build on the robot")
    target = getattr(targets, f"SM{''.join(map(str, capability))}", None)
    if target is None:
        known = ", ".join(name for name in dir(targets) if name.startswith("SM"))
        raise ConfigError(
            f"{library.name} for compute capability {capability[0]}.{capability[1]}",
            f"one of {known}",
            "use the engine tensorrt on this GPU",
        )
    config.num_compute_capabilities = 1
    config.set_compute_capability(target, 0)


def _add_profile(builder: Any, config: Any, shapes: Tensors, max_batch: int) -> None:
    """One source is what a plan is tuned for; so many may share a step."""
    profile = builder.create_optimization_profile()
    for name, shape in shapes.inputs.items():
        profile.set_shape(name, (1, *shape), (1, *shape), (max_batch, *shape))
    config.add_optimization_profile(profile)


def _timing_cache(config: Any, library: Library, content: bytes) -> Any:
    """The cache in use; None of TensorRT-RTX, which times nothing while it builds."""
    if library.kind == "tensorrt-rtx":
        return None
    cache = config.create_timing_cache(content) or config.create_timing_cache(b"")  # a damaged one is begun anew
    if cache is not None:
        config.set_timing_cache(cache, False)
    return cache


def _inspected(content: bytes, library: Library) -> Shares | None:
    """What the built engine says of itself; None where it cannot be loaded here."""
    trt, messages = library.trt, Messages(library)
    engine = trt.Runtime(messages.logger).deserialize_cuda_engine(content)
    if engine is None:
        return None
    inspector = engine.create_engine_inspector()
    return by_engine(inspector.get_engine_information(trt.LayerInformationFormat.JSON))


def _made(thing: Any, found: str, library: Library, messages: Messages) -> Any:
    """What a function of the library returned; its failures are None."""
    if thing is None:
        raise _refused(f"{found} by {library.name}: {messages.why()}")
    return thing


def _refused(found: str) -> ArtifactError:
    return ArtifactError(found, "a graph that it can run", "kd-edge doctor, or --engine onnxruntime")
