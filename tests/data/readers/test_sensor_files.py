from __future__ import annotations

import itertools
import random
from pathlib import Path

import numpy as np
import pytest

from kd_edge.data.readers.sensor_files import Columns, SignalFile, increasing, read_signal, time_unit
from kd_edge.errors import DataError

TIMED = Columns(axes=1, time=0, timed=True)
AFTER = Columns(axes=0, time=3, timed=False)


def read(path: Path, text: str, columns: Columns = TIMED, rate_hz: float = 100.0) -> SignalFile:
    path = path / "sensor.csv"
    path.write_text(text)
    return read_signal(path, columns, rate_hz)


def stamps(signal: SignalFile) -> list[int]:
    assert signal.stamps_ns is not None
    return signal.stamps_ns.tolist()


def test_dates_with_commas(tmp_path: Path) -> None:
    text = "20181016_13:37:59.990000,-0.5,9.25,1\n20181016_13:38:00,1,2,3\n20181016_13:38:00.0105,7.5E-4,-5,6\n\n"
    signal = read(tmp_path, text)
    assert signal.values.dtype == np.float32
    assert signal.values.tolist() == [[-0.5, 9.25, 1], [1, 2, 3], [np.float32(7.5e-4), -5, 6]]
    # 17,820 days after 1970-01-01, counted by hand: 48 years of 365 days, 12 leap days, 288 days in 2018
    assert signal.start_s == pytest.approx((48 * 365 + 12 + 288) * 86_400 + 13 * 3600 + 37 * 60 + 59.99, abs=1e-6)
    assert np.allclose(stamps(signal), [0, 10_000_000, 20_500_000], rtol=0, atol=500)


@pytest.mark.parametrize(
    "moment",
    [
        "2018-10-16T13:37:{:06.3f}",
        "2018-10-16 13:37:{:06.3f}",
        "20181016T13:37:{:06.3f}Z",
        "2018-10-16T13:37:{:06.3f}+09:00",
    ],
)
def test_other_spellings_of_dates(tmp_path: Path, moment: str) -> None:
    signal = read(tmp_path, "".join(f"{moment.format(5 + n / 100)},{n},0,0\n" for n in range(4)))
    assert np.allclose(stamps(signal), [0, 1e7, 2e7, 3e7], rtol=0, atol=500)


@pytest.mark.parametrize(
    ("per_second", "start"), [(1, 1.5e9), (1, 0), (1e3, 1.5e12), (1e3, 0), (1e6, 1.5e15), (1e9, 0)]
)
def test_the_unit_of_numbers_follows_from_the_rate(tmp_path: Path, per_second: float, start: float) -> None:
    times = [start + round(n / 50 * per_second, 3) for n in range(9)]
    signal = read(tmp_path, "".join(f"{t!r},{n},0,0\n" for n, t in enumerate(times)), rate_hz=50)
    assert np.allclose(stamps(signal), np.arange(9) * 2e7, rtol=0, atol=1000)
    assert signal.start_s == pytest.approx(start / per_second)
    assert time_unit(np.array(times), 50) == 1 / per_second


def test_blanks_tabs_and_a_heading(tmp_path: Path) -> None:
    signal = read(tmp_path, "\ufefftime,x,y,z\n0.00,1,2,3\n0.01,4,5,6\n")
    assert signal.values.tolist() == [[1, 2, 3], [4, 5, 6]]
    signal = read(tmp_path, " 1\t2   3 100.00 7\n4 5 6 100.03\n", AFTER, 30)
    assert signal.values.tolist() == [[1, 2, 3], [4, 5, 6]]
    assert stamps(signal) == [0, 30_000_000]
    assert signal.start_s == 100.0


def test_a_file_without_time_stamps(tmp_path: Path) -> None:
    signal = read(tmp_path, "1 2 3\n4 5 6\n", AFTER)
    assert (signal.stamps_ns, signal.start_s, len(signal.values)) == (None, 0.0, 2)
    with pytest.raises(DataError, match=r"sensor\.csv, line 1: '1 2 3'"):
        read(tmp_path, "1 2 3\n4 5 6\n", Columns(0, 3, timed=True))


def test_one_late_stamp_costs_one_line(tmp_path: Path) -> None:
    """As in the published example of MMAct: the 21st sample bears the stamp of the 24th and a half."""
    late = [*range(0, 200, 10), 245, *range(210, 400, 10)]
    signal = read(tmp_path, "".join(f"{t},{n},0,0\n" for n, t in enumerate(late)))
    assert stamps(signal) == [t * 1_000_000 for t in late if t != 245]
    assert signal.values[:, 0].tolist() == [n for n in range(40) if n != 20]


def test_of_equal_stamps_the_first_line_is_kept(tmp_path: Path) -> None:
    signal = read(tmp_path, "0,1,0,0\n10,2,0,0\n10,3,0,0\n10,4,0,0\n20,5,0,0\n")
    assert stamps(signal) == [0, 10_000_000, 20_000_000]
    assert signal.values[:, 0].tolist() == [1, 2, 5]


def test_an_unsorted_file_is_sorted(tmp_path: Path) -> None:
    times = [*range(300, 600, 10), *range(0, 300, 10), 310]  # two halves the wrong way round, one line twice
    signal = read(tmp_path, "".join(f"{t},{n},0,0\n" for n, t in enumerate(times)))
    assert stamps(signal) == [t * 1_000_000 for t in range(0, 600, 10)]
    assert signal.values[:, 0].tolist() == [*range(30, 60), *range(30)]


def test_the_longest_part_that_increases() -> None:
    """Against every subset of short series, by counting."""
    rng = random.Random(1)
    for _ in range(300):
        series = [rng.randrange(6) for _ in range(rng.randrange(1, 9))]
        kept = increasing(np.array(series, np.int64)).tolist()
        chosen = [series[k] for k in kept]
        assert all(a < b for a, b in itertools.pairwise(chosen))
        longest = max(
            size
            for size in range(1, len(series) + 1)
            for part in itertools.combinations(series, size)
            if all(a < b for a, b in itertools.pairwise(part))
        )
        sorted_instead = longest < 0.9 * len(set(series))
        assert len(kept) == (len(set(series)) if sorted_instead else longest)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("0,1,2,3\n10,1,nan,3\n", r"sensor\.csv, line 2: '10,1,nan,3'"),
        ("0,1,2,3\n\n10,1,inf,3\n", "line 3: '10,1,inf,3'"),
        ("0,1,2,3\n10,1,2\n", "line 2: '10,1,2'"),
        ("0,1,2,3\n10,1,,3\n", "line 2: '10,1,,3'"),
        ("0,1,2,3\ngarbage\n", "line 2: 'garbage'"),
        ("0,1,2,3\ntime,x,y,z\n", "line 2: 'time,x,y,z'"),
        ("0,1,2,1e300\n", "line 1: '0,1,2,1e300'"),
        ("0,1,2,3\n20181016_13:37:28.6,1,2,3\n", "line 2: '20181016_"),
        ("20181316_13:37:28.6,1,2,3\n", "line 1: '20181316_"),
        ("soon,1,2,3\n", "line 1: 'soon,1,2,3'"),
        ("nan,1,2,3\n", "line 1: 'nan,1,2,3'"),
        ("", r"sensor\.csv has 0 samples"),
        ("time,x,y,z\n", "has 0 samples"),
        ("0,1,2,3\n", "has 1 samples"),
        ("5,1,2,3\n5,1,2,3\n", "its time stamps do not increase"),
    ],
)
def test_damage_names_file_and_line(tmp_path: Path, text: str, found: str) -> None:
    with pytest.raises(DataError, match=found):
        read(tmp_path, text)


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no file .*sensor\.csv"):
        read_signal(tmp_path / "sensor.csv", TIMED, 100)
    (tmp_path / "sensor.csv").write_bytes(b"\x89PNG\xff\xfe\x00")
    with pytest.raises(DataError, match=r"cannot read .*sensor\.csv"):
        read_signal(tmp_path / "sensor.csv", TIMED, 100)
    (tmp_path / "sensor.csv").write_bytes(bytes(64))
    with pytest.raises(DataError, match=r"sensor\.csv, line 1"):
        read_signal(tmp_path / "sensor.csv", TIMED, 100)
