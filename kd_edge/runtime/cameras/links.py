"""Names of V4L2 devices that survive a reboot: the links that udev creates below ``/dev/v4l``."""

from __future__ import annotations

from pathlib import Path

from kd_edge.errors import printable

FOLDERS = (Path("/dev/v4l/by-id"), Path("/dev/v4l/by-path"))
"""By serial number if there is one, otherwise by port."""


def device_path(target: str) -> str:
    """Resolve the target of ``v4l2:TARGET``: a path, a link's bare name, ``video2``, ``2``, or empty for the first.

    Args:
        target: ``/dev/video2``, ``usb-Maker_Camera-video-index0``, ``2`` or an empty string.
    """
    if "/" in target:
        return target
    if not target or target.isdigit():
        return f"/dev/video{target or 0}"
    if target.startswith("video") and target[5:].isdigit():
        return f"/dev/{target}"
    there = (folder / target for folder in FOLDERS if (folder / target).is_symlink())
    return str(next(there, FOLDERS[0] / target))


def stable_link(device: Path, root: Path = Path("/")) -> str:
    """Return the link to a device that survives a reboot; empty if there is none.

    Args:
        device: For example ``/dev/video0``, below ``root``.
        root: Folder that contains ``dev/``.
    """
    for folder in FOLDERS:
        for link in _links(root / folder.relative_to("/")):
            if link.name == printable(link.name) and link.resolve() == device.resolve():
                return str(folder / link.name)
    return ""


def _links(folder: Path) -> list[Path]:
    try:
        return sorted(link for link in folder.iterdir() if link.is_symlink())
    except OSError:
        return []
