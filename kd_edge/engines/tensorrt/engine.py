"""TensorRT and TensorRT-RTX: runs a plan on this machine's GPU, with one copy to it and one from it per step."""

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
"""Alignment of CUDA's own allocations, on which kernels may rely."""
GRAPH_TOLERANCE = 1e-3
"""Largest difference between outputs with and without a CUDA graph, relative to the largest; kernels are equal."""


class _Arena(NamedTuple):
    """All inputs or all outputs of a batch in one block of pinned memory and one of GPU memory, moved by one copy.

    Attributes:
        lease: The lease of both blocks.
        memory: The pinned memory.
        address: Address of the GPU memory.
        offsets: Start of each array in the block, by name.
    """

    lease: Lease
    memory: Bytes
    address: int
    offsets: dict[str, int]


class TensorRtEngine(Engine):
    """Runs a plan, which is built on this machine at the first start and cached. Closing frees all GPU memory.

    It belongs to one thread: the first that runs it after it was opened or after ``hand_over``.
    """

    key = "tensorrt"
    library = "tensorrt"
    accepts: ClassVar[tuple[Provider, ...]] = ("cuda",)
    _max_batch = 1

    @property
    def max_batch(self) -> int:
        """Largest number of sources in one step of its plan."""
        return self._max_batch

    _device: Device | None = None
    _engine: Sequence[Any] = ()
    """The engine while it is open. It must not outlive the context, so this is the only reference."""

    @classmethod
    def unsuited(cls, artifact: Artifact) -> str | None:
        """Why this engine cannot run an artifact, or None if it can; the library is not imported."""
        return unsuited(artifact)

    @classmethod
    def is_ready(cls, artifact: Artifact) -> bool:
        """Whether the plan for this machine is built."""
        from kd_edge.engines.tensorrt import plans  # not imported on robots without a GPU

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
        weakref.finalize(self, self._device.close)  # for programs that end without closing it
        with self._device.current():
            self._lease = self._device.lease()
            runtime = library.trt.Runtime(self._messages.logger)
            self._lease.keep(runtime)
            plan = plans.obtain(artifact, library, gpu, None, log.warning)
            engine = runtime.deserialize_cuda_engine(plan.content)
            if engine is None and not plan.was_built:
                log.warning("%s refuses the stored plan: %s", self.name, self._messages.why())
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
        """Inputs and outputs of the plan."""
        trt, (engine,) = library.trt, self._engine
        shapes: dict[Any, Shapes] = {trt.TensorIOMode.INPUT: {}, trt.TensorIOMode.OUTPUT: {}}
        for index in range(engine.num_io_tensors):
            name = engine.get_tensor_name(index)
            if engine.get_tensor_dtype(name) != trt.DataType.FLOAT:
                raise DeviceError(f"'{name}' of the plan is {engine.get_tensor_dtype(name)}", "FLOAT", "export again")
            shapes[engine.get_tensor_mode(name)][name] = tuple(engine.get_tensor_shape(name))[1:]
        return Tensors(shapes[trt.TensorIOMode.INPUT], shapes[trt.TensorIOMode.OUTPUT])

    def _arrays(self, shapes: Shapes, batch: int) -> dict[str, Float32]:
        """Allocate zeroed arrays in one block of pinned memory."""
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
            # A captured graph does not keep its context alive.
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
                launch, self.notes = enqueue, (f"{device.key} does not support CUDA graphs",)

        def run() -> None:
            with self._opened().current():
                launch()
                lease.device.synchronize()

        return run

    def _context(self, inputs: dict[str, Float32], outputs: dict[str, Float32], read: _Arena, written: _Arena) -> Any:
        """An execution context for a batch, to which a captured graph belongs."""
        (engine,) = self._engine
        context = engine.create_execution_context()
        if context is None:
            raise DeviceError(
                f"{self.name} cannot create an execution context: {self._messages.why()}",
                "a GPU with free memory",
                "free some",
            )
        for name, array in inputs.items():
            if not context.set_input_shape(name, array.shape):
                raise DeviceError(
                    f"{self.name} does not accept '{name}' of {array.shape}", "the plan's shapes", "export again"
                )
        for names, arena in ((inputs, read), (outputs, written)):
            for name in names:
                if not context.set_tensor_address(name, arena.address + arena.offsets[name]):
                    raise DeviceError(
                        f"{self.name} does not accept an address for '{name}'", "the plan's tensors", "export again"
                    )
        return context

    def _graph(
        self, lease: Lease, enqueue: Callable[[], None], inputs: dict[str, Float32], outputs: dict[str, Float32]
    ) -> Callable[[], None]:
        """Capture a step as a CUDA graph if that gives equal results on noise; otherwise log why and run without."""
        rng = np.random.default_rng(0)
        noise = {name: rng.standard_normal(array.shape, dtype=np.float32) for name, array in inputs.items()}

        def computed(run: Callable[[], None], amplitude: int) -> dict[str, Float32]:
            for name, array in inputs.items():
                array[:] = amplitude * noise[name]
            run()
            lease.device.synchronize()
            return {name: array.copy() for name, array in outputs.items()}

        expected = computed(enqueue, 1)  # a context's first run allocates, which a capture must not
        computed(enqueue, 0)  # clears the outputs, so that a graph that does nothing is noticed
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
        """Allow another thread to use the engine."""
        self._opened().hand_over()

    def _opened(self) -> Device:
        assert self._device is not None
        return self._device

    def _unload(self) -> None:
        if self._device is not None:
            self._device.close()


class TensorRtRtxEngine(TensorRtEngine):
    """TensorRT for RTX, which compiles its kernels at run time; for desktops with an RTX card, not for Jetsons."""

    key = "tensorrt-rtx"
    library = MODULES["tensorrt-rtx"]


def _agree(found: Float32, expected: Float32) -> bool:
    scale = float(np.abs(expected).max(initial=1e-6))
    return bool(np.abs(found - expected).max(initial=0) <= GRAPH_TOLERANCE * scale)
