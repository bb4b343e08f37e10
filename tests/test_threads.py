"""Chunks and threads: order, errors, nesting, and the BLAS setting they leave behind."""

import threading
import time

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from pcmref import threads
from pcmref.errors import SettingError


def blas_threads():
    return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]


@pytest.mark.parametrize("workers", [1, 2, 3, None])
def test_results_come_in_order_from_single_threaded_blas(workers):
    before = blas_threads()
    results = threads.map_chunks(lambda b: (b.start, set(blas_threads())), threads.chunks_of(50, 3), workers)
    assert [start for start, _ in results] == list(range(0, 50, 3))
    assert {frozenset(threads) for _, threads in results} == {frozenset({1})}
    assert blas_threads() == before


def test_chunks_cover_everything_once():
    for n in (0, 1, 7, 8, 9):
        assert np.concatenate([np.arange(n)[b] for b in threads.chunks_of(n, 4)] or [[]]).tolist() == list(range(n))


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_ends_the_work_and_reaches_the_caller(workers):
    done = []

    def fail(i):
        if i == 3:
            raise KeyError("three")
        time.sleep(0.001)
        done.append(i)

    before = blas_threads()
    with pytest.raises(KeyError, match="three"):
        threads.map_chunks(fail, range(1000), workers)
    assert len(done) < 999 and blas_threads() == before
    assert threads.map_chunks(lambda i: i, range(5), workers) == list(range(5))


def test_a_call_inside_a_chunk_does_not_wait_for_itself():
    inner = threads.map_chunks(lambda i: threads.map_chunks(lambda j: (i, j), range(3), 2), range(4), 2)
    assert inner == [[(i, j) for j in range(3)] for i in range(4)]


def test_two_users_at_once_leave_the_blas_setting_as_it_was():
    before = blas_threads()
    users = [threading.Thread(target=threads.map_chunks, args=(np.sqrt, range(200), 2)) for _ in range(4)]
    for thread in users:
        thread.start()
    for thread in users:
        thread.join()
    assert blas_threads() == before


@pytest.mark.parametrize("workers", [0, -1, 1.5, True, "2"])
def test_a_bad_number_of_workers_is_refused(workers):
    with pytest.raises(SettingError, match="workers"):
        threads.map_chunks(abs, [1], workers)
