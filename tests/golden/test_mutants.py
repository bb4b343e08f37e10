"""Planted mistakes of real kernels, and backends that are right in other ways: what the self-check says of them."""

from functools import cache

import numpy as np
import pytest

from pcmref import draws
from pcmref.golden import design, file, special
from pcmref.golden.reference import Reference
from pcmref.nn import functional as F
from tests.golden import selfcheck
from tests.golden.planted import Mutant, mutants
from tests.golden.planted_kernels import kernel_mutants
from tests.golden.right_backends import (
    CORRECT,
    Copying,
    Flushing,
    Fourier,
    Fused,
    Longer,
    Sampled,
    Sequential,
    Winograd,
    Winograd4,
)

RELU = [g for g in file.read() if g.case.op == "relu"]
CASES = cache(special.cases), cache(design.golden)


def normal(*shape):
    return draws.standard_normal(0, "golden mutants", shape)


def test_each_of_the_60_and_more_kinds_of_mistakes_is_planted_once_in_an_operation():
    planted = [(m.planted, m.error, m.dtype) for m in kernel_mutants()]
    assert len({error for _, error, _ in planted}) >= 60 and len(planted) == len(set(planted)) >= 140
    assert not {(m.planted, m.error) for m in mutants()} & {(op, error) for op, error, _ in planted}


def test_a_mistake_that_changes_nothing_is_a_wrong_finding_and_so_is_a_right_backend_that_errs():
    def noticed(spoil):
        return selfcheck._noticed(Mutant("relu", "planted", spoil, "float32"), RELU, *CASES)

    assert not noticed(lambda own, a: own(a)).right
    assert noticed(lambda own, a: {"y": np.minimum(own(a)["y"], 4)}).right

    class Wrong(Reference):
        def relu(self, x):
            return np.minimum(super().relu(x), 4)

    assert not selfcheck._correct(Wrong(), RELU, *CASES).right  # as a generated case has it


@pytest.mark.parametrize("backend", [Winograd, Winograd4, Fourier])
def test_a_transform_is_a_convolution_of_its_own(backend):
    for shape, padding in (((2, 7, 5, 3), 0), ((1, 8, 9, 2), 1), ((1, 3, 3, 1), 2), ((1, 6, 4, 2), 5)):
        x, w = normal(*shape), normal(4, shape[3], 3, 3)
        y, found = F.conv2d(x, w, 1, padding), backend().conv2d(x, w, 1, padding)
        np.testing.assert_allclose(found, y, atol=1e-12)
        assert (found != y).any()
        for a, b in zip(backend().conv2d_backward(y, x, w, 1, padding), F.conv2d_backward(y, x, w, 1, padding), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


def test_right_backends_differ_from_pcmref_in_what_they_are_named_for():
    x, w = normal(2, 9, 8, 33).astype(np.float32), normal(5, 33, 3, 3).astype(np.float32)
    inputs, params = {"x": x, "w": w}, {"stride": 1, "padding": 1}
    results = {b: b().run("conv2d", 1, inputs, {}, params)["y"] for b in CORRECT if b not in (Fused, Copying, Flushing)}
    assert all(y.dtype == np.float32 for y in results.values())
    pcmrefs = results.pop(Reference)
    assert (results.pop(Sampled) == pcmrefs).all()  # it convolves as Reference does
    assert len({y.tobytes() for y in results.values()}) == len(results)
    same = [b for b, y in results.items() if (y == pcmrefs).all()]
    assert same in ([], [Sequential])  # BLAS kernels without AVX2 add one term after the other, too
    exact = F.conv2d(x.astype(np.longdouble), w.astype(np.longdouble), 1, 1)
    assert (Longer().run("conv2d", 1, inputs, {}, params)["y"] == exact.astype(np.float32)).all()
