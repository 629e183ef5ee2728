"""Lines at the end of a file: after a restart, a crash, a full disk, another program's rotation."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import stat
from collections.abc import Iterator

import pytest

from kd_edge.runtime.sinks.lines import LineFile, _take_back
from tests.runtime.conftest import HandClock


@contextlib.contextmanager
def opened(*arguments: object) -> Iterator[LineFile]:
    file = LineFile(*arguments)
    file.open()
    try:
        yield file
    finally:
        file.close()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "labels"


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize(("before", "after"), [("", ""), ("old\n", "old\n"), ("old\nto", "old\nto\n"), ("t", "t\n")])
def test_a_restart_adds_to_what_is_there(path, before, after):
    path.write_text(before)
    for line in (b"a\n", b"b\n"):
        with opened(path) as file:
            file.write(line)
    assert path.read_text() == f"{after}a\nb\n"


@pytest.mark.parametrize(("mask", "given"), [(0o022, 0o640), (0o077, 0o600), (0o000, 0o640)])
def test_a_new_file_is_not_for_everybody(path, mask, given):
    before = os.umask(mask)
    try:
        with opened(path):
            assert mode(path) == given
    finally:
        os.umask(before)


def test_a_mode_that_was_chosen_stays_also_when_the_file_is_turned_over(path):
    path.write_text("old\n")
    path.chmod(0o604)
    with opened(path, 5) as file:
        file.write(b"new\n")
    assert path.read_text() == "new\n"
    assert path.with_name("labels.1").read_text() == "old\n"
    assert mode(path) == mode(path.with_name("labels.1")) == 0o604


def test_a_file_is_not_left_to_programs_that_are_started(path):
    with opened(path) as file:
        assert not os.get_inheritable(file._file.fileno())
        assert os.get_blocking(file._file.fileno())


def test_a_bound_counts_what_is_there(path):
    path.write_text("123\n")
    with opened(path, 8) as file:
        file.write(b"567\n")
        assert path.read_text() == "123\n567\n"
        file.write(b"9\n")
    assert path.read_text() == "9\n"
    assert path.with_name("labels.1").read_text() == "123\n567\n"


def test_a_line_longer_than_the_bound_does_not_push_out_the_older_file_for_nothing(path):
    path.with_name("labels.1").write_text("older\n")
    with opened(path, 3) as file:
        file.write(b"longer than that\n")
    assert path.with_name("labels.1").read_text() == "older\n"


def test_a_link_in_the_place_of_the_older_file_is_replaced_not_followed(path, tmp_path):
    (tmp_path / "mine").write_text("mine")
    path.with_name("labels.1").symlink_to(tmp_path / "mine")
    with opened(path, 3) as file:
        file.write(b"a\n")
        file.write(b"b\n")
    assert (tmp_path / "mine").read_text() == "mine"
    assert path.with_name("labels.1").read_text() == "a\n"


@contextlib.contextmanager
def room_for(bytes_in_all: int) -> Iterator[None]:
    """A file that cannot grow beyond so many bytes: like a full disk it takes a part of what is written."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_in_all, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_line_that_has_no_room_leaves_no_part_of_itself(path):
    with opened(path) as file:
        file.write(b"whole\n")
        with room_for(9), pytest.raises(OSError, match="File too large") as raised:
            file.write(b"in two\n")
        assert raised.value.errno == errno.EFBIG
        assert path.read_text() == "whole\n"
        file.write(b"after\n")
    assert path.read_text() == "whole\nafter\n"


def test_nothing_is_taken_back_that_somebody_else_wrote_behind(path):
    with opened(path) as file, path.open("ab", buffering=0) as other:
        file.write(b"part")
        other.write(b"theirs\n")
        _take_back(file._file, 4)
    assert path.read_text() == "parttheirs\n"


def test_a_file_that_was_moved_away_is_begun_anew_within_a_second(path):
    clock = HandClock()
    with opened(path, None, clock) as file:
        file.write(b"a\n")
        path.rename(path.with_name("labels.old"))
        clock.advance(999)
        file.write(b"b\n")
        assert not path.exists()
        clock.advance(1)
        file.write(b"c\n")
        path.unlink()
        path.write_text("theirs\n")
        clock.advance(1000)
        file.write(b"d\n")
    assert path.with_name("labels.old").read_text() == "a\nb\n"
    assert path.read_text() == "theirs\nd\n"


def test_a_file_that_is_full_and_was_moved_away_does_not_turn_over_anothers(path):
    with opened(path, 3, HandClock()) as file:
        file.write(b"a\n")
        path.rename(path.with_name("labels.old"))
        path.write_text("x\n")
        file.write(b"b\n")
    assert path.read_text() == "x\nb\n"
    assert not path.with_name("labels.1").exists()


def test_a_file_that_was_cut_is_measured_anew(path):
    clock = HandClock()
    with opened(path, 10, clock) as file:
        file.write(b"1234567\n")
        os.truncate(path, 0)
        clock.advance(1000)
        file.write(b"12345\n")
    assert path.read_text() == "12345\n"
    assert not path.with_name("labels.1").exists()


def test_a_link_put_in_its_place_is_not_followed(path, tmp_path):
    clock = HandClock()
    (tmp_path / "mine").write_text("mine")
    with opened(path, None, clock) as file:
        path.unlink()
        path.symlink_to(tmp_path / "mine")
        clock.advance(1000)
        with pytest.raises(OSError, match="symbolic links"):
            file.write(b"a\n")
        with pytest.raises(ValueError, match="closed file"):
            file.write(b"a\n")
    assert (tmp_path / "mine").read_text() == "mine"


def test_a_failed_turn_leaves_whole_lines_and_a_sink_that_can_be_opened_again(path):
    older = path.with_name("labels.1")
    (older / "full").mkdir(parents=True)
    with opened(path, 3) as file:
        file.write(b"a\n")
        with pytest.raises(OSError, match="directory"):
            file.write(b"b\n")
        file.close()
        (older / "full").rmdir()
        older.rmdir()
        file.open()
        file.write(b"c\n")
    assert (older.read_text(), path.read_text()) == ("a\n", "c\n")
