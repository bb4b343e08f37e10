"""Borders and windows: what a convolution's matrix products are fed, gathered into memory that is used again."""

import weakref
from math import prod
from threading import local

import numpy as np
from numpy.lib.stride_tricks import as_strided

_thread = local()


def scratch(purpose: str, shape: tuple[int, ...], dtype) -> np.ndarray:
    """Uninitialised memory that this thread uses again at its next call for the same purpose.

    Fresh pages from the operating system cost more than the work on them. Nothing a function returns may live in here.
    """
    buffers = _thread.__dict__.setdefault("buffers", {})
    key, size = (purpose, np.dtype(dtype)), prod(shape)
    if key not in buffers or buffers[key].size < size:
        buffers[key] = np.empty(size, dtype)
    return buffers[key][:size].reshape(shape)


class Recycled:
    """Arrays whose memory the next pass uses again once the last view of an array is gone.

    Fresh pages cost a tenth to a sixth of a training step.
    """

    def __init__(self):
        self.free = {}

    def empty(self, shape: tuple[int, ...], dtype) -> np.ndarray:
        """Uninitialised memory: a buffer that came back, else a new one. It comes back when Python lets go of the array.

        Every view keeps the array that has no other array as its base, as `frombuffer` makes it, and with it the buffer.
        """
        free = self.free.setdefault((prod(shape), np.dtype(dtype)), [])
        buffer = free.pop() if free else np.empty(prod(shape), dtype)
        array = np.frombuffer(memoryview(buffer), dtype)
        weakref.finalize(array, free.append, buffer).atexit = False
        return array.reshape(shape)

    @classmethod
    def of_pass(cls, key) -> "Recycled":
        """What this thread's last pass left, if it had the same key (network, batch shape, dtype), else nothing yet."""
        if getattr(_thread, "key", None) != key:
            _thread.key, _thread.recycled = key, cls()
        return _thread.recycled


def padded(x: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """x with a border of zeros, `rows` above and below, `columns` left and right (in scratch memory)."""
    if not (rows or columns):
        return x
    out, inner = framed(x.shape, rows, columns, x.dtype)
    inner[...] = x
    return out


def framed(shape, rows: int, columns: int, dtype, stride: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """(memory with a border of zeros, every stride-th pixel of what is inside, to be written): zeros between these too."""
    n, h, w, c = shape
    out = scratch("framed", (n, h + 2 * rows, w + 2 * columns, c), dtype)
    out[:, :rows], out[:, rows + h :], out[:, :, :columns], out[:, :, columns + w :] = 0, 0, 0, 0
    inner = out[:, rows : rows + h, columns : columns + w]
    if stride > 1:
        inner[...] = 0
    return out, inner[:, ::stride, ::stride]


def columns(x: np.ndarray, k_w: int, stride: int) -> np.ndarray:
    """The k_w pixels under the kernel's width, side by side: [N, H, W, C] -> [N, H, W_out, k_w*C] (in scratch memory)."""
    if k_w == 1 and stride == 1:
        return x
    n, h, w, c = x.shape
    in_n, in_h, in_w, in_c = x.strides
    shape = (n, h, (w - k_w) // stride + 1, k_w, c)  # [N, H, W_out, k_w, C]
    # what sliding_window_view would give; that takes longer than the copy, and holds the interpreter's lock meanwhile
    out = scratch("columns", shape, x.dtype)
    out[...] = as_strided(x, shape, (in_n, in_h, in_w * stride, in_w, in_c))
    return out.reshape(*out.shape[:3], k_w * c)


def kernel_rows(cols: np.ndarray, k_h: int, stride: int):
    """For each row of the kernel, what it meets: k_h times [N, H_out*W_out, k_w*C] (a view, or in scratch memory)."""
    n, h, w_out, k = cols.shape
    h_out = (h - k_h) // stride + 1
    for i in range(k_h):
        rows = cols[:, i : i + (h_out - 1) * stride + 1 : stride]
        if stride > 1:
            np.copyto(packed := scratch("rows", rows.shape, rows.dtype), rows)
            rows = packed
        yield rows.reshape(n, h_out * w_out, k)
