"""Files: named arrays and a description in HDF5, written atomically, checked before they are believed.

Layout: a 512-byte user block, then an ordinary HDF5 file. The user block is ASCII: the line `pcmref-file 1`, the line
`sha256 <64 hex digits>` of every byte after the block, and zero bytes. The HDF5 root has the attributes `kind` (what
the file holds, "network" for one) and `meta` (a JSON object); every array is a data set, its name its path.

Reading trusts nothing: the checksum comes before the HDF5 library, then every object is checked (numbers only, no
links that leave the tree, no external or virtual storage, a declared size within the limit, packed chunks that unpack to
just their size) before an array is read. A file may unpack to 256 MiB, or to 100 times its own size where that is more.
"""

import contextlib
import errno
import hashlib
import io
import json
import mmap
import os
import re
import secrets
import stat
import sys
import tempfile
import tomllib
import zlib
from collections.abc import Iterator
from itertools import product
from math import prod
from pathlib import Path

import h5py
import numpy as np

from pcmref.errors import FileError, check_array

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

USER_BLOCK = 512
MAGIC = b"pcmref-file 1\n"
MAX_BYTES = 8 << 30  # all arrays of a file together, uncompressed, whatever the size of the file
MAX_ARRAYS = 10_000
_TEMPORARY = ".part"  # ends the name of a file that is being written
_COMPRESS_FROM = 4096  # bytes; below that the chunk index outweighs the gain
_FILTERS = [h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_DEFLATE]  # of chunked data sets, as `write` makes them


@contextlib.contextmanager
def replacing(path) -> Iterator[Path]:
    """A temporary path beside `path`; when the block ends well, it is flushed to disk and takes the name at once.

    However the writing ends, `path` holds the old content or the new, never a mixture. What a killed process has left is
    removed. A pipe, a device, and the process's own standard output keep their names and are written into. Raises FileError.
    """
    unchanged = "; nothing there was changed"
    with contextlib.ExitStack() as ends:
        try:
            stream = _stream(path)
            if stream is not None:
                ends.callback(os.close, stream)
                unchanged, temporary = "", Path(ends.enter_context(tempfile.TemporaryDirectory())) / "content"
                yield temporary
                for printed in (sys.stdout, sys.stderr):
                    if printed is not None:
                        printed.flush()  # comes before
                with open(stream, "wb", closefd=False) as file:
                    file.write(temporary.read_bytes())
                return
            path = Path(path).resolve()  # a link stays a link
            _remove_stale(path)
            temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{_TEMPORARY}")
            ends.callback(temporary.unlink, missing_ok=True)
            file = ends.enter_context(open(temporary, "xb"))
            lock(file)
            yield temporary
            os.fsync(file.fileno())
            if fcntl is None:
                file.close()  # Windows renames no open file
            temporary.replace(path)
            _sync_folder(path.parent)
        except (OSError, TypeError, ValueError, RuntimeError) as error:  # torch raises the last where a disk is full
            raise FileError(f"cannot write {path}: {_reason(error)}{unchanged}") from error


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _stream(path) -> int | None:
    """A handle to write into, where `path` is no regular file or is open as standard output or error; else None."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    for handle in (1, 2):
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(handle), status):
                return os.dup(handle)  # opened by its name, it would be written from its beginning
    return None if stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode) else os.open(path, os.O_WRONLY)


def lock(file) -> bool | None:
    """Lock an open file until it is closed: False where another holds the lock, None where there are no locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (OSError, AttributeError):  # a file system, or a system, without them
        return None
    return True


def _remove_stale(path: Path) -> None:
    """Remove the temporary files of `path` whose writers are dead."""
    for other in path.parent.iterdir():
        if re.fullmatch(re.escape(f".{path.name}.") + "[0-9a-f]{8}" + re.escape(_TEMPORARY), other.name):
            with contextlib.suppress(OSError), open(other, "rb") as file:
                if lock(file):
                    other.unlink()


def check_writable(path) -> None:
    """FileError where no file could be written at `path`; to be asked before the work for it."""
    try:
        if Path(path).is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a folder")
        if Path(path).is_file() or not os.path.exists(path):
            tempfile.TemporaryFile(dir=Path(path).resolve().parent).close()
    except (OSError, ValueError) as error:
        raise FileError(f"cannot write {path}: {_reason(error)}; nothing there was changed") from error


def write_text(path, text: str) -> None:
    """Write a text file in UTF-8, atomically; bytes of a file's name that are none are escaped. FileError."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def _sync_folder(folder: Path) -> None:
    if hasattr(os, "O_DIRECTORY"):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _digest_line(digest) -> bytes:
    """The line of the user block for the digest of all that follows the block."""
    return b"sha256 " + digest.hexdigest().encode() + b"\n"


def write(path, kind: str, meta: dict, arrays: dict[str, np.ndarray]) -> None:
    """Write named arrays (float16 to float64, integers, booleans) and a JSON-able description, atomically.

    The same content gives the same bytes. Raises FileError where a value cannot be stored or the disk refuses.
    """
    if not isinstance(meta, dict) or not isinstance(kind, str):
        raise FileError(f"{path}: the description must be a dict and the kind a text, got {meta!r} and {kind!r}")
    for name, array in arrays.items():
        check_array(f"{path}: array {name!r}", array, FileError)
        parts = name.split("/") if isinstance(name, str) else []
        if not 0 < len(parts) < 10 or not name.isprintable() or not {"", "."}.isdisjoint(parts):
            raise FileError(f"{path}: {name!r} cannot be an array's name: 1 to 9 printable parts between slashes, not '.'")
    arrays = {name: np.asarray(array) for name, array in arrays.items()}
    if len(arrays) + len({name.rpartition("/")[0] for name in arrays}) > MAX_ARRAYS:
        raise FileError(f"{path}: {len(arrays)} arrays in their groups are too many; {MAX_ARRAYS} are read")
    if sum(array.nbytes for array in arrays.values()) > MAX_BYTES:
        raise FileError(f"{path}: the arrays have over {MAX_BYTES} bytes, which nothing reads")
    for name, array in arrays.items():
        if array.dtype.kind not in "fiub" or array.dtype.itemsize > 8:
            raise FileError(f"{path}: array {name!r} has dtype {array.dtype}; only numbers of up to 64 bits are stored")
    try:
        description = json.dumps(meta, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise FileError(f"{path}: the description must hold plain JSON values: {error}") from error
    with replacing(path) as temporary:
        for compress_from in (_COMPRESS_FROM, np.inf):  # what packs so well that it would look like a bomb stays as it is
            content = io.BytesIO()  # not the file: where a disk is full, the HDF5 library ends the process
            with h5py.File(content, "w", userblock_size=USER_BLOCK) as file:
                file.attrs["kind"], file.attrs["meta"] = kind, description
                for name, array in sorted(arrays.items()):
                    packed = {"compression": "gzip", "shuffle": True} if array.nbytes >= compress_from else {}
                    file.create_dataset(name, data=array, **packed)
            header = MAGIC + _digest_line(hashlib.sha256(content.getbuffer()[USER_BLOCK:]))
            content.getbuffer()[: len(header)] = header
            temporary.write_bytes(content.getbuffer())
            if sum(array.nbytes for array in arrays.values()) <= size_limit(temporary):
                break


def size_limit(path, max_bytes: int = MAX_BYTES) -> int:
    """The bytes a file may unpack to: 256 MiB, or 100 times its own size where that is more, and never above max_bytes."""
    return min(max_bytes, max(256 << 20, 100 * os.path.getsize(path)))


def read_toml(path, max_bytes: int = 1 << 16) -> dict:
    """The tables of a small TOML file; FileError where it is none, or large, or has a line of over 1,000 characters.

    (A key of n dotted parts takes the standard library n^2 steps.)
    """
    path = Path(path)
    try:
        if not path.is_file() or path.stat().st_size > max_bytes:
            raise ValueError(f"no such file, or over {max_bytes} bytes")
        text = path.read_text(encoding="utf-8-sig")
        if max(map(len, text.splitlines()), default=0) > 1000:
            raise ValueError("a line has over 1,000 characters")
        return tomllib.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise FileError(f"{path}: cannot be read as TOML: {error}") from error


def read(path, kind: str, max_bytes: int = MAX_BYTES) -> tuple[dict, dict[str, np.ndarray]]:
    """(meta, arrays) of a file of ours that must hold a `kind`; FileError where it does not."""
    return read_any(path, max_bytes, kind)[1:]


def read_any(path, max_bytes: int = MAX_BYTES, expected: str | None = None) -> tuple[str, dict, dict[str, np.ndarray]]:
    """(kind, meta, arrays) of a file of ours; another kind than `expected` is refused before its arrays are read.

    Raises FileError, naming the file and the field, where anything is not as the format says.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise FileError(f"{path}: is no file")
    try:
        with open(path, "rb") as file:
            header, digest = file.read(USER_BLOCK), _digest_line(hashlib.file_digest(file, "sha256"))
        if not header.startswith(MAGIC):
            raise FileError(f"{path}: not a pcmref file (it must begin with {MAGIC.decode().strip()!r})")
        if header != (MAGIC + digest).ljust(USER_BLOCK, b"\0"):
            raise FileError(f"{path}: damaged, its checksum does not fit its content; get it again")
        _check_heaps(path)
        with h5py.File(path, "r", locking=False) as file:  # files are replaced, never changed; not all file systems lock
            found, meta = _attributes(path, file)
            if expected is not None and found != expected:
                raise FileError(f"{path}: the attribute 'kind' is {found[:40]!r}, expected {expected!r}")
            arrays = _checked_arrays(path, file, size_limit(path, max_bytes))
            return found, meta, {name: item[()] for name, item in arrays.items()}
    except FileError:
        raise
    except FileNotFoundError as error:
        raise FileError(f"{path}: no such file") from error
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, MemoryError, RecursionError) as error:
        raise FileError(f"{path}: cannot be read as HDF5: {error}") from error


def _check_heaps(path) -> None:
    """FileError for a heap of texts with a free entry of no size: the HDF5 library would never get past it."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        for heap in re.finditer(b"GCOL\x01", content):
            at, end = heap.start() + 16, heap.start() + int.from_bytes(content[heap.start() + 8 : heap.start() + 16], "little")
            while at + 16 <= end:
                index, size = (int.from_bytes(content[at + a : at + b], "little") for a, b in ((0, 2), (8, 16)))
                if index == size == 0:
                    raise FileError(f"{path}: the texts beside 'kind' and 'meta' are damaged; refused")
                at += 16 + -(-size // 8) * 8 if index else size


def _attributes(path, file: h5py.File) -> tuple[str, dict]:
    """The root's `kind` and `meta`."""
    for name in ("kind", "meta"):
        if name not in file.attrs or not isinstance(file.attrs[name], str):
            raise FileError(f"{path}: the attribute {name!r} is missing or not a text")
    try:
        meta = json.loads(file.attrs["meta"])
    except (ValueError, RecursionError) as error:
        raise FileError(f"{path}: the attribute 'meta' is not JSON: {error}") from error
    if not isinstance(meta, dict):
        raise FileError(f"{path}: the attribute 'meta' must be a JSON object")
    return file.attrs["kind"], meta


def _checked_arrays(path, file: h5py.File, max_bytes: int) -> dict[str, h5py.Dataset]:
    """All data sets by name, every one found safe to read and their sizes within the limit."""
    arrays, total, groups, seen = {}, 0, [""], {h5py.h5o.get_info(file["/"].id).addr}
    while groups:
        prefix = groups.pop(0)
        group = file[prefix] if prefix else file
        for key in group:
            name = f"{prefix}/{key}" if prefix else key
            plain = type(group.get(key, getlink=True)) is h5py.HardLink and name.count("/") <= 8
            item = group[key] if plain else None
            if item is None or (address := h5py.h5o.get_info(item.id).addr) in seen:
                raise FileError(f"{path}: {name!r} is a link, there twice or nested too deep; only plain arrays are read")
            seen.add(address)
            if isinstance(item, h5py.Group):
                groups.append(name)
            elif isinstance(item, h5py.Dataset):
                total += _checked_bytes(path, name, item)
                arrays[name] = item
            else:
                raise FileError(f"{path}: {name!r} is neither a data set nor a group")
            if total > max_bytes or len(arrays) + len(groups) > MAX_ARRAYS:
                raise FileError(f"{path}: declares over {max_bytes} bytes or {MAX_ARRAYS} arrays; refused")
    for name, item in arrays.items():
        if item.chunks:
            _check_chunks(path, name, item, prod(item.chunks) * item.dtype.itemsize)
    return arrays


def _checked_bytes(path, name: str, item: h5py.Dataset) -> int:
    """The size in bytes of a data set of numbers stored in the file itself."""
    if item.dtype.kind not in "fiub" or item.dtype.itemsize > 8 or item.shape is None:
        raise FileError(f"{path}: {name!r} has dtype {item.dtype}; only arrays of numbers of up to 64 bits are read")
    if item.is_virtual or item.external:
        raise FileError(f"{path}: {name!r} uses external or virtual storage; refused")
    n_bytes, stored, chunks = prod(item.shape) * item.dtype.itemsize, item.id.get_storage_size(), item.chunks
    n_chunks = prod(-(-n // c) for n, c in zip(item.shape, chunks, strict=True)) if chunks else 1
    if n_bytes > 1100 * stored or n_chunks > 100_000:  # deflate packs to no less than 1/1032
        raise FileError(f"{path}: {name!r} declares {n_bytes} bytes in {n_chunks} chunks, but stores {stored}; refused")
    filters = [p.get_filter(i)[0] for p in [item.id.get_create_plist()] for i in range(p.get_nfilters())]
    if filters != (_FILTERS if chunks else []) or (chunks and any(c > n for c, n in zip(chunks, item.shape, strict=True))):
        raise FileError(f"{path}: {name!r} uses unknown storage; refused")
    return n_bytes


def _check_chunks(path, name: str, item: h5py.Dataset, size: int) -> None:
    """FileError unless each chunk unpacks to `size` bytes: the HDF5 library would go on to wherever its stream ends."""
    for start in product(*(range(0, n, c) for n, c in zip(item.shape, item.chunks, strict=True))):
        at = item.id.get_chunk_info_by_coord(start)
        with contextlib.suppress(zlib.error):
            if at.byte_offset is not None and at.filter_mask == 0 and at.size <= os.path.getsize(path):
                stream, packed = zlib.decompressobj(), item.id.read_direct_chunk(start)[1]
                if len(stream.decompress(packed, size + 1)) == size and stream.eof:
                    continue
        raise FileError(f"{path}: {name!r} holds a chunk at {start} that does not unpack to {size} bytes; refused")
