"""Files and folders: atomic writes, locks between processes, and kd-edge's folders in the user's home."""

from __future__ import annotations

import errno
import functools
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal

from kd_edge.errors import ConfigError, KdEdgeError
from kd_edge.reading import is_folder

if TYPE_CHECKING:
    from filelock import BaseFileLock

log = logging.getLogger("kd_edge.files")

CACHE_VARIABLE = "KD_EDGE_CACHE"
"""Environment variable that sets the cache folder."""

_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL, errno.EPERM}
"""Error codes of file systems without locks: NFS without its lock service, Lustre without ``flock``, some FUSE ones."""


def user_folder(kind: Literal["cache", "config", "data"]) -> Path | None:
    """kd-edge's folder in the user's home; None if there is no home, as in a container that runs under a bare id."""
    import platformdirs  # imported here because most runs need no user folder

    try:
        return Path(getattr(platformdirs, f"user_{kind}_dir")("kd-edge", appauthor=False)).expanduser()
    except (RuntimeError, KeyError):
        return None


def expanded(path: Path | str) -> Path:
    """Replace ``~`` in a path by the home folder.

    Raises:
        ConfigError: The home folder is not known.
    """
    try:
        return Path(path).expanduser()
    except (RuntimeError, KeyError) as error:
        raise ConfigError(
            f"{path}: no home folder is known (user id {os.getuid()}, HOME {os.environ.get('HOME', 'not set')})",
            "a path without ~, or a user with a home",
            "write the path out, or set HOME",
        ) from error


def cache_folder() -> Path | None:
    """``KD_EDGE_CACHE``, or the user's cache folder; None if neither is known. For callers that can do without."""
    given = os.environ.get(CACHE_VARIABLE)
    return expanded(given) if given else user_folder("cache")


def cache_root() -> Path:
    """``cache_folder``, for callers that require one.

    Raises:
        ConfigError: There is no cache folder.
    """
    folder = cache_folder()
    if folder is None:
        raise ConfigError(
            f"no folder for the cache: {CACHE_VARIABLE} is not set, and user id {os.getuid()} has no known home",
            "a writable folder",
            f"set {CACHE_VARIABLE} to one",
        )
    return folder


@contextmanager
def held(file: Path, waiting: Callable[[], None] | None = None, *, seconds: float = -1) -> Iterator[bool]:
    """Hold a lock file, which exists only while it is held.

    The kernel releases the lock when the process dies. On a file system without locks, a marker file next to it that
    names the process is used instead, and this is logged. A marker of a process that died on this machine is taken
    over; one of a process on another machine has to be removed by hand.

    Args:
        file: The lock file; its folder is created.
        waiting: Called once before waiting for another process that holds the lock; None does not wait.
        seconds: Longest time to wait; -1 waits without limit.

    Yields:
        Whether the lock is held; False if another process holds it and waiting was disabled or timed out.

    Raises:
        OSError: The folder cannot be written.
    """
    lock = _acquire(file, waiting, seconds)
    try:
        yield lock is not None
    finally:
        if lock is not None:
            with suppress(OSError):
                file.unlink()  # before the release, so that waiting processes notice that the file is gone
            lock.release()


def _acquire(file: Path, waiting: Callable[[], None] | None, seconds: float) -> BaseFileLock | None:
    from filelock import FileLock, SoftFileLock  # imported here because a robot's process holds no lock

    try:
        return _try_acquire(FileLock(file, fallback_to_soft=False), waiting, seconds)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    # Under another name, because an existing lock file does not mean that it is held.
    marker = file.with_name(f".soft{file.name}")
    _warn_of_markers(file.parent)
    return _try_acquire(SoftFileLock(marker), waiting, seconds)


@functools.cache
def _warn_of_markers(folder: Path) -> None:
    log.warning("%s has no file locks: .soft* files are used instead; remove one whose process is gone", folder)


def _try_acquire(lock: BaseFileLock, waiting: Callable[[], None] | None, seconds: float) -> BaseFileLock | None:
    """Acquire the lock; None if another process holds it and waiting is disabled or timed out."""
    from filelock import Timeout

    try:
        lock.acquire(timeout=0.1, poll_interval=0.02)  # the second try takes over the marker of a dead process
    except Timeout:
        if waiting is None:
            return None
        waiting()
        try:
            lock.acquire(timeout=seconds, poll_interval=0.02)
        except Timeout:
            return None
    return lock


@contextmanager
def replacing(
    path: Path, error: type[KdEdgeError] = KdEdgeError, *, option: str | None = None, mode: int = 0o644
) -> Iterator[BinaryIO]:
    """Open a temporary file next to ``path`` that replaces it on success and is removed on failure.

    Args:
        path: The file to write; its folder is created.
        error: Class of the exception raised if the folder cannot be written or the disk is full.
        option: Command-line option that chose the folder, named in the error; None if there is none.
        mode: Permissions of the file.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        temporary = Path(name)
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(mode)
        temporary.replace(path)
    except OSError as fault:
        raise error(
            f"{path} cannot be written ({fault.strerror or fault})",
            "a writable folder with free space",
            "free space, or " + (f"choose another folder with {option}" if option else "make the folder writable"),
        ) from fault
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def check_writable(path: Path, error: type[KdEdgeError] = KdEdgeError, *, option: str = "--out") -> None:
    """Check that ``replacing`` can write a file, before minutes of work instead of after it.

    Raises:
        KdEdgeError: The file cannot be written; nothing is created.
    """
    existing = next(folder for folder in path.absolute().parents if os.path.exists(folder))  # noqa: PTH110 - never raises
    why = "it is a folder" if is_folder(path) else ""
    if not why:
        try:
            with tempfile.TemporaryFile(dir=existing):  # permissions alone do not reveal a read-only file system
                pass
        except OSError as fault:
            why = fault.strerror or str(fault)
    if why:
        raise error(f"{path} cannot be written ({why})", "a writable folder", f"choose another {option}")


def new_file(path: Path, *, buffering: int = -1) -> BinaryIO:
    """Create a new file for reading and writing, readable by the user and the user's group.

    Args:
        path: File to create; its folder must exist, and a link is not followed.
        buffering: As for ``open``; 0 passes everything written to the kernel immediately.

    Raises:
        OSError: The file exists already or cannot be created.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    file: BinaryIO = os.fdopen(os.open(path, flags, 0o640), "w+b", buffering=buffering)
    return file


@contextmanager
def making(folder: Path, option: str, error: type[KdEdgeError] = KdEdgeError) -> Iterator[Path]:
    """Create a temporary folder that becomes ``folder`` on success and is removed on failure.

    Args:
        folder: Folder to create; must be absent or empty.
        option: Command-line option that chose the folder, named in the error.
        error: Class of the exception raised if the folder is not free, cannot be written, or is being written by
            another process.
    """
    check_free(folder, option, error)
    temporary = folder.with_name(f".tmp-{folder.name}")
    try:
        with held(folder.with_name(f".lock-{folder.name}")) as is_held:
            if not is_held:
                raise error(
                    f"{folder} is being written by another process", "a free folder", f"choose another {option}"
                )
            if temporary.exists():  # left by a killed process
                shutil.rmtree(temporary)
            temporary.mkdir(parents=True)
            try:
                yield temporary
                temporary.replace(folder)
            except BaseException:
                shutil.rmtree(temporary, ignore_errors=True)
                raise
    except OSError as fault:
        raise error(
            f"cannot write {folder} ({fault.strerror})", "a writable folder with free space", f"choose another {option}"
        ) from fault


def check_free(folder: Path, option: str, error: type[KdEdgeError] = KdEdgeError) -> None:
    """Check that ``making`` can create a folder, before hours of work instead of after it."""
    try:
        taken = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    except OSError as fault:
        raise error(
            f"cannot read {folder} ({fault.strerror})", "a new or empty folder", f"choose another {option}"
        ) from fault
    if taken:
        raise error(f"{folder} exists and is not an empty folder", "a new or empty folder", f"choose another {option}")
