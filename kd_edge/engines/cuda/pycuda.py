"""A GPU through pycuda, which does not support CUDA graphs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from kd_edge.engines.cuda.device import Bytes, Device, Free
from kd_edge.engines.cuda.driver import error_named, pop_current, refused, register
from kd_edge.errors import reason
from kd_edge.packages import import_extra

_NON_BLOCKING = 1
"""Flag for a stream that does not synchronise with the default stream of other libraries."""


class PycudaDevice(Device):
    """A GPU opened through pycuda; see ``Device``. ``pycuda.autoinit`` is not used: it creates a context of its own."""

    key = library = "pycuda"

    def __init__(self, index: int = 0) -> None:
        super().__init__(index)
        self._held: list[Any] = []
        self._stream: Any = None
        self._cuda: Any = import_extra("pycuda.driver", "pycuda")
        with self._reporting():
            self._cuda.init()
            self._context = self._cuda.Device(index).retain_primary_context()
        try:
            with self.current(), self._reporting():
                self._stream = self._cuda.Stream(_NON_BLOCKING)
        except BaseException:
            self.close()
            raise
        self.hand_over()
        self.stream = int(self._stream.handle)
        self._leased.append([self._release_stream])

    def upload(self, address: int, array: Bytes) -> None:
        """Copy from pinned memory to the GPU, in stream order."""
        with self._reporting():
            self._cuda.memcpy_htod_async(address, array, self._stream)

    def download(self, array: Bytes, address: int) -> None:
        """Copy from the GPU to pinned memory, in stream order."""
        with self._reporting():
            self._cuda.memcpy_dtoh_async(array, address, self._stream)

    def synchronize(self) -> None:
        """Wait until the stream is idle."""
        with self._reporting():
            self._stream.synchronize()

    @contextmanager
    def _pushed(self) -> Iterator[None]:
        if self._context is None:
            raise refused("cuCtxPushCurrent", "CUDA_ERROR_CONTEXT_IS_DESTROYED")
        with self._reporting():
            self._context.push()
        try:
            yield
        finally:
            try:
                self._cuda.Context.pop()
            except self._cuda.Error:  # report the first error
                self._detach()  # left on the binding's own stack it would abort the process

    def _allocated(self, size: int) -> tuple[int, Free]:
        with self._reporting():
            memory = self._cuda.mem_alloc(size)
        self._held.append(memory)
        return int(memory), partial(self._free, memory)

    def _free(self, memory: Any) -> None:
        with self._reporting():
            memory.free()
        self._held.remove(memory)

    def _registered(self, pages: Bytes) -> Free:
        # The binding's own register_host_memory crashes under NumPy 2 (seen in 2026.1).
        return register(pages.ctypes.data, pages.nbytes)

    def _release_stream(self) -> None:
        self.synchronize()  # raises for a lost device, whose destructors would abort the process
        self._stream = None

    def _release(self) -> None:
        if self._context is not None:
            with self._reporting():
                try:
                    self._context.push()  # the binding only releases a current context from any thread
                finally:
                    self._detach()
        self._stream = None
        self._held.clear()

    def _detach(self) -> None:
        """Detach the context; the binding's destructors then ignore what is left of it."""
        context, self._context = self._context, None
        with self._reporting():
            context.detach()
        pop_current()  # the binding leaves a primary context current

    @contextmanager
    def _reporting(self) -> Iterator[None]:
        try:
            yield
        except self._cuda.Error as error:
            call, _, why = reason(error).partition(" failed: ")
            raise refused(call, error_named(why.partition(" - ")[0]) or why or "an error") from error
