"""Mutated recordings with topics, and lossless clips: MCAP, SQLite, FFV1, opened and read to the end."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from mcap.writer import CompressionType, Writer
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin
from rosbags.rosbag2 import Writer as BagWriter

from kd_edge.errors import KdEdgeError
from kd_edge.runtime.cameras import Wanted, open_camera
from kd_edge.runtime.cameras.lossless import LosslessWriter
from kd_edge.runtime.messages import _types, image_message
from kd_edge.runtime.recording import Recorder
from kd_edge.types import Cause, Frame, Reason
from tests.fuzz.artifacts import check_line
from tests.fuzz.mutate import Generator, chance, choose, mutated_bytes

FRAMES_READ = 60
IMAGE = "sensor_msgs/msg/Image"
NUMBERS = (0, 1, 7, 255, 65535, 1 << 20, 2**31 - 1, 2**32 - 1)


class Bags:
    """Cases of recordings with topics."""

    def __init__(self, folder: Path, *, large: bool = True) -> None:
        self._folder = folder / "case"
        seeds = folder / "seeds"
        seeds.mkdir(exist_ok=True)
        images = np.random.default_rng(0).integers(0, 256, (6, 24, 32)).astype(np.uint8)
        self._seeds = [
            _read(".mcap", lambda path: _own(path, images), seeds / "own.mcap"),
            *(
                _read(".mcap", lambda path, how=how: _mcap(path, images, how), seeds / f"{how.name}.mcap")
                for how in CompressionType
            ),
            *(
                _bag(seeds / f"bag{mode.name}", images, mode)
                for mode in (CompressionMode.NONE, CompressionMode.MESSAGE)
            ),
            _read(".mkv", lambda path: _clip(path, images), seeds / "clip.mkv"),
        ]

    def __call__(self, rng: Generator) -> str:
        """Try one case: ``refused`` or ``accepted``."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir()
        ending, content = choose(rng, self._seeds)
        content = _resized(rng, content) if chance(rng, 0.3) else mutated_bytes(rng, content)
        path = self._folder / f"a{ending if chance(rng, 0.95) else choose(rng, ('.mcap', '.db3', '.mkv'))}"
        path.write_bytes(content)
        target = path if chance(rng, 0.8) or ending == ".mkv" else self._folder
        try:
            camera = open_camera(f"replay:{target}", choose(rng, (Wanted(), Wanted(channels=1))))
            try:
                for _ in range(FRAMES_READ):
                    if camera.ended or camera.read(0.1) is None:
                        break
            finally:
                camera.close()
        except KdEdgeError as error:
            return check_line(error)
        return "accepted"


def _read(ending: str, write: Callable[[Path], None], path: Path) -> tuple[str, bytes]:
    path.unlink(missing_ok=True)
    write(path)
    return ending, path.read_bytes()


def _own(path: Path, images: np.ndarray) -> None:
    recorder = Recorder(path, {}, lossless=True)
    recorder.open()
    recorder.add_camera("ir0", "nir", None)
    recorder.start()
    for k, image in enumerate(images):
        if k == 3:
            recorder.cut("ir0", Cause(Reason.RECONNECT, "reconnect"))
        recorder.frame("ir0", Frame(image, k * 33_000_000, k, "ir0"))
    recorder.close()


def _messages(images: np.ndarray) -> list[bytes]:
    return [bytes(image_message(image, "mono8", k * 33_000_000, "ir")) for k, image in enumerate(images, 1)]


def _mcap(path: Path, images: np.ndarray, compression: CompressionType) -> None:
    with path.open("wb") as file:
        writer = Writer(file, chunk_size=2000, compression=compression)
        writer.start(profile="ros2")
        schema = writer.register_schema(IMAGE, "ros2msg", b"")
        channel = writer.register_channel("/ir", "cdr", schema)
        for k, message in enumerate(_messages(images)):
            writer.add_message(channel, k, message, k)
        writer.finish()


def _bag(folder: Path, images: np.ndarray, mode: CompressionMode) -> tuple[str, bytes]:
    shutil.rmtree(folder, ignore_errors=True)
    writer = BagWriter(folder, version=9, storage_plugin=StoragePlugin.SQLITE3)
    if mode is not CompressionMode.NONE:
        writer.set_compression(mode, CompressionFormat.ZSTD)
    with writer:
        connection = writer.add_connection("/ir", IMAGE, typestore=_types())
        for k, message in enumerate(_messages(images)):
            writer.write(connection, k, message)
    return ".db3", next(folder.glob("*.db3")).read_bytes()


def _clip(path: Path, images: np.ndarray) -> None:
    with path.open("wb") as file:
        writer = LosslessWriter(file, images[0], 30.0)
        for k, image in enumerate(images):
            writer.add(image, k * 33_000_000)
        writer.finish()


def _resized(rng: Generator, content: bytes) -> bytes:
    """With other sizes wherever it says 24 or 32, or its messages' lengths."""
    number = int(choose(rng, NUMBERS)).to_bytes(4, "little")
    was = int(choose(rng, (24, 32, 768, len(content) // 7))).to_bytes(4, "little")
    return content.replace(was, number, int(rng.integers(1, 9)))
