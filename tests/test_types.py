import dataclasses
import json

import numpy as np
import pytest

from kd_edge.types import Clip, LabelState, Prediction, Reason


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
