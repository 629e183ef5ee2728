"""``auto``: what is measured, how it is told, where it is kept, and that nothing in the file can hurt."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from kd_edge.artifact import Artifact
from kd_edge.engines import ENGINES, choice, open_engine
from kd_edge.engines.base import Binding, Choice
from kd_edge.engines.choice import Measured, Timing, choose
from kd_edge.engines.onnxruntime import OnnxRuntimeEngine
from kd_edge.errors import ArtifactError, ConfigError


class Sure(OnnxRuntimeEngine):
    """ONNX Runtime under another name."""

    @classmethod
    def is_installed(cls) -> bool:
        return True


class Swift(Sure):
    """A second one."""

    library = "swift"
    accepts = ("cpu", "npu")


TWO = {"sure": Sure, "swift": Swift}
SWIFT = Measured(
    {"sure": "sure 1.0", "swift": "swift 2.5"}, {"sure": Timing(0.5, 0.52), "swift": Timing(0.3, 0.31)}, out={}
)


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KD_EDGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(choice, "cpu_name", lambda: "Some CPU")
    monkeypatch.setattr(choice, "installed", lambda library: {library: "1.0"})
    return tmp_path / "cache" / "engines.json"


class Measuring:
    """Stands in for the measurement, and counts."""

    def __init__(self, found: Measured = SWIFT) -> None:
        self.found, self.asked = found, []

    def __call__(self, artifact: Artifact, engines, threads: int, provider: str) -> Measured:
        self.asked.append((list(engines), threads, provider))
        return self.found


def test_one_that_is_hardly_faster_is_told_and_not_taken(step: Artifact) -> None:
    times = {"sure": Timing(0.5, 0.52), "swift": Timing(0.48, 0.5)}
    chosen = choose(step, TWO, measure=Measuring(SWIFT._replace(timings=times)))
    assert chosen.text == "engine sure 1.0: 0.52 ms a step (swift 0.50, hardly faster), measured here"


def test_the_fastest_is_measured_once_and_told(step: Artifact, file: Path) -> None:
    measure = Measuring()
    first = choose(step, TWO, threads=2, measure=measure)
    assert first == Choice(
        "swift", "engine swift 2.5: 0.31 ms a step (sure 0.52), measured here", {"sure": 0.52, "swift": 0.31}, {}, True
    )
    again = choose(step, TWO, threads=2, measure=measure)
    assert again.text == "engine swift 2.5: 0.31 ms a step (sure 0.52), measured before"
    assert (again.engine, again.milliseconds, again.kept) == (first.engine, first.milliseconds, True)
    assert measure.asked == [(["sure", "swift"], 2, "cpu")]
    assert [path.name for path in file.parent.iterdir()] == ["engines.json"]  # nothing half-written
    assert json.loads(file.read_text())["answers"][0] == {
        "question": {
            "artifact": step.manifest.sha256,
            "versions": {"sure": "onnxruntime 1.0", "swift": "swift 1.0"},
            "cpu": "Some CPU",
            "threads": 2,
            "provider": "cpu",
        },
        "engine": "swift",
        "name": "swift 2.5",
        "minimum_ms": {"sure": 0.5, "swift": 0.3},
        "median_ms": {"sure": 0.52, "swift": 0.31},
        "out": {},
        "begun": 0,
    }


def test_it_is_measured_again_where_anything_is_different(
    step: Artifact, stateful: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure = Measuring()
    choose(step, TWO, measure=measure)
    choose(stateful, TWO, measure=measure)
    choose(step, TWO, threads=2, measure=measure)
    choose(step, {**TWO, "third": Sure}, measure=measure)
    monkeypatch.setattr(choice, "cpu_name", lambda: "Other CPU")
    choose(step, TWO, measure=measure)
    monkeypatch.setattr(choice, "installed", lambda library: {library: "1.1"})
    choose(step, TWO, measure=measure)
    assert len(measure.asked) == 6
    choose(step, TWO, measure=measure)
    assert len(measure.asked) == 6


def test_one_engine_is_not_measured_and_nothing_is_kept(
    step: Artifact, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure = Measuring()
    only = choose(step, {"sure": Sure}, measure=measure)
    assert only == Choice("sure", "engine onnxruntime 1.0, the only one here that can run this model", {}, {}, False)
    assert choose(step, TWO, provider="npu", measure=measure).engine == "swift"
    assert choose(step, TWO, provider="cuda", measure=measure).engine == "sure"
    monkeypatch.setattr(Swift, "unsuited", lambda artifact: "it has no such operator")
    assert choose(step, TWO, measure=measure).engine == "sure"
    monkeypatch.setattr(Sure, "is_installed", lambda: False)
    assert choose(step, {"sure": Sure}, measure=measure).engine == "sure"  # opening it names its extra
    assert measure.asked == []
    assert not file.parent.exists()


def test_an_engine_that_is_out_is_told_with_the_reason(step: Artifact) -> None:
    found = Measured({"sure": "sure 1.0"}, {"sure": Timing(0.5, 0.5)}, {"swift": "its logits differ\nby 3"})
    for how in ("here", "before"):
        chosen = choose(step, TWO, measure=Measuring(found))
        assert chosen.text == rf"engine sure 1.0: 0.50 ms a step, measured {how}; not swift: its logits differ\nby 3"


def test_where_none_runs_the_first_one_is_opened_and_nothing_is_kept(step: Artifact, file: Path) -> None:
    """Its opening says why; tomorrow there may be memory again."""
    nothing = Measured({}, {}, {"sure": "no memory", "swift": "no memory"})
    chosen = choose(step, TWO, measure=Measuring(nothing))
    assert (chosen.engine, chosen.kept, json.loads(file.read_text())["answers"]) == ("sure", False, [])


def test_an_engine_that_ends_the_process_does_so_twice(step: Artifact, file: Path) -> None:
    """Once may be a power cut. A robot's service would start again for ever: the first engine runs, someone looks."""

    def dies(*_: object) -> Measured:
        left.append(file.read_bytes())
        return SWIFT

    left: list[bytes] = []
    choose(step, TWO, measure=dies)
    file.write_bytes(left[0])  # as it was in the moment of the crash
    assert choose(step, TWO, measure=dies).text.endswith("measured here")  # it is tried again
    file.write_bytes(left[1])
    measure = Measuring()
    chosen = choose(step, TWO, measure=measure)
    assert (chosen.engine, chosen.kept, measure.asked) == ("sure", True, [])
    assert chosen.text == (
        "engine onnxruntime 1.0, not measured; not swift: the process ended twice while it was tried "
        "(delete engines.json in the cache folder to try it again)"
    )


def test_while_another_process_measures_the_first_engine_runs(
    step: Artifact, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "WAIT_SECONDS", 0.0)
    file.parent.mkdir(parents=True, exist_ok=True)
    script = "import sys; from pathlib import Path; from kd_edge.files import held\n"
    script += "with held(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    lock = file.with_suffix(".lock")
    with subprocess.Popen(
        [sys.executable, "-c", script, lock], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        measure = Measuring()
        chosen = choose(step, TWO, measure=measure)
        assert (chosen.engine, chosen.kept, measure.asked) == ("sure", False, [])
        assert chosen.text == "engine onnxruntime 1.0, not measured: another process is doing so"
        other.communicate()
    assert choose(step, TWO, measure=measure).text.endswith("measured here")
    assert not lock.exists()


def test_one_that_was_stopped_is_measured_again(step: Artifact, file: Path) -> None:
    def stopped(*_: object) -> Measured:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        choose(step, TWO, measure=stopped)
    assert choose(step, TWO, measure=Measuring()).text.endswith("measured here")


KEPT = {
    "question": {
        "artifact": "0" * 64, "versions": {"sure": "", "swift": ""}, "cpu": "x", "threads": 1, "provider": "cpu",
    },
    "engine": "swift", "name": "swift 1", "minimum_ms": {}, "median_ms": {}, "out": {},
}  # fmt: skip


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"{}",
        b'{"format": 2, "answers": []}',
        b'{"format": 1, "answers": {}}',
        b'{"format": 1, "answers": [1]}',
        json.dumps({"format": 1, "answers": [{**KEPT, "engine": "rm -rf"}]}).encode(),
        json.dumps({"format": 1, "answers": [{**KEPT, "name": "x" * 501}]}).encode(),
        json.dumps({"format": 1, "answers": [{**KEPT, "more": 1}]}).encode(),
        json.dumps({"format": 1, "answers": [KEPT] * 65}).encode(),
        b'{"format": 1, "answers": [], "x": NaN}',
        b"[" * 100_000,
        b" " * 1_000_001,
    ],
)
def test_a_damaged_file_is_measured_again_and_replaced(step: Artifact, file: Path, content: bytes) -> None:
    file.parent.mkdir()
    file.write_bytes(content)
    measure = Measuring()
    assert choose(step, TWO, measure=measure).kept
    assert choose(step, TWO, measure=measure).text.endswith("measured before")
    assert len(measure.asked) == 1


def test_a_file_damaged_anywhere_raises_nothing(step: Artifact, file: Path) -> None:
    choose(step, TWO, measure=Measuring())
    whole = file.read_bytes()
    for at in range(0, len(whole), 29):
        for damaged in (whole[:at], whole[:at] + b"\x00" + whole[at + 1 :], whole[:at] + b'9"' + whole[at:]):
            file.write_bytes(damaged)
            assert choose(step, TWO, measure=Measuring()).engine in TWO


def test_what_is_no_file_is_not_waited_for(step: Artifact, file: Path) -> None:
    file.parent.mkdir()
    os.mkfifo(file)
    assert choose(step, TWO, measure=Measuring()).kept  # a file takes its place


def test_the_oldest_answers_go(step: Artifact, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "MOST_KEPT", 4)
    for threads in range(1, 8):
        choose(step, TWO, threads=threads, measure=Measuring())
    assert [answer["question"]["threads"] for answer in json.loads(file.read_text())["answers"]] == [7, 6, 5, 4]


def test_a_folder_that_cannot_be_written_is_told_or_with_strict_refused(
    step: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "taken").write_text("")
    monkeypatch.setenv("KD_EDGE_CACHE", str(tmp_path / "taken" / "cache"))
    chosen = choose(step, TWO, measure=Measuring())
    assert (chosen.engine, chosen.kept) == ("swift", False)
    assert "measured here; not kept: " in chosen.text
    assert "taken/cache/engines.json cannot be written (Not a directory)" in chosen.text
    measure = Measuring()
    with pytest.raises(ConfigError, match=r"cannot be written .* Fix: set KD_EDGE_CACHE to one, or name the engine"):
        choose(step, TWO, strict=True, measure=measure)
    assert measure.asked == []


@pytest.mark.usefixtures("no_home")
def test_without_a_home_it_is_told(step: Artifact) -> None:
    assert "not kept: no folder for the cache: KD_EDGE_CACHE is not set" in choose(step, TWO, measure=Measuring()).text


# ------------------------------------------------------------------------------------------------- the measurement


def broken(change: Callable[[dict[str, np.ndarray]], object]) -> type[OnnxRuntimeEngine]:
    """An engine that computes something else."""

    class Broken(Sure):
        def _bind(self, inputs, outputs):
            run = super()._bind(inputs, outputs)

            def both() -> None:
                run()
                change(outputs)

            return both

    return Broken


def scaled(factor: float) -> Callable[[dict[str, np.ndarray]], object]:
    return lambda outputs: outputs["logits"].__imul__(np.float32(factor))


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "SECONDS", 0.0)


@pytest.mark.usefixtures("at_once")
def test_one_that_computes_something_else_is_out(step: Artifact) -> None:
    def fails(outputs: dict[str, np.ndarray]) -> None:
        raise RuntimeError("illegal instruction")

    class Absent(OnnxRuntimeEngine):
        def _load(self, artifact, threads, provider):
            raise RuntimeError("libfoo.so is not there")

    engines = {
        "first": Sure,
        "same": broken(scaled(1 + 5e-5)),
        "other": broken(scaled(1.01)),
        "nan": broken(scaled(np.nan)),
        "fails": broken(fails),
        "absent": Absent,
    }
    found = choice.measured(step, engines, 1, "cpu")
    assert list(found.timings) == list(found.names) == ["first", "same"]
    assert found.out.keys() == {"other", "nan", "fails", "absent"}
    name = found.names["first"]
    assert found.out["other"] == (f"logits off by 0.01 of the largest value, tolerance 0.0001 (compared with {name})")
    assert found.out["nan"] == f"logits not finite (compared with {name})"
    assert found.out["fails"] == "the engine failed: illegal instruction"
    assert found.out["absent"].endswith("is refused by onnxruntime: libfoo.so is not there")
    assert all(0 < timing.minimum <= timing.median for timing in found.timings.values())


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize(("precision", "factor"), [("fp32", 1e-4), ("fp16", 5e-3), ("int8", 0.1)])
def test_how_closely_they_must_agree_depends_on_the_precision(
    save: Callable[..., Artifact], precision: str, factor: float
) -> None:
    from .conftest import step_model

    model = save(step_model(), precision=precision)
    engines = {"first": Sure, "near": broken(scaled(1 + factor / 2)), "far": broken(scaled(1 + 2 * factor))}
    assert choice.measured(model, engines, 1, "cpu").out.keys() == {"far"}


@pytest.mark.usefixtures("at_once")
def test_one_that_falls_back_is_out(step: Artifact) -> None:
    class Elsewhere(Sure):
        def _load(self, artifact, threads, provider):
            found = super()._load(artifact, threads, "cpu")
            self.fallback_reason = "npu was asked for, there is none"
            return found

    found = choice.measured(step, {"elsewhere": Elsewhere, "sure": Sure}, 1, "cpu")
    assert found.out == {"elsewhere": "npu was asked for, there is none"}
    assert list(found.timings) == ["sure"]


@pytest.mark.usefixtures("at_once")
def test_a_first_one_that_gives_no_numbers_judges_nobody(step: Artifact) -> None:
    found = choice.measured(step, {"nan": broken(scaled(np.nan)), "sure": Sure}, 1, "cpu")
    assert found.out == {"nan": "logits not finite"}
    assert list(found.timings) == ["sure"]


def test_they_run_in_turn_until_the_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hand clock: runs of 100, 300, 200, 200 ... and of 400 ms; two seconds end in the fourth round."""
    now, seen = [0.0], []
    spent = {"a": iter([0.1, 0.3, 0.2, 0.2, 0.2]), "b": iter([0.4] * 5)}

    def running(name: str) -> Binding:
        def run() -> None:
            seen.append(name)
            now[0] += next(spent[name])

        return Binding({}, {}, run)

    monkeypatch.setattr(choice.time, "perf_counter", lambda: now[0])
    timings = choice._timings({"a": running("a"), "b": running("b")}, {}, 2.0)
    assert seen == ["a", "b"] * 4  # 0.5 + 0.7 + 0.6 = 1.8 s after three rounds, 2.4 after four
    assert {name: tuple(np.round(timing, 6)) for name, timing in timings.items()} == {
        "a": (100.0, 200.0),
        "b": (400.0, 400.0),
    }


def test_every_engine_runs_a_few_times_however_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    now, runs = [0.0], []

    def run() -> None:
        runs.append(now[0])
        now[0] += 60.0

    monkeypatch.setattr(choice.time, "perf_counter", lambda: now[0])
    assert choice._timings({"slow": Binding({}, {}, run)}, {}, 2.0)["slow"] == Timing(60_000.0, 60_000.0)
    assert len(runs) == choice.LEAST_ROUNDS


def test_one_that_fails_later_is_out_as_well() -> None:
    runs, out = [], {}

    def run() -> None:
        runs.append(1)
        if len(runs) == 2:
            raise RuntimeError("device lost")

    timings = choice._timings({"good": Binding({}, {}, lambda: None), "bad": Binding({}, {}, run)}, out, 0.0)
    assert (list(timings), out, len(runs)) == (["good"], {"bad": "the engine failed: device lost"}, 2)


# ------------------------------------------------------------------------------------------------------- the door


@pytest.mark.usefixtures("at_once")
def test_the_door_opens_the_choice_and_tells_it(step: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_engine(step) as engine:
        assert engine.choice is None
    with open_engine(step, engine="auto") as engine:  # all that are installed, really measured
        assert engine.choice is not None
        assert engine.choice.out == {}
        assert engine.choice.milliseconds.keys() == {
            name
            for name, kind in ENGINES.items()
            if "cpu" in kind.accepts and kind.is_installed() and kind.unsuited(step) is None
        }
        assert engine.key == engine.choice.engine
        assert engine.choice.text.startswith(f"engine {engine.name}: ")
        assert engine.choice.text.endswith(", measured here")
    with open_engine(step, engine="auto") as again:
        assert again.choice is not None
        assert again.choice.text.endswith(", measured before")
        assert again.key == engine.key


def test_the_door_refuses_strictly_what_cannot_be_kept(
    step: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "measured", Measuring(Measured({}, {"onnxruntime": Timing(1.0, 1.0)}, {})))
    (tmp_path / "taken").write_text("")
    monkeypatch.setenv("KD_EDGE_CACHE", str(tmp_path / "taken"))
    with open_engine(step, engine="auto") as engine:
        assert engine.choice is not None
        assert not engine.choice.kept
    with pytest.raises(ConfigError, match="cannot be written"):
        open_engine(step, engine="auto", strict=True)


def test_where_a_choice_does_not_open_onnxruntime_goes_on_and_says_so(
    step: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "measured", Measuring(Measured({}, {"openvino": Timing(1.0, 1.0)}, {})))

    def refuses(self, artifact, threads, provider):
        raise RuntimeError("not today")

    monkeypatch.setattr(ENGINES["openvino"], "_load", refuses)
    with open_engine(step, engine="auto") as engine:
        assert engine.key == "onnxruntime"
        assert engine.fallback_reason is not None
        assert re.search(r"is refused by openvino.*: not today; onnxruntime [\d.]+ takes over$", engine.fallback_reason)
    with pytest.raises(ArtifactError, match="is refused by openvino: not today"):
        open_engine(step, engine="auto", strict=True)
