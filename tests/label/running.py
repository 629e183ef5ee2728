"""``kd-edge label`` as a program, for as long as a test needs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple


class Running(NamedTuple):
    """The program, and where it serves its page."""

    process: subprocess.Popen[str]
    address: str

    @property
    def host(self) -> str:
        return self.address.partition("/#")[0]

    @property
    def token(self) -> str:
        return self.address.partition("/#")[2]

    def ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """What the server answers to the page's own questions."""
        request = urllib.request.Request(self.host + path, headers={"X-Token": self.token})
        request.data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)


@contextmanager
def labelling(folder: Path, *options: str) -> Iterator[Running]:
    """Label a folder; ended at the end, if the test has not done so."""
    command = [sys.executable, "-m", "kd_edge", "label", str(folder), *options]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ | {"PYTHONUNBUFFERED": "1"}
    )
    assert process.stdout is not None
    try:
        said = [process.stdout.readline(), process.stdout.readline()]
        assert said[1].startswith("http://127.0.0.1:"), said
        yield Running(process, said[1].split()[0])
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
