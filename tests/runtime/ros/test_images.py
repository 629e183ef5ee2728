"""Image messages as pictures; no ROS is needed: a message is whatever has its fields."""

from __future__ import annotations

import array
import base64
import struct
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kd_edge.runtime.ros.images import EncodingError, compressed_picture, picture, to_grey
from tests.runtime.ros.messages import CASES, Case, grey_fields


def message(fields: dict[str, Any], **other: Any) -> Any:
    """A message as rclpy gives it."""
    data = fields.get("data", b"")
    raw = base64.b64decode(data) if isinstance(data, str) else bytes(data["zeros"]) if isinstance(data, dict) else data
    return SimpleNamespace(**{"is_bigendian": 0, **fields, "data": array.array("B", raw), **other})


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_encoding_endianness_and_stride(case: Case) -> None:
    image = picture(message(case.fields))
    assert image.dtype == case.dtype
    assert image.dtype.isnative
    assert image.tolist() == case.picture
    assert image.flags.c_contiguous
    assert image.flags.owndata


def test_a_last_row_without_its_padding_is_whole() -> None:
    case = Case("mono8", big=False, padded=True)
    data = base64.b64decode(case.fields["data"])[:-5]
    assert picture(message(case.fields, data=data)).tolist() == case.picture


def test_depth_in_metres_becomes_millimetres_and_0_where_there_is_none() -> None:
    metres = [0.0, 0.0004, 0.0006, 1.2345, 65.535, 70.0, -1.0, float("nan"), float("inf"), float("-inf")]
    fields = {"width": 10, "height": 1, "encoding": "32FC1", "step": 40, "data": struct.pack("<10f", *metres)}
    assert picture(message(fields)).tolist() == [[0, 0, 1, 1234, 65535, 65535, 0, 0, 0, 0]]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"step": 0}, "an image of 4x3 mono8 has 12 bytes in rows of 0, not 12"),
        ({"step": 3}, "an image of 4x3 mono8 has 12 bytes in rows of 3, not 12"),
        ({"step": 5}, "an image of 4x3 mono8 has 12 bytes in rows of 5, not 14"),
        ({"height": 4}, "an image of 4x4 mono8 has 12 bytes in rows of 4, not 16"),
        ({"data": b""}, "an image of 4x3 mono8 has 0 bytes in rows of 4, not 12"),
        ({"width": 0}, "0x3 pixels, not 1 to 10,000,000"),
        ({"height": 0}, "4x0 pixels, not 1 to 10,000,000"),
        ({"width": 2**32 - 1, "height": 2**32 - 1, "step": 2**32 - 1}, "pixels, not 1 to 10,000,000"),
        ({"width": 4000, "height": 4000, "step": 4000}, "4000x4000 pixels, not 1 to 10,000,000"),
    ],
)
def test_a_size_that_lies_is_no_picture(change: dict[str, Any], told: str) -> None:
    fields = {"width": 4, "height": 3, "encoding": "mono8", "step": 4, "data": bytes(12)}
    with pytest.raises(ValueError, match=told) as caught:
        picture(message({**fields, **change}))
    assert not isinstance(caught.value, EncodingError)


@pytest.mark.parametrize("encoding", ["", "yuv422", "bayer_rggb8", "64FC1", "MONO8", "x" * 10_000])
def test_an_encoding_that_is_not_understood_is_named_with_those_that_are(encoding: str) -> None:
    with pytest.raises(EncodingError, match="not as one of mono8, 8UC1, mono16") as caught:
        picture(message(grey_fields(4, 3), encoding=encoding))
    assert encoding[:30] in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.slow
@given(
    width=st.integers(0, 2**32 - 1),
    height=st.integers(0, 2**32 - 1),
    step=st.integers(0, 2**32 - 1),
    encoding=st.sampled_from(["mono8", "mono16", "rgb8", "32FC1", "bgra8"]),
    data=st.binary(max_size=64),
)
def test_whatever_a_message_claims_it_is_a_picture_of_its_size_or_refused(
    width: int, height: int, step: int, encoding: str, data: bytes
) -> None:
    try:
        image = picture(message({"width": width, "height": height, "step": step, "encoding": encoding, "data": data}))
    except ValueError:
        return
    assert image.shape[:2] == (height, width)
    assert image.size <= 64


def packed(ending: str, pixels: Any, before: bytes = b"") -> bytes:
    """A file in memory, as OpenCV encodes it."""
    done, content = cv2.imencode(ending, np.asarray(pixels))
    assert done
    return before + content.tobytes()


def compressed(format_: str, content: bytes) -> Any:
    return SimpleNamespace(format=format_, data=array.array("B", content))


GREY = np.arange(12, dtype=np.uint8).reshape(3, 4)


def test_compressed_pictures_are_those_that_were_packed() -> None:
    assert compressed_picture(compressed("mono8; png compressed", packed(".png", GREY))).tolist() == GREY.tolist()
    deep = GREY.astype(np.uint16) * 5000
    found = compressed_picture(compressed("mono16; png compressed", packed(".png", deep)))
    assert (found.dtype, found.tolist()) == (np.uint16, deep.tolist())
    blue_green_red = np.full((3, 4, 3), (10, 20, 200), np.uint8)
    assert (
        compressed_picture(compressed("bgr8; png", packed(".png", blue_green_red))).tolist()
        == [[[200, 20, 10]] * 4] * 3
    )
    flat = np.full((16, 16), 128, np.uint8)
    assert np.abs(compressed_picture(compressed("jpeg", packed(".jpg", flat))).astype(int) - 128).max() <= 1


def test_depth_that_image_transport_packs() -> None:
    header = struct.pack("<i2f", 0, 0.0, 0.0)
    depth = np.array([[0, 1, 1500, 65535]], np.uint16)
    found = compressed_picture(compressed("16UC1; compressedDepth png", packed(".png", depth, header)))
    assert found.tolist() == [[0, 1, 1500, 65535]]
    # A number n stands for A / (n - B) metres: 600 / (500 - 200) = 2.0, 600 / (300 - 200) = 6.0; 0 for none
    header = struct.pack("<i2f", 1, 600.0, 200.0)
    found = compressed_picture(
        compressed("32FC1; compressedDepth png", packed(".png", np.array([[0, 500, 300, 200, 100]], np.uint16), header))
    )
    assert found.tolist() == [[0, 2000, 6000, 0, 0]]


def test_compressed_pictures_that_are_none() -> None:
    whole = packed(".png", GREY)
    for content in (b"", b"no picture", whole[:40], whole[:-6]):
        with pytest.raises(ValueError):  # noqa: PT011 - its text is OpenCV's or of the reader of its header
            compressed_picture(compressed("png", content))
    bomb = bytearray(whole)
    bomb[16:24] = struct.pack(">2I", 60_000, 60_000)
    with pytest.raises(ValueError, match="60000x60000 pixels, not 1 to 10,000,000"):
        compressed_picture(compressed("png", bytes(bomb)))
    with pytest.raises(ValueError, match="no more than its header"):
        compressed_picture(compressed("16UC1; compressedDepth", b"\0" * 12))
    with pytest.raises(EncodingError, match="rvl"):
        compressed_picture(compressed("16UC1; compressedDepth rvl", b"\0" * 40))


def test_grey_of_colour_is_its_brightness() -> None:
    # 0.299 R + 0.587 G + 0.114 B: 29.9 + 117.4 + 5.7 = 153
    assert to_grey(np.full((2, 2, 3), (100, 200, 50), np.uint8)).tolist() == [[153, 153]] * 2
    assert to_grey(GREY) is GREY


@pytest.mark.filterwarnings("error")
def test_depth_that_no_number_of_millimetres_can_hold_is_the_farthest_without_a_warning() -> None:
    fields = {"width": 2, "height": 1, "encoding": "32FC1", "step": 8, "data": struct.pack("<2f", 1e38, 3e38)}
    assert picture(message(fields)).tolist() == [[65535, 65535]]
