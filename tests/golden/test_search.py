"""`golden fuzz`: what a search finds, shrinks, keeps and repeats, and where it may go."""

from math import prod

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from pcmref.cli import main
from pcmref.golden import design, file, make, search
from pcmref.golden.check import check_case
from pcmref.golden.ops import OPS
from pcmref.golden.reference import Reference
from pcmref.golden.search import WORK, fuzz
from pcmref.golden.search import _setting as fuzzed_setting
from tests.golden.test_design import CAPABILITIES, Wrong, _when


def test_a_search_finds_the_same_again_and_shrinks_it():
    backend = Wrong("conv2d", _when(lambda a: len(a["w"]) > 16))
    first, again = (fuzz(backend, CAPABILITIES, ["float32"], ["conv2d", "relu"], examples=40, seed=3) for _ in range(2))
    assert first.judged == again.judged and [g.case.key for g, _ in first.failures] == [g.case.key for g, _ in again.failures]
    ((golden, verdict),) = first.failures
    assert golden.case.inputs["w"].shape[0] == 17 and golden.case.inputs["x"].shape[3] == 1 and verdict.status == "fail"
    assert all(np.count_nonzero(v) == 1 for v in golden.case.inputs.values())
    assert [(v.op, n) for v, n in first.judged.items() if v.status == "fail"] == [("conv2d", 1)]  # not those it shrank by
    assert any(v.status == "pass" for v in first.judged) and "of 2 operations in 1 dtypes" in first.line()
    other = fuzz(backend, CAPABILITIES, ["float32"], ["relu"], examples=5, seed=4)
    assert not other.failures and other.judged.total() == 5


def test_a_search_of_convolutions_tries_what_has_fast_paths():
    """A 3x3 kernel of 32 or 64 channels: rare among all that may be drawn."""
    fast = _when(lambda a: a["w"].shape[1] in (32, 64) and a["w"].shape[2:] == (3, 3))
    for op in ("conv2d", "conv2d_backward"):
        assert fuzz(Wrong(op, fast), CAPABILITIES, ["float32"], [op], examples=100, seed=1).failures


def test_a_search_by_time_reduces_a_failure_for_some_time_only(monkeypatch):
    """Of few seconds the failure is kept as it is then; of none, as it was found."""
    sizes = {}
    for limit_s in (0.0, 60.0):
        monkeypatch.setattr(search, "REDUCING_S", limit_s)
        found = fuzz(
            Wrong("linear", _when(lambda a: len(a["w"]) > 16)), CAPABILITIES, ["float32"], ["linear"], seconds=60, seed=5
        )
        ((golden, verdict),) = found.failures
        assert verdict.status == "fail" and check_case(Reference(), CAPABILITIES, golden, "float32").status == "pass"
        sizes[limit_s] = sum(v.size for v in golden.case.inputs.values())
    assert sizes[0.0] > sizes[60.0]


@pytest.mark.parametrize("op", ["basic_block", "basic_block_backward", "conv2d", "resnet"])
def test_a_search_takes_no_more_memory_than_its_work_says(op):
    """Of 1 channel in and 5,000 out the second convolution of a block once had 225 million weights."""

    @given(fuzzed_setting(op))
    @settings(max_examples=300, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
    def arrays(setting):
        kernel = prod(setting.get("kernel", (3, 3)))
        o = setting.get("o", max(setting.get("widths", (1,))))
        weights = kernel * o * (max(o, setting["c"]) if "block" in op else setting.get("c", o))
        assert weights <= 9 * max(WORK), setting

    arrays()


@pytest.mark.parametrize("op", OPS)
def test_the_ends_of_a_search_are_parameters_that_pcmref_takes(op):
    """Of every factor that is no size: momentum 1 once was an end, which no optimiser of ours takes."""
    levels = design.levels(op, True)
    first = {factor: of[0] for factor, of in levels.items()}
    ends = {factor: ends for factor, ends in make.DATA["reach"].items() if factor in levels and isinstance(ends[0], float)}
    for factor, end in ((factor, end) for factor, ends in ends.items() if factor != "profile" for end in ends):
        case = make.make(op, "ends", first | {factor: end}, "float64")
        with np.errstate(all="ignore"):
            Reference().run(op, 1, case.inputs, case.noise, case.params)


def test_a_search_goes_beyond_the_design_with_numbers_of_all_bits():
    beyond = Wrong("linear", _when(lambda a: a["x"].shape[1] > 600))
    short = Wrong("clip_weights", lambda own, a: own(a | {"alpha": float(np.float32(a["alpha"]))}))
    for backend, dtype in ((beyond, "float32"), (short, "float64")):
        assert fuzz(backend, CAPABILITIES, [dtype], [backend.op], examples=100).failures, backend.op


def test_a_backend_that_raises_is_found_and_an_interrupt_is_handed_on():
    def crash(own, a):
        raise ValueError("no such kernel")

    def interrupt(own, a):
        raise KeyboardInterrupt

    found = fuzz(Wrong("relu", crash), CAPABILITIES, ["float64"], ["relu"], examples=5)
    assert [v.status for _, v in found.failures] == ["error"]
    with pytest.raises(KeyboardInterrupt):
        fuzz(Wrong("relu", interrupt), CAPABILITIES, ["float64"], ["relu"], examples=5)


def test_the_commands_keep_a_failure_and_repeat_it(tmp_path, monkeypatch, capsys):
    (tmp_path / "grown_backend.py").write_text(
        "from pcmref.golden import Reference\n\n\nclass Backend(Reference):\n"
        "    def relu(self, x):\n        y = super().relu(x)\n        return y * y.dtype.type(1 + (x.shape[-1] > 8))\n"
    )
    monkeypatch.chdir(tmp_path)
    out = str(tmp_path / "found.h5")
    assert main(["golden", "fuzz", "grown_backend:Backend", "--ops", "relu", "--examples", "30", "--out", out]) == 1
    text = capsys.readouterr().out
    assert "repeat: pcmref golden run" in text and "covered" in text
    folder = str(tmp_path / "nowhere" / "found.h5")  # where nothing could be kept, nothing is looked for
    assert main(["golden", "fuzz", "grown_backend:Backend", "--ops", "relu", "--examples", "30", "--out", folder]) == 2
    text = capsys.readouterr()
    assert text.out == "" and "nowhere" in text.err
    assert min(g.case.inputs["x"].shape[-1] for g in file.read(out)) == 9
    assert main(["golden", "run", out, "grown_backend:Backend"]) == 1
    assert main(["golden", "run", out, "pcmref.golden:Reference"]) == 0
    assert main(["golden", "run", "relu/v1/cover-float32-3", "pcmref.golden:Reference"]) == 0
    assert main(["golden", "fuzz", "pcmref.golden:Reference", "--ops", "relu", "--examples", "5", "--out", out]) == 2
    assert "--force replaces it" in capsys.readouterr().err  # what an earlier search has found stays
    fine = ["golden", "fuzz", "pcmref.golden:Reference", "--ops", "relu", "--examples", "5", "--out", out, "--force"]
    assert main(fine) == 0
    with pytest.raises(SystemExit, match="2"):
        main(["golden", "fuzz", "pcmref.golden:Reference", "--ops", "relu,nonsense"])
    assert "no operation is called 'nonsense'" in capsys.readouterr().err


PARTLY = """
from pcmref.golden import Reference, Unsupported

class Backend(Reference):
    def conv2d(self, x, w, stride, padding):
        if stride > 1:
            raise Unsupported("stride")
        return super().conv2d(x, w, stride, padding)
"""


def test_a_strict_search_fails_where_an_operation_is_partly_supported(tmp_path, monkeypatch):
    (tmp_path / "partly.py").write_text(PARTLY)
    monkeypatch.chdir(tmp_path)
    search = ["golden", "fuzz", "partly:Backend", "--ops", "conv2d", "--dtype", "float64", "--examples", "10"]
    assert [main([*search, *strict]) for strict in ([], ["--strict"])] == [0, 1]
