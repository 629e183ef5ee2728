import dataclasses
import importlib
import inspect
import json
import math
import typing

import numpy as np
import pytest

from kd_edge.types import LARGEST_AHEAD_NS, Clip, Frame, LabelState, Prediction, Reason


def prediction(state: LabelState = LabelState.OK, valid_until_ns: int = 100) -> Prediction:
    probabilities = np.array([0.25, 0.75], dtype=np.float32)
    return Prediction(
        source="ir0", label="wave", index=1, confidence=0.75, probabilities=probabilities, state=state, frame_id=7,
        captured_ns=10, emitted_ns=None, valid_until_ns=valid_until_ns,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("state", "now_ns", "stale"),
    [
        (LabelState.OK, 100, False),  # the last valid moment
        (LabelState.OK, 101, True),  # just after it
        (LabelState.STALE, 0, True),  # the watchdog's word
    ],
)
def test_is_stale(state: LabelState, now_ns: int, stale: bool) -> None:
    assert prediction(state).is_stale(now_ns) is stale


@pytest.mark.parametrize("now_ns", [math.nan, math.inf, -math.inf, 0, 3600.5, 10**12 - LARGEST_AHEAD_NS - 1])
def test_no_label_holds_by_another_clock_or_unit(now_ns: float) -> None:
    later = dataclasses.replace(prediction(), captured_ns=10**12, valid_until_ns=10**12 + 100)
    assert later.is_stale(now_ns)  # type: ignore[arg-type]
    assert not later.is_stale(10**12 - LARGEST_AHEAD_NS)  # a recogniser may be told to let stamps lie ahead
    booted = dataclasses.replace(prediction(), captured_ns=30 * 10**9, valid_until_ns=31 * 10**9)
    assert [booted.is_stale(now) for now in (30, 30_000_000, 29 * 10**9)] == [True, True, False]


def test_predictions_are_compared_by_what_they_say() -> None:
    one = prediction()
    assert one == prediction()
    assert hash(one) == hash(prediction())
    assert one == dataclasses.replace(one, probabilities=np.zeros(2, np.float32))
    assert one != dataclasses.replace(one, frame_id=8)
    assert one != None  # noqa: E711
    assert len({one, prediction(), dataclasses.replace(one, label=None)}) == 2


def test_pictures_are_not_compared() -> None:
    frames = [Frame(np.zeros((2, 2), np.uint8), 0, 0, "ir0") for _ in range(2)]
    clips = [Clip(np.zeros((2, 2, 2), np.uint8), np.arange(2)) for _ in range(2)]
    for one, other in (frames, clips):
        assert one == one
        assert one != other
        assert len({one, other}) == 2


PUBLIC = ("types", "artifact", "data", "engines", "health", "metrics", "models", "runtime", "runtime.cameras")


def compared_arrays(module: str) -> typing.Iterator[str]:
    """Fields of a module's dataclasses with which a comparison would compare arrays, and fail."""
    for name, value in vars(importlib.import_module(f"kd_edge.{module}")).items():
        if not (inspect.isclass(value) and dataclasses.is_dataclass(value)) or "__eq__" not in vars(value):
            continue
        for field in dataclasses.fields(value):
            if field.compare and any(word in str(field.type) for word in ("NDArray", "Float", "Int64", "Image")):
                yield f"{name}.{field.name}"


@pytest.mark.parametrize("module", PUBLIC)
def test_no_public_value_compares_arrays(module: str) -> None:
    assert list(compared_arrays(module)) == []


def test_as_dict_is_json() -> None:
    values = json.loads(json.dumps(prediction().as_dict()))
    assert values["state"] == "ok"
    assert values["probabilities"] == [0.25, 0.75]
    assert values["emitted_ns"] is None


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_as_dict_has_what_json_has_a_word_for(bad: float) -> None:
    probabilities = np.array([bad, 0.5], np.float32)
    odd = dataclasses.replace(prediction(), source="\udcff", confidence=np.float32(bad), probabilities=probabilities)
    odd = dataclasses.replace(odd, captured_ns=np.int64(3), detail="a\nb", reason=Reason.DARK)
    values = json.loads(json.dumps(odd.as_dict(), allow_nan=False))
    assert (values["confidence"], values["probabilities"]) == (None, [None, 0.5])
    assert (values["source"], values["captured_ns"]) == ("?", 3)
    assert (values["reason"], values["detail"]) == ("dark", "a\nb")


def test_value_types_are_immutable() -> None:
    with pytest.raises(AttributeError):
        prediction().label = "other"  # type: ignore[misc]


def test_clip_duration() -> None:
    clip = Clip(np.zeros((3, 4, 5), np.uint8), np.array([0, 500_000_000, 1_500_000_000], np.int64))
    assert len(clip) == 3
    assert clip.seconds == 1.5
