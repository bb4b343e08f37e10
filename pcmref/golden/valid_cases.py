"""Whether a case is fit to be judged: nothing missing, no NaN, shapes that belong together. Others stay out of golden files."""

import numpy as np

import pcmref
from pcmref.errors import PcmrefError
from pcmref.golden.ops import OPS

_BN = ("weight", "bias", "running_mean", "running_var")


class GoldenError(PcmrefError, ValueError):
    """A case is not fit for the golden file: it is incomplete, or pcmref, the slow twin and differences do not agree on it."""


def check_case_fits(case, to_be_sampled: bool = False) -> None:
    """GoldenError where a case lacks an array or a parameter of its operation, or holds a NaN or an infinity.

    A case to be sampled has no noise.
    """
    where, op = f"{case.key}: its arrays or params do not fit {case.op}", OPS[case.op]
    noise = {} if to_be_sampled else op.noise
    for what, found, wanted in (
        ("the input", case.inputs, [n for n in op.inputs if not n.endswith("(optional)")]),
        ("the noise", case.noise, noise),
        ("the param", case.params, op.params),
    ):
        for name in wanted:
            if "{" not in name and name not in found:
                raise GoldenError(f"{where}: {what} {name!r} is missing")
    _refuse_not_finite(f"{where}: params", case.params)
    for group in (case.inputs, case.noise):
        for name, array in group.items():
            _refuse_not_finite(f"{where}: {name!r}", np.asarray(array))
    for name, shape in _state_shapes(case, where).items():
        if np.shape(case.inputs.get(name)) != shape:
            raise GoldenError(f"{where}: the input {name!r} must have shape {list(shape)}")
        if len(shape) > 1 or name == "fc.bias" or case.op != "chip":  # a chip's batch norms are digital
            for kind, (dimensions, _) in noise.items():
                pair = (2,) if dimensions.startswith("2") else ()
                _check_noise(case, where, kind, name, (*pair, *shape))
    if any("{" in name for name in op.inputs) and not any("." in name for name in case.inputs):
        raise GoldenError(f"{where}: it has no parameters under torchvision's names")


def _check_noise(case, where: str, kind: str, name: str, shape: tuple[int, ...]) -> None:
    """GoldenError where an array on a crossbar has no draws of this shape; `kind` such as program/{param}."""
    if kind.endswith("(with gdc)") and not case.params["gdc"]:
        return
    key = kind.split(" ")[0].replace("{param}", name)
    if np.shape(case.noise.get(key)) != shape:
        raise GoldenError(f"{where}: the noise {key!r} must have shape {list(shape)}")


def _state_shapes(case, where: str) -> dict[str, tuple[int, ...]]:
    """{name: shape} of the parameters that a case with a network or a block must have."""
    if case.op in ("basic_block", "basic_block_backward"):
        return _block_shapes(case, where)
    if "{param}" in OPS[case.op].noise:
        return {name: np.shape(array) for name, array in case.inputs.items()}
    if "network" not in OPS[case.op].params:
        return {}
    network = case.params["network"]
    try:
        settings = {k: tuple(v) if isinstance(v, list) else v for k, v in network.items()}
        if sum(settings["blocks"]) > len(case.inputs):
            raise ValueError("more blocks than arrays")
        return pcmref.ResNet(**settings).shapes()
    except (PcmrefError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise GoldenError(f"{where}: the param 'network' describes none: {error}") from error


def _block_shapes(case, where: str) -> dict[str, tuple[int, ...]]:
    x, conv = np.shape(case.inputs["x"]), np.shape(case.inputs.get("conv1.weight"))
    if len(x) != 4 or len(conv) != 4:
        raise GoldenError(f"{where}: 'x' and 'conv1.weight' must have four dimensions")
    c_in, c_out = x[3], conv[0]
    layers = {"conv1": ("bn1", (c_out, c_in, 3, 3)), "conv2": ("bn2", (c_out, c_out, 3, 3))}
    if any(name.startswith("downsample.") for name in case.inputs) or c_out < c_in:  # without, the shortcut pads
        layers["downsample.0"] = ("downsample.1", (c_out, c_in, 1, 1))
    shapes = {f"{conv}.weight": shape for conv, (_, shape) in layers.items()}
    return shapes | {f"{bn}.{entry}": (c_out,) for bn, _ in layers.values() for entry in _BN}


def check_values_fit(golden) -> None:
    """GoldenError where expected values, bounds, other right values or laws are missing, not finite or of another shape."""
    key, op = golden.case.key, OPS[golden.case.op]
    found = golden.law if golden.law else golden.expected
    lacking = [name for name in op.outputs if "{" not in name and name not in found]
    if lacking or not found:
        raise GoldenError(f"{key}: the output {(lacking or list(op.outputs))[0]!r} is missing")
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
