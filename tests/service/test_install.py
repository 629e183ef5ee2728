"""Installing under a folder that stands for the root, with a recorder that stands for systemctl."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from kd_edge.artifact import BUNDLED
from kd_edge.errors import ArtifactError, CameraError, ConfigError, KdEdgeError, ServiceError
from kd_edge.service import Installation, Service, install, make_plan, plan, uninstall

IN_OPT = Installation(("/opt/kd/bin/kd-edge",), "/opt/kd/bin/python", "/opt/kd", ("/opt/kd", "/usr"))


class SystemctlRecorder:
    """Stands for systemctl: keeps what it is told, not what it is asked, and fails where told to."""

    def __init__(self, failing: str = "") -> None:
        self.commands: list[str] = []
        self.failing = failing

    def __call__(self, words: Sequence[str]) -> None:
        if "show" not in words:
            self.commands.append(" ".join(words))
        if self.failing and self.failing in words:
            raise ServiceError(f"systemctl {self.failing} fails (exit code 1: no)", "one that works", "look")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine that runs systemd, as its root folder; this process is root on it, with an empty home."""
    folder = tmp_path / "root"
    for below in ("run/systemd/system", "etc/systemd/system", "var/lib"):
        (folder / below).mkdir(parents=True)
    (folder / "etc/group").write_text("root:x:0:\nvideo:x:44:\nplugdev:x:46:\n")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", "/nowhere/anna")
    for name in (
        "XDG_CONFIG_HOME",
        "XDG_DATA_HOME",
        "XDG_CACHE_HOME",
        "ROS_DISTRO",
        "ROS_DOMAIN_ID",
        "RMW_IMPLEMENTATION",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1000")
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(shutil.copy(BUNDLED, tmp_path / "student.onnx"))


@pytest.fixture
def camera(tmp_path: Path) -> Path:
    file = tmp_path / "front.toml"
    file.write_text('uri = "v4l2:/dev/video7"\nband = "nir"\n')
    return file


def files(root: Path) -> list[str]:
    return sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file() and p.name != "group")


def planned(**service: object) -> plan.Plan:
    return make_plan(Service(**service), IN_OPT)  # type: ignore[arg-type]


def setting(text: str, key: str) -> list[str]:
    return [line.partition("=")[2] for line in text.splitlines() if line.startswith(f"{key}=")]


def test_from_nothing_to_a_service_and_back(root: Path, model: Path, camera: Path) -> None:
    systemctl = SystemctlRecorder()
    made = planned(cameras=(str(camera),), model=model)
    outcome = install(made, root=root, run=systemctl)
    assert systemctl.commands == [
        "systemctl daemon-reload",
        "systemctl enable kd-edge-front.service",
        "systemctl restart kd-edge-front.service",
    ]
    assert files(root) == [
        "etc/systemd/system/kd-edge-front.service",
        "var/lib/kd-edge-front/model.onnx",
        "var/lib/kd-edge-front/runtime/cameras/front.toml",
    ]
    unit = root / "etc/systemd/system/kd-edge-front.service"
    assert setting(unit.read_text(), "ExecStart") == [
        "/opt/kd/bin/kd-edge run --camera front --model /var/lib/kd-edge-front/model.onnx --notify "
        "--sink terminal: --sink jsonl:/run/kd-edge-front/labels.jsonl?max_mb=20"
    ]
    assert setting(unit.read_text(), "DynamicUser") == ["yes"]
    assert (root / "var/lib/kd-edge-front/model.onnx").read_bytes() == model.read_bytes()
    modes = [
        (root / "var/lib/kd-edge-front" / p).stat().st_mode & 0o777
        for p in ("model.onnx", "runtime/cameras/front.toml")
    ]
    assert modes == [0o644, 0o600]
    assert unit.stat().st_mode & 0o777 == 0o644
    assert outcome.labels == "journalctl -u kd-edge-front -f"

    systemctl.commands.clear()
    gone = uninstall("kd-edge-front", root=root, run=systemctl)
    assert systemctl.commands == [
        "systemctl disable --now kd-edge-front.service",
        "systemctl daemon-reload",
    ]
    assert files(root) == ["var/lib/kd-edge-front/model.onnx"]
    assert gone.left == ("/var/lib/kd-edge-front/model.onnx is left (--with-model removes it)",)


def test_with_model_nothing_is_left_also_in_the_folder_that_systemd_made_a_link(root: Path, model: Path) -> None:
    install(planned(cameras=("ir0",), model=model), root=root, run=SystemctlRecorder())
    private = root / "var/lib/private"
    private.mkdir()
    (root / "var/lib/kd-edge-ir0").rename(private / "kd-edge-ir0")
    (root / "var/lib/kd-edge-ir0").symlink_to("private/kd-edge-ir0")
    uninstall("kd-edge-ir0", with_model=True, root=root, run=SystemctlRecorder())
    assert files(root) == []
    assert list((root / "var/lib").iterdir()) == [private]
    assert list(private.iterdir()) == []


def test_a_file_that_was_changed_since_stays(root: Path, model: Path, camera: Path) -> None:
    install(planned(cameras=(str(camera),), model=model), root=root, run=SystemctlRecorder())
    copy = root / "var/lib/kd-edge-front/runtime/cameras/front.toml"
    copy.write_text('uri = "v4l2:/dev/video8"\n')
    gone = uninstall("kd-edge-front", with_model=True, root=root, run=SystemctlRecorder())
    assert gone.left == ("/var/lib/kd-edge-front/runtime/cameras/front.toml is left: it was changed since",)
    assert files(root) == ["var/lib/kd-edge-front/runtime/cameras/front.toml"]


def test_installing_again_replaces_and_still_knows_what_was_installed_before(
    root: Path, model: Path, camera: Path
) -> None:
    install(planned(cameras=(str(camera),), name="kd-edge-robot"), root=root, run=SystemctlRecorder())
    install(planned(cameras=("ir0",), model=model, name="kd-edge-robot"), root=root, run=SystemctlRecorder())
    assert "--camera ir0 --model" in (root / "etc/systemd/system/kd-edge-robot.service").read_text()
    uninstall("kd-edge-robot", with_model=True, root=root, run=SystemctlRecorder())
    assert files(root) == []


def test_a_foreign_unit_is_neither_replaced_nor_removed(root: Path) -> None:
    unit = root / "etc/systemd/system/kd-edge-ir0.service"
    systemctl = SystemctlRecorder()
    for text in ("[Service]\nExecStart=/bin/true\n", "# kd-edge installed: {}\n", "# kd-edge installed: [\n", "\xff"):
        unit.write_text(text)
        with pytest.raises(ConfigError, match="was not made by kd-edge install-service"):
            install(planned(cameras=("ir0",)), root=root, run=systemctl)
        with pytest.raises(ConfigError, match="was not made by kd-edge install-service"):
            uninstall("kd-edge-ir0", root=root, run=systemctl)
        assert unit.read_text() == text
    assert systemctl.commands == []


def test_a_record_that_was_forged_removes_nothing_else(root: Path) -> None:
    precious = root / "etc/passwd"
    precious.write_text("root")
    unit = root / "etc/systemd/system/kd-edge-a.service"
    record = {"format": 1, "files": {"/etc/passwd": "0" * 64, "/var/lib/../../etc/passwd": "0" * 64, "etc/group": "0"}}
    unit.write_text(f"# kd-edge installed: {json.dumps(record)}\n[Unit]\n")
    gone = uninstall("kd-edge-a", with_model=True, root=root, run=SystemctlRecorder())
    assert precious.read_text() == "root"
    assert gone.left == ("/etc/passwd is left: it was changed since",)


def test_a_dry_run_changes_nothing_and_needs_neither_root_nor_systemd(
    root: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    (root / "run/systemd/system").rmdir()
    systemctl = SystemctlRecorder()
    outcome = install(planned(cameras=("ir0",), model=model), dry_run=True, root=root, run=systemctl)
    assert (outcome.done, systemctl.commands, files(root)) == ("nothing", [], [])
    assert outcome.written == ("/var/lib/kd-edge-ir0/model.onnx", "/etc/systemd/system/kd-edge-ir0.service")
    assert outcome.commands[0] == "systemctl daemon-reload"
    assert "ExecStart=/opt/kd/bin/kd-edge run --camera ir0" in outcome.text


def test_without_root_the_line_to_type_is_told(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr("sys.argv", ["kd-edge", "install-service", "--camera", "a b"])
    with pytest.raises(ConfigError) as caught:
        install(planned(cameras=("ir0",)), root=root, run=SystemctlRecorder())
    assert str(caught.value) == (
        "user id 1000 may not write /etc/systemd/system. Expected root, or --user. "
        "Fix: sudo kd-edge install-service --camera 'a b'"
    )
    assert files(root) == []


def test_without_systemd_it_is_one_line(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ConfigError, match="was not started by systemd"):
        install(planned(cameras=("ir0",)), root=root, run=SystemctlRecorder())
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/systemctl")
    (root / "run/systemd/system").rmdir()
    with pytest.raises(ConfigError, match="was not started by systemd"):
        install(planned(cameras=("ir0",)), root=root, run=SystemctlRecorder())
    assert files(root) == []


def test_files_that_cannot_all_be_written_are_not_written_at_all(root: Path, model: Path, camera: Path) -> None:
    (root / "var/lib/kd-edge-front").write_text("in the way")
    systemctl = SystemctlRecorder()
    with pytest.raises(ServiceError, match="cannot be written"):
        install(planned(cameras=(str(camera),), model=model), root=root, run=systemctl)
    assert (files(root), systemctl.commands) == (["var/lib/kd-edge-front"], [])


@pytest.mark.parametrize(
    ("failing", "found", "fix"),
    [
        ("daemon-reload", "/etc/systemd/system/kd-edge-ir0.service is written, but systemctl daemon-reload fails",
         "kd-edge install-service --uninstall --name kd-edge-ir0"),
        ("restart", "kd-edge-ir0 is installed and enabled, but does not start", "journalctl -u kd-edge-ir0"),
    ],
)  # fmt: skip
def test_a_command_that_fails_is_told_with_what_is_there(root: Path, failing: str, found: str, fix: str) -> None:
    with pytest.raises(ServiceError) as caught:
        install(planned(cameras=("ir0",)), root=root, run=SystemctlRecorder(failing))
    assert caught.value.found.startswith(found)
    assert caught.value.fix == fix


def test_a_service_that_does_not_stop_keeps_its_files(root: Path) -> None:
    install(planned(cameras=("ir0",)), root=root, run=SystemctlRecorder())
    with pytest.raises(ServiceError, match="nothing is removed"):
        uninstall("kd-edge-ir0", root=root, run=SystemctlRecorder("disable"))
    assert files(root) == ["etc/systemd/system/kd-edge-ir0.service"]
    with pytest.raises(ConfigError, match="no unit"):
        uninstall("kd-edge-ir1", root=root, run=SystemctlRecorder())


def test_a_group_that_is_not_there_is_told_before(root: Path) -> None:
    (root / "etc/group").write_text("root:x:0:\n")
    with pytest.raises(ConfigError, match="there is no group video"):
        install(planned(cameras=("ir0",)), root=root, run=SystemctlRecorder())
    assert files(root) == []


def test_in_the_users_own_systemd(root: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    at_home = IN_OPT._replace(program=("/nowhere/anna/env/bin/kd-edge",), folders=("/nowhere/anna/env",))
    made = make_plan(Service(cameras=("ir0",), model=model, for_user=True), at_home)
    systemctl = SystemctlRecorder()
    install(made, root=root, run=systemctl)
    assert systemctl.commands[-1] == "systemctl --user restart kd-edge-ir0.service"
    assert files(root) == [
        "nowhere/anna/.config/systemd/user/kd-edge-ir0.service",
        "nowhere/anna/.local/share/kd-edge/services/kd-edge-ir0/model.onnx",
    ]
    text = (root / "nowhere/anna/.config/systemd/user/kd-edge-ir0.service").read_text()
    assert setting(text, "WorkingDirectory") == ["/nowhere/anna/.local/share/kd-edge/services/kd-edge-ir0"]
    assert setting(text, "WantedBy") == ["default.target"]
    assert setting(text, "Environment") == [
        "PYTHONUNBUFFERED=1 OMP_NUM_THREADS=1 KD_EDGE_CACHE=/nowhere/anna/.cache/kd-edge"
    ]
    assert setting(text, "ExecStart")[0].endswith("--sink jsonl:/run/user/1000/kd-edge-ir0/labels.jsonl?max_mb=20")
    assert not any(setting(text, key) for key in ("DynamicUser", "SupplementaryGroups", "ProtectSystem", "DeviceAllow"))
    uninstall("kd-edge-ir0", for_user=True, with_model=True, root=root, run=systemctl)
    assert files(root) == []
    assert not (root / "nowhere/anna/.local/share/kd-edge/services/kd-edge-ir0").exists()


def test_what_a_service_of_the_machine_does_not_see_is_refused(root: Path, tmp_path: Path) -> None:
    for folder in ("/home/anna/.venv", "/root/kd", "/tmp/kd"):
        with pytest.raises(ConfigError, match=f"kd-edge is installed in {folder}, which a service of the machine"):
            make_plan(Service(cameras=("ir0",)), IN_OPT._replace(folders=("/opt/kd", folder)))
    file = tmp_path / "trusting.toml"
    file.write_text('uri = "v4l2:/dev/video0"\ntrust = "/home/anna/robot.pub"\n')
    with pytest.raises(ConfigError, match=r"has trust in /home/anna/robot\.pub"):
        planned(cameras=(str(file),))


@pytest.mark.parametrize(
    ("service", "error", "found"),
    [
        *(({"cameras": ("ir0",), "name": name}, ConfigError, f"service name '{name}'")
          for name in ("ssh", "user", "docker", "systemd-journald", "kd-edge.", "kd-edged", "kd-edge-" + "a" * 57)),
        ({"cameras": ("v4l2:/dev/v4l/by-id/" + "a" * 60,)}, ConfigError, "service name 'kd-edge-v4l2-dev-v4l-by-id-a"),
        ({"cameras": ("rtsp://anna:secret\u202e@host/a",)}, ConfigError, "may hold a password"),
        ({"cameras": ("rtsp://host/a#credentials_env=CAM",)}, ConfigError, "takes its password from CAM"),
        ({"cameras": ("replay:walk.mkv",)}, ConfigError, "which the service would seek in its own folder"),
        ({"cameras": ("replay:/home/anna/walk.mkv",)}, ConfigError, "which a service of the machine does not see"),
        ({"cameras": ("v4l2:/dev/video0?trust=robot.pub",)}, ConfigError, "has trust in robot.pub, which the service"),
        *(({"cameras": ("ir0",), "sinks": (f"jsonl:{path}",)}, ConfigError, "where the service may not write")
          for path in ("/home/anna/a", "/tmp/a", "/etc/a", "/run/kd-edge-ir1/a", "../a", "~/a",
                       "/run/kd-edge-ir0/../a")),
        ({"topics": ("~image",), "ros": True}, ConfigError, "topic '~image'"),
        ({"topics": ("/a", "/a"), "ros": True}, ConfigError, "two topics called '/a'"),
        ({"topics": ("b=/a", "b=/c"), "ros": True}, ConfigError, "two topics called 'b'"),
        ({}, ConfigError, "no camera"),
        ({"ros": True}, ConfigError, "no camera and no topic"),
        ({"cameras": ("ir9",)}, ConfigError, "unknown camera 'ir9'"),
        ({"cameras": ("ir0", "ir0")}, ConfigError, "two cameras called 'ir0'"),
        ({"cameras": ("ir0",), "topics": ("/a",)}, ConfigError, "--topics without --ros"),
        ({"cameras": ("ir0",), "topics": ("/a",), "ros": True}, ConfigError, "a camera and topics"),
        ({"cameras": ("ir0", "b=ir0"), "ros": True}, ConfigError, "2 cameras with --ros"),
        ({"topics": ("/a",), "ros": True, "sinks": ("terminal:",)}, ConfigError, "--sink with --ros"),
        ({"topics": ("/a b",), "ros": True}, ConfigError, "topic '/a b'"),
        ({"topics": ("/a\n",), "ros": True}, ConfigError, "topic '/a\\n'"),
        ({"topics": tuple(f"/a{n}" for n in range(17)), "ros": True}, ConfigError, "17 topics"),
        ({"cameras": ("ir0",), "sinks": ("jsonl",)}, ConfigError, "sink 'jsonl'"),
        ({"cameras": ("ir0",), "sinks": ("jsonl:a\nb",)}, ConfigError, "has characters that a unit file cannot hold"),
        ({"cameras": ("ir0",), "name": "kd-edge/b"}, ConfigError, "service name 'kd-edge/b'"),
        ({"cameras": ("ir0",), "name": "kd-edge-../a"}, ConfigError, "service name 'kd-edge-../a'"),
        ({"cameras": ("ir0",), "name": "kd-edge.service"}, ConfigError, "service name 'kd-edge.service'"),
        ({"cameras": ("ir0",), "name": ""}, ConfigError, None),
        ({"cameras": ("ir0",), "model": Path("absent.onnx")}, ArtifactError, "absent.onnx"),
        ({"cameras": ("v4l2:/dev/video0?pixel_format=Y16&fps=9",), "name": "a\nb"}, ConfigError, "service name"),
        ({"cameras": ("v4l2:/dev/video0\n",)}, ConfigError, None),
        ({"cameras": ("rtsp://anna:secret@host/a",)}, ConfigError, "may hold a password"),
        ({"cameras": ("ros2:/a/image",)}, ConfigError, "--ros --topics /a/image"),
    ],
)  # fmt: skip
def test_what_is_no_service_is_refused_in_one_line(
    root: Path, service: dict[str, object], error: type, found: str
) -> None:
    with pytest.raises(error) as caught:
        install(planned(**service), root=root, run=SystemctlRecorder())
    assert isinstance(caught.value, KdEdgeError)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert found is None or found in caught.value.found or found in str(caught.value)
    assert files(root) == []


def test_a_model_for_another_band_is_refused(root: Path, model: Path, tmp_path: Path) -> None:
    file = tmp_path / "warm.toml"
    file.write_text('uri = "v4l2:/dev/video0"\nband = "rgb"\n')
    with pytest.raises(CameraError, match="has band rgb"):
        planned(cameras=(str(file),), model=model)


@pytest.mark.parametrize(
    ("uri", "key", "values"),
    [
        ("realsense:", "DeviceAllow", ["char-video4linux rw", "char-usb_device rw"]),
        ("realsense:", "SupplementaryGroups", ["video plugdev"]),
        ("realsense:", "RestrictAddressFamilies", ["AF_UNIX AF_NETLINK"]),
        ("realsense:", "PrivateNetwork", ["yes"]),
        ("rtsp://host/a", "PrivateNetwork", []),
        ("rtsp://host/a", "RestrictAddressFamilies", ["AF_UNIX AF_INET AF_INET6 AF_NETLINK"]),
        ("v4l2:/dev/video0?priority=50", "RestrictRealtime", ["no"]),
        ("v4l2:/dev/video0?priority=50", "LimitRTPRIO", ["99"]),
        ("v4l2:/dev/video0?fps=9", "LimitRTPRIO", []),
    ],
)
def test_a_camera_gets_what_it_needs_and_no_more(root: Path, uri: str, key: str, values: list[str]) -> None:
    assert setting(planned(cameras=(uri,)).unit, key) == values


def test_names_come_from_cameras(root: Path) -> None:
    names = [
        planned(cameras=cameras).name
        for cameras in (("ir0",), ("left=v4l2:/dev/video0", "right=v4l2:/dev/video2"), ("v4l2:/dev/video0?fps=9",))
    ]
    assert names == ["kd-edge-ir0", "kd-edge-left", "kd-edge-v4l2-dev-video0-fps-9"]
    assert planned(topics=("/a",), ros=True).name == "kd-edge-ros"
    assert planned(cameras=("ir0",), ros=True).name == "kd-edge-ros-ir0"


def test_the_nodes_command(root: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROS_DISTRO", "kilted")
    made = planned(topics=("/a/image", "left=b"), ros=True, model=model)
    (line,) = setting(made.unit, "ExecStart")
    assert line.endswith(
        " /opt/ros/kilted/setup.bash /opt/ros2/install/local_setup.bash /opt/kd/bin/python "
        '-c "from kd_edge.runtime.ros import main; raise SystemExit(main())" --ros-args '
        '-p "topics:=[\\"/a/image\\", \\"left=b\\"]" -p "model:=\\"/var/lib/kd-edge-ros/model.onnx\\""'
    )
    monkeypatch.setenv("ROS_DISTRO", "../../evil")
    assert "/opt/ros/jazzy/setup.bash" in planned(topics=("/a",), ros=True).unit


def test_the_node_hears_whom_its_installer_hears(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reach = "ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST"
    assert setting(planned(topics=("/a",), ros=True).unit, "Environment")[1:] == [reach]
    monkeypatch.setenv("ROS_DOMAIN_ID", "42")
    monkeypatch.setenv("RMW_IMPLEMENTATION", "rmw_cyclonedds_cpp")
    made = planned(topics=("/a",), ros=True)
    assert setting(made.unit, "Environment")[1:] == [reach, "ROS_DOMAIN_ID=42", "RMW_IMPLEMENTATION=rmw_cyclonedds_cpp"]
    for name, text in (
        *(("ROS_DOMAIN_ID", text) for text in ("1\nExecStartPre=/bin/sh", "233", "-1", "", "1.0", "9" * 5000)),
        *(("RMW_IMPLEMENTATION", text) for text in ("cyclone", "rmw_a b", "rmw_a\nExecStartPre=/bin/sh")),
    ):
        monkeypatch.setenv("ROS_DOMAIN_ID", "42")
        monkeypatch.setenv(name, text)
        if text:
            with pytest.raises(ConfigError, match=f"{name} is '"):
                planned(topics=("/a",), ros=True)
        else:
            assert "ROS_DOMAIN_ID" not in planned(topics=("/a",), ros=True).unit


def test_a_camera_of_the_nodes_is_named_as_it_is(root: Path) -> None:
    (line,) = setting(planned(cameras=("v4l2:/dev/größe-\U0001f600",), ros=True).unit, "ExecStart")
    assert line.endswith('-p "camera:=\\"v4l2:/dev/größe-\U0001f600\\""')  # YAML has no pairs of escapes


@pytest.mark.parametrize("for_user", [False, True])
def test_the_node_needs_the_ros_that_its_unit_names(
    root: Path, monkeypatch: pytest.MonkeyPatch, for_user: bool
) -> None:
    monkeypatch.setenv("ROS_DISTRO", "jazzy")
    made = planned(topics=("/a",), ros=True, for_user=for_user)
    systemctl = SystemctlRecorder()
    with pytest.raises(ConfigError, match=r"^/opt/ros/jazzy/setup\.bash is not there"):
        install(made, root=root, run=systemctl)
    assert (files(root), systemctl.commands) == ([], [])
    (root / "opt/ros/jazzy").mkdir(parents=True)
    (root / "opt/ros/jazzy/setup.bash").touch()
    install(made, root=root, run=systemctl)
    assert systemctl.commands[-1].endswith("restart kd-edge-ros.service")


@pytest.mark.parametrize("for_user", [False, True])
def test_a_systemd_that_does_not_answer_is_told_before_anything_is_written(root: Path, for_user: bool) -> None:
    systemctl = SystemctlRecorder("show")
    made = planned(cameras=("ir0",), for_user=for_user)
    with pytest.raises(ServiceError, match="systemctl show fails"):
        install(made, root=root, run=systemctl)
    assert files(root) == []
    install(made, root=root, run=SystemctlRecorder())
    there = files(root)
    with pytest.raises(ServiceError, match="systemctl show fails") as caught:
        uninstall("kd-edge-ir0", for_user=for_user, root=root, run=systemctl)
    assert ("enable-linger" in caught.value.fix) == for_user
    assert (files(root), systemctl.commands) == (there, [])


def test_what_a_killed_installation_has_left_goes_with_the_next(root: Path, model: Path) -> None:
    unit, state = root / "etc/systemd/system", root / "var/lib/kd-edge-ir0"
    state.mkdir()
    ours = [unit / ".kd-edge-ir0.service.a1b2.tmp", state / ".model.onnx.c3d4.tmp"]
    others = [unit / ".kd-edge-ir01.service.a1b2.tmp", unit / "kd-edge-ir0.service.tmp"]
    for file in (*ours, *others):
        file.touch()
    install(planned(cameras=("ir0",), model=model), root=root, run=SystemctlRecorder())
    assert [file.exists() for file in (*ours, *others)] == [False, False, True, True]
    for file in ours:
        file.touch()
    uninstall("kd-edge-ir0", with_model=True, root=root, run=SystemctlRecorder())
    assert [file.exists() for file in (*ours, *others)] == [False, False, True, True]
    assert not state.exists()


@pytest.mark.parametrize("blocked", ["model.onnx", "runtime", "runtime/cameras/front.toml"])
def test_nothing_takes_its_place_where_one_cannot(root: Path, model: Path, camera: Path, blocked: str) -> None:
    in_the_way = root / "var/lib/kd-edge-front" / blocked
    if blocked == "runtime":
        in_the_way.parent.mkdir()
        in_the_way.touch()
    else:
        in_the_way.mkdir(parents=True)
    there = sorted(root.rglob("*"))
    with pytest.raises(ServiceError, match="cannot be written"):
        install(planned(cameras=(str(camera),), model=model), root=root, run=SystemctlRecorder())
    assert sorted(root.rglob("*")) == there


def test_a_home_that_cannot_be_written_is_one_line(root: Path) -> None:
    (root / "nowhere/anna/.local").mkdir(parents=True)
    (root / "nowhere/anna/.local/share").write_text("in the way")
    with pytest.raises(ServiceError, match=r"kd-edge-ir0 cannot be made \(Not a directory\)"):
        install(planned(cameras=("ir0",), for_user=True), root=root, run=SystemctlRecorder())
    assert files(root) == ["nowhere/anna/.local/share"]


def test_a_link_that_the_service_has_made_leads_nowhere(root: Path, model: Path, camera: Path) -> None:
    """Its folder is its own; what root writes there must stay there, and nothing else be given to it."""
    install(planned(cameras=(str(camera),), model=model), root=root, run=SystemctlRecorder())
    runtime = root / "var/lib/kd-edge-front/runtime"
    shutil.rmtree(runtime)
    runtime.symlink_to("../../../etc")
    with pytest.raises(ServiceError, match="a link leads out of"):
        install(planned(cameras=(str(camera),), model=model), root=root, run=SystemctlRecorder())
    assert not (root / "etc/cameras").exists()


def test_a_record_of_any_depth_is_foreign(root: Path) -> None:
    unit = root / "etc/systemd/system/kd-edge-ir0.service"
    unit.write_text("# kd-edge installed: " + "[" * 150_000 + "\n[Unit]\n")
    with pytest.raises(ConfigError, match="was not made by kd-edge install-service"):
        uninstall("kd-edge-ir0", root=root, run=SystemctlRecorder())


def test_who_may_not_look_into_the_services_folder_sees_so(
    root: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """/var/lib/private belongs to root alone."""
    install(planned(cameras=("ir0",), model=model), root=root, run=SystemctlRecorder())
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    is_file = Path.is_file

    def closed(path: Path) -> bool:
        if path.name == "model.onnx":
            raise PermissionError(13, "Permission denied")
        return is_file(path)

    monkeypatch.setattr(Path, "is_file", closed)
    told = uninstall("kd-edge-ir0", dry_run=True, root=root, run=SystemctlRecorder())
    assert told.left == ("/var/lib/kd-edge-ir0/model.onnx cannot be looked at (Permission denied)",)
    with pytest.raises(ConfigError, match="user id 1000 may not write"):
        uninstall("kd-edge-ir0", root=root, run=SystemctlRecorder())


def test_what_the_service_has_cached_goes_too(root: Path) -> None:
    install(planned(cameras=("ir0",)), root=root, run=SystemctlRecorder())
    cache = root / "var/cache/private/kd-edge-ir0"
    cache.mkdir(parents=True)
    (cache / "engines.json").touch()
    (root / "var/cache/kd-edge-ir0").symlink_to("private/kd-edge-ir0")
    gone = uninstall("kd-edge-ir0", root=root, run=SystemctlRecorder())
    assert gone.removed[-1] == "/var/cache/kd-edge-ir0"
    assert list((root / "var/cache").iterdir()) == [cache.parent]
    assert list(cache.parent.iterdir()) == []


def test_a_home_of_any_name_is_one_word(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", '/home/a "b\\ 100%')
    text = planned(cameras=("ir0",), for_user=True).unit
    (environment,) = setting(text, "Environment")
    assert environment.endswith(' "KD_EDGE_CACHE=/home/a \\"b\\\\ 100%%/kd-edge"')


@pytest.mark.parametrize(
    "sink", ["jsonl:/run/kd-edge-ir0/a", "jsonl:/var/lib/kd-edge-ir0/a?max_mb=2", "jsonl:a/b", "jsonl:-", "terminal:"]
)
def test_sinks_of_its_own_folders(root: Path, sink: str) -> None:
    assert setting(planned(cameras=("ir0",), sinks=(sink,)).unit, "ExecStart")[0].endswith(f"--sink {sink}")


def test_a_unit_that_was_changed_by_hand_is_kept_beside(root: Path) -> None:
    unit = root / "etc/systemd/system/kd-edge-ir0.service"
    kept = root / "etc/systemd/system/kd-edge-ir0.service.changed"
    first = install(planned(cameras=("ir0",)), root=root, run=SystemctlRecorder())
    install(planned(cameras=("ir0",)), root=root, run=SystemctlRecorder())
    assert not kept.exists()
    by_hand = unit.read_text().replace("MemoryMax=1G", "MemoryMax=2G")
    unit.write_text(by_hand)
    assert install(planned(cameras=("ir0",)), dry_run=True, root=root, run=SystemctlRecorder()).notes[-1] == (
        "/etc/systemd/system/kd-edge-ir0.service was changed by hand: "
        "that is kept as /etc/systemd/system/kd-edge-ir0.service.changed"
    )
    assert not kept.exists()
    outcome = install(planned(cameras=("ir0",)), root=root, run=SystemctlRecorder())
    assert outcome.written == ("/etc/systemd/system/kd-edge-ir0.service.changed", *first.written)
    assert (kept.read_text(), unit.read_text()) == (by_hand, first.text)
    kept.unlink()
    unit.write_text(by_hand)
    gone = uninstall("kd-edge-ir0", root=root, run=SystemctlRecorder())
    assert gone.left == (
        "/etc/systemd/system/kd-edge-ir0.service.changed is left: the unit, which was changed by hand",
    )
    assert files(root) == ["etc/systemd/system/kd-edge-ir0.service.changed"]
    assert kept.read_text() == by_hand


def test_a_link_into_a_home_is_a_place_in_a_home(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os.path, "realpath", lambda path: str(path).replace("/opt/link", "/home/anna"))
    with pytest.raises(ConfigError, match=r"has trust in /opt/link/robot\.pub, which a service of the machine"):
        planned(cameras=("v4l2:/dev/video0?trust=/opt/link/robot.pub",))
    assert planned(cameras=("v4l2:/dev/video0?trust=/opt/link/robot.pub",), for_user=True).name.startswith(
        "kd-edge-v4l2"
    )


def test_the_server_gets_no_part_of_what_is_ours(root: Path) -> None:
    """What follows # is never sent: an address with it is as public as without."""
    (line,) = setting(planned(cameras=("http://host/v#band=nir",)).unit, "ExecStart")
    assert '--camera "http://host/v#band=nir"' in line
