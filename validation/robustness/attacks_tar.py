"""Attacks on CIFAR-10 archives: tar headers, what is packed, and the pickles of the python version."""

import gzip
import io
import os
import pickle
import random
import tarfile
from functools import cache

import numpy as np

from validation.robustness import bombs
from validation.robustness.attacks import Payload, flipped, moved, overwritten, truncated

PAYLOAD = Payload(os.system, "touch harmed")


def _member(name: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size = size
    return member


def _members(sound: bytes) -> list[tuple[tarfile.TarInfo, bytes]]:
    with tarfile.open(fileobj=io.BytesIO(sound)) as archive:
        return [(m, archive.extractfile(m).read()) for m in archive if m.isfile()]


def _packed(members, rng: random.Random, form=tarfile.PAX_FORMAT) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=form) as archive:
        for member, data in members:
            archive.addfile(member, io.BytesIO(data))
    return gzip.compress(content.getvalue(), 1, mtime=0) if rng.random() < 0.8 else content.getvalue()


def inner(rng: random.Random, sound: bytes):
    """Random damage to the tar inside a sound gzip: tar has no checksum over its content."""
    damaged = rng.choice((flipped, overwritten, moved, truncated))(rng, gzip.decompress(sound))
    return gzip.compress(damaged, 1, mtime=0), False


def header_fields(rng: random.Random, sound: bytes):
    """A field of one header changed, its checksum right: sizes below zero and beyond all measure, strange types."""
    tar = bytearray(gzip.decompress(sound))
    heads = [i for i in range(0, len(tar) - 512, 512) if tar[i + 257 : i + 262] == b"ustar"]
    at = rng.choice(heads)
    kind = rng.randrange(4)
    if kind == 0:
        size = rng.choice((-1, -512, -(1 << 62), 1 << 40, (1 << 63) - 1, 1 << 28, 3 << 27))
        tar[at + 124 : at + 136] = (b"\xff" if size < 0 else b"\x80") + (size % (1 << 88)).to_bytes(11, "big")
    elif kind == 1:
        tar[at + 124 : at + 136] = rng.choice((b"77777777777\0", b"-0000000001\0", b"0000000000x\0", bytes(12)))
    elif kind == 2:
        tar[at + 156] = rng.choice(b"1234567xgLKSVDMNX\0\xff")
    else:
        name = rng.choice((b"../../data_batch_1.bin", b"/test_batch", b"\x1b[2J", b"\xff" * 90, b""))
        tar[at : at + 100] = name.ljust(100, b"\0")
    tar[at + 148 : at + 156] = b"        "
    tar[at + 148 : at + 156] = b"%06o\0 " % sum(tar[at : at + 512])
    return gzip.compress(bytes(tar), 1, mtime=0), False


def pax(rng: random.Random, sound: bytes):
    """Extended headers that change the size or describe holes."""
    members = _members(sound)
    member, _ = rng.choice(members)
    member.pax_headers = rng.choice((
        {"size": rng.choice(("-512", "-1", "1" * 30, "99999999999", "x", "1e3"))},
        {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "test_batch", "GNU.sparse.realsize": "9" * 12},
        {"GNU.sparse.map": ",".join(["0", "999999999999"] * 9), "GNU.sparse.size": "999999999999"},
        {"GNU.sparse.map": "0,x", "GNU.sparse.size": "-5"},
        {"GNU.sparse.size": "100000000000", "GNU.sparse.numblocks": "1"},
        {"path": "../" * 50 + "test_batch"}, {"mtime": "inf"}, {"hdrcharset": "BINARY", "path": "\udcff"},
        {"comment": "c" * 3_000_000},
    ))  # fmt: skip
    return _packed(members, rng), False


@cache
def _bomb(kind: int) -> bytes:
    if kind == 0:  # an unwanted member, a terabyte long; four hundred megabytes of it are there
        return bombs.gz(400_000_000, _member("readme.html", 1 << 40).tobuf())
    if kind == 1:  # wanted ones, sixty million bytes each and nothing but zeros
        content = b""
        for name in [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]:
            member = _member(name, 60_000_000 // 3073 * 3073)
            content += bombs.gz(member.size + -member.size % 512, member.tobuf())
        return content
    if kind == 2:  # an extended header of four hundred megabytes
        member = _member("x", 400_000_000)
        member.type = b"x"
        return bombs.gz(400_000_000, member.tobuf(tarfile.USTAR_FORMAT))
    return gzip.compress(_member("x", 0).tobuf() * 200_000, 1, mtime=0)  # two hundred thousand empty members


def unpacked(rng: random.Random, sound: bytes):
    """What is small packed and large unpacked."""
    return _bomb(rng.randrange(4)), True


def kinds(rng: random.Random, sound: bytes):
    """A batch that is a link, a device or a pipe."""
    members = _members(sound)
    i = rng.randrange(len(members))
    member = tarfile.TarInfo(members[i][0].name)
    member.type = rng.choice((tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE))
    member.linkname = rng.choice(("/etc/passwd", "../../x", member.name, members[i - 1][0].name))
    members[i] = (member, b"")
    return _packed(members, rng), not member.name.endswith("readme.html")


def records(rng: random.Random, sound: bytes):
    """Labels and lengths of batches that are otherwise sound."""
    members = _members(sound)
    i = rng.randrange(len(members))
    member, data = members[i]
    kind = rng.randrange(4)
    if kind == 0:
        data = data[: -rng.randrange(1, 3000)]
    elif kind == 1:
        data = bytes([rng.randrange(10, 256)]) + data[1:]
    elif kind == 2:
        data = b""
    else:
        del members[i]
        return _packed(members, rng), "readme" not in member.name
    member.size = len(data)
    members[i] = (member, data)
    return _packed(members, rng), False


PICKLES = (
    pickle.dumps({b"data": PAYLOAD, b"labels": [1]}, 2), pickle.dumps(PAYLOAD, 0), b"cos\nsystem\n(S'touch harmed'\ntR.",
    b"\x80\x02cbuiltins\neval\n(U\x011tR.", b"\x80\x02}.", b"\x80\x02}N" + b"2\x86" * 60 + b"K\x01s.",
    b"\x80\x05\x96" + (1 << 33).to_bytes(8, "little") + b".", b"\x80\x05\x96" + (400_000_000).to_bytes(8, "little") + b".",
    b"\x80\x04\x95" + (1 << 40).to_bytes(8, "little") + b"}.", b"\x80\x02" + b"N" * 3_000_000 + b".",
    b"\x80\x02" + b"(" * 3_000_000 + b".", b"\x80\x02" + b"]" + b"2a" * 1_000_000 + b".", b"\x80\x02r\xff\xff\xff\xff.",
    b"\x80\x04\x95" + (4_000_001).to_bytes(8, "little") + b"N" * 4_000_000 + b".",
    b"\x80\x02\x8b" + (1 << 30).to_bytes(4, "little") + b".", b"\x80\x02\x82\x01.", b"\x80\x02cnumpy\nndarray\n(dbR.",
    pickle.dumps({b"data": np.zeros((2, 3072), np.uint8), b"labels": [1, 12]}, 2),
    pickle.dumps({b"data": np.zeros((2, 3072), np.float64), b"labels": [1, 2]}, 2),
    pickle.dumps({b"data": np.zeros((2, 3071), np.uint8), b"labels": [1, 2]}, 2),
    pickle.dumps({b"data": np.zeros((3072, 2), np.uint8).T, b"labels": [1, True]}, 2),
    pickle.dumps({b"data": np.zeros((2, 3072), np.uint8), b"labels": [1]}, 4),
)  # fmt: skip


OPCODES = b"(.0123FIJKMNPQRSTUVX\x80\x82\x85\x86\x87\x88\x8a\x8c\x93abcdeghijlopqrstu}"


def pickled(rng: random.Random, sound: bytes):
    """A batch becomes a hostile pickle, or a sound one with some opcodes changed."""
    members = [m for m in _members(sound) if "readme" not in m[0].name]
    i = rng.randrange(len(members))
    member, data = members[i]
    must = rng.random() < 0.5
    if must:
        data = rng.choice(PICKLES)
    else:
        data = bytearray(data)
        for _ in range(rng.choice((1, 2, 5))):
            data[rng.randrange(min(len(data), 400))] = rng.choice(OPCODES)
        data = bytes(data)
    name = member.name.removesuffix(".bin")
    members[i] = (_member(name, len(data)), data)
    return _packed(members, rng), must


ATTACKS = (inner, header_fields, header_fields, pax, unpacked, kinds, records, pickled, pickled, pickled)
