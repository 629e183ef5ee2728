"""Mutated artifacts: loaded, opened by the engine, and given a frame. The mutation comes before the hashes are made."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from kd_edge import artifact
from kd_edge.artifact import GoldenClip, SigningKey, Trust, wire
from kd_edge.artifact.golden import pack_golden
from kd_edge.errors import KdEdgeError
from kd_edge.preprocess import Preprocess
from kd_edge.runtime import Recognizer
from tests.fuzz.mutate import (
    Generator,
    chance,
    choose,
    message_bytes,
    mutate_message,
    mutated_bytes,
    mutated_json,
    parse_message,
)
from tests.runtime.conftest import TinyStep, tiny_manifest

Parts = tuple[bytes, dict[str, Any] | None, dict[str, Any]]
"""Graph, golden clip and manifest."""
_SIGNED_SHARE, _FILE_SHARE, _GRAPH_SHARE = 0.15, 0.15, 0.55


class Artifacts:
    """Cases of artifacts.

    Args:
        folder: Where files are written.
        large: Also mutate the student that ships with kd-edge, which takes longer.
    """

    def __init__(self, folder: Path, *, large: bool = True) -> None:
        self._path = folder / "case.onnx"
        artifact.new_keys(folder / "fuzz.key")
        self._key, self._trust = SigningKey(folder / "fuzz.key"), Trust(folder / "fuzz.pub")
        self._parts = [_plain(), _with_golden(), _with_states(), _attached(), *([_bundled()] if large else [])]
        self._shares = np.array([4, 4, 4, 2, 0.5][: len(self._parts)])

    def __call__(self, rng: Generator) -> str:
        """Try one case: ``refused`` or ``accepted``."""
        if chance(rng, _SIGNED_SHARE):
            return self._signed(rng)
        self._path.write_bytes(self._file(rng))
        try:
            loaded = artifact.load(self._path)
            for name, span in loaded.attachments.items():
                assert len(loaded.attachment(name)) == span.length
            with Recognizer.load(loaded, self_test=choose(rng, ("accept", "raise", "off"))) as recognizer:
                spec = loaded.manifest.preprocess
                shape = (48, 64) if spec.channels == 1 else (48, 64, 3)
                frame = rng.integers(0, 255, shape).astype(loaded.manifest.dtype)
                for moment in (0, 100_000_000, 200_000_000):
                    recognizer.push(frame, moment)
        except KdEdgeError as error:
            return check_line(error)
        return "accepted"

    def _signed(self, rng: Generator) -> str:
        """A signed file, its bytes or its signature changed: what is accepted is what was signed."""
        graph, golden, manifest = self._parts[int(rng.integers(4))]
        content = _assembled(graph, None if golden is None else json.dumps(golden), json.dumps(manifest))
        bundle = self._key.sign(hashlib.sha256(content).hexdigest(), "case.onnx")
        if chance(rng, 0.4):
            bundle = mutated_json(rng, json.loads(bundle)).encode(errors="replace")
        elif chance(rng, 0.3):
            bundle = mutated_bytes(rng, bundle)
        whole = content + wire.signature_field(bundle)
        if chance(rng, 0.5):
            whole = mutated_bytes(rng, whole)
        self._path.write_bytes(whole)
        try:
            artifact.load(self._path, trust=self._trust)
        except KdEdgeError as error:
            return check_line(error)
        with self._path.open("rb") as file:
            assert whole[: wire.ends(file, self._path).end] == content, "a file that was not signed is trusted"
        return "accepted"

    def _file(self, rng: Generator) -> bytes:
        index = int(rng.choice(len(self._parts), p=self._shares / self._shares.sum()))
        graph, golden, manifest = self._parts[index]
        kind = rng.random()
        golden_text = None if golden is None else json.dumps(golden)
        text = json.dumps(manifest, separators=(",", ":"))
        if kind < _FILE_SHARE:
            return mutated_bytes(rng, _assembled(graph, golden_text, text))
        if kind < _GRAPH_SHARE:
            graph = _mutated_graph(rng, graph)
        elif golden is not None and chance(rng, 0.5):
            golden_text = mutated_json(rng, golden)
        else:
            text = mutated_json(rng, manifest)
        extra = b"".join(wire.entry(f"other{k}", "x" * 10) for k in range(choose(rng, (0, 0, 0, 3, 2000))))
        return _assembled(graph + extra, golden_text, text)


def check_line(error: KdEdgeError) -> str:
    """A refusal is one line that steers no terminal and fits one."""
    text = str(error)
    if not text.isprintable() or len(text) > 8000:
        raise AssertionError(f"not one line of text: {text[:200]!r}, {len(text)} characters")
    return "refused"


def _mutated_graph(rng: Generator, graph: bytes) -> bytes:
    if len(graph) > 100_000 or chance(rng, 0.1):
        return mutated_bytes(rng, graph)
    fields = parse_message(graph)
    assert fields is not None
    for _ in range(int(rng.integers(1, 4))):
        mutate_message(rng, fields)
    return message_bytes(fields)


def _assembled(graph: bytes, golden: str | None, manifest: str) -> bytes:
    """A file whose hashes are right, whatever is in it."""
    body = graph + (b"" if golden is None else wire.entry(artifact.GOLDEN_KEY, golden))
    text = manifest.replace('"sha256":""', f'"sha256":"{hashlib.sha256(body).hexdigest()}"', 1)
    own = hashlib.sha256(text.encode()).hexdigest()
    text = text.replace('"manifest_sha256":""', f'"manifest_sha256":"{own}"')
    return body + wire.entry(artifact.MANIFEST_KEY, text)


def _parts(step: TinyStep, graph: bytes, golden: GoldenClip | None) -> Parts:
    packed = None if golden is None else json.loads(pack_golden(golden))
    return graph, packed, step.manifest.model_dump(mode="json")


def _plain() -> Parts:
    step = TinyStep(tiny_manifest())
    return _parts(step, step.graph(), None)


def _attached() -> Parts:
    """A graph with a model of another engine behind it."""
    graph, golden, manifest = _plain()
    for name, content in (("ncnn.param", b"7767517\n0 0\n"), ("ncnn.bin", bytes(300))):
        graph += wire.attachment_head(name, len(content)) + content
    return graph, golden, manifest


def _with_golden() -> Parts:
    spec = Preprocess(resize_px=20, input_px=16, motion_offsets_ms=(0, 50))
    step = TinyStep(tiny_manifest(preprocess=spec))
    stamps = np.arange(9, dtype=np.int64) * 50_000_000
    frames = np.random.default_rng(0).integers(0, 255, (9, 24, 32), dtype=np.uint8)
    return _parts(step, step.graph(), GoldenClip(frames, stamps, np.zeros(3, np.float32), 1e9))


def _with_states() -> Parts:
    """A step graph that hands on a state."""
    step = TinyStep(tiny_manifest(temporal="tsm_causal", states=[{"name": "a", "shape": (2, 3)}]))
    model = onnx.load_model_from_string(step.graph())
    for values, name in ((model.graph.input, "state_in_0"), (model.graph.output, "state_out_0")):
        values.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 2, 3]))
    model.graph.node.append(helper.make_node("Identity", ["state_in_0"], ["state_out_0"]))
    return _parts(step, model.SerializeToString(), None)


def _bundled() -> Parts:
    content = artifact.BUNDLED.read_bytes()
    with artifact.BUNDLED.open("rb") as file:
        props, end, *_ = wire.layout(file, artifact.BUNDLED)
    golden = wire.entry(artifact.GOLDEN_KEY, props[artifact.GOLDEN_KEY])
    manifest = json.loads(props[artifact.MANIFEST_KEY]) | {"sha256": "", "manifest_sha256": ""}
    return content[:end].removesuffix(golden), json.loads(props[artifact.GOLDEN_KEY]), manifest
