"""Build a plan from an artifact's graph. Differences between versions are detected by feature, not by version number.

Networks are strongly typed (the only kind in TensorRT 11, optional in TensorRT 10): the graph determines precision, so
there are no precision flags and no calibrators here.
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
    """Settings of a plan; every field is part of its key.

    Attributes:
        max_batch: Largest number of sources in one step.
        workspace_mb: Memory that a layer may use while it runs, in MiB; None leaves it to the library (all).
        optimisation_level: How long the build searches for faster layers, 0 to 5.
        version_compatible: Make a plan for later versions, too. It excludes the lean runtime, which would be code
            loaded from the plan.
        hardware_compatible: Make a plan for other GPUs from Ampere on, too; not on Jetsons.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    max_batch: int = Field(8, ge=1, le=64)
    workspace_mb: int | None = Field(None, ge=1, le=1_000_000)
    optimisation_level: int = Field(3, ge=0, le=5)
    version_compatible: bool = False
    hardware_compatible: bool = False


class PlanFigures(BaseModel):
    """Figures of a plan.

    Attributes:
        seconds: Duration of the build.
        plan_bytes: Size of the plan.
        shares: Precision of its layers.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    seconds: float = Field(ge=0)
    plan_bytes: int = Field(ge=0)
    shares: Shares


class Built(NamedTuple):
    """A newly built plan.

    Attributes:
        content: The serialised plan.
        figures: Its figures.
        timing_cache: Speeds up the next build with this library on this GPU; may be empty.
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
        artifact: An artifact verified by ``artifact.load``.
        library: The library that builds it.
        settings: Settings of the plan.
        capability: Compute capability of the target GPU if it is not the one of this machine; only TensorRT-RTX can
            build without a GPU.
        timing_cache: Timing cache of an earlier build.

    Raises:
        ConfigError: The library cannot build for that GPU or with these settings.
        ArtifactError: The library refuses the graph; the error contains its message.
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
    """Flags of a strongly typed network; versions without other networks do not have the flag."""
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
    if settings.version_compatible:  # without executable code in the plan
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
        config.set_flag(trt.BuilderFlag.EXCLUDE_LEAN_RUNTIME)
    if settings.hardware_compatible:
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
    if capability is not None:
        _set_target(config, library, capability)


def _set_target(config: Any, library: Library, capability: tuple[int, int]) -> None:
    """Build for a GPU other than this machine's; only a library that compiles kernels at run time can."""
    targets = getattr(library.trt, "ComputeCapability", None)
    if targets is None:
        raise ConfigError(f"{library.name} for a GPU other than this machine's", "the GPU itself", "build on the robot")
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
    """Tune the plan for one source and allow up to ``max_batch``."""
    profile = builder.create_optimization_profile()
    for name, shape in shapes.inputs.items():
        profile.set_shape(name, (1, *shape), (1, *shape), (max_batch, *shape))
    config.add_optimization_profile(profile)


def _timing_cache(config: Any, library: Library, content: bytes) -> Any:
    """The timing cache in use; None for TensorRT-RTX, which measures nothing during a build."""
    if library.kind == "tensorrt-rtx":
        return None
    cache = config.create_timing_cache(content) or config.create_timing_cache(b"")  # replace a damaged one
    if cache is not None:
        config.set_timing_cache(cache, False)
    return cache


def _inspected(content: bytes, library: Library) -> Shares | None:
    """Precision of the layers of the built engine; None if it cannot be loaded here."""
    trt, messages = library.trt, Messages(library)
    engine = trt.Runtime(messages.logger).deserialize_cuda_engine(content)
    if engine is None:
        return None
    inspector = engine.create_engine_inspector()
    return by_engine(inspector.get_engine_information(trt.LayerInformationFormat.JSON))


def _made(thing: Any, found: str, library: Library, messages: Messages) -> Any:
    """Return the result of a library function; raise if it is None, which means failure."""
    if thing is None:
        raise _refused(f"{found} by {library.name}: {messages.why()}")
    return thing


def _refused(found: str) -> ArtifactError:
    return ArtifactError(found, "a graph that it can run", "run kd-edge doctor, or use --engine onnxruntime")
