"""The pytest suite: a correct backend passes, a wrong one fails in its case, comparing nothing fails."""

import subprocess
import sys

import pytest

from pcmref.golden import file

MODULE = """
from pcmref.golden import Capabilities, Reference

class Wrong(Reference):
    def linear(self, x, w, b):
        return x @ w.T

class Boundless(Reference):
    def capabilities(self):
        return Capabilities(libm_ulp=float("inf"))

class Empty(Reference):
    def capabilities(self):
        return Capabilities(ops=("relu",))
"""


@pytest.fixture
def suite(tmp_path):
    (tmp_path / "backends_of_test.py").write_text(MODULE)
    file.write(tmp_path / "few.h5", [g for g in file.read() if g.case.op in ("linear", "linear_backward")])

    def run(*options):
        plugin = ("-p", "pcmref.conformance.plugin", "-p", "no:cacheprovider", "--pyargs", "pcmref.conformance")
        command = [sys.executable, "-m", "pytest", *plugin, "--pcmref-file=few.h5", *options]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)

    return run


WORKERS = [(), ("-n", "2")]


@pytest.mark.parametrize("workers", WORKERS)
def test_pcmref_passes(suite, workers):
    done = suite("--pcmref-backend=pcmref.golden:Reference", *workers)
    assert done.returncode == 0 and "8 passed" in done.stdout, done.stdout


def test_a_wrong_operation_fails_in_its_cases(suite):
    done = suite("--pcmref-backend=backends_of_test:Wrong", "--pcmref-dtype=float64", "--pcmref-level=2")
    assert done.returncode == 1 and "3 failed, 3 passed" in done.stdout, done.stdout
    assert "FAIL linear/v1/plain float64: y[" in done.stdout and "times the bound" in done.stdout
    command = "repeat: pcmref golden check backends_of_test:Wrong --file few.h5 --dtype float64 --case linear/v1/plain"
    assert command in done.stdout


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (["--pcmref-backend=backends_of_test:Empty"], 1, "nothing was compared"),
        ([], 2, "--pcmref-backend"),
        (["--pcmref-backend=no_such_module:Backend"], 2, "no_such_module"),
        (["--pcmref-backend=backends_of_test:Boundless"], 2, "libm_ulp"),
        (["--pcmref-backend=pcmref.golden:Reference", "--pcmref-dtype=float8"], 2, "float8"),
    ],
)
def test_what_cannot_be_checked_does_not_pass(suite, options, status, message, workers):
    """With pytest-xdist, where processes collect and run, a usage error is theirs: pytest ends with another status."""
    done = suite(*options, *workers)
    expected = (status,) if not workers or status == 1 else (1, 2, 3, 4)
    assert done.returncode in expected and message in done.stdout + done.stderr, done.stdout


def test_one_process_that_compared_is_enough(suite, tmp_path):
    """With a process for every case, and more, some compare nothing."""
    done = suite("--pcmref-backend=pcmref.golden:Reference", "--pcmref-dtype=float64", "-n", "6", "-k", "plain")
    assert done.returncode == 0 and "passed" in done.stdout, done.stdout


@pytest.mark.parametrize("fixture", ["route", "compared", "accept", "golden", "key", "backend", "capabilities"])
def test_another_projects_tests_are_given_no_fixture(tmp_path, fixture):
    """Its test with a parameter that it forgot to define fails, and its run is not judged."""
    (tmp_path / "test_other.py").write_text(f"def test_right():\n    pass\n\n\ndef test_wrong({fixture}):\n    pass\n")
    command = [sys.executable, "-m", "pytest", "-p", "pcmref.conformance.plugin", "-p", "no:cacheprovider", "test_other.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert f"fixture '{fixture}' not found" in done.stdout and "1 passed, 1 error" in done.stdout, done.stdout
    assert "compared" not in done.stdout.splitlines()[-1]
