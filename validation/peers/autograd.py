"""What PyTorch and JAX share behind pcmref's backend protocol: every backward by differentiation."""

from pcmref.golden import Capabilities, NamedBackend
from pcmref.golden.ops import OPS


class Autograd(NamedBackend):
    """A subclass has forwards as methods, and `gradients` of its framework."""

    accumulate = None

    def capabilities(self) -> Capabilities:
        ops = tuple(op for op in OPS if hasattr(self, op.removesuffix("_backward")))
        return Capabilities(ops=ops, dtypes=self.dtypes, accumulate_dtype=self.accumulate)

    def call(self, op, arguments):
        forward = op.removesuffix("_backward")
        if hasattr(self, op) or not hasattr(self, forward):
            return super().call(op, arguments)
        names = {name: name.removeprefix("d") for name in OPS[op].outputs}
        a = dict(arguments)
        if "bias" in names.values():  # a bias that is only added is taken as 0
            a["bias"] = a["weight"] * 0
        if "b" in names.values():
            a["b"] = a["w"][:, 0] * 0
        dy = a.pop("dy", None)
        return self.gradients(lambda b: next(iter(Autograd.call(self, forward, b).values())), a, dy, names)


def trainable(state):
    """{gradient: parameter}, as the operations on networks name them."""
    return {f"grad/{name}": name for name in state if "running_" not in name}
