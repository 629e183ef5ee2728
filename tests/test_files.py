from __future__ import annotations

import errno
import fcntl
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kd_edge.errors import ConfigError, KdEdgeError
from kd_edge.files import cache_folder, cache_root, check_writable, expanded, held, making, user_folder

HOLDER = """
import sys, time
from pathlib import Path
from kd_edge.files import held
if sys.argv[2] != "0":
    import fcntl
    def flock(*_):
        raise OSError(int(sys.argv[2]), "no locks here")
    fcntl.flock = flock
with held(Path(sys.argv[1])) as is_held:
    print(is_held, flush=True)
    sys.stdin.read()
"""


def holder(lock: Path, number: int = 0) -> subprocess.Popen[str]:
    """A process that holds a lock file until its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(lock), str(number)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "True\n"
    return process


@pytest.mark.parametrize(("kind", "below"), [("cache", ".cache"), ("config", ".config"), ("data", ".local/share")])
def test_folders_of_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str, below: str) -> None:
    for name in ("CACHE", "CONFIG", "DATA"):
        monkeypatch.delenv(f"XDG_{name}_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_folder(kind) == tmp_path / below / "kd-edge"


@pytest.mark.usefixtures("no_home")
def test_without_a_home_there_is_no_folder_of_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert [user_folder(kind) for kind in ("cache", "config", "data")] == [None, None, None]
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert user_folder("cache") == tmp_path / "kd-edge"


def test_a_tilde_is_the_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/robot")
    assert expanded("~/data") == Path("/home/robot/data")
    assert expanded(Path("/data/~")) == Path("/data/~")
    with pytest.raises(ConfigError, match=r"^~nobody-here/x: no home folder is known"):
        expanded("~nobody-here/x")


@pytest.mark.usefixtures("no_home")
def test_a_tilde_without_a_home_is_one_line() -> None:
    with pytest.raises(ConfigError) as caught:
        expanded("~/data")
    assert str(caught.value) == (
        "~/data: no home folder is known (user id 12345, HOME not set). "
        "Expected a path without ~, or a user with a home. Fix: write the path out, or set HOME"
    )
    assert expanded("/data") == Path("/data")


def test_a_lock_is_there_while_it_is_held(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    with held(lock) as first:
        assert first
        assert list(tmp_path.iterdir()) == [lock]
        with held(lock) as second:
            assert not second
        assert list(tmp_path.iterdir()) == [lock]  # whoever did not get it leaves it alone
    assert list(tmp_path.iterdir()) == []
    with held(lock) as again:
        assert again


@pytest.mark.parametrize("number", [0, errno.ENOLCK])
def test_a_killed_process_holds_nothing(tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = tmp_path / ".lock"
    process = holder(lock, number)
    if number:
        monkeypatch.setattr(fcntl, "flock", refuse(number))
    try:
        with held(lock) as while_it_lives:
            assert not while_it_lives
        process.send_signal(signal.SIGKILL)
        process.wait()
        with held(lock) as afterwards:
            assert afterwards
        assert list(tmp_path.iterdir()) == []
    finally:
        process.kill()
        process.communicate()


def test_a_folder_is_made_by_one_process(tmp_path: Path) -> None:
    (tmp_path / ".tmp-out").mkdir()
    (tmp_path / ".tmp-out" / "left").touch()  # by a killed process
    with making(tmp_path / "out", "--out") as first:
        (first / "file").touch()
        with (
            pytest.raises(KdEdgeError, match="out is being written by another process"),
            making(first.parent / "out", "--out"),
        ):
            pass
        assert [each.name for each in first.iterdir()] == ["file"], "nobody wiped it"
    assert [each.name for each in tmp_path.iterdir()] == ["out"]
    assert [each.name for each in (tmp_path / "out").iterdir()] == ["file"]


def test_waiting_is_told_once_and_ends_when_the_holder_does(tmp_path: Path) -> None:
    process = holder(tmp_path / ".lock")
    told: list[str] = []

    def waiting() -> None:
        told.append("waiting")
        process.communicate("")  # ends it

    with held(tmp_path / ".lock", waiting) as is_held:
        assert is_held
    assert told == ["waiting"]
    assert list(tmp_path.iterdir()) == []


def refuse(number: int):
    """A file system that answers every lock with an error."""

    def flock(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    return flock


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EPERM])
def test_where_there_are_no_locks_a_file_stands_for_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, number: int
) -> None:
    monkeypatch.setattr(fcntl, "flock", refuse(number))
    lock = tmp_path / ".lock"
    with held(lock) as first:
        assert first
        assert {path.name for path in tmp_path.iterdir()} == {".lock", ".soft.lock"}
        with held(lock) as second:
            assert not second
    assert list(tmp_path.iterdir()) == []
    assert caplog.record_tuples == [
        (
            "kd_edge.files",
            logging.WARNING,
            f"{tmp_path} has no file locks: .soft* files are used instead; remove one whose process is gone",
        )
    ]


def test_any_other_fault_of_a_lock_is_handed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", refuse(errno.EIO))
    with pytest.raises(OSError, match="Input/output error"), held(tmp_path / ".lock"):
        pass
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError), held(tmp_path / "file" / ".lock"):
        pass


@pytest.fixture
def no_variable(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    monkeypatch.delenv("KD_EDGE_CACHE", raising=False)
    return monkeypatch


def test_the_root_is_the_users_cache_folder_or_the_variable(no_variable: pytest.MonkeyPatch, tmp_path: Path) -> None:
    no_variable.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_root() == tmp_path / "kd-edge"
    no_variable.setenv("KD_EDGE_CACHE", "/elsewhere")
    assert cache_root() == Path("/elsewhere")


@pytest.mark.usefixtures("no_home")
def test_without_a_home_the_root_is_one_line_and_the_rest_does_without() -> None:
    assert cache_folder() is None
    with pytest.raises(ConfigError) as caught:
        cache_root()
    assert str(caught.value) == (
        "no folder for the cache: KD_EDGE_CACHE is not set, and user id 12345 has no known home. "
        "Expected a writable folder. Fix: set KD_EDGE_CACHE to one"
    )


def test_what_cannot_be_written_is_told_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    check_writable(tmp_path / "new" / "folder" / "a.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]  # nothing is made
    for path, why in (
        (tmp_path, "it is a folder"),
        (tmp_path / "file" / "a", "Not a directory"),
        (Path("/proc/a/b"), ""),
    ):
        with pytest.raises(KdEdgeError, match=rf"cannot be written \({why}.*choose another --out"):
            check_writable(path)
