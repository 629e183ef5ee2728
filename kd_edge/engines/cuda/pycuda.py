"""A GPU through pycuda. It knows no CUDA graphs."""

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
"""The driver's flag of a stream that does not wait for other libraries' default one."""


class PycudaDevice(Device):
    """See ``Device``. ``pycuda.autoinit`` is left alone: it makes a context of its own, of the importing thread."""

    key = library = "pycuda"

    def __init__(self, index: int = 0) -> None:
        super().__init__(index)
        self._held: list[Any] = []
        self._stream: Any = None
        self._cuda: Any = import_extra("pycuda.driver", "pycuda")
        with self._told():
            self._cuda.init()
            self._context = self._cuda.Device(index).retain_primary_context()
        try:
            with self.current(), self._told():
                self._stream = self._cuda.Stream(_NON_BLOCKING)
        except BaseException:
            self.close()
            raise
        self.hand_over()
        self.stream = int(self._stream.handle)
        self._leased.append([self._let_go_of_stream])

    def upload(self, address: int, array: Bytes) -> None:
        """Copy from pinned memory to the GPU, in the stream's order."""
        with self._told():
            self._cuda.memcpy_htod_async(address, array, self._stream)

    def download(self, array: Bytes, address: int) -> None:
        """Copy from the GPU to pinned memory, in the stream's order."""
        with self._told():
            self._cuda.memcpy_dtoh_async(array, address, self._stream)

    def synchronize(self) -> None:
        """Wait until the stream has done everything."""
        with self._told():
            self._stream.synchronize()

    @contextmanager
    def _pushed(self) -> Iterator[None]:
        if self._context is None:
            raise refused("cuCtxPushCurrent", "CUDA_ERROR_CONTEXT_IS_DESTROYED")
        with self._told():
            self._context.push()
        try:
            yield
        finally:
            try:
                self._cuda.Context.pop()
            except self._cuda.Error:  # the first error is the one to tell
                self._detach()  # else it stays on the binding's own stack, which ends the process for that

    def _allocated(self, size: int) -> tuple[int, Free]:
        with self._told():
            memory = self._cuda.mem_alloc(size)
        self._held.append(memory)
        return int(memory), partial(self._free, memory)

    def _free(self, memory: Any) -> None:
        with self._told():
            memory.free()
        self._held.remove(memory)

    def _registered(self, pages: Bytes) -> Free:
        # The binding's own register_host_memory ends the process under NumPy 2 (seen in 2026.1).
        return register(pages.ctypes.data, pages.nbytes)

    def _let_go_of_stream(self) -> None:
        self.synchronize()  # where the device is lost, the binding's destructors end the process
        self._stream = None

    def _release(self) -> None:
        if self._context is not None:
            with self._told():
                try:
                    self._context.push()  # the binding releases only what is current from any thread
                finally:
                    self._detach()
        self._stream = None
        self._held.clear()

    def _detach(self) -> None:
        """Let go of the context: what is left of it is dead to the binding, whose destructors do nothing then."""
        context, self._context = self._context, None
        with self._told():
            context.detach()
        pop_current()  # the binding leaves a primary one current for ever

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except self._cuda.Error as error:
            call, _, why = reason(error).partition(" failed: ")
            raise refused(call, error_named(why.partition(" - ")[0]) or why or "an error") from error
