"""Blocks and threads: order, errors, nesting, and the BLAS setting they leave behind."""

import threading
import time

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from pcmref import blocks
from pcmref.errors import SettingError
from pcmref.nn.batch import BLOCK, Batch


def blas_threads():
    return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]


@pytest.mark.parametrize("workers", [1, 2, 3, None])
def test_results_come_in_order_from_single_threaded_blas(workers):
    before = blas_threads()
    results = blocks.map_blocks(lambda b: (b.start, set(blas_threads())), blocks.blocks_of(50, 3), workers)
    assert [start for start, _ in results] == list(range(0, 50, 3))
    assert {frozenset(threads) for _, threads in results} == {frozenset({1})}
    assert blas_threads() == before


def test_blocks_cover_everything_once():
    for n in (0, 1, 7, 8, 9):
        assert np.concatenate([np.arange(n)[b] for b in blocks.blocks_of(n, 4)] or [[]]).tolist() == list(range(n))


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
        blocks.map_blocks(fail, range(1000), workers)
    assert len(done) < 999 and blas_threads() == before
    assert blocks.map_blocks(lambda i: i, range(5), workers) == list(range(5))


def test_a_call_inside_a_block_does_not_wait_for_itself():
    inner = blocks.map_blocks(lambda i: blocks.map_blocks(lambda j: (i, j), range(3), 2), range(4), 2)
    assert inner == [[(i, j) for j in range(3)] for i in range(4)]


def test_two_users_at_once_leave_the_blas_setting_as_it_was():
    before = blas_threads()
    threads = [threading.Thread(target=blocks.map_blocks, args=(np.sqrt, range(200), 2)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert blas_threads() == before


def test_scratch_is_used_again_and_belongs_to_its_thread():
    first = blocks.scratch("test", (4, 5), np.float32)
    assert np.shares_memory(first, blocks.scratch("test", (10,), np.float32))
    assert not np.shares_memory(first, blocks.scratch("other", (10,), np.float32))
    assert not np.shares_memory(first, blocks.scratch("test", (10,), np.float64))
    elsewhere = []
    thread = threading.Thread(target=lambda: elsewhere.append(blocks.scratch("test", (4, 5), np.float32)))
    thread.start()
    thread.join()
    assert not np.shares_memory(first, elsewhere[0])


@pytest.mark.parametrize("workers", [0, -1, 1.5, True, "2"])
def test_a_bad_number_of_workers_is_refused(workers):
    with pytest.raises(SettingError, match="workers"):
        blocks.map_blocks(abs, [1], workers)


@pytest.mark.parametrize("n", [1, 2, 15, 16, 17, 128, 200, 1000])
def test_a_batch_is_cut_into_an_even_number_of_blocks_that_cover_it_once(n):
    blocks = Batch(n, None).blocks
    assert np.concatenate([np.arange(n)[block] for block in blocks]).tolist() == list(range(n))
    assert len(blocks) == 1 if n == 1 else len(blocks) % 2 == 0
    assert max(block.stop - block.start for block in blocks) <= BLOCK
