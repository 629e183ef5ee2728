"""A GPU used by one thread: the process's primary context, one stream, and memory that is freed in the end."""

from __future__ import annotations

import contextlib
import importlib.util
import threading
import weakref
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ClassVar, TypeVar

import numpy as np
import numpy.typing as npt

from kd_edge.errors import DeviceError, EngineError, KdEdgeError

Bytes = npt.NDArray[np.uint8]
Free = Callable[[], None]
Kept = TypeVar("Kept")
PAGE_BYTES = 4096
CLOSE_SECONDS = 5.0
"""How long closing waits for a run in another thread."""


class Lease:
    """Resources that are freed together, in reverse order. Allocate them while the device is current.

    They are freed with the device, or earlier: when the lease is no longer referenced and another one is requested.

    Attributes:
        device: The device of the resources.
    """

    def __init__(self, device: Device) -> None:
        """See ``Device.lease``."""
        self.device = device
        self._frees: list[Free] = []
        device._adopt(self, self._frees)

    def memory(self, size: int) -> int:
        """Allocate GPU memory.

        Args:
            size: Size in bytes.

        Returns:
            The address.
        """
        address, free = self.device._allocated(size)
        self._frees.append(free)
        return address

    def pinned(self, size: int) -> Bytes:
        """Allocate zeros (size,) in host memory that the GPU can access directly.

        It is NumPy's memory, registered with the driver, so the array stays readable after the lease is freed.
        """
        whole = np.zeros(size + 2 * PAGE_BYTES, dtype=np.uint8)
        first = -whole.ctypes.data % PAGE_BYTES  # only whole pages can be registered
        pages = whole[first : first + -(-size // PAGE_BYTES) * PAGE_BYTES]
        self.keep(whole)  # registered memory must not be reused
        self._frees.append(self.device._registered(pages))
        return pages[:size]

    def captured(self, enqueue: Callable[[], None]) -> Callable[[], None]:
        """Capture the operations that a function enqueues as a graph.

        Returns:
            A function that enqueues the whole graph with one call.

        Raises:
            DeviceError: The operations cannot be captured.
        """
        launch, free = self.device._captured(enqueue)
        self._frees.append(free)
        return launch

    def keep(self, thing: Kept) -> list[Kept]:
        """Keep a reference to an object as long as the lease.

        Returns:
            A list with the object, which is emptied when the lease is freed.
        """
        held = [thing]
        self._frees.append(held.clear)
        return held


class Device(ABC):
    """One GPU, in the process's primary context, which TensorRT and torch share and which is current only while used.

    A device belongs to one thread: the first that uses it after it was opened or after ``hand_over``.

    Attributes:
        key: Name of the binding.
        library: Import name of the binding.
        can_capture: Whether the binding supports CUDA graphs.
        stream: The stream's handle, for other libraries.
    """

    key: ClassVar[str]
    library: ClassVar[str]
    can_capture: ClassVar[bool] = False
    stream: int

    def __init__(self, index: int = 0) -> None:
        """Open a GPU; see ``kd_edge.engines.cuda.open_device``."""
        self._lock = threading.Lock()
        self._owner: threading.Thread | None = None
        self._leased: list[list[Free]] = []
        self._returned: deque[list[Free]] = deque()
        self._is_closing = self._closed = False

    @classmethod
    def is_installed(cls) -> bool:
        """Whether the binding is installed, without importing it."""
        try:
            return importlib.util.find_spec(cls.library) is not None
        except ModuleNotFoundError:  # its parent package is missing, too
            return False

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make the device's context current in this thread for the duration of the block.

        Raises:
            EngineError: The device belongs to another thread, or is closed.
            DeviceError: The driver returned an error.
        """
        thread = threading.current_thread()
        owner = self._owner if self._owner is not None and self._owner.is_alive() else None
        if owner not in (None, thread) or not self._lock.acquire(blocking=False):
            whose = "another one" if owner in (None, thread) else f"thread '{owner.name}'"
            raise EngineError(
                f"thread '{thread.name}' uses the engine of {whose}",
                "one thread for an engine on a GPU",
                "push from one thread, or hand_over() the recogniser to the next one",
            )
        try:
            if self._closed:
                raise EngineError("the GPU is closed", "an open engine", "open the model again")
            self._owner = thread
            with self._pushed():
                yield
        finally:
            if self._is_closing:
                self._end()
            self._lock.release()

    def hand_over(self) -> None:
        """Allow another thread to become the owner of the device."""
        self._owner = None

    def lease(self) -> Lease:
        """Return a new lease and free those that are no longer referenced; call it while the device is current."""
        while self._returned:
            frees = self._returned.popleft()
            self._leased[:] = [other for other in self._leased if other is not frees]
            self._give_back(frees)
        return Lease(self)

    def close(self) -> None:
        """Free all resources, ignoring errors of the driver. Closing twice does nothing.

        Waits for a run in another thread; if that hangs, its thread frees the resources when it ends.
        """
        self._is_closing = True
        if self._lock.acquire(timeout=CLOSE_SECONDS):
            try:
                self._end()
            finally:
                self._lock.release()

    def _end(self) -> None:
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(KdEdgeError), self._pushed():
            for frees in reversed(self._leased):
                self._give_back(frees)
        with contextlib.suppress(KdEdgeError):
            self._release()
        self._leased.clear()
        self._returned.clear()

    def _adopt(self, lease: Lease, frees: list[Free]) -> None:
        self._leased.append(frees)
        weakref.finalize(lease, self._returned.append, frees).atexit = False

    def _give_back(self, frees: list[Free]) -> None:
        """Free resources, ignoring errors: a lost device has already reported its first error."""
        with contextlib.suppress(KdEdgeError):
            self.synchronize()  # a failed run may still be accessing the memory
        while frees:
            with contextlib.suppress(KdEdgeError):
                frees.pop()()

    @abstractmethod
    def upload(self, address: int, array: Bytes) -> None:
        """Copy from pinned memory to the GPU, in stream order."""

    @abstractmethod
    def download(self, array: Bytes, address: int) -> None:
        """Copy from the GPU to pinned memory, in stream order."""

    @abstractmethod
    def synchronize(self) -> None:
        """Wait until the stream is idle."""

    @abstractmethod
    def _pushed(self) -> contextlib.AbstractContextManager[None]:
        """Return a context manager that makes the CUDA context current."""

    @abstractmethod
    def _allocated(self, size: int) -> tuple[int, Free]:
        """Allocate GPU memory; return its address and a function that frees it."""

    @abstractmethod
    def _registered(self, pages: Bytes) -> Free:
        """Register whole pages of host memory; return a function that unregisters them."""

    def _captured(self, enqueue: Callable[[], None]) -> tuple[Callable[[], None], Free]:
        """Capture a graph; return functions that launch and free it."""
        raise DeviceError(f"{self.key} does not support CUDA graphs", "a binding that does", "use cuda-python")

    @abstractmethod
    def _release(self) -> None:
        """Release the context."""
