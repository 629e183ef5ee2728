"""OpenVINO on the CPU, and on the GPU or NPU of Intel processors, on numpy memory: nothing is copied or allocated."""

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
"""The part of OpenVINO that reports every import to its maker; ``doctor`` leaves it out too."""

MOST_STATIC = 2
"""So many batch sizes have a compiled model of their own, each with its copy of the weights; the rest share one."""
ANY_BATCH = -1


def load_openvino() -> ModuleType:
    """Import openvino without its converter, which the package itself can do without.

    The converter (seen in 2026.4) leaves a client id in the home folder (``~/intel``) when it is imported and sends an
    event to its maker's analytics, which a robot's owner does not expect; it is also two thirds of the import's time. A
    program that wants it can still import it.

    Raises:
        MissingExtraError: It is not installed, or only half of it.
    """
    if CONVERTER in sys.modules:  # the program has it
        return import_extra("openvino", "openvino")
    sys.modules[CONVERTER] = None  # type: ignore[assignment]  # Python's way to say that there is none
    try:
        return import_extra("openvino", "openvino")
    finally:
        del sys.modules[CONVERTER]


@cache
def _core(openvino: ModuleType) -> Any:
    """OpenVINO's one core of this process, never let go.

    With a core goes its CPU plugin, which gives the thread that loads it a stack for signals and frees that stack when
    it is destroyed (seen in 2026.4). Destroyed by another thread, it leaves the first one with a freed stack: the next
    Ctrl-C, or the end of a child process that somebody waits for, then kills the program with a segmentation fault.
    """
    return openvino.Core()


class OpenVinoEngine(Engine):
    """A graph compiled by OpenVINO for each batch size that is bound, in 32-bit floats unless it is quantised.

    Left alone, OpenVINO computes in bfloat16 wherever the processor can, without a word.
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
        """The device to use; where there is none of the kind asked for, the CPU."""
        device = DEVICES[provider]
        devices = self._core.available_devices  # several of a kind are "GPU.0", "GPU.1"
        if device in {name.partition(".")[0] for name in devices}:
            return device
        self.fallback_reason = f"{provider} was asked for, OpenVINO finds only {', '.join(devices)}"
        return DEVICES["cpu"]

    def _settings(self, threads: int) -> dict[str, Any]:
        settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}
        if self._device != DEVICES["npu"]:  # which has no 32-bit floats; the self-test judges its 16-bit ones
            settings["INFERENCE_PRECISION_HINT"] = "f32"
        if self._device == DEVICES["cpu"]:
            # Pinned, two programs' threads share one core while others idle.
            settings |= {"INFERENCE_NUM_THREADS": threads, "ENABLE_CPU_PINNING": False}
        return settings

    def _compiled_for(self, batch: int) -> Any:
        """The graph compiled for a batch size, which is up to 12 % faster than for any."""
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
                request.infer(share_outputs=True)  # else they are copied

        return run

    def _unload(self) -> None:
        self._compiled, self._graph, self._core = {}, None, None


def _name(port: Any, wanted: set[str]) -> str:
    """A port's name; folding casts away gives it those of several tensors, one of which is the graph's own."""
    names: set[str] = port.names
    return min(names & wanted or names)


@contextmanager
def _last_line() -> Iterator[None]:
    """OpenVINO's errors begin with places in its source; their last line says what is wrong."""
    try:
        yield
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise RuntimeError(lines[-1] if lines else "no message") from error
