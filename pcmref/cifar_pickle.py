"""CIFAR-10's python version: its pickles, by an unpickler that knows arrays, dtypes and plain containers and nothing else."""

import io
import pickle

import numpy as np

from pcmref.errors import FileError

PIXELS = 3 * 32 * 32


class _PickledDtype:
    """Stands in for numpy.dtype while a batch is read: remembers its code."""

    def __init__(self, code=None, *_):
        self.code = code

    def __setstate__(self, state):
        pass


class _PickledArray:
    """Stands in for numpy.ndarray while a batch is read: remembers shape, dtype and bytes, allocates nothing."""

    def __init__(self, *_):
        self.shape, self.code, self.columns_first, self.content = None, None, False, None

    def __setstate__(self, state):
        _version, self.shape, dtype, self.columns_first, self.content = state
        self.code = getattr(dtype, "code", None)

    @classmethod
    def of_buffer(cls, content, dtype, shape, order="C"):
        """As protocol 5 has arrays."""
        array = cls()
        array.__setstate__((1, shape, dtype, order == "F", content))
        return array

    def is_uint8(self) -> bool:
        return isinstance(self.code, bytes | str) and self.code in (b"u1", "u1")


class _Entries(dict):
    """A dict whose keys are texts: a key of nested tuples could take for ever to hash."""

    def __setitem__(self, key, value):
        if not isinstance(key, bytes | str):
            raise pickle.UnpicklingError("a dict's key is no text")
        super().__setitem__(key, value)


def _encoded(text, encoding):
    """As protocols 0 to 2 of Python 3 have byte strings."""
    if type(text) is not str or encoding not in ("latin1", b"latin1"):
        raise pickle.UnpicklingError("a byte string that is no latin1")
    return text.encode("latin1")


class _BatchUnpickler(pickle._Unpickler):  # the pure-Python one: its memo cannot be made to allocate by an index
    """Lists, tuples, dicts of texts, numbers, strings, and arrays as _PickledArray; any other name or opcode is refused."""

    dispatch = dict(pickle._Unpickler.dispatch)
    dispatch[pickle.EMPTY_DICT[0]] = lambda self: self.append(_Entries())
    dispatch[pickle.FRAME[0]] = lambda self: self.read(8)  # a frame is only a hint how to read
    for opcode in (pickle.EMPTY_SET, pickle.ADDITEMS, pickle.FROZENSET):  # these would hash what they are given
        del dispatch[opcode[0]]

    def load_dict(self):
        items, entries = self.pop_mark(), _Entries()
        for key, value in zip(items[::2], items[1::2], strict=True):
            entries[key] = value
        self.append(entries)

    def load_bytearray8(self):  # the library's would allocate what it declares
        self.append(self.read(int.from_bytes(self.read(8), "little")))

    dispatch[pickle.DICT[0]], dispatch[pickle.BYTEARRAY8[0]] = load_dict, load_bytearray8

    ADMITTED = {
        ("numpy.core.multiarray", "_reconstruct"): _PickledArray,
        ("numpy._core.multiarray", "_reconstruct"): _PickledArray,
        ("numpy", "ndarray"): _PickledArray,
        ("numpy", "dtype"): _PickledDtype,
        ("numpy.core.numeric", "_frombuffer"): _PickledArray.of_buffer,
        ("numpy._core.numeric", "_frombuffer"): _PickledArray.of_buffer,
        ("_codecs", "encode"): _encoded,
    }

    def find_class(self, module, name):
        if (module, name) not in self.ADMITTED:
            raise pickle.UnpicklingError(f"the pickle asks for {module}.{name}, which a CIFAR-10 batch does not need")
        return self.ADMITTED[module, name]


class _Counted(io.BytesIO):
    """Bytes that can be read from a limited number of times: every opcode of a pickle is a read."""

    n_reads = 0

    def read(self, size=-1, /):
        self.n_reads += 1
        if self.n_reads > 1_000_000:  # the official ones take about 100,000
            raise pickle.UnpicklingError("over a million opcodes")
        return super().read(size)


def read_batch(where: str, content: bytes) -> tuple[np.ndarray, np.ndarray]:
    """(pixels uint8 [N, 3072], labels int64 [N]) of one batch file of the python version; FileError, which names `where`."""
    try:
        batch = _BatchUnpickler(_Counted(content), encoding="bytes").load()
        entries = {k.decode() if isinstance(k, bytes) else k: v for k, v in batch.items()}
        data, labels = entries["data"], entries["labels"]
        if type(data) is not _PickledArray or type(data.content) is not bytes or not data.is_uint8():
            raise FileError(f"{where}: 'data' must be an array of uint8")
        n, rest = divmod(len(data.content), PIXELS)
        if rest or type(data.shape) is not tuple or [type(v) for v in data.shape] != [int, int] or data.shape != (n, PIXELS):
            raise FileError(f"{where}: 'data' must be [N, 3072] and have as many bytes, it has {len(data.content)}")
        if type(labels) is not list or not all(type(v) is int and 0 <= v < 10 for v in labels):
            raise FileError(f"{where}: 'labels' must be a list of whole numbers 0 to 9")
    except FileError:
        raise
    except Exception as error:  # whatever hostile bytes make the unpickler raise
        raise FileError(f"{where}: not a CIFAR-10 python batch: {type(error).__name__}: {error}") from error
    order = "F" if data.columns_first is True else "C"
    return np.frombuffer(data.content, np.uint8).reshape((n, PIXELS), order=order), np.array(labels, np.int64)
