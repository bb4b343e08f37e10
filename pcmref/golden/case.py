"""A case without its expected values, and whether one is fit to be judged: others stay out of golden files.

The inputs of stored cases have at most eight significant bits, so that float64 and bfloat16 start from the same numbers and no
rounding of the input has to be forgiven. Sizes are odd, strides and kernels uneven: a transposed axis or an index off by one
shows.
"""

from dataclasses import dataclass, field

import numpy as np

from pcmref.errors import PcmrefError
from pcmref.golden.ops import OPS
from pcmref.nn.resnet import ResNet

_BN = ("weight", "bias", "running_mean", "running_var")


@dataclass(frozen=True)
class Case:
    """One set of inputs for an operation: level 1 takes well under a minute in all, level 2 adds the slow and the rare."""

    op: str
    name: str
    why: str
    inputs: dict[str, np.ndarray] = field(default_factory=dict)
    noise: dict[str, np.ndarray] = field(default_factory=dict)
    params: dict = field(default_factory=dict)
    level: int = 1
    version: int = 1
    dtype: str | None = None  # the only one it is judged in, where its inputs have all the bits of that dtype

    @property
    def key(self) -> str:
        return f"{self.op}/v{self.version}/{self.name}"


class GoldenError(PcmrefError, ValueError):
    """A case is not fit for the golden file: it is incomplete, or pcmref disagrees with what is expected."""


def check_case_fits(case, to_be_sampled: bool = False) -> None:
    """GoldenError where a case lacks an array or a parameter, has one that does not fit, or holds a NaN or an infinity.

    A case to be sampled has no noise.
    """
    where, op = f"{case.key}: its arrays or params do not fit {case.op}", OPS[case.op]
    noise = {} if to_be_sampled else op.noise
    lacking = _lacking(case.inputs, op.inputs) or _lacking(case.noise, noise) or _lacking(case.params, op.params)
    if lacking:
        raise GoldenError(f"{where}: {lacking!r} is missing")
    _refuse_not_finite(f"{where}: params", case.params)
    for group in (case.inputs, case.noise):
        for name, array in group.items():
            _refuse_not_finite(f"{where}: {name!r}", np.asarray(array))
    if wrong := op.misfit(inputs=_shapes(case.inputs), noise=_shapes(case.noise)):
        raise GoldenError(f"{where}: {wrong}")
    for name, shape in _state_shapes(case, where).items():
        if np.shape(case.inputs.get(name)) != shape:
            raise GoldenError(f"{where}: the input {name!r} must have shape {list(shape)}")
    if noise and (lacking := _lacking(case.noise, op.streams(_shapes(case.inputs), case.params))):
        raise GoldenError(f"{where}: {lacking!r} is missing")
    if any("{" in name for name in op.inputs) and not any("." in name for name in case.inputs):
        raise GoldenError(f"{where}: it has no parameters under torchvision's names")


def _lacking(found: dict, wanted) -> str:
    """The first of the names that is not there, but for those in braces and those that may be left out."""
    return next((n for n in wanted if n not in found and "{" not in n and not n.endswith("(optional)")), "")


def _shapes(arrays: dict) -> dict[str, tuple[int, ...]]:
    return {name: np.shape(array) for name, array in arrays.items()}


def _state_shapes(case, where: str) -> dict[str, tuple[int, ...]]:
    """{name: shape} of the parameters that a case with a network or a block must have."""
    op = OPS[case.op]
    if not op.composite:
        return _shapes(case.inputs)
    if "network" not in op.params:
        return _block_shapes(case, where)
    network = case.params["network"]
    try:
        settings = {k: tuple(v) if isinstance(v, list) else v for k, v in network.items()}
        if sum(settings["blocks"]) > len(case.inputs):
            raise ValueError("more blocks than arrays")
        return ResNet(**settings).shapes()
    except (PcmrefError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise GoldenError(f"{where}: the param 'network' describes none: {error}") from error


def _block_shapes(case, where: str) -> dict[str, tuple[int, ...]]:
    c_in, c_out = np.shape(case.inputs["x"])[3], len(np.atleast_1d(case.inputs.get("conv1.weight", ())))
    layers = {"conv1": ("bn1", (c_out, c_in, 3, 3)), "conv2": ("bn2", (c_out, c_out, 3, 3))}
    if any(name.startswith("downsample.") for name in case.inputs) or c_out < c_in:  # without, the shortcut pads
        layers["downsample.0"] = ("downsample.1", (c_out, c_in, 1, 1))
    shapes = {f"{conv}.weight": shape for conv, (_, shape) in layers.items()}
    return shapes | {f"{bn}.{entry}": (c_out,) for bn, _ in layers.values() for entry in _BN}


def check_values_fit(golden) -> None:
    """GoldenError where expected values, bounds, other right values or laws are missing, not finite or of another shape."""
    key, op = golden.case.key, OPS[golden.case.op]
    found = golden.law if golden.law else golden.expected
    if (lacking := _lacking(found, op.outputs)) or not found:
        raise GoldenError(f"{key}: the output {lacking or next(iter(op.outputs))!r} is missing")
    shapes = {name: np.shape(e.location if golden.law else e.value) for name, e in found.items()}
    if wrong := op.misfit(inputs=_shapes(golden.case.inputs), outputs=shapes):
        raise GoldenError(f"{key}: {wrong}")
    for name, e in golden.expected.items():
        where = f"{key}: the output {name!r}"
        _refuse_not_finite(where, e.value)
        if e.scale is not None and (e.scale.shape != e.value.shape or not (np.isfinite(e.scale) & (e.scale >= 0)).all()):
            raise GoldenError(f"{where}: its scale must have its shape and be finite and not negative")
        if not 0 < e.u_max <= 1 or e.terms < 0:
            raise GoldenError(f"{where}: u_max must be above 0 and at most 1, terms not negative; got {e.u_max}, {e.terms}")
        if e.kink is not None and (e.kink.shape != e.value.shape or np.isinf(e.kink).any()):
            raise GoldenError(f"{where}: its kink must have its shape and hold numbers, or NaN where there is none")
    for name, law in (golden.law or {}).items():
        where = f"{key}: the law of {name!r}"
        _refuse_not_finite(f"{where}: location", law.location)
        _refuse_not_finite(f"{where}: spread", law.spread)
        if law.location.shape != law.spread.shape or not law.location.size or not (law.spread > 0).all():
            raise GoldenError(f"{where}: location and spread must have one shape, and every spread be above 0")
        if law.kind not in ("gaussian", "clipped", "folded", "clamped") or not law.low < law.high:
            raise GoldenError(f"{where}: unknown kind {law.kind!r}, or low not below high")


def _refuse_not_finite(where: str, value) -> None:
    """GoldenError for a NaN or an infinity in an array, a number, or anywhere in a description."""
    if isinstance(value, dict):
        for name, entry in value.items():
            _refuse_not_finite(f"{where}[{name!r}]", entry)
    elif isinstance(value, (list, tuple)):
        for i, entry in enumerate(value):
            _refuse_not_finite(f"{where}[{i}]", entry)
    elif isinstance(value, (float, np.floating, np.ndarray)) and not np.isfinite(value).all():
        at = np.argwhere(~np.isfinite(value))[0].tolist() if np.ndim(value) else ""
        raise GoldenError(f"{where}{at or ''} is NaN or infinite; only finite numbers can be compared")
