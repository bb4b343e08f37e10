"""Special values: mistakes are noticed, what is declared is allowed and nothing else, PyTorch does what the table says."""

from dataclasses import replace

import numpy as np
import pytest

from pcmref.golden import Capabilities, Reference, check, special
from pcmref.golden.numbers import LARGEST, TINY
from pcmref.golden.ops import OPS
from tests.golden.right_backends import Sampled

BOTH = Capabilities(dtypes=("float64", "float32"))
FLUSHED = replace(BOTH, flush_denormals=True)


def failed(change, capabilities=BOTH, op=None) -> set[str]:
    """{op/case} that fail where every result y of an operation is `change(y, inputs, smallest normal number)`."""

    class Planted(Reference):
        def capabilities(self):
            return capabilities

        def run(self, name, version, inputs, noise, params):
            out = super().run(name, version, inputs, noise, params)
            if op not in (None, name):
                return out
            tiny = TINY[next(iter(inputs.values())).dtype.name]
            return {k: np.asarray(change(np.array(v), inputs, tiny), v.dtype) for k, v in out.items()}

    made = [g for g in special.cases(capabilities) if op in (None, g.case.op)]
    verdicts = check(Planted(), made, list(capabilities.dtypes))
    assert made and {v.status for v in verdicts} <= {"pass", "loose", "fail", "unsupported"}
    return {f"{v.op}/{v.case.rsplit('/', 1)[1]}" for v in verdicts if v.status == "fail"}


def below(limit):
    return lambda y, inputs, tiny: np.where(np.abs(y) < limit * tiny, 0, y)


def test_what_is_right_passes_in_every_dtype():
    assert failed(lambda y, inputs, tiny: y) == failed(lambda y, inputs, tiny: y, FLUSHED) == set()
    made = special.cases(Capabilities(dtypes=("float64", "float32", "float16", "bfloat16")))
    assert len({(g.case.key, g.case.dtype) for g in made}) == len(made) > 150


@pytest.mark.parametrize(
    "op", ["relu", "max_pool2d", "conv2d", "linear", "batch_norm", "global_avg_pool", "read", "clip_weights"]
)
def test_a_swallowed_nan_is_noticed(op):
    assert f"{op}/special" in failed(lambda y, inputs, tiny: np.nan_to_num(y, nan=0.0, posinf=np.inf, neginf=-np.inf), op=op)


def test_infinities_are_compared_by_sign():
    assert {"relu/special", "linear/special", "linear/overflow"} <= failed(lambda y, i, tiny: np.where(np.isinf(y), -y, y))
    assert {"linear/overflow", "conv2d/overflow"} <= failed(
        lambda y, i, tiny: np.clip(y, -LARGEST[y.dtype.name], LARGEST[y.dtype.name])
    )
    assert "linear/overflow" in failed(lambda y, i, tiny: np.where(np.isinf(y), np.nan, y))


def test_small_numbers_flushed_to_zero_are_noticed_even_where_denormals_may_be():
    for capabilities in (BOTH, FLUSHED):
        found = failed(below(2.0**26), capabilities)
        assert {f"{op}/small" for op in OPS if OPS[op].scaled} <= found


def test_flushing_is_allowed_where_it_is_declared_and_nothing_else_is():
    found = failed(below(1.0))
    assert {"relu/denormal", "max_pool2d/denormal", "conv2d/denormal", "linear/denormal", "batch_norm/denormal"} <= found
    assert failed(below(1.0), FLUSHED) == set()
    assert "relu/denormal" in failed(lambda y, i, tiny: np.where(np.abs(y) < tiny, 2 * y, y), FLUSHED)
    assert "relu/denormal" in failed(lambda y, i, tiny: np.where(np.abs(y) < tiny, np.sign(y) * tiny, y), FLUSHED)


def test_a_denormal_x_has_a_gradient_unless_denormals_are_declared_to_be_0():
    class Blind(Reference):
        flush = False

        def capabilities(self):
            return replace(super().capabilities(), ops=("relu_backward",), dtypes=("float32",), flush_denormals=self.flush)

        def relu_backward(self, dy, x):
            return super().relu_backward(dy, np.where(np.abs(x) < np.finfo(x.dtype).tiny, 0, x).astype(x.dtype))

    backend = Blind()
    statuses = {}
    for backend.flush in (False, True):
        verdicts = check(backend, special.cases(backend.capabilities()), ["float32"], related=())
        statuses[backend.flush] = {v.case.split("/")[2]: v.status for v in verdicts if v.op == "relu_backward"}
    assert statuses[False]["denormal"] == "fail" and set(statuses[True].values()) == {"pass"} and len(statuses[True]) == 3


def test_pytorch_does_what_the_table_says(monkeypatch):
    pytest.importorskip("torch")
    from validation.peers import torch_backend

    backend = torch_backend.Backend()
    verdicts = check(backend, special.cases(backend.capabilities()), list(backend.dtypes), related=())
    assert not [v for v in verdicts if v.status not in ("pass", "loose", "unsupported")]
    assert len([v for v in verdicts if v.status in ("pass", "loose")]) > 70


def test_pairs_and_another_g_max_have_a_law():
    class Wrong(Sampled):
        def __init__(self, change):
            self.change = change

        def program(self, g_target_us, z, model):
            return super().program(g_target_us, self.change(z), model)

    made = [g for g in special.cases(Sampled().capabilities()) if g.law]
    for change, wanted in (
        (lambda z: z, "pass"),
        (lambda z: 2 * z, "fail"),  # sigma of G_max = 25 uS
        (lambda z: np.stack([z[:, 0], 0.6 * z[:, 0] + 0.8 * z[:, 1]], 1), "fail"),  # plus and minus correlated
    ):
        verdicts = check(Wrong(change), made, ["float64"])
        assert [v.status for v in verdicts] == [wanted], verdicts
    assert verdicts[0].message.startswith("correlation with element [1, ")
