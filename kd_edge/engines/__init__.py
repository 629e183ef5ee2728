"""Run an artifact's graph. No torch, no onnx: the engine reads the file itself. ``open_engine`` is the one door."""

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
"""The first one judges what the others compute; those for GPUs alone stand best first. Their libraries are
imported when one is opened."""

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
    """Load an artifact's graph.

    Args:
        artifact: Verified by ``artifact.load``.
        engine: What runs it; ``auto`` takes the best one that is ready here: on a GPU, else the fastest on the CPU.
        threads: Of the engine, 1 to 256; idle ones sleep instead of spinning.
        provider: What to run on, by default what the engine is made for. One that is not there falls back to the CPU
            and says so in ``fallback_reason``.
        strict: Make that fallback an error.
        cuda_binding: What gives TensorRT the GPU's memory; ``auto`` is whichever is installed.

    Returns:
        The engine, a context manager: leave or ``close`` it when nothing runs any more.

    Raises:
        ConfigError: An unknown engine or provider, a provider the engine knows nothing of, or an impossible number of
            threads.
        ArtifactError: Shapes that contradict the manifest, or a graph the engine refuses.
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
    """The engines for a model, best first, of which the next one goes on where one fails.

    Args:
        artifact: Verified by ``artifact.load``.
        engine: The first one; ``auto`` is the best one that is ready here.
        threads: See ``open_engine``.
        provider: See ``open_engine``.
        strict: Make every step down an error.
        cuda_binding: See ``open_engine``.

    Raises:
        ConfigError: An unknown engine or provider, or an impossible number of threads.
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
    # What is for GPUs alone runs there or not at all.
    is_bound = strict or kind.accepts == ("cuda",)
    return kind(artifact, threads=threads, provider=provider, strict=is_bound, cuda_binding=cuda_binding)


def engine_name(text: str) -> EngineName:
    """The name of an engine, or ``auto``.

    Raises:
        ConfigError: There is no such engine.
    """
    _check_named("engine", text, get_args(EngineName))
    return cast("EngineName", text)


def provider_name(text: str) -> Provider:
    """The name of a provider.

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
