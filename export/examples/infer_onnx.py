"""Run an artifact with numpy and onnxruntime alone: no kd-edge, no torch, no OpenCV.

    python export/examples/infer_onnx.py student.onnx

The script reads the manifest from the model file, feeds network inputs that are already preprocessed (here: constant
pictures) and keeps the features itself. Cameras, intensity windows, resizing and time stamps are left to
``kd_edge.runtime``, which does all of it.
"""

from __future__ import annotations

import json
import sys

import numpy as np
import onnxruntime as ort


def main(path: str) -> None:
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    manifest = json.loads(session.get_modelmeta().custom_metadata_map["kd_edge"])
    segments, size, labels = manifest["segments"], manifest["feature_size"], manifest["labels"]
    spacing = manifest["clip_seconds"] / segments
    channels, side = session.get_inputs()[0].shape[1:3]
    print(
        f"{manifest['name']}: {len(labels)} labels, one segment every {spacing:.3f} s, input {channels}x{side}x{side}"
    )

    past = np.zeros((1, segments - 1, size), dtype=np.float32)  # oldest first
    states = [np.zeros((1, *state["shape"]), dtype=np.float32) for state in manifest["states"]]  # of a causal TSM
    for segment in range(segments):
        frame = np.full((1, channels, side, side), segment / segments, dtype=np.float32)
        carried = {f"state_in_{i}": state for i, state in enumerate(states)}
        feature, logits, *states = session.run(None, {"frame": frame, "past": past, **carried})
        past = np.concatenate([past, feature[:, None]], axis=1)[:, 1:]  # the newest feature enters, the oldest leaves

    scaled = logits[0].astype(np.float64) / manifest["temperature"]
    probabilities = np.exp(scaled - scaled.max())
    probabilities /= probabilities.sum()
    best = int(probabilities.argmax())
    known = probabilities[best] >= manifest["unknown_threshold"]
    print(f"{labels[best] if known else 'unknown'} ({probabilities[best]:.0%})")


if __name__ == "__main__":
    main(sys.argv[1])
