"""The fast engine: the text's values for any network, the same bits for any workers, its moments, its scratch memory."""

import threading
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pcmref
from pcmref import draws
from pcmref.errors import SettingError
from pcmref.fast import functional as fast
from pcmref.fast import layers
from pcmref.fast.gather import Recycled, scratch
from pcmref.golden import Capabilities, Golden, judge
from pcmref.golden.case import Case
from pcmref.golden.expected import expected
from pcmref.nn import functional as F
from pcmref.nn import resnet as plain_resnet
from tests.helpers.narrow import narrow
from tests.helpers.roundings import gamma, without_rounding


def normal(name, *shape, seed=0):
    return draws.standard_normal(seed, f"test/{name}", shape)


def test_scratch_is_used_again_and_belongs_to_its_thread():
    first = scratch("test", (4, 5), np.float32)
    assert np.shares_memory(first, scratch("test", (10,), np.float32))
    assert not np.shares_memory(first, scratch("other", (10,), np.float32))
    assert not np.shares_memory(first, scratch("test", (10,), np.float64))
    elsewhere = []
    thread = threading.Thread(target=lambda: elsewhere.append(scratch("test", (4, 5), np.float32)))
    thread.start()
    thread.join()
    assert not np.shares_memory(first, elsewhere[0])


@pytest.mark.parametrize("n", [1, 2, 15, 16, 17, 128, 200, 1000])
def test_a_batch_is_cut_into_an_even_number_of_chunks_that_cover_it_once(n):
    chunks = layers.Layers(n, None, True, Recycled()).chunks
    assert np.concatenate([np.arange(n)[chunk] for chunk in chunks]).tolist() == list(range(n))
    assert len(chunks) == 1 if n == 1 else len(chunks) % 2 == 0
    assert max(chunk.stop - chunk.start for chunk in chunks) <= layers.CHUNK


@given(st.integers(1, 3), st.lists(st.integers(0, 2), max_size=4), st.integers(-1000, 1000), st.integers(0, 99))
def test_moments_of_chunks_merge_to_those_of_the_whole(first, more, offset, seed):
    """To the bit: each chunk's mean is whole, and each merge ends at a power of two images, so that shares are exact."""
    totals = [first, *(4 * 2**k for k in np.cumsum(more))]
    sizes = [n for n in np.diff(totals, prepend=0) if n]
    spread = np.round(4 * normal("m", sum(sizes), 3, 1, 4, seed=seed))
    x = offset + np.concatenate([spread, -spread], 2) + np.repeat(np.arange(len(sizes)) ** 2, sizes)[:, None, None, None]
    merged = fast.merge_moments([fast.centre(part.copy())[0] for part in np.split(x, np.cumsum(sizes)[:-1])])
    mean = x.mean((0, 1, 2))
    assert merged.n == x.size // 4 and np.array_equal(merged.mean, mean)
    assert np.array_equal(merged.m2, np.square(x - mean).sum((0, 1, 2)))


def test_moments_in_float32_survive_a_large_mean():
    x = (normal("m", 8, 16, 16, 3) * 0.5 + 300).astype(np.float32)
    exact = x.astype(np.float64)
    mean, var = exact.mean((0, 1, 2)), exact.var((0, 1, 2))
    moments, _ = fast.centre(x)
    # 128 rows are added in float32; a rounding more is for all in float64
    off = gamma(128, np.float32) * abs(exact).mean((0, 1, 2))
    assert (abs(moments.mean - mean) <= off).all()
    # deviations from the mean as a float32, at most `rounded` from it, are exact (Sterbenz), then squared and added;
    # what is subtracted for the rounded mean, (mean - rounded mean)^2, suffers from the mean's error
    rounded = gamma(1, np.float32) * abs(moments.mean)
    bound = gamma(129, np.float32) * (var + (off + rounded) ** 2) + off * (off + 2 * rounded)
    assert (abs(moments.m2 / moments.n - var) <= bound).all()


@pytest.mark.parametrize(("dtype", "base", "gap"), [(np.float16, 300, 0.25), (np.float32, 2**24, 2)])
def test_moments_where_the_mean_is_no_number_of_the_dtype(dtype, base, gap):
    """Half of the values at base, half at the next number: the mean lies between, the variance is (gap/2)^2."""
    x = np.array([0, 1, 1, 0, 0, 1, 1, 0]).reshape(1, 1, 8, 1) * gap + base
    moments, _ = fast.centre(x.astype(dtype))
    assert (moments.n, moments.mean, moments.m2) == (8, base + gap / 2, 8 * (gap / 2) ** 2)


@given(st.sampled_from([2, 4]).flatmap(lambda n: st.lists(st.integers(0, 15), min_size=n, max_size=n)), st.integers(1, 4))
def test_moments_ignore_a_shift_that_is_exact(values, step):
    """In float16 multiples of 1/4 stay exact up to 512, and so do their squared deviations, though the mean is rounded."""
    x = np.array(values).reshape(1, 1, -1, 1) / 4
    near, far = (fast.centre((x + shift).astype(np.float16))[0] for shift in (0, 32 * step + 256))
    assert near.m2 == far.m2 == x.var() * x.size


@st.composite
def cases(draw):
    """(network, state away from its initial batch norms, images), in eight-bit numbers; more images than a chunk holds."""
    widths = draw(st.lists(st.integers(1, 2), min_size=1, max_size=2))
    net = pcmref.ResNet(draw(st.integers(1, 2)), 2, widths, [1] * len(widths), draw(st.sampled_from(["small", "imagenet"])))
    seed, size = draw(st.integers(0, 99)), draw(st.tuples(st.sampled_from([2, 17]), st.integers(2, 4), st.integers(2, 4)))
    batch_norms = {k: 0.5 + draws.uniform(seed, f"test/{k}", v.shape) for k, v in net.init(seed).items() if v.ndim == 1}
    state = {k: narrow(v) for k, v in (net.init(seed, np.float64) | batch_norms).items()}
    return net, state, narrow(normal("x", *size, net.in_channels, seed=seed))


@given(cases(), st.sampled_from(["float64", "float32"]))
@settings(max_examples=6)
def test_fast_and_plain_are_within_the_derived_bound_of_the_exact_values(case, dtype):
    """Forward and backward, against 50-digit values and their running error bounds; the same verdict that backends get."""
    net, state, x = case
    params = {"network": {k: v for k, v in net.config().items() if k != "eps"}, "eps": net.eps}
    for op, more in (("resnet", {}), ("resnet_backward", {"dlogits": narrow(normal("dlogits", len(x), 2))})):
        golden = Golden(Case(op, "random", "random", {"x": x} | more | state, {}, params), {})
        golden = replace(golden, expected=expected(op, golden.case.inputs, {}, params))
        rounded = {name: value.astype(dtype) for name, value in golden.case.inputs.items()}
        for engine in ("fast", "plain"):
            own = {name: rounded[name] for name in state}
            if op == "resnet":
                results = {"logits": net.forward(own, rounded["x"], engine=engine)}
            else:
                logits, tape = net.forward(own, rounded["x"], train=True, engine=engine)
                grads = net.backward(own, tape, rounded["dlogits"])
                results = {"logits": logits} | {f"grad/{name}": value for name, value in grads.items()}
            verdict = judge(golden, results, Capabilities(dtypes=(dtype,)), dtype)
            assert verdict.status != "fail", (engine, verdict)  # inconclusive: a gradient that is 0 in algebra


@pytest.mark.parametrize("stem", ["small", "imagenet"])
@pytest.mark.parametrize("shortcut", ["projection", "pad"])
@pytest.mark.parametrize("block", ["basic", "bottleneck"])
def test_evaluation_is_the_texts_to_the_bit_where_nothing_rounds(stem, shortcut, block):
    """Folded batch norm, chunks and scratch memory change nothing: whole numbers have no order of adding."""
    net, state, x = without_rounding(pcmref.ResNet(2, 3, (2, 4), (1, 2), stem, shortcut, block), 37, 16)
    logits = net.forward(state, x, engine="plain")
    assert len(np.unique(logits)) > 37 and np.array_equal(net.forward(state, x), logits)


@pytest.mark.parametrize(("shortcut", "block"), [("pad", "basic"), ("pad", "bottleneck"), ("projection", "bottleneck")])
def test_training_of_the_other_topologies_is_the_texts(shortcut, block):
    """The topology stands in nn alone; what fast brings are layers, judged above: here longdouble shows that they are the same.

    The twin that gives error bounds knows basic blocks with projections only, so what is allowed is no bound: the text's own
    error in float64, times the terms of the longest sum. A wrong wire changes a result by its own size; allowed is 2e-11 of it.
    """
    net = pcmref.ResNet(2, 3, (2, 4), (1, 2), "small", shortcut, block)
    state = {name: value.astype(np.float64) for name, value in net.init(0).items()}
    x = normal("x", 18, 5, 6, 2)
    wide = {name: value.astype(np.longdouble) for name, value in state.items()}
    dlogits = normal("dlogits", 18, 3)

    def run(state, x, engine):
        logits, tape = net.forward(state, x, train=True, engine=engine)
        return {"logits": logits} | net.backward(state, tape, dlogits.astype(x.dtype))

    truth, text, fast_ = run(wide, x.astype(np.longdouble), "plain"), run(state, x, "plain"), run(state, x, "fast")
    terms = 18 * 5 * 6
    for name, value in truth.items():
        own = float(np.abs(text[name] - value).max()) + gamma(1) * float(np.abs(value).max())
        assert float(np.abs(fast_[name] - value).max()) <= terms * own, name


def test_a_spread_gradient_beyond_the_image_is_dropped():
    x, w = np.ones((1, 1, 1, 1)), np.ones((1, 1, 1, 1))
    dy = np.ones(F.conv2d_shape(x.shape, w.shape, 5, 2))
    assert F.conv2d_backward(dy, x, w, 5, 2)[0].shape == fast.conv2d_backward(dy, x, w, 5, 2)[0].shape == x.shape


def test_an_unknown_engine_is_refused():
    net = pcmref.ResNet(1, 2, (1,), (1,))
    x = np.zeros((2, 4, 4, 1), np.float32)
    for run in (net.forward, net.statistics, partial(pcmref.adabs, net)):
        with pytest.raises(SettingError, match="engine"):
            run(net.init(), x, engine="quick")


def test_memory_is_used_again_once_nobody_refers_to_it():
    memory = Recycled()
    first = memory.empty((4, 5), np.float32)
    part = first[1:3, ::2]
    assert not np.shares_memory(memory.empty((4, 5), np.float32), first)
    address = first.ctypes.data
    del first
    others = [memory.empty((5, 4), np.float32) for _ in range(3)]
    assert address not in [other.ctypes.data for other in others]  # a slice still refers to it
    del part
    assert memory.empty((20,), np.float32).ctypes.data == address
    assert memory.empty((20,), np.float64).ctypes.data != address


def test_a_tape_keeps_its_values_while_other_passes_run():
    """Memory is used again only when a pass is forgotten: gradients of a tape that is kept are those of its own pass."""
    net = pcmref.ResNet(1, 2, (2,), (1,))
    state, dlogits = net.init(0, np.float64), normal("dlogits", 4, 2)
    xs = [normal(f"x{i}", 4, 5, 5, 1) for i in range(3)]
    alone = [net.backward(state, net.forward(state, x, train=True)[1], dlogits) for x in xs]
    tapes = [net.forward(state, x, train=True)[1] for x in xs]
    together = [net.backward(state, tape, dlogits) for tape in tapes]
    assert all(np.array_equal(a[name], b[name]) for a, b in zip(alone, together, strict=True) for name in a)


def test_whatever_part_of_a_pass_is_kept_keeps_its_values():
    """An output, a slice of it, a view from elsewhere, the images' gradient: each outlives its tape, in six threads."""
    net, wrong, done = pcmref.ResNet(1, 2, (2,), (1,)), [], []
    state, x, dlogits = net.init(0), normal("x", 4, 5, 5, 1).astype(np.float32), np.ones((4, 2), np.float32)

    def use(thread):
        kept = []
        for i in range(12):
            logits, tape = net.forward(state, x + np.float32(thread + i), train=True)
            gradient = net.backward(state, tape, dlogits)["input"]
            saved = tape["bn1"]
            parts = logits, gradient, tape["layer1.0.bn2"].y, saved.y[1:, ::2], np.asarray(memoryview(saved.deviation))
            kept.append(([part.copy() for part in parts], parts[i % 5 :: 2]))
            first = kept[0] if i % 3 else kept.pop(0)
            wrong.extend(
                True for copies, held in (*kept, first) for part in held if not any(np.array_equal(part, c) for c in copies)
            )
        done.append(thread)

    threads = [threading.Thread(target=use, args=(thread,)) for thread in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == 6 and not wrong


def test_statistics_of_the_plain_engine_are_the_plain_texts():
    x = draws.standard_normal(0, "test/statistics", (20, 9, 9, 1)).astype(np.float32)
    net = pcmref.ResNet(1, 3, (3, 4), (1, 1))
    state = net.init()
    plain, text = net.statistics(state, x, engine="plain"), plain_resnet.ResNet(1, 3, (3, 4), (1, 1)).statistics(state, x)
    assert all(np.array_equal(plain[bn][i], text[bn][i]) for bn in text for i in (0, 1))
    assert any(not np.array_equal(net.statistics(state, x)[bn][1], text[bn][1]) for bn in text)  # fast rounds otherwise
