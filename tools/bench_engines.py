#!/usr/bin/env python3
"""Engines and precisions of one student against what the processor could do at best, all in turn in one run.

    python tools/bench_engines.py RUN --data DIR
    python tools/bench_engines.py --reference mobilenet_v3_small --input 112

The first exports a run's student in fp32 (with ncnn) and int8, then times both; the second times an untrained network,
float32 only. One thread. The floor of direct convolution is the student's multiplications and additions at the rate at
which this core does independent ones in registers (peak.c, compiled here, run before, between and after): float32 and,
where the core has VNNI, 8-bit integers. Winograd's way of convolving does fewer multiplications and may go below. Where
the speed-up over torch re-encoding whole clips comes from is told last: the algorithm (one frame instead of the window,
in torch), the engine (the same step in the fastest float32 engine), the precision (the fastest int8 engine).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch

from kd_edge import recipes
from kd_edge.artifact import Artifact
from kd_edge.engines import ENGINES, engine_name, open_engine
from kd_edge.errors import EngineError
from kd_edge.export import ExportProfile, export, make_reference_artifact
from kd_edge.export.report import count_flops
from kd_edge.machine import cpu_name
from kd_edge.models import StreamingStep
from kd_edge.models.saved import SavedStudent

Timed = dict[str, Callable[[], object]]
HERE = Path(__file__).parent


def peak(program: Path) -> tuple[float, float, float]:
    """Clock, GFLOP/s of float32 and Gop/s of 8-bit integers of one core, at this moment."""
    done = subprocess.run([program], check=True, capture_output=True, text=True)
    ghz, gflops, gops = map(float, done.stdout.split())
    return ghz, gflops, gops


def compiled(folder: Path) -> Path:
    """``peak.c`` as a program."""
    program = folder / "peak"
    subprocess.run(["cc", "-O2", "-march=native", HERE / "peak.c", "-o", program], check=True)
    return program


def in_turn(timed: Timed, rounds: int, seldom: int) -> dict[str, np.ndarray]:
    """Milliseconds of each, one after the other; those that begin with torch once in ``seldom`` rounds."""
    times: dict[str, list[float]] = {name: [] for name in timed}
    for turn in range(rounds):
        for name, run in timed.items():
            if turn % seldom == 0 or not name.startswith("torch"):
                started = time.perf_counter()
                run()
                times[name].append(1e3 * (time.perf_counter() - started))
    return {name: np.array(values) for name, values in times.items()}


def steps_of(made: Artifact, opened: ExitStack) -> Timed:
    """A step of an artifact on each engine that can run it."""
    steps: Timed = {}
    for name, kind in ENGINES.items():
        if kind.is_installed() and kind.unsuited(made) is None:
            try:
                binding = opened.enter_context(open_engine(made, engine=engine_name(name))).bind(1)
            except EngineError as error:  # it is installed, and this machine cannot run it
                print(f"{name} left out: {error.found}", file=sys.stderr)
                continue
            rng = np.random.default_rng(0)
            for array in binding.inputs.values():
                array[:] = rng.normal(size=array.shape)
            binding.run()
            steps[f"{made.manifest.precision}, {name}"] = binding.run
    return steps


def torch_of(student: SavedStudent) -> Timed:
    """The trained model on a whole window, and its streaming step, in eager torch."""
    spec = student.spec.preprocess
    clip = torch.randn(1, student.spec.segments, spec.input_channels, spec.input_px, spec.input_px)
    past = torch.randn(1, student.spec.segments - 1, student.model.backbone.feature_size)
    step = StreamingStep(student.model).eval()

    def whole() -> None:
        with torch.inference_mode():
            student.model(clip)

    def newest() -> None:
        with torch.inference_mode():
            step(clip[:, -1], past)

    return {"torch, whole window": whole, "torch, step": newest}


def shares(found: dict[str, np.ndarray]) -> None:
    """Print what the algorithm, the engine and the precision each give."""
    least = {name: float(times.min()) for name, times in found.items()}
    exact = min((name for name in least if name.startswith("fp32")), key=least.__getitem__)
    whole, step = least["torch, whole window"], least["torch, step"]
    print(f"torch, whole window -> torch, step: {whole / step:.2f} x (the algorithm)")
    print(f"torch, step -> {exact}: {step / least[exact]:.2f} x (the engine)")
    if quantised := [name for name in least if name.startswith("int8")]:
        best = min(quantised, key=least.__getitem__)
        print(f"{exact} -> {best}: {least[exact] / least[best]:.2f} x (the precision)")
        print(f"together {whole / least[best]:.1f} x")


def main() -> None:
    """Export, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", type=Path, help="a finished run directory")
    parser.add_argument("--data", type=Path, help="its recordings")
    parser.add_argument("--reference", help="backbone of an untrained network instead")
    parser.add_argument("--input", type=int, default=224, help="its input side")
    parser.add_argument("--rounds", type=int, default=100)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name, ExitStack() as opened:
        folder, student = Path(name), None
        timed: Timed = {}
        program = compiled(folder)
        if options.reference:
            made = make_reference_artifact(options.reference, options.input, folder / "fp32.onnx", carry=("ncnn",))
            print(f"{made.artifact.manifest.name}")
            flops = made.report.step_flops
            timed |= steps_of(made.artifact, opened)
        else:
            student = SavedStudent.load(options.run)
            spec = student.spec.preprocess
            flops, _ = count_flops(student.model, spec.input_channels, spec.input_px)
            timed |= torch_of(student)
            for precision, changes in (("fp32", ['carry=["ncnn"]']), ("int8", [])):
                profile = recipes.load(
                    "export", precision, ExportProfile, ["health=false", "stream_frames=0", *changes]
                )
                made = export(options.run, profile, folder / f"{precision}.onnx", data_root=options.data)
                timed |= steps_of(made.artifact, opened)
                print(precision, "artifact", f"{made.report.file_bytes / 1e6:.1f} MB; largest error by largest logit:")
                parity = made.artifact.manifest.parity
                assert parity is not None
                for stage in parity.stages[1:]:
                    size = parity.tolerance / profile.max_abs_error
                    print(f"  {stage.stage:<12}{stage.engine:<26}{stage.max_abs_error / size:.1e}, {stage.flips} flips")
        peaks = [peak(program)]
        found: dict[str, list[np.ndarray]] = {key: [] for key in timed}
        for _ in range(2):
            for key, times in in_turn(timed, options.rounds // 2, seldom=10).items():
                found[key].append(times)
            peaks.append(peak(program))
        ghz, gflops, gops = np.max(peaks, axis=0)
        floors = {"fp32": flops / gflops / 1e6, "int8": flops / gops / 1e6 if gops else float("nan")}
        print(f"{cpu_name()}, {ghz:.2f} GHz, one core at best {gflops:.0f} GFLOP/s, {gops:.0f} Gop/s of 8 bits")
        print(
            f"a step is {flops / 1e9:.2f} GFLOP: floor of direct convolution {floors['fp32']:.2f} ms, "
            f"int8 {floors['int8']:.2f}"
        )
        whole = {key: np.concatenate(parts) for key, parts in found.items()}
        base = whole["fp32, onnxruntime"]
        print(f"{'':<26}{'least':>9}{'median':>9} ms  of the floor   of ONNX Runtime fp32 (least)")
        for key, times in whole.items():
            floor = floors["int8" if key.startswith("int8") else "fp32"]
            share = f"{times.min() / floor:10.2f} x" if "whole" not in key else " " * 12
            print(f"{key:<26}{times.min():9.2f}{np.median(times):9.2f}   {share}{times.min() / base.min():14.3f} x")
        if student is not None:
            shares(whole)


if __name__ == "__main__":
    main()
