"""A GPU as one thread uses it: the process's primary context, one stream, and memory that is given back in the end."""

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
"""How long closing waits for a run that is under way in another thread."""


class Lease:
    """What is given back together, the last thing first. All of it is to be asked for while the device is current.

    It is given back with the device, or before, when nobody holds the lease and the device is asked for another one.

    Attributes:
        device: Whose memory it is.
    """

    def __init__(self, device: Device) -> None:
        """See ``Device.lease``."""
        self.device = device
        self._frees: list[Free] = []
        device._adopt(self, self._frees)

    def memory(self, size: int) -> int:
        """Memory of the GPU.

        Args:
            size: In bytes.

        Returns:
            Its address.
        """
        address, free = self.device._allocated(size)
        self._frees.append(free)
        return address

    def pinned(self, size: int) -> Bytes:
        """Zeros (size,) in memory that the GPU can read and write by itself.

        It is NumPy's own memory, registered with the driver: the array stays readable when it is given back.
        """
        whole = np.zeros(size + 2 * PAGE_BYTES, dtype=np.uint8)
        first = -whole.ctypes.data % PAGE_BYTES  # what is registered are whole pages
        pages = whole[first : first + -(-size // PAGE_BYTES) * PAGE_BYTES]
        self.keep(whole)  # memory that is registered must not be anybody else's
        self._frees.append(self.device._registered(pages))
        return pages[:size]

    def captured(self, enqueue: Callable[[], None]) -> Callable[[], None]:
        """Record what a function puts into the stream as a graph.

        Returns:
            Puts all of it into the stream again, as one call.

        Raises:
            DeviceError: It cannot be recorded.
        """
        launch, free = self.device._captured(enqueue)
        self._frees.append(free)
        return launch

    def keep(self, thing: Kept) -> list[Kept]:
        """Hold on to something as long.

        Returns:
            A list of it alone, which is empty once it is given back.
        """
        held = [thing]
        self._frees.append(held.clear)
        return held


class Device(ABC):
    """One GPU. Its context is the process's primary one, which TensorRT and torch share, current only while it is used.

    A device is used by one thread: the first one that uses it after it was opened, or after ``hand_over``.

    Attributes:
        key: The binding's name.
        library: Name under which the binding is imported.
        can_capture: Whether the binding knows CUDA graphs.
        stream: The stream's handle, for other libraries.
    """

    key: ClassVar[str]
    library: ClassVar[str]
    can_capture: ClassVar[bool] = False
    stream: int

    def __init__(self, index: int = 0) -> None:
        """Take hold of a GPU; see ``kd_edge.engines.cuda.open_device``."""
        self._lock = threading.Lock()
        self._owner: threading.Thread | None = None
        self._leased: list[list[Free]] = []
        self._returned: deque[list[Free]] = deque()
        self._is_closing = self._closed = False

    @classmethod
    def is_installed(cls) -> bool:
        """Whether the binding is there; it is not imported."""
        try:
            return importlib.util.find_spec(cls.library) is not None
        except ModuleNotFoundError:  # nor is the package that it is a part of
            return False

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make the device's context this thread's while the block lasts.

        Raises:
            EngineError: It is another thread's, or closed.
            DeviceError: The driver refuses.
        """
        thread = threading.current_thread()
        owner = self._owner if self._owner is not None and self._owner.is_alive() else None
        if owner not in (None, thread) or not self._lock.acquire(blocking=False):
            whose = "another one" if owner in (None, thread) else f"thread '{owner.name}'"
            raise EngineError(
                f"thread '{thread.name}' uses the engine of {whose}",
                "one thread for a GPU's engine",
                "push from one thread, or hand_over() the recogniser to the next one",
            )
        try:
            if self._closed:
                raise EngineError("the GPU was given back", "an open engine", "open the model again")
            self._owner = thread
            with self._pushed():
                yield
        finally:
            if self._is_closing:
                self._end()
            self._lock.release()

    def hand_over(self) -> None:
        """Let the next thread that uses the device be its owner."""
        self._owner = None

    def lease(self) -> Lease:
        """What takes memory of the device, while it is current; leases that nobody holds any more are given back."""
        while self._returned:
            frees = self._returned.popleft()
            self._leased[:] = [other for other in self._leased if other is not frees]
            self._give_back(frees)
        return Lease(self)

    def close(self) -> None:
        """Give everything back; what the driver refuses then is lost with the device. Closing twice does nothing.

        A run that is under way in another thread is waited for; where it hangs, its thread gives everything back when
        it ends.
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
        """What a lost device refuses to take back is lost with it: its first error was told."""
        with contextlib.suppress(KdEdgeError):
            self.synchronize()  # what a run that failed left in the stream still reads and writes there
        while frees:
            with contextlib.suppress(KdEdgeError):
                frees.pop()()

    @abstractmethod
    def upload(self, address: int, array: Bytes) -> None:
        """Copy from pinned memory to the GPU, in the stream's order."""

    @abstractmethod
    def download(self, array: Bytes, address: int) -> None:
        """Copy from the GPU to pinned memory, in the stream's order."""

    @abstractmethod
    def synchronize(self) -> None:
        """Wait until the stream has done everything."""

    @abstractmethod
    def _pushed(self) -> contextlib.AbstractContextManager[None]:
        """The context, current."""

    @abstractmethod
    def _allocated(self, size: int) -> tuple[int, Free]:
        """Memory of the GPU, and what gives it back."""

    @abstractmethod
    def _registered(self, pages: Bytes) -> Free:
        """Let the GPU use whole pages of host memory; returns what ends that."""

    def _captured(self, enqueue: Callable[[], None]) -> tuple[Callable[[], None], Free]:
        """A graph of what a function puts into the stream: what launches it, and what gives it back."""
        raise DeviceError(f"{self.key} knows no CUDA graphs", "a binding that does", "use cuda-python")

    @abstractmethod
    def _release(self) -> None:
        """Let go of the context."""
