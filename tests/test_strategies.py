"""Strategies: what they make fits the package, counterexamples shrink to something readable, hypothesis is imported late."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, find, given, settings
from hypothesis import strategies as st

from pcmref import Chip, ResNet, golden, strategies
from pcmref.errors import SettingError
from pcmref.golden.bounds import in_dtype
from pcmref.nn import functional as F
from pcmref.pcm.mapping import map_weights, unmap_weights

QUICK = settings(max_examples=15)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.longdouble])
@QUICK
@given(st.data())
def test_tensors_are_images_of_ordinary_numbers(dtype, data):
    x = data.draw(strategies.tensors(dtype=dtype))
    assert x.dtype == dtype and x.ndim == 4 and x.size and np.abs(x).max() <= 4
    assert np.abs(x[x != 0]).min(initial=1) >= strategies.SMALLEST


@pytest.mark.parametrize("strategy", [strategies.tensors, strategies.weights])
def test_numbers_are_not_eighths_only(strategy):
    """A false claim of exactness must be refuted: eighths alone are exact in float32, and mostly exact when scaled."""
    found = find(strategy(), lambda a: not np.array_equal(np.float32(a), a))
    assert found.size == 1

    def comes_back_exactly(w):
        return np.array_equal(unmap_weights(*map_weights(w)), w)

    assert not comes_back_exactly(
        find(strategies.weights(), lambda w: not comes_back_exactly(w), settings=settings(max_examples=2000))
    )


@given(strategies.convolutions())
def test_convolutions_have_an_output(case):
    x, w, stride, padding = case
    assert min(F.conv2d(x, w, stride, padding).shape) >= 1


@given(strategies.weights())
def test_weights_go_on_a_crossbar_and_back(w):
    assert w.ndim in (2, 4) and w.any()
    g_us, scale = map_weights(w)
    assert np.allclose(unmap_weights(g_us, scale), w, rtol=1e-12)


@QUICK
@given(strategies.networks(), strategies.tensors((2, 8, 8, 1)))
def test_networks_run(net, x):
    assert isinstance(net, ResNet)
    logits = net.forward(net.init(0, np.float64), np.repeat(x, net.in_channels, 3), workers=1)
    assert logits.shape == (2, net.num_classes)


def test_networks_are_of_every_kind():
    for block in ("basic", "bottleneck"):
        for shortcut in ("projection", "pad"):
            net = find(strategies.networks(), lambda n: (n.block, n.shortcut, len(n.widths)) == (block, shortcut, 2))  # noqa: B023
            assert net == ResNet(1, 2, (1, 1), (1, 1), shortcut=shortcut, block=block)


@given(strategies.networks())
def test_a_networks_state_says_what_network_it_is(net):
    if len(net.widths) == 1 and net.block == "basic":  # no shortcut changes the shape
        net = replace(net, shortcut="projection")
    assert ResNet.of_state(net.init()) == net


@QUICK
@given(strategies.chips(), strategies.times())
def test_chips_can_be_read_at_any_time(chip, t_s):
    assert isinstance(chip, Chip) and t_s >= 20
    assert all(np.isfinite(v).all() for v in chip.read(t_s, workers=1).values())


def test_counterexamples_are_readable():
    x = find(strategies.tensors(), lambda x: (x > 1).any())
    assert x.shape == (1, 1, 1, 1) and x.item() in (1.125, 2.0)
    assert find(strategies.times(), lambda t: t > 20) in (21.0, 60.0)
    assert find(strategies.networks(), lambda net: True) == ResNet(1, 2, (1,), (1,))


@pytest.mark.parametrize("module", ["pcmref.strategies", "pcmref.checks", "pcmref.golden"])
def test_hypothesis_and_scipy_stats_are_imported_only_when_used(module):
    code = f"import sys, {module}; assert not {{'hypothesis', 'scipy.stats', 'pytest'}} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_missing_hypothesis_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "hypothesis", None)
    with pytest.raises(ImportError, match="extra `test`"):
        strategies.tensors()


def test_the_ci_profile_is_deterministic():
    before = settings.get_current_profile_name()
    try:
        strategies.load_ci_profile(7)
        assert settings.default.derandomize and settings.default.max_examples == 7 and settings.default.deadline is None
    finally:
        settings.load_profile(before)


@pytest.mark.parametrize("op, dtype", [("conv2d", np.float32), ("softmax_cross_entropy", "bfloat16"), ("drift", float)])
def test_golden_cases_come_in_the_dtype_and_with_a_bound_that_right_results_keep(op, dtype):
    name = dtype if isinstance(dtype, str) else np.dtype(dtype).name
    declared, stored = golden.Capabilities(dtypes=(name,)), np.float32 if name == "bfloat16" else dtype

    @settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
    @given(strategies.cases(op, dtype))
    def keeps_it(one):
        case = one.case
        assert case.op == op and {v.dtype for v in case.inputs.values() if v.dtype.kind == "f"} == {np.dtype(stored)}
        with np.errstate(all="ignore"):
            results = golden.Reference().run(op, 1, case.inputs, case.noise, case.params)
        results = in_dtype({k: v.astype(stored) for k, v in results.items()}, name)
        assert golden.judge(one, results, declared, name).status in ("pass", "loose")

    keeps_it()


def test_a_wrong_kernel_is_found_by_golden_cases_and_shrinks():
    """It loses all channels but the first sixteen."""

    def wrong(one):
        x, w, b = (one.case.inputs[name] for name in "xwb")
        results = {"y": F.linear(x[:, :16], w[:, :16], b)}
        return golden.judge(one, results, golden.Capabilities(dtypes=("float32",)), "float32").status == "fail"

    found = find(strategies.cases("linear", "float32"), wrong, settings=settings(max_examples=200, database=None))
    assert found.case.inputs["x"].shape == (1, 17) and found.case.inputs["w"].shape == (1, 17)


@pytest.mark.parametrize(("op", "dtype"), [("linear", "int8"), ("read", "float16"), ("convolution", "float32")])
def test_what_has_no_golden_cases_is_refused(op, dtype):
    with pytest.raises(SettingError, match=f"cases of '{op}' in {dtype}: the operation is"):
        strategies.cases(op, dtype)
