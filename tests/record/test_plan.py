"""What a user may ask for, and what contradicts itself."""

from __future__ import annotations

import pytest

from kd_edge.errors import ConfigError
from kd_edge.record import make_plan
from kd_edge.record.plan import check_spelling


def test_labels_without_a_length_are_marked_by_digits_in_their_order() -> None:
    plan = make_plan(labels=["wave", "sit down"], keys=["1=kick", "w=wave"])
    assert plan.mode == "keys"
    assert plan.keys == {"1": "kick", "w": "wave", "2": "sit down"}
    assert plan.labels == ("wave", "sit down", "kick")


def test_a_length_makes_clips_and_none_one_recording() -> None:
    assert make_plan(labels=["wave"], seconds=4, count=10).mode == "timed"
    assert make_plan(labels=[" wave "], seconds=4).labels == ("wave",)
    assert make_plan().mode == make_plan(seconds=4).mode == "plain"
    assert make_plan(max_gb=1.5, keep_free_gb=0).most_bytes == 1_500_000_000


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({"labels": ["wave"], "count": 3}, "--count 3 without --seconds"),
        ({"seconds": 4, "count": 3}, "--count 3 without --label"),
        ({"keys": ["w=wave"], "seconds": 4}, "--key together with --seconds 4"),
        ({"keys": ["wave"]}, "--key 'wave'"),
        ({"keys": ["w="]}, "--key 'w='"),
        ({"keys": [" =wave"]}, "--key ' =wave'"),
        ({"keys": ["\x1b=wave"]}, r"--key '\x1b=wave'"),
        ({"keys": ["w=wave", "w=kick"]}, "key 'w' twice"),
        ({"labels": ["wa\nve"]}, r"label 'wa\nve'"),
        ({"labels": [""]}, "label ''"),
        ({"labels": ["x" * 201]}, f"label '{'x' * 40}'"),
        ({"labels": ["\x1b[2J"]}, r"label '\x1b[2J'"),
        ({"labels": ["sit down", "Sit_Down"]}, "labels 'Sit_Down' and 'sit down'"),
        ({"labels": [str(k) + "x" for k in range(11)]}, "11 labels without a key"),
        ({"subject": "an\tna"}, r"--subject 'an\tna'"),
        ({"session": "x" * 201}, "--session"),
    ],
)
def test_what_contradicts_itself_is_one_line(asked: dict[str, object], found: str) -> None:
    with pytest.raises(ConfigError, match="Expected") as raised:
        make_plan(**asked)  # type: ignore[arg-type]
    assert found in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_label_is_written_as_the_folder_has_it() -> None:
    check_spelling(["wave"], ["wave", "kick"])
    with pytest.raises(ConfigError, match="labels 'Wave' and 'wave'"):
        check_spelling(["Wave"], ["wave", "kick"])
