"""Hypothesis strategies for property tests of networks and devices: tensors, weights, chips, times, networks, golden cases.

Everything shrinks towards something readable: numbers become eighths (zeros and whole numbers in the end), shapes get small,
networks lose blocks. Needs hypothesis, which is imported when a strategy is made.
"""

from dataclasses import replace

import numpy as np

from pcmref.errors import MissingExtraError, SettingError

STEPS = 8  # numbers shrink to multiples of 1/8: exact in every dtype, readable in a counterexample
SMALLEST = 2.0**-14  # of the other magnitudes: normal in every dtype, and no quotient or product of a few overflows


def _hypothesis():
    try:
        from hypothesis import strategies
        from hypothesis.extra import numpy as arrays
    except ImportError as error:
        raise MissingExtraError("pcmref.strategies needs hypothesis: install pcmref with the extra `test`") from error
    return strategies, arrays


def load_ci_profile(max_examples: int = 40) -> None:
    """Make hypothesis deterministic: the same examples on every machine and run, no deadline, no database."""
    from hypothesis import settings

    settings.register_profile("pcmref-ci", derandomize=True, deadline=None, max_examples=max_examples, database=None)
    settings.load_profile("pcmref-ci")


def numbers(largest: float = 4.0, dtype=np.float64):
    """Numbers of dtype from -largest to largest: eighths, or any that dtype rounds to (magnitudes from 2^-14)."""
    st, _ = _hypothesis()
    top = int(largest * STEPS)
    eighths = st.integers(-top, top).map(lambda n: n / STEPS)
    above, below = st.floats(SMALLEST, largest), st.floats(-largest, -SMALLEST)
    return st.one_of(eighths, above, below).map(np.dtype(dtype).type)  # hypothesis shrinks to the first that fails


def tensors(shape=None, dtype=np.float64, largest: float = 4.0):
    """Arrays of `numbers`: of `shape` (a tuple or a strategy), else images [N, H, W, C] with up to 3 x 7 x 7 x 4 entries."""
    st, arrays = _hypothesis()
    if shape is None:
        shape = st.tuples(st.integers(1, 3), st.integers(1, 7), st.integers(1, 7), st.integers(1, 4))
    return arrays.arrays(dtype, shape, elements=numbers(largest, dtype), fill=st.just(0.0))


def convolutions(dtype=np.float64):
    """(x [N, H, W, C], w [O, C, kH, kW], stride, padding) with an output of at least one pixel."""
    st, _ = _hypothesis()

    @st.composite
    def build(draw):
        stride, padding = draw(st.integers(1, 3)), draw(st.integers(0, 2))
        k_h, k_w, c, o = (draw(st.integers(1, 4)) for _ in range(4))
        h, w = (draw(st.integers(max(1, k - 2 * padding), 7)) for k in (k_h, k_w))
        x = draw(tensors((draw(st.integers(1, 2)), h, w, c), dtype))
        return x, draw(tensors((o, c, k_h, k_w), dtype)), stride, padding

    return build()


def weights(dtype=np.float64):
    """Weight arrays as they lie on a crossbar: convolutions [O, C, kH, kW] or matrices [O, C], not all zero."""
    st, _ = _hypothesis()
    sizes = st.integers(1, 4)
    shape = st.one_of(st.tuples(sizes, sizes), st.tuples(sizes, sizes, sizes, sizes))
    return tensors(shape, dtype, 1.0).filter(lambda w: bool(w.any()))


def times(longest_s: float = 10 * 365 * 86_400.0):
    """Seconds since programming, from t_0 = 20 s on: the project's usual ones, or any whole number."""
    st, _ = _hypothesis()
    usual = st.sampled_from([20.0, 60.0, 3600.0, 86_400.0, 30 * 86_400.0, 365 * 86_400.0])
    return st.one_of(usual.filter(lambda t: t <= longest_s), st.integers(20, int(longest_s)).map(float))


def networks():
    """Small residual networks: one to three stages of one or two blocks, both kinds of block and of shortcut."""
    st, _ = _hypothesis()
    from pcmref.fast.resnet import ResNet

    def build(channels, classes, stages, shortcut, block):
        widths, blocks = zip(*stages, strict=True)
        widths = tuple(sorted(widths)) if shortcut == "pad" else widths  # which adds channels and never drops one
        return ResNet(channels, classes, widths, blocks, shortcut=shortcut, block=block)

    stages = st.lists(st.tuples(st.integers(1, 4), st.integers(1, 2)), min_size=1, max_size=3)
    kinds = st.sampled_from(["projection", "pad"]), st.sampled_from(["basic", "bottleneck"])
    return st.builds(build, st.integers(1, 3), st.integers(2, 4), stages, *kinds)


def chips():
    """Programmed chips of small networks, under any profile of the device model."""
    st, _ = _hypothesis()
    from pcmref.pcm.chip import Chip
    from pcmref.pcm.model import PCMModel

    models = st.sampled_from([PCMModel.joshi2020(), PCMModel.aihwkit(), PCMModel.crosssim()])
    seeds = st.integers(0, 99)
    return st.builds(
        lambda net, model, seed: Chip.program(net.init(seed, np.float64), model, seed, workers=1), networks(), models, seeds
    )


def cases(op: str, dtype=np.float64, capabilities=None):
    """Cases of an operation of GOLDEN.md with their expected values and bounds: any that `pcmref golden fuzz` draws.

    A value is a `pcmref.golden.Golden`: `pcmref.golden.judge` compares results with it. The arrays of its `case` are in dtype
    ("bfloat16": float32 arrays of such numbers). `capabilities` (`golden.Capabilities`; default: direct sums in dtype) says
    what the bounds are for. Whole networks and chips take hypothesis longer than its health check wants. SettingError for an
    operation that is unknown, or not checked in dtype.

        @given(strategies.cases("linear", np.float32))
        def test_linear(golden):
            case, declared = golden.case, Capabilities(dtypes=("float32",))
            results = {"y": my_linear(case.inputs["x"], case.inputs["w"], case.inputs["b"])}
            verdict = judge(golden, results, declared, "float32")
            assert verdict.status in ("pass", "loose"), verdict
    """
    _hypothesis()
    from pcmref.golden import search
    from pcmref.golden.backends import Capabilities
    from pcmref.golden.bounds import in_dtype
    from pcmref.golden.ops import OPS

    dtype = dtype if isinstance(dtype, str) else np.dtype(dtype).name
    if op not in OPS or dtype not in OPS[op].dtypes:
        known = f"is checked in {', '.join(OPS[op].dtypes)}" if op in OPS else f"is none of {', '.join(OPS)}"
        raise SettingError(f"cases of {op!r} in {dtype}: the operation {known}")

    def handed(golden):
        case = golden.case
        arrays = {"inputs": in_dtype(case.inputs, dtype), "noise": in_dtype(case.noise, dtype)}
        return replace(golden, case=replace(case, **arrays))

    return search.cases(op, dtype, capabilities or Capabilities(dtypes=(dtype,))).map(handed)
