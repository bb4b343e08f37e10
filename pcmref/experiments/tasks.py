"""Studies of many chips: a task a chip, on any executor, from what an earlier run has kept on; always the same result."""

from collections.abc import Callable
from concurrent.futures import Executor, as_completed

Measured = dict[int, list[float]]  # {chip: its accuracies, in the order of the study's conditions}


def measure_chips(
    measure: Callable[..., list[float]],
    n_chips: int,
    n_values: int,
    seed: int = 0,
    executor: Executor | None = None,
    progress: Callable[[int, int], None] | None = None,
    known: Measured | None = None,
    on_chip: Callable[[Measured], None] | None = None,
) -> Measured:
    """{chip k: measure(seed + k)}, n_values numbers each; without an executor measure(seed + k, report), one report a value.

    `progress(done, total)` counts values, first none. `on_chip` is given all that is measured after each chip,
    to be kept; what an earlier run of the same study kept comes back as `known`.
    """
    measured = dict(known or {})
    done = sum(map(len, measured.values()))

    def report(n: int = 1) -> None:
        nonlocal done
        done += n
        if progress is not None:
            progress(done, n_chips * n_values)

    def keep(k: int, values: list[float]) -> None:
        measured[k] = values
        if on_chip is not None:
            on_chip(measured)

    report(0)
    todo = [k for k in range(n_chips) if k not in measured]
    if executor is None:
        for k in todo:
            keep(k, measure(seed + k, report))
        return measured
    futures = {executor.submit(measure, seed + k): k for k in todo}
    try:
        for future in as_completed(futures):
            report(len(future.result()))
            keep(futures[future], future.result())
    finally:
        for future in futures:
            future.cancel()
    return measured
