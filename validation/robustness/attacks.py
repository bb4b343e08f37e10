"""Attacks on files, each from a random generator and the sound bytes: (new bytes, whether the file must be refused).

Bytes that any format may suffer are here, with TOML and IDX; HDF5, .npz and tar have a file each.
"""

import gzip
import json
import random
import re
from collections.abc import Callable
from typing import NamedTuple

from validation.robustness import bombs


class Attacked(NamedTuple):
    """A hostile file: its bytes, whether it must be refused, and a field that the message must name, if one is known."""

    content: bytes
    refused: bool = False
    field: str = ""


class Payload:
    """What a pickle would run: it leaves a file."""

    def __init__(self, function: Callable, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


# ------------------------------------------------------------------------------------------------------- any file at all


def truncated(rng: random.Random, sound: bytes) -> bytes:
    return sound[: rng.choice((rng.randrange(len(sound)), rng.randrange(min(len(sound), 600)), 0))]


def flipped(rng: random.Random, sound: bytes) -> bytes:
    content = bytearray(sound)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 32))):
        bit = rng.randrange(8 * len(content))
        content[bit // 8] ^= 1 << bit % 8
    return bytes(content)


def overwritten(rng: random.Random, sound: bytes) -> bytes:
    """A number somewhere becomes an extreme one."""
    content, size = bytearray(sound), rng.choice((1, 2, 4, 8))
    at = rng.randrange(max(1, len(content) - size))
    value = rng.choice((0, 1, -1, 1 << (8 * size - 1), (1 << (8 * size - 1)) - 1, rng.getrandbits(8 * size)))
    content[at : at + size] = (value % (1 << 8 * size)).to_bytes(size, rng.choice(("little", "big")))
    return bytes(content)


def moved(rng: random.Random, sound: bytes) -> bytes:
    """A piece is cut out, doubled, blanked or put elsewhere."""
    a, b = sorted(rng.randrange(len(sound) + 1) for _ in range(2))
    b = min(b, a + rng.choice((1, 16, 512, 1 << 30)))
    piece, at = sound[a:b], rng.randrange(len(sound) + 1)
    without = sound[:a] + sound[b:]
    return rng.choice((without, sound[:at] + piece + sound[at:], sound[:a] + bytes(b - a) + sound[b:],
                       without[:at] + piece + without[at:]))  # fmt: skip


def foreign(rng: random.Random, sound: bytes) -> bytes:
    """Something else entirely, or something else behind or before the file."""
    rubbish = rng.choice((b"", b"\0" * 5000, b"PK\x05\x06" + bytes(18), b"\x89HDF\r\n\x1a\n" + bytes(99), b"\x93NUMPY\x01\0",
                          b"\x1f\x8b", b"\x80\x04.", b"#!/bin/sh\n", rng.randbytes(700),
                          "é\u2028 \ud7ff".encode()))  # fmt: skip
    return rng.choice((rubbish, sound + rubbish, rubbish + sound, sound + sound))


ANY = (truncated, flipped, flipped, overwritten, moved, foreign)

# ------------------------------------------------------------------------------------------------------------------ IDX


def idx(rng: random.Random, sound: bytes) -> Attacked:
    """A header that lies, or a bomb behind one that does not."""
    zipped = sound[:2] == b"\x1f\x8b"
    raw = gzip.decompress(sound) if zipped else sound
    ndim = raw[3]
    shape = [int.from_bytes(raw[4 + 4 * i : 8 + 4 * i], "big") for i in range(ndim)]
    kind = rng.choice(("huge", "negative", "zero", "type", "ndim", "bomb", "labels", "members", "cut"))
    if kind in ("huge", "negative", "zero"):
        i = rng.randrange(ndim)
        shape[i] = {"huge": rng.choice((1 << 31, (1 << 32) - 1, 1 << 20, shape[i] + 1)), "zero": 0,
                    "negative": (1 << 32) - rng.randrange(1, 9)}[kind]  # fmt: skip
        raw = raw[:4] + b"".join(n.to_bytes(4, "big") for n in shape) + raw[4 + 4 * ndim :]
    elif kind == "type":
        raw = raw[:2] + bytes([rng.choice((9, 11, 12, 13, 14, 0, 255))]) + raw[3:]
    elif kind == "ndim":
        raw = raw[:3] + bytes([rng.choice((0, 1, 2, 4, 200, 255)) if ndim == 3 else 3]) + raw[4:]
    elif kind == "bomb" and zipped:
        n = rng.choice((400_000, 4_000_000))
        header = raw[:4] + n.to_bytes(4, "big") + raw[8 : 4 + 4 * ndim]
        return Attacked(bombs.gz(n * (784 if ndim == 3 else 100), header), True)
    elif kind == "labels" and ndim == 1:
        at = rng.randrange(8, len(raw))
        raw = raw[:at] + bytes([rng.randrange(10, 256)]) + raw[at + 1 :]
    elif kind == "members" and zipped:  # gzip files may have several members: still one stream
        cut = rng.randrange(len(raw))
        return Attacked(gzip.compress(raw[:cut]) + gzip.compress(raw[cut:]))
    else:
        raw = raw[:-1]
    return Attacked(gzip.compress(raw) if zipped else raw, True)


# ----------------------------------------------------------------------------------------------------------------- TOML

HOSTILE_VALUES = ("-1", "0", "nan", "inf", "-inf", "1e999", "9" * 5000, "99999999999999999999", "true", '"words"', "[]", "{}",
                  "1979-05-27", "[1, [2, [3]]]", '""', '"../x"', '"a/b"', '"\\u0000"', '"\\u001b[2J"', '"."', '".."',
                  '"' + "n" * 300 + '"', "0x7fffffffffffffff", "1_0", "+0.0", "-0.0")  # fmt: skip


def toml(rng: random.Random, sound: bytes) -> Attacked:
    text = sound.decode()
    kind = rng.choice(("value", "value", "value", "key", "deep", "dotted", "lines", "tables", "encoding", "long"))
    if kind == "value":
        places = list(re.finditer(r"(?m)^(\w+) = (.*)$", text))
        place = rng.choice(places)
        return Attacked((text[: place.start(2)] + rng.choice(HOSTILE_VALUES) + text[place.end(2) :]).encode())
    if kind == "key":
        key = rng.choice(("unknown", "crop", "cutout", "batch_size", "validation", "__class__", "eta.a", '"a\\u001bb"', "case"))
        return Attacked(text.encode() + f"{key} = {rng.choice(HOSTILE_VALUES)}\n".encode())
    if kind == "deep":
        bracket = rng.choice(("[", "{a=", "[\n"))
        n = rng.choice((50, 400, 20_000))
        return Attacked(f"x = {bracket * n}1{']' * n if '[' in bracket else '}' * n}\n".encode() + sound, True)
    if kind == "dotted":
        n = rng.choice((100, 2_000, 200_000))
        return Attacked(sound + rng.choice(("{} = 1\n", "[{}]\n", "[[{}]]\n")).format(".".join("a" * n)).encode(), True)
    if kind == "lines":
        return Attacked(sound + b"".join(b"k%d.a.b.c.d = 1\n" % i for i in range(rng.choice((10, 30_000)))), True)
    if kind == "tables":
        table = rng.choice(("[stages]\n", "[[xfails]]\nop = 'conv2d'\n", "[stage]\n", "[[network]]\n", "[a]\n[a]\n"))
        return Attacked(sound + table.encode(), True)
    if kind == "encoding":
        bad = rng.choice((b"\xff\xfe", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\0", b"\xc0\xaf"))
        at = rng.choice((0, rng.randrange(len(sound))))
        return Attacked(sound[:at] + bad + sound[at:])
    return Attacked(sound + b"#" * rng.choice((2_000_000, 40_000_000)), True)


def mutated_json(rng: random.Random, value):
    """A JSON value with something in it replaced, removed or added."""
    if isinstance(value, dict | list) and value and rng.random() < 0.8:
        value = dict(value) if isinstance(value, dict) else list(value)
        key = rng.choice(list(value)) if isinstance(value, dict) else rng.randrange(len(value))
        kind = rng.random()
        if kind < 0.75:
            value[key] = mutated_json(rng, value[key])
        elif kind < 0.9:
            del value[key]
        elif isinstance(value, dict):
            value[rng.choice(("", "unknown", "\u001b[2J", "\ud800", "__class__", str(key) + "/x"))] = value[key]
        else:
            value.append(value[key])
        return value
    return rng.choice((None, True, False, -1, 0, 1, 7, 1 << 70, 10**400, 0.5, -0.5, 1e308, 5e-324, float("nan"), float("inf"),
                       "", "x", "\u001b]0;x\u0007", "\ud800", "\0", "é" * 200, [], {}, [[]], [None], {"a": []}, [1, 2, 3],
                       "9" * 50, "v1", "bound", "exact", "stat", -(10**20), 65_537, [10**400]))  # fmt: skip


def hostile_json(rng: random.Random, meta: dict) -> str:
    """The description with one to three changes; or what is hardly JSON."""
    if rng.random() < 0.07:
        return rng.choice(("[" * 100_000, "", "null", "3", '"x"', "{", '{"a":' * 5000, "NaN", '{"a": ' + "9" * 5000 + "}"))
    for _ in range(rng.choice((1, 1, 2, 3))):
        meta = mutated_json(rng, meta)
        if not isinstance(meta, dict):
            break
    return json.dumps(meta)


def changed_json(rng: random.Random, sound: bytes) -> Attacked:
    return Attacked(hostile_json(rng, json.loads(sound)).encode("utf-8", "surrogatepass"))
