"""Streams of zeros that unpack to a thousand times their size, put together from one packed block."""

import struct
import zlib
from functools import cache

BLOCK = 1 << 20


@cache
def _packed_block() -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(bytes(BLOCK)) + packer.flush(zlib.Z_FULL_FLUSH)


def _raw(prefix: bytes, n_zeros: int) -> bytes:
    """A raw deflate stream of a prefix and n zeros."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    head = packer.compress(prefix) + packer.flush(zlib.Z_FULL_FLUSH)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    tail = packer.compress(bytes(n_zeros % BLOCK)) + packer.flush()
    return head + _packed_block() * (n_zeros // BLOCK) + tail


def _checksum(function, start: int, prefix: bytes, n_zeros: int) -> int:
    value = function(prefix, start)
    for _ in range(n_zeros // BLOCK):
        value = function(_ZEROS, value)
    return function(bytes(n_zeros % BLOCK), value)


_ZEROS = bytes(BLOCK)


@cache
def gz(n_zeros: int, prefix: bytes = b"") -> bytes:
    """A gzip file of a prefix and n zeros."""
    crc, size = _checksum(zlib.crc32, 0, prefix, n_zeros), (len(prefix) + n_zeros) & 0xFFFFFFFF
    return b"\x1f\x8b\x08\0\0\0\0\0\x02\xff" + _raw(prefix, n_zeros) + struct.pack("<II", crc, size)


@cache
def zlib_stream(n_zeros: int) -> bytes:
    """A zlib stream, as an HDF5 chunk is packed."""
    return b"\x78\xda" + _raw(b"", n_zeros) + struct.pack(">I", _checksum(zlib.adler32, 1, b"", n_zeros))


@cache
def zip_of(name: str, n_zeros: int, prefix: bytes = b"", said: int | None = None) -> bytes:
    """A zip archive with one deflated member; `said` is the size its directory claims, if not the true one."""
    packed, crc = _raw(prefix, n_zeros), _checksum(zlib.crc32, 0, prefix, n_zeros)
    size = len(prefix) + n_zeros if said is None else said
    fields = struct.pack("<HHHHHIII", 20, 0, 8, 0, 0x21, crc, len(packed), size)
    local = b"PK\x03\x04" + fields + struct.pack("<HH", len(name), 0) + name.encode() + packed
    central = b"PK\x01\x02" + struct.pack("<H", 20) + fields + struct.pack("<HHHHHII", len(name), 0, 0, 0, 0, 0, 0)
    central += name.encode()
    return local + central + b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 1, 1, len(central), len(local), 0)
