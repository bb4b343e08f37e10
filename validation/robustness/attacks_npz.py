"""Attacks on .npz files: zip archives of .npy members, each a header of text and raw numbers."""

import io
import pickle
import random
import zipfile
from functools import cache

import numpy as np

from validation.robustness import bombs
from validation.robustness.attacks import Payload

PAYLOAD = Payload(open, "harmed", "w")


def _members(sound: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(sound)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _zip(members, method=zipfile.ZIP_STORED) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", method) as archive:
        for name, data in members:
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return content.getvalue()


def _npy(header: str | bytes, body: bytes = b"", version=b"\x01\x00") -> bytes:
    text = (header if isinstance(header, bytes) else header.encode()) + b"\n"
    return b"\x93NUMPY" + version + len(text).to_bytes(2 if version[0] == 1 else 4, "little") + text + body


def _saved(array) -> bytes:
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()


def _fields(descr: str, shape: str = "(8,)", order: str = "False") -> str:
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}"


SHAPES = ("(1000000000000,)", "(-1,)", "(-2, -4)", "(0, -1)", "(" + "1, " * 40 + ")", "(99999999999999999999999999, 0)",
          "(8.0,)", "8", "(True,)", "(" + "9" * 6000 + ",)")  # fmt: skip
DTYPES = ("'|O'", "('<f8', (-1,))", "'<M8[s]'", "'<U2'", "'|V8'", "'<f3'", "[]", "{'names': 3}", "[1, 2]", "''", "None")
HEADERS = (
    *(_fields("'<f8'", shape) for shape in SHAPES), *map(_fields, DTYPES), _fields("'<f8'", order="3"), _fields("8L", "(8L,)"),
    _fields("'<c16'", "(4,)"), _fields("[('a', '<f8'), ('b', '|O')]", "(1,)"), _fields("('<f8', (1000000, 1000000))", "()"),
    "{1: 2, 'a': 3}", "{}", "[]", "3", "", "__import__('os').system('touch harmed')", "(" * 3000, "[" * 9000, "-" * 9000 + "1",
    "'" * 3, "\\", "{'a': '\\ud800'}", "'\0'",
    "1" + "+1" * 4000, " {", "{'descr': '<f8',\n 'fortran_order': False, 'shape': (8,), }\n\n  x", b"\xff\xfe\x00",
)  # fmt: skip


def headers(rng: random.Random, sound: bytes):
    """A member's header says what it should not."""
    members = _members(sound)
    name, body = rng.choice(sorted(members)), bytes(64)
    version = rng.choice((b"\x01\x00", b"\x01\x00", b"\x02\x00", b"\x03\x00", b"\x09\x07"))
    members[name] = _npy(rng.choice(HEADERS), body, version)
    return _zip(members.items()), False


def pickles(rng: random.Random, sound: bytes):
    """An array of objects, which NumPy would unpickle."""
    members = _members(sound)
    name = rng.choice((*sorted(members), "more.npy"))
    content = io.BytesIO()
    np.save(content, np.array([PAYLOAD], object), allow_pickle=True)
    members[name] = rng.choice((content.getvalue(), pickle.dumps(PAYLOAD), pickle.dumps(PAYLOAD, 0)))
    return _zip(members.items()), True


def _header(n: int) -> bytes:
    return _npy(f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({n},), }}")


def unpacked(rng: random.Random, sound: bytes):
    """A member that unpacks to 400 MB, declared or not, or a header of that length, or a hundred thousand members."""
    kind = rng.randrange(4)
    n = 400_000_000
    if kind < 2:
        return bombs.zip_of("more.npy", n, _header(n), 128 if kind else None), True
    if kind == 2:
        return bombs.zip_of("more.npy", n, b"\x93NUMPY\x02\x00" + n.to_bytes(4, "little")), True
    return _many(), True


@cache
def _many() -> bytes:
    one = _saved(np.zeros(1))
    return _zip((f"layer{i}.0.conv1.weight.npy", one) for i in range(1, 40_000))


def names(rng: random.Random, sound: bytes):
    """Members twice, under strange names, or missing."""
    members = list(_members(sound).items())
    kind = rng.randrange(4)
    if kind == 0:
        name, data = rng.choice(members)
        twin = rng.choice((name, name.removesuffix(".npy")))
        return _zip([*members, (twin, _saved(np.zeros(3)))]), True
    if kind == 1:
        del members[rng.randrange(len(members))]
    elif kind == 2:
        i = rng.randrange(len(members))
        strange = ("../../x.npy", "/etc/passwd", "\x1b[2J.npy", "x" * 5000, ".npy", "é\u202e.npy", "a/b/c.npy")
        members[i] = (rng.choice(strange), members[i][1])
    else:
        members.append(("unknown.npy", _saved(np.zeros(3))))
    return _zip(members), False


def fields(rng: random.Random, sound: bytes):
    """Fields of the zip structure: methods, flags, sizes, offsets, with all checks right otherwise."""
    content = bytearray(_zip(_members(sound).items(), rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))))
    marks = {b"PK\x01\x02": (8, 10, 20, 24, 28, 30, 32, 34, 38, 42), b"PK\x03\x04": (6, 8, 18, 22, 26, 28),
             b"PK\x05\x06": (4, 8, 10, 12, 16, 20)}  # fmt: skip
    for _ in range(rng.choice((1, 2))):
        mark = rng.choice(list(marks))
        at = [i for i in range(len(content) - 50) if content[i : i + 4] == mark] or [content.rindex(b"PK\x05\x06")]
        place = rng.choice(at) + rng.choice(marks[mark])
        content[place : place + 2] = rng.choice((0, 1, 8, 9, 12, 14, 99, 0xFFFF, rng.getrandbits(16))).to_bytes(2, "little")
    return bytes(content), False


def methods(rng: random.Random, sound: bytes):
    """Compressed with what NumPy does not write."""
    method = rng.choice((zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
    content = bytearray(_zip(_members(sound).items(), method))
    if rng.random() < 0.7:
        at = rng.randrange(30, 200)
        content[at] ^= 1 << rng.randrange(8)
    return bytes(content), False


def values(rng: random.Random, sound: bytes):
    """NaN, infinity, other dtypes and shapes in an archive that is sound."""
    members = _members(sound)
    name = rng.choice(sorted(members))
    array = np.load(io.BytesIO(members[name]))
    kind = rng.choice(("value", "shape", "dtype"))
    if kind == "value" and array.size:
        array = array.astype(np.float64) if array.dtype.kind != "f" else array
        array.flat[rng.randrange(array.size)] = rng.choice((np.nan, np.inf, -np.inf, -1.0))
    elif kind == "shape":
        array = rng.choice((array.ravel()[:-1], array[None], np.zeros((0, 3)), np.zeros((1,) * 9), np.float64(3), array.T))
    else:
        with np.errstate(all="ignore"):
            array = array.astype(rng.choice(("i4", "u1", "?", "f2", "f8", ">f4", "u8", "i8", np.longdouble)))
    members[name] = _saved(array)
    return _zip(members.items()), False


ATTACKS = (headers, headers, pickles, unpacked, names, fields, fields, methods, values, values)
