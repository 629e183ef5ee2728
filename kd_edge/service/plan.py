"""Plan a service for a camera and a model: its unit, files and commands. Nothing is written here."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import kd_edge
from kd_edge import recipes
from kd_edge.artifact import load
from kd_edge.errors import ConfigError, printable
from kd_edge.files import user_folder
from kd_edge.runtime.cameras import Wanted, check_fits, make_camera
from kd_edge.runtime.cameras.config import CameraConfig, SharedConfig, source_name
from kd_edge.runtime.sinks import open_sink
from kd_edge.runtime.uri import NETWORK, PIPELINE, RECORDING, TOPIC, parse, shown
from kd_edge.service.unit import Unit, command_line, quoted, template, value

UNIT = "kd-edge.service"
ROS_UNIT = "kd-edge-ros.service"
MODEL = "model.onnx"
HIDDEN = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")  # noqa: S108 - nothing is written there
"""Folders hidden from a unit with ProtectHome and PrivateTmp."""
NAME = re.compile(r"kd-edge(?:[-_.][A-Za-z0-9_.-]{1,56})?")
"""Pattern of unit names, which also name the service's folders: other names could clash in /var/lib or /run."""
ROS_NAME = re.compile(r"(?:[A-Za-z_]\w*=)?(?:~?/)?[A-Za-z_]\w*(?:/[A-Za-z_]\w*)*", re.ASCII)
ROS_SETUP = Path("/opt/ros")
START = "from kd_edge.runtime.ros import main; raise SystemExit(main())"
"""Starts the node even if no ament package is built."""
DOMAIN, MIDDLEWARE = "ROS_DOMAIN_ID", "RMW_IMPLEMENTATION"
"""Variables that determine which nodes can communicate; copied from the installing user's environment."""
MOST_DOMAIN = 232
"""Highest domain id for which there are ports."""
MOST = 16
"""Maximum number of cameras, topics or sinks of one service."""

# Settings that a user's systemd cannot apply or does not need: it only has that user's rights.
_OF_THE_SYSTEM = (
    *("DynamicUser", "SupplementaryGroups", "DevicePolicy", "DeviceAllow", "PrivateNetwork", "IPAddressDeny"),
    *("IPAddressAllow", "ProtectSystem", "ProtectHome", "PrivateTmp", "ProtectKernelTunables", "ProtectKernelModules"),
    *("ProtectKernelLogs", "ProtectControlGroups", "ProtectClock", "ProtectHostname", "ProtectProc"),
    *("RestrictNamespaces", "CapabilityBoundingSet", "StateDirectory", "CacheDirectory", "InaccessiblePaths"),
)


class Installation(NamedTuple):
    """The kd-edge that the service runs.

    Attributes:
        program: Command that starts kd-edge.
        python: The Python interpreter.
        prefix: The environment of that Python.
        folders: Folders with the files of the installation.
    """

    program: tuple[str, ...]
    python: str
    prefix: str
    folders: tuple[str, ...]

    @classmethod
    def running(cls) -> Installation:
        """The running installation."""
        script = Path(sys.executable).with_name("kd-edge")
        program = (str(script),) if script.is_file() else (sys.executable, "-m", "kd_edge")
        folders = (sys.prefix, sys.base_prefix, str(Path(kd_edge.__file__).parent))
        return cls(program, sys.executable, sys.prefix, tuple(map(os.path.realpath, folders)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """The requested service.

    Attributes:
        cameras: Names, URIs or camera files, as for ``kd-edge run --camera``.
        model: The artifact; None for the newest in the service's folder, or the bundled one.
        name: Name of the unit; None to derive it from the camera.
        sinks: Outputs of the labels; empty for the journal and a file in ``/run``.
        ros: Whether to run the ROS 2 node.
        topics: Topics that the node subscribes to, instead of a camera.
        for_user: Whether to install into this user's systemd instead of the system's.
    """

    cameras: tuple[str, ...] = ()
    model: Path | None = None
    name: str | None = None
    sinks: tuple[str, ...] = ()
    ros: bool = False
    topics: tuple[str, ...] = ()
    for_user: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """A planned installation; paths are absolute paths on the target machine.

    Attributes:
        name: Name of the unit, without ``.service``.
        unit_file: Path of the unit.
        unit: Text of the unit, without the installation record.
        state: The service's folder.
        copies: Files to copy (model, camera files), by destination.
        for_user: Whether the service belongs to this user's systemd.
        needed: Files that the service needs to start.
        notes: Notes for the user.
    """

    name: str
    unit_file: Path
    unit: str
    state: Path
    copies: dict[Path, Path]
    for_user: bool
    needed: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()
    commands: tuple[tuple[str, ...], ...] = field(init=False)
    """Commands for systemd, in order."""

    def __post_init__(self) -> None:
        ctl = systemctl(self.for_user)
        unit = f"{self.name}.service"
        commands = ((*ctl, "daemon-reload"), (*ctl, "enable", unit), (*ctl, "restart", unit))
        object.__setattr__(self, "commands", commands)


def systemctl(for_user: bool) -> tuple[str, ...]:
    """The ``systemctl`` command of the system or of this user."""
    return ("systemctl", "--user") if for_user else ("systemctl",)


def unit_file(name: str, for_user: bool) -> Path:
    """Path of a unit of the system or of this user.

    Raises:
        ConfigError: The name is invalid, or the user has no known home.
    """
    if not NAME.fullmatch(name) or name.endswith((".service", ".")):
        raise ConfigError(
            f"service name '{printable(name[:100])}'",
            "kd-edge, or kd-edge- and 1 to 56 letters, digits, dots, dashes or underscores, without .service",
            "choose another --name, such as kd-edge-front",
        )
    return (_user_units() if for_user else Path("/etc/systemd/system")) / f"{name}.service"


def _user_units() -> Path:
    own = user_folder("config")
    if own is None:
        raise ConfigError(f"no home folder is known for user id {os.getuid()}", "a user with a home", "set HOME")
    return own.parent / "systemd/user"


def state_folder(name: str, for_user: bool) -> Path:
    """The folder of a service's model and camera files."""
    own = user_folder("data") if for_user else None
    return Path("/var/lib") / name if own is None else own / "services" / name


def cache_folder(name: str) -> Path:
    """Cache folder of a system service; a user's service uses the user's cache."""
    return Path("/var/cache") / name


def make_plan(service: Service, installation: Installation | None = None) -> Plan:
    """Check the requested service and plan its installation; changes nothing.

    Args:
        service: The requested service.
        installation: The kd-edge to run; None for the running one.

    Raises:
        KdEdgeError: A camera, model, sink or topic is invalid, or a value cannot be written in a unit file.
    """
    installation = installation or Installation.running()
    _check_asked(service)
    name = _name_after(service) if service.name is None else service.name
    at, state = unit_file(name, service.for_user), state_folder(name, service.for_user)
    for folder in installation.folders:
        _check_reached(Path(folder), "kd-edge is installed in", service)
    configs = SharedConfig.of(service.cameras).configs
    for camera, config in configs.items():
        _check_camera(camera, config, service)
    _check_model(service, configs)
    for sink in service.sinks:
        _check_sink(sink, name, service)
    copies = _copies(service, state)
    unit = Unit(template(ROS_UNIT if service.ros else UNIT))
    _set_names(unit, service, name, state)
    words = _ros_words(service, installation, state) if service.ros else _run_words(service, installation, name, state)
    unit.set("ExecStart", command_line(words))
    _set_rights(unit, configs)
    if service.ros:
        for variable, text in _ros_variables().items():
            unit.add("Environment", "Environment", f"{variable}={text}")
    if service.for_user:
        _make_the_users(unit)
    needed = (_ros_setup(),) if service.ros else ()
    return Plan(name, at, unit.text, state, copies, service.for_user, needed, tuple(_notes(service, name)))


def _check_asked(service: Service) -> None:
    if service.topics and not service.ros:
        raise ConfigError("--topics without --ros", "--ros --topics /camera/image", "add --ros")
    if bool(service.cameras) == bool(service.topics):
        found = "a camera and topics" if service.cameras else "no camera" + (" and no topic" if service.ros else "")
        wanted = "--camera, or --ros with --topics" if service.ros else "--camera"
        raise ConfigError(found, wanted, "kd-edge cameras shows what is attached")
    if service.ros and (len(service.cameras) > 1 or service.sinks):
        found = f"{len(service.cameras)} cameras with --ros" if service.cameras[1:] else "--sink with --ros"
        raise ConfigError(found, "one camera or topics; labels go out as messages", "leave it out, or leave out --ros")
    for option, what, given in (("camera", "cameras", service.cameras), ("topics", "topics", service.topics)):
        names = [source_name(each)[0] for each in given]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ConfigError(
                f"two {what} called '{shown(twice)}'",
                "a different name for each: labels carry it",
                f"--{option} left={shown(twice)}",
            )
    for what, given in (("cameras", service.cameras), ("topics", service.topics), ("sinks", service.sinks)):
        if len(given) > MOST:
            raise ConfigError(f"{len(given)} {what}", f"at most {MOST}", "make several services")
    for topic in service.topics:
        if not ROS_NAME.fullmatch(topic) or len(topic) > 255:
            raise ConfigError(
                f"topic '{printable(topic)}'", "a ROS name such as /camera/image_raw", "ros2 topic list shows them"
            )


def _name_after(service: Service) -> str:
    """``kd-edge-ir0`` for the camera ir0."""
    words = ["kd-edge", *(["ros"] if service.ros else [])]
    if service.cameras:
        name, camera = source_name(service.cameras[0])
        named = Path(camera).stem if camera.endswith(".toml") else shown(camera)
        words += re.findall(r"[A-Za-z0-9]+", named if name == camera else name)
    return "-".join(words)


def _check_reached(path: Path, what: str, service: Service) -> None:
    """Refuse a relative path, or one that the service's user cannot see."""
    if not path.is_absolute():
        raise ConfigError(
            f"{what} {printable(str(path))}, which the service would seek in its own folder",
            "an absolute path",
            "write the path out",
        )
    places = (path, Path(os.path.realpath(path)))
    if not service.for_user and any(place.is_relative_to(folder) for place in places for folder in HIDDEN):
        raise ConfigError(
            f"{what} {printable(str(path))}, which a service of the machine does not see",
            "a place outside the homes and /tmp, such as /opt/kd-edge/.venv",
            "install it there (launch/README.md), or use --user",
        )


def _check_sink(sink: str, name: str, service: Service) -> None:
    """Refuse an invalid sink, or a file where the service may not write."""
    open_sink(sink)
    scheme, target, _ = parse(sink)
    if scheme != "jsonl" or target == "-" or service.for_user:
        return
    own = tuple(f"{folder}/{name}/" for folder in ("/run", "/var/lib", "/var/cache"))
    absolute = os.path.normpath(f"/var/lib/{name}/{target}" if target[0] not in "/~" else target)
    if not absolute.startswith(own):
        raise ConfigError(
            f"sink {printable(sink)}, where the service may not write",
            "a file in one of its folders",
            f"--sink jsonl:/run/{name}/labels.jsonl?max_mb=20, or use --user",
        )


def _check_camera(camera: str, config: CameraConfig, service: Service) -> None:
    """Refuse a camera whose secret address would become public, or which the service could not open."""
    address = source_name(camera)[1]
    named = f"camera {shown(address)}"
    if config.scheme in NETWORK or config.scheme == PIPELINE:
        public = address.partition("#")[0] if config.scheme in NETWORK else address
        if _file_of(address) is None and shown(address) != public:
            raise ConfigError(
                f"{named} may hold a password, and units can be read by everybody",
                "a camera file, which only the service can read",
                "write it as uri into my-camera.toml and name that with --camera",
            )
    value(camera, "camera")
    if config.scheme == TOPIC:
        raise ConfigError(f"{named} is a topic of ROS 2", "--ros --topics", f"--ros --topics {shown(config.target)}")
    if config.credentials_env is not None:
        raise ConfigError(
            f"{named} takes its password from {config.credentials_env}, a variable that the service does not have",
            "user and password in the uri of a camera file, which only the service can read",
            'uri = "rtsp://USER:PASSWORD@HOST/PATH", without credentials_env',
        )
    if config.scheme == RECORDING:
        _check_reached(Path(config.target), f"{named} is", service)
    for key in ("trust", "ca_file"):
        path = getattr(config, key)
        if path is not None:
            _check_reached(path, f"{named} has {key} in", service)


def _check_model(service: Service, configs: dict[str, CameraConfig]) -> None:
    """Load the model and check that it suits the cameras, as far as is known."""
    if service.model is None:
        return
    artifact = load(service.model)
    if artifact.manifest.graph != "step":
        raise ConfigError(
            f"{printable(str(service.model))} labels whole clips", "a model that labels a stream", "kd-edge export"
        )
    for camera, config in configs.items():
        if config.trust is not None:
            load(service.model, trust=config.trust)
        wanted = Wanted.by(artifact.manifest)
        if config.scheme in ("v4l2", "realsense"):
            check_fits(make_camera(source_name(camera)[0], config, wanted), wanted)


def _file_of(address: str) -> Path | None:
    """The file of a named camera; None for a URI."""
    if ":" in address and not address.endswith(".toml"):
        return None
    return recipes.find("runtime", address)


def _copies(service: Service, state: Path) -> dict[Path, Path]:
    """Files to copy because the service may not be able to read the originals, by destination."""
    copies = {} if service.model is None else {state / MODEL: service.model}
    shipped = recipes.search_path("runtime")[-2:]
    for camera in service.cameras:
        file = _file_of(source_name(camera)[1])
        if file is None or file.parent in shipped:
            continue
        to = state / "runtime/cameras" / file.name
        if not re.fullmatch(r"[\w.-]+", file.name) or copies.get(to, file) != file:
            raise ConfigError(
                f"camera file {printable(str(file))}",
                "files of different names, of letters, digits, dots, dashes and underscores",
                "rename it",
            )
        copies[to] = file
    return copies


def _camera_word(camera: str) -> str:
    """A camera in the service's command: a camera file by name, which is found in the service's folder."""
    name, address = source_name(camera)
    file = _file_of(address)
    if file is None:
        return camera
    return file.stem if name == address else f"{name}={file.stem}"


def _run_words(service: Service, installation: Installation, name: str, state: Path) -> Iterator[str]:
    yield from installation.program
    yield "run"
    for camera in service.cameras:
        yield from ("--camera", _camera_word(camera))
    if service.model is not None:
        yield from ("--model", str(state / MODEL))
    yield "--notify"
    place = f"{os.environ.get('XDG_RUNTIME_DIR', f'/run/user/{os.getuid()}')}" if service.for_user else "/run"
    for sink in service.sinks or ("terminal:", f"jsonl:{place}/{name}/labels.jsonl?max_mb=20"):
        yield from ("--sink", sink)


def _ros_words(service: Service, installation: Installation, state: Path) -> Iterator[str]:
    yield from ("/bin/bash", "-c", _script())
    yield from (str(_ros_setup()), str(Path(installation.prefix).parent / "ros2/install/local_setup.bash"))
    yield from (installation.python, "-c", START, "--ros-args")
    if service.topics:
        yield from ("-p", f"topics:={json.dumps(service.topics)}")
    for camera in service.cameras:
        yield from ("-p", f"camera:={json.dumps(_camera_word(camera), ensure_ascii=False)}")
    if service.model is not None:
        yield from ("-p", f"model:={json.dumps(str(state / MODEL))}")


def _script() -> str:
    """The template's shell line, which sources the setup files and then executes the program."""
    quoted = re.search(r'-c "((?:[^"\\]|\\.)*)"', Unit(template(ROS_UNIT)).get("ExecStart"))
    assert quoted is not None
    return quoted[1].replace('\\"', '"').replace("$$", "$").replace("%%", "%")


def _ros_setup() -> Path:
    """Setup file of the sourced ROS; otherwise of the only one on this machine, or of Jazzy."""
    sourced = os.environ.get("ROS_DISTRO", "")
    if re.fullmatch(r"[a-z]{2,30}", sourced):
        return ROS_SETUP / sourced / "setup.bash"
    there = sorted(ROS_SETUP.glob("*/setup.bash"))
    return there[0] if len(there) == 1 else ROS_SETUP / "jazzy/setup.bash"


def _ros_variables() -> dict[str, str]:
    """The ROS variables that are set in this environment.

    Raises:
        ConfigError: A value with which no node would start.
    """
    given = {name: text for name in (DOMAIN, MIDDLEWARE) if (text := os.environ.get(name, ""))}
    domain = given.get(DOMAIN, "0")
    if not re.fullmatch("[0-9]{1,3}", domain) or int(domain) > MOST_DOMAIN:
        raise ConfigError(
            f"{DOMAIN} is '{printable(domain[:40])}'", f"a whole number, 0 to {MOST_DOMAIN}", f"unset {DOMAIN}"
        )
    middleware = given.get(MIDDLEWARE, "rmw_fastrtps_cpp")
    if not re.fullmatch(r"rmw_\w{1,50}", middleware, re.ASCII):
        raise ConfigError(
            f"{MIDDLEWARE} is '{printable(middleware[:40])}'", "a name such as rmw_fastrtps_cpp", f"unset {MIDDLEWARE}"
        )
    return given


def _set_names(unit: Unit, service: Service, name: str, state: Path) -> None:
    what = ", ".join(service.topics or (shown(source_name(camera)[0]) for camera in service.cameras))
    kind = "topic" if service.topics else "camera"
    kind += "s" if len(service.topics or service.cameras) > 1 else ""
    about = "ROS 2 node" if service.ros else "live action labels"
    unit.set("Description", value(f"kd-edge {about} ({kind} {what})", "camera"))
    before = "kd-edge-ros" if service.ros else "kd-edge"
    for key in ("StateDirectory", "RuntimeDirectory", "CacheDirectory"):
        unit.set(key, name)
    unit.set("WorkingDirectory", value(str(state), "folder"))
    folders = (f"/var/cache/{before}", f"/run/{before}")
    environment = unit.get("Environment")
    for folder in folders:
        environment = re.sub(rf"{folder}(?= |$)", str(Path(folder).with_name(name)), environment)
    unit.set("Environment", environment)


def _set_rights(unit: Unit, configs: dict[str, CameraConfig]) -> None:
    """Grant the rights that these cameras need, and no more."""
    schemes = {config.scheme for config in configs.values()}
    if "realsense" in schemes:
        unit.set("SupplementaryGroups", "video plugdev")
        unit.add("DeviceAllow", "DeviceAllow", "char-usb_device rw")
    families = unit.get("RestrictAddressFamilies").split()
    if schemes & {*NETWORK, PIPELINE}:
        unit.drop(["PrivateNetwork", "IPAddressDeny", "IPAddressAllow"])
        families += ["AF_INET", "AF_INET6"]
    if schemes & {*NETWORK, PIPELINE, "realsense"}:  # librealsense detects hot-plugging through netlink
        families.append("AF_NETLINK")
    unit.set("RestrictAddressFamilies", " ".join(dict.fromkeys(families)))
    if any(config.priority is not None for config in configs.values()):
        unit.set("RestrictRealtime", "no")
        unit.add("RestrictRealtime", "LimitRTPRIO", "99")


def _make_the_users(unit: Unit) -> None:
    unit.drop((*_OF_THE_SYSTEM, "After"))
    unit.drop_comments()
    cache = user_folder("cache")
    environment = [each for each in unit.get("Environment").split() if not each.startswith("KD_EDGE_CACHE=")]
    environment = [each.replace("=/run/", "=%t/") for each in environment]
    if cache is not None:
        environment.append(quoted(f"KD_EDGE_CACHE={value(str(cache), 'folder')}"))
    unit.set("Environment", " ".join(environment))
    unit.set("WantedBy", "default.target")


def _notes(service: Service, name: str) -> Iterator[str]:
    if service.for_user:
        yield "it starts at log-in; at boot after: loginctl enable-linger"
        if service.cameras:
            yield "this user has to be in the group video"
    if service.model is None:
        yield "its model is the newest *.onnx in its folder, else the bundled one"
    if service.ros:
        yield f"ROS is taken from {_ros_setup()}; messages (kd_edge_msgs) from ros2/install beside the environment"
        taken = ", ".join(f"{name}={text}" for name, text in _ros_variables().items())
        yield f"it gets {taken or 'ROS_DOMAIN_ID=0'}" + (
            "" if taken else " (sudo --preserve-env=ROS_DOMAIN_ID keeps yours)"
        )


def log_command(plan: Plan) -> str:
    """The command that shows the labels."""
    return f"journalctl {'--user ' if plan.for_user else ''}-u {plan.name} -f"
