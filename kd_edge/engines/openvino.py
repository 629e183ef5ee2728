"""OpenVINO on the CPU and on the GPU or NPU of Intel processors, on NumPy memory: no copy, no allocation per run."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from typing import Any, ClassVar

from kd_edge.artifact import Artifact
from kd_edge.engines.base import Engine, Provider
from kd_edge.engines.tensors import Tensors
from kd_edge.packages import import_extra
from kd_edge.types import Float32

__all__ = ["OpenVinoEngine", "load_openvino"]

DEVICES: dict[Provider, str] = {"cpu": "CPU", "gpu": "GPU", "npu": "NPU"}
CONVERTER = "openvino.tools.ovc"
"""The part of OpenVINO that reports every import to Intel; ``doctor`` does not import it either."""

MOST_STATIC = 2
"""Batch sizes with a compiled model of their own, each with a copy of the weights; all others share one."""
ANY_BATCH = -1


def load_openvino() -> ModuleType:
    """Import openvino without its converter, which is not needed here.

    When imported, the converter (seen in 2026.4) stores a client id in the home folder (``~/intel``) and sends an
    event to Intel's analytics, which a robot's owner does not expect; it also takes two thirds of the import time. A
    program can still import it itself.

    Raises:
        MissingExtraError: It is not installed, or incompletely.
    """
    if CONVERTER in sys.modules:  # the program has imported it already
        return import_extra("openvino", "openvino")
    sys.modules[CONVERTER] = None  # type: ignore[assignment]  # makes an import of it fail
    try:
        return import_extra("openvino", "openvino")
    finally:
        del sys.modules[CONVERTER]


@cache
def _core(openvino: ModuleType) -> Any:
    """The process's only OpenVINO core, which is never released.

    Releasing a core destroys its CPU plugin. The plugin gives the thread that loads it a signal stack, and frees that
    stack when it is destroyed (seen in 2026.4). If another thread destroys it, the first thread keeps a freed stack,
    and the next signal (Ctrl-C, the end of a child process) ends the program with a segmentation fault.
    """
    return openvino.Core()


class OpenVinoEngine(Engine):
    """A graph compiled by OpenVINO for each bound batch size, in float32 unless it is quantised.

    By default OpenVINO would silently compute in bfloat16 where the processor supports it.
    """

    key = library = "openvino"
    accepts: ClassVar[tuple[Provider, ...]] = tuple(DEVICES)
    _core: Any = None
    _graph: Any = None

    def _load(self, artifact: Artifact, threads: int, provider: Provider) -> Tensors:
        self._openvino = load_openvino()
        self.name = f"openvino {self._openvino.__version__.partition('-')[0]}"
        self._compiled: dict[int, Any] = {}
        with _last_line():
            self._core = _core(self._openvino)
            self._device = self._found(provider)
            self._options = self._settings(threads)
            self._graph = self._core.read_model(str(artifact.path))
            compiled = self._compiled_for(1)
        self.providers = tuple(compiled.get_property("EXECUTION_DEVICES"))
        names = {*self.tensors.inputs, *self.tensors.outputs}
        inputs, outputs = (
            {_name(port, names): tuple(port.shape)[1:] for port in ports}
            for ports in (compiled.inputs, compiled.outputs)
        )
        return Tensors(inputs, outputs)

    def _found(self, provider: Provider) -> str:
        """The device to use; the CPU if the requested kind is missing."""
        device = DEVICES[provider]
        devices = self._core.available_devices  # several of a kind are "GPU.0", "GPU.1"
        if device in {name.partition(".")[0] for name in devices}:
            return device
        self.fallback_reason = f"{provider} was requested, but OpenVINO finds only {', '.join(devices)}"
        return DEVICES["cpu"]

    def _settings(self, threads: int) -> dict[str, Any]:
        settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}
        if self._device != DEVICES["npu"]:  # it has no float32; the self-test checks its 16-bit results
            settings["INFERENCE_PRECISION_HINT"] = "f32"
        if self._device == DEVICES["cpu"]:
            # With pinning, the threads of two programs share one core while others idle.
            settings |= {"INFERENCE_NUM_THREADS": threads, "ENABLE_CPU_PINNING": False}
        return settings

    def _compiled_for(self, batch: int) -> Any:
        """The graph compiled for a batch size, up to 12 % faster than for a dynamic one."""
        if batch not in self._compiled and len(self._compiled) >= MOST_STATIC:
            batch = ANY_BATCH
        if batch not in self._compiled:
            graph = self._graph.clone()  # the weights are shared
            graph.reshape({port: [batch, *list(port.partial_shape)[1:]] for port in graph.inputs})
            self._compiled[batch] = self._core.compile_model(graph, self._device, self._options)
        return self._compiled[batch]

    def _bind(self, inputs: dict[str, Float32], outputs: dict[str, Float32]) -> Callable[[], None]:
        arrays = inputs | outputs
        with _last_line():
            request = self._compiled_for(len(next(iter(arrays.values())))).create_infer_request()
            for name, array in arrays.items():
                request.set_tensor(name, self._openvino.Tensor(array, shared_memory=True))

        def run() -> None:
            with _last_line():
                request.infer(share_outputs=True)  # otherwise they are copied

        return run

    def _unload(self) -> None:
        self._compiled, self._graph, self._core = {}, None, None


def _name(port: Any, wanted: set[str]) -> str:
    """The name of a port; folded casts give it several, one of which is the graph's own."""
    names: set[str] = port.names
    return min(names & wanted or names)


@contextmanager
def _last_line() -> Iterator[None]:
    """Reduce OpenVINO's errors to their last line; the others are positions in its source."""
    try:
        yield
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise RuntimeError(lines[-1] if lines else "no message") from error
