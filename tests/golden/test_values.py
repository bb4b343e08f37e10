"""pcmref's own results on the shipped golden vectors: a route to every operation that shares no code with it.

The stored values came from loops-only twins, in decimals far beyond float64, each with a bound derived for it.
test_twin.py shows that the device's twin shares no code; the network's wrote the file and is gone, see GOLDEN.md.
"""

import pytest

from pcmref.golden import Reference, check, file
from pcmref.golden.ops import OPS

GOLDEN = file.read()


@pytest.mark.parametrize(
    "op",
    [
        pytest.param("conv2d", marks=pytest.mark.confirms(28, 31, 86)),
        pytest.param("conv2d_backward", marks=pytest.mark.confirms(29, 30)),
        pytest.param("batch_norm", marks=pytest.mark.confirms(43)),
        pytest.param("batch_norm_backward", marks=pytest.mark.confirms(44)),
        pytest.param("batch_norm_train", marks=pytest.mark.confirms(32, 35, 46)),
        pytest.param("batch_norm_train_backward", marks=pytest.mark.confirms(33)),
        pytest.param("relu", marks=pytest.mark.confirms(47)),
        pytest.param("relu_backward", marks=pytest.mark.confirms(48)),
        pytest.param("linear", marks=pytest.mark.confirms(49)),
        pytest.param("linear_backward", marks=pytest.mark.confirms(50)),
        pytest.param("global_avg_pool", marks=pytest.mark.confirms(51)),
        pytest.param("global_avg_pool_backward", marks=pytest.mark.confirms(52)),
        pytest.param("max_pool2d", marks=pytest.mark.confirms(53)),
        pytest.param("max_pool2d_backward", marks=pytest.mark.confirms(54)),
        pytest.param("softmax_cross_entropy", marks=pytest.mark.confirms(34, 55)),
        pytest.param("softmax_cross_entropy_backward", marks=pytest.mark.confirms(57)),
        pytest.param("basic_block", marks=pytest.mark.confirms(78, 79)),
        pytest.param("basic_block_backward", marks=pytest.mark.confirms(79, 80, 85)),
        pytest.param("resnet", marks=pytest.mark.confirms(78)),
        "resnet_backward",
        pytest.param("adabs", marks=pytest.mark.confirms(36, 79)),
        pytest.param("map", marks=pytest.mark.confirms(11, 12)),
        pytest.param("program", marks=pytest.mark.confirms(1, 2)),
        pytest.param("drift_exponent", marks=pytest.mark.confirms(3, 4, 5, 6)),
        pytest.param("drift", marks=pytest.mark.confirms(7)),
        pytest.param("read", marks=pytest.mark.confirms(8, 9, 10)),
        pytest.param("gdc", marks=pytest.mark.confirms(14, 15)),
        pytest.param("dac", marks=pytest.mark.confirms(24)),
        pytest.param("adc", marks=pytest.mark.confirms(64)),
        pytest.param("crossbar_mvm", marks=pytest.mark.confirms(25)),
        pytest.param("chip", marks=pytest.mark.confirms(13, 59, 60)),
        pytest.param("inject_weight_noise", marks=pytest.mark.confirms(37)),
        pytest.param("clip_weights", marks=pytest.mark.confirms(38)),
        pytest.param("sgd_step", marks=pytest.mark.confirms(39)),
        pytest.param("draws", marks=pytest.mark.confirms(41, 73, 74, 75, 76)),
    ],
)
def test_results_are_the_twins(op):
    """Every case of an operation, in float64."""
    cases = [golden for golden in GOLDEN if golden.case.op == op and golden.law is None]
    verdicts = check(Reference(), cases, ["float64"])
    assert verdicts and [v for v in verdicts if v.status != "pass"] == []


def test_every_operation_has_its_turn():
    (parameters,) = (mark.args[1] for mark in test_results_are_the_twins.pytestmark)
    assert [getattr(p, "values", [p])[0] for p in parameters] == list(OPS)
