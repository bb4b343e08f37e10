"""Threads, in one place: fixed chunks of work on a thread pool, each with single-threaded BLAS.

The chunks decide the arithmetic, the pool only who does it when: a result is the same to the bit for any number of
workers. Small chunks keep what a step reads and writes in the cache of the core that works on it; inside a chunk the
matrix products run on one thread, because threads of ours and of the BLAS library would wait for each other.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import cache
from threading import Lock, local

from threadpoolctl import ThreadpoolController

from pcmref.errors import whole_number

_lock = Lock()
_inside = 0  # calls of single_threaded_blas that are running, in all threads
_limit = None
_thread = local()


@cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController()


@contextmanager
def single_threaded_blas():
    """Hold BLAS to one thread; the previous setting comes back when the last of overlapping users leaves."""
    global _inside, _limit
    with _lock:
        if _inside == 0:
            _limit = _blas().limit(limits=1, user_api="blas")
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                _limit.restore_original_limits()


@cache
def _pool(workers: int, process_id: int) -> ThreadPoolExecutor:
    """One pool per size and process: a forked child has none of its parent's threads."""
    return ThreadPoolExecutor(workers, thread_name_prefix="pcmref")


def count_workers(workers: int | None) -> int:
    """The number of threads meant by `workers`: None is one per core this process may use."""
    if workers is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return whole_number("workers", workers, 1)


def chunks_of(n: int, size: int) -> list[slice]:
    """The slices that cut 0..n into runs of `size`; the last may be shorter."""
    return [slice(i, min(i + size, n)) for i in range(0, n, size)]


def map_chunks(function: Callable, chunks: Iterable, workers: int | None = None) -> list:
    """[function(chunk) for chunk in chunks], on a pool of `workers` threads; results in the order of the chunks.

    A call from inside a chunk runs in place: its thread must not wait for a pool whose threads all wait.
    """
    workers, chunks = count_workers(workers), list(chunks)
    if workers == 1 or len(chunks) <= 1 or getattr(_thread, "in_chunk", False):
        with single_threaded_blas():
            return [function(chunk) for chunk in chunks]

    results, todo = [None] * len(chunks), deque(enumerate(chunks))

    def work():
        _thread.in_chunk = True
        try:
            while todo:
                try:
                    i, chunk = todo.popleft()
                except IndexError:  # another thread took the last one
                    return
                results[i] = function(chunk)
        except BaseException:
            todo.clear()  # nobody starts another chunk
            raise
        finally:
            _thread.in_chunk = False

    with single_threaded_blas():
        others = [_pool(workers - 1, os.getpid()).submit(work) for _ in range(min(workers, len(chunks)) - 1)]
        try:
            work()
        finally:
            wait(others)
        for other in others:
            other.result()
    return results
