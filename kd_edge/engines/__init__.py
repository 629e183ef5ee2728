"""Run an artifact's graph, without torch or onnx; ``open_engine`` is the entry point."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal, cast, get_args

from kd_edge.artifact import Artifact
from kd_edge.engines.base import Binding, Choice, Engine, Provider, StepEngine, carry
from kd_edge.engines.cuda import CudaBinding
from kd_edge.engines.ladder import Ladder
from kd_edge.engines.ncnn import NcnnEngine
from kd_edge.engines.onnxruntime import CudaEngine, OnnxRuntimeEngine
from kd_edge.engines.openvino import OpenVinoEngine
from kd_edge.engines.tensorrt.engine import TensorRtEngine, TensorRtRtxEngine
from kd_edge.engines.tensors import state_names
from kd_edge.errors import ConfigError, did_you_mean

__all__ = [
    "ENGINES",
    "Binding",
    "Choice",
    "CudaBinding",
    "Engine",
    "EngineName",
    "Ladder",
    "Provider",
    "StepEngine",
    "carry",
    "engine_ladder",
    "engine_name",
    "open_engine",
    "provider_name",
    "state_names",
]

EngineName = Literal["auto", "onnxruntime", "openvino", "ncnn", "tensorrt", "tensorrt-rtx", "cuda"]
ENGINES: dict[str, type[Engine]] = {
    "onnxruntime": OnnxRuntimeEngine,
    "openvino": OpenVinoEngine,
    "ncnn": NcnnEngine,
    "tensorrt": TensorRtEngine,
    "tensorrt-rtx": TensorRtRtxEngine,
    "cuda": CudaEngine,
}
"""All engines by name. The first is the reference for the results of the others; those for GPUs only are listed best
first. An engine's library is imported when the engine is opened."""

MAX_THREADS = 256


def open_engine(
    artifact: Artifact,
    *,
    engine: EngineName = "onnxruntime",
    threads: int = 1,
    provider: Provider | None = None,
    strict: bool = False,
    cuda_binding: CudaBinding = "auto",
) -> Engine:
    """Load an artifact's graph into an engine.

    Args:
        artifact: An artifact verified by ``artifact.load``.
        engine: Name of the engine; ``auto`` selects the best one that is ready: on a GPU if there is one, otherwise
            the fastest on the CPU.
        threads: Threads of the engine, 1 to 256; idle ones sleep instead of spinning.
        provider: Device to run on, by default the engine's own. If it is missing, the engine falls back to the CPU and
            sets ``fallback_reason``.
        strict: Raise an error instead of falling back.
        cuda_binding: Package that allocates GPU memory for TensorRT; ``auto`` is whichever is installed.

    Returns:
        The engine, a context manager. Leave it or call ``close`` after the last run.

    Raises:
        ConfigError: The engine or provider is unknown, the engine does not support the provider, or the number of
            threads is out of range.
        ArtifactError: Shapes contradict the manifest, or the engine refuses the graph.
        MissingExtraError: The engine is not installed; its extra is named.
    """
    engine = _checked(engine, threads, provider)
    if engine == "auto":
        return engine_ladder(
            artifact, engine=engine, threads=threads, provider=provider, strict=strict, cuda_binding=cuda_binding
        ).open()
    return _opened(artifact, threads, strict, cuda_binding, engine, provider)


def engine_ladder(
    artifact: Artifact,
    *,
    engine: EngineName = "auto",
    threads: int = 1,
    provider: Provider | None = None,
    strict: bool = False,
    cuda_binding: CudaBinding = "auto",
) -> Ladder:
    """Return the engines for a model, best first; if one fails, the next one takes over.

    Args:
        artifact: An artifact verified by ``artifact.load``.
        engine: The first engine; ``auto`` is the best one that is ready.
        threads: See ``open_engine``.
        provider: See ``open_engine``.
        strict: Raise an error instead of stepping down.
        cuda_binding: See ``open_engine``.

    Raises:
        ConfigError: The engine or provider is unknown, or the number of threads is out of range.
    """
    return Ladder(
        artifact,
        ENGINES,
        partial(_opened, artifact, threads, strict, cuda_binding),
        engine=_checked(engine, threads, provider),
        threads=threads,
        provider=provider,
        strict=strict,
    )


def _opened(
    artifact: Artifact,
    threads: int,
    strict: bool,
    cuda_binding: CudaBinding,
    engine: str,
    provider: Provider | None,
) -> Engine:
    kind = ENGINES[engine]
    provider = provider or kind.accepts[0]
    if provider not in kind.accepts:
        others = [name for name, other in ENGINES.items() if provider in other.accepts]
        raise ConfigError(
            f"engine {engine} with provider {provider}",
            f"one of {', '.join(kind.accepts)}",
            f"choose one of these, or --engine {' or '.join(others)}",
        )
    # An engine for GPUs only must not fall back to the CPU.
    is_bound = strict or kind.accepts == ("cuda",)
    return kind(artifact, threads=threads, provider=provider, strict=is_bound, cuda_binding=cuda_binding)


def engine_name(text: str) -> EngineName:
    """Check the name of an engine, or ``auto``.

    Raises:
        ConfigError: There is no such engine.
    """
    _check_named("engine", text, get_args(EngineName))
    return cast("EngineName", text)


def provider_name(text: str) -> Provider:
    """Check the name of a provider.

    Raises:
        ConfigError: There is no such provider.
    """
    _check_named("provider", text, get_args(Provider))
    return cast("Provider", text)


def _checked(engine: str, threads: object, provider: str | None) -> EngineName:
    if provider is not None:
        provider_name(provider)
    if not isinstance(threads, int) or not 1 <= threads <= MAX_THREADS:
        raise ConfigError(f"{threads!r} threads", f"1 to {MAX_THREADS}", "correct it")
    return engine_name(engine)


def _check_named(option: str, value: object, names: Sequence[str]) -> None:
    if value not in names:
        raise ConfigError(
            f"{option} '{value}'{did_you_mean(str(value), names)}", f"one of {', '.join(names)}", "correct it"
        )
