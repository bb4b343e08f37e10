"""The pytest plug-in of the suite: its options, one test a case and dtype, and a failure where nothing was compared.

An installed pcmref registers it. From a checkout: `pytest -p pcmref.conformance.plugin --pyargs pcmref.conformance ...`.
Nothing of pcmref is imported before the suite runs, so that other test runs pay nothing.
"""

import shlex
from pathlib import Path

import pytest

_COMPARED = pytest.StashKey[list]()


def pytest_addoption(parser):
    group = parser.getgroup("pcmref", "pcmref: conformance of a backend")
    group.addoption("--pcmref-backend", metavar="package.module:Backend", help="the backend to check")
    group.addoption("--pcmref-dtype", metavar="DTYPE", help="only this dtype (default: all the backend has)")
    group.addoption("--pcmref-level", type=int, choices=(1, 2, 3), default=1, help="1: seconds, 2: a minute, 3: more")
    group.addoption("--pcmref-fuzz", type=float, metavar="SECONDS", help="look for inputs that fail, so long in each dtype")
    group.addoption("--pcmref-file", metavar="FILE", help="a golden file (default: the one that ships)")


def pytest_generate_tests(metafunc):
    option, asked = metafunc.config.option, {"golden", "key", "seconds"} & set(metafunc.fixturenames)
    if not asked or metafunc.definition.path.parent != Path(__file__).parent:  # another project's may have these names too
        return
    metafunc.config.stash.setdefault(_COMPARED, [])
    if not option.pcmref_backend:
        raise pytest.UsageError("say which backend to check: --pcmref-backend=package.module:Backend")
    backend, capabilities, dtypes, cases = _asked_for(option)
    rows = _ROWS[asked.pop()](option, capabilities, dtypes, cases)
    names, rows = ("backend", "capabilities", *rows[0]), [pytest.param(backend, capabilities, *r, id=i) for i, *r in rows[1]]
    metafunc.parametrize(names, rows)


def _asked_for(option):
    """(backend, capabilities, dtypes, stored cases); UsageError where backend, file or dtype are not what they should be."""
    from pcmref.errors import PcmrefError
    from pcmref.golden import file, special
    from pcmref.golden.backends import check_backend, load_backend
    from pcmref.golden.ops import DTYPES

    try:
        backend = load_backend(option.pcmref_backend)
        capabilities = check_backend(backend, option.pcmref_backend)
        cases = [g for g in file.read(option.pcmref_file or file.SHIPPED) if g.case.level <= option.pcmref_level]
    except PcmrefError as error:
        raise pytest.UsageError(str(error)) from error
    cases += [] if option.pcmref_file else special.cases(capabilities)
    dtypes = [option.pcmref_dtype] if option.pcmref_dtype else list(capabilities.dtypes)
    if not set(dtypes) <= set(DTYPES):
        raise pytest.UsageError(f"--pcmref-dtype must be one of {DTYPES}, got {option.pcmref_dtype!r}")
    return backend, capabilities, dtypes, cases


def _stored(option, capabilities, dtypes, cases):
    from pcmref.golden.check import count_tests

    n_tests = count_tests(cases) * len(dtypes)
    rows = [(f"{g.case.key}-{d}", g, d, n_tests) for d in dtypes for g in cases if g.case.dtype in (None, d)]
    return ("golden", "dtype", "n_tests"), rows


def _generated(option, capabilities, dtypes, cases):
    from pcmref.golden import covering
    from pcmref.golden.ops import OPS

    keys = [] if option.pcmref_file else covering.keys(capabilities.ops or OPS, dtypes, option.pcmref_level)
    return ("key",), [(key, key) for key in keys]


def _searches(option, capabilities, dtypes, cases):
    return ("dtype", "seconds"), [(d, d, option.pcmref_fuzz) for d in dtypes if option.pcmref_fuzz]


_ROWS = {"golden": _stored, "key": _generated, "seconds": _searches}  # of each test: ((argument, ...), [(id, value, ...)])


@pytest.fixture
def route(request) -> str:
    """The command that repeats a failure, but for --dtype and --case."""
    option = request.config.option
    words = ["pcmref", "golden", "check", option.pcmref_backend]
    return shlex.join(words + (["--file", option.pcmref_file] if option.pcmref_file else []))


@pytest.fixture
def compared(request) -> list:
    """The cases of this run in which something was compared."""
    return request.config.stash[_COMPARED]


def pytest_sessionfinish(session, exitstatus):
    config = session.config
    if exitstatus == pytest.ExitCode.OK and config.stash.get(_COMPARED, None) == [] and not config.option.collectonly:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter, config):
    if config.stash.get(_COMPARED, None) == [] and not config.option.collectonly:
        terminalreporter.write_line("pcmref: nothing was compared, which is a failure", red=True)
