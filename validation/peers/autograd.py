"""What PyTorch and JAX share behind pcmref's backend protocol: a method an operation, and every backward by differentiation."""

from pcmref.golden import Unsupported
from pcmref.golden.ops import OPS


class Autograd:
    """A subclass has `tensor`, `array`, `gradients` of its framework, and forwards as methods (arrays, params) -> outputs."""

    def run(self, op, version, inputs, noise, params):
        forward = op.removesuffix("_backward")
        if not hasattr(self, op) and (op == forward or not hasattr(self, forward)):
            raise Unsupported(f"{self.name} has no {op}")
        arrays = {k: self.tensor(v) for k, v in (inputs | {f"noise/{k}": v for k, v in noise.items()}).items()}
        out = getattr(self, op)(arrays, params) if hasattr(self, op) else self.backward(forward, arrays, params)
        return {k: self.array(v) for k, v in out.items()}

    def backward(self, forward, a, p):
        """{"dx": gradient in x, ...}, as the table names them; a bias that is only added is taken as 0."""
        names = {name: name.removeprefix("d") for name in OPS[f"{forward}_backward"].outputs}
        if "bias" in names.values():
            a = a | {"bias": a["weight"] * 0}
        if "b" in names.values():
            a = a | {"b": a["w"][:, 0] * 0}
        return self.gradients(lambda b: next(iter(getattr(self, forward)(b, p).values())), a, a.get("dy"), names)
