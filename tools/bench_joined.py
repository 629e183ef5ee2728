#!/usr/bin/env python3
"""How a run's student does on subjects that were held out of its training side: clip by clip, and as streams.

    python tools/bench_joined.py RUN --subjects 7 --data DIR [--orders 3] [--smooth-ms 0 none]

Prints Markdown tables, for choosing between kinds of windows; the test side is left alone. ``none`` is the default,
one segment spacing.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from kd_edge.data import Split
from kd_edge.engines import open_engine
from kd_edge.evaluate.clips import clip_logits, clips_of, opened_model, recordings_of
from kd_edge.evaluate.joined import JoinedStream


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--subjects", nargs="+", required=True)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--orders", type=int, default=3)
    parser.add_argument("--smooth-ms", nargs="+", default=["0", "none"])
    given = parser.parse_args()
    with opened_model(given.run, given.data, as_stream=True) as artifact:
        dataset, split = recordings_of(artifact, given.data, None)
        held_out = tuple(s for s in (*split.train, *split.validation) if s.subject in given.subjects)
        chosen, modality = Split(split.name, (), held_out), artifact.manifest.modality
        with open_engine(artifact) as engine:
            right = [
                clip_logits(engine, clip, artifact.manifest).argmax() == sample.label
                for sample, clip in clips_of(dataset, chosen, modality, {})
            ]
        print(f"{len(right)} clips, window {artifact.manifest.clip_seconds:g} s: {np.mean(right):.1%} clip by clip\n")
        print("| a window counts | order | right at a clip's end | labels right | false changes a minute | delay, s |")
        print("|---|---|---|---|---|---|")
        for text in given.smooth_ms:
            for seed in (None, *range(given.orders)):
                with JoinedStream(artifact, 1, "onnxruntime", None if text == "none" else float(text)) as stream:
                    for sample, clip in clips_of(dataset, chosen, modality, {}, seed):
                        stream.watch(sample, clip)
                    score = stream.score()
                live = score.live
                print(
                    f"| {'one spacing' if text == 'none' else f'{text} ms'} | {'ids' if seed is None else seed} "
                    f"| {score.every.accuracy:.1%} | {live.accuracy:.1%} | {live.false_changes_per_minute:.1f} "
                    f"| {live.delay_seconds:.2f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
