"""TensorRT and TensorRT-RTX: a plan on this machine's GPU, one copy to it and one from it for each step."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, cast

import numpy as np

from kd_edge.artifact import Artifact
from kd_edge.engines.base import Engine, Provider
from kd_edge.engines.cuda import Device, find_gpu, open_device
from kd_edge.engines.cuda.device import Bytes
from kd_edge.engines.tensorrt.library import MODULES, Kind, Library, Messages, load_library, unsuited
from kd_edge.engines.tensors import Shapes, Tensors
from kd_edge.errors import DeviceError, printable
from kd_edge.types import Float32

log = logging.getLogger("kd_edge.engines.tensorrt")

ALIGNMENT = 256
"""What CUDA itself aligns memory to; kernels may count on it."""
GRAPH_TOLERANCE = 1e-3
"""Largest difference of a graph's outputs from the plain path's, by the largest one. The kernels are the same."""


class _Arena(NamedTuple):
    """All inputs, or all outputs, of a batch in one piece of pinned memory: one copy moves them.

    Attributes:
        memory: The piece.
        offsets: Where each array begins, by name.
    """

    memory: Bytes
    offsets: dict[str, int]


class TensorRtEngine(Engine):
    """A plan, built on this machine at the first start and kept. Closing gives all of the GPU's memory back.

    It is used by one thread: the first that runs it after it was opened, or after ``hand_over``.
    """

    key = "tensorrt"
    library = "tensorrt"
    accepts: ClassVar[tuple[Provider, ...]] = ("cuda",)
    _max_batch = 1
    _device: Device | None = None
    _engine: Any = None
    _runtime: Any = None

    @classmethod
    def unsuited(cls, artifact: Artifact) -> str | None:
        """Why this engine cannot run an artifact, None when it can; its library is not imported."""
        return unsuited(artifact)

    @classmethod
    def is_ready(cls, artifact: Artifact) -> bool:
        """Whether the plan for this machine is built."""
        from kd_edge.engines.tensorrt import plans  # robots without a GPU do not wait for it

        return plans.is_ready(artifact, cls._kind(), find_gpu())

    @classmethod
    def _kind(cls) -> Kind:
        return cast("Kind", cls.key)

    def _load(self, artifact: Artifact, threads: int, provider: Provider) -> Tensors:
        from kd_edge.engines.tensorrt import plans

        library, gpu = load_library(self._kind()), find_gpu()
        self.name = library.name
        self.providers = (str(gpu),)
        self._arenas: list[_Arena] = []
        self._contexts: list[Any] = []  # a graph that was captured does not hold on to its context
        self._messages = Messages(library)
        self._device = open_device(self.cuda_binding)
        with self._device.current():
            self._runtime = library.trt.Runtime(self._messages.logger)
            plan = plans.obtain(artifact, library, gpu, None, log.warning)
            self._engine = self._runtime.deserialize_cuda_engine(plan.content)
            if self._engine is None and not plan.was_built:
                log.warning("%s refuses the plan that was kept: %s", self.name, self._messages.why())
                plans.discard(plan)
                plan = plans.obtain(artifact, library, gpu, plan.settings, log.warning)
                self._engine = self._runtime.deserialize_cuda_engine(plan.content)
            if self._engine is None:
                plans.discard(plan)
                raise DeviceError(
                    f"{self.name} refuses its own plan on {gpu}: {self._messages.why()}",
                    "a driver as new as the library",
                    "update the driver, kd-edge doctor, or --engine onnxruntime",
                )
            self._max_batch = plan.settings.max_batch
        self._device.hand_over()
        return self._found(library)

    def _found(self, library: Library) -> Tensors:
        """What the plan reads and writes."""
        trt, engine = library.trt, self._engine
        shapes: dict[Any, Shapes] = {trt.TensorIOMode.INPUT: {}, trt.TensorIOMode.OUTPUT: {}}
        for index in range(engine.num_io_tensors):
            name = engine.get_tensor_name(index)
            if engine.get_tensor_dtype(name) != trt.DataType.FLOAT:
                raise DeviceError(f"'{name}' of the plan is {engine.get_tensor_dtype(name)}", "FLOAT", "export again")
            shapes[engine.get_tensor_mode(name)][name] = tuple(engine.get_tensor_shape(name))[1:]
        return Tensors(shapes[trt.TensorIOMode.INPUT], shapes[trt.TensorIOMode.OUTPUT])

    def _arrays(self, shapes: Shapes, batch: int) -> dict[str, Float32]:
        """Zeros in one piece of memory that the GPU reads and writes by itself."""
        if batch > self._max_batch:
            raise DeviceError(
                f"a batch of {batch}", f"at most {self._max_batch} sources on {self.key}", "push fewer at once"
            )
        offsets, end = {}, 0
        for name, shape in shapes.items():
            offsets[name] = end
            end += -(-4 * batch * int(np.prod(shape)) // ALIGNMENT) * ALIGNMENT
        device = self._opened()
        with device.current():
            memory = device.pinned(end)
        self._arenas.append(_Arena(memory, offsets))
        return {
            name: memory[offsets[name] :][: 4 * batch * int(np.prod(shape))].view(np.float32).reshape(batch, *shape)
            for name, shape in shapes.items()
        }

    def _bind(self, inputs: dict[str, Float32], outputs: dict[str, Float32]) -> Callable[[], None]:
        read, written = self._arenas[-2:]
        self._arenas.clear()
        device = self._opened()
        with device.current():
            read_at, written_at = device.memory(read.memory.nbytes), device.memory(written.memory.nbytes)
            context = self._context(inputs, outputs, read, written, read_at, written_at)

            def enqueue() -> None:
                device.upload(read_at, read.memory)
                if not context.execute_async_v3(device.stream):
                    raise DeviceError(
                        f"{self.name} cannot run: {self._messages.why()}", "a run that works", "kd-edge doctor"
                    )
                device.download(written.memory, written_at)

            if device.can_capture:
                launch = self._graph(device, enqueue, inputs, outputs)
            else:
                launch, self.notes = enqueue, (f"{device.key} knows no CUDA graphs",)

        def run() -> None:
            with device.current():
                launch()
                device.synchronize()

        return run

    def _context(
        self,
        inputs: dict[str, Float32],
        outputs: dict[str, Float32],
        read: _Arena,
        written: _Arena,
        read_at: int,
        written_at: int,
    ) -> Any:
        """An execution context for a batch; a graph that was captured belongs to one."""
        context = self._engine.create_execution_context()
        if context is None:
            raise DeviceError(
                f"{self.name} makes no execution context: {self._messages.why()}", "a GPU with free memory", "free some"
            )
        for name, array in inputs.items():
            if not context.set_input_shape(name, array.shape):
                raise DeviceError(
                    f"{self.name} takes no '{name}' of {array.shape}", "the plan's shapes", "export again"
                )
        for names, arena, address in ((inputs, read, read_at), (outputs, written, written_at)):
            for name in names:
                context.set_tensor_address(name, address + arena.offsets[name])
        self._contexts.append(context)
        return context

    def _graph(
        self, device: Device, enqueue: Callable[[], None], inputs: dict[str, Float32], outputs: dict[str, Float32]
    ) -> Callable[[], None]:
        """A step as one graph where it computes what the plain path does on noise; else, said so, the plain path."""
        rng = np.random.default_rng(0)
        for array in inputs.values():
            array[:] = rng.standard_normal(array.shape, dtype=np.float32)
        enqueue()  # the first run of a context makes what no capture may make
        device.synchronize()
        expected = {name: array.copy() for name, array in outputs.items()}
        for array in outputs.values():
            array.fill(np.nan)  # a graph that writes nothing is not right
        try:
            launch = device.captured(enqueue)
            launch()
            device.synchronize()
            fault = (
                ""
                if all(_agree(outputs[name], array) for name, array in expected.items())
                else "it computes something else"
            )
        except DeviceError as error:
            fault = error.found
        for array in (inputs | outputs).values():
            array.fill(0)
        if not fault:
            self.notes = ("a step is one CUDA graph",)
            return launch
        self.notes = (f"runs without a CUDA graph: {printable(fault)}",)
        log.warning("%s %s", self.name, self.notes[0])
        return enqueue

    def hand_over(self) -> None:
        """Let the next thread that runs it be the one that uses it."""
        self._opened().hand_over()

    def _opened(self) -> Device:
        assert self._device is not None
        return self._device

    def _unload(self) -> None:
        if self._device is not None:
            self._device.close(self._let_go)

    def _let_go(self) -> None:
        self._contexts = []
        self._engine = self._runtime = None


class TensorRtRtxEngine(TensorRtEngine):
    """TensorRT for RTX: compiles its kernels where it runs, for desktops with an RTX card; not for Jetsons."""

    key = "tensorrt-rtx"
    library = MODULES["tensorrt-rtx"]


def _agree(found: Float32, expected: Float32) -> bool:
    scale = float(np.abs(expected).max(initial=1e-6))
    return bool(np.abs(found - expected).max(initial=0) <= GRAPH_TOLERANCE * scale)
