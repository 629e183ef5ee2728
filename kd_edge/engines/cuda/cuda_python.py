"""A GPU through cuda-python, NVIDIA's own binding."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from kd_edge.engines.cuda.device import Bytes, Device, Free
from kd_edge.engines.cuda.driver import refused
from kd_edge.errors import DeviceError
from kd_edge.packages import import_extra


class CudaPythonDevice(Device):
    """A GPU opened through cuda-python; see ``Device``."""

    key = "cuda-python"
    library = "cuda.bindings"
    can_capture = True

    def __init__(self, index: int = 0) -> None:
        super().__init__(index)
        self._driver: Any = import_extra("cuda.bindings.driver", "tensorrt")
        self._call("cuInit", 0)
        self._device = self._call("cuDeviceGet", index)
        self._context = self._call("cuDevicePrimaryCtxRetain", self._device)
        try:
            with self.current():
                self._stream = self._call("cuStreamCreate", self._driver.CUstream_flags.CU_STREAM_NON_BLOCKING)
        except BaseException:
            self.close()
            raise
        self.hand_over()
        self.stream = int(self._stream)
        self._leased.append([lambda: self._call("cuStreamDestroy", self._stream)])

    def upload(self, address: int, array: Bytes) -> None:
        """Copy from pinned memory to the GPU, in stream order."""
        self._call("cuMemcpyHtoDAsync", address, array.ctypes.data, array.nbytes, self._stream)

    def download(self, array: Bytes, address: int) -> None:
        """Copy from the GPU to pinned memory, in stream order."""
        self._call("cuMemcpyDtoHAsync", array.ctypes.data, address, array.nbytes, self._stream)

    def synchronize(self) -> None:
        """Wait until the stream is idle."""
        self._call("cuStreamSynchronize", self._stream)

    def _captured(self, enqueue: Callable[[], None]) -> tuple[Callable[[], None], Free]:
        # In any other mode a capture would break the streams of other threads.
        mode = self._driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        self._call("cuStreamBeginCapture", self._stream, mode)
        try:
            enqueue()
        except BaseException:
            self._end_capture()
            raise
        graph = self._call("cuStreamEndCapture", self._stream)
        try:
            executable = self._call("cuGraphInstantiate", graph, 0)
        finally:
            self._driver.cuGraphDestroy(graph)
        return (
            lambda: self._call("cuGraphLaunch", executable, self._stream),
            lambda: self._call("cuGraphExecDestroy", executable),
        )

    def _end_capture(self) -> None:
        """End a failed capture, because a capturing stream does nothing else."""
        with contextlib.suppress(DeviceError):  # report the first error
            self._call("cuGraphDestroy", self._call("cuStreamEndCapture", self._stream))

    @contextmanager
    def _pushed(self) -> Iterator[None]:
        self._call("cuCtxPushCurrent", self._context)
        try:
            yield
        finally:
            self._driver.cuCtxPopCurrent()  # also for a lost device; report the first error

    def _allocated(self, size: int) -> tuple[int, Free]:
        address = self._call("cuMemAlloc", size)
        return int(address), lambda: self._call("cuMemFree", address)

    def _registered(self, pages: Bytes) -> Free:
        start = pages.ctypes.data
        self._call("cuMemHostRegister", start, pages.nbytes, 0)
        return lambda: self._call("cuMemHostUnregister", start)

    def _release(self) -> None:
        self._call("cuDevicePrimaryCtxRelease", self._device)

    def _call(self, name: str, *arguments: object) -> Any:
        """Call the driver and return its result without the error code."""
        error, *values = getattr(self._driver, name)(*arguments)
        if int(error) != 0:
            raise refused(name, getattr(error, "name", str(error)))
        return values[0] if values else None
