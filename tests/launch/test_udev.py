"""The udev rules: their form, the devices they are for, and udevadm's own verdict where it has one."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from tests.launch.tools import missing, tool

RULES = Path(__file__).parents[2] / "launch/99-kd-edge-camera.rules"
TERM = re.compile(r'([A-Z]+)(?:\{(\w+)\})?(==|!=|\+=|:=|=)"([^"]*)"')
RULE = re.compile(rf"{TERM.pattern}(?:, {TERM.pattern})*")


def rules() -> list[list[tuple[str, str, str, str]]]:
    """Each rule as its terms: key, attribute, operator, value."""
    lines = [line for line in RULES.read_text().splitlines() if line and not line.startswith("#")]
    assert [line for line in lines if not RULE.fullmatch(line)] == []
    return [TERM.findall(line) for line in lines]


def values(key: str) -> set[str]:
    return {value for terms in rules() for k, _, _, value in terms if k == key}


def products(vendor: str) -> set[str]:
    found = set()
    for terms in rules():
        ids = {attribute: value for _, attribute, _, value in terms}
        if ids["idVendor"] == vendor:
            found |= set(ids["idProduct"].split("|"))
    return found


def test_only_two_groups_may_use_cameras() -> None:
    assert values("MODE") == {"0660"}
    assert values("GROUP") == {"video", "plugdev"}
    assert values("RUN") == set()


def test_every_rule_is_for_named_devices() -> None:
    for terms in rules():
        ids = [
            value
            for _, attribute, operator, value in terms
            if attribute in ("idVendor", "idProduct") and operator == "=="
        ]
        assert len(ids) == 2
        # sysfs writes small letters, and udev compares exactly
        assert all(re.fullmatch("[0-9a-f]{4}", each) for value in ids for each in value.split("|"))


def test_the_devices_are_those_that_documents_name() -> None:
    d415, d435, d435i, d455, d405, d421, d457 = ("0ad3", "0b07", "0b3a", "0b5c", "0b5b", "1155", "abcd")
    assert {d415, d435, d435i, d455, d405, d421, d457} <= products("8086")
    assert len(products("8086")) == 26
    assert (products("1e4e"), products("09cb"), products("0bda")) == ({"0100"}, {"4007"}, {"5830"})


def test_names_are_our_own() -> None:
    assert values("SYMLINK") == {
        *("kd-edge-ir0", "kd-edge-lepton", "kd-edge-lepton-$env{ID_SERIAL_SHORT}"),
        *("kd-edge-boson", "kd-edge-boson-$env{ID_SERIAL_SHORT}", "kd-edge-tc001"),
    }


def test_udevadm_finds_no_fault() -> None:
    done = subprocess.run(
        [tool("udevadm", "udevadm-verify"), "verify", RULES], capture_output=True, text=True, timeout=60
    )
    if "verify" in done.stderr and "nknown" in done.stderr:
        missing("udevadm-verify", "this udevadm cannot verify: systemd 254 and later can")
    assert (done.returncode, done.stderr) == (0, "")
