"""Attacks on HDF5 files of pcmref whose checksum is right: what someone who knows the format would do."""

import hashlib
import io
import json
import random
import zlib
from functools import partial, wraps

import h5py
import numpy as np

from pcmref import store
from validation.robustness import bombs
from validation.robustness.attacks import flipped, hostile_json, moved, overwritten, truncated


def sealed(body: bytes) -> bytes:
    """The bytes after a user block that carries their right checksum."""
    header = store.MAGIC + b"sha256 " + hashlib.sha256(body).hexdigest().encode() + b"\n"
    return header.ljust(store.USER_BLOCK, b"\0") + body


def resealed(sound: bytes, change) -> bytes:
    """The file after `change(h5py.File)`, with the right checksum."""
    content = io.BytesIO(sound)
    with h5py.File(content, "r+") as file:
        change(file)
    return sealed(content.getvalue()[store.USER_BLOCK :])


def body_damaged(rng: random.Random, sound: bytes):
    """Bytes of the HDF5 part changed at random: what the HDF5 library itself makes of it."""
    body = rng.choice((flipped, overwritten, overwritten, moved, truncated))(rng, sound[store.USER_BLOCK :])
    return sealed(body), False


def on_file(refused: bool):
    """The attack that change(rng, h5py.File) makes, the checksum right again; whether it must be refused."""

    def attack(change):
        return wraps(change)(lambda rng, sound: (resealed(sound, partial(change, rng)), refused))

    return attack


@on_file(refused=False)
def description(rng: random.Random, file):
    """The JSON in `meta`, changed."""
    file.attrs["meta"] = hostile_json(rng, json.loads(file.attrs["meta"]))


def attribute(rng: random.Random, sound: bytes):
    """`kind` or `meta` of another type."""
    name = rng.choice(("kind", "meta"))
    value = rng.choice((3, 2.5, np.zeros(9), np.bytes_(b"network"), h5py.Empty("f4"), ["network", "chip"], True, "\x1b[2J" * 99,
                        np.array(b"\xff\xfe", "S2"), "n" * 60_000))  # fmt: skip

    def change(file):
        del file.attrs[name]
        if rng.random() < 0.8:
            file.attrs[name] = value

    return resealed(sound, change), not isinstance(value, str), name


def _names(file) -> list[str]:
    names = []
    file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
    return sorted(names)


@on_file(refused=True)
def links(rng: random.Random, file):
    """Links out of the tree or the file, cycles, depth, and objects that are neither data set nor group."""
    victim = rng.choice(_names(file))
    kind = rng.randrange(7)
    if kind < 3:
        del file[victim]
        file[victim] = (h5py.SoftLink(rng.choice(("/", "/fc.weight", "/nowhere"))),
                        h5py.ExternalLink(rng.choice(("/etc/passwd", "other.h5", "/dev/zero")), "/x"),
                        np.dtype("f8"))[kind]  # fmt: skip
    elif kind == 3:
        group = file.require_group("deep")
        group["again"] = group
    elif kind == 4:
        file.create_group("/".join("abcdefghijklmnop"))
    elif kind == 5:
        file["\x1b[2J"] = h5py.SoftLink("/")
    else:
        for i in range(30):
            file[f"many{i}"] = h5py.SoftLink(f"/many{(i + 1) % 30}")


WRONG_DTYPES = (  # what create_dataset is given; a reference is to the file's root
    lambda root: {"data": "words"},
    lambda root: {"data": np.array(["a", "b"], object), "dtype": h5py.string_dtype()},
    lambda root: {"data": np.zeros(2, [("a", "f4"), ("b", "i8")])},
    lambda root: {"data": np.zeros(3, complex)},
    lambda root: {"data": np.zeros(3, np.longdouble)},
    lambda root: {"data": np.void(b"opaque")},
    lambda root: {"data": h5py.Empty("f8")},
    lambda root: {"data": np.zeros(2, "S5")},
    lambda root: {"data": [root], "dtype": h5py.ref_dtype},
    lambda root: {"data": np.array([np.array([1, 2]), np.zeros(0, int)], object), "dtype": h5py.vlen_dtype(np.int32)},
    lambda root: {"shape": (2,), "dtype": np.dtype(("f8", (3,)))},
    lambda root: {"shape": (2,), "dtype": h5py.regionref_dtype},
)


@on_file(refused=True)
def dtypes(rng: random.Random, file):
    """A data set of text, records, references, variable length, or no content at all."""
    victim = rng.choice(_names(file))
    del file[victim]
    file.create_dataset(victim, **rng.choice(WRONG_DTYPES)(file.ref))


@on_file(refused=True)
def storage(rng: random.Random, file):
    """Declared sizes beyond what is stored, storage elsewhere, filters that are not ours."""
    victim = rng.choice(_names(file))
    dtype = file[victim].dtype
    del file[victim]
    kind = rng.randrange(9)
    if kind == 0:
        file.create_dataset(victim, (rng.choice((1 << 34, 1 << 50, 300_000_000)),), dtype, chunks=(4096,))
    elif kind == 1:
        file.create_dataset(victim, (60_000_000,), "u1", chunks=(1,))
    elif kind == 2:
        file.create_dataset(victim, (4,), "f8", external=[(rng.choice(("/dev/zero", "/etc/passwd", "x.h5")), 0, 32)])
    elif kind == 3:
        layout = h5py.VirtualLayout((4,), "f8")
        layout[:] = h5py.VirtualSource("/etc/passwd", "x", (4,))
        file.create_virtual_dataset(victim, layout)
    elif kind == 4:
        how = rng.choice(({"compression": "lzf"}, {"scaleoffset": 3}, {"fletcher32": True}))
        file.create_dataset(victim, data=np.zeros(5000, "f4"), chunks=(5000,), **how)
    elif kind == 5:  # a small chunk whose deflate stream does not end where the chunk does
        item = file.create_dataset(victim, (1000,), "f8", chunks=(1000,), compression="gzip")
        item.id.write_direct_chunk((0,), bombs.zlib_stream(400_000_000))
    elif kind == 6:  # a chunk far larger than the array
        item = file.create_dataset(victim, (2,), "f8", maxshape=(None,), chunks=(100_000_000,), compression="gzip")
        item.id.write_direct_chunk((0,), bombs.zlib_stream(800_000_000))
    elif kind == 7:  # a chunk that says it is stored without its filters
        item = file.create_dataset(victim, (1000,), "f8", chunks=(1000,), compression="gzip")
        item.id.write_direct_chunk((0,), bytes(rng.choice((8000, 100))), filter_mask=1)
    else:
        item = file.create_dataset(victim, (1000,), "f8", chunks=(1000,), compression="gzip", shuffle=True)
        item.id.write_direct_chunk((0,), rng.choice((b"\0", b"no deflate", zlib.compress(bytes(10)))))


@on_file(refused=True)
def declared(rng: random.Random, file):
    """An honest file that unpacks to far more than its size: 350 MB of zeros in 350 kB."""
    victim = rng.choice(_names(file))
    del file[victim]
    item = file.create_dataset(victim, (350, 1_000_000), "u1", chunks=(10, 1_000_000), compression="gzip", shuffle=True)
    for i in range(0, 350, 10):
        item.id.write_direct_chunk((i, 0), bombs.zlib_stream(10_000_000))


@on_file(refused=False)
@np.errstate(all="ignore")
def arrays(rng: random.Random, file):
    """Missing, extra and misshapen arrays; other dtypes; NaN and infinity."""
    kind = rng.choice(("missing", "extra", "shape", "dtype", "value", "value"))
    victim = rng.choice(_names(file))
    value = np.array(file[victim][()])
    if kind == "extra":
        file[rng.choice(("unknown", "state/unknown", "layer9.0.conv1.weight", "cases/x", "\x1b[2J"))] = value
        return
    del file[victim]
    if kind == "shape":
        value = rng.choice((value.ravel()[:-1], value[None], np.zeros((0, 3)), np.zeros((1,) * 12), np.zeros(())))
    elif kind == "dtype":
        value = value.astype(rng.choice(("i4", "u1", "?", "f2", "f4", ">f8", "u8")))
    elif kind == "value" and value.size:
        flat = value.astype(np.float64) if rng.random() < 0.5 or value.dtype.kind != "f" else value
        value = np.array(flat)
        value.flat[rng.randrange(value.size)] = rng.choice((np.nan, np.inf, -np.inf, -1.0, 1e300, -1e-300, 5e-324))
    if kind != "missing":
        file[victim] = value


ATTACKS = (*[body_damaged] * 3, *[description] * 2, attribute, links, dtypes, storage, declared, *[arrays] * 3)
