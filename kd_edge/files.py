"""Files and folders: written whole or not at all, held by one process at a time, found in the user's home."""

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
"""Environment variable: the folder of the caches."""

_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL, errno.EPERM}
"""What file systems without locks answer: NFS without its lock service, Lustre without ``flock``, some of FUSE."""


def user_folder(kind: Literal["cache", "config", "data"]) -> Path | None:
    """kd-edge's folder in the user's home; None where no home is known, as in a container that runs under a bare id."""
    import platformdirs  # most runs need no folder of the user's

    try:
        return Path(getattr(platformdirs, f"user_{kind}_dir")("kd-edge", appauthor=False)).expanduser()
    except (RuntimeError, KeyError):
        return None


def expanded(path: Path | str) -> Path:
    """A path with ``~`` replaced by the home folder it means.

    Raises:
        ConfigError: No such home is known.
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
    """``KD_EDGE_CACHE``, or the user's cache folder; None where neither is known, for those who can do without."""
    given = os.environ.get(CACHE_VARIABLE)
    return expanded(given) if given else user_folder("cache")


def cache_root() -> Path:
    """``cache_folder``, for those who need it.

    Raises:
        ConfigError: There is none.
    """
    folder = cache_folder()
    if folder is None:
        raise ConfigError(
            f"no folder for the cache: {CACHE_VARIABLE} is not set, and no home is known of user id {os.getuid()}",
            "a folder that can be written",
            f"set {CACHE_VARIABLE} to one",
        )
    return folder


@contextmanager
def held(file: Path, waiting: Callable[[], None] | None = None, *, seconds: float = -1) -> Iterator[bool]:
    """Hold a lock file for this process; it is there only as long as it is held.

    The kernel frees it when the process dies. On a file system without locks a file beside it takes its place, which
    names the process; it is taken over from a process that has died on this machine, and has to be removed by hand
    after one on another machine. A line in the log says so.

    Args:
        file: The lock file; its folder is made.
        waiting: Called once where another process holds it, which is then waited for; None does not wait.
        seconds: How long that is waited for at most; -1 waits as long as it lives.

    Yields:
        Whether it is held; without waiting, or after it, it is not where another process holds it.

    Raises:
        OSError: The folder cannot be written.
    """
    lock = _acquired(file, waiting, seconds)
    try:
        yield lock is not None
    finally:
        if lock is not None:
            with suppress(OSError):
                file.unlink()  # while it is held: whoever waits for it sees that it is gone
            lock.release()


def _acquired(file: Path, waiting: Callable[[], None] | None, seconds: float) -> BaseFileLock | None:
    from filelock import FileLock, SoftFileLock  # a robot's process holds nothing

    try:
        return _taken(FileLock(file, fallback_to_soft=False), waiting, seconds)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    # Another name: whether this one is there says nothing about who holds it.
    marker = file.with_name(f".soft{file.name}")
    _tell_of_markers(file.parent)
    return _taken(SoftFileLock(marker), waiting, seconds)


@functools.cache
def _tell_of_markers(folder: Path) -> None:
    log.warning("%s has no file locks: .soft* files stand for them; remove one whose process is gone", folder)


def _taken(lock: BaseFileLock, waiting: Callable[[], None] | None, seconds: float) -> BaseFileLock | None:
    """The lock, held; None where another process holds it and there is no waiting."""
    from filelock import Timeout

    try:
        lock.acquire(timeout=0.1, poll_interval=0.02)  # a second try takes over from a process that has died
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
    """Open a temporary file beside ``path`` that takes its place on success and vanishes on failure.

    Args:
        path: The file to write; its folder is made.
        error: What to raise when the folder cannot be written or the disk is full.
        option: Option of the command line that chose the folder, for the advice; None where none did.
        mode: Who may read and write it.
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
    """Make sure that ``replacing`` may write a file: to be asked before minutes of work, not only after.

    Raises:
        KdEdgeError: It may not; nothing is made.
    """
    there = next(folder for folder in path.absolute().parents if os.path.exists(folder))  # noqa: PTH110 - never raises
    why = "it is a folder" if is_folder(path) else ""
    if not why:
        try:
            with tempfile.TemporaryFile(dir=there):  # permissions do not tell of read-only and other odd file systems
                pass
        except OSError as fault:
            why = fault.strerror or str(fault)
    if why:
        raise error(f"{path} cannot be written ({why})", "a writable folder", f"choose another {option}")


def new_file(path: Path, *, buffering: int = -1) -> BinaryIO:
    """A file to read and write that was not there before, readable by the user and the user's group.

    Args:
        path: Its folder is there; a link there is not followed.
        buffering: As of ``open``; 0 where what is written is to be the kernel's at once.

    Raises:
        OSError: There is one, or it cannot be made.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    file: BinaryIO = os.fdopen(os.open(path, flags, 0o640), "w+b", buffering=buffering)
    return file


@contextmanager
def making(folder: Path, option: str, error: type[KdEdgeError] = KdEdgeError) -> Iterator[Path]:
    """Fill a temporary folder that becomes ``folder`` on success and vanishes on failure.

    Args:
        folder: Folder to make; must be absent or empty.
        option: Option of the command line that chose the folder, for the advice.
        error: What to raise when it is not free, cannot be written, or another process is making it.
    """
    check_free(folder, option, error)
    temporary = folder.with_name(f".tmp-{folder.name}")
    try:
        with held(folder.with_name(f".lock-{folder.name}")) as is_held:
            if not is_held:
                raise error(
                    f"{folder} is being written by another process", "a folder of one", f"choose another {option}"
                )
            if temporary.exists():  # of a killed process
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
            f"cannot write {folder} ({fault.strerror})", "a writable folder with room", f"choose another {option}"
        ) from fault


def check_free(folder: Path, option: str, error: type[KdEdgeError] = KdEdgeError) -> None:
    """Make sure that ``making`` may make a folder: to be asked before hours of work, not only after."""
    try:
        taken = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    except OSError as fault:
        raise error(
            f"cannot read {folder} ({fault.strerror})", "a new or empty folder", f"choose another {option}"
        ) from fault
    if taken:
        raise error(f"{folder} holds something already", "a new or empty folder", f"choose another {option}")
