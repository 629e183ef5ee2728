"""Where the real recordings are, which tests skip without them, and when that is a failure."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NoReturn

import pytest

REQUIRED = "KD_EDGE_REQUIRE_DATA"
"""Set where the recordings are known to be there (``.ci/run``): a test that does not find them then fails."""

_MARK = "no recordings: "


def absent(what: str) -> NoReturn:
    """Skip the test for want of recordings; with ``KD_EDGE_REQUIRE_DATA`` it fails."""
    if os.environ.get(REQUIRED):
        pytest.fail(f"{_MARK}{what}, though {REQUIRED} says that they are there", pytrace=False)
    pytest.skip(_MARK + what)


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of the real data sets."""
    beside = Path(__file__).parents[2] / "shared" / "data"
    root = Path(os.environ.get("KD_EDGE_DATA", beside))
    if not root.is_dir():
        absent(f"neither KD_EDGE_DATA nor {beside.parent.name}/{beside.name} beside the checkout is a folder")
    return root


@pytest.fixture(scope="session")
def utd_root(data_root: Path) -> Path:
    """UTD-MHAD in its official layout."""
    root = data_root / "utd-mhad"
    if not (root / "Depth").is_dir():
        absent("utd-mhad has no Depth folder")
    return root


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """List in one place what was not tested for want of recordings."""
    reports = [r for r in terminalreporter.stats.get("skipped", []) if _MARK in str(r.longrepr)]
    if reports:
        terminalreporter.section(f"{len(reports)} tests skipped: no recordings (KD_EDGE_DATA)")
        for report in reports:
            terminalreporter.line(report.nodeid)
