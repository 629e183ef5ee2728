"""Mutated recordings: arrays, images, MATLAB files, videos and CSV of thermal arrays, opened and read to the end."""

from __future__ import annotations

import functools
import os
import shutil
import struct
import zlib
from pathlib import Path

import av
import cv2
import numpy as np
import scipy.io

from kd_edge.errors import KdEdgeError
from kd_edge.runtime.cameras import Wanted, open_camera
from tests.fuzz.artifacts import check_line
from tests.fuzz.mutate import Generator, chance, choose, mutated_bytes
from tests.thermal import csv_lines

IMAGES = (".png", ".jpg", ".bmp", ".tif", ".pgm")
NUMBERS = (0, 1, 7, 255, 65535, 60_000, 1 << 20, 2**31 - 1, 2**32 - 1)
FRAMES_READ = 300
NPY_SHAPES = (
    "(6, 24, 32)", "(99, 24, 32)", "(6, 240000, 320000)", "(10**9, 10**9, 10**9)", "(-1, 24, 32)", "()", "(0, 0, 0)",
    "(True, 24, 32)", "(6.0, 24, 32)", "6", "None", "(1, 1, 10000000)", "(1, 4608, 1)", "(6, 24, 32, 3)", "'a'",
)  # fmt: skip
NPY_TYPES = (
    "|u1",
    "<u2",
    ">u2",
    "<f8",
    "|O",
    "|V99",
    "<U5",
    "u1,u2",
    "|u1', '|u1",
    "nonsense",
    "<i8",
    "m8[s]",
    "(2,)u1",
)
NPY_HEADERS = (
    "(" * 300, "-" * 9000 + "1", "[" * 5000, "{'a': " * 1500, "'" + "x" * 9000, "__import__('os').system('true')",
    "9" * 9000, "\x00", "{}", "{'descr': '|u1'}", "{**{}}", "f'{1}'", "\\\n" * 4000, "'\\d'",
)  # fmt: skip


class Replays:
    """Cases of recordings."""

    def __init__(self, folder: Path, *, large: bool = True) -> None:
        self._folder = folder / "case"
        self._large = large
        self._arrays = [_saved_npy(folder, dtype) for dtype in ("uint8", "uint16")]
        grey = np.arange(24 * 32, dtype=np.uint16).reshape(24, 32) * 80
        colour = np.stack([(grey >> 8).astype(np.uint8)] * 3, axis=2)
        self._images = {
            ending: [cv2.imencode(ending, image)[1].tobytes() for image in _storable(ending, grey, colour)]
            for ending in IMAGES
        }
        self._matlab = [_saved_mat(folder, compressed=compressed) for compressed in (True, False)]
        self._images[".tif"] += [cv2.imencodemulti(".tif", [image] * 4)[1].tobytes() for image in (grey, colour)]
        self._videos = [(ending, _saved_video(folder, ending, codec)) for ending, codec in VIDEO_KINDS]
        self._videos += [(ending, _encoded(folder, ending, *how)) for ending, *how in ENCODED_KINDS]
        self._thermal_lines = [line.encode() for line in csv_lines(20)]
        self._kinds = (
            self._array, self._image, self._image, self._mat, self._video, self._special, self._thermal,
        )  # fmt: skip

    def __call__(self, rng: Generator) -> str:
        """Try one case: ``refused`` or ``accepted``."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir()
        target = choose(rng, self._kinds)(rng)
        query = (
            choose(rng, ("?fps=1e-320", "?fps=nan", "?band=x")) if chance(rng, 0.02) else choose(rng, ("", "?fps=9"))
        )
        wanted = choose(rng, (Wanted(), Wanted(channels=1)))
        try:
            camera = open_camera(f"replay:{target}{query}", wanted)
            try:
                for _ in range(FRAMES_READ):
                    if camera.ended or camera.read(0.1) is None:
                        break
            finally:
                camera.close()
        except KdEdgeError as error:
            return check_line(error)
        return "accepted"

    def _put(self, name: str, content: bytes) -> Path:
        path = self._folder / name
        path.write_bytes(content)
        return path

    def _array(self, rng: Generator) -> Path:
        content = choose(rng, self._arrays)
        kind = rng.random()
        if kind < 0.3:
            return self._put("a.npy", mutated_bytes(rng, content))
        header = f"{{'descr': '{choose(rng, NPY_TYPES)}', 'fortran_order': {chance(rng, 0.5)}, " + (
            f"'shape': {choose(rng, NPY_SHAPES)}, }}"
        )
        header = choose(rng, NPY_HEADERS) if kind < 0.55 else header
        version = choose(rng, (1, 1, 1, 2, 3, 9))
        size = min(len(header) + choose(rng, (0, 0, 0, 0, 5, 60_000)), 65_535)
        text = header.encode("latin-1")
        return self._put(
            "a.npy",
            b"\x93NUMPY"
            + bytes((version, 0))
            + struct.pack("<H" if version == 1 else "<I", size)
            + text
            + content[128:],
        )

    def _image(self, rng: Generator) -> Path:
        """Three images of which one is damaged, or a name that is not what is in it."""
        ending = choose(rng, IMAGES)
        good = choose(rng, self._images[ending])
        content = _resized_header(rng, ending, good) if chance(rng, 0.5) else mutated_bytes(rng, good)
        if chance(rng, 0.1):
            content = choose(rng, (*self._arrays, *self._matlab, b"GIF89a" + content, b"", b"RIFF\0\0\0\0WEBPVP8 "))
        self._put(f"1{ending}", good)
        path = self._put(f"2{ending}" if chance(rng, 0.8) else f"2\n\x1b[31m{ending}", content)
        self._put(f"3{ending}", good)
        return choose(rng, (self._folder, path, self._folder / f"*{ending}", self._folder / "**"))

    def _mat(self, rng: Generator) -> Path:
        content = choose(rng, self._matlab)
        kind = rng.random()
        if kind < 0.25:
            content = content[:128] + mutated_bytes(rng, content[128:])
        elif kind < 0.5:  # the mutation inside a good compressed element
            inner = zlib.decompress(self._matlab[0][136:])
            content = content[:128] + _element(15, zlib.compress(mutated_bytes(rng, inner)))
        elif kind < 0.6:
            content = content[:128] + _cells(choose(rng, (3, 300, 30_000)), choose(rng, (b"d_depth", b"x")))
        elif kind < 0.65 and self._large:
            content = content[:128] + _element(15, _bomb())
        elif kind < 0.75:
            content = content[:124] + rng.bytes(4) + content[128:]
        elif kind < 0.8:  # a MATLAB 4 header
            numbers = [int(choose(rng, (0, 10, 52, 1000, 2000, *NUMBERS))) for _ in range(5)]
            content = struct.pack("<5I", *numbers) + b"d_depth\0" + bytes(200)
        else:
            content = mutated_bytes(rng, content)
        return self._put(choose(rng, ("a4_s2_t1_depth.mat", "x.mat", "a0_s0_t0_depth.mat")), content)

    def _video(self, rng: Generator) -> Path:
        ending, content = choose(rng, self._videos)
        if chance(rng, 0.1):
            content = choose(rng, (b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n", b"ffconcat version 1.0\nfile x.avi\n", b""))
        content = _resized_video(rng, content) if chance(rng, 0.4) else mutated_bytes(rng, content)
        return self._put(f"a{choose(rng, (ending, ending, ending, '.ts', '.mkv'))}", content)

    def _thermal(self, rng: Generator) -> Path:
        lines = list(self._thermal_lines)
        kind, at = rng.random(), int(rng.integers(len(lines)))
        if kind < 0.3:
            lines[at] = mutated_bytes(rng, lines[at])
        elif kind < 0.6:  # another value
            fields = lines[at].split(b",")
            value = choose(rng, (b"nan", b"-inf", b"1e999", b"-300", b"9" * 400, b"", b"\xff", b"1_0"))
            fields[int(rng.integers(len(fields)))] = value
            lines[at] = b",".join(fields)
        elif kind < 0.8:  # other lines
            lines[at : at + int(rng.integers(3))] = [choose(rng, (b"", lines[1], b"," * 5000, b"7" * 400_000))]
        content = b"\n".join(lines)
        return self._put(choose(rng, ("a.csv", "a", "a.avi")), content if kind < 0.8 else mutated_bytes(rng, content))

    def _special(self, rng: Generator) -> Path:
        ending = choose(rng, (".npy", ".mat", ".avi", ".png", ".xyz", ""))
        path = self._folder / f"a{ending}"
        kind = int(rng.integers(6))
        if kind == 0:
            os.mkfifo(path)
        elif kind == 1:
            path.symlink_to("nowhere")
        elif kind == 2:
            path.symlink_to(choose(rng, ("/dev/zero", "/dev/full", "/proc/self/mem", path.name)))
        elif kind == 3:
            path.mkdir()
            (path / "b.png").mkdir()
        elif kind == 4 and self._large:
            with path.open("wb") as file:
                file.truncate(2**33)
        else:
            path = self._folder / choose(
                rng, ("n" * 300 + ending, "[" + ending, "a/b/c" + ending, "*" + ending, "?=" + ending)
            )
        return path


def _storable(ending: str, grey: np.ndarray, colour: np.ndarray) -> list[np.ndarray]:
    eight = (grey >> 8).astype(np.uint8)
    return (
        [eight, colour] if ending in (".jpg", ".bmp") else [grey, eight] if ending == ".pgm" else [grey, eight, colour]
    )


def _saved_npy(folder: Path, dtype: str) -> bytes:
    np.save(folder / "seed.npy", np.zeros((6, 24, 32), dtype))
    return (folder / "seed.npy").read_bytes()


def _saved_mat(folder: Path, *, compressed: bool) -> bytes:
    depth = np.arange(240 * 320 * 2, dtype=np.uint16).reshape(240, 320, 2) % 7
    scipy.io.savemat(folder / "seed.mat", {"d_depth": depth}, do_compression=compressed)
    return (folder / "seed.mat").read_bytes()


VIDEO_KINDS = ((".avi", "MJPG"), (".mp4", "mp4v"), (".mkv", "MJPG"))


ENCODED_KINDS = ((".mkv", "ffv1", "gray16le"), (".ts", "libx264", "yuv420p"), (".mp4", "libx264", "yuv420p"))


def _encoded(folder: Path, ending: str, codec: str, pixels: str) -> bytes:
    path = folder / f"encoded{ending}"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, pixels
        for k in range(6):
            image = av.VideoFrame.from_ndarray(np.full((48, 64), 20 * k, np.uint8), format="gray")
            container.mux(stream.encode(image.reformat(format=pixels)))
        container.mux(stream.encode())
    return path.read_bytes()


def _saved_video(folder: Path, ending: str, codec: str) -> bytes:
    path = folder / f"seed{ending}"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), 25.0, (64, 48))
    for k in range(6):
        writer.write(np.full((48, 64, 3), 20 * k, np.uint8))
    writer.release()
    assert path.stat().st_size > 1000, f"OpenCV wrote no {ending}"
    return path.read_bytes()


def _resized_header(rng: Generator, ending: str, content: bytes) -> bytes:
    """The image with other sizes in its header, otherwise sound."""
    width, height = (int(choose(rng, NUMBERS)) for _ in range(2))
    data = bytearray(content)
    if ending == ".png" and chance(rng, 0.3):
        at = content.index(choose(rng, (b"IDAT", b"IEND", b"IHDR")))
        data[at - 4 : at] = struct.pack(">I", width)
    elif ending == ".png":
        data[16:24] = struct.pack(">2I", width, height)
        data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    elif ending == ".bmp":
        data[18:26] = struct.pack("<2I", width, height)
    elif ending == ".jpg":
        at = next(content.index(bytes((0xFF, marker))) for marker in (0xC0, 0xC2) if bytes((0xFF, marker)) in content)
        data[at + 5 : at + 9] = struct.pack(">2H", height & 0xFFFF, width & 0xFFFF)
    elif ending == ".pgm":
        return content.replace(b"32 24", b"%d %d" % (width, height), 1)
    else:
        (at,) = struct.unpack_from("<I", content, 4)
        (count,) = struct.unpack_from("<H", content, at)
        entry = at + 2 + 12 * int(rng.integers(count))
        kind = int(choose(rng, (3, 4, 4, 5, 16, 99)))
        data[entry + 2 : entry + 12] = struct.pack("<HII", kind, int(choose(rng, (1, 1, 2, 2**31))), width)
    return bytes(data)


def _resized_video(rng: Generator, content: bytes) -> bytes:
    """The video with other sizes wherever its containers and codecs say 64x48."""
    width, height = (int(choose(rng, NUMBERS)) for _ in range(2))
    for form in ("<2I", "<2H", ">2I", ">2H"):
        most = 0xFFFF if "H" in form else 0xFFFFFFFF
        content = content.replace(struct.pack(form, 64, 48), struct.pack(form, width & most, height & most))
    return content.replace(
        b"\xb0\x81\x40\xba\x81\x30", b"\xb0\x82" + struct.pack(">H", width & 0xFFFF) + b"\xba\x81\x30"
    )


def _element(kind: int, payload: bytes) -> bytes:
    return struct.pack("<2I", kind, len(payload)) + payload


def _cells(levels: int, name: bytes) -> bytes:
    """Cells within cells: array flags, dimensions 1x1, a name."""
    flags = _element(6, struct.pack("<2I", 1, 0)) + _element(5, struct.pack("<2i", 1, 1))
    head = flags + struct.pack("<2I8s", 1, len(name), name)
    return b"".join(struct.pack("<2I", 14, (8 + len(head)) * left - 8) + head for left in range(levels, 0, -1))


@functools.cache
def _bomb() -> bytes:
    """600 MB of zeros, deflated."""
    packer = zlib.compressobj(9)
    return b"".join(packer.compress(bytes(1 << 20)) for _ in range(600)) + packer.flush()
