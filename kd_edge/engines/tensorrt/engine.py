"""TensorRT and TensorRT-RTX: a plan on this machine's GPU, one copy to it and one from it for each step."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple, cast

import numpy as np

from kd_edge.artifact import Artifact
from kd_edge.engines.base import Engine, Provider
from kd_edge.engines.cuda import Device, find_gpu, open_device
from kd_edge.engines.cuda.device import Bytes, Lease
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
    """All inputs, or all outputs, of a batch in one piece of pinned memory and one of the GPU's: one copy moves them.

    Attributes:
        lease: What both belong to.
        memory: The pinned piece.
        address: Of the GPU's.
        offsets: Where each array begins, by name.
    """

    lease: Lease
    memory: Bytes
    address: int
    offsets: dict[str, int]


class TensorRtEngine(Engine):
    """A plan, built on this machine at the first start and kept. Closing gives all of the GPU's memory back.

    It is used by one thread: the first that runs it after it was opened, or after ``hand_over``.
    """

    key = "tensorrt"
    library = "tensorrt"
    accepts: ClassVar[tuple[Provider, ...]] = ("cuda",)
    _max_batch = 1

    @property
    def max_batch(self) -> int:
        """For how many sources its plan has room in one step."""
        return self._max_batch

    _device: Device | None = None
    _engine: Sequence[Any] = ()
    """The engine, where it is open; it must not outlive the context, so nothing else holds on to it."""

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
        self._messages = Messages(library)
        self._device = open_device(self.cuda_binding)
        weakref.finalize(self, self._device.close)  # for programs that end, or forget it, without closing it
        with self._device.current():
            self._lease = self._device.lease()
            runtime = library.trt.Runtime(self._messages.logger)
            self._lease.keep(runtime)
            plan = plans.obtain(artifact, library, gpu, None, log.warning)
            engine = runtime.deserialize_cuda_engine(plan.content)
            if engine is None and not plan.was_built:
                log.warning("%s refuses the plan that was kept: %s", self.name, self._messages.why())
                plans.discard(plan)
                plan = plans.obtain(artifact, library, gpu, plan.settings, log.warning)
                engine = runtime.deserialize_cuda_engine(plan.content)
            if engine is None:
                plans.discard(plan)
                raise DeviceError(
                    f"{self.name} refuses its own plan on {gpu}: {self._messages.why()}",
                    "a driver as new as the library",
                    "update the driver, kd-edge doctor, or --engine onnxruntime",
                )
            self._engine = self._lease.keep(engine)
            self._max_batch = plan.settings.max_batch
        self._device.hand_over()
        return self._found(library)

    def _found(self, library: Library) -> Tensors:
        """What the plan reads and writes."""
        trt, (engine,) = library.trt, self._engine
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
            lease = device.lease()
            arena = _Arena(lease, lease.pinned(end), lease.memory(end), offsets)
        self._arenas = [*self._arenas[-1:], arena]
        return {
            name: arena.memory[offsets[name] :][: 4 * batch * int(np.prod(shape))]
            .view(np.float32)
            .reshape(batch, *shape)
            for name, shape in shapes.items()
        }

    def _bind(self, inputs: dict[str, Float32], outputs: dict[str, Float32]) -> Callable[[], None]:
        (read, written), self._arenas = self._arenas, []
        device = self._opened()
        with device.current():
            lease = device.lease()
            # A graph that was captured does not hold on to its context.
            held = lease.keep(self._context(inputs, outputs, read, written))
            lease.keep((read, written))

            def enqueue() -> None:
                (context,) = held
                device.upload(read.address, read.memory)
                if not context.execute_async_v3(device.stream):
                    raise DeviceError(
                        f"{self.name} cannot run: {self._messages.why()}", "a run that works", "kd-edge doctor"
                    )
                device.download(written.memory, written.address)

            if device.can_capture:
                launch = self._graph(lease, enqueue, inputs, outputs)
            else:
                launch, self.notes = enqueue, (f"{device.key} knows no CUDA graphs",)

        def run() -> None:
            with self._opened().current():
                launch()
                lease.device.synchronize()

        return run

    def _context(self, inputs: dict[str, Float32], outputs: dict[str, Float32], read: _Arena, written: _Arena) -> Any:
        """An execution context for a batch; a graph that was captured belongs to one."""
        (engine,) = self._engine
        context = engine.create_execution_context()
        if context is None:
            raise DeviceError(
                f"{self.name} makes no execution context: {self._messages.why()}", "a GPU with free memory", "free some"
            )
        for name, array in inputs.items():
            if not context.set_input_shape(name, array.shape):
                raise DeviceError(
                    f"{self.name} takes no '{name}' of {array.shape}", "the plan's shapes", "export again"
                )
        for names, arena in ((inputs, read), (outputs, written)):
            for name in names:
                if not context.set_tensor_address(name, arena.address + arena.offsets[name]):
                    raise DeviceError(f"{self.name} takes no address of '{name}'", "the plan's tensors", "export again")
        return context

    def _graph(
        self, lease: Lease, enqueue: Callable[[], None], inputs: dict[str, Float32], outputs: dict[str, Float32]
    ) -> Callable[[], None]:
        """A step as one graph where it computes what the plain path does on noise; else, said so, the plain path."""
        rng = np.random.default_rng(0)
        noise = {name: rng.standard_normal(array.shape, dtype=np.float32) for name, array in inputs.items()}

        def computed(run: Callable[[], None], loudness: int) -> dict[str, Float32]:
            for name, array in inputs.items():
                array[:] = loudness * noise[name]
            run()
            lease.device.synchronize()
            return {name: array.copy() for name, array in outputs.items()}

        expected = computed(enqueue, 1)  # the first run of a context makes what no capture may make
        computed(enqueue, 0)  # a graph that does nothing would leave what was there
        try:
            launch = lease.captured(enqueue)
            found = computed(launch, 1)
            fault = "" if all(_agree(found[name], expected[name]) for name in outputs) else "it computes something else"
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
            self._device.close()


class TensorRtRtxEngine(TensorRtEngine):
    """TensorRT for RTX: compiles its kernels where it runs, for desktops with an RTX card; not for Jetsons."""

    key = "tensorrt-rtx"
    library = MODULES["tensorrt-rtx"]


def _agree(found: Float32, expected: Float32) -> bool:
    scale = float(np.abs(expected).max(initial=1e-6))
    return bool(np.abs(found - expected).max(initial=0) <= GRAPH_TOLERANCE * scale)
