import pytest

from kd_edge.errors import ConfigError, KdEdgeError, MissingExtraError, did_you_mean, import_extra


def test_one_line_with_found_expected_and_fix() -> None:
    error = ConfigError("epochs is -3.", "a number from 1", "set epochs = 20")
    assert str(error) == "epochs is -3. Expected a number from 1. Fix: set epochs = 20"
    assert isinstance(error, KdEdgeError)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("quikstart", " (did you mean 'quickstart'?)"),  # a typing error
        ("zzz", ""),  # nothing close
    ],
)
def test_did_you_mean(word: str, expected: str) -> None:
    assert did_you_mean(word, ["quickstart", "bundled"]) == expected


def test_missing_module_names_the_extra() -> None:
    with pytest.raises(MissingExtraError, match=r"no_such_module.*\[replay\].*pip install 'kd-edge\[replay\]'"):
        import_extra("no_such_module", "replay")


def test_present_module_is_returned() -> None:
    assert import_extra("math", "cpu").sqrt(4) == 2
