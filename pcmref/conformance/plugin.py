"""The pytest plug-in of the suite: its options, one test a case and dtype, and a failure where nothing was compared.

An installed pcmref registers it. From a checkout: `pytest -p pcmref.conformance.plugin --pyargs pcmref.conformance ...`.
Nothing of pcmref is imported before the suite runs, so that other test runs pay nothing.
"""

from pathlib import Path

import pytest

COMPARED = pytest.StashKey[list]()  # the cases of this run in which something was compared, once the suite is collected


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
    metafunc.config.stash.setdefault(COMPARED, [])
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
    from pcmref.golden import design
    from pcmref.golden.ops import OPS

    keys = [] if option.pcmref_file else design.keys(capabilities.ops or OPS, dtypes, option.pcmref_level)
    return ("key",), [(key, key) for key in keys]


def _searches(option, capabilities, dtypes, cases):
    return ("dtype", "seconds"), [(d, d, option.pcmref_fuzz) for d in dtypes if option.pcmref_fuzz]


_ROWS = {"golden": _stored, "key": _generated, "seconds": _searches}  # of each test: ((argument, ...), [(id, value, ...)])


def pytest_sessionfinish(session, exitstatus):
    config = session.config
    if hasattr(config, "workeroutput"):  # a process of pytest-xdist, which collects and runs: its parent judges
        config.workeroutput["pcmref compared"] = config.stash.get(COMPARED, None)
    elif exitstatus == pytest.ExitCode.OK and _compared_nothing(config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    compared = getattr(node, "workeroutput", {}).get("pcmref compared")
    if compared is not None:
        node.config.stash.setdefault(COMPARED, []).extend(compared)


def _compared_nothing(config) -> bool:
    """Whether the suite was asked to compare and did not; None, where it was not collected, is another project's run."""
    return config.stash.get(COMPARED, None) == [] and not config.option.collectonly


def pytest_terminal_summary(terminalreporter, config):
    if _compared_nothing(config):
        terminalreporter.write_line("pcmref: nothing was compared, which is a failure", red=True)
