"""One test a golden case and dtype, stored or generated: the verdict of `pcmref golden check`. One search a dtype."""

import shlex

import pytest

from pcmref.conformance.plugin import COMPARED
from pcmref.golden import design
from pcmref.golden.check import check_case
from pcmref.golden.report import line
from pcmref.golden.search import fuzz


@pytest.fixture
def route(request) -> str:
    """The command that repeats a failure, but for --dtype and --case."""
    option = request.config.option
    words = ["pcmref", "golden", "check", option.pcmref_backend]
    return shlex.join(words + (["--file", option.pcmref_file] if option.pcmref_file else []))


@pytest.fixture
def compared(request) -> list:
    """The cases of this run in which something was compared."""
    return request.config.stash[COMPARED]


@pytest.fixture
def accept(compared, route, record_property):
    """Record a verdict: skip where nothing was judged, fail where it failed."""

    def accept(verdict):
        record_property("status", verdict.status)
        record_property("times_bound", verdict.times_bound)
        if verdict.status in ("unsupported", "skip", "inconclusive"):
            pytest.skip(f"{verdict.status}: {verdict.message}")
        if verdict.status not in ("pass", "loose"):
            pytest.fail(line(verdict, route), pytrace=False)
        compared.append(verdict.case)

    return accept


def test_case(backend, capabilities, golden, dtype, n_tests, accept):
    accept(check_case(backend, capabilities, golden, dtype, n_tests))


def test_generated_case(backend, capabilities, key, accept):
    golden = design.golden(key, capabilities)
    if golden is None:
        pytest.skip("inconclusive: no bound says anything of it")
    accept(check_case(backend, capabilities, golden, golden.case.dtype, relate=False))


def test_fuzz(backend, capabilities, dtype, seconds, compared):
    found = fuzz(backend, capabilities, [dtype], seconds=seconds)
    if found.failures:
        pytest.fail("\n".join(line(verdict) for _, verdict in found.failures), pytrace=False)
    assert found.judged, "no case could be made"
    compared.append(found.line())
