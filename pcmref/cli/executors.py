"""Executors for a study: threads, processes, or the workers of a Dask cluster; all of them give the same result.

A study's tasks are calls of one method with a chip's number. The object that the method belongs to holds the network and the
images: it is sent to each worker once, the tasks themselves are a few hundred bytes.
"""

import os
import re
import signal
import warnings
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from threading import Thread

import numpy
import scipy

import pcmref
from pcmref.errors import MissingExtraError, SettingError
from pcmref.threads import count_workers

RETRIES = 10  # of a task whose worker died, with Dask


def open_executor(name: str, workers: int | None = None) -> Executor:
    """The executor meant by "threads", "processes" or "dask://HOST:PORT"; a context manager, as all executors are.

    `workers` is the number of threads or processes, None one per core; a cluster has its own. SettingError for another name or
    a scheduler that does not answer, MissingExtraError where Dask is needed and not installed.
    """
    if name == "threads":
        return ThreadPoolExecutor(count_workers(workers))
    if name == "processes":
        return Processes(count_workers(workers))
    address = re.fullmatch(r"dask://([^/\s]+:\d+)", name)
    if address is None:
        raise SettingError(f"--executor {name!r}: expected threads, processes or dask://HOST:PORT")
    return DaskWorkers(address[1])


_kept = None  # in a worker process: the function that all its tasks call


def _keep(function, ended) -> None:
    global _kept
    _kept = function
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends Ctrl-C to all: the study's process decides
    Thread(target=_end, args=(ended,), daemon=True).start()


def _end(ended) -> None:
    """End this worker, whatever it is at, when the other end of the pipe is closed: by a stopped study, or with its process."""
    ended.poll(None)
    os._exit(1)


def _call(*arguments):
    return _kept(*arguments)


class Processes(Executor):
    """A pool of processes that are sent one function, once each; `submit` takes that function only.

    Nobody waits for the tasks of a study that is stopped by an exception.
    """

    def __init__(self, workers: int):
        self.workers, self.function, self.pool, self.alive = workers, None, None, None

    def __exit__(self, kind, *_) -> None:
        if kind is not None and self.alive is not None:
            self.alive.close()
        self.shutdown(cancel_futures=kind is not None)

    def submit(self, function, /, *arguments) -> Future:
        if self.pool is None:
            self.function = function
            context = get_context("spawn")  # a fork would copy this process's threads in whatever state they are
            ended, self.alive = context.Pipe(duplex=False)
            self.pool = ProcessPoolExecutor(self.workers, context, initializer=_keep, initargs=(function, ended))
        if function != self.function:
            raise SettingError("this executor was opened for another study; open one for each")
        return self.pool.submit(_call, *arguments)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        if self.pool is not None:
            self.pool.shutdown(wait, cancel_futures=cancel_futures)


class DaskWorkers(Executor):
    """The workers of a Dask scheduler; it runs the tasks of a worker that died on another.

    What the tasks share is a task of its own that holds it: the scheduler can make it again wherever it is lost.
    """

    def __init__(self, address: str):
        try:
            from distributed import Client
        except ImportError as error:
            raise MissingExtraError("--executor dask://... needs Dask: pip install 'pcmref[scale]'") from error
        try:
            self.client = Client(address, timeout="20s", set_as_default=False)
        except OSError as error:
            raise SettingError(f"--executor dask://{address}: no Dask scheduler answers there: {error}") from error
        self.executor, self.shared = self.client.get_executor(retries=RETRIES, pure=False), None

    def submit(self, function, /, *arguments) -> Future:
        if self.shared is None:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Sending large graph")  # once, and on purpose
                self.shared = self.client.submit(_Shared, function, pure=False)
        return self.executor.submit(_call_shared, self.shared, versions(), *arguments)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self.executor.shutdown(wait and not cancel_futures)
        self.client.close()


class _Shared:
    def __init__(self, function):
        self.function = function


def versions() -> dict[str, str]:
    return {"pcmref": pcmref.__version__, "numpy": numpy.__version__, "scipy": scipy.__version__}


def _call_shared(shared: _Shared, wanted: dict, *arguments):
    if versions() != wanted:  # results would be equal to the bound only
        raise SettingError(f"a Dask worker has {versions()}, the study was started with {wanted}; make them the same")
    return shared.function(*arguments)
