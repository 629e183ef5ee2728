"""Mutated lists of recordings: manifests, what is imported as one, and skeletons."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from kd_edge.data.readers.files import Files
from kd_edge.data.readers.files.imports import import_rows
from kd_edge.data.readers.files.rows import read_manifest
from kd_edge.data.readers.files.settings import Modality
from kd_edge.data.readers.files.skeletons import Drawn, Skeletons
from kd_edge.data.readers.files.writing import write_manifest
from kd_edge.errors import KdEdgeError
from tests.fuzz.artifacts import check_line
from tests.fuzz.mutate import TEXTS, Generator, chance, choose, mutated_bytes, mutated_json

CELLS = (
    *TEXTS, "wave", "1.npy", "2.npy", "frames", "./1.npy", "/etc/passwd", "0", "-1", "1e999", "nan", "9" * 400, '"',
    ",", ".", "train", "0.5", "99999999999999999999", "{x}", "x" * 300,
)  # fmt: skip
MANIFEST = (
    "id,label,subject,view,trial,split,start_s,end_s,ir,ir_offset_s,mood\n"
    "a,wave,anna,left,1,train,0,0.1,1.npy,0.5,good\nb,sit,ben,,,test,,,2.npy,,\nc,sit,ben,,,val,0.1,,1.npy,,\n"
)
LIST = "1.npy 0\n2.npy 1\n"
FRAMES = "frames 0 2 wave\nframes 2 1 sit\n"
METADATA = "file_name,label,caption\n1.npy,wave,x\n2.npy,sit,y\n"
ACTIVITYNET = {
    "database": {
        "1": {"subset": "training", "duration": 1.0, "annotations": [{"label": "wave", "segment": [0.0, 0.1]}]},
        "2": {"subset": "validation", "annotations": [{"label": "sit", "segment": [0.0, 0.1]}]},
    }
}
INFO = {
    "codebase_version": "v2.1",
    "chunks_size": 1000,
    "splits": {"train": "0:2"},
    "video_path": "{video_key}.npy",
    "features": {"1": {"dtype": "video"}, "observation.state": {"dtype": "float32", "shape": [3]}},
}
EPISODES = {"episode_index": 0, "tasks": ["pick"], "length": 3}
SKELETON = {"joints": [[[1.0, 2.0, 3.0], [2.0, 3.0, 4.0]], [[1.0, 2.0, 3.0], [3.0, 3.0, 4.0]]], "stamp_ns": [0, 10]}


class Lists:
    """Cases of lists beside three recordings; what is imported has to read back as it was from the manifest."""

    def __init__(self, folder: Path, *, large: bool = True) -> None:
        self._master, self._root = folder / "master", folder / "case"
        (self._master / "frames").mkdir(parents=True)
        for name in ("1.npy", "2.npy", "3.npy"):
            np.save(self._master / name, np.zeros((9, 32, 32), np.uint8))
        for name in ("1.png", "2.png", "3.png"):
            (self._master / "frames" / name).write_bytes(b"x")
        self._cases: tuple[Callable[[Generator], None], ...] = (
            self._manifest, self._list, self._metadata, self._activitynet, self._lerobot, self._parquet, self._skeleton
        )  # fmt: skip

    def __call__(self, rng: Generator) -> str:
        """Try one case: ``refused`` or ``accepted``."""
        shutil.rmtree(self._root, ignore_errors=True)
        shutil.copytree(self._master, self._root)
        try:
            choose(rng, self._cases)(rng)
        except KdEdgeError as error:
            return check_line(error)
        return "accepted"

    def _put(self, name: str, content: str | bytes) -> Path:
        path = self._root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
        return path

    def _manifest(self, rng: Generator) -> None:
        if chance(rng, 0.3):
            first = {"id": "b", "label": "sit", "ir": "2.npy", "start_s": 0, "mood": None}
            self._put("manifest.jsonl", '{"id": "a", "label": "wave", "ir": "1.npy"}\n' + mutated_json(rng, first))
        else:
            self._put("manifest.csv", _mutated(rng, MANIFEST))
        dataset = Files(self._root)
        dataset.split("default")
        for sample in dataset.samples[:3]:
            for modality in dataset.modalities:
                if modality in dataset.rows[0].files:
                    dataset.open(sample, modality)

    def _imported(self, path: Path, **options: Any) -> None:
        rows = import_rows([path], **options).rows
        manifest = self._root / "manifest.csv"
        write_manifest(rows, manifest)
        again = read_manifest(manifest, {name for row in rows for name in row.files}).rows
        assert [replace(row, line=0) for row in again] == [replace(row, line=0) for row in rows]

    def _list(self, rng: Generator) -> None:
        self._imported(
            self._put("train.txt", _mutated(rng, choose(rng, (LIST, FRAMES)))), skip_missing=chance(rng, 0.5)
        )

    def _metadata(self, rng: Generator) -> None:
        if chance(rng, 0.3):
            self._put("metadata.jsonl", mutated_json(rng, {"file_name": "1.npy", "label": "wave", "mood": None}))
        else:
            self._put("metadata.csv", _mutated(rng, METADATA))
        self._imported(self._root)

    def _activitynet(self, rng: Generator) -> None:
        self._imported(self._put("anet.json", mutated_json(rng, ACTIVITYNET)), skip_missing=chance(rng, 0.5))

    def _lerobot(self, rng: Generator) -> None:
        self._put("meta/info.json", mutated_json(rng, INFO) if chance(rng, 0.7) else json.dumps(INFO))
        self._put("meta/episodes.jsonl", mutated_json(rng, EPISODES) if chance(rng, 0.5) else json.dumps(EPISODES))
        self._imported(self._root)

    def _parquet(self, rng: Generator) -> None:
        table = pa.table({"file_name": ["1.npy", "2.npy"], "label": ["wave", "sit"]})
        path = self._root / "metadata.parquet"
        pq.write_table(table, path)
        path.write_bytes(mutated_bytes(rng, path.read_bytes()))
        self._imported(self._root)

    def _skeleton(self, rng: Generator) -> None:
        if chance(rng, 0.5):
            path = self._put("s.json", mutated_json(rng, SKELETON))
        else:
            path = self._put("s.csv", _mutated(rng, "time,a_x,a_y,a_z\n0,1,2,3\n1,2,3,4\n2,4,5,6\n"))
        reader = Drawn(Skeletons(Modality()), Modality())
        reader.probe(path)
        reader.read(path, 0.0, 0.02 if chance(rng, 0.5) else None)


def _mutated(rng: Generator, text: str) -> bytes:
    """A table with cells changed, lines doubled or taken out, or bytes changed."""
    if chance(rng, 0.3):
        return mutated_bytes(rng, text.encode())
    separator = choose(rng, (" ", ",", ";", "\t")) if chance(rng, 0.1) else "," if "," in text else " "
    lines = [line.split("," if "," in text else " ") for line in text.splitlines()]
    for _ in range(int(rng.integers(1, 4))):
        line = choose(rng, lines)
        kind = rng.random()
        if kind < 0.7:
            line[int(rng.integers(len(line)))] = choose(rng, CELLS)
        elif kind < 0.8:
            lines.append(line)
        elif kind < 0.9:
            line.append(choose(rng, CELLS))
        elif len(lines) > 1:
            lines.remove(line)
    joined = "\n".join(separator.join(line) for line in lines)
    return joined.encode("utf-8", "surrogatepass") + choose(rng, (b"", b"\n", b"\r\n", b"\xff"))
