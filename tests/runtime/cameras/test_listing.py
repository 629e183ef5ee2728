"""What is attached and configured."""

from __future__ import annotations

import os

import pytest

from kd_edge.runtime.cameras.listing import list_cameras


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine with three video nodes (one of them metadata) and two camera files of its own."""
    for number, index, name in ((0, 0, "Infrared Camera"), (1, 1, "Infrared Camera"), (10, 0, "PureThermal")):
        facts = tmp_path / f"sys/class/video4linux/video{number}"
        facts.mkdir(parents=True)
        (facts / "index").write_text(f"{index}\n")
        (facts / "name").write_text(f"{name}\n")
        (tmp_path / "dev").mkdir(exist_ok=True)
        (tmp_path / f"dev/video{number}").touch()
    (tmp_path / "dev/videodev").touch()
    folder = tmp_path / "runtime/cameras"
    folder.mkdir(parents=True)
    (folder / "figure.toml").write_text('uri = "synthetic:?seed=4"\n')
    (folder / "faulty.toml").write_text('uri = "v4l2:/dev/video0"\nfsp = 30\n')
    (folder / "absent.toml").write_text('uri = "v4l2:/dev/video98"\n')
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_attached(machine):
    attached = list_cameras(machine).attached
    assert [(a.device, a.description) for a in attached] == [
        ("/dev/video0", "Infrared Camera"),
        ("/dev/video10", "PureThermal"),
    ]
    assert attached[1].use == "kd-edge run --camera v4l2:/dev/video10"


def test_configured(machine):
    found = {c.name: c for c in list_cameras(machine).configured}
    assert {"figure", "faulty", "absent", "ir0"} <= found.keys()
    assert found["figure"].present
    assert found["figure"].use == "kd-edge run --camera figure"
    assert not found["absent"].present
    assert found["absent"].fault == "no /dev/video98"
    assert "did you mean 'fps'" in found["faulty"].fault


def test_a_network_camera_is_not_opened_and_its_password_not_shown(machine):
    (machine / "runtime/cameras/door.toml").write_text('uri = "rtsp://me:secret@door/a?pin=secret"\n')
    (machine / "runtime/cameras/typo.toml").write_text('uri = "rtsp://me:secret@door:x/"\n')
    found = {c.name: c for c in list_cameras(machine).configured}
    assert (found["door"].uri, found["door"].present) == ("rtsp://***@door/a?***", None)
    assert found["door"].fault == ""
    assert "is not a camera URL" in found["typo"].fault
    assert "secret" not in repr(found)


def test_machine_without_cameras(tmp_path):
    assert list_cameras(tmp_path).attached == ()


@pytest.mark.usefixtures("no_home")
def test_a_camera_below_a_home_that_is_not_known_has_a_fault_and_the_others_are_listed(machine):
    (machine / "runtime/cameras/clip.toml").write_text('uri = "replay:~/clip.npy"\n')
    found = {c.name: c for c in list_cameras(machine).configured}
    assert {"figure", "clip", "ir0"} <= found.keys()
    assert not found["clip"].present
    assert found["clip"].fault.startswith("~/clip.npy: no home folder is known (user id 12345, HOME not set)")


def test_what_is_no_camera_file_is_passed_over(machine):
    folder = machine / "runtime/cameras"
    os.mkfifo(folder / "fifo.toml")
    (folder / "gone.toml").symlink_to("nowhere")
    (folder / "bytes.toml").write_bytes(b"\xff\xfe")
    (folder / "long.toml").write_text(f'uri = "replay:{"x" * 5000}"\n')
    found = {c.name: c for c in list_cameras(machine).configured}
    assert not {"fifo", "gone"} & found.keys()
    assert "cannot be read" in found["bytes"].fault
    assert not found["long"].present


def test_a_device_whose_name_steers_terminals_or_is_no_text(machine):
    (machine / "sys/class/video4linux/video0/name").write_bytes(b"Cam\x1b[2J \xff\n")
    assert list_cameras(machine).attached[0].description == "Cam\\x1b[2J \ufffd"
