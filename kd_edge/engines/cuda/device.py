"""A GPU as one thread uses it: the process's primary context, one stream, and memory that is given back in the end."""

from __future__ import annotations

import contextlib
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from kd_edge.errors import DeviceError, EngineError, KdEdgeError

Bytes = npt.NDArray[np.uint8]
PAGE_BYTES = 4096
CLOSE_SECONDS = 5.0
"""How long closing waits for a run that is under way in another thread."""


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
        self._frees: list[Callable[[], None]] = []
        self._pinned: list[Bytes] = []
        self._closed = False
        self._let_go: Callable[[], None] | None = None

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
            if self._let_go is not None:  # closed meanwhile
                self._give_back()
            self._lock.release()

    def hand_over(self) -> None:
        """Let the next thread that uses the device be its owner."""
        self._owner = None

    def memory(self, size: int) -> int:
        """Memory of the GPU, given back with the device; to be asked for while it is current.

        Args:
            size: In bytes.

        Returns:
            Its address.
        """
        address, free = self._allocated(size)
        self._frees.append(free)
        return address

    def pinned(self, size: int) -> Bytes:
        """Zeros (size,) in memory that the GPU can read and write by itself, to be asked for while it is current.

        It is NumPy's own memory, registered with the driver: the array stays readable when the device is closed.
        """
        whole = np.zeros(size + 2 * PAGE_BYTES, dtype=np.uint8)
        first = -whole.ctypes.data % PAGE_BYTES  # what is registered are whole pages
        pages = whole[first : first + -(-size // PAGE_BYTES) * PAGE_BYTES]
        self._frees.append(self._registered(pages))
        self._pinned.append(whole)  # memory that is registered must not be anybody else's
        return pages[:size]

    def close(self, let_go: Callable[[], None] = lambda: None) -> None:
        """Give everything back; what the driver refuses then is lost with the device. Closing twice does nothing.

        A step that is under way in another thread is waited for; where it hangs, its thread gives everything back when
        it ends.

        Args:
            let_go: Called before anything is freed, when no step is under way: drops what lives on the device.
        """
        self._let_go = let_go
        if self._lock.acquire(timeout=CLOSE_SECONDS):
            try:
                self._give_back()
            finally:
                self._lock.release()

    def _give_back(self) -> None:
        if self._closed or self._let_go is None:
            return
        self._closed = True
        self._let_go()
        if not self._freed():
            self._abandon()
        self._frees.clear()
        self._pinned.clear()
        with contextlib.suppress(KdEdgeError):
            self._release()

    def _freed(self) -> bool:
        """Give back all memory; whether the driver took all of it."""
        taken = True
        try:
            with self._pushed():
                for free in reversed(self._frees):
                    try:
                        free()
                    except KdEdgeError:
                        taken = False
        except KdEdgeError:
            return False
        return taken

    def _abandon(self) -> None:  # noqa: B027 - most bindings hold on to nothing
        """Leave what cannot be given back to a lost device as it is."""

    @abstractmethod
    def upload(self, address: int, array: Bytes) -> None:
        """Copy from pinned memory to the GPU, in the stream's order."""

    @abstractmethod
    def download(self, array: Bytes, address: int) -> None:
        """Copy from the GPU to pinned memory, in the stream's order."""

    @abstractmethod
    def synchronize(self) -> None:
        """Wait until the stream has done everything."""

    def captured(self, enqueue: Callable[[], None]) -> Callable[[], None]:
        """Record what a function puts into the stream as a graph.

        Returns:
            Puts all of it into the stream again, as one call.

        Raises:
            DeviceError: It cannot be recorded.
        """
        raise DeviceError(f"{self.key} knows no CUDA graphs", "a binding that does", "use cuda-python")

    @abstractmethod
    def _pushed(self) -> contextlib.AbstractContextManager[None]:
        """The context, current."""

    @abstractmethod
    def _allocated(self, size: int) -> tuple[int, Callable[[], None]]:
        """Memory of the GPU, and what gives it back."""

    @abstractmethod
    def _registered(self, pages: Bytes) -> Callable[[], None]:
        """Let the GPU use whole pages of host memory; returns what ends that."""

    @abstractmethod
    def _release(self) -> None:
        """Let go of the context."""
