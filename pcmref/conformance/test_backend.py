"""One test a golden case and dtype: the verdict of `pcmref golden check`."""

import pytest

from pcmref.golden.check import check_case
from pcmref.golden.report import line


def test_case(backend, capabilities, golden, dtype, n_tests, compared, route, record_property):
    verdict = check_case(backend, capabilities, golden, dtype, n_tests)
    record_property("status", verdict.status)
    record_property("times_bound", verdict.times_bound)
    if verdict.status in ("unsupported", "skip", "inconclusive"):
        pytest.skip(f"{verdict.status}: {verdict.message}")
    if verdict.status not in ("pass", "loose"):
        pytest.fail(line(verdict, route), pytrace=False)
    compared.append(verdict.case)
