"""Relations: each planted mistake gives right values for the stored case, and breaks the relation that is made for it."""

import numpy as np
import pytest

from pcmref.golden import Capabilities, Reference, Unsupported, check, design, file, relations, report
from pcmref.golden.check import _judged, check_case

GOLDEN = {g.case.key: g for g in file.read()}
LINEAR = GOLDEN["linear/v1/plain"]
PLAIN = Capabilities()


def linear(run):
    """A backend whose linear layer is `run(self, x, w, b)`; `self.calls` counts."""

    class Planted(Reference):
        def __init__(self):
            self.calls, self.buffer = 0, {}

        def linear(self, x, w, b):
            self.calls += 1
            return run(self, x, w, b)

    return Planted()


def right(x, w, b):
    return x @ w.T + b


def overwrites(self, x, w, b):
    x *= 1  # the same numbers
    return right(x, w, b)


def as_if_contiguous(self, x, w, b):
    """Steps over memory as if there were no gaps."""
    gaps = x.strides[0] > x.strides[1] > x.itemsize
    return right(np.lib.stride_tricks.as_strided(x, strides=(x.shape[1] * x.itemsize, x.itemsize)) if gaps else x, w, b)


def absolute_strides(self, x, w, b):
    return right(x[::-1, ::-1] if min(x.strides) < 0 else x, w, b)


def shape_of_memory(self, x, w, b):
    """The memory from first to last, whatever the order of the axes."""
    return right(x.ravel("K").reshape(x.shape), w, b) if x.flags.f_contiguous else right(x, w, b)


def native_bytes(self, x, w, b):
    return right(*(v.view(v.dtype.newbyteorder("=")) for v in (x, w, b)))


def wrong_at_the_second_call(self, x, w, b):
    return right(x, w, b) + (self.calls == 2)


def other_bits(self, x, w, b):
    return right(x, w, b) * (1 + self.calls % 2 * 2.0**-52)


def remembers(self, x, w, b):
    """The first results of a shape, for good."""
    return self.buffer.setdefault(x.shape, right(x, w, b)).copy()


def keeps_its_weights(self, x, w, b):
    """What is prepared from weights is kept by shapes, as a packed matrix is."""
    return right(x, self.buffer.setdefault((x.shape, w.shape), np.array(w)), b)


def knows_its_weights_by_address(self, x, w, b):
    return right(x, self.buffer.setdefault(w.ctypes.data, np.array(w)) if self.calls < 4 else w, b)


def keeps_its_bias(self, x, w, b):
    """What is prepared from weights and bias is found again by the weights."""
    return right(x, w, self.buffer.setdefault(w.tobytes(), np.array(b)))


def one_order_of_memory(self, x, w, b):
    """Walks over both arrays in the order of the first one's memory."""
    dense = all(v.flags.c_contiguous or v.flags.f_contiguous for v in (x, w))
    return right(x, w.ravel("K").reshape(w.shape) if dense and x.flags.c_contiguous else w, b)


def scratch(self, x, w, b):
    """One buffer a shape."""
    y = self.buffer.setdefault(x.shape, np.empty((len(x), len(w)), x.dtype))
    y[...] = right(x, w, b)
    return y


def batch_of_one(self, x, w, b):
    return right(x, w, b) if len(x) > 1 else 0 * right(x, w, b)


def four_rows(self, x, w, b):
    return right(np.where(np.arange(len(x))[:, None] < 4, x, 0), w, b)


def maps_only(self, x, w, b):
    return right(x + isinstance(x.base, np.memmap), w, b)


@pytest.mark.parametrize(
    ("run", "name"),
    [
        (overwrites, "read-only inputs: ValueError"),
        (as_if_contiguous, "strided inputs: NaN in "),
        (absolute_strides, "inputs with negative strides: 12 of 12 elements outside"),
        (shape_of_memory, "Fortran-ordered inputs: "),
        (native_bytes, "big-endian inputs: "),
        (maps_only, "memory-mapped inputs: "),
        (wrong_at_the_second_call, "a second call: other bits"),
        (other_bits, "a second call: other bits, though the backend declares itself deterministic"),
        (remembers, "other inputs: 12 of 12 elements outside"),
        (keeps_its_weights, "other inputs: "),
        (knows_its_weights_by_address, "other inputs: "),
        (keeps_its_bias, "only b other: "),
        (one_order_of_memory, "the other inputs Fortran-ordered: "),
        (scratch, "other inputs: it changed the results of an earlier call"),
        (batch_of_one, "row 0 alone: "),
        (four_rows, "23 rows: "),
    ],
)
def test_a_broken_relation_is_a_failure_that_names_it(run, name):
    assert check_case(linear(lambda self, *a: right(*a)), PLAIN, LINEAR, "float64").status == "pass"
    v = check_case(linear(run), PLAIN, LINEAR, "float64")
    assert v.status == "fail" and v.message.startswith(name), v
    assert f"; {name}" in report.line(v)


def test_the_same_bits_are_asked_of_those_who_declare_them():
    backend = linear(other_bits)
    assert check_case(backend, Capabilities(deterministic=False), LINEAR, "float64").status == "pass"
    assert check_case(linear(wrong_at_the_second_call), Capabilities(deterministic=False), LINEAR, "float64").status == "fail"


def test_many_images_give_the_same_bits_twice():
    """Partial sums of images in any order: of two or three the stored cases may not tell, of 65 those beyond the design do."""

    class Atomics(Reference):
        calls = 0

        def conv2d_backward(self, dy, x, w, stride, padding):
            self.calls += 1
            dx, _ = super().conv2d_backward(dy, x, w, stride, padding)
            order = np.roll(np.arange(len(x)), self.calls)
            return dx, sum(Reference.conv2d_backward(dy[[i]], x[[i]], w, stride, padding)[1] for i in order)

    many = design.golden("conv2d_backward/v1/beyond-float32-3", PLAIN)
    ((v,),) = (check(Atomics(), [many], ["float32"], related=()),)
    assert v.status == "fail" and "a second call: other bits" in v.message, v
    ((v,),) = (check(Reference(), [many], ["float32"], related=()),)
    assert v.status == "pass"

    class Once(Reference):
        called = False

        def conv2d_backward(self, **a):
            if self.called:
                raise RuntimeError("the second call")
            self.called = True
            return super().conv2d_backward(**a)

    ((v,),) = (check(Once(), [many], ["float32"], related=()),)
    assert v.status == "fail" and v.message == "a second call: RuntimeError: the second call"


def test_folded_parameters_that_are_found_by_the_weights_are_stale():
    class Folded(Reference):
        kept = {}

        def basic_block(self, x, state, stride, train, eps):
            key = state["conv1.weight"].tobytes(), x.dtype.str
            first = state if train else self.kept.setdefault(key, {k: np.array(v) for k, v in state.items() if "bn" in k})
            return super().basic_block(x, state | first, stride, train, eps)

    v = check_case(Folded(), PLAIN, GOLDEN["basic_block/v1/identity_eval"], "float64")
    assert v.status == "fail" and v.message.startswith("only vectors other: "), v


def test_outputs_lie_in_memory_of_their_own():
    class Velocity(Reference):
        def sgd_step(self, w, grad, **a):
            w, velocity = super().sgd_step(w, grad, **a)
            return w, grad if "velocity" not in a else velocity

    class Twice(Reference):
        def batch_norm_train(self, x, **a):
            y, mean, var = super().batch_norm_train(x, **a)
            both = np.concatenate([mean, var])
            return y, both[: len(mean)], both[len(mean) :][::1]  # next to each other, which is right

        def linear_backward(self, dy, x, w):
            dx, dw, db = super().linear_backward(dy, x, w)
            whole = np.concatenate([db, dw.ravel()])
            return (
                dx,
                whole[len(db) :].reshape(dw.shape),
                whole[: len(db) + 1][: len(db)] if len(dw) > 9 else whole[1 : len(db) + 1],
            )

    bn = GOLDEN["batch_norm_train/v1/plain"]
    v = check_case(Velocity(), PLAIN, GOLDEN["sgd_step/v1/first"], "float64")
    assert v.status == "fail" and v.message.startswith("output velocity lies in the memory of input grad")
    assert check_case(Twice(), PLAIN, bn, "float64").status == "pass"
    v = check_case(Twice(), PLAIN, GOLDEN["linear_backward/v1/plain"], "float64")
    assert v.status == "fail" and v.message.startswith("output dw lies in the memory of output db")


def test_a_chip_read_twice_is_the_same_chip():
    class Redrawn(Reference):
        """nu is drawn at each read: right for the first time that it is read at."""

        def chip(self, t_s, **a):
            self.first = getattr(self, "first", t_s)
            later = {} if t_s == self.first else super().chip(t_s=t_s, **a | {"seed": a["seed"] + 1})
            return super().chip(t_s=t_s, **a) | {k: v for k, v in later.items() if k.startswith("nu/")}

    g = GOLDEN["chip/v1/one_block_gdc"]
    assert check_case(Reference(), PLAIN, g, "float64").status == "pass"
    v = check_case(Redrawn(), PLAIN, g, "float64")
    assert v.status == "fail" and v.message.startswith("other inputs: ") and v.output.startswith("nu/")


def test_a_reading_depends_on_all_digits_of_its_time():
    class Rounded(Reference):
        def chip(self, t_s, **a):
            return super().chip(t_s=round(t_s, 1), **a)

    v = check_case(Rounded(), PLAIN, GOLDEN["chip/v1/one_block_gdc"], "float64")
    assert v.status == "fail" and v.message.startswith("other inputs: ") and v.output.startswith("weight/")


def test_layouts_that_an_adapter_refuses_are_shown_and_are_no_pass():
    def refuses(self, x, w, b):
        if min(x.strides) < 0:
            raise Unsupported("strides must be positive")
        return right(x, w, b)

    verdicts = check(linear(refuses), [LINEAR], ["float64"])
    assert verdicts[0].status == "pass" and verdicts[0].refused == ("inputs with negative strides: strides must be positive",)
    text = report.terminal(report.Report("b", "1", "r", tuple(verdicts)))
    assert "NOT CHECKED inputs with negative strides: strides must be positive (1 case)" in text


def test_a_case_with_other_rows_is_the_case_with_other_rows():
    """The stored value of a row belongs to it wherever it stands; what is summed over rows stays."""
    g = GOLDEN["conv2d_backward/v1/3x3"]
    turned = relations.rows(g, [1, 0])
    for name in ("x", "dy"):
        assert np.array_equal(turned.case.inputs[name], g.case.inputs[name][[1, 0]])
    assert turned.case.inputs["w"] is g.case.inputs["w"] and turned.expected["dw"] is g.expected["dw"]
    assert np.array_equal(turned.expected["dx"].scale, g.expected["dx"].scale[[1, 0]])


@pytest.mark.parametrize("op", sorted({g.case.op for g in GOLDEN.values() if not g.law}))
def test_other_inputs_are_judged_in_every_operation(op):
    """Its smallest case with a bound: the other inputs have one, and what was right of the first is wrong of them."""
    g = min((g for g in GOLDEN.values() if g.case.op == op and g.law is None), key=relations_size)
    other = relations._other(g, PLAIN, "float64")
    first = Reference().run(op, 1, g.case.inputs, g.case.noise, g.case.params)
    assert other.expected.keys() == first.keys()
    assert _judged(other, first, PLAIN, "float64", 1, True).status == "fail"


def relations_size(golden):
    return sum(v.size for v in golden.case.inputs.values())


def test_what_is_related_to_each_operation():
    """All layouts for every case; other rows where there are some; each alone only where rows do not meet."""
    found = {}
    for g in GOLDEN.values():
        if not g.law:
            names = (r.name for r in relations.related(g, PLAIN, "float64"))
            found.setdefault(g.case.op, set()).update(names)
    layouts = {"a second call", "other inputs", *relations._layouts(None)}
    assert all(layouts <= names for names in found.values())
    other = {op: {name for name in names - layouts if not name.startswith("only ")} for op, names in found.items()}
    without = {"map", "gdc", "adabs", "draws", "clip_weights", "inject_weight_noise"}
    assert {op for op, names in other.items() if not names} == without
    apart = {op for op, names in other.items() if "23 rows" in names}
    assert {"conv2d", "conv2d_backward", "resnet", "basic_block", "read", "crossbar_mvm", "linear_backward"} <= apart
    assert not apart & {"softmax_cross_entropy_backward", "batch_norm_train", "resnet_backward", "basic_block_backward"}
