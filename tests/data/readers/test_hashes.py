from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from kd_edge.data.readers.hashes import FileHashes
from kd_edge.errors import DataError


def test_a_file_is_read_once_as_long_as_it_stays(tmp_path: Path) -> None:
    file, memo = tmp_path / "a.bin", tmp_path / "deep" / "hashes.jsonl"
    file.write_bytes(b"abc")
    digest = hashlib.sha256(b"abc").hexdigest()
    assert FileHashes(memo).sha256(file) == digest
    stat = file.stat()
    file.write_bytes(b"xyz")  # same size and time: the memo is believed
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert FileHashes(memo).sha256(file) == digest
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert FileHashes(memo).sha256(file) == hashlib.sha256(b"xyz").hexdigest()


def test_a_damaged_or_unwritable_memo_costs_only_time(tmp_path: Path) -> None:
    file, memo = tmp_path / "a.bin", tmp_path / "hashes.jsonl"
    file.write_bytes(b"abc")
    memo.write_text('["/cut/short", 12\n[]\n{"no": 1}\n5\n')
    digest = hashlib.sha256(b"abc").hexdigest()
    assert FileHashes(memo).sha256(file) == digest
    memo.write_bytes(b"\xff\xfe\x00")
    assert FileHashes(memo).sha256(file) == digest
    assert FileHashes(file / "below a file" / "hashes.jsonl").sha256(file) == digest


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.mat"):
        FileHashes().sha256(tmp_path / "gone.mat")


def test_large_files_by_size_and_three_places(tmp_path: Path) -> None:
    mebibyte = 1 << 20
    content = bytearray(8 * mebibyte)
    file, time_ns = tmp_path / "long.avi", 1_700_000_000_123_456_789

    def digest() -> str:
        file.write_bytes(content)
        os.utime(file, ns=(0, time_ns))
        return FileHashes(sampled=True).sha256(file)

    before = digest()
    for place in (0, mebibyte - 1, 4 * mebibyte, 7 * mebibyte, 8 * mebibyte - 1):
        content[place] = 1
        assert digest() != before
        content[place] = 0
    content[2 * mebibyte] = 1  # between the places: not looked at, as documented
    assert digest() == before
    time_ns += 1  # but fetched again it is another file
    assert digest() != before
    time_ns -= 1
    assert digest() == before
    del content[2 * mebibyte : 2 * mebibyte + 1]
    assert digest() != before


def test_small_files_are_sampled_whole(tmp_path: Path) -> None:
    file = tmp_path / "short.avi"
    file.write_bytes(bytes(5000))
    os.utime(file, ns=(0, 0))
    before = FileHashes(sampled=True).sha256(file)
    assert before != FileHashes().sha256(file)  # never mistaken for a hash of every byte
    file.write_bytes(bytes(2500) + b"\1" + bytes(2499))
    os.utime(file, ns=(0, 0))
    assert FileHashes(sampled=True).sha256(file) != before
    file.write_bytes(b"")
    assert len(FileHashes(sampled=True).sha256(file)) == 64


def test_a_file_longer_than_one_reading(tmp_path: Path) -> None:
    content = bytes(range(256)) * 8192 + b"end"  # 2 MiB and a bit
    (tmp_path / "a.bin").write_bytes(content)
    assert FileHashes().sha256(tmp_path / "a.bin") == hashlib.sha256(content).hexdigest()
