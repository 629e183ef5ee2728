"""Mutations of bytes, JSON values and protobuf messages, all by the generator they are given."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np

Generator = np.random.Generator
T = TypeVar("T")

INTEGERS = (0, 1, -1, 2, 255, 256, 65535, 2**31 - 1, 2**31, -(2**31), 2**32, 2**63 - 1, -(2**63), 2**64, 10**30)
TEXTS = ("", " ", "\x1b[31mred", "a\nb", "\u202egnp", "\ufeff", "\x00", "x" * 5000, "../../etc/passwd", "NaN", "größe")
JSON_VALUES: tuple[Any, ...] = (
    *INTEGERS, *TEXTS, 0.0, -0.0, 1e-300, 1e300, -1e300, 0.5, 1e-9, float("nan"), float("inf"), -float("inf"),
    None, True, False, [], {}, [[]], [{}], {"a": {}}, ["x"] * 3, [0] * 500, [1, "a", None], "\ud800",
)  # fmt: skip


def chance(rng: Generator, share: float) -> bool:
    return bool(rng.random() < share)


def choose(rng: Generator, choices: Sequence[T]) -> T:
    return choices[int(rng.integers(len(choices)))]


def mutated_bytes(rng: Generator, content: bytes) -> bytes:
    """Flip, overwrite, cut, double, take out or put in a few bytes."""
    data = bytearray(content)
    for _ in range(int(rng.integers(1, 5))):
        if not data:
            return bytes(rng.bytes(20))
        at = int(rng.integers(len(data) if chance(rng, 0.5) else min(len(data), 300)))  # often in the header
        length = int(rng.integers(1, 1 + min(64, len(data) - at)))
        kind = int(rng.integers(7))
        if kind == 0:
            data[at] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            data[at : at + length] = rng.bytes(length)
        elif kind == 2:
            del data[at:]
        elif kind == 3:
            data[at:at] = data[at : at + length]
        elif kind == 4:
            del data[at : at + length]
        elif kind == 5:
            data[at : at + 4] = choose(rng, (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\0\0\0\x80"))
        else:
            data[at:at] = rng.bytes(length)
    return bytes(data)


def mutated_json(rng: Generator, value: dict[str, Any]) -> str:
    """Text of the value with one to three entries changed, removed, added or doubled, or broken as text."""
    raw = json.loads(json.dumps(value))
    for _ in range(int(rng.integers(1, 4))):
        _mutate_entry(rng, raw)
    text = json.dumps(raw, separators=(",", ":"))
    kind = rng.random()
    if kind < 0.04:
        return text[: int(rng.integers(len(text)))]
    if kind < 0.07:
        return "[" * int(choose(rng, (10, 1000, 100_000))) + text
    if kind < 0.10:
        key = choose(rng, list(value))
        return text[:-1] + f',"{key}":' + '{"a":' * int(choose(rng, (1, 50, 20_000))) + "1"
    if kind < 0.13:
        key = choose(rng, list(value))
        return text[:-1] + f',"{key}":{json.dumps(value[key])}}}'
    if kind < 0.16:
        return text.replace("1", choose(rng, ("9" * 5000, "1e999", "-1", "1.5", "0x1")), 1)
    if kind < 0.18:
        return choose(rng, ("[]", "null", "1", '"text"', "", "{}", "[" * 5000))
    return text


def _mutate_entry(rng: Generator, raw: Any) -> None:
    """Change one entry somewhere in nested tables and lists."""
    place = raw
    while True:
        keys: list[Any] = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            return
        key = choose(rng, keys)
        if not isinstance(place[key], (dict, list)) or not place[key] or chance(rng, 0.3):
            break
        place = place[key]
    kind = rng.random()
    if kind < 0.1:
        del place[key]
    elif kind < 0.15 and isinstance(place, dict):
        place[choose(rng, TEXTS)] = copy.deepcopy(choose(rng, JSON_VALUES))
    elif kind < 0.25 and isinstance(place[key], list):
        place[key] = place[key] * int(choose(rng, (2, 3, 1000)))
    elif kind < 0.5 and isinstance(place[key], (int, float)) and not isinstance(place[key], bool):
        place[key] = place[key] * choose(rng, (2, 10, 1000, -1)) + choose(rng, (0, 1, -1))
    else:
        place[key] = copy.deepcopy(choose(rng, JSON_VALUES))


Field = tuple[int, int, Any]
"""Number, wire type, and a number, bytes, or a list of fields."""


def parse_message(data: bytes, depth: int = 0) -> list[Field] | None:
    """Fields of a message, inner ones parsed where they can be; None where it is none."""
    fields: list[Field] = []
    at = 0
    while at < len(data):
        tag, at = _varint_at(data, at)
        number, wire = tag >> 3, tag & 7
        if at < 0 or not 0 < number < 2000 or wire not in (0, 2, 5, 1):
            return None
        if wire in (1, 5):
            size = 8 if wire == 1 else 4
            fields.append((number, wire, data[at : at + size]))
            at += size
            continue
        value, at = _varint_at(data, at)
        if at < 0:
            return None
        if wire == 0:
            fields.append((number, 0, value))
            continue
        payload = data[at : at + value]
        at += value
        inner = parse_message(payload, depth + 1) if 2 <= len(payload) < 4000 and depth < 12 else None
        fields.append((number, 2, payload if inner is None else inner))
    return fields if at == len(data) else None


def _varint_at(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data) and shift < 70:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
    return 0, -1


def varint(value: int) -> bytes:
    value &= 2**64 - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*out, value))


def message_bytes(fields: list[Field]) -> bytes:
    """The message of fields."""
    out = bytearray()
    for number, wire, value in fields:
        out += varint(number << 3 | wire)
        if wire == 0:
            out += varint(value)
        elif wire == 2:
            payload = message_bytes(value) if isinstance(value, list) else value
            out += varint(len(payload)) + payload
        else:
            out += value
    return bytes(out)


def mutate_message(rng: Generator, fields: list[Field]) -> None:
    """Change one field somewhere in nested messages, in place."""
    places = _places(fields)
    holder, at = choose(rng, places)
    number, wire, value = holder[at]
    kind = rng.random()
    if kind < 0.12:
        del holder[at]
    elif kind < 0.22:
        holder.insert(at, copy.deepcopy(holder[at]))
    elif kind < 0.30:
        other, there = choose(rng, places)
        holder[at] = copy.deepcopy(other[there])  # or a message might hold itself
    elif kind < 0.36:
        holder[at] = (int(rng.integers(1, 26)), wire, value)
    elif kind < 0.42:
        nested: list[Field] = [holder[at]]
        for _ in range(int(choose(rng, (2, 30, 90, 200)))):
            nested = [(choose(rng, (5, 6, 1, 7)), 2, nested)]
        holder[at] = nested[0]
    elif kind < 0.48:  # a tensor elsewhere
        holder.append((14, 0, 1))
        holder.append((13, 2, [(1, 2, b"location"), (2, 2, choose(rng, (b"/etc/passwd", b"x.bin", b"../x")))]))
    elif wire == 0:
        holder[at] = (number, 0, choose(rng, INTEGERS))
    elif wire == 2 and isinstance(value, list):
        holder[at] = (number, 2, mutated_bytes(rng, message_bytes(value)))
    elif wire == 2:
        holder[at] = (number, 2, mutated_bytes(rng, value) if chance(rng, 0.7) else value * 40)
    else:
        holder[at] = (number, wire, rng.bytes(len(value)))


def _places(fields: list[Field]) -> list[tuple[list[Field], int]]:
    found: list[tuple[list[Field], int]] = []
    todo = [fields]
    while todo:
        holder = todo.pop()
        found += [(holder, at) for at in range(len(holder))]
        todo += [value for _, _, value in holder if isinstance(value, list)]
    return found
