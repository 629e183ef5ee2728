"""A GPU through pycuda. It knows no CUDA graphs."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from kd_edge.engines.cuda.device import Bytes, Device
from kd_edge.engines.cuda.driver import pop_current, refused, register
from kd_edge.errors import import_extra, reason


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
                self._stream = self._cuda.Stream(self._cuda.event_flags.DEFAULT)
        except BaseException:
            self.close()
            raise
        self.hand_over()
        self.stream = int(self._stream.handle)
        self._frees.append(self._let_go_of_stream)

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
        with self._told():
            self._context.push()
        try:
            yield
        finally:
            with contextlib.suppress(self._cuda.Error):  # of a lost device too, whose first error is the one to tell
                self._cuda.Context.pop()

    def _allocated(self, size: int) -> tuple[int, Callable[[], None]]:
        with self._told():
            memory = self._cuda.mem_alloc(size)
        self._held.append(memory)
        return int(memory), partial(self._free, memory)

    def _free(self, memory: Any) -> None:
        with self._told():
            memory.free()
        self._held.remove(memory)

    def _registered(self, pages: Bytes) -> Callable[[], None]:
        # The binding's own register_host_memory ends the process under NumPy 2 (seen in 2026.1).
        return register(pages.ctypes.data, pages.nbytes)

    def _let_go_of_stream(self) -> None:
        with self._told():
            self._stream.synchronize()  # the binding's destructor ends the process where the device is lost
        self._stream = None

    def _abandon(self) -> None:
        """The binding's destructors end the process where the driver refuses: they never come to run."""
        for held in (*self._held, self._stream, self._context):
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(held))

    def _release(self) -> None:
        # The binding takes only the context that is current from any thread, and leaves a primary one current for ever.
        with self._told():
            self._context.push()
            self._context.detach()
        pop_current()

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except self._cuda.Error as error:
            call, _, why = reason(error).partition(" failed: ")
            raise refused(call, why or "an error") from error
