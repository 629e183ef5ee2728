from __future__ import annotations

import errno
import fcntl
import logging
import os
import pickle
import shutil
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kd_edge.crop import FrameRegion, PersonRegion
from kd_edge.data.cache.frames import CachedClips, cache_fingerprint, prepare
from kd_edge.data.dataset import Sample
from kd_edge.data.readers import hashes
from kd_edge.data.readers.utd_mhad import UtdMhad
from kd_edge.data.synthetic.dataset import Synthetic
from kd_edge.errors import DataError
from kd_edge.person import measure
from kd_edge.resizing import Holes, resize
from kd_edge.types import Clip
from kd_edge.window import FixedWindow, PercentileWindow, percentile_limits

WINDOW = PercentileWindow(ignore_value=0)


@pytest.fixture
def generated() -> Synthetic:
    return Synthetic(clips_per_class=2, subjects=2, height_px=48, width_px=64, fps=10)


def folders(root: Path) -> list[str]:
    return sorted(p.name for p in root.iterdir())


def test_the_cache_holds_what_decoding_and_resizing_give(small_utd: Path, tmp_path: Path) -> None:
    dataset = UtdMhad(small_utd)
    calls: list[tuple[int, int]] = []
    cache = prepare(dataset, dataset.samples, "depth", 60, WINDOW, tmp_path / "c", lambda *at: calls.append(at))
    assert calls == [(i, 8) for i in range(1, 9)]
    assert cache.samples == dataset.samples
    assert cache.skipped == {}
    assert cache.median_seconds == pytest.approx(0.1)
    assert cache.bytes == 8 * 4 * 60 * 80 * 2
    for sample in dataset.samples:
        frames, stamps, limits, places = cache.clip(sample.id)
        assert places is None
        clip = dataset.open(sample, "depth")
        assert frames.dtype == np.uint16
        assert not frames.flags.writeable
        for k in range(4):
            small = resize(clip.frames[k], 60)
            assert np.array_equal(frames[k], small)
            assert limits[k].tolist() == list(percentile_limits(small, WINDOW))
        assert np.array_equal(stamps, clip.stamps_ns)


def test_where_the_person_is_is_cached_for_a_person_region_alone(small_utd: Path, tmp_path: Path) -> None:
    dataset = UtdMhad(small_utd)
    regions = [PersonRegion(low=1, side_m=side, time_constant_ms=wait) for side, wait in ((2.0, 0.0), (3.0, 500.0))]
    caches = [
        prepare(dataset, dataset.samples, "depth", 60, WINDOW, tmp_path, region=region)
        for region in (None, FrameRegion(), *regions, PersonRegion(low=2))
    ]
    assert len({cache.path for cache in caches}) == 3  # the square's side and its smoothing are applied later
    clip = caches[2].clip(dataset.samples[0].id)
    assert clip.own_places is not None
    expected = [measure(frame, regions[0]) for frame in clip.frames]
    assert np.array_equal(clip.own_places, np.array(expected, np.float32), equal_nan=True)
    assert caches[0].clip(dataset.samples[0].id).own_places is None
    print_of = cache_fingerprint(dataset, dataset.samples, "depth", 60, WINDOW, region=regions[1])
    assert print_of == caches[2].fingerprint


def test_clips_are_views_into_the_map(generated: Synthetic, tmp_path: Path) -> None:
    cache = prepare(generated, generated.samples, "rgb", 48, None, tmp_path)
    frames = cache.clip(generated.samples[3].id).frames
    assert np.shares_memory(frames, cache.clip(generated.samples[3].id).frames)
    assert np.array_equal(frames, generated.open(generated.samples[3], "rgb").frames)  # 48 px already: unchanged
    assert np.isnan(cache.clip(generated.samples[3].id).own_limits).all()


def test_a_ready_cache_is_opened_not_made(generated: Synthetic, tmp_path: Path) -> None:
    first = prepare(generated, generated.samples, "nir", 40, None, tmp_path)
    second = prepare(
        generated, generated.samples, "nir", 40, FixedWindow(), tmp_path, lambda *_: pytest.fail("made again")
    )
    assert second.fingerprint == first.fingerprint
    assert len(folders(tmp_path)) == 1


@pytest.mark.slow
def test_contents_and_settings_make_the_key(generated: Synthetic, tmp_path: Path) -> None:
    samples = generated.samples
    relabelled = (replace(samples[0], label=1), *samples[1:])
    other_seed = Synthetic(clips_per_class=2, subjects=2, height_px=48, width_px=64, fps=10, seed=1)
    wide = PercentileWindow(low_percent=5)
    smoother = PercentileWindow(low_percent=5, time_constant_ms=50, minimum_span=20)
    caches = [
        prepare(generated, samples, "nir", 40, None, tmp_path),
        prepare(generated, samples, "nir", 32, None, tmp_path),
        prepare(generated, samples, "rgb", 40, None, tmp_path),
        prepare(generated, samples[:4], "nir", 40, None, tmp_path),
        prepare(generated, relabelled, "nir", 40, None, tmp_path),
        prepare(other_seed, samples, "nir", 40, None, tmp_path),
        prepare(generated, samples, "nir", 40, None, tmp_path, holes="left_out"),
        prepare(generated, samples, "nir", 40, wide, tmp_path),
    ]
    assert cache_fingerprint(generated, samples, "nir", 40, holes="left_out") == caches[-2].fingerprint
    assert len({c.fingerprint for c in caches}) == len(caches)
    assert prepare(generated, samples, "nir", 40, smoother, tmp_path).fingerprint == caches[-1].fingerprint


def test_damaged_and_absent_recordings_are_named_and_the_rest_goes_on(small_utd: Path, tmp_path: Path) -> None:
    dataset = UtdMhad(small_utd)
    damaged, absent = dataset.samples[1], dataset.samples[5]
    path = dataset.path(damaged, "depth")
    original = path.read_bytes()
    path.write_bytes(original[:200])
    dataset.path(absent, "depth").unlink()
    cache = prepare(dataset, dataset.samples, "depth", 60, WINDOW, tmp_path / "c")
    assert set(cache.skipped) == {damaged.id, absent.id}
    assert path.name in cache.skipped[damaged.id]
    assert len(cache) == 6
    with pytest.raises(DataError, match=f"{damaged.id} is not cached: .*damaged"):
        cache.clip(damaged.id)
    path.write_bytes(original)  # fetched again: another content, another cache
    assert set(prepare(UtdMhad(small_utd), dataset.samples, "depth", 60, WINDOW, tmp_path / "c").skipped) == {absent.id}


@pytest.mark.parametrize("holes", ["averaged", "left_out"])
def test_a_recording_of_other_images_is_named_and_left_out(
    holes: Holes, generated: Synthetic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = generated.samples[1]
    opened = Synthetic.open

    def colourful(self: Synthetic, sample: Sample, modality: str) -> Clip:
        return opened(self, sample, "rgb" if sample == wrong else modality)

    monkeypatch.setattr(Synthetic, "open", colourful)
    cache = prepare(generated, generated.samples, "nir", 40, None, tmp_path, holes=holes)
    assert list(cache.skipped) == [wrong.id]
    assert "uint8 images of 3 channels" in cache.skipped[wrong.id]
    assert len(cache) == len(generated.samples) - 1


def test_holes_are_left_out_of_the_cache(small_utd: Path, tmp_path: Path) -> None:
    dataset = UtdMhad(small_utd)
    sample = dataset.samples[0]
    cache = prepare(dataset, [sample], "depth", 60, WINDOW, tmp_path / "c", holes="left_out")
    clip = dataset.open(sample, "depth")
    frames, _, limits, _ = cache.clip(sample.id)
    for frame, own, raw in zip(frames, limits, clip.frames, strict=True):
        np.testing.assert_array_equal(frame, resize(raw, 60, "left_out"))
        assert own.tolist() == list(percentile_limits(frame, WINDOW))


def test_nothing_usable_is_an_error_and_leaves_nothing(small_utd: Path, tmp_path: Path) -> None:
    dataset = UtdMhad(small_utd)
    for sample in dataset.samples:
        dataset.path(sample, "depth").write_bytes(b"not a MATLAB file")
    with pytest.raises(DataError, match=r"no depth clip can be used; the first: .*a1_s1_t1_depth\.mat"):
        prepare(dataset, dataset.samples, "depth", 60, None, tmp_path / "c")
    assert folders(tmp_path / "c") == []


def test_signals_cannot_be_cached_as_images(small_utd: Path, tmp_path: Path) -> None:
    dataset = UtdMhad(small_utd)
    with pytest.raises(DataError, match="is a signal"):
        prepare(dataset, dataset.samples, "inertial", 60, None, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("harm", ["cut frames", "cut index", "no index", "no limits", "cut stamps"])
def test_a_damaged_cache_is_made_again(generated: Synthetic, tmp_path: Path, harm: str) -> None:
    cache = prepare(generated, generated.samples, "nir", 40, None, tmp_path)
    what, file = harm.split()
    path = (
        cache.path
        / {"frames": "frames.bin", "index": "index.json", "limits": "limits.npy", "stamps": "stamps.npy"}[file]
    )
    if what == "cut":
        os.truncate(path, path.stat().st_size // 2)
    else:
        path.unlink()
    done: list[int] = []
    again = prepare(generated, generated.samples, "nir", 40, None, tmp_path, lambda i, _: done.append(i))
    assert len(done) == 20
    frames = again.clip(generated.samples[0].id).frames
    assert np.array_equal(frames[0], resize(generated.open(generated.samples[0], "nir").frames[0], 40))


def interrupted_at(clip: int) -> Callable[[int, int], None]:
    def interrupt(done: int, _: int) -> None:
        if done == clip:
            raise KeyboardInterrupt

    return interrupt


@pytest.mark.slow
def test_an_interrupted_preparation_goes_on_where_it_was(generated: Synthetic, tmp_path: Path) -> None:
    window = PercentileWindow()
    whole = prepare(generated, generated.samples, "nir", 40, window, tmp_path / "whole")
    root = tmp_path / "cut"
    for clip in (5, 12):
        with pytest.raises(KeyboardInterrupt):
            prepare(generated, generated.samples, "nir", 40, window, root, interrupted_at(clip))
    left = root / folders(root)[0]
    with (left / "frames.bin").open("ab") as frames, (left / "journal.jsonl").open("a") as journal:
        frames.write(b"half a clip")  # what a kill between two writes leaves
        journal.write('{"sample": {"id": "a1')
    done: list[int] = []
    cache = prepare(generated, generated.samples, "nir", 40, window, root, lambda i, _: done.append(i))
    assert done == list(range(13, 21))
    assert cache.fingerprint == whole.fingerprint
    assert sorted(path.name for path in cache.path.iterdir()) == sorted(path.name for path in whole.path.iterdir())
    assert (cache.path / "frames.bin").read_bytes() == (whole.path / "frames.bin").read_bytes()
    for sample in generated.samples:
        ours, theirs = cache.clip(sample.id), whole.clip(sample.id)
        assert np.array_equal(ours.stamps_ns, theirs.stamps_ns)
        assert np.array_equal(ours.own_limits, theirs.own_limits)


@pytest.mark.parametrize("journal", ["not json\n", '{"sample": {"id": "another"}}\n', '{"skipped": "x"}\n'])
def test_a_damaged_journal_starts_again(generated: Synthetic, tmp_path: Path, journal: str) -> None:
    with pytest.raises(KeyboardInterrupt):
        prepare(generated, generated.samples, "nir", 40, None, tmp_path, interrupted_at(5))
    (tmp_path / folders(tmp_path)[0] / "journal.jsonl").write_text(journal)
    done: list[int] = []
    prepare(generated, generated.samples, "nir", 40, None, tmp_path, lambda i, _: done.append(i))
    assert done == list(range(1, 21))


def test_what_another_killed_preparation_left_is_cleaned(generated: Synthetic, tmp_path: Path) -> None:
    killed = tmp_path / ".tmp-synthetic-nir-00000000000000000000"
    killed.mkdir()
    (killed / "frames.bin").write_bytes(b"half")
    cache = prepare(generated, generated.samples, "nir", 40, None, tmp_path)
    assert folders(tmp_path) == [cache.path.name]


@pytest.mark.slow
def test_what_can_be_gone_on_with_survives_another_cache(generated: Synthetic, tmp_path: Path) -> None:
    for px in (40, 32, 36):
        with pytest.raises(KeyboardInterrupt):
            prepare(generated, generated.samples, "nir", px, None, tmp_path, interrupted_at(5))
    left = folders(tmp_path)
    assert [name.startswith(".tmp-") for name in left] == [True] * 3
    old, week = tmp_path / left[0] / "journal.jsonl", 7 * 24 * 3600
    os.utime(old, (time.time(), time.time() - week - 60))
    os.utime(tmp_path / left[1] / "journal.jsonl", (time.time(), time.time() - week + 600))
    (tmp_path / ".lock-killed").touch()
    ready = prepare(generated, generated.samples, "rgb", 40, None, tmp_path)
    assert set(folders(tmp_path)) == {*left[1:], ready.path.name}
    done: list[int] = []
    for px in (40, 32, 36):
        prepare(generated, generated.samples, "nir", px, None, tmp_path, lambda i, _: done.append(i))
    assert len(done) == 20 + 15 + 15  # the deleted one from its start, the others from their sixth clip
    assert len(folders(tmp_path)) == 4


@pytest.mark.slow
def test_what_is_being_made_is_not_cleaned(generated: Synthetic, tmp_path: Path) -> None:
    """Its journal may be older than a week on a machine that slept."""
    working = tmp_path / ".tmp-other"
    working.mkdir()
    with (tmp_path / ".lock-other").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        ready = prepare(generated, generated.samples, "nir", 40, None, tmp_path)
        assert folders(tmp_path) == [".lock-other", ".tmp-other", ready.path.name]
    prepare(generated, generated.samples, "nir", 32, None, tmp_path)
    assert not working.exists()
    assert not (tmp_path / ".lock-other").exists()


@pytest.mark.parametrize(("number", "kept"), [(errno.EIO, True), (errno.ENOSPC, False), (errno.EDQUOT, False)])
def test_a_fault_of_the_disk_keeps_what_was_decoded_unless_it_is_full(
    generated: Synthetic, tmp_path: Path, number: int, kept: bool
) -> None:
    def fail(done: int, _: int) -> None:
        if done == 5:
            raise OSError(number, os.strerror(number))

    with pytest.raises(DataError) as caught:
        prepare(generated, generated.samples, "nir", 40, None, tmp_path, fail)
    left = folders(tmp_path)
    assert [name[:5] for name in left] == [".tmp-"] * kept
    assert ("resumed next time" in caught.value.found) == kept
    assert all(str(tmp_path / name) in caught.value.found for name in left)
    done: list[int] = []
    prepare(generated, generated.samples, "nir", 40, None, tmp_path, lambda i, _: done.append(i))
    assert done[0] == (6 if kept else 1)


def test_frames_that_may_not_have_reached_the_disk_are_decoded_again(
    generated: Synthetic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", fail)
        with pytest.raises(DataError, match=r"cannot write the cache .* \(Input/output error\)\. Expected"):
            prepare(generated, generated.samples, "nir", 40, None, tmp_path)
    done: list[int] = []
    prepare(generated, generated.samples, "nir", 40, None, tmp_path, lambda i, _: done.append(i))
    assert done == list(range(1, 21))


def test_a_cache_that_will_not_fit_is_refused_early(
    generated: Synthetic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    done: list[int] = []
    with pytest.raises(DataError, match=r"of 20 clips needs about .* GB .*cache_every=3"):
        prepare(generated, generated.samples, "nir", 40, None, tmp_path, lambda i, _: done.append(i))
    assert len(done) < 20
    assert folders(tmp_path) == []


def test_every_third_frame_keeps_its_stamp(generated: Synthetic, tmp_path: Path) -> None:
    sample = generated.samples[0]
    all_frames = prepare(generated, generated.samples, "nir", 40, None, tmp_path).clip(sample.id)
    third = prepare(generated, generated.samples, "nir", 40, None, tmp_path, every=3).clip(sample.id)
    assert np.array_equal(third.stamps_ns, all_frames.stamps_ns[::3])
    assert np.array_equal(third.frames, all_frames.frames[::3])
    assert len(folders(tmp_path)) == 2


CHILD = """
import resource, signal, sys
from pathlib import Path
from kd_edge.crop import FrameRegion, PersonRegion
from kd_edge.person import measure
from kd_edge.data.cache.frames import cache_fingerprint, prepare
from kd_edge.data.synthetic.dataset import Synthetic
from kd_edge.errors import DataError
dataset = Synthetic(clips_per_class=2, subjects=2, height_px=48, width_px=64, fps=10)
"""


def run(code: str, root: Path) -> subprocess.CompletedProcess[str]:
    script = CHILD + textwrap.dedent(code)
    return subprocess.run([sys.executable, "-c", script, str(root)], capture_output=True, text=True, timeout=60)


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    done = run(
        """
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))  # writing on fails like a full disk
        try:
            prepare(dataset, dataset.samples, "nir", 40, None, Path(sys.argv[1]))
        except DataError as error:
            print(error)
        """,
        tmp_path,
    )
    assert done.stdout.startswith(f"the disk of the cache {tmp_path} is full. Expected room"), done.stderr
    assert done.stdout.count("\n") == 1
    assert folders(tmp_path) == []


def test_a_folder_that_cannot_be_written_is_one_line(generated: Synthetic, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"cannot write the cache .*KD_EDGE_CACHE"):
        prepare(generated, generated.samples, "nir", 40, None, tmp_path / "file" / "cache")


def test_two_processes_make_one_cache(tmp_path: Path) -> None:
    code = CHILD + textwrap.dedent(
        """
        made = []
        cache = prepare(dataset, dataset.samples, "nir", 40, None, Path(sys.argv[1]), lambda i, n: made.append(i))
        print(len(made), int(cache.clip(dataset.samples[7].id).frames.sum()))
        """
    )
    both = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    answers = [process.communicate(timeout=60)[0].split() for process in both]
    assert sorted(int(a[0]) for a in answers) in ([0, 20], [20, 20])  # the second waits; it may come when all is done
    assert answers[0][1] == answers[1][1]
    assert len(folders(tmp_path)) == 1


@pytest.mark.slow
def test_waiting_is_said_once_and_other_caches_do_not_wait(
    generated: Synthetic, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    started, go_on = threading.Event(), threading.Event()

    def hold(done: int, _: int) -> None:
        started.set()
        assert go_on.wait(30)

    def make() -> CachedClips:
        return prepare(generated, generated.samples, "nir", 40, None, tmp_path, hold)

    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(make)
        assert started.wait(30)
        other = prepare(generated, generated.samples, "nir", 32, None, tmp_path)  # while the first is at work
        assert caplog.messages == []
        second = threads.submit(make)
        while not caplog.messages and not second.done():
            time.sleep(0.01)
        assert not second.done()
        go_on.set()
        name = first.result(30).path
        assert second.result(30).path == name
    assert caplog.record_tuples == [
        ("kd_edge.data", logging.WARNING, f"waiting for another process that is creating {name}")
    ]
    assert folders(tmp_path) == sorted([other.path.name, name.name])


@pytest.mark.slow
def test_many_processes_hold_the_lock_one_after_the_other(tmp_path: Path) -> None:
    """Each adds one to a number in a file, which loses counts where two hold the lock at once."""
    code = """
    from kd_edge.data.cache.frames import _lock
    root = Path(sys.argv[1])
    count = root / "count"
    for _ in range(50):
        with _lock(root / "cache"):
            number = int(count.read_text() or 0)
            count.write_text(str(number + 1))
    """
    script = "import sys\nfrom pathlib import Path\n" + textwrap.dedent(code)
    (tmp_path / "count").write_text("0")
    several = [
        subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stderr=subprocess.PIPE) for _ in range(4)
    ]
    for process in several:
        process.communicate(timeout=60)
    assert [process.returncode for process in several] == [0] * 4
    assert (tmp_path / "count").read_text() == "200"
    assert folders(tmp_path) == ["count"]


def test_a_loader_process_gets_the_folder_not_the_content(generated: Synthetic, tmp_path: Path) -> None:
    cache = prepare(generated, generated.samples, "rgb", 48, None, tmp_path)
    sent = pickle.dumps(cache)
    assert len(sent) < 1000 < cache.bytes
    received: CachedClips = pickle.loads(sent)
    assert np.array_equal(received.clip("a1_s1_t1").frames, cache.clip("a1_s1_t1").frames)


@pytest.mark.slow
def test_two_processes_on_a_file_system_without_locks_make_one_cache(tmp_path: Path) -> None:
    code = CHILD + textwrap.dedent(
        """
        import fcntl
        def flock(*_):
            raise OSError(37, "No locks available")
        fcntl.flock = flock
        made = []
        cache = prepare(dataset, dataset.samples, "nir", 40, None, Path(sys.argv[1]), lambda i, n: made.append(i))
        print(len(made), int(cache.clip(dataset.samples[7].id).frames.sum()))
        """
    )
    both = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    answers = [process.communicate(timeout=60)[0].split() for process in both]
    assert sorted(int(a[0]) for a in answers) == [0, 20]
    assert answers[0][1] == answers[1][1]
    assert len(folders(tmp_path)) == 1


@pytest.mark.slow
def test_opening_reads_no_real_sample_again(utd_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The key asks for every file; the memo keeps it from reading them (measured: 17 ms for 861 samples)."""
    read: list[str] = []
    digest = hashes._digest
    monkeypatch.setattr(hashes, "_digest", lambda file: read.append(file.name) or digest(file))
    memo = tmp_path / "hashes.jsonl"
    dataset = UtdMhad(utd_root, memo)
    samples = dataset.samples[::40]
    prepare(dataset, samples, "pose", 24, None, tmp_path / "c")
    for sample in dataset.samples:
        dataset.content_key(sample, "pose")
    assert len(read) == len(dataset.samples)
    read.clear()
    again = UtdMhad(utd_root, memo)
    prepare(again, samples, "pose", 24, None, tmp_path / "c")
    for sample in again.samples:
        again.content_key(sample, "pose")
    assert read == []
