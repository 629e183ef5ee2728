"""When labels go stale, and systemd's notify protocol on a real socket."""

from __future__ import annotations

import errno
import socket

import pytest

from kd_edge.runtime.watchdog import ServiceNotifier, Watchdog

MS = 1_000_000


def test_one_stale_per_interval():
    watchdog = Watchdog(valid_ns=100 * MS, now_ns=0)
    assert watchdog.wait_seconds(0) == pytest.approx(0.1)
    assert not watchdog.is_due(99 * MS)
    watchdog.fresh(90 * MS)
    assert not watchdog.is_due(189 * MS)
    assert watchdog.wait_seconds(150 * MS) == pytest.approx(0.04)
    assert watchdog.is_due(190 * MS)
    assert watchdog.is_due(190 * MS)  # asking changes nothing
    watchdog.told(190 * MS)
    assert not watchdog.is_due(289 * MS)
    assert watchdog.is_due(290 * MS)
    assert watchdog.wait_seconds(1000 * MS) == 0.0


def test_late_frame_does_not_bring_the_moment_forward():
    watchdog = Watchdog(valid_ns=100 * MS, now_ns=1000 * MS)
    watchdog.fresh(200 * MS)
    assert not watchdog.is_due(1050 * MS)


@pytest.fixture(params=["path", "abstract"])
def manager(request, tmp_path, monkeypatch):
    """The service manager's end of ``NOTIFY_SOCKET``."""
    address = str(tmp_path / "notify") if request.param == "path" else "@kd-edge-test-notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as received:
        received.bind("\0" + address[1:] if address.startswith("@") else address)
        received.settimeout(60)
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        yield received


def test_notifies(manager):
    service = ServiceNotifier()
    service.ready()
    service.alive(0)
    service.alive(100 * MS)  # too soon after the last
    service.alive(600 * MS)
    service.stopping()
    service.alive(5000 * MS)  # after the end: nothing
    assert [manager.recv(64) for _ in range(4)] == [b"READY=1", b"WATCHDOG=1", b"WATCHDOG=1", b"STOPPING=1"]
    manager.setblocking(False)
    with pytest.raises(BlockingIOError):
        manager.recv(64)


def test_silent_without_a_manager(monkeypatch, tmp_path):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    ServiceNotifier().ready()
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    service = ServiceNotifier()
    service.ready()
    service.stopping()


@pytest.mark.parametrize(
    ("address", "fault"),
    [
        ("/nobody/listens", "No such file or directory"),
        ("/" + "x" * 200, "AF_UNIX path too long"),
        ("@" + "x" * 200, "AF_UNIX path too long"),
        ("@nobody-listens\x1b", "Connection refused"),
    ],
)
def test_a_manager_that_cannot_be_told_is_named_once(address, fault, monkeypatch, caplog):
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    service = ServiceNotifier()
    service.ready()
    service.alive(0)
    service.stopping()
    assert [r.getMessage() for r in caplog.records] == [f"systemd cannot be notified: {fault} (NOTIFY_SOCKET)"]


def test_a_process_without_descriptors_goes_on_without_its_manager(monkeypatch, caplog):
    def full(*_: object) -> socket.socket:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setenv("NOTIFY_SOCKET", "@manager")
    monkeypatch.setattr(socket, "socket", full)
    service = ServiceNotifier()
    service.ready()
    service.stopping()
    assert [r.getMessage() for r in caplog.records] == [
        "systemd cannot be notified: Too many open files (NOTIFY_SOCKET)"
    ]


def test_a_manager_that_is_behind_with_reading_does_not_hold_anything_up(tmp_path, monkeypatch, caplog):
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as behind:
        behind.bind(address)
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        service = ServiceNotifier()
        for k in range(10_000):
            service.alive(k * 600 * MS)
        service.stopping()
    assert caplog.records == []
