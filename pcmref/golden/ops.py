"""The operations a backend can be checked in: what each takes, gives and is built from. One table, for code and document.

A name in braces stands for several arrays, one for each parameter: `{param}`, `grad/{param}`. Dimensions: N images, H and W
height and width, C channels, O output channels, K kernel, D devices of any shape.
"""

from dataclasses import dataclass, field

DTYPES = ("float64", "float32", "float16", "bfloat16")


@dataclass(frozen=True)
class Op:
    """One operation at one version. Arrays: {name: (dimensions, unit)}; a case may leave out inputs marked optional."""

    name: str
    inputs: dict[str, tuple[str, str]]
    outputs: dict[str, tuple[str, str]]
    params: tuple[str, ...] = ()
    noise: dict[str, tuple[str, str]] = field(default_factory=dict)
    needs: tuple[str, ...] = ()  # the operations it is made of: where they fail, its failure is a suspect
    exact: tuple[str, ...] = ()  # outputs that are compared bit by bit: choices and copies, no arithmetic
    device: bool = False  # conductances: checked in float32 or wider
    composite: bool = False  # several layers, between which a backend stores at its own dtype
    libm: bool = False  # takes exponentials, logarithms or powers: a backend's `libm_ulp` counts
    version: int = 1

    @property
    def dtypes(self) -> tuple[str, ...]:
        """The dtypes it can be checked in: draws are defined in float64, device quantities need more than 16 bits."""
        if self.name == "draws":
            return DTYPES[:1]
        return DTYPES[:2] if self.device else DTYPES


_X, _Y, _PER_CHANNEL = ("N,H,W,C", "1"), ("N,P,Q,O", "1"), ("C", "1")
_W, _LOGITS, _FLAT = ("O,C,KH,KW", "1"), ("N,O", "1"), ("N,C", "1")
_ANY, _US, _Z, _SCALAR = ("any", "1"), ("D", "uS"), ("D", "1"), ("", "1")
_POOL = ("kernel", "stride", "padding")
_GIVEN = {"mean": _PER_CHANNEL, "var": _PER_CHANNEL}
_AFFINE = {"weight": _PER_CHANNEL, "bias": _PER_CHANNEL}
_RUNNING = {"running_mean": _PER_CHANNEL, "running_var": _PER_CHANNEL}
_BN_GRADS = {"dx": _X, "dweight": _PER_CHANNEL, "dbias": _PER_CHANNEL}
_STATE = {"{param}": ("by name", "1")}
_LOSS = {"logits": _LOGITS, "labels": ("N", "class")}
_FC = {"w": ("O,C", "1"), "b": ("O", "1")}

_NETWORK = [
    Op("conv2d", {"x": _X, "w": _W}, {"y": _Y}, ("stride", "padding")),
    Op("conv2d_backward", {"dy": _Y, "x": _X, "w": _W}, {"dx": _X, "dw": _W}, ("stride", "padding")),
    Op("batch_norm", {"x": _X} | _AFFINE | _GIVEN, {"y": _X}, ("eps",)),
    Op("batch_norm_backward", {"dy": _X, "x": _X, "weight": _PER_CHANNEL} | _GIVEN, _BN_GRADS, ("eps",)),
    Op("batch_norm_train", {"x": _X} | _AFFINE | _RUNNING, {"y": _X} | _RUNNING, ("eps", "momentum")),
    Op("batch_norm_train_backward", {"dy": _X, "x": _X, "weight": _PER_CHANNEL}, _BN_GRADS, ("eps",)),
    Op("relu", {"x": _ANY}, {"y": _ANY}, exact=("y",)),
    Op("relu_backward", {"dy": _ANY, "x": _ANY}, {"dx": _ANY}, exact=("dx",)),
    Op("linear", {"x": _FLAT} | _FC, {"y": _LOGITS}),
    Op("linear_backward", {"dy": _LOGITS, "x": _FLAT, "w": ("O,C", "1")}, {"dx": _FLAT, "dw": ("O,C", "1"), "db": ("O", "1")}),
    Op("global_avg_pool", {"x": _X}, {"y": _FLAT}),
    Op("global_avg_pool_backward", {"dy": _FLAT, "x": _X}, {"dx": _X}),
    Op("max_pool2d", {"x": _X}, {"y": ("N,P,Q,C", "1")}, _POOL, exact=("y",)),
    Op("max_pool2d_backward", {"dy": ("N,P,Q,C", "1"), "x": _X}, {"dx": _X}, _POOL, exact=("dx",)),
    Op("softmax_cross_entropy", _LOSS, {"loss": _SCALAR}, ("smoothing",), libm=True),
    Op("softmax_cross_entropy_backward", _LOSS, {"dlogits": _LOGITS}, ("smoothing",), libm=True),
    Op(
        "basic_block",
        {"x": _X} | _STATE,
        {"y": _X},
        ("stride", "train", "eps"),
        needs=("conv2d", "batch_norm", "batch_norm_train", "relu"),
        composite=True,
    ),
    Op(
        "basic_block_backward",
        {"dy": _X, "x": _X} | _STATE,
        {"dx": _X, "grad/{param}": ("by name", "1")},
        ("stride", "eps"),
        needs=("basic_block", "conv2d_backward", "batch_norm_train_backward", "relu_backward"),
        composite=True,
    ),
    Op(
        "resnet",
        {"x": _X} | _STATE,
        {"logits": _LOGITS},
        ("network", "eps"),
        needs=("conv2d", "batch_norm", "relu", "basic_block", "max_pool2d", "global_avg_pool", "linear"),
        composite=True,
    ),
    Op(
        "resnet_backward",
        {"dlogits": _LOGITS, "x": _X} | _STATE,
        {"logits": _LOGITS, "grad/input": _X, "grad/{param}": ("by name", "1")},
        ("network", "eps"),
        needs=("resnet", "basic_block_backward", "max_pool2d_backward", "global_avg_pool_backward", "linear_backward"),
        composite=True,
    ),
    Op(
        "adabs",
        {"x_calibration": _X} | _STATE,
        {"{bn}.running_mean": _PER_CHANNEL, "{bn}.running_var": _PER_CHANNEL},
        ("network", "batch_size", "eps"),
        needs=("conv2d", "batch_norm_train", "basic_block"),
        composite=True,
    ),
]

_DEVICE = [
    Op("map", {"w": _ANY}, {"g_us": ("2,D", "uS"), "scale": ("", "uS")}, ("g_max_us",), device=True),
    Op("program", {"g_target_us": _US}, {"g_prog_us": _US}, ("model",), {"z": _Z}, device=True),
    Op("drift_exponent", {"g_target_us": _US}, {"nu": _Z}, ("model",), {"z": _Z}, device=True, libm=True),
    Op("drift", {"g_prog_us": _US, "nu": _Z}, {"g_drift_us": _US}, ("model", "t_s"), device=True, libm=True),
    Op("read", {"g_drift_us": _US, "g_target_us": _US}, {"g_us": _US}, ("model", "t_s"), {"z": _Z}, device=True, libm=True),
    Op(
        "gdc",
        {"g_t0_us": ("2,O,K", "uS"), "g_t_us": ("2,O,K", "uS")},
        {"alpha": ("or O", "1")},
        ("read_out", "g_max_us"),
        device=True,
    ),
    Op("dac", {"x": _ANY}, {"q": _ANY}, ("converter",), device=True),
    Op("adc", {"x": _ANY}, {"q": _ANY}, ("converter",), device=True),
    Op(
        "crossbar_mvm",
        {"x": ("N,K", "1"), "g_us": ("2,K,O", "uS")},
        {"y": _LOGITS},
        ("tile", "dac", "adc", "g_max_us", "scale", "alpha"),
        needs=("dac", "adc"),
        device=True,
    ),
    Op(
        "chip",
        {"x": _X} | _STATE,
        {
            "g_prog_us/{param}": ("2,by name", "uS"),
            "nu/{param}": ("2,by name", "1"),
            "weight/{param}": ("by name", "1"),
            "logits": _LOGITS,
        },
        ("model", "network", "seed", "t_s", "read", "gdc", "eps"),
        {f"{what}/{{param}}": ("2,by name", "1") for what in ("program", "drift", "read")}
        | {"read_t0/{param} (with gdc)": ("2,by name", "1")},
        needs=("map", "program", "drift_exponent", "drift", "read", "gdc", "resnet", "draws"),
        device=True,
        composite=True,
        libm=True,
    ),
]

_TRAINING = [
    Op("inject_weight_noise", _STATE, {"{param}": ("by name", "1")}, ("eta", "seed", "step"), {"{param}": ("by name", "1")}),
    Op("clip_weights", _STATE, {"{param}": ("by name", "1")}, ("alpha",)),
    Op(
        "sgd_step",
        {"w": _ANY, "grad": _ANY, "velocity (optional)": _ANY},
        {"w": _ANY, "velocity": _ANY},
        ("learning_rate", "momentum", "weight_decay", "nesterov"),
    ),
    Op(
        "draws",
        {},
        {
            "raw": ("n", "64-bit word"),
            "uniform": ("n", "1"),
            "standard_normal": ("n", "1"),
            "permutation": ("n", "index"),
            "integers": ("n", "1"),
        },
        ("seed", "name", "n", "high"),
        exact=("raw", "uniform", "permutation", "integers"),
    ),
]

OPS: dict[str, Op] = {op.name: op for op in (*_NETWORK, *_DEVICE, *_TRAINING)}
RANDOM = ("program", "drift_exponent", "read", "inject_weight_noise")  # those with a law that can be sampled


def upstream(name: str) -> set[str]:
    """All operations that an operation is made of, directly or not."""
    found, todo = set(), list(OPS[name].needs)
    while todo:
        op = todo.pop()
        if op not in found:
            found.add(op)
            todo += OPS[op].needs
    return found
