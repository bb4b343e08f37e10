"""The fast engine as golden's backend: right in every case, and wrong where a mistake is planted in the engine itself."""

import subprocess
import sys

import numpy as np
import pytest

import pcmref.fast
from pcmref.errors import ShapeError
from pcmref.fast import functional as F
from pcmref.golden import check, file, load_backend

GOLDEN = file.read()
DTYPES = ["float64", "float32"]


def test_every_operation_passes_in_every_case():
    backend = load_backend("pcmref.fast:Backend")
    verdicts = check(backend, GOLDEN, DTYPES)
    assert {v.status for v in verdicts} <= {"pass", "loose", "unsupported", "inconclusive"}
    passed = {(v.op, v.dtype) for v in verdicts if v.status in ("pass", "loose")}
    assert passed == {(op, dtype) for op in backend.capabilities().ops for dtype in DTYPES} and len(passed) == 22


def test_whole_networks_and_what_trains_them_are_judged():
    assert {"conv2d", "conv2d_backward", "resnet", "resnet_backward", "adabs"} <= set(
        load_backend("pcmref.fast:Backend").capabilities().ops
    )


def first_part(parts):
    return parts[0]


def uncentred(dy, x, scale, shift, out):
    out[...] = dy


@pytest.mark.parametrize(
    ("function", "mistake", "wrong"),
    [
        ("add_channels", lambda x, shift: None, {"basic_block", "resnet"}),
        ("merge_moments", first_part, {"batch_norm_train", "batch_norm_train_backward", "basic_block", "adabs"}),
        ("take_off", uncentred, {"batch_norm_train_backward", "basic_block_backward", "resnet_backward"}),
        ("relu", lambda x: None, {"relu", "basic_block", "resnet", "adabs"}),
        ("relu_backward", lambda dy, y, out: np.copyto(out, dy), {"relu_backward", "basic_block_backward", "resnet_backward"}),
    ],
)
def test_a_mistake_in_the_engine_is_caught(function, mistake, wrong, monkeypatch):
    monkeypatch.setattr(F, function, mistake)
    verdicts = check(pcmref.fast.Backend(), GOLDEN, ["float64"])
    assert wrong <= {v.op for v in verdicts if v.status in ("fail", "error")}
    assert not {"conv2d", "conv2d_backward"} & {v.op for v in verdicts if v.status in ("fail", "error")}


def test_one_value_a_channel_has_no_variance():
    one = np.ones((1, 1, 1, 2))
    with pytest.raises(ShapeError, match="more than one value"):
        pcmref.fast.Backend().batch_norm_train_backward(one, one, np.ones(2), 1e-5)


def test_the_package_and_the_engines_backend_do_without_golden():
    code = "import sys, pcmref, pcmref.fast; pcmref.fast.Backend(); assert not [n for n in sys.modules if 'golden' in n]"
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="Backends"):
        pcmref.fast.Backends  # noqa: B018
