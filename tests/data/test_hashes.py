from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from kd_edge.data.hashes import FileHashes
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
