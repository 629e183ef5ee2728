"""Docstrings are read one at a time, in an editor's window: each says what it is about by itself."""

from __future__ import annotations

import re
from pathlib import Path

import kd_edge

LEANS_ON_ITS_NEIGHBOUR = re.compile(r'^[ \t]*"""(?:The same\b|And |As above|Likewise|Ditto)', re.MULTILINE)


def test_no_docstring_leans_on_the_one_above() -> None:
    package = Path(kd_edge.__file__).parent
    leaning = [
        f"{path.relative_to(package)}: {text[found.start() : found.start() + 60].strip()}"
        for path in sorted(package.rglob("*.py"))
        for text in [path.read_text()]
        for found in LEANS_ON_ITS_NEIGHBOUR.finditer(text)
    ]
    assert leaning == []
