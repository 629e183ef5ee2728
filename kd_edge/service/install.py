"""Install a planned service, and uninstall it: files are written atomically, and only what was installed is removed."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from kd_edge.errors import ConfigError, ServiceError, printable, reason
from kd_edge.files import check_writable, replacing
from kd_edge.reading import is_file, read_bytes
from kd_edge.service.plan import MODEL, Plan, cache_folder, log_command, state_folder, systemctl, unit_file

MARK = "# Made by kd-edge install-service, which replaces it, and with --uninstall removes it."
RECORD = "# kd-edge installed: "
ROOT = Path("/")
UNIT_BYTES = 200_000
SECONDS = 960.0
"""Time limit of a command: a start waits for the camera and, the first time, for an engine to be built."""

Run = Callable[[Sequence[str]], None]
"""Runs a command; raises ``ServiceError`` if it fails."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was done, or would be done.

    Attributes:
        name: Name of the unit.
        done: ``installed``, ``uninstalled``, or ``nothing`` for a dry run.
        unit: The unit file.
        written: Files that were written.
        removed: Files that were removed.
        left: Files that were kept, and why.
        commands: Commands sent to systemd.
        text: The unit's text, if one was generated.
        notes: Notes for the user.
        labels: The command that shows the labels.
    """

    name: str
    done: str
    unit: str
    written: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    text: str = ""
    notes: tuple[str, ...] = ()
    labels: str = ""


class _Record(NamedTuple):
    """The installation record in a unit.

    Attributes:
        files: Hash of each file that was installed with the unit, by path.
        is_changed: Whether the unit has been edited by hand since.
    """

    files: dict[str, str]
    is_changed: bool = False


def run_command(words: Sequence[str]) -> None:
    """Run a systemd command.

    Raises:
        ServiceError: The command cannot be run, fails, or takes longer than ``SECONDS``.
    """
    try:
        done = subprocess.run(  # noqa: S603 - no shell; words are checked
            words, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=SECONDS
        )
        fault = f"exit code {done.returncode}: {done.stderr.strip()}" if done.returncode else ""
    except (OSError, subprocess.TimeoutExpired) as error:
        fault = reason(error)
    if fault:
        line = " ".join(fault.split())[:500]
        raise ServiceError(f"{shlex.join(words)} fails ({line})", "a systemd that does it", "do what it says")


def install(plan: Plan, *, dry_run: bool = False, root: Path = ROOT, run: Run = run_command) -> Outcome:
    """Write the files of a plan and start its service, replacing an earlier installation of the same name.

    Args:
        plan: The plan.
        dry_run: Change nothing.
        root: Root folder.
        run: Runs the commands.

    Raises:
        ConfigError: There is no systemd, no write permission, or a unit of that name that kd-edge did not install.
        ServiceError: Files cannot be written, systemd refuses, or the installed service does not start.
    """
    before = _record_of(_in(root, plan.unit_file))
    copied = {str(to): _sha256(source) for to, source in plan.copies.items()}
    text = _marked(plan.unit, {**before.files, **copied})
    changed = (_changed(plan.unit_file),) if before.is_changed else ()
    outcome = Outcome(
        name=plan.name,
        done="nothing" if dry_run else "installed",
        unit=str(plan.unit_file),
        written=(*map(str, changed), *copied, str(plan.unit_file)),
        commands=tuple(map(shlex.join, plan.commands)),
        text=text,
        notes=(*plan.notes, *(f"{plan.unit_file} was changed by hand: that is kept as {path}" for path in changed)),
        labels=log_command(plan),
    )
    if dry_run:
        return outcome
    _check_may(plan.for_user, root, run)
    _check_groups(plan, root)
    _check_needed(plan, root)
    if changed:
        _keep(_in(root, plan.unit_file))
    _write(plan, text, root)
    *enabling, starting = plan.commands
    for words in enabling:
        _run(words, run, f"{plan.unit_file} is written, but ", f"kd-edge install-service --uninstall {_named(plan)}")
    logs = log_command(plan).removesuffix(" -f")
    _run(starting, run, f"{plan.name} is installed and enabled, but does not start: ", logs)
    return outcome


def uninstall(
    name: str,
    *,
    for_user: bool = False,
    with_model: bool = False,
    dry_run: bool = False,
    root: Path = ROOT,
    run: Run = run_command,
) -> Outcome:
    """Stop a service and remove the files that ``install`` wrote, unless they have been changed since.

    Args:
        name: Name of the unit.
        for_user: Whether the service belongs to this user's systemd.
        with_model: Whether to also remove the model.
        dry_run: Change nothing.
        root: Root folder.
        run: Runs the commands.

    Raises:
        ConfigError: There is no such unit, kd-edge did not install it, there is no systemd, or no permission.
        ServiceError: systemd refuses, or a file cannot be removed.
    """
    at = unit_file(name, for_user)
    if not _in(root, at).is_file():
        raise ConfigError(f"no unit {at}", "a service that was installed", "name it with --name")
    files, is_changed = _record_of(_in(root, at))
    if not dry_run:
        _check_may(for_user, root, run)
    left = tuple(why for path in files if (why := _kept(root, path, files[path], with_model)))
    removed = tuple(path for path in files if not any(why.startswith(f"{path} ") for why in left))
    if is_changed:
        left += (f"{_changed(at)} is left: the unit, which was changed by hand",)
    caches = () if for_user else (str(cache_folder(name)),)
    ctl, unit = systemctl(for_user), f"{name}.service"
    stop, reload = (*ctl, "disable", "--now", unit), (*ctl, "daemon-reload")
    outcome = Outcome(
        name=name,
        done="nothing" if dry_run else "uninstalled",
        unit=str(at),
        removed=(str(at), *removed, *(path for path in caches if _in(root, Path(path)).is_dir())),
        left=left,
        commands=(shlex.join(stop), shlex.join(reload)),
    )
    if dry_run:
        return outcome
    _run(stop, run, "nothing is removed: ", shlex.join((*ctl, "status", unit)))
    if is_changed:
        _keep(_in(root, at))
    for path in (*files, str(at)):
        _sweep(_in(root, Path(path)))
    for path in (*removed, str(at)):
        _remove(_in(root, Path(path)))
    for path in caches:
        _remove_cache(_in(root, Path(path)))
    _remove_if_empty(_in(root, state_folder(name, for_user)))
    _run(reload, run, f"{at} is removed, but ", shlex.join(reload))
    return outcome


def _in(root: Path, path: Path) -> Path:
    return root / path.relative_to("/")


def _named(plan: Plan) -> str:
    return f"--name {plan.name}{' --user' if plan.for_user else ''}"


def _marked(unit: str, files: dict[str, str]) -> str:
    """The unit with the installation record at its top, instead of the template's header."""
    body = _body(unit)
    return f"{MARK}\n{RECORD}{json.dumps({'format': 1, 'files': files, 'unit': _hash(body)})}\n{body}"


def _body(unit: str) -> str:
    """A unit without its header."""
    return unit[unit.index("[Unit]") :]


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _changed(unit: Path) -> Path:
    """Backup path of a unit that was edited by hand; systemd ignores files of this name."""
    return unit.with_name(f"{unit.name}.changed")


def _keep(unit: Path) -> None:
    with replacing(_changed(unit), ServiceError) as file:
        file.write(read_bytes(unit, UNIT_BYTES))


def _record_of(unit: Path) -> _Record:
    """Read the installation record of a unit; an empty one if there is no unit.

    Raises:
        ConfigError: kd-edge did not create the unit.
    """
    if not os.path.lexists(unit):
        return _Record({})
    try:
        text = read_bytes(unit, UNIT_BYTES).decode()
        record = json.loads(next(line for line in text.splitlines() if line.startswith(RECORD)).removeprefix(RECORD))
        files = record["files"]
        if record["format"] == 1 and all(isinstance(part, str) and part for pair in files.items() for part in pair):
            kept = {path: digest for path, digest in files.items() if path.startswith("/") and ".." not in path}
            return _Record(kept, record.get("unit") not in (None, _hash(_body(text))))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, StopIteration, RecursionError):
        pass
    raise ConfigError(
        f"{printable(str(unit))} is there, and was not made by kd-edge install-service",
        "a new name, or a unit of its own",
        "choose another --name, or remove the unit yourself",
    )


def _check_may(for_user: bool, root: Path, run: Run) -> None:
    """Check that systemd runs and accepts commands from this user, before anything is written."""
    if not _in(root, Path("/run/systemd/system")).is_dir() or shutil.which("systemctl") is None:
        raise ConfigError(
            "this machine was not started by systemd (no /run/systemd/system)",
            "a machine or container with systemd",
            "run kd-edge run --notify under what starts services here; --dry-run shows the command",
        )
    if not for_user and os.geteuid() != 0:
        raise ConfigError(
            f"user id {os.geteuid()} may not write /etc/systemd/system", "root, or --user", f"sudo {_typed()}"
        )
    asked = (*systemctl(for_user), "show", "--property=Version")
    if for_user:
        _run(
            asked, run, "the systemd of this user does not answer: ",
            "log in as this user (no su, no sudo), or sudo loginctl enable-linger USER and "
            f"export XDG_RUNTIME_DIR=/run/user/{os.getuid()}",
        )  # fmt: skip
    else:
        _run(asked, run, "", "systemctl status")


def _typed() -> str:
    """The command line as typed, with a program path that sudo finds."""
    return shlex.join([os.path.realpath(sys.argv[0]) if "/" in sys.argv[0] else sys.argv[0], *sys.argv[1:]])


def _check_groups(plan: Plan, root: Path) -> None:
    """Refuse a unit that names a missing group: it would not start."""
    named = [
        line.partition("=")[2].split() for line in plan.unit.splitlines() if line.startswith("SupplementaryGroups")
    ]
    try:
        groups = {line.partition(":")[0] for line in _in(root, Path("/etc/group")).read_text().splitlines()}
    except (OSError, ValueError):
        return
    if missing := [group for each in named for group in each if group not in groups]:
        raise ConfigError(
            f"there is no group {missing[0]}", "the group that may use cameras", f"sudo groupadd --system {missing[0]}"
        )


def _check_needed(plan: Plan, root: Path) -> None:
    if absent := next((path for path in plan.needed if not is_file(_in(root, path))), None):
        raise ConfigError(
            f"{absent} is not there, and the service begins with it",
            "an installed ROS 2",
            "install it, or name the one that is there: export ROS_DISTRO=humble, and sudo --preserve-env=ROS_DISTRO",
        )


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    try:
        with file.open("rb") as opened:
            while part := opened.read(1 << 20):
                digest.update(part)
    except OSError as error:
        raise ConfigError(f"{file} cannot be read ({error.strerror})", "a readable file", "check the path") from error
    return digest.hexdigest()


def _write(plan: Plan, text: str, root: Path) -> None:
    """Write all files or none: they are moved into place once all are written, the unit last."""
    state, unit_file = _in(root, plan.state), _in(root, plan.unit_file)
    is_new = not unit_file.exists()
    targets = {_in(root, to): source for to, source in plan.copies.items()}
    try:
        for file in targets:
            _check_own(file, state)
        for file in (unit_file, *targets):
            check_writable(file, ServiceError)
            _sweep(file)
        if plan.for_user:  # the system's systemd creates it itself
            state.mkdir(parents=True, exist_ok=True)
        with ExitStack() as files:
            unit = files.enter_context(replacing(unit_file, ServiceError))
            unit.write(text.encode())
            for file, source in targets.items():
                mode = 0o644 if file.name == MODEL else 0o600  # a camera file may hold a password
                copy = files.enter_context(replacing(file, ServiceError, mode=mode))
                with source.open("rb") as opened:
                    shutil.copyfileobj(opened, copy, 1 << 20)
    except (OSError, ServiceError) as error:
        if is_new:
            _remove_if_empty(state)
        found = error.found if isinstance(error, ServiceError) else f"{state} cannot be made ({error.strerror})"
        raise ServiceError(
            found, "folders that can be written, and room in them", "make room, or see who else keeps something there"
        ) from error
    for file in targets:
        _give(file, state)


def _check_own(file: Path, folder: Path) -> None:
    """Refuse to write through a link out of a folder: the service's user owns its folder and may have created one."""
    if not file.parent.resolve().is_relative_to(folder.resolve()):
        raise ServiceError(f"{file} cannot be written (a link leads out of {folder})", "", "")


def _sweep(file: Path) -> None:
    """Remove temporary files that a killed process left next to a file."""
    for left in file.parent.glob(f".{glob.escape(file.name)}.*.tmp"):
        _remove(left)


def _give(file: Path, folder: Path) -> None:
    """Set a file's owner to that of the service's folder, which systemd gives to the service's user at start."""
    owner = folder.stat()
    for path in (file, *(above for above in file.parents if above.is_relative_to(folder))):
        with suppress(OSError):
            os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=path == folder)


def _kept(root: Path, path: str, digest: str, with_model: bool) -> str:
    """Why an installed file is kept; empty if it is removed."""
    file = _in(root, Path(path))
    try:
        if not file.is_file():
            return f"{path} is gone already"
        if Path(path).name == MODEL and not with_model:
            return f"{path} is left (--with-model removes it)"
        return "" if _sha256(file) == digest else f"{path} is left: it was changed since"
    except OSError as error:  # in a dry run without permission to read
        return f"{path} cannot be looked at ({error.strerror})"
    except ConfigError as error:
        return f"{path} is left: {error.found}"


def _remove(file: Path) -> None:
    try:
        file.unlink(missing_ok=True)
    except OSError as error:
        raise ServiceError(
            f"{file} cannot be removed ({error.strerror})", "a right to", "remove it yourself"
        ) from error


def _remove_if_empty(state: Path) -> None:
    """Remove the service's folder if it is empty; with DynamicUser, systemd makes it a link into ``private``."""
    folder = state.resolve()
    with suppress(OSError):
        for below in (folder / "runtime/cameras", folder / "runtime"):
            if below.is_dir():
                below.rmdir()
        folder.rmdir()
        if state.is_symlink():
            state.unlink()


def _remove_cache(cache: Path) -> None:
    """Remove the service's cache; systemd makes the folder a link, as above."""
    shutil.rmtree(cache.resolve(), ignore_errors=True)
    with suppress(OSError):
        if cache.is_symlink():
            cache.unlink()


def _run(words: Sequence[str], run: Run, so_far: str, fix: str) -> None:
    try:
        run(words)
    except ServiceError as error:
        raise ServiceError(f"{so_far}{error.found}", error.expected, fix) from error
