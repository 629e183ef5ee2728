"""A folder of long recordings that wait for labels, and its server without a network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from kd_edge.label.frames import Frames
from kd_edge.label.labels import Labels
from kd_edge.label.server import application
from tests.label.videos import numbered, write_video

TOKEN, PORT = "a-token-of-this-test", 8123
HOUR = [
    "id,label,subject,split,start_s,end_s,ir,thermal,thermal_offset_s,weather",
    "monday,,anna,train,,,long/monday_ir.mkv,long/monday_thermal.npy,0.5,rain",
    "tuesday,,ben,,,,long/tuesday_ir.mkv,,,",
]


class Server:
    """What a page can ask of a server.

    Attributes:
        root: The folder.
        client: Sends what it is told, with the right host and token.
        labels: What is served.
    """

    def __init__(self, root: Path, labels: Labels, client: TestClient) -> None:
        self.root, self.labels, self.client = root, labels, client

    def get(self, path: str, **query: Any) -> Any:
        return self.client.get(path, params=query)

    def post(self, path: str, revision: int | None = None, **body: Any) -> Any:
        seen = self.labels.revision if revision is None else revision
        return self.client.post(path, json={"revision": seen, **body})

    def edit(self, kind: str, revision: int | None = None, **what: Any) -> Any:
        return self.post("/api/edit", revision, edit={"kind": kind, **what})

    def add(self, label: str, start_s: float, end_s: float, recording: int = 0) -> Any:
        return self.edit("add", recording=recording, start_s=start_s, end_s=end_s, label=label)

    def pieces(self, recording: int = 0) -> list[tuple[str, float, float | None]]:
        found = self.get(f"/api/recordings/{recording}").json()["pieces"]
        return [(piece["label"], piece["start_s"], piece["end_s"]) for piece in found]

    @property
    def manifest(self) -> list[str]:
        return (self.root / "manifest.csv").read_text().splitlines()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two recordings: 20 s near infrared and thermal pictures that begin half a second later, 10 s near infrared."""
    folder = tmp_path / "mine"
    write_video(folder / "long" / "monday_ir.mkv", [numbered(k) for k in range(200)])
    np.save(folder / "long" / "monday_thermal.npy", np.stack([numbered(k, np.uint16) for k in range(180)]))
    write_video(folder / "long" / "tuesday_ir.mkv", [numbered(k) for k in range(100)])
    (folder / "manifest.csv").write_text("\n".join(HOUR) + "\n")
    (folder / "dataset.toml").write_text("[modality.thermal]\nfps = 9\n")
    return folder


@pytest.fixture
def server(root: Path) -> Iterator[Server]:
    labels, frames = Labels(root), Frames()
    app = application(labels, frames, token=TOKEN, port=PORT)
    with TestClient(app, base_url=f"http://127.0.0.1:{PORT}", headers={"X-Token": TOKEN}) as client:
        yield Server(root, labels, client)
    frames.close()
