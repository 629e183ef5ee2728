#!/usr/bin/env python3
"""Every backbone and head kd-edge ships, in every precision TensorRT runs, built by TensorRT-RTX without a GPU.

    python tools/check_builds.py [--input 112] [--backbone NAME]... [--part 1/2] > table.md

Weights are random, and the ranges of 8-bit integers come from noise: what is shown is that graphs of these shapes are
taken, how large plans are and how long builds take, not what networks compute. Shares are those of layers that
multiply, by the strongly typed network; what a built engine really runs only a GPU can tell.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx

from kd_edge import artifact, recipes
from kd_edge.artifact import Artifact
from kd_edge.engines import open_engine
from kd_edge.engines.tensorrt.builder import BuildSettings, build
from kd_edge.engines.tensorrt.library import load_library
from kd_edge.errors import ConfigError, KdEdgeError
from kd_edge.export import ExportProfile, make_reference_artifact
from kd_edge.export.precision import convert
from kd_edge.models import BACKBONES
from kd_edge.models.config import Temporal

HEADS: tuple[Temporal, ...] = ("tsn", "tconv", "trn", "tsm_causal")
PRECISIONS = ("fp32", "fp16", "int8-tensorrt")
CAPABILITIES = ((8, 6), (12, 0))
FEEDS = 2


def main() -> int:
    """Print the table; 1 where a graph does not build."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", type=int, default=112)
    parser.add_argument("--backbone", action="append", choices=BACKBONES)
    parser.add_argument("--part", default="1/1", help="which share of the backbones: 1/2 and 2/2 run beside each other")
    options = parser.parse_args()
    part, parts = map(int, options.part.split("/"))
    library = load_library("tensorrt-rtx")
    write = sys.stdout.write
    write("| backbone | head | precision | layers | SM86: MB, s | SM120: MB, s | half | 8 bits |\n")
    write("|---|---|---|---|---|---|---|---|\n")
    failed, count, operators = 0, 0, set()
    for backbone in (options.backbone or [*BACKBONES])[part - 1 :: parts]:
        for head in HEADS:
            with tempfile.TemporaryDirectory() as folder:
                for precision, made in graphs(backbone, head, options.input, Path(folder)):
                    operators |= {node.op_type for node in onnx.load(made.path).graph.node}
                    cells = [backbone, head, precision]
                    try:
                        built = [build(made, library, BuildSettings(), capability=sm) for sm in CAPABILITIES]
                    except KdEdgeError as error:
                        failed += 1
                        write(f"| {' | '.join(cells)} | {error.found} |\n")
                        continue
                    shares = built[0].figures.shares
                    cells += [str(shares.layers)]
                    cells += [f"{b.figures.plan_bytes / 1e6:.1f}, {b.figures.seconds:.1f}" for b in built]
                    cells += [f"{shares.share('half'):.0%}", f"{shares.share('int8'):.0%}"]
                    write(f"| {' | '.join(cells)} |\n")
                    sys.stdout.flush()
                    count += len(built)
    write(f"\n{count} builds by {library.name}, {failed} failed; operators: {', '.join(sorted(operators))}\n")
    return 1 if failed else 0


def graphs(backbone: str, head: Temporal, px: int, folder: Path) -> Iterator[tuple[str, Artifact]]:
    """The streaming step of an untrained student in every precision; none where the two do not go together."""
    try:
        made = make_reference_artifact(backbone, px, folder / "fp32.onnx", temporal=head).artifact
    except ConfigError:
        return
    proto, noise = onnx.load(made.path), feeds(made)
    for precision in PRECISIONS:
        path = folder / f"{precision}.onnx"
        if precision != "fp32":
            profile = recipes.load("export", precision, ExportProfile)
            graph = convert(stripped(proto), profile, noise).proto
            manifest = made.manifest.model_copy(update={"precision": precision})
            artifact.write(graph.SerializeToString(), manifest, None, path)
        yield precision, artifact.load(path)


def stripped(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The graph without its manifest."""
    bare = onnx.ModelProto()
    bare.CopyFrom(proto)
    del bare.metadata_props[:]
    bare.DiscardUnknownFields()
    return bare


def feeds(made: Artifact) -> list[dict[str, np.ndarray]]:
    """Runs of the step on noise."""
    rng = np.random.default_rng(0)
    with open_engine(made) as engine:
        return [
            {name: rng.standard_normal((1, *shape), dtype=np.float32) for name, shape in engine.tensors.inputs.items()}
            for _ in range(FEEDS)
        ]


if __name__ == "__main__":
    started = time.monotonic()
    code = main()
    sys.stderr.write(f"{time.monotonic() - started:.0f} s\n")
    sys.exit(code)
