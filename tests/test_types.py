import json

import numpy as np
import pytest

from kd_edge.types import Clip, LabelState, Prediction


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


def test_value_types_are_immutable() -> None:
    with pytest.raises(AttributeError):
        prediction().label = "other"  # type: ignore[misc]


def test_clip_duration() -> None:
    clip = Clip(np.zeros((3, 4, 5), np.uint8), np.array([0, 500_000_000, 1_500_000_000], np.int64))
    assert len(clip) == 3
    assert clip.seconds == 1.5
