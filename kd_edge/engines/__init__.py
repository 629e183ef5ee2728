"""Run an artifact's graph. No torch, no onnx: the engine reads the file itself. ``open_engine`` is the one door."""

from __future__ import annotations

from typing import Literal, get_args

from kd_edge.artifact import Artifact
from kd_edge.engines.base import Binding, Engine, Provider, StepEngine, carry
from kd_edge.engines.ncnn import NcnnEngine
from kd_edge.engines.onnxruntime import OnnxRuntimeEngine
from kd_edge.engines.tensors import state_names
from kd_edge.errors import ConfigError, did_you_mean

__all__ = [
    "ENGINES",
    "Binding",
    "Engine",
    "EngineName",
    "Provider",
    "StepEngine",
    "carry",
    "open_engine",
    "state_names",
]

EngineName = Literal["auto", "onnxruntime", "ncnn"]
ENGINES: dict[EngineName, type[Engine]] = {"onnxruntime": OnnxRuntimeEngine, "ncnn": NcnnEngine}
"""In the order in which ``auto`` looks for one that is installed; their libraries are imported when one is opened."""

MAX_THREADS = 256


def open_engine(
    artifact: Artifact,
    *,
    engine: EngineName = "auto",
    threads: int = 1,
    provider: Provider = "cpu",
    strict: bool = False,
) -> Engine:
    """Load an artifact's graph.

    Args:
        artifact: Verified by ``artifact.load``.
        engine: What runs it; ``auto`` takes the first one that is installed.
        threads: Of the engine, 1 to 256; idle ones sleep instead of spinning.
        provider: What to run on. An unusable ``cuda`` falls back to the CPU and says so in ``fallback_reason``.
        strict: Make that fallback an error.

    Returns:
        The engine, a context manager: leave or ``close`` it when nothing runs any more.

    Raises:
        ConfigError: An unknown engine or provider, or an impossible number of threads.
        ArtifactError: Shapes that contradict the manifest, or a graph the engine refuses.
        MissingExtraError: The engine is not installed; its extra is named.
    """
    for option, value, choices in (("engine", engine, EngineName), ("provider", provider, Provider)):
        names = get_args(choices)
        if value not in names:
            raise ConfigError(
                f"{option} '{value}'{did_you_mean(str(value), names)}", f"one of {', '.join(names)}", "correct it"
            )
    if not isinstance(threads, int) or not 1 <= threads <= MAX_THREADS:
        raise ConfigError(f"{threads!r} threads", f"1 to {MAX_THREADS}", "correct it")
    if engine == "auto":  # with none installed, the first one names its extra
        engine = next((name for name, kind in ENGINES.items() if kind.is_installed()), next(iter(ENGINES)))
    return ENGINES[engine](artifact, threads=threads, provider=provider, strict=strict)
